"""SNAIL: what a step must not see, and that queries on what is kept are as sequences of their own."""

from typing import Any

import pytest
import torch
from torch import Tensor

import bayesmeta as bm
from bayesmeta.networks.temporal import CausalAttention, CausalBlock, CausalVotes, DenseBlock

EXACT = {"rtol": 1e-10, "atol": 1e-10}  # float64: sums in another order
POINTS, COUNTS = 7, (7, 3, 0)
SIZES: dict[str, Any] = {"channels": 4, "attention": ((8, 4), (6, 5), (4, 3))}


def _moved(learner: bm.SNAIL) -> bm.SNAIL:
    """Off the starting point, in float64."""
    learner = learner.double()
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return learner


def _numbers(**arguments: Any) -> bm.SNAIL:
    return _moved(bm.SNAIL(bm.MLP(2, [6]), **{"max_points": POINTS, **SIZES} | arguments))


def _labels() -> bm.SNAIL:
    return _numbers(head=bm.heads.OneHotHead(3))


BOTH = pytest.mark.parametrize("make", [_numbers, _labels], ids=["numbers", "labels"])


def _tasks(learner: bm.SNAIL, num_points: int = POINTS) -> bm.Data:
    x = torch.randn(3, num_points, 2, dtype=torch.float64)
    if learner.outcomes == bm.Numbers(1):
        return bm.Data.full(x, torch.sin(x.sum(-1, keepdim=True)))
    return bm.Data.full(x, torch.randint(3, (3, num_points)))


def _ragged(data: bm.Data) -> bm.Data:
    return bm.Data(data.x, data.y, torch.arange(data.num_points) < torch.tensor(COUNTS)[:, None])


def _said(learner: bm.SNAIL, support: bm.Data, x: Tensor) -> Tensor:
    prediction = learner.adapt(support).predict(x)
    if isinstance(prediction.marginals, torch.distributions.Categorical):
        return prediction.probs
    return torch.cat([prediction.mean, prediction.stddev], -1)


def _whole(learner: bm.SNAIL, rows: Tensor) -> Tensor:
    """The numbers at every step of whole sequences, by the definition."""
    for block in learner.blocks:
        assert isinstance(block, CausalBlock)
        rows = block(rows)
    out: Tensor = learner.out(rows)
    return out


def _sequence(learner: bm.SNAIL, support: bm.Data, query: Tensor) -> Tensor:
    """The steps of one task: its points, and a query behind them."""
    y = learner.head.shown(support).points.y
    y = torch.cat([y, y.new_zeros(1, 1, y.shape[-1])], 1)
    is_query = torch.zeros_like(y[..., :1])
    is_query[:, -1] = 1.0
    h = learner.units(learner.features(torch.cat([support.x, query[None, None]], 1)))
    return torch.cat([h, y, is_query], -1)


@BOTH
def test_cached_queries_are_as_whole_sequences(make: Any) -> None:
    learner = make()
    data, x = _tasks(learner), torch.randn(3, 4, 2, dtype=torch.float64)
    found = learner.decode(learner.encode(learner.head.shown(_ragged(data)).points), x)
    for task, count in enumerate(COUNTS):
        one = data.select([task]).points(slice(count))
        for query in range(4):
            expected = _whole(learner, _sequence(learner, one, x[task, query]))[0, -1]
            torch.testing.assert_close(found[task, query], expected, **EXACT)


@BOTH
def test_ragged_tasks_are_as_on_their_own(make: Any) -> None:
    learner = make()
    data, x = _tasks(learner), torch.randn(3, 4, 2, dtype=torch.float64)
    found = _said(learner, _ragged(data), x)
    for task, count in enumerate(COUNTS):
        alone = _said(learner, data.select([task]).points(slice(count)), x[[task]])
        torch.testing.assert_close(found[[task]], alone, **EXACT)
    gaps = torch.tensor([0, 1, 2, 6, 3, 4, 5])  # padding between points, as `append` leaves it
    mask = _ragged(data).mask
    between = bm.Data(data.x[:, gaps], data.y[:, gaps], mask[:, gaps])
    torch.testing.assert_close(_said(learner, between, x)[1:], found[1:], **EXACT)


@BOTH
def test_no_prediction_sees_a_label_that_comes_later(make: Any) -> None:
    learner = make()
    data = _tasks(learner)
    shown = learner.head.shown(data).points
    y = shown.y.clone().requires_grad_()
    for step in range(POINTS):  # the point at this step is the query, with what stands before it as support
        before = torch.arange(POINTS).expand(3, -1) < step
        raw = learner.decode(learner.encode(bm.Data(data.x, y, before)), data.x[:, step : step + 1])
        (gradient,) = torch.autograd.grad(raw.square().sum(), y, allow_unused=True)
        assert gradient is not None
        assert (gradient[:, step:] == 0.0).all()
        assert (gradient[:, :step].abs().amax(-1) > 0.0).all()  # and every one that comes before is seen


@BOTH
def test_no_step_of_a_whole_sequence_sees_a_later_one(make: Any) -> None:
    learner = make()
    data = _tasks(learner)
    rows = _sequence(learner, data.select([0]), data.x[0, 0]).detach().requires_grad_()
    out = _whole(learner, rows)
    for step in range(POINTS + 1):
        (gradient,) = torch.autograd.grad(out[:, step].square().sum(), rows, retain_graph=True)
        assert (gradient[:, step + 1 :] == 0.0).all()
        assert (gradient[:, : step + 1].abs().amax(-1) > 0.0).all()


def test_every_weight_counts_at_full_length() -> None:
    learner = _numbers()
    data = _tasks(learner)
    learner.meta_loss(bm.TaskBatch(data, _tasks(learner, 3))).sum().backward()
    assert all(bool((parameter.grad != 0.0).any()) for parameter in learner.parameters() if parameter.grad is not None)
    assert all(parameter.grad is not None for parameter in learner.parameters())


def test_it_begins_as_a_matching_network() -> None:
    """Once features have their units, a query takes the outcome of the point that it is at."""
    torch.manual_seed(0)
    x = torch.tensor([[103.0, -7.0], [100.0, 7.0], [97.0, -7.0]])
    shown = bm.Data.from_labels(x, [0, 1, 2])
    learner = bm.SNAIL(bm.Identity(2), head=bm.heads.OneHotHead(3), max_points=4, **SIZES)
    learner.prepare(shown)
    units = learner.units(learner.features(shown.x))
    torch.testing.assert_close(units[..., 1:].mean((0, 1)), torch.zeros(2), rtol=0.0, atol=1e-5)  # rounding of 100
    torch.testing.assert_close(units[..., 1:].std((0, 1), correction=0), torch.ones(2))
    assert (units[..., 0] == 1.0).all()  # a constant stays what it is
    assert learner.adapt(shown).predict(x).probs.argmax(-1).tolist() == [[0, 1, 2]]
    before = learner.units.center.clone()
    learner.prepare(bm.Data.from_labels(x + 1.0, [0, 1, 2]))  # what was set stays
    assert torch.equal(learner.units.center, before)


def test_labels_begin_with_the_votes_of_what_is_attended_to() -> None:
    """What is predicted is the share of each label in what the first attention reads."""
    learner = bm.SNAIL(bm.Identity(2), head=bm.heads.OneHotHead(3), max_points=4, **SIZES)
    shown = bm.Data.from_labels(torch.randn(4, 2), [0, 1, 2, 1])
    x, first = torch.randn(1, 3, 2), learner.blocks[0]
    assert isinstance(first, CausalVotes)
    rows = torch.cat([learner.features(x), torch.zeros(1, 3, 3), torch.ones(1, 3, 1)], -1)
    support = torch.cat([learner.features(shown.x), learner.head.shown(shown).points.y, torch.zeros(1, 4, 1)], -1)
    keys = torch.cat([first.nothing.expand(1, 1, -1), support], 1)
    attention = (first.scale * first.query(rows) @ first.key(keys).mT).softmax(-1)
    votes = attention[..., 1:] @ learner.head.shown(shown).points.y + attention[..., :1] / 3
    found = learner.adapt(shown).predict(x).probs
    torch.testing.assert_close(found, votes, rtol=0.0, atol=2e-3)  # what has no votes keeps a share of .001


@pytest.mark.parametrize(("points", "expected"), [(1, [1]), (3, [1, 2]), (4, [1, 2, 4]), (25, [1, 2, 4, 8, 16])])
def test_dilations_start_at_one_and_double(points: int, expected: list[int]) -> None:
    """ceil(log2 T) of T = points + 1 steps, so that a query reaches the first point."""
    learner = bm.SNAIL(bm.Identity(1), max_points=points, **SIZES)
    kinds = [block.dilation if isinstance(block, DenseBlock) else 0 for block in learner.blocks]
    assert kinds == [0, *expected, 0, *expected, 0]
    assert sum(expected) >= points


def test_the_sizes_are_those_of_the_paper() -> None:
    """Omniglot, 5 ways and 5 shots: 64 features, attention of (64, 32), (256, 128) and (512, 256), 128 channels."""
    learner = bm.SNAIL(
        bm.Conv4((1, 28, 28), 64),
        head=bm.heads.OneHotHead(5),
        max_points=25,
        channels=128,
        attention=((64, 32), (256, 128), (512, 256)),
    )
    attention = [block for block in learner.blocks if isinstance(block, CausalAttention)]
    assert [(block.query.out_features, block.value.out_features) for block in attention] == [
        (64, 32),
        (256, 128),
        (512, 256),
    ]
    # the flag of a query is ours, and the 5 votes of each attention
    assert learner.out.in_features == 64 + 5 + 1 + (32 + 5) + 5 * 128 + (128 + 5) + 5 * 128 + (256 + 5)


def test_more_points_than_it_was_made_for_are_refused() -> None:
    learner = _numbers()
    data = _tasks(learner, POINTS + 1)
    with pytest.raises(bm.DataError, match=r"at most 7 support points, got a task with 8.*max_points"):
        learner.adapt(data)
    hidden = bm.Data(data.x, data.y, torch.arange(POINTS + 1) < torch.tensor([[2], [7], [0]]))
    learner.adapt(hidden).predict(data.x)  # padding is no point


def test_fewer_classes_are_served_and_more_refused() -> None:
    learner = _numbers(head=bm.heads.ClassSlots(4))
    x = torch.randn(1, 5, 2)
    probs = learner.adapt(bm.Data.from_labels(x[0], [0, 1, 2, 1, 0])).predict(x).probs
    assert probs.shape == (1, 5, 3)
    torch.testing.assert_close(probs.sum(-1), torch.ones(1, 5, dtype=torch.float64))
    with pytest.raises(bm.DataError, match="at most 4 classes, got a task with 5"):
        learner.adapt(bm.Data.from_labels(x[0], [0, 1, 2, 3, 4]))
    with pytest.raises(bm.DataError, match="labels from 0 to 2"):
        _labels().adapt(bm.Data.from_labels(x[0], [0, 1, 2, 3, 1]))


def test_what_cannot_be_made() -> None:
    for arguments in (
        {"max_points": 0},
        {"max_points": 2**17},
        {"max_points": 3, "channels": 0},
        {"max_points": 3, "attention": ()},
        {"max_points": 3, "attention": ((4, 0),)},
    ):
        with pytest.raises(bm.DataError, match="expected"):
            bm.SNAIL(bm.Identity(1), **arguments)
    with pytest.raises(bm.UnsupportedError, match="statistics over the points"):
        bm.SNAIL(bm.Conv4((1, 8, 8), 8, norm="task"), max_points=3)
    with pytest.raises(bm.DataError, match="positive sizes"):
        DenseBlock(3, 4, dilation=0)
    with pytest.raises(bm.DataError, match="positive sizes"):
        CausalAttention(3, 0, 4)
    for place, ways in ((0, 0), (2, 2), (-1, 2)):
        with pytest.raises(bm.DataError, match="places of a label within 3 numbers"):
            CausalVotes(3, 4, 4, place=place, ways=ways)
