"""Images that are changed at random as they are drawn: moved, and with thicker or thinner strokes."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from bayesmeta.annotations import said
from bayesmeta.errors import DataError
from bayesmeta.one_line import InShort
from bayesmeta.tasks.images.draws import uniform


class Augmentation(InShort, ABC):
    """A random change of images, each on its own, that leaves their classes what they are. A value.

    `Episodes(images, augment=...)` applies it to what it draws for training. A subclass gives `__call__`.

    Example:
        >>> import torch
        >>> import bayesmeta as bm
        >>> class Fainter(bm.tasks.Augmentation):
        ...     def __call__(self, images, generator):
        ...         share = torch.rand(len(images), 1, 1, 1, generator=generator, device=generator.device)
        ...         return images * (0.5 + 0.5 * share.to(images))
        >>> images = bm.tasks.ImageClasses.from_arrays(torch.ones(6, 4, 4), [0, 0, 1, 1, 2, 2])
        >>> episodes = bm.tasks.Episodes(images, ways=2, augment=Fainter())
        >>> batch = episodes.draw(1, bm.tasks.ClassSplit.at(1, query=1), torch.Generator().manual_seed(0))
        >>> batch.support.x.amax((2, 3, 4))
        tensor([[0.7765, 0.9764]])
    """

    @abstractmethod
    def __call__(
        self, images: Float[Tensor, "n channels height width"], generator: torch.Generator
    ) -> Float[Tensor, "n channels height width"]:
        """The changed images, of the same shape, on the same device, with pixels between 0 and 1.

        Args:
            images: pixels between 0 and 1.
            generator: the only source of randomness; it may be on another device.
        """


@dataclass(frozen=True)
class Affine(Augmentation):
    """Each image is turned, slanted, stretched and shifted at random around its centre, by bilinear interpolation.

    A point v of the image, in pixels from the centre, goes to v' = R H S v + t with R a rotation, H = (1 h; g 1) a
    shear and S a stretch along both axes. All are drawn on their own, uniformly (stretches in their logarithm). What
    comes in from outside is 0, which is paper where ink is 1.

    Attributes:
        degrees: of rotation, up to this in both directions.
        shear: largest slope by which an axis is slanted, less than 1, so that no image is folded.
        scale: stretches go from 1 / (1 + scale) to 1 + scale.
        shift: largest share of the height and of the width by which an image is shifted.

    Raises:
        DataError: a strength that is negative or not finite, or a shear of 1 or more.

    Example:
        >>> import torch
        >>> import bayesmeta as bm
        >>> images = torch.rand(300, 1, 28, 28)
        >>> affine = bm.tasks.Affine(degrees=15.0, shear=0.2, scale=0.15, shift=0.05)
        >>> affine(images, torch.Generator().manual_seed(0)).shape
        torch.Size([300, 1, 28, 28])
        >>> torch.equal(bm.tasks.Affine()(images, torch.Generator()), images)
        True
    """

    degrees: float = 0.0
    shear: float = 0.0
    scale: float = 0.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        """Check the strengths."""
        require_strength(self.degrees, "degrees")
        require_strength(self.shear, "shear", below=1.0)
        require_strength(self.scale, "scale")
        require_strength(self.shift, "shift")

    def __call__(
        self, images: Float[Tensor, "n channels height width"], generator: torch.Generator
    ) -> Float[Tensor, "n channels height width"]:
        """The moved images."""
        if not (self.degrees or self.shear or self.scale or self.shift):
            return images
        maps, shifts = self.maps(len(images), generator)
        return moved(images, maps, shifts)

    def maps(
        self, count: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, "count 2 2"], Float[Tensor, "count 2"]]:
        """Draw R H S and t for so many images; t in shares of the width and the height. On the CPU."""
        turn, first, second, wide, high, right, down = (2.0 * uniform((7, count), generator) - 1.0).unbind()
        angle = math.radians(self.degrees) * turn
        one = torch.ones_like(angle)
        rotation = _matrix(angle.cos(), angle.sin(), -angle.sin(), angle.cos())
        shear = _matrix(one, self.shear * first, self.shear * second, one)
        stretch = math.log1p(self.scale) * torch.stack([wide, high], -1)
        return rotation @ shear * stretch.exp()[:, None, :], self.shift * torch.stack([right, down], -1)


@dataclass(frozen=True)
class StrokeWidth(Augmentation):
    """Strokes grow or shrink at their edges by a random part of a pixel, each image's by its own.

    With a ~ U(-amount, amount), the image is (1 - |a|) x + |a| m, where m is the largest (a > 0) or smallest (a < 0) of
    a pixel and its four neighbours: dilation or erosion, by a pixels, of the image that linear interpolation sees
    between neighbours. Strokes are bright, as ink is in `omniglot`; thinner than two pixels, they become fainter, too.

    Attributes:
        amount: largest growth at an edge in pixels, up to 1.

    Raises:
        DataError: an amount below 0 or above 1.

    Example:
        >>> import torch
        >>> import bayesmeta as bm
        >>> line = torch.zeros(1, 1, 5, 5)
        >>> line[..., 2] = 1.0
        >>> bm.tasks.StrokeWidth(amount=0.5)(line, torch.Generator().manual_seed(2))[0, 0, 2]
        tensor([0.0000, 0.1147, 1.0000, 0.1147, 0.0000])
    """

    amount: float = 0.5

    def __post_init__(self) -> None:
        """Check the amount."""
        require_strength(self.amount, "amount", most=1.0)

    def __call__(
        self, images: Float[Tensor, "n channels height width"], generator: torch.Generator
    ) -> Float[Tensor, "n channels height width"]:
        """The images with other strokes."""
        if not self.amount:
            return images
        growth = self.amount * (2.0 * uniform((len(images), 1, 1, 1), generator) - 1.0).to(images)
        sign = torch.where(growth < 0.0, -1.0, 1.0).to(images)  # erosion is dilation of the negative
        signed = sign * images
        most = signed.clone()
        for axis in (2, 3):
            inner = most.shape[axis] - 1
            for first, second in ((0, 1), (1, 0)):  # slices are several times as fast as pooling by 3
                target = most.narrow(axis, first, inner)
                target.copy_(torch.maximum(target, signed.narrow(axis, second, inner)))
        return images.lerp(sign * most, growth.abs())


@dataclass(frozen=True)
class Composed(Augmentation):
    """Augmentations one after the other; none at all leaves images as they are.

    Attributes:
        parts: the augmentations, the first of them first.

    Raises:
        DataError: no list, or a part that is no `Augmentation`.

    Example:
        >>> import torch
        >>> import bayesmeta as bm
        >>> both = bm.tasks.Composed([bm.tasks.Affine(degrees=10.0), bm.tasks.StrokeWidth(0.3)])
        >>> both(torch.rand(2, 1, 28, 28), torch.Generator().manual_seed(0)).shape
        torch.Size([2, 1, 28, 28])
    """

    parts: Sequence[Augmentation]

    def __post_init__(self) -> None:
        """Check the parts, and keep them as a tuple."""
        if not isinstance(self.parts, Sequence):
            raise DataError(f"expected a list of augmentations, got {said(self.parts)}: write Composed([...])")
        object.__setattr__(self, "parts", tuple(self.parts))
        for part in self.parts:
            if not isinstance(part, Augmentation):
                raise DataError(f"expected every part to be an Augmentation, got {said(part)}")

    def __call__(
        self, images: Float[Tensor, "n channels height width"], generator: torch.Generator
    ) -> Float[Tensor, "n channels height width"]:
        """The images, changed by all parts."""
        for part in self.parts:
            images = part(images, generator)
        return images


def moved(
    images: Float[Tensor, "n channels height width"],
    maps: Float[Tensor, "n 2 2"],
    shifts: Float[Tensor, "n 2"],
) -> Float[Tensor, "n channels height width"]:
    """Images whose points v go to A v + t, by bilinear interpolation; what comes in from outside is 0.

    Args:
        images: pixels between 0 and 1.
        maps: A of each image, for v = (to the right, downwards) in pixels from the centre; not singular. They and the
            shifts may be on another device than the images.
        shifts: t of each image, in shares of the width and of the height.
    """
    if not len(images):
        return images  # torch makes no grid for none
    # a new pixel u shows A⁻¹ (u - t); torch counts half widths and half heights from the centre
    height, width = images.shape[-2:]
    half = torch.tensor([width / 2.0, height / 2.0], dtype=maps.dtype, device=maps.device)
    a, b, c, d = maps.flatten(1).unbind(-1)
    inverse = _matrix(d, -b, -c, a) / (a * d - b * c)[:, None, None] * half / half[:, None]
    start = -(inverse @ (2.0 * shifts)[..., None])
    grid = functional.affine_grid(torch.cat([inverse, start], -1).to(images), list(images.shape), align_corners=False)
    # the weights of interpolation add up to one only up to rounding
    return functional.grid_sample(images, grid, align_corners=False).clamp(0.0, 1.0)


def _matrix(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    return torch.stack([torch.stack([a, b], -1), torch.stack([c, d], -1)], -2)


def require_strength(value: float, name: str, most: float = math.inf, below: float = math.inf) -> None:
    """Raise DataError for what is no finite number of 0 or more, or is beyond its bounds.

    Args:
        value: of an augmentation.
        name: of it, for the message.
        most: the largest that is accepted.
        below: what it must be less than.
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not (0.0 <= value <= most and value < below):  # NaN compares as False
        room = f" below {below:g}" if below < math.inf else f" up to {most:g}" if most < math.inf else ""
        raise DataError(f"expected {name} to be a finite number of 0 or more{room}, got {said(value)}")
