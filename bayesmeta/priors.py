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

__all__ = [
    "DiagonalCovariance",
    "DiagonalGaussian",
    "FeatureCovariance",
    "FullCovariance",
    "FullGaussian",
    "IsotropicCovariance",
    "IsotropicGaussian",
    "MatrixNormal",
    "MatrixNormalMixture",
    "Prior",
    "Ridge",
    "StandardNormal",
]

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

    @abstractmethod
    def sample(self, num_tasks: int, generator: torch.Generator | None = None) -> Params:
        """One draw of phi for each of `num_tasks` tasks: each value `B *shape`.

        Args:
            num_tasks: B.
            generator: torch's global one when None.
        """


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
            each = (_value(phi, name, mean) - mean).square() / variance + variance.log() + LOG_2PI
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
        parts = [_value(phi, name, mean).square() + LOG_2PI for name, mean in self.mean.items()]
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
        self.location = nn.Parameter(torch.zeros(num_parameters))
        self.covariance = FullCovariance(num_parameters, variance)

    @property
    def mean(self) -> Params:
        """The prior mean, a vector."""
        return {self.name: self.location}

    def log_prob(self, phi: Params) -> Float[Tensor, "*s B"]:
        """The multivariate Gaussian log density, in nats."""
        difference = _value(phi, self.name, self.location) - self.location
        factor = self.covariance.factor().to(difference.dtype)
        white = solve_lower(factor, difference[..., None])[..., 0]
        return -0.5 * (white.square().sum(-1) + logdet(factor) + len(self.location) * LOG_2PI)

    def sample(self, num_tasks: int, generator: torch.Generator | None = None) -> Params:
        """Draws mean + L z with standard normal z."""
        like = self.location
        normal = common_normals((num_tasks, len(like)), like, generator)
        return {self.name: self.location + normal @ self.covariance.factor().mT}


class FeatureCovariance(Described, nn.Module, ABC):
    """V = L Lᵀ, the prior covariance over the F features of a matrix-normal prior, relative to the observation noise.

    Its inverse is ALPaCA's Lambda_0, and V itself is lme4's relative covariance. A feature that is left out of
    `varying` has prior variance zero: its weight is the same in all tasks (a fixed effect). A subclass gives
    `square_factor` and `set_matrix`.

    Args:
        num_features: F.
        varying: positions of the features whose weights differ between tasks; None for all.

    Raises:
        DataError: positions that repeat or are not those of features.

    Example:
        >>> import bayesmeta as bm
        >>> class Smooth(bm.priors.FeatureCovariance):
        ...     '''Variances 1, 1/2, 1/3, ..: later features matter less. One scale is learned.'''
        ...     def __init__(self, num_features, varying=None):
        ...         super().__init__(num_features, varying)
        ...         self.log_scale = torch.nn.Parameter(torch.zeros(()))
        ...     def square_factor(self):
        ...         rank = torch.arange(1.0, len(self.varying) + 1)
        ...         return torch.diag(self.log_scale.exp() * rank.rsqrt())
        ...     def set_matrix(self, covariance):
        ...         self.log_scale.data.copy_(0.5 * covariance[0, 0].log())
        >>> [round(variance, 2) for variance in Smooth(4).matrix().diagonal().tolist()]
        [1.0, 0.5, 0.33, 0.25]
        >>> learner = bm.ALPaCA(bm.Polynomial(1, 3), covariance=Smooth(4))
    """

    def __init__(self, num_features: int, varying: Sequence[int] | None) -> None:
        super().__init__()
        chosen = list(range(num_features)) if varying is None else [int(i) for i in varying]
        if len(set(chosen)) != len(chosen) or not all(0 <= i < num_features for i in chosen):
            raise DataError(f"expected distinct feature positions from 0 to {num_features - 1}, got {chosen}")
        self.num_features, self.varying = num_features, tuple(chosen)

    @abstractmethod
    def square_factor(self) -> Float[Tensor, "R R"]:
        """The lower triangular factor over the R varying features."""

    @abstractmethod
    def set_matrix(self, covariance: Float[Tensor, "F F"]) -> None:
        """Assign V over the varying features, or what this type can hold of it (a diagonal type keeps the diagonal).

        Raises:
            InferenceError: V is not positive definite.
        """

    def _chosen(self, covariance: Tensor) -> Tensor:
        """The Cholesky factor of the varying part."""
        index = list(self.varying)
        return cholesky(covariance[index][:, index].double(), "prior covariance")

    def factor(self) -> Float[Tensor, "F R"]:
        """L: the square factor, with rows of zeros for the features that do not vary."""
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
    """Any prior covariance over features: F (F + 1) / 2 numbers are learned.

    Args:
        num_features: F.
        variance: the starting variance of the weight of every feature, relative to the observation noise.
        varying: positions of the features whose weights differ between tasks; all by default.

    Raises:
        DataError: a variance that is not positive; positions that repeat or are not those of features.

    Example:
        >>> import bayesmeta as bm
        >>> intercepts = bm.priors.FullCovariance(2, varying=[0])  # the slope is the same in all tasks
        >>> intercepts.matrix()
        tensor([[1., 0.],
                [0., 0.]], grad_fn=<...>)
        >>> learner = bm.ALPaCA(bm.Identity(1), covariance=intercepts)  # random intercepts
    """

    def __init__(self, num_features: int, variance: float = 1.0, varying: Sequence[int] | None = None) -> None:
        super().__init__(num_features, varying)
        size = len(self.varying)
        self.log_diagonal = nn.Parameter(torch.full((size,), 0.5 * _log(variance)))
        self.below = nn.Parameter(torch.zeros(size * (size - 1) // 2))

    def square_factor(self) -> Float[Tensor, "R R"]:
        """The Cholesky factor: exp(log_diagonal) on the diagonal, free numbers times that of their row below it."""
        scale = self.log_diagonal.exp()
        unit = torch.eye(len(scale), dtype=scale.dtype, device=scale.device)
        rows, columns = torch.tril_indices(len(scale), len(scale), -1, device=scale.device)
        return scale[:, None] * unit.index_put((rows, columns), self.below)

    @torch.no_grad()
    def set_matrix(self, covariance: Float[Tensor, "F F"]) -> None:
        """Assign V over the varying features. Raises InferenceError where it is not positive definite."""
        factor = self._chosen(covariance)
        scale = factor.diagonal()
        self.log_diagonal.copy_(scale.log())
        rows, columns = torch.tril_indices(len(scale), len(scale), -1)
        self.below.copy_((factor / scale[:, None])[rows, columns])


class DiagonalCovariance(FeatureCovariance):
    """A diagonal prior covariance: the weights of features are independent, each with its own learned variance.

    Args:
        num_features: F.
        variance: the starting value of all variances, relative to the observation noise.
        varying: positions of the features that have a variance, the others having none; all by default.

    Raises:
        DataError: a variance that is not positive; positions that repeat or are not those of features.

    Example:
        >>> import bayesmeta as bm
        >>> covariance = bm.priors.DiagonalCovariance(2)
        >>> covariance.set_matrix(torch.tensor([[4.0, 1.0], [1.0, 9.0]]))  # keeps the variances
        >>> covariance.matrix().round(decimals=3)
        tensor([[4., 0.],
                [0., 9.]], grad_fn=<...>)
        >>> learner = bm.ALPaCA(bm.Identity(1), covariance=covariance)
    """

    def __init__(self, num_features: int, variance: float = 1.0, varying: Sequence[int] | None = None) -> None:
        super().__init__(num_features, varying)
        self.log_diagonal = nn.Parameter(torch.full((len(self.varying),), 0.5 * _log(variance)))

    def square_factor(self) -> Float[Tensor, "R R"]:
        """The diagonal matrix of the standard deviations."""
        return torch.diag(self.log_diagonal.exp())

    @torch.no_grad()
    def set_matrix(self, covariance: Float[Tensor, "F F"]) -> None:
        """Assign the variances of the varying features; correlations are dropped."""
        self.log_diagonal.copy_(0.5 * self._chosen(covariance).square().sum(-1).log())


class IsotropicCovariance(FeatureCovariance):
    """A prior covariance that is a multiple of the identity: the weights of all features have one learned variance.

    Args:
        num_features: F.
        variance: the starting variance, relative to the observation noise.
        varying: positions of the features whose weights differ between tasks; all by default.

    Raises:
        DataError: a variance that is not positive; positions that repeat or are not those of features.

    Example:
        >>> import bayesmeta as bm
        >>> covariance = bm.priors.IsotropicCovariance(8, variance=0.5)
        >>> len(list(covariance.parameters()))  # one number is learned
        1
        >>> learner = bm.ALPaCA(bm.MLP(1, [16, 8]), covariance=covariance)
    """

    def __init__(self, num_features: int, variance: float = 1.0, varying: Sequence[int] | None = None) -> None:
        super().__init__(num_features, varying)
        self.log_scale = nn.Parameter(torch.tensor(0.5 * _log(variance)))

    def square_factor(self) -> Float[Tensor, "R R"]:
        """The common standard deviation times the identity."""
        eye = torch.eye(len(self.varying), dtype=self.log_scale.dtype, device=self.log_scale.device)
        return self.log_scale.exp() * eye

    @torch.no_grad()
    def set_matrix(self, covariance: Float[Tensor, "F F"]) -> None:
        """Assign the mean of the variances of the varying features."""
        self.log_scale.copy_(0.5 * self._chosen(covariance).square().sum(-1).mean().log())


class MatrixNormal(Prior):
    """W ~ MN(K_0, V, Σ): Cov(W_fc, W_f'c') = V_ff' Σ_cc' (Harrison et al. 2018, eq. 4, with V = Lambda_0⁻¹).

    Args:
        covariance: V, the prior covariance over the F features, relative to the observation noise.
        noise: Σ, the observation noise over the C outputs, the same object as the noise of the likelihood;
            `DiagonalNoise(1)` by default.

    Example:
        >>> import bayesmeta as bm
        >>> noise = bm.noise.DiagonalNoise(2, initial=0.25)
        >>> prior = bm.priors.MatrixNormal(bm.priors.FullCovariance(3), noise)
        >>> weight = prior.sample(5)["weight"]  # W of five tasks
        >>> weight.shape, prior.log_prob({"weight": weight}).shape
        (torch.Size([5, 3, 2]), torch.Size([5]))
        >>> bm.ALPaCA(bm.Identity(1)).prior.mean["weight"].shape  # the prior of ALPaCA is one
        torch.Size([2, 1])
    """

    def __init__(self, covariance: FeatureCovariance, noise: Noise | None = None) -> None:
        super().__init__()
        self.covariance = covariance
        self.noise = DiagonalNoise(1) if noise is None else noise
        self.location = nn.Parameter(torch.zeros(covariance.num_features, self.noise.num_outputs))

    @property
    def mean(self) -> Params:
        """The prior mean K_0, `F C`."""
        return {"weight": self.location}

    def log_prob(self, phi: Params) -> Float[Tensor, "*s B"]:
        """The matrix-normal log density, in nats. Raises UnsupportedError where some feature does not vary."""
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
        """Draws K_0 + L Z Lcᵀ with standard normal Z and Σ = Lc Lcᵀ."""
        factor, noise = self.covariance.factor(), cholesky(self.noise.covariance(), "noise covariance")
        shape = (num_tasks, factor.shape[1], noise.shape[0])
        normal = common_normals(shape, factor, generator)
        return {"weight": self.location + factor @ normal @ noise.mT}


class Ridge(Prior):
    """W ~ MN(0, I / precision, Σ): the prior under which ridge regression is the posterior mean.

    Args:
        num_features: F.
        noise: Σ, the observation noise over the C outputs; the same object as the noise of the likelihood.
        precision: the starting precision relative to the observation noise: the ridge.
        bounds: the smallest and the largest precision.

    Raises:
        DataError: bounds that are not positive and increasing, or a precision outside of them.

    Example:
        >>> import bayesmeta as bm
        >>> prior = bm.priors.Ridge(3, bm.noise.DiagonalNoise(1, initial=0.5), precision=2.0)
        >>> draws = prior.sample(2000, torch.Generator().manual_seed(0))["weight"]
        >>> round(draws.var().item(), 2)  # noise variance over precision
        0.25
    """

    def __init__(
        self, num_features: int, noise: Noise, precision: float = 1.0, bounds: tuple[float, float] = (1e-8, 1e8)
    ) -> None:
        super().__init__()
        self.num_features, self.noise = num_features, noise
        self.precision = Positive((), precision, bounds)

    @property
    def mean(self) -> Params:
        """The prior mean, zeros `F C`."""
        return {"weight": self.precision.raw.new_zeros(self.num_features, self.noise.num_outputs)}

    def log_prob(self, phi: Params) -> Float[Tensor, "*s B"]:
        """The matrix-normal log density, in nats."""
        weight = _value(phi, "weight", self.mean["weight"])
        noise = cholesky(self.noise.covariance().to(weight.dtype), "noise covariance")
        precision = self.precision().to(weight.dtype)
        white = solve_lower(noise, weight.mT)
        size_f, size_c = weight.shape[-2:]
        determinant = size_f * logdet(noise) - size_f * size_c * precision.log()
        return -0.5 * (precision * white.square().sum((-1, -2)) + determinant + size_f * size_c * LOG_2PI)

    def sample(self, num_tasks: int, generator: torch.Generator | None = None) -> Params:
        """Draws Z Lcᵀ / √precision with standard normal Z and Σ = Lc Lcᵀ."""
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
        noise: Σ, the observation noise over the C outputs, the same object as the noise of the likelihood;
            `DiagonalNoise(1)` by default.

    Example:
        >>> import bayesmeta as bm
        >>> prior = bm.priors.MatrixNormalMixture(1, num_components=2)
        >>> for component, center in zip(prior.matrix_normals, (-10.0, 10.0)):
        ...     _ = component.location.data.fill_(center)
        >>> sorted(prior.sample(4, torch.Generator().manual_seed(0))["weight"].sign().flatten().tolist())
        [-1.0, 1.0, 1.0, 1.0]
        >>> prior.mean["weight"].item()  # the mean of both components
        0.0
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
        """The components, each with a `FullCovariance` over features."""
        return [component for component in self.components if isinstance(component, MatrixNormal)]

    @property
    def mean(self) -> Params:
        """The prior mean Σ_s π_s K_s, `F C`."""
        locations = torch.stack([component.location for component in self.matrix_normals])
        return {"weight": torch.einsum("s,sfc->fc", self.logits.softmax(-1), locations)}

    def log_prob(self, phi: Params) -> Float[Tensor, "*s B"]:
        """The log density log Σ_s π_s MN(W; K_s, V_s, Σ), in nats."""
        each = torch.stack([component.log_prob(phi) for component in self.matrix_normals], -1)
        return (each + self.logits.log_softmax(-1)).logsumexp(-1)

    def sample(self, num_tasks: int, generator: torch.Generator | None = None) -> Params:
        """Draws a component for each task, then W from it."""
        weights = self.logits.softmax(-1)
        chosen = torch.multinomial(weights, num_tasks, replacement=True, generator=generator)
        draws = torch.stack([c.sample(num_tasks, generator)["weight"] for c in self.matrix_normals])
        return {"weight": draws[chosen, torch.arange(num_tasks, device=chosen.device)]}
