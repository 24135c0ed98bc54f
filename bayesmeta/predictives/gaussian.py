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
from bayesmeta.linalg import cholesky, cholesky_with_jitter, logdet, require_matrix, solve_lower
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
        return self.latent_variance + self.noise

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
        count, squares, determinant = self.quadratic_form(y, mask)
        return -0.5 * (squares + determinant + count * LOG_2PI)

    def quadratic_form(
        self, y: Float[Tensor, "B M C"], mask: Bool[Tensor, "B M"] | None = None
    ) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"], Float[Tensor, "B"]]:
        """n, q and log|K| of the n = M C real numbers of each task: rᵀ K⁻¹ r with K their covariance, r = y - mean.

        Args:
            y: outcomes.
            mask: True at the points that count; all of them when None.

        Raises:
            ShapeError: y or the mask does not have the shape of the prediction.
        """
        require_shape(y, self.shape)
        mask = torch.ones(y.shape[:2], dtype=torch.bool, device=y.device) if mask is None else mask
        require_mask(mask, self.shape)
        residual = torch.where(mask[..., None], y.to(self.location.dtype) - self.location, 0.0)
        output_covariance = cholesky(self.output_covariance, "noise covariance")
        if self.latent_root is not None and self._is_noisy:
            white, of_points = self._low_rank_whitened(self.latent_root(), residual, mask)
        else:
            self._require_room()
            both = mask[..., :, None] & mask[..., None, :]
            eye = torch.eye(mask.shape[-1], dtype=self.location.dtype, device=self.location.device)
            rows = cholesky(torch.where(both, self.covariance(), eye), "predictive covariance")
            white, of_points = solve_lower(rows, residual), logdet(rows)
        squares = solve_lower(output_covariance, white.mT).square().sum((-1, -2))  # Lc⁻¹ (Lr⁻¹ R)ᵀ
        count = mask.sum(-1).to(self.location.dtype)
        num_outputs = self.output_covariance.shape[-1]
        return count * num_outputs, squares, num_outputs * of_points + count * logdet(output_covariance)

    def _require_room(self) -> None:
        """Raise InferenceError where the points are too many for a covariance between them, before any is made."""
        require_matrix(self.location.shape[1], self.location.shape[1])

    def _low_rank_whitened(
        self, root: Float[Tensor, "B M K"], residual: Float[Tensor, "B M C"], mask: Bool[Tensor, "B M"]
    ) -> tuple[Float[Tensor, "B MK C"], Float[Tensor, "B"]]:
        """Rows whose squares sum to those of Lr⁻¹ R, and the log determinant of the points' covariance.

        By (Φ Φᵀ + I)⁻¹ = I - Φ A⁻¹ Φᵀ with A = I + Φᵀ Φ, where rows are divided by the deviation of their noise.
        """
        noise = torch.where(mask, self.point_noise, 1.0)
        root = torch.where(mask[..., None], root / noise.sqrt()[..., None], 0.0)
        residual = residual / noise.sqrt()[..., None]
        eye = torch.eye(root.shape[-1], dtype=root.dtype, device=root.device)
        factor = cholesky(root.mT @ root + eye, "predictive precision")
        mean = torch.cholesky_solve(root.mT @ residual, factor)
        # rᵀ S⁻¹ r = |r - Φ m|² + |m|²: a sum of squares, where a difference would cancel
        return torch.cat([residual - root @ mean, mean], 1), logdet(factor) + noise.log().sum(-1)

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
            rows = cholesky_with_jitter(self.covariance(), "predictive covariance")
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
