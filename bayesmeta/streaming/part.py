"""One part of a stream: its rows are read, predicted and written some tasks at a time."""

import contextlib
import time
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np

from bayesmeta.errors import DataError
from bayesmeta.frames import answers, result_columns
from bayesmeta.learner import Learner
from bayesmeta.streaming.cells import cells_of, columns_of
from bayesmeta.streaming.parts_folder import PartsFolder
from bayesmeta.tasks.parquet_source import ParquetSource, pyarrow_parquet
from bayesmeta.tasks.table import Schema
from bayesmeta.tasks.task_runs import whole_tasks


@dataclass(frozen=True)
class Job:
    """What is done to every part: all of it can be sent to another process.

    Attributes:
        learner: which predicts.
        schema: which column is what.
        source: the table.
        folder: where parts are written.
        columns: those of the table that the parts have, before the results.
        known: which rows are known, as `cells_of` takes it.
        level: of the intervals.
        noiseless: whether to predict the outcome without its noise.
        rows: that are at work at once, about.
    """

    learner: Learner
    schema: Schema
    source: ParquetSource
    folder: PartsFolder
    columns: tuple[str, ...]
    known: str | int | None
    level: float
    noiseless: bool
    rows: int

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of the names of tasks."""
        return (*self.schema.within, self.schema.task)


@dataclass
class Account:
    """What became of the rows of a part, or of several.

    Attributes:
        tasks: how many there were.
        rows: of the table.
        known: rows that were adapted to.
        asked: rows that were predicted.
        reading: seconds in which rows were read.
        converting: seconds in which their cells became numbers.
        predicting: seconds in which the learner adapted and predicted.
        writing: seconds in which results were written.
    """

    tasks: int = 0
    rows: int = 0
    known: int = 0
    asked: int = 0
    reading: float = field(default=0.0, compare=False)
    converting: float = field(default=0.0, compare=False)
    predicting: float = field(default=0.0, compare=False)
    writing: float = field(default=0.0, compare=False)

    def add(self, other: "Account") -> None:
        """Count another part, too."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Count the seconds of a block as those of `reading`, `converting`, `predicting` or `writing`."""
        begun = time.perf_counter()
        yield
        setattr(self, name, getattr(self, name) + time.perf_counter() - begun)

    @property
    def counts(self) -> dict[str, int]:
        """Those that do not depend on the machine."""
        return {"rows": self.rows, "tasks": self.tasks, "known": self.known, "asked": self.asked}


def write_part(job: Job, number: int) -> Account:
    """Predict the rows of a part and write them.

    Args:
        job: what is done.
        number: of the part.

    Raises:
        DataError: a cell cannot be read, or a file cannot be written.
        InferenceError: the failure of a task, by name.
    """
    import pyarrow as pa

    account, piece = Account(), job.folder.pieces[number]
    columns = list(dict.fromkeys([*job.names, *columns_of(job.schema, job.known), *job.columns]))
    learner, schema = job.learner.frozen(), out_schema(job)
    chunks = whole_tasks(job.source, job.names, piece, columns, job.rows)
    texts = [each.name for each in schema if not pa.types.is_primitive(each.type)]  # of numbers few are there twice
    pq = pyarrow_parquet()
    with job.folder.writing(number) as file, pq.ParquetWriter(file, schema, use_dictionary=texts or False) as writer:
        while True:
            with account.timed("reading"):
                chunk = next(chunks, None)
            if chunk is None:
                break
            first, table, starts = chunk
            with account.timed("converting"), _placed(job.source):
                cells = cells_of(job.schema, table, starts, job.known, first)
            names = Names([table[name] for name in job.names], starts)
            with account.timed("predicting"):
                found = answers(learner, job.schema, cells.known, cells.asked, names, job.level, job.noiseless)
            with account.timed("writing"):
                asked = table.select(list(job.columns)).take(pa.array(cells.rows))
                arrays = [*asked.columns, *(pa.array(each) for each in found.values())]
                writer.write_table(pa.table(arrays, schema=schema))
            account.add(Account(len(starts) - 1, table.num_rows, len(cells.known.x), len(cells.asked.x)))
        writer.add_key_value_metadata(job.folder.metadata(number, account.counts))
    return account


def out_schema(job: Job) -> Any:
    """The columns of a part and their types, as pyarrow's schema."""
    import pyarrow as pa

    results = result_columns(job.schema)
    texts = () if not job.schema.classes else ("predicted",) if job.schema.kind == "binary" else ("predicted", "likely")
    kinds = {name: pa.string() for name in texts}
    if job.schema.kind == "count":
        kinds = {name: pa.int64() for name in results if name.endswith(("lower", "upper"))}
    fields = [job.source.schema.field(name).remove_metadata() for name in job.columns]
    return pa.schema([*fields, *(pa.field(name, kinds.get(name, pa.float64())) for name in results)])


class Names(Sequence[Hashable]):
    """The names of the tasks of a table, each of which is looked up only when it is asked for.

    Args:
        columns: of the names.
        starts: the rows at which tasks begin.
    """

    def __init__(self, columns: list[Any], starts: np.ndarray) -> None:
        self._columns, self._starts = columns, starts

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, place: int) -> Hashable: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Hashable]: ...
    def __getitem__(self, place: int | slice) -> Hashable | Sequence[Hashable]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        name = tuple(column[int(self._starts[place])].as_py() for column in self._columns)
        return name[0] if len(name) == 1 else name


@contextlib.contextmanager
def _placed(source: ParquetSource) -> Iterator[None]:
    """In this block an error says of which table its rows are."""
    try:
        yield
    except DataError as error:
        counted = ", rows counted through all files" if len(source.paths) > 1 else ""
        raise DataError(f"{error} (in {source}{counted})") from error
