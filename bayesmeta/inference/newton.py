"""The last steps to a mode by Newton's method, for phi of a few numbers.

    d = |H|⁻¹ g,    H = -∂² log p / ∂phi²,  |H| with the absolute eigenvalues of H

Gauss-Newton steps leave out a part of H. Where residuals are large it matters, and the mode is approached by a factor a
step; Newton's method squares the distance. H is written out, at the cost of a gradient for each number of phi.
"""

import torch
from torch import Tensor

from bayesmeta.inference.solvers import FlatLogJoint
from bayesmeta.typing import LogJoint, Params


@torch.no_grad()
def polished(log_joint: LogJoint, phi: Params, *, steps: int = 20) -> Params:
    """The mode near phi, to rounding, without a graph. A task whose log joint does not rise stays where it is.

    Args:
        log_joint: phi -> `B`, nats.
        phi: near the mode, each value `B *shape`.
        steps: largest number of steps.

    Example:
        >>> log_joint = lambda phi: -phi["w"][:, 0].cosh()  # one task, whose mode is 0
        >>> bool(polished(log_joint, {"w": torch.full((1, 1), 0.5)})["w"].abs() < 1e-6)
        True
    """
    objective = FlatLogJoint(log_joint, phi)
    here, moving = objective.start, torch.ones(len(objective.start), dtype=torch.bool, device=objective.start.device)
    eps = torch.finfo(here.dtype).eps
    for _ in range(steps):
        value, gradient, hessian = _derivatives(objective, here)
        moving = moving & torch.isfinite(hessian).all(-1).all(-1)
        if not bool(moving.any()):
            break
        eye = torch.eye(here.shape[1], dtype=here.dtype, device=here.device)
        sizes, axes = torch.linalg.eigh(torch.where(moving[:, None, None], hessian, eye))
        sizes = sizes.abs()
        along = (axes.mT @ gradient[..., None])[..., 0] / torch.maximum(sizes, eps * sizes.amax(1, keepdim=True))
        step = torch.where(moving[:, None], (axes @ along[..., None])[..., 0], 0.0)
        distance = (gradient * step).sum(1).clamp(min=0.0).sqrt()
        after, _ = objective(here + step)
        # a gain that drowns in rounding is taken: the step is that of a quadratic that knows more than the value
        accepted = moving & (after >= value - 10.0 * eps * value.abs())  # false for NaN
        here = torch.where(accepted[:, None], here + step, here)
        moving = accepted & (distance > eps**0.5)
    return objective.unflatten(here)


def _derivatives(objective: FlatLogJoint, phi: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The log joint, its gradient and its negative Hessian, `B`, `B P` and `B P P`."""
    with torch.enable_grad():
        leaf = phi.detach().requires_grad_()
        value = objective.log_joint(objective.unflatten(leaf))
        (gradient,) = torch.autograd.grad(value.sum(), leaf, create_graph=True)
        rows = [
            torch.autograd.grad(column.sum(), leaf, retain_graph=True, materialize_grads=True)[0]
            for column in gradient.unbind(-1)
        ]
    return value.detach(), gradient.detach(), -torch.stack(rows, 1)
