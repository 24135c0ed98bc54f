"""Trainings that are killed, and go on: `python -m tests.faults.killed_runs FOLDER`.

test_killed_runs.py runs it, as a process that may fork, and reads what it found as JSON.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

import bayesmeta as bm
from tests.faults.forked import child, not_to_the_disk, wait

TASKS = bm.tasks.Sinusoid().dataset(num_tasks=6, num_points=5, seed=0)
HELD_OUT = bm.tasks.Sinusoid().dataset(num_tasks=3, num_points=5, seed=1)
KILLS = 20
CALLS = [("fsync", 6), ("fsync", 9), ("replace", 4), ("unlink", 4)]  # in the middle of a state, or of a model


def train(folder: Path) -> None:
    """The run that is killed: what it has come to is written beside its folder."""
    torch.manual_seed(0)
    learner = bm.ALPaCA(bm.Polynomial(1, 2))
    result = bm.fit(
        learner,
        TASKS,
        36,
        batch_size=2,
        lr=0.003,
        validation=HELD_OUT,
        validate_every=12,
        progress=False,
        checkpoint=folder,
        every=5,
        resume="auto",
    )
    history = repr((result.losses, result.validation, result.best_step)).encode()
    (weights,) = folder.glob("weights-*.safetensors")
    folder.with_suffix(".end").write_bytes(history + weights.read_bytes())


def killed(root: Path) -> dict[str, int]:
    """A run that is killed at 20 random moments, each in a run of its own, and at every kind of call of a write."""
    whole = root / "whole"
    train(root / "first")  # what torch loads when it is first asked for, children have
    before = time.monotonic()
    failed = wait(child(lambda: train(whole)))
    seconds = time.monotonic() - before
    expected, random_ = whole.with_suffix(".end").read_bytes(), random.Random(0)
    moments = [random_.uniform(0.05, 0.95) * seconds for _ in range(KILLS)]
    kills: list[Callable[[Path], None]] = [lambda folder, after=after: _kill_after(after, folder) for after in moments]
    kills += [lambda folder, call=call: _killed_at(call, folder) for call in CALLS]
    found = {"different": 0, "begun": 0, "left": 0, "failed": failed}
    for place, kill in enumerate(kills):
        folder = root / f"run-{place}"
        kill(folder)
        found["begun"] += bool(list((folder / "states").glob("0*.safetensors")))
        found["failed"] += wait(child(lambda folder=folder: train(folder))) != 0
        found["different"] += folder.with_suffix(".end").read_bytes() != expected
        found["left"] += len(list((folder / "states").iterdir())) - 3 + len(list(folder.iterdir())) - 3
    return found


def _kill_after(seconds: float, folder: Path) -> None:
    pid = child(lambda: train(folder))
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    wait(pid)


def _killed_at(call: tuple[str, int], folder: Path) -> None:
    name, left = call
    function = getattr(os, name)

    def kill(*args: object, **kwargs: object) -> object:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)

    def run() -> None:
        setattr(os, name, kill)
        train(folder)

    wait(child(run))


def main() -> None:
    """Try it."""
    torch.set_num_threads(1)
    os.fsync = not_to_the_disk
    print(json.dumps(killed(Path(sys.argv[1]))))


if __name__ == "__main__":
    main()
