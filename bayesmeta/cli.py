"""The command line: fit, search, predict, evaluate and report on table files, without writing Python."""

import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bayesmeta.arguments import seed_of
from bayesmeta.checks.surprise import Surprise
from bayesmeta.errors import BayesMetaError, DataError
from bayesmeta.evaluation.evaluate import evaluate as evaluate_learner
from bayesmeta.frames import Matching, describe_tasks, predictions, require_free, result_columns
from bayesmeta.learner import Learner
from bayesmeta.networks.network import Network
from bayesmeta.outcomes import Labels, Numbers, Outcomes
from bayesmeta.outputs import is_standard, require_folder, require_outputs, write_table
from bayesmeta.recipes import network_recipe, network_recipes, recipe, recipes
from bayesmeta.reporting.report import report as report_on
from bayesmeta.table_account import account, purposes
from bayesmeta.table_cells import MISSING, decimal_commas, number_columns, read_as, read_cells
from bayesmeta.table_files import Table, read_table
from bayesmeta.task_names import look_alikes, texts
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.source import PrefixSplit, RandomSplit
from bayesmeta.tasks.table import Schema
from bayesmeta.trainers import Training
from bayesmeta.training.architectures.budgets import Steps
from bayesmeta.training.architectures.search import ArchitectureSearch
from bayesmeta.training.architectures.spaces import DenseSpace
from bayesmeta.training.checkpoint import load_with_extra, require_savable, save
from bayesmeta.unlike_tasks import reference_tasks, unlike
from bayesmeta.wrappers.stacked import Stacked

if TYPE_CHECKING:
    import pandas as pd

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help=(
        "Few-shot learning with uncertainty that can be trusted, of numbers and of classes. Tables are CSV or parquet "
        "files, one row a point; "
        "names of tasks and categories are read as they are written."
    ),
)

TableFile = Annotated[Path, typer.Argument(metavar="TABLE", help="Table file, one row a point.")]
Task = Annotated[str, typer.Option(help="Column with the task's name.")]
Y = Annotated[list[str], typer.Option(help="Outcome column; repeat for several.")]
X = Annotated[list[str] | None, typer.Option(help="Input column; repeat for several.")]
Categorical = Annotated[
    list[str] | None, typer.Option(help="Input column of categories, whatever its cells look like.")
]
Yerr = Annotated[
    list[str] | None, typer.Option(help="Column of the outcome's known standard deviation; one for each outcome.")
]
Holdout = Annotated[float, typer.Option(help="Share of the tasks to leave for evaluate.")]
Separator = Annotated[str | None, typer.Option(help="Between cells: a character, tab or space; found out by default.")]
Shots = Annotated[str, typer.Option(help="Numbers of support points, separated by commas.")]
Outcome = Annotated[str | None, typer.Option(help="What the outcome is: classes, or numbers; found out by default.")]
Forecast = Annotated[bool, typer.Option(help="Support is the beginning of a task, query what follows.")]
IncludeTrained = Annotated[bool, typer.Option(help="Score tasks of the training, too.")]
Model = Annotated[Path, typer.Argument(help="Model folder, as written by fit.")]


def main() -> None:
    """Entry point: errors and warnings of bayesmeta become one line on standard error; an error is exit status 2."""
    with warnings.catch_warnings():
        warnings.showwarning = _show
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

    require_folder(output)
    run(output, steps)


@app.command()
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
        str | None, typer.Option(help="See `bayesmeta methods`; stack for numbers and maml for classes by default.")
    ] = None,
    holdout: Holdout = 0.0,
    steps: Annotated[int, typer.Option(help="Gradient steps.")] = 5_000,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    sep: Separator = None,
) -> None:
    """Learn a prior from the tasks of a table, and say what was made of its columns.

    Columns of text become categories. Dates are refused: convert them to numbers, such as days since a start. An
    outcome of text is predicted as classes, one of numbers as numbers, unless --outcome says otherwise. With --yerr,
    rows count by how precise they are; predict and evaluate read the column, too, of rows that have an outcome.
    """
    import torch

    schema, frame = _training_table(table, sep, task, x, y, covariate, categorical, yerr, outcome)
    method = next(iter(recipes(schema.outcome_kind))) if method is None else method
    chosen = recipe(method, schema.outcome_kind)
    tasks = TaskDataset.from_schema(frame, schema)
    train, held_out = tasks.split(holdout, seed) if holdout else (tasks, None)
    torch.manual_seed(seed_of(seed))
    learner = chosen.for_table(schema)
    require_savable(learner, output)  # before the training rather than after it
    training = Training(steps=steps, seed=seed)
    taken = [name for name in (task, *schema.x, *schema.covariates) if name in result_columns(schema)]
    _warn(f"predict will refuse the column {taken[0]!r}: a result is called so. Rename it" if taken else "")
    for line in (*account(frame, schema), purposes(train, chosen.train.purposes(train, training), held_out)):
        typer.echo(line)
    trained = chosen.train(learner, train, training)
    _save(trained.learner, output, schema, method, train, tasks, held_out, seed)
    typer.echo(f"{method} on {train!r}: {trained.account}")
    _say_model(output, table, held_out)
    rows = trained.learner.kept_rows
    if rows:
        typer.echo(f"the model folder holds {rows:,} rows of the training table: share it as you would share the table")


@app.command()
def search(
    table: TableFile,
    task: Task,
    y: Y,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="File of trials to write, a line of JSON each; one there is gone on with."),
    ],
    x: X = None,
    categorical: Categorical = None,
    outcome: Outcome = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="A method that takes any network, of `bayesmeta methods`; alpaca or, for classes, maml by default."
        ),
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Model folder for the average of the networks found.")] = None,
    layers: Annotated[int, typer.Option(help="Largest number of hidden layers.")] = 3,
    widths: Annotated[str, typer.Option(help="Widths of layers, separated by commas.")] = "10,20,40,80",
    activations: Annotated[str, typer.Option(help="tanh, relu, silu, gelu, separated by commas.")] = "tanh,relu",
    steps: Annotated[
        str, typer.Option(help="Gradient steps of a trial: a few for all networks, more for the best of them.")
    ] = "200,600,1800",
    candidates: Annotated[int, typer.Option(help="Networks to try for each number of layers but one.")] = 8,
    validation: Annotated[float, typer.Option(help="Share of the tasks that networks are scored on.")] = 0.25,
    holdout: Holdout = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    sep: Separator = None,
) -> None:
    """Look for the network with which a method predicts tasks best that it was not trained on.

    It starts with one layer and adds one to the best, round by round; a Gaussian process over networks says which are
    worth a trial. A search that was stopped goes on where it was when it is run again. The report says which
    differences are within noise.
    """
    require_outputs({"--output": output}, {"TABLE": table}, {} if model is None else {"--model": model})
    counts, sizes = _whole_numbers(steps, "--steps 100,300"), _whole_numbers(widths, "--widths 20,40")
    schema, frame = _training_table(table, sep, task, x, y, None, categorical, None, outcome)
    name = next(iter(network_recipes(schema.outcome_kind))) if method is None else method
    chosen = network_recipe(name, schema.outcome_kind)
    tasks = TaskDataset.from_schema(frame, schema)
    kept, held_out = tasks.split(holdout, seed) if holdout else (tasks, None)
    train, judged = kept.split(validation, seed)
    space = DenseSpace(len(schema.x_names), range(1, layers + 1), sizes, activations.split(","))
    outputs = len(schema.classes) or len(schema.y)

    def make(network: Network) -> Learner:
        return chosen.on_network(network, outputs)

    if model is not None:
        require_savable(Stacked({"a": make(space.network(space.all()[0]))}, {"a": 1.0}), model)
    typer.echo(f"{len(train)} tasks to train on, {len(judged)} to score networks on, {len(space.all())} networks")
    found = ArchitectureSearch(
        space, make, Steps(tuple(counts)), candidates=candidates, objective=chosen.train.objective, seed=seed
    ).run(train, judged, output, progress=sys.stderr.isatty())
    typer.echo(str(found))
    typer.echo(f"{len(found.trials)} trials written to {output}")
    if model is not None:
        _save(found.averaged(), model, schema, name, kept, tasks, held_out, seed)
        _say_model(model, table, held_out)


@app.command()
def predict(
    model: Model,
    context: Annotated[Path, typer.Argument(help="Table with the points that are known, outcomes included.")],
    query: Annotated[Path, typer.Argument(help="Table with the points to predict; outcomes are not needed.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Table file to write.")],
    level: Annotated[float, typer.Option(help="Probability of (lower, upper), or least of likely.")] = 0.9,
    tasks: Annotated[Path | None, typer.Option(help="Table file for one row a task: p-value, shrinkage.")] = None,
    sep: Separator = None,
) -> None:
    """Predict the rows of QUERY from what CONTEXT says about their tasks; without any, from the prior.

    Writes QUERY, every cell as it was and separated in the same way, with the columns mean, sd, lower, upper (and the
    outcome's name in front when there are several); or, of an outcome of classes, predicted (the most probable class),
    likely (the fewest that have a probability of --level together), and p_NAME of each class. It warns of tasks whose
    context is unlike the tasks that were learned from. Predictions are the same with a warning. Names of tasks are
    compared as they are written.
    """
    outputs = {"--output": output, "--tasks": tasks}
    require_outputs(outputs, {"CONTEXT": context, "QUERY": query}, {"MODEL": model})
    learner, schema, extra = _load(model)
    known, asked = read_table(context, sep, header_only=True), read_table(query, sep)
    require_free(asked.frame.columns, result_columns(schema))
    if tasks is not None:
        require_free([schema.task], ["points", "p_value", "smallest_p_value", "shrinkage"])
    points, wanted = _cells(known, schema), _cells(asked, schema, outcomes=False)
    matching = Matching.of(schema, points, wanted)
    predicted = asked.frame.assign(**predictions(learner, schema, points, wanted, level))
    described = describe_tasks(learner, schema, points, wanted, _surprise(learner, extra))
    written = (asked.separator or ",", decimal_commas(asked, number_columns(schema, outcomes=False)))
    write_table(predicted, output, *written)
    if tasks is not None:
        write_table(described.reset_index(), tasks, *written)
    _warn(matching.warning)
    _warn(unlike(described.index, described["points"], described["p_value"], described["smallest_p_value"]))
    say = _speaker(*outputs.values())
    say(str(matching))
    say(f"{len(predicted)} rows of {matching.tasks} tasks written to {output}")


@app.command()
def evaluate(
    model: Model,
    table: TableFile,
    shots: Shots = "0,1,2,5,10",
    forecast: Forecast = False,
    include_trained: IncludeTrained = False,
    level: Annotated[float, typer.Option(help="Probability of the interval whose coverage is reported.")] = 0.9,
    seed: Annotated[int, typer.Option(help="Seed of the choice of support points.")] = 0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Table file for all scores.")] = None,
    sep: Separator = None,
) -> None:
    """Score a model on tasks it was not trained on, by number of support points."""
    require_outputs({"--output": output}, {"TABLE": table}, {"MODEL": model})
    learner, schema, extra = _load(model)
    counts, (tasks, trained) = _counts(shots), _tasks(read_table(table, sep), schema, extra, include_trained)
    result = evaluate_learner(
        learner, tasks, counts, split=PrefixSplit if forecast else RandomSplit, level=level, seed=seed
    )
    surprise = _surprise(learner, extra)
    if surprise is not None:
        _warn(unlike(tasks.names, tasks.counts, *surprise.judged(tasks)))
    say = _speaker(output)
    say(str(result))
    if trained:
        say(trained)
    if output is not None:
        write_table(result.table().reset_index(), output)
        say(f"table written to {output}")


@app.command()
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
    sep: Separator = None,
) -> None:
    """Score a model as evaluate does, and write one HTML page: what to conclude, the numbers, the figures."""
    require_outputs({"--output": output}, {"TABLE": table}, {"MODEL": model})
    if figures is not None:
        require_folder(figures)
        require_outputs({"--output": output}, {"--figures": figures})
    learner, schema, extra = _load(model)
    counts, (tasks, trained) = _counts(shots), _tasks(read_table(table, sep), schema, extra, include_trained)
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
    say = _speaker(output)
    say(str(made))
    if trained:
        say(trained)
    say(f"report written to {output}" + ("" if figures is None else f", figures to {figures}"))


@app.command()
def methods(outcome: Outcome = None) -> None:
    """List the methods that fit offers, for numbers or with --outcome classes; the first is the default."""
    offered = recipes(_asked(outcome, 1) or Numbers())
    width = max(map(len, offered))
    for name, each in offered.items():
        typer.echo(f"{name:<{width}}  {each.summary}")


def _asked(outcome: str | None, count: int) -> Outcomes | None:
    """What a user says that outcomes are."""
    kinds: dict[str | None, Outcomes | None] = {None: None, "numbers": Numbers(count), "classes": Labels()}
    if outcome not in kinds:
        raise DataError(f"expected --outcome classes or --outcome numbers, got {outcome!r}")
    return kinds[outcome]


def _training_table(
    table: Path,
    sep: str | None,
    task: str,
    x: list[str] | None,
    y: list[str],
    covariate: list[str] | None,
    categorical: list[str] | None,
    yerr: list[str] | None,
    outcome: str | None,
) -> "tuple[Schema, pd.DataFrame]":
    """What the columns of a table to learn from are, and its cells; what is unusual in the file is said."""
    asked = _asked(outcome, len(y))
    read = read_table(table, sep)
    covariates, categories = covariate or [], categorical or []
    inputs = [*(x or []), *(name for name in categories if name not in {*(x or []), *covariates})]
    unknown = [name for name in (*inputs, *covariates) if name not in categories]
    numbers = y if len(y) > 1 or isinstance(asked, Numbers) or yerr else []
    classes = y if isinstance(asked, Labels) else []
    either = [] if numbers or classes else y
    deviations = yerr or []
    frame = read_cells(read, task, [*numbers, *deviations], unknown, categories, classes, either)
    _note(read, decimal_commas(read, [*numbers, *deviations, *either, *unknown]))
    schema = Schema.of(frame, task, inputs, y, covariates, asked, yerr=deviations)
    _warn(_missing_class(schema))
    return schema, frame


def _save(
    learner: Learner,
    output: Path,
    schema: Schema,
    method: str,
    train: TaskDataset,
    tasks: TaskDataset,
    held_out: TaskDataset | None,
    seed: int,
) -> None:
    """Write a model folder, with what predict and evaluate want to know."""
    extra = {"schema": schema.to_json(), "method": method, "trained_on": texts(train.names)}
    try:
        calibrated = reference_tasks(learner, tasks, held_out, seed)
    except BayesMetaError as error:  # the model is worth keeping without it
        calibrated = None
        typer.echo(f"warning: predict will not warn of tasks unlike those of the training: {error}", err=True)
    save(learner, output, extra if calibrated is None else extra | {"surprise": calibrated.to_json()})


def _say_model(output: Path, table: Path, held_out: TaskDataset | None) -> None:
    """Where a model is, and what to do with the tasks that were held out."""
    if held_out is not None:
        typer.echo(f"{len(held_out)} tasks were held out: bayesmeta evaluate {output} {table}")
    typer.echo(f"model written to {output}")


def _missing_class(schema: Schema) -> str:
    """What is probably wrong where a class is called like a missing number; empty where none is."""
    word = next((name for name in schema.classes if name in MISSING and name.lower() != "none"), None)
    if word is None:
        return ""
    return f"{word!r} is a class of column {schema.y[0]!r}: where it means that none is known, leave the cell empty"


def _counts(shots: str) -> list[int]:
    return _whole_numbers(shots, "numbers of support points like 0,1,3")


def _whole_numbers(text: str, expected: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise DataError(f"expected {expected}, got {text!r}") from error


def _tasks(table: Table, schema: Schema, extra: dict[str, Any], include_trained: bool) -> tuple[TaskDataset, str]:
    """The tasks of a table, without those of the training unless they are asked for, and how many these are."""
    tasks = TaskDataset.from_schema(_cells(table, schema), schema)
    trained = set(extra.get("trained_on", []))
    fresh = [i for i, text in enumerate(texts(tasks.names)) if text not in trained]
    alike = look_alikes([tasks.names[i] for i in fresh], sorted(trained - set(texts(tasks.names))))
    if alike:
        pairs = ", ".join(f"{ours!r} and {other!r}" for ours, other in alike[:3])
        _warn(
            f"{len(alike)} of {len(tasks)} tasks may be of the training; names are compared as they are written, and "
            f"perhaps these are one: {pairs}"
        )
    seen = len(tasks) - len(fresh)
    if include_trained or not seen:
        return tasks, f"{seen} of the {len(tasks)} tasks are of the training" if seen else ""
    if not fresh:
        raise DataError(
            f"expected tasks that the model was not trained on, got {len(tasks)} that it was: "
            "fit with --holdout, give another table, or pass --include-trained"
        )
    return tasks.select(fresh), f"{seen} of the {len(tasks)} tasks are of the training and left out"


def _cells(table: Table, schema: Schema, outcomes: bool = True) -> "pd.DataFrame":
    """The cells of a table as a schema says; what is unusual in the file is said."""
    frame = read_as(table, schema, outcomes)
    _note(table, decimal_commas(table, number_columns(schema, outcomes)))
    return frame


def _note(table: Table, commas: bool) -> None:
    """Say how a file was read, where it is not the plain case."""
    for note in (*table.notes, *(["numbers have decimal commas"] if commas else ())):
        typer.echo(f"note: in {table.name}, {note}", err=True)


def _warn(warning: str) -> None:
    """Say what is probably wrong, if anything is."""
    if warning:
        typer.echo(f"warning: {warning}", err=True)


def _show(message: Warning | str, *_: object, **__: object) -> None:
    """Warnings of the library, without the line of code that gave them."""
    _warn(str(message))


def _speaker(*outputs: Path | None) -> Callable[[str], None]:
    """Where sentences go: to standard error when a table goes to standard output."""
    return partial(typer.echo, err=any(is_standard(path) for path in outputs if path is not None))


def _surprise(learner: Learner, extra: dict[str, Any]) -> Surprise | None:
    return Surprise.from_json(learner, extra["surprise"]) if "surprise" in extra else None


def _load(model: Path) -> tuple[Learner, Schema, dict[str, Any]]:
    learner, extra = load_with_extra(model)
    if "schema" not in extra:
        raise DataError(f"expected a model that was fitted to a table, got one without a schema in {model}")
    return learner, Schema.from_json(extra["schema"]), extra
