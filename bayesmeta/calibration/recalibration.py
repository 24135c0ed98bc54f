"""Recalibration: what a learner says is corrected by what happened on tasks that it was not trained on.

    variance_scaling         one factor on the predictive standard deviation
    temperature_scaling      one temperature of the class probabilities
    isotonic_recalibration   one increasing map of the predictive distribution function

Each takes a learner and calibration tasks and returns a learner (`wrappers/recalibrated.py`), with the same three
verbs, whose theta is that of the first and no longer trained. Nothing is learned of the task at hand: a correction
depends on the number of its support points only. Corrections can be stacked: isotonic on top of scaled variances
repairs the tails too.

With few calibration tasks a correction may do more harm than good. Each is therefore tried on tasks that it was not
fitted on, among the calibration tasks, and where their mean gain is not above its standard error, nothing is corrected
at that number of shots.
"""

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesmeta.errors import DataError, InferenceError, retelling
from bayesmeta.evaluation import metrics
from bayesmeta.evaluation.held_out import HeldOut, predicted, predicts_labels, with_room
from bayesmeta.learner import Learner, refusal_of_noise
from bayesmeta.modes import settled
from bayesmeta.outcomes import Numbers
from bayesmeta.predictives import Predictive
from bayesmeta.predictives.recalibrated import LEVELS
from bayesmeta.predictives.scaled import ScaledPredictive
from bayesmeta.tasks.dataset import TaskDataset, naming_columns
from bayesmeta.tasks.source import RandomSplit, Split
from bayesmeta.wrappers.recalibrated import (
    SHOTS,
    IsotonicRecalibrated,
    Recalibrated,
    TemperatureScaled,
    VarianceScaled,
    tempered,
)

SHRINKAGE: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 1000.0, math.inf)
"""What the isotonic map chooses from: the weight, in tasks, of no correction at all."""

FACTOR_BOUNDS = (1e-3, 1e3)
TEMPERATURE_BOUNDS = (1e-2, 1e2)
FOLDS = 10

RecalibratedT = TypeVar("RecalibratedT", bound=Recalibrated)


@settled
@naming_columns
def variance_scaling(
    learner: Learner,
    tasks: TaskDataset,
    shots: Sequence[int] = SHOTS,
    *,
    split: type[Split] = RandomSplit,
    query: int | None = None,
    seed: int = 0,
    batch_size: int = 256,
) -> VarianceScaled:
    """Scale the predictive standard deviation so that calibration tasks become most likely.

    One factor for each number of shots, at which Σ_t (1/M_t) Σ_m log p(y_tm | x_tm, D_t) is largest: each point on its
    own, each task counting the same, as in the `nll` of `evaluate`; or 1, where that is not worthwhile. Means stay as
    they are; so do correlations. One number of shots gives one factor for all.

    Args:
        learner: a trained regression learner; it is left as it was.
        tasks: calibration tasks, none of them used in training or validation. A task with no more points than a number
            of shots is left out there.
        shots: support points of a task, increasing.
        split: as `evaluate` has it.
        query: largest number of query points of a task; None takes all that are left.
        seed: of the division into support and query.
        batch_size: tasks adapted to at once.

    Raises:
        DataError: shots that do not increase, fewer than two tasks with enough points, tasks with labels.
        InferenceError: no factor between 1e-3 and 1e3 is best, or a density is not finite at any.

    Example:
        >>> import bayesmeta as bm
        >>> simulator = bm.tasks.GPFunctions.eq()
        >>> sure = bm.wrappers.VarianceScaled(simulator.oracle, [5])
        >>> _ = sure.log_factors.fill_(-1.0)
        >>> wider = variance_scaling(sure, simulator.dataset(100, 10, seed=0), [5])
        >>> round(wider.log_factors.item())
        1
    """
    scaled = VarianceScaled(learner.frozen(), shots)

    def fit(predictions: list[HeldOut], place: int) -> None:
        what = "a factor on the deviation"
        scaled.log_factors[place] = _best_log(predictions, ScaledPredictive, FACTOR_BOUNDS, what, scaled.shots[place])

    return _fitted(scaled, fit, tasks, split=split, query=query, seed=seed, batch_size=batch_size, labels=False)


@settled
@naming_columns
def temperature_scaling(
    learner: Learner,
    tasks: TaskDataset,
    shots: Sequence[int] = SHOTS,
    *,
    split: type[Split] = RandomSplit,
    query: int | None = None,
    seed: int = 0,
    batch_size: int = 256,
) -> TemperatureScaled:
    """Divide the logits by a temperature at which calibration tasks are most likely (Guo et al. 2017).

    One temperature for each number of shots; 1, where the best is not worthwhile. With `ClassSplit` shots count points
    of each class, as in `evaluate`. No class changes places with another, so accuracy stays as it is.

    Args:
        learner: a trained classifier; it is left as it was.
        tasks: calibration tasks, none of them used in training or validation.
        shots: support points of a task, increasing.
        split: as for `variance_scaling`.
        query: as for `variance_scaling`.
        seed: as for `variance_scaling`.
        batch_size: as for `variance_scaling`.

    Raises:
        DataError: shots that do not increase, fewer than two tasks with enough points, tasks without labels.
        InferenceError: no temperature between .01 and 100 is best (as when every label was predicted), or a label had
            probability zero.

    Example:
        >>> import bayesmeta as bm
        >>> blobs = bm.tasks.GaussianBlobs(ways=3)
        >>> sure = bm.wrappers.TemperatureScaled(blobs.oracle, [2])
        >>> _ = sure.log_temperatures.fill_(-1.0)
        >>> calmer = temperature_scaling(sure, blobs.episodes(100, 6), [2], split=bm.tasks.ClassSplit)
        >>> round(calmer.log_temperatures.item())
        1
    """
    scaled = TemperatureScaled(learner.frozen(), shots)

    def fit(predictions: list[HeldOut], place: int) -> None:
        found = _best_log(predictions, tempered, TEMPERATURE_BOUNDS, "a temperature", scaled.shots[place])
        scaled.log_temperatures[place] = found

    return _fitted(scaled, fit, tasks, split=split, query=query, seed=seed, batch_size=batch_size, labels=True)


@settled
@naming_columns
def isotonic_recalibration(
    learner: Learner,
    tasks: TaskDataset,
    shots: Sequence[int] = SHOTS,
    *,
    split: type[Split] = RandomSplit,
    query: int | None = None,
    seed: int = 0,
    batch_size: int = 256,
) -> IsotonicRecalibrated:
    """Map predictive probabilities to the frequencies seen on calibration tasks (Kuleshov, Fenner, Ermon 2018).

    R(p) is the share of calibration points with F(y) <= p, each task counting the same. (The paper's isotonic
    regression of these shares on p is the shares themselves: they already increase.) So that there is a density, R is
    joined by straight lines between `LEVELS`, and shrunk to the identity, which counts as so many tasks as make each
    task most likely under the map of the others; where even that is not worthwhile, R is the identity. One map for each
    output and number of shots.

    Tails beyond the outermost levels keep the learner's shape: where deviations are far off, scale them first,
    `isotonic_recalibration(variance_scaling(learner, tasks), tasks)`.

    Args:
        learner: a trained regression learner; it is left as it was.
        tasks: calibration tasks, as for `variance_scaling`.
        shots: numbers of support points, increasing.
        split: as for `variance_scaling`.
        query: as for `variance_scaling`.
        seed: as for `variance_scaling`.
        batch_size: as for `variance_scaling`.

    Raises:
        DataError: shots that do not increase, fewer than two tasks with enough points, tasks with labels.
        InferenceError: a predictive probability is not a number.

    Example:
        >>> import bayesmeta as bm
        >>> simulator = bm.tasks.GPFunctions.eq()
        >>> sure = bm.wrappers.VarianceScaled(simulator.oracle, [5])
        >>> _ = sure.log_factors.fill_(-0.5)
        >>> tasks = simulator.dataset(100, 10, seed=0)
        >>> mapped = isotonic_recalibration(sure, tasks, [5])
        >>> [round(bm.evaluate(each, tasks, [5]).table()["coverage"].item(), 1) for each in (sure, mapped)]
        [0.7, 0.9]
    """
    kind = tasks.flat.outcomes
    outputs = kind.count if isinstance(kind, Numbers) else 1
    mapped = IsotonicRecalibrated(learner.frozen(), shots, outputs)

    def fit(predictions: list[HeldOut], place: int) -> None:
        shares = [_shares(metrics.pit(part.predictive, part.y), part.mask) for part in predictions]
        mapped.maps[place] = _best_map(torch.cat(shares))

    return _fitted(mapped, fit, tasks, split=split, query=query, seed=seed, batch_size=batch_size, labels=False)


def _fitted(
    recalibrated: RecalibratedT,
    fit: Callable[[list[HeldOut], int], None],
    tasks: TaskDataset,
    *,
    labels: bool,
    split: type[Split],
    query: int | None,
    seed: int,
    batch_size: int,
) -> RecalibratedT:
    """The correction at each number of shots in turn, by what the learner says of calibration tasks there.

    Args:
        recalibrated: whose correction is set, in place.
        fit: sets it at one place among `recalibrated.shots`, given the predictions there.
        tasks: calibration tasks.
        labels: whether labels are corrected, or numbers.
        split: as for `variance_scaling`.
        query: as for `variance_scaling`.
        seed: as for `variance_scaling`.
        batch_size: as for `variance_scaling`.
    """
    if tasks.flat.noise is not None:
        raise refusal_of_noise(recalibrated.title)
    for place, shots in enumerate(recalibrated.shots):
        chosen, predictions, seen = with_room(tasks, shots, split, 2, "calibration"), list[HeldOut](), list[Tensor]()
        for _, part in chosen.by_length():
            divided = part.divided(split.at(shots, query), seed)
            with retelling(names=part.names):
                predictions += predicted(recalibrated.learner, divided.support, divided.query, batch_size)
            seen.append(divided.support.counts)
        if predicts_labels(predictions[0].predictive) != labels:
            kinds = ("a classifier", "regression") if labels else ("a regression learner", "classes")
            raise DataError(f"expected {kinds[0]}, got a learner that predicts {kinds[1]}")
        fit(predictions, place)
        recalibrated.points[place] = torch.cat(seen).double().mean()
    if bool((recalibrated.points.diff() <= 0.0).any()):
        raise DataError(
            "expected more support points at more shots, got on average "
            f"{recalibrated.points.tolist()} at {list(recalibrated.shots)}: recalibrate at one number of shots"
        )
    return recalibrated


def _shares(pit: Float[Tensor, "B M C"], mask: Bool[Tensor, "B M"]) -> Float[Tensor, "B _ C"]:
    """The share of each task's points between one of `LEVELS` and the next."""
    if bool(pit[mask].isnan().any()):
        raise InferenceError("expected predictive probabilities of the calibration points, got NaN")
    inner = torch.tensor(LEVELS[1:-1], dtype=torch.float64, device=pit.device)
    member = torch.nn.functional.one_hot(torch.bucketize(pit.double().contiguous(), inner), len(LEVELS) - 1)
    real = mask[..., None, None]
    return (member * real).sum(1).mT.double() / mask.sum(-1)[:, None, None]


def _best_map(shares: Float[Tensor, "K _ C"]) -> Float[Tensor, "L C"]:
    """R at `LEVELS` from K tasks, each counting one, and the identity, counting the best of `SHRINKAGE`."""
    widths = torch.tensor(LEVELS, dtype=torch.float64, device=shares.device).diff()[:, None]
    tasks, total = len(shares), shares.sum(0)

    def mixed(weight: float, total: Tensor, tasks: int) -> Tensor:
        return widths.expand_as(total) if weight == math.inf else (total + weight * widths) / (tasks + weight)

    # gain of each task under the map of the others, in nats per point: no correction gains 0
    gains = torch.stack(
        [(shares * (mixed(w, total - shares, tasks - 1) / widths).log()).sum((1, 2)) for w in SHRINKAGE]
    )
    best = int(gains.mean(1).argmax())
    chosen = mixed(SHRINKAGE[best] if _is_worthwhile(gains[best]) else math.inf, total, tasks)
    ends = torch.cat([torch.zeros_like(chosen[:1]), chosen.cumsum(0)])
    return ends / ends[-1]


def _is_worthwhile(gains: Float[Tensor, "K"]) -> bool:
    """Whether the mean of what K tasks gain by a correction that others taught is above its standard error."""
    return not bool(gains.mean() <= gains.std() / math.sqrt(len(gains)))  # an infinite gain is one


def _best_log(
    predictions: list[HeldOut],
    correct: Callable[[Predictive, Tensor], Predictive],
    bounds: tuple[float, float],
    what: str,
    shots: int,
) -> float:
    """The logarithm of the best value for all tasks; 0 where the best of the others is not worthwhile to a task."""
    from scipy.optimize import minimize_scalar

    @torch.no_grad()
    def nll(log_value: float) -> Float[Tensor, "K"]:
        """Of each task, each point on its own, in nats per point."""
        each = []
        for part in predictions:
            value = torch.full((len(part.y),), math.exp(log_value), dtype=torch.float64, device=part.y.device)
            each.append(metrics.marginal_nll(correct(part.predictive, value), part.y, part.mask))
        return torch.cat(each)

    none = nll(0.0)
    if not bool(none.isfinite().all() or nll(1.0).isfinite().all()):
        raise InferenceError(
            f"expected finite densities of the calibration points at {shots} shots, got {float(none.max())} nats: "
            "an outcome that was held impossible cannot be recalibrated"
        )
    low, high = (math.log(bound) for bound in bounds)

    def best(chosen: Tensor) -> float:
        found = minimize_scalar(
            lambda value: float(nll(value)[chosen].mean()),
            bounds=(low, high),
            method="bounded",
            options={"xatol": 1e-6},
        )
        return float(found.x)

    value = best(torch.ones_like(none, dtype=torch.bool))
    if not low + 1e-3 < value < high - 1e-3:
        raise InferenceError(
            f"expected {what} between {bounds[0]:g} and {bounds[1]:g} at {shots} shots, got {math.exp(value):.3g}: "
            "the calibration tasks are predicted without error, or by a learner that is not trained"
        )
    fold = torch.arange(len(none), device=none.device) % FOLDS
    gains = torch.zeros_like(none)
    for number in fold.unique().tolist():
        left_out = fold == number
        gains[left_out] = (none - nll(best(~left_out)))[left_out]
    return value if _is_worthwhile(gains) else 0.0
