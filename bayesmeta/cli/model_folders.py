"""Model folders as commands write and read them: a learner, the columns of its table, and what tasks it has seen."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from bayesmeta.cli.options import device_of
from bayesmeta.cli.speaking import warn
from bayesmeta.cli.tables import cells
from bayesmeta.errors import BayesMetaError, DataError
from bayesmeta.outputs import require_folder

if TYPE_CHECKING:
    from bayesmeta.checks.surprise import Surprise
    from bayesmeta.learner import Learner
    from bayesmeta.selection.cross_validation import Factory
    from bayesmeta.table_files import Table
    from bayesmeta.tasks.dataset import TaskDataset
    from bayesmeta.tasks.table import Schema

MANIFEST = "model.json"


def load_model(model: Path, device: str = "cpu") -> "tuple[Learner, Schema, dict[str, Any]]":
    """The learner of a folder, the columns of its table, and all that was kept with it.

    Args:
        model: the folder.
        device: where the learner is to compute, as --device says it.

    Raises:
        DataError: there is no such folder, it is damaged, or its learner was not fitted to a table; a device that is
            not there.
    """
    from bayesmeta.tasks.table import Schema
    from bayesmeta.training.checkpoint import load_with_extra

    where = device_of(device)
    learner, extra = load_with_extra(model)
    if "schema" not in extra:
        raise DataError(f"expected a model that was fitted to a table, got one without a schema in {model}")
    return learner.to(where), Schema.from_json(extra["schema"]), extra


def require_new_model(folder: Path, force: bool) -> None:
    """Refuse to write a model where something is that it would replace, or be lost among.

    A folder that is not there, or empty, is written to; a model folder is replaced where that is meant; any other is
    left alone, as its name was probably a slip.

    Args:
        folder: of the model.
        force: whether a model that is there is to be replaced.

    Raises:
        DataError: it is not to be written to.
    """
    require_folder(folder)
    found = sorted(each.name for each in folder.iterdir()) if folder.is_dir() else []
    if MANIFEST in found:
        if not force:
            raise DataError(f"expected a new folder, got the model {folder}: pass --force to replace it")
    elif found:
        raise DataError(
            f"expected a new folder, an empty one or a model, got {folder}, which holds {found[0]!r} and no model"
        )


def save_model(
    learner: "Learner",
    output: Path,
    schema: "Schema",
    method: str,
    train: "TaskDataset",
    tasks: "TaskDataset",
    held_out: "TaskDataset | None",
    seed: int,
    correcting: "TaskDataset | None" = None,
    how: Mapping[str, Any] | None = None,
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
        correcting: tasks that predictions were corrected by; None for none.
        how: how fit has trained it, so that report can tell it and train it again: `training`, `recalibrate`, `said`.
    """
    from bayesmeta.task_names import texts
    from bayesmeta.training.checkpoint import save
    from bayesmeta.unlike_tasks import reference_tasks

    extra = {
        "schema": schema.to_json(),
        "method": method,
        "trained_on": texts([*train.names, *(correcting.names if correcting else ())]),
        **(how or {}),
    }
    try:
        said = (how or {}).get("said", [])
        training = [("" if place else "training", line) for place, line in enumerate(said)]
        extra |= {"summary": learner.summary(train).with_facts([("method", method), *training]).to_json()}
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


def retraining(extra: dict[str, Any], schema: "Schema", tasks: "TaskDataset") -> "tuple[Factory, int]":
    """What trains such a model anew on tasks, as fit has trained it, and by how many steps.

    Args:
        extra: what was kept with the model.
        schema: of its table.
        tasks: that it will be trained on some of.

    Raises:
        DataError: the model is not one that fit has made.
    """
    from bayesmeta.corrections import correcting
    from bayesmeta.recipes import recipe
    from bayesmeta.separate_outcomes import for_tasks
    from bayesmeta.trainers import Training

    if "training" not in extra:
        raise DataError(
            "expected a model that fit has made, to train it again, got one that knows not how it was trained"
        )
    training = Training(progress=False, **extra["training"])
    factory = for_tasks(recipe(extra["method"], schema.outcome_kind), tasks).factory(schema, training)
    share = extra.get("recalibrate", 0.0)
    return correcting(factory, share, schema, training.seed) if share else factory, training.steps


def tasks_to_score(
    table: "Table", schema: "Schema", extra: dict[str, Any], include_trained: bool | None
) -> "tuple[TaskDataset, str]":
    """The tasks of a table, without those of the training unless they are asked for, and how many these are.

    Args:
        table: as it was read.
        schema: what its columns are.
        extra: what was kept with the model.
        include_trained: keep tasks of the training, too; None where the command has no such option.

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
        rather = "or give another table" if include_trained is None else "give another table, or pass --include-trained"
        raise DataError(
            f"expected tasks that the model was not trained on, got {len(tasks)} that it was: "
            f"fit with --holdout, {rather}"
        )
    return tasks.select(fresh), f"{seen} of the {len(tasks)} tasks are of the training and left out"
