"""Ridge regression on unit vectors, in closed form, with every class counting alike.

    W = Φᵀ (Φ Φᵀ + λ D⁻¹)⁻¹ Y,   f(x) = Wᵀ h(x)       in the space of points, or of features if smaller
    v(x) = hᵀ (ΦᵀDΦ + λ I)⁻¹ h                        of every class
    D = diag(h / n_c)                                 h: harmonic mean of the n_c; D = I where they are equal

Read as inference, W is the posterior mean under W ~ N(0, I / λ) and unit vectors y = Wᵀ h(x) + ε, ε_n ~ N(0, 1 / D_n),
and v the posterior variance of a score. Without D a class of few examples is scored too low.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from bayesmeta.heads.head import Examples, Head, Scores
from bayesmeta.inference import linear_gaussian
from bayesmeta.inference.linear_gaussian import LinearGaussian
from bayesmeta.noise import Positive

RIDGE_BOUNDS = (1e-6, 1e6)


class RidgeHead(Head):
    """Ridge regression on unit vectors. theta = `ridge`, which is learned; `head.requires_grad_(False)` keeps it.

    Args:
        ridge: starting λ, in units of the variance of a label, 1.

    Raises:
        DataError: a ridge out of bounds.

    Example:
        >>> import torch
        >>> import bayesmeta as bm
        >>> rows, labels = torch.eye(2).double()[None], torch.tensor([[0, 1]])  # of two points, each a feature
        >>> examples = bm.heads.Examples.of(rows, labels, torch.ones(1, 2, dtype=torch.bool), num_classes=2)
        >>> mean, variance = bm.heads.RidgeHead(ridge=1.0).solve(examples).at(rows)
        >>> mean.round(decimals=3).tolist(), variance.round(decimals=3).flatten().tolist()  # 1 / (1 + λ)
        ([[[0.5, 0.0], [0.0, 0.5]]], [0.5, 0.5])
    """

    def __init__(self, ridge: float = 1.0) -> None:
        super().__init__()
        self.ridge = Positive((), ridge, RIDGE_BOUNDS)

    @override
    def solve(self, examples: Examples) -> "RidgeScores":
        deviation = self.ridge().to(examples.rows.dtype).rsqrt()
        root = examples.weights.sqrt()[..., None]
        # numbers of points before numbers of features: each copy of many features is as dear as all else
        belief = linear_gaussian.condition(root * deviation * examples.rows, root * examples.targets, examples.mask)
        return RidgeScores(belief, deviation)


@dataclass(frozen=True, eq=False)
class RidgeScores(Scores):
    """Posterior mean and variance of the scores: all classes have one variance.

    Attributes:
        belief: of the whitened weights, labels having variance 1 / D.
        deviation: the prior's, by which features are whitened.
    """

    belief: LinearGaussian
    deviation: Float[Tensor, ""]

    @override
    def at(self, rows: Float[Tensor, "B M F"]) -> tuple[Float[Tensor, "B M C"], Float[Tensor, "B M 1"]]:
        mean, variance = self.belief.predict(rows)  # linear and quadratic in the rows, which are not whitened here
        return mean * self.deviation, variance[..., None] * self.deviation.square()
