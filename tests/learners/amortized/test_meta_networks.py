"""Meta Networks: gradients are those of each point, second derivatives flow, and nothing seen is the slow network."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

import bayesmeta as bm
from bayesmeta.learners.amortized.meta_networks import Rule

EXACT = {"rtol": 1e-10, "atol": 1e-12}  # float64: sums in another order


def _learner(head: bm.heads.OutputHead | None = None, **arguments: Any) -> bm.MetaNetworks:
    return bm.MetaNetworks(bm.MLP(2, [5]), head=head, **{"width": 4, "num_keys": 3} | arguments).double()


def _support(learner: bm.MetaNetworks, num_points: int = 4) -> bm.Data:
    x = torch.randn(2, num_points, 2, dtype=torch.float64)
    labels = torch.arange(num_points).expand(2, -1) % 3
    y = torch.randn(2, num_points, 1, dtype=torch.float64) if learner.outcomes == bm.Numbers(1) else labels
    return bm.Data(x, y, torch.arange(num_points) < torch.tensor([[num_points], [3]]))


HEADS = pytest.mark.parametrize("head", [bm.heads.GaussianHead(), bm.heads.OneHotHead(3)], ids=["numbers", "labels"])


@HEADS
def test_gradients_are_those_of_each_point_on_its_own(head: bm.heads.OutputHead) -> None:
    learner = _learner(head)
    support = _support(learner)
    points = head.shown(support).points
    h = learner.features(points.x)
    inner = learner.hidden(h)
    score, above = learner.scores(points, inner, learner.output)
    z = torch.nn.functional.silu(inner)
    for task in range(2):
        for n in range(int(support.counts[task])):
            raw = learner.output(torch.nn.functional.silu(learner.hidden(h[task, n])))
            prediction = head.predictive(raw[None, None], head.shown(support.select([task])))
            log_prob = prediction.marginal_log_prob(support.y[task : task + 1, n : n + 1])[0, 0]
            expected = torch.autograd.grad(
                log_prob, [*learner.hidden.parameters(), *learner.output.parameters()], retain_graph=True
            )
            found = (
                torch.outer(score[task, n], h[task, n]),
                score[task, n],
                torch.outer(above[task, n], z[task, n]),
                above[task, n],
            )
            torch.testing.assert_close(found, expected, **EXACT)
    assert (score[1, 3] == 0.0).all()  # padding asks for nothing


@HEADS
def test_second_derivatives_flow_through_the_gradients(head: bm.heads.OutputHead) -> None:
    learner = _learner(head, width=2, num_keys=2)
    points, x = head.shown(_support(learner, 3)).points, torch.randn(2, 1, 2, dtype=torch.float64)
    names = ("hidden.weight", "output.weight", "embedding.weight", "temperature.raw")
    own = dict(learner.named_parameters())

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.learner = learner

        def forward(self) -> Tensor:
            return self.learner.decode(self.learner.encode(points), x)

    def raw(*values: Tensor) -> Tensor:
        weights = {f"learner.{name}": value for name, value in zip(chosen, values, strict=True)}
        out: Tensor = functional_call(Whole(), weights, ())
        return out

    chosen = [name for name in names if name in own]
    values = [own[name].detach().clone().requires_grad_() for name in chosen]
    assert len(chosen) >= 3
    assert torch.autograd.gradcheck(raw, values)
    assert torch.autograd.gradgradcheck(raw, values)


@HEADS
def test_nothing_seen_is_the_slow_network(head: bm.heads.OutputHead) -> None:
    learner = _learner(head)
    support, x = _support(learner), torch.randn(2, 3, 2, dtype=torch.float64)
    found = learner.decode(learner.encode(head.shown(bm.Data.empty(support)).points), x)
    expected = learner.output(torch.nn.functional.silu(learner.hidden(learner.features(x))))
    torch.testing.assert_close(found, expected, **EXACT)
    seen = learner.decode(learner.encode(head.shown(support).points), x)
    assert 0.0 < (seen - expected).abs().max() < 0.5 * expected.abs().max()  # fast weights start near 0


def test_fast_weights_are_read_as_if_written_out() -> None:
    scores, rows = torch.randn(2, 5, 3, dtype=torch.float64), torch.randn(2, 5, 4, dtype=torch.float64)
    fast = Rule(width=6).double()(scores, rows)
    weights = torch.einsum("lnro,lnrj->lnoj", fast.outward, fast.inward)
    attention, z = torch.rand(2, 7, 5, dtype=torch.float64), torch.randn(2, 7, 4, dtype=torch.float64)
    one = torch.cat([z, torch.ones_like(z[..., :1])], -1)
    expected = torch.einsum("lmn,lnoj,lmj->lmo", attention, weights, one)
    torch.testing.assert_close(fast.read(attention, z), expected, **EXACT)


def test_a_class_of_many_examples_does_not_drown_one_of_few() -> None:
    """Without rarity the examples of a class share its weight: a class shown ten times is as one shown once."""
    learner = _learner(bm.heads.OneHotHead(3))
    learner.rarity.set(2e-3)  # near its least
    x = torch.randn(3, 2, dtype=torch.float64)
    once = bm.Data.from_labels(x, [0, 1, 2])
    many = bm.Data.from_labels(torch.cat([x, x[:1].expand(9, -1)]), [0, 1, 2] + [0] * 9)
    with torch.no_grad():
        kept = [learner.encode(learner.head.shown(each).points) for each in (once, many)]
    weight = [each.log_weight.exp()[0].numpy() for each in kept]
    assert weight[0].tolist() == pytest.approx([1.0, 1.0, 1.0])
    assert weight[1][[0, *range(3, 12)]].sum() == pytest.approx(1.0, rel=2e-3)  # the rarity
    assert weight[1][1] == pytest.approx(1.0)


def test_a_step_of_gradient_descent_is_one_of_the_rules() -> None:
    rule, scores, rows = Rule(width=6).double(), torch.randn(2, 5, 3).double(), torch.randn(2, 5, 4).double()
    fast = rule(scores, rows)
    weights = torch.einsum("lno,lnj->lnoj", fast.outward[..., -1, :], fast.inward[..., -1, :])
    one = torch.cat([rows, torch.ones_like(rows[..., :1])], -1)
    torch.testing.assert_close(weights, rule.step * scores[..., None] * one[..., None, :], **EXACT)


def test_the_order_of_the_support_never_matters() -> None:
    learner = _learner(bm.heads.OneHotHead(3))
    support, order = _support(learner), [2, 0, 3, 1]
    shuffled = bm.Data(support.x[:, order], support.y[:, order], support.mask[:, order])
    a, b = (learner.adapt(each).predict(support.x).probs for each in (support, shuffled))
    torch.testing.assert_close(a, b, **EXACT)


def test_fewer_classes_are_served_and_more_refused() -> None:
    learner, x = _learner(bm.heads.ClassSlots(3)), torch.randn(4, 2)
    probs = learner.adapt(bm.Data.from_labels(x, [0, 1, 1, 0])).predict(x).probs
    assert probs.shape == (1, 4, 2)
    with pytest.raises(bm.DataError, match="at most 3 classes, got a task with 4"):
        learner.adapt(bm.Data.from_labels(x, [0, 1, 2, 3]))


def test_what_cannot_be_made() -> None:
    with pytest.raises(bm.UnsupportedError, match=r"a place for each class.*got CategoricalHead"):
        _learner(bm.heads.CategoricalHead(3))
    with pytest.raises(bm.UnsupportedError, match="statistics over the points"):
        bm.MetaNetworks(bm.Conv4((1, 8, 8), 8, norm="task"))
    for arguments in ({"width": 0}, {"num_keys": 0}):
        with pytest.raises(bm.DataError, match="expected positive sizes"):
            bm.MetaNetworks(bm.Identity(1), **arguments)
