"""Outcomes below a limit of quantification."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal
from typing_extensions import override

from bayesmeta.data import Data
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.left_censored import LeftCensored, log_below
from bayesmeta.likelihoods.gaussian import Gaussian
from bayesmeta.likelihoods.likelihood import Likelihood
from bayesmeta.likelihoods.proportional_gaussian import ProportionalGaussian
from bayesmeta.noise import DiagonalNoise


class Censored(Likelihood):
    """Outcomes below a limit of quantification, known only as "not above it" (Tobin 1958; Beal 2001, method M3).

    Above the limit the density is that of the likelihood inside; at the limit it is the probability of an outcome that
    is not above it, log Φ((limit - f) / s) in nats, with s the deviation of the noise at f. A censored outcome is
    written into the data as the limit itself. Dropping such points, or taking half of the limit for their outcome,
    bends what is learned of the others.

    Args:
        likelihood: of what would be seen without the limit: `Gaussian` with `DiagonalNoise`, or
            `ProportionalGaussian`.
        limit: the limit of quantification, in the units of y that the likelihood sees: `Standardized` changes them.

    Raises:
        UnsupportedError: another likelihood.
        DataError: a limit that is not finite; an outcome below the limit (when data are seen).

    Example:
        >>> import bayesmeta as bm
        >>> inner = bm.likelihoods.Gaussian(bm.noise.DiagonalNoise(initial=0.04))
        >>> likelihood = bm.likelihoods.Censored(inner, limit=1.0)
        >>> data = bm.Data.from_arrays([0.0, 1.0], [1.0, 1.6])  # the first was not above 1
        >>> for f in (0.2, 1.0, 1.4):
        ...     print(round(likelihood.log_prob(torch.tensor([[[f], [1.5]]]), data).item(), 3))
        0.565
        -0.128
        -3.218
        >>> learner = bm.IMAML(bm.MLP(1, [8]), likelihood=likelihood)
        >>> bool((learner.adapt(data).predict([0.0, 9.0]).quantile(0.01) >= 1.0).all())  # nothing is seen below it
        True
    """

    def __init__(self, likelihood: Likelihood, limit: float) -> None:
        super().__init__()
        diagonal = isinstance(likelihood, Gaussian) and isinstance(likelihood.noise, DiagonalNoise)
        if not diagonal and not isinstance(likelihood, ProportionalGaussian):
            raise UnsupportedError(
                "expected a likelihood whose outputs are independent Gaussians (Gaussian with DiagonalNoise, or "
                f"ProportionalGaussian), got {type(likelihood).__name__}"
            )
        if not math.isfinite(limit):
            raise DataError(f"expected a finite limit, got {limit}")
        self.outcomes, self.network_outputs = likelihood.outcomes, likelihood.network_outputs
        self.likelihood, self.limit = likelihood, float(limit)
        self.known_noise = likelihood.known_noise

    def forward(self, f: Float[Tensor, "*b K"]) -> Distribution:
        """max(y, limit), with y as the likelihood inside has it."""
        return self._censored(self.likelihood(f))

    def marginal(self, mean: Float[Tensor, "*b K"], variance: Float[Tensor, "*b K"]) -> Distribution:
        """The marginal of the likelihood inside, censored."""
        return self._censored(self.likelihood.marginal(mean, variance))

    def curvature_root(self, f: Float[Tensor, "*b K"]) -> Float[Tensor, "*b K K"]:
        """Diagonal: R Rᵀ = (Φ(-z) + zφ + 2c (z² + 1) φ + c² (2 Φ(-z) + (z³ + z) φ) + (1 + cz)² φ² / Φ(z)) / s².

        z = (limit - f) / s, c = ds/df, and φ and Φ are taken at z: it is the Fisher information of what is seen. It
        vanishes far below the limit, where an outcome says next to nothing of f.
        """
        return self._root_of(f, self._normal(self.likelihood(f)))

    @override
    def noisy(self, f: Float[Tensor, "*b K"], noise: Float[Tensor, "*b C"]) -> Distribution:
        return self._censored(self.likelihood.noisy(f, noise))

    @override
    def noisy_curvature_root(self, f: Float[Tensor, "*b K"], noise: Float[Tensor, "*b C"]) -> Float[Tensor, "*b K K"]:
        return self._root_of(f, self._normal(self.likelihood.noisy(f, noise)))

    def _root_of(self, f: Tensor, normal: Normal) -> Tensor:
        inner, slope = self.likelihood, torch.zeros_like(f)
        if isinstance(inner, ProportionalGaussian):
            slope = inner.slope(f, normal.scale)
        z = (self.limit - f) / normal.scale
        far = z.clamp(-15.0, 15.0)  # beyond it every term is 0 or 1 to rounding, and no power overflows
        density = (-0.5 * far.square()).exp() / math.sqrt(2.0 * math.pi)
        above = torch.special.ndtr(-far)
        seen = above + far * density + 2.0 * slope * (far.square() + 1.0) * density
        seen = seen + slope.square() * (2.0 * above + (far.square() + 1.0) * far * density)
        unseen = (1.0 + slope * far).square() * (-far.square() - math.log(2.0 * math.pi) - log_below(far)).exp()
        # the square root has no gradient at zero
        information = (seen + unseen).clamp(min=torch.finfo(f.dtype).tiny)
        return torch.diag_embed(information.sqrt() / normal.scale).to(f.dtype)

    def unit(self) -> Float[Tensor, ""]:
        """That of the likelihood inside."""
        return self.likelihood.unit()

    def outcome(self, data: Data, f: Float[Tensor, "*b K"]) -> Float[Tensor, "B N C"]:
        """y, with the limit in place of padding. Raises DataError for an outcome below the limit."""
        y = torch.where(data.mask[..., None], super().outcome(data, f), self.limit)
        if not torch.compiler.is_compiling() and bool((y < self._bound(y)).any()):
            raise DataError(
                f"expected outcomes of at least {self.limit:g}, the limit below which they are censored, got "
                f"{y.min().item():g}: write the limit itself where an outcome is not above it"
            )
        return y

    def _normal(self, distribution: Distribution) -> Normal:
        assert isinstance(distribution, Independent)
        assert isinstance(distribution.base_dist, Normal)
        return distribution.base_dist

    def _bound(self, like: Tensor) -> Tensor:
        return torch.full((), self.limit, dtype=like.dtype, device=like.device)  # rounded as outcomes are

    def _censored(self, distribution: Distribution) -> Distribution:
        normal = self._normal(distribution)
        return Independent(LeftCensored(normal, self._bound(normal.loc), validate_args=False), 1)
