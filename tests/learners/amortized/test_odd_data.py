"""Neural processes on what people bring: seconds since 1970, outcomes of 1e-7, one point, outliers, far points."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

import bayesmeta as bm

START = 1.7e9  # seconds: in float32 two neighbours are 128 apart
MAKERS: dict[str, Callable[[], bm.Learner]] = {
    "conv-cnp": lambda: bm.ConvCNP(points_per_unit=8.0, channels=8, layers=2),
    "conditional": lambda: bm.ConditionalNeuralProcess(bm.Identity(1), width=16),
    "latent": lambda: bm.LatentNeuralProcess(bm.Identity(1), width=16, num_draws=4),
    "transformer": lambda: bm.TransformerNeuralProcess(bm.networks.FourierFeatures(1), width=16, layers=2),
    "relative": lambda: bm.TransformerNeuralProcess(
        bm.Identity(1), relative=bm.learners.RelativeBias(), width=16, layers=2
    ),
}


def _tasks() -> bm.TaskDataset:
    """Thirty tasks of 1 to 12 points, and among them some of 200."""
    rng = np.random.default_rng(0)
    tasks = []
    for number in range(30):
        count = [1, 2, 3, 12, 200][number % 5]
        x = rng.uniform(0.0, 3600.0, count)
        y = 5e-7 + 1e-9 * (rng.normal() + np.sin(x / 400.0) + 0.05 * rng.normal(size=count))
        tasks.append((START + x, y))
    return bm.TaskDataset.from_list(tasks)


@pytest.mark.parametrize("name", MAKERS)
def test_odd_units_and_supports(name: str) -> None:
    """Training lowers the loss in the users' units, and every support has a finite prediction and finite draws."""
    torch.manual_seed(0)
    tasks, learner = _tasks(), bm.Standardized(MAKERS[name]())
    learner.prepare(tasks.data)
    split = bm.tasks.RandomSplit((0, 20), 5)
    before = learner.meta_loss(tasks.divided(split, seed=1)).mean()
    bm.fit(learner, tasks, 30, batch_size=8, lr=3e-3, split=split, progress=False, seed=0)
    assert learner.meta_loss(tasks.divided(split, seed=1)).mean() < before
    supports = [
        ([], []),
        ([START], [5e-7]),
        ([START] * 4, [5e-7, 6e-7, 5e-7, 1e-3]),  # at one place, and one of them is an outlier of 1e6 deviations
        ([START, START + 1e9, 0.0], [5e-7] * 3),
    ]
    for x, y in supports:
        prediction = learner.adapt(bm.Data.from_arrays(x, y)).predict([START + 100.0, START + 2e9])
        assert prediction.mean.isfinite().all()
        assert (prediction.stddev.isfinite() & (prediction.stddev > 0.0)).all()
    chain = bm.wrappers.Autoregressive(learner, bm.wrappers.Random(2))
    joint = chain.adapt(bm.Data.from_arrays([START], [5e-7])).predict([START + 100.0, START + 200.0, START + 900.0])
    draws = joint.sample((3,), torch.Generator().manual_seed(0))
    assert draws.isfinite().all()
    assert joint.log_prob(draws[0]).isfinite().all()
