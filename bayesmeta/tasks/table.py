"""From a long table (one row a point, one column the task) to numbers and back: what a model folder remembers of it."""

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesmeta.errors import DataError
from bayesmeta.task_names import factorized, name_text, place
from bayesmeta.tasks.columns import first_of_task, levels_of, numbers, one_hot

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Schema:
    """Which column of a table is what, and how its cells become numbers.

    Attributes:
        task: the column with the task's name.
        x: input columns that vary from point to point.
        y: outcome columns, all numeric.
        covariates: input columns that are constant within a task (age, site); appended to x.
        levels: for every categorical input column its levels, one-hot encoded in this order. They are names, compared
            like those of tasks (`bayesmeta.task_names`): level "1" is found in cells "1", 1 and 1.0.

    Example:
        >>> import pandas as pd
        >>> import bayesmeta as bm
        >>> frame = pd.DataFrame(
        ...     {"who": ["a", "a", "b"], "dose": [1.0, 2.0, 1.0], "arm": ["drug", "drug", "none"], "effect": [3, 6, 1]}
        ... )
        >>> schema = bm.tasks.Schema.of(frame, task="who", x=["dose"], y=["effect"], covariates=["arm"])
        >>> schema.x_names
        ('dose', 'arm=drug', 'arm=none')
        >>> schema.inputs(frame).tolist()
        [[1.0, 1.0, 0.0], [2.0, 1.0, 0.0], [1.0, 0.0, 1.0]]
    """

    task: str
    x: tuple[str, ...]
    y: tuple[str, ...]
    covariates: tuple[str, ...] = ()
    levels: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, frame: "pd.DataFrame", task: str, x: Sequence[str], y: Sequence[str], covariates: Sequence[str] = ()
    ) -> "Schema":
        """Read the schema off a table: text and category columns among the inputs become one-hot, booleans 0 and 1.

        Raises:
            DataError: a column is unknown, named twice, or neither numeric nor categorical: times and dates, numbers
                written as text, text with about as many levels as rows. `astype("category")` says that a column holds
                categories.
        """
        from pandas.api.types import is_numeric_dtype

        _require_frame(frame)
        for name, given in (("x", x), ("y", y), ("covariates", covariates)):
            if isinstance(given, str):
                raise DataError(f"expected {name} to be a list of column names, got the text {given!r}")
        named = [task, *x, *y, *covariates]
        for name in named:
            if not isinstance(name, str):
                raise DataError(f"expected column names to be text, got {name!r}: rename the column")
        _require_columns(frame, named)
        if len(set(named)) != len(named):
            twice = next(name for name in named if named.count(name) > 1)
            raise DataError(f"expected every column in one role, got {twice!r} twice")
        if not y:
            raise DataError("expected at least one outcome column y, got none")
        used = frame[frame[list(y)].notna().all(axis=1)]  # a row without an outcome is left out, and its levels too
        texts = [name for name in (*x, *covariates) if not is_numeric_dtype(used[name])]
        tasks = _tasks(used, task)[0] if texts else np.zeros(len(used), dtype=np.int64)
        found = {name: each for name in texts if (each := levels_of(used[name], tasks)) is not None}
        return cls(task, tuple(x), tuple(y), tuple(covariates), found)

    @property
    def x_names(self) -> tuple[str, ...]:
        """The names of the encoded inputs, in order: `column`, or `column=level` where it is one-hot encoded."""
        names: list[str] = []
        for name in (*self.x, *self.covariates):
            names += [f"{name}={level}" for level in self.levels[name]] if name in self.levels else [name]
        return tuple(names)

    def inputs(self, frame: "pd.DataFrame") -> np.ndarray:
        """The encoded inputs of each row, `rows D` in float64.

        Raises:
            DataError: an unknown column or level, a missing or infinite cell, a cell that is not a number, or a
                covariate that changes within a task; column and row are named.
        """
        _require_columns(frame, [self.task, *self.x, *self.covariates])
        if self.covariates:
            self._require_constant(frame)
        columns = []
        for name in (*self.x, *self.covariates):
            if name in self.levels:
                columns.append(one_hot(frame[name], self.levels[name]))
            else:
                columns.append(numbers(frame[name], missing_allowed=False)[:, None])
        return np.concatenate(columns, 1) if columns else np.zeros((len(frame), 0))

    def outcomes(self, frame: "pd.DataFrame") -> np.ndarray:
        """The outcomes of each row, `rows C` in float64, NaN where missing. Raises DataError like `inputs`."""
        _require_columns(frame, self.y)
        return np.stack([numbers(frame[name], missing_allowed=True) for name in self.y], 1)

    def tasks(self, frame: "pd.DataFrame") -> tuple[np.ndarray, list[Hashable]]:
        """The task of each row as a position, and the names as they were written, in order of appearance.

        Names are one where `bayesmeta.task_names.name_text` of both is the same: 3 and 3.0 are.

        Raises:
            DataError: a task is missing, or its column is one of floats that may have merged large whole numbers.
        """
        _require_columns(frame, [self.task])
        return _tasks(frame, self.task)

    def _require_constant(self, frame: "pd.DataFrame") -> None:
        import pandas as pd

        tasks, names = self.tasks(frame)
        for name in self.covariates:
            try:
                codes, _ = pd.factorize(frame[name])  # -1 where missing
            except TypeError:  # cells without a hash, which are no numbers either
                continue
            changed = codes != first_of_task(codes, tasks)
            if changed.any():
                task = int(tasks[int(np.argmax(changed))])
                count = len(np.unique(codes[tasks == task]))
                raise DataError(
                    f"expected the covariate {name!r} to be constant within a task, "
                    f"got {count} values in task {names[task]!r}: name it among x instead"
                )

    def to_json(self) -> dict[str, Any]:
        """The schema as plain JSON, for `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Schema":
        """The inverse of `to_json`. Raises DataError when a field is missing."""
        try:
            found = {name: tuple(map(name_text, items)) for name, items in value["levels"].items()}
            lists = {name: tuple(value[name]) for name in ("x", "y", "covariates")}
            return cls(task=value["task"], levels=found, **lists)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise DataError(f"expected a table schema with task, x, y, covariates and levels, got {value!r}") from error


def _tasks(frame: "pd.DataFrame", task: str) -> tuple[np.ndarray, list[Hashable]]:
    column = frame[task]
    missing = column.isna().to_numpy()
    if missing.any():
        where = place(column, int(np.argmax(missing)))
        raise DataError(f"expected a task in column {task!r} of every row, got none in {where}")
    return factorized(column, f"a task in column {task!r}")


def _require_frame(frame: Any) -> None:
    import pandas as pd

    if not isinstance(frame, pd.DataFrame):
        raise DataError(f"expected a pandas DataFrame, got {type(frame).__name__}")


def _require_columns(frame: "pd.DataFrame", names: Sequence[str]) -> None:
    _require_frame(frame)
    for name in names:
        if name not in frame.columns:
            raise DataError(f"expected a column {name!r}, got the columns {[str(c) for c in frame.columns]}")
        if getattr(frame[name], "ndim", 1) != 1:
            raise DataError(f"expected one column {name!r}, got {frame[name].shape[1]} of that name")
