"""`bayesmeta crossval`: what is printed and written, and one line for what cannot be done."""

from pathlib import Path

import pandas as pd
import pytest

from tests.cli.conftest import Run

COLUMNS = ("--task", "plant", "--x", "day", "--covariate", "light_umol")
QUICK = ("--methods", "alpaca-linear", "--folds", "2", "--steps", "60")


def test_scores_a_recommendation_and_a_report(plants: Path, bayesmeta: Run, tmp_path: Path) -> None:
    scores, page = tmp_path / "scores.csv", tmp_path / "report.html"
    more = ("--y", "height_cm", "--shots", "0,2", "-o", scores, "--report", page)
    code, out, err = bayesmeta("crossval", plants, *COLUMNS, *QUICK, *more)
    assert code == 0, err
    lines = out.splitlines()
    assert "height_cm: outcome" in out
    assert any("each judged once by learners that were trained without it, in 2 folds" in line for line in lines)
    assert any(line.split()[:3] == ["shots", "tasks", "learner"] for line in lines)
    (verdict,) = [line for line in lines if line.startswith(("Take ", "Nothing can be told"))]
    assert "pooled" in out
    assert "alone" in out
    assert lines.index(verdict) == len(lines) - 3  # nothing but the files that are written comes after it
    table = pd.read_csv(scores, index_col=["shots", "candidate"])
    assert set(table.index) == {(s, c) for s in (0, 2) for c in ("alpaca-linear", "pooled", "alone")}
    assert {"nll", "coverage", "difference", "difference_low", "seconds"} <= set(table.columns)
    text = page.read_text(encoding="utf-8")
    assert "<h1>alpaca-linear on plants</h1>" in text
    assert "cross-validation over tasks, 2 folds" in text
    assert "one regression for all tasks" in text


def test_several_outcomes_are_scored_by_name(plants: Path, bayesmeta: Run, tmp_path: Path) -> None:
    frame = pd.read_csv(plants)
    frame["half"] = 0.5 * frame.height_cm + frame.day
    frame.to_csv(tmp_path / "two.csv", index=False)
    more = ("--y", "height_cm", "--y", "half", "--shots", "1", "-o", tmp_path / "scores.csv")
    code, out, err = bayesmeta("crossval", tmp_path / "two.csv", *COLUMNS, *QUICK, *more)
    assert code == 0, err
    assert {"all outcomes together", "height_cm", "half"} <= set(out.splitlines())
    table = pd.read_csv(tmp_path / "scores.csv")
    assert table.outcome.unique().tolist() == ["all", "height_cm", "half"]
    assert table[table.outcome == "all"].rmse.isna().all()  # of two units there is no one error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--methods", "alpaca-linear,,maml"), "expected different names separated by commas for --methods"),
        (("--methods", "maml,maml"), "expected different names separated by commas for --methods"),
        (("--methods", "guess"), "expected a method for numbers among"),
        ((*QUICK, "--folds", "1"), "folds"),
        ((*QUICK, "--shots", "99"), "expected a task with more than 99 points"),
        ((*QUICK, "--level", "2"), "level"),
    ],
)
def test_wrong_calls_give_one_line(plants: Path, bayesmeta: Run, arguments: tuple[str, ...], message: str) -> None:
    code, out, err = bayesmeta("crossval", plants, *COLUMNS, "--y", "height_cm", *arguments)
    assert code == 2, out
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
