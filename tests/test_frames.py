"""Predictions for tables: the same as task by task, and never from the prior without a word."""

import numpy as np
import pandas as pd
import pytest

import bayesmeta as bm
from bayesmeta import frames
from bayesmeta.errors import DataError
from bayesmeta.frames import Matching, describe_tasks, predict_frame


def table(counts: list[int], seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    ids = np.repeat(np.arange(len(counts)), counts)
    x = rng.uniform(0, 5, len(ids))
    return pd.DataFrame({"id": ids, "x": x, "y": rng.normal(0, 2, len(counts))[ids] + x + rng.normal(0, 0.3, len(ids))})


@pytest.fixture(scope="module")
def model() -> tuple[bm.Learner, bm.tasks.Schema]:
    tasks = bm.TaskDataset.from_frame(table([6] * 20), task="id", x=["x"], y=["y"])
    learner = bm.Standardized(bm.ALPaCA(bm.Identity(1))).double()
    bm.fit_evidence(learner, tasks)
    return learner, tasks.schema


@pytest.mark.parametrize("limits", [(256, 2**16), (3, 2**16), (256, 8)])
def test_ragged_tasks_are_predicted_as_one_by_one(model: tuple, monkeypatch: pytest.MonkeyPatch, limits: tuple) -> None:
    learner, schema = model
    monkeypatch.setattr(frames, "CHUNK", limits[0])
    monkeypatch.setattr(frames, "POINTS", limits[1])
    context, query = table([1, 3, 17, 2, 1, 40]), table([2, 1, 1, 30, 3, 1, 4, 0, 9], seed=1)
    context, query = (each.sample(frac=1.0, random_state=0) for each in (context, query))
    found = predict_frame(learner, schema, context, query)
    assert found.index.equals(query.index)
    for name in query.id.unique():
        known, asked = context[context.id == name], found[found.id == name]
        prediction = learner.adapt(bm.Data.from_arrays(known[["x"]], known[["y"]])).predict(asked[["x"]].to_numpy())
        # batches of other sizes sum in another order
        np.testing.assert_allclose(asked["mean"], prediction.mean[0, :, 0], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(asked["upper"], prediction.interval(0.9)[1][0, :, 0], rtol=1e-9, atol=1e-9)
    described = describe_tasks(learner, schema, context, query, None)
    assert described.index.tolist() == query.id.unique().tolist()
    assert described.points.tolist() == [int((context.id == name).sum()) for name in described.index]


CASTS = [
    lambda ids: ids.astype(float),
    lambda ids: ids.astype("Int32"),
    lambda ids: ids.astype(str),
    lambda ids: ids.astype("string"),
    lambda ids: ids.astype("category"),
    lambda ids: ids.astype(str).astype("category"),
    lambda ids: ids.astype(object),
    lambda ids: pd.Series([str(i) if i % 2 else float(i) for i in ids], index=ids.index, dtype=object),
]


@pytest.mark.parametrize("place", ["context", "query"])
@pytest.mark.parametrize("cast", CASTS)
def test_the_type_of_the_task_column_does_not_matter(model: tuple, cast: object, place: str) -> None:
    learner, schema = model
    frame = table([6] * 12)
    given = {"context": frame.groupby("id").head(4), "query": frame.groupby("id").tail(2)}
    right = predict_frame(learner, schema, **given)
    given[place] = given[place].assign(id=cast(given[place]["id"]))
    found = predict_frame(learner, schema, **given)
    assert found[["mean", "sd"]].equals(right[["mean", "sd"]])
    assert found["id"].equals(given["query"]["id"])  # as the user wrote them
    assert describe_tasks(learner, schema, **given, surprise=None).points.tolist() == [4] * 12


def test_a_context_of_other_tasks_warns(model: tuple) -> None:
    learner, schema = model
    frame = table([3] * 4)
    other = frame.assign(id=frame.id.map({0: "0.0", 1: "1.0", 2: "2.0", 3: "3.0"}))
    with pytest.warns(UserWarning, match=r"none of 4 tasks to predict has context.*perhaps these are one: '0.0' and 0"):
        prior = predict_frame(learner, schema, other, frame)
    assert prior["sd"].equals(
        predict_frame(learner, schema, frame.head(0), frame)["sd"]
    )  # said to be empty: no warning
    with pytest.warns(UserWarning, match="no row of the context has an outcome"):
        predict_frame(learner, schema, frame.assign(y=np.nan), frame)
    some = Matching.of(schema, frame, frame[frame.id > 1].assign(id=lambda f: f.id + 1))
    assert (some.tasks, some.with_context, some.unmatched, some.warning) == (2, 1, (0, 1, 2), "")
    assert str(some) == "1 of 2 tasks to predict have context; 3 tasks of the context are not asked about"


@pytest.mark.parametrize("column", ["mean", "sd", "lower", "upper"])
def test_results_overwrite_nothing(model: tuple, column: str) -> None:
    learner, schema = model
    frame = table([3] * 4)
    with pytest.raises(DataError, match=rf"without the columns of the result .*got one with '{column}': rename"):
        predict_frame(learner, schema, frame, frame.assign(**{column: "mine"}))
    predict_frame(learner, schema, frame.assign(**{column: "mine"}), frame)  # of the context nothing is written
    two = bm.tasks.Schema("id", ("x",), ("y", "z"))
    assert f"z_{column}" in frames.result_columns(two)
    assert column not in frames.result_columns(two)


def test_nothing_is_asked_of_rows_without_an_outcome(model: tuple) -> None:
    learner, schema = model
    frame = table([4] * 3)
    holes = frame.copy()
    holes.loc[[0, 5], ["x", "y"]] = np.nan
    found = predict_frame(learner, schema, holes, frame)
    assert found["mean"].equals(predict_frame(learner, schema, frame.drop([0, 5]), frame)["mean"])


def test_levels_are_found_by_the_rule_of_names() -> None:
    frame = table([5] * 12).assign(arm=lambda f: f.id % 3)
    tasks = bm.TaskDataset.from_frame(frame.astype({"arm": "category"}), task="id", x=["x", "arm"], y=["y"])
    assert tasks.schema.levels == {"arm": ("0", "1", "2")}
    encoded = tasks.schema.inputs(frame)
    schema = bm.tasks.Schema.from_json(tasks.schema.to_json())
    for cast in CASTS:
        assert (schema.inputs(frame.assign(arm=cast(frame["arm"]))) == encoded).all()
    with pytest.raises(DataError, match=r"hold one of \['0', '1', '2'\], got '1.0' in row 0"):
        schema.inputs(frame.assign(arm="1.0"))  # text is as it is written
    with pytest.raises(DataError, match="got a missing cell in row 0"):
        schema.inputs(frame.assign(arm=None))
