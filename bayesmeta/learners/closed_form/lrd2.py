"""LR-D2: logistic regression as the last layer, solved by Newton's method.

Bertinetto, Henriques, Torr, Vedaldi 2019 (arXiv:1805.08136), sec. 3.3; here with all classes at once in place of one
against the rest, to convergence in place of a few steps, and with the gradient of the optimum:

    W = argmax Σ_n log softmax(Wᵀ φ(x_n))_{y_n} - λ/2 |W|²

    phi         W, the last layer, F x C
    prior       N(0, I / ridge), explicit
    likelihood  Categorical with logits Wᵀ φ(x)
    inference   MAP by Newton's method (iteratively reweighted least squares), Laplace around it; in float64
"""

from jaxtyping import Bool, Float
from torch import Tensor

from bayesmeta.heads.classes import Classes
from bayesmeta.inference.logistic import LogisticBelief, logistic
from bayesmeta.learners.closed_form._classifier import HeadClassifier, Scores
from bayesmeta.networks.network import Network
from bayesmeta.noise import Positive

RIDGE_BOUNDS = (1e-6, 1e6)


class LRD2(HeadClassifier):
    """Classification by multinomial logistic regression.

    theta = the features' weights, `ridge`, `scale` (1: the logits as they are) and `spread` (of the belief).

    Args:
        features: φ, a network with `num_outputs` = F features of each point on its own.
        num_classes: C; None: the classes of each task are those of its support.
        ridge: starting λ.
        scale: starting a, nats for a unit of logit.
        spread: starting s², in units of Laplace's variance.

    Raises:
        UnsupportedError: features that are not a `Network`, or not of each point on its own. DataError: fewer than two
            classes, or a value out of bounds.
    """

    def __init__(
        self,
        features: Network,
        num_classes: int | None = None,
        ridge: float = 1.0,
        scale: float = 1.0,
        spread: float = 1.0,
    ) -> None:
        super().__init__(features, num_classes, scale, spread)
        self.ridge = Positive((), ridge, RIDGE_BOUNDS)

    def solve(
        self,
        rows: Float[Tensor, "B N F"],
        targets: Float[Tensor, "B N C"],
        mask: Bool[Tensor, "B N"],
        classes: Classes,
    ) -> "LogisticScores":
        """The MAP and Laplace's variance. Raises InferenceError where Newton's method does not arrive."""
        deviation = self.ridge().to(rows.dtype).rsqrt()
        white = rows * deviation
        return LogisticScores(deviation, white, logistic(white @ white.mT, targets, mask, classes.mask))


class LogisticScores(Scores):
    """Scores of logistic regression: each class has a variance of its own."""

    def __init__(self, deviation: Float[Tensor, ""], support: Float[Tensor, "B N F"], belief: LogisticBelief) -> None:
        self.deviation, self.support, self.belief = deviation, support, belief

    def at(self, rows: Float[Tensor, "B M F"]) -> tuple[Float[Tensor, "B M C"], Float[Tensor, "B M C"]]:
        """Mean and variance of the logits."""
        white = rows * self.deviation
        return self.belief.predict(white @ self.support.mT, white.square().sum(-1))
