"""What the command line says, and where: results on standard output, notes and warnings as lines on standard error."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import typer

from bayesmeta.outputs import is_standard

FOR_PROGRAMMERS = (DeprecationWarning, FutureWarning)  # of the packages that are used


def note(text: str) -> None:
    """Say what is not the plain case, and no fault."""
    typer.echo(f"note: {text}", err=True)


def warn(text: str) -> None:
    """Say what is probably wrong, if anything is: nothing is said of an empty text."""
    if text:
        typer.echo(f"warning: {text}", err=True)


def show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """In the place of `warnings.showwarning`: a line without the code that gave it, if it says something to a user."""
    if not issubclass(category, FOR_PROGRAMMERS):
        warn(str(message))


def speaker(*outputs: Path | None) -> Callable[[str], None]:
    """Where sentences go: to standard error when one of the outputs is standard output, which then holds a table."""
    return partial(typer.echo, err=any(is_standard(path) for path in outputs if path is not None))
