"""The text of a CSV file as people have them, to columns of text with the number of each row's line.

Of the text, these are understood, and what is not the plain case is said:

    columns     separated by , ; tab or |, whichever the header has most of, or by what the caller says
    lines       of any line end; blank ones are left out, also those of separators alone
    comments    lines that begin with #. One that has the cells of a row, while rows begin with text, is refused: it may
                be a row whose name begins with #
    cells       may be quoted. Empty cells beyond the header are left out; one that holds something there is an error,
                and never makes the first column an index. Cells that are missing at the end of a line are empty
    header      the first line that is no comment. Blanks around its names are dropped; the same name twice is an error
"""

import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesmeta.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
ERRORS = {"#N/A", "#NA", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#NULL!"}  # in cells of spreadsheets
FOR_EXCEL = re.compile(r"\s*sep=(.)\s*")  # a first line that names the separator
WORDS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "space": " ", "blank": " ", "bar": "|", "pipe": "|"}


def parse(text: str, separator: str | None, path: Path) -> "tuple[pd.DataFrame, str, list[str]]":
    r"""Columns of text by line, the separator, and sentences on what was read otherwise than one may expect.

    Args:
        text: with line ends of one kind.
        separator: between cells: one character, or tab, comma, semicolon, space, bar; None finds out from the header.
        path: of the file, for messages.

    Raises:
        DataError: no header, or one with a name twice; a line with too many cells, or a quoted cell without an end.

    Example:
        >>> frame, separator, notes = parse("id\tx\n# none\n007\t0.50\n", None, Path("t.tsv"))
        >>> frame.loc[3].to_dict(), separator
        ({'id': '007', 'x': '0.50'}, '\t')
        >>> notes
        ['cells are separated by tabs', '1 comment line is left out']
    """
    sep = _separator(separator) if separator is not None else _sniffed(text)
    header, rows, notes = _parsed(text, sep, path)
    if separator is None and sep != ",":
        notes = [f"cells are separated by {SEPARATORS.get(sep, repr(sep))}", *notes]
    return _named(header, rows, path), sep, notes


def require_distinct(names: Sequence[str], path: Path) -> None:
    """Raise DataError where a header has a name twice: which column is meant, nobody could say."""
    twice, count = Counter(names).most_common(1)[0] if names else ("", 0)
    if count > 1:
        raise DataError(
            f"expected columns of different names in the header of {path}, got {twice!r} {count} times: rename them"
        )


def _separator(given: str) -> str:
    sep = WORDS.get(given.lower(), given)
    if len(sep) != 1 or sep in '"\n\r#' or sep.isalnum():
        raise DataError(f"expected one character, or tab, comma, semicolon, space or bar, between cells, got {given!r}")
    return sep


def _sniffed(text: str) -> str:
    """The separator that the header has most of; one that the first row has as many of goes before the others."""
    lines = [re.sub('"[^"]*"', "", line) for line in itertools.islice(_plain_lines(text), 2)]
    header, row = (*lines, "", "")[:2]
    if said := FOR_EXCEL.fullmatch(header):
        return said[1]
    ranked = [(0 < header.count(sep) == row.count(sep), header.count(sep)) for sep in ",;\t|"]
    return ",;\t|"[max(range(4), key=lambda i: (ranked[i], -i))]


def _plain_lines(text: str) -> Iterator[str]:
    """Lines that are neither blank nor comments."""
    position = 0
    while position < len(text):
        end = text.find("\n", position)
        end = len(text) if end < 0 else end
        line = text[position:end]
        if line.strip() and not line.lstrip().startswith("#"):
            yield line
        position = end + 1


@dataclass(frozen=True)
class _Rows:
    """The cells of all rows by columns, and the number of the line of each row."""

    columns: Sequence[Any]
    lines: Any


def _parsed(text: str, sep: str, path: Path) -> tuple[list[str], _Rows, list[str]]:
    """The header, the rows and what is to be said of them."""
    fast = _regular(text, sep)
    if fast is not None:
        return *fast, []
    reading = _Reading(text, sep, path)
    header, rows, lines = reading.read()
    notes = []
    for count, what in (
        (reading.comments, "comment line{s} {are} left out"),
        (reading.short, "line{s} {are} shorter than the header: what is missing is taken as empty"),
    ):
        if count:
            notes.append(f"{count} " + what.format(s="" if count == 1 else "s", are="is" if count == 1 else "are"))
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(header)
    return header, _Rows([np.array(column, dtype=object) for column in columns], lines), notes


def _regular(text: str, sep: str) -> tuple[list[str], _Rows] | None:
    """What pandas reads at once: no quotes, comments or blank lines, as many cells in every line; None otherwise."""
    import pandas as pd

    body = text.removesuffix("\n")
    odd_lines = ("\n#", "\n ", "\n\t", "\n\n")  # comments and blank lines, perhaps
    if not body or '"' in body or sep == " " or not sep.isascii() or any(odd in "\n" + body[:2] for odd in odd_lines):
        return None
    if body.startswith("sep=") or any(odd in body for odd in odd_lines):
        return None
    raw = np.frombuffer(body.encode(), dtype=np.uint8)
    ends = np.append(np.flatnonzero(raw == ord("\n")), len(raw))
    counts = np.diff(np.searchsorted(np.flatnonzero(raw == ord(sep)), ends), prepend=0)
    if (counts != counts[0]).any():
        return None
    header = [cell.strip() for cell in body.partition("\n")[0].split(sep)]
    if len(ends) == 1:
        return header, _Rows([np.array([], dtype=object)] * len(header), np.arange(0))
    frame = pd.read_csv(
        io.StringIO(body),
        sep=sep,
        header=None,
        skiprows=1,
        names=list(range(len(header))),
        index_col=False,
        dtype=str,
        na_filter=False,
        quoting=csv.QUOTE_NONE,
        skip_blank_lines=False,
    )
    return header, _Rows([frame[i].array for i in range(len(header))], np.arange(2, len(ends) + 1))


class _Reading:
    """One pass over the records of a text, which counts what it leaves out."""

    def __init__(self, text: str, sep: str, path: Path) -> None:
        self._lines, self._sep, self._path = text.split("\n"), sep, path
        self.comments = self.short = 0

    def read(self, hashed_are_rows: bool = False) -> tuple[list[str], list[list[str]], list[int]]:
        """Header, rows and their line numbers; `hashed_are_rows`: below the header nothing is a comment."""
        header: list[str] | None = None
        rows: list[list[str]] = []
        numbers: list[int] = []
        hashed: list[tuple[int, list[str]]] = []
        self.comments = self.short = 0
        for number, cells in self._records(hashed_are_rows):
            if self._is_hashed(self._lines[number - 1]) and (header is None or not hashed_are_rows):
                self.comments += 1
                hashed.append((number, cells))
                continue
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                if FOR_EXCEL.fullmatch(self._lines[number - 1]):
                    continue
                header = [cell.strip() for cell in cells]
                self._require_no_hashed_header(header, hashed)
                hashed = []
                continue
            rows.append(self._fitted(cells, header, number))
            numbers.append(number)
        if header is None:
            got = "comments alone" if self.comments else "an empty file"
            raise DataError(f"expected a table with a header in {self._path}, got {got}")
        like_rows = [(number, cells) for number, cells in hashed if len(_trimmed(cells)) == len(_trimmed(header)) > 1]
        if like_rows and not rows:
            return self.read(hashed_are_rows=True)
        if like_rows and not all(_is_number(cells[0]) for cells in rows):
            raise DataError(
                f"expected a comment or a row in line {like_rows[0][0]} of {self._path}, got one that begins with # "
                "and has the cells of a row: quote its first cell if it is a row, delete the line if it is not"
            )
        return header, rows, numbers

    def _records(self, hashed_are_rows: bool) -> Iterator[tuple[int, list[str]]]:
        """The number of its first line and the cells of each record; a quoted cell may hold line ends."""
        first, fresh, ended = 0, True, False

        def feed() -> Iterator[str]:
            nonlocal first, fresh, ended
            for number, line in enumerate(self._lines, 1):
                if fresh:
                    if not line.strip():
                        continue
                    first, fresh = number, False
                    if not hashed_are_rows and self._is_hashed(line):  # a quote in a comment opens nothing
                        line = line.replace('"', "'")
                yield line + "\n"
            ended = True

        reader = csv.reader(feed(), delimiter=self._sep, skipinitialspace=self._sep == " ")
        while True:
            fresh = True
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise DataError(f"expected a CSV table in {self._path}, got in line {first}: {error}") from error
            if ended:  # before the record was
                raise DataError(f"expected an end of the quoted cell in line {first} of {self._path}, got none")
            yield first, cells

    def _is_hashed(self, line: str) -> bool:
        """Whether a line begins with #, and not with an error of a spreadsheet such as #N/A in its first cell."""
        line = line.lstrip()
        return line.startswith("#") and line.partition(self._sep)[0].strip() not in ERRORS

    def _fitted(self, cells: list[str], header: list[str], number: int) -> list[str]:
        if len(cells) < len(header):
            self.short += len(cells) < len(_trimmed(header))
            return cells + [""] * (len(header) - len(cells))
        if len(_trimmed(cells)) > len(header):
            if len(header) == 1:
                raise DataError(
                    f"expected 1 cell in line {number} of {self._path}, as in its header {header[0]!r}, "
                    f"got {len(cells)}: if that is no header, begin its line with #"
                )
            raise DataError(
                f"expected {len(header)} cells in line {number} of {self._path}, as in its header, got {len(cells)}: "
                "quote a cell that holds the separator (decimal commas need another one), and name every column"
            )
        return cells[: len(header)]

    def _require_no_hashed_header(self, header: list[str], hashed: list[tuple[int, list[str]]]) -> None:
        if hashed and len(hashed[-1][1]) == len(header) > 1 and any(map(_is_number, header)):
            raise DataError(
                f"expected a header in {self._path}, got numbers in the first line that is no comment: "
                f"if line {hashed[-1][0]} is the header, remove its #"
            )


def _trimmed(cells: list[str]) -> list[str]:
    """Without empty cells at the end."""
    width = len(cells)
    while width and not cells[width - 1].strip():
        width -= 1
    return cells[:width]


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "."))
    except ValueError:
        return False
    return True


def _named(header: list[str], rows: _Rows, path: Path) -> "pd.DataFrame":
    """Columns by their names, without those that have neither a name nor a cell."""
    import pandas as pd

    frame = pd.DataFrame(dict(enumerate(rows.columns)), index=pd.Index(rows.lines, name="line", dtype=np.int64))
    blank = np.ones(len(frame), dtype=bool)
    for i in frame:
        blank &= (frame[i] == "").to_numpy(dtype=bool)
    frame = frame[~blank] if blank.any() else frame
    kept = [i for i, name in enumerate(header) if name or bool((frame[i].str.strip() != "").any())]
    require_distinct([header[i] for i in kept], path)
    return frame[kept].set_axis([header[i] for i in kept], axis=1)
