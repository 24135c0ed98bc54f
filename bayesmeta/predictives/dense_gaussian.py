"""Jointly Gaussian points with any covariance across points and outputs: what a linearised network gives."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal
from typing_extensions import override

from bayesmeta.arguments import draw_shape
from bayesmeta.distributions import common_normals
from bayesmeta.linalg import cholesky, cholesky_with_jitter, logdet, require_matrix, solve_lower
from bayesmeta.predictives.joint_gaussian import JointGaussianPredictive
from bayesmeta.predictives.predictive import LOG_2PI, require_mask, require_shape


@dataclass(frozen=True, eq=False)
class DenseGaussianPredictive(JointGaussianPredictive):
    """Jointly Gaussian points: Cov(y_mc, y_m'c') = Cov(f_mc, f_m'c') + noise δ_mm' Σ_cc'.

    `GaussianPredictive` is the special case of a Kronecker product, at a cost of M³ + C³ where this one pays (M C)³.
    The joint axis MC is point-major: all outputs of the first point, then those of the second.

    A noiseless f may be certain, or have fewer free directions than outputs; then it has no density, and the joint
    `log_prob` says so. Its marginals still need a triangular root: each variance is raised by 32 C ε of itself (8e-6 of
    it for two outputs in float32), which is the rounding of the covariance itself, and by the smallest positive
    number. Neither is added to `variance`, nor where there is noise.

    Attributes:
        location: the mean, `B M C`, units of y.
        point_covariance: the covariance of f at each point over outputs, `B M C C`, squared units of y; or what
            computes it, which is called where `blocks` is asked for, as the joint density does not need it.
        latent_covariance: computes the covariance of f over all points, `B MC MC`, squared units of y; called only
            where the joint distribution is asked for.
        noise_covariance: Σ, the noise covariance, `C C`, squared units of y.
        noise: 1 for observations, 0 for the noiseless f.
        known_noise: the known noise variance of each outcome beside Σ, `B M C`, squared units of y; None where none is
            known.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.MAML(bm.MLP(1, [8]), posterior=bm.Linearized())
        >>> predictive = learner.adapt(bm.Data.from_arrays([0.0, 1.0], [0.3, 0.7])).predict([2.0, 2.1])
        >>> isinstance(predictive, bm.predictives.DenseGaussianPredictive)
        True
        >>> covariance = predictive.noiseless.covariance()[0]  # of f at two points near each other
        >>> bool(covariance[0, 1] / (covariance[0, 0] * covariance[1, 1]).sqrt() > 0.9)
        True
    """

    point_covariance: Float[Tensor, "B M C C"] | Callable[[], Tensor]
    latent_covariance: Callable[[], Tensor]
    noise_covariance: Float[Tensor, "C C"]
    noise: float = 1.0
    known_noise: Float[Tensor, "B M C"] | None = None

    @functools.cached_property
    def blocks(self) -> Float[Tensor, "B M C C"]:
        """The covariance of f at each point over outputs, squared units of y."""
        found = self.point_covariance
        return found if isinstance(found, Tensor) else found()

    @property
    def variance(self) -> Float[Tensor, "B M C"]:
        """The predictive variance, squared units of y."""
        variance = self.blocks.diagonal(dim1=-2, dim2=-1) + self.noise * self.noise_covariance.diagonal()
        return variance if self.known_noise is None else variance + self.known_noise

    @property
    def marginals(self) -> Distribution:
        """Gaussian distributions of batch shape (B, M) and event shape (C,).

        Raises:
            InferenceError: with two outputs or more, the covariance at a point is not positive definite.
        """
        num_outputs = self.noise_covariance.shape[-1]
        floor = torch.zeros_like(self.location)
        if self.noise == 0.0:
            precision = torch.finfo(self.location.dtype)
            # a share of each output's own variance: outputs may have very different units
            floor = 32.0 * num_outputs * precision.eps * self.variance.detach() + precision.tiny
        if num_outputs == 1:
            return Independent(Normal(self.location, (self.variance + floor).sqrt(), validate_args=False), 1)
        diagonal = floor if self.known_noise is None else floor + self.known_noise
        covariance = self.blocks + self.noise * self.noise_covariance + torch.diag_embed(diagonal)
        factor = cholesky(covariance, "predictive covariance of a point")
        return MultivariateNormal(self.location, scale_tril=factor, validate_args=False)

    def covariance(self) -> Float[Tensor, "B MC MC"]:
        """The covariance over all points and outputs, noise included, squared units of y."""
        self._require_room()
        eye = torch.eye(self.location.shape[1], dtype=self.noise_covariance.dtype, device=self.noise_covariance.device)
        covariance = self.latent_covariance() + self.noise * torch.kron(eye, self.noise_covariance)
        return covariance if self.known_noise is None else covariance + torch.diag_embed(self.known_noise.flatten(1))

    def log_prob(self, y: Float[Tensor, "B M C"], mask: Bool[Tensor, "B M"] | None = None) -> Float[Tensor, "B"]:
        """The joint log density of the real points, in nats.

        Raises:
            ShapeError: y or the mask does not have the shape of the prediction.
            InferenceError: the joint covariance is not positive definite, as that of a noiseless f may be.
        """
        require_shape(y, self.shape)
        mask = torch.ones(y.shape[:2], dtype=torch.bool, device=y.device) if mask is None else mask
        require_mask(mask, self.shape)
        self._require_room()
        real = mask[..., None].expand(y.shape).flatten(1)  # B MC
        eye = torch.eye(real.shape[-1], dtype=self.location.dtype, device=self.location.device)
        covariance = torch.where(real[..., :, None] & real[..., None, :], self.covariance(), eye)
        factor = cholesky(covariance, "predictive covariance")
        residual = torch.where(real, (y.to(self.location.dtype) - self.location).flatten(1), 0.0)
        white = solve_lower(factor, residual[..., None])
        count = real.sum(-1).to(self.location.dtype)
        return -0.5 * (white.square().sum((-1, -2)) + logdet(factor) + count * LOG_2PI)

    def _require_room(self) -> None:
        """Raise InferenceError where the points are too many for a covariance between them, before any is made."""
        size = self.location.shape[1] * self.location.shape[2]
        require_matrix(size, size)

    def rsample(
        self, sample_shape: tuple[int, ...] | int = (), generator: torch.Generator | None = None
    ) -> Float[Tensor, "*s B M C"]:
        """Joint draws. Those of a noiseless f have no gradients where its covariance has equal or zero eigenvalues."""
        sample_shape = draw_shape(sample_shape)
        self._require_room()
        if self.noise > 0.0:
            root = cholesky_with_jitter(self.covariance(), "predictive covariance")
        else:  # the rank may be that of phi: an eigenvector root also exists where the covariance is singular
            covariance = self.latent_covariance()
            spread = covariance.detach().diagonal(dim1=-2, dim2=-1).clamp(min=0.0).sqrt()
            scale = torch.where(spread > 0.0, spread, 1.0)[..., None]  # or a large output's rounding drowns a small one
            values, vectors = torch.linalg.eigh(covariance / scale / scale.mT)
            root = scale * vectors * values.clamp(min=0.0).sqrt()[..., None, :]
        shape = (*sample_shape, *root.shape[:2])
        normal = common_normals(shape, self.location, generator)
        draws = torch.einsum("bij,...bj->...bi", root, normal)  # matmul would copy the root for every draw
        return self.location + draws.reshape(*sample_shape, *self.location.shape)

    @override
    def with_noise(self, noise: Float[Tensor, "B M C"]) -> "DenseGaussianPredictive":
        noise = noise.to(self.location.dtype)
        return replace(self._computed(), known_noise=noise if self.known_noise is None else self.known_noise + noise)

    @property
    def noiseless(self) -> "DenseGaussianPredictive":
        """The predictive of f."""
        return replace(self._computed(), noise=0.0, known_noise=None)

    def _computed(self) -> "DenseGaussianPredictive":
        """The same, with what has been computed in the place of what computes it."""
        return replace(self, point_covariance=self.blocks) if "blocks" in vars(self) else self
