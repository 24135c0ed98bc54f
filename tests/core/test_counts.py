"""Counts: distributions against scipy, whole quantiles, likelihoods against sums, scores against brute force."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

import bayesmeta as bm
from bayesmeta.count_distributions import NegativeBinomialCounts, PoissonCounts, smallest_count
from bayesmeta.evaluation import metrics
from bayesmeta.predictives import IndependentPredictive, MixturePredictive

COUNTS = torch.arange(-2.0, 60.0, dtype=torch.float64)
MEANS = torch.tensor([0.2, 3.0, 14.0], dtype=torch.float64)


def _pairs() -> list[tuple[torch.distributions.Distribution, list[stats.rv_discrete]]]:
    dispersion = 0.4
    logits = MEANS.log() + math.log(dispersion)
    poisson = PoissonCounts(MEANS), [stats.poisson(m) for m in MEANS.tolist()]
    size = 1.0 / dispersion
    binomial = (
        NegativeBinomialCounts(torch.full_like(MEANS, size), logits=logits),
        [stats.nbinom(size, size / (size + m)) for m in MEANS.tolist()],
    )
    return [poisson, binomial]


@pytest.mark.parametrize(("ours", "theirs"), _pairs(), ids=["poisson", "negative binomial"])
def test_distributions_are_scipys(ours: torch.distributions.Distribution, theirs: list[stats.rv_discrete]) -> None:
    at = COUNTS[:, None].expand(-1, 3)
    cdf = np.stack([each.cdf(COUNTS.numpy()) for each in theirs], -1)
    np.testing.assert_allclose(ours.cdf(at), cdf, atol=1e-12)
    pmf = np.stack([each.logpmf(COUNTS.clamp(min=0).numpy()) for each in theirs], -1)
    np.testing.assert_allclose(ours.log_prob(at.clamp(min=0.0)), pmf, rtol=1e-9)
    for q in (0.001, 0.05, 0.5, 0.95, 0.9999):
        found = smallest_count(ours.cdf, ours.mean, ours.variance, q)
        np.testing.assert_array_equal(found, [each.ppf(q) for each in theirs])


@pytest.mark.parametrize("likelihood", [bm.likelihoods.Poisson(), bm.likelihoods.NegativeBinomial()])
def test_curvature_is_the_fisher_information(likelihood: bm.likelihoods.Likelihood) -> None:
    f = MEANS.log()[None, :, None].requires_grad_()
    distribution = likelihood.double()(f)
    total = torch.zeros(1, 3, 1, dtype=torch.float64)
    for k in range(400):
        log_prob = distribution.log_prob(torch.full_like(f, float(k)))
        (slope,) = torch.autograd.grad(log_prob.sum(), f, retain_graph=True)
        total += log_prob.detach().exp()[..., None] * slope.square()
    root = likelihood.curvature_root(f.detach())
    torch.testing.assert_close((root @ root.mT)[..., 0], total, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("likelihood", [bm.likelihoods.Poisson(2), bm.likelihoods.NegativeBinomial(2)])
def test_marginals_average_over_f(likelihood: bm.likelihoods.Likelihood) -> None:
    """Two outputs; against a fine grid, means and densities."""
    mean = torch.tensor([[[0.5, 1.5]]], dtype=torch.float64)
    variance = torch.tensor([[[0.3, 0.0]]], dtype=torch.float64)
    found = IndependentPredictive(likelihood.double().marginal(mean, variance))
    torch.testing.assert_close(found.mean, (mean + 0.5 * variance).exp(), rtol=1e-6, atol=1e-9)
    z = torch.linspace(-9.0, 9.0, 2001, dtype=torch.float64)
    weights = (-0.5 * z.square()).exp() / math.sqrt(2.0 * math.pi) * (z[1] - z[0])
    y = torch.tensor([[[4.0, 2.0]]], dtype=torch.float64)
    each = likelihood(mean + variance.sqrt() * z[:, None, None, None]).base_dist.log_prob(y)  # S 1 1 2
    truth = (each + weights.log()[:, None, None, None]).logsumexp(0)
    torch.testing.assert_close(found.output_log_prob(y), truth, rtol=1e-6, atol=1e-8)
    lower, upper = found.interval(0.8)
    assert torch.equal(lower, lower.round())
    held = found.cdf(upper) - found.cdf(lower - 1.0)
    inner = found.cdf(upper - 1.0) - found.cdf(lower - 1.0)
    assert bool((held >= 0.8).all())
    assert bool((inner < 0.9).all())  # no wider than it has to be: the upper quantile is the smallest


def test_mixtures_of_counts_have_whole_quantiles() -> None:
    rates = torch.tensor([2.0, 9.0], dtype=torch.float64).reshape(2, 1, 1)
    parts = IndependentPredictive(torch.distributions.Independent(PoissonCounts(rates), 1))
    mixture = MixturePredictive(torch.zeros(1, 2, dtype=torch.float64), parts)
    assert mixture.of_counts
    table = 0.5 * (stats.poisson(2.0).cdf(np.arange(40)) + stats.poisson(9.0).cdf(np.arange(40)))
    for q in (0.05, 0.5, 0.95):
        assert mixture.quantile(q).item() == np.argmax(table >= q)
        assert torch.equal(
            bm.predictives.EnsemblePredictive(torch.zeros(1, 1), (mixture,)).quantile(q), mixture.quantile(q)
        )
    draws = mixture.sample(4000, torch.Generator().manual_seed(0))
    assert abs(draws.mean().item() - 5.5) < 0.3  # deviation 4.2 / √4000 = .07


def test_scores_of_counts_are_those_of_brute_force() -> None:
    likelihood = bm.likelihoods.NegativeBinomial(initial_dispersion=0.3).double()
    for mean, tolerance in ((3.0, 1e-6), (2000.0, 1e-3)):  # large counts are integrated, F being smooth there
        y = torch.tensor([0.0, 2.0, mean, 3.0 * mean], dtype=torch.float64)[None, :, None]
        predictive = IndependentPredictive(likelihood(torch.full_like(y, mean).log()))
        k = np.arange(60_000)
        size = 1.0 / 0.3
        cdf = stats.nbinom(size, size / (size + mean)).cdf(k)
        truth = [((cdf - (value <= k)) ** 2).sum() for value in y.flatten().tolist()]
        assert metrics.crps(predictive, y).item() == pytest.approx(np.mean(truth), rel=tolerance)


def test_the_right_model_is_calibrated() -> None:
    """Counts near 1, where an interval with whole ends holds far more than its level."""
    rates = torch.rand(200, 20, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2.0
    predictive = IndependentPredictive(torch.distributions.Independent(PoissonCounts(rates), 1))
    y = predictive.sample((), torch.Generator().manual_seed(1))
    pit = metrics.pit(predictive, y)
    assert torch.equal(pit, metrics.pit(predictive, y))  # the same at every call
    assert stats.kstest(pit.flatten(), "uniform").pvalue > 0.01
    assert abs(metrics.coverage(predictive, y, level=0.9).mean().item() - 0.9) < 0.015  # 3 √(.09 / 4000)
    lower, upper = predictive.interval(0.9)
    assert ((y >= lower) & (y <= upper)).double().mean() > 0.93


@pytest.mark.parametrize("y", [[1.5], [-1.0]])
def test_what_is_no_count_is_refused(y: list[float]) -> None:
    learner = bm.MAML(bm.MLP(1, [4]), likelihood=bm.likelihoods.Poisson())
    with pytest.raises(bm.DataError, match=r"expected counts \(whole numbers from 0\) as outcomes of MAML, got"):
        learner.adapt(bm.Data.from_arrays([0.0], y))


def test_a_network_of_counts_learns_and_padding_says_nothing() -> None:
    torch.manual_seed(0)
    learner = bm.Standardized(bm.MAML(bm.MLP(1, [8]), likelihood=bm.likelihoods.NegativeBinomial(), steps=2))
    x = torch.linspace(-1.0, 1.0, 6)
    rates = torch.tensor([1.0, 3.0, 8.0])[:, None] * (0.5 * x).exp()
    y = torch.poisson(rates, torch.Generator().manual_seed(0))
    tasks = bm.TaskDataset.from_list([(x, row) for row in y])
    result = bm.fit(learner, tasks, steps=90, progress=False)
    assert np.mean(result.losses[-20:]) < np.mean(result.losses[:20])
    assert learner.y_scale.item() == 1.0  # counts have no unit
    assert learner.outcomes == bm.tasks.Counts(1)
