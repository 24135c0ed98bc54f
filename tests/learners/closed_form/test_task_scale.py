"""Learners whose tasks have a scale each: against quadrature over λ, scipy's t, NUTS, SBC, and in the limit."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

import bayesmeta as bm
from bayesmeta.inverse_gamma import InverseGamma
from bayesmeta.multivariate_student_t import MultivariateStudentT, log_gamma_ratio
from bayesmeta.predictives import GaussianPredictive, StudentTPredictive
from bayesmeta.priors import TaskScale

D = torch.float64
SHARP = {"rtol": 1e-8, "atol": 1e-8}  # what quadrature and brute force are good for
Make = Callable[[TaskScale | None], bm.Learner]


def _alpaca(features: bm.Network, outputs: int = 1) -> Make:
    noise = lambda: bm.noise.FullNoise(outputs)
    return lambda scale: bm.ALPaCA(features, num_outputs=outputs, noise=noise(), scale=scale)


LEARNERS: dict[str, Make] = {
    "alpaca": _alpaca(bm.Identity(1)),
    "alpaca, two outputs": _alpaca(bm.Identity(1), 2),
    "alpaca, more features than points": _alpaca(bm.RadialBasis(1, 9)),
    "r2d2": lambda scale: bm.R2D2Regressor(bm.Identity(1), scale=scale),
    "mixture": lambda scale: bm.MixtureALPaCA(bm.Identity(1), num_components=2, scale=scale),
    "deep kernel": lambda scale: bm.DeepKernelTransfer(bm.Identity(1), scale=scale),
    "deep kernel, two outputs": lambda scale: bm.DeepKernelTransfer(bm.Identity(1), num_outputs=2, scale=scale),
}


def _made(make: Make, scale: TaskScale | None) -> bm.Learner:
    """The same theta whatever the scale."""
    torch.manual_seed(0)
    learner = make(scale).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in learner.named_parameters():
            if "above_two" not in name:
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator, dtype=D)
    return learner


def _data(outputs: int, spread: float = 1.0) -> bm.Data:
    """Three tasks of 5, 3 and no points."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(3, 5, 1, generator=generator, dtype=D)
    y = spread * torch.randn(3, 5, outputs, generator=generator, dtype=D)
    return bm.Data(x, y, torch.arange(5) < torch.tensor([[5], [3], [0]]))


def _outputs(learner: bm.Learner) -> int:
    assert isinstance(learner.outcomes, bm.Numbers)
    return learner.outcomes.count


def _scaled_evidence(learner: bm.Learner, data: bm.Data, dof: float) -> Tensor:
    """log ∫ p(y | λ) p(λ) dλ by the trapezoid rule in log λ: p(y | λ) is the Gaussian learner's at residuals / √λ."""
    t = torch.linspace(-10.0, 16.0, 209, dtype=D)  # the sum converges as exp(-2π (π / 2) / .125)
    density = stats.invgamma(dof / 2, scale=(dof - 2) / 2)
    log_prior = torch.as_tensor(density.logpdf(t.exp().numpy())) + t
    center = learner.adapt(bm.Data.empty(data)).predict(data.x).mean
    count = data.counts * _outputs(learner)
    each = []
    for s in t:
        z = center + (data.y - center) * (-0.5 * s).exp()
        each.append(learner.log_evidence(bm.Data(data.x, z, data.mask)).detach() - 0.5 * s * count)
    return (torch.stack(each) + log_prior[:, None]).logsumexp(0) + math.log(float(t[1] - t[0]))


@pytest.mark.parametrize("name", [name for name in LEARNERS if name != "mixture"])
@pytest.mark.usefixtures("unchecked")  # 209 evidences
def test_evidence_is_the_gaussian_one_averaged_over_the_scale(name: str) -> None:
    scaled, gaussian = _made(LEARNERS[name], TaskScale(3.5)), _made(LEARNERS[name], None)
    data = _data(_outputs(scaled), spread=3.0)
    torch.testing.assert_close(scaled.log_evidence(data).detach(), _scaled_evidence(gaussian, data, 3.5), **SHARP)


@pytest.mark.parametrize("name", LEARNERS)
def test_joint_predictive_is_the_ratio_of_evidences_after_adapting_and_after_updating(name: str) -> None:
    learner = _made(LEARNERS[name], TaskScale(3.5))
    data = _data(_outputs(learner))
    full = bm.Data(data.x, data.y, torch.ones_like(data.mask))
    for seen in (0, 2, 4):
        first = bm.Data(data.x[:, :seen], data.y[:, :seen], data.mask[:, :seen])
        query = full.points(slice(seen, None))
        both = bm.Data(full.x, full.y, torch.cat([first.mask, query.mask], 1))
        ratio = (learner.log_evidence(both) - learner.log_evidence(first)).detach()
        stepwise = learner.adapt(first.points(slice(seen // 2))).update(first.points(slice(seen // 2, None)))
        for posterior in (learner.adapt(first), stepwise, stepwise.select([0, 1, 2])):
            torch.testing.assert_close(posterior.predict(query.x).log_prob(query.y), ratio, **SHARP)


def test_prior_predictive_is_scipys_multivariate_t() -> None:
    learner = _made(LEARNERS["alpaca, two outputs"], TaskScale(3.5))
    assert isinstance(learner, bm.ALPaCA)
    data = _data(2)
    design = np.column_stack([np.ones(5), data.x[0, :, 0]])
    rows = design @ learner.prior.covariance.matrix().detach().numpy() @ design.T + np.eye(5)
    covariance = np.kron(rows, learner.prior.noise.covariance().detach().numpy())
    mean = (design @ learner.prior.location.detach().numpy()).flatten()
    truth = stats.multivariate_t(mean, covariance * (1.5 / 3.5), df=3.5).logpdf(data.y[0].flatten().numpy())
    assert math.isclose(learner.log_evidence(data)[0].item(), truth, rel_tol=1e-8)


def test_the_scale_is_learned_from_the_points_seen() -> None:
    learner = bm.ALPaCA(bm.Polynomial(1, 0), scale=TaskScale(4.0)).double()
    quiet, loud = (learner.adapt(bm.Data.from_arrays(range(6), [size, -size] * 3)) for size in (0.01, 10.0))
    assert loud.scale.mean > 1_000 * quiet.scale.mean  # type: ignore[attr-defined]
    widths = [float(posterior.predict([0.0]).stddev) for posterior in (quiet, loud)]
    assert widths[1] > 10.0 * widths[0]
    assert learner.adapt(bm.Data.from_arrays([], [])).scale.mean.item() == pytest.approx(1.0)  # type: ignore[attr-defined]


def test_phi_and_its_draws_are_those_of_the_prior_program_and_nuts() -> None:
    learner = bm.ALPaCA(bm.Polynomial(1, 0), scale=TaskScale(6.0)).double()
    data = bm.Data.from_arrays([0.0, 1.0, 2.0], [1.0, 2.0, 4.0])
    exact = learner.adapt(data)
    # halves of 20 draws: of 10, R-hat is above 1.1 for some seeds though the chains agree
    sampled = bm.Sampled(learner, bm.inference.NUTS(32, 40, 60)).adapt(data)
    found = bm.checks.fidelity(exact, sampled, [0.5, 5.0], num_draws=500)
    assert found.parameters is not None
    assert set(found.parameters.names) == {"weight[0,0]", "log_scale"}
    # 640 draws, a third of them independent: a mean is right to 7 % of a deviation, and so is log of the deviation
    assert found.parameters.mean_error.abs().max() < 0.2
    assert found.parameters.log_scale.abs().max() < 0.2
    assert found.predictive_kl.max() < 0.01
    # p(phi | D) = p(phi, D) / p(D) at every draw: the density of the matrix t and of log λ, by their own parts
    phi = exact.sample(50, torch.Generator().manual_seed(0))
    mean, variance = (
        exact.mean["weight"][0, 0, 0],
        exact.feature_covariance[0, 0, 0] * learner.prior.noise.variance()[0],
    )
    log_scale, weight = phi["log_scale"][:, 0], phi["weight"][:, 0, 0, 0]
    rate = exact.scale.rate[0]  # type: ignore[attr-defined]
    shape = exact.scale.shape[0]  # type: ignore[attr-defined]
    density = shape * (rate.log() - log_scale) - shape.lgamma() - rate * (-log_scale).exp()
    density = density + torch.distributions.Normal(mean, ((log_scale).exp() * variance).sqrt()).log_prob(weight)
    joint = learner.log_joint(data)(phi)[:, 0].detach()
    torch.testing.assert_close(joint - density.detach(), learner.log_evidence(data).detach().expand(50), **SHARP)


@pytest.mark.parametrize("name", ["alpaca, two outputs", "mixture", "r2d2"])
def test_simulation_based_calibration(name: str) -> None:
    learner = _made(LEARNERS[name], TaskScale(3.0))
    assert isinstance(learner, bm.ExplicitLearner)
    x = torch.randn(1_000, 4, 1, generator=torch.Generator().manual_seed(0), dtype=D)
    mask = torch.arange(4) < torch.arange(1_000)[:, None] % 5
    ranks = bm.checks.sbc(learner, x, mask)
    assert "log_scale" in ranks.names
    assert ranks.is_uniform()


def test_predictive_simulation_based_calibration_of_a_student_t_process() -> None:
    learner = _made(LEARNERS["deep kernel"], TaskScale(3.0))
    x = torch.randn(1_000, 6, 1, generator=torch.Generator().manual_seed(0), dtype=D)
    assert bm.checks.predictive_sbc(learner, x[:, :4], x[:, 4:]).is_uniform()


@pytest.mark.parametrize("name", LEARNERS)
def test_many_degrees_of_freedom_are_the_gaussian(name: str) -> None:
    scaled, gaussian = _made(LEARNERS[name], TaskScale(9e9)), _made(LEARNERS[name], None)
    data = _data(_outputs(scaled))
    near = {"rtol": 1e-6, "atol": 1e-6}
    torch.testing.assert_close(scaled.log_evidence(data), gaussian.log_evidence(data), **near)
    a, b = (learner.adapt(data).predict(data.x) for learner in (scaled, gaussian))
    for ask in (
        lambda p: p.mean,
        lambda p: p.stddev,
        lambda p: p.log_prob(data.y, data.mask),
        lambda p: p.marginal_log_prob(data.y),
        lambda p: p.output_log_prob(data.y),
        lambda p: p.quantile(0.95),
        lambda p: p.cdf(data.y),
        lambda p: p.noiseless.stddev,
        lambda p: bm.evaluation.metrics.crps(p, data.y),
    ):
        torch.testing.assert_close(ask(a), ask(b), equal_nan=True, **near)
    tasks = bm.TaskBatch(data, bm.Data(data.x, data.y, torch.ones_like(data.mask)))
    for learner in (scaled, gaussian):
        (learner.meta_loss(tasks).sum() - learner.log_evidence(data).sum()).backward()
    other = dict(gaussian.named_parameters())
    for parameter_name, parameter in scaled.named_parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()
        if parameter_name in other:
            torch.testing.assert_close(parameter.grad, other[parameter_name].grad, rtol=1e-5, atol=1e-5)


def test_no_linear_mixed_model_of_gaussians() -> None:
    learner = bm.ALPaCA(bm.Identity(1), scale=TaskScale()).double()
    tasks = bm.tasks.Sawtooth().dataset(6, 5, seed=0)
    assert learner.mixed_model is None
    assert bm.Standardized(learner).mixed_model is None
    with pytest.raises(bm.UnsupportedError, match="restricted evidence"):
        bm.fit_evidence(learner, tasks, bm.training.RestrictedMaximumLikelihood())
    for step in (learner.maximise_exactly, learner.maximise_location, learner.restricted_log_evidence):
        with pytest.raises(bm.UnsupportedError, match="by gradients"):
            step(tasks.data)


def test_maximum_likelihood_finds_how_unlike_the_tasks_are() -> None:
    """1,000 tasks of 8 points around their own level, from the model: ν = 5 is found within its own error."""
    generator = torch.Generator().manual_seed(0)
    truth = bm.ALPaCA(bm.Polynomial(1, 0), scale=TaskScale(5.0)).double()
    x = torch.zeros(1_000, 8, 1, dtype=D)
    y = truth.adapt(bm.Data.empty(bm.Data.full(x, x))).predict(x).sample((), generator)
    learner = bm.ALPaCA(bm.Polynomial(1, 0), scale=TaskScale(20.0)).double()
    tasks = bm.TaskDataset.from_list([(a.flatten(), b.flatten()) for a, b in zip(x, y, strict=True)])
    result = bm.fit_evidence(learner, tasks)
    assert result.stopped_early
    assert learner.scale is not None
    assert 4.0 < learner.scale.dof().item() < 6.5  # the error of ν is .4
    assert learner.likelihood.noise.variance().item() == pytest.approx(0.1, rel=0.1)


def test_pyro_program_has_the_log_joint() -> None:
    from pyro import poutine

    from bayesmeta.interop.pyro import program

    for name in ("alpaca, two outputs", "mixture", "r2d2"):
        learner = _made(LEARNERS[name], TaskScale(4.0))
        assert isinstance(learner, bm.ExplicitLearner)
        data = _data(_outputs(learner))
        trace = poutine.trace(program(learner)).get_trace(data)
        phi = {site: trace.nodes[site]["value"].squeeze(1) for site in ("weight", "log_scale")}
        assert math.isclose(trace.log_prob_sum().item(), learner.log_joint(data)(phi).sum().item(), rel_tol=1e-12)


def test_a_split_prior_keeps_the_scale() -> None:
    alpaca = bm.ALPaCA(bm.Identity(1), scale=TaskScale(7.0))
    mixture = bm.MixtureALPaCA.split_prior(alpaca.features, alpaca.prior, 2)
    assert mixture.scale is not None
    assert mixture.scale is not alpaca.scale
    assert mixture.scale.dof().item() == pytest.approx(7.0)


def test_what_comes_after_a_prediction_takes_it_as_any_other() -> None:
    """Scores, recalibration, conformal regions, averages over theta, units, frames and figures."""
    import pandas as pd

    tasks = bm.tasks.Sawtooth().dataset(8, 9, seed=0)
    learner = bm.Standardized(bm.ALPaCA(bm.Polynomial(1, 2), scale=TaskScale())).double()
    bm.fit(learner, tasks, steps=20, lr=0.02, progress=False)
    table = bm.evaluate(learner, tasks, [0, 5], num_bootstrap=0).table()
    assert bool(np.isfinite(table[["nll", "crps", "coverage", "width"]].to_numpy()).all())
    bent, wider = (
        method(learner, tasks, shots=(2, 5))
        for method in (bm.calibration.isotonic_recalibration, bm.calibration.variance_scaling)
    )
    average = bm.HyperPosterior([learner, learner])
    support, x = tasks.data.points(slice(4)), tasks.data.x[:, 4:]
    same = learner.adapt(support).predict(x)
    for other in (bent, wider, average):
        predictive = other.adapt(support).predict(x)
        lower, upper = predictive.interval(0.9)
        assert bool((lower < upper).all())
        assert bool(torch.isfinite(predictive.log_prob(tasks.data.y[:, 4:])).all())
    for found, wanted in zip(average.adapt(support).predict(x).interval(0.9), same.interval(0.9), strict=True):
        torch.testing.assert_close(found, wanted, **SHARP)
    regions = bm.calibration.HierarchicalConformal(learner, tasks, shots=4).adapt(support)
    lower, upper = regions.interval(x, 0.8)
    assert bool((lower < upper).all())
    frame = pd.DataFrame({"task": ["a", "a", "b"], "x": [0.0, 0.5, 1.0], "y": [0.1, 0.4, 1.0]})
    named = bm.TaskDataset.from_frame(frame, task="task", x=["x"], y=["y"])
    assert named.schema is not None
    predicted = bm.predict_frame(learner, named.schema, frame, frame)
    assert bool((predicted.lower < predicted.upper).all())


# ------------------------------------------------------------------------------------------------ what it is made of


@pytest.mark.parametrize("dof", [2.2, 4.0, 30.0])
def test_the_prior_of_the_scale_is_scipys_inverse_gamma(dof: float) -> None:
    scale = TaskScale(dof).double()
    log_scale = torch.linspace(-3.0, 3.0, 7, dtype=D)
    truth = stats.invgamma(dof / 2, scale=(dof - 2) / 2)
    expected = truth.logpdf(log_scale.exp().numpy()) + log_scale.numpy()
    np.testing.assert_allclose(scale.log_prob({"log_scale": log_scale}).detach(), expected, rtol=1e-6)  # raw: rounded
    draws = scale.sample(4_000, torch.Generator().manual_seed(0))["log_scale"].detach()
    assert stats.kstest(draws.exp().numpy(), truth.cdf).pvalue > 0.01
    # the deviation of log λ is below 1.3: five errors of the mean of 4,000
    assert float((draws.mean() - scale.mean["log_scale"]).detach().abs()) < 0.1
    few = [each.sample(50, torch.Generator().manual_seed(0))["log_scale"].double() for each in (scale, scale.float())]
    torch.testing.assert_close(few[0], few[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bounds", [(2.0, 10.0), (1.0, 10.0), (5.0, 10.0), (2.5, 3.0), (2.5, math.inf)])
def test_degrees_of_freedom_are_above_two_and_within_bounds(bounds: tuple[float, float]) -> None:
    with pytest.raises(bm.DataError, match="2 < lower < dof < upper"):
        TaskScale(4.0, bounds)


def test_log_gamma_ratio_is_exact_for_any_size() -> None:
    a = torch.logspace(-0.3, 15.0, 60, dtype=D)
    # Γ(a + 3) / Γ(a) a³ = (1 + 1/a)(1 + 2/a): no log gamma in it
    truth = (1.0 / a).log1p() + (2.0 / a).log1p()
    torch.testing.assert_close(log_gamma_ratio(a, 3.0), truth, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(log_gamma_ratio(a, 0.0), torch.zeros_like(a), rtol=0.0, atol=0.0)


def test_multivariate_student_t_is_scipys() -> None:
    root = torch.tensor([[1.0, 0.0], [0.5, 2.0]], dtype=D)
    df, loc = torch.tensor([2.5, 40.0], dtype=D), torch.tensor([[1.0, -1.0], [0.0, 3.0]], dtype=D)
    ours, y = MultivariateStudentT(df, loc, root), torch.tensor([4.0, -5.0], dtype=D)
    for i in range(2):
        theirs = stats.multivariate_t(loc[i].numpy(), (root @ root.mT).numpy(), df=df[i].item())
        assert math.isclose(ours.log_prob(y)[i].item(), theirs.logpdf(y.numpy()), rel_tol=1e-12)
    torch.manual_seed(0)
    draws = ours.sample((40_000,))[:, 1]
    expected = root @ root.mT * 40.0 / 38.0
    torch.testing.assert_close(torch.cov(draws.mT), expected, rtol=0.05, atol=0.05)
    torch.testing.assert_close(ours.variance[1], expected.diagonal(), rtol=1e-12, atol=0.0)
    assert ours.expand((3, 2)).log_prob(y).shape == (3, 2)
    assert MultivariateStudentT(torch.tensor([1.0, 2.0]), loc.float(), root.float()).variance.isinf().all()


def test_float32_gives_the_draws_of_float64() -> None:
    gaussian = lambda dtype: GaussianPredictive(
        torch.zeros(2, 3, 1, dtype=dtype),
        torch.ones(2, 3, dtype=dtype),
        lambda: torch.eye(3, dtype=dtype).expand(2, 3, 3),
        torch.eye(1, dtype=dtype),
    )
    scale = lambda dtype: InverseGamma(torch.tensor([2.0, 9.0], dtype=dtype), torch.tensor([1.0, 3.0], dtype=dtype))
    a, b = (
        StudentTPredictive(gaussian(dtype), scale(dtype)).sample((4,), torch.Generator().manual_seed(3))
        for dtype in (torch.float32, torch.float64)
    )
    assert a.dtype == torch.float32
    torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-5)
