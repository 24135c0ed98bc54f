"""`bayesmeta fit`: what it echoes, where it says that the model stands, what it keeps and what it never replaces."""

import json
import os
import signal
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import bayesmeta as bm
from bayesmeta.cli import options
from tests.cli.conftest import Run

pytestmark = pytest.mark.filterwarnings("ignore::bayesmeta.errors.ConvergenceWarning")  # few steps are enough here
COLUMNS = ("--task", "subject", "--x", "day", "--y", "time")
LINEAR = ("--method", "alpaca-linear")
FIT = ("fit", "t.csv", *COLUMNS, "-o", "m", *LINEAR)


@pytest.fixture
def table(subjects: pd.DataFrame, command: Run) -> pd.DataFrame:
    """The subjects as t.csv in the working directory."""
    subjects.to_csv("t.csv", index=False)
    return subjects


def test_what_is_said(table: pd.DataFrame, command: Run) -> None:
    code, out, err = command(*FIT, "--covariate", "age", "--covariate", "site", "--holdout", "0.25")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[1] == "day: input, a number from 0 to 7"
    assert lines[2].startswith("age: covariate, a number from ")
    assert lines[3].startswith("site: covariate, categories north (")
    assert lines[3].endswith(" rows), a 0/1 input each")
    assert lines[5:8] == [
        "not used: errors, late",
        "effects of age, site are the same in all tasks; those of day differ between tasks",
        "40 tasks: 30 to learn from, 10 held out",
    ]
    assert lines[-4].startswith("time: noise ")
    noise, between = (float(lines[-4].split(word)[1].split()[0].rstrip(",")) for word in ("noise ", "differ by "))
    assert abs(noise - 5.0) < 1.0  # its deviation is known to 7 % from 30 tasks of 6 rows
    assert 20.0 < between < 40.0  # levels differ by 20, and slopes by 4 over up to 7 days
    assert lines[-3] == "converged: nothing more was to be gained"
    assert lines[-1] == "model written to m"


def test_codes_of_groups_are_asked_about(table: pd.DataFrame, command: Run) -> None:
    codes = table.assign(arm=table["subject"].astype("category").cat.codes % 3 + 1)
    codes.to_csv("t.csv", index=False)
    code, out, err = command(*FIT, "--covariate", "arm")
    assert (code, "arm: covariate, a number from 1 to 3" in out) == (0, True)
    said = "note: 'arm' holds 1, 2, 3: if they are codes of groups and no quantity, --categorical arm says so\n"
    assert err == said
    code, out, err = command(*FIT, "--covariate", "arm", "--categorical", "arm", "--force")
    assert (code, "arm: covariate, categories 1 (" in out, err) == (0, True, "")


def test_a_column_that_is_nearly_called_so_is_named(table: pd.DataFrame, command: Run) -> None:
    code, _, err = command("fit", "t.csv", "--task", "Subject", "--x", "day", "--y", "time", "-o", "m")
    assert (code, "'late']. Is 'subject' meant?" in err) == (2, True)
    code, _, err = command("fit", "t.csv", "--task", "who", "--x", "day", "--y", "time", "-o", "m")
    assert (code, "meant" in err) == (2, False)


def test_a_random_effect_of_a_covariate(table: pd.DataFrame, command: Run) -> None:
    assert command(*FIT, "--covariate", "age")[0] == 0
    code, out, _ = command(*FIT, "--covariate", "age", "--random", "age", "--force")
    assert code == 0
    assert "age: input, a number from 18 to 66, constant within tasks" in out or "age: input" in out
    assert "the same in all tasks" not in out
    learner = bm.load("m").learner
    assert isinstance(learner, bm.ALPaCA)
    assert learner.prior.covariance.varying == (0, 1, 2)
    code, _, err = command(*FIT, "--random", "age", "--force")
    assert (code, err) == (2, "error: expected --random to name a column that --covariate names, too, got 'age'\n")


def test_a_model_is_replaced_only_where_that_is_said(table: pd.DataFrame, command: Run) -> None:
    assert command(*FIT)[0] == 0
    before = {path: path.read_bytes() for path in Path("m").iterdir()}
    code, out, err = command(*FIT)
    assert (code, out) == (2, "")  # at once, not after the training
    assert err == "error: expected a new folder, got the model m: pass --force to replace it\n"
    assert {path: path.read_bytes() for path in Path("m").iterdir()} == before
    assert command(*FIT, "--holdout", "0.5", "--force")[0] == 0
    assert len(list(Path("m").iterdir())) == 3
    Path("notes").mkdir()
    Path("notes", "a.txt").write_text("mine")
    for more in ((), ("--force",)):
        code, _, err = command(*FIT, "-o", "notes", *more)
        assert code == 2
        assert (
            err
            == "error: expected a new folder, an empty one or a model, got notes, which holds 'a.txt' and no model\n"
        )
    Path("empty").mkdir()
    assert command(*FIT, "-o", "empty")[0] == 0


def test_a_run_is_repeated_by_its_options(table: pd.DataFrame, command: Run) -> None:
    more = ("--covariate", "age", "--covariate", "site", "--holdout", "0.2", "--seed", "3")
    assert (
        command("fit", "t.csv", *COLUMNS, "-o", "m", "--method", "alpaca", "--steps", "3", "--lr", "0.01", *more)[0]
        == 0
    )
    kept = tomllib.loads(Path("m", "options.toml").read_text())
    assert kept == {
        "table": "t.csv",
        "task": "subject",
        "y": ["time"],
        "output": "m",
        "x": ["day"],
        "covariate": ["age", "site"],
        "method": "alpaca",
        "holdout": 0.2,
        "recalibrate": 0.0,
        "steps": 3,
        "lr": 0.01,
        "device": "cpu",
        "seed": 3,
    }
    code, out, _ = command("fit", "--config", "m/options.toml", "-o", "again")
    assert code == 0
    assert "32 to learn from" not in out  # of these some stop the training early
    first, again = (bm.load(folder).state_dict() for folder in ("m", "again"))
    assert all(bool((value == again[name]).all()) for name, value in first.items())
    other = tomllib.loads(Path("again", "options.toml").read_text())
    assert other == kept | {"output": "again"}
    assert command("fit", "--config", "m/options.toml")[0] == 2  # there is a model
    # the command line wins, also over lists, and what is not of numbers has its own default method
    code, out, err = command(
        *("fit", "--config", "m/options.toml", "-o", "third", "--y", "errors", "--seed", "4", "--method", "maml")
    )
    assert code == 0, err
    assert tomllib.loads(Path("third", "options.toml").read_text())["y"] == ["errors"]


def test_odd_names_survive_the_file(subjects: pd.DataFrame, command: Run) -> None:
    odd = 'a "quoted" \\ µ\t\x7f'
    subjects.rename(columns={"day": odd}).to_csv("t.csv", index=False)
    arguments = ("--task", "subject", "--x", odd, "--y", "time", *LINEAR)
    assert command("fit", "t.csv", *arguments, "-o", "m")[0] == 0
    assert tomllib.loads(Path("m", "options.toml").read_text(encoding="utf-8"))["x"] == [odd]
    assert command("fit", "--config", "m/options.toml", "-o", "n")[0] == 0


def test_a_file_of_options_by_hand(table: pd.DataFrame, command: Run) -> None:
    Path("o.toml").write_text('table = "t.csv"\ntask = "subject"\nx = "day"\ny = "time"\nmethod = "alpaca-linear"\n')
    assert command("fit", "--config", "o.toml", "-o", "m")[0] == 0
    for text, message in (
        ("stepz = 3", "got 'stepz'"),
        ("force = true", "got 'force'"),
        ("x = 3", "expected a text, or a list of texts for x"),
        ("x = ['day', 1]", "expected a text, or a list of texts for x"),
        ("task = ['subject']", "expected a text or a number for task"),
        ("steps = true", "expected a text or a number for steps"),
        ("steps = 'many'", "Invalid value for '--steps'"),
        ("[fit]\nsteps = 3", "got 'fit'"),
        ("steps = ", "expected options as TOML in bad.toml"),
    ):
        Path("bad.toml").write_text(text)
        code, out, err = command("fit", "t.csv", *COLUMNS, "-o", "new", "--config", "bad.toml")
        assert (code, out, err.count("\n")) == (2, "", 1), text
        assert message in err
        assert not Path("new").exists()


def test_convergence_of_gradients(table: pd.DataFrame, command: Run) -> None:
    common = ("fit", "t.csv", *COLUMNS, "--method", "alpaca")
    code, out, _ = command(*common, "-o", "few", "--steps", "20")
    assert code == 0
    assert "32 to learn from, 8 for early stopping" in out
    assert sum(line.startswith(("not converged: ", "converged: ", "stopped early: ")) for line in out.splitlines()) == 1
    code, out, _ = command(*common, "-o", "none", "--steps", "1", "--validation", "0")
    assert "not converged: 1 steps are too few to tell: raise --steps" in out
    assert "40 tasks: 40 to learn from" in out
    code, out, _ = command(*common, "-o", "half", "--steps", "2", "--validation", "0.5", "--lr", "0.1")
    assert "20 to learn from, 20 for early stopping" in out


def test_the_device(table: pd.DataFrame, command: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import torch

    assert options.device_of("auto") in (torch.device("cpu"), torch.device("cuda"))
    assert command(*FIT, "--device", "auto")[0] == 0
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for device, message in (
        ("cuda", "expected a GPU for --device cuda, got none that torch sees: take cpu, or auto"),
        ("cuda:1", "expected a GPU for --device cuda:1, got none that torch sees: take cpu, or auto"),
        ("tpu", "expected --device cpu, cuda or auto, got 'tpu'"),
        ("cuda:x", "expected --device cpu, cuda or auto, got 'cuda:x'"),
    ):
        assert command(*FIT, "--device", device, "-o", "n") == (2, "", f"error: {message}\n")
        assert command("evaluate", "m", "t.csv", "--device", device) == (2, "", f"error: {message}\n")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert options.device_of("cuda:1") == torch.device("cuda:1")


def test_predictions_are_corrected_by_tasks_of_their_own(table: pd.DataFrame, command: Run) -> None:
    code, out, err = command(*FIT, "--recalibrate", "0.5", "--holdout", "0.25")
    assert (code, err) == (0, "")
    assert "40 tasks: 10 to learn from, 20 to correct predictions by, 10 held out" in out
    assert "predictions: " in out
    assert isinstance(bm.load("m"), bm.wrappers.VarianceScaled)
    assert len(json.loads(Path("m", "model.json").read_text())["extra"]["trained_on"]) == 30
    assert "10 tasks were held out" in out
    code, out, _ = command("evaluate", "m", "t.csv", "--shots", "2")
    assert code == 0
    assert "30 of the 40 tasks are of the training and left out" in out
    for share, holdout in ((0.5, 0.5), (1.5, 0.0), (-0.1, 0.0)):
        code, _, err = command(*FIT, "--recalibrate", share, "--holdout", holdout, "--force")
        assert (code, err.count("\n")) == (2, 1)
        assert "expected --holdout and --recalibrate below 1 together" in err
    code, _, err = command(*FIT, "--recalibrate", 0.1, "--force")
    assert (code, "expected at least 10 tasks to correct predictions by, got 4" in err) == (2, True)


def test_an_outcome_itself_and_its_measurements(table: pd.DataFrame, command: Run) -> None:
    assert command(*FIT)[0] == 0
    table[table["day"] < 2].to_csv("c.csv", index=False)
    for name, more in (("new", ()), ("itself", ("--noiseless",))):
        assert command("predict", "m", "c.csv", "t.csv", "-o", f"{name}.csv", *more)[0] == 0
    new, itself = pd.read_csv("new.csv"), pd.read_csv("itself.csv")
    np.testing.assert_array_equal(new["mean"], itself["mean"])
    noise = (new["sd"] ** 2 - itself["sd"] ** 2) ** 0.5
    np.testing.assert_allclose(noise, noise[0], rtol=1e-6)  # the same at all points
    assert 4.0 < noise[0] < 6.0  # 5 in the table
    assert ((itself["upper"] - itself["lower"]) < (new["upper"] - new["lower"])).all()
    # where they are one to the method, and where there is no noise
    assert command("fit", "t.csv", *COLUMNS, "-o", "cnp", "--method", "cnp", "--steps", "2")[0] == 0
    code, _, err = command("predict", "cnp", "c.csv", "t.csv", "-o", "no.csv", "--noiseless")
    assert code == 2
    assert err.startswith("error: expected a method that separates the outcome from its noise, got one")
    assert not Path("no.csv").exists()


def test_conformal_intervals_hold_what_they_promise(command: Run) -> None:
    """By a model whose intervals are a third of what they should be, as its noise is known to it wrongly."""
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"who": np.repeat(np.arange(160), 5), "x": rng.uniform(0, 1, 800), "bar": 0.3})
    frame["y"] = np.repeat(rng.normal(0, 1, 160), 5) + rng.standard_t(2, 800)
    train, others, new = (frame[frame.who.between(*ends)] for ends in ((0, 39), (40, 119), (120, 159)))
    pd.concat([train, others]).to_csv("t.csv", index=False)
    train.to_csv("train.csv", index=False)
    known = new.groupby("who").head(2)
    known[known.who != 159].to_csv("c.csv", index=False)  # of one task nothing is known
    new.groupby("who").tail(3).drop(columns="y").to_csv("q.csv", index=False)
    columns = ("--task", "who", "--x", "x", "--y", "y", *LINEAR)
    assert command("fit", "train.csv", *columns, "-o", "m")[0] == 0
    code, out, err = command("predict", "m", "c.csv", "q.csv", "-o", "o.csv", "--conformal", "t.csv", "--level", "0.8")
    assert (code, err) == (0, "")
    assert "conformal by tasks of t.csv; 40 of the 120 tasks are of the training and left out" in out
    found = pd.read_csv("o.csv")
    truth = new.groupby("who").tail(3)["y"].to_numpy()
    held = ((found["lower"] <= truth) & (truth <= found["upper"])).groupby(found["who"]).mean()
    assert abs(held.mean() - 0.8) < 4 * (held.std() / 40**0.5 + 0.3 / 80**0.5)  # of 40 tasks by 80
    assert found["lower"].notna().all()
    # more points than calibration tasks have beside one to be scored
    new.to_csv("all.csv", index=False)
    code, _, err = command("predict", "m", "all.csv", "q.csv", "-o", "n.csv", "--conformal", "t.csv")
    assert code == 2
    assert err.startswith("error: expected at least 9 calibration tasks for a level of 0.9, got 0")
    some = pd.concat([new[new.who == 120], known[known.who != 120]])
    some.to_csv("some.csv", index=False)
    code, _, err = command("predict", "m", "some.csv", "q.csv", "-o", "n.csv", "--conformal", "t.csv")
    assert code == 0
    assert err.startswith("warning: no conformal region for 1 of 40 tasks ('120')")
    empty = pd.read_csv("n.csv").set_index("who")["lower"].isna().groupby("who").all()
    assert empty[empty].index.tolist() == [120]
    # nothing to calibrate with
    code, _, err = command("predict", "m", "c.csv", "q.csv", "-o", "n.csv", "--conformal", "train.csv")
    assert (code, "fit with --holdout, or give another table" in err) == (2, True)
    code, _, err = command("predict", "m", "c.csv", "q.csv", "-o", "n.csv", "--conformal", "all.csv")
    assert (code, "expected calibration tasks that are not asked about" in err) == (2, True)


def test_conformal_sets_of_classes(table: pd.DataFrame, command: Run) -> None:
    late = ("fit", "t.csv", "--task", "subject", "--x", "day", "--y", "late", "-o", "m", "--steps", "30")
    assert command(*late, "--holdout", "0.5")[0] == 0
    table[table["day"] < 1].to_csv("c.csv", index=False)
    table[table["subject"] < "s10"].to_csv("q.csv", index=False)
    arguments = (
        "predict",
        "m",
        "c.csv",
        "q.csv",
        "-o",
        "o.csv",
        "--conformal",
        "t.csv",
        "--level",
        "0.6",
        "--forecast",
    )
    code, _, err = command(*arguments)
    assert code == 0, err
    found = pd.read_csv("o.csv", keep_default_na=False)
    assert set(found["likely"]) <= {"yes", "no", "yes | no", "no | yes", ""}
    with_both = found[found["likely"].str.contains("|", regex=False)]
    assert all(row.likely.startswith(row.predicted) for row in with_both.itertuples())
    code, _, err = command(*arguments, "--noiseless")
    assert (code, "expected --noiseless or --conformal, got both" in err) == (2, True)
    code, _, err = command("predict", "m", "c.csv", "q.csv", "-o", "n.csv", "--noiseless")
    assert (code, "expected an outcome of numbers to take the noise from" in err) == (2, True)


def test_what_is_said_of_classes(table: pd.DataFrame, command: Run) -> None:
    code, out, _ = command(
        *("fit", "t.csv", "--task", "subject", "--x", "day", "--y", "late", "-o", "m", "--steps", "30"),
        *("--recalibrate", "0.3"),
    )
    assert code == 0
    assert isinstance(bm.load("m"), bm.wrappers.TemperatureScaled)
    (line,) = [line for line in out.splitlines() if line.startswith("late: before a row of a task is known")]
    rates = [float(part.split("(")[1].split(")")[0]) for part in line.split(" are ")[1].split(", ")]
    assert abs(sum(rates) - 1.0) < 0.011


def test_where_many_outcomes_stand(table: pd.DataFrame, command: Run) -> None:
    code, out, _ = command(*FIT, "--y", "errors")
    assert code == 0
    lines = [line for line in out.splitlines() if "noise" in line]
    assert [line.split(":")[0] for line in lines] == ["time", "errors"]
    assert "errors: noise 1." in lines[1]  # Poisson with mean 3 scatters by 1.7


def test_a_stopped_run_goes_on(table: pd.DataFrame, command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    network = ("fit", "t.csv", *COLUMNS, "--method", "alpaca", "--steps", "12")
    assert command(*network, "-o", "whole")[0] == 0
    inner, draws = bm.TaskDataset.draw, []

    def draw(self: bm.TaskDataset, *arguments: Any) -> bm.TaskBatch:
        draws.append(1)
        if len(draws) == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return inner(self, *arguments)

    monkeypatch.setattr(bm.TaskDataset, "draw", draw)
    run = ("--checkpoint", "run", "--every", "5")
    code, _, err = command(*network, "-o", "m", *run)
    assert (code, err) == (130, "stopped: the run is in run, and goes on with --resume auto\n")
    code, _, err = command(*network, "-o", "m", *run)
    assert (code, "expected a folder without an unfinished run" in err) == (2, True)
    code, _, err = command(*network, "-o", "m", *run, "--resume", "auto", "--steps", "13")
    assert (code, "expected steps=12" in err) == (2, True)
    assert command(*network, "-o", "m", *run, "--resume", "auto")[0] == 0
    for a, b in zip(bm.load("m").state_dict().values(), bm.load("whole").state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert "checkpoint" not in Path("m/options.toml").read_text()
