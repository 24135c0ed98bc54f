"""Images that lose something at random as they are drawn: noise on every pixel, and parts that are erased."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from bayesmeta.tasks.images.augment import Augmentation, require_strength
from bayesmeta.tasks.images.draws import uniform


@dataclass(frozen=True)
class PixelNoise(Augmentation):
    """Gaussian noise on every pixel, of a deviation that is each image's own: uniform from 0 to `stddev`.

    Attributes:
        stddev: the largest deviation, where pixels go from 0 to 1.

    Raises:
        DataError: a deviation that is negative or not finite.

    Example:
        >>> import torch
        >>> import bayesmeta as bm
        >>> noisy = bm.tasks.PixelNoise(stddev=0.2)(torch.full((2, 1, 8, 8), 0.5), torch.Generator().manual_seed(0))
        >>> noisy.std((1, 2, 3))
        tensor([0.1011, 0.1522])
    """

    stddev: float = 0.1

    def __post_init__(self) -> None:
        """Check the deviation."""
        require_strength(self.stddev, "stddev")

    @override
    def __call__(
        self, images: Float[Tensor, "n channels height width"], generator: torch.Generator
    ) -> Float[Tensor, "n channels height width"]:
        scale = self.stddev * uniform((len(images), *[1] * (images.ndim - 1)), generator).to(images)
        noise = torch.randn(images.shape, dtype=torch.float32, generator=generator, device=generator.device)
        return (images + scale * noise.to(images)).clamp(0.0, 1.0)


@dataclass(frozen=True)
class Erased(Augmentation):
    """A rectangle of each image is set to 0, which is paper where ink is 1 (Zhong et al. 2020, "Random erasing").

    Its height and width are uniform from 0 to `share` of the image's, each on its own, and it lies anywhere inside.

    Attributes:
        share: the largest share of the height, and of the width, up to 1.

    Raises:
        DataError: a share below 0 or above 1.

    Example:
        >>> import torch
        >>> import bayesmeta as bm
        >>> erased = bm.tasks.Erased(share=0.8)(torch.ones(1, 1, 4, 6), torch.Generator().manual_seed(2))
        >>> erased[0, 0].int().tolist()
        [[1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 1, 1], [1, 0, 0, 0, 1, 1], [1, 1, 1, 1, 1, 1]]
    """

    share: float = 0.3

    def __post_init__(self) -> None:
        """Check the share."""
        require_strength(self.share, "share", most=1.0)

    @override
    def __call__(
        self, images: Float[Tensor, "n channels height width"], generator: torch.Generator
    ) -> Float[Tensor, "n channels height width"]:
        draws = uniform((2, 2, len(images), 1), generator)
        inside = []
        for size, (length, start) in zip(images.shape[-2:], draws, strict=True):
            length = self.share * size * length
            start = start * (size - length)
            center = torch.arange(size, dtype=torch.float32) + 0.5
            inside.append((center >= start) & (center < start + length))  # n size
        hidden = inside[0][:, :, None] & inside[1][:, None, :]
        return images.masked_fill(hidden[:, None].to(images.device), 0.0)
