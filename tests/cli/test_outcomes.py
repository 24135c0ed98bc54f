"""The command line on positive outcomes, counts and binary ones: from fit to predict, and what is refused."""

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from bayesmeta.cli.app import app
from bayesmeta.recipes import COUNT_RECIPES, POSITIVE_RECIPES

pytestmark = pytest.mark.filterwarnings("ignore::bayesmeta.errors.ConvergenceWarning")  # few steps are enough here
FIT = ("fit", "table.csv", "--task", "id", "--x", "x", "--y", "y", "-o", "model")


def _write(kind: str, tasks: int = 12, points: int = 5) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    ids, x = np.repeat(np.arange(tasks), points), np.tile(np.arange(float(points)), tasks)
    f = 0.5 + 0.1 * x + rng.normal(0.0, 0.6, tasks)[ids]
    if kind == "count":
        y = rng.poisson(np.exp(f))
    elif kind == "binary":
        y = (rng.random(len(f)) < 1.0 / (1.0 + np.exp(-2.0 * f))).astype(int)
    else:
        y = np.exp(f + 0.1 * rng.normal(size=len(f))).round(4)
    frame = pd.DataFrame({"id": [f"t{i}" for i in ids], "x": x, "y": y})
    frame.to_csv("table.csv", index=False)
    frame[frame.x < 2].to_csv("context.csv", index=False)
    frame[frame.x >= 3].drop(columns="y").to_csv("query.csv", index=False)
    return frame


@pytest.mark.parametrize(
    ("kind", "method", "said"),
    [
        ("count", (), "y: outcome, a count from 0 to"),
        ("binary", (), "y: outcome, binary, 0 ("),
        ("positive", ("--method", "alpaca-linear"), "y: outcome, a positive number from"),
    ],
)
def test_from_fit_to_predict(command, kind: str, method: tuple, said: str) -> None:
    _write(kind)
    code, out, err = command(*FIT, "--outcome", kind, "--holdout", "0.3", *method)
    assert code == 0, err
    assert said in out
    code, out, err = command("evaluate", "model", "table.csv", "--shots", "0,2")
    assert code == 0, err
    assert ("Brier" in out) == (kind == "binary")
    code, out, err = command("predict", "model", "context.csv", "query.csv", "-o", "out.csv")
    assert code == 0, err
    found = pd.read_csv("out.csv")
    if kind == "binary":
        assert found.columns.tolist() == ["id", "x", "predicted", "p"]
        assert found["p"].between(0.0, 1.0).all()
        assert (found["predicted"] == (found["p"] > 0.5)).all()
        return
    assert found.columns.tolist() == ["id", "x", "mean", "sd", "lower", "upper"]
    assert (found["lower"] >= 0.0).all()
    whole = kind == "count"
    assert (found["lower"].dtype.kind == "i" and found["upper"].dtype.kind == "i") == whole
    assert ((found["lower"] < found["mean"]) & (found["mean"] < found["upper"])).all()


def test_counts_are_asked_about(command) -> None:
    _write("count")
    code, _, err = command(*FIT, "--method", "alpaca-linear")
    assert code == 0
    assert "note: 'y' holds whole numbers from 0 to" in err
    assert "if they are counts, --outcome count predicts them as such" in err
    _, _, err = command(*FIT, "--method", "alpaca-linear", "--outcome", "number", "--force")
    assert "count" not in err


@pytest.mark.parametrize(
    ("cell", "kind", "message"),
    [
        ("2.5", "count", "expected counts (whole numbers from 0) in column 'y', got 2.5 in line 4"),
        ("-1", "count", "expected counts (whole numbers from 0) in column 'y', got -1 in line 4"),
        ("0", "positive", "expected positive numbers in column 'y', got 0 in line 4"),
        ("7", "binary", "expected 2 classes in column 'y', got"),
        ("many", "count", "expected numbers in column 'y', got 'many' in line 4"),
    ],
)
def test_what_is_not_of_the_kind_is_named(command, cell: str, kind: str, message: str) -> None:
    frame = _write("count")
    frame["y"] = frame["y"].astype(str).where(frame.index != 2, cell)
    frame.to_csv("table.csv", index=False)
    code, _, err = command(*FIT, "--outcome", kind)
    assert code == 2
    assert message in err.splitlines()[-1]


def test_counts_are_not_recalibrated(command) -> None:
    _write("count", tasks=30)
    code, _, err = command(*FIT, "--outcome", "count", "--recalibrate", "0.4")
    assert code == 2
    assert "expected outcomes whose deviations can be scaled, got the counts y" in err


def test_methods_are_listed() -> None:
    for kind, offered in (("count", COUNT_RECIPES), ("positive", POSITIVE_RECIPES)):
        listed = CliRunner().invoke(app, ["methods", "--outcome", kind])
        assert [line.split()[0] for line in listed.output.splitlines()] == list(offered)
