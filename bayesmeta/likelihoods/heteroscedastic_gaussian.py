"""Gaussian noise whose variance the network says."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from bayesmeta.errors import DataError
from bayesmeta.likelihoods.hermite import HERMITE_NODES, HERMITE_WEIGHTS, positive_root
from bayesmeta.likelihoods.likelihood import Likelihood
from bayesmeta.noise import bounded
from bayesmeta.outcomes import Numbers


class HeteroscedasticGaussian(Likelihood):
    """y ~ N(f_mean, exp(f_logvar)): the network also predicts the noise at each point.

    The network has K = 2C outputs: C means, then C logarithms of variances.

    Args:
        num_outputs: C.
        bounds: the smallest and the largest variance, squared units of y.

    Raises:
        DataError: bounds that are not positive and increasing.

    Example:
        >>> import bayesmeta as bm
        >>> likelihood = bm.likelihoods.HeteroscedasticGaussian()
        >>> f = torch.tensor([[[1.0, 0.0], [1.0, 2.0]]])  # two points of mean 1 and log variances 0 and 2
        >>> likelihood(f).variance[0, :, 0]
        tensor([1.0000, 7.3891])
        >>> bm.MAML(bm.MLP(1, [8]), likelihood=likelihood).adapt(bm.Data.from_arrays([0.0], [0.5]))
        posterior of 1 task after 1 point
    """

    def __init__(self, num_outputs: int = 1, bounds: tuple[float, float] = (1e-8, 1e8)) -> None:
        super().__init__()
        if not (0.0 < bounds[0] < bounds[1] < math.inf):
            raise DataError(f"expected bounds with 0 < lower < upper, got {tuple(bounds)}")
        self.outcomes, self.network_outputs = Numbers(num_outputs), 2 * num_outputs
        self.lower, self.upper = bounds

    def forward(self, f: Float[Tensor, "*b K"]) -> Distribution:
        """N(mean, variance), both from f."""
        mean, raw = f.chunk(2, -1)
        return Independent(Normal(mean, bounded(raw, self.lower, self.upper).sqrt(), validate_args=False), 1)

    def marginal(self, mean: Float[Tensor, "*b K"], variance: Float[Tensor, "*b K"]) -> Distribution:
        """The Gaussian with the exact mean and variance of the mixture: Var y = Var f + E noise (Gauss-Hermite)."""
        center, raw = mean.chunk(2, -1)
        spread, raw_variance = variance.chunk(2, -1)
        nodes, weights = HERMITE_NODES.to(mean), HERMITE_WEIGHTS.to(mean)
        at_nodes = raw[..., None] + positive_root(raw_variance)[..., None] * nodes
        noise = (bounded(at_nodes, self.lower, self.upper) * weights).sum(-1)
        return Independent(Normal(center, (spread + noise).sqrt(), validate_args=False), 1)

    def curvature_root(self, f: Float[Tensor, "*b K"]) -> Float[Tensor, "*b K K"]:
        """Diagonal: 1 / √v for a mean, |∂ log v / ∂f| / √2 for what its variance v is made of.

        Inside the bounds v = exp(f) and the second is 1 / √2; outside them v is flat, and it falls to 0.
        """
        raw = f.chunk(2, -1)[1]
        # with a = log sigmoid(raw - log lower) and b = log sigmoid(log upper - raw), log v = raw - a + b and
        # ∂ log v / ∂raw = (1 - lower / upper) exp(a + b): nothing cancels, and no gradient overflows
        a = nn.functional.logsigmoid(raw - math.log(self.lower))
        b = nn.functional.logsigmoid(math.log(self.upper) - raw)
        slope = (1.0 - self.lower / self.upper) * (a + b).exp()
        return torch.diag_embed(torch.cat([(0.5 * (a - b - raw)).exp(), math.sqrt(0.5) * slope], -1))
