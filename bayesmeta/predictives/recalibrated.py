"""A predictive whose distribution functions are bent by a map of the unit interval."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.distributions import Distribution, Normal
from typing_extensions import override

from bayesmeta import distributions
from bayesmeta.arguments import draw_shape
from bayesmeta.errors import UnsupportedError
from bayesmeta.predictives.marginals import PredictiveMarginals
from bayesmeta.predictives.predictive import Predictive, require_mask, require_shape

LEVELS: tuple[float, ...] = (0.0, 0.01, 0.025, 0.05, *(k / 10 for k in range(1, 10)), 0.95, 0.975, 0.99, 1.0)
"""Where the isotonic map may bend: finer at the ends, where intervals have theirs."""


@dataclass(frozen=True, eq=False)
class RecalibratedPredictive(Predictive):
    """The predictive with marginal distribution functions R(F(y)), R piecewise linear, and the dependence of the base.

    What was y under the base becomes F⁻¹(R⁻¹(F(y))), output by output: points (and outputs) keep their copula, and the
    density of a single output is r(F(y)) f(y) with r = R'.

    Attributes:
        base: the predictive with distribution functions F.
        maps: `B L C`, R at `LEVELS`, increasing from 0 to 1; float64.

    Example:
        >>> import bayesmeta as bm
        >>> from bayesmeta.predictives.recalibrated import LEVELS, RecalibratedPredictive
        >>> base = bm.ALPaCA(bm.Identity(1)).adapt(bm.Data.from_arrays([], [])).predict([1.0])
        >>> maps = torch.tensor(LEVELS, dtype=torch.float64)[None, :, None] ** 2  # R(p) = p² at the levels
        >>> higher = RecalibratedPredictive(base, maps)
        >>> round(higher.cdf(base.quantile(0.5)).item(), 3)
        0.25
    """

    base: Predictive
    maps: Float[Tensor, "B L C"]

    @property
    @override
    def shape(self) -> torch.Size:
        return self.base.shape

    @property
    def _levels(self) -> Tensor:
        return torch.tensor(LEVELS, dtype=self.maps.dtype, device=self.maps.device)

    @property
    def _slopes(self) -> Float[Tensor, "B _ C"]:
        return self.maps.diff(dim=1) / self._levels.diff()[:, None]

    def _map(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """R(u) and log r(u)."""
        levels = self._levels
        u = u.double()
        index = torch.bucketize(u.detach(), levels[1:-1].contiguous())
        slopes = self._slopes.gather(1, index)
        return self.maps.gather(1, index) + slopes * (u - levels[index]), slopes.log()

    def _unmap(self, p: Tensor) -> Tensor:
        """R⁻¹(p), `B M C` or `B 1 C`."""
        index = (p.detach()[:, :, None] > self.maps[:, None, 1:-1]).sum(2)
        start, slopes = self.maps.gather(1, index), self._slopes.gather(1, index)
        return (self._levels[index] + (p - start) / slopes).clamp(0.0, 1.0)

    @property
    def marginals(self) -> Distribution:
        """Distributions that ask this predictive."""
        return _Marginals(self)

    def marginal_log_prob(self, y: Float[Tensor, "B M C"]) -> Float[Tensor, "B M"]:
        """The log density of each point on its own, over all its outputs, in nats."""
        require_shape(y, self.shape)
        if y.shape[-1] == 1:
            density = self.base.marginal_log_prob(y)
            return density + self._map(self.base.cdf(y))[1][..., 0].to(density.dtype)
        z, change = self._transported(y)
        return self.base.marginal_log_prob(z) + change

    @override
    def output_log_prob(self, y: Float[Tensor, "B M C"]) -> Float[Tensor, "B M C"]:
        """log r(F(y)) f(y) of each output on its own, in nats."""
        require_shape(y, self.shape)
        density = self.base.output_log_prob(y)
        return density + self._map(self.base.cdf(y))[1].to(density.dtype)

    def log_prob(self, y: Float[Tensor, "B M C"], mask: Bool[Tensor, "B M"] | None = None) -> Float[Tensor, "B"]:
        """The joint log density of the real points, in nats."""
        require_shape(y, self.shape)
        mask = torch.ones(y.shape[:2], dtype=torch.bool, device=y.device) if mask is None else mask
        require_mask(mask, self.shape)
        y = torch.where(mask[..., None], y, self.base.mean.detach().to(y.dtype))
        z, change = self._transported(y)
        return self.base.log_prob(z, mask) + torch.where(mask, change, 0.0).sum(-1)

    def _transported(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The base's outcome z with F(z) = R(F(y)), and log |dz/dy| of each point, `B M`.

        dz/dy = r(F(y)) f(y) / f(z). F(y) that rounds to 0 or 1 is moved inside for z, where f(z) cancels against the
        base's density: only the copula, not the tail of the density, is taken at a place nearby.
        """
        p, log_slope = self._map(self.base.cdf(y))
        z = _quantiles(self.base, p)
        log_slope = log_slope.to(z.dtype)
        return z, (log_slope + self.base.output_log_prob(y) - self.base.output_log_prob(z)).sum(-1)

    @property
    def mean(self) -> Float[Tensor, "B M C"]:
        """∫ y dR(F(y))."""
        return self._moments()[0]

    @property
    def variance(self) -> Float[Tensor, "B M C"]:
        """∫ (y - mean)² dR(F(y))."""
        return self._moments()[1]

    def _moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance: exact for Gaussians, else by quadrature of the distribution function."""
        base = distributions.univariate(self.base.marginals)
        if isinstance(base, Normal):
            # z standard normal between a and b: ∫ z φ = φ(a) - φ(b), ∫ z² φ = Φ(b) - Φ(a) + a φ(a) - b φ(b)
            levels = self._levels
            ends = torch.special.ndtri(levels)
            density = (-0.5 * ends.square()).exp() / math.sqrt(2.0 * math.pi)
            tilted = torch.where(density > 0.0, ends * density, 0.0)
            first = (self._slopes * -density.diff()[:, None]).sum(1)[:, None]
            second = (self._slopes * (levels.diff() - tilted.diff())[:, None]).sum(1)[:, None]
            mean = base.loc + base.scale * first.to(base.loc.dtype)
            return mean, base.scale.square() * (second - first.square()).to(base.loc.dtype)
        # E(Y - c) = ∫_c^∞ (1 - H) - ∫_-∞^c H, E(Y - c)² = 2 ∫ |y - c| of the same, with y = c ± s sinh u
        points, weights = np.polynomial.legendre.leggauss(128)
        center, scale = self.base.mean, self.base.stddev
        half = 0.5 * math.asinh(100.0)
        first, second = torch.zeros_like(center), torch.zeros_like(center)
        for point, weight in zip(points.tolist(), weights.tolist(), strict=True):
            u = half * (1.0 + point)
            distance, jacobian = scale * math.sinh(u), scale * (weight * half * math.cosh(u))
            above, below = 1.0 - self.cdf(center + distance), self.cdf(center - distance)
            first = first + jacobian * (above - below)
            second = second + 2.0 * jacobian * distance * (above + below)
        return center + first, second - first.square()

    def cdf(self, y: Float[Tensor, "B M C"]) -> Float[Tensor, "B M C"]:
        """R(F(y))."""
        below = self.base.cdf(y)
        return self._map(below)[0].clamp(0.0, 1.0).to(below.dtype)

    def _quantile(self, q: float) -> Tensor:
        batch, _, outputs = self.shape
        return _quantiles(self.base, self._unmap(self.maps.new_full((batch, 1, outputs), q)).expand(self.shape))

    def rsample(
        self, sample_shape: tuple[int, ...] | int = (), generator: torch.Generator | None = None
    ) -> Float[Tensor, "*s B M C"]:
        """Joint draws, with the base's dependence between points."""
        sample_shape = draw_shape(sample_shape)
        draws = self.base.rsample(sample_shape, generator)
        flat = draws.reshape(-1, *self.shape)
        moved = [_quantiles(self.base, self._unmap(self.base.cdf(draw).double())) for draw in flat]
        return torch.stack(moved).reshape(draws.shape) if moved else draws


class _Marginals(PredictiveMarginals):
    """The marginals of a `RecalibratedPredictive`, which have no name of their own."""

    predictive: RecalibratedPredictive

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Each point on its own."""
        with torch.no_grad():
            base = self.predictive.base
            draws = base.marginals.sample(torch.Size(sample_shape))
            flat = draws.reshape(-1, *self.predictive.shape)
            moved = [_quantiles(base, self.predictive._unmap(base.cdf(draw).double())) for draw in flat]
            return torch.stack(moved).reshape(draws.shape) if moved else draws

    def expand(self, batch_shape: Any, _instance: Any = None) -> Distribution:
        raise UnsupportedError("the marginals of a recalibrated predictive do not expand")


def _quantiles(predictive: Predictive, u: Shaped[Tensor, "B M C"]) -> Shaped[Tensor, "B M C"]:
    """F⁻¹(u), each point with its own u, which is kept inside (0, 1) by the precision of the predictive."""
    marginals = distributions.univariate(predictive.marginals)
    dtype = predictive.mean.dtype
    room = 4.0 * torch.finfo(dtype).eps
    u = u.clamp(room, 1.0 - room)
    if isinstance(marginals, Normal):
        return marginals.loc + marginals.scale * torch.special.ndtri(u).to(dtype)
    if isinstance(predictive, RecalibratedPredictive):
        return _quantiles(predictive.base, predictive._unmap(u.double()))
    lower, upper = predictive.quantile(room), predictive.quantile(1.0 - room)
    return distributions.bisect(lambda y: predictive.cdf(y) - u.to(dtype), lower, upper, 0.0)
