"""Features in deviations from their mean: s (h - m), with m and s learned from a start at those of the training points.

What compares features, such as attention or a memory that is read by content, tells nothing apart where what all points
have in common is most of them: that is so of images.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesmeta.data import Data
from bayesmeta.errors import DataError
from bayesmeta.networks.network import Network

SAME = 1e-6  # deviations below it, relative to the numbers, are rounding


class Units(nn.Module):
    """s (h - m) for each feature; nothing is changed until `begin`. theta = `center`, `scale`.

    Args:
        num_features: F.

    Attributes:
        center: m.
        scale: s.

    Raises:
        DataError: no features.

    Example:
        >>> import bayesmeta as bm
        >>> features, points = bm.Identity(1), bm.Data.from_arrays([100.0, 101.0, 102.0], [0.0, 0.0, 0.0])
        >>> units = Units(features.num_outputs)
        >>> units.begin(features, points)
        >>> units(features(points.x))[0].round(decimals=2).tolist()  # the constant stays
        [[1.0, -1.22], [1.0, 0.0], [1.0, 1.22]]
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        if num_features < 1:
            raise DataError(f"expected at least one feature, got {num_features}")
        self.center = nn.Parameter(torch.zeros(num_features))
        self.scale = nn.Parameter(torch.ones(num_features))

    def forward(self, h: Float[Tensor, "*b F"]) -> Float[Tensor, "*b F"]:
        """Features in these units.

        Args:
            h: as the network gives them.
        """
        return self.scale * (h - self.center)

    @torch.no_grad()
    def begin(self, features: Network, tasks: Data) -> None:
        """Start m and s where features of these points have mean 0 and deviation 1; a feature that is constant stays.

        Where m has been trained, set or frozen both stay as they are.

        Args:
            features: of each point on its own.
            tasks: points of meta-training tasks.
        """
        mine = self.center.requires_grad and not bool((self.center != 0.0).any())
        if not mine or not bool(tasks.mask.any()):
            return
        rows = features(tasks.x.to(self.center))[tasks.mask]
        deviation = rows.std(0, correction=0)
        varies = deviation > SAME * (1.0 + rows.abs().amax(0))
        self.center.copy_(torch.where(varies, rows.mean(0), 0.0))
        self.scale.copy_(torch.where(varies, 1.0 / deviation, 1.0))
