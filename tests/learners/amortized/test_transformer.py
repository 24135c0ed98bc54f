"""Transformer neural processes: what attention must not see, and what distances alone give."""

from collections.abc import Callable

import pytest
import torch

import bayesmeta as bm
from bayesmeta.learners.amortized.relative_bias import DistanceFunctions
from bayesmeta.networks.attention import Attention, hiding

EXACT = {"rtol": 1e-10, "atol": 1e-10}  # float64: sums in another order


def _moved(learner: bm.Learner) -> bm.Learner:
    """Off the starting point, where layers say nothing, in float64."""
    learner = learner.double()
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return learner


def _absolute(num_inputs: int = 1, **arguments: object) -> bm.Learner:
    features = bm.networks.FourierFeatures(num_inputs, 3)
    return _moved(bm.TransformerNeuralProcess(features, width=16, layers=3, num_heads=2, **arguments))


def _relative(num_inputs: int = 1, **arguments: object) -> bm.Learner:
    relative = bm.learners.RelativeBias(reach=4.0, num_bumps=8, hidden=8)
    features = bm.Identity(num_inputs)
    return _moved(
        bm.TransformerNeuralProcess(features, relative=relative, width=16, layers=3, num_heads=2, **arguments)
    )


BOTH = pytest.mark.parametrize("make", [_absolute, _relative], ids=["absolute", "relative"])
Make = Callable[..., bm.Learner]


def _tasks(num_inputs: int = 1, num_tasks: int = 3, num_points: int = 6) -> bm.Data:
    x = 4 * torch.rand(num_tasks, num_points, num_inputs, dtype=torch.float64) - 2
    return bm.Data.full(x, torch.sin(2 * x.sum(-1, keepdim=True)))


def _numbers(learner: bm.Learner, support: bm.Data, x: torch.Tensor) -> torch.Tensor:
    prediction = learner.adapt(support).predict(x)
    return torch.stack([prediction.mean, prediction.stddev])


@BOTH
def test_an_empty_support_is_read_as_nothing(make: Make) -> None:
    learner, data = make(), _tasks()
    empty = bm.Data.empty(data)
    assert torch.isfinite(_numbers(learner, empty, data.x)).all()
    hidden = bm.Data(data.x, data.y, torch.zeros_like(data.mask))
    torch.testing.assert_close(_numbers(learner, hidden, data.x), _numbers(learner, empty, data.x), **EXACT)
    learner.meta_loss(bm.TaskBatch(empty, data)).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in learner.parameters() if p.grad is not None)


@BOTH
def test_a_query_does_not_see_the_others(make: Make) -> None:
    learner, data, x = make(), _tasks(), torch.randn(3, 100, 1, dtype=torch.float64)
    among = _numbers(learner, data, x)
    torch.testing.assert_close(_numbers(learner, data, x[:, 7:8]), among[:, :, 7:8], **EXACT)
    order = torch.randperm(100)
    torch.testing.assert_close(_numbers(learner, data, x[:, order]), among[:, :, order], **EXACT)


@BOTH
def test_ragged_tasks_are_as_on_their_own(make: Make) -> None:
    learner, data, x = make(), _tasks(), torch.randn(3, 4, 1, dtype=torch.float64)
    mask = torch.arange(6) < torch.tensor([6, 2, 0])[:, None]
    found = _numbers(learner, bm.Data(data.x, data.y, mask), x)
    for task, count in enumerate((6, 2, 0)):
        alone = _numbers(learner, data.select([task]).points(slice(count)), x[[task]])
        torch.testing.assert_close(found[:, [task]], alone, **EXACT)
    padding = torch.where(mask[..., None], data.y, 1e6)
    elsewhere = torch.where(mask[..., None], data.x, -1e6)
    torch.testing.assert_close(_numbers(learner, bm.Data(elsewhere, padding, mask), x), found, rtol=0.0, atol=0.0)


@BOTH
def test_the_order_of_the_support_does_not_matter(make: Make) -> None:
    learner, data, x = make(), _tasks(), torch.randn(3, 4, 1, dtype=torch.float64)
    torch.testing.assert_close(
        _numbers(learner, data.points(torch.randperm(6)), x), _numbers(learner, data, x), **EXACT
    )


@BOTH
def test_an_update_is_adapting_on_all(make: Make) -> None:
    learner, data, x = make(), _tasks(), torch.randn(3, 4, 1, dtype=torch.float64)
    stepwise = learner.adapt(data.points(slice(2))).update(data.points(slice(2, None))).predict(x)
    torch.testing.assert_close(torch.stack([stepwise.mean, stepwise.stddev]), _numbers(learner, data, x), **EXACT)


@BOTH
def test_gradients_have_gradients(make: Make) -> None:
    learner, data = make(), _tasks(num_tasks=2, num_points=4)
    tasks = bm.TaskBatch(data.points(slice(2)), data.points(slice(2, None)))
    theta = tuple(p.detach().clone().requires_grad_() for p in learner.parameters())
    names = [name for name, _ in learner.named_parameters()]

    def loss(*values: torch.Tensor) -> torch.Tensor:
        given = {f"learner.{name}": value for name, value in zip(names, values, strict=True)}
        return torch.func.functional_call(_Loss(learner), given, tasks).sum()

    first = torch.autograd.grad(loss(*theta), theta, create_graph=True)
    along = [torch.randn_like(p) for p in theta]
    slope = sum((g * v).sum() for g, v in zip(first, along, strict=True))
    second = torch.autograd.grad(slope, theta)  # H v
    step = 1e-6
    ends = [
        torch.autograd.grad(loss(*moved), moved)
        for moved in (
            tuple((p + sign * step * v).detach().requires_grad_() for p, v in zip(theta, along, strict=True))
            for sign in (1, -1)
        )
    ]
    for found, high, low in zip(second, *ends, strict=True):
        # central differences err by step² times the fourth derivative of the loss, and by rounding / step
        torch.testing.assert_close(found, (high - low) / (2 * step), rtol=1e-4, atol=1e-5)


class _Loss(torch.nn.Module):
    def __init__(self, learner: bm.Learner) -> None:
        super().__init__()
        self.learner = learner

    def forward(self, tasks: bm.TaskBatch) -> torch.Tensor:
        return self.learner.loss(tasks)


@pytest.mark.parametrize("shift", [0.1234567, -31.7, 4000.1])
def test_shifts_change_nothing(shift: float) -> None:
    learner, data, x = _relative(2), _tasks(2), torch.randn(3, 4, 2, dtype=torch.float64)
    by = torch.tensor([shift, -0.7 * shift], dtype=torch.float64)
    shifted = bm.Data(data.x + by, data.y, data.mask)
    # the inputs themselves are rounded: 4,000 by 5e-13
    torch.testing.assert_close(_numbers(learner, shifted, x + by), _numbers(learner, data, x), rtol=1e-10, atol=1e-10)


def test_shifts_change_nothing_of_labels() -> None:
    learner = _relative(2, head=bm.heads.CategoricalHead())
    x, by = torch.randn(1, 6, 2, dtype=torch.float64), torch.tensor([17.3, -2.9], dtype=torch.float64)
    labels, query = torch.tensor([[0, 1, 2, 0, 1, 1]]), torch.randn(1, 5, 2, dtype=torch.float64)
    here = learner.adapt(bm.Data.full(x, labels)).predict(query).probs
    there = learner.adapt(bm.Data.full(x + by, labels)).predict(query + by).probs
    torch.testing.assert_close(there, here, **EXACT)


def test_what_is_far_from_all_points_is_as_without_them() -> None:
    learner, data = _relative(), _tasks()
    for away in (30.0, 1e3, 1e12, 1e300):
        x = torch.full((3, 1, 1), away, dtype=torch.float64)
        torch.testing.assert_close(_numbers(learner, data, x), _numbers(learner, bm.Data.empty(data), x), **EXACT)


def test_distances_far_away_have_finite_gradients() -> None:
    learner, data = _relative().float(), _tasks()
    query = bm.Data.full(torch.tensor([[[1e30]]] * 3), torch.zeros(3, 1, 1))
    learner.meta_loss(bm.TaskBatch(data.to(torch.float32), query)).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in learner.parameters() if p.grad is not None)


def test_distances_of_the_features_are_what_is_compared() -> None:
    """With features on a circle the relative learner is periodic."""

    class Circle(bm.Network):
        x_shape, num_outputs = (1,), 2

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x.sin(), x.cos()], -1)

    learner = _moved(bm.TransformerNeuralProcess(Circle(), relative=bm.learners.RelativeBias(), width=8, layers=2))
    data, x = _tasks(), torch.randn(3, 4, 1, dtype=torch.float64)
    torch.testing.assert_close(_numbers(learner, data, x + 2 * torch.pi), _numbers(learner, data, x), **EXACT)


@BOTH
def test_relabelling_permutes(make: Make) -> None:
    learner = make(2, head=bm.heads.CategoricalHead())
    x, query = torch.randn(1, 6, 2, dtype=torch.float64), torch.randn(1, 5, 2, dtype=torch.float64)
    labels, other = torch.tensor([[0, 1, 2, 0, 1, 1]]), torch.tensor([2, 0, 1])
    here = learner.adapt(bm.Data.full(x, labels)).predict(query).probs
    there = learner.adapt(bm.Data.full(x, other[labels])).predict(query).probs
    torch.testing.assert_close(there[..., other], here, **EXACT)


@BOTH
def test_deviations_may_be_small(make: Make) -> None:
    """The floor of .1 that is customary would make 2 nats of it."""
    learner, data = make(), _tasks()
    with torch.no_grad():
        for name, parameter in learner.named_parameters():
            if name.startswith(("layers", "of_query")):
                parameter.zero_()  # what is decoded is `asked`
        normal = learner.out[0](learner.asked)
        learner.out[1].weight[1] = -10.0 * normal / normal.square().sum()
    stddev = learner.adapt(data).predict(data.x).stddev
    torch.testing.assert_close(stddev, torch.full_like(stddev, 1e-3), rtol=0.1, atol=0.0)


def test_queries_have_weights_of_their_own() -> None:
    """A support point with y = 0 is not a query."""
    learner = _absolute()
    x = torch.zeros(1, 1, 1, dtype=torch.float64)
    h = learner.features(x)
    as_point = learner.of_point(torch.cat([h, torch.zeros_like(x)], -1))
    assert (as_point - learner.of_query(h) - learner.asked).abs().max() > 0.1


def test_the_table_is_the_perceptron() -> None:
    """At the nodes exactly, and between them within what a straight line misses."""
    functions = DistanceFunctions(2, 3, bm.learners.RelativeBias(reach=4.0, num_bumps=8)).double()
    r = 4.0 * torch.rand(1, 50, 1, dtype=torch.float64)
    found = functions(r, torch.zeros(1, 1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.bool))
    centers = torch.arange(8, dtype=torch.float64)
    bumps = torch.exp(-0.5 * (r[0] / 4.0 * 7 - centers).square())
    exact = functions.perceptron(bumps) - functions.slope() * r[0] / 4.0
    torch.testing.assert_close(found[..., 1].permute(1, 3, 0, 2).flatten(2)[0], exact, rtol=0.0, atol=0.02)
    assert (found[..., 0] == 0.0).all()


def test_a_derivative_at_distance_zero_is_finite() -> None:
    learner, data = _relative(), _tasks()
    x = data.x.clone().requires_grad_()
    learner.adapt(data).predict(x).mean.sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_keys_are_read_as_they_would_be_at_once() -> None:
    layer, rows, mask = Attention(8, 2), torch.randn(3, 5, 8), torch.rand(3, 5) < 0.5
    torch.nn.init.normal_(layer.out.weight)
    queries, keys = torch.randn(3, 4, 8), layer.of(rows)
    apart = [layer.read(queries[:, i : i + 1], keys, hiding(mask, rows.dtype)) for i in range(4)]
    torch.testing.assert_close(torch.cat(apart, 1), layer(queries, rows, mask))


def test_sizes_that_make_no_sense_are_refused() -> None:
    with pytest.raises(bm.DataError, match="divides 16 features, got 3"):
        bm.TransformerNeuralProcess(bm.Identity(1), width=16, num_heads=3)
    with pytest.raises(bm.DataError, match="1 to 100 layers, got 0"):
        bm.TransformerNeuralProcess(bm.Identity(1), layers=0)
    with pytest.raises(bm.DataError, match="a positive reach"):
        bm.learners.RelativeBias(reach=0.0)
    with pytest.raises(bm.DataError, match="frequencies with 0 < lowest < highest"):
        bm.networks.FourierFeatures(1, bounds=(2.0, 1.0))
