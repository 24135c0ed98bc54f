import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical

import bayesmeta as bm
from bayesmeta.calibration.conformal import (
    HierarchicalConformal,
    SplitConformal,
    hierarchical_quantile,
    require_tasks,
    split_quantile,
)
from bayesmeta.calibration.conformity_scores import (
    CentralProbability,
    ConformityScore,
    CumulativeProbability,
    MissingProbability,
    StandardizedResidual,
)
from bayesmeta.calibration.regions import held_by_sets
from bayesmeta.data import Data
from bayesmeta.errors import DataError, ShapeError, UnsupportedError
from bayesmeta.learner import Learner, Refit
from bayesmeta.predictives import IndependentPredictive, Predictive
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.source import ClassSplit, PrefixSplit, RandomSplit
from tests.evaluation.exact import ClassShares, NormalMean, label_tasks, normal_tasks

LEVELS = (0.8, 0.9, 0.95)


def loop_quantile(scores: list[list[float]], level: float) -> float:
    """The smallest s at which Σ over tasks of (share of scores <= s) / (K + 1) reaches the level."""
    tasks = len(scores)
    for candidate in sorted(value for task in scores for value in task):
        mass = sum(sum(value <= candidate for value in task) / len(task) for task in scores) / (tasks + 1)
        if mass >= level - 1e-12:
            return candidate
    return math.inf


def test_hierarchical_quantile_is_its_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    for tasks in (1, 4, 9, 30):
        scores = torch.rand(3, tasks, 6, 2, generator=generator, dtype=torch.float64)
        counts = torch.randint(1, 7, (3, tasks), generator=generator)
        mask = torch.arange(6) < counts[..., None]
        for level in (0.3, 0.75, 0.8, 0.9, 0.95):
            found = hierarchical_quantile(scores, mask, level)
            for s, c in np.ndindex(3, 2):
                each = [scores[s, t, mask[s, t], c].tolist() for t in range(tasks)]
                assert found[s, c].item() == loop_quantile(each, level)


def test_split_quantile_is_an_order_statistic() -> None:
    generator = torch.Generator().manual_seed(1)
    for count in (0, 1, 9, 16, 18, 19, 39):
        scores = torch.rand(2, 40, 1, generator=generator, dtype=torch.float64)
        mask = (torch.arange(40) < count).expand(2, -1)
        for level in (0.5, 0.9, 0.95):
            rank = math.ceil((count + 1) * level - 1e-9)
            for s in range(2):
                ordered = [*sorted(scores[s, :count, 0].tolist()), math.inf]
                assert split_quantile(scores, mask, level)[s, 0].item() == ordered[min(rank, count + 1) - 1]
    assert split_quantile(torch.zeros(2, 0, 1), torch.zeros(2, 0, dtype=torch.bool), 0.9).isinf().all()


def residuals(draws: int, tasks: int, support: int, queries: int, generator: torch.Generator) -> Tensor:
    """|y - mean| / stddev of y ~ N(phi, .5), phi ~ N(0, 1), given `support` points, claimed three times too narrow."""
    phi = torch.randn(draws, tasks, 1, generator=generator)
    y = phi + math.sqrt(0.5) * torch.randn(draws, tasks, support + queries, generator=generator)
    variance = 1.0 / (1.0 + support / 0.5)
    mean = variance * y[..., :support].sum(-1, keepdim=True) / 0.5
    return (y[..., support:] - mean).abs() / (math.sqrt(variance + 0.5) / 3.0)


@pytest.mark.parametrize("support", [0, 5])
@pytest.mark.parametrize("tasks", [20, 50, 200])
def test_coverage_of_a_new_task_is_what_was_promised(tasks: int, support: int) -> None:
    generator = torch.Generator().manual_seed(tasks + support)
    draws = 2000
    scores = residuals(draws, tasks + 1, support, 6, generator)
    mask = torch.arange(6) < torch.randint(1, 7, (draws, tasks + 1, 1), generator=generator)  # ragged
    for level in LEVELS:
        threshold = hierarchical_quantile(scores[:, :-1, :, None], mask[:, :-1], level)[:, 0]
        covered = (scores[:, -1, 0] <= threshold).double().mean().item()
        chance = 4.0 * math.sqrt(level * (1.0 - level) / draws)
        assert level - chance < covered < level + 2.0 / (tasks + 1) + 0.02 + chance
        # and what it repairs: the learner's own interval, far below
        own = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor((1.0 + level) / 2.0))
        assert (scores[:, -1, 0] <= own).double().mean() < level - 0.2


def test_pooling_points_as_if_independent_would_not_do() -> None:
    """The simulation can fail: with all points of one weight and few tasks of very different size, coverage is lost."""
    generator = torch.Generator().manual_seed(0)
    draws, tasks = 2000, 20
    scale = torch.rand(draws, tasks + 1, 1, generator=generator) + 0.1
    size = torch.where(scale[..., 0] < 0.5, 30, 1)  # easy tasks have many points
    scores = scale * torch.randn(draws, tasks + 1, 30, generator=generator).abs()
    mask = torch.arange(30) < size[..., None]
    pooled = split_quantile(scores[:, :-1].flatten(1)[..., None], mask[:, :-1].flatten(1), 0.9)[:, 0]
    right = hierarchical_quantile(scores[:, :-1, :, None], mask[:, :-1], 0.9)[:, 0]
    assert (scores[:, -1, 0] <= pooled).double().mean() < 0.85
    assert (scores[:, -1, 0] <= right).double().mean() > 0.9 - 4.0 * math.sqrt(0.09 / draws)


@pytest.mark.parametrize("count", [19, 40])
def test_split_coverage_within_each_task(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    scores = residuals(4000, 1, 3, count + 1, generator)[:, 0]
    for level in LEVELS:
        threshold = split_quantile(scores[:, :-1, None], torch.ones(4000, count, dtype=torch.bool), level)[:, 0]
        covered = (scores[:, -1] <= threshold).double().mean().item()
        chance = 4.0 * math.sqrt(level * (1.0 - level) / 4000)
        assert level - chance < covered < level + 1.0 / (count + 1) + chance  # Vovk et al.: the upper bound, no ties


@pytest.mark.parametrize("score", [StandardizedResidual(), CentralProbability()])
def test_intervals_are_the_outcomes_that_score_no_more(score: ConformityScore) -> None:
    liar, calibration = NormalMean(claimed=1 / 4, bias=0.3), normal_tasks(60, [12] * 40 + [7] * 20, seed=0)
    conformal = HierarchicalConformal(liar, calibration, 5, score=score)
    test = normal_tasks(300, 12, seed=1)
    batch = test.divided(RandomSplit.at(5), 0)
    posterior = conformal.adapt(batch.support)
    predictive = posterior.predict(batch.query.x)
    for level in (0.5, 0.9):
        lower, upper = posterior.interval(batch.query.x, level)
        inside = (lower <= batch.query.y) & (batch.query.y <= upper)
        assert torch.equal(inside, score(predictive, batch.query.y) <= conformal.threshold(level))
        # conditional on 60 calibration tasks coverage has deviation sqrt(p(1 - p)/61), and 300 tests of their own
        chance = 4.0 * math.sqrt(level * (1.0 - level) * (1 / 61 + 1 / 300))
        assert inside.double().mean().item() == pytest.approx(level, abs=chance)
    own = liar.adapt(batch.support).predict(batch.query.x)
    torch.testing.assert_close(predictive.mean, own.mean)
    lower, upper = own.interval(0.9)
    assert ((lower <= batch.query.y) & (batch.query.y <= upper)).double().mean() < 0.75


def test_scores_are_those_of_one_task_at_a_time() -> None:
    learner, tasks = NormalMean(), normal_tasks(7, [4, 9, 6, 2, 5, 3, 8], seed=0)
    conformal = HierarchicalConformal(learner, tasks, 2, query=3, batch_size=3)
    kept = [i for i in range(7) if i != 3]  # two points are no more than two shots
    divided = tasks.select(kept).divided(RandomSplit.at(2, 3), 0)
    assert conformal.counts.tolist() == [2, 3, 3, 3, 1, 3]
    each = []
    for i in range(6):
        support, query = divided.support.select([i]), divided.query.select([i])
        real = query.mask[0]
        predictive = learner.adapt(support).predict(query.x[:, real])
        scores = ((query.y[:, real] - predictive.mean).abs() / predictive.stddev)[0, :, 0]
        torch.testing.assert_close(conformal.scores.split(conformal.counts.tolist())[i][:, 0], scores)
        each.append(scores.tolist())
    assert conformal.threshold(0.6).item() == pytest.approx(loop_quantile(each, 0.6))
    assert repr(conformal) == "HierarchicalConformal(6 tasks at 2 shots: levels up to 0.857)"


@pytest.mark.parametrize("score", [MissingProbability(), CumulativeProbability()])
def test_label_sets_cover(score: ConformityScore) -> None:
    liar = ClassShares(power=4.0)  # far too sure of itself
    conformal = HierarchicalConformal(liar, label_tasks(100, 12, seed=0), 4, score=score)
    test = label_tasks(1000, 12, seed=1).divided(RandomSplit.at(4, 1), 0)
    posterior = conformal.adapt(test.support)
    probs = posterior.predict(test.query.x).probs
    for level in LEVELS:
        chosen = posterior.label_set(test.query.x, level)
        assert chosen.shape == probs.shape
        covered = chosen.gather(-1, test.query.y[..., None]).double().mean().item()
        # given 100 calibration tasks: deviation sqrt(p(1 - p)(1/101 + 1/1000)); sets are coarse, so more is fine
        assert covered > level - 4.0 * math.sqrt(level * (1.0 - level) * (1 / 101 + 1 / 1000))
    assert posterior.label_set(test.query.x, 0.5).sum() < posterior.label_set(test.query.x, 0.95).sum()
    exact = score.all(posterior.predict(test.query.x))
    slow = torch.empty_like(exact)
    for b, c in np.ndindex(20, 3):
        p = probs[b, 0]
        cumulative = sum(float(q) for q in p if q >= p[c])
        slow[b, 0, c] = 1.0 - p[c] if isinstance(score, MissingProbability) else cumulative
    torch.testing.assert_close(exact[:20], slow[:20])


def test_split_conformal_asks_for_enough_points() -> None:
    """16 points cannot promise 95 %: the 17 · .95 = 16.15th of 16 scores does not exist."""
    learner, tasks = NormalMean(claimed=1 / 9), normal_tasks(200, 25, seed=0).data
    support, calibration, query = (
        Data(tasks.x[:, part], tasks.y[:, part], tasks.mask[:, part])
        for part in (slice(4), slice(4, 20), slice(20, None))
    )
    posterior = SplitConformal(learner).adapt(support, calibration)
    lower, upper = posterior.interval(query.x, 0.95)
    assert (lower == -math.inf).all()
    assert (upper == math.inf).all()
    lower, upper = posterior.interval(query.x, 0.9)  # the 16th of 16, the largest
    predictive = learner.adapt(support).predict(calibration.x)
    largest = ((calibration.y - predictive.mean).abs() / predictive.stddev).amax(1, keepdim=True)
    torch.testing.assert_close(upper - lower, (2.0 * largest * predictive.stddev[:, :1]).expand_as(upper))
    covered = ((lower <= query.y) & (query.y <= upper)).double().mean().item()
    assert covered == pytest.approx(16 / 17, abs=4.0 * math.sqrt(16 / 17**2 / 200))  # 200 tasks
    # with fewer real points than there are rows, padding does not count
    short = Data(calibration.x, calibration.y, calibration.mask & (torch.arange(16) < 5))
    assert SplitConformal(learner).adapt(support, short).interval(query.x, 0.9)[1].isinf().all()
    assert SplitConformal(learner).adapt(support, short).interval(query.x, 0.8)[1].isfinite().all()  # the 5th of 5


def test_split_label_sets_and_central_intervals() -> None:
    tasks = label_tasks(50, 40, seed=0).data
    support, calibration, query = (
        Data(tasks.x[:, part], tasks.y[:, part], tasks.mask[:, part])
        for part in (slice(5), slice(5, 35), slice(35, None))
    )
    posterior = SplitConformal(ClassShares(power=3.0), CumulativeProbability()).adapt(support, calibration)
    chosen = posterior.label_set(query.x, 0.9)
    covered = chosen.gather(-1, query.y[..., None]).double().mean().item()
    assert covered > 0.9 - 4.0 * math.sqrt(0.09 / 50)
    numbers = normal_tasks(5, 30, seed=0).data
    first = Data(numbers.x[:, :5], numbers.y[:, :5], numbers.mask[:, :5])
    central = SplitConformal(NormalMean(), CentralProbability()).adapt(first, numbers)
    lower, upper = central.interval(numbers.x, 0.9)
    scores, threshold = central.score(central.predict(numbers.x), numbers.y), central.threshold(0.9)
    # the interval's ends are found by inverting F: its own rounding
    assert torch.equal((lower <= numbers.y + 1e-9) & (numbers.y <= upper + 1e-9), scores <= threshold)
    few = Data(numbers.x[:, :3], numbers.y[:, :3], numbers.mask[:, :3])
    ends = SplitConformal(NormalMean(), CentralProbability()).adapt(first, few).interval(numbers.x, 0.9)
    assert ends[0].isneginf().all()


def test_class_and_prefix_splits() -> None:
    conformal = HierarchicalConformal(ClassShares(), label_tasks(60, 40, seed=0), 2, split=ClassSplit)
    batch = label_tasks(5, 40, seed=1).divided(ClassSplit.at(2, 3), 0)
    assert conformal.adapt(batch.support).label_set(batch.query.x, 0.9).dtype == torch.bool
    conformal = HierarchicalConformal(NormalMean(), normal_tasks(30, 8, seed=0), 3, split=PrefixSplit, query=2)
    tasks = normal_tasks(30, 8, seed=0).data
    y = tasks.y[:, 3:5]
    predictive = NormalMean().adapt(Data(tasks.x[:, :3], tasks.y[:, :3], tasks.mask[:, :3])).predict(tasks.x[:, 3:5])
    torch.testing.assert_close(conformal.scores, StandardizedResidual()(predictive, y).flatten(0, 1))


def test_too_few_tasks_are_refused_with_how_many_it_takes() -> None:
    for level, needed in ((0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99)):
        require_tasks(needed, level)
        assert math.isfinite(
            hierarchical_quantile(torch.rand(needed, 2, 1), torch.ones(needed, 2, dtype=torch.bool), level)[0]
        )
        with pytest.raises(DataError, match=f"at least {needed} calibration tasks for"):
            require_tasks(needed - 1, level)
        fewer = max(needed - 1, 1)
        scores, mask = torch.rand(fewer, 2, 1), torch.ones(fewer, 2, dtype=torch.bool)
        assert hierarchical_quantile(scores, mask, max(level, 0.6)).isinf()  # one task serves up to .5
    conformal = HierarchicalConformal(NormalMean(), normal_tasks(18, 8, seed=0), 3)
    posterior = conformal.adapt(normal_tasks(2, 3, seed=1).data)
    with pytest.raises(DataError, match="at least 19 calibration tasks"):
        posterior.interval(torch.zeros(2, 1, 1), 0.95)


def test_bad_input_is_named() -> None:
    tasks, labels = normal_tasks(12, 8, seed=0), label_tasks(12, 8, seed=0)
    conformal = HierarchicalConformal(NormalMean(), tasks, 3)
    with pytest.raises(DataError, match="expected 3 support points, as the calibration tasks had, got 2"):
        conformal.adapt(Data(tasks.data.x[:, :2], tasks.data.y[:, :2], tasks.data.mask[:, :2]))
    support = Data(tasks.data.x[:, :3], tasks.data.y[:, :3], tasks.data.mask[:, :3])
    posterior = conformal.adapt(support)
    for level in (0.0, 1.0):
        with pytest.raises(DataError, match="strictly between 0 and 1"):
            posterior.interval(tasks.data.x, level)
    with pytest.raises(UnsupportedError, match="use interval"):
        posterior.label_set(tasks.data.x, 0.8)
    sets = HierarchicalConformal(ClassShares(), labels, 3).adapt(
        Data(labels.data.x[:, :3], labels.data.y[:, :3], labels.data.mask[:, :3])
    )
    with pytest.raises(UnsupportedError, match="use label_set"):
        sets.interval(labels.data.x, 0.8)
    with pytest.raises(DataError, match="at least 2 calibration tasks"):
        HierarchicalConformal(NormalMean(), tasks, 8)
    with pytest.raises(DataError, match="expected an IntervalScore"):
        HierarchicalConformal(NormalMean(), tasks, 3, score=MissingProbability())
    with pytest.raises(DataError, match="expected a LabelScore"):
        SplitConformal(ClassShares(), StandardizedResidual()).adapt(labels.data, labels.data)
    with pytest.raises(DataError, match="labels from 0 to 1"):
        HierarchicalConformal(Two(), labels, 3)
    with pytest.raises(DataError, match="got NaN from NotANumber"):
        HierarchicalConformal(NormalMean(), tasks, 3, score=NotANumber())
    with pytest.raises(ShapeError):
        SplitConformal(NormalMean()).adapt(support, normal_tasks(3, 4, seed=0).data)


class Two(ClassShares):
    def __init__(self) -> None:
        super().__init__(2)

    def condition(self, support: Data) -> object:  # type: ignore[override]
        return super().condition(Data(support.x, support.y.clamp(max=1), support.mask))


class NotANumber(StandardizedResidual):
    def __call__(self, predictive: object, y: Tensor) -> Tensor:
        return torch.full_like(y, math.nan)


def test_the_learner_is_frozen_and_outputs_have_their_own_thresholds() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(40, 9, 2, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 10.0])
    tasks = TaskDataset(Data(torch.zeros(40, 9, 1, dtype=torch.float64), y, torch.ones(40, 9, dtype=torch.bool)))
    conformal = HierarchicalConformal(NormalMean(), tasks, 3)
    threshold = conformal.threshold(0.9)
    assert threshold.shape == (2,)
    # the second output is ten times as wide and the learner does not know
    assert 5.0 < float(threshold[1] / threshold[0]) < 20.0
    support = Data(tasks.data.x[:, :3], y[:, :3], tasks.data.mask[:, :3])
    lower, upper = conformal.adapt(support).interval(tasks.data.x[:, 3:], 0.9)
    inside = (lower <= y[:, 3:]) & (y[:, 3:] <= upper)
    # on the calibration tasks themselves nearly the same points are inside
    assert (inside.double().mean((0, 1)) - 0.9).abs().max() < 0.08


# ------------------------------------------------------------------------------------------------- on held-out tasks


def _sinusoids(seed: int, count: int = 80) -> bm.TaskDataset:
    return bm.tasks.Sinusoid(noise=0.3).dataset(count, 12, seed=seed)


def test_regions_are_scored_as_by_hand() -> None:
    learner = bm.ALPaCA(bm.Polynomial(1, 2)).double()
    conformal = bm.calibration.HierarchicalConformal(learner, _sinusoids(0), shots=4)
    held_out = _sinusoids(1, 30)
    scores = conformal.evaluate(held_out, 0.8, query=5, seed=3, batch_size=7)
    divided = held_out.divided(bm.tasks.RandomSplit.at(4, 5), 3)
    lower, upper = conformal.adapt(divided.support).interval(divided.query.x, 0.8)
    inside = ((divided.query.y >= lower) & (divided.query.y <= upper)).double().mean((1, 2))
    np.testing.assert_allclose(scores.coverage, inside.numpy())
    np.testing.assert_allclose(scores.size, (upper - lower).mean((1, 2)).numpy(), rtol=1e-12)
    assert (scores.names, scores.measure, scores.points.tolist()) == (held_out.names, "width", [5] * 30)
    table, each = scores.table(), scores.per_task()
    assert table.loc[4, "coverage"] == pytest.approx(each["coverage"].mean())
    assert table.loc[4, "coverage_low"] <= table.loc[4, "coverage"] <= table.loc[4, "coverage_high"]
    assert "regions of 30 tasks at level 0.8: coverage" in repr(scores)


def test_every_kind_of_region_is_evaluated() -> None:
    """At least the level, up to chance: its deviation over 80 calibration and 80 test tasks is about .04."""
    learner = bm.ALPaCA(bm.Polynomial(1, 2)).double()
    held_out = _sinusoids(2)
    few_shot = bm.calibration.FewShotConformal(learner, _sinusoids(3), _sinusoids(4), shots=4)
    split = bm.calibration.SplitConformal(learner)
    found = [few_shot.evaluate(held_out, 0.8), split.evaluate(held_out, 3, 5, 0.8)]
    for scores in found:
        assert 0.7 < scores.table()["coverage"].item() < 0.95
        assert np.isfinite(scores.size).all()
    blobs = bm.tasks.GaussianBlobs(ways=3)
    classifier = bm.MetaOptNet(bm.Identity(2), head=bm.heads.NearestMeanHead())
    sets = bm.calibration.HierarchicalConformal(
        classifier, blobs.episodes(40, 6, seed=0), 2, split=bm.tasks.ClassSplit
    ).evaluate(blobs.episodes(40, 6, seed=1), 0.8, split=bm.tasks.ClassSplit)
    assert sets.measure == "classes"
    assert 0.7 < sets.coverage.mean() <= 1.0
    assert ((sets.size >= 0.0) & (sets.size <= 3.0)).all()


@pytest.mark.usefixtures("unchecked")
def test_evaluate_says_what_to_call_instead() -> None:
    conformal = bm.calibration.HierarchicalConformal(bm.ALPaCA(bm.Identity(1)), _sinusoids(0, 12), shots=2)
    for thing in (conformal, bm.calibration.SplitConformal(bm.ALPaCA(bm.Identity(1))), conformal.learner.adapt):
        with pytest.raises(bm.DataError, match=r"expected a learner, got .*conformal\.evaluate\(tasks, level\)"):
            bm.evaluate(thing, _sinusoids(1, 4))
    with pytest.raises(bm.DataError, match=r"at least 19 calibration tasks for a level of 0\.95, got 12"):
        conformal.evaluate(_sinusoids(1, 4), 0.95)
    with pytest.raises(bm.DataError, match="strictly between 0 and 1"):
        conformal.evaluate(_sinusoids(1, 4), 1.0)
    with pytest.raises(bm.DataError, match="at least 1 held-out tasks with more than 13 points"):
        bm.calibration.SplitConformal(bm.ALPaCA(bm.Identity(1))).evaluate(_sinusoids(1, 4), 3, 10)
    with pytest.raises(bm.DataError, match="whole number calibration >= 1"):
        bm.calibration.SplitConformal(bm.ALPaCA(bm.Identity(1))).evaluate(_sinusoids(1, 4), 3, 0)


def test_long_tasks_among_short_ones_are_evaluated_as_if_alone() -> None:
    conformal = HierarchicalConformal(NormalMean(), normal_tasks(30, 12, seed=0), 3, split=PrefixSplit)
    tasks = normal_tasks(7, [5, 2600, 6, 100, 2, 8, 9], seed=1)
    assert len(tasks.by_length()) > 1
    found = conformal.evaluate(tasks, 0.8, split=PrefixSplit, batch_size=2)
    kept = [i for i in range(7) if i != 4]  # two points are no more than three shots
    assert found.names == tuple(tasks.names[i] for i in kept)
    for place, i in enumerate(kept):
        alone = conformal.evaluate(tasks.select([i]), 0.8, split=PrefixSplit)
        assert alone.points[0] == found.points[place]
        np.testing.assert_allclose(alone.coverage[0], found.coverage[place], rtol=1e-12)
        np.testing.assert_allclose(alone.size[0], found.size[place], rtol=1e-6)


class _Given(Learner):
    """Class probabilities (1 - x, x / 2, x / 2) at x: of one's own making."""

    def condition(self, support: Data) -> "_GivenPosterior":
        return _GivenPosterior(spec=support.spec, learner=self, support=support)


class _GivenPosterior(Refit):
    def at(self, x: Tensor) -> Predictive:
        return IndependentPredictive(Categorical(torch.cat([1.0 - x, 0.5 * x, 0.5 * x], -1)))


@pytest.mark.parametrize(("score", "empty_at"), [(MissingProbability(), [0.5, 0.6]), (CumulativeProbability(), [0.0])])
def test_empty_sets_are_of_unsure_points_or_of_the_surest(score: ConformityScore, empty_at: list[float]) -> None:
    support = Data.from_labels([0.0], [0])
    calibration = Data.from_labels([0.3, 0.3, 0.3], [0, 0, 0])  # p = .7: a threshold of .3, or of .7
    x = torch.tensor([0.0, 0.3, 0.5, 0.6], dtype=torch.float64)
    posterior = SplitConformal(_Given(), score).adapt(support, calibration)
    sets = posterior.label_set(x, 0.7)
    assert x[~sets[0].any(-1)].tolist() == empty_at
    assert bool(posterior.label_set(x, 0.9).all())  # the threshold of three points is infinite: nothing is ruled out


def test_shares_of_empty_and_full_sets_are_counted_by_hand() -> None:
    learner, tasks = ClassShares(power=2.0), label_tasks(30, 12, seed=1)
    conformal = HierarchicalConformal(learner, label_tasks(40, 12, seed=0), 3)
    for level in (0.5, 0.9):
        scores = conformal.evaluate(tasks, level, query=4, seed=2, batch_size=7)
        divided = tasks.divided(RandomSplit.at(3, 4), 2)
        sets = conformal.adapt(divided.support).label_set(divided.query.x, level)
        assert scores.empty is not None
        assert scores.full is not None
        np.testing.assert_allclose(scores.empty, (sets.sum(-1) == 0).double().mean(-1).numpy())
        np.testing.assert_allclose(scores.full, (sets.sum(-1) == 3).double().mean(-1).numpy())
        np.testing.assert_allclose(scores.size, sets.sum(-1).double().mean(-1).numpy())
        row, each = scores.table(), scores.per_task()
        assert row["empty"].item() == pytest.approx(each["empty"].mean())
        assert row["full_low"].item() <= row["full"].item() <= row["full_high"].item()
        assert f"empty {scores.empty.mean():.3g}, full {scores.full.mean():.3g}" in repr(scores)
    assert scores.full.mean() > 0.0  # at .9
    numbers = HierarchicalConformal(NormalMean(), normal_tasks(20, 8, seed=0), 3).evaluate(
        normal_tasks(5, 8, seed=1), 0.8
    )
    assert (numbers.empty, numbers.full) == (None, None)
    assert "empty" not in numbers.table()


def test_a_set_is_full_with_the_classes_of_its_own_task() -> None:
    sets = torch.tensor([[[True, True, False], [True, False, False]], [[True, True, False], [True, True, True]]])
    possible = torch.tensor([[[True, True, False]] * 2, [[True, True, True]] * 2])  # two ways, and three
    query = Data.full(torch.zeros(2, 2, 1), torch.zeros(2, 2, dtype=torch.long))
    held = held_by_sets(sets, possible, query)
    assert held["full"][..., 0].tolist() == [[True, False], [False, True]]
    assert held["empty"].any().item() is False
