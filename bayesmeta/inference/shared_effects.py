"""Exact inference of effects that tasks share, with those of each task integrated out: R_t = X_t Z + Φ_t Z_t + E_t.

    Z ~ MN(0, I, Σ) shared,   Z_t ~ MN(0, I, Σ) of each task,   E_t ~ MN(0, I, Σ)

X and Φ are whitened, and every covariance is in units of Σ. A row of X is sparse: its numbers stand in the columns of
the levels that the point belongs to. The effects of the tasks go out first, a task at a time:

    S_t = I + Φ_t Φ_tᵀ,   M = Σ_t X_tᵀ S_t⁻¹ X_t,   m = Σ_t X_tᵀ S_t⁻¹ R_t
    Z | R ~ MN((I + M)⁻¹ m, (I + M)⁻¹, Σ)
    log p(R) = Σ_t log N(R_t; 0, S_t ⊗ Σ) - ½ C log|I + M| + ½ tr(Σ⁻¹ mᵀ (I + M)⁻¹ m)

which is how lme4 factors its cross-products (Bates et al. 2015, "Fitting linear mixed-effects models using lme4",
section 5). Effects that no task has in common are independent: M has a block for each set of effects that tasks
connect. Where groupings are nested these are the levels of the outermost one, and small; where they are crossed there
is one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmeta.linalg import cholesky, logdet, require_matrix, solve_lower, unit_gram

MOST_NUMBERS = 2**24  # float64 numbers of the products of some tasks: 128 MB


@dataclass(frozen=True, eq=False)
class Blocks:
    """Which of Q shared effects belong together: those that a task sees, and all that are so connected.

    Attributes:
        block: of each effect.
        place: of each effect in its block.
        seen: whether any point sees the effect; of the others, block and place are 0.
        count: how many blocks there are, one at least.
        size: effects of the largest block.

    Example:
        >>> columns = torch.tensor([[[0], [2]], [[1], [1]]])  # the first task connects 0 and 2
        >>> blocks = Blocks.of([(columns, torch.ones(2, 2, 1, dtype=torch.bool))], 4)
        >>> blocks.block.tolist(), blocks.place.tolist(), blocks.seen.tolist()
        ([0, 1, 0, 0], [0, 0, 1, 0], [True, True, True, False])
    """

    block: Int[Tensor, "Q"]
    place: Int[Tensor, "Q"]
    seen: Bool[Tensor, "Q"]
    count: int
    size: int

    @classmethod
    def of(cls, batches: "Sequence[tuple[Tensor, Tensor]]", num_effects: int) -> "Blocks":
        """Read off what tasks see.

        Args:
            batches: of each batch of tasks the columns of the numbers of X, `B N E`, and which of them are real.
            num_effects: Q.
        """
        device = batches[0][0].device
        label = torch.arange(num_effects, device=device)
        seen = torch.zeros(num_effects, dtype=torch.bool, device=device)
        while num_effects:  # the smallest number among all that are connected
            lowest = label
            for columns, real in batches:
                seen[columns[real]] = True
                of_task = torch.where(real, label[columns], num_effects).flatten(1).amin(1)
                of_task = of_task[:, None, None].expand(columns.shape)
                lowest = lowest.scatter_reduce(0, columns[real], of_task[real], "amin")
            lowest = lowest[lowest]
            if torch.equal(lowest, label):
                break
            label = lowest
        effects = seen.nonzero().flatten()
        roots, block = label[effects].unique(return_inverse=True)
        counts = torch.bincount(block, minlength=1)
        order = block.argsort(stable=True)
        place = torch.empty_like(block)
        place[order] = torch.arange(len(block), device=device) - (counts.cumsum(0) - counts)[block[order]]
        zeros = torch.zeros_like(label)
        return cls(
            zeros.index_put((effects,), block),
            zeros.index_put((effects,), place),
            seen,
            max(len(roots), 1),
            int(counts.max()),
        )

    def dense(self, values: Float[Tensor, "K q *k"]) -> Float[Tensor, "Q *k"]:
        """Rows in blocks as rows of all effects, zeros for those that no point sees."""
        shape = (-1, *[1] * (values.ndim - 2))
        return torch.where(self.seen.reshape(shape), values[self.block, self.place], 0.0)

    def dense_matrix(self, values: Float[Tensor, "K q q"]) -> Float[Tensor, "Q Q"]:
        """A matrix in blocks as one between all effects."""
        same = (self.block[:, None] == self.block) & self.seen[:, None] & self.seen
        return torch.where(same, values[self.block[:, None], self.place[:, None], self.place], 0.0)


@dataclass(frozen=True, eq=False)
class SharedRows:
    """X: what points see of the shared effects.

    Attributes:
        columns: of each number of a row, which of the Q shared effects it belongs to.
        values: the numbers.
        real: which of them are; the others are at padding, or of levels that are not known.
    """

    columns: Int[Tensor, "B N E"]
    values: Float[Tensor, "B N E"]
    real: Bool[Tensor, "B N E"]

    def in_blocks(self, blocks: Blocks) -> "BlockRows":
        """The same by the block of each task."""
        found = torch.where(self.real, blocks.block[self.columns], 0).flatten(1)
        of_task = found.amax(1) if found.shape[1] else found.new_zeros(len(found))
        places = torch.where(self.real, blocks.place[self.columns], 0)
        return BlockRows(of_task, places, torch.where(self.real, self.values, 0.0), blocks.count, blocks.size)


@dataclass(frozen=True, eq=False)
class BlockRows:
    """X, whose rows of a task are those of a block of effects.

    Attributes:
        block: of each task.
        places: of each number of a row, which effect of the block it belongs to.
        values: the numbers, zero where there is none.
        count: how many blocks there are.
        size: effects of the largest block.
    """

    block: Int[Tensor, "B"]
    places: Int[Tensor, "B N E"]
    values: Float[Tensor, "B N E"]
    count: int
    size: int

    def gram(self) -> Float[Tensor, "K q q"]:
        """Σ_t X_tᵀ X_t."""
        rows = self.block[:, None, None] * self.size + self.places
        cells = rows[..., :, None] * self.size + self.places[..., None, :]
        products = self.values[..., :, None] * self.values[..., None, :]
        flat = products.new_zeros(self.count * self.size**2).index_add(0, cells.flatten(), products.flatten())
        return flat.reshape(self.count, self.size, self.size)

    def times(self, left: Float[Tensor, "B R N"]) -> Float[Tensor, "B R q"]:
        """A_t X_t of each task."""
        require_matrix(left.shape[0] * left.shape[1], self.size)
        product = left.new_zeros(*left.shape[:2], self.size)
        for places, values in zip(self.places.unbind(-1), self.values.unbind(-1), strict=True):
            product = product.scatter_add(2, places[:, None].expand(-1, left.shape[1], -1), left * values[:, None])
        return product

    def moments(self, right: Float[Tensor, "B N J"]) -> Float[Tensor, "K q J"]:
        """Σ_t X_tᵀ Y_t."""
        rows = (self.block[:, None, None] * self.size + self.places).flatten()
        products = (self.values[..., None] * right[..., None, :]).flatten(0, 2)
        flat = products.new_zeros(self.count * self.size, right.shape[-1]).index_add(0, rows, products)
        return flat.reshape(self.count, self.size, right.shape[-1])

    def summed(self, left: Float[Tensor, "B R q"], right: Float[Tensor, "B R J"]) -> Float[Tensor, "K q J"]:
        """Σ_t A_tᵀ B_t, by block."""
        if self.count == 1:
            return (left.flatten(0, 1).mT @ right.flatten(0, 1))[None]
        total = left.new_zeros(self.count, self.size, right.shape[-1])
        step = max(1, MOST_NUMBERS // max(self.size * right.shape[-1], 1))
        for part in zip(self.block.split(step), left.split(step), right.split(step), strict=True):
            total = total.index_add(0, part[0], part[1].mT @ part[2])
        return total


@dataclass(frozen=True, eq=False)
class Sums:
    """What all tasks together say, their own effects integrated out, of shared effects and of further columns Y.

    Attributes:
        shared: M = Σ_t X_tᵀ S_t⁻¹ X_t, in blocks.
        cross: Σ_t X_tᵀ S_t⁻¹ Y_t, in blocks.
        products: Σ_t Y_tᵀ S_t⁻¹ Y_t.
        log_determinant: Σ_t log|S_t|.
    """

    shared: Float[Tensor, "K q q"]
    cross: Float[Tensor, "K q J"]
    products: Float[Tensor, "J J"]
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

    def explained(self) -> tuple[Float[Tensor, "J J"], Float[Tensor, ""]]:
        """Yᵀ S⁻¹ Y of all points together, and log|S|, the shared effects integrated out, too.

        Raises:
            InferenceError: numbers that are not finite.
        """
        eye = torch.eye(self.shared.shape[-1], dtype=self.shared.dtype, device=self.shared.device)
        factor = cholesky(self.shared + eye, "precision of shared effects")
        white = solve_lower(factor, self.cross).flatten(0, 1)
        return self.products - white.mT @ white, self.log_determinant + logdet(factor).sum()


def sums(
    rows: Float[Tensor, "B N R"], shared: BlockRows, right: Float[Tensor, "B N J"], mask: Bool[Tensor, "B N"]
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
        >>> columns, real = torch.tensor([[[0], [1]]]), torch.ones(1, 2, 1, dtype=torch.bool)  # two levels
        >>> shared = SharedRows(columns, torch.ones(1, 2, 1).double(), real)
        >>> found = sums(rows, shared.in_blocks(Blocks.of([(columns, real)], 2)), 4.0 * shared.values, mask)
        >>> found.shared.tolist(), found.cross.flatten().tolist()
        ([[[1.0, 0.0], [0.0, 1.0]]], [4.0, 4.0])
    """
    rows, right = torch.where(mask[..., None], rows, 0.0), torch.where(mask[..., None], right, 0.0)
    factor = cholesky(unit_gram(rows.mT), "posterior precision")
    own = solve_lower(factor, rows.mT)  # S⁻¹ = I - (C⁻¹ Φᵀ)ᵀ (C⁻¹ Φᵀ)
    seen, solved = shared.times(own), own @ right
    flat, flat_solved = right.flatten(0, 1), solved.flatten(0, 1)
    return Sums(
        shared.gram() - shared.summed(seen, seen),
        shared.moments(right) - shared.summed(seen, solved),
        flat.mT @ flat - flat_solved.mT @ flat_solved,
        logdet(factor).sum(),
    )
