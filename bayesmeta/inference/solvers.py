"""Solvers that find the optimum of many tasks' log joints at once: by first-order steps, without a graph."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.description import Described
from bayesmeta.errors import DataError
from bayesmeta.inference.laplace import Curvature
from bayesmeta.linalg import flattened
from bayesmeta.one_line import InShort
from bayesmeta.typing import LogJoint, Params


@dataclass(frozen=True, eq=False)
class MapProblem(InShort):
    """The optimum of each task's log joint, as a solver is asked for it.

    Attributes:
        log_joint: phi -> `B`, in nats.
        start: where the search begins, each value `B *shape`.
        unit: what rates and tolerances of first-order solvers are measured in: they see the log joint times this.
        curvature: phi -> the Gauss-Newton matrix of the support there, with the prior variances as S²; None where the
            prior is not Gaussian.

    Example:
        >>> problem = MapProblem(lambda phi: -0.5 * (phi["w"][:, 0] - 1.0).square(), {"w": torch.zeros(1, 1)})
        >>> LBFGS().solve(problem)
        {'w': tensor([[1.]])}
    """

    log_joint: LogJoint
    start: Params
    unit: Tensor | float = 1.0
    curvature: Callable[[Params], Curvature] | None = None

    def flat(self) -> "FlatLogJoint":
        """The log joint of vectors, in nats times the unit."""
        return FlatLogJoint(lambda phi: self.unit * self.log_joint(phi), self.start)


class Solver(Described, ABC):
    """How the optimum of a log joint is found, of many tasks at once: what `IMAML` and `LLAMA` take.

    A subclass gives `solve`. Every task stops on its own.

    Attributes:
        unrolls: True where `solve` keeps the graph of its steps, and phi is differentiated through them; False where
            it keeps none, and phi is differentiated as the optimum that it should be (`implicit_map`).

    Example:
        >>> import bayesmeta as bm
        >>> class OneStep(bm.inference.Solver):
        ...     def solve(self, problem):
        ...         return bm.inference.GradientAscent(steps=1, lr=0.1).solve(problem)
        >>> learner = bm.IMAML(bm.MLP(1, [8]), solver=OneStep())
        >>> learner.adapt(bm.Data.from_arrays([0.0, 1.0], [0.3, 0.7]))
        posterior of 1 task after 2 points
    """

    unrolls: bool = False

    @abstractmethod
    def solve(self, problem: MapProblem) -> Params:
        """phi near the optimum of each task.

        Args:
            problem: whose optimum it is.
        """


class GradientAscent(Solver):
    """Gradient ascent with momentum (Polyak 1964), at a fixed rate.

    Args:
        steps: largest number of steps.
        lr: step size on the log joint, a sum over points, in the problem's unit.
        momentum: share of the last step that is taken again.
        tolerance: a task stops when no entry of its gradient is larger, nats for a unit of phi; 0 takes all steps.

    Raises:
        DataError: arguments out of range.

    Example:
        >>> import bayesmeta as bm
        >>> log_joint = lambda phi: -0.5 * (phi["w"][:, 0] - 1.0).square()  # whose optimum is 1
        >>> problem = bm.inference.MapProblem(log_joint, {"w": torch.zeros(1, 1)})
        >>> solver = bm.inference.GradientAscent(steps=100, lr=0.5, tolerance=1e-4)
        >>> round(solver.solve(problem)["w"].item(), 3)
        1.0
    """

    def __init__(self, steps: int = 16, lr: float = 0.01, momentum: float = 0.0, tolerance: float = 0.0) -> None:
        if steps < 1 or not lr > 0.0 or not 0.0 <= momentum < 1.0 or tolerance < 0.0:
            raise DataError(
                f"expected steps >= 1, lr > 0, 0 <= momentum < 1 and tolerance >= 0, "
                f"got {steps}, {lr}, {momentum} and {tolerance}"
            )
        self.steps, self.lr, self.momentum, self.tolerance = steps, lr, momentum, tolerance

    def solve(self, problem: MapProblem) -> Params:
        """`steps` steps, or fewer."""
        objective = problem.flat()
        phi, velocity = objective.start, torch.zeros_like(objective.start)
        for _ in range(self.steps):
            _, gradient = objective(phi)
            moving = ~(gradient.abs().amax(1, keepdim=True) <= self.tolerance)  # NaN goes on, and is told
            velocity = torch.where(moving, self.momentum * velocity + self.lr * gradient, 0.0)
            phi = phi + velocity
            # recorded code takes all steps: those of a task that has stopped move nothing
            if self.tolerance > 0.0 and not torch.compiler.is_compiling() and not bool(moving.any()):
                break
        return objective.unflatten(phi)


class LBFGS(Solver):
    """Limited-memory quasi-Newton steps, with a backtracking line search of every task's own.

    Nocedal & Wright 2006, algorithms 7.4 and 3.1. It needs no step size, and takes few steps where the log joint is
    smooth.

    Args:
        steps: largest number of steps.
        tolerance: a task stops when no entry of its gradient is larger, nats for a unit of phi.
        history: how many past steps make the curvature.

    Raises:
        DataError: arguments out of range.

    Example:
        >>> import bayesmeta as bm
        >>> peaks = torch.tensor([[1.0, -2.0], [5.0, 0.0]])  # of two tasks, much steeper in one direction
        >>> steepness = torch.tensor([1.0, 100.0])
        >>> log_joint = lambda phi: -0.5 * (steepness * (phi["w"] - peaks).square()).sum(1)
        >>> problem = bm.inference.MapProblem(log_joint, {"w": torch.zeros(2, 2)})
        >>> bool((bm.inference.LBFGS().solve(problem)["w"] - peaks).abs().max() < 1e-3)
        True
    """

    def __init__(self, steps: int = 50, tolerance: float = 1e-5, history: int = 10) -> None:
        if steps < 1 or history < 1 or tolerance < 0.0:
            raise DataError(f"expected steps, history >= 1 and tolerance >= 0, got {steps}, {history}, {tolerance}")
        self.steps, self.tolerance, self.history = steps, tolerance, history

    def solve(self, problem: MapProblem) -> Params:
        """Until every task has converged, or `steps` are taken."""
        objective = problem.flat()
        phi = objective.start
        value, gradient = objective(phi)
        pairs: list[tuple[Tensor, Tensor, Tensor]] = []
        moving = torch.ones_like(value, dtype=torch.bool)
        for step in range(self.steps):
            moving = moving & (gradient.abs().amax(1) > self.tolerance)
            if not bool(moving.any()):
                break
            direction = two_loops(gradient, pairs, last_curvature(pairs))
            slope = (direction * gradient).sum(1)
            uphill = slope > 0.0
            direction = torch.where(uphill[:, None], direction, gradient)
            slope = torch.where(uphill, slope, gradient.square().sum(1))
            first = 1.0 / gradient.abs().sum(1).clamp(min=1.0) if step == 0 else torch.ones_like(value)
            size = torch.where(moving, first, 0.0)
            new_phi, new_value, new_gradient, found = self._search(
                objective, phi, value, gradient, direction, slope, size
            )
            moving = moving & found
            s, y = new_phi - phi, gradient - new_gradient
            product = (s * y).sum(1)
            # a step without positive curvature tells nothing; ρ = 0 leaves it out
            usable = product > 1e-10 * y.square().sum(1).clamp(min=1e-30)
            rho = torch.where(usable, 1.0 / torch.where(usable, product, 1.0), 0.0)
            pairs = [*pairs, (s, y, rho)][-self.history :]
            phi, value, gradient = new_phi, new_value, new_gradient
        return objective.unflatten(phi)

    def _search(
        self,
        objective: "FlatLogJoint",
        phi: Tensor,
        value: Tensor,
        gradient: Tensor,
        direction: Tensor,
        slope: Tensor,
        size: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Halve each task's step until it gains a share of what the slope promises; a task that never does (its value
        is exact to rounding) stays, and is done.
        """
        for _ in range(20):
            candidate = phi + size[:, None] * direction
            new_value, new_gradient = objective(candidate)
            gains = new_value >= value + 1e-4 * size * slope  # false for NaN
            # next to the optimum a gain drowns in the rounding of the value: there a smaller gradient decides
            is_even = new_value >= value - 10.0 * torch.finfo(value.dtype).eps * value.abs()
            enough = gains | (is_even & (new_gradient.square().sum(1) < gradient.square().sum(1)))
            if bool((enough | (size == 0.0)).all()):
                break
            size = torch.where(enough, size, 0.5 * size)
        keep = enough[:, None]
        return (
            torch.where(keep, candidate, phi),
            torch.where(enough, new_value, value),
            torch.where(keep, new_gradient, gradient),
            enough,
        )


def two_loops(
    gradient: Float[Tensor, "B P"],
    pairs: Sequence[tuple[Tensor, Tensor, Tensor]],
    inverse: Callable[[Tensor], Tensor],
) -> Float[Tensor, "B P"]:
    """The quasi-Newton direction from past steps (Nocedal & Wright 2006, algorithm 7.4).

    Args:
        gradient: g.
        pairs: steps s, how much the gradient fell in them y, and ρ = 1 / sᵀy, or 0 to leave one out.
        inverse: the product with what the inverse curvature is taken to be without them.

    Example:
        >>> step, fall = torch.tensor([[1.0, 0.0]]), torch.tensor([[4.0, 0.0]])  # a curvature of 4 along the first axis
        >>> two_loops(torch.ones(1, 2), [(step, fall, torch.tensor([0.25]))], lambda vector: vector)
        tensor([[0.2500, 1.0000]])
    """
    direction, weights = gradient, []
    for s, y, rho in reversed(pairs):
        weight = rho * (s * direction).sum(1)
        direction = direction - weight[:, None] * y
        weights.append(weight)
    direction = inverse(direction)
    for (s, y, rho), weight in zip(pairs, reversed(weights), strict=True):
        direction = direction + (weight - rho * (y * direction).sum(1))[:, None] * s
    return direction


def last_curvature(pairs: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Callable[[Tensor], Tensor]:
    """One curvature for all directions, that of the last step (Nocedal & Wright 2006, eq. 7.20), for `two_loops`.

    Args:
        pairs: as for `two_loops`; without any the curvature is 1.

    Example:
        >>> step, fall = torch.tensor([[1.0, 0.0]]), torch.tensor([[4.0, 0.0]])
        >>> last_curvature([(step, fall, torch.tensor([0.25]))])(torch.ones(1, 2))
        tensor([[0.2500, 0.2500]])
    """
    if not pairs:
        return lambda vector: vector
    s, y, rho = pairs[-1]
    scale = torch.where(rho > 0.0, (s * y).sum(1) / y.square().sum(1).clamp(min=1e-30), 1.0)
    return lambda vector: scale[:, None] * vector


class FlatLogJoint:
    """A log joint of `B P` vectors, with its gradient.

    Attributes:
        start: the start as vectors.

    Args:
        log_joint: phi -> `B`, nats.
        start: each value `B *shape`.

    Example:
        >>> flat = FlatLogJoint(lambda phi: -0.5 * phi["w"].square().sum((1, 2)), {"w": torch.ones(1, 2, 2)})
        >>> value, gradient = flat(flat.start)
        >>> value.item(), gradient.tolist()
        (-2.0, [[-1.0, -1.0, -1.0, -1.0]])
    """

    def __init__(self, log_joint: LogJoint, start: Params) -> None:
        self.log_joint = log_joint
        self.shapes = {name: value.shape for name, value in start.items()}
        self.start = torch.cat([flattened(value.detach()) for value in start.values()], 1)

    def __call__(self, phi: Float[Tensor, "B P"]) -> tuple[Float[Tensor, "B"], Float[Tensor, "B P"]]:
        """The log joint and its gradient, without a graph."""
        with torch.enable_grad():
            leaf = phi.detach().requires_grad_()
            value = self.log_joint(self.unflatten(leaf))
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
        return value.detach(), gradient

    def unflatten(self, phi: Float[Tensor, "B P"]) -> Params:
        """Vectors as named tensors."""
        parts = phi.split([shape[1:].numel() for shape in self.shapes.values()], 1)
        return {name: part.reshape(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}
