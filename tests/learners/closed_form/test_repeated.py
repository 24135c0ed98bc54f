"""A thousand calls in a loop leave memory as it was: adapting, predicting and updating, by each form of a posterior."""

import gc
import resource
from collections.abc import Callable

import pytest
import torch

import bayesmeta as bm
from tests.registry import CASES, Case

BY_NAME = {case.name: case for case in CASES}
CALLS = 1_000

pytestmark = [pytest.mark.usefixtures("unchecked"), pytest.mark.filterwarnings("ignore::bayesmeta.ConvergenceWarning")]


def _tensors() -> int:
    gc.collect()
    return sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects())


def _leaves_memory(work: Callable[[], object], calls: int) -> None:
    gc.freeze()
    try:
        for _ in range(calls // 10):  # the first ones fill caches
            work()
        before, peak = _tensors(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(calls):
            work()
        assert _tensors() <= before
    finally:
        gc.unfreeze()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 10_000  # kB


# one of each family; those that search or draw take their time, and fewer calls show a leak of a tensor a call
@pytest.mark.parametrize(
    ("name", "calls"),
    [
        ("alpaca", CALLS),
        ("r2d2", 200),
        ("deep-kernel", 100),
        ("conditional-mean", 100),
        ("maml", 30),
        ("prototypical", 100),
    ],
)
def test_calls_in_a_loop(name: str, calls: int) -> None:
    case: Case = BY_NAME[name]
    learner, tasks = case.learner(torch.float32), case.batch(1, 5, 3, ragged=False)
    more = case.batch(1, 1, 1, seed=1, ragged=False).support
    _leaves_memory(lambda: learner.adapt(tasks.support).update(more).predict(tasks.query.x).marginals, calls)


def test_a_learner_that_moves_leaves_its_snapshots_behind() -> None:
    learner = bm.Standardized(bm.ALPaCA(bm.MLP(1, [8, 8])))
    learner.prepare(bm.Data.from_arrays([0.0, 1.0, 2.0], [0.2, 0.4, 0.9]))
    data, location = bm.Data.from_arrays([0.0, 1.0], [0.2, 0.4]), learner.learner.prior.location

    def work() -> object:
        location.data.add_(1e-3)
        return learner.adapt(data).predict([0.5]).mean

    _leaves_memory(work, 200)


def test_a_stream_does_not_grow_beyond_its_features() -> None:
    """Points are held until there are as many as features; then only what they say of these is."""
    learner, point = bm.ALPaCA(bm.Identity(3)), bm.Data.full(torch.randn(4, 1, 3), torch.randn(4, 1, 1))
    posterior = learner.adapt(bm.Data.empty(point))
    for _ in range(10):
        posterior = posterior.update(point)
    assert sum(value.numel() for value in vars(posterior.beliefs[0]).values()) == 4 * (4 * 4 + 4)
