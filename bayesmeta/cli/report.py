"""`bayesmeta report`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bayesmeta.cli.model_folders import load_model, retraining, surprise_of, tasks_to_score
from bayesmeta.cli.options import (
    MOST_PREDICTED,
    Device,
    Forecast,
    IncludeTrained,
    Model,
    Separator,
    Shots,
    TableFile,
    counts_of,
)
from bayesmeta.cli.speaking import speaker
from bayesmeta.cli.tables import cells
from bayesmeta.outputs import require_folder, require_outputs

if TYPE_CHECKING:
    from bayesmeta.table_files import Table
    from bayesmeta.tasks.table import Schema

MOST = 50  # tasks: with more, a share that is held out may tell enough, and training anew takes its time
FOLDS = 5
FEWEST = 4  # tasks of the training that baselines learn from


def report(
    model: Model,
    table: TableFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML file to write.")],
    shots: Shots = "0,1,2,5,10",
    forecast: Forecast = False,
    include_trained: IncludeTrained = False,
    level: Annotated[float, typer.Option(help="Probability of the intervals whose coverage is judged.")] = 0.9,
    seed: Annotated[int, typer.Option(help="Seed of the choice of support points.")] = 0,
    figures: Annotated[Path | None, typer.Option(help="Folder for the figures as PNG files.")] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            help="Judge the method by all tasks of TABLE, in so many parts of which each is held out in its turn and "
            "predicted by a model that is trained without it; 0 judges MODEL itself, by tasks that it was not trained "
            "on. By default 5 where TABLE has tasks of the training and no more than 50 tasks, and else 0."
        ),
    ] = None,
    device: Device = "cpu",
    sep: Separator = None,
) -> None:
    """Write one HTML page on how a model predicts new tasks: what to conclude and to do, the numbers, the figures.

    A few tasks that were held out tell little. Where there are no more than 50 tasks all of them are judged, each by a
    model that was trained without it, as MODEL was trained (--folds). Beside the model stand one regression for all
    tasks and each task alone, where TABLE has the tasks of the training.
    """
    from bayesmeta.reporting import cross_validated_report
    from bayesmeta.reporting.report import report as report_on
    from bayesmeta.selection import cross_validate, usual_baselines
    from bayesmeta.selection.recommendation import MEANING
    from bayesmeta.table_cells import read_as
    from bayesmeta.table_files import read_table
    from bayesmeta.task_names import texts
    from bayesmeta.tasks.dataset import TaskDataset
    from bayesmeta.tasks.source import PrefixSplit, RandomSplit

    require_outputs({"--output": output}, {"TABLE": table}, {"MODEL": model})
    if figures is not None:
        require_folder(figures)
        require_outputs({"--output": output}, {"--figures": figures})
    learner, schema, extra = load_model(model, device)
    counts, read = counts_of(shots), read_table(table, sep)
    method, surprise, trained = extra.get("method", learner.title), surprise_of(learner, extra), ""
    split = PrefixSplit if forecast else RandomSplit
    facts = [("Model", f"{model.resolve().name}, method {method}"), ("Table", table.name)]
    title, said = f"{method} on {table.stem}", extra.get("said", [])
    known = set(extra.get("trained_on", []))
    if folds is None:
        few = is_judged_by_all(read, schema, known) and "training" in extra and not include_trained
        folds = FOLDS if few else 0
    if folds:
        everything = TaskDataset.from_schema(cells(read, schema), schema)
        factory, steps = retraining(extra, schema, everything)
        found = cross_validate(
            {method: factory},
            everything,
            counts,
            folds,
            baselines=usual_baselines(min(steps, 2_000)),
            query=MOST_PREDICTED,
            split=split,
            level=level,
            seed=seed,
            progress=None,
        )
        made = cross_validated_report(found, method, surprise=surprise, training=said, title=title, facts=facts)
    else:
        tasks, trained = tasks_to_score(read, schema, extra, include_trained)
        everything = TaskDataset.from_schema(read_as(read, schema), schema)
        train = [i for i, text in enumerate(texts(everything.names)) if text in known]
        steps = min(extra.get("training", {}).get("steps", 2_000), 2_000)
        baselines = {}
        if len(train) >= FEWEST and not include_trained:
            of_training = everything.select(train)
            baselines = {MEANING[name]: make(of_training) for name, make in usual_baselines(steps).items()}
        made = report_on(
            learner,
            tasks,
            counts,
            split=split,
            level=level,
            seed=seed,
            baselines=baselines,
            surprise=surprise,
            trained_on=known,
            training=said,
            title=title,
            facts=facts,
        )
    made.write(output, figures)
    say = speaker(output)
    say(str(made))
    if trained:
        say(trained)
    say(f"report written to {output}" + ("" if figures is None else f", figures to {figures}"))


def is_judged_by_all(read: "Table", schema: "Schema", known: set[str]) -> bool:
    """Whether a table has tasks of the training, and so few tasks that a share of them would tell little.

    Args:
        read: the table.
        schema: what its columns are.
        known: names of the tasks of the training.
    """
    from bayesmeta.task_names import texts

    names = set(texts(read.frame[schema.task].unique())) if schema.task in read.frame else set()
    return bool(names & known) and len(names) <= MOST
