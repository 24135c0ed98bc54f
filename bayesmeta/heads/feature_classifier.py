"""What classifiers share whose last step is solved on features: the support is features with labels, and so is a query.

    h(x)                 features that all tasks share, of each point on its own
    head                 what the features and labels of the support say of the score of a class (`Head.solve`)
    p(c | x, D)          what the classifier makes of the scores (`logits`)

A subclass gives `default_head` and `logits`. Classes of a task may have unequal numbers of examples; how frequent they
are is for π (`ClassPrior`) to say.
"""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.distributions import Categorical
from typing_extensions import override

from bayesmeta.arguments import whole
from bayesmeta.data import Data, DataSpec
from bayesmeta.errors import ShapeError, UnsupportedError
from bayesmeta.heads.class_prior import ClassPrior
from bayesmeta.heads.head import Examples, Head, OpenScores, Scores
from bayesmeta.learner import Learner, TaskPosterior
from bayesmeta.networks.network import Network
from bayesmeta.networks.requirements import require_pointwise
from bayesmeta.outcomes import Labels
from bayesmeta.predictives import IndependentPredictive, OpenSetPredictive
from bayesmeta.typing import Params

HEAD_RATE = 10.0


class FeatureClassifier(Learner):
    """A classifier that is a head on features: it learns the features, the head's own numbers, and class frequencies.

    A subclass is a way to turn scores into probabilities (`logits`), and says which head it has when none is given.

    Args:
        features: a network with `num_outputs` = F features of each point on its own.
        num_classes: C, the classes of every task, with or without an example, which have names: class 1 is the same in
            every task, and may be rarer than class 0. None: those of the task's support, each with an example, as many
            as it has.
        head: what is solved on the features; the method's own by default.

    Raises:
        UnsupportedError: the features are not a `Network`, or depend on the other points of a task; a head that is not
            a `Head`.
        ShapeError: a head for another number of features.
        DataError: fewer than two classes.

    Example:
        >>> import bayesmeta as bm
        >>> class Ridge(bm.heads.FeatureClassifier):
        ...     '''A softmax of ridge regression on unit vectors.'''
        ...     @classmethod
        ...     def default_head(cls, num_features):
        ...         return bm.heads.RidgeHead(ridge=0.1)
        ...     def logits(self, scores, rows, examples):
        ...         return 10.0 * scores.at(rows)[0]
        >>> posterior = Ridge(bm.Identity(1), num_classes=2).adapt(bm.Data.from_labels([-1.0, 1.0], [0, 1]))
        >>> posterior.predict([-3.0, 3.0]).probs.argmax(-1).tolist()
        [[0, 1]]
    """

    outcomes: Labels

    def __init__(
        self,
        features: Network,
        *,
        num_classes: int | None = None,
        head: Head | None = None,
    ) -> None:
        super().__init__()
        require_pointwise(features)
        head = self.default_head(features.num_outputs) if head is None else head
        if not isinstance(head, Head):
            raise UnsupportedError(f"expected a head such as RidgeHead(), got {head!r}")
        if head.num_features not in (None, features.num_outputs):
            raise ShapeError(f"expected a head on {features.num_outputs} features, got one on {head.num_features}")
        self.features, self.x_shape, self.outcomes = features, features.x_shape, Labels(num_classes)
        self.head = head
        self.class_prior = ClassPrior(num_classes)

    @classmethod
    @abstractmethod
    def default_head(cls, num_features: int) -> Head:
        """The method's own head, for F features."""

    @abstractmethod
    def logits(self, scores: Scores, rows: Float[Tensor, "B M F"], examples: Examples) -> Float[Tensor, "B M C"]:
        """log p(c | x, D) up to a constant of each point, in nats; what it says of no class of a task means nothing.

        Args:
            scores: what the head has found.
            rows: features of the query points, as `rows` gives them.
            examples: of the support.
        """

    def log_ratio(
        self, scores: Scores, rows: Float[Tensor, "B M F"], logits: Float[Tensor, "B M C"]
    ) -> Float[Tensor, "B M"] | None:
        """log p(x | classes, D) - log p(x | a class that the support does not show), in nats: None where the head knows
        of no such class.

        Args:
            scores: what the head has found.
            rows: features of the query points.
            logits: of the classes of each task, -inf for what is none.
        """
        return logits.logsumexp(-1) - scores.log_none(rows) if isinstance(scores, OpenScores) else None

    def configure_optimizer(self, lr: float = 1e-3) -> torch.optim.Optimizer:
        """Adam; the few numbers of the head, which set its units and are learned as logarithms, go 10 times as fast.

        The weights of a head that is a network go as those of the features.
        """
        trained = [(self._is_weight(name, p), p) for name, p in self.named_parameters() if p.requires_grad]
        slow, fast = [p for is_weight, p in trained if is_weight], [p for is_weight, p in trained if not is_weight]
        groups = [{"params": slow, "lr": lr}, {"params": fast, "lr": HEAD_RATE * lr}]
        return torch.optim.Adam([group for group in groups if group["params"]], lr=lr)

    def _is_weight(self, name: str, parameter: Tensor) -> bool:
        if self.head.precision is None and name.startswith("head."):
            return parameter.ndim > 0
        return name.startswith("features.")

    def log_hyperprior(self) -> Float[Tensor, ""]:
        """What the head says of its own parameters, in nats."""
        return self.head.log_hyperprior()

    @override
    def prepare(self, tasks: Data) -> None:
        """Start the frequencies of the classes at those of the meta-training points, where classes have names."""
        self.class_prior.take_frequencies(tasks.y[tasks.mask])

    def rows(self, x: Float[Tensor, "B N *x"]) -> Float[Tensor, "B N F"]:
        """The features h of points, in the precision of the head."""
        rows = self.features(x)
        return rows if self.head.precision is None else rows.to(self.head.precision)

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

    learner: FeatureClassifier
    examples: Examples
    labels: Int[Tensor, "B N"]
    scores: Scores

    @property
    @override
    def points_seen(self) -> Int[Tensor, "B"]:
        return self.examples.mask.sum(-1)

    @override
    def at(self, x: Float[Tensor, "B M *x"]) -> IndependentPredictive:
        rows = self.learner.rows(x)
        logits = self.examples.classes.logits(self.learner.logits(self.scores, rows, self.examples))
        ratio = self.learner.log_ratio(self.scores, rows, logits)
        labels = Categorical(logits=logits, validate_args=False)
        return IndependentPredictive(labels) if ratio is None else OpenSetPredictive(labels, log_ratio=ratio)

    def sample(self, num_draws: int, generator: torch.Generator | None = None) -> Params:
        """Draws of phi, each value `S B *shape`. Raises UnsupportedError where the head has no density of it.

        Args:
            num_draws: S.
            generator: the global one when None.
        """
        return self.scores.sample(whole(num_draws, "num_draws"), generator)

    @override
    def selected(self, tasks: Int[Tensor, "K"]) -> "HeadPosterior":
        spec, examples = self.spec.of_tasks(len(tasks)), self.examples
        return self.learner.solved(spec, examples.rows[tasks], self.labels[tasks], examples.mask[tasks])

    @override
    def extended(self, data: Data) -> "HeadPosterior":
        rows = torch.cat([self.examples.rows, self.learner.rows(data.x)], 1)
        labels, mask = torch.cat([self.labels, data.y], 1), torch.cat([self.examples.mask, data.mask], 1)
        return self.learner.solved(self.spec, rows, labels, mask)
