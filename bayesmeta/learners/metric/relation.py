"""Relation networks: a network that learns to compare.

Sung, Yang, Zhang, Xiang, Torr, Hospedales 2018 (arXiv:1711.06025), with the mean of a class for the sum:

    e_c = mean_{i in c} h(x_i),   log p(c | x, D) = log π_c + g(e_c, h(x), |e_c - h(x)|, log(1 + n_c)) + const

    phi         e_c, the embedding of each class, a point
    prior       π, the class frequencies
    likelihood  sigmoid g: that x matches class c, and exactly one class does
    inference   the mean of the features of a class
"""

from typing_extensions import override

from bayesmeta.heads.relation import RelationHead
from bayesmeta.learners.metric.base import MetricLearner
from bayesmeta.networks.network import Network


class Relation(MetricLearner):
    """Classification by a learned comparison of the query with the mean features of each class.

    theta is the weights of the features and of the comparison, and the class frequencies. It is trained on the log loss
    of the class; the paper's squared error of match probabilities is `bm.training.SquaredMatchError()`.

    Args:
        features: a network with `num_outputs` = F features of each point on its own.
        num_classes: C, or None for the classes of each task's support.
        map_shape: channels, height and width of the last map that the features flatten, such as `Conv4.map_shape`; None
            takes them as a vector.

    Raises:
        UnsupportedError: features that are no `Network`, or that depend on the other points of a task.
        ShapeError: a `map_shape` of another number of features.
        DataError: fewer than two classes, or a `map_shape` that is not three positive sizes.

    Example:
        >>> import bayesmeta as bm
        >>> features = bm.Conv4((1, 28, 28), channels=16)
        >>> learner = bm.Relation(features, num_classes=2, map_shape=features.map_shape)
        >>> import torch
        >>> posterior = learner.adapt(bm.Data.from_labels(torch.rand(2, 1, 28, 28), [0, 1]))
        >>> posterior.predict(torch.rand(1, 3, 1, 28, 28)).probs.shape
        torch.Size([1, 3, 2])
    """

    def __init__(
        self,
        features: Network,
        *,
        num_classes: int | None = None,
        map_shape: tuple[int, int, int] | None = None,
    ) -> None:
        head = None if map_shape is None else RelationHead(map_shape)
        super().__init__(features, num_classes=num_classes, head=head)

    @override
    @classmethod
    def default_head(cls, num_features: int) -> RelationHead:
        return RelationHead((num_features, 1, 1))
