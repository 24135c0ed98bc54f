"""Which column of a parquet table is what: some of its rows stand for all, and every level of a category is seen."""

from collections.abc import Sequence
from typing import Any

from bayesmeta.outcomes import Labels, Outcomes
from bayesmeta.tasks.parquet_source import ParquetSource
from bayesmeta.tasks.table import Schema

FIRST = 100_000  # rows from the beginning of the table


def schema_of(
    source: ParquetSource,
    task: str,
    x: Sequence[str],
    y: str | Sequence[str],
    covariates: Sequence[str] = (),
    outcomes: Outcomes | None = None,
    yerr: str | Sequence[str] = (),
) -> Schema:
    """As `Schema.of` of all rows, of which the first hundred thousand are held, and the first row of every level.

    Args:
        source: the table.
        task: the column with the task's name.
        x: input columns.
        y: an outcome column, or several of numbers.
        covariates: input columns that are constant within a task.
        outcomes: what the outcome is, where it does not look like it.
        yerr: columns of known standard deviations.

    Raises:
        DataError: as for `Schema.of`.

    Example:
        >>> import tempfile
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"who": range(4), "arm": ["a", "b", "b", "c"], "y": [0.5, 1.5, 0.1, 2.2]})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     frame.to_parquet(f"{folder}/t.parquet")
        ...     schema_of(ParquetSource.of(f"{folder}/t.parquet"), "who", ["arm"], "y").levels
        {'arm': ('a', 'b', 'c')}
    """
    import pyarrow as pa

    outcome = [y] if isinstance(y, str) else list(y)
    columns = list(dict.fromkeys([task, *x, *covariates, *outcome, *([yerr] if isinstance(yerr, str) else yerr)]))
    source.require(columns)
    named = [name for name in (*x, *covariates) if not _is_number(source.schema.field(name).type)]
    named += [
        name for name in outcome if isinstance(outcomes, Labels) or not _is_number(source.schema.field(name).type)
    ]
    held = [table for _, table in source.batches(0, min(FIRST, source.rows), columns)]
    seen: dict[str, set[Any]] = {name: set() for name in named}
    for _, table in source.batches(0, source.rows, columns) if named else ():
        rows = sorted({row for name in named for row in _new(table[name], seen[name])})
        if rows:
            held.append(table.take(rows))
    frame = pa.concat_tables(held).to_pandas() if held else source.schema.empty_table().to_pandas()
    return Schema.of(frame.reset_index(drop=True), task, x, y, covariates, outcomes, yerr=yerr)


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def _new(column: Any, seen: set[Any]) -> list[int]:
    """The rows in which cells stand that were not seen before, which they are now."""
    import pyarrow.compute as pc

    cells = column.unique().to_pylist()
    fresh = [cell for cell in cells if cell is not None and cell not in seen]
    seen.update(fresh)
    return [pc.index(column, cell).as_py() for cell in fresh]
