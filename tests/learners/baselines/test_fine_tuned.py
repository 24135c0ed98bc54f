"""Pooled training is a fit of one network, and fine-tuning is MAP around it: exact, or a number of steps."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import bayesmeta as bm
from bayesmeta.learner import ExplicitLearner

EXACT = {"rtol": 1e-8, "atol": 1e-8}  # float64
FIVE = bm.likelihoods.Categorical(5)


def _numbers(num_tasks: int = 3, num_points: int = 6) -> bm.Data:
    x = torch.randn(num_tasks, num_points, 2, dtype=torch.float64)
    mask = torch.arange(num_points) < torch.arange(num_points, num_points - num_tasks, -1)[:, None]
    return bm.Data(x, x.sin().sum(-1, keepdim=True) + 0.1 * torch.randn(*x.shape[:2], 1, dtype=torch.float64), mask)


def _exact(**arguments: Any) -> bm.FineTuned:
    solver = bm.inference.GaussNewton(1)
    return bm.FineTuned(bm.MLP(2, [5]), solver=solver, adapted=["output"], **arguments).double()


def _new_classes(base_classes: int = 7, **arguments: Any) -> bm.FineTuned:
    return bm.FineTuned(bm.MLP(2, [5]), base_classes=base_classes, likelihood=FIVE, **arguments)


def test_an_exact_output_layer_is_ridge_regression() -> None:
    precision, learner, support = 3.0, _exact(precision=3.0), _numbers()
    x = torch.randn(3, 4, 2, dtype=torch.float64)
    prediction, noise = learner.adapt(support).predict(x), learner.likelihood.noise.variance().detach()
    layer = learner.network.output
    start = torch.cat([layer.weight, layer.bias[:, None]], 1).detach()[0]
    for task, count in enumerate(support.counts.tolist()):
        rows, query = (
            functional.pad(learner.network.features(each[None])[0].detach(), (0, 1), value=1.0)
            for each in (support.x[task, :count], x[task])
        )
        information = rows.mT @ rows / noise + precision * torch.eye(6, dtype=torch.float64)
        weights = start + torch.linalg.solve(information, rows.mT @ (support.y[task, :count, 0] - rows @ start) / noise)
        torch.testing.assert_close(prediction.mean[task, :, 0], query @ weights, **EXACT)
        spread = (query @ torch.linalg.inv(information) * query).sum(-1)
        torch.testing.assert_close(prediction.variance[task, :, 0], spread + noise, **EXACT)


class WithOne(bm.Network):
    """Features and a constant, which has the weight that an output layer calls its bias."""

    def __init__(self, features: bm.Network) -> None:
        super().__init__()
        self.features, self.x_shape, self.num_outputs = features, features.x_shape, features.num_outputs + 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.pad(self.features(x), (0, 1), value=1.0)


def test_an_exact_output_layer_is_alpaca_of_the_same_theta() -> None:
    learner, support = _exact(precision=3.0), _numbers()
    noise, layer = learner.likelihood.noise, learner.network.output
    in_units_of_noise = bm.priors.IsotropicCovariance(6, variance=1.0 / (3.0 * noise.variance().item()))
    exact = bm.ALPaCA(WithOne(learner.network.features), noise=noise, covariance=in_units_of_noise).double()
    with torch.no_grad():
        exact.prior.location.copy_(torch.cat([layer.weight.mT, layer.bias[None]]))
    x = torch.randn(3, 4, 2, dtype=torch.float64)
    a, b = (each.adapt(support).predict(x) for each in (learner, exact))
    for ours, theirs in ((a.mean, b.mean), (a.stddev, b.stddev)):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)  # ALPaCA's variance went through float32


def test_steps_are_those_of_a_plain_loop() -> None:
    precision, lr, steps = 2.0, 0.1, 4
    solver = bm.inference.GradientSteps(steps, lr)
    learner = bm.FineTuned(bm.MLP(2, [5]), solver=solver, precision=precision, posterior=bm.PointEstimate()).double()
    support = _numbers()
    found = learner.adapt(support).mean
    theta, unit = learner.initial, learner.likelihood.unit().detach()
    for task, count in enumerate(support.counts.tolist()):
        phi = {name: value.detach().clone().requires_grad_() for name, value in theta.items()}
        for _ in range(steps):
            f = torch.func.functional_call(learner.network, phi, (support.x[None, task, :count],))
            half = 0.5 * (support.y[task, :count] - f[0]).square().sum() / unit
            pull = sum(0.5 * precision * (phi[name] - theta[name].detach()).square().sum() for name in phi)
            gradients = torch.autograd.grad(half + pull, list(phi.values()))
            phi = {
                name: (value - lr * unit / count * gradient).detach().requires_grad_()
                for (name, value), gradient in zip(phi.items(), gradients, strict=True)
            }
        for name, value in phi.items():
            torch.testing.assert_close(found[name][task], value.detach(), **EXACT)


def test_pooled_training_is_a_fit_of_one_network() -> None:
    learner = bm.FineTuned(bm.MLP(2, [5])).double()
    support, query = _numbers(), _numbers()
    layers = learner.network
    network = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    log_variance = torch.log(learner.likelihood.noise.variance().detach())
    with torch.no_grad():
        for own, theirs in zip(network.parameters(), layers.parameters(), strict=True):
            own.copy_(theirs)
    learner.likelihood.requires_grad_(False)
    ours = torch.optim.SGD([p for p in learner.parameters() if p.requires_grad], lr=0.1)
    plain = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(5):
        ours.zero_grad()
        learner.meta_loss(bm.TaskBatch(support, query)).mean().backward()
        ours.step()
        plain.zero_grad()
        total = torch.zeros(())
        for task in range(3):
            x = torch.cat([support.x[task][support.mask[task]], query.x[task][query.mask[task]]])
            y = torch.cat([support.y[task][support.mask[task]], query.y[task][query.mask[task]]])
            total = total + functional.gaussian_nll_loss(network(x), y, log_variance.exp().expand_as(y)) / 3
        total.backward()
        plain.step()
    for own, theirs in zip(network.parameters(), layers.parameters(), strict=True):
        torch.testing.assert_close(own, theirs, **EXACT)


def test_base_classes_are_trained_by_a_softmax_over_all_of_them() -> None:
    learner, x, labels = _new_classes(), torch.randn(1, 8, 2), torch.tensor([[0, 6, 3, 2, 1, 5, 4, 4]])
    data = bm.Data.full(x, labels)
    found = learner.meta_loss(bm.TaskBatch(bm.Data.empty(data), data))
    torch.testing.assert_close(found[0], functional.cross_entropy(learner.network(x)[0], labels[0]))
    with pytest.raises(bm.DataError, match="labels from 0 to 6"):
        learner.meta_loss(bm.TaskBatch(bm.Data.empty(data), bm.Data.full(x, labels + 1)))


@pytest.mark.parametrize("adapted", [None, ["output"]])
def test_a_new_layer_starts_without_an_opinion(adapted: list[str] | None) -> None:
    learner, x = _new_classes(adapted=adapted, solver=bm.inference.GradientSteps(20, 0.5)), torch.randn(4, 2)
    support = bm.Data.from_labels(x, [0, 1, 2, 1])
    nothing = learner.adapt(bm.Data.empty(support)).predict(x).probs
    torch.testing.assert_close(nothing, torch.full_like(nothing, 0.2), rtol=0.0, atol=0.01)  # by quadrature
    posterior = learner.adapt(support)  # of five classes three have an example
    assert posterior.mean["output.weight"].shape == (1, 5, 5)
    probs = posterior.predict(x).probs[0]
    assert (probs[:, 3:].amax(-1) < probs[:, :3].amax(-1)).all()
    with pytest.raises(bm.DataError, match="labels from 0 to 4"):
        learner.adapt(bm.Data.from_labels(x, [0, 1, 2, 5]))


def test_features_are_computed_once_where_the_output_layer_alone_adapts() -> None:
    learner, support = _exact(), _numbers()
    phi = {name: value + 0.3 for name, value in learner.start(3).items()}
    torch.testing.assert_close(learner.joint(support)(phi), ExplicitLearner.joint(learner, support)(phi), **EXACT)
    draws = {name: torch.stack([value, 2.0 * value]) for name, value in phi.items()}
    torch.testing.assert_close(learner.joint(support)(draws)[0], learner.joint(support)(phi), **EXACT)


def test_theta_has_no_precision_to_learn() -> None:
    learner = _new_classes()
    assert {name.split(".")[0] for name, _ in learner.named_parameters()} == {"network"}
    copied = _new_classes()
    copied.load_state_dict(learner.state_dict())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"precision": 0.0}, bm.DataError, "a positive precision, got 0"),
        ({"adapted": ["features"]}, bm.DataError, "the new output layer to adapt"),
        ({"base_classes": 1}, bm.DataError, "at least 2 classes"),
        ({"likelihood": None}, bm.UnsupportedError, "expected a Categorical likelihood"),
    ],
)
def test_what_cannot_be_made(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        bm.FineTuned(bm.MLP(2, [5]), **{"base_classes": 7, "likelihood": FIVE} | arguments)
