"""Writes the page "The command line": `python -m docs.tools.the_command_line`.

What a command does stands in the docstring of its function, what an option does in its annotation. A new command or option
is there at once; tests/test_command_line_page.py says when the page is out of date.
"""
# ruff: noqa: E501  (lines of the page)

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, get_args, get_origin

from typer.models import ArgumentInfo, Context, OptionInfo

from bayesmeta.cli.app import app, every_command

DOCS = Path(__file__).parent.parent
KINDS = {str: "text", int: "whole number", float: "number", Path: "path", bool: "yes or no"}

HEAD = """# The command line

A table in, predictions, scores and a report out, without writing Python. A table has one row a point, and a column that names
the task of each row: a patient, a plant, a data set. [Table files](../concepts/table_files.md) says what is read, and how.

```
bayesmeta fit TABLE.csv --task subject --x days --y reaction --holdout 0.25 -o MODEL
bayesmeta evaluate MODEL TABLE.csv --shots 0,1,3
bayesmeta predict MODEL CONTEXT.csv QUERY.csv -o PREDICTIONS.csv
```

`fit` learns a prior from the tasks. It says what every column is taken for, which rows are left out and what the tasks are used
for, and ends with how much rows of a task scatter, how much tasks differ, and whether the training has converged. It replaces
no model without `--force`, and writes no model into a folder of other files. All options that it used are in
`MODEL/options.toml`: `bayesmeta fit --config MODEL/options.toml -o OTHER` repeats the run, and options on the command line win
over those of the file.

`predict` reads what is known of new tasks from CONTEXT and predicts the rows of QUERY. Its intervals are of a new measurement;
`--noiseless` gives those of what is measured. `--conformal TABLE` replaces them by [conformal ones](../concepts/calibration.md#conformal-intervals),
which hold what they promise whatever the model says, by tasks of TABLE that were held out of the training.

**Effects of covariates** (`--covariate`: columns that are constant within a task) are the same in all tasks in linear methods,
as a task shows one value of each; `--random` names those whose effects differ. Columns that are named by `--x` have an effect of
each task's own.

**Large tables** are parquet files, or folders of them: `predict MODEL TABLE.parquet -o FOLDER` predicts the rows without an outcome
from the others of their tasks, part by part, and `fit` and `evaluate` read some tasks at a time
([a hundred million tasks](../how_to/streaming.md)).

**Where predictions are off**, `fit --recalibrate 0.2` keeps a fifth of the tasks to correct them by
([recalibration](../concepts/calibration.md#recalibration)). These tasks teach nothing else, as those of `--holdout` are only judged.

Warnings and errors are lines on standard error. After an error the exit status is 2, nothing is written, and no file that was
there is changed. Results go to standard output, or to standard error where a table goes to standard output (`-o /dev/stdout`).

This page is made from the code (`python -m docs.tools.the_command_line`); `bayesmeta COMMAND --help` says the same.
"""


@dataclass(frozen=True)
class Parameter:
    """An argument or an option of a command.

    Attributes:
        names: as they are written, the first first; of an argument, its place in the usage.
        is_option: whether it has a name on the command line.
        kind: what its value is; empty for a switch.
        default: as text; empty where there is none.
        is_required: whether it must be given.
        help: what it does.
    """

    names: tuple[str, ...]
    is_option: bool
    kind: str
    default: str
    is_required: bool
    help: str


def commands() -> dict[str, Callable[..., None]]:
    """The functions of the commands by name, in the order of `bayesmeta --help`."""
    found = [command.callback for command in app.registered_commands if command.callback is not None]
    return {each.__name__.replace("_", "-"): each for each in found}


def parameters(command: Callable[..., None]) -> list[Parameter]:
    """The arguments of a command, then its options."""
    signature = inspect.signature(command, eval_str=True)
    found = [_parameter(each) for each in signature.parameters.values() if each.annotation is not Context]
    return sorted(found, key=lambda each: each.is_option)


def _parameter(given: inspect.Parameter) -> Parameter:
    if get_origin(given.annotation) is not Annotated:
        raise TypeError(f"expected an annotation with typer.Option or typer.Argument, got none for {given.name}")
    value, info, *_ = get_args(given.annotation)
    if not isinstance(info, ArgumentInfo | OptionInfo):
        raise TypeError(f"expected typer.Option or typer.Argument for {given.name}, got {info}")
    is_option, parts = isinstance(info, OptionInfo), list(info.param_decls or ())
    if isinstance(info.default, str):  # in an annotation the first name is where a default would be
        parts.insert(0, info.default)
    is_required = given.default is inspect.Parameter.empty
    kind, is_switch = _kind(value), value is bool
    names = parts or [f"--{given.name.replace('_', '-')}"]
    if not is_option:
        names = [info.metavar or given.name.upper()]
    default = "" if is_required or given.default is None or given.default is False else str(given.default)
    return Parameter(tuple(names), is_option, "" if is_switch else kind, default, is_required, info.help or "")


def _kind(value: Any) -> str:
    if isinstance(value, UnionType):
        (value,) = [each for each in get_args(value) if each is not NoneType]
    if get_origin(value) is list:
        return f"{KINDS[get_args(value)[0]]}, any number of times"
    return KINDS[value]


def usage(name: str, found: list[Parameter]) -> str:
    """How a command is called, what must be given first."""
    places = [each for each in found if not each.is_option]
    parts = [each.names[0] if each.is_required else f"[{each.names[0]}]" for each in places]
    parts += [f"{each.names[0]} {_word(each)}" for each in found if each.is_option and each.is_required]
    return " ".join(["bayesmeta", name, *parts, "[OPTIONS]"])


def _word(parameter: Parameter) -> str:
    return parameter.names[0].lstrip("-").upper()


def row(parameter: Parameter) -> str:
    """A line of the table of a command."""
    names = ", ".join(f"`{name}`" for name in parameter.names)
    default = "required" if parameter.is_required else f"`{parameter.default}`" if parameter.default else ""
    return f"| {' | '.join(map(_cell, (names, parameter.kind, default, parameter.help)))} |"


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


def section(name: str, command: Callable[..., None]) -> str:
    """What the page says of a command."""
    found = parameters(command)
    said = inspect.getdoc(command) or ""
    lines = [f"## {name}", "", said, "", "```", usage(name, found), "```", ""]
    if found:
        lines += ["| | value | default | |", "|---|---|---|---|", *map(row, found), ""]
    return "\n".join(lines)


def command_line() -> str:
    """The page docs/reference/command_line.md."""
    of_all = [row(each) for each in parameters(every_command)]
    head = "\n".join([HEAD, "| for every command | value | default | |", "|---|---|---|---|", *of_all, ""])
    return "\n".join([head, *(section(name, command) for name, command in commands().items())])


PAGE = DOCS / "reference" / "command_line.md"

if __name__ == "__main__":
    PAGE.write_text(command_line())
