"""From a long table (one row a point, one column the task) to numbers and back: what a model folder remembers of it."""

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from bayesmeta.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Schema:
    """Which column is what.

    Attributes:
        task: the column with the task's name.
        x: input columns that vary from point to point.
        y: outcome columns, all numeric.
        covariates: input columns that are constant within a task (age, site); appended to x.
        levels: for every categorical input column its levels, one-hot encoded in this order.
    """

    task: str
    x: tuple[str, ...]
    y: tuple[str, ...]
    covariates: tuple[str, ...] = ()
    levels: dict[str, tuple[Any, ...]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, frame: "pd.DataFrame", task: str, x: Sequence[str], y: Sequence[str], covariates: Sequence[str] = ()
    ) -> Self:
        """Read the schema off a table: text, category and boolean-object columns among the inputs become one-hot.

        Raises:
            DataError: a column is unknown, named twice, or of a type that is neither numeric nor categorical.
        """
        from pandas.api.types import is_numeric_dtype

        for name, given in (("x", x), ("y", y), ("covariates", covariates)):
            if isinstance(given, str):
                raise DataError(f"expected {name} to be a list of column names, got the text {given!r}")
        named = [task, *x, *y, *covariates]
        _require_columns(frame, named)
        if len(set(named)) != len(named):
            twice = next(name for name in named if named.count(name) > 1)
            raise DataError(f"expected every column in one role, got {twice!r} twice")
        if not y:
            raise DataError("expected at least one outcome column y, got none")
        levels = {}
        for name in (*x, *covariates):
            column = frame[name]
            if is_numeric_dtype(column):
                continue
            if column.dtype.kind in "mM":
                raise DataError(f"expected numbers or categories in column {name!r}, got {column.dtype}: convert to days")
            if "numeric" in _looks(column):
                row = _looks(column)["numeric"]
                raise DataError(
                    f"expected numbers or categories in column {name!r}, got both: {column.loc[row]!r} in row {row!r}"
                )
            levels[name] = tuple(sorted(column.dropna().unique().tolist(), key=str))
        return cls(task, tuple(x), tuple(y), tuple(covariates), levels)

    @property
    def x_names(self) -> tuple[str, ...]:
        """The encoded inputs, one name a number: `column` or `column=level`."""
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
            counts = frame.groupby(self.task, sort=False)[name].nunique(dropna=False)
            if (counts > 1).any():
                raise DataError(
                    f"expected the covariate {name!r} to be constant within a task, "
                    f"got {counts.max()} values in task {counts.idxmax()!r}: name it among x instead"
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
            raise DataError(f"expected a task in column {self.task!r} of every row, got none in row {_row(column.isna())!r}")
        return column.tolist()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The inverse of `to_json`. Raises DataError when a field is missing."""
        try:
            levels = {name: tuple(items) for name, items in value["levels"].items()}
            lists = {name: tuple(value[name]) for name in ("x", "y", "covariates")}
            return cls(task=value["task"], levels=levels, **lists)
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"expected a table schema with task, x, y, covariates and levels, got {value!r}") from error


def _require_columns(frame: "pd.DataFrame", names: Sequence[str]) -> None:
    for name in names:
        if name not in frame.columns:
            raise DataError(f"expected a column {name!r}, got the columns {[str(c) for c in frame.columns]}")
        if getattr(frame[name], "ndim", 1) != 1:
            raise DataError(f"expected one column {name!r}, got {frame[name].shape[1]} of that name")


def _row(where: "pd.Series") -> Any:
    return where.index[int(np.argmax(where.to_numpy()))]


def _looks(column: "pd.Series") -> dict[str, Any]:
    """Cells of a text column that are numbers: most likely a numeric column with a typing error somewhere else."""
    import pandas as pd

    filled = column.dropna()
    numeric = pd.to_numeric(filled.astype(str), errors="coerce").notna()
    if numeric.any() and not numeric.all():
        return {"numeric": _row(~numeric)}
    return {}


def _numbers(column: "pd.Series", missing_allowed: bool) -> np.ndarray:
    import pandas as pd

    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    bad = pd.Series(np.isnan(values), index=column.index) & column.notna()
    if bad.any():
        row = _row(bad)
        raise DataError(f"expected numbers in column {column.name!r}, got {column[bad].iloc[0]!r} in row {row!r}")
    infinite = pd.Series(np.isinf(values), index=column.index)
    if infinite.any():
        raise DataError(f"expected finite numbers in column {column.name!r}, got infinity in row {_row(infinite)!r}")
    if not missing_allowed and np.isnan(values).any():
        row = _row(column.isna())
        raise DataError(f"expected a number in column {column.name!r} of every row, got a missing cell in row {row!r}")
    return values


def _one_hot(column: "pd.Series", levels: tuple[Any, ...]) -> np.ndarray:
    cells = column.tolist()
    position = {level: i for i, level in enumerate(levels)}
    unknown = [i for i, cell in enumerate(cells) if cell not in position]
    if unknown:
        raise DataError(
            f"expected column {column.name!r} to hold one of {list(levels)}, "
            f"got {cells[unknown[0]]!r} in row {column.index[unknown[0]]!r}"
        )
    encoded = np.zeros((len(cells), len(levels)))
    encoded[np.arange(len(cells)), [position[cell] for cell in cells]] = 1.0
    return encoded
