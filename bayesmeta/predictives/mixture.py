"""Mixtures of predictives: a task's posterior held as weighted parameters."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution, MixtureSameFamily

from bayesmeta import distributions
from bayesmeta.predictives.predictive import Predictive, require_shape


@dataclass(frozen=True, eq=False)
class MixturePredictive(Predictive):
    """Σ_s w_s p_s(y): a task's posterior held as S weighted parameters, each with its own predictive.

    Attributes:
        log_weights: `B S`, normalised here.
        components: the predictives of all tasks and parameters, over B * S tasks, task by task.
    """

    log_weights: Float[Tensor, "B S"]
    components: Predictive

    def __post_init__(self) -> None:
        """Normalise the weights."""
        object.__setattr__(self, "log_weights", self.log_weights.log_softmax(-1))

    @property
    def _shape(self) -> torch.Size:
        return torch.Size((self.log_weights.shape[0], *self.components._shape[1:]))

    def _each(self, y: Tensor) -> Tensor:
        return y.repeat_interleave(self.log_weights.shape[1], 0)

    def _split(self, value: Tensor) -> Tensor:
        return value.unflatten(0, self.log_weights.shape)

    def _average(self, value: Tensor) -> Tensor:
        dtype = torch.promote_types(self.log_weights.dtype, value.dtype)  # y may be in another precision
        return torch.einsum("bs,bs...->b...", self.log_weights.exp().to(dtype), self._split(value).to(dtype))

    @property
    def marginals(self) -> Distribution:
        """A mixture distribution per point; for labels the averaged probabilities."""
        base = self.components.marginals
        if isinstance(base, Bernoulli | Categorical):
            probs = self._average(self.components.probs)
            is_binary = isinstance(base, Bernoulli)
            return Bernoulli(probs[..., 1], validate_args=False) if is_binary else Categorical(probs)
        grouped = distributions.map_parameters(base, lambda v: self._split(v).movedim(1, 2))
        mixing = Categorical(logits=self.log_weights[:, None].expand(grouped.batch_shape), validate_args=False)
        return MixtureSameFamily(mixing, grouped, validate_args=False)

    def log_prob(self, y: Shaped[Tensor, "B M *c"], mask: Bool[Tensor, "B M"] | None = None) -> Float[Tensor, "B"]:
        """log Σ_s w_s p_s(y_1..y_M), in nats: points share the component."""
        require_shape(y, self._shape)
        if mask is not None:
            require_shape(mask, self._shape[:2], "mask")
        each = self.components.log_prob(self._each(y), None if mask is None else self._each(mask))
        return (self.log_weights + self._split(each)).logsumexp(-1)

    def marginal_log_prob(self, y: Shaped[Tensor, "B M *c"]) -> Float[Tensor, "B M"]:
        """log Σ_s w_s p_s(y_m) of each point, in nats."""
        require_shape(y, self._shape)
        each = self._split(self.components.marginal_log_prob(self._each(y)))
        return (self.log_weights[..., None] + each).logsumexp(1)

    @property
    def mean(self) -> Float[Tensor, "B M C"]:
        """Weighted mean."""
        return self._average(self.components.mean)

    @property
    def variance(self) -> Float[Tensor, "B M C"]:
        """Law of total variance."""
        means = self.components.mean
        spread = self._split(means) - self._average(means)[:, None]
        return self._average(self.components.variance) + self._average(spread.square().flatten(0, 1))

    def cdf(self, y: Float[Tensor, "B M C"]) -> Float[Tensor, "B M C"]:
        """Weighted average of the components' distribution functions."""
        require_shape(y, self._shape)
        return self._average(self.components.cdf(self._each(y)))

    def _quantile(self, q: float) -> Tensor:
        each = self._split(self.components.quantile(q))
        return distributions.bisect(self.cdf, each.amin(1), each.amax(1), q)

    def rsample(
        self, sample_shape: tuple[int, ...] = (), generator: torch.Generator | None = None
    ) -> Shaped[Tensor, "*s_B_M_c"]:
        """Draws: a component for each task, then its points jointly. No gradient flows to the weights."""
        count = int(np.prod(sample_shape, dtype=int))
        chosen = torch.multinomial(self.log_weights.exp(), max(count, 1), replacement=True, generator=generator)
        draws = self.components.rsample((count,), generator)  # count, B*S, M, *c
        draws = draws.unflatten(1, self.log_weights.shape)
        index = torch.arange(count, device=chosen.device)
        tasks = torch.arange(self.log_weights.shape[0], device=chosen.device)
        picked = draws[index[:, None], tasks, chosen.mT[:count]]
        return picked.reshape(*sample_shape, *picked.shape[1:])

    @property
    def noiseless(self) -> "MixturePredictive":
        """The predictive of f."""
        return MixturePredictive(self.log_weights, self.components.noiseless)
