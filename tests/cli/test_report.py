"""`bayesmeta report`: what is printed and written, whether it cross-validates, and one line for what cannot be done."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bayesmeta.cli.model_folders import retraining
from bayesmeta.cli.report import is_judged_by_all
from bayesmeta.errors import DataError
from bayesmeta.table_cells import read_as
from bayesmeta.table_files import read_table
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.table import Schema
from tests.cli.conftest import Run


def test_a_report_on_tasks_that_were_held_out(tmp_path: Path, bayesmeta: Run) -> None:
    rng = np.random.default_rng(0)
    rows = [{"subject": s, "days": float(d), "y": base + d + rng.normal()}
            for s, base in enumerate(rng.normal(0, 3, 30)) for d in range(5)]  # fmt: skip
    table, model, page = tmp_path / "table.csv", tmp_path / "model", tmp_path / "report.html"
    pd.DataFrame(rows).to_csv(table, index=False)
    columns = ("--task", "subject", "--x", "days", "--y", "y", "--method", "alpaca-linear")
    assert bayesmeta("fit", table, *columns, "--holdout", "0.4", "--steps", "40", "-o", model)[0] == 0
    code, out, err = bayesmeta("report", model, table, "-o", page, "--shots", "1", "--folds", "0")
    assert code == 0, err
    assert "All of this rests on 12 tasks" in out
    assert "Better than one regression for all tasks at 1 shot" in out
    assert f"report written to {page}" in out
    text = page.read_text(encoding="utf-8")
    assert "<h1>alpaca-linear on table</h1>" in text
    assert "y from days, by subject" in text
    assert str(tmp_path) not in text  # a page is passed on: where it was made is nobody's business
    assert "Not judged" not in text  # fit keeps reference tasks
    assert "30 tasks: 18 to learn from, 12 held out" in text  # and how it was trained
    assert "converged" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "report.html", "table.csv"]

    before = page.read_bytes()
    trained = json.loads((model / "model.json").read_text())["extra"]["trained_on"]
    pd.DataFrame([row for row in rows if str(row["subject"]) in trained]).to_csv(tmp_path / "old.csv", index=False)
    for case in (
        ("report", model, tmp_path / "old.csv", "-o", page, "--folds", "0"),  # every task was trained on
        ("report", model, table, "-o", page, "--shots", "a"),
        ("report", model, table, "-o", page, "--level", "1"),
        ("report", model, tmp_path / "none.csv", "-o", page),
        ("report", model, table, "-o", model / "model.json" / "report.html", "--shots", "0"),
    ):
        code, _, err = bayesmeta(*case)
        assert code == 2, case
        assert err.startswith("error: expected"), err
        assert err.count("\n") == 1
    assert page.read_bytes() == before


def test_few_tasks_are_judged_one_and_all(plants: Path, bayesmeta: Run, tmp_path: Path) -> None:
    """Of 36 tasks a quarter was held out; the page is on all of them, each predicted by a model without it."""
    page, growth = tmp_path / "report.html", tmp_path / "model"
    columns = ("--task", "plant", "--x", "day", "--y", "height_cm", "--method", "alpaca-linear")
    assert bayesmeta("fit", plants, *columns, "--holdout", "0.25", "--steps", "60", "-o", growth)[0] == 0
    code, out, err = bayesmeta("report", growth, plants, "-o", page, "--shots", "2", "--folds", "2")
    assert code == 0, err
    assert "Every task was predicted once, by one of 2 models that were trained without it" in out
    (judged,) = re.findall(r"All of this rests on (\d+) tasks", out)
    assert 27 < int(judged) <= 36  # more than were trained on; some have too few rows
    assert "cross-validation over tasks, 2 folds" in page.read_text(encoding="utf-8")
    # what report does by itself
    table, extra = read_table(plants), json.loads((growth / "model.json").read_text())["extra"]
    schema, known = Schema.from_json(extra["schema"]), set(extra["trained_on"])
    assert is_judged_by_all(table, schema, known)
    assert not is_judged_by_all(table, schema, {"another"})  # none is of the training: all of them are new
    tasks = TaskDataset.from_schema(read_as(table, schema), schema)
    assert retraining(extra, schema, tasks)[1] == 60
    with pytest.raises(DataError, match="expected a model that fit has made"):
        retraining({name: value for name, value in extra.items() if name != "training"}, schema, tasks)
