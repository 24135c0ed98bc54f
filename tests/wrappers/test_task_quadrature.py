"""Hyperparameters of tasks integrated out: against brute force, against the learner inside, and what they are for."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

import bayesmeta as bm
from bayesmeta.evaluation import metrics
from bayesmeta.inference import quadrature
from bayesmeta.wrappers import InputScale, NoiseScale, SignalScale, TaskHyperparameter, TaskQuadrature, task_quadrature

GRID = torch.linspace(-9.0, 9.0, 61, dtype=torch.float64)  # .3: what is as wide as .5 is exact to e^{-2 π² (.5/.3)²}


def _tasks(num_tasks: int = 3, points: int = 6, outputs: int = 1) -> bm.Data:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(num_tasks, points, 1, generator=generator, dtype=torch.float64) * 4.0 - 2.0
    noise = torch.randn(num_tasks, points, outputs, generator=generator, dtype=torch.float64)
    scale = torch.tensor([0.1, 0.5, 2.0], dtype=torch.float64)[:num_tasks, None, None]
    mask = torch.arange(points) < torch.tensor([points, points - 2, 1])[:num_tasks, None]
    return bm.Data(x, torch.sin(2.0 * x) + scale * noise, mask)


def _alpaca(outputs: int = 1) -> bm.ALPaCA:
    learner = bm.ALPaCA(bm.Polynomial(1, 2), num_outputs=outputs, noise=bm.noise.FullNoise(outputs)).double()
    learner.prior.location.data.normal_(generator=torch.Generator().manual_seed(1))
    return learner


def _process() -> bm.DeepKernelTransfer:
    learner = bm.DeepKernelTransfer(bm.Identity(1), kernel=bm.kernels.RBFKernel(0.8)).double()
    torch.nn.init.constant_(learner.mean, 0.3)
    return learner


def _varied(learner: bm.Learner, noise: float, signal: float) -> bm.Learner:
    """The learner with other scales, its parameters set one by one."""
    if isinstance(learner, bm.ALPaCA):
        prior = learner.prior
        covariance = prior.covariance.matrix().detach()  # in units of the noise
        prior.noise.set_covariance(noise**2 * prior.noise.covariance().detach())
        prior.covariance.set_matrix((signal / noise) ** 2 * covariance)
    if isinstance(learner, bm.DeepKernelTransfer):
        learner.likelihood.noise.set_covariance(noise**2 * learner.likelihood.noise.covariance().detach())
        learner.kernel.outputscale = signal**2 * learner.kernel.outputscale.detach()
    return learner


KINDS: dict[str, Callable[[float], TaskHyperparameter]] = {
    "noise": NoiseScale,
    "signal": SignalScale,
    "inputs": InputScale,
}
MAKERS: dict[str, Callable[[], bm.Learner]] = {"alpaca": _alpaca, "process": _process}


def _by_brute_force(
    make: Callable[[], bm.Learner], kinds: list[str], deviation: float, grid: Tensor, support: bm.Data, query: bm.Data
) -> tuple[Tensor, Tensor]:
    """log p(D), and log p(query | D), by a dense grid over z."""
    log_prior = -0.5 * grid.square() - 0.5 * math.log(2.0 * math.pi) + math.log(float(grid[1] - grid[0]))
    supports, joints = [], []
    for z in torch.cartesian_prod(*[grid] * len(kinds)).view(-1, len(kinds)).tolist():
        scale = {kind: math.exp(deviation * value) for kind, value in zip(kinds, z, strict=True)}
        learner = _varied(make(), scale.get("noise", 1.0), scale.get("signal", 1.0))
        stretch = scale.get("inputs", 1.0)
        seen, asked = (bm.Data(stretch * each.x, each.y, each.mask) for each in (support, query))
        supports.append(learner.log_evidence(seen).detach())
        joints.append(learner.log_evidence(seen.append(asked)).detach())
    weights = log_prior
    if len(kinds) == 2:
        weights = (log_prior[:, None] + log_prior).flatten()
    evidence, joint = ((weights[:, None] + torch.stack(each)).logsumexp(0) for each in (supports, joints))
    return evidence, joint - evidence


@pytest.mark.usefixtures("unchecked")  # shape checks would take most of the time of so many calls
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", MAKERS)
def test_one_hyperparameter_by_brute_force(make: str, kind: str) -> None:
    data = _tasks()
    support, query = data.points(slice(4)), data.points(slice(4, None))
    learner = TaskQuadrature(MAKERS[make](), KINDS[kind](0.4), nodes=31)
    evidence, predictive = _by_brute_force(MAKERS[make], [kind], 0.4, GRID, support, query)
    torch.testing.assert_close(learner.log_evidence(support).detach(), evidence, rtol=0.0, atol=1e-6)
    found = learner.adapt(support).predict(query.x).log_prob(query.y, query.mask)
    torch.testing.assert_close(found, predictive, rtol=0.0, atol=1e-6)
    coarse = TaskQuadrature(MAKERS[make](), KINDS[kind](0.4))  # as it is by default
    torch.testing.assert_close(coarse.log_evidence(support).detach(), evidence, rtol=0.0, atol=1e-3)


@pytest.mark.usefixtures("unchecked")
def test_two_hyperparameters_by_brute_force() -> None:
    data = _tasks(2)
    support, query = data.points(slice(4)), data.points(slice(4, None))
    learner = TaskQuadrature(_alpaca(), [NoiseScale(0.3), InputScale(0.3)], nodes=15)
    grid = torch.linspace(-5.5, 5.5, 21, dtype=torch.float64)  # steps of .55, and widths of .7: exact to 1e-13
    evidence, predictive = _by_brute_force(_alpaca, ["noise", "inputs"], 0.3, grid, support, query)
    torch.testing.assert_close(learner.log_evidence(support).detach(), evidence, rtol=0.0, atol=1e-6)
    found = learner.adapt(support).predict(query.x).log_prob(query.y, query.mask)
    torch.testing.assert_close(found, predictive, rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("kinds", [["noise"], ["signal"], ["inputs"], ["noise", "signal"]], ids=" ".join)
@pytest.mark.parametrize(
    "make",
    [_alpaca, lambda: _alpaca(2), _process, lambda: bm.R2D2Regressor(bm.Polynomial(1, 2)).double()],
    ids=["alpaca", "two outputs", "process", "r2d2"],
)
def test_without_deviation_it_is_the_learner_inside(make: Callable[[], bm.Learner], kinds: list[str]) -> None:
    inner = make()
    data = _tasks(outputs=inner.outcomes.count if isinstance(inner.outcomes, bm.Numbers) else 1)
    learner = TaskQuadrature(inner, [KINDS[kind](0.0) for kind in kinds], nodes=5)
    support, query = data.points(slice(3)), data.points(slice(3, None))
    torch.testing.assert_close(learner.log_evidence(data), inner.log_evidence(data), rtol=1e-10, atol=1e-10)
    ours, theirs = (each.adapt(support).predict(query.x) for each in (learner, inner))
    for name in ("mean", "stddev"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ours.log_prob(query.y), theirs.log_prob(query.y), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ours.noiseless.stddev, theirs.noiseless.stddev, rtol=1e-10, atol=1e-10)


def test_query_points_share_the_hyperparameter() -> None:
    data = _tasks()
    predictive = TaskQuadrature(_alpaca(), NoiseScale(0.5)).adapt(data).predict(data.x)
    assert isinstance(predictive, bm.predictives.MixturePredictive)
    each = predictive.components.log_prob(data.y.repeat_interleave(9, 0)).view(3, 9)
    torch.testing.assert_close(predictive.log_prob(data.y), (predictive.log_weights + each).logsumexp(-1))
    draws = predictive.sample((4000,), torch.Generator().manual_seed(0))
    # deviations of means of 4,000 draws
    assert ((draws.mean(0) - predictive.mean).abs() / predictive.stddev).max() < 4.5 / math.sqrt(4000)
    torch.testing.assert_close(predictive.cdf(predictive.quantile(0.2)), torch.full_like(predictive.mean, 0.2))


def test_more_than_is_computed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    data = _tasks(1)
    learner = TaskQuadrature(_alpaca(), NoiseScale(0.5))
    posterior, evidence = learner.adapt(data), learner.log_evidence(data)
    monkeypatch.setattr(task_quadrature, "NUMBERS", 100)  # two nodes of six points
    torch.testing.assert_close(learner.log_evidence(data), evidence)
    x = torch.linspace(-2.0, 2.0, 150, dtype=torch.float64)[None, :, None]
    together = posterior.predict(x)
    torch.testing.assert_close(together.mean[:, 100:], posterior.predict(x[:, 100:]).mean)


def test_it_is_evaluated_as_any_learner() -> None:
    """Two outputs: each task has its own scale, which every score has to follow."""
    data = _tasks(outputs=2)
    learner = bm.Standardized(TaskQuadrature(_alpaca(2), [NoiseScale(0.5), InputScale(0.2)], nodes=3))
    learner.prepare(data)
    predictive = learner.adapt(data).predict(data.x)
    draws = predictive.sample((20_000,), torch.Generator().manual_seed(0))
    y = data.y[:1]
    exact = metrics.crps(predictive, data.y, data.mask)[0]
    first, second = draws[::2, :1], draws[1::2, :1]
    sampled = (draws[:, :1] - y).abs().mean(0) - 0.5 * (first - second).abs().mean(0)
    assert exact.item() == pytest.approx(sampled.mean().item(), rel=0.03)  # deviations of 20,000 draws
    found = bm.evaluate(learner, bm.TaskDataset(_tasks(2, outputs=2).points(slice(4))), [0, 2], num_bootstrap=0)
    assert np.isfinite(found.table()[["nll", "joint_nll", "coverage"]].to_numpy()).all()
    own = found.by_outcome()
    assert len(own) == 2
    for each in own.values():
        assert np.isfinite(each.table()[["nll", "crps", "coverage", "width"]].to_numpy()).all()


def test_draws_of_phi() -> None:
    data = _tasks()
    moved = TaskQuadrature(_alpaca(), InputScale(0.3)).adapt(data)
    draws = moved.sample(5, torch.Generator().manual_seed(0))["weight"]
    assert draws.shape == (5, 3, 3, 1)
    assert moved.sample(0)["weight"].shape == (0, 3, 3, 1)
    with pytest.raises(bm.UnsupportedError, match="one over functions"):
        TaskQuadrature(_alpaca(), NoiseScale(0.3)).adapt(data).sample(5)


@pytest.mark.parametrize(
    ("make", "vary", "message"),
    [
        (lambda: bm.MAML(bm.MLP(1, [4])), InputScale, "a learner with an evidence, got MAML"),
        (lambda: bm.Standardized(bm.MAML(bm.MLP(1, [4]))), InputScale, "with an evidence, got Standardized"),
        (lambda: bm.ConditionalNeuralProcess(bm.Identity(1)), NoiseScale, "with an evidence, got Conditional"),
        (lambda: bm.LLAMA(bm.MLP(1, [4])), NoiseScale, "GaussianPredictive for NoiseScale, got LLAMA"),
        (lambda: bm.MixtureALPaCA(bm.Identity(1), num_components=2), SignalScale, "for SignalScale, got MixtureALPaCA"),
        (lambda: bm.Standardized(bm.ALPaCA(bm.Identity(1))), NoiseScale, "put Standardized around the outside"),
    ],
)
def test_what_has_no_such_hyperparameter(
    make: Callable[[], bm.Learner], vary: Callable[[], TaskHyperparameter], message: str
) -> None:
    with pytest.raises(bm.UnsupportedError, match=message):
        TaskQuadrature(make(), vary())


def test_arguments_out_of_range() -> None:
    with pytest.raises(bm.DataError, match="a hyperparameter or more"):
        TaskQuadrature(_alpaca(), [])
    with pytest.raises(bm.DataError, match="at most 1000 nodes"):
        TaskQuadrature(_alpaca(), [NoiseScale(), SignalScale()], nodes=32)
    with pytest.raises(bm.DataError, match="a deviation of 0 or more"):
        NoiseScale(-0.1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: bm.LLAMA(bm.MLP(1, [4]), solver=bm.inference.LevenbergMarquardt(3)),
        lambda: bm.MixtureALPaCA(bm.Identity(1), num_components=2),
    ],
    ids=["llama", "mixture"],
)
@pytest.mark.filterwarnings("ignore::bayesmeta.ConvergenceWarning")  # of an untrained network in three steps
def test_inputs_of_any_learner_with_an_evidence(make: Callable[[], bm.Learner]) -> None:
    learner = TaskQuadrature(make().double(), InputScale(0.3))
    data = _tasks()
    learner.log_evidence(data).sum().backward()
    assert learner.vary[0].deviation.grad.abs() > 0
    assert learner.adapt(data.points(slice(3))).predict(data.x).log_prob(data.y).isfinite().all()


def _unequal(num_tasks: int, points: int, deviation: float, seed: int) -> tuple[bm.TaskDataset, Tensor]:
    """Lines whose noise has deviations .1 e^{δ z}, and z."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(num_tasks, 1, 1, generator=generator, dtype=torch.float64)
    x = torch.rand(num_tasks, points, 1, generator=generator, dtype=torch.float64) * 2.0 - 1.0
    line = torch.randn(num_tasks, 2, 1, generator=generator, dtype=torch.float64)
    noise = 0.1 * (deviation * z).exp() * torch.randn(num_tasks, points, 1, generator=generator, dtype=torch.float64)
    return bm.TaskDataset(bm.Data.full(x, line[:, :1] + line[:, 1:] * x + noise)), z.flatten()


@pytest.mark.usefixtures("unchecked")
def test_the_deviation_is_learned_and_covers_tasks_of_unequal_noise() -> None:
    tasks, _ = _unequal(100, 8, 0.6, seed=0)
    learner = TaskQuadrature(bm.ALPaCA(bm.Identity(1)).double(), NoiseScale(), nodes=15)
    result = bm.fit_evidence(learner, tasks, tolerance=1e-6)
    assert result.stopped_early
    deviation = abs(learner.vary[0].deviation.item())
    assert 0.45 < deviation < 0.75  # .6 with an error of .05: log s of a task is known to .3
    plain = bm.ALPaCA(bm.Identity(1)).double()
    bm.fit_evidence(plain, tasks)
    gain = (learner.log_evidence(tasks.data).sum() - plain.log_evidence(tasks.data).sum()).item()
    assert gain > 50.0  # nats of 100 tasks
    test, z = _unequal(400, 60, 0.6, seed=1)
    support, query = test.data.points(slice(12)), test.data.points(slice(12, None))
    for name, model, error in (("own", learner, 0.02), ("shared", plain, math.inf)):
        lower, upper = model.adapt(support).predict(query.x).interval(0.9)
        covered = ((query.y >= lower) & (query.y <= upper)).double().mean((1, 2))
        groups = [covered[z < -0.67].mean(), covered[z.abs() < 0.67].mean(), covered[z > 0.67].mean()]
        # z is not known, and shrunk to 0: loud tasks are covered a little less, quiet ones more, as for every prior
        assert abs(covered.mean() - 0.9) < error, (name, groups)
        if name == "shared":
            assert groups[2] < 0.8 < 0.99 < groups[0]
        else:
            assert np.ptp([float(group) for group in groups]) < 0.08, groups


def test_rules_are_exact_for_polynomials() -> None:
    like = torch.zeros(1, dtype=torch.float64)
    nodes = quadrature.gauss_hermite(4, 2, like)
    weights = nodes.log_weights.exp()
    a, b = nodes.z.unbind(-1)
    assert (weights * a**6 * b**2).sum().item() == pytest.approx(15.0, rel=1e-12)


def test_nodes_follow_the_task() -> None:
    """Correlated and narrow: the integral of a Gaussian in two dimensions, in closed form."""
    precision = torch.tensor([[900.0, 500.0], [500.0, 400.0]], dtype=torch.float64)
    center = torch.tensor([1.0, -0.5], dtype=torch.float64)

    def log_likelihood(z: Tensor) -> Tensor:
        return -0.5 * torch.einsum("...d,de,...e->...", z - center, precision, z - center)

    nodes = quadrature.adapted(log_likelihood, 7, 2, torch.zeros(1, dtype=torch.float64))
    joint = precision + torch.eye(2, dtype=torch.float64)
    exact = -0.5 * torch.logdet(joint) - 0.5 * center @ (precision - precision @ joint.inverse() @ precision) @ center
    found = quadrature.log_integral(nodes, log_likelihood(nodes.z))
    assert found.item() == pytest.approx(exact.item(), abs=1e-6)
