"""Recalibration: what a learner says is corrected by what happened on tasks that it was not trained on.

Each method takes a learner and calibration tasks and returns a learner, with the same three verbs, whose theta is that
of the first and no longer trained. Nothing is learned of the task at hand: a correction depends on the number of its
support points only, piecewise linearly in log(1 + points) between the numbers at which it was fitted and constant
outside. Corrections can be stacked: isotonic on top of scaled variances repairs the tails too.

With few calibration tasks a correction may do more harm than good. Each is therefore tried on tasks that it was not
fitted on, among the calibration tasks, and where their mean gain is not above its standard error, nothing is corrected
at that number of shots.
"""

import itertools
import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.distributions import Bernoulli, Categorical
from typing_extensions import override

from bayesmeta.data import Data
from bayesmeta.errors import DataError, InferenceError, ShapeError, UnsupportedError
from bayesmeta.evaluation import metrics
from bayesmeta.learner import Learner, TaskPosterior
from bayesmeta.outcomes import Numbers
from bayesmeta.predictives import IndependentPredictive, Predictive
from bayesmeta.predictives.recalibrated import LEVELS, RecalibratedPredictive
from bayesmeta.predictives.scaled import ScaledPredictive
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.source import RandomSplit, Split
from bayesmeta.torch_private import Unrounded
from bayesmeta.typing import Params

SHOTS: tuple[int, ...] = (0, 1, 2, 5, 10)
"""Numbers of support points that a correction is fitted at unless others are given."""

SHRINKAGE: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 1000.0, math.inf)
"""What the isotonic map chooses from: the weight, in tasks, of no correction at all."""

FACTOR_BOUNDS = (1e-3, 1e3)
TEMPERATURE_BOUNDS = (1e-2, 1e2)
FOLDS = 10


class Recalibrated(Unrounded, Learner):
    """A learner whose predictive is corrected, by the number of support points.

    A subclass gives `_correct`, and keeps the correction in float64 buffers that begin as no correction. `.float()` and
    the like never round them.

    Args:
        learner: what is corrected.
        shots: numbers of support points that the correction is known at, increasing.

    Attributes:
        points: `len(shots)`, mean number of support points of the calibration tasks (other than `shots` where these
            count points by class).

    Raises:
        DataError: no shots, negative ones, or ones that do not increase.
    """

    points: Tensor

    def __init__(self, learner: Learner, shots: Sequence[int]) -> None:
        super().__init__()
        self.learner, self.shots = learner, tuple(int(shot) for shot in shots)
        _check_shots(self.shots)
        self.x_shape, self.outcomes, self.exchangeable = learner.x_shape, learner.outcomes, learner.exchangeable
        _, device = learner.placement()  # the correction lies where theta does
        self.register_buffer("points", torch.tensor(self.shots, dtype=torch.float64, device=device))

    @property
    def title(self) -> str:
        """VarianceScaled(...) or the like, with the learner's own title inside."""
        return f"{type(self).__name__}({self.learner.title})"

    def configure_optimizer(self, lr: float = 1e-3) -> torch.optim.Optimizer:
        """Raises UnsupportedError: with another theta the correction would be another."""
        raise UnsupportedError(
            f"expected a learner to train, got a {type(self).__name__}: train the learner in it, then recalibrate again"
        )

    def prepare(self, tasks: Data) -> None:
        """As the learner does."""
        self.learner.prepare(tasks)

    @override
    def placement(self) -> tuple[torch.dtype | None, torch.device | None]:
        return self.learner.placement()

    @override
    def condition(self, support: Data) -> "RecalibratedPosterior":
        inner = self.learner.condition(support)
        return RecalibratedPosterior(spec=support.spec, learner=self, inner=inner, counts=support.counts)

    def _interpolated(self, counts: Tensor, values: Float[Tensor, "S *v"]) -> Float[Tensor, "B *v"]:
        """Values that are known at `points`, for tasks of these `B` numbers of support points."""
        if len(self.points) == 1:
            return values.expand(len(counts), *values.shape[1:])
        at = self.points.log1p()
        position = counts.double().log1p().clamp(at[0], at[-1])
        upper = torch.searchsorted(at, position).clamp(min=1)
        share = (position - at[upper - 1]) / (at[upper] - at[upper - 1])
        share = share.view(-1, *[1] * (values.ndim - 1))
        return (1.0 - share) * values[upper - 1] + share * values[upper]

    @abstractmethod
    def _correct(self, predictive: Predictive, counts: Tensor) -> Predictive:
        """The predictive that is believed after `B` numbers of support points."""


@dataclass(frozen=True, eq=False, kw_only=True)
class RecalibratedPosterior(TaskPosterior):
    """A posterior whose predictive is corrected.

    Attributes:
        learner: knows the correction.
        inner: the learner's own posterior.
        counts: `B`, support points of each task.
    """

    learner: Recalibrated
    inner: TaskPosterior
    counts: Tensor

    def sample(self, num_draws: int, generator: torch.Generator | None = None) -> Params:
        """The learner's own draws of phi: predictives are corrected, not phi."""
        return self.inner.sample(num_draws, generator)

    @override
    def at(self, x: Float[Tensor, "B M *x"]) -> Predictive:
        return self.learner._correct(self.inner.at(x), self.counts)

    @override
    def extended(self, data: Data) -> "RecalibratedPosterior":
        counts = self.counts + data.counts
        return type(self)(spec=self.spec, learner=self.learner, inner=self.inner.extended(data), counts=counts)


class VarianceScaled(Recalibrated):
    """Predictive deviations times one factor, the same for all outputs. `variance_scaling` fits it.

    Args:
        learner: a regression learner.
        shots: numbers of support points that a factor is known at, increasing.

    Attributes:
        log_factors: `len(shots)`, logarithms of the factors on the deviation; zero until fitted.
    """

    log_factors: Tensor

    def __init__(self, learner: Learner, shots: Sequence[int] = SHOTS) -> None:
        super().__init__(learner, shots)
        self.register_buffer("log_factors", torch.zeros_like(self.points))

    def _correct(self, predictive: Predictive, counts: Tensor) -> Predictive:
        return ScaledPredictive(predictive, self._interpolated(counts, self.log_factors).exp())


class TemperatureScaled(Recalibrated):
    """Class probabilities p ∝ exp(logit / temperature) (Guo et al. 2017). `temperature_scaling` fits it.

    The points of a task become independent given what was learned.

    Args:
        learner: a classifier.
        shots: numbers of support points that a temperature is known at, increasing.

    Attributes:
        log_temperatures: `len(shots)`; zero until fitted.
    """

    log_temperatures: Tensor

    def __init__(self, learner: Learner, shots: Sequence[int] = SHOTS) -> None:
        super().__init__(learner, shots)
        self.register_buffer("log_temperatures", torch.zeros_like(self.points))

    def _correct(self, predictive: Predictive, counts: Tensor) -> Predictive:
        return _tempered(predictive, self._interpolated(counts, self.log_temperatures).exp())


class IsotonicRecalibrated(Recalibrated):
    """Distribution functions R(F(y)) with one increasing map R for each output. `isotonic_recalibration` fits it.

    Args:
        learner: a regression learner.
        shots: numbers of support points that a map is known at, increasing.
        num_outputs: C; the learner's own when None.

    Attributes:
        maps: `len(shots) L C`, R at `LEVELS`; the identity until fitted.

    Raises:
        DataError: the number of outputs is neither given nor known. ShapeError: it is not the learner's.
    """

    maps: Tensor

    def __init__(self, learner: Learner, shots: Sequence[int] = SHOTS, num_outputs: int | None = None) -> None:
        super().__init__(learner, shots)
        known = learner.outcomes.count if isinstance(learner.outcomes, Numbers) else None
        num_outputs = known if num_outputs is None else num_outputs
        if num_outputs is None:
            raise DataError(f"expected a learner that knows its outputs, got {type(learner).__name__}: say how many")
        if known not in (None, num_outputs):
            raise ShapeError(f"expected the learner's {known} outputs, got {num_outputs}")
        levels = self.points.new_tensor(LEVELS)
        self.register_buffer("maps", levels[None, :, None].repeat(len(self.shots), 1, num_outputs))

    def _correct(self, predictive: Predictive, counts: Tensor) -> Predictive:
        return RecalibratedPredictive(predictive, self._interpolated(counts, self.maps))


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
    """Scale the predictive deviation so that calibration tasks become most likely.

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
    """
    scaled = VarianceScaled(learner.frozen(), shots)
    for i, shot in enumerate(scaled.shots):
        predictions = predict_calibration(scaled.learner, tasks, shot, split, query, seed, batch_size)
        predictions.require(classifier=False)

        def nll(log_factor: float, predictions: Predictions = predictions) -> Tensor:
            return predictions.nll(lambda p: ScaledPredictive(p, p.mean.new_full((p.shape[0],), math.exp(log_factor))))

        scaled.log_factors[i] = _fit_log(nll, FACTOR_BOUNDS, "a factor on the deviation", shot)
        scaled.points[i] = predictions.points
    _check_points(scaled)
    return scaled


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
        split: as `evaluate` has it.
        query: largest number of query points of a task; None takes all that are left.
        seed: of the division into support and query.
        batch_size: tasks adapted to at once.

    Raises:
        DataError: shots that do not increase, fewer than two tasks with enough points, tasks without labels.
        InferenceError: no temperature between .01 and 100 is best (as when every label was predicted), or a label had
            probability zero.
    """
    scaled = TemperatureScaled(learner.frozen(), shots)
    for i, shot in enumerate(scaled.shots):
        predictions = predict_calibration(scaled.learner, tasks, shot, split, query, seed, batch_size)
        predictions.require(classifier=True)

        def nll(log_temperature: float, predictions: Predictions = predictions) -> Tensor:
            value = math.exp(log_temperature)
            return predictions.nll(lambda p: _tempered(p, p.probs.new_full((p.shape[0],), value)))

        scaled.log_temperatures[i] = _fit_log(nll, TEMPERATURE_BOUNDS, "a temperature", shot)
        scaled.points[i] = predictions.points
    _check_points(scaled)
    return scaled


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
        tasks: calibration tasks, none of them used in training or validation. A task with no more points than a number
            of shots is left out there.
        shots: support points of a task, increasing.
        split: as `evaluate` has it.
        query: largest number of query points of a task; None takes all that are left.
        seed: of the division into support and query.
        batch_size: tasks adapted to at once.

    Raises:
        DataError: shots that do not increase, fewer than two tasks with enough points, tasks with labels.
        InferenceError: a predictive probability is not a number.
    """
    outputs = tasks.data.y.shape[-1] if tasks.data.y.is_floating_point() else 1
    mapped = IsotonicRecalibrated(learner.frozen(), shots, outputs)
    for i, shot in enumerate(mapped.shots):
        predictions = predict_calibration(mapped.learner, tasks, shot, split, query, seed, batch_size)
        predictions.require(classifier=False)
        shares = torch.cat([_shares(metrics.pit(p, y), mask) for p, y, mask in predictions.batches])
        mapped.maps[i] = _fit_map(shares)
        mapped.points[i] = predictions.points
    _check_points(mapped)
    return mapped


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a learner says of the query points of calibration tasks.

    Attributes:
        batches: (predictive, y `B M *c`, mask `B M`) of some tasks each.
        support: what was adapted to, all K tasks.
    """

    batches: tuple[tuple[Predictive, Tensor, Tensor], ...]
    support: Data

    @property
    def sizes(self) -> Int[Tensor, "K"]:
        """Support points of each task."""
        return self.support.counts

    @property
    def points(self) -> float:
        """Mean number of support points."""
        return float(self.sizes.double().mean())

    def nll(self, correct: Callable[[Predictive], Predictive]) -> Float[Tensor, "K"]:
        """Marginal negative log likelihood of each task after a correction, in nats per point."""
        with torch.no_grad():
            return torch.cat([metrics.marginal_nll(correct(p), y, mask) for p, y, mask in self.batches])

    def require(self, classifier: bool) -> None:
        """Raises DataError for outcomes that are not what the learner predicts, or a method does not correct."""
        for predictive, y, mask in self.batches:
            if isinstance(predictive.marginals, Bernoulli | Categorical) != classifier:
                kinds = ("a classifier", "regression") if classifier else ("a regression learner", "classes")
                raise DataError(f"expected {kinds[0]}, got a learner that predicts {kinds[1]}")
            require_outcomes(predictive, y, mask)


def require_outcomes(predictive: Predictive, y: Tensor, mask: Tensor) -> None:
    """Raises DataError or ShapeError for outcomes that are not what is predicted: labels, or numbers of other shape."""
    if isinstance(predictive.marginals, Bernoulli | Categorical):
        classes, real = predictive.probs.shape[-1], y[mask]
        if y.is_floating_point():
            raise DataError("expected tasks whose outcomes are labels, which this learner predicts, got numbers")
        if bool(((real < 0) | (real >= classes)).any()):
            raise DataError(f"expected labels from 0 to {classes - 1}, got {int(real.min())}..{int(real.max())}")
    elif not y.is_floating_point():
        raise DataError("expected tasks whose outcomes are numbers, which this learner predicts, got labels")
    elif predictive.mean.shape != y.shape:
        raise ShapeError(f"expected predictions of shape {tuple(y.shape)}, got {tuple(predictive.mean.shape)}")


def predict_calibration(
    learner: Learner, tasks: TaskDataset, shots: int, split: type[Split], query: int | None, seed: int, batch_size: int
) -> Predictions:
    """Adapt to `shots` points of every task that has more, and predict its other points.

    Raises:
        DataError: fewer than two tasks have enough points, or an empty batch is asked for.
        ShapeError: the tasks do not have the learner's inputs or outputs.
    """
    if batch_size < 1:
        raise DataError(f"expected at least one task in a batch, got {batch_size}")
    room = split.room(tasks.data)
    positions = (room >= shots).nonzero().flatten()
    if len(positions) < 2:
        raise DataError(
            f"expected at least 2 calibration tasks with more than {shots} {split.counted}, got {len(positions)}: "
            "ask for fewer shots, or give tasks with more points"
        )
    divided = tasks.select(positions.tolist()).divided(split.at(shots, query), seed)
    batches = []
    with torch.no_grad():
        for chunk in torch.arange(len(positions)).split(batch_size):
            support, data = learner.conform(divided.support.select(chunk)), learner.conform(divided.query.select(chunk))
            batches.append((learner.condition(support).at(data.x), data.y, data.mask))
    return Predictions(tuple(batches), divided.support)


def _tempered(predictive: Predictive, temperature: Float[Tensor, "B"]) -> IndependentPredictive:
    marginals = predictive.marginals
    if isinstance(marginals, Bernoulli):
        logits = marginals.logits / temperature.to(marginals.logits.dtype)[:, None]
        return IndependentPredictive(Bernoulli(logits=logits, validate_args=False))
    if isinstance(marginals, Categorical):
        logits = marginals.logits / temperature.to(marginals.logits.dtype)[:, None, None]
        return IndependentPredictive(Categorical(logits=logits, validate_args=False))
    raise UnsupportedError("expected class probabilities to give a temperature, got a regression predictive")


def _shares(pit: Float[Tensor, "B M C"], mask: Bool[Tensor, "B M"]) -> Float[Tensor, "B _ C"]:
    """The share of each task's points between one of `LEVELS` and the next."""
    if bool(pit[mask].isnan().any()):
        raise InferenceError("expected predictive probabilities of the calibration points, got NaN")
    inner = torch.tensor(LEVELS[1:-1], dtype=torch.float64, device=pit.device)
    member = torch.nn.functional.one_hot(torch.bucketize(pit.double().contiguous(), inner), len(LEVELS) - 1)
    real = mask[..., None, None]
    return (member * real).sum(1).mT.double() / mask.sum(-1)[:, None, None]


def _fit_map(shares: Float[Tensor, "K _ C"]) -> Float[Tensor, "L C"]:
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


def _fit_log(nll: Callable[[float], Tensor], bounds: tuple[float, float], what: str, shots: int) -> float:
    """The logarithm of the best value for all tasks; 0 where the best of the others is not worthwhile to a task."""
    from scipy.optimize import minimize_scalar

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


def _check_shots(shots: tuple[int, ...]) -> None:
    if not shots or shots[0] < 0 or any(a >= b for a, b in itertools.pairwise(shots)):
        raise DataError(f"expected numbers of shots that increase, none of them negative, got {list(shots)}")


def _check_points(recalibrated: Recalibrated) -> None:
    if bool((recalibrated.points.diff() <= 0.0).any()):
        raise DataError(
            "expected more support points at more shots, got on average "
            f"{recalibrated.points.tolist()} at {list(recalibrated.shots)}: recalibrate at one number of shots"
        )
