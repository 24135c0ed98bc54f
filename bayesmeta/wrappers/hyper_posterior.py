"""The whole of p(theta | tasks) in place of one theta: predictives averaged over meta-parameters.

With few tasks theta is uncertain, and a learner that is given its best theta alone is too sure: its intervals are too
narrow by what it does not know of the prior. With theta_s ~ p(theta | tasks), s = 1..S,

    p(y | x, D, tasks) = Σ_s w_s p(y | x, D, theta_s),   w_s ∝ p(D | theta_s)

as the new task's own points speak of theta, too. Learners without an evidence have equal weights.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.data import Data
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.learner import Learner, TaskPosterior
from bayesmeta.predictives import EnsemblePredictive
from bayesmeta.typing import Params


class HyperPosterior(Learner):
    """A learner whose theta is uncertain: S learners that differ in theta alone. Trained no more.

    `nuts_hyper_posterior`, `svgd_hyper_posterior` and `vi_hyper_posterior` make it.

    Args:
        members: the learner at each draw of theta; copied.

    Raises:
        DataError: no members, or ones of different classes.
    """

    def __init__(self, members: Sequence[Learner]) -> None:
        super().__init__()
        if not members or len({type(member) for member in members}) != 1:
            raise DataError(f"expected learners of one class, got {sorted({type(m).__name__ for m in members})}")
        self.members = nn.ModuleList(copy.deepcopy(member).requires_grad_(False) for member in members)
        first = members[0]
        self.x_shape, self.outcomes, self.exchangeable = first.x_shape, first.outcomes, first.exchangeable

    @property
    def title(self) -> str:
        """HyperPosterior(...), with the learner's own title inside."""
        return f"HyperPosterior({self.learners[0].title})"

    @property
    def learners(self) -> list[Learner]:
        """The learner at each draw of theta."""
        return [member for member in self.members if isinstance(member, Learner)]

    def prepare(self, tasks: Data) -> None:
        """As the learners do."""
        for learner in self.learners:
            learner.prepare(tasks)

    def configure_optimizer(self, lr: float = 1e-3) -> torch.optim.Optimizer:
        """Raises UnsupportedError: theta has been drawn."""
        raise UnsupportedError("expected a learner to train, got a HyperPosterior: its draws of theta are made at once")

    def evidence(self, data: Data) -> Float[Tensor, "B"]:
        """log of the mean over theta of p(D | theta), in nats. Raises UnsupportedError where the learners have none."""
        each = torch.stack([learner.evidence(data) for learner in self.learners], -1)
        return each.logsumexp(-1) - math.log(len(self.members))

    def conform(self, data: Data) -> Data:
        """As the learners do."""
        return self.learners[0].conform(data)

    @override
    def placement(self) -> tuple[torch.dtype | None, torch.device | None]:
        return self.learners[0].placement()

    @override
    def condition(self, support: Data) -> "HyperPosteriorBelief":
        posteriors = tuple(learner.condition(support) for learner in self.learners)
        return self._weighted(support, posteriors)

    def _weighted(self, support: Data, posteriors: tuple[TaskPosterior, ...]) -> "HyperPosteriorBelief":
        try:
            log_weights = torch.stack([learner.evidence(support) for learner in self.learners], -1)
        except UnsupportedError:
            log_weights = support.x.new_zeros(support.num_tasks, len(posteriors))
        return HyperPosteriorBelief(
            spec=support.spec,
            learner=self,
            support=support,
            posteriors=posteriors,
            log_weights=log_weights.log_softmax(-1),
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class HyperPosteriorBelief(TaskPosterior):
    """A task's posterior at each draw of theta, and what the task's points say of these.

    Attributes:
        learner: the draws of theta.
        support: all points seen.
        posteriors: at each draw of theta.
        log_weights: log w_s of each task, normalised.
    """

    learner: HyperPosterior
    support: Data
    posteriors: tuple[TaskPosterior, ...]
    log_weights: Float[Tensor, "B S"]

    def sample(self, num_draws: int, generator: torch.Generator | None = None) -> Params:
        """Draws of phi, theta drawn too: each value `S B *shape`."""
        weights = self.log_weights.exp()
        chosen = torch.multinomial(weights, num_draws, replacement=True, generator=generator)  # B S
        each = [posterior.sample(num_draws, generator) for posterior in self.posteriors]
        draw, task = torch.arange(num_draws, device=weights.device), torch.arange(len(weights), device=weights.device)
        return {name: torch.stack([draws[name] for draws in each])[chosen.mT, draw[:, None], task] for name in each[0]}

    @override
    def at(self, x: Float[Tensor, "B M *x"]) -> EnsemblePredictive:
        return EnsemblePredictive(self.log_weights, tuple(posterior.at(x) for posterior in self.posteriors))

    @override
    def extended(self, data: Data) -> "HyperPosteriorBelief":
        posteriors = tuple(posterior.extended(data) for posterior in self.posteriors)
        return self.learner._weighted(self.support.append(data), posteriors)
