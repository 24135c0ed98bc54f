"""Small dense linear algebra for many tasks at once: masked Cholesky factors and square-root updates."""

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.errors import InferenceError


def cholesky(matrix: Float[Tensor, "*b N N"], what: str = "matrix") -> Float[Tensor, "*b N N"]:
    """Lower Cholesky factors L, matrix = L Lᵀ.

    Raises:
        InferenceError: a matrix is not positive definite; the message says which of the batch, and `what` it is.
    """
    # cholesky_ex leaves finite garbage where it fails, so `info` must be looked at
    factor, info = torch.linalg.cholesky_ex(matrix)
    if matrix.numel() and bool(info.any()):
        where = (info != 0).nonzero()[0].tolist()
        raise InferenceError(
            f"expected a positive definite {what}, got one that is not, at batch index {where}, "
            f"size {matrix.shape[-1]}. Likely causes: a value that is not finite; parameters that have diverged; "
            "noise far too small for float32"
        )
    return factor


def unit_gram(rows: Float[Tensor, "B N F"]) -> Float[Tensor, "B N N"]:
    """I + R Rᵀ. Rows of zeros become rows of the identity: padding changes no solve or determinant."""
    return torch.baddbmm(torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device), rows, rows.mT)


def squared_norms(rows: Float[Tensor, "B N F"]) -> Float[Tensor, "B N"]:
    """|r|² of every row."""
    if not rows.requires_grad:
        return torch.linalg.vector_norm(rows, dim=-1).square()  # one pass, no temporary
    return rows.square().sum(-1)  # the norm of a row of zeros has no second derivative


def solve_lower(factor: Float[Tensor, "*#b N N"], right: Float[Tensor, "*#b N C"]) -> Float[Tensor, "*_ N C"]:
    """L⁻¹ R for lower triangular L; the batch axes broadcast."""
    return torch.linalg.solve_triangular(factor, right, upper=False)


def logdet(factor: Float[Tensor, "*b N N"]) -> Float[Tensor, "*b"]:
    """log det(L Lᵀ) from a Cholesky factor."""
    return 2.0 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def update_root(
    root: Float[Tensor, "B F R"], rows: Float[Tensor, "B N F"]
) -> tuple[Float[Tensor, "B F R"], Float[Tensor, "B F N"]]:
    """Condition a covariance P = S Sᵀ on unit-noise observations with design `rows`: the new root, and the gain.

    Potter's square-root form for a block of points (Andrews 1968): with H = rows S and I + H Hᵀ = C Cᵀ,

        S⁺ = S (I - Hᵀ C⁻ᵀ (C + I)⁻¹ H),   gain = S Hᵀ C⁻ᵀ C⁻¹.

    It never subtracts two covariances, so P stays positive semi-definite however many points stream in. O(N F R).
    """
    projected = rows @ root  # H
    factor = cholesky(unit_gram(projected), "innovation covariance")  # C
    eye = torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
    spread = solve_lower(factor, projected) @ root.mT  # C⁻¹ H Sᵀ
    new_root = torch.baddbmm(root, spread.mT, solve_lower(factor + eye, projected), alpha=-1.0)
    gain = torch.linalg.solve_triangular(factor.mT, spread, upper=True).mT
    return new_root, gain
