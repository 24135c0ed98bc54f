"""Distances of posteriors whose distance has a closed form."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    StudentT,
    kl_divergence,
)

import bayesmeta as bm
from bayesmeta.checks.reference import fidelity, sliced_wasserstein
from bayesmeta.data import Data, DataSpec
from bayesmeta.errors import DataError, ShapeError, UnsupportedError
from bayesmeta.learner import TaskPosterior
from bayesmeta.predictives import IndependentPredictive, Predictive
from bayesmeta.typing import Params

SPEC = DataSpec(3, (1,), (1,), torch.float64, torch.device("cpu"))
X = torch.linspace(-1.0, 1.0, 4, dtype=torch.float64)[None, :, None].expand(3, -1, -1)


@dataclass(frozen=True, eq=False, kw_only=True)
class Known(TaskPosterior):
    """phi ~ N(mean, diag(scale²)) in tensors of two shapes, and any predictive."""

    mean: Tensor  # P
    scale: Tensor
    predictive: Callable[[Tensor], Distribution] = lambda x: Independent(Normal(x, torch.ones_like(x)), 1)
    names: tuple[str, str] = ("a", "b")

    def sample(self, num_draws: int, generator: torch.Generator | None = None) -> Params:
        normal = torch.randn(num_draws, 3, len(self.mean), generator=generator, dtype=torch.float64)
        flat = self.mean + self.scale * normal
        return {self.names[0]: flat[..., 0], self.names[1]: flat[..., 1:].unflatten(-1, (-1, 1))}

    def at(self, x: Tensor) -> Predictive:
        return IndependentPredictive(self.predictive(x))

    def extended(self, data: Data) -> "Known":
        raise NotImplementedError


def known(mean: list[float], scale: list[float]) -> Known:
    return Known(
        spec=SPEC, mean=torch.tensor(mean, dtype=torch.float64), scale=torch.tensor(scale, dtype=torch.float64)
    )


def predicting(predictive: Callable[[Tensor], Distribution]) -> Known:
    zero, one = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    return Known(spec=SPEC, mean=zero, scale=one, predictive=predictive)


def normal(shift: float, scale: float) -> Callable[[Tensor], Distribution]:
    return lambda x: Independent(Normal(x + shift, scale * torch.ones_like(x)), 1)


REFERENCE = known([1.0, -2.0, 0.0], [0.5, 3.0, 1.0])


def test_a_posterior_is_at_no_distance_from_itself() -> None:
    found = fidelity(REFERENCE, REFERENCE, X, num_draws=4000)
    phi = found.parameters
    assert phi is not None
    assert phi.names == ("a", "b[0,0]", "b[1,0]")
    assert float(found.predictive_kl.abs().max()) < 1e-12
    assert float(phi.mean_error.abs().max()) < 4.5 * (1.5 / 4000) ** 0.5  # of 9 numbers, 4,000 against 8,000 draws
    assert float(phi.log_scale.abs().max()) < 4.5 * (0.75 / 4000) ** 0.5
    torch.testing.assert_close(phi.sliced_wasserstein, phi.sliced_wasserstein_floor, atol=0.02, rtol=0.0)
    assert float(phi.sliced_wasserstein_floor.max()) < 2.0 * (2.0 * math.log(math.log(4000)) / 4000) ** 0.5


def test_mean_and_scale_errors_are_in_deviations_of_the_reference() -> None:
    other = known([1.5, -2.0, 0.0], [0.5, 1.5, 2.0])  # one deviation too high; half as wide; twice as wide
    phi = fidelity(other, REFERENCE, X, num_draws=20000, num_projections=1).parameters
    assert phi is not None
    expected = torch.tensor([[1.0, 0.0, 0.0], [0.0, -math.log(2.0), math.log(2.0)]], dtype=torch.float64)
    torch.testing.assert_close(phi.mean_error, expected[:1].expand(3, -1), atol=0.05, rtol=0.0)
    torch.testing.assert_close(phi.log_scale, expected[1:].expand(3, -1), atol=0.03, rtol=0.0)


def test_sliced_wasserstein_of_a_shift_and_of_a_scale() -> None:
    """In units of deviations: |shift| / √P, and for N(0, s² I) the difference of deviations."""
    mean, scale = REFERENCE.mean, REFERENCE.scale
    shift = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    shifted = fidelity(known((mean + shift * scale).tolist(), scale.tolist()), REFERENCE, X, num_draws=4000)
    scaled = fidelity(known(mean.tolist(), (1.7 * scale).tolist()), REFERENCE, X, num_draws=4000)
    for found, expected in ((shifted, float(shift.norm()) / 3**0.5), (scaled, 0.7)):
        assert found.parameters is not None
        distance = found.parameters.sliced_wasserstein
        torch.testing.assert_close(distance, torch.full_like(distance, expected), atol=0.0, rtol=0.05)


def test_sliced_wasserstein_in_one_dimension_is_that_of_the_order_statistics() -> None:
    a = torch.randn(200, 2, 1, dtype=torch.float64)
    b = a[torch.randperm(200)] * 1.5 + 2.0
    exact = (0.25 * a.var(0, correction=0) + (0.5 * a.mean(0) + 2.0) ** 2).sqrt()[:, 0]  # of the map a -> 1.5 a + 2
    torch.testing.assert_close(sliced_wasserstein(a, b, 3), exact)


@pytest.mark.usefixtures("unchecked")
def test_sliced_wasserstein_wants_equal_shapes() -> None:
    with pytest.raises(ShapeError, match="expected as many draws"):
        sliced_wasserstein(torch.zeros(3, 2, 1), torch.zeros(4, 2, 1))


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.5, 1.0), (0.0, 0.3), (-2.0, 4.0), (0.001, 1.0)])
def test_predictive_kl_of_gaussians(shift: float, scale: float) -> None:
    """KL(N(x, 1) ‖ N(x + shift, scale²))."""
    found = fidelity(predicting(normal(shift, scale)), predicting(normal(0.0, 1.0)), X, num_draws=2)
    exact = math.log(scale) + (1.0 + shift**2) / (2.0 * scale**2) - 0.5
    torch.testing.assert_close(found.predictive_kl, torch.full((3, 4), exact).double(), atol=1e-9, rtol=1e-6)
    assert float(found.predictive_kl_error.max()) < 1e-4


def test_predictive_kl_of_narrow_mixtures() -> None:
    """Two spikes far apart, on which a coarse quadrature would have no node: and other shares of them."""

    def spikes(weight: float) -> Callable[[Tensor], Distribution]:
        def distribution(x: Tensor) -> Distribution:
            places = torch.stack([x - 1.0, x + 1.0], -2)  # B M 2 1
            mixing = Categorical(torch.tensor([weight, 1.0 - weight]).double().expand(*x.shape[:2], 2))
            return MixtureSameFamily(mixing, Independent(Normal(places, torch.full_like(places, 1e-3)), 1))

        return distribution

    found = fidelity(predicting(spikes(0.5)), predicting(spikes(0.9)), X, num_draws=2).predictive_kl
    exact = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    torch.testing.assert_close(found, torch.full((3, 4), exact).double(), atol=1e-7, rtol=1e-5)


def test_predictive_kl_with_heavy_tails() -> None:
    """Student's t against a Gaussian, by a sum over a far longer and finer line."""
    heavy = predicting(lambda x: Independent(StudentT(torch.full_like(x, 5.0), x, torch.ones_like(x)), 1))
    found = fidelity(predicting(normal(0.0, 1.3)), heavy, X, num_draws=2).predictive_kl
    y = torch.linspace(-3000.0, 3000.0, 2_000_001, dtype=torch.float64)
    p, q = StudentT(torch.tensor(5.0, dtype=torch.float64)).log_prob(y), Normal(0.0, 1.3).log_prob(y)
    exact = float((p.exp() * (p - q)).sum() * (y[1] - y[0]))
    torch.testing.assert_close(found, torch.full((3, 4), exact).double(), atol=0.0, rtol=1e-3)


def test_predictive_kl_of_classes_is_a_sum() -> None:
    p, q = torch.tensor([0.7, 0.2, 0.1]).double(), torch.tensor([0.5, 0.25, 0.25]).double()

    def labels(probs: Tensor) -> Known:
        return predicting(lambda x: Categorical(probs.expand(*x.shape[:2], 3)))

    found = fidelity(labels(q), labels(p), X, num_draws=2)
    exact = float(kl_divergence(Categorical(p), Categorical(q)))
    torch.testing.assert_close(found.predictive_kl, torch.full((3, 4), exact).double())
    assert float(found.predictive_kl_error.max()) == 0.0


def test_predictive_kl_of_several_outputs_is_by_draws() -> None:
    covariance = torch.tensor([[1.0, 0.5], [0.5, 2.0]]).double()
    p = MultivariateNormal(torch.zeros(2).double(), covariance)
    q = MultivariateNormal(torch.tensor([0.5, 0.0]).double(), torch.eye(2).double())

    def pair(distribution: MultivariateNormal) -> Known:
        return predicting(lambda x: distribution.expand(x.shape[:2]))

    found = fidelity(pair(q), pair(p), X, num_draws=4000)
    error = (found.predictive_kl - float(kl_divergence(p, q))).abs() / found.predictive_kl_error
    assert float(error.max()) < 4.0
    assert float(found.predictive_kl_error.max()) < 0.05


def test_a_number_without_a_deviation_is_not_compared() -> None:
    reference = known([1.0, 5.0, 0.0], [0.5, 0.0, 1.0])
    found = fidelity(known([1.0, 5.0, 1.0], [0.5, 0.0, 1.0]), reference, X, num_draws=4000)
    assert found.parameters is not None
    assert found.parameters.mean_error[:, 1].isnan().all()
    assert found.parameters.log_scale[:, 1].isnan().all()
    row = found.table().iloc[0]
    assert row["mean_error"] == pytest.approx(0.5**0.5, abs=0.05)  # of the two others
    assert row["mean_error_max"] == pytest.approx(1.0, abs=0.1)
    assert row["sliced_wasserstein"] == pytest.approx(1.0 / 3**0.5, abs=0.06)


def _tasks(num_tasks: int = 3, labels: bool = False) -> Data:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(num_tasks, 5, 1, generator=generator).double()
    y = (x[..., 0] > 0).long() if labels else torch.sin(x) + 0.1 * torch.randn(x.shape, generator=generator)
    return Data(x, y, torch.ones(num_tasks, 5, dtype=torch.bool))


def test_laplace_is_exact_where_f_is_linear_in_phi_and_a_point_is_not() -> None:
    """ALPaCA's posterior of a last layer, next to those of iMAML with the same model."""
    features = bm.MLP(1, [6])
    network = features.with_outputs(1)
    with torch.no_grad():
        network.output.weight.zero_()
        network.output.bias.zero_()
    noise = bm.likelihoods.Gaussian(bm.noise.DiagonalNoise(1, 0.04))
    data = _tasks()

    def learner(posterior: bm.PointEstimate | bm.Linearized) -> bm.Learner:
        return bm.IMAML(
            network,
            precision=1.0,
            solver=bm.inference.LBFGS(100, 1e-10),
            likelihood=noise,
            posterior=posterior,
            adapted=["output.weight"],
            solve_tolerance=1e-10,
        ).double()

    exact = bm.R2D2Regressor(features, ridge=0.04, noise=bm.noise.DiagonalNoise(1, 0.04)).double().adapt(data)
    laplace, diagonal, point = (
        fidelity(learner(posterior).adapt(data), exact_named(exact), X)
        for posterior in (bm.Linearized(), bm.LinearizedDiagonal(), bm.PointEstimate())
    )
    assert float(laplace.predictive_kl.max()) < 1e-6
    assert laplace.parameters is not None
    assert diagonal.parameters is not None
    assert float(laplace.parameters.mean_error.abs().max()) < 0.2
    assert float(diagonal.predictive_kl.mean()) > 1e-3
    assert point.parameters is None
    assert float(point.predictive_kl.mean()) > 1e-3
    assert list(point.table().columns) == ["predictive_kl", "predictive_kl_max"]
    assert "sliced_wasserstein" in str(laplace)
    assert "sliced_wasserstein" not in str(point)


@dataclass(frozen=True, eq=False, kw_only=True)
class Renamed(TaskPosterior):
    inner: TaskPosterior

    def sample(self, num_draws: int, generator: torch.Generator | None = None) -> Params:
        return {"output.weight": self.inner.sample(num_draws, generator)["weight"].mT}

    def at(self, x: Tensor) -> Predictive:
        return self.inner.predict(x)

    def extended(self, data: Data) -> "Renamed":
        raise NotImplementedError


def exact_named(posterior: TaskPosterior) -> Renamed:
    """The posterior of W `F C` as one of a dense layer's weight `C F`."""
    return Renamed(spec=posterior.spec, inner=posterior)


def test_particles_are_compared_like_draws() -> None:
    learner = bm.BMAML(bm.MLP(1, [3]), num_particles=2).double()
    found = fidelity(learner.adapt(_tasks()), bm.IMAML(learner.network).double().adapt(_tasks()), X, num_draws=200)
    assert found.parameters is not None
    assert torch.isfinite(found.predictive_kl).all()
    assert len(found.parameters.names) == 10


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(DataError, match="at least 2 draws"):
        fidelity(REFERENCE, REFERENCE, X, num_draws=1)
    other = Known(spec=SPEC, mean=REFERENCE.mean, scale=REFERENCE.scale, names=("a", "c"))
    with pytest.raises(ShapeError, match="of the same phi"):
        fidelity(other, REFERENCE, X)
    two = bm.ALPaCA(bm.MLP(1, [3])).adapt(_tasks(2))
    with pytest.raises(ShapeError, match="expected x of shape"):
        fidelity(two, REFERENCE, X)
    classes = bm.LRD2(bm.MLP(1, [3]), num_classes=2).adapt(_tasks(labels=True))
    with pytest.raises(ShapeError, match="predictives of one shape"):
        fidelity(classes, REFERENCE, X)
    point = bm.IMAML(bm.MLP(1, [3]), posterior=bm.PointEstimate()).adapt(_tasks())
    with pytest.raises(UnsupportedError, match="no draws of phi"):
        fidelity(REFERENCE, point, X)
