"""Where tasks begin, and that none comes back: names by the million on disk, and two names of one hash are two."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bayesmeta.errors import DataError
from bayesmeta.tasks import distinct, task_runs
from bayesmeta.tasks.distinct import DistinctHashes, hashes_of
from bayesmeta.tasks.parquet_source import ParquetSource
from bayesmeta.tasks.task_runs import pieces, whole_tasks

pytest.importorskip("pyarrow")


def test_repeated_hashes_are_found_over_many_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distinct, "RUN", 500)
    names = np.random.default_rng(0).permutation(5000)
    with DistinctHashes() as hashes:
        for part in np.split(names, 50):
            hashes.add(hashes_of([part]))
        assert hashes.repeated() == []
        hashes.add(hashes_of([names[[7, 4000]]]))
        assert sorted(hashes.repeated()) == sorted(hashes_of([names[[7, 4000]]]).tolist())


def source_of(names: Sequence[Any], folder: Path, row_group: int = 5) -> ParquetSource:
    pd.DataFrame({"cell": names, "x": range(len(names))}).to_parquet(folder / "t.parquet", row_group_size=row_group)
    return ParquetSource.of(folder / "t.parquet")


def test_two_names_of_one_hash_are_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(["b", "b", "a", "c", "c", "d", "e", "e"], tmp_path)
    monkeypatch.setattr(task_runs, "hashes_of", lambda columns: np.full(len(columns[0]), 7, dtype=np.uint64))
    assert [piece.tasks for piece in pieces(source, ["cell"], 100, lambda _: None)] == [5]
    other = source_of(["b", "b", "a", "c", "c", "a", "e", "e"], tmp_path)
    with pytest.raises(DataError, match="got task 'a' in row 2 and again in row 5"):
        pieces(other, ["cell"], 100, lambda _: None)


def test_nested_names_are_one_where_all_parts_are(tmp_path: Path) -> None:
    frame = pd.DataFrame({"school": list("aabbcc"), "room": [1, 2, 1, 1, 1, 2]})
    frame.to_parquet(tmp_path / "t.parquet")
    source = ParquetSource.of(tmp_path / "t.parquet")
    assert pieces(source, ["school", "room"], 100, lambda _: None)[0].tasks == 5
    with pytest.raises(DataError, match=r"got task 1 in row 0 and again in row 2"):
        pieces(source, ["room"], 100, lambda _: None)
    pd.concat([frame, frame.head(1)]).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"got task \('a', 1\) in row 0 and again in row 6.*ORDER BY school, room\)"):
        pieces(ParquetSource.of(tmp_path / "t.parquet"), ["school", "room"], 100, lambda _: None)


@pytest.mark.parametrize("row_group", [1, 3, 1000])
@pytest.mark.parametrize("rows", [1, 4, 37, 1000])
def test_pieces_are_whole_and_all(tmp_path: Path, row_group: int, rows: int) -> None:
    """Every row is in one piece, and in one chunk of it, whose tasks are whole: also one that is longer than both."""
    counts = [1, 3, 40, 2, 1, 1, 5, 7, 1]
    source = source_of(np.repeat(np.arange(len(counts)), counts).tolist(), tmp_path, row_group)
    found = pieces(source, ["cell"], rows, lambda _: None)
    assert [piece.start for piece in found[1:]] == [piece.stop for piece in found[:-1]]
    assert (found[0].start, found[-1].stop, sum(piece.tasks for piece in found)) == (0, sum(counts), len(counts))
    seen = []
    for piece in found:
        for first, table, starts in whole_tasks(source, ["cell"], piece, ["cell", "x"], rows):
            assert table["x"].to_pylist() == list(range(first, first + table.num_rows))
            assert np.diff(starts).tolist() == [counts[name] for name in dict.fromkeys(table["cell"].to_pylist())]
            seen += table["x"].to_pylist()
    assert seen == list(range(sum(counts)))
