"""Networks of dense layers, whose Jacobians have factors: one outer product a layer and point."""

from abc import abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from bayesmeta.networks.dense_layers import affine
from bayesmeta.networks.jacobian import Factor, FactoredJacobian, Jacobian
from bayesmeta.networks.network import PREFIX, DenseOutput, Network
from bayesmeta.overriding import speaks_for
from bayesmeta.typing import Params

Back = Callable[[Float[Tensor, "B N K F"]], dict[str, Factor]]
"""From the derivative of K numbers in the outputs of a network to their derivatives in its parameters, by name."""


class DenseNetwork(Network):
    """A network of dense layers: it says how derivatives come back through it. A subclass gives `pullback`.

    Example:
        >>> import bayesmeta as bm
        >>> network = bm.MLP(1, [40, 40]).with_outputs(1)
        >>> phi = {name: value.expand(3, *value.shape) for name, value in network.named_parameters()}
        >>> rows = network.jacobian(phi, torch.zeros(3, 5, 1))
        >>> type(rows).__name__, rows.dense().shape
        ('FactoredJacobian', torch.Size([3, 5, 1, 1761]))
    """

    @abstractmethod
    def pullback(self, phi: Params, x: Float[Tensor, "B N *x"]) -> tuple[Float[Tensor, "B N F"], Back]:
        """The output at every point, as `stacked` gives it, and the way back through the network.

        Args:
            phi: as for `stacked`.
            x: inputs.

        Returns:
            The output, and a function of δ, the derivative of K numbers in the output of their point, which gives the
            factors of these numbers' Jacobian in every parameter of the network.
        """

    def jacobian(self, phi: Params, x: Float[Tensor, "B N *x"]) -> FactoredJacobian:
        """The derivative of every output in the P numbers of phi, by the chain rule written out (backpropagation)."""
        return self._pulled(phi, x)[1]

    @override
    def linearized(self, phi: Params, x: Float[Tensor, "B N *x"]) -> tuple[Float[Tensor, "B N F"], Jacobian]:
        if not speaks_for(type(self), "pullback", "stacked", "jacobian"):
            return super().linearized(phi, x)
        return self._pulled(phi, x)  # in one pass

    def _pulled(self, phi: Params, x: Tensor) -> tuple[Tensor, FactoredJacobian]:
        out, back = self.pullback(phi, x)
        eye = torch.eye(out.shape[-1], dtype=out.dtype, device=out.device)
        factors = back(eye.expand(*out.shape[:2], -1, -1))
        return out, FactoredJacobian({name: factors[name] for name in phi})

    def with_outputs(self, num_outputs: int) -> Network:
        """This network followed by a dense layer named `output`: a network of dense layers, too."""
        return DenseNetworkOutput(self, num_outputs)


class DenseNetworkOutput(DenseOutput, DenseNetwork):
    """A network of dense layers followed by one more.

    Args:
        features: gives F features of a point.
        num_outputs: K.
    """

    features: DenseNetwork

    def __init__(self, features: DenseNetwork, num_outputs: int) -> None:
        super().__init__(features, num_outputs)

    def pullback(self, phi: Params, x: Float[Tensor, "B N *x"]) -> tuple[Float[Tensor, "B N K"], Back]:
        """Through the output layer, then through the features."""
        own, weight, bias = self.parts(phi, x.shape[0])
        features, features_back = self.features.pullback(own, x)

        # axes in this annotation, `B N K O`, would be parsed at every call of the method
        def back(delta: Tensor) -> dict[str, Factor]:
            beneath = features_back(delta_times(delta, weight))
            factors = {PREFIX + name: factor for name, factor in beneath.items()}
            return factors | {"output.weight": Factor(delta, features), "output.bias": Factor(delta)}

        return affine(bias, features, weight), back


def delta_times(delta: Float[Tensor, "B N K O"], weight: Float[Tensor, "B O I"]) -> Float[Tensor, "B N K I"]:
    """δ W of each task: what comes back through a dense layer."""
    return (delta.flatten(1, 2) @ weight).unflatten(1, delta.shape[1:3])
