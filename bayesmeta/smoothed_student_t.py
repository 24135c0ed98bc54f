"""The sum of a Student's t and a Gaussian variable: what a heavy-tailed outcome is where its location is uncertain."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, StudentT, constraints
from torch.distributions.utils import broadcast_all

LOG_2PI = math.log(2.0 * math.pi)
NODES = 64  # of the integral over the precision, half of them at each end where not all of it needs any
CUT = 16.0  # the integral ends where the integrand has fallen by exp(-16)


class SmoothedStudentT(Distribution):
    """y = loc + scale t + e, with t of Student's distribution and e ~ N(0, smoothing), independent of each other.

    t is N(0, 1 / g) with g ~ Gamma(df / 2, df / 2), so that given g everything is Gaussian:

        p(y) = ∫ N(y; loc, smoothing + scale² / g) Gamma(g; df / 2, df / 2) dg.

    In u = log g the integrand has at most two modes, one near 0 and one that follows the outcome into the tail, at
    log((df + 1) / (df + r²)) of an outcome r scales away. Nodes are placed from the one to the other for each outcome,
    spaced by the width of a mode; where that leaves some over, they lie closer, and where it takes more, none are spent
    on the middle. A trapezoid sum of a smooth function that vanishes at both ends converges faster than any power of
    the spacing: the log density is right to 1e-5 for 2 to 1,000 degrees of freedom, any smoothing and any distance (in
    float32, to its rounding, up to 1e12 scales).

    Args:
        df: degrees of freedom, positive.
        loc: the location.
        scale: of the t, positive, units of y.
        smoothing: the variance of the Gaussian part, not negative, squared units of y.

    Example:
        >>> plain, smoothed = (SmoothedStudentT(torch.tensor(3.0), 0.0, 1.0, smoothing) for smoothing in (0.0, 4.0))
        >>> outcomes = torch.tensor([0.0, 300.0])
        >>> [round(v, 4) for v in plain.log_prob(outcomes).tolist()]  # that of Student's t itself
        [-1.0009, -21.6189]
        >>> [round(v, 4) for v in smoothed.log_prob(outcomes).tolist()]  # flat in the middle, and the same tail
        [-1.7965, -21.6184]
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "df": constraints.positive,
        "loc": constraints.real,
        "scale": constraints.positive,
        "smoothing": constraints.nonnegative,
    }
    support = constraints.real
    has_rsample = True

    def __init__(
        self,
        df: Tensor | float,
        loc: Tensor | float,
        scale: Tensor | float,
        smoothing: Tensor | float,
        validate_args: bool | None = None,
    ) -> None:
        self.df, self.loc, self.scale, self.smoothing = broadcast_all(df, loc, scale, smoothing)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """The location; NaN where one degree of freedom or less leaves none."""
        return torch.where(self.df > 1.0, self.loc, math.nan)

    @property
    def variance(self) -> Tensor:
        """smoothing + scale² df / (df - 2); infinite, or NaN, where that of the t is."""
        return self.smoothing + StudentT(self.df, self.loc, self.scale, validate_args=False).variance

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(y), in nats."""
        distance, log_mass, tau = self._integral(value)
        # log N(y; loc, scale² τ), with τ = smoothing / scale² + 1 / g
        log_normal = -0.5 * ((distance[..., None] / tau.sqrt()).square() + tau.log() + LOG_2PI)
        return (log_mass + log_normal).logsumexp(-1) - self.scale.log()

    def cdf(self, value: Tensor) -> Tensor:
        """P(Y <= y); below the location with the same relative precision however small it is."""
        distance, log_mass, tau = self._integral(value)
        log_tail = torch.special.log_ndtr(-distance.abs()[..., None] / tau.sqrt())
        tail = (log_mass.log_softmax(-1) + log_tail).logsumexp(-1).exp()  # weights of sum 1: one half at the location
        return torch.where(distance > 0.0, 1.0 - tail, tail)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws, with gradients in everything."""
        heavy = StudentT(self.df, self.loc, self.scale, validate_args=False).rsample(torch.Size(sample_shape))
        return heavy + (self.smoothing + torch.finfo(heavy.dtype).tiny).sqrt() * torch.randn_like(heavy)

    def gaussians(self) -> tuple[Tensor, Tensor]:
        """Weights and deviations of Gaussians around `loc`, `... S`, that are this distribution but for its far tail.

        Beyond some 1e6 scales (2 degrees of freedom; farther with more) the sum falls off as a Gaussian does.
        """
        _, log_mass, tau = self._integral(self.loc, cut=2.0 * CUT)
        return log_mass.softmax(-1), self.scale[..., None] * tau.sqrt()

    def expand(self, batch_shape: Any, _instance: Any = None) -> "SmoothedStudentT":
        """The same with leading axes."""
        shape = torch.Size(batch_shape)
        df, loc, scale = (value.expand(shape) for value in (self.df, self.loc, self.scale))
        return SmoothedStudentT(df, loc, scale, self.smoothing.expand(shape), validate_args=False)

    def _integral(self, value: Tensor, cut: float = CUT) -> tuple[Tensor, Tensor, Tensor]:
        """(y - loc) / scale; log Gamma(g) dg at the nodes; and the variance τ there, in scale²."""
        distance = (value - self.loc) / self.scale
        u, log_spacing = self._nodes(distance.detach(), cut)
        shape = 0.5 * self.df[..., None]
        # log of shape^shape e^-shape / Γ(shape), in double precision: three large numbers that all but cancel
        wide = shape.double()
        constant = (wide * wide.log() - wide - wide.lgamma()).to(shape.dtype)
        log_mass = constant + shape * (u - u.expm1()) + log_spacing[..., None]
        return distance, log_mass, (self.smoothing / self.scale.square())[..., None] + (-u).exp()

    @torch.no_grad()
    def _nodes(self, distance: Tensor, cut: float) -> tuple[Tensor, Tensor]:
        """u = log g, `... S`, and the log of their spacing; the integral does not depend on them, nor do gradients."""
        shape = 0.5 * self.df
        # where the log density of log Gamma(shape), -shape (e^d - 1 - d) around its mode, has fallen by `cut`:
        # below it e^-d - 1 + d >= d² / (2 + 2 d / 3), above it e^d - 1 - d >= d² / 2 and grows exponentially
        fall = cut / shape
        below = fall / 3.0 + (fall.square() / 9.0 + 2.0 * fall).sqrt()
        above = torch.minimum((2.0 * fall).sqrt(), fall.log1p() + 1.0)
        mode = (self.df + 1.0).log() - 2.0 * torch.hypot(self.df.sqrt(), distance).log()
        mode = mode.clamp(min=30.0 - math.log(torch.finfo(mode.dtype).max))  # 1 / g does not overflow
        first, last = mode.clamp(max=0.0) - below, mode.clamp(min=0.0) + above
        widest = (1.2 / (shape + 0.5).sqrt()).clamp(max=0.55)  # 1.2 deviations of log Gamma; 0.55 where it is skewed
        spacing = torch.minimum((last - first) / (NODES - 1), widest)
        steps = torch.arange(NODES // 2, dtype=spacing.dtype, device=spacing.device) * spacing[..., None]
        return torch.cat([first[..., None] + steps, last[..., None] - steps], -1), spacing.log()
