"""Points of a line on a lattice and back: what a convolution needs that is to see points at any places.

    density_g = Σ_n w_gn                   w_gn = exp(-½ (g - x_n)² / l²)        for the cells g around each point
    signal_g  = Σ_n w_gn y_n / (density_g + ε)
    h(x)      = Σ_g w_g(x) z_g / Σ_g w_g(x)                                      for the cells g around each query

The cells are the absolute multiples of a spacing, whatever the points are: a lattice that began at the first point
would move with it. Only cells that a point can reach are held, in windows with room around the points; wherever there
is no window all is as it is without any point. So points may be as far apart as they like, a query far from all points
costs nothing, and what is predicted at a query does not depend on the other queries.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bayesmeta.data import Data
from bayesmeta.errors import DataError, InferenceError
from bayesmeta.noise import Positive

MOST_CELLS = 2**24  # of all windows of a batch: with 32 channels 2 GiB in float32
REACH_IN, REACH_OUT = 6, 6  # cells to each side: three of the largest length that is learned
LENGTH_IN, LENGTHS_IN = 0.6, (0.2, 2.0)  # cells: short ones blur nothing, and convolutions can smooth
LENGTH_OUT, LENGTHS_OUT = 0.6, (0.2, 2.0)
NOTHING = 1e-2  # ε: without points near by the signal goes to zero, and smoothly
FAR = 2**62  # a cell beyond all others


@dataclass(frozen=True, eq=False)
class Windows:
    """Which cells of the lattice are held: W windows of L cells for every task, some of them unused.

    Attributes:
        start: first cell of each window, increasing; `FAR` of one that is unused.
        length: L.

    Example:
        >>> cells, real = torch.tensor([[0, 3, 1000]]), torch.ones(1, 3, dtype=torch.bool)
        >>> windows = Windows.around(cells, real, margin=10)
        >>> windows.start.tolist(), windows.length
        ([[-10, 990]], 24)
        >>> windows.places(torch.tensor([[2, 1000, 500]]))  # where the cells are, and whether they are held
        (tensor([[12, 34,  0]]), tensor([[ True,  True, False]]))
    """

    start: Int[Tensor, "B W"]
    length: int

    @classmethod
    def around(cls, cells: Int[Tensor, "B N"], mask: Bool[Tensor, "B N"], margin: int) -> "Windows":
        """Windows around these cells, with a margin to both sides; cells so near that margins meet share one.

        Args:
            cells: of the points.
            mask: True = a real point.
            margin: cells.

        Raises:
            InferenceError: more cells than `MOST_CELLS` would have to be held.
        """
        if not mask.shape[1]:  # one window for all that is not there
            return cls(cells.new_zeros(len(cells), 1), 2 * margin + 1)
        order = torch.where(mask, cells, FAR).sort(-1).values
        real = order < FAR
        first = real & torch.cat([real[:, :1], order.diff(dim=-1) > 2 * margin], -1)
        window = (first.cumsum(-1) - 1).clamp(min=0)  # B N
        count = max(int(first.sum(-1).max()), 1)
        start = torch.full((len(cells), count), FAR, device=cells.device)
        start = start.scatter_reduce(1, window, torch.where(real, order, FAR), "amin")
        own = torch.where(real, order - start.gather(1, window), 0)
        length = int(own.max()) + 2 * margin + 1
        if len(cells) * count * length > MOST_CELLS:
            raise InferenceError(
                f"expected at most {MOST_CELLS} cells of a lattice in memory, got {len(cells)} tasks with up to "
                f"{count} windows of up to {length} cells: take fewer tasks at a time, standardise the inputs, or make "
                "the lattice coarser (points_per_unit)"
            )
        return cls(torch.where(start < FAR, start - margin, FAR), length)

    def places(self, cells: Int[Tensor, "B N"]) -> tuple[Int[Tensor, "B N"], Bool[Tensor, "B N"]]:
        """Where cells stand among those held (`B W L` in a row), and which are held at all; 0 where they are not."""
        tasks, count = self.start.shape
        window = (torch.searchsorted(self.start, cells.contiguous(), right=True) - 1).clamp(min=0)
        offset = cells - self.start.gather(1, window)
        held = (offset >= 0) & (offset < self.length)
        row = torch.arange(tasks, device=cells.device)[:, None] * count + window
        return torch.where(held, row * self.length + offset, 0), held


class SetConv(nn.Module):
    """Points to a lattice and from it to queries, with two lengths that are learned.

    Args:
        points_per_unit: cells of the lattice in a unit of x.
        num_inputs: numbers of the outcome of a point.

    Raises:
        DataError: no cells.

    Example:
        >>> import bayesmeta as bm
        >>> layer, points = SetConv(4.0, 1), bm.Data.from_arrays([0.3, 0.4], [2.0, 2.0]).to(torch.float32)
        >>> windows, channels = layer(points, margin=6)
        >>> channels.shape  # a density and a signal on each cell
        torch.Size([1, 13, 2])
        >>> layer.read(channels, windows, torch.tensor([[[0.3], [99.0]]]))[..., 1].detach().round(decimals=1)
        tensor([[2., 0.]])
    """

    def __init__(self, points_per_unit: float, num_inputs: int) -> None:
        super().__init__()
        if not 0.0 < points_per_unit < float("inf"):
            raise DataError(f"expected a positive number of cells in a unit, got {points_per_unit}")
        self.points_per_unit, self.num_channels = points_per_unit, 1 + num_inputs
        self.length_in, self.length_out = (
            Positive((), LENGTH_IN, LENGTHS_IN),
            Positive((), LENGTH_OUT, LENGTHS_OUT),
        )

    def forward(self, points: Data, margin: int) -> tuple[Windows, Float[Tensor, "R I K"]]:
        """The windows, and log(1 + density) and the signal on their cells that points reach; `R = B W` windows.

        Args:
            points: a single input each.
            margin: cells that are held beyond the points, at least `REACH_IN`. The first and last `margin - REACH_IN`
                of a window are zero and left out.
        """
        places, cells = self.located(points.x)
        windows = Windows.around(cells, points.mask, margin)
        near = cells[..., None] + torch.arange(1 - REACH_IN, REACH_IN + 1, device=cells.device)  # B N K
        weight = torch.exp(-0.5 * ((near - places[..., None]) / self.length_in()).square())
        weight = torch.where(points.mask[..., None], weight, 0.0)
        values = torch.cat([torch.ones_like(points.y[..., :1]), torch.where(points.mask[..., None], points.y, 0.0)], -1)
        total = windows.start.numel() * windows.length
        index, _ = windows.places(near.flatten(1))
        each = (weight[..., None] * values[:, :, None]).flatten(0, 2)
        sums = each.new_zeros(total, each.shape[-1]).index_add(0, index.flatten(), each)
        density, signal = sums[:, :1], sums[:, 1:] / (sums[:, :1] + NOTHING)
        channels = torch.cat([density.log1p(), signal], -1).unflatten(0, (-1, windows.length))
        return windows, channels[:, margin - REACH_IN : windows.length - margin + REACH_IN]

    def read(
        self,
        values: Float[Tensor, "R L d"],
        windows: Windows,
        x: Float[Tensor, "B M 1"],
    ) -> Float[Tensor, "B M d"]:
        """Weighted means of the cells around each query.

        Args:
            values: on the cells that are held; all others are zero.
            windows: which cells are held.
            x: queries.
        """
        places, cells = self.located(x)
        near = cells[..., None] + torch.arange(1 - REACH_OUT, REACH_OUT + 1, device=cells.device)
        weight = torch.softmax(-0.5 * ((near - places[..., None]) / self.length_out()).square(), -1)
        index, held = windows.places(near.flatten(1))
        found = values.flatten(0, 1).index_select(0, index.flatten())
        weight = torch.where(held.unflatten(1, near.shape[1:]), weight, 0.0)
        return (weight[..., None] * found.unflatten(0, near.shape)).sum(-2)

    def located(self, x: Float[Tensor, "B N 1"]) -> tuple[Float[Tensor, "B N"], Int[Tensor, "B N"]]:
        """Places in units of the spacing, and the cell below each."""
        places = x[..., 0] * self.points_per_unit
        return places, places.detach().floor().clamp(-(2.0**60), 2.0**60).long()
