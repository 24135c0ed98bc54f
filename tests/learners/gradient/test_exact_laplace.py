"""Laplace around an optimum is exact where the network is linear in phi; elsewhere it is the dense computation."""

import math
from collections.abc import Callable

import pytest
import torch
from scipy import integrate
from torch import Tensor, nn
from torch.func import functional_call, jacrev

import bayesmeta as bm
from bayesmeta.learners.gradient.base import GradientLearner

D = torch.float64
PRECISION, NOISE = 5.0, 0.3
CLOSE = {"rtol": 1e-7, "atol": 1e-7}  # the optimum is found to 1e-9 or better


class LastLayer(bm.WholeNetwork):
    """Features that all tasks share, and a last layer without bias."""

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.features = bm.MLP(1, [5])
        self.head = nn.Linear(5, num_outputs, bias=False)
        self.x_shape, self.num_outputs = (1,), num_outputs

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class Basis(bm.Network):
    """h(x), then U(x)."""

    def __init__(self, num_context: int) -> None:
        super().__init__()
        self.level, self.slopes = bm.MLP(1, [4]).with_outputs(1), bm.MLP(1, [num_context])
        self.x_shape, self.num_outputs = (1,), 1 + num_context

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.level(x), self.slopes(x)], -1)


class LinearInContext(bm.WholeNetwork):
    """h(x) + U(x) c, of the inputs [x, c]: `Level(basis)` with a context."""

    def __init__(self, basis: Basis) -> None:
        super().__init__()
        self.basis = basis
        self.x_shape, self.num_outputs = (basis.num_outputs,), 1

    def forward(self, x: Tensor) -> Tensor:
        values = self.basis(x[..., :1])
        return values[..., :1] + (values[..., 1:] * x[..., 1:]).sum(-1, keepdim=True)


class Level(bm.WholeNetwork):
    """h(x), which takes a context as `LinearInContext`."""

    def __init__(self, basis: Basis) -> None:
        super().__init__()
        self.basis = basis
        self.x_shape, self.num_outputs = (1,), 1

    def forward(self, x: Tensor) -> Tensor:
        return self.basis(x)[..., :1]

    def with_context(self, size: int) -> LinearInContext:
        """With the basis as it is."""
        return LinearInContext(self.basis)


def _tasks(num_outputs: int = 1) -> bm.TaskBatch:
    """Five tasks of 0 to 6 support points, and 4 query points."""
    x = torch.randn(5, 10, 1, dtype=D)
    y = torch.randn(5, 10, num_outputs, dtype=D)
    mask = torch.arange(6) < torch.tensor([6, 3, 1, 0, 5])[:, None]
    return bm.TaskBatch(bm.Data(x[:, :6], y[:, :6], mask), bm.Data.full(x[:, 6:], y[:, 6:]))


def _gaussian(num_outputs: int = 1) -> bm.likelihoods.Gaussian:
    return bm.likelihoods.Gaussian(bm.noise.DiagonalNoise(num_outputs, NOISE))


def _imaml(num_outputs: int, posterior: bm.Linearized | None = None) -> bm.IMAML:
    solver, network = bm.inference.LBFGS(200, 1e-12), LastLayer(num_outputs)
    return bm.IMAML(
        network,
        precision=PRECISION,
        solver=solver,
        likelihood=_gaussian(num_outputs),
        posterior=posterior,
        adapted=["head"],
    ).double()


def _llama(num_outputs: int, posterior: bm.Linearized | None = None) -> bm.LLAMA:
    network = LastLayer(num_outputs)
    return bm.LLAMA(
        network,
        precision=PRECISION,
        likelihood=_gaussian(num_outputs),
        posterior=posterior,
        adapted=["head"],
    ).double()


def _alpaca(learner: bm.IMAML | bm.LLAMA) -> bm.ALPaCA:
    """The same model: W ~ N(K_0, I / precision), as V Σ = I / precision with Σ = σ² I."""
    network, noise = learner.network, learner.likelihood.noise
    precision = learner.prior.precision().item()
    alpaca = bm.ALPaCA(
        network.features,
        num_outputs=network.num_outputs,
        covariance=bm.priors.IsotropicCovariance(5, 1.0 / (precision * NOISE)),
        noise=noise,
    ).double()
    with torch.no_grad():
        alpaca.prior.covariance.stddev.fill_((precision * NOISE) ** -0.5)  # in float64
        noise.value.set(torch.full((network.num_outputs,), NOISE, dtype=D))
        alpaca.prior.location.copy_(network.head.weight.T)
    return alpaca


def _assert_same_posterior(a: bm.TaskPosterior, b: bm.TaskPosterior, query: bm.Data) -> None:
    a, b = a.predict(query.x), b.predict(query.x)
    torch.testing.assert_close(a.mean, b.mean, **CLOSE)
    torch.testing.assert_close(a.stddev, b.stddev, **CLOSE)
    torch.testing.assert_close(a.log_prob(query.y), b.log_prob(query.y), **CLOSE)
    torch.testing.assert_close(a.noiseless.stddev, b.noiseless.stddev, **CLOSE)


@pytest.mark.parametrize("num_outputs", [1, 2])
@pytest.mark.parametrize("make", [_imaml, _llama])
def test_with_a_linear_last_layer_it_is_bayesian_regression(
    make: Callable[[int], bm.IMAML | bm.LLAMA], num_outputs: int
) -> None:
    learner, tasks = make(num_outputs), _tasks(num_outputs)
    alpaca = _alpaca(learner)
    found, expected = learner.adapt(tasks.support), alpaca.adapt(tasks.support)
    torch.testing.assert_close(found.mean["head.weight"].mT, expected.mean["weight"], **CLOSE)
    _assert_same_posterior(found, expected, tasks.query)
    _assert_same_posterior(found.update(tasks.query), expected.update(tasks.query), tasks.query)


@pytest.mark.parametrize("num_outputs", [1, 2])
def test_the_evidence_of_llama_is_exact(num_outputs: int) -> None:
    learner, tasks = _llama(num_outputs), _tasks(num_outputs)
    with torch.no_grad():
        found, expected = (model.log_evidence(tasks.support) for model in (learner, _alpaca(learner)))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert found[3] == 0.0  # no points
    data = tasks.support.append(tasks.query)
    with torch.no_grad():
        loss = learner.meta_loss(tasks)
    torch.testing.assert_close(loss, -_alpaca(learner).log_evidence(data).detach() / data.counts, rtol=1e-6, atol=1e-6)


def test_the_gradient_of_llamas_evidence_is_exact() -> None:
    learner, tasks = _llama(1), _tasks()
    alpaca = _alpaca(learner)
    for model in (learner, alpaca):
        model.log_evidence(tasks.support).sum().backward()
    weight = learner.network.head.weight
    torch.testing.assert_close(weight.grad.T, alpaca.prior.location.grad, rtol=1e-6, atol=1e-6)
    # V = stddev² = 1 / (precision σ²): d/dlog precision is -1/2 of that in log stddev. (raw is log precision but for
    # bounds at 1e-8 and 1e8)
    stddev = alpaca.prior.covariance.stddev
    found = learner.prior.precision.raw.grad
    torch.testing.assert_close(found, -0.5 * stddev * stddev.grad, rtol=1e-5, atol=1e-6)


def test_with_a_linear_context_cavia_is_bayesian_regression() -> None:
    basis = Basis(3)
    # the level has the coefficient 1 in all tasks; U Uᵀ <= 3, and the prior's σ² / N = 0.05 is the smallest curvature
    learner = bm.CAVIA(Level(basis), num_context=3, steps=2000, lr=0.3, likelihood=_gaussian()).double()
    alpaca = bm.ALPaCA(
        basis,
        num_outputs=1,
        covariance=bm.priors.IsotropicCovariance(4, varying=[1, 2, 3]),
        noise=learner.likelihood.noise,
    ).double()
    with torch.no_grad():
        learner.likelihood.noise.value.set(torch.full((1,), NOISE, dtype=D))
        alpaca.prior.covariance.stddev.fill_(NOISE**-0.5)
        alpaca.prior.location.copy_(torch.tensor([[1.0], [0.0], [0.0], [0.0]]))
    tasks = _tasks()
    found, expected = learner.adapt(tasks.support), alpaca.adapt(tasks.support)
    torch.testing.assert_close(found.mean["context"], expected.mean["weight"][:, 1:, 0], **CLOSE)
    _assert_same_posterior(found, expected, tasks.query)


# ------------------------------------------------------------------------------------------ against a dense computation


def _output(learner: GradientLearner, phi: dict[str, Tensor], x: Tensor) -> Tensor:
    """Network outputs of one task: the network's own forward."""
    if isinstance(learner, bm.CAVIA):
        inputs = torch.cat([x, phi["context"].expand(len(x), -1)], -1)
        return learner.network(inputs[None])[0]
    return functional_call(learner.network, phi, (x[None],))[0]


def _rows(learner: GradientLearner, phi: dict[str, Tensor], x: Tensor) -> Tensor:
    """J of one task, `NK P`, by torch's own jacobian."""
    parts = jacrev(lambda phi: _output(learner, phi, x))(phi)
    size = len(x) * learner.network.num_outputs
    return torch.cat([parts[name].reshape(size, value.numel()) for name, value in phi.items()], 1)


def _squares(learner: GradientLearner, support: bm.Data, b: int) -> Tensor:
    """Prior variances, or rates on the sum over points."""
    phi = learner.start(1)
    if isinstance(learner, bm.CAVIA):
        return torch.ones(phi["context"].numel(), dtype=D)
    if isinstance(learner, bm.LLAMA | bm.IMAML):
        size = sum(value.numel() for value in phi.values())
        return (1.0 / learner.prior.precision().detach()).expand(size)
    rates = learner.rates()
    alpha = torch.cat([rates[name].detach().expand(value.shape[1:]).flatten() for name, value in phi.items()])
    return alpha * learner.likelihood.unit().detach() / max(int(support.counts[b]), 1)


def _dense_covariance(learner: GradientLearner, support: bm.Data, phi: dict[str, Tensor], b: int) -> Tensor:
    """S (I + SGS)⁻¹ S or S s(SGS) S, of all of G or of its diagonal."""
    x = support.x[b][support.mask[b]]
    rows, squares = _rows(learner, phi, x), _squares(learner, support, b)
    size_k = learner.network.num_outputs
    f = _output(learner, phi, x).detach()
    if isinstance(learner.likelihood, bm.likelihoods.Gaussian):
        each = torch.linalg.inv(learner.likelihood.noise.covariance().detach()).expand(len(x), -1, -1)
    elif isinstance(learner.likelihood, bm.likelihoods.Bernoulli):
        p = torch.sigmoid(f)
        each = (p * (1.0 - p))[..., None]
    else:
        p = f.softmax(-1)
        each = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    rows = rows.unflatten(0, (len(x), size_k))
    information = torch.einsum("nkp,nkl,nlq->pq", rows, each, rows)
    if isinstance(learner.posterior, bm.LinearizedDiagonal):
        information = torch.diag(information.diagonal())
    scale = squares.sqrt()
    values, vectors = torch.linalg.eigh(scale[:, None] * information * scale)
    values = values.clamp(min=0.0)
    if hasattr(learner, "prior"):
        spread = 1.0 / (1.0 + values)
    else:
        k, left = learner.steps, 1.0 - values
        series = sum(left**i for i in range(k))  # (1 - (1 - l)^k) / l
        spread = torch.where(values <= 1.0, series, 1.0 / values.clamp(min=1e-300))
    return scale[:, None] * (vectors * spread @ vectors.mT) * scale


def _mlp() -> bm.MLP:
    return bm.MLP(1, [4, 3])


MAKERS: dict[str, Callable[[bm.likelihoods.Likelihood, int, bm.Linearized], GradientLearner]] = {
    "maml": lambda likelihood, k, p: bm.MAML(_mlp(), steps=3, lr=0.3, likelihood=likelihood, posterior=p),
    "maml, last layer": lambda likelihood, k, p: bm.MAML(
        _mlp(), steps=3, lr=0.3, likelihood=likelihood, posterior=p, adapted=["output"]
    ),
    "meta-sgd": lambda likelihood, k, p: bm.MetaSGD(_mlp(), steps=4, lr=0.2, likelihood=likelihood, posterior=p),
    "llama": lambda likelihood, k, p: bm.LLAMA(_mlp(), precision=3.0, likelihood=likelihood, posterior=p),
    "imaml": lambda likelihood, k, p: bm.IMAML(_mlp(), precision=3.0, likelihood=likelihood, posterior=p),
    "cavia": lambda likelihood, k, p: bm.CAVIA(
        _mlp(), num_context=2, steps=2, lr=0.5, likelihood=likelihood, posterior=p
    ),
}


def _moved(learner: GradientLearner) -> GradientLearner:
    learner = learner.double()
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return learner


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("posterior", [bm.Linearized(), bm.LinearizedDiagonal()], ids=["full", "diagonal"])
@pytest.mark.parametrize("name", MAKERS)
def test_predictive_covariance_is_the_dense_one(name: str, posterior: bm.Linearized, full: bool) -> None:
    noise = bm.noise.FullNoise(2, NOISE) if full else bm.noise.DiagonalNoise(2, NOISE)
    learner, tasks = _moved(MAKERS[name](bm.likelihoods.Gaussian(noise), 2, posterior)), _tasks(2)
    found = learner.adapt(tasks.support)
    prediction = found.predict(tasks.query.x)
    joint, sigma = prediction.covariance(), learner.likelihood.noise.covariance().detach()
    for b in range(5):
        phi = {key: value[b] for key, value in found.mean.items()}
        rows = _rows(learner, phi, tasks.query.x[b])
        covariance = rows @ _dense_covariance(learner, tasks.support, phi, b) @ rows.mT
        # float64, and information within 1e3 of the prior's: thirteen digits are left
        close = {"rtol": 1e-9, "atol": 1e-9 * max(1.0, covariance.abs().max().item())}
        torch.testing.assert_close(joint[b], covariance + torch.kron(torch.eye(4, dtype=D), sigma), **close)
        torch.testing.assert_close(prediction.noiseless.variance[b].flatten(), covariance.diagonal(), **close)
        torch.testing.assert_close(prediction.mean[b], _output(learner, phi, tasks.query.x[b]), **close)


@pytest.mark.parametrize("posterior", [bm.Linearized(), bm.LinearizedDiagonal()], ids=["full", "diagonal"])
@pytest.mark.parametrize("name", ["maml, last layer", "meta-sgd", "llama", "cavia"])
def test_draws_have_the_moments_of_the_posterior(name: str, posterior: bm.Linearized) -> None:
    learner, tasks, size = _moved(MAKERS[name](_gaussian(), 1, posterior)), _tasks(), 20_000
    found = learner.adapt(tasks.support)
    draws = found.sample(size, torch.Generator().manual_seed(0))
    for key, value in draws.items():
        assert value.shape == (size, *found.mean[key].shape)
    flat = torch.cat([value.flatten(2) for value in draws.values()], 2)
    for b in range(5):
        phi = {key: value[b] for key, value in found.mean.items()}
        expected = _dense_covariance(learner, tasks.support, phi, b)
        mean = torch.cat([value.flatten() for value in phi.values()])
        deviation = expected.diagonal().sqrt()
        white = (flat[:, b] - mean) / deviation
        # standard errors: 1/√n of a mean, √((1 + r²)/n) <= √(2/n) of a correlation; four of them, and up to 41² entries
        # of five tasks: five
        assert white.mean(0).abs().max() < 5.0 / size**0.5
        correlation = expected / deviation[:, None] / deviation
        assert (white.mT @ white / size - correlation).abs().max() < 5.0 * (2.0 / size) ** 0.5


# ------------------------------------------------------------------------------------------------------------- classes


def _labelled(tasks: bm.TaskBatch, num_classes: int) -> bm.TaskBatch:
    sides = (
        bm.Data(d.x, (d.y[..., 0] > 0.0).long() + (num_classes > 2) * (d.x[..., 0] > 0.5).long(), d.mask)
        for d in (tasks.support, tasks.query)
    )
    return bm.TaskBatch(*sides)


def _expected_sigmoid(mean: float, variance: float) -> float:
    """E sigmoid(N(mean, variance)), by adaptive quadrature."""
    density = lambda z: math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
    value, _ = integrate.quad(
        lambda z: density(z) / (1.0 + math.exp(-mean - math.sqrt(variance) * z)), -10.0, 10.0, epsabs=1e-10
    )
    return value


@pytest.mark.parametrize("name", MAKERS)
def test_two_classes_against_quadrature(name: str) -> None:
    """With two classes only the difference of f matters: one integral."""
    tasks = _labelled(_tasks(), 2)
    torch.manual_seed(1)
    learner = _moved(MAKERS[name](bm.likelihoods.Categorical(2), 2, bm.Linearized(draws=20_000)))
    found = learner.adapt(tasks.support)
    probs = found.predict(tasks.query.x).marginals.probs[..., 1]
    torch.manual_seed(1)
    closed = _moved(MAKERS[name](bm.likelihoods.Categorical(2), 2, bm.Linearized())).adapt(tasks.support)
    closed_probs = closed.predict(tasks.query.x).probs[..., 1]
    for b in range(5):
        phi = {key: value[b] for key, value in found.mean.items()}
        x = tasks.query.x[b]
        f, rows = _output(learner, phi, x).detach(), _rows(learner, phi, x)
        covariance = rows @ _dense_covariance(learner, tasks.support, phi, b) @ rows.mT
        for m in range(4):
            block = covariance[2 * m : 2 * m + 2, 2 * m : 2 * m + 2]
            direction = torch.tensor([-1.0, 1.0], dtype=D)
            mean, variance = (f[m] @ direction).item(), (direction @ block @ direction).item()
            expected = _expected_sigmoid(mean, variance)
            # a sigmoid's standard deviation is below 1/2: four standard errors of 20,000 draws
            assert math.isclose(probs[b, m].item(), expected, abs_tol=4.0 * 0.5 / 20_000**0.5)
            # the error that Bernoulli.marginal states for a standard deviation of up to 3
            assert variance < 9.0
            assert math.isclose(closed_probs[b, m].item(), expected, abs_tol=1e-5)


@pytest.mark.parametrize("name", MAKERS)
def test_bernoulli_against_quadrature(name: str) -> None:
    tasks = _labelled(_tasks(), 2)
    learner = _moved(MAKERS[name](bm.likelihoods.Bernoulli(), 1, bm.Linearized()))
    found = learner.adapt(tasks.support)
    probs = found.predict(tasks.query.x).probs[..., 1]
    for b in range(5):
        phi = {key: value[b] for key, value in found.mean.items()}
        x = tasks.query.x[b]
        f, rows = _output(learner, phi, x).detach(), _rows(learner, phi, x)
        variance = (rows @ _dense_covariance(learner, tasks.support, phi, b) @ rows.mT).diagonal()
        for m in range(4):
            assert variance[m] < 9.0
            # the error that Bernoulli.marginal states for a standard deviation of up to 3
            assert math.isclose(probs[b, m].item(), _expected_sigmoid(f[m, 0].item(), variance[m].item()), abs_tol=1e-5)


@pytest.mark.parametrize("name", ["maml, last layer", "llama"])
def test_draws_agree_with_the_rescaling_where_belief_is_narrow(name: str) -> None:
    tasks = _labelled(_tasks(), 3)
    probs = []
    for posterior in (bm.Linearized(), bm.Linearized(draws=2000)):
        torch.manual_seed(2)
        learner = _moved(MAKERS[name](bm.likelihoods.Categorical(3), 3, posterior))
        with torch.no_grad():
            if isinstance(learner, bm.LLAMA):
                learner.prior.precision.set(30.0)
            else:
                learner.rate.set(0.05)
        probs.append(learner.adapt(tasks.support).predict(tasks.query.x).marginals.probs)
    # four standard errors of 2,000 draws whose deviation is 0.2, and the probit's own error
    assert (probs[0] - probs[1]).abs().max() < 0.02
