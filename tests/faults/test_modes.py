"""torch's modes are the caller's affair: they change no number, and what cannot work says so in words of our own."""

import contextlib
import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import bayesmeta as bm
from tests.faults.subjects import SUBJECTS, Subject, by_name, check_same
from tests.registry import Case

pytestmark = [pytest.mark.filterwarnings("ignore::bayesmeta.ConvergenceWarning"), pytest.mark.usefixtures("unchecked")]
ROUNDING = 2e-6  # a loss has another path with gradients than without; bfloat16 would be off by 1e-3
Mode = Callable[[], contextlib.AbstractContextManager[Any]]


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def default_device(device: str) -> Iterator[None]:
    """`meta` holds no numbers: whatever is made on it by accident fails."""
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


MODES: dict[str, Mode] = {
    "no-grad": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "default-float64": lambda: default_dtype(torch.float64),
    "default-float16": lambda: default_dtype(torch.float16),
    "default-device": lambda: default_device("meta"),
    "deterministic": deterministic,
}


@pytest.fixture(scope="module", params=SUBJECTS, ids=lambda case: case.name)
def subject(request: pytest.FixtureRequest) -> Subject:
    torch.manual_seed(0)
    return Subject.of(request.param)


def test_no_mode_changes_a_number(subject: Subject) -> None:
    """All modes in one test: what a learner says without any is computed once."""
    wanted = subject.all_answers()
    for name, mode in MODES.items():
        with mode():
            got = subject.all_answers()
        assert not any(value.is_inference() or value.requires_grad for value in got), name
        try:
            check_same(got, wanted, ROUNDING)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


def test_values_made_in_inference_mode_serve_outside_of_it(subject: Subject) -> None:
    x = subject.tasks.query.x.float()
    wanted = subject.answers(subject.learner.adapt(subject.tasks.support).predict(x))
    with torch.inference_mode():
        posterior = subject.learner.adapt(subject.tasks.support)
        predictive = posterior.predict(x)
    check_same(subject.answers(predictive), wanted)
    points = x.clone().requires_grad_()
    again = posterior.predict(points)
    again.log_prob(subject.y).sum().backward()  # acquisition functions need this
    assert points.grad is not None


def test_tensors_made_in_inference_mode_are_data(subject: Subject) -> None:
    learner, tasks = subject.learner, subject.tasks
    wanted = subject.answers(learner.adapt(tasks.support.to(torch.float32)).predict(tasks.query.x.float()))
    with torch.inference_mode():
        made = bm.TaskBatch(*(data.to(torch.float32).clone() for data in (tasks.support, tasks.query)))
        y, x = subject.y.clone(), tasks.query.x.float()
    posterior = learner.adapt(made.support)
    check_same(subject.answers(posterior.predict(x)), wanted)
    points = tasks.query.x.float().requires_grad_()
    posterior.update(made.query).predict(points).log_prob(y).sum().backward()
    loss = learner.meta_loss(made).sum()
    if any(parameter.requires_grad for parameter in learner.parameters()):
        loss.backward()


def test_a_learner_made_in_inference_mode_adapts_or_says_why_not(subject: Subject) -> None:
    with torch.inference_mode():
        made = copy.deepcopy(subject.learner)
    wanted = subject.learner.adapt(subject.tasks.support).predict(subject.tasks.query.x)
    got = made.adapt(subject.tasks.support).predict(subject.tasks.query.x)
    check_same(subject.answers(got), subject.answers(wanted))
    with pytest.raises(bm.UnsupportedError, match=r"outside of torch\.inference_mode.*copy\.deepcopy"):
        made.meta_loss(subject.tasks)
    outside = copy.deepcopy(made)  # as the message says
    for learner in (outside, subject.learner):
        assert torch.isfinite(learner.meta_loss(subject.tasks)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused_at_every_door(subject: Subject, dtype: torch.dtype) -> None:
    half, tasks = copy.deepcopy(subject.learner).to(dtype), subject.tasks
    doors: list[Callable[[], Any]] = [
        lambda: half.adapt(tasks.support),
        lambda: half.meta_loss(tasks),
        lambda: half.log_evidence(tasks.support),
        half.frozen,
    ]
    for door in doors:
        with pytest.raises(bm.UnsupportedError, match=r"float32 or float64, got .*float16"):
            door()


def test_half_of_a_learner_in_half_precision_is_refused() -> None:
    learner = bm.ALPaCA(bm.MLP(1, [4]))
    learner.prior.half()
    data = bm.Data.from_arrays([0.0, 1.0, 2.0], [0.1, 0.9, 2.1])
    tasks = bm.TaskDataset(data)
    for door in (
        lambda: learner.adapt(data),
        lambda: bm.fit(learner, tasks, steps=1),
        lambda: bm.fit_evidence(learner, tasks),
        lambda: bm.evaluate(learner, tasks, [1]),
    ):
        with pytest.raises(bm.UnsupportedError, match="got float16"):
            door()


GRADLESS: dict[str, Mode] = {name: MODES[name] for name in ("no-grad", "inference", "autocast", "default-float64")}


def _tasks() -> bm.TaskDataset:
    return bm.tasks.GPFunctions.eq().dataset(12, 12, seed=0)


def _fit(learner: bm.Learner) -> Callable[[], list[float]]:
    start, tasks = copy.deepcopy(learner.state_dict()), _tasks()

    def run() -> list[float]:
        learner.load_state_dict(start)
        result = bm.fit(learner, tasks, steps=2, validation=tasks, progress=False)
        return [*result.losses, result.validation[0][1]]

    return run


def _fit_evidence() -> Callable[[], list[float]]:
    learner, tasks = bm.ALPaCA(bm.Identity(1)).double(), _tasks()
    start = copy.deepcopy(learner.state_dict())

    def run() -> list[float]:
        learner.load_state_dict(start)
        return list(bm.fit_evidence(learner, tasks, max_iterations=3).losses[:3])

    return run


def _numbers(predictive: bm.Predictive) -> list[float]:
    return predictive.mean.flatten().tolist()


def _hyper(kind: str) -> Callable[[], list[float]]:
    tasks, members = _tasks(), [bm.ALPaCA(bm.MLP(1, [4])) for _ in range(2)]
    if kind == "vi":
        return lambda: _numbers(
            bm.training.vi_hyper_posterior(members[0], tasks, steps=2, num_members=2, progress=False)
            .adapt(tasks.data)
            .predict(tasks.data.x)
        )
    return lambda: _numbers(
        bm.training.svgd_hyper_posterior(members, tasks, steps=2, progress=False)
        .adapt(tasks.data)
        .predict(tasks.data.x)
    )


def _trust(kind: str) -> Callable[[], list[float]]:
    learner, tasks = bm.MAML(bm.MLP(1, [4])), _tasks()
    few = tasks.data.points(slice(3))
    if kind == "evaluate":
        return lambda: bm.evaluate(learner, tasks, [0, 3], num_bootstrap=0).table()["nll"].tolist()
    if kind == "surprise":
        return lambda: bm.checks.Surprise.fit(learner, tasks, [3]).p_value(few).tolist()
    if kind == "shrinkage":
        return lambda: bm.checks.shrinkage(learner, few).tolist()
    if kind == "variance-scaling":
        scaled = lambda: bm.calibration.variance_scaling(learner, tasks, shots=[0, 3])
        return lambda: scaled().log_factors.tolist()  # type: ignore[no-any-return]
    if kind == "few-shot-conformal":
        return lambda: (
            bm.calibration.FewShotConformal(learner, tasks, tasks, shots=3)
            .adapt(few)
            .interval(tasks.data.x, 0.5)[0]
            .flatten()
            .tolist()
        )
    return lambda: (
        bm.calibration.HierarchicalConformal(learner, tasks, shots=3)
        .adapt(few)
        .interval(tasks.data.x, 0.5)[0]
        .flatten()
        .tolist()
    )


WORK: dict[str, Callable[[], Callable[[], list[float]]]] = {
    "fit-alpaca": lambda: _fit(bm.ALPaCA(bm.MLP(1, [4]))),
    "fit-maml": lambda: _fit(bm.MAML(bm.MLP(1, [4]))),
    "fit-standardized": lambda: _fit(bm.Standardized(bm.ALPaCA(bm.MLP(1, [4])))),
    "fit-evidence": _fit_evidence,
    "vi": lambda: _hyper("vi"),
    "svgd": lambda: _hyper("svgd"),
    **{
        kind: lambda kind=kind: _trust(kind)  # type: ignore[misc]
        for kind in ("evaluate", "surprise", "shrinkage", "variance-scaling", "few-shot-conformal", "conformal")
    },
}


@pytest.mark.parametrize("name", list(WORK))
def test_training_and_trust_work_in_every_mode(name: str) -> None:
    """They switch gradients on where they need them."""
    work = WORK[name]()
    wanted = work()
    for mode_name, mode in GRADLESS.items():
        with mode():
            got = work()
        assert got == wanted, mode_name


def test_training_refuses_theta_that_was_made_in_inference_mode() -> None:
    with torch.inference_mode():
        learner = bm.ALPaCA(bm.MLP(1, [4]))
    for train in (bm.fit, bm.fit_evidence):
        with pytest.raises(bm.UnsupportedError, match=r"torch\.inference_mode"):
            train(learner, _tasks())


def test_a_learner_loaded_in_any_mode_is_the_one_that_was_saved(tmp_path: Path) -> None:
    learner, data = bm.MAML(bm.MLP(1, [4])), _tasks().data
    bm.save(learner, tmp_path / "model")
    wanted = learner.adapt(data).predict(data.x).mean
    for mode in (mode for name, mode in MODES.items() if name != "default-device"):  # where modules are made
        with mode():
            loaded = bm.load(tmp_path / "model")
        check_same([loaded.adapt(data).predict(data.x).mean], [wanted])
        loaded.meta_loss(bm.TaskBatch(data, data)).sum().backward()


@pytest.mark.parametrize("case", by_name(["alpaca", "maml", "bmaml"]), ids=lambda case: case.name)
def test_modes_stay_as_the_caller_has_set_them(case: Case) -> None:
    subject = Subject.of(case)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        subject.all_answers()
        assert torch.is_inference_mode_enabled()
        assert torch.is_autocast_enabled("cpu")
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()
    assert subject.learner.meta_loss(subject.tasks).requires_grad
