"""The exact posterior of step functions with random switch points, by the forward-backward algorithm along x.

The number c(x) of switch points below x only grows. Given c(x) = c the other J - c switches are uniform above x, so c
is a Markov chain along sorted points; with F the prior distribution function of a switch,

    c(x') - c(x) ~ Binomial(J - c, p),   p = (F(x') - F(x)) / (1 - F(x)),   y ~ N(±1 by the parity of c(x), σ²).
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal
from typing_extensions import override

from bayesmeta.arguments import draw_shape
from bayesmeta.data import Data
from bayesmeta.distributions import common_normals
from bayesmeta.errors import DataError
from bayesmeta.outcomes import Numbers
from bayesmeta.predictives.predictive import LOG_2PI, Predictive, require_mask, require_shape
from bayesmeta.tasks.oracles.oracle import Oracle, OraclePosterior


class StepOracle(Oracle):
    """Bayes-optimal prediction of f(x) = -1 or 1, which changes sign at J independent uniform switch points.

    Args:
        switches: (low, high) of the switch points.
        num_switches: J; f is -1 to the left of all of them.
        noise_variance: σ², squared units of y, positive.

    Raises:
        DataError: noise that is not positive.
    """

    x_shape = (1,)
    outcomes = Numbers(1)

    def __init__(self, switches: tuple[float, float], num_switches: int, noise_variance: float) -> None:
        super().__init__()
        if not noise_variance > 0.0:
            raise DataError(f"expected a positive noise variance, got {noise_variance}")
        self.switches, self.num_switches, self.noise_variance = switches, num_switches, noise_variance
        states = range(num_switches + 1)
        self.levels = torch.tensor([2.0 * (c % 2) - 1.0 for c in states], dtype=torch.float64)
        rows = [[math.comb(num_switches - c, d - c) if d >= c else 0 for d in states] for c in states]
        self.choices = torch.tensor(rows, dtype=torch.float64)
        self.jumps = torch.tensor([[max(d - c, 0) for d in states] for c in states])
        self.stays = torch.tensor([[num_switches - d for d in states] for c in states])

    def transition(self, start: Float[Tensor, "*b"], end: Float[Tensor, "*b"]) -> Float[Tensor, "*b K K"]:
        """p(c' | c) between two places, given as values of F."""
        p = ((end - start) / (1.0 - start).clamp(min=1e-300)).clamp(0.0, 1.0)[..., None, None]
        return self.choices * p**self.jumps * (1.0 - p) ** self.stays

    def place(self, x: Tensor) -> Tensor:
        """F, the prior distribution function of a switch point."""
        low, high = self.switches
        return ((x - low) / (high - low)).clamp(0.0, 1.0)

    def filter(self, data: Data, observed: Tensor) -> "_Chain":
        """Forward messages along sorted points; those that are not `observed` do not weigh."""
        order = torch.where(data.mask, data.x[..., 0], math.inf).argsort(-1)  # padding comes last, at F = 1
        x = torch.where(data.mask, data.x[..., 0], math.inf).gather(1, order)
        log_like = -0.5 * (
            (data.y - self.levels).square() / self.noise_variance + LOG_2PI + math.log(self.noise_variance)
        )
        like = torch.where(observed[..., None], log_like, 0.0).gather(
            1, order[..., None].expand(-1, -1, len(self.levels))
        )
        place = torch.cat([x.new_zeros(len(x), 1), self.place(x)], 1)
        state = torch.zeros(len(x), len(self.levels), dtype=torch.float64)
        state[:, 0] = 1.0
        forward, evidence = [state], torch.zeros(len(x), dtype=torch.float64)
        steps = self.transition(place[:, :-1], place[:, 1:])
        for n in range(x.shape[1]):
            joint = (forward[-1][:, None] @ steps[:, n])[:, 0].log() + like[:, n]
            evidence = evidence + joint.logsumexp(-1)
            forward.append(joint.softmax(-1))
        return _Chain(x, place, torch.stack(forward, 1), steps, like, order, evidence)

    def condition(self, data: Data) -> "StepPosterior":
        """Forward and backward messages."""
        chain = self.filter(data, data.mask)
        message = torch.ones_like(chain.forward[:, 0])
        backward = [message]
        for n in reversed(range(data.num_points)):
            weighted = chain.like[:, n].softmax(-1) * message
            backward.append(weighted / weighted.sum(-1, keepdim=True))
            message = (chain.steps[:, n] @ backward[-1][..., None])[..., 0]
        behind = torch.stack(backward[::-1], 1)
        return StepPosterior(spec=data.spec, learner=self, support=data, chain=chain, backward=behind)

    def evidence(self, data: Data) -> Float[Tensor, "B"]:
        """log p(y | x), jointly over the real points of each task, in nats."""
        return self.filter(data, data.mask).evidence


class _Chain(NamedTuple):
    x: Tensor  # sorted, B N
    place: Tensor  # F of the start (0) and of every point, B N+1
    forward: Tensor  # p(c | this point and those before it), B N+1 K
    steps: Tensor  # p(c' | c) to each point, B N K K
    like: Tensor  # log p(y | c), B N K
    order: Tensor  # which point comes where, B N
    evidence: Tensor  # B


@dataclass(frozen=True, eq=False, kw_only=True)
class StepPosterior(OraclePosterior):
    """p(c(x) | D) everywhere.

    Attributes:
        chain: forward messages.
        backward: p(points n.. | c at point n) up to a factor, `B N+1 K`; the last is for the far right.
    """

    learner: StepOracle
    chain: _Chain
    backward: Float[Tensor, "B N K"]

    @override
    def at(self, x: Float[Tensor, "B M 1"]) -> "StepPredictive":
        points = x[..., 0].double()
        left = torch.searchsorted(self.chain.x.contiguous(), points.contiguous())
        place, ends = (
            self.learner.place(points),
            torch.cat([self.chain.place[:, 1:], torch.ones(len(x), 1).double()], 1),
        )
        rows = torch.arange(len(x))[:, None]
        before = self.chain.forward[rows, left][..., None, :]
        before = (before @ self.learner.transition(self.chain.place[rows, left], place))[..., 0, :]
        after = self.learner.transition(place, ends[rows, left]) @ self.backward[rows, left][..., None]
        state = before * after[..., 0]
        state = state / state.sum(-1, keepdim=True)
        up = (state * (self.learner.levels > 0.0)).sum(-1)
        return StepPredictive(self, x.double(), up)


@dataclass(frozen=True, eq=False)
class StepPredictive(Predictive):
    """(1 - p) N(-1, σ²) + p N(1, σ²) at each point; jointly, a path of the chain.

    Attributes:
        posterior: the belief.
        x: query points, `B M 1`.
        up: p = P(f(x) = 1), `B M`.
    """

    posterior: StepPosterior
    x: Float[Tensor, "B M 1"]
    up: Float[Tensor, "B M"]

    @property
    def marginals(self) -> Distribution:
        """Two Gaussians at each point."""
        probs = torch.stack([1.0 - self.up, self.up], -1)
        levels = torch.tensor([[-1.0], [1.0]], dtype=torch.float64).expand(*self.up.shape, 2, 1)
        scale = torch.full_like(levels, self.posterior.learner.noise_variance**0.5)
        components = Independent(Normal(levels, scale, validate_args=False), 1)
        return MixtureSameFamily(Categorical(probs=probs, validate_args=False), components, validate_args=False)

    def log_prob(self, y: Float[Tensor, "B M 1"], mask: Bool[Tensor, "B M"] | None = None) -> Float[Tensor, "B"]:
        """Joint log density over the real points, in nats."""
        require_shape(y, self.shape)
        if mask is not None:
            require_mask(mask, self.shape)
        return self.posterior.log_conditional(self.x, y, mask)

    def rsample(
        self, sample_shape: tuple[int, ...] | int = (), generator: torch.Generator | None = None
    ) -> Float[Tensor, "*s B M 1"]:
        """Joint draws, by sampling a path of the chain backwards. There is no gradient: f is -1 or 1."""
        sample_shape = draw_shape(sample_shape)
        data, model = self.posterior.support, self.posterior.learner
        query = Data.full(self.x, torch.zeros_like(self.x))
        chain = model.filter(data.append(query), torch.cat([data.mask, ~query.mask], 1))
        count = int(np.prod(sample_shape, dtype=int))
        weights = chain.forward[:, -1, None].expand(-1, max(count, 1), -1)  # B S K
        path = []
        for n in reversed(range(chain.x.shape[1])):
            state = torch.multinomial(weights.flatten(0, 1), 1, generator=generator).unflatten(0, weights.shape[:2])
            path.append(state[..., 0])
            arriving = chain.steps[:, n].mT.gather(1, state.expand(-1, -1, len(model.levels)))  # p(c' | c), over c
            weights = chain.forward[:, n, None] * arriving
        states = torch.stack(path[::-1], -1)  # B S N+M, along sorted x
        places = chain.order.argsort(-1)[:, None, data.num_points :].expand(-1, states.shape[1], -1)
        f = model.levels[states.gather(-1, places)]
        draws = f + common_normals(f.shape, f, generator) * model.noise_variance**0.5
        return draws[:, :count].movedim(0, 1).reshape(*sample_shape, *self.x.shape)
