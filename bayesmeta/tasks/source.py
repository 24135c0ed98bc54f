"""Where tasks come from, and how the points of a task are divided into support and query."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from bayesmeta.arguments import some, whole
from bayesmeta.data import Data, TaskBatch
from bayesmeta.errors import DataError
from bayesmeta.learner import Learner
from bayesmeta.one_line import InShort

_BOUNDS = "expected support bounds with 0 <= smallest <= largest"


@dataclass(frozen=True)
class Split(ABC):
    """How the points of a task are divided into support and query: how many of each there are, and which.

    A subclass gives `divide`. Where the numbers count something else than the points of a task, it also gives `counted`
    and `room`: `ClassSplit` counts the points of each class.

    Attributes:
        support: smallest and largest number of support points, drawn uniformly for every task; both inclusive. A task
            with fewer points gives up to all but one of them.
        query: largest number of query points; None takes all the others.
        counted: what the numbers count, for messages.

    Raises:
        DataError: negative or decreasing bounds, or fewer than one query point.

    Example:
        >>> import bayesmeta as bm
        >>> class Alternating(bm.tasks.Split):
        ...     def divide(self, data, generator):
        ...         return data.points(slice(0, None, 2)), data.points(slice(1, None, 2))
        >>> tasks = bm.TaskDataset.from_list([([0.0, 1.0, 2.0, 3.0], [0.1, 0.9, 2.1, 2.9])])
        >>> batch = tasks.divided(Alternating())
        >>> batch.support.x.flatten().tolist(), batch.query.x.flatten().tolist()
        ([0.0, 2.0], [1.0, 3.0])
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
        try:
            low, high = (whole(bound, "of support points") for bound in self.support)
        except DataError as error:
            raise DataError(f"{_BOUNDS}, got {self.support}: {error}") from error
        if low > high:
            raise DataError(f"{_BOUNDS}, got {self.support}")
        object.__setattr__(self, "support", (low, high))
        if self.query is not None:
            object.__setattr__(self, "query", some(self.query, "query", "query point"))

    @classmethod
    def at(cls, shots: int, query: int | None = None) -> "Split":
        """The split with exactly `shots` support points in every task."""
        return cls((shots, shots), query)

    @classmethod
    def room(cls, data: Data) -> Tensor:
        """The largest number of support points `B` at which a task still has one left for the query."""
        return data.counts - 1

    def sizes(self, counts: Tensor, generator: torch.Generator) -> Tensor:
        """Draw the number of support points of each task, so that at least one point is left for the query.

        Args:
            counts: the number of points of each task, `B`.
            generator: the only source of randomness.
        """
        low, high = self.support
        draw = torch.rand(counts.shape, dtype=torch.float32, generator=generator)
        most = torch.minimum(counts - 1, torch.tensor(high)).clamp(min=0)
        least = torch.minimum(torch.tensor(low), most)
        return least + (draw * (most - least + 1)).long().clamp(max=most - least)

    @abstractmethod
    def divide(self, data: Data, generator: torch.Generator) -> tuple[Data, Data]:
        """The support and the query of each task, padded to the longest."""


@dataclass(frozen=True)
class OrderedSplit(Split):
    """A split that puts the points of a task in an order, and takes the support from its beginning.

    The query is taken from a later place in that order. A subclass gives `order` and `query_start`.

    Example:
        >>> import torch
        >>> import bayesmeta as bm
        >>> class FromTheLeft(bm.tasks.OrderedSplit):
        ...     def order(self, data, generator):
        ...         return torch.where(data.mask, data.x[..., 0], torch.inf).argsort(-1)
        ...
        ...     def query_start(self, sizes, counts):
        ...         return sizes
        >>> tasks = bm.TaskDataset.from_list([([3.0, 1.0, 2.0], [0.3, 0.1, 0.2])])
        >>> tasks.divided(FromTheLeft.at(2)).support.x.flatten().tolist()
        [1.0, 2.0]
    """

    @abstractmethod
    def order(self, data: Data, generator: torch.Generator) -> Tensor:
        """The order `B N` in which points are taken: the first of it are support; padding comes last."""

    @abstractmethod
    def query_start(self, sizes: Tensor, counts: Tensor) -> Tensor:
        """The position `B` in that order at which the query begins."""

    def divide(self, data: Data, generator: torch.Generator) -> tuple[Data, Data]:
        """The support and the query of each task, padded to the longest."""
        counts = data.counts
        sizes = self.sizes(counts, generator)
        order = self.order(data, generator)
        start = self.query_start(sizes, counts)
        available = counts - start
        wanted = available if self.query is None else available.clamp(max=self.query)
        return _take(data, order, torch.zeros_like(sizes), sizes), _take(data, order, start, wanted)


@dataclass(frozen=True)
class RandomSplit(OrderedSplit):
    """Support and query are drawn at random among the points of a task.

    The query is taken from the far end of the random order, so that with one seed it stays the same as the support
    grows (as long as the points suffice).

    Example:
        >>> import torch
        >>> import bayesmeta as bm
        >>> tasks = bm.tasks.GPFunctions.eq().dataset(3, 12)
        >>> few, more = (tasks.divided(bm.tasks.RandomSplit.at(shots, query=4)) for shots in (2, 8))
        >>> few.support.counts.tolist(), more.support.counts.tolist()
        ([2, 2, 2], [8, 8, 8])
        >>> torch.equal(few.query.x, more.query.x)
        True
    """

    def order(self, data: Data, generator: torch.Generator) -> Tensor:
        """A uniformly random order of the real points."""
        keys = torch.rand(data.mask.shape, dtype=torch.float32, generator=generator)
        return torch.where(data.mask, keys, 2.0).argsort(-1)

    def query_start(self, sizes: Tensor, counts: Tensor) -> Tensor:
        """The last `query` points, or all that are not support."""
        return sizes if self.query is None else torch.maximum(sizes, counts - self.query)


@dataclass(frozen=True)
class EqualSplit(RandomSplit):
    """A random split in which all tasks of a draw have the same number of support points, drawn anew each time.

    Where a simulator makes the tasks nothing is padded then, and a learner whose cost grows with the longest support
    trains faster. What is drawn once is drawn alike for all: a data set that is divided once, such as the validation
    tasks of `fit`, has one number of support points for all its tasks of one length.

    Example:
        >>> import torch
        >>> import bayesmeta as bm
        >>> functions, generator = bm.tasks.GPFunctions.eq(), torch.Generator().manual_seed(0)
        >>> split = bm.tasks.EqualSplit((0, 9), query=5)
        >>> [functions.draw(3, split, generator).support.counts.tolist() for _ in range(3)]
        [[3, 3, 3], [6, 6, 6], [0, 0, 0]]
    """

    def sizes(self, counts: Tensor, generator: torch.Generator) -> Tensor:
        """One number for all; a task with fewer points gives up to all but one of them."""
        if not len(counts):
            return counts
        return torch.minimum(super().sizes(counts.max()[None], generator), counts - 1).clamp(min=0)


@dataclass(frozen=True)
class PrefixSplit(OrderedSplit):
    """Forecasting: the support is the beginning of a task in its own order (time), and the query is what comes next.

    Example:
        >>> import bayesmeta as bm
        >>> tasks = bm.TaskDataset.from_list([([0.0, 1.0, 2.0, 3.0], [0.1, 0.9, 2.1, 2.9])])
        >>> batch = tasks.divided(bm.tasks.PrefixSplit.at(3))
        >>> batch.support.x.flatten().tolist(), batch.query.x.flatten().tolist()
        ([0.0, 1.0, 2.0], [3.0])
    """

    def order(self, data: Data, generator: torch.Generator) -> Tensor:
        """The order of the data, with padding last."""
        return (~data.mask).int().argsort(dim=-1, stable=True)

    def query_start(self, sizes: Tensor, counts: Tensor) -> Tensor:
        """Right after the support."""
        return sizes


@dataclass(frozen=True)
class ClassSplit(Split):
    """K-shot classification: support and query are drawn at random from each class of a task, and counted by class.

    One K is drawn for a task, and each class that its labels show gives K support points (up to all but one of its
    points) and at most `query` of the others. In a share of the tasks (`unequal`) every class draws a K of its own, so
    that a learner is trained on what it will meet where examples are as they come. The query is taken from the far end
    of the random order of a class, so that with one seed it stays the same as the support grows (as long as the points
    suffice). Points come in a random order, not sorted by class.

    Attributes:
        support: smallest and largest number of support points of each class, both inclusive.
        query: largest number of query points of each class; None takes all the others.
        unequal: the share of tasks in which each class draws its own K, uniform between the bounds of `support`; each
            task is one of them with this probability.

    Raises:
        DataError: as `Split`, and a share that is not between 0 and 1.

    Example:
        >>> import bayesmeta as bm
        >>> tasks = bm.TaskDataset.from_labels([([0.1, 0.2, 0.3, 1.1, 1.2, 1.3], [0, 0, 0, 1, 1, 1])])
        >>> batch = tasks.divided(bm.tasks.ClassSplit.at(1))
        >>> sorted(batch.support.y[0].tolist()), sorted(batch.query.y[0].tolist())
        ([0, 1], [0, 0, 1, 1])
    """

    counted: ClassVar[str] = "points of every class"

    support: tuple[int, int] = (1, 5)
    unequal: float = 0.0

    def __post_init__(self) -> None:
        """Check the bounds, and the share."""
        super().__post_init__()
        if not 0.0 <= self.unequal <= 1.0:
            raise DataError(f"expected a share of unequal tasks between 0 and 1, got {self.unequal}")

    @classmethod
    def room(cls, data: Data) -> Tensor:
        """The largest K at which every class of a task still has a point left for the query."""
        _require_labels(data)
        counts = _ranks(data, torch.zeros(data.mask.shape, dtype=torch.float32))[1]
        most = torch.where(data.mask, counts, data.num_points).amin(-1) if data.num_points else data.counts
        return torch.where(data.counts > 0, most, 0) - 1

    def divide(self, data: Data, generator: torch.Generator) -> tuple[Data, Data]:
        """The support and the query of each task, padded to the longest. Raises DataError for floating outcomes."""
        _require_labels(data)
        if not data.num_points:
            return data, data
        keys, places = torch.rand(
            (2, *data.mask.shape), dtype=torch.float32, generator=generator
        )  # within a class, and within a task
        rank, count = _ranks(data, keys)
        shots = self.sizes(
            torch.where(data.mask, count, 0).amax(-1), generator
        )  # up to what the largest class can give
        size = torch.minimum(shots[:, None], count - 1)
        if self.unequal > 0.0:
            size = torch.where(
                self.are_unequal(len(shots), generator)[:, None], self._own_sizes(data, count, generator), size
            )
        start = size if self.query is None else torch.maximum(size, count - self.query)
        sides = []
        for chosen in (data.mask & (rank < size), data.mask & (rank >= start)):
            order = torch.where(chosen, places, 2.0).argsort(-1)
            total = chosen.sum(-1)
            sides.append(_take(data, order, torch.zeros_like(total), total))
        return sides[0], sides[1]

    def are_unequal(self, num_tasks: int, generator: torch.Generator) -> Tensor:
        """In which tasks every class draws its own K, `B`."""
        return (
            torch.rand(num_tasks, dtype=torch.float32, generator=generator, device=generator.device).cpu()
            < self.unequal
        )

    def _own_sizes(self, data: Data, count: Tensor, generator: torch.Generator) -> Tensor:
        """Of each point the number of support points of its class, each class having drawn its own; `B N`."""
        low, high = self.support
        labels, which = data.y.unique(return_inverse=True)
        draw = torch.rand(len(data.y), len(labels), generator=generator).gather(1, which)
        most = (count - 1).clamp(max=high)
        least = most.clamp(max=low)
        return least + (draw * (most - least + 1)).long().clamp(max=most - least)


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
    # where the source itself is padding its values are finite, and the mask hides them
    return replace(data.each(lambda value: value[rows, index]), mask=mask)


class TaskSource(InShort, ABC):
    """Something that meta-training tasks can be drawn from: a `TaskDataset`, or a simulator that makes new ones.

    A subclass gives `draw` and `pooled`; what makes new tasks inherits `Simulator`, where `simulate` is enough.

    Attributes:
        oracle: the exact Bayes-optimal predictive for these tasks, with the interface of a learner, where it is known.

    Example:
        >>> import torch
        >>> import bayesmeta as bm
        >>> class Resampled(bm.tasks.TaskSource):
        ...     def __init__(self, data):
        ...         self.data = data
        ...
        ...     def draw(self, num_tasks, split, generator):
        ...         tasks = torch.randint(self.data.num_tasks, (num_tasks,), generator=generator)
        ...         return bm.TaskBatch(*split.divide(self.data.select(tasks), generator))
        ...
        ...     def pooled(self, generator):
        ...         return self.data
        >>> source = Resampled(bm.tasks.GPFunctions.eq().dataset(3, 10).data)
        >>> source.draw(8, bm.tasks.RandomSplit.at(4), torch.Generator().manual_seed(0)).query.x.shape
        torch.Size([8, 6, 1])
    """

    oracle: Learner | None = None

    @abstractmethod
    def draw(self, num_tasks: int, split: Split, generator: torch.Generator) -> TaskBatch:
        """Draw a batch of tasks, their points divided by `split`. The generator is the only source of randomness."""

    @abstractmethod
    def pooled(self, generator: torch.Generator) -> Data:
        """Points to take statistics of (all of a data set; a large sample of a simulator)."""

    @property
    def total_points(self) -> float:
        """How many points there are to learn from, which a hyperprior is weighed against: infinitely many of a
        simulator, and of images each once, however many episodes show it.
        """
        return math.inf
