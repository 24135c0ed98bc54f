"""A Gaussian variable that is seen only above a limit: what an assay reports that cannot measure less."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal, constraints

LARGEST = 9.0  # deviations above which log Φ is zero to rounding, and so are its derivatives
SMALLEST = -15.0  # below it the asymptotic series is exact to 13 digits
LOG_2PI = math.log(2.0 * math.pi)


def log_below(z: Tensor) -> Tensor:
    """log Φ(z), precise in both tails, and so are its first two derivatives.

    torch's derivatives lose digits far below zero (all of them at -1e4 in float32, where the hazard is computed as the
    exponential of a difference of squares), and the second is NaN far above it.

    Args:
        z: in deviations.

    Example:
        >>> log_below(torch.tensor([-100.0, 0.0, 100.0]))
        tensor([-5.0055e+03, -6.9315e-01, -1.1286e-19])
    """
    far = z.clamp(max=SMALLEST)
    # Φ(z) = φ(z) / |z| (1 - 1/z² + 1·3/z⁴ - 1·3·5/z⁶ + ...)
    u = far.square().reciprocal()
    series = torch.zeros_like(u)
    for odd in (13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0):
        series = -odd * u * (1.0 + series)
    below = series.log1p() - 0.5 * (far.square() + LOG_2PI) - (-far).log()
    return torch.where(z < SMALLEST, below, torch.special.log_ndtr(z.clamp(SMALLEST, LARGEST)))


class LeftCensored(Distribution):
    """max(y, limit) of y ~ N(loc, scale²): a Gaussian above the limit, and what would lie below it at the limit itself.

        p(limit) = Φ((limit - loc) / scale),   p(y) = N(y; loc, scale²) for y > limit      (Tobin 1958)

    An outcome that was not above the limit is the limit itself.

    Args:
        normal: of what would be seen without the limit.
        limit: the smallest value that can be told from less, units of y.

    Example:
        >>> from torch.distributions import Normal
        >>> seen = LeftCensored(Normal(torch.tensor(0.0), 1.0), torch.tensor(1.0))
        >>> seen.log_prob(torch.tensor([1.0, 2.0]))  # log Φ(1), and log N(2; 0, 1)
        tensor([-0.1728, -2.9189])
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real
    has_rsample = True

    def __init__(self, normal: Normal, limit: Tensor, validate_args: bool | None = None) -> None:
        self.normal, self.limit = normal, limit
        super().__init__(normal.batch_shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """limit + d Φ(z) + s φ(z), with d = loc - limit and z = d / s."""
        distance, above, density = self._parts()
        return self.limit + distance * above + self.normal.scale * density

    @property
    def variance(self) -> Tensor:
        """E (max(y, limit) - limit)², less the square of its mean."""
        distance, above, density = self._parts()
        first = distance * above + self.normal.scale * density
        second = (distance.square() + self.normal.scale.square()) * above + distance * self.normal.scale * density
        return (second - first.square()).clamp(min=0.0)  # rounding alone could leave it below zero

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(y) above the limit, and the log probability of not being above it at the limit, in nats."""
        is_below = value <= self.limit
        # each branch is evaluated where it has finite gradients, also for values of the other
        below = log_below((self.limit - self.normal.loc) / self.normal.scale)
        above = self.normal.log_prob(torch.where(is_below, self.normal.loc.detach(), value))
        return torch.where(is_below, below, above)

    def cdf(self, value: Tensor) -> Tensor:
        """P(Y <= y): zero below the limit."""
        return torch.where(value < self.limit, 0.0, self.normal.cdf(value))

    def icdf(self, value: Tensor) -> Tensor:
        """The quantile: that of the Gaussian, or the limit."""
        found = self.normal.icdf(value)
        return torch.maximum(found, self.limit.to(found))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws; those that would lie below the limit are at it."""
        found = self.normal.rsample(torch.Size(sample_shape))
        return torch.maximum(found, self.limit.to(found))

    def expand(self, batch_shape: Any, _instance: Any = None) -> "LeftCensored":
        """The same with leading axes."""
        return LeftCensored(self.normal.expand(torch.Size(batch_shape)), self.limit, validate_args=False)

    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        distance = self.normal.loc - self.limit
        z = distance / self.normal.scale
        return distance, torch.special.ndtr(z), (-0.5 * z.square()).exp() / math.sqrt(2.0 * math.pi)
