"""Features that are computed in bfloat16, for everything behind them in the precision that it always has.

The products of a network are most of its time, and on accelerators bfloat16 makes them 2 to 16 times as fast as
float32. What a learner does with the features (Gram matrices, Cholesky factors, solves) stays in float32 and float64:
an error of 2⁻⁸ in a feature is an error of the network, and in a Gram matrix it is no positive definite matrix.
"""

import contextlib
from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from bayesmeta.errors import UnsupportedError
from bayesmeta.networks.dense_network import DenseNetwork, delta_times
from bayesmeta.networks.jacobian import DenseJacobian, Factor, FactoredJacobian, Jacobian, jacobian
from bayesmeta.networks.network import PREFIX, DenseOutput, Network, beneath
from bayesmeta.networks.requirements import require_network
from bayesmeta.networks.terms import Quantities, Terms
from bayesmeta.typing import Params


class LowPrecision(Network):
    """Features whose matrix products and convolutions are computed in bfloat16: in the place of `features`.

    The forward pass runs under `torch.autocast`, and so does the way back through it. Weights, their gradients and
    optimizer, the steps of an inner loop, and the features that come out stay in float32; norms and softmax are
    computed in float32 inside. Nothing else changes its precision: not the output layer that a learner adds, nor
    Jacobians, which are those of the network without rounding, nor linear algebra. Autocast that is on around a call of
    the library still changes nothing.

    A learner in float64 stays in float64, as autocast leaves that alone, and a device without autocast computes as it
    always does. Weights that are solved for (`IMAML`, `LLAMA`) cannot be in it: they are refused when adapting, but for
    `adapted=["output"]`. There is no such network for float16, whose gradients vanish unless losses are scaled. TF32
    needs no network of its own: `torch.set_float32_matmul_precision("high")` lets CUDA take it for all products of
    float32.

    Args:
        features: a network.

    Example:
        >>> import bayesmeta as bm
        >>> network = bm.MLP(2, [64, 64])
        >>> low = bm.networks.LowPrecision(network)
        >>> x = torch.randn(3, 5, 2)
        >>> low(x).dtype
        torch.float32
        >>> bool((low(x) - network(x)).abs().max() < 0.02), torch.equal(low(x), network(x))
        (True, False)
        >>> learner = bm.ALPaCA(low)
    """

    def __init__(self, features: Network) -> None:
        super().__init__()
        require_network(features)
        self.features = features
        self.x_shape, self.num_outputs = features.x_shape, features.num_outputs
        self.pointwise, self.varying = features.pointwise, features.varying

    @override
    def forward(self, x: Float[Tensor, "B N *x"]) -> Float[Tensor, "B N F"]:
        with _low(x):
            out: Tensor = self.features(x)
        return out.to(x.dtype)

    @override
    def stacked(self, phi: Params, x: Float[Tensor, "B N *x"]) -> Float[Tensor, "B N F"]:
        with _low(x):
            out = self.features.stacked(beneath(phi), x)
        return out.to(x.dtype)

    @override
    def jacobian(self, phi: Params, x: Float[Tensor, "B N *x"]) -> Jacobian:
        own = self.features.jacobian(beneath(phi), x)
        if isinstance(own, FactoredJacobian):
            return FactoredJacobian({PREFIX + name: factor for name, factor in own.factors.items()})
        dense = own.dense()
        return DenseJacobian(dense, {name: value.shape[1:] for name, value in phi.items()})

    @override
    def with_outputs(self, num_outputs: int) -> "LowPrecisionOutput":
        return LowPrecisionOutput(self, num_outputs)

    @override
    def with_context(self, size: int) -> "LowPrecision":
        return LowPrecision(self.features.with_context(size))

    @override
    def terms(self, inputs: Quantities) -> Terms | None:
        return self.features.terms(inputs)


class LowPrecisionOutput(DenseOutput):
    """Features in bfloat16, and a dense layer that is not: `LowPrecision(features).with_outputs(K)` makes it.

    Args:
        features: in bfloat16.
        num_outputs: K.

    Raises:
        DataError: no outputs.

    Example:
        >>> import bayesmeta as bm
        >>> network = bm.networks.LowPrecision(bm.MLP(1, [8])).with_outputs(2)
        >>> [name for name, _ in network.named_parameters()][-2:]
        ['output.weight', 'output.bias']
    """

    features: LowPrecision

    def __init__(self, features: LowPrecision, num_outputs: int) -> None:
        super().__init__(features, num_outputs)

    @override
    def jacobian(self, phi: Params, x: Float[Tensor, "B N *x"]) -> Jacobian:
        inner = self.features.features
        if not isinstance(inner, DenseNetwork):
            return jacobian(self._unrounded, phi, x, theta=self.parameters(), pointwise=self.pointwise)
        own, weight, _ = self.parts(phi, len(x))
        rows, back = inner.pullback(beneath(own), x)
        delta = torch.eye(self.num_outputs, dtype=rows.dtype, device=rows.device).expand(*rows.shape[:2], -1, -1)
        factors = {2 * PREFIX + name: factor for name, factor in back(delta_times(delta, weight)).items()}
        factors |= {"output.weight": Factor(delta, rows), "output.bias": Factor(delta)}
        return FactoredJacobian({name: factors[name] for name in phi})

    def _unrounded(self, phi: Params, x: Float[Tensor, "B N *x"]) -> Float[Tensor, "B N K"]:
        return self.of_features(phi, self.features.features.stacked(beneath(beneath(phi)), x))


def require_unrounded(network: Network, names: Iterable[str]) -> None:
    """Refuse weights that are to be solved for, in features that are rounded: no solver arrives on a staircase.

    Args:
        network: the network.
        names: of the parameters that are solved for.

    Raises:
        UnsupportedError: one is a parameter of a `LowPrecision`.
    """
    rounded = [f"{path}." if path else "" for path, part in network.named_modules() if isinstance(part, LowPrecision)]
    for name in names:
        if any(name.startswith(start) for start in rounded):
            raise UnsupportedError(
                f"expected weights whose optimum can be found, got {name!r} of features in bfloat16, in which the log "
                "joint goes in steps: adapt the output layer alone (adapted=['output']), or leave LowPrecision out"
            )


@contextlib.contextmanager
def _low(x: Tensor) -> Iterator[None]:
    """Autocast to bfloat16 where the device of x has it."""
    kind = x.device.type
    if not torch.amp.is_autocast_available(kind):
        yield
        return
    # no cache of casts: one that was made without gradients would be taken where they are wanted
    with torch.autocast(kind, torch.bfloat16, cache_enabled=False):
        yield
