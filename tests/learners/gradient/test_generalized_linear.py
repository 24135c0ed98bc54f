"""Generalised linear mixed models against brute-force quadrature and fits of lme4 that were published."""

import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import bayesmeta as bm
from bayesmeta.learners import AdaptiveQuadrature, GeneralizedLinearMixedModel, WeightedDraws

DATA = Path(os.environ.get("BAYESMETA_DATA", "/nowhere"))


def _counts(seed: int = 0, tasks: int = 20) -> tuple[bm.TaskDataset, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = np.tile(np.arange(4.0), (tasks, 1))
    mean = np.exp(1.0 - 0.1 * x + rng.normal(0.0, 0.6, (tasks, 1)))
    y = rng.poisson(rng.gamma(4.0, mean / 4.0)).astype(float)
    return bm.TaskDataset.from_list(list(zip(x, y, strict=True))), x, y


@pytest.mark.parametrize(
    "likelihood", [bm.likelihoods.Poisson(), bm.likelihoods.NegativeBinomial()], ids=["poisson", "negative binomial"]
)
def test_the_evidence_of_counts_is_the_integral(likelihood: bm.likelihoods.Likelihood) -> None:
    tasks, x, y = _counts()
    covariance = bm.priors.FullCovariance(2, varying=[0])
    learner = GeneralizedLinearMixedModel(bm.Identity(1), likelihood=likelihood, covariance=covariance).double()
    result = bm.fit_evidence(learner, tasks)
    assert result.stopped_early
    location, deviation = learner.network.location.detach().numpy()[:, 0], learner.covariance.lower.item()
    z = np.linspace(-8.0, 8.0, 2001)
    f = (location[0] + location[1] * x)[:, :, None] + deviation * z
    if isinstance(likelihood, bm.likelihoods.NegativeBinomial):
        size = 1.0 / likelihood.dispersion().item()
        each = stats.nbinom.logpmf(y[:, :, None], size, size / (size + np.exp(f)))
    else:
        each = stats.poisson.logpmf(y[:, :, None], np.exp(f))
    truth = np.log(np.trapezoid(np.exp(each.sum(1) + stats.norm.logpdf(z)), z, axis=1))
    np.testing.assert_allclose(
        learner.log_evidence(tasks.data).detach(), truth, atol=1e-8
    )  # 40 nodes of a smooth integrand
    learner.nodes = 1  # Laplace's approximation
    np.testing.assert_allclose(learner.log_evidence(tasks.data).detach(), truth, atol=0.05)


@pytest.mark.parametrize("posterior", [AdaptiveQuadrature(40), WeightedDraws(4096)], ids=["nodes", "draws"])
def test_predictions_are_the_integral(posterior: bm.learners.Approximation) -> None:
    """p(y = 1 | x, D) of a random-intercept logistic model with a large deviation, against a fine grid."""
    learner = GeneralizedLinearMixedModel(bm.Identity(0), likelihood=bm.likelihoods.Bernoulli(), posterior=posterior)
    learner = learner.double()
    with torch.no_grad():
        learner.network.location.fill_(-1.0)
        learner.covariance.set_matrix(torch.tensor([[16.0]]))
    z = torch.linspace(-9.0, 9.0, 4001, dtype=torch.float64)
    for labels in ([], [1], [0, 0, 1], [1, 1, 1, 1, 1]):
        p = torch.sigmoid(-1.0 + 4.0 * z)
        weight = (-0.5 * z.square()).exp()
        for label in labels:
            weight = weight * (p if label else 1.0 - p)
        truth = (weight * p).sum() / weight.sum()
        data = bm.Data.from_labels(torch.zeros(len(labels), 0), labels)
        found = learner.adapt(data).predict(torch.zeros(1, 1, 0)).probs[0, 0, 1]
        # nodes around the mode of a skew posterior, and draws: three digits
        assert found.item() == pytest.approx(truth.item(), abs=3e-3)


def test_the_mode_is_one_and_its_gradient_is_that_of_finite_differences() -> None:
    """Two effects; 9 nodes along each."""
    tasks, _, _ = _counts(tasks=6)
    learner = GeneralizedLinearMixedModel(bm.Identity(1), likelihood=bm.likelihoods.NegativeBinomial()).double()
    learner.prepare(tasks.data)
    data = learner.conform(tasks.data)
    (phi,) = learner.mode(data).values()
    assert learner.hessian(data, {"effects": phi}).shape == (6, 2, 2)
    leaf = phi.detach().requires_grad_()
    (slope,) = torch.autograd.grad(learner.joint(data)({"effects": leaf}).sum(), leaf)
    assert slope.abs().max() < 1e-6
    learner.log_evidence(tasks.data).sum().backward()
    for parameter in learner.parameters():
        direction, ends = torch.ones_like(parameter), []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                parameter.add_(step * direction)
                ends.append(learner.log_evidence(tasks.data).sum().item())
                parameter.sub_(step * direction)
        assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(parameter.grad.sum().item(), rel=1e-5, abs=1e-6)


def test_too_few_steps_are_warned_of() -> None:
    learner = GeneralizedLinearMixedModel(bm.Identity(0), likelihood=bm.likelihoods.Poisson(), steps=1).double()
    with pytest.warns(bm.ConvergenceWarning, match="stopped short of the mode in 1 of 1 tasks"):
        learner.adapt(bm.Data.from_arrays(torch.zeros(3, 0), [200.0, 210.0, 190.0]))


def test_classes_begin_at_their_frequencies() -> None:
    labels = [[0, 0, 2, 1], [0, 0, 0, 2], [0, 1, 0, 0]]
    tasks = bm.TaskDataset.from_labels([(torch.zeros(4, 0), row) for row in labels])
    learner = GeneralizedLinearMixedModel(bm.Identity(0), likelihood=bm.likelihoods.Categorical(3)).double()
    learner.prepare(tasks.data)
    counts = torch.tensor([8.5, 2.5, 2.5], dtype=torch.float64)
    torch.testing.assert_close(learner.network.location[0].detach().softmax(-1), counts / counts.sum())
    assert isinstance(learner.posterior, WeightedDraws)  # three effects of a task


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"covariance": bm.priors.FullCovariance(3)}, "expected a covariance over 2 features, got one over 3"),
        ({"nodes": 100}, "expected at most 4096 quadrature nodes, got 100 along each of 2 effects"),
        ({"covariance": bm.priors.FullCovariance(2, varying=[])}, "expected a feature whose weight differs"),
        ({"steps": 0}, "expected at least one step"),
    ],
)
def test_what_cannot_be_made(arguments: dict, message: str) -> None:
    with pytest.raises(bm.DataError, match=message):
        GeneralizedLinearMixedModel(bm.Identity(1), likelihood=bm.likelihoods.Bernoulli(), **arguments)


@pytest.mark.data
@pytest.mark.skipif(not (DATA / "toenail").exists(), reason="needs BAYESMETA_DATA")
@pytest.mark.parametrize("nodes", [1, 50])
def test_toenail_against_a_fine_grid_over_the_intercept(nodes: int) -> None:
    frame = pd.read_csv(DATA / "toenail" / "toenail.csv")
    frame["drug"] = (frame.treatment == "terbinafine").astype(float)
    frame["both"] = frame.drug * frame.time
    frame["ill"] = (frame.outcome == "moderate or severe").astype(int)
    tasks = bm.TaskDataset.from_frame(frame, task="task", x=["drug", "time", "both"], y=["ill"], outcomes=bm.Labels(2))
    covariance = bm.priors.FullCovariance(4, varying=[0])
    learner = GeneralizedLinearMixedModel(
        bm.Identity(3), likelihood=bm.likelihoods.Bernoulli(), covariance=covariance, nodes=nodes
    ).double()
    bm.fit_evidence(learner, tasks)
    weights, deviation = learner.network.location.detach()[:, 0], learner.covariance.lower.detach().abs().item()
    # log sum_i p(b_i) Π_n p(y_n | b_i) db, on a grid of 4,001 intercepts within 12 deviations
    grid = torch.linspace(-12.0, 12.0, 4_001, dtype=torch.float64)
    log_prior = -0.5 * grid.square() - 0.5 * math.log(2.0 * math.pi) + math.log(24.0 / 4_000)
    x, y, mask = tasks.data.x.double(), tasks.data.y, tasks.data.mask
    f = weights[0] + x @ weights[1:]
    logits = f[..., None] + deviation * grid
    signs = (2 * y - 1)[..., None].double()
    terms = torch.where(mask[..., None], torch.nn.functional.logsigmoid(signs * logits), 0.0).sum(1)
    exact = (terms + log_prior).logsumexp(-1).sum().item()
    found = learner.log_evidence(tasks.data).sum().item()
    if nodes == 1:  # Laplace's approximation: another maximum where tasks differ this much
        assert found == pytest.approx(-627.81, abs=0.01)
        assert exact == pytest.approx(-628.93, abs=0.01)
        assert deviation == pytest.approx(4.57, abs=0.02)
    else:
        assert found == pytest.approx(exact, abs=1e-3)
        assert deviation == pytest.approx(4.01, abs=0.02)
        assert found == pytest.approx(-625.40, abs=0.01)
