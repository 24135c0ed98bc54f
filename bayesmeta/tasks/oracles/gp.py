"""The exact Gaussian process posterior with the true kernel: for tasks that are draws from a Gaussian process."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from bayesmeta.data import Data
from bayesmeta.errors import DataError
from bayesmeta.linalg import cholesky, logdet, solve_lower
from bayesmeta.outcomes import Numbers
from bayesmeta.predictives import LOG_2PI, GaussianPredictive
from bayesmeta.tasks.oracles.oracle import Oracle, OraclePosterior

Mean = Callable[[Tensor], Tensor]
"""x `B N D` -> m(x) `B N`, units of y."""

Kernel = Callable[[Tensor, Tensor], Tensor]
"""(x `B N D`, x' `B M D`) -> k(x, x') `B N M`, squared units of y."""


class GaussianProcessOracle(Oracle):
    """f ~ GP(m, k), y = f(x) + N(0, σ²): Rasmussen & Williams 2006, eqs. 2.25-2.26 and 2.30.

    Args:
        mean_function: m.
        kernel: k.
        noise_variance: σ², squared units of y, positive.

    Raises:
        DataError: noise that is not positive.
    """

    outcomes = Numbers(1)

    def __init__(self, mean_function: Mean, kernel: Kernel, noise_variance: float) -> None:
        super().__init__()
        if not noise_variance > 0.0:
            raise DataError(f"expected a positive noise variance, got {noise_variance}")
        self.mean_function, self.kernel, self.noise_variance = mean_function, kernel, noise_variance

    def condition(self, data: Data) -> "GaussianProcessPosterior":
        """L with K + σ²I = L Lᵀ over the real points, and L⁻¹(y - m)."""
        both = data.mask[..., :, None] & data.mask[..., None, :]
        eye = torch.eye(data.num_points, dtype=data.x.dtype, device=data.x.device)
        # padded points become rows of the identity, with residual 0: they change no solve and no determinant
        covariance = torch.where(both, self.kernel(data.x, data.x) + self.noise_variance * eye, eye)
        factor = cholesky(covariance, "support covariance")
        residual = torch.where(data.mask, data.y[..., 0] - self.mean_function(data.x), 0.0)
        white = solve_lower(factor, residual[..., None])
        return GaussianProcessPosterior(spec=data.spec, learner=self, support=data, factor=factor, white=white)

    def evidence(self, data: Data) -> Float[Tensor, "B"]:
        """-½ (rᵀ(K + σ²I)⁻¹r + log|K + σ²I| + N log 2π)."""
        posterior = self.condition(data)
        count = data.counts.double()  # an integer tensor times a float would be float32
        return -0.5 * (posterior.white.square().sum((-1, -2)) + logdet(posterior.factor) + count * LOG_2PI)


@dataclass(frozen=True, eq=False, kw_only=True)
class GaussianProcessPosterior(OraclePosterior):
    """p(f | D).

    Attributes:
        factor: L, `B N N`.
        white: L⁻¹(y - m), `B N 1`.
    """

    learner: GaussianProcessOracle
    factor: Float[Tensor, "B N N"]
    white: Float[Tensor, "B N 1"]

    @override
    def at(self, x: Float[Tensor, "B M D"]) -> GaussianPredictive:
        x, noise = x.double(), self.learner.noise_variance
        cross = torch.where(self.support.mask[..., None], self.learner.kernel(self.support.x, x), 0.0)
        cross = solve_lower(self.factor, cross)  # L⁻¹ k(X, x)
        mean = self.learner.mean_function(x)[..., None] + cross.mT @ self.white
        flat = x.flatten(0, 1)[:, None]
        prior = self.learner.kernel(flat, flat).reshape(x.shape[:2])
        variance = ((prior - cross.square().sum(-2)) / noise).clamp(min=0.0)
        covariance = partial(_covariance, self.learner, x, cross)
        return GaussianPredictive(mean, variance, covariance, mean.new_full((1, 1), noise))


def _covariance(oracle: GaussianProcessOracle, x: Tensor, cross: Tensor) -> Float[Tensor, "B M M"]:
    return (oracle.kernel(x, x) - cross.mT @ cross) / oracle.noise_variance
