"""What looks on while a training goes: it is told of every step, and changes nothing.

StepRecord       what is known of a step
Callback         who is told; a subclass says what it does
CSVLog           a row a step, in a file
TensorBoardLog   curves in TensorBoard
"""

import contextlib
import csv
import importlib.util
import io
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from typing_extensions import override

from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.one_line import InShort
from bayesmeta.outputs import require_writable, write

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class StepRecord(NamedTuple):
    """What is known of a step of a training, once it is done.

    Attributes:
        step: its number, from 1.
        loss: of the batch before the step, nats per point.
        gradient_norm: of theta, before it is clipped.
        lr: the learning rate of the step (of the optimizer's first group).
        validation: the loss on the validation tasks after the step; None where they were not looked at.
        skipped: how many tasks of the batch were left out, as their loss or gradient was not finite.

    Example:
        >>> import bayesmeta as bm
        >>> class Worst(bm.training.Callback):
        ...     "The step with the longest gradient."
        ...     norm, step = 0.0, 0
        ...     def on_step(self, record):
        ...         if record.gradient_norm > self.norm:
        ...             self.norm, self.step = record.gradient_norm, record.step
        >>> tasks, worst = bm.tasks.Sinusoid().dataset(num_tasks=20, num_points=8, seed=0), Worst()
        >>> _ = bm.fit(bm.ALPaCA(bm.Identity(1)), tasks, steps=5, callbacks=[worst], progress=False)
        >>> worst.step in range(1, 6), worst.norm > 0.0
        (True, True)
    """

    step: int
    loss: float
    gradient_norm: float
    lr: float
    validation: float | None = None
    skipped: int = 0


class Callback(InShort):
    """What is called as a training goes on: a subclass overrides what it wants to know of.

    It is for looking on. What it raises ends the training: theta is then that of the best validation, or of the last
    step without one, and the error is the caller's.

    Example:
        >>> import bayesmeta as bm
        >>> class Longest(bm.training.Callback):
        ...     norm = 0.0
        ...
        ...     def on_step(self, record):
        ...         self.norm = max(self.norm, record.gradient_norm)
        >>> longest, tasks = Longest(), bm.tasks.Sinusoid().dataset(num_tasks=8, num_points=8, seed=0)
        >>> result = bm.fit(bm.ALPaCA(bm.Identity(1)), tasks, steps=5, callbacks=[longest], progress=False)
        >>> longest.norm == max(result.gradient_norms)
        True
    """

    def on_start(self, step: int) -> None:
        """Before the first step.

        Args:
            step: how many steps were done before: 0, but for a training that goes on with what was kept.
        """

    def on_step(self, record: StepRecord) -> None:
        """After every step, and the look at the validation tasks that may follow it.

        Args:
            record: what is known of it.
        """

    def on_end(self) -> None:
        """After the last step, or when the training fails."""


class CSVLog(Callback):
    """A row a step in a CSV file: the names are those of `StepRecord`, and `seconds` since the training began.

    Every row is in the file once its step is done, so that a training can be followed, and plotted after a kill. One
    that goes on with what was kept goes on in the file, too: rows of steps that are done anew are replaced. One that
    begins anew replaces the file. A file of something else is never replaced.

    Args:
        path: the file; its folder is made.

    Raises:
        DataError: a file that cannot be written.

    Example:
        >>> import tempfile
        >>> import bayesmeta as bm
        >>> tasks = bm.tasks.Sinusoid().dataset(num_tasks=8, num_points=8, seed=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = bm.training.CSVLog(Path(folder, "log.csv"))
        ...     result = bm.fit(bm.ALPaCA(bm.Identity(1)), tasks, steps=3, callbacks=[log], progress=False)
        ...     rows = log.path.read_text().splitlines()
        >>> rows[0], len(rows)
        ('step,loss,gradient_norm,lr,validation,skipped,seconds', 4)
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        require_writable(self.path)
        self._file: IO[str] | None = None
        self._before, self._start = 0.0, 0.0

    @override
    def on_start(self, step: int) -> None:
        rows = self._rows(step)
        self._before, self._start = float(rows[-1][-1]) if rows else 0.0, time.perf_counter()
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
        write(self.path, text.getvalue().encode())
        self._file = self.path.open("a", encoding="utf-8", newline="")

    @override
    def on_step(self, record: StepRecord) -> None:
        assert self._file is not None
        seconds = f"{self._before + time.perf_counter() - self._start:.3f}"
        csv.writer(self._file, lineterminator="\n").writerow([*record, seconds])  # None is an empty cell
        self._file.flush()

    @override
    def on_end(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _rows(self, step: int) -> list[list[str]]:
        """The rows of the first steps; one that was cut off in the middle is none."""
        if not self.path.is_file():
            return []
        with self.path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(line for line in file if line.endswith("\n")))
        if rows and rows[0] != COLUMNS:
            raise DataError(f"expected a file of an earlier CSVLog, got {self.path}: name another file")
        return [row for row in rows[1:] if int(row[0]) <= step]


COLUMNS = [*StepRecord._fields, "seconds"]


class TensorBoardLog(Callback):
    """Curves of loss, gradient norm, learning rate and validation in TensorBoard (`tensorboard --logdir FOLDER`).

    A training that goes on with what was kept goes on in the folder: TensorBoard hides the steps that are done anew.
    It needs the package tensorboard: `pip install 'bayesmeta[tensorboard]'`.

    Args:
        folder: where the event files go, one folder a run.

    Raises:
        UnsupportedError: there is no package tensorboard.

    Example:
        >>> import bayesmeta as bm
        >>> try:
        ...     log = bm.training.TensorBoardLog("runs/a")
        ... except bm.UnsupportedError as error:  # where tensorboard is not installed
        ...     assert "pip install 'bayesmeta[tensorboard]'" in str(error)
    """

    def __init__(self, folder: str | Path) -> None:
        if importlib.util.find_spec("tensorboard") is None:  # now, rather than when training begins
            raise UnsupportedError("expected the package tensorboard: pip install 'bayesmeta[tensorboard]'")
        self.folder = Path(folder)
        self._writer: SummaryWriter | None = None

    @override
    def on_start(self, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # it takes seconds

        self._writer = SummaryWriter(str(self.folder), purge_step=step + 1 if step else None)

    @override
    def on_step(self, record: StepRecord) -> None:
        assert self._writer is not None
        for name, value in record._asdict().items():
            if name != "step" and value is not None:
                self._writer.add_scalar(name, value, record.step)

    @override
    def on_end(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


@contextlib.contextmanager
def telling(callbacks: Sequence[Callback], step: int) -> Iterator[Callable[[StepRecord], None]]:
    """In this block callbacks are told of steps; they are told of its end, too, whatever happens in it.

    Args:
        callbacks: who is told, in order.
        step: how many steps were done before.

    Yields:
        A function that tells all of them of a step.
    """
    with contextlib.ExitStack() as ends:
        for each in callbacks:
            ends.callback(each.on_end)
            each.on_start(step)

        def tell(record: StepRecord) -> None:
            for each in callbacks:
                each.on_step(record)

        yield tell
