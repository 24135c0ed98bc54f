"""Distributions of counts with what torch's lack: distribution functions and quantiles, which are whole numbers."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, NegativeBinomial, Poisson

MOST = 2.0**52  # up to here float64 knows every whole number


class PoissonCounts(Poisson):
    """torch's Poisson distribution with a distribution function.

    Example:
        >>> counts = PoissonCounts(torch.tensor([3.0]))
        >>> counts.cdf(torch.tensor([2.0]))  # (1 + 3 + 9/2) / e³
        tensor([0.4232])
    """

    def cdf(self, value: Tensor) -> Tensor:
        """P(Y <= y)."""
        whole = value.floor().clamp(min=0.0)
        found = torch.special.gammaincc(whole + 1.0, self.rate.to(value.dtype))
        return torch.where(value < 0.0, 0.0, found)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "PoissonCounts":
        """The same with leading axes."""
        return PoissonCounts(self.rate.expand(torch.Size(batch_shape)), validate_args=False)


class NegativeBinomialCounts(NegativeBinomial):
    """torch's negative binomial distribution with a distribution function, and densities in float64 inside.

    The variance is mean + mean² / total_count: a Poisson distribution whose rate varies.

    Example:
        >>> counts = NegativeBinomialCounts(torch.tensor([2.0]), logits=torch.tensor([0.5]))
        >>> counts.cdf(torch.tensor([[0.0], [1e6]]))
        tensor([[0.1425],
                [1.0000]])
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(y), in nats; log Γ(r + y) - log Γ(r) loses digits in float32 where r is large."""
        count, logits, wide = self.total_count.double(), self.logits.double(), value.double()
        log = torch.nn.functional.logsigmoid
        choose = (count + wide).lgamma() - count.lgamma() - (wide + 1.0).lgamma()
        return (choose + count * log(-logits) + wide * log(logits)).to(self.logits.dtype)

    def cdf(self, value: Tensor) -> Tensor:
        """P(Y <= y) = I_p(r, y + 1), the regularised incomplete beta function; without gradients."""
        from scipy.special import betainc  # torch has none

        whole = value.detach().double().floor().clamp(min=0.0)
        count, none = self.total_count.detach().double(), torch.sigmoid(-self.logits.detach().double())
        found = betainc(*(each.cpu().numpy() for each in torch.broadcast_tensors(count, whole + 1.0, none)))
        return torch.where(value < 0.0, 0.0, torch.as_tensor(found, dtype=value.dtype, device=value.device))

    def expand(self, batch_shape: Any, _instance: Any = None) -> "NegativeBinomialCounts":
        """The same with leading axes."""
        shape = torch.Size(batch_shape)
        return NegativeBinomialCounts(
            self.total_count.expand(shape), logits=self.logits.expand(shape), validate_args=False
        )


def is_of_counts(distribution: Distribution) -> bool:
    """Whether the values of a distribution are counts (labels are not).

    Example:
        >>> from torch.distributions import Independent, Normal
        >>> is_of_counts(Independent(PoissonCounts(torch.ones(1)), 1)), is_of_counts(Normal(0.0, 1.0))
        (True, False)
    """
    for inside in ("base_dist", "component_distribution"):
        inner = getattr(distribution, inside, None)
        if isinstance(inner, Distribution):
            return is_of_counts(inner)
    return isinstance(distribution, Poisson | NegativeBinomial)


def smallest_count(cdf: Callable[[Tensor], Tensor], mean: Tensor, variance: Tensor, q: float) -> Tensor:
    """The q-quantile of counts, elementwise: the smallest whole number k with P(Y <= k) >= q.

    Args:
        cdf: P(Y <= y), elementwise.
        mean: of Y.
        variance: of Y.
        q: strictly between 0 and 1.

    Example:
        >>> counts = PoissonCounts(torch.tensor([0.1, 3.0]))
        >>> [smallest_count(counts.cdf, counts.mean, counts.variance, q).tolist() for q in (0.05, 0.95)]
        [[0.0, 1.0], [1.0, 6.0]]
    """
    # by Cantelli's inequality the quantile is not above this
    reach = (q / (1.0 - q)) ** 0.5 + 1e-6
    mean, variance = mean.detach(), variance.detach()
    bound = (mean.double() + reach * variance.double().sqrt()).nan_to_num(posinf=MOST).clamp(max=MOST).ceil()
    lower, upper = torch.full_like(bound, -1.0), bound
    widest = float(bound.amax()) if bound.numel() else 0.0
    for _ in range(math.ceil(math.log2(widest + 2.0))):
        middle = ((lower + upper) / 2.0).floor()
        below = (cdf(middle.to(mean.dtype)).detach() < q).to(lower.device)
        lower, upper = torch.where(below, middle, lower), torch.where(below, upper, middle)
    return upper.to(mean.dtype)
