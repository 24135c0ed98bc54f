"""Multilayer perceptron."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.errors import DataError
from bayesmeta.networks.dense_layers import DenseLayer, activation_of, affine
from bayesmeta.networks.dense_network import Back, DenseNetwork, delta_times
from bayesmeta.networks.jacobian import Factor
from bayesmeta.typing import Params

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU}
EPSILON = 1e-5  # added to the variance of a layer's numbers


class MLP(DenseNetwork):
    """Dense layers, each followed by an activation; the last hidden layer is the output.

        h_1 = a(W_1 x + b_1),   h_l = a(W_l n(h_l-1) + b_l) + h_l-1

    where n normalises the numbers of a point to mean 0 and variance 1 (with `norm="layer"`, else it does nothing), and
    h_l-1 is added with `skip=True`. n has no gain and no offset of its own: W_l and b_l have them.

    Args:
        num_inputs: D.
        hidden: widths of the hidden layers.
        activation: one of tanh, relu, silu, gelu.
        norm: "layer" for layer normalisation before every hidden layer but the first (Xiong et al. 2020,
            arXiv:2002.04745, "pre-LN"); None for none.
        skip: whether every hidden layer but the first adds to what comes in (He et al. 2016); all layers have one width
            then.

    Raises:
        DataError: an unknown activation or norm, widths that are not positive, or skips between unequal widths.

    Example:
        >>> network = MLP(2, [16, 8], activation="relu")
        >>> network(torch.zeros(3, 5, 2)).shape
        torch.Size([3, 5, 8])
        >>> network.x_shape, network.num_outputs
        ((2,), 8)
        >>> deep = MLP(2, [16] * 6, norm="layer", skip=True)
    """

    def __init__(
        self,
        num_inputs: int,
        hidden: Sequence[int],
        activation: str = "tanh",
        norm: str | None = None,
        skip: bool = False,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise DataError(f"expected an activation among {sorted(ACTIVATIONS)}, got {activation!r}")
        if norm not in (None, "layer"):
            raise DataError(f"expected a norm among ['layer'] or None, got {norm!r}")
        hidden = tuple(int(size) for size in hidden)
        if not hidden or min(hidden) < 1 or num_inputs < 1:
            raise DataError(f"expected positive widths, got {num_inputs} inputs and hidden layers {list(hidden)}")
        if skip and len(set(hidden)) > 1:
            raise DataError(f"expected hidden layers of one width for skips, got {list(hidden)}")
        layers: list[nn.Module] = []
        width = num_inputs
        for size in hidden:
            layers += [nn.Linear(width, size), ACTIVATIONS[activation]()]
            width = size
        self.layers = nn.Sequential(*layers)
        self.x_shape, self.num_outputs = (num_inputs,), width
        self.hidden, self.activation, self.norm, self.skip = hidden, activation, norm, skip

    def with_context(self, size: int) -> "MLP":
        """An MLP with D + `size` inputs, and everything else as it is here."""
        like = next(self.parameters())
        return MLP(self.x_shape[0] + size, self.hidden, self.activation, self.norm, self.skip).to(like)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N F"]:
        """The last layer at every point."""
        if self.norm is None and not self.skip:
            out: Tensor = self.layers(x)
            return out
        return self.stacked({}, x)

    def stacked(self, phi: Params, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N F"]:
        """The last layer at every point, each task with weights of its own: one batched product a layer."""
        for index, (weight, bias, activation) in enumerate(self._steps(phi, x.shape[0])):
            seen = _normalised(x)[0] if index and self.norm else x
            out = activation(affine(bias, seen, weight))
            x = x + out if index and self.skip else out
        return x

    def pullback(self, phi: Params, x: Float[Tensor, "B N D"]) -> tuple[Float[Tensor, "B N F"], Back]:
        """The last layer at every point, and the way back.

        With z_l = W_l u_l + b_l and δ_l = ∂f/∂z_l, the derivative is δ_l u_lᵀ in W_l and δ_l in b_l.
        """
        inputs, scales, slopes, weights = [], [], [], []
        for index, (weight, bias, activation) in enumerate(self._steps(phi, x.shape[0])):
            seen, scale = _normalised(x) if index and self.norm else (x, None)
            out, slope = _with_slope(activation, affine(bias, seen, weight))
            inputs.append(seen)
            scales.append(scale)
            slopes.append(slope[:, :, None])
            weights.append(weight)
            x = x + out if index and self.skip else out

        # axes in this annotation, `B N K O`, would be parsed at every call of the method
        def back(delta: Tensor) -> dict[str, Factor]:
            factors: dict[str, Factor] = {}
            for index in reversed(range(len(inputs))):
                inner = delta * slopes[index]
                name = f"layers.{2 * index}"
                factors[f"{name}.weight"], factors[f"{name}.bias"] = Factor(inner, inputs[index]), Factor(inner)
                if index:
                    beneath = delta_times(inner, weights[index])
                    scale = scales[index]
                    beneath = beneath if scale is None else _through_norm(beneath, inputs[index], scale)
                    delta = beneath + delta if self.skip else beneath
            return factors

        return x, back

    @override
    def dense_layers(self) -> list[DenseLayer] | None:
        if self.norm is not None or self.skip:
            return None
        activations = [activation_of(self.layers[index + 1]) for index in range(0, len(self.layers), 2)]
        if None in activations:
            return None
        return [DenseLayer(f"layers.{2 * i}.weight", f"layers.{2 * i}.bias", a) for i, a in enumerate(activations)]

    def _steps(self, phi: Params, size: int) -> Iterator[tuple[Tensor, Tensor, nn.Module]]:
        """Weights and bias of each dense layer, `B O I` and `B O`, and its activation."""
        layers = list(self.layers)
        for index in range(0, len(layers), 2):
            layer, activation = layers[index], layers[index + 1]
            assert isinstance(layer, nn.Linear)
            weight, bias = phi.get(f"layers.{index}.weight"), phi.get(f"layers.{index}.bias")
            yield (
                layer.weight.expand(size, -1, -1) if weight is None else weight,
                layer.bias.expand(size, -1) if bias is None else bias,
                activation,
            )


def _normalised(x: Float[Tensor, "B N F"]) -> tuple[Float[Tensor, "B N F"], Float[Tensor, "B N 1"]]:
    """n(x) = (x - mean) r over the numbers of each point, and r = 1 / sqrt(variance + ε)."""
    centred = x - x.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + EPSILON).rsqrt()
    return centred * scale, scale


def _through_norm(
    delta: Float[Tensor, "B N K F"], n: Float[Tensor, "B N F"], scale: Float[Tensor, "B N 1"]
) -> Float[Tensor, "B N K F"]:
    """What comes back through n(x): r (δ - mean(δ) - n mean(δ n)).

    With ε the factor of the last term is exact, too: ∂r/∂x = -r³ (x - mean) / F, and n = r (x - mean).
    """
    n = n[:, :, None]
    return scale[:, :, None] * (delta - delta.mean(-1, keepdim=True) - n * (delta * n).mean(-1, keepdim=True))


def _with_slope(activation: nn.Module, z: Tensor) -> tuple[Tensor, Tensor]:
    """The activation and its derivative, elementwise."""
    keep = torch.is_grad_enabled() and z.requires_grad
    known = activation_of(activation)
    if known is not None:
        out = known.value(z)
        with torch.set_grad_enabled(keep and known.bend is not None):
            return out, known.slope(z, out)
    with torch.enable_grad():
        leaf = z if keep else z.detach().requires_grad_()
        a: Tensor = activation(leaf)
        (slope,) = torch.autograd.grad(a.sum(), leaf, create_graph=keep)
    return (a if keep else a.detach()), slope
