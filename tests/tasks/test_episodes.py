"""Episodes drawn from images."""

import math
from collections import Counter

import numpy as np
import pytest
import torch

from bayesmeta.errors import DataError
from bayesmeta.evaluation.evaluate import evaluate
from bayesmeta.tasks.images.draws import distinct
from bayesmeta.tasks.images.episodes import DEFAULT_QUERY, Episodes
from bayesmeta.tasks.images.image_classes import ImageClasses
from bayesmeta.tasks.source import ClassSplit, PrefixSplit, RandomSplit
from tests.evaluation.exact import ClassShares
from tests.tasks.numbered import content, generator, numbered


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
    drawn = distinct(torch.full((12_000,), bound), count, generator())
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


def test_half_of_the_episodes_have_numbers_for_each_class() -> None:
    """Each of their classes on its own, uniform between the shots; the others have the K of the split; queries stay."""
    episodes = Episodes(numbered(12, 14), ways=3, shots=(1, 10))
    batch = episodes.draw(2000, ClassSplit.at(2, 3), generator())
    shots = (torch.where(batch.support.mask, batch.support.y, -1)[..., None] == torch.arange(3)).sum(1)  # B ways
    equal = (shots == 2).all(1)
    # an unequal episode has 2 of each by chance in a thousandth of the cases
    assert equal.float().mean().item() == pytest.approx(0.5 + 0.5e-3, abs=4.0 * 0.5 / 2000**0.5)
    each = torch.bincount(shots[~equal].flatten(), minlength=11)[1:]
    assert each.sum() == shots[~equal].numel()
    share = 1 / 10
    deviation = (share * (1 - share) / each.sum().item()) ** 0.5
    assert ((each / each.sum() - share).abs() < 4.0 * deviation + 1e-3).all()
    assert ((batch.query.y[..., None] == torch.arange(3)).sum(1) == 3).all()
    support, query = content(batch.support), content(batch.query)
    for t in range(50):
        points = [tuple(p) for p in torch.cat([support[t][batch.support.mask[t]], query[t]]).tolist()]
        assert len(set(points)) == len(points)
    assert int(batch.support.counts.max()) == batch.support.num_points  # no wider than need be


def test_unequal_episodes_of_different_ways_and_of_a_split() -> None:
    episodes = Episodes(numbered(12, 14), ways=(2, 5), shots=(0, 4))
    batch = episodes.draw(300, ClassSplit((1, 5), 3), generator())
    assert set(batch.query.counts.tolist()) == {6, 9, 12, 15}
    assert (torch.where(batch.support.mask, batch.support.y, 0).amax(1) < batch.query.counts // 3).all()
    split = Episodes(numbered(12, 14), ways=3).draw(300, ClassSplit((1, 4), 3, unequal=1.0), generator())
    assert set(split.support.counts.tolist()) == set(range(3, 13))
    # frozen sets and pooled points are balanced whatever the shots
    assert (episodes.dataset(20, 10).data.counts % 10 == 0).all()
    assert episodes.pooled(generator()).num_tasks == 100
    assert repr(Episodes(numbered(12, 14), ways=3, shots=(1, 4))).startswith("Episodes(3 ways, 1 to 4 shots in half")
    with pytest.raises(DataError, match=r"expected shots \(smallest, largest\) that are not negative, got \(3, 1\)"):
        Episodes(numbered(12, 14), ways=3, shots=(3, 1))
    with pytest.raises(DataError, match=r"at least 18 images of every class \(15 support, 3 query\), got 14"):
        Episodes(numbered(12, 14), ways=3, shots=(1, 15)).draw(1, ClassSplit.at(1, 3), generator())
