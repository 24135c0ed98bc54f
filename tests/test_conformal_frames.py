"""Conformal regions of the rows of a table: those of the conformal objects, task by task."""

import warnings

import numpy as np
import pandas as pd
import pytest

import bayesmeta as bm
from bayesmeta.conformal_frames import conformal_frame, conformal_predictions


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """60 cells of 6 rows with heavy-tailed noise, two outcomes and one of classes."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"cell": np.repeat(np.arange(60), 6), "t": np.tile(np.arange(6.0), 60)})
    level = rng.normal(size=60).repeat(6)
    frame["u"] = frame["t"] + level + rng.standard_t(2, size=360)
    frame["v"] = 10.0 * level + rng.normal(size=360)
    frame["kind"] = np.where(level + rng.normal(size=360) > 0, "high", "low")
    return frame


def test_regions_are_those_of_the_objects(frame: pd.DataFrame) -> None:
    """Tasks with none, one and three known rows; two outcomes."""
    tasks = bm.TaskDataset.from_frame(frame, task="cell", x=["t"], y=["u", "v"])
    learner = bm.Standardized(bm.ALPaCA(bm.Identity(1), num_outputs=2)).double()
    bm.fit_evidence(learner, tasks.select(range(20)))
    calibration = tasks.select(range(20, 50))
    known = pd.concat([frame[frame["cell"] == 55].head(1), frame[frame["cell"] == 57].head(3)])
    query = frame[frame["cell"].isin([56, 55, 57])].sample(frac=1.0, random_state=0)
    found = conformal_frame(learner, tasks.schema, known, query, calibration, level=0.8)
    own = bm.predict_frame(learner, tasks.schema, known, query, level=0.8)
    assert found.columns.tolist() == own.columns.tolist()
    for name in ("u_mean", "u_sd", "v_mean", "v_sd", "t"):
        assert (found[name] == own[name]).all()
    for cell, count in ((56, 0), (55, 1), (57, 3)):
        conformal = bm.calibration.HierarchicalConformal(learner, calibration, count)
        rows = frame[frame["cell"] == cell].head(count)
        asked = query[query["cell"] == cell]
        posterior = conformal.adapt(bm.Data.from_arrays(rows[["t"]].to_numpy(), rows[["u", "v"]].to_numpy()))
        lower, upper = posterior.interval(asked[["t"]].to_numpy(), level=0.8)
        ours = found[found["cell"] == cell]
        np.testing.assert_allclose(ours[["u_lower", "v_lower"]], lower[0].numpy(), rtol=1e-9)  # a batch and one by one
        np.testing.assert_allclose(ours[["u_upper", "v_upper"]], upper[0].numpy(), rtol=1e-9)


def test_tasks_that_are_asked_about_do_not_calibrate(frame: pd.DataFrame) -> None:
    tasks = bm.TaskDataset.from_frame(frame, task="cell", x=["t"], y=["u"])
    learner = bm.Standardized(bm.ALPaCA(bm.Identity(1))).double()
    learner.prepare(tasks.data)
    query = frame[frame["cell"] < 10].drop(columns="u")
    found = conformal_frame(learner, tasks.schema, frame.head(0), query, tasks)
    others = conformal_frame(learner, tasks.schema, frame.head(0), query, tasks.select(range(10, 60)))
    assert found.equals(others)
    with pytest.raises(bm.DataError, match="expected calibration tasks that are not asked about, got 10 that all are"):
        conformal_frame(learner, tasks.schema, frame.head(0), query, tasks.select(range(10)))
    with pytest.raises(bm.DataError, match="at least 99 calibration tasks"):
        conformal_frame(learner, tasks.schema, frame.head(0), query, tasks, level=0.99)


def test_regions_that_are_not_known_are_empty(frame: pd.DataFrame) -> None:
    tasks = bm.TaskDataset.from_frame(frame, task="cell", x=["t"], y=["u"])
    learner = bm.Standardized(bm.ALPaCA(bm.Identity(1))).double()
    learner.prepare(tasks.data)
    known = pd.concat([frame[frame["cell"] == 0], frame[frame["cell"] == 1].head(2)])
    query = frame[frame["cell"] < 2]
    with pytest.warns(UserWarning, match="no conformal region for 1 of 2 tasks"):
        found = conformal_frame(learner, tasks.schema, known, query, tasks.select(range(2, 60)))
    assert found["lower"].isna().tolist() == (found["cell"] == 0).tolist()
    assert found["mean"].notna().all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nothing = conformal_predictions(learner, tasks.schema, known, query.head(0), tasks.select(range(2, 60)))
    assert nothing[1] == ""


def test_sets_of_classes(frame: pd.DataFrame) -> None:
    tasks = bm.TaskDataset.from_frame(frame, task="cell", x=["t"], y="kind")
    learner = bm.Standardized(bm.MAML(bm.MLP(1, [4]), likelihood=bm.likelihoods.Categorical(2)))
    learner.prepare(tasks.data)
    query = frame[frame["cell"] < 10]
    found = conformal_frame(learner, tasks.schema, frame.head(0), query, tasks, level=0.9)
    sets = bm.calibration.HierarchicalConformal(learner, tasks.select(range(10, 60)), 0).adapt(
        bm.Data.empty(tasks.data.select([0]))
    )
    for row in found.itertuples():
        held = sets.label_set([[row.t]], level=0.9)[0, 0]
        names = {name for name, inside in zip(tasks.schema.classes, held.tolist(), strict=True) if inside}
        assert set(filter(None, row.likely.split(" | "))) == names


def test_known_noise_is_refused(frame: pd.DataFrame) -> None:
    tasks = bm.TaskDataset.from_frame(frame.assign(error=0.1), task="cell", x=["t"], y=["u"], yerr=["error"])
    learner = bm.Standardized(bm.ALPaCA(bm.Identity(1))).double()
    learner.prepare(tasks.data)
    with pytest.raises(bm.UnsupportedError, match="without known noise"):
        conformal_frame(learner, tasks.schema, frame.head(0).assign(error=0.1), frame.head(3), tasks)
