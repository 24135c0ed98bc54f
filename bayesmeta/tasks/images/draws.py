"""What episodes are drawn with: whole numbers from one generator, wherever that is, and tables of positions."""

import torch
from torch import Tensor


def uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """float32 numbers between 0 and 1, on the CPU wherever the generator is."""
    return torch.rand(shape, dtype=torch.float32, generator=generator, device=generator.device).cpu()


def below(bounds: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform whole numbers from 0 to the bounds, these excluded, on the CPU wherever the generator is."""
    # 53 random bits: a bound of a million is biased by 1e-10
    draw = torch.rand(bounds.shape, generator=generator, dtype=torch.float64, device=generator.device).cpu()
    return (draw * bounds).long()


def distinct(bounds: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`*b count` distinct numbers from 0 to each bound, excluded, all ordered choices equally likely.

    Floyd's algorithm: the j-th step draws t from 0..j, or takes j itself where t was taken; then the order is shuffled.
    """
    flat = bounds.flatten()
    chosen = torch.full((len(flat), count), -1)
    for i in range(count):
        last = flat - count + i
        drawn = below(last + 1, generator)
        taken = (chosen[:, :i] == drawn[:, None]).any(-1)
        chosen[:, i] = torch.where(taken, last, drawn)
    return chosen.gather(1, uniform(chosen.shape, generator).argsort(-1)).unflatten(0, bounds.shape)


def table(members: Tensor, num_sets: int) -> tuple[Tensor, Tensor]:
    """Of each set the positions of its members, `sets width` padded with 0, and their number."""
    sizes = torch.bincount(members, minlength=num_sets)
    order = members.argsort(stable=True)
    mask = torch.arange(int(sizes.max())) < sizes[:, None]
    positions = torch.zeros(mask.shape, dtype=torch.int64)
    positions[mask] = order
    return positions, sizes
