"""Table files as people have them: every form gives the same cells, and what is no table is said in one line."""

import bz2
import gzip
import lzma
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bayesmeta.errors import DataError
from bayesmeta.table_cells import decimal_commas, read_cells
from bayesmeta.table_files import Table, read_table

CELLS = pd.DataFrame({
    "id": ["007", "7", "1.10", "1.1", "NA", "None", "1e5", " a ", "é"],
    "x": ["0.5", "1", "-2.25", "1e-3", "12.75", "0", "+4", ".5", "6."],
    "note": ["", "true", "2020-01-31", "3 mg", "nan", "x", "", "y", "z"],
})  # fmt: skip
PLAIN = CELLS.to_csv(index=False)
LINES = PLAIN.splitlines()


def read(tmp_path: Path, content: str | bytes, separator: str | None = None, header_only: bool = False) -> Table:
    path = tmp_path / "t.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(path, separator, header_only)


def lines(*, after: str = "", header: str = "") -> str:
    return "\n".join([LINES[0] + header, *(line + after for line in LINES[1:])])


def quoted(sep: str) -> str:
    return CELLS.to_csv(index=False, sep=sep, quoting=1)


# name: content, line of the first row, words of the notes
FORMS: dict[str, tuple[str | bytes, int, list[str]]] = {
    "plain": (PLAIN, 2, []),
    "no line end": (PLAIN.rstrip("\n"), 2, []),
    "windows": (PLAIN.replace("\n", "\r\n"), 2, []),
    "old mac": (PLAIN.replace("\n", "\r"), 2, []),
    "utf-8 mark": (b"\xef\xbb\xbf" + PLAIN.encode(), 2, []),
    "utf-16": (PLAIN.encode("utf-16"), 2, []),
    "utf-16 big": (b"\xfe\xff" + PLAIN.encode("utf-16-be"), 2, []),
    "quoted": (quoted(","), 2, []),
    "semicolons": (CELLS.to_csv(index=False, sep=";"), 2, ["semicolons"]),
    "tabs": (CELLS.to_csv(index=False, sep="\t"), 2, ["tabs"]),
    "bars": (CELLS.to_csv(index=False, sep="|"), 2, ["bars"]),
    "quoted tabs": (quoted("\t"), 2, ["tabs"]),
    "a line for Excel": ("sep=;\n" + CELLS.to_csv(index=False, sep=";"), 3, ["semicolons"]),
    "trailing cell": (lines(after=","), 2, []),
    "trailing cells": (lines(after=",,,"), 2, []),
    "trailing cells and header": (lines(after=",,", header=",,"), 2, []),
    "trailing header": (lines(after="", header=","), 2, []),
    "spacer column": ("\n".join(line.replace(",", ",,", 1) for line in LINES), 2, []),
    "blank lines": ("\n\n" + PLAIN.replace("\n", "\n  \n"), 5, []),
    "rows of separators": ("\n".join([LINES[0], ",,", *LINES[1:], ",,"]), 3, []),
    "comments": ("# made by\n#\n" + "\n".join([LINES[0], "# a, b", *LINES[1:], '# "end']), 5, ["4 comment lines"]),
    "indented comment": ("  # made by\n" + PLAIN, 3, ["1 comment line is"]),
    "blanks in the header": (PLAIN.replace("id,x,note", " id , x,note "), 2, []),
    "gzip": (gzip.compress(PLAIN.encode()), 2, []),
    "bzip2": (bz2.compress(PLAIN.encode()), 2, []),
    "xz": (lzma.compress(PLAIN.encode()), 2, []),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_cells(form: str, tmp_path: Path) -> None:
    content, first, words = FORMS[form]
    table = read(tmp_path, content)
    assert table.frame.astype(object).values.tolist() == CELLS.values.tolist()
    assert table.frame.columns.tolist() == ["id", "x", "note"]
    assert (table.frame.index.name, table.frame.index[0]) == ("line", first)
    assert len(table.notes) == len(words)
    assert all(word in note for word, note in zip(words, table.notes, strict=True))


@pytest.mark.parametrize(
    ("separator", "word"),
    [(";", ";"), (";", "semicolon"), ("\t", "tab"), ("\t", "\\t"), (" ", "space"), ("|", "|"), ("^", "^"), ("~", "~")],
)
def test_separators_may_be_said(separator: str, word: str, tmp_path: Path) -> None:
    table = read(tmp_path, CELLS.to_csv(index=False, sep=separator), word)
    assert table.frame.astype(object).values.tolist() == CELLS.values.tolist()
    assert (table.separator, table.notes) == (separator, ())


def test_columns_in_line(tmp_path: Path) -> None:
    table = read(tmp_path, "id   x  y\n  a   1  2\n b  3     4\n", "space")
    assert table.frame.values.tolist() == [["a", "1", "2"], ["b", "3", "4"]]


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    content = '# one\n\nid,x\na,"1\n2"\n\n# two\nb,"3"\n"#c",4\n\n"d\n\n# no comment",5\ne,6\n'
    table = read(tmp_path, content)
    assert table.frame["id"].to_dict() == {4: "a", 8: "b", 9: "#c", 11: "d\n\n# no comment", 14: "e"}
    assert table.frame["x"][4] == "1\n2"
    assert table.notes == ("2 comment lines are left out",)


def test_short_lines_end_in_empty_cells(tmp_path: Path) -> None:
    table = read(tmp_path, "id,x,y\na,1\nb,2,3\nc\n")
    assert table.frame.values.tolist() == [["a", "1", ""], ["b", "2", "3"], ["c", "", ""]]
    assert table.notes == ("2 lines are shorter than the header: what is missing is taken as empty",)


def test_a_column_without_a_name_is_kept_and_is_no_index(tmp_path: Path) -> None:
    table = read(tmp_path, CELLS.to_csv())  # with pandas' row numbers
    assert table.frame.columns.tolist() == ["", "id", "x", "note"]
    assert table.frame["id"].tolist() == CELLS["id"].tolist()


def test_errors_of_spreadsheets_are_cells(tmp_path: Path) -> None:
    table = read(tmp_path, "# c\nx,id\n1,a\n#N/A,b\n#DIV/0!,c\n")
    assert table.frame["x"].tolist() == ["1", "#N/A", "#DIV/0!"]
    assert table.notes == ("1 comment line is left out",)


def test_hashed_lines_are_comments_or_rows(tmp_path: Path) -> None:
    assert read(tmp_path, "id,x\n1,2\n#2,3\n3,4\n").frame["id"].tolist() == ["1", "3"]  # a row that was taken out
    assert read(tmp_path, 'id,x\n#1,2\n#"2",3\n').frame["id"].tolist() == ["#1", '#"2"']
    with pytest.raises(DataError, match=r"a comment or a row in line 3 of .*t.csv, got one that begins with # and has"):
        read(tmp_path, "id,x\na1,2\n#2,3\n")
    with pytest.raises(DataError, match=r"got numbers in the first line that is no comment: if line 1 is the header"):
        read(tmp_path, "#id,x\n1,2\n")


REFUSED: dict[str, tuple[str | bytes, str]] = {
    "a cell too many": ("id,x\na,1\nb,2,3\n", r"expected 2 cells in line 3 of .*t.csv, as in its header, got 3"),
    "a title": (
        "made by logger\nid,x\na,1\n",
        r"1 cell in line 2 of .*header 'made by logger', got 2: if that is no header",
    ),
    "all rows too long": ("id,x\na,1,9\nb,2,9\n", r"2 cells in line 2 "),
    "too many after a comment": ("# c\n\nid,x\na,1\n\nb,2,,3\n", r"2 cells in line 6 of .*got 4"),
    "decimal commas": ("id,x\na,1,5\n", r"line 2 .*decimal commas need another"),
    "row names": ("id,x\n1,a,1\n2,b,2\n", r"name every column"),
    "a name twice": ("id,x,x\na,1,2\n", r"different names in the header of .*t.csv, got 'x' 2 times"),
    "a name twice but for blanks": ("id,x, x\na,1,2\n", r"got 'x' 2 times"),
    "two columns without names": (",id,\n1,a,2\n", r"got '' 2 times"),
    "nothing": ("", r"a table with a header in .*t.csv, got an empty file"),
    "blanks": ("\n \n", r"a header in .*t.csv, got an empty file"),
    "comments alone": ("# a\n# b\n", r"got comments alone"),
    "no rows": ("id,x\n", r"at least one row below the header of .*t.csv, got none"),
    "no rows but blank ones": ("id,x\n,\n\n", r"at least one row"),
    "latin-1": ("id,x\na,1\n\xe9,2\n".encode("latin-1"), r"text in UTF-8 in .*got the byte 0xe9 in line 3: save"),
    "binary": (b"id,x\na,\x001\n", r"a CSV table in .*got binary data"),
    "open quote": ('id,x\na,1\n"b,2\nc,3\n', r"an end of the quoted cell in line 3 of .*got none"),
    "half a gzip": (gzip.compress(PLAIN.encode())[:-12], r"a table in .*t.csv, got: "),
    "no gzip": (b"\x1f\x8bgarbage", r"a table in .*t.csv, got: "),
    "excel": (b"PK\x03\x04rest", r"got a zip or Excel file: save it as CSV"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_table_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    content, message = REFUSED[name]
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, content)
    assert "\n" not in str(caught.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.csv"):
        with pytest.raises(DataError, match="expected a table in"):
            read_table(path)
    for separator in ("ab", "", '"', "#", "\n", "a"):
        with pytest.raises(DataError, match="expected one character, or tab"):
            read(tmp_path, PLAIN, separator)
    assert read(tmp_path, "id,x\n", header_only=True).frame.shape == (0, 2)
    assert read(tmp_path, "# c\nid;x", header_only=True).frame.columns.tolist() == ["id", "x"]


def test_the_two_ways_of_reading_agree(tmp_path: Path) -> None:
    """A regular file is read by pandas, any other record by record: a comment must change nothing else."""
    rng = np.random.default_rng(0)
    pieces = ["a", " ", "'", "1.50", "007", "é", "NA", "\\", "\t", "-", ";", "true", ""]
    rows = ["".join(rng.choice(pieces, 3)) + "k," + "".join(rng.choice(pieces, 3)) for _ in range(200)]
    content = "id,x\n" + "\n".join(rows) + "\n"
    fast, slow = read(tmp_path, content, ","), read(tmp_path, "# c\n" + content, ",")
    assert fast.frame.astype(object).values.tolist() == slow.frame.astype(object).values.tolist()
    assert (fast.frame.index + 1).equals(slow.frame.index)


def test_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1 and more")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        DataError, match=r"expected pyarrow for the parquet file .*pip install pyarrow, or save .* as CSV"
    ):
        read_table(path)
    frame = pd.DataFrame({"id": [3, 4], "x": [1.5, 2.5]}, index=pd.Index(["r", "s"], name="plate"))
    monkeypatch.setattr(pd, "read_parquet", lambda _: frame)
    table = read_table(path)
    assert (table.is_text, table.frame.columns.tolist()) == (False, ["plate", "id", "x"])
    read_as = read_cells(table, "id", ["x"], ["plate"])
    assert read_as["id"].tolist() == [3, 4]
    assert str(read_cells(table, "id", ["x"], categories=["plate"])["plate"].dtype) == "category"


# ----------------------------------------------------------------------------------------------------------- cells


def cells(columns: dict[str, list[str]], separator: str = ",") -> Table:
    frame = pd.DataFrame(columns, dtype=object)
    return Table(frame.set_axis(pd.RangeIndex(2, len(frame) + 2, name="line")), "t.csv", separator, ())


def test_numbers_keep_all_digits() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=500) * 10.0 ** rng.integers(-300, 300, 500)
    found = read_cells(cells({"id": ["a"] * 500, "x": [repr(v) for v in values.tolist()]}), "id", ["x"])["x"]
    np.testing.assert_allclose(found, values, rtol=4e-16)  # to the last bit but one


@pytest.mark.parametrize("word", ["", " ", "NA", "NaN", "nan", "null", "None", "n/a", "#N/A"])
def test_words_for_missing_numbers_are_names_elsewhere(word: str) -> None:
    table = cells({"id": ["a", word or "b"], "y": ["1", word], "arm": ["u", word or "v"], "k": ["3", word or "4"]})
    found = read_cells(table, "id", ["y"], ["arm"], ["k"])
    assert found["y"].isna().tolist() == [False, True]
    for name in ("id", "arm", "k"):
        assert found[name].isna().tolist() == [False, not table.frame[name].iloc[1].strip()]


def test_columns_of_truths() -> None:
    table = cells({"id": ["a", "b"], "x": ["TRUE", "false"], "y": ["True", ""]})
    found = read_cells(table, "id", ["y"], ["x"])
    assert found["x"].astype(float).tolist() == [1.0, 0.0]
    assert found["y"].tolist()[0] == 1.0


COMMAS: list[tuple[str, list[str], bool | None]] = [
    (";", ["1,234", "2,000"], True),  # nothing else is written so
    (";", ["0,5", "2"], True),
    (";", ["1", "2"], False),
    (";", ["1.5", "2"], False),
    (";", ["1.5", "0,5"], None),
    (",", ["0,5", "1,234"], True),
    (",", ["1,234", "12,000"], False),  # thousands, perhaps: left for an error
    ("\t", ["1,234", "7"], False),
    ("\t", ["1,5", "1,234"], True),
    ("\t", ["1,5", "1.5"], None),
    (",", ["1,234", "0.5"], False),
    (";", ["1.234,5", "2"], False),
]


@pytest.mark.parametrize(("separator", "column", "expected"), COMMAS)
def test_decimal_commas(separator: str, column: list[str], expected: bool | None) -> None:
    table = cells({"id": ["1,1", "1.1"], "x": column}, separator)
    if expected is None:
        with pytest.raises(DataError, match=r"decimal points or decimal commas in t.csv, got both: '.*' in column 'x'"):
            decimal_commas(table, ["x"])
        return
    assert decimal_commas(table, ["x"]) is expected
    found = read_cells(table, "id", ["x"])
    assert found["id"].tolist() == ["1,1", "1.1"]
    if expected:
        assert found["x"].tolist() == [float(cell.replace(",", ".")) for cell in column]


def test_one_table_has_one_kind_of_decimals() -> None:
    table = cells({"id": ["a"], "x": ["0,5"], "y": ["0.5"]}, ";")
    with pytest.raises(DataError, match=r"got both: '0,5' in column 'x' in line 2, and '0.5' in column 'y' in line 2"):
        read_cells(table, "id", ["x", "y"])
    assert read_cells(table, "id", ["x"])["x"].tolist() == [0.5]  # what is not asked for does not matter


def test_a_column_may_be_called_anything() -> None:
    table = cells({"self": ["a", "b"], "line": ["1", "2"], "level_0": ["u", "v"]})
    assert read_cells(table, "self", ["line"], [], ["level_0"])["line"].tolist() == [1.0, 2.0]


def test_unknown_columns_are_named() -> None:
    with pytest.raises(
        DataError, match=r"a column 'z' in t.csv, got \['id;x'\]: say what separates its cells with --sep"
    ):
        read_cells(cells({"id;x": ["1;2"]}), "z", [])
