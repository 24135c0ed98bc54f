"""The whole of p(theta | tasks) in place of one theta: predictives averaged over meta-parameters.

With few tasks theta is uncertain, and a learner that is given its best theta alone is too sure: its intervals are too
narrow by what it does not know of the prior. With theta_s ~ p(theta | tasks), s = 1..S,

    p(y | x, D, tasks) = Σ_s w_s p(y | x, D, theta_s),   w_s ∝ p(D | theta_s)

as the new task's own points speak of theta, too. Learners without an evidence have equal weights.

Where theta can be mapped over (`torch.vmap`: ALPaCA, processes, whatever decides nothing by values) all S members are
computed in one pass, and a prediction costs one batch of S. Others are asked one after another.

    phi         the learner's, and theta
    prior       the learner's given theta, and p(theta | tasks)
    likelihood  the learner's
    inference   the learner's under each theta_s, weighted by the evidence
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributions import Independent
from torch.func import vmap
from typing_extensions import override

from bayesmeta.arguments import whole
from bayesmeta.data import Data
from bayesmeta.description import describe
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.learner import Learner, TaskPosterior
from bayesmeta.one_line import several
from bayesmeta.predictives import EnsemblePredictive, IndependentPredictive, MixturePredictive, Predictive
from bayesmeta.predictives.predictive import require_mask, require_shape
from bayesmeta.snapshot import own_tree
from bayesmeta.summaries import Coefficients, Columns, MixedModelSummary, Summary
from bayesmeta.swapped import swapped
from bayesmeta.typing import Params
from bayesmeta.wrappers.base import Untrainable

MOST_ENTRIES = 2**17  # of matrices between points that are held at once: larger ones leave the cache


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
        self._differ_in_theta_alone = all(_alike(first, other) for other in others)

    @property
    def learners(self) -> list[Learner]:
        """The learner at each draw of theta."""
        return [self.learner, *(member for member in self.others if isinstance(member, Learner))]

    @override
    def prepare(self, tasks: Data) -> None:
        for learner in self.learners:
            learner.prepare(tasks)

    @override
    def described(self, columns: Columns, *data: Data) -> Summary:
        members = [learner.described(columns, *data) for learner in self.learners]
        mixed = [each for each in members if isinstance(each, MixedModelSummary)]
        title = f"Average over {several(len(members), 'draw')} of theta of {members[0].title}"
        if len(mixed) == len(members):
            return MixedModelSummary.average(mixed, title)
        first = members[0].titled(title).more(f"averaged over {several(len(members), 'draw')} of theta")
        return first.with_notes("The numbers are those of the first draw of theta.")

    @override
    def noise_stddev(self) -> Float[Tensor, "C"] | None:
        each = [learner.noise_stddev() for learner in self.learners]
        known = [noise for noise in each if noise is not None]
        return torch.stack(known).square().mean(0).sqrt() if known else None

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
        found = self._mapped_evidences(data)
        return torch.stack([learner.evidence(data) for learner in self.learners], -1) if found is None else found

    @override
    def condition(self, support: Data) -> "HyperPosteriorBelief | MappedBelief":
        log_evidences = self._mapped_evidences(support)
        if log_evidences is None:
            return self.one_by_one(support)
        return MappedBelief(spec=support.spec, learner=self, support=support, log_weights=log_evidences.log_softmax(-1))

    def one_by_one(self, support: Data) -> "HyperPosteriorBelief":
        """The posterior of each member, computed one after another.

        Args:
            support: points of the tasks, as the learners have them (`conform`).
        """
        posteriors = tuple(learner.condition(support) for learner in self.learners)
        return HyperPosteriorBelief.weighted(self, support, posteriors)

    def mapped(self, function: Callable[[Learner], Any], entries: int) -> Any:
        """What a function gives for each member, in one pass: each tensor `S ..`.

        Args:
            function: learner -> tensors, of ordinary operations that decide nothing by values.
            entries: numbers that it holds for one member, about: so many members go at a time as memory allows.

        Raises:
            RuntimeError: torch cannot map over it.
        """
        if not self._differ_in_theta_alone:
            raise RuntimeError("expected learners that differ in theta alone")
        first, *others = [_tensors(learner) for learner in self.learners]
        names = [name for name, value in first.items() if not all(torch.equal(value, each[name]) for each in others)]
        stacked = {name: torch.stack([each[name] for each in (first, *others)]) for name in names}

        learner = own_tree(self.learner)

        def at(theta: Params) -> Any:
            with swapped(learner, {first[name]: value for name, value in theta.items()}):
                return function(learner)

        return vmap(at, chunk_size=max(1, MOST_ENTRIES // max(entries, 1)))(stacked)

    def _mapped_evidences(self, data: Data) -> Float[Tensor, "B S"] | None:
        """None where the members have to be asked one by one, which has the better errors, too."""
        if not self.others:
            return None
        try:
            found = self.mapped(lambda learner: learner.evidence(data), data.num_tasks * data.num_points**2)
        except (RuntimeError, UnsupportedError, ValueError):  # no rule, no evidence, nothing that differs
            return None
        return found.mT if bool(found.isfinite().all()) else None


def _tensors(learner: Learner) -> dict[str, Tensor]:
    return dict([*learner.named_parameters(), *learner.named_buffers()])


def _alike(one: Learner, other: Learner) -> bool:
    """Whether two learners differ in theta alone: each computes what the other does, with the other's theta."""
    shapes = [{name: value.shape for name, value in _tensors(learner).items()} for learner in (one, other)]
    if shapes[0] != shapes[1]:
        return False
    try:
        return describe(one) == describe(other)
    except UnsupportedError:  # it holds what cannot be described, such as a function
        return True


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

    @property
    @override
    def known_noise(self) -> bool:
        return self.learner.known_noise

    @override
    def coefficients(self, columns: Columns) -> Coefficients | None:
        """The mixture over theta."""
        each = [posterior.coefficients(columns) for posterior in self.posteriors]
        known = [found for found in each if found is not None]
        return Coefficients.mixture(known, self.log_weights.exp()) if len(known) == len(each) else None

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


@dataclass(frozen=True, eq=False, kw_only=True)
class MappedBelief(TaskPosterior):
    """What the task's points say of theta, where all members are computed in one pass when a prediction is asked for.

    Attributes:
        learner: the draws of theta.
        support: all points seen.
        log_weights: log w_s of each task, normalised.
    """

    learner: HyperPosterior
    support: Data
    log_weights: Float[Tensor, "B S"]

    @property
    @override
    def points_seen(self) -> Int[Tensor, "B"]:
        return self.support.counts

    @property
    def posteriors(self) -> tuple[TaskPosterior, ...]:
        """At each draw of theta, one after another."""
        return self.learner.one_by_one(self.support).posteriors

    @override
    def coefficients(self, columns: Columns) -> Coefficients | None:
        return self.learner.one_by_one(self.support).coefficients(columns)

    def sample(self, num_draws: int, generator: torch.Generator | None = None) -> Params:
        """Draws of phi, theta drawn too: each value `S B *shape`."""
        return self.learner.one_by_one(self.support).sample(num_draws, generator)

    @override
    def at(self, x: Float[Tensor, "B M *x"]) -> Predictive:
        try:
            return ThetaMixture.of(self, x, View())
        except (RuntimeError, UnsupportedError):
            return self.learner.one_by_one(self.support).at(x)

    @override
    def selected(self, tasks: Int[Tensor, "K"]) -> "MappedBelief":
        spec = self.spec.of_tasks(len(tasks))
        return replace(self, spec=spec, support=self.support.select(tasks), log_weights=self.log_weights[tasks])

    @override
    def extended(self, data: Data) -> "HyperPosteriorBelief | MappedBelief":
        return self.learner.condition(self.support.append(data))


@dataclass(frozen=True, eq=False)
class View:
    """What is made of each member's predictive, in this order: a value, which can be stored as a function cannot.

    Attributes:
        steps: known noise to be added, or None for what is without noise.
    """

    steps: tuple[Tensor | None, ...] = ()

    def __call__(self, predictive: Predictive) -> Predictive:
        """What is made of it."""
        for noise in self.steps:
            predictive = predictive.noiseless if noise is None else predictive.with_noise(noise)
        return predictive

    def then(self, noise: Tensor | None) -> "View":
        """With one step more."""
        return View((*self.steps, noise))


@dataclass(frozen=True, eq=False)
class ThetaMixture(MixturePredictive):
    """Σ_s w_s p(y | x, D, theta_s), the members computed in one pass: at single points here, jointly when asked for.

    Attributes:
        belief: of theta.
        x: where it predicts.
        view: what of each member's predictive.
    """

    belief: MappedBelief
    x: Float[Tensor, "B M *x"]
    view: View

    @classmethod
    def of(cls, belief: MappedBelief, x: Tensor, view: View) -> "ThetaMixture":
        """The predictive at these points. Arguments are the attributes.

        Raises:
            UnsupportedError: the members' marginals are no independent distributions of torch's.
            RuntimeError: torch cannot map over theta.
        """
        families: list[type] = []

        def parameters(learner: Learner) -> dict[str, Tensor]:
            marginals = view(learner.condition(belief.support).at(x)).marginals
            if not isinstance(marginals, Independent) or marginals.reinterpreted_batch_ndims != 1:
                raise UnsupportedError(f"expected independent outputs, got {type(marginals).__name__}")
            base = marginals.base_dist
            families.append(type(base))
            found = {name: getattr(base, name) for name in base.arg_constraints}
            return {name: value.expand(base.batch_shape) for name, value in found.items()}

        points = belief.support.num_points * (belief.support.num_points + x.shape[1])
        found = belief.learner.mapped(parameters, len(x) * points)
        if not all(bool(value.isfinite().all()) for value in found.values()):
            raise UnsupportedError("expected finite predictions")  # one by one they have errors of their own
        flat = {name: value.transpose(0, 1).flatten(0, 1) for name, value in found.items()}
        components = IndependentPredictive(Independent(families[0](**flat, validate_args=False), 1))
        return cls(belief.log_weights, components, belief, x, view)

    @override
    def log_prob(self, y: Tensor, mask: Tensor | None = None) -> Float[Tensor, "B"]:
        """log Σ_s w_s p_s(y_1..y_M), in nats: points share theta."""
        require_shape(y, self.shape)
        if mask is not None:
            require_mask(mask, self.shape)
        belief = self.belief

        def joint(learner: Learner) -> Tensor:
            return self.view(learner.condition(belief.support).at(self.x)).log_prob(y, mask)

        points = belief.support.num_points + self.x.shape[1]
        try:
            each = belief.learner.mapped(joint, len(self.x) * points**2).mT
        except RuntimeError:  # at single points torch maps, but not jointly
            each = torch.stack([joint(learner) for learner in belief.learner.learners], -1)
        return (self.log_weights + each).logsumexp(-1)

    @override
    def draws_of_components(self, count: int, generator: torch.Generator | None) -> Tensor:
        each = [self.view(posterior.at(self.x)).rsample((count,), generator) for posterior in self.belief.posteriors]
        return torch.stack(each, 2)

    @override
    def with_noise(self, noise: Float[Tensor, "B M C"]) -> Predictive:
        return ThetaMixture.of(self.belief, self.x, self.view.then(noise))

    @property
    def noiseless(self) -> Predictive:
        """The predictive of f."""
        return ThetaMixture.of(self.belief, self.x, self.view.then(None))
