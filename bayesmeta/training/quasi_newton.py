"""Minimisation of a smooth function that cannot be computed everywhere: quasi-Newton steps that back off.

Limited-memory BFGS directions (`two_loops`), and a bracketing search for the weak Wolfe conditions (Lewis & Overton
2013, "Nonsmooth optimization via quasi-Newton methods", algorithm 2.6), which asks of a trial point no more than
whether it is lower. One that cannot be computed counts as infinitely high, and the step is shortened. The searches of
torch's L-BFGS and scipy's L-BFGS-B interpolate through such a value: one ends in NaN, the other too early, saying that
it has converged. (scipy's BFGS survives, but keeps a matrix of all parameters.)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.inference.solvers import last_curvature, two_loops

SUFFICIENT, FLAT_ENOUGH = 1e-4, 0.9  # shares of the first slope: what a step gains at least, and where it may end
TRIALS = 40  # of one line search: each halves or doubles the step
WORTHLESS = 1e-13  # of the value: a gain that no step is worth
IDLE, PATIENCE = 1e-10, 5  # of the value: a gain that so many steps in a row are not worth, while no gradient shrinks
EVALUATIONS = 4  # for each step, over all steps

Evaluation = tuple[float, Float[Tensor, "P"]]
Function = Callable[[Float[Tensor, "P"]], Evaluation]
"""u -> value and gradient; an infinite value where it cannot be computed, whose gradient is not looked at."""


@dataclass(frozen=True, eq=False)
class Minimum:
    """Where a search ended.

    Attributes:
        point: u.
        value: the function there.
        steepness: the largest entry of the gradient there.
        steps: how many steps were taken.
        is_exhausted: whether it ended because there were no steps left.
    """

    point: Float[Tensor, "P"]
    value: float
    steepness: float
    steps: int
    is_exhausted: bool


def minimise(
    function: Function, start: Float[Tensor, "P"], *, steps: int, tolerance: float, history: int = 50
) -> Minimum:
    """Follow quasi-Newton directions until the gradient is small, or nothing can be gained but rounding.

    Args:
        function: what to minimise; its value at the start must be finite.
        start: u, in units in which steps of one are of a sensible size.
        steps: largest number of steps.
        tolerance: stop when no entry of the gradient is larger.
        history: how many past steps make the curvature.

    Example:
        >>> def log_barrier(u):  # not defined where u <= 0, and lowest at 2
        ...     return (float(u - 2.0 * u.log()), 1.0 - 2.0 / u) if u > 0.0 else (float("inf"), u)
        >>> found = minimise(log_barrier, torch.tensor([0.01], dtype=torch.float64), steps=50, tolerance=1e-9)
        >>> round(found.point.item(), 6), found.is_exhausted
        (2.0, False)
    """
    point, evaluations = start, 0
    value, gradient = function(point)

    def counted(u: Tensor) -> Evaluation:
        nonlocal evaluations
        evaluations += 1
        return function(u)

    pairs: list[tuple[Tensor, Tensor, Tensor]] = []
    idle = 0
    for step in range(steps):
        if evaluations >= EVALUATIONS * steps:
            break
        steepness = _largest(gradient)
        if steepness <= tolerance or idle >= PATIENCE:
            return Minimum(point, value, steepness, step, False)
        direction = _direction(gradient, pairs)
        if not bool(gradient @ direction < 0.0):
            pairs, direction = [], _direction(gradient, [])
        elif pairs and -0.5 * float(gradient @ direction) <= WORTHLESS * max(1.0, abs(value)):  # what is left to gain
            return Minimum(point, value, steepness, step, False)
        found = _search(counted, point, value, gradient, direction)
        if found is None and pairs:  # the curvature of earlier steps may mislead
            pairs = []
            found = _search(counted, point, value, gradient, _direction(gradient, []))
        if found is None:
            return Minimum(point, value, steepness, step, False)
        new_point, new_value, new_gradient = found
        s, y = new_point - point, new_gradient - gradient
        if bool(s @ y > torch.finfo(s.dtype).eps * y @ y):
            pairs = [*pairs, (s[None], y[None], 1.0 / (s @ y)[None])][-history:]
        is_idle = value - new_value <= IDLE * max(1.0, abs(value)) and _largest(new_gradient) > 0.5 * steepness
        idle = idle + 1 if is_idle else 0
        point, value, gradient = new_point, new_value, new_gradient
    return Minimum(point, value, _largest(gradient), steps, _largest(gradient) > tolerance)


def _search(
    function: Function, point: Tensor, value: float, gradient: Tensor, direction: Tensor
) -> tuple[Tensor, float, Tensor] | None:
    """A point along the direction that meets the weak Wolfe conditions, or the best that is lower; None if none is."""
    slope = float(gradient @ direction)
    low, high, size = 0.0, math.inf, 1.0
    best = None
    for _ in range(TRIALS):
        trial = point + size * direction
        if torch.equal(trial, point):
            break
        new_value, new_gradient = function(trial)
        is_finite = math.isfinite(new_value) and bool(torch.isfinite(new_gradient).all())
        if not is_finite or new_value > value + SUFFICIENT * size * slope + _rounding(value):
            high = size
            size = low + (0.5 if is_finite else 0.25) * (high - low)
            continue
        if best is None or new_value <= best[1]:
            best = (trial, new_value, new_gradient)
        if float(new_gradient @ direction) >= FLAT_ENOUGH * slope:
            return trial, new_value, new_gradient
        low = size
        size = 2.0 * low if high == math.inf else 0.5 * (low + high)
    return best


def _direction(gradient: Tensor, pairs: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """-H⁻¹ g from past steps; without any, downhill by at most one unit."""
    if not pairs:
        return -gradient / max(1.0, float(gradient.norm()))
    return two_loops(-gradient[None], pairs, last_curvature(pairs))[0]


def _largest(gradient: Tensor) -> float:
    return float(gradient.abs().max()) if gradient.numel() else 0.0


def _rounding(value: float) -> float:
    return 4.0 * torch.finfo(torch.float64).eps * abs(value)
