"""One rule for the name of a task: 3, 3.0, numpy's 3 and "3" are one name, whatever pandas made of the column.

Names are compared as text. The text of

    text      is the text, exactly as written: '007', '7', '1.1', '1.10', 'NA' and ' a' are six names
    a number  is its value: 3, 3.0, Decimal('3.00') and numpy.float32(3) are '3'; 1.5 is '1.5'
    a truth   is 'True' or 'False', not 1 or 0
    a time    is its ISO text; at midnight, without a zone, its date: '2020-01-31'
    a tuple   is that of its parts

and of anything else what `str` gives. Missing are None, NaN, NaT, pandas.NA and text that is empty or blank. The levels
of a category are names by the same rule. Names are shown as the user wrote them; only comparisons go by the text.
"""

import datetime
import re
from collections.abc import Hashable, Iterable, Sequence
from decimal import Decimal
from numbers import Real
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from bayesmeta.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


def name_text(name: Any) -> str:
    """The text by which a task's name, or a category's level, is compared.

    Raises:
        DataError: there is no name: None, NaN, NaT, pandas.NA, or empty text.

    Example:
        >>> import numpy as np
        >>> [name_text(name) for name in (3, 3.0, np.int64(3), "3", "3.0", "007", True, 1.5)]
        ['3', '3', '3', '3', '3.0', '007', 'True', '1.5']
    """
    if isinstance(name, str):
        if not name.strip():
            raise DataError(f"expected the name of a task, got {str(name)!r}")
        return str(name)
    if isinstance(name, np.datetime64):
        import pandas as pd

        name = pd.Timestamp(name)
    elif getattr(name, "shape", None) == () and hasattr(name, "item"):  # numpy's and torch's scalars
        return name_text(float(str(name)) if isinstance(name, np.float16 | np.float32) else name.item())
    if isinstance(name, bool):
        return str(name)
    if _is_missing(name):
        raise DataError(f"expected the name of a task, got {name!r}")
    if isinstance(name, Real | Decimal):
        return _number(name)
    if isinstance(name, datetime.datetime):
        midnight = name.tzinfo is None and name.time() == datetime.time() and not getattr(name, "nanosecond", 0)
        return name.date().isoformat() if midnight else name.isoformat(" ")
    if isinstance(name, datetime.date):
        return name.isoformat()
    if isinstance(name, tuple):
        return repr(tuple(name_text(part) for part in name))
    return str(name)


def _number(value: Any) -> str:
    """Whole numbers without a point, others as the shortest decimal that is the same float."""
    if isinstance(value, Decimal):
        if value.is_finite() and value.adjusted() < 40 and value == value.to_integral_value():
            return str(int(value))
        text = repr(float(value))
        return text if Decimal(text) == value else str(value.normalize())
    if value == value // 1:  # infinity is not: inf // 1 is NaN
        return str(int(value))
    return repr(float(value))


def _is_missing(name: Any) -> bool:
    if name is None:
        return True
    try:
        return bool(name != name)  # NaN and NaT differ from themselves
    except TypeError:  # pandas.NA has no truth value
        return True
    except ValueError:  # an array
        return False


def factorized(cells: Any, what: str = "the name of a task") -> tuple[np.ndarray, list[Hashable]]:
    """Positions and names: the task of each row as a position in the list of names, which is in order of appearance.

    Columns of one kind (whole numbers, text, times, categories) take no Python loop over their rows.

    Args:
        cells: the name of each row: a pandas Series, an array, a tensor or a list.
        what: the names are, for messages, in which a Series names its rows by its index.

    Raises:
        DataError: a row has no name; or a float that is too large to tell neighbouring whole numbers apart, so that
            names may have been lost before (in float64 above 2**53).

    Example:
        >>> codes, names = factorized([3, "b", 3.0, "3"])
        >>> codes.tolist(), names
        ([0, 1, 0, 0], [3, 'b'])
    """
    import pandas as pd

    column = cells if isinstance(cells, pd.Series) else _series(cells)
    missing = column.isna().to_numpy()
    if missing.any():
        _refuse(column, int(np.argmax(missing)), what)
    if isinstance(column.dtype, pd.CategoricalDtype):
        codes, used = pd.factorize(column.cat.codes.to_numpy())
        merged, names = factorized(pd.Series(column.cat.categories[used]), what)
        return merged[codes], names
    kind = pd.api.types.infer_dtype(column, skipna=False) if column.dtype == object else ""
    if kind == "floating":
        column = column.astype(np.float64)
    elif kind not in ("", "string", "integer"):
        return _one_by_one(column, what)
    if column.dtype.kind == "f":
        _refuse_large(column, what)
    codes, found = pd.factorize(column)
    names = list(found.tolist())
    blank = np.array([isinstance(name, str) and not name.strip() for name in names], dtype=bool)
    if blank.any():
        _refuse(column, int(np.argmax(blank[codes])), what)
    return codes.astype(np.int64, copy=False), names


def _series(cells: Any) -> "pd.Series[Any]":
    import pandas as pd

    if hasattr(cells, "detach"):  # a tensor
        cells = cells.detach().cpu().numpy()
    if isinstance(cells, np.ndarray | pd.Index | pd.api.extensions.ExtensionArray) and not hasattr(cells, "levels"):
        return pd.Series(cells)  # but a MultiIndex has tuples
    column = np.empty(len(cells), dtype=object)  # a list is not guessed at, and tuples stay whole
    column[:] = list(cells)
    return pd.Series(column, dtype=object)


def _one_by_one(column: "pd.Series[Any]", what: str) -> tuple[np.ndarray, list[Hashable]]:
    """Objects of several kinds, of which Python holds 1 and True for equal."""
    position: dict[str, int] = {}
    names: list[Hashable] = []
    codes = np.empty(len(column), dtype=np.int64)
    for row, cell in enumerate(column.tolist()):
        try:
            hash(cell)
            text = name_text(cell)
        except (DataError, TypeError):
            _refuse(column, row, what)
        if text not in position:
            position[text] = len(names)
            names.append(cell)
        codes[row] = position[text]
    return codes, names


def _refuse_large(column: "pd.Series[Any]", what: str) -> None:
    values = column.to_numpy(dtype=np.float64)
    digits = np.finfo(getattr(column.dtype, "numpy_dtype", column.dtype)).nmant + 1
    large = ~(np.abs(values) <= 2.0**digits)
    if large.any():
        row = int(np.argmax(large))
        raise DataError(
            f"expected {what} that {column.dtype} tells from others, a number up to 2**{digits}, "
            f"got {plain(column.iloc[row])!r} in {place(column, row)}: read the column as text or as whole numbers"
        )


def _refuse(column: "pd.Series[Any]", row: int, what: str) -> NoReturn:
    raise DataError(f"expected {what} in {place(column, row)}, got {plain(column.iloc[row])!r}")


def place(column: "pd.Series[Any]", position: int) -> str:
    """Where a cell is, by the index of its table: `row 5`, or `line 5` where the index is called so."""
    return f"{'line' if column.index.name == 'line' else 'row'} {plain(column.index[position])!r}"


def plain(cell: Any) -> Any:
    """7 rather than np.int64(7), for messages."""
    return cell.item() if isinstance(cell, np.generic) else cell


def texts(names: Iterable[Hashable]) -> list[str]:
    """The text of each name.

    Example:
        >>> texts([3.0, "b"])
        ['3', 'b']
    """
    return [name_text(name) for name in names]


def look_alikes(names: Sequence[Hashable], others: Sequence[Hashable]) -> list[tuple[Hashable, Hashable]]:
    """Pairs of names that are probably one task written in two ways: '3.0' and '3', '007' and '7', 'a ' and 'A'.

    Args:
        names: of one table.
        others: of another; a name that both have is in no pair.

    Example:
        >>> look_alikes(["3.0", "b", "7"], ["3", "b", "8"])
        [('3.0', '3')]
    """
    both = set(texts(names)) & set(texts(others))
    loose = {_loose(text): other for text, other in zip(texts(others), others, strict=True) if text not in both}
    pairs = [(name, _loose(text)) for text, name in zip(texts(names), names, strict=True) if text not in both]
    return [(name, loose[key]) for name, key in pairs if key in loose]


def _loose(text: str) -> str:
    plain = " ".join(text.split()).casefold()
    number = plain.replace(",", ".")
    return _number(Decimal(number)) if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,2})?", number) else plain
