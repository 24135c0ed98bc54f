"""Waves of many lengths: by them a network tells near points from far ones at once, which dense layers learn slowly."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesmeta.errors import DataError
from bayesmeta.networks.network import Network


class FourierFeatures(Network):
    """x itself, and sin(ω x_d) and cos(ω x_d) of each input at learned frequencies ω.

    They start apart by equal factors, from waves that are longer than the range of the inputs to some that are as short
    as what is to be told apart. Tancik et al. 2020 (NeurIPS, arXiv:2006.10739) draw theirs at random.

    Args:
        num_inputs: D.
        num_frequencies: of each input.
        bounds: lowest and highest frequency at the start, radians for a unit of x.

    Raises:
        DataError: no inputs, fewer than two frequencies, or bounds that are not positive and increasing.

    Example:
        >>> network = FourierFeatures(1, 2, bounds=(1.0, 2.0))
        >>> network(torch.tensor([[[0.5]]])).detach().round(decimals=3)  # x, two sines, two cosines
        tensor([[[0.5000, 0.4790, 0.8410, 0.8780, 0.5400]]])
    """

    def __init__(self, num_inputs: int, num_frequencies: int = 12, bounds: tuple[float, float] = (0.5, 10.0)) -> None:
        super().__init__()
        low, high = bounds
        if num_inputs < 1 or num_frequencies < 2:
            raise DataError(f"expected at least one input and two frequencies, got {num_inputs} and {num_frequencies}")
        if not 0.0 < low < high < math.inf:
            raise DataError(f"expected frequencies with 0 < lowest < highest, got {tuple(bounds)}")
        start = torch.linspace(math.log(low), math.log(high), num_frequencies)
        self.log_frequency = nn.Parameter(start.repeat(num_inputs, 1))
        self.x_shape, self.num_outputs = (num_inputs,), num_inputs * (1 + 2 * num_frequencies)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N F"]:
        """The inputs, then the sines of each, then the cosines."""
        angle = (x[..., None] * self.log_frequency.exp()).flatten(2)
        return torch.cat([x, angle.sin(), angle.cos()], -1)
