"""Two Cauchy-shaped bumps plus a Gaussian process: the "Cauchy" tasks of PACOH and MetaL-Benchmark."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.tasks.simulators.gp_functions import ExponentiatedQuadratic, GPFunctions

LENGTH_SCALE = math.sqrt(0.5)  # what the authors' code calls a length scale of .5 is its square
DEVIATION = 0.2  # of the Gaussian process, units of y
LOWER, UPPER, SPREAD = -3.0, 2.0, 2.5  # inputs are 2.5 times a standard normal cut at -3 and 2


class Cauchy(GPFunctions):
    """y = m(x) + f(x) + N(0, noise²), f ~ GP(0, .2² exp(-½ |d|² / .5)) on the plane; Rothfuss et al. 2021, PACOH.

    m(x) = 6 / (π (1 + |x + 1|²)) + 3 / (π (1 + |x - 2|²)) + 1 is common to all tasks, and each coordinate of x is a
    truncated normal: 2.5 N(0, 1) cut to (-7.5, 5).

    Args:
        noise: standard deviation, units of y.

    Raises:
        DataError: negative noise.

    Example:
        >>> import bayesmeta as bm
        >>> tasks = bm.tasks.Cauchy().dataset(2, 10)
        >>> tasks.data.x.shape, tasks.data.y.shape
        (torch.Size([2, 10, 2]), torch.Size([2, 10, 1]))
    """

    def __init__(self, noise: float = 0.05) -> None:
        super().__init__(ExponentiatedQuadratic(LENGTH_SCALE, DEVIATION**2), noise, (SPREAD * LOWER, SPREAD * UPPER))

    def mean(self, x: Float[Tensor, "B N 2"]) -> Float[Tensor, "B N"]:
        """The mean m(x) that all tasks share, units of y."""
        first, second = (1.0 / (math.pi * (1.0 + (x - center).square().sum(-1))) for center in (-1.0, 2.0))
        return 6.0 * first + 3.0 * second + 1.0

    def inputs(self, num_tasks: int, num_points: int, generator: torch.Generator) -> Float[Tensor, "B N 2"]:
        """Truncated normal input points, by inversion."""
        low, high = torch.special.ndtr(torch.tensor([LOWER, UPPER], dtype=torch.float64))
        u = torch.rand(num_tasks, num_points, 2, dtype=torch.float64, generator=generator)
        return (SPREAD * torch.special.ndtri(low + (high - low) * u)).to(torch.get_default_dtype())
