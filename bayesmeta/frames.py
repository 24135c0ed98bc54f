"""Predictions for the rows of a pandas table, and what there is to say of its tasks."""

import contextlib
import warnings
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from bayesmeta.arguments import probability
from bayesmeta.checks.surprise import Surprise, shrinkage
from bayesmeta.errors import DataError, UnsupportedError, retelling
from bayesmeta.flat import FlatData, alike
from bayesmeta.frame_kinds import Frame, as_pandas, with_columns
from bayesmeta.learner import Learner
from bayesmeta.learners.gradient.base import GradientLearner
from bayesmeta.modes import settled
from bayesmeta.outcomes import Labels, Numbers
from bayesmeta.predictives import Predictive
from bayesmeta.task_names import look_alikes, texts
from bayesmeta.tasks.dataset import naming_columns
from bayesmeta.tasks.known_points import KnownPoints
from bayesmeta.tasks.table import Schema

if TYPE_CHECKING:
    import pandas as pd

CHUNK = 2048  # tasks at a time, at most: a call costs as much as a thousand tasks of a last layer
CLIMBING = 256  # of learners that hold weights and their gradients of every task: with more they fall out of the cache
POINTS = 2**16  # padded points at a time, at most (of one task, if it has more)
RESULTS = ("mean", "sd", "lower", "upper")
CLASS_RESULTS = ("predicted", "likely")
BINARY_RESULTS = ("predicted", "p")


@settled
@naming_columns
def predict_frame(
    learner: Learner,
    schema: Schema,
    context: "Any | KnownPoints",
    query: Frame,
    level: float = 0.9,
    noiseless: bool = False,
) -> Frame:
    """The rows of the table `query`, with predictions from the points of the same tasks in the table `context`.

    Tasks are the same where their names are: 3, 3.0 and "3" are one (`bayesmeta.task_names`). It warns where the
    context has points but not one task of the query, since the prior predicts all of it then; give `context.head(0)`
    where that is meant. Tables are of pandas, polars or pyarrow, and what comes back is of the kind of `query`.

    Args:
        learner: adapted to each task in turn.
        schema: which column is what (`TaskDataset.from_frame(...).schema`).
        context: known points; rows with a missing outcome say nothing. It may have no rows. In its place
            `bm.tasks.KnownPoints`, what was known already with what became known since.
        query: points to predict; outcome columns are not needed. A task without context is predicted from the prior.
        level: probability of the interval between `lower` and `upper`, or the least of the classes in `likely`.
        noiseless: say what is known of f, the outcome without its observation noise: `sd`, `lower` and `upper` are then
            not of a new measurement.

    Returns:
        `query` with the columns mean, sd, lower and upper, observation noise included, in the units of the outcome;
        with several outcomes each name begins with that of its outcome. Where the outcome is a class, the columns are
        `predicted`, the name of the most probable class; `likely`, the fewest classes that together have a probability
        of `level`, the most probable first, with bars between them; and `p_NAME`, the probability of each class. Names
        are texts, also where the table has numbers or truths. Where it is binary they are `predicted`, and `p`, the
        probability of the second class. Of counts, lower and upper are whole numbers that belong to the interval.

    Raises:
        DataError: a column or cell that cannot be read as the schema says, a class that the schema does not know, a
                column of `query` that is called like a result, a level outside (0, 1), or a learner of other classes.
        UnsupportedError: `noiseless` where the learner does not separate f from its noise, or predicts classes.

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
    points = context if isinstance(context, KnownPoints) else as_pandas(context)
    asked = as_pandas(query)
    matching = Matching.of(schema, points, asked)
    predicted = with_columns(query, predictions(learner, schema, points, asked, level, noiseless))
    if matching.warning:
        warnings.warn(matching.warning, stacklevel=2)
    return predicted


def predictions(
    learner: Learner,
    schema: Schema,
    context: "pd.DataFrame | KnownPoints",
    query: "pd.DataFrame",
    level: float = 0.9,
    noiseless: bool = False,
) -> dict[str, np.ndarray]:
    """The result columns of `predict_frame` alone, which it puts next to those of `query`. Raises as it does."""
    require_free(query.columns, result_columns(schema))
    inputs, (rows, names) = torch.from_numpy(schema.inputs(query)), schema.tasks(query)
    # the outcome of a row that is asked about is its place in the table
    asked = FlatData.grouped(inputs, torch.arange(len(query)), torch.from_numpy(rows), len(names))
    known, learner = points_of(schema, context, names), learner.frozen()
    require_kind_of(learner, schema)
    return answers(learner, schema, known, asked, names, probability(level, "a level"), noiseless)


def answers(
    learner: Learner,
    schema: Schema,
    known: FlatData,
    asked: FlatData,
    names: Sequence[Hashable],
    level: float,
    noiseless: bool,
) -> dict[str, np.ndarray]:
    """The result columns of tasks whose cells have been read: what a table of any kind and size is predicted by.

    Args:
        learner: frozen, and of the kind of the schema.
        schema: which outcomes there are.
        known: the known points of each task.
        asked: the points of the same tasks that are asked about; the outcome of each is its place in the result.
        names: of the tasks, for messages.
        level: as for `predict_frame`.
        noiseless: as for `predict_frame`.

    Raises:
        UnsupportedError: as for `predict_frame`.
        InferenceError: the failure of a task, by its name.

    Example:
        >>> import bayesmeta as bm
        >>> schema, learner = bm.tasks.Schema("cell", x=("t",), y=("volt",)), bm.ALPaCA(bm.Identity(1)).double()
        >>> none = FlatData(torch.zeros(0, 1), torch.zeros(0, 1), torch.tensor([0, 0]))
        >>> asked = FlatData(torch.zeros(2, 1), torch.tensor([1, 0]), torch.tensor([0, 2]))
        >>> found = answers(learner.frozen(), schema, none, asked, ["a"], 0.9, False)
        >>> {name: column.shape for name, column in found.items()}
        {'mean': (2,), 'sd': (2,), 'lower': (2,), 'upper': (2,)}
    """
    values = np.full((len(asked.x), len(schema.classes) or 4 * len(schema.y)), np.nan)
    for chunk in chunks(known.counts + asked.counts, tasks_at_once(learner)):
        wanted = asked.padded(chunk)
        step = max(POINTS // len(chunk), 1)
        with retelling(lambda task, chunk=chunk: int(chunk[task]), names):  # type: ignore[misc]
            posterior = learner.adapt(known.padded(chunk))
            for start in range(0, wanted.num_points, step):
                piece = wanted.points(slice(start, start + step))
                found = _summary(posterior.predict(piece.x), schema, level, noiseless)
                values[piece.y[piece.mask].numpy()] = found.cpu()[piece.mask].numpy()
    if schema.kind == "binary":
        predicted = np.array(schema.classes, dtype=object)[(values[:, 1] > 0.5).astype(int)]
        return dict(zip(result_columns(schema), [predicted, values[:, 1]], strict=True))
    if schema.classes:
        return dict(zip(result_columns(schema), _class_columns(values, schema.classes, level), strict=True))
    columns = list(values.T)
    if schema.kind == "count":  # lower and upper are whole numbers
        columns = [each.astype(np.int64) if place % len(RESULTS) >= 2 else each for place, each in enumerate(columns)]
    return dict(zip(result_columns(schema), columns, strict=True))


def require_kind_of(learner: Learner, schema: Schema) -> None:
    """Raise DataError where a learner does not predict what the tables of a schema have: numbers, or these classes.

    Example:
        >>> import bayesmeta as bm
        >>> schema = bm.tasks.Schema("who", x=("day",), y=("pain",), classes=("none", "mild", "bad"))
        >>> require_kind_of(bm.R2D2(bm.MLP(1, [8]), num_classes=2), schema)
        Traceback (most recent call last):
        ...
        bayesmeta.errors.DataError: expected a learner of the 3 classes of 'pain' (num_classes=3), got Labels(count=2)
    """
    kind, given = schema.outcome_kind, learner.outcomes
    if given is None:
        return
    if isinstance(kind, Numbers) and isinstance(given, Labels):
        raise DataError(f"expected a learner of numbers, which {', '.join(schema.y)} are here, got {given}")
    if isinstance(kind, Labels) and given != kind:
        raise DataError(
            f"expected a learner of the {kind.count} classes of {schema.y[0]!r} (num_classes={kind.count}), got {given}"
        )


def _summary(prediction: Predictive, schema: Schema, level: float, noiseless: bool) -> Tensor:
    """The numbers that tell of a prediction, `B M R`: of each outcome mean, sd, lower and upper, or probabilities."""
    if noiseless:
        prediction = _of_f(prediction, schema)
    if schema.classes:
        return prediction.probs
    each = (prediction.mean, prediction.stddev, *prediction.interval(level))
    return torch.stack(each, -1).flatten(-2)


def _of_f(prediction: Predictive, schema: Schema) -> Predictive:
    """The prediction without observation noise."""
    if schema.classes:
        raise UnsupportedError(
            f"expected an outcome of numbers to take the noise from, got the classes of {schema.y[0]!r}"
        )
    try:
        return prediction.noiseless
    except UnsupportedError as error:
        raise UnsupportedError(
            "expected a method that separates the outcome from its noise, got one that predicts both as one: predict "
            "new measurements (without noiseless)"
        ) from error


def _class_columns(probs: np.ndarray, classes: tuple[str, ...], level: float) -> list[np.ndarray]:
    """The most probable class, the likely ones, and the probability of each, row by row."""
    order = np.argsort(-probs, axis=1, kind="stable")
    before = np.cumsum(np.take_along_axis(probs, order, 1), 1) - np.take_along_axis(probs, order, 1)
    names = np.array(classes, dtype=object)[order]
    counts = (before < level).sum(1)  # a class is in the set where those before it are not enough
    likely = np.array([" | ".join(row[:count]) for row, count in zip(names, counts, strict=True)], dtype=object)
    predicted = names[:, 0] if len(names) else np.array([], dtype=object)
    return [predicted, likely, *probs.T]


def result_columns(schema: Schema) -> list[str]:
    """The columns that predictions add: mean, sd, lower, upper of each outcome, whose name is in front when several.

    Where the outcome is a class: predicted, likely, and a probability for each class; where it is binary, predicted
    and p.

    Example:
        >>> import bayesmeta as bm
        >>> result_columns(bm.tasks.Schema("cell", x=("t",), y=("u", "v")))[:5]
        ['u_mean', 'u_sd', 'u_lower', 'u_upper', 'v_mean']
    """
    if schema.kind == "binary":
        return list(BINARY_RESULTS)
    if schema.classes:
        return [*CLASS_RESULTS, *(f"p_{name}" for name in schema.classes)]
    return [label if len(schema.y) == 1 else f"{outcome}_{label}" for outcome in schema.y for label in RESULTS]


def require_free(columns: "pd.Index[str] | list[str]", results: list[str]) -> None:
    """Raise DataError where a table has a column that is called like one of the results: it would be lost."""
    taken = [name for name in results if name in columns]
    if taken:
        raise DataError(
            f"expected a table without the columns of the result ({', '.join(results)}), got one with {taken[0]!r}: "
            "rename that column (and fit again, if the model uses it)"
        )


@settled
@naming_columns
def describe_tasks(
    learner: Learner,
    schema: Schema,
    context: "pd.DataFrame | KnownPoints",
    query: "pd.DataFrame",
    surprise: Surprise | None,
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
        the prior decides all), NaN where it cannot be said; the index is the task's name, as `query` has it.

    Raises:
        DataError: a column or cell that cannot be read as the schema says; too few points for `surprise`.
    """
    import pandas as pd

    rows, names = schema.tasks(query)
    known, learner = points_of(schema, context, names), learner.frozen()
    values = np.full((3, len(names)), np.nan)
    for chunk in chunks(known.counts, tasks_at_once(learner)):
        support, places = known.padded(chunk), chunk.numpy()
        with retelling(names=[names[i] for i in chunk.tolist()]):
            if surprise is not None:
                values[:2, places] = surprise.p_value(support).numpy(), surprise.smallest_p_value(support).numpy()
            with contextlib.suppress(UnsupportedError):  # where f and its noise are one to the learner
                values[2, places] = shrinkage(learner, support).numpy()
    columns = dict(zip(("p_value", "smallest_p_value", "shrinkage"), values, strict=True))
    first = np.unique(rows, return_index=True)[1]
    if schema.within:
        index = pd.MultiIndex.from_frame(query[[*schema.within, schema.task]].iloc[first])
    else:
        index = pd.Index(query[schema.task].iloc[first])
    return pd.DataFrame({"points": known.counts.numpy(), **columns}, index=index)


@dataclass(frozen=True)
class Matching:
    """Which tasks of a query have known points in a context, and which tasks of the context were asked about.

    Attributes:
        tasks: how many tasks the query has.
        with_context: how many of them have at least one known point.
        unmatched: tasks of the context, with points, that are not in the query.
        alike: pairs of such a task and of one of the query that are probably one, written in two ways.
        without_outcome: whether the context has rows, and not one of them an outcome.

    Example:
        >>> import pandas as pd
        >>> import bayesmeta as bm
        >>> schema = bm.tasks.Schema("cell", x=(), y=("y",))
        >>> context = pd.DataFrame({"cell": ["01", "2"], "y": [0.1, 0.2]})
        >>> print(Matching.of(schema, context, pd.DataFrame({"cell": [1, 2]})))
        1 of 2 tasks to predict have context; 1 task of the context is not asked about
    """

    tasks: int
    with_context: int
    unmatched: tuple[Hashable, ...]
    alike: tuple[tuple[Hashable, Hashable], ...]
    without_outcome: bool

    @classmethod
    def of(cls, schema: Schema, context: "pd.DataFrame | KnownPoints", query: "pd.DataFrame") -> "Matching":
        """Compare the tasks of two tables. Raises DataError where a task or an outcome cannot be read."""
        if isinstance(context, KnownPoints):
            known, has_points = list(context.names), (context.points.counts > 0).numpy()
        else:
            rows, known = schema.tasks(context)
            has_points = np.bincount(rows[schema.has_outcome(context)], minlength=len(known)) > 0
        names = schema.tasks(query)[1]
        with_points = [name for name, any_points in zip(known, has_points, strict=True) if any_points]
        asked, given = set(texts(names)), texts(with_points)
        unmatched = [name for name, text in zip(with_points, given, strict=True) if text not in asked]
        without = set(asked) - set(given)
        alike = look_alikes(unmatched, [name for name in names if texts([name])[0] in without]) if unmatched else []
        nothing = len(known) > 0 and not with_points
        return cls(len(names), len(names) - len(without), tuple(unmatched), tuple(alike), nothing)

    def __str__(self) -> str:
        """How many tasks have context, and how many of the context are not asked about."""
        matched = f"{self.with_context} of {_tasks(self.tasks)} to predict have context"
        rest = len(self.unmatched)
        return matched if not rest else f"{matched}; {_tasks(rest)} of the context {_are(rest)} not asked about"

    @property
    def warning(self) -> str:
        """What is probably wrong, in a sentence; empty where nothing is."""
        if self.without_outcome:
            return "no row of the context has an outcome, so that the prior predicts all tasks"
        pairs = ", ".join(f"{ours!r} and {other!r}" for ours, other in self.alike[:3])
        hint = f"names are compared as they are written, and perhaps these are one: {pairs}"
        if self.unmatched and not self.with_context:
            remedy = hint if pairs else f"the first task of the context is {self.unmatched[0]!r}"
            return f"none of {_tasks(self.tasks)} to predict has context, so that the prior predicts them all; {remedy}"
        return f"{len(self.alike)} of the tasks without context may have some; {hint}" if pairs else ""


def _tasks(count: int) -> str:
    return f"{count} task{'' if count == 1 else 's'}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def points_of(schema: Schema, context: "pd.DataFrame | KnownPoints", names: list[Hashable]) -> FlatData:
    """The points of a context by task, in the order of the tasks that are asked about; others are left out.

    Args:
        schema: which column is what.
        context: known points, as for `predict_frame`.
        names: of the tasks that are asked about.

    Raises:
        DataError: a column or cell that cannot be read as the schema says, or known points of another schema.

    Example:
        >>> import pandas as pd
        >>> import bayesmeta as bm
        >>> schema = bm.tasks.Schema("cell", x=(), y=("y",))
        >>> context = pd.DataFrame({"cell": ["b", "a", "b"], "y": [0.1, 0.2, 0.3]})
        >>> points_of(schema, context, ["a", "new", "b"]).counts.tolist()
        [1, 0, 2]
    """
    known = context if isinstance(context, KnownPoints) else KnownPoints.of(schema, context)
    if known.schema != schema:
        raise DataError("expected known points of tables with this schema, got those of another")
    return known.of_tasks(names)


def tasks_at_once(learner: Learner) -> int:
    """How many tasks a learner is best asked about in one call.

    Example:
        >>> import bayesmeta as bm
        >>> [tasks_at_once(kind(bm.MLP(1, [8]))) for kind in (bm.ALPaCA, bm.MAML)]
        [2048, 256]
    """
    climbs = any(isinstance(module, GradientLearner) for module in learner.modules())
    return min(CHUNK, CLIMBING) if climbs else CHUNK


def chunks(counts: Int[Tensor, "T"], most: int) -> Iterator[Tensor]:
    """Positions of tasks to adapt to at once: alike in length, and at most `POINTS` padded points.

    Args:
        counts: points of each task.
        most: tasks at once.

    Example:
        >>> [len(positions) for positions in chunks(torch.full((300,), 5), 256)]
        [256, 44]
    """
    for group in alike(counts, POINTS):
        yield from group.split(most)
