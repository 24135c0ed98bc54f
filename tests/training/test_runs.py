"""Runs that go on where they were: bit for bit, with every kind of learner; what they refuse, and what stops them.

Kills are in tests/faults/test_killed_runs.py.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import bayesmeta as bm
from bayesmeta.training import FitResult

TASKS = bm.tasks.Sinusoid().dataset(num_tasks=8, num_points=6, seed=0)
HELD_OUT = bm.tasks.Sinusoid().dataset(num_tasks=4, num_points=6, seed=1)


class _Stopped(bm.tasks.TaskSource):
    """The tasks, until a signal comes when those of a step are drawn."""

    def __init__(self, draws: int, number: int = signal.SIGTERM) -> None:
        self._draws, self._number = draws, number

    def draw(self, num_tasks: int, split: bm.tasks.Split, generator: torch.Generator) -> bm.TaskBatch:
        self._draws -= 1
        if self._draws == 0:
            os.kill(os.getpid(), self._number)
        return TASKS.draw(num_tasks, split, generator)

    def pooled(self, generator: torch.Generator) -> bm.Data:
        return TASKS.pooled(generator)

    @property
    def total_points(self) -> float:
        return TASKS.total_points


class _Normalised(bm.Network):
    """Features in units of a running deviation, which every pass in training moves, and randomly dropped ones."""

    def __init__(self) -> None:
        super().__init__()
        self.x_shape, self.num_outputs = (1,), 4
        self.layer = torch.nn.Linear(1, 4)
        self.register_buffer("deviation", torch.ones(4))
        self.register_buffer("passes", torch.zeros((), dtype=torch.long), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.layer(x)
        if torch.is_grad_enabled():
            with torch.no_grad():
                self.deviation.lerp_(h.detach().flatten(0, -2).std(0), 0.1)
                self.passes += 1
            h = h * (torch.rand_like(h) < 0.9)
        return h / self.deviation.clone() * self.passes.clamp(max=3)


MAKERS: dict[str, Callable[[], bm.Learner]] = {
    "standardized": lambda: bm.Standardized(bm.ALPaCA(bm.MLP(1, [4]))),
    "normalised": lambda: bm.ALPaCA(_Normalised()),
    "float64": lambda: bm.MAML(bm.MLP(1, [4]), steps=1).double(),
    "scheduled": lambda: bm.MAMLPlusPlus(bm.MLP(1, [4]), steps=2),
    "own optimizer": lambda: bm.AlphaMAML(bm.MLP(1, [4]), steps=1),
    "draws": lambda: bm.LatentNeuralProcess(bm.MLP(1, [4])),
}


def _made(name: str) -> bm.Learner:
    torch.manual_seed(3)
    return MAKERS[name]()


def _require_same(a: bm.Learner, b: bm.Learner) -> None:
    both = zip(
        [*a.state_dict().items(), *a.named_buffers()], [*b.state_dict().items(), *b.named_buffers()], strict=True
    )
    for (name, value), (_, other) in both:
        assert torch.equal(value, other), name


def _require_loaded(folder: Path, learner: bm.Learner) -> None:
    loaded = bm.load(folder).state_dict()
    for name, value in learner.state_dict().items():
        assert torch.equal(value, loaded[name]), name


def _history(result: FitResult) -> tuple[Any, ...]:
    return result.losses, result.validation, result.best_step, result.stopped_early, result.interrupted


def _fit(
    learner: bm.Learner, folder: Path | None, source: bm.tasks.TaskSource | None = None, **others: Any
) -> FitResult:
    arguments: dict[str, Any] = {"steps": 12, "batch_size": 3, "lr": 0.03, "progress": False, "every": 3} | others
    torch.manual_seed(7)
    return bm.fit(learner, _Stopped(0) if source is None else source, checkpoint=folder, **arguments)


@pytest.mark.parametrize("validated", [False, True])
@pytest.mark.parametrize("name", MAKERS)
def test_a_run_that_goes_on_ends_as_one_without_a_break(name: str, validated: bool, tmp_path: Path) -> None:
    others: dict[str, Any] = {"validation": HELD_OUT, "validate_every": 2} if validated else {}
    whole, stopped, resumed = _made(name), _made(name), _made(name)
    expected = _fit(whole, None, **others)
    found = _fit(stopped, tmp_path, _Stopped(8), **others)
    assert found.interrupted
    assert found.losses == expected.losses[:8]
    _require_loaded(tmp_path, stopped)
    torch.manual_seed(0)
    with torch.no_grad():  # what the run goes on with is what it was kept with
        for parameter in resumed.parameters():
            parameter.zero_()
    assert _history(_fit(resumed, tmp_path, resume="auto", **others)) == _history(expected)
    _require_same(resumed, whole)
    _require_loaded(tmp_path, whole)


def test_a_compiled_run_goes_on_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the recorded graph in the place of what inductor makes of it, which takes a minute
    monkeypatch.setattr("bayesmeta.training.compiled.compile_graph", lambda graph, inputs: graph)
    whole, stopped, resumed = (_made("standardized") for _ in range(3))
    expected = _fit(whole, None, compile=True)
    _fit(stopped, tmp_path, _Stopped(5), compile=True)
    assert _history(_fit(resumed, tmp_path, resume="auto", compile=True)) == _history(expected)
    _require_same(resumed, whole)
