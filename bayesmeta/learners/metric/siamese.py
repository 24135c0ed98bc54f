"""Siamese networks: whether two points are of one class.

Koch, Zemel, Salakhutdinov 2015 (ICML deep learning workshop), with w >= 0 not demanded:

    logit p(same | x, x') = b - Σ_f w_f |h_f(x) - h_f(x')|
    log p(c | x, D) = log π_c + a n_c^-ρ Σ_{i in c} (logit p(same | x, x_i) + o) + const

    phi         the class of the query, given which pairs are independent
    prior       π, the class frequencies
    likelihood  p(same | x, x') of every pair
    inference   a product of pair likelihoods, to a power that says how far examples of a class repeat each other
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from bayesmeta.data import TaskBatch
from bayesmeta.heads.classes import one_hot
from bayesmeta.heads.head import Examples
from bayesmeta.heads.pairs import PairHead
from bayesmeta.learners.metric.base import MetricLearner
from bayesmeta.networks.network import Network


class Siamese(MetricLearner):
    """Classification by the log odds of pairs to be of one class, summed over the examples of a class.

    theta is the weights of the features, those of pairs (`head.weight`, `head.bias`), and the numbers that make class
    probabilities of pairs (`head.power`, `head.dependence`, `head.offset`, class frequencies).

    It is trained on pairs: every query point of a task with every example, those of one class weighing as much as the
    others together. `fit(..., objective=bm.training.MarginalPredictive())` trains it on the class of the query instead.

    Args:
        features: a network with `num_outputs` = F features of each point on its own.
        num_classes: C, or None for the classes of each task's support.
        head: `PairHead(F)` by default.

    Raises:
        UnsupportedError: features that are no `Network`, or that depend on the other points of a task.
        ShapeError: a head for another number of features.
        DataError: fewer than two classes, or a head that is not a `PairHead`.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.Siamese(bm.MLP(2, [16, 8]), num_classes=3)
        >>> posterior = learner.adapt(bm.Data.from_labels([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [0, 1, 2]))
        >>> posterior.predict([[0.5, 0.5]]).probs.shape
        torch.Size([1, 1, 3])
    """

    head: PairHead

    def __init__(
        self,
        features: Network,
        *,
        num_classes: int | None = None,
        head: PairHead | None = None,
    ) -> None:
        super().__init__(features, num_classes=num_classes, head=head)

    @override
    @classmethod
    def default_head(cls, num_features: int) -> PairHead:
        return PairHead(num_features)

    @override
    def loss(self, tasks: TaskBatch) -> Float[Tensor, "B"]:
        """The cross entropy of balanced pairs, which trains features and pairs, and -log p(y | x, support, theta) / M,
        which trains what makes class probabilities of them and nothing else. In nats.
        """
        support, query = tasks.support, tasks.query
        examples = Examples.of(self.rows(support.x), support.y, support.mask, self.outcomes.count)
        rows = self.rows(query.x)
        pairs = self.head.pairs(rows, examples.rows)
        answers = one_hot(query.y, examples.classes.num_classes, query.mask).to(pairs.dtype)
        same = answers @ examples.targets.mT  # B M N
        real = (query.mask[:, :, None] & examples.mask[:, None]).to(pairs.dtype)
        cross = [
            (part * functional.softplus(sign * pairs)).sum((1, 2)) / part.sum((1, 2)).clamp(min=1.0)
            for part, sign in ((same, -1.0), (real - same, 1.0))
        ]
        prior = self.class_prior(examples.counts, examples.classes.mask)[:, None]
        logits = examples.classes.logits(self.head.scores(pairs.detach(), examples) + prior)
        each = torch.where(answers > 0.0, logits.log_softmax(-1), 0.0).sum((1, 2))
        return 0.5 * (cross[0] + cross[1]) - each / query.counts.clamp(min=1)
