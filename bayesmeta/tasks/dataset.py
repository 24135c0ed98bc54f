"""A finite set of tasks from the user's own table, in real units, ragged."""

import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from typing_extensions import override

from bayesmeta.arguments import generator_of, probability
from bayesmeta.data import Data, TaskBatch, require_paddable, tensors_of
from bayesmeta.errors import DataError, OutcomeWarning, ShapeError
from bayesmeta.flat import FlatData, alike
from bayesmeta.frame_kinds import as_pandas
from bayesmeta.learner import Learner
from bayesmeta.linalg import counting_jitter
from bayesmeta.one_line import several
from bayesmeta.outcomes import Outcomes
from bayesmeta.rounding import columns
from bayesmeta.task_names import factorized, look_alikes, name_text
from bayesmeta.tasks.source import Split, TaskSource
from bayesmeta.tasks.table import Schema
from bayesmeta.typing import ArrayLike

if TYPE_CHECKING:
    import pandas as pd

P = ParamSpec("P")
R = TypeVar("R")


class TaskDataset(TaskSource):
    """A finite set of tasks, each with a name.

    Points are kept in flat rows, so that memory is that of the points however much the tasks differ in length. `data`
    is all of them as one padded batch, `by_length` the same a few tasks of similar length at a time.

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
        data: Data | FlatData,
        names: Sequence[Hashable] | None = None,
        schema: Schema | None = None,
        oracle: Learner | None = None,
    ) -> None:
        if data.num_tasks == 0:
            raise DataError("expected at least one task, got none")
        self.names: tuple[Hashable, ...] = tuple(range(data.num_tasks)) if names is None else tuple(names)
        distinct = data.num_tasks if names is None else _count_distinct(self.names)
        if len(self.names) != data.num_tasks or distinct != len(self.names):
            raise DataError(f"expected {data.num_tasks} distinct task names, got {distinct}")
        empty = (data.counts == 0).nonzero().flatten().tolist()
        if empty:
            raise DataError(f"expected at least one point in every task, got none in task {self.names[empty[0]]!r}")
        self.flat = data if isinstance(data, FlatData) else FlatData.of(data)
        self.schema, self.oracle = schema, oracle

    @classmethod
    def from_frame(
        cls,
        frame: "pd.DataFrame",
        *,
        task: str | Sequence[str],
        x: Sequence[str],
        y: str | Sequence[str],
        covariates: Sequence[str] = (),
        outcomes: Outcomes | None = None,
        groups: Sequence[str] = (),
        yerr: str | Sequence[str] = (),
    ) -> "TaskDataset":
        """Read tasks from a long table: one row for each point, in the order of the table.

        The outcome is a class where its column holds text, categories or truths, or where `outcomes` says so; labels
        are then the places of the classes in `schema.classes`.

        Args:
            frame: the table, of pandas, polars or pyarrow; the index of one of pandas names rows in messages.
            task: the column with the task's name; or several of nested groupings, the outermost first: with
                `["school", "class"]` a class of a school is a task, and its name a tuple.
            x: input columns; text and category columns are one-hot encoded. May be empty.
            y: an outcome column of numbers or classes, or several of numbers. A row with a missing outcome is left out;
                of several, a row that has one of them is kept (`Data.known`), for learners that can do without the
                others (`bm.wrappers.Separately`).
            covariates: input columns that are constant within a task; appended to x.
            groups: columns of groupings that tasks have in common, such as the samples on a plate. Their levels, and
                those of the outer columns of `task`, are the last inputs, each a number: for `MixedEffects`.
            outcomes: `Labels()` where the outcome is a class, such as one coded 0 and 1; `Numbers()` where it is a
                number. By default what the column looks like, and numbers that look like codes of classes are warned of
                (`OutcomeWarning`).
            yerr: the column of the known noise of the outcome, a standard deviation in its units, as error bars are; of
                several outcomes one for each. `Data.noise` says what becomes of it.

        Raises:
            DataError: an unknown column, a cell that is not a finite number, a missing task, a task whose outcomes are
                all missing (of classes, such a task is left out and warned of), an empty table, fewer than two classes.
                Column, row or task is named.

        Example:
            >>> import pandas as pd
            >>> import bayesmeta as bm
            >>> pain = ["mild", "none", "none", "none"]
            >>> frame = pd.DataFrame({"who": list("aabb"), "day": [0, 1, 0, 1], "pain": pain})
            >>> tasks = bm.TaskDataset.from_frame(frame, task="who", x=["day"], y="pain")
            >>> tasks.schema.classes, tasks.task("a").y.tolist()
            (('mild', 'none'), [[0, 1]])
        """
        frame = as_pandas(frame)
        return cls.from_schema(frame, Schema.of(frame, task, x, y, covariates, outcomes, groups=groups, yerr=yerr))

    @classmethod
    def from_schema(cls, frame: "pd.DataFrame", schema: Schema) -> "TaskDataset":
        """Read tasks from a table in the way in which an earlier one was read. Raises DataError like `from_frame`."""
        frame = as_pandas(frame)
        if len(frame) == 0:
            raise DataError("expected at least one row, got an empty table")
        rows, names = schema.tasks(frame)
        present = schema.has_outcome(frame)
        counts = np.bincount(rows[present], minlength=len(names))
        if not counts.all():
            _without_outcome([name for name, count in zip(names, counts, strict=True) if not count], schema)
        if not present.all():
            frame, rows = frame[present], rows[present]
        tasks = cls._grouped(schema.points(frame), rows)
        tasks.names, tasks.schema = tuple(names[row] for row in tasks.names), schema  # type: ignore[call-overload]
        return tasks

    @classmethod
    def from_arrays(
        cls, x: ArrayLike, y: ArrayLike, groups: Sequence[Hashable] | ArrayLike, yerr: ArrayLike | None = None
    ) -> "TaskDataset":
        """Make tasks of flat arrays with a row for each point.

        Args:
            x: inputs, `rows *x` (or `rows` for numbers).
            y: outcomes, `rows C` (or `rows`); floats, not labels.
            groups: the task of each row.
            yerr: the known noise of each outcome, a standard deviation: as for `Data.from_arrays`.

        Raises:
            ShapeError: lengths differ.
            DataError: a cell is not a finite number, or there are no rows.
        """
        return cls._grouped(Data.from_arrays(x, y, yerr), groups)

    @classmethod
    def _grouped(cls, points: Data, groups: Sequence[Hashable] | ArrayLike) -> "TaskDataset":
        """Rows of one batch as tasks, by the task of each."""
        shape = tuple(getattr(groups, "shape", (points.num_points,)))
        if len(shape) != 1:
            raise ShapeError(f"expected groups of shape (rows,), got {shape}")
        if len(groups) != points.num_points:
            raise ShapeError(f"expected one group for each of {points.num_points} rows, got {len(groups)}")
        if not len(groups):
            raise DataError("expected at least one row, got none")
        codes, names = factorized(groups)
        noise = None if points.noise is None else points.noise[0]
        return cls(FlatData.grouped(points.x[0], points.y[0], torch.from_numpy(codes), len(names), noise), names)

    @classmethod
    def from_list(
        cls, tasks: Sequence[tuple[ArrayLike, ...]], names: Sequence[Hashable] | None = None
    ) -> "TaskDataset":
        """Make a task of each pair (x, y), x `N *x` and y `N C`, or each triple (x, y, yerr) where noise is known.

        Raises:
            DataError: as for `Data.from_arrays`; also tasks that are neither pairs nor triples.
            ShapeError: as for `Data.from_arrays`; also tasks that are neither pairs nor triples.
        """
        return cls(_joined(Data.from_arrays, tasks, names, most=3), names)

    @classmethod
    def from_labels(
        cls, tasks: Sequence[tuple[ArrayLike, ArrayLike]], names: Sequence[Hashable] | None = None
    ) -> "TaskDataset":
        """Make a classification task of each pair (x, labels): x `N *x`, labels `N` integers 0..C-1.

        Raises:
            ShapeError: x and labels differ in length.
            DataError: a label is negative or not an integer.
        """
        return cls(_joined(Data.from_labels, tasks, names, most=2), names)

    def __len__(self) -> int:
        """The number of tasks."""
        return self.flat.num_tasks

    def __repr__(self) -> str:
        """The number of tasks and of their points."""
        counts = self.counts
        return f"TaskDataset({len(self)} tasks, {int(counts.min())} to {int(counts.max())} points each)"

    @property
    def counts(self) -> Int[Tensor, "T"]:
        """The number of points of each task."""
        return self.flat.counts

    @property
    def data(self) -> Data:
        """All points of all tasks, padded to the longest.

        Raises:
            DataError: that would be very much more than the points: use `by_length`.
        """
        require_paddable(len(self), int(self.counts.max()), len(self.flat.x))
        return self.flat.padded()

    def by_length(self) -> list[tuple[Int[Tensor, "_"], "TaskDataset"]]:
        """The tasks in groups of similar length, with their positions; a single group where that is cheap.

        What is done to a group at a time needs memory for the points that there are, and not for as many as the longest
        task has.

        Example:
            >>> import bayesmeta as bm
            >>> points = [[0.0] * count for count in (2, 9_000, 3, 2, 2)]
            >>> tasks = TaskDataset.from_list([(x, x) for x in points], names=["a", "b", "c", "d", "e"])
            >>> [(positions.tolist(), part.names) for positions, part in tasks.by_length()]
            [([0, 2, 3, 4], ('a', 'c', 'd', 'e')), ([1], ('b',))]
        """
        groups = alike(self.counts)
        if len(groups) == 1:
            return [(groups[0], self)]
        return [(group, self.select(group.tolist())) for group in groups]

    def task(self, name: Hashable) -> Data:
        """The points of one task, without padding. Raises DataError for an unknown name."""
        wanted = name_text(name)
        row = next((row for row, each in enumerate(self.names) if name_text(each) == wanted), None)
        if row is None:
            alike = look_alikes([name], self.names)
            hint = f"perhaps {alike[0][1]!r} is meant" if alike else f"the first are {list(self.names[:5])}"
            raise DataError(f"expected the name of a task, got {name!r}; {hint}")
        return self.flat.padded([row])

    def select(self, positions: Sequence[int]) -> "TaskDataset":
        """The tasks at these positions."""
        positions = list(positions)
        return TaskDataset(self.flat.select(positions), [self.names[i] for i in positions], self.schema, self.oracle)

    @property
    def has_gaps(self) -> bool:
        """Whether points lack some of their outcomes.

        Example:
            >>> import pandas as pd
            >>> import bayesmeta as bm
            >>> frame = pd.DataFrame({"who": list("aab"), "u": [1.0, 2.0, 3.0], "v": [4.0, None, 5.0]})
            >>> bm.TaskDataset.from_frame(frame, task="who", x=[], y=["u", "v"]).has_gaps
            True
        """
        return self.flat.noise is not None and bool(self.flat.noise.isinf().any())

    def of_outcome(self, outcome: str | int) -> "TaskDataset":
        """The tasks with one of their outcomes alone, at the points where it was measured.

        Args:
            outcome: its column, or its place from 0. Tasks in which it was never measured are left out.

        Raises:
            DataError: an unknown outcome, labels, or one that was measured nowhere.

        Example:
            >>> import pandas as pd
            >>> import bayesmeta as bm
            >>> frame = pd.DataFrame({"who": list("aab"), "u": [1.0, 2.0, 3.0], "v": [4.0, None, None]})
            >>> tasks = bm.TaskDataset.from_frame(frame, task="who", x=[], y=["u", "v"])
            >>> tasks.of_outcome("u"), tasks.of_outcome("v").names
            (TaskDataset(2 tasks, 1 to 2 points each), ('a',))
        """
        flat, schema = self.flat, self.schema
        names: Sequence[str | int] = schema.y if isinstance(outcome, str) and schema else range(flat.y[0].numel())
        if not flat.y.is_floating_point() or outcome not in names:
            raise DataError(f"expected one of the outcomes {list(names)}, got {outcome!r}")
        at = list(names).index(outcome)
        noise = None if flat.noise is None else flat.noise[:, at : at + 1]
        kept = torch.ones(len(flat.y), dtype=torch.bool) if noise is None else ~noise[:, 0].isinf()
        if not bool(kept.any()):
            raise DataError(f"expected a point where {outcome!r} was measured, got none")
        tasks = torch.repeat_interleave(torch.arange(len(self)), flat.counts)[kept]
        found, places = tasks.unique(return_inverse=True)
        if noise is not None:
            has_bars = bool(schema.yerr) if schema else bool(noise[kept].any())
            noise = noise[kept] if has_bars else None  # else it says no more than what was measured
        part = FlatData.grouped(flat.x[kept], flat.y[kept, at : at + 1], places, len(found), noise)
        alone = None if schema is None else replace(schema, y=schema.y[at : at + 1], yerr=schema.yerr[at : at + 1])
        return TaskDataset(part, [self.names[i] for i in found.tolist()], alone)

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
            parts = [(positions, part.flat.padded()) for positions, part in self.by_length()]
            return self._collected([(p, split.divide(data, generator)) for p, data in parts])
        positions = torch.randperm(len(self), generator=generator)[:num_tasks]
        support, query = split.divide(self.flat.padded(positions), generator)
        return TaskBatch(support, query, tuple(self.names[i] for i in positions.tolist()))

    def divided(self, split: Split, seed: int = 0) -> TaskBatch:
        """All tasks, in order, with their points divided in the same way at every call: for evaluation."""
        parts = [(positions, part.flat.padded()) for positions, part in self.by_length()]
        return self._collected([(p, split.divide(data, generator_of(seed))) for p, data in parts])

    def divided_task(self, position: int, split: Split, seed: int = 0) -> TaskBatch:
        """One task, with its points divided as `divided` divides them among the others."""
        for positions, part in self.by_length():
            place = (positions == position).nonzero().flatten()
            if len(place):
                support, query = split.divide(part.flat.padded(), generator_of(seed))
                return TaskBatch(support.select(place), query.select(place), (self.names[position],))
        raise DataError(f"expected a task from 0 to {len(self) - 1}, got {position}")

    def _collected(self, parts: list[tuple[Tensor, tuple[Data, Data]]]) -> TaskBatch:
        """All tasks in order, from support and query of some at a time: only these are padded to one length."""
        if len(parts) == 1:
            return TaskBatch(*parts[0][1], self.names)
        back = torch.cat([positions for positions, _ in parts]).argsort()
        supports, queries = zip(*(sides for _, sides in parts), strict=True)
        return TaskBatch(Data.stack(supports).select(back), Data.stack(queries).select(back), self.names)

    @property
    @override
    def total_points(self) -> float:
        return float(self.counts.sum())

    def pooled(self, generator: torch.Generator) -> Data:
        """All points of all tasks; where one task is much longer than others, cut into several."""
        return self.flat.folded()


def naming_columns(function: Callable[P, R]) -> Callable[P, R]:
    """The function, in which each column is warned of once, by its name where an argument knows it; so is jitter.

    Example:
        >>> import warnings
        >>> import pandas as pd
        >>> import bayesmeta as bm
        >>> frame = pd.DataFrame({"who": ["a"] * 3, "seconds": [1.7e9, 1.7e9 + 1.0, 1.7e9 + 2.0], "y": [0.1, 0.2, 0.4]})
        >>> tasks = bm.TaskDataset.from_frame(frame, task="who", x=["seconds"], y=["y"])
        >>> rounded = naming_columns(lambda tasks: [tasks.data.to(torch.float32) for _ in range(3)])
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     _ = rounded(tasks)
        >>> [str(warning.message).split(":")[0] for warning in caught]
        ["expected inputs that stay apart in float32, got distinct values of 'seconds' that become one number, 1.7e+09"]
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        known = (getattr(value, "schema", value) for value in (*args, *kwargs.values()))
        schema = next((value for value in known if isinstance(value, Schema)), None)
        with counting_jitter(), columns() if schema is None else columns(schema.x_names, schema.y):
            return function(*args, **kwargs)

    return call


def _without_outcome(names: list[Hashable], schema: Schema) -> None:
    """Refuse tasks that say nothing; of classes, where tasks that nobody has labelled are usual, warn of them."""
    if not schema.classes:
        raise DataError(f"expected an outcome in every task, got only missing ones in task {names[0]!r}: drop it")
    some = ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")
    warnings.warn(
        f"{several(len(names), 'task')} without a class in column {schema.y[0]!r} left out: {some}",
        OutcomeWarning,
        stacklevel=4,  # whoever called from_frame
    )


def _count_distinct(names: Sequence[Any]) -> int:
    """How many names there are, as they are compared.

    Raises:
        DataError: one is missing.
    """
    if {type(name) for name in names} == {int}:
        return len(set(names))
    found = set()
    for number, name in enumerate(names):
        try:
            hash(name)
            found.add(name_text(name))
        except (DataError, TypeError) as error:  # a list has no hash
            raise DataError(f"expected the name of a task in place {number}, got {name!r}") from error
    return len(found)


def _joined(
    make: Callable[..., Data],
    tasks: Sequence[tuple[ArrayLike, ...]],
    names: Sequence[Hashable] | None,
    most: int,
) -> FlatData:
    each = []
    for number, arrays in enumerate(tasks):
        try:
            if not 2 <= len(arrays) <= most:
                raise DataError(f"expected a pair (x, y), or (x, y, yerr) of numbers, got {len(arrays)} arrays")
            each.append(make(*arrays))
            if each[-1].spec[1:3] != each[0].spec[1:3]:
                Data.stack([each[0], each[-1]])  # says how they differ
        except (DataError, ShapeError) as error:
            name = names[number] if names is not None and number < len(names) else number
            raise type(error)(f"in task {name!r}: {error}") from error
    if not each:
        raise DataError("expected at least one task, got none")
    counts = torch.tensor([0, *(task.num_points for task in each)])
    x, y, _, *noise = (torch.cat([part[0] for part in parts]) for parts in zip(*tensors_of(each), strict=True))
    return FlatData(x, y, counts.cumsum(0), *noise)
