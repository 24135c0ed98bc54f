"""Oracles are exact: against brute force, gpytorch and published ceilings; and calibrated on their own tasks."""

import itertools
import math

import gpytorch
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import kstest
from torch import Tensor

from bayesmeta.data import Data, TaskBatch
from bayesmeta.errors import DataError
from bayesmeta.tasks.oracles import amplitude
from bayesmeta.tasks.oracles.gp import GaussianProcessOracle
from bayesmeta.tasks.oracles.mesh import Uniform
from bayesmeta.tasks.oracles.sinusoid import SinusoidOracle
from bayesmeta.tasks.oracles.step import StepOracle
from bayesmeta.tasks.simulators.cauchy import Cauchy
from bayesmeta.tasks.simulators.gp_functions import GPFunctions
from bayesmeta.tasks.simulators.metal_benchmark import metal_benchmark
from bayesmeta.tasks.simulators.simulator import Simulator
from bayesmeta.tasks.simulators.sinusoid import Sinusoid
from bayesmeta.tasks.simulators.sloped_sinusoid import SlopedSinusoid
from bayesmeta.tasks.simulators.step import Step
from bayesmeta.tasks.source import PrefixSplit, RandomSplit

LOG_2PI = math.log(2.0 * math.pi)
SIMULATORS = {
    "maml": Sinusoid.maml(),
    "alpaca": Sinusoid.alpaca(),
    "meta_sgd": Sinusoid.meta_sgd(),
    "metal_easy": SlopedSinusoid.metal_easy(),
    "metal_hard": SlopedSinusoid.metal_hard(),
    "matern": GPFunctions.matern(),
    "cauchy": Cauchy(),
    "step": Step(),
}
every = pytest.mark.parametrize("simulator", SIMULATORS.values(), ids=SIMULATORS)


def draw(simulator: Simulator, num_tasks: int, shots: int | tuple[int, int], query: int, seed: int = 0) -> TaskBatch:
    bounds = shots if isinstance(shots, tuple) else (shots, shots)
    batch = simulator.draw(num_tasks, RandomSplit(bounds, query), torch.Generator().manual_seed(seed))
    return batch.to(torch.float64)


def floor(mean: Tensor, variance: Tensor, y: Tensor) -> Tensor:
    """Log density of the Gaussian with the oracle's own mean and variance."""
    return -0.5 * ((y - mean).square() / variance + variance.log() + LOG_2PI)[..., 0]


# --- what every oracle keeps ------------------------------------------------------------------------------------------


@every
def test_padding_order_precision_and_streaming_do_not_matter(simulator: Simulator) -> None:
    oracle = simulator.oracle
    assert oracle is not None
    batch = draw(simulator, 4, 5, 3)
    support, x, y = batch.support, batch.query.x, batch.query.y
    one = oracle.adapt(support).predict(x)
    padded = Data(
        torch.cat([support.x[:, :2], torch.full_like(support.x[:, :1], 7.7), support.x[:, 2:].flip(1)], 1),
        torch.cat([support.y[:, :2], torch.full_like(support.y[:, :1], 1e3), support.y[:, 2:].flip(1)], 1),
        torch.tensor([[True, True, False, True, True, True]]).expand(4, -1),
    )
    first, rest = support.points(slice(2)), support.points(slice(2, None))
    other = [oracle.adapt(padded).predict(x), oracle.adapt(first).update(rest).predict(x)]
    other.append(oracle.adapt(support.select([2])).predict(x[2:3]))
    for prediction, tasks in zip(other, (slice(None), slice(None), slice(2, 3)), strict=True):
        # rounding in float64; a mesh also breaks ties between cells by it, which moves it by its own error of 1e-4
        torch.testing.assert_close(prediction.mean, one.mean[tasks], rtol=0.0, atol=1e-4)
        torch.testing.assert_close(prediction.log_prob(y[tasks]), one.log_prob(y)[tasks], rtol=0.0, atol=1e-4)
    single = oracle.adapt(support.to(torch.float32)).predict(x.float())
    assert single.mean.dtype == torch.float64
    # the data were drawn in float32, so nothing is lost
    torch.testing.assert_close(single.log_prob(y.float()), one.log_prob(y), rtol=0.0, atol=1e-9)


@every
def test_moments_quantiles_densities_and_draws_are_of_one_distribution(simulator: Simulator) -> None:
    assert simulator.oracle is not None
    batch = draw(simulator, 3, (0, 3), 2)
    prediction = simulator.oracle.adapt(batch.support).predict(batch.query.x)
    mean, deviation = prediction.mean, prediction.stddev
    draws = prediction.sample((20_000,), torch.Generator().manual_seed(0))
    # a mean of 20,000 is known to .7 % of a deviation, a deviation to about .5 %; four of these
    assert ((draws.mean(0) - mean).abs() / deviation).max() < 0.03
    assert (draws.std(0) / deviation - 1.0).abs().max() < 0.02
    for q in (0.05, 0.5, 0.9):
        place = prediction.quantile(q)
        # Newton stops within 1e-7 deviations, and the density is at most a few per deviation
        torch.testing.assert_close(prediction.cdf(place), torch.full_like(place, q), rtol=0.0, atol=1e-5)
        share = (draws <= place).double().mean(0)
        assert (share - q).abs().max() < 4.0 * (q * (1.0 - q) / 20_000) ** 0.5 + 2e-3  # 2e-3: error of a mesh's cdf
    grid = mean + deviation * torch.linspace(-8.0, 8.0, 401, dtype=torch.float64)[:, None, None, None]
    density = torch.stack([prediction.marginal_log_prob(y).exp() for y in grid])[..., None]
    step = grid[1] - grid[0]
    # steps of .04 deviations are 1.2 deviations of the noise or less: the trapezoid rule errs by 1e-5
    torch.testing.assert_close((density.sum(0) * step), torch.ones_like(mean), rtol=0.0, atol=2e-3)
    torch.testing.assert_close((density * grid).sum(0) * step, mean, rtol=0.0, atol=5e-3 * float(deviation.max()))
    torch.testing.assert_close(prediction.marginals.log_prob(mean), prediction.marginal_log_prob(mean))


@every
def test_joint_density_of_one_point_is_its_marginal_and_masked_points_do_not_count(simulator: Simulator) -> None:
    assert simulator.oracle is not None
    batch = draw(simulator, 20, (0, 6), 2, seed=1)
    prediction = simulator.oracle.adapt(batch.support).predict(batch.query.x)
    y = batch.query.y
    mask = torch.tensor([[True, False]]).expand(20, -1)
    marginal = prediction.marginal_log_prob(y)
    # two meshes, each off by 3e-3 nats on average where the frequency is unknown, and by up to 1e-1 at outlying points
    difference = (prediction.log_prob(y, mask) - marginal[:, 0]).abs()
    assert difference.mean() < 1e-2
    assert difference.max() < 0.2
    assert prediction.log_prob(y, torch.zeros_like(mask)).abs().max() < 1e-9
    assert (prediction.log_prob(y) - marginal.sum(-1)).abs().max() > 0.01  # points are dependent


@pytest.mark.parametrize("shots", [0, 2, 8])
@every
def test_probability_integral_transforms_are_uniform(simulator: Simulator, shots: int) -> None:
    """One query point of 200 independent tasks: the posterior predictive of the true prior is calibrated."""
    assert simulator.oracle is not None
    batch = draw(simulator, 200, shots, 1, seed=shots + 2)
    level = simulator.oracle.adapt(batch.support).predict(batch.query.x).cdf(batch.query.y)
    assert kstest(level.flatten().numpy(), "uniform").pvalue > 1e-3  # 24 cases: a false alarm in 2 % of seeds


@pytest.mark.parametrize("shots", [0, 2])
def test_calibration_would_notice_a_wrong_prior(shots: int) -> None:
    batch = draw(Sinusoid(amplitude=(0.1, 3.0)), 300, shots, 1)
    wrong = SinusoidOracle((0.1, 5.0), Uniform(0.0, math.pi), Uniform(1.0, 1.0), 0.04)
    level = wrong.adapt(batch.support).predict(batch.query.x).cdf(batch.query.y)
    assert kstest(level.flatten().numpy(), "uniform").pvalue < 1e-4


# --- sinusoids --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("linear", [-500.0, -3.0, 0.0, 2.0, 70.0, 4000.0])
@pytest.mark.parametrize("precision", [0.0, 1e-9, 0.3, 20.0, 1500.0, 1e5])
def test_amplitude_integrals_equal_adaptive_quadrature(linear: float, precision: float) -> None:
    low, high = 0.1, 5.0
    mode = min(max(linear / max(precision, 1e-300), low), high)
    top = mode * (linear - 0.5 * mode * precision)
    width = min(1.0 / max(precision, 1e-300) ** 0.5, 1.0 / max(abs(linear - precision * mode), 1e-300))
    ends = sorted({low, high, *(min(max(mode + k * width, low), high) for k in (-40.0, -5.0, 0.0, 5.0, 40.0))})
    integrand = lambda a: math.exp(a * (linear - 0.5 * a * precision) - top)
    expected = sum(quad(integrand, a, b, epsabs=0.0, epsrel=1e-10)[0] for a, b in itertools.pairwise(ends))
    arguments = torch.tensor([linear], dtype=torch.float64), torch.tensor([precision], dtype=torch.float64)
    value = amplitude.log_integral(*arguments, (low, high)).item() - top
    # the continued fraction has 9 digits; `top` is up to 2e4, so its own rounding is below 1e-11
    assert value == pytest.approx(math.log(expected / (high - low)), abs=1e-8)
    place, weights = amplitude.nodes(*arguments, (low, high), 24)
    mean = sum(quad(lambda a: a * integrand(a), a, b, epsrel=1e-10)[0] for a, b in itertools.pairwise(ends)) / expected
    assert (place * weights).sum().item() == pytest.approx(mean, rel=1e-5)  # 18 nats are cut off: 1.5e-8 of the height


def brute_force(family: Sinusoid, batch: TaskBatch, task: int, sizes: tuple[int, int, int]) -> tuple[Tensor, ...]:
    """Marginal and joint log density, mean, deviation and cdf by a midpoint grid over (A, b, ω)."""
    bounds = (family.amplitude, family.phase, family.frequency)
    a, b, w = (
        low + (high - low) * (torch.arange(n, dtype=torch.float64) + 0.5) / n
        for (low, high), n in zip(bounds, sizes, strict=True)
    )
    wave = lambda x: torch.sin(w[:, None] * x + family.phase_sign * b[:, None, None])
    f = lambda x: (a[:, None, None, None] * wave(x)).flatten(0, 2)
    x, y = batch.support.x[task, :, 0], batch.support.y[task, :, 0]
    weights = (-0.5 * ((y - f(x)) / family.noise).square().sum(-1)).log_softmax(0)
    kept = weights > -40.0
    weights, query, y = weights[kept, None], f(batch.query.x[task, :, 0])[kept], batch.query.y[task, :, 0]
    each = -0.5 * (((y - query) / family.noise).square() + LOG_2PI) - math.log(family.noise)
    mean = (weights.exp() * query).sum(0)
    variance = (weights.exp() * (query - mean).square()).sum(0) + family.noise**2
    cdf = (weights.exp() * torch.special.ndtr((y - query) / family.noise)).sum(0)
    joint = (weights[:, 0] + each.sum(-1)).logsumexp(0)
    return (weights + each).logsumexp(0), joint, mean, variance.sqrt(), cdf


@pytest.mark.parametrize("shots", [0, 1, 2, 4])
@pytest.mark.parametrize(
    ("family", "sizes", "error"),
    [(Sinusoid.maml(), (400, 800, 1), 3e-3), (Sinusoid.meta_sgd(), (100, 160, 80), 3e-2)],
    ids=["maml", "meta_sgd"],
)
def test_sinusoids_equal_a_brute_force_grid(
    family: Sinusoid, sizes: tuple[int, int, int], error: float, shots: int
) -> None:
    batch = draw(family, 3, shots, 4, seed=shots)
    assert family.oracle is not None
    prediction = family.oracle.adapt(batch.support).predict(batch.query.x)
    y = batch.query.y
    got = (
        prediction.marginal_log_prob(y),
        prediction.log_prob(y),
        prediction.mean[..., 0],
        prediction.stddev[..., 0],
        prediction.cdf(y)[..., 0],
    )
    for task in range(3):
        marginal, joint, mean, deviation, cdf = brute_force(family, batch, task, sizes)
        # the mesh is good to 1e-3 nats at any point when the frequency is known, and to 1e-2 when it is not
        torch.testing.assert_close(got[0][task], marginal, rtol=0.0, atol=error)
        torch.testing.assert_close(
            got[1][task], joint, rtol=0.0, atol=4.0 * error
        )  # the grid has its error in 4 points
        assert ((got[2][task] - mean).abs() / deviation).max() < 0.01
        assert (got[3][task] / deviation - 1.0).abs().max() < 0.01
        torch.testing.assert_close(got[4][task], cdf, rtol=0.0, atol=4e-3)  # a mesh's cdf is good to 3e-3


def test_sinusoids_on_a_slope_equal_a_brute_force_grid() -> None:
    """Evidence on a grid over (A, a, p), with the line left inside a dense Gaussian covariance."""
    family = SlopedSinusoid.metal_hard()
    assert family.oracle is not None
    batch = draw(family, 2, 6, 1, seed=5)
    prediction = family.oracle.adapt(batch.support).predict(batch.query.x)
    quantiles = (torch.arange(600, dtype=torch.float64) + 0.5) / 600
    a = 0.7 + 0.7 * quantiles[10::20]
    shift = 2.0 * torch.special.ndtri(quantiles)
    period = 1.0 + quantiles[4::6]
    grid = [g.flatten() for g in torch.meshgrid(a, shift, period, indexing="ij")]
    both = batch.support.append(batch.query)
    evidences = []
    for data in (batch.support, both):
        x = data.x[..., 0]
        covariance = 0.36 * x[:, :, None] * x[:, None, :] + 0.64 + 0.04 * torch.eye(x.shape[1], dtype=x.dtype)
        normal = torch.distributions.MultivariateNormal(torch.zeros_like(x), covariance)
        f = grid[0][:, None, None] * torch.sin(grid[2][:, None, None] * (x - grid[1][:, None, None]))
        evidences.append(normal.log_prob(data.y[..., 0] - 0.5 * x - 5.0 - f).logsumexp(0))
    expected = evidences[1] - evidences[0]
    # 30 x 600 x 100 cells are a fraction of the posterior's width; the mesh errs by up to 3e-2 nats at single points
    torch.testing.assert_close(prediction.marginal_log_prob(batch.query.y)[:, 0], expected, rtol=0.0, atol=3e-2)
    torch.testing.assert_close(prediction.log_prob(batch.query.y), expected, rtol=0.0, atol=3e-2)


@pytest.mark.parametrize(
    ("family", "finer", "error"),
    [
        (Sinusoid.maml(), (2048, 128, 12), 6e-4),
        (Sinusoid.alpaca(), (2048, 128, 12), 6e-4),
        (SlopedSinusoid.metal_easy(), (2048, 128, 12), 6e-4),
        pytest.param(Sinusoid.meta_sgd(), (8192, 512, 16), 5e-3, marks=pytest.mark.slow),
        pytest.param(SlopedSinusoid.metal_hard(), (8192, 512, 16), 5e-3, marks=pytest.mark.slow),
    ],
    ids=["maml", "alpaca", "metal_easy", "meta_sgd", "metal_hard"],
)
def test_the_mesh_has_converged(family: Sinusoid | SlopedSinusoid, finer: tuple[int, int, int], error: float) -> None:
    """The stated average error in nats per point, against a mesh that is many times finer."""
    oracle = family.oracle
    assert isinstance(oracle, SinusoidOracle)
    line = oracle.line if oracle.line else None
    reference = SinusoidOracle(
        oracle.amplitude,
        oracle.shift,
        oracle.frequency,
        oracle.noise_variance,
        line=line,
        shift_in_x=oracle.shift_in_x,
        resolution=finer,
    )
    for shots in (0, 1, 2, 3, 6):
        batch = draw(family, 12, shots, 10, seed=shots)
        coarse, fine = (o.adapt(batch.support).predict(batch.query.x) for o in (oracle, reference))
        difference = coarse.marginal_log_prob(batch.query.y) - fine.marginal_log_prob(batch.query.y)
        assert difference.abs().mean() < error
        assert ((coarse.mean - fine.mean).abs() / fine.stddev).mean() < 10 * error
        assert (coarse.log_prob(batch.query.y) - fine.log_prob(batch.query.y)).abs().mean() / 10 < error


def test_a_gaussian_cannot_reach_the_bayes_optimum_of_mamls_sinusoids_at_few_shots() -> None:
    """Regret of the Gaussian with the oracle's mean and variance; from about 2 shots on the posterior is nearly one."""
    family = Sinusoid.maml()
    assert family.oracle is not None
    regret = []
    for shots in (0, 1, 5):
        batch = draw(family, 400, shots, 20, seed=11)
        prediction = family.oracle.adapt(batch.support).predict(batch.query.x)
        best = prediction.marginal_log_prob(batch.query.y)
        regret.append((best - floor(prediction.mean, prediction.variance, batch.query.y)).mean(-1))
    for each, expected in zip(regret, (0.059, 0.130, 0.0), strict=True):
        error = each.std() / 400**0.5
        assert abs(each.mean() - expected) < 4.0 * error + 0.006  # the expected ones (4,000 tasks) are known to .006


# --- published numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "context", "joint", "marginal", "rmse", "calibration"),
    [
        ("sinusoid_easy", 5, 0.812, 0.457, 0.156, 0.115),
        ("cauchy", 20, 0.727, 0.394, 0.173, 0.063),
        pytest.param("sinusoid_hard", 10, 0.128, -0.103, 0.293, 0.089, marks=pytest.mark.slow),
    ],
)
def test_bayes_optimal_ceilings_on_metal_benchmark(
    name: str, context: int, joint: float, marginal: float, rmse: float, calibration: float
) -> None:
    """Ceilings computed by an independent grid (and exact GP) on exactly these data, to three digits."""
    _, test = metal_benchmark(name)
    batch = test.divided(PrefixSplit.at(context))
    assert test.oracle is not None
    prediction = test.oracle.adapt(batch.support).predict(batch.query.x)
    y = batch.query.y
    levels = torch.linspace(0.05, 0.95, 20, dtype=torch.float64)
    observed = (prediction.cdf(y)[..., 0][:, None] <= levels[:, None]).double().mean(-1)
    got = (
        prediction.log_prob(y).mean() / 100,
        prediction.marginal_log_prob(y).mean(),
        (prediction.mean - y).square().mean((1, 2)).sqrt().mean(),
        (observed - levels).square().mean(-1).sqrt().mean(),
    )
    assert [float(value) for value in got] == pytest.approx([joint, marginal, rmse, calibration], abs=1e-3)


@pytest.mark.parametrize(
    ("simulator", "full", "diagonal", "prior"),
    [
        (GPFunctions.eq(), -0.250, -0.676, -1.449),
        (GPFunctions.matern(), -0.363, -0.772, -1.441),
        (GPFunctions.weakly_periodic(), -0.624, -1.009, -1.446),
    ],
    ids=["eq", "matern", "weakly_periodic"],
)
def test_oracles_of_the_neural_process_benchmark(
    simulator: GPFunctions, full: float, diagonal: float, prior: float
) -> None:
    """Log likelihood per target with 0 to 30 context points, computed on 4,096 other tasks."""
    batch = draw(simulator, 600, (0, 30), 50, seed=30)
    assert simulator.oracle is not None
    prediction = simulator.oracle.adapt(batch.support).predict(batch.query.x)
    empty = simulator.oracle.adapt(Data.empty(batch.support)).predict(batch.query.x)
    each = (
        prediction.log_prob(batch.query.y) / 50,
        prediction.marginal_log_prob(batch.query.y).mean(-1),
        empty.marginal_log_prob(batch.query.y).mean(-1),
    )
    for value, expected in zip(each, (full, diagonal, prior), strict=True):
        error = value.std() / 600**0.5 * (1.0 + 600 / 4096) ** 0.5  # Monte Carlo error of both
        assert abs(value.mean() - expected) < 4.0 * error


# --- Gaussian processes and steps -------------------------------------------------------------------------------------


class _Exact(gpytorch.models.ExactGP):
    def __init__(self, x: Tensor, y: Tensor, likelihood: gpytorch.likelihoods.GaussianLikelihood) -> None:
        super().__init__(x, y, likelihood)
        self.mean_module, self.covar_module = gpytorch.means.ZeroMean(), gpytorch.kernels.MaternKernel(nu=2.5)

    def forward(self, x: Tensor) -> gpytorch.distributions.MultivariateNormal:
        return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))


def test_gaussian_processes_equal_gpytorch() -> None:
    simulator = GPFunctions.matern()
    batch = draw(simulator, 5, (1, 12), 6)
    assert isinstance(simulator.oracle, GaussianProcessOracle)
    prediction = simulator.oracle.adapt(batch.support).predict(batch.query.x)
    covariance = prediction.covariance() * prediction.output_covariance
    for task in range(5):
        real = batch.support.mask[task]
        x, y = batch.support.x[task, real], batch.support.y[task, real, 0]
        likelihood = gpytorch.likelihoods.GaussianLikelihood().double()
        model = _Exact(x, y, likelihood).double()
        likelihood.noise = torch.tensor(simulator.noise**2, dtype=torch.float64)  # a float would be cut to float32
        model.covar_module.lengthscale = torch.tensor(0.25, dtype=torch.float64)
        evidence = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, model)(model(x), y) * len(x)
        expected = likelihood(model.eval()(batch.query.x[task]))
        likelihood.eval()
        # the same Cholesky algorithm in float64, on well conditioned matrices
        torch.testing.assert_close(prediction.mean[task, :, 0], expected.mean, rtol=0.0, atol=1e-8)
        torch.testing.assert_close(covariance[task], expected.covariance_matrix, rtol=0.0, atol=1e-8)
        got = simulator.oracle.log_evidence(batch.support)[task]
        torch.testing.assert_close(got, evidence.detach(), rtol=0.0, atol=1e-8)


def brute_force_steps(oracle: StepOracle, x: Tensor, y: Tensor) -> Tensor:
    """log p(y) by summing over the gap between sorted points that each switch falls in: exact, (N + 1)^J terms."""
    order = x.argsort()
    x, y = x[order], y[order]
    place = torch.cat([torch.zeros(1), oracle.place(x), torch.ones(1)]).double()
    total = torch.zeros((), dtype=torch.float64)
    for gaps in itertools.product(range(len(x) + 1), repeat=oracle.num_switches):
        mass = math.prod(float(place[g + 1] - place[g]) for g in gaps)
        below = torch.stack([torch.arange(len(x)) >= g for g in gaps]).sum(0)
        f = 2.0 * (below % 2) - 1.0
        square = ((y - f).square() / oracle.noise_variance).sum()
        total = total + mass * torch.exp(-0.5 * (square + len(x) * (LOG_2PI + math.log(oracle.noise_variance))))
    return total.log()


@pytest.mark.parametrize("shots", [0, 1, 4])
def test_steps_equal_the_sum_over_all_orders_of_points_and_switches(shots: int) -> None:
    simulator = Step(noise=0.5)
    oracle = simulator.oracle
    assert isinstance(oracle, StepOracle)
    batch = draw(simulator, 4, shots, 3, seed=shots)
    prediction = oracle.adapt(batch.support).predict(batch.query.x)
    joint, marginal = prediction.log_prob(batch.query.y), prediction.marginal_log_prob(batch.query.y)
    for task in range(4):
        x, y = batch.support.x[task, :, 0], batch.support.y[task, :, 0]
        query, value = batch.query.x[task, :, 0], batch.query.y[task, :, 0]
        alone = brute_force_steps(oracle, x, y)
        both = brute_force_steps(oracle, torch.cat([x, query]), torch.cat([y, value]))
        torch.testing.assert_close(joint[task], both - alone)  # both are exact
        for m in range(3):
            one = brute_force_steps(oracle, torch.cat([x, query[m : m + 1]]), torch.cat([y, value[m : m + 1]]))
            torch.testing.assert_close(marginal[task, m], one - alone)


def test_draws_of_steps_are_joint() -> None:
    """Two query points a hair apart have the same sign in every draw, whatever the noise."""
    oracle = Step(noise=0.1).oracle
    assert oracle is not None
    support = Data.from_arrays([-3.0, 3.0], [-1.0, 1.0])
    draws = oracle.adapt(support).predict([0.1, 0.1 + 1e-9, 4.0]).sample((500,), torch.Generator().manual_seed(0))
    signs = draws[:, 0, :, 0].sign()
    assert (signs[:, 0] == signs[:, 1]).all()
    assert 100 < (signs[:, 0] == 1.0).sum() < 400
    assert (signs[:, 2] == 1.0).all()


def test_oracles_refuse_noise_that_is_not_positive() -> None:
    with pytest.raises(DataError, match="positive noise variance"):
        SinusoidOracle((0.1, 5.0), Uniform(0.0, 1.0), Uniform(1.0, 1.0), 0.0)
    with pytest.raises(DataError, match="positive noise variance"):
        StepOracle((-1.0, 1.0), 3, 0.0)
    with pytest.raises(DataError, match="positive noise variance"):
        GaussianProcessOracle(lambda x: x[..., 0], lambda x, z: x @ z.mT, -1.0)
