"""Maximum a posteriori adaptation of many tasks at once, differentiable in theta.

`unrolled_map` differentiates through the path of gradient ascent (Finn et al. 2017), `implicit_map` through the optimum
(Rajeswaran et al. 2019):

    unrolled   phi_j+1 = phi_j + lr ∇ log p(D, phi_j | theta),   phi_0 = theta
    implicit   ∇_phi log p(D, phi* | theta) = 0   =>   dphi*/dtheta = H⁻¹ ∂²log p / ∂phi ∂theta,   H = -∂²log p / ∂phi²

phi is stacked (`B *shape`): the gradient of the sum over tasks is every task's own gradient.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from typing_extensions import override

from bayesmeta.errors import DataError, InferenceError
from bayesmeta.inference.laplace import Curvature
from bayesmeta.inference.solvers import MapProblem, Solver
from bayesmeta.linalg import conjugate_gradient, flattened
from bayesmeta.typing import LogJoint, Params

Rates = float | Tensor | Params
"""Step sizes: one number, one for each task (`B`), or for each parameter (values that broadcast to `B *shape`)."""
Product = Callable[[Params], Params]


def unrolled_map(
    log_joint: LogJoint,
    start: Params,
    *,
    steps: int,
    lr: Rates | Sequence[Rates],
    first_order: bool = False,
    checkpoint: Sequence[Tensor] | None = None,
) -> Params:
    """MAP by gradient ascent: `steps` steps from `start`, with their graph where gradients are enabled.

    This is MAML's inner loop (Finn, Abbeel, Levine 2017, arXiv:1703.03400): the gradient in theta of what follows goes
    through every step.

    Args:
        log_joint: phi -> `B`, what to climb, nats.
        start: phi_0, each value `B *shape`.
        steps: how many steps; 0 returns the start.
        lr: step sizes on the *sum* over points, or one such for each step.
        first_order: treat the inner gradients as constants of theta (first-order MAML).
        checkpoint: keep phi alone of each step, and compute the rest anew in the backward pass: memory for one step's
            graph in place of all, for a second forward. Gives the leaf tensors of theta that `log_joint` depends on; it
            must compute from them anew at every call.

    Raises:
        DataError: rates for another number of steps.
        InferenceError: a task's log joint or phi is no longer finite; the error's `task` is its position.

    Example:
        >>> theta = torch.zeros(1, requires_grad=True)
        >>> log_joint = lambda phi: -0.5 * (phi["w"][:, 0] - 1.0).square()  # one task, whose optimum is 1
        >>> phi = unrolled_map(log_joint, {"w": theta[None]}, steps=2, lr=0.5)  # phi_k = 1 + 0.5^k (theta - 1)
        >>> phi["w"].item(), torch.autograd.grad(phi["w"].sum(), theta)[0].item()
        (0.75, 0.25)
    """
    if steps < 0 or (isinstance(lr, Sequence) and len(lr) != steps):
        raise DataError(f"expected steps >= 0 and a rate for each, got {steps} steps and rates {lr}")
    values, phi = [], start
    for step in range(steps):
        rate = lr[step] if isinstance(lr, Sequence) else lr
        if checkpoint is None or not torch.is_grad_enabled():
            phi, value = ascend(log_joint, phi, rate, first_order)
        else:
            phi, value = _ascend_checkpointed(log_joint, phi, rate, first_order, checkpoint)
        values.append(value)
    require_finite(phi, values)
    return phi


class GradientSteps(Solver):
    """A number of gradient steps that need not arrive, differentiated through: `unrolled_map` on the log joint.

    (`GradientAscent` goes to the optimum, and phi is differentiated as one.)

    Args:
        steps: how many.
        lr: step size on the log joint, a sum over points, in the problem's unit: for learners that take a solver, on
            half the mean squared error, or on the mean negative log likelihood of labels.

    Raises:
        DataError: no steps, or a step size that is not positive.

    Example:
        >>> import bayesmeta as bm
        >>> log_joint = lambda phi: -0.5 * (phi["w"][:, 0] - 1.0).square()  # whose optimum is 1
        >>> problem = bm.inference.MapProblem(log_joint, {"w": torch.zeros(1, 1)})
        >>> bm.inference.GradientSteps(steps=2, lr=0.5).solve(problem)["w"].item()
        0.75
    """

    unrolls = True

    def __init__(self, steps: int = 10, lr: float = 0.01) -> None:
        if steps < 1 or not 0.0 < lr < float("inf"):
            raise DataError(f"expected at least one step and a positive lr, got {steps} and {lr}")
        self.steps, self.lr = steps, lr

    @override
    def solve(self, problem: MapProblem) -> Params:
        return unrolled_map(problem.log_joint, problem.start, steps=self.steps, lr=self.lr * problem.unit)


def ascend(log_joint: LogJoint, phi: Params, lr: Rates, first_order: bool = False) -> tuple[Params, Float[Tensor, "B"]]:
    """One step of gradient ascent, phi + lr ∇ log joint, and the log joint before it (without a graph), nats.

    Args:
        log_joint: phi -> `B`, what to climb, nats.
        phi: each value `B *shape`.
        lr: step sizes on the *sum* over points.
        first_order: treat the gradient as a constant of theta.

    Example:
        >>> moved, value = ascend(lambda phi: -0.5 * phi["w"][:, 0].square(), {"w": torch.ones(1, 1)}, lr=0.25)
        >>> moved["w"].item(), value.item()
        (0.75, -0.5)
    """
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        # under no_grad an expanded parameter has no graph, so the step needs leaves of its own
        here = {name: value if keep and value.requires_grad else _leaf(value) for name, value in phi.items()}
        value = log_joint(here)
        gradients = torch.autograd.grad(
            value.sum(), list(here.values()), create_graph=keep and not first_order, materialize_grads=True
        )
    rates = spread_rates(lr, phi)
    moved = {
        name: torch.addcmul(before, rates[name], gradient)
        for (name, before), gradient in zip(phi.items(), gradients, strict=True)
    }
    return moved, value.detach()


def implicit_map(
    log_joint: LogJoint,
    start: Params,
    *,
    solver: Solver,
    unit: Tensor | float = 1.0,
    curvature: Callable[[Params], Curvature] | None = None,
    product: Callable[[Params], Product] | None = None,
    precondition: Callable[[Params], Callable[[Tensor], Tensor]] | None = None,
    solve_steps: int = 10,
    tolerance: float = 1e-6,
) -> Params:
    """MAP at the optimum of the log joint, differentiable in theta whatever path the solver has taken there.

    This is iMAML's inner loop (Rajeswaran, Finn, Kakade, Levine 2019, arXiv:1909.04630): the gradient is that of the
    implicit function theorem, and its memory does not depend on the solver's steps.

    Args:
        log_joint: phi -> `B`, nats; its optimum must be one (a negative Hessian that is positive definite there).
        start: where the solver begins, each value `B *shape`.
        solver: finds the optimum.
        unit: as for `MapProblem`.
        curvature: as for `MapProblem`.
        product: at an optimum, the product v -> H v; by default that of the negative Hessian. A Gauss-Newton product is
            positive semi-definite everywhere.
        precondition: at an optimum, the product of a vector `B P` with what is nearly H⁻¹, which saves steps.
        solve_steps: largest number of conjugate-gradient steps for H⁻¹ v.
        tolerance: stop them when the residual is so small, relative to v.

    Raises:
        InferenceError: phi is no longer finite.

    Example:
        >>> from bayesmeta.inference import LBFGS
        >>> theta = torch.tensor(2.0, requires_grad=True)  # a prior N(theta, 1), and an outcome 0 with noise N(0, 1)
        >>> log_joint = lambda phi: -0.5 * phi["w"].square().sum(1) - 0.5 * (phi["w"] - theta).square().sum(1)
        >>> phi = implicit_map(log_joint, {"w": torch.zeros(1, 1)}, solver=LBFGS())
        >>> round(phi["w"].item(), 3), round(torch.autograd.grad(phi["w"].sum(), theta)[0].item(), 3)
        (1.0, 0.5)
    """
    with torch.no_grad():
        detached = {name: value.detach() for name, value in start.items()}
        optimum = solver.solve(MapProblem(log_joint, detached, unit, curvature))
        require_finite(optimum, [log_joint(optimum)])  # the log joint, too: L-BFGS stops where it is NaN
    return at_optimum(
        log_joint, optimum, product=product, precondition=precondition, solve_steps=solve_steps, tolerance=tolerance
    )


def at_optimum(
    log_joint: LogJoint,
    optimum: Params,
    *,
    product: Callable[[Params], Product] | None = None,
    precondition: Callable[[Params], Callable[[Tensor], Tensor]] | None = None,
    solve_steps: int = 10,
    tolerance: float = 1e-6,
) -> Params:
    """An optimum that has been found without a graph, with its derivative in theta by the implicit function theorem.

    Args:
        log_joint: phi -> `B`, nats.
        optimum: of each task, each value `B *shape`; returned as it is where gradients are not enabled.
        product: as for `implicit_map`.
        precondition: as for `implicit_map`.
        solve_steps: largest number of conjugate-gradient steps for H⁻¹ v.
        tolerance: stop them when the residual is so small, relative to v.

    Example:
        >>> theta = torch.tensor(2.0, requires_grad=True)  # a prior N(theta, 1), and an outcome 0 with noise N(0, 1)
        >>> log_joint = lambda phi: -0.5 * phi["w"].square().sum(1) - 0.5 * (phi["w"] - theta).square().sum(1)
        >>> phi = at_optimum(log_joint, {"w": torch.ones(1, 1)})
        >>> torch.autograd.grad(phi["w"].sum(), theta)[0].item()
        0.5
    """
    if not torch.is_grad_enabled():
        return optimum
    at = {name: _leaf(value) for name, value in optimum.items()}
    # one graph of the gradient serves all products with H, and the last step to theta
    gradient = torch.autograd.grad(log_joint(at).sum(), list(at.values()), create_graph=True, materialize_grads=True)
    white = None if precondition is None else precondition(optimum)
    times = _negative_hessian(gradient, at) if product is None else product(optimum)

    def solve(right: Sequence[Tensor]) -> list[Tensor]:
        shapes = [value.shape for value in at.values()]
        flat = torch.cat([flattened(value) for value in right], 1)

        def flat_product(vector: Tensor) -> Tensor:
            parts = _split(vector, shapes)
            result = times(dict(zip(at, parts, strict=True)))
            return torch.cat([flattened(value) for value in result.values()], 1)

        return _split(conjugate_gradient(flat_product, flat, solve_steps, tolerance, white), shapes)

    values = _AtOptimum.apply(  # type: ignore[no-untyped-call]
        solve, len(at), *(value.detach() for value in at.values()), *gradient
    )
    return dict(zip(at, values, strict=True))


class _AtOptimum(torch.autograd.Function):
    """The optimum as a function of the gradient there: dphi* = H⁻¹ dg, so a cotangent v of phi* is H⁻¹ v of g."""

    @staticmethod
    def forward(ctx: Any, solve: Callable[[Sequence[Tensor]], list[Tensor]], count: int, *tensors: Tensor) -> Any:
        ctx.solve = solve
        return tuple(value.clone() for value in tensors[:count])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        return (None, None, *(None for _ in cotangents), *ctx.solve(cotangents))


def _negative_hessian(gradient: Sequence[Tensor], at: Params) -> Product:
    def product(vector: Params) -> Params:
        with torch.enable_grad():
            results = torch.autograd.grad(
                gradient, list(at.values()), list(vector.values()), retain_graph=True, materialize_grads=True
            )
        return {name: -value for name, value in zip(at, results, strict=True)}

    return product


def spread_rates(lr: Rates, phi: Params) -> Params:
    """Step sizes for each parameter, which broadcast to its `B *shape`.

    Args:
        lr: one number, one for each task (`B`), or for each parameter.
        phi: each value `B *shape`.

    Example:
        >>> spread_rates(torch.tensor([0.1, 0.2]), {"w": torch.zeros(2, 3, 4)})["w"].shape  # one for each of two tasks
        torch.Size([2, 1, 1])
    """
    if isinstance(lr, dict):
        return lr
    rate = lr if isinstance(lr, Tensor) else torch.tensor(lr, dtype=torch.float64)  # float32 would round 0.1
    return {
        name: rate.reshape(rate.shape + (1,) * (value.ndim - 1)) if rate.ndim else rate for name, value in phi.items()
    }


def require_finite(phi: Params, values: Sequence[Float[Tensor, "B"]]) -> None:
    """Raise for the first step and task whose log joint, or phi after the last step, is not finite.

    Args:
        phi: after the last step, each value `B *shape`.
        values: the log joint of each task before every step, nats.

    Raises:
        InferenceError: one is not; the error's `task` is its position.

    Example:
        >>> try:
        ...     require_finite({"w": torch.zeros(2, 1)}, [torch.zeros(2), torch.tensor([0.0, torch.nan])])
        ... except InferenceError as error:
        ...     print(str(error).split(". ")[0])
        expected adaptation that stays finite, got nan after 1 steps in task 1
    """
    if torch.compiler.is_compiling():  # no decisions in recorded code: the loss is looked at after it
        return
    last = torch.stack([flattened(value.detach()).sum(1) for value in phi.values()]).sum(0)
    history = torch.stack([*values, last])
    if bool(torch.isfinite(history).all()):
        return
    step, task = (int(i) for i in (~torch.isfinite(history)).nonzero()[0])
    raise InferenceError(
        f"expected adaptation that stays finite, got {history[step, task].item()} after {step} steps in task {task}. "
        "Likely causes: a step size that is too large (lower lr, or take fewer steps), data far from unit scale (use "
        "Standardized), a log joint without an optimum",
        task=task,
    )


def _ascend_checkpointed(
    log_joint: LogJoint, phi: Params, lr: Rates, first_order: bool, theta: Sequence[Tensor]
) -> tuple[Params, Tensor]:
    rates = spread_rates(lr, phi)
    phi_names, rate_names = list(phi), list(rates)

    def step(*tensors: Tensor) -> list[Tensor]:
        before = dict(zip(phi_names, tensors, strict=False))
        moved, value = ascend(
            log_joint, before, dict(zip(rate_names, tensors[len(phi_names) :], strict=False)), first_order
        )
        return [*moved.values(), value]

    *moved, value = _Recomputed.apply(  # type: ignore[no-untyped-call]
        step, len(phi) + len(rates), *phi.values(), *rates.values(), *theta
    )
    return dict(zip(phi_names, moved, strict=True)), value.detach()


class _Recomputed(torch.autograd.Function):
    """A step whose graph is thrown away, and made anew when it is differentiated. Its last output has no gradient."""

    @staticmethod
    def forward(ctx: Any, step: Callable[..., list[Tensor]], count: int, *tensors: Tensor) -> Any:
        ctx.step, ctx.count = step, count
        ctx.save_for_backward(*tensors)
        with torch.no_grad():
            return tuple(step(*tensors[:count]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        inputs, theta = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        with torch.enable_grad():
            leaves = [_leaf(value) for value in inputs]
            outputs = ctx.step(*leaves)[:-1]
            wanted = [value for value in (*leaves, *theta) if value.requires_grad]
            found = iter(torch.autograd.grad(outputs, wanted, cotangents[:-1], materialize_grads=True))
        return (None, None, *(next(found) if value.requires_grad else None for value in (*leaves, *theta)))


def _leaf(value: Tensor) -> Tensor:
    return value.detach().requires_grad_()


def _split(flat: Float[Tensor, "B P"], shapes: Sequence[torch.Size]) -> list[Tensor]:
    parts = flat.split([shape[1:].numel() for shape in shapes], 1)
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
