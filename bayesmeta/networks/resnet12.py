"""Residual network of the few-shot literature.

Lee, Maji, Ravichandran, Soatto 2019 (MetaOptNet, arXiv:1904.03758, sec. 4.1), after Oreshkin et al. 2018 (TADAM).
"""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bayesmeta.errors import DataError, ShapeError
from bayesmeta.networks.network import Network
from bayesmeta.networks.pooling import max_pool

SLOPE = 0.1  # of the leaky ReLU


class ResNet12(Network):
    """Four residual blocks of three 3x3 convolutions, each block ending in a 2x2 max-pool; the flattened last map.

    Differences from the paper: GroupNorm in place of batch normalisation, through which query points would tell of each
    other, and no DropBlock, whose noise would make phi a matter of chance: support and query are seen as they are.

    Args:
        x_shape: channels, height and width of an image.
        channels: channels of the four blocks.
        average: average the last map over its places, as `channels[-1]` features, in place of flattening it.
        num_groups: groups of channels with statistics in common; it divides all `channels`.

    Raises:
        ShapeError: an `x_shape` that is not three positive sizes; images of another shape in `forward`.
        DataError: not four positive numbers of channels, or groups that do not divide them or hold a single number.

    Attributes:
        map_shape: channels, height and width of what is flattened: of the last map, or `(channels, 1, 1)` of its
            average.

    Example:
        >>> network = ResNet12((3, 32, 32), channels=(8, 16, 16, 32))
        >>> network.num_outputs, network.map_shape
        (128, (32, 2, 2))
        >>> ResNet12((3, 32, 32), channels=(8, 16, 16, 32), average=True).num_outputs
        32
    """

    def __init__(
        self,
        x_shape: tuple[int, int, int],
        channels: Sequence[int] = (64, 160, 320, 640),
        average: bool = False,
        num_groups: int = 8,
    ) -> None:
        super().__init__()
        depth, *size = shape = tuple(x_shape)
        if len(shape) != 3 or min(shape) < 1:
            raise ShapeError(f"expected x_shape (channels, height, width) with sizes >= 1, got {shape}")
        if len(channels) != 4 or min(channels) < 1:
            raise DataError(f"expected four positive numbers of channels, got {tuple(channels)}")
        if num_groups < 1 or any(width % num_groups for width in channels):
            raise DataError(f"expected a number of groups that divides {tuple(channels)} channels, got {num_groups}")
        blocks: list[nn.Module] = []
        for width in channels:
            if width * math.prod(size) == num_groups:
                raise DataError(
                    f"expected groups of more than one number, got {num_groups} groups of {width} channels with a "
                    "1x1 map: a single number has no variance, take fewer groups"
                )
            blocks.append(_Block(depth, width, num_groups))
            depth, size = width, [max(n // 2, 1) for n in size]
        self.blocks = nn.ModuleList(blocks)
        self.x_shape, self.average = shape, average
        height, width = (1, 1) if average else size
        self.map_shape: tuple[int, int, int] = (depth, height, width)
        self.num_outputs = math.prod(self.map_shape)

    def forward(self, x: Float[Tensor, "B N *x"]) -> Float[Tensor, "B N F"]:
        """The last map at every point."""
        if x.shape[2:] != self.x_shape:
            expected = ", ".join(map(str, ("B", "N", *self.x_shape)))
            raise ShapeError(f"expected x of shape ({expected}), got {tuple(x.shape)}")
        z = x.flatten(0, 1)
        for block in self.blocks:
            z = block(z)
        z = z.mean((2, 3)) if self.average else z.flatten(1)
        return z.unflatten(0, x.shape[:2])


class _Block(nn.Module):
    """max-pool(LeakyReLU(three convolutions + a 1x1 convolution of the input)), all normalised."""

    def __init__(self, depth: int, channels: int, num_groups: int) -> None:
        super().__init__()
        depths = (depth, channels, channels)
        self.convolutions = nn.ModuleList(nn.Conv2d(n, channels, 3, padding=1, bias=False) for n in depths)
        self.norms = nn.ModuleList(nn.GroupNorm(num_groups, channels) for _ in depths)
        self.shortcut = nn.Conv2d(depth, channels, 1, bias=False)
        self.shortcut_norm = nn.GroupNorm(num_groups, channels)

    def forward(self, z: Tensor) -> Tensor:
        """The next map, `n C height width`."""
        shortcut = self.shortcut_norm(self.shortcut(z))
        for i, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            z = norm(convolution(z))
            if i < 2:
                z = F.leaky_relu(z, SLOPE)
        return F.leaky_relu(max_pool(z + shortcut), SLOPE)  # the same in either order, on a quarter of the numbers
