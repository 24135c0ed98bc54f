"""`bayesmeta plot`: the file, what is said of the axis, and one line for what cannot be drawn."""

from pathlib import Path

import pandas as pd
import pytest

from tests.cli.conftest import Run


def test_a_figure_of_a_task_that_was_held_out(growth: Path, plants: Path, bayesmeta: Run, tmp_path: Path) -> None:
    code, out, err = bayesmeta("plot", growth, plants, "--task", "07", "-o", tmp_path / "a.svg")
    assert (code, err) == (0, "")
    said = "task 07, along day; the other inputs as in the task: light_umol = 120, cultivar = thai"
    assert out.splitlines() == [said, f"figure written to {tmp_path / 'a.svg'}"]
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")
    more = ("--shots", "0,2", "--level", "0.5", "--noiseless", "--along", "light_umol")
    code, out, err = bayesmeta("plot", growth, plants, "--task", "01", "-o", tmp_path / "b.png", *more)
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "task 01, along light_umol; day varies, too: each row at its own inputs"
    assert out.splitlines()[1] == "the model was trained on this task: new ones are predicted less well"
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")


def test_a_task_of_two_rows_has_two_panels(growth: Path, plants: Path, bayesmeta: Run, tmp_path: Path) -> None:
    code, _, err = bayesmeta("plot", growth, plants, "--task", "08", "-o", tmp_path / "a.svg")
    assert (code, err) == (0, "")


def test_other_tasks_need_no_outcome(growth: Path, plants: Path, bayesmeta: Run, tmp_path: Path) -> None:
    frame = pd.read_csv(plants, dtype=str)
    frame.loc[frame.plant == "08", "height_cm"] = ""
    frame.to_csv(tmp_path / "t.csv", index=False)
    assert bayesmeta("plot", growth, tmp_path / "t.csv", "--task", "07", "-o", tmp_path / "a.png")[0] == 0
    code, _, err = bayesmeta("plot", growth, tmp_path / "t.csv", "--task", "08", "-o", tmp_path / "a.png")
    assert code == 2
    assert err.startswith("error: expected the name of a task, got '08'")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--task", "7"), "expected the name of a task, got '7'; perhaps '07' is meant"),
        (("--task", "07", "--shots", "50"), "expected numbers of known rows from 0 to the 5 of task '07', got [50]"),
        (("--task", "07", "--shots", "a"), "expected numbers of support points like 0,1,3, got 'a'"),
        (("--task", "07", "--along", "height_cm"), "expected an input column among ['day', 'light_umol', 'cultivar']"),
        (("--task", "07", "--level", "1"), "expected a level"),
        (("--task", "07", "-o", "plot.gif"), "expected a figure file that ends in .png, .svg, .pdf, got plot.gif"),
    ],
)
def test_bad_calls_are_one_line(
    arguments: tuple[str, ...], message: str, growth: Path, plants: Path, bayesmeta: Run, tmp_path: Path
) -> None:
    output = () if "-o" in arguments else ("-o", tmp_path / "a.png")
    code, out, err = bayesmeta("plot", growth, plants, *arguments, *output)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ")
    assert message in err
    assert not (tmp_path / "a.png").exists()
