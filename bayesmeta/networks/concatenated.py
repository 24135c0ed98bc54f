"""Features of several networks side by side."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.errors import DataError, ShapeError
from bayesmeta.networks.network import Network
from bayesmeta.networks.requirements import require_network
from bayesmeta.networks.terms import Quantities, Terms


class Concatenated(Network):
    """The features of several networks on the same inputs, one after the other.

    With `Inputs` among them the inputs stand beside features that are learned of them: a kernel can see both.

    Args:
        parts: the networks.

    Raises:
        DataError: no networks.
        ShapeError: networks on other inputs.
        UnsupportedError: something that is no `Network`.

    Example:
        >>> import bayesmeta as bm
        >>> features = bm.networks.Concatenated([bm.Polynomial(1, 2), bm.networks.Inputs(1)])
        >>> features(torch.tensor([[[3.0]]]))
        tensor([[[1., 3., 9., 3.]]])
    """

    def __init__(self, parts: Sequence[Network]) -> None:
        super().__init__()
        for part in parts:
            require_network(part)
        if not parts:
            raise DataError("expected at least one network, got none")
        shapes = [part.x_shape for part in parts]
        if len(set(shapes)) > 1:
            raise ShapeError(f"expected networks on the same inputs, got x_shape {', '.join(map(str, shapes))}")
        self.parts = nn.ModuleList(parts)
        self.x_shape, self.num_outputs = shapes[0], sum(part.num_outputs for part in parts)
        self.pointwise = all(part.pointwise for part in parts)

    def forward(self, x: Float[Tensor, "B N *x"]) -> Float[Tensor, "B N F"]:
        """The features of the first, of the second, and so on."""
        return torch.cat([part(x) for part in self.parts], -1)

    @override
    def terms(self, inputs: Quantities) -> Terms | None:
        each = [part.terms(inputs) for part in self.parts if isinstance(part, Network)]
        known = [terms for terms in each if terms is not None]
        return Terms.joined(known) if len(known) == len(each) else None
