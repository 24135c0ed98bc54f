"""Files that are written: whole or not at all, through links, never in the place of a device, never two in one place.

A file is written under a name of its own in the same folder, forced to the disk and then put in its place in one step,
so that a reader sees the old file or the new one, also after a power failure, and two writers do not share a half.
Symbolic links stay, and what they point to is replaced. What is no regular file (a pipe, a terminal, /dev/null) is
written to as it is. Folders are made.
"""

import bz2
import contextlib
import errno
import gzip
import io
import lzma
import os
import shutil
import stat
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bayesmeta.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

PACKED: dict[str, Callable[[bytes], bytes]] = {
    ".gz": lambda content: gzip.compress(content, mtime=0),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


def require_outputs(
    outputs: Mapping[str, Path | None], inputs: Mapping[str, Path], folders: Mapping[str, Path] | None = None
) -> None:
    """Raise now, before the work, what would go wrong with its files after it.

    Args:
        outputs: files that will be written, by what the user calls them; None for one that is not.
        inputs: files that are read, and whatever else an output must not replace.
        folders: folders that no output may be inside of.

    Raises:
        DataError: an output is a folder or cannot be written, shares its place with another or with an input (also
            through links), or is inside of one of the folders.

    Example:
        >>> require_outputs({"--output": Path("out.csv"), "--tasks": Path("tasks.csv")}, {"QUERY": Path("query.csv")})
        >>> require_outputs({"--output": Path("a.csv"), "--tasks": Path("./a.csv")}, {})
        Traceback (most recent call last):
        ...
        bayesmeta.errors.DataError: expected --tasks to be another file than --output, got a.csv for both
    """
    seen = [(name, path) for name, path in inputs.items() if path.is_file() or path.is_dir() or not path.exists()]
    for name, path in outputs.items():
        if path is None:
            continue
        require_writable(path)
        for other, taken in seen:
            if _same(path, taken):
                raise DataError(f"expected {name} to be another file than {other}, got {path} for both")
        for other, folder in (folders or {}).items():
            if Path(os.path.realpath(folder)) in Path(os.path.realpath(path)).parents:
                raise DataError(f"expected {name} outside of {other}, got {path}")
        seen.append((name, path))


def require_writable(path: Path) -> None:
    """Raise DataError where `path` is a folder, is write-protected, or its folder is or cannot be made."""
    real = Path(os.path.realpath(path))
    if real.is_symlink():
        raise DataError(f"expected a file that can be written, got {path}, a link that leads to itself")
    if path.is_dir():
        raise DataError(f"expected a file that can be written, got the folder {path}")
    if path.exists() and not os.access(path, os.W_OK):
        raise DataError(f"expected a file that can be written, got {path}, which is read-only")
    if not path.exists() or path.is_file():
        require_folder(real.parent)


def require_folder(folder: Path) -> None:
    """Raise DataError where a folder cannot be made, or is there and is write-protected."""
    existing = next(
        each for each in (folder.absolute(), *folder.absolute().parents) if each.exists() or each.is_symlink()
    )
    if not existing.is_dir():
        raise DataError(f"expected a folder that can be written, got {folder}: {existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise DataError(f"expected a folder that can be written, got {folder}: {existing} is read-only")


def is_standard(path: Path, number: int = 1) -> bool:
    """Whether the path is the same file as standard output (1) or error (2), also where that goes to a regular file."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(number))
    except OSError:  # there is no such file, or the stream is closed
        return False


def write(path: Path, content: bytes) -> None:
    """Write a file whole. Raises DataError when that fails, and what was there before stays.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write(Path(folder, "a", "b.txt"), b"text")
        ...     Path(folder, "a", "b.txt").read_bytes()
        b'text'
    """
    try:
        if is_standard(path, 1):
            _append(1, content)
        elif is_standard(path, 2):
            _append(2, content)
        elif path.exists() and not path.is_file():
            with path.open("wb") as device:
                device.write(content)
        else:
            _replace(Path(os.path.realpath(path)), content)
    except OSError as error:
        raise DataError(f"expected a file that can be written, got {path}: {error}") from error


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder that appears whole: what is in the block written to the folder it gives takes the place of `folder`.

    A new folder appears in one step. One that is there already is moved aside first and removed afterwards, with
    whatever is in it; where the block fails, or is killed, it stays.

    Args:
        folder: a new one, or one that may be removed.

    Raises:
        DataError: it cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as home:
        ...     with whole_folder(Path(home, "robot")) as part:
        ...         _ = Path(part, "a.txt").write_text("text")
        ...     sorted(path.name for path in Path(home).rglob("*"))
        ['a.txt', 'robot']
    """
    try:
        real = Path(os.path.realpath(folder))
        part, old = (real.with_name(f".{uuid.uuid4().hex}.{end}") for end in ("part", "old"))
        part.mkdir(parents=True)
        try:
            yield part
            for path in part.iterdir():  # a name must not outlive a power failure that its content does not
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            _swap(part, real, old)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        raise DataError(f"expected a folder that can be written, got {folder}: {error}") from error


def _swap(part: Path, folder: Path, old: Path) -> None:
    """Put one folder in the place of another, which stays where that fails."""
    if not folder.exists():
        os.rename(part, folder)
        return
    os.rename(folder, old)
    try:
        os.rename(part, folder)
    except BaseException:
        os.rename(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def write_table(frame: "pd.DataFrame", path: Path, separator: str = ",", decimal_commas: bool = False) -> None:
    """Write a table without its index: CSV, or what the end of the name says (.parquet; .gz, .bz2, .xz are packed).

    Args:
        frame: what is written.
        path: where.
        separator: between the cells of CSV.
        decimal_commas: whether its numbers have decimal commas.

    Raises:
        DataError: the file cannot be written; parquet without pyarrow.
    """
    suffix = path.suffix.lower()
    if suffix in (".parquet", ".pq"):
        buffer = io.BytesIO()
        try:
            frame.to_parquet(buffer, index=False)
        except ImportError as error:
            raise DataError(
                f"expected pyarrow for the parquet file {path}, got none: pip install pyarrow, or name a CSV file"
            ) from error
        content = buffer.getvalue()
    else:
        text = frame.to_csv(index=False, sep=separator, decimal="," if decimal_commas else ".", lineterminator="\n")
        content = PACKED.get(suffix, bytes)(text.encode())
    write(path, content)


def sync_folder(folder: Path) -> None:
    """Force to the disk which files a folder has: what was renamed in it outlives a power failure.

    Args:
        folder: that exists. Where the system cannot do it (Windows) nothing is done.
    """
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _append(number: int, content: bytes) -> None:
    """After what was written to standard output or error before; through Python's stream, where there is one."""
    stream = sys.stdout if number == 1 else sys.stderr
    stream.flush()
    if hasattr(stream, "buffer"):
        stream.buffer.write(content)
        stream.flush()
    else:
        with open(number, "wb", closefd=False) as file:
            file.write(content)


def _replace(path: Path, content: bytes) -> None:
    if path.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            part.chmod(stat.S_IMODE(path.stat().st_mode))
        os.replace(part, path)
        sync_folder(path.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _same(path: Path, other: Path) -> bool:
    if os.path.realpath(path) == os.path.realpath(other):
        return True
    return path.is_file() and other.is_file() and os.path.samefile(path, other)
