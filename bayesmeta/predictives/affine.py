"""The predictive of a moved and scaled outcome: standardisation undone."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import Distribution
from typing_extensions import override

from bayesmeta import distributions
from bayesmeta.arguments import draw_shape
from bayesmeta.predictives.predictive import Predictive, require_mask, require_shape


@dataclass(frozen=True, eq=False)
class AffinePredictive(Predictive):
    """The predictive of shift + scale * y: what undoes a standardisation of the outcomes.

    `Standardized` returns it; everything, densities included, is in the new units.

    Attributes:
        base: the predictive of y.
        shift: `C`, or any shape that fits `B M C` (each task, or each point, has its own), in units of the new outcome.
        scale: the same, positive, in units of the new outcome for a unit of y.

    Example:
        >>> import bayesmeta as bm
        >>> celsius = bm.ALPaCA(bm.Identity(1)).adapt(bm.Data.from_arrays([0.0, 1.0], [20.0, 22.0])).predict([0.5])
        >>> fahrenheit = bm.predictives.AffinePredictive(celsius, shift=torch.tensor([32.0]), scale=torch.tensor([1.8]))
        >>> celsius
        prediction at 1 point: mean [14.8], sd [0.367]
        >>> fahrenheit
        prediction at 1 point: mean [58.6], sd [0.661]
    """

    base: Predictive
    shift: Float[Tensor, "*#B_M C"]
    scale: Float[Tensor, "*#B_M C"]

    @property
    @override
    def shape(self) -> torch.Size:
        return self.base.shape

    def _back(self, y: Tensor) -> Tensor:
        require_shape(y, self.shape)
        return (y - self.shift) / self.scale

    @property
    def marginals(self) -> Distribution:
        """The marginals of the base, moved and scaled."""
        return distributions.affine(self.base.marginals, self.shift, self.scale)

    def log_prob(self, y: Float[Tensor, "B M C"], mask: Bool[Tensor, "B M"] | None = None) -> Float[Tensor, "B"]:
        """The joint log density of the real points in the new units, in nats."""
        require_shape(y, self.shape)
        if mask is not None:
            require_mask(mask, self.shape)
        if self.scale.ndim == 1:
            stretched = (y.shape[1] if mask is None else mask.sum(-1)) * self.scale.log().sum()
        else:
            each = self.scale.log().expand(self.shape).sum(-1)
            stretched = (each if mask is None else torch.where(mask, each, 0.0)).sum(-1)
        return self.base.log_prob(self._back(y), mask) - stretched

    def marginal_log_prob(self, y: Float[Tensor, "B M C"]) -> Float[Tensor, "B M"]:
        """The log density of each point on its own in the new units, in nats."""
        return self.base.marginal_log_prob(self._back(y)) - self.scale.log().sum(-1)

    @override
    def output_log_prob(self, y: Float[Tensor, "B M C"]) -> Float[Tensor, "B M C"]:
        """The log density of each output on its own in the new units, in nats."""
        return self.base.output_log_prob(self._back(y)) - self.scale.log()

    @property
    def mean(self) -> Float[Tensor, "B M C"]:
        """The predictive mean in the new units."""
        return self.shift + self.scale * self.base.mean

    @property
    def variance(self) -> Float[Tensor, "B M C"]:
        """The predictive variance in the new units, squared."""
        return self.scale.square() * self.base.variance

    def cdf(self, y: Float[Tensor, "B M C"]) -> Float[Tensor, "B M C"]:
        """P(Y <= y) of each output of each point, y in the new units."""
        return self.base.cdf(self._back(y))

    def _quantile(self, q: float) -> Tensor:
        return self.shift + self.scale * self.base.quantile(q)

    def rsample(
        self, sample_shape: tuple[int, ...] | int = (), generator: torch.Generator | None = None
    ) -> Float[Tensor, "*s B M C"]:
        """Joint draws in the new units."""
        sample_shape = draw_shape(sample_shape)
        return self.shift + self.scale * self.base.rsample(sample_shape, generator)

    @override
    def with_noise(self, noise: Float[Tensor, "B M C"]) -> "AffinePredictive":
        return replace(self, base=self.base.with_noise(noise / self.scale.square()))

    @property
    def noiseless(self) -> "AffinePredictive":
        """The predictive of f, in the new units."""
        return replace(self, base=self.base.noiseless)
