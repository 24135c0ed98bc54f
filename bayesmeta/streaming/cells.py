"""Rows of a table of pyarrow as the known points of tasks, and the points that are asked about."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bayesmeta.errors import DataError
from bayesmeta.flat import FlatData
from bayesmeta.tasks.table import Schema, observed


@dataclass(frozen=True, eq=False)
class Cells:
    """Points of whole tasks.

    Attributes:
        known: the known points of each task.
        asked: the points of the same tasks that are asked about; the outcome of each is its place among them.
        rows: the rows of the table that are asked about.
    """

    known: FlatData
    asked: FlatData
    rows: np.ndarray


def columns_of(schema: Schema, known: str | int | None) -> list[str]:
    """The columns that are read to predict."""
    flag = [known] if isinstance(known, str) else []
    return list(dict.fromkeys([*schema.columns, *schema.y, *schema.yerr, *flag]))


def cells_of(schema: Schema, table: Any, starts: np.ndarray, known: str | int | None, first: int = 0) -> Cells:
    """The points of some tasks.

    Args:
        schema: which column is what.
        table: of pyarrow, whole tasks one after another.
        starts: the places at which tasks begin, followed by the number of rows.
        known: which rows are known: those that have an outcome (None), those where this column is true, or so many of
            each task from its beginning. Of the latter two, a known row without an outcome says nothing.
        first: the number of the first row, for messages.

    Raises:
        DataError: a cell cannot be read as the schema says; column and row are named.

    Example:
        >>> import pyarrow as pa
        >>> schema = Schema("cell", x=("t",), y=("volt",))
        >>> table = pa.table({"cell": [1, 1, 2], "t": [0, 1, 0], "volt": [4.1, None, None]})
        >>> cells = cells_of(schema, table, np.array([0, 2, 3]), None)
        >>> cells.known.counts.tolist(), cells.asked.counts.tolist(), cells.rows.tolist()
        ([1, 0], [1, 1], [1, 2])
    """
    import pandas as pd

    frame = table.select(columns_of(schema, known)).to_pandas(split_blocks=True)
    frame.index = pd.RangeIndex(first, first + len(frame))
    outcome = observed(schema.outcomes(frame))
    if known is None:
        says, asks = outcome, ~outcome
    else:
        begins = _flags(frame[known]) if isinstance(known, str) else _ranks(starts) < known
        says, asks = begins & outcome, ~begins
    of_known, of_asked = frame[says], frame[asks]
    points = schema.points(of_known)
    noise = None if points.noise is None else points.noise[0]
    return Cells(
        FlatData(points.x[0], points.y[0], _offsets(says, starts), noise),
        FlatData(torch.from_numpy(schema.inputs(of_asked)), torch.arange(len(of_asked)), _offsets(asks, starts)),
        np.flatnonzero(asks),
    )


def _offsets(chosen: np.ndarray, starts: np.ndarray) -> torch.Tensor:
    """Where tasks begin among the chosen rows."""
    return torch.from_numpy(np.append(0, np.cumsum(chosen))[starts])


def _ranks(starts: np.ndarray) -> np.ndarray:
    """The place of each row in its task, from 0."""
    return np.arange(starts[-1]) - np.repeat(starts[:-1], np.diff(starts))


def _flags(column: Any) -> np.ndarray:
    if column.dtype != bool:
        raise DataError(
            f"expected true or false in every row of column {column.name!r}, which says what is known, got "
            f"{'missing cells' if column.isna().any() else column.dtype}"
        )
    return column.to_numpy()
