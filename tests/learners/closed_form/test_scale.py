"""Precise and noisy measurements: where noise and prior start, and how fast they are learned."""

import math

import numpy as np
import pytest
import torch

import bayesmeta as bm


def _tasks(noise: float, num_tasks: int = 40, seed: int = 0) -> bm.TaskDataset:
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(num_tasks):
        level, height = rng.normal(0, 1), rng.normal(1, 0.3)
        x = rng.uniform(-3, 3, rng.integers(5, 9))
        pairs.append((x, level + height * np.sin(x) + rng.normal(0, noise, len(x))))
    return bm.TaskDataset.from_list(pairs)


def _makers() -> dict[str, bm.Learner]:
    torch.manual_seed(0)
    return {
        "alpaca": bm.ALPaCA(bm.MLP(1, [16, 8])),
        "alpaca, bumps": bm.ALPaCA(bm.RadialBasis(1, 8), covariance=bm.priors.IsotropicCovariance(9)),
        "mixture": bm.MixtureALPaCA(bm.RadialBasis(1, 8), num_components=2),
        "ridge": bm.R2D2Regressor(bm.RadialBasis(1, 8)),
        "kernel": bm.DeepKernelTransfer(bm.Identity(1)),
    }


@pytest.mark.parametrize("name", _makers())
def test_the_noise_starts_where_the_tasks_are_likeliest(name: str) -> None:
    """On features that can follow the curves it starts near the truth, in steps of a third of a decade of variance."""
    for noise in (0.003, 0.3):
        learner, tasks = _makers()[name], _tasks(noise)
        before = learner.log_evidence(tasks.data).sum()
        learner.prepare(tasks.data)
        assert learner.log_evidence(tasks.data).sum() >= before
        found = learner.likelihood.noise.variance().item() ** 0.5
        if name != "alpaca":  # whose features have not been trained
            assert found < 10.0 * noise + 0.05
            assert found > noise / 3.0


@pytest.mark.parametrize("name", _makers())
def test_what_is_given_or_learned_is_kept(name: str) -> None:
    tasks, learner = _tasks(0.01), _makers()[name]
    learner.prepare(tasks.data)
    prepared = {key: value.clone() for key, value in learner.state_dict().items()}
    learner.prepare(_tasks(0.3).data)  # a second training goes on from the first
    assert all(torch.equal(value, prepared[key]) for key, value in learner.state_dict().items())
    frozen = _makers()[name]
    frozen.likelihood.noise.requires_grad_(False)
    frozen.prepare(tasks.data)
    assert math.isclose(frozen.likelihood.noise.variance().item(), 0.1, rel_tol=1e-5)


def test_a_noise_that_is_given_is_kept() -> None:
    tasks = _tasks(0.01)
    for initial in (0.1, 0.5):
        noise = bm.noise.DiagonalNoise(1, initial)
        for learner in (
            bm.ALPaCA(bm.Identity(1), noise=noise),
            bm.R2D2Regressor(bm.Identity(1), noise=noise),
            bm.DeepKernelTransfer(bm.Identity(1), noise=noise),
        ):
            learner.prepare(tasks.data)
            assert math.isclose(noise.variance().item(), initial, rel_tol=1e-5)
    covariance = bm.priors.DiagonalCovariance(2, variance=7.0)
    bm.ALPaCA(bm.Identity(1), covariance=covariance).prepare(tasks.data)
    torch.testing.assert_close(covariance.matrix().detach(), 7.0 * torch.eye(2))


def test_outcomes_without_a_spread_leave_the_start_alone() -> None:
    learner = bm.ALPaCA(bm.Identity(1))
    learner.prepare(bm.Data.from_arrays([0.0, 1.0], [0.0, 0.0]))
    assert math.isclose(learner.prior.noise.variance().item(), 0.1, rel_tol=1e-5)
    learner.prepare(bm.Data.from_arrays([], []))
    assert math.isclose(learner.prior.noise.variance().item(), 0.1, rel_tol=1e-5)


def test_prior_and_noise_are_learned_faster_than_features() -> None:
    learner = bm.ALPaCA(bm.MLP(1, [4]), covariance=bm.priors.FullCovariance(4, variance=9.0))
    rates = {id(p): group["lr"] for group in learner.configure_optimizer(1e-3).param_groups for p in group["params"]}
    named = {name: rates[id(parameter)] for name, parameter in learner.named_parameters()}
    assert set(rates) == {id(parameter) for parameter in learner.parameters()}
    assert all(rate == 1e-3 for name, rate in named.items() if name.startswith("features."))
    assert math.isclose(named["prior.noise.value.raw"], 1e-2)
    assert math.isclose(named["prior.location"], 1e-2)
    assert math.isclose(named["prior.covariance.lower"], 3e-2, rel_tol=1e-6)  # in units of its own size
    learner.features.requires_grad_(False)
    assert len(learner.configure_optimizer().param_groups) == 2


@pytest.mark.parametrize("method", ["alpaca", "dkt"])
def test_precise_measurements_are_learned(method: str) -> None:
    """Noise of 1 % of the spread: in 150 steps its deviation is within 4 times the truth, from 30 times."""
    torch.manual_seed(0)
    make = bm.ALPaCA if method == "alpaca" else bm.DeepKernelTransfer
    learner, noise = bm.Standardized(make(bm.MLP(1, [16, 16]))), 0.01
    bm.fit(learner, _tasks(noise, 40), steps=150, lr=1e-2, objective=bm.training.Evidence(), progress=False)
    found = learner.learner.likelihood.noise.variance().item() ** 0.5 * learner.y_scale.item()
    assert found < 4.0 * noise
    test = _tasks(noise, 100, seed=1).divided(bm.tasks.RandomSplit.at(4))
    prediction = learner.adapt(test.support).predict(test.query.x)
    inside = torch.stack(prediction.interval(0.9))
    covered = ((inside[0] <= test.query.y) & (test.query.y <= inside[1]))[test.query.mask].double().mean()
    assert covered > 0.75
