"""What is asked of every learner: small tasks, and all that a learner says of them."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

import bayesmeta as bm
from tests.registry import CASES, Case


def _sampled() -> bm.Learner:
    return bm.Sampled(bm.ALPaCA(bm.Polynomial(1, 1)), bm.inference.NUTS(2, 4, 20, max_depth=2))


SUBJECTS = [replace(case, make=_sampled) if case.name == "sampled" else case for case in CASES if case.name != "imaml"]
"""Every learner of the registry. Of chains the shortest serve, and `imaml` is `imaml-as-used` with a tighter solver."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A learner in float32 with tasks in float64, as they come from lists: supports of 3, and of fewer, points."""

    case: Case
    learner: bm.Learner
    tasks: bm.TaskBatch

    @classmethod
    def of(cls, case: Case) -> "Subject":
        return cls(case, case.learner(torch.float32), case.batch(3, 3, 2))

    @property
    def y(self) -> Tensor:
        y = self.tasks.query.y
        return y.float() if y.is_floating_point() else y

    def answers(self, predictive: bm.Predictive) -> list[Tensor]:
        """All that a predictive says of the query points."""
        draws = predictive.sample((2,), torch.Generator().manual_seed(0))
        said = [predictive.log_prob(self.y), predictive.marginal_log_prob(self.y), draws]
        if self.case.num_classes:
            return [predictive.probs, *said]
        return [predictive.mean, predictive.stddev, *said, predictive.cdf(self.y), *predictive.interval(0.8)]

    def all_answers(self, learner: bm.Learner | None = None) -> list[Tensor]:
        """From adapting to predicting, updating and dividing, and the loss."""
        learner, x = self.learner if learner is None else learner, self.tasks.query.x
        posterior = learner.adapt(self.tasks.support)
        updated, divided = posterior.update(self.tasks.query), posterior.select([2])
        return [
            *self.answers(posterior.predict(x)),
            *summary(updated.predict(x)),
            *summary(divided.predict(x[2:])),
            learner.meta_loss(self.tasks).detach(),
        ]


def summary(predictive: bm.Predictive) -> list[Tensor]:
    """What a predictive says of each point."""
    if isinstance(predictive.marginals, torch.distributions.Categorical | torch.distributions.Bernoulli):
        return [predictive.probs]
    return [predictive.mean, predictive.stddev]


def check_same(got: list[Tensor], wanted: list[Tensor], tolerance: float = 0.0) -> None:
    """The same numbers, in the same precision."""
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def by_name(names: list[str]) -> list[Case]:
    """Cases of the registry."""
    return [case for case in SUBJECTS if case.name in names]
