"""y_i ~ N(phi, s²), phi = tau z, z ~ N(0, 1), with weights set by hand so that one pass is exact inference."""

import torch
from torch import Tensor, nn

import bayesmeta as bm

D = torch.float64
TAU = 1.5


class Level:
    """The numbers of the model."""

    noise = 0.4


class LevelEncoder(nn.Module):
    """y / tau is a look at z with variance s² / tau²: its mean, and the inverse softplus of its precision."""

    def forward(self, given: Tensor) -> Tensor:
        y = given[..., -1:]
        precision = torch.full_like(y, TAU**2 / Level.noise**2)
        return torch.cat([y / TAU, precision + (-(-precision).expm1()).log()], -1)


class LevelDecoder(nn.Module):
    """From (1, x, z) to the two numbers of a `GaussianHead`: tau z, and what makes its deviation s."""

    def __init__(self, min_stddev: float) -> None:
        super().__init__()
        start = torch.tensor(1.0, dtype=D).expm1().log()
        self.spread = nn.Parameter(torch.tensor(Level.noise - min_stddev, dtype=D).expm1().log() - start)

    def forward(self, given: Tensor) -> Tensor:
        mean = TAU * given[..., 2:3]
        return torch.cat([mean, self.spread.to(mean).expand_as(mean)], -1)


def inputs(num_tasks: int, num_points: int) -> Tensor:
    """Different for each point."""
    return torch.linspace(-1.0, 1.0, num_tasks * num_points, dtype=D).reshape(num_tasks, num_points, 1)


def levels(num_tasks: int, num_points: int, seed: int = 0) -> bm.Data:
    """Tasks of the model."""
    generator = torch.Generator().manual_seed(seed)
    phi = TAU * torch.randn(num_tasks, 1, 1, dtype=D, generator=generator)
    noise = Level.noise * torch.randn(num_tasks, num_points, 1, dtype=D, generator=generator)
    return bm.Data.full(inputs(num_tasks, num_points), phi + noise)
