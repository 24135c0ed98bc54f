"""`bayesmeta crossval`."""

from pathlib import Path
from typing import Annotated

import typer

from bayesmeta.cli.options import (
    Categorical,
    Forecast,
    Outcome,
    Seed,
    Separator,
    Shots,
    TableFile,
    Task,
    X,
    Y,
    Yerr,
    counts_of,
    names_of,
)
from bayesmeta.cli.speaking import speaker
from bayesmeta.cli.tables import training_table
from bayesmeta.outputs import require_outputs, write_table


def crossval(
    table: TableFile,
    task: Task,
    y: Y,
    x: X = None,
    covariate: Annotated[list[str] | None, typer.Option(help="Input column that is constant within a task.")] = None,
    categorical: Categorical = None,
    yerr: Yerr = None,
    outcome: Outcome = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Methods separated by commas, of `bayesmeta methods`; the default and a simple one otherwise."
        ),
    ] = None,
    folds: Annotated[int, typer.Option(help="Parts that the tasks are divided into, each held out in its turn.")] = 5,
    shots: Shots = "0,1,2,5,10",
    forecast: Forecast = False,
    level: Annotated[float, typer.Option(help="Probability of the interval whose coverage is reported.")] = 0.9,
    steps: Annotated[int, typer.Option(help="Gradient steps.")] = 5_000,
    seed: Seed = 0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Table file for all scores.")] = None,
    report: Annotated[Path | None, typer.Option(help="HTML file for a report on the method to take.")] = None,
    sep: Separator = None,
) -> None:
    """Compare methods by all tasks of a table, each judged once by models that did not see it, and say which to take.

    Beside them stand one regression for all tasks (pooled) and each task alone. Differences are paired: the same tasks,
    known points and predicted points for all. Columns are as for fit, and so are --steps and --seed.
    """
    require_outputs({"--output": output, "--report": report}, {"TABLE": table}, {})
    names, counts = names_of(methods, "--methods"), counts_of(shots)
    from bayesmeta.recipes import recipe, usual
    from bayesmeta.reporting import cross_validated_report
    from bayesmeta.selection import cross_validate, usual_baselines
    from bayesmeta.table_account import account
    from bayesmeta.tasks.dataset import TaskDataset
    from bayesmeta.tasks.source import PrefixSplit, RandomSplit
    from bayesmeta.trainers import Training

    schema, frame = training_table(table, sep, task, x, y, covariate, categorical, yerr, outcome)
    kind, training = schema.outcome_kind, Training(steps=steps, seed=seed, progress=False)
    learners = {name: recipe(name, kind).factory(schema, training) for name in names or usual(kind)}
    tasks = TaskDataset.from_schema(frame, schema)
    say = speaker(output)
    for line in account(frame, schema):
        say(line)
    found = cross_validate(
        learners,
        tasks,
        counts,
        folds,
        baselines=usual_baselines(min(steps, 2_000)),
        split=PrefixSplit if forecast else RandomSplit,
        level=level,
        seed=seed,
        progress=None,
    )
    say(str(found))
    if output is not None:
        write_table(found.table().reset_index(), output)
        say(f"table written to {output}")
    if report is not None:
        judged = found.recommendation.name or next(iter(learners))
        title, facts = f"{judged} on {table.stem}", [("Table", table.name), ("Method", judged)]
        cross_validated_report(found, judged, title=title, facts=facts).write(report)
        say(f"report on {judged} written to {report}")
