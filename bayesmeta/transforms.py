"""Learners that see the world in other units."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.data import Data, TaskBatch
from bayesmeta.errors import BayesMetaError, DataError, InferenceError
from bayesmeta.learner import Learner, TaskPosterior
from bayesmeta.predictives import AffinePredictive, Predictive
from bayesmeta.typing import Params


class Standardized(Learner):
    """A learner in standard units: inputs and outcomes are shifted and scaled by statistics of the meta-training tasks.

    The statistics (mean and standard deviation over all meta-training points, in float64) are taken once, when `fit`
    calls `prepare`. Predictions, densities and losses are in the user's units; phi stays in standard units.

    Args:
        learner: what works in standard units. When its outcomes are labels, only the inputs are scaled.

    Raises:
        DataError: the learner does not say the shape of its inputs and the number of its outputs.
    """

    x_shift: Tensor
    x_scale: Tensor
    y_shift: Tensor
    y_scale: Tensor

    def __init__(self, learner: Learner) -> None:
        super().__init__()
        if learner.x_shape is None or learner.num_outputs is None:
            raise DataError(f"expected a learner with known inputs and outputs, got {type(learner).__name__}")
        self.learner = learner
        self.x_shape, self.num_outputs = learner.x_shape, learner.num_outputs
        self.exchangeable = learner.exchangeable
        _, device = learner._placement()
        for name, shape in (("x", learner.x_shape), ("y", (learner.num_outputs,))):
            zeros = torch.zeros(shape, dtype=torch.float64, device=device)
            self.register_buffer(f"{name}_shift", zeros)
            self.register_buffer(f"{name}_scale", zeros.clone())  # 0: not taken yet

    @property
    def title(self) -> str:
        """Standardized(...), with the learner's own title inside."""
        return f"Standardized({self.learner.title})"

    def prepare(self, tasks: Data) -> None:
        """Take the statistics, unless they were taken before.

        Raises:
            DataError: an outcome that is the same at every point, or fewer than two points.
        """
        if not self._is_prepared():
            tasks = self.conform(tasks)
            if int(tasks.counts.sum()) < 2:
                raise DataError(f"expected at least 2 points to take statistics of, got {int(tasks.counts.sum())}")
            self.y_scale.fill_(1.0)
            if tasks.y.is_floating_point():
                y = tasks.y[tasks.mask]
                constant = (y.amax(0) == y.amin(0)) | (y.std(0) == 0.0)  # or its spread squared underflows
                if bool(constant.any()):
                    self.y_scale.zero_()
                    column = int(constant.nonzero()[0])
                    value = y[0, column].item()
                    raise DataError(f"expected outcomes that vary, got {value} at every point of y {column}")
                self.y_shift.copy_(y.mean(0))
                self.y_scale.copy_(y.std(0))
            x = tasks.x[tasks.mask]
            if x.numel():
                self.x_shift.copy_(x.mean(0))
                constant = (x.amax(0) == x.amin(0)) | (x.std(0) == 0.0)
                self.x_scale.copy_(torch.where(constant, 1.0, x.std(0)))  # a constant input becomes 0
            try:
                self.learner.prepare(self._standard(tasks))
            except BayesMetaError:
                self.y_scale.zero_()  # data that the learner refuses must leave no statistics behind
                raise
        else:
            self.learner.prepare(self._standard(tasks))

    def meta_loss(self, tasks: TaskBatch) -> Float[Tensor, "B"]:
        """The learner's own loss, in nats per point of the user's units."""
        inner = TaskBatch(self._standard(tasks.support), self._standard(tasks.query), tasks.names)
        return self.learner.meta_loss(inner) + self.y_scale.log().sum()

    def log_evidence(self, data: Data) -> Float[Tensor, "B"]:
        """The learner's own evidence, as a density in the user's units, in nats."""
        return self.learner.log_evidence(self._standard(data)) - data.counts * self.y_scale.log().sum()

    def restricted_log_evidence(self, data: Data) -> Float[Tensor, ""]:
        """The learner's own, as a density in the user's units (the prior mean is flat in standard units), in nats."""
        inner = self.learner.restricted_log_evidence(self._standard(data))
        return inner - data.counts.sum() * self.y_scale.log().sum()

    def maximise_exactly(self, data: Data) -> None:
        """As the learner does, in standard units."""
        self.learner.maximise_exactly(self._standard(data))

    def maximise_location(self, data: Data) -> None:
        """As the learner does, in standard units."""
        self.learner.maximise_location(self._standard(data))

    def log_hyperprior(self) -> Float[Tensor, ""]:
        """The learner's own."""
        return self.learner.log_hyperprior()

    def anneal(self, progress: float) -> None:
        """The learner's own."""
        self.learner.anneal(progress)

    def configure_optimizer(self, lr: float = 1e-3) -> torch.optim.Optimizer:
        """The learner's own."""
        return self.learner.configure_optimizer(lr)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "Standardized":
        """`.float()` and the like move the statistics but never round them: offsets of 1e6 need float64."""
        exact = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in exact.items():
            setattr(self, name, buffer.to(getattr(self, name).device))
        return self

    def _placement(self) -> tuple[torch.dtype | None, torch.device | None]:
        return torch.float64, self.y_scale.device  # standardise first, round to the learner's precision after

    def _is_prepared(self) -> bool:
        return bool((self.y_scale > 0).all())

    def _standard(self, data: Data) -> Data:
        if not torch.compiler.is_compiling() and not self._is_prepared():
            raise InferenceError("expected statistics of meta-training tasks, got none: call fit (or prepare) first")
        data = self.conform(data)
        y = (data.y - self.y_shift) / self.y_scale if data.y.is_floating_point() else data.y
        return self.learner.conform(Data((data.x - self.x_shift) / self.x_scale, y, data.mask))

    def _adapt(self, support: Data) -> "StandardizedPosterior":
        return StandardizedPosterior(
            spec=support.spec, learner=self, inner=self.learner._adapt(self._standard(support))
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class StandardizedPosterior(TaskPosterior):
    """A posterior in standard units that predicts in the user's.

    Attributes:
        learner: holds the statistics.
        inner: the posterior in standard units.
    """

    learner: Standardized
    inner: TaskPosterior

    def sample(self, num_draws: int, generator: torch.Generator | None = None) -> Params:
        """Draws of phi, in standard units."""
        return self.inner.sample(num_draws, generator)

    def _predict(self, x: Float[Tensor, "B M *x"]) -> Predictive:
        learner = self.learner
        inner = self.inner.predict((x - learner.x_shift) / learner.x_scale)
        if not self.spec.y_shape:
            return inner
        return AffinePredictive(inner, learner.y_shift, learner.y_scale)

    def _update(self, data: Data) -> "StandardizedPosterior":
        inner = self.inner.update(self.learner._standard(data))
        return type(self)(spec=self.spec, learner=self.learner, inner=inner)
