"""Points without padding, and which tasks are put side by side."""

from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bayesmeta as bm
from bayesmeta.errors import InferenceError, ShapeError
from bayesmeta.flat import MOST_POINTS, FlatData, alike, each_part, in_order
from bayesmeta.training.loop import losses_of
from bayesmeta.training.objectives import Objective

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=12)


def _data(lengths: list[int]) -> bm.Data:
    """Task t has the inputs 100 t, 100 t + 1, ..."""
    return bm.Data.stack(
        [bm.Data.from_arrays(100.0 * t + torch.arange(n), [float(t)] * n) for t, n in enumerate(lengths)]
    )


def _rows(data: bm.Data, t: int) -> list[float]:
    return data.x[t, data.mask[t], 0].tolist()


@settings(max_examples=30, deadline=None)
@given(LENGTHS, st.randoms(use_true_random=False))
def test_flat_points_are_those_of_the_tasks(lengths: list[int], random: Random) -> None:
    data, order = _data(lengths), list(range(len(lengths)))
    random.shuffle(order)
    flat = FlatData.of(data)
    assert flat.counts.tolist() == lengths
    found = flat.padded()
    assert [_rows(found, t) for t in range(len(lengths))] == [_rows(data, t) for t in range(len(lengths))]
    chosen, again = flat.padded(order), flat.select(order)
    assert [_rows(chosen, i) for i in range(len(order))] == [_rows(data, t) for t in order]
    assert torch.equal(again.padded().x[chosen.mask], chosen.x[chosen.mask])
    assert sorted(flat.folded().x[flat.folded().mask].flatten().tolist()) == sorted(flat.x.flatten().tolist())


def test_padding_in_the_middle_is_left_out_and_no_points_are_legal() -> None:
    first = bm.Data.stack([bm.Data.from_arrays([1.0, 2.0], [0.0, 0.0]), bm.Data.from_arrays([3.0], [0.0])])
    both = first.append(bm.Data.full(torch.tensor([[[4.0]], [[5.0]]]), torch.zeros(2, 1, 1)))
    assert FlatData.of(both).x.flatten().tolist() == [1.0, 2.0, 4.0, 3.0, 5.0]
    empty = FlatData.of(bm.Data.empty(first))
    assert (empty.num_tasks, empty.padded().x.shape) == (2, (2, 0, 1))
    some = FlatData(torch.ones(1, 1), torch.ones(1, 1), torch.tensor([0, 0, 1, 1]))
    assert some.padded().counts.tolist() == [0, 1, 0]
    assert bool(some.padded().x.isfinite().all())


@pytest.mark.parametrize("offsets", [[0, 2], [1, 3], [0, 2, 1, 3], []])
def test_offsets_that_do_not_divide_the_rows_are_refused(offsets: list[int]) -> None:
    with pytest.raises(ShapeError, match="offsets from 0 to 3"):
        FlatData(torch.ones(3, 1), torch.ones(3, 1), torch.tensor(offsets, dtype=torch.long))


def test_equal_tasks_are_not_copied() -> None:
    flat = FlatData.of(_data([4, 4, 4]))
    assert flat.padded().x.data_ptr() == flat.x.data_ptr()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 200_000), min_size=1, max_size=40))
def test_groups_hold_every_task_once_and_waste_little(counts: list[int]) -> None:
    groups = alike(torch.tensor(counts))
    assert sorted(torch.cat(groups).tolist()) == list(range(len(counts)))
    for group in groups:
        lengths = torch.tensor(counts)[group]
        assert group.tolist() == sorted(group.tolist())
        padded = len(group) * int(lengths.max())
        assert padded <= MOST_POINTS or len(group) == 1
        if len(groups) > 1:  # tasks that differ by more than a factor of two stand apart
            assert int(lengths.max()) <= 2 * max(int(lengths.min()), 4)
    if len(groups) > 1:
        padded = sum(len(group) * int(torch.tensor(counts)[group].max()) for group in groups)
        assert padded <= 2 * sum(counts) + 8 * len(counts)


def test_similar_tasks_stay_together_in_their_order() -> None:
    assert [group.tolist() for group in alike(torch.tensor([5, 2, 9, 1]))] == [[0, 1, 2, 3]]
    assert alike(torch.zeros(0, dtype=torch.long)) == []


def test_values_come_back_in_the_order_of_the_tasks() -> None:
    values = torch.arange(12.0).reshape(3, 4)
    mask = torch.tensor([[True, True, False, True], [False] * 4, [True] * 4])
    parts = [(torch.tensor([2, 0]), values[[2, 0]], mask[[2, 0]]), (torch.tensor([1]), values[1:2], mask[1:2])]
    rows, counts = in_order(parts)
    assert rows.tolist() == values[mask].tolist()
    assert counts.tolist() == [3, 0, 4]


def _ragged_batch() -> bm.TaskBatch:
    generator = torch.Generator().manual_seed(0)
    x = [torch.rand(n, 1, generator=generator).double() for n in (3, 9_000, 5, 700, 2)]
    tasks = bm.TaskDataset.from_list([(each, each.sin()) for each in x], names=list("abcde"))
    return tasks.divided(bm.tasks.RandomSplit.at(1))


def test_each_part_is_the_whole_and_names_its_task() -> None:
    batch, seen = _ragged_batch(), []

    def mean(part: bm.TaskBatch) -> torch.Tensor:
        seen.append(part.names)
        return torch.where(part.query.mask, part.query.y[..., 0], 0.0).sum(-1) / part.query.counts

    torch.testing.assert_close(each_part(mean, batch), mean(batch))
    assert len(seen) > 2
    assert all(len(names) < 5 for names in seen[:-1])

    def fails(part: bm.TaskBatch) -> torch.Tensor:
        assert part.names is not None
        if "d" in part.names:
            raise InferenceError("no", task=part.names.index("d"))
        return torch.zeros(part.num_tasks)

    with pytest.raises(InferenceError) as caught:
        each_part(fails, batch)
    assert caught.value.task == 3


@pytest.mark.parametrize(
    "objective", [None, bm.training.Evidence(), bm.training.JointPredictive(), bm.training.MarginalPredictive()]
)
def test_losses_of_ragged_batches_are_those_of_their_tasks(objective: Objective | None) -> None:
    """Value and gradient, against one task at a time."""
    batch = _ragged_batch()
    learner = bm.ALPaCA(bm.MLP(1, [4])).double()
    loss = losses_of(learner, objective)
    together = loss(batch)
    alone = []
    for t in range(5):
        support, query = batch.support.select([t]).packed(), batch.query.select([t]).packed()
        support, query = (d.points(slice(int(d.counts))) for d in (support, query))
        alone.append(loss(bm.TaskBatch(support, query)))
    weight = 1.0
    if isinstance(objective, bm.training.Evidence):  # in nats per point of the batch
        counts = (batch.support.counts + batch.query.counts).double()
        weight = counts / counts.mean()
    torch.testing.assert_close(together, torch.cat(alone) * weight, rtol=1e-8, atol=1e-10)
    ours = torch.autograd.grad(together.sum(), learner.prior.location)[0]
    slow = torch.autograd.grad((torch.cat(alone) * weight).sum(), learner.prior.location)[0]
    torch.testing.assert_close(ours, slow, rtol=1e-7, atol=1e-9)
