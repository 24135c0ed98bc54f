"""Predictions for the rows of a pandas table."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bayesmeta.data import Data
from bayesmeta.learner import Learner
from bayesmeta.tasks.table import Schema

if TYPE_CHECKING:
    import pandas as pd

CHUNK = 256  # tasks at a time


def predict_frame(
    learner: Learner, schema: Schema, context: "pd.DataFrame", query: "pd.DataFrame", level: float = 0.9
) -> "pd.DataFrame":
    """The rows of `query`, with what the points of the same tasks in `context` say about their outcomes.

    Args:
        learner: adapted to each task in turn.
        schema: which column is what (`TaskDataset.from_frame(...).schema`).
        context: known points; rows with a missing outcome say nothing.
        query: points to predict; outcome columns are not needed. A task without context is predicted from the prior.
        level: probability of the interval.

    Returns:
        `query` with the columns mean, sd, lower and upper, observation noise included, in the outcome's units; with
        several outcomes each name begins with the outcome's.

    Raises:
        DataError: a column or cell that cannot be read as the schema says, or a level outside (0, 1).
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
        prediction = learner.adapt(support).predict(wanted_x[rows.numpy()])  # padded rows repeat the last one
        real = rows >= 0
        each: tuple[Tensor, ...] = (prediction.mean, prediction.stddev, *prediction.interval(level))
        for kind, value in enumerate(each):
            values[kind, rows[real].numpy()] = value[real].numpy()
    columns = {}
    for position, outcome in enumerate(schema.y):
        start_of_name = "" if len(schema.y) == 1 else f"{outcome}_"
        for kind, label in enumerate(("mean", "sd", "lower", "upper")):
            columns[start_of_name + label] = values[kind, :, position]
    return query.assign(**columns)


def _rows_by_task(schema: Schema, frame: "pd.DataFrame", present: np.ndarray) -> dict[str, list[int]]:
    """Row positions of each task; names are compared as text, since 308 in one file may be "308" in another."""
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(schema.tasks(frame)):
        kept = rows.setdefault(str(name), [])
        if present[row]:
            kept.append(row)
    return rows
