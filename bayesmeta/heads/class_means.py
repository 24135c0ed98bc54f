"""Distance to the class means, which have a conjugate prior.

    h(x) ~ N(μ_c, I),   μ_c ~ N(0, τ² I)   =>   μ_c | D ~ N(v_c Σ_{n in c} h(x_n), v_c I),   v_c = τ² / (1 + n_c τ²)
    f_c(x) = -|h(x) - μ_c|² / F

A class without an example has the prior. Scores are moments under this belief. Only differences of scores count, so
they are taken from the mean over the classes of the task, to which what is uncertain goes. τ → ∞ with equal numbers of
examples gives the scores of prototypical networks (Snell et al. 2017).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from typing_extensions import override

from bayesmeta.heads.head import Examples, Head, Scores
from bayesmeta.linalg import squared_norms
from bayesmeta.noise import Positive

VARIANCE_BOUNDS = (1e-6, 1e6)


class NearestMeanHead(Head):
    """The score of a class is the distance to its mean, under a conjugate prior. theta = `prior_variance`, τ².

    As τ² grows, and with equal numbers of examples, it becomes prototypical networks (Snell et al. 2017).

    Args:
        prior_variance: starting τ², in units of the variance of a feature within a class, 1.

    Raises:
        DataError: a prior variance out of bounds.

    Example:
        >>> import bayesmeta as bm
        >>> rows, labels = torch.tensor([[[0.0], [0.2], [4.0]]]).double(), torch.tensor([[0, 0, 1]])
        >>> examples = bm.heads.Examples.of(rows, labels, torch.ones(1, 3, dtype=torch.bool), num_classes=2)
        >>> mean, variance = bm.heads.NearestMeanHead(prior_variance=10.0).solve(examples).at(rows)
        >>> mean.argmax(-1).tolist()
        [[0, 0, 1]]
    """

    def __init__(self, prior_variance: float = 1.0) -> None:
        super().__init__()
        self.prior_variance = Positive((), prior_variance, VARIANCE_BOUNDS)

    @override
    def solve(self, examples: Examples) -> "DistanceScores":
        rows, targets = examples.rows, examples.targets
        variance = 1.0 / (targets.sum(1) + 1.0 / self.prior_variance().to(rows.dtype))
        return DistanceScores(variance[..., None] * (targets.mT @ rows), variance, examples.classes.mask)


@dataclass(frozen=True, eq=False)
class DistanceScores(Scores):
    """-|h - μ_c|² / F less its average over the task's classes, for μ_c ~ N(mean_c, variance_c I).

    Attributes:
        mean: the posterior mean of the class means.
        variance: the posterior variance of each of their entries.
        classes: True = a class of the task.
    """

    mean: Float[Tensor, "B C F"]
    variance: Float[Tensor, "B C"]
    classes: Bool[Tensor, "B C"]

    def at(self, rows: Float[Tensor, "B M F"]) -> tuple[Float[Tensor, "B M C"], Float[Tensor, "B M C"]]:
        """E = -(d + F v) / F and Var = (4 v d + 2 F v²) / F² with d = |h - mean|², then those of the differences."""
        size, v = rows.shape[-1], self.variance[:, None]
        lengths = squared_norms(rows)[..., None] + squared_norms(self.mean)[:, None]
        distance = torch.baddbmm(lengths, rows, self.mean.mT, alpha=-2.0).clamp(min=0.0)
        score = -distance / size - v
        spread = (4.0 * v * distance / size + 2.0 * v.square()) / size
        share = (self.classes.to(rows.dtype) / self.classes.sum(-1, keepdim=True))[:, None]  # 1/C of each class
        score = score - (share * score).sum(-1, keepdim=True)
        # Var(f_c - Σ f / C) = (1 - 1/C)² Var f_c + Σ_others Var f / C²
        return score, spread * (1.0 - 2.0 * share) + (share.square() * spread).sum(-1, keepdim=True)
