"""What every network says about itself, and how it runs with the weights of many tasks at once.

Network         features: a learner puts its own last layer on them
DenseOutput     features and a dense layer named `output`: what a learner of the gradient family makes of them
WholeNetwork    a network that is all of f already, and takes no further layer
"""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from typing_extensions import override

from bayesmeta.description import Described
from bayesmeta.errors import DataError, ShapeError, UnsupportedError
from bayesmeta.networks.dense_layers import DenseLayer, affine, renamed
from bayesmeta.networks.jacobian import Jacobian, jacobian
from bayesmeta.networks.terms import Quantities, Terms
from bayesmeta.overriding import speaks_for
from bayesmeta.snapshot import own_tree
from bayesmeta.typing import Params

PREFIX = "features."  # of the names of the parameters beneath an output layer


class Network(Described, nn.Module, ABC):
    """A function of one point, applied to all points of all tasks at once.

    It gives the features of a point. The last layer, from features to outcomes, belongs to the learner, so that one
    network works for every learner; a network that is all of f already inherits `WholeNetwork`.

    A subclass gives `forward`. One that knows a faster way with stacked weights overrides `stacked` and `jacobian`.

    Attributes:
        x_shape: shape of one input.
        num_outputs: length of the output: F, and the K of a `WholeNetwork`.
        pointwise: False where the output at a point depends on the other points of its task (batch statistics).
        varying: positions of the features whose weights differ between tasks, where a learner takes the network's word
            for it (`ALPaCA`); None for all.

    Example:
        >>> class Waves(Network):
        ...     def __init__(self, num_features: int) -> None:
        ...         super().__init__()
        ...         self.frequency = nn.Parameter(torch.randn(num_features))
        ...         self.x_shape, self.num_outputs = (1,), num_features
        ...
        ...     def forward(self, x: Tensor) -> Tensor:
        ...         return (x * self.frequency).sin()
        >>> network = Waves(3)
        >>> network(torch.zeros(2, 5, 1)).shape
        torch.Size([2, 5, 3])
        >>> [name for name, _ in network.with_outputs(1).named_parameters()]
        ['features.frequency', 'output.weight', 'output.bias']
    """

    x_shape: tuple[int, ...]
    num_outputs: int
    pointwise: bool = True
    varying: tuple[int, ...] | None = None

    @abstractmethod
    def forward(self, x: Float[Tensor, "B N *x"]) -> Float[Tensor, "B N F"]:
        """The output at every point."""

    def stacked(self, phi: Params, x: Float[Tensor, "B N *x"]) -> Float[Tensor, "B N F"]:
        """The output at every point, each task with weights of its own.

        Args:
            phi: stacked weights by the names of `named_parameters`, each `B *shape`. Parameters that it leaves out are
                the network's own, the same for all tasks.
            x: inputs.
        """
        # only the forward is mapped: torch differentiates wrongly through a map that holds a gradient
        with _plain_attention():
            return torch.vmap(self.one_task)(phi, x)

    def jacobian(self, phi: Params, x: Float[Tensor, "B N *x"]) -> Jacobian:
        """The derivative of every output in the P numbers of phi."""
        return jacobian(self.stacked, phi, x, theta=self.parameters(), pointwise=self.pointwise)

    def linearized(self, phi: Params, x: Float[Tensor, "B N *x"]) -> tuple[Float[Tensor, "B N F"], Jacobian]:
        """The output at every point, and its derivative: `stacked` and `jacobian` of the same points.

        Args:
            phi: as for `stacked`.
            x: inputs.
        """
        return self.stacked(phi, x), self.jacobian(phi, x)

    def dense_layers(self) -> Sequence[DenseLayer] | None:
        """The layers whose composition this network is, with all of its parameters; None for another network.

        Inner loops are faster by them. `layers_of` asks for them.
        """
        return None

    @final
    def layers_of(self) -> Sequence[DenseLayer] | None:
        """`dense_layers`, where no subclass has changed what the network computes without them."""
        others = ("forward", "stacked", "of_features", "parts")
        return self.dense_layers() if speaks_for(type(self), "dense_layers", *others) else None

    def with_outputs(self, num_outputs: int) -> "Network":
        """This network followed by a dense layer named `output`.

        The names of its parameters are `features.` and this network's own, `output.weight` and `output.bias`. The
        network itself becomes a part of it and is not copied; the layer is drawn in torch's default way.

        Args:
            num_outputs: K.

        Raises:
            DataError: no outputs.
            ShapeError: a `WholeNetwork` that has another number of outputs.
        """
        return DenseOutput(self, num_outputs)

    def terms(self, inputs: Quantities) -> Terms | None:
        """What the features mean in the user's units; None where they have no meaning of their own, as learned ones.

        Args:
            inputs: names and units of the inputs.
        """
        return None

    def with_context(self, size: int) -> "Network":
        """A freshly initialised network of the same make, with `size` more inputs: those of `CAVIA` are `[x, c]`.

        Args:
            size: length of the context c.

        Raises:
            UnsupportedError: the network does not say what that is; its subclass overrides this method.
        """
        name = type(self).__name__
        raise UnsupportedError(
            f"expected a network that can have a context among its inputs, such as MLP, got {name}: write "
            f"{name}.with_context(size), which returns a Network with x_shape (D + size,) whose last inputs are the "
            "context"
        )

    def one_task(self, weights: Params, x: Tensor) -> Tensor:
        """The features of one task's points, `M *x` to `M P`, with weights of its own."""
        out: Tensor = functional_call(own_tree(self), weights, (x[None],))  # which puts them in the place of its own
        return out[0]


class WholeNetwork(Network):
    """A network that is all of f: a learner adds no layer to it.

    It is for functions whose parameters have a meaning of their own, such as a physical law with an unknown constant.

    Example:
        >>> class Decay(WholeNetwork):
        ...     def __init__(self) -> None:
        ...         super().__init__()
        ...         self.log_rate = nn.Parameter(torch.zeros(()))
        ...         self.x_shape, self.num_outputs = (1,), 1
        ...
        ...     def forward(self, x: Tensor) -> Tensor:
        ...         return (-self.log_rate.exp() * x).exp()
        >>> import bayesmeta as bm
        >>> bm.MAML(Decay(), steps=3).adapt(bm.Data.from_arrays([1.0, 2.0], [0.2, 0.1])).mean["log_rate"].shape
        torch.Size([1])
    """

    def with_outputs(self, num_outputs: int) -> "WholeNetwork":
        """The network itself.

        Raises:
            ShapeError: it has another number of outputs.
        """
        if num_outputs != self.num_outputs:
            raise ShapeError(f"expected a network with {num_outputs} outputs, got {self.num_outputs}")
        return self


class DenseOutput(WholeNetwork):
    """The features of a network, followed by a dense layer: `features.with_outputs(num_outputs)` makes it.

    Args:
        features: gives F features of a point.
        num_outputs: K, the outputs at a point.

    Attributes:
        features: the network.
        output: the dense layer, `K F` and `K`.

    Raises:
        DataError: no outputs.

    Example:
        >>> import bayesmeta as bm
        >>> network = bm.Polynomial(1, 3).with_outputs(2)
        >>> type(network).__name__
        'DenseOutput'
        >>> network.output
        Linear(in_features=4, out_features=2, bias=True)
        >>> network(torch.zeros(4, 5, 1)).shape
        torch.Size([4, 5, 2])
    """

    def __init__(self, features: Network, num_outputs: int) -> None:
        super().__init__()
        if num_outputs < 1:
            raise DataError(f"expected at least one output, got {num_outputs}")
        self.features = features
        output = nn.Linear(features.num_outputs, num_outputs)
        like = next(features.parameters(), None)
        # drawn first and converted then: the numbers are the same in every precision
        self.output = output if like is None else output.to(like)
        self.x_shape, self.num_outputs, self.pointwise = features.x_shape, num_outputs, features.pointwise

    def forward(self, x: Float[Tensor, "B N *x"]) -> Float[Tensor, "B N K"]:
        """The dense layer at the features of every point."""
        out: Tensor = self.output(self.features(x))
        return out

    def stacked(self, phi: Params, x: Float[Tensor, "B N *x"]) -> Float[Tensor, "B N K"]:
        """The same with weights of each task's own: the features in their own way, then `of_features`."""
        return self.of_features(phi, self.features.stacked(beneath(phi), x))

    def of_features(self, phi: Params, rows: Float[Tensor, "B N F"]) -> Float[Tensor, "B N K"]:
        """The output at points whose features are known, with weights of each task's own: one batched product.

        Args:
            phi: as for `stacked`; of the output layer alone it matters.
            rows: the features.
        """
        weight, bias = self._output(phi, rows.shape[0])
        return affine(bias, rows, weight)

    @override
    def dense_layers(self) -> Sequence[DenseLayer] | None:
        layers = self.features.layers_of()
        if layers is None:
            return None
        return [*renamed(layers, PREFIX), DenseLayer("output.weight", "output.bias", None)]

    def with_context(self, size: int) -> Network:
        """Freshly initialised features that have the context among their inputs, and a layer of as many outputs."""
        return self.features.with_context(size).with_outputs(self.num_outputs)

    def parts(self, phi: Params, size: int) -> tuple[Params, Tensor, Tensor]:
        """phi of the features by their own names; weight and bias of the output, `B K F` and `B K`."""
        return beneath(phi), *self._output(phi, size)

    def _output(self, phi: Params, size: int) -> tuple[Tensor, Tensor]:
        weight, bias = phi.get("output.weight"), phi.get("output.bias")
        return (
            self.output.weight.expand(size, -1, -1) if weight is None else weight,
            self.output.bias.expand(size, -1) if bias is None else bias,
        )


def beneath(phi: Params) -> Params:
    """The parameters of the network named `features`, by their own names.

    Args:
        phi: by the names of a network that has it.
    """
    start = len(PREFIX)
    return {name[start:]: value for name, value in phi.items() if name.startswith(PREFIX)}


@contextlib.contextmanager
def _plain_attention() -> Iterator[None]:
    """Attention by the kernel that has second derivatives, and without the one for use only, which no map can run."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
