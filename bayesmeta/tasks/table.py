"""From a long table (one row a point, one column the task) to numbers and back: what a model folder remembers of it."""

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesmeta.errors import DataError

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
        levels: for every categorical input column its levels, one-hot encoded in this order.

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
    levels: dict[str, tuple[Any, ...]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, frame: "pd.DataFrame", task: str, x: Sequence[str], y: Sequence[str], covariates: Sequence[str] = ()
    ) -> "Schema":
        """Read the schema off a table: text and category columns among the inputs become one-hot, booleans 0 and 1.

        Raises:
            DataError: a column is unknown, named twice, or of a type that is neither numeric nor categorical.
        """
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
        levels = {name: found for name in (*x, *covariates) if (found := _levels(used[name])) is not None}
        return cls(task, tuple(x), tuple(y), tuple(covariates), levels)

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
        for name in self.covariates:
            counts = frame.groupby(self.task, sort=False, observed=True)[name].nunique(dropna=False)
            if (counts > 1).any():
                raise DataError(
                    f"expected the covariate {name!r} to be constant within a task, "
                    f"got {counts.max()} values in task {_plain(counts.idxmax())!r}: name it among x instead"
                )
        columns = []
        for name in (*self.x, *self.covariates):
            if name in self.levels:
                columns.append(_one_hot(frame[name], self.levels[name]))
            else:
                columns.append(_numbers(frame[name], missing_allowed=False)[:, None])
        return np.concatenate(columns, 1) if columns else np.zeros((len(frame), 0))

    def outcomes(self, frame: "pd.DataFrame") -> np.ndarray:
        """The outcomes of each row, `rows C` in float64, NaN where missing. Raises DataError like `inputs`."""
        _require_columns(frame, self.y)
        return np.stack([_numbers(frame[name], missing_allowed=True) for name in self.y], 1)

    def tasks(self, frame: "pd.DataFrame") -> list[Hashable]:
        """The task of each row. Raises DataError where one is missing."""
        _require_columns(frame, [self.task])
        column = frame[self.task]
        if column.isna().any():
            row = _row(column.isna())
            raise DataError(f"expected a task in column {self.task!r} of every row, got none in row {row!r}")
        return column.tolist()

    def to_json(self) -> dict[str, Any]:
        """The schema as plain JSON, for `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Schema":
        """The inverse of `to_json`. Raises DataError when a field is missing."""
        try:
            levels = {name: tuple(items) for name, items in value["levels"].items()}
            lists = {name: tuple(value[name]) for name in ("x", "y", "covariates")}
            return cls(task=value["task"], levels=levels, **lists)
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"expected a table schema with task, x, y, covariates and levels, got {value!r}") from error


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


def _row(where: "pd.Series") -> Any:
    return _plain(where.index[int(np.argmax(where.to_numpy()))])


def _plain(cell: Any) -> Any:
    """7 rather than np.int64(7), for messages."""
    return cell.item() if isinstance(cell, np.generic) else cell


def _levels(column: "pd.Series") -> tuple[Any, ...] | None:
    """The levels of a categorical column, or None for one of numbers."""
    import pandas as pd
    from pandas.api.types import is_numeric_dtype

    if is_numeric_dtype(column):
        return None
    _refuse_times(column)
    filled = column.dropna()
    if not isinstance(column.dtype, pd.CategoricalDtype):
        if all(isinstance(cell, Real | Decimal) for cell in filled):  # objects, but numbers all the same
            return None
        # a number written as text is a typing error, or a table read as text: guessing would make every number a level
        numeric = pd.to_numeric(filled.astype(str), errors="coerce").notna().to_numpy()
        if numeric.all():
            raise DataError(
                f"expected numbers or categories in column {column.name!r}, got numbers written as text: "
                "convert it with pandas.to_numeric, or with astype('category') if they are names"
            )
        if numeric.any():
            bad = filled[~numeric]
            raise DataError(
                f"expected numbers or categories in column {column.name!r}, "
                f"got both: {bad.iloc[0]!r} in row {_plain(bad.index[0])!r}. If all are names, use astype('category')"
            )
    for row, cell in filled.items():
        if not isinstance(cell, str | bool | int | float):
            raise DataError(f"expected numbers or text in column {column.name!r}, got {cell!r} in row {_plain(row)!r}")
    return tuple(sorted(filled.unique().tolist(), key=str))


def _refuse_times(column: "pd.Series") -> None:
    dtype = getattr(getattr(column.dtype, "categories", column), "dtype", column.dtype)  # of categories: their cells'
    if dtype.kind in "mM":
        raise DataError(
            f"expected numbers in column {column.name!r}, got {dtype}: convert it, "
            "for example to days with (t - t.min()) / pandas.Timedelta(days=1)"
        )


def _numbers(column: "pd.Series", missing_allowed: bool) -> np.ndarray:
    import pandas as pd

    _refuse_times(column)
    if column.dtype.kind == "c":
        raise DataError(f"expected real numbers in column {column.name!r}, got {column.dtype}")
    try:
        values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    except (ArithmeticError, TypeError, ValueError) as error:  # an int of 400 digits, a signalling NaN
        raise DataError(f"expected numbers in column {column.name!r}, got one that float64 has not: {error}") from error
    bad = np.isnan(values) & column.notna().to_numpy()
    if bad.any():
        at = int(np.argmax(bad))
        cell, row = _plain(column.iloc[at]), _plain(column.index[at])
        raise DataError(f"expected numbers in column {column.name!r}, got {cell!r} in row {row!r}")
    if np.isinf(values).any():
        row = _plain(column.index[int(np.argmax(np.isinf(values)))])
        raise DataError(f"expected finite numbers in column {column.name!r}, got infinity in row {row!r}")
    if not missing_allowed and np.isnan(values).any():
        row = _plain(column.index[int(np.argmax(np.isnan(values)))])
        raise DataError(f"expected a number in column {column.name!r} of every row, got a missing cell in row {row!r}")
    return values


def _one_hot(column: "pd.Series", levels: tuple[Any, ...]) -> np.ndarray:
    cells = column.tolist()
    position = {level: i for i, level in enumerate(levels)}
    unknown = [i for i, cell in enumerate(cells) if cell not in position]
    if unknown:
        raise DataError(
            f"expected column {column.name!r} to hold one of {list(levels)}, "
            f"got {cells[unknown[0]]!r} in row {_plain(column.index[unknown[0]])!r}"
        )
    encoded = np.zeros((len(cells), len(levels)))
    encoded[np.arange(len(cells)), [position[cell] for cell in cells]] = 1.0
    return encoded
