"""The support vector machine of Crammer & Singer 2001, by its dual.

    ½ Σ_c |w_c|² + κ Σ_n D_n max_c (f_c(x_n) + [c ≠ y_n] - f_{y_n}(x_n)),   f(x) = αᵀ k(x),   k(x) = Φ h(x)

D_n = h / n_c, h being the harmonic mean of the numbers of examples, lets every class count alike: 1 where they are
equal.

A hinge has no curvature, and so no Laplace variance. The variance of a score is that of the least-squares support
vector machine at the same penalties (Suykens & Vandewalle 1999), κ/2 error² in place of the hinge, for all classes:

    v(x) = k(x, x) - k(x)ᵀ (K + D⁻¹/κ)⁻¹ k(x)
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from bayesmeta.heads.head import Examples, Head, Scores
from bayesmeta.inference.svm import svm_dual
from bayesmeta.linalg import cholesky, require_matrix, solve_lower, squared_norms
from bayesmeta.noise import Positive

PENALTY_BOUNDS = (1e-6, 1e6)


class SVMHead(Head):
    """A multiclass support vector machine, differentiated through its optimum. theta = `penalty`, κ.

    Args:
        penalty: starting κ, nats for a unit of hinge, and the largest weight of a point.

    Raises:
        DataError: a penalty out of bounds.
        InferenceError: when solved, the optimality conditions are not met.

    Example:
        >>> import bayesmeta as bm
        >>> rows, labels = torch.tensor([[[-1.0], [1.0]]]).double(), torch.tensor([[0, 1]])
        >>> examples = bm.heads.Examples.of(rows, labels, torch.ones(1, 2, dtype=torch.bool), num_classes=2)
        >>> mean, variance = bm.heads.SVMHead(penalty=10.0).solve(examples).at(rows)
        >>> mean.round(decimals=3).tolist()  # apart by the margin, 1
        [[[0.5, -0.5], [-0.5, 0.5]]]
    """

    def __init__(self, penalty: float = 0.1) -> None:
        super().__init__()
        self.penalty = Positive((), penalty, PENALTY_BOUNDS)

    @override
    def solve(self, examples: Examples) -> "DualScores":
        rows = examples.rows
        require_matrix(rows.shape[1], rows.shape[1])
        penalty, kernel, weights = self.penalty().to(rows.dtype), rows @ rows.mT, examples.weights
        dual = svm_dual(kernel, examples.targets, examples.mask, examples.classes.mask, penalty, weights=weights)
        noise = torch.where(examples.mask, 1.0 / torch.where(examples.mask, weights, 1.0), 1.0) / penalty
        return DualScores(rows, dual, cholesky(kernel + torch.diag_embed(noise), "support covariance"))


@dataclass(frozen=True, eq=False)
class DualScores(Scores):
    """αᵀ k(x), with the variance that a Gaussian process of the same kernel has: all classes have one.

    Attributes:
        rows: Φ of the support, zero where padded.
        dual: α.
        factor: the Cholesky factor of K + D⁻¹/κ.
    """

    rows: Float[Tensor, "B N F"]
    dual: Float[Tensor, "B N C"]
    factor: Float[Tensor, "B N N"]

    @override
    def at(self, rows: Float[Tensor, "B M F"]) -> tuple[Float[Tensor, "B M C"], Float[Tensor, "B M 1"]]:
        cross = self.rows @ rows.mT
        explained = solve_lower(self.factor, cross).square().sum(-2)
        variance = (squared_norms(rows) - explained).clamp(min=0.0)  # only rounding is below zero
        return cross.mT @ self.dual, variance[..., None]
