"""Predictions of points that were held out: query points given the support, and each support point given the others.

Evaluation, recalibration, conformal prediction and the comparison with reference tasks all ask one of these two:

    predicted       p(y | x, D, theta) at the query points of each task
    left_one_out    p(y_n | x_n, D without n, theta) at each support point

both a batch at a time, without a graph, and with outcomes that are checked to be what the learner predicts.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor
from torch.distributions import Bernoulli, Categorical

from bayesmeta.arguments import some, whole
from bayesmeta.data import Data
from bayesmeta.errors import DataError, ShapeError, retelling
from bayesmeta.flat import MOST_POINTS
from bayesmeta.learner import Learner
from bayesmeta.one_line import OneLine
from bayesmeta.predictives import Predictive
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.source import Split

MATRIX = 32  # numbers of a joint covariance that weigh as much as a point with all that a network makes of it


@dataclass(frozen=True, eq=False)
class HeldOut(OneLine):
    """What was predicted of some points, next to what came: `HeldOut.of` makes it, `predicted` yields it.

    Attributes:
        predictive: of the points.
        y: the outcomes, in the learner's precision; padded labels are 0, which is always a class.
        mask: True = real.
    """

    predictive: Predictive
    y: Shaped[Tensor, "B M *c"]
    mask: Bool[Tensor, "B M"]

    def __repr__(self) -> str:
        """One line."""
        return f"held-out {self.predictive!r}"

    @classmethod
    def of(cls, predictive: Predictive, data: Data) -> "HeldOut":
        """The prediction of points, checked to be of such outcomes. Points that lack some of theirs are masked.

        Args:
            predictive: at the points.
            data: the points, as the learner has them.

        Raises:
            DataError: numbers for labels, labels for numbers, or labels that are no classes.
            ShapeError: a prediction of another shape.

        Example:
            >>> import bayesmeta as bm
            >>> data = bm.Data.from_arrays([0.0, 1.0], [0.2, 1.1])
            >>> HeldOut.of(bm.ALPaCA(bm.Identity(1)).double().adapt(data).predict(data.x), data).y.flatten().tolist()
            [0.2, 1.1]
        """
        require_outcomes(predictive, data.y, data.mask)
        y = data.y if data.y.is_floating_point() else torch.where(data.mask, data.y, 0)
        return cls(predictive, y, data.complete.mask)


@torch.no_grad()
def predicted(learner: Learner, support: Data, query: Data, batch_size: int = 256) -> Iterator[HeldOut]:
    """Adapt to the support of each task and predict its query points, some tasks at a time, in their order.

    Args:
        learner: what adapts.
        support: of all tasks.
        query: of the same tasks.
        batch_size: tasks adapted to at once; fewer where they are long, so that memory is bounded.

    Raises:
        DataError: an empty batch is asked for, or outcomes that the learner does not predict.
        ShapeError: the tasks do not have the learner's inputs or outputs.

    Example:
        >>> import bayesmeta as bm
        >>> tasks = bm.tasks.Sinusoid().dataset(num_tasks=5, num_points=8, seed=0)
        >>> batch = tasks.divided(bm.tasks.RandomSplit.at(3), 0)
        >>> learner = bm.ALPaCA(bm.MLP(1, [8, 4]))
        >>> list(predicted(learner, batch.support, batch.query, batch_size=3))
        [held-out prediction at 5 points of 3 tasks, held-out prediction at 5 points of 2 tasks]
    """
    batch_size = require_batch(batch_size)
    outputs = query.y.shape[2] if query.y.is_floating_point() else 1
    points = support.num_points + query.num_points + (query.num_points * outputs) ** 2 // MATRIX
    size = max(1, min(batch_size, MOST_POINTS // max(points, 1)))
    for chunk in torch.arange(support.num_tasks, device=support.x.device).split(size):
        if len(chunk):
            data = learner.conform(query.select(chunk))
            with retelling(lambda task, first=int(chunk[0]): first + task):  # type: ignore[misc]
                posterior = learner.condition(learner.conform(support.select(chunk)))
                found = HeldOut.of(posterior.predictive_of(data), data)
            yield found


@torch.no_grad()
def left_one_out(
    learner: Learner, support: Data, batch_size: int = 256
) -> Iterator[tuple[Int[Tensor, "P"], Int[Tensor, "P"], HeldOut]]:
    """Predict each real support point by the posterior of the others of its task, some points at a time.

    Points that lack some of their outcomes are among the others alone.

    Args:
        learner: what adapts.
        support: as the learner has it (`learner.conform`).
        batch_size: points left out at once.

    Yields:
        The task and the place of each point in it, and what was predicted: `P 1`, as of P tasks with one point.

    Raises:
        DataError: an empty batch is asked for, or outcomes that the learner does not predict.

    Example:
        >>> import bayesmeta as bm
        >>> learner, support = bm.ALPaCA(bm.Identity(1)), bm.Data.from_arrays([0.0, 1.0, 2.0], [0.1, 0.9, 2.1])
        >>> ((task, place, found),) = left_one_out(learner, learner.conform(support))
        >>> task.tolist(), place.tolist(), found.predictive
        ([0, 0, 0], [0, 1, 2], prediction at 1 point of 3 tasks)
    """
    batch_size = require_batch(batch_size)
    places = torch.arange(support.num_points, device=support.x.device)
    for task, place in (pairs.unbind(-1) for pairs in support.complete.mask.nonzero().split(batch_size)):
        if len(task):
            chosen = support.select(task)
            others = replace(chosen, mask=chosen.mask & (places != place[:, None]))
            alone = support.each(lambda value, task=task, place=place: value[task, place][:, None])  # type: ignore[misc]
            with retelling(lambda position, task=task: int(task[position])):  # type: ignore[misc]
                found = HeldOut.of(learner.condition(others).predictive_of(alone), alone)
            yield task, place, found


def with_room(tasks: TaskDataset, shots: int, split: type[Split], fewest: int, kind: str) -> TaskDataset:
    """The tasks that have a query point left at this number of shots.

    Args:
        tasks: all tasks.
        shots: support points of a task, as `split` counts them.
        split: what divides the points of a task.
        fewest: how many such tasks are needed.
        kind: what the tasks are for, as the message says it.

    Raises:
        DataError: there are fewer.

    Example:
        >>> import bayesmeta as bm
        >>> tasks = bm.TaskDataset(bm.Data.stack([bm.Data.from_arrays([0.0] * n, [0.0] * n) for n in (2, 5, 7)]))
        >>> with_room(tasks, 4, bm.tasks.RandomSplit, 2, "calibration")
        TaskDataset(2 tasks, 5 to 7 points each)
    """
    shots, groups = whole(shots, "shots"), tasks.by_length()
    able = [positions[split.room(part.data) >= shots] for positions, part in groups]
    positions = torch.cat(able).sort().values
    if len(positions) < fewest:
        raise DataError(
            f"expected at least {fewest} {kind} tasks with more than {shots} {split.counted}, got {len(positions)}: "
            "ask for fewer shots, or give tasks with more points"
        )
    return tasks.select(positions.tolist())


def predicts_labels(predictive: Predictive) -> bool:
    """Whether the outcomes that are predicted are labels.

    Example:
        >>> from bayesmeta.predictives import IndependentPredictive
        >>> predicts_labels(IndependentPredictive(Categorical(torch.tensor([[[0.8, 0.2]]]))))
        True
    """
    return isinstance(predictive.marginals, Bernoulli | Categorical)


def require_outcomes(predictive: Predictive, y: Shaped[Tensor, "B M *c"], mask: Bool[Tensor, "B M"]) -> None:
    """Refuse outcomes that are not what is predicted.

    Args:
        predictive: at the points.
        y: the outcomes.
        mask: True = real.

    Raises:
        DataError: numbers for labels, labels for numbers, or labels that are no classes.
        ShapeError: a prediction of another shape.

    Example:
        >>> from bayesmeta.predictives import IndependentPredictive
        >>> predictive = IndependentPredictive(Categorical(torch.tensor([[[0.8, 0.2]]])))
        >>> try:
        ...     require_outcomes(predictive, torch.tensor([[2]]), torch.tensor([[True]]))
        ... except DataError as error:
        ...     print(error)
        expected labels from 0 to 1, got 2..2
    """
    is_classifier = predicts_labels(predictive)
    if is_classifier == y.is_floating_point():
        kinds = ("labels", "numbers") if is_classifier else ("numbers", "labels")
        raise DataError(f"expected tasks whose outcomes are {kinds[0]}, which this learner predicts, got {kinds[1]}")
    if predictive.shape != y.shape:
        raise ShapeError(f"expected predictions of shape {tuple(y.shape)}, got {tuple(predictive.shape)}")
    if is_classifier:
        classes, real = predictive.probs.shape[-1], y[mask]
        if bool(((real < 0) | (real >= classes)).any()):
            raise DataError(f"expected labels from 0 to {classes - 1}, got {int(real.min())}..{int(real.max())}")


def require_batch(batch_size: int) -> int:
    """The size of a batch, a whole number of at least one task.

    Args:
        batch_size: tasks at once.

    Raises:
        DataError: fewer than one, or no whole number.
    """
    return some(batch_size, "batch_size", "task in a batch")
