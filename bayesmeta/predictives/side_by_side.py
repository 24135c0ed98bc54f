"""Predictives of one outcome each, side by side: outcomes that are independent given what was learned."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal
from typing_extensions import override

from bayesmeta.arguments import draw_shape
from bayesmeta.distributions import univariate
from bayesmeta.predictives.marginals import PredictiveMarginals
from bayesmeta.predictives.predictive import Predictive, require_mask, require_shape


@dataclass(frozen=True, eq=False)
class SideBySidePredictive(Predictive):
    """p(y_1, ..., y_C) = Π_c p_c(y_c): C predictives of the same points, each of one outcome.

    Attributes:
        parts: the predictive of each outcome, of shape `B M 1`.

    Example:
        >>> import bayesmeta as bm
        >>> support = bm.Data.from_arrays([0.0, 1.0], [0.0, 1.0])
        >>> parts = tuple(bm.ALPaCA(bm.Polynomial(1, d)).adapt(support).predict([2.0, 3.0]) for d in (0, 1))
        >>> predictive = bm.predictives.SideBySidePredictive(parts)
        >>> predictive.mean.shape
        torch.Size([1, 2, 2])
        >>> y = torch.ones(1, 2, 2)
        >>> torch.allclose(predictive.log_prob(y), parts[0].log_prob(y[..., :1]) + parts[1].log_prob(y[..., 1:]))
        True
    """

    parts: tuple[Predictive, ...]

    @property
    @override
    def shape(self) -> torch.Size:
        return torch.Size((*self.parts[0].shape[:2], len(self.parts)))

    def _beside(self, function: Callable[..., Tensor], *values: Tensor) -> Tensor:
        """function(part, values) of each outcome, along the last axis."""
        each = [function(part, *(v[..., c : c + 1] for v in values)) for c, part in enumerate(self.parts)]
        dtype = torch.promote_types(torch.float32, max((one.dtype for one in each), key=lambda d: d.itemsize))
        return torch.cat([one.to(dtype) for one in each], -1)

    @property
    @override
    def marginals(self) -> Distribution:
        each = [univariate(part.marginals) for part in self.parts]
        if all(type(one) is Normal for one in each):
            mean, stddev = self.mean, self.stddev
            return Independent(Normal(mean, stddev, validate_args=False), 1)
        return PredictiveMarginals(self)

    @override
    def log_prob(self, y: Float[Tensor, "B M C"], mask: Bool[Tensor, "B M"] | None = None) -> Float[Tensor, "B"]:
        require_shape(y, self.shape)
        if mask is not None:
            require_mask(mask, self.shape)
        return self._beside(lambda part, y: part.log_prob(y, mask)[:, None], y).sum(-1)

    @override
    def marginal_log_prob(self, y: Float[Tensor, "B M C"]) -> Float[Tensor, "B M"]:
        return self.output_log_prob(y).sum(-1)

    @override
    def output_log_prob(self, y: Float[Tensor, "B M C"]) -> Float[Tensor, "B M C"]:
        require_shape(y, self.shape)
        return self._beside(lambda part, y: part.marginal_log_prob(y)[..., None], y)

    @property
    @override
    def mean(self) -> Float[Tensor, "B M C"]:
        return self._beside(lambda part: part.mean)

    @property
    @override
    def variance(self) -> Float[Tensor, "B M C"]:
        return self._beside(lambda part: part.variance)

    @override
    def cdf(self, y: Float[Tensor, "B M C"]) -> Float[Tensor, "B M C"]:
        require_shape(y, self.shape)
        return self._beside(lambda part, y: part.cdf(y), y)

    def _quantile(self, q: float) -> Tensor:
        return self._beside(lambda part: part.quantile(q))

    @override
    def rsample(
        self, sample_shape: tuple[int, ...] | int = (), generator: torch.Generator | None = None
    ) -> Float[Tensor, "*s B M C"]:
        shape = draw_shape(sample_shape)
        return self._beside(lambda part: part.rsample(shape, generator))

    @override
    def with_noise(self, noise: Float[Tensor, "B M C"]) -> "SideBySidePredictive":
        each = (part.with_noise(noise[..., c : c + 1]) for c, part in enumerate(self.parts))
        return SideBySidePredictive(tuple(each))

    @property
    @override
    def noiseless(self) -> "SideBySidePredictive":
        return SideBySidePredictive(tuple(part.noiseless for part in self.parts))
