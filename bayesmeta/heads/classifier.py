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

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.heads.feature_classifier import FeatureClassifier
from bayesmeta.heads.head import Examples, Head, Scores
from bayesmeta.networks.network import Network
from bayesmeta.noise import Positive

SCALE_BOUNDS = (1e-3, 1e4)
SPREAD_BOUNDS = (1e-8, 1e8)


class HeadClassifier(FeatureClassifier):
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

    Raises:
        UnsupportedError: the features are not a `Network`, or depend on the other points of a task; a head that is not
            a `Head`.
        ShapeError: a head for another number of features.
        DataError: fewer than two classes, or a scale or spread out of bounds.

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

    default_scale: float = 1.0

    def __init__(
        self,
        features: Network,
        *,
        num_classes: int | None = None,
        head: Head | None = None,
        scale: float | None = None,
        spread: float = 1.0,
    ) -> None:
        super().__init__(features, num_classes=num_classes, head=head)
        self.scale = Positive((), self.default_scale if scale is None else scale, SCALE_BOUNDS)
        self.spread = Positive((), spread, SPREAD_BOUNDS)
        self.scarcity = nn.Parameter(torch.zeros(()))

    @override
    def logits(self, scores: Scores, rows: Float[Tensor, "B M F"], examples: Examples) -> Float[Tensor, "B M C"]:
        counts = examples.counts
        few = 2.0 * self.scarcity.to(rows.dtype) / (counts + 1.0)
        offset = few + self.class_prior(counts, examples.classes.mask)  # B C
        return scores.logits(rows, self.scale().to(rows.dtype), self.spread().to(rows.dtype)) + offset[:, None]

    @override
    def log_ratio(self, scores: Scores, rows: Tensor, logits: Tensor) -> None:
        return None  # scale and spread are those of a softmax: a class that is not there has no score in their units
