"""The command line: fit, predict and evaluate on CSV tables, without writing Python."""

import os
import sys
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bayesmeta.arguments import generator_of, seed_of
from bayesmeta.checks.surprise import FEWEST, Surprise
from bayesmeta.errors import BayesMetaError, DataError
from bayesmeta.evaluation.evaluate import evaluate as evaluate_learner
from bayesmeta.frames import describe_tasks, predict_frame
from bayesmeta.learner import Learner
from bayesmeta.recipes import RECIPES, Training, recipe
from bayesmeta.reporting.report import report as report_on
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.source import PrefixSplit, RandomSplit
from bayesmeta.tasks.table import Schema
from bayesmeta.training.checkpoint import load_with_extra, require_savable, save
from bayesmeta.typing import ArrayLike

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

ALARM = 0.01  # p-value of a task that is named in a warning
REFERENCES = 200  # tasks that others are compared with, at most
REFERENCE_SHOTS = (1, 2, 3, 5, 10, 20)
MOST_NAMED = 10  # in one warning


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
    torch.manual_seed(seed_of(seed))
    learner = chosen.build(len(schema.x_names), len(schema.y))
    require_savable(learner, output)  # before the training rather than after it
    result = chosen.train(learner, train, Training(steps=steps, seed=seed))
    extra = {"schema": schema.to_json(), "method": method, "trained_on": [str(name) for name in train.names]}
    calibrated = _calibrated(learner, tasks, held_out, seed)
    save(learner, output, extra if calibrated is None else extra | {"surprise": calibrated.to_json()})
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
    tasks: Annotated[Path | None, typer.Option(help="CSV file for one row a task: p-value, shrinkage.")] = None,
) -> None:
    """Predict the rows of QUERY from what CONTEXT says about their tasks; without any, from the prior.

    Writes QUERY with the columns mean, sd, lower, upper (and the outcome's name in front when there are several), and
    warns of tasks whose context is unlike the tasks that were learned from. Predictions are the same with a warning.
    """
    learner, schema, extra = _load(model)
    known, asked = _read(context), _read(query)
    predicted = predict_frame(learner, schema, known, asked, level)
    _write(predicted, output)
    described = describe_tasks(learner, schema, known, asked, _surprise(learner, extra))
    if tasks is not None:
        _write(described.reset_index(allow_duplicates=True), tasks)  # the task's column may be called points
    _warn(described.index, described["points"], described["p_value"], described["smallest_p_value"])
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
    counts, tasks = _counts(shots), _tasks(table, schema, extra, include_trained)
    result = evaluate_learner(
        learner, tasks, counts, split=PrefixSplit if forecast else RandomSplit, level=level, seed=seed
    )
    surprise, data = _surprise(learner, extra), tasks.data
    if surprise is not None:
        _warn(tasks.names, data.counts, surprise.p_value(data), surprise.smallest_p_value(data))
    typer.echo(str(result))
    if output is not None:
        _write(result.table().reset_index(), output)
        typer.echo(f"table written to {output}")


@app.command()
def report(
    model: Model,
    table: Table,
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML file to write.")],
    shots: Annotated[str, typer.Option(help="Numbers of support points, separated by commas.")] = "0,1,2,5,10",
    forecast: Annotated[bool, typer.Option(help="Support is the beginning of a task, query what follows.")] = False,
    include_trained: Annotated[bool, typer.Option(help="Score tasks of the training, too.")] = False,
    level: Annotated[float, typer.Option(help="Probability of the intervals whose coverage is judged.")] = 0.9,
    seed: Annotated[int, typer.Option(help="Seed of the choice of support points.")] = 0,
    figures: Annotated[Path | None, typer.Option(help="Folder for the figures as PNG files.")] = None,
) -> None:
    """Score a model as evaluate does, and write one HTML page: what to conclude, the numbers, the figures."""
    learner, schema, extra = _load(model)
    counts, tasks = _counts(shots), _tasks(table, schema, extra, include_trained)
    method = extra.get("method", learner.title)
    made = report_on(
        learner,
        tasks,
        counts,
        split=PrefixSplit if forecast else RandomSplit,
        level=level,
        seed=seed,
        surprise=_surprise(learner, extra),
        trained_on=extra.get("trained_on", []),
        title=f"{method} on {table.stem}",
        facts=[("Model", f"{model.resolve().name}, method {method}"), ("Table", table.name)],
    )
    made.write(output, figures)
    typer.echo(str(made))
    typer.echo(f"report written to {output}" + ("" if figures is None else f", figures to {figures}"))


@app.command()
def methods() -> None:
    """List the methods that fit offers."""
    width = max(map(len, RECIPES))
    for name, each in RECIPES.items():
        typer.echo(f"{name:<{width}}  {each.summary}")


def _counts(shots: str) -> list[int]:
    try:
        return [int(part) for part in shots.split(",")]
    except ValueError as error:
        raise DataError(f"expected numbers of support points like 0,1,3, got {shots!r}") from error


def _tasks(table: Path, schema: Schema, extra: dict[str, Any], include_trained: bool) -> TaskDataset:
    """The tasks of a table, without those of the training unless they are asked for."""
    tasks = TaskDataset.from_schema(_read(table), schema)
    if include_trained:
        return tasks
    trained = set(extra.get("trained_on", []))
    fresh = [i for i, name in enumerate(tasks.names) if str(name) not in trained]
    if not fresh:
        raise DataError(
            f"expected tasks that the model was not trained on, got {len(tasks)} that it was: "
            "fit with --holdout, give another table, or pass --include-trained"
        )
    return tasks.select(fresh)


def _calibrated(learner: Learner, tasks: TaskDataset, held_out: TaskDataset | None, seed: int) -> Surprise | None:
    """What new tasks will be compared with: the held-out tasks, or all where these are too few for the alarm."""
    import torch

    chosen = held_out if held_out is not None and len(held_out) >= 1.0 / ALARM - 1.0 else tasks
    order = torch.randperm(len(chosen), generator=generator_of(seed))[:REFERENCES]
    chosen = chosen.select(sorted(order.tolist()))
    shots = [shot for shot in REFERENCE_SHOTS if int((chosen.data.counts > shot).sum()) >= FEWEST]
    if not shots:
        return None
    try:
        return Surprise.fit(learner, chosen, shots, seed=seed)
    except BayesMetaError as error:  # the model is worth keeping without it
        typer.echo(f"warning: predict will not warn of tasks unlike those of the training: {error}", err=True)
        return None


def _surprise(learner: Learner, extra: dict[str, Any]) -> Surprise | None:
    return Surprise.from_json(learner, extra["surprise"]) if "surprise" in extra else None


def _warn(names: Iterable[Hashable], points: ArrayLike, p_values: ArrayLike, smallest: ArrayLike) -> None:
    """Name the tasks that are unlike the reference tasks: p of at most .01, or of what their number allows."""
    import numpy as np

    names = list(names)
    points, p_values, level = np.asarray(points), np.asarray(p_values), np.maximum(ALARM, np.asarray(smallest))
    unlike = np.flatnonzero((points > 0) & (p_values <= level + 1e-12))
    if not len(unlike):
        return
    ordered = unlike[np.argsort(p_values[unlike], kind="stable")]
    named = ", ".join(f"{str(names[i])!r} (p = {p_values[i]:.2g})" for i in ordered[:MOST_NAMED])
    more = f" and {len(ordered) - MOST_NAMED} more" if len(ordered) > MOST_NAMED else ""
    typer.echo(
        f"warning: {len(unlike)} of {int((points > 0).sum())} tasks are unlike those that were learned from: "
        f"{named}{more}. By chance {float(level[points > 0].sum()):.2g} would be.",
        err=True,
    )


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
