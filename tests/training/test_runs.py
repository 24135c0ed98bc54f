"""Runs that go on where they were: bit for bit, with every kind of learner; what they refuse, and what stops them.

Kills are in tests/faults/test_killed_runs.py.
"""

import errno
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import bayesmeta as bm
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.training import CheckpointWarning, FitResult
from bayesmeta.training.runs.folder import RunFolder
from bayesmeta.training.runs.packing import packed, unpacked
from bayesmeta.training.runs.signals import Stop

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


class _Signalled(bm.training.MaximumLikelihood):
    """The evidence, until a signal comes when it is computed for the n-th time."""

    def __init__(self, calls: int, number: int = signal.SIGTERM) -> None:
        self._calls, self._number = calls, number

    def __call__(self, learner: bm.Learner, *data: bm.Data) -> torch.Tensor:
        self._calls -= 1
        if self._calls == 0:
            os.kill(os.getpid(), self._number)
        return super().__call__(learner, *data)


@pytest.mark.filterwarnings("ignore::bayesmeta.ConvergenceWarning")
@pytest.mark.parametrize("make", [lambda: bm.ALPaCA(bm.Identity(1)), lambda: bm.DeepKernelTransfer(bm.Identity(1))])
def test_a_search_goes_on_without_computing_anything_twice(make: Callable[[], bm.Learner], tmp_path: Path) -> None:
    whole, stopped, resumed = (make().double() for _ in range(3))
    starts = None if isinstance(whole, bm.ALPaCA) else bm.training.Starts(3)  # many at once, and one to the end
    arguments: dict[str, Any] = {"starts": starts, "max_iterations": 60, "tolerance": 1e-5}
    counted = _Signalled(0)
    expected = bm.fit_evidence(whole, TASKS, counted, **arguments)
    middle = -counted._calls // 2
    found = bm.fit_evidence(stopped, TASKS, _Signalled(middle), checkpoint=tmp_path, **arguments)
    assert found.interrupted
    assert found.losses == expected.losses[: len(found.losses)]
    with torch.no_grad():
        for parameter in resumed.parameters():
            parameter.add_(0.1)
    rest = _Signalled(0)
    again = bm.fit_evidence(resumed, TASKS, rest, checkpoint=tmp_path, resume="auto", **arguments)
    assert (_history(again), again.ends, again.converged) == (_history(expected), expected.ends, expected.converged)
    assert -rest._calls < -counted._calls - middle + 5
    _require_same(resumed, whole)
    _require_loaded(tmp_path, whole)


def _posterior(kind: str, signalled: int, folder: Path | None, **others: Any) -> bm.HyperPosterior:
    torch.manual_seed(5)
    learners = [bm.wrappers.WithHyperprior(bm.ALPaCA(bm.Identity(1)), bm.hyperpriors.DeviationHyperprior()).double()]
    if kind == "nuts":
        sampler = bm.inference.NUTS(num_chains=2, num_draws=4, num_warmup=20, max_depth=2)
        arguments: dict[str, Any] = {"sampler": sampler, "num_members": 3, "problem": _Signalled(signalled)}
        return bm.training.nuts_hyper_posterior(learners[0], TASKS, checkpoint=folder, **arguments, **others)
    arguments = {"steps": 10, "batch_size": 3, "objective": _SignalledLoss(signalled), "every": 3, "checkpoint": folder}
    if kind == "vi":
        return bm.training.vi_hyper_posterior(learners[0], TASKS, num_members=2, **arguments, **others)
    learners.append(bm.wrappers.WithHyperprior(bm.ALPaCA(bm.Identity(1)), learners[0].hyperprior).double())
    return bm.training.svgd_hyper_posterior(learners, TASKS, **arguments, **others)


class _SignalledLoss(bm.training.JointPredictive):
    def __init__(self, calls: int) -> None:
        self._problem = _Signalled(calls)

    def loss(self, learner: bm.Learner, tasks: bm.TaskBatch) -> torch.Tensor:
        self._problem(learner, tasks.support)
        return super().loss(learner, tasks)


@pytest.mark.filterwarnings("ignore::bayesmeta.ConvergenceWarning")
@pytest.mark.parametrize(("kind", "calls"), [("nuts", 40), ("vi", 5), ("svgd", 11)])
def test_hyper_posteriors_go_on_too(kind: str, calls: int, tmp_path: Path) -> None:
    expected = _posterior(kind, 0, None)
    with pytest.raises(KeyboardInterrupt):  # what has not come to its end is no posterior
        _posterior(kind, calls, tmp_path)
    found = _posterior(kind, 0, tmp_path, resume="auto")
    _require_same(found, expected)
    _require_loaded(tmp_path, expected)


def test_compiled_chains_cannot_be_kept(tmp_path: Path) -> None:
    sampler = bm.inference.NUTS(num_chains=2, num_draws=4, num_warmup=20, compile=True)
    with pytest.raises(UnsupportedError, match=r"use NUTS\(compile=False\), or no checkpoint"):
        bm.training.nuts_hyper_posterior(
            bm.ALPaCA(bm.Identity(1)), TASKS, sampler=sampler, num_members=2, checkpoint=tmp_path
        )


# ------------------------------------------------------------------------------------------------- what a folder says


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """Ctrl-C interrupts, also where the tests run in the background of a shell, which has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_the_best_validated_theta(number: int, tmp_path: Path) -> None:
    learner, before = _made("standardized"), [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    result = _fit(learner, tmp_path, _Stopped(9, number), lr=0.5, validation=HELD_OUT, validate_every=2)
    assert (result.interrupted, len(result.losses), result.stopped_early) == (True, 9, False)
    assert result.best_step == min(dict(result.validation), key=dict(result.validation).get) < 9
    assert repr(result).endswith("; interrupted)")
    _require_loaded(tmp_path, learner)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.usefixtures("_interruptible")
def test_signals_are_taken_over_and_given_back() -> None:
    seen: list[int] = []
    with Stop() as outer:
        with Stop() as inner:
            os.kill(os.getpid(), signal.SIGTERM)
            assert (outer.is_asked, inner.is_asked) == (True, True)
            with pytest.raises(KeyboardInterrupt):  # who asks twice does not want to wait
                os.kill(os.getpid(), signal.SIGINT)
        thread = threading.Thread(target=lambda: seen.append(len(Stop().__enter__()._before)))
        thread.start()
        thread.join()
        assert seen == [0]  # handlers are the main thread's business
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with Stop() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
        assert (stop.is_asked, seen) == (False, [0, signal.SIGTERM])  # a handler of the user's own stays
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("_interruptible")
def test_an_interrupt_without_a_folder_is_an_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt):
        _fit(_made("standardized"), None, _Stopped(4, signal.SIGINT))


def test_a_run_goes_on_with_its_own_settings_only(tmp_path: Path) -> None:
    _fit(_made("standardized"), tmp_path, TASKS, steps=3)
    others: dict[str, Any] = {
        "steps": 4,
        "batch_size": 2,
        "lr": 0.01,
        "split": bm.tasks.RandomSplit.at(2),
        "objective": bm.training.Evidence(),
        "validation": HELD_OUT,
        "patience": 2,
        "grad_clip": 1.0,
        "seed": 1,
    }
    for name, value in others.items():
        with pytest.raises(DataError, match=rf"expected (the )?{name}\b.*resume='never'"):
            _fit(_made("standardized"), tmp_path, TASKS, resume="auto", **{"steps": 3, name: value})
    untouched = _made("standardized")
    with pytest.raises(DataError, match="expected the tasks of the run"):
        _fit(untouched, tmp_path, HELD_OUT, steps=3, resume="auto")
    _require_same(untouched, _made("standardized"))  # it is refused before anything is done
    with pytest.raises(DataError, match="expected the learner of the run"):
        _fit(_made("standardized").double(), tmp_path, TASKS, steps=3, resume="auto")
    with pytest.raises(DataError, match=r"expected training='fit', as .* got 'fit_evidence'"):
        bm.fit_evidence(_made("standardized"), TASKS, checkpoint=tmp_path, resume="auto")


def test_what_becomes_of_a_run_that_is_there(tmp_path: Path) -> None:
    _fit(_made("standardized"), tmp_path, _Stopped(6))
    with pytest.raises(DataError, match=r"got one at step 6 .* resume='auto'"):
        _fit(_made("standardized"), tmp_path)
    anew = _fit(_made("standardized"), tmp_path, resume="never")
    assert (len(anew.losses), anew.interrupted) == (12, False)
    again = _fit(_made("standardized"), tmp_path, resume="auto")  # it has come to its end: nothing is left to do
    assert again.losses == anew.losses
    assert len(_fit(_made("standardized"), tmp_path, steps=3).losses) == 3  # a run that is done may be replaced
    with pytest.raises(DataError, match=r"expected a checkpoint, .* for resume='auto', got none"):
        _fit(_made("standardized"), None, resume="auto")
    with pytest.raises(DataError, match="whole number every >= 1, got 0"):
        _fit(_made("standardized"), tmp_path, every=0)


def _states(folder: Path) -> list[Path]:
    return sorted((folder / "states").glob("*.safetensors"))


@pytest.mark.parametrize("damage", [lambda content: content[:-5], lambda content: content[:-1] + b"?", lambda _: b""])
def test_a_damaged_state_gives_way_to_the_one_before(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    whole = _made("standardized")
    expected = _fit(whole, None)
    _fit(_made("standardized"), tmp_path, _Stopped(8))
    before, newest = _states(tmp_path)
    assert [int(each.name[:8]) for each in (before, newest)] == [6, 8]
    newest.write_bytes(damage(newest.read_bytes()))
    resumed = _made("standardized")
    with pytest.warns(CheckpointWarning, match=r"got a damaged one of step 8 .*; going on from 6"):
        found = _fit(resumed, tmp_path, resume="auto")
    assert _history(found) == _history(expected)
    _require_same(resumed, whole)
    assert [int(each.name[:8]) for each in _states(tmp_path)] == [9, 12]
    for each in _states(tmp_path):
        each.write_bytes(damage(each.read_bytes()))
    with pytest.raises(DataError, match=r"expected a whole state .* got 2 damaged: pass resume='never'"):
        _fit(_made("standardized"), tmp_path, resume="auto")


def test_two_writers_of_a_folder_are_refused(tmp_path: Path) -> None:
    with (
        RunFolder(tmp_path, {}, 3, None, None),
        pytest.raises(DataError, match=f"nobody else writes to, got {tmp_path}, which process {os.getpid()} on"),
    ):
        _fit(_made("standardized"), tmp_path)
    _fit(_made("standardized"), tmp_path, steps=1)  # the lock is let go


def test_a_full_disk_loses_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, learner, resumed = (_made("standardized") for _ in range(3))
    expected = _fit(whole, None)
    inner = os.fsync

    def full(descriptor: int) -> None:
        if len(_states(tmp_path)) == 2:  # from step 6 on
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        inner(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with warnings.catch_warnings(record=True, action="always") as seen, pytest.raises(DataError, match="No space left"):
        _fit(learner, tmp_path)  # a run that cannot write what it has come to has failed
    told = [str(each.message) for each in seen if each.category is CheckpointWarning]
    assert any("state of step 6" in each for each in told)
    assert any("write the model" in each for each in told)
    assert all("the training goes on" in each and "No space left" in each for each in told)
    monkeypatch.undo()
    _require_same(learner, whole)  # but what it has come to is there, in memory
    assert [int(each.name[:8]) for each in _states(tmp_path)] == [0, 3]
    assert not list((tmp_path / "states").glob(".*"))
    assert _history(_fit(resumed, tmp_path, resume="auto")) == _history(expected)
    _require_same(resumed, whole)


def test_other_versions_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fit(_made("standardized"), tmp_path, _Stopped(2))
    monkeypatch.setattr("bayesmeta.training.runs.folder.versions", lambda: {"torch": "9.9"})
    with pytest.warns(CheckpointWarning, match=r"expected the versions of the run .* got .*9\.9"):
        _fit(_made("standardized"), tmp_path, resume="auto")


def test_trees_are_packed_without_pickles() -> None:
    tree = {1: [torch.arange(3), (None, True, -0.0, float("inf"))], "a": {"b": torch.zeros(0, 2, dtype=torch.float64)}}
    found = unpacked(packed(tree))
    assert torch.equal(found[1][0], tree[1][0])
    assert repr(found[1][1]) == repr(tree[1][1])
    assert (found["a"]["b"].shape, found["a"]["b"].dtype) == ((0, 2), torch.float64)
    with pytest.raises(UnsupportedError, match=r"expected a state of tensors.* got a set"):
        packed({"momentum": set()})
    for content in (b"", b"12345678", packed(tree)[:-1], b"\x02" + bytes(7) + b"{}"):
        with pytest.raises(DataError, match="expected a tree of tensors"):
            unpacked(content)
