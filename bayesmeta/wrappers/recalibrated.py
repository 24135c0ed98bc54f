"""Learners whose predictives are corrected by the number of support points: what recalibration makes.

`variance_scaling`, `temperature_scaling` and `isotonic_recalibration` fit the corrections. Between the numbers of
support points at which a correction is known it is linear in log(1 + points), and outside of them constant.

    phi         the learner's
    prior       the learner's
    likelihood  the learner's
    inference   the learner's; its predictive is corrected afterwards: its variance, its logits, or its cdf
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import Bernoulli, Categorical
from typing_extensions import override

from bayesmeta.arguments import rising_shots
from bayesmeta.data import Data
from bayesmeta.errors import DataError, ShapeError, UnsupportedError
from bayesmeta.learner import Learner
from bayesmeta.outcomes import Counts, Numbers, Positives
from bayesmeta.predictives import IndependentPredictive, OpenSetPredictive, Predictive
from bayesmeta.predictives.recalibrated import LEVELS, RecalibratedPredictive
from bayesmeta.predictives.scaled import ScaledPredictive
from bayesmeta.torch_private import Unrounded
from bayesmeta.wrappers.base import Untrainable, WrappedPosterior
from bayesmeta.wrappers.by_points import interpolated

SHOTS: tuple[int, ...] = (0, 1, 2, 5, 10)
"""Numbers of support points that a correction is known at unless others are given."""


class Recalibrated(Unrounded, Untrainable):
    """A learner whose predictive is corrected, by the number of support points: what recalibration returns.

    A subclass gives `corrected`, and keeps the correction in float64 buffers that begin as no correction. `.float()`
    and the like never round them. With another theta the correction would be another, so it is not trained any more.

    Args:
        learner: what is corrected.
        shots: numbers of support points that the correction is known at, increasing.

    Attributes:
        points: `len(shots)`, mean number of support points of the calibration tasks (other than `shots` where these
            count points by class).

    Raises:
        DataError: no shots, negative ones, or ones that do not increase.

    Example:
        >>> import bayesmeta as bm
        >>> from bayesmeta.predictives.scaled import ScaledPredictive
        >>> class Widened(bm.wrappers.Recalibrated):  # deviations times a factor that is known at each number of shots
        ...     def __init__(self, learner, shots, factors):
        ...         super().__init__(learner, shots)
        ...         self.register_buffer("factors", torch.tensor(factors, dtype=torch.float64))
        ...     def corrected(self, predictive, counts):
        ...         return ScaledPredictive(predictive, self.interpolated(self.factors, counts))
        >>> learner, nothing = bm.ALPaCA(bm.Identity(1)), bm.Data.from_arrays([], [])
        >>> wider = Widened(learner, shots=[0, 5], factors=[2.0, 1.0])
        >>> deviations = [each.adapt(nothing).predict([1.0]).stddev for each in (wider, learner)]
        >>> round((deviations[0] / deviations[1]).item(), 3)
        2.0
    """

    points: Tensor

    def __init__(self, learner: Learner, shots: Sequence[int]) -> None:
        super().__init__(learner)
        self.known_noise = False  # what is corrected of a sum of learned and known noise is not known
        self.shots = rising_shots(shots, least=0)
        _, device = learner.placement()  # the correction lies where theta does
        self.register_buffer("points", torch.tensor(self.shots, dtype=torch.float64, device=device))

    @override
    def evidence(self, data: Data) -> Float[Tensor, "B"]:
        """Raises UnsupportedError: predictives that are corrected one by one are no factors of one density."""
        raise UnsupportedError(f"{type(self).__name__} has no evidence: that of the learner in it is not corrected")

    @override
    def condition(self, support: Data) -> "RecalibratedPosterior":
        inner = self.learner.condition(support)
        return RecalibratedPosterior(spec=support.spec, learner=self, inner=inner, counts=support.counts)

    def interpolated(self, values: Float[Tensor, "S *v"], counts: Int[Tensor, "B"]) -> Float[Tensor, "B *v"]:
        """Values that are known at `points`, for tasks of these numbers of support points: linear in log(1 + points).

        Args:
            values: one for each of `shots`.
            counts: support points of each task.
        """
        return interpolated(values, self.points, counts)

    @abstractmethod
    def corrected(self, predictive: Predictive, counts: Int[Tensor, "B"]) -> Predictive:
        """The corrected predictive, of tasks that have these numbers of support points.

        Args:
            predictive: the learner's own.
            counts: support points of each task.
        """


@dataclass(frozen=True, eq=False, kw_only=True)
class RecalibratedPosterior(WrappedPosterior):
    """A posterior whose predictive is corrected. Its draws are the learner's own: phi is not corrected.

    Attributes:
        learner: knows the correction.
        counts: support points of each task.
    """

    learner: Recalibrated
    counts: Int[Tensor, "B"]

    @property
    @override
    def points_seen(self) -> Int[Tensor, "B"]:
        return self.counts

    @override
    def at(self, x: Float[Tensor, "B M *x"]) -> Predictive:
        return self.learner.corrected(self.inner.at(x), self.counts)

    @override
    def selected(self, tasks: Int[Tensor, "K"]) -> "RecalibratedPosterior":
        inner = self.inner.selected(tasks)
        return replace(self, spec=self.spec.of_tasks(len(tasks)), inner=inner, counts=self.counts[tasks])

    @override
    def extended(self, data: Data) -> "RecalibratedPosterior":
        return replace(self, inner=self.inner.extended(data), counts=self.counts + data.counts)


class VarianceScaled(Recalibrated):
    """Predictive standard deviations times one factor, the same for all outputs. `variance_scaling` fits it.

    Args:
        learner: a regression learner.
        shots: numbers of support points that a factor is known at, increasing.

    Attributes:
        log_factors: `len(shots)`, logarithms of the factors on the standard deviation; zero until fitted.

    Example:
        >>> import math
        >>> import bayesmeta as bm
        >>> learner, nothing = bm.ALPaCA(bm.Identity(1)), bm.Data.from_arrays([], [])
        >>> wider = VarianceScaled(learner)
        >>> _ = wider.log_factors.fill_(math.log(2.0))
        >>> deviations = [each.adapt(nothing).predict([1.0]).stddev for each in (wider, learner)]
        >>> round((deviations[0] / deviations[1]).item(), 3)
        2.0
    """

    log_factors: Tensor

    def __init__(self, learner: Learner, shots: Sequence[int] = SHOTS) -> None:
        super().__init__(learner, shots)
        if isinstance(learner.outcomes, Counts | Positives):
            raise UnsupportedError(
                f"expected outcomes that may be any number, got {learner.outcomes} of {learner.title}: with another "
                "deviation counts are no counts, and positive numbers not positive (correct the learner of logarithms)"
            )
        self.register_buffer("log_factors", torch.zeros_like(self.points))

    @override
    def corrected(self, predictive: Predictive, counts: Int[Tensor, "B"]) -> Predictive:
        return ScaledPredictive(predictive, self.interpolated(self.log_factors, counts).exp())


class TemperatureScaled(Recalibrated):
    """Class probabilities p ∝ exp(logit / temperature) (Guo et al. 2017). `temperature_scaling` fits it.

    The points of a task become independent given what was learned.

    Args:
        learner: a classifier.
        shots: numbers of support points that a temperature is known at, increasing.

    Attributes:
        log_temperatures: `len(shots)`; zero until fitted.

    Example:
        >>> import math
        >>> import bayesmeta as bm
        >>> learner, task = bm.R2D2(bm.Identity(1), num_classes=2), bm.Data.from_labels([0.0, 1.0], [0, 1])
        >>> calmer = TemperatureScaled(learner)
        >>> _ = calmer.log_temperatures.fill_(math.log(10.0))
        >>> sure, calm = (each.adapt(task).predict([0.0]).probs.amax() for each in (learner, calmer))
        >>> bool(0.5 < calm < sure)
        True
    """

    log_temperatures: Tensor

    def __init__(self, learner: Learner, shots: Sequence[int] = SHOTS) -> None:
        super().__init__(learner, shots)
        self.register_buffer("log_temperatures", torch.zeros_like(self.points))

    @override
    def corrected(self, predictive: Predictive, counts: Int[Tensor, "B"]) -> Predictive:
        return tempered(predictive, self.interpolated(self.log_temperatures, counts).exp())


class IsotonicRecalibrated(Recalibrated):
    """Distribution functions R(F(y)) with one increasing map R for each output. `isotonic_recalibration` fits it.

    Args:
        learner: a regression learner.
        shots: numbers of support points that a map is known at, increasing.
        num_outputs: C; the learner's own when None.

    Attributes:
        maps: `len(shots) L C`, R at `LEVELS`; the identity until fitted.

    Raises:
        DataError: the number of outputs is neither given nor known.
        ShapeError: it is not the learner's.

    Example:
        >>> import bayesmeta as bm
        >>> learner, nothing = bm.ALPaCA(bm.Identity(1)).double(), bm.Data.from_arrays([], [])
        >>> mapped = IsotonicRecalibrated(learner)
        >>> _ = mapped.maps.square_()  # R(p) = p² at the levels: outcomes are larger than the learner says
        >>> predictions = [each.adapt(nothing).predict([1.0]) for each in (learner, mapped)]
        >>> bool(predictions[1].mean > predictions[0].mean)
        True
        >>> round(predictions[1].cdf(predictions[0].quantile(0.5)).item(), 2)
        0.25
    """

    maps: Tensor

    def __init__(self, learner: Learner, shots: Sequence[int] = SHOTS, num_outputs: int | None = None) -> None:
        super().__init__(learner, shots)
        if isinstance(learner.outcomes, Counts):
            raise UnsupportedError(
                f"expected outcomes with a continuous distribution function, got the counts of {learner.title}"
            )
        known = learner.outcomes.count if isinstance(learner.outcomes, Numbers) else None
        num_outputs = known if num_outputs is None else num_outputs
        if num_outputs is None:
            raise DataError(f"expected a learner that knows its outputs, got {type(learner).__name__}: say how many")
        if known not in (None, num_outputs):
            raise ShapeError(f"expected the learner's {known} outputs, got {num_outputs}")
        levels = self.points.new_tensor(LEVELS)
        self.register_buffer("maps", levels[None, :, None].repeat(len(self.shots), 1, num_outputs))

    @override
    def corrected(self, predictive: Predictive, counts: Int[Tensor, "B"]) -> Predictive:
        return RecalibratedPredictive(predictive, self.interpolated(self.maps, counts))


def tempered(predictive: Predictive, temperature: Float[Tensor, "B"]) -> IndependentPredictive:
    """Class probabilities p ∝ exp(logit / temperature), point by point.

    The `log_ratio` of an `OpenSetPredictive` is kept: labels of the classes say nothing of points that are of none.

    Args:
        predictive: of class probabilities.
        temperature: of each task, positive.

    Raises:
        UnsupportedError: the predictive is one of regression.

    Example:
        >>> sure = IndependentPredictive(Categorical(probs=torch.tensor([[[0.8, 0.2]]])))
        >>> tempered(sure, torch.tensor([2.0])).probs
        tensor([[[0.6667, 0.3333]]])
    """
    marginals = predictive.marginals
    if not isinstance(marginals, Bernoulli | Categorical):
        raise UnsupportedError("expected class probabilities to give a temperature, got a regression predictive")
    logits = marginals.logits
    divided = logits / temperature.to(logits.dtype).view(-1, *[1] * (logits.ndim - 1))
    distribution = type(marginals)(logits=divided, validate_args=False)
    if isinstance(predictive, OpenSetPredictive):
        return replace(predictive, distribution=distribution)
    return IndependentPredictive(distribution)
