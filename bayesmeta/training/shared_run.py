"""A run that several processes are at: the first one keeps it, and the others are told what it finds."""

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType

from typing_extensions import override

from bayesmeta.learner import Learner
from bayesmeta.training.distributed import Processes
from bayesmeta.training.runs.folder import Run, Unkept
from bayesmeta.training.runs.packing import packed, unpacked
from bayesmeta.training.runs.parts import Parts
from bayesmeta.training.runs.signals import Stop


class SharedRun(Run):
    """The first process's run. What fails in it fails in all of them, and a wish to stop in one stops all.

    Only the first process writes, reads and locks the folder, so that others need not see it: where a run goes on, they
    are sent its state.

    Args:
        processes: all of them.
        make: makes the run; called in the first process.

    Raises:
        BayesMetaError: of `make`, in all of them.
    """

    def __init__(self, processes: Processes, make: Callable[[], Run]) -> None:
        self.processes = processes
        self.run = processes.first_does(make) or Unkept()
        self.every, self.is_kept = processes.of_first((self.run.every, not isinstance(self.run, Unkept)))
        self._stop, self._held, self._is_stopped = Stop(), ExitStack(), False

    @override
    def __enter__(self) -> "SharedRun":
        self.processes.first_does(lambda: self._held.enter_context(self.run))
        if self.is_kept and not self.processes.is_first:
            self._held.enter_context(self._stop)
        return self

    @override
    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._held.close()

    @property
    def is_asked(self) -> bool:
        """Whether this process was asked to stop."""
        return self.run.is_stopped or self._stop.is_asked

    def tell(self, is_stopped: bool) -> None:
        """Say in each process whether one of them was asked to stop."""
        self._is_stopped = is_stopped

    @property
    @override
    def is_stopped(self) -> bool:
        return self._is_stopped

    @override
    def begin(self, parts: Parts) -> int:
        step = self.processes.of_first(self.processes.first_does(lambda: self.run.begin(parts))) or 0
        if step:
            state = (
                packed({name: part.state_dict() for name, part in parts.items()}) if self.processes.is_first else b""
            )
            state = self.processes.of_first(state)
            if not self.processes.is_first:
                for name, value in unpacked(state).items():
                    parts[name].load_state_dict(value)
        return step

    @override
    def keep(self, step: int, is_last: bool = False) -> None:
        self.processes.first_does(lambda: self.run.keep(step, is_last))

    @override
    def offer(self, learner: Learner) -> None:
        self.processes.first_does(lambda: self.run.offer(learner))

    @override
    def finish(self, learner: Learner) -> None:
        self.processes.first_does(lambda: self.run.finish(learner))
