"""Output heads: what the last numbers of a network at a point mean, as a distribution of the outcome.

    GaussianHead           N(m, s²) of each output, points independent
    MixtureHead            several Gaussians: skewed outcomes, and those with several likely values
    LowRankGaussianHead    points that are jointly Gaussian
    CategoricalHead        a score for each class

A head also says what such a network sees of a support. Of numbers it sees the numbers. Of labels it sees, one class
after the other, which points are of the class and which are not, and gives one score for it: all classes share all
weights, so that relabelling them permutes their probabilities, and any number of classes will do.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal
from torch.nn import functional
from typing_extensions import override

from bayesmeta.data import Data
from bayesmeta.description import Described
from bayesmeta.errors import DataError
from bayesmeta.heads.class_prior import ClassPrior
from bayesmeta.heads.classes import Classes, one_hot
from bayesmeta.one_line import InShort
from bayesmeta.outcomes import Labels, Numbers, Outcomes
from bayesmeta.predictives import IndependentPredictive, LowRankGaussianPredictive, Predictive

MIN_STDDEV = 1e-3
START = math.log(math.expm1(1.0))  # softplus of it is 1: a network that gives 0 predicts N(0, 1)


@dataclass(frozen=True, eq=False)
class Shown(InShort):
    """What a network sees of the support of each task, and how its answers are put together again.

    Attributes:
        points: the support with numbers as outcomes; of labels, `B C` tasks, one a class.
        classes: the classes of each task; None of numbers.
        counts: of labels, the number of examples of each class.

    Example:
        >>> import bayesmeta as bm
        >>> shown = bm.heads.CategoricalHead().shown(bm.Data.from_labels([0.1, 0.2, 0.3], [0, 1, 1]))
        >>> shown.points.y[..., 0].tolist(), shown.queries(torch.zeros(1, 5, 1)).shape
        ([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]], torch.Size([2, 5, 1]))
    """

    points: Data
    classes: Classes | None = None
    counts: Float[Tensor, "B C"] | None = None

    def queries(self, x: Float[Tensor, "B M *x"]) -> Float[Tensor, "L M *x"]:
        """Query points as the network sees them: of labels, once for each class."""
        return x if self.classes is None else x.repeat_interleave(self.classes.num_classes, 0)

    def repeated(self, times: int) -> "Shown":
        """Every task so many times, one after the other: for several answers to each."""
        tasks = torch.arange(self.points.num_tasks, device=self.points.x.device)
        if self.classes is None or self.counts is None:
            return Shown(self.points.select(tasks.repeat_interleave(times)))
        rows = tasks.unflatten(0, (-1, self.classes.num_classes)).repeat_interleave(times, 0).flatten()
        classes = Classes(self.classes.mask.repeat_interleave(times, 0))
        return Shown(self.points.select(rows), classes, self.counts.repeat_interleave(times, 0))


class OutputHead(Described, nn.Module, ABC):
    """What K numbers at a point mean. A subclass gives `outcomes`, `size` and `predictive`.

    Attributes:
        outcomes: what is predicted at a point.
        num_inputs: how many numbers the outcome of a support point is to the network.
        size: K, how many numbers the network gives at a query point.

    Example:
        >>> import bayesmeta as bm
        >>> class Counts(bm.heads.OutputHead):
        ...     '''Poisson counts, seen as numbers.'''
        ...     outcomes, num_inputs, size = bm.Numbers(1), 1, 1
        ...     def predictive(self, raw, shown):
        ...         counts = torch.distributions.Poisson(raw.exp(), validate_args=False)
        ...         return bm.predictives.IndependentPredictive(torch.distributions.Independent(counts, 1))
        >>> bm.ConvCNP(head=Counts()).adapt(bm.Data.from_arrays([0.0], [3.0])).predict([0.1]).mean.shape
        torch.Size([1, 1, 1])
    """

    outcomes: Outcomes
    num_inputs: int
    size: int

    def shown(self, support: Data) -> Shown:
        """What the network sees of a support: the support itself, unless a subclass has labels."""
        return Shown(support)

    @abstractmethod
    def predictive(self, raw: Float[Tensor, "L M K"], shown: Shown) -> Predictive:
        """The predictive at the query points.

        Args:
            raw: what the network gives, any real numbers; with 0 everywhere it should be a reasonable guess for
                outcomes of mean 0 and deviation 1.
            shown: what it has seen.
        """


class PointwiseHead(OutputHead):
    """A head whose K numbers at a point are all there is to know of its outcome: points are independent given them.

    A subclass gives `outcomes`, `size` and `distribution`.

    Example:
        >>> import bayesmeta as bm
        >>> class Counts(bm.heads.PointwiseHead):
        ...     '''Poisson counts, seen as numbers.'''
        ...     outcomes, num_inputs, size = bm.Numbers(1), 1, 1
        ...     def distribution(self, raw):
        ...         counts = torch.distributions.Poisson(raw.exp(), validate_args=False)
        ...         return torch.distributions.Independent(counts, 1)
        >>> learner = bm.ConditionalNeuralProcess(bm.Identity(1), head=Counts())
        >>> learner.adapt(bm.Data.from_arrays([0.0], [3.0])).predict([0.1]).mean.shape
        torch.Size([1, 1, 1])
    """

    @abstractmethod
    def distribution(self, raw: Float[Tensor, "*b K"]) -> Distribution:
        """The distribution of the outcome of each point: batch shape `*b`, event shape (C,)."""

    @override
    def predictive(self, raw: Float[Tensor, "L M K"], shown: Shown) -> IndependentPredictive:
        return IndependentPredictive(self.distribution(raw))


class GaussianHead(PointwiseHead):
    """N(m, s²) of each output at each point, on its own: s = `min_stddev` + softplus.

    Args:
        num_outputs: C.
        min_stddev: what a deviation never falls below, units of y. Large ones, customary in the literature (.1), make
            it impossible to predict precise outcomes well.

    Raises:
        DataError: no outputs, or a least deviation that is not positive.

    Example:
        >>> import bayesmeta as bm
        >>> head, support = bm.heads.GaussianHead(), bm.Data.from_arrays([0.0], [1.0])
        >>> head.predictive(torch.zeros(1, 2, 2), head.shown(support))
        prediction at 2 points: mean [0, 0], sd [1, 1]
    """

    def __init__(self, num_outputs: int = 1, min_stddev: float = MIN_STDDEV) -> None:
        super().__init__()
        require_deviation(min_stddev)
        self.outcomes, self.min_stddev = Numbers(num_outputs), min_stddev
        self.num_inputs, self.size = num_outputs, 2 * num_outputs

    @override
    def distribution(self, raw: Float[Tensor, "*b K"]) -> Distribution:
        mean, spread = raw.unflatten(-1, (2, -1)).unbind(-2)
        return Independent(_normal(mean, spread, self.min_stddev), 1)


class MixtureHead(PointwiseHead):
    """Several Gaussians at each point, for outcomes that are skewed or have more than one likely value.

    With several outputs a component is of all of them together. Points are independent of each other.

    Args:
        num_components: how many Gaussians.
        num_outputs: C.
        min_stddev: what the deviation of a Gaussian never falls below, units of y.

    Raises:
        DataError: no components, no outputs, or a least deviation that is not positive.

    Example:
        >>> import bayesmeta as bm
        >>> head, support = bm.heads.MixtureHead(3), bm.Data.from_arrays([0.0], [1.0])
        >>> head.predictive(torch.randn(1, 2, head.size), head.shown(support)).interval(0.9)[0].shape
        torch.Size([1, 2, 1])
    """

    def __init__(self, num_components: int = 5, num_outputs: int = 1, min_stddev: float = MIN_STDDEV) -> None:
        super().__init__()
        require_deviation(min_stddev)
        if num_components < 1:
            raise DataError(f"expected at least one component, got {num_components}")
        self.num_components, self.outcomes, self.min_stddev = num_components, Numbers(num_outputs), min_stddev
        self.num_inputs, self.size = num_outputs, num_components * (1 + 2 * num_outputs)
        # apart from each other at the start: equal components would stay equal
        self.register_buffer("start", torch.linspace(-1.0, 1.0, num_components), persistent=False)

    start: Tensor

    @override
    def distribution(self, raw: Float[Tensor, "*b K"]) -> Distribution:
        each = raw.unflatten(-1, (self.num_components, -1))
        weights = Categorical(logits=each[..., 0], validate_args=False)
        mean, spread = each[..., 1:].unflatten(-1, (2, -1)).unbind(-2)
        normals = Independent(_normal(mean + self.start.to(mean)[:, None], spread, self.min_stddev), 1)
        return MixtureSameFamily(weights, normals, validate_args=False)


class LowRankGaussianHead(OutputHead):
    """Points that are jointly Gaussian, by a factor u of each: Cov(y, y') = uᵀu' and, of a point, its own variance.

    The marginals of some points do not depend on the others (Markou et al. 2022, the linear covariance). A learner that
    has it is trained on the joint density of the query points.

    Args:
        rank: R, the length of u.
        num_outputs: C.
        min_stddev: what the deviation of a point of its own never falls below, units of y.

    Raises:
        DataError: a rank below 1, no outputs, or a least deviation that is not positive.

    Example:
        >>> import bayesmeta as bm
        >>> head, support = bm.heads.LowRankGaussianHead(4), bm.Data.from_arrays([0.0], [1.0])
        >>> head.predictive(torch.randn(1, 3, head.size), head.shown(support)).log_prob(torch.zeros(1, 3, 1)).shape
        torch.Size([1])
    """

    def __init__(self, rank: int = 16, num_outputs: int = 1, min_stddev: float = MIN_STDDEV) -> None:
        super().__init__()
        require_deviation(min_stddev)
        if rank < 1:
            raise DataError(f"expected a rank of at least 1, got {rank}")
        self.rank, self.outcomes, self.min_stddev = rank, Numbers(num_outputs), min_stddev
        self.num_inputs, self.size = num_outputs, num_outputs * (2 + rank)

    @override
    def predictive(self, raw: Float[Tensor, "L M K"], shown: Shown) -> LowRankGaussianPredictive:
        each = raw.unflatten(-1, (-1, 2 + self.rank))
        stddev = self.min_stddev + functional.softplus(each[..., 1] + START)
        return LowRankGaussianPredictive(each[..., 0], each[..., 2:] / math.sqrt(self.rank), stddev.square())


class CategoricalHead(OutputHead):
    """A score for each class: p(c | x, D) ∝ π_c exp(score_c).

    Args:
        num_classes: C, the classes of every task, which have names and frequencies π (`ClassPrior`); None: those of
            the task's support, each with an example.

    Raises:
        DataError: fewer than two classes.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.ConvCNP(head=bm.heads.CategoricalHead())
        >>> posterior = learner.adapt(bm.Data.from_labels([-1.0, 0.0, 1.0], [0, 1, 2]))
        >>> posterior.predict([0.5]).probs.shape
        torch.Size([1, 1, 3])
    """

    num_inputs, size = 1, 1

    def __init__(self, num_classes: int | None = None) -> None:
        super().__init__()
        self.outcomes, self.class_prior = Labels(num_classes), ClassPrior(num_classes)

    outcomes: Labels

    @override
    def shown(self, support: Data) -> Shown:
        classes = Classes.of(support.y, support.mask, self.outcomes.count)
        count = classes.num_classes
        members = one_hot(support.y, count, support.mask).to(support.x.dtype)  # B N C
        mask = support.mask.repeat_interleave(count, 0)
        points = Data(support.x.repeat_interleave(count, 0), members.mT.flatten(0, 1)[..., None], mask)
        return Shown(points, classes, members.sum(1))

    @override
    def predictive(self, raw: Float[Tensor, "L M K"], shown: Shown) -> IndependentPredictive:
        return IndependentPredictive(Categorical(logits=self.logits(raw, shown), validate_args=False))

    def logits(self, raw: Float[Tensor, "L M 1"], shown: Shown) -> Float[Tensor, "B M C"]:
        """log p(c | x, D) up to a constant of each point, in nats; -inf for what is no class of a task."""
        classes, counts = shown.classes, shown.counts
        assert classes is not None
        assert counts is not None
        scores = raw[..., 0].unflatten(0, (-1, classes.num_classes)).mT
        return classes.logits(scores + self.class_prior(counts, classes.mask)[:, None])


def require_deviation(value: float) -> None:
    """Raise DataError for a least deviation that is not positive."""
    if not 0.0 < value < math.inf:
        raise DataError(f"expected a positive least deviation, got {value}")


def _normal(mean: Tensor, spread: Tensor, least: float) -> Normal:
    return Normal(mean, least + functional.softplus(spread + START), validate_args=False)
