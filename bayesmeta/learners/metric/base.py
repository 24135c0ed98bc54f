"""What learners share that compare a query with the support.

    log p(c | x, D) = log π_c + score_c(x) + const       a head gives the scores, in nats

There is nothing between the scores and the probabilities: what a method believes is in the scores themselves.
"""

from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from bayesmeta.errors import UnsupportedError
from bayesmeta.heads.feature_classifier import FeatureClassifier
from bayesmeta.heads.head import Examples, Head, LogScores, OpenScores, Scores
from bayesmeta.networks.network import Network
from bayesmeta.noise import Positive

POWER_BOUNDS = (1e-4, 1e2)


class MetricLearner(FeatureClassifier):
    """A classifier by comparison: its head has scores in nats (`LogScores`), to which class frequencies are added.

    A subclass is a method of the literature, and says which head it has when none is given.

    Example:
        >>> import bayesmeta as bm
        >>> class ClassMeans(bm.learners.MetricLearner):
        ...     @classmethod
        ...     def default_head(cls, num_features):
        ...         return bm.heads.NearestMeanHead(num_features=num_features)
        >>> posterior = ClassMeans(bm.Identity(1)).adapt(bm.Data.from_labels([-2.0, 2.0], [0, 1]))
        >>> posterior.predict([[-3.0], [3.0]]).probs.argmax(-1).tolist()
        [[0, 1]]
    """

    @override
    def logits(self, scores: Scores, rows: Float[Tensor, "B M F"], examples: Examples) -> Float[Tensor, "B M C"]:
        return self.log_scores(scores, rows) + self.class_prior(examples.counts, examples.classes.mask)[:, None]

    def log_scores(self, scores: Scores, rows: Float[Tensor, "B M F"]) -> Float[Tensor, "B M C"]:
        """The scores of the classes in nats. Raises UnsupportedError where the head's scores have no such unit.

        Args:
            scores: what the head has found.
            rows: features of the query points.
        """
        if not isinstance(scores, LogScores):
            raise UnsupportedError(
                f"expected a head with scores in nats (LogScores), got {type(self.head).__name__}: a HeadClassifier, "
                "such as MetaOptNet(features, head=...), learns what a unit of score is worth"
            )
        return scores.log_scores(rows)


class DensityLearner(MetricLearner):
    """A metric learner whose scores are log densities of features, taken to a learned power a (`power`).

    Features of a network are neither independent nor quite of the assumed law: their density is too sure of itself by
    a factor, F over the number of features that count. p(c | x, D) ∝ π_c p(h(x) | c, D)^a, and so for a class that the
    support does not show.

    Args:
        features: a network with `num_outputs` = F features of each point on its own.
        num_classes: C, or None for the classes of each task's support.
        head: what gives the densities; the method's own by default.
        power: starting a; 1 believes the densities as they are.

    Raises:
        UnsupportedError: features that are no `Network`, or that depend on the other points of a task; a head that is
            no `Head`, or, when it predicts, one whose scores are not in nats.
        ShapeError: a head for another number of features.
        DataError: fewer than two classes, or a power out of bounds.

    Example:
        >>> import bayesmeta as bm
        >>> support = bm.Data.from_labels([-2.0, 2.0], [0, 1])
        >>> for power in (0.1, 1.0):
        ...     posterior = bm.Prototypical(bm.Identity(1), power=power).adapt(support)
        ...     print(round(posterior.predict([[2.0]]).probs[0, 0, 1].item(), 2))
        0.57
        0.94
    """

    def __init__(
        self,
        features: Network,
        *,
        num_classes: int | None = None,
        head: Head | None = None,
        power: float = 1.0,
    ) -> None:
        super().__init__(features, num_classes=num_classes, head=head)
        self.power = Positive((), power, POWER_BOUNDS)

    @override
    def logits(self, scores: Scores, rows: Float[Tensor, "B M F"], examples: Examples) -> Float[Tensor, "B M C"]:
        prior = self.class_prior(examples.counts, examples.classes.mask)
        return self.power().to(rows.dtype) * self.log_scores(scores, rows) + prior[:, None]

    @override
    def log_ratio(
        self, scores: Scores, rows: Float[Tensor, "B M F"], logits: Float[Tensor, "B M C"]
    ) -> Float[Tensor, "B M"] | None:
        if not isinstance(scores, OpenScores):
            return None
        return logits.logsumexp(-1) - self.power().to(rows.dtype) * scores.log_none(rows)
