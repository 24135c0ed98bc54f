"""Files that are written: whole, through links, never in the place of a device, never two in one place."""

import gzip
import os
import stat
import threading
from pathlib import Path

import pandas as pd
import pytest

from bayesmeta import outputs
from bayesmeta.errors import DataError
from bayesmeta.outputs import require_folder, require_outputs, require_writable, write, write_table


def test_folders_are_made_and_modes_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "out.csv"
    write(path, b"one")
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask  # as any new file, not as a private temporary one
    path.chmod(0o640)
    write(path, b"two")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"two", 0o640)
    assert list(path.parent.iterdir()) == [path]


def test_links_stay_and_what_they_point_to_is_replaced(tmp_path: Path) -> None:
    target, link, chain = tmp_path / "data" / "out.csv", tmp_path / "link.csv", tmp_path / "chain.csv"
    target.parent.mkdir()
    link.symlink_to(Path("data") / "out.csv")  # to nothing yet
    chain.symlink_to("link.csv")
    write(chain, b"one")
    assert target.read_bytes() == b"one"
    write(link, b"two")
    assert target.read_bytes() == b"two"
    assert link.is_symlink()
    assert chain.is_symlink()
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    with pytest.raises(DataError, match="can be written"):
        write(loop, b"")
    with pytest.raises(DataError, match="can be written"):
        require_writable(loop)
    assert loop.is_symlink()


def test_pipes_and_devices_are_written_to(tmp_path: Path) -> None:
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    write(pipe, b"text")
    reader.join(10)
    assert got == [b"text"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    write(Path(os.devnull), b"text")
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)
    write_table(pd.DataFrame({"a": [1]}), Path(os.devnull))


@pytest.mark.parametrize("path", ["/dev/stdout", "/proc/self/fd/1"])
def test_standard_output_is_written_to(path: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Here it goes to a regular file, which must not be replaced under the feet of who reads it."""
    print("before")
    write(Path(path), b"text\n")
    print("after")
    assert capfdbinary.readouterr().out == b"before\ntext\nafter\n"


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.csv"
    path.write_bytes(b"precious")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(outputs.os, "replace", full)
    with pytest.raises(DataError, match=r"a file that can be written, got .*out.csv: .*No space left"):
        write(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(DataError, match="can be written"):
        write(path / "below" / "a.csv", b"new")  # below a file
    with pytest.raises(DataError, match="can be written"):
        write(tmp_path / ("x" * 300), b"new")


def test_two_writers_do_not_share_a_half(tmp_path: Path) -> None:
    path, contents = tmp_path / "out.csv", [bytes([65 + i]) * 100_000 for i in range(4)]
    threads = [threading.Thread(target=lambda c=c: [write(path, c) for _ in range(20)]) for c in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]


def test_outputs_share_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("")
    (tmp_path / "hard.csv").hardlink_to(tmp_path / "a.csv")
    (tmp_path / "soft.csv").symlink_to("a.csv")
    (tmp_path / "future.csv").symlink_to("b.csv")
    (tmp_path / "model").mkdir()
    (tmp_path / "way").symlink_to("model")
    same = [["a.csv", "./a.csv"], ["a.csv", "hard.csv"], ["a.csv", "soft.csv"], ["b.csv", "future.csv"],
            ["new/../b.csv", str(tmp_path / "b.csv")], ["/dev/stdout", "/dev/fd/1"], ["b.csv", "b.csv"]]  # fmt: skip
    for one, other in same:
        with pytest.raises(DataError, match="expected --tasks to be another file than --output, got"):
            require_outputs({"--output": Path(one), "--tasks": Path(other)}, {})
        if not one.startswith("/dev"):  # standard input may be the same terminal
            with pytest.raises(DataError, match="expected --output to be another file than QUERY, got"):
                require_outputs({"--output": Path(one), "--tasks": None}, {"QUERY": Path(other)})
    for inside in ("model/a.csv", "way/a.csv", "model/new/a.csv"):
        with pytest.raises(DataError, match="expected --output outside of MODEL, got"):
            require_outputs({"--output": Path(inside)}, {}, {"MODEL": Path("model")})
    require_outputs(
        {"--output": Path("b.csv"), "--tasks": Path("c.csv")}, {"QUERY": Path("a.csv")}, {"MODEL": Path("m")}
    )
    assert not (tmp_path / "b.csv").exists()


def test_what_cannot_be_written_is_known_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="got the folder"):
        require_writable(tmp_path)
    with pytest.raises(DataError, match=r"file is a file$"):
        require_writable(tmp_path / "file" / "below" / "a.csv")
    with pytest.raises(DataError, match=r"file is a file$"):
        require_folder(tmp_path / "file")
    require_writable(tmp_path / "new" / "a.csv")
    # the tests may run as a user whom no mode stops
    monkeypatch.setattr(outputs.os, "access", lambda *_: False)
    with pytest.raises(DataError, match="which is read-only"):
        require_writable(tmp_path / "file")
    with pytest.raises(DataError, match="is read-only"):
        require_writable(tmp_path / "new")


def test_tables_are_packed_by_their_names(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": ["007", "a;b"], "x": ["0,5", ""], "mean": [1.25, float("nan")]})
    write_table(frame, tmp_path / "t.csv.gz", ";", decimal_commas=True)
    assert gzip.decompress((tmp_path / "t.csv.gz").read_bytes()).decode() == 'id;x;mean\n007;0,5;1,25\n"a;b";;\n'
    for suffix in ("csv", "csv.bz2", "csv.xz"):
        write_table(frame, tmp_path / f"t.{suffix}")
        assert pd.read_csv(tmp_path / f"t.{suffix}", dtype={"id": str}).id.tolist() == ["007", "a;b"]


def test_parquet_needs_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ImportError("no pyarrow")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", missing)
    with pytest.raises(DataError, match=r"expected pyarrow for the parquet file .*pip install pyarrow"):
        write_table(pd.DataFrame({"a": [1]}), tmp_path / "t.parquet")
    assert list(tmp_path.iterdir()) == []
