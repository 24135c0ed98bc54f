"""How benchmarks train: for a budget of processor seconds of one thread, and into a folder of models if asked.

A few steps are timed, and as many are taken as the budget has room for.
"""

import ctypes
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

import bayesmeta as bm
from bayesmeta.training import Objective
from benchmarks._report import affordable

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # of glibc's mallopt


def keep_memory() -> None:
    """Let glibc keep the memory of large tensors in place of returning it to the system after each use.

    A step of Conv4 makes maps of tens of megabytes; zeroing fresh pages for them took 45 % of the processor time of
    training here. It changes no number. Elsewhere than with glibc nothing is done.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for option, value in ((M_MMAP_THRESHOLD, 2**30), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 2**28)):
            libc.mallopt(option, value)


def fitted(
    make: Callable[[], bm.Learner],
    tasks: bm.tasks.TaskSource,
    split: bm.tasks.Split,
    seconds: float,
    *,
    batch_size: int,
    lr: float,
    seed: int,
    objective: Objective | None = None,
    validation: bm.TaskDataset | None = None,
    trial: int = 12,
) -> tuple[bm.Learner, str]:
    """A learner trained for a budget.

    Args:
        make: a fresh learner; it is seeded.
        tasks: what it is trained on.
        split: support and query.
        seconds: the budget, processor seconds.
        batch_size: tasks a step.
        lr: first learning rate.
        seed: of the weights, and of the tasks.
        objective: what is trained on; the learner's own by default.
        validation: tasks that say at which step theta was best; their time counts.
        trial: steps that are timed; more where steps differ in cost.

    Returns:
        The learner, and a line that says what it took.
    """
    torch.manual_seed(seed)
    learner = make()

    def run(learner: bm.Learner, steps: int) -> float:
        start = time.process_time()
        bm.fit(
            learner,
            tasks,
            steps,
            batch_size=batch_size,
            lr=lr,
            split=split,
            objective=objective,
            validation=validation,
            seed=seed,
            progress=False,
        )
        return time.process_time() - start

    steps = affordable(partial(run, make()), seconds, trial)
    spent = run(learner, steps)
    return learner, f"{steps} steps of {batch_size} in {spent:.0f} processor seconds"


def trained(name: str, make: Callable[[], tuple[bm.Learner, str]], folder: str | None) -> tuple[bm.Learner, str]:
    """What `make` trains, or what it trained before into a folder of models: training and scoring can be apart."""
    if folder is None:
        return make()
    path = Path(folder) / name
    note = path.with_suffix(".txt")
    if note.exists():
        return bm.load(path), note.read_text()
    learner, line = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    bm.save(learner, path)
    note.write_text(line)
    return learner, line
