"""Learners that see the world in other units.

z = (v - m) / s for inputs and outcomes v, m and s of all meta-training points; a density of y is that of z, over s.

    phi         the learner's, in standard units
    prior       the learner's, in standard units
    likelihood  the learner's, in standard units
    inference   the learner's
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from typing_extensions import override

from bayesmeta.data import Data, TaskBatch
from bayesmeta.description import written
from bayesmeta.errors import BayesMetaError, DataError, InferenceError
from bayesmeta.learner import Learner, LinearMixedModel, MixedModelParts
from bayesmeta.outcomes import Numbers
from bayesmeta.predictives import AffinePredictive, Predictive
from bayesmeta.summaries import Coefficients, Columns, Summary
from bayesmeta.torch_private import Unrounded
from bayesmeta.wrappers.base import WrappedPosterior, Wrapper


class Standardized(Unrounded, Wrapper):
    """A learner in standard units: inputs and outcomes are shifted and scaled by statistics of the meta-training tasks.

    The statistics (mean and standard deviation over all meta-training points, in float64) are taken once, when `fit`
    calls `prepare`; `.float()` and the like never round them, as offsets of 1e6 need float64. Predictions, densities
    and losses are in the user's units; phi stays in standard units.

    Args:
        learner: what works in standard units. When its outcomes are labels or counts, only the inputs are scaled.

    Raises:
        DataError: the learner does not say the shape of its inputs and the number of its outputs.

    Example:
        >>> import bayesmeta as bm
        >>> x, y = [2020.0, 2021.0, 2022.0, 2023.0], [1e6, 2e6, 3e6, 4e6]
        >>> learner = Standardized(bm.ALPaCA(bm.Identity(1)))
        >>> learner.prepare(bm.Data.from_arrays(x, y))
        >>> learner.x_shift.item(), learner.y_shift.item()
        (2021.5, 2500000.0)
        >>> learner.adapt(bm.Data.from_arrays(x[:0], y[:0])).predict([2021.5]).mean.item()
        2500000.0
    """

    x_shift: Tensor
    x_scale: Tensor
    y_shift: Tensor
    y_scale: Tensor

    def __init__(self, learner: Learner) -> None:
        super().__init__(learner)
        if learner.x_shape is None or learner.outcomes is None:
            raise DataError(f"expected a learner with known inputs and outputs, got {type(learner).__name__}")
        _, device = learner.placement()
        for name, shape in (("x", learner.x_shape), ("y", learner.outcomes.y_shape)):
            zeros = torch.zeros(shape, dtype=torch.float64, device=device)
            self.register_buffer(f"{name}_shift", zeros)
            self.register_buffer(f"{name}_scale", zeros.clone())  # 0: not taken yet

    @override
    def prepare(self, tasks: Data) -> None:
        """Take the statistics, unless they were taken before.

        Raises:
            DataError: an outcome that is the same at every point, or fewer than two points.
        """
        tasks, is_first = self.conform(tasks), not self._is_prepared()
        if is_first:
            self._take_statistics(tasks)
        try:
            self.learner.prepare(self.standard(tasks))
        except BayesMetaError:
            if is_first:
                self.y_scale.zero_()  # data that the learner refuses must leave no statistics behind
            raise

    def _take_statistics(self, tasks: Data) -> None:
        if int(tasks.counts.sum()) < 2:
            raise DataError(f"expected at least 2 points to take statistics of, got {int(tasks.counts.sum())}")
        x, y = tasks.x[tasks.mask], tasks.y[tasks.mask]
        if not self.scales_outcomes:
            self.y_scale.fill_(1.0)
        else:
            constant = _is_constant(y)
            if bool(constant.any()):
                column = int(constant.nonzero()[0])
                value = y[0, column].item()
                raise DataError(f"expected outcomes that vary, got {value} at every point of y {column}")
            self.y_shift.copy_(y.mean(0))
            self.y_scale.copy_(y.std(0))
        if x.numel():
            self.x_shift.copy_(x.mean(0))
            self.x_scale.copy_(torch.where(_is_constant(x), 1.0, x.std(0)))  # a constant input becomes 0
        codes = list(self.coded_inputs)
        if codes:
            self.x_shift[codes], self.x_scale[codes] = 0.0, 1.0

    @override
    def loss(self, tasks: TaskBatch) -> Float[Tensor, "B"]:
        """The learner's own loss, in nats per point of the user's units."""
        inner = TaskBatch(self.standard(tasks.support), self.standard(tasks.query), tasks.names)
        return self.learner.loss(inner) + self.y_scale.log().sum()

    @override
    def evidence(self, data: Data) -> Float[Tensor, "B"]:
        """The learner's own evidence, as a density in the user's units, in nats."""
        return self.learner.evidence(self.standard(data)) - data.counts * self.y_scale.log().sum()

    @override
    def joint_evidence(self, *data: Data) -> Float[Tensor, ""]:
        """The learner's own, as a density in the user's units, in nats."""
        points = sum(int(each.counts.sum()) for each in data)
        return self.learner.joint_evidence(*map(self.standard, data)) - points * self.y_scale.log().sum()

    @override
    def remember(self, *data: Data) -> None:
        self.learner.remember(*map(self.standard, data))

    @property
    @override
    def mixed_model(self) -> "StandardizedMixedModel | None":
        """That of the learner, where it is one, in the user's units."""
        inner = self.learner.mixed_model
        return None if inner is None else StandardizedMixedModel(self, inner)

    @override
    def described(self, columns: Columns, *data: Data) -> Summary:
        inner = self.learner.described(self.seen(columns), *map(self.standard, data)).titled(written(self))
        if self._is_prepared():
            return inner
        return inner.with_notes("It has not been trained yet: all numbers are in standard units.")

    @override
    def noise_stddev(self) -> Float[Tensor, "C"] | None:
        noise = self.learner.noise_stddev()
        return noise * self.y_scale if noise is not None and self._is_prepared() else noise

    def seen(self, columns: Columns) -> Columns:
        """The user's columns as the learner inside has them; as they are before the statistics are taken.

        Args:
            columns: of the user.
        """
        statistics = (self.x_shift, self.x_scale, self.y_shift, self.y_scale)
        return columns.seen(*(each.cpu() for each in statistics)) if self._is_prepared() else columns

    @override
    def conform(self, data: Data) -> Data:
        return Learner.conform(self, data)  # the learner's own rules are for data in standard units

    @override
    def placement(self) -> tuple[torch.dtype | None, torch.device | None]:
        return torch.float64, self.y_scale.device  # standardise first, round to the learner's precision after

    @property
    def scales_outcomes(self) -> bool:
        """Whether outcomes are shifted and scaled: not labels, and not counts."""
        return isinstance(self.outcomes, Numbers) and self.outcomes.has_units

    def _is_prepared(self) -> bool:
        return bool((self.y_scale > 0).all())

    def standard(self, data: Data) -> Data:
        """Checked data in standard units, as the learner has it.

        Args:
            data: in the user's units, checked (`conform`).

        Raises:
            InferenceError: the statistics have not been taken yet.
        """
        if not torch.compiler.is_compiling() and not self._is_prepared():
            raise InferenceError("expected statistics of meta-training tasks, got none: call fit (or prepare) first")
        y = (data.y - self.y_shift) / self.y_scale if data.y.is_floating_point() else data.y
        noise = None if data.noise is None else data.noise / self.y_scale.square()
        return self.learner.conform(Data((data.x - self.x_shift) / self.x_scale, y, data.mask, noise))

    @override
    def condition(self, support: Data) -> "StandardizedPosterior":
        return StandardizedPosterior(
            spec=support.spec, learner=self, inner=self.learner.condition(self.standard(support))
        )


def _is_constant(values: Float[Tensor, "P *v"]) -> Bool[Tensor, "*v"]:
    """Whether all points agree, or differ by so little that the square of their deviation underflows."""
    return (values.amax(0) == values.amin(0)) | (values.std(0) == 0.0)


@dataclass(frozen=True, eq=False, kw_only=True)
class StandardizedPosterior(WrappedPosterior):
    """A posterior in standard units that predicts in the user's. Its draws of phi are in standard units.

    Attributes:
        learner: holds the statistics.
    """

    learner: Standardized

    @override
    def at(self, x: Float[Tensor, "B M *x"]) -> Predictive:
        learner = self.learner
        inner = self.inner.at(self.inner.spec.cast((x - learner.x_shift) / learner.x_scale))
        if not learner.scales_outcomes:
            return inner
        return AffinePredictive(inner, learner.y_shift, learner.y_scale)

    @override
    def coefficients(self, columns: Columns) -> Coefficients | None:
        return self.inner.coefficients(self.learner.seen(columns))

    @override
    def extended(self, data: Data) -> "StandardizedPosterior":
        return replace(self, inner=self.inner.extended(self.learner.standard(data)))


@dataclass(frozen=True)
class StandardizedMixedModel(LinearMixedModel):
    """The closed forms of a linear mixed model in standard units, of data in the user's.

    Attributes:
        learner: holds the statistics.
        inner: the mixed model in standard units.
    """

    learner: Standardized
    inner: LinearMixedModel

    def restricted_log_evidence(self, *data: Data) -> Float[Tensor, ""]:
        """The inner one, as a density in the user's units (the prior mean is flat in standard units), in nats."""
        inner = self.inner.restricted_log_evidence(*self._standard(data))
        return inner - sum(each.counts.sum() for each in data) * self.learner.y_scale.log().sum()

    def maximise_exactly(self, *data: Data) -> None:
        """As the inner one does, in standard units."""
        self.inner.maximise_exactly(*self._standard(data))

    def maximise_location(self, *data: Data) -> None:
        """As the inner one does, in standard units."""
        self.inner.maximise_location(*self._standard(data))

    @override
    def parts(self, *data: Data) -> MixedModelParts | None:
        """Those of the inner one."""
        return self.inner.parts(*self._standard(data))

    @override
    def location_covariance(self, *data: Data) -> Float[Tensor, "F F"]:
        """That of the inner one, in standard units."""
        return self.inner.location_covariance(*self._standard(data))

    @override
    def scatter(self, *data: Data) -> Float[Tensor, "C C"]:
        """That of the inner one, in standard units."""
        return self.inner.scatter(*self._standard(data))

    def _standard(self, data: tuple[Data, ...]) -> list[Data]:
        return [self.learner.standard(self.learner.conform(each)) for each in data]
