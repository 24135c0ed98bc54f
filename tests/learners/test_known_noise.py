"""Learners that use known noise, against weighted closed forms, brute force and themselves."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

import bayesmeta as bm

D = torch.float64
EXACT = {"rtol": 1e-10, "atol": 1e-10}  # float64: the same mathematics by another route

LINEAR: dict[str, Callable[[], bm.Learner]] = {
    "alpaca": lambda: bm.ALPaCA(bm.Polynomial(1, 2)),
    "alpaca, many features": lambda: bm.ALPaCA(bm.MLP(1, [8, 12])),
    "alpaca, diagonal": lambda: bm.ALPaCA(bm.Polynomial(1, 2), covariance=bm.priors.DiagonalCovariance(3)),
    "r2d2": lambda: bm.R2D2Regressor(bm.MLP(1, [8])),
    "mixture": lambda: bm.MixtureALPaCA(bm.Polynomial(1, 2), num_components=3),
    "deep kernel": lambda: bm.DeepKernelTransfer(bm.Identity(1)),
}
CURVED: dict[str, Callable[[], bm.Learner]] = {  # noise of x
    "alpaca, noise of x": lambda: bm.ALPaCA(bm.Polynomial(1, 2), noise=bm.noise.HeteroscedasticNoise(bm.Identity(1))),
    "r2d2, noise of x": lambda: bm.R2D2Regressor(bm.MLP(1, [8]), noise=bm.noise.HeteroscedasticNoise(bm.MLP(1, [4]))),
    "mixture, noise of x": lambda: bm.MixtureALPaCA(
        bm.Polynomial(1, 2), num_components=2, noise=bm.noise.HeteroscedasticNoise(bm.Identity(1))
    ),
    "deep kernel, noise of x": lambda: bm.DeepKernelTransfer(
        bm.Identity(1), noise=bm.noise.HeteroscedasticNoise(bm.Identity(1))
    ),
}
EXACTLY = LINEAR | CURVED
GRADIENT: dict[str, Callable[[], bm.Learner]] = {
    "maml": lambda: bm.MAML(bm.MLP(1, [4]), posterior=bm.Linearized()),
    "maml, a point": lambda: bm.MAML(bm.MLP(1, [4]), posterior=bm.PointEstimate()),
    "imaml": lambda: bm.IMAML(bm.MLP(1, [4])),
    "bmaml": lambda: bm.BMAML(bm.MLP(1, [4])),
    "maml, proportional": lambda: bm.MAML(bm.MLP(1, [4]), likelihood=bm.likelihoods.ProportionalGaussian()),
}
ALL = EXACTLY | GRADIENT
pytestmark = pytest.mark.filterwarnings("ignore::bayesmeta.ConvergenceWarning")  # few steps, of learners at their start


def _learner(which: str) -> bm.Learner:
    torch.manual_seed(0)
    learner = ALL[which]().double()
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return learner


def _data(tasks: int = 3, points: int = 5, seed: int = 0) -> bm.Data:
    generator = torch.Generator().manual_seed(seed)
    x = 4.0 * torch.rand(tasks, points, 1, generator=generator, dtype=D) - 2.0
    noise = torch.rand(tasks, points, 1, generator=generator, dtype=D).square()
    noise[:, 1] = 0.0  # of which nothing is known
    y = x.sin() + noise.sqrt() * torch.randn(tasks, points, 1, generator=generator, dtype=D)
    mask = torch.arange(points) < torch.tensor([points, 3, 0])[:tasks, None]
    return bm.Data(x, y, mask, noise)


def _brute(learner: bm.Learner, component: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, covariance of f and noise variance of one task's points, written out from theta."""
    mean, covariance, noise = _brute_at_one(learner, component, x)
    relative = (learner.likelihood.noise).relative(x[None])
    return mean, covariance, noise.expand(len(x)) if relative is None else noise * relative[0]


def _brute_at_one(learner: bm.Learner, component: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if isinstance(learner, bm.DeepKernelTransfer):
        kernel = learner.kernel(x, x)
        kernel = kernel if isinstance(kernel, Tensor) else kernel.to_dense()
        return learner.mean.expand(len(x)), kernel, learner.likelihood.noise.variance()[0]
    h, noise = learner.features(x[None])[0], learner.prior.noise.variance()[0]
    if isinstance(learner, bm.R2D2Regressor):
        return learner.intercept.expand(len(x)), noise / learner.prior.precision() * h @ h.mT, noise
    prior = learner.prior.matrix_normals[component] if isinstance(learner, bm.MixtureALPaCA) else learner.prior
    return (h @ prior.location)[:, 0], noise * h @ prior.covariance.matrix() @ h.mT, noise


def _log_density(learner: bm.Learner, data: bm.Data, task: int) -> Tensor:
    """log p(y | theta) of one task by an N x N covariance with the noise of each row on its diagonal."""
    real = data.mask[task]
    x, y, known = data.x[task, real], data.y[task, real, 0], data.noise[task, real, 0]
    if not len(y):
        return torch.zeros((), dtype=D)
    weights = learner.prior.logits.log_softmax(-1) if isinstance(learner, bm.MixtureALPaCA) else torch.zeros(1, dtype=D)
    each = []
    for s in range(len(weights)):
        mean, covariance, noise = _brute(learner, s, x)
        each.append(MultivariateNormal(mean, covariance + torch.diag(noise + known)).log_prob(y))
    return (weights + torch.stack(each)).logsumexp(0)


@pytest.mark.parametrize("which", EXACTLY)
def test_evidence_and_predictive_are_those_of_rows_with_noise_of_their_own(which: str) -> None:
    learner, data, query = _learner(which), _data(), _data(3, 4, seed=1)
    query = replace(query, mask=torch.ones_like(query.mask))
    with torch.no_grad():
        alone = torch.stack([_log_density(learner, data, b) for b in range(3)])
        torch.testing.assert_close(learner.log_evidence(data), alone, **EXACT)
        both = torch.stack([_log_density(learner, data.append(query), b) for b in range(3)])
        joint = learner.adapt(data).predict(query.x, yerr=query.noise.sqrt()).log_prob(query.y)
        torch.testing.assert_close(joint, both - alone, **EXACT)  # log p(query | support), the noise of both known
        one = query.points(slice(1))
        each = learner.adapt(data).predict(query.x, yerr=query.noise.sqrt()).marginal_log_prob(query.y)[:, 0]
        with_one = torch.stack([_log_density(learner, data.append(one), b) for b in range(3)])
        torch.testing.assert_close(each, with_one - alone, **EXACT)


def test_weighted_least_squares_in_the_limit_of_a_flat_prior() -> None:
    """With a wide prior the posterior mean is the weighted least-squares line of the textbook."""
    learner = bm.ALPaCA(bm.Identity(1), noise=bm.noise.DiagonalNoise(1, initial=1e-6)).double()
    learner.prior.covariance.set_matrix(1e16 * torch.eye(2, dtype=D))  # variances of 1e10 in units of 1e-6
    x, y, yerr = (
        torch.tensor([0.0, 1.0, 2.0, 5.0]),
        torch.tensor([1.0, 1.4, 3.1, 5.5]),
        torch.tensor([0.1, 0.9, 0.3, 2.0]),
    )
    x, y, yerr = x.double(), y.double(), yerr.double()
    found = learner.adapt(bm.Data.from_arrays(x, y, yerr)).mean["weight"].flatten()
    design, weight = torch.stack([torch.ones_like(x), x], 1), 1.0 / (yerr.square() + learner.prior.noise.variance()[0])
    expected = torch.linalg.solve((design.mT * weight) @ design, (design.mT * weight) @ y)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)  # the prior pulls by 1e-10


@pytest.mark.parametrize("which", ALL)
def test_update_is_adapting_on_all(which: str) -> None:
    learner, data = _learner(which), _data()
    first, rest = data.points(slice(2)), data.points(slice(2, None))
    x = torch.linspace(-2.0, 2.0, 3, dtype=D)[None, :, None].expand(3, -1, -1)
    at_once, streamed = learner.adapt(data), learner.adapt(first).update(rest)
    yerr = torch.full((3, 3, 1), 0.7, dtype=D)
    y = torch.zeros(3, 3, 1, dtype=D)
    for a, b in ((at_once.predict(x), streamed.predict(x)), (at_once.predict(x, yerr), streamed.predict(x, yerr))):
        torch.testing.assert_close(a.mean, b.mean, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(a.variance, b.variance, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(a.log_prob(y), b.log_prob(y), rtol=1e-8, atol=1e-8)
    unknown = learner.adapt(replace(first, noise=None)).update(rest)  # rows without error bars before
    zero = learner.adapt(replace(first, noise=torch.zeros_like(first.noise))).update(rest)
    torch.testing.assert_close(unknown.predict(x).mean, zero.predict(x).mean, **EXACT)


@pytest.mark.parametrize("which", ALL)
def test_padding_and_the_batch_never_matter(which: str) -> None:
    learner, data = _learner(which), _data()
    real = data.mask[..., None]
    wild = bm.Data(
        *(torch.where(real, value, 7.0) for value in (data.x, data.y)), data.mask, torch.where(real, data.noise, 3.0)
    )
    wild = bm.Data.stack([wild, _data(1, 8, seed=3)])  # wider padding
    query = bm.Data.stack([_data(3, 3, seed=2), _data(1, 3, seed=4)])
    tasks, padded = bm.TaskBatch(bm.Data.stack([data, _data(1, 8, seed=3)]), query), bm.TaskBatch(wild, query)
    loss = learner.meta_loss(tasks)
    torch.testing.assert_close(learner.meta_loss(padded), loss, rtol=1e-9, atol=1e-9)
    alone = learner.meta_loss(bm.TaskBatch(data.select([0]), query.select([0])))
    torch.testing.assert_close(alone, loss[:1], rtol=1e-9, atol=1e-9)
    learner.zero_grad()
    loss.sum().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in learner.parameters())


@pytest.mark.parametrize("which", ALL)
def test_no_noise_and_known_noise_of_zero_are_the_same(which: str) -> None:
    learner, data = _learner(which), _data()
    zero, none = replace(data, noise=torch.zeros_like(data.noise)), replace(data, noise=None)
    a, b = (learner.adapt(each).predict(data.x) for each in (zero, none))
    torch.testing.assert_close(a.mean, b.mean, **EXACT)
    torch.testing.assert_close(a.variance, b.variance, **EXACT)
    a, b = (
        learner.meta_loss(bm.TaskBatch(each.points(slice(2)), each.points(slice(2, None)))) for each in (zero, none)
    )
    torch.testing.assert_close(a, b, **EXACT)


@pytest.mark.parametrize("which", ALL)
def test_a_point_with_a_large_error_bar_counts_for_little(which: str) -> None:
    learner = _learner(which)
    good = bm.Data.from_arrays([0.0, 1.0], [0.2, 0.4], yerr=[0.1, 0.1])
    bad = good.append(bm.Data.from_arrays([0.5], [50.0], yerr=1e5))
    a, b = (learner.adapt(each).predict([0.5]) for each in (good, bad))
    tolerance = 1e-4 if which in EXACTLY else 0.05  # steps and particles of the others are few
    torch.testing.assert_close(a.mean, b.mean, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("which", ["alpaca", "deep kernel", "mixture", "maml"])
def test_standardized_scales_noise_with_the_outcomes(which: str) -> None:
    inner, data = _learner(which), _data()
    learner = bm.Standardized(inner)
    shifted = bm.Data(10.0 + 5.0 * data.x, 1e3 + 200.0 * data.y, data.mask, 200.0**2 * data.noise)
    learner.prepare(replace(shifted, noise=None))
    # the same task in standard units, by hand
    scale = learner.y_scale
    standard = bm.Data(
        (shifted.x - learner.x_shift) / learner.x_scale,
        (shifted.y - learner.y_shift) / scale,
        data.mask,
        shifted.noise / scale**2,
    )
    found = learner.adapt(shifted).predict(shifted.x, yerr=shifted.noise.sqrt())
    expected = learner.learner.adapt(standard).predict(standard.x, yerr=standard.noise.sqrt())
    torch.testing.assert_close(found.mean, learner.y_shift + scale * expected.mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.stddev, scale * expected.stddev, rtol=1e-9, atol=1e-9)


def test_restricted_likelihood_and_location_are_those_of_weighted_rows() -> None:
    """Generalised least squares of all rows at once, with their covariance written out."""
    learner, data = _learner("alpaca"), _data(2, 5)
    learner.mixed_model.maximise_location(data)
    precision, moment = torch.zeros(3, 3, dtype=D), torch.zeros(3, dtype=D)
    with torch.no_grad():
        for b in range(2):
            real = data.mask[b]
            design = learner.features(data.x[b, real][None])[0]
            _, covariance, noise = _brute(learner, 0, data.x[b, real])
            whole = covariance + torch.diag(noise + data.noise[b, real, 0])
            precision += design.mT @ torch.linalg.solve(whole, design)
            moment += design.mT @ torch.linalg.solve(whole, data.y[b, real, 0])
        torch.testing.assert_close(
            learner.prior.location[:, 0], torch.linalg.solve(precision, moment), rtol=1e-8, atol=1e-8
        )
        # ∫ N(y; X k, S) dk = N(y; X k̂, S) |2π (Xᵀ S⁻¹ X)⁻¹|^½
        restricted = learner.log_evidence(data).sum() - 0.5 * torch.logdet(precision / (2.0 * torch.pi))
        torch.testing.assert_close(learner.mixed_model.restricted_log_evidence(data), restricted, rtol=1e-9, atol=1e-9)


def test_fit_evidence_finds_the_noise_that_is_not_known() -> None:
    """Rows whose known noise is all there is of it, or half of it: the learned part is the rest."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(60, 12, 1, generator=generator, dtype=D)
    known = 0.05 + torch.rand(60, 12, 1, generator=generator, dtype=D)
    normal = lambda: torch.randn(60, 12, 1, generator=generator, dtype=D)
    y = torch.randn(60, 1, 1, generator=generator, dtype=D) + 2.0 * x + known.sqrt() * normal() + 0.5 * normal()
    learner = bm.ALPaCA(bm.Identity(1)).double()
    bm.fit_evidence(learner, bm.TaskDataset(bm.Data.full(x, y, known)))
    # 720 rows of mean variance .8: a standard error of about .04 of the .25 that is not known
    assert abs(learner.prior.noise.variance().item() - 0.25) < 0.12
    ignorant = bm.ALPaCA(bm.Identity(1)).double()
    bm.fit_evidence(ignorant, bm.TaskDataset(bm.Data.full(x, y)))
    assert ignorant.prior.noise.variance().item() > 0.6


def test_the_sampler_and_averages_over_theta_use_it() -> None:
    learner, data = _learner("alpaca"), _data(1, 4)
    drawn = bm.Sampled(learner, bm.inference.NUTS(16, 10, 20)).adapt(data)
    exact = learner.adapt(data)
    gap = (drawn.mean["weight"] - exact.mean["weight"]).abs() / torch.stack([drawn.draws["weight"]]).std(1)
    assert gap.max() < 0.5
    assert drawn.predict([0.3], yerr=2.0).variance.item() > 4.0
    members = bm.HyperPosterior([learner, learner])
    torch.testing.assert_close(members.adapt(data).predict([0.3], yerr=2.0).mean, exact.predict([0.3]).mean, **EXACT)


def test_a_recorded_loss_is_the_loss() -> None:
    learner, data = _learner("alpaca"), _data(3, 6)
    tasks = bm.TaskBatch(data.points(slice(3)), replace(data.points(slice(3, None)), noise=None))
    result = bm.fit(
        learner, bm.TaskDataset(data.select([0, 1])), steps=3, progress=False, split=bm.tasks.RandomSplit.at(1)
    )
    assert len(result.losses) == 3
    assert bool(learner.meta_loss(tasks).isfinite().all())


# ------------------------------------------------------------------------------------------------------- noise of x


def test_a_prediction_is_as_noisy_as_its_input() -> None:
    noise = bm.noise.HeteroscedasticNoise(bm.Identity(1), bm.noise.DiagonalNoise(initial=0.25)).double()
    noise.slope.data.copy_(torch.tensor([0.5, 2.0]))
    x = torch.tensor([[[-1.0], [0.0], [3.0]]], dtype=D)
    torch.testing.assert_close(
        noise.relative(x), (0.5 + 2.0 * x[..., 0]).exp(), rtol=0.1, atol=0.0
    )  # the range bends it
    assert noise.relative(1e3 * x).tolist()[0] == [1e-4, pytest.approx(1.6487, rel=1e-3), pytest.approx(1e4)]
    for learner in (bm.ALPaCA(bm.Identity(1), noise=noise), bm.DeepKernelTransfer(bm.Identity(1), noise=noise)):
        prediction = learner.double().adapt(bm.Data.from_arrays([0.0, 1.0], [0.3, 0.7])).predict(x)
        gap = (prediction.variance - prediction.noiseless.variance)[..., 0]
        torch.testing.assert_close(gap, 0.25 * noise.relative(x), rtol=1e-7, atol=0.0)  # of DiagonalNoise's bounds
        draws = prediction.sample((20_000,), torch.Generator().manual_seed(0))
        torch.testing.assert_close(
            draws.var(0), prediction.variance, rtol=0.06, atol=0.0
        )  # six errors of √(2 / 20,000)


def test_several_outputs_share_the_factor_and_stay_exact() -> None:
    torch.manual_seed(0)
    noise = bm.noise.HeteroscedasticNoise(bm.Identity(1), bm.noise.FullNoise(2))
    learner = bm.ALPaCA(bm.Polynomial(1, 2), num_outputs=2, noise=noise).double()
    learner.prior.noise.set_covariance(torch.tensor([[0.5, 0.2], [0.2, 0.4]], dtype=D))
    noise.slope.data.copy_(torch.tensor([0.1, 0.7]))
    x, y = torch.randn(1, 5, 1, dtype=D), torch.randn(1, 5, 2, dtype=D)
    data = bm.Data.full(x, y)
    with torch.no_grad():
        h = learner.features(x)[0]
        rows = h @ learner.prior.covariance.matrix() @ h.mT + torch.diag(noise.relative(x)[0])
        whole = torch.kron(rows, noise.covariance())
        mean = (h @ learner.prior.location).flatten()
        expected = MultivariateNormal(mean, whole).log_prob(y.flatten())
        torch.testing.assert_close(learner.log_evidence(data)[0], expected, **EXACT)
        first, rest = data.points(slice(3)), data.points(slice(3, None))
        chain = learner.log_evidence(first) + learner.adapt(first).predict(rest.x).log_prob(rest.y)
        torch.testing.assert_close(chain[0], expected, **EXACT)
        log_joint = learner.log_joint(data)({"weight": learner.prior.location[None]})
        scale = noise.relative(x)[0].sqrt()[:, None, None] * torch.linalg.cholesky(noise.covariance())
        at_mean = MultivariateNormal(h @ learner.prior.location, scale_tril=scale).log_prob(y[0]).sum()
        prior = learner.prior.log_prob({"weight": learner.prior.location[None]})
        torch.testing.assert_close(log_joint, at_mean + prior, **EXACT)


def test_fit_evidence_finds_how_noise_grows_with_x() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(60, 12, 1, generator=generator, dtype=D)
    noise = 0.1 * (2.0 * x).exp() * torch.randn(60, 12, 1, generator=generator, dtype=D)  # log variance grows by 4 x
    y = torch.randn(60, 1, 1, generator=generator, dtype=D) + 2.0 * x + noise
    learner = bm.ALPaCA(bm.Identity(1), noise=bm.noise.HeteroscedasticNoise(bm.Identity(1))).double()
    tasks = bm.TaskDataset(bm.Data.full(x, y))
    bm.fit_evidence(learner, tasks)
    # 720 squares of log variance π²/2 over x of deviation .29: an error of .29 or less
    assert abs(learner.prior.noise.slope[1].item() - 4.0) < 0.7
    plain = bm.ALPaCA(bm.Identity(1)).double()
    bm.fit_evidence(plain, tasks)
    assert bool(learner.log_evidence(tasks.data).sum() > plain.log_evidence(tasks.data).sum() + 50.0)


@pytest.mark.usefixtures("unchecked")
def test_noise_of_x_is_refused_where_it_has_no_place() -> None:
    noise = bm.noise.HeteroscedasticNoise(bm.Identity(1))
    with pytest.raises(bm.UnsupportedError, match="HeteroscedasticGaussian"):
        bm.MAML(bm.MLP(1, [4]), likelihood=bm.likelihoods.Gaussian(noise))
    with pytest.raises(bm.UnsupportedError, match="the same at every input"):
        bm.likelihoods.Gaussian(noise)(torch.zeros(1, 1, 1))
    with pytest.raises(bm.UnsupportedError, match="features that are a Network, got Linear"):
        bm.noise.HeteroscedasticNoise(torch.nn.Linear(1, 1))
    with pytest.raises(bm.DataError, match=r"range above 1, got 0\.5"):
        bm.noise.HeteroscedasticNoise(bm.Identity(1), range=0.5)


# ---------------------------------------------------------------------------------------------------- published numbers

# log relative risks of tuberculosis under BCG in 13 trials, and their variances (Colditz et al. 1994, as in metafor)
RATIOS = (
    -0.8893,
    -1.5854,
    -1.3481,
    -1.4416,
    -0.2175,
    -0.7861,
    -1.6209,
    0.012,
    -0.4694,
    -1.3713,
    -0.3394,
    0.4459,
    -0.0173,
)
VARIANCES = (0.3256, 0.1946, 0.4154, 0.02, 0.0512, 0.0069, 0.223, 0.004, 0.0564, 0.073, 0.0124, 0.5325, 0.0714)


@pytest.mark.parametrize(
    ("problem", "heterogeneity", "mean"),
    [
        (bm.training.RestrictedMaximumLikelihood(), 0.3132, -0.7145),
        (bm.training.MaximumLikelihood(), 0.2800, -0.7112),
    ],
    ids=["REML", "ML"],
)
def test_random_effects_meta_analysis(problem: object, heterogeneity: float, mean: float) -> None:
    """Variance between trials and mean effect as in metafor (Viechtbauer 2010): one row a task, its error known."""
    trials = bm.TaskDataset.from_list([([0.0], [y], [v**0.5]) for y, v in zip(RATIOS, VARIANCES, strict=True)])
    noise = bm.noise.DiagonalNoise(initial=1e-6).requires_grad_(False)
    learner = bm.ALPaCA(bm.Polynomial(1, 0), noise=noise).double()
    bm.fit_evidence(learner, trials, problem)
    found = learner.prior.covariance.matrix().item() * learner.prior.noise.variance().item()
    # published to four digits, of data that were rounded to four, and with 1e-6 of noise
    assert abs(found - heterogeneity) < 2e-4
    assert abs(learner.prior.location.item() - mean) < 2e-4
