"""Several outcomes, of which rows may lack some: no row is lost to the outcomes that it has, and nothing is made up."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

import bayesmeta as bm
from bayesmeta.cli.app import app
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.predictives.covariances import covariance_of_points
from bayesmeta.recipes import recipe
from bayesmeta.separate_outcomes import evaluate_each, for_tasks
from bayesmeta.table_account import account
from bayesmeta.trainers import Training
from bayesmeta.wrappers import Separately

pytestmark = pytest.mark.filterwarnings("ignore::bayesmeta.ConvergenceWarning")  # of fits that are only compared
NAN = float("nan")
X = [0.0, 1.0, 2.0, 3.0]
Y = [[0.1, 5.0], [0.9, NAN], [NAN, 4.0], [2.7, 3.5]]


def _learners() -> dict[str, bm.Learner]:
    torch.manual_seed(0)
    return {"u": bm.ALPaCA(bm.MLP(1, [8])).double(), "v": bm.ALPaCA(bm.Polynomial(1, 2)).double()}


def _columns(rows: slice = slice(None)) -> tuple[bm.Data, bm.Data]:
    """Each outcome with the points that have it."""
    frame = pd.DataFrame(Y, columns=["u", "v"]).assign(x=X)[rows]
    one, other = (frame[["x", name]].dropna() for name in ("u", "v"))
    return bm.Data.from_arrays(one["x"], one["u"]), bm.Data.from_arrays(other["x"], other["v"])


def test_each_outcome_learns_from_the_points_that_have_it() -> None:
    learners = _learners()
    learner = Separately(learners)
    found = learner.adapt(bm.Data.partly_known(X, Y)).predict([1.5, 4.0])
    parts = [each.adapt(part).predict([1.5, 4.0]) for each, part in zip(learners.values(), _columns(), strict=True)]
    torch.testing.assert_close(found.mean, torch.cat([part.mean for part in parts], -1))
    torch.testing.assert_close(found.stddev, torch.cat([part.stddev for part in parts], -1))
    torch.testing.assert_close(found.quantile(0.2), torch.cat([part.quantile(0.2) for part in parts], -1))
    y = torch.tensor([[[1.0, 3.0], [3.0, 2.0]]], dtype=torch.float64)
    torch.testing.assert_close(found.log_prob(y), sum(p.log_prob(y[..., c : c + 1]) for c, p in enumerate(parts)))
    torch.testing.assert_close(found.cdf(y), torch.cat([p.cdf(y[..., c : c + 1]) for c, p in enumerate(parts)], -1))
    covariance = covariance_of_points(found)
    torch.testing.assert_close(covariance, torch.cat([covariance_of_points(part) for part in parts], 1))
    assert found.noiseless.variance.lt(found.variance).all()


def test_an_update_is_adapting_to_all_points_at_once() -> None:
    learner = Separately(_learners())
    first, second = bm.Data.partly_known(X[:2], Y[:2]), bm.Data.partly_known(X[2:], Y[2:])
    updated = learner.adapt(first).update(second)
    assert updated.points_seen.tolist() == [4]
    expected = learner.adapt(bm.Data.partly_known(X, Y)).predict([1.5])
    torch.testing.assert_close(updated.predict([1.5]).mean, expected.mean)
    torch.testing.assert_close(updated.predict([1.5]).stddev, expected.stddev)


def test_what_stands_in_place_of_a_missing_outcome_never_matters() -> None:
    data = bm.Data.partly_known(X, Y)
    other = bm.Data(data.x, data.y.masked_fill(~data.known, 1e6), data.mask, data.noise)
    gradients = []
    for each in (data, other):
        learner = Separately(_learners())
        batch = bm.TaskBatch(each.points(slice(2)), each.points(slice(2, 4)))
        (learner.meta_loss(batch) - learner.log_evidence(each)).sum().backward()
        gradients.append([p.grad for p in learner.parameters() if p.grad is not None])
        assert all(bool(gradient.isfinite().all()) for gradient in gradients[-1])
    torch.testing.assert_close(*gradients, rtol=0.0, atol=0.0)


def test_losses_and_evidences_are_sums_over_outcomes() -> None:
    learners = _learners()
    learner, parts = Separately(learners), _columns()
    expected = sum(each.log_evidence(part) for each, part in zip(learners.values(), parts, strict=True))
    torch.testing.assert_close(learner.log_evidence(bm.Data.partly_known(X, Y)), expected)


@pytest.mark.parametrize(
    "learner",
    [
        bm.ALPaCA(bm.Identity(1), num_outputs=2),
        bm.MAML(bm.MLP(1, [4]), num_outputs=2),  # which has a place for known noise
        bm.ConditionalNeuralProcess(bm.Identity(1), head=bm.heads.GaussianHead(2)),
    ],
    ids=lambda learner: learner.title,
)
def test_others_refuse_points_that_lack_an_outcome(learner: bm.Learner) -> None:
    data = bm.Data.partly_known(X, Y)
    with pytest.raises(UnsupportedError, match=r"expected points with all their outcomes.*Separately"):
        learner.adapt(data)
    posterior = learner.adapt(bm.Data.from_arrays(X[:1], [[0.1, 5.0]]))
    with pytest.raises(UnsupportedError, match="expected points with all their outcomes"):
        posterior.update(data)
    assert learner.adapt(bm.Data.from_arrays(X, np.nan_to_num(Y))).points_seen is not None


def test_known_noise_of_outcomes_that_were_measured() -> None:
    bars = [[0.1, 0.2], [0.3, NAN], [NAN, 0.1], [0.2, 0.2]]
    data = bm.Data.partly_known(X, Y, bars)
    assert data.noise[0, 1].tolist() == [pytest.approx(0.09), float("inf")]
    learner = Separately({name: bm.ALPaCA(bm.Identity(1)).double() for name in "uv"})
    found = learner.adapt(data).predict([1.5], yerr=0.5)
    for c, part in enumerate(_columns()):
        deviations = np.array(bars)[~np.isnan(np.array(Y)[:, c]), c]
        alone = bm.Data.from_arrays(part.x[0], part.y[0], deviations)
        expected = learner.learners[c].adapt(alone).predict([1.5], yerr=0.5)
        torch.testing.assert_close(found.stddev[..., c], expected.stddev[..., 0])


@pytest.mark.parametrize(
    ("learners", "message"),
    [
        ({}, "a learner for each outcome, got none"),
        ({"u": bm.ALPaCA(bm.Identity(1)), "v": bm.ALPaCA(bm.Identity(2))}, "of inputs \\(1,\\)"),
        ({"u": bm.ALPaCA(bm.Identity(1), num_outputs=2)}, "learners of a single number"),
        ({"u": bm.R2D2(bm.Identity(1), num_classes=2)}, "learners of a single number"),
    ],
)
def test_wrong_learners(learners: dict[str, bm.Learner], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Separately(learners)


@pytest.mark.parametrize(
    ("y", "message"),
    [([[NAN, NAN], [1.0, 2.0]], "an outcome at every point, got none at row 0"), ([[np.inf, 1.0]] * 2, "to be finite")],
)
def test_points_without_any_outcome(y: list[list[float]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        bm.Data.partly_known([0.0, 1.0], y)


def _frame(tasks: int = 12, points: int = 6) -> pd.DataFrame:
    """Lines; a third of each outcome is missing, and one row has none."""
    random = np.random.default_rng(0)
    who, t = np.repeat(np.arange(tasks), points), np.tile(np.arange(float(points)), tasks)
    u = 5.0 * random.normal(size=tasks)[who] + t + 0.2 * random.normal(size=len(t))
    v = 100.0 + 20.0 * random.normal(size=tasks)[who] - 3.0 * t + random.normal(size=len(t))
    frame = pd.DataFrame({"who": [f"s{each}" for each in who], "t": t, "u": u, "v": v})
    frame.loc[frame.index % 3 == 1, "u"] = np.nan
    frame.loc[frame.index % 3 == 2, "v"] = np.nan
    frame.loc[4, ["u", "v"]] = np.nan
    return frame


def _tasks() -> bm.TaskDataset:
    return bm.TaskDataset.from_frame(_frame(), task="who", x=["t"], y=["u", "v"])


def test_a_table_keeps_rows_with_any_outcome() -> None:
    tasks = _tasks()
    assert int(tasks.counts.sum()) == 71
    assert tasks.has_gaps
    lines = account(_frame(), tasks.schema)
    assert lines[-2].startswith("1 row is left out, because it has no outcome: row 4")
    assert lines[-1] == "47 rows have some of their outcomes and are kept: each outcome has a learner of its own"
    alone = bm.TaskDataset.from_frame(_frame(), task="who", x=["t"], y=["v"])
    part = tasks.of_outcome("v")
    assert part.names == alone.names
    assert part.schema == alone.schema
    torch.testing.assert_close(part.flat.y, alone.flat.y)
    assert part.flat.noise is None


def test_a_recipe_trains_each_outcome_on_its_rows_and_predicts_from_them(tmp_path: Path) -> None:
    tasks, frame = _tasks(), _frame()
    chosen = for_tasks(recipe("alpaca-linear"), tasks)
    trained = chosen.train(chosen.for_table(tasks.schema), tasks, Training(steps=30)).learner
    bm.save(trained, tmp_path / "model")
    query = pd.DataFrame({"who": ["s0", "new", "s5"], "t": [6.0, 6.0, 1.0]})
    found = bm.predict_frame(bm.load(tmp_path / "model"), tasks.schema, frame, query)
    for name in ("u", "v"):
        alone = bm.TaskDataset.from_frame(frame, task="who", x=["t"], y=[name])
        plain = recipe("alpaca-linear")
        learner = plain.train(plain.for_table(alone.schema), alone, Training(steps=30)).learner
        expected = bm.predict_frame(learner, alone.schema, frame, query)
        np.testing.assert_allclose(found[[f"{name}_mean", f"{name}_sd"]], expected[["mean", "sd"]], rtol=1e-8)


def test_a_table_without_gaps_has_the_recipe_itself() -> None:
    tasks = bm.TaskDataset.from_frame(_frame().dropna(), task="who", x=["t"], y=["u", "v"])
    chosen = recipe("alpaca-linear")
    assert for_tasks(chosen, tasks) is chosen
    assert not tasks.has_gaps


def test_scores_are_of_points_with_all_outcomes_given_all_points() -> None:
    tasks = _tasks()
    learner = for_tasks(recipe("alpaca-linear"), tasks).for_table(tasks.schema)
    learner.prepare(tasks.data)
    whole = bm.TaskDataset.from_frame(_frame().dropna(), task="who", x=["t"], y=["u", "v"])
    found, expected = (bm.evaluate(learner, each, shots=[0], num_bootstrap=0).table() for each in (tasks, whole))
    pd.testing.assert_frame_equal(found, expected, rtol=1e-8)
    assert found["points"].unique().tolist() == [24]
    after_two = bm.evaluate(learner, tasks, shots=[2], num_bootstrap=0).table()  # some of these lack an outcome
    assert after_two["nll"].notna().all()


def test_scores_of_each_outcome_where_it_was_measured() -> None:
    tasks = _tasks()
    learner = for_tasks(recipe("alpaca-linear"), tasks).for_table(tasks.schema)
    learner.prepare(tasks.data)
    found = evaluate_each(learner, tasks, [0, 2], num_bootstrap=0)
    assert [int(each.table()["points"].iloc[0]) for each in found.values()] == [48 - 24, 47 - 24]  # two are shown
    alone = bm.evaluate(learner.learners[1], tasks.of_outcome("v"), [0, 2], num_bootstrap=0)
    pd.testing.assert_frame_equal(found["v"].table(), alone.table())
    with pytest.raises(DataError, match="expected Separately of 2 outcomes, got ALPaCA"):
        evaluate_each(bm.ALPaCA(bm.Identity(1), num_outputs=2), tasks, [0])


def test_pictures_leave_out_what_was_not_measured(tmp_path: Path) -> None:
    tasks = _tasks()
    learner = for_tasks(recipe("alpaca-linear"), tasks).for_table(tasks.schema)
    learner.prepare(tasks.data)
    task = tasks.task("s3")
    torch.testing.assert_close(
        tasks.of_outcome("v").flat.y[:, 0], tasks.flat.measured[~tasks.flat.measured[:, 1].isnan(), 1]
    )
    bm.report(learner, tasks, shots=[0, 1], num_bootstrap=0, examples=1).write(tmp_path / "report.html")
    figure = bm.plotting.predictive_bands(learner, task, shots=[3], output=1)
    drawn = np.concatenate([line.get_ydata() for line in figure.axes[0].lines if line.get_marker() in (".", "o")])
    expected = task.y[0, task.known[0, :, 1], 1].numpy()
    np.testing.assert_array_equal(np.sort(drawn[np.isfinite(drawn)]), np.sort(expected))


def test_known_points_of_two_tables_and_a_file(tmp_path: Path) -> None:
    tasks, frame = _tasks(), _frame()
    learner = for_tasks(recipe("alpaca-linear"), tasks).for_table(tasks.schema)
    learner.prepare(tasks.data)
    known = bm.tasks.KnownPoints.of(tasks.schema, frame[frame.notna().all(axis=1)])  # no gaps yet
    known = known.extended(frame[frame.isna().any(axis=1)])
    known.save(tmp_path / "state", learner)
    again = bm.tasks.KnownPoints.load(tmp_path / "state", learner)
    query = pd.DataFrame({"who": ["s0", "s5"], "t": [6.0, 1.0]})
    expected = bm.predict_frame(learner, tasks.schema, frame, query)
    pd.testing.assert_frame_equal(bm.predict_frame(learner, tasks.schema, again, query), expected)


def test_the_command_line(tmp_path: Path) -> None:
    def run(*arguments: Any) -> str:
        result = CliRunner().invoke(app, [str(each) for each in arguments])
        assert result.exit_code == 0, result.output
        return result.output

    table, model = tmp_path / "table.csv", tmp_path / "model"
    _frame().to_csv(table, index=False)
    roles = ["--task", "who", "--x", "t", "--y", "u", "--y", "v"]
    said = run("fit", table, *roles, "--method", "alpaca-linear", "--holdout", "0.3", "--output", model)
    assert "47 rows have some of their outcomes and are kept" in said
    assert "u: 8 to learn from; v: 8 to learn from" in said
    run("predict", model, table, table, "--output", tmp_path / "out.csv")
    assert pd.read_csv(tmp_path / "out.csv")["v_sd"].notna().all()
    said = run("evaluate", model, table, "--output", tmp_path / "scores.csv")
    assert "v, where it was measured: " in said
    scores = pd.read_csv(tmp_path / "scores.csv").set_index(["outcome", "shots"])
    assert scores.loc[("u", 0), "tasks"] == 4  # those that were held out
