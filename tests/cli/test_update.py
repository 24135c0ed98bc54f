"""`bayesmeta update`: what is known grows table by table, and predicts what all tables at once do."""

from pathlib import Path

import pandas as pd
import pytest

from tests.cli.conftest import Run


@pytest.fixture
def days(plants: Path, tmp_path: Path) -> list[Path]:
    """Tables of three days, the third with a row that was there before and one without an outcome."""
    frame = pd.read_csv(plants, dtype=str)
    frame = frame[frame.plant.isin(["07", "08", "14"])]
    day = frame.groupby("plant").cumcount()
    parts = [frame[(day < 2) & (frame.plant == "08")], frame[day < 1], frame[(day == 1) & (frame.plant != "08")]]
    parts[1] = parts[1][parts[1].plant != "08"]
    parts[2] = pd.concat([parts[2], parts[1].head(1), parts[0].head(1).assign(height_cm="")])
    for i, part in enumerate(parts):
        part.to_csv(tmp_path / f"{i}.csv", index=False)
    pd.concat(parts).to_csv(tmp_path / "all.csv", index=False)
    frame.drop(columns="height_cm").to_csv(tmp_path / "query.csv", index=False)
    return [tmp_path / f"{i}.csv" for i in range(3)]


def test_three_updates_predict_what_all_rows_at_once_do(
    growth: Path, days: list[Path], bayesmeta: Run, tmp_path: Path
) -> None:
    state = tmp_path / "new" / "greenhouse.state"
    found = [bayesmeta("update", growth, state, each) for each in days]
    assert [code for code, _, _ in found] == [0, 0, 0]
    assert [out.splitlines() for _, out, _ in found] == [
        ["2 rows added, 1 task of them new", f"{state} knows 2 rows of 1 task"],
        ["2 rows added, 2 tasks of them new", f"{state} knows 4 rows of 3 tasks"],
        ["3 rows added, 0 tasks of them new, 1 row without an outcome left out", f"{state} knows 7 rows of 3 tasks"],
    ]
    assert [err for _, _, err in found[:2]] == ["", ""]
    assert found[2][2] == f"warning: 1 of the 3 rows is in {state} already, and is counted once more\n"
    outputs = []
    for context in (state, tmp_path / "all.csv"):
        names = [tmp_path / f"{context.stem}.{kind}" for kind in ("out", "tasks")]
        code, out, err = bayesmeta(
            "predict", growth, context, tmp_path / "query.csv", "-o", names[0], "--tasks", names[1]
        )
        assert code == 0, err
        outputs.append((out.splitlines()[0], err, *(name.read_bytes() for name in names)))
    assert outputs[0] == outputs[1]
    assert outputs[0][0] == "3 of 3 tasks to predict have context"


def test_bad_calls_are_one_line_and_leave_the_state(
    growth: Path, plants: Path, days: list[Path], bayesmeta: Run, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    assert bayesmeta("update", growth, state, days[0])[0] == 0
    before = state.read_bytes()
    columns = ["--task", "plant", "--x", "day", "--y", "height_cm", "--method", "alpaca-linear"]
    assert bayesmeta("fit", plants, *columns, "-o", tmp_path / "other")[0] == 0
    moved = pd.read_csv(days[0], dtype=str).assign(light_umol="5")
    moved.to_csv(tmp_path / "moved.csv", index=False)
    for arguments, message in (
        (("update", tmp_path / "other", state, days[1]), "expected known points for this model in"),
        (("predict", tmp_path / "other", state, tmp_path / "query.csv", "-o", tmp_path / "o.csv"), "those for another"),
        (("update", growth, days[0], state), "expected a file of known points in"),
        (("update", growth, state, state), "expected STATE to be another file than MORE"),
        (("update", growth, growth / "state", days[0]), "expected STATE outside of MODEL"),
        (("update", growth, state, tmp_path / "none.csv"), "expected a table in"),
        (("update", growth, state, tmp_path / "query.csv"), "expected a column 'height_cm'"),
        (("update", growth, state, tmp_path / "moved.csv"), "expected the covariate 'light_umol' of task '08' to stay"),
        (("update", growth, tmp_path, days[0]), "got the folder"),
    ):
        code, out, err = bayesmeta(*arguments)
        assert (code, out, err.count("\n")) == (2, "", 1), (arguments, err)
        assert err.startswith("error: ")
        assert message in err, err
        assert state.read_bytes() == before
