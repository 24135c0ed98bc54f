"""A model folder on the disk: replaced in one step, whoever else reads it, writes it or is killed meanwhile.

    model.json                     the manifest, which names
    weights-<12 hex>.safetensors   the weights

A save writes new weights beside the old ones, which serve until its manifest takes the place of the old manifest.
Until then the manifest is called `weights-<12 hex>.safetensors.json`, and its writer holds a lock on it, which the
system lets go when the writer ends, however it ends. A save removes the weights that the manifest it replaces names,
and what writers that have ended left unfinished: no other file, whatever it is called.
"""

import contextlib
import json
import os
import re
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from bayesmeta.annotations import said
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.outputs import sync_folder

if sys.platform != "win32":
    import fcntl

MANIFEST = "model.json"
LARGEST_MANIFEST = 32 * 2**20  # bytes: a million task names fit, and reading it takes some hundred MB at most
PATIENCE = 10.0  # seconds to wait for another writer: the lock keeps the folder tidy, it is not what makes it safe
OLD = 86_400.0  # seconds after which a writer is thought dead where the system has no such locks
OURS = re.compile(r"weights-[0-9a-f]{12}\.safetensors")


def write_model(folder: Path, weights: bytes, manifest: dict[str, Any]) -> None:
    """Make `folder` this model, in one step.

    Args:
        folder: it is made when it does not exist.
        weights: of a safetensors file.
        manifest: plain JSON; the name of the weights is added.

    Raises:
        DataError: the folder cannot be written; the old model is still whole.
    """
    name = f"weights-{uuid.uuid4().hex[:12]}.safetensors"
    path, journal = folder / name, folder / f"{name}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _living(journal):
            try:
                _write(path, weights)
                with _turn(folder):
                    replaced = _named(folder)
                    _write(journal, as_json(manifest | {"weights": name, "replaces": replaced[:1]}))
                    os.replace(journal, folder / MANIFEST)  # from here on the folder is the new model
                    sync_folder(folder)
                    _tidy(folder, name, replaced)
            except BaseException:
                if journal.exists():  # otherwise what has failed is tidying
                    path.unlink(missing_ok=True)
                    journal.unlink(missing_ok=True)
                raise
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        raise DataError(f"expected a folder that can be written, got {folder}: {error}") from error


def as_json(manifest: dict[str, Any]) -> bytes:
    """A manifest as it is written.

    Raises:
        UnsupportedError: a part of it is not plain JSON.
        DataError: it is too long to be read again.
    """
    try:
        text = json.dumps(manifest, indent=1).encode()
    except (TypeError, ValueError, RecursionError) as error:
        found = said(manifest.get("extra"))
        raise UnsupportedError(f"expected extra to be plain JSON, got {found}: {error}") from error
    if len(text) > LARGEST_MANIFEST - 1_000:  # the names of the weights are still to come
        raise DataError(f"expected extra of at most {LARGEST_MANIFEST} bytes of JSON, got {len(text)}")
    return text


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a model folder.

    Raises:
        DataError: there is none, or it is not a JSON object.
    """
    path = folder / MANIFEST
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            raise DataError(f"expected a model folder with {MANIFEST}, got {folder} without it")
        with path.open("rb") as file:
            text = file.read(LARGEST_MANIFEST + 1)
        if len(text) > LARGEST_MANIFEST:
            raise DataError(f"expected a {MANIFEST} of at most {LARGEST_MANIFEST} bytes in {folder}, got a larger one")
        manifest = json.loads(text.decode())
    except DataError:
        raise
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, not JSON, a number without end
        raise DataError(f"expected a whole {MANIFEST} in {folder}, got a broken one: {error}") from error
    if not isinstance(manifest, dict):
        raise DataError(f"expected a whole {MANIFEST} in {folder}, got a broken one: a {type(manifest).__name__}")
    return manifest


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[tuple[dict[str, Any], Any]]:
    """The manifest of a model folder and the opened safetensors file that it names: both of one save.

    Raises:
        DataError: the folder is not a whole model folder.
    """
    manifest = read_manifest(folder)
    while True:
        try:
            weights = _open_weights(folder, manifest)
            break
        except DataError:
            latest = read_manifest(folder)
            if latest == manifest:
                raise
            manifest = latest  # another save was faster than our reading
    with weights as file:
        yield manifest, file


def _open_weights(folder: Path, manifest: dict[str, Any]) -> Any:
    named = manifest.get("weights")
    if not isinstance(named, str):
        raise DataError(f"expected a whole {MANIFEST} in {folder}, got one that names no weights: {named!r}")
    path = folder / Path(named).name
    try:
        if not path.is_file():
            shown = path.name.encode(errors="backslashreplace").decode()  # JSON may hold half a character
            raise DataError(f"expected a model folder with {shown}, got {folder} without it")
        return safe_open(path, framework="pt")
    except DataError:
        raise
    except (
        OSError,
        ValueError,
        RuntimeError,
        SafetensorError,
    ) as error:  # Runtime: removed just now, or not open to us
        raise DataError(f"expected whole weights of this model in {path}, got broken ones: {error}") from error


def _named(folder: Path) -> list[str]:
    """The weights that the manifest names which is in the folder now: its own, and those that it has replaced.

    The latter are there still where a save was killed before it removed them.
    """
    try:
        manifest = read_manifest(folder)
    except DataError:
        return []
    replaces = manifest.get("replaces")
    names = [manifest.get("weights"), *(replaces if isinstance(replaces, list) else [])]
    return [name for name in names if isinstance(name, str) and OURS.fullmatch(name)]


def _tidy(folder: Path, name: str, replaced: list[str]) -> None:
    """Remove what the new model replaces, and what ended writers left. What cannot be removed stays."""
    for each in replaced:
        with contextlib.suppress(OSError):
            (folder / each).unlink(missing_ok=True)
    for journal in folder.glob("weights-*.safetensors.json"):
        weights = journal.name.removesuffix(".json")
        if OURS.fullmatch(weights) and weights != name:
            with contextlib.suppress(OSError), _claimed(journal) as is_abandoned:
                if is_abandoned:
                    (folder / weights).unlink(missing_ok=True)  # before its journal, which tells of it
                    journal.unlink(missing_ok=True)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # a manifest must not outlive a power failure that its weights do not


if sys.platform != "win32":

    @contextlib.contextmanager
    def _living(journal: Path) -> Iterator[None]:
        """A new, empty journal that others can see to have a living writer."""
        while True:
            file = journal.open("xb")
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            if journal.exists():
                break
            file.close()  # another save took it for abandoned between the two lines
        with file:
            yield

    @contextlib.contextmanager
    def _claimed(journal: Path) -> Iterator[bool]:
        """Whether the writer of a journal has ended; if so no other save touches it meanwhile."""
        with journal.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_abandoned = True
            except BlockingIOError:
                is_abandoned = False
            except OSError:  # a file system without locks
                is_abandoned = _is_old(journal)
            yield is_abandoned

    @contextlib.contextmanager
    def _turn(folder: Path) -> Iterator[None]:
        """One writer at a time replaces a manifest, so that each removes the weights of the one before it."""
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            until = time.monotonic() + PATIENCE
            while time.monotonic() < until:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(0.002)
                except OSError:  # a file system without locks
                    break
            yield
        finally:
            os.close(descriptor)

else:

    @contextlib.contextmanager
    def _living(journal: Path) -> Iterator[None]:
        journal.open("xb").close()  # what is open cannot be renamed there
        yield

    @contextlib.contextmanager
    def _claimed(journal: Path) -> Iterator[bool]:
        yield _is_old(journal)

    def _turn(folder: Path) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


def _is_old(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > OLD
