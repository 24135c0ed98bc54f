"""From the cells of an outcome column to the labels of classes: which classes there are, in which order, and which not.

    text, categories, truths    are classes by themselves
    numbers                     are numbers, unless classes are asked for; so is text that writes numbers

Classes are names, compared by the one rule of `bayesmeta.task_names`, and label c is the c-th of them. Their order is
that of the categories where the column has categories; else numbers go by their value, and all else by its text.
"""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesmeta.errors import DataError, OutcomeWarning
from bayesmeta.task_names import factorized, place, texts
from bayesmeta.tasks.columns import FEW, as_float, likely_cause, positions, refuse_dates, refuse_times

if TYPE_CHECKING:
    import pandas as pd

ASK_CLASSES, ASK_NUMBERS = "outcomes=bm.Labels() or --outcome classes", "outcomes=bm.Numbers() or --outcome number"
ASK_BINARY = "outcomes=bm.Labels(2) or --outcome binary"
MOST_CODES = 3
ENOUGH = 10  # rows from which on two or three values of a number are no chance


def classes_of(column: "pd.Series[Any]", asked: bool = False) -> tuple[str, ...] | None:
    """The classes of an outcome column, in order, or None for one of numbers.

    Args:
        column: the cells; missing ones are passed over.
        asked: whether the user says that it holds classes, whatever it looks like.

    Raises:
        DataError: times and dates, numbers with units or commas, cells of other kinds, a blank cell, fewer than two
            classes, or nearly as many as rows (which `astype("category")` says is meant).

    Example:
        >>> import pandas as pd
        >>> classes_of(pd.Series(["no", "yes", None, "no"], name="ill"))
        ('no', 'yes')
        >>> classes_of(pd.Series([10, 9, 10.0])), classes_of(pd.Series([10, 9, 10.0]), asked=True)
        (None, ('9', '10'))
        >>> classes_of(pd.Series(["mild", "none"], dtype=pd.CategoricalDtype(["none", "mild", "severe"])))
        ('none', 'mild', 'severe')
    """
    import pandas as pd
    from pandas.api.types import infer_dtype

    refuse_times(column)
    what = f"a class in column {column.name!r}"
    if isinstance(column.dtype, pd.CategoricalDtype):
        found = tuple(dict.fromkeys(texts(factorized(pd.Series(column.cat.categories), what)[1])))
        return _at_least_two(column, found)
    filled = column.dropna()
    if not asked and _is_of_numbers(filled):
        return None
    texts_alone = infer_dtype(filled, skipna=False) in ("string", "empty")
    for at, cell in enumerate(filled if filled.dtype == object and not texts_alone else ()):
        if not isinstance(cell, str | bool | int | float | np.generic):
            raise DataError(f"expected numbers or text in column {column.name!r}, got {cell!r} in {place(filled, at)}")
    codes, names = factorized(filled, what)
    found = tuple(texts(names))
    if not asked:
        refuse_dates(filled, codes, found, ASK_CLASSES)
        _refuse_dressed_numbers(filled, codes, found)
    if len(found) > FEW and 2 * len(found) > len(filled):
        raise DataError(
            f"expected classes in column {column.name!r}, got {len(found)} different cells in {len(filled)} rows: "
            f"group them, or give numbers ({ASK_NUMBERS}); if it must be so, use astype('category')"
        )
    return _at_least_two(column, in_order(found))


def in_order(names: Sequence[str]) -> tuple[str, ...]:
    """Names by the number that they write, where all do, and else by their text.

    Example:
        >>> in_order(["10", "9"]), in_order(["b", "a", "10"])
        (('9', '10'), ('10', 'a', 'b'))
    """
    values = [as_float(name) for name in names]
    if np.isfinite(values).all():
        return tuple(name for _, name in sorted(zip(values, names, strict=True)))
    return tuple(sorted(names))


def labels(column: "pd.Series[Any]", classes: Sequence[str]) -> np.ndarray:
    """The label of each cell, int64, -1 where it is missing.

    Raises:
        DataError: a cell is none of the classes; class, column and row are named.

    Example:
        >>> import pandas as pd
        >>> labels(pd.Series([1, 0.0, None, "1"]), ("0", "1")).tolist()
        [1, 0, -1, 1]
    """
    found = np.full(len(column), -1, dtype=np.int64)
    there = column.notna().to_numpy()
    some = ", ".join(map(repr, classes[:FEW])) + (f" and {len(classes) - FEW} more" if len(classes) > FEW else "")
    remedy = ": leave the row out, or fit again to a table that has this class"
    found[there] = positions(column[there], classes, f"one of the classes {some}", remedy)
    return found


def warn_of_codes(name: str, values: np.ndarray) -> None:
    """Warn where numbers that are to be predicted as such are probably the codes of classes.

    These are 0 and 1; in 10 rows or more also any two whole numbers, and three in a row from 0 or 1. (Of more values
    grades and counts are as likely, whose order and distance mean something.)

    Args:
        name: of the column.
        values: its numbers, NaN where missing.

    Example:
        >>> warn_of_codes("score", np.array([0.0, 2.5, 1.0]))  # numbers
    """
    few = np.unique(values[:1000])
    if (~np.isnan(few)).sum() > MOST_CODES:  # nearly always, and soon
        return
    values = values[~np.isnan(values)]
    found = np.unique(values)
    if (found != np.round(found)).any():
        return
    in_a_row = len(found) == 3 and found[0] in (0.0, 1.0) and found[-1] == found[0] + 2.0
    if found.tolist() == [0.0, 1.0]:
        warnings.warn(
            f"column {name!r} holds 0 and 1 alone, and is predicted as a number with a density: {ASK_BINARY} predicts "
            f"probabilities; {ASK_NUMBERS} says that it is a number without this warning",
            OutcomeWarning,
            stacklevel=5,  # whoever called from_frame
        )
        return
    likely = len(values) >= ENOUGH and (len(found) == 2 or in_a_row)
    if likely:
        shown = ", ".join(f"{value:.0f}" for value in found[:-1]) + f" and {found[-1]:.0f}"
        warnings.warn(
            f"column {name!r} holds {shown} alone, and is predicted as a number with a density: if these are "
            f"classes, say {ASK_CLASSES}; if they are numbers, {ASK_NUMBERS} says so without this warning",
            OutcomeWarning,
            stacklevel=5,  # whoever called from_frame
        )


def _is_of_numbers(filled: "pd.Series[Any]") -> bool:
    """Whether an outcome is one of numbers, some of which may turn out not to be: `numbers` says which."""
    from pandas.api.types import infer_dtype, is_bool_dtype, is_numeric_dtype

    kind = infer_dtype(filled, skipna=False)
    if is_bool_dtype(filled) or kind == "boolean":
        return len(filled) == 0
    if is_numeric_dtype(filled):
        return True
    distinct = filled.drop_duplicates() if kind == "string" else filled
    cells = [cell for cell in distinct if not isinstance(cell, bool)]
    return not any(isinstance(cell, str) for cell in cells) or any(not np.isnan(as_float(cell)) for cell in cells)


def _refuse_dressed_numbers(filled: "pd.Series[Any]", codes: np.ndarray, found: Sequence[str]) -> None:
    """Numbers with units, signs or separators, one and all, are no classes that anybody meant."""
    if all(likely_cause(name) for name in found):
        cell = filled.iloc[0]
        raise DataError(
            f"expected numbers or classes in column {filled.name!r}, got {cell!r} in {place(filled, 0)}"
            f"{likely_cause(found[codes[0]])}. If these are classes, say {ASK_CLASSES}"
        )


def _at_least_two(column: "pd.Series[Any]", found: tuple[str, ...]) -> tuple[str, ...]:
    if len(found) < 2:
        only = f"{found[0]!r} alone" if found else "none"
        raise DataError(
            f"expected at least 2 classes in column {column.name!r}, got {only}: if the table lacks one, say which "
            "there are with astype(pandas.CategoricalDtype([...]))"
        )
    return found
