"""Bayesian stacking: one predictive of several learners, mixed with weights that depend on how many points were seen.

    p(y | x, D) = Σ_k w_k(n) p_k(y | x, D),   n the number of points of D, each w(n) on the simplex

Yao, Vehtari, Simpson, Gelman 2018, "Using stacking to average Bayesian predictive distributions" (Bayesian Analysis 13,
eq. 3); weights that depend on what is known are hierarchical stacking (Yao, Pirš, Vehtari, Gelman 2022, Bayesian
Analysis 17). The weights are those under which held-out tasks were predicted best (`bm.stack`), not how probable each
learner is: of two that are wrong in different ways both are kept. What predicts best of a task that nothing is known of
(a mean of all tasks, say) need not predict best after five points.

    phi         of each learner, its own
    prior       of each learner, its own
    likelihood  of each learner, its own
    inference   of each learner, its own; their predictives are mixed
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

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
from bayesmeta.wrappers.by_points import interpolated

SEEN = 0.005  # a weight below this is not written down


class Stacked(Untrainable):
    """Several learners and the weight of each: their predictives are mixed. `bm.stack` finds the weights.

    Points of a task share the learner: `log_prob` and `sample` are joint, log Σ_k w_k(n) p_k(y_1..y_M), with the
    weights of the n points that the task has shown. Between the numbers of points at which weights are given they are
    linear in log(1 + n), and constant outside of them.

    Args:
        learners: trained learners of the same inputs and outcomes, by name; frozen copies are kept, in float64.
        weights: of each name: one for each of `points`, or a number that is meant at all of them. Those of one number
            of points are divided by their sum.
        points: numbers of points of a task at which weights are given, increasing; of one alone the weights hold for
            any number. They need not be whole: of tasks with different numbers of classes, what is known is a mean.

    Attributes:
        learner: the first, which answers for what all have in common.
        others: the others.
        names: of all K of them.
        points: numbers of points at which weights are given.
        weights: `S K`, at each of `points`, of all of them.

    Raises:
        DataError: no learners, other names in the weights, weights that are negative or all 0, another number of them
            than of points, points that do not increase, or learners of different inputs or outcomes.

    Example:
        >>> import bayesmeta as bm
        >>> learners = {"line": bm.ALPaCA(bm.Identity(1)), "curve": bm.ALPaCA(bm.Polynomial(1, 3))}
        >>> Stacked(learners, {"line": 0.75, "curve": 0.25})
        Stacked: .75 line + .25 curve
        >>> learner = Stacked(learners, {"line": [0.9, 0.2], "curve": [0.1, 0.8]}, points=[0, 5])
        >>> learner
        Stacked: .90 line + .10 curve at 0 points; .20 line + .80 curve at 5
        >>> prediction = learner.adapt(bm.Data.from_arrays([0.0, 1.0], [0.1, 0.9])).predict([2.0])
        >>> isinstance(prediction, bm.predictives.EnsemblePredictive)
        True
        >>> prediction.log_weights.exp()  # two points are log 3 / log 6 of the way from 0 to 5
        tensor([[0.4708, 0.5292]], dtype=torch.float64)
    """

    weights: Tensor

    def __init__(
        self,
        learners: Mapping[str, Learner],
        weights: Mapping[str, float | Sequence[float]],
        points: Sequence[int | float] = (0,),
    ) -> None:
        if not learners or set(learners) != set(weights):
            raise DataError(
                f"expected learners and a weight for each, got learners {list(learners)} and weights {list(weights)}"
            )
        at = tuple(float(each) for each in points)
        if not at or not all(low < high for low, high in pairwise((-math.ulp(0.0), *at, math.inf))):
            raise DataError(f"expected numbers of points that increase from 0 or more, got {list(points)}")
        shares = _shares([weights[name] for name in learners], len(at))
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
        self.points = at
        _, device = first.placement()
        self.register_buffer("weights", shares.to(device))

    @property
    def learners(self) -> list[Learner]:
        """The learners, in the order of `names`."""
        return [self.learner, *(other for other in self.others if isinstance(other, Learner))]

    def __repr__(self) -> str:
        """One line: the weight of each learner, at each of the numbers of points where they differ."""
        each = [self._mixture(row) for row in self.weights.tolist()]
        if len(set(each)) == 1:
            return f"Stacked: {each[0]}"
        first, *more = (f"{mixture} at {points:g}" for mixture, points in zip(each, self.points, strict=True))
        return "Stacked: " + "; ".join([f"{first} {'point' if self.points[0] == 1 else 'points'}", *more])

    def _mixture(self, weights: list[float]) -> str:
        """Of weights that can be seen in two digits."""
        seen = [(weight, name) for weight, name in zip(weights, self.names, strict=True) if weight >= SEEN]
        return " + ".join(f"{weight:.2f} {name}".removeprefix("0") for weight, name in seen)

    def weights_after(self, counts: Int[Tensor, "B"]) -> Float[Tensor, "B K"]:
        """The weight of each learner for tasks that have shown so many points.

        Args:
            counts: support points of each task.

        Example:
            >>> import bayesmeta as bm
            >>> learners = {"line": bm.ALPaCA(bm.Identity(1)), "curve": bm.ALPaCA(bm.Polynomial(1, 3))}
            >>> learner = Stacked(learners, {"line": [1.0, 0.0], "curve": [0.0, 1.0]}, points=[0, 3])
            >>> learner.weights_after(torch.tensor([0, 1, 9]))
            tensor([[1.0000, 0.0000],
                    [0.5000, 0.5000],
                    [0.0000, 1.0000]], dtype=torch.float64)
        """
        points = torch.tensor(self.points, dtype=torch.float64, device=self.weights.device)
        return interpolated(self.weights, points, counts)

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
            kind="several models, whose predictions are mixed",
            facts=tuple(facts),
            notes=(words,),
            names=self.names,
            points=self.points,
            weights=tuple(map(tuple, self.weights.tolist())),
            members=tuple(members),
        )

    @override
    def noise_stddev(self) -> None:
        return None  # each learner has its own

    @override
    def evidence(self, data: Data) -> Float[Tensor, "B"]:
        return Learner.evidence(self, data)  # weights that do not come from the task's points have none

    @override
    def conform(self, data: Data) -> Data:
        return Learner.conform(self, data)  # each learner's own rules are for itself

    @override
    def placement(self) -> tuple[torch.dtype | None, torch.device | None]:
        return self.weights.dtype, self.weights.device

    @override
    def condition(self, support: Data) -> "StackedPosterior":
        posteriors = tuple(learner.condition(learner.conform(support)) for learner in self.learners)
        return StackedPosterior(spec=support.spec, learner=self, posteriors=posteriors, counts=support.counts)


@dataclass(frozen=True, eq=False, kw_only=True)
class StackedPosterior(TaskPosterior):
    """A task's posterior under each learner: what `Stacked` gives.

    Attributes:
        learner: the weights.
        posteriors: under each learner.
        counts: `B`, points of each task, which its weights follow.
    """

    learner: Stacked
    posteriors: tuple[TaskPosterior, ...]
    counts: Int[Tensor, "B"]

    @property
    @override
    def points_seen(self) -> Int[Tensor, "B"]:
        return self.counts

    @override
    def coefficients(self, columns: Columns) -> Coefficients | None:
        """Under the heaviest learner that has any with names, the mean over tasks."""
        weights = self.learner.weights_after(self.counts).mean(0)
        for place in weights.argsort(descending=True).tolist():
            found = self.posteriors[place].coefficients(columns)
            if found is not None and found.are_the_users:
                return found
        return None

    @override
    def at(self, x: Float[Tensor, "B M *x"]) -> EnsemblePredictive:
        log_weights = self.learner.weights_after(self.counts).log()
        return EnsemblePredictive(log_weights, tuple(each.at(each.spec.cast(x)) for each in self.posteriors))

    @override
    def extended(self, data: Data) -> "StackedPosterior":
        posteriors = tuple(each.extended(each.spec.conform(data)) for each in self.posteriors)
        return replace(self, posteriors=posteriors, counts=self.counts + data.counts)

    @override
    def selected(self, tasks: Int[Tensor, "K"]) -> "StackedPosterior":
        posteriors = tuple(each.selected(tasks) for each in self.posteriors)
        return replace(self, spec=self.spec.of_tasks(len(tasks)), posteriors=posteriors, counts=self.counts[tasks])


def _shares(weights: list[float | Sequence[float]], count: int) -> Float[Tensor, "S K"]:
    """Weights that sum to 1 at each number of points."""
    columns = [
        [float(given)] * count if isinstance(given, int | float) else [float(weight) for weight in given]
        for given in weights
    ]
    if {len(column) for column in columns} != {count}:
        raise DataError(f"expected a weight at each of {count} numbers of points, or one for all, got {weights}")
    shares = torch.tensor(columns, dtype=torch.float64, device="cpu").mT
    total = shares.sum(-1, keepdim=True)
    if not (shares >= 0.0).all() or not ((total > 0.0) & (total < math.inf)).all():
        raise DataError(f"expected weights of 0 or more that are not all 0 at any number of points, got {weights}")
    return shares / total
