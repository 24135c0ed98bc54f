"""The predictive of exp(z), z being what a learner predicts: outcomes that are positive, learned as logarithms."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import Distribution, MixtureSameFamily, Normal
from typing_extensions import override

from bayesmeta import distributions
from bayesmeta.arguments import draw_shape
from bayesmeta.predictives.affine import AffinePredictive
from bayesmeta.predictives.marginals import PredictiveMarginals
from bayesmeta.predictives.mixture import EnsemblePredictive, MixturePredictive
from bayesmeta.predictives.predictive import Predictive, require_mask, require_shape


@dataclass(frozen=True, eq=False)
class ExponentialPredictive(Predictive):
    """The predictive of y = exp(z): densities have the Jacobian 1 / y, and quantiles are those of z, exponentiated.

    `LogTransformed` returns it. Where z is Gaussian, y is log-normal: its median is exp(E z), and its mean larger by
    exp(Var z / 2). Where z has heavier tails, as Student's t, y has no finite mean, which is then infinity; quantiles
    and densities are right all the same.

    Attributes:
        base: the predictive of z = log y.

    Example:
        >>> import bayesmeta as bm
        >>> base = bm.ALPaCA(bm.Identity(1)).adapt(bm.Data.from_arrays([0.0, 1.0], [0.0, 0.5])).predict([0.5])
        >>> predictive = bm.predictives.ExponentialPredictive(base)
        >>> bool(predictive.quantile(0.5).isclose(base.mean.exp()))
        True
        >>> bool(predictive.mean.isclose((base.mean + base.variance / 2).exp()))
        True
    """

    base: Predictive

    @property
    @override
    def shape(self) -> torch.Size:
        return self.base.shape

    @property
    def marginals(self) -> Distribution:
        """Distributions that ask this predictive."""
        return _Marginals(self)

    def log_prob(self, y: Float[Tensor, "B M C"], mask: Bool[Tensor, "B M"] | None = None) -> Float[Tensor, "B"]:
        """The joint log density of the real points, in nats; -inf where one of them is not positive."""
        require_shape(y, self.shape)
        mask = torch.ones(y.shape[:2], dtype=torch.bool, device=y.device) if mask is None else mask
        require_mask(mask, self.shape)
        real = mask[..., None] & (y > 0.0)
        z = torch.where(real, y, 1.0).log()
        impossible = (mask[..., None] & ~real).any(-1).any(-1)
        return torch.where(impossible, -torch.inf, self.base.log_prob(z, mask) - z.sum((-1, -2)))

    def marginal_log_prob(self, y: Float[Tensor, "B M C"]) -> Float[Tensor, "B M"]:
        """The log density of each point on its own, in nats; -inf where an outcome is not positive."""
        require_shape(y, self.shape)
        z = torch.where(y > 0.0, y, 1.0).log()
        return torch.where((y > 0.0).all(-1), self.base.marginal_log_prob(z) - z.sum(-1), -torch.inf)

    @override
    def output_log_prob(self, y: Float[Tensor, "B M C"]) -> Float[Tensor, "B M C"]:
        """The log density of each output on its own, in nats; -inf where it is not positive."""
        require_shape(y, self.shape)
        z = torch.where(y > 0.0, y, 1.0).log()
        return torch.where(y > 0.0, self.base.output_log_prob(z) - z, -torch.inf)

    @property
    def mean(self) -> Float[Tensor, "B M C"]:
        """E exp(z); infinite where the tail of z is heavier than exponential."""
        return log_moment(self.base, torch.ones_like(self.base.mean)).exp()

    @property
    def variance(self) -> Float[Tensor, "B M C"]:
        """E exp(2 z) - (E exp(z))², which may be infinite."""
        one = torch.ones_like(self.base.mean)
        first, second = log_moment(self.base, one), log_moment(self.base, 2.0 * one)
        # e^second - e^(2 first), without a difference of large numbers
        found = second.exp() * -torch.expm1((2.0 * first - second).clamp(max=0.0))
        return torch.where(second.isinf(), second, found)

    def cdf(self, y: Float[Tensor, "B M C"]) -> Float[Tensor, "B M C"]:
        """P(Y <= y): zero up to 0."""
        require_shape(y, self.shape)
        return torch.where(y > 0.0, self.base.cdf(torch.where(y > 0.0, y, 1.0).log()), 0.0)

    def _quantile(self, q: float) -> Tensor:
        return self.base.quantile(q).exp()

    def rsample(
        self, sample_shape: tuple[int, ...] | int = (), generator: torch.Generator | None = None
    ) -> Float[Tensor, "*s B M C"]:
        """Joint draws."""
        return self.base.rsample(draw_shape(sample_shape), generator).exp()

    @property
    def noiseless(self) -> "ExponentialPredictive":
        """The predictive of exp(f), the median of an outcome."""
        return ExponentialPredictive(self.base.noiseless)


class _Marginals(PredictiveMarginals):
    """The marginals of exp(z)."""

    predictive: ExponentialPredictive

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Each point on its own."""
        return self.predictive.base.marginals.sample(torch.Size(sample_shape)).exp()


def log_moment(predictive: Predictive, t: Float[Tensor, "B M C"]) -> Float[Tensor, "B M C"]:
    """log E exp(t z) of each output of each point: infinite where the tail of z is heavier than exponential.

    Args:
        predictive: of z.
        t: positive.

    Example:
        >>> import bayesmeta as bm
        >>> from torch.distributions import Independent
        >>> z = bm.predictives.IndependentPredictive(Independent(Normal(torch.full((1, 1, 1), 3.0), 2.0), 1))
        >>> log_moment(z, torch.ones(1, 1, 1)).item()  # 3 + 4 / 2
        5.0
    """
    if isinstance(predictive, AffinePredictive):
        return t * predictive.shift + log_moment(predictive.base, t * predictive.scale)
    if isinstance(predictive, EnsemblePredictive):
        each = torch.stack([log_moment(part, t) for part in predictive.components], 1)
        return (predictive.log_weights[..., None, None] + each).logsumexp(1)
    if isinstance(predictive, MixturePredictive):
        count = predictive.log_weights.shape[1]
        each = log_moment(predictive.components, t.repeat_interleave(count, 0)).unflatten(0, (-1, count))
        return (predictive.log_weights[..., None, None] + each).logsumexp(1)
    return _log_moment_of(distributions.univariate(predictive.marginals), t)


def _log_moment_of(marginals: Distribution, t: Tensor) -> Tensor:
    if isinstance(marginals, Normal):
        return t * marginals.loc + 0.5 * (t * marginals.scale).square()
    if isinstance(marginals, MixtureSameFamily):
        each = _log_moment_of(marginals.component_distribution, t[..., None])
        return (marginals.mixture_distribution.logits.log_softmax(-1) + each).logsumexp(-1)
    return torch.full_like(t, torch.inf)
