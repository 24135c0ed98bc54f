"""Images with classes, episodes drawn from them, and the division of a task by its classes."""

import itertools
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bayesmeta.data import Data
from bayesmeta.errors import DataError, ShapeError
from bayesmeta.evaluation.evaluate import evaluate
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.images import DEFAULT_QUERY, Episodes, ImageClasses, _distinct
from bayesmeta.tasks.source import ClassSplit, PrefixSplit, RandomSplit
from tests.evaluation.exact import ClassShares


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(classes: int, each: int, groups: int = 1) -> ImageClasses:
    """Every image is its own number: its pixels are (class, place) in 255ths, and class k is of group k mod groups."""
    label = np.arange(classes).repeat(each)
    pixels = np.stack([label, np.tile(np.arange(each), classes)], -1).astype(np.uint8)
    return ImageClasses.from_arrays(pixels[:, None, :], label, label % groups)  # 1 x 2


def content(data: Data) -> torch.Tensor:
    """(class, place) of each point, `B N 2`."""
    return (data.x[:, :, 0, 0] * 255.0).round().long()


# ---------------------------------------------------------------------------------------------------------- ClassSplit


@given(
    labels=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=14), min_size=1, max_size=4),
    shots=st.integers(0, 5),
    query=st.one_of(st.none(), st.integers(1, 6)),
    seed=st.integers(0, 1000),
)
def test_every_class_gives_its_shots_and_keeps_a_query_point(
    labels: list[list[int]], shots: int, query: int | None, seed: int
) -> None:
    tasks = TaskDataset.from_labels([(100.0 * t + np.arange(len(y)), y) for t, y in enumerate(labels)])
    batch = tasks.divided(ClassSplit.at(shots, query), seed)
    for t, y in enumerate(labels):
        support, queried = (
            (d.x[t, d.mask[t], 0].tolist(), d.y[t, d.mask[t]].tolist()) for d in (batch.support, batch.query)
        )
        counts = Counter(y)
        given_away = {c: min(shots, n - 1) for c, n in counts.items()}
        assert Counter(support[1]) == +Counter(given_away)
        left = {c: counts[c] - given_away[c] for c in counts}
        assert Counter(queried[1]) == Counter({c: n if query is None else min(query, n) for c, n in left.items()})
        points = support[0] + queried[0]
        assert len(set(points)) == len(points)  # no point on both sides
        assert all(y[int(x) - 100 * t] == label for x, label in zip(points, support[1] + queried[1], strict=True))
    assert int(batch.support.mask.sum(-1).max()) == batch.support.num_points  # no wider than need be


def test_the_query_stays_and_the_support_grows_with_one_seed() -> None:
    y = np.repeat([0, 1, 2], [9, 7, 12])
    tasks = TaskDataset.from_labels([(np.arange(28.0), y)] * 3)
    batches = [tasks.divided(ClassSplit.at(k, 2), seed=4) for k in (0, 1, 3, 5)]
    for smaller, larger in itertools.pairwise(batches):
        assert torch.equal(smaller.query.x, larger.query.x)
        for t in range(3):
            assert set(smaller.support.x[t, :, 0].tolist()) < set(larger.support.x[t, :, 0].tolist())
    assert not torch.equal(batches[3].support.x, tasks.divided(ClassSplit.at(5, 2), seed=5).support.x)


def test_one_k_is_drawn_for_all_classes_of_a_task() -> None:
    tasks = TaskDataset.from_labels([(np.arange(24.0), np.arange(24) % 3)] * 300)
    support = tasks.divided(ClassSplit((1, 4), 2)).support
    counts = torch.stack([((support.y == c) & support.mask).sum(-1) for c in range(3)], -1)
    assert (counts == counts[:, :1]).all()
    share = torch.bincount(counts[:, 0], minlength=5)[1:] / 300
    assert (share - 0.25).abs().max() < 0.1  # deviation sqrt(.25 * .75 / 300) = .025; four of these


def test_all_points_of_a_class_are_equally_likely_and_in_no_order() -> None:
    tasks = TaskDataset.from_labels([(np.arange(6.0), [0, 0, 0, 0, 1, 1])] * 4000)
    support = tasks.divided(ClassSplit.at(1)).support
    share = torch.bincount(support.x.flatten().long(), minlength=6) / 4000
    expected = torch.tensor([0.25] * 4 + [0.5] * 2)
    torch.testing.assert_close(
        share, expected, rtol=0.0, atol=0.032
    )  # deviation at most .5 / sqrt(4000); four of these
    assert (support.y[:, 0] == 0).float().mean().item() == pytest.approx(0.5, abs=0.032)


def test_room_is_what_the_smallest_class_leaves() -> None:
    tasks = TaskDataset.from_labels([(np.arange(5.0), [0, 0, 0, 1, 1]), ([0.0], [3]), (np.arange(3.0), [1, 1, 1])])
    assert ClassSplit.room(tasks.data).tolist() == [1, 0, 2]
    assert RandomSplit.room(tasks.data).tolist() == [4, 0, 2]
    nothing = Data.empty(tasks.data)
    assert ClassSplit.room(nothing).tolist() == [-1, -1, -1]
    assert [side.num_points for side in ClassSplit.at(2).divide(nothing, generator())] == [0, 0]


def test_a_class_split_needs_labels() -> None:
    tasks = TaskDataset.from_list([([0.0, 1.0], [0.0, 1.0])])
    with pytest.raises(DataError, match=r"expected labels for ClassSplit.*use RandomSplit"):
        tasks.divided(ClassSplit.at(1))
    with pytest.raises(DataError, match="expected labels for ClassSplit"):
        evaluate(ClassShares(), tasks, (1,), split=ClassSplit)


# -------------------------------------------------------------------------------------------------------- ImageClasses


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


# ------------------------------------------------------------------------------------------------------------ Episodes


@pytest.mark.parametrize("within", [False, True])
def test_episodes_have_ways_shots_and_queries_without_repeats(within: bool) -> None:
    batch = Episodes(numbered(12, 7, groups=2), ways=4, within_groups=within).draw(
        200, ClassSplit.at(2, 3), generator()
    )
    support, query = content(batch.support), content(batch.query)
    assert support.shape == (200, 8, 2)
    assert query.shape == (200, 12, 2)
    assert batch.support.mask.all()
    assert batch.query.mask.all()
    assert batch.support.x.dtype == torch.float32
    same = True
    for t in range(200):
        points = [tuple(p) for p in torch.cat([support[t], query[t]]).tolist()]
        assert len(set(points)) == 20
        for data, places, each in ((batch.support, support, 2), (batch.query, query, 3)):
            assert Counter(data.y[t].tolist()) == dict.fromkeys(range(4), each)
            # one class has one label, in support and in query
            pairs = set(zip(places[t, :, 0].tolist(), data.y[t].tolist(), strict=True))
            assert len(pairs) == 4
            same = same and pairs == set(zip(support[t, :, 0].tolist(), batch.support.y[t].tolist(), strict=True))
        groups = {k % 2 for k in support[t, :, 0].tolist()}
        assert len(groups) == 1 or not within
    assert same


def test_classes_labels_images_and_places_are_uniform() -> None:
    batch = Episodes(numbered(5, 4), ways=2).draw(6000, ClassSplit.at(1, 1), generator())
    support = content(batch.support)
    deviation = lambda p: 4.0 * (p * (1.0 - p) / 6000) ** 0.5
    first = support[:, :, 0].gather(1, batch.support.y.argmin(-1, keepdim=True))[:, 0]  # the class labelled 0
    second = support[:, :, 0].gather(1, batch.support.y.argmax(-1, keepdim=True))[:, 0]
    share = torch.bincount(first * 5 + second, minlength=25).reshape(5, 5) / 6000
    expected = torch.full((5, 5), 1 / 20).fill_diagonal_(0.0)
    torch.testing.assert_close(share, expected, rtol=0.0, atol=deviation(1 / 20))
    places = support[:, 0, 1] * 4 + content(batch.query)[:, 0, 1]
    assert places.unique().numel() == 16  # another class may have the same place
    torch.testing.assert_close(
        torch.bincount(support[:, 0, 1], minlength=4) / 6000, torch.full((4,), 0.25), rtol=0.0, atol=deviation(0.25)
    )
    assert (batch.support.y[:, 0] == 0).float().mean().item() == pytest.approx(0.5, abs=deviation(0.5))


@pytest.mark.parametrize(("bound", "count"), [(4, 1), (4, 2), (4, 4)])
def test_distinct_numbers_have_all_orders_equally_likely(bound: int, count: int) -> None:
    drawn = _distinct(torch.full((12_000,), bound), count, generator())
    seen = Counter(tuple(row) for row in drawn.tolist())
    total = math.perm(bound, count)
    assert len(seen) == total
    assert all(len(set(row)) == count for row in seen)
    # chi-square of total - 1 degrees of freedom: mean + 5 deviations
    chi = sum((n - 12_000 / total) ** 2 for n in seen.values()) / (12_000 / total)
    assert chi < total - 1 + 5.0 * (2.0 * (total - 1)) ** 0.5


def test_the_generator_is_the_only_randomness() -> None:
    source = Episodes(numbered(8, 5), ways=(2, 4))
    first = source.draw(9, ClassSplit((1, 2), 2), generator(3))
    torch.manual_seed(99)
    again = source.draw(9, ClassSplit((1, 2), 2), generator(3))
    other = source.draw(9, ClassSplit.at(1, 2), generator(4))
    assert torch.equal(first.query.x, again.query.x)
    assert torch.equal(first.support.y, again.support.y)
    assert first.query.x.shape != other.query.x.shape or not torch.equal(first.query.x, other.query.x)


def test_ways_may_differ_between_tasks() -> None:
    batch = Episodes(numbered(10, 5), ways=(2, 5)).draw(400, ClassSplit.at(1, 2), generator())
    ways = batch.support.counts
    share = torch.bincount(ways, minlength=6)[2:] / 400
    assert (share - 0.25).abs().max() < 0.087  # deviation sqrt(.25 * .75 / 400) = .0217; four of these
    assert torch.equal(batch.query.counts, 2 * ways)
    for data, each in ((batch.support, 1), (batch.query, 2)):
        assert (data.y[~data.mask] == 0).all()
        assert data.x.isfinite().all()
        assert (data.mask.int().diff(dim=-1) <= 0).all()  # padding comes last
        for t in range(50):
            assert Counter(data.y[t, data.mask[t]].tolist()) == dict.fromkeys(range(int(ways[t])), each)
    mixed = Episodes(numbered(5, 3, groups=2), (2, 3), within_groups=True)  # groups of 3 and 2 classes
    support = mixed.draw(300, ClassSplit.at(1, 1), generator()).support
    group = content(support)[:, 0, 0] % 2
    assert (group[support.counts == 3] == 0).all()
    assert 0.3 < group[support.counts == 2].float().mean() < 0.7  # 150 tasks, .5 +- .04; more than four of these


def test_one_number_of_shots_is_drawn_for_a_batch() -> None:
    source = Episodes(numbered(4, 6), 2)
    g = generator()
    counts = Counter(source.draw(2, ClassSplit((1, 3), 1), g).support.num_points // 2 for _ in range(300))
    assert set(counts) == {1, 2, 3}
    assert min(counts.values()) > 67  # 100 +- 8.2; four of these


def test_pixels_are_between_0_and_1_and_floats_stay_what_they_are() -> None:
    pixels = np.array([[[0, 51, 255]]] * 4, dtype=np.uint8)
    values = Episodes(ImageClasses.from_arrays(pixels, [0, 0, 1, 1]), 2).draw(1, ClassSplit.at(1, 1), generator())
    torch.testing.assert_close(values.query.x[0, 0, 0, 0], torch.tensor([0.0, 0.2, 1.0]))
    floats = ImageClasses.from_arrays(pixels / 255.0, [0, 0, 1, 1])
    drawn = Episodes(floats, 2).draw(1, ClassSplit.at(1, 1), generator())
    torch.testing.assert_close(drawn.query.x, values.query.x)
    assert drawn.query.x.dtype == torch.float32


def test_the_query_without_a_number_has_fifteen_or_what_is_left() -> None:
    assert Episodes(numbered(2, 30), 2).draw(1, ClassSplit.at(1), generator()).query.num_points == 2 * DEFAULT_QUERY
    assert Episodes(numbered(2, 6), 2).draw(1, ClassSplit((1, 2)), generator()).query.num_points == 2 * 4


def test_a_dataset_of_episodes_can_be_evaluated_by_class() -> None:
    source = Episodes(numbered(8, 6), ways=3)
    tasks = source.dataset(20, per_class=6, seed=2)
    assert (len(tasks), tasks.data.num_points) == (20, 18)
    assert torch.equal(tasks.data.x, source.dataset(20, per_class=6, seed=2).data.x)
    evaluation = evaluate(ClassShares(3), tasks, (1, 3), split=ClassSplit, query=2)
    for result in evaluation.results:
        assert result.points.tolist() == [6] * 20  # 2 of each class
        # the same number of examples of each class: shares say nothing
        np.testing.assert_allclose(result.scores["nll"], math.log(3.0))
    assert source.pooled(generator()).mask.sum() == 300


def test_impossible_episodes_are_refused(unchecked: None) -> None:
    images = numbered(6, 4, groups=3)
    for ways in (1, 0, (1, 3), (4, 3)):
        with pytest.raises(DataError, match="at least 2 ways"):
            Episodes(images, ways)
    with pytest.raises(DataError, match="at least 7 classes of images for 7 ways, got at most 6"):
        Episodes(images, 7)
    with pytest.raises(DataError, match="at least 3 classes in a group for 3 ways, got at most 2"):
        Episodes(images, (2, 3), within_groups=True)
    plain = ImageClasses(images.images, images.labels, images.class_names)
    with pytest.raises(DataError, match="classes that belong to groups"):
        Episodes(plain, 2, within_groups=True)
    source = Episodes(images, 2)
    for split in (RandomSplit(), PrefixSplit()):
        with pytest.raises(DataError, match=rf"expected a ClassSplit.*got {type(split).__name__}: .*ClassSplit\.at"):
            source.draw(3, split, generator())
    with pytest.raises(DataError, match=r"at least 5 images of every class \(2 support, 3 query\), got 4 of class 0"):
        source.draw(3, ClassSplit.at(2, 3), generator())
    with pytest.raises(DataError, match=r"\(4 support, 1 query\), got 4"):
        source.draw(3, ClassSplit((0, 4)), generator())
    for arguments in ((0, 1), (1, 0)):
        with pytest.raises(DataError, match="at least one task and one image"):
            source.dataset(*arguments)


def test_images_and_episodes_say_what_they_are_and_can_be_moved() -> None:
    images = numbered(6, 4, groups=3)
    assert repr(Episodes(images, (2, 3))) == f"Episodes(2 to 3 ways, {images})"
    assert repr(Episodes(images, 2, within_groups=True)).startswith("Episodes(2 ways, within groups, ImageClasses(24")
    moved = images.to("cpu")
    assert torch.equal(moved.images, images.images)
    assert torch.equal(moved.labels, images.labels)
