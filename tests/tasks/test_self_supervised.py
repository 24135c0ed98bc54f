"""Tasks without labels: single points and their changed copies, and clusters of an embedding."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

import bayesmeta as bm
from bayesmeta.errors import DataError, ShapeError
from bayesmeta.tasks import Affine, AugmentedTasks, ClassSplit, ClusteredTasks, Erased, PixelNoise, RandomSplit
from bayesmeta.tasks.self_supervised import k_means
from tests.tasks.numbered import generator, numbered


class Marked(bm.tasks.Augmentation):
    """Copies of points (i, 0) become (i, a random number)."""

    def __call__(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        noise = torch.rand(len(images), generator=generator) + 0.5
        return torch.stack([images[:, 0], noise], -1)


def marked(count: int = 40) -> torch.Tensor:
    return torch.stack([torch.arange(count).float(), torch.zeros(count)], -1)


def blobs(each: int = 12, classes: int = 5) -> torch.Tensor:
    """Corners of a simplex, 20 deviations of a point apart, in the order 0, 1, 2, ..., 0, 1, 2, ..."""
    centers = 20.0 * torch.eye(classes)
    return centers.repeat(each, 1) + torch.randn(each * classes, classes, generator=generator())


def test_a_class_is_one_point_and_its_changed_copies() -> None:
    split = ClassSplit.at(2, query=3)
    batch = AugmentedTasks(marked(), Marked(), ways=4).draw(60, split, generator())
    assert batch.support.x.shape == (60, 8, 2)
    assert batch.query.x.shape == (60, 12, 2)
    unsorted = False
    for t in range(60):
        items = {}
        for side in (batch.support, batch.query):
            for x, y in zip(side.x[t], side.y[t].tolist(), strict=True):
                assert items.setdefault(y, x[0].item()) == x[0].item()
        assert len(set(items.values())) == len(items) == 4  # of distinct points, by one label in support and query
        plain = batch.support.y[t][batch.support.x[t, :, 1] == 0.0]
        assert sorted(plain.tolist()) == [0, 1, 2, 3]  # the point itself once in the support of each class
        unsorted = unsorted or batch.support.y[t].tolist() != sorted(batch.support.y[t].tolist())
    assert unsorted
    assert (batch.query.x[..., 1] > 0.0).all()  # and never in the query
    copies = torch.cat([batch.support.x, batch.query.x], 1)[..., 1].flatten()
    assert len(copies[copies > 0].unique()) == 60 * (4 + 12)  # each changed by its own draw
    again = AugmentedTasks(marked(), Marked(), ways=4).draw(60, split, generator())
    assert torch.equal(again.support.x, batch.support.x)
    assert torch.equal(again.query.y, batch.query.y)


def test_the_same_picture_is_not_in_support_and_query() -> None:
    pixels = (255 * torch.rand(24, 6, 6, generator=generator())).byte()
    images = bm.tasks.ImageClasses.from_arrays(pixels, torch.arange(24) % 6)
    augment = bm.tasks.Composed([Affine(degrees=20.0, shift=0.2), PixelNoise(0.2)])
    episodes = AugmentedTasks(images, augment, ways=5)
    batch = episodes.draw(20, ClassSplit.at(1, query=2), generator())
    assert batch.support.x.shape == (20, 5, 1, 6, 6)
    assert 0.0 <= float(batch.query.x.min()) <= float(batch.query.x.max()) <= 1.0
    assert not (batch.support.x[:, :, None] == batch.query.x[:, None]).flatten(3).all(-1).any()
    assert episodes.total_points == 24.0
    assert episodes.pooled(generator()).num_points == 24


def test_classes_may_have_unequal_shots() -> None:
    batch = AugmentedTasks(marked(), Marked(), ways=3).draw(40, ClassSplit((1, 4), 2, unequal=1.0), generator())
    counts = torch.stack([(batch.support.mask & (batch.support.y == k)).sum(-1) for k in range(3)], -1)
    assert int(counts.min()) == 1
    assert int(counts.max()) == 4
    assert (counts.amax(-1) > counts.amin(-1)).any()
    assert (batch.query.counts == 6).all()


def test_k_means_recovers_separated_blobs() -> None:
    """Whatever the scales of the axes: distances between blobs are at least 20 x .1 deviations in either axis."""
    x = blobs()
    for seed in range(5):
        labels = k_means(x, 5, generator(seed))
        pairs = {(k % 5, label) for k, label in enumerate(labels.tolist())}
        assert len(pairs) == 5
    episodes = ClusteredTasks(x, x, clusters=5, partitions=4, ways=3)
    assert episodes.labels.shape == (4, 60)
    batch = episodes.draw(30, ClassSplit.at(2, query=3), generator())
    own = torch.cat([batch.support.x, batch.query.x], 1).argmax(-1)  # the corner
    labels = torch.cat([batch.support.y, batch.query.y], 1)
    for corners, y in zip(own, labels, strict=True):
        assert len(set(zip(corners.tolist(), y.tolist(), strict=True))) == 3
    points = torch.cat([batch.support.x, batch.query.x], 1)
    assert all(len(task.unique(dim=0)) == 15 for task in points)  # no point twice in a task
    again = ClusteredTasks(x, x, clusters=5, partitions=4, ways=3).draw(30, ClassSplit.at(2, query=3), generator())
    assert torch.equal(again.query.x, batch.query.x)
    assert not torch.equal(ClusteredTasks(x, x, 5, 4, ways=3, seed=1).labels, episodes.labels)


def test_clusters_that_are_too_small_are_left_out() -> None:
    x = torch.cat([blobs(), 200.0 * torch.eye(5)[:2]])  # and two clusters of one point
    episodes = ClusteredTasks(x, x, clusters=7, partitions=3, ways=5)
    batch = episodes.draw(50, ClassSplit.at(1, query=2), generator())
    assert float(batch.support.x.max()) < 100.0
    with pytest.raises(DataError, match="at least 5 clusters of 13 points or more, which is support and query, got at"):
        episodes.draw(1, ClassSplit.at(3, query=10), generator())
    alike = ClusteredTasks(torch.zeros(9, 2), torch.zeros(9, 2), clusters=4, partitions=1, ways=2)  # empty clusters
    with pytest.raises(DataError, match="at least 2 clusters of 2 points"):
        alike.draw(1, ClassSplit.at(1, query=1), generator())


def test_a_frozen_set_is_one_to_validate_on() -> None:
    episodes = AugmentedTasks(numbered(6, 4).images, Affine(degrees=20.0), ways=5)
    tasks = episodes.dataset(7, per_class=4, seed=3)
    assert (len(tasks), tasks.counts.tolist()) == (7, [20] * 7)
    assert torch.equal(tasks.data.x, episodes.dataset(7, per_class=4, seed=3).data.x)
    learner = bm.Prototypical(bm.MLP(5, [8]))
    source = ClusteredTasks(blobs(), blobs(), clusters=5, partitions=2, ways=3)
    split = ClassSplit.at(1, query=3)
    validation = source.dataset(4, per_class=4)
    result = bm.fit(learner, source, steps=30, lr=1e-2, split=split, validation=validation, progress=False)
    assert result.losses[-1] < result.losses[0]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: AugmentedTasks([1.0, 2.0], Marked()), ShapeError, "expected points x of shape"),
        (lambda: AugmentedTasks(marked(3), Marked()), DataError, "at least 5 points for 5 ways, got 3"),
        (lambda: AugmentedTasks(marked(), Marked(), ways=1), DataError, "ways >= 2, got 1"),
        (lambda: AugmentedTasks(marked(), 3), DataError, "expected augment to be"),
        (lambda: AugmentedTasks([[np.nan, 1.0]] * 5, Marked()), DataError, "expected x to be finite"),
        (lambda: ClusteredTasks(marked(), marked(9)), ShapeError, r"embedding of shape \(40, F\), got \(9, 2\)"),
        (lambda: ClusteredTasks(marked(), marked() * np.inf), DataError, "expected embedding to be finite"),
        (lambda: ClusteredTasks(marked(), marked()), DataError, "as many clusters as 40 points, got 500"),
        (lambda: ClusteredTasks(marked(), marked(), 3), DataError, "clusters >= 5, got 3"),
        (lambda: Erased(1.5), DataError, "expected share to be a finite number of 0 or more up to 1, got 1.5"),
        (lambda: PixelNoise(-1.0), DataError, "expected stddev"),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
    with pytest.raises(DataError, match="expected a ClassSplit"):
        AugmentedTasks(marked(), Marked()).draw(1, RandomSplit.at(1), generator())


def test_noise_and_erasing_change_each_image_by_its_own_draw() -> None:
    images = torch.full((200, 2, 10, 8), 0.5)
    noisy = PixelNoise(0.1)(images, generator())
    deviations = (noisy - images).flatten(1).std(-1)
    assert deviations.max() < 0.12  # .1, and the error of 160 pixels
    assert deviations.mean().item() == pytest.approx(0.05, abs=0.007)
    erased = Erased(0.5)(images, generator()) == 0.0
    assert torch.equal(erased[:, 0], erased[:, 1])  # in all channels
    rows, columns = erased[:, 0].any(2).sum(1), erased[:, 0].any(1).sum(1)
    assert torch.equal(erased[:, 0].sum((1, 2)), rows * columns)  # a rectangle
    assert int(rows.max()) == 5
    assert int(columns.max()) == 4
    assert erased.any(3).any(0).all()  # in any row
    assert erased.any(2).any(0).all()
    assert torch.equal(Erased(0.0)(images, generator()), images)
