"""`bayesmeta fit`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from bayesmeta.cli.configuration import Config, options_of
from bayesmeta.cli.model_folders import require_new_model, save_model, say_model
from bayesmeta.cli.options import (
    Categorical,
    Checkpoint,
    Covariate,
    Device,
    Every,
    Holdout,
    LearningRate,
    Outcome,
    Random,
    Recalibrate,
    Resume,
    Seed,
    Separator,
    Steps,
    TableFile,
    Task,
    Validation,
    X,
    Y,
    Yerr,
    device_of,
    given,
)
from bayesmeta.cli.speaking import warn
from bayesmeta.cli.tables import SAMPLE, training_table
from bayesmeta.errors import DataError
from bayesmeta.outputs import write


def fit(
    context: typer.Context,
    table: TableFile,
    task: Task,
    y: Y,
    output: Annotated[Path, typer.Option("--output", "-o", help="Model folder to write.")],
    x: X = None,
    covariate: Covariate = None,
    random: Random = None,
    categorical: Categorical = None,
    yerr: Yerr = None,
    outcome: Outcome = None,
    method: Annotated[
        str | None,
        typer.Option(help="See `bayesmeta methods`; by default stack for numbers, and glmm for counts and classes."),
    ] = None,
    holdout: Holdout = 0.0,
    validation: Validation = None,
    recalibrate: Recalibrate = 0.0,
    steps: Steps = 5_000,
    lr: LearningRate = None,
    device: Device = "cpu",
    seed: Seed = 0,
    sep: Separator = None,
    sample: Annotated[
        int, typer.Option(help="Tasks that are drawn from a large parquet TABLE (a folder, or over 2 million rows).")
    ] = SAMPLE,
    checkpoint: Checkpoint = None,
    every: Every = None,
    resume: Resume = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a model that is there already.")] = False,
    config: Config = None,
) -> None:
    """Learn a prior from the tasks of a table, and say what was made of its columns and where the model stands.

    Columns of text become categories. Dates are refused: convert them to numbers, such as days since a start. An
    outcome of text is predicted as classes, one of numbers as numbers, unless --outcome says otherwise: positive (its
    logarithm is learned), count, binary (the probability of the second of two classes). With --yerr, rows count by how
    precise they are; predict and evaluate read the column, too, of rows that have an outcome.

    TABLE may be a parquet file or a folder of them of any size, whose rows of a task stand one after another. From two
    million rows on, and of a folder always, --sample tasks are drawn at random: a prior is learned from some thousand
    tasks. (In Python, bm.fit learns from all of a bm.tasks.ParquetTasks.)

    The model folder holds all options that were used: fit --config MODEL/options.toml -o OTHER repeats the run.

    A training that takes hours is worth a --checkpoint: the same command with --resume auto goes on where it was
    stopped, and ends with the model that it would have ended with.
    """
    require_new_model(output, force)
    import torch

    from bayesmeta.arguments import seed_of
    from bayesmeta.corrections import corrected, require_correctable
    from bayesmeta.frames import result_columns
    from bayesmeta.recipes import recipe, recipes, require_uses
    from bayesmeta.separate_outcomes import for_tasks
    from bayesmeta.standing import standing
    from bayesmeta.table_account import account, effects, purposes
    from bayesmeta.tasks.dataset import TaskDataset
    from bayesmeta.trainers import Training
    from bayesmeta.training.checkpoint import require_savable
    from bayesmeta.training.runs.signals import Stopped

    asked = given(lr=lr, validation=validation)
    kept_in: dict[str, Any] = {"checkpoint": checkpoint, "every": every, "resume": resume}
    training = Training(steps=steps, seed=seed, device=device_of(device), **kept_in, **asked)
    schema, frame = training_table(table, sep, task, x, y, covariate, categorical, yerr, outcome, random, sample, seed)
    method = next(iter(recipes(schema.outcome_kind))) if method is None else method
    require_uses(method, schema.outcome_kind, asked)
    tasks = TaskDataset.from_schema(frame, schema)
    chosen = for_tasks(recipe(method, schema.outcome_kind), tasks)
    if not 0.0 <= recalibrate < 1.0 - holdout:
        raise DataError(f"expected --holdout and --recalibrate below 1 together, got {holdout:g} and {recalibrate:g}")
    kept, held_out = tasks.split(holdout, seed) if holdout else (tasks, None)
    train, correcting = kept.split(recalibrate / (1.0 - holdout), seed) if recalibrate else (kept, None)
    if correcting is not None:
        require_correctable(correcting, schema)
    torch.manual_seed(seed_of(seed))
    learner = chosen.for_table(schema, len(train))
    require_savable(learner, output)  # before the training rather than after it
    taken = [name for name in (task, *schema.x, *schema.covariates) if name in result_columns(schema)]
    warn(f"predict will refuse the column {taken[0]!r}: a result is called so. Rename it" if taken else "")
    lines = [*account(frame, schema), *effects(schema, chosen.with_covariates is not None)]
    purpose = purposes(train, chosen.train.purposes(train, training), held_out, correcting)
    for line in (*lines, purpose):
        typer.echo(line)
    try:
        trained = chosen.train(learner, train, training)
    except Stopped:
        typer.echo(f"stopped: the run is in {checkpoint}, and goes on with --resume auto", err=True)
        raise typer.Exit(130) from None
    learner, found = trained.learner, [f"{method} on {train!r}: {trained.account}"]
    if correcting is not None:
        learner, said = corrected(learner, correcting, schema, seed)
        found.append(f"predictions: {said}")
    found += [line for line in (*standing(trained.learner, train, schema, seed), trained.convergence) if line]
    how = {"training": {"steps": steps, "seed": seed, **asked}, "recalibrate": recalibrate, "said": [purpose, *found]}
    save_model(learner, output, schema, method, train, tasks, held_out, seed, correcting, how)
    write(output / "options.toml", options_of(context, method=method).encode())
    for line in found:
        typer.echo(line)
    say_model(output, table, held_out)
    rows = learner.kept_rows
    if rows:
        typer.echo(f"the model folder holds {rows:,} rows of the training table: share it as you would share the table")
