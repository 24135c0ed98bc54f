"""A last layer and a residual process, f = wᵀh(x) + g(x): ALPaCA where g has no variance, else the Gaussian it says."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

import bayesmeta as bm
from bayesmeta.kernels import LinearKernel, RBFKernel, SubsetKernel, SumKernel

VARIANCE, NOISE, FEATURES = 0.7, 0.2, 5


def _features() -> bm.MLP:
    torch.manual_seed(0)
    return bm.MLP(2, [6, FEATURES], activation="tanh")


def _residual(features: bm.Network, variance: float) -> bm.DeepKernelTransfer:
    """w ~ N(K_0, VARIANCE I) on the features, g a process on the two inputs."""
    linear = SubsetKernel(LinearKernel(VARIANCE), range(FEATURES))
    rest = SubsetKernel(RBFKernel(lengthscale=0.8, variance=variance), [-2, -1])
    learner = bm.DeepKernelTransfer(
        bm.networks.Concatenated([features, bm.networks.Inputs(2)]),
        kernel=SumKernel([linear, rest]),
        mean=features,
        noise=bm.noise.DiagonalNoise(1, initial=NOISE),
    ).double()
    assert isinstance(learner.mean, nn.Module)
    with torch.no_grad():
        torch.manual_seed(1)
        learner.mean.output.weight.normal_()
        learner.mean.output.bias.zero_()
    return learner


def _batch() -> bm.TaskBatch:
    """Four tasks; one without a point, one with a single one."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(4, 9, 2, generator=generator, dtype=torch.float64)
    y = torch.randn(4, 9, 1, generator=generator, dtype=torch.float64)
    mask = torch.arange(6) < torch.tensor([6, 0, 1, 4])[:, None]
    return bm.TaskBatch(bm.Data(x[:, :6], y[:, :6], mask), bm.Data.full(x[:, 6:], y[:, 6:]))


def test_without_a_residual_it_is_alpaca() -> None:
    features, tasks = _features(), _batch()
    residual = _residual(features, 1e-12)
    covariance = bm.priors.IsotropicCovariance(FEATURES, VARIANCE / NOISE)
    noise = bm.noise.DiagonalNoise(1, initial=NOISE)
    alpaca = bm.ALPaCA(features, covariance=covariance, noise=noise).double()
    with torch.no_grad():
        alpaca.prior.location.copy_(residual.mean.output.weight.mT)
    close = {"rtol": 1e-5, "atol": 1e-5}  # starting values are set in float32
    torch.testing.assert_close(residual.log_evidence(tasks.support), alpaca.log_evidence(tasks.support), **close)
    first, rest = tasks.support.points(slice(2)), tasks.support.points(slice(2, 6))
    ours, theirs = (each.adapt(first).update(rest).predict(tasks.query.x) for each in (residual, alpaca))
    torch.testing.assert_close(ours.mean, theirs.mean, **close)
    torch.testing.assert_close(ours.log_prob(tasks.query.y), theirs.log_prob(tasks.query.y), **close)


def test_with_a_residual_it_is_the_gaussian_that_it_says() -> None:
    features, tasks = _features(), _batch()
    learner = _residual(features, 0.4)
    with torch.no_grad():
        for task in range(4):
            x, y = (value[task][tasks.support.mask[task]] for value in (tasks.support.x, tasks.support.y))
            h = features(x[None])[0]
            distance = (x[:, None] - x).square().sum(-1) / 0.8**2
            covariance = VARIANCE * h @ h.mT + 0.4 * (-0.5 * distance).exp() + NOISE * torch.eye(len(x))
            expected = torch.zeros(()).double()
            if len(x):
                expected = MultivariateNormal(learner.mean(x[None])[0, :, 0], covariance).log_prob(y[:, 0])
            found = learner.log_evidence(tasks.support.select([task]))[0]
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("error")
def test_it_is_trained_and_stored(tmp_path: Path) -> None:
    """The features of the last layer and those of the mean are one network, also after a folder has been read."""
    learner = _residual(_features(), 0.1)
    data = _batch().joined()
    tasks = bm.TaskDataset(data)
    before = learner.log_evidence(data).sum()
    bm.fit(learner, tasks, steps=30, lr=3e-3, progress=False)
    assert learner.log_evidence(data).sum() > before
    bm.save(learner, tmp_path / "model")
    again = bm.load(tmp_path / "model")
    torch.testing.assert_close(again.log_evidence(data), learner.log_evidence(data), rtol=0.0, atol=1e-12)
