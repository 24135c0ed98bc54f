"""From the cells of one column to numbers or categories; what cannot be read is named with its column and row."""

import contextlib
import re
from collections.abc import Sequence
from decimal import Decimal
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesmeta.errors import DataError
from bayesmeta.task_names import factorized, look_alikes, place, plain, texts

if TYPE_CHECKING:
    import pandas as pd

PLAIN = ("string", "integer", "floating", "mixed-integer-float", "boolean", "empty")  # kinds of object columns
FEW = 20  # levels that any text column may have
SAID = "use astype('category'), or --categorical"  # how a user says that an input column holds categories
MONTH = "(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}"
CLOCK = r"([01]?\d|2[0-4]):[0-5]\d(:[0-5]\d([.,]\d+)?)?([ ]?[ap]m)?"
DATE = re.compile(
    rf"""\s*(
        \d{{4}}[-/.]\d{{1,2}}([-/.]\d{{1,2}})?                  # 2020-01-31, 2020/01/31, 2020-01
      | \d{{1,2}}[-/.]\d{{1,2}}[-/.](\d{{4}}|\d{{2}})          # 31.01.2020, 1/31/20
      | (\d{{1,2}}[-/. ]*)?{MONTH}[-/., ]+\d{{2,4}}              # 31 Jan 2020, 31-Jan-20, Jan 2020
      | {MONTH}[-/. ]+\d{{1,2}},?[ ]+\d{{4}}                     # Jan 31, 2020
      | \d{{4}}-?q[1-4]                                          # 2020Q1
      | {CLOCK}                                                   # 14:05:30
    )([t ]+{CLOCK})?[ ]?(z|utc|[+-]\d{{2}}:?\d{{2}})?\s*""",
    re.VERBOSE | re.IGNORECASE,
)


def numbers(column: "pd.Series[Any]", missing_allowed: bool) -> np.ndarray:
    """The cells as finite float64; NaN where missing, if that is allowed.

    Raises:
        DataError: times, a cell that is not a finite number, or one that is missing.
    """
    refuse_times(column)
    if column.dtype.kind == "c":
        raise DataError(f"expected real numbers in column {column.name!r}, got {column.dtype}")
    if column.dtype.kind in "iufb" and isinstance(column.dtype, np.dtype):
        values = column.to_numpy(dtype=np.float64)
        bad = np.zeros(len(values), dtype=bool)
    else:
        values = _converted(column)
        bad = np.isnan(values) & column.notna().to_numpy()
    if bad.any():
        at = int(np.argmax(bad))
        cell = plain(column.iloc[at])
        raise DataError(
            f"expected numbers in column {column.name!r}, got {cell!r} in {place(column, at)}{likely_cause(cell)}"
        )
    infinite = np.isinf(values)
    if infinite.any():
        at = int(np.argmax(infinite))
        raise DataError(f"expected finite numbers in column {column.name!r}, got infinity in {place(column, at)}")
    missing = np.isnan(values)
    if not missing_allowed and missing.any():
        at = int(np.argmax(missing))
        raise DataError(
            f"expected a number in column {column.name!r} of every row, got a missing cell in {place(column, at)}: "
            "fill it in, or leave the row out"
        )
    return values


def _converted(column: "pd.Series[Any]") -> np.ndarray:
    """Cells as float64, NaN where one is no number; one by one where pandas stumbles over what the cells hold."""
    import pandas as pd
    from pandas.api.types import infer_dtype

    if column.dtype != object or infer_dtype(column, skipna=True) in PLAIN:
        with contextlib.suppress(OverflowError):  # whole numbers of hundreds of digits
            return pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return np.array([as_float(cell) for cell in column.tolist()], dtype=np.float64)


def as_float(cell: Any) -> float:
    """The number that a cell is or writes; NaN for any other, infinity for one beyond all floats."""
    if isinstance(cell, str):
        try:
            return float(cell) if "_" not in cell and cell.isascii() else np.nan
        except ValueError:
            return np.nan
    try:
        return float(cell) if _is_number(cell) else np.nan
    except OverflowError:
        return np.inf


def _is_number(cell: Any) -> bool:
    """Truths are numbers, too; numpy holds durations for whole numbers."""
    return isinstance(cell, Real | Decimal | np.bool_) and not isinstance(cell, np.timedelta64)


def levels_of(column: "pd.Series[Any]", tasks: np.ndarray) -> tuple[str, ...] | None:
    """The levels of a categorical column as names (`name_text`), or None for one of numbers.

    Args:
        column: cells of the rows that have an outcome.
        tasks: the task of each row as a position.

    Raises:
        DataError: times and dates, numbers written as text, cells of several kinds, or text with about as many levels
            as there are rows (tasks, where it is constant within them), which says nothing of a new row.
    """
    import pandas as pd
    from pandas.api.types import infer_dtype, is_numeric_dtype

    if is_numeric_dtype(column):
        return None
    refuse_times(column)
    filled = column.dropna()
    said = isinstance(column.dtype, pd.CategoricalDtype)
    if not said:
        kind = infer_dtype(filled, skipna=False)
        if kind not in ("string", "empty") and all(map(_is_number, filled)):
            return None  # objects, but numbers all the same
        for at, cell in enumerate(() if kind in ("string", "empty") else filled):
            if not isinstance(cell, str | bool | int | float):
                raise DataError(
                    f"expected numbers or text in column {column.name!r}, got {cell!r} in {place(filled, at)}"
                )
    codes, names = factorized(filled, f"a category of column {filled.name!r}")
    found = texts(names)
    if not said:
        _refuse_numbers_as_text(filled, codes, names)
        refuse_dates(filled, codes, found, SAID)
        _refuse_many(filled, codes, found, tasks[column.notna().to_numpy()])
    return tuple(sorted(found))


def one_hot(column: "pd.Series[Any]", levels: Sequence[str]) -> np.ndarray:
    """Cells as rows of zeros with a one, `rows levels`. Raises DataError where a cell is missing or another level."""
    missing = column.isna().to_numpy()
    if missing.any():
        at = int(np.argmax(missing))
        raise DataError(
            f"expected column {column.name!r} to hold one of {list(levels)}, "
            f"got a missing cell in {place(column, at)}: leave the row out, or give what is unknown a name"
        )
    found = positions(column, levels, f"one of {list(levels)}")
    encoded = np.zeros((len(found), len(levels)))
    encoded[np.arange(len(found)), found] = 1.0
    return encoded


def positions(column: "pd.Series[Any]", levels: Sequence[str], expected: str, remedy: str = "") -> np.ndarray:
    """Of each cell, none of which is missing, the place of its level among these.

    Args:
        column: the cells.
        levels: names, as texts.
        expected: what the column is expected to hold, for the message.
        remedy: what to do about another cell, for the message.

    Raises:
        DataError: a cell is none of the levels.
    """
    codes, names = factorized(column, f"a category of column {column.name!r}")
    position = {level: i for i, level in enumerate(levels)}
    found = np.array([position.get(text, -1) for text in texts(names)], dtype=np.int64)
    if (found < 0).any():
        at = int(np.argmax((found < 0)[codes]))
        alike = look_alikes([names[codes[at]]], levels)
        hint = f"; perhaps {alike[0][1]!r} is meant, as names are compared as they are written" if alike else ""
        raise DataError(
            f"expected column {column.name!r} to hold {expected}, "
            f"got {plain(column.iloc[at])!r} in {place(column, at)}{hint}{remedy}"
        )
    return found[codes]


def refuse_times(column: "pd.Series[Any]") -> None:
    """Raise DataError for times and durations: which unit and which origin is meant, only the user can say."""
    dtype = getattr(getattr(column.dtype, "categories", column), "dtype", column.dtype)  # of categories: their cells'
    if dtype.kind in "mM":
        raise DataError(
            f"expected numbers in column {column.name!r}, got {dtype}: convert it, "
            "for example to days with (t - t.min()) / pandas.Timedelta(days=1)"
        )


def _refuse_numbers_as_text(filled: "pd.Series[Any]", codes: np.ndarray, names: list[Any]) -> None:
    """A number written as text is a typing error, or a table read as text: guessing would make every number a level."""
    import pandas as pd

    numeric = pd.to_numeric(pd.Series(texts(names), dtype=object), errors="coerce").notna().to_numpy()
    if len(numeric) and numeric.all():
        raise DataError(
            f"expected numbers or categories in column {filled.name!r}, got numbers written as text: "
            "convert it with pandas.to_numeric, or with astype('category') if they are names"
        )
    if numeric.any():
        at = int(np.argmax(~numeric[codes]))
        cell = filled.iloc[at]
        raise DataError(
            f"expected numbers or categories in column {filled.name!r}, got both: {cell!r} in "
            f"{place(filled, at)}{likely_cause(cell)}. If all are names, {SAID}"
        )


def refuse_dates(filled: "pd.Series[Any]", codes: np.ndarray, found: Sequence[str], said: str) -> None:
    """Raise DataError where a level looks like a date or a time; `said` is how to say that they are names after all."""
    dates = np.array([DATE.fullmatch(text) is not None for text in found], dtype=bool)
    if dates.any():
        at = int(np.argmax(dates[codes]))
        raise DataError(
            f"expected numbers or categories in column {filled.name!r}, got a date or time, {filled.iloc[at]!r} in "
            f"{place(filled, at)}: convert it to a number, such as days since a start that you choose; "
            f"if they are names, {said}"
        )


def _refuse_many(filled: "pd.Series[Any]", codes: np.ndarray, found: Sequence[str], tasks: np.ndarray) -> None:
    if len(found) <= FEW:
        return
    constant = constant_within(codes, tasks)
    count = len(np.unique(tasks)) if constant else len(codes)
    if 2 * len(found) > count:
        raise DataError(
            f"expected categories in column {filled.name!r}, got {len(found)} different texts in {count} "
            f"{'tasks' if constant else 'rows'}: leave it out, or group its levels; if it must be so, {SAID}"
        )


def constant_within(codes: np.ndarray, tasks: np.ndarray) -> bool:
    """Whether the rows of a task all have one code."""
    return bool((codes == first_of_task(codes, tasks)).all())


def first_of_task(codes: np.ndarray, tasks: np.ndarray) -> np.ndarray:
    """For each row the code in the first row of its task."""
    if len(codes) == 0:
        return codes
    first = np.zeros(int(tasks.max()) + 1, dtype=np.int64)
    first[tasks[::-1]] = np.arange(len(tasks))[::-1]  # the last that is written is the first row
    return codes[first[tasks]]


THOUSANDS = re.compile(r"[+-]?\d{1,3}((,\d{3})+(\.\d+)?|(\.\d{3})+(,\d+)?|(['\s]\d{3})+([.,]\d+)?)")
UNIT = re.compile(r"\s*[<>~]?\s*[+-]?\d*[.,]?\d+([eE][+-]?\d+)?\s*[^\d\s.,;:/+-].*")


def likely_cause(cell: Any) -> str:
    """What a number may have been that was not read as one."""
    if not isinstance(cell, str):
        return ""
    text = cell.strip()
    if THOUSANDS.fullmatch(text):
        return ": write thousands without separators"
    if re.fullmatch(r"[+-]?\d*,\d+([eE][+-]?\d+)?", text):
        return ": write a decimal point"
    if DATE.fullmatch(text):
        return ": convert dates to a number, such as days since a start"
    if UNIT.fullmatch(text) or re.fullmatch(r"[$€£<>~].*\d.*", text):
        return ": write the number alone, without a unit or sign"
    return ""
