"""Predictions for tables of any size: parquet in, parquet out, by one process or many, gone on with after a kill."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path

import torch
from tqdm import tqdm

from bayesmeta.arguments import probability, some, whole
from bayesmeta.errors import DataError, InferenceError
from bayesmeta.frames import require_free, require_kind_of, result_columns
from bayesmeta.learner import Learner
from bayesmeta.modes import settled
from bayesmeta.rounding import columns as columns_named
from bayesmeta.streaming.cells import columns_of
from bayesmeta.streaming.part import Account, Job, write_part
from bayesmeta.streaming.parts_folder import PartsFolder
from bayesmeta.tasks.known_points import fingerprint
from bayesmeta.tasks.parquet_source import ParquetSource
from bayesmeta.tasks.table import Schema
from bayesmeta.tasks.task_runs import Piece, pieces

MEMORY = 2**28  # bytes that rows at work may take in each process, about
ROWS = 2**20  # of a part, about
FEWEST = 2**10  # rows at work, however little memory is allowed


@dataclass(frozen=True)
class Streamed:
    """What `stream` has done.

    Attributes:
        folder: that holds the parts.
        parts: how many there are in all.
        missing: how many of them are not there yet: other processes of a cluster have them to do.
        account: the tasks, rows, known rows and rows asked about of the parts that this call wrote, and the seconds
            that it took to read, convert, predict and write them, in all processes together.
        seconds: the whole of this call.

    Example:
        >>> Streamed(Path("out"), 2, 0, Account(tasks=10, rows=50, known=30, asked=20, predicting=0.5), 1.0).rate
        10.0
    """

    folder: Path
    parts: int
    missing: int
    account: Account
    seconds: float

    @property
    def rate(self) -> float:
        """Tasks a second, of this call."""
        return self.account.tasks / max(self.seconds, 1e-9)

    def __str__(self) -> str:
        """How much was done, how fast, and where the time went."""
        account = self.account
        if not account.rows and not self.missing:
            return f"nothing was left to do: all {self.parts} parts are in {self.folder}"
        spent = account.reading + account.converting + account.predicting + account.writing
        shares = ", ".join(
            f"{name} {100 * getattr(account, name) / max(spent, 1e-9):.0f} %"
            for name in ("reading", "converting", "predicting", "writing")
        )
        left = f"; {self.missing} of {self.parts} parts are left to others" if self.missing else ""
        return (
            f"{account.asked:,} rows of {account.tasks:,} tasks written to {self.folder}, {self.rate:,.0f} tasks a "
            f"second ({shares}){left}"
        )


@settled
def stream(
    learner: Learner,
    schema: Schema,
    source: "str | Path | Sequence[str | Path]",
    output: str | Path,
    level: float = 0.9,
    noiseless: bool = False,
    *,
    known: str | int | None = None,
    columns: Sequence[str] | None = None,
    processes: int = 1,
    part: tuple[int, int] = (1, 1),
    memory: int = MEMORY,
    rows_per_part: int = ROWS,
    progress: bool | None = None,
) -> Streamed:
    """Predict the rows of parquet files of any size, as `predict_frame` does those of a table in memory.

    Rows of a task stand one after another; tasks may go on from row group to row group and from file to file. That no
    task comes back later is known before anything is predicted: the columns of the names are read once. It costs
    nothing more where names rise or fall, and else 8 bytes a task of disk, in the folder for temporary files.

    The output is a folder of parquet files, `part-000000.parquet` and so on, in the order of the rows, and a manifest.
    A part is written whole or not at all, so that a run that was killed is gone on with by the same call: no row is
    lost, and none is there twice. Memory is that of `memory` bytes for rows in each process, besides what the library
    and the learner take; a single task with more rows is held whole.

    Args:
        learner: adapted to each task in turn.
        schema: which column is what (`TaskDataset.from_frame(...).schema`).
        source: a parquet file, a folder of them, or several, in their order.
        output: the folder that is written: a new one, or that of the same call, which is gone on with.
        level: probability of the interval between `lower` and `upper`, or the least of the classes in `likely`.
        noiseless: say what is known of f, the outcome without its observation noise.
        known: which rows are known. By default those that have an outcome, and the others are asked about. A column of
            true and false says so itself; a number means the first so many rows of each task.
        columns: of the table that the output has; all by default.
        processes: that work side by side on this machine, each on a part at a time. They import the script that calls
            this, so that the call stands under `if __name__ == "__main__":` there.
        part: (k, n) does the k-th of n shares of the parts, so that n machines share the work in one folder.
        memory: bytes that rows at work may take in each process, about.
        rows_per_part: how large a part is, about.
        progress: show a progress bar; None shows it on a terminal only.

    Returns:
        What was done, and how fast.

    Raises:
        DataError: a task comes back after another one has begun (the message says how to sort), a cell that cannot be
            read as the schema says, a column that is called like a result, a folder of another run.
        InferenceError: the failure of a task, by its name; or a process that was ended from outside. What was written
            until then stays, and the same call goes on with it.
        UnsupportedError: `noiseless` where the learner does not separate f from its noise.

    Example:
        >>> import tempfile
        >>> import pandas as pd
        >>> import bayesmeta as bm
        >>> y = [5.0, 4.0, None, 6.0, 5.5, None]
        >>> frame = pd.DataFrame({"cell": ["a"] * 3 + ["b"] * 3, "t": [0, 1, 2] * 2, "y": y})
        >>> tasks = bm.TaskDataset.from_frame(frame, task="cell", x=["t"], y=["y"])
        >>> learner = bm.Standardized(bm.ALPaCA(bm.Identity(1))).double()
        >>> _ = bm.fit_evidence(learner, tasks)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     frame.to_parquet(f"{folder}/table.parquet", row_group_size=2)
        ...     done = bm.stream(learner, tasks.schema, f"{folder}/table.parquet", f"{folder}/predicted")
        ...     predicted = pd.read_parquet(f"{folder}/predicted")
        >>> done.account.tasks, predicted.columns.tolist()
        (2, ['cell', 't', 'y', 'mean', 'sd', 'lower', 'upper'])
        >>> predicted["cell"].tolist()
        ['a', 'b']
    """
    begun = time.perf_counter()
    job, processes = (
        _job(learner, schema, source, Path(output), level, noiseless, known, columns, memory, rows_per_part, progress),
        some(processes, "processes", "process"),
    )
    share, shares = (whole(each, "of a part (k, n)", 1) for each in part)
    if share > shares:
        raise DataError(f"expected a part (k, n) with k up to n, got {part}")
    job.folder.tidy()
    numbers = [number for number in job.folder.missing() if number % shares == share - 1]
    account = Account()
    rows = sum(job.folder.pieces[number].stop - job.folder.pieces[number].start for number in numbers)
    done = _each_here(job, numbers) if min(processes, len(numbers)) <= 1 else _each_there(job, numbers, processes)
    with tqdm(
        total=rows,
        disable=None if progress is None else not progress,
        desc="stream",
        leave=False,
        unit="row",
        unit_scale=True,
    ) as bar:
        for each in done:
            account.add(each)
            bar.update(each.rows)
    missing = len(job.folder.missing())
    if not missing:
        total = job.folder.account()
        job.folder.finish(total)
        if remark := _remark(total):
            warnings.warn(f"{remark} in {job.source}", stacklevel=3)
    return Streamed(job.folder.path, len(job.folder.pieces), missing, account, time.perf_counter() - begun)


def _job(
    learner: Learner,
    schema: Schema,
    source: "str | Path | Sequence[str | Path]",
    output: Path,
    level: float,
    noiseless: bool,
    known: str | int | None,
    columns: Sequence[str] | None,
    memory: int,
    rows_per_part: int,
    progress: bool | None,
) -> Job:
    """What is to be done, checked, and begun in the folder where it was not yet."""
    opened = ParquetSource.of(source)
    level, rows_per_part = probability(level, "a level"), some(rows_per_part, "rows_per_part", "row of a part")
    if known is not None and not isinstance(known, str):
        known = whole(known, "of known rows")
    kept = tuple(opened.schema.names if columns is None else columns)
    opened.require([*columns_of(schema, known), *kept])
    require_free(list(kept), result_columns(schema))
    require_kind_of(learner, schema)
    inside = [path for path in opened.paths if output.resolve() in path.resolve().parents]
    if inside:
        raise DataError(f"expected an output outside of the table, got {output}, which holds {inside[0]}")
    names = (*schema.within, schema.task)
    settings = {
        "model": fingerprint(learner),
        "schema": schema.to_json(),
        "source": list(opened.identities),
        "level": level,
        "noiseless": noiseless,
        "known": known,
        "columns": list(kept),
        "rows_per_part": rows_per_part,
    }

    def cut() -> tuple[Piece, ...]:
        with tqdm(
            total=opened.rows,
            disable=None if progress is None else not progress,
            desc="tasks",
            leave=False,
            unit="row",
            unit_scale=True,
        ) as bar:
            return pieces(opened, names, rows_per_part, bar.update)

    folder = PartsFolder.of(output, settings, cut)
    rows = max(FEWEST, some(memory, "memory", "byte") // bytes_per_row(schema, opened, kept))
    return Job(learner, schema, opened, folder, kept, known, level, noiseless, rows)


def bytes_per_row(schema: Schema, source: ParquetSource, columns: Sequence[str]) -> int:
    """How much memory a row needs while it is at work, about: what is read, its numbers, and what is written."""
    import pyarrow as pa

    read = set(columns) | set(schema.columns) | set(schema.y)
    fixed = [pa.types.is_primitive(source.schema.field(name).type) for name in read]
    cells = sum(4 * 8 if is_fixed else 4 * 64 for is_fixed in fixed)  # in pyarrow, in pandas, chosen, written
    numbers = 8 * 8 * (len(schema.x_names) + len(schema.y))  # as rows, as points, padded, standardised
    return cells + numbers + 8 * 4 * len(result_columns(schema))


def _remark(total: dict[str, int]) -> str:
    """What is probably wrong with a run, in a sentence; empty where nothing is."""
    if not total["asked"]:
        return "no row is asked about, so that nothing was predicted: every row is known"
    return "" if total["known"] else "no row is known, so that the prior predicts all tasks"


def _each_here(job: Job, numbers: Sequence[int]) -> Iterator[Account]:
    """The parts, one after another, in this process."""
    with columns_named(job.schema.x_names, job.schema.y):
        for number in numbers:
            yield write_part(job, number)


def _each_there(job: Job, numbers: Sequence[int], processes: int) -> Iterator[Account]:
    """The parts as they are done, by processes that are started for them."""
    threads = max(1, torch.get_num_threads() // processes)
    pool = ProcessPoolExecutor(
        min(processes, len(numbers)), multiprocessing.get_context("spawn"), _begin, (job, threads)
    )
    try:
        for future in as_completed([pool.submit(_work, number) for number in numbers]):
            yield future.result()
    except BrokenProcessPool as error:
        raise InferenceError(
            "expected processes that work to the end, got one that was ended from outside (was memory short?) or could "
            "not start (a script calls stream under `if __name__ == '__main__':`): call it again to go on"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_JOBS: list[Job] = []  # of this process, where it is one that was started for a stream


def _begin(job: Job, threads: int) -> None:
    import pyarrow as pa

    torch.set_num_threads(threads)
    pa.set_cpu_count(threads)
    _JOBS[:] = [job]
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the one that started it has ended: nobody would tell it that there is no more to do."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


def _work(number: int) -> Account:
    with contextlib.ExitStack() as stack:
        stack.enter_context(columns_named(_JOBS[0].schema.x_names, _JOBS[0].schema.y))
        return write_part(_JOBS[0], number)
