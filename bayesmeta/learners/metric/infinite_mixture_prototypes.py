"""Infinite mixture prototypes: a class has as many clusters as its examples ask for.

Allen, Shelhamer, Shin, Tenenbaum 2019 (arXiv:1902.04552), with the weights and variances that their nearest prototype
leaves out: in features h(x) a class is a Dirichlet-process mixture of Gaussians N(μ_k, σ² I), so that

    p(h | c, D) = Σ_k n_k / (n_c + α) N(h; mean_k, (σ² + v_k) I) + α / (n_c + α) N(h; m0, (σ² + τ²) I)
    p(c | x, D) ∝ π_c p(h(x) | c, D)^a

The power a is taken of the mixture, not of its clusters. It stands for features that repeat each other, of which only
a F count: that says how much a point tells of its class, not how wide a cluster is. Which cluster a point is of is
decided by the densities as they are, as among the examples, and a class remains about as near as its nearest cluster.
Inside, Σ_k w_k N_k^a would be a mixture of clusters whose variances are 1/a times as large, and a class of many
clusters an average of them.

    phi         μ_k, the means of the clusters of each class
    prior       a Dirichlet process of concentration α, with N(m0, τ² I) for the means; m0 and τ are learned
    likelihood  h(x) ~ N(μ_k, σ² I) given the cluster: of the features of a point, not of its label
    inference   DP-means for which examples belong together (`ClusterHead`), exact given that
"""

from typing_extensions import override

from bayesmeta.heads.clusters import ClusterHead
from bayesmeta.learners.metric.base import DensityLearner


class InfiniteMixturePrototypes(DensityLearner):
    """Classification by class mixtures, for classes that are not one cluster: an alphabet, a genus, a file type.

    theta is the weights of the features, the location m0, the variances of cluster means and of points within a cluster
    (`head.location`, `head.prior_variance`, `head.noise`), the power a (`power`) and the class frequencies.

    Args:
        features: a network with `num_outputs` = F features of each point on its own.
        num_classes: C, or None for the classes of each task's support.
        head: `ClusterHead(F)` by default; give one for other starting values, or to choose when clusters are born.
        power: starting a; 1 is exact where features are Gaussian and independent.

    Raises:
        UnsupportedError: features that are no `Network`, or that depend on the other points of a task.
        ShapeError: a head for another number of features.
        DataError: fewer than two classes, or a power out of bounds.
        InferenceError: when adapting, too many examples for a matrix between them.

    Example:
        >>> import bayesmeta as bm
        >>> support = bm.Data.from_labels([-9.0, 9.0, 0.0], [0, 0, 1])  # class 0 is on both sides of class 1
        >>> head = bm.heads.ClusterHead(2, prior_variance=100.0)
        >>> posterior = bm.InfiniteMixturePrototypes(bm.Identity(1), head=head).adapt(support)
        >>> posterior.predict([[-8.0], [0.5], [8.0]]).probs.argmax(-1).tolist()
        [[0, 1, 0]]
    """

    @override
    @classmethod
    def default_head(cls, num_features: int) -> ClusterHead:
        return ClusterHead(num_features)
