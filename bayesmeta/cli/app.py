"""The command line's entry point: every command is registered here."""

import sys
import warnings

import typer

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

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help=(
        "Few-shot learning with uncertainty that can be trusted, of numbers and of classes. Tables are CSV or parquet "
        "files, one row a point; "
        "names of tasks and categories are read as they are written."
    ),
)
COMMANDS = (  # in the order of --help
    demo,
    example_table,
    fit,
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
    """Entry point: errors and warnings of bayesmeta become one line on standard error; an error is exit status 2."""
    with warnings.catch_warnings():
        warnings.showwarning = show_warning
        try:
            app()
        except BayesMetaError as error:
            typer.echo(f"error: {error}", err=True)
            sys.exit(2)
