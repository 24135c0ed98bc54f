"""Arguments and options that several commands share, and what is read from their text."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bayesmeta.errors import DataError

if TYPE_CHECKING:
    import torch

MOST_PREDICTED = 50  # points of a task in a cross-validation: more say little of the task, and cost as the cube
MOST_JUDGED = 500  # tasks of a cross-validation: enough for differences of some hundredths of a nat

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
Outcome = Annotated[
    str | None,
    typer.Option(
        help="What the outcome is: number, positive, count, binary or classes. By default text is classes, and what is "
        "written in numbers is a number."
    ),
]
Covariate = Annotated[
    list[str] | None,
    typer.Option(
        help="Input column that is constant within a task. In linear methods its effect is the same in all tasks "
        "(a fixed effect), unless --random names it, too."
    ),
]
Random = Annotated[
    list[str] | None,
    typer.Option(help="Covariate whose effect differs between tasks in linear methods (a random effect)."),
]
Validation = Annotated[
    float | None,
    typer.Option(help="Share of the tasks to train on that stop a training by gradients early; .2 by default."),
]
Recalibrate = Annotated[
    float,
    typer.Option(help="Share of the tasks to correct predictions by, which nothing else is learned from."),
]
Steps = Annotated[int, typer.Option(help="Gradient steps.")]
LearningRate = Annotated[
    float | None, typer.Option(help="First learning rate of methods trained by gradients; .001 by default.")
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        help="Folder that keeps what is trained as it goes, so that it goes on after a kill, Ctrl-C or SIGTERM."
    ),
]
Every = Annotated[
    int | None,
    typer.Option(
        help="Steps between two states in --checkpoint; 500 by default, and 50 of methods fitted by evidence."
    ),
]
Resume = Annotated[
    str | None,
    typer.Option(
        help="auto: go on with the run in --checkpoint, or begin where there is none. never: begin anew in its place. "
        "By default one that has not come to its end is not replaced."
    ),
]
Holdout = Annotated[float, typer.Option(help="Share of the tasks to leave for evaluate.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Separator = Annotated[str | None, typer.Option(help="Between cells: a character, tab or space; found out by default.")]
Device = Annotated[str, typer.Option(help="Where to compute: cpu, cuda, or auto for a GPU where there is one.")]
Level = Annotated[float, typer.Option(help="Probability of the interval whose coverage is reported.")]
Shots = Annotated[str, typer.Option(help="Numbers of support points, separated by commas.")]
Forecast = Annotated[bool, typer.Option(help="Support is the beginning of a task, query what follows.")]
IncludeTrained = Annotated[bool, typer.Option(help="Score tasks of the training, too.")]


def given(**options: Any) -> dict[str, Any]:
    """Those of the options that have a value, by name."""
    return {name: value for name, value in options.items() if value is not None}


def counts_of(shots: str) -> list[int]:
    """The numbers of --shots. Raises DataError where they are none."""
    return whole_numbers(shots, "numbers of support points like 0,1,3")


def names_of(text: str | None, option: str) -> list[str]:
    """Names between commas; none where the option is not given.

    Args:
        text: as the user wrote it.
        option: its name, for the error.

    Raises:
        DataError: no name between two commas, or one twice.
    """
    if text is None:
        return []
    names = [part.strip() for part in text.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise DataError(f"expected different names separated by commas for {option}, got {text!r}")
    return names


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


def device_of(device: str) -> "torch.device":
    """The device of --device.

    Args:
        device: cpu, cuda (or one of several, as cuda:1), or auto.

    Raises:
        DataError: another word, or a GPU that torch does not see.
    """
    from bayesmeta import devices

    return devices.device_of(device, "--device")
