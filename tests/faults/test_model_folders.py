"""Model folders under other writers, kills, full disks and forgery. (tests/training/test_checkpoint.py: what they are.)

What needs processes is in forked.py, which runs once for all of these tests.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
import torch

import bayesmeta as bm

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, int]]:
    """What forked.py has found. In memory where that is possible: waiting for disks would be most of the time."""
    memory = Path("/dev/shm")
    where = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory(dir=where) as folder:
        done = subprocess.run(
            [sys.executable, "-m", "tests.faults.forked", folder],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=environment,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    print(done.stderr)  # what was raw, for whoever mends it
    result: dict[str, dict[str, int]] = json.loads(done.stdout)
    return result


def _counts(found: dict[str, dict[str, int]], name: str) -> dict[str, int]:
    return {key: value for key, value in found[name].items() if key != "seconds"}


def test_two_writers_and_a_reader(found: dict[str, dict[str, int]]) -> None:
    assert _counts(found, "two_writers") == {"bad": 0, "failed": 0, "unread": 0, "left": 0}


def test_a_killed_save_leaves_a_model_and_the_next_one_tidies_up(found: dict[str, dict[str, int]]) -> None:
    counts = _counts(found, "killed")
    assert counts.pop("unfinished") >= 4  # there was something to tidy up
    assert counts == {"bad": 0, "left": 0, "kept": 1}


def test_a_stopped_writer_is_neither_robbed_nor_waited_for(found: dict[str, dict[str, int]]) -> None:
    assert _counts(found, "stopped") == {"held_up": 0, "meanwhile": 1, "failed": 0, "last": 1, "left": 0}


def test_a_full_disk_loses_nothing(found: dict[str, dict[str, int]]) -> None:
    assert _counts(found, "full_disk") == {"bad": 0, "not_own": 0, "left": 0}


def test_broken_folders_are_refused_in_little_memory(found: dict[str, dict[str, int]]) -> None:
    counts = _counts(found, "hostile")
    assert counts["raw"] == 0
    assert counts["refused"] > 500
    assert counts["learners"] > 50


def test_threads_that_save_at_once(tmp_path: Path) -> None:
    learners = [bm.ALPaCA(bm.MLP(1, [8 + i])) for i in range(4)]
    failed: list[BaseException] = []

    def write(learner: bm.Learner) -> None:
        try:
            for _ in range(5):
                bm.save(learner, tmp_path)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(learner,)) for learner in learners]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if (tmp_path / "model.json").exists():
            bm.load(tmp_path)
    assert failed == []
    loaded = bm.load(tmp_path)
    width = loaded.features.num_outputs - 8
    for a, b in zip(loaded.parameters(), learners[width].parameters(), strict=True):
        assert torch.equal(a, b)
    assert len(list(tmp_path.iterdir())) == 2
