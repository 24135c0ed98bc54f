"""What every network says about itself, and how it runs with the weights of many tasks at once."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from bayesmeta.description import Described
from bayesmeta.networks.jacobian import Jacobian, jacobian
from bayesmeta.typing import Params


class Network(Described, nn.Module, ABC):
    """A function of one point, applied to all points of all tasks at once.

    A subclass gives `forward`. One that knows a faster way with stacked weights overrides `stacked` and `jacobian`.

    Attributes:
        x_shape: shape of one input.
        num_outputs: length of the output (the F of a feature network, the K of a full one).
        pointwise: False where the output at a point depends on the other points of its task (batch statistics).
    """

    x_shape: tuple[int, ...]
    num_outputs: int
    pointwise: bool = True

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
            return torch.vmap(self._one_task)(phi, x)

    def jacobian(self, phi: Params, x: Float[Tensor, "B N *x"]) -> Jacobian:
        """The derivative of every output in the P numbers of phi."""
        return jacobian(self.stacked, phi, x, theta=self.parameters(), pointwise=self.pointwise)

    def _one_task(self, weights: Params, x: Tensor) -> Tensor:
        out: Tensor = functional_call(self, weights, (x[None],))
        return out[0]


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
