"""The multi-class support vector machine of many tasks at once, in its dual and differentiable.

Crammer & Singer 2001 (JMLR 2, 265-292), as Lee et al. 2019 (arXiv:1904.03758) have it in eqs. 8-9, with κ the penalty:

    min_w    ½ Σ_c |w_c|² + κ Σ_n max_c (w_cᵀ x_n + [c ≠ y_n] - w_{y_n}ᵀ x_n)
    min_α    ½ Σ_c |w_c|² - Σ_n α_{n y_n},   w_c = Σ_n α_nc x_n
    subject to   α_nc <= κ [c = y_n],   Σ_c α_nc = 0

Where points count unequally, κ is κ ω_n in both. The dual knows the points through K = X Xᵀ alone, and κ through κ K,
for α / κ. With the set of free α (not at their bound) known, it is linear: K α_c + ν = Y_c at the free points of each
class, and C + 1 Cholesky factors of N x N solve it where a general solver has one of NC x NC:

    E_c = (free part of K + ρI)⁻¹,   (Σ_c E_c) ν = Σ_c E_c r_c - e,   d_c = E_c (r_c - ν)

The set is found by Newton's method on the optimality conditions (a primal-dual active set: Hintermüller, Ito & Kunisch
2002), as a rule after a few factorisations, and the solution is then exact. It may also not end, the more so where K is
singular: with more points than features. The tasks for which it does not are taken near their solution by Mehrotra's
predictor-corrector interior point method, through the same factors with I / weights in place of ρI.

ρ, small beside K, is no part of the problem: it is a proximal term, ρ/2 |α - before|² (Rockafellar 1976), which is zero
at the solution. Where K is singular α need not be unique; w and every score are.
"""

from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from bayesmeta.errors import InferenceError
from bayesmeta.linalg import solve_lower

RIDGE = 1e-6  # ρ, of the largest entry of K
FIRST_RIDGE = 1e-3  # after an interior point, from which it falls to RIDGE: a larger one holds the set together
FINEST_RIDGE = 1e-10  # along an eigenvector λ of K a step leaves ρ / (λ + ρ): where that is slow, ρ falls further
GRADIENT_RIDGE = 1e-8
TOLERANCE = 1e-10  # by which an α may leave its bound, or a gradient have the wrong sign
SETTLED = 1e-7  # a move of α that ends the proximal steps: what is left is smaller by another factor ρ / K
STEPS = 10, 15  # of Newton's method, without and after an interior point: each at most one factorisation
ROUNDS = 5
INTERIOR_STEPS, INTERIOR_GAP = 60, 1e-9


def svm_dual(
    kernel: Float[Tensor, "B N N"],
    targets: Float[Tensor, "B N C"],
    mask: Bool[Tensor, "B N"],
    classes: Bool[Tensor, "B C"],
    penalty: Float[Tensor, ""],
    *,
    weights: Float[Tensor, "B N"] | None = None,
) -> Float[Tensor, "B N C"]:
    """The dual variables α of every task's support vector machine, once differentiable in the kernel and the penalty.

    The score of class c at x is Σ_n α_nc k(x_n, x). α is zero where padded.

    The gradient is that of the exact solution, with nothing kept of the path. Where α has a kink (the set of the free
    is about to change) it is that of one side; where the free part of K is singular, that of the smallest solution.

    Args:
        kernel: K = X Xᵀ, in float64.
        targets: labels as unit vectors, zero where padded.
        mask: True = real points.
        classes: True = a class of the task; a class may have no example.
        penalty: κ, the nats that a unit of hinge costs, and the largest α.
        weights: ω, what a point counts: its penalty is κ ω_n, positive where real; 1 of each by default. No gradient.

    Raises:
        InferenceError: the optimality conditions of a task are not met; the error's `task` is its position.

    Example:
        >>> x, targets = torch.tensor([[[1.0], [-1.0]]]).double(), torch.eye(2).double()[None]  # of two classes
        >>> mask, classes = torch.ones(1, 2, dtype=torch.bool), torch.ones(1, 2, dtype=torch.bool)
        >>> dual = svm_dual(x @ x.mT, targets, mask, classes, torch.tensor(10.0).double())
        >>> (x @ x.mT @ dual).round(decimals=3)  # scores, apart by the margin of 1 in all
        tensor([[[ 0.5000, -0.5000],
                 [-0.5000,  0.5000]]], dtype=torch.float64)
    """
    if targets.numel() == 0:
        return torch.zeros_like(targets)
    weights = torch.ones_like(kernel[:, 0]) if weights is None else torch.where(mask, weights, 1.0)
    return penalty * _Dual.apply(penalty * kernel, targets, mask, classes, weights)  # type: ignore[no-untyped-call]


class _Dual(torch.autograd.Function):
    """α / κ from κ K. Where free, K dα + dK α + dν = 0: a cotangent v of α is -u αᵀ of K, with K u + ν = v."""

    @staticmethod
    def forward(ctx: Any, kernel: Tensor, targets: Tensor, mask: Tensor, classes: Tensor, weights: Tensor) -> Tensor:
        problem = _Problem.of(kernel, targets, mask, classes, weights)
        dual, free = _solve(problem)
        result = (dual * problem.scale).mT
        ctx.problem = problem
        ctx.save_for_backward(free, result)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None, None, None, None]:
        problem, (free, result) = ctx.problem, ctx.saved_tensors
        ridge = GRADIENT_RIDGE * problem.size
        system = _System(problem.kernel, torch.where(free, 1.0 / ridge, 0.0))
        total, _ = system.solve(cotangent.mT)
        for _ in range(20):  # each multiplies the error by ρ / (λ + ρ) along an eigenvector of eigenvalue λ
            step, _ = system.solve(cotangent.mT - total @ problem.kernel)
            total = total + step
            if bool((step.abs().amax((1, 2)) <= SETTLED * total.abs().amax((1, 2))).all()):
                break
        outer = (total * problem.scale).mT @ result.mT
        return -0.5 * (outer + outer.mT), None, None, None, None


@dataclass(frozen=True)
class _Problem:
    """min ½ Σ_c α_cᵀ K α_c - Σ α Y,  α <= bound,  Σ_c α_c = 0, in units in which K is at most 1. Classes come first."""

    kernel: Tensor  # B N N
    targets: Tensor  # Y, B C N
    real: Tensor  # B C N
    scale: Tensor  # B 1 1; what K and α were multiplied and divided by
    size: Tensor  # B 1 1; the largest entry of K
    weights: Tensor  # ω, B 1 N

    @classmethod
    def of(cls, kernel: Tensor, targets: Tensor, mask: Tensor, classes: Tensor, weights: Tensor) -> "_Problem":
        largest = torch.where(mask, kernel.diagonal(dim1=-2, dim2=-1), 0.0).amax(-1)[:, None, None]
        scale = 1.0 / largest.clamp(min=1.0)
        size = torch.where(largest > 0.0, largest * scale, 1.0)
        real = classes[..., None] & mask[:, None]
        return cls(kernel * scale, targets.mT.contiguous(), real, scale, size, weights[:, None])

    @property
    def bound(self) -> Tensor:
        return self.weights * self.targets / self.scale

    def take(self, index: Tensor) -> "_Problem":
        return _Problem(*(getattr(self, field.name)[index] for field in fields(self)))

    def start(self) -> Tensor:
        """A point inside all bounds."""
        ways = self.real.sum(1, keepdim=True).clamp(min=1)
        centred = self.targets - 1.0 / ways.to(self.targets.dtype)
        return torch.where(self.real, 0.5 * self.weights.clamp(max=1.0) * centred, 0.0)


class _System:
    """(K + 1 / weights_c) d_c + ν = r_c for every class, Σ_c d_c = e; d is zero, whatever r is, where weights are."""

    def __init__(self, kernel: Tensor, weights: Tensor) -> None:
        root = weights.sqrt()
        matrix = root[..., :, None] * kernel[:, None] * root[..., None, :]
        matrix.diagonal(dim1=-2, dim2=-1).add_(1.0)  # its eigenvalues are at least 1 whatever the weights
        factor, info = torch.linalg.cholesky_ex(matrix)
        half = solve_lower(factor, torch.diag_embed(root))  # E_c = halfᵀ half
        self.half, self.stacked = half.flatten(0, 1), half.flatten(1, 2)
        padding = torch.diag_embed((weights.amax(1) <= 0.0).to(kernel.dtype))
        self.common, common_info = torch.linalg.cholesky_ex(torch.baddbmm(padding, self.stacked.mT, self.stacked))
        self.infos = info, common_info

    @property
    def sound(self) -> Tensor:
        """`B`: whether the factors are."""
        return (self.infos[0] == 0).all(1) & (self.infos[1] == 0)

    def solve(self, right: Tensor, total: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """d, `B C N`, and ν, `B 1 N`."""
        half_right = torch.bmm(self.half, right.flatten(0, 1)[..., None]).view(len(right), -1, 1)
        summed = torch.bmm(self.stacked.mT, half_right)
        common = torch.cholesky_solve(summed if total is None else summed - total[..., None], self.common)
        half_right = torch.baddbmm(half_right, self.stacked, common, alpha=-1.0)
        return torch.bmm(self.half.mT, half_right.view(*self.half.shape[:2], 1)).view(right.shape), common.mT


def _solve(problem: _Problem) -> tuple[Tensor, Tensor]:
    """α, and which of them are free."""
    dual = problem.start()
    # a guess: all are, but where κ |x|² < 1 every point is within the margin
    free = problem.real & ~((problem.targets > 0.0) & (problem.scale == 1.0))
    found, free, done = _newton(problem, dual, free, RIDGE, STEPS[0])
    dual = torch.where(done[:, None, None], found, dual)
    for _ in range(ROUNDS):
        if bool(done.all()):
            return dual, free
        index = (~done).nonzero()[:, 0]
        part = problem.take(index)
        near, near_free = _interior_point(part, dual[index])
        found, found_free, found_done = _newton(part, near, near_free, FIRST_RIDGE, STEPS[1])
        dual[index] = torch.where(found_done[:, None, None], found, near)
        free[index], done[index] = found_free, found_done
    if bool(done.all()):
        return dual, free
    task = int((~done).nonzero()[0])
    size = (problem.size / problem.scale)[task].item()
    raise InferenceError(
        f"expected a support vector machine whose optimality conditions are met, got task {task}, where they are not; "
        f"its largest penalty · |x|² is {size:.2g}. Likely causes: features "
        "that are not finite, or far too large where there are more points than features (normalise them)",
        task=task,
    )


def _newton(problem: _Problem, dual: Tensor, free: Tensor, ridge: float, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Newton's method on the optimality conditions: α, the free ones, and the tasks that are done (`B`).

    With the set of the free given α is known, and so is the next set: those free that are within their bound, and those
    at it whose gradient points inwards. Where the set repeats the proximal problem is solved, and the next begins.
    """
    kernel, targets, bound = problem.kernel, problem.targets, problem.bound
    limit, rho = TOLERANCE * problem.size, ridge * problem.size
    center, done, stale = dual, torch.zeros_like(rho, dtype=torch.bool), True
    last = torch.full_like(rho, torch.inf)  # the largest move of the proximal step before
    for _ in range(steps):
        if stale:
            system = _System(kernel, torch.where(free, 1.0 / rho, 0.0))
            new = torch.where(free, dual, bound)
            gradient = new @ kernel - targets
        step, common = system.solve(rho * (center - new) - gradient, -new.sum(1))
        new = new + step
        move, gradient = new - center, new @ kernel - targets
        reach = move.abs().amax((1, 2), keepdim=True)
        size = 1.0 + new.abs().amax((1, 2), keepdim=True)
        inwards = gradient + rho * move + common > limit * size
        new_free = problem.real & torch.where(free, new <= bound + TOLERANCE * size, inwards)
        dual = torch.where(done, dual, new)
        repeats = ~((new_free != free).any((1, 2), keepdim=True) | done)
        settled = repeats & (reach <= SETTLED * size)
        done = done | settled
        if bool(done.all()):
            break
        center = torch.where(repeats, new, center)
        coarse = rho > 1.5 * RIDGE * problem.size
        slow = (reach > 0.5 * last) & (rho > 1.5 * FINEST_RIDGE * problem.size)
        lower = repeats & ~settled & (coarse | slow)
        rho = torch.where(lower, torch.where(coarse, 0.1 * rho, 0.01 * rho), rho)
        last = torch.where(repeats & ~lower, reach, torch.inf)
        changes = ~(repeats | done)
        free = torch.where(changes, new_free, free)
        stale = bool((changes | lower).any())
    return dual, free, done[:, 0, 0]


def _interior_point(problem: _Problem, center: Tensor) -> tuple[Tensor, Tensor]:
    """A point near the solution with the proximal term around `center`, and which α are far from their bound.

    Mehrotra 1992; α and the multipliers λ of its bounds stay feasible, so that Σ λ slack is the duality gap.
    """
    real, rho = problem.real, RIDGE * problem.size
    kernel = problem.kernel + torch.diag_embed(rho[:, 0].expand(-1, problem.kernel.shape[1]))
    count = real.sum((1, 2)).clamp(min=1)
    limit = INTERIOR_GAP * problem.size[:, 0, 0]
    dual = problem.start()
    gradient = dual @ kernel - problem.targets - rho * center
    top = gradient.masked_fill(~real, -torch.inf).amax(1, keepdim=True)
    rates = torch.where(real, top - gradient + problem.size, 0.0)  # λ
    for _ in range(INTERIOR_STEPS):
        slack = torch.where(real, problem.bound - dual, 1.0)
        gap = (rates * slack).sum((1, 2)) / count
        system = _System(kernel, torch.where(real, slack / torch.where(real, rates, 1.0), 0.0))
        active = (gap > limit) & system.sound
        if not bool(active.any()):
            break
        ratio = system.solve(rates)[0] / slack  # the predictor takes this share of a slack, and 1 - it of its λ
        size = 1.0 / torch.maximum(ratio, 1.0 - ratio).masked_fill(~real, 0.0).amax((1, 2)).clamp(min=1.0)
        size = size[:, None, None]
        ahead = (rates * slack * (1.0 - size * ratio) * (1.0 - size * (1.0 - ratio))).sum((1, 2)) / count
        aim = (ahead / gap) ** 3 * gap
        right = rates * (1.0 + ratio * (1.0 - ratio)) - torch.where(real, aim[:, None, None] / slack, 0.0)
        step, _ = system.solve(right)
        rates_step = rates * step / slack - right
        used = torch.maximum(step / slack, -rates_step / torch.where(real, rates, 1.0)).masked_fill(~real, 0.0)
        size = (0.99 / used.amax((1, 2)).clamp(min=0.99)) * active
        dual = dual + size[:, None, None] * torch.where(active[:, None, None], step, 0.0)
        rates = rates + size[:, None, None] * torch.where(active[:, None, None], rates_step, 0.0)
    slack = torch.where(real, problem.bound - dual, 0.0)
    return dual, real & (slack * problem.size > rates)
