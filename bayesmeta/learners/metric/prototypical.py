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
    """Classification by class means with a conjugate prior, whose uncertainty grows as examples get fewer."""

    @override
    @classmethod
    def default_head(cls, num_features: int) -> NearestMeanHead:
        return NearestMeanHead(num_features=num_features)
