"""Explicit priors p(phi | theta) over the parameters of a task."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesmeta.description import Described
from bayesmeta.distributions import common_normals
from bayesmeta.errors import DataError, ShapeError, UnsupportedError
from bayesmeta.linalg import cholesky, logdet, solve_lower
from bayesmeta.noise import DiagonalNoise, Noise, Positive
from bayesmeta.typing import Params

LOG_2PI = math.log(2.0 * math.pi)


class Prior(Described, nn.Module, ABC):
    """p(phi | theta), the same for every task."""

    @property
    @abstractmethod
    def mean(self) -> Params:
        """The prior mean of one task: each value `*shape`."""

    @abstractmethod
    def log_prob(self, phi: Params) -> Float[Tensor, "*s B"]:
        """log p(phi | theta) of each task (and draw), in nats."""

    @abstractmethod
    def sample(self, num_tasks: int, generator: torch.Generator | None = None) -> Params:
        """One phi for each of `num_tasks` tasks: each value `B *shape`."""


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
        """theta itself: the value that a task without data has."""
        return dict(zip(self.names, self.values, strict=True))

    @abstractmethod
    def variance(self) -> Params:
        """The prior variance of every number in phi, broadcastable to the mean."""

    def log_prob(self, phi: Params) -> Float[Tensor, "*s B"]:
        """Σ of independent Gaussian log densities, in nats."""
        total: Tensor | float = 0.0
        variances = self.variance()
        for name, mean in self.mean.items():
            variance = variances[name].expand(mean.shape)
            each = (_value(phi, name, mean) - mean).square() / variance + variance.log() + LOG_2PI
            total = total - 0.5 * each.flatten(each.ndim - mean.ndim).sum(-1) if mean.ndim else total - 0.5 * each
        assert isinstance(total, Tensor)
        return total

    def sample(self, num_tasks: int, generator: torch.Generator | None = None) -> Params:
        """mean + sqrt(variance) * normal."""
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
        precision: starting precision.
        bounds: smallest and largest precision.
    """

    def __init__(
        self, mean: dict[str, Tensor], precision: float = 1.0, bounds: tuple[float, float] = (1e-8, 1e8)
    ) -> None:
        super().__init__(mean)
        self.precision = Positive((), precision, bounds)

    def variance(self) -> Params:
        """1 / precision for every tensor."""
        variance = 1.0 / self.precision()
        return dict.fromkeys(self.names, variance)


class DiagonalGaussian(_Gaussian):
    """N(mean, diag(variance)): a learned variance for every number in phi.

    Args:
        mean: named tensors, the starting value of the prior mean; a Parameter (a network's weight) is shared.
        variance: starting variance of every number.
        bounds: smallest and largest variance.
    """

    def __init__(
        self, mean: dict[str, Tensor], variance: float = 1.0, bounds: tuple[float, float] = (1e-8, 1e8)
    ) -> None:
        super().__init__(mean)
        self.variances = nn.ModuleList(Positive(tuple(value.shape), variance, bounds) for value in mean.values())

    def variance(self) -> Params:
        """One variance per number."""
        return {name: value() for name, value in zip(self.names, self.variances, strict=True)}


class StandardNormal(Prior):
    """N(0, I): nothing to learn (the prior of CAVIA's context).

    Args:
        shapes: the named tensors' shapes.
    """

    def __init__(self, shapes: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        self.shapes = {name: torch.Size(shape) for name, shape in shapes.items()}
        self.zero: Tensor
        self.register_buffer("zero", torch.zeros(()), persistent=False)  # knows precision and device

    @property
    def mean(self) -> Params:
        """Zeros."""
        return {name: self.zero.expand(shape) for name, shape in self.shapes.items()}

    def log_prob(self, phi: Params) -> Float[Tensor, "*s B"]:
        """Σ of standard normal log densities, in nats."""
        parts = [_value(phi, name, mean).square() + LOG_2PI for name, mean in self.mean.items()]
        pairs = zip(parts, self.shapes.values(), strict=True)
        return -0.5 * torch.stack([part.flatten(part.ndim - len(shape)).sum(-1) for part, shape in pairs]).sum(0)

    def sample(self, num_tasks: int, generator: torch.Generator | None = None) -> Params:
        """Standard normal numbers."""
        like = self.zero
        return {name: common_normals((num_tasks, *shape), like, generator) for name, shape in self.shapes.items()}


class FullGaussian(Prior):
    """N(mean, L Lᵀ) over one named vector, with a learned full covariance.

    Args:
        num_parameters: P, the length of the vector.
        variance: starting variance of every number (uncorrelated at the start).
        name: the name of the vector in phi.
    """

    def __init__(self, num_parameters: int, variance: float = 1.0, name: str = "phi") -> None:
        super().__init__()
        self.name = name
        self.location = nn.Parameter(torch.zeros(num_parameters))
        self.covariance = FullCovariance(num_parameters, variance)

    @property
    def mean(self) -> Params:
        """The mean vector."""
        return {self.name: self.location}

    def log_prob(self, phi: Params) -> Float[Tensor, "*s B"]:
        """Multivariate Gaussian log density, in nats."""
        difference = _value(phi, self.name, self.location) - self.location
        factor = self.covariance.factor().to(difference.dtype)
        white = solve_lower(factor, difference[..., None])[..., 0]
        return -0.5 * (white.square().sum(-1) + logdet(factor) + len(self.location) * LOG_2PI)

    def sample(self, num_tasks: int, generator: torch.Generator | None = None) -> Params:
        """mean + L * normal."""
        like = self.location
        normal = common_normals((num_tasks, len(like)), like, generator)
        return {self.name: self.location + normal @ self.covariance.factor().mT}


class FeatureCovariance(Described, nn.Module, ABC):
    """V = L Lᵀ, the covariance over the F features of a matrix-normal prior (relative to the noise).

    Its inverse is ALPaCA's Lambda_0, and V itself is lme4's relative covariance. A feature that is left out of
    `varying` has prior variance zero: its weight is the same in all tasks (a fixed effect).
    """

    def __init__(self, num_features: int, varying: Sequence[int] | None) -> None:
        super().__init__()
        chosen = list(range(num_features)) if varying is None else [int(i) for i in varying]
        if len(set(chosen)) != len(chosen) or not all(0 <= i < num_features for i in chosen):
            raise DataError(f"expected distinct feature positions from 0 to {num_features - 1}, got {chosen}")
        self.num_features, self.varying = num_features, tuple(chosen)

    @abstractmethod
    def square_factor(self) -> Float[Tensor, "R R"]:
        """Lower triangular factor over the R varying features."""

    @abstractmethod
    def set_matrix(self, covariance: Float[Tensor, "F F"]) -> None:
        """Assign V over the varying features, or the nearest this type can hold (a diagonal type keeps the diagonal).

        Raises:
            InferenceError: V is not positive definite.
        """

    def _chosen(self, covariance: Tensor) -> Tensor:
        """The Cholesky factor of the varying part."""
        index = list(self.varying)
        return cholesky(covariance[index][:, index].double(), "prior covariance")

    def factor(self) -> Float[Tensor, "F R"]:
        """L: the square factor, with zero rows for the features that do not vary."""
        square = self.square_factor()
        if len(self.varying) == self.num_features and self.varying == tuple(range(self.num_features)):
            return square
        factor = square.new_zeros(self.num_features, len(self.varying))
        return factor.index_put((torch.tensor(self.varying, device=square.device, dtype=torch.long),), square)

    def matrix(self) -> Float[Tensor, "F F"]:
        """V = L Lᵀ."""
        factor = self.factor()
        return factor @ factor.mT


class FullCovariance(FeatureCovariance):
    """Any covariance over features.

    Args:
        num_features: F.
        variance: starting variance of every feature's weight.
        varying: positions of the features whose weights differ between tasks; all by default.
    """

    def __init__(self, num_features: int, variance: float = 1.0, varying: Sequence[int] | None = None) -> None:
        super().__init__(num_features, varying)
        size = len(self.varying)
        self.log_diagonal = nn.Parameter(torch.full((size,), 0.5 * _log(variance)))
        self.below = nn.Parameter(torch.zeros(size * (size - 1) // 2))

    def square_factor(self) -> Float[Tensor, "R R"]:
        """Cholesky factor: exp(log_diagonal) on the diagonal, free numbers below, scaled by their row's diagonal."""
        scale = self.log_diagonal.exp()
        unit = torch.eye(len(scale), dtype=scale.dtype, device=scale.device)
        rows, columns = torch.tril_indices(len(scale), len(scale), -1, device=scale.device)
        return scale[:, None] * unit.index_put((rows, columns), self.below)

    @torch.no_grad()
    def set_matrix(self, covariance: Float[Tensor, "F F"]) -> None:
        """Assign V over the varying features."""
        factor = self._chosen(covariance)
        scale = factor.diagonal()
        self.log_diagonal.copy_(scale.log())
        rows, columns = torch.tril_indices(len(scale), len(scale), -1)
        self.below.copy_((factor / scale[:, None])[rows, columns])


class DiagonalCovariance(FeatureCovariance):
    """Independent features, each with its own variance. Arguments as in `FullCovariance`."""

    def __init__(self, num_features: int, variance: float = 1.0, varying: Sequence[int] | None = None) -> None:
        super().__init__(num_features, varying)
        self.log_diagonal = nn.Parameter(torch.full((len(self.varying),), 0.5 * _log(variance)))

    def square_factor(self) -> Float[Tensor, "R R"]:
        """diag(standard deviations)."""
        return torch.diag(self.log_diagonal.exp())

    @torch.no_grad()
    def set_matrix(self, covariance: Float[Tensor, "F F"]) -> None:
        """Keep the variances of the varying features."""
        self.log_diagonal.copy_(0.5 * self._chosen(covariance).square().sum(-1).log())


class IsotropicCovariance(FeatureCovariance):
    """Independent features of one common variance. Arguments as in `FullCovariance`."""

    def __init__(self, num_features: int, variance: float = 1.0, varying: Sequence[int] | None = None) -> None:
        super().__init__(num_features, varying)
        self.log_scale = nn.Parameter(torch.tensor(0.5 * _log(variance)))

    def square_factor(self) -> Float[Tensor, "R R"]:
        """The common standard deviation times I."""
        eye = torch.eye(len(self.varying), dtype=self.log_scale.dtype, device=self.log_scale.device)
        return self.log_scale.exp() * eye

    @torch.no_grad()
    def set_matrix(self, covariance: Float[Tensor, "F F"]) -> None:
        """Keep the mean variance of the varying features."""
        self.log_scale.copy_(0.5 * self._chosen(covariance).square().sum(-1).mean().log())


class MatrixNormal(Prior):
    """W ~ MN(K_0, V, Σ): Cov(W_fc, W_f'c') = V_ff' Σ_cc' (Harrison et al. 2018, eq. 4, with V = Lambda_0⁻¹).

    Args:
        covariance: V, the prior covariance over the F features, relative to the noise.
        noise: Σ, the observation noise over the C outputs; the same object as the noise of the likelihood.
    """

    def __init__(self, covariance: FeatureCovariance, noise: Noise | None = None) -> None:
        super().__init__()
        self.covariance = covariance
        self.noise = DiagonalNoise(1) if noise is None else noise
        self.location = nn.Parameter(torch.zeros(covariance.num_features, self.noise.num_outputs))

    @property
    def mean(self) -> Params:
        """K_0, `F C`."""
        return {"weight": self.location}

    def log_prob(self, phi: Params) -> Float[Tensor, "*s B"]:
        """Matrix-normal log density, in nats. Raises UnsupportedError when some feature does not vary."""
        factor = self.covariance.factor()
        if factor.shape[0] != factor.shape[1]:
            raise UnsupportedError("a prior with features that do not vary between tasks has no density over all of W")
        difference = _value(phi, "weight", self.location) - self.location
        factor = factor.to(difference.dtype)  # draws of an exact posterior are in float64
        noise = cholesky(self.noise.covariance().to(difference.dtype), "noise covariance")
        white = solve_lower(noise, solve_lower(factor, difference).mT)
        size_f, size_c = self.location.shape
        determinant = size_c * logdet(factor) + size_f * logdet(noise)
        return -0.5 * (white.square().sum((-1, -2)) + determinant + size_f * size_c * LOG_2PI)

    def sample(self, num_tasks: int, generator: torch.Generator | None = None) -> Params:
        """K_0 + L Z Lcᵀ with standard normal Z."""
        factor, noise = self.covariance.factor(), cholesky(self.noise.covariance(), "noise covariance")
        shape = (num_tasks, factor.shape[1], noise.shape[0])
        normal = common_normals(shape, factor, generator)
        return {"weight": self.location + factor @ normal @ noise.mT}


class Ridge(Prior):
    """W ~ MN(0, I / precision, Σ): what ridge regression believes of its weights, in units of the noise.

    Args:
        num_features: F.
        noise: Σ, the observation noise over the C outputs; the same object as the noise of the likelihood.
        precision: starting precision, the ridge.
        bounds: smallest and largest precision.
    """

    def __init__(
        self, num_features: int, noise: Noise, precision: float = 1.0, bounds: tuple[float, float] = (1e-8, 1e8)
    ) -> None:
        super().__init__()
        self.num_features, self.noise = num_features, noise
        self.precision = Positive((), precision, bounds)

    @property
    def mean(self) -> Params:
        """Zeros, `F C`."""
        return {"weight": self.precision.raw.new_zeros(self.num_features, self.noise.num_outputs)}

    def log_prob(self, phi: Params) -> Float[Tensor, "*s B"]:
        """Matrix-normal log density, in nats."""
        weight = _value(phi, "weight", self.mean["weight"])
        noise = cholesky(self.noise.covariance().to(weight.dtype), "noise covariance")
        precision = self.precision().to(weight.dtype)
        white = solve_lower(noise, weight.mT)
        size_f, size_c = weight.shape[-2:]
        determinant = size_f * logdet(noise) - size_f * size_c * precision.log()
        return -0.5 * (precision * white.square().sum((-1, -2)) + determinant + size_f * size_c * LOG_2PI)

    def sample(self, num_tasks: int, generator: torch.Generator | None = None) -> Params:
        """Z Lcᵀ / √precision with standard normal Z."""
        noise = cholesky(self.noise.covariance(), "noise covariance")
        shape = (num_tasks, self.num_features, len(noise))
        normal = common_normals(shape, noise, generator)
        return {"weight": normal @ noise.mT / self.precision().sqrt()}


def _value(phi: Params, name: str, mean: Tensor) -> Tensor:
    if name not in phi:
        raise ShapeError(f"expected phi with {name!r}, got {sorted(phi)}")
    value = phi[name]
    if value.shape[value.ndim - mean.ndim :] != mean.shape:
        raise ShapeError(f"expected {name!r} of shape ... + {tuple(mean.shape)}, got {tuple(value.shape)}")
    return value


def _log(variance: float) -> float:
    if not 0.0 < variance < math.inf:
        raise DataError(f"expected a positive variance, got {variance}")
    return math.log(variance)


class MatrixNormalMixture(Prior):
    """W ~ Σ_s π_s MN(K_s, V_s, Σ): a mixture of S matrix normals that share Σ.

    Args:
        num_features: F.
        num_components: S.
        noise: Σ, the observation noise over the C outputs; the same object as the noise of the likelihood.
    """

    def __init__(self, num_features: int, num_components: int, noise: Noise | None = None) -> None:
        super().__init__()
        self.noise = DiagonalNoise(1) if noise is None else noise
        self.logits = nn.Parameter(torch.zeros(num_components))
        self.components = nn.ModuleList(
            MatrixNormal(FullCovariance(num_features), self.noise) for _ in range(num_components)
        )
        for component in self.matrix_normals:  # equal components would stay equal
            nn.init.normal_(component.location, std=num_features**-0.5)

    @property
    def matrix_normals(self) -> list[MatrixNormal]:
        """The components; their `covariance` is a `FullCovariance`."""
        return [component for component in self.components if isinstance(component, MatrixNormal)]

    @property
    def mean(self) -> Params:
        """Σ_s π_s K_s, `F C`."""
        locations = torch.stack([component.location for component in self.matrix_normals])
        return {"weight": torch.einsum("s,sfc->fc", self.logits.softmax(-1), locations)}

    def log_prob(self, phi: Params) -> Float[Tensor, "*s B"]:
        """log Σ_s π_s MN(W; K_s, V_s, Σ), in nats."""
        each = torch.stack([component.log_prob(phi) for component in self.matrix_normals], -1)
        return (each + self.logits.log_softmax(-1)).logsumexp(-1)

    def sample(self, num_tasks: int, generator: torch.Generator | None = None) -> Params:
        """A component for each task, then W from it."""
        weights = self.logits.softmax(-1)
        chosen = torch.multinomial(weights, num_tasks, replacement=True, generator=generator)
        draws = torch.stack([c.sample(num_tasks, generator)["weight"] for c in self.matrix_normals])
        return {"weight": draws[chosen, torch.arange(num_tasks, device=chosen.device)]}
