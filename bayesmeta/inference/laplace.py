"""Gaussian beliefs about phi around a mode, by linearising the network there.

With f(x; phi) ≈ f(x; mode) + J(x) (phi - mode), Λ = R Rᵀ the Fisher information of a point in f, and a prior whose
deviations are `scale` (S, diagonal), everything is a function of the whitened rows A = Rᵀ J S of the support:

    generalised Gauss-Newton    G = Jᵀ Λ J,   S G S = AᵀA                       (never the raw Hessian: it is indefinite)
    Laplace                     Cov = S (I + AᵀA)⁻¹ S                            prior N(·, S²)
    k steps of ascent           Cov = S [(I - (I - AᵀA)^k) (AᵀA)⁻¹] S            rates S²; the prior that they imply
    a query point               Var f = J Cov Jᵀ,   through the NK x NK matrix AAᵀ: the cost is in points, not in weights

Immer, Korzepa, Bauer 2021 (arXiv:2008.08400) for the linearised predictive; Santos 1996 and Grant et al. 2018
(arXiv:1801.08930, sec. 3) for ascent as inference; `implied_prior` for the prior. All in float64.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesmeta.inference import linear_gaussian
from bayesmeta.inference.linear_gaussian import LinearGaussian
from bayesmeta.linalg import cholesky, logdet, matrix_function, unit_gram


def whitened_rows(
    jacobian: Float[Tensor, "B N K P"],
    root: Float[Tensor, "B N K K"],
    scale: Float[Tensor, "#B P"],
    mask: Bool[Tensor, "B N"],
) -> Float[Tensor, "B NK P"]:
    """A = Rᵀ J S, in float64; zero at padded points, which then change nothing.

    Args:
        jacobian: J of the support.
        root: R, with Λ = R Rᵀ.
        scale: prior deviations, or square roots of rates.
        mask: True = real.
    """
    real = mask[..., None, None]
    rows = torch.where(real, root.double().mT @ jacobian.double(), 0.0) * scale.double()[:, None, None]
    return rows.flatten(1, 2)


def log_determinant(rows: Float[Tensor, "B NK P"]) -> Float[Tensor, "B"]:
    """log det(I + AᵀA) = log det(I + AAᵀ), through the smaller of the two matrices."""
    smaller = rows if rows.shape[1] < rows.shape[2] else rows.mT
    return logdet(cholesky(unit_gram(smaller), "posterior precision"))


@dataclass(frozen=True, eq=False)
class Belief(ABC):
    """phi | D ~ N(mode, Cov), known through what it says about network outputs.

    Attributes:
        scale: S, `B P`.
    """

    scale: Float[Tensor, "#B P"]

    def blocks(self, jacobian: Float[Tensor, "B M K P"]) -> Float[Tensor, "B M K K"]:
        """Covariance of f at each point, over its outputs: J Cov Jᵀ."""
        return self._blocks(self._rows(jacobian))

    def covariance(self, jacobian: Float[Tensor, "B M K P"]) -> Float[Tensor, "B MK MK"]:
        """Covariance of f over all points and outputs."""
        return self._covariance(self._rows(jacobian).flatten(1, 2))

    @abstractmethod
    def sample(self, num_draws: int, generator: torch.Generator | None = None) -> Float[Tensor, "S B P"]:
        """Draws of phi - mode."""

    def _rows(self, jacobian: Tensor) -> Tensor:
        return jacobian.double() * self.scale.double()[:, None, None]

    @abstractmethod
    def _blocks(self, rows: Float[Tensor, "B M K P"]) -> Tensor: ...

    @abstractmethod
    def _covariance(self, rows: Float[Tensor, "B MK P"]) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class LaplaceBelief(Belief):
    """Cov = S (I + AᵀA)⁻¹ S: the posterior under the explicit prior N(·, S²)."""

    white: LinearGaussian

    def sample(self, num_draws: int, generator: torch.Generator | None = None) -> Float[Tensor, "S B P"]:
        """S T z with T Tᵀ = (I + AᵀA)⁻¹."""
        _, root = self.white.moments()
        shape = (num_draws, *root.shape[:2], 1)
        normal = torch.randn(shape, dtype=root.dtype, device=root.device, generator=generator)
        return self.scale.double() * (root @ normal)[..., 0]

    def _blocks(self, rows: Tensor) -> Tensor:
        return self.white.blocks(rows)

    def _covariance(self, rows: Tensor) -> Tensor:
        return self.white.covariance(rows)


@dataclass(frozen=True, eq=False)
class EarlyStoppedBelief(Belief):
    """Cov = S (k I + Aᵀ g(AAᵀ) A) S: the posterior under the prior that k steps of ascent imply.

    A direction of information l (an eigenvalue of AAᵀ, the rate times the curvature) ends with the variance s(l) =
    (1 - (1 - l)^k) / l, and g(l) = (s(l) - k) / l. Where l > 1 ascent overshoots and no prior implies it: there the
    prior is taken to be flat (s(l) = 1 / l), the limit l -> 1 of what ascent implies. No variance is ever negative.

    Attributes:
        steps: k.
        rows: A, `B NK P`.
        inner: g(AAᵀ), `B NK NK`.
    """

    steps: int
    rows: Float[Tensor, "B NK P"]
    inner: Float[Tensor, "B NK NK"]

    def sample(self, num_draws: int, generator: torch.Generator | None = None) -> Float[Tensor, "S B P"]:
        """S (√k z + Aᵀ m(AAᵀ) A z) with m(l) = (√s(l) - √k) / l."""
        root = self.steps**0.5

        def correction(information: Tensor) -> Tensor:
            # √s - √k = (s - k) / (√s + √k)
            shrunk = remaining_excess(information, self.steps)
            return shrunk / ((self.steps + information * shrunk).clamp(min=0.0).sqrt() + root)

        middle = matrix_function(self.rows @ self.rows.mT, correction)
        shape = (num_draws, self.rows.shape[0], self.rows.shape[2], 1)
        normal = torch.randn(shape, dtype=self.rows.dtype, device=self.rows.device, generator=generator)
        draws = root * normal + self.rows.mT @ (middle @ (self.rows @ normal))
        return self.scale.double() * draws[..., 0]

    def _blocks(self, rows: Tensor) -> Tensor:
        cross = rows @ self.rows.mT[:, None]  # B M K NK
        return self.steps * rows @ rows.mT + cross @ self.inner[:, None] @ cross.mT

    def _covariance(self, rows: Tensor) -> Tensor:
        cross = rows @ self.rows.mT
        return self.steps * rows @ rows.mT + cross @ self.inner @ cross.mT


@dataclass(frozen=True, eq=False)
class DiagonalBelief(Belief):
    """Cov = S diag(v) S: every number of phi on its own.

    Attributes:
        variance: v, `B P`, in units of S².
    """

    variance: Float[Tensor, "B P"]

    def sample(self, num_draws: int, generator: torch.Generator | None = None) -> Float[Tensor, "S B P"]:
        """S √v z."""
        shape = (num_draws, *self.variance.shape)
        normal = torch.randn(shape, dtype=self.variance.dtype, device=self.variance.device, generator=generator)
        return self.scale.double() * self.variance.sqrt() * normal

    def _blocks(self, rows: Tensor) -> Tensor:
        return rows * self.variance[:, None, None] @ rows.mT

    def _covariance(self, rows: Tensor) -> Tensor:
        return rows * self.variance[:, None] @ rows.mT


class Shrinkage(ABC):
    """How the information that a direction of phi has received shrinks its variance, in units of S²."""

    @abstractmethod
    def full(self, rows: Float[Tensor, "B NK P"], scale: Float[Tensor, "#B P"]) -> Belief:
        """The belief with all correlations, through the NK x NK kernel AAᵀ."""

    @abstractmethod
    def variance(self, information: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """The variance of a direction of this information."""

    def diagonal(self, rows: Float[Tensor, "B NK P"], scale: Float[Tensor, "#B P"]) -> DiagonalBelief:
        """The belief that uses the diagonal of AᵀA alone."""
        return DiagonalBelief(scale, self.variance(rows.square().sum(1)))


class ExplicitPrior(Shrinkage):
    """Bayes' rule under N(·, S²): v = 1 / (1 + l)."""

    def full(self, rows: Float[Tensor, "B NK P"], scale: Float[Tensor, "#B P"]) -> LaplaceBelief:
        """In the smaller of the two spaces."""
        nothing = rows.new_zeros((*rows.shape[:2], 1))
        real = torch.ones(rows.shape[:2], dtype=torch.bool, device=rows.device)
        return LaplaceBelief(scale, linear_gaussian.condition(rows, nothing, real))

    def variance(self, information: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """1 / (1 + l)."""
        return 1.0 / (1.0 + information)


@dataclass(frozen=True)
class EarlyStopping(Shrinkage):
    """k steps of ascent with the rates S²: v = (1 - (1 - l)^k) / l, and 1 / l where l > 1.

    Attributes:
        steps: k.
    """

    steps: int

    def full(self, rows: Float[Tensor, "B NK P"], scale: Float[Tensor, "#B P"]) -> EarlyStoppedBelief:
        """Through the spectrum of AAᵀ."""
        inner = matrix_function(rows @ rows.mT, lambda information: remaining_excess(information, self.steps))
        return EarlyStoppedBelief(scale, self.steps, rows, inner)

    def variance(self, information: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """s(l) = k + l g(l)."""
        return self.steps + information * remaining_excess(information, self.steps)


def remaining_excess(information: Float[Tensor, "*b"], steps: int) -> Float[Tensor, "*b"]:
    """g(l) = (s(l) - k) / l, with s(l) = (1 - (1 - l)^k) / l up to l = 1 and 1 / l beyond.

    Up to 1 it is the polynomial -Σ_{i=0}^{k-2} (k - 1 - i) (1 - l)^i, which loses no digits at l = 0.
    """
    left = 1.0 - information.clamp(max=1.0)
    total = torch.zeros_like(information)
    for i in reversed(range(steps - 1)):
        total = total * left - float(steps - 1 - i)
    beyond = information.clamp(min=1.0)
    return torch.where(information <= 1.0, total, (1.0 / beyond - steps) / beyond)
