"""Jointly Gaussian points whose covariance is of low rank and a diagonal: what a network says of many at once."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import Distribution, Independent, LowRankMultivariateNormal, MultivariateNormal, Normal
from typing_extensions import override

from bayesmeta.arguments import draw_shape
from bayesmeta.distributions import common_normals
from bayesmeta.linalg import cholesky
from bayesmeta.predictives.joint_gaussian import JointGaussianPredictive
from bayesmeta.predictives.predictive import LOG_2PI, require_mask, require_shape


@dataclass(frozen=True, eq=False)
class LowRankGaussianPredictive(JointGaussianPredictive):
    """Cov(y_mc, y_m'c') = u_mcᵀ u_m'c' + δ_mm' δ_cc' d_mc: each point has a factor u and a variance d of its own.

    Those of some points are a part of those of all, so that leaving points out is the same as integrating them out, and
    the joint density of M points costs M R² in place of M³ (Markou, Requeima, Bruinsma, Turner 2022).

    Attributes:
        location: the mean, `B M C`, units of y.
        factor: u, `B M C R`, units of y.
        variances: d, `B M C`, positive, squared units of y.

    Example:
        >>> import bayesmeta as bm
        >>> location, factor = torch.zeros(1, 3, 1), torch.tensor([[[[1.0]], [[1.0]], [[-1.0]]]])
        >>> predictive = bm.predictives.LowRankGaussianPredictive(location, factor, torch.full((1, 3, 1), 0.25))
        >>> predictive.variance.flatten().tolist()
        [1.25, 1.25, 1.25]
        >>> alike = predictive.log_prob(torch.tensor([[[1.0], [1.0], [-1.0]]]))
        >>> bool(alike > predictive.marginal_log_prob(torch.tensor([[[1.0], [1.0], [-1.0]]])).sum())
        True
    """

    factor: Float[Tensor, "B M C R"]
    variances: Float[Tensor, "B M C"]

    @property
    @override
    def variance(self) -> Float[Tensor, "B M C"]:
        return self.factor.square().sum(-1) + self.variances

    @property
    @override
    def marginals(self) -> Distribution:
        if self.location.shape[-1] == 1:
            return Independent(Normal(self.location, self.variance.sqrt(), validate_args=False), 1)
        covariance = self.factor @ self.factor.mT + torch.diag_embed(self.variances)
        root = cholesky(covariance, "predictive covariance of a point")
        return MultivariateNormal(self.location, scale_tril=root, validate_args=False)

    @override
    def with_noise(self, noise: Float[Tensor, "B M C"]) -> "LowRankGaussianPredictive":
        return replace(self, variances=self.variances + noise.to(self.variances))

    @override
    def log_prob(self, y: Float[Tensor, "B M C"], mask: Bool[Tensor, "B M"] | None = None) -> Float[Tensor, "B"]:
        require_shape(y, self.shape)
        mask = torch.ones(y.shape[:2], dtype=torch.bool, device=y.device) if mask is None else mask
        require_mask(mask, self.shape)
        if y.shape[1] == 0:  # torch's distribution fails on zero points
            return self.location.new_zeros(len(y))
        real = mask[..., None].expand(y.shape)  # padding becomes a standard normal at its mean, and is taken out again
        residual = torch.where(real, y.to(self.location.dtype) - self.location, 0.0).flatten(1)
        factor = torch.where(real[..., None], self.factor, 0.0).flatten(1, 2)
        variances = torch.where(real, self.variances, 1.0).flatten(1)
        joint = LowRankMultivariateNormal(torch.zeros_like(residual), factor, variances, validate_args=False)
        padded = (~real).sum((1, 2)).to(residual.dtype)
        return joint.log_prob(residual) + 0.5 * LOG_2PI * padded

    @override
    def rsample(
        self, sample_shape: tuple[int, ...] | int = (), generator: torch.Generator | None = None
    ) -> Float[Tensor, "*s B M C"]:
        shape = draw_shape(sample_shape)
        tasks, points, outputs, rank = self.factor.shape
        normals = common_normals((*shape, tasks, rank + points * outputs), self.location, generator)
        shared, own = normals[..., :rank], normals[..., rank:].unflatten(-1, (points, outputs))
        return self.location + torch.einsum("bmcr,...br->...bmc", self.factor, shared) + self.variances.sqrt() * own
