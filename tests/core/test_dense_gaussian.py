"""The joint Gaussian over points and outputs against torch, the Kronecker special case and draws."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal

from bayesmeta.errors import InferenceError
from bayesmeta.evaluation.evaluate import _gaussian_log_prob
from bayesmeta.predictives import DenseGaussianPredictive, GaussianPredictive

CLOSE = {"rtol": 1e-9, "atol": 1e-9}  # float64: the same mathematics in another order
D = torch.float64


def _columns(outputs: int, generator: torch.Generator) -> Tensor:
    root = torch.randn(outputs, outputs, generator=generator, dtype=D)
    return root @ root.mT + torch.eye(outputs, dtype=D)


def _from_jacobian(location: Tensor, jacobian: Tensor, columns: Tensor, noise: float = 1.0) -> DenseGaussianPredictive:
    """f = location + J z with z ~ N(0, I): `B M C P`."""
    rows = jacobian.flatten(1, 2)
    return DenseGaussianPredictive(location, jacobian @ jacobian.mT, lambda: rows @ rows.mT, columns, noise)


def _dense(points: int = 3, outputs: int = 2, seed: int = 0, noise: float = 1.0) -> DenseGaussianPredictive:
    generator = torch.Generator().manual_seed(seed)
    jacobian = torch.randn(2, points, outputs, points * outputs + 2, generator=generator, dtype=D)
    location = torch.randn(2, points, outputs, generator=generator, dtype=D)
    return _from_jacobian(location, jacobian, _columns(outputs, generator), noise)


def _both(points: int, outputs: int, seed: int) -> tuple[GaussianPredictive, DenseGaussianPredictive]:
    """A Kronecker product, written in both ways."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(2, points, points + 1, generator=generator, dtype=D)
    rows, columns = root @ root.mT, _columns(outputs, generator)
    location = torch.randn(2, points, outputs, generator=generator, dtype=D)
    diagonal = rows.diagonal(dim1=-2, dim2=-1)
    joint = torch.einsum("bmn,cd->bmcnd", rows, columns).reshape(2, points * outputs, points * outputs)
    blocks = diagonal[..., None, None] * columns
    return (
        GaussianPredictive(location, diagonal, lambda: rows, columns),
        DenseGaussianPredictive(location, blocks, lambda: joint, columns),
    )


def _mask(bits: int, points: int) -> Tensor:
    return torch.tensor([[bool(bits >> (4 * b + m) & 1) for m in range(points)] for b in range(2)]).bool()


# ------------------------------------------------------------------------------------------------------ known answers


@given(seed=st.integers(0, 10**6), points=st.integers(0, 4), outputs=st.integers(1, 3), bits=st.integers(0, 2**8 - 1))
def test_it_is_the_kronecker_gaussian_where_both_apply(seed: int, points: int, outputs: int, bits: int) -> None:
    kronecker, dense = _both(points, outputs, seed)
    y = kronecker.mean + torch.randn(kronecker.mean.shape, dtype=D)
    mask = _mask(bits, points).reshape(2, points)
    close = {"rtol": 1e-8, "atol": 1e-8}  # conditioning up to 1e6
    for one, other in ((kronecker, dense), (kronecker.noiseless, dense.noiseless)):
        assert torch.equal(other.mean, one.mean)
        torch.testing.assert_close(other.variance, one.variance, **CLOSE)
        torch.testing.assert_close(other.quantile(0.3), one.quantile(0.3), **CLOSE)
        torch.testing.assert_close(other.cdf(y), one.cdf(y), **CLOSE)
    torch.testing.assert_close(dense.marginal_log_prob(y), kronecker.marginal_log_prob(y), **close)
    torch.testing.assert_close(dense.log_prob(y, mask), kronecker.log_prob(y, mask), **close)
    torch.testing.assert_close(dense.log_prob(y), kronecker.log_prob(y), **close)


@given(seed=st.integers(0, 10**6), points=st.integers(1, 4), outputs=st.integers(1, 3), bits=st.integers(0, 2**8 - 1))
def test_joint_density_is_torchs_of_the_real_points(seed: int, points: int, outputs: int, bits: int) -> None:
    predictive = _dense(points, outputs, seed)
    y = predictive.mean + torch.randn(predictive.mean.shape, dtype=D)
    mask = _mask(bits, points)
    found = predictive.log_prob(y, mask)
    joint = predictive.latent_covariance() + torch.block_diag(*[predictive.noise_covariance] * points)
    torch.testing.assert_close(predictive.covariance(), joint, **CLOSE)
    for b in range(2):
        real = mask[b].repeat_interleave(outputs)
        expected = 0.0
        if real.any():
            truth = MultivariateNormal(predictive.mean[b].flatten()[real], joint[b][real][:, real])
            expected = truth.log_prob(y[b].flatten()[real]).item()
        assert math.isclose(found[b].item(), expected, rel_tol=1e-8, abs_tol=1e-8)  # conditioning up to 1e6
    torch.testing.assert_close(predictive.log_prob(y), predictive.log_prob(y, torch.ones_like(mask)), **CLOSE)


def test_marginals_are_the_blocks_of_the_joint() -> None:
    for outputs, family in ((1, Independent), (3, MultivariateNormal)):
        for noise in (1.0, 0.0):
            predictive = _dense(3, outputs, noise=noise)
            assert isinstance(predictive.marginals, family)
            blocks = predictive.covariance().unflatten(1, (3, outputs)).unflatten(3, (3, outputs))
            for m in range(3):
                truth = MultivariateNormal(predictive.mean[:, m], blocks[:, m, :, m])
                y = truth.sample()
                every = predictive.mean.index_copy(1, torch.tensor([m]), y[:, None])
                found = predictive.marginal_log_prob(every)[:, m]
                torch.testing.assert_close(found, truth.log_prob(y), rtol=1e-8, atol=1e-8)  # conditioning up to 1e6


def test_evaluation_scores_it_with_the_correlation_of_its_outputs() -> None:
    predictive = _dense()
    y = predictive.sample(generator=torch.Generator().manual_seed(0))
    assert torch.equal(_gaussian_log_prob(predictive, y), predictive.marginal_log_prob(y))
    apart = Normal(predictive.mean, predictive.stddev).log_prob(y).sum(-1)
    assert ((_gaussian_log_prob(predictive, y) - apart).abs() > 1e-3).all()


# -------------------------------------------------------------------------------------------------------------- draws


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("noise", [1.0, 0.0])
def test_draws_have_the_joint_moments(outputs: int, noise: float) -> None:
    predictive = _dense(3, outputs, noise=noise)
    draws = predictive.sample((40_000,), torch.Generator().manual_seed(0))
    assert draws.shape == (40_000, 2, 3, outputs)
    for b in range(2):
        expected = predictive.covariance()[b]
        spread = expected.diagonal().sqrt()
        # a covariance of 40,000 draws has a relative error of 1 / 200; six of them
        error = (torch.cov(draws[:, b].flatten(1).mT).reshape(expected.shape) - expected) / (spread * spread[:, None])
        assert error.abs().max() < 0.03
        assert ((draws[:, b].mean(0) - predictive.mean[b]).flatten() / spread).abs().max() < 0.025  # five errors


def test_the_joint_covariance_is_computed_only_where_it_is_asked_for() -> None:
    def refuse() -> Tensor:
        raise AssertionError

    full = _dense()
    predictive = DenseGaussianPredictive(full.location, full.blocks, refuse, full.noise_covariance)
    for value in (predictive.mean, predictive.stddev, predictive.quantile(0.2), predictive.noiseless.stddev):
        assert value.shape == (2, 3, 2)
    assert predictive.marginal_log_prob(predictive.mean).shape == (2, 3)
    for question in (predictive.covariance, predictive.sample, lambda: predictive.log_prob(predictive.mean)):
        with pytest.raises(AssertionError):
            question()


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("noise", [1.0, 0.0])
def test_no_points(outputs: int, noise: float) -> None:
    predictive = _dense(0, outputs, noise=noise)
    y = torch.zeros(2, 0, outputs, dtype=D)
    assert predictive.log_prob(y).tolist() == [0.0, 0.0]
    assert predictive.log_prob(y, torch.ones(2, 0, dtype=torch.bool)).tolist() == [0.0, 0.0]
    assert predictive.marginal_log_prob(y).shape == (2, 0)
    assert predictive.covariance().shape == (2, 0, 0)
    for value in (predictive.mean, predictive.stddev, *predictive.interval(), predictive.cdf(y), predictive.sample()):
        assert value.shape == (2, 0, outputs)
    assert predictive.sample((4, 5)).shape == (4, 5, 2, 0, outputs)


# ------------------------------------------------------------------------------------------------ padding, precision


@pytest.mark.parametrize("outputs", [1, 2])
def test_padding_may_hold_anything(outputs: int) -> None:
    generator = torch.Generator().manual_seed(0)
    jacobian = torch.randn(2, 3, outputs, 8, generator=generator, dtype=D)
    mask = torch.tensor([[True, False, True], [False, False, False]])
    columns = _columns(outputs, generator)
    results = []
    for filler in (0.0, 1.0, 1e100):
        y = torch.where(mask[..., None], torch.ones(2, 3, outputs, dtype=D), filler)
        location = torch.where(mask[..., None], torch.full_like(y, 0.5), filler).requires_grad_()
        leaf = torch.where(mask[..., None, None], jacobian, filler).requires_grad_()
        value = _from_jacobian(location, leaf, columns).log_prob(y, mask)
        results.append((value.detach(), *torch.autograd.grad(value.sum(), (location, leaf))))
        for gradient in results[-1][1:]:
            assert (gradient[~mask] == 0.0).all()
            assert (gradient[mask] != 0.0).all()
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)
    assert results[0][0][1] == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("noise", [1.0, 0.0])
def test_precision_is_that_of_the_location(dtype: torch.dtype, noise: float) -> None:
    exact = _dense(noise=noise)
    joint = exact.latent_covariance().to(dtype)
    tensors = (t.to(dtype) for t in (exact.location, exact.blocks))
    predictive = DenseGaussianPredictive(*tensors, lambda: joint, exact.noise_covariance.to(dtype), noise)
    y = exact.mean + 0.3
    for value in (predictive.log_prob(y), predictive.sample(), predictive.stddev, predictive.marginals.mean):
        assert value.dtype == dtype
    # float32 rounding, times a conditioning of 1e2 to 1e3
    torch.testing.assert_close(predictive.log_prob(y).double(), exact.log_prob(y), rtol=1e-3, atol=1e-3)
    found = predictive.marginal_log_prob(y.to(dtype)).double()
    torch.testing.assert_close(found, exact.marginal_log_prob(y), rtol=1e-3, atol=1e-3)


# ---------------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("noise", [1.0, 0.0])
def test_gradients_are_those_of_differences(outputs: int, noise: float) -> None:
    generator = torch.Generator().manual_seed(0)
    location, y = (torch.randn(1, 2, outputs, generator=generator, dtype=D) for _ in range(2))
    jacobian = torch.randn(1, 2, outputs, 6, generator=generator, dtype=D)
    factor = torch.randn(outputs, outputs, generator=generator, dtype=D) + torch.eye(outputs, dtype=D)
    mask = torch.tensor([[True, False]])
    inputs = [t.requires_grad_() for t in (location, jacobian, factor)]

    def of(question: Callable[[DenseGaussianPredictive], Tensor]) -> Callable[..., Tensor]:
        return lambda m, j, a: question(_from_jacobian(m, j, a @ a.mT, noise))

    for question in (
        lambda p: p.log_prob(y),
        lambda p: p.log_prob(y, mask),
        lambda p: p.marginal_log_prob(y),
        lambda p: p.variance,
        lambda p: p.covariance(),
    ):
        assert torch.autograd.gradcheck(of(question), inputs)
    if noise:  # an eigenvector has no fixed sign
        assert torch.autograd.gradcheck(of(lambda p: p.rsample((2,), torch.Generator().manual_seed(0))), inputs)
    (gradient,) = torch.autograd.grad(of(lambda p: p.rsample((2,)).square().sum())(*inputs), jacobian)
    assert torch.isfinite(gradient).all()


# ---------------------------------------------------------------------------------------------------------- noiseless


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [3, 5_000])
def test_a_noiseless_gaussian_may_have_fewer_directions_than_outputs(dtype: torch.dtype, width: int) -> None:
    """Outputs move together, each in its own unit: every block has rank one."""
    generator = torch.Generator().manual_seed(0)
    units = torch.tensor([1e-3, 1.0, 1e4], dtype=D)
    jacobian = torch.randn(2, 50, 1, width, generator=generator, dtype=D) * units[:, None]
    jacobian = jacobian.to(dtype).requires_grad_()
    columns = torch.diag(units.square()).to(dtype)
    predictive = _from_jacobian(torch.zeros(2, 50, 3, dtype=dtype), jacobian, columns).noiseless
    marginals = predictive.marginals
    share = 32 * 3 * torch.finfo(dtype).eps  # as the docstring says, of each output's own variance; twice for rounding
    torch.testing.assert_close(marginals.variance, predictive.variance, rtol=2.0 * share, atol=0.0)
    correlation = marginals.covariance_matrix / (predictive.stddev[..., :, None] * predictive.stddev[..., None, :])
    torch.testing.assert_close(correlation, torch.ones_like(correlation), rtol=2.0 * share, atol=0.0)
    (gradient,) = torch.autograd.grad(marginals.variance.log().sum(), jacobian)
    assert torch.isfinite(gradient).all()
    draws = predictive.sample((3,), torch.Generator().manual_seed(0)) / units.to(dtype) / math.sqrt(width)
    # 150 eigenvalues of the correlations that round to 1e-6 in float32 and 1e-15 in float64, and their roots
    assert (draws - draws[..., :1]).abs().max() < 40.0 * math.sqrt(torch.finfo(dtype).eps)


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_noiseless_gaussian_may_be_certain(outputs: int, dtype: torch.dtype) -> None:
    location = torch.tensor([[[1.5] * outputs] * 3], dtype=dtype)
    jacobian = torch.zeros(1, 3, outputs, 4, dtype=dtype, requires_grad=True)
    predictive = _from_jacobian(location, jacobian, torch.eye(outputs, dtype=dtype))
    assert (predictive.stddev == 1.0).all()
    assert torch.equal(predictive.marginals.variance.detach(), torch.ones(1, 3, outputs, dtype=dtype))  # nothing added
    certain = predictive.noiseless
    assert (certain.variance == 0.0).all()
    assert certain.marginals.stddev.max() < 1e-18
    assert torch.equal(certain.sample((2,)), location.expand(2, -1, -1, -1))
    draw = certain.marginals.rsample()
    torch.testing.assert_close(draw, location, rtol=0.0, atol=0.0)
    (gradient,) = torch.autograd.grad(draw.sum(), jacobian)
    assert torch.isfinite(gradient).all()
    with pytest.raises(InferenceError, match="expected a positive definite predictive covariance"):
        certain.log_prob(location)


def test_noise_is_not_repaired_in_silence() -> None:
    """A covariance that is wrong by more than rounding is refused, with noise and without."""
    full = _dense()
    wrong = full.blocks - 1e3 * torch.ones_like(full.blocks[0, 0])
    for noise in (1.0, 0.0):
        predictive = DenseGaussianPredictive(full.location, wrong, full.latent_covariance, full.noise_covariance, noise)
        with pytest.raises(InferenceError, match="predictive covariance of a point"):
            _ = predictive.marginals
