"""Tables of polars, of pyarrow and of others that narwhals knows, read as pandas' and given back as what they were."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from bayesmeta.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

Frame = TypeVar("Frame")


def is_pandas(frame: object) -> bool:
    """Whether a table is one of pandas, which is passed on as it is."""
    import pandas as pd

    return isinstance(frame, pd.DataFrame)


def as_pandas(frame: Any) -> "pd.DataFrame":
    """A table of any kind as one of pandas, whose rows are counted from 0; one of pandas is itself.

    Args:
        frame: of pandas, polars, pyarrow, or another kind that narwhals knows, in memory.

    Raises:
        DataError: it is no table, or a lazy one; narwhals is not installed.

    Example:
        >>> import pyarrow as pa
        >>> as_pandas(pa.table({"cell": ["a", "b"], "volt": [4.1, None]}))["volt"].isna().tolist()
        [False, True]
    """
    if is_pandas(frame):
        return frame
    try:
        return _known(frame).to_pandas()
    except ModuleNotFoundError as error:  # what its own kind needs for that
        raise DataError(
            f"expected {error.name} to read a {_kind(frame)}, got none: pip install {error.name}"
        ) from error


def with_columns(frame: Frame, columns: Mapping[str, Any]) -> Frame:
    """A table of any kind with more columns: those that it has stay as they are.

    Args:
        frame: as `as_pandas` takes it.
        columns: arrays of numpy by name, as long as the table.

    Raises:
        DataError: as for `as_pandas`.

    Example:
        >>> import numpy as np
        >>> import polars as pl
        >>> with_columns(pl.DataFrame({"cell": ["a", "b"]}), {"mean": np.array([0.5, 1.5])}).columns
        ['cell', 'mean']
    """
    if is_pandas(frame):
        return frame.assign(**columns)  # type: ignore[attr-defined]
    import narwhals as nw

    known = _known(frame)
    series = [
        nw.new_series(name, values.tolist() if values.dtype == object else values, backend=known.implementation)
        for name, values in columns.items()
    ]
    return known.with_columns(*series).to_native()


def _known(frame: Any) -> Any:
    """The table as one of narwhals."""
    try:
        import narwhals as nw
    except ImportError as error:
        raise DataError(
            f"expected a pandas DataFrame, or narwhals to read others, got {_kind(frame)}: pip install narwhals"
        ) from error
    try:
        return nw.from_native(frame, eager_only=True)
    except TypeError as error:
        hint = ": collect it first" if hasattr(frame, "collect") else ""
        raise DataError(
            f"expected a pandas DataFrame, got {_kind(frame)}{hint} (or one of polars or pyarrow)"
        ) from error


def _kind(frame: object) -> str:
    package = type(frame).__module__.split(".")[0]
    return type(frame).__name__ if package == "builtins" else f"{package}.{type(frame).__name__}"
