"""Predictions for the rows of a pandas table, and what there is to say of its tasks."""

import contextlib
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bayesmeta.checks.surprise import Surprise, shrinkage
from bayesmeta.data import Data
from bayesmeta.errors import UnsupportedError, retelling
from bayesmeta.learner import Learner
from bayesmeta.tasks.table import Schema

if TYPE_CHECKING:
    import pandas as pd

CHUNK = 256  # tasks at a time


def predict_frame(
    learner: Learner, schema: Schema, context: "pd.DataFrame", query: "pd.DataFrame", level: float = 0.9
) -> "pd.DataFrame":
    """The rows of the table `query`, with predictions from the points of the same tasks in the table `context`.

    Args:
        learner: adapted to each task in turn.
        schema: which column is what (`TaskDataset.from_frame(...).schema`).
        context: known points; rows with a missing outcome say nothing.
        query: points to predict; outcome columns are not needed. A task without context is predicted from the prior.
        level: probability of the interval between `lower` and `upper`.

    Returns:
        `query` with the columns mean, sd, lower and upper, observation noise included, in the units of the outcome;
        with several outcomes each name begins with that of its outcome.

    Raises:
        DataError: a column or cell that cannot be read as the schema says, or a level outside (0, 1).

    Example:
        >>> import pandas as pd
        >>> import bayesmeta as bm
        >>> y = [5.0, 4.0, 3.1, 6.0, 5.5, 5.1]
        >>> frame = pd.DataFrame({"cell": ["a"] * 3 + ["b"] * 3, "t": [0, 1, 2] * 2, "y": y})
        >>> tasks = bm.TaskDataset.from_frame(frame, task="cell", x=["t"], y=["y"])
        >>> learner = bm.Standardized(bm.ALPaCA(bm.Identity(1))).double()
        >>> _ = bm.fit_evidence(learner, tasks)
        >>> query = pd.DataFrame({"cell": ["b", "new"], "t": [3, 3]})
        >>> prediction = bm.predict_frame(learner, tasks.schema, context=frame, query=query)
        >>> prediction.columns.tolist()
        ['cell', 't', 'mean', 'sd', 'lower', 'upper']
        >>> bool(prediction["sd"][0] < prediction["sd"][1])  # nothing is known of the new cell but the prior
        True
    """
    known_x, known_y = schema.inputs(context), schema.outcomes(context)
    present = ~np.isnan(known_y).any(1)
    known_rows = _rows_by_task(schema, context, present)
    wanted_x, wanted_rows = schema.inputs(query), _rows_by_task(schema, query, np.ones(len(query), dtype=bool))
    learner = learner.frozen()
    values = np.full((4, len(query), len(schema.y)), np.nan)
    names = list(wanted_rows)
    for start in range(0, len(names), CHUNK):
        chunk = names[start : start + CHUNK]
        supports = [known_rows.get(name, []) for name in chunk]
        support = Data.stack([Data.from_arrays(known_x[rows], known_y[rows]) for rows in supports])
        rows = torch.nn.utils.rnn.pad_sequence([torch.tensor(wanted_rows[name]) for name in chunk], True, -1)
        with retelling(names=chunk):
            prediction = learner.adapt(support).predict(wanted_x[rows.numpy()])  # padded rows repeat the last one
            each: tuple[Tensor, ...] = (prediction.mean, prediction.stddev, *prediction.interval(level))
        real = rows >= 0
        for kind, value in enumerate(each):
            values[kind, rows[real].numpy()] = value[real].cpu().numpy()
    columns = {}
    for position, outcome in enumerate(schema.y):
        start_of_name = "" if len(schema.y) == 1 else f"{outcome}_"
        for kind, label in enumerate(("mean", "sd", "lower", "upper")):
            columns[start_of_name + label] = values[kind, :, position]
    return query.assign(**columns)


def describe_tasks(
    learner: Learner, schema: Schema, context: "pd.DataFrame", query: "pd.DataFrame", surprise: Surprise | None
) -> "pd.DataFrame":
    """One row for each task of `query`: whether its context is like the tasks of the training, and how much it decides.

    Args:
        learner: adapted to each task in turn.
        schema: which column is what.
        context: known points; rows with a missing outcome say nothing.
        query: its tasks are described.
        surprise: reference tasks, where there are any.

    Returns:
        The columns points, p_value, smallest_p_value (what the number of reference tasks allows) and shrinkage (1 where
        the prior decides all), NaN where it cannot be said; the index is the task's name as text.

    Raises:
        DataError: a column or cell that cannot be read as the schema says; too few points for `surprise`.
    """
    import pandas as pd

    known_x, known_y = schema.inputs(context), schema.outcomes(context)
    rows = _rows_by_task(schema, context, ~np.isnan(known_y).any(1))
    names = list(dict.fromkeys(str(name) for name in schema.tasks(query)))
    learner = learner.frozen()
    values = np.full((3, len(names)), np.nan)
    for start in range(0, len(names), CHUNK):
        chunk = slice(start, start + CHUNK)
        known = [rows.get(name, []) for name in names[chunk]]
        support = Data.stack([Data.from_arrays(known_x[each], known_y[each]) for each in known])
        if surprise is not None:
            with retelling(names=names[chunk]):
                values[:2, chunk] = surprise.p_value(support).numpy(), surprise.smallest_p_value(support).numpy()
        with (
            retelling(names=names[chunk]),
            contextlib.suppress(UnsupportedError),
        ):  # where f and its noise are one to the learner
            values[2, chunk] = shrinkage(learner, support).numpy()
    columns = dict(zip(("p_value", "smallest_p_value", "shrinkage"), values, strict=True))
    points = [len(rows.get(name, [])) for name in names]
    return pd.DataFrame({"points": points, **columns}, index=pd.Index(names, name=schema.task))


def _rows_by_task(schema: Schema, frame: "pd.DataFrame", present: np.ndarray) -> dict[str, list[int]]:
    """Row positions of each task; names are compared as text, since 308 in one file may be "308" in another."""
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(schema.tasks(frame)):
        kept = rows.setdefault(str(name), [])
        if present[row]:
            kept.append(row)
    return rows
