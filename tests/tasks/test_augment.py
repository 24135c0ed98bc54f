"""Images that are changed at random: moved, and with other strokes."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from bayesmeta.errors import DataError, ShapeError
from bayesmeta.tasks.images.augment import Affine, Augmentation, Composed, StrokeWidth, moved
from bayesmeta.tasks.images.episodes import Episodes
from bayesmeta.tasks.images.image_classes import ImageClasses
from bayesmeta.tasks.source import ClassSplit
from tests.tasks.numbered import content, generator, numbered

STRONG = Composed([Affine(degrees=180.0, shear=0.5, scale=0.5, shift=0.3), StrokeWidth(1.0)])
# interpolation at the middle of a pixel: its position is off by some 1e-6 of a pixel in float32
TOLERANCE = 1e-5


def noise(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(shape, generator=generator(5), dtype=dtype)


def turns(degrees: float, count: int) -> Tensor:
    """Counterclockwise as one sees it, with y downwards."""
    a = math.radians(degrees)
    return torch.tensor([[math.cos(a), math.sin(a)], [-math.sin(a), math.cos(a)]]).expand(count, 2, 2)


@pytest.mark.parametrize("side", [1, 8, 9])
@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_quarter_turns_are_those_of_torch(side: int, quarters: int) -> None:
    images = noise(3, 2, side, side)
    turned = moved(images, turns(90.0 * quarters, 3), torch.zeros(3, 2))
    torch.testing.assert_close(turned, torch.rot90(images, quarters, (2, 3)), rtol=0.0, atol=TOLERANCE)


def test_images_that_are_not_square_are_turned_without_a_stretch() -> None:
    images = noise(2, 1, 6, 10)
    turned = moved(images, turns(90.0, 2), torch.zeros(2, 2))
    # of the turned image, 10 high and 6 wide, what is within 6 x 10
    expected = torch.zeros_like(images)
    expected[..., 2:8] = torch.rot90(images, 1, (2, 3))[..., 2:8, :]
    torch.testing.assert_close(turned, expected, rtol=0.0, atol=TOLERANCE)


def test_shifts_stretches_and_shears_go_where_they_say() -> None:
    images = noise(1, 1, 6, 8)
    shifted = moved(images, torch.eye(2)[None], torch.tensor([[2 / 8, -1 / 6]]))  # to the right, and up
    expected = torch.zeros_like(images)
    expected[..., :-1, 2:] = images[..., 1:, :-2]
    torch.testing.assert_close(shifted, expected, rtol=0.0, atol=TOLERANCE)
    dot = torch.zeros(1, 1, 9, 9)
    dot[0, 0, 4, 5] = 1.0  # (1, 0) from the centre
    wide = moved(dot, torch.tensor([[[3.0, 0.0], [0.0, 1.0]]]), torch.zeros(1, 2))
    assert wide[0, 0, 4].argmax() == 7
    slanted = moved(dot, torch.tensor([[[1.0, 0.0], [2.0, 1.0]]]), torch.zeros(1, 2))
    assert slanted.flatten().argmax() == 6 * 9 + 5  # (1, 2)


def test_maps_are_uniform_between_their_strengths() -> None:
    affine = Affine(degrees=30.0, shear=0.4, scale=0.5, shift=0.1)
    maps, shifts = affine.maps(4000, generator())
    assert maps.dtype == torch.float32
    for values in shifts.unbind(-1):
        _assert_uniform(values, 0.1)
    turned = Affine(degrees=30.0).maps(4000, generator())[0]
    _assert_uniform(torch.atan2(turned[:, 0, 1], turned[:, 0, 0]), math.radians(30.0))
    torch.testing.assert_close(torch.linalg.det(turned), torch.ones(4000))
    slanted = Affine(shear=0.4).maps(4000, generator())[0]
    for values in (slanted[:, 0, 1], slanted[:, 1, 0]):
        _assert_uniform(values, 0.4)
    stretched = Affine(scale=0.5).maps(4000, generator())[0]
    for values in stretched.diagonal(dim1=-2, dim2=-1).unbind(-1):
        _assert_uniform(values.log(), math.log(1.5))
    assert (torch.linalg.det(maps) > 0.0).all()  # no image is folded
    assert torch.equal(Affine(shift=0.1).maps(3, generator())[0], torch.eye(2).expand(3, 2, 2))


def _assert_uniform(values: Tensor, bound: float) -> None:
    """Four thousand of them: the mean, and the share in each fifth, within four deviations; rounding at the ends."""
    assert values.abs().max() <= bound * (1.0 + 1e-6)
    assert abs(float(values.mean())) < 4.0 * bound / (3.0 * 4000) ** 0.5
    shares = torch.histc(values / bound, 5, -1.0, 1.0) / 4000
    assert ((shares - 0.2).abs() < 4.0 * (0.2 * 0.8 / 4000) ** 0.5).all()


def test_strokes_grow_and_shrink_by_part_of_a_pixel() -> None:
    line = torch.zeros(400, 1, 7, 9)
    line[..., 3:6] = 1.0
    changed = StrokeWidth(0.8)(line, generator())
    assert torch.equal(changed, changed[:, :, :1].expand(-1, -1, 7, -1))  # the border takes nothing away
    width = changed[:, 0, 0].sum(-1)
    # either edge moves by a, uniform up to .8
    edge = (width - 3.0) / 2.0
    assert edge.abs().max() <= 0.8 + 1e-6
    assert edge.max() > 0.75
    assert edge.min() < -0.75
    assert abs(float(edge.mean())) < 4.0 * 0.8 / (3.0 * 400) ** 0.5
    assert torch.equal(changed[:, 0, 0, 4], torch.ones(400))  # three pixels wide: the middle keeps its ink
    corner = torch.zeros(1, 1, 3, 3)
    corner[0, 0, 1, 1] = 1.0
    grown = StrokeWidth(1.0)(corner.expand(50, -1, -1, -1), generator())
    assert (grown[:, 0, 0, 0] == 0.0).all()  # four neighbours, none of them at a corner
    thick = grown[:, 0, 0, 1] > 0.0
    assert 10 < thick.sum() < 40  # half of 50, deviation 3.5; four of these
    assert (grown[~thick, 0, 1, 1] < 1.0).all()  # thinner than two pixels: fainter
    grey = noise(20, 3, 6, 6)
    torch.testing.assert_close(  # erosion is dilation of the negative
        StrokeWidth(0.7)(grey, generator()), 1.0 - _negated(StrokeWidth(0.7), 1.0 - grey), rtol=0.0, atol=1e-6
    )


def _negated(stroke: StrokeWidth, images: Tensor) -> Tensor:
    """With the opposite growth of each image."""
    growth = stroke.amount * (2.0 * torch.rand(len(images), 1, 1, 1, generator=generator()) - 1.0)
    padded = [torch.nn.functional.pad(images, pad, mode="replicate") for pad in ((1, 1, 0, 0), (0, 0, 1, 1))]
    near = torch.stack([padded[0][..., 2:], padded[0][..., :-2], padded[1][..., 2:, :], padded[1][..., :-2, :], images])
    return torch.where(growth < 0.0, images.lerp(near.amax(0), -growth), images.lerp(near.amin(0), growth))


@pytest.mark.parametrize("augment", [Affine(), StrokeWidth(0.0), Composed([]), Composed([Affine(), StrokeWidth(0.0)])])
def test_strengths_of_zero_leave_images_as_they_are(augment: Augmentation) -> None:
    images = noise(4, 1, 5, 6)
    assert torch.equal(augment(images, generator()), images)


@pytest.mark.parametrize(
    "augment", [Affine(degrees=180.0), Affine(shear=0.9, scale=2.0, shift=1.0), StrokeWidth(1.0), STRONG]
)
@pytest.mark.parametrize("shape", [(40, 1, 12, 12), (5, 3, 4, 9), (3, 1, 1, 1), (1, 1, 1, 7), (0, 1, 4, 4)])
def test_pixels_stay_between_0_and_1(augment: Augmentation, shape: Sequence[int]) -> None:
    for images in (noise(*shape), torch.ones(*shape), noise(*shape, dtype=torch.float64)):
        before = images.clone()
        changed = augment(images, generator())
        assert changed.shape == images.shape
        assert changed.dtype == images.dtype
        assert ((changed >= 0.0) & (changed <= 1.0)).all()
        assert torch.equal(images, before)  # nothing is changed in its place


def test_each_image_has_its_own_change_and_the_generator_decides() -> None:
    image = noise(1, 1, 12, 12).expand(6, -1, -1, -1)
    for augment in (Affine(degrees=20.0), Affine(shear=0.3), Affine(scale=0.3), Affine(shift=0.2), StrokeWidth(0.5)):
        changed = augment(image, generator(1))
        assert len(changed.flatten(1).unique(dim=0)) == 6
        torch.manual_seed(99)
        assert torch.equal(augment(image, generator(1)), changed)
        assert not torch.equal(augment(image, generator(2)), changed)
    one, other = Affine(degrees=20.0), StrokeWidth(0.5)
    g = generator(1)
    assert torch.equal(Composed([one, other])(image, generator(1)), other(one(image, g), g))
    assert Composed([one, other]) == Composed((one, other))


class Darker(Augmentation):
    """Halves every pixel, and remembers how many images it was given."""

    def __init__(self) -> None:
        self.given: list[int] = []

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        self.given.append(len(images))
        return 0.5 * images


def test_episodes_are_augmented_in_training_alone() -> None:
    images, darker = numbered(6, 5), Darker()
    source = Episodes(images, ways=2, augment=darker)
    plain = Episodes(images, ways=2)
    split = ClassSplit.at(1, 2)
    batch, same = source.draw(3, split, generator()), plain.draw(3, split, generator())
    assert darker.given == [6, 12]
    for changed, kept in ((batch.support, same.support), (batch.query, same.query)):
        assert torch.equal(changed.x, 0.5 * kept.x)
        assert torch.equal(changed.y, kept.y)
    assert torch.equal(source.dataset(4, 3).data.x, plain.dataset(4, 3).data.x)
    assert len(darker.given) == 2
    assert torch.equal(source.pooled(generator()).x, 0.5 * plain.pooled(generator()).x)
    assert content(plain.pooled(generator())).max() > 0
    assert repr(Episodes(images, 2, augment=Affine(degrees=10.0))).endswith(
        "Affine(degrees=10.0, shear=0.0, scale=0.0, shift=0.0))"
    )
    strong = Episodes(ImageClasses.from_arrays(noise(24, 1, 8, 8), torch.arange(24) % 4), (2, 4), augment=STRONG)
    first, again = (strong.draw(5, ClassSplit((0, 2), 2), generator(3)) for _ in range(2))
    assert torch.equal(first.query.x, again.query.x)
    empty = strong.draw(2, ClassSplit.at(0, 1), generator())  # no support, nothing to change
    assert empty.support.x.shape == (2, 0, 1, 8, 8)


class Cropped(Augmentation):
    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return images[..., 1:]


def test_what_makes_no_sense_is_refused(unchecked: None) -> None:
    source = Episodes(numbered(4, 3), 2, augment=Cropped())
    with pytest.raises(ShapeError, match=r"expected images of shape \(2, 1, 1, 2\) of .*Cropped.*, got \(2, 1, 1, 1\)"):
        source.draw(1, ClassSplit.at(1, 1), generator())
    with pytest.raises(DataError, match="augment to be an Augmentation or None, got the class Affine: call it"):
        Episodes(numbered(4, 3), 2, augment=Affine)  # type: ignore[arg-type]
    bad: list[Any] = [-0.1, math.nan, math.inf, "1", None, True]
    for value in bad:
        for name in ("degrees", "shear", "scale", "shift"):
            with pytest.raises(DataError, match=f"expected {name} to be a finite number of 0 or more"):
                Affine(**{name: value})
        with pytest.raises(DataError, match="expected amount to be a finite number of 0 or more up to 1"):
            StrokeWidth(value)
    with pytest.raises(DataError, match=r"expected shear to be a finite number of 0 or more below 1, got 1\.0"):
        Affine(shear=1.0)
    with pytest.raises(DataError, match=r"up to 1, got 1\.5"):
        StrokeWidth(1.5)
    with pytest.raises(DataError, match="every part to be an Augmentation, got the class Affine: call it"):
        Composed([Affine])  # type: ignore[list-item]
    with pytest.raises(DataError, match=r"expected a list of augmentations, got an Affine"):
        Composed(Affine())  # type: ignore[arg-type]
