"""Exact inference of effects that tasks share, with those of each task integrated out: R_t = X_t Z + Φ_t Z_t + E_t.

    Z ~ MN(0, I, Σ) shared,   Z_t ~ MN(0, I, Σ) of each task,   E_t ~ MN(0, I, Σ)

X and Φ are whitened, and every covariance is in units of Σ. A row of X is sparse: its numbers stand in the columns of
the levels that the point belongs to. The effects of the tasks go out first, a task at a time:

    S_t = I + Φ_t Φ_tᵀ,   M = Σ_t X_tᵀ S_t⁻¹ X_t,   m = Σ_t X_tᵀ S_t⁻¹ R_t
    Z | R ~ MN((I + M)⁻¹ m, (I + M)⁻¹, Σ)
    log p(R) = Σ_t log N(R_t; 0, S_t ⊗ Σ) - ½ C log|I + M| + ½ tr(Σ⁻¹ mᵀ (I + M)⁻¹ m)

so that the cost is that of the tasks one by one, and of one matrix over the shared effects. This is the elimination by
which lme4 factors its cross-products (Bates et al. 2015, "Fitting linear mixed-effects models using lme4", section 5).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmeta.linalg import cholesky, require_matrix, solve_lower, unit_gram


@dataclass(frozen=True, eq=False)
class SharedRows:
    """X: what points see of the shared effects.

    Attributes:
        columns: of each number of a row, which of the Q shared effects it belongs to.
        values: the numbers; zero at padding, and where a point belongs to no known level.
        size: Q.
    """

    columns: Int[Tensor, "B N E"]
    values: Float[Tensor, "B N E"]
    size: int

    def gram(self) -> Float[Tensor, "Q Q"]:
        """Σ_t X_tᵀ X_t."""
        count = self.columns.shape[-1]
        first, second = self.columns[..., :, None].expand(*self.columns.shape, count), self.columns[..., None, :]
        places = first * self.size + second
        products = self.values[..., :, None] * self.values[..., None, :]
        flat = products.new_zeros(self.size * self.size)
        return flat.index_add(0, places.flatten(), products.flatten()).unflatten(0, (self.size, self.size))

    def times(self, left: Float[Tensor, "B R N"]) -> Float[Tensor, "B R Q"]:
        """A_t X_t of each task."""
        require_matrix(left.shape[0] * left.shape[1], self.size)
        product = left.new_zeros(*left.shape[:2], self.size)
        for columns, values in zip(self.columns.unbind(-1), self.values.unbind(-1), strict=True):
            places = columns[:, None].expand(-1, left.shape[1], -1)
            product = product.scatter_add(2, places, left * values[:, None])
        return product

    def moments(self, right: Float[Tensor, "B N K"]) -> Float[Tensor, "Q K"]:
        """Σ_t X_tᵀ Y_t."""
        products = self.values[..., None] * right[..., None, :]
        flat = products.new_zeros(self.size, right.shape[-1])
        return flat.index_add(0, self.columns.flatten(), products.flatten(0, 2))


@dataclass(frozen=True, eq=False)
class Sums:
    """What all tasks together say, their own effects integrated out, of shared effects and of further columns Y.

    Attributes:
        shared: M = Σ_t X_tᵀ S_t⁻¹ X_t.
        cross: Σ_t X_tᵀ S_t⁻¹ Y_t.
        products: Σ_t Y_tᵀ S_t⁻¹ Y_t.
        log_determinant: Σ_t log|S_t|.
    """

    shared: Float[Tensor, "Q Q"]
    cross: Float[Tensor, "Q K"]
    products: Float[Tensor, "K K"]
    log_determinant: Float[Tensor, ""]

    @staticmethod
    def total(parts: "Sequence[Sums]") -> "Sums":
        """Of several batches of tasks together."""
        return Sums(
            torch.stack([each.shared for each in parts]).sum(0),
            torch.stack([each.cross for each in parts]).sum(0),
            torch.stack([each.products for each in parts]).sum(0),
            torch.stack([each.log_determinant for each in parts]).sum(),
        )

    def factor(self) -> Float[Tensor, "Q Q"]:
        """The Cholesky factor of I + M."""
        eye = torch.eye(len(self.shared), dtype=self.shared.dtype, device=self.shared.device)
        return cholesky(self.shared + eye, "precision of shared effects")

    def explained(self, factor: Float[Tensor, "Q Q"]) -> Float[Tensor, "K K"]:
        """Σ Yᵀ S⁻¹ Y of all points together, the shared effects integrated out, too.

        Args:
            factor: that of I + M.
        """
        white = solve_lower(factor, self.cross)
        return self.products - white.mT @ white


def sums(
    rows: Float[Tensor, "B N R"], shared: SharedRows, right: Float[Tensor, "B N K"], mask: Bool[Tensor, "B N"]
) -> Sums:
    """What the tasks of a batch say of the shared effects, and of further columns.

    Args:
        rows: Φ, whitened: the effects of each task.
        shared: X, whitened.
        right: Y, any columns.
        mask: True = real.

    Raises:
        InferenceError: rows that are not finite, or tasks times shared effects that are too many to be held.

    Example:
        >>> rows, mask = torch.zeros(1, 2, 1).double(), torch.ones(1, 2, dtype=torch.bool)
        >>> shared = SharedRows(torch.tensor([[[0], [1]]]), torch.ones(1, 2, 1).double(), 3)  # two of three levels
        >>> found = sums(rows, shared, torch.tensor([[[4.0], [6.0]]]).double(), mask)
        >>> found.shared.diagonal().tolist(), found.cross.flatten().tolist()
        ([1.0, 1.0, 0.0], [4.0, 6.0, 0.0])
    """
    real = mask[..., None]
    rows, right = torch.where(real, rows, 0.0), torch.where(real, right, 0.0)
    shared = SharedRows(shared.columns, torch.where(real, shared.values, 0.0), shared.size)
    factor = cholesky(unit_gram(rows.mT), "posterior precision")
    own = solve_lower(factor, rows.mT)  # S⁻¹ = I - (C⁻¹ Φᵀ)ᵀ (C⁻¹ Φᵀ)
    seen, solved = shared.times(own).flatten(0, 1), (own @ right).flatten(0, 1)
    flat = right.flatten(0, 1)
    return Sums(
        shared.gram() - seen.mT @ seen,
        shared.moments(right) - seen.mT @ solved,
        flat.mT @ flat - solved.mT @ solved,
        2.0 * factor.diagonal(dim1=-2, dim2=-1).log().sum(),
    )
