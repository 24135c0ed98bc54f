"""The gold standard: p(phi | D, theta) of any explicit learner by the no-U-turn sampler.

    phi         the learner's
    prior       the learner's
    likelihood  the learner's
    inference   NUTS, many chains of all tasks at once (`inference/nuts.py`), in float64

Slow, and right up to Monte Carlo error: what the learner's own approximation is judged by.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from bayesmeta.data import Data, DataSpec
from bayesmeta.errors import UnsupportedError
from bayesmeta.inference.nuts import NUTS, Chains
from bayesmeta.learner import ExplicitLearner, Learner, TaskPosterior
from bayesmeta.predictives import IndependentPredictive, MixturePredictive
from bayesmeta.typing import Params


@dataclass(frozen=True, eq=False, kw_only=True)
class DrawsPosterior(TaskPosterior):
    """phi | D held as draws, all of one weight. Its predictive is the mixture of the likelihoods at them.

    Attributes:
        learner: theta, the prior and the likelihood.
        support: all points seen.
        draws: each value `S B *shape`.
        again: draws anew, for more points: what `update` calls.
        chains: the chains that the draws are of, with their diagnostics, where there were chains.
    """

    learner: ExplicitLearner
    support: Data
    draws: Params
    again: Callable[[Data], "DrawsPosterior"]
    chains: Chains | None = None

    @property
    def mean(self) -> Params:
        """The mean of the draws: each value `B *shape`."""
        return {name: value.mean(0) for name, value in self.draws.items()}

    def sample(self, num_draws: int, generator: torch.Generator | None = None) -> Params:
        """Draws of phi, each value `S B *shape`: of those held, without repeating one before all have been used.

        One place in the order for all names and tasks.
        """
        first = next(iter(self.draws.values()))
        rounds = -(-num_draws // len(first))
        orders = [torch.randperm(len(first), device=first.device, generator=generator) for _ in range(rounds)]
        chosen = torch.cat(orders)[:num_draws] if orders else torch.zeros(0, dtype=torch.long, device=first.device)
        return {name: value[chosen] for name, value in self.draws.items()}

    @override
    def at(self, x: Float[Tensor, "B M *x"]) -> MixturePredictive:
        first = next(iter(self.draws.values()))
        f = self.learner.forward(self.draws, x.to(first.dtype)).transpose(0, 1)  # B S M K
        components = IndependentPredictive(self.learner.likelihood(f.flatten(0, 1)))
        return MixturePredictive(f.new_zeros(f.shape[:2]), components)

    @override
    def extended(self, data: Data) -> "DrawsPosterior":
        return self.again(self.support.append(data))


class Sampled(Learner):
    """An explicit learner whose posterior is sampled. Its theta is as it was, and no longer trained.

    Args:
        learner: prior, likelihood and network.
        sampler: chains, draws, warm-up.
        seed: of the randomness: adapting twice to the same data gives the same draws.

    Raises:
        UnsupportedError: the learner has no explicit prior and likelihood.
    """

    def __init__(self, learner: Learner, sampler: NUTS | None = None, seed: int = 0) -> None:
        super().__init__()
        if not isinstance(learner, ExplicitLearner):
            raise UnsupportedError(
                f"expected a learner with an explicit prior and likelihood, got {type(learner).__name__}: "
                "there is no density of phi to sample from"
            )
        self.learner: ExplicitLearner = copy.deepcopy(learner).requires_grad_(False)
        self.sampler, self.seed = NUTS() if sampler is None else sampler, seed
        self.x_shape, self.outcomes = learner.x_shape, learner.outcomes

    @property
    def title(self) -> str:
        """Sampled(...), with the learner's own title inside."""
        return f"Sampled({self.learner.title})"

    def configure_optimizer(self, lr: float = 1e-3) -> torch.optim.Optimizer:
        """Raises UnsupportedError: draws have no gradient in theta."""
        raise UnsupportedError("expected a learner to train, got a Sampled one: train the learner in it first")

    def prepare(self, tasks: Data) -> None:
        """As the learner does."""
        self.learner.prepare(tasks)

    def conform(self, data: Data) -> Data:
        """As the learner does."""
        return self.learner.conform(data)

    @override
    def condition(self, support: Data) -> DrawsPosterior:
        learner = copy.deepcopy(self.learner).double()
        support = support.to(torch.float64)
        return _sampled(learner, learner.conform(support), self.sampler, self.seed, support.spec)


def _sampled(learner: ExplicitLearner, support: Data, sampler: NUTS, seed: int, spec: DataSpec) -> DrawsPosterior:
    generator = torch.Generator(support.x.device).manual_seed(seed)
    start = learner.prior.sample(sampler.num_chains * support.num_tasks, generator)
    start = {name: value.unflatten(0, (sampler.num_chains, support.num_tasks)) for name, value in start.items()}
    chains = sampler.chains(learner.log_joint(support), start, generator)
    return DrawsPosterior(
        spec=spec,
        learner=learner,
        support=support,
        draws=chains.merged,
        again=lambda data: _sampled(learner, data, sampler, seed, spec),
        chains=chains,
    )
