"""Commands on parquet tables that are read some tasks at a time."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bayesmeta.cli import tables
from tests.cli.conftest import Run

pytest.importorskip("pyarrow")


@pytest.fixture
def large(subjects: pd.DataFrame, tmp_path: Path) -> Path:
    """A folder of two files, the last rows of each subject without an outcome."""
    folder = tmp_path / "subjects"
    folder.mkdir()
    frame = subjects.assign(time=subjects.time.mask(subjects.day > 3), seen=subjects.day < 2)
    frame.head(101).to_parquet(folder / "0.parquet", row_group_size=30)
    frame.iloc[101:].to_parquet(folder / "1.parquet", row_group_size=30)
    subjects.to_parquet(tmp_path / "whole.parquet", row_group_size=30)
    return folder


def test_a_large_table_is_learned_from_predicted_and_scored(
    command: Run, large: Path, subjects: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    columns = ["--task", "subject", "--x", "day", "--y", "time", "--covariate", "age", "--covariate", "site"]
    code, out, err = command("fit", large, *columns, "--method", "alpaca-linear", "--sample", "25", "-o", "model")
    assert code == 0, err
    assert "note: 25 of the 40 tasks of subjects are drawn to learn from" in err
    assert "25 tasks: 25 to learn from" in out
    assert command("predict", "model", large, "-o", "out.parquet")[0] == 0
    found = pd.read_parquet("out.parquet")
    subjects[subjects.day <= 3].to_csv("context.csv", index=False)
    subjects[subjects.day > 3].to_csv("query.csv", index=False)
    assert command("predict", "model", "context.csv", "query.csv", "-o", "p.csv")[0] == 0
    wanted = pd.read_csv("p.csv")
    np.testing.assert_allclose(found["mean"], wanted["mean"], rtol=1e-9)
    np.testing.assert_allclose(found["upper"], wanted["upper"], rtol=1e-9)
    code, out, _ = command("predict", "model", large, "-o", "seen", "--known", "seen", "--part", "1/1")
    assert (code, len(pd.read_parquet("seen"))) == (0, int((subjects.day >= 2).sum()))
    code, out, err = command("predict", "model", large, "-o", "seen")
    assert code == 2
    assert "error: expected to go on with the run in seen as it was begun, got known null instead of" in err
    monkeypatch.setattr(tables, "LARGE", 100)
    for shots in ("0,3", "2"):
        streamed = command("evaluate", "model", "whole.parquet", "--shots", shots, "-o", f"s{shots}.csv")
        assert streamed[0] == 0, streamed[2]
    scores = pd.read_csv("s0,3.csv")
    assert scores.tasks.tolist() == [15, 15]  # those of the training are left out
    assert scores.nll.is_monotonic_decreasing
    assert (scores.nll_low < scores.nll).all()
    code, _, _ = command("evaluate", "model", "whole.parquet", "--shots", "0,3", "--include-trained", "-o", "all.csv")
    monkeypatch.setattr(tables, "LARGE", 10**6)
    command("evaluate", "model", "whole.parquet", "--shots", "0,3", "--include-trained", "-o", "memory.csv")
    ours, memory = pd.read_csv("all.csv"), pd.read_csv("memory.csv")
    for name in ("tasks", "points", "nll", "rmse", "pooled_rmse", "coverage", "calibration_error", "calibration_noise"):
        np.testing.assert_allclose(ours[name], memory[name], rtol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("context.csv", "-o", "out"), "expected QUERY, as context.csv is no parquet table"),
        (("whole.parquet", "-o", "out", "--tasks", "t.csv"), "expected QUERY with --conformal, --forecast, --tasks"),
        (("whole.parquet", "query.csv", "-o", "out.csv", "--known", "3"), "--known, --processes and --part without"),
        (("whole.parquet", "-o", "out", "--part", "3/2"), "expected --part k/n, such as 2/8"),
        (("whole.parquet", "-o", "model/out"), "expected --output outside of MODEL"),
        (("whole.parquet", "-o", "query.csv"), "expected a folder for the parts of the output"),
    ],
)
def test_wrong_calls(command: Run, growth: Path, large: Path, arguments: tuple[str, ...], message: str) -> None:
    Path("model").symlink_to(growth)
    for name in ("context.csv", "query.csv"):
        Path(name).write_text("plant,day\n")
    code, _, err = command("predict", "model", *arguments)
    assert code == 2
    assert message in err
