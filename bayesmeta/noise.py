"""Positive numbers and Gaussian noise: what likelihoods and priors learn of scales.

A `variance` is squared units of y, a `scale` or `stddev` is units of y; both are learned in log space between bounds.
"""

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesmeta.description import Described
from bayesmeta.errors import DataError, ShapeError
from bayesmeta.linalg import cholesky


def bounded(raw: Tensor, lower: float, upper: float) -> Tensor:
    """(lower + r) / (1 + r / upper) with r = exp(raw): r itself inside the bounds, flat outside them, never beyond."""
    r = raw.clamp(max=math.log(upper) + 20.0).exp()  # far above the bound already, and exp does not overflow
    return ((lower + r) / (1.0 + r / upper)).clamp(lower, upper)  # rounding alone could leave the bounds


class Positive(nn.Module):
    """Positive numbers between two bounds, learned in log space.

    With r = exp(raw) the value is (lower + r) / (1 + r / upper): r itself inside the bounds, and flat outside them.

    Args:
        shape: shape of the parameter.
        initial: starting value of every entry, strictly between the bounds.
        bounds: (lower, upper), positive and in this order.

    Raises:
        DataError: bounds that are not positive and increasing, or an initial value outside them.
    """

    def __init__(self, shape: tuple[int, ...], initial: float, bounds: tuple[float, float]) -> None:
        super().__init__()
        lower, upper = bounds
        if not (0.0 < lower < upper < math.inf):
            raise DataError(f"expected bounds with 0 < lower < upper, got ({lower}, {upper})")
        self.lower, self.upper = float(lower), float(upper)
        self.raw = nn.Parameter(torch.empty(shape))
        self.set(torch.full(shape, float(initial)))

    def forward(self) -> Tensor:
        """The current value, of the given shape."""
        return bounded(self.raw, self.lower, self.upper)

    @torch.no_grad()
    def set(self, value: Tensor | float) -> None:
        """Assign the value. Raises DataError when an entry is outside the bounds, ShapeError when the shape differs."""
        value = torch.as_tensor(value, dtype=torch.float64)
        if value.ndim and value.shape != self.raw.shape:
            raise ShapeError(f"expected values of shape {tuple(self.raw.shape)}, got {tuple(value.shape)}")
        value = value.expand(self.raw.shape)
        if not bool(((value > self.lower) & (value < self.upper)).all()):
            raise DataError(f"expected values strictly between {self.lower} and {self.upper}, got {value.tolist()}")
        self.raw.copy_(self.raw_of(value))

    def raw_of(self, value: Tensor) -> Tensor:
        """The raw number whose value is `value`, strictly between the bounds."""
        return ((value - self.lower) / (1.0 - value / self.upper)).log()


class Noise(Described, nn.Module, ABC):
    """Σ, the covariance of Gaussian observation noise over the C outputs (variances, squared units of y)."""

    num_outputs: int

    @abstractmethod
    def covariance(self) -> Float[Tensor, "C C"]:
        """Σ itself, positive definite."""

    @abstractmethod
    def set_covariance(self, covariance: Float[Tensor, "C C"]) -> None:
        """Assign Σ, or the nearest this type can hold (a diagonal noise keeps the diagonal)."""

    def variance(self) -> Float[Tensor, "C"]:
        """The noise variance of each output."""
        return self.covariance().diagonal()


class DiagonalNoise(Noise):
    """Independent noise, one variance per output.

    Args:
        num_outputs: C.
        initial: starting variance.
        bounds: smallest and largest variance.
    """

    def __init__(self, num_outputs: int = 1, initial: float = 0.1, bounds: tuple[float, float] = (1e-8, 1e8)) -> None:
        super().__init__()
        self.num_outputs = num_outputs
        self.value = Positive((num_outputs,), initial, bounds)

    def covariance(self) -> Float[Tensor, "C C"]:
        """diag(variances)."""
        return torch.diag(self.value())

    def variance(self) -> Float[Tensor, "C"]:
        """The noise variance of each output."""
        return self.value()

    def set_covariance(self, covariance: Float[Tensor, "C C"]) -> None:
        """Keep the diagonal of `covariance`."""
        self.value.set(covariance.diagonal())


class FullNoise(Noise):
    """Correlated noise: Σ = L diag(v) Lᵀ with unit lower triangular L and bounded v.

    Args:
        num_outputs: C.
        initial: starting variance of every output (uncorrelated at the start).
        bounds: smallest and largest conditional variance v_c of an output given those before it.
    """

    def __init__(self, num_outputs: int = 1, initial: float = 0.1, bounds: tuple[float, float] = (1e-8, 1e8)) -> None:
        super().__init__()
        self.num_outputs = num_outputs
        self.value = Positive((num_outputs,), initial, bounds)
        self.below = nn.Parameter(torch.zeros(num_outputs * (num_outputs - 1) // 2))

    def _unit_factor(self) -> Tensor:
        factor = torch.eye(self.num_outputs, dtype=self.below.dtype, device=self.below.device)
        rows, columns = torch.tril_indices(self.num_outputs, self.num_outputs, -1, device=self.below.device)
        return factor.index_put((rows, columns), self.below)

    def covariance(self) -> Float[Tensor, "C C"]:
        """Σ = L diag(v) Lᵀ."""
        factor = self._unit_factor()
        return factor * self.value() @ factor.mT

    @torch.no_grad()
    def set_covariance(self, covariance: Float[Tensor, "C C"]) -> None:
        """Assign Σ."""
        factor = cholesky(covariance.double(), "noise covariance")
        scale = factor.diagonal()
        self.value.set(scale.square())
        rows, columns = torch.tril_indices(self.num_outputs, self.num_outputs, -1)
        self.below.copy_((factor / scale)[rows, columns])
