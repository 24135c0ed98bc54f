"""Predictives p(y | x, D, theta) at B x M query points: observation noise included unless `noiseless` is asked for."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    StudentT,
)

from bayesmeta import distributions
from bayesmeta.errors import DataError, ShapeError, UnsupportedError
from bayesmeta.linalg import cholesky, logdet, solve_lower

LOG_2PI = 1.8378770664093453


class Predictive(ABC):
    """p(y | x, D, theta) at the query points of a batch of tasks.

    A subclass gives `marginals` and, where the points are dependent, its own `log_prob` and `rsample`.
    """

    @property
    @abstractmethod
    def marginals(self) -> Distribution:
        """Each point on its own: batch shape (B, M), event shape (C,), or () for labels."""

    @abstractmethod
    def log_prob(self, y: Shaped[Tensor, "B M *c"], mask: Bool[Tensor, "B M"] | None = None) -> Float[Tensor, "B"]:
        """Joint log density of the real points of each task, in nats.

        Raises:
            ShapeError: y or the mask does not have the shape of the prediction.
        """

    @abstractmethod
    def rsample(
        self, sample_shape: tuple[int, ...] = (), generator: torch.Generator | None = None
    ) -> Shaped[Tensor, "*s_B_M_c"]:
        """Joint draws with gradients, where the distribution has them."""

    @property
    def noiseless(self) -> "Predictive":
        """The predictive of f, without observation noise. Raises UnsupportedError where f and noise do not separate."""
        raise UnsupportedError(f"{type(self).__name__} does not separate f from its noise")

    def sample(
        self, sample_shape: tuple[int, ...] = (), generator: torch.Generator | None = None
    ) -> Shaped[Tensor, "*s_B_M_c"]:
        """Joint draws, without gradients."""
        with torch.no_grad():
            return self.rsample(sample_shape, generator)

    def marginal_log_prob(self, y: Shaped[Tensor, "B M *c"]) -> Float[Tensor, "B M"]:
        """Log density of each point on its own (over all its outputs), in nats. Raises ShapeError like `log_prob`."""
        marginals = self.marginals
        _require(y, self._shape)
        if y.shape[1] == 0:  # torch's Independent fails on zero points
            dtype = y.dtype if y.is_floating_point() else torch.get_default_dtype()
            return torch.zeros(y.shape[:2], dtype=dtype, device=y.device)
        if isinstance(marginals, Bernoulli):  # torch wants its labels in floating point
            y = y.to(marginals.probs.dtype)
        return marginals.log_prob(y)

    @property
    def mean(self) -> Float[Tensor, "B M C"]:
        """Predictive mean, units of y."""
        return self._regression().mean

    @property
    def variance(self) -> Float[Tensor, "B M C"]:
        """Predictive variance, squared units of y, noise included."""
        return self._regression().variance

    @property
    def stddev(self) -> Float[Tensor, "B M C"]:
        """Predictive standard deviation, units of y, noise included."""
        return self.variance.sqrt()

    @property
    def probs(self) -> Float[Tensor, "B M C"]:
        """Class probabilities. Raises UnsupportedError for a regression predictive."""
        marginals = self.marginals
        if isinstance(marginals, Bernoulli):
            return torch.stack([1.0 - marginals.probs, marginals.probs], -1)
        if isinstance(marginals, Categorical):
            return marginals.probs
        raise UnsupportedError("class probabilities of a regression predictive do not exist: use mean and stddev")

    def cdf(self, y: Float[Tensor, "B M C"]) -> Float[Tensor, "B M C"]:
        """P(Y <= y) of each output of each point on its own. Raises ShapeError like `log_prob`."""
        distribution = distributions.univariate(self._regression())
        _require(y, distribution.batch_shape)
        return distributions.cdf(distribution, y)

    def quantile(self, q: float) -> Float[Tensor, "B M C"]:
        """The q-quantile of each output of each point, units of y. Raises DataError unless 0 < q < 1."""
        if not 0.0 < q < 1.0:
            raise DataError(f"expected a quantile level strictly between 0 and 1, got {q}")
        return self._quantile(q)

    def interval(self, level: float = 0.9) -> tuple[Float[Tensor, "B M C"], Float[Tensor, "B M C"]]:
        """The central interval (lower, upper) that holds y with probability `level`, output by output.

        Raises:
            DataError: unless 0 < level < 1.
        """
        if not 0.0 < level < 1.0:
            raise DataError(f"expected a level strictly between 0 and 1, got {level}")
        return self.quantile((1.0 - level) / 2.0), self.quantile((1.0 + level) / 2.0)

    def _quantile(self, q: float) -> Tensor:
        distribution = distributions.univariate(self._regression())
        if isinstance(distribution, Normal | StudentT | MixtureSameFamily):
            return distributions.quantile(distribution, q)
        # by Cantelli's inequality the root is within sqrt(max(q, 1 - q) / min) deviations of the mean
        reach = ((max(q, 1.0 - q) / min(q, 1.0 - q)) ** 0.5 + 1e-6) * self.stddev
        return distributions.bisect(
            lambda y: distributions.cdf(distribution, y), self.mean - reach, self.mean + reach, q
        )

    @property
    def _shape(self) -> torch.Size:
        """What y must look like: `B M C`, or `B M` for labels."""
        marginals = self.marginals
        return marginals.batch_shape + marginals.event_shape

    def _regression(self) -> Distribution:
        marginals = self.marginals
        if isinstance(marginals, Bernoulli | Categorical):
            raise UnsupportedError("labels have no mean, variance or quantiles: use probs")
        return marginals


@dataclass(frozen=True, eq=False)
class IndependentPredictive(Predictive):
    """Points that are independent given what was learned.

    Attributes:
        distribution: any torch distribution of batch shape (B, M).
        latent: the distribution without observation noise, where it exists.
    """

    distribution: Distribution
    latent: Distribution | None = None

    @property
    def marginals(self) -> Distribution:
        """The distribution itself."""
        return self.distribution

    def log_prob(self, y: Shaped[Tensor, "B M *c"], mask: Bool[Tensor, "B M"] | None = None) -> Float[Tensor, "B"]:
        """Σ over the real points of their marginal log densities, in nats."""
        each = self.marginal_log_prob(y)
        if mask is None:
            return each.sum(-1)
        _require(mask, each.shape, "mask")
        return torch.where(mask, each, 0.0).sum(-1)

    def rsample(
        self, sample_shape: tuple[int, ...] = (), generator: torch.Generator | None = None
    ) -> Shaped[Tensor, "*s_B_M_c"]:
        """Draws from the marginals."""
        draw = self.distribution.rsample if self.distribution.has_rsample else self.distribution.sample
        with distributions.seeded(generator):
            if 0 in sample_shape:  # torch's Categorical refuses
                return draw().new_empty((*sample_shape, *self._shape))
            return draw(torch.Size(sample_shape))

    @property
    def noiseless(self) -> "IndependentPredictive":
        """The predictive of f."""
        if self.latent is None:
            raise UnsupportedError("this predictive does not separate f from its noise")
        return IndependentPredictive(self.latent)


@dataclass(frozen=True, eq=False)
class GaussianPredictive(Predictive):
    """Jointly Gaussian points: Cov(y_mc, y_m'c') = (R + noise I)_mm' Σ_cc', Kronecker over points and outputs.

    Attributes:
        location: the mean, `B M C`, units of y.
        latent_variance: the diagonal of R, `B M`.
        latent_covariance: computes R, `B M M`; called only where the joint distribution is asked for.
        columns: Σ, `C C`, squared units of y.
        noise: 1 for observations, 0 for the noiseless f.
    """

    location: Float[Tensor, "B M C"]
    latent_variance: Float[Tensor, "B M"]
    latent_covariance: Callable[[], Tensor]
    columns: Float[Tensor, "C C"]
    noise: float = 1.0

    @property
    def mean(self) -> Float[Tensor, "B M C"]:
        """Predictive mean, units of y."""
        return self.location

    @property
    def _shape(self) -> torch.Size:
        return self.location.shape

    @property
    def row_variance(self) -> Float[Tensor, "B M"]:
        """The diagonal of R + noise I."""
        return self.latent_variance + self.noise

    @property
    def marginals(self) -> Distribution:
        """Gaussians of batch shape (B, M), event shape (C,)."""
        if self.columns.shape[-1] == 1:
            return Independent(Normal(self.location, self.stddev, validate_args=False), 1)
        factor = self.row_variance.sqrt()[..., None, None] * cholesky(self.columns, "noise covariance")
        return MultivariateNormal(self.location, scale_tril=factor, validate_args=False)

    @property
    def variance(self) -> Float[Tensor, "B M C"]:
        """Predictive variance, squared units of y."""
        return self.row_variance[..., None] * self.columns.diagonal()

    def covariance(self) -> Float[Tensor, "B M M"]:
        """R + noise I, the covariance over points in units of Σ."""
        rows = self.latent_covariance()
        return rows + self.noise * torch.eye(rows.shape[-1], dtype=rows.dtype, device=rows.device)

    def log_prob(self, y: Float[Tensor, "B M C"], mask: Bool[Tensor, "B M"] | None = None) -> Float[Tensor, "B"]:
        """Joint log density over the real points, in nats."""
        _require(y, self._shape)
        mask = torch.ones(y.shape[:2], dtype=torch.bool, device=y.device) if mask is None else mask
        _require(mask, y.shape[:2], "mask")
        both = mask[..., :, None] & mask[..., None, :]
        eye = torch.eye(mask.shape[-1], dtype=self.location.dtype, device=self.location.device)
        rows = cholesky(torch.where(both, self.covariance(), eye), "predictive covariance")
        columns = cholesky(self.columns, "noise covariance")
        residual = torch.where(mask[..., None], y.to(self.location.dtype) - self.location, 0.0)
        white = solve_lower(columns, solve_lower(rows, residual).mT)  # Lc⁻¹ (Lr⁻¹ R)ᵀ
        count = mask.sum(-1).to(self.location.dtype)
        num_outputs = self.columns.shape[-1]
        determinant = num_outputs * logdet(rows) + count * logdet(columns)
        return -0.5 * (white.square().sum((-1, -2)) + determinant + count * num_outputs * LOG_2PI)

    def rsample(
        self, sample_shape: tuple[int, ...] = (), generator: torch.Generator | None = None
    ) -> Float[Tensor, "*s B M C"]:
        """Joint draws."""
        if self.noise > 0.0:
            rows = cholesky(self.covariance(), "predictive covariance")
        else:  # R has the rank of the features: an eigenvector root also exists where it is singular
            values, vectors = torch.linalg.eigh(self.latent_covariance())
            rows = vectors * values.clamp(min=0.0).sqrt()[..., None, :]
        columns = cholesky(self.columns, "noise covariance")
        shape = (*sample_shape, *self.location.shape)
        normal = torch.randn(shape, dtype=self.location.dtype, device=self.location.device, generator=generator)
        return self.location + rows @ normal @ columns.mT

    @property
    def noiseless(self) -> "GaussianPredictive":
        """The predictive of f."""
        return replace(self, noise=0.0)


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
        return torch.einsum("bs,bs...->b...", self.log_weights.exp(), self._split(value))

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
        _require(y, self._shape)
        if mask is not None:
            _require(mask, self._shape[:2], "mask")
        each = self.components.log_prob(self._each(y), None if mask is None else self._each(mask))
        return (self.log_weights + self._split(each)).logsumexp(-1)

    def marginal_log_prob(self, y: Shaped[Tensor, "B M *c"]) -> Float[Tensor, "B M"]:
        """log Σ_s w_s p_s(y_m) of each point, in nats."""
        _require(y, self._shape)
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
        _require(y, self._shape)
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
    def _shape(self) -> torch.Size:
        return self.base._shape

    def _back(self, y: Tensor) -> Tensor:
        _require(y, self._shape)
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


def _require(value: Tensor, shape: torch.Size, name: str = "y") -> None:
    """Broadcasting a wrong shape would score every outcome at every point."""
    if not isinstance(value, Tensor):
        raise DataError(f"expected {name} to be a tensor of shape {tuple(shape)}, got {type(value).__name__}")
    if value.shape != shape:
        raise ShapeError(f"expected {name} of shape {tuple(shape)}, got {tuple(value.shape)}")
