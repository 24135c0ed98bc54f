"""Learner holds theta; TaskPosterior holds what one batch of tasks has taught it.

The two verbs between them:

    theta --adapt(support)--> p(phi | D, theta) --predict(x)--> p(y | x, D, theta)
"""

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesmeta.data import Data, DataSpec, TaskBatch
from bayesmeta.description import Described
from bayesmeta.errors import DataError, InferenceError, UnsupportedError
from bayesmeta.likelihoods import Likelihood
from bayesmeta.predictives import Predictive
from bayesmeta.priors import Prior
from bayesmeta.typing import ArrayLike, LogJoint, Params


@dataclass(frozen=True, eq=False, kw_only=True)
class TaskPosterior(ABC):
    """p(phi | D, theta) of a batch of tasks: a value. `update` returns a new one and leaves this one as it was.

    A subclass is a frozen dataclass that gives `_predict` and `_update`.

    Attributes:
        spec: the shapes, precision and device that further data must have (it is converted to them).
    """

    spec: DataSpec

    @final
    def predict(self, x: ArrayLike) -> Predictive:
        """The predictive distribution at query points.

        Args:
            x: `B M *x`; for a single task `M *x` is enough, or `M` where inputs are numbers. numpy, pandas or torch.

        Raises:
            ShapeError: x has the wrong shape. DataError: a cell is not a finite number.
        """
        return self._predict(self.spec.queries(x))

    @final
    def update(self, data: Data) -> "TaskPosterior":
        """The posterior after more points of the same tasks: the same as adapting on all of them at once.

        Raises:
            ShapeError: the data are of other tasks or shapes.
        """
        return self._update(self.spec.conform(data))

    def sample(self, num_draws: int, generator: torch.Generator | None = None) -> Params:
        """Draws of phi, each value `S B *shape`. Raises UnsupportedError where phi has no density to draw from."""
        raise UnsupportedError(f"{type(self).__name__} has no draws of phi")

    @abstractmethod
    def _predict(self, x: Float[Tensor, "B M *x"]) -> Predictive: ...

    @abstractmethod
    def _update(self, data: Data) -> "TaskPosterior": ...


class Learner(Described, nn.Module, ABC):
    """A meta-learner: `parameters()` is theta, and `adapt` gives p(phi | D, theta) for a batch of tasks.

    A subclass gives `_adapt`, which is differentiable in theta and gets data in the learner's own precision.

    Attributes:
        exchangeable: False only where the method itself depends on the order of the support (SNAIL, MANN).
        x_shape: shape of one input, or None when any will do.
        num_outputs: C, or None when any will do.
    """

    exchangeable: bool = True
    x_shape: tuple[int, ...] | None = None
    num_outputs: int | None = None

    @property
    def title(self) -> str:
        """What tables and figures call this learner: the name of its class unless a subclass says more."""
        return type(self).__name__

    @final
    def adapt(self, support: Data) -> TaskPosterior:
        """p(phi | D, theta). Deterministic; an empty support gives the prior.

        The posterior keeps its own frozen copy of theta, builds no graph to it and does not change when training goes
        on. Gradients with respect to query points flow through `predict` as usual.

        Raises:
            ShapeError: the support does not have the learner's inputs or outputs.
            InferenceError: the posterior cannot be computed.
        """
        learner = self.frozen()
        with torch.no_grad():
            return learner._adapt(self.conform(support))

    @final
    def surprise(self, support: Data, num_draws: int = 199, seed: int = 0) -> Float[Tensor, "B"]:
        """Prior-predictive tail probability of each task's points under theta: P(p(y' | x, theta) <= p(y | x, theta)).

        y' are draws from the prior predictive at the same inputs (Box 1980). Uniform where the model is true, and small
        where the points are less likely than theta expects; points that are *too* likely, as of less noise, have values
        near 1. It believes the model: `Surprise` asks real tasks instead, and looks both ways.

        Args:
            support: points of the tasks; a task without any has 1.
            num_draws: S; no value is below 1/(S + 1).
            seed: of the draws, anew for each task: a batch is as its tasks one by one.

        Raises:
            ShapeError: the support does not have the learner's inputs or outputs.
            DataError: no draws. InferenceError: a log density is not a number.
        """
        if num_draws < 1:
            raise DataError(f"expected at least one draw, got {num_draws}")
        learner, support = self.frozen(), self.conform(support)
        result = torch.ones(support.num_tasks, dtype=torch.float64)
        for b in support.counts.nonzero().flatten().tolist():
            x, y = support.x[b, support.mask[b]][None], support.y[b, support.mask[b]][None]
            alone = Data.empty(Data(x, y, support.mask[b, support.mask[b]][None]))
            draws = learner.adapt(alone).predict(x).sample((num_draws,), torch.Generator(x.device).manual_seed(seed))
            outcomes = torch.cat([y, draws[:, 0].to(y.dtype)])  # S+1 N *c, the task's own first
            copies = learner.adapt(alone.select([0] * len(outcomes))).predict(x.repeat_interleave(len(outcomes), 0))
            density = copies.log_prob(outcomes)
            if bool(density.isnan().any()):
                raise InferenceError("expected log densities of the support, got NaN: is the learner trained?")
            result[b] = (density <= density[0]).double().mean()
        return result

    def meta_loss(self, tasks: TaskBatch) -> Float[Tensor, "B"]:
        """The loss of step 2, one value per task, differentiable in theta: -log p(query | support, theta) / M, nats."""
        tasks = self.conform_tasks(tasks)
        posterior = self._adapt(tasks.support)
        query = tasks.query
        return -posterior._predict(query.x).log_prob(query.y, query.mask) / query.counts.clamp(min=1)

    def log_evidence(self, data: Data) -> Float[Tensor, "B"]:
        """log p(D | theta) of each task, phi integrated out, in nats. Raises UnsupportedError where it has no form."""
        raise UnsupportedError(f"{type(self).__name__} has no closed form of the evidence: use a predictive objective")

    def restricted_log_evidence(self, data: Data) -> Float[Tensor, ""]:
        """log ∫ Π_t p(D_t | theta) d(prior mean), all tasks together, in nats; UnsupportedError without a form."""
        raise UnsupportedError(f"{type(self).__name__} has no closed form of the restricted evidence")

    def maximise_exactly(self, data: Data) -> None:
        """Set the part of theta whose evidence-maximising value has a closed form given the rest; by default none."""

    def maximise_location(self, data: Data) -> None:
        """Set the prior mean to the value that maximises the evidence given the rest; by default nothing."""

    def log_hyperprior(self) -> Float[Tensor, ""]:
        """log p(theta), in nats, up to a constant: 0 unless a subclass has one."""
        return torch.zeros(())

    def configure_optimizer(self, lr: float = 1e-3) -> torch.optim.Optimizer:
        """The optimizer that `fit` uses for theta: Adam unless a subclass has reason for another."""
        return torch.optim.Adam([p for p in self.parameters() if p.requires_grad], lr=lr)

    def prepare(self, tasks: Data) -> None:
        """Called once by `fit` with the meta-training points, before the first step; for statistics of the data."""

    def anneal(self, progress: float) -> None:
        """Called by `fit` before every step with the share of the training that is done, 0 to 1, and with 1 at its end;
        for schedules.
        """

    def frozen(self) -> "Learner":
        """A copy whose theta never changes; the learner itself when nothing in it can be trained any more."""
        if not any(p.requires_grad for p in self.parameters()):
            return self
        return copy.deepcopy(self).requires_grad_(False)

    def conform(self, data: Data) -> Data:
        """`data` in the learner's precision and on its device.

        Raises:
            ShapeError: the data do not have the learner's inputs or outputs.
        """
        if not isinstance(data, Data):
            raise DataError(f"expected Data, got {type(data).__name__}: make it with Data.from_arrays(x, y)")
        spec = data.spec
        dtype, device = self._placement()
        expected = spec._replace(
            x_shape=spec.x_shape if self.x_shape is None else self.x_shape,
            y_shape=(self.num_outputs,) if self.num_outputs is not None and spec.y_shape else spec.y_shape,
            dtype=spec.dtype if dtype is None else dtype,
            device=spec.device if device is None else device,
        )
        return expected.conform(data)

    def conform_tasks(self, tasks: TaskBatch) -> TaskBatch:
        """Support and query in the learner's precision and on its device. Raises ShapeError like `conform`."""
        return TaskBatch(self.conform(tasks.support), self.conform(tasks.query), tasks.names)

    def _placement(self) -> tuple[torch.dtype | None, torch.device | None]:
        """The precision and device that data are converted to; None leaves them as they are."""
        parameter = next(self.parameters(), None)
        return (None, None) if parameter is None else (parameter.dtype, parameter.device)

    @abstractmethod
    def _adapt(self, support: Data) -> TaskPosterior: ...


class ExplicitLearner(Learner):
    """A learner whose phi is named tensors with an explicit prior and likelihood.

    A subclass gives `prior`, `likelihood` and `forward`, the network outputs f(x; phi).
    """

    prior: Prior
    likelihood: Likelihood

    @abstractmethod
    def forward(self, phi: Params, x: Float[Tensor, "B M *x"]) -> Float[Tensor, "*s B M K"]:
        """f(x; phi) at every point of every task, for one phi a task or for S draws of it."""

    def log_joint(self, data: Data) -> LogJoint:
        """phi -> log p(y | x, phi) + log p(phi | theta), per task, in nats. Raises ShapeError like `conform`.

        What depends on theta alone is computed once: all values share that part of their graph.
        """
        data = self.conform(data)
        given = self.likelihood.given(data)
        return lambda phi: given(self.forward(phi, data.x)) + self.prior.log_prob(phi)
