"""The predictive of a moved and scaled outcome: standardisation undone."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import Distribution
from typing_extensions import override

from bayesmeta import distributions
from bayesmeta.predictives.predictive import Predictive, require_shape


@dataclass(frozen=True, eq=False)
class AffinePredictive(Predictive):
    """The predictive of shift + scale * y: standardisation undone.

    Attributes:
        base: the predictive of y.
        shift: `C`, units of the new outcome.
        scale: `C`, positive.
    """

    base: Predictive
    shift: Float[Tensor, "C"]
    scale: Float[Tensor, "C"]

    @property
    @override
    def shape(self) -> torch.Size:
        return self.base.shape

    def _back(self, y: Tensor) -> Tensor:
        require_shape(y, self.shape)
        return (y - self.shift) / self.scale

    @property
    def marginals(self) -> Distribution:
        """The base's marginals, moved and scaled."""
        return distributions.affine(self.base.marginals, self.shift, self.scale)

    def log_prob(self, y: Float[Tensor, "B M C"], mask: Bool[Tensor, "B M"] | None = None) -> Float[Tensor, "B"]:
        """Joint log density in the new units, in nats."""
        points = y.shape[1] if mask is None else mask.sum(-1)
        return self.base.log_prob(self._back(y), mask) - points * self.scale.log().sum()

    def marginal_log_prob(self, y: Float[Tensor, "B M C"]) -> Float[Tensor, "B M"]:
        """Log density of each point in the new units, in nats."""
        return self.base.marginal_log_prob(self._back(y)) - self.scale.log().sum()

    @property
    def mean(self) -> Float[Tensor, "B M C"]:
        """Mean in the new units."""
        return self.shift + self.scale * self.base.mean

    @property
    def variance(self) -> Float[Tensor, "B M C"]:
        """Variance in the new units, squared."""
        return self.scale.square() * self.base.variance

    def cdf(self, y: Float[Tensor, "B M C"]) -> Float[Tensor, "B M C"]:
        """P(Y <= y)."""
        return self.base.cdf(self._back(y))

    def _quantile(self, q: float) -> Tensor:
        return self.shift + self.scale * self.base.quantile(q)

    def rsample(
        self, sample_shape: tuple[int, ...] = (), generator: torch.Generator | None = None
    ) -> Float[Tensor, "*s B M C"]:
        """Joint draws in the new units."""
        return self.shift + self.scale * self.base.rsample(sample_shape, generator)

    @property
    def noiseless(self) -> "AffinePredictive":
        """The predictive of f, in the new units."""
        return replace(self, base=self.base.noiseless)
