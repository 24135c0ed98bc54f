"""Parquet files as one long table that is read a few rows at a time: its rows are numbered through all files."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bayesmeta.errors import DataError

BATCH = 2**17  # rows that are decoded at once
BUFFER = 2**20  # bytes read at once from a column chunk: a chunk is never held whole, however large row groups are


@dataclass(frozen=True)
class ParquetSource:
    """Rows of parquet files, in the order of the files, of which only the footers are held.

    `ParquetSource.of` opens them. What is read of them are tables of pyarrow.

    Attributes:
        paths: the files.
        schema: the columns of all files and their types, which pyarrow calls a schema.
        groups: of every row group that has rows its file, its number in the file, and its first row: `G 3`.
        rows: how many there are.
        identities: of every file what tells it from another: its name, its bytes, and a hash of its footer, which says
            where every column chunk begins, and what its least and greatest value are.

    Example:
        >>> import tempfile
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"cell": [1, 1, 2, 2], "volt": [4.1, 4.0, 4.2, None]})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     frame.to_parquet(f"{folder}/a.parquet", row_group_size=2)
        ...     frame.tail(1).to_parquet(f"{folder}/b.parquet")
        ...     source = ParquetSource.of(folder)
        ...     [table["volt"].to_pylist() for _, table in source.batches(1, 5, ["volt"])]
        [[4.0, 4.2, None], [None]]
        >>> source
        ParquetSource(5 rows in 3 row groups of 2 files)
    """

    paths: tuple[Path, ...]
    schema: Any
    groups: np.ndarray
    rows: int
    identities: tuple[dict[str, Any], ...]

    @classmethod
    def of(cls, source: "ParquetSource | str | Path | Sequence[str | Path]") -> "ParquetSource":
        """Open parquet files.

        Args:
            source: a file, a folder (all files in it whose names end in .parquet or .pq, and in its folders, in the
                order of their names; names that begin with a point or an underscore are passed over), or several.

        Raises:
            DataError: there is no such file, it is not parquet, files have other columns or types that do not go
                together, or pyarrow is not installed.
        """
        if isinstance(source, ParquetSource):
            return source
        pq = pyarrow_parquet()
        paths = _files(source)
        schemas, groups, identities, rows = [], [], [], 0
        for place, path in enumerate(paths):
            try:
                with pq.ParquetFile(path) as file:
                    metadata = file.metadata
                    schemas.append(file.schema_arrow)
                    for number in range(metadata.num_row_groups):
                        count = metadata.row_group(number).num_rows
                        if count:
                            groups.append((place, number, rows))
                            rows += count
                identities.append({"name": path.name, "bytes": path.stat().st_size, "footer": _footer(path)})
            except (OSError, ValueError) as error:  # pyarrow's own errors are both
                raise DataError(f"expected a parquet table in {path}, got: {' '.join(str(error).split())}") from error
        schema = _together(schemas, paths)
        return cls(tuple(paths), schema, np.array(groups, dtype=np.int64).reshape(-1, 3), rows, tuple(identities))

    def __repr__(self) -> str:
        """How much there is."""
        return f"ParquetSource({self.rows:,} rows in {len(self.groups):,} row groups of {len(self.paths):,} files)"

    def __str__(self) -> str:
        """The files, as messages name them."""
        return str(self.paths[0]) if len(self.paths) == 1 else f"{self.paths[0]} and {len(self.paths) - 1} more"

    @property
    def ends(self) -> np.ndarray:
        """The row after the last of each row group, `G`."""
        return np.append(self.groups[1:, 2], self.rows)[: len(self.groups)]

    def require(self, columns: Sequence[str]) -> None:
        """Raise DataError where a column is not there, or is there twice."""
        for name in columns:
            count = self.schema.names.count(name)
            if count != 1:
                got = f"the columns {self.schema.names}" if not count else f"{count} of that name"
                raise DataError(f"expected a column {name!r} in {self}, got {got}")

    def batches(self, start: int, stop: int, columns: Sequence[str], size: int = BATCH) -> Iterator[tuple[int, Any]]:
        """Rows in order, some at a time.

        Args:
            start: the first row.
            stop: the row after the last.
            columns: which are read.
            size: rows at a time, at most.

        Yields:
            The number of the first row, and a table, whose columns have the types of `schema`.

        Raises:
            DataError: a column is not there, or a file cannot be read any more.
        """
        import pyarrow as pa

        self.require(columns)
        wanted = pa.schema([self.schema.field(name) for name in columns])
        chosen = self.groups[(self.ends > start) & (self.groups[:, 2] < stop)]
        for place in np.unique(chosen[:, 0]).tolist():
            of_file = chosen[chosen[:, 0] == place]
            row = int(of_file[0, 2])
            path = self.paths[place]
            try:
                with pyarrow_parquet().ParquetFile(path, buffer_size=BUFFER) as file:
                    numbers = of_file[:, 1].tolist()
                    for batch in file.iter_batches(size, numbers, list(columns), use_threads=False):
                        first, row = row, row + batch.num_rows
                        low, high = max(start - first, 0), min(stop - first, batch.num_rows)
                        if low < high:
                            table = pa.Table.from_batches([batch.slice(low, high - low)]).select(list(columns))
                            table = table.replace_schema_metadata(None)  # an index of pandas is a column like others
                            yield first + low, table if table.schema.equals(wanted) else table.cast(wanted)
                        if row >= stop:
                            break
            except (OSError, ValueError) as error:
                raise DataError(f"expected to read {path}, got: {' '.join(str(error).split())}") from error

    def place(self, row: int) -> str:
        """Where a row is, for messages: `row 7`, counted from 0, and of which file where there are several."""
        if len(self.paths) == 1:
            return f"row {row}"
        group = self.groups[int(np.searchsorted(self.groups[:, 2], row, side="right")) - 1]
        first = self.groups[self.groups[:, 0] == group[0]][0, 2]
        return f"row {row - first} of {self.paths[group[0]].name}"


def pyarrow_parquet() -> Any:
    """pyarrow's module for parquet. Raises DataError where it is not installed."""
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise DataError("expected pyarrow for parquet files, got none: pip install pyarrow") from error
    return pq


def is_parquet(path: Path) -> bool:
    """Whether a file begins as parquet does, or a folder holds parquet files.

    Example:
        >>> is_parquet(Path("nowhere"))
        False
    """
    if path.is_dir():
        return any(_parquet_names(path))
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PAR1"
    except OSError:
        return False


def _files(source: str | Path | Sequence[str | Path]) -> list[Path]:
    given = [source] if isinstance(source, str | Path) else list(source)
    found: list[Path] = []
    for path in map(Path, given):
        if path.is_dir():
            inside = sorted(_parquet_names(path))
            if not inside:
                raise DataError(f"expected parquet files in the folder {path}, got none")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise DataError(f"expected a parquet file or a folder of them, got {path}, which is not there")
    if not found:
        raise DataError("expected at least one parquet file, got none")
    if len({path.resolve() for path in found}) < len(found):
        raise DataError(f"expected every parquet file once, got one twice among {[str(path) for path in found]}")
    return found


def _parquet_names(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        hidden = any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
        if path.suffix.lower() in (".parquet", ".pq") and not hidden and path.is_file():
            yield path


def _footer(path: Path) -> str:
    """A hash of the footer of a parquet file, whose length stands before the last four bytes."""
    with path.open("rb") as file:
        file.seek(-8, 2)
        length = int.from_bytes(file.read(4), "little")
        file.seek(-8 - length, 2)
        return hashlib.sha256(file.read(length)).hexdigest()


def _together(schemas: Sequence[Any], paths: Sequence[Path]) -> Any:
    """The columns of all files, in the widest of their types."""
    import pyarrow as pa

    first = schemas[0].remove_metadata()
    for schema, path in zip(schemas[1:], paths[1:], strict=True):
        other = schema.remove_metadata()
        if other.equals(first):
            continue
        if set(other.names) != set(first.names):
            differ = sorted(set(other.names) ^ set(first.names))
            raise DataError(f"expected the same columns in {paths[0]} and {path}, got {differ} in one of them alone")
        try:
            plain = [pa.schema([_decoded(field) for field in each]) for each in (first, other)]
            first = pa.unify_schemas(plain, promote_options="permissive")
        except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
            raise DataError(
                f"expected columns of one type in {paths[0]} and {path}, got: {' '.join(str(error).split())}"
            ) from error
    return first


def _decoded(field: Any) -> Any:
    """A column of dictionary codes as one of what they stand for: dictionaries differ from file to file."""
    import pyarrow as pa

    return field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
