"""`bayesmeta plot`."""

from pathlib import Path
from typing import Annotated

import typer

from bayesmeta.cli.model_folders import load_model
from bayesmeta.cli.options import Model, Separator, TableFile, counts_of
from bayesmeta.cli.speaking import speaker
from bayesmeta.cli.tables import cells
from bayesmeta.outputs import require_outputs


def plot(
    model: Model,
    table: TableFile,
    task: Annotated[str, typer.Option(help="Name of the task, as it is written in the table.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Figure file to write; its name ends in .png, .svg or .pdf.")
    ] = Path("plot.png"),
    shots: Annotated[
        str | None, typer.Option(help="Numbers of known rows, separated by commas; 0,1,3 where the task has as many.")
    ] = None,
    along: Annotated[
        str | None, typer.Option(help="Input column on the axis; by default the first that varies in the task.")
    ] = None,
    level: Annotated[float, typer.Option(help="Probability of the intervals.")] = 0.9,
    noiseless: Annotated[bool, typer.Option(help="Intervals of the curve itself, without measurement noise.")] = False,
    sep: Separator = None,
) -> None:
    """Draw what a model predicts of one task of a table from none of its rows, the first one, the first three.

    Known are the first rows of the task in the order of the table. Inputs that are not on the axis have the task's own
    values. Classes have a line of their probability each.
    """
    from bayesmeta.plotting import axis_note, task_panels, write_figure
    from bayesmeta.plotting.files import require_figure_file
    from bayesmeta.table_files import read_table
    from bayesmeta.task_names import texts
    from bayesmeta.tasks.dataset import TaskDataset

    require_outputs({"--output": output}, {"TABLE": table}, {"MODEL": model})
    require_figure_file(output)
    asked = None if shots is None else counts_of(shots)
    learner, schema, extra = load_model(model)
    frame = cells(read_table(table, sep), schema)
    tasks = TaskDataset.from_schema(frame[schema.has_outcome(frame)], schema)
    note = axis_note(tasks, task, along)
    counts = [count for count in (0, 1, 3) if count <= tasks.task(task).num_points] if asked is None else asked
    figure = task_panels(learner, tasks, task, counts, along=along, level=level, noiseless=noiseless)
    write_figure(figure, output)
    say = speaker(output)
    say(f"task {task}, {note}")
    if texts([task])[0] in extra.get("trained_on", []):
        say("the model was trained on this task: new ones are predicted less well")
    say(f"figure written to {output}")
