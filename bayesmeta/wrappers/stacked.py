"""Bayesian stacking: one predictive of several learners, mixed with weights that do not depend on the task.

    p(y | x, D) = Σ_k w_k p_k(y | x, D),   w on the simplex

Yao, Vehtari, Simpson, Gelman 2018, "Using stacking to average Bayesian predictive distributions" (Bayesian Analysis 13,
eq. 3). The weights are those under which held-out tasks were predicted best (`bm.stack`), not how probable each learner
is: of two that are wrong in different ways both are kept.

    phi         of each learner, its own
    prior       of each learner, its own
    likelihood  of each learner, its own
    inference   of each learner, its own; their predictives are mixed
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.data import Data
from bayesmeta.errors import DataError
from bayesmeta.learner import Learner, TaskPosterior
from bayesmeta.one_line import several
from bayesmeta.predictives import EnsemblePredictive
from bayesmeta.summaries import Coefficients, Columns, MixtureSummary, plain
from bayesmeta.wrappers.base import Untrainable


class Stacked(Untrainable):
    """Several learners and the weight of each: their predictives are mixed. `bm.stack` finds the weights.

    Points of a task share the learner: `log_prob` and `sample` are joint, log Σ_k w_k p_k(y_1..y_M).

    Args:
        learners: trained learners of the same inputs and outcomes, by name; frozen copies are kept, in float64.
        weights: of each name; they are divided by their sum.

    Attributes:
        learner: the first, which answers for what all have in common.
        others: the others.
        names: of all of them.
        weights: `K`, of all of them.

    Raises:
        DataError: no learners, other names in the weights, weights that are negative or all 0, or learners of different
            inputs or outcomes.

    Example:
        >>> import bayesmeta as bm
        >>> learners = {"line": bm.ALPaCA(bm.Identity(1)), "curve": bm.ALPaCA(bm.Polynomial(1, 3))}
        >>> learner = Stacked(learners, {"line": 0.75, "curve": 0.25})
        >>> learner
        Stacked: .75 line + .25 curve
        >>> prediction = learner.adapt(bm.Data.from_arrays([0.0, 1.0], [0.1, 0.9])).predict([2.0])
        >>> isinstance(prediction, bm.predictives.EnsemblePredictive)
        True
    """

    weights: Tensor

    def __init__(self, learners: Mapping[str, Learner], weights: Mapping[str, float]) -> None:
        if not learners or set(learners) != set(weights):
            raise DataError(
                f"expected learners and a weight for each, got learners {list(learners)} and weights {list(weights)}"
            )
        total = sum(weights.values())
        if not (0.0 < total < float("inf")) or min(weights.values()) < 0.0:
            raise DataError(f"expected weights of 0 or more that are not all 0, got {dict(weights)}")
        first, *others = (learner.frozen().double() for learner in learners.values())
        for other in others:
            if other.x_shape != first.x_shape or other.outcomes != first.outcomes:
                raise DataError(
                    f"expected learners of the same inputs and outcomes, got {first.title} for {first.x_shape} and "
                    f"{first.outcomes}, {other.title} for {other.x_shape} and {other.outcomes}"
                )
        super().__init__(first)
        self.others = nn.ModuleList(others)
        self.names = tuple(learners)
        self.exchangeable = all(learner.exchangeable for learner in self.learners)
        _, device = first.placement()
        shares = [weights[name] / total for name in self.names]
        self.register_buffer("weights", torch.tensor(shares, dtype=torch.float64, device=device))

    @property
    def learners(self) -> list[Learner]:
        """The learners, in the order of `names`."""
        return [self.learner, *(other for other in self.others if isinstance(other, Learner))]

    def __repr__(self) -> str:
        """One line: the weight of each learner."""
        weights = (f"{weight:.2f}".removeprefix("0") for weight in self.weights.tolist())
        return "Stacked: " + " + ".join(f"{w} {name}" for w, name in zip(weights, self.names, strict=True))

    @override
    def prepare(self, tasks: Data) -> None:
        for learner in self.learners:
            learner.prepare(tasks)

    @property
    @override
    def kept_rows(self) -> int:
        """Of all learners together: a row that two of them keep counts twice."""
        return sum(learner.kept_rows for learner in self.learners)

    @override
    def described(self, columns: Columns, *data: Data) -> MixtureSummary:
        members = [each.described(columns, *map(each.conform, data)) for each in self.learners]
        facts = [("predicts", plain.predicts(self.x_shape, self.outcomes))]
        if data:
            facts.append(("data", plain.data(data)))
        words = (
            "Each prediction is a mixture of what these models predict, with these weights: held-out tasks were "
            "predicted best with them (`bm.stack`). They are no probabilities that a model is right."
        )
        return MixtureSummary(
            title=f"Mixture of {several(len(members), 'model')}",
            facts=tuple(facts),
            notes=(words,),
            names=self.names,
            weights=tuple(self.weights.tolist()),
            members=tuple(members),
        )

    @override
    def noise_stddev(self) -> None:
        return None  # each learner has its own

    @override
    def evidence(self, data: Data) -> Float[Tensor, "B"]:
        return Learner.evidence(self, data)  # weights that are the same before and after a task have none

    @override
    def conform(self, data: Data) -> Data:
        return Learner.conform(self, data)  # each learner's own rules are for itself

    @override
    def placement(self) -> tuple[torch.dtype | None, torch.device | None]:
        return self.weights.dtype, self.weights.device

    @override
    def condition(self, support: Data) -> "StackedPosterior":
        posteriors = tuple(learner.condition(learner.conform(support)) for learner in self.learners)
        return StackedPosterior(spec=support.spec, learner=self, posteriors=posteriors)


@dataclass(frozen=True, eq=False, kw_only=True)
class StackedPosterior(TaskPosterior):
    """A task's posterior under each learner: what `Stacked` gives.

    Attributes:
        learner: the weights.
        posteriors: under each learner.
    """

    learner: Stacked
    posteriors: tuple[TaskPosterior, ...]

    @property
    @override
    def points_seen(self) -> Int[Tensor, "B"] | None:
        return self.posteriors[0].points_seen

    @override
    def coefficients(self, columns: Columns) -> Coefficients | None:
        """Under the heaviest learner that has any with names."""
        for place in self.learner.weights.argsort(descending=True).tolist():
            found = self.posteriors[place].coefficients(columns)
            if found is not None and found.are_the_users:
                return found
        return None

    @override
    def at(self, x: Float[Tensor, "B M *x"]) -> EnsemblePredictive:
        log_weights = self.learner.weights.log().expand(len(x), -1)
        return EnsemblePredictive(log_weights, tuple(each.at(each.spec.cast(x)) for each in self.posteriors))

    @override
    def extended(self, data: Data) -> "StackedPosterior":
        posteriors = tuple(each.extended(each.spec.conform(data)) for each in self.posteriors)
        return replace(self, posteriors=posteriors)

    @override
    def selected(self, tasks: Int[Tensor, "K"]) -> "StackedPosterior":
        posteriors = tuple(each.selected(tasks) for each in self.posteriors)
        return replace(self, spec=self.spec.of_tasks(len(tasks)), posteriors=posteriors)
