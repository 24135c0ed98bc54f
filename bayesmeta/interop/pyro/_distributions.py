"""Distributions of torch, and priors, as Pyro wants them."""

import copy
from functools import cache
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from bayesmeta.priors import LastLayerPrior, Prior

NO_SHAPE = torch.Size()


class OfPrior(dist.TorchDistribution):
    """A prior over one tensor, as a distribution."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012  (torch's name for it)

    def __init__(self, prior: Prior, name: str, shape: torch.Size, batch_shape: torch.Size = NO_SHAPE) -> None:
        self.prior, self.name = prior, name
        super().__init__(batch_shape, shape, validate_args=False)

    @property
    def support(self) -> Any:
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> "OfPrior":
        return type(self)(self.prior, self.name, self.event_shape, torch.Size(batch_shape))

    @torch.no_grad()
    def sample(self, sample_shape: Any = NO_SHAPE) -> Tensor:
        shape = torch.Size(sample_shape) + self.batch_shape
        return self.prior.sample(shape.numel())[self.name].reshape(shape + self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.prior.log_prob({self.name: value})


class OfWeight(dist.TorchDistribution):
    """p(W | λ) of a prior whose tasks have scales, as a distribution."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012  (torch's name for it)
    support = constraints.independent(constraints.real, 2)

    def __init__(self, prior: LastLayerPrior, log_scale: Tensor) -> None:
        self.prior, self.log_scale = prior, log_scale
        super().__init__(log_scale.shape, prior.weight_mean.shape, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "OfWeight":
        return OfWeight(self.prior, self.log_scale.expand(batch_shape))

    @torch.no_grad()
    def sample(self, sample_shape: Any = NO_SHAPE) -> Tensor:
        scales = self.log_scale.expand(torch.Size(sample_shape) + self.batch_shape)
        draws = self.prior.draw_weight(scales.numel(), scales.flatten())
        return draws.reshape(scales.shape + self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.prior.weight_log_prob(value, self.log_scale)


class Flat(dist.TorchDistribution):
    """No density: that is a factor elsewhere. A "draw" is the value of the learner."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012  (torch's name for it)

    support = constraints.real

    def __init__(self, value: Tensor) -> None:
        self.value = value
        super().__init__(value.shape, validate_args=False)

    def sample(self, sample_shape: Any = NO_SHAPE) -> Tensor:
        return self.value.expand(torch.Size(sample_shape) + self.batch_shape).clone()

    def log_prob(self, value: Tensor) -> Tensor:
        return torch.zeros_like(value)


def flat(value: Tensor) -> Any:
    """`Flat` over one tensor."""
    distribution: Any = Flat(value.detach())
    return distribution.to_event()


@cache
def kind_of_prior(name: str) -> type[OfPrior]:
    """`OfPrior` under the name of the prior, which diagrams show."""
    return type(name, (OfPrior,), {})


def for_pyro(distribution: Distribution) -> Any:
    """A distribution of torch, or of the user, with what Pyro asks for beyond torch. Pyro's own classes are such."""
    if isinstance(distribution, dist.torch_distribution.TorchDistributionMixin):
        return distribution
    result: Any = copy.copy(distribution)
    kind: Any = type(result)
    result.__class__ = _kind_for_pyro(kind)
    if isinstance(result, torch.distributions.Independent):
        result.base_dist = for_pyro(result.base_dist)
    return result


@cache
def _kind_for_pyro(kind: Any) -> type[Any]:
    theirs = getattr(dist, kind.__name__, None)
    if isinstance(theirs, type) and issubclass(theirs, kind):
        return theirs
    return type(kind.__name__, (kind, dist.torch_distribution.TorchDistributionMixin), {})
