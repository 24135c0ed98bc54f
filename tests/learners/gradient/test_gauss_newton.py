"""A few Gauss-Newton steps in their dual form, under priors whose deviations are learned."""

import math

import pytest
import torch
from torch import Tensor, nn

import bayesmeta as bm
from bayesmeta.inference import GaussNewton, MapProblem
from bayesmeta.inference.gauss_newton import DAMPINGS
from bayesmeta.linalg import flattened
from bayesmeta.typing import Params

D = torch.float64
CLOSE = {"rtol": 1e-10, "atol": 1e-10}  # float64: another order of the same operations


class Line(bm.WholeNetwork):
    """K outputs that are linear in phi."""

    def __init__(self, num_outputs: int = 1) -> None:
        super().__init__()
        self.layer = nn.Linear(2, num_outputs)
        self.x_shape, self.num_outputs = (2,), num_outputs

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def _support(num_outputs: int = 1) -> bm.Data:
    """Ragged: 6, 0 and 3 points."""
    x, y = torch.randn(3, 6, 2, dtype=D), torch.randn(3, 6, num_outputs, dtype=D)
    return bm.Data(x, y, torch.arange(6) < torch.tensor([6, 0, 3])[:, None])


def _shaken(learner: bm.IMAML | bm.LLAMA) -> bm.IMAML | bm.LLAMA:
    """With deviations that differ."""
    learner.double()
    with torch.no_grad():
        for parameter in learner.prior.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return learner


def _flat(phi: Params) -> Tensor:
    return torch.cat([flattened(value) for value in phi.values()], 1)


def _spread(learner: bm.IMAML | bm.LLAMA) -> Tensor:
    """D of all numbers."""
    variances = learner.prior.variance()
    return torch.cat([variances[name].detach().expand(mean.shape).flatten() for name, mean in learner.initial.items()])


def _problem(learner: bm.IMAML | bm.LLAMA, support: bm.Data, start: Params) -> MapProblem:
    return MapProblem(learner.joint(support), start, curvature=lambda phi: learner.curvature(support, phi))


@pytest.mark.parametrize("num_outputs", [1, 2])
def test_the_dual_step_is_the_primal_one(num_outputs: int) -> None:
    """From anywhere, theta + D Jᵀ (J D Jᵀ + Σ)⁻¹ (y - f + J (phi - theta)); linear, so that the full step is best."""
    support = _support(num_outputs)
    likelihood = bm.likelihoods.Gaussian(bm.noise.FullNoise(num_outputs, 0.3))
    learner = _shaken(bm.IMAML(Line(num_outputs), prior=bm.priors.FactoredGaussian, likelihood=likelihood))
    theta = {name: value.detach() for name, value in learner.start(3).items()}
    phi = {name: value + torch.randn_like(value) for name, value in theta.items()}
    with torch.no_grad():
        found = _flat(GaussNewton(1).solve(_problem(learner, support, phi)))
        rows, f = learner.jacobian(phi, support.x).dense(), learner.forward(phi, support.x)
        for b in range(3):
            real = support.mask[b]
            j, e = rows[b][real].flatten(0, 1), (_flat(phi) - _flat(theta))[b]
            noise = torch.kron(torch.eye(int(real.sum()), dtype=D), likelihood.noise.covariance())
            residual = (support.y[b] - f[b])[real].flatten() + j @ e
            spread = _spread(learner)
            expected = _flat(theta)[b] + spread * (j.mT @ torch.linalg.solve(j * spread @ j.mT + noise, residual))
            torch.testing.assert_close(found[b], expected, **CLOSE)


@pytest.mark.parametrize("kind", ["gaussian", "classes"])
def test_each_task_takes_the_best_of_the_damped_steps(kind: str) -> None:
    """(D⁻¹ (1 + μ) + JᵀΛJ)⁻¹ g, dense, of a curved network."""
    support = _support(2)
    likelihood: bm.likelihoods.Likelihood = bm.likelihoods.Gaussian(bm.noise.FullNoise(2, 0.01))
    if kind == "classes":
        likelihood = bm.likelihoods.Categorical(3)
        support = bm.Data(support.x, torch.randint(0, 3, support.mask.shape), support.mask)
    learner = _shaken(bm.IMAML(bm.MLP(2, [4]), prior=bm.priors.FactoredGaussian, likelihood=likelihood))
    phi = {name: (value + 0.3 * torch.randn_like(value)).detach() for name, value in learner.start(3).items()}
    joint, leaves = learner.joint(support), {name: value.requires_grad_() for name, value in phi.items()}
    gradient = _flat(dict(zip(phi, torch.autograd.grad(joint(leaves).sum(), list(leaves.values())), strict=True)))
    with torch.no_grad():
        found = GaussNewton(1).solve(_problem(learner, support, phi))
        rows = learner.curvature(support, phi).rows.dense().flatten(1, 2)
        trace = (rows.square() * _spread(learner)).sum((1, 2))
        steps = []
        for share in DAMPINGS:
            damped = torch.diag_embed((1.0 + share * trace[:, None]) / _spread(learner)) + rows.mT @ rows
            steps.append(_flat(phi) + torch.linalg.solve(damped, gradient[..., None])[..., 0])
        distance = torch.stack([(step - _flat(found)).abs().amax(1) for step in steps])
        assert (distance.amin(0) < 1e-10).all()
        sizes = [value[0].numel() for value in phi.values()]
        values = [
            joint({n: part.reshape(phi[n].shape) for n, part in zip(phi, step.split(sizes, 1), strict=True)})
            for step in steps
        ]
        assert (joint(found) >= torch.stack(values).amax(0) - 0.01).all()  # less damping where it costs no more


def test_one_step_of_a_linear_network_is_the_posterior_mean() -> None:
    likelihood = bm.likelihoods.Gaussian(bm.noise.DiagonalNoise(1, 1e-3))
    learner = _shaken(bm.IMAML(Line(), prior=bm.priors.FactoredGaussian, solver=GaussNewton(1), likelihood=likelihood))
    support = _support()
    found = _flat(learner.adapt(support).mean)
    rows = torch.cat([support.x, torch.ones(3, 6, 1, dtype=D)], -1) * support.mask[..., None]
    theta = _flat(learner.start(1))[0]
    precision = rows.mT @ rows / learner.likelihood.unit() + torch.diag(1.0 / _spread(learner))
    residual = (support.y[..., 0] - rows @ theta) * support.mask
    expected = theta + torch.linalg.solve(
        precision, (rows.mT @ residual[..., None])[..., 0] / learner.likelihood.unit()
    )
    torch.testing.assert_close(found, expected.detach(), rtol=1e-9, atol=1e-9)  # a condition of 1e4


@pytest.mark.parametrize("steps", [1, 3])
def test_no_task_ends_below_its_start(steps: int) -> None:
    """A network that is far from its data, where full steps overshoot; float32, where rounding is seen."""
    noise = bm.noise.DiagonalNoise(1, 1e-6)
    learner = bm.IMAML(bm.MLP(1, [20, 20]), solver=GaussNewton(steps), likelihood=bm.likelihoods.Gaussian(noise))
    x = torch.linspace(-5.0, 5.0, 12).expand(6, -1)[..., None]
    support = bm.Data.full(x, torch.sin(x * torch.arange(1, 7)[:, None, None]))
    with torch.no_grad():
        joint = learner.log_joint(support)
        assert (joint(learner.find_mode(support)) > joint(learner.start(6))).all()


def test_the_meta_gradient_goes_through_all_steps() -> None:
    """Three steps that do not arrive: finite differences of what is computed, in every part of theta."""
    noise = bm.likelihoods.Gaussian(bm.noise.DiagonalNoise(1, 0.05))
    learner = _shaken(
        bm.IMAML(bm.MLP(2, [5]), prior=bm.priors.FactoredGaussian, solver=GaussNewton(3), likelihood=noise)
    )
    tasks = bm.TaskBatch(_support(), bm.Data.full(torch.randn(3, 4, 2, dtype=D), torch.randn(3, 4, 1, dtype=D)))
    parameters = list(learner.parameters())
    gradients = torch.autograd.grad(learner.meta_loss(tasks).sum(), parameters)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        direction, ends = torch.randn_like(parameter), []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                parameter.add_(step * direction)
                ends.append(learner.meta_loss(tasks).sum().item())
                parameter.sub_(step * direction)
        found, expected = (gradient * direction).sum().item(), (ends[0] - ends[1]) / 2e-5
        assert math.isclose(found, expected, rel_tol=1e-6, abs_tol=1e-7)  # h² f''', and rounding / h


def test_everything_follows_the_same_deviations() -> None:
    """Evidence and predictive of a linear network under a factored prior are those of the marginal Gaussian."""
    learner = _shaken(bm.LLAMA(Line(2), prior=bm.priors.FactoredGaussian, num_outputs=2))
    support, x = _support(2), torch.randn(3, 2, 2, dtype=D)
    posterior, evidence = learner.adapt(support), learner.log_evidence(support)
    prediction = posterior.predict(x)
    weight, bias = (learner.prior.variance()[name].detach() for name in ("layer.weight", "layer.bias"))
    noise = torch.diag(learner.likelihood.noise.variance()).detach()

    def covariance(a: Tensor, b: Tensor) -> Tensor:  # outputs are independent a priori
        blocks = [torch.einsum("ni,i,mi->nm", a, weight[k], b) + bias[k] for k in range(2)]
        return torch.stack([blocks[0], blocks[1]])

    with torch.no_grad():
        for b in range(3):
            seen = support.x[b][support.mask[b]]
            mean, y = learner.network(seen[None])[0], support.y[b][support.mask[b]]
            total = torch.zeros((), dtype=D)
            for k in range(2):
                inner = covariance(seen, seen)[k] + noise[k, k] * torch.eye(len(seen), dtype=D)
                if len(seen):
                    total += torch.distributions.MultivariateNormal(mean[:, k], inner).log_prob(y[:, k])
                cross = covariance(x[b], seen)[k]
                expected = learner.network(x[b][None])[0, :, k] + cross @ torch.linalg.solve(
                    inner, y[:, k] - mean[:, k]
                )
                variance = covariance(x[b], x[b])[k] - cross @ torch.linalg.solve(inner, cross.mT)
                torch.testing.assert_close(
                    prediction.mean[b, :, k], expected, rtol=1e-6, atol=1e-6
                )  # the solver's √eps
                torch.testing.assert_close(
                    prediction.variance[b, :, k], variance.diagonal() + noise[k, k], rtol=1e-9, atol=1e-9
                )
            torch.testing.assert_close(evidence[b], total, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", [bm.priors.LayerwiseGaussian, bm.priors.FactoredGaussian, bm.priors.DiagonalGaussian])
def test_learned_deviations_are_stored_with_the_model(kind: type[bm.priors.IndependentGaussian], tmp_path) -> None:
    learner = _shaken(bm.IMAML(bm.MLP(2, [4]), precision=3.0, prior=kind, solver=GaussNewton(2))).float()
    bm.save(learner, tmp_path / "model")
    again, support = bm.load(tmp_path / "model"), _support().to(torch.float32)
    assert type(again.prior) is kind
    found, expected = (each.adapt(support).predict(support.x) for each in (again, learner))
    torch.testing.assert_close(found.variance, expected.variance)


def test_solvers_that_need_a_curvature_say_so() -> None:
    with pytest.raises(bm.UnsupportedError, match="expected a problem with a curvature, got None: GaussNewton"):
        GaussNewton().solve(MapProblem(lambda phi: -phi["w"].square().sum(1), {"w": torch.ones(1, 1)}))
