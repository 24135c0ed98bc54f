"""The whole of p(theta | tasks) in place of one theta: predictives averaged over meta-parameters.

With few tasks theta is uncertain, and a learner that is given its best theta alone is too sure: its intervals are too
narrow by what it does not know of the prior. With theta_s ~ p(theta | tasks), s = 1..S,

    p(y | x, D, tasks) = Σ_s w_s p(y | x, D, theta_s),   w_s ∝ p(D | theta_s)

as the new task's own points speak of theta, too. Learners without an evidence have equal weights.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.arguments import whole
from bayesmeta.data import Data
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.learner import Learner, TaskPosterior
from bayesmeta.predictives import EnsemblePredictive
from bayesmeta.typing import Params
from bayesmeta.wrappers.base import Untrainable


class HyperPosterior(Untrainable):
    """A learner whose theta is uncertain: S learners that differ in theta alone, of which it is the average.

    `nuts_hyper_posterior`, `svgd_hyper_posterior` and `vi_hyper_posterior` draw theta from p(theta | tasks) and make
    it. With few tasks its predictions are wider, and rightly so, than those of the best theta alone.

    Args:
        members: the learner at each draw of theta; frozen copies are kept.

    Attributes:
        learner: the first member, which answers for what all have in common.
        others: the other members.

    Raises:
        DataError: no members, or ones of different classes.

    Example:
        >>> import bayesmeta as bm
        >>> members = [bm.ALPaCA(bm.Identity(1)) for _ in range(3)]
        >>> for location, member in enumerate(members):
        ...     _ = torch.nn.init.constant_(member.prior.location, location)
        >>> learner = HyperPosterior(members)
        >>> learner.title
        'HyperPosterior(ALPaCA)'
        >>> round(learner.adapt(bm.Data.from_arrays([], [])).predict([0.0]).mean.item(), 3)
        1.0
    """

    def __init__(self, members: Sequence[Learner]) -> None:
        if not members or len({type(member) for member in members}) != 1:
            raise DataError(f"expected learners of one class, got {sorted({type(m).__name__ for m in members})}")
        first, *others = (member.frozen() for member in members)
        super().__init__(first)
        self.others = nn.ModuleList(others)

    @property
    def learners(self) -> list[Learner]:
        """The learner at each draw of theta."""
        return [self.learner, *(member for member in self.others if isinstance(member, Learner))]

    @override
    def prepare(self, tasks: Data) -> None:
        for learner in self.learners:
            learner.prepare(tasks)

    @override
    def evidence(self, data: Data) -> Float[Tensor, "B"]:
        """log of the mean over theta of p(D | theta), in nats. Raises UnsupportedError where the learners have none."""
        return self.evidences(data).logsumexp(-1) - math.log(len(self.learners))

    @override
    def joint_evidence(self, *data: Data) -> Float[Tensor, ""]:
        """log of the mean over theta of p(all tasks | theta), in nats."""
        each = torch.stack([learner.joint_evidence(*data) for learner in self.learners])
        return each.logsumexp(-1) - math.log(len(self.learners))

    def evidences(self, data: Data) -> Float[Tensor, "B S"]:
        """log p(D | theta) at each draw of theta, in nats.

        Args:
            data: points of the tasks, as the learners have them (`conform`).

        Raises:
            UnsupportedError: the learners have no evidence.
        """
        return torch.stack([learner.evidence(data) for learner in self.learners], -1)

    @override
    def condition(self, support: Data) -> "HyperPosteriorBelief":
        posteriors = tuple(learner.condition(support) for learner in self.learners)
        return HyperPosteriorBelief.weighted(self, support, posteriors)


@dataclass(frozen=True, eq=False, kw_only=True)
class HyperPosteriorBelief(TaskPosterior):
    """A task's posterior at each draw of theta, and what the task's points say of these: what `HyperPosterior` gives.

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

    @classmethod
    def weighted(
        cls, learner: HyperPosterior, support: Data, posteriors: tuple[TaskPosterior, ...]
    ) -> "HyperPosteriorBelief":
        """Weights by the evidence of the support, or equal ones where the learners have no evidence.

        Args:
            learner: the draws of theta.
            support: all points seen.
            posteriors: at each draw of theta.
        """
        try:
            log_weights = learner.evidences(support).log_softmax(-1)
        except UnsupportedError:
            log_weights = support.x.new_full((support.num_tasks, len(posteriors)), -math.log(len(posteriors)))
        return cls(spec=support.spec, learner=learner, support=support, posteriors=posteriors, log_weights=log_weights)

    @property
    @override
    def points_seen(self) -> Int[Tensor, "B"]:
        return self.support.counts

    def sample(self, num_draws: int, generator: torch.Generator | None = None) -> Params:
        """Draws of phi, theta drawn too: each value `S B *shape`."""
        num_draws = whole(num_draws, "num_draws")
        weights = self.log_weights.exp()
        # B S; torch's multinomial refuses to draw nothing
        chosen = torch.multinomial(weights, max(num_draws, 1), replacement=True, generator=generator)[:, :num_draws]
        each = [posterior.sample(num_draws, generator) for posterior in self.posteriors]
        draw, task = torch.arange(num_draws, device=weights.device), torch.arange(len(weights), device=weights.device)
        return {name: torch.stack([draws[name] for draws in each])[chosen.mT, draw[:, None], task] for name in each[0]}

    @override
    def at(self, x: Float[Tensor, "B M *x"]) -> EnsemblePredictive:
        return EnsemblePredictive(self.log_weights, tuple(posterior.at(x) for posterior in self.posteriors))

    @override
    def selected(self, tasks: Int[Tensor, "K"]) -> "HyperPosteriorBelief":
        return replace(
            self,
            spec=self.spec.of_tasks(len(tasks)),
            support=self.support.select(tasks),
            posteriors=tuple(posterior.selected(tasks) for posterior in self.posteriors),
            log_weights=self.log_weights[tasks],
        )

    @override
    def extended(self, data: Data) -> "HyperPosteriorBelief":
        posteriors = tuple(posterior.extended(data) for posterior in self.posteriors)
        return HyperPosteriorBelief.weighted(self.learner, self.support.append(data), posteriors)
