"""Trainings in one, two and four processes: `python -m tests.training.together FOLDER COUNT...`.

test_distributed.py runs it, as a process that may fork, and reads what it found as JSON. One process for all of them,
because importing torch takes longer than all that is trained.
"""

import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import bayesmeta as bm

STEPS = int(os.environ.get("STEPS", "20"))
SINUSOIDS = bm.tasks.Sinusoid().dataset(30, 12, seed=1)
UNEQUAL = bm.TaskDataset.from_list(
    [(SINUSOIDS.data.x[t, : 4 + t % 8], SINUSOIDS.data.y[t, : 4 + t % 8]) for t in range(30)]
)
BROKEN = bm.TaskDataset.from_list(
    [(SINUSOIDS.data.x[t], SINUSOIDS.data.y[t].double() * (1e200 if t == 0 else 1.0)) for t in range(5)]
)
HELD_OUT = bm.tasks.Sinusoid().dataset(7, 10, seed=2)  # less than two for each of four
BLOBS = bm.tasks.GaussianBlobs(3)

Result = dict[str, Any]


def _fitted(learner: bm.Learner, tasks: bm.tasks.TaskSource, steps: int = STEPS, **arguments: Any) -> Result:
    result = bm.fit(learner.double(), tasks, steps, lr=1e-2, progress=False, **arguments)
    theta = torch.cat([value.detach().flatten() for value in learner.state_dict().values()])
    seen = [value for _, value in result.validation]
    return {
        "theta": theta.tolist(),
        "losses": result.losses,
        "seen": seen,
        "rest": [result.best_step, result.skipped, result.seconds],
    }


def alpaca() -> Result:
    """A closed form, with validation, a model folder and fewer tasks than some processes have room for."""
    learner = bm.Standardized(bm.ALPaCA(bm.MLP(1, [8])))
    return _fitted(learner, SINUSOIDS, validation=HELD_OUT, validate_every=STEPS // 4, batch_size=7)


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
    """Latents that are drawn from torch's global generator, as the first process has it; and one without tasks."""
    torch.manual_seed(bm.training.Processes.here().rank)  # theta is the first one's, too
    return _fitted(bm.LatentNeuralProcess(bm.Identity(1)), SINUSOIDS, STEPS // 10, batch_size=3)


def skipping() -> Result:
    """A task of few is never finite: it is left out wherever it is, also where it is all that a process has."""
    return _fitted(bm.ALPaCA(bm.MLP(1, [8])), BROKEN, batch_size=2, max_skipped=STEPS)


TRAININGS = [alpaca, maml, prototypical, evidence, latent, skipping]


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
    learner = arguments.pop("learner", None) or bm.ALPaCA(bm.MLP(1, [8]))
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
    told = _Told()
    found = {
        "callback": _error(callbacks=[told] if rank == 0 else []),
        "too many": _error(
            tasks=BROKEN, batch_size=5, split=None, max_skipped=2, learner=bm.ALPaCA(bm.MLP(1, [8])).double()
        ),
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
    return found | {"told": str(told.steps)}


def _alone() -> str:
    with bm.training.alone():
        return _error(seed=bm.training.Processes.here().rank)


class _Told(bm.training.Callback):
    """Of two steps, and then no more."""

    steps = 0

    def on_step(self, record: bm.training.StepRecord) -> None:
        self.steps = record.step
        if record.step == 2:
            raise LookupError("enough")


class _Watched(bm.training.Objective):
    """The loss of an ALPaCA learner; at its call number `signal_at` the second process gets `signal`."""

    calls, signal_at, signal = 0, -1, signal.SIGKILL

    def loss(self, learner: bm.Learner, tasks: bm.TaskBatch) -> torch.Tensor:
        _Watched.calls += 1
        if _Watched.calls == _Watched.signal_at and bm.training.Processes.here().rank == 1:
            os.kill(os.getpid(), _Watched.signal)
        return learner.loss(tasks)


def _kept(folder: Path, signal_at: int = -1, which: signal.Signals = signal.SIGKILL) -> Result:
    _Watched.signal_at, _Watched.signal = signal_at, which
    torch.manual_seed(0)
    learner = bm.LatentNeuralProcess(bm.Identity(1)).double()
    objective = _Watched()
    arguments: dict[str, Any] = {"validation": HELD_OUT, "validate_every": 4, "every": 4, "resume": "auto"}
    result = bm.fit(learner, SINUSOIDS, 14, batch_size=5, objective=objective, checkpoint=folder, **arguments)
    theta = torch.cat([value.detach().flatten() for value in learner.state_dict().values()])
    return {"theta": theta.tolist(), "steps": len(result.losses), "interrupted": result.interrupted}


def killed(folder: Path) -> str:
    """A run whose second process is killed: what the first one says of it."""
    try:
        _kept(folder, 16)
    except bm.InferenceError as error:
        return str(error)
    return "none"


def runs(folder: Path) -> dict[str, Result]:
    """A run without a break, the one that was killed, and one in which the second process is asked to stop."""
    return {
        "unbroken": _kept(folder / "unbroken"),
        "after the kill": _kept(folder / "killed"),
        "stopped": _kept(folder / "stopped", _Watched.calls + 12, signal.SIGTERM),
        "after the stop": _kept(folder / "stopped"),
    }


def searched(folder: Path) -> list[float]:
    """What is not divided: each process computes the same, and the first one writes."""
    learner = bm.ALPaCA(bm.Identity(1)).double()
    bm.fit_evidence(learner, SINUSOIDS, checkpoint=folder)
    return [*learner.prior.location.flatten().tolist(), *learner.noise.covariance().flatten().tolist()]


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _together(count: int, work: Callable[[], object], folder: Path) -> list[Any]:
    """What so many processes find, each by its rank, as a launcher would start them; None where one did not end."""
    files = [folder / f"{rank}.json" for rank in range(count)]
    for file in files:
        file.unlink(missing_ok=True)
    os.environ.update(WORLD_SIZE=str(count), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(_port()))
    pids = []
    for rank in range(count):
        pid = os.fork()
        if pid == 0:
            try:
                os.environ["RANK"] = str(rank)
                torch.manual_seed(0)
                files[rank].write_text(json.dumps(work()))
            except BaseException as error:
                print(rank, type(error).__name__, error, file=sys.stderr)
            finally:
                os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    return [json.loads(file.read_text()) if file.exists() else None for file in files]


def _all(folder: Path) -> dict[str, Result]:
    found: dict[str, Any] = {}
    for each in TRAININGS:
        torch.manual_seed(0)
        found[each.__name__] = each()
    if bm.training.Processes.here().count == 2:
        found |= {"failures": failures(folder), "runs": runs(folder), "searched": searched(folder / "searched")}
    return found


def main() -> None:
    """Try all of them, in these numbers of processes."""
    torch.set_num_threads(1)
    importlib.import_module("torch._dynamo")  # which optimizers import when they are first used: once, not in each
    folder, counts = Path(sys.argv[1]), sys.argv[2:]
    (folder / "a file").write_text("")
    found: dict[str, Any] = {}
    if "2" in counts:
        found["killed"] = _together(2, lambda: killed(folder / "killed"), folder)
    for count in counts:
        found[count] = _together(int(count), lambda: _all(folder), folder)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
