"""Numbers that fall together in float32 are named, once, and ordinary data are left in peace."""

import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import pytest
import torch

import bayesmeta as bm
from bayesmeta.rounding import silently

NOW = 1.7e9  # seconds since 1970


def _said(work: Callable[[], object]) -> list[str]:
    """What is warned of, every time."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        work()
    return [str(each.message) for each in caught if issubclass(each.category, bm.PrecisionWarning)]


def _table(origin: float = NOW, y_origin: float = 0.0) -> pd.DataFrame:
    """Tasks of a minute each, in different weeks."""
    r, rows = np.random.default_rng(0), []
    for task in range(12):
        x = np.sort(r.uniform(0, 60, 8))
        y = y_origin + x / 60 + r.normal(0, 0.1, 8)
        rows += [(f"t{task}", origin + 604800 * task + a, 5.0, b) for a, b in zip(x, y, strict=True)]
    return pd.DataFrame(rows, columns=["who", "seconds", "dose", "effect"])


@pytest.fixture
def tasks() -> bm.TaskDataset:
    return bm.TaskDataset.from_frame(_table(), task="who", x=["dose", "seconds"], y=["effect"])


def _learner() -> bm.Learner:
    return bm.ALPaCA(bm.MLP(2, [4]))


DOORS: dict[str, Callable[[bm.Learner, bm.TaskDataset], object]] = {
    "fit": lambda learner, tasks: bm.fit(learner, tasks, steps=5, validation=tasks, progress=False),
    "fit_evidence": lambda learner, tasks: bm.fit_evidence(learner, tasks, max_iterations=3),
    "evaluate": lambda learner, tasks: bm.evaluate(learner, tasks, [0, 2, 5], batch_size=3, num_bootstrap=0),
    "surprise": lambda learner, tasks: bm.checks.Surprise.fit(learner, tasks, [2]),
    "recalibration": lambda learner, tasks: bm.calibration.variance_scaling(learner, tasks, shots=[0, 2]),
    "conformal": lambda learner, tasks: bm.calibration.HierarchicalConformal(learner, tasks, shots=2),
    "predict_frame": lambda learner, tasks: bm.predict_frame(learner, tasks.schema, _table(), _table()),  # type: ignore[arg-type]
    "vi": lambda learner, tasks: bm.training.vi_hyper_posterior(learner, tasks, steps=3, num_members=2, progress=False),
}


@pytest.mark.parametrize("door", list(DOORS))
def test_the_column_is_named_once(door: str, tasks: bm.TaskDataset) -> None:
    said = _said(lambda: DOORS[door](_learner(), tasks))
    assert len(said) == 1
    for part in ("'seconds'", "float32", "1.7e+09", "subtract an origin", "Standardized", "double()"):
        assert part in said[0].replace("1.7006e+09", "1.7e+09")
    assert "dose" not in said[0]


@pytest.mark.parametrize("door", list(DOORS))
def test_what_is_said_helps(door: str) -> None:
    frame = _table()
    frame["seconds"] -= frame.groupby("who")["seconds"].transform("min")
    tasks = bm.TaskDataset.from_frame(frame, task="who", x=["dose", "seconds"], y=["effect"])
    if door != "predict_frame":
        assert not _said(lambda: DOORS[door](_learner(), tasks))
        assert not _said(
            lambda: DOORS[door](
                _learner().double(),
                bm.TaskDataset.from_frame(_table(), task="who", x=["dose", "seconds"], y=["effect"]),
            )
        )


def test_doors_without_a_table_say_the_place(tasks: bm.TaskDataset) -> None:
    learner, data = _learner(), tasks.data
    batch = tasks.divided(bm.tasks.RandomSplit.at(4))
    posterior = learner.adapt(bm.Data.empty(data))
    doors: list[Callable[[], object]] = [
        lambda: learner.adapt(data),
        lambda: learner.meta_loss(batch),
        lambda: learner.log_evidence(data),
        lambda: posterior.update(data),
        lambda: posterior.predict(data.x),
        lambda: data.to(torch.float32),
    ]
    for door in doors:
        said = _said(door)
        assert said
        assert all("input 1" in each for each in said)


def test_the_line_that_is_named_is_the_users() -> None:
    with pytest.warns(bm.PrecisionWarning) as caught:
        bm.ALPaCA(bm.Identity(1)).adapt(bm.Data.from_arrays([NOW, NOW + 1.0, NOW + 2.0], [0.1, 0.2, 0.3]))
    assert caught[0].filename == __file__


def test_outcomes_are_watched_too() -> None:
    frame = _table(origin=0.0, y_origin=1e9)
    frame["seconds"] %= 604800
    tasks = bm.TaskDataset.from_frame(frame, task="who", x=["dose", "seconds"], y=["effect"])
    said = _said(lambda: bm.fit(_learner(), tasks, steps=2, progress=False))
    assert len(said) == 1
    assert "outcomes that stay apart" in said[0]
    assert "'effect'" in said[0]
    assert not _said(lambda: bm.fit(bm.Standardized(_learner()), tasks, steps=2, progress=False))


def test_standardized_keeps_what_it_can_and_says_what_it_cannot() -> None:
    """It shifts in float64, before it rounds: one origin for all tasks, which serves where they are near each other."""
    x = [NOW + 60.0 * k for k in range(6)]
    near = bm.TaskDataset.from_list([(x, [0.1 * t + 0.3 * k for k in range(6)]) for t in range(4)])
    learner = bm.Standardized(bm.ALPaCA(bm.Identity(1)))
    assert not _said(lambda: bm.fit(learner, near, steps=2, progress=False))
    assert not _said(lambda: learner.adapt(near.data))
    assert learner.standard(learner.conform(near.data)).x.unique().numel() == 6
    far = bm.TaskDataset.from_list(  # a century apart, a tenth of a second between points
        [([NOW + 3e9 * t + 0.1 * k for k in range(6)], [0.1 * t + 0.3 * k for k in range(6)]) for t in range(4)]
    )
    learner = bm.Standardized(bm.ALPaCA(bm.Identity(1)))
    said = _said(lambda: bm.fit(learner, far, steps=3, progress=False))
    assert len(said) == 1
    assert "input 0" in said[0]


@pytest.mark.parametrize(
    "x",
    [
        [2.0**24, 2.0**24 + 1.0],
        [0.0, 5.0, 2.0**24, 2.0**24 + 1.0],
        [0, 2**24, 2**24 + 1],
        [-NOW, -NOW - 1.0, -NOW - 2.0],
        [1.0, 1.0 + 1e-9, 1.0 + 2e-9],
        [0.0, NOW, NOW + 1.0, NOW + 2.0],  # 0 for a missing time
    ],
)
def test_small_tasks_that_lose_numbers(x: list[float]) -> None:
    data = bm.Data.from_arrays(x, [0.0] * len(x))
    assert _said(lambda: data.to(torch.float32))
    padded = bm.Data.stack([data, bm.Data.from_arrays([0.0] * 9, [0.0] * 9)])  # padding is no number
    assert _said(lambda: padded.to(torch.float32))
    with silently():
        assert not _said(lambda: data.to(torch.float32))


@pytest.mark.parametrize(
    "x",
    [
        [],
        [NOW],
        [NOW, NOW],
        [NOW, NOW + 1000.0],
        [0.1 + 0.2, 0.3],  # rounding itself
        [2.0**24, 2.0**24 + 2.0],
        [1e30, 2e30],
        [0.0, 1e-300, 1.0],
    ],
)
def test_tasks_that_lose_nothing(x: list[float]) -> None:
    assert not _said(lambda: bm.Data.from_arrays(x, [0.0] * len(x)).to(torch.float32))


def _ordinary() -> Iterator[torch.Tensor]:
    normal = torch.randn(200, 50, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    yield normal
    yield 1e6 * normal
    yield 293.0 + 5.0 * normal  # Kelvin: a few of 10,000 fall together by chance, far below any noise
    yield 2020.0 + normal  # years
    yield 101_325.0 + 500.0 * normal  # Pa
    yield torch.randn(1, 20_000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    yield torch.rand(4, 5, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)  # images


@pytest.mark.parametrize("x", list(_ordinary()), ids=["normal", "large", "kelvin", "years", "pascal", "many", "images"])
def test_ordinary_data_are_left_in_peace(x: torch.Tensor) -> None:
    data = bm.Data.full(x, torch.zeros(*x.shape[:2], 1, dtype=torch.float64))
    assert not _said(lambda: data.to(torch.float32))


def test_one_lost_task_among_many_is_enough() -> None:
    x = torch.rand(500, 8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[137, :, 1] = NOW + torch.arange(8.0, dtype=torch.float64)
    said = _said(lambda: bm.Data.full(x, x[..., :1]).to(torch.float32))
    assert len(said) == 1
    assert "input 1" in said[0]


def test_whole_numbers_beyond_float64() -> None:
    names = [2**60, 2**60 + 1, 2**60 + 2]
    assert "2**53" in _said(lambda: bm.Data.from_arrays(names, [0.0, 0.1, 0.2]))[0]
    assert "2**53" in _said(lambda: bm.Data.from_arrays(np.array([names, names]).T, [0.0, 0.1, 0.2]))[0]
    assert not _said(lambda: bm.Data.from_arrays([2**53, 2**53 - 1, -(2**53)], [0.0, 0.1, 0.2]))
    assert not _said(lambda: bm.Data.from_arrays([2**60, 2**60 + 1024], [0.0, 0.1]))


def test_nothing_changes_but_the_warning() -> None:
    data = bm.Data.from_arrays([NOW, NOW + 1.0], [1e9, 1e9 + 1.0])
    with pytest.warns(bm.PrecisionWarning):
        single = data.to(torch.float32)
    assert torch.equal(single.x, data.x.float())
    assert torch.equal(single.y, data.y.float())
