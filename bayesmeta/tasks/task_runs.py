"""Where the tasks of a long table begin, whose rows are read a few at a time: a task is a run of rows with one name.

Rows of a task stand one after another, and no task comes back after another one has begun. That is free where the names
rise or fall from task to task, and else costs 8 bytes of disk a task (`bayesmeta.tasks.distinct`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bayesmeta.errors import DataError
from bayesmeta.task_names import factorized
from bayesmeta.tasks.distinct import DistinctHashes, hashes_of
from bayesmeta.tasks.parquet_source import BATCH, ParquetSource


@dataclass(frozen=True, eq=False)
class Runs:
    """Some rows of a table, and the tasks that begin in them.

    Attributes:
        first: the number of the first row.
        table: the rows.
        starts: the numbers of the rows in which a task begins, rising.
        names: the columns of the names of these tasks, arrays of pyarrow.
    """

    first: int
    table: Any
    starts: np.ndarray
    names: list[Any]


def runs(source: ParquetSource, names: Sequence[str], more: Sequence[str] = ()) -> Iterator[Runs]:
    """All rows of a source in order, some at a time, and the tasks that begin in them.

    Args:
        source: the table.
        names: the columns with the names of tasks, of nested groupings the outermost first.
        more: columns that are read, too.

    Raises:
        DataError: a row without a name, or names of a kind that cannot be compared; column and row are named.
    """
    last: list[Any] | None = None
    for first, table in source.batches(0, source.rows, list(dict.fromkeys([*names, *more]))):
        starts, values = starts_of(table, names, lambda row, first=first: source.place(first + row))  # type: ignore[misc]
        if last is not None and all(old.equals(new[0]) for old, new in zip(last, values, strict=True)):
            starts, values = starts[1:], [each[1:] for each in values]
        if len(starts):
            last = [each[-1] for each in values]
        yield Runs(first, table, first + starts, values)


def starts_of(table: Any, names: Sequence[str], place: Callable[[int], str]) -> tuple[np.ndarray, list[Any]]:
    """The rows of a table in which another task begins, the first row among them, and the names of these tasks.

    Args:
        table: of pyarrow.
        names: the columns with the names.
        place: where a row is, for messages.

    Raises:
        DataError: as for `runs`.

    Example:
        >>> import pyarrow as pa
        >>> starts, (names,) = starts_of(pa.table({"cell": ["a", "a", "b"]}), ["cell"], str)
        >>> starts.tolist(), names.to_pylist()
        ([0, 2], ['a', 'b'])
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    changes = np.zeros(max(table.num_rows - 1, 0), dtype=bool)
    columns = []
    for name in names:
        column = table[name]
        column = (column.unify_dictionaries() if pa.types.is_dictionary(column.type) else column).combine_chunks()
        column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
        if column.null_count:
            row = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
            raise DataError(f"expected a task in column {name!r} of every row, got none in {place(row)}")
        codes = column.indices if isinstance(column, pa.DictionaryArray) else column
        try:
            changes |= pc.not_equal(codes[1:], codes[:-1]).to_numpy(zero_copy_only=False)
        except pa.ArrowNotImplementedError as error:
            raise DataError(f"expected names of tasks in column {name!r}, got {column.type}") from error
        columns.append(column)
    starts = np.append(0, np.flatnonzero(changes) + 1)[: table.num_rows]
    values = [column.take(pa.array(starts)) for column in columns]
    values = [each.dictionary_decode() if isinstance(each, pa.DictionaryArray) else each for each in values]
    for name, each in zip(names, values, strict=True):
        _require_names(name, each, starts, place)
    return starts, values


def _require_names(name: str, values: Any, starts: np.ndarray, place: Callable[[int], str]) -> None:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_floating(values.type):  # NaN, and numbers so large that neighbours are one
        index = [place(row) for row in starts.tolist()] if len(starts) < BATCH else None
        factorized(pd.Series(values.to_numpy(zero_copy_only=False), index=index), f"a task in column {name!r}")
    elif pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        blank = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(values)), 0).to_numpy(zero_copy_only=False)
        if blank.any():
            at = int(np.argmax(blank))
            raise DataError(
                f"expected a task in column {name!r} of every row, got {values[at].as_py()!r} in "
                f"{place(int(starts[at]))}"
            )


@dataclass(eq=False)
class InOrder:
    """Whether names come in order, rising or falling all along: then each stands in one place, and nothing is kept.

    Example:
        >>> import pyarrow as pa
        >>> order = InOrder()
        >>> [order.goes_on([pa.array(names)]) for names in ([1, 2], [5, 9], [9, 4])]
        [True, True, False]
    """

    _last: Any = None
    _rising: bool | None = field(default=None)

    def goes_on(self, names: Sequence[Any]) -> bool:
        """Whether the order goes on with these names, no two neighbours of which are the same."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if len(names) > 1:  # the inner names begin anew in every outer one
            return False
        values = names[0]
        if not len(values):
            return True
        joined = values if self._last is None else pa.concat_arrays([self._last, values])
        self._last = values[-1:]
        rising = pc.less(joined[:-1], joined[1:])
        if self._rising is None and len(rising):
            self._rising = rising[0].as_py()
        return not len(rising) or bool((rising.to_numpy(zero_copy_only=False) == self._rising).all())


def each_once(source: ParquetSource, names: Sequence[str], more: Sequence[str] = ()) -> Iterator[Runs]:
    """As `runs`, and no task comes back: where one does, that is said when all rows have been read.

    Args:
        source: the table.
        names: the columns with the names of tasks.
        more: columns that are read, too.

    Raises:
        DataError: a task comes back after another one has begun. What to sort the table with is in the message.
    """
    order: InOrder | None = InOrder()
    with DistinctHashes() as hashes:
        for each in runs(source, names, more):
            if order is not None and not order.goes_on(each.names):
                order = None
                for before in runs(source, names):  # once more, up to here
                    if before.first >= each.first:
                        break
                    hashes.add(hashes_of(_arrays(before.names)))
            if order is None:
                hashes.add(hashes_of(_arrays(each.names)))
            yield each
        repeated = hashes.repeated()
    if repeated:
        _refuse_repeated(source, names, repeated)


def _arrays(names: Sequence[Any]) -> list[np.ndarray]:
    import pyarrow as pa

    found = []
    for each in names:
        is_number = pa.types.is_integer(each.type) or pa.types.is_floating(each.type)
        found.append((each if is_number else each.cast(pa.string())).to_numpy(zero_copy_only=False))
    return found


def _refuse_repeated(source: ParquetSource, names: Sequence[str], repeated: Sequence[int]) -> None:
    """Raise of the first task that comes back; do nothing where two names had one hash."""
    wanted = np.array(sorted(repeated), dtype=np.uint64)
    seen: dict[tuple[Any, ...], int] = {}
    for each in runs(source, names):
        for place in np.flatnonzero(np.isin(hashes_of(_arrays(each.names)), wanted)).tolist():
            name, row = tuple(part[place].as_py() for part in each.names), int(each.starts[place])
            if name in seen:
                said = name[0] if len(name) == 1 else name
                raise DataError(
                    f"expected the rows of a task one after another, got task {said!r} in {source.place(seen[name])} "
                    f"and again in {source.place(row)}: sort the table first, with DuckDB: {sorting(source, names)}"
                )
            seen[name] = row


def sorting(source: ParquetSource, names: Sequence[str]) -> str:
    """The line with which DuckDB, which needs no more memory than it is given, sorts a table by task.

    Args:
        source: the table.
        names: the columns with the names of tasks.
    """
    folders = {path.parent for path in source.paths}
    paths = source.paths if len(source.paths) == 1 else [folder / "*.parquet" for folder in sorted(folders)]
    files = ", ".join("'" + str(path).replace("'", "''") + "'" for path in paths)
    files = files if len(paths) == 1 else f"read_parquet([{files}])"
    by = ", ".join(name if name.isidentifier() else '"' + name.replace('"', '""') + '"' for name in names)
    return f"COPY (SELECT * FROM {files} ORDER BY {by}) TO 'sorted.parquet'"


@dataclass(frozen=True)
class Piece:
    """A range of rows that begins and ends with a task: whoever works on it works on whole tasks, and on all of its.

    Attributes:
        start: its first row.
        stop: the row after its last.
        tasks: how many it has.
    """

    start: int
    stop: int
    tasks: int


def pieces(source: ParquetSource, names: Sequence[str], rows: int, tell: Callable[[int], object]) -> tuple[Piece, ...]:
    """A table cut into ranges of about so many rows, at the beginning of tasks and, if possible, of row groups.

    The columns of the names are read once, to the end, so that a task that comes back is known before any work is done.

    Args:
        source: the table.
        names: the columns with the names of tasks.
        rows: of a piece, about: a row group of up to twice as many is not divided, and a task never is.
        tell: called with the number of rows that were just read.

    Raises:
        DataError: as for `each_once`.

    Example:
        >>> import tempfile
        >>> import pandas as pd
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pd.DataFrame({"cell": [1, 1, 2, 2, 2, 3]}).to_parquet(f"{folder}/a.parquet", row_group_size=3)
        ...     pieces(ParquetSource.of(folder), ["cell"], 3, lambda rows: None)
        (Piece(start=0, stop=5, tasks=2), Piece(start=5, stop=6, tasks=1))
    """
    targets, begun = [0], 0
    for start, stop in zip(source.groups[:, 2].tolist(), source.ends.tolist(), strict=True):
        if start > begun and stop - begun > rows:
            begun = start
            targets.append(begun)
        while stop - begun > 2 * rows:
            begun += rows
            targets.append(begun)
    wanted, total = np.array(targets), 0
    edges: list[int] = []
    tasks: list[int] = []
    for each in each_once(source, names):
        while len(edges) < len(wanted) and len(each.starts) and each.starts[-1] >= wanted[len(edges)]:
            place = int(np.searchsorted(each.starts, wanted[len(edges)]))
            edges.append(int(each.starts[place]))
            tasks.append(total + place)
        total += len(each.starts)
        tell(each.table.num_rows)
    edges, tasks = [*edges, source.rows], [*tasks, total]
    found = zip(edges[:-1], edges[1:], tasks[:-1], tasks[1:], strict=True)
    return tuple(Piece(start, stop, last - first) for start, stop, first, last in found if start < stop)


def whole_tasks(
    source: ParquetSource, names: Sequence[str], piece: Piece, columns: Sequence[str], rows: int
) -> Iterator[tuple[int, Any, np.ndarray]]:
    """The rows of a piece, some tasks at a time, none of which is cut.

    Args:
        source: the table.
        names: the columns with the names of tasks.
        piece: which rows.
        columns: which are read; those of the names are among them.
        rows: at a time, about; a task with more is read whole.

    Yields:
        The number of the first row, the rows, and the places in them at which tasks begin, followed by their number.
    """
    import pyarrow as pa

    held, first, enough = [], piece.start, rows
    for at, table in source.batches(piece.start, piece.stop, columns, min(rows, BATCH)):
        held.append(table)
        seen = at + table.num_rows
        if seen - first < enough and seen < piece.stop:
            continue
        joined = pa.concat_tables(held)
        starts = starts_of(joined, names, lambda row, first=first: source.place(first + row))[0]  # type: ignore[misc]
        end = joined.num_rows if seen == piece.stop else int(starts[-1])  # the last task may go on
        if end:
            done = starts[starts < end]
            yield first, joined[:end], np.append(done, end)
        held, first = [joined[end:]], first + end
        enough = max(rows, 2 * (seen - first))  # of a task that does not end the rows are looked at again seldom
