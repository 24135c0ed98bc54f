"""Roots of the Fisher information of each likelihood against Hessians by autograd and integrals over y."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.func import functional_call, hessian, vmap

import bayesmeta as bm

CLOSE = {"rtol": 1e-10, "atol": 1e-12}  # float64: the same formula, differentiated by hand
D = torch.float64


def _full_noise() -> bm.noise.FullNoise:
    noise = bm.noise.FullNoise(2).double()
    noise.set_covariance(torch.tensor([[0.5, -0.3], [-0.3, 0.4]], dtype=D))
    return noise


def _diagonal_noise() -> bm.noise.DiagonalNoise:
    noise = bm.noise.DiagonalNoise(2).double()
    noise.value.set(torch.tensor([0.3, 2.0], dtype=D))
    return noise


def _student(dof: float = 3.5) -> bm.likelihoods.StudentT:
    likelihood = bm.likelihoods.StudentT(2, initial_dof=dof).double()
    likelihood.scale.set(torch.tensor([0.4, 3.0], dtype=D))
    return likelihood


CANONICAL: dict[str, Callable[[], bm.likelihoods.Likelihood]] = {  # the Hessian is the same at every y
    "gaussian": lambda: bm.likelihoods.Gaussian(_diagonal_noise()),
    "gaussian-full": lambda: bm.likelihoods.Gaussian(_full_noise()),
    "bernoulli": bm.likelihoods.Bernoulli,
    "categorical": lambda: bm.likelihoods.Categorical(4),
}
OTHERS: dict[str, Callable[[], bm.likelihoods.Likelihood]] = {
    "proportional": lambda: bm.likelihoods.ProportionalGaussian(2, initial_additive=0.4, initial_proportional=0.7),
    "heteroscedastic": lambda: bm.likelihoods.HeteroscedasticGaussian(2),
    "heteroscedastic near its bounds": lambda: bm.likelihoods.HeteroscedasticGaussian(2, bounds=(0.3, 2.0)),
    "scaled": lambda: bm.likelihoods.ScaledGaussian(_diagonal_noise()),
    "student-t": _student,
    "student-t with heavy tails": lambda: _student(2.1),
    "student-t, nearly Gaussian": lambda: _student(150.0),
}
CENSORED: dict[str, Callable[[], bm.likelihoods.Likelihood]] = {  # the limit has a mass: no density to integrate there
    "censored": lambda: bm.likelihoods.Censored(bm.likelihoods.Gaussian(_diagonal_noise()), limit=-0.2),
    "censored, proportional": lambda: bm.likelihoods.Censored(OTHERS["proportional"]().double(), limit=0.3),
}
ALL = CANONICAL | OTHERS | CENSORED


def _fisher(likelihood: bm.likelihoods.Likelihood, f: Tensor) -> Tensor:
    root = likelihood.curvature_root(f)
    assert root.shape == (*f.shape, f.shape[-1])
    return (root @ root.mT).detach()


def _hessian(likelihood: bm.likelihoods.Likelihood, f: Tensor, y: Tensor) -> Tensor:
    """-∂² log p(y | f) / ∂f² at one point f and many y."""
    return vmap(lambda each: hessian(lambda at: -likelihood(at).log_prob(each))(f))(y).detach()


# --------------------------------------------------------------------------------------------------- Fisher information


@pytest.mark.parametrize("which", CANONICAL)
@given(seed=st.integers(0, 10**6), size=st.floats(0.1, 10.0))
def test_it_is_the_hessian_at_any_outcome(which: str, seed: int, size: float) -> None:
    likelihood = CANONICAL[which]()
    generator = torch.Generator().manual_seed(seed)
    f = size * torch.randn(likelihood.network_outputs, generator=generator, dtype=D)
    count = likelihood.outcomes.count
    assert count is not None
    y = 10.0 * torch.randn(3, count, generator=generator, dtype=D)
    if not isinstance(likelihood, bm.likelihoods.Gaussian):
        y = torch.arange(
            (likelihood.outcomes.count or 0),
            dtype=D if isinstance(likelihood, bm.likelihoods.Bernoulli) else torch.long,
        )
    for each in _hessian(likelihood, f, y):
        torch.testing.assert_close(_fisher(likelihood, f), each, **CLOSE)


@pytest.mark.parametrize("which", OTHERS)
@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_expected_hessian(which: str, seed: int) -> None:
    likelihood = OTHERS[which]().double()
    f = torch.randn(likelihood.network_outputs, generator=torch.Generator().manual_seed(seed), dtype=D)
    density = likelihood(f).base_dist
    z = torch.linspace(-12.0, 12.0, 161, dtype=D)  # y = center + scale sinh z: to 80,000 scales
    scale = density.scale.detach()
    y = torch.cartesian_prod(*(density.loc.detach() + scale * z.sinh()[:, None]).mT)
    area = torch.cartesian_prod(*(scale * z.cosh()[:, None] * (z[1] - z[0])).mT).prod(-1)
    weights = area * likelihood(f).log_prob(y).exp().detach()
    # beyond 80,000 scales, t with 2.1 degrees of freedom has 1e-10 of its mass; the trapezoid sum of a smooth function
    # converges as exp(-2π (π / 4) / 0.15), 1e-14 of what it holds
    assert math.isclose(weights.sum().item(), 1.0, rel_tol=1e-8)
    expected = torch.einsum("y,yij->ij", weights, _hessian(likelihood, f, y))
    torch.testing.assert_close(_fisher(likelihood, f), expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("which", CENSORED)
@pytest.mark.parametrize("location", [-3.0, -0.4, 0.0, 0.5, 4.0])
def test_it_is_the_expected_square_of_the_score_of_a_censored_outcome(which: str, location: float) -> None:
    """The probability of the limit times the square of its score, and an integral above it."""
    likelihood = CENSORED[which]().double()
    assert isinstance(likelihood, bm.likelihoods.Censored)
    f = torch.full((2,), location, dtype=D)
    expected = []
    for c in range(2):
        scale = likelihood.likelihood(f).base_dist.scale[c].item()
        points, weights = np.polynomial.legendre.leggauss(400)  # of a smooth function
        top = max(location, likelihood.limit) + 12.0 * scale  # beyond it 1e-32 of the mass
        half = 0.5 * (top - likelihood.limit)
        y = np.concatenate([[likelihood.limit], likelihood.limit + half * (points + 1.0)])
        outcome = torch.tensor(y, dtype=D)[:, None].expand(-1, 2)
        many = f.expand(len(y), -1).clone().requires_grad_()
        log_prob = likelihood(many).base_dist.log_prob(outcome)[:, c]
        (score,) = torch.autograd.grad(log_prob.sum(), many)
        mass = log_prob.detach().exp() * torch.tensor(np.concatenate([[1.0], half * weights]))
        assert math.isclose(mass.sum().item(), 1.0, rel_tol=1e-9)
        expected.append((mass * score[:, c].square()).sum().item())
    torch.testing.assert_close(
        _fisher(likelihood, f), torch.diag(torch.tensor(expected, dtype=D)), rtol=1e-8, atol=1e-12
    )


@pytest.mark.parametrize("which", ALL)
def test_it_is_the_variance_of_the_score(which: str) -> None:
    """The other definition of the Fisher information: E (∂ log p / ∂f)(∂ log p / ∂f)ᵀ, by Monte Carlo."""
    likelihood = ALL[which]().double()
    f = torch.randn(likelihood.network_outputs, dtype=D)
    many = f.expand(100_000, -1).clone().requires_grad_()
    with torch.no_grad():
        y = likelihood(many).sample()
    (score,) = torch.autograd.grad(likelihood(many).log_prob(y).sum(), many)
    truth = _fisher(likelihood, f)
    scale = truth.diagonal().sqrt()
    # the score has a kurtosis of at most 15 (a centred chi square): six errors of sqrt(15 / 100,000)
    error = (score.mT @ score / len(score) - truth) / (scale[:, None] * scale)
    assert error.abs().max() < 0.075


def test_heteroscedastic_curvature_vanishes_where_the_variance_is_flat() -> None:
    likelihood = bm.likelihoods.HeteroscedasticGaussian(1, bounds=(0.1, 10.0))
    f = torch.tensor([[0.0, -100.0], [0.0, 0.0], [0.0, 100.0]], dtype=D)
    found = likelihood.curvature_root(f).diagonal(dim1=-2, dim2=-1)
    middle = math.sqrt(0.5) * (1.0 / 1.1 - 1.0 / 11.0)
    expected = torch.tensor([[0.1**-0.5, 0.0], [1.0, middle], [10.0**-0.5, 0.0]], dtype=D)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    variance = likelihood(f).variance[:, 0]
    torch.testing.assert_close(found[:, 0], variance.rsqrt(), rtol=1e-8, atol=0.0)  # far out `bounded` cuts e^-20 off


def test_a_constant_added_to_all_logits_changes_nothing() -> None:
    f = torch.randn(7, 4, dtype=D)
    root = bm.likelihoods.Categorical(4).curvature_root(f)
    torch.testing.assert_close(root.sum(-2), torch.zeros(7, 4, dtype=D), **CLOSE)  # 1ᵀ R = 0
    torch.testing.assert_close(bm.likelihoods.Categorical(4).curvature_root(f + 100.0), root, **CLOSE)


# ------------------------------------------------------------------------------------------ shapes, precision, extremes


@pytest.mark.parametrize("which", ALL)
@pytest.mark.parametrize("batch", [(), (5,), (2, 0), (3, 2, 4)])
def test_every_point_on_its_own(which: str, batch: tuple[int, ...]) -> None:
    likelihood = ALL[which]().double()
    f = torch.randn(*batch, likelihood.network_outputs, dtype=D)
    root = likelihood.curvature_root(f)
    assert root.shape == (*batch, f.shape[-1], f.shape[-1])
    for index in np.ndindex(batch):
        torch.testing.assert_close(root[index], likelihood.curvature_root(f[index]), **CLOSE)


@pytest.mark.parametrize("which", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_precision_follows_f(which: str, dtype: torch.dtype) -> None:
    f = torch.randn(6, ALL[which]().network_outputs, dtype=D)
    exact = ALL[which]().double().curvature_root(f)
    for likelihood in (ALL[which]().float(), ALL[which]().double()):
        found = likelihood.curvature_root(f.to(dtype))
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)  # float32


@pytest.mark.parametrize("which", ["bernoulli", "categorical"])
@pytest.mark.parametrize("size", [0.0, 1.0, 20.0, 80.0, 1e4])
def test_certain_labels_have_an_exact_root_and_finite_gradients(which: str, size: float) -> None:
    likelihood = CANONICAL[which]()
    f = torch.zeros(2, likelihood.network_outputs)
    f[0, 0], f[1, 0] = size, -size
    f.requires_grad_()
    root = likelihood.curvature_root(f)
    p = math.exp(-size) / (1.0 + math.exp(-size))  # the smaller of the two
    if which == "bernoulli":  # also where 1 - p is 1 in float32
        truth = torch.full((2, 1, 1), p * (1.0 - p), dtype=D)
        torch.testing.assert_close((root @ root.mT).double(), truth, rtol=1e-4, atol=1e-38)  # 80 rounds by 4e-6
    else:
        probs = f.double().softmax(-1)
        apart = 1.0 - torch.eye(4, dtype=D)
        truth = torch.diag_embed(probs * (probs @ apart)) - probs[..., :, None] * probs[..., None, :] * apart
        spread = truth.diagonal(dim1=-2, dim2=-1).clamp(min=1e-38).sqrt()
        error = ((root @ root.mT).double() - truth) / (spread[..., :, None] * spread[..., None, :])
        assert error.abs().max() < 1e-4
    (gradient,) = torch.autograd.grad(root.square().sum() + root.sum(), f)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("raw", [-1e3, -60.0, 0.0, 80.0, 1e3])
@pytest.mark.parametrize("bounds", [(1e-8, 1e8), (1e-30, 1e-20), (1e-4, 1e20)])
def test_extreme_variances_have_finite_gradients(raw: float, bounds: tuple[float, float]) -> None:
    likelihood = bm.likelihoods.HeteroscedasticGaussian(1, bounds=bounds)
    f = torch.tensor([[0.0, raw]], requires_grad=True)
    root = likelihood.curvature_root(f)
    assert torch.isfinite(root).all()
    assert torch.isfinite(torch.autograd.grad(root.sum(), f)[0]).all()
    gaussian, student = bm.likelihoods.Gaussian(), bm.likelihoods.StudentT()
    for own in (gaussian, student):
        with torch.no_grad():
            for parameter in own.parameters():
                parameter.fill_(raw)
        value = own.curvature_root(torch.zeros(1)).sum() + own.unit()
        for gradient in torch.autograd.grad(value, list(own.parameters())):
            assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("which", ALL)
def test_gradients_are_those_of_differences(which: str) -> None:
    likelihood = ALL[which]().double()
    names, values = zip(*likelihood.named_parameters(), strict=True) if list(likelihood.parameters()) else ((), ())
    f = torch.randn(2, likelihood.network_outputs, dtype=D, requires_grad=True)

    class Both(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.likelihood = likelihood

        def forward(self, at: Tensor) -> tuple[Tensor, Tensor]:
            return self.likelihood.curvature_root(at), self.likelihood.unit()

    def of(at: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        parameters = {f"likelihood.{name}": value for name, value in zip(names, given, strict=True)}
        outputs = functional_call(Both(), parameters, (at,))
        return tuple(out for out in outputs if out.requires_grad)

    leaves = [value.detach().clone().requires_grad_() for value in values]
    assert torch.autograd.gradcheck(of, (f, *leaves))


# ----------------------------------------------------------------------------------------------------------------- unit


def test_unit_is_the_geometric_mean_of_the_variances() -> None:
    for likelihood, expected in (
        (bm.likelihoods.Gaussian(_diagonal_noise()), math.sqrt(0.3 * 2.0)),
        (bm.likelihoods.Gaussian(_full_noise()), math.sqrt(0.5 * 0.4)),
        (_student(), 0.4 * 3.0),
        (bm.likelihoods.Bernoulli(), 1.0),
        (bm.likelihoods.Categorical(3), 1.0),
        (bm.likelihoods.HeteroscedasticGaussian(2), 1.0),
        (bm.likelihoods.ScaledGaussian(_diagonal_noise()), math.sqrt(0.3 * 2.0)),
    ):
        assert likelihood.unit().shape == ()
        assert math.isclose(likelihood.unit().item(), expected, rel_tol=1e-9)  # `set` inverts the bounds, to rounding
    assert bm.likelihoods.Gaussian(_diagonal_noise()).unit().dtype == D
    assert bm.likelihoods.Gaussian().unit().dtype == bm.likelihoods.Bernoulli().unit().dtype == torch.float32


def test_unit_of_a_likelihood_with_parameters_but_none_of_its_own_is_one_in_their_precision() -> None:
    class Tempered(bm.likelihoods.Categorical):
        def __init__(self) -> None:
            super().__init__(3)
            self.temperature = torch.nn.Parameter(torch.ones(()))

    unit = Tempered().double().unit()
    assert unit.dtype == D
    assert unit.item() == 1.0


@given(variance=st.floats(1e-6, 1e6))
def test_a_step_in_units_is_a_step_on_the_mean_squared_error(variance: float) -> None:
    likelihood = bm.likelihoods.Gaussian(bm.noise.DiagonalNoise(2, initial=variance)).double()
    f, y = torch.randn(1, 5, 2, dtype=D, requires_grad=True), torch.randn(1, 5, 2, dtype=D)
    data = bm.Data.full(torch.zeros(1, 5, 1, dtype=D), y)
    step = likelihood.unit() * torch.autograd.grad(likelihood.log_prob(f, data).sum() / 5.0, f)[0]
    (expected,) = torch.autograd.grad(-0.5 * (f - y).square().sum(-1).mean(), f)
    torch.testing.assert_close(step.detach(), expected, rtol=1e-9, atol=1e-12)
