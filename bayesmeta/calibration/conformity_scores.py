"""Conformity scores: how badly an outcome fits a prediction, and which outcomes score no more than a threshold.

numbers    StandardizedResidual, CentralProbability: the region is an interval, output by output
labels     MissingProbability, CumulativeProbability: the region is a set of classes
"""

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from bayesmeta.data import Data
from bayesmeta.errors import DataError, UnsupportedError, retelling
from bayesmeta.evaluation.held_out import HeldOut, predicted, with_room
from bayesmeta.flat import in_order
from bayesmeta.learner import Learner
from bayesmeta.one_line import InShort
from bayesmeta.outcomes import Numbers, Outcomes
from bayesmeta.predictives import Predictive
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.source import Split


class ConformityScore(InShort, ABC):
    """How badly outcomes fit a prediction: the larger, the worse (a nonconformity score, in the words of some).

    A score of your own inherits `IntervalScore` or `LabelScore`, which say what its regions are. Any score keeps the
    promise of coverage; a good one gives small regions.

    Example:
        >>> import bayesmeta as bm
        >>> predictive = bm.ALPaCA(bm.Identity(1)).adapt(bm.Data.from_arrays([], [])).predict([0.0])
        >>> score: bm.calibration.ConformityScore = bm.calibration.StandardizedResidual()
        >>> score(predictive, predictive.mean + 2.0 * predictive.stddev).round(decimals=3)
        tensor([[[2.]]], dtype=torch.float64)
    """

    @abstractmethod
    def __call__(self, predictive: Predictive, y: Shaped[Tensor, "B M *c"]) -> Float[Tensor, "B M *c"]:
        """The score of each outcome, output by output.

        Args:
            predictive: at the points.
            y: the outcomes.
        """


class IntervalScore(ConformityScore):
    """A score whose region, the outcomes that score no more than a threshold, is an interval; output by output.

    A subclass gives `__call__` and `interval`.

    Example:
        >>> import bayesmeta as bm
        >>> class Distance(bm.calibration.IntervalScore):  # units of y: intervals of the same width everywhere
        ...     def __call__(self, predictive, y):
        ...         return (y - predictive.mean).abs()
        ...     def interval(self, predictive, threshold):
        ...         return predictive.mean - threshold, predictive.mean + threshold
        >>> predictive = bm.ALPaCA(bm.Identity(1)).adapt(bm.Data.from_arrays([], [])).predict([0.0])
        >>> [end.item() for end in Distance().interval(predictive, torch.full((1, 1, 1), 2.0))]
        [-2.0, 2.0]
    """

    @abstractmethod
    def interval(
        self, predictive: Predictive, threshold: Float[Tensor, "#B 1 C"]
    ) -> tuple[Float[Tensor, "B M C"], Float[Tensor, "B M C"]]:
        """(lower, upper), units of y; the whole line where the threshold is infinite.

        Args:
            predictive: at the points.
            threshold: the largest score in the region.
        """


class LabelScore(ConformityScore):
    """A score whose region, the classes that score no more than a threshold, is a set of classes.

    A subclass gives `all`.

    Example:
        >>> import bayesmeta as bm
        >>> class Surprisal(bm.calibration.LabelScore):  # -log p, nats
        ...     def all(self, predictive):
        ...         return -predictive.probs.log()
        >>> predictive = bm.R2D2(bm.Identity(1), num_classes=2).adapt(bm.Data.from_labels([], [])).predict([0.0])
        >>> Surprisal()(predictive, torch.tensor([[1]]))  # log 2
        tensor([[0.6931]], dtype=torch.float64)
    """

    @abstractmethod
    def all(self, predictive: Predictive) -> Float[Tensor, "B M C"]:
        """The score that each class would have as the outcome.

        Args:
            predictive: of class probabilities, at the points.
        """

    def __call__(self, predictive: Predictive, y: Shaped[Tensor, "B M"]) -> Float[Tensor, "B M"]:
        """The score of each label."""
        return self.all(predictive).gather(-1, y[..., None])[..., 0]


class StandardizedResidual(IntervalScore):
    """|y - mean| / stddev, which gives intervals around the predictive mean, in predictive standard deviations.

    Example:
        >>> from torch.distributions import Independent, Normal
        >>> from bayesmeta.predictives import IndependentPredictive
        >>> predictive = IndependentPredictive(Independent(Normal(torch.zeros(1, 1, 1), 2.0), 1))
        >>> score = StandardizedResidual()
        >>> score(predictive, torch.full((1, 1, 1), -3.0)).item()
        1.5
        >>> [end.item() for end in score.interval(predictive, torch.full((1, 1, 1), 2.0))]
        [-4.0, 4.0]
    """

    def __call__(self, predictive: Predictive, y: Float[Tensor, "B M C"]) -> Float[Tensor, "B M C"]:
        """How many standard deviations lie between outcome and mean."""
        return (y - predictive.mean).abs() / predictive.stddev

    def interval(
        self, predictive: Predictive, threshold: Float[Tensor, "#B 1 C"]
    ) -> tuple[Float[Tensor, "B M C"], Float[Tensor, "B M C"]]:
        """The mean, less and plus so many standard deviations."""
        reach = threshold.to(predictive.mean) * predictive.stddev
        return predictive.mean - reach, predictive.mean + reach


class CentralProbability(IntervalScore):
    """2 |F(y) - 1/2|, the probability of the smallest central interval that holds y: intervals follow a skewed
    predictive.

    It cannot tell tails apart where F rounds to 0 or 1. Where many outcomes lie there, the region is the whole line,
    and `StandardizedResidual` the better score.

    Example:
        >>> from torch.distributions import Independent, Normal
        >>> from bayesmeta.predictives import IndependentPredictive
        >>> predictive = IndependentPredictive(Independent(Normal(torch.zeros(1, 1, 1), 2.0), 1))
        >>> round(CentralProbability()(predictive, torch.full((1, 1, 1), 2.0 * 1.645)).item(), 2)
        0.9
    """

    def __call__(self, predictive: Predictive, y: Float[Tensor, "B M C"]) -> Float[Tensor, "B M C"]:
        """The probability of the interval."""
        return 2.0 * (predictive.cdf(y) - 0.5).abs()

    def interval(
        self, predictive: Predictive, threshold: Float[Tensor, "#B 1 C"]
    ) -> tuple[Float[Tensor, "B M C"], Float[Tensor, "B M C"]]:
        """The central interval of this probability."""
        lower = torch.full_like(predictive.mean, -math.inf)
        upper = -lower
        shape = lower.shape
        for value in threshold.unique().tolist():
            if value < 1.0 - 4.0 * torch.finfo(lower.dtype).eps:
                at = (threshold == value).expand(shape)
                # a level of zero is the median
                ends = predictive.interval(value) if value > 0.0 else (predictive.quantile(0.5),) * 2
                lower, upper = torch.where(at, ends[0], lower), torch.where(at, ends[1], upper)
        return lower, upper


class MissingProbability(LabelScore):
    """1 - p(c), which gives sets of every class that is probable enough (Sadinle, Lei, Wasserman 2019). They may be
    empty, where no class is.

    Example:
        >>> from torch.distributions import Categorical
        >>> from bayesmeta.predictives import IndependentPredictive
        >>> predictive = IndependentPredictive(Categorical(torch.tensor([[[0.5, 0.25, 0.25]]])))
        >>> MissingProbability().all(predictive)
        tensor([[[0.5000, 0.7500, 0.7500]]])
    """

    def all(self, predictive: Predictive) -> Float[Tensor, "B M C"]:
        """One less the probability of each class."""
        return 1.0 - predictive.probs


class CumulativeProbability(LabelScore):
    """The sum of the probabilities of all classes that are as probable as c or more (Romano, Sesia, Candès 2020).

    There is no randomisation, which the paper has: sets are a little too large, and more even over easy and hard
    points. They are empty where one class alone is more probable than the threshold.

    Example:
        >>> from torch.distributions import Categorical
        >>> from bayesmeta.predictives import IndependentPredictive
        >>> predictive = IndependentPredictive(Categorical(torch.tensor([[[0.5, 0.25, 0.25]]])))
        >>> CumulativeProbability().all(predictive)
        tensor([[[0.5000, 1.0000, 1.0000]]])
    """

    def all(self, predictive: Predictive) -> Float[Tensor, "B M C"]:
        """The probability of each class and of those before it."""
        probs = predictive.probs
        return torch.where(probs[..., None, :] >= probs[..., :, None], probs[..., None, :], 0.0).sum(-1)


def choose_score(score: ConformityScore | None, outcomes: Outcomes) -> ConformityScore:
    """The score, or the default one for such outcomes.

    Args:
        score: None takes `StandardizedResidual` for numbers and `MissingProbability` for labels.
        outcomes: numbers or labels.

    Raises:
        DataError: a score of the other kind.

    Example:
        >>> choose_score(None, Data.from_labels([0.0, 1.0], [0, 1]).outcomes).__class__.__name__
        'MissingProbability'
    """
    is_regression = isinstance(outcomes, Numbers)
    if score is None:
        return StandardizedResidual() if is_regression else MissingProbability()
    if not isinstance(score, IntervalScore if is_regression else LabelScore):
        kinds = ("numbers", "an IntervalScore") if is_regression else ("labels", "a LabelScore")
        raise DataError(f"expected {kinds[1]} for outcomes that are {kinds[0]}, got {type(score).__name__}")
    return score


def score_outcomes(score: ConformityScore, held_out: HeldOut) -> Float[Tensor, "B M C"]:
    """The score of each outcome; labels have one output, C = 1.

    Args:
        score: how badly an outcome fits.
        held_out: predictions, and what came.

    Raises:
        DataError: scores that are not numbers.

    Example:
        >>> import bayesmeta as bm
        >>> learner, data = bm.R2D2(bm.Identity(1), num_classes=2), bm.Data.from_labels([0.0, 1.0], [0, 1])
        >>> score_outcomes(MissingProbability(), HeldOut.of(learner.adapt(data).predict(data.x), data)).shape
        torch.Size([1, 2, 1])
    """
    scores = score(held_out.predictive, held_out.y)
    scores = scores if scores.ndim == 3 else scores[..., None]
    if bool(scores[held_out.mask].isnan().any()):
        raise DataError(f"expected scores that are numbers, got NaN from {type(score).__name__}")
    return scores


def require_unknown_noise(noise: Tensor | None) -> None:
    """Refuse known noise of outcomes that regions are to be calibrated or judged by.

    Args:
        noise: that of the data.

    Raises:
        UnsupportedError: there is some.

    Example:
        >>> require_unknown_noise(None)  # raises nothing
    """
    if noise is not None:
        raise UnsupportedError(
            "expected outcomes without known noise (yerr), got some: a conformal region is for an outcome of which "
            "nothing is known but x, and outcomes of unequal noise are not exchangeable with it"
        )


def scored_tasks(
    learner: Learner,
    tasks: TaskDataset,
    score: ConformityScore,
    shots: int,
    split: type[Split],
    query: int | None,
    seed: int,
    batch_size: int,
) -> tuple[Data, Float[Tensor, "P C"], Int[Tensor, "K"]]:
    """The support of every task with more than `shots` points, and the scores of its query points.

    Args:
        learner: what adapts.
        tasks: calibration tasks.
        score: how badly an outcome fits.
        shots: support points of a task (of each class, with `ClassSplit`).
        split: what divides the points of a task.
        query: largest number of query points of a task; None takes all that are left.
        seed: of the division.
        batch_size: tasks adapted to at once.

    Returns:
        The support; the scores of the query points of all K tasks, those of the first task first; and how many each
        task has.

    Raises:
        DataError: fewer than two such tasks, outcomes that the learner does not predict, a score that is not a number.
        UnsupportedError: tasks with known noise.

    Example:
        >>> import bayesmeta as bm
        >>> simulator, score, split = bm.tasks.GPFunctions.eq(), StandardizedResidual(), bm.tasks.RandomSplit
        >>> tasks = simulator.dataset(4, 8, seed=0)
        >>> support, scores, counts = scored_tasks(simulator.oracle, tasks, score, 3, split, None, 0, 256)
        >>> support.counts.tolist(), scores.shape, counts.tolist()
        ([3, 3, 3, 3], torch.Size([20, 1]), [5, 5, 5, 5])
    """
    require_unknown_noise(tasks.flat.noise)
    chosen, parts = with_room(tasks, shots, split, 2, "calibration"), []
    for positions, part in chosen.by_length():
        divided = part.divided(split.at(shots, query), seed)
        first = 0
        with retelling(names=part.names):
            for found in predicted(learner, divided.support, divided.query, batch_size):
                last = first + len(found.mask)
                parts.append((positions[first:last], score_outcomes(score, found), found.mask))
                first = last
    support = chosen.divided(split.at(shots, 1), seed).support  # the support is the same with any query
    return support, *in_order(parts)
