"""The gold standard: p(phi | D, theta) of any explicit learner by the no-U-turn sampler.

    phi         the learner's
    prior       the learner's
    likelihood  the learner's
    inference   NUTS, many chains of all tasks at once (`inference/nuts.py`), in float64

Slow, and right up to Monte Carlo error: what the learner's own approximation is judged by.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from typing_extensions import override

from bayesmeta.arguments import generator_of, seed_of, whole
from bayesmeta.data import Data, DataSpec
from bayesmeta.errors import UnsupportedError
from bayesmeta.inference.chains import Chains
from bayesmeta.inference.nuts import NUTS
from bayesmeta.learner import ExplicitLearner, Learner, TaskPosterior
from bayesmeta.networks.network import Network
from bayesmeta.predictives import IndependentPredictive, MixturePredictive
from bayesmeta.snapshot import snapshot
from bayesmeta.summaries import Coefficients, Columns
from bayesmeta.typing import Params
from bayesmeta.wrappers.base import Untrainable


@dataclass(frozen=True, eq=False, kw_only=True)
class DrawsPosterior(TaskPosterior):
    """phi | D held as draws, all of one weight. Its predictive is the mixture of the likelihoods at them.

    A subclass gives `extended`: how to draw anew, for more points. `Sampled` and the functions of `interop.pyro` give
    such posteriors.

    Attributes:
        learner: theta, the prior and the likelihood.
        support: all points seen.
        draws: each value `S B *shape`.

    Example:
        >>> import bayesmeta as bm
        >>> class ExactDraws(bm.wrappers.DrawsPosterior):  # of a learner that has its posterior in closed form
        ...     @classmethod
        ...     def of(cls, learner, support):
        ...         draws = learner.condition(support).sample(500, torch.Generator().manual_seed(0))
        ...         return cls(spec=support.spec, learner=learner, support=support, draws=draws)
        ...     def extended(self, data):
        ...         return self.of(self.learner, self.support.append(data))
        >>> learner, support = bm.ALPaCA(bm.Identity(1)), bm.Data.from_arrays([0.0, 1.0], [0.3, 0.7])
        >>> with torch.no_grad():
        ...     posterior = ExactDraws.of(learner, learner.conform(support))
        ...     difference = posterior.predict([2.0]).mean - learner.adapt(support).predict([2.0]).mean
        >>> posterior.draws["weight"].shape, bool(difference.abs().max() < 0.3)
        (torch.Size([500, 1, 2, 1]), True)
    """

    learner: ExplicitLearner
    support: Data
    draws: Params

    @property
    @override
    def points_seen(self) -> Int[Tensor, "B"]:
        return self.support.counts

    @property
    @override
    def known_noise(self) -> bool:
        return self.learner.known_noise

    @override
    def coefficients(self, columns: Columns) -> Coefficients | None:
        features, weight = getattr(self.learner, "features", None), self.draws.get("weight")
        if isinstance(features, Network) and weight is not None and weight.ndim == 4:
            return Coefficients.of_weights(weight, features, columns)
        return super().coefficients(columns)

    @property
    def mean(self) -> Params:
        """The mean of the draws: each value `B *shape`."""
        return {name: value.mean(0) for name, value in self.draws.items()}

    def sample(self, num_draws: int, generator: torch.Generator | None = None) -> Params:
        """Draws of phi, each value `S B *shape`: of those held, without repeating one before all have been used.

        One place in the order for all names and tasks.

        Args:
            num_draws: S, any number.
            generator: of the order; the global one when None.
        """
        num_draws = whole(num_draws, "num_draws")
        first = next(iter(self.draws.values()))
        rounds = -(-num_draws // len(first))
        orders = [torch.randperm(len(first), device=first.device, generator=generator) for _ in range(rounds)]
        chosen = torch.cat(orders)[:num_draws] if orders else torch.zeros(0, dtype=torch.long, device=first.device)
        return {name: value[chosen] for name, value in self.draws.items()}

    @override
    def selected(self, tasks: Int[Tensor, "K"]) -> "DrawsPosterior":
        draws = {name: value[:, tasks] for name, value in self.draws.items()}
        return replace(self, spec=self.spec.of_tasks(len(tasks)), support=self.support.select(tasks), draws=draws)

    @override
    def at(self, x: Float[Tensor, "B M *x"]) -> MixturePredictive:
        first = next(iter(self.draws.values()))
        f = self.learner.forward(self.draws, x.to(first.dtype)).transpose(0, 1)  # B S M K
        inputs = x.to(first.dtype).repeat_interleave(f.shape[1], 0)
        components = IndependentPredictive(self.learner.likelihood.at_inputs(f.flatten(0, 1), inputs))
        return MixturePredictive(f.new_zeros(f.shape[:2]), components)


@dataclass(frozen=True, eq=False, kw_only=True)
class ChainsPosterior(DrawsPosterior):
    """Draws of Markov chains, with the chains that they are of.

    Attributes:
        chains: the chains that the draws are of, with their diagnostics.
        sampler: how they were run.
        seed: of the randomness.
    """

    chains: Chains
    sampler: NUTS
    seed: int

    @override
    def selected(self, tasks: Int[Tensor, "K"]) -> "ChainsPosterior":
        draws = {name: value[:, tasks] for name, value in self.draws.items()}
        spec, support, chains = self.spec.of_tasks(len(tasks)), self.support.select(tasks), self.chains.select(tasks)
        return replace(self, spec=spec, support=support, draws=draws, chains=chains)


@dataclass(frozen=True, eq=False, kw_only=True)
class SampledPosterior(ChainsPosterior):
    """What `Sampled` adapts to: more points mean chains that begin at the prior again, on all of them."""

    @override
    def extended(self, data: Data) -> "SampledPosterior":
        support = self.learner.conform(self.support.append(data))
        return _sampled(self.learner, support, self.sampler, self.seed, self.spec)


class Sampled(Untrainable):
    """An explicit learner whose posterior is sampled by NUTS. Its theta is a frozen copy of the learner's.

    What the learner's own approximation is judged by, as in `checks.fidelity`; no approximation but that of its draws.

    Args:
        learner: prior, likelihood and network.
        sampler: chains, draws, warm-up; `NUTS()` by default.
        seed: of the randomness: adapting twice to the same data gives the same draws.

    Raises:
        UnsupportedError: the learner has no explicit prior and likelihood.

    Example:
        >>> import bayesmeta as bm
        >>> learner, support = bm.ALPaCA(bm.Polynomial(1, 0)), bm.Data.from_arrays([1.0, 2.0], [1.0, 2.0])
        >>> exact, drawn = learner.adapt(support), Sampled(learner, bm.inference.NUTS(32, 20, 30)).adapt(support)
        >>> drawn.draws["weight"].shape, bool((drawn.mean["weight"] - exact.mean["weight"]).abs().max() < 0.2)
        (torch.Size([640, 1, 1, 1]), True)
    """

    learner: ExplicitLearner

    def __init__(self, learner: Learner, sampler: NUTS | None = None, seed: int = 0) -> None:
        if not isinstance(learner, ExplicitLearner):
            raise UnsupportedError(
                f"expected a learner with an explicit prior and likelihood, got {type(learner).__name__}: "
                "there is no density of phi to sample from"
            )
        super().__init__(snapshot(learner))
        self.sampler, self.seed = NUTS() if sampler is None else sampler, seed_of(seed)

    @override
    def condition(self, support: Data) -> SampledPosterior:
        learner = snapshot(self.learner).double()
        return _sampled(learner, support.to(torch.float64), self.sampler, self.seed, support.spec)


def _sampled(learner: ExplicitLearner, support: Data, sampler: NUTS, seed: int, spec: DataSpec) -> SampledPosterior:
    generator = generator_of(seed, support.x.device)
    start = learner.prior.sample(sampler.num_chains * support.num_tasks, generator)
    start = {name: value.unflatten(0, (sampler.num_chains, support.num_tasks)) for name, value in start.items()}
    chains = sampler.chains(learner.joint(support), start, generator)
    return SampledPosterior(
        spec=spec, learner=learner, support=support, draws=chains.merged, chains=chains, sampler=sampler, seed=seed
    )
