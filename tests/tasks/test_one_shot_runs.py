"""One-shot runs within a group: support by one maker, query by another."""

import dataclasses
from pathlib import Path

import pytest
import torch

import bayesmeta as bm
from bayesmeta.errors import DataError
from bayesmeta.tasks.images.augment import Affine
from bayesmeta.tasks.images.image_classes import ImageClasses
from bayesmeta.tasks.images.omniglot import omniglot
from bayesmeta.tasks.images.one_shot_runs import OneShotRuns
from bayesmeta.tasks.source import ClassSplit, PrefixSplit, RandomSplit, Split
from tests.tasks.numbered import content, drawn, generator, numbered

ONE = ClassSplit.at(1, 1)


def test_a_run_is_of_one_group_and_two_makers() -> None:
    images = drawn(20, 6, groups=3)  # groups of 7, 7 and 6 classes
    batch = OneShotRuns(images, ways=5).draw(300, ONE, generator())
    support, query = content(batch.support), content(batch.query)
    assert support.shape == query.shape == (300, 5, 2)
    assert batch.support.mask.all()
    assert batch.query.mask.all()
    for side in (support, query):
        assert (side[..., 0] % 3 == side[:, :1, 0] % 3).all()  # one group
        assert (side[..., 1] == side[:, :1, 1]).all()  # one maker
    assert (support[:, 0, 1] != query[:, 0, 1]).all()  # not the same
    by_label = [
        side[..., 0].gather(1, data.y.argsort(-1)) for side, data in ((support, batch.support), (query, batch.query))
    ]
    assert torch.equal(by_label[0], by_label[1])  # one label, one class
    assert (by_label[0].sort(-1).values.diff(dim=-1) > 0).all()
    assert torch.equal(batch.query.y.sort(-1).values, torch.arange(5).expand(300, 5))


def test_groups_classes_pairs_labels_and_places_are_uniform() -> None:
    batch = OneShotRuns(drawn(12, 4, groups=2), ways=3).draw(6000, ONE, generator())
    support, query = content(batch.support), content(batch.query)
    deviation = lambda p: 4.0 * (p * (1.0 - p) / 6000) ** 0.5
    assert abs(float((support[:, 0, 0] % 2).float().mean()) - 0.5) < deviation(0.5)
    pairs = torch.bincount(support[:, 0, 1] * 4 + query[:, 0, 1], minlength=16).reshape(4, 4) / 6000
    expected = torch.full((4, 4), 1 / 12).fill_diagonal_(0.0)
    torch.testing.assert_close(pairs, expected, rtol=0.0, atol=deviation(1 / 12))
    first = support[..., 0].gather(1, batch.support.y.argmin(-1, keepdim=True))[:, 0]
    shares = torch.bincount(first, minlength=12) / 6000
    assert (shares - 1 / 12).abs().max() < deviation(1 / 12)
    for data in (batch.support, batch.query):
        assert abs(float((data.y[:, 0] == 0).float().mean()) - 1 / 3) < deviation(1 / 3)


def test_a_pair_of_makers_has_made_all_classes_of_its_runs() -> None:
    """Maker m has not made class m, maker 3 has made one class alone, and has made that one twice; class 5 is rare."""
    images = drawn(5, 4)
    label, maker = images.labels, images.require_makers()
    kept = (label != maker) & ((maker != 3) | (label == 0))
    index = torch.cat([kept.nonzero().flatten(), torch.tensor([3])])  # place 3 of class 0
    rare = ImageClasses(
        images.images[index], label[index], images.class_names, images.groups, images.group_names, maker[index]
    )
    batch = OneShotRuns(rare, ways=2).draw(600, ONE, generator())
    pairs = {
        (int(a), int(b)) for a, b in zip(content(batch.support)[:, 0, 1], content(batch.query)[:, 0, 1], strict=True)
    }
    assert pairs == {(a, b) for a in range(3) for b in range(3) if a != b}
    for side in (batch.support, batch.query):
        both = content(side)
        assert (both[..., 0] != both[..., 1]).all()
    with pytest.raises(DataError, match="two makers have both made at least 4 classes for 4 ways, got at most 3"):
        OneShotRuns(rare, ways=4)


def test_a_maker_with_several_images_of_a_class_gives_any_of_them() -> None:
    images = dataclasses.replace(numbered(3, 6, groups=1), makers=torch.tensor([7, 7, 7, 2, 2, 2]).repeat(3))
    batch = OneShotRuns(images, ways=2).draw(3000, ONE, generator())
    places = torch.bincount(content(batch.support)[:, 0, 1], minlength=6) / 3000
    assert (places - 1 / 6).abs().max() < 4.0 * (1 / 6 * 5 / 6 / 3000) ** 0.5


def test_groups_with_few_classes_are_left_out() -> None:
    pixels = drawn(8, 3).images
    labels, group = torch.arange(8).repeat_interleave(3), torch.tensor([0, 0, 0, 0, 0, 1, 1, 1])
    images = ImageClasses.from_arrays(pixels, labels, group[labels], torch.arange(3).repeat(8))
    assert content(OneShotRuns(images, ways=4).draw(200, ONE, generator()).support)[..., 0].max() == 4
    assert content(OneShotRuns(images, ways=3).draw(200, ONE, generator()).support)[..., 0].max() == 7
    with pytest.raises(DataError, match="at least 6 classes for 6 ways, got at most 5"):
        OneShotRuns(images, ways=6)


def test_frozen_runs_are_support_then_query_and_repeatable() -> None:
    source = OneShotRuns(drawn(12, 4, groups=2), ways=4, augment=Affine(shift=1.0))
    tasks = source.dataset(30, seed=1)
    assert (len(tasks), tasks.data.num_points) == (30, 8)
    maker = content(tasks.data)[..., 1].unflatten(1, (2, 4))
    assert (maker == maker[..., :1]).all()
    assert (maker[:, 0] != maker[:, 1]).all()  # and images are as they are: not shifted
    assert torch.equal(tasks.data.x, source.dataset(30, seed=1).data.x)
    assert not torch.equal(tasks.data.x, source.dataset(30, seed=2).data.x)
    divided = tasks.divided(PrefixSplit.at(4))
    assert torch.equal(divided.query.y.sort(-1).values, torch.arange(4).expand(30, 4))
    assert len(source.dataset()) == 20  # as many as Lake's
    first, again = (source.draw(9, ONE, generator(3)) for _ in range(2))
    assert torch.equal(first.support.x, again.support.x)
    assert torch.equal(first.query.y, again.query.y)
    assert source.pooled(generator()).x.shape == (100, 4, 1, 1, 2)


def test_what_makes_no_sense_is_refused(unchecked: None) -> None:
    images = drawn(6, 3, groups=2)
    source = OneShotRuns(images, 3)
    assert repr(source) == f"OneShotRuns(3 ways, {images})"
    splits: list[Split] = [RandomSplit(), PrefixSplit.at(2), PrefixSplit((0, 3)), ClassSplit(), ClassSplit.at(1, 2)]
    for split in splits:
        with pytest.raises(
            DataError, match=r"one support and one query image of each class, got .*ClassSplit\.at\(1, 1\)"
        ):
            source.draw(3, split, generator())
    allowed: list[Split] = [ClassSplit.at(1), PrefixSplit.at(3), PrefixSplit.at(3, 3)]
    for split in allowed:
        assert torch.equal(source.draw(3, split, generator()).query.x, source.draw(3, ONE, generator()).query.x)
    with pytest.raises(DataError, match="at least 2 ways, got 1"):
        OneShotRuns(images, 1)
    with pytest.raises(DataError, match="images whose makers are known"):
        OneShotRuns(numbered(6, 3, groups=2), 2)
    with pytest.raises(DataError, match="classes that belong to groups"):
        OneShotRuns(ImageClasses(images.images, images.labels, images.class_names, makers=images.makers), 2)
    with pytest.raises(DataError, match="got at most 0"):
        OneShotRuns(drawn(6, 1, groups=2), 2)  # one maker alone
    with pytest.raises(DataError, match="at least one task"):
        source.dataset(0)
    with pytest.raises(DataError, match="augment to be an Augmentation or None"):
        OneShotRuns(images, 2, augment=0.1)  # type: ignore[arg-type]


def test_learners_are_trained_validated_and_evaluated_by_one_split() -> None:
    number = torch.arange(60)
    pixels = torch.rand(60, 16, 16, generator=generator())
    source = OneShotRuns(ImageClasses.from_arrays(pixels, number % 12, number % 2, number // 12), ways=3)
    learner = bm.R2D2(bm.Conv4((1, 16, 16), 4, num_groups=2), num_classes=3)
    split = PrefixSplit.at(3)
    bm.fit(learner, source, steps=2, batch_size=2, split=split, validation=source.dataset(2), progress=False)
    evaluation = bm.evaluate(learner, source.dataset(3), shots=[3], split=PrefixSplit)
    assert evaluation.table().loc[3, "points"] == 9


@pytest.mark.data
def test_runs_of_omniglot(real_data: Path) -> None:
    """26 of the 30 background alphabets have 20 characters; any two of 20 drawers may be paired."""
    path = real_data / "omniglot" / "omniglot_background.npz"
    if not path.exists():
        pytest.skip("BAYESMETA_DATA has no omniglot_background.npz")
    images = omniglot(path)
    large = torch.bincount(images.require_groups()) >= 20
    assert int(large.sum()) == 26
    numbers = torch.arange(len(images.images))
    stamped = dataclasses.replace(images, images=torch.stack([numbers // 200, numbers % 200], -1)[:, None, None].byte())
    batch = OneShotRuns(stamped).draw(2000, ONE, generator())
    rows = [content(side)[..., 0] * 200 + content(side)[..., 1] for side in (batch.support, batch.query)]
    makers = [images.require_makers()[row] for row in rows]
    for maker in makers:
        assert (maker == maker[:, :1]).all()
        assert maker.unique().tolist() == list(range(20))
    assert (makers[0][:, 0] != makers[1][:, 0]).all()
    groups = images.require_groups()[images.labels[rows[0]]]
    assert (groups == groups[:, :1]).all()
    assert torch.equal(groups.unique(), large.nonzero().flatten())
