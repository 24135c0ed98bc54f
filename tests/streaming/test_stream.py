"""Streams: what they write is what `predict_frame` gives, of all rows once, whatever happens in between."""

import itertools
import json
import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bayesmeta as bm
from bayesmeta.errors import DataError, InferenceError
from bayesmeta.streaming import part as part_module
from bayesmeta.streaming import stream as stream_module

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402 (where it is installed)

Model = tuple[bm.Learner, bm.tasks.Schema]


def table(num_tasks: int = 30, seed: int = 0) -> pd.DataFrame:
    """Tasks of 1 to 6 rows, some without an outcome, none with no row that is asked about in all."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 7, num_tasks)
    frame = pd.DataFrame({"cell": np.repeat(np.arange(num_tasks), counts), "day": rng.uniform(0, 5, counts.sum())})
    volt = 4.0 + 0.1 * frame.day + rng.normal(0, 0.3, num_tasks)[frame.cell] + rng.normal(0, 0.05, len(frame))
    return frame.assign(volt=volt.where(rng.uniform(size=len(frame)) < 0.6))


@pytest.fixture(scope="module")
def model() -> Model:
    tasks = bm.TaskDataset.from_frame(table(60, 1).dropna(), task="cell", x=["day"], y=["volt"])
    learner = bm.Standardized(bm.ALPaCA(bm.Identity(1))).double()
    bm.fit_evidence(learner, tasks)
    return learner, tasks.schema


def written(frame: pd.DataFrame, folder: Path, row_group: int = 7, files: int = 1) -> Path:
    """The table in files that end in the middle of tasks, with an empty row group in each."""
    folder.mkdir()
    whole = pa.Table.from_pandas(frame, preserve_index=False)
    edges = np.linspace(0, len(frame), files + 1).astype(int)
    for number, (start, end) in enumerate(itertools.pairwise(edges)):
        with pq.ParquetWriter(folder / f"{number}.parquet", whole.schema) as writer:
            writer.write_table(whole[start:start])
            writer.write_table(whole[start:end], row_group_size=row_group)
    return folder


def direct(model: Model, frame: pd.DataFrame) -> pd.DataFrame:
    """The same rows by `predict_frame`."""
    return bm.predict_frame(*model, frame[frame.volt.notna()], frame[frame.volt.isna()]).reset_index(drop=True)


def require_same(found: pd.DataFrame, wanted: pd.DataFrame) -> None:
    assert found.columns.tolist() == wanted.columns.tolist()
    for name in found.columns:
        if pd.api.types.is_numeric_dtype(found[name]):  # batches of other sizes sum in another order
            np.testing.assert_allclose(found[name], wanted[name].astype(float), rtol=1e-9, atol=1e-9)
        else:
            assert found[name].astype(str).tolist() == wanted[name].astype(str).tolist()


@pytest.mark.parametrize(("row_group", "files", "memory", "rows"), [(7, 3, 2**28, 10), (1, 1, 1, 40), (1000, 2, 1, 1)])
def test_rows_are_those_of_predict_frame(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row_group: int, files: int, memory: int, rows: int
) -> None:
    """However the table is cut: row groups of one row, tasks over groups and files, chunks of a few rows, one part."""
    monkeypatch.setattr(stream_module, "FEWEST", 5)
    frame = table()
    source = written(frame, tmp_path / "table", row_group, files)
    done = bm.stream(*model, source, tmp_path / "out", memory=memory, rows_per_part=rows)
    require_same(pd.read_parquet(tmp_path / "out"), direct(model, frame))
    account = done.account
    assert (account.tasks, account.rows, account.asked) == (30, len(frame), int(frame.volt.isna().sum()))
    assert done.missing == 0
    manifest = json.loads((tmp_path / "out" / "_manifest.json").read_text())
    assert manifest["complete"]
    assert manifest["rows"] == len(frame)


NAMES: dict[str, Callable[[pd.Series], pd.Series]] = {
    "text that looks like numbers": lambda ids: ids.map("{:03d}".format),
    "text in another order": lambda ids: ids.map(lambda i: "ba"[i % 2] + str(i)),
    "whole numbers in no order": lambda ids: ids.map(lambda i: (i * 7919) % 1009),
    "falling": lambda ids: -ids,
    "floats": lambda ids: ids / 2,
    "categories": lambda ids: ids.map("c{}".format).astype("category"),
    "dates": lambda ids: pd.Timestamp("2020-01-01") + pd.to_timedelta(ids, unit="D"),
}


@pytest.mark.parametrize("kind", NAMES)
def test_names_of_every_kind(model: Model, tmp_path: Path, kind: str) -> None:
    frame = table()
    frame = frame.assign(cell=NAMES[kind](frame.cell))
    source = written(frame, tmp_path / "table", files=2)
    bm.stream(*model, source, tmp_path / "out", rows_per_part=20)
    require_same(pd.read_parquet(tmp_path / "out"), direct(model, frame))


@pytest.mark.parametrize("kind", ["whole numbers in no order", "categories", "falling"])
def test_a_task_that_comes_back_is_refused_at_once(model: Model, tmp_path: Path, kind: str) -> None:
    """By name and row, before anything is written, with the line that sorts the table."""
    frame = table()
    frame = frame.assign(cell=NAMES[kind](frame.cell))
    frame = pd.concat([frame, frame[frame.cell == frame.cell.iloc[9]]])
    source = written(frame, tmp_path / "table", files=2)
    with pytest.raises(
        DataError, match=r"after another, got task .* in row 6 of 0.parquet and again in row \d+ of 1"
    ) as caught:
        bm.stream(*model, source, tmp_path / "out")
    line = f"with DuckDB: COPY (SELECT * FROM '{source}/*.parquet' ORDER BY cell) TO 'sorted.parquet'"
    assert str(caught.value).endswith(line)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_read_is_named(model: Model, tmp_path: Path) -> None:
    frame = table().astype({"cell": object})
    cases = {
        "got none in row 8": frame.assign(cell=frame.cell.mask(frame.index == 8)),
        "got '  ' in row 9": frame.assign(cell=frame.cell.astype(str).mask(frame.index == 9, "  ")),
        "missing cell in row 11": frame.assign(day=frame.day.mask(frame.index == 11)),
        "expected a column 'day'": frame.drop(columns="day"),
        "without the columns of the result": frame.assign(mean=0.0),
    }
    for place, (message, wrong) in enumerate(cases.items()):
        source = written(
            wrong.astype({"cell": str} if "got '" in message else {"cell": "Int64"}), tmp_path / f"{place}"
        )
        with pytest.raises(DataError, match=message):
            bm.stream(*model, source, tmp_path / "out" / str(place))


def test_which_rows_are_known(model: Model, tmp_path: Path) -> None:
    """A column or a number says it, too."""
    frame = table().assign(volt=lambda f: f.volt.fillna(4.0))
    frame["seen"] = np.random.default_rng(0).uniform(size=len(frame)) < 0.5
    source = written(frame, tmp_path / "table")
    first = frame.groupby("cell").cumcount() < 2
    for number, (known, chosen) in enumerate({"seen": frame.seen, 2: first}.items()):
        out = tmp_path / str(number)
        bm.stream(*model, source, out, known=known, columns=["cell", "day"])
        wanted = bm.predict_frame(*model, frame[chosen], frame.loc[~chosen, ["cell", "day"]])
        require_same(pd.read_parquet(out), wanted)
    with pytest.raises(DataError, match="true or false in every row of column 'day'"):
        bm.stream(*model, source, tmp_path / "wrong", known="day")


def test_a_failure_between_parts_is_gone_on_with(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = table(40)
    source, out = written(frame, tmp_path / "table"), tmp_path / "out"
    calls = []

    def failing(*arguments: object) -> dict[str, np.ndarray]:
        calls.append(arguments)
        if len(calls) in (3, 5):
            raise OSError("disk full")
        return answers(*arguments)  # type: ignore[arg-type]

    answers = part_module.answers
    monkeypatch.setattr(part_module, "answers", failing)
    done = []
    for _ in range(2):
        with pytest.raises(DataError, match="disk full"):
            bm.stream(*model, source, out, rows_per_part=20)
        done.append(len(list(out.glob("part-*"))))
        assert not list(out.glob(".*"))  # nothing half written
    assert done == [2, 3]
    bm.stream(*model, source, out, rows_per_part=20)
    require_same(pd.read_parquet(out), direct(model, frame))
    assert str(bm.stream(*model, source, out, rows_per_part=20)).startswith("nothing was left to do")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a fork of this process")
def test_a_killed_run_loses_no_row(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL while a part is written: what is half written is passed over, and then removed."""
    frame = table(40)
    source, out = written(frame, tmp_path / "table"), tmp_path / "out"

    def killed(*arguments: object) -> dict[str, np.ndarray]:
        if len(list(out.glob("part-*"))) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return answers(*arguments)  # type: ignore[arg-type]

    answers = part_module.answers
    child = os.fork()
    if child == 0:
        try:
            monkeypatch.setattr(part_module, "answers", killed)
            bm.stream(*model, source, out, rows_per_part=20)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert len(list(out.glob(".part-000002*"))) == 1
    bm.stream(*model, source, out, rows_per_part=20)
    assert not list(out.glob(".*"))
    require_same(pd.read_parquet(out), direct(model, frame))


def test_shares_make_a_whole(model: Model, tmp_path: Path) -> None:
    """Each of three machines does its share, in any order; the last one says that all is there."""
    frame = table(40)
    source, out = written(frame, tmp_path / "table", files=3), tmp_path / "out"
    missing = [bm.stream(*model, source, out, rows_per_part=20, part=(k, 3)).missing for k in (2, 3, 1)]
    assert missing[0] > missing[1] > missing[2] == 0
    require_same(pd.read_parquet(out), direct(model, frame))
    with pytest.raises(DataError, match="k up to n"):
        bm.stream(*model, source, out, rows_per_part=20, part=(4, 3))


def test_another_run_is_refused(model: Model, tmp_path: Path) -> None:
    learner, schema = model
    frame = table()
    source, out = written(frame, tmp_path / "table"), tmp_path / "out"
    bm.stream(*model, source, out)
    other = bm.Standardized(bm.ALPaCA(bm.Identity(1))).double()
    other.prepare(bm.TaskDataset.from_frame(frame.dropna(), task="cell", x=["day"], y=["volt"]).data)
    with pytest.raises(DataError, match=r"as it was begun, got level 0.8 instead of 0.9"):
        bm.stream(learner, schema, source, out, level=0.8)
    with pytest.raises(DataError, match=r"got model"):
        bm.stream(other, schema, source, out)
    (out / "part-000000.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"expected a whole part in .*part-000000.parquet.*remove it, and run again"):
        bm.stream(learner, schema, source, out)
    written(frame.head(9), tmp_path / "table2")
    with pytest.raises(DataError, match="got source"):
        bm.stream(learner, schema, tmp_path / "table2", out)
    with pytest.raises(DataError, match=r"which holds '0\.parquet' and no _manifest\.json"):
        bm.stream(learner, schema, source, tmp_path / "table2")
    with pytest.raises(DataError, match="an output outside of the table"):
        bm.stream(learner, schema, source, source)


def test_classes_counts_and_several_outcomes(tmp_path: Path) -> None:
    """Whatever a table may hold is predicted as in memory, with the types that its columns have."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"who": np.repeat(np.arange(20), 5), "day": np.tile(np.arange(5.0), 20)})
    frame["u"], frame["v"] = frame.day + rng.normal(size=100), rng.normal(size=100)
    frame["pain"] = pd.Series(rng.choice(["none", "mild", "bad"], 100)).astype("category")
    frame["arm"] = np.repeat(rng.choice(["drug", "none"], 20), 5)
    last = frame.day > 2
    cases = {"u": ["u"], "both": ["u", "v"], "classes": ["pain"]}
    for name, y in cases.items():
        tasks = bm.TaskDataset.from_frame(frame, task="who", x=["day"], y=y, covariates=["arm"])
        count = len(tasks.schema.x_names)
        if name == "classes":
            learner: bm.Learner = bm.R2D2(bm.MLP(count, [8]), num_classes=3)
        else:  # the parts of `Separately` may lack an outcome of a point
            parts = {each: bm.Standardized(bm.ALPaCA(bm.Identity(count))).double() for each in y}
            for each, one in parts.items():
                one.prepare(tasks.of_outcome(each).data)
            learner = bm.wrappers.Separately(parts)
        asked = frame.copy()
        asked[y] = asked[y].mask(last)
        if name == "both":  # a row with one of its outcomes is known
            asked.loc[last & (frame.who < 5), "u"] = 1.0
        source = written(asked, tmp_path / name)
        bm.stream(learner, tasks.schema, source, tmp_path / f"{name} out", rows_per_part=30)
        given = tasks.schema.has_outcome(asked)
        wanted = bm.predict_frame(learner, tasks.schema, asked[given], asked[~given])
        found = pd.read_parquet(tmp_path / f"{name} out")
        assert found["pain"].dtype == "category"
        if name == "classes":  # float32
            np.testing.assert_allclose(found["p_bad"], wanted["p_bad"], atol=1e-5)
            assert found["predicted"].tolist() == wanted["predicted"].tolist()
        else:
            require_same(found, wanted)


@pytest.mark.slow  # each of them imports torch
def test_two_processes_write_what_one_writes(model: Model, tmp_path: Path) -> None:
    frame = table()
    source = written(frame, tmp_path / "table")
    done = bm.stream(*model, source, tmp_path / "out", rows_per_part=60, processes=2)
    assert done.missing == 0
    require_same(pd.read_parquet(tmp_path / "out"), direct(model, frame))


class Here:
    """The interface of a pool of processes, in this one: what is sent to others is pickled all the same."""

    def __init__(self, workers: int, context: object, begin: Callable[..., None], arguments: object) -> None:
        assert workers == 2
        begin(*pickle.loads(pickle.dumps(arguments)))

    def submit(self, work: Callable[[int], object], number: int) -> Future:
        done: Future = Future()
        done.set_result(pickle.loads(pickle.dumps(work(number))))
        return done

    def shutdown(self, wait: bool, cancel_futures: bool) -> None:
        """Nothing was started."""


def test_what_is_done_can_be_sent_to_other_processes(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "ProcessPoolExecutor", Here)
    frame = table()
    done = bm.stream(*model, written(frame, tmp_path / "table"), tmp_path / "out", rows_per_part=60, processes=2)
    assert (done.missing, done.account.tasks) == (0, 30)
    require_same(pd.read_parquet(tmp_path / "out"), direct(model, frame))


def test_files_are_opened_with_care(tmp_path: Path) -> None:
    source = bm.tasks.ParquetTasks
    schema = bm.tasks.Schema("cell", x=("day",), y=("volt",))
    with pytest.raises(DataError, match="which is not there"):
        source(tmp_path / "none.parquet", schema)
    with pytest.raises(DataError, match="expected parquet files in the folder"):
        source(tmp_path, schema)
    (tmp_path / "text.parquet").write_text("cell,day\n")
    with pytest.raises(DataError, match="expected a parquet table"):
        source(tmp_path, schema)
    frame = table()
    frame.to_parquet(tmp_path / "a.parquet")
    frame.astype({"cell": str}).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(DataError, match="expected columns of one type in"):
        source([tmp_path / "a.parquet", tmp_path / "b.parquet"], schema)
    frame.drop(columns="day").to_parquet(tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"the same columns in .*got \['day'\]"):
        source([tmp_path / "a.parquet", tmp_path / "b.parquet"], schema)
    with pytest.raises(DataError, match="every parquet file once"):
        source([tmp_path / "a.parquet", tmp_path / "a.parquet"], schema)


def test_no_row_that_is_known_is_warned_of(model: Model, tmp_path: Path) -> None:
    frame = table()
    with pytest.warns(UserWarning, match="no row is known, so that the prior predicts all tasks"):
        bm.stream(*model, written(frame.assign(volt=np.nan), tmp_path / "a"), tmp_path / "out a")
    with pytest.warns(UserWarning, match="no row is asked about"):
        bm.stream(*model, written(frame.fillna({"volt": 1.0}), tmp_path / "b"), tmp_path / "out b")


class Deadly(bm.ALPaCA):
    """A learner whose process is killed, as one is that takes too much memory."""

    def condition(self, support: bm.Data) -> bm.TaskPosterior:
        if multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().condition(support)


@pytest.mark.slow
def test_a_process_that_is_killed_is_said(tmp_path: Path) -> None:
    """Rather than waited for."""
    source = written(table(), tmp_path / "table")
    learner, schema = Deadly(bm.Identity(1)).double(), bm.tasks.Schema("cell", x=("day",), y=("volt",))
    with pytest.raises(InferenceError, match=r"got one that was ended from outside .* call it again to go on"):
        bm.stream(learner, schema, source, tmp_path / "out", rows_per_part=60, processes=2)
    assert bm.stream(learner, schema, source, tmp_path / "out", rows_per_part=60).missing == 0
