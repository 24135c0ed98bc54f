"""Images by their positions, as the support or query of tasks."""

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from bayesmeta.data import Data
from bayesmeta.errors import ShapeError
from bayesmeta.tasks.images.augment import Augmentation
from bayesmeta.tasks.images.draws import uniform


def shuffled(
    pixels: Shaped[Tensor, "n *x"],
    rows: Int[Tensor, "B ways k"],
    mask: Bool[Tensor, "B ways k"],
    generator: torch.Generator,
    augment: Augmentation | None = None,
    changed: Bool[Tensor, "B ways k"] | None = None,
) -> Data:
    """Support or query of images, labelled by their way, in a random order with padding last, where the images are.

    Args:
        pixels: the images that the rows count, uint8 or between 0 and 1; they become float32 between 0 and 1.
        rows: positions of images, on the CPU.
        mask: which of them are real.
        generator: the only source of randomness.
        augment: how each image is changed.
        changed: which images are; all of them by default.

    Raises:
        ShapeError: the augmentation gives images of another shape.
    """
    labels = torch.arange(rows.shape[1])[:, None].expand(rows.shape).flatten(1)
    real = mask.flatten(1)
    order = torch.where(real, uniform(real.shape, generator), 2.0).argsort(-1)
    width = int(real.sum(-1).max()) if len(real) else 0
    order = order[:, :width]
    real = real.gather(1, order)
    labels = torch.where(real, labels.gather(1, order), 0)
    device = pixels.device
    chosen = rows.flatten(1).gather(1, order).to(device)
    x = unit(pixels.index_select(0, chosen.flatten()))
    if augment is not None and len(x):
        other = augment(x, generator)
        if other.shape != x.shape:
            raise ShapeError(f"expected images of shape {tuple(x.shape)} of {augment}, got {tuple(other.shape)}")
        if changed is not None:
            which = changed.flatten(1).gather(1, order).flatten().to(device)
            other = torch.where(which.view(-1, *[1] * (x.ndim - 1)), other, x)
        x = other
    return Data(x.reshape(*chosen.shape, *pixels.shape[1:]), labels.to(device), real.to(device))


def unit(pixels: Tensor) -> Tensor:
    """Pixels, uint8 or between 0 and 1, as float32 between 0 and 1."""
    return pixels.float() if pixels.is_floating_point() else pixels.float().mul_(1.0 / 255.0)
