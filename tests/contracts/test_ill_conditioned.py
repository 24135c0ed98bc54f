"""Supports under which float32 is at its end: float32 and float64 agree to 1e-3 predictive deviations all the same.

Features are computed in the learner's precision, and what is solved for is in float64. Noise of deviation 1e-3 next to
outcomes of size 1, fifty points of which many coincide or nearly do.
"""

import copy

import pytest
import torch
from torch import Tensor

import bayesmeta as bm
from bayesmeta.noise import Noise
from tests.registry import CASES, Case

BY_NAME = {case.name: case for case in CASES}
# what float32 itself does to features (of kernels of many parts) and to phi (of weights that are large): it is told
# from the solving, as it is there in `features(x)` alone
COARSER = {
    "deep-kernel": 3e-3,
    "deep-kernel-composite": 3e-3,
    "deep-kernel-spectral-mixture": 5e-3,
    "fine-tuned-exact": 5e-3,
}
REFUSED = {"snail", "glmm-counts"}  # more points than it was made for; outcomes that are no counts


def _supports(case: Case) -> tuple[Tensor, Tensor, bm.TaskBatch]:
    """Of two tasks: five points ten times each, and points that nearly coincide."""
    tasks = case.batch(2, 50, 5, seed=3, ragged=False)
    x, y = tasks.support.x.clone(), tasks.support.y.clone()
    x[0], y[0] = x[0, :5].repeat_interleave(10, 0), y[0, :5].repeat_interleave(10, 0)
    y[1] = y[1, :1] + 1e-4 * x[1].sum(-1, keepdim=True)
    x[1] = 1.0 + 1e-3 * x[1]
    return x.float(), y.float(), tasks  # numbers that both precisions have


@pytest.mark.filterwarnings("ignore::bayesmeta.ConvergenceWarning")  # that a search stops early is told, in both
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", [case.name for case in CASES if not case.num_classes and case.name not in REFUSED])
def test_float32_is_enough(name: str) -> None:
    case = BY_NAME[name]
    learner = case.learner(torch.float64)
    for each in learner.modules():
        if isinstance(each, Noise):
            each.set_covariance(1e-6 * torch.eye(each.num_outputs, dtype=torch.float64))
    single = learner.to(torch.float32)
    double = copy.deepcopy(single).to(torch.float64)
    x, y, tasks = _supports(case)
    noise = None if tasks.support.noise is None else tasks.support.noise.float()
    found = []
    for each, dtype in ((single, torch.float32), (double, torch.float64)):
        data = bm.Data(x, y, tasks.support.mask, noise).to(dtype)
        found.append(each.adapt(data).predict(tasks.query.x.float().to(dtype)))
    a, b = found
    bound = COARSER.get(name, 1e-3)
    assert ((a.mean - b.mean).abs() / b.stddev).max() < bound
    assert (a.stddev / b.stddev - 1.0).abs().max() < bound


def test_a_search_that_stops_short_says_so() -> None:
    """Under so little noise the default steps of iMAML do not arrive, and no precision would change that."""
    learner = bm.IMAML(bm.MLP(1, [16]))
    learner.likelihood.noise.set_covariance(torch.tensor([[1e-6]]))
    x = torch.linspace(-2.0, 2.0, 50)
    with pytest.warns(bm.ConvergenceWarning, match="stopped short of the mode in 1 of 1 tasks"):
        learner.adapt(bm.Data.from_arrays(x, (3.0 * x).sin()))
