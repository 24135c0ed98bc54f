"""Held-out points are predicted once, for all who ask: in chunks as whole, the right points, and checked outcomes."""

import pytest
import torch
from torch.distributions import Categorical

from bayesmeta import Data
from bayesmeta.errors import DataError, ShapeError
from bayesmeta.evaluation.held_out import HeldOut, left_one_out, predicted, predicts_labels, with_room
from bayesmeta.predictives import IndependentPredictive
from bayesmeta.tasks import RandomSplit
from tests.evaluation.exact import ClassShares, NormalMean, label_tasks, normal_tasks


def test_the_points_are_those_of_the_split_in_batches() -> None:
    tasks = normal_tasks(6, [9, 3, 7, 5, 9, 9], seed=0)
    chosen = with_room(tasks, 4, RandomSplit, 2, "calibration")
    batch = chosen.divided(RandomSplit.at(4, 2), 0)
    parts = list(predicted(NormalMean(), batch.support, batch.query, batch_size=2))
    assert [part.mask.sum(-1).tolist() for part in parts] == [[2, 2], [1, 2], [2]]
    assert batch.support.counts.tolist() == [4] * 5
    expected = tasks.select([0, 2, 3, 4, 5]).divided(RandomSplit.at(4, 2), 0).query
    torch.testing.assert_close(torch.cat([part.y[part.mask] for part in parts]), expected.y[expected.mask])
    means = torch.cat([part.predictive.mean[part.mask] for part in parts])
    whole = NormalMean().adapt(batch.support).predict(batch.query.x)
    torch.testing.assert_close(means, whole.mean[batch.query.mask])


def test_too_few_tasks_with_room_are_counted() -> None:
    tasks = normal_tasks(3, [9, 3, 7], seed=0)
    with pytest.raises(DataError, match="at least 3 reference tasks with more than 6 points, got 2: ask for fewer"):
        with_room(tasks, 6, RandomSplit, 3, "reference")


def test_each_point_is_left_out_once() -> None:
    data = normal_tasks(3, [3, 1, 2], seed=0).data
    seen, sizes = [], []
    for task, place, found in left_one_out(NormalMean(), data, batch_size=4):
        sizes.append(len(task))
        for i, (b, n) in enumerate(zip(task.tolist(), place.tolist(), strict=True)):
            seen.append((b, n))
            others = data.mask[b].clone()
            others[n] = False
            alone = NormalMean().adapt(Data.full(data.x[b, others][None], data.y[b, others][None]))
            torch.testing.assert_close(found.predictive.mean[i], alone.predict(data.x[b, n][None, None]).mean[0])
            assert torch.equal(found.y[i, 0], data.y[b, n])
    assert sizes == [4, 2]
    assert seen == [(b, n) for b in range(3) for n in range(int(data.counts[b]))]


def test_no_tasks_and_no_points_are_no_predictions() -> None:
    data = normal_tasks(3, 4, seed=0).data
    assert list(predicted(NormalMean(), data.select([]), data.select([]))) == []
    assert list(left_one_out(NormalMean(), Data.empty(data))) == []


def test_padded_labels_become_a_class() -> None:
    dirty = label_tasks(2, 3, seed=0).data.clone()
    dirty.y[:, 2], dirty.mask[:, 2] = -7, False
    (part,) = predicted(ClassShares(), Data.empty(dirty), dirty)
    assert predicts_labels(part.predictive)
    assert part.y[:, 2].tolist() == [0, 0]


def test_nothing_is_recorded_while_it_is_consumed() -> None:
    data = normal_tasks(3, 4, seed=0).data
    for _ in predicted(NormalMean(), data, data, batch_size=1):
        assert torch.is_grad_enabled()  # the consumer's own mode


def test_outcomes_of_another_kind_are_named() -> None:
    numbers, labels = normal_tasks(2, 3, seed=0).data, label_tasks(2, 3, seed=0).data
    classes = IndependentPredictive(Categorical(torch.full((2, 3, 2), 0.5, dtype=torch.float64)))
    with pytest.raises(DataError, match="outcomes are labels, which this learner predicts, got numbers"):
        HeldOut.of(classes, numbers)
    with pytest.raises(DataError, match="outcomes are numbers, which this learner predicts, got labels"):
        HeldOut.of(NormalMean().adapt(numbers).predict(numbers.x), labels)
    with pytest.raises(DataError, match=r"labels from 0 to 1, got 0\.\.2"):
        HeldOut.of(classes, Data(labels.x, torch.tensor([[0, 1, 2], [0, 1, 0]]), labels.mask))
    with pytest.raises(ShapeError, match=r"expected predictions of shape \(2, 2, 1\), got \(2, 3, 1\)"):
        HeldOut.of(NormalMean().adapt(numbers).predict(numbers.x), numbers.points(slice(2)))
    with pytest.raises(DataError, match="at least one task in a batch, got 0"):
        next(predicted(NormalMean(), numbers, numbers, batch_size=0))
    with pytest.raises(DataError, match="at least one task in a batch, got 0"):
        next(left_one_out(NormalMean(), numbers, batch_size=0))
