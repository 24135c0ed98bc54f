"""Prototypical networks: classes are Gaussians around means of their own.

Snell, Swersky, Zemel 2017 (arXiv:1703.05175), with the variances that their Euclidean distance leaves out: in features
h(x) a class c is N(μ_c, σ² I), and its mean has a conjugate prior, so that

    v_c = (1/τ² + n_c/σ²)⁻¹,   mean_c = v_c (m0/τ² + Σ_{n in c} h(x_n)/σ²)
    p(c | x, D) ∝ π_c N(h(x); mean_c, (σ² + v_c) I)^a

The paper's softmax(-|h(x) - mean_c|²) is the limit τ → ∞ with σ² = 1/2, a = 1 and equal numbers of examples.

    phi         μ_c, the class means, C x F
    prior       N(m0, τ² I) for each, explicit; m0 and τ are learned
    likelihood  h(x) ~ N(μ_c, σ² I) given the class: of the features of a point, not of its label
    inference   exact
"""

from typing_extensions import override

from bayesmeta.heads.class_means import NearestMeanHead
from bayesmeta.learners.metric.base import DensityLearner


class Prototypical(DensityLearner):
    """Classification by class means with a conjugate prior, whose uncertainty grows as examples get fewer.

    theta is the weights of the features, the location m0, the variances of class means and of points within a class
    (`head.location`, `head.prior_variance`, `head.noise`), the power a (`power`) and the class frequencies. Predictions
    also say how probable a point is under the classes (`OpenSetPredictive`): that of a class which nobody showed is
    N(m0, (σ² + τ²) I). `bm.learners.GaussianClasses` is the same model with phi by name, for samplers and programs.

    With unequal numbers of examples train on such (`Episodes(shots=(1, 10))`): equal numbers leave the power free.

    Args:
        features: a network with `num_outputs` = F features of each point on its own.
        num_classes: C, or None for the classes of each task's support.
        head: `NearestMeanHead(num_features=F)` by default; give one for other starting values.
        power: starting a; 1 is exact where features are Gaussian and independent.

    Raises:
        UnsupportedError: features that are no `Network`, or that depend on the other points of a task.
        ShapeError: a head for another number of features.
        DataError: fewer than two classes, or a power out of bounds.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.Prototypical(bm.MLP(2, [16, 8]))
        >>> posterior = learner.adapt(bm.Data.from_labels([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [0, 1, 2]))
        >>> prediction = posterior.predict([[0.5, 0.5], [90.0, -90.0]])
        >>> prediction.probs.shape, prediction.none_of_these(0.05)[0].argmax().item()
        (torch.Size([1, 2, 3]), 1)
    """

    @override
    @classmethod
    def default_head(cls, num_features: int) -> NearestMeanHead:
        return NearestMeanHead(num_features=num_features)
