"""Gaussian classes around means of their own, which have a conjugate prior.

    h(x) ~ N(μ_c, σ² I),   μ_c ~ N(m0, τ² I)   =>   μ_c | D ~ N(mean_c, v_c I)
    v_c = τ² σ² / (σ² + n_c τ²),   mean_c = v_c (m0 / τ² + Σ_{n in c} h(x_n) / σ²)
    log N(h(x); mean_c, (σ² + v_c) I)        the score of a class
    log N(h(x); m0, (σ² + τ²) I)             that of a class without an example

A softmax of the scores is the exact Bayes classifier of this model. Features are neither Gaussian nor independent, so
that a classifier takes them to a power a, and `HeadClassifier` also lets the width of the belief be learned:

    p(c | x, D) ∝ π_c N(h(x); mean_c, (σ² + s² v_c) I)^(a / F)

The log determinant is what makes classes of unequal numbers of examples comparable: a class of few is far from its
mean, and is allowed to be. Episodes of equal numbers do not say how much it should count: train on unequal ones where
they will be met. A class without an example has the prior.

τ → ∞ with equal numbers of examples, σ² = 1/2 and a power of 1 gives the softmax(-|h - mean_c|²) of prototypical
networks (Snell et al. 2017).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.distributions import common_normals
from bayesmeta.errors import DataError
from bayesmeta.heads.head import Examples, Head, OpenScores
from bayesmeta.linalg import squared_norms
from bayesmeta.noise import Positive
from bayesmeta.typing import Params

VARIANCE_BOUNDS = (1e-6, 1e6)


class NearestMeanHead(Head):
    """The score of a class is its log predictive density under a conjugate prior of its mean.

    theta = `prior_variance`, τ², `noise`, σ², and, where F is given, `location`, m0.

    Args:
        prior_variance: starting τ², the variance of a feature of a class mean, squared units of a feature.
        noise: starting σ², the variance of a feature within a class.
        num_features: F; then m0, the mean of the class means, is learned, from 0. None: it is 0, and any features do.

    Raises:
        DataError: a variance out of bounds, or no features.

    Example:
        >>> import bayesmeta as bm
        >>> rows, labels = torch.tensor([[[0.0], [0.2], [4.0]]]).double(), torch.tensor([[0, 0, 1]])
        >>> examples = bm.heads.Examples.of(rows, labels, torch.ones(1, 3, dtype=torch.bool), num_classes=2)
        >>> density = bm.heads.NearestMeanHead(prior_variance=10.0).solve(examples).log_scores(rows)
        >>> density.argmax(-1).tolist()
        [[0, 0, 1]]
    """

    def __init__(self, prior_variance: float = 1.0, noise: float = 1.0, num_features: int | None = None) -> None:
        super().__init__()
        if num_features is not None and num_features < 1:
            raise DataError(f"expected at least one feature, got {num_features}")
        self.num_features = num_features
        self.prior_variance = Positive((), prior_variance, VARIANCE_BOUNDS)
        self.noise = Positive((), noise, VARIANCE_BOUNDS)
        self.location = None if num_features is None else nn.Parameter(torch.zeros(num_features))

    @override
    def solve(self, examples: Examples) -> "ClassDensities":
        rows, noise = examples.rows, self.noise().to(examples.rows.dtype)
        prior = self.prior_variance().to(rows.dtype)
        location = rows.new_zeros(rows.shape[-1]) if self.location is None else self.location.to(rows.dtype)
        variance = 1.0 / (examples.counts / noise + 1.0 / prior)
        mean = variance[..., None] * (examples.targets.mT @ rows / noise + location / prior)
        return ClassDensities(mean, variance, noise, location, prior)


@dataclass(frozen=True, eq=False)
class ClassDensities(OpenScores):
    """log N(h; mean_c, (σ² + v_c) I): the means are integrated out, and nothing of a score is uncertain.

    Attributes:
        mean: the posterior mean of the class means.
        variance: v_c, the posterior variance of each of their entries.
        noise: σ².
        location: m0.
        prior_variance: τ².
    """

    mean: Float[Tensor, "B C F"]
    variance: Float[Tensor, "B C"]
    noise: Float[Tensor, ""]
    location: Float[Tensor, "F"]
    prior_variance: Float[Tensor, ""]

    @override
    def log_scores(self, rows: Float[Tensor, "B M F"]) -> Float[Tensor, "B M C"]:
        return log_density(rows, self.mean, self.noise + self.variance)

    @override
    def log_none(self, rows: Float[Tensor, "B M F"]) -> Float[Tensor, "B M"]:
        mean = self.location.expand(rows.shape[0], 1, -1)
        return log_density(rows, mean, (self.noise + self.prior_variance).expand(rows.shape[0], 1))[..., 0]

    @override
    def sample(self, num_draws: int, generator: torch.Generator | None = None) -> Params:
        """Draws of the class means, `mean`, `S B C F`."""
        normal = common_normals((num_draws, *self.mean.shape), self.mean, generator)
        return {"mean": self.mean + self.variance.sqrt()[..., None] * normal}

    @override
    def logits(
        self, rows: Float[Tensor, "B M F"], scale: Float[Tensor, ""], spread: Float[Tensor, ""]
    ) -> Float[Tensor, "B M C"]:
        """a log N(h; mean_c, (σ² + s² v_c) I) / F."""
        return scale / rows.shape[-1] * log_density(rows, self.mean, self.noise + spread * self.variance)


def log_density(
    rows: Float[Tensor, "B M F"], mean: Float[Tensor, "*s B C F"], variance: Float[Tensor, "*s B C"]
) -> Float[Tensor, "*s B M C"]:
    """log N(row; mean, variance I) of every row under every class, in nats.

    Args:
        rows: features of points.
        mean: of the classes.
        variance: of each feature.

    Example:
        >>> log_density(torch.zeros(1, 1, 2), torch.zeros(1, 1, 2), torch.ones(1, 1))  # -log 2π
        tensor([[[-1.8379]]])
    """
    lengths = squared_norms(rows)[..., None] + squared_norms(mean)[..., None, :]
    distance = (lengths - 2.0 * rows @ mean.mT).clamp(min=0.0)
    variance = variance[..., None, :]
    return -0.5 * (distance / variance + rows.shape[-1] * (2.0 * math.pi * variance).log())
