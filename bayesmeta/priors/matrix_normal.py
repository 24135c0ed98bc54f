"""Priors of a last layer W in units of the observation noise: matrix normal, ridge, a mixture of matrix normals.

Where tasks have a scale λ each (`TaskScale`), the noise of a task is λ Σ, and the prior of its W is in units of that.
"""

from abc import abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.distributions import common_normals
from bayesmeta.errors import DataError
from bayesmeta.linalg import cholesky, logdet, solve_lower
from bayesmeta.noise import DiagonalNoise, Noise, Positive
from bayesmeta.priors.feature_covariance import FeatureCovariance, FullCovariance
from bayesmeta.priors.prior import LOG_2PI, Prior, value_of
from bayesmeta.priors.task_scale import TaskScale
from bayesmeta.typing import Params


class LastLayerPrior(Prior):
    """A prior of W in units of the noise, with or without a scale of each task: p(W | λ) p(λ), phi = (W, log λ).

    A subclass gives the mean of W and, given λ, its density and draws.

    Attributes:
        scale: p(λ); None where all tasks have λ = 1, and phi is W alone.

    Example:
        >>> import bayesmeta as bm
        >>> noise, scale = bm.noise.DiagonalNoise(1), bm.priors.TaskScale()
        >>> prior = bm.priors.Ridge(3, noise, scale=scale)
        >>> isinstance(prior, bm.priors.LastLayerPrior), sorted(prior.mean)
        (True, ['log_scale', 'weight'])
        >>> joint = prior.log_prob(phi := prior.sample(2, torch.Generator().manual_seed(0)))
        >>> bool((joint == scale.log_prob(phi) + prior.weight_log_prob(phi["weight"], phi["log_scale"])).all())
        True
    """

    scale: TaskScale | None

    @property
    @abstractmethod
    def weight_mean(self) -> Float[Tensor, "F C"]:
        """E W, whatever λ is."""

    @abstractmethod
    def weight_log_prob(
        self, weight: Float[Tensor, "*s F C"], log_scale: Float[Tensor, "*s"] | None
    ) -> Float[Tensor, "*s"]:
        """log p(W | λ), in nats.

        Args:
            weight: W.
            log_scale: log λ; None where it is 0.
        """

    @abstractmethod
    def draw_weight(
        self, num_tasks: int, log_scale: Float[Tensor, "B"] | None, generator: torch.Generator | None = None
    ) -> Float[Tensor, "B F C"]:
        """Draws of W given λ.

        Args:
            num_tasks: B.
            log_scale: log λ of every task; None where it is 0.
            generator: torch's global one when None.
        """

    @property
    def mean(self) -> Params:
        """The prior mean of W, `F C`, and where tasks have scales that of log λ."""
        return {"weight": self.weight_mean} | ({} if self.scale is None else self.scale.mean)

    def log_prob(self, phi: Params) -> Float[Tensor, "*s B"]:
        """The log density, in nats.

        Raises:
            UnsupportedError: it has none over all of W, as where a feature does not vary.
        """
        weight = value_of(phi, "weight", self.weight_mean)
        if self.scale is None:
            return self.weight_log_prob(weight, None)
        return self.scale.log_prob(phi) + self.weight_log_prob(weight, phi["log_scale"])

    def sample(self, num_tasks: int, generator: torch.Generator | None = None) -> Params:
        """Draws of W, and before them of log λ where tasks have scales."""
        if self.scale is None:
            return {"weight": self.draw_weight(num_tasks, None, generator)}
        scale = self.scale.sample(num_tasks, generator)
        return {"weight": self.draw_weight(num_tasks, scale["log_scale"], generator)} | scale


class MatrixNormal(LastLayerPrior):
    """W ~ MN(K_0, V, Σ): Cov(W_fc, W_f'c') = V_ff' Σ_cc' (Harrison et al. 2018, eq. 4, with V = Lambda_0⁻¹).

    Args:
        covariance: V, the prior covariance over the F features, relative to the observation noise.
        noise: Σ, the observation noise over the C outputs, the same object as the noise of the likelihood;
            `DiagonalNoise(1)` by default.
        scale: p(λ), where every task has a scale of its own.

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

    def __init__(
        self, covariance: FeatureCovariance, noise: Noise | None = None, scale: TaskScale | None = None
    ) -> None:
        super().__init__()
        self.covariance, self.scale = covariance, scale
        self.noise = DiagonalNoise(1) if noise is None else noise
        self.location = nn.Parameter(torch.zeros(covariance.num_features, self.noise.num_outputs))

    @property
    @override
    def weight_mean(self) -> Float[Tensor, "F C"]:
        return self.location

    @override
    def weight_log_prob(
        self, weight: Float[Tensor, "*s F C"], log_scale: Float[Tensor, "*s"] | None
    ) -> Float[Tensor, "*s"]:
        return self._weight_density(weight.dtype)(weight, log_scale)

    @override
    def density(self) -> Callable[[Params], Tensor]:
        given = self._weight_density(self.location.dtype)

        def log_prob(phi: Params) -> Tensor:
            weight = value_of(phi, "weight", self.location)
            if weight.dtype != self.location.dtype:
                return self.log_prob(phi)
            if self.scale is None:
                return given(weight, None)
            return self.scale.log_prob(phi) + given(weight, phi["log_scale"])

        return log_prob

    def _weight_density(self, dtype: torch.dtype) -> Callable[[Tensor, Tensor | None], Tensor]:
        """W, log λ -> log p(W | λ) for W in this precision."""
        # raises where V is singular; draws of an exact posterior are in float64
        factor = self.covariance.invertible_factor().to(dtype)
        noise = cholesky(self.noise.covariance().to(dtype), "noise covariance")
        size_f, size_c = self.location.shape
        determinant = size_c * logdet(factor) + size_f * logdet(noise)
        # of triangular factors inverses are as accurate as solving (Higham 2002, chapter 14), and products are cheaper
        whitening = solve_lower(factor, torch.eye(size_f, dtype=dtype, device=factor.device))
        over_outputs = solve_lower(noise, torch.eye(size_c, dtype=dtype, device=noise.device))

        def log_prob(weight: Tensor, log_scale: Tensor | None) -> Tensor:
            # all weights are columns of one right side, as a batch would copy the factors for each
            difference = (weight - self.location).movedim((-2, -1), (0, 1))  # F C *s
            white = (whitening @ difference.flatten(1)).unflatten(1, difference.shape[1:])
            white = (over_outputs @ white.transpose(0, 1).flatten(1)).reshape(size_c * size_f, *weight.shape[:-2])
            return _log_normal(white.square().sum(0), determinant, size_f * size_c, log_scale)

        return log_prob

    @override
    def draw_weight(
        self, num_tasks: int, log_scale: Float[Tensor, "B"] | None, generator: torch.Generator | None = None
    ) -> Float[Tensor, "B F C"]:
        # K_0 + √λ L Z Lcᵀ with standard normal Z and Σ = Lc Lcᵀ
        factor, noise = self.covariance.factor(), cholesky(self.noise.covariance(), "noise covariance")
        shape = (num_tasks, factor.shape[1], noise.shape[0])
        normal = common_normals(shape, factor, generator)
        return self.location + _scaled(factor @ normal @ noise.mT, log_scale)


class Ridge(LastLayerPrior):
    """W ~ MN(0, I / precision, Σ): the prior under which ridge regression is the posterior mean.

    Args:
        num_features: F.
        noise: Σ, the observation noise over the C outputs; the same object as the noise of the likelihood.
        precision: the starting precision relative to the observation noise: the ridge.
        bounds: the smallest and the largest precision.
        scale: p(λ), where every task has a scale of its own.

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
        self,
        num_features: int,
        noise: Noise,
        precision: float = 1.0,
        bounds: tuple[float, float] = (1e-8, 1e8),
        scale: TaskScale | None = None,
    ) -> None:
        super().__init__()
        self.num_features, self.noise, self.scale = num_features, noise, scale
        self.precision = Positive((), precision, bounds)

    @property
    @override
    def weight_mean(self) -> Float[Tensor, "F C"]:
        return self.precision.raw.new_zeros(self.num_features, self.noise.num_outputs)

    @override
    def weight_log_prob(
        self, weight: Float[Tensor, "*s F C"], log_scale: Float[Tensor, "*s"] | None
    ) -> Float[Tensor, "*s"]:
        noise = cholesky(self.noise.covariance().to(weight.dtype), "noise covariance")
        precision = self.precision().to(weight.dtype)
        white = solve_lower(noise, weight.mT)
        size_f, size_c = weight.shape[-2:]
        determinant = size_f * logdet(noise) - size_f * size_c * precision.log()
        return _log_normal(precision * white.square().sum((-1, -2)), determinant, size_f * size_c, log_scale)

    @override
    def draw_weight(
        self, num_tasks: int, log_scale: Float[Tensor, "B"] | None, generator: torch.Generator | None = None
    ) -> Float[Tensor, "B F C"]:
        # √λ Z Lcᵀ / √precision with standard normal Z and Σ = Lc Lcᵀ
        noise = cholesky(self.noise.covariance(), "noise covariance")
        shape = (num_tasks, self.num_features, len(noise))
        normal = common_normals(shape, noise, generator)
        return _scaled(normal @ noise.mT / self.precision().sqrt(), log_scale)


class MatrixNormalMixture(LastLayerPrior):
    """W ~ Σ_s π_s MN(K_s, V_s, Σ): a mixture of S matrix normals that share Σ.

    Args:
        num_features: F.
        num_components: S.
        noise: Σ, the observation noise over the C outputs, the same object as the noise of the likelihood;
            `DiagonalNoise(1)` by default.
        scale: p(λ), where every task has a scale of its own, whatever its component.

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

    def __init__(
        self, num_features: int, num_components: int, noise: Noise | None = None, scale: TaskScale | None = None
    ) -> None:
        super().__init__()
        self.scale = scale
        if num_features < 1 or num_components < 1:
            raise DataError(f"expected features and components, got {num_features} and {num_components}")
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
    @override
    def weight_mean(self) -> Float[Tensor, "F C"]:
        locations = torch.stack([component.location for component in self.matrix_normals])
        return torch.einsum("s,sfc->fc", self.logits.softmax(-1), locations)

    @override
    def weight_log_prob(
        self, weight: Float[Tensor, "*s F C"], log_scale: Float[Tensor, "*s"] | None
    ) -> Float[Tensor, "*s"]:
        each = torch.stack([component.weight_log_prob(weight, log_scale) for component in self.matrix_normals], -1)
        return (each + self.logits.log_softmax(-1)).logsumexp(-1)

    @override
    def draw_weight(
        self, num_tasks: int, log_scale: Float[Tensor, "B"] | None, generator: torch.Generator | None = None
    ) -> Float[Tensor, "B F C"]:
        weights = self.logits.softmax(-1)
        chosen = torch.multinomial(weights, num_tasks, replacement=True, generator=generator)
        draws = torch.stack([c.draw_weight(num_tasks, log_scale, generator) for c in self.matrix_normals])
        return draws[chosen, torch.arange(num_tasks, device=chosen.device)]


def _log_normal(squares: Tensor, log_determinant: Tensor, count: int, log_scale: Tensor | None) -> Tensor:
    """log N of n numbers with the covariance λ K, in nats."""
    if log_scale is not None:
        squares, log_determinant = squares * (-log_scale).exp(), log_determinant + count * log_scale
    return -0.5 * (squares + log_determinant + count * LOG_2PI)


def _scaled(deviation: Float[Tensor, "B F C"], log_scale: Float[Tensor, "B"] | None) -> Float[Tensor, "B F C"]:
    """√λ times the deviation from the mean."""
    return deviation if log_scale is None else deviation * (0.5 * log_scale).exp()[:, None, None]
