"""A predictive with other deviations around the same means."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import Distribution, MixtureSameFamily
from typing_extensions import override

from bayesmeta import distributions
from bayesmeta.arguments import draw_shape
from bayesmeta.predictives.predictive import Predictive, require_mask, require_shape


@dataclass(frozen=True, eq=False)
class ScaledPredictive(Predictive):
    """The predictive of mean + factor (y - mean): the same means and correlations, other standard deviations.

    Attributes:
        base: the predictive of y.
        factor: `B`, positive, what standard deviations are multiplied by.

    Example:
        >>> import bayesmeta as bm
        >>> from bayesmeta.predictives.scaled import ScaledPredictive
        >>> base = bm.ALPaCA(bm.Identity(1)).adapt(bm.Data.from_arrays([], [])).predict([1.0])
        >>> round((ScaledPredictive(base, torch.tensor([2.0])).stddev / base.stddev).item(), 3)
        2.0
    """

    base: Predictive
    factor: Float[Tensor, "B"]

    @property
    @override
    def shape(self) -> torch.Size:
        return self.base.shape

    @property
    def _factor(self) -> Tensor:
        return self.factor.to(self.base.mean.dtype)[:, None, None]

    def _back(self, y: Tensor) -> Tensor:
        require_shape(y, self.shape)
        mean = self.base.mean
        return mean + (y - mean) / self._factor

    @property
    def marginals(self) -> Distribution:
        """The marginals of the base, scaled around their means."""
        return _affine(self.base.marginals, (1.0 - self._factor) * self.base.mean, self._factor)

    def log_prob(self, y: Float[Tensor, "B M C"], mask: Bool[Tensor, "B M"] | None = None) -> Float[Tensor, "B"]:
        """The joint log density of the real points, in nats."""
        require_shape(y, self.shape)
        if mask is not None:
            require_mask(mask, self.shape)
        points = y.shape[1] if mask is None else mask.sum(-1)
        return self.base.log_prob(self._back(y), mask) - points * y.shape[-1] * self._factor[:, 0, 0].log()

    def marginal_log_prob(self, y: Float[Tensor, "B M C"]) -> Float[Tensor, "B M"]:
        """The log density of each point on its own, in nats."""
        z = self._back(y)
        return self.base.marginal_log_prob(z) - y.shape[-1] * self._factor[..., 0].log()

    @override
    def output_log_prob(self, y: Float[Tensor, "B M C"]) -> Float[Tensor, "B M C"]:
        """The log density of each output on its own, in nats."""
        return self.base.output_log_prob(self._back(y)) - self._factor.log()

    @property
    def mean(self) -> Float[Tensor, "B M C"]:
        """The mean of the base."""
        return self.base.mean

    @property
    def variance(self) -> Float[Tensor, "B M C"]:
        """The variance of the base times factor²."""
        return self._factor.square() * self.base.variance

    def cdf(self, y: Float[Tensor, "B M C"]) -> Float[Tensor, "B M C"]:
        """P(Y <= y)."""
        return self.base.cdf(self._back(y))

    def _quantile(self, q: float) -> Tensor:
        mean = self.base.mean
        return mean + self._factor * (self.base.quantile(q) - mean)

    def rsample(
        self, sample_shape: tuple[int, ...] | int = (), generator: torch.Generator | None = None
    ) -> Float[Tensor, "*s B M C"]:
        """Joint draws."""
        sample_shape = draw_shape(sample_shape)
        mean = self.base.mean
        return mean + self._factor * (self.base.rsample(sample_shape, generator) - mean)


def _affine(distribution: Distribution, shift: Tensor, scale: Tensor) -> Distribution:
    """shift + scale * y with a shift `B M C` and a scale `B 1 1` of each point's own."""
    if isinstance(distribution, MixtureSameFamily) and distribution.event_shape:  # components: B M S
        components = _affine(distribution.component_distribution, shift[:, :, None], scale[..., None])
        return MixtureSameFamily(distribution.mixture_distribution, components, validate_args=False)
    return distributions.affine(distribution, shift, scale)
