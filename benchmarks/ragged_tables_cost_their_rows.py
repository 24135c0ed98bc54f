"""One long task among many short ones costs its rows: memory and time of a table follow its rows, not its longest task.

Two tables: 10,000 tasks of 5 points and one of 100,000 (150,000 rows, which padded to one length would be a billion),
and 1,000,000 tasks of 5 points. Each stage runs in a process of its own, on one thread; what is reported is its wall
time, and its peak memory above what the table itself (a pandas frame, or the tasks read from it) already holds.

    read        TaskDataset.from_frame
    fit         Standardized(ALPaCA(MLP(1, [32, 32]))), 200 steps of 16 tasks
    evidence    fit_evidence of Standardized(ALPaCA(Identity(1))), a linear mixed model, on all rows
    evaluate    at 0, 1 and 4 shots, all other points of a task as query, 200 resamplings
    surprise    Surprise.fit at 1 and 4 shots, on all tasks
    predict     predict_frame: two known points of each task, all rows to predict

    python -m benchmarks.ragged_tables_cost_their_rows
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

import bayesmeta as bm
from benchmarks._report import verdict

if TYPE_CHECKING:
    import pandas as pd

SEED = 0
TABLES = {"10,000 x 5 + 1 x 100,000": (10_000, 100_000), "1,000,000 x 5": (1_000_000, 0)}
SHORT = 5
STAGES = ["read", "fit", "evidence", "evaluate", "surprise", "predict"]


def frame_of(tasks: int, long: int) -> "pd.DataFrame":
    """A line for each task, y = a + b x + noise, as a long table."""
    import pandas as pd

    rng = np.random.default_rng(SEED)
    task = np.repeat(np.arange(tasks), SHORT)
    if long:
        task = np.concatenate([task, np.full(long, tasks)])
    x = rng.uniform(0.0, 5.0, len(task))
    y = 3.0 + rng.normal(0.0, 2.0, tasks + 1)[task] + (1.0 + rng.normal(0.0, 0.5, tasks + 1)[task]) * x
    return pd.DataFrame({"task": task, "x": x, "y": y + rng.normal(0.0, 0.3, len(task))})


def run(stage: str, tasks: int, long: int) -> dict[str, float]:
    """Seconds and peak memory in MB of a stage."""
    torch.set_num_threads(1)
    frame = frame_of(tasks, long)
    work: Callable[[], object]
    if stage == "read":
        return measured(lambda: read(frame))
    data = read(frame)
    torch.manual_seed(SEED)
    mixed = bm.Standardized(bm.ALPaCA(bm.Identity(1))).double()
    if stage == "fit":
        network = bm.Standardized(bm.ALPaCA(bm.MLP(1, [32, 32])))
        work = lambda: bm.fit(network, data, steps=200, progress=False)
    elif stage == "evidence":
        work = lambda: bm.fit_evidence(mixed, data)
    else:
        bm.fit_evidence(mixed, data.select(range(100)))
        if stage == "evaluate":
            work = lambda: bm.evaluate(mixed, data, [0, 1, 4], num_bootstrap=200)
        elif stage == "surprise":
            work = lambda: bm.checks.Surprise.fit(mixed, data, [1, 4])
        else:
            schema = data.schema
            assert schema is not None
            known = frame.groupby("task").head(2)
            work = lambda: bm.predict_frame(mixed, schema, known, frame)
    return measured(work)


def read(frame: "pd.DataFrame") -> bm.TaskDataset:
    return bm.TaskDataset.from_frame(frame, task="task", x=["x"], y=["y"])


def measured(work: Callable[[], object]) -> dict[str, float]:
    """Wall seconds, and the peak of resident memory above where it stood, in MB (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = memory("VmRSS")
    start = time.perf_counter()
    work()
    return {"seconds": time.perf_counter() - start, "memory": memory("VmHWM") - before}


def memory(kind: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(kind)) / 1e3


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--stage", choices=STAGES)
    parser.add_argument("--tasks", type=int)
    parser.add_argument("--long", type=int)
    given = parser.parse_args()
    if given.stage:
        print(json.dumps(run(given.stage, given.tasks, given.long)))
        return
    torch.set_num_threads(1)  # as the stages do
    speed, largest = 0.0, 0.0
    print(f"{'table':<26} {'stage':<9} {'seconds':>8} {'rows a second':>14} {'MB':>7} {'bytes a row':>12}")
    for name, (tasks, long) in TABLES.items():
        rows = SHORT * tasks + long
        for stage in STAGES:
            command = [sys.executable, "-m", "benchmarks.ragged_tables_cost_their_rows", "--stage", stage]
            done = subprocess.run(
                [*command, "--tasks", str(tasks), "--long", str(long)],
                capture_output=True,
                text=True,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
            if done.returncode:
                print(f"{name:<26} {stage:<9} failed: {done.stderr.strip().splitlines()[-1]}")
                largest = float("inf")
                continue
            found = json.loads(done.stdout.splitlines()[-1])
            each = 1e6 * found["memory"] / rows
            largest = max(largest, found["memory"] / 1e3)
            if stage == "read":
                speed = max(speed, rows / found["seconds"])
            print(
                f"{name:<26} {stage:<9} {found['seconds']:>8.2f} {rows / found['seconds']:>14,.0f} "
                f"{found['memory']:>7.0f} {each:>12,.0f}"
            )
    verdict(f"{speed / 1e6:.1f} million rows a second are read; no stage needs more than {largest:.1f} GB", SEED)


if __name__ == "__main__":
    main()
