"""Votes as counts: exact where kernels are 0 or 1, the paper's attention in its limit, and the traps of that."""

import math

import pytest
import torch
from torch import Tensor

import bayesmeta as bm
from bayesmeta.heads import BiLSTM, Examples, KernelCountsHead, SetAttention

D = torch.float64


def examples(rows: Tensor, labels: list[int], num_classes: int) -> Examples:
    return Examples.of(rows, torch.tensor([labels]), torch.ones(1, len(labels), dtype=torch.bool), num_classes)


def head(size: int, sharpness: float = 10.0, concentration: float = 0.5, dependence: float = -50.0) -> KernelCountsHead:
    """With single numbers as they are in double precision; by default votes are summed."""
    made = KernelCountsHead(size).double()
    with torch.no_grad():
        made.sharpness.set(sharpness)
        made.concentration.set(concentration)
        made.dependence.fill_(dependence)
    return made


def test_kernels_of_zero_and_one_are_the_dirichlet_multinomial() -> None:
    """Inputs of three kinds, at right angles: labels of one kind are draws from one urn."""
    kinds, labels = torch.tensor([0, 0, 0, 1, 1, 0]), [0, 0, 1, 2, 2, 0]
    rows = torch.eye(3, dtype=D)
    made = head(3, sharpness=5_000.0, concentration=1.5)
    found = made.solve(examples(rows[kinds][None], labels, 4)).log_scores(rows[None]).softmax(-1)[0]
    for kind in range(3):
        counts = torch.tensor(
            [sum(k == kind and y == c for k, y in zip(kinds.tolist(), labels, strict=True)) for c in range(4)]
        )
        # the posterior mean of q ~ Dirichlet(α / C) after these counts; the next label of that kind
        expected = (counts + 1.5 / 4) / (counts.sum() + 1.5)
        torch.testing.assert_close(found[kind], expected.double())


def test_without_a_prior_it_is_attention_over_labels() -> None:
    """α → 0 and β = 1: Σ_i softmax_i(cos) [y_i = c]."""
    rows, queries, labels = torch.randn(1, 6, 4, dtype=D), torch.randn(1, 5, 4, dtype=D), [0, 1, 2, 0, 1, 0]
    made = head(4, sharpness=1.0, concentration=2e-8)
    found = made.solve(examples(rows, labels, 3)).log_scores(queries).softmax(-1)[0]
    cosine = torch.nn.functional.cosine_similarity(queries[0][:, None], rows[0][None], dim=-1)
    votes = cosine.softmax(-1)
    expected = torch.stack([votes[:, torch.tensor(labels) == c].sum(-1) for c in range(3)], -1)
    torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-6)


def test_without_a_temperature_confidence_is_capped() -> None:
    """The best that five classes can have is e / (e + 4 / e) = .649; with a sharpness of 20 it is 1."""
    rows = torch.tensor([[1.0, 0.0], *[[-1.0, 0.0]] * 4], dtype=D)[None]
    cap = math.e / (math.e + 4.0 / math.e)
    for sharpness, expected in ((1.0, cap), (20.0, 1.0)):
        made = head(2, sharpness=sharpness, concentration=2e-8)
        found = made.solve(examples(rows, [0, 1, 2, 3, 4], 5)).log_scores(rows[:, :1]).softmax(-1)[0, 0, 0]
        assert found.item() == pytest.approx(expected, abs=1e-6)


def test_votes_may_be_summed_or_averaged() -> None:
    """One example that is alike against ten that are not: summed, the many win; averaged, the one does."""
    rows = torch.cat([torch.tensor([[[1.0, 0.1]]]), torch.tensor([[[0.6, 0.8]]]).expand(1, 10, 2)], 1).double()
    query, labels = torch.tensor([[[1.0, 0.0]]], dtype=D), [0] + [1] * 10
    summed, mean = (
        head(2, sharpness=2.0, concentration=1e-6, dependence=d).solve(examples(rows, labels, 2)) for d in (-50.0, 50.0)
    )
    assert summed.log_scores(query).argmax().item() == 1
    assert mean.log_scores(query).argmax().item() == 0


def test_far_from_everything_the_class_frequencies_return() -> None:
    """With the prior of named classes, which are .7, .2 and .1; and such a point is of none of these."""
    learner = bm.Matching(bm.Identity(2), num_classes=3).double()
    with torch.no_grad():
        learner.head.sharpness.set(200.0)
        learner.class_prior.concentration.set(9e5)
        assert learner.class_prior.location is not None
        learner.class_prior.location.copy_(torch.tensor([0.7, 0.2, 0.1]).log())
    data = bm.Data.from_labels(torch.tensor([[1.0, 0.0], [1.0, 0.2], [0.9, 0.1]], dtype=D), [0, 1, 2])
    prediction = learner.adapt(data).predict(torch.tensor([[[-1.0, 0.0], [1.0, 0.0]]], dtype=D))
    torch.testing.assert_close(prediction.probs[0, 0], torch.tensor([0.7, 0.2, 0.1], dtype=D), rtol=1e-4, atol=0.0)
    assert prediction.none_of_these()[0, 0] > 0.99
    assert prediction.none_of_these()[0, 1] < 0.05


def test_what_has_no_direction_is_like_nothing() -> None:
    """Zeros have no angle: gradients stay finite, and the probabilities are those of equal similarity."""
    rows = torch.zeros(1, 3, 2, dtype=D, requires_grad=True)
    found = head(2).solve(examples(rows, [0, 1, 1], 2)).log_scores(rows)
    found.sum().backward()
    assert rows.grad is not None
    assert torch.isfinite(rows.grad).all()


@pytest.mark.parametrize("kind", ["lstm", "attention"])
def test_contexts_see_the_support_and_no_other_query(kind: str) -> None:
    """An example changes what a query is, another query does not; no example leaves a query finite."""
    context = (BiLSTM(4) if kind == "lstm" else SetAttention(4, 2)).double()
    with torch.no_grad():
        for parameter in context.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    rows, queries, mask = (
        torch.randn(2, 3, 4, dtype=D),
        torch.randn(2, 5, 4, dtype=D),
        torch.ones(2, 3, dtype=torch.bool),
    )
    support = context.of_support(rows, mask)
    together, alone = context.of_query(queries, support, mask), context.of_query(queries[:, :1], support, mask)
    torch.testing.assert_close(together[:, :1], alone)
    moved = context.of_query(queries, context.of_support(rows.flip(-1), mask), mask)
    assert (moved - together).abs().max() > 1e-3
    nothing = context.of_query(queries, rows[:, :0], mask[:, :0])
    assert torch.isfinite(nothing).all()
    hidden = context.of_query(queries, rows, torch.zeros_like(mask))
    torch.testing.assert_close(hidden, nothing)


def test_full_context_reads_as_the_paper_says() -> None:
    """Against a loop: a query of one example reads that example, twice."""
    context = BiLSTM(3, reads=2).double()
    row, query, mask = torch.randn(1, 1, 3, dtype=D), torch.randn(1, 1, 3, dtype=D), torch.ones(1, 1, dtype=torch.bool)
    state = (torch.zeros(1, 1, 3, dtype=D), torch.zeros(1, 1, 3, dtype=D))
    read = torch.zeros(1, 1, 3, dtype=D)
    for _ in range(2):
        hidden, cell = context.reader.step(torch.cat([query, read], -1), state)
        state, read = (hidden + query, cell), row  # a softmax over one example
    torch.testing.assert_close(context.of_query(query, row, mask), state[0])
