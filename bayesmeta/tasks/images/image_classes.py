"""Images with classes."""

import io
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from bayesmeta.arguments import generator_of
from bayesmeta.errors import DataError, ShapeError
from bayesmeta.typing import ArrayLike

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")


@dataclass(frozen=True, eq=False, repr=False)
class ImageClasses:
    """n images of K classes, which may belong to groups (the alphabets of characters). A value, on one device.

    Make one with `from_arrays`, `from_folder` or `omniglot`, and draw tasks from it with `Episodes`.

    Attributes:
        images: `n channels height width`; uint8, or floats between 0 and 1.
        labels: `n`, the class of each image, 0..K-1; every class has an image.
        class_names: K distinct names.
        groups: `K`, the group of each class, or None where there are none.
        group_names: the names of the groups.
        makers: `n`, the number of who made each image (the drawer of a character, the writer of a digit), or None where
            that is not known. Two images of a group with the same number are by one maker; of different groups, that
            says nothing.

    Raises:
        ShapeError: images that are not `n channels height width`, or another number of labels, groups or makers.
        DataError: no images, pixels that are neither uint8 nor between 0 and 1, labels or groups out of range, a class
            without an image, names that are not distinct, makers that are no whole numbers of 0 or more.

    Example:
        >>> import torch
        >>> import bayesmeta as bm
        >>> characters = ["alpha", "alpha", "beta", "beta", "aleph", "aleph"]
        >>> alphabets = ["Greek", "Greek", "Greek", "Greek", "Hebrew", "Hebrew"]
        >>> images = bm.tasks.ImageClasses.from_arrays(torch.rand(6, 28, 28), characters, alphabets)
        >>> images
        ImageClasses(6 images 1 x 28 x 28 of 3 classes in 2 groups)
        >>> images.select_groups(["Greek"]).class_names
        ('alpha', 'beta')
    """

    images: Shaped[Tensor, "n channels height width"]
    labels: Int[Tensor, "n"]
    class_names: tuple[Hashable, ...]
    groups: Int[Tensor, "K"] | None = None
    group_names: tuple[Hashable, ...] = ()
    makers: Int[Tensor, "n"] | None = None

    def __post_init__(self) -> None:
        """Check shapes, pixels and names."""
        images, classes = self.images, len(self.class_names)
        if images.ndim != 4 or tuple(self.labels.shape) != tuple(images.shape[:1]):
            raise ShapeError(
                "expected images of shape (n, channels, height, width) and one label for each, "
                f"got {tuple(images.shape)} and {tuple(self.labels.shape)}"
            )
        if images.numel() == 0:
            raise DataError(f"expected at least one image, got images of shape {tuple(images.shape)}")
        _require_pixels(images)
        counts = _counts(self.labels, classes, "labels")
        if bool((counts == 0).any()):
            raise DataError(f"expected an image of every class, got none of {self.class_names[int(counts.argmin())]!r}")
        if len(set(self.class_names)) != classes:
            raise DataError(f"expected {classes} distinct class names, got {len(set(self.class_names))}")
        if self.groups is not None:
            if tuple(self.groups.shape) != (classes,):
                raise ShapeError(f"expected a group for each of {classes} classes, got {tuple(self.groups.shape)}")
            _counts(self.groups, len(self.group_names), "groups")
        if len(set(self.group_names)) != len(self.group_names):
            raise DataError(f"expected distinct group names, got {self.group_names}")
        if self.makers is not None:
            _require_makers(self.makers, len(images))

    @classmethod
    def from_arrays(
        cls,
        images: ArrayLike,
        labels: ArrayLike,
        groups: ArrayLike | None = None,
        makers: ArrayLike | None = None,
    ) -> "ImageClasses":
        """Classes from arrays, numpy or torch. Classes, groups and makers are numbered in the order of their names.

        Args:
            images: `n height width` or `n channels height width` (channels first); uint8, or floats between 0 and 1.
            labels: `n`, the name of each image's class: whole numbers or texts.
            groups: `n`, the name of each image's group; the images of a class belong to one group.
            makers: `n`, the name of who made each image.

        Raises:
            ShapeError: lengths differ.
            DataError: pixels out of range, a class in two groups, no images.
        """
        pixels = images if isinstance(images, Tensor) else torch.from_numpy(np.array(images))
        pixels = pixels[:, None] if pixels.ndim == 3 else pixels
        if pixels.ndim != 4:
            raise ShapeError(f"expected images (n, height, width) or (n, channels, height, width), got {pixels.shape}")
        class_names, index = _numbered(labels, len(pixels), "label")
        by = None if makers is None else _numbered(makers, len(pixels), "maker")[1].to(pixels.device)
        if groups is None:
            return cls(pixels, index.to(pixels.device), class_names, makers=by)
        group_names, group_of_image = _numbered(groups, len(pixels), "group")
        group_of_class = torch.zeros(len(class_names), dtype=torch.int64)
        group_of_class[index] = group_of_image
        wrong = (group_of_class[index] != group_of_image).nonzero().flatten()
        if len(wrong):
            name = class_names[int(index[wrong[0]])]
            raise DataError(f"expected the images of a class in one group, got class {name!r} in several")
        return cls(pixels, index.to(pixels.device), class_names, group_of_class.to(pixels.device), group_names, by)

    @classmethod
    def from_folder(cls, path: str | Path, size: tuple[int, int] | None = None) -> "ImageClasses":
        """Classes from folders of image files: `path/class/image.png`, or `path/group/class/image.png`.

        miniImageNet (`path` is its folder train, val or test) and CIFAR-FS (`path` is data; `select` takes the classes
        that its lists of splits name) come like this. Classes, groups and files are taken in sorted order; a class in
        a group is named "group/class". Hidden files and files that are no images are left out. Images are grey only
        if all of them are.

        Args:
            path: the folder.
            size: (height, width) that images are resized to, with Lanczos's filter; by default they must be of one.

        Raises:
            DataError: a missing or empty folder, folders of classes next to folders of groups, a file that cannot be
                read, images of several sizes. The folder or file is named.
        """
        root = Path(path)
        if not root.is_dir():
            raise DataError(f"expected a folder of classes, got {root}, which is not a folder")
        folders = _subfolders(root)
        has_images = [bool(_image_files(folder)) for folder in folders]
        if not any(has_images):
            folders = [inner for folder in folders for inner in _subfolders(folder)]
        pixels, labels = [], []
        for folder in folders:
            files = _image_files(folder)
            if not files:
                raise DataError(f"expected image files in every class folder, got none in {folder}")
            pixels += [resized(read_image(file, str(file)), size, str(file)) for file in files]
            labels += [folder.relative_to(root).as_posix()] * len(files)
        if not pixels:
            raise DataError(f"expected {root} to hold class folders with image files {', '.join(SUFFIXES)}, got none")
        for array, label in zip(pixels, labels, strict=True):
            if array.shape[:2] != pixels[0].shape[:2]:
                raise DataError(
                    f"expected images of one size, got height and width {pixels[0].shape[:2]} in class {labels[0]!r} "
                    f"and {array.shape[:2]} in {label!r}: give size=(height, width)"
                )
        if len({array.ndim for array in pixels}) > 1:  # grey next to colour: three equal channels lose nothing
            pixels = [array if array.ndim == 3 else np.repeat(array[..., None], 3, -1) for array in pixels]
        stacked = np.stack(pixels)
        stacked = np.moveaxis(stacked, -1, 1) if stacked.ndim == 4 else stacked
        groups = None if any(has_images) else [label.split("/")[0] for label in labels]
        return cls.from_arrays(stacked, labels, groups)

    @property
    def num_classes(self) -> int:
        """K, the number of classes."""
        return len(self.class_names)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape (channels, height, width) of one image."""
        return tuple(self.images.shape[1:])

    @property
    def counts(self) -> Int[Tensor, "K"]:
        """The number of images of each class."""
        return torch.bincount(self.labels, minlength=self.num_classes)

    def __repr__(self) -> str:
        """The number of images, classes and groups."""
        groups = "" if self.groups is None else f" in {len(self.group_names)} groups"
        shape = " x ".join(map(str, self.shape))
        return f"ImageClasses({len(self.images)} images {shape} of {self.num_classes} classes{groups})"

    def to(self, device: torch.device | str) -> "ImageClasses":
        """The same images on a device: episodes are then put together there."""
        groups = None if self.groups is None else self.groups.to(device)
        makers = None if self.makers is None else self.makers.to(device)
        return replace(self, images=self.images.to(device), labels=self.labels.to(device), groups=groups, makers=makers)

    def select(self, names: Sequence[Hashable]) -> "ImageClasses":
        """The classes of these names, in this order. Raises DataError for an unknown or repeated name, or no name."""
        return self._take(_positions(names, self.class_names, "class"))

    def select_groups(self, names: Sequence[Hashable]) -> "ImageClasses":
        """All classes of these groups. Raises DataError like `select`, or where classes have no groups."""
        groups = self.require_groups().tolist()
        chosen = set(_positions(names, self.group_names, "group"))
        return self._take([k for k, group in enumerate(groups) if group in chosen])

    def split(self, test: int | float = 0.25, seed: int = 0) -> tuple["ImageClasses", "ImageClasses"]:
        """Divide the classes at random into (train, test).

        Args:
            test: the share of the classes that are held out, or their number (1 or more).
            seed: of the division.

        Raises:
            DataError: a share outside (0, 1), a number that is not whole, or too few classes for one on each side.
        """
        train, held_out = _divided(self.num_classes, test, seed, "classes")
        return self._take(train), self._take(held_out)

    def split_groups(self, test: int | float = 0.25, seed: int = 0) -> tuple["ImageClasses", "ImageClasses"]:
        """Divide into (train, test) so that no group has classes on both sides. Raises DataError like `split`."""
        groups = self.require_groups().tolist()
        sides = _divided(len(self.group_names), test, seed, "groups")
        train, held_out = ([k for k, group in enumerate(groups) if group in side] for side in map(set, sides))
        return self._take(train), self._take(held_out)

    def rotated(self) -> "ImageClasses":
        """The classes, and each of them turned by 90, 180 and 270 degrees as a class of its own (Santoro et al. 2016).

        The names of the new classes are pairs (name, degrees). It takes four times the memory.

        Raises:
            DataError: images that are not square.
        """
        if self.shape[1] != self.shape[2]:
            raise DataError(f"expected square images to rotate, got height {self.shape[1]} and width {self.shape[2]}")
        turns = range(4)
        return ImageClasses(
            torch.cat([torch.rot90(self.images, turn, (2, 3)) for turn in turns]),
            torch.cat([self.labels + turn * self.num_classes for turn in turns]),
            tuple((name, 90 * turn) if turn else name for turn in turns for name in self.class_names),
            None if self.groups is None else self.groups.repeat(4),
            self.group_names,
            None if self.makers is None else self.makers.repeat(4),
        )

    @classmethod
    def concatenate(cls, parts: Sequence["ImageClasses"]) -> "ImageClasses":
        """The classes of several sources together; groups of one name become one. All must have groups, or none.

        Makers are known where all parts know them; in a group that several parts have, one number is one maker.

        Raises:
            DataError: nothing to join, a class name that occurs twice, some with groups and some without, pixels of
                different types.
            ShapeError: images of different sizes.
        """
        if not parts:
            raise DataError("expected at least one source of images, got none")
        if len({part.shape for part in parts}) > 1:
            raise ShapeError(f"expected images of one shape, got {[part.shape for part in parts]}")
        if len({(part.images.dtype, part.groups is None) for part in parts}) > 1:
            raise DataError("expected sources with pixels of one type, and all of them with groups or none")
        starts = np.cumsum([0] + [part.num_classes for part in parts]).tolist()
        names: dict[Hashable, int] = {}
        groups = []
        for part in parts:
            for name in part.group_names:
                names.setdefault(name, len(names))
            if part.groups is not None:
                number = torch.tensor([names[name] for name in part.group_names], device=part.groups.device)
                groups.append(number[part.groups])
        makers = [part.makers for part in parts if part.makers is not None]
        return cls(
            torch.cat([part.images for part in parts]),
            torch.cat([part.labels + start for part, start in zip(parts, starts, strict=False)]),
            tuple(name for part in parts for name in part.class_names),
            torch.cat(groups) if groups else None,
            tuple(names),
            torch.cat(makers) if len(makers) == len(parts) else None,
        )

    def require_groups(self) -> Int[Tensor, "K"]:
        """`groups`. Raises DataError where there are none."""
        if self.groups is None:
            raise DataError("expected classes that belong to groups, got none: give groups to from_arrays")
        return self.groups

    def require_makers(self) -> Int[Tensor, "n"]:
        """`makers`. Raises DataError where they are not known."""
        if self.makers is None:
            raise DataError("expected images whose makers are known, got none: give makers to from_arrays")
        return self.makers

    def _take(self, classes: Sequence[int]) -> "ImageClasses":
        """The classes at these positions, renumbered, with the groups that they have."""
        device = self.labels.device
        chosen = torch.tensor(classes, device=device)
        number = torch.full((self.num_classes,), -1, device=device)
        number[chosen] = torch.arange(len(classes), device=device)
        labels = number[self.labels]
        kept = labels >= 0
        names = tuple(self.class_names[k] for k in classes)
        makers = None if self.makers is None else self.makers[kept]
        if self.groups is None:
            return ImageClasses(self.images[kept], labels[kept], names, makers=makers)
        present, groups = torch.unique(self.groups[chosen], return_inverse=True)
        group_names = tuple(self.group_names[g] for g in present.tolist())
        return ImageClasses(self.images[kept], labels[kept], names, groups, group_names, makers)


def read_image(source: Path | bytes, name: str) -> np.ndarray:
    """The pixels of an image file, uint8: `height width` where it is grey, and `height width 3` in colour.

    Raises:
        DataError: it cannot be read, or has more than 8 bits a channel; `name` says which.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            mode = image.mode
            pixels = np.array(image.convert("L" if mode in ("1", "L", "LA") else "RGB"))
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"expected an image file, got {error} in {name}") from error
    if mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"):
        raise DataError(f"expected an image of 8 bits a channel, got mode {mode} in {name}")
    return pixels


def resized(pixels: np.ndarray, size: tuple[int, int] | None, name: str = "images") -> np.ndarray:
    """uint8 pixels `height width *3` at another (height, width), by Lanczos's filter over the area of a new pixel.

    Raises:
        DataError: a size that is not two positive whole numbers.
    """
    from PIL import Image

    if size is None or tuple(pixels.shape[:2]) == tuple(size):
        return pixels
    if len(size) != 2 or min(size) < 1:
        raise DataError(f"expected size=(height, width) for {name}, got {size}")
    return np.array(Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.LANCZOS))


def _subfolders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _image_files(folder: Path) -> list[Path]:
    files = (entry for entry in folder.iterdir() if entry.is_file() and not entry.name.startswith("."))
    return sorted(entry for entry in files if entry.suffix.lower() in SUFFIXES)


def _require_pixels(images: Tensor) -> None:
    if images.dtype == torch.uint8:
        return
    if not images.is_floating_point():
        raise DataError(f"expected pixels of type uint8, or floats between 0 and 1, got {images.dtype}")
    low, high = float(images.min()), float(images.max())
    if not (low >= 0.0 and high <= 1.0):  # NaN compares as False
        raise DataError(f"expected floating pixels between 0 and 1, got {low:g} to {high:g}: divide by the largest")


def _require_makers(makers: Tensor, length: int) -> None:
    if tuple(makers.shape) != (length,):
        raise ShapeError(f"expected a maker for each of {length} images, got shape {tuple(makers.shape)}")
    if makers.is_floating_point() or makers.dtype == torch.bool or int(makers.min()) < 0:
        raise DataError(
            f"expected makers that are whole numbers of 0 or more, got {makers.dtype}: from_arrays takes names"
        )


def _counts(values: Tensor, total: int, what: str) -> Tensor:
    low, high = (int(values.min()), int(values.max())) if len(values) else (0, -1)
    if low < 0 or high >= total:
        raise DataError(f"expected {what} from 0 to {total - 1}, got {low} to {high}")
    return torch.bincount(values.long(), minlength=total)


def _numbered(values: ArrayLike, length: int, what: str) -> tuple[tuple[Hashable, ...], Tensor]:
    """Distinct names in sorted order, and of each value the number of its name."""
    array = np.asarray(values.cpu() if isinstance(values, Tensor) else values)
    if array.shape != (length,):
        raise ShapeError(f"expected one {what} for each of {length} images, got shape {array.shape}")
    if array.dtype.kind not in "biuUS":
        cells = array.tolist()
        if not all(isinstance(cell, str | int) for cell in cells):
            raise DataError(f"expected each {what} to be a whole number or a text, got dtype {array.dtype}")
        array = np.array(cells)
    names, index = np.unique(array, return_inverse=True)
    return tuple(names.tolist()), torch.from_numpy(index.reshape(-1).astype(np.int64))


def _positions(names: Sequence[Hashable], known: Sequence[Hashable], what: str) -> list[int]:
    if isinstance(names, str) or len(names) == 0 or len(set(names)) != len(names):
        raise DataError(f"expected a list of distinct {what} names, got {names!r}")
    place = {name: position for position, name in enumerate(known)}
    for name in names:
        if name not in place:
            raise DataError(f"expected the name of a {what}, got {name!r}; the first are {list(known[:5])}")
    return [place[name] for name in names]


def _divided(total: int, test: int | float, seed: int, what: str) -> tuple[list[int], list[int]]:
    """Positions of the train and the test side, each in order."""
    if not (0.0 < test < 1.0 or (test >= 1 and test == int(test))):
        raise DataError(f"expected a share of test {what} between 0 and 1, or their whole number, got {test}")
    count = max(round(test * total), 1) if test < 1.0 else int(test)
    if test < 1.0:
        count = min(count, total - 1)
    if not 1 <= count < total:
        raise DataError(f"expected at least one of the {total} {what} on each side, got {count} for the test")
    order = torch.randperm(total, generator=generator_of(seed)).tolist()
    return sorted(order[count:]), sorted(order[:count])
