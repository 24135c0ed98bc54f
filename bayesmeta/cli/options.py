"""Arguments and options that several commands share, and what is read from their text."""

from pathlib import Path
from typing import Annotated

import typer

from bayesmeta.errors import DataError

TableFile = Annotated[Path, typer.Argument(metavar="TABLE", help="Table file, one row a point.")]
Model = Annotated[Path, typer.Argument(help="Model folder, as written by fit.")]
Task = Annotated[str, typer.Option(help="Column with the task's name.")]
Y = Annotated[list[str], typer.Option(help="Outcome column; repeat for several.")]
X = Annotated[list[str] | None, typer.Option(help="Input column; repeat for several.")]
Categorical = Annotated[
    list[str] | None, typer.Option(help="Input column of categories, whatever its cells look like.")
]
Yerr = Annotated[
    list[str] | None, typer.Option(help="Column of the outcome's known standard deviation; one for each outcome.")
]
Outcome = Annotated[str | None, typer.Option(help="What the outcome is: classes, or numbers; found out by default.")]
Holdout = Annotated[float, typer.Option(help="Share of the tasks to leave for evaluate.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Separator = Annotated[str | None, typer.Option(help="Between cells: a character, tab or space; found out by default.")]
Shots = Annotated[str, typer.Option(help="Numbers of support points, separated by commas.")]
Forecast = Annotated[bool, typer.Option(help="Support is the beginning of a task, query what follows.")]
IncludeTrained = Annotated[bool, typer.Option(help="Score tasks of the training, too.")]


def counts_of(shots: str) -> list[int]:
    """The numbers of --shots. Raises DataError where they are none."""
    return whole_numbers(shots, "numbers of support points like 0,1,3")


def whole_numbers(text: str, expected: str) -> list[int]:
    """Whole numbers between commas.

    Args:
        text: as the user wrote it.
        expected: what they are, for the error.

    Raises:
        DataError: something between two commas is no whole number.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise DataError(f"expected {expected}, got {text!r}") from error
