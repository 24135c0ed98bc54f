"""The command line: fit, predict and evaluate on CSV tables, without writing Python."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bayesmeta.errors import BayesMetaError, DataError
from bayesmeta.evaluation.evaluate import evaluate as evaluate_learner
from bayesmeta.frames import predict_frame
from bayesmeta.learner import Learner
from bayesmeta.recipes import RECIPES, Training, recipe
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.source import PrefixSplit, RandomSplit
from bayesmeta.tasks.table import Schema
from bayesmeta.training.checkpoint import load_with_extra, require_savable, save

if TYPE_CHECKING:
    import pandas as pd

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Few-shot regression with uncertainty that can be trusted. Tables are CSV files, one row a point.",
)

Table = Annotated[Path, typer.Argument(help="CSV table, one row a point.")]
Model = Annotated[Path, typer.Argument(help="Model folder, as written by fit.")]


def main() -> None:
    """Entry point: errors of bayesmeta become one line on standard error and exit status 2."""
    try:
        app()
    except BayesMetaError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the figure.")] = Path("demo-output"),
    steps: Annotated[int, typer.Option(help="Meta-training steps.")] = 20_000,
) -> None:
    """Meta-train on sinusoids, and compare with the Bayes-optimal predictor. About two minutes."""
    from bayesmeta.demo import run

    run(output, steps)


@app.command()
def fit(
    table: Table,
    task: Annotated[str, typer.Option(help="Column with the task's name.")],
    y: Annotated[list[str], typer.Option(help="Outcome column; repeat for several.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Model folder to write.")],
    x: Annotated[list[str] | None, typer.Option(help="Input column; repeat for several.")] = None,
    covariate: Annotated[list[str] | None, typer.Option(help="Input column that is constant within a task.")] = None,
    method: Annotated[str, typer.Option(help="See `bayesmeta methods`.")] = "alpaca",
    holdout: Annotated[float, typer.Option(help="Share of the tasks to leave for evaluate.")] = 0.0,
    steps: Annotated[int, typer.Option(help="Gradient steps.")] = 5_000,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
) -> None:
    """Learn a prior from the tasks of a table."""
    import torch

    chosen = recipe(method)
    frame = _read(table)
    schema = Schema.of(frame, task, x or [], y, covariate or [])
    tasks = TaskDataset.from_schema(frame, schema)
    train, held_out = tasks.split(holdout, seed) if holdout else (tasks, None)
    torch.manual_seed(seed)
    learner = chosen.build(len(schema.x_names), len(schema.y))
    require_savable(learner, output)  # before the training rather than after it
    result = chosen.train(learner, train, Training(steps=steps, seed=seed))
    extra = {"schema": schema.to_json(), "method": method, "trained_on": [str(name) for name in train.names]}
    save(learner, output, extra)
    typer.echo(f"{method} on {train!r}: {result!r}")
    if held_out is not None:
        typer.echo(f"{len(held_out)} tasks were held out: bayesmeta evaluate {output} {table}")
    typer.echo(f"model written to {output}")


@app.command()
def predict(
    model: Model,
    context: Annotated[Path, typer.Argument(help="CSV table with the points that are known, outcomes included.")],
    query: Annotated[Path, typer.Argument(help="CSV table with the points to predict; outcomes are not needed.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="CSV table to write.")],
    level: Annotated[float, typer.Option(help="Probability of the interval (lower, upper).")] = 0.9,
) -> None:
    """Predict the rows of QUERY from what CONTEXT says about their tasks; without any, from the prior.

    Writes QUERY with the columns mean, sd, lower, upper (and the outcome's name in front when there are several).
    """
    learner, schema, _ = _load(model)
    predicted = predict_frame(learner, schema, _read(context), _read(query), level)
    _write(predicted, output)
    typer.echo(f"{len(predicted)} rows of {predicted[schema.task].nunique()} tasks written to {output}")


@app.command()
def evaluate(
    model: Model,
    table: Table,
    shots: Annotated[str, typer.Option(help="Numbers of support points, separated by commas.")] = "0,1,2,5,10",
    forecast: Annotated[bool, typer.Option(help="Support is the beginning of a task, query what follows.")] = False,
    include_trained: Annotated[bool, typer.Option(help="Score tasks of the training, too.")] = False,
    level: Annotated[float, typer.Option(help="Probability of the interval whose coverage is reported.")] = 0.9,
    seed: Annotated[int, typer.Option(help="Seed of the choice of support points.")] = 0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="CSV file for the whole table.")] = None,
) -> None:
    """Score a model on tasks it was not trained on, by number of support points."""
    learner, schema, extra = _load(model)
    try:
        counts = [int(part) for part in shots.split(",")]
    except ValueError as error:
        raise DataError(f"expected numbers of support points like 0,1,3, got {shots!r}") from error
    tasks = TaskDataset.from_schema(_read(table), schema)
    if not include_trained:
        trained = set(extra.get("trained_on", []))
        fresh = [i for i, name in enumerate(tasks.names) if str(name) not in trained]
        if not fresh:
            raise DataError(
                f"expected tasks that the model was not trained on, got {len(tasks)} that it was: "
                "fit with --holdout, give another table, or pass --include-trained"
            )
        tasks = tasks.select(fresh)
    result = evaluate_learner(
        learner, tasks, counts, split=PrefixSplit if forecast else RandomSplit, level=level, seed=seed
    )
    typer.echo(str(result))
    if output is not None:
        _write(result.table().reset_index(), output)
        typer.echo(f"table written to {output}")


@app.command()
def methods() -> None:
    """List the methods that fit offers."""
    width = max(map(len, RECIPES))
    for name, each in RECIPES.items():
        typer.echo(f"{name:<{width}}  {each.summary}")


def _read(path: Path) -> "pd.DataFrame":
    import pandas as pd

    try:
        frame = pd.read_csv(path)
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise DataError(f"expected a CSV table in {path}, got: {error}") from error
    if len(frame) == 0:
        raise DataError(f"expected at least one row in {path}, got none")
    frame.index = frame.index + 2  # messages name the line of the file
    return frame


def _write(frame: "pd.DataFrame", path: Path) -> None:
    part = path.with_name(path.name + ".new")
    try:
        frame.to_csv(part, index=False)
        os.replace(part, path)
    except OSError as error:
        raise DataError(f"expected a file that can be written, got {path}: {error}") from error


def _load(model: Path) -> tuple[Learner, Schema, dict[str, Any]]:
    learner, extra = load_with_extra(model)
    if "schema" not in extra:
        raise DataError(f"expected a model that was fitted to a table, got one without a schema in {model}")
    return learner, Schema.from_json(extra["schema"]), extra
