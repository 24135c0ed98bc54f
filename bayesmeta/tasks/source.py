"""Where tasks come from, and how the points of a task are divided into support and query."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bayesmeta.data import Data, TaskBatch
from bayesmeta.errors import DataError
from bayesmeta.learner import Learner


@dataclass(frozen=True)
class Split(ABC):
    """How many points of a task are support and how many are query; a subclass says which, and of what it counts them.

    Attributes:
        support: smallest and largest number of support points, drawn uniformly for every task; both inclusive. A task
            with fewer points gives up to all but one of them.
        query: largest number of query points; None takes all the others.
        counted: what the numbers count, for messages.

    Raises:
        DataError: negative or decreasing bounds, or fewer than one query point.
    """

    counted: ClassVar[str] = "points"

    support: tuple[int, int] = (0, 20)
    query: int | None = None

    def __post_init__(self) -> None:
        """Check the bounds."""
        if not isinstance(self.support, tuple) or len(self.support) != 2:
            raise DataError(
                f"expected support bounds (smallest, largest), got {self.support!r}: "
                f"for a fixed number write {type(self).__name__}.at({self.support!r})"
            )
        low, high = self.support
        if not 0 <= low <= high:
            raise DataError(f"expected support bounds with 0 <= smallest <= largest, got {self.support}")
        if self.query is not None and self.query < 1:
            raise DataError(f"expected at least one query point, got {self.query}")

    @classmethod
    def at(cls, shots: int, query: int | None = None) -> "Split":
        """Exactly `shots` support points in every task."""
        return cls((shots, shots), query)

    @classmethod
    def room(cls, data: Data) -> Tensor:
        """The largest number of support points `B` at which a task still has one left for the query."""
        return data.counts - 1

    def sizes(self, counts: Tensor, generator: torch.Generator) -> Tensor:
        """A number of support points for each task of these `B` point counts: at least one point is left to query."""
        low, high = self.support
        draw = torch.rand(counts.shape, generator=generator)
        most = torch.minimum(counts - 1, torch.tensor(high)).clamp(min=0)
        least = torch.minimum(torch.tensor(low), most)
        return least + (draw * (most - least + 1)).long().clamp(max=most - least)

    @abstractmethod
    def divide(self, data: Data, generator: torch.Generator) -> tuple[Data, Data]:
        """Support and query of each task, repadded to the longest."""


@dataclass(frozen=True)
class OrderedSplit(Split):
    """A split that takes points in some order: support from its beginning, and query from a place after that."""

    @abstractmethod
    def order(self, data: Data, generator: torch.Generator) -> Tensor:
        """The order `B N` in which points are taken: the first of it are support; padding comes last."""

    @abstractmethod
    def query_start(self, sizes: Tensor, counts: Tensor) -> Tensor:
        """The position `B` in that order at which the query begins."""

    def divide(self, data: Data, generator: torch.Generator) -> tuple[Data, Data]:
        """Support and query of each task, repadded to the longest."""
        counts = data.counts
        sizes = self.sizes(counts, generator)
        order = self.order(data, generator)
        start = self.query_start(sizes, counts)
        available = counts - start
        wanted = available if self.query is None else available.clamp(max=self.query)
        return _take(data, order, torch.zeros_like(sizes), sizes), _take(data, order, start, wanted)


@dataclass(frozen=True)
class RandomSplit(OrderedSplit):
    """Support and query are drawn at random among the points of a task. The query is taken from the far end of the
    random order, so that with one seed it stays the same as the support grows (as long as the points suffice).
    """

    def order(self, data: Data, generator: torch.Generator) -> Tensor:
        """A uniformly random order of the real points."""
        keys = torch.rand(data.mask.shape, generator=generator)
        return torch.where(data.mask, keys, 2.0).argsort(-1)

    def query_start(self, sizes: Tensor, counts: Tensor) -> Tensor:
        """The last `query` points, or all that are not support."""
        return sizes if self.query is None else torch.maximum(sizes, counts - self.query)


@dataclass(frozen=True)
class PrefixSplit(OrderedSplit):
    """Forecasting: support is the beginning of a task in its own order (time), and the query is what comes next."""

    def order(self, data: Data, generator: torch.Generator) -> Tensor:
        """As given, with padding last."""
        return (~data.mask).int().argsort(dim=-1, stable=True)

    def query_start(self, sizes: Tensor, counts: Tensor) -> Tensor:
        """Right after the support."""
        return sizes


@dataclass(frozen=True)
class ClassSplit(Split):
    """K-shot classification: support and query are drawn at random from each class of a task, and counted by class.

    One K is drawn for a task, and each class that its labels show gives K support points (up to all but one of its
    points) and at most `query` of the others. The query is taken from the far end of the random order of a class, so
    that with one seed it stays the same as the support grows (as long as the points suffice). Points come in a random
    order, not sorted by class.

    Attributes:
        support: smallest and largest number of support points of each class, both inclusive.
        query: largest number of query points of each class; None takes all the others.
    """

    counted: ClassVar[str] = "points of every class"

    support: tuple[int, int] = (1, 5)

    @classmethod
    def room(cls, data: Data) -> Tensor:
        """The largest K at which every class of a task still has a point left for the query."""
        _require_labels(data)
        counts = _ranks(data, torch.zeros(data.mask.shape))[1]
        most = torch.where(data.mask, counts, data.num_points).amin(-1) if data.num_points else data.counts
        return torch.where(data.counts > 0, most, 0) - 1

    def divide(self, data: Data, generator: torch.Generator) -> tuple[Data, Data]:
        """Support and query of each task, repadded to the longest. Raises DataError for floating outcomes."""
        _require_labels(data)
        if not data.num_points:
            return data, data
        keys, places = torch.rand((2, *data.mask.shape), generator=generator)  # within a class, and within a task
        rank, count = _ranks(data, keys)
        shots = self.sizes(
            torch.where(data.mask, count, 0).amax(-1), generator
        )  # up to what the largest class can give
        size = torch.minimum(shots[:, None], count - 1)
        start = size if self.query is None else torch.maximum(size, count - self.query)
        sides = []
        for chosen in (data.mask & (rank < size), data.mask & (rank >= start)):
            order = torch.where(chosen, places, 2.0).argsort(-1)
            total = chosen.sum(-1)
            sides.append(_take(data, order, torch.zeros_like(total), total))
        return sides[0], sides[1]


def _require_labels(data: Data) -> None:
    if data.y.is_floating_point():
        raise DataError(
            "expected labels for ClassSplit, which counts points by class, got floating outcomes: "
            "use RandomSplit for regression"
        )


def _ranks(data: Data, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Of each point, its place in its own class by ascending key, and the number of points of that class; both `B N`.

    What this says of padding means nothing.
    """
    places = torch.arange(data.num_points).expand_as(data.mask)
    order = keys.argsort(-1)
    labels = torch.where(data.mask, data.y, torch.iinfo(torch.int64).max).gather(1, order)
    by_label = labels.argsort(dim=-1, stable=True)
    order, labels = order.gather(1, by_label), labels.gather(1, by_label)
    # runs of equal labels, from `first` up to `end`
    changes = torch.ones_like(data.mask)
    changes[:, 1:] = labels[:, 1:] != labels[:, :-1]
    first = torch.where(changes, places, 0).cummax(-1).values
    ends = torch.ones_like(data.mask)
    ends[:, :-1] = changes[:, 1:]
    end = torch.where(ends, places, data.num_points).flip(-1).cummin(-1).values.flip(-1) + 1
    back = order.argsort(-1)
    return (places - first).gather(1, back), (end - first).gather(1, back)


def _take(data: Data, order: Tensor, start: Tensor, count: Tensor) -> Data:
    width = int(count.max()) if len(count) else 0
    position = torch.arange(width)
    mask = position < count[:, None]
    index = order.gather(1, torch.where(mask, start[:, None] + position, 0)) if width else order[:, :0]
    rows = torch.arange(len(order))[:, None]
    x, y = data.x[rows, index], data.y[rows, index]
    # where the source itself is padding its values are finite, and the mask hides them
    return Data(x, y, mask)


class TaskSource(ABC):
    """Something that meta-training tasks can be drawn from: a `TaskDataset`, or a simulator that makes new ones.

    Attributes:
        oracle: the exact Bayes-optimal predictive for these tasks, with the interface of a learner, where it is known.
    """

    oracle: Learner | None = None

    @abstractmethod
    def draw(self, num_tasks: int, split: Split, generator: torch.Generator) -> TaskBatch:
        """A batch of tasks with their points divided by `split`. The generator is the only source of randomness."""

    @abstractmethod
    def pooled(self, generator: torch.Generator) -> Data:
        """Points to take statistics of (all of a data set; a large sample of a simulator)."""
