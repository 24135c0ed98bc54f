"""Multilayer perceptron."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from bayesmeta.errors import DataError
from bayesmeta.networks.network import Network

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
