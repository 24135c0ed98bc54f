"""The predictive of a sinusoid: a mixture over mesh leaves, each a Gaussian smeared by a truncated Gaussian A."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.distributions import Distribution, constraints
from typing_extensions import override

from bayesmeta.arguments import draw_shape
from bayesmeta.distributions import common_normals
from bayesmeta.predictives.marginals import PredictiveMarginals
from bayesmeta.predictives.predictive import LOG_2PI, Predictive, require_mask, require_shape
from bayesmeta.tasks.oracles.amplitude import log_integral, nodes, sample, steps

CHUNK = 20_000  # pairs of a leaf and a query point worked on at a time: they should stay in the processor's cache


class Leaves(NamedTuple):
    """The posterior over the nonlinear latents, most probable leaves first.

    Given a leaf, p(A | D) ∝ exp(A linear - ½ A² precision) on its interval.
    """

    needed: Int[Tensor, "B"]  # leaves that hold the mass of each task; the others weigh nothing
    centers: Float[Tensor, "B L 2"]
    log_weights: Float[Tensor, "B L"]
    linear: Float[Tensor, "B L"]
    precision: Float[Tensor, "B L"]
    projections: Float[Tensor, "B L Q"]

    def of(self, tasks: slice) -> "Leaves":
        """Those of some tasks, cropped to the leaves that weigh."""
        needed = self.needed[tasks]
        return Leaves(needed, *(value[tasks, : int(needed.max())] for value in self[1:]))


@dataclass(frozen=True, eq=False)
class SinusoidPredictive(Predictive):
    """Σ_l weight_l ∫ p_l(A) N(y; base + A t_l, variance) dA, with t_l = sin θ_l - rows · projection_l.

    Attributes:
        leaves: the posterior.
        rows: what the line's posterior makes of the query points, `B M Q`.
        base: the line when A = 0, `B M`, units of y.
        component_variance: noise and line, `B M`, squared units of y.
        amplitude: (low, high) of A.
        noise_variance: squared units of y.
        wave: sin θ at the query points of leaves `b L 2` of some tasks, `b L M`.
        joint: log density of all real points, `B`.
    """

    leaves: Leaves
    rows: Float[Tensor, "B M Q"]
    base: Float[Tensor, "B M"]
    component_variance: Float[Tensor, "B M"]
    amplitude: tuple[float, float]
    noise_variance: float
    wave: Callable[[Tensor, slice], Tensor]
    joint: Callable[[Tensor, Tensor | None], Tensor]

    def _each(self, function: Callable[[Leaves, Tensor, slice], Tensor], cost: int = 1) -> Tensor:
        """`function(leaves, t "b M L", tasks)` a few tasks at a time, the leaves cropped to those that weigh."""
        per_task = max(1, int(self.leaves.needed.max()) * self.base.shape[1] * cost)
        size = max(1, CHUNK // per_task)
        results = []
        for start in range(0, len(self.base), size):
            tasks = slice(start, start + size)
            part = self.leaves.of(tasks)
            wave = self.wave(part.centers, tasks) - part.projections @ self.rows[tasks].mT
            results.append(function(part, wave.mT, tasks))
        return torch.cat(results)

    @property
    @override
    def shape(self) -> torch.Size:
        return torch.Size((*self.base.shape, 1))

    @property
    def marginals(self) -> Distribution:
        """Each point on its own, as a torch distribution."""
        return _Marginals(self)

    def log_prob(self, y: Float[Tensor, "B M 1"], mask: Bool[Tensor, "B M"] | None = None) -> Float[Tensor, "B"]:
        """Joint log density over the real points, in nats."""
        require_shape(y, self.shape)
        if mask is not None:
            require_mask(mask, self.shape)
        return self.joint(y, mask)

    def marginal_log_prob(self, y: Float[Tensor, "B M 1"]) -> Float[Tensor, "B M"]:
        """Log density of each point on its own, in nats."""
        require_shape(y, self.shape)
        residual = y[..., 0] - self.base

        def log_density(leaves: Leaves, wave: Tensor, tasks: slice) -> Tensor:
            # A's posterior after y: its linear and quadratic coefficients grow by t r / v and t² / v
            scaled = wave / self.component_variance[tasks][..., None]
            linear = leaves.linear[:, None] + scaled * residual[tasks][..., None]
            after = log_integral(linear, leaves.precision[:, None] + scaled * wave, self.amplitude)
            before = log_integral(leaves.linear, leaves.precision, self.amplitude)
            return (after + (leaves.log_weights - before)[:, None]).logsumexp(-1)

        variance = self.component_variance
        return self._each(log_density) - 0.5 * (LOG_2PI + variance.log() + residual.square() / variance)

    def _moments(self) -> Tensor:
        """Mean and second moment of A t, `B M 2`."""

        def moments(leaves: Leaves, wave: Tensor, tasks: slice) -> Tensor:
            amplitude, weights = nodes(leaves.linear, leaves.precision, self.amplitude, 16)
            first, second = ((weights * amplitude**k).sum(-1) * leaves.log_weights.exp() for k in (1, 2))
            return torch.stack([wave @ first[..., None], wave.square() @ second[..., None]], -1)[..., 0, :]

        return self._each(moments)

    @property
    def mean(self) -> Float[Tensor, "B M 1"]:
        """Predictive mean, units of y."""
        return self.base[..., None] + self._moments()[..., :1]

    @property
    def variance(self) -> Float[Tensor, "B M 1"]:
        """Predictive variance, noise included."""
        first, second = self._moments().unbind(-1)
        return (self.component_variance + second - first.square())[..., None]

    def cdf(self, y: Float[Tensor, "B M 1"]) -> Float[Tensor, "B M 1"]:
        """P(Y <= y), by equal steps of A that start elsewhere in every leaf, so that together they are dense."""
        require_shape(y, self.shape)
        residual, precision = y[..., 0] - self.base, (0.5 / self.component_variance).sqrt()

        def probability(leaves: Leaves, wave: Tensor, tasks: slice) -> Tensor:
            amplitude, weights = steps(leaves.linear, leaves.precision, self.amplitude, 16)
            weights = weights * leaves.log_weights.exp()[..., None]
            scale = precision[tasks][..., None]
            moved = (wave * scale)[..., None] * amplitude[:, None]
            standard = ((residual[tasks][..., None] * scale)[..., None] - moved).erf_()
            return 0.5 + 0.5 * (standard.flatten(2) @ weights.flatten(1)[..., None])[..., 0]

        return self._each(probability, cost=16)[..., None]

    def _quantile(self, q: float) -> Tensor:
        """Newton's method on the distribution function, kept inside a shrinking bracket (Cantelli's to begin with)."""
        reach = (max(q, 1.0 - q) / min(q, 1.0 - q)) ** 0.5 + 1e-6
        y, deviation = self.mean, self.stddev
        lower, upper = y - reach * deviation, y + reach * deviation
        for _ in range(60):
            excess = self.cdf(y) - q
            lower, upper = torch.where(excess < 0.0, y, lower), torch.where(excess < 0.0, upper, y)
            step = y - excess / self.marginal_log_prob(y).exp()[..., None]
            new = torch.where((step > lower) & (step < upper), step, 0.5 * (lower + upper))
            converged = bool(((new - y).abs() <= 1e-7 * deviation).all())
            y = new
            if converged:
                break
        return y

    def rsample(
        self, sample_shape: tuple[int, ...] | int = (), generator: torch.Generator | None = None
    ) -> Float[Tensor, "*s B M 1"]:
        """Joint draws: a leaf for each task, then its amplitude, line and noise. No gradient flows to the weights."""
        sample_shape = draw_shape(sample_shape)
        count = int(np.prod(sample_shape, dtype=int))
        probs = self.leaves.log_weights.exp()
        chosen = torch.multinomial(probs, max(count, 1), replacement=True, generator=generator)[:, :count]
        linear, precision = (value.gather(1, chosen) for value in (self.leaves.linear, self.leaves.precision))
        centers, projections = (
            value.gather(1, chosen[..., None].expand(-1, -1, value.shape[-1]))
            for value in (self.leaves.centers, self.leaves.projections)
        )
        amplitude = sample(linear, precision, self.amplitude, generator)[..., None]
        normal = common_normals(projections.shape, self.base, generator)
        line = (normal - amplitude * projections) @ self.rows.mT
        wave = amplitude * self.wave(centers, slice(None))
        noise = common_normals(wave.shape, self.base, generator) * self.noise_variance**0.5
        draws = (self.base[:, None] + line + wave + noise).movedim(0, 1)
        return draws.reshape(*sample_shape, *self.base.shape, 1)


class _Marginals(PredictiveMarginals):
    """A `SinusoidPredictive` point by point."""

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.independent(constraints.real, 1)
