"""Trainings that are killed at any moment go on, and end as if they had not been.

The rest of what runs survive is in tests/training/test_runs.py; what needs processes is in killed_runs.py.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_killed_runs_go_on_and_end_with_the_same_bytes() -> None:
    memory = Path("/dev/shm")
    where = memory if memory.is_dir() and os.access(memory, os.W_OK) else None  # waiting for disks would be most of it
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory(dir=where) as folder:
        command = [sys.executable, "-m", "tests.faults.killed_runs", folder]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("begun") > 12, done.stderr  # most kills come after the first state
    assert found == {"different": 0, "failed": 0, "left": 0}, done.stderr
