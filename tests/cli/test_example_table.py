"""The table that comes with the package is what its script writes, and what both doors give."""

from pathlib import Path

import pandas as pd

import bayesmeta as bm
from docs.tools import example_table
from tests.cli.conftest import Run


def test_the_table_is_what_its_script_writes(plants: Path) -> None:
    assert plants.read_text() == example_table.PATH.read_text() == example_table.table()


def test_both_doors_give_the_same_table(plants: Path) -> None:
    frame = bm.tasks.example_table()
    pd.testing.assert_frame_equal(frame, pd.read_csv(plants, dtype={"plant": str}))
    counts = frame.plant.value_counts()
    assert (len(counts), counts.min(), counts.max()) == (36, 2, 11)  # ragged
    assert counts.index.str.fullmatch(r"\d\d").all()  # names that pandas would take for numbers
    assert (frame.groupby("plant")[["light_umol", "cultivar"]].nunique() == 1).all(axis=None)


def test_it_goes_where_it_is_told(bayesmeta: Run, tmp_path: Path) -> None:
    code, out, _ = bayesmeta("example-table", "-o", tmp_path / "new" / "t.csv")
    assert (code, out) == (0, f"247 rows of 36 plants written to {tmp_path / 'new' / 't.csv'}\n")
    code, _, err = bayesmeta("example-table", "-o", tmp_path)
    assert code == 2
    assert err == f"error: expected a file that can be written, got the folder {tmp_path}\n"
