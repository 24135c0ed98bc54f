"""Graph networks against loops, the predictions that hand-set weights make them, and what must not matter to them."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import leaky_relu

import bayesmeta as bm
from bayesmeta.heads import Examples, GraphHead, graph

D = torch.float64
SAME = {"rtol": 1e-10, "atol": 1e-10}  # float64: the same mathematics in another order of summation


def _examples(rows: Tensor, labels: Tensor, num_classes: int | None = None, mask: Tensor | None = None) -> Examples:
    mask = torch.ones_like(labels, dtype=torch.bool) if mask is None else mask
    return Examples.of(rows, labels, mask, num_classes)


def _head(features: int = 4, blocks: int = 3) -> GraphHead:
    """One that is far from its start, in float64."""
    torch.manual_seed(0)
    head = GraphHead(features, blocks=blocks, width=5, channels=2).double()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return head


def _task(*counts: int, features: int = 4, queries: int = 6, tasks: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)).expand(tasks, -1)
    rows = torch.randn(tasks, labels.shape[1], features, generator=generator, dtype=D)
    return rows, labels, torch.randn(tasks, queries, features, generator=generator, dtype=D)


# ------------------------------------------------------------------------------------------------------ slow truth


def _slow(head: GraphHead, rows: Tensor, labels: Tensor, num_classes: int, query: Tensor) -> Tensor:
    """The scores of one query, node by node."""
    nodes = [*rows, query]
    h = list(nodes)
    given = [torch.eye(num_classes, dtype=D)[label] for label in labels]
    given.append(torch.full((num_classes,), 1.0 / num_classes, dtype=D))
    u = [each[:, None] for each in given]  # C L
    size = len(query)
    for block, edges in enumerate(head.edges):
        e = torch.empty(len(h), len(h), dtype=D)
        for i in range(len(h)):
            for j in range(len(h)):
                gap = h[i] - h[j]
                unlike = 0.5 * (u[i] - u[j]).square().sum(0)
                hidden = edges.points(gap[:size].abs()) + edges.messages(torch.cat([gap[size:].abs(), unlike]))
                out = edges.out(leaky_relu(edges.hidden(leaky_relu(hidden))))[0]
                e[i, j] = out - edges.temperature() * (edges.metric * gap.square()).sum()
            e[i, i] = -edges.temperature() * size * edges.reach()
        attention = e.softmax(-1)
        heard = [sum(attention[i, j] * h[j] for j in range(len(h))) for i in range(len(h))]
        told = [sum(attention[i, j] * u[j] for j in range(len(h))) for i in range(len(h))]
        if block == len(head.edges) - 1:
            votes = sum(attention[-1, j] * given[j] for j in range(len(h))) / sum(given)
            return votes.log() + torch.cat([u[-1], told[-1]], -1) @ head.readout[0]
        new = [leaky_relu(head.nodes[block](torch.cat([h[i], heard[i]]))) for i in range(len(h))]
        labelled = [leaky_relu(head.labels[block](torch.cat([u[i], told[i]], -1))) for i in range(len(h))]
        h = [torch.cat([a, b]) for a, b in zip(h, new, strict=True)]
        u = [torch.cat([a, b], -1) for a, b in zip(u, labelled, strict=True)]
    raise AssertionError


@torch.no_grad()
@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize("counts", [(2, 1, 3), (1, 0, 2), (0, 0), (1, 0)])
def test_scores_are_those_of_loops(counts: tuple[int, ...], blocks: int) -> None:
    head, (rows, labels, queries) = _head(blocks=blocks), _task(*counts, queries=3)
    found = head.solve(_examples(rows, labels, len(counts))).log_scores(queries)[0]
    expected = torch.stack([_slow(head, rows[0], labels[0], len(counts), query) for query in queries[0]])
    torch.testing.assert_close(found, expected, **SAME)


# -------------------------------------------------------------------------------------------- weights set by hand


def _never_alone(head: GraphHead) -> None:
    head.edges[-1].reach.set(9e5)


@torch.no_grad()
@pytest.mark.parametrize("blocks", [1, 3])
def test_it_starts_as_attention_over_labels(blocks: int) -> None:
    """Whatever the network of messages has been drawn to be."""
    head, (rows, labels, queries) = GraphHead(4, blocks=blocks).double(), _task(2, 2, 2)
    attention = torch.cat([-0.25 * torch.cdist(queries, rows).square(), torch.full((1, 6, 1), -0.25 * 4 * 2.0)], -1)
    targets = torch.cat([torch.eye(3, dtype=D)[labels[0]], torch.full((1, 3), 1 / 3, dtype=D)])
    found = head.solve(_examples(rows, labels)).log_scores(queries)
    torch.testing.assert_close(found.softmax(-1), attention.softmax(-1) @ targets, rtol=1e-6, atol=1e-6)  # ρ in float32


@torch.no_grad()
def test_matching_networks() -> None:
    """Vinyals et al. 2016: p(c) = Σ_j softmax_j(κ cos(x, x_j)) [y_j = c] with equal shots, of rows of unit length."""
    head, (rows, labels, queries) = GraphHead(4).double(), _task(3, 3)
    rows, queries = (torch.nn.functional.normalize(each, dim=-1) for each in (rows, queries))
    _never_alone(head)
    head.edges[-1].temperature.set(5.0)  # -5 |a - b|² = 10 cos(a, b) - 10
    expected = (10.0 * queries @ rows.mT).softmax(-1) @ torch.eye(2, dtype=D)[labels[0]]
    torch.testing.assert_close(head.solve(_examples(rows, labels)).log_scores(queries).softmax(-1), expected)


@torch.no_grad()
@pytest.mark.parametrize("counts", [(2, 2, 2), (1, 1), (3, 1, 2)])
def test_prototypical_networks(counts: tuple[int, ...]) -> None:
    """Snell et al. 2017, softmax(-|x - mean_c|²): a block in which examples of a class tell each other what they are.

    The first block has edges between nodes of the same label alone, to itself as much as to others: an example hears
    the mean of its class, and the query itself. The second compares what nodes have heard.
    """
    head, (rows, labels, queries) = GraphHead(4, blocks=2, width=4, channels=1).double(), _task(*counts)
    for parameter in head.parameters():
        if parameter.ndim > 0:
            parameter.zero_()
    first, second = head.edges
    first.points.bias[0] = 1.0  # a hidden unit that is 1, and one that says whether labels differ
    first.messages.weight[1, 0] = 1.0
    first.hidden.weight.copy_(torch.eye(4))
    first.out.weight[0, 0], first.out.weight[0, 1] = first.alone(), -1e5
    head.nodes[0].weight[:, 4:] = torch.eye(4)
    head.nodes[0].bias.fill_(20.0)  # positive: as they are through the leaky unit, and differences are the same
    second.metric[4:] = 1.0
    second.temperature.set(1.0)
    _never_alone(head)
    targets = torch.eye(len(counts), dtype=D)[labels[0]]
    number = targets.sum(0)
    means = targets.mT @ rows[0] / number[:, None]
    # the query's own 1/C of a label counts as a vote of every class
    expected = -torch.cdist(queries[0], means).square() + (number / (number + 1.0 / len(counts))).log()
    found = head.solve(_examples(rows, labels)).log_scores(queries)[0]
    torch.testing.assert_close(found.log_softmax(-1), expected.log_softmax(-1), rtol=1e-6, atol=1e-6)  # β in float32


# ----------------------------------------------------------------------------------------------- what never matters


@torch.no_grad()
@pytest.mark.parametrize("most", [1, 500, 2000])
def test_parts_of_the_queries_are_the_whole(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, labels, queries = _task(2, 1, 3, queries=7, tasks=2)
    scores = _head().solve(_examples(rows, labels))
    whole, calls, split = scores.log_scores(queries), [], Tensor.split
    monkeypatch.setattr(graph, "MOST_NUMBERS", most)
    monkeypatch.setattr(Tensor, "split", lambda self, size, dim: calls.append(size) or split(self, size, dim))
    torch.testing.assert_close(scores.log_scores(queries), whole, **SAME)
    assert calls[0] < 7


@torch.no_grad()
def test_queries_do_not_see_each_other_and_order_does_not_matter() -> None:
    head, (rows, labels, queries) = _head(), _task(2, 1, 3)
    whole = head.solve(_examples(rows, labels)).log_scores(queries)
    alone = head.solve(_examples(rows, labels)).log_scores(queries[:, 2:3])
    torch.testing.assert_close(alone, whole[:, 2:3], **SAME)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    other = head.solve(_examples(rows[:, order], labels[:, order])).log_scores(queries.flip(1))
    torch.testing.assert_close(other.flip(1), whole, **SAME)


@torch.no_grad()
def test_padding_and_classes_of_other_tasks_do_not_matter() -> None:
    head, (rows, labels, queries) = _head(), _task(2, 1, 3)
    expected = head.solve(_examples(rows, labels)).log_scores(queries)
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[0, 2] = False
    padded = torch.cat([rows[:, :2], torch.full((1, 1, 4), 1e3, dtype=D), rows[:, 2:]], 1)
    both = torch.cat([padded, torch.randn(1, 7, 4, dtype=D)])
    names = torch.stack([torch.cat([labels[0, :2], labels.new_tensor([3]), labels[0, 2:]]), torch.arange(7) % 5])
    found = head.solve(_examples(both, names, mask=mask)).log_scores(queries.expand(2, -1, -1))
    torch.testing.assert_close(found[0, :, :3], expected[0], **SAME)


@torch.no_grad()
def test_relabelling_permutes_the_scores() -> None:
    head, (rows, labels, queries) = _head(), _task(2, 1, 3, 0)
    other = torch.tensor([2, 0, 3, 1])
    found = head.solve(_examples(rows, other[labels], 4)).log_scores(queries)
    expected = head.solve(_examples(rows, labels, 4)).log_scores(queries)
    torch.testing.assert_close(found[..., other], expected, **SAME)


# ---------------------------------------------------------------------------------------------------- odd supports


@torch.no_grad()
@pytest.mark.parametrize("queries", [0, 3])
def test_nothing_known_is_uniform(queries: int) -> None:
    rows, labels, queried = _task(0, 0, 0, queries=queries)
    found = _head().solve(_examples(rows, labels, 3)).log_scores(queried)
    torch.testing.assert_close(found, found[..., :1].expand(1, queries, 3), **SAME)


@torch.no_grad()
def test_far_from_everything_shown_classes_are_alike() -> None:
    """Of a single block at its start: e_ii is then the largest."""
    rows, labels, queries = _task(2, 2, 2)
    found = GraphHead(4, blocks=1).double().solve(_examples(rows, labels)).log_scores(1e3 + queries)
    torch.testing.assert_close(found.softmax(-1), torch.full_like(found, 1 / 3))


@torch.no_grad()
def test_a_class_of_more_examples_has_no_more_votes() -> None:
    """At its start: nine examples at a place say no more of it than one, but for the query's own 1/C."""
    rows, labels = torch.zeros(1, 10, 2, dtype=D), torch.tensor([[0] + [1] * 9])
    head = GraphHead(2).double()
    _never_alone(head)
    found = head.solve(_examples(rows, labels)).log_scores(torch.randn(1, 3, 2, dtype=D))
    expected = torch.tensor(math.log(1.0 / 1.5) - math.log(9.0 / 9.5), dtype=D).expand(1, 3)
    torch.testing.assert_close(found[..., 0] - found[..., 1], expected)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_gradients_are_finite(count: int) -> None:
    head, labels = _head(), torch.arange(count).remainder(2).expand(2, -1)
    rows = torch.zeros(2, count, 4, dtype=D, requires_grad=True)  # all identical
    queries = torch.zeros(2, 3, 4, dtype=D, requires_grad=True)
    head.solve(_examples(rows, labels, 3)).log_scores(queries).log_softmax(-1)[..., 0].sum().backward()
    for leaf in (rows, queries, *head.parameters()):
        assert leaf.grad is None or torch.isfinite(leaf.grad).all()


@torch.no_grad()
def test_precisions_agree() -> None:
    rows, labels, queries = _task(2, 1, 3)
    expected = _head().solve(_examples(rows, labels)).log_scores(queries)
    single = _head().float().solve(_examples(rows.float(), labels)).log_scores(queries.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, rtol=1e-4, atol=1e-4)  # a few hundred roundings of 6e-8


def test_the_precision_is_that_of_the_features() -> None:
    learner = bm.GraphNetwork(bm.MLP(2, [4]), num_classes=3)
    assert learner.adapt(bm.Data.from_labels(torch.zeros(2, 2), [0, 1])).predict(torch.zeros(1, 2)).probs.dtype == (
        torch.float32
    )


@pytest.mark.parametrize("name", ["num_features", "blocks", "width", "channels"])
def test_errors(name: str) -> None:
    with pytest.raises(bm.DataError, match="positive numbers of features, blocks, width and channels"):
        GraphHead(**{"num_features": 2, name: 0})
    with pytest.raises(bm.DataError, match="at most 100 blocks, got 101"):
        GraphHead(2, blocks=101)
    with pytest.raises(bm.DataError, match="strictly between"):
        GraphHead(2, temperature=-1.0)
