"""MetaOptNet: a convex classifier as the last layer, solved to its optimum.

Lee, Maji, Ravichandran, Soatto 2019 (arXiv:1904.03758), with κ the penalty (`penalty`, the paper's C) and Y the labels
as unit vectors; a score of class c is f_c(x) = w_cᵀ φ(x), and k(x) = Φ φ(x):

    SVMHead           ½ Σ_c |w_c|² + κ Σ_n max_c (f_c(x_n) + [c ≠ y_n] - f_{y_n}(x_n))    f(x) = αᵀ k(x), eqs. 8-9
    RidgeHead         W = Φᵀ (Φ Φᵀ + λ I)⁻¹ Y,   λ = 50
    NearestMeanHead   f_c(x) = -|φ(x) - μ_c|² / F                                         Snell et al. 2017
    p(c | x, D) ∝ exp(a f_c(x))

    phi         w_c, the last layer, F x C; the class means μ_c for nearest means
    prior       N(0, I); for ridge N(0, I / λ), for class means N(0, τ² I)
    likelihood  the pseudo-likelihood exp(-κ hinge); for the others N(·, 1) on the unit vectors, or on the features
    inference   the optimum, exact (by the SVM's dual), in float64; with the variance of a score, which the softmax uses
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from bayesmeta.description import Described
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.heads.classes import Classes
from bayesmeta.inference import linear_gaussian
from bayesmeta.inference.svm import svm_dual
from bayesmeta.learners.closed_form._classifier import HeadClassifier, Scores
from bayesmeta.learners.closed_form._linear_scores import LinearScores
from bayesmeta.linalg import cholesky, solve_lower, squared_norms
from bayesmeta.networks.network import Network
from bayesmeta.noise import Positive

PENALTY_BOUNDS = (1e-6, 1e6)
VARIANCE_BOUNDS = (1e-6, 1e6)


class Head(Described, nn.Module, ABC):
    """How the features of a support become a belief about scores. A subclass gives `solve`."""

    @abstractmethod
    def solve(
        self,
        rows: Float[Tensor, "B N F"],
        targets: Float[Tensor, "B N C"],
        mask: Bool[Tensor, "B N"],
        classes: Classes,
    ) -> Scores:
        """The belief, differentiable in rows and theta; arguments as in `HeadClassifier.solve`."""


class MetaOptNet(HeadClassifier):
    """Classification by a convex head on features that all tasks share.

    theta = the features' weights, `scale` (nats for a unit of score), `spread` (of the belief), and the head's own.

    Args:
        features: φ, a network with `num_outputs` = F features of each point on its own.
        num_classes: C; None: the classes of each task are those of its support.
        head: `SVMHead()` by default, or `RidgeHead`, `NearestMeanHead`.
        scale: starting a, nats for a unit of score.
        spread: starting s², in units of the head's variance.

    Raises:
        UnsupportedError: features that are not a `Network`, or not of each point on its own; a head that is not a
            `Head`. DataError: fewer than two classes, or a value out of bounds.
    """

    def __init__(
        self,
        features: Network,
        num_classes: int | None = None,
        head: Head | None = None,
        scale: float = 1.0,
        spread: float = 1.0,
    ) -> None:
        super().__init__(features, num_classes, scale, spread)
        head = SVMHead() if head is None else head
        if not isinstance(head, Head):
            raise UnsupportedError(f"expected a head such as SVMHead(), got {head!r}")
        self.head = head

    def solve(
        self,
        rows: Float[Tensor, "B N F"],
        targets: Float[Tensor, "B N C"],
        mask: Bool[Tensor, "B N"],
        classes: Classes,
    ) -> Scores:
        """The head's. Raises InferenceError where it has none."""
        return self.head.solve(rows, targets, mask, classes)


class SVMHead(Head):
    """The support vector machine of Crammer & Singer 2001, by its dual (MetaOptNet-SVM).

    A hinge has no curvature, and so no Laplace variance. The variance of a score is that of the least-squares support
    vector machine at the same penalty (Suykens & Vandewalle 1999), κ/2 error² in place of the hinge, for all classes:

        v(x) = k(x, x) - k(x)ᵀ (K + I/κ)⁻¹ k(x)

    theta = `penalty`.

    Args:
        penalty: starting κ, nats for a unit of hinge, and the largest weight of a point.

    Raises:
        DataError: a penalty out of bounds.
    """

    def __init__(self, penalty: float = 0.1) -> None:
        super().__init__()
        self.penalty = Positive((), penalty, PENALTY_BOUNDS)

    def solve(
        self,
        rows: Float[Tensor, "B N F"],
        targets: Float[Tensor, "B N C"],
        mask: Bool[Tensor, "B N"],
        classes: Classes,
    ) -> "KernelScores":
        """The optimum. Raises InferenceError where its conditions are not met."""
        penalty = self.penalty().to(rows.dtype)
        kernel = rows @ rows.mT
        dual = svm_dual(kernel, targets, mask, classes.mask, penalty)
        return KernelScores.of(rows, kernel, dual, 1.0 / penalty)


class RidgeHead(Head):
    """Ridge regression on unit vectors with a fixed ridge (MetaOptNet-RR). `R2D2` learns the ridge.

    Args:
        ridge: λ, in units of the variance of a label, 1.

    Raises:
        DataError: a ridge that is not positive and finite.
    """

    def __init__(self, ridge: float = 50.0) -> None:
        super().__init__()
        if not 0.0 < ridge < math.inf:
            raise DataError(f"expected a positive ridge, got {ridge}")
        self.ridge = ridge

    def solve(
        self,
        rows: Float[Tensor, "B N F"],
        targets: Float[Tensor, "B N C"],
        mask: Bool[Tensor, "B N"],
        classes: Classes,
    ) -> "LinearScores":
        """The posterior mean of ridge regression, and its variance."""
        deviation = self.ridge**-0.5
        return LinearScores(linear_gaussian.condition(rows * deviation, targets, mask), deviation)


class NearestMeanHead(Head):
    """Distance to the class means (MetaOptNet-Proto), which have a conjugate prior.

        φ(x) ~ N(μ_c, I),   μ_c ~ N(0, τ² I)   =>   μ_c | D ~ N(v_c Σ_{n in c} φ(x_n), v_c I),   v_c = τ² / (1 + n_c τ²)

    A class without an example has the prior. Scores are moments under this belief. Only differences of scores count,
    so they are taken from the mean over the classes of the task, to which what is uncertain goes. τ → ∞ with equal
    numbers of examples is the paper's head.

    theta = `prior_variance`.

    Args:
        prior_variance: starting τ², in units of the variance of a feature within a class, 1.

    Raises:
        DataError: a prior variance out of bounds.
    """

    def __init__(self, prior_variance: float = 1.0) -> None:
        super().__init__()
        self.prior_variance = Positive((), prior_variance, VARIANCE_BOUNDS)

    def solve(
        self,
        rows: Float[Tensor, "B N F"],
        targets: Float[Tensor, "B N C"],
        mask: Bool[Tensor, "B N"],
        classes: Classes,
    ) -> "DistanceScores":
        """The posterior of the class means."""
        variance = 1.0 / (targets.sum(1) + 1.0 / self.prior_variance().to(rows.dtype))
        return DistanceScores(variance[..., None] * (targets.mT @ rows), variance, classes.mask)


@dataclass(frozen=True, eq=False)
class KernelScores(Scores):
    """αᵀ k(x), with the variance that a Gaussian process of kernel φᵀφ has: all classes have one.

    Attributes:
        rows: Φ of the support, zero where padded.
        dual: α.
        factor: the Cholesky factor of K + noise I.
    """

    rows: Float[Tensor, "B N F"]
    dual: Float[Tensor, "B N C"]
    factor: Float[Tensor, "B N N"]

    @classmethod
    def of(
        cls,
        rows: Float[Tensor, "B N F"],
        kernel: Float[Tensor, "B N N"],
        dual: Float[Tensor, "B N C"],
        noise: Float[Tensor, ""],
    ) -> "KernelScores":
        """With the variance of a label as noise. Raises InferenceError for a kernel that is not positive definite."""
        eye = torch.eye(kernel.shape[-1], dtype=kernel.dtype, device=kernel.device)
        return cls(rows, dual, cholesky(kernel + noise * eye, "support covariance"))

    def at(self, rows: Float[Tensor, "B M F"]) -> tuple[Float[Tensor, "B M C"], Float[Tensor, "B M 1"]]:
        """αᵀ k and k(x, x) - |L⁻¹ k|²."""
        cross = self.rows @ rows.mT
        explained = solve_lower(self.factor, cross).square().sum(-2)
        variance = (squared_norms(rows) - explained).clamp(min=0.0)  # only rounding is below zero
        return cross.mT @ self.dual, variance[..., None]


@dataclass(frozen=True, eq=False)
class DistanceScores(Scores):
    """-|φ - μ_c|² / F less its average over the task's classes, for μ_c ~ N(mean_c, variance_c I).

    Attributes:
        mean: of the class means.
        variance: of each of their entries.
        classes: True = a class of the task.
    """

    mean: Float[Tensor, "B C F"]
    variance: Float[Tensor, "B C"]
    classes: Bool[Tensor, "B C"]

    def at(self, rows: Float[Tensor, "B M F"]) -> tuple[Float[Tensor, "B M C"], Float[Tensor, "B M C"]]:
        """E = -(d + F v) / F and Var = (4 v d + 2 F v²) / F² with d = |φ - mean|², then those of the differences."""
        size, v = rows.shape[-1], self.variance[:, None]
        lengths = squared_norms(rows)[..., None] + squared_norms(self.mean)[:, None]
        distance = torch.baddbmm(lengths, rows, self.mean.mT, alpha=-2.0).clamp(min=0.0)
        score = -distance / size - v
        spread = (4.0 * v * distance / size + 2.0 * v.square()) / size
        share = (self.classes / self.classes.sum(-1, keepdim=True))[:, None].to(rows.dtype)  # 1/C of each class
        score = score - (share * score).sum(-1, keepdim=True)
        # Var(f_c - Σ f / C) = (1 - 1/C)² Var f_c + Σ_others Var f / C²
        return score, spread * (1.0 - 2.0 * share) + (share.square() * spread).sum(-1, keepdim=True)
