"""Multinomial logistic regression, solved to its optimum by Newton's method, with every class counting alike.

W = argmax Σ_n D_n log softmax(Wᵀ h(x_n))_{y_n} - λ/2 |W|²,   with Laplace's approximation around it
D_n = h / n_c       h: harmonic mean of the numbers of examples; 1 where they are equal
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from bayesmeta.heads.head import Examples, Head, Scores
from bayesmeta.inference.logistic import LogisticBelief, logistic
from bayesmeta.linalg import require_matrix
from bayesmeta.noise import Positive

RIDGE_BOUNDS = (1e-6, 1e6)


class LogisticHead(Head):
    """Multinomial logistic regression under W ~ N(0, I / λ), with Laplace's approximation. theta = `ridge`, λ.

    Args:
        ridge: starting λ, the prior precision of a weight.

    Raises:
        DataError: a ridge out of bounds.
        InferenceError: when solved, Newton's method does not converge.

    Example:
        >>> import torch
        >>> import bayesmeta as bm
        >>> rows, labels = torch.tensor([[[-1.0], [1.0]]]).double(), torch.tensor([[0, 1]])
        >>> examples = bm.heads.Examples.of(rows, labels, torch.ones(1, 2, dtype=torch.bool), num_classes=2)
        >>> mean, variance = bm.heads.LogisticHead(ridge=0.1).solve(examples).at(rows)
        >>> mean.argmax(-1).tolist(), variance.shape
        ([[0, 1]], torch.Size([1, 2, 2]))
    """

    def __init__(self, ridge: float = 1.0) -> None:
        super().__init__()
        self.ridge = Positive((), ridge, RIDGE_BOUNDS)

    @override
    def solve(self, examples: Examples) -> "LogisticScores":
        require_matrix(examples.rows.shape[1], examples.rows.shape[1])
        deviation = self.ridge().to(examples.rows.dtype).rsqrt()
        white = examples.rows * deviation
        belief = logistic(
            white @ white.mT, examples.targets, examples.mask, examples.classes.mask, weights=examples.weights
        )
        return LogisticScores(deviation, white, belief)


@dataclass(frozen=True, eq=False)
class LogisticScores(Scores):
    """Scores of logistic regression: each class has a variance of its own.

    Attributes:
        deviation: the prior's, by which features are whitened.
        support: whitened features of the support.
        belief: Laplace's approximation at the support.
    """

    deviation: Float[Tensor, ""]
    support: Float[Tensor, "B N F"]
    belief: LogisticBelief

    @override
    def at(self, rows: Float[Tensor, "B M F"]) -> tuple[Float[Tensor, "B M C"], Float[Tensor, "B M C"]]:
        white = rows * self.deviation
        return self.belief.predict(white @ self.support.mT, white.square().sum(-1))
