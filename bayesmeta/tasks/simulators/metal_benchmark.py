"""The published data sets of MetaL-Benchmark and PACOH, drawn number by number in the order of the authors' code.

Data: github yilun-wu/meta_learning_pacoh, experiments/data_sim.py; sizes and seeds: github yilun-wu/MetaL-Benchmark.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from bayesmeta.arguments import whole
from bayesmeta.errors import DataError
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.simulators.cauchy import DEVIATION, LENGTH_SCALE, LOWER, SPREAD, UPPER, Cauchy
from bayesmeta.tasks.simulators.sloped_sinusoid import SlopedSinusoid

Draw = Callable[[int, np.random.RandomState], tuple[np.ndarray, np.ndarray]]


def metal_benchmark(
    name: str,
    *,
    context: int | None = None,
    num_train: int = 20,
    num_test: int = 100,
    test_points: int = 100,
    seed: int | None = None,
) -> tuple[TaskDataset, TaskDataset]:
    """The (meta-train, test) tasks of a published benchmark, number by number, with their oracle; float64.

    In a test task the first `context` points are the context and the others are to be predicted: divide it with
    `PrefixSplit.at(context)`. PACOH's own data are seed 29 with num_test=400 and test_points=200, of which the first
    200 tasks are the test.

    Args:
        name: "sinusoid_easy", "sinusoid_hard" or "cauchy".
        context: points of a meta-training task, and context points of a test task; the published 5, 10 and 20 by
            default. (MetaL-Benchmark's notebook says 10 for Easy, its report 5.)
        num_train: meta-training tasks.
        num_test: test tasks.
        test_points: points to predict in a test task.
        seed: of numpy's RandomState; 41 for the sinusoids and 31 for Cauchy by default.

    Raises:
        DataError: an unknown name, or numbers that are not whole.

    Example:
        >>> import bayesmeta as bm
        >>> train, test = bm.tasks.metal_benchmark("sinusoid_easy")
        >>> train, test
        (TaskDataset(20 tasks, 5 to 5 points each), TaskDataset(100 tasks, 105 to 105 points each))
        >>> test.divided(bm.tasks.PrefixSplit.at(5)).query.x.shape
        torch.Size([100, 100, 1])
    """
    draws: dict[str, tuple[Draw, SlopedSinusoid | Cauchy, int, int]] = {
        "sinusoid_easy": (partial(_sinusoid, SlopedSinusoid.metal_easy()), SlopedSinusoid.metal_easy(), 5, 41),
        "sinusoid_hard": (partial(_sinusoid, SlopedSinusoid.metal_hard()), SlopedSinusoid.metal_hard(), 10, 41),
        "cauchy": (partial(_cauchy, Cauchy()), Cauchy(), 20, 31),
    }
    if name not in draws:
        raise DataError(f"expected one of {sorted(draws)}, got {name!r}")
    draw, simulator, usual_context, usual_seed = draws[name]
    points = usual_context if context is None else whole(context, "context", 1)
    num_train, num_test = whole(num_train, "num_train", 1), whole(num_test, "num_test", 1)
    test_points = whole(test_points, "test_points", 1)
    state = np.random.RandomState(usual_seed if seed is None else whole(seed, "seed", 0, 2**32 - 1))
    train = TaskDataset.from_list([draw(points, state) for _ in range(num_train)])
    test = TaskDataset.from_list([draw(points + test_points, state) for _ in range(num_test)])
    train.oracle = test.oracle = simulator.oracle
    return train, test


def _sinusoid(family: SlopedSinusoid, count: int, state: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    amplitude = state.uniform(*family.amplitude)
    x_shift, y_shift, slope = (state.normal(*m) for m in (family.x_shift, family.y_shift, family.slope))
    period = state.uniform(*family.period)  # drawn even where it is fixed
    x = state.uniform(*family.x, size=(count, 1))
    f = slope * x + amplitude * np.sin(period * (x - x_shift)) + y_shift
    return x, f + family.noise * state.normal(size=(count, 1))


def _cauchy(family: Cauchy, count: int, state: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    from scipy.stats import truncnorm  # a second to import

    x = truncnorm.rvs(LOWER, UPPER, loc=0.0, scale=SPREAD, size=(count, 2), random_state=state)
    squares = np.square(x[:, None] - x).sum(-1)
    factor = np.linalg.cholesky(np.exp(-0.5 * squares / LENGTH_SCALE**2) + 1e-8 * np.eye(count))
    first, second = (1.0 / (np.pi * (1.0 + np.square(x - center).sum(-1))) for center in (-1.0, 2.0))
    f = 6.0 * first + 3.0 * second + 1.0 + factor @ state.normal(scale=DEVIATION, size=count)
    return x, (f + state.normal(scale=family.noise, size=count))[:, None]
