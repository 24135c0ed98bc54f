"""Convolutional conditional neural processes: the function of a support, by convolutions on a lattice.

Gordon, Bruinsma, Foong, Requeima, Dubois, Turner 2020 (ICLR, arXiv:1910.13556):

    z^0 = W [log(1 + density), signal]        the support on a lattice (`SetConv`)
    z^{l+1} = z^l + conv_l(relu(z^l))         L residual convolutions
    y(x) ~ head(MLP(h(x)))                    h(x): z^L around the query

    phi         the function itself
    prior       what is decoded without a point, the same at every x: it is stationary by construction
    likelihood  the head, at each point on its own
    inference   one pass, amortised

Moving support and query together, by a multiple of the spacing, moves the prediction with them and no more.

Differences from the paper: the lattice is anchored at zero and not at the data, and all is exactly as without points
wherever no point reaches, so that predictions do not depend on where other queries are or how far the lattice goes; the
network is a plain residual one; deviations have no floor of .1.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from bayesmeta.annotations import said
from bayesmeta.data import Data
from bayesmeta.errors import DataError
from bayesmeta.heads.output import GaussianHead, OutputHead
from bayesmeta.learners.amortized.base import AmortizedLearner
from bayesmeta.networks.set_conv import REACH_IN, REACH_OUT, SetConv, Windows

MOST_LAYERS = 100


@dataclass(frozen=True, eq=False)
class OnLattice:
    """What is kept of a support: the last map without points, and how it differs on the cells that points reach.

    Attributes:
        windows: the cells that are held.
        values: by how much the last map differs on them, for all windows of all tasks.
        nothing: the last map without points, everywhere.
    """

    windows: Windows
    values: Float[Tensor, "R L d"]
    nothing: Float[Tensor, "d"]


class ConvCNP(AmortizedLearner):
    """A convolutional conditional neural process, for functions of one number: time, depth, dose.

    It learns fastest of all neural processes where tasks look alike wherever they begin, and predicts as well outside
    of the range that it was trained on. What is farther from a query than `reach` has no influence on it.

    Args:
        head: what is predicted; Gaussian numbers by default.
        points_per_unit: cells of the lattice in a unit of x: about four for the shortest length on which functions
            change, after `Standardized` if that is around it.
        channels: of the maps.
        layers: residual convolutions.
        kernel_size: cells, odd.

    Attributes:
        margin: how many cells from a support point a map still tells of it.
        reach: how far away, in units of x, a support point can be that tells of a query.

    Raises:
        DataError: sizes that are not positive, an even kernel.
        UnsupportedError: a head that is none.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.ConvCNP(points_per_unit=16.0, channels=8, layers=2)
        >>> posterior = learner.adapt(bm.Data.from_arrays([0.0, 1.0], [0.3, 0.7]))
        >>> far, without = posterior.predict([1e6]), learner.adapt(bm.Data.from_arrays([], [])).predict([0.0])
        >>> bool(far.mean == without.mean), learner.reach
        (True, 1.25)
    """

    def __init__(
        self,
        *,
        head: OutputHead | None = None,
        points_per_unit: float = 16.0,
        channels: int = 32,
        layers: int = 6,
        kernel_size: int = 9,
    ) -> None:
        super().__init__((1,), GaussianHead() if head is None else head)
        if channels < 1:
            raise DataError(f"expected at least one channel, got {said(channels)}")
        if not 1 <= layers <= MOST_LAYERS:
            raise DataError(f"expected 1 to {MOST_LAYERS} layers, got {said(layers)}")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise DataError(f"expected an odd size of the kernel, got {kernel_size}")
        self.set_conv = SetConv(points_per_unit, self.head.num_inputs)
        self.lift = nn.Linear(self.set_conv.num_channels, channels)
        self.convolutions = nn.ModuleList(nn.Conv2d(channels, channels, (1, kernel_size)) for _ in range(layers))
        self.decoder = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, self.head.size))
        self.margin = REACH_IN + layers * (kernel_size // 2)
        self.reach = (self.margin + REACH_OUT) / points_per_unit

    @override
    def encode(self, points: Data) -> OnLattice:
        windows, channels = self.set_conv(points, self.margin)
        # What differs from a line without points, on the cells that points reach: the rest is zero, and every layer
        # reaches a little farther. As images of height 1 whose channels come last in memory, which convolutions run
        # through fastest.
        differs = functional.linear(channels, self.lift.weight)[:, None].permute(0, 3, 1, 2)  # R d 1 I
        nothing: Tensor = self.lift.bias
        for layer in self.convolutions:
            assert isinstance(layer, nn.Conv2d)  # as it was made
            assert layer.bias is not None
            before, around = functional.relu(nothing), layer.kernel_size[1] // 2
            seen = functional.relu(differs + nothing[:, None, None]) - before[:, None, None]
            convolved = functional.conv2d(seen, layer.weight, padding=(0, 2 * around))
            differs = functional.pad(differs, (around, around)) + convolved
            nothing = nothing + layer.weight.sum((2, 3)) @ before + layer.bias
        return OnLattice(windows, differs[:, :, 0].mT, nothing)

    @override
    def decode(self, kept: OnLattice, x: Float[Tensor, "L M 1"]) -> Float[Tensor, "L M K"]:
        raw: Tensor = self.decoder(self.set_conv.read(kept.values, kept.windows, x) + kept.nothing)
        return raw
