"""What is kept of rows, and what is asked of new ones: the estimators without scikit-learn.

The rows of a task that are kept are its support, and further rows of it are predicted from its posterior. Rows of any
other task are predicted from the prior; where every point is for itself, it makes no difference whose they are.
"""

import copy
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from bayesmeta.arguments import generator_of
from bayesmeta.data import Data
from bayesmeta.distributions import seeded
from bayesmeta.errors import DataError, retelling
from bayesmeta.flat import FlatData
from bayesmeta.frames import POINTS, chunks, tasks_at_once
from bayesmeta.learner import Learner
from bayesmeta.predictives import Predictive
from bayesmeta.recipes import recipe, recipes
from bayesmeta.sklearn.table import Table
from bayesmeta.task_names import texts
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.trainers import ByEvidence, ByGradients, Trainer, Training

Method = str | Learner | Callable[[int, int], Learner] | None
"""A recipe by its name, a learner, a function of (D, C) that gives one, or the recipe that is taken by default."""


def meta_trained(method: Method, tasks: TaskDataset, steps: int, seed: int) -> Learner:
    """A learner in float64 that has learned from tasks; what is given stays as it is.

    Args:
        method: the recipe or the learner.
        tasks: of a table.
        steps: of the training; 0 for a learner that is trained already.
        seed: of initial weights, and of the training.

    Raises:
        DataError: a learner of other outcomes than the tasks have, or an unknown recipe.

    Example:
        >>> import pandas as pd
        >>> import bayesmeta as bm
        >>> frame = pd.DataFrame({"who": list("aabbcc"), "t": [0, 1, 0, 1, 0, 1], "y": [0.1, 1.2, 2.0, 2.9, 1.1, 2.1]})
        >>> tasks = bm.TaskDataset.from_frame(frame, task="who", x=["t"], y="y")
        >>> meta_trained("alpaca-linear", tasks, steps=100, seed=0).title
        'Standardized(ALPaCA)'
    """
    with seeded(generator_of(seed)):  # initial weights
        learner, train = _untrained(method, tasks)
    learner = learner.double()
    return train(learner, tasks, Training(steps, seed=seed, progress=False)).learner if steps else learner


def _untrained(method: Method, tasks: TaskDataset) -> tuple[Learner, Trainer]:
    schema = tasks.schema
    assert schema is not None
    kind = schema.outcome_kind
    if method is None or isinstance(method, str):
        found = recipe(next(iter(recipes(kind))) if method is None else method, kind)
        return found.for_table(schema, len(tasks)), found.train
    is_function = callable(method) and not isinstance(method, Learner)
    learner = (
        method(len(schema.x_names), len(schema.classes) or len(schema.y)) if is_function else copy.deepcopy(method)
    )
    if not isinstance(learner, Learner):
        raise DataError(f"expected the name of a method, a Learner or a function that gives one, got {method!r}")
    given = learner.outcomes
    if given is None or type(kind) not in type(given).__mro__ or given.count != kind.count:  # counts are numbers
        raise DataError(f"expected a learner of {kind}, got {learner.title} of {given}")
    return learner, ByGradients() if learner.mixed_model is None else ByEvidence()


def with_rows(tasks: TaskDataset, table: Table, y: Tensor) -> TaskDataset:
    """The tasks with more rows: of tasks that are among them, and of others.

    Args:
        tasks: so far.
        table: inputs and tasks of the rows.
        y: their outcomes.

    Raises:
        DataError: a row without a task.

    Example:
        >>> import bayesmeta as bm
        >>> tasks = bm.TaskDataset.from_list([([0.0], [1.0])], names=["a"])
        >>> rows = Table(np.array([[2.0], [3.0]]), np.array([0, 1]), ["b", "a"])
        >>> more = with_rows(tasks, rows, torch.tensor([[5.0], [6.0]], dtype=torch.float64))
        >>> more.names, more.task("a").y.flatten().tolist()
        (('a', 'b'), [1.0, 6.0])
    """
    if (table.codes < 0).any():
        raise DataError(f"expected the task of every row, got none in row {int(np.argmin(table.codes))}")
    place = {text: at for at, text in enumerate(texts(tasks.names))}
    names = list(tasks.names)
    for name, text in zip(table.names, texts(table.names), strict=True):
        if text not in place:
            place[text] = len(names)
            names.append(name)
    codes = torch.tensor([place[text] for text in texts(table.names)])[torch.from_numpy(table.codes)]
    flat = tasks.flat
    before = torch.arange(len(tasks)).repeat_interleave(flat.counts)
    x, outcomes = torch.cat([flat.x, torch.from_numpy(table.x)]), torch.cat([flat.y, y])
    grouped = FlatData.grouped(x, outcomes, torch.cat([before, codes]), len(names))
    return TaskDataset(grouped, names, tasks.schema, tasks.oracle)


def answered(
    learner: Learner, tasks: TaskDataset, table: Table, answer: Callable[[Predictive], Tensor], *, jointly: bool = False
) -> np.ndarray:
    """What is asked of each row, `rows ...`.

    Args:
        learner: adapts to the tasks.
        tasks: the known rows of each.
        table: the rows that are asked about.
        answer: numbers for each point of a prediction, `B M ...`.
        jointly: whether the answer at a point depends on the other points of its task.

    Example:
        >>> import bayesmeta as bm
        >>> tasks = bm.TaskDataset.from_list([([0.0], [1.0])], names=["a"])
        >>> rows = Table(np.array([[0.0], [0.0]]), np.array([0, -1]), ["a"])  # one of "a", and one of any task
        >>> sd = answered(bm.ALPaCA(bm.Identity(1)), tasks, rows, lambda predictive: predictive.stddev)
        >>> sd.shape, bool(sd[0] < sd[1])
        ((2, 1), True)
    """
    values: np.ndarray | None = None
    for piece, predictive in predictions(learner, tasks, table, jointly=jointly):
        found = answer(predictive).detach().cpu()[piece.mask].numpy()
        if values is None:
            values = np.empty((len(table.x), *found.shape[1:]), found.dtype)
        values[piece.y[piece.mask].numpy()] = found
    assert values is not None
    return values


def predictions(
    learner: Learner, tasks: TaskDataset, table: Table, *, jointly: bool = False
) -> Iterator[tuple[Data, Predictive]]:
    """Predictions of rows, some tasks at a time: points whose outcome is the number of the row, and what is predicted.

    Args:
        learner: adapts to the tasks.
        tasks: the known rows of each.
        table: the rows that are asked about.
        jointly: whether all points of a task are predicted together.

    Raises:
        InferenceError: a posterior cannot be computed; the task is named.
    """
    codes, names = _tasks_of(tasks, table, jointly)
    flat = tasks.flat
    strangers = max(len(names) - len(tasks), 0)
    supports = FlatData(flat.x, flat.y, torch.cat([flat.offsets, flat.offsets[-1:].repeat(strangers)]))
    wanted, places = np.unique(codes, return_inverse=True)
    supports = supports.select(torch.from_numpy(wanted))
    asked = FlatData.grouped(
        torch.from_numpy(table.x), torch.arange(len(codes)), torch.from_numpy(places.reshape(-1)), len(wanted)
    )
    for chunk in chunks(supports.counts + asked.counts, tasks_at_once(learner)):
        points = asked.padded(chunk)
        step = points.num_points if jointly else max(POINTS // len(chunk), 1)
        with retelling(names=[names[wanted[i]] for i in chunk.tolist()]):
            posterior = learner.adapt(supports.padded(chunk))
            pieces = [points.points(slice(at, at + step)) for at in range(0, points.num_points, step)]
            found = [posterior.predict(piece.x) for piece in pieces]
        yield from zip(pieces, found, strict=True)


def _tasks_of(tasks: TaskDataset, table: Table, jointly: bool) -> tuple[np.ndarray, list[object]]:
    """The task of each row as a position among the known ones or behind them, and the names of all."""
    known = {text: place for place, text in enumerate(texts(tasks.names))}
    names: list[object] = list(tasks.names)
    if not jointly:  # the prior predicts all strangers alike, each point for itself
        of_name = [known.get(text, len(names)) for text in texts(table.names)]
        return np.array([*of_name, len(names)], dtype=np.int64)[table.codes], [*names, "any other"]
    of_name = []
    for name, text in zip(table.names, texts(table.names), strict=True):
        of_name.append(known.get(text, len(names)))
        if text not in known:
            names.append(name)
    codes = np.array([*of_name, -1], dtype=np.int64)[table.codes]
    unnamed = np.flatnonzero(codes < 0)
    codes[unnamed] = len(names) + np.arange(len(unnamed))
    return codes, [*names, *("a row without a task" for _ in unnamed)]
