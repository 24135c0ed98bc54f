"""The bridge to BoTorch: posteriors, fantasies, acquisition functions and paths against the library's own answers."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

import bayesmeta as bm
from bayesmeta.errors import DataError, ShapeError, UnsupportedError

pytest.importorskip("botorch", reason="the bridge to BoTorch is an extra: pip install 'bayesmeta[botorch]'")

from botorch.acquisition import (
    AcquisitionFunction,
    qKnowledgeGradient,
    qLogExpectedImprovement,
    qLogNoisyExpectedImprovement,
)
from botorch.acquisition import LogExpectedImprovement as OfOneGaussian
from botorch.acquisition.max_value_entropy_search import qMaxValueEntropy
from botorch.acquisition.objective import ScalarizedPosteriorTransform
from botorch.acquisition.predictive_entropy_search import qPredictiveEntropySearch
from botorch.acquisition.thompson_sampling import PathwiseThompsonSampling
from botorch.generation import MaxPosteriorSampling
from botorch.models.deterministic import MatheronPathModel
from botorch.optim import optimize_acqf
from botorch.posteriors import GPyTorchPosterior
from botorch.posteriors.fully_bayesian import GaussianMixturePosterior
from botorch.sampling import SobolQMCNormalSampler
from botorch.sampling.get_sampler import get_sampler

from bayesmeta.interop.botorch import LogExpectedImprovement, PartsPosterior, TaskModel
from bayesmeta.interop.botorch.parts import latent
from tests.registry import CASES, Case

D = torch.float64
X = torch.tensor([[0.1, 0.2], [0.9, 0.4], [0.5, 0.8], [0.3, 0.6]], dtype=D)
Y = torch.tensor([[0.3], [-0.5], [0.8], [0.1]], dtype=D)


def _scale() -> bm.ALPaCA:
    return bm.ALPaCA(bm.MLP(2, [6]), scale=bm.priors.TaskScale())


def _mixture() -> bm.MixtureALPaCA:
    return bm.MixtureALPaCA(bm.MLP(2, [6]), num_components=3)


def _stacked() -> bm.Learner:
    members = {"a": bm.ALPaCA(bm.MLP(2, [6])), "b": _scale(), "c": bm.DeepKernelTransfer(bm.MLP(2, [4]))}
    return bm.wrappers.Stacked(members, {"a": 0.5, "b": 0.3, "c": 0.2})


def _standardized() -> bm.Standardized:
    learner = bm.Standardized(bm.ALPaCA(bm.MLP(2, [6])))
    learner.prepare(bm.Data.from_arrays(10.0 * X, 100.0 + 50.0 * Y))
    return learner


def _members() -> bm.Learner:
    """Three learners that weigh the same."""
    return bm.wrappers.Stacked({name: bm.ALPaCA(bm.MLP(2, [6])) for name in "abc"}, dict.fromkeys("abc", 1.0))


GAUSSIAN = {
    "ALPaCA": lambda: bm.ALPaCA(bm.MLP(2, [6])),
    "DeepKernelTransfer": lambda: bm.DeepKernelTransfer(bm.MLP(2, [6])),
    "MAML": lambda: bm.MAML(bm.MLP(2, [4]), posterior=bm.Linearized()),
    "Standardized": _standardized,
}
OTHERS = {"scale": _scale, "mixture": _mixture, "stacked": _stacked, "ensemble": _members}


def _made(name: str) -> bm.Learner:
    torch.manual_seed(3)
    return (GAUSSIAN | OTHERS)[name]().double()


def _model(name: str, x: Tensor = X, y: Tensor = Y) -> TaskModel:
    return TaskModel.adapted(_made(name), x, y)


def _close(a: Tensor, b: Tensor, tolerance: float = 1e-6) -> None:
    """Up to the share of 1e-8 by which variances are raised for a factor, and rounding."""
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# --------------------------------------------------------------------------------------------------------- posteriors


@pytest.mark.parametrize("name", GAUSSIAN)
@pytest.mark.parametrize("points", [0, 1, 4])
def test_a_t_batch_is_the_joint_predictive(name: str, points: int) -> None:
    """q = 1 goes by single points, q = 3 by tasks that are repeated: both are what the library predicts."""
    learner = _made(name)
    posterior = learner.adapt(bm.Data.from_arrays(X[:points], Y[:points]))
    model = TaskModel.adapted(learner, X[:points], Y[:points])
    queries = torch.rand(2, 5, 3, 2, dtype=D, generator=torch.Generator().manual_seed(0))
    for noise in (False, True):
        found = model.posterior(queries, observation_noise=noise)
        assert isinstance(found, GPyTorchPosterior)
        assert found.mean.shape == (2, 5, 3, 1)
        single = model.posterior(queries[..., :1, :], observation_noise=noise)
        for i, j in ((0, 0), (1, 3)):
            predictive = posterior.predict(queries[i, j])
            predictive = predictive if noise else predictive.noiseless
            _close(found.mean[i, j], predictive.mean[0])
            _close(found.variance[i, j], predictive.variance[0])
            _close(single.mean[i, j], predictive.mean[0, :1])
            _close(single.variance[i, j], predictive.variance[0, :1])
            draws = predictive.rsample((4000,), torch.Generator().manual_seed(1))[:, 0, :, 0]
            covariance = found.distribution.covariance_matrix[i, j]
            # 4,000 draws: a covariance has a standard error of at most .023 of the deviations' product
            unit = draws.std(0)
            torch.testing.assert_close(
                torch.cov(draws.T) / unit / unit[:, None], covariance / unit / unit[:, None], rtol=0, atol=0.12
            )


@pytest.mark.parametrize("shape", [(), (3,), (4, 1), (4, 3), (5, 4, 3)])
@pytest.mark.parametrize("q", [1, 2])
def test_batches_of_points_broadcast_against_tasks(shape: tuple[int, ...], q: int) -> None:
    learner = _made("ALPaCA")
    data = bm.Data.stack([bm.Data.from_arrays(X[:n], Y[:n]) for n in (1, 2, 4)])
    model = TaskModel(learner.adapt(data), data)
    queries = torch.rand(*shape, q, 2, dtype=D, generator=torch.Generator().manual_seed(0))
    found = model.posterior(queries)
    batch = torch.broadcast_shapes(shape, (3,))
    assert model.batch_shape == (3,)
    assert found.mean.shape == (*batch, q, 1)
    every = queries.expand(*batch, q, 2).reshape(-1, 3, q, 2)
    for task, n in enumerate((1, 2, 4)):
        own = learner.adapt(bm.Data.from_arrays(X[:n], Y[:n]))
        for place, points in enumerate(every[:, task]):
            _close(found.mean.reshape(-1, 3, q, 1)[place, task], own.predict(points).noiseless.mean[0])
            _close(found.variance.reshape(-1, 3, q, 1)[place, task], own.predict(points).noiseless.variance[0])


def test_several_outcomes() -> None:
    torch.manual_seed(0)
    learner = bm.ALPaCA(bm.MLP(2, [6]), num_outputs=2, noise=bm.noise.FullNoise(2)).double()
    with torch.no_grad():
        for parameter in learner.prior.noise.parameters():
            parameter.add_(0.4 * torch.randn_like(parameter))
    y = torch.cat([Y, Y.square()], -1)
    model, posterior = TaskModel.adapted(learner, X, y), learner.adapt(bm.Data.from_arrays(X, y))
    predictive = posterior.predict(X[:3]).noiseless
    found = model.posterior(X[:3])
    assert model.num_outputs == 2
    _close(found.mean, predictive.mean[0])
    covariance = torch.kron(predictive.covariance()[0], predictive.output_covariance)  # point by point
    _close(found.distribution.covariance_matrix, covariance)
    assert model.train_targets.shape == (2, 4)
    for subset in (model.subset_output([1]), model.subset_output([-1])):
        assert subset.num_outputs == 1
        _close(subset.posterior(X[:3]).variance, predictive.variance[0, :, 1:])
        _close(subset.train_targets, y[:, 1])
        with pytest.raises(UnsupportedError, match="all outputs to condition"):
            subset.condition_on_observations(X[:1], y[:1, :1])
    swapped = model.posterior(X[:3], output_indices=[1, 0])
    _close(swapped.mean, predictive.mean[0].flip(-1))
    weights = torch.tensor([2.0, -1.0], dtype=D)
    scalar = model.posterior(X[:3], posterior_transform=ScalarizedPosteriorTransform(weights))
    rows = torch.kron(torch.eye(3, dtype=D), weights)
    _close(scalar.mean[:, 0], predictive.mean[0] @ weights)
    _close(scalar.distribution.covariance_matrix, rows @ covariance @ rows.T)
    single = model.posterior(X[:3, None])
    _close(single.distribution.covariance_matrix[1], covariance[2:4, 2:4])
    with pytest.raises(DataError, match="positions of 2 outputs"):
        model.subset_output([2])


@pytest.mark.parametrize("name", ["scale", "mixture", "stacked"])
def test_moments_of_parts_are_those_of_the_predictive(name: str) -> None:
    learner = _made(name)
    predictive = learner.adapt(bm.Data.from_arrays(X, Y)).predict(X + 0.3)
    model = TaskModel.adapted(learner, X, Y)
    for noise, own in ((True, predictive), (False, latent(predictive))):
        for queries in (X + 0.3, (X + 0.3)[:, None]):
            found = model.posterior(queries, observation_noise=noise)
            assert isinstance(found, PartsPosterior)
            _close(found.mean.reshape(-1), own.mean[0, :, 0])
            _close(found.variance.reshape(-1), own.variance[0, :, 0])
    _close(found.mvn.variance, found.variance[..., 0])
    assert not model._is_ensemble
    assert model.batch_shape == ()


@pytest.mark.parametrize("name", ["scale", "mixture", "stacked"])
def test_draws_of_parts_have_their_distribution(name: str) -> None:
    model = _model(name)
    found = model.posterior(X[:2] + 0.4)
    draws = get_sampler(found, torch.Size([8192]), seed=0)(found)
    assert draws.shape == (8192, 2, 1)
    predictive = latent(model.task_posterior.predict(X[:2] + 0.4))
    for level in (0.05, 0.5, 0.95):
        # of 8,192 independent draws the share below has a standard error of at most .0055
        below = (draws < predictive.quantile(level)[0]).double().mean(0)
        torch.testing.assert_close(below, torch.full_like(below, level), rtol=0, atol=0.02)
    expected = predictive.rsample((8192,), torch.Generator().manual_seed(0))[:, 0, :, 0]
    ranks = [stats.spearmanr(*each.T).statistic for each in (draws[..., 0], expected)]
    assert abs(ranks[0] - ranks[1]) < 0.06


def test_an_ensemble_is_averaged_by_botorch() -> None:
    """LogEI of BoTorch averages the improvement over the members; ours over the parts: the same."""
    model = _model("ensemble")
    queries = torch.rand(7, 1, 2, dtype=D, generator=torch.Generator().manual_seed(0))
    found = model.posterior(queries)
    assert isinstance(found, GaussianMixturePosterior)
    assert model.batch_shape == (3,)
    assert found.mean.shape == (7, 3, 1, 1)
    each, best = [TaskModel(member) for member in model.task_posterior.posteriors], torch.tensor(0.2, dtype=D)
    mean = torch.stack([OfOneGaussian(member, best)(queries).exp() for member in each]).mean(0)
    _close(OfOneGaussian(model, best)(queries).exp(), mean, 1e-12)
    _close(LogExpectedImprovement(model, best)(queries).exp(), mean, 1e-12)


def test_expected_improvement_of_unequal_weights() -> None:
    model = _model("mixture")
    queries = X[:, None] + 0.2
    found = model.parts(queries)
    mean, deviation = found.mean[..., 0, 0], found.covariance[..., 0, 0].sqrt()
    u = ((mean - 0.2) / deviation).detach().numpy()
    each = deviation.detach().numpy() * (stats.norm.pdf(u) + u * stats.norm.cdf(u))
    weights = found.log_weights.exp().detach().numpy()
    assert weights.max() - weights.min() > 0.01
    ours = LogExpectedImprovement(model, best_f=0.2)(queries).exp()
    np.testing.assert_allclose(ours.detach().numpy(), (weights * each).sum(-1), rtol=1e-9)
    down = LogExpectedImprovement(model, best_f=0.2, maximize=False)(queries).exp()
    average = (found.log_weights.exp() * mean).sum(-1)
    _close(ours - down, average - 0.2)  # E max(z, 0) - E max(-z, 0) = E z


@pytest.mark.parametrize("best", [-3.0, 0.3, 2.0, 40.0])
def test_expected_improvement_of_students_t(best: float) -> None:
    model = _model("scale")
    queries = X[:, None] + 0.2
    marginals = model.task_posterior.predict(X + 0.2).noiseless.marginals.base_dist
    mean, scale, dof = (getattr(marginals, name)[0, :, 0].detach().numpy() for name in ("loc", "scale", "df"))
    z = (mean - best) / scale
    t = stats.t(dof)
    exact = scale * ((dof + z**2) / (dof - 1.0) * t.pdf(z) + z * t.cdf(z))
    ours = LogExpectedImprovement(model, best_f=best)(queries).exp().detach().numpy()
    # the closed form loses digits where its two terms cancel
    np.testing.assert_allclose(ours, exact, rtol=1e-7)


REGRESSION = [
    case
    for case in CASES
    if type(case.outcomes) is bm.Numbers
    and case.outcomes == case.make().outcomes
    and len(case.make().x_shape or ()) == 1
]
NO_F = {"maml-point", "variance-scaled", "isotonic-recalibrated", "mann-lstm", "snail", "meta-networks"}
"""Whose f and noise do not separate, besides the processes that are conditional: there is no f to ask for."""


@pytest.mark.filterwarnings("ignore::bayesmeta.ConvergenceWarning")  # chains are short
@pytest.mark.parametrize("case", REGRESSION, ids=lambda case: case.name)
def test_every_learner_of_numbers(case: Case) -> None:
    learner = case.make()
    generator = torch.Generator().manual_seed(0)
    x, queries = torch.rand(2, 3, learner.x_shape[0], dtype=D, generator=generator)
    y = torch.randn(3, learner.outcomes.count, dtype=D, generator=generator)
    if isinstance(learner, bm.Standardized):
        learner.prepare(bm.Data.from_arrays(x, y))
    model = TaskModel.adapted(learner, x, y)
    if case.name in NO_F or case.name.startswith(("conditional", "conv-cnp", "transformer")):
        with pytest.raises(UnsupportedError, match="does not separate f from its noise"):
            model.posterior(queries)
        return
    f = latent(model.task_posterior.predict(queries))
    for points in (queries, queries[:, None]):
        found = PartsPosterior(model.parts(points))
        _close(found.mean.reshape(f.mean[0].shape), f.mean[0])
        _close(found.variance.reshape(f.mean[0].shape), f.variance[0])
        assert bool(model.posterior(points).rsample(torch.Size([2])).isfinite().all())


# ---------------------------------------------------------------------------------------------------------- fantasies


@pytest.mark.parametrize("name", [*GAUSSIAN, *OTHERS])
def test_conditioning_is_adapting_on_all_points(name: str) -> None:
    learner = _made(name)
    more_x, more_y = X + 0.05, torch.randn(6, 4, 1, dtype=D, generator=torch.Generator().manual_seed(0))
    model = TaskModel.adapted(learner, X, Y).condition_on_observations(more_x, more_y)
    assert model.task_shape == (6,)
    assert model.train_inputs[0].shape == (6, 8, 2)
    _close(model.train_targets[2], torch.cat([Y, more_y[2]])[:, 0], 0.0)
    queries = X + 0.3
    for i in (0, 5):
        both = TaskModel.adapted(learner, torch.cat([X, more_x]), torch.cat([Y, more_y[i]]))
        found, expected = model.posterior(queries), both.posterior(queries)
        _close(found.mean[i], expected.mean)
        _close(found.variance[i], expected.variance)


@pytest.mark.parametrize("name", ["ALPaCA", "mixture", "scale", "ensemble"])
def test_fantasies_average_to_the_model(name: str) -> None:
    model = _model(name)
    at, queries = X[:1] + 0.2, X + 0.1
    fantasies = model.fantasize(at, SobolQMCNormalSampler(torch.Size([2048]), seed=0))
    assert fantasies.task_shape == (2048,)
    assert fantasies.batch_shape == (2048, *([1] if name == "ensemble" else []))
    before, after = (each.parts(queries) for each in (model, fantasies))
    average = PartsPosterior(after).mean.mean(0).reshape(4, 1)
    deviation = PartsPosterior(before).variance.sqrt()
    # the mean of means has an error of at most a deviation / sqrt(2048) of independent draws
    torch.testing.assert_close(average / deviation, PartsPosterior(before).mean / deviation, rtol=0, atol=0.03)
    nothing = model.fantasize(X[:0], SobolQMCNormalSampler(torch.Size([3]), seed=0))
    assert nothing.task_shape == (3,)
    _close(PartsPosterior(nothing.parts(queries)).mean[1].reshape(4, 1), PartsPosterior(before).mean)


# ------------------------------------------------------------------------------------------------------- acquisitions

ACQUISITIONS = {
    "LogEI": (1, lambda m: OfOneGaussian(m, best_f=0.5)),
    "exact LogEI": (1, lambda m: LogExpectedImprovement(m, best_f=0.5)),
    "qLogEI": (3, lambda m: qLogExpectedImprovement(m, 0.5, sampler=SobolQMCNormalSampler(torch.Size([64]), seed=0))),
    "qLogNEI": (
        2,
        lambda m: qLogNoisyExpectedImprovement(
            m, X, sampler=SobolQMCNormalSampler(torch.Size([64]), seed=0), prune_baseline=True
        ),
    ),
    "qKG": (3, lambda m: qKnowledgeGradient(m, 2, sampler=SobolQMCNormalSampler(torch.Size([2]), seed=0))),
}


def _slope(acquisition: AcquisitionFunction, x: Tensor, direction: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """By automatic differentiation, and by central differences."""
    moved = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(acquisition(moved).sum(), moved)
    with torch.no_grad():
        ahead, behind = acquisition(x + step * direction).sum(), acquisition(x - step * direction).sum()
    return (gradient * direction).sum(), (ahead - behind) / (2.0 * step)


@pytest.mark.parametrize("kind", ACQUISITIONS)
@pytest.mark.parametrize("name", ["ALPaCA", "DeepKernelTransfer", "MAML", "scale", "mixture", "ensemble"])
def test_gradients_of_acquisition_functions(name: str, kind: str) -> None:
    q, make = ACQUISITIONS[kind]
    torch.manual_seed(0)
    acquisition = make(_model(name))
    queries = torch.rand(2, q, 2, dtype=D)
    value = acquisition(queries)
    assert value.shape == (2,)
    assert bool(value.isfinite().all())
    slope, difference = _slope(acquisition, queries, torch.randn_like(queries), 1e-5)
    # central differences of step h err by h² of the third derivative, and by rounding over h
    torch.testing.assert_close(slope, difference, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["ALPaCA", "DeepKernelTransfer", "scale", "mixture", "ensemble"])
def test_entropy_searches_and_sampling_run(name: str) -> None:
    torch.manual_seed(0)
    model = _model(name).mixture() if name == "ensemble" else _model(name)
    queries = torch.rand(3, 1, 2, dtype=D)
    entropy = qMaxValueEntropy(model, torch.rand(20, 2, dtype=D), num_mv_samples=4, num_fantasies=2)
    assert bool(entropy(queries).isfinite().all())
    predictive = qPredictiveEntropySearch(model, torch.rand(2, 2, dtype=D), max_ep_iterations=5)
    assert bool(predictive(queries.expand(3, 2, 2)).isfinite().all())
    chosen = MaxPosteriorSampling(model)(torch.rand(30, 2, dtype=D), num_samples=2)  # 30 points, of an f of rank 7
    assert chosen.shape == (2, 2)


def test_an_acquisition_function_is_optimised() -> None:
    """The maximum of a parabola, of which others of the same form are known, found by gradients."""
    x, generator = torch.linspace(0.0, 1.0, 6, dtype=D)[:, None], torch.Generator().manual_seed(0)
    learner = bm.ALPaCA(bm.Polynomial(1, 2)).double()
    y = [-((x - place) ** 2) + 0.01 * torch.randn(6, 1, dtype=D, generator=generator) for place in (0.2, 0.4, 0.5, 0.8)]
    bm.fit_evidence(learner, bm.TaskDataset.from_list([(x, each) for each in y]))
    model = TaskModel.adapted(learner, x[:4], -((x[:4] - 0.3) ** 2))
    torch.manual_seed(0)
    bounds = torch.tensor([[0.0], [1.0]], dtype=D)
    candidate, _ = optimize_acqf(qLogNoisyExpectedImprovement(model, x), bounds, q=1, num_restarts=2, raw_samples=16)
    assert abs(candidate.item() - 0.3) < 0.05


# --------------------------------------------------------------------------------------------------------------- paths


@pytest.mark.parametrize("name", ["ALPaCA", "Standardized", "mixture", "scale", "ensemble"])
def test_paths_have_the_covariance_of_the_posterior(name: str) -> None:
    model = _model(name)
    torch.manual_seed(0)
    paths = MatheronPathModel(model, sample_shape=torch.Size([6000]))
    values = paths(X + 0.3)[:, 0] if name == "ensemble" else paths(X + 0.3)
    assert values.shape == (6000, 4, 1)
    expected = PartsPosterior(model.parts(X + 0.3))
    unit = expected.variance[:, 0].sqrt()
    # 6,000 draws: a mean of unit numbers has a standard error of .013, a covariance of Student's t of .03 or so
    torch.testing.assert_close(values[..., 0].mean(0) / unit, expected.mean[:, 0] / unit, rtol=0, atol=0.06)
    mvn = expected.mvn.covariance_matrix
    torch.testing.assert_close(
        torch.cov(values[..., 0].T) / unit / unit[:, None], mvn / unit / unit[:, None], rtol=0, atol=0.15
    )


def test_a_path_is_one_function_of_several_outcomes() -> None:
    torch.manual_seed(0)
    model = TaskModel.adapted(bm.ALPaCA(bm.MLP(2, [6]), num_outputs=2), X, torch.cat([Y, Y.square()], -1))
    path = MatheronPathModel(model)
    values = path(X)
    assert values.shape == (4, 2)
    _close(path(X[[2, 0]]), values[[2, 0]], 1e-12)
    _close(path(X[:, None])[:, 0], values, 1e-12)
    assert path(X[None].expand(3, 4, 2)).shape == (3, 4, 2)
    one = MatheronPathModel(model.subset_output([1]), sample_shape=torch.Size([5]))
    assert one(X).shape == (5, 4, 1)


def test_thompson_sampling() -> None:
    for name in ("ALPaCA", "ensemble", "stacked_linear"):
        torch.manual_seed(0)
        members = {"a": bm.ALPaCA(bm.MLP(2, [6])), "b": _mixture()}
        learner = bm.wrappers.Stacked(members, {"a": 0.7, "b": 0.3}) if name == "stacked_linear" else _made(name)
        thompson = PathwiseThompsonSampling(TaskModel.adapted(learner, X, Y))
        queries = torch.rand(5, 2, 2, dtype=D)
        values = thompson(queries)
        assert values.shape == (5,)
        _close(thompson(queries), values, 1e-12)
        slope, difference = _slope(thompson, queries, torch.randn_like(queries), 1e-6)
        torch.testing.assert_close(slope, difference, rtol=1e-4, atol=1e-6)


def test_paths_of_a_batch_of_tasks() -> None:
    torch.manual_seed(0)
    data = bm.Data.stack([bm.Data.from_arrays(X[:n], Y[:n]) for n in (1, 4)])
    model = TaskModel(_made("ALPaCA").adapt(data), data)
    paths = MatheronPathModel(model, sample_shape=torch.Size([4000]))
    values = paths(X)
    assert values.shape == (4000, 2, 4, 1)
    expected = model.posterior(X)
    deviation = expected.variance.sqrt()
    torch.testing.assert_close(values.mean(0) / deviation, expected.mean / deviation, rtol=0, atol=0.08)
    with pytest.raises(ShapeError, match="functions of shape"):
        paths(torch.zeros(3, 4, 2, dtype=D))


def test_what_has_no_paths_says_so() -> None:
    with pytest.raises(UnsupportedError, match="whose draws are functions, got ProcessPosterior"):
        MatheronPathModel(_model("DeepKernelTransfer"))


# ------------------------------------------------------------------------------------------------- noise and refusals


def test_known_noise() -> None:
    learner, variance = _made("ALPaCA"), torch.tensor([[0.0], [4.0], [0.1], [1.0]], dtype=D)
    model = TaskModel.adapted(learner, X, Y, variance)
    posterior = learner.adapt(bm.Data.from_arrays(X, Y, yerr=variance.sqrt()))
    _close(model.posterior(X + 0.3).mean, posterior.predict(X + 0.3).mean[0])
    noisy = model.posterior(X[:2] + 0.3, observation_noise=torch.full((2, 1), 2.0, dtype=D))
    _close(noisy.variance[:, 0], posterior.predict(X[:2] + 0.3).variance[0, :, 0] + 2.0)
    single = model.posterior(X[:, None] + 0.3, observation_noise=torch.full((1, 1), 2.0, dtype=D))
    _close(single.variance[:2, 0], noisy.variance)
    again = TaskModel.adapted(learner, X[:2], Y[:2], variance[:2])
    again = again.condition_on_observations(X[2:], Y[2:], noise=variance[2:])
    _close(again.posterior(X + 0.3).mean, model.posterior(X + 0.3).mean)
    fantasies = model.fantasize(
        X[:1], SobolQMCNormalSampler(torch.Size([3]), seed=0), observation_noise=torch.full((1, 1), 2.0, dtype=D)
    )
    _close(fantasies.data.noise[:, -1, 0], torch.full((3,), 2.0, dtype=D), 0.0)
    with pytest.raises(UnsupportedError, match="no place for noise"):
        _model("scale").posterior(X, observation_noise=torch.ones(4, 1, dtype=D))
    with pytest.raises(UnsupportedError, match="without known noise"):
        TaskModel.adapted(_made("scale"), X, Y, variance)


def test_theta_is_not_the_models() -> None:
    """Nothing of BoTorch trains it, and training that goes on does not reach the model."""
    learner = _made("ALPaCA")
    model = TaskModel.adapted(learner, X, Y)
    before = model.posterior(X).mean
    assert list(model.parameters()) == []
    assert list(model.buffers()) == []
    assert model.state_dict() == {}
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(1.0)
    _close(model.posterior(X).mean, before, 0.0)
    assert not model.posterior(X).mean.requires_grad


def test_a_learner_in_single_precision_answers_in_double() -> None:
    torch.manual_seed(0)
    learner = bm.ALPaCA(bm.MLP(2, [6]))
    model = TaskModel.adapted(learner, X.float(), Y.float())
    assert next(learner.parameters()).dtype == torch.float32
    assert model.posterior(X).mean.dtype == D
    assert model.posterior(X.float()).mean.dtype == torch.float32
    as_it_is = TaskModel(learner.adapt(bm.Data.from_arrays(X.float(), Y.float())))
    assert as_it_is.posterior(X.float().double()).mean.dtype == D
    _close(as_it_is.posterior(X.float().double()).mean, model.posterior(X.float().double()).mean, 1e-4)


def test_what_it_refuses() -> None:
    learner = _made("ALPaCA")
    positive = bm.wrappers.LogTransformed(bm.ALPaCA(bm.MLP(2, [4])))
    with pytest.raises(UnsupportedError, match="expected a predictive of Gaussians"):
        TaskModel.adapted(positive, X, Y.exp()).posterior(X, observation_noise=True)
    for name in ("input_transform", "outcome_transform"):
        with pytest.raises(UnsupportedError, match=f"expected no {name}, got Identity"):
            TaskModel.adapted(learner, X, Y, **{name: torch.nn.Identity()})
    labels = bm.R2D2(bm.MLP(2, [4]), num_classes=2).adapt(bm.Data.from_labels(X, [0, 1, 0, 1]))
    with pytest.raises(UnsupportedError, match="got labels"):
        TaskModel(labels)
    posterior = learner.adapt(bm.Data.from_arrays(X, Y))
    with pytest.raises(ShapeError, match="batch shape of 1 tasks"):
        TaskModel(posterior, batch_shape=(2,))
    with pytest.raises(UnsupportedError, match="points that have been seen, got none"):
        _ = TaskModel(posterior).train_inputs
    with pytest.raises(ShapeError, match="got \\(4, 1\\)"):
        TaskModel(posterior).posterior(X[:, :1])
    with pytest.raises(ShapeError, match="of the same points"):
        TaskModel.adapted(learner, X, Y[:3])
    with pytest.raises(ShapeError, match="of the same points"):
        TaskModel(posterior).condition_on_observations(X, Y[:3])
    separate = bm.ConditionalNeuralProcess(bm.MLP(2, [4])).adapt(bm.Data.from_arrays(X.float(), Y.float()))
    with pytest.raises(UnsupportedError, match="does not separate f from its noise"):
        TaskModel(separate).posterior(X)
    with pytest.raises(UnsupportedError, match="a TaskModel of one output"):
        LogExpectedImprovement(learner, best_f=0.0)  # type: ignore[arg-type]


def test_where_botorch_is_absent_the_error_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['botorch'] = None\n"
        "import bayesmeta as bm\n"
        "try:\n"
        "    import bayesmeta.interop.botorch\n"
        "except bm.UnsupportedError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "expected the package botorch: pip install 'bayesmeta[botorch]'"
