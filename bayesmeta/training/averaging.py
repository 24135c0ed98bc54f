"""One verb for few tasks: theta averaged over where that is worth it, and what it cost and gained, from held-out tasks.

    p(theta | tasks) ∝ p(theta) Π_t p(D_t | theta)

Ten tasks say little of theta, and predictions that are made with its best value alone are too sure. Draws come from
adaptive importance sampling around all maxima that many starts have found (`inference.importance`); where there are too
many numbers for that, or too few of the draws count, from the no-U-turn sampler.

What it gains is told by tasks that are left out. Draws given all tasks become draws without those of a fold by weights
1 / Π p(D_t | theta), and the best theta without them is fitted anew; both predict the later points of each task from
its first ones.
"""

import copy
import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.arguments import generator_of, seed_of, shot_counts, whole
from bayesmeta.data import Data
from bayesmeta.errors import ConvergenceWarning
from bayesmeta.hyperpriors import DeviationHyperprior, Hyperprior, LogNormalHyperprior
from bayesmeta.inference.importance import StudentMixture, WeightedDraws, importance_draws
from bayesmeta.inference.nuts import NUTS
from bayesmeta.inference.nuts_metric import DenseMetric
from bayesmeta.learner import Learner
from bayesmeta.modes import trained
from bayesmeta.positive_numbers import positive_numbers
from bayesmeta.rounding import silently
from bayesmeta.tasks.dataset import TaskDataset, naming_columns
from bayesmeta.training.evidence import fit_evidence
from bayesmeta.training.loop import prepare
from bayesmeta.training.result import FitResult
from bayesmeta.training.starts import Ends, Starts, search_all
from bayesmeta.training.theta_map import ThetaMap
from bayesmeta.training.theta_posterior import nuts_hyper_posterior
from bayesmeta.wrappers.base import require_trainable
from bayesmeta.wrappers.hyper_posterior import HyperPosterior
from bayesmeta.wrappers.with_hyperprior import WithHyperprior

MOST_NUMBERS = 100  # of theta, that are averaged over
MOST_BY_IMPORTANCE = 20  # of theta, that are drawn without chains
TASKS_A_NUMBER = 20  # above so many tasks for each number of theta its best value is as good
ENOUGH = 50.0  # effective draws
DISTINCT = 0.01  # nats: maxima that are nearer to each other in height, and in place, are one
SHOULDER = 3.0  # times as wide as the curvature says, for half of the first draws
NEGLIGIBLE = 12.0  # nats below the best: a maximum, or a draw, of no weight
FOLDS = 6
CHAINS = NUTS(8, 50, 150, metric=DenseMetric())
REWEIGHTED = 400  # draws, for held-out tasks


@dataclass(frozen=True, eq=False)
class Averaged:
    """What `average` found.

    Attributes:
        learner: what to predict with: a `HyperPosterior`, or the learner at its best theta.
        choice: what was done and why, in words.
        fit: the search for the best theta.
        seconds: of search, draws and held-out predictions.
        effective: how many independent draws of theta the draws are worth; 0 where theta was not averaged over.
        shots: numbers of points that held-out tasks were predicted from.
        gains: for each of `shots`, the mean over held-out tasks of log p(later points | first points) of the average,
            less that of the best theta, nats a task.
        errors: their standard errors over tasks.

    Example:
        >>> import bayesmeta as bm
        >>> fit = bm.training.FitResult((1.5, 1.2), (), best_step=2, stopped_early=True, seconds=0.4)
        >>> learner = bm.ALPaCA(bm.Identity(1))
        >>> Averaged(learner, "averaged over 4 numbers of theta", fit, (0.4, 0.2, 1.3), 310.0, (1,), (0.21,), (0.08,))
        averaged over 4 numbers of theta
        cost: 0.4 s for the best theta, 0.2 s for 310 effective draws, 1.3 s for held-out tasks
        gain on held-out tasks from 1 point: +0.210 ± 0.080 nats a task
    """

    learner: Learner
    choice: str
    fit: FitResult
    seconds: tuple[float, float, float]
    effective: float
    shots: tuple[int, ...]
    gains: tuple[float, ...]
    errors: tuple[float, ...]

    def __repr__(self) -> str:
        """What was chosen, what it cost, what it gained."""
        search, draws, held_out = self.seconds
        lines = [self.choice, f"cost: {search:.1f} s for the best theta"]
        if self.effective:
            lines[-1] += (
                f", {draws:.1f} s for {self.effective:.0f} effective draws, {held_out:.1f} s for held-out tasks"
            )
        for shots, gain, error in zip(self.shots, self.gains, self.errors, strict=True):
            points = "1 point" if shots == 1 else f"{shots} points"
            lines.append(f"gain on held-out tasks from {points}: {gain:+.3f} ± {error:.3f} nats a task")
        return "\n".join(lines)


@trained
@naming_columns
def average(
    learner: Learner,
    tasks: TaskDataset,
    hyperprior: Hyperprior | None = None,
    *,
    starts: Starts | None = None,
    sampler: NUTS | None = CHAINS,
    num_members: int = 64,
    shots: Sequence[int] = (0, 1, 2, 5),
    seed: int = 0,
) -> Averaged:
    """Fit theta, average over it where tasks are few, and say what that cost and what it gains on held-out tasks.

    The learner itself is fitted in place (`fit_evidence`). Theta is averaged over with up to 20 numbers by importance
    sampling, with up to 100 by chains, and not at all above, or above 20 tasks for each number.

    Args:
        learner: with an evidence in closed form and theta of few numbers; use float64, and `Standardized`.
        tasks: all meta-training tasks.
        hyperprior: p(theta) besides the learner's own. By default, where the learner has none itself,
            `DeviationHyperprior` for linear mixed models and `LogNormalHyperprior` else.
        starts: of the search for maxima; `Starts(32)` by default.
        sampler: of the chains, where importance sampling does not do. Where the noise goes to 0, say, they take many
            minutes. None for no chains: the best theta alone then.
        num_members: draws of theta that are kept: a prediction costs as many.
        shots: numbers of first points from which held-out tasks are predicted; none, and the gain is not asked for.
        seed: of the draws.

    Raises:
        UnsupportedError: the learner has no closed form of the evidence, or its theta is final. And what `fit_evidence`
            raises.

    Warns:
        ConvergenceWarning: as `fit_evidence` and `nuts_hyper_posterior` do.

    Example:
        >>> import bayesmeta as bm
        >>> y = [[0.1, 0.9, 2.2], [1.2, 1.8, 3.1], [-0.9, 0.2, 0.9], [0.6, 1.1, 2.9], [2.0, 3.3, 3.9]]
        >>> tasks = bm.TaskDataset.from_list([([0.0, 1.0, 2.0], each) for each in y])
        >>> learner = bm.ALPaCA(bm.Identity(1), covariance=bm.priors.IsotropicCovariance(2))
        >>> found = bm.training.average(bm.Standardized(learner).double(), tasks, num_members=10)
        >>> found.choice
        'averaged over 4 numbers of theta, of which 5 tasks say little, by importance sampling'
        >>> len(found.learner.learners), len(found.gains)
        (10, 3)
    """
    require_trainable(learner)
    num_members, seed = whole(num_members, "num_members", 1), seed_of(seed)
    shots = shot_counts(shots) if len(shots) else ()
    starts = Starts(32, seed=seed) if starts is None else starts
    clock = [time.perf_counter()]
    prepare(learner, tasks.flat.folded())
    if hyperprior is None:
        hyperprior = _usual(learner)
    posterior = _Posterior(learner, tasks, hyperprior)
    learner.remember(*posterior.data)
    size, count = len(posterior.total.here), len(tasks)
    chosen = _refusal(size, count)
    with silently():
        ends: Ends | None = None
        if size <= MOST_NUMBERS and (learner.mixed_model is None or chosen is None):
            ends = posterior.maxima(starts)
        if ends is not None and learner.mixed_model is None:
            posterior.total.place(ends.points[ends.best])
        fit = fit_evidence(learner, tasks)
        clock.append(time.perf_counter())
        if chosen is not None or ends is None:
            return Averaged(learner, f"the best theta alone: {chosen}", fit, _laps(clock), 0.0, (), (), ())
        how, draws, first = "importance sampling", None, posterior.laplace(ends)
        if size <= MOST_BY_IMPORTANCE:
            draws = importance_draws(posterior.total, first, generator_of(seed))
        if draws is None or draws.effective < ENOUGH:
            if sampler is None:
                chosen = f"importance sampling does not do for its {size} numbers, and there is no sampler"
                return Averaged(learner, f"the best theta alone: {chosen}", fit, _laps(clock), 0.0, (), (), ())
            how, draws = "the no-U-turn sampler", posterior.chains(sampler, ends, seed)
        clock.append(time.perf_counter())
        members = posterior.members(draws.resampled(num_members))
        most = int(tasks.counts.max())
        shots = tuple(each for each in shots if each < most)
        gains = posterior.gains(draws.resampled(REWEIGHTED), first, shots)
        clock.append(time.perf_counter())
    means = tuple(float(each.mean()) for each in gains)
    errors = tuple(float(each.std() / max(len(each), 1) ** 0.5) for each in gains)
    summary = fit, _laps(clock), draws.effective, shots, means, errors
    choice = f"averaged over {size} numbers of theta, of which {count} tasks say little, by {how}"
    return Averaged(HyperPosterior(members), choice, *summary)


def _refusal(size: int, count: int) -> str | None:
    if size > MOST_NUMBERS:
        return f"its {size} numbers are too many (svgd_hyper_posterior and vi_hyper_posterior are for networks)"
    if count > TASKS_A_NUMBER * size:
        return f"{count} tasks say enough of its {size} numbers"
    return None


def _usual(learner: Learner) -> Hyperprior | None:
    """The hyperprior of a learner that has none itself."""
    if any(getattr(each, "hyperprior", None) is not None for each in learner.modules()):
        return None
    if learner.mixed_model is not None:
        return DeviationHyperprior()
    return LogNormalHyperprior() if positive_numbers(learner) else None


def _laps(clock: list[float]) -> tuple[float, float, float]:
    laps = [later - earlier for earlier, later in pairwise(clock)]
    return tuple([*laps, 0.0, 0.0][:3])  # type: ignore[return-value]


class _Posterior:
    """p(theta | tasks) of one learner."""

    def __init__(self, learner: Learner, tasks: TaskDataset, hyperprior: Hyperprior | None) -> None:
        self.learner, self.tasks, self.hyperprior = learner, tasks, hyperprior
        self.data = _checked(learner, tasks)
        self.points = max(int(tasks.counts.sum()), 1)
        self.total = self.density(learner, self.data)

    def density(self, learner: Learner, data: Sequence[Data]) -> ThetaMap:
        """log p(theta, tasks)."""

        def joint() -> Tensor:
            value = learner.joint_evidence(*data) + learner.log_hyperprior()
            return value if self.hyperprior is None else value + self.hyperprior.of(learner)

        return ThetaMap(learner, joint, data)

    def maxima(self, starts: Starts) -> Ends:
        places = self.total.flat(starts.draw(self.learner, self.total.names))
        return search_all(self.total, places, steps=200, tolerance=1e-5, points=self.points, halving=starts.halving)

    def laplace(self, ends: Ends) -> StudentMixture:
        """A t around each maximum that counts, as wide as its curvature says."""
        order = ends.values.argsort(descending=True).tolist()
        kept: list[int] = []
        for row in order:
            if not ends.finished[row] or ends.values[row] < ends.values[order[0]] - NEGLIGIBLE or len(kept) == 8:
                continue
            near = [
                abs(ends.values[row] - ends.values[i]) < DISTINCT
                and (ends.points[row] - ends.points[i]).abs().max() < 0.1
                for i in kept
            ]
            if not any(near):
                kept.append(row)
        kept = kept or order[:1]
        roots, heights = [], []
        for row in kept:
            root, height = self._width(ends.points[row])
            roots.append(root)
            heights.append(float(ends.values[row]) + height)
        weights = 0.5 * torch.tensor(heights, dtype=torch.float64)  # halved: maxima may be wider than they are curved
        weights, spread = weights.log_softmax(0) - math.log(2.0), torch.stack(roots)
        # each once more, wider: where a variance is nearly zero the density has a shoulder that no curvature shows
        return StudentMixture(ends.points[kept].repeat(2, 1), torch.cat([spread, SHOULDER * spread]), weights.repeat(2))

    def _width(self, point: Float[Tensor, "P"]) -> tuple[Float[Tensor, "P P"], float]:
        """The root of the inverse of minus the Hessian, from differences of gradients, and its log determinant."""
        size, step = len(point), 1e-3
        offsets = step * torch.eye(size, dtype=point.dtype)
        _, gradients = self.total.with_gradients(torch.cat([point + offsets, point - offsets]))
        hessian = -(gradients[:size] - gradients[size:]) / (2.0 * step)
        values, vectors = torch.linalg.eigh(torch.nan_to_num(0.5 * (hessian + hessian.mT)))
        deviations = values.clamp(min=0.25).rsqrt()  # where there is no curvature, as wide as 2 in a logarithm
        covariance = vectors * deviations.square() @ vectors.mT
        return torch.linalg.cholesky(covariance), float(deviations.log().sum())

    def chains(self, sampler: NUTS, ends: Ends, seed: int) -> WeightedDraws:
        learner = copy.deepcopy(self.learner)
        ThetaMap(learner, lambda: torch.zeros(()), self.data).place(ends.points[ends.best])
        whole_prior = learner if self.hyperprior is None else WithHyperprior(learner, self.hyperprior)
        found = nuts_hyper_posterior(whole_prior, self.tasks, sampler=sampler, num_members=200, seed=seed)
        members = found.learners
        if self.hyperprior is not None:
            members = [cast(WithHyperprior, member).learner for member in members]
        each = [dict(member.named_parameters()) for member in members]  # frozen
        points = self.total.flat({name: torch.stack([theta[name] for theta in each]) for name in self.total.names})
        return WeightedDraws(points, points.new_full((len(points),), -math.log(len(points))), math.nan)

    def members(self, points: Float[Tensor, "S P"]) -> list[Learner]:
        found = []
        for point in points:
            member = copy.deepcopy(self.learner)
            ThetaMap(member, lambda: torch.zeros(()), self.data).place(point)
            member.remember(*self.data)  # what tasks teach beside theta is another under each theta
            found.append(member)
        return found

    def gains(
        self, points: Float[Tensor, "S P"], first: StudentMixture, shots: Sequence[int]
    ) -> list[Float[Tensor, "T"]]:
        """Of each number of shots, the gain of every task that has more points, by draws of theta of equal weight."""
        count = len(self.tasks)
        if not shots:
            return []
        folds = min(count, FOLDS)
        fold = torch.arange(count) % folds
        everything = self.total(points)
        gains: list[list[Tensor]] = [[] for _ in shots]
        for each in range(folds):
            rest, out = (
                self.tasks.select(torch.nonzero(chosen).flatten().tolist()) for chosen in (fold != each, fold == each)
            )
            averaged, plug_in = copy.deepcopy(self.learner), copy.deepcopy(self.learner)
            data = _checked(averaged, rest)
            averaged.remember(*data)
            here, density = points, self.density(averaged, data)
            log_weights = (density(points) - everything).log_softmax(0)
            if 1.0 / float(log_weights.exp().square().sum()) < 0.1 * len(points):  # theta is another without them
                here = importance_draws(density, first, generator_of(each)).resampled(len(points))
                log_weights = torch.full_like(log_weights, -math.log(len(points)))
            with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
                fit_evidence(plug_in, rest)
            ends = [self._evidences(averaged, plug_in, out, None, here, log_weights)]
            for place, n in enumerate(shots):
                begins = self._evidences(averaged, plug_in, out, n, here, log_weights)
                has_more = out.counts > n
                gains[place].append((ends[0] - begins)[has_more])
        return [torch.cat(each) for each in gains]

    def _evidences(
        self,
        averaged: Learner,
        plug_in: Learner,
        tasks: TaskDataset,
        count: int | None,
        points: Float[Tensor, "S P"],
        log_weights: Float[Tensor, "S"],
    ) -> Float[Tensor, "T"]:
        """log p of the first points of each task, of the average less of the best theta."""
        data = tasks.data.points(slice(count))
        own = averaged.conform(data)
        each = ThetaMap(averaged, lambda: averaged.evidence(own), [own])(points)  # S T
        mean = (log_weights[:, None] + each).logsumexp(0)
        return mean - plug_in.log_evidence(data).detach().double()


def _checked(learner: Learner, tasks: TaskDataset) -> list[Data]:
    return [learner.conform(part.data) for _, part in tasks.by_length()]
