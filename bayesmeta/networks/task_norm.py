"""Batch normalisation without memory: the statistics are those of the points at hand."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bayesmeta.annotations import checked
from bayesmeta.errors import DataError


class TaskNorm(nn.Module):
    """Every channel as (z - mean) / sqrt(variance + eps) · weight + bias, over the points of a task and their map.

    It is transductive: the output at a point depends on the other points of its task at this very call, and there are
    no running statistics, in training as in use. Every point counts, so it expects tasks without padding.

    Args:
        num_channels: C.
        eps: added to the variance, units of z².

    Raises:
        DataError: no channels; in `forward` a single number per channel, whose variance is zero.

    Example:
        >>> z = TaskNorm(2)(torch.tensor([[[1.0, 10.0], [3.0, 30.0]]]))
        >>> z.round(decimals=3).tolist()
        [[[-1.0, -1.0], [1.0, 1.0]]]
    """

    @checked
    def __init__(self, num_channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        if num_channels < 1 or not eps > 0.0:
            raise DataError(f"expected at least one channel and a positive eps, got {num_channels} and {eps}")
        self.num_channels, self.eps = num_channels, eps
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def forward(self, z: Float[Tensor, "B N C *map"]) -> Float[Tensor, "B N C *map"]:
        """The normalised channels."""
        if z[:, :, 0].numel() == len(z):
            raise DataError(
                f"expected more than one number per channel of a task, got z of shape {tuple(z.shape)}: "
                "a single one has no variance, normalise groups of channels instead"
            )
        if z.shape[1] == 0:  # nothing to normalise, and the derivative of a mean of nothing is NaN
            return (z.movedim(2, -1) * self.weight + self.bias).movedim(-1, 2)
        channels = z.transpose(1, 2).flatten(2)  # B C NHW; group norm is the fastest kernel for the statistics of rows
        normal = F.group_norm(channels, self.num_channels, self.weight, self.bias, self.eps)
        return normal.unflatten(2, (z.shape[1], *z.shape[3:])).transpose(1, 2)
