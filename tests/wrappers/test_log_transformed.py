"""Positive outcomes: densities with the Jacobian, moments, quantiles and scores, against closed forms and draws."""

import math

import pytest
import torch
from scipy import stats

import bayesmeta as bm
from bayesmeta.evaluation import metrics
from bayesmeta.predictives import ExponentialPredictive, IndependentPredictive, MixturePredictive
from bayesmeta.wrappers import LogTransformed

D = torch.float64


def _gaussians(mean: list[float], stddev: list[float]) -> IndependentPredictive:
    normal = torch.distributions.Normal(
        torch.tensor(mean, dtype=D)[:, None, None], torch.tensor(stddev, dtype=D)[:, None, None]
    )
    return IndependentPredictive(torch.distributions.Independent(normal, 1))


def test_a_gaussian_logarithm_is_log_normal() -> None:
    predictive = ExponentialPredictive(_gaussians([0.3], [0.8]))
    truth = stats.lognorm(0.8, scale=math.exp(0.3))
    y = torch.full((1, 1, 1), 2.5, dtype=D)
    assert predictive.log_prob(y).item() == pytest.approx(truth.logpdf(2.5))
    assert predictive.cdf(y).item() == pytest.approx(truth.cdf(2.5))
    assert predictive.mean.item() == pytest.approx(truth.mean())
    assert predictive.stddev.item() == pytest.approx(truth.std())
    assert predictive.quantile(0.9).item() == pytest.approx(truth.ppf(0.9))
    assert predictive.log_prob(-y).item() == -math.inf
    assert predictive.cdf(-y).item() == 0.0
    assert not predictive.of_counts
    draws = predictive.sample(20_000, torch.Generator().manual_seed(0))
    assert draws.log().mean().item() == pytest.approx(0.3, abs=0.03)  # .8 / √20,000 = .006
    # CRPS of a log-normal (Baran & Lerch 2015): y (2 F(y) - 1) - 2 e^(m + s²/2) (Φ(w - s) + Φ(s / √2) - 1)
    w, normal = (math.log(2.5) - 0.3) / 0.8, stats.norm.cdf
    crps = 2.5 * (2.0 * normal(w) - 1.0) - 2.0 * truth.mean() * (normal(w - 0.8) + normal(0.8 / math.sqrt(2.0)) - 1.0)
    assert metrics.crps(predictive, y).item() == pytest.approx(crps, rel=1e-5)


def test_moments_of_mixtures_and_of_heavy_tails() -> None:
    mixture = MixturePredictive(torch.tensor([[0.25, 0.75]], dtype=D).log(), _gaussians([0.0, 1.0], [0.5, 0.2]))
    moved = bm.predictives.AffinePredictive(mixture, torch.tensor([2.0], dtype=D), torch.tensor([0.5], dtype=D))
    each = [stats.lognorm(0.25, scale=math.exp(2.0)), stats.lognorm(0.1, scale=math.exp(2.5))]
    predictive = ExponentialPredictive(moved)
    mean = 0.25 * each[0].mean() + 0.75 * each[1].mean()
    second = 0.25 * each[0].moment(2) + 0.75 * each[1].moment(2)
    assert predictive.mean.item() == pytest.approx(mean)
    assert predictive.variance.item() == pytest.approx(second - mean**2)
    t = torch.distributions.StudentT(torch.full((1, 1, 1), 5.0, dtype=D))
    heavy = ExponentialPredictive(IndependentPredictive(torch.distributions.Independent(t, 1)))
    assert heavy.mean.item() == math.inf
    assert heavy.quantile(0.5).item() == pytest.approx(1.0)


def test_the_evidence_is_a_density_of_the_outcomes() -> None:
    """As a product of predictives, one point after the other; and as that of logarithms, without the Jacobian."""
    torch.manual_seed(0)
    inner = bm.ALPaCA(bm.Identity(1)).double()
    learner = LogTransformed(inner)
    data = bm.Data.from_arrays([0.0, 1.0, 2.0], [1.0, 2.5, 0.4])
    empty = learner.adapt(bm.Data.from_arrays([], []))
    total, posterior = 0.0, empty
    for i in range(3):
        point = data.points(slice(i, i + 1))
        total += posterior.predict(point.x).log_prob(point.y.double()).item()
        posterior = posterior.update(point)
    assert learner.log_evidence(data).item() == pytest.approx(total)
    logs = bm.Data(data.x, data.y.log(), data.mask)
    assert learner.log_evidence(data).item() == pytest.approx(
        inner.log_evidence(logs).item() - data.y.double().log().sum().item()
    )
    assert learner.joint_evidence(learner.conform(data)).item() == pytest.approx(total)


@pytest.mark.parametrize(
    "make",
    [
        lambda: bm.MAML(bm.MLP(1, [4]), likelihood=bm.likelihoods.Categorical(2)),
        lambda: bm.MAML(bm.MLP(1, [4]), likelihood=bm.likelihoods.Poisson()),
        lambda: LogTransformed(bm.ALPaCA(bm.Identity(1))),
    ],
    ids=["labels", "counts", "positive"],
)
def test_only_numbers_have_a_logarithm(make) -> None:
    with pytest.raises(bm.DataError, match="expected a learner of numbers"):
        LogTransformed(make())


def test_deviations_of_positive_outcomes_are_scaled_inside() -> None:
    with pytest.raises(bm.UnsupportedError, match="expected outcomes that may be any number"):
        bm.wrappers.VarianceScaled(LogTransformed(bm.ALPaCA(bm.Identity(1))))
    LogTransformed(bm.wrappers.VarianceScaled(bm.ALPaCA(bm.Identity(1))))
