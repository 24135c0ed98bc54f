"""Writers that are killed, stopped, short of disk or several at once: `python -m tests.faults.forked FOLDER`.

test_model_folders.py runs it, as a process that may fork, and reads what it found as JSON.

One process for all of them, because importing torch takes longer than all that is tried.
"""

import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

import bayesmeta as bm
from tests.faults.hostile import break_folder

LEARNERS: dict[float, bm.Learner] = {}  # by the number that all weights are


def _learner(value: float) -> bm.Learner:
    learner = bm.ALPaCA(bm.MLP(1, [8 + int(value)]))  # of another size: weights of one do not fit the other
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.fill_(value)
    return learner


def child(work: Callable[[], object]) -> int:
    """A process that does the work and ends; its number."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return pid


def wait(pid: int) -> int:
    """The exit status of such a process."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _saved(folder: Path, values: list[float]) -> bool:
    """Whether the folder loads, and is one of these learners with all its weights."""
    try:
        learner = bm.load(folder)
    except bm.BayesMetaError as error:
        print(error, file=sys.stderr)
        return False
    found = {value for parameter in learner.parameters() for value in parameter.flatten().tolist()}
    return len(found) == 1 and found <= set(values)


def _again_and_again(folder: Path, values: list[float], times: int) -> None:
    for i in range(times):
        bm.save(LEARNERS[values[i % len(values)]], folder)


def two_writers(root: Path) -> dict[str, int]:
    """60 rounds of two processes that save at once, while this one reads."""
    bad = failed = unread = left = 0
    for i in range(60):
        folder = root / f"two-{i}"
        bm.save(LEARNERS[0.0], folder)
        writers = [child(lambda to=folder, value=value: _again_and_again(to, [value], 4)) for value in (1.0, 2.0)]
        for _ in range(4):
            unread += not _saved(folder, [0.0, 1.0, 2.0])
        failed += sum(wait(pid) != 0 for pid in writers)
        bad += not _saved(folder, [1.0, 2.0])
        left += len(list(folder.iterdir())) - 2
    return {"bad": bad, "failed": failed, "unread": unread, "left": left}


def killed(root: Path) -> dict[str, int]:
    """A writer killed at a random moment, 60 times, and at every step of a save: an old or a new model loads, and the
    next save tidies up."""
    random_ = random.Random(0)
    folder, bad, left, unfinished = root / "killed", 0, 0, 0
    bm.save(LEARNERS[0.0], folder)
    (folder / "weights-best.safetensors").write_bytes(b"the user's own")
    for _ in range(60):
        writer = child(lambda: _again_and_again(folder, [1.0, 2.0], 1_000))
        time.sleep(random_.uniform(0.0, 0.02))
        os.kill(writer, signal.SIGKILL)
        wait(writer)
        bad += not _saved(folder, [0.0, 1.0, 2.0])
        unfinished += len(list(folder.iterdir())) > 3
        bm.save(LEARNERS[0.0], folder)
        left += len(list(folder.iterdir())) - 3
    for step in STEPS:
        wait(child(lambda step=step: _save_killed_at(step, folder)))
        bad += not _saved(folder, [0.0, 1.0])
        unfinished += len(list(folder.iterdir())) > 3
        bm.save(LEARNERS[0.0], folder)
        left += len(list(folder.iterdir())) - 3
    kept = (folder / "weights-best.safetensors").read_bytes() == b"the user's own"
    return {"bad": bad, "left": left, "unfinished": unfinished, "kept": int(kept)}


STEPS = [("fsync", 1), ("fsync", 2), ("replace", 1), ("unlink", 1)]  # the last: of the weights that are replaced


def _save_killed_at(step: tuple[str, int], folder: Path) -> None:
    name, call = step
    function, calls = getattr(os, name), []

    def kill(*args: object, **kwargs: object) -> object:
        calls.append(args)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)

    setattr(os, name, kill)
    bm.save(LEARNERS[1.0], folder)


def stopped(root: Path) -> dict[str, int]:
    """A writer that is stopped in the middle of a save keeps its files, holds nobody up, and ends its save later."""
    folder = root / "stopped"
    bm.save(LEARNERS[0.0], folder)

    def stop_in_the_middle() -> None:
        def stop(descriptor: int) -> None:
            os.fsync = not_to_the_disk
            os.kill(os.getpid(), signal.SIGSTOP)

        os.fsync = stop
        bm.save(LEARNERS[1.0], folder)

    writer = child(stop_in_the_middle)
    os.waitpid(writer, os.WUNTRACED)
    before = time.monotonic()
    bm.save(LEARNERS[2.0], folder)
    seconds = time.monotonic() - before
    meanwhile = _saved(folder, [2.0])
    os.kill(writer, signal.SIGCONT)
    code = wait(writer)
    last = _saved(folder, [1.0])
    return {
        "held_up": int(seconds > 8.0),
        "meanwhile": int(meanwhile),
        "failed": code,
        "last": int(last),
        "left": len(list(folder.iterdir())) - 2,
    }


def full_disk(root: Path) -> dict[str, int]:
    """No file may be larger than so many bytes: our own error, and the old model is still there."""
    folder, bad, own, left = root / "full", 0, 0, 0
    bm.save(LEARNERS[0.0], folder)
    sizes = [0, 1, 100, 500, 1_000, *range(1_200, 2_400, 100)]

    def save_within(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        try:
            bm.save(LEARNERS[2.0], folder)
        except bm.DataError:
            os._exit(3)

    for size in sizes:
        own += wait(child(lambda size=size: save_within(size))) in (0, 3)
        bad += not _saved(folder, [0.0, 2.0])
        left += len(list(folder.iterdir())) - 2
    return {"bad": bad, "not_own": len(sizes) - own, "left": left}


def hostile(root: Path) -> dict[str, int]:
    """Thousands of broken folders, with little memory: each is refused in words of our own, or is a learner."""
    data = bm.Data.from_arrays([0.1, 0.4, 0.9], [0.3, 0.1, -0.2])
    labels = bm.Data(torch.randn(1, 3, 2), torch.tensor([[0, 1, 2]]), torch.ones(1, 3, dtype=torch.bool))
    made: dict[str, tuple[bm.Learner, bm.Data]] = {
        "alpaca": (bm.Standardized(bm.ALPaCA(bm.MLP(1, [4]), covariance=bm.priors.DiagonalCovariance(4))), data),
        "maml": (bm.MAML(bm.MLP(1, [4]), steps=2, posterior=bm.PointEstimate()), data),
        "kernel": (bm.DeepKernelTransfer(bm.Polynomial(1, 2), kernel=bm.kernels.MaternKernel()), data),
        "classes": (bm.R2D2(bm.MLP(2, [4]), num_classes=3), labels),
        "mixture": (bm.MixtureALPaCA(bm.RadialBasis(1, 4), num_components=2), data),
        "several": (bm.HyperPosterior([bm.ALPaCA(bm.Spline([0.0, 1.0])), bm.ALPaCA(bm.Identity(1))]), data),
    }
    for name, (learner, _) in made.items():
        bm.save(learner, root / name)
    used = next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "VmSize" in line)
    resource.setrlimit(resource.RLIMIT_AS, (used * 1024 + 400 * 2**20,) * 2)
    signal.signal(signal.SIGALRM, _too_slow)
    random_, folder = random.Random(0), root / "broken"
    folder.mkdir()
    counts = {"refused": 0, "learners": 0, "raw": 0}
    for _ in range(1_500):
        name = random_.choice([*made])
        break_folder(folder, root / name, random_)
        try:
            signal.setitimer(signal.ITIMER_REAL, 20.0)
            learner = bm.load(folder)
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            assert isinstance(learner, bm.Learner)
            if getattr(learner, "steps", 0) < 100:  # a million steps are legal, and take their time
                learner.adapt(made[name][1].to(next(learner.parameters()).dtype)).predict(made[name][1].x)
            counts["learners"] += 1
        except bm.BayesMetaError:
            counts["refused"] += 1
        except (Exception, _Slow) as error:
            print(f"{type(error).__name__}: {error}\n{(folder / 'model.json').read_bytes()!r}", file=sys.stderr)
            counts["raw"] += 1
        signal.setitimer(signal.ITIMER_REAL, 0.0)
    return counts


def not_to_the_disk(descriptor: int) -> None:
    """No power failure is tried here, and waiting for disks would be most of the time."""


class _Slow(BaseException):
    pass


def _too_slow(*_: object) -> None:
    raise _Slow


def main() -> None:
    """Try all of them."""
    torch.set_num_threads(1)
    os.fsync = not_to_the_disk
    root = Path(sys.argv[1])
    LEARNERS.update({value: _learner(value) for value in (0.0, 1.0, 2.0)})
    found = {}
    for each in (two_writers, killed, stopped, full_disk, hostile):  # the last limits memory for good
        before = time.monotonic()
        found[each.__name__] = each(root) | {"seconds": round(time.monotonic() - before, 1)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
