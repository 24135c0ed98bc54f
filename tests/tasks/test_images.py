"""Images with classes: from arrays and folders, selected, split, turned and joined."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bayesmeta.errors import DataError, ShapeError
from bayesmeta.tasks.images.image_classes import ImageClasses
from tests.tasks.numbered import numbered


def test_from_arrays_numbers_classes_and_groups_by_sorted_name() -> None:
    pixels = torch.arange(5, dtype=torch.uint8)[:, None, None].expand(5, 2, 3)
    images = ImageClasses.from_arrays(pixels, ["b", "a", "b", "c", "a"], ["y", "x", "y", "x", "x"])
    assert images.class_names == ("a", "b", "c")
    assert images.labels.tolist() == [1, 0, 1, 2, 0]
    assert images.group_names == ("x", "y")
    assert images.groups is not None
    assert images.groups.tolist() == [0, 1, 0]
    assert images.counts.tolist() == [2, 2, 1]
    assert images.shape == (1, 2, 3)
    assert repr(images) == "ImageClasses(5 images 1 x 2 x 3 of 3 classes in 2 groups)"
    colour = ImageClasses.from_arrays(np.random.default_rng(0).random((4, 3, 2, 2)), torch.tensor([7, 7, 5, 5]))
    assert (colour.class_names, colour.groups, colour.num_classes) == ((5, 7), None, 2)


def test_bad_arrays_are_refused(unchecked: None) -> None:
    pixels = np.zeros((4, 2, 2), dtype=np.uint8)
    with pytest.raises(ShapeError, match=r"expected images \(n, height, width\)"):
        ImageClasses.from_arrays(pixels[0], [0, 1])
    with pytest.raises(ShapeError, match="one label for each of 4 images"):
        ImageClasses.from_arrays(pixels, [0, 1])
    with pytest.raises(ShapeError, match="one group for each of 4 images"):
        ImageClasses.from_arrays(pixels, [0, 0, 1, 1], ["a"])
    with pytest.raises(DataError, match="class 1 in several"):
        ImageClasses.from_arrays(pixels, [0, 0, 1, 1], ["a", "a", "a", "b"])
    with pytest.raises(DataError, match="each label to be a whole number or a text"):
        ImageClasses.from_arrays(pixels, [0.5, 0.5, 1.0, 1.0])
    with pytest.raises(DataError, match="at least one image"):
        ImageClasses.from_arrays(pixels[:0], np.zeros(0, dtype=int))
    with pytest.raises(DataError, match="floating pixels between 0 and 1, got 0 to 255"):
        ImageClasses.from_arrays(np.array([[[0.0]], [[255.0]]]), [0, 1])
    with pytest.raises(DataError, match="floating pixels between 0 and 1, got nan"):
        ImageClasses.from_arrays(np.full((2, 1, 1), math.nan), [0, 1])
    with pytest.raises(DataError, match="pixels of type uint8"):
        ImageClasses.from_arrays(pixels.astype(np.int32), [0, 0, 1, 1])
    image, label = torch.zeros(2, 1, 1, 1), torch.tensor([0, 1])
    for arguments, error, message in (
        ((image[:, 0], label, ("a", "b")), ShapeError, "images of shape"),
        ((image, label, ("a",)), DataError, "labels from 0 to 0, got 0 to 1"),
        ((image, label, ("a", "b", "c")), DataError, "an image of every class, got none of 'c'"),
        ((image, label, ("a", "a")), DataError, "2 distinct class names, got 1"),
        ((image, label, ("a", "b"), label[:1], ("x",)), ShapeError, "a group for each of 2 classes"),
        ((image, label, ("a", "b"), label, ("x",)), DataError, "groups from 0 to 0, got 0 to 1"),
        ((image, label, ("a", "b"), label, ("x", "x")), DataError, "distinct group names"),
    ):
        with pytest.raises(error, match=message):
            ImageClasses(*arguments)


def test_selections_keep_images_with_their_classes_and_groups() -> None:
    images = numbered(6, 3, groups=3)
    chosen = images.select([4, 0])
    assert chosen.class_names == (4, 0)
    assert chosen.group_names == (0, 1)
    assert chosen.groups is not None
    assert [chosen.group_names[g] for g in chosen.groups.tolist()] == [1, 0]
    assert [chosen.class_names[k] for k in chosen.labels.tolist()] == chosen.images[:, 0, 0, 0].tolist()
    assert images.select_groups([2, 0]).class_names == (0, 2, 3, 5)
    for names, message in (([9], "name of a class, got 9"), ([], "distinct class names"), ([1, 1], "distinct class")):
        with pytest.raises(DataError, match=message):
            images.select(names)
    with pytest.raises(DataError, match="distinct class names, got 'ab'"):
        images.select("ab")
    plain = ImageClasses(images.images, images.labels, images.class_names)
    with pytest.raises(DataError, match="expected classes that belong to groups"):
        plain.select_groups([0])
    assert plain.select([3]).groups is None


def test_splits_are_by_class_or_by_group_and_repeatable() -> None:
    images = numbered(12, 2, groups=4)
    train, test = images.split(0.25, seed=1)
    assert sorted([*train.class_names, *test.class_names]) == list(range(12))
    assert (train.num_classes, test.num_classes) == (9, 3)
    assert images.split(0.25, seed=1)[1].class_names == test.class_names
    assert images.split(0.25, seed=2)[1].class_names != test.class_names
    assert images.split(5)[1].num_classes == 5
    train, test = images.split_groups(0.5, seed=0)
    assert (len(train.group_names), len(test.group_names)) == (2, 2)
    assert not set(train.group_names) & set(test.group_names)
    assert train.num_classes == test.num_classes == 6
    for share in (0.0, 1.5, -1, 12, math.nan):
        with pytest.raises(DataError, match="expected"):
            images.split(share)
    with pytest.raises(DataError, match="at least one of the 1 groups on each side"):
        numbered(4, 1).split_groups(0.5)


def test_rotations_are_classes_of_their_own() -> None:
    pixels = torch.tensor([[[0, 1], [2, 3]], [[4, 5], [6, 7]]], dtype=torch.uint8)
    turned = ImageClasses.from_arrays(pixels, ["a", "b"], ["x", "y"]).rotated()
    assert turned.class_names == ("a", "b", ("a", 90), ("b", 90), ("a", 180), ("b", 180), ("a", 270), ("b", 270))
    where = turned.labels == turned.class_names.index(("b", 90))
    assert turned.images[where, 0].tolist() == [[[5, 7], [4, 6]]]  # counterclockwise
    assert turned.images[turned.labels == 4, 0].tolist() == [[[3, 2], [1, 0]]]
    assert turned.groups is not None
    assert turned.groups.tolist() == [0, 1] * 4
    with pytest.raises(DataError, match="square images to rotate, got height 1 and width 2"):
        numbered(2, 1).rotated()


def test_sources_are_joined_by_name_of_group(unchecked: None) -> None:
    images = numbered(6, 2, groups=2)
    parts = [images.select([5, 1]), images.select([0, 2])]
    joined = ImageClasses.concatenate(parts)
    assert joined.class_names == (5, 1, 0, 2)
    assert joined.group_names == (1, 0)
    assert joined.groups is not None
    assert joined.groups.tolist() == [0, 0, 1, 1]
    assert [joined.class_names[k] for k in joined.labels.tolist()] == joined.images[:, 0, 0, 0].tolist()
    with pytest.raises(DataError, match="distinct class names"):
        ImageClasses.concatenate([images, images])
    with pytest.raises(DataError, match="at least one source"):
        ImageClasses.concatenate([])
    with pytest.raises(ShapeError, match="images of one shape"):
        ImageClasses.concatenate([images, ImageClasses.from_arrays(np.zeros((1, 3, 3), dtype=np.uint8), [9], [0])])
    with pytest.raises(DataError, match="with groups or none"):
        ImageClasses.concatenate([images, ImageClasses.from_arrays(np.zeros((1, 1, 2), dtype=np.uint8), [9])])


def save(path: Path, value: int, mode: str = "L", size: tuple[int, int] = (4, 3)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode in ("L", "1") else (value, 0, 0)).save(path)


def test_folders_of_classes_and_of_groups(tmp_path: Path) -> None:
    for value, name in enumerate(("n02/x.png", "n01/b.png", "n01/a.PNG")):
        save(tmp_path / "flat" / name, value)
    (tmp_path / "flat/n01/notes.txt").write_text("no image")
    (tmp_path / "flat/n01/.hidden.png").write_text("no image")
    (tmp_path / "flat/.cache").mkdir()
    images = ImageClasses.from_folder(tmp_path / "flat")
    assert images.class_names == ("n01", "n02")
    assert images.groups is None
    assert images.shape == (1, 3, 4)
    assert images.images[:, 0, 0, 0].tolist() == [2, 1, 0]  # a, b, x
    for value, name in enumerate(("fish/eel/1.png", "bird/owl/1.png", "bird/emu/1.png")):
        save(tmp_path / "deep" / name, value, mode="RGB")
    save(tmp_path / "deep/bird/owl/2.png", 9)  # grey next to colour
    deep = ImageClasses.from_folder(str(tmp_path / "deep"))
    assert deep.class_names == ("bird/emu", "bird/owl", "fish/eel")
    assert deep.group_names == ("bird", "fish")
    assert deep.shape == (3, 3, 4)
    assert deep.images[:, :, 0, 0].tolist() == [[2, 0, 0], [1, 0, 0], [9, 9, 9], [0, 0, 0]]


def test_folders_are_resized_on_request(tmp_path: Path) -> None:
    save(tmp_path / "a/1.png", 80, size=(40, 20))
    save(tmp_path / "b/1.png", 90, size=(30, 30))
    with pytest.raises(DataError, match=r"images of one size, got height and width \(20, 40\) in class 'a'.*give size"):
        ImageClasses.from_folder(tmp_path)
    images = ImageClasses.from_folder(tmp_path, size=(5, 7))
    assert images.shape == (1, 5, 7)
    assert images.images.flatten(1).unique(dim=1).tolist() == [[80], [90]]  # a filter keeps what is constant
    with pytest.raises(DataError, match=r"expected size=\(height, width\)"):
        ImageClasses.from_folder(tmp_path, size=(0, 7))


def test_folders_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere, which is not a folder"):
        ImageClasses.from_folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match="to hold class folders with image files"):
        ImageClasses.from_folder(tmp_path)
    save(tmp_path / "a/1.png", 1)
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match=r"image files in every class folder, got none in .*b"):
        ImageClasses.from_folder(tmp_path)
    whole = (tmp_path / "a/1.png").read_bytes()
    for broken in (b"no image", whole[:45], b""):
        (tmp_path / "b/2.png").write_bytes(broken)
        with pytest.raises(DataError, match=r"expected an image file, got .*2\.png"):
            ImageClasses.from_folder(tmp_path)
    Image.fromarray(np.zeros((3, 4), dtype=np.uint16)).save(tmp_path / "b/2.png")
    with pytest.raises(DataError, match=r"8 bits a channel, got mode I;16 in .*2\.png"):
        ImageClasses.from_folder(tmp_path)


def test_makers_stay_with_their_images() -> None:
    pixels = torch.arange(12, dtype=torch.uint8)[:, None, None].expand(12, 2, 2)
    labels, names = torch.arange(12) % 4, ["b", "c", "a"] * 4
    images = ImageClasses.from_arrays(pixels, labels, labels % 2, names)
    assert images.require_makers().tolist() == [1, 2, 0] * 4
    by = lambda each: [[1, 2, 0][n % 3] for n in each.images[:, 0, 0, 0].tolist()]
    parts = images.split(test=0.5, seed=1)
    turned = images.rotated()
    for each in (images.select([3, 0]), images.select_groups([1]), *parts, ImageClasses.concatenate(parts), turned):
        assert each.require_makers().tolist() == by(each)
    assert torch.equal(images.to("cpu").require_makers(), images.require_makers())
    plain = ImageClasses.from_arrays(pixels, labels, labels % 2)
    assert plain.makers is None
    assert plain.rotated().makers is None
    assert plain.to("cpu").makers is None
    assert ImageClasses.concatenate([images.select([0]), plain.select([1])]).makers is None
    ungrouped = ImageClasses.from_arrays(pixels, labels, makers=names)
    assert ungrouped.select([2]).require_makers().tolist() == by(ungrouped.select([2]))


def test_makers_that_make_no_sense_are_refused(unchecked: None) -> None:
    image, label = torch.zeros(2, 1, 1, 1), torch.tensor([0, 1])
    for makers in (label.float(), label.bool(), label - 1):
        with pytest.raises(DataError, match=r"makers that are whole numbers of 0 or more, got torch\..*from_arrays"):
            ImageClasses(image, label, ("a", "b"), makers=makers)
    with pytest.raises(ShapeError, match=r"a maker for each of 2 images, got shape \(1,\)"):
        ImageClasses(image, label, ("a", "b"), makers=label[:1])
    with pytest.raises(ShapeError, match="one maker for each of 2 images"):
        ImageClasses.from_arrays(image, label, makers=["a"])
    with pytest.raises(DataError, match="images whose makers are known, got none: give makers to from_arrays"):
        ImageClasses(image, label, ("a", "b")).require_makers()
