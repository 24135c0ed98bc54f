"""Points with the labels of all classes: minibatches that are the same for the same seed, and epochs of all points."""

import copy

import pytest
import torch

import bayesmeta as bm
from bayesmeta.description import construct, describe
from bayesmeta.errors import DataError, ShapeError
from bayesmeta.tasks import BasePoints, ClassSplit, Episodes, RandomSplit
from tests.tasks.numbered import content, generator, numbered


def test_epochs_are_all_points_once_each_in_orders_of_the_seed() -> None:
    images = numbered(3, 4)
    points, other = BasePoints.from_images(images), BasePoints.from_images(images, seed=1)
    batches = [points.minibatch(step, 5) for step in range(12)]  # five epochs of 12
    assert all(batch.x.shape == (1, 5, 1, 1, 2) and batch.x.dtype == torch.float32 for batch in batches)
    places = torch.cat([content(batch)[0] for batch in batches])
    for epoch in places.split(12):
        assert {tuple(place) for place in epoch.tolist()} == {(k, i) for k in range(3) for i in range(4)}
    assert torch.equal(places[:, 0], torch.cat([batch.y[0] for batch in batches]))  # the label of the class everywhere
    assert not torch.equal(places[:12], places[12:24])
    assert torch.equal(points.minibatch(7, 5).x, batches[7].x)
    assert not torch.equal(other.minibatch(7, 5).x, batches[7].x)
    assert points.minibatch(3, 50).num_points == 12
    assert [chunk.num_points for chunk in points.chunks(5)] == [5, 5, 2]


def test_as_a_source_of_tasks_points_of_a_task_are_distinct() -> None:
    batch = BasePoints.from_images(numbered(3, 4)).draw(50, RandomSplit.at(2, query=6), generator())
    assert batch.support.x.shape == (50, 2, 1, 1, 2)
    both = content(batch.joined())
    assert all(len({tuple(place) for place in task.tolist()}) == 8 for task in both)
    assert torch.equal(both[..., 0], batch.joined().y)
    again = BasePoints.from_images(numbered(3, 4)).draw(50, RandomSplit.at(2, query=6), generator())
    assert torch.equal(again.query.x, batch.query.x)


def test_what_does_not_fit_is_refused() -> None:
    points = BasePoints.from_labels([[0.0], [1.0]], [0, 1])
    assert points.minibatch(0, 2).x.dtype == torch.float64  # as it was given
    with pytest.raises(DataError, match="at least 66 base points for support and query, got 2"):
        points.draw(1, RandomSplit.at(2), generator())
    with pytest.raises(DataError, match="expected a RandomSplit"):
        points.draw(1, ClassSplit.at(1), generator())
    with pytest.raises(DataError, match="labels from 0 to 1, got 4"):
        BasePoints.from_labels([[0.0], [1.0]], [0, 4], num_classes=2)
    with pytest.raises(DataError, match="at least one base point"):
        BasePoints.from_labels([], [])
    train, test = numbered(6, 2).select(range(4)), numbered(6, 2).select([4, 5])
    BasePoints.from_images(train).require_apart(test)
    with pytest.raises(DataError, match="got one of 3"):
        BasePoints.from_images(train).require_apart(numbered(6, 2).select([4, 3]))
    with pytest.raises(ShapeError, match="expected test images of shape"):
        points.require_apart(test)


def test_a_description_has_no_points_and_a_copy_shares_them() -> None:
    points = BasePoints.from_images(numbered(3, 4), seed=5)
    assert copy.deepcopy(points) is points
    described = construct(describe(points))
    assert (described.num_classes, described.x_shape, described.seed, len(described)) == (3, (1, 1, 2), 5, 0)
    for use in (lambda: described.minibatch(0, 4), lambda: described.draw(1, RandomSplit.at(0), generator())):
        with pytest.raises(DataError, match="a model folder does not keep them"):
            use()


def test_a_hyperprior_is_weighed_against_each_image_once() -> None:
    """However many episodes show it; a simulator has infinitely many points."""
    images = numbered(3, 4)
    assert BasePoints.from_images(images).total_points == Episodes(images, ways=2).total_points == 12.0
    assert Episodes(images, ways=2).dataset(5, per_class=3).total_points == 30.0
    assert bm.tasks.Sinusoid().total_points == float("inf")
