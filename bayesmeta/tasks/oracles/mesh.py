"""Adaptive deterministic quadrature over a few latent numbers: cells of known prior mass, split where it matters.

The latents are coordinates of the unit cube through their prior quantile functions, so that the prior mass of a cell is
its volume, exactly. Cells that are never split stay as leaves: no mass is lost, only resolved less finely.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Uniform:
    """U(low, high); a point when they are equal."""

    low: float
    high: float

    def quantile(self, u: Tensor) -> Tensor:
        """The value below which there is probability u."""
        return self.low + (self.high - self.low) * u


@dataclass(frozen=True)
class Normal:
    """N(mean, deviation²)."""

    mean: float
    deviation: float

    def quantile(self, u: Tensor) -> Tensor:
        """The value below which there is probability u; cut at 6 deviations, beyond which there is 2e-9 of the mass."""
        return self.mean + self.deviation * torch.special.ndtri(u).clamp(-6.0, 6.0)


Change = Callable[[Tensor, Tensor], Tensor]
"""(centers, half widths), both `*b L d` -> how much the function changes across each cell along each coordinate."""


def grid(dimensions: int, leaves: int, change: Change) -> tuple[Tensor, Tensor]:
    """A mesh of the unit cube for the prior: centers and half widths `L d`, halved where the function changes most."""
    centers = torch.full((1, dimensions), 0.5, dtype=torch.float64)
    halves = centers.clone()
    while len(centers) < leaves:
        centers, halves = _split(centers, halves, change)
    return centers, halves


def refine(
    log_density: Callable[[Tensor], Tensor],
    start: tuple[Tensor, Tensor],
    change: Change,
    num_tasks: int,
    rounds: int,
    splits: int,
) -> tuple[Tensor, Tensor]:
    """Halve, `rounds` times, the `splits` cells of each task that hold most posterior mass.

    Args:
        log_density: log likelihood of each task at its own cells, `B L d` -> `B L`.
        start: centers and half widths of the mesh for the prior, `L d`.
        change: see `Change`.
        num_tasks: B.
        rounds: how often.
        splits: how many cells at a time.

    Returns:
        Centers `B L d`, and log(prior mass * likelihood) `B L`, whose logsumexp is the log evidence.
    """

    def log_mass(c: Tensor, h: Tensor) -> Tensor:
        return log_density(c) + (2.0 * h).log().sum(-1)

    centers, halves = (value.expand(num_tasks, -1, -1) for value in start)
    mass = log_mass(centers, halves)
    for _ in range(rounds):
        top = mass.topk(min(splits, mass.shape[1]), dim=1).indices
        index = top[..., None].expand(-1, -1, centers.shape[-1])
        new_centers, new_halves = _split(centers.gather(1, index), halves.gather(1, index), change)
        new_mass = log_mass(new_centers, new_halves)
        left, right = slice(None, top.shape[1]), slice(top.shape[1], None)  # one child replaces its parent
        centers = torch.cat([centers.scatter(1, index, new_centers[:, left]), new_centers[:, right]], 1)
        halves = torch.cat([halves.scatter(1, index, new_halves[:, left]), new_halves[:, right]], 1)
        mass = torch.cat([mass.scatter(1, top, new_mass[:, left]), new_mass[:, right]], 1)
    return centers, mass


def _split(centers: Tensor, halves: Tensor, change: Change) -> tuple[Tensor, Tensor]:
    """Two halves of every cell, cut across the coordinate along which the function changes most: left ones first."""
    axis = change(centers, halves).argmax(-1, keepdim=True)
    step = torch.zeros_like(halves).scatter(-1, axis, 0.5 * halves.gather(-1, axis))
    return torch.cat([centers - step, centers + step], -2), torch.cat([halves - step] * 2, -2)
