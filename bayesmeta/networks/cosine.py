"""Scores by angle: an output layer that sees where features point, and not how long they are.

    f_k = s w_kᵀ ĥ / sqrt(1 + |w_k|²),   ĥ = h / |h|

For long w it is s cos(w_k, h), the head of Baseline++ (Chen, Liu, Kira, Wang, Huang 2019, ICLR, arXiv:1904.04232); for
short w it is linear in w. So w = 0 is a score of 0 with a derivative, and how sure of a class a task is can be written
in the length of w, of which a Gaussian prior has an opinion.
"""

from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.errors import DataError
from bayesmeta.networks.network import DenseOutput, Network, beneath
from bayesmeta.typing import Params

EPSILON = 1e-6


class Cosine(Network):
    """Features of length 1, whose output layer scores by angle: in the place of `features` where a dense layer was.

    Args:
        features: h.
        scale: s, nats: scores are between -s and s.

    Raises:
        DataError: a scale that is not positive.

    Example:
        >>> import torch
        >>> import bayesmeta as bm
        >>> network = bm.networks.Cosine(bm.MLP(2, [8]))
        >>> network(torch.randn(1, 5, 2)).norm(dim=-1).round(decimals=2)
        tensor([[1., 1., 1., 1., 1.]], grad_fn=<...>)
        >>> bool((network.with_outputs(3)(torch.randn(1, 5, 2)).abs() < 10.0).all())
        True
    """

    def __init__(self, features: Network, scale: float = 10.0) -> None:
        super().__init__()
        if not 0.0 < scale < float("inf"):
            raise DataError(f"expected a positive scale, got {scale}")
        self.features, self.scale = features, scale
        self.x_shape, self.num_outputs, self.pointwise = features.x_shape, features.num_outputs, features.pointwise

    @override
    def forward(self, x: Float[Tensor, "B N *x"]) -> Float[Tensor, "B N F"]:
        return _unit(self.features(x))

    @override
    def stacked(self, phi: Params, x: Float[Tensor, "B N *x"]) -> Float[Tensor, "B N F"]:
        return _unit(self.features.stacked(beneath(phi), x))

    @override
    def with_outputs(self, num_outputs: int) -> "CosineOutput":
        return CosineOutput(self, num_outputs)

    @override
    def with_context(self, size: int) -> "Cosine":
        return Cosine(self.features.with_context(size), self.scale)


class CosineOutput(DenseOutput):
    """Features of length 1, followed by scores by angle: `Cosine(features).with_outputs(K)` makes it.

    Args:
        features: of length 1.
        num_outputs: K.

    Raises:
        DataError: no outputs.

    Example:
        >>> import bayesmeta as bm
        >>> network = bm.networks.Cosine(bm.Identity(2)).with_outputs(3)
        >>> [name for name, _ in network.named_parameters()]
        ['output.weight']
    """

    features: Cosine

    def __init__(self, features: Cosine, num_outputs: int) -> None:
        super().__init__(features, num_outputs)
        self.output = nn.Linear(features.num_outputs, num_outputs, bias=False).to(self.output.weight)

    @override
    def forward(self, x: Float[Tensor, "B N *x"]) -> Float[Tensor, "B N K"]:
        return self.features(x) @ self._seen(self.output.weight).mT

    @override
    def of_features(self, phi: Params, rows: Float[Tensor, "B N F"]) -> Float[Tensor, "B N K"]:
        return rows @ self._seen(phi.get("output.weight", self.output.weight)).mT

    def _seen(self, weight: Float[Tensor, "*b K F"]) -> Float[Tensor, "*b K F"]:
        return self.features.scale * weight / (1.0 + weight.square().sum(-1, keepdim=True)).sqrt()


def _unit(rows: Tensor) -> Tensor:
    return rows / (rows.square().sum(-1, keepdim=True) + EPSILON).sqrt()
