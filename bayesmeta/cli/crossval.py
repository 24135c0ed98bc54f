"""`bayesmeta crossval`."""

from pathlib import Path
from typing import Annotated

import typer

from bayesmeta.cli.options import (
    MOST_JUDGED,
    MOST_PREDICTED,
    Categorical,
    Covariate,
    Device,
    Forecast,
    LearningRate,
    Level,
    Outcome,
    Random,
    Recalibrate,
    Seed,
    Separator,
    Shots,
    Steps,
    TableFile,
    Task,
    Validation,
    X,
    Y,
    Yerr,
    counts_of,
    device_of,
    given,
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
    covariate: Covariate = None,
    random: Random = None,
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
    level: Level = 0.9,
    validation: Validation = None,
    recalibrate: Recalibrate = 0.0,
    steps: Steps = 5_000,
    lr: LearningRate = None,
    device: Device = "cpu",
    seed: Seed = 0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Table file for all scores.")] = None,
    report: Annotated[Path | None, typer.Option(help="HTML file for a report on the method to take.")] = None,
    sep: Separator = None,
) -> None:
    """Compare methods by all tasks of a table, each judged once by models that did not see it, and say which to take.

    Beside them stand one regression for all tasks (pooled) and each task alone. Differences are paired: the same tasks,
    known points and predicted points for all, at most 50 of a task. Of more than 500 tasks so many are drawn at random
    to be judged. Columns and training are as for fit.
    """
    require_outputs({"--output": output, "--report": report}, {"TABLE": table}, {})
    names, counts = names_of(methods, "--methods"), counts_of(shots)
    from bayesmeta.corrections import correcting
    from bayesmeta.recipes import recipe, require_uses, usual
    from bayesmeta.reporting import cross_validated_report
    from bayesmeta.selection import cross_validate, usual_baselines
    from bayesmeta.separate_outcomes import for_tasks
    from bayesmeta.table_account import account, effects
    from bayesmeta.tasks.dataset import TaskDataset
    from bayesmeta.tasks.source import PrefixSplit, RandomSplit
    from bayesmeta.trainers import Training

    asked = given(lr=lr, validation=validation)
    training = Training(steps=steps, seed=seed, progress=False, device=device_of(device), **asked)
    schema, frame = training_table(table, sep, task, x, y, covariate, categorical, yerr, outcome, random)
    kind = schema.outcome_kind
    names = names or usual(kind)
    for name in names:
        require_uses(name, kind, asked)
    tasks = TaskDataset.from_schema(frame, schema)
    learners = {name: for_tasks(recipe(name, kind), tasks).factory(schema, training) for name in names}
    if recalibrate:
        learners = {name: correcting(factory, recalibrate, schema, seed) for name, factory in learners.items()}
    say = speaker(output)
    linear = any(recipe(name, kind).with_covariates is not None for name in names)
    for line in (*account(frame, schema), *effects(schema, linear)):
        say(line)
    found = cross_validate(
        learners,
        tasks,
        counts,
        folds,
        baselines=usual_baselines(min(steps, 2_000)),
        query=MOST_PREDICTED,
        most=MOST_JUDGED,
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
        judged = found.recommendation.name or names[0]
        title, facts = f"{judged} on {table.stem}", [("Table", table.name), ("Method", judged)]
        cross_validated_report(found, judged, title=title, facts=facts).write(report)
        say(f"report on {judged} written to {report}")
