"""Whether a hundred million names are distinct, in a bounded memory: 8 bytes of disk a name, and 50 MB of memory.

A name is known by 64 bits: a whole number by itself, any other by a hash. They are sorted 2 million at a time, written
to a temporary file, and compared range by range, each of which is a small share of all. Two names of one hash are told
from a name that is there twice by whoever has the names: of a hundred million there are any once in 4,000 times.
"""

import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from bayesmeta.errors import DataError

RUN = 2**21  # hashes that are sorted at once
RANGES = 2**8  # in which they are compared, each of which is of so small a share of them
MOST = 1000  # repeated hashes that are looked at: one name twice is enough to be refused


class DistinctHashes:
    """Hashes of names, on disk, and which of them are there more than once.

    Example:
        >>> with DistinctHashes() as hashes:
        ...     for names in (np.array([5, 7, 9]), np.array([1, 7])):
        ...         hashes.add(hashes_of([names]))
        ...     hashes.repeated() == [int(hashes_of([np.array([7])])[0])]
        True
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed at the end of the block)
        self._waiting: list[np.ndarray] = []
        self._edges: list[np.ndarray] = []  # of each run, where its ranges begin, in the file
        self._written = 0

    def __enter__(self) -> "DistinctHashes":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(self, hashes: np.ndarray) -> None:
        """Remember some."""
        self._waiting.append(hashes)
        if sum(map(len, self._waiting)) >= RUN:
            self._spill()

    def repeated(self) -> list[int]:
        """Those that were added more than once, of which at most a thousand are told."""
        self._spill()
        found: list[int] = []
        for place in range(RANGES):
            pieces = []
            for edges in self._edges:
                self._file.seek(8 * int(edges[place]))
                pieces.append(np.frombuffer(self._file.read(8 * int(edges[place + 1] - edges[place])), np.uint64))
            together = np.sort(np.concatenate(pieces)) if pieces else np.zeros(0, np.uint64)
            found += np.unique(together[1:][together[1:] == together[:-1]]).tolist()
            if len(found) >= MOST:
                break
        return found[:MOST]

    def _spill(self) -> None:
        run = np.sort(np.concatenate([*self._waiting, np.zeros(0, np.uint64)]))
        bounds = np.arange(1, RANGES, dtype=np.uint64) << np.uint64(56)
        inside = np.concatenate([[0], np.searchsorted(run, bounds), [len(run)]])
        self._edges.append(self._written + inside)
        self._file.seek(8 * self._written)
        try:
            self._file.write(run.tobytes())
            self._file.flush()
        except OSError as error:
            raise DataError(
                f"expected room for 8 bytes a task in {tempfile.gettempdir()}, got: {error}: set TMPDIR to another "
                "disk, or sort the table by task"
            ) from error
        self._written += len(run)
        self._waiting = []


def hashes_of(columns: Sequence[Any]) -> np.ndarray:
    """The hash of each name, uint64: of whole numbers one to one, of the rows of several columns of all together.

    Args:
        columns: arrays of numpy: whole numbers, floats or objects.

    Example:
        >>> names = [np.arange(1000)], [np.array(["a", "b"], dtype=object)]
        >>> [len(set(hashes_of(each).tolist())) for each in names]
        [1000, 2]
    """
    import pandas as pd

    total = np.zeros(len(columns[0]), dtype=np.uint64)
    for column in columns:
        if column.dtype.kind in "iu":
            own = column.astype(np.int64 if column.dtype.kind == "i" else np.uint64).view(np.uint64)
        elif column.dtype.kind == "f":
            own = (column.astype(np.float64) + 0.0).view(np.uint64)  # zero has but one sign
        else:
            own = pd.util.hash_array(column, categorize=False)
        total = _mixed(own + np.uint64(0x9E3779B97F4A7C15) * (total + np.uint64(len(columns) > 1)))
    return total


def _mixed(value: np.ndarray) -> np.ndarray:
    """The bits of each number shaken up, one to one (splitmix64, Steele, Lea and Flood 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
