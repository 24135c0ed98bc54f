"""`bayesmeta example-table`."""

import importlib.resources
from pathlib import Path
from typing import Annotated

import typer

from bayesmeta.cli.speaking import speaker
from bayesmeta.outputs import require_outputs, write


def example_table(
    output: Annotated[Path, typer.Option("--output", "-o", help="CSV file to write.")] = Path("plants.csv"),
) -> None:
    """Write a small table to try the commands on: heights of 36 seedlings, day by day, simulated.

    Its columns are plant (the task), day, height_cm, and light_umol and cultivar, which are constant for a plant.
    """
    require_outputs({"--output": output}, {})
    content = importlib.resources.files("bayesmeta").joinpath("example_table.csv").read_bytes()
    write(output, content)
    rows = content.count(b"\n") - 1
    speaker(output)(f"{rows} rows of 36 plants written to {output}")
