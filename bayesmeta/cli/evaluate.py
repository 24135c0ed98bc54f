"""`bayesmeta evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from bayesmeta.cli.model_folders import load_model, surprise_of, tasks_to_score
from bayesmeta.cli.options import Device, Forecast, IncludeTrained, Level, Model, Separator, Shots, TableFile, counts_of
from bayesmeta.cli.speaking import speaker, warn
from bayesmeta.cli.streams import evaluate_large
from bayesmeta.cli.tables import is_large
from bayesmeta.outputs import require_outputs, write_table


def evaluate(
    model: Model,
    table: TableFile,
    shots: Shots = "0,1,2,5,10",
    forecast: Forecast = False,
    include_trained: IncludeTrained = False,
    level: Level = 0.9,
    seed: Annotated[int, typer.Option(help="Seed of the choice of support points.")] = 0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Table file for all scores.")] = None,
    device: Device = "cpu",
    sep: Separator = None,
) -> None:
    """Score a model on tasks it was not trained on, by number of support points.

    TABLE may be a parquet file or a folder of them of any size, whose rows of a task stand one after another: from two
    million rows on, and of a folder always, it is read some tasks at a time.
    """
    import pandas as pd

    from bayesmeta.evaluation.evaluate import evaluate as evaluate_learner
    from bayesmeta.separate_outcomes import evaluate_each
    from bayesmeta.table_files import read_table
    from bayesmeta.tasks.source import PrefixSplit, RandomSplit
    from bayesmeta.unlike_tasks import unlike

    require_outputs({"--output": output}, {"TABLE": table}, {"MODEL": model})
    if is_large(table):
        evaluate_large(model, table, shots, forecast, include_trained, level, seed, output, device)
        return
    learner, schema, extra = load_model(model, device)
    counts, (tasks, trained) = counts_of(shots), tasks_to_score(read_table(table, sep), schema, extra, include_trained)
    split = PrefixSplit if forecast else RandomSplit
    if tasks.has_gaps:
        found = evaluate_each(learner, tasks, counts, split=split, level=level, seed=seed)
        texts = [f"{name}, where it was measured: {result}" for name, result in found.items()]
        scores = pd.concat({name: result.table() for name, result in found.items()}, names=["outcome"])
    else:
        result = evaluate_learner(learner, tasks, counts, split=split, level=level, seed=seed)
        texts, scores = [str(result)], result.all_tables()
    surprise = surprise_of(learner, extra)
    if surprise is not None:
        warn(unlike(tasks.names, tasks.counts, *surprise.judged(tasks)))
    say = speaker(output)
    for text in texts:
        say(text)
    if trained:
        say(trained)
    if output is not None:
        write_table(scores.reset_index(), output)
        say(f"table written to {output}")
