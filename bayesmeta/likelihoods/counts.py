"""Counts: whole numbers from 0, around a rate whose logarithm the model gives."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily

from bayesmeta.count_distributions import NegativeBinomialCounts, PoissonCounts
from bayesmeta.data import Data
from bayesmeta.likelihoods.hermite import HERMITE_NODES, HERMITE_WEIGHTS, positive_root
from bayesmeta.likelihoods.likelihood import Likelihood
from bayesmeta.noise import Positive
from bayesmeta.outcomes import Counts

LARGEST = 30.0  # of log rates: e³⁰ counts are more than float32 can tell apart from their neighbours


class _OfCounts(Likelihood):
    """What likelihoods of counts share, whose f is a log rate."""

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.outcomes, self.network_outputs = Counts(num_outputs), num_outputs

    def marginal(self, mean: Float[Tensor, "*b K"], variance: Float[Tensor, "*b K"]) -> Distribution:
        """The mixture over f ~ N(mean, variance), by Gauss-Hermite quadrature."""
        return averaged(self, mean, variance)

    def pooled(self, data: Data) -> Float[Tensor, "K"]:
        """The log of the mean count."""
        return log_mean(data)

    def outcome(self, data: Data, f: Float[Tensor, "*b K"]) -> Float[Tensor, "B N C"]:
        """The counts, with 0 in place of padding."""
        return torch.where(data.mask[..., None], super().outcome(data, f), 0.0)


class Poisson(_OfCounts):
    """y ~ Poisson(exp(f)): counts of events at a rate that the model says, which vary by no more than chance.

    Counts of living things nearly always vary by more: `NegativeBinomial` learns by how much.

    Args:
        num_outputs: C.

    Example:
        >>> import bayesmeta as bm
        >>> likelihood = bm.likelihoods.Poisson()
        >>> f = torch.tensor([[[0.0], [2.0]]])
        >>> likelihood(f).mean
        tensor([[[1.0000],
                 [7.3891]]])
        >>> round(likelihood.marginal(f, torch.ones_like(f)).mean[0, 0].item(), 3)  # √e: rates are log-normal
        1.649
    """

    def __init__(self, num_outputs: int = 1) -> None:
        super().__init__(num_outputs)

    def forward(self, f: Float[Tensor, "*b K"]) -> Distribution:
        """The Poisson distribution of the rate exp(f)."""
        return Independent(PoissonCounts(f.clamp(max=LARGEST).exp(), validate_args=False), 1)

    def curvature_root(self, f: Float[Tensor, "*b K"]) -> Float[Tensor, "*b K K"]:
        """exp(f / 2): the Fisher information of a log rate is the rate."""
        return torch.diag_embed((0.5 * f.clamp(max=LARGEST)).exp())


class NegativeBinomial(_OfCounts):
    """y ~ NegativeBinomial with mean μ = exp(f) and variance μ + α μ²: counts that vary by more than chance.

    It is a Poisson distribution whose rate varies from point to point as a Gamma variable with mean μ and squared
    coefficient of variation α, the dispersion, which is learned. α near 0 is `Poisson`. (Some programs give its
    inverse, "theta" or "size".)

    Args:
        num_outputs: C; each output has a dispersion of its own.
        initial_dispersion: α at the start.
        bounds: the smallest and the largest α.

    Raises:
        DataError: bounds that are not positive and increasing, or a start outside of them.

    Example:
        >>> import bayesmeta as bm
        >>> likelihood = bm.likelihoods.NegativeBinomial(initial_dispersion=0.5)
        >>> counts = likelihood(torch.tensor([[[2.0]]]))
        >>> round(counts.mean.item(), 2), round(counts.variance.item(), 2)  # 7.39 + 0.5 · 7.39²
        (7.39, 34.69)
        >>> learner = bm.IMAML(bm.MLP(1, [8]), likelihood=likelihood)
        >>> prediction = learner.adapt(bm.Data.from_arrays([0.0, 1.0], [3.0, 4.0])).predict([0.5])
        >>> lower, upper = prediction.interval(0.9)  # whole numbers
        >>> bool(lower == lower.round()), bool(prediction.cdf(upper) - prediction.cdf(lower - 1.0) >= 0.9)
        (True, True)
    """

    def __init__(
        self, num_outputs: int = 1, initial_dispersion: float = 0.5, bounds: tuple[float, float] = (1e-4, 1e2)
    ) -> None:
        super().__init__(num_outputs)
        self.dispersion = Positive((num_outputs,), initial_dispersion, bounds)

    def forward(self, f: Float[Tensor, "*b K"]) -> Distribution:
        """The negative binomial distribution of the mean exp(f)."""
        f = f.clamp(max=LARGEST)
        alpha = self.dispersion().to(f.dtype)
        count = alpha.reciprocal().expand(f.shape)
        return Independent(NegativeBinomialCounts(count, logits=f + alpha.log(), validate_args=False), 1)

    def curvature_root(self, f: Float[Tensor, "*b K"]) -> Float[Tensor, "*b K K"]:
        """√(μ / (1 + α μ)), the root of the Fisher information of a log mean."""
        f = f.clamp(max=LARGEST)
        log_alpha = self.dispersion().to(f.dtype).log()
        return torch.diag_embed((0.5 * (f - torch.nn.functional.softplus(f + log_alpha))).exp())


def log_mean(data: Data) -> Float[Tensor, "C"]:
    """The logarithm of the mean count of all points, each output on its own, with half a count more; float64.

    Args:
        data: all points of all tasks.

    Example:
        >>> log_mean(Data.from_arrays([0.0, 1.0], [2.0, 3.0])).exp()
        tensor([2.7500], dtype=torch.float64)
    """
    counts = torch.where(data.mask[..., None], data.y.double(), 0.0).sum((0, 1))
    return ((counts + 0.5) / data.counts.sum().clamp(min=1)).log()


def averaged(likelihood: Likelihood, mean: Float[Tensor, "*b K"], variance: Float[Tensor, "*b K"]) -> Distribution:
    """The mixture of a likelihood of numbers over f ~ N(mean, diag(variance)), by Gauss-Hermite quadrature.

    Each output has a mixture of its own: batch shape `*b`, event shape (K,).

    Args:
        likelihood: gives `Independent` distributions, output by output.
        mean: of f.
        variance: of f.

    Example:
        >>> import bayesmeta as bm
        >>> averaged(bm.likelihoods.Poisson(), torch.zeros(1, 1, 2), torch.zeros(1, 1, 2)).mean.round(decimals=4)
        tensor([[[1., 1.]]])
    """
    nodes, weights = HERMITE_NODES.to(mean), HERMITE_WEIGHTS.to(mean)
    each = likelihood((mean[..., None] + positive_root(variance)[..., None] * nodes).movedim(-1, 0))  # S *b K
    assert isinstance(each, Independent)
    components = _last(each.base_dist)
    mixing = Categorical(probs=weights.expand(components.batch_shape), validate_args=False)
    return Independent(MixtureSameFamily(mixing, components, validate_args=False), 1)


def _last(counts: Distribution) -> Distribution:
    """The same with its first axis last."""
    if isinstance(counts, PoissonCounts):
        return PoissonCounts(counts.rate.movedim(0, -1), validate_args=False)
    assert isinstance(counts, NegativeBinomialCounts)
    count, logits = counts.total_count.movedim(0, -1), counts.logits.movedim(0, -1)
    return NegativeBinomialCounts(count, logits=logits, validate_args=False)
