"""Tasks to learn from in parquet files that are larger than memory: each is read when it is drawn."""

import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from bayesmeta.arguments import generator_of, probability, some
from bayesmeta.data import Data, TaskBatch
from bayesmeta.errors import DataError, OutcomeWarning
from bayesmeta.flat import FlatData
from bayesmeta.one_line import several
from bayesmeta.outcomes import Outcomes
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.distinct import hashes_of
from bayesmeta.tasks.parquet_schema import schema_of
from bayesmeta.tasks.parquet_source import ParquetSource
from bayesmeta.tasks.source import Split, TaskSource
from bayesmeta.tasks.table import Schema, observed
from bayesmeta.tasks.task_runs import Piece, Runs, each_once, whole_tasks

if TYPE_CHECKING:
    import pandas as pd

MEMORY = 2**30  # bytes of row groups that are kept decoded
ANCHOR = 2**10  # tasks whose first row is found by adding up
POOLED = 20_000  # tasks whose points statistics are taken of
NEAR = 16  # row groups that they are from
PART = 2**20  # rows that are looked at at once


@dataclass(frozen=True, eq=False)
class TaskIndex:
    """Where the tasks of a table are: a byte for each task of fewer than 256 rows.

    Attributes:
        counts: the rows of each task, in the smallest whole numbers that hold them.
        anchors: the first row of every 1,024th task.
        usable: which tasks have an outcome; None where all have.
        points: rows that have an outcome.
    """

    counts: np.ndarray
    anchors: np.ndarray
    usable: np.ndarray | None
    points: int

    @classmethod
    def of(cls, source: ParquetSource, schema: Schema) -> "TaskIndex":
        """Read the names and outcomes of a table once.

        Raises:
            DataError: a task comes back after another one has begun, or has no name.
        """
        counts: list[np.ndarray] = []
        usable: list[np.ndarray] = []
        pending, total = np.zeros((2, 0), dtype=np.int64), 0
        for each in each_once(source, (*schema.within, schema.task), schema.y):
            present = _has_outcome(each, schema)
            before = total + np.append(0, np.cumsum(present))[each.starts - each.first]
            total += int(present.sum())
            pending = np.concatenate([pending, np.stack([each.starts, before])], 1)
            _close(pending, counts, usable)
            pending = pending[:, -1:]
        _close(np.concatenate([pending, [[source.rows], [total]]], 1), counts, usable)
        sizes = np.concatenate(counts) if counts else np.zeros(0, np.uint8)
        sums = np.add.reduceat(sizes, np.arange(0, len(sizes), ANCHOR), dtype=np.int64) if len(sizes) else sizes
        able = np.concatenate(usable) if usable else np.zeros(0, bool)
        return cls(sizes, np.append(0, np.cumsum(sums)).astype(np.int64), None if able.all() else able, total)

    def rows(self, task: int) -> tuple[int, int]:
        """The first row of a task, and the row after its last."""
        block = task // ANCHOR
        start = int(self.anchors[block]) + int(self.counts[block * ANCHOR : task].sum(dtype=np.int64))
        return start, start + int(self.counts[task])


def _close(edges: np.ndarray, counts: list[np.ndarray], usable: list[np.ndarray]) -> None:
    """Remember the tasks between two starts each, of which the rows and those with an outcome are known."""
    if edges.shape[1] > 1:
        rows, points = np.diff(edges, axis=1)
        counts.append(rows.astype(np.min_scalar_type(int(rows.max()))))
        usable.append(points > 0)


def _has_outcome(each: Runs, schema: Schema) -> np.ndarray:
    """Which rows have an outcome, one of several at least."""
    import pyarrow as pa
    import pyarrow.compute as pc

    present = np.zeros(each.table.num_rows, dtype=bool)
    for name in schema.y:
        column = each.table[name]
        kind = pa.types.is_floating(column.type)
        missing = pc.is_null(column, nan_is_null=True) if kind else pc.is_null(column)
        present |= ~missing.to_numpy()
    return present


@dataclass(frozen=True, eq=False)
class _Group:
    """A row group, decoded: its rows that have an outcome."""

    first: int
    before: np.ndarray  # of each row, and after the last, how many rows with an outcome come before
    x: Tensor
    y: Tensor
    noise: Tensor | None
    names: list[Any]

    @property
    def size(self) -> int:
        tensors = [self.x, self.y] + ([] if self.noise is None else [self.noise])
        return (
            self.before.nbytes + sum(t.numel() * t.element_size() for t in tensors) + sum(n.nbytes for n in self.names)
        )


class ParquetTasks(TaskSource):
    """Tasks in parquet files of any size, of which memory holds an index and the row groups that were read last.

    A draw reads the row groups that its tasks are in, and what it gives depends on nothing but its generator. Row
    groups of 10,000 to 100,000 rows are read fast (DuckDB writes them with `(FORMAT parquet, ROW_GROUP_SIZE 20000)`);
    of larger ones `row_groups` limits how many a draw reads: tasks then are drawn in two stages, each of them as likely
    as any other.

    Rows of a task stand one after another (`bm.stream` says more), and rows without an outcome are left out.

    Args:
        source: a parquet file, a folder of them, or several.
        schema: which column is what; `from_parquet` reads it off the table.
        memory: bytes of row groups that are kept decoded.
        row_groups: largest number of row groups in which the tasks of a draw begin; None for any.

    Raises:
        DataError: a task comes back after another one has begun, no task has an outcome, a column or cell cannot be
            read as the schema says.

    Example:
        >>> import tempfile
        >>> import pandas as pd
        >>> import bayesmeta as bm
        >>> tasks = bm.tasks.Sinusoid().dataset(num_tasks=50, num_points=8, seed=0)
        >>> frame = pd.DataFrame({"task": [i // 8 for i in range(400)]})
        >>> frame["x"], frame["y"] = tasks.flat.x.numpy(), tasks.flat.y.numpy()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     frame.to_parquet(f"{folder}/table.parquet", row_group_size=100)
        ...     source = ParquetTasks.from_parquet(f"{folder}/table.parquet", task="task", x=["x"], y=["y"])
        ...     train, held_out = source.split(test=0.2)
        ...     learner = bm.Standardized(bm.ALPaCA(bm.MLP(1, [8])))
        ...     result = bm.fit(learner, train, steps=20, validation=held_out.sample(5), progress=False)
        >>> source, len(train) + len(held_out)
        (ParquetTasks(50 tasks, 400 points), 50)
    """

    def __init__(
        self,
        source: "ParquetSource | str | Path | Sequence[str | Path]",
        schema: Schema,
        *,
        memory: int = MEMORY,
        row_groups: int | None = None,
    ) -> None:
        self.source, self.schema = ParquetSource.of(source), schema
        self.memory = some(memory, "memory", "byte")
        self.row_groups = None if row_groups is None else some(row_groups, "row_groups", "row group")
        self.source.require([*schema.columns, *schema.y, *schema.yerr])
        self.index = TaskIndex.of(self.source, schema)
        count = len(self.index.counts)
        usable = count if self.index.usable is None else int(self.index.usable.sum())
        if not usable:
            raise DataError(f"expected at least one task with an outcome in {self.source}, got none of {count}")
        if usable < count:
            warnings.warn(
                f"{several(count - usable, 'task')} without an outcome left out of {self.source}",
                OutcomeWarning,
                stacklevel=2,
            )
        self._sides: tuple[tuple[int, int, int], ...] = ()
        self._count = usable
        self._cache: OrderedDict[int, _Group] = OrderedDict()

    @classmethod
    def from_parquet(
        cls,
        source: "ParquetSource | str | Path | Sequence[str | Path]",
        *,
        task: str,
        x: Sequence[str],
        y: str | Sequence[str],
        covariates: Sequence[str] = (),
        outcomes: Outcomes | None = None,
        yerr: str | Sequence[str] = (),
        memory: int = MEMORY,
        row_groups: int | None = None,
    ) -> "ParquetTasks":
        """Read the schema off the files, as `TaskDataset.from_frame` reads it off a table; all rows are looked at once.

        Args:
            source: a parquet file, a folder of them, or several.
            task: the column with the task's name.
            x: input columns.
            y: an outcome column of numbers or classes, or several of numbers.
            covariates: input columns that are constant within a task.
            outcomes: `Labels()` where the outcome is a class, `Numbers()` where it is a number.
            yerr: columns of known standard deviations of the outcomes.
            memory: bytes of row groups that are kept decoded.
            row_groups: largest number of row groups in which the tasks of a draw begin; None for any.

        Raises:
            DataError: as for `TaskDataset.from_frame`, and a task that comes back after another one has begun.
        """
        opened = ParquetSource.of(source)
        schema = schema_of(opened, task, x, y, covariates, outcomes, yerr)
        return cls(opened, schema, memory=memory, row_groups=row_groups)

    def __len__(self) -> int:
        """The number of tasks."""
        return self._count

    def __repr__(self) -> str:
        """The number of tasks and of their points, about where they were split."""
        about = "about " if self._sides else ""
        return f"ParquetTasks({len(self):,} tasks, {about}{self.total_points:,.0f} points)"

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs; it reads row groups itself."""
        return {**vars(self), "_cache": OrderedDict()}

    def split(self, test: float = 0.25, seed: int = 0) -> "tuple[ParquetTasks, ParquetTasks]":
        """Divide the tasks at random into (train, test), by task and never by row; nothing is read or copied.

        Args:
            test: the share of tasks that are held out, about.
            seed: of the division.

        Raises:
            DataError: a share outside (0, 1), or too few tasks for one on each side.
        """
        edge = int(probability(test, "a share of test tasks") * 2.0**64)
        key = int(torch.randint(2**62, (), generator=generator_of(seed)))
        sides = self._of_side((key, edge, 2**64)), self._of_side((key, 0, edge))
        if not all(map(len, sides)):
            raise DataError(f"expected tasks on both sides of a split, got {len(sides[0])} and {len(sides[1])}")
        return sides

    def sample(self, num_tasks: int, seed: int = 0) -> TaskDataset:
        """Tasks drawn at random, in memory and in the order of the table: to validate, or to fit at once.

        Args:
            num_tasks: how many; all, where there are no more.
            seed: of the choice.
        """
        positions = self._drawn(some(num_tasks, "num_tasks", "task"), generator_of(seed), None)
        flat, names = self._read(np.sort(positions))
        return TaskDataset(flat, names, self.schema)

    def frame(self, num_tasks: int, seed: int = 0) -> "pd.DataFrame":
        """All rows and columns of tasks drawn at random, in the order of the table, whose rows are the index.

        Args:
            num_tasks: how many tasks; all, where there are no more.
            seed: of the choice.
        """
        import pandas as pd

        chosen = np.zeros(len(self.index.counts), dtype=bool)
        chosen[self._drawn(some(num_tasks, "num_tasks", "task"), generator_of(seed), None)] = True
        return pd.concat(list(self._frames(self.source.schema.names, lambda tasks: chosen[tasks], PART)))

    def parts(self, rows: int = PART) -> "Iterator[TaskDataset]":
        """All tasks in the order of the table, some at a time, each of them whole.

        Args:
            rows: of the table at a time, about.
        """
        columns = list(dict.fromkeys([*self.schema.columns, *self.schema.y, *self.schema.yerr]))
        for frame in self._frames(columns, self._has, some(rows, "rows", "row")):
            if self.schema.has_outcome(frame).any():
                yield TaskDataset.from_schema(frame, self.schema)

    def _frames(
        self, columns: Sequence[str], chosen: Callable[[np.ndarray], np.ndarray], rows: int
    ) -> "Iterator[pd.DataFrame]":
        """The rows of chosen tasks, some tasks at a time."""
        import pandas as pd

        whole, seen = Piece(0, self.source.rows, len(self.index.counts)), 0
        names = (*self.schema.within, self.schema.task)
        for row, table, starts in whole_tasks(self.source, names, whole, columns, rows):
            tasks = np.arange(seen, seen + len(starts) - 1)
            seen += len(tasks)
            places = np.flatnonzero(np.repeat(chosen(tasks), np.diff(starts)))
            frame = table.take(places).to_pandas(split_blocks=True)
            frame.index = pd.RangeIndex(row, row + table.num_rows)[places]
            yield frame

    @override
    def draw(self, num_tasks: int, split: Split, generator: torch.Generator) -> TaskBatch:
        flat, names = self._read(self._drawn(num_tasks, generator, self.row_groups))
        support, query = split.divide(flat.padded(), generator)
        return TaskBatch(support, query, tuple(names))

    @override
    def pooled(self, generator: torch.Generator) -> Data:
        """The points of 20,000 tasks, or of all where there are no more."""
        return self._read(np.sort(self._drawn(POOLED, generator, NEAR)))[0].folded()

    @property
    @override
    def total_points(self) -> float:
        every = len(self.index.counts) if self.index.usable is None else int(self.index.usable.sum())
        return self.index.points * (self._count / every)

    def _of_side(self, side: tuple[int, int, int]) -> "ParquetTasks":
        part = object.__new__(ParquetTasks)
        part.__dict__.update(self.__getstate__())
        part._sides = (*self._sides, side)
        every = range(0, len(self.index.counts), 2**20)
        part._count = sum(int(part._has(np.arange(i, min(i + 2**20, len(self.index.counts)))).sum()) for i in every)
        return part

    def _has(self, tasks: np.ndarray) -> np.ndarray:
        """Which tasks of the table are among these: a task's side is a hash of its place."""
        chosen = np.ones(len(tasks), dtype=bool) if self.index.usable is None else self.index.usable[tasks].copy()
        for key, low, high in self._sides:
            hashes = hashes_of([tasks + np.int64(key)])
            chosen &= (hashes >= np.uint64(low)) & (hashes <= np.uint64(high - 1))
        return chosen

    def _drawn(self, num_tasks: int, generator: torch.Generator, row_groups: int | None) -> np.ndarray:
        """Places of different tasks, each as likely as any other; all in order where no more are there."""
        every = len(self.index.counts)
        if num_tasks >= len(self):
            return np.flatnonzero(
                np.concatenate([self._has(np.arange(i, min(i + 2**20, every))) for i in range(0, every, 2**20)])
            )
        low, high = 0, every
        found: dict[int, None] = {}
        ranges = [(low, high)] if row_groups is None else self._near(row_groups, generator)
        tries = 0
        while len(found) < num_tasks:
            which = torch.randint(len(ranges), (2 * num_tasks,), generator=generator).numpy()
            share = torch.rand(2 * num_tasks, generator=generator, dtype=torch.float64).numpy()
            edges = np.array(ranges)[which]
            tasks = edges[:, 0] + (share * (edges[:, 1] - edges[:, 0])).astype(np.int64)
            found.update(dict.fromkeys(tasks[self._has(tasks)].tolist()))
            tries += 1
            if tries % 20 == 0:  # these row groups have too few tasks
                ranges += self._near(1, generator)
        return np.array(list(found)[:num_tasks])

    def _near(self, row_groups: int, generator: torch.Generator) -> list[tuple[int, int]]:
        """The tasks that begin in some row groups, each group as likely as it has tasks."""
        every = len(self.index.counts)
        found = []
        for task in torch.randint(every, (row_groups,), generator=generator).tolist():
            group = self._group_of(self.index.rows(task)[0])
            first, end = int(self.source.groups[group, 2]), int(self.source.ends[group])
            found.append((self._first_task(first), self._first_task(end)))
        return found

    def _first_task(self, row: int) -> int:
        """The first task that begins in this row or after it."""
        block = max(int(np.searchsorted(self.index.anchors, row, side="left")) - 1, 0)
        sizes = self.index.counts[block * ANCHOR : (block + 1) * ANCHOR]
        starts = int(self.index.anchors[block]) + np.append(0, np.cumsum(sizes, dtype=np.int64))
        return block * ANCHOR + int(np.searchsorted(starts, row, side="left"))

    def _group_of(self, row: int) -> int:
        return int(np.searchsorted(self.source.groups[:, 2], row, side="right")) - 1

    def _read(self, tasks: np.ndarray) -> tuple[FlatData, list[Hashable]]:
        """The points of tasks, in this order, and their names; row groups are read in the order of the table."""
        parts: dict[int, list[tuple[Tensor, ...]]] = {}
        names: dict[int, Hashable] = {}
        for place in np.argsort(tasks, kind="stable").tolist():
            start, stop = self.index.rows(int(tasks[place]))
            parts[place] = []
            for group in range(self._group_of(start), self._group_of(stop - 1) + 1):
                held = self._decoded(group)
                low, high = max(start - held.first, 0), min(stop - held.first, len(held.before) - 1)
                chosen = slice(int(held.before[low]), int(held.before[high]))
                tensors = (held.x[chosen], held.y[chosen], *(() if held.noise is None else (held.noise[chosen],)))
                parts[place].append(tensors)
                if place not in names:
                    name = tuple(column[low].as_py() for column in held.names)
                    names[place] = name[0] if len(name) == 1 else name
        ordered = [parts[place] for place in range(len(tasks))]
        counts = torch.tensor([0, *(sum(len(piece[0]) for piece in each) for each in ordered)])
        if any(len(piece) == 3 for each in ordered for piece in each):  # of several outcomes, some lack one
            ordered = [[(*piece, torch.zeros_like(piece[1]))[:3] for piece in each] for each in ordered]
        together = zip(*(piece for each in ordered for piece in each), strict=True)
        x, y, *noise = (torch.cat(each) for each in together)
        return FlatData(x, y, counts.cumsum(0), *noise), [names[place] for place in range(len(tasks))]

    def _decoded(self, group: int) -> _Group:
        if group in self._cache:
            self._cache.move_to_end(group)
            return self._cache[group]
        import pandas as pd
        import pyarrow as pa

        first, end = int(self.source.groups[group, 2]), int(self.source.ends[group])
        columns = list(dict.fromkeys([*self.schema.columns, *self.schema.y, *self.schema.yerr]))
        table = pa.concat_tables(part for _, part in self.source.batches(first, end, columns))
        frame = table.to_pandas(split_blocks=True)
        frame.index = pd.RangeIndex(first, end)
        present = observed(self.schema.outcomes(frame))
        points = self.schema.points(frame[present])
        names = [table[name].combine_chunks() for name in (*self.schema.within, self.schema.task)]
        noise = None if points.noise is None else points.noise[0]
        before = np.append(0, np.cumsum(present)).astype(np.uint32)
        held = _Group(first, before, points.x[0], points.y[0], noise, names)
        self._cache[group] = held
        while sum(each.size for each in self._cache.values()) > self.memory and len(self._cache) > 1:
            self._cache.popitem(last=False)
        return held
