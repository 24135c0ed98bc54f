"""Jacobians of network outputs in the parameters of each task, by automatic differentiation."""

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.typing import Params


def jacobian(
    function: Callable[[Params, Tensor], Tensor],
    phi: Params,
    x: Float[Tensor, "B N *x"],
    *,
    theta: Iterable[Tensor] = (),
    pointwise: bool = True,
) -> Float[Tensor, "B N K P"]:
    """d function(phi, x) / d phi of each task; P counts the numbers of phi in its order, each value flattened.

    A function that works point by point is differentiated at all points at once, each with a copy of its task's phi;
    any other one output at a time. The result is differentiable in whatever of phi, x and theta requires a gradient.

    Args:
        function: (phi, x) -> `B N K`.
        phi: each value `B *shape`.
        x: inputs.
        theta: what else the function depends on.
        pointwise: whether the output at a point depends on that point alone.
    """
    if x.shape[1] == 0:
        size = sum(value[0].numel() for value in phi.values())
        out = function(phi, x)
        return out.new_zeros(*out.shape, size)
    keep = torch.is_grad_enabled() and any(v.requires_grad for v in (x, *phi.values(), *theta))
    with torch.enable_grad():
        if pointwise:
            leaves = {name: _leaf(value.repeat_interleave(x.shape[1], 0), keep) for name, value in phi.items()}
            out = function(leaves, x.flatten(0, 1)[:, None])[:, 0]  # BN K
            rows = torch.stack([_gradient(column, leaves, keep) for column in out.unbind(-1)], 1)
            return rows.unflatten(0, x.shape[:2])
        leaves = {name: _leaf(value, keep) for name, value in phi.items()}
        out = function(leaves, x)
        rows = torch.stack([_gradient(entry, leaves, keep) for entry in out.flatten(1).unbind(-1)], 1)
        return rows.unflatten(1, out.shape[1:])


def _leaf(value: Tensor, keep: bool) -> Tensor:
    return value if keep and value.requires_grad else value.detach().requires_grad_()


def _gradient(out: Tensor, leaves: Params, keep: bool) -> Tensor:
    """d out / d leaves, flat: the outputs of different tasks depend on different rows of the leaves."""
    gradients = torch.autograd.grad(
        out.sum(), list(leaves.values()), retain_graph=True, create_graph=keep, materialize_grads=True
    )
    return torch.cat([gradient.flatten(1) for gradient in gradients], 1)
