"""Priors against torch's and scipy's distributions, and against their own samples."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats

import bayesmeta as bm
from bayesmeta.errors import DataError, ShapeError, UnsupportedError
from bayesmeta.priors import FeatureCovariance

CLOSE = {"rtol": 1e-7, "atol": 1e-7}  # float64; learned variances feel their bounds by 1e-8 of their value
D = torch.float64
MEAN = {"weight": torch.arange(6.0).reshape(3, 2), "bias": torch.tensor(0.5)}


def _shaken(module: torch.nn.Module) -> torch.nn.Module:
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


@pytest.mark.parametrize(
    "make",
    [
        lambda: bm.priors.IsotropicGaussian(MEAN, 4.0),
        lambda: bm.priors.LayerwiseGaussian(MEAN, 4.0),
        lambda: bm.priors.FactoredGaussian(MEAN, 0.25),
        lambda: bm.priors.DiagonalGaussian(MEAN, 0.25),
    ],
)
def test_independent_gaussians(make: Callable[[], bm.priors.Prior]) -> None:
    prior = make().double()
    assert prior.mean["weight"].tolist() == MEAN["weight"].tolist()
    _shaken(prior)
    phi = {name: torch.randn(5, 2, *value.shape, dtype=D) for name, value in MEAN.items()}  # S = 5, B = 2
    expected = torch.zeros(5, 2, dtype=D)
    for name, variance in prior.variance().items():
        density = torch.distributions.Normal(prior.mean[name], variance.sqrt()).log_prob(phi[name])
        expected = expected + density.reshape(5, 2, -1).sum(-1)
    torch.testing.assert_close(prior.log_prob(phi), expected, **CLOSE)
    one_task = prior.log_prob({name: value[0] for name, value in phi.items()})
    torch.testing.assert_close(one_task, expected[0], **CLOSE)


def test_standard_normal_of_single_numbers() -> None:
    prior = bm.priors.StandardNormal({"intercept": (), "slopes": (2,)})
    phi = {"intercept": torch.randn(7, 3), "slopes": torch.randn(7, 3, 2)}
    everything = torch.cat([phi["intercept"][..., None], phi["slopes"]], -1)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(everything).sum(-1)
    torch.testing.assert_close(prior.log_prob(phi), expected)
    assert prior.sample(4)["intercept"].shape == (4,)


def test_starting_variances() -> None:
    for value in bm.priors.IsotropicGaussian(MEAN, precision=4.0).variance().values():
        assert math.isclose(value.item(), 0.25, rel_tol=1e-6)  # float32
    for kind in (bm.priors.LayerwiseGaussian, bm.priors.FactoredGaussian, bm.priors.DiagonalGaussian):
        for name, value in kind.around(MEAN, precision=4.0).variance().items():
            torch.testing.assert_close(value.expand(MEAN[name].shape), torch.full(MEAN[name].shape, 0.25))


def test_a_factored_gaussian_is_the_dense_one() -> None:
    """Its variances are outer products over the first axis and all others, also of a convolution's weight."""
    mean = {"kernel": torch.randn(3, 2, 2, 2), "bias": torch.randn(3)}
    prior = _shaken(bm.priors.FactoredGaussian(mean, 0.5))
    rows, columns = (prior.diagonal()["kernel"].rows, prior.diagonal()["kernel"].columns)
    assert rows.shape == (3,)
    assert columns.shape == (2, 2, 2)
    dense = torch.cat([torch.outer(rows, columns.flatten()).flatten(), prior.diagonal()["bias"]])
    phi = prior.sample(4)
    flat = torch.cat([phi["kernel"].flatten(1), phi["bias"]], 1)
    center = torch.cat([prior.mean["kernel"].flatten(), prior.mean["bias"]])
    expected = torch.distributions.MultivariateNormal(center, torch.diag(dense)).log_prob(flat)
    torch.testing.assert_close(prior.log_prob(phi), expected, **CLOSE)


def test_full_gaussian_is_scipys() -> None:
    prior = _shaken(bm.priors.FullGaussian(3, variance=2.0, name="w"))
    phi = {"w": torch.randn(4, 3, dtype=D)}
    covariance = prior.covariance.matrix().detach().numpy()
    expected = stats.multivariate_normal(prior.mean["w"].detach(), covariance).logpdf(phi["w"])
    np.testing.assert_allclose(prior.log_prob(phi).detach(), expected, rtol=1e-9)
    assert prior.log_prob({"w": torch.randn(7, 4, 3, dtype=D)}).shape == (7, 4)


def test_matrix_normal_is_scipys() -> None:
    prior = _shaken(bm.priors.MatrixNormal(bm.priors.FullCovariance(3), bm.noise.FullNoise(2)))
    weight = torch.randn(4, 3, 2, dtype=D)
    rows, columns = (c.detach().numpy() for c in (prior.covariance.matrix(), prior.noise.covariance()))
    expected = stats.matrix_normal(prior.location.detach(), rows, columns).logpdf(weight)
    np.testing.assert_allclose(prior.log_prob({"weight": weight}).detach(), expected, rtol=1e-9)


PRIORS: dict[str, Callable[[], bm.priors.Prior]] = {
    "isotropic": lambda: bm.priors.IsotropicGaussian({"w": torch.ones(2, 2)}, 0.5),
    "diagonal": lambda: bm.priors.DiagonalGaussian({"w": torch.ones(2, 2)}, 2.0),
    "full": lambda: bm.priors.FullGaussian(4, name="w"),
    "matrix normal": lambda: bm.priors.MatrixNormal(bm.priors.FullCovariance(2), bm.noise.FullNoise(2)),
}


@pytest.mark.parametrize("which", PRIORS)
def test_draws_have_the_moments_of_the_density(which: str) -> None:
    prior = _shaken(PRIORS[which]())
    generator = torch.Generator().manual_seed(0)
    before = torch.random.get_rng_state()
    draws = prior.sample(40_000, generator)
    assert torch.equal(torch.random.get_rng_state(), before)
    (name,) = draws
    flat, mean = draws[name].detach().flatten(1), prior.mean[name].detach().flatten()
    if which == "full":
        expected = prior.covariance.matrix()
    elif which == "matrix normal":
        expected = torch.kron(prior.covariance.matrix(), prior.noise.covariance())  # row-major: features, then outputs
    else:
        expected = torch.diag(prior.variance()[name].expand(2, 2).flatten())
    scale = expected.detach().diagonal().sqrt()
    assert ((flat.mean(0) - mean) / scale).abs().max() < 0.025  # five standard errors of a mean of 40,000
    assert ((torch.cov(flat.mT) - expected.detach()) / (scale * scale[:, None])).abs().max() < 0.03  # four errors
    again = prior.sample(3, torch.Generator().manual_seed(1))[name]
    assert torch.equal(again, prior.sample(3, torch.Generator().manual_seed(1))[name])


@pytest.mark.parametrize("which", PRIORS)
def test_densities_of_draws_in_another_precision(which: str) -> None:
    prior = PRIORS[which]()  # float32, as a learner is; draws of an exact posterior are float64
    (name,) = prior.mean
    draws = prior.sample(3)
    double = prior.log_prob({name: draws[name].double()})
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), prior.log_prob(draws), rtol=1e-5, atol=1e-5)  # float32 rounding


@pytest.mark.parametrize("which", PRIORS)
def test_wrong_phi_is_refused(which: str) -> None:
    prior = PRIORS[which]()
    (name,) = prior.mean
    with pytest.raises(ShapeError, match=f"phi with '{name}', got \\['other'\\]"):
        prior.log_prob({"other": torch.zeros(1, 2, 2)})
    with pytest.raises(ShapeError, match=rf"'{name}' of shape"):
        prior.log_prob({name: torch.zeros(5, 1)})  # would broadcast


# ------------------------------------------------------------------------------------------------------------- rows


@pytest.mark.parametrize(
    "make", [bm.priors.FullCovariance, bm.priors.DiagonalCovariance, bm.priors.IsotropicCovariance]
)
@pytest.mark.parametrize("varying", [None, [0, 1, 2, 3], [1, 3], [3, 0], [], np.array([2, 1])])
@pytest.mark.usefixtures("unchecked")
def test_factors(make: type[FeatureCovariance], varying: object) -> None:
    rows = _shaken(make(4, 2.0, varying))
    chosen = list(range(4)) if varying is None else [int(i) for i in varying]
    factor, covariance = rows.factor(), rows.matrix()
    assert factor.shape == (4, len(chosen))
    torch.testing.assert_close(covariance, factor @ factor.mT)
    inside = covariance[chosen][:, chosen]
    square = rows.square_factor()
    torch.testing.assert_close(inside, square @ square.mT)
    assert torch.equal(square, square.tril())
    if chosen:
        assert torch.linalg.eigvalsh(inside).min() > 0.0
    assert covariance.abs().sum() == inside.abs().sum()  # zero elsewhere
    off = inside - torch.diag(inside.diagonal())
    assert (off.abs().sum() > 0.0) == (make is bm.priors.FullCovariance and len(chosen) > 1)
    if make is bm.priors.IsotropicCovariance and chosen:
        assert inside.diagonal().unique().numel() == 1


def test_starting_covariance_is_the_variance_asked_for() -> None:
    for make in (bm.priors.FullCovariance, bm.priors.DiagonalCovariance, bm.priors.IsotropicCovariance):
        torch.testing.assert_close(make(3, 0.25).matrix(), 0.25 * torch.eye(3))


def test_a_prior_with_fixed_effects_samples_but_has_no_density() -> None:
    prior = _shaken(bm.priors.MatrixNormal(bm.priors.FullCovariance(3, varying=[0, 2])))
    draws = prior.sample(5)["weight"]
    assert torch.equal(draws[:, 1], prior.location[1].expand(5, -1))
    assert draws[:, 0].std() > 0.0
    with pytest.raises(UnsupportedError, match="no density"):
        prior.log_prob({"weight": draws})


def test_errors() -> None:
    for varying in ([0, 0], [3], [-1]):
        with pytest.raises(DataError, match="distinct feature positions from 0 to 2"):
            bm.priors.FullCovariance(3, varying=varying)
    for variance in (0.0, -1.0, math.inf, math.nan):
        for make in (bm.priors.FullCovariance, bm.priors.DiagonalCovariance, bm.priors.IsotropicCovariance):
            with pytest.raises(DataError, match="expected a positive variance"):
                make(3, variance)
    for make in (bm.priors.IsotropicGaussian, bm.priors.DiagonalGaussian):
        with pytest.raises(DataError, match="at least one named tensor"):
            make({})
        with pytest.raises(DataError, match="strictly between"):
            make(MEAN, -1.0)


@pytest.mark.parametrize(
    "make", [bm.priors.FullCovariance, bm.priors.DiagonalCovariance, bm.priors.IsotropicCovariance]
)
def test_rows_take_a_covariance(make: type[bm.priors.FullCovariance]) -> None:
    """Each type keeps what it can hold, over the features that vary, and refuses what is no covariance."""
    root = torch.randn(4, 4, dtype=torch.float64)
    covariance = root @ root.mT + torch.eye(4, dtype=torch.float64)
    rows = make(4, varying=[0, 2, 3]).double()
    rows.set_matrix(covariance)
    index = [0, 2, 3]
    wanted = torch.zeros(4, 4, dtype=torch.float64)
    block = covariance[index][:, index]
    if make is bm.priors.DiagonalCovariance:
        block = torch.diag(block.diagonal())
    elif make is bm.priors.IsotropicCovariance:
        block = block.diagonal().mean() * torch.eye(3, dtype=torch.float64)
    for i, a in enumerate(index):
        wanted[a, index] = block[i]
    torch.testing.assert_close(rows.matrix().detach(), wanted)  # default tolerances of float64: rounding only
    with pytest.raises(bm.InferenceError, match="positive definite prior covariance"):
        rows.set_matrix(-covariance)


@pytest.mark.parametrize("varying", [None, [2, 0]])
def test_a_covariance_that_is_singular(varying: list[int] | None) -> None:
    """Variances of zero and correlations of one are points like others, to and from V and its root."""
    chosen = [0, 1, 2] if varying is None else varying
    root = torch.randn(len(chosen), 1, dtype=D)
    for T in (root, torch.cat([root, 2.0 * root], 1), 0.0 * root):
        wanted = torch.zeros(3, 3, dtype=D)
        for i, a in enumerate(chosen):
            wanted[a, chosen] = (T @ T.mT)[i]
        for assign in ("root", "matrix"):
            rows = bm.priors.FullCovariance(3, varying=varying).double()
            rows.set_root(T) if assign == "root" else rows.set_matrix(wanted)
            torch.testing.assert_close(rows.matrix().detach(), wanted, rtol=1e-7, atol=1e-7)  # a root of rounding
            rows.matrix().sum().backward()
            assert all(p.grad.isfinite().all() for p in rows.parameters())


def test_a_deviation_may_have_any_sign() -> None:
    for make in (bm.priors.FullCovariance, bm.priors.DiagonalCovariance, bm.priors.IsotropicCovariance):
        rows = _shaken(make(3))
        before, prior = rows.matrix().detach().clone(), bm.priors.MatrixNormal(rows).double()
        weight = torch.randn(5, 3, 1, dtype=D)
        density = prior.log_prob({"weight": weight}).detach()
        with torch.no_grad():
            for parameter in rows.parameters():
                parameter.neg_()
        torch.testing.assert_close(rows.matrix().detach(), before)
        torch.testing.assert_close(prior.log_prob({"weight": weight}).detach(), density)


def test_a_singular_covariance_has_draws_and_no_density() -> None:
    prior, full = bm.priors.MatrixNormal(bm.priors.FullCovariance(2)), bm.priors.FullGaussian(2)
    root = torch.tensor([[1.0], [-2.0]])
    for each in (prior, full):
        each.covariance.set_root(root)
        (name,) = each.mean
        draws = each.sample(4)
        values = draws[name].reshape(4, 2)
        torch.testing.assert_close(values[:, 1], -2.0 * values[:, 0])
        with pytest.raises(UnsupportedError, match=r"singular .* no density over all of W"):
            each.log_prob(draws)
    learner = bm.ALPaCA(bm.Identity(1), covariance=prior.covariance)  # and a closed form needs none
    assert learner.adapt(bm.Data.from_arrays([0.0, 1.0], [1.0, 2.0])).predict([0.5]).stddev.isfinite().all()


def test_unit_bases_and_maps() -> None:
    """Features far from the origin, of any size: whitened where V is full, of unit size where it is not."""
    x = torch.linspace(0.0, 1.0, 50, dtype=D)
    design = torch.stack([torch.ones(50, dtype=D), 1e5 + 3.0 * x, 1e-9 * x.square(), torch.zeros(50, dtype=D)], 1)
    full = bm.priors.FullCovariance(4, varying=[0, 1, 2]).double()
    basis = full.unit_basis(design)
    white = design[:, :3] @ basis
    torch.testing.assert_close(white.mT @ white / 50.0, torch.eye(3, dtype=D), rtol=1e-2, atol=1e-2)
    assert torch.equal(basis, basis.tril())
    diagonal = bm.priors.DiagonalCovariance(4).double()
    sizes = (design @ diagonal.unit_basis(design)).square().mean(0)
    torch.testing.assert_close(sizes, torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=D))
    for rows in (full, diagonal, bm.priors.IsotropicCovariance(4).double()):
        basis = rows.unit_basis(design)
        ((parameter, follow),) = rows.unit_maps(basis, 2.0).items()
        free = torch.randn_like(parameter)
        with torch.no_grad():
            parameter.copy_(follow(free))
            factor = rows.square_factor()
            parameter.copy_(free)
            torch.testing.assert_close(factor, 2.0 * basis @ rows.square_factor())  # L = B L'
