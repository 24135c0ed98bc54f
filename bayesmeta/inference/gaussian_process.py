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

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmeta.errors import InferenceError
from bayesmeta.linalg import cholesky, cholesky_with_jitter, logdet, solve_lower
from bayesmeta.predictives import LOG_2PI


@dataclass(frozen=True, eq=False)
class GaussianProcess:
    """The posterior of the functions of all tasks, given their support: a value, which `condition` gives.

    Attributes:
        factor: L, with rows of the identity where padded.
        white: L⁻¹ R, zero where padded.
        mask: True = real.

    Example:
        >>> x = torch.tensor([[[0.0], [1.0]]], dtype=torch.float64)
        >>> rbf = lambda a, b: 100.0 * (-0.5 * torch.cdist(a, b).square()).exp()  # variance 100 times the noise's
        >>> belief = condition(rbf(x, x), torch.tensor([[[3.0], [0.0]]]).double(), torch.ones(1, 2, dtype=torch.bool))
        >>> mean, variance = belief.predict(rbf(x, x), torch.full((1, 2), 100.0).double())
        >>> mean.flatten().round(decimals=1).tolist(), bool((variance < 1.0).all())  # in units of the noise variance
        ([3.0, 0.0], True)
    """

    factor: Float[Tensor, "B N N"]
    white: Float[Tensor, "B N C"]
    mask: Bool[Tensor, "B N"]

    def select(self, tasks: Int[Tensor, "K"]) -> "GaussianProcess":
        """Of the tasks at these positions."""
        return GaussianProcess(self.factor[tasks], self.white[tasks], self.mask[tasks])

    def quadratic_form(
        self, output_covariance: Float[Tensor, "C C"]
    ) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"], Float[Tensor, "B"]]:
        """n, q = rᵀ K⁻¹ r and log|K| of the n = N C real numbers r of each support, K = S ⊗ Σ.

        Args:
            output_covariance: Σ, squared units of y.

        Raises:
            InferenceError: Σ is not positive definite.
        """
        outputs = cholesky(output_covariance, "noise covariance")
        squares = solve_lower(outputs, self.white.mT).square().sum((-1, -2))
        count, num_outputs = self.mask.sum(-1).to(self.white.dtype), output_covariance.shape[-1]
        return count * num_outputs, squares, num_outputs * logdet(self.factor) + count * logdet(outputs)

    def predict(
        self, cross: Float[Tensor, "B N M"], prior: Float[Tensor, "B M"]
    ) -> tuple[Float[Tensor, "B M C"], Float[Tensor, "B M"]]:
        """Mean and variance of F at each query: `K*ᵀ S⁻¹ R` in units of y, `k(x, x) - |L⁻¹ k*|²` in units of Σ.

        Args:
            cross: K*, between support and queries.
            prior: k(x, x) at each query.
        """
        white = self.whiten(cross)
        # not negative for a kernel that is positive semi-definite; the clamp only removes rounding below zero
        return white.mT @ self.white, (prior - white.square().sum(-2)).clamp(min=0.0)

    def covariance(self, cross: Float[Tensor, "B N M"], kernel: Float[Tensor, "B M M"]) -> Float[Tensor, "B M M"]:
        """`K** - K*ᵀ S⁻¹ K*`: the joint covariance of F at the queries, in units of Σ.

        Args:
            cross: K*, between support and queries.
            kernel: K**, of the queries.
        """
        white = self.whiten(cross)
        return kernel - white.mT @ white

    def append(
        self,
        cross: Float[Tensor, "B N M"],
        kernel: Float[Tensor, "B M M"],
        residual: Float[Tensor, "B M C"],
        mask: Bool[Tensor, "B M"],
    ) -> "GaussianProcess":
        """The posterior after M more points, in O(N² M) rather than O(N³): new rows of the Cholesky factor.

            [S   K*     ]   [L      0 ] [Lᵀ  V ]
            [K*ᵀ K** + I] = [Vᵀ     L*] [0   L*ᵀ],   V = L⁻¹ K*,   L* L*ᵀ = K** + I - VᵀV

        Args:
            cross: kernel matrix between the points before and the new ones.
            kernel: of the new points.
            residual: of the new points.
            mask: True = real, of the new points.

        Raises:
            InferenceError: the matrix of all points is not positive definite.

        Warns:
            PrecisionWarning: it is so to rounding, and jitter was added.
        """
        white = torch.where(mask[:, None], self.whiten(cross), 0.0)  # V
        corner = _factor(kernel, mask, cholesky_with_jitter, white.mT @ white)
        above = torch.cat([self.factor, torch.zeros_like(cross)], -1)
        factor = torch.cat([above, torch.cat([white.mT, corner], -1)], -2)
        innovation = torch.where(mask[..., None], residual, 0.0) - white.mT @ self.white
        both = torch.cat([self.white, solve_lower(corner, innovation)], 1)
        return GaussianProcess(factor, both, torch.cat([self.mask, mask], 1))

    def whiten(self, cross: Float[Tensor, "B N M"]) -> Float[Tensor, "B N M"]:
        """L⁻¹ K*.

        Args:
            cross: K*, between support and other points.
        """
        return solve_lower(self.factor, torch.where(self.mask[..., None], cross, 0.0))


def with_noise(kernel: Float[Tensor, "B N N"], noise: Float[Tensor, "B N"] | None) -> Float[Tensor, "B N N"]:
    """K of points that have noise of their own in place of I: so that K + I is what it should be.

    Args:
        kernel: K, in units of Σ.
        noise: the noise variance of each point, in units of Σ; None where it is 1 everywhere.
    """
    return kernel if noise is None else kernel + torch.diag_embed(noise - 1.0)


def condition(
    kernel: Float[Tensor, "B N N"],
    residual: Float[Tensor, "B N C"],
    mask: Bool[Tensor, "B N"],
    factorise: Callable[[Tensor, str], Tensor] = cholesky,
) -> GaussianProcess:
    """The exact posterior of F given the real points (Rasmussen & Williams 2006, algorithm 2.1).

    Args:
        kernel: K of the support in units of Σ; what it holds at padding never matters.
        residual: R, outcomes less the prior mean, in units of y.
        mask: True = real.
        factorise: how S is factorised: `cholesky_with_jitter` where the posterior is for predictions alone.

    Raises:
        InferenceError: S is not positive definite.

    Example:
        >>> kernel, residual = torch.full((1, 1, 1), 3.0).double(), torch.full((1, 1, 1), 4.0).double()
        >>> belief = condition(kernel, residual, torch.ones(1, 1, dtype=torch.bool))
        >>> mean, variance = belief.predict(kernel, kernel[0])  # at the point itself: 3/4 of the residual
        >>> round(mean.item(), 3), round(variance.item(), 3)
        (3.0, 0.75)
    """
    factor = _factor(kernel, mask, factorise)
    white = solve_lower(factor, torch.where(mask[..., None], residual, 0.0))
    return GaussianProcess(factor, white, mask)


def prefix_log_probs(
    kernel: Float[Tensor, "B N N"],
    residual: Float[Tensor, "B N C"],
    mask: Bool[Tensor, "B N"],
    output_covariance: Float[Tensor, "C C"],
) -> Float[Tensor, "B N"]:
    """log p(r_n | r_1..r_n-1) for every n, in nats, from one Cholesky factor; 0 at padding. Their sum is the evidence.

    Each point is predicted by those before it, jointly over its outputs: what online prediction is scored by. The
    innovations are L⁻¹ R, and the predictive variance of point n given those before it is L_nn² Σ.

    Args:
        kernel: K in units of Σ.
        residual: R, units of y.
        mask: True = real.
        output_covariance: Σ, squared units of y.

    Raises:
        InferenceError: S or Σ is not positive definite.

    Example:
        >>> kernel, residual = torch.full((1, 2, 2), 1.0).double(), torch.zeros(1, 2, 1).double()
        >>> each = prefix_log_probs(kernel, residual, torch.ones(1, 2, dtype=torch.bool), torch.eye(1).double())
        >>> each  # variances 2, and 1.5 once the first is known
        tensor([[-1.2655, -1.1217]], dtype=torch.float64)
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
    """log p(R) of the real points of each task, F integrated out, in nats: the log marginal likelihood.

    Arguments and errors are those of `prefix_log_probs`.

    Example:
        >>> kernel, residual = torch.full((1, 2, 2), 1.0).double(), torch.zeros(1, 2, 1).double()
        >>> log_evidence(kernel, residual, torch.ones(1, 2, dtype=torch.bool), torch.eye(1).double())
        tensor([-2.3872], dtype=torch.float64)
    """
    return prefix_log_probs(kernel, residual, mask, output_covariance).sum(-1)


def _factor(
    kernel: Tensor, mask: Tensor, factorise: Callable[[Tensor, str], Tensor], explained: Tensor | float = 0.0
) -> Tensor:
    """The Cholesky factor of K + I, less what other points explain."""
    both = mask[..., :, None] & mask[..., None, :]
    eye = torch.eye(mask.shape[-1], dtype=kernel.dtype, device=kernel.device)
    matrix = torch.where(both, kernel - explained, 0.0) + eye
    try:
        return factorise(matrix, "kernel matrix plus noise")
    except InferenceError as error:
        if bool(torch.isfinite(matrix).all()):
            cause = (
                "Its numbers are finite, so the kernel is not positive semi-definite on these points (cosine of a "
                "distance in more than one dimension, say): use one that is; or its variance is above 1e15 times the "
                "noise variance: raise the lower bound of the noise"
            )
        else:
            cause = (
                f"The kernel of task {error.task} has values that are not finite: features or kernel "
                "parameters have diverged (lower lr), or inputs are far from unit scale (use Standardized)"
            )
        raise InferenceError(f"{error}. {cause}", error.task) from error
