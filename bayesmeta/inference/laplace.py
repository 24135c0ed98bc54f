"""Gaussian beliefs about phi around a mode, by linearising the network there.

With f(x; phi) ≈ f(x; mode) + J(x) (phi - mode), Λ = R Rᵀ the Fisher information of a point in f, and S² a diagonal of
prior variances (or of rates), everything follows from the whitened rows A = Rᵀ J S of the support:

    generalised Gauss-Newton    G = Jᵀ Λ J,   S G S = AᵀA          (never the raw Hessian: it is indefinite)
    Laplace                     Cov = S (I + AᵀA)⁻¹ S              under the prior N(·, S²)
    k steps of ascent           Cov = S s(AᵀA) S                   rates S²; the prior that they imply
                                s(l) = (1 - (1 - l)^k) / l
    a query point               Var f = J Cov Jᵀ                   through the NK x NK kernel AAᵀ

so that the cost is in support points and not in weights. Immer, Korzepa, Bauer 2021 (arXiv:2008.08400) for the
linearised predictive; Santos 1996 and Grant et al. 2018 (arXiv:1801.08930, sec. 3) for ascent as inference;
`implied_prior` for its prior. Kernels, factors and solves are in float64.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesmeta.distributions import common_normals
from bayesmeta.linalg import cholesky, logdet, matrix_function, solve_lower
from bayesmeta.networks.jacobian import Jacobian, flat_diagonal
from bayesmeta.typing import Params


@dataclass(frozen=True, eq=False)
class GaussNewton:
    """The generalised Gauss-Newton matrix G = Jᵀ Λ J of the support, as the rows Rᵀ J it is made of, and S².

    Attributes:
        rows: Rᵀ J, zero at padded points, which then change nothing.
        squares: S² by the names of phi, broadcastable to `B *shape`: prior variances, or rates.
        shapes: of the values of phi, by name.
    """

    rows: Jacobian
    squares: Params
    shapes: dict[str, torch.Size]

    @classmethod
    def of(
        cls,
        jacobian: Jacobian,
        root: Float[Tensor, "B N K K"],
        mask: Bool[Tensor, "B N"],
        squares: Params,
        shapes: dict[str, torch.Size],
    ) -> "GaussNewton":
        """From J of the support, R with Λ = R Rᵀ, and the mask of its real points."""
        return cls(jacobian.weighted(root, mask), squares, shapes)

    def kernel(self) -> Float[Tensor, "B NK NK"]:
        """AAᵀ."""
        return self.rows.gram(self.rows, self.squares)

    def scale(self) -> Float[Tensor, "#B P"]:
        """S."""
        return flat_diagonal(self.squares, self.shapes).sqrt()

    def white(self) -> Float[Tensor, "B NK P"]:
        """A, written out."""
        rows = self.rows.dense().double().flatten(1, 2)
        return rows * self.scale()[:, None]


def log_determinant(kernel: Float[Tensor, "B NK NK"]) -> Float[Tensor, "B"]:
    """log det(I + AᵀA) = log det(I + AAᵀ)."""
    return logdet(cholesky(_plus_identity(kernel), "posterior precision"))


@dataclass(frozen=True, eq=False)
class Belief(ABC):
    """phi | D ~ N(mode, Cov), known through what it says about network outputs.

    Attributes:
        curvature: the Gauss-Newton matrix of the support, and S².
    """

    curvature: GaussNewton

    @abstractmethod
    def blocks(self, jacobian: Jacobian) -> Float[Tensor, "B M K K"]:
        """Covariance of f at each point, over its outputs: J Cov Jᵀ."""

    @abstractmethod
    def covariance(self, jacobian: Jacobian) -> Float[Tensor, "B MK MK"]:
        """Covariance of f over all points and outputs."""

    def sample(self, num_draws: int, generator: torch.Generator | None = None) -> Float[Tensor, "S B P"]:
        """Draws of phi - mode: S T z, with T Tᵀ the covariance in units of S²."""
        white, scale = self.curvature.white(), self.curvature.scale()
        shape = (num_draws, white.shape[0], white.shape[2])
        normal = common_normals(shape, white, generator)
        return scale * self._root_times(white, normal[..., None])[..., 0]

    @abstractmethod
    def _root_times(self, white: Float[Tensor, "B NK P"], normal: Float[Tensor, "S B P 1"]) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class LaplaceBelief(Belief):
    """Cov = S (I + AᵀA)⁻¹ S: the posterior under the explicit prior N(·, S²).

    Attributes:
        factor: C, with I + AAᵀ = C Cᵀ.
    """

    factor: Float[Tensor, "B NK NK"]

    def blocks(self, jacobian: Jacobian) -> Float[Tensor, "B M K K"]:
        """J S² Jᵀ - |C⁻¹ A S Jᵀ|², point by point."""
        own = jacobian.blocks(self.curvature.squares)
        white = self._explained(jacobian).unflatten(2, own.shape[1:3]).movedim(1, 2)  # B M NK K
        return own - white.mT @ white

    def covariance(self, jacobian: Jacobian) -> Float[Tensor, "B MK MK"]:
        """J S² Jᵀ - |C⁻¹ A S Jᵀ|²."""
        white = self._explained(jacobian)
        return jacobian.gram(jacobian, self.curvature.squares) - white.mT @ white

    def _explained(self, jacobian: Jacobian) -> Float[Tensor, "B NK MK"]:
        return solve_lower(self.factor, self.curvature.rows.gram(jacobian, self.curvature.squares))

    def _root_times(self, white: Tensor, normal: Tensor) -> Tensor:
        # T = I - Aᵀ C⁻ᵀ (C + I)⁻¹ A (Potter's form, as in linalg.update_root)
        eye = torch.eye(self.factor.shape[-1], dtype=self.factor.dtype, device=self.factor.device)
        inner = solve_lower((self.factor + eye).expand(len(normal), -1, -1, -1), white @ normal)
        inner = torch.linalg.solve_triangular(self.factor.mT.expand(len(normal), -1, -1, -1), inner, upper=True)
        return normal - white.mT @ inner


@dataclass(frozen=True, eq=False)
class EarlyStoppedBelief(Belief):
    """Cov = S (k I + Aᵀ g(AAᵀ) A) S: the posterior under the prior that k steps of ascent imply.

    A direction of information l (an eigenvalue of AAᵀ: the rate times the curvature) ends with the variance s(l), and
    g(l) = (s(l) - k) / l. Where l > 1 ascent overshoots and no prior implies it: there the prior is taken to be flat,
    s(l) = 1 / l, the limit l -> 1 of what ascent implies. No variance is ever negative.

    Attributes:
        steps: k.
        kernel: AAᵀ.
        inner: g(AAᵀ).
    """

    steps: int
    kernel: Float[Tensor, "B NK NK"]
    inner: Float[Tensor, "B NK NK"]

    def blocks(self, jacobian: Jacobian) -> Float[Tensor, "B M K K"]:
        """k J S² Jᵀ + (J S Aᵀ) g (J S Aᵀ)ᵀ, point by point."""
        own = jacobian.blocks(self.curvature.squares)
        cross = self.curvature.rows.gram(jacobian, self.curvature.squares)
        changed = (self.inner @ cross).unflatten(2, own.shape[1:3]).movedim(1, 2)
        return self.steps * own + cross.unflatten(2, own.shape[1:3]).movedim(1, 2).mT @ changed

    def covariance(self, jacobian: Jacobian) -> Float[Tensor, "B MK MK"]:
        """k J S² Jᵀ + (J S Aᵀ) g (J S Aᵀ)ᵀ."""
        cross = self.curvature.rows.gram(jacobian, self.curvature.squares)
        return self.steps * jacobian.gram(jacobian, self.curvature.squares) + cross.mT @ self.inner @ cross

    def _root_times(self, white: Tensor, normal: Tensor) -> Tensor:
        # T = √k I + Aᵀ m(AAᵀ) A with m(l) = (√s(l) - √k) / l
        root = self.steps**0.5

        def excess_of_root(information: Tensor) -> Tensor:
            excess = variance_excess(information, self.steps)  # √s - √k = (s - k) / (√s + √k)
            return excess / ((self.steps + information * excess).clamp(min=0.0).sqrt() + root)

        return root * normal + white.mT @ (matrix_function(self.kernel, excess_of_root) @ (white @ normal))


@dataclass(frozen=True, eq=False)
class DiagonalBelief(Belief):
    """Cov = diag(v): every number of phi on its own.

    Attributes:
        variances: v by the names of phi, each `B *shape`.
    """

    variances: Params

    def blocks(self, jacobian: Jacobian) -> Float[Tensor, "B M K K"]:
        """J diag(v) Jᵀ, point by point."""
        return jacobian.blocks(self.variances)

    def covariance(self, jacobian: Jacobian) -> Float[Tensor, "B MK MK"]:
        """J diag(v) Jᵀ."""
        return jacobian.gram(jacobian, self.variances)

    def _root_times(self, white: Tensor, normal: Tensor) -> Tensor:
        deviation = flat_diagonal(self.variances, self.curvature.shapes).sqrt() / self.curvature.scale()
        return deviation[..., None] * normal


class Shrinkage(ABC):
    """How the information that a direction of phi has received shrinks its variance, in units of S²."""

    @abstractmethod
    def full(self, curvature: GaussNewton) -> Belief:
        """The belief with all correlations, through the NK x NK kernel AAᵀ."""

    @abstractmethod
    def variance(self, information: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """The variance of a direction of this information."""

    def diagonal(self, curvature: GaussNewton) -> DiagonalBelief:
        """The belief that uses the diagonal of AᵀA alone."""
        variance = self.variance(curvature.white().square().sum(1)) * curvature.scale().square()
        sizes = [shape.numel() for shape in curvature.shapes.values()]
        parts = zip(curvature.shapes.items(), variance.split(sizes, 1), strict=True)
        return DiagonalBelief(curvature, {name: part.reshape(-1, *shape) for (name, shape), part in parts})


class ExplicitPrior(Shrinkage):
    """Bayes' rule under N(·, S²): v = 1 / (1 + l)."""

    def full(self, curvature: GaussNewton) -> LaplaceBelief:
        """By a Cholesky factor."""
        return LaplaceBelief(curvature, cholesky(_plus_identity(curvature.kernel()), "support covariance"))

    def variance(self, information: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """1 / (1 + l)."""
        return 1.0 / (1.0 + information)


@dataclass(frozen=True)
class EarlyStopping(Shrinkage):
    """k steps of ascent with the rates S²: v = s(l).

    Attributes:
        steps: k.
    """

    steps: int

    def full(self, curvature: GaussNewton) -> EarlyStoppedBelief:
        """Through the spectrum of AAᵀ."""
        kernel = curvature.kernel()
        inner = matrix_function(kernel, lambda information: variance_excess(information, self.steps))
        return EarlyStoppedBelief(curvature, self.steps, kernel, inner)

    def variance(self, information: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """s(l) = k + l g(l)."""
        return self.steps + information * variance_excess(information, self.steps)


def variance_excess(information: Float[Tensor, "*b"], steps: int) -> Float[Tensor, "*b"]:
    """g(l) = (s(l) - k) / l, with s(l) = (1 - (1 - l)^k) / l up to l = 1 and 1 / l beyond.

    Up to 1 it is the polynomial -Σ_{i=0}^{k-2} (k - 1 - i) (1 - l)^i, which loses no digits at l = 0.
    """
    left = 1.0 - information.clamp(max=1.0)
    total = torch.zeros_like(information)
    for i in reversed(range(steps - 1)):
        total = total * left - float(steps - 1 - i)
    beyond = information.clamp(min=1.0)
    return torch.where(information <= 1.0, total, (1.0 / beyond - steps) / beyond)


def _plus_identity(kernel: Tensor) -> Tensor:
    return kernel + torch.eye(kernel.shape[-1], dtype=kernel.dtype, device=kernel.device)
