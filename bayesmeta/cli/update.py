"""`bayesmeta update`."""

from pathlib import Path
from typing import Annotated

import typer

from bayesmeta.cli.model_folders import load_model
from bayesmeta.cli.options import Model, Separator
from bayesmeta.cli.speaking import warn
from bayesmeta.cli.tables import cells
from bayesmeta.outputs import require_outputs


def update(
    model: Model,
    state: Annotated[Path, typer.Argument(help="File of what is known so far; it is made where there is none.")],
    more: Annotated[Path, typer.Argument(help="Table with points that became known, outcomes included.")],
    sep: Separator = None,
) -> None:
    """Add the rows of MORE to what is known of their tasks, for predictions from STATE in the place of CONTEXT.

    STATE keeps the rows themselves, as numbers, with the names of tasks, columns and categories: share it as you would
    share the tables. Predictions from it are those from all tables at once. Rows that are known already count again,
    which is said. It belongs to one model, and is replaced in one step, by one update at a time.
    """
    from bayesmeta.one_line import several
    from bayesmeta.table_files import read_table
    from bayesmeta.tasks.known_points import KnownPoints

    require_outputs({"STATE": state}, {"MORE": more}, {"MODEL": model})
    learner, schema, _ = load_model(model)
    before = KnownPoints.load(state, learner) if state.exists() else KnownPoints.none(schema)
    points = cells(read_table(more, sep, header_only=True), schema)
    now, repeated = before.extended(points), before.repeated(points)
    now.save(state, learner)
    added = len(now.points.x) - len(before.points.x)
    if repeated:
        are = "is" if repeated == 1 else "are"
        warn(f"{repeated} of the {several(added, 'row')} {are} in {state} already, and {are} counted once more")
    new = len(now.names) - len(before.names)
    without = f", {several(len(points) - added, 'row')} without an outcome left out" if len(points) > added else ""
    typer.echo(f"{several(added, 'row')} added, {several(new, 'task')} of them new{without}")
    typer.echo(f"{state} knows {several(len(now.points.x), 'row')} of {several(len(now.names), 'task')}")
