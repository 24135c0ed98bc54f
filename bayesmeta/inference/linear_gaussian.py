"""Exact inference in the matrix-normal linear model: R = Φ Z + E, Z ~ MN(0, I, Σ), E ~ MN(0, I, Σ).

`rows` Φ are *whitened* features (features times the factor L of the prior covariance V = L Lᵀ), R the residual from the
prior mean. Every covariance below is in units of Σ, the noise covariance over outputs, which factors out:

    feature space, R x R:   A = I + ΦᵀΦ,   Z | D ~ MN(A⁻¹ Φᵀ R, A⁻¹, Σ)
    point space, N x N:     S = I + ΦΦᵀ,   log p(R) = -½ (C log|S| + N log|Σ| + tr(Σ⁻¹ Rᵀ S⁻¹ R) + N C log 2π)

The smaller of the two is used. Harrison et al. 2018 (ALPaCA), eqs. 5-9; Rasmussen & Williams 2006, sec. 2.1.2.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad
from typing_extensions import override

from bayesmeta.linalg import cholesky, is_symbolic, logdet, solve_lower, squared_norms, unit_gram, update_root
from bayesmeta.one_line import InShort

LOG_2PI = math.log(2.0 * math.pi)
MOST_FEATURES = 256  # in whose space is worked where the number of points may be any


@dataclass(frozen=True, eq=False)
class LinearGaussian(InShort, ABC):
    """The posterior Z | D ~ MN(mean, P, Σ) of each task: a value, which `condition` gives in either of two forms.

    Example:
        >>> rows, mask = torch.ones(1, 3, 1).double(), torch.ones(1, 3, dtype=torch.bool)
        >>> belief = condition(rows, torch.full((1, 3, 1), 4.0).double(), mask)  # y = z + noise, three times 4
        >>> mean, variance = belief.predict(rows[:, :1])
        >>> round(mean.item(), 3), round(variance.item(), 3)  # 3/4 of 4; 1/4 of the noise variance
        (3.0, 0.25)
        >>> belief.update(rows, torch.full((1, 3, 1), 4.0).double(), mask).predict(rows[:, :1])[1].item() < variance
        tensor([[True]])
    """

    @abstractmethod
    def moments(self) -> tuple[Float[Tensor, "B R C"], Float[Tensor, "B R R"]]:
        """The posterior mean of Z, and a root T of its covariance P = T Tᵀ."""

    @abstractmethod
    def predict(self, rows: Float[Tensor, "B M R"]) -> tuple[Float[Tensor, "B M C"], Float[Tensor, "B M"]]:
        """Mean of Φ Z at each point in units of y, and its variance in units of Σ.

        Args:
            rows: Φ of the query points, whitened.
        """

    @abstractmethod
    def covariance(self, rows: Float[Tensor, "B M R"]) -> Float[Tensor, "B M M"]:
        """Covariance of Φ Z between points, in units of Σ.

        Args:
            rows: Φ of the query points, whitened.
        """

    def spread(self, rows: Float[Tensor, "B M R"]) -> Float[Tensor, "B M R"]:
        """Φ T: a root of that covariance with R columns.

        Args:
            rows: Φ of the query points, whitened.
        """
        return rows @ self.moments()[1]

    @property
    def num_tasks(self) -> int:
        """B."""
        first: Tensor = next(iter(vars(self).values()))
        return first.shape[0]

    def split(self, size: int) -> "list[LinearGaussian]":
        """The same posterior, at most `size` tasks at a time."""
        if self.num_tasks <= size:
            return [self]
        parts = (getattr(self, field.name).split(size) for field in fields(self))
        return [type(self)(*values) for values in zip(*parts, strict=True)]

    @staticmethod
    def joined(parts: "Sequence[LinearGaussian]") -> "LinearGaussian":
        """Of the tasks of several, in order; all are in one form."""
        first, *others = parts
        if not others:
            return first
        return type(first)(*(torch.cat([getattr(each, field.name) for each in parts]) for field in fields(first)))

    def select(self, tasks: Int[Tensor, "K"]) -> "LinearGaussian":
        """Of the tasks at these positions."""
        return type(self)(*(getattr(self, field.name)[tasks] for field in fields(self)))

    def update(
        self, rows: Float[Tensor, "B N R"], residual: Float[Tensor, "B N C"], mask: Bool[Tensor, "B N"]
    ) -> "LinearGaussian":
        """The posterior after more points, in square-root form: O(N R²) whatever came before.

        Args:
            rows: Φ of the new points, whitened.
            residual: R of the new points, in units of y.
            mask: True = real.

        Raises:
            InferenceError: rows that are not finite.
        """
        rows, residual = _zero_padding(rows, residual, mask)
        mean, root = self.moments()
        root, gain = update_root(root, rows)
        return FeatureSpace(mean + gain @ (residual - rows @ mean), root)


@dataclass(frozen=True, eq=False)
class FeatureSpace(LinearGaussian):
    """The primal form: mean and covariance root over features. A prediction is two matrix products.

    Attributes:
        mean: of Z.
        root: T, with T Tᵀ = A⁻¹.
    """

    mean: Float[Tensor, "B R C"]
    root: Float[Tensor, "B R R"]

    def moments(self) -> tuple[Float[Tensor, "B R C"], Float[Tensor, "B R R"]]:
        """As they are held."""
        return self.mean, self.root

    def predict(self, rows: Float[Tensor, "B M R"]) -> tuple[Float[Tensor, "B M C"], Float[Tensor, "B M"]]:
        """Φ mean and |Φ T|²."""
        return rows @ self.mean, squared_norms(rows @ self.root)

    def covariance(self, rows: Float[Tensor, "B M R"]) -> Float[Tensor, "B M M"]:
        """Φ T Tᵀ Φᵀ."""
        spread = rows @ self.root
        return spread @ spread.mT


@dataclass(frozen=True, eq=False)
class PointSpace(LinearGaussian):
    """The dual form: the points themselves, and the N x N Cholesky factor C of S = I + ΦΦᵀ.

    Attributes:
        rows: Φ of the support, zero where padded.
        factor: C.
        white: C⁻¹ R.
    """

    rows: Float[Tensor, "B N R"]
    factor: Float[Tensor, "B N N"]
    white: Float[Tensor, "B N C"]

    def moments(self) -> tuple[Float[Tensor, "B R C"], Float[Tensor, "B R R"]]:
        """Φᵀ S⁻¹ R, and the prior root I conditioned on all points at once."""
        eye = torch.eye(self.rows.shape[-1], dtype=self.rows.dtype, device=self.rows.device)
        root, _ = update_root(eye.expand(self.rows.shape[0], -1, -1), self.rows)
        return solve_lower(self.factor, self.rows).mT @ self.white, root

    def predict(self, rows: Float[Tensor, "B M R"]) -> tuple[Float[Tensor, "B M C"], Float[Tensor, "B M"]]:
        """K S⁻¹ R and k - |C⁻¹ Kᵀ|², with K the Gram matrix between queries and support."""
        cross = solve_lower(self.factor, self.rows @ rows.mT)
        # the difference is at least |h|² / (1 + Σ_n |h_n|²) > 0; the clamp only removes rounding below zero
        return cross.mT @ self.white, (squared_norms(rows) - cross.square().sum(-2)).clamp(min=0.0)

    def covariance(self, rows: Float[Tensor, "B M R"]) -> Float[Tensor, "B M M"]:
        """K(queries) - (C⁻¹ Kᵀ)ᵀ (C⁻¹ Kᵀ)."""
        white = solve_lower(self.factor, self.rows @ rows.mT)
        return rows @ rows.mT - white.mT @ white

    @override
    def update(
        self, rows: Float[Tensor, "B N R"], residual: Float[Tensor, "B N C"], mask: Bool[Tensor, "B N"]
    ) -> LinearGaussian:
        """The same form with more rows of C, as long as there are fewer points than features: O(N (N + R)) a point."""
        if self.rows.shape[1] + rows.shape[1] >= rows.shape[2]:
            return super().update(rows, residual, mask)
        rows, residual = _zero_padding(rows, residual, mask)
        # [S   K ]   [C   0 ] [Cᵀ  V ]
        # [Kᵀ  S*] = [Vᵀ  C*] [0   C*ᵀ],   V = C⁻¹ K,   C* C*ᵀ = S* - VᵀV
        across = solve_lower(self.factor, self.rows @ rows.mT)
        corner = cholesky(torch.baddbmm(unit_gram(rows), across.mT, across, alpha=-1.0), "innovation covariance")
        white = solve_lower(corner, residual - across.mT @ self.white)
        factor = torch.cat([pad(self.factor, (0, rows.shape[1])), torch.cat([across.mT, corner], -1)], -2)
        return PointSpace(torch.cat([self.rows, rows], 1), factor, torch.cat([self.white, white], 1))


def condition(
    rows: Float[Tensor, "B N R"], residual: Float[Tensor, "B N C"], mask: Bool[Tensor, "B N"]
) -> LinearGaussian:
    """The exact posterior of Z given the real points, in the smaller of the two spaces.

    What is exported for any number of points cannot choose: it takes that of features, up to 256 of them.

    Args:
        rows: Φ, features times the root of the prior covariance over features.
        residual: R, outcomes less the prior mean, in units of y.
        mask: True = real; what rows and residual hold at padding never matters.

    Raises:
        InferenceError: rows that are not finite.

    Example:
        >>> rows, residual = torch.ones(2, 1, 1).double(), torch.tensor([[[4.0]], [[9.0]]]).double()
        >>> belief = condition(rows, residual, torch.tensor([[True], [False]]))  # the second task has no points
        >>> belief.predict(rows)[0].flatten().round(decimals=3).tolist()
        [2.0, 0.0]
    """
    if _is_smaller(rows.shape[1], rows.shape[2]):
        return condition_point_space(rows, residual, mask)
    return condition_feature_space(rows, residual, mask)


def condition_point_space(
    rows: Float[Tensor, "B N R"], residual: Float[Tensor, "B N C"], mask: Bool[Tensor, "B N"]
) -> PointSpace:
    """The dual form, by the Cholesky factor of an N x N matrix: the smaller one while N < R.

    Arguments and errors are those of `condition`.

    Example:
        >>> rows, residual, mask = torch.eye(2).double()[None], torch.ones(1, 2, 1).double(), torch.ones(1, 2).bool()
        >>> condition_point_space(rows, residual, mask).predict(rows)[0].flatten().round(decimals=3).tolist()
        [0.5, 0.5]
    """
    rows, residual = _zero_padding(rows, residual, mask)
    factor = cholesky(unit_gram(rows), "support covariance")
    return PointSpace(rows, factor, solve_lower(factor, residual))


def condition_feature_space(
    rows: Float[Tensor, "B N R"], residual: Float[Tensor, "B N C"], mask: Bool[Tensor, "B N"]
) -> FeatureSpace:
    """The primal form, by the Cholesky factor of an R x R matrix: the smaller one once N >= R.

    Arguments and errors are those of `condition`.

    Example:
        >>> rows, residual, mask = torch.eye(2).double()[None], torch.ones(1, 2, 1).double(), torch.ones(1, 2).bool()
        >>> condition_feature_space(rows, residual, mask).predict(rows)[0].flatten().round(decimals=3).tolist()
        [0.5, 0.5]
    """
    rows, residual = _zero_padding(rows, residual, mask)
    eye = torch.eye(rows.shape[-1], dtype=rows.dtype, device=rows.device)
    factor = cholesky(unit_gram(rows.mT), "posterior precision")  # A = C Cᵀ, so T = C⁻ᵀ
    root = solve_lower(factor, eye).mT
    return FeatureSpace(root @ (root.mT @ (rows.mT @ residual)), root)


def prefix_log_probs(
    rows: Float[Tensor, "B N R"],
    residual: Float[Tensor, "B N C"],
    mask: Bool[Tensor, "B N"],
    output_covariance: Float[Tensor, "C C"],
) -> Float[Tensor, "B N"]:
    """log p(r_n | r_1..r_n-1) for every n, in nats, from one N x N Cholesky; 0 at padding. Their sum is the evidence.

    Each point is predicted by those before it, jointly over its outputs: what online prediction is scored by. With
    S = C Cᵀ the innovations are C⁻¹ R, and the predictive variance of point n given those before it is C_nn² Σ.

    Args:
        rows: Φ, whitened.
        residual: R, units of y.
        mask: True = real.
        output_covariance: Σ, squared units of y.

    Raises:
        InferenceError: rows that are not finite, or a Σ that is not positive definite.

    Example:
        >>> rows, residual = torch.ones(1, 2, 1).double(), torch.zeros(1, 2, 1).double()
        >>> prefix_log_probs(rows, residual, torch.ones(1, 2, dtype=torch.bool), torch.eye(1).double())
        tensor([[-1.2655, -1.1217]], dtype=torch.float64)
    """
    white, spread = _innovations(rows, residual, mask, output_covariance)
    each = -0.5 * (white.square().sum(-1) + spread + output_covariance.shape[-1] * LOG_2PI)
    return torch.where(mask, each, 0.0)


def _innovations(
    rows: Float[Tensor, "B N R"],
    residual: Float[Tensor, "B N C"],
    mask: Bool[Tensor, "B N"],
    output_covariance: Float[Tensor, "C C"],
) -> tuple[Float[Tensor, "B N C"], Float[Tensor, "B N"]]:
    """What each point adds to those before it, whitened over the outputs, and the log determinant of its variance."""
    rows, residual = _zero_padding(rows, residual, mask)
    factor = cholesky(unit_gram(rows), "support covariance")
    outputs = cholesky(output_covariance, "noise covariance")
    white = solve_lower(outputs, solve_lower(factor, residual).mT).mT
    spread = 2.0 * output_covariance.shape[-1] * factor.diagonal(dim1=-2, dim2=-1).log()
    return white, spread + logdet(outputs)


def log_evidence(
    rows: Float[Tensor, "B N R"],
    residual: Float[Tensor, "B N C"],
    mask: Bool[Tensor, "B N"],
    output_covariance: Float[Tensor, "C C"],
) -> Float[Tensor, "B"]:
    """log p(R) of the real points of each task, Z integrated out, in nats: the log marginal likelihood.

    It is computed in the smaller of the two spaces.

    Arguments and errors are those of `prefix_log_probs`.

    Example:
        >>> rows, residual = torch.ones(1, 2, 1).double(), torch.zeros(1, 2, 1).double()
        >>> log_evidence(rows, residual, torch.ones(1, 2, dtype=torch.bool), torch.eye(1).double())
        tensor([-2.3872], dtype=torch.float64)
    """
    count, squares, determinant = quadratic_form(rows, residual, mask, output_covariance)
    return -0.5 * (squares + determinant + count * LOG_2PI)


def quadratic_form(
    rows: Float[Tensor, "B N R"],
    residual: Float[Tensor, "B N C"],
    mask: Bool[Tensor, "B N"],
    output_covariance: Float[Tensor, "C C"],
) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"], Float[Tensor, "B"]]:
    """n, q = rᵀ K⁻¹ r and log|K| of the n = N C real numbers r of each task, K = S ⊗ Σ: what a density is made of.

    It is computed in the smaller of the two spaces.

    Arguments and errors are those of `prefix_log_probs`.

    Example:
        >>> rows, residual = torch.ones(1, 2, 1).double(), torch.ones(1, 2, 1).double()
        >>> count, squares, determinant = quadratic_form(rows, residual, torch.ones(1, 2).bool(), torch.eye(1).double())
        >>> count.item(), round(squares.item(), 3), round(determinant.exp().item(), 3)  # of [[2, 1], [1, 2]]
        (2.0, 0.667, 3.0)
    """
    num_outputs = output_covariance.shape[-1]
    count = mask.sum(-1).to(rows.dtype)
    if _is_smaller(rows.shape[1], rows.shape[2]):
        white, spread = _innovations(rows, residual, mask, output_covariance)
        determinant = torch.where(mask, spread, 0.0).sum(-1)
        return count * num_outputs, white.square().sum((-1, -2)), determinant
    rows, residual = _zero_padding(rows, residual, mask)
    factor = cholesky(unit_gram(rows.mT), "posterior precision")
    mean = torch.cholesky_solve(rows.mT @ residual, factor)
    # Rᵀ S⁻¹ R = (R - Φm)ᵀ(R - Φm) + mᵀm: a sum of squares, where RᵀR - RᵀΦm would cancel
    stacked = torch.cat([residual - rows @ mean, mean], 1)
    outputs = cholesky(output_covariance, "noise covariance")
    squares = solve_lower(outputs, stacked.mT).square().sum((-1, -2))
    return count * num_outputs, squares, num_outputs * logdet(factor) + count * logdet(outputs)


def information(
    rows: Float[Tensor, "B N R"],
    design: Float[Tensor, "B N F"],
    outcome: Float[Tensor, "B N C"],
    mask: Bool[Tensor, "B N"],
) -> tuple[Float[Tensor, "F F"], Float[Tensor, "F C"]]:
    """Σ_t Xᵀ S⁻¹ X and Σ_t Xᵀ S⁻¹ Y over all tasks, in units of Σ⁻¹.

    Generalised least squares for a weight that all tasks have in common solves one for the other: the weight that
    maximises the evidence, where Z are the deviations of each task from it (Laird & Ware 1982).

    Args:
        rows: Φ, whitened, of the deviations of each task.
        design: X, of the common weight.
        outcome: Y, units of y.
        mask: True = real.

    Raises:
        InferenceError: rows that are not finite.

    Example:
        >>> design, outcome = torch.ones(2, 1, 1).double(), torch.tensor([[[1.0]], [[3.0]]]).double()
        >>> precision, moment = information(0.0 * design, design, outcome, torch.ones(2, 1, dtype=torch.bool))
        >>> (moment / precision).item()  # without deviations the mean of all points
        2.0
    """
    rows, design = _zero_padding(rows, design, mask)
    outcome = torch.where(mask[..., None], outcome, 0.0)
    factor = cholesky(unit_gram(rows.mT), "posterior precision")
    both = torch.cat([design, outcome], -1)
    # S⁻¹ = I - Φ A⁻¹ Φᵀ
    solved = both - rows @ torch.cholesky_solve(rows.mT @ both, factor)
    products = (design.mT @ solved).sum(0)
    return products[:, : design.shape[-1]], products[:, design.shape[-1] :]


def _is_smaller(points: int, features: int) -> bool:
    """Whether the space of points is the one to work in."""
    return features > MOST_FEATURES if is_symbolic(points) else points < features


def _zero_padding(rows: Tensor, residual: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    if not torch.compiler.is_compiling() and bool(mask.all()):
        return rows, residual
    real = mask[..., None]
    return torch.where(real, rows, 0.0), torch.where(real, residual, 0.0)
