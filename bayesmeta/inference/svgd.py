"""Stein variational gradient descent of many tasks at once, differentiable in theta.

Liu & Wang 2016 (arXiv:1608.04471), eq. 8, of particles r = 1..S:

    phi_r <- phi_r + lr / S Σ_s [k(phi_s, phi_r) ∇ log p(D, phi_s) + ∇_{phi_s} k(phi_s, phi_r)]
    k(a, b) = exp(-|a - b|² / h),   h = median of the squared distances of the pairs / log(S + 1)

The bandwidth h is part of the graph: without its derivative the meta-gradient would be biased.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.errors import DataError
from bayesmeta.inference.map import require_finite
from bayesmeta.linalg import flattened
from bayesmeta.typing import LogJoint, Params


def svgd(log_joint: LogJoint, particles: Params, *, steps: int, lr: float | Tensor) -> Params:
    """Stein variational gradient descent: `steps` steps of all particles of all tasks.

    The particles end as a sample of the posterior. Their graph is kept where gradients are enabled.

    Args:
        log_joint: phi with S draws -> `S B`, nats.
        particles: each value `S B *shape`.
        steps: how many steps; 0 returns the particles.
        lr: step size; a number, or one for each task (`B`).

    Raises:
        DataError: a negative number of steps.
        InferenceError: a particle is no longer finite; the error's `task` is the position of its task.

    Example:
        >>> particles = {"w": torch.randn(20, 1, 1, generator=torch.Generator().manual_seed(0))}  # S B *shape
        >>> log_joint = lambda phi: -0.5 * (phi["w"][..., 0] - 3.0).square()  # N(3, 1)
        >>> found = svgd(log_joint, particles, steps=200, lr=0.5)["w"]
        >>> round(found.mean().item(), 1), bool((found.std() - 1.0).abs() < 0.1)
        (3.0, True)
    """
    if steps < 0:
        raise DataError(f"expected steps >= 0, got {steps}")
    keep = torch.is_grad_enabled()
    shapes = {name: value.shape for name, value in particles.items()}
    flat = torch.cat([flattened(value, 2) for value in particles.values()], 2)  # S B P
    rate = torch.as_tensor(lr, dtype=flat.dtype, device=flat.device)
    values = []
    for _ in range(steps):
        with torch.enable_grad():
            leaf = flat if keep and flat.requires_grad else flat.detach().requires_grad_()
            value = log_joint(_unflatten(leaf, shapes))
            (gradient,) = torch.autograd.grad(value.sum(), leaf, create_graph=keep)
        flat = flat + rate.reshape(-1, 1) * stein_direction(flat, gradient)
        values.append(value.detach().sum(0))
    result = _unflatten(flat, shapes)
    require_finite({name: value.transpose(0, 1) for name, value in result.items()}, values)
    return result


def stein_direction(particles: Float[Tensor, "S B P"], gradient: Float[Tensor, "S B P"]) -> Float[Tensor, "S B P"]:
    """The direction in which each particle moves: gradients shared by the kernel, and repulsion (eq. 8).

    Args:
        particles: phi, flat.
        gradient: of the log joint at each of them.

    Example:
        >>> apart = torch.tensor([0.0, 1.0])[:, None, None]  # S B P: two particles of one task
        >>> stein_direction(apart, torch.zeros(2, 1, 1)).flatten()  # without a gradient they repel each other
        tensor([-0.3662,  0.3662])
    """
    count = len(particles)
    if count == 1:
        return gradient
    x, score = particles.transpose(0, 1), gradient.transpose(0, 1)  # B S P
    x = x - x.mean(1, keepdim=True)  # only differences matter, and next to zero they lose no digits
    squared = (x[:, :, None] - x[:, None]).square().sum(-1)  # B r s
    first, second = torch.triu_indices(count, count, 1, device=x.device)
    median = squared[:, first, second].median(1).values
    # where most particles are at one place any width serves; one next to zero would multiply rounding
    bandwidth = (torch.where(median > 0.0, median, 1.0) / math.log(count + 1.0))[:, None, None]
    kernel = (-squared / bandwidth).exp()
    # Σ_s ∇_{phi_s} k = 2/h Σ_s k (phi_r - phi_s)
    repulsion = 2.0 / bandwidth * (kernel.sum(2, keepdim=True) * x - kernel @ x)
    return ((kernel @ score + repulsion) / count).transpose(0, 1)


def _unflatten(flat: Tensor, shapes: dict[str, torch.Size]) -> Params:
    parts = flat.split([shape[2:].numel() for shape in shapes.values()], 2)
    return {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
