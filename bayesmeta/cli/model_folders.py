"""Model folders as commands write and read them: a learner, the columns of its table, and what tasks it has seen."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from bayesmeta.cli.speaking import warn
from bayesmeta.cli.tables import cells
from bayesmeta.errors import BayesMetaError, DataError

if TYPE_CHECKING:
    from bayesmeta.checks.surprise import Surprise
    from bayesmeta.learner import Learner
    from bayesmeta.table_files import Table
    from bayesmeta.tasks.dataset import TaskDataset
    from bayesmeta.tasks.table import Schema


def load_model(model: Path) -> "tuple[Learner, Schema, dict[str, Any]]":
    """The learner of a folder, the columns of its table, and all that was kept with it.

    Raises:
        DataError: there is no such folder, it is damaged, or its learner was not fitted to a table.
    """
    from bayesmeta.tasks.table import Schema
    from bayesmeta.training.checkpoint import load_with_extra

    learner, extra = load_with_extra(model)
    if "schema" not in extra:
        raise DataError(f"expected a model that was fitted to a table, got one without a schema in {model}")
    return learner, Schema.from_json(extra["schema"]), extra


def save_model(
    learner: "Learner",
    output: Path,
    schema: "Schema",
    method: str,
    train: "TaskDataset",
    tasks: "TaskDataset",
    held_out: "TaskDataset | None",
    seed: int,
) -> None:
    """Write a model folder, with what predict and evaluate want to know.

    Args:
        learner: trained.
        output: the folder.
        schema: what the columns of its table are.
        method: as the command line calls it.
        train: the tasks of the training.
        tasks: all tasks.
        held_out: those that were left for evaluate; None for none.
        seed: of the tasks that new ones will be compared with.
    """
    from bayesmeta.task_names import texts
    from bayesmeta.training.checkpoint import save
    from bayesmeta.unlike_tasks import reference_tasks

    extra = {"schema": schema.to_json(), "method": method, "trained_on": texts(train.names)}
    try:
        found = learner.summary(train).with_facts([("method", method)])
        extra |= {"summary": found.to_json()}
    except BayesMetaError as error:  # the model is worth keeping without it
        warn(f"summary will say less: {error}")
    try:
        calibrated = reference_tasks(learner, tasks, held_out, seed)
    except BayesMetaError as error:  # the model is worth keeping without it
        calibrated = None
        warn(f"predict will not warn of tasks unlike those of the training: {error}")
    save(learner, output, extra if calibrated is None else extra | {"surprise": calibrated.to_json()})


def say_model(output: Path, table: Path, held_out: "TaskDataset | None") -> None:
    """Where a model is, and what to do with the tasks that were held out."""
    if held_out is not None:
        typer.echo(f"{len(held_out)} tasks were held out: bayesmeta evaluate {output} {table}")
    typer.echo(f"model written to {output}")


def surprise_of(learner: "Learner", extra: dict[str, Any]) -> "Surprise | None":
    """What new tasks are compared with; None where the model was trained on too few."""
    from bayesmeta.checks.surprise import Surprise

    return Surprise.from_json(learner, extra["surprise"]) if "surprise" in extra else None


def tasks_to_score(
    table: "Table", schema: "Schema", extra: dict[str, Any], include_trained: bool
) -> "tuple[TaskDataset, str]":
    """The tasks of a table, without those of the training unless they are asked for, and how many these are.

    Args:
        table: as it was read.
        schema: what its columns are.
        extra: what was kept with the model.
        include_trained: keep tasks of the training, too.

    Raises:
        DataError: all tasks are of the training.
    """
    from bayesmeta.task_names import look_alikes, texts
    from bayesmeta.tasks.dataset import TaskDataset

    tasks = TaskDataset.from_schema(cells(table, schema), schema)
    trained = set(extra.get("trained_on", []))
    fresh = [i for i, text in enumerate(texts(tasks.names)) if text not in trained]
    alike = look_alikes([tasks.names[i] for i in fresh], sorted(trained - set(texts(tasks.names))))
    if alike:
        pairs = ", ".join(f"{ours!r} and {other!r}" for ours, other in alike[:3])
        warn(
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
