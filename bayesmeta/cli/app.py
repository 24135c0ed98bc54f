"""The command line's entry point: every command is registered here, and all that goes wrong becomes one line."""

import os
import sys
import warnings
from typing import Annotated, cast

import typer

from bayesmeta.cli.crossval import crossval
from bayesmeta.cli.demo import demo
from bayesmeta.cli.evaluate import evaluate
from bayesmeta.cli.example_table import example_table
from bayesmeta.cli.fit import fit
from bayesmeta.cli.methods import methods
from bayesmeta.cli.plot import plot
from bayesmeta.cli.predict import predict
from bayesmeta.cli.report import report
from bayesmeta.cli.search import search
from bayesmeta.cli.speaking import show_warning
from bayesmeta.cli.summary import summary
from bayesmeta.cli.update import update
from bayesmeta.errors import BayesMetaError
from bayesmeta.version import VERSION

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
# what typer raises of a wrong call; only its subclasses have public names
UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__bases__[0])


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"bayesmeta {VERSION}")
        raise typer.Exit


@app.callback()
def every_command(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_say_version, is_eager=True)
    ] = False,
) -> None:
    """Few-shot learning with uncertainty that can be trusted, of numbers and of classes.

    Tables are CSV or parquet files, one row a point; names of tasks and categories are read as they are written.
    """


COMMANDS = (  # in the order of --help
    demo,
    example_table,
    fit,
    crossval,
    search,
    summary,
    predict,
    update,
    evaluate,
    report,
    plot,
    methods,
)
for command in COMMANDS:
    app.command()(command)


def main() -> None:
    """Entry point: errors and warnings become one line on standard error; an error is exit status 2."""
    # before torch is imported: tables make small matrices, on which threads only get in each other's way
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with warnings.catch_warnings():
        warnings.showwarning = show_warning
        try:
            sys.exit(app(prog_name="bayesmeta", standalone_mode=False) or 0)
        except BayesMetaError as error:
            message = str(error)
        except UsageError as error:
            message = error.format_message()
            if not message or "\n" in message:  # no command: the help has been shown, or is the message
                error.show()
                sys.exit(2)
        except typer.Abort:
            sys.exit(130)
        typer.echo(f"error: {' '.join(message.splitlines())}", err=True)
        sys.exit(2)
