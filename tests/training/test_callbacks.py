"""Who is told of every step: what they see, what their failures leave behind, and files that go on with a run."""

import csv
from pathlib import Path

import pytest
import torch

import bayesmeta as bm
from bayesmeta.training import Callback, CSVLog, StepRecord, TensorBoardLog


def tasks(seed: int = 0) -> bm.TaskDataset:
    return bm.tasks.Sinusoid().dataset(8, 8, seed=seed)


def learner() -> bm.ALPaCA:
    torch.manual_seed(0)
    return bm.ALPaCA(bm.MLP(1, [4]))


class Seen(Callback):
    def __init__(self, fails_at: int = 0) -> None:
        self.fails_at, self.events, self.records = fails_at, list[str](), list[StepRecord]()

    def on_start(self, step: int) -> None:
        self.events.append(f"start {step}")

    def on_step(self, record: StepRecord) -> None:
        self.records.append(record)
        if record.step == self.fails_at:
            raise LookupError("no space left")

    def on_end(self) -> None:
        self.events.append("end")


def test_every_step_is_told_of() -> None:
    seen = Seen()
    result = bm.fit(learner(), tasks(), 6, validation=tasks(1), validate_every=4, callbacks=[seen], progress=False)
    assert seen.events == ["start 0", "end"]
    frame = result.frame()
    found = [(r.step, r.loss, r.gradient_norm, r.lr) for r in seen.records]
    assert found == list(frame[["step", "loss", "gradient_norm", "lr"]].itertuples(index=False, name=None))
    assert [(r.step, r.validation) for r in seen.records if r.validation is not None] == list(result.validation)


class Keeping(Callback):
    """Theta after each step."""

    def __init__(self, learner: bm.Learner) -> None:
        self.learner, self.theta = learner, list[list[torch.Tensor]]()

    def on_step(self, record: StepRecord) -> None:
        self.theta.append([p.detach().clone() for p in self.learner.parameters()])


@pytest.mark.parametrize(("validation", "step"), [(None, 4), (tasks(1), 3)])
def test_a_callback_that_fails_ends_the_training(validation: bm.TaskDataset | None, step: int) -> None:
    """Theta is that of the best validation, or of the last step; the others are told of the end."""
    first, other, one, two = Seen(), Seen(fails_at=4), learner(), learner()
    arguments = {"validation": validation, "validate_every": 3, "progress": False}
    with pytest.raises(LookupError, match="no space left"):
        bm.fit(one, tasks(), 6, callbacks=[first, other], **arguments)
    assert first.events == other.events == ["start 0", "end"]
    assert len(first.records) == 4
    keeping = Keeping(two)
    bm.fit(two, tasks(), 6, callbacks=[keeping], **arguments)
    assert all(map(torch.equal, one.parameters(), keeping.theta[step - 1]))


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_callback_is_refused() -> None:
    with pytest.raises(bm.DataError, match=r"inherit bayesmeta.training.Callback, got function"):
        bm.fit(learner(), tasks(), 1, callbacks=[lambda record: None])  # type: ignore[list-item]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_csv_file_goes_on_with_its_run(tmp_path: Path) -> None:
    """Steps that are done anew are written once, and a row that a kill has cut off is none."""
    path, folder = tmp_path / "logs" / "a.csv", tmp_path / "run"
    arguments = {"validation": tasks(1), "validate_every": 3, "progress": False}
    with pytest.raises(LookupError):
        bm.fit(
            learner(), tasks(), 8, checkpoint=folder, every=3, callbacks=[CSVLog(path), Seen(fails_at=5)], **arguments
        )
    assert [row["step"] for row in rows(path)] == list("12345")
    with path.open("a") as file:
        file.write("6,0.1,0.")
    result = bm.fit(
        learner(), tasks(), 8, checkpoint=folder, every=3, resume="auto", callbacks=[CSVLog(path)], **arguments
    )
    table, frame = rows(path), result.frame()
    assert [int(row["step"]) for row in table] == frame["step"].tolist()
    for name in ("loss", "gradient_norm", "lr"):
        assert [float(row[name]) for row in table] == frame[name].tolist()  # to the last bit
    assert [row["validation"] != "" for row in table] == frame["validation"].notna().tolist()
    seconds = [float(row["seconds"]) for row in table]
    assert seconds == sorted(seconds)
    bm.fit(learner(), tasks(), 2, callbacks=[CSVLog(path)], progress=False)  # a new run, a new file
    assert len(rows(path)) == 2


def test_a_csv_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "patients.csv"
    path.write_text("name,age\nA,3\n")
    with pytest.raises(bm.DataError, match=r"earlier CSVLog, got .*patients.csv"):
        CSVLog(path).on_start(0)
    assert path.read_text() == "name,age\nA,3\n"
    with pytest.raises(bm.DataError, match="got the folder"):
        CSVLog(tmp_path)


def test_curves_in_tensorboard(tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    result = bm.fit(learner(), tasks(), 3, callbacks=[TensorBoardLog(tmp_path)], progress=False)
    found = accumulators.EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in found.Scalars("loss")] == [1, 2, 3]
    assert [event.value for event in found.Scalars("loss")] == pytest.approx(result.losses)
    assert "validation" not in found.Tags()["scalars"]


def test_without_tensorboard_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(bm.UnsupportedError, match=r"pip install 'bayesmeta\[tensorboard\]'"):
        TensorBoardLog("runs/a")
