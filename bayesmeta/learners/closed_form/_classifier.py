"""What classifiers share whose head is solved within the network: scores with a belief, and a calibrated softmax.

    f_c(x) = w_cᵀ φ(x)        one score for each class; the head gives its mean m_c and variance v_c at x
    p(c | x, D) ∝ exp(a m_c / sqrt(1 + π/8 a² s² v_c))

a (`scale`) says how many nats a unit of score is worth, s² (`spread`) how wide the belief is in units of the head's own
variance. Both are meta-learned with the features, so that what is far from the support is predicted with less
certainty. The rescaling is MacKay's (1992, "The evidence framework applied to classification networks").
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.distributions import Categorical

from bayesmeta.data import Data, DataSpec
from bayesmeta.errors import UnsupportedError
from bayesmeta.heads.classes import Classes, one_hot
from bayesmeta.learner import Learner, TaskPosterior
from bayesmeta.networks.network import Network
from bayesmeta.noise import Positive
from bayesmeta.outcomes import Labels
from bayesmeta.predictives import IndependentPredictive

SCALE_BOUNDS = (1e-3, 1e4)
SPREAD_BOUNDS = (1e-8, 1e8)
HEAD_RATE = 10.0


class Scores(ABC):
    """The belief about the scores of the classes of each task: a value."""

    @abstractmethod
    def at(self, rows: Float[Tensor, "B M F"]) -> tuple[Float[Tensor, "B M C"], Float[Tensor, "B M #C"]]:
        """Mean and variance of every class's score; where all classes have one variance, a single column."""


class HeadClassifier(Learner):
    """A classifier whose head is solved on the features of the support.

    A subclass gives `solve`. Features are computed in the learner's precision, heads in float64.

    Args:
        features: φ, a network with `num_outputs` = F features.
        num_classes: C, the classes of every task, with or without an example; None: those of the task's support, each
            with an example, as many as it has (`Classes.of`).
        scale: starting a, nats for a unit of score.
        spread: starting s².

    Raises:
        UnsupportedError: the features are not a `Network`, or depend on the other points of a task. DataError: fewer
            than two classes, or a scale or spread out of bounds.
    """

    def __init__(self, features: Network, num_classes: int | None, scale: float, spread: float) -> None:
        super().__init__()
        if not isinstance(features, Network):
            raise UnsupportedError(
                f"expected features that inherit bayesmeta.Network, which says x_shape and num_outputs, "
                f"got {type(features).__name__}: call yours in the forward of a Network"
            )
        if not features.pointwise:
            raise UnsupportedError(
                "expected features of each point on its own, got statistics over the points of a task, through which "
                "query points would tell of each other: use norm='group'"
            )
        self.features, self.x_shape, self.outcomes = features, features.x_shape, Labels(num_classes)
        self.scale, self.spread = Positive((), scale, SCALE_BOUNDS), Positive((), spread, SPREAD_BOUNDS)

    def configure_optimizer(self, lr: float = 1e-3) -> torch.optim.Optimizer:
        """Adam; the few numbers of the head, which set its units and are learned as logarithms, go 10 times as fast."""
        trained = [(name.startswith("features."), p) for name, p in self.named_parameters() if p.requires_grad]
        slow, fast = [p for is_slow, p in trained if is_slow], [p for is_slow, p in trained if not is_slow]
        groups = [{"params": slow, "lr": lr}, {"params": fast, "lr": HEAD_RATE * lr}]
        return torch.optim.Adam([group for group in groups if group["params"]], lr=lr)

    outcomes: Labels

    @abstractmethod
    def solve(
        self,
        rows: Float[Tensor, "B N F"],
        targets: Float[Tensor, "B N C"],
        mask: Bool[Tensor, "B N"],
        classes: Classes,
    ) -> Scores:
        """The belief about the scores, differentiable in rows and theta.

        Args:
            rows: features of the support in float64, zero where padded.
            targets: labels as unit vectors, zero where padded.
            mask: True = real.
            classes: which classes each task has.
        """

    def softmax(self, mean: Float[Tensor, "B M C"], variance: Float[Tensor, "B M #C"]) -> Float[Tensor, "B M C"]:
        """The logits of p(c | x, D)."""
        scale = self.scale().to(mean.dtype)
        width = 1.0 + math.pi / 8.0 * scale.square() * self.spread().to(mean.dtype) * variance
        return scale * mean / width.sqrt()

    def rows(self, x: Float[Tensor, "B N *x"]) -> Float[Tensor, "B N F"]:
        """Features in float64."""
        return self.features(x).double()

    def condition(self, support: Data) -> "HeadPosterior":
        return self._solved(support.spec, self.rows(support.x), support.y, support.mask)

    def _solved(self, spec: DataSpec, rows: Tensor, labels: Tensor, mask: Tensor) -> "HeadPosterior":
        classes = Classes.of(labels, mask, self.outcomes.count)
        rows = torch.where(mask[..., None], rows, 0.0)
        scores = self.solve(rows, one_hot(labels, classes.num_classes, mask), mask, classes)
        return HeadPosterior(
            spec=spec, learner=self, rows=rows, labels=labels, mask=mask, classes=classes, scores=scores
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class HeadPosterior(TaskPosterior):
    """The scores of the classes given the support.

    Attributes:
        learner: theta.
        rows: features of the support, `B N F`.
        labels: its labels, `B N`.
        mask: True = real, `B N`.
        classes: the classes of each task.
        scores: the belief about their scores.
    """

    learner: HeadClassifier
    rows: Float[Tensor, "B N F"]
    labels: Int[Tensor, "B N"]
    mask: Bool[Tensor, "B N"]
    classes: Classes
    scores: Scores

    def at(self, x: Float[Tensor, "B M *x"]) -> IndependentPredictive:
        logits = self.learner.softmax(*self.scores.at(self.learner.rows(x)))
        return IndependentPredictive(Categorical(logits=self.classes.logits(logits), validate_args=False))

    def extended(self, data: Data) -> "HeadPosterior":
        seen, more = (self.rows, self.labels, self.mask), (self.learner.rows(data.x), data.y, data.mask)
        return self.learner._solved(self.spec, *(torch.cat(pair, 1) for pair in zip(seen, more, strict=True)))
