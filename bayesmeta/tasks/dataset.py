"""A finite set of tasks from the user's own table, in real units, ragged."""

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bayesmeta.arguments import generator_of, probability
from bayesmeta.data import Data, TaskBatch
from bayesmeta.errors import DataError, ShapeError
from bayesmeta.learner import Learner
from bayesmeta.tasks.source import Split, TaskSource
from bayesmeta.tasks.table import Schema
from bayesmeta.typing import ArrayLike

if TYPE_CHECKING:
    import pandas as pd


class TaskDataset(TaskSource):
    """A finite set of tasks, each with a name, kept padded in one `Data`.

    Make one with `from_frame` (a long pandas table), `from_arrays` (X, y, groups), `from_list` (one pair of arrays for
    each task) or `from_labels` (the same for classification).

    Args:
        data: all points of all tasks, on the CPU.
        names: the user's names of the tasks; 0, 1, ... by default.
        schema: how table columns became numbers, when the tasks came from a table.
        oracle: the exact Bayes-optimal predictive, when the tasks were simulated.

    Raises:
        DataError: no tasks, a task without points, or names that are not distinct.

    Example:
        >>> import pandas as pd
        >>> import bayesmeta as bm
        >>> frame = pd.DataFrame(
        ...     {
        ...         "subject": ["a", "a", "a", "b", "b", "c", "c"],
        ...         "days": [0.0, 1.0, 2.0, 0.0, 1.0, 0.0, 2.0],
        ...         "reaction": [250.0, 259.0, 251.0, 223.0, 205.0, 199.0, 234.0],
        ...     }
        ... )
        >>> tasks = bm.TaskDataset.from_frame(frame, task="subject", x=["days"], y=["reaction"])
        >>> tasks
        TaskDataset(3 tasks, 2 to 3 points each)
        >>> tasks.task("b").y.flatten().tolist()
        [223.0, 205.0]
        >>> train, test = tasks.split(test=0.3)
        >>> len(train), len(test)
        (2, 1)
    """

    def __init__(
        self,
        data: Data,
        names: Sequence[Hashable] | None = None,
        schema: Schema | None = None,
        oracle: Learner | None = None,
    ) -> None:
        if data.num_tasks == 0:
            raise DataError("expected at least one task, got none")
        for number, name in enumerate(names or ()):
            _require_name(name, f"place {number}")
        self.names: tuple[Hashable, ...] = tuple(range(data.num_tasks)) if names is None else tuple(names)
        if len(self.names) != data.num_tasks or len(set(self.names)) != len(self.names):
            raise DataError(f"expected {data.num_tasks} distinct task names, got {len(set(self.names))}")
        empty = (data.counts == 0).nonzero().flatten().tolist()
        if empty:
            raise DataError(f"expected at least one point in every task, got none in task {self.names[empty[0]]!r}")
        self.data, self.schema, self.oracle = data, schema, oracle

    @classmethod
    def from_frame(
        cls,
        frame: "pd.DataFrame",
        *,
        task: str,
        x: Sequence[str],
        y: Sequence[str],
        covariates: Sequence[str] = (),
    ) -> "TaskDataset":
        """Read tasks from a long table: one row for each point, in the order of the table.

        Args:
            frame: the table; its index is used to name rows in messages.
            task: the column with the task's name.
            x: input columns; text and category columns are one-hot encoded. May be empty.
            y: numeric outcome columns. A row with a missing outcome is left out.
            covariates: input columns that are constant within a task; appended to x.

        Raises:
            DataError: an unknown column, a cell that is not a finite number, a missing task, a task whose outcomes are
                all missing, an empty table. Column, row or task is named.
        """
        return cls.from_schema(frame, Schema.of(frame, task, x, y, covariates))

    @classmethod
    def from_schema(cls, frame: "pd.DataFrame", schema: Schema) -> "TaskDataset":
        """Read tasks from a table in the way in which an earlier one was read. Raises DataError like `from_frame`."""
        if len(frame) == 0:
            raise DataError("expected at least one row, got an empty table")
        groups, y = schema.tasks(frame), schema.outcomes(frame)
        present = ~np.isnan(y).any(1)
        kept = [group for group, keep in zip(groups, present, strict=True) if keep]
        observed = set(kept)
        for group in groups:
            if group not in observed:
                raise DataError(f"expected an outcome in every task, got only missing ones in task {group!r}: drop it")
        tasks = cls.from_arrays(schema.inputs(frame[present]), y[present], kept)
        tasks.schema = schema
        return tasks

    @classmethod
    def from_arrays(cls, x: ArrayLike, y: ArrayLike, groups: Sequence[Hashable] | ArrayLike) -> "TaskDataset":
        """Make tasks of flat arrays with a row for each point.

        Args:
            x: inputs, `rows *x` (or `rows` for numbers).
            y: outcomes, `rows C` (or `rows`); floats, not labels.
            groups: the task of each row.

        Raises:
            ShapeError: lengths differ. DataError: a cell is not a finite number, or there are no rows.
        """
        points = Data.from_arrays(x, y)
        shape = tuple(getattr(groups, "shape", (points.num_points,)))
        if len(shape) != 1:
            raise ShapeError(f"expected groups of shape (rows,), got {shape}")
        labels = groups.tolist() if isinstance(groups, np.ndarray | Tensor) else list(groups)
        if len(labels) != points.num_points:
            raise ShapeError(f"expected one group for each of {points.num_points} rows, got {len(labels)}")
        rows: dict[Hashable, list[int]] = {}
        for row, label in enumerate(labels):
            _require_name(label, f"row {row}")
            rows.setdefault(label, []).append(row)
        if not rows:
            raise DataError("expected at least one row, got none")
        width = max(map(len, rows.values()))
        index = torch.tensor([r + [0] * (width - len(r)) for r in rows.values()])
        mask = torch.arange(width) < torch.tensor([len(r) for r in rows.values()])[:, None]
        return cls(Data(points.x[0][index], points.y[0][index], mask), list(rows))

    @classmethod
    def from_list(
        cls, tasks: Sequence[tuple[ArrayLike, ArrayLike]], names: Sequence[Hashable] | None = None
    ) -> "TaskDataset":
        """Make a task of each pair (x, y): x `N *x`, y `N C`. Raises DataError or ShapeError like `from_arrays`."""
        return cls(_stack(Data.from_arrays, tasks, names), names)

    @classmethod
    def from_labels(
        cls, tasks: Sequence[tuple[ArrayLike, ArrayLike]], names: Sequence[Hashable] | None = None
    ) -> "TaskDataset":
        """Make a classification task of each pair (x, labels): x `N *x`, labels `N` integers 0..C-1.

        Raises:
            ShapeError: x and labels differ in length. DataError: a label is negative or not an integer.
        """
        return cls(_stack(Data.from_labels, tasks, names), names)

    def __len__(self) -> int:
        """The number of tasks."""
        return self.data.num_tasks

    def __repr__(self) -> str:
        """The number of tasks and of their points."""
        counts = self.data.counts
        return f"TaskDataset({len(self)} tasks, {int(counts.min())} to {int(counts.max())} points each)"

    def task(self, name: Hashable) -> Data:
        """The points of one task, without padding. Raises DataError for an unknown name."""
        if name not in self.names:
            raise DataError(f"expected the name of a task, got {name!r}; the first are {list(self.names[:5])}")
        row = self.names.index(name)
        return self.data.select([row]).points(self.data.mask[row])

    def select(self, positions: Sequence[int]) -> "TaskDataset":
        """The tasks at these positions."""
        data = self.data.select(list(positions))
        width = int(data.mask.sum(-1).max()) if len(positions) else 0
        if bool(data.mask[:, :width].sum() == data.mask.sum()):  # padding is at the end: crop it
            data = data.points(slice(width))
        return TaskDataset(data, [self.names[i] for i in positions], self.schema, self.oracle)

    def split(self, test: float = 0.25, seed: int = 0) -> tuple["TaskDataset", "TaskDataset"]:
        """Divide the tasks at random into (train, test), by task and never by row.

        Args:
            test: the share of tasks that are held out.
            seed: of the division.

        Raises:
            DataError: a share outside (0, 1), or too few tasks for one on each side.
        """
        test = probability(test, "a share of test tasks")
        if len(self) < 2:
            raise DataError(f"expected at least 2 tasks to split, got {len(self)}")
        count = min(max(round(test * len(self)), 1), len(self) - 1)
        order = torch.randperm(len(self), generator=generator_of(seed)).tolist()
        return self.select(sorted(order[count:])), self.select(sorted(order[:count]))

    def draw(self, num_tasks: int, split: Split, generator: torch.Generator) -> TaskBatch:
        """Draw `num_tasks` different tasks; all of them, in order, when that many or more are asked for."""
        if num_tasks >= len(self):
            positions = torch.arange(len(self))
        else:
            positions = torch.randperm(len(self), generator=generator)[:num_tasks]
        support, query = split.divide(self.data.select(positions), generator)
        return TaskBatch(support, query, tuple(self.names[i] for i in positions.tolist()))

    def divided(self, split: Split, seed: int = 0) -> TaskBatch:
        """All tasks, in order, with their points divided in the same way at every call: for evaluation."""
        return self.draw(len(self), split, generator_of(seed))

    def pooled(self, generator: torch.Generator) -> Data:
        """All points of all tasks."""
        return self.data


def _require_name(name: Any, where: str) -> None:
    """NaN differs from itself, so that every point without a task would become a task of its own."""
    try:
        missing = name is None or bool(name != name)
        hash(name)
    except TypeError as error:  # pandas.NA has no truth value, and a list no hash
        raise DataError(f"expected the name of a task in {where}, got {name!r}") from error
    if missing:
        raise DataError(f"expected the name of a task in {where}, got {name!r}")


def _stack(
    make: Callable[[ArrayLike, ArrayLike], Data],
    tasks: Sequence[tuple[ArrayLike, ArrayLike]],
    names: Sequence[Hashable] | None,
) -> Data:
    each = []
    for number, (x, y) in enumerate(tasks):
        try:
            each.append(make(x, y))
            if each[-1].spec[1:3] != each[0].spec[1:3]:
                Data.stack([each[0], each[-1]])  # says how they differ
        except (DataError, ShapeError) as error:
            name = names[number] if names is not None and number < len(names) else number
            raise type(error)(f"in task {name!r}: {error}") from error
    return Data.stack(each)
