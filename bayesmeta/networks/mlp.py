"""Multilayer perceptron."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesmeta.errors import DataError
from bayesmeta.networks.jacobian import Factor, FactoredJacobian
from bayesmeta.networks.network import Network
from bayesmeta.typing import Params

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU}


class MLP(Network):
    """Dense layers; without `num_outputs` the last hidden layer is the output, which is what a feature network gives.

    Args:
        num_inputs: D.
        hidden: widths of the hidden layers.
        num_outputs: size of a linear output layer; None for none.
        activation: one of tanh, relu, silu, gelu.

    Raises:
        DataError: an unknown activation, or widths that are not positive.
    """

    def __init__(
        self, num_inputs: int, hidden: Sequence[int], num_outputs: int | None = None, activation: str = "tanh"
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise DataError(f"expected an activation among {sorted(ACTIVATIONS)}, got {activation!r}")
        hidden = list(hidden)  # a numpy array has no truth value
        if not hidden or min(hidden) < 1 or num_inputs < 1:
            raise DataError(f"expected positive widths, got {num_inputs} inputs and hidden layers {list(hidden)}")
        layers: list[nn.Module] = []
        width = num_inputs
        for size in hidden:
            layers += [nn.Linear(width, size), ACTIVATIONS[activation]()]
            width = size
        if num_outputs is not None:
            layers.append(nn.Linear(width, num_outputs))
        self.layers = nn.Sequential(*layers)
        self.x_shape = (num_inputs,)
        self.num_outputs = width if num_outputs is None else num_outputs

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N F"]:
        """The last layer at every point."""
        out: Tensor = self.layers(x)
        return out

    def stacked(self, phi: Params, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N F"]:
        """The last layer at every point, each task with weights of its own: one batched product a layer."""
        for step in self._steps(phi, len(x)):
            x = torch.baddbmm(step[1][:, None], x, step[0].mT) if isinstance(step, tuple) else step(x)
        return x

    def jacobian(self, phi: Params, x: Float[Tensor, "B N D"]) -> FactoredJacobian:
        """The derivative of every output in the P numbers of phi, by the chain rule written out (backpropagation).

        With z_l = W_l a_l-1 + b_l and δ_l = ∂f/∂z_l, it is δ_l a_l-1ᵀ in W_l and δ_l in b_l.
        """
        inputs, slopes, weights = [], [], []
        for step in self._steps(phi, len(x)):
            if isinstance(step, tuple):
                inputs.append(x)
                weights.append(step[0])
                x = torch.baddbmm(step[1][:, None], x, step[0].mT)
            else:
                x, slope = _with_slope(step, x)
                slopes.append(slope)
        eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
        delta = eye.expand(*x.shape[:2], -1, -1)  # B N F O, the derivative in z of the last layer
        if len(slopes) == len(inputs):
            delta = delta * slopes[-1][..., None, :]
        factors: dict[str, Factor] = {}
        for index in reversed(range(len(inputs))):
            name = f"layers.{2 * index}"
            factors[f"{name}.weight"], factors[f"{name}.bias"] = Factor(delta, inputs[index]), Factor(delta)
            if index:
                back = delta.flatten(1, 2) @ weights[index]  # δ_l W_l
                delta = back.unflatten(1, delta.shape[1:3]) * slopes[index - 1][:, :, None]
        return FactoredJacobian({name: factors[name] for name in phi})

    def _steps(self, phi: Params, size: int) -> Iterator[tuple[Tensor, Tensor] | nn.Module]:
        """Weights and bias of each dense layer, `B O I` and `B O`; activations as they are."""
        for index, layer in enumerate(self.layers):
            if isinstance(layer, nn.Linear):
                weight, bias = phi.get(f"layers.{index}.weight"), phi.get(f"layers.{index}.bias")
                yield (
                    layer.weight.expand(size, -1, -1) if weight is None else weight,
                    layer.bias.expand(size, -1) if bias is None else bias,
                )
            else:
                yield layer


def _with_slope(activation: nn.Module, z: Tensor) -> tuple[Tensor, Tensor]:
    """The activation and its derivative, elementwise."""
    keep = torch.is_grad_enabled() and z.requires_grad
    with torch.enable_grad():
        leaf = z if keep else z.detach().requires_grad_()
        a: Tensor = activation(leaf)
        (slope,) = torch.autograd.grad(a.sum(), leaf, create_graph=keep)
    return (a if keep else a.detach()), slope
