"""Mixtures of predictives: a task's posterior held as weighted parameters."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution, MixtureSameFamily
from typing_extensions import override

from bayesmeta import distributions
from bayesmeta.arguments import draw_shape
from bayesmeta.count_distributions import smallest_count
from bayesmeta.errors import UnsupportedError, retelling
from bayesmeta.predictives.marginals import PredictiveMarginals
from bayesmeta.predictives.predictive import Predictive, require_mask, require_shape


@dataclass(frozen=True, eq=False)
class _Mixture(Predictive):
    """Σ_s w_s p_s(y).

    Attributes:
        log_weights: `B S`, normalised here.
    """

    log_weights: Float[Tensor, "B S"]

    def __post_init__(self) -> None:
        """Normalise the weights."""
        object.__setattr__(self, "log_weights", self.log_weights.log_softmax(-1))

    @abstractmethod
    def _over(self, function: Callable[..., Tensor], *values: Tensor | None) -> Tensor:
        """function(component, values), `B S ..`, with values `B ..`."""

    @property
    @abstractmethod
    def of_counts(self) -> bool:
        """Whether what is predicted are counts."""

    @abstractmethod
    def _components_marginals(self) -> Distribution:
        """Of batch shape (B, M, S). Raises UnsupportedError where torch has no distribution of several of them."""

    @abstractmethod
    def draws_of_components(self, count: int, generator: torch.Generator | None) -> Tensor:
        """`count B S M *c`, of each component."""

    def _average(self, value: Tensor) -> Tensor:
        dtype = torch.promote_types(self.log_weights.dtype, value.dtype)  # y may be in another precision
        return torch.einsum("bs,bs...->b...", self.log_weights.exp().to(dtype), value.to(dtype))

    @property
    def marginals(self) -> Distribution:
        """A mixture distribution per point; for labels the averaged probabilities.

        Where torch has no mixture of what the components are (mixtures themselves, several families, recalibrated
        distributions), a distribution that asks this predictive.
        """
        try:
            grouped = self._components_marginals()
        except UnsupportedError:
            return _MixtureMarginals(self)
        if isinstance(grouped, Bernoulli | Categorical):
            probs = self._average(self._over(lambda p: p.probs))
            is_binary = isinstance(grouped, Bernoulli)
            return Bernoulli(probs[..., 1], validate_args=False) if is_binary else Categorical(probs)
        mixing = Categorical(logits=self.log_weights[:, None].expand(grouped.batch_shape), validate_args=False)
        return MixtureSameFamily(mixing, grouped, validate_args=False)

    def log_prob(self, y: Shaped[Tensor, "B M *c"], mask: Bool[Tensor, "B M"] | None = None) -> Float[Tensor, "B"]:
        """log Σ_s w_s p_s(y_1..y_M), in nats: points share the component."""
        require_shape(y, self.shape)
        if mask is not None:
            require_mask(mask, self.shape)
        return (self.log_weights + self._over(lambda p, y, mask: p.log_prob(y, mask), y, mask)).logsumexp(-1)

    def marginal_log_prob(self, y: Shaped[Tensor, "B M *c"]) -> Float[Tensor, "B M"]:
        """log Σ_s w_s p_s(y_m) of each point, in nats."""
        require_shape(y, self.shape)
        each = self._over(lambda p, y: p.marginal_log_prob(y), y)
        return (self.log_weights[..., None] + each).logsumexp(1)

    @override
    def output_log_prob(self, y: Float[Tensor, "B M C"]) -> Float[Tensor, "B M C"]:
        """log Σ_s w_s p_s(y_mc) of each output on its own, in nats."""
        require_shape(y, self.shape)
        each = self._over(lambda p, y: p.output_log_prob(y), y)
        return (self.log_weights[..., None, None] + each).logsumexp(1)

    @property
    def mean(self) -> Float[Tensor, "B M C"]:
        """The weighted mean of the components' means."""
        return self._average(self._over(lambda p: p.mean))

    @property
    def variance(self) -> Float[Tensor, "B M C"]:
        """The variance, by the law of total variance."""
        means = self._over(lambda p: p.mean)
        spread = means - self._average(means)[:, None]
        return self._average(self._over(lambda p: p.variance)) + self._average(spread.square())

    def cdf(self, y: Float[Tensor, "B M C"]) -> Float[Tensor, "B M C"]:
        """P(Y <= y), the weighted average of the components' distribution functions."""
        require_shape(y, self.shape)
        return self._average(self._over(lambda p, y: p.cdf(y), y))

    def _quantile(self, q: float) -> Tensor:
        if self.of_counts:
            return smallest_count(self.cdf, self.mean, self.variance, q)
        each = self._over(lambda p: p.quantile(q))
        return distributions.bisect(self.cdf, each.amin(1), each.amax(1), q)

    def rsample(
        self, sample_shape: tuple[int, ...] | int = (), generator: torch.Generator | None = None
    ) -> Shaped[Tensor, "*s_B_M_c"]:
        """Draws: a component for each task, then its points jointly. No gradient flows to the weights."""
        sample_shape = draw_shape(sample_shape)
        count = int(np.prod(sample_shape, dtype=int))
        chosen = torch.multinomial(self.log_weights.exp(), max(count, 1), replacement=True, generator=generator)
        draws = self.draws_of_components(count, generator)
        index = torch.arange(count, device=chosen.device)
        tasks = torch.arange(self.log_weights.shape[0], device=chosen.device)
        picked = draws[index[:, None], tasks, chosen.mT[:count]]
        return picked.reshape(*sample_shape, *picked.shape[1:])


class _MixtureMarginals(PredictiveMarginals):
    """The marginals of a mixture that is no family of torch's."""

    predictive: _Mixture

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Each point on its own: it has a component of its own."""
        predictive, shape = self.predictive, tuple(sample_shape)
        count, points = int(np.prod(shape, dtype=int)), predictive.shape[1]
        with torch.no_grad():
            draws = predictive.draws_of_components(count, None).movedim(2, 0)  # S count B M *c
            chosen = torch.multinomial(predictive.log_weights.exp(), max(count * points, 1), replacement=True)
            chosen = chosen[:, : count * points].unflatten(1, (count, points)).movedim(0, 1)  # count B M
            index = chosen.reshape(1, *chosen.shape, *[1] * (draws.ndim - 4)).expand(1, *draws.shape[1:])
            return draws.gather(0, index)[0].reshape(*shape, *predictive.shape)


@dataclass(frozen=True, eq=False)
class MixturePredictive(_Mixture):
    """Σ_s w_s p_s(y): a task's posterior held as S weighted parameters, each with its own predictive.

    Attributes:
        log_weights: `B S`, up to a constant of each task: they are normalised here.
        components: the predictive of all tasks and parameters, over B * S tasks, task by task.

    Example:
        >>> from torch.distributions import Independent, Normal
        >>> import bayesmeta as bm
        >>> mean = torch.tensor([-1.0, 1.0]).expand(1, 2).reshape(2, 1, 1)  # one task, two components, one point
        >>> components = bm.predictives.IndependentPredictive(Independent(Normal(mean, 0.1), 1))
        >>> predictive = bm.predictives.MixturePredictive(torch.log(torch.tensor([[0.25, 0.75]])), components)
        >>> predictive
        prediction at 1 point: mean [0.5], sd [0.872]
        >>> predictive.cdf(torch.zeros(1, 1, 1))
        tensor([[[0.2500]]])
    """

    components: Predictive

    @property
    @override
    def shape(self) -> torch.Size:
        return torch.Size((self.log_weights.shape[0], *self.components.shape[1:]))

    @property
    @override
    def of_counts(self) -> bool:
        return self.components.of_counts

    def _over(self, function: Callable[..., Tensor], *values: Tensor | None) -> Tensor:
        count = self.log_weights.shape[1]
        each = (None if value is None else value.repeat_interleave(count, 0) for value in values)
        with retelling(lambda position: position // count):
            return function(self.components, *each).unflatten(0, self.log_weights.shape)

    def _components_marginals(self) -> Distribution:
        base = self.components.marginals
        if isinstance(base, Bernoulli | Categorical):
            return base
        return distributions.map_parameters(base, lambda v: v.unflatten(0, self.log_weights.shape).movedim(1, 2))

    @override
    def draws_of_components(self, count: int, generator: torch.Generator | None) -> Tensor:
        return self.components.rsample((count,), generator).unflatten(1, self.log_weights.shape)

    @override
    def with_noise(self, noise: Float[Tensor, "B M C"]) -> Predictive:
        each = noise.repeat_interleave(self.log_weights.shape[1], 0)
        return MixturePredictive(self.log_weights, self.components.with_noise(each))

    @property
    def noiseless(self) -> Predictive:
        """The predictive of f."""
        return MixturePredictive(self.log_weights, self.components.noiseless)


@dataclass(frozen=True, eq=False)
class EnsemblePredictive(_Mixture):
    """Σ_s w_s p_s(y), each p_s a predictive of its own for the same points, such as those of several learners.

    Attributes:
        log_weights: `B S`, up to a constant of each task: they are normalised here.
        components: S predictives of all tasks at the same points.

    Example:
        >>> import bayesmeta as bm
        >>> support = bm.Data.from_arrays([0.0, 1.0], [0.0, 1.0])
        >>> learners = bm.ALPaCA(bm.Identity(1)), bm.ALPaCA(bm.Polynomial(1, 2))
        >>> each = tuple(learner.adapt(support).predict([2.0]) for learner in learners)
        >>> weights = torch.stack([learner.log_evidence(support) for learner in learners], -1)  # of equal prior odds
        >>> average = bm.predictives.EnsemblePredictive(weights.detach(), each)
        >>> low, high = sorted(predictive.mean.item() for predictive in each)
        >>> low < average.mean.item() < high
        True
    """

    components: tuple[Predictive, ...]

    @property
    @override
    def shape(self) -> torch.Size:
        return self.components[0].shape

    @property
    @override
    def of_counts(self) -> bool:
        return self.components[0].of_counts

    def _over(self, function: Callable[..., Tensor], *values: Tensor | None) -> Tensor:
        return torch.stack([function(component, *values) for component in self.components], 1)

    def _components_marginals(self) -> Distribution:
        each = [component.marginals for component in self.components]
        labels = isinstance(each[0], Bernoulli | Categorical)
        return each[0] if labels else distributions.stack(each, 2)

    @override
    def draws_of_components(self, count: int, generator: torch.Generator | None) -> Tensor:
        return torch.stack([component.rsample((count,), generator) for component in self.components], 2)

    @override
    def with_noise(self, noise: Float[Tensor, "B M C"]) -> "EnsemblePredictive":
        return EnsemblePredictive(self.log_weights, tuple(each.with_noise(noise) for each in self.components))

    @property
    def noiseless(self) -> "EnsemblePredictive":
        """The predictive of f."""
        return EnsemblePredictive(self.log_weights, tuple(component.noiseless for component in self.components))
