"""What every network says about itself: the shape it takes and the size it gives."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from bayesmeta.description import Described


class Network(Described, nn.Module, ABC):
    """A function of one point, applied to all points of all tasks at once.

    Attributes:
        x_shape: shape of one input.
        num_outputs: length of the output (the F of a feature network, the K of a full one).
    """

    x_shape: tuple[int, ...]
    num_outputs: int

    @abstractmethod
    def forward(self, x: Float[Tensor, "B N *x"]) -> Float[Tensor, "B N F"]:
        """The output at every point."""
