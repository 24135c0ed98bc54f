"""A network as a list of dense layers, whose derivatives of first and second order can be written out."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Activation(NamedTuple):
    """a(z) elementwise, with its derivatives.

    Attributes:
        value: z -> a.
        slope: z, a -> a'.
        bend: z, a, a' -> a''; None where it is zero almost everywhere.

    Example:
        >>> z = torch.tensor([-1.0, 2.0])
        >>> relu = activation_of(nn.ReLU())
        >>> relu.slope(z, relu.value(z)).tolist()
        [0.0, 1.0]
    """

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor, Tensor], Tensor]
    bend: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None


class DenseLayer(NamedTuple):
    """a(W u + b), by the names that the network has for W and b.

    Attributes:
        weight: the name of W, `O I`.
        bias: the name of b, `O`.
        activation: a; None for none.

    Example:
        >>> import bayesmeta as bm
        >>> [layer.weight for layer in bm.MLP(1, [8, 8]).with_outputs(1).dense_layers()]
        ['features.layers.0.weight', 'features.layers.2.weight', 'output.weight']
    """

    weight: str
    bias: str
    activation: Activation | None


def activation_of(module: nn.Module) -> Activation | None:
    """What an activation's module computes; None for one that is not known.

    Args:
        module: any.

    Example:
        >>> activation_of(nn.Softplus()) is None
        True
    """
    if isinstance(module, nn.GELU) and module.approximate != "none":
        return None
    return KNOWN.get(type(module))


def affine(
    bias: Float[Tensor, "B O"], inputs: Float[Tensor, "B N I"], weight: Float[Tensor, "B O I"]
) -> Float[Tensor, "B N O"]:
    """W u + b of each task.

    Args:
        bias: b.
        inputs: u.
        weight: W.

    Example:
        >>> affine(torch.zeros(1, 2), torch.ones(1, 1, 3), torch.ones(1, 2, 3)).tolist()
        [[[3.0, 3.0]]]
    """
    if inputs.shape[-1] == 1:  # a matrix product of one column is slower than an elementwise one
        return torch.addcmul(bias[:, None], inputs, weight.mT)
    return torch.baddbmm(bias[:, None], inputs, weight.mT)


def renamed(layers: Sequence[DenseLayer], prefix: str) -> list[DenseLayer]:
    """The same layers in a network that has them under a prefix.

    Args:
        layers: of a network.
        prefix: of the names of its parameters.

    Example:
        >>> renamed([DenseLayer("weight", "bias", None)], "output.")[0].weight
        'output.weight'
    """
    return [DenseLayer(prefix + weight, prefix + bias, activation) for weight, bias, activation in layers]


def _sign(z: Tensor, a: Tensor) -> Tensor:
    return a.sign()  # a is not negative; 0 at z = 0, as torch has it


def _slope_of_tanh(z: Tensor, a: Tensor) -> Tensor:
    return 1.0 - a * a


def _bend_of_tanh(z: Tensor, a: Tensor, slope: Tensor) -> Tensor:
    return -2.0 * a * slope


def _slope_of_silu(z: Tensor, a: Tensor) -> Tensor:
    share = z.sigmoid()
    return share + a * (1.0 - share)  # a = z s


def _bend_of_silu(z: Tensor, a: Tensor, slope: Tensor) -> Tensor:
    share = z.sigmoid()
    return share * (1.0 - share) * (2.0 + z * (1.0 - 2.0 * share))


def _density(z: Tensor) -> Tensor:
    return (-0.5 * z * z).exp() * (1.0 / math.sqrt(2.0 * math.pi))


def _slope_of_gelu(z: Tensor, a: Tensor) -> Tensor:
    return 0.5 * (1.0 + (z * math.sqrt(0.5)).erf()) + z * _density(z)


def _bend_of_gelu(z: Tensor, a: Tensor, slope: Tensor) -> Tensor:
    return (2.0 - z * z) * _density(z)


KNOWN: dict[type[nn.Module], Activation] = {
    nn.ReLU: Activation(torch.relu, _sign),
    nn.Tanh: Activation(torch.tanh, _slope_of_tanh, _bend_of_tanh),
    nn.SiLU: Activation(nn.functional.silu, _slope_of_silu, _bend_of_silu),
    nn.GELU: Activation(nn.functional.gelu, _slope_of_gelu, _bend_of_gelu),
}
