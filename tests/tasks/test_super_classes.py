"""Episodes whose classes are groups of classes."""

from collections import Counter

import pytest
import torch

import bayesmeta as bm
from bayesmeta.errors import DataError
from bayesmeta.tasks.images.augment import Affine
from bayesmeta.tasks.images.image_classes import ImageClasses
from bayesmeta.tasks.images.super_classes import SuperClassEpisodes
from bayesmeta.tasks.source import ClassSplit, PrefixSplit, RandomSplit, Split
from tests.tasks.numbered import content, generator, numbered


@pytest.mark.parametrize("split", [ClassSplit.at(2, 1), PrefixSplit.at(24, 12), PrefixSplit.at(24)])
def test_groups_are_the_classes_and_the_query_shows_the_same_members(split: Split) -> None:
    batch = SuperClassEpisodes(numbered(20, 5, groups=4), ways=3, members=4).draw(50, split, generator())
    support, query = content(batch.support), content(batch.query)
    assert support.shape == (50, 24, 2)
    assert query.shape == (50, 12, 2)
    assert batch.support.mask.all()
    for t in range(50):
        assert Counter(batch.support.y[t].tolist()) == dict.fromkeys(range(3), 8)
        assert Counter(batch.query.y[t].tolist()) == dict.fromkeys(range(3), 4)
        # one label, one group
        group = {
            (k % 4, label) for k, label in zip(support[t, :, 0].tolist(), batch.support.y[t].tolist(), strict=True)
        }
        assert len(group) == 3
        assert len({g for g, _ in group}) == len({label for _, label in group}) == 3
        assert group == {
            (k % 4, label) for k, label in zip(query[t, :, 0].tolist(), batch.query.y[t].tolist(), strict=True)
        }
        members = Counter(support[t, :, 0].tolist())
        assert len(members) == 12
        assert set(members.values()) == {2}
        assert Counter(query[t, :, 0].tolist()) == dict.fromkeys(members, 1)
        points = [tuple(p) for p in torch.cat([support[t], query[t]]).tolist()]
        assert len(set(points)) == 36  # no image twice


def test_groups_members_and_images_are_uniform() -> None:
    batch = SuperClassEpisodes(numbered(12, 3, groups=3), ways=2, members=2).draw(
        3000, ClassSplit.at(1, 1), generator()
    )
    support = content(batch.support)
    deviation = lambda p: 4.0 * (p * (1.0 - p) / 3000) ** 0.5
    chosen = (support[:, :, 0, None] == torch.arange(12)).any(1).float().mean(0)  # 2 of 3 groups, 2 of 4 members
    assert (chosen - 1 / 3).abs().max() < deviation(1 / 3)
    places = torch.bincount(support[:, 0, 1], minlength=3) / 3000
    assert (places - 1 / 3).abs().max() < deviation(1 / 3)
    group_of_label_0 = (support[:, :, 0] % 3).gather(1, batch.support.y.argmin(-1, keepdim=True))
    assert (torch.bincount(group_of_label_0[:, 0]) / 3000 - 1 / 3).abs().max() < deviation(1 / 3)
    assert abs(float((batch.support.y[:, 0] == 0).float().mean()) - 0.5) < deviation(0.5)  # in a random order


def test_frozen_tasks_come_in_rounds_of_one_image_of_each_member() -> None:
    source = SuperClassEpisodes(numbered(20, 5, groups=4), ways=3, members=4)
    tasks = source.dataset(6, per_member=3, seed=2)
    assert (len(tasks), tasks.data.num_points) == (6, 36)
    classes = content(tasks.data)[:, :, 0].unflatten(1, (3, 12)).sort(-1).values
    assert (classes.diff(dim=-1) > 0).all()
    assert torch.equal(classes, classes[:, :1].expand(-1, 3, -1))
    assert torch.equal(tasks.data.x, source.dataset(6, per_member=3, seed=2).data.x)
    assert not torch.equal(tasks.data.x, source.dataset(6, per_member=3, seed=3).data.x)
    divided = tasks.divided(PrefixSplit.at(12, 12))
    assert torch.equal(content(divided.support)[:, :, 0].sort(-1).values, classes[:, 0])
    assert torch.equal(content(divided.query)[:, :, 0].sort(-1).values, classes[:, 0])


def test_one_number_of_shots_is_drawn_for_a_batch_and_the_generator_decides() -> None:
    source = SuperClassEpisodes(numbered(12, 6, groups=3), 2, 3, augment=Affine(shift=0.5))
    g = generator()
    counts = Counter(source.draw(2, ClassSplit((0, 3)), g).support.num_points for _ in range(200))
    assert set(counts) == {0, 6, 12, 18}
    assert min(counts.values()) > 25  # 50 +- 6.1; four of these
    assert source.draw(2, ClassSplit((1, 1)), g).query.num_points == 6
    first, again = (source.draw(3, ClassSplit((1, 3), 2), generator(3)) for _ in range(2))
    assert torch.equal(first.query.x, again.query.x)
    assert torch.equal(first.support.y, again.support.y)
    assert source.pooled(g).x.shape == (20, 6, 1, 1, 2)
    assert source.dataset(2).data.x.shape == (2, 12, 1, 1, 2)
    assert (content(source.dataset(50).data)[..., 0].unique() == torch.arange(12)).all()  # as they are: not shifted


def test_small_groups_are_left_out() -> None:
    labels = torch.arange(9).repeat_interleave(
        2
    )  # groups of 4, 3 and 2 classes; the last has a single image of class 8
    group = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2])
    pixels = torch.stack([labels, torch.arange(18) % 2], -1).to(torch.uint8)[:, None]
    images = ImageClasses.from_arrays(pixels[:-1], labels[:-1], group[labels[:-1]])
    batch = SuperClassEpisodes(images, ways=2, members=3).draw(100, ClassSplit.at(1, 1), generator())
    assert content(batch.support)[..., 0].max() == 6
    with pytest.raises(DataError, match=r"at least 2 groups of 4 or more classes for 2 ways, got 1 of 3: give fewer"):
        SuperClassEpisodes(images, ways=2, members=4)
    with pytest.raises(DataError, match=r"at least 2 images of every class in a group of 2 or more, got 1 of class 8"):
        SuperClassEpisodes(images, ways=3, members=2).draw(1, ClassSplit.at(1, 1), generator())


def test_what_makes_no_sense_is_refused(unchecked: None) -> None:
    images = numbered(12, 4, groups=3)
    source = SuperClassEpisodes(images, 3, 4)
    assert repr(source) == f"SuperClassEpisodes(3 ways of 4 members, {images})"
    assert "Affine(" in repr(SuperClassEpisodes(images, 3, 4, augment=Affine(shift=0.1)))
    splits: list[Split] = [RandomSplit(), PrefixSplit((0, 12)), ClassSplit((1, 2), unequal=0.5)]
    for split in splits:
        with pytest.raises(DataError, match=r"expected a ClassSplit, .*give split=ClassSplit\.at\(1, 1\)"):
            source.draw(3, split, generator())
    for ways, members in ((1, 2), (2, 0)):
        with pytest.raises(DataError, match="at least 2 ways and 1 member"):
            SuperClassEpisodes(images, ways, members)
    with pytest.raises(DataError, match="classes that belong to groups"):
        SuperClassEpisodes(ImageClasses(images.images, images.labels, images.class_names), 2, 2)
    with pytest.raises(DataError, match="at least 5 images of every class"):
        source.draw(3, ClassSplit.at(4, 1), generator())
    for arguments, message in (((0,), "at least one task"), ((2, 1), "per_member >= 2"), ((2, 5), "at least 5 images")):
        with pytest.raises(DataError, match=message):
            source.dataset(*arguments)
    with pytest.raises(DataError, match="expected ways to be a whole number"):
        SuperClassEpisodes(images, 2.5, 2)  # type: ignore[arg-type]


def test_learners_are_trained_validated_and_evaluated_by_one_split() -> None:
    pixels, character = torch.rand(60, 16, 16, generator=generator()), torch.arange(60) % 12
    source = SuperClassEpisodes(ImageClasses.from_arrays(pixels, character, character % 3), ways=2, members=3)
    learner = bm.R2D2(bm.Conv4((1, 16, 16), 4, num_groups=2), num_classes=2)
    split = PrefixSplit.at(6, 6)
    bm.fit(learner, source, steps=2, batch_size=2, split=split, validation=source.dataset(2), progress=False)
    evaluation = bm.evaluate(learner, source.dataset(3), shots=[6], split=PrefixSplit, query=6)
    assert evaluation.table().loc[6, "points"] == 3 * 6
