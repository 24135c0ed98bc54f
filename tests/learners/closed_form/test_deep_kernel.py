"""Deep kernel transfer: gpytorch's own exact inference task by task, ALPaCA, finite differences; what it refuses."""

import math
from collections.abc import Callable

import gpytorch
import pytest
import torch
from torch import Tensor, nn

import bayesmeta as bm
from bayesmeta.description import describe
from bayesmeta.errors import DataError, InferenceError, ShapeError, UnsupportedError
from bayesmeta.heads import GaussianProcessHead
from bayesmeta.hyperpriors import GaussianHyperprior
from bayesmeta.kernels import (
    CosineSimilarityKernel,
    Kernel,
    LinearKernel,
    MaternKernel,
    RBFKernel,
    SpectralMixtureKernel,
)
from bayesmeta.learners.closed_form.deep_kernel import DeepKernelTransfer
from bayesmeta.learners.closed_form.deep_kernel_classifier import DeepKernelClassifier
from bayesmeta.wrappers import WithHyperprior

D = torch.float64
# both sides take the same float64 kernel matrices, of a condition up to 1e4 with the noise
CLOSE = {"rtol": 1e-8, "atol": 1e-8}


class Periodic(Kernel):
    """A user's own, with a prior on its period."""

    def __init__(self, period: float = 2.0) -> None:
        self.period = period

    def make(self, num_features: int) -> gpytorch.kernels.Kernel:
        prior = gpytorch.priors.GammaPrior(2.0, 1.0)
        kernel = gpytorch.kernels.PeriodicKernel(period_length_prior=prior)
        kernel.period_length = self.period
        return gpytorch.kernels.ScaleKernel(kernel)


# the features of the cosine of a distance are one-dimensional: only there is it a kernel
KERNELS: dict[str, tuple[int, Callable[[], Kernel | gpytorch.kernels.Kernel]]] = {
    "rbf": (3, lambda: RBFKernel(0.7, 2.0)),
    "rbf per feature": (3, lambda: RBFKernel(0.7, 2.0, per_feature=True)),
    "matern": (3, lambda: MaternKernel(1.5)),
    "linear": (3, LinearKernel),
    "cosine": (1, lambda: gpytorch.kernels.ScaleKernel(gpytorch.kernels.CosineKernel())),
    "spectral mixture": (3, lambda: SpectralMixtureKernel(3, frequency=0.5, bandwidth=0.2)),
    "cosine similarity": (3, CosineSimilarityKernel),
    "own": (3, Periodic),
    "sum of gpytorch's": (3, lambda: gpytorch.kernels.RBFKernel() + gpytorch.kernels.RQKernel(active_dims=[0, 2])),
}
with_every_kernel = pytest.mark.parametrize("name", KERNELS)


def _learner(name: str = "rbf", **arguments: object) -> DeepKernelTransfer:
    torch.manual_seed(0)
    num_features, kernel = KERNELS[name]
    learner = DeepKernelTransfer(bm.MLP(2, [8, num_features]), kernel=kernel(), **arguments)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return learner.double()


def _tasks(num_outputs: int = 1, points: int = 6, seed: int = 0) -> tuple[bm.Data, Tensor]:
    """Three ragged tasks, one of them empty, one with a point twice; and queries."""
    generator = torch.Generator().manual_seed(seed)
    x, query, y = (
        torch.randn(3, n, c, generator=generator, dtype=D) for n, c in ((points, 2), (5, 2), (points, num_outputs))
    )
    x[1, 1] = x[1, 0]
    return bm.Data(x, y, torch.arange(points) < torch.tensor([[0], [points - 2], [points]])), query


class Exact(gpytorch.models.ExactGP):
    """gpytorch's, on the features of one task."""

    def __init__(self, learner: DeepKernelTransfer, rows: Tensor, y: Tensor) -> None:
        noise = gpytorch.likelihoods.GaussianLikelihood(noise_constraint=gpytorch.constraints.Positive()).double()
        noise.noise = learner.likelihood.noise.variance().detach()
        super().__init__(rows, y, noise)
        self.mean_module, self.covar_module = gpytorch.means.ConstantMean(), learner.kernel
        self.mean_module.constant.data = learner.mean.detach()[0]

    def forward(self, x: Tensor) -> gpytorch.distributions.MultivariateNormal:
        return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))


@pytest.fixture
def exact() -> object:
    """gpytorch by dense Cholesky factors, without jitter."""
    with (
        gpytorch.settings.fast_computations(False, False, False),
        gpytorch.settings.max_cholesky_size(10**6),
        gpytorch.settings.cholesky_jitter(double_value=0.0),
        gpytorch.settings.skip_posterior_variances(False),
    ):
        yield


# ------------------------------------------------------------------------------------------------------------ inference


@with_every_kernel
@pytest.mark.usefixtures("exact")
def test_it_is_gpytorch_task_by_task(name: str) -> None:
    learner, (support, query) = _learner(name), _tasks()
    prediction = learner.adapt(support).predict(query)
    evidence = learner.log_evidence(support).detach()
    covariance = prediction.latent_covariance() * prediction.output_covariance
    with torch.no_grad():
        rows, at = learner.features(support.x), learner.features(query)
        for b in (1, 2):
            real = support.mask[b]
            model = Exact(learner, rows[b][real], support.y[b][real][:, 0])
            model.train()
            marginal = model.likelihood(model(rows[b][real])).log_prob(support.y[b][real][:, 0])
            assert math.isclose(evidence[b].item(), marginal.item(), rel_tol=1e-8, abs_tol=1e-8)
            model.eval()
            posterior = model(at[b])
            torch.testing.assert_close(prediction.mean[b, :, 0], posterior.mean, **CLOSE)
            torch.testing.assert_close(covariance[b], posterior.covariance_matrix, **CLOSE)
            observed = model.likelihood(posterior)
            torch.testing.assert_close(prediction.variance[b, :, 0], observed.variance, **CLOSE)
            y = torch.randn(5, dtype=D)
            joint = prediction.log_prob(y[None, :, None].expand(3, -1, -1))[b]
            torch.testing.assert_close(joint, observed.log_prob(y), **CLOSE)
        prior = learner.kernel(at[0]).to_dense()  # the task without points
    torch.testing.assert_close(covariance[0], prior, **CLOSE)
    torch.testing.assert_close(prediction.mean[0], learner.mean.detach().expand(5, 1), **CLOSE)
    assert evidence[0] == 0.0


@with_every_kernel
def test_the_gradient_equals_finite_differences(name: str) -> None:
    learner, (support, query) = _learner(name), _tasks()

    def value() -> Tensor:
        """Evidence and predictive, in every number of theta."""
        posterior = learner.condition(support)
        joint = posterior.at(query).log_prob(torch.zeros(3, 5, 1, dtype=D))
        return (learner.log_evidence(support) + joint).sum()

    parameters = dict(learner.named_parameters())
    for (key, parameter), gradient in zip(
        parameters.items(), torch.autograd.grad(value(), list(parameters.values())), strict=True
    ):
        direction = torch.randn(parameter.shape, dtype=D)
        ends = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                parameter.add_(step * direction)
                ends.append(value().item())
                parameter.sub_(step * direction)
        slope = (ends[0] - ends[1]) / 2e-5  # errs by h² f''' ~ 1e-9 and by rounding / h ~ 1e-9
        assert math.isclose(slope, (gradient * direction).sum().item(), rel_tol=1e-5, abs_tol=1e-6), key


@pytest.mark.parametrize("noise", [lambda: bm.noise.DiagonalNoise(2, 0.2), lambda: bm.noise.FullNoise(2, 0.2)])
def test_a_linear_kernel_is_alpaca(noise: Callable[[], bm.noise.Noise]) -> None:
    """V = variance / σ̄² in units of the noise, for two outputs with noise of different sizes."""
    torch.manual_seed(0)
    features = bm.MLP(2, [8, 4])
    learner = DeepKernelTransfer(features, num_outputs=2, kernel=LinearKernel(1.7), noise=noise()).double()
    alpaca = bm.ALPaCA(
        features, num_outputs=2, covariance=bm.priors.IsotropicCovariance(4), noise=learner.likelihood.noise
    ).double()
    with torch.no_grad():
        for parameter in learner.likelihood.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
        unit = learner.likelihood.noise.covariance().det().sqrt()
        alpaca.prior.location.zero_()
        alpaca.prior.covariance.stddev.copy_((learner.kernel.variance.squeeze() / unit).sqrt())
    support, query = _tasks(num_outputs=2)
    a, b = learner.adapt(support).predict(query), alpaca.adapt(support).predict(query)
    torch.testing.assert_close(a.mean, b.mean, **CLOSE)
    torch.testing.assert_close(a.covariance(), b.covariance(), **CLOSE)
    torch.testing.assert_close(a.output_covariance, b.output_covariance, **CLOSE)
    torch.testing.assert_close(learner.log_evidence(support), alpaca.log_evidence(support), **CLOSE)


def test_two_outputs_with_equal_noise_are_two_learners() -> None:
    both, (support, query) = _learner(num_outputs=2), _tasks(num_outputs=2)
    with torch.no_grad():
        both.likelihood.noise.value.raw.fill_(-2.0)
    one = _learner()
    one.load_state_dict(
        {**both.state_dict(), "mean": torch.zeros(1), "likelihood.noise.value.raw": torch.tensor([-2.0])}
    )
    evidence, prediction = torch.zeros(3, dtype=D), both.adapt(support).predict(query)
    for c in (0, 1):
        with torch.no_grad():
            one.mean.copy_(both.mean[c])
        data = bm.Data(support.x, support.y[..., c : c + 1], support.mask)
        evidence += one.log_evidence(data).detach()
        alone = one.adapt(data).predict(query)
        torch.testing.assert_close(prediction.mean[..., c : c + 1], alone.mean, **CLOSE)
        torch.testing.assert_close(prediction.variance[..., c : c + 1], alone.variance, **CLOSE)
    torch.testing.assert_close(both.log_evidence(support).detach(), evidence, **CLOSE)


def test_a_mean_network_is_what_outcomes_deviate_from(tmp_path: object) -> None:
    torch.manual_seed(0)
    plain, (support, query) = _learner(), _tasks()
    with torch.no_grad():
        plain.mean.zero_()
    learner = DeepKernelTransfer(bm.MLP(2, [8, 3]), kernel=RBFKernel(), mean=bm.MLP(2, [5])).double()
    learner.load_state_dict({**learner.state_dict(), **{k: v for k, v in plain.state_dict().items() if k != "mean"}})
    mean = lambda x: learner.mean(x).detach()
    residual = bm.Data(support.x, support.y - mean(support.x), support.mask)
    prediction, expected = learner.adapt(support).predict(query), plain.adapt(residual).predict(query)
    torch.testing.assert_close(prediction.mean, mean(query) + expected.mean, **CLOSE)
    torch.testing.assert_close(prediction.variance, expected.variance, **CLOSE)
    torch.testing.assert_close(learner.log_evidence(support), plain.log_evidence(residual), **CLOSE)
    assert "mean.output.weight" in dict(learner.named_parameters())
    bm.save(learner, f"{tmp_path}/model")
    assert torch.equal(bm.load(f"{tmp_path}/model").adapt(support).predict(query).mean, prediction.mean)
    with pytest.raises(ShapeError, match=r"expected a mean of inputs of shape \(2,\), got \(1,\)"):
        DeepKernelTransfer(bm.MLP(2, [3]), mean=bm.MLP(1, [3]))


def test_parameters_in_float32_give_matrices_in_float64() -> None:
    learner, (support, query) = _learner().float(), _tasks()
    rows = learner.features(support.x.float()).double().detach()
    kernel = learner.theta().gram(rows, rows)
    assert kernel.dtype == D
    assert torch.linalg.eigvalsh(kernel.detach()).min() > -1e-12  # float32 matrices have eigenvalues of -1e-6
    assert learner.adapt(support).predict(query).mean.dtype == D


def test_the_objective_is_the_evidence_of_whole_tasks() -> None:
    learner, (support, _) = _learner(), _tasks()
    query, _ = _tasks(seed=1)
    batch = bm.TaskBatch(support, query)
    posterior, total = learner.condition(support), learner.log_evidence(support)
    total = total + posterior.at(query.x).log_prob(query.y, query.mask)  # the chain rule
    torch.testing.assert_close(-learner.meta_loss(batch) * support.append(query).counts.clamp(min=1), total, **CLOSE)


def test_float32_training_lowers_the_loss() -> None:
    torch.manual_seed(0)
    learner = DeepKernelTransfer(bm.MLP(1, [16, 16]), kernel=SpectralMixtureKernel())
    tasks = bm.tasks.Sinusoid.maml().dataset(200, 10, seed=0)  # the noise starts from all of them, fourteen times over
    result = bm.fit(learner, tasks, steps=60, lr=1e-2, split=bm.tasks.RandomSplit((5, 5), 5))
    assert sum(result.losses[-10:]) / 10 < sum(result.losses[:10]) / 10 - 0.3


# ----------------------------------------------------------------------------------------------------------- hyperprior


def test_the_hyperprior_is_the_gaussian_of_the_weights_and_the_kernels_priors() -> None:
    learner = _learner("own")
    weights = torch.cat([p.detach().flatten() for p in learner.features.parameters()])
    expected = torch.distributions.Normal(0.0, 0.5).log_prob(weights).sum()
    period = learner.kernel.base_kernel.period_length.detach()
    expected = expected + torch.distributions.Gamma(2.0, 1.0).log_prob(period).sum()
    total = WithHyperprior(learner, GaussianHyperprior(0.5)).log_hyperprior().detach()
    torch.testing.assert_close(total, expected, rtol=1e-6, atol=1e-6)  # a float32 prior
    plain = _learner()
    assert plain.log_hyperprior() == 0.0
    of_mean = GaussianHyperprior(2.0, names=["mean", "kernel."])
    count = sum(p.numel() for p in plain.kernel.parameters()) + 1
    squares = plain.mean.square().sum() + sum(p.square().sum() for p in plain.kernel.parameters())
    by_hand = -0.5 * squares / 4.0 - count * (math.log(2.0) + 0.5 * math.log(2 * math.pi))
    torch.testing.assert_close(WithHyperprior(plain, of_mean).log_hyperprior(), by_hand)
    both = WithHyperprior(bm.Standardized(WithHyperprior(plain, of_mean)), of_mean)  # they add up, under any wrapper
    torch.testing.assert_close(both.log_hyperprior(), 2.0 * by_hand)


def test_the_hyperprior_is_part_of_training() -> None:
    """A tight prior on the weights keeps them small; they start alike."""
    tasks = bm.tasks.Sinusoid.maml().dataset(5, 10, seed=0)
    norms = []
    for hyperprior in (None, GaussianHyperprior(0.01)):
        torch.manual_seed(0)
        learner = DeepKernelTransfer(bm.MLP(1, [8]))
        bm.fit(learner if hyperprior is None else WithHyperprior(learner, hyperprior), tasks, steps=100, lr=3e-2)
        norms.append(sum(p.square().sum() for p in learner.features.parameters()).item())
    assert norms[1] < 0.1 * norms[0]


# ------------------------------------------------------------------------------------------------------ save and refuse


@pytest.mark.parametrize("name", [name for name in KERNELS if name not in ("cosine", "sum of gpytorch's")])
def test_a_model_folder_holds_the_kernel(name: str, tmp_path: object) -> None:
    learner, (support, query) = WithHyperprior(_learner(name), GaussianHyperprior(0.3)), _tasks()
    bm.save(learner, f"{tmp_path}/model")
    loaded = bm.load(f"{tmp_path}/model")
    assert describe(loaded) == describe(learner)
    assert torch.equal(loaded.adapt(support).predict(query).mean, learner.adapt(support).predict(query).mean)
    assert torch.equal(loaded.log_hyperprior(), learner.log_hyperprior())


def test_a_foreign_kernel_cannot_be_stored(tmp_path: object) -> None:
    learner = _learner("cosine")
    with pytest.raises(UnsupportedError, match=r"model.kernel to be .*Described, got ScaleKernel"):
        bm.save(learner, f"{tmp_path}/model")
    other = _learner("cosine")
    other.load_state_dict(learner.state_dict())  # its weights can


class Statistics(bm.Network):
    """Depends on the other points."""

    pointwise = False

    def __init__(self) -> None:
        super().__init__()
        self.x_shape, self.num_outputs = (2,), 2

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(1, keepdim=True)


def _head(kernel: object) -> GaussianProcessHead:
    return GaussianProcessHead(3, kernel=kernel)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "kind",
    [DeepKernelTransfer, lambda net, *, kernel=None: DeepKernelClassifier(net, head=kernel and _head(kernel))],
    ids=["transfer", "classifier"],
)
def test_what_it_refuses_when_made(kind: Callable[..., object]) -> None:
    net = bm.MLP(2, [3])
    for kernel in (gpytorch.kernels.RBFKernel(ard_num_dims=2), gpytorch.kernels.SpectralMixtureKernel(4, 2)):
        with pytest.raises(ShapeError, match=r"expected a kernel on 3 features, got one that refuses them: .* Got 3"):
            kind(net, kernel=kernel)
    with pytest.raises(ShapeError, match=r"expected a kernel on 3 features"):
        kind(net, kernel=gpytorch.kernels.RBFKernel(active_dims=[5]))
    for kernel in (nn.Linear(3, 1), "rbf", gpytorch.kernels.RBFKernel):
        with pytest.raises(UnsupportedError, match=r"expected a kernel, such as bayesmeta.kernels.RBFKernel"):
            kind(net, kernel=kernel)
    with pytest.raises(UnsupportedError, match=r"without batch axes, .* batch_shape \(2,\)"):
        kind(net, kernel=gpytorch.kernels.RBFKernel(batch_shape=torch.Size([2])))
    with pytest.raises(UnsupportedError, match=r"one covariance for two points, got MultitaskKernel.*\(4, 6\)"):
        kind(net, kernel=gpytorch.kernels.MultitaskKernel(gpytorch.kernels.RBFKernel(), num_tasks=2))
    with pytest.raises(UnsupportedError, match=r"expected features that inherit bayesmeta.Network"):
        kind(nn.Linear(2, 3))
    with pytest.raises(UnsupportedError, match=r"expected features of each point on its own"):
        kind(Statistics())


def test_values_out_of_range() -> None:
    with pytest.raises(DataError, match="expected a positive"):
        GaussianHyperprior(0.0)
    with pytest.raises(DataError, match="at least one name prefix"):
        GaussianHyperprior(names=[])
    with pytest.raises(DataError, match=r"parameters of the learner, got 'network'"):
        WithHyperprior(_learner(), GaussianHyperprior(names=["network"])).log_hyperprior()
    with pytest.raises(ShapeError, match="noise over 1 outputs, got 2"):
        DeepKernelTransfer(bm.MLP(2, [3]), noise=bm.noise.DiagonalNoise(2))


def test_what_it_says_when_inference_fails() -> None:
    support, _ = _tasks()
    learner = DeepKernelTransfer(bm.MLP(2, [8, 3]), kernel=gpytorch.kernels.CosineKernel()).double()
    learner.kernel.period_length = 0.01  # the cosine of a distance in three dimensions: indefinite
    with torch.no_grad():
        learner.likelihood.noise.value.set(1e-6)
    with pytest.raises(InferenceError, match=r"not positive semi-definite on these points.*noise"):
        learner.adapt(support)
    with torch.no_grad():
        learner.features.layers[0].weight[0, 0] = torch.nan
    with pytest.raises(InferenceError, match=r"not finite: features or kernel parameters have diverged"):
        learner.log_evidence(support)
    with pytest.raises(DataError, match=r"expected numbers for DeepKernelTransfer .*, got labels: take a classifier"):
        _learner().adapt(bm.Data(support.x, torch.zeros(3, 6, dtype=torch.long), support.mask))
