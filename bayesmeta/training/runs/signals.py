"""Ctrl-C and SIGTERM as a wish that a run notices between two steps, in place of an exception in the middle of one."""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)


class Stopped(KeyboardInterrupt):
    """A run was told to stop, and its state is kept.

    Example:
        >>> try:
        ...     raise Stopped
        ... except KeyboardInterrupt:
        ...     print("as any other interrupt")
        as any other interrupt
    """


class Stop:
    """While the block runs the first Ctrl-C or SIGTERM only sets `is_asked`; the next one raises KeyboardInterrupt.

    Handlers of the user's own stay, and so do those that ignore a signal. In other threads than the main one, which
    alone may set handlers, nothing changes. Of two blocks, one inside of the other, both are told.

    Attributes:
        is_asked: whether a signal has come.

    Example:
        >>> import os
        >>> with Stop() as stop:
        ...     os.kill(os.getpid(), signal.SIGTERM)
        ...     print(stop.is_asked)
        True
    """

    def __init__(self) -> None:
        self.is_asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Stop":
        """Take over."""
        if threading.current_thread() is threading.main_thread():
            for each in SIGNALS:
                handler = signal.getsignal(each)
                if handler in DEFAULTS or _is_ours(handler):
                    self._before[each] = handler
                    signal.signal(each, self.ask)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        """Put the handlers back that were there."""
        while self._before:
            each, handler = self._before.popitem()
            signal.signal(each, handler)

    def ask(self, number: int, frame: FrameType | None) -> None:
        """The handler.

        Raises:
            KeyboardInterrupt: it has been asked before.
        """
        if self.is_asked:
            raise KeyboardInterrupt
        self.is_asked = True
        outer: Callable[[int, FrameType | None], None] | Any = self._before.get(signal.Signals(number))
        if _is_ours(outer):
            outer(number, frame)


def _is_ours(handler: object) -> bool:
    return isinstance(getattr(handler, "__self__", None), Stop)
