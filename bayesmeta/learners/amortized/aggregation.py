"""Aggregation: from what is said of each support point to what is said of all of them, whatever their order and number.

    MeanPool         r = (n0 r0 + Σ_i r_i) / (n0 + n)                          n0, r0 learned: r0 where nothing is seen
    BayesianPool     N(z; m, v) ∝ N(z; 0, I) Π_i N(m_i; z, v_i)                 Volpp et al. 2021, section 4
    CrossAttention   each query reads the points that matter to it             Kim et al. 2019

A plain mean does not say how many points it is of, and a softmax over no point is NaN: here every aggregation begins
with what is learned for no point, and the points are added to it.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from bayesmeta.description import Described
from bayesmeta.errors import DataError
from bayesmeta.networks.attention import Attention
from bayesmeta.noise import Positive
from bayesmeta.one_line import InShort


@dataclass(frozen=True, eq=False)
class Summary(InShort, ABC):
    """What an aggregation keeps of the points of each task: a value. A subclass gives `joined`.

    Attributes:
        counts: how many points it is of.

    Example:
        >>> from dataclasses import dataclass
        >>> import bayesmeta as bm
        >>> @dataclass(frozen=True, eq=False)
        ... class Largest(bm.learners.Summary):  # what an aggregation by the largest number would keep
        ...     most: torch.Tensor
        ...     def joined(self, other):
        ...         return Largest(self.counts + other.counts, torch.maximum(self.most, other.most))
        >>> one, two = Largest(torch.ones(1), torch.tensor([[2.0]])), Largest(torch.ones(1), torch.tensor([[3.0]]))
        >>> one.joined(two).most
        tensor([[3.]])
    """

    counts: Float[Tensor, "L"]

    @abstractmethod
    def joined(self, other: Any) -> "Summary":
        """The summary of the points of both, which are of the same tasks."""


@dataclass(frozen=True, eq=False)
class Sums(Summary):
    """Sums over the points.

    Attributes:
        total: as many numbers as the aggregation adds up.

    Example:
        >>> Sums(torch.ones(1), torch.tensor([[2.0]])).joined(Sums(torch.ones(1), torch.tensor([[3.0]]))).total
        tensor([[5.]])
    """

    total: Float[Tensor, "L V"]

    @override
    def joined(self, other: "Sums") -> "Sums":
        return Sums(self.counts + other.counts, self.total + other.total)


@dataclass(frozen=True, eq=False)
class Rows(Summary):
    """The points themselves, one row each.

    Attributes:
        rows: what is read.
        mask: True = a real point.

    Example:
        >>> one = Rows(torch.ones(1), torch.zeros(1, 1, 4), torch.ones(1, 1, dtype=torch.bool))
        >>> one.joined(one).rows.shape
        torch.Size([1, 2, 4])
    """

    rows: Float[Tensor, "L N E"]
    mask: Bool[Tensor, "L N"]

    @override
    def joined(self, other: "Rows") -> "Rows":
        rows, mask = torch.cat([self.rows, other.rows], 1), torch.cat([self.mask, other.mask], 1)
        return Rows(self.counts + other.counts, rows, mask)


@dataclass(frozen=True, eq=False)
class Belief(InShort):
    """N(mean, diag(variance)) over a latent vector z of each task.

    Attributes:
        mean: of z.
        variance: of each number in z, at most 1, that of the prior.

    Example:
        >>> belief = Belief(torch.zeros(1, 2), torch.full((1, 2), 0.25))
        >>> belief.draws(torch.ones(3, 2))[:, 0]
        tensor([[0.5000, 0.5000]])
        >>> belief.divergence(Belief(torch.zeros(1, 2), torch.ones(1, 2)))
        tensor([0.6363])
    """

    mean: Float[Tensor, "L d"]
    variance: Float[Tensor, "L d"]

    def draws(self, base: Float[Tensor, "S d"]) -> Float[Tensor, "L S d"]:
        """Draws of z from draws of N(0, I), the same ones for all tasks."""
        return self.mean[:, None] + self.variance.sqrt()[:, None] * base

    def divergence(self, other: "Belief") -> Float[Tensor, "L"]:
        """KL(self ‖ other) of each task, in nats."""
        ratio = self.variance / other.variance
        square = (self.mean - other.mean).square() / other.variance
        return 0.5 * (ratio + square - 1.0 - ratio.log()).sum(-1)


class Aggregation(Described, nn.Module, ABC):
    """How a set of encoded points becomes what a decoder reads. A subclass gives the sizes, `summarise` and `read`.

    Attributes:
        num_inputs: E, how many numbers the encoder gives for a point.
        num_queries: Q, how many numbers it wants to know of where a point or query is; 0 where all queries read alike.
        num_outputs: R, how many numbers are read.

    Example:
        >>> import bayesmeta as bm
        >>> class Sum(bm.learners.Aggregation):
        ...     num_inputs, num_outputs = 16, 16
        ...     def summarise(self, rows, places, mask):
        ...         total = torch.where(mask[..., None], rows, 0.0).sum(1)
        ...         return bm.learners.Sums(mask.sum(-1).to(rows.dtype), total)
        ...     def read(self, summary, places):
        ...         return summary.total[:, None]
        >>> learner = bm.ConditionalNeuralProcess(bm.Identity(1), aggregation=Sum())
        >>> learner.adapt(bm.Data.from_arrays([0.0, 1.0], [0.3, 0.7])).predict([0.5]).stddev.shape
        torch.Size([1, 1, 1])
    """

    num_inputs: int
    num_queries: int = 0
    num_outputs: int

    @abstractmethod
    def summarise(
        self, rows: Float[Tensor, "L N E"], places: Float[Tensor, "L N Q"], mask: Bool[Tensor, "L N"]
    ) -> Summary:
        """What is kept of points, such that `joined` summaries are the summary of all.

        Args:
            rows: what the encoder says of each point.
            places: where each point is, Q numbers.
            mask: True = a real point.
        """

    @abstractmethod
    def read(self, summary: Any, places: Float[Tensor, "L M Q"]) -> Float[Tensor, "L #M R"]:
        """What each query reads; where all read the same, once.

        Args:
            summary: what `summarise` gave, or several of them joined.
            places: where each query is.
        """


class MeanPool(Aggregation):
    """The mean of what is said of the points, with a learned r0 that counts as n0 points: r0 where nothing is seen.

    Args:
        size: of r.

    Attributes:
        strength: n0, learned, 1 at the start.
        nothing: r0, learned.

    Raises:
        DataError: a size below 1.

    Example:
        >>> pool, here = MeanPool(2), torch.zeros(1, 3, 0)
        >>> rows, mask = torch.ones(1, 3, 2), torch.tensor([[True, True, False]])
        >>> [round(value, 4) for value in pool.read(pool.summarise(rows, here, mask), here)[0, 0].tolist()]
        [0.6667, 0.6667]
    """

    def __init__(self, size: int = 128) -> None:
        super().__init__()
        _require_size(size)
        self.num_inputs = self.num_outputs = size
        self.strength = Positive((), 1.0, (1e-3, 1e3))
        self.nothing = nn.Parameter(torch.zeros(size))

    @override
    def summarise(
        self, rows: Float[Tensor, "L N E"], places: Float[Tensor, "L N Q"], mask: Bool[Tensor, "L N"]
    ) -> Sums:
        return _sums(rows, mask)

    @override
    def read(self, summary: Sums, places: Float[Tensor, "L M Q"]) -> Float[Tensor, "L 1 R"]:
        n0 = self.strength()
        return ((n0 * self.nothing + summary.total) / (n0 + summary.counts)[:, None])[:, None]


class BayesianPool(Aggregation):
    """Every point is a noisy look m_i at a latent z ~ N(0, I), with variance v_i: the posterior is Gaussian, and exact.

        1/v = 1 + Σ_i 1/v_i,   m = v Σ_i m_i / v_i

    So points that say nothing (large v_i) change nothing, and the count is not lost. The encoder gives m_i and the
    inverse softplus of 1/v_i; the decoder reads m and v. Volpp, Flürenbrock, Grossberger, Daniel, Neumann 2021,
    "Bayesian context aggregation for neural processes" (ICLR).

    Args:
        size: d, of z.

    Raises:
        DataError: a size below 1.

    Example:
        >>> pool, here = BayesianPool(1), torch.zeros(1, 2, 0)
        >>> unit = torch.tensor(1.0).expm1().log()  # softplus of it is 1
        >>> rows = torch.stack([torch.tensor([3.0, 6.0]), unit.expand(2)], -1)[None]
        >>> belief = pool.belief(pool.summarise(rows, here, torch.ones(1, 2, dtype=torch.bool)))
        >>> round(belief.mean.item(), 4), round(belief.variance.item(), 4)  # of 0, 3 and 6, all of variance 1
        (3.0, 0.3333)
    """

    def __init__(self, size: int = 64) -> None:
        super().__init__()
        _require_size(size)
        self.size, self.num_inputs, self.num_outputs = size, 2 * size, 2 * size

    @override
    def summarise(
        self, rows: Float[Tensor, "L N E"], places: Float[Tensor, "L N Q"], mask: Bool[Tensor, "L N"]
    ) -> Sums:
        mean, raw = rows.chunk(2, -1)
        precision = functional.softplus(raw)
        return _sums(torch.cat([precision, precision * mean], -1), mask)

    def belief(self, summary: Any) -> Belief:
        """N(m, v) of each task; N(0, I) where nothing is seen."""
        precision, weighted = summary.total.chunk(2, -1)
        variance = 1.0 / (1.0 + precision)
        return Belief(variance * weighted, variance)

    @override
    def read(self, summary: Sums, places: Float[Tensor, "L M Q"]) -> Float[Tensor, "L 1 R"]:
        belief = self.belief(summary)
        return torch.cat([belief.mean, belief.variance], -1)[:, None]


class CrossAttention(Aggregation):
    """Every query reads the points by how well they match it, and what is learned for no point where none does.

    The points are kept, so that an update adds rows and a prediction costs N per query (Kim et al. 2019).

    Args:
        size: E, of a row.
        num_heads: heads; it divides the size.

    Raises:
        DataError: a number of heads that does not divide the size.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.ConditionalNeuralProcess(bm.Identity(1), aggregation=bm.learners.CrossAttention(32, 4))
        >>> learner.adapt(bm.Data.from_arrays([0.0, 1.0], [0.3, 0.7])).predict([0.5]).stddev.shape
        torch.Size([1, 1, 1])
    """

    def __init__(self, size: int = 128, num_heads: int = 8) -> None:
        super().__init__()
        self.num_inputs = self.num_queries = self.num_outputs = size
        self.attention = Attention(size, num_heads)

    @override
    def summarise(
        self, rows: Float[Tensor, "L N E"], places: Float[Tensor, "L N Q"], mask: Bool[Tensor, "L N"]
    ) -> Rows:
        # a point and a query at the same place share `places`, so that they match from the start
        return Rows(mask.sum(-1).to(rows.dtype), rows + places, mask)

    @override
    def read(self, summary: Rows, places: Float[Tensor, "L M Q"]) -> Float[Tensor, "L M R"]:
        return places + self.attention(places, summary.rows, summary.mask)


def _sums(values: Tensor, mask: Tensor) -> Sums:
    return Sums(mask.sum(-1).to(values.dtype), torch.where(mask[..., None], values, 0.0).sum(1))


def _require_size(size: int) -> None:
    if size < 1:
        raise DataError(f"expected a size of at least 1, got {size}")
