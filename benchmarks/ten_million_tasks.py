"""Ten million tasks are adapted to and predicted in bounded memory, and a run that is killed loses and doubles no row.

A table of T tasks with 5 rows each (3 with an outcome, 2 without) is written as parquet; row groups and files end in
the middle of tasks. `bm.stream` predicts the rows without an outcome by two processes. The process group is killed
with SIGKILL at random moments, twice or more, and started again; the last run goes to the end. Then

    rows       every task is there twice, in the order of the table, and the sum of a hash of all (task, x) is that of
               the rows that were generated: none lost, none doubled
    values     mean and standard deviation of a sample of tasks are those of `bm.predict_frame` on these rows
    memory     the largest resident set of any process (getrusage), below 2 GiB
    speed      tasks a second of the run that went to the end, by wall clock and for a second of one processor, and
               where the time went; what a hundred million tasks take follows from it

`--tasks 200000` is a rehearsal. What is written, to a temporary folder, is removed at the end.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

import bayesmeta as bm
from benchmarks._report import verdict

SEED = 0
KNOWN, ASKED = 3, 2
ROWS = KNOWN + ASKED
BLOCK = 2**20  # rows of a row group: no multiple of 5
FILE = 8 * BLOCK
MOST = 2.0  # GiB of any process
SCHEMA = bm.tasks.Schema("task", x=("x",), y=("y",))
CLOSE = 1e-9  # of a batch of another size, in float64


def block(start: int, stop: int, tasks: int) -> dict[str, np.ndarray]:
    """Rows of the table: each is a function of its number alone."""
    row = np.arange(start, stop, dtype=np.uint64)
    task, rank = row // ROWS, row % ROWS
    x = 4.0 * uniform(row) - 2.0
    y = np.sin(2.0 * x + 6.0 * uniform(task + np.uint64(2**40))) * (0.5 + uniform(task + np.uint64(2**41)))
    return {"task": task.astype(np.int64), "x": x, "y": np.where(rank < KNOWN, y, np.nan)}


def uniform(number: np.ndarray) -> np.ndarray:
    """A number in [0, 1) for each (splitmix64)."""
    value = number * np.uint64(0x9E3779B97F4A7C15) + np.uint64(SEED)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (value ^ (value >> np.uint64(31))) / 2.0**64


def blocks(tasks: int) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """All rows, a row group at a time."""
    for start in range(0, ROWS * tasks, BLOCK):
        yield start, block(start, min(start + BLOCK, ROWS * tasks), tasks)


def generate(folder: Path, tasks: int) -> None:
    """The table, in files of eight row groups."""
    folder.mkdir()
    writer = None
    for start, columns in blocks(tasks):
        table = pa.table({name: pa.array(column, from_pandas=True) for name, column in columns.items()})
        if start % FILE == 0:
            if writer is not None:
                writer.close()
            writer = pq.ParquetWriter(folder / f"{start // FILE:04d}.parquet", table.schema)
        assert writer is not None
        writer.write_table(table, row_group_size=BLOCK)
    if writer is not None:
        writer.close()


def train(folder: Path) -> None:
    """A learner of a few minutes' worth: how well it predicts is not asked here."""
    torch.manual_seed(SEED)
    frame = pd.DataFrame(block(0, ROWS * 2000, 2000)).dropna()
    tasks = bm.TaskDataset.from_frame(frame, task="task", x=["x"], y=["y"])
    learner = bm.ALPaCA(bm.networks.FourierFeatures(1)).double()
    bm.fit(learner, tasks, steps=200, lr=0.01, progress=False, seed=SEED)
    bm.save(learner, folder)


def work(folder: Path, processes: int) -> None:
    """The run that is killed, and in the end is not: what it did as JSON."""
    done = bm.stream(bm.load(folder / "model"), SCHEMA, folder / "table", folder / "out", processes=processes)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    account = vars(done.account) | {"seconds": done.seconds, "missing": done.missing}
    account["memory"] = max(each.ru_maxrss for each in used) / 2**20
    account["processor"] = sum(each.ru_utime + each.ru_stime for each in used)
    print(json.dumps(account))


def started(folder: Path, processes: int) -> "subprocess.Popen[str]":
    """The run, as a process group of its own."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.ten_million_tasks",
        "--work",
        str(folder),
        "--processes",
        str(processes),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True, env=environment)


def killed(folder: Path, processes: int, kills: int, longest: float) -> int:
    """Kill the run at random moments; how many times it was killed before its end."""
    moments = random.Random(SEED)
    count = 0
    while count < kills:
        run, wait = started(folder, processes), moments.uniform(0.2, 1.0) * longest
        before = parts(folder)
        try:
            run.wait(wait)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
            count += 1
            half = len(list(folder.glob("out/.*.unfinished")))
            print(f"killed after {wait:.1f} s: {before} parts before, {parts(folder)} now, {half} half written")
            continue
        break
    return count


def parts(folder: Path) -> int:
    """How many part files there are."""
    return len(list(folder.glob("out/part-*.parquet")))


def hashed(task: np.ndarray, x: np.ndarray) -> int:
    """A sum over rows, the same in any order."""
    return int((task.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) ^ x.view(np.uint64)).sum(dtype=np.uint64))


def check(folder: Path, tasks: int) -> tuple[bool, float]:
    """Whether every row is there once, and how far a sample is from the same tasks in memory."""
    expected, modulus = 0, 2**64
    for _, columns in blocks(tasks):
        wanted = np.isnan(columns["y"])
        expected = (expected + hashed(columns["task"][wanted], columns["x"][wanted])) % modulus
    found, at, whole = 0, 0, True
    rng = np.random.default_rng(SEED)
    chosen = np.sort(rng.choice(tasks, min(1000, tasks), replace=False))
    sample = []
    for path in sorted((folder / "out").glob("part-*.parquet")):
        table = pq.read_table(path, columns=["task", "x", "mean", "sd"])
        task, x = table["task"].to_numpy(), table["x"].to_numpy()
        whole &= bool((task == (at + np.arange(len(task))) // ASKED).all())
        at += len(task)
        found = (found + hashed(task, x)) % modulus
        sample.append(table.to_pandas()[np.isin(task, chosen)])
    whole &= at == ASKED * tasks and found == expected
    rows = pd.concat([pd.DataFrame(block(ROWS * int(t), ROWS * int(t) + ROWS, tasks)) for t in chosen])
    context, query = rows[rows.y.notna()], rows[rows.y.isna()].drop(columns="y")
    direct = bm.predict_frame(bm.load(folder / "model"), SCHEMA, context, query)
    got = pd.concat(sample)
    if got[["task", "x"]].to_numpy().tolist() != direct[["task", "x"]].to_numpy().tolist():
        return False, np.inf
    return whole, float(np.abs(got[["mean", "sd"]].to_numpy() - direct[["mean", "sd"]].to_numpy()).max())


def main() -> None:
    """Generate, kill, go on, check, tell."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", type=int, default=10_000_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument(
        "--longest", type=float, default=120.0, help="seconds after which a run is killed at the latest"
    )
    parser.add_argument("--folder", type=Path, default=None, help="a disk with room for 150 bytes a task")
    parser.add_argument("--work", type=Path, default=None, help="the run itself; the benchmark starts it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.work is not None:
        work(options.work, options.processes)
        return
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        tell(folder, options)
    finally:
        shutil.rmtree(folder)


def tell(folder: Path, options: argparse.Namespace) -> None:
    """All of it, in a folder that is removed afterwards."""
    tasks = options.tasks
    begun = time.perf_counter()
    generate(folder / "table", tasks)
    size = sum(path.stat().st_size for path in folder.glob("table/*"))
    print(f"{tasks:,} tasks of {ROWS} rows generated in {time.perf_counter() - begun:.0f} s, {size / 2**20:,.0f} MiB")
    train(folder / "model")
    kills = killed(folder, options.processes, options.kills, options.longest)
    before, begun = parts(folder), time.perf_counter()
    run = started(folder, options.processes)
    account = json.loads(run.communicate()[0])
    seconds = time.perf_counter() - begun
    written = sum(path.stat().st_size for path in folder.glob("out/part-*"))
    print(f"went on from {before} parts to {parts(folder)} in {seconds:.0f} s; output {written / 2**20:,.0f} MiB")
    whole, gap = check(folder, tasks)
    spent = {name: account[name] for name in ("reading", "converting", "predicting", "writing")}
    total = sum(spent.values())
    print("share of the time: " + ", ".join(f"{name} {100 * value / total:.1f} %" for name, value in spent.items()))
    io = 100 * (spent["reading"] + spent["writing"]) / total
    rate, each = account["tasks"] / account["seconds"], account["tasks"] / account["processor"]
    print(
        f"tasks of the last run: {account['tasks']:,} in {account['seconds']:.1f} s: {rate:,.0f} a second, "
        f"{each:,.0f} for a second of one processor, all of starting, reading and writing included"
    )
    print(f"largest resident set of any process: {account['memory']:.2f} GiB")
    print(f"rows: {'none lost, none doubled' if whole else 'WRONG'}; largest difference of a sample: {gap:.1e}")
    more = 1e8 / tasks
    print(
        f"100,000,000 tasks: {1e8 / rate / 60:,.0f} minutes at this rate, {size * more / 2**30:,.1f} GiB read, "
        f"{written * more / 2**30:,.1f} GiB written, memory as above"
    )
    good = whole and gap < CLOSE and account["memory"] < MOST and kills >= 2
    said = f"{tasks:,} tasks, killed {kills} times: {'no row lost or doubled' if whole else 'rows are wrong'}, "
    said += (
        f"{account['memory']:.2f} GiB of {MOST} at most, {rate:,.0f} tasks a second by {options.processes} processes, "
    )
    verdict(("as claimed: " if good else "NOT as claimed: ") + said + f"{io:.0f} % of the time for I/O", SEED)


if __name__ == "__main__":
    main()
