"""Likelihoods against scipy, hand formulas, quadrature and Monte Carlo."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, special, stats

import bayesmeta as bm
from bayesmeta.errors import DataError, InferenceError, ShapeError
from bayesmeta.noise import Positive

CLOSE = {"rtol": 1e-10, "atol": 1e-10}  # float64: the same formula, another implementation
D = torch.float64


def _regression(num_outputs: int) -> bm.Data:
    y = torch.randn(3, 4, num_outputs, dtype=D)
    mask = torch.tensor([[True] * 4, [True, False, True, False], [False] * 4])
    return bm.Data(torch.zeros(3, 4, 1, dtype=D), y, mask)


def _labels(num_classes: int) -> bm.Data:
    y = torch.arange(12).reshape(3, 4) % num_classes
    mask = torch.tensor([[True] * 4, [True, False, True, False], [False] * 4])
    return bm.Data(torch.zeros(3, 4, 1, dtype=D), y, mask)


def _full_noise() -> bm.noise.FullNoise:
    noise = bm.noise.FullNoise(2).double()
    noise.set_covariance(torch.tensor([[0.5, -0.3], [-0.3, 0.4]], dtype=D))
    return noise


def _full(f: np.ndarray, y: np.ndarray) -> float:
    return stats.multivariate_normal(f, [[0.5, -0.3], [-0.3, 0.4]]).logpdf(y)


def _censored_data() -> bm.Data:
    data = _regression(2)
    return bm.Data(data.x, data.y.clamp(min=-0.3), data.mask)  # outcomes below -0.3 are seen as -0.3


def _censored(f: np.ndarray, y: np.ndarray) -> float:
    normal = stats.norm(f, math.sqrt(0.7))
    return np.where(y <= -0.3, normal.logcdf(-0.3), normal.logpdf(y)).sum()


def _scaled(f: np.ndarray, y: np.ndarray) -> float:
    return stats.multivariate_normal(f[:2], math.exp(f[2]) * np.array([[0.5, -0.3], [-0.3, 0.4]])).logpdf(y)


def _heteroscedastic(f: np.ndarray, y: np.ndarray) -> float:
    return stats.norm(f[:2], np.exp(0.5 * f[2:])).logpdf(y).sum()


CASES = {  # likelihood, data, log density of one point
    "gaussian": (
        lambda: bm.likelihoods.Gaussian(bm.noise.DiagonalNoise(2, initial=0.7)),
        lambda: _regression(2),
        lambda f, y: stats.norm(f, math.sqrt(0.7)).logpdf(y).sum(),
    ),
    "gaussian-full": (lambda: bm.likelihoods.Gaussian(_full_noise()), lambda: _regression(2), _full),
    "heteroscedastic": (lambda: bm.likelihoods.HeteroscedasticGaussian(2), lambda: _regression(2), _heteroscedastic),
    "proportional": (
        lambda: bm.likelihoods.ProportionalGaussian(2, initial_additive=0.4, initial_proportional=0.5),
        lambda: _regression(2),
        lambda f, y: stats.norm(f, np.sqrt(0.16 + 0.25 * f**2)).logpdf(y).sum(),
    ),
    "censored": (
        lambda: bm.likelihoods.Censored(bm.likelihoods.Gaussian(bm.noise.DiagonalNoise(2, initial=0.7)), limit=-0.3),
        _censored_data,
        _censored,
    ),
    "scaled": (
        lambda: bm.likelihoods.ScaledGaussian(num_outputs=2),
        lambda: _regression(2),
        lambda f, y: stats.norm(f[:2], math.sqrt(0.1 * math.exp(f[2]))).logpdf(y).sum(),
    ),
    "scaled-full": (lambda: bm.likelihoods.ScaledGaussian(_full_noise()), lambda: _regression(2), _scaled),
    "student-t": (
        lambda: bm.likelihoods.StudentT(2, initial_scale=0.4, initial_dof=3.5),
        lambda: _regression(2),
        lambda f, y: stats.t(3.5, f, 0.4).logpdf(y).sum(),
    ),
    "bernoulli": (
        bm.likelihoods.Bernoulli,
        lambda: _labels(2),
        lambda f, y: stats.bernoulli(special.expit(f[0])).logpmf(y),
    ),
    "categorical": (lambda: bm.likelihoods.Categorical(3), lambda: _labels(3), lambda f, y: special.log_softmax(f)[y]),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple:
    make, data, density = CASES[request.param]
    return make().double(), data(), density


def test_log_prob_is_the_masked_sum_of_scipys(case: tuple) -> None:
    likelihood, data, density = case
    f = torch.randn(5, 3, 4, likelihood.network_outputs, dtype=D)  # five draws of phi
    found = likelihood.log_prob(f, data)
    expected = torch.zeros(5, 3, dtype=D)
    for s, b, n in np.ndindex(5, 3, 4):
        if data.mask[b, n]:
            expected[s, b] += float(density(f[s, b, n].numpy(), data.y[b, n].numpy()))
    # bounds bend values inside them by lower / value = 1e-8 / 0.4 and value / upper; dof by 2 / 3.5 is in initial
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(likelihood.log_prob(f[0], data), found[0], **CLOSE)


def test_no_points_and_padding(case: tuple) -> None:
    likelihood, data, _ = case
    f = torch.randn(2, 3, 4, likelihood.network_outputs, dtype=D, requires_grad=True)
    nothing = likelihood.log_prob(f[:, :, :0], bm.Data.empty(data))
    assert nothing.tolist() == [[0.0] * 3] * 2
    likelihood.log_prob(f, data).sum().backward()
    assert torch.isfinite(f.grad).all()
    assert (f.grad[:, ~data.mask] == 0.0).all()
    wild = bm.Data(data.x, torch.where(_like(data.mask, data.y), data.y, 77), data.mask)  # labels out of range there
    torch.testing.assert_close(likelihood.log_prob(f, wild), likelihood.log_prob(f, data), **CLOSE)


def _like(mask: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return mask if y.ndim == 2 else mask[..., None].expand_as(y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_precision_follows_f(case: tuple, dtype: torch.dtype) -> None:
    likelihood, data, _ = case
    f = torch.randn(3, 4, likelihood.network_outputs, dtype=D)
    exact = likelihood.log_prob(f, data)
    found = likelihood.to(dtype).log_prob(f.to(dtype), data.to(dtype))
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-4)  # four points of float32 rounding
    mixed = likelihood.float().log_prob(f, data)  # draws of an exact posterior are float64 whatever the learner
    assert mixed.dtype == torch.float64
    torch.testing.assert_close(mixed, exact, rtol=1e-5, atol=1e-5)  # float32 noise parameters


@pytest.mark.usefixtures("unchecked")
def test_errors_name_what_is_wrong(case: tuple) -> None:
    likelihood, data, _ = case
    columns = likelihood.network_outputs
    with pytest.raises(ShapeError, match=rf"f with {columns} columns, got \(3, 4, {columns + 1}\)"):
        likelihood.log_prob(torch.zeros(3, 4, columns + 1, dtype=D), data)
    other = _labels(2) if data.y.is_floating_point() else _regression(1)
    with pytest.raises(DataError, match=f"for {type(likelihood).__name__} .*, got (numbers|labels)"):
        likelihood.log_prob(torch.zeros(3, 4, columns, dtype=D), other)


def test_labels_out_of_range_are_refused() -> None:
    for likelihood, top in ((bm.likelihoods.Bernoulli(), 1), (bm.likelihoods.Categorical(4), 3)):
        data = bm.Data.from_labels([0.0, 1.0], [0, top + 1])
        with pytest.raises(DataError, match=f"labels from 0 to {top}, got labels from 0 to {top + 1}"):
            likelihood.log_prob(torch.zeros(1, 2, likelihood.network_outputs, dtype=D), data)


# ------------------------------------------------------------------------------------------------ noise and its bounds


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("raw", [-1e3, -100.0, 0.0, 80.0, 90.0, 700.0, 1e3])
@pytest.mark.parametrize("bounds", [(1e-8, 1e8), (1e-30, 1e-20), (0.5, 0.6), (1e-4, 1e20)])
def test_values_never_leave_their_bounds(raw: float, bounds: tuple[float, float], dtype: torch.dtype) -> None:
    positive = Positive((2,), math.sqrt(bounds[0] * bounds[1]), bounds).to(dtype)
    with torch.no_grad():
        positive.raw.fill_(raw)
    value = positive()
    lower, upper = (torch.tensor(bound, dtype=dtype) for bound in bounds)  # rounded as the value is
    assert ((value >= lower) & (value <= upper)).all()
    value.log().sum().backward()
    assert torch.isfinite(positive.raw.grad).all()
    hetero = bm.likelihoods.HeteroscedasticGaussian(bounds=bounds)
    f = torch.tensor([[[0.0, raw]]], dtype=dtype, requires_grad=True)
    variance = hetero(f).variance
    assert torch.isfinite(variance).all()
    assert math.isclose(variance.item(), value[0].item(), rel_tol=1e-5)  # the square of a float32 root
    assert torch.autograd.grad(variance.log().sum(), f)[0].isfinite().all()


@given(value=st.floats(1e-7, 1e7))
def test_set_is_the_inverse(value: float) -> None:
    positive = Positive((3,), 1.0, (1e-8, 1e8)).double()
    positive.set(value)
    torch.testing.assert_close(positive(), torch.full((3,), value, dtype=D), rtol=1e-9, atol=0.0)  # exp(log(.))
    positive.set(torch.full((3,), 1.0))
    torch.testing.assert_close(positive(), torch.ones(3, dtype=D), rtol=1e-9, atol=0.0)


def test_noise_covariances_are_set_and_read() -> None:
    target = torch.tensor([[2.0, 0.6, -0.1], [0.6, 0.5, 0.2], [-0.1, 0.2, 0.9]], dtype=D)
    full, diagonal = bm.noise.FullNoise(3).double(), bm.noise.DiagonalNoise(3).double()
    for noise in (full, diagonal):
        noise.set_covariance(target)
        torch.testing.assert_close(noise.variance(), target.diagonal(), rtol=1e-7, atol=0.0)  # bounds: 1e-8 / 0.5
        assert (torch.linalg.eigvalsh(noise.covariance()) > 0.0).all()
    torch.testing.assert_close(full.covariance(), target, rtol=1e-7, atol=1e-7)
    assert torch.equal(diagonal.covariance(), torch.diag(diagonal.variance()))


def test_impossible_bounds_and_values_are_refused() -> None:
    for bounds in ((-1.0, 1.0), (0.0, 1.0), (2.0, 1.0), (1.0, math.inf), (math.nan, 1.0)):
        for make in (bm.noise.DiagonalNoise, bm.noise.FullNoise, bm.likelihoods.HeteroscedasticGaussian):
            with pytest.raises(DataError, match="expected bounds with 0 < lower < upper"):
                make(1, bounds=bounds)
        with pytest.raises(DataError, match="bounds"):
            bm.likelihoods.StudentT(scale_bounds=bounds)
    for initial in (0.0, -1.0, 1e9, math.nan):
        with pytest.raises(DataError, match="strictly between 1e-08 and 1000"):
            bm.noise.DiagonalNoise(2, initial=initial)
    with pytest.raises(DataError, match="strictly between"):
        bm.noise.DiagonalNoise(2).set_covariance(torch.diag(torch.tensor([1.0, 0.0])))
    with pytest.raises(ShapeError, match=r"shape \(2,\), got \(3,\)"):
        Positive((2,), 1.0, (0.1, 10.0)).set(torch.ones(3))
    with pytest.raises(InferenceError, match="noise covariance"):
        bm.noise.FullNoise(2).set_covariance(torch.tensor([[1.0, 2.0], [2.0, 1.0]]))


# ---------------------------------------------------------------------------------------------------------- marginals

MEAN = torch.tensor([[[0.4, -1.0], [0.0, 2.0]]], dtype=D)
VARIANCE = torch.tensor([[[0.3, 2.0], [0.0, 0.7]]], dtype=D)


@pytest.mark.parametrize("noise", [lambda: bm.noise.DiagonalNoise(2, initial=0.3).double(), _full_noise])
def test_gaussian_marginal_adds_the_covariances(noise: object) -> None:
    likelihood = bm.likelihoods.Gaussian(noise())
    y = torch.randn(1, 2, 2, dtype=D)
    found = likelihood.marginal(MEAN, VARIANCE).log_prob(y)
    for m in range(2):
        covariance = torch.diag(VARIANCE[0, m]) + likelihood.noise.covariance().detach()
        expected = stats.multivariate_normal(MEAN[0, m], covariance).logpdf(y[0, m])
        assert math.isclose(found[0, m].item(), expected, rel_tol=1e-10)


def test_heteroscedastic_marginal_matches_two_moments() -> None:
    likelihood = bm.likelihoods.HeteroscedasticGaussian(1)
    mean, variance = torch.tensor([[[0.4, -1.0]]], dtype=D), torch.tensor([[[0.3, 0.8]]], dtype=D)
    marginal = likelihood.marginal(mean, variance)
    # E exp(N(m, v)) = exp(m + v / 2); the bounds bend it by exp(1) / 1e8, and 1e-8
    expected = 0.3 + math.exp(-1.0 + 0.4)
    assert math.isclose(marginal.variance.item(), expected, rel_tol=1e-6)
    assert math.isclose(marginal.mean.item(), 0.4, rel_tol=1e-12)


def test_student_t_marginal_integrates_to_one_and_has_gradients_at_no_uncertainty() -> None:
    likelihood = bm.likelihoods.StudentT(2).double()
    mean, variance = MEAN.clone().requires_grad_(), VARIANCE.clone().requires_grad_()
    marginal = likelihood.marginal(mean, variance)
    grid = torch.linspace(-9, 9, 3001, dtype=D).sinh()  # fine in the middle, to 4,000
    density = marginal.base_dist.log_prob(grid[:, None, None, None].expand(-1, 1, 2, 2)).exp()
    total = torch.trapezoid(density, grid, dim=0)
    # the tails of t with 5 degrees of freedom beyond 10,000 scales: 1e-19; trapezoid: (6e-3)² f'' / 12 ~ 1e-6
    torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-5, atol=1e-5)
    marginal.log_prob(torch.zeros(1, 2, 2, dtype=D)).sum().backward()
    for value in (mean, variance, likelihood.scale.raw, likelihood.dof.raw):
        assert torch.isfinite(value.grad).all()
        assert (value.grad != 0.0).any()
    # Var = variance + scale² dof / (dof - 2)
    expected = VARIANCE + 0.09 * 5.0 / 3.0
    torch.testing.assert_close(marginal.variance, expected, rtol=1e-6, atol=0.0)  # bounds: 2 / 200


@pytest.mark.parametrize("make", [bm.likelihoods.Bernoulli, bm.likelihoods.HeteroscedasticGaussian])
def test_quadrature_has_a_finite_gradient_at_zero_variance(make: type) -> None:
    likelihood = make().double()
    mean = torch.zeros(1, 2, likelihood.network_outputs, dtype=D, requires_grad=True)
    variance = torch.zeros_like(mean, requires_grad=True)
    marginal = likelihood.marginal(mean, variance)
    y = torch.zeros(1, 2, dtype=D) if make is bm.likelihoods.Bernoulli else torch.zeros(1, 2, 1, dtype=D)
    marginal.log_prob(y).sum().backward()
    assert torch.isfinite(mean.grad).all()
    assert torch.isfinite(variance.grad).all()


@given(mean=st.floats(-5, 5), deviation=st.floats(0.01, 3.0))
def test_bernoulli_marginal_against_quadrature(mean: float, deviation: float) -> None:
    at = torch.full((1, 1, 1), mean, dtype=D)
    found = bm.likelihoods.Bernoulli().marginal(at, torch.full_like(at, deviation**2)).probs.item()
    expected = integrate.quad(lambda z: stats.norm.pdf(z) * special.expit(mean + deviation * z), -9, 9)[0]
    assert math.isclose(found, expected, abs_tol=2e-5)  # as its docstring says


def _covariance(kind: str, size: int, scale: float) -> torch.Tensor:
    factor = torch.randn(size, size, dtype=D)
    if kind == "full":
        return scale * factor @ factor.mT / size
    if kind == "diagonal":
        return scale * torch.diag(2.0 * torch.rand(size, dtype=D))
    if kind == "rank one":
        return scale * factor[:, :1] @ factor[:, :1].mT
    return 20.0 * torch.ones(size, size, dtype=D) + 0.1 * scale * factor @ factor.mT / size  # shared by all classes


# an average KL of S draws of p is about (C - 1) / (2 S) x (what a draw varies) < 1e-4 at 40,000 antithetic pairs
@pytest.mark.parametrize(("classes", "bound"), [(2, 1e-3), (3, 2e-3), (5, 2e-3), (20, 0.03)])
@pytest.mark.parametrize("kind", ["full", "diagonal", "rank one", "shared"])
def test_categorical_marginal_against_monte_carlo(kind: str, classes: int, bound: float) -> None:
    torch.manual_seed(classes)
    likelihood = bm.likelihoods.Categorical(classes)
    for scale in (0.1, 2.0, 30.0):
        mean, covariance = 2.0 * torch.randn(1, 1, classes, dtype=D), _covariance(kind, classes, scale)
        root = torch.linalg.cholesky(covariance + 1e-10 * torch.eye(classes, dtype=D))
        moved = torch.randn(40_000, classes, dtype=D) @ root.mT
        exact = 0.5 * ((mean[0] + moved).softmax(-1) + (mean[0] - moved).softmax(-1)).mean(0)
        found = likelihood.correlated_marginal(mean, covariance[None, None]).logits[0, 0]
        assert torch.special.xlogy(exact, exact).sum() - (exact * found).sum() < bound
        assert math.isclose(found.exp().sum().item(), 1.0, rel_tol=1e-9)
        if kind == "diagonal":
            alone = likelihood.marginal(mean, covariance.diagonal()[None, None]).logits[0, 0]
            torch.testing.assert_close(alone, found, **CLOSE)


@given(shared=st.floats(0.0, 1e4), seed=st.integers(0, 1000))
def test_what_all_classes_share_changes_no_probability(shared: float, seed: int) -> None:
    """The case of the fault: 20 11ᵀ + .2 I was taken for doubt, at .2 nats from the truth."""
    generator = torch.Generator().manual_seed(seed)
    mean = 3.0 * torch.randn(1, 1, 4, dtype=D, generator=generator)
    covariance = 0.2 * torch.eye(4, dtype=D)[None, None]
    likelihood = bm.likelihoods.Categorical(4)
    alone = likelihood.correlated_marginal(mean, covariance).probs
    found = likelihood.correlated_marginal(mean + 7.0, covariance + shared).probs
    torch.testing.assert_close(found, alone, rtol=1e-8, atol=1e-10)  # rounding of 1e4 against .2


@given(mean=st.floats(-6, 6), deviation=st.floats(0.0, 8.0), correlation=st.floats(-1.0, 1.0))
def test_two_classes_are_a_bernoulli_of_their_difference(mean: float, deviation: float, correlation: float) -> None:
    """f_1 - f_0 has the variance v (2 - 2ρ), and the two rules are one."""
    variance = deviation**2
    covariance = variance * torch.tensor([[1.0, correlation], [correlation, 1.0]], dtype=D)[None, None]
    both = bm.likelihoods.Categorical(2).correlated_marginal(torch.tensor([[[1.0, 1.0 + mean]]], dtype=D), covariance)
    one = torch.tensor([[[mean]]], dtype=D)
    difference = torch.full_like(one, variance * (2.0 - 2.0 * correlation))
    single = bm.likelihoods.Bernoulli().marginal(one, difference)
    # 1e-8 of variance, so that a factor exists: at most 1e-4 of a deviation, squared
    torch.testing.assert_close(both.probs[..., 1], single.probs, rtol=1e-6, atol=1e-7)


def test_correlated_outputs_of_numbers_have_the_marginals_of_the_diagonal() -> None:
    mean, factor = torch.randn(1, 2, 2, dtype=D), torch.randn(1, 2, 2, 2, dtype=D)
    covariance = factor @ factor.mT
    variance = covariance.diagonal(dim1=-2, dim2=-1)
    for likelihood in (bm.likelihoods.StudentT(2).double(), bm.likelihoods.Gaussian(num_outputs=2).double()):
        a, b = likelihood.correlated_marginal(mean, covariance), likelihood.marginal(mean, variance)
        torch.testing.assert_close(a.mean, b.mean)
        torch.testing.assert_close(a.variance, b.variance)
    noise = likelihood.noise.covariance()
    expected = torch.distributions.MultivariateNormal(mean, covariance + noise)
    y = torch.randn(1, 2, 2, dtype=D)
    torch.testing.assert_close(a.log_prob(y), expected.log_prob(y))


def test_a_categorical_marginal_has_finite_gradients_where_nothing_is_uncertain() -> None:
    mean = torch.randn(1, 2, 3, dtype=D, requires_grad=True)
    for covariance in (torch.zeros(1, 2, 3, 3, dtype=D), torch.ones(1, 2, 3, 3, dtype=D)):
        leaf = covariance.requires_grad_()
        logits = bm.likelihoods.Categorical(3).correlated_marginal(mean, leaf).logits
        gradients = torch.autograd.grad(logits[..., 0].sum(), [mean, leaf])
        assert all(torch.isfinite(gradient).all() for gradient in gradients)
        assert gradients[1].abs().max() < 10.0


def test_marginal_without_uncertainty_is_the_likelihood(case: tuple) -> None:
    likelihood, data, _ = case
    f = torch.randn(3, 4, likelihood.network_outputs, dtype=D)
    y = data.y.double() if isinstance(likelihood, bm.likelihoods.Bernoulli) else data.y
    found = likelihood.marginal(f, torch.zeros_like(f)).log_prob(y)
    torch.testing.assert_close(found, likelihood(f).log_prob(y), rtol=1e-5, atol=1e-5)  # student-t: its trapezoid sum
