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
from typing_extensions import override

from bayesmeta.distributions import common_normals
from bayesmeta.linalg import cholesky, flattened, logdet, matrix_function, require_matrix, solve_lower
from bayesmeta.networks.jacobian import Diagonal, Jacobian, flat_diagonal, written_out
from bayesmeta.torch_private import is_mapped
from bayesmeta.typing import Params

MOST_FACTORS = 16  # of a polynomial of matrices: more cost as much as a spectrum


@dataclass(frozen=True, eq=False)
class Curvature:
    """The generalised Gauss-Newton matrix G = Jᵀ Λ J of the support, as the rows Rᵀ J it is made of, and S².

    G is the negative Hessian of the log likelihood of the linearised network, and the Fisher information of phi. It is
    positive semi-definite everywhere, and never written out here unless it is asked for.

    Attributes:
        rows: Rᵀ J, zero at padded points, which then change nothing.
        squares: S² by the names of phi, broadcastable to `B *shape`: prior variances, or rates.
        shapes: of the values of phi, by name.

    Example:
        >>> from bayesmeta.networks.jacobian import DenseJacobian
        >>> shapes = {"w": torch.Size([2])}  # f(x; w) = xᵀ w at two points, the second of them padding
        >>> jacobian = DenseJacobian(torch.tensor([[[[3.0, 4.0]], [[7.0, 7.0]]]]), shapes)
        >>> root, mask = torch.ones(1, 2, 1, 1) / 0.5, torch.tensor([[True, False]])  # noise of deviation 0.5
        >>> curvature = Curvature.of(jacobian, root, mask, {"w": torch.ones(2)}, shapes)
        >>> curvature.kernel()  # |x|² / 0.25
        tensor([[[100.,   0.],
                 [  0.,   0.]]], dtype=torch.float64)
    """

    rows: Jacobian
    squares: Diagonal
    shapes: dict[str, torch.Size]

    @classmethod
    def of(
        cls,
        jacobian: Jacobian,
        root: Float[Tensor, "B N K K"],
        mask: Bool[Tensor, "B N"],
        squares: Diagonal,
        shapes: dict[str, torch.Size],
    ) -> "Curvature":
        """From the Jacobian of the support and what a point says of its outputs.

        Args:
            jacobian: J at the mode.
            root: R of each point, with Λ = R Rᵀ the Fisher information in f: `likelihood.curvature_root`.
            mask: True = real.
            squares: S² by the names of phi.
            shapes: of the values of phi, by name.
        """
        return cls(jacobian.weighted(root, mask), squares, shapes)

    def kernel(self) -> Float[Tensor, "B NK NK"]:
        """AAᵀ, in float64: the Gram matrix of the whitened rows.

        Raises:
            InferenceError: too many points for a matrix between them.
        """
        require_matrix(self.rows.num_rows, self.rows.num_rows)
        return self.rows.gram(self.rows, self.squares)

    def scale(self) -> Float[Tensor, "#B P"]:
        """S, the diagonal as a vector: prior deviations, or roots of rates."""
        return flat_diagonal(self.squares, self.shapes).sqrt()

    def white(self) -> Float[Tensor, "B NK P"]:
        """A, written out in float64: for phi that fits into memory once for every point and output."""
        rows = self.rows.dense().double().flatten(1, 2)
        return rows * self.scale()[:, None]


def log_determinant(kernel: Float[Tensor, "B NK NK"]) -> Float[Tensor, "B"]:
    """log det(I + AᵀA) = log det(I + AAᵀ): how far the posterior precision is above the prior's, in nats.

    Half of it is what Laplace's approximation of the evidence takes from the log joint at the mode (MacKay 1992).

    Args:
        kernel: AAᵀ, as `Curvature.kernel` gives it.

    Raises:
        InferenceError: a kernel with values that are not finite.

    Example:
        >>> log_determinant(torch.full((1, 1, 1), 3.0))  # log 4
        tensor([1.3863])
    """
    return logdet(cholesky(_plus_identity(kernel), "posterior precision"))


@dataclass(frozen=True, eq=False)
class Belief(ABC):
    """The approximate posterior phi | D ~ N(mode, Cov), known through what it says about network outputs.

    A `Shrinkage` makes it from the curvature of the support.

    Attributes:
        curvature: the Gauss-Newton matrix of the support, and S².

    Example:
        >>> from bayesmeta.networks.jacobian import DenseJacobian
        >>> shapes = {"w": torch.Size([1])}  # f(x; w) = x w under w ~ N(0, 1), seen at x = 1 with noise of variance 1
        >>> jacobian = DenseJacobian(torch.ones(1, 1, 1, 1), shapes)
        >>> belief = ExplicitPrior().full(Curvature(jacobian, {"w": torch.ones(1)}, shapes))
        >>> belief.covariance(jacobian)
        tensor([[[0.5000]]], dtype=torch.float64)
        >>> belief.sample(5).shape  # of phi - mode
        torch.Size([5, 1, 1])
    """

    curvature: Curvature

    @abstractmethod
    def blocks(self, jacobian: Jacobian) -> Float[Tensor, "B M K K"]:
        """Covariance of f at each point over its outputs, J Cov Jᵀ point by point.

        Args:
            jacobian: J of the query points at the mode.
        """

    @abstractmethod
    def covariance(self, jacobian: Jacobian) -> Float[Tensor, "B MK MK"]:
        """Covariance of f over all points and outputs, J Cov Jᵀ.

        Args:
            jacobian: J of the query points at the mode.
        """

    def sample(self, num_draws: int, generator: torch.Generator | None = None) -> Float[Tensor, "S B P"]:
        """Draws of phi - mode: S T z, with z standard normal and T Tᵀ the covariance in units of S².

        Args:
            num_draws: how many of each task.
            generator: of the randomness; the global one when None.
        """
        white, scale = self.curvature.white(), self.curvature.scale()
        shape = (num_draws, white.shape[0], white.shape[2])
        normal = common_normals(shape, white, generator)
        return scale * self._root_times(white, normal[..., None])[..., 0]

    @abstractmethod
    def _root_times(self, white: Float[Tensor, "B NK P"], normal: Float[Tensor, "S B P 1"]) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class LaplaceBelief(Belief):
    """Cov = S (I + AᵀA)⁻¹ S: Laplace's approximation under the explicit prior N(·, S²). `ExplicitPrior` makes it.

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

    `EarlyStopping` makes it. A direction of information l (an eigenvalue of AAᵀ: the rate times the curvature) ends
    with the variance s(l), and g(l) = (s(l) - k) / l. Where l > 1 ascent overshoots and no prior implies it: there the
    prior is taken to be flat, s(l) = 1 / l, the limit l -> 1 of what ascent implies. No variance is ever negative.

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
        own = jacobian.gram(jacobian, self.curvature.squares)
        return torch.baddbmm(own, cross.mT, self.inner @ cross, beta=self.steps)

    def _root_times(self, white: Tensor, normal: Tensor) -> Tensor:
        # T = √k I + Aᵀ m(AAᵀ) A with m(l) = (√s(l) - √k) / l
        root = self.steps**0.5

        def excess_of_root(information: Tensor) -> Tensor:
            excess = variance_excess(information, self.steps)  # √s - √k = (s - k) / (√s + √k)
            return excess / ((self.steps + information * excess).clamp(min=0.0).sqrt() + root)

        return root * normal + white.mT @ (matrix_function(self.kernel, excess_of_root) @ (white @ normal))


@dataclass(frozen=True, eq=False)
class DiagonalBelief(Belief):
    """Cov = diag(v): every number of phi on its own, without correlations. `Shrinkage.diagonal` makes it.

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
    """How the information that a direction of phi has received shrinks its variance, in units of S².

    Information is an eigenvalue of AᵀA: what the support says of the direction, in units of what is known before. A
    subclass gives `full` and `variance`.

    Example:
        >>> information = torch.tensor([0.0, 1.0])
        >>> [each.variance(information).tolist() for each in (ExplicitPrior(), EarlyStopping(steps=5))]
        [[1.0, 0.5], [5.0, 1.0]]
    """

    @abstractmethod
    def full(self, curvature: Curvature) -> Belief:
        """The posterior with all correlations, through the NK x NK kernel AAᵀ.

        Args:
            curvature: of the support.
        """

    @abstractmethod
    def variance(self, information: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """The variance of a direction of this information, in units of S²."""

    @abstractmethod
    def covariance(
        self,
        kernel: Float[Tensor, "B NK NK"],
        cross: Float[Tensor, "B NK MK"],
        own: Float[Tensor, "B MK MK"],
    ) -> Float[Tensor, "B MK MK"]:
        """The covariance of f that `full(curvature).covariance(jacobian)` gives, from inner products that are known.

        Args:
            kernel: AAᵀ of the support.
            cross: A S Jᵀ, of the support with the query.
            own: J S² Jᵀ of the query.
        """

    def diagonal(self, curvature: Curvature) -> DiagonalBelief:
        """The posterior that uses the diagonal of AᵀA alone.

        Args:
            curvature: of the support.
        """
        information = curvature.rows.squares(curvature.squares)
        variance = self.variance(torch.cat([flattened(value) for value in information.values()], 1))
        parts = variance.split([shape.numel() for shape in curvature.shapes.values()], 1)
        squares = written_out(curvature.squares)
        return DiagonalBelief(
            curvature,
            {
                name: part.reshape(-1, *shape) * squares[name].double()
                for (name, shape), part in zip(curvature.shapes.items(), parts, strict=True)
            },
        )


class ExplicitPrior(Shrinkage):
    """Bayes' rule under the prior N(·, S²), S² being prior variances: v = 1 / (1 + l).

    Example:
        >>> ExplicitPrior().variance(torch.tensor([0.0, 1.0, 9.0]))
        tensor([1.0000, 0.5000, 0.1000])
    """

    def full(self, curvature: Curvature) -> LaplaceBelief:
        """By a Cholesky factor."""
        return LaplaceBelief(curvature, cholesky(_plus_identity(curvature.kernel()), "support covariance"))

    @override
    def covariance(self, kernel: Tensor, cross: Tensor, own: Tensor) -> Float[Tensor, "B MK MK"]:
        white = solve_lower(cholesky(_plus_identity(kernel), "support covariance"), cross)
        return own - white.mT @ white

    def variance(self, information: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """1 / (1 + l)."""
        return 1.0 / (1.0 + information)


@dataclass(frozen=True)
class EarlyStopping(Shrinkage):
    """k steps of gradient ascent with the rates S², which imply a prior (`implied_prior`): v = s(l).

    Attributes:
        steps: k.

    Example:
        >>> EarlyStopping(steps=2).variance(torch.tensor([0.0, 0.5, 2.0]))  # k, (1 - 0.5²) / 0.5 and 1 / 2
        tensor([2.0000, 1.5000, 0.5000])
    """

    steps: int

    def full(self, curvature: Curvature) -> EarlyStoppedBelief:
        """Through the spectrum of AAᵀ, or where no step overshoots by the polynomial that g is there."""
        kernel = curvature.kernel()
        return EarlyStoppedBelief(curvature, self.steps, kernel, self._excess(kernel))

    @override
    def covariance(self, kernel: Tensor, cross: Tensor, own: Tensor) -> Float[Tensor, "B MK MK"]:
        return torch.baddbmm(own, cross.mT, self._excess(kernel) @ cross, beta=self.steps)

    def _excess(self, kernel: Float[Tensor, "B NK NK"]) -> Float[Tensor, "B NK NK"]:
        if self.steps <= MOST_FACTORS and _is_below_one(kernel):
            return _polynomial_excess(kernel, self.steps)
        return matrix_function(kernel, lambda information: variance_excess(information, self.steps))

    def variance(self, information: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """s(l): the sum of (1 - l)^i over i < k up to l = 1, and 1 / l beyond."""
        if torch.compiler.is_compiling() or is_mapped(information) or not bool((information.detach() <= 1.0).all()):
            return self.steps + information * variance_excess(information, self.steps)
        left, one = 1.0 - information, information.new_ones(())
        total = one.expand_as(information)
        for _ in range(self.steps - 1):
            total = torch.addcmul(one, total, left)
        return total


def _is_below_one(kernel: Float[Tensor, "B NK NK"]) -> bool:
    """Whether no eigenvalue is above 1, which a Cholesky factor says at a tenth of the price of a spectrum.

    Recorded and mapped code decides nothing.
    """
    if kernel.shape[-1] == 0 or torch.compiler.is_compiling() or is_mapped(kernel):
        return False
    eye = torch.eye(kernel.shape[-1], dtype=kernel.dtype, device=kernel.device)
    return not bool(torch.linalg.cholesky_ex(eye - kernel.detach()).info.any())


def _polynomial_excess(kernel: Float[Tensor, "B NK NK"], steps: int) -> Float[Tensor, "B NK NK"]:
    """g(AAᵀ) where no eigenvalue is above 1: -Σ_{i=0}^{k-2} (k - 1 - i) (I - AAᵀ)^i."""
    eye = torch.eye(kernel.shape[-1], dtype=kernel.dtype, device=kernel.device)
    if steps < 3:
        return (float(1 - steps) * eye).expand_as(kernel)
    left = eye - kernel
    total = -left - 2.0 * eye
    for i in reversed(range(steps - 3)):
        total = torch.baddbmm(float(i + 1 - steps) * eye, total, left)
    return total


def variance_excess(information: Float[Tensor, "*b"], steps: int) -> Float[Tensor, "*b"]:
    """g(l) = (s(l) - k) / l, with s(l) = (1 - (1 - l)^k) / l up to l = 1 and 1 / l beyond.

    Up to 1 it is the polynomial -Σ_{i=0}^{k-2} (k - 1 - i) (1 - l)^i, which loses no digits at l = 0.

    Args:
        information: l, not negative.
        steps: k.

    Example:
        >>> variance_excess(torch.tensor([0.0, 0.5]), steps=2)  # -1 up to l = 1, for two steps
        tensor([-1., -1.])
    """
    left = 1.0 - information.clamp(max=1.0)
    total = torch.zeros_like(information)
    for i in reversed(range(steps - 1)):
        total = total * left - float(steps - 1 - i)
    beyond = information.clamp(min=1.0)
    return torch.where(information <= 1.0, total, (1.0 / beyond - steps) / beyond)


def _plus_identity(kernel: Tensor) -> Tensor:
    return kernel + torch.eye(kernel.shape[-1], dtype=kernel.dtype, device=kernel.device)
