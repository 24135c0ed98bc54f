"""Where a training is kept while it goes on: a folder with its states, from any of which it goes on bit for bit.

    model.json, weights-...safetensors     the best model so far, or the last (`bm.load(folder)`)
    states/00000500-<12 hex>.safetensors   all that the run was after step 500
    states/lock                            held by the process that writes

A state is one file, written under another name, forced to the disk and renamed: a kill at any moment, a full disk or a
power failure leaves the states before it. Its name has the digest of its content, so that one that was damaged later is
known and the one before it serves. The lock is the system's (flock), which lets it go when the process ends.
"""

import contextlib
import hashlib
import os
import re
import socket
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

from bayesmeta.arguments import whole
from bayesmeta.errors import DataError
from bayesmeta.learner import Learner
from bayesmeta.outputs import write
from bayesmeta.training.checkpoint import require_savable, save
from bayesmeta.training.distributed import Processes
from bayesmeta.training.runs.answers import Answer, Answers, recalled
from bayesmeta.training.runs.packing import packed, unpacked
from bayesmeta.training.runs.parts import Parts
from bayesmeta.training.runs.settings import Settings, plain, require_same, versions
from bayesmeta.training.runs.signals import Stop, Stopped
from bayesmeta.typing import LogJoint

if sys.platform != "win32":
    import fcntl

EVERY = 500  # steps between two states: seconds to minutes, of which a kill costs the last
KEPT = 2  # states: the newest, and the one before it, should the newest be damaged
NAME = re.compile(r"([0-9]{8,})-([0-9a-f]{12})\.safetensors")
LEFTOVER = re.compile(r"\.[0-9a-f]{32}\.part")  # of a killed write (`outputs.write`)

Resume = Literal["auto", "never"]
"""What to do with a run that is in the folder: "auto" goes on with it, "never" begins anew in its place."""


class CheckpointWarning(UserWarning):
    """A checkpoint was damaged, could not be written, or is of other versions; the training goes on all the same.

    It is a warning, and Python's own filters turn it off, or into an error.

    Example:
        >>> import tempfile
        >>> import warnings
        >>> from pathlib import Path
        >>> import bayesmeta as bm
        >>> tasks, learner = bm.tasks.Sinusoid().dataset(5, 8), bm.ALPaCA(bm.Identity(1))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = bm.fit(learner, tasks, 4, checkpoint=folder, every=2)
        ...     newest = max(Path(folder, "states").glob("*.safetensors"))
        ...     _ = newest.write_bytes(newest.read_bytes()[:100])
        ...     with warnings.catch_warnings(record=True) as seen:
        ...         warnings.simplefilter("always")
        ...         again = bm.fit(learner, tasks, 4, checkpoint=folder, every=2, resume="auto")
        >>> print(str(seen[0].message)[:50])
        expected whole states, got a damaged one of step 4
        >>> again.losses == result.losses
        True
    """


class Run(ABC):
    """A training on its way: it is asked after every step whether to go on, and told when a state is to be kept."""

    every: int

    @property
    @abstractmethod
    def is_stopped(self) -> bool:
        """Whether the training is to end after the step that it is at."""

    @abstractmethod
    def begin(self, parts: Parts) -> int:
        """Give the parts the state from which the run goes on, if there is one.

        Args:
            parts: all that changes from step to step.

        Returns:
            The step after which it goes on; 0 for a run that begins.
        """

    @abstractmethod
    def keep(self, step: int, is_last: bool = False) -> None:
        """Keep the state of all parts.

        Args:
            step: how many steps were taken.
            is_last: whether the run has come to its end.
        """

    def ask(self, compute: Callable[[], Answer]) -> Answer:
        """What a function returns, or has returned in an earlier sitting.

        For a search that is run again from its start: states are kept as questions are answered, and a question counts
        as a step.

        Args:
            compute: the function.

        Raises:
            Stopped: the run was told to stop; its state is kept.
        """
        return compute()

    def recalling(self, log_joint: LogJoint) -> LogJoint:
        """A log joint that is asked for: its values and first derivatives are those of an earlier sitting, if known.

        Args:
            log_joint: phi -> log density of each row, which depends on that row of phi alone.
        """
        return log_joint

    @property
    def answered(self) -> int:
        """How many questions have answers that are kept: the step that a search is at."""
        return 0

    def conclude(self) -> None:
        """Keep the answers of a search that has no more questions."""
        self.keep(self.answered, is_last=True)

    @abstractmethod
    def offer(self, learner: Learner) -> None:
        """Keep the learner as the best, or the last, so far."""

    @abstractmethod
    def finish(self, learner: Learner) -> None:
        """Keep the learner as what the run has come to.

        Raises:
            DataError: it cannot be kept.
        """

    @abstractmethod
    def __enter__(self) -> "Run":
        """Begin to keep."""

    @abstractmethod
    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        """Let go of what was held."""


class Unkept(Run):
    """A training of which nothing is kept."""

    every = sys.maxsize
    is_stopped = False

    def begin(self, parts: Parts) -> int:
        """From the first step."""
        return 0

    def keep(self, step: int, is_last: bool = False) -> None:
        """Nothing."""

    def offer(self, learner: Learner) -> None:
        """Nothing."""

    def finish(self, learner: Learner) -> None:
        """Nothing."""

    def __enter__(self) -> "Unkept":
        """Nothing."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        """Nothing."""


class RunFolder(Run):
    """A training that is kept in a folder, of which there is one writer.

    Args:
        folder: it is made when it does not exist.
        settings: what must be the same for the run to be gone on with, `plain`.
        every: steps between two states.
        resume: what to do with a run that is there; None refuses to begin anew where one has not come to its end.
        model: whose theta is the folder's model at every state; None where only `offer` and `finish` say so.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from bayesmeta.training.runs.parts import TensorState
        >>> value = torch.zeros(1)
        >>> def count(folder, steps):  # a training of one's own
        ...     with RunFolder(Path(folder), {"by": 1.0}, every=5, resume="auto", model=None) as run:
        ...         step = run.begin({"value": TensorState({"value": value})})
        ...         print("after step", step)
        ...         while step < steps and not run.is_stopped:
        ...             step += 1
        ...             value.add_(1.0)
        ...             if step % run.every == 0:
        ...                 run.keep(step)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     count(folder, 7)  # and it is killed
        ...     _ = value.zero_()
        ...     count(folder, 10)
        after step 0
        after step 5
        >>> value
        tensor([10.])
    """

    def __init__(
        self, folder: Path, settings: Settings, every: int, resume: Resume | None, model: Learner | None
    ) -> None:
        self.folder, self.settings, self.every, self.resume, self.model = folder, settings, every, resume, model
        self.states = folder / "states"
        self._stop, self._held = Stop(), contextlib.ExitStack()
        self._answers = Answers()
        self._parts: Parts = {}
        self._kept: list[Path] = []
        self._at = (-1, False)  # the step of the newest state, and whether it is the last
        self._found: dict[str, Any] | None = None

    def __enter__(self) -> "RunFolder":
        """Take the folder for oneself, and signals as a wish to stop.

        Raises:
            DataError: another process (or thread) has it; its run has other settings; all of its states are damaged; or
                it has not come to its end, and nothing was said of resuming.

        Warns:
            CheckpointWarning: the newest state is damaged; the run was computed by other versions.
        """
        with contextlib.ExitStack() as held:
            held.enter_context(_locked(self.states))
            self._found = self._to_go_on_with()
            held.enter_context(self._stop)
            self._held = held.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        """Let go of both."""
        self._held.close()

    @property
    def is_stopped(self) -> bool:
        """Whether Ctrl-C was pressed, or SIGTERM sent."""
        return self._stop.is_asked

    def begin(self, parts: Parts) -> int:
        """Go on where the newest whole state is, or keep the first."""
        self._parts = {**parts, "answers": self._answers}
        if self._found is None:
            self._tidy()  # a state of another run would be taken for one of this
            self.keep(0)
            return 0
        for name, part in self._parts.items():
            part.load_state_dict(self._found["parts"][name])
        self._at = self._found["step"], self._found["is_last"]
        self._found = None
        return self._at[0]

    def _to_go_on_with(self) -> dict[str, Any] | None:
        """The newest whole state, if the run goes on from it."""
        found = [] if self.resume == "never" else self._states()
        if not found:
            return None
        state, path = _newest(found)
        if self.resume is None:
            if state["is_last"]:
                return None
            raise DataError(
                f"expected a folder without an unfinished run, got one at step {state['step']} in {self.folder}: "
                "pass resume='auto' to go on with it, resume='never' to begin anew in its place"
            )
        require_same(self.settings, state["settings"], str(self.folder))
        others = [f"{name} {each}" for name, each in state["versions"].items() if versions().get(name) != each]
        if others:
            _warn(
                f"expected the versions of the run in {self.folder}, {', '.join(others)}, got {versions()}: "
                "its end may differ in the last digits from that of a run without a break"
            )
        self._kept = [path]
        return state

    def keep(self, step: int, is_last: bool = False) -> None:
        """Write a state, and remove those that are no longer needed.

        Warns:
            CheckpointWarning: it cannot be written, as on a full disk. The states before it stay, and the training goes
                on: what it has in memory is worth more than what would be on the disk.
        """
        if (step, is_last) == self._at:
            return
        try:
            content = packed(
                {
                    "step": step,
                    "is_last": is_last,
                    "settings": self.settings,
                    "versions": versions(),
                    "parts": {name: part.state_dict() for name, part in self._parts.items()},
                }
            )
            path = self.states / f"{step:08d}-{hashlib.sha256(content).hexdigest()[:12]}.safetensors"
            write(path, content)
        except DataError as error:
            _warn(f"expected to keep the state of step {step}, got an error; the training goes on: {error}")
        else:
            self._kept, self._at = [*self._kept, path][-KEPT:], (step, is_last)
            self._tidy()
        if self.model is not None and step > 0:
            self.offer(self.model)

    def ask(self, compute: Callable[[], Answer]) -> Answer:
        """What the function returns, or has returned."""
        is_known = self._answers.is_known
        answer = self._answers.next(compute)
        if self.is_stopped:
            self.keep(self.answered)
            raise Stopped
        if not is_known and self.answered % self.every == 0:
            self.keep(self.answered)
        return answer

    def recalling(self, log_joint: LogJoint) -> LogJoint:
        """The log joint, asked for."""
        return recalled(log_joint, self.ask)

    @property
    def answered(self) -> int:
        """How many answers there are."""
        return len(self._answers)

    def offer(self, learner: Learner) -> None:
        """Write the model.

        Warns:
            CheckpointWarning: it cannot be written. The model before it stays, and the training goes on.
        """
        try:
            save(learner, self.folder)
        except DataError as error:
            _warn(f"expected to write the model, got an error; the training goes on: {error}")

    def finish(self, learner: Learner) -> None:
        """Write the model.

        Raises:
            DataError: it cannot be written; the model before it stays.
        """
        save(learner, self.folder)

    def _states(self) -> list[Path]:
        """Those that are there, the newest first."""
        found = [each for each in self.states.iterdir() if NAME.fullmatch(each.name)]
        return sorted(found, key=lambda each: (_step(each), each.stat().st_mtime_ns), reverse=True)

    def _tidy(self) -> None:
        """Remove states that this run does not keep, and what killed writes have left."""
        for each in self.states.iterdir():
            if each not in self._kept and (NAME.fullmatch(each.name) or LEFTOVER.fullmatch(each.name)):
                with contextlib.suppress(OSError):
                    each.unlink()


def keeping(
    checkpoint: str | Path | None,
    every: int,
    resume: Resume | None,
    learner: Learner,
    settings: Callable[[], Settings],
    *,
    follow: bool = False,
) -> Run:
    """The run of a training, by the arguments that say whether and where it is kept.

    Args:
        checkpoint: the folder; None keeps nothing.
        every: steps between two states.
        resume: what to do with a run that is there.
        learner: what the folder's model will be like.
        settings: of the training; asked for where it is kept.
        follow: whether the learner's theta is the folder's model at every state.

    Raises:
        DataError: arguments out of range, a folder that cannot be written.
        UnsupportedError: a learner that cannot be described.
    """
    every = whole(every, "every", 1)
    if resume not in ("auto", "never", None):
        raise DataError(f"expected resume to be 'auto', 'never' or None, got {resume!r}")
    if checkpoint is None:
        if resume is not None:
            raise DataError(f"expected a checkpoint, the folder of the run, for resume={resume!r}, got none")
        return Unkept()
    if not Processes.here().is_first:
        return Unkept()  # of several processes that compute the same the first one writes
    require_savable(learner, checkpoint)  # now, rather than after hours of training
    return RunFolder(Path(checkpoint), plain(settings()), every, resume, learner if follow else None)


def _newest(found: list[Path]) -> tuple[dict[str, Any], Path]:
    """The first state that is whole, and its file; those before it are warned of."""
    damaged: list[str] = []
    for path in found:
        try:
            state = _read(path)
        except (DataError, OSError) as error:
            damaged.append(f"step {_step(path)} ({error})")
            continue
        if damaged:
            _warn(f"expected whole states, got a damaged one of {', '.join(damaged)}; going on from {state['step']}")
        return state, path
    raise DataError(
        f"expected a whole state in {found[0].parent}, got {len(found)} damaged: pass resume='never' to begin anew"
    )


def _step(path: Path) -> int:
    return int(path.name.split("-")[0])


def _read(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()[:12]
    match = NAME.fullmatch(path.name)
    if match is None or match[2] != found:
        raise DataError(f"expected the content that {path.name} is named after, got another of {len(content)} bytes")
    state: dict[str, Any] = unpacked(content)
    return state


def _warn(message: str) -> None:
    warnings.warn(message, CheckpointWarning, stacklevel=2)


@contextlib.contextmanager
def _locked(states: Path) -> Iterator[None]:
    """Hold the lock of a folder of states; DataError where another does."""
    try:
        states.mkdir(parents=True, exist_ok=True)
        file: IO[str] = (states / "lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise DataError(f"expected a folder that can be written, got {states}: {error}") from error
    with file:
        try:
            _lock(file)
        except BlockingIOError as error:
            file.seek(0)
            writer = file.read(200).strip() or "another process"
            raise DataError(
                f"expected a folder that nobody else writes to, got {states.parent}, which {writer} trains in: "
                "wait for it, or name another folder"
            ) from error
        with contextlib.suppress(OSError):  # a full disk: the lock is held all the same
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield


if sys.platform != "win32":

    def _lock(file: IO[str]) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:  # a file system without locks
            return

else:
    import msvcrt

    def _lock(file: IO[str]) -> None:
        file.seek(2**20)  # what is locked cannot be read there, and the name of the writer is to be
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError(*error.args) from error
