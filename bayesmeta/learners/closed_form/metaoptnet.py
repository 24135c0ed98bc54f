"""MetaOptNet: a convex classifier as the last layer, solved to its optimum.

Lee, Maji, Ravichandran, Soatto 2019 (arXiv:1904.03758), with κ the penalty (`penalty`, the paper's C) and Y the labels
as unit vectors; a score of class c is f_c(x) = w_cᵀ h(x), and k(x) = Φ h(x):

    SVMHead           ½ Σ_c |w_c|² + κ Σ_n max_c (f_c(x_n) + [c ≠ y_n] - f_{y_n}(x_n))    f(x) = αᵀ k(x), eqs. 8-9
    RidgeHead(50.0)   W = Φᵀ (Φ Φᵀ + λ I)⁻¹ Y
    NearestMeanHead   f_c(x) = -|h(x) - μ_c|² / F                                         Snell et al. 2017
    p(c | x, D) ∝ exp(a f_c(x))

    phi         w_c, the last layer, F x C; the class means μ_c for nearest means
    prior       N(0, I); for ridge N(0, I / λ), for class means N(0, τ² I)
    likelihood  the pseudo-likelihood exp(-κ hinge); for the others N(·, 1) on the unit vectors, or on the features
    inference   the optimum, exact (by the SVM's dual), in float64; with the variance of a score, which the softmax uses
"""

from typing_extensions import override

from bayesmeta.heads.classifier import HeadClassifier
from bayesmeta.heads.svm import SVMHead


class MetaOptNet(HeadClassifier):
    """Classification by a convex head on features that all tasks share: `SVMHead()` unless another is given.

    theta is the weights of the features, `scale` (nats for a unit of score), `spread` (of the belief), and the
    parameters of the head. The paper's other heads are `RidgeHead(50.0)`, whose ridge it does not learn, and
    `NearestMeanHead()`.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.MetaOptNet(bm.MLP(2, [16, 8]), num_classes=3, head=bm.heads.NearestMeanHead())
        >>> posterior = learner.adapt(bm.Data.from_labels([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [0, 1, 2]))
        >>> posterior.predict([[0.5, 0.5]]).probs.shape
        torch.Size([1, 1, 3])
    """

    @override
    @classmethod
    def default_head(cls, num_features: int) -> SVMHead:
        return SVMHead()
