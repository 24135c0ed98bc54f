"""Simulators draw what they say: ranges, moments, noise, order of points, and the same tasks for the same seed."""

import math

import pytest
import torch
from scipy.stats import truncnorm

from bayesmeta.description import construct, describe
from bayesmeta.errors import DataError
from bayesmeta.tasks.simulators.cauchy import Cauchy
from bayesmeta.tasks.simulators.gp_functions import ExponentiatedQuadratic, GPFunctions, Matern52, WeaklyPeriodic
from bayesmeta.tasks.simulators.metal_benchmark import metal_benchmark
from bayesmeta.tasks.simulators.pendulum import Pendulum
from bayesmeta.tasks.simulators.sawtooth import Sawtooth
from bayesmeta.tasks.simulators.simulator import FunctionSimulator, Simulator
from bayesmeta.tasks.simulators.sinusoid import Sinusoid
from bayesmeta.tasks.simulators.sloped_sinusoid import SlopedSinusoid
from bayesmeta.tasks.simulators.step import Step
from bayesmeta.tasks.simulators.task_mixture import TaskMixture
from bayesmeta.tasks.source import PrefixSplit, RandomSplit

SIMULATORS = {
    "maml": Sinusoid.maml(),
    "meta_sgd": Sinusoid.meta_sgd(),
    "alpaca": Sinusoid.alpaca(),
    "metal_easy": SlopedSinusoid.metal_easy(),
    "metal_hard": SlopedSinusoid.metal_hard(),
    "eq": GPFunctions.eq(),
    "matern": GPFunctions.matern(),
    "weakly_periodic": GPFunctions.weakly_periodic(),
    "cauchy": Cauchy(),
    "step": Step(),
    "sawtooth": Sawtooth(),
    "mixture": TaskMixture.neural_process(),
    "pendulum": Pendulum(),
}
every = pytest.mark.parametrize("simulator", SIMULATORS.values(), ids=SIMULATORS)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@every
def test_the_generator_is_the_only_randomness(simulator: Simulator) -> None:
    first = simulator.draw(6, RandomSplit((0, 4), 5), generator())
    torch.manual_seed(99)
    second = simulator.draw(6, RandomSplit((0, 4), 5), generator())
    other = simulator.draw(6, RandomSplit((0, 4), 5), generator(1))
    torch.testing.assert_close(first.query.y, second.query.y, rtol=0.0, atol=0.0)
    assert (first.query.y != other.query.y).any()


@every
def test_batches_have_the_sizes_that_the_split_asks_for(simulator: Simulator) -> None:
    batch = simulator.draw(40, RandomSplit((0, 4), 5), generator())
    assert set(batch.support.counts.tolist()) == {0, 1, 2, 3, 4}
    assert batch.query.mask.all()
    assert batch.query.num_points == 5
    assert simulator.draw(3, RandomSplit((2, 2)), generator()).query.num_points == 20
    assert batch.query.y.dtype == torch.float32
    assert torch.isfinite(batch.query.y).all()
    pooled = simulator.pooled(generator())
    assert pooled.mask.all()
    assert pooled.num_tasks * pooled.num_points == 10_000


@every
def test_a_dataset_is_frozen_and_carries_the_oracle(simulator: Simulator) -> None:
    tasks = simulator.dataset(7, 9, seed=3)
    assert tasks.oracle is simulator.oracle
    assert tasks.data.y.shape[:2] == (7, 9)
    torch.testing.assert_close(tasks.data.y, simulator.dataset(7, 9, seed=3).data.y, rtol=0.0, atol=0.0)


@every
def test_a_simulator_can_be_described_and_built_again(simulator: Simulator) -> None:
    again = construct(describe(simulator))
    torch.testing.assert_close(again.dataset(3, 4).data.y, simulator.dataset(3, 4).data.y, rtol=0.0, atol=0.0)


@pytest.mark.parametrize(
    ("noisy", "clean", "deviation"),
    [
        (Sinusoid.maml(), Sinusoid.maml(noise=0.0), 0.1),
        (Sinusoid.alpaca(), Sinusoid(phase=(0.0, 3.14), frequency=(0.999, 1.0), noise=0.0, phase_sign=1), 0.02**0.5),
        (Step(), Step(noise=0.0), 0.05**0.5),
        (Sawtooth(noise=0.3), Sawtooth(), 0.3),
        (Pendulum(noise=0.2), Pendulum(), 0.2),
    ],
    ids=["maml", "alpaca", "step", "sawtooth", "pendulum"],
)
def test_noise_has_the_stated_deviation(noisy: Simulator, clean: Simulator, deviation: float) -> None:
    difference = noisy.dataset(500, 40).data.y - clean.dataset(500, 40).data.y
    # 20,000 draws: a deviation is known to 1 / sqrt(40,000) = .5 %; four of these
    assert difference.std().item() == pytest.approx(deviation, rel=0.02)
    assert clean.oracle is None


def test_sinusoids_span_their_prior() -> None:
    x = torch.linspace(-5.0, 5.0, 201).expand(4000, -1)[..., None]
    for family, low, high in ((Sinusoid.maml(0.0), 0.1, 5.0), (Sinusoid(amplitude=(2.0, 3.0), noise=0.0), 2.0, 3.0)):
        y = family.observe(x, generator())
        top = y.abs().amax(1)  # the grid step .05 misses the maximum by at most 1 - cos(.025) = 3e-4 of it
        assert low * 0.999 <= top.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < top.max() <= high
        # uniform: the deviation of the mean of 4,000 is (high - low) / sqrt(12 * 4,000); four of these
        assert top.mean().item() == pytest.approx((low + high) / 2, abs=0.02 * (high - low))


@pytest.mark.parametrize(("family", "sign"), [(Sinusoid.maml(0.0), -1.0), (Sinusoid.meta_sgd(0.0), 1.0)])
def test_the_phase_has_the_published_sign(family: Sinusoid, sign: float) -> None:
    # b ~ U(0, π): at x = 0 the sine of ∓b has one sign
    y = family.observe(torch.zeros(1000, 1, 1), generator())
    assert (y * sign >= 0.0).all()


def test_meta_sgd_varies_the_frequency() -> None:
    x = torch.linspace(0.0, 5.0, 5001).expand(500, -1)[..., None]
    y = Sinusoid.meta_sgd(0.0).observe(x, generator())[..., 0]
    curvature = (y[:, 2:] - 2.0 * y[:, 1:-1] + y[:, :-2]).double() / 1e-6  # y'' = -ω² y
    frequency = (-(curvature * y[:, 1:-1]).sum(1) / y[:, 1:-1].square().sum(1)).sqrt()
    # float32 second differences: rounding 1e-7 / 1e-6 is averaged over 5,000 points to about 1 %
    assert frequency.min() == pytest.approx(0.8, abs=0.02)
    assert frequency.max() == pytest.approx(1.2, abs=0.02)


def test_sloped_sinusoids_have_the_moments_of_their_prior() -> None:
    x = torch.tensor([0.0, 5.0]).expand(40_000, -1)[..., None]
    y = SlopedSinusoid.metal_hard().observe(x, generator())[..., 0]
    wave = (0.7 + 1.4) ** 2 / 8 + 0.7**2 / 24  # E A² / 2 where the phase is spread over many turns
    # x = 0: offset .8², noise .2²; x = 5: slope .6² * 25 more. 40,000 tasks know a variance to .7 %; four of these
    assert y[:, 0].var().item() == pytest.approx(0.64 + 0.04 + wave, rel=0.03)
    assert y[:, 1].var().item() == pytest.approx(0.64 + 0.04 + wave + 9.0, rel=0.03)
    assert y.mean(0).tolist() == pytest.approx([5.0, 7.5], abs=0.07)  # deviation 3.2 / 200 = .016; four of these


@pytest.mark.parametrize(
    ("simulator", "kernel"),
    [
        (GPFunctions.eq(), lambda d: math.exp(-0.5 * d**2 / 0.25**2)),
        (
            GPFunctions.matern(),
            lambda d: (1 + 5**0.5 * d / 0.25 + 5 * d**2 / (3 * 0.25**2)) * math.exp(-(5**0.5) * d / 0.25),
        ),
        (
            GPFunctions.weakly_periodic(),
            lambda d: math.exp(-0.5 * d**2 / 0.25 - 2.0 * math.sin(math.pi * d / 0.25) ** 2),
        ),
    ],
    ids=["eq", "matern", "weakly_periodic"],
)
def test_gp_functions_have_the_covariance_of_their_kernel(simulator: GPFunctions, kernel) -> None:
    places = [-1.0, -0.9, 0.1, 0.35]
    x = torch.tensor(places).expand(40_000, -1)[..., None]
    y = simulator.observe(x, generator())[..., 0]
    expected = torch.tensor([[kernel(abs(a - b)) + 0.05 * (a == b) for a in places] for b in places])
    # a covariance of unit variances from 40,000 draws is known to sqrt(2 / 40,000) = .007; four of these
    torch.testing.assert_close(torch.cov(y.T), expected, rtol=0.0, atol=0.03)


def test_kernels_refuse_scales_that_are_not_positive() -> None:
    for kernel in (ExponentiatedQuadratic, Matern52, WeaklyPeriodic):
        with pytest.raises(DataError, match="positive length scale"):
            kernel(0.0)


def test_cauchy_inputs_are_truncated_normal() -> None:
    x = Cauchy().inputs(200, 100, generator())
    assert x.shape == (200, 100, 2)
    assert -7.5 <= x.min() < -6.0
    assert 4.9 < x.max() <= 5.0
    mean, variance = (float(v) for v in truncnorm.stats(-3, 2, scale=2.5))
    assert x.mean().item() == pytest.approx(mean, abs=0.05)  # deviation 2.2 / 200 = .011; four of these
    assert x.var().item() == pytest.approx(variance, rel=0.03)  # known to sqrt(2 / 40,000) = .7 %; four of these


def test_cauchy_outcomes_scatter_around_the_two_bumps() -> None:
    x = torch.tensor([[-1.0, -1.0], [2.0, 2.0], [-1.0, 2.0]]).expand(20_000, -1, -1)
    y = Cauchy().observe(x, generator())[..., 0]
    bumps = [6 / math.pi * 1 + 3 / (19 * math.pi) + 1, 6 / (19 * math.pi) + 3 / math.pi + 1, 9 / (10 * math.pi) + 1]
    assert y.mean(0).tolist() == pytest.approx(bumps, abs=0.006)  # deviation .206 / 141 = .0015; four of these
    assert y.var(0).tolist() == pytest.approx([0.0425] * 3, rel=0.04)  # .2² + .05²; known to 1 %; four of these


def test_steps_are_signs_that_switch_three_times() -> None:
    x = torch.linspace(-5.0, 5.0, 2001).expand(300, -1)[..., None]
    y = Step(noise=0.0).observe(x, generator())[..., 0]
    assert set(y.unique().tolist()) == {-1.0, 1.0}
    assert (y[:, x[0, :, 0] < -2.5] == -1.0).all()
    assert (y[:, x[0, :, 0] > 2.5] == 1.0).all()
    switches = (y[:, 1:] != y[:, :-1]).sum(-1)
    assert set(switches.tolist()) == {1, 3}  # one where two fell between two points of the grid
    assert (switches == 3).float().mean() > 0.98


def test_sawtooths_rise_or_fall_at_their_frequency_from_0_to_1() -> None:
    x = torch.linspace(-2.0, 2.0, 4001).expand(200, -1)[..., None]
    y = Sawtooth().observe(x, generator())[..., 0]
    assert (y >= 0.0).all()
    assert (y < 1.0).all()
    slope = ((y[:, 1:] - y[:, :-1]) / 0.001).median(1).values
    assert slope.abs().min().item() == pytest.approx(
        2.0, abs=0.05
    )  # the extremes of 200 draws are within 1 % of the ends
    assert slope.abs().max().item() == pytest.approx(4.0, abs=0.05)
    assert 60 < (slope > 0).sum() < 140  # 100 +- 7; more than five of these


def test_a_mixture_draws_each_task_or_each_batch_from_one_kind() -> None:
    tasks = TaskMixture([Sawtooth(), Step(noise=0.0)])
    y = tasks.simulate(1000, 6, generator()).y[..., 0]
    is_step = (y.abs() == 1.0).all(1)
    assert 430 < is_step.sum() < 570  # 500 +- 16; four of these
    assert 0 < is_step[:20].sum() < 20  # in no order
    batches = TaskMixture([Sawtooth(), Step(noise=0.0)], whole_batches=True)
    shares = [float((batches.simulate(30, 6, generator(seed)).y.abs() == 1.0).float().mean()) for seed in range(20)]
    assert set(shares) == {0.0, 1.0}
    with pytest.raises(DataError, match="at least one simulator"):
        TaskMixture([])


def test_the_pendulum_follows_its_equation_of_motion_in_time_order() -> None:
    data = Pendulum(length=(0.7, 0.7)).dataset(50, 100).data
    torch.testing.assert_close(data.x[:, 1:], data.y[:, :-1], rtol=0.0, atol=0.0)
    (theta, speed), (new_theta, new_speed) = data.x.double().unbind(-1), data.y.double().unbind(-1)
    expected = speed + 3.0 * 10.0 / (2.0 * 0.7) * torch.sin(theta) * 0.05  # -sin(θ + π) = sin θ
    torch.testing.assert_close(new_speed, expected.clamp(-8.0, 8.0), rtol=0.0, atol=1e-5)  # float32
    torch.testing.assert_close(new_theta, theta + expected * 0.05, rtol=0.0, atol=1e-5)
    assert data.x[:, 0, 0].abs().max() <= math.pi
    assert data.x[:, 0, 1].abs().max() <= 1.0


def test_forecasts_of_the_pendulum_are_what_comes_next() -> None:
    batch = Pendulum().draw(4, PrefixSplit.at(6, 3), generator())
    torch.testing.assert_close(batch.query.x[:, 0], batch.support.y[:, -1], rtol=0.0, atol=0.0)


def test_published_data_sets_have_the_published_sizes() -> None:
    train, test = metal_benchmark("sinusoid_easy")
    assert (len(train), train.data.num_points, len(test), test.data.num_points) == (20, 5, 100, 105)
    train, test = metal_benchmark("cauchy", num_test=3, test_points=7)
    assert (len(train), train.data.num_points, len(test), test.data.num_points) == (20, 20, 3, 27)
    assert test.data.x.dtype == torch.float64
    assert test.oracle is not None
    with pytest.raises(DataError, match="sinusoid_hard"):
        metal_benchmark("sinusoid")


def test_metal_data_start_with_the_numbers_of_the_authors_random_state() -> None:
    import numpy as np

    state = np.random.RandomState(41)
    amplitude, x_shift, y_shift = state.uniform(0.7, 1.3), state.normal(0.0, 0.1), state.normal(5.0, 0.1)
    slope, period, x = state.normal(0.5, 0.2), state.uniform(1.5, 1.5), state.uniform(-5, 5, size=(5, 1))
    y = slope * x + amplitude * np.sin(period * (x - x_shift)) + y_shift + 0.1 * state.normal(size=(5, 1))
    train, _ = metal_benchmark("sinusoid_easy", num_test=1)
    np.testing.assert_allclose(train.task(0).x[0], x, rtol=1e-14)  # rounding
    np.testing.assert_allclose(train.task(0).y[0], y, rtol=1e-14)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Sinusoid(noise=-0.1),
        lambda: Sinusoid(phase_sign=0),
        lambda: Sinusoid(x=(1.0, 1.0)),
        lambda: SlopedSinusoid((0.5, -0.2), (0.7, 1.3), (1.5, 1.5), (0.0, 0.1), (5.0, 0.1), noise=0.1),
        lambda: Step(num_switches=0),
        lambda: Sawtooth(frequency=(4.0, 2.0)),
        lambda: Pendulum(length=(1.5, 0.5)),
        lambda: Cauchy(noise=float("nan")),
    ],
)
def test_impossible_settings_are_refused(make) -> None:
    with pytest.raises(DataError, match="expected"):
        make()


def test_functions_can_be_evaluated_anywhere() -> None:
    """The neural process benchmark also tests beyond the training range."""
    simulator = SIMULATORS["eq"]
    assert isinstance(simulator, FunctionSimulator)
    x = torch.linspace(2.0, 6.0, 5).expand(3, -1)[..., None]
    assert simulator.observe(x, generator()).shape == (3, 5, 1)
