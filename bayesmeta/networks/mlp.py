"""Multilayer perceptron."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesmeta.errors import DataError
from bayesmeta.networks.dense_network import Back, DenseNetwork, delta_times
from bayesmeta.networks.jacobian import Factor
from bayesmeta.typing import Params

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU}


class MLP(DenseNetwork):
    """Dense layers, each followed by an activation; the last hidden layer is the output.

    Args:
        num_inputs: D.
        hidden: widths of the hidden layers.
        activation: one of tanh, relu, silu, gelu.

    Raises:
        DataError: an unknown activation, or widths that are not positive.

    Example:
        >>> network = MLP(2, [16, 8], activation="relu")
        >>> network(torch.zeros(3, 5, 2)).shape
        torch.Size([3, 5, 8])
        >>> network.x_shape, network.num_outputs
        ((2,), 8)
    """

    def __init__(self, num_inputs: int, hidden: Sequence[int], activation: str = "tanh") -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise DataError(f"expected an activation among {sorted(ACTIVATIONS)}, got {activation!r}")
        hidden = tuple(int(size) for size in hidden)
        if not hidden or min(hidden) < 1 or num_inputs < 1:
            raise DataError(f"expected positive widths, got {num_inputs} inputs and hidden layers {list(hidden)}")
        layers: list[nn.Module] = []
        width = num_inputs
        for size in hidden:
            layers += [nn.Linear(width, size), ACTIVATIONS[activation]()]
            width = size
        self.layers = nn.Sequential(*layers)
        self.x_shape, self.num_outputs = (num_inputs,), width
        self.hidden, self.activation = hidden, activation

    def with_context(self, size: int) -> "MLP":
        """An MLP with D + `size` inputs, and hidden layers and activation as they are here."""
        like = next(self.parameters())
        return MLP(self.x_shape[0] + size, self.hidden, self.activation).to(like)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N F"]:
        """The last layer at every point."""
        out: Tensor = self.layers(x)
        return out

    def stacked(self, phi: Params, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N F"]:
        """The last layer at every point, each task with weights of its own: one batched product a layer."""
        for step in self._steps(phi, len(x)):
            x = torch.baddbmm(step[1][:, None], x, step[0].mT) if isinstance(step, tuple) else step(x)
        return x

    def pullback(self, phi: Params, x: Float[Tensor, "B N D"]) -> tuple[Float[Tensor, "B N F"], Back]:
        """The last layer at every point, and the way back.

        With z_l = W_l a_l-1 + b_l and δ_l = ∂f/∂z_l, the derivative is δ_l a_l-1ᵀ in W_l and δ_l in b_l.
        """
        inputs, slopes, weights = [], [], []
        for step in self._steps(phi, len(x)):
            if isinstance(step, tuple):
                inputs.append(x)
                weights.append(step[0])
                x = torch.baddbmm(step[1][:, None], x, step[0].mT)
            else:
                x, slope = _with_slope(step, x)
                slopes.append(slope[:, :, None])

        # axes in this annotation, `B N K O`, would be parsed at every call of the method
        def back(delta: Tensor) -> dict[str, Factor]:
            factors: dict[str, Factor] = {}
            for index in reversed(range(len(inputs))):
                delta = delta * slopes[index]
                name = f"layers.{2 * index}"
                factors[f"{name}.weight"], factors[f"{name}.bias"] = Factor(delta, inputs[index]), Factor(delta)
                if index:
                    delta = delta_times(delta, weights[index])
            return factors

        return x, back

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
