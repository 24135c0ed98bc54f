"""The command line's default for numbers: what it learns from, what it makes of odd tables, and that it is kept."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

import bayesmeta as bm
from bayesmeta import default_stack
from bayesmeta.cli.app import app
from bayesmeta.default_stack import ByStacking, fewer
from bayesmeta.recipes import recipe
from bayesmeta.selection import OneSplit
from bayesmeta.selection.cross_validation import Factory
from bayesmeta.trainers import Training

QUIET = Training(progress=False)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two folds, short searches, the best theta of the line: what is tested here does not depend on them."""
    monkeypatch.setattr(default_stack, "ITERATIONS", 3)
    monkeypatch.setattr(default_stack, "FOLDS", 2)
    monkeypatch.setattr(default_stack, "MOST_AVERAGED", 0)
    monkeypatch.setattr(default_stack, "STEPS", 5)


def _frame(num_tasks: int, points: int, seed: int = 0) -> pd.DataFrame:
    """Lines of two outcomes with levels of their own, and a known deviation of the first."""
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randn(num_tasks, generator=generator).double().repeat_interleave(points)
    x, noise = (torch.randn(num_tasks * points, generator=generator).double() for _ in range(2))
    task = torch.arange(num_tasks).repeat_interleave(points)
    y = levels + x + 0.3 * noise
    return pd.DataFrame({"task": task, "x": x, "y": y, "z": -y, "error": 0.3})


def _tasks(num_tasks: int, points: int, **columns: object) -> bm.TaskDataset:
    named = {"task": "task", "x": ["x"], "y": "y"} | columns
    return bm.TaskDataset.from_frame(_frame(num_tasks, points), **named)  # type: ignore[arg-type]


def _trained(tasks: bm.TaskDataset) -> bm.Learner:
    assert tasks.schema is not None
    chosen = recipe("stack")
    return chosen.train(chosen.for_table(tasks.schema), tasks, QUIET).learner


def test_a_large_table_is_thinned_by_task_and_point() -> None:
    tasks = _tasks(60, 50)
    chosen = fewer(tasks, 0)
    assert (len(chosen), chosen.counts.unique().tolist()) == (33, [30])
    name = chosen.names[7]
    kept, all_of_it = chosen.task(name), tasks.task(name)
    places = [int((all_of_it.x[0] == point).nonzero()[0, 0]) for point in kept.x[0]]
    assert len(set(places)) == 30
    torch.testing.assert_close(kept.y, all_of_it.y[:, places])
    again = fewer(tasks, 0)
    torch.testing.assert_close(again.flat.x, chosen.flat.x)
    assert fewer(tasks, 1).names != chosen.names


@pytest.mark.parametrize(
    ("num_tasks", "points", "said"),
    [
        (3, 4, "3 to learn from"),
        (6, 4, "6 to learn from, each third in turn to weigh models by"),
        (60, 50, "33 to learn from, each third in turn to weigh models by, 27 not used"),
        (
            700,
            4,
            "500 to train models on and 200 to weigh them by, then all 700 to train on "
            "(network: 560 to learn from, 140 for early stopping; other models: 250 to learn from)",
        ),
    ],
)
def test_what_tasks_are_for_is_said(num_tasks: int, points: int, said: str) -> None:
    assert ByStacking().purposes(_tasks(num_tasks, points), QUIET) == said


@pytest.mark.parametrize("columns", [{}, {"yerr": "error"}], ids=["plain", "known noise"])
def test_many_tasks_have_a_network_that_learns_from_all(
    columns: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what weighs it are tasks that nothing was trained on (`OneSplit`, tests/selection)."""
    given: list[tuple[Mapping[str, Factory], bm.TaskDataset, object]] = []

    def spied(
        learners: Mapping[str, Factory], tasks: bm.TaskDataset, shots: list[int], folds: object, query: int, seed: int
    ) -> bm.Learner:
        given.append((learners, tasks, folds))
        return learners["network"](tasks)

    monkeypatch.setattr(default_stack, "stack", spied)
    tasks = _tasks(120, 9, **columns)
    assert tasks.schema is not None
    chosen = recipe("stack")
    trained = chosen.train(chosen.for_table(tasks.schema), tasks, Training(steps=3, progress=False))
    (learners, seen, folds), network = given[0], trained.learner
    assert folds == OneSplit(60)  # a half rather than a third here
    assert seen is tasks
    assert set(learners) == {"line", "noisy line", "pooled", "network"} | (set() if columns else {"curves", "alone"})
    # it is what the recipe of its own makes of the same seed
    own = recipe("alpaca")
    torch.manual_seed(0)
    other = own.train(own.for_table(tasks.schema), tasks, Training(steps=3, progress=False)).learner
    torch.manual_seed(0)
    again = learners["network"](tasks)
    assert network.title == other.title == "Standardized(ALPaCA)"
    for ours, theirs in zip(again.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.0, atol=0.0)
    given.clear()
    few = tasks.select(range(99))
    with pytest.raises(KeyError, match="network"):  # of which there is none
        chosen.train(chosen.for_table(tasks.schema), few, QUIET)
    assert given[0][2] == default_stack.FOLDS


def test_from_table_to_prediction_without_naming_a_method(tmp_path: Path) -> None:
    frame = _frame(6, 4)
    for name, rows in (("table", frame), ("known", frame.groupby("task").head(2)), ("asked", frame[frame.task < 2])):
        rows.to_csv(tmp_path / f"{name}.csv", index=False)
    table, known, asked, out, model = (tmp_path / f"{n}.csv" for n in ("table", "known", "asked", "out", "model"))
    done = CliRunner().invoke(app, ["fit", str(table), "--task", "task", "--x", "x", "--y", "y", "-o", str(model)])
    assert done.exit_code == 0, done.output
    assert "stack on TaskDataset(6 tasks, 4 to 4 points each): Stacked: " in done.output
    assert ("the model folder holds 24 rows of the training table" in done.output) == ("curves" in done.output)
    assert "warning" not in done.output.replace("warning: predict will not warn", "")
    done = CliRunner().invoke(app, ["predict", str(model), str(known), str(asked), "-o", str(out)])
    assert done.exit_code == 0, done.output
    predicted = pd.read_csv(out)
    assert (predicted["lower"] < predicted["mean"]).all()
    assert (predicted["mean"] < predicted["upper"]).all()
    assert (predicted["mean"] - predicted["y"]).abs().mean() < 0.5


@pytest.mark.parametrize("columns", [{"x": [], "y": ["y", "z"]}, {"yerr": "error"}], ids=["no input", "known noise"])
def test_every_table_has_a_mixture(columns: dict[str, object]) -> None:
    tasks = _tasks(4, 3, **columns)
    learner = _trained(tasks)
    prediction = learner.adapt(tasks.data.points(slice(1))).predict(tasks.data.x[:, 1:])
    assert prediction.stddev.isfinite().all()
    if "yerr" in columns:
        assert learner.known_noise


def test_few_tasks_train_the_line_alone_and_average_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default_stack, "MOST_AVERAGED", 20)
    monkeypatch.setattr(default_stack, "MEMBERS", 4)
    learner = _trained(_tasks(3, 4))
    assert isinstance(learner, bm.wrappers.Stacked)
    assert learner.names == ("line",)
    assert isinstance(learner.learner, bm.HyperPosterior)


def test_no_chains_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where draws of theta do not do, as in a table without noise, the line is at its best theta."""
    monkeypatch.setattr(default_stack, "MOST_AVERAGED", 20)
    monkeypatch.setattr("bayesmeta.training.averaging.ENOUGH", 1e9)
    monkeypatch.setattr("bayesmeta.training.averaging.nuts_hyper_posterior", None)
    learner = _trained(_tasks(3, 4))
    assert isinstance(learner, bm.wrappers.Stacked)
    assert isinstance(learner.learner, bm.Standardized)


def test_the_effect_of_a_covariate_is_that_of_all_tasks() -> None:
    point = bm.Data.from_arrays([[0.0, 1.0, 2.0]], [0.0]).to(torch.float64)
    for make in (default_stack.line, default_stack.noisy_line):
        inside = [each for each in make(default_stack.Sizes(3, 1, 1)).modules() if isinstance(each, bm.ALPaCA)]
        assert inside[0].parts(point).covariance.varying == (0, 1, 2)  # a level and two slopes, but no covariate


def test_all_models_of_positive_outcomes_see_their_logarithms() -> None:
    """The pooled network once took the logarithm of the logarithms, and could not be mixed with the others."""
    from bayesmeta.outcomes import Numbers, Positives
    from bayesmeta.selection import pooled
    from bayesmeta.trainers import on_log_scale

    table = bm.tasks.example_table()
    tasks = bm.TaskDataset.from_frame(table, task="plant", x=["day"], y="height_cm", outcomes=Positives())
    learner = pooled(on_log_scale(tasks), steps=2)
    assert learner.outcomes == Numbers()
    assert pooled(tasks, steps=2).outcomes == Positives()
