"""`bayesmeta demo`."""

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
