"""Forty wrong calls: each is one line on standard error and exit status 2, and leaves everything as it was."""

from pathlib import Path

import pandas as pd
import pytest

from tests.cli.conftest import Run

pytestmark = pytest.mark.filterwarnings("ignore::bayesmeta.errors.ConvergenceWarning")
COLUMNS = ("--task", "subject", "--x", "day", "--y", "time")
NEW = ("-o", "new")
FIT = ("fit", "t.csv", *COLUMNS, *NEW)
PREDICT = ("predict", "model", "context.csv", "query.csv", "-o", "new.csv")
EVALUATE = ("evaluate", "model", "t.csv")
CALLS: dict[str, tuple[tuple[str, ...], str]] = {
    # what typer sees
    "no such command": (("fitt", "t.csv"), "No such command 'fitt'"),
    "no such option": ((*FIT, "--lerning-rate", "1"), "No such option: --lerning-rate"),
    "no table": (("fit", *COLUMNS, *NEW), "Missing argument 'TABLE'"),
    "no output": (("fit", "t.csv", *COLUMNS), "Missing option '--output'"),
    "no outcome": (("fit", "t.csv", "--task", "subject", *NEW), "Missing option '--y'"),
    "an option without its value": (("fit", "t.csv", *COLUMNS, "-o"), "requires an argument"),
    "steps that are no number": ((*FIT, "--steps", "many"), "Invalid value for '--steps'"),
    "one argument too many": ((*EVALUATE, "more"), "unexpected extra argument"),
    # files
    "a missing table": (("fit", "none.csv", *COLUMNS, *NEW), "none.csv"),
    "a folder for a table": (("fit", "empty", *COLUMNS, *NEW), "empty"),
    "an empty table": (("fit", "blank.csv", *COLUMNS, *NEW), "blank.csv"),
    "a table that is no text": (("fit", "binary.csv", *COLUMNS, *NEW), "binary.csv"),
    "a file for a model folder": (("fit", "t.csv", *COLUMNS, "-o", "t.csv"), "t.csv is a file"),
    "a model that is there": (("fit", "t.csv", *COLUMNS, "-o", "model"), "pass --force"),
    "a folder of something else": (("fit", "t.csv", *COLUMNS, "-o", "notes", "--force"), "which holds 'mine.txt'"),
    "a missing file of options": ((*FIT, "--config", "none.toml"), "none.toml: No such file"),
    "a file that is no TOML": ((*FIT, "--config", "t.csv"), "expected options as TOML in t.csv"),
    # columns
    "a missing column": ((*FIT, "--x", "dose"), "'dose'"),
    "a column in two roles": ((*FIT, "--x", "time"), "'time' twice"),
    "a covariate that varies": ((*FIT, "--covariate", "errors"), "'errors' to be constant within a task"),
    "a random effect of no covariate": ((*FIT, "--random", "age"), "--covariate names, too, got 'age'"),
    "text for numbers": ((*FIT, "--outcome", "number", "--y", "late"), "'late'"),
    "noise of one outcome of two": ((*FIT, "--y", "errors", "--yerr", "age"), "a yerr column for each"),
    # values
    "an outcome that there is not": ((*FIT, "--outcome", "colours"), "got 'colours'"),
    "a method that there is not": ((*FIT, "--method", "nonsense"), "got 'nonsense'"),
    "a method for classes": ((*FIT, "--method", "metaoptnet"), "which is not for numbers"),
    "a method for numbers": (
        ("fit", "t.csv", "--task", "subject", "--x", "day", "--y", "late", *NEW, "--method", "alpaca"),
        "which is not for classes",
    ),
    "no step": ((*FIT, "--steps", "0"), "steps"),
    "a holdout of everything": ((*FIT, "--holdout", "1"), "--holdout and --recalibrate below 1"),
    "a negative holdout": ((*FIT, "--holdout", "-0.5"), "a share of test tasks"),
    "too few tasks to correct by": ((*FIT, "--recalibrate", "0.05"), "at least 10 tasks to correct"),
    "a negative seed": ((*FIT, "--seed", "-1"), "seed"),
    "a validation of everything": ((*FIT, "--method", "maml", "--validation", "1"), "for validation"),
    "a learning rate without gradients": ((*FIT, "--method", "alpaca-linear", "--lr", "0.1"), "no use for it"),
    "a negative learning rate": ((*FIT, "--method", "maml", "--lr", "-1"), "a positive learning rate"),
    "no such device": ((*FIT, "--device", "quantum"), "--device cpu, cuda or auto"),
    "a separator of two letters": ((*FIT, "--sep", "ab"), "'ab'"),
    # models
    "a missing model": (("evaluate", "none", "t.csv"), "none"),
    "a folder that is no model": (("evaluate", "empty", "t.csv"), "empty"),
    "a damaged model": (("evaluate", "damaged", "t.csv"), "model.json"),
    "tasks that were all trained on": (EVALUATE, "not trained on, got 40"),
    "shots that are no numbers": ((*EVALUATE, "--include-trained", "--shots", "1,two"), "'1,two'"),
    "negative shots": ((*EVALUATE, "--include-trained", "--shots", "-1"), "-1"),
    "more shots than points": ((*EVALUATE, "--include-trained", "--shots", "100"), "100"),
    "a level of two": ((*EVALUATE, "--include-trained", "--level", "2"), "level"),
    "a level of two for predictions": ((*PREDICT, "--level", "2"), "level"),
    "scores in the place of the table": ((*EVALUATE, "-o", "t.csv"), "--output to be another file than TABLE"),
    "a report in the place of the table": (("report", *EVALUATE[1:], "-o", "t.csv"), "another file than TABLE"),
    "predictions in the place of the query": ((*PREDICT[:-1], "query.csv"), "another file than QUERY"),
    "two outputs in one file": ((*PREDICT, "--tasks", "new.csv"), "another file than --output"),
    "predictions inside of the model": ((*PREDICT[:-1], "model/new.csv"), "outside of MODEL"),
    "a query that has the results": (("predict", "model", "t.csv", "done.csv", "-o", "new.csv"), "'mean'"),
    "a query of other columns": (("predict", "model", "t.csv", "other.csv", "-o", "new.csv"), "'day'"),
    "a beginning for nothing": ((*PREDICT, "--forecast"), "expected --forecast with --conformal"),
    "conformal without tasks": ((*PREDICT, "--conformal", "t.csv"), "or give another table"),
    "methods for what is not": (("methods", "--outcome", "colours"), "got 'colours'"),
    "a search of no network": (
        ("search", "t.csv", *COLUMNS, "-o", "new.jsonl", "--method", "alpaca-linear"),
        "a method that takes any network",
    ),
}


@pytest.fixture(scope="module")
def model(subjects: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fitted model, made once."""
    import bayesmeta as bm
    from bayesmeta.cli.model_folders import save_model
    from bayesmeta.recipes import recipe
    from bayesmeta.trainers import Training

    schema = bm.tasks.Schema.of(subjects, "subject", ["day"], "time")
    tasks, chosen = bm.TaskDataset.from_schema(subjects, schema), recipe("alpaca-linear")
    trained = chosen.train(chosen.for_table(schema), tasks, Training(steps=20))
    folder = tmp_path_factory.mktemp("fitted") / "model"
    save_model(trained.learner, folder, schema, "alpaca-linear", tasks, tasks, None, 0)
    return folder


def everything(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("name", CALLS)
def test_one_line(name: str, command: Run, subjects: pd.DataFrame, model: Path, tmp_path: Path) -> None:
    subjects.to_csv("t.csv", index=False)
    subjects[subjects["day"] < 1].to_csv("context.csv", index=False)
    subjects.drop(columns="time").to_csv("query.csv", index=False)
    subjects.assign(mean=1.0).to_csv("done.csv", index=False)
    subjects.rename(columns={"day": "week"}).to_csv("other.csv", index=False)
    Path("blank.csv").write_text("")
    Path("binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    for folder in ("empty", "notes", "model", "damaged"):
        Path(folder).mkdir()
    Path("notes", "mine.txt").write_text("mine")
    for path in model.iterdir():
        content = path.read_bytes()
        Path("model", path.name).write_bytes(content)
        Path("damaged", path.name).write_bytes(content[: len(content) // 2])
    before = everything(tmp_path)
    arguments, message = CALLS[name]
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    assert err.endswith("\n")
    assert message in err
    assert everything(tmp_path) == before


def test_there_are_forty() -> None:
    assert len(CALLS) >= 40
