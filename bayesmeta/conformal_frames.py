"""Predictions for the rows of a pandas table with conformal intervals or label sets, by calibration tasks."""

import warnings
from collections.abc import Hashable
from typing import TYPE_CHECKING

import numpy as np
import torch

from bayesmeta.calibration.conformal import ConformalPosterior, HierarchicalConformal, require_tasks
from bayesmeta.errors import DataError, retelling
from bayesmeta.flat import FlatData
from bayesmeta.frames import CHUNK, points_of, predictions, result_columns
from bayesmeta.learner import Learner
from bayesmeta.modes import settled
from bayesmeta.task_names import texts
from bayesmeta.tasks.dataset import TaskDataset, naming_columns
from bayesmeta.tasks.known_points import KnownPoints
from bayesmeta.tasks.source import RandomSplit, Split
from bayesmeta.tasks.table import Schema

if TYPE_CHECKING:
    import pandas as pd

MOST_NAMED = 3  # tasks in a warning


@settled
@naming_columns
def conformal_frame(
    learner: Learner,
    schema: Schema,
    context: "pd.DataFrame | KnownPoints",
    query: "pd.DataFrame",
    calibration: TaskDataset,
    level: float = 0.9,
    *,
    split: type[Split] = RandomSplit,
    seed: int = 0,
) -> "pd.DataFrame":
    """As `predict_frame`, with regions that hold at least a share `level` of new outcomes whatever the learner says.

    `lower` and `upper` are the ends of conformal intervals, `likely` a conformal set of classes; the other columns are
    the learner's own. Each number of known points of a task has a calibration of its own
    (`bm.calibration.HierarchicalConformal`), by the calibration tasks with at least one point more.

    The promise is for a task that is drawn like the calibration tasks, whose known points are chosen from its points as
    `split` chooses them, and for one outcome at a time. It holds on average over tasks.

    Args:
        learner: a trained learner.
        schema: which column is what.
        context: known points, as for `predict_frame`.
        query: points to predict, as for `predict_frame`.
        calibration: tasks that were used in nothing else: not in training, validation or recalibration. Those that are
            tasks of `query`, too, are left out.
        level: the least coverage.
        split: `PrefixSplit` where what is known of a task is its beginning.
        seed: of the division of the calibration tasks.

    Returns:
        `query` with the columns of `predict_frame`. Where too few calibration tasks have more points than are known of
        a task, its region is not known: NaN, or None for a set.

    Raises:
        DataError: too few calibration tasks for the level at every number of known points; all that `predict_frame`
            raises.
        UnsupportedError: outcomes with known noise, which are not exchangeable.

    Warns:
        UserWarning: regions of some tasks are not known.

    Example:
        >>> import numpy as np
        >>> import pandas as pd
        >>> import bayesmeta as bm
        >>> rng = np.random.default_rng(0)
        >>> frame = pd.DataFrame({"cell": np.repeat(np.arange(60), 6), "t": np.tile(np.arange(6.0), 60)})
        >>> frame["y"] = frame["t"] + rng.normal(size=60).repeat(6) + rng.standard_t(2, size=360)
        >>> tasks = bm.TaskDataset.from_frame(frame, task="cell", x=["t"], y=["y"])
        >>> train, calibration = tasks.split(0.5)
        >>> learner = bm.Standardized(bm.ALPaCA(bm.Identity(1))).double()
        >>> _ = bm.fit_evidence(learner, train)
        >>> new = pd.DataFrame({"cell": ["new"] * 2, "t": [6.0, 7.0]})
        >>> conformal = conformal_frame(learner, tasks.schema, frame, new, calibration, level=0.8)
        >>> own = bm.predict_frame(learner, tasks.schema, frame.head(0), new, level=0.8)
        >>> bool((conformal["mean"] == own["mean"]).all()), bool((conformal["upper"] < own["upper"]).all())
        (True, True)
    """
    found, unknown = conformal_predictions(learner, schema, context, query, calibration, level, split=split, seed=seed)
    if unknown:
        warnings.warn(unknown, stacklevel=2)
    return query.assign(**found)


def conformal_predictions(
    learner: Learner,
    schema: Schema,
    context: "pd.DataFrame | KnownPoints",
    query: "pd.DataFrame",
    calibration: TaskDataset,
    level: float = 0.9,
    *,
    split: type[Split] = RandomSplit,
    seed: int = 0,
) -> tuple[dict[str, np.ndarray], str]:
    """The result columns of `conformal_frame` alone, and which regions are not known, in a sentence or none.

    Arguments and errors are those of `conformal_frame`.
    """
    found = predictions(learner, schema, context, query, level)
    rows, names = schema.tasks(query)
    learner, calibration = learner.frozen(), _others(calibration, names)
    inputs = torch.from_numpy(schema.inputs(query))
    asked = FlatData.grouped(inputs, torch.arange(len(query)), torch.from_numpy(rows), len(names))
    known = points_of(schema, context, names)
    columns = [name for name in result_columns(schema) if name.endswith(("lower", "upper"))]
    ends = np.full((len(query), len(columns)), np.nan)
    sets = np.zeros((len(query), len(schema.classes)), dtype=bool)
    unknown = np.zeros(len(names), dtype=bool)
    for count in known.counts.unique().tolist():
        chosen = (known.counts == count).nonzero().flatten()
        usable = int((calibration.counts > count).sum())
        try:
            require_tasks(usable, level)
        except DataError as error:
            unknown[chosen.numpy()] = True
            if unknown.all():
                more = f" with more than {count} points" if count else ""
                raise DataError(
                    f"{error} (tasks of the calibration table{more} that were used in nothing else)"
                ) from error
            continue
        conformal = HierarchicalConformal(learner, calibration, count, split=split, seed=seed)
        for chunk in chosen.split(CHUNK):
            wanted = asked.padded(chunk)
            with retelling(names=[names[i] for i in chunk.tolist()]):
                regions = conformal.adapt(known.padded(chunk))
                place = wanted.y[wanted.mask].numpy()
                if schema.classes:
                    sets[place] = regions.label_set(wanted.x, level).cpu()[wanted.mask].numpy()
                else:
                    ends[place] = _ends(regions, wanted.x, level).cpu()[wanted.mask].numpy()
    if schema.classes:
        found["likely"] = _sets(sets, found, schema, unknown[rows])
    else:
        found |= dict(zip(columns, ends.T, strict=True))
    return found, _unknown(unknown, names, level)


def _others(calibration: TaskDataset, names: list[Hashable]) -> TaskDataset:
    """The calibration tasks that are not asked about."""
    asked = set(texts(names))
    others = [i for i, text in enumerate(texts(calibration.names)) if text not in asked]
    if not others:
        raise DataError(f"expected calibration tasks that are not asked about, got {len(calibration)} that all are")
    return calibration.select(others)


def _ends(regions: ConformalPosterior, x: torch.Tensor, level: float) -> torch.Tensor:
    """lower and upper of each outcome in turn, `B M 2C`."""
    return torch.stack(regions.interval(x, level), -1).flatten(-2)


def _sets(sets: np.ndarray, found: dict[str, np.ndarray], schema: Schema, unknown: np.ndarray) -> np.ndarray:
    """The classes of each set, the most probable first, with bars between them; None where no set is known."""
    probs = np.stack([found[f"p_{name}"] for name in schema.classes], 1)
    names, order = np.array(schema.classes, dtype=object), np.argsort(-probs, axis=1, kind="stable")
    kept = np.take_along_axis(sets, order, 1)
    lines = [None if no else " | ".join(names[o][k]) for o, k, no in zip(order, kept, unknown, strict=True)]
    return np.array(lines, dtype=object)


def _unknown(unknown: np.ndarray, names: list[Hashable], level: float) -> str:
    if not unknown.any():
        return ""
    which = [str(names[i]) for i in np.flatnonzero(unknown)]
    named = ", ".join(map(repr, which[:MOST_NAMED])) + (" ..." if len(which) > MOST_NAMED else "")
    return (
        f"no conformal region for {len(which)} of {len(names)} tasks ({named}): too few calibration tasks have more "
        f"points than are known of them, for a level of {level:g}; their regions are left empty"
    )
