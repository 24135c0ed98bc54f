"""Graph networks: labels spread from the examples to a query along edges that are learned.

Garcia & Bruna 2018 (arXiv:1711.04043), with label channels whose weights all classes share:

    A = softmax_j e(h_i, h_j),   h_i <- [h_i, leaky(W [h_i, (A h)_i])],   u_ic <- [u_ic, leaky(V [u_ic, (A u)_ic])]
    p(c | x, D) ∝ π_c exp(score_c(u_q))                 q: the node of the query

u_ic is 1 at an example of class c, and 1/C at the query. A query is in a graph of its own, with all examples.

    phi         the labels of the nodes of a graph, of which the query's is not known
    prior       uniform for the query's, which is what its node starts with
    likelihood  none of its own: what a label says of its neighbours' is learned (W, V and e)
    inference   amortised, a fixed number of rounds of messages: a learned mean field
"""

from typing_extensions import override

from bayesmeta.heads.graph import GraphHead
from bayesmeta.learners.metric.base import MetricLearner


class GraphNetwork(MetricLearner):
    """Classification by learned messages between the examples and a query; it starts as a matching network.

    theta is the weights of the features and of the head's blocks, and the class frequencies. Costs grow with the square
    of the examples, for each query.

    Args:
        features: a network with `num_outputs` = F features of each point on its own.
        num_classes: C, or None for the classes of each task's support.
        head: `GraphHead(F)` by default; give one for another number of blocks, or other sizes.

    Raises:
        UnsupportedError: features that are no `Network`, or that depend on the other points of a task.
        ShapeError: a head for another number of features.
        DataError: fewer than two classes.
        InferenceError: when adapting, too many examples for a matrix between them.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.GraphNetwork(bm.Identity(1), head=bm.heads.GraphHead(2, blocks=2, width=8))
        >>> posterior = learner.adapt(bm.Data.from_labels([-2.0, 2.0, 6.0], [0, 1, 2]))
        >>> posterior.predict([[-3.0], [3.0], [7.0]]).probs.argmax(-1).tolist()
        [[0, 1, 2]]
    """

    @override
    @classmethod
    def default_head(cls, num_features: int) -> GraphHead:
        return GraphHead(num_features)
