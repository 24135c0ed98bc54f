"""The positive numbers of a module by their values: what is trained is a raw number, and what is meant is v = v(raw).

Two kinds are found: `Positive`, our own, and the constrained parameters of gpytorch's modules.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bayesmeta.noise import Positive, bounded

Elementwise = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class PositiveNumbers:
    """One parameter whose values are positive.

    Attributes:
        raw: the parameter, any real numbers.
        value_of: raw -> value, each number on its own.
        raw_of: value -> raw; not finite where no raw number has the value.

    Example:
        >>> import bayesmeta as bm
        >>> numbers = positive_numbers(bm.DeepKernelTransfer(bm.Identity(1), kernel=bm.kernels.RBFKernel(2.0)))
        >>> {name: round(numbers[name].value.item(), 3) for name in sorted(numbers)}  # length, variance, noise
        {'kernel.base_kernel.raw_lengthscale': 2.0, 'kernel.raw_outputscale': 1.0, 'likelihood.noise.value.raw': 0.1}
    """

    raw: Tensor
    value_of: Elementwise
    raw_of: Elementwise

    @property
    def value(self) -> Tensor:
        """v, in float64."""
        return self.value_of(self.raw.double())

    @property
    def log_slope(self) -> Tensor:
        """log dv/draw of each number, in float64: what turns a density of values into one of what is trained."""
        raw = self.raw.double()
        # forward mode: also for tensors that vmap maps over, where torch.autograd.grad is refused
        return torch.func.jvp(self.value_of, (raw,), (torch.ones_like(raw),))[1].log()


def positive_numbers(module: nn.Module) -> dict[str, PositiveNumbers]:
    """All parameters with positive values, by the names that `named_parameters` has for the raw numbers."""
    found: dict[str, PositiveNumbers] = {}
    for prefix, part in module.named_modules():
        dot = f"{prefix}." if prefix else ""
        if isinstance(part, Positive):
            found[f"{dot}raw"] = PositiveNumbers(part.raw, _bounded(part), part.raw_of)
        constraint_of = getattr(part, "constraint_for_parameter_name", None)  # gpytorch's, which need not be imported
        if constraint_of is None:
            continue
        for name, raw in part.named_parameters(recurse=False):
            constraint = constraint_of(name)
            if constraint is not None and bool((constraint.lower_bound >= 0.0).all()):
                found[f"{dot}{name}"] = PositiveNumbers(raw, constraint.transform, constraint.inverse_transform)
    return found


def _bounded(part: Positive) -> Elementwise:
    return lambda raw: bounded(raw, part.lower, part.upper)
