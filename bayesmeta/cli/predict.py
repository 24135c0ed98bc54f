"""`bayesmeta predict`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bayesmeta.cli.model_folders import load_model, surprise_of, tasks_to_score
from bayesmeta.cli.options import Device, Model, Separator
from bayesmeta.cli.speaking import speaker, warn
from bayesmeta.cli.streams import predict_stream
from bayesmeta.cli.tables import cells
from bayesmeta.errors import DataError
from bayesmeta.outputs import require_outputs, write_table

if TYPE_CHECKING:
    import pandas as pd


def predict(
    model: Model,
    context: Annotated[
        Path,
        typer.Argument(
            help="Table with the points that are known, outcomes included; or a STATE, as written by update. Without "
            "QUERY a parquet file or folder of any size with both: rows without an outcome are predicted."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Table file to write; without QUERY a folder of parquet files.")
    ],
    query: Annotated[
        Path | None, typer.Argument(help="Table with the points to predict; outcomes are not needed.")
    ] = None,
    level: Annotated[float, typer.Option(help="Probability of (lower, upper), or least of likely.")] = 0.9,
    noiseless: Annotated[
        bool,
        typer.Option("--noiseless", help="sd, lower and upper of the outcome itself, not of a new measurement of it."),
    ] = False,
    conformal: Annotated[
        Path | None,
        typer.Option(
            metavar="TABLE",
            help="Table with tasks that were held out: lower and upper, or likely, then hold a share --level of "
            "outcomes whatever the model says. Tasks of the training and those of QUERY are left out of it.",
        ),
    ] = None,
    forecast: Annotated[
        bool,
        typer.Option("--forecast", help="For --conformal: what is known of a task is its beginning."),
    ] = False,
    tasks: Annotated[Path | None, typer.Option(help="Table file for one row a task: p-value, shrinkage.")] = None,
    device: Device = "cpu",
    seed: Annotated[int, typer.Option(help="For --conformal: seed of the choice of support points.")] = 0,
    sep: Separator = None,
    known: Annotated[
        str | None,
        typer.Option(
            help="Without QUERY: a column of true and false that says which rows are known, or how many rows of each "
            "task are, from its beginning. By default those with an outcome."
        ),
    ] = None,
    processes: Annotated[int, typer.Option(help="Without QUERY: processes that work side by side.")] = 1,
    part: Annotated[
        str, typer.Option(metavar="K/N", help="Without QUERY: do the K-th of N shares, for N machines and one folder.")
    ] = "1/1",
) -> None:
    """Predict the rows of QUERY from what CONTEXT says about their tasks; without any, from the prior.

    Writes QUERY, every cell as it was and separated in the same way, with the columns mean, sd, lower, upper (and the
    outcome's name in front when there are several); or, of an outcome of classes, predicted (the most probable class),
    likely (the fewest that have a probability of --level together), and p_NAME of each class; or, of a binary one,
    predicted and p, the probability of the second class. Of counts lower and upper are whole numbers. It warns of
    tasks whose context is unlike the tasks that were learned from. Predictions are the same with a warning. Names of
    tasks are compared as they are written.

    Without QUERY, CONTEXT is a parquet file or a folder of them of any size, whose rows of a task stand one after
    another, and OUTPUT a folder of parquet files with the rows that were predicted. Memory does not grow with the
    table. A run that was killed is gone on with by the same command.
    """
    if query is None:
        if conformal is not None or forecast or tasks is not None or sep is not None:
            raise DataError("expected QUERY with --conformal, --forecast, --tasks or --sep, got CONTEXT alone")
        predict_stream(model, context, output, level, noiseless, known, processes, part, device)
        return
    if known is not None or processes != 1 or part != "1/1":
        raise DataError("expected --known, --processes and --part without QUERY, got them with it")
    from bayesmeta.conformal_frames import conformal_predictions
    from bayesmeta.frames import Matching, describe_tasks, predictions, require_free, result_columns
    from bayesmeta.table_cells import decimal_commas, number_columns
    from bayesmeta.table_files import read_table
    from bayesmeta.tasks.known_points import KnownPoints, is_known_points
    from bayesmeta.tasks.source import PrefixSplit, RandomSplit
    from bayesmeta.unlike_tasks import unlike

    outputs = {"--output": output, "--tasks": tasks}
    inputs = {"CONTEXT": context, "QUERY": query} | ({} if conformal is None else {"--conformal": conformal})
    require_outputs(outputs, inputs, {"MODEL": model})
    if conformal is None and forecast:
        raise DataError("expected --forecast with --conformal, got it alone: predictions are the same without it")
    if conformal is not None and noiseless:
        raise DataError("expected --noiseless or --conformal, got both: a conformal interval is of a new measurement")
    learner, schema, extra = load_model(model, device)
    asked = read_table(query, sep)
    require_free(asked.frame.columns, result_columns(schema))
    if tasks is not None:
        require_free([schema.task], ["points", "p_value", "smallest_p_value", "shrinkage"])
    if is_known_points(context):
        points: pd.DataFrame | KnownPoints = KnownPoints.load(context, learner)
    else:
        points = cells(read_table(context, sep, header_only=True), schema)
    wanted = cells(asked, schema, outcomes=False)
    matching = Matching.of(schema, points, wanted)
    if conformal is None:
        found = predictions(learner, schema, points, wanted, level, noiseless)
    else:
        held_out, left_out = tasks_to_score(read_table(conformal, sep), schema, extra, None)
        split = PrefixSplit if forecast else RandomSplit
        found, unknown = conformal_predictions(learner, schema, points, wanted, held_out, level, split=split, seed=seed)
    predicted = asked.frame.assign(**found)
    described = describe_tasks(learner, schema, points, wanted, surprise_of(learner, extra))
    written = (asked.separator or ",", decimal_commas(asked, number_columns(schema, outcomes=False)))
    write_table(predicted, output, *written)
    if tasks is not None:
        write_table(described.reset_index(), tasks, *written)
    warn(matching.warning)
    warn(unlike(described.index, described["points"], described["p_value"], described["smallest_p_value"]))
    say = speaker(*outputs.values())
    say(str(matching))
    if conformal is not None:
        warn(unknown)
        say(f"conformal by tasks of {conformal}" + (f"; {left_out}" if left_out else ""))
    say(f"{len(predicted)} rows of {matching.tasks} tasks written to {output}")
