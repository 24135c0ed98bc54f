"""A linear predictor: features times a matrix of weights, without a bias of its own."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesmeta.networks.network import Network, WholeNetwork


class LinearPredictor(WholeNetwork):
    """f(x) = h(x)ᵀ M: the typical task of a mixed model. Other tasks have other weights (`of_rows`).

    Args:
        features: h, F features of a point.
        num_outputs: K.

    Attributes:
        features: h.
        location: M, `F K`, zero at the start.

    Example:
        >>> import bayesmeta as bm
        >>> predictor = LinearPredictor(bm.Identity(1), 1)
        >>> _ = predictor.location.data.copy_(torch.tensor([[1.0], [2.0]]))
        >>> predictor(torch.tensor([[[3.0]]])).item()  # 1 + 2 · 3
        7.0
    """

    def __init__(self, features: Network, num_outputs: int) -> None:
        super().__init__()
        self.features = features
        self.location = nn.Parameter(torch.zeros(features.num_outputs, num_outputs))
        self.x_shape, self.num_outputs, self.pointwise = features.x_shape, num_outputs, features.pointwise

    def forward(self, x: Float[Tensor, "B N *x"]) -> Float[Tensor, "B N K"]:
        """The linear predictor of the typical task."""
        return self.features(x).to(self.location.dtype) @ self.location
