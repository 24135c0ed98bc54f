"""Images that tell where they come from."""

import dataclasses

import numpy as np
import torch

from bayesmeta.data import Data
from bayesmeta.tasks.images.image_classes import ImageClasses


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(classes: int, each: int, groups: int = 1) -> ImageClasses:
    """Every image is its own number: its pixels are (class, place) in 255ths, and class k is of group k mod groups."""
    label = np.arange(classes).repeat(each)
    pixels = np.stack([label, np.tile(np.arange(each), classes)], -1).astype(np.uint8)
    return ImageClasses.from_arrays(pixels[:, None, :], label, label % groups)  # 1 x 2


def drawn(classes: int, makers: int, groups: int = 1) -> ImageClasses:
    """As `numbered`, and place m of every class was made by maker m."""
    images = numbered(classes, makers, groups)
    return dataclasses.replace(images, makers=torch.arange(makers).repeat(classes))


def content(data: Data) -> torch.Tensor:
    """(class, place) of each point, `B N 2`."""
    return (data.x[:, :, 0, 0] * 255.0).round().long()
