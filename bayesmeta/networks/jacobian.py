"""Jacobians of network outputs in the parameters of each task, and their inner products.

What inference needs of J (`B N K P`) is mostly J D J'ᵀ with a diagonal D: prior variances, or rates. A dense layer's
rows are outer products δ aᵀ of what comes back and what went in, so that (δ aᵀ)·(δ' a'ᵀ) = (δ·δ')(a·a'): the inner
products cost the width of a layer, not its weights. So they do with a D of one number, and with an `OuterProduct` r cᵀ
for each layer, (δ·(r δ'))(a·(c a')); a D that differs freely within a layer has no factors.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesmeta.linalg import flattened
from bayesmeta.typing import Params


@dataclass(frozen=True, eq=False)
class OuterProduct:
    """r cᵀ, a number for each entry of a weight that is made of one a row and one a column.

    Attributes:
        rows: r, `O`.
        columns: c, of the weight's shape without its first axis.

    Example:
        >>> product = OuterProduct(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0, 5.0]))
        >>> product.dense()
        tensor([[ 3.,  4.,  5.],
                [ 6.,  8., 10.]])
    """

    rows: Float[Tensor, "O"]
    columns: Float[Tensor, "*i"]

    def dense(self) -> Float[Tensor, "O *i"]:
        """All of it written out."""
        return self.rows.reshape(-1, *[1] * self.columns.ndim) * self.columns


Diagonal = Mapping[str, Tensor | OuterProduct]
"""A diagonal matrix over phi, by its names: values that broadcast to `B *shape`, or are factored."""


def written_out(diagonal: Diagonal) -> Params:
    """The same with its outer products multiplied out."""
    return {name: value.dense() if isinstance(value, OuterProduct) else value for name, value in diagonal.items()}


class Jacobian(ABC):
    """d f / d phi at the points of each task: a value, `B N K P`, known through its products.

    The diagonal D of an inner product is given by the names of phi.
    """

    @abstractmethod
    def gram(self, other: "Jacobian", diagonal: Diagonal) -> Float[Tensor, "B NK MK"]:
        """J D J'ᵀ of all points with all points of another Jacobian of the same tasks, in float64."""

    @abstractmethod
    def blocks(self, diagonal: Diagonal) -> Float[Tensor, "B N K K"]:
        """J D Jᵀ of each point with itself, in float64."""

    @abstractmethod
    def weighted(self, root: Float[Tensor, "B N K K"], mask: Bool[Tensor, "B N"]) -> "Jacobian":
        """Rᵀ J at real points, and zero at padding."""

    @abstractmethod
    def points(self, which: slice) -> "Jacobian":
        """J of some of the points.

        Args:
            which: their positions.
        """

    @property
    @abstractmethod
    def num_rows(self) -> int:
        """N K."""

    @abstractmethod
    def squares(self, diagonal: Diagonal) -> Params:
        """The diagonal of JᵀJ D by the names of phi, in float64: squares of entries, added up over rows."""

    @abstractmethod
    def times(self, vector: Float[Tensor, "B P"]) -> Float[Tensor, "B NK"]:
        """J v, in float64."""

    @abstractmethod
    def transposed_times(self, values: Float[Tensor, "B NK"]) -> Float[Tensor, "B P"]:
        """Jᵀ u, in float64."""

    @abstractmethod
    def dense(self) -> Float[Tensor, "B N K P"]:
        """All of it; P counts the numbers of phi in its order, each value flattened."""


@dataclass(frozen=True, eq=False)
class DenseJacobian(Jacobian):
    """A Jacobian that is written out.

    Attributes:
        rows: the derivatives, `B N K P`.
        shapes: of the values of phi, by name.

    Example:
        >>> slope = DenseJacobian(torch.tensor([[[[2.0]], [[3.0]]]]), {"a": torch.Size([1])})
        >>> slope.gram(slope, {"a": torch.tensor(10.0)}).tolist()
        [[[40.0, 60.0], [60.0, 90.0]]]
    """

    rows: Float[Tensor, "B N K P"]
    shapes: Mapping[str, torch.Size]

    def gram(self, other: Jacobian, diagonal: Diagonal) -> Float[Tensor, "B NK MK"]:
        """J D J'ᵀ as one product over all of phi."""
        right = other.dense().double()
        left = self.rows.double() * flat_diagonal(diagonal, self.shapes)[:, None, None]
        return left.flatten(1, 2) @ right.flatten(1, 2).mT

    def blocks(self, diagonal: Diagonal) -> Float[Tensor, "B N K K"]:
        """J D J'ᵀ as one product over all of phi."""
        rows = self.rows.double()
        return rows * flat_diagonal(diagonal, self.shapes)[:, None, None] @ rows.mT

    def weighted(self, root: Float[Tensor, "B N K K"], mask: Bool[Tensor, "B N"]) -> "DenseJacobian":
        """The rows multiplied by Rᵀ."""
        return replace(self, rows=torch.where(mask[..., None, None], root.mT @ self.rows, 0.0))

    def points(self, which: slice) -> "DenseJacobian":
        """Their rows."""
        return replace(self, rows=self.rows[:, which])

    @property
    def num_rows(self) -> int:
        """N K."""
        return self.rows.shape[1] * self.rows.shape[2]

    def squares(self, diagonal: Diagonal) -> Params:
        """The squares of all rows, added up."""
        flat = self.rows.double().flatten(1, 2).square().sum(1) * flat_diagonal(diagonal, self.shapes)
        parts = flat.split([shape.numel() for shape in self.shapes.values()], 1)
        return {n: part.reshape(-1, *shape) for (n, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def times(self, vector: Float[Tensor, "B P"]) -> Float[Tensor, "B NK"]:
        """J v as one product over all of phi."""
        return (self.rows.double().flatten(1, 2) @ vector.double()[..., None])[..., 0]

    def transposed_times(self, values: Float[Tensor, "B NK"]) -> Float[Tensor, "B P"]:
        """Jᵀ u as one product over all points."""
        return (values.double()[:, None] @ self.rows.double().flatten(1, 2))[:, 0]

    def dense(self) -> Float[Tensor, "B N K P"]:
        """The rows."""
        return self.rows


@dataclass(frozen=True, eq=False)
class Factor:
    """The part of a Jacobian that belongs to one parameter: δ aᵀ for a weight, δ alone for a bias.

    Attributes:
        delta: δ, `B N K O`.
        inputs: a, `B N I`; None for a bias.

    Example:
        >>> Factor(torch.tensor([[[[2.0]]]]), torch.tensor([[[3.0, 4.0]]])).dense()
        tensor([[[[6., 8.]]]])
    """

    delta: Float[Tensor, "B N K O"]
    inputs: Float[Tensor, "B N I"] | None = None

    @functools.cached_property
    def wide(self) -> "Factor":
        """The same in float64."""
        return Factor(self.delta.double(), None if self.inputs is None else self.inputs.double())

    def dense(self) -> Float[Tensor, "B N K Q"]:
        """The part written out, each row flattened."""
        if self.inputs is None:
            return self.delta
        return (self.delta[..., None] * self.inputs[:, :, None, None]).flatten(3)


@dataclass(frozen=True, eq=False)
class FactoredJacobian(Jacobian):
    """The Jacobian of dense layers.

    Attributes:
        factors: by the names of phi, in its order.

    Example:
        >>> bias = FactoredJacobian({"bias": Factor(torch.eye(2)[None, None])})  # of a point with two outputs
        >>> bias.blocks({"bias": torch.tensor(4.0)}).tolist()
        [[[[4.0, 0.0], [0.0, 4.0]]]]
    """

    factors: Mapping[str, Factor]

    def gram(self, other: Jacobian, diagonal: Diagonal) -> Float[Tensor, "B NK MK"]:
        """J D J'ᵀ as a sum over layers."""
        if not isinstance(other, FactoredJacobian):
            return other.gram(self, diagonal).mT
        total: Tensor | None = None
        for names in self._layers():
            # δ·δ', which weight and bias of a layer have in common, times the sum of what each of them has of its own
            common: Tensor | None = None
            for name in names:
                own, right, value = self.factors[name].wide, other.factors[name].wide, diagonal[name]
                scale = _common(own, value)
                if scale is None:
                    product = self._unequal(name, value, right)
                    total = product if total is None else total + product
                elif own.inputs is None:
                    common = scale if common is None else common + scale
                else:
                    inner = self._inner(own, right)
                    common = scale * inner if common is None else torch.addcmul(common, scale, inner)
            if common is not None:
                deltas = (each.factors[names[0]].wide.delta.flatten(1, 2) for each in (self, other))
                shared = next(deltas) @ next(deltas).mT
                total = common * shared if total is None else torch.addcmul(total, common, shared)
        assert total is not None
        return total

    def blocks(self, diagonal: Diagonal) -> Float[Tensor, "B N K K"]:
        """J D J'ᵀ as a sum over layers."""
        total: Tensor | float = 0.0
        for name, factor in self.factors.items():
            left = _times_diagonal(factor, diagonal[name])
            if left is None:
                product = _dense_times(factor, diagonal[name]) @ factor.dense().double().mT
            else:
                product = _of_points(left.delta, factor.wide.delta)
                if left.inputs is not None and factor.wide.inputs is not None:
                    product = product * (left.inputs * factor.wide.inputs).sum(-1)[..., None, None]
            total = total + product
        assert isinstance(total, Tensor)
        return total

    def weighted(self, root: Float[Tensor, "B N K K"], mask: Bool[Tensor, "B N"]) -> "FactoredJacobian":
        """The factors, with Rᵀ δ in place of δ."""
        root = torch.where(mask[..., None, None], root.mT, 0.0)
        return self._changed(lambda delta: root * delta if root.shape[-1] == 1 else root @ delta, lambda inputs: inputs)

    def points(self, which: slice) -> "FactoredJacobian":
        """Their factors."""
        return self._changed(lambda delta: delta[:, which], lambda inputs: inputs[:, which])

    def _changed(
        self, delta_of: Callable[[Tensor], Tensor], inputs_of: Callable[[Tensor], Tensor]
    ) -> "FactoredJacobian":
        """The same of other factors; weight and bias of a layer go on having one δ."""
        deltas = {id(factor.delta): factor.delta for factor in self.factors.values()}
        deltas = {key: delta_of(delta) for key, delta in deltas.items()}
        return FactoredJacobian(
            {
                name: Factor(deltas[id(each.delta)], None if each.inputs is None else inputs_of(each.inputs))
                for name, each in self.factors.items()
            }
        )

    def squares(self, diagonal: Diagonal) -> Params:
        """Σ_n δ² a²ᵀ, layer by layer."""
        deltas = {id(factor.delta): factor.wide.delta.square().sum(2) for factor in self.factors.values()}  # B N O
        found = {}
        for name, factor in self.factors.items():
            delta, inputs, value = deltas[id(factor.delta)], factor.wide.inputs, diagonal[name]
            total = delta.sum(1) if inputs is None else delta.mT @ inputs.square()
            found[name] = total * (value.dense() if isinstance(value, OuterProduct) else value).double()
        return found

    @property
    def num_rows(self) -> int:
        """N K."""
        return next(iter(self.factors.values())).delta.shape[1] * self._num_outputs

    def times(self, vector: Float[Tensor, "B P"]) -> Float[Tensor, "B NK"]:
        """J v as a sum over layers, (δ aᵀ)·V = δ·(V a)."""
        total: Tensor | float = 0.0
        parts = vector.double().split([_shape(factor).numel() for factor in self.factors.values()], 1)
        for factor, part in zip(self.factors.values(), parts, strict=True):
            if factor.inputs is None:
                image = part[:, None]
            else:
                image = factor.inputs.double() @ part.unflatten(1, _shape(factor)).mT  # B N O
            total = total + (factor.delta.double() * image[:, :, None]).sum(-1)
        assert isinstance(total, Tensor)
        return total.flatten(1)

    def transposed_times(self, values: Float[Tensor, "B NK"]) -> Float[Tensor, "B P"]:
        """Jᵀ u layer by layer, Σ_n u_n δ_n a_nᵀ."""
        parts = []
        for factor in self.factors.values():
            weight = values.double().unflatten(1, factor.delta.shape[1:3])
            back = (weight[..., None] * factor.delta.double()).sum(2)  # B N O
            parts.append(back.sum(1) if factor.inputs is None else (back.mT @ factor.inputs.double()).flatten(1))
        return torch.cat(parts, 1)

    def dense(self) -> Float[Tensor, "B N K P"]:
        """All parts written out, side by side."""
        return torch.cat([factor.dense() for factor in self.factors.values()], -1)

    def _layers(self) -> list[list[str]]:
        """Names by the δ that they share, biases first."""
        found: dict[int, list[str]] = {}
        for name in sorted(self.factors, key=lambda name: self.factors[name].inputs is not None):
            found.setdefault(id(self.factors[name].delta), []).append(name)
        return list(found.values())

    def _inner(self, left: Factor, right: Factor) -> Tensor:
        """a·a' of all pairs of rows."""
        assert left.inputs is not None
        assert right.inputs is not None
        inner = left.inputs @ right.inputs.mT
        counts = left.delta.shape[2], right.delta.shape[2]
        if max(counts) > 1:
            inner = inner.repeat_interleave(counts[0], 1).repeat_interleave(counts[1], 2)
        return inner

    def _unequal(self, name: str, value: Tensor | OuterProduct, right: Factor) -> Float[Tensor, "B NK MK"]:
        """The part of a parameter whose numbers differ in D."""
        factor = self.factors[name]
        left = _times_diagonal(factor, value)
        if left is not None:
            product = left.delta.flatten(1, 2) @ right.delta.flatten(1, 2).mT
            return product if left.inputs is None else product * self._inner(left, right)
        own, (rows, columns) = factor.wide, (factor.delta.shape[1:3].numel(), right.delta.shape[1:3].numel())
        assert own.inputs is not None
        assert right.inputs is not None
        size, width = own.delta.shape[-1], own.inputs.shape[-1]
        if rows * columns * (size + width) >= (rows + columns) * size * width:
            return _dense_times(factor, value).flatten(1, 2) @ right.dense().flatten(1, 2).mT
        # Σ_oi δ_o δ'_o d_oi a_i a'_i: with few points pairs of rows are fewer numbers than rows times weights
        scale = value.dense() if isinstance(value, OuterProduct) else value
        a = own.inputs.repeat_interleave(own.delta.shape[2], 1)
        b = right.inputs.repeat_interleave(right.delta.shape[2], 1)
        inner = (a[:, :, None] * b[:, None]).flatten(1, 2) @ scale.double().mT  # B NKMK O
        pairs = own.delta.flatten(1, 2)[:, :, None] * right.delta.flatten(1, 2)[:, None]
        return (pairs.flatten(1, 2) * inner).sum(-1).unflatten(1, (rows, columns))

    @property
    def _num_outputs(self) -> int:
        return next(iter(self.factors.values())).delta.shape[2]


def _of_points(left: Float[Tensor, "B N K O"], right: Float[Tensor, "B N K O"]) -> Float[Tensor, "B N K K"]:
    """δ·δ' of the outputs of each point."""
    if left.shape[2] == 1:  # a matrix product a point is slower
        return (left * right).sum(-1, keepdim=True)
    return left @ right.mT


def _common(factor: Factor, value: Tensor | OuterProduct) -> Tensor | None:
    """D where it is one number for all of a parameter: `()` or `B 1 1`, in float64; else None."""
    if isinstance(value, OuterProduct):
        return None
    dims = 1 if factor.inputs is None else 2
    if value.ndim <= dims:  # no axis of tasks
        return value.double().reshape(()) if value.numel() == 1 else None
    return value.double().reshape(-1, 1, 1) if value.shape[1:].numel() == 1 else None


def _times_diagonal(factor: Factor, value: Tensor | OuterProduct) -> Factor | None:
    """δ aᵀ with each entry multiplied by D's, in float64; None where D has no factors."""
    wide = factor.wide
    if isinstance(value, OuterProduct):
        assert wide.inputs is not None  # an outer product is of a weight
        return Factor(wide.delta * value.rows.double(), wide.inputs * value.columns.double())
    common = _common(factor, value)
    if common is not None:
        return Factor(wide.delta * (common[..., None] if common.ndim else common), wide.inputs)
    if wide.inputs is None:  # a bias of its own number each
        value = value.double()
        return Factor(wide.delta * (value if value.ndim == 1 else value[:, None, None]))
    return None


def _dense_times(factor: Factor, value: Tensor | OuterProduct) -> Float[Tensor, "B N K Q"]:
    scale = flat_diagonal({"": value}, {"": _shape(factor)})[:, None, None]
    return factor.dense().double() * scale


def _shape(factor: Factor) -> torch.Size:
    outputs = factor.delta.shape[-1:]
    return outputs if factor.inputs is None else torch.Size((*outputs, factor.inputs.shape[-1]))


def flat_diagonal(diagonal: Diagonal, shapes: Mapping[str, torch.Size]) -> Float[Tensor, "#B P"]:
    """D as one vector a task, in float64."""
    parts = []
    for name, value in written_out({name: diagonal[name] for name in shapes}).items():
        shape, value = shapes[name], value.double()
        tasks = value.shape[: value.ndim - len(shape)] or (1,)
        parts.append(value.expand(*tasks, *shape).reshape(*tasks, -1))
    widest = max(len(part) for part in parts)
    return torch.cat([part.expand(widest, -1) for part in parts], 1)


def jacobian(
    function: Callable[[Params, Tensor], Tensor],
    phi: Params,
    x: Float[Tensor, "B N *x"],
    *,
    theta: Iterable[Tensor] = (),
    pointwise: bool = True,
) -> DenseJacobian:
    """d function(phi, x) / d phi of each task, by automatic differentiation.

    A function that works point by point is differentiated at all points at once, each with a copy of its task's phi;
    any other one output at a time. The result is differentiable in whatever of phi, x and theta requires a gradient.

    Args:
        function: (phi, x) -> `B N K`.
        phi: each value `B *shape`.
        x: inputs.
        theta: what else the function depends on.
        pointwise: whether the output at a point depends on that point alone.
    """
    shapes = {name: value.shape[1:] for name, value in phi.items()}
    if x.shape[1] == 0:
        out = function(phi, x)
        return DenseJacobian(out.new_zeros(*out.shape, sum(shape.numel() for shape in shapes.values())), shapes)
    keep = torch.is_grad_enabled() and any(v.requires_grad for v in (x, *phi.values(), *theta))
    with torch.enable_grad():
        if pointwise:
            leaves = {name: _leaf(value.repeat_interleave(x.shape[1], 0), keep) for name, value in phi.items()}
            out = function(leaves, x.flatten(0, 1)[:, None])[:, 0]  # BN K
            rows = torch.stack([_gradient(column, leaves, keep) for column in out.unbind(-1)], 1)
            return DenseJacobian(rows.unflatten(0, x.shape[:2]), shapes)
        leaves = {name: _leaf(value, keep) for name, value in phi.items()}
        out = function(leaves, x)
        rows = torch.stack([_gradient(entry, leaves, keep) for entry in out.flatten(1).unbind(-1)], 1)
        return DenseJacobian(rows.unflatten(1, out.shape[1:]), shapes)


def _leaf(value: Tensor, keep: bool) -> Tensor:
    return value if keep and value.requires_grad else value.detach().requires_grad_()


def _gradient(out: Tensor, leaves: Params, keep: bool) -> Tensor:
    """d out / d leaves, flat: the outputs of different tasks depend on different rows of the leaves."""
    gradients = torch.autograd.grad(
        out.sum(), list(leaves.values()), retain_graph=True, create_graph=keep, materialize_grads=True
    )
    return torch.cat([flattened(gradient) for gradient in gradients], 1)
