"""Gaussian priors of named tensors: isotropic, diagonal, standard normal, and full over one vector."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesmeta.distributions import common_normals
from bayesmeta.errors import DataError
from bayesmeta.linalg import logdet, solve_lower
from bayesmeta.noise import Positive
from bayesmeta.priors.feature_covariance import FullCovariance
from bayesmeta.priors.prior import LOG_2PI, Prior, value_of
from bayesmeta.typing import Params


class _Gaussian(Prior):
    """N(mean, diag(variance)) over named tensors; the subclasses differ in which variances are free."""

    def __init__(self, mean: dict[str, Tensor]) -> None:
        super().__init__()
        if not mean:
            raise DataError("expected at least one named tensor for the prior mean, got none")
        self.names = tuple(mean)
        self.values = nn.ParameterList(
            value if isinstance(value, nn.Parameter) else nn.Parameter(value.detach().clone())
            for value in mean.values()
        )

    @property
    def mean(self) -> Params:
        """The prior mean, a part of theta: where a task without data stays."""
        return dict(zip(self.names, self.values, strict=True))

    @abstractmethod
    def variance(self) -> Params:
        """The prior variance of every number in phi, broadcastable to the mean."""

    def log_prob(self, phi: Params) -> Float[Tensor, "*s B"]:
        """The sum of independent Gaussian log densities, in nats."""
        total: Tensor | float = 0.0
        variances = self.variance()
        for name, mean in self.mean.items():
            variance = variances[name].expand(mean.shape)
            each = (value_of(phi, name, mean) - mean).square() / variance + variance.log() + LOG_2PI
            total = total - 0.5 * each.flatten(each.ndim - mean.ndim).sum(-1) if mean.ndim else total - 0.5 * each
        assert isinstance(total, Tensor)
        return total

    def sample(self, num_tasks: int, generator: torch.Generator | None = None) -> Params:
        """Draws mean + sqrt(variance) times a standard normal number."""
        variances = self.variance()
        draws = {}
        for name, mean in self.mean.items():
            shape = (num_tasks, *mean.shape)
            normal = common_normals(shape, mean, generator)
            draws[name] = mean + variances[name].sqrt() * normal
        return draws


class IsotropicGaussian(_Gaussian):
    """N(mean, I / precision): one learned precision for all of phi (the prior of iMAML and LLAMA).

    Args:
        mean: named tensors, the starting value of the prior mean; a Parameter (a network's weight) is shared.
        precision: the starting precision.
        bounds: the smallest and the largest precision.

    Raises:
        DataError: no tensors, bounds that are not positive and increasing, or a precision outside of them.

    Example:
        >>> import bayesmeta as bm
        >>> prior = bm.priors.IsotropicGaussian({"weight": torch.zeros(2, 1), "bias": torch.zeros(1)}, precision=4.0)
        >>> {name: round(variance.item(), 2) for name, variance in prior.variance().items()}
        {'weight': 0.25, 'bias': 0.25}
        >>> prior.sample(3)["weight"].shape  # of three tasks
        torch.Size([3, 2, 1])
        >>> prior.log_prob(prior.sample(3)).shape
        torch.Size([3])
    """

    def __init__(
        self, mean: dict[str, Tensor], precision: float = 1.0, bounds: tuple[float, float] = (1e-8, 1e8)
    ) -> None:
        super().__init__(mean)
        self.precision = Positive((), precision, bounds)

    def variance(self) -> Params:
        """The variance 1 / precision, for every tensor the same number."""
        variance = 1.0 / self.precision()
        return dict.fromkeys(self.names, variance)


class DiagonalGaussian(_Gaussian):
    """N(mean, diag(variance)): a learned variance for every number in phi.

    Args:
        mean: named tensors, the starting value of the prior mean; a Parameter (a network's weight) is shared.
        variance: the starting variance of every number.
        bounds: the smallest and the largest variance.

    Raises:
        DataError: no tensors, bounds that are not positive and increasing, or a variance outside of them.

    Example:
        >>> import bayesmeta as bm
        >>> prior = bm.priors.DiagonalGaussian({"phi": torch.zeros(2)})
        >>> prior.variances[0].set(torch.tensor([1e-4, 1.0]))  # the first number is nearly the same in all tasks
        >>> draws = prior.sample(1000, torch.Generator().manual_seed(0))["phi"]
        >>> [round(deviation, 2) for deviation in draws.std(0).tolist()]
        [0.01, 0.99]
    """

    def __init__(
        self, mean: dict[str, Tensor], variance: float = 1.0, bounds: tuple[float, float] = (1e-8, 1e8)
    ) -> None:
        super().__init__(mean)
        self.variances = nn.ModuleList(Positive(tuple(value.shape), variance, bounds) for value in mean.values())

    def variance(self) -> Params:
        """The variance of every number."""
        return {name: value() for name, value in zip(self.names, self.variances, strict=True)}


class StandardNormal(Prior):
    """N(0, I), in which nothing is learned (the prior of CAVIA's context).

    Args:
        shapes: the shape of each named tensor.

    Example:
        >>> import bayesmeta as bm
        >>> prior = bm.priors.StandardNormal({"context": (2,)})
        >>> prior.log_prob({"context": torch.tensor([[0.0, 0.0], [1.0, 1.0]])})  # of two tasks: -log 2π, and 1 less
        tensor([-1.8379, -2.8379])
    """

    def __init__(self, shapes: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        self.shapes = {name: torch.Size(shape) for name, shape in shapes.items()}
        self.zero: Tensor
        self.register_buffer("zero", torch.zeros(()), persistent=False)  # knows precision and device

    @property
    def mean(self) -> Params:
        """Zeros of the given shapes."""
        return {name: self.zero.expand(shape) for name, shape in self.shapes.items()}

    def log_prob(self, phi: Params) -> Float[Tensor, "*s B"]:
        """The sum of standard normal log densities, in nats."""
        parts = [value_of(phi, name, mean).square() + LOG_2PI for name, mean in self.mean.items()]
        pairs = zip(parts, self.shapes.values(), strict=True)
        return -0.5 * torch.stack([part.flatten(part.ndim - len(shape)).sum(-1) for part, shape in pairs]).sum(0)

    def sample(self, num_tasks: int, generator: torch.Generator | None = None) -> Params:
        """Draws of standard normal numbers."""
        like = self.zero
        return {name: common_normals((num_tasks, *shape), like, generator) for name, shape in self.shapes.items()}


class FullGaussian(Prior):
    """N(mean, L Lᵀ) over one named vector, with a learned full covariance.

    Args:
        num_parameters: P, the length of the vector.
        variance: the starting variance of every number; the numbers start uncorrelated.
        name: the name of the vector in phi.

    Raises:
        DataError: a variance that is not positive.

    Example:
        >>> import bayesmeta as bm
        >>> prior = bm.priors.FullGaussian(2)
        >>> prior.covariance.set_matrix(torch.tensor([[1.0, 0.9], [0.9, 1.0]]))
        >>> draws = prior.sample(1000, torch.Generator().manual_seed(0))["phi"]
        >>> round(torch.corrcoef(draws.T)[0, 1].item(), 1)
        0.9
    """

    def __init__(self, num_parameters: int, variance: float = 1.0, name: str = "phi") -> None:
        super().__init__()
        self.name = name
        if num_parameters < 1:
            raise DataError(f"expected at least one parameter, got {num_parameters}")
        self.location = nn.Parameter(torch.zeros(num_parameters))
        self.covariance = FullCovariance(num_parameters, variance)

    @property
    def mean(self) -> Params:
        """The prior mean, a vector."""
        return {self.name: self.location}

    def log_prob(self, phi: Params) -> Float[Tensor, "*s B"]:
        """The multivariate Gaussian log density, in nats. Raises UnsupportedError where the covariance is singular."""
        difference = value_of(phi, self.name, self.location) - self.location
        factor = self.covariance.invertible_factor().to(difference.dtype)
        white = solve_lower(factor, difference[..., None])[..., 0]
        return -0.5 * (white.square().sum(-1) + logdet(factor) + len(self.location) * LOG_2PI)

    def sample(self, num_tasks: int, generator: torch.Generator | None = None) -> Params:
        """Draws mean + L z with standard normal z."""
        like = self.location
        normal = common_normals((num_tasks, len(like)), like, generator)
        return {self.name: self.location + normal @ self.covariance.factor().mT}
