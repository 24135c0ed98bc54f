"""The command line on outcomes that are classes: whole sessions by name, and what is said where it could go wrong."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import bayesmeta as bm
from bayesmeta.cli.app import app
from bayesmeta.recipes import CLASS_RECIPES

pytestmark = [
    pytest.mark.filterwarnings("ignore::bayesmeta.errors.ConvergenceWarning"),  # few steps are enough here
    pytest.mark.filterwarnings("always::bayesmeta.errors.OutcomeWarning"),  # which the command line shows
]
QUICK = ("--steps", "20")


def table(classes: list[str], folder: Path, tasks: int = 40) -> Path:
    """Each task prefers one class; 1 to 6 rows, some of one class alone; some outcomes are empty, all of one task."""
    rng = np.random.default_rng(0)
    rows = []
    for task in range(tasks):
        own = rng.integers(len(classes))
        for _ in range(rng.integers(1, 7)):
            label = own if rng.random() < 0.8 else rng.integers(len(classes))
            rows.append({"id": f"{task:03d}", "x": rng.normal(), "y": classes[label]})
    frame = pd.DataFrame(rows)
    frame.loc[[3, 8], "y"] = ""
    frame = pd.concat([frame, pd.DataFrame({"id": ["bare"] * 2, "x": [0.1, 0.2], "y": [""] * 2})])
    path = folder / "table.csv"
    frame.to_csv(path, index=False)
    return path


FIT = ("fit", "table.csv", "--task", "id", "--x", "x", "--y", "y", "-o", "model")


@pytest.mark.parametrize(
    ("classes", "more"),
    [
        (["none", "mild or so", "schlimm, ü"], ()),
        (["0", "1"], ("--outcome", "classes")),
        (["007", "NA", "3"], ("--outcome", "classes")),
        (["true", "false"], ()),
    ],
)
def test_from_fit_to_report_by_name(command, tmp_path: Path, classes: list[str], more: tuple) -> None:
    table(classes, tmp_path)
    code, out, err = command(*FIT, *QUICK, "--holdout", "0.3", *more)
    assert code == 0, err
    assert re.search(r"^y: outcome, classes .*, missing in 4 rows$", out, re.MULTILINE), out
    assert all(f"{name} (" in out for name in classes)
    assert "glmm on" in out
    lines = err.splitlines()
    assert "1 task without a class in column 'y' left out: 'bare'" in lines[-1]
    assert [line for line in lines if "'NA' is a class of column 'y'" in line] == lines[:-1] == lines[: "NA" in classes]
    levels = json.loads((tmp_path / "model" / "model.json").read_text())["extra"]["schema"]["classes"]
    assert set(levels) == set(classes)

    code, out, err = command("evaluate", "model", "table.csv", "--shots", "0,1,2", "-o", "scores.csv")
    assert code == 0, err
    assert {"NLL", "accuracy", "Brier", "ECE"} <= set(out.split())
    assert {"nll", "nll_low", "accuracy", "brier", "ece", "ece_noise"} <= set(pd.read_csv("scores.csv").columns)

    text = pd.read_csv("table.csv", dtype=str, keep_default_na=False)
    text.groupby("id").head(2).to_csv("context.csv", index=False)
    text.drop(columns="y").to_csv("query.csv", index=False)
    code, out, err = command("predict", "model", "context.csv", "query.csv", "-o", "out.csv", "--tasks", "tasks.csv")
    assert code == 0, err
    found = pd.read_csv("out.csv", dtype=str, keep_default_na=False)
    assert found.columns.tolist() == ["id", "x", "predicted", "likely", *(f"p_{name}" for name in levels)]
    assert found["id"].tolist() == text["id"].tolist()
    assert set(found["predicted"]) <= set(classes)
    probs = found[[f"p_{name}" for name in levels]].astype(float)
    np.testing.assert_allclose(probs.sum(axis=1), 1.0, atol=1e-6)  # float32, written with all digits

    # the same from Python, where the folder has the names
    learner = bm.load("model")
    schema = bm.tasks.Schema.from_json(json.loads((tmp_path / "model" / "model.json").read_text())["extra"]["schema"])
    context = text.groupby("id").head(2)
    context = context.assign(x=context.x.astype(float), y=context.y.mask(context.y == "", None))
    again = bm.predict_frame(learner, schema, context, text.drop(columns="y").assign(x=text.x.astype(float)))
    np.testing.assert_allclose(again[probs.columns], probs, atol=1e-6)
    assert again["predicted"].tolist() == found["predicted"].tolist()

    if "none" not in classes:  # figures take seconds
        return
    code, out, err = command("report", "model", "table.csv", "--shots", "0,1", "-o", "report.html")
    assert code == 0, err
    page = Path("report.html").read_text()
    assert all(f"as {name}" in page for name in classes)


def test_codes_are_asked_about(command, tmp_path: Path) -> None:
    path = table(["0", "1"], tmp_path)
    frame = pd.read_csv(path, dtype=str).dropna()
    frame.to_csv(path, index=False)
    numbers = (*FIT, *QUICK, "--method", "alpaca")
    code, out, err = command(*numbers)
    assert code == 0
    assert "y: outcome, a number from 0 to 1" in out
    assert err.startswith("warning: column 'y' holds 0 and 1 alone"), err
    assert "--outcome binary" in err
    assert "--outcome number " in err
    code, out, err = command(*numbers, "--force", "--outcome", "number")
    assert (code, err) == (0, "")
    assert "alpaca on" in out


def test_missing_words_are_no_classes_of_a_model(command, tmp_path: Path) -> None:
    table(["no", "yes"], tmp_path)
    assert command(*FIT, *QUICK)[0] == 0
    Path("query.csv").write_text("id,x\na,0.5\n")
    for name, cell in (("na", "NA"), ("empty", ""), ("yes", "yes"), ("odd", "Yes")):
        Path(f"{name}.csv").write_text(f"id,x,y\na,0.5,{cell}\n")
    code, _, err = command("predict", "model", "na.csv", "query.csv", "-o", "na-out.csv")
    assert code == 0
    assert "no row of the context has an outcome" in err
    assert command("predict", "model", "empty.csv", "query.csv", "-o", "empty-out.csv")[0] == 0
    assert command("predict", "model", "yes.csv", "query.csv", "-o", "yes-out.csv")[0] == 0
    prior, known = Path("na-out.csv").read_text(), Path("yes-out.csv").read_text()
    assert prior == Path("empty-out.csv").read_text() != known
    code, _, err = command("predict", "model", "odd.csv", "query.csv", "-o", "odd-out.csv")
    assert (code, err.count("\n")) == (2, 1)
    assert "column 'y' to hold one of the classes 'no', 'yes', got 'Yes' in line 2; perhaps 'yes' is meant" in err
    assert "(in odd.csv)" in err


@pytest.mark.parametrize("method", [name for name in CLASS_RECIPES if name != "glmm"])
def test_every_method_for_classes(command, tmp_path: Path, method: str) -> None:
    table(["a", "b", "c"], tmp_path, tasks=12)
    code, out, err = command(*FIT, "--steps", "2", "--method", method)
    assert code == 0, err
    assert f"{method} on" in out
    Path("query.csv").write_text("id,x\n000,0.5\nnew,0.5\n")
    code, out, err = command("predict", "model", "table.csv", "query.csv", "-o", "out.csv")
    assert code == 0, err
    found = pd.read_csv("out.csv")
    np.testing.assert_allclose(found[["p_a", "p_b", "p_c"]].sum(axis=1), 1.0, atol=1e-5)  # float32


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ("--outcome", "labels"),
            "expected --outcome to be one of number, positive, count, binary, classes, got 'labels'",
        ),
        (("--outcome", "number"), "expected numbers in column 'y', got"),
        (("--method", "alpaca"), "expected a method for classes among"),
        (("--method", "nothing"), "got 'nothing'"),
        (("--outcome", "classes", "--y", "x"), "expected every column in one role"),
    ],
)
def test_what_cannot_be_is_one_line(command, tmp_path: Path, more: tuple, message: str) -> None:
    table(["no", "yes"], tmp_path)
    code, _, err = command(*FIT, *QUICK, *more)
    assert code == 2
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err


def test_methods_for_classes_are_listed() -> None:
    listed = CliRunner().invoke(app, ["methods", "--outcome", "classes"])
    assert [line.split()[0] for line in listed.output.splitlines()] == list(CLASS_RECIPES)
