"""R2-D2: ridge regression as the last layer, solved in closed form.

Bertinetto, Henriques, Torr, Vedaldi 2019 (arXiv:1805.08136), sec. 3.2, with λ the ridge (`head.ridge`) and Y the labels
as unit vectors:

    W = Φᵀ (Φ Φᵀ + λ I)⁻¹ Y                                 eq. 6, in the space of points; that of features if smaller
    p(c | x, D) ∝ exp(a f_c(x)),   f(x) = Wᵀ h(x)           eq. 7; a constant b added to all classes changes nothing

Read as inference, W is the posterior mean under W ~ N(0, I / λ) and labels y = Wᵀ h(x) + ε, ε ~ N(0, I); with it comes
the variance v(x) = hᵀ (ΦᵀΦ + λ I)⁻¹ h of a score, which the paper throws away and the softmax here uses.

    phi         W, the last layer, F x C
    prior       N(0, I / ridge), explicit
    likelihood  Gaussian, of the labels as unit vectors: a pseudo-likelihood
    inference   exact, in float64 whatever the precision of the features
"""

from typing_extensions import override

from bayesmeta.heads.classifier import HeadClassifier
from bayesmeta.heads.ridge import RidgeHead


class R2D2(HeadClassifier):
    """Classification by ridge regression on unit vectors: a `HeadClassifier` whose head is `RidgeHead()`.

    theta is the weights of the features, the ridge (`head.ridge`), `scale` (nats for a unit of score) and `spread` (of
    the belief). `R2D2Regressor` is the same method for numbers.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.R2D2(bm.MLP(2, [16, 8]), num_classes=3)
        >>> posterior = learner.adapt(bm.Data.from_labels([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [0, 1, 2]))
        >>> posterior.predict([[0.5, 0.5]]).probs.shape
        torch.Size([1, 1, 3])
    """

    default_scale = 10.0

    @override
    @classmethod
    def default_head(cls, num_features: int) -> RidgeHead:
        return RidgeHead()
