"""Steps of gradient ascent through dense layers, with first and second derivatives written out.

With z_l = W_l u_l + b_l, u_l+1 = a(z_l), f = z_L and δ_L = s(f) = w (y - m(f)), a step is

    δ_l = a'(z_l) ∘ (W_l+1ᵀ δ_l+1),   W_l <- W_l + Σ_n δ_l u_lᵀ,   b_l <- b_l + Σ_n δ_l

As the gradient of a function its derivative is symmetric: what comes back through a step, V + H V for a cotangent V, is
the change of the step in the direction V (Pearlmutter 1994, "Fast exact multiplication by the Hessian"),

    ż_l = V_l u_l + v_l + W_l u̇_l,   u̇_l+1 = a' ∘ ż_l,   δ̇_L = -w m' ż_L
    δ̇_l = a' ∘ (W_l+1ᵀ δ̇_l+1 + V_l+1ᵀ δ_l+1) + a'' ∘ ż_l ∘ (W_l+1ᵀ δ_l+1)
    H V = Σ_n δ̇_l u_lᵀ + δ_l u̇_lᵀ

and what comes back to w is ż_L ∘ (y - m). All steps are one node of autograd's graph.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.likelihoods.score import Mean
from bayesmeta.networks.dense_layers import Activation, affine


@dataclass(frozen=True, eq=False)
class DenseAscent:
    """What does not change from call to call: layers, steps and the density.

    Attributes:
        layers: of each layer the places of W and b among the parameters, and its activation.
        moving: the first so many parameters move; the others stay, and have gradients all the same.
        steps: how many.
        mean: m.
        again: (w, y, parameters) -> the end of the steps by operations that can be differentiated any number of times.

    Example:
        >>> ascent = DenseAscent([(0, 1, None)], 2, 1, Mean(), lambda *tensors: list(tensors[2:]))
        >>> one = torch.ones(1, 1, 1)
        >>> ascent(one, one, one, [torch.zeros(1, 1, 1), torch.zeros(1, 1)])[0].item()  # f = W x + b is 0, and y is 1
        1.0
    """

    layers: Sequence[tuple[int, int, Activation | None]]
    moving: int
    steps: int
    mean: Mean
    again: Callable[..., list[Tensor]]

    def lowest(self, wanted: Sequence[bool]) -> int:
        """The lowest layer with a parameter that is wanted.

        Args:
            wanted: of each parameter whether it is.
        """
        return next(i for i, (place, offset, _) in enumerate(self.layers) if wanted[place] or wanted[offset])

    def __call__(
        self, weight: Float[Tensor, "B N #K"], y: Float[Tensor, "B N K"], x: Float[Tensor, "B N D"], start: list[Tensor]
    ) -> list[Tensor]:
        """The parameters that move, after the steps.

        Args:
            weight: w.
            y: outcomes.
            x: inputs, which have no gradients.
            start: all parameters, stacked: weights `B O I` and biases `B O`.
        """
        ends: tuple[Tensor, ...] = _Steps.apply(self, weight, y, x, *start)  # type: ignore[no-untyped-call]
        return list(ends)


class _Kept(NamedTuple):
    """What a step keeps for its derivative: lists have an entry for each layer."""

    parameters: Sequence[Tensor]
    inputs: Sequence[Tensor]  # u
    slopes: Sequence[Tensor | None]  # a'
    bends: Sequence[Tensor | None]  # a'' ∘ (W_l+1ᵀ δ_l+1)
    deltas: Sequence[Tensor | None]  # δ, where something moves there or below
    mean: Tensor  # m
    residual: Tensor  # y - m

    def flat(self) -> list[Tensor | None]:
        """All of it, one after the other."""
        return [*self.parameters, *self.inputs, *self.slopes, *self.bends, *self.deltas, self.mean, self.residual]

    @classmethod
    def of(cls, flat: Sequence[Any], count: int, layers: int) -> "_Kept":
        """The opposite of `flat`, for so many parameters and layers."""
        ends = [count + i * layers for i in range(5)]
        parameters, inputs, slopes, bends, deltas = (
            flat[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)
        )
        return cls(parameters, inputs, slopes, bends, deltas, flat[-2], flat[-1])


class _Steps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: DenseAscent, weight: Tensor, y: Tensor, x: Tensor, *start: Tensor) -> Any:
        ctx.plan = plan
        keep = any(ctx.needs_input_grad)
        parameters, kept = list(start), []
        for _ in range(plan.steps):
            parameters, step = _step(plan, weight, y, x, parameters, keep)
            kept += [] if step is None else step.flat()
        if keep:
            ctx.save_for_backward(weight, y, *start, *kept)
        return tuple(parameters[: plan.moving])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        wanted = ctx.needs_input_grad
        count, layers = len(wanted) - 4, len(ctx.plan.layers)
        weight, y, *saved = ctx.saved_tensors
        start, kept = saved[:count], saved[count:]
        if torch.is_grad_enabled():  # whoever wants gradients of gradients
            own = [weight, y, *start]
            leaves = [value for value, want in zip(own, (*wanted[1:3], *wanted[4:]), strict=True) if want]
            with torch.enable_grad():
                ends = ctx.plan.again(*own)
            found = iter(torch.autograd.grad(ends, leaves, cotangents, create_graph=True, materialize_grads=True))
            return tuple(next(found) if want else None for want in wanted)
        size = count + 4 * layers + 2
        steps = [_Kept.of(kept[at : at + size], count, layers) for at in range(0, len(kept), size)]
        return None, *_back(ctx.plan, steps, weight, wanted[1:], cotangents)


def _step(
    plan: DenseAscent, weight: Tensor, y: Tensor, x: Tensor, parameters: list[Tensor], keep: bool
) -> tuple[list[Tensor], _Kept | None]:
    inputs, slopes, bends = [], [], []
    lowest = plan.lowest([index < plan.moving for index in range(len(parameters))])
    for place, offset, activation in plan.layers:
        inputs.append(x)
        z = affine(parameters[offset], x, parameters[place])
        if activation is None:
            x, slope, bend = z, None, None
        else:
            x = activation.value(z)
            slope = activation.slope(z, x)
            bend = activation.bend(z, x, slope) if keep and activation.bend is not None else None
        slopes.append(slope)
        bends.append(bend)
    mean = plan.mean.at(x)
    residual = y - mean
    back = weight * residual
    deltas: list[Tensor | None] = []
    moved = list(parameters)
    for index in range(len(plan.layers) - 1, lowest - 1, -1):  # nothing moves below
        place, offset, _ = plan.layers[index]
        slope, bend = slopes[index], bends[index]
        if bend is not None:
            bends[index] = bend * back
        delta = back if slope is None else back * slope
        deltas.append(delta)
        if place < plan.moving:
            moved[place] = _outer(parameters[place], delta, inputs[index])
        if offset < plan.moving:
            moved[offset] = parameters[offset] + delta.sum(1)
        if index > lowest:
            back = _times(None, delta, parameters[place])
    if not keep:
        return moved, None
    deltas += [None] * lowest
    deltas.reverse()
    return moved, _Kept(parameters, inputs, slopes, bends, deltas, mean, residual)


def _back(
    plan: DenseAscent,
    kept: list[_Kept],
    weight: Tensor,
    wanted: Sequence[bool],
    cotangents: Sequence[Tensor],
) -> tuple[Tensor | None, ...]:
    """The cotangents of w, y, x (none) and all parameters."""
    to_weight, to_y, _, *to = wanted
    # those of parameters that stay begin with nothing
    found: list[Tensor | None] = [*cotangents, *[None] * (len(to) - plan.moving)]
    of_weight: Tensor | None = None
    of_y: Tensor | None = None
    lowest = plan.lowest([want or index < plan.moving for index, want in enumerate(to)])
    for step in reversed(kept):
        change, changes = None, []
        directions = [value if index < plan.moving else None for index, value in enumerate(found)]
        entered: list[Tensor | None] = []  # u̇
        for index, (place, offset, _) in enumerate(plan.layers):
            entered.append(change)
            along, shift = directions[place], directions[offset]
            moved = None if shift is None else shift[:, None].expand(-1, step.residual.shape[1], -1)
            moved = moved if along is None else _times(moved, step.inputs[index], along.mT)
            moved = moved if change is None else _times(moved, change, step.parameters[place].mT)
            changes.append(moved)
            slope = step.slopes[index]
            change = moved if moved is None or slope is None else moved * slope
        assert change is not None  # something moves
        if to_weight:
            of_weight = _sum(of_weight, (change * step.residual).sum_to_size(weight.shape))
        if to_y:
            of_y = _sum(of_y, weight * change)
        back = -weight * plan.mean.pushed(step.mean, change)
        for index in range(len(plan.layers) - 1, lowest - 1, -1):
            place, offset, _ = plan.layers[index]
            slope, bend, moved = step.slopes[index], step.bends[index], changes[index]
            inner = back if slope is None else back * slope
            if bend is not None and moved is not None:
                inner = torch.addcmul(inner, bend, moved)
            delta, along = step.deltas[index], directions[place]
            if to[place] or place < plan.moving:
                total = _outer(found[place], inner, step.inputs[index])
                entry = entered[index]
                found[place] = total if entry is None or delta is None else _outer(total, delta, entry)
            if to[offset] or offset < plan.moving:
                found[offset] = _sum(found[offset], inner.sum(1))
            if index > lowest:
                back = _times(None, inner, step.parameters[place])
                back = back if delta is None or along is None else _times(back, delta, along)
    return of_weight, of_y, None, *[value if want else None for value, want in zip(found, to, strict=True)]


def _sum(total: Tensor | None, value: Tensor) -> Tensor:
    return value if total is None else total + value


def _times(total: Tensor | None, left: Float[Tensor, "B N I"], right: Float[Tensor, "B I O"]) -> Float[Tensor, "B N O"]:
    """total + left right. Products of one column are elementwise ones, which are faster."""
    if left.shape[-1] == 1:
        return left * right if total is None else torch.addcmul(total, left, right)
    return left @ right if total is None else torch.baddbmm(total, left, right)


def _outer(total: Tensor | None, left: Float[Tensor, "B N O"], right: Float[Tensor, "B N I"]) -> Float[Tensor, "B O I"]:
    """total + Σ_n left_n right_nᵀ."""
    if right.shape[-1] == 1:
        return _sum(total, (left * right).sum(1)[..., None])
    return left.mT @ right if total is None else torch.baddbmm(total, left.mT, right)
