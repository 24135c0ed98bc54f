"""The censored Gaussian against scipy, quadrature and draws, far into both tails."""

import math

import pytest
import torch
from scipy import integrate, stats
from torch import Tensor
from torch.distributions import Independent, Normal

import bayesmeta as bm
from bayesmeta import distributions
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.evaluation import metrics
from bayesmeta.left_censored import LeftCensored, log_below
from bayesmeta.predictives import IndependentPredictive, MixturePredictive

D = torch.float64


def _censored(loc: float, scale: float = 1.3, limit: float = 0.5) -> LeftCensored:
    normal = Normal(torch.tensor(loc, dtype=D), torch.tensor(scale, dtype=D))
    return LeftCensored(normal, torch.tensor(limit, dtype=D))


def _derivatives(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    z = z.clone().requires_grad_()
    value = log_below(z)
    (first,) = torch.autograd.grad(value.sum(), z, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), z)
    return value.detach(), first.detach(), second


def test_log_below_and_its_derivatives_in_both_tails() -> None:
    z = torch.tensor([-1e6, -1e3, -40.0, -5.0, -1.0, 0.0, 1.0, 5.0, 8.9], dtype=D)
    value, first, second = _derivatives(z)
    torch.testing.assert_close(value, torch.tensor(stats.norm.logcdf(z.numpy())), rtol=1e-10, atol=0.0)
    # the hazard h = φ/Φ; below -30 its asymptotic series, elsewhere scipy's logarithms
    series = -z * (1.0 + z**-2 - 2.0 * z**-4 + 10.0 * z**-6)
    hazard = torch.tensor(stats.norm.logpdf(z.numpy()) - stats.norm.logcdf(z.numpy())).exp()
    hazard = torch.where(z < -30.0, series, hazard)
    torch.testing.assert_close(first, hazard, rtol=1e-9, atol=0.0)
    # -h (z + h), which is -1 + z^-2 - 6 z^-4 + 50 z^-6 far below; the closed form of the others cancels, to 1e-10
    curvature = torch.where(z < -30.0, -1.0 + z**-2 - 6.0 * z**-4 + 50.0 * z**-6, -hazard * (z + hazard))
    torch.testing.assert_close(second, curvature, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_derivative_is_ever_nan(dtype: torch.dtype) -> None:
    for each in _derivatives(torch.tensor([-1e4, -100.0, -20.0, 0.0, 9.0, 14.0, 40.0, 1e4], dtype=dtype)):
        assert bool(each.isfinite().all())


@pytest.mark.parametrize("loc", [-6.0, -0.4, 0.5, 2.0, 9.0])
def test_moments_and_mass_against_quadrature(loc: float) -> None:
    seen, limit, plain = _censored(loc), 0.5, stats.norm(loc, 1.3)
    mass = plain.cdf(limit)
    above = lambda power: integrate.quad(
        lambda y: y**power * plain.pdf(y), limit, max(loc, limit) + 15.0, epsabs=1e-13, limit=200
    )[0]
    first = limit * mass + above(1)
    second = limit**2 * mass + above(2)
    assert math.isclose(seen.mean.item(), first, rel_tol=1e-9)
    assert math.isclose(seen.variance.item(), second - first**2, rel_tol=1e-6, abs_tol=1e-9)  # a difference
    assert math.isclose(seen.log_prob(torch.tensor(limit, dtype=D)).item(), plain.logcdf(limit), rel_tol=1e-10)
    assert math.isclose(mass + above(0), 1.0, rel_tol=1e-9)


def test_distribution_function_and_quantiles_are_those_of_draws() -> None:
    seen = _censored(0.4)
    draws = seen.rsample((200_000,))
    assert draws.min().item() == 0.5
    for q in (0.1, 0.5, 0.53, 0.6, 0.9):
        at = distributions.quantile(seen, q).item()
        assert math.isclose(
            (draws <= at).double().mean().item(), seen.cdf(torch.tensor(at, dtype=D)).item(), abs_tol=5e-3
        )
        assert at == max(0.5, stats.norm(0.4, 1.3).ppf(q)) or math.isclose(
            at, stats.norm(0.4, 1.3).ppf(q), rel_tol=1e-9
        )
    assert seen.cdf(torch.tensor(0.49, dtype=D)).item() == 0.0


def test_changes_of_place_and_scale() -> None:
    seen = _censored(0.4)
    moved = distributions.affine(seen, torch.tensor(3.0, dtype=D), torch.tensor(2.0, dtype=D))
    for y in (0.5, 0.9, 4.0):
        there = moved.log_prob(torch.tensor(3.0 + 2.0 * y, dtype=D)).item()
        here = seen.log_prob(torch.tensor(y, dtype=D)).item()
        jacobian = 0.0 if y == 0.5 else math.log(2.0)  # a probability stays, a density does not
        assert math.isclose(there, here - jacobian, rel_tol=1e-10)


@pytest.mark.parametrize("loc", [-3.0, -1.0, 0.0, 0.4, 1.0, 3.0])
def test_crps_begins_at_the_limit(loc: float) -> None:
    """That of the Gaussian less ∫ Φ² up to the limit, s (z Φ² + 2 φ Φ - Φ(√2 z) / √π) with z = (limit - loc) / s."""
    seen, z = _censored(loc), (0.5 - loc) / 1.3
    below, density = stats.norm.cdf(z), stats.norm.pdf(z)
    cut = 1.3 * (z * below**2 + 2.0 * density * below - stats.norm.cdf(math.sqrt(2.0) * z) / math.sqrt(math.pi))
    plain = IndependentPredictive(Independent(seen.normal.expand((1, 1, 1)), 1))
    alone = IndependentPredictive(Independent(seen.expand((1, 1, 1)), 1))
    twice = IndependentPredictive(Independent(seen.expand((2, 1, 1)), 1))
    mixture = MixturePredictive(torch.zeros(1, 2, dtype=D), twice)
    for y in (0.5, 0.8, 2.5):
        outcome = torch.full((1, 1, 1), y, dtype=D)
        expected = metrics.crps(plain, outcome).item() - cut
        for predictive in (alone, mixture):
            assert math.isclose(metrics.crps(predictive, outcome).item(), expected, rel_tol=1e-4, abs_tol=1e-6)


def test_gradients_are_those_of_differences() -> None:
    likelihoods = (
        bm.likelihoods.ProportionalGaussian(2).double(),
        bm.likelihoods.Censored(bm.likelihoods.ProportionalGaussian(2), limit=0.5).double(),
    )
    f = torch.tensor([[[-3.0, -0.4], [0.5, 2.0]]], dtype=D, requires_grad=True)
    data = bm.Data.from_arrays([0.0, 1.0], [[0.5, 0.5], [0.5, 1.7]], yerr=0.2)
    for likelihood in likelihoods:
        parameters = list(likelihood.parameters())

        def function(f: Tensor, *_: Tensor, likelihood: bm.likelihoods.Likelihood = likelihood) -> Tensor:
            return likelihood.log_prob(f, data)

        assert torch.autograd.gradcheck(function, (f, *parameters))
        assert torch.autograd.gradgradcheck(function, (f, *parameters))


def test_marginal_integrates_f_out() -> None:
    likelihood = bm.likelihoods.Censored(bm.likelihoods.Gaussian(bm.noise.DiagonalNoise(initial=0.3)), 0.5).double()
    mean, variance = torch.tensor([[[0.2]]], dtype=D), torch.tensor([[[0.8]]], dtype=D)
    for y in (0.5, 1.7):
        found = likelihood.marginal(mean, variance).log_prob(torch.tensor([[[y]]], dtype=D)).item()

        def integrand(f: float, y: float = y) -> float:
            inner = stats.norm(f, math.sqrt(0.3))
            return stats.norm(0.2, math.sqrt(0.8)).pdf(f) * (inner.cdf(0.5) if y == 0.5 else inner.pdf(y))

        assert math.isclose(math.exp(found), integrate.quad(integrand, -9.0, 9.0, epsabs=1e-12)[0], rel_tol=1e-7)


def test_gradients_are_finite_however_far_the_limit_is() -> None:
    likelihood = bm.likelihoods.Censored(bm.likelihoods.ProportionalGaussian(initial_additive=0.01), limit=0.0)
    f = torch.tensor([-1e3, -1.0, 0.0, 1.0, 1e3, 1e6])[:, None].requires_grad_()
    for y in (0.0, 1.0):
        data = bm.Data.from_arrays(torch.zeros(6), torch.full((6,), y)).to(torch.float32)
        (gradient,) = torch.autograd.grad(likelihood.log_prob(f[None], data).sum(), f)
        assert bool(gradient.isfinite().all())
    root = likelihood.curvature_root(f)
    assert bool(root.isfinite().all())
    assert bool(torch.autograd.grad(root.sum(), f)[0].isfinite().all())


def test_a_learner_gains_from_knowing_what_is_censored() -> None:
    """A level of -1 under a limit of 0, seen through half of its points: its posterior mean is near it."""
    learner = bm.LLAMA(
        bm.MLP(1, [4]), likelihood=bm.likelihoods.Censored(bm.likelihoods.Gaussian(), limit=0.0)
    ).double()
    low = bm.Data.from_arrays([0.0, 0.0, 0.0], [0.0, 0.0, 0.0])
    inner = learner.adapt(low).predict([0.0])
    assert inner.cdf(torch.zeros(1, 1, 1, dtype=D)).item() > 0.6  # more than the half that is known before


def test_what_cannot_be_censored_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"independent Gaussians .* got StudentT"):
        bm.likelihoods.Censored(bm.likelihoods.StudentT(), 0.0)
    with pytest.raises(UnsupportedError, match="got Gaussian"):
        bm.likelihoods.Censored(bm.likelihoods.Gaussian(bm.noise.FullNoise(2)), 0.0)
    with pytest.raises(DataError, match="finite limit"):
        bm.likelihoods.Censored(bm.likelihoods.Gaussian(), math.inf)
    likelihood = bm.likelihoods.Censored(bm.likelihoods.Gaussian(), 0.5).double()
    with pytest.raises(DataError, match=r"at least 0\.5, .* got 0\.2: write the limit itself"):
        likelihood.log_prob(torch.zeros(1, 2, 1, dtype=D), bm.Data.from_arrays([0.0, 1.0], [0.5, 0.2]))
