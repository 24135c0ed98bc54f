"""The command line as a user runs it: whole sessions, and every kind of bad input as one line, never a traceback."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from bayesmeta.cli import app, main
from bayesmeta.recipes import RECIPES


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
    assert sorted(p.suffix for p in model.iterdir()) == [".json", ".safetensors"]
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


@pytest.mark.parametrize("method", [name for name in RECIPES if name != "alpaca-linear"])
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


def test_the_installed_command_runs() -> None:
    done = subprocess.run([sys.executable, "-c", "from bayesmeta.cli import main; main()", "methods"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert "alpaca-linear" in done.stdout


def test_demo_prints_the_table_and_saves_the_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from bayesmeta.demo import run as demo

    evaluation, _ = demo(tmp_path / "figures", steps=30, num_tasks=30)
    assert (tmp_path / "figures" / "sinusoid.png").stat().st_size > 10_000
    out = capsys.readouterr().out
    assert all(word in out for word in ("NLL", "RMSE", "coverage 90 %", "regret", "floor"))
    assert evaluation.shots == (0, 1, 2, 3, 5, 10, 20)
