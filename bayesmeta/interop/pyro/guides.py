"""Families of densities of phi that are fitted to all tasks at once, in place of one of Pyro's guides."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoGuide
from torch import Tensor

from bayesmeta.description import Described
from bayesmeta.errors import DataError
from bayesmeta.interop.pyro.programs import Program

MakeGuide = Callable[[Program], AutoGuide]
"""What makes a guide of a program: a class of `pyro.infer.autoguide` such as `AutoIAFNormal`, or `functools.partial` of
one.
"""


class TaskGuide(Described, ABC):
    """A family of densities of one task's phi, which `svi` fits: each task has its own, and all are fitted at once.

    phi is measured in deviations of the prior from its mean. A subclass gives `start` and `distribution`.

    Example:
        >>> from bayesmeta.interop.pyro import TaskGuide
        >>> class Shifted(TaskGuide):  # as wide as the prior: only the mean is fitted
        ...     def start(self, shape, size):
        ...         return {"mean": torch.zeros(*shape, size)}
        ...     def distribution(self, free):
        ...         return dist.Normal(free["mean"], 1.0).to_event(1)
        >>> guide = Shifted()
        >>> guide.distribution(guide.start((3, 1), size=2)).event_shape
        torch.Size([2])
    """

    @abstractmethod
    def start(self, shape: tuple[int, ...], size: int) -> dict[str, Tensor]:
        """The first free numbers, each `*shape ..`, which are then fitted.

        Args:
            shape: of the densities, one for each task.
            size: P, the length of the vectors that the densities are of.
        """

    @abstractmethod
    def distribution(self, free: Mapping[str, Tensor]) -> dist.TorchDistribution:
        """The densities at the free numbers: batch shape `shape`, event shape (P,).

        Args:
            free: as `start` names them.
        """


class MeanField(TaskGuide):
    """Independent Gaussians. Nearest to a Gaussian of precision Λ is the one with variances 1 / Λ_ii: it is narrower.

    Args:
        scale: the first deviation, in prior deviations.

    Raises:
        DataError: a deviation that is not positive.

    Example:
        >>> from bayesmeta.interop.pyro import MeanField
        >>> guide = MeanField(scale=0.5)
        >>> guide.distribution(guide.start((1,), size=2)).variance
        tensor([[0.2500, 0.2500]])
    """

    def __init__(self, scale: float = 0.1) -> None:
        self.scale = _positive(scale)

    def start(self, shape: tuple[int, ...], size: int) -> dict[str, Tensor]:
        """Means and log deviations."""
        return {"mean": torch.zeros(*shape, size), "log_scale": torch.full((*shape, size), math.log(self.scale))}

    def distribution(self, free: Mapping[str, Tensor]) -> dist.TorchDistribution:
        """N(mean, diag(scale²))."""
        return dist.Normal(free["mean"], free["log_scale"].exp()).to_event(1)


class LowRank(TaskGuide):
    """Gaussians with covariance diag(scale²) + F Fᵀ: for phi of many numbers, where `FullRank` would cost P².

    Args:
        rank: columns of F.
        scale: the first deviation, in prior deviations.

    Raises:
        DataError: a rank below 1, or a deviation that is not positive.

    Example:
        >>> from bayesmeta.interop.pyro import LowRank
        >>> {name: tuple(value.shape) for name, value in LowRank(rank=2).start((3, 1), size=5).items()}
        {'mean': (3, 1, 5), 'log_scale': (3, 1, 5), 'factor': (3, 1, 5, 2)}
    """

    def __init__(self, rank: int = 2, scale: float = 0.1) -> None:
        if rank < 1:
            raise DataError(f"expected a rank of 1 or more, got {rank}")
        self.rank, self.scale = rank, _positive(scale)

    def start(self, shape: tuple[int, ...], size: int) -> dict[str, Tensor]:
        """Means, log deviations and F, which starts near zero: at zero it has no gradient."""
        factor = 0.1 * self.scale * torch.randn(*shape, size, self.rank)
        return {**MeanField(self.scale).start(shape, size), "factor": factor}

    def distribution(self, free: Mapping[str, Tensor]) -> dist.TorchDistribution:
        """N(mean, diag(scale²) + F Fᵀ)."""
        return dist.LowRankMultivariateNormal(free["mean"], free["factor"], (2.0 * free["log_scale"]).exp())


class FullRank(TaskGuide):
    """Gaussians with any covariance within a task: exact where the posterior is Gaussian. The guide of `svi`.

    Args:
        scale: the first deviation, in prior deviations.

    Raises:
        DataError: a deviation that is not positive.

    Example:
        >>> from bayesmeta.interop.pyro import FullRank
        >>> guide = FullRank(scale=0.5)
        >>> guide.distribution(guide.start((1,), size=2)).covariance_matrix
        tensor([[[0.2500, 0.0000],
                 [0.0000, 0.2500]]])
    """

    def __init__(self, scale: float = 0.1) -> None:
        self.scale = _positive(scale)

    def start(self, shape: tuple[int, ...], size: int) -> dict[str, Tensor]:
        """Means, log diagonals of the Cholesky factors, and what is below, relative to the diagonal of its row."""
        return {**MeanField(self.scale).start(shape, size), "below": torch.zeros(*shape, size, size)}

    def distribution(self, free: Mapping[str, Tensor]) -> dist.TorchDistribution:
        """N(mean, L Lᵀ)."""
        scale = free["log_scale"].exp()
        return dist.MultivariateNormal(
            free["mean"], scale_tril=torch.diag_embed(scale) + scale[..., None] * free["below"].tril(-1)
        )


def _positive(value: float) -> float:
    if not 0.0 < value < math.inf:
        raise DataError(f"expected a positive number, got {value}")
    return value
