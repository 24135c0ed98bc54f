"""A learner for each of several outcomes, so that each learns from every point where it was measured.

    p(y_1, ..., y_C | x, D, theta) = Π_c p_c(y_c | x, D_c, theta_c),   D_c the points that have the outcome c

Outcomes are independent given theta and x: what one of them says of the others is not used. In return a point that
lacks some of its outcomes (`Data.known`) is not lost to the others.

    phi         of each learner, its own
    prior       of each learner, its own: outcomes are independent
    likelihood  of each learner, its own
    inference   of each learner, its own, on the points that have its outcome
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.data import Data, TaskBatch
from bayesmeta.errors import DataError
from bayesmeta.learner import Learner, TaskPosterior
from bayesmeta.one_line import several
from bayesmeta.outcomes import Numbers
from bayesmeta.predictives import Predictive, SideBySidePredictive
from bayesmeta.summaries import Coefficients, Columns, SeveralSummary, plain


class Separately(Learner):
    """A learner for each of several outcomes, which are independent given theta; points may lack some outcomes.

    Args:
        learners: of the same inputs and a single number each, by the name of its outcome, in the order of the outcomes.
            Their theta is trained.

    Attributes:
        names: of the outcomes.
        learners: of the outcomes, in their order.

    Raises:
        DataError: no learners, or one of other inputs than the first, or of another outcome than a number.

    Example:
        >>> import bayesmeta as bm
        >>> learner = Separately({"weight": bm.ALPaCA(bm.Identity(1)), "height": bm.ALPaCA(bm.Polynomial(1, 2))})
        >>> learner.outcomes
        Numbers(count=2)
        >>> support = bm.Data.partly_known([0.0, 1.0], [[3.2, 50.0], [3.6, float("nan")]])  # no height at 1
        >>> learner.adapt(support).predict([2.0]).mean.shape
        torch.Size([1, 1, 2])
    """

    partial_outcomes = True

    def __init__(self, learners: Mapping[str, Learner]) -> None:
        super().__init__()
        if not learners:
            raise DataError("expected a learner for each outcome, got none")
        first = next(iter(learners.values()))
        for name, each in learners.items():
            if not isinstance(each, Learner):
                raise DataError(f"expected a Learner of {name!r}, got {type(each).__name__}")
            if each.x_shape != first.x_shape or not isinstance(each.outcomes, Numbers) or each.outcomes.count != 1:
                raise DataError(
                    f"expected learners of a single number and of inputs {first.x_shape}, got {each.title} of "
                    f"{each.outcomes} and {each.x_shape} for {name!r}"
                )
        self.names = tuple(learners)
        self._parts = nn.ModuleList(learners.values())
        kinds = {type(each.outcomes) for each in self.learners if isinstance(each.outcomes, Numbers)}
        self.x_shape, self.outcomes = first.x_shape, (kinds.pop() if len(kinds) == 1 else Numbers)(len(learners))
        self.exchangeable = all(each.exchangeable for each in self.learners)
        self.known_noise = all(each.known_noise for each in self.learners)
        self.coupled = any(each.coupled for each in self.learners)
        self.coded_inputs = first.coded_inputs

    @property
    def learners(self) -> list[Learner]:
        """The learner of each outcome."""
        return [each for each in self._parts if isinstance(each, Learner)]

    @property
    def title(self) -> str:
        """The name of the class with what is inside: once, where all are of one title."""
        titles = list(dict.fromkeys(each.title for each in self.learners))
        return f"{type(self).__name__}({', '.join(titles)})"

    def parts_of(self, data: Data) -> list[Data]:
        """The points of each outcome, as its learner has them.

        Args:
            data: points that are checked.
        """
        each = [data.outcome(c) for c in range(len(self.names))]
        each = each if self.known_noise else [replace(one, noise=None) for one in each]
        return [learner.conform(one) for learner, one in zip(self.learners, each, strict=True)]

    @override
    def condition(self, support: Data) -> "SeparatePosterior":
        parts = zip(self.learners, self.parts_of(support), strict=True)
        posteriors = tuple(learner.condition(part) for learner, part in parts)
        return SeparatePosterior(spec=support.spec, learner=self, posteriors=posteriors, counts=support.counts)

    @override
    def described(self, columns: Columns, *data: Data) -> SeveralSummary:
        each = zip(*map(self.parts_of, data), strict=True) if data else [()] * len(self.names)
        members = [
            learner.described(columns.of_outcome(c), *parts)
            for c, (learner, parts) in enumerate(zip(self.learners, each, strict=True))
        ]
        facts = [("predicts", plain.predicts(self.x_shape, self.outcomes))]
        if data:
            facts.append(("data", plain.data(data)))
        return SeveralSummary(
            title=f"A model for each of {several(len(members), 'outcome')}",
            kind="models of single outcomes",
            facts=tuple(facts),
            names=self.names,
            members=tuple(members),
        )

    @override
    def noise_stddev(self) -> Float[Tensor, "C"] | None:
        each = [learner.noise_stddev() for learner in self.learners]
        known = [noise for noise in each if noise is not None]
        return torch.cat(known) if len(known) == len(each) else None

    @override
    def loss(self, tasks: TaskBatch) -> Float[Tensor, "B"]:
        """The sum of the learners' own losses, each over the query points that have its outcome."""
        supports, queries = self.parts_of(tasks.support), self.parts_of(tasks.query)
        each = zip(self.learners, supports, queries, strict=True)
        return torch.stack([one.loss(TaskBatch(s, q, tasks.names)).double() for one, s, q in each]).sum(0)

    @override
    def evidence(self, data: Data) -> Float[Tensor, "B"]:
        parts = zip(self.learners, self.parts_of(data), strict=True)
        return torch.stack([learner.evidence(part).double() for learner, part in parts]).sum(0)

    @override
    def joint_evidence(self, *data: Data) -> Float[Tensor, ""]:
        each = zip(self.learners, zip(*map(self.parts_of, data), strict=True), strict=True)
        return torch.stack([learner.joint_evidence(*parts).double() for learner, parts in each]).sum()

    @override
    def remember(self, *data: Data) -> None:
        for learner, parts in zip(self.learners, zip(*map(self.parts_of, data), strict=True), strict=True):
            learner.remember(*parts)

    @property
    @override
    def kept_rows(self) -> int:
        """Of all learners together: a row of which two keep an outcome counts twice."""
        return sum(learner.kept_rows for learner in self.learners)

    @override
    def log_hyperprior(self) -> Float[Tensor, ""]:
        return torch.stack([learner.log_hyperprior().double() for learner in self.learners]).sum()

    @override
    def prepare(self, tasks: Data) -> None:
        for c, learner in enumerate(self.learners):
            part = tasks.outcome(c)
            learner.prepare(part if self.known_noise else replace(part, noise=None))

    @override
    def anneal(self, progress: float) -> None:
        for learner in self.learners:
            learner.anneal(progress)

    @override
    def placement(self) -> tuple[torch.dtype | None, torch.device | None]:
        return torch.float64, self.learners[0].placement()[1]  # each learner rounds to its own precision


@dataclass(frozen=True, eq=False, kw_only=True)
class SeparatePosterior(TaskPosterior):
    """The posterior of each outcome: what `Separately` gives.

    Attributes:
        learner: what they are of.
        posteriors: of each outcome.
        counts: of the points seen, with one outcome or more.
    """

    learner: Separately
    posteriors: tuple[TaskPosterior, ...]
    counts: Int[Tensor, "B"]

    @property
    @override
    def points_seen(self) -> Int[Tensor, "B"]:
        return self.counts

    @property
    @override
    def known_noise(self) -> bool:
        return self.learner.known_noise

    @property
    @override
    def partial_outcomes(self) -> bool:
        return True

    @override
    def coefficients(self, columns: Columns) -> Coefficients | None:
        found = [each.coefficients(columns.of_outcome(c)) for c, each in enumerate(self.posteriors)]
        known = [each for each in found if each is not None]
        return Coefficients.beside(known, self.learner.names) if len(known) == len(found) else None

    @override
    def at(self, x: Float[Tensor, "B M *x"]) -> SideBySidePredictive:
        return SideBySidePredictive(tuple(each.at(each.spec.cast(x)) for each in self.posteriors))

    @override
    def predictive_of(self, data: Data) -> Predictive:
        predictive = self.at(data.x)
        if data.noise is None or not self.known_noise:
            return predictive
        return predictive.with_noise(data.noise.masked_fill(data.noise.isinf(), 0.0))

    @override
    def extended(self, data: Data) -> "SeparatePosterior":
        parts = zip(self.posteriors, self.learner.parts_of(data), strict=True)
        posteriors = tuple(each.extended(each.spec.conform(part)) for each, part in parts)
        return replace(self, posteriors=posteriors, counts=self.counts + data.counts)

    @override
    def selected(self, tasks: Int[Tensor, "K"]) -> "SeparatePosterior":
        posteriors = tuple(each.selected(tasks) for each in self.posteriors)
        spec = self.spec.of_tasks(len(tasks))
        return replace(self, spec=spec, posteriors=posteriors, counts=self.counts[tasks])
