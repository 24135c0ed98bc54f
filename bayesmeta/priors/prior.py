"""What every explicit prior p(phi | theta) of a task's parameters says of itself."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesmeta.description import Described
from bayesmeta.errors import ShapeError
from bayesmeta.typing import Params

LOG_2PI = math.log(2.0 * math.pi)


class Prior(Described, nn.Module, ABC):
    """p(phi | theta), the density of the parameters of a task, the same for every task.

    phi is a dictionary of named tensors (`Params`). A subclass gives `mean`, `log_prob` and `sample`; its parameters
    are part of theta.

    Example:
        >>> import bayesmeta as bm
        >>> class Unit(bm.priors.Prior):
        ...     '''One number a task, uniform between 0 and 1.'''
        ...     @property
        ...     def mean(self):
        ...         return {"share": torch.tensor([0.5])}
        ...     def log_prob(self, phi):
        ...         inside = (phi["share"] > 0) & (phi["share"] < 1)
        ...         return torch.where(inside, 0.0, -torch.inf).sum(-1)
        ...     def sample(self, num_tasks, generator=None):
        ...         return {"share": torch.rand(num_tasks, 1, generator=generator)}
        >>> Unit().log_prob(Unit().sample(3))
        tensor([0., 0., 0.])
    """

    @property
    @abstractmethod
    def mean(self) -> Params:
        """The prior mean, the same for every task: each value `*shape`."""

    @abstractmethod
    def log_prob(self, phi: Params) -> Float[Tensor, "*s B"]:
        """log p(phi | theta) of each task (and draw), in nats."""

    def density(self) -> Callable[[Params], Tensor]:
        """phi -> log p(phi | theta), as `log_prob`: for loops, as what depends on theta alone is done once."""
        return self.log_prob

    @abstractmethod
    def sample(self, num_tasks: int, generator: torch.Generator | None = None) -> Params:
        """One draw of phi for each of `num_tasks` tasks: each value `B *shape`.

        Args:
            num_tasks: B.
            generator: torch's global one when None.
        """


def value_of(phi: Params, name: str, mean: Tensor) -> Tensor:
    """phi[name], whose last axes must be those of the mean. Raises ShapeError where it is missing, or has others."""
    if name not in phi:
        raise ShapeError(f"expected phi with {name!r}, got {sorted(phi)}")
    value = phi[name]
    if value.shape[value.ndim - mean.ndim :] != mean.shape:
        raise ShapeError(f"expected {name!r} of shape ... + {tuple(mean.shape)}, got {tuple(value.shape)}")
    return value
