"""Small dense linear algebra for many tasks at once: masked Cholesky factors and square-root updates."""

import contextlib
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from bayesmeta.errors import InferenceError
from bayesmeta.rounding import warn_in_own_line
from bayesmeta.torch_private import is_mapped

MOST_ENTRIES = 4e8  # of one matrix
LARGE = 1_000  # rows of a matrix whose eigenvalues take longer than is worth an error


def cholesky(matrix: Float[Tensor, "*b N N"], what: str = "matrix") -> Float[Tensor, "*b N N"]:
    """Lower Cholesky factors L, matrix = L Lᵀ.

    Args:
        matrix: symmetric; the first of several axes before the last two is that of the tasks.
        what: what it is, for the message.

    Raises:
        InferenceError: a matrix is not positive definite; the message says of which task, `what` it is, its size and
            its condition number.
    """
    factor, wrong = _factored(matrix)
    if wrong is not None:
        raise _failure(matrix, what, wrong)
    return factor


def cholesky_with_jitter(matrix: Float[Tensor, "*b N N"], what: str = "matrix") -> Float[Tensor, "*b N N"]:
    """Lower Cholesky factors of matrices that are positive definite but for rounding.

    It is for what a little more noise does not change: conditional means and variances, and draws. A density is decided
    by the smallest eigenvalues, which the jitter would make up: it takes `cholesky`.

    The matrices that have a factor get it, as by `cholesky`. Those that have none get a share of their mean diagonal
    added to it: 1.8e-12 in float64, then 1.6e-10, then 1.5e-8 (eps to the power of 3/4, 5/8 and 1/2; with less, the
    factor would exist and be wrong). What was added is warned of.

    Args:
        matrix: symmetric; the first of several axes before the last two is that of the tasks.
        what: what it is, for messages.

    Raises:
        InferenceError: as `cholesky`: no jitter was enough, or values are not finite.

    Warns:
        PrecisionWarning: so many matrices needed so much jitter. In a block of `counting_jitter` there is one warning
            of all.

    Example:
        >>> import warnings
        >>> twice = torch.full((1, 2, 2), 1.0 + 1e-9).double()  # rank one: a kernel at the same point twice
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     factor = cholesky_with_jitter(twice, "kernel matrix")
        >>> bool((factor @ factor.mT - twice).abs().max() < 1e-11)
        True
        >>> str(caught[0].message).split(":")[0]
        'expected a positive definite kernel matrix, got some that are not in this precision'
    """
    factor, wrong = _factored(matrix)
    if wrong is None:
        return factor
    own = matrix.detach()
    if not bool(own[wrong].isfinite().all()):
        raise _failure(matrix, what, wrong)
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    scale = own.diagonal(dim1=-2, dim2=-1).abs().mean(-1)
    jitter, counts = torch.zeros_like(scale), dict[float, int]()
    for share in _rungs(matrix.dtype):
        jitter = torch.where(wrong, share * scale, jitter)
        _, still = _factored(own + jitter[..., None, None] * eye)
        left = torch.zeros_like(wrong) if still is None else wrong & still
        counts[share] = int(wrong.sum()) - int(left.sum())
        wrong = left
        if still is None:
            break
    else:
        raise _failure(matrix, what, wrong, share)
    _tell_of_jitter(what, counts)
    # all of it once more, as the derivative of a factor that failed is NaN; adding zero changes no other
    return cholesky(matrix + jitter[..., None, None] * eye, what)


@contextlib.contextmanager
def counting_jitter() -> Iterator[None]:
    """In this block jitter of `cholesky_with_jitter` is counted, and warned of once, at the end of the outermost one.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     with counting_jitter():
        ...         for _ in range(3):
        ...             factor = cholesky_with_jitter(torch.ones(2, 2, 2).double())
        >>> [str(warning.message).split(": ")[1].split(";")[0] for warning in caught]
        ['1.8e-12 of the diagonal was added to 6']
    """
    if _jitter.get() is not None:
        yield
        return
    counts: dict[str, dict[float, int]] = {}
    token = _jitter.set(counts)
    try:
        yield
    finally:
        _jitter.reset(token)
        for what, each in counts.items():
            _tell_of_jitter(what, each)


_jitter: ContextVar[dict[str, dict[float, int]] | None] = ContextVar("jitter", default=None)


def _tell_of_jitter(what: str, counts: dict[float, int]) -> None:
    """Add to the counts of the block that counts, or warn."""
    known = _jitter.get()
    if known is not None:
        total = known.setdefault(what, {})
        for share, count in counts.items():
            total[share] = total.get(share, 0) + count
        return
    added = ", ".join(f"{share:.1e} of the diagonal was added to {count}" for share, count in counts.items() if count)
    warn_in_own_line(
        f"expected a positive definite {what}, got some that are not in this precision: {added}; points or features "
        "that are nearly alike, or noise that is far too small next to the signal"
    )


def _rungs(dtype: torch.dtype) -> list[float]:
    """Shares of the diagonal. With a share s, what is solved for is off by about eps / s."""
    eps = torch.finfo(dtype).eps
    return [eps**power for power in (0.75, 0.625, 0.5)]


def _factored(matrix: Tensor) -> tuple[Tensor, Tensor | None]:
    """Factors, and which of them are none; None where all are, or nothing may be looked at and the others are NaN."""
    # cholesky_ex leaves finite garbage where it fails, so `info` must be looked at
    factor, info = torch.linalg.cholesky_ex(matrix)
    # recorded or mapped code decides nothing: NaN reaches the loss, which is looked at
    if torch.compiler.is_compiling() or is_mapped(info):
        return torch.where((info == 0)[..., None, None], factor, torch.nan), None
    # an infinite matrix of one row has an infinite factor, and no failure; a finite sum says that all are finite
    pivots = factor.detach().diagonal(dim1=-2, dim2=-1)
    if not info.is_cuda and not bool(info if info.numel() == 1 else info.any()) and math.isfinite(pivots.sum().item()):
        return factor, None
    wrong = (info != 0) | ~pivots.isfinite().all(-1)
    return factor, wrong if bool(wrong.any()) else None


def _failure(matrix: Tensor, what: str, wrong: Tensor, tried: float | None = None) -> InferenceError:
    """What is said of the first matrix that has no factor."""
    place = wrong.nonzero()[0]
    task = int(place[0]) if wrong.ndim else None
    where = "" if task is None else f" in task {task}"
    added = "" if tried is None else f", also with {tried:.1e} of its diagonal added"
    return InferenceError(
        f"expected a positive definite {what}, got one that is not{where}, "
        f"size {matrix.shape[-1]}{_condition(matrix.detach()[tuple(place)])}{added}. Likely causes: a value that is "
        "not finite; parameters that have diverged; noise far too small for float32",
        task=task,
    )


def _condition(matrix: Float[Tensor, "N N"]) -> str:
    """The spectrum in words; empty where it would take long."""
    values = matrix.cpu().double()
    count = int((~values.isfinite()).sum())
    if count:
        return f", {count} of its values not finite"
    if len(values) > LARGE:
        return ""
    try:
        spectrum = torch.linalg.eigvalsh(0.5 * (values + values.mT))
    except RuntimeError:  # it does not always converge
        return ""
    smallest = float(spectrum.abs().min())
    number = f"{float(spectrum.abs().max()) / smallest:.0e}" if smallest > 0.0 else "infinite"
    return f", eigenvalues from {float(spectrum[0]):.1e} to {float(spectrum[-1]):.1e}, condition number {number}"


def is_symbolic(size: int) -> bool:
    """Whether a size stands for any number: what is exported serves all sizes, so that Python decides nothing by it.

    Example:
        >>> is_symbolic(torch.zeros(3).shape[0])
        False
    """
    return isinstance(size, torch.SymInt)


def exceeds(size: int, other: int) -> bool:
    """Whether a size is above another; no, where it may be any number.

    Example:
        >>> exceeds(3, 2)
        True
    """
    return not is_symbolic(size) and size > other


def require_matrix(rows: int, columns: int) -> None:
    """Refuse a matrix between so many points that its memory would be all there is.

    Raises:
        InferenceError: more than 4e8 entries, 3.2 GB in float64.
    """
    if not (is_symbolic(rows) or is_symbolic(columns)) and rows * columns > MOST_ENTRIES:
        raise InferenceError(
            f"expected points whose joint covariance can be held, got {rows} x {columns}: take fewer of them (query= "
            "in evaluate, support and query of a split), or a learner whose cost grows with features, such as ALPaCA"
        )


def semidefinite_root(matrix: Float[Tensor, "N N"], what: str = "matrix") -> Float[Tensor, "N N"]:
    """A lower triangular L with matrix = L Lᵀ, as `cholesky`, also where it is singular.

    Raises:
        InferenceError: a direction in which the matrix is negative by more than rounding.
    """
    factor, info = torch.linalg.cholesky_ex(matrix)
    if not bool(info.any()):
        return factor
    if bool(torch.isfinite(matrix).all()):
        values, vectors = torch.linalg.eigh(0.5 * (matrix + matrix.mT))
        rounding = 10.0 * len(matrix) * torch.finfo(matrix.dtype).eps * values.abs().amax()
        if bool(values[0] >= -rounding):
            return lower_root(vectors * values.clamp(min=0.0).sqrt())
    return cholesky(matrix, what)  # its error says what is wrong


def lower_root(root: Float[Tensor, "N K"]) -> Float[Tensor, "N N"]:
    """The lower triangular L with L Lᵀ = T Tᵀ and no negative number on its diagonal, from Tᵀ = Q Lᵀ.

    What is zero to rounding on the diagonal, where T has no full rank, is zero.
    """
    size, columns = root.shape
    if columns < size:
        root = torch.cat([root, root.new_zeros(size, size - columns)], 1)
    factor = torch.linalg.qr(root.mT, mode="r").R.mT
    diagonal = factor.diagonal()
    rounding = 4.0 * size * torch.finfo(root.dtype).eps * torch.linalg.vector_norm(root, dim=-1)
    sign = torch.where(diagonal < 0.0, -1.0, 1.0).to(factor)
    return (factor * sign).diagonal_scatter(torch.where(diagonal.abs() <= rounding, 0.0, diagonal.abs()))


def spanning_basis(design: Float[Tensor, "P F"]) -> Float[Tensor, "F R"]:
    """B with orthogonal columns Φ B of unit mean squares that span those of Φ: coefficients K = B K' are well scaled.

    Of all K that give the same Φ K it has the smallest (in units of the columns' sizes): columns of Φ that are sums of
    others, to ten digits, make R smaller than F.
    """
    scale = root_mean_squares(design)
    factor = torch.linalg.qr(design / scale, mode="r").R
    _, values, right = torch.linalg.svd(factor, full_matrices=False)
    spanned = values > 1e-10 * values.amax() if len(values) else values > 0.0
    basis = right[spanned].mT / values[spanned]
    return math.sqrt(max(len(design), 1)) * basis / scale[:, None]


def independent_columns(design: Float[Tensor, "P F"], rank: int) -> list[int]:
    """The first columns that are no sums of those before them, as R's lm and lme4 keep them.

    Args:
        design: Φ.
        rank: R, how many there are, by `spanning_basis`.

    Raises:
        InferenceError: the columns are so nearly sums of others that those which are not cannot be told.
    """
    if rank == design.shape[1]:
        return list(range(rank))
    factor = torch.linalg.qr(design / root_mean_squares(design), mode="r").R
    kept: list[int] = []
    for column in range(factor.shape[1]):
        before = torch.linalg.qr(factor[:, kept]).Q
        rest = factor[:, column] - before @ (before.mT @ factor[:, column])
        if rest.norm() > 1e-9 * factor[:, column].norm():
            kept.append(column)
    if len(kept) != rank:
        raise InferenceError(
            f"expected features that determine the prior mean, got {rank} or {len(kept)} of {design.shape[1]} that are "
            "no sums of others, by rounding: leave the nearly repeated ones out"
        )
    return kept


def log_volume(design: Float[Tensor, "P F"], basis: Float[Tensor, "F R"]) -> Float[Tensor, ""]:
    """log |dK_J / dK'|, where Φ_J K_J = Φ B K' and J are the independent columns of Φ: log |det B| where all are.

    Args:
        design: Φ.
        basis: B, as `spanning_basis` gives it.

    Raises:
        InferenceError: as `independent_columns`.
    """
    if basis.shape[0] == basis.shape[1]:
        return torch.linalg.slogdet(basis).logabsdet
    kept = design[:, independent_columns(design, basis.shape[1])]
    return torch.linalg.slogdet(torch.linalg.lstsq(kept, design @ basis).solution).logabsdet


def lower_whitening(design: Float[Tensor, "P F"], jitter: float = 1e-7) -> Float[Tensor, "F F"]:
    """A lower triangular B with columns Φ B that are orthogonal and of unit mean squares, as far as Φ has full rank.

    Args:
        design: Φ.
        jitter: columns whose difference is smaller, relative to their size, are told apart no further.
    """
    count, size = max(len(design), 1), design.shape[1]
    scale = root_mean_squares(design)
    eye = torch.eye(size, dtype=design.dtype, device=design.device)
    # Φ = Q L with orthonormal Q and lower triangular L gives B = L⁻¹: QR of the columns in the opposite order
    stacked = torch.cat([design / scale, jitter * math.sqrt(count) * eye])
    factor = torch.linalg.qr(stacked.flip(-1), mode="r").R.flip(-1, -2)
    return math.sqrt(count) * solve_lower(factor, eye) * factor.diagonal().sign() / scale[:, None]


def root_mean_squares(columns: Float[Tensor, "P F"]) -> Float[Tensor, "F"]:
    """The size of each column; 1 for a column of zeros."""
    if not len(columns):
        return columns.new_ones(columns.shape[1])
    largest = columns.abs().amax(0)
    largest = torch.where(largest > 0.0, largest, 1.0)  # the square of 1e200 is not finite
    mean = (columns / largest).square().mean(0)
    return torch.where(mean > 0.0, mean.sqrt() * largest, 1.0)


def unit_gram(rows: Float[Tensor, "B N F"]) -> Float[Tensor, "B N N"]:
    """I + R Rᵀ. Rows of zeros become rows of the identity: padding changes no solve or determinant.

    Raises:
        InferenceError: too many rows for a matrix between them.
    """
    require_matrix(rows.shape[1], rows.shape[1])
    return torch.baddbmm(torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device), rows, rows.mT)


def squared_norms(rows: Float[Tensor, "*b N F"]) -> Float[Tensor, "*b N"]:
    """|r|² of every row."""
    if not rows.requires_grad:
        return torch.linalg.vector_norm(rows, dim=-1).square()  # one pass, no temporary
    return rows.square().sum(-1)  # the norm of a row of zeros has no second derivative


def solve_lower(factor: Float[Tensor, "*#b N N"], right: Float[Tensor, "*#b N C"]) -> Float[Tensor, "*_ N C"]:
    """L⁻¹ R for lower triangular L; the batch axes broadcast."""
    return torch.linalg.solve_triangular(factor, right, upper=False)


def logdet(factor: Float[Tensor, "*b N N"]) -> Float[Tensor, "*b"]:
    """log det(L Lᵀ) from a triangular factor, whose diagonal may have any sign."""
    return 2.0 * factor.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)


def update_root(
    root: Float[Tensor, "B F R"], rows: Float[Tensor, "B N F"]
) -> tuple[Float[Tensor, "B F R"], Float[Tensor, "B F N"]]:
    """Condition a covariance P = S Sᵀ on unit-noise observations with design `rows`: the new root, and the gain.

    Potter's square-root form for a block of points (Andrews 1968): with H = rows S and I + H Hᵀ = C Cᵀ,

        S⁺ = S (I - Hᵀ C⁻ᵀ (C + I)⁻¹ H),   gain = S Hᵀ C⁻ᵀ C⁻¹.

    It never subtracts two covariances, so P stays positive semi-definite however many points stream in. O(N F R).
    """
    projected = rows @ root  # H
    if rows.shape[1] == 1 and not projected.requires_grad:
        return _update_root_by_one(root, projected)
    factor = cholesky(unit_gram(projected), "innovation covariance")  # C
    eye = torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
    spread = solve_lower(factor, projected) @ root.mT  # C⁻¹ H Sᵀ
    new_root = torch.baddbmm(root, spread.mT, solve_lower(factor + eye, projected), alpha=-1.0)
    gain = torch.linalg.solve_triangular(factor.mT, spread, upper=True).mT
    return new_root, gain


def _update_root_by_one(
    root: Float[Tensor, "B F R"], projected: Float[Tensor, "B 1 R"]
) -> tuple[Float[Tensor, "B F R"], Float[Tensor, "B F 1"]]:
    """`update_root` for a single point, where C is a number: √(1 + |H|²)."""
    factor = cholesky((1.0 + squared_norms(projected))[..., None], "innovation covariance")
    spread = root @ (projected / factor).mT
    # written out, as a product of column and row in each task costs more than the rest
    return torch.addcmul(root, spread, projected / (factor + 1.0), value=-1.0), spread / factor


def flattened(value: Tensor, dims: int = 1) -> Tensor:
    """All axes after the first `dims` as one, which has the length 1 where there are none."""
    return value.flatten(dims) if value.ndim > dims else value[..., None]


def conjugate_gradient(
    product: Callable[[Tensor], Tensor],
    right: Float[Tensor, "B P"],
    steps: int,
    tolerance: float = 1e-6,
    precondition: Callable[[Tensor], Tensor] | None = None,
) -> Float[Tensor, "B P"]:
    """A⁻¹ b of every task, by conjugate gradients (Hestenes & Stiefel 1952) on products with A.

    A task stops on its own when |b - A x| <= tolerance |b|, in the norm of the preconditioner, or at a direction along
    which A is not positive (to rounding): what it has found by then stands. There the quadratic has no minimum, and
    going on gives NaN.

    Args:
        product: A v, for `B P` vectors.
        right: b.
        steps: largest number of steps.
        tolerance: of the relative residual.
        precondition: the product with a positive definite matrix that is nearly A⁻¹; the identity by default.
    """
    precondition = (lambda vector: vector) if precondition is None else precondition
    solution, residual, direction = torch.zeros_like(right), right, precondition(right)
    squared = (residual * direction).sum(1)
    limit = tolerance**2 * squared
    active = squared > 0.0
    steepest = torch.zeros_like(squared)  # the largest Rayleigh quotient seen
    rounding = right.shape[1] * torch.finfo(right.dtype).eps
    for _ in range(steps):
        image = product(direction)
        curvature, length = (direction * image).sum(1), direction.square().sum(1)
        steepest = torch.maximum(steepest, curvature / torch.where(length > 0.0, length, 1.0))
        active = active & (curvature > rounding * steepest * length) & (squared > limit)
        if not torch.compiler.is_compiling() and not bool(active.any()):  # going on would change nothing
            break
        size = torch.where(active, squared / torch.where(active, curvature, 1.0), 0.0)
        solution = solution + size[:, None] * direction
        residual = residual - size[:, None] * image
        white = precondition(residual)
        new_squared = (residual * white).sum(1)
        ratio = torch.where(active, new_squared / torch.where(active, squared, 1.0), 0.0)
        direction = white + ratio[:, None] * direction
        squared = torch.where(active, new_squared, squared)
    return solution


def matrix_function(matrix: Float[Tensor, "*b N N"], function: Callable[[Tensor], Tensor]) -> Float[Tensor, "*b N N"]:
    """V f(l) Vᵀ of symmetric matrices V l Vᵀ, once differentiable.

    Backpropagation through `eigh` is NaN where eigenvalues repeat (padding gives zeros); this one is right there too:
    by Daleckii & Krein 1965, df = V (Γ ∘ Vᵀ dA V) Vᵀ with Γ_ij = (f_i - f_j) / (l_i - l_j), and f' where they agree.

    Args:
        matrix: symmetric.
        function: f, elementwise on the eigenvalues and differentiable; a constant of theta.
    """
    if matrix.shape[-1] == 0:
        return matrix
    result: Tensor = _MatrixFunction.apply(matrix, function)  # type: ignore[no-untyped-call]
    return result


class _MatrixFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        values, vectors = torch.linalg.eigh(matrix)
        ctx.function = function
        ctx.save_for_backward(values, vectors)
        return vectors * function(values)[..., None, :] @ vectors.mT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None]:
        values, vectors = ctx.saved_tensors
        with torch.enable_grad():
            leaf = values.detach().requires_grad_()
            f = ctx.function(leaf)
            (slope,) = torch.autograd.grad(f.sum(), leaf)
        f = f.detach()
        gap = values[..., :, None] - values[..., None, :]
        scale = values.abs().amax(-1)[..., None, None].clamp(min=torch.finfo(values.dtype).tiny)
        near = gap.abs() <= 1e-6 * scale  # closer than this the quotient loses more digits than the derivative's error
        quotient = (f[..., :, None] - f[..., None, :]) / torch.where(near, 1.0, gap)
        gamma = torch.where(near, 0.5 * (slope[..., :, None] + slope[..., None, :]), quotient)
        inner = vectors.mT @ (0.5 * (cotangent + cotangent.mT)) @ vectors
        return vectors @ (gamma * inner) @ vectors.mT, None
