"""From the X of scikit-learn to the inputs and the task of each row.

X is an array or a DataFrame. Columns of text or categories become one-hot, as everywhere in the library, and names of
tasks are compared by their texts (`bayesmeta.task_names`).
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesmeta.errors import DataError, ShapeError
from bayesmeta.task_names import factorized, texts
from bayesmeta.tasks.columns import levels_of
from bayesmeta.tasks.table import Schema

if TYPE_CHECKING:
    import pandas as pd

ALL = "all rows"  # the name of the one task, where none are told apart
Column = str | int
"""A column of X: its name, or its position."""


@dataclass(frozen=True)
class Table:
    """The rows of an X as numbers.

    Attributes:
        x: the encoded inputs, `rows D`.
        codes: the task of each row, as a position in `names`; -1 where nobody says which it is.
        names: of the tasks, in order of appearance.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"who": ["a", "a", None], "day": [0, 1, 2]})
        >>> schema = schema_of(frame.head(2), task="who", covariates=(), groups=None)
        >>> table = Table.of(frame, schema, task="who", groups=None)
        >>> table.codes.tolist(), table.names, table.x.tolist()
        ([0, 0, -1], ['a'], [[0.0], [1.0], [2.0]])
    """

    x: np.ndarray
    codes: np.ndarray
    names: list[Hashable]

    @classmethod
    def of(cls, frame: "pd.DataFrame", schema: Schema, task: Column | None, groups: Any) -> "Table":
        """Read rows as a schema says.

        Args:
            frame: as `as_frame` gives it.
            schema: as `schema_of` gives it.
            task: the column of the task, where it has one.
            groups: the task of each row, in place of a column.

        Raises:
            DataError: a cell that cannot be read.
            ShapeError: groups of another length.
        """
        names = _names(frame, task, groups)
        missing = _missing(names)
        codes = np.full(len(frame), -1, dtype=np.int64)
        codes[~missing], found = factorized(names[~missing], "a task")
        known = np.array([*texts(found), ""], dtype=object)[codes]
        known[missing] = [f"\0 {row}" for row in np.flatnonzero(missing)]  # each is of a task of its own
        inputs = frame.assign(**{schema.task: known})
        return cls(schema.inputs(inputs), codes, found)


def as_frame(X: Any, names: Sequence[str] | None) -> "pd.DataFrame":
    """An X that is checked as a DataFrame whose columns have texts as names.

    Args:
        X: a DataFrame, which stays as it is where its columns have names, or an array `rows columns`.
        names: of the columns; `x0`, `x1`, ... by default.

    Example:
        >>> frame = as_frame(np.array([["1.5", "a"], ["2.5", "b"]]), None)
        >>> frame["x0"].tolist(), frame["x1"].tolist()
        ([1.5, 2.5], ['a', 'b'])
    """
    import pandas as pd

    names = [f"x{place}" for place in range(X.shape[1])] if names is None else list(names)
    if isinstance(X, pd.DataFrame):
        return X.set_axis(names, axis=1)
    if X.dtype.kind not in "US":
        return pd.DataFrame(X, columns=names)
    columns = {name: _numbers_or_texts(X[:, place]) for place, name in enumerate(names)}
    return pd.DataFrame(columns)  # numpy makes text of all, where one column is


def schema_of(
    frame: "pd.DataFrame",
    task: Column | None,
    covariates: Sequence[Column],
    groups: Any,
    y: Sequence[str] = ("y",),
    classes: Sequence[str] = (),
    kind: str = "number",
) -> Schema:
    """What the columns of training rows are.

    Args:
        frame: as `as_frame` gives it.
        task: the column of the task, if any.
        covariates: columns that are constant within a task.
        groups: the task of each row, in place of a column.
        y: names of the outcomes.
        classes: names of the classes, none where outcomes are numbers.
        kind: of outcome, as `Schema.kind` says it.

    Raises:
        DataError: an unknown column, one in two roles, both a column and groups, or a row without a task.
    """
    from pandas.api.types import is_numeric_dtype

    columns = list(frame.columns)
    if task is not None and groups is not None:
        raise DataError(f"expected tasks by a column or by groups, got task={task!r} and groups")
    own = None if task is None else _column(columns, task, "task")
    constant = [_column(columns, each, "covariates") for each in covariates]
    if own in constant or len(set(constant)) != len(constant):
        raise DataError(f"expected every column in one role, got task={task!r} and covariates={list(covariates)}")
    names = _names(frame, task, groups)
    missing = _missing(names)
    if missing.any():
        raise DataError(f"expected the task of every row, got none in row {int(np.argmax(missing))}")
    rows, _ = factorized(names, "a task")
    inputs = [name for name in columns if name != own]
    levels = {
        name: found
        for name in inputs
        if not is_numeric_dtype(frame[name]) and (found := levels_of(frame[name], rows)) is not None
    }
    free = "task"
    while free in inputs:
        free += "_"
    varying = tuple(name for name in inputs if name not in constant)
    return Schema(own or free, varying, tuple(y), tuple(constant), levels, tuple(classes), kind=kind)


def _names(frame: "pd.DataFrame", task: Column | None, groups: Any) -> np.ndarray:
    """The name of the task of each row, as it is written; None where there is none."""
    if groups is not None:
        given = np.asarray(groups)
        if given.shape != (len(frame),):
            raise ShapeError(f"expected groups of shape ({len(frame)},), got {given.shape}")
        return np.array([*groups, None], dtype=object)[:-1] if given.dtype.kind in "OUS" else given
    if task is None:
        return np.full(len(frame), ALL, dtype=object)
    return frame[_column(list(frame.columns), task, "task")].to_numpy()


def _missing(names: np.ndarray) -> np.ndarray:
    import pandas as pd

    missing = pd.isna(names)
    if names.dtype == object:
        missing |= np.array([isinstance(name, str) and not name.strip() for name in names], dtype=bool)
    return missing


def _column(columns: list[str], column: Column, what: str) -> str:
    """The name of a column that is given by its name or its position."""
    if isinstance(column, str):
        if column not in columns:
            raise DataError(f"expected {what} to be a column of X, got {column!r}; X has {columns}")
        return column
    if isinstance(column, bool) or not isinstance(column, int | np.integer):
        raise DataError(f"expected {what} by name or by position, got {column!r}")
    if not -len(columns) <= column < len(columns):
        raise DataError(f"expected {what} to be a column of X, got position {column} of {len(columns)} columns")
    return columns[column]


def _numbers_or_texts(column: np.ndarray) -> np.ndarray:
    try:
        return column.astype(np.float64)
    except ValueError:
        return column.astype(object)
