"""A folder of part files that several processes write, and that a killed run leaves ready to be gone on with.

A part is there whole or not at all: it is written under another name, and put in its place in one step when all of it
is on the disk. So what is done is what is there, and nothing has to be agreed upon between processes. Which rows a part
is of stands in the manifest, which is written before any part, and says what the run was asked for: another run, of
another model, table or level, is refused, as its rows would stand among those of the first.
"""

import contextlib
import hashlib
import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from bayesmeta.errors import DataError
from bayesmeta.outputs import require_folder
from bayesmeta.tasks.parquet_source import pyarrow_parquet
from bayesmeta.tasks.task_runs import Piece

if sys.platform != "win32":
    import fcntl

MANIFEST = "_manifest.json"  # readers of parquet folders pass over names that begin so
FORMAT = 1
KEY = b"bayesmeta.part"
OLD = 86_400.0  # seconds after which an unfinished file is taken for one of a killed process, where there are no locks
UNFINISHED = ".unfinished"


@dataclass(frozen=True)
class PartsFolder:
    """The parts of a run and where they are written. `PartsFolder.of` opens one or begins it.

    Attributes:
        path: the folder.
        settings: what the run was asked for, as JSON.
        pieces: the rows of each part.
    """

    path: Path
    settings: dict[str, Any]
    pieces: tuple[Piece, ...]

    @classmethod
    def of(cls, path: Path, settings: dict[str, Any], cut: Callable[[], tuple[Piece, ...]]) -> "PartsFolder":
        """Open a folder to go on with, or begin one.

        Args:
            path: the folder. It is made where it does not exist, and has to be empty where it has no manifest.
            settings: what the run is asked for: plain JSON.
            cut: gives the rows of each part of a new run.

        Raises:
            DataError: the folder holds other files or a run that was asked for something else, or cannot be written.
        """
        require_folder(path)
        settings = json.loads(json.dumps(settings))  # as it will be read
        if not (path / MANIFEST).exists():
            found = sorted(each.name for each in path.iterdir()) if path.is_dir() else []
            visible = [name for name in found if not name.endswith(UNFINISHED)]
            if visible and MANIFEST not in visible:  # another process may have begun the run meanwhile
                raise DataError(
                    f"expected a new folder, an empty one or one to go on with, got {path}, which holds {visible[0]!r} "
                    f"and no {MANIFEST}"
                )
            if not visible:
                begun = cls(path, settings, cut())
                path.mkdir(parents=True, exist_ok=True)
                begun._write_manifest(None)
                return begun
        manifest = _read(path / MANIFEST)
        _require_same(manifest["settings"], settings, path)
        return cls(path, settings, tuple(Piece(*each) for each in manifest["parts"]))

    @property
    def fingerprint(self) -> str:
        """What every part says of the run that it is of."""
        return hashlib.sha256(json.dumps([self.settings, self._rows], sort_keys=True).encode()).hexdigest()

    @property
    def _rows(self) -> list[tuple[int, int, int]]:
        return [(piece.start, piece.stop, piece.tasks) for piece in self.pieces]

    def part(self, number: int) -> Path:
        """Where a part is, or will be."""
        return self.path / f"part-{number:06d}.parquet"

    def missing(self) -> list[int]:
        """The numbers of the parts that are not there."""
        return [number for number in range(len(self.pieces)) if not self.part(number).exists()]

    def tidy(self) -> None:
        """Remove what killed processes have left unfinished, and leave alone what others are writing."""
        for path in self.path.glob(f"*{UNFINISHED}"):
            with contextlib.suppress(OSError), path.open("rb") as file:
                if _is_abandoned(file, path):
                    path.unlink()

    def account(self) -> dict[str, int]:
        """The rows, tasks, known rows and rows asked about of all parts together, which must all be there.

        Raises:
            DataError: a part is damaged, of another run, or of other rows than the manifest says.
        """
        total = {"rows": 0, "tasks": 0, "known": 0, "asked": 0}
        for number, piece in enumerate(self.pieces):
            said = self._said(number)
            if (said["rows"], said["tasks"]) != (piece.stop - piece.start, piece.tasks):
                raise DataError(
                    f"expected {piece.stop - piece.start} rows of {piece.tasks} tasks behind {self.part(number)}, got "
                    f"{said['rows']} of {said['tasks']}: the table was changed meanwhile; begin a new folder"
                )
            total = {name: value + said[name] for name, value in total.items()}
        return total

    def finish(self, account: Mapping[str, int]) -> None:
        """Say in the manifest that all parts are there, and how much they hold."""
        self._write_manifest(dict(account))

    @contextlib.contextmanager
    def writing(self, number: int) -> Iterator[IO[bytes]]:
        """A file that becomes a part when the block ends, and leaves nothing when it fails."""
        with _whole(self.part(number)) as file:
            yield file

    def metadata(self, number: int, account: Mapping[str, int]) -> dict[bytes, bytes]:
        """What a part says of itself, for the metadata of its file."""
        said = {"run": self.fingerprint, "part": number, **account}
        return {KEY: json.dumps(said).encode()}

    def _said(self, number: int) -> dict[str, Any]:
        path = self.part(number)
        try:
            said = json.loads(pyarrow_parquet().read_metadata(path).metadata[KEY])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"expected a whole part in {path}, got: {error}: remove it, and run again") from error
        if said["run"] != self.fingerprint or said["part"] != number:
            raise DataError(f"expected a part of this run in {path}, got one of another: remove it, and run again")
        return said

    def _write_manifest(self, total: dict[str, int] | None) -> None:
        content: dict[str, Any] = {"format": FORMAT, "complete": total is not None} | (total or {})
        content |= {"settings": self.settings, "parts": self._rows}
        with _whole(self.path / MANIFEST) as file:
            file.write((json.dumps(content, ensure_ascii=False) + "\n").encode())


def _read(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_bytes())
        if manifest["format"] != FORMAT:
            raise DataError(f"expected format {FORMAT} in {path}, got {manifest['format']!r}")
        return {"settings": dict(manifest["settings"]), "parts": list(manifest["parts"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"expected the manifest of a run in {path}, got: {error}") from error


def _require_same(before: dict[str, Any], now: dict[str, Any], path: Path) -> None:
    for name in dict.fromkeys([*now, *before]):
        if before.get(name) != now.get(name):
            old, new = (_short(each.get(name)) for each in (before, now))
            differ = f"another {name}" if old == new else f"{name} {new} instead of {old}"
            raise DataError(
                f"expected to go on with the run in {path} as it was begun, got {differ}: give another folder, or "
                "remove this one"
            )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes its place when the block ends and it is on the disk."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}{UNFINISHED}")
    try:
        with _begun(part) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        _sync_folder(path.parent)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise DataError(f"expected a file that can be written, got {path}: {error}") from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise


if sys.platform != "win32":

    def _begun(path: Path) -> IO[bytes]:
        """A new file that others can see to have a living writer: the system lets go of its lock when it has not."""
        while True:
            file = path.open("xb")
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            if path.exists():
                return file
            file.close()  # another run took it for abandoned between the two lines

    def _is_abandoned(file: IO[bytes], path: Path) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            return _is_old(path)
        return True

    def _sync_folder(path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

else:

    def _begun(path: Path) -> IO[bytes]:
        return path.open("xb")  # what is open cannot be removed there

    def _is_abandoned(file: IO[bytes], path: Path) -> bool:
        return _is_old(path)

    def _sync_folder(path: Path) -> None:
        """Folders are not synced there."""


def _is_old(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > OLD
