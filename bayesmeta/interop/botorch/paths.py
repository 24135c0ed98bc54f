"""Draws of a task's whole function, for Thompson sampling: exact where phi is the weights of a last layer.

A draw of phi is a function of x, which an optimiser may follow anywhere. `draw_matheron_paths` of BoTorch, and with it
`get_matheron_path_model` and `PathwiseThompsonSampling`, finds them here: no random Fourier features, and no update.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import torch
from botorch.sampling.pathwise.paths import SamplePath
from botorch.sampling.pathwise.posterior_samplers import DrawMatheronPaths
from jaxtyping import Bool, Float
from torch import Tensor
from typing_extensions import override

from bayesmeta.errors import ShapeError, UnsupportedError
from bayesmeta.interop.botorch.task_model import TaskModel
from bayesmeta.learner import ExplicitLearner, TaskPosterior
from bayesmeta.learners.closed_form.linear_posterior import LinearPosterior, LinearTheta
from bayesmeta.learners.closed_form.mixture_alpaca import MixtureALPaCAPosterior
from bayesmeta.learners.gradient.weighted_draws import WeightedDrawsPosterior
from bayesmeta.networks.network import Network
from bayesmeta.typing import Params
from bayesmeta.wrappers.hyper_posterior import HyperPosteriorBelief, MappedBelief
from bayesmeta.wrappers.sampled import DrawsPosterior
from bayesmeta.wrappers.stacked import StackedPosterior
from bayesmeta.wrappers.standardized import Standardized, StandardizedPosterior


class Functions(ABC):
    """f(x; phi) at S draws of phi of B tasks: functions of inputs that each draw may have its own of."""

    @abstractmethod
    def __call__(self, x: Float[Tensor, "SB M d"]) -> Float[Tensor, "SB M C"]:
        """The values, of all draws of all tasks, draw by draw.

        Args:
            x: in the user's units.
        """


@singledispatch
def functions(posterior: TaskPosterior, num_draws: int) -> Functions:
    """Draws of the function of each task, by torch's global generator.

    Args:
        posterior: of B tasks.
        num_draws: S.

    Raises:
        UnsupportedError: its phi is no function, or not drawn exactly.

    Example:
        >>> import bayesmeta as bm
        >>> from bayesmeta.interop.botorch.paths import functions
        >>> posterior = bm.ALPaCA(bm.Identity(1)).adapt(bm.Data.from_arrays([0.0, 1.0], [0.2, 0.4]))
        >>> lines = functions(posterior, 5)
        >>> lines(torch.zeros(5, 3, 1)).shape  # the same three points for each of five lines
        torch.Size([5, 3, 1])
    """
    raise UnsupportedError(
        f"expected a posterior whose draws are functions, got {type(posterior).__name__}: ALPaCA, MixtureALPaCA, "
        "R2D2Regressor and Sampled have them, also in Standardized, Stacked and HyperPosterior. Others have joint "
        "draws at given points: MaxPosteriorSampling"
    )


@dataclass(frozen=True)
class _Linear(Functions):
    """h(x) W, and an intercept where there is one."""

    features: Network
    weight: Float[Tensor, "SB F C"]
    intercept: Float[Tensor, "C"] | None

    @override
    def __call__(self, x: Float[Tensor, "SB M d"]) -> Float[Tensor, "SB M C"]:
        parameter = next(self.features.parameters(), None)
        design = self.features(x if parameter is None else x.to(parameter.dtype)).to(self.weight.dtype)
        values = design @ self.weight
        return values if self.intercept is None else values + self.intercept


@functions.register
def _(posterior: LinearPosterior, num_draws: int) -> Functions:
    theta: LinearTheta = posterior.theta
    return _Linear(theta.features, posterior.sample(num_draws)["weight"].flatten(0, 1), theta.intercept)


@functions.register
def _(posterior: MixtureALPaCAPosterior, num_draws: int) -> Functions:
    return _Linear(posterior.theta.features, posterior.sample(num_draws)["weight"].flatten(0, 1), None)


@dataclass(frozen=True)
class _Explicit(Functions):
    """The mean of the likelihood at draws of phi."""

    learner: ExplicitLearner
    phi: Params  # each value `SB *shape`

    @override
    def __call__(self, x: Float[Tensor, "SB M d"]) -> Float[Tensor, "SB M C"]:
        first = next(iter(self.phi.values()))
        return self.learner.likelihood(self.learner.forward(self.phi, x.to(first.dtype))).mean


@functions.register(DrawsPosterior)
@functions.register(WeightedDrawsPosterior)
def _(posterior: DrawsPosterior | WeightedDrawsPosterior, num_draws: int) -> Functions:
    learner = posterior.learner
    if not isinstance(learner, ExplicitLearner):
        raise UnsupportedError(f"expected a learner with an explicit likelihood, got {learner.title}")
    draws = posterior.sample(num_draws)
    return _Explicit(learner, {name: value.flatten(0, 1) for name, value in draws.items()})


@dataclass(frozen=True)
class _InUnits(Functions):
    """Functions in standard units, in the user's."""

    learner: Standardized
    inner: Functions

    @override
    def __call__(self, x: Float[Tensor, "SB M d"]) -> Float[Tensor, "SB M C"]:
        learner = self.learner
        return learner.y_shift + learner.y_scale * self.inner((x - learner.x_shift) / learner.x_scale)


@functions.register
def _(posterior: StandardizedPosterior, num_draws: int) -> Functions:
    return _InUnits(posterior.learner, functions(posterior.inner, num_draws))


@dataclass(frozen=True)
class _Chosen(Functions):
    """One of several functions for each draw of each task."""

    members: tuple[Functions, ...]
    is_it: tuple[Bool[Tensor, "SB"], ...]  # whether a draw is of this member

    @override
    def __call__(self, x: Float[Tensor, "SB M d"]) -> Float[Tensor, "SB M C"]:
        each = [member(x).double() for member in self.members]
        return torch.stack(
            [torch.where(own[:, None, None], v, 0.0) for own, v in zip(self.is_it, each, strict=True)]
        ).sum(0)


def _chosen(posteriors: tuple[TaskPosterior, ...], weights: Float[Tensor, "B S"], num_draws: int) -> Functions:
    chosen = torch.multinomial(weights, num_draws, replacement=True).mT.flatten()
    members = tuple(functions(posterior, num_draws) for posterior in posteriors)
    return _Chosen(members, tuple(chosen == member for member in range(len(members))))


@functions.register
def _(posterior: StackedPosterior, num_draws: int) -> Functions:
    weights = posterior.learner.weights.expand(posterior.spec.num_tasks, -1)
    return _chosen(posterior.posteriors, weights, num_draws)


@functions.register(HyperPosteriorBelief)
@functions.register(MappedBelief)
def _(posterior: HyperPosteriorBelief | MappedBelief, num_draws: int) -> Functions:
    return _chosen(posterior.posteriors, posterior.log_weights.exp(), num_draws)


class FunctionPaths(SamplePath):
    """Draws of the functions of tasks as BoTorch's sample paths.

    Of an ensemble every member has a draw of its own of the mixture, of which BoTorch takes one.

    Args:
        model: of the tasks.
        sample_shape: of the draws.

    Raises:
        UnsupportedError: the posterior has no draws of functions.

    Example:
        >>> import bayesmeta as bm
        >>> from botorch.sampling.pathwise import draw_matheron_paths
        >>> from bayesmeta.interop.botorch import TaskModel
        >>> x = torch.tensor([[0.0], [1.0]]).double()
        >>> lines = draw_matheron_paths(TaskModel.adapted(bm.ALPaCA(bm.Identity(1)), x, x), torch.Size([5]))
        >>> values = lines(torch.tensor([[2.0], [3.0], [4.0]]).double())  # of each line at three points
        >>> bool(torch.allclose(values[:, 1] - values[:, 0], values[:, 2] - values[:, 1]))
        True
    """

    def __init__(self, model: TaskModel, sample_shape: torch.Size) -> None:
        super().__init__()
        members = model.batch_shape[len(model.task_shape) :]
        self.outputs, self.has_members = list(model.outputs), len(members) > 0
        self.paths_shape = torch.Size(sample_shape) + model.task_shape + members
        # draws of the members stand before the tasks, whose axis is the last of the functions
        draws = torch.Size(sample_shape).numel() * members.numel()
        self.functions = functions(model.task_posterior, draws)
        self.order = (torch.Size(sample_shape).numel(), model.task_shape.numel(), members.numel())
        self.ensemble_as_batch = False

    @override
    def set_ensemble_as_batch(self, ensemble_as_batch: bool) -> None:
        """Whether inputs have an axis of members.

        Args:
            ensemble_as_batch: as BoTorch sets it.
        """
        self.ensemble_as_batch = ensemble_as_batch

    def forward(self, x: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b n"] | Float[Tensor, "*b m n"]:
        """The values at inputs, whose leading axes are broadcast against draws, tasks and members.

        Args:
            x: for several outputs with an axis of length 1 before n, as BoTorch has it.

        Raises:
            ShapeError: the leading axes do not fit.
        """
        several = len(self.outputs) > 1
        x = x.squeeze(-3) if several else x
        x = x.unsqueeze(-3) if self.has_members and not self.ensemble_as_batch else x
        try:
            batch = torch.broadcast_shapes(x.shape[:-2], self.paths_shape)
        except RuntimeError as error:
            raise ShapeError(f"expected x for functions of shape {self.paths_shape}, got {tuple(x.shape)}") from error
        further = batch[: len(batch) - len(self.paths_shape)]
        if batch[len(further) :] != self.paths_shape:
            raise ShapeError(f"expected x for functions of shape {self.paths_shape}, got {tuple(x.shape)}")
        count, points, size = further.numel(), *x.shape[-2:]
        draws, tasks, members = self.order
        each = x.expand(*batch, points, size).reshape(count, draws, tasks, members, points, size)
        values = self.functions(each.permute(1, 3, 2, 0, 4, 5).reshape(-1, count * points, size))
        values = values.reshape(draws, members, tasks, count, points, -1).permute(3, 0, 2, 1, 4, 5)
        values = values.reshape(*batch, points, -1)[..., self.outputs].to(x.dtype)
        return values.mT if several else values[..., 0]


@DrawMatheronPaths.register(TaskModel)  # type: ignore[untyped-decorator]
def _draw(model: TaskModel, *, sample_shape: torch.Size, **_: Any) -> FunctionPaths:
    return FunctionPaths(model, sample_shape)
