"""Learners of positive outcomes: what works on any number sees logarithms.

z = log y for outcomes y; a density of y is that of z, over y. With a Gaussian learner inside y is log-normal.

    phi         the learner's, of the logarithms
    prior       the learner's, of the logarithms
    likelihood  the learner's, of the logarithms: LogNormal where it is Gaussian
    inference   the learner's
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from bayesmeta.data import Data, TaskBatch
from bayesmeta.description import written
from bayesmeta.errors import DataError
from bayesmeta.learner import Learner
from bayesmeta.outcomes import Numbers, Positives
from bayesmeta.predictives import ExponentialPredictive
from bayesmeta.summaries import Columns, Summary
from bayesmeta.wrappers.base import WrappedPosterior, Wrapper


class LogTransformed(Wrapper):
    """A learner of positive outcomes, made of any learner of numbers, which sees their logarithms.

    Predictions, densities and losses are of the outcomes themselves: means and intervals in their unit, log densities
    with the Jacobian of the logarithm, so that they can be compared with those of a learner without it. What is
    multiplied by a factor (durations, concentrations, prices) is Gaussian on this scale more often than on its own, and
    no interval reaches below zero. `Standardized` belongs inside: it then sees the logarithms.

    Args:
        learner: of numbers.

    Raises:
        DataError: a learner of labels, of counts or of positive numbers; an outcome that is not positive (when data are
            seen).

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.wrappers.LogTransformed(bm.Standardized(bm.ALPaCA(bm.Identity(1)))).double()
        >>> x, y = [0.0, 1.0, 2.0], [[1.0, 2.1, 3.9], [2.0, 4.4, 8.0], [0.5, 0.9, 2.1]]
        >>> _ = bm.fit_evidence(learner, bm.TaskDataset.from_list([(x, each) for each in y]))
        >>> prediction = learner.adapt(bm.Data.from_arrays([0.0], [3.0])).predict([2.0])
        >>> lower, upper = prediction.interval(0.9)
        >>> bool(0.0 < lower < 12.0 < upper < 20.0)  # twice as much each time
        True
    """

    def __init__(self, learner: Learner) -> None:
        super().__init__(learner)
        if type(learner.outcomes) is not Numbers:
            raise DataError(
                f"expected a learner of numbers, whose outcomes are known, got {learner.title} of {learner.outcomes}"
            )
        self.outcomes = Positives(learner.outcomes.count)
        self.known_noise = False  # noise that is known of y is not known of log y
        self.partial_outcomes = False

    def logged(self, data: Data) -> Data:
        """Checked data with logarithms as outcomes, as the learner has them.

        Args:
            data: checked (`conform`).
        """
        y = torch.where(data.mask[..., None], data.y, 1.0).log()
        return self.learner.conform(Data(data.x, y, data.mask))

    def _stretch(self, data: Data) -> Float[Tensor, "B"]:
        """Σ log y of each task: what a log density of log y is above that of y."""
        return torch.where(data.mask[..., None], data.y, 1.0).log().sum((-1, -2))

    @override
    def conform(self, data: Data) -> Data:
        return Learner.conform(self, data)

    @property
    @override
    def mixed_model(self) -> None:
        return None  # its estimates are of logarithms

    @override
    def prepare(self, tasks: Data) -> None:
        self.learner.prepare(self.logged(self.conform(tasks)))

    @override
    def loss(self, tasks: TaskBatch) -> Float[Tensor, "B"]:
        """The learner's own loss, and the mean logarithm of the query's outcomes, in nats per point."""
        inner = TaskBatch(self.logged(tasks.support), self.logged(tasks.query), tasks.names)
        return self.learner.loss(inner) + self._stretch(tasks.query) / tasks.query.counts.clamp(min=1)

    @override
    def evidence(self, data: Data) -> Float[Tensor, "B"]:
        """The learner's own evidence, as a density of the outcomes, in nats."""
        return self.learner.evidence(self.logged(data)) - self._stretch(data)

    @override
    def joint_evidence(self, *data: Data) -> Float[Tensor, ""]:
        """The learner's own, as a density of the outcomes, in nats."""
        stretch = torch.stack([self._stretch(each).sum() for each in data]).sum()
        return self.learner.joint_evidence(*map(self.logged, data)) - stretch

    @override
    def remember(self, *data: Data) -> None:
        self.learner.remember(*map(self.logged, data))

    @override
    def described(self, columns: Columns, *data: Data) -> Summary:
        """That of the learner inside, of the logarithms of the outcomes."""
        outcomes = replace(columns.outcomes, names=tuple(f"log {name}" for name in columns.outcomes.names))
        inner = self.learner.described(replace(columns, outcomes=outcomes), *map(self.logged, data))
        return inner.titled(written(self)).with_notes(
            f"All numbers, likelihoods too, are of {', '.join(outcomes.names)}: a difference of 0.01 is one percent."
        )

    @override
    def noise_stddev(self) -> None:
        return None  # of the outcomes it is not the same everywhere

    @override
    def condition(self, support: Data) -> "LogTransformedPosterior":
        return LogTransformedPosterior(
            spec=support.spec, learner=self, inner=self.learner.condition(self.logged(support))
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class LogTransformedPosterior(WrappedPosterior):
    """A posterior from logarithms that predicts the outcomes themselves. Its draws of phi are of the logarithms.

    Attributes:
        learner: the wrapper.
    """

    learner: LogTransformed

    @override
    def at(self, x: Float[Tensor, "B M *x"]) -> ExponentialPredictive:
        return ExponentialPredictive(self.inner.at(self.inner.spec.cast(x)))

    @override
    def extended(self, data: Data) -> "LogTransformedPosterior":
        return replace(self, inner=self.inner.extended(self.learner.logged(data)))
