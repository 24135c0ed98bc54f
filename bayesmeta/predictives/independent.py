"""Points that are independent given what was learned."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.distributions import Distribution
from typing_extensions import override

from bayesmeta import distributions
from bayesmeta.arguments import draw_shape
from bayesmeta.errors import UnsupportedError
from bayesmeta.predictives.predictive import Predictive, require_mask, require_shape


@dataclass(frozen=True, eq=False)
class IndependentPredictive(Predictive):
    """Points that are independent given what was learned: any torch distribution becomes a predictive.

    Attributes:
        distribution: of batch shape (B, M), and event shape (C,) for numbers or () for labels.
        latent: the distribution of f, without observation noise; None where f and noise do not separate.

    Example:
        >>> from torch.distributions import Categorical, Independent, Normal
        >>> import bayesmeta as bm
        >>> f = Independent(Normal(torch.tensor([[[0.5], [2.0]]]), 0.3), 1)  # one task, two points, one output
        >>> y = Independent(Normal(torch.tensor([[[0.5], [2.0]]]), 0.5), 1)
        >>> predictive = bm.predictives.IndependentPredictive(y, f)
        >>> predictive, predictive.noiseless
        (prediction at 2 points: mean [0.5, 2], sd [0.5, 0.5], prediction at 2 points: mean [0.5, 2], sd [0.3, 0.3])
        >>> bm.predictives.IndependentPredictive(Categorical(torch.tensor([[[0.7, 0.2, 0.1]]])))
        prediction at 1 point: class probabilities [[0.7, 0.2, 0.1]]
    """

    distribution: Distribution
    latent: Distribution | None = None

    @property
    def marginals(self) -> Distribution:
        """The distribution itself."""
        return self.distribution

    def log_prob(self, y: Shaped[Tensor, "B M *c"], mask: Bool[Tensor, "B M"] | None = None) -> Float[Tensor, "B"]:
        """The sum over the real points of their marginal log densities, in nats."""
        if mask is None:
            return self.marginal_log_prob(y).sum(-1)
        require_mask(mask, self.shape)
        require_shape(y, self.shape)
        if not self.shape[2:]:  # what stands in padding need not be a class
            y = torch.where(mask, y, 0)
        return torch.where(mask, self.marginal_log_prob(y), 0.0).sum(-1)

    def rsample(
        self, sample_shape: tuple[int, ...] | int = (), generator: torch.Generator | None = None
    ) -> Shaped[Tensor, "*s_B_M_c"]:
        """Draws from the marginals."""
        sample_shape = draw_shape(sample_shape)
        draw = self.distribution.rsample if self.distribution.has_rsample else self.distribution.sample
        with distributions.seeded(generator):
            if 0 in sample_shape:  # torch's Categorical refuses
                return draw().new_empty((*sample_shape, *self.shape))
            return draw(torch.Size(sample_shape))

    @override
    def with_noise(self, noise: Float[Tensor, "B M C"]) -> "IndependentPredictive":
        return replace(self, distribution=distributions.noisier(self.distribution, noise))

    @property
    def noiseless(self) -> "IndependentPredictive":
        """The predictive of f. Raises UnsupportedError where no `latent` is given."""
        if self.latent is None:
            raise UnsupportedError("this predictive does not separate f from its noise")
        return IndependentPredictive(self.latent)
