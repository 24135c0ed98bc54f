"""The command line as a user runs it: whole sessions, and every kind of bad input as one line, never a traceback."""

import gzip
import io
import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import bayesmeta as bm
from bayesmeta.cli.app import app, main
from bayesmeta.recipes import RECIPES

pytestmark = pytest.mark.filterwarnings("ignore::bayesmeta.errors.ConvergenceWarning")  # few steps are enough here
QUICK = ("--method", "alpaca-linear", "--steps", "5")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """40 subjects on lines of their own, 3 to 8 rows each, one missing outcome."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "subject": s,
            "arm": "ab"[s % 2],
            "days": float(d),
            "reaction": 250 + base + (10 + slope) * d + rng.normal(0, 5),
        }
        for s, base, slope in zip(range(40), rng.normal(0, 20, 40), rng.normal(0, 4, 40), strict=True)
        for d in range(rng.integers(3, 9))
    ]
    frame = pd.DataFrame(rows)
    frame.loc[4, "reaction"] = np.nan
    path = tmp_path / "table.csv"
    frame.to_csv(path, index=False)
    return path


def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object
) -> tuple[int, str, str]:
    """The entry point's exit status, standard output and standard error."""
    monkeypatch.setattr(sys, "argv", ["bayesmeta", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    captured = capsys.readouterr()
    code = stop.value.code
    return (code if isinstance(code, int) else 0), captured.out, captured.err


def fit(table: Path, model: Path, *more: str) -> None:
    """Fit the linear method, which is quick."""
    arguments = ["fit", str(table), "--task", "subject", "--x", "days", "--y", "reaction", "-o", str(model)]
    result = CliRunner().invoke(app, [*arguments, "--method", "alpaca-linear", *more])
    assert result.exit_code == 0, result.output


def test_fit_evaluate_predict(table: Path, tmp_path: Path) -> None:
    model, out = tmp_path / "model", tmp_path / "out.csv"
    fit(table, model, "--holdout", "0.25", "--covariate", "arm")
    assert sorted(p.suffix for p in model.iterdir()) == [".json", ".safetensors", ".toml"]
    scored = CliRunner().invoke(
        app, ["evaluate", str(model), str(table), "--shots", "0,1,2", "-o", str(tmp_path / "e.csv")]
    )
    assert scored.exit_code == 0, scored.output
    written = pd.read_csv(tmp_path / "e.csv")
    assert written.shots.tolist() == [0, 1, 2]
    assert written.tasks.tolist() == [10, 10, 10]  # only those that were held out
    assert written.pooled_rmse[2] < written.pooled_rmse[0]

    frame = pd.read_csv(table)
    context, query = frame[frame.subject < 2], frame[frame.subject.isin([1, 5])].drop(columns="reaction")
    context.to_csv(tmp_path / "context.csv", index=False)
    query.to_csv(tmp_path / "query.csv", index=False)
    done = CliRunner().invoke(
        app, ["predict", str(model), str(tmp_path / "context.csv"), str(tmp_path / "query.csv"), "-o", str(out)]
    )
    assert done.exit_code == 0, done.output
    predicted = pd.read_csv(out)
    assert list(predicted.columns) == [*query.columns, "mean", "sd", "lower", "upper"]
    assert predicted.days.tolist() == query.days.tolist()  # the order of the rows is kept
    known, unknown = predicted[predicted.subject == 1], predicted[predicted.subject == 5]
    assert known.sd.max() < 0.6 * unknown.sd.min()  # subject 5 has no context: the prior
    assert ((predicted.lower < predicted["mean"]) & (predicted["mean"] < predicted.upper)).all()
    truth = frame[frame.subject == 1].reaction
    assert np.abs(known["mean"].to_numpy() - truth.to_numpy()).max() < 20  # four noise deviations


def test_search_is_gone_on_with_and_its_model_predicts(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trials, model = tmp_path / "trials.jsonl", tmp_path / "model"
    arguments = ["search", table, "--task", "subject", "--x", "days", "--y", "reaction", "-o", trials, "--model", model]
    arguments += ["--steps", "2,4", "--layers", "2", "--widths", "4,8", "--activations", "relu", "--candidates", "2"]
    code, out, err = run(capsys, monkeypatch, *arguments, "--holdout", "0.25")
    assert code == 0, err
    lines = out.splitlines()
    assert "22 tasks to train on, 8 to score networks on, 10 networks" in lines
    assert "8 trials written to" in out  # 2 + 2 of one layer, 2 + 2 of two
    assert any(line.startswith("best of 4 finalists: ") for line in lines)
    assert lines[-2] == f"10 tasks were held out: bayesmeta evaluate {model} {table}"
    before = trials.read_bytes()
    assert run(capsys, monkeypatch, *arguments, "--holdout", "0.25")[1] == out
    assert trials.read_bytes() == before
    scored = run(capsys, monkeypatch, "evaluate", model, table, "--shots", "2")
    assert scored[0] == 0
    assert "30 of the 40 tasks are of the training and left out" in scored[1]

    for more, message in (
        (["--widths", "4,x"], "expected --widths 20,40, got '4,x'"),
        (["--steps", "4,2"], "expected budgets that increase from rung to rung"),
        (["--activations", "sine"], "expected an activation among"),
        (["--method", "alpaca-linear"], "expected a method that takes any network, among ["),
        (["--seed", "1"], "expected the trials of this search, got those of one with another seed"),
    ):
        code, _, err = run(capsys, monkeypatch, *arguments, *more)
        assert code == 2
        assert err.startswith("error: ")
        assert message in err
        assert len(err.splitlines()) == 1


def test_predictions_are_those_of_the_library(table: Path, tmp_path: Path) -> None:
    import bayesmeta as bm

    fit(table, tmp_path / "model")
    frame = pd.read_csv(table)
    one = frame[frame.subject == 7]
    one.head(2).to_csv(tmp_path / "context.csv", index=False)
    one.to_csv(tmp_path / "query.csv", index=False)
    names = [str(tmp_path / name) for name in ("model", "context.csv", "query.csv")]
    CliRunner().invoke(app, ["predict", *names, "-o", str(tmp_path / "out.csv"), "--level", "0.5"])
    learner = bm.load(tmp_path / "model")
    prediction = learner.adapt(bm.Data.from_arrays(one.days.head(2), one.reaction.head(2))).predict(one.days)
    out = pd.read_csv(tmp_path / "out.csv")
    # a CSV file keeps all digits of a float64
    np.testing.assert_allclose(out["mean"], prediction.mean[0, :, 0], rtol=1e-12)
    np.testing.assert_allclose(out.lower, prediction.interval(0.5)[0][0, :, 0], rtol=1e-12)


def test_tasks_unlike_those_of_the_training_are_named(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, frame = tmp_path / "model", pd.read_csv(table).dropna()
    fit(table, model)
    jumpy = frame[frame.subject == 7].assign(subject=107)
    jumpy["reaction"] += 80.0 * (-1.0) ** np.arange(len(jumpy))  # noise deviations of training tasks are 5
    context = pd.concat([frame[frame.subject.isin([7, 8])], jumpy])
    query = pd.concat([context, frame[frame.subject == 9]])
    context.to_csv(tmp_path / "context.csv", index=False)
    query.to_csv(tmp_path / "query.csv", index=False)
    arguments = ("predict", model, tmp_path / "context.csv", tmp_path / "query.csv", "-o", tmp_path / "out.csv")
    code, _, err = run(capsys, monkeypatch, *arguments, "--tasks", tmp_path / "tasks.csv")
    assert code == 0
    assert err.startswith("warning: 1 of 3 tasks are unlike those that were learned from: '107' (p = 0.0"), err
    assert err.count("\n") == 1
    tasks = pd.read_csv(tmp_path / "tasks.csv").set_index("subject")
    assert list(tasks.columns) == ["points", "p_value", "smallest_p_value", "shrinkage"]
    assert tasks.points.to_dict() == {7: len(jumpy), 8: int((frame.subject == 8).sum()), 107: len(jumpy), 9: 0}
    assert tasks.p_value[107] == tasks.smallest_p_value[107] <= 1 / 11
    assert tasks.p_value[9] == tasks.shrinkage[9] == 1.0
    assert 0.0 < tasks.shrinkage[7] < 0.5
    out = (tmp_path / "out.csv").read_bytes()

    # scoring the odd task warns, too
    jumpy.to_csv(tmp_path / "jumpy.csv", index=False)
    code, _, err = run(capsys, monkeypatch, "evaluate", model, tmp_path / "jumpy.csv", "--shots", "1")
    assert code == 0
    assert "'107'" in err

    # a model that was written before there were warnings predicts the same
    manifest = json.loads((model / "model.json").read_text())
    assert not any(str(value) in json.dumps(manifest["extra"]["surprise"]) for value in frame.reaction.head(20))
    del manifest["extra"]["surprise"]
    (model / "model.json").write_text(json.dumps(manifest))
    code, _, err = run(capsys, monkeypatch, *arguments, "--tasks", tmp_path / "tasks.csv")
    assert (code, err) == (0, "")
    assert (tmp_path / "out.csv").read_bytes() == out
    assert pd.read_csv(tmp_path / "tasks.csv").p_value.isna().all()


def test_few_tasks_are_no_reference(table: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(table)
    frame[frame.subject < 9].to_csv(tmp_path / "few.csv", index=False)
    fit(tmp_path / "few.csv", tmp_path / "model")
    assert "surprise" not in json.loads((tmp_path / "model" / "model.json").read_text())["extra"]


def test_methods_are_listed() -> None:
    listed = CliRunner().invoke(app, ["methods"])
    names = [line.split()[0] for line in listed.output.splitlines()]
    assert names == list(RECIPES)
    some = "alpaca alpaca-linear alpaca-rbf r2d2 dkt maml imaml llama bmaml cavia"
    assert set(names) >= set(some.split())


@pytest.mark.parametrize("method", [name for name in RECIPES if name not in ("alpaca-linear", "stack")])  # elsewhere
def test_every_method_from_table_to_prediction(method: str, table: Path, tmp_path: Path) -> None:
    model, out = tmp_path / method, tmp_path / "out.csv"
    columns = ["--task", "subject", "--x", "days", "--y", "reaction"]
    steps = "40" if method.startswith("alpaca") else "4"
    done = CliRunner().invoke(
        app, ["fit", str(table), *columns, "-o", str(model), "--method", method, "--steps", steps]
    )
    assert done.exit_code == 0, done.output
    rows = pd.read_csv(table).dropna()
    (known, asked) = (tmp_path / "known.csv", tmp_path / "asked.csv")
    rows.groupby("subject").head(2).to_csv(known, index=False)
    rows.groupby("subject").tail(1).to_csv(asked, index=False)
    done = CliRunner().invoke(app, ["predict", str(model), str(known), str(asked), "-o", str(out)])
    assert done.exit_code == 0, done.output
    predicted = pd.read_csv(out)
    assert (predicted["lower"] < predicted["mean"]).all()
    assert (predicted["mean"] < predicted["upper"]).all()


def _break(frame: pd.DataFrame, column: str, value: object) -> pd.DataFrame:
    frame = frame.astype({column: object})
    frame.loc[3, column] = value
    return frame


BAD_TABLES = {
    "unknown column": (lambda f: f.rename(columns={"days": "day"}), ["'days'"]),
    "text among numbers": (lambda f: _break(f, "days", "12;5"), ["'days'", "12;5", "5"]),
    "infinity": (lambda f: _break(f, "days", "inf"), ["'days'", "5"]),
    "missing input": (lambda f: _break(f, "days", None), ["'days'", "5"]),
    "text outcome": (lambda f: _break(f, "reaction", "high"), ["'reaction'", "high", "5"]),
    "missing task": (lambda f: _break(f, "subject", None), ["'subject'", "5"]),
    "a task without outcomes": (lambda f: f.assign(reaction=f.reaction.where(f.subject != 3)), ["3"]),
    "no rows": (lambda f: f.head(0), ["row"]),
    "constant outcome": (lambda f: f.assign(reaction=1.0), ["1.0"]),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_bad_tables_are_one_line(
    name: str, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    change, words = BAD_TABLES[name]
    change(pd.read_csv(table)).to_csv(tmp_path / "bad.csv", index=False)
    arguments = ("fit", tmp_path / "bad.csv", "--task", "subject", "--x", "days", "--y", "reaction")
    code, _, err = run(capsys, monkeypatch, *arguments, "-o", tmp_path / "m", "--method", "alpaca-linear")
    assert code == 2
    assert err.startswith("error: expected")
    assert err.count("\n") == 1
    assert all(word in err for word in words), err


def test_other_bad_input_is_one_line(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    fit(table, model)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    (tmp_path / "blank.csv").write_text("")
    base = ("--task", "subject", "--x", "days", "--y", "reaction", "-o")
    cases: list[tuple[object, ...]] = [
        ("fit", tmp_path / "none.csv", *base, tmp_path / "m"),
        ("fit", tmp_path / "binary.csv", *base, tmp_path / "m"),
        ("fit", tmp_path / "blank.csv", *base, tmp_path / "m"),
        ("fit", tmp_path / "empty", *base, tmp_path / "m"),
        ("fit", table, *base, tmp_path / "file"),
        ("fit", table, *base, tmp_path / "m", "--method", "nonsense"),
        ("fit", table, *base, tmp_path / "m", "--holdout", "1.5"),
        ("fit", table, *base, tmp_path / "m", "--steps", "0"),
        ("evaluate", model, table),  # every task was trained on
        ("evaluate", model, table, "--include-trained", "--shots", "a,b"),
        ("evaluate", model, table, "--include-trained", "--shots", "-1"),
        ("evaluate", model, table, "--include-trained", "--shots", "100"),
        ("evaluate", model, table, "--include-trained", "--level", "2"),
        ("evaluate", tmp_path / "empty", table),
        ("evaluate", tmp_path / "file", table),
        ("predict", model, table, table, "-o", tmp_path / "file" / "out.csv"),
        ("predict", model, table, table, "-o", tmp_path / "o.csv", "--level", "0"),
    ]
    for case in cases:
        code, _, err = run(capsys, monkeypatch, *case)
        assert code == 2, case
        assert err.startswith("error: expected"), (case, err)
        assert err.count("\n") == 1, (case, err)


def test_broken_model_folders(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(*words: str) -> None:
        code, _, err = run(capsys, monkeypatch, "evaluate", model, table, "--include-trained")
        assert code == 2
        assert err.startswith("error: expected")
        assert all(word in err for word in words), err

    model = tmp_path / "model"
    fit(table, model)
    (path,) = model.glob("*.safetensors")
    weights = path.read_bytes()
    path.write_bytes(weights[: len(weights) // 2])
    check(path.name)
    path.unlink()
    check(path.name)
    path.write_bytes(weights)
    manifest = (model / "model.json").read_text()
    (model / "model.json").write_text(manifest[: len(manifest) // 2])
    check("model.json")
    changed = json.loads(manifest)
    changed["learner"]["class"] = "os.system"
    (model / "model.json").write_text(json.dumps(changed))
    check("os.system")
    changed = json.loads(manifest)
    del changed["extra"]["schema"]["task"]
    (model / "model.json").write_text(json.dumps(changed))
    check("schema")


def test_a_failed_command_leaves_what_was_written(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, out = tmp_path / "model", tmp_path / "out.csv"
    fit(table, model)
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    out.write_text("precious")
    pd.read_csv(table).assign(reaction=1.0).to_csv(tmp_path / "bad.csv", index=False)
    base = ("--task", "subject", "--x", "days", "--y", "reaction", "-o", model)
    assert run(capsys, monkeypatch, "fit", tmp_path / "bad.csv", *base)[0] == 2
    assert run(capsys, monkeypatch, "predict", model, tmp_path / "none.csv", table, "-o", out)[0] == 2
    assert before == {path.name: path.read_bytes() for path in model.iterdir()}
    assert out.read_text() == "precious"


# ------------------------------------------------------------------------------------------- names, columns and files


@pytest.fixture(scope="module")
def small() -> pd.DataFrame:
    """Twelve tasks of five rows, every cell as text: names that a guess would merge or lose."""
    names = ["000", "0", "0.0", "NA", "None", "1.1", "1.10", "1e1", "10", "a b", " a", "true"]
    rng = np.random.default_rng(0)
    level = rng.normal(0, 3, 12)
    frame = pd.DataFrame({"id": np.repeat(names, 5), "x": rng.uniform(0, 5, 60).round(3)})
    frame["arm"] = np.repeat(["None", "1", "1.0", "Low"] * 3, 5)
    frame["y"] = (np.repeat(level, 5) + frame["x"] + rng.normal(0, 0.2, 60)).round(3)
    return frame.astype(str)


Session = tuple[Path, pd.DataFrame, pd.DataFrame]


@pytest.fixture
def session(small: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A fitted model with its context and query: the folder is the working directory."""
    monkeypatch.chdir(tmp_path)
    small.to_csv("table.csv", index=False)
    context, query = small.groupby("id", sort=False).head(3), small.groupby("id", sort=False).tail(2)
    context.to_csv("context.csv", index=False)
    query.drop(columns="y").to_csv("query.csv", index=False)
    columns = [
        "--task",
        "id",
        "--x",
        "x",
        "--y",
        "y",
        "--categorical",
        "arm",
        "--method",
        "alpaca-linear",
        "--steps",
        "20",
    ]
    done = CliRunner().invoke(app, ["fit", "table.csv", *columns, "-o", "model", "--holdout", "0.25"])
    assert done.exit_code == 0, done.output
    return tmp_path, context, query


def read_text(path: str) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def test_names_are_what_is_written(
    session: Session, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, query = session
    code, out, _ = run(
        capsys, monkeypatch, "predict", "model", "context.csv", "query.csv", "-o", "o.csv", "--tasks", "t.csv"
    )
    assert code == 0
    assert "12 of 12 tasks to predict have context\n24 rows of 12 tasks written to o.csv" in out
    found = read_text("o.csv")
    assert found[["id", "x", "arm"]].values.tolist() == query[["id", "x", "arm"]].values.tolist()
    error = found["mean"].astype(float).to_numpy() - query["y"].astype(float).to_numpy()
    assert np.abs(error).max() < 1.0  # five deviations of the noise; tasks differ by 3
    tasks = read_text("t.csv")
    assert tasks["id"].tolist() == query["id"].unique().tolist()
    assert set(tasks["points"]) == {"3"}

    trained = json.loads(Path("model", "model.json").read_text())["extra"]["trained_on"]
    assert len(trained) == 9
    assert set(trained) < set(query["id"])
    code, out, err = run(capsys, monkeypatch, "evaluate", "model", "table.csv", "--shots", "1")
    assert (code, err) == (0, "")
    assert "9 of the 12 tasks are of the training and left out" in out
    # a task of the training, written in another way
    pd.DataFrame({"id": [trained[0] + " "] * 3, "x": "1", "arm": "1", "y": "1"}).to_csv("only.csv", index=False)
    _, _, err = run(capsys, monkeypatch, "evaluate", "model", "only.csv", "--shots", "1")
    assert "warning: 1 of 1 tasks may be of the training" in err


def test_a_context_of_other_names_is_said(
    session: Session, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, context, query = session
    files = ("predict", "model", "c.csv", "query.csv", "-o", "o.csv")
    context.assign(id="_" + context["id"]).to_csv("c.csv", index=False)
    code, out, err = run(capsys, monkeypatch, *files)
    assert code == 0
    assert "0 of 12 tasks to predict have context; 12 tasks of the context are not asked about" in out
    assert err == (
        "warning: none of 12 tasks to predict has context, so that the prior predicts them all; "
        "the first task of the context is '_000'\n"
    )
    context[context["id"] == "10"].assign(id="10.0").to_csv("c.csv", index=False)
    query[query["id"] == "10"].to_csv("q.csv", index=False)
    code, _, err = run(capsys, monkeypatch, "predict", "model", "c.csv", "q.csv", "-o", "o.csv")
    assert "perhaps these are one: '10.0' and '10'" in err
    # a header alone, or rows without outcomes, say nothing of any task
    context.head(0).to_csv("c.csv", index=False)
    code, out, err = run(capsys, monkeypatch, *files)
    assert (code, err) == (0, "")
    assert "0 of 12 tasks to predict have context\n" in out
    prior = read_text("o.csv")
    context.assign(y="NA").to_csv("c.csv", index=False)
    code, _, err = run(capsys, monkeypatch, *files)
    assert "no row of the context has an outcome" in err
    assert read_text("o.csv").equals(prior)


@pytest.mark.parametrize("column", ["mean", "sd", "lower", "upper"])
def test_columns_called_like_results_are_refused(
    column: str, session: Session, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    session[2].assign(**{column: "mine"}).to_csv("q.csv", index=False)
    code, _, err = run(capsys, monkeypatch, "predict", "model", "context.csv", "q.csv", "-o", "o.csv")
    assert code == 2
    assert f"got one with '{column}': rename that column" in err
    assert not Path("o.csv").exists()


@pytest.mark.parametrize("column", ["points", "p_value"])
def test_a_task_column_called_like_a_result(
    column: str,
    small: pd.DataFrame,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    small.rename(columns={"id": column}).to_csv("t.csv", index=False)
    base = ("--task", column, "--x", "x", "--y", "y", *QUICK, "-o", "m")
    assert run(capsys, monkeypatch, "fit", "t.csv", *base)[0] == 0
    assert run(capsys, monkeypatch, "predict", "m", "t.csv", "t.csv", "-o", "o.csv")[0] == 0
    code, _, err = run(capsys, monkeypatch, "predict", "m", "t.csv", "t.csv", "-o", "o.csv", "--tasks", "ts.csv")
    assert code == 2
    assert f"got one with '{column}'" in err
    small.rename(columns={"id": "sd"}).to_csv("t.csv", index=False)
    code, _, err = run(capsys, monkeypatch, "fit", "t.csv", "--task", "sd", *base[2:], "--force")
    assert code == 0
    assert "warning: predict will refuse the column 'sd'" in err


def test_fit_says_what_it_made_of_a_table(
    small: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    frame = small.assign(twice=small["id"].map({"000": "TRUE"}).fillna("FALSE"), same="7", spare="x", site="s")
    frame.loc[[3, 50], "y"] = ["NA", ""]
    frame.to_csv("t.csv", index=False, sep=";", decimal=",")
    columns = ["--task", "id", "--x", "x", "--y", "y", "--x", "twice", "--x", "same", "--covariate", "site"]
    arguments = ("fit", "t.csv", *columns, "--categorical", "arm", "-o", "m", "--steps", "3", "--holdout", "0.2")
    arguments = (*arguments, "--method", "alpaca")
    code, out, err = run(capsys, monkeypatch, *arguments)
    assert code == 0
    assert err.splitlines()[0] == "note: in t.csv, cells are separated by semicolons"
    lines = out.splitlines()
    assert lines[0] == "id: names the task, 12 of them"
    assert lines[1].startswith("x: input, a number from 0.")
    assert lines[2:6] == [
        "twice: input, true as 1 and false as 0, constant within tasks",
        "same: input, a number from 7 to 7, the same in every row",
        "arm: input, categories 1 (15 rows), 1.0 (14 rows), Low (15 rows), None (14 rows), a 0/1 input each, "
        "constant within tasks",
        "site: covariate, categories s (58 rows), a 0/1 input each, the same in every row",
    ]
    assert lines[6].startswith("y: outcome, a number from ")
    assert lines[6].endswith(", missing in 2 rows")
    assert lines[7:10] == [
        "not used: spare",
        "2 rows are left out, because they have no outcome: line 5, line 52",
        "12 tasks: 8 to learn from, 2 for early stopping, 2 held out",
    ]
    code, out, _ = run(capsys, monkeypatch, *arguments, *QUICK, "--force")
    assert "12 tasks: 10 to learn from, 2 held out" in out
    assert json.loads(Path("m", "model.json").read_text())["extra"]["schema"]["levels"] == {
        "arm": ["1", "1.0", "Low", "None"], "site": ["s"],
    }  # fmt: skip


def test_forms_of_tables_give_the_same_model(
    small: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    columns = ("--task", "id", "--x", "x", "--y", "y", "--covariate", "arm", "--categorical", "arm")
    plain = small.to_csv(index=False)
    numbers = small.assign(x=small["x"].str.replace(".", ","), y=small["y"].str.replace(".", ","))
    forms = {
        "plain.csv": plain.encode(),
        "trailing.csv": plain.replace("\n", ",\n").encode(),
        "commented.csv": b"# made by logger\n" + plain.encode(),
        "german.csv": numbers.to_csv(index=False, sep=";").encode(),
        "sheets.csv": numbers.to_csv(index=False).encode(),
        "packed.csv.gz": gzip.compress(small.to_csv(index=False, sep="\t").encode()),
    }
    found = []
    for name, content in forms.items():
        Path(name).write_bytes(content)
        code, out, _ = run(capsys, monkeypatch, "fit", name, *columns, "-o", "m", *QUICK, "--force")
        assert code == 0
        code, _, _ = run(capsys, monkeypatch, "predict", "m", name, name, "-o", f"made/{name}.out")
        assert code == 0
        text = Path("made", f"{name}.out").read_text()
        sep = ";" if name == "german.csv" else "\t" if "packed" in name else ","
        rows = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, sep=sep)
        found.append((out.splitlines()[:4], rows["id"].tolist(), rows["mean"].str.replace(",", ".").tolist()))
    assert all(each == found[0] for each in found)
    german = Path("made", "german.csv.out").read_text().splitlines()
    assert german[0] == "id;x;arm;y;mean;sd;lower;upper"
    assert "." not in german[2].split(";", 1)[1]


BAD_CELLS = {
    "unit": (
        "x",
        "3 mg",
        [],
        "numbers or categories in column 'x', got both: '3 mg' in line 5: write the number alone",
    ),
    "thousands": ("y", "1,234", [], "numbers in column 'y', got '1,234' in line 5: write thousands without"),
    "decimal comma": ("y", "1,5", [], "got both: '1,5' in column 'y' in line 5, and '"),
    "infinity": ("x", "-inf", [], "finite numbers in column 'x', got infinity in line 5"),
    "missing x": ("x", "NA", [], "a number in column 'x' of every row, got a missing cell in line 5"),
    "missing task": ("id", "", [], "a task in column 'id' of every row, got none in line 5"),
    "blank task": ("id", "  ", [], "a task in column 'id' of every row, got none in line 5"),
    "date as y": ("y", "2020-01-31", [], "got '2020-01-31' in line 5: convert dates to a number"),
    "missing category": (
        "arm",
        "",
        ["--categorical", "arm"],
        "to hold one of ['1', '1.0', 'Low', 'None'], got a missing",
    ),
    "codes that are not said": ("arm", "2", ["--x", "arm"], "got both: 'Low' in line 17. If all are names"),
    "not constant": (
        "arm",
        "Low",
        ["--covariate", "arm", "--categorical", "arm"],
        "constant within a task, got 2 values",
    ),
    "name of another column": ("x", "1", ["--x", "z"], "a column 'z' in bad.csv, got ['id', 'x', 'arm', 'y']"),
    "two roles": ("x", "1", ["--categorical", "y"], "every column in one role, got 'y' twice"),
}


@pytest.mark.parametrize("name", BAD_CELLS)
def test_bad_cells_are_named(
    name: str, small: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    column, cell, more, message = BAD_CELLS[name]
    frame = small.copy()
    frame.loc[3, column] = cell
    frame.to_csv("bad.csv", index=False)
    columns = ("--task", "id", "--x", "x", "--y", "y", *QUICK)
    code, _, err = run(capsys, monkeypatch, "fit", "bad.csv", *columns, *more, "-o", "m")
    assert (code, err.count("\n")) == (2, 1), err
    assert message in err
    assert not Path("m").exists()


DATES = [
    "2020-01-{:02d}",
    "2020/1/{}",
    "{}.01.2020",
    "1/{}/20",
    "{} Jan 2020",
    "Jan {}, 2020",
    "2020-01-{:02d}T12:30:00Z",
]


@pytest.mark.parametrize("form", [*DATES, "12:{:02d}:05", "2020-01-{:02d} 3:30 pm"])
def test_dates_are_refused_unless_they_are_said_to_be_names(
    form: str, small: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small.assign(day=[form.format(1 + i % 4) for i in range(60)]).to_csv("t.csv", index=False)
    base = ("fit", "t.csv", "--task", "id", "--y", "y", *QUICK, "-o", "m")
    code, _, err = run(capsys, monkeypatch, *base, "--x", "day")
    assert (code, err.count("\n")) == (2, 1), err
    assert "got a date or time" in err
    assert "days since a start" in err
    code, out, _ = run(capsys, monkeypatch, *base, "--categorical", "day")
    assert code == 0
    assert "day: input, categories " in out


def test_text_with_a_level_a_row_or_a_task_is_refused(
    small: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    many = pd.concat([small.assign(id=small["id"] + str(i)) for i in range(2)])  # 24 tasks
    many.assign(note=[f"n{i}" for i in range(120)], who="w" + many["id"]).to_csv("t.csv", index=False)
    base = ("fit", "t.csv", "--task", "id", "--y", "y", *QUICK, "-o", "m")
    for column, words in (("note", "120 different texts in 120 rows"), ("who", "24 different texts in 24 tasks")):
        code, _, err = run(capsys, monkeypatch, *base, "--x", column)
        assert code == 2
        assert f"categories in column '{column}', got {words}: leave it out, or group its levels" in err


def test_what_predict_cannot_read_is_named_with_its_table(
    session: Session, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, context, query = session
    context.assign(y="high").to_csv("c.csv", index=False)
    query.assign(arm="2").to_csv("q.csv", index=False)
    for files, message in (
        (("c.csv", "query.csv"), "numbers in column 'y', got 'high' in line 2 (in c.csv)"),
        (("context.csv", "q.csv"), "to hold one of ['1', '1.0', 'Low', 'None'], got '2' in line 2 (in q.csv)"),
        (("query.csv", "query.csv"), "expected a column 'y' in query.csv, got ['id', 'x', 'arm']"),
        (("context.csv", "table.csv", "--sep", ";"), "say what separates its cells with --sep"),
    ):
        code, _, err = run(capsys, monkeypatch, "predict", "model", *files, "-o", "o.csv")
        assert (code, err.count("\n")) == (2, 1), err
        assert message in err


def test_outputs_are_where_they_belong(
    session: Session, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _, _ = session
    base = ("predict", "model", "context.csv", "query.csv", "-o")
    assert run(capsys, monkeypatch, *base, "new/folder/o.csv", "--tasks", "other/t.csv")[0] == 0
    (folder / "link.csv").symlink_to("target.csv")
    assert run(capsys, monkeypatch, *base, "link.csv")[0] == 0
    right = Path("new/folder/o.csv").read_text()
    assert Path("target.csv").read_text() == right
    assert Path("link.csv").is_symlink()
    # a table on standard output is nothing but the table
    code, out, err = run(capsys, monkeypatch, *base, "/dev/stdout")
    assert (code, out) == (0, right)
    assert "24 rows of 12 tasks written to /dev/stdout" in err
    assert run(capsys, monkeypatch, *base, "/dev/null")[0] == 0
    assert Path("/dev/null").is_char_device()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for more in (
        ("target.csv", "--tasks", "link.csv"),
        ("o.csv", "--tasks", "./o.csv"),
        ("/dev/stdout", "--tasks", "/dev/stdout"),
        ("query.csv",),
        ("context.csv",),
        ("ok.csv", "--tasks", "query.csv"),
        ("model/out.csv",),
        ("model/model.json",),
        ("model",),
        ("new",),
        ("target.csv/o.csv",),
    ):
        code, _, err = run(capsys, monkeypatch, *base, *more)
        assert (code, err.count("\n")) == (2, 1), (more, err)
        assert err.startswith("error: expected"), err
    for more in (("-o", "table.csv"), ("-o", "model/e.csv"), ("-o", "new")):
        assert run(capsys, monkeypatch, "evaluate", "model", "table.csv", *more)[0] == 2
    for more in (("-o", "table.csv"), ("-o", "figs", "--figures", "figs"), ("-o", "r.html", "--figures", "target.csv")):
        assert run(capsys, monkeypatch, "report", "model", "table.csv", *more)[0] == 2
    assert run(capsys, monkeypatch, "demo", "-o", "target.csv")[0] == 2  # at once, not after two minutes
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    code, _, _ = run(capsys, monkeypatch, "evaluate", "model", "table.csv", "--shots", "1", "-o", "scores/e.csv")
    assert code == 0
    assert pd.read_csv("scores/e.csv").shots.tolist() == [1]


def test_warnings_are_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def odd(**_: object) -> None:
        warnings.simplefilter("always")
        warnings.warn("this is odd", stacklevel=1)
        raise SystemExit(0)

    monkeypatch.setattr("bayesmeta.cli.app.app", odd)
    assert run(capsys, monkeypatch, "methods") == (0, "", "warning: this is odd\n")


def test_the_installed_command_runs() -> None:
    done = subprocess.run([sys.executable, "-c", "from bayesmeta.cli.app import main; main()", "methods"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert "alpaca-linear" in done.stdout


def test_demo_prints_the_table_and_saves_the_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from bayesmeta.demo import run as demo

    evaluation, _ = demo(tmp_path / "figures", steps=30, num_tasks=30)
    assert (tmp_path / "figures" / "sinusoid.png").stat().st_size > 10_000
    out = capsys.readouterr().out
    assert all(word in out for word in ("NLL", "RMSE", "coverage 90 %", "regret", "floor"))
    assert evaluation.shots == (0, 1, 2, 3, 5, 10, 20)


def test_error_bars(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--yerr`: what is fitted, predicted and scored is what the library makes of the same rows."""
    frame = pd.read_csv(table)
    frame["error"] = np.where(frame.index % 3 == 0, 40.0, 2.0)
    frame.to_csv(table, index=False)
    code, out, err = run(
        *(capsys, monkeypatch, "fit", table, "--task", "subject", "--x", "days", "--y", "reaction", "--yerr", "error"),
        *("-o", tmp_path / "model", *QUICK),
    )
    assert (code, err) == (0, "")
    assert "error: known noise of reaction, a number from 2 to 40" in out
    assert "not used: arm" in out
    learner = bm.load(tmp_path / "model")
    schema = bm.tasks.Schema.from_json(json.loads((tmp_path / "model" / "model.json").read_text())["extra"]["schema"])
    assert schema.yerr == ("error",)
    known, query = frame[frame.days < 2], frame[frame.days == 2]
    known.to_csv(tmp_path / "known.csv", index=False)
    query[["subject", "days"]].to_csv(tmp_path / "query.csv", index=False)  # no error bars of what is not measured
    paths = [tmp_path / name for name in ("model", "known.csv", "query.csv")]
    assert run(capsys, monkeypatch, "predict", *paths, "-o", tmp_path / "out.csv")[0] == 0
    found = pd.read_csv(tmp_path / "out.csv")
    expected = bm.predict_frame(learner, schema, known, query[["subject", "days"]])
    np.testing.assert_allclose(found["mean"], expected["mean"], rtol=1e-6)
    exact = bm.predict_frame(learner, schema, known.assign(error=0.0), query[["subject", "days"]])
    assert (exact["mean"] - expected["mean"]).abs().max() > 1.0  # that the error bars are used
    code, out, _ = run(
        capsys, monkeypatch, "evaluate", tmp_path / "model", table, "--shots", "0,2", "--include-trained"
    )
    assert code == 0
    code, _, err = run(
        *(capsys, monkeypatch, "fit", table, "--task", "subject", "--x", "days", "--y", "reaction", "--yerr", "error"),
        *("-o", tmp_path / "other", "--method", "cnp", "--steps", "5"),
    )
    assert code == 2
    assert "without known noise" in err
