"""Conformal prediction: intervals and label sets that hold at least `level` of new outcomes, whatever the learner says.

`HierarchicalConformal` speaks of a point of a new task, by K calibration tasks that the new one is exchangeable with
(Dunn, Wasserman, Ramdas 2022; Lee, Barber, Willett 2023, arXiv:2306.06342). With s a score of how badly an outcome fits
the prediction, and M_t query points in task t, the threshold is the `level`-quantile of

    Σ_t Σ_m 1/((K + 1) M_t) δ(s_tm)  +  1/(K + 1) δ(∞)

and what scores no more is in the region. Points of one task are as dependent as they like; K tasks count as K, however
many points they have. `SplitConformal` speaks of a point of the very task that it has k calibration points of, by these
alone: it asks nothing of other tasks and much of k.

The coverage is marginal, over the calibration tasks (or points) as well as what is asked about; it is promised for new
tasks on average, not for each.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmeta.annotations import checked
from bayesmeta.arguments import probability, whole
from bayesmeta.calibration.conformity_scores import (
    ConformityScore,
    IntervalScore,
    LabelScore,
    choose_score,
    require_unknown_noise,
    score_outcomes,
    scored_tasks,
)
from bayesmeta.calibration.regions import RegionScores, held_by_intervals, held_by_sets, region_scores
from bayesmeta.data import Data, TaskBatch
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.evaluation.held_out import HeldOut, require_batch, with_room
from bayesmeta.evaluation.metrics import check_level
from bayesmeta.learner import Learner, TaskPosterior
from bayesmeta.modes import settled
from bayesmeta.one_line import InShort, OneLine
from bayesmeta.predictives import Predictive
from bayesmeta.tasks.dataset import TaskDataset, naming_columns
from bayesmeta.tasks.source import OrderedSplit, RandomSplit, Split
from bayesmeta.typing import ArrayLike


@dataclass(frozen=True, eq=False, kw_only=True)
class ConformalPosterior(OneLine, ABC):
    """A learner's posterior of a batch of tasks, with conformal regions around its predictions: a value.

    `HierarchicalConformal`, `FewShotConformal` and `SplitConformal` give such posteriors. A subclass gives `threshold`.

    Attributes:
        posterior: the learner's own.
        score: what regions are made of.

    Example:
        >>> import bayesmeta as bm
        >>> class Fixed(bm.calibration.ConformalPosterior):  # regions of 3 deviations, whatever the level: no promise
        ...     def threshold(self, level):
        ...         return torch.full((1, 1, 1), 3.0)
        >>> posterior = bm.ALPaCA(bm.Identity(1)).adapt(bm.Data.from_arrays([], []))
        >>> fixed = Fixed(posterior=posterior, score=bm.calibration.StandardizedResidual())
        >>> lower, upper = fixed.interval([0.0])
        >>> round(((upper - lower) / fixed.predict([0.0]).stddev).item(), 3)
        6.0
    """

    posterior: TaskPosterior
    score: ConformityScore

    def __repr__(self) -> str:
        """One line."""
        return f"conformal {self.posterior!r}"

    def predict(self, x: ArrayLike) -> Predictive:
        """The learner's own predictive, as it was.

        Args:
            x: query points, `B M *x`; as for `TaskPosterior.predict`.
        """
        return self.posterior.predict(x)

    @settled
    def interval(self, x: ArrayLike, level: float = 0.9) -> tuple[Float[Tensor, "B M C"], Float[Tensor, "B M C"]]:
        """(lower, upper) that hold a new outcome with probability at least `level`, output by output, units of y.

        Args:
            x: query points, as for `predict`.
            level: the least coverage, within (0, 1).

        Raises:
            DataError: a level outside (0, 1), or higher than the calibration tasks allow.
            UnsupportedError: the outcomes are labels.
        """
        if not isinstance(self.score, IntervalScore):
            raise UnsupportedError("labels have no intervals: use label_set")
        return self.score.interval(self.predict(x), self.threshold(level))

    @settled
    def label_set(self, x: ArrayLike, level: float = 0.9) -> Bool[Tensor, "B M C"]:
        """Which classes are in the set that holds a new label with probability at least `level`.

        A set may be *full*, with every class of the task in it: nothing is ruled out at this level. It may be *empty*,
        which is a miss whatever the label is, and within what the level allows. By `MissingProbability` every label is
        too improbable then: the point lies between classes, or looks like none of them. By `CumulativeProbability` it
        is the other way about: one class alone is more probable than the threshold. `evaluate` reports the shares of
        both. A point far from all classes may still have a sure label and a set of one: whether it is of any of them,
        `OpenSetPredictive.none_of_these` says.

        Args:
            x: query points, as for `predict`.
            level: the least coverage, within (0, 1).

        Raises:
            DataError: a level outside (0, 1), or higher than the calibration tasks allow.
            UnsupportedError: the outcomes are numbers.

        Example:
            >>> import bayesmeta as bm
            >>> blobs = bm.tasks.GaussianBlobs(ways=3, dimension=2, spread=6.0)
            >>> calibration = blobs.episodes(40, per_class=10, seed=0)
            >>> split = bm.tasks.ClassSplit
            >>> conformal = bm.calibration.HierarchicalConformal(blobs.oracle, calibration, 2, split=split)
            >>> x = [[0.0, 8.0], [0.1, 8.0], [8.0, 0.0], [8.0, 0.1], [-8.0, 0.0], [-8.0, 0.1]]
            >>> posterior = conformal.adapt(bm.Data.from_labels(x, [0, 0, 1, 1, 2, 2]))
            >>> sets = posterior.label_set([[0.0, 8.0], [4.0, 4.0]], level=0.7)  # within class 0; between 0 and 1
            >>> sets[0].tolist()
            [[True, False, False], [False, False, False]]
            >>> is_empty, is_full = ~sets.any(-1), sets.all(-1)
            >>> is_empty.tolist(), is_full.tolist()
            ([[False, True]], [[False, False]])
        """
        return self._label_set(self.predict(x), level)

    def _label_set(self, predictive: Predictive, level: float) -> Tensor:
        if not isinstance(self.score, LabelScore):
            raise UnsupportedError("numbers have no label sets: use interval")
        threshold = self.threshold(level)
        scores = self.score.all(predictive)
        return scores <= threshold + 8.0 * torch.finfo(scores.dtype).eps  # equal scores must not be torn apart

    @abstractmethod
    def threshold(self, level: float) -> Float[Tensor, "#B 1 C"]:
        """The largest score in the region, output by output.

        Args:
            level: the least coverage, within (0, 1).

        Raises:
            DataError: a level outside (0, 1), or higher than the calibration tasks allow.
        """


class TaskConformal(ABC):
    """Regions for a point of a new task, by calibration tasks: what those learn of a learner's predictions.

    Each calibration task is treated as the new one will be: `shots` points are adapted to, and the others scored. What
    is promised is for a task drawn like these, that has `shots` points to adapt to, and for one of its other points,
    chosen as the query points were (with `PrefixSplit`: any of those to come, not the very next).

    Args:
        learner: frozen.
        shots: support points of a task (of each class, with `ClassSplit`), here and in `adapt`.
        score: how badly an outcome fits.
        scores: `P C` (labels: `P 1`), of the P query points of the K calibration tasks, those of the first task first.
        counts: `K`, how many of them each task has.
        sizes: numbers of support points that the calibration tasks had.

    Attributes:
        learner: frozen.
        shots: support points of a task.
        score: how badly an outcome fits.
        scores: of the calibration tasks.
        counts: of query points of each.

    Example:
        >>> import bayesmeta as bm
        >>> simulator = bm.tasks.GPFunctions.eq()
        >>> tasks, score = simulator.dataset(30, 8, seed=0), bm.calibration.StandardizedResidual()
        >>> conformal = bm.calibration.HierarchicalConformal(simulator.oracle, tasks, shots=3, score=score)
        >>> isinstance(conformal, bm.calibration.TaskConformal)
        True
        >>> bool(conformal.threshold(0.5) < conformal.threshold(0.9))  # deviations from the mean, here
        True
    """

    def __init__(
        self,
        learner: Learner,
        shots: int,
        score: ConformityScore,
        scores: Float[Tensor, "P C"],
        counts: Int[Tensor, "K"],
        sizes: frozenset[int],
    ) -> None:
        self.learner, self.shots, self.score = learner, whole(shots, "shots"), score
        self.scores, self.counts, self._sizes = scores, counts, sizes

    def __repr__(self) -> str:
        """How many tasks, and up to which level they serve."""
        count = len(self.counts)
        return f"{type(self).__name__}({count} tasks at {self.shots} shots: levels up to {count / (count + 1):.3f})"

    def threshold(self, level: float) -> Float[Tensor, "C"]:
        """The largest score in the region, output by output.

        Args:
            level: the least coverage, within (0, 1).

        Raises:
            DataError: a level outside (0, 1), or higher than K/(K + 1): the message says how many tasks it needs.
        """
        require_tasks(len(self.counts), level)
        weights = (1.0 / (self.counts * (len(self.counts) + 1.0)).double()).repeat_interleave(self.counts)
        return _weighted_quantile(self.scores, weights, level)

    @settled
    @naming_columns
    def adapt(self, support: Data) -> ConformalPosterior:
        """The posterior of tasks with as many support points as the calibration tasks had.

        Args:
            support: points of new tasks.

        Raises:
            ShapeError: the support does not have the learner's inputs or outputs.
            DataError: other numbers of points, outcomes that the learner does not predict, a score that is not a
                number.
        """
        posterior = self.learner.adapt(support)
        for got in support.counts.tolist():
            if got not in self._sizes:
                wanted = " or ".join(map(str, sorted(self._sizes)))
                raise DataError(
                    f"expected {wanted} support points, as the calibration tasks had, got {got}: calibrate at the "
                    "number of shots that is asked about"
                )
        return self._posterior(posterior, support)

    def evaluate(
        self,
        tasks: TaskDataset,
        level: float = 0.9,
        *,
        split: type[Split] = RandomSplit,
        query: int | None = None,
        seed: int = 0,
        batch_size: int = 256,
    ) -> RegionScores:
        """How often the regions hold what comes, and how large they are, on held-out tasks.

        Args:
            tasks: none of the calibration tasks; one with no more than `shots` points is left out.
            level: the coverage that is asked for.
            split: as the calibration had it.
            query: largest number of query points of a task; None takes all that are left.
            seed: of the division into support and query.
            batch_size: tasks adapted to at once.

        Raises:
            DataError: no task with enough points, a level outside (0, 1) or higher than the calibration tasks allow,
                outcomes that the learner does not predict.
        """
        chosen = with_room(tasks, self.shots, split, 1, "held-out")
        parts = _divided(chosen, split.at(self.shots, query), seed, batch_size)
        regions = ((p, self.adapt(part.support), self.learner.conform(part.query)) for p, part in parts)
        return _evaluated(chosen, self.shots, probability(level, "a level"), regions, self.score)

    @abstractmethod
    def _posterior(self, posterior: TaskPosterior, support: Data) -> ConformalPosterior:
        """The posterior with its regions."""


class HierarchicalConformal(TaskConformal):
    """Regions for a point of a new task, by calibration tasks; see `TaskConformal` for what is promised.

    Args:
        learner: a trained learner; it is left as it was.
        tasks: calibration tasks, none of them used in training, validation or recalibration. A task with no more than
            `shots` points is left out, and the promise is then for tasks with more.
        shots: support points of a task (of each class, with `ClassSplit`), here and in `adapt`.
        score: `StandardizedResidual` for numbers and `MissingProbability` for labels unless given.
        split: as `evaluate` has it.
        query: largest number of query points of a task; None takes all that are left.
        seed: of the division into support and query.
        batch_size: tasks adapted to at once.

    Raises:
        DataError: fewer than two tasks with enough points, outcomes that the learner does not predict, a score of the
            other kind, a score that is not a number.

    Example:
        >>> import bayesmeta as bm
        >>> simulator = bm.tasks.GPFunctions.eq()
        >>> conformal = HierarchicalConformal(simulator.oracle, simulator.dataset(40, 10, seed=0), shots=5)
        >>> conformal
        HierarchicalConformal(40 tasks at 5 shots: levels up to 0.976)
        >>> task = simulator.dataset(1, 10, seed=1).data
        >>> posterior = conformal.adapt(task.points(slice(5)))
        >>> posterior
        conformal posterior of 1 task after 5 points
        >>> lower, upper = posterior.interval(task.x, level=0.9)
        >>> bool((lower < upper).all())
        True
    """

    @checked
    @settled
    @naming_columns
    def __init__(
        self,
        learner: Learner,
        tasks: TaskDataset,
        shots: int = 5,
        *,
        score: ConformityScore | None = None,
        split: type[Split] = RandomSplit,
        query: int | None = None,
        seed: int = 0,
        batch_size: int = 256,
    ) -> None:
        learner, score = learner.frozen(), choose_score(score, tasks.flat.outcomes)
        support, scores, counts = scored_tasks(learner, tasks, score, shots, split, query, seed, batch_size)
        super().__init__(learner, shots, score, scores, counts, frozenset(support.counts.tolist()))

    def _posterior(self, posterior: TaskPosterior, support: Data) -> "HierarchicalPosterior":
        return HierarchicalPosterior(posterior=posterior, score=self.score, conformal=self)


@dataclass(frozen=True, eq=False, kw_only=True)
class HierarchicalPosterior(ConformalPosterior):
    """Regions for tasks by calibration tasks.

    Attributes:
        conformal: has the scores of the calibration tasks.
    """

    conformal: HierarchicalConformal

    def threshold(self, level: float) -> Float[Tensor, "1 1 C"]:
        """That of the calibration tasks, the same for all tasks."""
        return self.conformal.threshold(level)[None, None]


class SplitConformal(InShort):
    """Regions for a point of one task, by k other points of it (Vovk, Gammerman, Shafer 2005).

    The promise holds in each task whose points are exchangeable, however unlike others it is. The threshold is the
    ⌈(k + 1) level⌉-th smallest of k scores: where k is too small for that (below 19, at a level of .95), the region is
    the whole line, or all classes.

    Args:
        learner: a trained learner; it is left as it was.
        score: `StandardizedResidual` for numbers and `MissingProbability` for labels unless given.

    Example:
        >>> import bayesmeta as bm
        >>> simulator = bm.tasks.GPFunctions.eq()
        >>> task = simulator.dataset(1, 40, seed=0).data
        >>> support, calibration, new = (task.points(part) for part in (slice(5), slice(5, 35), slice(35, 40)))
        >>> lower, upper = SplitConformal(simulator.oracle).adapt(support, calibration).interval(new.x, level=0.9)
        >>> lower.shape
        torch.Size([1, 5, 1])
    """

    @checked
    @settled
    def __init__(self, learner: Learner, score: ConformityScore | None = None) -> None:
        self.learner, self.score = learner.frozen(), score

    @settled
    @naming_columns
    def adapt(self, support: Data, calibration: Data) -> "SplitPosterior":
        """The posterior given the support alone, and scores of the calibration points of the same tasks.

        Args:
            support: what is adapted to.
            calibration: other points of the same tasks, chosen as those that are asked about.

        Raises:
            ShapeError: the data do not have the learner's inputs or outputs, or are of other tasks.
            DataError: outcomes that the learner does not predict, a score of the other kind, a score that is not a
                number.
            UnsupportedError: calibration points with known noise.
        """
        require_unknown_noise(calibration.noise)
        posterior = self.learner.adapt(support)
        score = choose_score(self.score, support.outcomes)
        calibration = posterior.spec.conform(calibration).clone()
        found = HeldOut.of(posterior.at(calibration.x), calibration)
        return SplitPosterior(
            posterior=posterior, score=score, scores=score_outcomes(score, found), mask=calibration.mask
        )

    def evaluate(
        self,
        tasks: TaskDataset,
        shots: int,
        calibration: int,
        level: float = 0.9,
        *,
        split: type[OrderedSplit] = RandomSplit,
        query: int | None = None,
        seed: int = 0,
        batch_size: int = 256,
    ) -> RegionScores:
        """How often the regions hold what comes, and how large they are, on held-out tasks.

        Args:
            tasks: held-out tasks; one with no more than `shots + calibration` points is left out.
            shots: points of a task that are adapted to.
            calibration: further points of it that are calibrated with.
            level: the coverage that is asked for.
            split: what divides the points of a task.
            query: largest number of query points of a task; None takes all that are left.
            seed: of the division.
            batch_size: tasks adapted to at once.

        Raises:
            DataError: no task with enough points, a level outside (0, 1), outcomes that the learner does not predict.
        """
        shots = whole(shots, "shots")
        total = shots + whole(calibration, "calibration", 1)
        chosen = with_room(tasks, total, split, 1, "held-out")
        parts = _divided(chosen, split.at(total, query), seed, batch_size)

        def adapted(known: Data) -> SplitPosterior:
            return self.adapt(known.points(slice(shots)), known.points(slice(shots, None)))

        regions = ((p, adapted(part.support), self.learner.conform(part.query)) for p, part in parts)
        score = choose_score(self.score, tasks.flat.outcomes)
        return _evaluated(chosen, shots, probability(level, "a level"), regions, score)


@dataclass(frozen=True, eq=False, kw_only=True)
class SplitPosterior(ConformalPosterior):
    """Regions for tasks by calibration points of their own.

    Attributes:
        scores: `B N C` (labels: `B N 1`), padded.
        mask: `B N`, True = real.
    """

    scores: Float[Tensor, "B N C"]
    mask: Bool[Tensor, "B N"]

    def threshold(self, level: float) -> Float[Tensor, "B 1 C"]:
        """The quantile of the scores of each task's own calibration points."""
        check_level(level)
        return split_quantile(self.scores, self.mask, level)[:, None]


def _divided(tasks: TaskDataset, split: Split, seed: int, batch_size: int) -> Iterator[tuple[Tensor, TaskBatch]]:
    """Positions of tasks and the tasks, some at a time, divided into what is adapted to and what is asked about."""
    size = require_batch(batch_size)
    for positions, part in tasks.by_length():
        divided = part.divided(split, seed)
        for start in range(0, len(part), size):
            yield positions[start : start + size], divided.select(slice(start, start + size))


def _evaluated(
    tasks: TaskDataset,
    shots: int,
    level: float,
    regions: Iterator[tuple[Tensor, ConformalPosterior, Data]],
    score: ConformityScore,
) -> RegionScores:
    require_unknown_noise(tasks.flat.noise)
    if isinstance(score, LabelScore):
        sets = ((p, _held_by_sets(posterior, query, level), query.mask) for p, posterior, query in regions)
        return region_scores(tasks, shots, level, sets, "classes")
    intervals = ((p, posterior.interval(query.x, level), query) for p, posterior, query in regions)
    widths = ((p, held_by_intervals(interval, query), query.mask) for p, interval, query in intervals)
    return region_scores(tasks, shots, level, widths, "width")


@settled
def _held_by_sets(posterior: ConformalPosterior, query: Data, level: float) -> dict[str, Tensor]:
    predictive = posterior.predict(query.x)
    return held_by_sets(posterior._label_set(predictive, level), predictive.probs > 0.0, query)


def hierarchical_quantile(
    scores: Float[Tensor, "*s K M C"], mask: Bool[Tensor, "*s K M"], level: float
) -> Float[Tensor, "*s C"]:
    """The `level`-quantile of scores of K tasks, each of weight 1/(K + 1) in all, and of ∞ with weight 1/(K + 1).

    Leading axes are separate problems.

    Args:
        scores: of M points of each task, padded.
        mask: True = real; each task has at least one point.
        level: within (0, 1).

    Example:
        >>> scores = torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]], [[5.0], [0.0]]])
        >>> mask = torch.tensor([[True, True], [True, True], [True, False]])
        >>> hierarchical_quantile(scores, mask, 0.5), hierarchical_quantile(scores, mask, 0.9)
        (tensor([4.]), tensor([inf]))
    """
    tasks = mask.shape[-2]
    weights = mask / (mask.sum(-1, keepdim=True) * (tasks + 1.0)).double()
    flat = torch.where(mask[..., None], scores, math.inf).flatten(-3, -2)
    return _weighted_quantile(flat, weights.flatten(-2), level)


def split_quantile(scores: Float[Tensor, "*s N C"], mask: Bool[Tensor, "*s N"], level: float) -> Float[Tensor, "*s C"]:
    """The `level`-quantile of N scores and ∞, all of one weight: the ⌈(N + 1) level⌉-th smallest, or ∞.

    Args:
        scores: of N points of each task, padded.
        mask: True = real.
        level: within (0, 1).

    Example:
        >>> split_quantile(torch.arange(19.0)[:, None], torch.ones(19, dtype=torch.bool), 0.95)
        tensor([18.])
    """
    weights = mask / (mask.sum(-1, keepdim=True) + 1.0).double()
    return _weighted_quantile(torch.where(mask[..., None], scores, math.inf), weights, level)


def require_tasks(tasks: int, level: float) -> None:
    """Refuse a level at which so few calibration tasks give no finite region: K/(K + 1) is the highest.

    Args:
        tasks: K.
        level: the least coverage that is asked for.

    Raises:
        DataError: a level outside (0, 1), or too few tasks; the message says how many it needs.

    Example:
        >>> try:
        ...     require_tasks(5, 0.9)
        ... except DataError as error:
        ...     print(str(error).split(":")[0])
        expected at least 9 calibration tasks for a level of 0.9, got 5
    """
    check_level(level)
    needed = math.ceil(level / (1.0 - level) - 1e-9)
    if tasks < needed:
        raise DataError(
            f"expected at least {needed} calibration tasks for a level of {level}, got {tasks}: "
            f"they can promise up to {tasks}/{tasks + 1} = {math.floor(1000 * tasks / (tasks + 1)) / 1000}"
        )


def _weighted_quantile(
    scores: Float[Tensor, "*s Q C"], weights: Float[Tensor, "*s Q"], level: float
) -> Float[Tensor, "*s C"]:
    """The smallest score up to which the weights sum to the level; ∞ where all of them do not."""
    ordered, order = scores.sort(dim=-2)
    total = weights[..., None].expand_as(scores).gather(-2, order).cumsum(-2)
    enough = total >= level - 1e-9  # shares such as 18/20 must not miss .9 by rounding
    return (
        torch.where(enough, ordered, math.inf).amin(-2)
        if scores.shape[-2]
        else scores.new_full((*scores.shape[:-2], scores.shape[-1]), math.inf)
    )
