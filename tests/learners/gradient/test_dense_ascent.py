"""Inner loops by the likelihood's score, and through dense layers by derivatives written out, are those of autograd.

float64 throughout: the same numbers by other operations, five steps amplify rounding by less than 1e3.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import bayesmeta as bm
from bayesmeta.inference import dense_ascent
from bayesmeta.networks.mlp import ACTIVATIONS

D = torch.float64
CLOSE = {"rtol": 1e-9, "atol": 1e-11}


class _Unwritten(bm.MLP):
    """An MLP that does not say what layers it has."""

    def dense_layers(self) -> None:
        return None


class _Twice(bm.MLP):
    """An MLP of another function, whose subclass has forgotten the layers."""

    def stacked(self, phi: dict[str, Tensor], x: Tensor) -> Tensor:
        return 2.0 * super().stacked(phi, x)

    def forward(self, x: Tensor) -> Tensor:
        return 2.0 * super().forward(x)


class _Halved(bm.likelihoods.Gaussian):
    """A likelihood of another density, whose subclass has forgotten the score."""

    def given(self, data: bm.Data) -> Callable[[Tensor], Tensor]:
        given = super().given(data)
        return lambda f: 0.5 * given(f)

    def log_prob(self, f: Tensor, data: bm.Data) -> Tensor:
        return 0.5 * super().log_prob(f, data)


def _tasks(num_inputs: int, num_outputs: int, labels: int = 0, noise: bool = False) -> bm.TaskBatch:
    """Ragged: 5, 0, 2 and 4 support points."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 8, num_inputs, dtype=D, generator=generator)
    y = torch.randn(4, 8, num_outputs, dtype=D, generator=generator)
    known = torch.rand(4, 8, num_outputs, dtype=D, generator=generator) if noise else None
    classes = torch.randint(0, max(labels, 1), (4, 8), generator=generator)
    parts = []
    for points, counts in ((slice(0, 5), [5, 0, 2, 4]), (slice(5, 8), [3, 1, 3, 2])):
        mask = torch.arange(points.stop - points.start) < torch.tensor(counts)[:, None]
        own = classes[:, points] if labels else y[:, points]
        parts.append(bm.Data(x[:, points], own, mask, None if known is None else known[:, points]))
    return bm.TaskBatch(*parts)


def _learner(
    kind: type[bm.Learner], make: type[bm.MLP], activation: str = "tanh", inputs: int = 2, **options: object
) -> bm.Learner:
    torch.manual_seed(0)
    return kind(make(inputs, [5, 4], activation=activation), **options).double()


def _loss_and_gradients(learner: bm.Learner, tasks: bm.TaskBatch) -> list[Tensor]:
    each = learner.meta_loss(tasks)
    parameters = list(learner.parameters())
    return [each, *torch.autograd.grad(each.sum(), parameters, materialize_grads=True)]


def _slowly(monkeypatch: pytest.MonkeyPatch, learner: bm.Learner, tasks: bm.TaskBatch) -> list[Tensor]:
    """By the gradient of the log likelihood itself."""
    with monkeypatch.context() as patch:
        patch.setattr(type(learner), "quick_mode", lambda self, support: None)
        return _loss_and_gradients(learner, tasks)


def _counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often the written derivatives are asked for: one entry each."""
    calls: list[int] = []
    plain = dense_ascent.DenseAscent.__call__

    def call(self: dense_ascent.DenseAscent, *arguments: object) -> list[Tensor]:
        calls.append(len(self.layers))
        return plain(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(dense_ascent.DenseAscent, "__call__", call)
    return calls


NOISE, LIKELIHOODS = bm.noise, bm.likelihoods
CASES: dict[str, tuple[dict[str, object], bm.TaskBatch]] = {
    **{f"activation {name}": ({"activation": name, "lr": 0.3}, _tasks(2, 1)) for name in sorted(ACTIVATIONS)},
    "one input": ({"inputs": 1, "lr": 0.2}, _tasks(1, 1)),
    "one step": ({"steps": 1}, _tasks(2, 1)),
    "two outputs": ({"num_outputs": 2, "lr": 0.2}, _tasks(2, 2)),
    "known noise": ({"lr": 0.2}, _tasks(2, 1, noise=True)),
    "known noise of two outputs": ({"num_outputs": 2, "lr": 0.2}, _tasks(2, 2, noise=True)),
    "two classes": ({"likelihood": LIKELIHOODS.Bernoulli(), "lr": 0.5}, _tasks(2, 1, labels=2)),
    "three classes": ({"likelihood": LIKELIHOODS.Categorical(3), "lr": 0.5}, _tasks(2, 1, labels=3)),
    "the output layer": ({"adapted": ["output"], "lr": 0.2}, _tasks(2, 1)),
    "the layer in the middle": ({"adapted": ["features.layers.2"], "lr": 0.2}, _tasks(2, 1)),
    "the first layer": ({"adapted": ["features.layers.0"], "lr": 0.2}, _tasks(2, 1)),
    "a bias at each end": ({"adapted": ["features.layers.0.bias", "output.bias"], "lr": 0.2}, _tasks(2, 1)),
    "weights without biases": ({"adapted": ["features.layers.0.weight", "output.weight"], "lr": 0.2}, _tasks(2, 1)),
}


@pytest.mark.parametrize("network", [bm.MLP, _Unwritten])
@pytest.mark.parametrize("name", CASES)
def test_losses_and_gradients_are_those_of_the_log_likelihood(
    name: str, network: type[bm.Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    options, tasks = CASES[name]
    calls = _counted(monkeypatch)
    learner = _learner(bm.MAML, network, posterior=bm.PointEstimate(), **options)
    quick = _loss_and_gradients(learner, tasks)
    assert bool(calls) == (network is bm.MLP)
    for value, other in zip(quick, _slowly(monkeypatch, learner, tasks), strict=True):
        torch.testing.assert_close(value, other, **CLOSE)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (bm.FirstOrderMAML, {}),
        (bm.MetaSGD, {"steps": 3}),
        (bm.MAML, {"checkpoint": True}),
        (bm.MAML, {"likelihood": LIKELIHOODS.Gaussian(NOISE.FullNoise(1))}),
        (bm.MAML, {"likelihood": LIKELIHOODS.StudentT(1)}),
        (bm.MAML, {"likelihood": _Halved()}),
    ],
)
def test_what_the_written_derivatives_do_not_know_is_left_to_autograd(
    kind: type[bm.Learner], options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = _counted(monkeypatch)
    learner = _learner(kind, bm.MLP, lr=0.1, posterior=bm.PointEstimate(), **options)
    quick = _loss_and_gradients(learner, _tasks(2, 1))
    assert not calls
    for value, other in zip(quick, _slowly(monkeypatch, learner, _tasks(2, 1)), strict=True):
        torch.testing.assert_close(value, other, **CLOSE)


def test_a_subclass_that_computes_something_else_is_not_taken_for_its_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _counted(monkeypatch)
    learner = _learner(bm.MAML, _Twice, lr=0.1, posterior=bm.PointEstimate())
    quick = _loss_and_gradients(learner, _tasks(2, 1))
    assert not calls
    for value, other in zip(quick, _slowly(monkeypatch, learner, _tasks(2, 1)), strict=True):
        torch.testing.assert_close(value, other, **CLOSE)
    replaced = _learner(bm.MAML, bm.MLP, lr=0.1, posterior=bm.PointEstimate())
    replaced.network.features.layers[1] = nn.Softplus()  # whose derivatives nobody has written
    replaced.meta_loss(_tasks(2, 1))
    assert not calls


def test_the_meta_loss_can_be_differentiated_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _counted(monkeypatch)
    learner, tasks = _learner(bm.MAML, bm.MLP, lr=0.2, steps=2, posterior=bm.PointEstimate()), _tasks(2, 1)
    parameters = list(learner.parameters())

    def curvature() -> list[Tensor]:
        gradients = torch.autograd.grad(learner.meta_loss(tasks).sum(), parameters, create_graph=True)
        squared = torch.stack([gradient.square().sum() for gradient in gradients]).sum()
        return list(torch.autograd.grad(squared, parameters))

    quick = curvature()
    assert calls
    monkeypatch.setattr(bm.MAML, "quick_mode", lambda self, support: None)
    for value, other in zip(quick, curvature(), strict=True):
        torch.testing.assert_close(value, other, **CLOSE)


def test_points_that_are_sought_by_gradients_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, tasks = _learner(bm.MAML, bm.MLP, lr=0.2, posterior=bm.PointEstimate()), _tasks(2, 1)

    def gradients() -> tuple[Tensor, ...]:
        x, y = (value.clone().requires_grad_() for value in (tasks.support.x, tasks.support.y))
        moved = bm.TaskBatch(bm.Data(x, y, tasks.support.mask), tasks.query)
        return torch.autograd.grad(learner.meta_loss(moved).sum(), (x, y))

    quick = gradients()
    monkeypatch.setattr(bm.MAML, "quick_mode", lambda self, support: None)
    for value, other in zip(quick, gradients(), strict=True):
        torch.testing.assert_close(value, other, **CLOSE)


def test_a_task_that_leaves_the_finite_numbers_is_named() -> None:
    learner, tasks = _learner(bm.MAML, bm.MLP, steps=40, lr=500.0), _tasks(2, 1)
    with pytest.raises(bm.InferenceError, match=r"MAML: expected adaptation that .* in task \d"):
        learner.meta_loss(tasks)
