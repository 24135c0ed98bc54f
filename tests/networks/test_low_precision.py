"""Features in bfloat16: the numbers of float32 to its rounding, and everything behind them as it always is."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import bayesmeta as bm
from bayesmeta.interop.exporting.programs import adapt_predict
from bayesmeta.networks import LowPrecision
from bayesmeta.training import CompiledStep

# a number of bfloat16 is off by up to 2⁻⁹ of itself; two layers of weights, inputs and outputs add up some of these
ROUNDING = 2.0**-6


def pair(make: Callable[[bm.Network], bm.Learner], network: Callable[[], bm.Network]) -> list[bm.Learner]:
    """A learner in float32 and one with features in bfloat16, with the same numbers."""
    learners = []
    for wrap in (lambda each: each, LowPrecision):
        torch.manual_seed(0)
        learners.append(make(wrap(network())))
    return learners


def mlp() -> bm.Network:
    return bm.MLP(1, [16, 16])


def conv() -> bm.Network:
    return bm.Conv4((1, 16, 16), 8)


def curves() -> bm.TaskBatch:
    tasks = bm.tasks.Sinusoid().dataset(num_tasks=8, num_points=12, seed=0)
    return tasks.draw(8, bm.tasks.RandomSplit(), torch.Generator().manual_seed(0))


def images() -> bm.TaskBatch:
    pixels = torch.rand(3, 4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    data = bm.Data.full(pixels, torch.tensor([0, 1, 0, 1]).expand(3, -1))
    return bm.TaskBatch(data, data)


CASES = {
    "alpaca": (bm.ALPaCA, mlp, curves),
    "maml": (lambda network: bm.MAML(network, steps=2), mlp, curves),
    "cavia": (bm.CAVIA, mlp, curves),
    "r2d2": (lambda network: bm.R2D2(network, num_classes=2), conv, images),
    "llama, its last layer": (lambda network: bm.LLAMA(network, adapted=["output"]), mlp, curves),
}


@pytest.mark.parametrize("name", CASES)
def test_losses_and_gradients_are_those_of_float32_to_rounding(name: str) -> None:
    make, network, tasks = CASES[name]
    found = []
    for learner in pair(make, network):
        loss = learner.meta_loss(tasks())
        theta = [p for p in learner.parameters() if p.requires_grad]
        gradient = torch.autograd.grad(loss.sum(), theta, allow_unused=True, materialize_grads=True)
        assert all(g.dtype == p.dtype for g, p in zip(gradient, theta, strict=True))
        found.append((loss, torch.cat([g.flatten().double() for g in gradient])))
    (loss, gradient), (low_loss, low_gradient) = found
    assert low_loss.dtype == loss.dtype
    assert not torch.equal(low_loss, loss)
    torch.testing.assert_close(low_loss, loss, rtol=4 * ROUNDING, atol=4 * ROUNDING)
    assert (low_gradient - gradient).norm() < 8 * ROUNDING * gradient.norm()


def test_only_features_are_rounded() -> None:
    """The same features give the same posterior to the last bit: linear algebra is as precise as without."""
    _, low = pair(bm.ALPaCA, mlp)
    batch = curves()
    posterior = low.adapt(batch.support)
    assert posterior.predict(batch.query.x).mean.dtype == torch.float64
    assert posterior.mean["weight"].dtype == torch.float64
    support, query = (low.features(data.x) for data in (batch.support, batch.query))
    assert torch.equal(support, support.bfloat16().float())  # tanh's outputs
    linear = bm.ALPaCA(bm.networks.Inputs(16))
    linear.load_state_dict({k: v for k, v in low.state_dict().items() if not k.startswith("features.")}, strict=False)
    data = bm.Data(support.detach(), batch.support.y, batch.support.mask)
    expected = linear.adapt(data).predict(query.detach())
    found = posterior.predict(batch.query.x)
    assert torch.equal(found.mean, expected.mean)
    assert torch.equal(found.variance, expected.variance)


@pytest.mark.parametrize("network", [mlp, conv])
@pytest.mark.parametrize("with_output", [False, True])
def test_jacobians_are_those_without_rounding(network: Callable[[], bm.Network], with_output: bool) -> None:
    torch.manual_seed(0)
    exact = network()
    low = LowPrecision(exact)
    if with_output:
        low, exact = low.with_outputs(2), exact.with_outputs(2)
        exact.output = low.output
    x = torch.rand(2, 3, *exact.x_shape)
    own = list(exact.named_parameters())
    phi = {name: value.detach().expand(2, *value.shape) for name, value in own}
    names = [name for name, _ in low.named_parameters()]
    found = low.jacobian(dict(zip(names, phi.values(), strict=True)), x)
    torch.testing.assert_close(found.dense(), exact.jacobian(phi, x).dense(), rtol=1e-5, atol=1e-6)  # float32


def test_weights_of_each_task_are_those_of_a_loop() -> None:
    torch.manual_seed(0)
    for network in (LowPrecision(conv()), LowPrecision(mlp()).with_outputs(2)):
        phi = {n: (p + 0.1 * torch.randn(2, *p.shape)).detach() for n, p in network.named_parameters()}
        x = torch.rand(2, 3, *network.x_shape)
        loop = [torch.func.functional_call(network, {n: p[t] for n, p in phi.items()}, (x[[t]],)) for t in range(2)]
        found, expected = network.stacked(phi, x), torch.cat(loop)  # each rounds in an order of its own
        assert (found - expected).norm() < 4 * ROUNDING * expected.norm()


def test_a_learner_in_float64_is_exact() -> None:
    learner, low = (each.double() for each in pair(bm.ALPaCA, mlp))
    batch = curves()
    assert torch.equal(low.meta_loss(batch), learner.meta_loss(batch))


def test_autocast_around_it_changes_nothing() -> None:
    _, low = pair(bm.ALPaCA, mlp)
    batch = curves()
    expected = low.meta_loss(batch)
    with torch.autocast("cpu", torch.float16):
        assert torch.equal(low.meta_loss(batch), expected)


def test_it_trains_is_recorded_and_is_saved(tmp_path: Path) -> None:
    _, low = pair(lambda network: bm.MAML(network, steps=2, posterior=bm.PointEstimate()), mlp)
    batch = low.conform_tasks(curves())
    recorded, _ = CompiledStep(low, low.loss).record(batch)
    assert torch.equal(recorded, low.loss(batch))
    tasks = bm.tasks.Sinusoid().dataset(num_tasks=8, num_points=12, seed=0)
    bm.fit(low, tasks, steps=3, batch_size=4, progress=False)
    bm.save(low, tmp_path / "model")
    again = bm.load(tmp_path / "model")
    assert torch.equal(again.meta_loss(batch), low.meta_loss(batch))


def test_what_is_solved_for_is_not_rounded() -> None:
    for learner in (bm.IMAML(LowPrecision(mlp())), bm.LLAMA(LowPrecision(mlp()))):
        with pytest.raises(bm.UnsupportedError, match=r"'features.features.layers.0.weight' of features in bfloat16"):
            learner.adapt(curves().support)


@pytest.mark.slow
def test_an_exported_program_rounds_as_the_learner_does() -> None:
    torch.manual_seed(0)
    learner, batch = bm.ALPaCA(LowPrecision(mlp())), curves()
    run = adapt_predict(learner.frozen()).recorded().exported.module()
    found = run(batch.support.x, batch.support.y, batch.support.mask, batch.query.x)
    expected = learner.adapt(batch.support).predict(batch.query.x)
    torch.testing.assert_close(found["mean"], expected.mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found["variance"], expected.variance, rtol=1e-6, atol=1e-6)
