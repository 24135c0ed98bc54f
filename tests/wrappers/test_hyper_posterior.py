"""Theta averaged over: the weights of its draws, the predictive, and the three ways to draw it."""

import math

import pytest
import torch
from scipy import stats

import bayesmeta as bm
from bayesmeta.evaluation import metrics
from tests.registry import CASES, Case

NESTED = [
    Case("bmaml-student-t", lambda: bm.BMAML(bm.MLP(1, [4]), num_particles=2, likelihood=bm.likelihoods.StudentT(1))),
    Case("maml-student-t", lambda: bm.MAML(bm.MLP(1, [4]), steps=1, likelihood=bm.likelihoods.StudentT(1))),
    Case("sampled", lambda: bm.Sampled(bm.ALPaCA(bm.Identity(1)), bm.inference.NUTS(2, 4, 20))),
    Case("standardized-bmaml", lambda: bm.Standardized(bm.BMAML(bm.MLP(1, [4]), num_particles=2))),
    Case("scaled-mixture", lambda: bm.wrappers.VarianceScaled(bm.MixtureALPaCA(bm.Identity(1), num_components=2))),
    Case(
        "bmaml-bernoulli",
        lambda: bm.BMAML(bm.MLP(2, [4]), num_particles=2, likelihood=bm.likelihoods.Bernoulli()),
        outcomes=bm.Labels(2),
        num_inputs=2,
    ),
    Case(
        "llama-two-outputs",
        lambda: bm.LLAMA(
            bm.MLP(2, [4]),
            solver=bm.inference.LevenbergMarquardt(1),
            likelihood=bm.likelihoods.Gaussian(bm.noise.FullNoise(2)),
        ),
        outcomes=bm.Numbers(2),
        num_inputs=2,
    ),
]


def _tasks(num_tasks: int = 6, points: int = 4, seed: int = 0) -> bm.TaskDataset:
    """A random intercept of deviation 2 around 1, noise of deviation 0.5."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.zeros(num_tasks, points, 0, dtype=torch.float64)
    effects = 1.0 + 2.0 * torch.randn(num_tasks, 1, 1, generator=generator, dtype=torch.float64)
    y = effects + 0.5 * torch.randn(num_tasks, points, 1, generator=generator, dtype=torch.float64)
    return bm.TaskDataset(bm.Data.full(x, y))


def _members() -> list[bm.Learner]:
    torch.manual_seed(0)
    members: list[bm.Learner] = []
    for location in (0.0, 1.0, 3.0):
        learner = bm.ALPaCA(bm.Identity(0)).double()
        torch.nn.init.constant_(learner.prior.location, location)
        members.append(learner)
    return members


def test_the_mixture_over_theta_by_hand() -> None:
    learner, tasks = bm.HyperPosterior(_members()), _tasks()
    support, query = tasks.data, _tasks(seed=1).data
    prediction = learner.adapt(support).predict(query.x)
    log_weights = torch.stack([m.log_evidence(support) for m in learner.learners], -1).log_softmax(-1)
    each = torch.stack([m.adapt(support).predict(query.x).log_prob(query.y) for m in learner.learners], -1)
    torch.testing.assert_close(prediction.log_prob(query.y), (log_weights + each).logsumexp(-1))
    means = torch.stack([m.adapt(support).predict(query.x).mean for m in learner.learners], -1)
    torch.testing.assert_close(prediction.mean, (means * log_weights.exp()[:, None, None]).sum(-1))
    spread = (means - prediction.mean[..., None]).square()
    own = torch.stack([m.adapt(support).predict(query.x).variance for m in learner.learners], -1)
    expected = ((own + spread) * log_weights.exp()[:, None, None]).sum(-1)
    torch.testing.assert_close(prediction.variance, expected)
    torch.testing.assert_close(prediction.cdf(prediction.quantile(0.3)), torch.full_like(prediction.mean, 0.3))
    draws = prediction.sample((20_000,), torch.Generator().manual_seed(0))
    assert ((draws.mean(0) - prediction.mean).abs() / prediction.stddev).max() < 4.0 / math.sqrt(20_000)
    assert prediction.noiseless.variance.lt(prediction.variance).all()
    assert prediction.marginals.log_prob(query.y).isfinite().all()


def _processes() -> bm.HyperPosterior:
    members = []
    for lengthscale, noise in ((0.5, 0.1), (1.0, 0.3), (2.0, 0.02)):
        inner = bm.DeepKernelTransfer(
            bm.Identity(1), kernel=bm.kernels.RBFKernel(), noise=bm.noise.DiagonalNoise(1, initial=0.2)
        )
        inner.kernel.base_kernel.lengthscale = lengthscale
        inner.likelihood.noise.set_covariance(torch.tensor([[noise]]))
        members.append(bm.Standardized(inner).double())
    learner = bm.HyperPosterior(members)
    learner.prepare(bm.tasks.Sinusoid().dataset(num_tasks=4, num_points=6, seed=0).data)
    return learner


def test_members_in_one_pass_are_members_one_by_one() -> None:
    """Processes and mixed models are mapped over; all that can be asked is as it is from S predictives."""
    tasks = bm.tasks.Sinusoid().dataset(num_tasks=3, num_points=7, seed=1)
    for learner in (_processes(), bm.HyperPosterior(_members())):
        data = tasks.data if learner.x_shape == (1,) else _tasks(3, 7).data
        data = learner.conform(data)
        support, query = data.points(slice(3)), data.points(slice(3, None))
        posterior = learner.adapt(support)
        assert type(posterior).__name__ == "MappedBelief"
        mapped = posterior.predict(query.x)
        each = learner.one_by_one(support).at(query.x)
        assert type(mapped).__name__ == "ThetaMixture"
        torch.testing.assert_close(mapped.log_weights, each.log_weights)
        for one, other in ((mapped, each), (mapped.noiseless, each.noiseless)):
            torch.testing.assert_close(one.mean, other.mean)
            torch.testing.assert_close(one.variance, other.variance)
            torch.testing.assert_close(one.cdf(query.y), other.cdf(query.y))
            torch.testing.assert_close(one.quantile(0.1), other.quantile(0.1))
            torch.testing.assert_close(one.marginal_log_prob(query.y), other.marginal_log_prob(query.y))
            torch.testing.assert_close(one.marginals.log_prob(query.y), other.marginals.log_prob(query.y))
        torch.testing.assert_close(mapped.log_prob(query.y), each.log_prob(query.y))
        mask = torch.arange(query.num_points).expand(3, -1) < torch.tensor([[4], [2], [0]])
        torch.testing.assert_close(mapped.log_prob(query.y, mask), each.log_prob(query.y, mask))
        draws = [p.sample((50,), torch.Generator().manual_seed(0)) for p in (mapped, each)]
        torch.testing.assert_close(*draws)
        # points that arrive later, and tasks that are chosen
        later = posterior.update(query.points(slice(2))).select([2, 0])
        whole_support = data.points(slice(5)).select(torch.tensor([2, 0]))
        expected = learner.one_by_one(whole_support).at(query.x[[2, 0]])
        torch.testing.assert_close(later.predict(query.x[[2, 0]]).mean, expected.mean)


def test_a_member_that_fails_is_told_by_its_own_error() -> None:
    """In one pass there is NaN and no name; so it is asked again alone."""
    learner = _processes()
    with torch.no_grad():
        inner = learner.learners[1].learner
        assert isinstance(inner, bm.DeepKernelTransfer)
        inner.kernel.base_kernel.raw_lengthscale.fill_(math.nan)
    data = bm.tasks.Sinusoid().dataset(num_tasks=2, num_points=4, seed=0).data
    with pytest.raises(bm.InferenceError, match="kernel of task 0 has values that are not finite"):
        learner.adapt(data)


@pytest.mark.filterwarnings("ignore::bayesmeta.ConvergenceWarning")  # of chains that are far too short
@pytest.mark.parametrize("case", [*(case for case in CASES if case.name != "sampled"), *NESTED], ids=lambda c: c.name)
def test_every_learner_may_be_averaged_and_evaluated(case: Case) -> None:
    """Predictives of every kind mix: mixtures of mixtures, of bent and scaled distributions, of labels."""
    learner = bm.HyperPosterior([case.learner(seed=seed) for seed in range(2)])
    own_classes = case.outcomes == bm.Labels()  # of which the support must show every one
    tasks = bm.TaskDataset(case.batch(2, 4, 1, seed=1, ragged=False).joined())
    shots = [3] if own_classes else [0, 3]
    table = bm.evaluate(learner, tasks, shots, split=bm.tasks.PrefixSplit, num_bootstrap=2).table()
    assert table.notna().all().all()

    batch = case.batch(2, 4, 2, seed=2)
    predictive = learner.adapt(batch.support).predict(batch.query.x)
    each = [posterior.at(batch.query.x) for posterior in learner.condition(batch.support).posteriors]
    weights = learner.adapt(batch.support).log_weights
    marginals = predictive.marginals
    draws = marginals.sample((5,))
    density = marginals.log_prob(draws if case.outcomes != bm.Labels(2) else draws.double())
    for draw, found in zip(draws, density, strict=True):
        y = draw if case.num_outputs else draw.long()
        expected = (weights[..., None] + torch.stack([own.marginal_log_prob(y) for own in each], 1)).logsumexp(1)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    if case.num_outputs and predictive.of_counts:  # the smallest count with at least this much below or at it
        count = predictive.quantile(0.2)
        assert (predictive.cdf(count) >= 0.2).all()
        assert ((predictive.cdf(count - 1.0) < 0.2) | (count == 0.0)).all()
    elif case.num_outputs:
        torch.testing.assert_close(predictive.cdf(predictive.quantile(0.2)), torch.full_like(predictive.mean, 0.2))
    else:
        assert predictive.probs.sum(-1).allclose(torch.ones(()).double())
    if case.name in ("bmaml", "mixture-alpaca", "scaled-mixture", "maml-student-t"):
        crps = metrics.crps(predictive, batch.query.y.to(predictive.mean.dtype))
        expected = metrics._numerical_crps(predictive, batch.query.y.to(predictive.mean.dtype)).mean((1, 2))
        # of 64 nodes a side, where a bent distribution has corners; t of few degrees of freedom is cut far out
        torch.testing.assert_close(crps, expected.double(), rtol=2e-3, atol=1e-4)


def test_the_marginals_of_a_mixture_of_mixtures_have_its_draws() -> None:
    """Each point chooses a component of its own: as many above the median as below, and points are independent."""
    torch.manual_seed(0)
    members = [bm.MixtureALPaCA(bm.Identity(1), num_components=2).double() for _ in range(2)]
    x = torch.tensor([[[-2.0], [2.0]]], dtype=torch.float64)
    for sign, member in zip((-1.0, 1.0), members, strict=True):
        with torch.no_grad():
            for component in member.prior.components:
                component.location.fill_(5.0 * sign)
    predictive = bm.HyperPosterior(members).adapt(bm.Data.empty(bm.Data.full(x, x))).predict(x)
    draws = predictive.marginals.sample((4_000,))
    below = (draws < predictive.quantile(0.3)).double()[:, 0, :, 0]
    assert (below.mean(0) - 0.3).abs().max() < 4.0 * math.sqrt(0.21 / 4_000)
    assert abs(torch.corrcoef(below.mT)[0, 1]) < 4.0 / math.sqrt(4_000)
    assert predictive.marginals.sample().shape == predictive.shape
    assert predictive.marginals.sample((0,)).shape == (0, *predictive.shape)


def test_a_hyperprior_names_parameters_of_the_learner_inside() -> None:
    torch.manual_seed(0)
    plain = bm.ALPaCA(bm.MLP(1, [3])).double()
    wrapped = bm.Standardized(bm.wrappers.VarianceScaled(plain))
    theta, inside = dict(plain.named_parameters()), dict(wrapped.named_parameters())
    for names in (("features",), ("features.", "prior.location"), "prior.location"):
        hyperprior = bm.hyperpriors.GaussianHyperprior(0.7, names)
        assert hyperprior.log_prob(theta) == hyperprior.log_prob(inside)
    assert bm.hyperpriors.GaussianHyperprior(0.7, ["learner.features"]).log_prob(inside) == (
        bm.hyperpriors.GaussianHyperprior(0.7).log_prob(theta)
    )
    deviations = bm.hyperpriors.DeviationHyperprior()
    one = dict(bm.ALPaCA(bm.Identity(1)).named_parameters())
    assert deviations.log_prob(one) == deviations.log_prob({f"learner.learner.{k}": v for k, v in one.items()})
    with pytest.raises(bm.DataError, match="'weights' for"):
        bm.hyperpriors.GaussianHyperprior(0.7, ["weights"]).log_prob(inside)
    for names in ((), ("",)):
        with pytest.raises(bm.DataError, match="name prefix"):
            bm.hyperpriors.GaussianHyperprior(0.7, names)
    tasks = bm.tasks.Sinusoid().dataset(num_tasks=6, num_points=5, seed=0)
    learner = bm.Standardized(bm.ALPaCA(bm.MLP(1, [4])))
    learner = bm.wrappers.WithHyperprior(learner, bm.hyperpriors.GaussianHyperprior())
    found = bm.training.vi_hyper_posterior(learner, tasks, steps=2, batch_size=3, num_members=2)
    assert bm.evaluate(found, tasks, [2], num_bootstrap=0).table()["nll"].notna().all()


def test_the_evidence_is_the_mean_over_theta() -> None:
    learner, data = bm.HyperPosterior(_members()), _tasks().data
    expected = torch.stack([m.log_evidence(data).exp() for m in learner.learners]).mean(0).log()
    torch.testing.assert_close(learner.log_evidence(data), expected)


def test_draws_of_phi_have_the_mixtures_moments() -> None:
    learner, support = bm.HyperPosterior(_members()), bm.Data.empty(_tasks().data)
    draws = learner.adapt(support).sample(4_000, torch.Generator().manual_seed(0))["weight"][:, 0, 0, 0]
    assert abs(draws.mean() - 4.0 / 3.0) < 4.0 * draws.std() / math.sqrt(4_000)


def test_nuts_over_theta_finds_the_posterior_of_a_normal_mean() -> None:
    """Variances held fixed: K_0 given y is Gaussian, with the mean and precision of generalised least squares."""
    learner = bm.ALPaCA(bm.Identity(0)).double()
    learner.requires_grad_(False)
    learner.prior.location.requires_grad_()
    tasks = _tasks()
    found = bm.training.nuts_hyper_posterior(learner, tasks, sampler=bm.inference.NUTS(32, 40, 40), num_members=800)
    location = torch.stack([m.prior.location.flatten()[0] for m in found.learners if isinstance(m, bm.ALPaCA)])
    noise = learner.prior.noise.variance()
    variance = learner.prior.covariance.matrix()[0, 0] * noise + noise / 4.0  # of a task's mean around K_0
    expected, error = tasks.data.y.mean(), (variance / 6.0).sqrt()
    assert abs(location.mean() - expected) < 4.0 * error / math.sqrt(400)
    assert abs(location.std() / error - 1.0) < 0.15
    assert learner.prior.location.item() == 0.0  # left as it was


def test_few_tasks_make_wide_intervals_and_many_do_not() -> None:
    widths = []
    for num_tasks, sampler in ((8, bm.inference.NUTS(6, 80, 80)), (80, bm.inference.NUTS(6, 40, 60))):
        tasks, learner = _tasks(num_tasks, seed=3), bm.ALPaCA(bm.Identity(0)).double()
        bm.fit_evidence(learner, tasks)
        full = bm.training.nuts_hyper_posterior(
            bm.wrappers.WithHyperprior(learner, bm.hyperpriors.DeviationHyperprior()),
            tasks,
            sampler=sampler,
            num_members=80,
        )
        nothing, x = bm.Data.empty(tasks.data.select([0])), torch.zeros(1, 1, 0)
        low, high = full.adapt(nothing).predict(x).interval(0.9)
        plug_low, plug_high = learner.adapt(nothing).predict(x).interval(0.9)
        widths.append(((high - low) / (plug_high - plug_low)).item())
    assert widths[0] > 1.15  # t with 7 degrees of freedom beside a Gaussian: 1.895 / 1.645
    assert abs(widths[1] - 1.0) < 0.1


@pytest.mark.parametrize("method", ["svgd", "vi"])
def test_networks_have_a_hyper_posterior_too(method: str) -> None:
    torch.manual_seed(0)
    tasks = bm.tasks.Sinusoid().dataset(num_tasks=12, num_points=8, seed=0)
    hyperprior = bm.hyperpriors.GaussianHyperprior(1.0)
    learners = [bm.wrappers.WithHyperprior(bm.ALPaCA(bm.MLP(1, [8, 4])), hyperprior).double() for _ in range(3)]
    if method == "svgd":
        start = bm.HyperPosterior(learners)
        found = bm.training.svgd_hyper_posterior(learners, tasks, steps=80, batch_size=6, lr=1e-2)
    else:
        start = bm.HyperPosterior(learners[:1])
        found = bm.training.vi_hyper_posterior(learners[0], tasks, steps=80, batch_size=6, lr=1e-2, num_members=3)
    test = bm.tasks.Sinusoid().dataset(num_tasks=40, num_points=8, seed=1).divided(bm.tasks.RandomSplit((4, 4)))
    scores = [
        -learner.adapt(test.support).predict(test.query.x).log_prob(test.query.y, test.query.mask).mean()
        for learner in (found, start)
    ]
    assert scores[0] < scores[1]
    weights = torch.stack([next(learner.parameters()).flatten() for learner in found.learners])
    assert len(found.learners) == 3
    assert (weights.std(0) > 0.0).all()


def test_vi_finds_the_deviation_of_a_normal_mean() -> None:
    learner = bm.ALPaCA(bm.Identity(0)).double()
    learner.requires_grad_(False)
    learner.prior.location.requires_grad_()
    tasks = _tasks(20)
    found = bm.training.vi_hyper_posterior(
        learner,
        tasks,
        steps=300,
        batch_size=20,
        lr=0.1,
        objective=bm.training.Evidence(),
        num_members=200,
        initial_scale=0.1,
    )
    location = torch.stack([m.prior.location.flatten()[0] for m in found.learners if isinstance(m, bm.ALPaCA)])
    noise = learner.prior.noise.variance()
    error = ((learner.prior.covariance.matrix()[0, 0] * noise + noise / 4.0) / 20.0).sqrt()
    assert abs(location.mean() - tasks.data.y.mean()) < 0.5 * error
    assert abs((location.std() / error).log()) < 0.3


class _Breaks(bm.ALPaCA):
    """Its loss for the second task is NaN from some call on, and it remembers how far it was told the training is."""

    def __init__(self, calls: int) -> None:
        super().__init__(bm.Identity(0))
        self.calls, self.seen, self.progress = calls, 0, []

    def loss(self, tasks: bm.TaskBatch) -> torch.Tensor:
        self.seen += 1
        loss = super().loss(tasks)
        return torch.where(torch.arange(len(loss)) == 1, math.nan, loss) if self.seen >= self.calls else loss

    def anneal(self, progress: float) -> None:
        self.progress.append(progress)


def test_a_loss_that_breaks_is_named() -> None:
    tasks, message = _tasks(), "finite losses, got nan at step 3 for task 1"
    with pytest.raises(bm.InferenceError, match=message):
        bm.training.vi_hyper_posterior(_Breaks(3).double(), tasks, steps=5, batch_size=6)
    with pytest.raises(bm.InferenceError, match=message):
        bm.training.svgd_hyper_posterior([_Breaks(4).double(), _Breaks(3).double()], tasks, steps=5, batch_size=6)
    flat_nowhere = bm.hyperpriors.GaussianHyperprior(1e-200, ["prior.location"])  # its square underflows
    with pytest.raises(bm.InferenceError, match=r"finite loss, got .* at step 1"):
        bm.training.vi_hyper_posterior(bm.wrappers.WithHyperprior(_members()[1], flat_nowhere), tasks, steps=5)


def test_schedules_and_progress(capsys: pytest.CaptureFixture) -> None:
    found = [
        bm.training.vi_hyper_posterior(_Breaks(99).double(), _tasks(), steps=2, num_members=1, progress=True),
        bm.training.svgd_hyper_posterior(
            [_Breaks(99).double(), _Breaks(99).double()], _tasks(), steps=2, progress=True
        ),
    ]
    for learner in found:
        assert all(member.progress == [0.0, 0.5, 1.0] for member in learner.learners)
    shown = capsys.readouterr().err
    assert "vi:" in shown
    assert "svgd:" in shown
    bm.training.vi_hyper_posterior(_Breaks(99).double(), _tasks(), steps=2)
    assert capsys.readouterr().err == ""  # no terminal


def test_bad_input() -> None:
    tasks, learner = _tasks(), bm.ALPaCA(bm.Identity(0)).double()
    with pytest.raises(bm.DataError):
        bm.HyperPosterior([])
    with pytest.raises(bm.DataError, match="one class"):
        bm.HyperPosterior([learner, bm.R2D2Regressor(bm.Identity(0))])
    with pytest.raises(bm.DataError, match="members"):
        bm.training.nuts_hyper_posterior(learner, tasks, num_members=0)
    with pytest.raises(bm.DataError, match="two particles"):
        bm.training.svgd_hyper_posterior([learner], tasks)
    with pytest.raises(bm.DataError):
        bm.training.vi_hyper_posterior(learner, tasks, steps=0)
    with pytest.raises(bm.DataError, match=r"finite lr, got 0\.0"):
        bm.training.svgd_hyper_posterior([learner, learner], tasks, lr=0.0)
    with pytest.raises(bm.DataError, match="num_members >= 1, got 0"):
        bm.training.vi_hyper_posterior(learner, tasks, num_members=0)
    with pytest.raises(bm.DataError):
        bm.training.vi_hyper_posterior(learner, tasks, initial_scale=0.0)
    with pytest.raises(bm.UnsupportedError):
        bm.training.nuts_hyper_posterior(bm.MAML(bm.MLP(1, [3])).double(), bm.tasks.Sinusoid().dataset(3, 4))
    with pytest.raises(bm.DataError):
        bm.hyperpriors.DeviationHyperprior(scale=0.0)
    with pytest.raises(bm.DataError, match="ALPaCA"):
        bm.hyperpriors.DeviationHyperprior().log_prob({"weight": torch.zeros(1)})
    with pytest.raises(bm.UnsupportedError, match="train"):
        bm.HyperPosterior([learner]).configure_optimizer()


def test_the_deviation_hyperprior_is_a_density() -> None:
    """As it is of Student's t on deviations, Jacobians included: of the log of the noise, of what is in its units."""
    for scale, log_noise in ((0.5, 0.0), (2.5, 0.7)):
        prior, dof = bm.hyperpriors.DeviationHyperprior(scale), 3.0
        noise = math.exp(log_noise)
        half_t = 2.0 * stats.t.pdf(noise / scale, dof) / scale * noise
        # the deviation of the noise, and two numbers of the factor, whose sign means nothing on the diagonal
        for ratios in ([0.0, 0.0], [1.5, -0.3], [-1.5, 4.0]):
            theta = {
                "noise.value.raw": torch.tensor([2.0 * log_noise], dtype=torch.float64),
                "covariance.lower": torch.tensor(ratios, dtype=torch.float64),
            }
            each = [stats.t.pdf(noise * ratio / scale, dof) * noise / scale for ratio in ratios]
            constant = math.log(2.0) + 3.0 * (stats.t.logpdf(0.0, dof) - math.log(scale))
            expected = math.log(half_t) + sum(math.log(value) for value in each)
            assert math.isclose(prior.log_prob(theta).item() + constant, expected, rel_tol=1e-9)


def test_learners_of_unlike_networks_are_asked_one_by_one() -> None:
    """Theta of the same shapes means something else under another activation."""
    torch.manual_seed(0)
    members = [bm.ALPaCA(bm.MLP(1, [4], activation=activation)).double() for activation in ("tanh", "relu")]
    members[1].load_state_dict(members[0].state_dict())
    x, nothing = torch.tensor([[[0.3], [2.0]]], dtype=torch.float64), bm.Data.from_arrays([], [])
    each = torch.stack([member.adapt(nothing).predict(x).variance for member in members])
    assert not torch.allclose(each[0], each[1])
    torch.testing.assert_close(bm.HyperPosterior(members).adapt(nothing).predict(x).variance, each.mean(0))
