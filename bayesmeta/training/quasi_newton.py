"""Minimisation of a smooth function that cannot be computed everywhere: quasi-Newton steps that back off.

Limited-memory BFGS directions (`two_loops`), and a bracketing search for the weak Wolfe conditions (Lewis & Overton
2013, "Nonsmooth optimization via quasi-Newton methods", algorithm 2.6), which asks of a trial point no more than
whether it is lower. One that cannot be computed counts as infinitely high, and the step is shortened. The searches of
torch's L-BFGS and scipy's L-BFGS-B interpolate through such a value: one ends in NaN, the other too early, saying that
it has converged. (scipy's BFGS survives, but keeps a matrix of all parameters.)

A search asks for one evaluation at a time, so that many of them can be answered at once (`minimise_all`).
"""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

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
    return _driven(_descent(start, steps, tolerance, history), function)


Search = Generator[Tensor, Evaluation, Minimum]
"""Asks for evaluations where it wants them, and ends in a minimum."""


def _driven(search: Search, function: Function) -> Minimum:
    point = next(search)
    while True:
        try:
            point = search.send(function(point))
        except StopIteration as end:
            return end.value


def _descent(start: Tensor, steps: int, tolerance: float, history: int) -> Search:
    point, evaluations = start, 0
    value, gradient = yield point
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
        found, used = yield from _line(point, value, gradient, direction)
        evaluations += used
        if found is None and pairs:  # the curvature of earlier steps may mislead
            pairs = []
            found, used = yield from _line(point, value, gradient, _direction(gradient, []))
            evaluations += used
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


Trial = tuple[Tensor, float, Tensor]


def _line(
    point: Tensor, value: float, gradient: Tensor, direction: Tensor
) -> Generator[Tensor, Evaluation, tuple[Trial | None, int]]:
    """A point along the direction that meets the weak Wolfe conditions, or the best that is lower; None if none is.

    And how many evaluations that took.
    """
    slope = float(gradient @ direction)
    low, high, size = 0.0, math.inf, 1.0
    best: Trial | None = None
    for used in range(TRIALS):
        trial = point + size * direction
        if torch.equal(trial, point):
            return best, used
        new_value, new_gradient = yield trial
        is_finite = math.isfinite(new_value) and bool(torch.isfinite(new_gradient).all())
        if not is_finite or new_value > value + SUFFICIENT * size * slope + _rounding(value):
            high = size
            size = low + (0.5 if is_finite else 0.25) * (high - low)
            continue
        if best is None or new_value <= best[1]:
            best = (trial, new_value, new_gradient)
        if float(new_gradient @ direction) >= FLAT_ENOUGH * slope:
            return (trial, new_value, new_gradient), used + 1
        low = size
        size = 2.0 * low if high == math.inf else 0.5 * (low + high)
    return best, TRIALS


@dataclass(frozen=True)
class Halving:
    """When searches side by side are given up: half of those that are left, the worst, again and again.

    Attributes:
        first: evaluations that each has had before the first are given up; twice as many before the next, and so on.
        survivors: as many go on to the end.

    Example:
        >>> Halving(first=10, survivors=8).left(32, 10), Halving(first=10, survivors=8).left(32, 40)
        (16, 8)
    """

    first: int = 20
    survivors: int = 8

    def left(self, count: int, evaluations: int) -> int:
        """How many of `count` searches are not given up after so many evaluations of each."""
        mark = self.first
        while mark <= evaluations and count > self.survivors:
            count, mark = max(count // 2, self.survivors), 2 * mark
        return count


@dataclass(eq=False)
class _Running:
    """One of several searches: what it waits for, and the best that it has seen."""

    search: Search
    asks: Tensor
    best: Tensor
    value: float = math.inf
    end: Minimum | None = None
    evaluations: int = field(default=0)

    def receive(self, value: float, gradient: Tensor) -> None:
        self.evaluations += 1
        if math.isfinite(value) and value < self.value:
            self.value, self.best = value, self.asks
        try:
            self.asks = self.search.send((value, gradient))
        except StopIteration as end:
            self.end = end.value


FunctionOfAll = Callable[[Float[Tensor, "S P"], list[int]], tuple[Float[Tensor, "S"], Float[Tensor, "S P"]]]
"""Points, and which searches they belong to -> values and gradients of each."""


def minimise_all(
    function: FunctionOfAll,
    starts: Float[Tensor, "S P"],
    *,
    steps: int,
    tolerance: float,
    halving: Halving | None = None,
    history: int = 20,
) -> list[Minimum | None]:
    """Searches side by side, each the same as `minimise` on its own, with one evaluation of all of them at a time.

    Args:
        function: what to minimise, in as many points as it is given.
        starts: u of each search. One whose value is not finite there is not searched from.
        steps: largest number of steps of each.
        tolerance: stop when no entry of the gradient is larger.
        halving: when the worst are given up; None: never.
        history: how many past steps make the curvature.

    Returns:
        Where each search ended; `is_exhausted` where it was given up. None where its start has no finite value.

    Example:
        >>> wells = lambda u, rows: (((u**2 - 1.0) ** 2 + 0.1 * u).sum(-1), 4.0 * u * (u**2 - 1.0) + 0.1)
        >>> found = minimise_all(wells, torch.tensor([[2.0], [-2.0]]).double(), steps=50, tolerance=1e-8)
        >>> [round(each.point.item(), 2) for each in found]  # two minima, the second of which is lower
        [0.99, -1.01]
    """
    all_of_them = []
    for start in starts:
        search = _descent(start, steps, tolerance, history)
        all_of_them.append(_Running(search, next(search), start))
    live = list(range(len(starts)))
    failed: set[int] = set()
    evaluations = 0
    while live:
        values, gradients = function(torch.stack([all_of_them[row].asks for row in live]), live)
        for row, value, gradient in zip(live, values.tolist(), gradients, strict=True):
            is_finite = math.isfinite(value) and bool(gradient.isfinite().all())
            if evaluations == 0 and not is_finite:
                failed.add(row)
            else:
                all_of_them[row].receive(value if is_finite else math.inf, gradient)
        evaluations += 1
        live = [row for row in live if row not in failed and all_of_them[row].end is None]
        if halving is not None:
            kept = _best(all_of_them, halving.left(len(starts), evaluations))
            live = [row for row in live if row in kept]
    return [None if row in failed else _end(each) for row, each in enumerate(all_of_them)]


def _best(searches: Sequence[_Running], count: int) -> set[int]:
    """Those with the lowest values so far, earlier ones first where values are equal."""
    return set(sorted(range(len(searches)), key=lambda row: searches[row].value)[:count])


def _end(search: _Running) -> Minimum:
    if search.end is not None:
        return search.end
    return Minimum(search.best, search.value, math.inf, search.evaluations, True)


def _direction(gradient: Tensor, pairs: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """-H⁻¹ g from past steps; without any, downhill by at most one unit."""
    if not pairs:
        return -gradient / max(1.0, float(gradient.norm()))
    return two_loops(-gradient[None], pairs, last_curvature(pairs))[0]


def _largest(gradient: Tensor) -> float:
    return float(gradient.abs().max()) if gradient.numel() else 0.0


def _rounding(value: float) -> float:
    return 4.0 * torch.finfo(torch.float64).eps * abs(value)
