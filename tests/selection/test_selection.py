"""Choosing among learners by cross-validation over tasks, and stacking them."""

import math

import numpy as np
import pytest
import torch

import bayesmeta as bm
from bayesmeta.evaluation import metrics
from bayesmeta.selection import Candidate, Comparison, HeldOutDensities, OneSplit, stacking_weights
from bayesmeta.selection.cross_validation import Factory, cross_validated

Learners = dict[str, Factory]


class Known:
    """A learner that is trained already, and remembers which tasks it was given."""

    def __init__(self, learner: bm.Learner) -> None:
        self.learner = learner
        self.seen: list[tuple[object, ...]] = []

    def __call__(self, tasks: bm.TaskDataset) -> bm.Learner:
        self.seen.append(tuple(tasks.names))
        return self.learner


def _line(noise: float = 0.1) -> bm.ALPaCA:
    return bm.ALPaCA(bm.Identity(1), noise=bm.noise.DiagonalNoise(1, initial=noise)).double()


def _lines(num_tasks: int = 12, points: int = 8, noise: float = 0.3, seed: int = 0) -> bm.TaskDataset:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(num_tasks, points, 1, generator=generator, dtype=torch.float64) * 2.0 - 1.0
    line = noise * torch.randn(num_tasks, 2, 1, generator=generator, dtype=torch.float64)
    error = noise * torch.randn(num_tasks, points, 1, generator=generator, dtype=torch.float64)
    return bm.TaskDataset(bm.Data.full(x, line[:, :1] + line[:, 1:] * x + error))


def _held_out(density: np.ndarray, tasks: np.ndarray | None = None) -> HeldOutDensities:
    """Densities of candidates a, b, .. at 5 shots; each point is a task of its own by default."""
    tasks = np.arange(len(density)) if tasks is None else tasks
    names = tuple("abcdef"[: density.shape[1]])
    count = int(tasks.max()) + 1
    return HeldOutDensities(names, (5,), tuple(range(count)), 0 * tasks, tasks, np.log(density), (0.0,) * len(names))


def test_every_task_is_held_out_once_and_never_trained_on() -> None:
    tasks, known = _lines(11), Known(_line())
    held_out = cross_validated({"line": known}, tasks, [0, 3], folds=4)
    assert len(known.seen) == 4
    assert sorted(name for seen in known.seen for name in set(tasks.names) - set(seen)) == sorted(tasks.names)
    assert held_out.counts().tolist() == [[8] * 11, [5] * 11]


def test_one_split_holds_tasks_out_of_every_learner_once() -> None:
    tasks, learners = _lines(11), {"line": Known(_line()), "loud": Known(_line(2.0))}
    held_out = cross_validated(learners, tasks, [0, 3], folds=OneSplit(4), seed=2)
    assert learners["line"].seen == learners["loud"].seen
    (seen,) = learners["line"].seen
    assert (len(seen), sorted({*seen, *held_out.names})) == (7, sorted(tasks.names))
    assert held_out.counts().tolist() == [[8] * 4, [5] * 4]
    batch = tasks.select([tasks.names.index(name) for name in held_out.names]).divided(bm.tasks.RandomSplit.at(3), 2)
    prediction = learners["loud"].learner.adapt(batch.support).predict(batch.query.x)
    expected = -metrics.marginal_nll(prediction, batch.query.y, batch.query.mask)
    np.testing.assert_allclose(held_out.scores()[1, :, 1], expected.detach(), rtol=1e-12)
    mixed = bm.stack(learners, tasks, [3], OneSplit(4), seed=2)
    assert isinstance(mixed, bm.wrappers.Stacked)
    assert learners["line"].seen == [seen, seen, tuple(tasks.names)]  # and once more on all
    assert bm.compare(learners, tasks, [3], OneSplit(4)).table()["tasks"].tolist() == [4, 4]
    for count in (0, 11):
        with pytest.raises(bm.DataError, match=r"of held-out tasks from 1 to 10, got"):
            cross_validated(learners, tasks, [3], folds=OneSplit(count))


def test_scores_are_the_densities_at_the_shots_asked_for() -> None:
    tasks, learner = _lines(6), _line()
    held_out = cross_validated({"line": lambda tasks: learner}, tasks, [3], folds=3, seed=7)
    expected = []
    for name in tasks.names:
        part = next(fold for fold in _folds(6, 3, 7) if tasks.names.index(name) in fold)
        batch = tasks.select(part).divided(bm.tasks.RandomSplit.at(3), 7)
        place = part.index(tasks.names.index(name))
        query = batch.query.select([place])
        prediction = learner.adapt(batch.support.select([place])).predict(query.x)
        expected.append(-metrics.marginal_nll(prediction, query.y, query.mask).item())
    np.testing.assert_allclose(held_out.scores()[0, :, 0], expected, rtol=1e-12)


def _folds(tasks: int, folds: int, seed: int) -> list[list[int]]:
    order = np.random.default_rng(seed).permutation(tasks)
    return [sorted(order[fold::folds].tolist()) for fold in range(folds)]


def test_tasks_without_enough_points_are_left_out() -> None:
    ragged = [(torch.rand(n).tolist(), torch.rand(n).tolist()) for n in (2, 9, 5, 7)]
    tasks = bm.TaskDataset.from_list(ragged, names=["a", "b", "c", "d"])
    comparison = bm.compare({"line": lambda tasks: _line(), "loud": lambda tasks: _line(9.0)}, tasks, [1, 5], folds=2)
    table = comparison.table()
    assert table["tasks"].to_dict() == {(1, "line"): 4, (1, "loud"): 4, (5, "line"): 2, (5, "loud"): 2}
    assert np.isnan(comparison.held_out.scores()[1, 0]).all()
    with pytest.raises(bm.DataError, match=r"more points than 9 shots"):
        bm.compare({"line": lambda tasks: _line()}, tasks, [1, 9], folds=2)


def test_weights_of_points_count_shots_tasks_and_points_alike() -> None:
    tasks = bm.TaskDataset.from_list([(torch.rand(n).tolist(), torch.rand(n).tolist()) for n in (3, 9, 6)])
    held_out = cross_validated({"line": lambda tasks: _line()}, tasks, [1, 4], folds=3)
    weights = held_out.weights()
    assert weights.sum() == pytest.approx(1.0)
    assert weights[held_out.shot == 0].sum() == pytest.approx(0.5)
    average = np.mean([np.nanmean(score) for score in held_out.scores()[..., 0]])
    assert weights @ held_out.log_density[:, 0] == pytest.approx(average)


def test_training_is_seeded_and_leaves_the_global_generator() -> None:
    tasks = _lines(6)
    network = Candidate(lambda: bm.ALPaCA(bm.MLP(1, [4])), lambda learner, tasks: bm.fit(learner, tasks, 3))
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first = cross_validated({"network": network}, tasks, [2], folds=2)
    assert torch.equal(torch.rand(3), expected)
    second = cross_validated({"network": network}, tasks, [2], folds=2)
    assert np.array_equal(first.log_density, second.log_density)


def test_the_truth_is_told_from_a_wrong_noise() -> None:
    learners: Learners = {"right": lambda tasks: _line(0.09), "loud": lambda tasks: _line(2.0)}
    comparison = bm.compare(learners, _lines(30), [2, 4], folds=3)
    assert comparison.best == "right"
    assert repr(comparison) == "comparison of 2 learners on 30 tasks at 2, 4 shots: right is best"
    assert comparison.conclusions[0].startswith("At 2 shots right predicts best, ")
    table = comparison.table()
    assert (table.loc[(slice(None), "loud"), "high"] < 0.0).all()
    assert table.loc[(2, "right"), "difference"] == 0.0
    # the standard error is that of the paired differences, task by task
    scores = comparison.held_out.scores()[0]
    paired = scores[:, 1] - scores[:, 0]
    assert table.loc[(2, "loud"), "difference_se"] == pytest.approx(paired.std(ddof=1) / math.sqrt(30))
    assert table.loc[(2, "loud"), "low"] < paired.mean() < table.loc[(2, "loud"), "high"]


def test_what_cannot_be_told_is_said_so() -> None:
    comparison = bm.compare({"a": lambda t: _line(0.09), "b": lambda t: _line(0.095)}, _lines(10), [2], folds=2)
    assert "cannot tell it from" in comparison.conclusions[0]
    assert repr(comparison).endswith("is ahead, but not beyond doubt")
    alone = bm.compare({"a": lambda t: _line()}, _lines(10), [2], folds=2)
    assert "there is no other" in alone.conclusions[0]


def test_verdicts_between_equals_are_wrong_rarely() -> None:
    """Three candidates that are equally good: 5 % of verdicts may be wrong, and a few more, as of 25 tasks."""
    generator = np.random.default_rng(0)
    told = 0
    for _ in range(200):
        density = np.exp(0.3 * generator.standard_normal((25, 3)))
        told += "predicts best" in Comparison(_held_out(density), num_bootstrap=500).conclusions[0]
    assert told <= 24  # 12 %: with 5 % there are 10 in the mean, and 24 never


def test_infinite_densities_lose() -> None:
    density = np.exp(0.1 * np.random.default_rng(0).standard_normal((20, 2)))
    density[3, 1] = 0.0
    with np.errstate(divide="ignore"):
        comparison = Comparison(_held_out(density))
    row = comparison.table().loc[(5, "b")]
    assert comparison.best == "a"
    assert row["score"] == -math.inf
    assert math.isnan(row["score_se"])
    assert stacking_weights(comparison.held_out)["a"][0] > 0.01


def test_stacking_weights_are_the_maximum() -> None:
    generator = np.random.default_rng(0)
    density = np.exp(generator.standard_normal((40, 3)) + np.array([0.3, 0.0, -0.2]))
    held_out = _held_out(density)
    weights = np.array(list(stacking_weights(held_out).values()))[:, 0]
    grid = np.array([(a, b, 1.0 - a - b) for a in np.linspace(0, 1, 101) for b in np.linspace(0, 1 - a, 101)])
    best = np.log(density @ grid.T).mean(0).max()
    assert np.log(density @ weights).mean() > best - 1e-5  # GAP, and the grid's own coarseness
    assert weights.sum() == pytest.approx(1.0)
    # the same points many times over in one task count once
    repeated = _held_out(np.concatenate([density, density[:1].repeat(50, 0)]), np.r_[np.arange(40), np.zeros(50, int)])
    np.testing.assert_allclose(np.array(list(stacking_weights(repeated).values()))[:, 0], weights, atol=1e-3)


def _by_shots(density: list[np.ndarray]) -> HeldOutDensities:
    """Of two candidates at 0, 1, .. shots; each task has one point at each of them."""
    count = len(density[0])
    shot, task = np.repeat(np.arange(len(density)), count), np.tile(np.arange(count), len(density))
    names = tuple(range(count))
    shots = tuple(range(len(density)))
    return HeldOutDensities(("a", "b"), shots, names, shot, task, np.log(np.concatenate(density)), (0.0, 0.0))


def test_weights_follow_the_shots_as_far_as_tasks_tell() -> None:
    """a is ahead at 0 shots and b at 1. Four tasks are weighed as much as what serves both, and 4,000 are alone."""
    for count, tolerance in ((4, 0.02), (4_000, 1e-3)):
        right = np.tile([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.1, 0.9]], (count // 4, 1))
        found = np.array(list(stacking_weights(_by_shots([right, right[:, ::-1]])).values()))
        alone = np.array(list(stacking_weights(_by_shots([right])).values()))[:, 0]
        assert alone[0] == pytest.approx(0.8125, abs=1e-2)  # the maximum of 3 log(.1 + .8 w) + log(.9 - .8 w)
        np.testing.assert_allclose(found[:, 0], found[::-1, 1], atol=1e-2)
        np.testing.assert_allclose(found.sum(0), 1.0)
        # the penalised objective on a grid, with common weights of a half each
        grid = np.linspace(1e-3, 1.0 - 1e-3, 2_000)
        gain = np.log(right @ np.stack([grid, 1.0 - grid])).sum(0) + 2.0 * np.log(grid * (1.0 - grid))
        assert found[0, 0] == pytest.approx(grid[gain.argmax()], abs=tolerance)
    assert abs(found[0, 0] - alone[0]) < 0.005


def test_weights_at_shots_that_are_alike_are_one_set() -> None:
    density = np.exp(np.random.default_rng(0).standard_normal((9, 2)))
    found = np.array(list(stacking_weights(_by_shots([density, density, density])).values()))
    np.testing.assert_allclose(found, found[:, :1].repeat(3, 1), atol=1e-6)
    (one,) = np.array(list(stacking_weights(_by_shots([density])).values())).T
    np.testing.assert_allclose(found[:, 0], one, atol=1e-3)


def test_shots_of_a_class_are_so_many_points() -> None:
    """One and two labels of each of three classes: weights are known at three and six points, whatever the order."""
    x = torch.randn(4, 12, 2, generator=torch.Generator().manual_seed(0))
    tasks = bm.TaskDataset(bm.Data.stack([bm.Data.from_labels(each, torch.arange(12) % 3) for each in x]))
    learners: Learners = {"three": lambda tasks: bm.R2D2(bm.Identity(2), num_classes=3)}
    comparison = bm.compare(learners, tasks, [2, 1], folds=2, split=bm.tasks.ClassSplit)
    assert comparison.held_out.support_points == (6.0, 3.0)
    assert bm.selection.stacked(comparison, learners, tasks).points == (3.0, 6.0)


def test_each_number_of_points_has_the_candidate_that_predicts_it() -> None:
    """Without a point the loud one is right, and with four the quiet one: levels that vary, and next to no noise."""
    generator = torch.Generator().manual_seed(0)
    x, level = torch.zeros(40, 8, 0, dtype=torch.float64), torch.randn(40, 1, 1, generator=generator).double()
    tasks = bm.TaskDataset(bm.Data.full(x, level + 0.1 * torch.randn(40, 8, 1, generator=generator).double()))

    def fixed(noise: float, deviation: float) -> bm.Learner:
        learner = bm.ALPaCA(bm.Identity(0), noise=bm.noise.DiagonalNoise(1, initial=noise)).double()
        learner.prior.location.data.zero_()
        learner.prior.covariance.set_matrix(torch.full((1, 1), deviation**2 / noise, dtype=torch.float64))
        return learner

    learners: Learners = {"same": lambda tasks: fixed(1.0, 1e-3), "own": lambda tasks: fixed(0.01, 3.0)}
    learner = bm.stack(learners, tasks, shots=[0, 4], folds=2)
    assert isinstance(learner, bm.wrappers.Stacked)
    assert learner.points == (0.0, 4.0)
    assert learner.weights[0, 0] > 0.7 > 0.3 > learner.weights[1, 0]


def test_stacking_is_never_worse_than_the_best_but_by_noise() -> None:
    """Fifteen tasks to find weights by, many to judge them: one candidate is right, the others are not."""
    losses = []
    learners: Learners = {
        "right": lambda tasks: _line(0.09),
        "loud": lambda tasks: _line(1.0),
        "certain": lambda tasks: _line(0.02),
    }
    test = _lines(200, seed=100).divided(bm.tasks.RandomSplit.at(3))
    best = metrics.marginal_nll(_line(0.09).adapt(test.support).predict(test.query.x), test.query.y).mean()
    for seed in range(6):
        learner = bm.stack(learners, _lines(15, seed=seed), shots=[3], folds=3)
        prediction = learner.adapt(test.support).predict(test.query.x)
        losses.append((metrics.marginal_nll(prediction, test.query.y).mean() - best).item())
    assert np.mean(losses) < 0.01  # nats per point; two free weights cost 2 / (2 · 15) nats a task of some points
    assert max(losses) < 0.03


def test_two_that_are_wrong_in_different_ways_are_both_kept() -> None:
    """Tasks are lines or loud: neither noise is right for all."""
    quiet, loud = _lines(20, noise=0.1, seed=1).data, _lines(20, noise=1.5, seed=2).data
    tasks = bm.TaskDataset(bm.Data.stack([quiet, loud]))
    learners: Learners = {"quiet": lambda tasks: _line(0.01), "loud": lambda tasks: _line(2.25)}
    comparison = bm.compare(learners, tasks, [3], folds=4)
    learner = bm.selection.stacked(comparison, learners, tasks)
    assert 0.2 < learner.weights.min() <= learner.weights.max() < 0.8
    assert learner.weights.shape == (1, 2)
    with pytest.raises(bm.DataError, match="the candidates of the comparison"):
        bm.selection.stacked(comparison, {"other": learners["loud"]}, tasks)


def test_the_mixture_is_joint() -> None:
    tasks = _lines(4)
    members = {"a": _line(0.1), "b": bm.DeepKernelTransfer(bm.Identity(1)).double()}
    learner = bm.wrappers.Stacked(members, {"a": 3.0, "b": 1.0})
    support, query = tasks.data.points(slice(3)), tasks.data.points(slice(3, None))
    each = [member.adapt(support).predict(query.x).log_prob(query.y) for member in members.values()]
    expected = torch.logsumexp(torch.stack(each) + torch.tensor([[0.75], [0.25]]).double().log(), 0)
    torch.testing.assert_close(learner.adapt(support).predict(query.x).log_prob(query.y), expected)
    assert repr(learner) == "Stacked: .75 a + .25 b"
    with pytest.raises(bm.UnsupportedError, match="no closed form"):
        learner.log_evidence(support)


def test_candidates_of_several_precisions_are_stacked() -> None:
    tasks = _lines(6)
    single = bm.Standardized(bm.ALPaCA(bm.MLP(1, [4])))
    single.prepare(tasks.data)
    learner = bm.wrappers.Stacked({"double": _line(), "single": single}, {"double": 0.5, "single": 0.5})
    prediction = learner.adapt(tasks.data).predict(tasks.data.x)
    assert prediction.mean.dtype == torch.float64
    assert prediction.interval(0.9)[0].isfinite().all()


def test_candidates_that_are_always_worth_a_try() -> None:
    tasks = _lines(12)
    pooled, fresh = bm.selection.pooled(tasks, steps=20), bm.selection.fresh_process(tasks)
    support, x = tasks.data.select([0]).points(slice(4)), tasks.data.x[:1]
    nothing = bm.Data.empty(support)
    torch.testing.assert_close(pooled.adapt(support).predict(x).mean, pooled.adapt(nothing).predict(x).mean)
    assert (fresh.adapt(support).predict(x).stddev < fresh.adapt(nothing).predict(x).stddev).all()
    labels = bm.TaskDataset(bm.Data.stack([bm.Data.from_labels([0.0, 1.0], [0, 1])] * 3))
    pooled = bm.selection.pooled(labels, steps=3)
    support, x = labels.data.select([0]), labels.data.x[:1]
    torch.testing.assert_close(
        pooled.adapt(support).predict(x).probs, pooled.adapt(bm.Data.empty(support)).predict(x).probs
    )
    with pytest.raises(bm.UnsupportedError, match="outcomes that are numbers"):
        bm.selection.fresh_process(labels)


def test_learners_of_classes_are_compared() -> None:
    tasks = bm.tasks.GaussianBlobs(2).dataset(6, 10, seed=0)
    learners: Learners = {"two": lambda tasks: bm.R2D2(bm.Identity(2), num_classes=2)}
    comparison = bm.compare(learners, tasks, [1], folds=2, split=bm.tasks.ClassSplit)
    assert comparison.table()["score"].item() < 0.0


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"learners": {}}, "expected learners by name"),
        ({"learners": {"line": _line()}}, "expected learners by name"),
        ({"learners": {"line": lambda tasks: 3}}, "returns a trained learner, got one of int"),
        ({"folds": 1}, "folds"),
        ({"folds": 13}, "folds"),
        ({"shots": []}, "shots"),
        ({"tasks": None}, "expected a TaskDataset"),
    ],
)
def test_arguments_that_make_no_sense(arguments: dict[str, object], message: str) -> None:
    given = {"learners": {"line": lambda tasks: _line()}, "tasks": _lines(), "shots": [2], "folds": 3} | arguments
    with pytest.raises(bm.DataError, match=message):
        bm.compare(**given)  # type: ignore[arg-type]
