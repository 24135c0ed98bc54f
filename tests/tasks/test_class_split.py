"""The division of a task by its classes."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bayesmeta.data import Data
from bayesmeta.errors import DataError
from bayesmeta.evaluation.evaluate import evaluate
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.source import ClassSplit, RandomSplit
from tests.evaluation.exact import ClassShares
from tests.tasks.numbered import generator


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


def test_in_a_share_of_the_tasks_every_class_draws_its_own_k() -> None:
    tasks = TaskDataset.from_labels([(np.arange(24.0), np.arange(24) % 3)] * 2000)
    batch = tasks.divided(ClassSplit((1, 4), 2, unequal=0.25))
    shots = (torch.where(batch.support.mask, batch.support.y, -1)[..., None] == torch.arange(3)).sum(1)
    alike = (shots == shots[:, :1]).all(1).float().mean().item()
    # three independent numbers from 1 to 4 are the same in 1/16 of the cases
    assert alike == pytest.approx(0.75 + 0.25 / 16, abs=4.0 * 0.5 / 2000**0.5)
    assert torch.bincount(shots.flatten(), minlength=5)[1:].min() > 6000 / 4 * 0.85
    assert (batch.query.y[..., None] == torch.arange(3)).sum(1).unique().tolist() == [2]
    with pytest.raises(DataError, match=r"expected a share of unequal tasks between 0 and 1, got 1\.5"):
        ClassSplit((1, 4), unequal=1.5)


@given(
    labels=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=14), min_size=1, max_size=4),
    low=st.integers(0, 3),
    seed=st.integers(0, 1000),
)
def test_unequal_numbers_leave_every_class_a_query_point(labels: list[list[int]], low: int, seed: int) -> None:
    tasks = TaskDataset.from_labels([(100.0 * t + np.arange(len(y)), y) for t, y in enumerate(labels)])
    batch = tasks.divided(ClassSplit((low, low + 3), None, unequal=1.0), seed)
    for t, y in enumerate(labels):
        counts = Counter(y)
        support, query = (Counter(d.y[t, d.mask[t]].tolist()) for d in (batch.support, batch.query))
        assert support + query == counts
        for c, n in counts.items():
            assert min(low, n - 1) <= support[c] <= min(low + 3, n - 1)
