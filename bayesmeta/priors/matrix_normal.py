"""Priors of a last layer W in units of the observation noise: matrix normal, ridge, a mixture of matrix normals."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesmeta.distributions import common_normals
from bayesmeta.errors import DataError
from bayesmeta.linalg import cholesky, logdet, solve_lower
from bayesmeta.noise import DiagonalNoise, Noise, Positive
from bayesmeta.priors.feature_covariance import FeatureCovariance, FullCovariance
from bayesmeta.priors.prior import LOG_2PI, Prior, value_of
from bayesmeta.typing import Params


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
        """The matrix-normal log density, in nats.

        Raises:
            UnsupportedError: a feature does not vary, or V is singular: there is no density over all of W.
        """
        factor = self.covariance.invertible_factor()
        difference = value_of(phi, "weight", self.location) - self.location
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
        weight = value_of(phi, "weight", self.mean["weight"])
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
