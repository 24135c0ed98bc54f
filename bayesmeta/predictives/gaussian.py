"""Jointly Gaussian points whose outputs share one covariance over the points, up to scale: a Kronecker product."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal
from typing_extensions import override

from bayesmeta.arguments import draw_shape
from bayesmeta.distributions import common_normals
from bayesmeta.errors import UnsupportedError
from bayesmeta.linalg import cholesky, logdet, require_matrix, solve_lower
from bayesmeta.predictives.joint_gaussian import JointGaussianPredictive
from bayesmeta.predictives.predictive import LOG_2PI, require_mask, require_shape


@dataclass(frozen=True, eq=False)
class GaussianPredictive(JointGaussianPredictive):
    """Jointly Gaussian points: Cov(y_mc, y_m'c') = (R + noise I)_mm' Σ_cc', a Kronecker product of points and outputs.

    It is the predictive of `ALPaCA`, `R2D2Regressor` and `DeepKernelTransfer`.

    Attributes:
        location: the mean, `B M C`, units of y.
        latent_variance: the diagonal of R, `B M`, in units of Σ.
        latent_covariance: computes R, `B M M`, in units of Σ; called only where the joint distribution is asked for.
        output_covariance: Σ, `C C`, squared units of y.
        noise: the noise variance of observations in units of Σ: 1, or where points differ in it `B M`, one for each; 0
            for the noiseless f.
        latent_root: computes a root Φ of R = Φ Φᵀ, `B M K`, where one with K < M columns is known; joint densities and
            draws then take K x K matrices in place of M x M ones. None where there is none.

    Example:
        >>> import bayesmeta as bm
        >>> predictive = bm.ALPaCA(bm.Identity(1)).adapt(bm.Data.from_arrays([0.0], [1.0])).predict([5.0, 5.1])
        >>> isinstance(predictive, bm.predictives.GaussianPredictive)
        True
        >>> y = torch.tensor([[[9.0], [9.2]]])  # both far above the mean, and together: a steep line
        >>> bool(predictive.log_prob(y) > predictive.marginal_log_prob(y).sum())
        True
        >>> bool(predictive.noiseless.variance.sum() < predictive.variance.sum())
        True
    """

    latent_variance: Float[Tensor, "B M"]
    latent_covariance: Callable[[], Tensor]
    output_covariance: Float[Tensor, "C C"]
    noise: float | Float[Tensor, "B M"] = 1.0
    latent_root: Callable[[], Tensor] | None = None

    @property
    def point_noise(self) -> Float[Tensor, "B M"]:
        """The noise variance of each point, in units of Σ."""
        return self.noise if isinstance(self.noise, Tensor) else torch.full_like(self.latent_variance, self.noise)

    @property
    def _is_noisy(self) -> bool:
        return isinstance(self.noise, Tensor) or self.noise > 0.0

    @property
    def point_variance(self) -> Float[Tensor, "B M"]:
        """The diagonal of R, and the noise of each point."""
        return self.latent_variance + self.point_noise

    @property
    def marginals(self) -> Distribution:
        """Gaussian distributions of batch shape (B, M) and event shape (C,)."""
        if self.output_covariance.shape[-1] == 1:
            return Independent(Normal(self.location, self.stddev, validate_args=False), 1)
        factor = self.point_variance.sqrt()[..., None, None] * cholesky(self.output_covariance, "noise covariance")
        return MultivariateNormal(self.location, scale_tril=factor, validate_args=False)

    @property
    def variance(self) -> Float[Tensor, "B M C"]:
        """The predictive variance, squared units of y."""
        return self.point_variance[..., None] * self.output_covariance.diagonal()

    def covariance(self) -> Float[Tensor, "B M M"]:
        """R and the noise of each point, the covariance over points in units of Σ."""
        self._require_room()
        return self.latent_covariance() + torch.diag_embed(self.point_noise)

    def log_prob(self, y: Float[Tensor, "B M C"], mask: Bool[Tensor, "B M"] | None = None) -> Float[Tensor, "B"]:
        """The joint log density of the real points, in nats."""
        require_shape(y, self.shape)
        mask = torch.ones(y.shape[:2], dtype=torch.bool, device=y.device) if mask is None else mask
        require_mask(mask, self.shape)
        if self.latent_root is not None and self._is_noisy:
            return self._low_rank_log_prob(self.latent_root(), y, mask)
        self._require_room()
        both = mask[..., :, None] & mask[..., None, :]
        eye = torch.eye(mask.shape[-1], dtype=self.location.dtype, device=self.location.device)
        rows = cholesky(torch.where(both, self.covariance(), eye), "predictive covariance")
        output_covariance = cholesky(self.output_covariance, "noise covariance")
        residual = torch.where(mask[..., None], y.to(self.location.dtype) - self.location, 0.0)
        white = solve_lower(output_covariance, solve_lower(rows, residual).mT)  # Lc⁻¹ (Lr⁻¹ R)ᵀ
        count = mask.sum(-1).to(self.location.dtype)
        num_outputs = self.output_covariance.shape[-1]
        determinant = num_outputs * logdet(rows) + count * logdet(output_covariance)
        return -0.5 * (white.square().sum((-1, -2)) + determinant + count * num_outputs * LOG_2PI)

    def _require_room(self) -> None:
        """Raise InferenceError where the points are too many for a covariance between them, before any is made."""
        require_matrix(self.location.shape[1], self.location.shape[1])

    def _low_rank_log_prob(self, root: Float[Tensor, "B M K"], y: Tensor, mask: Tensor) -> Float[Tensor, "B"]:
        """The same by (Φ Φᵀ + I)⁻¹ = I - Φ A⁻¹ Φᵀ with A = I + Φᵀ Φ, where rows are divided by the deviation of their
        noise.
        """
        noise = torch.where(mask, self.point_noise, 1.0)
        root = torch.where(mask[..., None], root / noise.sqrt()[..., None], 0.0)
        residual = torch.where(mask[..., None], y.to(self.location.dtype) - self.location, 0.0)
        residual = residual / noise.sqrt()[..., None]
        eye = torch.eye(root.shape[-1], dtype=root.dtype, device=root.device)
        factor = cholesky(root.mT @ root + eye, "predictive precision")
        mean = torch.cholesky_solve(root.mT @ residual, factor)
        # rᵀ S⁻¹ r = |r - Φ m|² + |m|²: a sum of squares, where a difference would cancel
        stacked = torch.cat([residual - root @ mean, mean], 1)
        output_covariance = cholesky(self.output_covariance, "noise covariance")
        squares = solve_lower(output_covariance, stacked.mT).square().sum((-1, -2))
        count = mask.sum(-1).to(self.location.dtype)
        num_outputs = self.output_covariance.shape[-1]
        of_points = logdet(factor) + noise.log().sum(-1)
        determinant = num_outputs * of_points + count * logdet(output_covariance)
        return -0.5 * (squares + determinant + count * num_outputs * LOG_2PI)

    def rsample(
        self, sample_shape: tuple[int, ...] | int = (), generator: torch.Generator | None = None
    ) -> Float[Tensor, "*s B M C"]:
        """Joint draws."""
        output_covariance = cholesky(self.output_covariance, "noise covariance")
        shape = (*draw_shape(sample_shape), *self.location.shape)
        if self.latent_root is not None:
            root = self.latent_root()
            weights = common_normals((*shape[:-2], root.shape[-1], shape[-1]), self.location, generator)
            draws = root @ weights
            if self._is_noisy:
                draws = draws + self.point_noise.sqrt()[..., None] * common_normals(shape, self.location, generator)
            return self.location + draws @ output_covariance.mT
        self._require_room()
        if self._is_noisy:
            rows = cholesky(self.covariance(), "predictive covariance")
        else:  # R has the rank of the features: an eigenvector root also exists where it is singular
            values, vectors = torch.linalg.eigh(self.latent_covariance())
            rows = vectors * values.clamp(min=0.0).sqrt()[..., None, :]
        normal = common_normals(shape, self.location, generator)
        return self.location + rows @ normal @ output_covariance.mT

    @override
    def with_noise(self, noise: Float[Tensor, "B M C"]) -> "GaussianPredictive":
        if self.output_covariance.shape[-1] > 1:
            raise UnsupportedError("known noise (yerr) of several outputs has no Kronecker form: give each a learner")
        known = noise[..., 0].to(self.latent_variance.dtype) / self.output_covariance[0, 0]
        return replace(self, noise=self.point_noise + known)

    @property
    def noiseless(self) -> "GaussianPredictive":
        """The predictive of f."""
        return replace(self, noise=0.0)
