"""`bayesmeta fit`."""

from pathlib import Path
from typing import Annotated

import typer

from bayesmeta.cli.model_folders import save_model, say_model
from bayesmeta.cli.options import Categorical, Holdout, Outcome, Seed, Separator, TableFile, Task, X, Y, Yerr
from bayesmeta.cli.speaking import warn
from bayesmeta.cli.tables import training_table


def fit(
    table: TableFile,
    task: Task,
    y: Y,
    output: Annotated[Path, typer.Option("--output", "-o", help="Model folder to write.")],
    x: X = None,
    covariate: Annotated[
        list[str] | None,
        typer.Option(
            help="Input column that is constant within a task. In linear methods its effect is the same in all tasks; "
            "name it by --x for one that differs."
        ),
    ] = None,
    categorical: Categorical = None,
    yerr: Yerr = None,
    outcome: Outcome = None,
    method: Annotated[
        str | None,
        typer.Option(help="See `bayesmeta methods`; by default stack for numbers, and glmm for counts and classes."),
    ] = None,
    holdout: Holdout = 0.0,
    steps: Annotated[int, typer.Option(help="Gradient steps.")] = 5_000,
    seed: Seed = 0,
    sep: Separator = None,
) -> None:
    """Learn a prior from the tasks of a table, and say what was made of its columns.

    Columns of text become categories. Dates are refused: convert them to numbers, such as days since a start. An
    outcome of text is predicted as classes, one of numbers as numbers, unless --outcome says otherwise: positive (its
    logarithm is learned), count, binary (the probability of the second of two classes). With --yerr, rows count by how precise they are; predict and evaluate read the column, too, of rows that have an outcome.
    """
    import torch

    from bayesmeta.arguments import seed_of
    from bayesmeta.frames import result_columns
    from bayesmeta.recipes import recipe, recipes
    from bayesmeta.table_account import account, purposes
    from bayesmeta.tasks.dataset import TaskDataset
    from bayesmeta.trainers import Training
    from bayesmeta.training.checkpoint import require_savable

    schema, frame = training_table(table, sep, task, x, y, covariate, categorical, yerr, outcome)
    method = next(iter(recipes(schema.outcome_kind))) if method is None else method
    chosen = recipe(method, schema.outcome_kind)
    tasks = TaskDataset.from_schema(frame, schema)
    train, held_out = tasks.split(holdout, seed) if holdout else (tasks, None)
    torch.manual_seed(seed_of(seed))
    learner = chosen.for_table(schema)
    require_savable(learner, output)  # before the training rather than after it
    training = Training(steps=steps, seed=seed)
    taken = [name for name in (task, *schema.x, *schema.covariates) if name in result_columns(schema)]
    warn(f"predict will refuse the column {taken[0]!r}: a result is called so. Rename it" if taken else "")
    for line in (*account(frame, schema), purposes(train, chosen.train.purposes(train, training), held_out)):
        typer.echo(line)
    trained = chosen.train(learner, train, training)
    save_model(trained.learner, output, schema, method, train, tasks, held_out, seed)
    typer.echo(f"{method} on {train!r}: {trained.account}")
    say_model(output, table, held_out)
    rows = trained.learner.kept_rows
    if rows:
        typer.echo(f"the model folder holds {rows:,} rows of the training table: share it as you would share the table")
