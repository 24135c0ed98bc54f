"""Points of many tasks one after another, without padding; and which tasks to put side by side.

Padding costs as many points as the longest task has, for every task: of 10,000 tasks with 5 points and one with 100,000
all but 15 in 100,000 would be padding. So points are kept in flat rows, and padded a few tasks of similar length at a
time (`alike`): memory is then proportional to the number of points.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from bayesmeta.data import WASTE, Data, TaskBatch
from bayesmeta.errors import ShapeError, retelling
from bayesmeta.one_line import several
from bayesmeta.outcomes import Labels, Numbers, Outcomes

MOST_POINTS = 2**19  # padded points side by side: 4 MB for each column in float64
SMALL = 2**14  # padded points below which nothing is gained by sorting


@dataclass(frozen=True, slots=True, eq=False)
class FlatData:
    """The points of T tasks in flat rows: those of task t are rows `offsets[t]` up to `offsets[t + 1]`.

    Attributes:
        x: the inputs, `rows *x`.
        y: the outcomes, `rows C`, or `rows` labels.
        offsets: `T + 1`, increasing from 0 to the number of rows.
        noise: the known noise variance of each outcome, `rows C`; None where none is known.

    Raises:
        ShapeError: x, y and noise differ in length, or the offsets do not divide them.

    Example:
        >>> import bayesmeta as bm
        >>> x, y = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[5.0], [6.0], [7.0]])
        >>> flat = FlatData(x, y, torch.tensor([0, 1, 3]))
        >>> flat.counts.tolist(), flat.padded([1, 0]).mask.tolist()
        ([1, 2], [[True, True], [True, False]])
        >>> flat.select([1]).x.flatten().tolist()
        [1.0, 2.0]
    """

    x: Shaped[Tensor, "rows *x"]
    y: Shaped[Tensor, "rows *c"]
    offsets: Int[Tensor, "_"]
    noise: Float[Tensor, "rows C"] | None = None

    def __repr__(self) -> str:
        """One line: how many tasks and points there are, and the shapes of rows."""
        shapes = f"x {tuple(self.x.shape)}, y {tuple(self.y.shape)}"
        return f"FlatData({several(len(self.offsets) - 1, 'task')}, {several(len(self.x), 'point')}: {shapes})"

    def __post_init__(self) -> None:
        """Check that the parts belong together."""
        rows = len(self.x)
        ends = (int(self.offsets[0]), int(self.offsets[-1])) if len(self.offsets) else None
        if len(self.y) != rows or ends != (0, rows) or bool((self.offsets.diff() < 0).any()):
            raise ShapeError(f"expected offsets from 0 to {rows} that divide x and y, got {len(self.y)} y and {ends}")
        if self.noise is not None and self.noise.shape != self.y.shape:
            raise ShapeError(f"expected noise of shape {tuple(self.y.shape)}, got {tuple(self.noise.shape)}")

    @classmethod
    def of(cls, data: Data) -> "FlatData":
        """The real points of padded tasks, in their order."""
        offsets = torch.zeros(data.num_tasks + 1, dtype=torch.long, device=data.mask.device)
        torch.cumsum(data.counts, 0, out=offsets[1:])
        noise = data.noise
        if bool(data.mask.all()):
            noise = None if noise is None else noise.flatten(0, 1)
            return cls(data.x.flatten(0, 1), data.y.flatten(0, 1), offsets, noise)
        return cls(data.x[data.mask], data.y[data.mask], offsets, None if noise is None else noise[data.mask])

    @classmethod
    def grouped(
        cls,
        x: Shaped[Tensor, "rows *x"],
        y: Shaped[Tensor, "rows *c"],
        tasks: Int[Tensor, "rows"],
        num_tasks: int,
        noise: Float[Tensor, "rows C"] | None = None,
    ) -> "FlatData":
        """Rows in any order, put together task by task; those of one task stay in their order.

        Args:
            x: the inputs.
            y: the outcomes.
            tasks: the task of each row, from 0 to T - 1.
            num_tasks: T; a task may have no rows.
            noise: the known noise variance of each outcome.

        Example:
            >>> rows = FlatData.grouped(torch.arange(3.0)[:, None], torch.zeros(3, 1), torch.tensor([2, 0, 2]), 3)
            >>> rows.x.flatten().tolist(), rows.counts.tolist()
            ([1.0, 0.0, 2.0], [1, 0, 2])
        """
        counts = torch.bincount(tasks, minlength=num_tasks)
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        if bool((tasks.diff() < 0).any()):
            order = tasks.argsort(stable=True)
            x, y, noise = x[order], y[order], None if noise is None else noise[order]
        return cls(x, y, offsets, noise)

    @property
    def num_tasks(self) -> int:
        """The number of tasks, T."""
        return len(self.offsets) - 1

    @property
    def counts(self) -> Int[Tensor, "T"]:
        """The number of points of each task."""
        return self.offsets.diff()

    @property
    def outcomes(self) -> Outcomes:
        """What y is: so many numbers, or labels."""
        return Numbers(self.y.shape[1]) if self.y.is_floating_point() else Labels()

    @property
    def measured(self) -> Float[Tensor, "rows C"]:
        """The outcomes, numbers, with NaN in place of those that were not measured.

        Example:
            >>> y, noise = torch.tensor([[5.0, 1.0]]), torch.tensor([[0.0, torch.inf]])
            >>> FlatData(torch.zeros(1, 1), y, torch.tensor([0, 1]), noise).measured
            tensor([[5., nan]])
        """
        return self.y if self.noise is None else self.y.masked_fill(self.noise.isinf(), torch.nan)

    def padded(self, tasks: Sequence[int] | Int[Tensor, "B"] | slice = slice(None)) -> Data:
        """These tasks as a batch, padded to the longest of them (with copies of each task's first point)."""
        starts, counts = self.offsets[:-1][tasks], self.counts[tasks]
        width = int(counts.max()) if len(counts) else 0
        if len(counts) == self.num_tasks and len(counts) * width == len(self.x) and bool((starts.diff() >= 0).all()):
            shape = (len(counts), width)  # all tasks, in order, none of them shorter: nothing to copy
            mask = torch.ones(shape, dtype=torch.bool, device=counts.device)
            noise = None if self.noise is None else self.noise.unflatten(0, shape)
            return Data(self.x.unflatten(0, shape), self.y.unflatten(0, shape), mask, noise)
        place = torch.arange(width, device=counts.device)
        mask = place < counts[:, None]
        rows = torch.where(mask, starts[:, None] + place, starts[:, None]).clamp(max=max(len(self.x) - 1, 0))
        return Data(self.x[rows], self.y[rows], mask, None if self.noise is None else self.noise[rows])

    def select(self, tasks: Sequence[int] | Int[Tensor, "B"] | slice) -> "FlatData":
        """The tasks at these positions, in this order."""
        starts, counts = self.offsets[:-1][tasks], self.counts[tasks]
        offsets = torch.zeros(len(counts) + 1, dtype=torch.long, device=counts.device)
        torch.cumsum(counts, 0, out=offsets[1:])
        rows = torch.arange(int(offsets[-1]), device=counts.device)
        rows = rows + (starts - offsets[:-1]).repeat_interleave(counts)
        return FlatData(self.x[rows], self.y[rows], offsets, None if self.noise is None else self.noise[rows])

    def folded(self) -> Data:
        """All points as a batch that is at most twice as large as they are: long tasks are cut into several.

        It is for statistics of points, to which it makes no difference whose a point is.
        """
        counts = self.counts
        if is_compact(counts):
            return self.padded()
        width = max(1, -(-len(self.x) // self.num_tasks))
        pieces = -(-counts // width)
        task = torch.arange(self.num_tasks, device=counts.device).repeat_interleave(pieces)
        piece = torch.arange(len(task), device=counts.device) - (pieces.cumsum(0) - pieces)[task]
        starts = self.offsets[:-1][task] + piece * width
        cuts = torch.cat([starts, self.offsets[-1:]])
        return FlatData(self.x, self.y, cuts, self.noise).padded()


def is_compact(counts: Int[Tensor, "T"]) -> bool:
    """Whether tasks of so many points may be padded all together.

    Example:
        >>> is_compact(torch.tensor([5, 6, 7])), is_compact(torch.tensor([5] * 1000 + [100_000]))
        (True, False)
    """
    total = len(counts) * int(counts.max()) if len(counts) else 0
    return total <= max(WASTE * int(counts.sum()), SMALL)


def alike(counts: Int[Tensor, "T"], most_points: int = MOST_POINTS) -> list[Int[Tensor, "B"]]:
    """Positions of tasks to put side by side, so that padding at most doubles them: all together where that is cheap.

    Args:
        counts: points of each task.
        most_points: padded points of a group; a task with more is a group of its own.

    Returns:
        Groups, each in the order of the tasks. They depend on nothing but `counts`.

    Example:
        >>> [group.tolist() for group in alike(torch.tensor([3, 40_000, 2, 3, 4]))]
        [[0, 2, 3, 4], [1]]
        >>> [len(group) for group in alike(torch.full((1000,), 1000))]
        [524, 476]
    """
    if not len(counts):
        return []
    if is_compact(counts) and len(counts) * int(counts.max()) <= most_points:
        return [torch.arange(len(counts), device=counts.device)]
    ordered, order = counts.sort(stable=True)
    groups, start = [], 0
    while start < len(order):
        # of tasks with at most twice the points of the first, as many as fit
        end = int(torch.searchsorted(ordered, 2 * max(int(ordered[start]), 4), right=True))
        size = max(1, most_points // max(int(ordered[end - 1]), 1))
        end = min(end, start + size)
        groups.append(order[start:end].sort().values)
        start = end
    return groups


def in_order(
    parts: Sequence[tuple[Int[Tensor, "_"], Shaped[Tensor, "_ _ *c"], Bool[Tensor, "_ _"]]],
) -> tuple[Shaped[Tensor, "rows *c"], Int[Tensor, "T"]]:
    """Values of points that were computed a few tasks at a time, without padding and in the order of the tasks.

    Args:
        parts: positions of tasks, values of their points, and True where they are real; at least one part.

    Returns:
        The values, those of the first task first, and how many each task has.

    Example:
        >>> last = (torch.tensor([1]), torch.tensor([[8.0, 9.0]]), torch.tensor([[True, True]]))
        >>> first = (torch.tensor([0]), torch.tensor([[7.0, 0.0]]), torch.tensor([[True, False]]))
        >>> in_order([last, first])
        (tensor([7., 8., 9.]), tensor([1, 2]))
    """
    order = torch.cat([positions for positions, _, _ in parts]).argsort()
    rows = torch.cat([values[mask] for _, values, mask in parts])
    counts = torch.cat([mask.sum(-1) for _, _, mask in parts])
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    chosen = FlatData(rows, offsets.new_zeros(len(rows)), offsets).select(order.to(counts.device))
    return chosen.x, counts[order.to(counts.device)]


def each_part(function: Callable[[TaskBatch], Float[Tensor, "B"]], batch: TaskBatch) -> Float[Tensor, "B"]:
    """A number for each task, computed on tasks of similar length at a time where the batch is mostly padding.

    Args:
        function: gives the numbers of a batch, those of a task not depending on the others.
        batch: any tasks.

    Raises:
        InferenceError: what `function` raises, of the task in the whole batch.

    Example:
        >>> import bayesmeta as bm
        >>> query = bm.Data.stack([bm.Data.from_arrays([0.0] * count, [1.0] * count) for count in (2, 9_000, 3, 2, 2)])
        >>> batch = bm.TaskBatch(bm.Data.empty(query), query)
        >>> each_part(lambda part: torch.full((part.num_tasks,), float(part.query.num_points)), batch).tolist()
        [3.0, 9000.0, 3.0, 3.0, 3.0]
    """
    if torch.compiler.is_compiling():  # recorded code decides nothing
        return function(batch)
    groups = alike((batch.support.counts + batch.query.counts).cpu())
    if len(groups) < 2:
        return function(batch)
    support, query = FlatData.of(batch.support), FlatData.of(batch.query)
    found = []
    for group in groups:
        names = None if batch.names is None else tuple(batch.names[i] for i in group.tolist())
        with retelling(lambda task, group=group: int(group[task])):  # type: ignore[misc]
            found.append(function(TaskBatch(support.padded(group), query.padded(group), names)))
    return torch.cat(found)[torch.cat(groups).argsort().to(found[0].device)]
