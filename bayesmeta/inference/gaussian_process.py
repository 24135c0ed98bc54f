"""Exact inference in the Gaussian processes of many tasks, from their kernel matrices: R = F + E.

    F ~ MN(0, K, Σ),   E ~ MN(0, I, Σ),   S = K + I = L Lᵀ

R is the residual from the prior mean, Σ the noise covariance over outputs. K and every covariance below are over points
and in units of Σ, which factors out (for one output: kernel matrices divided by the noise variance). With K* between
support and queries and K** of the queries:

    F* | R ~ MN(K*ᵀ S⁻¹ R, K** - K*ᵀ S⁻¹ K*, Σ)
    log p(R) = -½ (C log|S| + N log|Σ| + tr(Σ⁻¹ Rᵀ S⁻¹ R) + N C log 2π)

Padding becomes rows of the identity in S and zeros in R and K*: it changes no solve and no determinant. Everything is
in the precision of its inputs, which should be float64. Rasmussen & Williams 2006, sec. 2.2 and algorithm 2.1.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesmeta.errors import InferenceError
from bayesmeta.linalg import cholesky, logdet, solve_lower
from bayesmeta.predictives import LOG_2PI


@dataclass(frozen=True, eq=False)
class GaussianProcess:
    """The belief about the functions of all tasks, given their support: a value.

    Attributes:
        factor: L, with rows of the identity where padded.
        white: L⁻¹ R, zero where padded.
        mask: True = real.
    """

    factor: Float[Tensor, "B N N"]
    white: Float[Tensor, "B N C"]
    mask: Bool[Tensor, "B N"]

    def predict(
        self, cross: Float[Tensor, "B N M"], prior: Float[Tensor, "B M"]
    ) -> tuple[Float[Tensor, "B M C"], Float[Tensor, "B M"]]:
        """K*ᵀ S⁻¹ R, and the variance k(x, x) - |L⁻¹ k*|² of each query in units of Σ.

        Args:
            cross: K*, between support and queries.
            prior: k(x, x) at each query.
        """
        white = self._whiten(cross)
        # not negative for a kernel that is positive semi-definite; the clamp only removes rounding below zero
        return white.mT @ self.white, (prior - white.square().sum(-2)).clamp(min=0.0)

    def covariance(self, cross: Float[Tensor, "B N M"], kernel: Float[Tensor, "B M M"]) -> Float[Tensor, "B M M"]:
        """K** - K*ᵀ S⁻¹ K*: the joint covariance of the queries in units of Σ."""
        white = self._whiten(cross)
        return kernel - white.mT @ white

    def append(
        self,
        cross: Float[Tensor, "B N M"],
        kernel: Float[Tensor, "B M M"],
        residual: Float[Tensor, "B M C"],
        mask: Bool[Tensor, "B M"],
    ) -> "GaussianProcess":
        """The belief after M more points, in O(N² M) rather than O(N³): new rows of the Cholesky factor.

            [S   K*     ]   [L      0 ] [Lᵀ  V ]
            [K*ᵀ K** + I] = [Vᵀ     L*] [0   L*ᵀ],   V = L⁻¹ K*,   L* L*ᵀ = K** + I - VᵀV

        Args:
            cross: kernel matrix between the points before and the new ones.
            kernel: of the new points.
            residual: of the new points.
            mask: True = real, of the new points.

        Raises:
            InferenceError: the matrix of all points is not positive definite.
        """
        white = torch.where(mask[:, None], self._whiten(cross), 0.0)  # V
        corner = _factor(kernel, mask, white.mT @ white)
        above = torch.cat([self.factor, torch.zeros_like(cross)], -1)
        factor = torch.cat([above, torch.cat([white.mT, corner], -1)], -2)
        innovation = torch.where(mask[..., None], residual, 0.0) - white.mT @ self.white
        both = torch.cat([self.white, solve_lower(corner, innovation)], 1)
        return GaussianProcess(factor, both, torch.cat([self.mask, mask], 1))

    def _whiten(self, cross: Tensor) -> Tensor:
        return solve_lower(self.factor, torch.where(self.mask[..., None], cross, 0.0))


def condition(
    kernel: Float[Tensor, "B N N"], residual: Float[Tensor, "B N C"], mask: Bool[Tensor, "B N"]
) -> GaussianProcess:
    """The exact belief after the real points.

    Args:
        kernel: K of the support in units of Σ; what it holds at padding never matters.
        residual: R, units of y.
        mask: True = real.

    Raises:
        InferenceError: S is not positive definite.
    """
    factor = _factor(kernel, mask)
    white = solve_lower(factor, torch.where(mask[..., None], residual, 0.0))
    return GaussianProcess(factor, white, mask)


def prefix_log_probs(
    kernel: Float[Tensor, "B N N"],
    residual: Float[Tensor, "B N C"],
    mask: Bool[Tensor, "B N"],
    output_covariance: Float[Tensor, "C C"],
) -> Float[Tensor, "B N"]:
    """log p(r_n | r_1..r_n-1) for every n, in nats, from one Cholesky factor; 0 at padding. Their sum is the evidence.

    The innovations are L⁻¹ R, and the predictive variance of point n given those before it is L_nn² Σ.

    Args:
        kernel: K in units of Σ.
        residual: R, units of y.
        mask: True = real.
        output_covariance: Σ, squared units of y.

    Raises:
        InferenceError: S or Σ is not positive definite.
    """
    belief = condition(kernel, residual, mask)
    outputs = cholesky(output_covariance, "noise covariance")
    white = solve_lower(outputs, belief.white.mT).mT
    num_outputs = output_covariance.shape[-1]
    spread = 2.0 * num_outputs * belief.factor.diagonal(dim1=-2, dim2=-1).log()
    each = -0.5 * (white.square().sum(-1) + spread + logdet(outputs) + num_outputs * LOG_2PI)
    return torch.where(mask, each, 0.0)


def log_evidence(
    kernel: Float[Tensor, "B N N"],
    residual: Float[Tensor, "B N C"],
    mask: Bool[Tensor, "B N"],
    output_covariance: Float[Tensor, "C C"],
) -> Float[Tensor, "B"]:
    """log p(R) of the real points of each task, F integrated out, in nats; arguments as for `prefix_log_probs`."""
    return prefix_log_probs(kernel, residual, mask, output_covariance).sum(-1)


def _factor(kernel: Tensor, mask: Tensor, explained: Tensor | float = 0.0) -> Tensor:
    """The Cholesky factor of K + I, less what other points explain."""
    both = mask[..., :, None] & mask[..., None, :]
    eye = torch.eye(mask.shape[-1], dtype=kernel.dtype, device=kernel.device)
    matrix = torch.where(both, kernel - explained, 0.0) + eye
    try:
        return cholesky(matrix, "kernel matrix plus noise")
    except InferenceError as error:
        finite = torch.isfinite(matrix).flatten(1).all(1)
        if bool(finite.all()):
            cause = (
                "Its numbers are finite, so the kernel is not positive semi-definite on these points (cosine of a "
                "distance in more than one dimension, say): use one that is; or its variance is above 1e15 times the "
                "noise variance: raise the lower bound of the noise"
            )
        else:
            cause = (
                f"The kernel of task {int(finite.int().argmin())} has values that are not finite: features or kernel "
                "parameters have diverged (lower lr), or inputs are far from unit scale (use Standardized)"
            )
        raise InferenceError(f"expected a positive definite kernel matrix plus noise, got {error}. {cause}") from error
