"""Table files, with every cell of CSV as the text that was written: what cells mean is `bayesmeta.table_cells`' matter.

CSV (`bayesmeta.csv_text`) is text in UTF-8, with or without a mark, or in UTF-16 with one; gzip, bzip2 and xz are
unpacked, parquet is read where pyarrow is installed. All of these are known by their first bytes, not by their name.
"""

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bayesmeta.csv_text import parse, require_distinct
from bayesmeta.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

PACKED: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": gzip.decompress,
    b"BZh": bz2.decompress,
    b"\xfd7zXZ\x00": lzma.decompress,
}
OTHERS = {b"PK\x03\x04": "a zip or Excel file", b"\xd0\xcf\x11\xe0": "an Excel file"}


@dataclass(frozen=True)
class Table:
    """A table and how its file was written.

    Attributes:
        frame: all cells as text, "" where empty, by the numbers of their lines (an index called `line`); the columns of
            parquet have their own types and an index that counts from 0.
        name: of the file, for messages.
        separator: between the cells of a line; None for parquet.
        notes: what was read otherwise than a reader may expect, as sentences.
    """

    frame: "pd.DataFrame"
    name: str
    separator: str | None
    notes: tuple[str, ...]

    @property
    def is_text(self) -> bool:
        """Whether cells are text as it was written, rather than typed columns."""
        return self.separator is not None


def read_table(path: Path, separator: str | None = None, header_only: bool = False) -> Table:
    r"""Read a table file as text (parquet: with its types).

    Args:
        path: of the file.
        separator: between cells: one character, or tab, comma, semicolon, space, bar; None finds out from the header.
        header_only: whether a table without rows is legal.

    Raises:
        DataError: the file cannot be read, is not a table, has a header with a name twice or a line with too many
            cells, or has no rows; lines are named.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "t.csv")
        ...     _ = path.write_text("# a logger\nid;x\n007;0,5\n")
        ...     table = read_table(path)
        >>> table.frame.loc[3].to_dict(), table.notes
        ({'id': '007', 'x': '0,5'}, ('cells are separated by semicolons', '1 comment line is left out'))
    """
    content = _content(path)
    if content[:4] == b"PAR1":
        return _of_parquet(content, path, header_only)
    frame, sep, notes = parse(_text(content, path), separator, path)
    if len(frame) == 0 and not header_only:
        raise DataError(f"expected at least one row below the header of {path}, got none")
    return Table(frame, path.name, sep, tuple(notes))


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        for start, unpack in PACKED.items():
            if content.startswith(start):
                content = unpack(content)
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"expected a table in {path}, got: {error}") from error
    for start, kind in OTHERS.items():
        if content.startswith(start):
            raise DataError(f"expected a CSV or parquet table in {path}, got {kind}: save it as CSV")
    return content


def _text(content: bytes, path: Path) -> str:
    """The file as text, with line ends of one kind."""
    try:
        is_wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = content.decode("utf-16" if is_wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        got = f"the byte 0x{content[error.start]:02x} in line {line}"
        raise DataError(f"expected text in UTF-8 in {path}, got {got}: save the table as UTF-8") from error
    if "\0" in text:
        raise DataError(f"expected a CSV table in {path}, got binary data")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _of_parquet(content: bytes, path: Path, header_only: bool) -> Table:
    import pandas as pd

    try:
        frame = pd.read_parquet(io.BytesIO(content))
    except ImportError as error:
        raise DataError(
            f"expected pyarrow for the parquet file {path}, got none: pip install pyarrow, or save the table as CSV"
        ) from error
    except (OSError, ValueError) as error:  # pyarrow's own errors are both
        raise DataError(f"expected a parquet table in {path}, got: {' '.join(str(error).split())}") from error
    if frame.index.name is not None or isinstance(frame.index, pd.MultiIndex):
        frame = frame.reset_index()  # an index that was saved as one is a column like the others
    frame = frame.set_axis([str(name) for name in frame.columns], axis=1)
    require_distinct(list(frame.columns), path)
    if len(frame) == 0 and not header_only:
        raise DataError(f"expected at least one row in {path}, got none")
    return Table(frame.reset_index(drop=True), path.name, None, ())
