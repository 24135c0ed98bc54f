"""Gaussian classes around means of their own, which have a conjugate prior.

    h(x) ~ N(μ_c, σ² I),   μ_c ~ N(0, τ² I)   =>   μ_c | D ~ N(mean_c, v_c I)
    v_c = τ² σ² / (σ² + n_c τ²),   mean_c = v_c Σ_{n in c} h(x_n) / σ²
    f_c(x) = log N(h(x); mean_c, (σ² + s² v_c) I) / F,   p(c | x, D) ∝ π_c exp(a f_c(x)) = π_c N(..)^(a/F)

With a = F and s² = 1 it is the exact Bayes classifier of this model. Features are neither Gaussian nor independent: a
says how many of the F count, and s² how wide the belief about a mean is. The log determinant is what makes classes of
unequal numbers of examples comparable: a class of few is far from its mean, and is allowed to be. Episodes of equal
numbers do not say how much it should count: train on unequal ones where they will be met. A class without an example
has the prior.

τ → ∞ with equal numbers of examples gives the scores of prototypical networks (Snell et al. 2017).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from bayesmeta.heads.head import Examples, Head, Scores
from bayesmeta.linalg import squared_norms
from bayesmeta.noise import Positive

VARIANCE_BOUNDS = (1e-6, 1e6)


class NearestMeanHead(Head):
    """The score of a class is its log predictive density for each feature, under a conjugate prior of its mean.

    theta = `prior_variance`, τ², and `noise`, σ². As τ² grows, and with equal numbers of examples, it becomes
    prototypical networks (Snell et al. 2017).

    Args:
        prior_variance: starting τ², the variance of a feature of a class mean, squared units of a feature.
        noise: starting σ², the variance of a feature within a class.

    Raises:
        DataError: a variance out of bounds.

    Example:
        >>> import bayesmeta as bm
        >>> rows, labels = torch.tensor([[[0.0], [0.2], [4.0]]]).double(), torch.tensor([[0, 0, 1]])
        >>> examples = bm.heads.Examples.of(rows, labels, torch.ones(1, 3, dtype=torch.bool), num_classes=2)
        >>> density, _ = bm.heads.NearestMeanHead(prior_variance=10.0).solve(examples).at(rows)
        >>> density.argmax(-1).tolist()
        [[0, 0, 1]]
    """

    def __init__(self, prior_variance: float = 1.0, noise: float = 1.0) -> None:
        super().__init__()
        self.prior_variance = Positive((), prior_variance, VARIANCE_BOUNDS)
        self.noise = Positive((), noise, VARIANCE_BOUNDS)

    @override
    def solve(self, examples: Examples) -> "ClassDensities":
        rows, noise = examples.rows, self.noise().to(examples.rows.dtype)
        variance = 1.0 / (examples.counts / noise + 1.0 / self.prior_variance().to(rows.dtype))
        return ClassDensities(variance[..., None] * (examples.targets.mT @ rows) / noise, variance, noise)


@dataclass(frozen=True, eq=False)
class ClassDensities(Scores):
    """log N(h; mean_c, (σ² + s² v_c) I) / F: the means are integrated out, and nothing of a score is uncertain.

    Attributes:
        mean: the posterior mean of the class means.
        variance: v_c, the posterior variance of each of their entries.
        noise: σ².
    """

    mean: Float[Tensor, "B C F"]
    variance: Float[Tensor, "B C"]
    noise: Float[Tensor, ""]

    @override
    def at(self, rows: Float[Tensor, "B M F"]) -> tuple[Float[Tensor, "B M C"], Float[Tensor, "B M 1"]]:
        return self._log_density(rows, torch.ones_like(self.noise)), torch.zeros_like(rows[..., :1])

    @override
    def logits(
        self, rows: Float[Tensor, "B M F"], scale: Float[Tensor, ""], spread: Float[Tensor, ""]
    ) -> Float[Tensor, "B M C"]:
        """a log N(h; mean_c, (σ² + s² v_c) I) / F."""
        return scale * self._log_density(rows, spread)

    def _log_density(self, rows: Tensor, spread: Tensor) -> Tensor:
        total = (self.noise + spread * self.variance)[:, None]  # B 1 C
        lengths = squared_norms(rows)[..., None] + squared_norms(self.mean)[:, None]
        distance = torch.baddbmm(lengths, rows, self.mean.mT, alpha=-2.0).clamp(min=0.0)
        return -0.5 * (distance / (total * rows.shape[-1]) + total.log() + math.log(2.0 * math.pi))
