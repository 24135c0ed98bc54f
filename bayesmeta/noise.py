"""Positive numbers and Gaussian noise: what likelihoods and priors learn of scales.

A `variance` is squared units of y, a `scale` or `stddev` is units of y; both are learned in log space between bounds.
"""

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesmeta.annotations import checked
from bayesmeta.description import Described
from bayesmeta.errors import DataError, ShapeError, UnsupportedError
from bayesmeta.linalg import cholesky, semidefinite_root

__all__ = ["DiagonalNoise", "FullNoise", "HeteroscedasticNoise", "Noise", "Positive"]


def bounded(raw: Tensor, lower: float, upper: float) -> Tensor:
    """(lower + r) / (1 + r / upper) with r = exp(raw): r itself well inside the bounds, and flat outside of them.

    Args:
        raw: any real numbers: the logarithm of what is returned, well inside the bounds.
        lower: the smallest value that is returned, positive.
        upper: the largest value that is returned.
    """
    r = raw.clamp(max=math.log(upper) + 20.0).exp()  # far above the bound already, and exp does not overflow
    return ((lower + r) / (1.0 + r / upper)).clamp(lower, upper)  # rounding alone could leave the bounds


class Positive(nn.Module):
    """Positive numbers between two bounds, learned in log space: a variance, a scale, a precision.

    With r = exp(raw) the value is (lower + r) / (1 + r / upper): r itself well inside the bounds, and flat outside of
    them. The parameter that an optimizer changes is `raw`.

    Args:
        shape: the shape of the parameter.
        initial: the starting value of every entry, strictly between the bounds.
        bounds: (lower, upper), positive and in this order.

    Raises:
        DataError: bounds that are not positive and increasing, or an initial value outside of them.

    Example:
        >>> import bayesmeta as bm
        >>> scale = bm.noise.Positive((2,), initial=0.5, bounds=(1e-3, 1e3))
        >>> scale()
        tensor([0.5000, 0.5000], grad_fn=<...>)
        >>> scale.set(torch.tensor([0.1, 20.0]))
        >>> [round(value, 4) for value in scale().tolist()]
        [0.1, 20.0]
    """

    @checked
    def __init__(self, shape: tuple[int, ...], initial: float, bounds: tuple[float, float]) -> None:
        super().__init__()
        if any(size < 0 for size in shape):
            raise DataError(f"expected a shape with sizes >= 0, got {tuple(shape)}")
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
        """Assign the value: one number for all entries, or one for each.

        Raises:
            DataError: an entry is not strictly between the bounds.
            ShapeError: the shape is another.
        """
        value = torch.as_tensor(value, dtype=torch.float64)
        if value.ndim and value.shape != self.raw.shape:
            raise ShapeError(f"expected values of shape {tuple(self.raw.shape)}, got {tuple(value.shape)}")
        value = value.expand(self.raw.shape)
        if not bool(((value > self.lower) & (value < self.upper)).all()):
            raise DataError(f"expected values strictly between {self.lower} and {self.upper}, got {value.tolist()}")
        self.raw.copy_(self.raw_of(value))

    def set_nearest(self, value: Tensor) -> None:
        """Assign the value, or the nearest at a distance from the bounds where the value still follows `raw`."""
        inset = min(2.0, (self.upper / self.lower) ** 0.25)
        self.set(value.double().clamp(inset * self.lower, self.upper / inset))

    @property
    def at_bounds(self) -> tuple[float, ...]:
        """The bounds that an entry is next to, to a tenth: there the data ask for less, or more, than is allowed."""
        value = self().detach()
        lower, upper = bool((value < 1.1 * self.lower).any()), bool((value > self.upper / 1.1).any())
        return (self.lower,) * lower + (self.upper,) * upper

    def raw_of(self, value: Tensor) -> Tensor:
        """The raw number whose value is `value`, strictly between the bounds."""
        return ((value - self.lower) / (1.0 - value / self.upper)).log()


class Noise(Described, nn.Module, ABC):
    """Σ, the covariance of Gaussian observation noise over the C outputs, in squared units of y.

    A subclass gives `covariance` and `set_covariance`; its parameters are part of theta.

    Attributes:
        num_outputs: C.

    Example:
        >>> import bayesmeta as bm
        >>> class KnownNoise(bm.noise.Noise):
        ...     def __init__(self, variance):
        ...         super().__init__()
        ...         self.num_outputs = 1
        ...         self.register_buffer("known", torch.tensor([[variance]]))  # a buffer is not learned
        ...     def covariance(self):
        ...         return self.known
        ...     def set_covariance(self, covariance):
        ...         self.known.copy_(covariance)
        >>> learner = bm.ALPaCA(bm.Identity(1), noise=KnownNoise(0.04))
        >>> learner.prior.noise.variance()
        tensor([0.0400])
    """

    num_outputs: int

    @abstractmethod
    def covariance(self) -> Float[Tensor, "C C"]:
        """Σ itself, positive definite."""

    @abstractmethod
    def set_covariance(self, covariance: Float[Tensor, "C C"]) -> None:
        """Assign Σ, or what this type can hold of it (diagonal noise keeps the diagonal).

        Raises:
            DataError: a variance outside its bounds.
            InferenceError: Σ is not positive definite.
        """

    def set_nearest(self, covariance: Float[Tensor, "C C"]) -> None:
        """Assign Σ, or what is nearest to it within the bounds."""
        self.set_covariance(covariance)

    def relative(self, x: Float[Tensor, "B N *x"]) -> Float[Tensor, "B N"] | None:
        """τ(x), what Σ is multiplied by at each input; None where it is the same everywhere.

        Args:
            x: the inputs.
        """
        return None

    def variance(self) -> Float[Tensor, "C"]:
        """The noise variance of each output."""
        return self.covariance().diagonal()


class DiagonalNoise(Noise):
    """Σ = diag(v): independent noise, with a learned variance for each output.

    Args:
        num_outputs: C.
        initial: the starting variance of every output, squared units of y.
        bounds: the smallest and the largest variance.

    Raises:
        DataError: bounds that are not positive and increasing, or an initial value outside of them.

    Example:
        >>> import bayesmeta as bm
        >>> noise = bm.noise.DiagonalNoise(2, initial=0.25)
        >>> noise.covariance()
        tensor([[0.2500, 0.0000],
                [0.0000, 0.2500]], grad_fn=<...>)
        >>> learner = bm.ALPaCA(bm.Identity(1), num_outputs=2, noise=noise)
    """

    def __init__(self, num_outputs: int = 1, initial: float = 0.1, bounds: tuple[float, float] = (1e-8, 1e8)) -> None:
        super().__init__()
        if num_outputs < 1:
            raise DataError(f"expected at least one output, got {num_outputs}")
        self.num_outputs = num_outputs
        self.value = Positive((num_outputs,), initial, bounds)

    def covariance(self) -> Float[Tensor, "C C"]:
        """Σ = diag(v)."""
        return torch.diag(self.value())

    def variance(self) -> Float[Tensor, "C"]:
        """The noise variance of each output."""
        return self.value()

    def set_covariance(self, covariance: Float[Tensor, "C C"]) -> None:
        """Assign the diagonal of Σ; what is beside it is dropped."""
        self.value.set(covariance.diagonal())

    def set_nearest(self, covariance: Float[Tensor, "C C"]) -> None:
        """Assign the diagonal of Σ, each variance within its bounds."""
        self.value.set_nearest(covariance.diagonal())


class HeteroscedasticNoise(Noise):
    """Σ(x) = τ(x) Σ with log τ(x) = a · g(x): noise whose size depends on the input, for all outputs alike.

    Learners that are solved in closed form stay exact with it: rows are divided by √τ(x). At the start a is zero, and τ
    is 1 everywhere. The size of τ is learned together with that of Σ, so that only their product means something.

    Args:
        features: g, a `Network` of inputs: `Identity(D)` makes log τ linear in x, an `MLP` any smooth function.
        noise: Σ; `DiagonalNoise()` by default.
        range: the largest factor that τ may be, and one over the smallest.

    Raises:
        UnsupportedError: features that are not a `Network`.
        DataError: a range that is not above 1.

    Example:
        >>> import bayesmeta as bm
        >>> noise = bm.noise.HeteroscedasticNoise(bm.Identity(1), bm.noise.DiagonalNoise(initial=0.25))
        >>> _ = noise.slope.data.copy_(torch.tensor([0.0, 1.0]))  # log τ(x) = x
        >>> noise.relative(torch.tensor([[[0.0], [1.0]]])).detach().round(decimals=2)
        tensor([[1.0000, 2.7200]])
        >>> nothing = bm.Data.from_arrays([], [])
        >>> wide = bm.ALPaCA(bm.Identity(1), noise=noise).adapt(nothing).predict([3.0])
        >>> round((wide.variance - wide.noiseless.variance).item(), 1)  # e³ / 4
        5.0
    """

    def __init__(self, features: nn.Module, noise: Noise | None = None, range: float = 1e4) -> None:
        super().__init__()
        num_features = getattr(features, "num_outputs", None)
        if not isinstance(num_features, int):
            raise UnsupportedError(f"expected features that are a Network, got {type(features).__name__}")
        if not 1.0 < range < math.inf:
            raise DataError(f"expected a range above 1, got {range}")
        self.features, self.noise = features, DiagonalNoise() if noise is None else noise
        self.num_outputs, self.range = self.noise.num_outputs, float(range)
        self.slope = nn.Parameter(torch.zeros(num_features))

    def covariance(self) -> Float[Tensor, "C C"]:
        """Σ, where τ is 1."""
        return self.noise.covariance()

    def set_covariance(self, covariance: Float[Tensor, "C C"]) -> None:
        """Assign Σ."""
        self.noise.set_covariance(covariance)

    def set_nearest(self, covariance: Float[Tensor, "C C"]) -> None:
        """Assign Σ, within its bounds."""
        self.noise.set_nearest(covariance)

    def relative(self, x: Float[Tensor, "B N *x"]) -> Float[Tensor, "B N"]:
        """τ(x): exp(a · g(x)) well inside the range, and flat outside of it."""
        return bounded(self.features(x) @ self.slope, 1.0 / self.range, self.range)


class FullNoise(Noise):
    """Σ = L diag(v) Lᵀ: noise that is correlated over the outputs, with unit lower triangular L.

    Args:
        num_outputs: C.
        initial: the starting variance of every output, squared units of y; the outputs start uncorrelated.
        bounds: the smallest and the largest v_c, the conditional variance of an output given those before it.

    Raises:
        DataError: bounds that are not positive and increasing, or an initial value outside of them.

    Example:
        >>> import bayesmeta as bm
        >>> noise = bm.noise.FullNoise(2)
        >>> noise.set_covariance(torch.tensor([[1.0, 0.6], [0.6, 2.0]]))
        >>> noise.covariance()
        tensor([[1.0000, 0.6000],
                [0.6000, 2.0000]], grad_fn=<...>)
        >>> learner = bm.ALPaCA(bm.Identity(1), num_outputs=2, noise=noise)
    """

    def __init__(self, num_outputs: int = 1, initial: float = 0.1, bounds: tuple[float, float] = (1e-8, 1e8)) -> None:
        super().__init__()
        if num_outputs < 1:
            raise DataError(f"expected at least one output, got {num_outputs}")
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

    @torch.no_grad()
    def set_nearest(self, covariance: Float[Tensor, "C C"]) -> None:
        """Assign Σ, each v_c within its bounds; Σ may be singular, as of outputs that are sums of others."""
        factor = semidefinite_root(covariance.double(), "noise covariance")
        scale = factor.diagonal()
        self.value.set_nearest(scale.square())
        rows, columns = torch.tril_indices(self.num_outputs, self.num_outputs, -1)
        self.below.copy_((factor / torch.where(scale > 0.0, scale, 1.0))[rows, columns])
