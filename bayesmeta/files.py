"""A file that is replaced in one step: whoever reads it sees the old one or the new one, never a part of either."""

import contextlib
import os
import uuid
from pathlib import Path

from bayesmeta.errors import DataError


def write_file(path: str | Path, content: bytes) -> None:
    """Replace a file by one with this content, in one step: a write that fails leaves the old file whole.

    A symbolic link stays one, and what it points to is replaced. A device or a pipe is written to: it cannot be
    replaced by a file, and must not be.

    Raises:
        DataError: the file cannot be written.
    """
    try:
        target = Path(path).resolve()
        if target.exists() and not target.is_file():
            if target.is_dir():
                raise DataError(f"expected a file that can be written, got {path}: it is a folder")
            target.write_bytes(content)
            return
        part = target.with_name(f".{target.name[:200]}.{uuid.uuid4().hex[:12]}.new")  # no two writers share it
        try:
            part.write_bytes(content)
            if target.exists():
                part.chmod(target.stat().st_mode & 0o7777)
            os.replace(part, target)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        if isinstance(error, DataError):
            raise
        raise DataError(f"expected a file that can be written, got {path}: {error}") from error
