"""Attention by distance: what is near is read more, by functions of the distance that are learned.

    b(r) = T(r) - s r - S (r - reach)₊           a function for each layer and head; r = |h(x_i) - h(x_j)|

T is a multilayer perceptron of Gaussian bumps along [0, reach], one for all functions, and the slope s > 0 is learned.
Distances beyond the reach are not what T was trained on; the fixed steep slope S sees to it that nothing is read there.

T does not depend on the points. It is computed at the nodes of a fine grid once, and read off between them linearly: a
perceptron at every pair of points would cost as much as all the rest of a transformer.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from bayesmeta.description import Described
from bayesmeta.errors import DataError
from bayesmeta.noise import Positive

CELLS = 8  # of the grid, from one bump to the next
SOFT = 0.25  # cells: within it of each other, points count as equally near, so that the distance has a derivative at 0
STEEP = 40.0  # a tenth of the reach beyond it, a weight is e⁻⁴ of what it was
FAR = 1e3  # reaches: weights vanish long before, and larger numbers could overflow
SLOPES = (0.0, 1.2)  # powers of ten, over the reach: heads start from looking far to looking near
BOUNDS = (1e-2, 1e3)


class RelativeBias(Described):
    """How a `TransformerNeuralProcess` reads by distance alone, so that shifts of all inputs change nothing.

    Args:
        reach: the largest distance at which points tell of each other, in the units of the features: about the range of
            the inputs of a task in training. Beyond it nothing is read.
        num_bumps: along the reach: several for the shortest length on which functions change.
        hidden: width of the perceptron.

    Raises:
        DataError: a reach that is not positive, fewer than two bumps, or no hidden unit.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.TransformerNeuralProcess(bm.Identity(1), relative=bm.learners.RelativeBias(reach=4.0))
        >>> posterior = learner.adapt(bm.Data.from_arrays([0.0, 1.0], [0.3, 0.7]))
        >>> shifted = learner.adapt(bm.Data.from_arrays([64.0, 65.0], [0.3, 0.7]))
        >>> bool(posterior.predict([0.5]).mean == shifted.predict([64.5]).mean)
        True
    """

    def __init__(self, reach: float = 4.0, num_bumps: int = 32, hidden: int = 64) -> None:
        if not 0.0 < reach < math.inf or num_bumps < 2 or hidden < 1:
            raise DataError(
                "expected a positive reach, at least two bumps and a hidden unit, "
                f"got {reach}, {num_bumps} and {hidden}"
            )
        self.reach, self.num_bumps, self.hidden = reach, num_bumps, hidden

    def functions(self, layers: int, num_heads: int) -> "DistanceFunctions":
        """Fresh functions of the distance, for each head of each layer."""
        return DistanceFunctions(layers, num_heads, self)


class DistanceFunctions(nn.Module):
    """The biases of all layers and heads: learned functions of the distance between two points.

    Args:
        layers: of attention.
        num_heads: of each layer.
        relative: reach and size.

    Example:
        >>> functions = RelativeBias(reach=4.0).functions(layers=3, num_heads=2)
        >>> x, mask = torch.tensor([[[0.0], [1.0], [99.0]]]), torch.tensor([[True, True, False]])
        >>> bias = functions(torch.tensor([[[0.5]]]), x, mask)
        >>> bias.shape, bias[0, 0, 0, 0].isinf().tolist()  # the learned key, then three points
        (torch.Size([3, 1, 2, 1, 4]), [False, False, False, True])
        >>> bool(bias[0, 0, 0, 0, 1] == bias[0, 0, 0, 0, 2])  # both at a distance of ½
        True
    """

    bumps: Tensor

    def __init__(self, layers: int, num_heads: int, relative: RelativeBias) -> None:
        super().__init__()
        self.layers, self.num_heads, self.reach = layers, num_heads, float(relative.reach)
        self.cells = CELLS * relative.num_bumps
        nodes = torch.linspace(0.0, relative.num_bumps - 1.0, self.cells + 1, dtype=torch.float64)
        centers = torch.arange(relative.num_bumps, dtype=torch.float64)
        self.register_buffer("bumps", torch.exp(-0.5 * (nodes[:, None] - centers).square()), False)
        self.perceptron = nn.Sequential(
            nn.Linear(relative.num_bumps, relative.hidden), nn.SiLU(), nn.Linear(relative.hidden, layers * num_heads)
        )
        self.slope = Positive((layers * num_heads,), 1.0, BOUNDS)
        self.slope.set(torch.logspace(*SLOPES, num_heads).repeat(layers))

    def forward(
        self, x: Float[Tensor, "B M F"], others: Float[Tensor, "B N F"], mask: Bool[Tensor, "B N"]
    ) -> Float[Tensor, "layers B H M R"]:
        """What is added to how well points match: 0 for the learned key of nothing, and -inf where nothing is real.

        Args:
            x: where it is read from.
            others: where what is read stands.
            mask: True = a real one of the others.
        """
        apart = (x[:, :, None] - others[:, None]) * (self.cells / self.reach)
        r = (apart.square().sum(-1) + SOFT**2).sqrt().clamp(max=FAR * self.cells)  # cells
        cell = torch.where(mask[:, None], r.detach().floor().clamp(max=self.cells).long(), self.cells + 2)
        r, cell = functional.pad(r, (1, 0)), functional.pad(cell, (1, 0), value=self.cells + 1)
        value, rise = self._table().index_select(-1, cell.flatten()).unflatten(-1, cell.shape).unbind(0)
        return torch.addcmul(value, r - cell, rise).unflatten(0, (self.layers, -1)).transpose(1, 2)

    def _table(self) -> Float[Tensor, "2 functions nodes"]:
        """The functions at the nodes and their rise in the cell that follows; that of the last node has no end.

        Two constants come after the nodes: 0 for the learned key, and -inf for what is not real.
        """
        slope = self.slope() / self.cells
        nodes = torch.arange(self.cells + 1, dtype=slope.dtype, device=slope.device)
        value = self.perceptron(self.bumps.to(slope)).mT - slope[:, None] * nodes
        rise = torch.cat([value.diff(dim=-1), -(slope + STEEP / self.cells)[:, None]], -1)
        constant = torch.tensor([0.0, -torch.inf], dtype=slope.dtype, device=slope.device).expand(slope.shape[0], -1)
        return torch.stack([torch.cat([value, constant], -1), torch.cat([rise, torch.zeros_like(constant)], -1)])
