"""Every task judged once: by whom, what the scores are, and what is recommended."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

import bayesmeta as bm
from bayesmeta.data import Data
from bayesmeta.errors import DataError
from bayesmeta.selection import CrossValidated, cross_validate
from bayesmeta.selection.recommendation import recommendation
from tests.evaluation.exact import ClassShares, NormalMean, label_tasks, normal_tasks


def _known(**learners: bm.Learner) -> dict[str, object]:
    """Learners that were trained before anybody came."""
    return {name: partial(_given, learner) for name, learner in learners.items()}


def _given(learner: bm.Learner, tasks: bm.TaskDataset) -> bm.Learner:
    return learner


def _judged(tasks: bm.TaskDataset, shots: tuple[int, ...] = (0, 2), **learners: bm.Learner) -> CrossValidated:
    return cross_validate(_known(**learners), tasks, shots, 3, baselines={}, num_bootstrap=100)


def test_every_task_is_judged_once_by_learners_that_did_not_see_it() -> None:
    tasks, seen = normal_tasks(11, 6, seed=0), list[set[object]]()

    def factory(others: bm.TaskDataset) -> bm.Learner:
        seen.append(set(others.names))
        return NormalMean()

    found = cross_validate({"mean": factory}, tasks, (0, 2), 4, baselines={}, num_bootstrap=0)
    folds = found.folds["mean"]
    assert len(folds) == len(seen) == 4
    for fold, others in zip(folds, seen, strict=True):
        assert not set(fold.tasks.names) & others
        assert set(fold.tasks.names) | others == set(tasks.names)
    for shots in (0, 2):
        assert found.evaluations["mean"].at(shots).names == tasks.names  # each once, and in their order


def test_scores_are_those_of_the_folds() -> None:
    tasks = normal_tasks(7, [4, 9, 6, 3, 5, 3, 8], seed=0)
    found = _judged(tasks, (0, 3), right=NormalMean(), wrong=NormalMean(claimed=0.3))
    for name, learner in (("right", NormalMean()), ("wrong", NormalMean(claimed=0.3))):
        whole = found.evaluations[name]
        for shots in (0, 3):
            rows = whole.per_task(shots).set_index("task")
            pits = dict(zip(rows.index, np.split(whole.at(shots).pit, whole.at(shots).starts[1:]), strict=True))
            for fold in found.folds[name]:
                alone = bm.evaluate(learner, fold.tasks, (0, 3), num_bootstrap=0)
                own = alone.per_task(shots).set_index("task") if alone.at(shots).names else rows[:0]
                for task, row in own.iterrows():
                    assert row["crps"] == pytest.approx(rows.loc[task, "crps"])
                each = np.split(alone.at(shots).pit, alone.at(shots).starts[1:]) if len(own) else []
                for task, pit in zip(own.index, each, strict=True):
                    np.testing.assert_allclose(pits[task], pit)
    assert found.evaluations["right"].at(3).names == (0, 1, 2, 4, 6)  # with a point left after three
    table = found.table()
    assert table.loc[(0, "right"), "tasks"] == 7
    for shots in (0, 3):
        nll = table.loc[shots, "nll"]
        np.testing.assert_allclose(table.loc[shots, "difference"], nll.min() - nll, atol=1e-12)
    assert "2 tasks with too few points left out" in str(
        _judged(normal_tasks(5, [9, 2, 9, 9, 1], seed=0), (2, 50), a=NormalMean())
    )


def test_the_truth_is_taken() -> None:
    tasks = normal_tasks(60, 8, seed=0)
    found = _judged(tasks, truth=NormalMean(), liar=NormalMean(claimed=0.2))
    assert found.recommendation.name == "truth"
    assert found.recommendation.is_told
    assert (
        str(found)
        .splitlines()[-1]
        .startswith("Take truth: it predicts best at 0 and 2 shots together. It is ahead of liar")
    )
    assert repr(found) == "2 learners on 60 tasks, each judged once: truth is best"


def _scores(tasks: int, *means: float, noise: float = 0.02, seed: int = 0) -> np.ndarray:
    """Log densities around a mean of each candidate; what is hard for one task is hard for all candidates."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(1, tasks, 1)) + np.array(means) + noise * rng.normal(size=(1, tasks, len(means)))


def test_of_equals_the_simplest_is_taken() -> None:
    sizes = {"stack": 90, "line": 5, "pooled": 1000, "alone": 3}
    names = ["stack", "line", "pooled", "alone"]
    found = recommendation(names, _scores(40, -1.0, -1.001, -1.5, -2.0), [1], sizes, ["pooled", "alone"])
    assert (found.name, found.is_told) == ("line", False)
    assert found.text.startswith(
        "Take line: of what predicts best at 1 shot it is the simplest; no difference from stack ("
    )
    assert "is larger than noise. It is ahead of pooled (+0." in found.text
    far = recommendation(names, _scores(40, -1.0, -1.2, -1.5, -2.0), [1], sizes, ["pooled", "alone"])
    assert (far.name, far.is_told) == ("stack", True)
    assert "Take stack: it predicts best at 1 shot. It is ahead of line" in far.text


def test_the_best_is_taken_where_the_simpler_are_more_than_an_error_behind() -> None:
    """Fifteen tasks, of which the simpler one is 1.5 standard errors behind: within noise, and not within one error."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=15)
    gap = (noise - noise.mean()) / noise.std(ddof=1) + 1.5 / np.sqrt(15)
    scores = np.stack([np.zeros(15), -gap, np.full(15, -9.0)], -1)[None]
    found = recommendation(["stack", "line", "pooled"], scores, [1], {"stack": 90, "line": 5}, ["pooled"])
    assert found.text.startswith("Take stack: it has predicted best at 1 shot; no difference from line (")


def test_a_baseline_that_is_better_is_said_so() -> None:
    found = recommendation(["line", "pooled"], _scores(40, -1.0, -0.5), [1], {}, ["pooled"])
    assert found.name is None
    assert found.text.startswith("Take none of these: pooled (one regression for all tasks) predicts better than line")
    unsure = recommendation(["line", "pooled", "alone"], _scores(40, -1.0, -1.0, -3.0), [1], {}, ["pooled", "alone"])
    assert unsure.name == "line"
    assert "From pooled (one regression for all tasks) it cannot be told" in unsure.text


@pytest.mark.parametrize(("tasks", "noise"), [(4, 0.01), (12, 3.0)])
def test_that_nothing_can_be_told_is_said(tasks: int, noise: float) -> None:
    found = recommendation(
        ["stack", "line"], _scores(tasks, -1.0, -1.1, noise=noise, seed=1), [1], {"stack": 9, "line": 5}
    )
    assert found.text.startswith(f"Nothing can be told from {tasks} tasks: no difference is larger than noise. Take ")
    assert not found.is_told


def test_a_number_of_shots_that_says_otherwise_is_named() -> None:
    scores = np.stack([_scores(40, -1.0, -2.0)[0], _scores(40, -1.0, -0.7)[0]])
    found = recommendation(["a", "b"], scores, [0, 5], {})
    assert found.name == "a"
    assert "But at 5 shots b is better than it, by 0.3" in found.text


def test_equals_are_rarely_told_apart() -> None:
    """Learners that differ by nothing but chance: one is told from all others rarely."""
    wrong = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        scores = rng.normal(size=(1, 20, 1)) + 0.3 * rng.normal(size=(1, 20, 3))
        wrong += recommendation(["a", "b", "c"], scores, [1], {}, num_bootstrap=300).is_told
    # to be told from both at once is rarer than 5 %, for all that the bootstrap of 20 tasks is a little short
    assert wrong <= 6


def test_outcomes_have_rows_of_their_own() -> None:
    tasks = normal_tasks(9, 6, seed=0)
    both = bm.TaskDataset(Data(tasks.data.x, tasks.data.y.repeat(1, 1, 2), tasks.data.mask))
    found = _judged(both, (1,), mean=NormalMean(), liar=NormalMean(claimed=0.2))
    table = found.table()
    assert table.index.names == ["outcome", "shots", "candidate"]
    assert table.index.get_level_values(0).unique().tolist() == ["all", "y1", "y2"]
    assert table.loc["all", "rmse"].isna().all()
    assert table.loc["y1", "difference"].isna().all()  # differences are of all outcomes together
    np.testing.assert_allclose(table.loc[("y2", 1, "mean"), "rmse"], table.loc[("y1", 1, "mean"), "rmse"])
    printed = str(found)
    assert [line for line in printed.splitlines() if line in ("all outcomes together", "y1", "y2")]
    assert printed.splitlines()[-1].startswith("Take mean")


def test_classes_have_the_baselines_of_classes() -> None:
    tasks = label_tasks(12, 6, seed=0)
    baselines = {"pooled": partial(bm.selection.pooled, steps=3), "alone": bm.selection.alone}
    found = cross_validate(_known(shares=ClassShares()), tasks, (0, 2), 2, baselines=baselines, num_bootstrap=50)
    table = found.table()
    assert set(table.loc[2].index) == {"shares", "pooled", "alone"}
    assert np.isfinite(table[["nll", "accuracy", "brier", "ece"]].to_numpy()).all()
    assert table.loc[(0, "alone"), "nll"] == pytest.approx(np.log(3.0), rel=1e-3)  # by a rule of fixed nodes
    # one regression: what a task shows changes nothing
    assert table.loc[(0, "pooled"), "nll"] == pytest.approx(table.loc[(2, "pooled"), "nll"], rel=1e-6)
    assert "accuracy" in str(found)


def test_baselines_of_tasks_without_inputs() -> None:
    tasks = bm.TaskDataset(Data.stack([Data.from_arrays(np.zeros((4, 0)), np.arange(4.0) + t) for t in range(8)]))
    learner = bm.selection.pooled(tasks, steps=5)
    assert learner.adapt(tasks.data.select([0])).predict(torch.zeros(1, 2, 0)).shape == (1, 2, 1)


def test_baselines_of_other_outcomes() -> None:
    """Counts, positive numbers, and rows that lack one of two outcomes: densities of their own kind, and finite."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"who": np.repeat(np.arange(6), 5), "t": np.tile(np.arange(5.0), 6)})
    frame["seizures"], frame["hours"] = rng.poisson(2.0, 30), np.exp(rng.normal(size=30))
    frame["height"] = frame.t + rng.normal(size=30)
    frame.loc[::4, "height"] = np.nan
    kinds = ((["seizures"], bm.tasks.Counts()), (["hours"], bm.tasks.Positives()), (["hours", "height"], None))
    for y, kind in kinds:
        tasks = bm.TaskDataset.from_frame(frame, task="who", x=["t"], y=y, outcomes=kind)
        for learner in (bm.selection.pooled(tasks, steps=3), bm.selection.alone(tasks)):
            assert isinstance(learner.outcomes, type(kind or bm.Numbers()))
            found = bm.evaluate(learner, tasks, [0, 2], num_bootstrap=0).table()
            assert np.isfinite(found[["nll", "coverage"]].to_numpy()).all()


def test_arguments_that_make_no_sense() -> None:
    tasks = normal_tasks(5, 4, seed=0)
    with pytest.raises(DataError, match="expected other names than those of the baselines"):
        cross_validate(_known(pooled=NormalMean()), tasks, (0,))
    with pytest.raises(DataError, match=r"expected a task with more than 4 points, got at most 4"):
        cross_validate(_known(a=NormalMean()), tasks, (4,), baselines={})
    with pytest.raises(DataError, match="folds"):
        cross_validate(_known(a=NormalMean()), tasks, (0,), 6, baselines={})
    with pytest.raises(DataError, match="expected learners by name"):
        cross_validate({"a": NormalMean()}, tasks, (0,))


def test_of_many_tasks_some_are_judged_and_all_others_learned_from() -> None:
    tasks = bm.tasks.Sawtooth().dataset(20, 6, seed=0)
    seen = list[int]()

    def line(tasks: bm.TaskDataset) -> bm.Learner:
        seen.append(len(tasks))
        return bm.ALPaCA(bm.Identity(1)).double()

    found = bm.selection.cross_validate({"line": line}, tasks, [1], folds=3, baselines={}, most=7, num_bootstrap=20)
    assert seen == [18, 18, 18]  # of 20, less two that are judged
    judged = [name for fold in found.folds["line"] for name in fold.tasks.names]
    assert len(set(judged)) == len(judged) == 6
    assert "6 tasks, each judged once" in str(found)
    assert "14 more are only learned from" in str(found)
    with pytest.raises(bm.DataError, match="most"):
        bm.selection.cross_validate({"line": line}, tasks, [1], folds=3, baselines={}, most=0)


def test_a_baseline_that_is_better_at_some_shots_is_named() -> None:
    """Over both numbers of shots nothing is told of it; at one it is ahead in every task."""
    noise = np.random.default_rng(0).normal(0.0, 0.05, size=(2, 40, 1))
    scores = noise + np.array([[[0.0, -1.0]], [[0.0, 0.4]]])
    found = recommendation(["line", "alone"], scores, [0, 5], {"line": 5}, ["alone"])
    assert found.name == "line"
    assert found.text.endswith("But at 5 shots alone is better than it, by 0.400 nats a point.")
