"""A classifier whose head is solved within the network: scores with a belief, and a calibrated softmax.

    f_c(x) = w_cᵀ h(x)        a score for each class, h the features; the head gives its mean m_c and variance v_c at x
    p(c | x, D) ∝ π_c exp(a m_c / sqrt(1 + π/8 a² s² v_c) + 2 δ / (n_c + 1))

a (`scale`) says how many nats a unit of score is worth, s² (`spread`) how wide the belief is in units of the head's own
variance. Both are meta-learned with the features, so that what is far from the support is predicted with less
certainty. The rescaling is MacKay's (1992, "The evidence framework applied to classification networks").

Classes of a task may have unequal numbers n_c of examples. Heads let every class count alike in the fit, π
(`ClassPrior`) says how frequent the classes are, and δ (`scarcity`, nats for a class with one example) makes up for
what is left: a score that few examples speak for is smaller, as noise has made them long in directions that no query
shares.
"""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.distributions import Categorical
from typing_extensions import override

from bayesmeta.data import Data, DataSpec
from bayesmeta.errors import ShapeError, UnsupportedError
from bayesmeta.heads.class_prior import ClassPrior
from bayesmeta.heads.head import Examples, Head, Scores
from bayesmeta.hyperpriors import Hyperprior
from bayesmeta.learner import Learner, TaskPosterior
from bayesmeta.networks.network import Network
from bayesmeta.networks.requirements import require_pointwise
from bayesmeta.noise import Positive
from bayesmeta.outcomes import Labels
from bayesmeta.predictives import IndependentPredictive

SCALE_BOUNDS = (1e-3, 1e4)
SPREAD_BOUNDS = (1e-8, 1e8)
HEAD_RATE = 10.0


class HeadClassifier(Learner):
    """A classifier whose head is solved on the features of the support.

    A subclass is a method of the literature: it says which head it has when none is given (`default_head`), and where
    its scale starts (`default_scale`). Features are computed in the learner's precision, heads in float64.

    Args:
        features: a network with `num_outputs` = F features of each point on its own.
        num_classes: C, the classes of every task, with or without an example, which have names: class 1 is the same in
            every task, and may be rarer than class 0. None: those of the task's support, each with an example, as many
            as it has.
        head: what is solved on the features; the method's own by default.
        scale: starting a, nats for a unit of score; the method's own by default.
        spread: starting s², in units of the head's variance.
        hyperprior: p(theta) besides what the head says of its own parameters; none by default.

    Raises:
        UnsupportedError: the features are not a `Network`, or depend on the other points of a task; a head that is not
            a `Head`. ShapeError: a head for another number of features. DataError: fewer than two classes, or a scale
            or spread out of bounds.

    Example:
        >>> import bayesmeta as bm
        >>> class LogisticFeatures(bm.heads.HeadClassifier):
        ...     @classmethod
        ...     def default_head(cls, num_features):
        ...         return bm.heads.LogisticHead(ridge=0.1)
        >>> learner = LogisticFeatures(bm.Identity(1), num_classes=2)
        >>> posterior = learner.adapt(bm.Data.from_labels([-1.0, 1.0], [0, 1]))
        >>> posterior.predict([-3.0, 3.0]).probs.argmax(-1).tolist()
        [[0, 1]]
    """

    outcomes: Labels
    default_scale: float = 1.0

    def __init__(
        self,
        features: Network,
        *,
        num_classes: int | None = None,
        head: Head | None = None,
        scale: float | None = None,
        spread: float = 1.0,
        hyperprior: Hyperprior | None = None,
    ) -> None:
        super().__init__()
        require_pointwise(features)
        head = self.default_head(features.num_outputs) if head is None else head
        if not isinstance(head, Head):
            raise UnsupportedError(f"expected a head such as RidgeHead(), got {head!r}")
        if head.num_features not in (None, features.num_outputs):
            raise ShapeError(f"expected a head on {features.num_outputs} features, got one on {head.num_features}")
        self.features, self.x_shape, self.outcomes = features, features.x_shape, Labels(num_classes)
        self.head, self.hyperprior = head, hyperprior
        self.scale = Positive((), self.default_scale if scale is None else scale, SCALE_BOUNDS)
        self.spread = Positive((), spread, SPREAD_BOUNDS)
        self.scarcity = nn.Parameter(torch.zeros(()))
        self.class_prior = ClassPrior(num_classes)

    @classmethod
    @abstractmethod
    def default_head(cls, num_features: int) -> Head:
        """The method's own head, for F features."""

    def configure_optimizer(self, lr: float = 1e-3) -> torch.optim.Optimizer:
        """Adam; the few numbers of the head, which set its units and are learned as logarithms, go 10 times as fast."""
        trained = [(name.startswith("features."), p) for name, p in self.named_parameters() if p.requires_grad]
        slow, fast = [p for is_slow, p in trained if is_slow], [p for is_slow, p in trained if not is_slow]
        groups = [{"params": slow, "lr": lr}, {"params": fast, "lr": HEAD_RATE * lr}]
        return torch.optim.Adam([group for group in groups if group["params"]], lr=lr)

    def log_hyperprior(self) -> Float[Tensor, ""]:
        """log p(theta), in nats: the hyperprior, and what the head says of its own parameters."""
        own = self.head.log_hyperprior()
        return own if self.hyperprior is None else own + self.hyperprior.log_prob(dict(self.named_parameters()))

    @override
    def prepare(self, tasks: Data) -> None:
        """Start the frequencies of the classes at those of the meta-training points, where classes have names."""
        self.class_prior.take_frequencies(tasks.y[tasks.mask])

    def rows(self, x: Float[Tensor, "B N *x"]) -> Float[Tensor, "B N F"]:
        """The features h of points, in float64, which heads are solved in."""
        return self.features(x).double()

    @override
    def condition(self, support: Data) -> "HeadPosterior":
        return self.solved(support.spec, self.rows(support.x), support.y, support.mask)

    def solved(
        self,
        spec: DataSpec,
        rows: Float[Tensor, "B N F"],
        labels: Int[Tensor, "B N"],
        mask: Bool[Tensor, "B N"],
    ) -> "HeadPosterior":
        """The posterior given the features of the support and its labels. Raises what the head raises.

        Args:
            spec: what further data must look like.
            rows: features of the support.
            labels: of the support.
            mask: True = real.
        """
        examples = Examples.of(rows, labels, mask, self.outcomes.count)
        return HeadPosterior(
            spec=spec, learner=self, examples=examples, labels=labels, scores=self.head.solve(examples)
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class HeadPosterior(TaskPosterior):
    """The scores of the classes given the support.

    Attributes:
        learner: theta.
        examples: features and classes of the support.
        labels: its labels, `B N`.
        scores: the belief about the scores of the classes.

    Example:
        >>> import bayesmeta as bm
        >>> posterior = bm.R2D2(bm.MLP(1, [4]), num_classes=2).adapt(bm.Data.from_labels([0.0, 1.0], [0, 1]))
        >>> posterior.examples.targets[0].tolist()
        [[1.0, 0.0], [0.0, 1.0]]
        >>> posterior.update(bm.Data.from_labels([2.0], [1])).labels.tolist()
        [[0, 1, 1]]
    """

    learner: HeadClassifier
    examples: Examples
    labels: Int[Tensor, "B N"]
    scores: Scores

    @property
    @override
    def points_seen(self) -> Int[Tensor, "B"]:
        return self.examples.mask.sum(-1)

    @override
    def at(self, x: Float[Tensor, "B M *x"]) -> IndependentPredictive:
        learner, counts = self.learner, self.examples.counts
        rows = learner.rows(x)
        logits = self.scores.logits(rows, learner.scale().to(rows.dtype), learner.spread().to(rows.dtype))
        few = 2.0 * learner.scarcity.to(rows.dtype) / (counts + 1.0)
        offset = few + learner.class_prior(counts, self.examples.classes.mask)  # B C
        logits = self.examples.classes.logits(logits + offset[:, None])
        return IndependentPredictive(Categorical(logits=logits, validate_args=False))

    @override
    def selected(self, tasks: Int[Tensor, "K"]) -> "HeadPosterior":
        spec, examples = self.spec.of_tasks(len(tasks)), self.examples
        return self.learner.solved(spec, examples.rows[tasks], self.labels[tasks], examples.mask[tasks])

    @override
    def extended(self, data: Data) -> "HeadPosterior":
        rows = torch.cat([self.examples.rows, self.learner.rows(data.x)], 1)
        labels, mask = torch.cat([self.labels, data.y], 1), torch.cat([self.examples.mask, data.mask], 1)
        return self.learner.solved(self.spec, rows, labels, mask)
