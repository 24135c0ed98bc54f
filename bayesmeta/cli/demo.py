"""`bayesmeta demo`."""

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from bayesmeta.outputs import require_folder


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the figure.")] = Path("demo-output"),
    steps: Annotated[int, typer.Option(help="Meta-training steps.")] = 20_000,
) -> None:
    """Meta-train on sinusoids, and compare with the Bayes-optimal predictor. About two minutes."""
    require_folder(output)
    from bayesmeta.demo import run

    run(output, steps)
    typer.echo(
        "\nNext, a table of seedlings that comes along (yours has a row a point and a column that names the task):"
    )
    columns = "--task plant --x day --y height_cm --covariate light_umol --covariate cultivar"
    for command in (
        "example-table -o plants.csv",
        f"fit plants.csv {columns} --holdout 0.25 -o model",
        "evaluate model plants.csv --shots 0,1,3",
        "plot model plants.csv --task 09 -o plant-09.svg",
    ):
        typer.echo(f"  {_called()} {command}")


def _called() -> str:
    """What to type for `bayesmeta`, which is not on the path of a virtual environment that was not activated."""
    if shutil.which("bayesmeta") is not None:
        return "bayesmeta"
    return os.path.relpath(sys.argv[0]) if Path(sys.argv[0]).is_file() else sys.argv[0]
