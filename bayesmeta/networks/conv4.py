"""Convolutional networks of the few-shot literature: blocks of convolution, normalisation, ReLU and pool.

Vinyals et al. 2016 (Matching Networks, section 4.1.1); Snell et al. 2017 and Finn et al. 2017 use the same.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bayesmeta.annotations import said
from bayesmeta.errors import DataError, ShapeError
from bayesmeta.networks.network import Network
from bayesmeta.networks.pooling import max_pool
from bayesmeta.networks.task_norm import TaskNorm
from bayesmeta.typing import Params

MOST_BLOCKS = 64  # no block skips: gradients do not reach through more
TOGETHER = 200_000  # numbers in a task's first map up to which tasks go together: measured, from 0.6 to 0.9 of the time


class ConvNet(Network):
    """Blocks of a convolution, normalisation, ReLU and 2x2 max-pool; the flattened last map is the output.

    An odd row or column is dropped by the pool, and an axis of size 1 is not pooled further.

    With `norm="task"` the statistics are those of the points of a task at this very call (Finn et al. 2017), so the
    output at a point depends on the other points, and the convolutions have no bias, which the mean would take away.
    The network does not see a mask: it expects tasks without padding. `norm="group"` knows no such dependence.

    Args:
        x_shape: channels, height and width of an image.
        channels: channels of each block.
        blocks: how many there are.
        kernel: height and width of the convolutions, an odd number.
        norm: "group" (GroupNorm) or "task" (TaskNorm).
        num_groups: groups of channels with statistics in common, for `norm="group"`; it divides `channels`.

    Raises:
        ShapeError: an `x_shape` that is not three positive sizes; images of another shape in `forward`.
        DataError: sizes that are not positive, an even kernel, an unknown norm, or groups that do not divide the
            channels or hold a single number.

    Attributes:
        map_shape: channels, height and width of the last map: `features.unflatten(-1, network.map_shape)`.

    Example:
        >>> network = ConvNet((1, 14, 14), channels=16, blocks=2, kernel=5)
        >>> network.map_shape, network(torch.zeros(1, 2, 1, 14, 14)).shape
        ((16, 3, 3), torch.Size([1, 2, 144]))
    """

    def __init__(
        self,
        x_shape: tuple[int, int, int],
        channels: int = 64,
        blocks: int = 4,
        kernel: int = 3,
        norm: str = "group",
        num_groups: int = 8,
    ) -> None:
        super().__init__()
        depth, *size = shape = tuple(x_shape)
        if len(shape) != 3 or min(shape) < 1:
            raise ShapeError(f"expected x_shape (channels, height, width) with sizes >= 1, got {shape}")
        if channels < 1:
            raise DataError(f"expected at least one channel, got {channels}")
        if not 1 <= blocks <= MOST_BLOCKS:
            raise DataError(f"expected 1 to {MOST_BLOCKS} blocks, got {said(blocks)}")
        if kernel < 1 or kernel % 2 == 0:
            raise DataError(f"expected a kernel of an odd size, got {kernel}")
        if norm not in ("group", "task"):
            raise DataError(f"expected a norm among ['group', 'task'], got {norm!r}")
        if norm == "group" and (num_groups < 1 or channels % num_groups):
            raise DataError(f"expected a number of groups that divides {channels} channels, got {num_groups}")
        made: list[nn.Module] = []
        for _ in range(blocks):
            if norm == "group" and channels * math.prod(size) == num_groups:
                raise DataError(
                    f"expected groups of more than one number, got {num_groups} groups of {channels} channels with a "
                    "1x1 map: a single number has no variance, take fewer groups"
                )
            groups = nn.GroupNorm(num_groups, channels) if norm == "group" else None
            made.append(_Block(depth, channels, kernel, groups))
            depth, size = channels, [max(n // 2, 1) for n in size]
        self.blocks = nn.ModuleList(made)
        height, width = size
        self.x_shape, self.channels, self.pointwise = shape, channels, norm == "group"
        self.map_shape: tuple[int, int, int] = (channels, height, width)
        self.num_outputs = math.prod(self.map_shape)

    def forward(self, x: Float[Tensor, "B N *x"]) -> Float[Tensor, "B N F"]:
        """The last map of every point, flattened."""
        if x.shape[2:] != self.x_shape:
            expected = ", ".join(map(str, ("B", "N", *self.x_shape)))
            raise ShapeError(f"expected x of shape ({expected}), got {tuple(x.shape)}")
        for block in self.blocks:
            x = block(x)
        return x.flatten(2)

    def stacked(self, phi: Params, x: Float[Tensor, "B N *x"]) -> Float[Tensor, "B N F"]:
        """The last map of every point, flattened, each task with weights of its own.

        Small tasks go together, as one grouped convolution a block; large ones, whose arithmetic fills a core and
        which grouped convolutions slow down, one after the other.
        """
        if x.shape[1] * math.prod(x.shape[3:]) * self.channels <= TOGETHER:
            return super().stacked(phi, x)
        tasks = {name: value.unbind() for name, value in phi.items()}  # differentiating value[t] would be far slower
        return torch.stack(
            [self.one_task({name: rows[t] for name, rows in tasks.items()}, task) for t, task in enumerate(x.unbind())]
        )


class Conv4(ConvNet):
    """Four blocks of 3x3 convolutions: the `ConvNet` of the few-shot literature.

    Args:
        x_shape: channels, height and width of an image.
        channels: channels of each block.
        norm: "group" (GroupNorm), or "task" (TaskNorm): statistics of the points of a task at this very call.
        num_groups: groups of channels with statistics in common, for `norm="group"`; it divides `channels`.

    Raises:
        ShapeError: an `x_shape` that is not three positive sizes; images of another shape in `forward`.
        DataError: sizes that are not positive, an unknown norm, or groups that do not divide the channels or hold a
            single number.

    Attributes:
        map_shape: channels, height and width of the last map: `features.unflatten(-1, network.map_shape)`.

    Example:
        >>> network = Conv4((3, 84, 84), channels=16)
        >>> network.num_outputs, network.map_shape
        (400, (16, 5, 5))
        >>> network(torch.zeros(1, 2, 3, 84, 84)).shape
        torch.Size([1, 2, 400])
    """

    def __init__(
        self,
        x_shape: tuple[int, int, int],
        channels: int = 64,
        norm: str = "group",
        num_groups: int = 8,
    ) -> None:
        super().__init__(x_shape, channels, norm=norm, num_groups=num_groups)


class _Block(nn.Module):
    """Convolution, normalisation, ReLU, max-pool; task norm unless a group norm is given."""

    def __init__(self, depth: int, channels: int, kernel: int, norm: nn.GroupNorm | None) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(depth, channels, kernel, padding=kernel // 2, bias=norm is not None)
        self.norm = TaskNorm(channels) if norm is None else norm

    def forward(self, x: Tensor) -> Tensor:
        """The next map, `B N C height width`."""
        z = self.convolution(x.flatten(0, 1))
        if isinstance(self.norm, TaskNorm):
            z = self.norm(z.unflatten(0, x.shape[:2])).flatten(0, 1)
        else:
            z = self.norm(z)
        return F.relu(max_pool(z)).unflatten(0, x.shape[:2])  # the same in either order, on a quarter of the numbers
