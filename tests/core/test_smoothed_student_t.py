"""Student's t plus a Gaussian, as the marginal of the likelihood and on its own: against quadrature over f."""

import math
import pickle

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch.distributions import Categorical, Independent, MixtureSameFamily

import bayesmeta as bm
from bayesmeta import distributions
from bayesmeta.smoothed_student_t import SmoothedStudentT

D = torch.float64
NODES, WEIGHTS = np.polynomial.legendre.leggauss(40)
DISTANCES = (0.0, 0.5, 2.0, 6.0, 20.0, 60.0, 200.0, 700.0, 2500.0, 1e4)  # of y, in scales


def _log_density(y: float, dof: float, variance: float) -> float:
    """log ∫ N(f; 0, variance) t(y - f) df with a scale of 1, by Gauss-Legendre in pieces around both peaks."""
    if variance == 0.0:
        return stats.t.logpdf(y, dof)
    deviation = math.sqrt(variance)
    ends = {k * deviation for k in (-40, -12, -8, -5, -3, -1, 0, 1, 3, 5, 8, 12, 40)}
    ends |= {y + k for k in (-300, -100, -30, -10, -3, -1, 0, 1, 3, 10, 30)} | {y * k / 20 for k in range(1, 20)}
    pieces = np.concatenate([np.linspace(a, b, 9)[:-1] for a, b in zip(sorted(ends), sorted(ends)[1:], strict=False)])
    half = 0.5 * np.diff(pieces)[:, None]
    f = pieces[:-1, None] + half * (1.0 + NODES)
    values = stats.norm.logpdf(f, 0.0, deviation) + stats.t.logpdf(y - f, dof)
    highest = values.max()
    return highest + math.log((np.exp(values - highest) * WEIGHTS * half).sum())


@pytest.mark.parametrize("dof", [2.1, 3.0, 5.5, 12.0, 30.0, 200.0, 1000.0])
def test_the_likelihoods_marginal_against_quadrature(dof: float) -> None:
    """From certain f to f of 100 scales, from the middle to 10,000 scales out, where it is a t's tail still."""
    likelihood = bm.likelihoods.StudentT(1, initial_scale=0.3, initial_dof=dof, dof_bounds=(1e-6, 1e9)).double()
    likelihood.dof.set(dof)
    variances = (0.0, 1e-3, 0.3, 2.0, 10.0, 55.6, 1e3, 1e4)  # in scale²
    y = torch.tensor(DISTANCES, dtype=D) * 0.3 + 0.7
    mean = torch.full((1, len(y), 1), 0.7, dtype=D)
    for variance in variances:
        marginal = likelihood.marginal(mean, torch.full_like(mean, variance * 0.09))
        for sign in (1.0, -1.0):
            found = marginal.log_prob(0.7 + sign * (y - 0.7)[None, :, None])[0].tolist()
            expected = [_log_density(r, dof, variance) - math.log(0.3) for r in DISTANCES]
            # the sum itself: 1e-5; the bounds on scale and dof bend them by less
            assert np.abs(np.subtract(found, expected)).max() < 2e-5, variance


def test_an_outlier_of_many_scales() -> None:
    """A fixed grid of Gaussians fell off as a Gaussian does: 41 nats too low here."""
    likelihood = bm.likelihoods.StudentT(1, initial_scale=0.3, initial_dof=30.0).double()
    found = likelihood.marginal(torch.zeros(1, 1, 1, dtype=D), torch.full((1, 1, 1), 5.0, dtype=D))
    scale, dof = likelihood.scale().item(), likelihood.dof().item()
    expected = _log_density(50.0 / scale, dof, 5.0 / scale**2) - math.log(scale)
    assert abs(found.log_prob(torch.full((1, 1, 1), 50.0, dtype=D)).item() - expected) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, D])
@pytest.mark.parametrize("dof", [2.0, 3.3, 40.0, 200.0])
def test_far_out_it_is_students_t(dof: float, dtype: torch.dtype) -> None:
    d = SmoothedStudentT(torch.tensor(dof, dtype=dtype), 0.0, 1.0, torch.tensor(1.0, dtype=dtype))
    for y in (1e6, 1e9, 1e12):  # the ratio is 1 + smoothing (df + 1) (df + 2) / 2 y²: 2e-8 and less
        expected = stats.t.logpdf(y, dof)
        error = abs(d.log_prob(torch.tensor(y, dtype=dtype)).item() - expected)
        assert error < 2e-5 + 4.0 * torch.finfo(dtype).eps * abs(expected)


@pytest.mark.parametrize("dof", [2.1, 6.0, 150.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.5, 30.0])
def test_distribution_function_quantiles_and_density_agree(dof: float, smoothing: float) -> None:
    d = SmoothedStudentT(torch.tensor(dof, dtype=D), 0.4, 2.0, torch.tensor(smoothing, dtype=D))
    at = lambda y: d.log_prob(torch.tensor(y, dtype=D)).exp().item()
    cdf = lambda y: d.cdf(torch.tensor(y, dtype=D)).item()
    for low, high in ((-3.0, 1.0), (1.0, 9.0), (-200.0, -60.0)):
        mass = integrate.quad(at, low, high, epsabs=0.0, epsrel=1e-9, limit=200)[0]
        assert math.isclose(cdf(high) - cdf(low), mass, rel_tol=1e-5)  # the sums' own error
    assert math.isclose(cdf(0.4), 0.5, rel_tol=3e-6)
    for q in (1e-9, 1e-3, 0.2, 0.5, 0.8, 0.999):
        y = distributions.quantile(d, q)
        assert math.isclose(cdf(y.item()), q, rel_tol=3e-6)
    if smoothing == 0.0:
        for y in (-1e5, -30.0, -1.0, 0.4, 3.0):
            assert math.isclose(cdf(y), stats.t.cdf(y, dof, 0.4, 2.0), rel_tol=1e-5)


def test_draws_have_its_distribution_and_moments() -> None:
    torch.manual_seed(0)
    d = SmoothedStudentT(torch.tensor(5.0, dtype=D), -1.0, 2.0, torch.tensor(3.0, dtype=D))
    draws = d.sample((20_000,))
    assert d.mean.item() == -1.0
    assert math.isclose(d.variance.item(), 3.0 + 4.0 * 5.0 / 3.0, rel_tol=1e-12)
    assert stats.kstest(d.cdf(draws).numpy(), "uniform").pvalue > 1e-3
    assert abs(draws.var().item() / d.variance.item() - 1.0) < 0.1  # its standard error: √(kurtosis / 20,000) ≈ .02


def test_gradients_equal_finite_differences() -> None:
    """Of everything, also where f is certain; the nodes move with y and df, and have no part in it."""
    y = torch.tensor([0.3, 2.0, 40.0], dtype=D)
    values = [torch.tensor(v, dtype=D, requires_grad=True) for v in (4.5, 0.2, 0.7, 0.9)]
    for function in ("log_prob", "cdf"):
        result = lambda *p, function=function: getattr(SmoothedStudentT(*p), function)(y)
        assert torch.autograd.gradcheck(result, values, eps=1e-5, atol=1e-6, rtol=1e-4)
    smoothing = torch.zeros((), dtype=D, requires_grad=True)
    (slope,) = torch.autograd.grad(SmoothedStudentT(values[0], 0.2, 0.7, smoothing).log_prob(y).sum(), smoothing)
    step = SmoothedStudentT(4.5, 0.2, 0.7, torch.tensor(1e-3, dtype=D)).log_prob(y).sum()
    plain = stats.t.logpdf(y.numpy(), 4.5, 0.2, 0.7).sum()
    assert math.isclose(slope.item(), (step.item() - plain) / 1e-3, rel_tol=1e-2)  # the step's own error
    draws = SmoothedStudentT(values[0], values[1], values[2], smoothing).rsample((4,))
    assert torch.isfinite(torch.autograd.grad(draws.sum(), [*values[:3], smoothing])[3])


def test_its_crps_is_that_of_students_t() -> None:
    """Jordan et al. 2019, appendix A: the closed form of the CRPS of Student's t."""
    for dof in (2.1, 4.0, 60.0):
        d = SmoothedStudentT(torch.full((1, 3, 1), dof, dtype=D), 0.0, 1.0, 0.0)
        y = torch.tensor([[[0.0], [1.5], [30.0]]], dtype=D)
        found = bm.evaluation.metrics.crps(bm.predictives.IndependentPredictive(Independent(d, 1)), y)
        z = y.flatten().numpy()
        beta = lambda a, b: math.gamma(a) * math.gamma(b) / math.gamma(a + b)
        spread = 2.0 * math.sqrt(dof) / (dof - 1.0) * beta(0.5, dof - 0.5) / beta(0.5, 0.5 * dof) ** 2
        body = z * (2.0 * stats.t.cdf(z, dof) - 1.0) + 2.0 * stats.t.pdf(z, dof) * (dof + z * z) / (dof - 1.0)
        assert math.isclose(found.item(), (body - spread).mean(), rel_tol=2e-4), dof


def test_places_scales_mixtures_and_pickles() -> None:
    d = SmoothedStudentT(torch.full((2, 3, 1), 4.0, dtype=D), torch.randn(2, 3, 1, dtype=D), 0.5, 0.8)
    shift, scale, y = torch.tensor([3.0], dtype=D), torch.tensor([2.0], dtype=D), torch.randn(2, 3, 1, dtype=D)
    moved = distributions.affine(Independent(d, 1), shift, scale)
    expected = Independent(d, 1).log_prob((y - shift) / scale) - math.log(2.0)
    torch.testing.assert_close(moved.log_prob(y), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(moved.mean, shift + scale * d.mean)
    torch.testing.assert_close(moved.variance, 4.0 * d.variance)
    stacked = distributions.stack([Independent(d, 1), moved], 2)
    mixture = MixtureSameFamily(Categorical(probs=torch.full((2, 3, 2), 0.5, dtype=D)), stacked)
    both = torch.stack([Independent(d, 1).log_prob(y), moved.log_prob(y)]).logsumexp(0) - math.log(2.0)
    torch.testing.assert_close(mixture.log_prob(y), both)
    quantile = distributions.quantile(distributions.univariate(mixture), 0.3)
    torch.testing.assert_close(distributions.cdf(distributions.univariate(mixture), quantile), torch.full_like(y, 0.3))
    assert torch.equal(pickle.loads(pickle.dumps(d)).log_prob(y), d.log_prob(y))
    assert d.expand((5, 2, 3, 1)).log_prob(y).shape == (5, 2, 3, 1)


def test_a_learner_with_heavy_tails_in_other_units_scores_an_outlier() -> None:
    torch.manual_seed(0)
    learner = bm.Standardized(bm.MAML(bm.MLP(1, [8]), steps=1, likelihood=bm.likelihoods.StudentT(1), lr=0.05))
    support = bm.Data.from_arrays([0.0, 1.0, 2.0], [1000.0, 1200.0, 900.0])
    learner.prepare(support)
    predictive = learner.adapt(support).predict([0.5, 1.5])
    far = predictive.mean + 1e3 * predictive.stddev
    slope = predictive.marginal_log_prob(predictive.mean + 2e3 * predictive.stddev) - predictive.marginal_log_prob(far)
    dof = learner.learner.likelihood.dof().item()
    torch.testing.assert_close(slope, torch.full_like(slope, -(dof + 1.0) * math.log(2.0)), rtol=1e-3, atol=0.0)
    assert (predictive.quantile(0.001) < predictive.quantile(0.5)).all()
