"""Draws from Gaussian processes: the synthetic benchmarks of the neural process family."""

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.description import Described
from bayesmeta.errors import DataError
from bayesmeta.linalg import cholesky_with_jitter
from bayesmeta.tasks.oracles.gp import GaussianProcessOracle
from bayesmeta.tasks.simulators.simulator import FunctionSimulator, nonnegative


class StationaryKernel(Described, ABC):
    """k(x, x'), a function of the difference of two inputs.

    Args:
        length_scale: units of x.
        variance: k(x, x), squared units of y.

    Raises:
        DataError: a length scale or variance that is not positive.

    Example:
        >>> import bayesmeta as bm
        >>> class Exponential(bm.tasks.StationaryKernel):  # rough functions, those of an Ornstein-Uhlenbeck process
        ...     def of_difference(self, d):
        ...         return torch.exp(-d.norm(dim=-1) / self.length_scale)
        >>> bm.tasks.GPFunctions(Exponential(0.5)).dataset(1, 5).data.y.shape
        torch.Size([1, 5, 1])
    """

    def __init__(self, length_scale: float, variance: float = 1.0) -> None:
        if not (length_scale > 0.0 and variance > 0.0):
            raise DataError(f"expected a positive length scale and variance, got {length_scale} and {variance}")
        self.length_scale, self.variance = length_scale, variance

    def __call__(self, x: Float[Tensor, "*b N D"], z: Float[Tensor, "*b M D"]) -> Float[Tensor, "*b N M"]:
        """The covariance of two sets of inputs."""
        return self.variance * self.of_difference(x[..., :, None, :] - z[..., None, :, :])

    @abstractmethod
    def of_difference(self, d: Float[Tensor, "*b D"]) -> Float[Tensor, "*b"]:
        """The correlation at distance d."""


class ExponentiatedQuadratic(StationaryKernel):
    """exp(-½ |d|² / l²): smooth functions.

    Example:
        >>> import bayesmeta as bm
        >>> slow = bm.tasks.GPFunctions(bm.tasks.ExponentiatedQuadratic(2.0), noise=0.1, x=(0.0, 10.0))
        >>> bool(slow.dataset(1, 30).data.x.max() > 2.0)
        True
    """

    def of_difference(self, d: Float[Tensor, "*b D"]) -> Float[Tensor, "*b"]:
        """exp(-½ |d|² / l²)."""
        return torch.exp(-0.5 * d.square().sum(-1) / self.length_scale**2)


class Matern52(StationaryKernel):
    """(1 + r + r²/3) exp(-r), r = √5 |d| / l: functions that are twice differentiable, and no more.

    Example:
        >>> import bayesmeta as bm
        >>> kernel = bm.tasks.Matern52(0.25)
        >>> kernel(torch.tensor([[0.0]]), torch.tensor([[0.0], [0.25]]))
        tensor([[1.0000, 0.5240]])
    """

    def of_difference(self, d: Float[Tensor, "*b D"]) -> Float[Tensor, "*b"]:
        """(1 + r + r²/3) exp(-r), r = √5 |d| / l."""
        r = math.sqrt(5.0) * d.square().sum(-1).sqrt() / self.length_scale
        return (1.0 + r + r.square() / 3.0) * torch.exp(-r)


class WeaklyPeriodic(StationaryKernel):
    """exp(-½ |d|² / l²) exp(-2 Σ sin²(π d / period)): a periodic function whose shape drifts.

    Args:
        length_scale: of the drift, units of x.
        period: units of x.
        variance: k(x, x), squared units of y.

    Raises:
        DataError: a length scale, period or variance that is not positive.

    Example:
        >>> import bayesmeta as bm
        >>> kernel = bm.tasks.WeaklyPeriodic(length_scale=10.0, period=1.0)
        >>> kernel(torch.tensor([[0.0]]), torch.tensor([[0.5], [1.0]]))  # half a period and a whole one away
        tensor([[0.1352, 0.9950]])
    """

    def __init__(self, length_scale: float = 0.5, period: float = 0.25, variance: float = 1.0) -> None:
        super().__init__(length_scale, variance)
        if not period > 0.0:
            raise DataError(f"expected a positive period, got {period}")
        self.period = period

    def of_difference(self, d: Float[Tensor, "*b D"]) -> Float[Tensor, "*b"]:
        """exp(-½ |d|² / l²) exp(-2 Σ sin²(π d / period))."""
        turn = torch.sin(math.pi / self.period * d)
        return torch.exp(-0.5 * d.square().sum(-1) / self.length_scale**2 - 2.0 * turn.square().sum(-1))


class GPFunctions(FunctionSimulator):
    """Draws of a Gaussian process with noise: y = f(x) + N(0, noise²), f ~ GP(mean, kernel).

    The named ones are those of the neural process benchmark (Bruinsma et al. 2023, github wesselb/neuralprocesses):
    x ~ U(-2, 2), noise variance .05.

    Args:
        kernel: k.
        noise: standard deviation, units of y. Without noise, no oracle.
        x: (low, high) of the inputs.

    Raises:
        DataError: negative noise, or an interval that does not increase.

    Example:
        >>> import bayesmeta as bm
        >>> functions = bm.tasks.GPFunctions.matern()
        >>> task = functions.dataset(1, 30).task(0)
        >>> posterior = functions.oracle.adapt(task.points(slice(20)))
        >>> posterior.predict(task.points(slice(20, None)).x).stddev.shape
        torch.Size([1, 10, 1])
    """

    def __init__(
        self, kernel: StationaryKernel, noise: float = math.sqrt(0.05), x: tuple[float, float] = (-2.0, 2.0)
    ) -> None:
        super().__init__(x)
        self.kernel, self.noise = kernel, nonnegative(noise, "the noise deviation")
        if noise > 0.0:
            self.oracle = GaussianProcessOracle(self.mean, kernel, self.noise**2)

    @classmethod
    def eq(cls) -> "GPFunctions":
        """Functions with an exponentiated quadratic kernel of length scale .25."""
        return cls(ExponentiatedQuadratic(0.25))

    @classmethod
    def matern(cls) -> "GPFunctions":
        """Functions with a Matérn-5/2 kernel of length scale .25."""
        return cls(Matern52(0.25))

    @classmethod
    def weakly_periodic(cls) -> "GPFunctions":
        """Functions of period .25 that drift over a length scale of .5."""
        return cls(WeaklyPeriodic(0.5, 0.25))

    def mean(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N"]:
        """The mean m(x), units of y: 0 here."""
        return x.new_zeros(x.shape[:-1])

    def observe(self, x: Float[Tensor, "B N D"], generator: torch.Generator) -> Float[Tensor, "B N 1"]:
        """A fresh function for every task, observed with noise at these points; drawn in float64."""
        points = x.double()
        nugget = max(self.noise**2, 1e-8)  # without noise the covariance is singular in floating point
        eye = torch.eye(x.shape[-2], dtype=torch.float64)
        factor = cholesky_with_jitter(self.kernel(points, points) + nugget * eye, "prior covariance")
        draw = factor @ torch.randn(*x.shape[:-1], 1, dtype=torch.float64, generator=generator)
        return (self.mean(points)[..., None] + draw).to(x.dtype)
