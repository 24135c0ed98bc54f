import math
from functools import cache

import pytest
import torch
from torch import Tensor

from bayesmeta.calibration.conformal import HierarchicalConformal, hierarchical_quantile
from bayesmeta.calibration.conformity_scores import (
    CentralProbability,
    CumulativeProbability,
    MissingProbability,
    StandardizedResidual,
)
from bayesmeta.calibration.few_shot_conformal import FewShotConformal, leave_one_out_scores
from bayesmeta.calibration.score_quantiles import LEVELS, ScoreQuantiles, fit_score_quantiles
from bayesmeta.data import Data
from bayesmeta.errors import DataError, ShapeError, UnsupportedError
from bayesmeta.learners.closed_form.alpaca import ALPaCA
from bayesmeta.networks.bases import Identity
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.source import ClassSplit, RandomSplit
from tests.evaluation.exact import ClassShares, NormalMean, label_tasks, normal_tasks


def noisy_tasks(num_tasks: int, points: int, seed: int) -> TaskDataset:
    """y ~ N(phi, σ²), phi ~ N(0, 1), log σ = -1 or 1, task by task: every other task, about, is hard."""
    generator = torch.Generator().manual_seed(seed)
    phi, sign = torch.randn(2, num_tasks, 1, 1, generator=generator, dtype=torch.float64)
    y = phi + sign.sign().exp() * torch.randn(num_tasks, points, 1, generator=generator, dtype=torch.float64)
    return TaskDataset(Data(torch.zeros_like(y), y, torch.ones(num_tasks, points, dtype=torch.bool)))


def peaked_tasks(num_tasks: int, points: int, seed: int) -> TaskDataset:
    """Labels of five classes, in some tasks nearly always the same, in others anything."""
    generator = torch.Generator().manual_seed(seed)
    power = torch.where(torch.rand(num_tasks, 1, generator=generator) < 0.5, 0.2, 6.0)
    weights = (power * torch.randn(num_tasks, 5, generator=generator)).exp()
    labels = torch.multinomial(weights, points, replacement=True, generator=generator)
    x = torch.zeros(num_tasks, points, 1, dtype=torch.float64)
    return TaskDataset(Data(x, labels, torch.ones(num_tasks, points, dtype=torch.bool)))


@cache
def conformal() -> FewShotConformal:
    return FewShotConformal(NormalMean(claimed=1 / 4), noisy_tasks(80, 14, seed=0), noisy_tasks(100, 14, seed=1), 8)


def tasks_of(data: Data, points: slice) -> Data:
    return Data(data.x[:, points], data.y[:, points], data.mask[:, points])


def coverage(inside: Tensor) -> float:
    return float(inside.double().mean())


def test_coverage_of_a_new_task_is_what_was_promised() -> None:
    """2,000 draws of calibration and test tasks, v learned once: at least nominal, at most 2/(K + 1) more."""
    generator = torch.Generator().manual_seed(0)
    quantiles, draws = conformal().quantiles, 2000
    tasks = 20
    rows = draws * (tasks + 1)
    # not such tasks as v was learned on, another number of points, and these easier than what comes
    scale = torch.randn(rows, 1, 1, generator=generator, dtype=torch.float64).exp()
    scores = scale * torch.randn(rows, 7, 1, generator=generator, dtype=torch.float64).abs()
    scores[:, 3:] *= 2.0
    mask = torch.arange(4) < torch.randint(1, 5, (rows, 1), generator=generator)  # ragged
    knots = quantiles.knots(scores[:, :3], torch.ones(rows, 3, dtype=torch.bool))
    v = quantiles.deviations(scores[:, 3:], knots).unflatten(0, (draws, tasks + 1))
    mask = mask.unflatten(0, (draws, tasks + 1))
    for level in (0.8, 0.9, 0.95):
        threshold = hierarchical_quantile(v[:, :-1], mask[:, :-1], level)[:, 0]
        covered = coverage(v[:, -1, 0, 0] <= threshold)
        chance = 4.0 * math.sqrt(level * (1.0 - level) / draws)
        assert level - chance < covered < level + 2.0 / (tasks + 1) + chance
        # v alone, without calibration tasks, does not keep the promise here
        assert coverage(v[:, -1, 0, 0] <= torch.special.ndtri(torch.tensor(level))) < level - chance


def test_hard_tasks_are_covered_too_and_intervals_are_narrower() -> None:
    calibration, few = noisy_tasks(100, 14, seed=1), conformal()
    same = HierarchicalConformal(few.learner, calibration, 8)
    test = noisy_tasks(1000, 18, seed=2).divided(RandomSplit.at(8), 0)
    x, y = test.query.x, test.query.y
    hard = y.std(1)[:, 0] > 1.0
    found = {}
    for name, method in (("few", few), ("same", same)):
        lower, upper = method.adapt(test.support).interval(x, 0.9)
        inside = (lower <= y) & (y <= upper)
        found[name] = coverage(inside), coverage(inside[hard]), float((upper - lower).mean())
    for name in found:  # given 100 calibration tasks
        assert found[name][0] == pytest.approx(0.9, abs=4.0 * math.sqrt(0.09 * (1 / 101 + 1 / 1000)))
    assert found["same"][1] < 0.83
    assert found["few"][1] > 0.87
    assert found["few"][2] < 0.8 * found["same"][2]


def test_where_tasks_are_alike_nothing_is_learned() -> None:
    few = FewShotConformal(NormalMean(), normal_tasks(40, 12, seed=0), normal_tasks(40, 12, seed=1), 3)
    posterior = few.adapt(tasks_of(normal_tasks(5, 3, seed=2).data, slice(3)))
    torch.testing.assert_close(posterior.knots, posterior.knots[:1].expand(5, -1, -1))
    # and then it is hierarchical conformal prediction, but for rounding
    same = HierarchicalConformal(NormalMean(), normal_tasks(40, 12, seed=1), 3)
    torch.testing.assert_close(posterior.threshold(0.9)[0, 0], same.threshold(0.9), rtol=1e-7, atol=0.0)


def test_label_sets_cover_and_are_smaller_in_easy_tasks() -> None:
    few = FewShotConformal(
        ClassShares(5, power=3.0),
        peaked_tasks(60, 16, seed=0),
        peaked_tasks(100, 16, seed=1),
        8,
        score=CumulativeProbability(),
    )
    test = peaked_tasks(1000, 9, seed=2).divided(RandomSplit.at(8), 0)
    posterior = few.adapt(test.support)
    for level in (0.8, 0.95):
        chosen = posterior.label_set(test.query.x, level)
        covered = coverage(chosen.gather(-1, test.query.y[..., None]))
        assert covered > level - 4.0 * math.sqrt(level * (1.0 - level) * (1 / 101 + 1 / 1000))
    frequent = torch.nn.functional.one_hot(test.support.y, 5).sum(1).amax(-1)
    sizes = chosen.sum(-1)[:, 0].double()
    assert sizes[frequent == 8].mean() < 2.0
    assert sizes[frequent < 5].mean() > 3.0


def test_outcomes_that_tie_with_the_threshold_are_in_the_set() -> None:
    """Scores of few values: what was counted as covered when calibrating is covered when predicting."""
    calibration = label_tasks(40, 12, seed=1)
    few = FewShotConformal(ClassShares(3), label_tasks(40, 12, seed=0), calibration, 4)
    batch = calibration.divided(RandomSplit.at(4), 0)
    for level in (0.5, 0.8, 0.9, 0.95):
        chosen = few.adapt(batch.support).label_set(batch.query.x, level)
        inside = chosen.gather(-1, batch.query.y[..., None])
        assert torch.equal(inside[batch.query.mask], few.scores <= few.threshold(level))


@pytest.mark.parametrize("score", [StandardizedResidual(), CentralProbability()])
def test_intervals_are_the_outcomes_that_score_no_more(score: StandardizedResidual | CentralProbability) -> None:
    learner = NormalMean(claimed=1 / 2, bias=0.3)
    calibration = normal_tasks(30, [12] * 20 + [7] * 10, seed=1)
    few = FewShotConformal(learner, noisy_tasks(40, 12, seed=0), calibration, 5, score=score)
    batch = calibration.divided(RandomSplit.at(5), 0)
    posterior = few.adapt(batch.support)
    for level in (0.5, 0.9):
        lower, upper = posterior.interval(batch.query.x, level)
        inside = ((lower <= batch.query.y) & (batch.query.y <= upper))[batch.query.mask]
        assert torch.equal(inside, few.scores <= few.threshold(level))
    torch.testing.assert_close(
        posterior.predict(batch.query.x).mean, learner.adapt(batch.support).predict(batch.query.x).mean
    )


def test_regions_of_higher_levels_hold_those_of_lower_ones() -> None:
    batch = noisy_tasks(50, 12, seed=3).divided(RandomSplit.at(8), 0)
    posterior = conformal().adapt(batch.support)
    widths = torch.stack([posterior.interval(batch.query.x, level)[1] for level in (0.3, 0.5, 0.8, 0.9, 0.98)])
    assert (widths.diff(dim=0) >= 0.0).all()


def test_leave_one_out_scores_are_those_of_a_loop() -> None:
    learner, score = ALPaCA(Identity(1)).double().frozen(), StandardizedResidual()
    data = normal_tasks(4, [5, 2, 1, 4], seed=0).data
    found = leave_one_out_scores(learner, data, score, batch_size=3)
    for b in range(4):
        for n in range(int(data.counts[b])):
            others = [i for i in range(int(data.counts[b])) if i != n]
            posterior = learner.adapt(
                Data(data.x[b : b + 1, others], data.y[b : b + 1, others], data.mask[b : b + 1, others])
            )
            expected = score(posterior.predict(data.x[b : b + 1, n : n + 1]), data.y[b : b + 1, n : n + 1])
            torch.testing.assert_close(found[b, n], expected[0, 0])
    assert (found[~data.mask] == 0.0).all()
    assert leave_one_out_scores(learner, Data.empty(data), score).shape == (4, 0, 1)


def test_padding_order_and_company_never_matter() -> None:
    few = conformal()
    batch = noisy_tasks(6, 12, seed=3).divided(RandomSplit.at(8), 0)
    support, x = batch.support, batch.query.x
    lower, upper = few.adapt(support).interval(x, 0.9)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    turned = Data(support.x[:, order], support.y[:, order], support.mask[:, order])
    torch.testing.assert_close(few.adapt(turned).interval(x, 0.9)[1], upper)
    padding = torch.full((6, 3, 1), 7.0, dtype=torch.float64)
    padded = support.append(Data(padding, padding, torch.zeros(6, 3, dtype=torch.bool)))
    torch.testing.assert_close(few.adapt(padded).interval(x, 0.9)[0], lower)
    for b in range(6):
        one = few.adapt(support.select([b])).interval(x[b : b + 1], 0.9)
        torch.testing.assert_close(one[0][0], lower[b])
        torch.testing.assert_close(one[1][0], upper[b])


def test_it_is_reproducible_and_leaves_the_generator_alone() -> None:
    state = torch.get_rng_state()
    quantiles = fit_score_quantiles(*set_scores(30), steps=20)
    assert torch.equal(torch.get_rng_state(), state)
    known, mask, *_ = set_scores(5)
    assert torch.equal(fit_score_quantiles(*set_scores(30), steps=20).knots(known, mask), quantiles.knots(known, mask))


def set_scores(num_tasks: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(num_tasks)
    scale = torch.randn(num_tasks, 1, 2, generator=generator, dtype=torch.float64).exp()
    scores = scale * torch.rand(num_tasks, 20, 2, generator=generator, dtype=torch.float64)
    mask = torch.arange(10) < torch.randint(1, 11, (num_tasks, 1), generator=generator)
    return scores[:, :10], mask, scores[:, 10:], mask


def test_deviations_and_scores_are_inverse_and_increase() -> None:
    quantiles = fit_score_quantiles(*set_scores(100), steps=100)
    known, mask, *_ = set_scores(7)
    knots = quantiles.knots(known, mask)
    assert knots.shape == (7, 2, len(LEVELS))
    assert (knots.diff(dim=-1) > 0.0).all()
    assert (knots[0] - knots[1]).abs().max() > 0.1  # tasks differ
    grid = torch.linspace(0.0, 40.0, 200, dtype=torch.float64)[None, :, None].expand(7, -1, 2)
    v = quantiles.deviations(grid, knots)
    assert (v.diff(dim=1) > 0.0).all()
    smallest = quantiles.ranked[:, 1]
    for place in (0, 50, 199):
        back = torch.stack([quantiles.scores(v[b, place], knots[b : b + 1])[0] for b in range(7)])
        torch.testing.assert_close(back, grid[:, place].maximum(smallest), rtol=1e-6, atol=1e-6)


def test_scores_that_are_tied_or_infinite() -> None:
    """A jump of the ranks is inverted to its place; an infinite score is beyond every finite threshold."""
    ties = torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0, math.inf], dtype=torch.float64).expand(12, -1)[..., None]
    real = torch.ones(12, 6, dtype=torch.bool)
    quantiles = fit_score_quantiles(ties, real, ties, real, steps=10)
    knots = quantiles.knots(ties, real)
    assert knots.isfinite().all()
    v = quantiles.deviations(ties, knots)
    assert v[0, -1, 0] == math.inf
    for value in (0.0, 1.0):
        at = v[0, ties[0, :, 0] == value][0]
        assert quantiles.scores(at, knots)[0, 0].item() == pytest.approx(value, abs=1e-6)
        assert quantiles.scores(at, knots)[0, 0] >= value
    assert quantiles.scores(torch.tensor([math.inf], dtype=torch.float64), knots).isinf().all()
    constant = torch.ones(12, 6, 1, dtype=torch.float64)
    quantiles = fit_score_quantiles(constant, real, constant, real, steps=10)
    at = quantiles.deviations(constant, quantiles.knots(constant, real))[0, 0]
    assert quantiles.scores(at, quantiles.knots(constant, real))[0, 0] == pytest.approx(1.0)
    with pytest.raises(DataError, match="expected finite scores"):
        fit_score_quantiles(ties, real, torch.full_like(ties, math.inf), real)


class Wild(StandardizedResidual):
    """Infinite for every outcome above 0."""

    def __call__(self, predictive: object, y: Tensor) -> Tensor:
        return torch.where(y > 0.0, math.inf, y.abs())


def test_an_infinite_threshold_is_the_whole_line() -> None:
    tasks = normal_tasks(30, 8, seed=0)
    few = FewShotConformal(NormalMean(), tasks, normal_tasks(30, 8, seed=1), 3, score=Wild())
    support = tasks_of(tasks.data, slice(3))
    assert few.threshold(0.9).isinf().all()
    lower, upper = few.adapt(support).interval(tasks.data.x, 0.9)
    assert (lower == -math.inf).all()
    assert (upper == math.inf).all()


def test_too_few_tasks_are_refused_with_how_many_it_takes() -> None:
    few = FewShotConformal(NormalMean(), normal_tasks(10, 8, seed=0), normal_tasks(18, 8, seed=1), 3)
    assert repr(few) == "FewShotConformal(18 tasks at 3 shots: levels up to 0.947)"
    posterior = few.adapt(normal_tasks(2, 3, seed=1).data)
    assert posterior.interval(torch.zeros(2, 1, 1), 0.94)[0].isfinite().all()
    for level, needed in ((0.95, 19), (0.99, 99)):
        with pytest.raises(DataError, match=f"at least {needed} calibration tasks"):
            posterior.interval(torch.zeros(2, 1, 1), level)


def test_bad_input_is_named() -> None:
    tasks, labels = normal_tasks(12, 8, seed=0), label_tasks(12, 8, seed=0)
    with pytest.raises(DataError, match="at least 10 training tasks"):
        FewShotConformal(NormalMean(), normal_tasks(9, 8, seed=0), tasks, 3)
    with pytest.raises(DataError, match="at least 2 calibration tasks"):
        FewShotConformal(NormalMean(), tasks, tasks, 8)
    with pytest.raises(DataError, match="expected an IntervalScore"):
        FewShotConformal(NormalMean(), tasks, tasks, 3, score=MissingProbability())
    with pytest.raises(DataError, match="expected a LabelScore"):
        FewShotConformal(ClassShares(), labels, labels, 3, score=StandardizedResidual())
    with pytest.raises(DataError, match="got NaN from NotANumber"):
        FewShotConformal(NormalMean(), tasks, tasks, 3, score=NotANumber())
    posterior = conformal().adapt(tasks_of(tasks.data, slice(8)))
    with pytest.raises(DataError, match="strictly between 0 and 1"):
        posterior.interval(tasks.data.x, 1.0)
    with pytest.raises(UnsupportedError, match="use interval"):
        posterior.label_set(tasks.data.x, 0.8)
    with pytest.raises(DataError, match="expected 8 support points, as the calibration tasks had, got 3"):
        conformal().adapt(tasks_of(tasks.data, slice(3)))
    two = Data(tasks.data.x, tasks.data.y.expand(-1, -1, 2), tasks.data.mask)
    few = FewShotConformal(ALPaCA(Identity(1)), tasks, tasks, 3)
    with pytest.raises(ShapeError):
        few.adapt(two)


class NotANumber(StandardizedResidual):
    def __call__(self, predictive: object, y: Tensor) -> Tensor:
        return torch.full_like(y, math.nan)


def test_class_splits_and_outputs_of_their_own() -> None:
    few = FewShotConformal(
        ClassShares(), label_tasks(40, 40, seed=0), label_tasks(40, 40, seed=1), 2, split=ClassSplit, query=2
    )
    batch = label_tasks(40, 40, seed=2).divided(ClassSplit.at(2, 2), 0)
    full = batch.support.counts == 6
    support, query = batch.support.select(full), batch.query.select(full)
    chosen = few.adapt(support).label_set(query.x, 0.9)
    assert chosen.shape == (*query.mask.shape, 3)
    assert coverage(chosen.gather(-1, query.y[..., None])[query.mask]) > 0.7
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(80, 9, 2, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 10.0])
    tasks = TaskDataset(Data(torch.zeros(80, 9, 1, dtype=torch.float64), y, torch.ones(80, 9, dtype=torch.bool)))
    few = FewShotConformal(NormalMean(), tasks.select(range(40)), tasks.select(range(40, 80)), 3)
    assert few.threshold(0.9).shape == (2,)
    lower, upper = few.adapt(tasks_of(tasks.data, slice(3))).interval(tasks.data.x[:, 3:], 0.9)
    inside = (lower <= y[:, 3:]) & (y[:, 3:] <= upper)
    assert (inside.double().mean((0, 1)) - 0.9).abs().max() < 0.08


def test_what_is_learned_is_frozen() -> None:
    quantiles: ScoreQuantiles = conformal().quantiles
    assert not any(p.requires_grad for p in quantiles.network.parameters())
    assert not any(p.requires_grad for p in conformal().learner.parameters())
