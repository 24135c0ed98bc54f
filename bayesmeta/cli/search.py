"""`bayesmeta search`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bayesmeta.cli.model_folders import save_model, say_model
from bayesmeta.cli.options import (
    Categorical,
    Checkpoint,
    Every,
    Holdout,
    Outcome,
    Seed,
    Separator,
    TableFile,
    Task,
    X,
    Y,
    given,
    whole_numbers,
)
from bayesmeta.cli.tables import training_table
from bayesmeta.outputs import require_outputs

if TYPE_CHECKING:
    from bayesmeta.learner import Learner
    from bayesmeta.networks.network import Network


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
    seed: Seed = 0,
    sep: Separator = None,
    checkpoint: Checkpoint = None,
    every: Every = None,
) -> None:
    """Look for the network with which a method predicts tasks best that it was not trained on.

    It starts with one layer and adds one to the best, round by round; a Gaussian process over networks says which are
    worth a trial. A search that was stopped goes on where it was when it is run again: with the trial that it was at
    or, with --checkpoint, in the middle of it. The report says which differences are within noise.
    """
    from bayesmeta.recipes import network_recipe, network_recipes
    from bayesmeta.tasks.dataset import TaskDataset
    from bayesmeta.training.architectures.budgets import Steps
    from bayesmeta.training.architectures.search import ArchitectureSearch
    from bayesmeta.training.architectures.spaces import DenseSpace
    from bayesmeta.training.checkpoint import require_savable
    from bayesmeta.training.runs.signals import Stopped
    from bayesmeta.wrappers.stacked import Stacked

    require_outputs({"--output": output}, {"TABLE": table}, {} if model is None else {"--model": model})
    counts, sizes = whole_numbers(steps, "--steps 100,300"), whole_numbers(widths, "--widths 20,40")
    schema, frame = training_table(table, sep, task, x, y, None, categorical, None, outcome)
    name = next(iter(network_recipes(schema.outcome_kind))) if method is None else method
    chosen = network_recipe(name, schema.outcome_kind)
    tasks = TaskDataset.from_schema(frame, schema)
    kept, held_out = tasks.split(holdout, seed) if holdout else (tasks, None)
    train, judged = kept.split(validation, seed)
    space = DenseSpace(len(schema.x_names), range(1, layers + 1), sizes, activations.split(","))
    outputs = len(schema.classes) or len(schema.y)

    def make(network: "Network") -> "Learner":
        return chosen.on_network(network, outputs)

    if model is not None:
        require_savable(Stacked({"a": make(space.network(space.all()[0]))}, {"a": 1.0}), model)
    typer.echo(f"{len(train)} tasks to train on, {len(judged)} to score networks on, {len(space.all())} networks")
    looking = ArchitectureSearch(
        space, make, Steps(tuple(counts)), candidates=candidates, objective=chosen.train.objective, seed=seed
    )
    shown = sys.stderr.isatty()
    try:
        found = looking.run(train, judged, output, checkpoint=checkpoint, progress=shown, **given(every=every))
    except Stopped:
        typer.echo(f"stopped: the same command goes on in the middle of the trial in {checkpoint}", err=True)
        raise typer.Exit(130) from None
    typer.echo(str(found))
    typer.echo(f"{len(found.trials)} trials written to {output}")
    if model is not None:
        save_model(found.averaged(), model, schema, name, kept, tasks, held_out, seed)
        say_model(model, table, held_out)
