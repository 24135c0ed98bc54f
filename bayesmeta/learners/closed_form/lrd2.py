"""LR-D2: logistic regression as the last layer, solved by Newton's method.

Bertinetto, Henriques, Torr, Vedaldi 2019 (arXiv:1805.08136), sec. 3.3; here with all classes at once in place of one
against the rest, to convergence in place of a few steps, and with the gradient of the optimum:

    W = argmax Σ_n log softmax(Wᵀ h(x_n))_{y_n} - λ/2 |W|²

    phi         W, the last layer, F x C
    prior       N(0, I / ridge), explicit
    likelihood  Categorical with logits Wᵀ h(x)
    inference   MAP by Newton's method (iteratively reweighted least squares), Laplace around it; in float64
"""

from typing_extensions import override

from bayesmeta.heads.classifier import HeadClassifier
from bayesmeta.heads.logistic import LogisticHead


class LRD2(HeadClassifier):
    """Classification by multinomial logistic regression: a `HeadClassifier` whose head is `LogisticHead()`.

    theta is the weights of the features, the ridge (`head.ridge`), `scale` (1: the logits as they are) and `spread` (of
    the belief).

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.LRD2(bm.MLP(2, [16, 8]), num_classes=3)
        >>> posterior = learner.adapt(bm.Data.from_labels([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [0, 1, 2]))
        >>> posterior.predict([[0.5, 0.5]]).probs.shape
        torch.Size([1, 1, 3])
    """

    @override
    @classmethod
    def default_head(cls, num_features: int) -> LogisticHead:
        return LogisticHead()
