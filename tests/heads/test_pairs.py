"""Pairs and learned comparisons: sums of log odds, their bias, chunks, and what they are trained on."""

import math

import pytest
import torch

import bayesmeta as bm
from bayesmeta.heads import Examples, PairHead, RelationHead, pairs, relation

D = torch.float64


def examples(size: int = 4) -> Examples:
    """Two classes of unequal numbers, and one without an example."""
    labels = torch.tensor([[0, 1, 1, 1]])
    return Examples.of(torch.randn(1, 4, size, dtype=D), labels, torch.ones(1, 4, dtype=torch.bool), 3)


def test_scores_are_sums_over_pairs() -> None:
    """Against a loop, with all numbers of the head away from their start."""
    head, seen, queries = PairHead(4).double(), examples(), torch.randn(1, 5, 4, dtype=D)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    rho, power = head.dependence.sigmoid().item(), head.power().item()
    found = head.solve(seen).log_scores(queries)
    for m in range(5):
        for c, members in enumerate(([0], [1, 2, 3], [])):
            odds = [
                head.bias - (head.weight * (queries[0, m] - seen.rows[0, i]).abs()).sum() + head.offset for i in members
            ]
            expected = power * max(len(members), 1) ** -rho * sum(odds, torch.zeros((), dtype=D))
            torch.testing.assert_close(found[0, m, c], expected)


def test_the_rate_of_pairs_is_a_bias_that_unequal_shots_show() -> None:
    """In a task of C classes a pair of one class is C - 1 times rarer than among balanced pairs.

    Log odds that all differ by log(C - 1) cancel where classes have as many examples, and not elsewhere: `offset` is
    there to take them out.
    """
    head, error = PairHead(4).double(), math.log(19.0)
    equal = Examples.of(
        torch.randn(1, 4, 4, dtype=D), torch.tensor([[0, 0, 1, 1]]), torch.ones(1, 4, dtype=torch.bool), 2
    )
    queries = torch.randn(1, 5, 4, dtype=D)

    def probs(seen: Examples) -> torch.Tensor:
        return head.solve(seen).log_scores(queries)[..., :2].softmax(-1)

    with torch.no_grad():
        right = [probs(seen) for seen in (equal, examples())]
        head.bias.add_(error)
        torch.testing.assert_close(probs(equal), right[0])
        assert (probs(examples()) - right[1]).abs().max() > 0.1
        seen = examples()
        biased = probs(seen)
        head.offset.sub_(error)
        corrected = probs(seen)
        head.bias.sub_(error)
        head.offset.add_(error)
        torch.testing.assert_close(corrected, probs(seen))
        assert (biased - corrected).abs().max() > 0.1


@pytest.mark.parametrize("maps", [(4, 1, 1), (2, 4, 4)])
def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch, maps: tuple[int, int, int]) -> None:
    """Pairs of queries with examples or classes are made some at a time."""
    size = math.prod(maps)
    seen, queries = examples(size), torch.randn(1, 7, size, dtype=D)
    for head, module in ((PairHead(size).double(), pairs), (RelationHead(maps).double(), relation)):
        whole = head.solve(seen).log_scores(queries)
        monkeypatch.setattr(module, "MOST_NUMBERS", 3 * size * 8)
        torch.testing.assert_close(head.solve(seen).log_scores(queries), whole)
        monkeypatch.undo()


def test_a_relation_sees_the_mean_of_a_class_and_how_many_it_is_of() -> None:
    """Examples that are repeated leave the mean as it was, and the number of them is what changes the score."""
    head, queries = RelationHead((4, 1, 1)).double(), torch.randn(1, 5, 4, dtype=D)
    rows = torch.randn(1, 2, 4, dtype=D)
    real = torch.ones(1, 4, dtype=torch.bool)
    once = head.solve(Examples.of(rows, torch.tensor([[0, 1]]), real[:, :2], 2))
    twice = head.solve(Examples.of(rows.repeat(1, 2, 1), torch.tensor([[0, 1, 0, 1]]), real, 2))
    torch.testing.assert_close(once.mean, twice.mean)
    assert (once.log_scores(queries) - twice.log_scores(queries)).abs().max() > 1e-6
    padded = Examples.of(
        torch.cat([rows, 9.0 + rows], 1), torch.tensor([[0, 1, 0, 1]]), real & (torch.arange(4) < 2), 2
    )
    torch.testing.assert_close(head.solve(padded).log_scores(queries), once.log_scores(queries))


def test_siamese_networks_are_trained_on_balanced_pairs() -> None:
    """Against a loop over pairs; the class of the query trains what makes class probabilities, and nothing else."""
    learner = bm.Siamese(bm.MLP(2, [4]), num_classes=3).double()
    support = bm.Data.from_labels(torch.randn(4, 2, dtype=D), [0, 1, 1, 2])
    query = bm.Data.from_labels(torch.randn(3, 2, dtype=D), [1, 2, 0])
    loss = learner.meta_loss(bm.TaskBatch(support, query))[0]
    rows, queries = learner.rows(support.x)[0], learner.rows(query.x)[0]
    same, different = [], []
    for m in range(3):
        for n in range(4):
            odds = learner.head.bias - (learner.head.weight * (queries[m] - rows[n]).abs()).sum()
            (same if query.y[0, m] == support.y[0, n] else different).append(odds)
    cross = [-torch.stack(same).sigmoid().log().mean(), -(1.0 - torch.stack(different).sigmoid()).log().mean()]
    predictive = bm.training.MarginalPredictive()(learner, bm.TaskBatch(support, query))[0]
    torch.testing.assert_close(loss, 0.5 * (cross[0] + cross[1]) + predictive)
    (0.5 * (cross[0] + cross[1])).backward()
    expected = {name: p.grad.clone() for name, p in learner.named_parameters() if p.grad is not None}
    learner.zero_grad()
    learner.meta_loss(bm.TaskBatch(support, query)).sum().backward()
    for name, gradient in expected.items():
        torch.testing.assert_close(dict(learner.named_parameters())[name].grad, gradient)
    for name in ("dependence", "offset", "power.raw"):
        assert f"head.{name}" not in expected
        assert learner.get_parameter(f"head.{name}").grad.abs() > 0.0


def test_squared_errors_of_matches_are_another_objective() -> None:
    """Against a loop over classes; for learners whose scores are no log odds it is refused."""
    learner = bm.Relation(bm.MLP(2, [8]), num_classes=3).double()
    support = bm.Data.from_labels(torch.randn(4, 2, dtype=D), [0, 1, 1, 2])
    query = bm.Data.from_labels(torch.randn(2, 2, dtype=D), [1, 2])
    found = bm.training.SquaredMatchError()(learner, bm.TaskBatch(support, query))[0]
    posterior = learner.condition(support)
    matches = posterior.scores.log_scores(learner.rows(query.x))[0].sigmoid()
    errors = [(matches[m, c] - float(query.y[0, m] == c)) ** 2 for m in range(2) for c in range(3)]
    torch.testing.assert_close(found, torch.stack(errors).mean())
    with pytest.raises(bm.UnsupportedError, match="log odds"):
        bm.training.SquaredMatchError()(bm.R2D2(bm.MLP(2, [8]), num_classes=3), bm.TaskBatch(support, query))
