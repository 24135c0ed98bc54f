"""`bayesmeta summary`: what fit has kept, and what it can say of a folder in which nothing is kept."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import bayesmeta as bm
from bayesmeta.cli.app import app
from bayesmeta.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore::bayesmeta.errors.ConvergenceWarning")  # few steps are enough here


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


@pytest.fixture
def table(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    subject = np.repeat(np.arange(12), 5)
    days = np.tile(np.arange(5.0), 12)
    y = 250 + generator.normal(0, 20, 12)[subject] + (10 + generator.normal(0, 3, 12)[subject]) * days
    frame = pd.DataFrame({"subject": subject, "days": days, "ms": y + generator.normal(0, 5, 60)})
    frame["ill"] = np.where(frame["ms"] > 270, "yes", "no")
    path = tmp_path / "table.csv"
    frame.to_csv(path, index=False)
    return path


def fit(table: Path, model: Path, method: str, y: str = "ms", *more: str) -> None:
    columns = ("--task", "subject", "--x", "days", "--y", y)
    run("fit", table, *columns, "--method", method, "-o", model, *more)


@pytest.mark.parametrize(("method", "criterion"), [("alpaca-linear", "ML"), ("linear-reml", "REML")])
def test_mixed_models(table: Path, tmp_path: Path, method: str, criterion: str) -> None:
    fit(table, tmp_path / "model", method)
    page = run("summary", tmp_path / "model")
    assert f"({criterion})" in page
    assert "12 tasks, 60 points" in page
    assert "from subject to subject (intra-class correlation)" in page
    learner = bm.load(tmp_path / "model")
    tasks = bm.TaskDataset.from_frame(pd.read_csv(table), task="subject", x=["days"], y="ms")
    effects = learner.summary(tasks).fixed_effects  # what Python says is what was printed
    for name in ("intercept", "days"):
        line = next(line for line in page.splitlines() if line.split()[:1] == [name])
        assert float(line.split()[1]) == pytest.approx(effects["estimate"][name], rel=1e-4)
        assert float(line.split()[2]) == pytest.approx(effects["std_error"][name], rel=1e-4)
    assert "50 % from" in run("summary", tmp_path / "model", "--level", "0.5")
    for level in ("0", "1", "nan"):
        failed = CliRunner().invoke(app, ["summary", str(tmp_path / "model"), "--level", level])
        assert isinstance(failed.exception, DataError)


def test_no_row_of_the_table_is_kept(table: Path, tmp_path: Path) -> None:
    fit(table, tmp_path / "model", "alpaca-linear")
    kept = json.loads((tmp_path / "model" / "model.json").read_text())["extra"]["summary"]
    assert len(json.dumps(kept)) < 3_000
    outcomes = pd.read_csv(table)["ms"].round(6)
    numbers = [round(value, 6) for value in _numbers(kept)]
    assert not set(numbers) & set(outcomes)


def _numbers(value: object) -> list[float]:
    if isinstance(value, dict):
        return [number for item in value.values() for number in _numbers(item)]
    if isinstance(value, list):
        return [number for item in value for number in _numbers(item)]
    return [value] if isinstance(value, float) else []


def test_networks_and_classes_are_told_in_words(table: Path, tmp_path: Path) -> None:
    fit(table, tmp_path / "maml", "maml", "ms", "--steps", "3")
    page = run("summary", tmp_path / "maml")
    assert "Model-agnostic meta-learning" in page
    assert "from task to task" in page
    fit(table, tmp_path / "classes", "maml", "ill", "--steps", "3")
    page = run("summary", tmp_path / "classes")
    assert "predicts  2 classes from 1 input" in page
    assert "no " in page
    assert "yes " in page
    assert "on average, before a labelled point of the task" in page


def test_a_folder_without_a_summary_has_one_of_its_learner(tmp_path: Path) -> None:
    schema = bm.tasks.Schema("who", x=("day",), y=("mg",))
    bm.save(bm.ALPaCA(bm.Identity(1)), tmp_path, {"schema": schema.to_json()})
    page = run("summary", tmp_path)
    assert "Fixed effects" in page
    assert "std. error" not in page
