"""Predictives against scipy, explicit covariances, quadrature and samples."""

import math
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch.distributions import Bernoulli, Categorical, Independent, MultivariateNormal, Normal, StudentT

import bayesmeta as bm
from bayesmeta.errors import DataError, ShapeError, UnsupportedError
from bayesmeta.inverse_gamma import InverseGamma
from bayesmeta.predictives import (
    AffinePredictive,
    DenseGaussianPredictive,
    GaussianPredictive,
    IndependentPredictive,
    MixturePredictive,
    Predictive,
    StudentTPredictive,
)

CLOSE = {"rtol": 1e-9, "atol": 1e-9}  # float64: the same mathematics in another order
D = torch.float64


def _gaussian(
    num_tasks: int = 2, points: int = 3, outputs: int = 2, seed: int = 0, noise: float = 1.0
) -> GaussianPredictive:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(num_tasks, points, points + 1, generator=generator, dtype=D)
    rows = root @ root.mT
    columns = torch.randn(outputs, outputs, generator=generator, dtype=D)
    location = torch.randn(num_tasks, points, outputs, generator=generator, dtype=D)
    diagonal = rows.diagonal(dim1=-2, dim2=-1)
    return GaussianPredictive(
        location, diagonal, lambda: rows, columns @ columns.mT + torch.eye(outputs, dtype=D), noise
    )


def _joint_student(num_tasks: int = 2, noise: float = 1.0) -> StudentTPredictive:
    """A Gaussian whose scale is InvGamma(1.6 + task, 2): from 3.2 degrees of freedom on."""
    scale = InverseGamma(1.6 + torch.arange(num_tasks, dtype=D), torch.full((num_tasks,), 2.0, dtype=D))
    return StudentTPredictive(_gaussian(num_tasks, noise=noise), scale)


def _dense(num_tasks: int = 2) -> DenseGaussianPredictive:
    generator = torch.Generator().manual_seed(1)
    root = torch.randn(num_tasks, 6, 7, generator=generator, dtype=D)
    covariance = root @ root.mT
    blocks = torch.stack([covariance[:, i : i + 2, i : i + 2] for i in (0, 2, 4)], 1)
    columns = torch.tensor([[1.0, -0.3], [-0.3, 0.5]], dtype=D)
    location = torch.randn(num_tasks, 3, 2, generator=generator, dtype=D)
    return DenseGaussianPredictive(location, blocks, lambda: covariance, columns)


def _normal(num_tasks: int = 2) -> IndependentPredictive:
    loc, scale = torch.randn(num_tasks, 3, 2, dtype=D), torch.rand(num_tasks, 3, 2, dtype=D) + 0.2
    return IndependentPredictive(Independent(Normal(loc, scale), 1), Independent(Normal(loc, 0.5 * scale), 1))


def _student(num_tasks: int = 2, dof: float = 2.5) -> IndependentPredictive:
    loc, scale = torch.randn(num_tasks, 3, 2, dtype=D), torch.rand(num_tasks, 3, 2, dtype=D) + 0.2
    return IndependentPredictive(Independent(StudentT(torch.full_like(loc, dof), loc, scale), 1))


def _student_marginal(num_tasks: int = 2) -> IndependentPredictive:
    mean, variance = torch.randn(num_tasks, 3, 2, dtype=D), torch.rand(num_tasks, 3, 2, dtype=D)
    return IndependentPredictive(bm.likelihoods.StudentT(2).double().marginal(mean, variance))


def _mixture(components: Predictive) -> MixturePredictive:
    return MixturePredictive(torch.tensor([[0.2, 1.0, -0.5], [3.0, 0.0, -3.0]], dtype=D), components)


def _affine(base: Predictive) -> AffinePredictive:
    return AffinePredictive(base, torch.tensor([100.0, -3.0], dtype=D), torch.tensor([10.0, 0.1], dtype=D))


def _affine_by_point(base: Predictive) -> AffinePredictive:
    """Each point has its own shift, each task its own scale."""
    shift = torch.linspace(-3.0, 3.0, base.shape.numel(), dtype=D).view(base.shape)
    scale = torch.linspace(0.5, 2.0, base.shape[0], dtype=D)[:, None, None].expand(-1, 1, base.shape[2])
    return AffinePredictive(base, shift, scale)


REGRESSION: dict[str, Callable[[], Predictive]] = {
    "gaussian": _gaussian,
    "dense gaussian": _dense,
    "normal": _normal,
    "student-t": _student,
    "student-t marginal": _student_marginal,
    "mixture of gaussians": lambda: _mixture(_gaussian(6)),
    "mixture of dense gaussians": lambda: _mixture(_dense(6)),
    "mixture of normals": lambda: _mixture(_normal(6)),
    "joint student-t": _joint_student,
    "mixture of joint student-t": lambda: _mixture(_joint_student(6)),
    "affine joint student-t": lambda: _affine(_joint_student()),
    "affine mixture of joint student-t": lambda: _affine(_mixture(_joint_student(6))),
    "mixture of student-t": lambda: _mixture(_student(6)),
    "affine gaussian": lambda: _affine(_gaussian()),
    "affine dense gaussian": lambda: _affine(_dense()),
    "affine student-t": lambda: _affine(_student()),
    "affine student-t marginal": lambda: _affine(_student_marginal()),
    "affine mixture of gaussians": lambda: _affine(_mixture(_gaussian(6))),
    "affine mixture of dense gaussians": lambda: _affine(_mixture(_dense(6))),
    "affine mixture of normals": lambda: _affine(_mixture(_normal(6))),
    "mixture of affine gaussians": lambda: _mixture(_affine(_gaussian(6))),
    "mixture of gaussians with scales": lambda: _mixture(_affine_by_point(_gaussian(6))),
}
LABELS: dict[str, Callable[[], Predictive]] = {
    "bernoulli": lambda: IndependentPredictive(Bernoulli(torch.rand(2, 3, dtype=D))),
    "categorical": lambda: IndependentPredictive(Categorical(torch.rand(2, 3, 4, dtype=D))),
    "mixture of bernoullis": lambda: _mixture(IndependentPredictive(Bernoulli(torch.rand(6, 3, dtype=D)))),
    "mixture of categoricals": lambda: _mixture(IndependentPredictive(Categorical(torch.rand(6, 3, 4, dtype=D)))),
}


@pytest.fixture(params=REGRESSION)
def regression(request: pytest.FixtureRequest) -> Predictive:
    return REGRESSION[request.param]()


@pytest.fixture(params=LABELS)
def labels(request: pytest.FixtureRequest) -> Predictive:
    return LABELS[request.param]()


# --------------------------------------------------------------------------------------------------- joint Gaussians


@given(seed=st.integers(0, 10**6), points=st.integers(0, 4), outputs=st.integers(1, 3), bits=st.integers(0, 2**8 - 1))
def test_joint_density_is_scipys_of_the_explicit_kronecker_covariance(
    seed: int, points: int, outputs: int, bits: int
) -> None:
    predictive = _gaussian(2, points, outputs, seed)
    y = predictive.mean + torch.randn(predictive.mean.shape, dtype=D)
    mask = torch.tensor([[bool(bits >> (4 * b + m) & 1) for m in range(points)] for b in range(2)], dtype=torch.bool)
    found = predictive.log_prob(y, mask)
    for b in range(2):
        real = mask[b]
        expected = 0.0
        if real.any():
            rows = predictive.covariance()[b][real][:, real]
            covariance = np.kron(rows, predictive.output_covariance)  # of vec in row-major order: points, then outputs
            joint = stats.multivariate_normal(predictive.mean[b][real].flatten(), covariance)
            expected = joint.logpdf(y[b][real].flatten())
        assert math.isclose(found[b].item(), expected, rel_tol=1e-8, abs_tol=1e-8)  # conditioning up to 1e6
    torch.testing.assert_close(predictive.log_prob(y), predictive.log_prob(y, torch.ones_like(mask)), **CLOSE)


def test_padding_may_hold_anything() -> None:
    predictive, mask = _gaussian(), torch.tensor([[True, True, False], [False, False, False]])
    y = torch.where(mask[..., None], predictive.mean, 1e300)
    found = predictive.log_prob(y, mask)
    torch.testing.assert_close(found, predictive.log_prob(predictive.mean, mask), **CLOSE)
    assert found[1] == 0.0


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("noise", [1.0, 0.0])
def test_draws_have_the_joint_covariance(outputs: int, noise: float) -> None:
    predictive = _gaussian(2, 3, outputs, noise=noise)
    draws = predictive.sample((40_000,), torch.Generator().manual_seed(0))
    assert draws.shape == (40_000, 2, 3, outputs)
    for b in range(2):
        expected = torch.tensor(np.kron(predictive.covariance()[b], predictive.output_covariance))
        flat = draws[:, b].flatten(1)
        spread = expected.diagonal().sqrt()
        # a covariance of 40,000 draws has a relative error of 1 / 200; four of them
        error = (torch.cov(flat.mT).reshape(expected.shape) - expected) / (spread * spread[:, None])
        assert error.abs().max() < 0.03
        assert ((flat.mean(0) - predictive.mean[b].flatten()) / spread).abs().max() < 0.025  # five errors of the mean


def test_a_noiseless_gaussian_may_be_singular() -> None:
    rows = torch.ones(1, 3, 3, dtype=D)  # all points equal: rank one
    predictive = GaussianPredictive(
        torch.zeros(1, 3, 1, dtype=D), torch.ones(1, 3, dtype=D), lambda: rows, torch.eye(1, dtype=D)
    ).noiseless
    draws = predictive.sample((1000,))
    # the root of an eigenvalue that rounds to 1e-16
    torch.testing.assert_close(draws, draws[:, :, :1].expand_as(draws), rtol=0.0, atol=1e-6)
    assert predictive.stddev.tolist() == [[[1.0]] * 3]


def test_noiseless_removes_the_noise_and_nothing_else() -> None:
    with_noise = (
        _gaussian(),
        _dense(),
        _mixture(_gaussian(6)),
        _mixture(_dense(6)),
        _affine(_gaussian()),
        _normal(),
        _joint_student(),
    )
    for predictive in (*with_noise, _mixture(_normal(6))):
        f = predictive.noiseless
        torch.testing.assert_close(f.mean, predictive.mean, **CLOSE)
        assert (f.variance < predictive.variance).all()
    scale = torch.tensor([10.0, 0.1], dtype=D)
    removed = _affine(_gaussian()).variance - _affine(_gaussian()).noiseless.variance
    expected = scale.square() * _gaussian().output_covariance.diagonal()
    torch.testing.assert_close(removed, expected.expand_as(removed), **CLOSE)
    for predictive in (_student(), _affine(_student()), LABELS["categorical"]()):
        with pytest.raises(UnsupportedError, match="does not separate f from its noise"):
            _ = predictive.noiseless


# ------------------------------------------------------------------------------------------------- joint Student's t


def test_joint_student_density_is_scipys_multivariate_t() -> None:
    predictive, mask = _joint_student(), torch.tensor([[True, True, True], [True, False, True]])
    y = predictive.mean + torch.randn(predictive.mean.shape, dtype=D)
    found, gaussian, scale = predictive.log_prob(y, mask), predictive.gaussian, predictive.scale
    for b in range(2):
        real = mask[b]
        shape = np.kron(gaussian.covariance()[b][real][:, real], gaussian.output_covariance) * scale.factor[b].item()
        joint = stats.multivariate_t(predictive.mean[b][real].flatten(), shape, df=scale.dof[b].item())
        assert math.isclose(found[b].item(), joint.logpdf(y[b][real].flatten()), rel_tol=1e-9)
    for m in range(3):  # a point on its own, of two correlated outputs
        shape = gaussian.point_variance[0, m] * gaussian.output_covariance * scale.factor[0]
        joint = stats.multivariate_t(predictive.mean[0, m], shape, df=scale.dof[0].item())
        for density in (predictive.marginal_log_prob(y), predictive.marginals.log_prob(y)):
            assert math.isclose(density[0, m].item(), joint.logpdf(y[0, m]), rel_tol=1e-9)


def test_draws_of_a_joint_student_share_their_scale() -> None:
    predictive = _joint_student(3)
    draws = predictive.sample((40_000,), torch.Generator().manual_seed(0))
    dof, deviation = (
        predictive.scale.dof[2],
        (predictive.scale.factor[:, None, None] * predictive.gaussian.variance).sqrt(),
    )
    one = stats.t(dof.item(), predictive.mean[2, 1, 1].item(), deviation[2, 1, 1].item())
    assert stats.kstest(draws[:4_000, 2, 1, 1].numpy(), one.cdf).pvalue > 0.01
    rows = predictive.gaussian.covariance()
    white = torch.linalg.solve(torch.linalg.cholesky(rows), draws - predictive.mean)
    squares = white[:, 2, :, 0].square()
    # uncorrelated and still dependent: where one is large the others are, too
    assert torch.corrcoef(squares.log().mT)[0, 1] > 0.05
    again = predictive.sample((5,), torch.Generator().manual_seed(0))
    assert torch.equal(again, predictive.sample((5,), torch.Generator().manual_seed(0)))


# ------------------------------------------------------------------------------------------------ what all of them do


def test_shapes(regression: Predictive) -> None:
    assert regression.mean.shape == regression.stddev.shape == regression.quantile(0.3).shape == (2, 3, 2)
    marginals = regression.marginals
    assert (marginals.batch_shape, marginals.event_shape) == ((2, 3), (2,))
    assert regression.marginal_log_prob(regression.mean).shape == (2, 3)
    assert regression.log_prob(regression.mean).shape == (2,)
    for shape in ((), (5,), (0,), (2, 3)):
        assert regression.sample(shape).shape == (*shape, 2, 3, 2)


def test_quantiles_invert_the_distribution_function(regression: Predictive) -> None:
    for q in (1e-3, 0.05, 0.5, 0.9, 0.999):
        found = regression.cdf(regression.quantile(q))
        torch.testing.assert_close(found, torch.full_like(found, q), rtol=1e-8, atol=1e-10)  # float64 bisection
    lower, upper = regression.interval(0.8)
    torch.testing.assert_close(regression.cdf(upper) - regression.cdf(lower), torch.full_like(lower, 0.8), **CLOSE)
    assert (lower < upper).all()


def test_quantiles_exist_without_a_variance() -> None:
    """Student's t with two degrees of freedom, which the default bounds allow, has none."""
    for predictive in (_student(dof=2.0), _mixture(_student(6, dof=1.5)), _affine(_student(dof=2.0))):
        lower, upper = predictive.interval(0.9)
        assert torch.isfinite(lower).all()
        found = predictive.cdf(upper) - predictive.cdf(lower)
        torch.testing.assert_close(found, torch.full_like(found, 0.9), **CLOSE)


def test_marginals_agree_with_the_methods(regression: Predictive) -> None:
    y = regression.mean + 0.3 * regression.stddev
    torch.testing.assert_close(regression.marginals.log_prob(y), regression.marginal_log_prob(y), **CLOSE)
    torch.testing.assert_close(regression.marginals.mean, regression.mean, **CLOSE)
    torch.testing.assert_close(regression.marginals.variance, regression.variance, **CLOSE)


def test_marginal_densities_integrate_to_one(regression: Predictive) -> None:
    u = torch.linspace(-9, 9, 181, dtype=D)
    z, weights = u.sinh(), u.cosh() * (u[1] - u[0])  # fine in the middle, and far out for the tails of Student's t
    grid, area = torch.cartesian_prod(z, z)[:, None, None], torch.outer(weights, weights).flatten()
    y = regression.mean + regression.stddev * grid
    with torch.no_grad():
        density = regression.marginals.log_prob(y).exp() * regression.stddev.prod(-1)
    total = torch.einsum("g,gbm->bm", area, density)
    # components of a mixture are a tenth as wide as the mixture, which is the step of the grid: 1e-3
    torch.testing.assert_close(total, torch.ones_like(total), rtol=2e-3, atol=0.0)


def test_the_distribution_function_rises_from_zero_to_one_as_the_draws_do(regression: Predictive) -> None:
    center, scale = regression.mean, regression.stddev
    values = torch.stack([regression.cdf(center + z * scale) for z in (-4000.0, -2.0, -0.1, 0.1, 2.0, 4000.0)])
    assert (values.diff(dim=0) > 0.0).all()
    # Student's t with 2.5 degrees of freedom has 1e-8 of its mass beyond 4,000 deviations
    torch.testing.assert_close(values[-1], torch.ones_like(center), rtol=1e-6, atol=0.0)
    assert (values[0] < 1e-6).all()


def test_log_prob_of_one_point_is_its_marginal(regression: Predictive) -> None:
    y = regression.sample(generator=torch.Generator().manual_seed(0))
    for m in range(3):
        mask = torch.zeros(2, 3, dtype=torch.bool)
        mask[:, m] = True
        torch.testing.assert_close(regression.log_prob(y, mask), regression.marginal_log_prob(y)[:, m], **CLOSE)
    assert (
        regression.log_prob(y, torch.zeros(2, 3, dtype=torch.bool)).abs().max() < 1e-12
    )  # log of weights that sum to 1


def test_draws_follow_the_marginals(regression: Predictive) -> None:
    draws = regression.sample((4000,), torch.Generator().manual_seed(0))
    for q in (0.1, 0.5, 0.9):
        share = (draws < regression.quantile(q)).double().mean(0)
        assert (share - q).abs().max() < 0.04  # five standard errors of a share of 4,000 draws


@pytest.mark.parametrize("which", [*REGRESSION, *LABELS])
def test_generators_reproduce_and_leave_the_global_one_alone(which: str) -> None:
    predictive = (REGRESSION | LABELS)[which]()
    before = torch.random.get_rng_state()
    a, b, c = (predictive.sample((3,), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    generator = torch.Generator().manual_seed(1)
    first, second = predictive.sample((3,), generator), predictive.sample((3,), generator)
    assert torch.equal(first, a)
    assert not torch.equal(first, second)  # a generator moves on


@pytest.mark.parametrize("which", REGRESSION)
def test_zero_query_points(which: str) -> None:
    full = REGRESSION[which]()
    empty = _crop(full)
    y = torch.zeros(2, 0, 2, dtype=D)
    assert empty.log_prob(y).abs().max() < 1e-12
    assert empty.log_prob(y, torch.zeros(2, 0, dtype=torch.bool)).abs().max() < 1e-12
    for value in (empty.mean, empty.stddev, *empty.interval(0.9), empty.cdf(y), empty.sample(), empty.sample((4,))[0]):
        assert value.shape == (2, 0, 2)
    assert empty.marginal_log_prob(y).shape == (2, 0)


def _crop(predictive: Predictive) -> Predictive:
    """The same predictive at no points."""
    if isinstance(predictive, AffinePredictive):
        shift = predictive.shift if predictive.shift.ndim == 1 else predictive.shift[:, :0]
        return AffinePredictive(_crop(predictive.base), shift, predictive.scale)
    if isinstance(predictive, MixturePredictive):
        return MixturePredictive(predictive.log_weights, _crop(predictive.components))
    if isinstance(predictive, GaussianPredictive):
        rows = predictive.covariance()[:, :0, :0]
        location, variance = predictive.location[:, :0], predictive.latent_variance[:, :0]
        return GaussianPredictive(location, variance, lambda: rows, predictive.output_covariance)
    if isinstance(predictive, DenseGaussianPredictive):
        joint = predictive.covariance()[:, :0, :0]
        location, blocks = predictive.location[:, :0], predictive.blocks[:, :0]
        return DenseGaussianPredictive(location, blocks, lambda: joint, predictive.noise_covariance)
    if isinstance(predictive, StudentTPredictive):
        return StudentTPredictive(_crop(predictive.gaussian), predictive.scale)
    size = len(predictive.mean)
    if isinstance(predictive.marginals.base_dist, StudentT):
        nothing = torch.zeros(size, 0, 2, dtype=D)
        return IndependentPredictive(Independent(StudentT(nothing + 3.0, nothing, nothing + 1.0), 1))
    nothing = torch.zeros(size, 0, 2, dtype=D)
    if isinstance(predictive.marginals.base_dist, Normal):
        return IndependentPredictive(Independent(Normal(nothing, nothing + 1.0), 1))
    return IndependentPredictive(bm.likelihoods.StudentT(2).double().marginal(nothing, nothing))


@pytest.mark.usefixtures("unchecked")
def test_wrong_shapes_are_refused_rather_than_broadcast(regression: Predictive) -> None:
    right, mask = regression.mean, torch.ones(2, 3, dtype=torch.bool)
    for wrong in (right[0], right[..., 0], right[:, :1], right[..., :1], right[:1], right[None]):
        for method in (regression.log_prob, regression.marginal_log_prob, regression.cdf):
            with pytest.raises(ShapeError, match=re.escape(f"got {tuple(wrong.shape)}")):
                method(wrong)
    for wrong in (mask[:, :1], mask[0], mask[:1]):
        with pytest.raises(ShapeError, match="mask"):
            regression.log_prob(right, wrong)
    with pytest.raises(DataError, match=r"expected y to be a tensor.*got ndarray"):
        regression.log_prob(right.detach().numpy())


def test_levels_outside_zero_and_one_are_refused(regression: Predictive) -> None:
    for level in (0.0, 1.0, 90.0, -0.1, math.nan):
        with pytest.raises(DataError, match="quantile level strictly between 0 and 1"):
            regression.quantile(level)
        with pytest.raises(DataError, match="a level strictly between 0 and 1"):
            regression.interval(level)
    with pytest.raises(UnsupportedError, match="use mean and stddev"):
        _ = regression.probs


# ------------------------------------------------------------------------------------------------- known distributions


def test_gaussian_quantiles_are_scipys() -> None:
    predictive = _gaussian()
    expected = stats.norm(predictive.mean, predictive.stddev).ppf(0.23)
    np.testing.assert_allclose(predictive.quantile(0.23), expected, rtol=1e-9)
    student = _student()
    base = student.marginals.base_dist
    np.testing.assert_allclose(student.quantile(0.23), stats.t(base.df, base.loc, base.scale).ppf(0.23), rtol=1e-9)
    np.testing.assert_allclose(student.cdf(student.mean + 1), stats.t(base.df, base.loc, base.scale).cdf(base.loc + 1))


def test_mixture_is_the_explicit_formula() -> None:
    mixture = _mixture(_gaussian(6))
    weights = torch.tensor([[0.2, 1.0, -0.5], [3.0, 0.0, -3.0]], dtype=D).softmax(-1)
    each = mixture.components
    y = torch.randn(2, 3, 2, dtype=D)
    for b in range(2):
        joint = sum(weights[b, s] * each.log_prob(y[b].expand(6, -1, -1))[3 * b + s].exp() for s in range(3))
        assert math.isclose(mixture.log_prob(y)[b].item(), joint.log().item(), rel_tol=1e-9)
        marginal = sum(
            weights[b, s] * each.marginal_log_prob(y[b].expand(6, -1, -1))[3 * b + s].exp() for s in range(3)
        )
        torch.testing.assert_close(mixture.marginal_log_prob(y)[b], marginal.log(), **CLOSE)
        mean = sum(weights[b, s] * each.mean[3 * b + s] for s in range(3))
        second = sum(weights[b, s] * (each.variance + each.mean.square())[3 * b + s] for s in range(3))
        torch.testing.assert_close(mixture.mean[b], mean, **CLOSE)
        torch.testing.assert_close(mixture.variance[b], second - mean.square(), **CLOSE)


def test_points_of_a_mixture_share_the_component() -> None:
    location = torch.tensor([[[-100.0], [-100.0]], [[100.0], [100.0]]], dtype=D)
    components = IndependentPredictive(Independent(Normal(location, torch.ones_like(location)), 1))
    mixture = MixturePredictive(torch.zeros(1, 2, dtype=D), components)
    draws = mixture.sample((500,))[:, 0, :, 0]
    assert (draws[:, 0].sign() == draws[:, 1].sign()).all()
    assert 0.4 < (draws[:, 0] > 0).double().mean() < 0.6  # five standard errors of a share of 500
    # with one good component the other does not hurt, and both points together pay log 2 once
    y = torch.full((1, 2, 1), 100.0, dtype=D)
    expected = -math.log(2.0) - math.log(2.0 * math.pi)
    assert math.isclose(mixture.log_prob(y).item(), expected, rel_tol=1e-12)


def test_affine_is_the_change_of_variables(regression: Predictive) -> None:
    shift, scale = torch.tensor([5.0, -2.0], dtype=D), torch.tensor([3.0, 0.2], dtype=D)
    moved = AffinePredictive(regression, shift, scale)
    y = regression.sample(generator=torch.Generator().manual_seed(0))
    jacobian = scale.log().sum()
    mask = torch.tensor([[True, False, True], [True, True, True]])
    found, base = moved.log_prob(shift + scale * y, mask), regression.log_prob(y, mask)
    torch.testing.assert_close(found, base - mask.sum(-1) * jacobian, **CLOSE)
    found, base = moved.marginal_log_prob(shift + scale * y), regression.marginal_log_prob(y)
    torch.testing.assert_close(found, base - jacobian, **CLOSE)
    torch.testing.assert_close(moved.mean, shift + scale * regression.mean, **CLOSE)
    torch.testing.assert_close(moved.stddev, scale * regression.stddev, **CLOSE)
    torch.testing.assert_close(moved.cdf(shift + scale * y), regression.cdf(y), **CLOSE)
    torch.testing.assert_close(moved.quantile(0.2), shift + scale * regression.quantile(0.2), **CLOSE)
    a, b = (p.sample((2,), torch.Generator().manual_seed(3)) for p in (moved, regression))
    torch.testing.assert_close(a, shift + scale * b, **CLOSE)


def test_affine_densities_integrate_to_one() -> None:
    moved = AffinePredictive(
        IndependentPredictive(Independent(Normal(torch.zeros(1, 1, 1, dtype=D), torch.ones(1, 1, 1, dtype=D)), 1)),
        torch.tensor([50.0], dtype=D),
        torch.tensor([7.0], dtype=D),
    )
    grid = torch.linspace(50 - 70, 50 + 70, 4001, dtype=D)
    density = torch.stack([moved.log_prob(y.reshape(1, 1, 1)) for y in grid]).exp()
    assert math.isclose(torch.trapezoid(density[:, 0], grid).item(), 1.0, rel_tol=1e-9)


# ------------------------------------------------------------------------------------------------------------- labels


def test_labels(labels: Predictive) -> None:
    classes = labels.probs.shape[-1]
    torch.testing.assert_close(labels.probs.sum(-1), torch.ones(2, 3, dtype=D), **CLOSE)
    for label in range(classes):
        y = torch.full((2, 3), label)
        # torch clamps probabilities to 1 - 1e-16, and a logit of a probability rounds
        torch.testing.assert_close(labels.marginal_log_prob(y).exp(), labels.probs[..., label], rtol=1e-7, atol=1e-9)
    draws = labels.sample((4000,), torch.Generator().manual_seed(0))
    assert draws.shape == (4000, 2, 3)
    share = torch.stack([(draws == label).double().mean(0) for label in range(classes)], -1)
    assert (share - labels.probs).abs().max() < 0.04  # five standard errors
    for question in (
        lambda: labels.mean,
        lambda: labels.stddev,
        lambda: labels.quantile(0.5),
        lambda: labels.interval(),
    ):
        with pytest.raises(UnsupportedError, match="use probs"):
            question()


def test_joint_labels_share_the_component() -> None:
    probs = torch.tensor([[[0.9, 0.1]] * 2, [[0.1, 0.9]] * 2], dtype=D)
    mixture = MixturePredictive(torch.zeros(1, 2, dtype=D), IndependentPredictive(Categorical(probs)))
    found = mixture.log_prob(torch.tensor([[0, 0]])).exp().item()
    assert math.isclose(found, 0.5 * (0.81 + 0.01), rel_tol=1e-9)
    assert math.isclose(mixture.marginal_log_prob(torch.tensor([[0, 0]]))[0, 0].exp().item(), 0.5, rel_tol=1e-9)


def test_multivariate_components_keep_their_correlation() -> None:
    factor = torch.linalg.cholesky(torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=D)).expand(6, 3, 2, 2)
    components = IndependentPredictive(MultivariateNormal(torch.randn(6, 3, 2, dtype=D), scale_tril=factor))
    mixture = _mixture(components)
    y = torch.randn(2, 3, 2, dtype=D)
    torch.testing.assert_close(mixture.marginals.log_prob(y), mixture.marginal_log_prob(y), **CLOSE)
    torch.testing.assert_close(mixture.marginals.variance, mixture.variance, **CLOSE)


def test_a_mixture_in_float32_is_asked_in_float64() -> None:
    """Standardized learners work in float32, and their users' outcomes are float64."""
    components = bm.predictives.IndependentPredictive(Independent(Normal(torch.zeros(6, 2, 1), torch.ones(6, 2, 1)), 1))
    mixture = bm.predictives.MixturePredictive(torch.zeros(2, 3), components)
    y = torch.zeros(2, 2, 1, dtype=torch.float64)
    torch.testing.assert_close(mixture.cdf(y), torch.full_like(y, 0.5))
    assert mixture.log_prob(y).shape == (2,)
