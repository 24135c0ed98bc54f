"""Trainings in one, two and four processes: `python -m tests.training.together FOLDER`.

test_distributed.py runs it, as a process that may fork, and reads what it found as JSON. One process for all of them,
because importing torch takes longer than all that is trained.
"""

import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import bayesmeta as bm

STEPS = 200
SINUSOIDS = bm.tasks.Sinusoid().dataset(30, 12, seed=1)
UNEQUAL = bm.TaskDataset.from_list(
    [(SINUSOIDS.data.x[t, : 4 + t % 8], SINUSOIDS.data.y[t, : 4 + t % 8]) for t in range(30)]
)
HELD_OUT = bm.tasks.Sinusoid().dataset(7, 10, seed=2)  # less than two for each of four
BLOBS = bm.tasks.GaussianBlobs(3)

Result = dict[str, Any]


def _fitted(learner: bm.Learner, tasks: bm.tasks.TaskSource, steps: int = STEPS, **arguments: Any) -> Result:
    result = bm.fit(learner.double(), tasks, steps, lr=1e-2, progress=False, **arguments)
    theta = torch.cat([value.detach().flatten() for value in learner.state_dict().values()])
    seen = [value for _, value in result.validation]
    return {"theta": theta.tolist(), "losses": result.losses, "seen": seen, "rest": [result.best_step, result.seconds]}


def alpaca() -> Result:
    """A closed form, with validation, a model folder and fewer tasks than some processes have room for."""
    learner = bm.Standardized(bm.ALPaCA(bm.MLP(1, [8])))
    return _fitted(learner, SINUSOIDS, validation=HELD_OUT, validate_every=50, batch_size=7)


def maml() -> Result:
    """Second derivatives."""
    return _fitted(bm.MAML(bm.MLP(1, [8]), steps=2), SINUSOIDS, batch_size=5)


def prototypical() -> Result:
    """A classifier, on simulated tasks."""
    return _fitted(bm.Prototypical(bm.MLP(2, [8]), num_classes=3), BLOBS, split=bm.tasks.ClassSplit((1, 2), 3))


def evidence() -> Result:
    """A loss whose scale is that of the batch, of tasks of unequal length, with a hyperprior."""
    learner = bm.wrappers.WithHyperprior(bm.ALPaCA(bm.MLP(1, [8])), bm.hyperpriors.GaussianHyperprior())
    return _fitted(learner, UNEQUAL, objective=bm.training.Evidence(), batch_size=6, validation=HELD_OUT)


def latent() -> Result:
    """Latents that are drawn from torch's global generator, which is the first process's; and a process without tasks."""
    torch.manual_seed(bm.training.Processes.here().rank)
    torch.rand(3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        learner = bm.LatentNeuralProcess(bm.Identity(1))
    torch.manual_seed(bm.training.Processes.here().rank)
    return _fitted(learner, SINUSOIDS, 20, batch_size=3)


TRAININGS = [alpaca, maml, prototypical, evidence, latent]


class _Fails(bm.training.Objective):
    """The loss of an ALPaCA learner until a task is too much for a process."""

    def __init__(self, rank: int, error: Exception | None) -> None:
        self.rank, self.error = rank, error

    def loss(self, learner: bm.Learner, tasks: bm.TaskBatch) -> torch.Tensor:
        each = learner.loss(tasks)
        if bm.training.Processes.here().rank == self.rank:
            if self.error is not None:
                raise self.error
            return torch.where(torch.arange(len(each)) == 1, torch.nan, each)
        return each


class _Coupled(bm.training.Objective):
    """A loss that measures tasks by each other."""

    def loss(self, learner: bm.Learner, tasks: bm.TaskBatch) -> torch.Tensor:
        return learner.loss(tasks) - 0.5 * tasks.query.y.mean()


def _error(**arguments: Any) -> str:
    learner = bm.ALPaCA(bm.MLP(1, [8]))
    given: dict[str, Any] = {"tasks": bm.tasks.Sinusoid(), "split": bm.tasks.RandomSplit.at(3, 4), "batch_size": 6}
    try:
        bm.fit(learner, steps=3, progress=False, **(given | arguments))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def failures(folder: Path) -> dict[str, str]:
    """What each process says of what went wrong in one of them, or is not the same in all."""
    rank = bm.training.Processes.here().rank
    singular = bm.InferenceError("singular: task 0", task=0)
    return {
        "not finite": _error(objective=_Fails(1, None)),
        "singular": _error(objective=_Fails(1, singular)),
        "own": _error(objective=_Fails(0, KeyError("no such column"))),
        "held out": _error(objective=_Fails(1, None), validation=HELD_OUT, tasks=SINUSOIDS),
        "written": _error(checkpoint=folder / ("a file" if rank == 0 else "never asked")),
        "seeds": _error(seed=rank),
        "tasks": _error(tasks=bm.tasks.Sinusoid().dataset(8, 9, seed=rank)),
        "coupled": _error(objective=_Coupled()),
        "alone": _alone(),
    }


def _alone() -> str:
    with bm.training.alone():
        return _error(seed=bm.training.Processes.here().rank)


def lost(rank: int) -> str:
    """What the others say where one has ended."""
    bm.training.Processes.here().connect()
    if rank == 1:
        os._exit(0)
    return _error()


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _together(count: int, work: Callable[[int], object], folder: Path) -> list[Any]:
    """What so many processes find, each by its rank, as a launcher would start them."""
    os.environ.update(WORLD_SIZE=str(count), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(_port()))
    pids = []
    for rank in range(count):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.environ["RANK"] = str(rank)
                torch.manual_seed(0)
                (folder / f"{rank}.json").write_text(json.dumps(work(rank)))
                code = 0
            finally:
                os._exit(code)
        pids.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    if any(codes):
        raise RuntimeError(f"expected {count} processes to end well, got {codes}")
    files = [folder / f"{rank}.json" for rank in range(count)]
    return [json.loads(file.read_text()) if file.exists() else None for file in files]


def _all(rank: int) -> dict[str, Result]:
    found = {}
    for each in TRAININGS:
        torch.manual_seed(0)
        found[each.__name__] = each()
    return found


def main() -> None:
    """Try all of them."""
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    (folder / "a file").write_text("")
    found: dict[str, Any] = {str(count): _together(count, _all, folder) for count in (1, 2, 4)}
    found["failures"] = _together(2, lambda rank: failures(folder), folder)
    for file in folder.glob("*.json"):
        file.unlink()
    found["lost"] = _together(2, lost, folder)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
