"""Meta-training: quiet, reproducible, stops where it should, and says where it broke."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import bayesmeta as bm
from bayesmeta.data import DataSpec
from bayesmeta.errors import DataError, InferenceError, ShapeError, UnsupportedError
from bayesmeta.training.evidence import fit_evidence
from bayesmeta.training.fit import fit

D = torch.float64


def _tasks(num_tasks: int = 12, points: int = 8, seed: int = 0) -> bm.TaskDataset:
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(num_tasks):
        x = rng.uniform(-2, 2, points)
        pairs.append((x, np.sin(x + rng.uniform(0, 3)) + 0.1 * rng.normal(size=points)))
    return bm.TaskDataset.from_list(pairs, [f"task {t}" for t in range(num_tasks)])


def _learner(seed: int = 0) -> bm.ALPaCA:
    torch.manual_seed(seed)
    return bm.ALPaCA(bm.MLP(1, [8]))


def _theta(learner: bm.Learner) -> list[torch.Tensor]:
    return [p.detach().clone() for p in learner.parameters()]


def _same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# ---------------------------------------------------------------------------------------------------------------- fit


def test_quiet_where_there_is_no_terminal(capsys: pytest.CaptureFixture) -> None:
    result = fit(_learner(), _tasks(), steps=60, validation=_tasks(4, seed=1), validate_every=20)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
    assert repr(result).startswith("FitResult(60 steps in ")
    fit(_learner(), _tasks(), steps=5, progress=True)
    captured = capsys.readouterr()
    assert "fit" in captured.err
    assert captured.out == ""


def test_seeds_reproduce_and_the_global_generator_is_left_alone() -> None:
    results = []
    for seed in (0, 0, 1):
        learner = _learner()
        before = torch.random.get_rng_state()
        result = fit(learner, _tasks(), steps=20, batch_size=4, seed=seed, validation=_tasks(4), validate_every=10)
        assert torch.equal(torch.random.get_rng_state(), before)
        results.append((result.losses, result.validation, _theta(learner)))
    assert results[0][:2] == results[1][:2]
    assert _same(results[0][2], results[1][2])
    assert results[0][0] != results[2][0]


def test_history() -> None:
    result = fit(_learner(), _tasks(), steps=25, validation=_tasks(4, seed=1), validate_every=10)
    assert [step for step, _ in result.validation] == [10, 20, 25]
    frame = result.frame()
    assert frame.columns.tolist() == ["step", "loss", "gradient_norm", "lr", "validation"]
    assert frame["step"].tolist() == list(range(1, 26))
    assert frame["validation"].notna().sum() == 3
    assert frame["loss"].tolist() == list(result.losses)
    assert frame["gradient_norm"].gt(0.0).all()
    assert frame["lr"].tolist() == pytest.approx([5e-4 * (1 + math.cos(math.pi * n / 25)) for n in range(25)])
    assert not result.stopped_early
    without = fit(_learner(), _tasks(), steps=3)
    assert (without.best_step, without.validation, len(without.frame())) == (3, (), 3)
    assert without.frame()["validation"].isna().all()


def test_validation_scores_are_those_of_the_validation_tasks() -> None:
    learner, held_out = _learner(), _tasks(4, seed=1)
    split = bm.tasks.RandomSplit((2, 4))
    result = fit(learner, _tasks(), steps=10, split=split, validation=held_out, validate_every=10, seed=3)
    with torch.no_grad():
        expected = learner.meta_loss(held_out.divided(split, 3)).mean().item()
    assert math.isclose(result.validation[-1][1], expected, rel_tol=1e-6)  # float32 features


def test_early_stopping_restores_the_best_theta() -> None:
    held_out = _tasks(4, seed=1)
    learner = _learner()
    # with random labels in training, validation gets worse soon
    rng = np.random.default_rng(0)
    noise = bm.TaskDataset.from_list([(rng.uniform(-2, 2, 8), 5.0 * rng.normal(size=8)) for _ in range(6)])
    result = fit(learner, noise, steps=2000, lr=0.03, validation=held_out, validate_every=5, patience=3)
    assert result.stopped_early
    assert len(result.losses) < 2000
    scores = dict(result.validation)
    assert result.best_step == min(scores, key=scores.get)
    assert len(result.losses) == result.best_step + 15
    with torch.no_grad():
        found = learner.meta_loss(held_out.divided(bm.tasks.RandomSplit(), 0)).mean().item()
    assert math.isclose(found, scores[result.best_step], rel_tol=1e-6)


class _Interrupted(bm.tasks.Simulator):
    """Somebody presses Ctrl-C when the tasks of a step are drawn."""

    def __init__(self, at: int) -> None:
        self.at, self.draws = at, 0
        self.inner = bm.tasks.Sinusoid()

    def simulate(self, num_tasks: int, num_points: int, generator: torch.Generator) -> bm.Data:
        return self.inner.simulate(num_tasks, num_points, generator)

    def draw(self, num_tasks: int, split: bm.tasks.Split, generator: torch.Generator) -> bm.TaskBatch:
        self.draws += 1
        if self.draws == self.at:
            raise KeyboardInterrupt
        return self.inner.draw(num_tasks, split, generator)


@pytest.mark.parametrize("seed", range(3))
def test_an_interrupt_leaves_the_best_validated_theta(seed: int, tmp_path: Path) -> None:
    held_out = bm.tasks.Sinusoid().dataset(num_tasks=20, num_points=10, seed=9)
    learner = bm.MAMLPlusPlus(bm.MLP(1, [8]), steps=2)
    arguments = {"validation": held_out, "validate_every": 2, "batch_size": 4, "lr": 0.3, "seed": seed}
    with pytest.raises(KeyboardInterrupt):
        bm.fit(learner, _Interrupted(28), steps=40, checkpoint=tmp_path, progress=False, **arguments)
    best = bm.load(tmp_path)  # which every better validation writes
    for (name, a), b in zip(learner.state_dict().items(), best.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert learner.progress == 1.0  # a trained learner, not one in the middle of its schedule


def test_an_interrupt_without_validation_leaves_the_last_theta_with_a_finite_loss() -> None:
    learners = [bm.ALPaCA(bm.Identity(1)) for _ in range(2)]
    with pytest.raises(KeyboardInterrupt):
        bm.fit(learners[0], _Interrupted(5), steps=8, progress=False)
    with pytest.raises(KeyboardInterrupt):
        bm.fit(learners[1], _Interrupted(4), steps=8, progress=False)
    assert not torch.equal(learners[0].prior.location, learners[1].prior.location)
    assert all(bool(p.isfinite().all()) for learner in learners for p in learner.parameters())


def test_an_interrupt_of_the_evidence_leaves_the_best_theta(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = bm.tasks.Sinusoid().dataset(num_tasks=10, num_points=6, seed=0)
    learner = bm.ALPaCA(bm.Polynomial(1, 3)).double()
    inner, calls = bm.ALPaCA.evidence, []

    def evidence(self: bm.ALPaCA, data: bm.Data) -> torch.Tensor:
        value = inner(self, data)
        calls.append(float(value.detach().sum()))
        if len(calls) == 30:  # in the search: twenty are spent on where noise and prior start
            raise KeyboardInterrupt
        return value

    monkeypatch.setattr(bm.ALPaCA, "evidence", evidence)
    with pytest.raises(KeyboardInterrupt):
        bm.fit_evidence(learner, tasks)
    monkeypatch.undo()
    assert math.isclose(learner.log_evidence(tasks.data).sum().item(), max(calls[:29]), rel_tol=1e-9)


@pytest.mark.parametrize(
    "objective", [None, bm.training.JointPredictive(), bm.training.MarginalPredictive(), bm.training.Evidence()]
)
@pytest.mark.parametrize("wrap", [lambda a: a, bm.Standardized])
def test_every_objective_trains(objective: object, wrap: object) -> None:
    learner = wrap(_learner())
    result = fit(learner, _tasks(32), steps=80, lr=1e-2, objective=objective, split=bm.tasks.RandomSplit((0, 6)))
    assert np.mean(result.losses[-10:]) < np.mean(result.losses[:10]) - 0.1  # nats per point


def test_the_mean_of_the_evidence_objective_is_nats_per_point() -> None:
    learner, tasks = _learner().double(), bm.TaskDataset.from_list([([0.0], [1.0]), ([0.0, 1.0, 2.0], [1.0, 2.0, 0.5])])
    losses = bm.training.Evidence()(learner, tasks.divided(bm.tasks.RandomSplit.at(1)))
    total = learner.log_evidence(tasks.data).sum()
    torch.testing.assert_close(losses.mean(), -total / 4.0, rtol=1e-10, atol=0.0)  # four points, whatever the padding


def test_splits_of_a_forecast_train_too() -> None:
    result = fit(_learner(), _tasks(), steps=5, split=bm.tasks.PrefixSplit((1, 4), query=2))
    assert len(result.losses) == 5


class _Hyper(bm.ALPaCA):
    def log_hyperprior(self) -> torch.Tensor:
        """-960 nats, and a slope in the prior mean."""
        return -960.0 - 1e6 * self.prior.location.sum()  # the prior mean starts at zero


def test_hyperpriors_are_shared_among_all_points() -> None:
    tasks = _tasks(12, 8)  # 96 points
    torch.manual_seed(0)
    learner = _Hyper(bm.MLP(1, [8]))
    with_it, without = (fit(a, tasks, steps=1, lr=0.01).losses[0] for a in (learner, _learner()))
    assert math.isclose(with_it - without, 10.0, rel_tol=1e-5)  # float32
    assert (learner.prior.location < -0.009).all()  # Adam's first step is its rate, where the hyperprior points


class _Broken(bm.ALPaCA):
    """Gives a loss of NaN for one task, from some call on."""

    def __init__(self, calls: int, how: str = "nan") -> None:
        super().__init__(bm.MLP(1, [4]))
        self.calls, self.how, self.seen = calls, how, []

    def loss(self, tasks: bm.TaskBatch) -> torch.Tensor:
        loss = super().loss(tasks)
        self.seen.append(_theta(self))
        if len(self.seen) < self.calls:
            return loss
        if self.how == "error":
            raise InferenceError("no such matrix")
        if self.how == "gradient":  # sqrt has an infinite slope at zero
            return loss + (self.prior.location.sum() * 0.0).abs().sqrt()
        return torch.where(torch.arange(len(loss)) == 2, float(self.how), loss)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("nan", "finite losses, got nan at step 4 for task 'task 2'.*lower lr.*Standardized"),
        ("inf", "finite losses, got inf at step 4 for task 'task 2'"),
        ("error", "at step 4: no such matrix"),
        ("gradient", "finite gradient, got norm nan at step 4: lower lr"),
    ],
)
def test_a_loss_that_breaks_is_named_and_theta_is_the_last_that_worked(how: str, message: str) -> None:
    torch.manual_seed(0)
    learner = _Broken(4, how)
    with pytest.raises(InferenceError, match=message):
        fit(learner, _tasks(), steps=10, batch_size=12, lr=0.1)
    last = learner.seen[3] if how == "gradient" else learner.seen[2]  # whose loss was finite
    assert _same(_theta(learner), last)
    assert torch.isfinite(learner.log_evidence(_tasks().data)).all()


def test_a_validation_that_breaks_is_named() -> None:
    torch.manual_seed(0)
    learner = _Broken(6)
    with pytest.raises(InferenceError, match="got nan at step 5 for task 'task 2'"):
        fit(learner, _tasks(), steps=10, batch_size=12, validation=_tasks(4), validate_every=5)
    assert _same(_theta(learner), learner.seen[4])


def test_a_rate_that_is_far_too_high_leaves_a_usable_learner() -> None:
    learner, tasks = _learner(), _tasks()
    with pytest.raises(InferenceError, match="at step"):
        fit(learner, tasks, steps=50, lr=1e6)
    assert torch.isfinite(learner.meta_loss(tasks.divided(bm.tasks.RandomSplit.at(3)))).all()


ARGUMENTS: list[tuple[dict, str]] = [
    ({"steps": 0}, "whole number steps >= 1, got 0"),
    ({"steps": 10.0}, "whole number steps >= 1, got 10.0"),
    ({"batch_size": 0}, "whole number batch_size >= 1"),
    ({"validate_every": -1}, "whole number validate_every >= 1"),
    ({"lr": 0.0}, "positive lr, grad_clip and patience, got 0.0"),
    ({"lr": math.nan}, "positive lr"),
    ({"lr": math.inf}, "positive lr"),
    ({"grad_clip": 0.0}, "positive lr, grad_clip"),
    ({"grad_clip": math.nan}, "positive lr, grad_clip"),
    ({"patience": 0}, "positive lr, grad_clip and patience"),
    ({"tasks": pd.DataFrame()}, "a TaskDataset or a simulator, got DataFrame"),
    ({"tasks": None}, "a TaskDataset or a simulator, got NoneType"),
]


@pytest.mark.parametrize(("arguments", "message"), ARGUMENTS)
@pytest.mark.usefixtures("unchecked")
def test_arguments_out_of_range(arguments: dict, message: str) -> None:
    learner = _learner()
    before = _theta(learner)
    with pytest.raises(DataError, match=message):
        fit(learner, **({"tasks": _tasks(), "steps": 2} | arguments))
    assert _same(_theta(learner), before)


def test_learners_and_tasks_that_do_not_fit() -> None:
    with pytest.raises(DataError, match="parameters to train, got none that requires gradients in ALPaCA"):
        fit(_learner().requires_grad_(False), _tasks(), steps=2)
    with pytest.raises(DataError, match="parameters to train"):
        fit_evidence(_learner().requires_grad_(False), _tasks())
    wide = bm.TaskDataset.from_list([(np.zeros((3, 2)), np.arange(3.0))] * 2)
    with pytest.raises(ShapeError, match=r"expected data with x \(2, N, 1\)"):
        fit(_learner(), wide, steps=2)
    with pytest.raises(ShapeError, match=r"expected data with x \(2, N, 1\)"):
        fit(_learner(), _tasks(), steps=2, validation=wide)


def test_parts_of_theta_can_be_held() -> None:
    learner = _learner()
    learner.features.requires_grad_(False)
    before = _theta(learner.features)
    fit(learner, _tasks(), steps=3)
    assert _same(_theta(learner.features), before)
    assert learner.prior.location.abs().max() > 0.0


# ------------------------------------------------------------------------------------------------- what is checked when


def _shown() -> bm.TaskDataset:
    """Tasks of two classes in the plane."""
    generator, labels = torch.Generator().manual_seed(0), torch.arange(8) % 2
    x = torch.randn(6, 8, 2, generator=generator) + labels[:, None]
    return bm.TaskDataset(bm.Data.full(x, labels.expand(6, 8)))


PER_STEP = [
    pytest.param(lambda: bm.ALPaCA(bm.MLP(1, [4])), None, 2, id="alpaca"),
    pytest.param(lambda: bm.MAML(bm.MLP(1, [4]), steps=1), None, 2, id="maml"),
    pytest.param(lambda: bm.R2D2(bm.MLP(2, [4]), num_classes=2), None, 2, id="r2d2"),
    pytest.param(lambda: bm.DeepKernelTransfer(bm.MLP(1, [4])), None, 2, id="deep kernel"),
    pytest.param(lambda: bm.Standardized(bm.ALPaCA(bm.MLP(1, [4]))), None, 4, id="standardized"),
    pytest.param(lambda: bm.ALPaCA(bm.MLP(1, [4])), bm.training.Evidence(), 2, id="alpaca, evidence"),
    pytest.param(lambda: bm.DeepKernelTransfer(bm.MLP(1, [4])), bm.training.Evidence(), 2, id="deep kernel, evidence"),
    # support and query, and then both joined, in standard units
    pytest.param(
        lambda: bm.Standardized(bm.ALPaCA(bm.MLP(1, [4]))), bm.training.Evidence(), 3, id="standardized, evidence"
    ),
    pytest.param(lambda: bm.ALPaCA(bm.MLP(1, [4])), bm.training.MarginalPredictive(), 2, id="alpaca, marginal"),
    pytest.param(lambda: bm.ALPaCA(bm.MLP(1, [4])), bm.training.JointPredictive(), 2, id="alpaca, joint"),
]


def _count(monkeypatch: pytest.MonkeyPatch, run: Callable[[], object]) -> int:
    """How often data are checked and converted meanwhile."""
    calls, original = [], DataSpec.conform

    def counted(spec: DataSpec, data: bm.Data) -> bm.Data:
        calls.append(spec)
        return original(spec, data)

    with monkeypatch.context() as patched:
        patched.setattr(DataSpec, "conform", counted)
        run()
    return len(calls)


@pytest.mark.parametrize(("make", "objective", "expected"), PER_STEP)
def test_a_step_checks_support_and_query_once(
    make: Callable[[], bm.Learner], objective: object, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once more where a learner in standard units gets them."""
    learner = make()
    tasks = _shown() if learner.outcomes == bm.Labels(2) else _tasks(6)
    learner.prepare(tasks.data)  # statistics are taken once
    few, many = (
        _count(monkeypatch, lambda steps=steps: fit(learner, tasks, steps, batch_size=3, objective=objective))
        for steps in (1, 4)
    )
    assert many - few == 3 * expected


@pytest.mark.parametrize(("wrap", "expected"), [(lambda a: a, 0), (bm.Standardized, 1)], ids=["own", "standardized"])
def test_an_evaluation_of_the_evidence_checks_nothing_anew(
    wrap: Callable[[bm.Learner], bm.Learner], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All points are checked before the first one; a learner in standard units gets them anew at each."""
    learner, problem = wrap(bm.ALPaCA(bm.MLP(1, [4])).double()), bm.training.MaximumLikelihood()
    learner.prepare(_tasks().data)
    data = learner.conform(_tasks().data)
    assert _count(monkeypatch, lambda: problem(learner, data)) == expected


# -------------------------------------------------------------------------------------------------------- checkpoints


def test_checkpoints_are_whole_at_any_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, held_out = tmp_path / "model", _tasks(4, seed=1)
    learner = _learner()
    seen = []
    original = type(learner).loss

    def watch(self: bm.ALPaCA, tasks: bm.TaskBatch) -> torch.Tensor:
        if (folder / "model.json").exists():
            seen.append(bm.load(folder))  # in the middle of training, from another process as it were
        return original(self, tasks)

    monkeypatch.setattr(type(learner), "loss", watch)
    result = fit(learner, _tasks(), steps=12, validation=held_out, validate_every=4, checkpoint=folder)
    monkeypatch.undo()
    assert len(seen) > 5
    assert _same(_theta(bm.load(folder)), _theta(learner))
    assert json.loads((folder / "model.json").read_text())["format"] == 1
    assert result.best_step in (4, 8, 12)


def test_checkpoints_without_validation_hold_the_end(tmp_path: Path) -> None:
    learner = _learner()
    fit(learner, _tasks(), steps=3, checkpoint=str(tmp_path / "model"))
    assert _same(_theta(bm.load(tmp_path / "model")), _theta(learner))


def test_checkpoints_that_cannot_be_written_are_refused_before_training(tmp_path: Path) -> None:
    class Secret(bm.Network):
        def __init__(self, function: object) -> None:
            super().__init__()
            self.function = function
            self.x_shape, self.num_outputs = (1,), 1

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.function(x)

    learner = bm.ALPaCA(Secret(torch.sin))
    before = _theta(learner)
    with pytest.raises(UnsupportedError, match=r"model.features.function"):
        fit(learner, _tasks(), steps=3, checkpoint=tmp_path / "model")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is a file"):
        fit(_learner(), _tasks(), steps=3, checkpoint=tmp_path / "file")
    assert _same(_theta(learner), before)
    assert not (tmp_path / "model").exists()
    fit(learner, _tasks(), steps=3)  # and without a checkpoint it trains
    assert not _same(_theta(learner), before)


# ------------------------------------------------------------------------------------------------------------ compiled


def _maml(posterior: object = None) -> bm.MAML:
    torch.manual_seed(0)
    return bm.MAML(bm.MLP(1, [6]), steps=2, lr=0.05, posterior=posterior)


@pytest.mark.parametrize(
    "posterior",
    [
        pytest.param(bm.PointEstimate(), id="point"),
        pytest.param(bm.Linearized(), id="linearised", marks=pytest.mark.slow),  # a minute of compiling
    ],
)
def test_compiled_training_is_training(posterior: object) -> None:
    results = []
    for compile in (False, True):
        learner = _maml(posterior)
        result = fit(
            learner, _tasks(), steps=6, batch_size=4, lr=0.01, split=bm.tasks.RandomSplit.at(4), compile=compile
        )
        results.append((result.losses, _theta(learner)))
    # float32: rounding of another order of operations, carried through six steps of Adam
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-5, atol=1e-5)
    for a, b in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    assert results[0][0][-1] != results[0][0][0]


def test_a_loss_that_breaks_in_compiled_code_is_named_the_same() -> None:
    """The adaptation is fine, the loss at the last point of one task overflows float32."""
    pairs = [(np.arange(4.0), np.where((np.arange(4) == 3) & (t == 2), 1e25, 1.0)) for t in range(3)]
    tasks, messages = bm.TaskDataset.from_list(pairs, ["a", "b", "c"]), []
    for compile in (False, True):
        learner = _maml(bm.PointEstimate())
        before = _theta(learner)
        with pytest.raises(InferenceError, match="expected finite losses, got inf at step 1 for task 'c'") as caught:
            fit(learner, tasks, steps=2, batch_size=3, split=bm.tasks.PrefixSplit((3, 3), query=1), compile=compile)
        messages.append(str(caught.value))
        assert _same(_theta(learner), before)
    assert messages[0] == messages[1]


@pytest.mark.parametrize("objective", [None, bm.training.MarginalPredictive()], ids=["joint", "marginal"])
def test_standardized_learners_can_be_recorded(
    objective: bm.training.MarginalPredictive | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Conversions of units must not look at values. (The recorded graph runs as it is: compiling takes a minute.)"""
    import torch._inductor

    monkeypatch.setattr(torch._inductor, "compile", lambda graph, *_: graph)
    losses = []
    for compile in (False, True):
        learner = bm.Standardized(_maml())
        result = fit(learner, _tasks(), steps=3, batch_size=4, objective=objective, compile=compile)
        losses.append(result.losses)
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)  # float32
