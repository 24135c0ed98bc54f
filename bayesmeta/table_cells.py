"""What the cells of a table file mean, for the columns that are asked for: names, categories or numbers.

    names       of tasks, and the levels of categories, are the text as it was written; only an empty cell is missing
    numbers     with a point, or with a decimal comma: always where cells are separated by semicolons, elsewhere only
                where some number cannot be one with commas between thousands. A table with both is refused
    missing     among numbers: an empty cell, or a word for it such as NA (`MISSING`)
    classes     of an outcome are names; a word for a missing number is one, too, unless a model knows no such class
    truths      a column of true and false is one of numbers, 1 and 0; an outcome of them is one of classes
    dates       are refused: which unit and which origin is meant, only the user can say

A column of inputs is one of numbers if all of its cells are, one of categories if none is, and refused otherwise.
"""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesmeta.errors import DataError
from bayesmeta.table_files import Table
from bayesmeta.tasks.table import Schema

if TYPE_CHECKING:
    import pandas as pd

MISSING = ("NA", "N/A", "n/a", "#N/A", "#NA", "<NA>", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "None", "none")
"""Words that say that a number is missing; in names and categories they are names."""

COMMA = r"\s*[+-]?\d*,\d+([eE][+-]?\d+)?\s*"
POINT = r"\s*[+-]?(\d+\.\d*|\.\d+)([eE][+-]?\d+)?\s*"
THOUSANDS = r"\s*[+-]?[1-9]\d{0,2},\d{3}\s*"


def read_cells(
    table: Table,
    task: str,
    numbers: Sequence[str],
    unknown: Sequence[str] = (),
    categories: Sequence[str] = (),
    classes: Sequence[str] = (),
    outcomes: Sequence[str] = (),
) -> "pd.DataFrame":
    """The table with the cells of some columns understood; the others stay as they are, as do those that cannot be.

    What cannot be read as it should is left for `Schema`, whose messages name the cell.

    Args:
        table: as it was written.
        task: the column of names.
        numbers: columns that must hold numbers.
        unknown: columns of inputs that hold numbers or categories.
        categories: columns of inputs that hold categories, whatever they look like.
        classes: columns of outcomes that hold classes, whatever they look like.
        outcomes: columns of outcomes that hold numbers or classes.

    Raises:
        DataError: a column is unknown, or numbers are written with decimal points and decimal commas.

    Example:
        >>> import pandas as pd
        >>> cells = pd.DataFrame({"id": ["007", "NA"], "x": ["0,5", "NA"], "arm": ["1", "2"]})
        >>> frame = read_cells(Table(cells, "t.csv", ";", ()), "id", numbers=["x"], categories=["arm"])
        >>> frame["id"].tolist(), frame["x"].tolist(), frame["arm"].tolist()
        (['007', 'NA'], [0.5, nan], ['1', '2'])
    """
    frame = table.frame
    for name in (task, *numbers, *unknown, *categories, *classes, *outcomes):
        if name not in frame.columns:
            near = _near(name, frame.columns)
            raise DataError(
                f"expected a column {name!r} in {table.name}, got {list(frame.columns)}{near}{_hint(table)}"
            )
    if not table.is_text:
        return _with(frame, {name: frame[name].astype("category") for name in categories})
    commas = decimal_commas(table, [*numbers, *unknown, *outcomes])
    result = {task: names_of(frame[task])}
    result |= {name: names_of(frame[name]).astype("category") for name in categories}
    result |= {name: _numbers(frame[name], commas, True) for name in numbers}
    result |= {name: _numbers(frame[name], commas, False) for name in unknown}
    result |= {name: names_of(frame[name]) for name in classes}
    result |= {name: _outcomes(frame[name], commas) for name in outcomes}
    return _with(frame, result)


def read_as(table: Table, schema: Schema, outcomes: bool = True) -> "pd.DataFrame":
    """The table with the cells of its columns understood as a schema says, and checked.

    Args:
        table: as it was written.
        schema: which column is what.
        outcomes: whether the table must have the outcomes. Nothing is asked of the inputs of a row without.

    Raises:
        DataError: like `read_cells`; a cell that cannot be read as the schema says. Table, column and line are named.
    """
    classes = schema.y if outcomes and schema.classes else ()
    frame = read_cells(table, schema.task, number_columns(schema, outcomes), (), list(schema.levels), classes)
    if table.is_text:
        words = set(MISSING) - set(schema.classes)
        frame = _with(frame, {name: frame[name].mask(frame[name].str.strip().isin(words), None) for name in classes})
    try:
        schema.tasks(frame)
        schema.inputs(frame[schema.has_outcome(frame)] if outcomes else frame)
    except DataError as error:
        raise DataError(f"{error} (in {table.name})") from error
    return frame


def number_columns(schema: Schema, outcomes: bool = True) -> list[str]:
    """The columns that hold numbers.

    Example:
        >>> import bayesmeta as bm
        >>> number_columns(bm.tasks.Schema("who", x=("t", "arm"), y=("y",), levels={"arm": ("u", "v")}))
        ['t', 'y']
    """
    inputs = [name for name in (*schema.x, *schema.covariates) if name not in schema.levels]
    return [*inputs, *((*schema.y, *schema.yerr) if outcomes and not schema.classes else ())]


def decimal_commas(table: Table, columns: Sequence[str]) -> bool:
    """Whether these columns have decimal commas. Raises DataError where they have decimal points, too."""
    if not table.is_text:
        return False
    commas = {name: cells for name in columns if len(cells := _with_comma(table.frame[name]))}
    surely = table.separator == ";" or any((~cells.str.fullmatch(THOUSANDS)).any() for cells in commas.values())
    if not commas or not surely:
        return False
    for other in columns:
        pointed = table.frame[other][table.frame[other].str.fullmatch(POINT).to_numpy(dtype=bool)]
        if len(pointed):
            one, first = next((name, cells) for name, cells in commas.items())
            raise DataError(
                f"expected decimal points or decimal commas in {table.name}, got both: "
                f"{first.iloc[0]!r} in column {one!r} in line {first.index[0]}, "
                f"and {pointed.iloc[0]!r} in column {other!r} in line {pointed.index[0]}"
            )
    return True


def _with_comma(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """The cells that are numbers with a decimal comma."""
    cells = column[np.isnan(_parsed(column))]
    return cells[cells.str.fullmatch(COMMA).to_numpy(dtype=bool)]


def _parsed(column: "pd.Series[Any]") -> np.ndarray:
    """Numbers with decimal points; NaN for every other cell."""
    import pandas as pd

    return pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan, copy=True)


def names_of(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """Text as it was written; missing where the cell is empty or blank."""
    empty = (column.str.strip() == "").to_numpy(dtype=bool)
    return column.mask(empty, None) if empty.any() else column


def _with(frame: "pd.DataFrame", columns: dict[str, "pd.Series[Any]"]) -> "pd.DataFrame":
    """Columns replaced; `assign` cannot, where one is called self."""
    frame = frame.copy(deep=False)
    for name, column in columns.items():
        frame[name] = column
    return frame


def _numbers(column: "pd.Series[Any]", commas: bool, must_be: bool) -> "pd.Series[Any]":
    """The numbers of a column of text; the text, where it has other cells."""
    import pandas as pd

    pointed = column.str.replace(",", ".", regex=False) if commas else column
    values = _parsed(pointed)
    bad = np.isnan(values)
    if not bad.any():
        return pd.Series(values, index=column.index, name=column.name)
    missing = np.zeros(len(column), dtype=bool)
    missing[bad] = column[bad].str.strip().isin(["", *MISSING])
    if (bad & ~missing).any():
        filled = column[~missing]
        lower = filled.str.strip().str.lower()
        if not lower.isin(["true", "false"]).all():
            return column.mask(missing, None) if must_be or not bad.all() else names_of(column)
        if not missing.any():
            return lower == "true"
        values[~missing] = (lower == "true").to_numpy(dtype=np.float64)
    return pd.Series(values, index=column.index, name=column.name)


def _outcomes(column: "pd.Series[Any]", commas: bool) -> "pd.Series[Any]":
    """The numbers of a column of text; its names, where no cell is a number, which truths are not."""
    values = _numbers(column, commas, False)
    missing = column.str.strip().isin(["", *MISSING])
    truths = column[~missing].str.strip().str.lower().isin(["true", "false"])
    return column.mask(missing, None) if len(truths) and truths.all() else values


def _near(name: str, columns: Iterable[Any]) -> str:
    """A question where one of the columns is called nearly so, or so but for capitals."""
    plain = {str(column).strip().casefold(): column for column in columns}
    close = get_close_matches(name.strip().casefold(), plain, n=1, cutoff=0.8)
    return f". Is {plain[close[0]]!r} meant?" if close else ""


def _hint(table: Table) -> str:
    only = list(table.frame.columns)
    if len(only) == 1 and re.search(r"[\s;,|]", only[0]):
        return ": say what separates its cells with --sep"
    return ""
