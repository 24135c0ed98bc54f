"""Compiled meta-steps: equal to eager ones, compiled once, and refused where they would be wrong."""

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import bayesmeta as bm
from bayesmeta.data import Data, TaskBatch
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.learner import Learner, TaskPosterior
from bayesmeta.outcomes import Numbers
from bayesmeta.training.compiled import KEPT_IN, MAX_STATES, CompiledStep, kept_code


class TinyMAML(Learner):
    """One inner step on a linear model, second order, with a hyperprior, a tied weight, and all kinds of state."""

    x_shape, outcomes = (1,), Numbers(1)

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Linear(1, 1)
        self.alias = self.network  # the same module twice
        self.prior_mean = self.network.weight  # the same parameter twice
        self.log_rate = nn.Parameter(torch.tensor(-2.0))
        self.unused = nn.Parameter(torch.zeros(2))
        self.register_buffer("progress", torch.ones(()))
        self.square = True
        self.double()

    def condition(self, support: Data) -> TaskPosterior:
        raise NotImplementedError

    def log_hyperprior(self) -> Tensor:
        return -self.prior_mean.square().sum()

    def loss(self, tasks: TaskBatch) -> Tensor:
        weight, bias = (p.expand(tasks.num_tasks, *p.shape) for p in (self.alias.weight, self.network.bias))

        def errors(data: Data) -> Tensor:
            f = torch.baddbmm(bias[:, None], data.x, weight.mT)
            error = (f - data.y).square() if self.square else (f - data.y).abs()
            return torch.where(data.mask, error[..., 0], 0.0).sum(-1) / data.counts.clamp(min=1)

        inner = torch.autograd.grad(errors(tasks.support).sum(), (weight, bias), create_graph=True)
        weight, bias = (p - self.log_rate.exp() * g for p, g in zip((weight, bias), inner, strict=True))
        return errors(tasks.query) * self.progress


class Written(Learner):
    """A loss that a test writes."""

    def __init__(self, loss: Callable[["Written", Tensor], Tensor]) -> None:
        super().__init__()
        self.written = loss
        self.a, self.b = (nn.Parameter(torch.tensor([v, 2.0], dtype=torch.float64)) for v in (1.0, 3.0))
        self.register_buffer("count", torch.ones((), dtype=torch.float64))
        self.hidden = [self.a]
        self.rate = 0.1
        self.generator = torch.Generator()

    def condition(self, support: Data) -> TaskPosterior:
        raise NotImplementedError

    def loss(self, tasks: TaskBatch) -> Tensor:
        return self.written(self, tasks.support.x.sum((1, 2)))


def side(num_points: int) -> Data:
    x = torch.randn(3, num_points, 1, dtype=torch.float64)
    return Data.full(x, torch.sin(3.0 * x))


def batch(support: int = 4, query: int = 2) -> TaskBatch:
    return TaskBatch(side(support), side(query))


def eager(learner: Learner, tasks: TaskBatch, total_points: float) -> tuple[Tensor, Tensor, list[Tensor | None]]:
    learner.zero_grad(set_to_none=True)
    each = learner.loss(tasks)
    loss = each.mean() - learner.log_hyperprior() / total_points
    loss.backward()
    return each.detach(), loss.detach(), [p.grad for p in learner.parameters()]


def assert_same(
    step: Callable[[TaskBatch], tuple[Tensor, Tensor]],
    learner: Learner,
    tasks: TaskBatch,
    total_points: float = torch.inf,
) -> None:
    each, loss, gradients = eager(learner, tasks, total_points)
    for found, expected in zip(step(tasks), (each, loss), strict=True):
        assert not found.requires_grad
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    for p, expected in zip(learner.parameters(), gradients, strict=True):
        torch.testing.assert_close(p.grad, expected, rtol=1e-10, atol=1e-12)  # also None against None


def test_a_compiled_step_is_the_eager_one() -> None:
    learner = TinyMAML()
    learner.log_rate.requires_grad_(False)
    step = CompiledStep(learner, learner.loss, total_points=20.0)
    parameters = dict(learner.named_parameters(remove_duplicate=False))
    assert_same(step, learner, batch(), 20)
    assert learner.log_rate.grad is None
    assert learner.unused.grad is None
    assert parameters == dict(learner.named_parameters(remove_duplicate=False))  # all put back
    with torch.no_grad():
        learner.prior_mean.add_(1.0)
        learner.progress.fill_(0.3)
    assert_same(step, learner, batch(), 20)
    assert step.compilations == 1
    assert_same(step, learner, batch(3, 1), 20)  # fewer points: padded
    assert step.compilations == 1
    assert_same(step, learner, TaskBatch(side(5), side(2)), 20)  # more points
    assert step.compilations == 2
    learner.square = False  # another loss
    learner.log_rate.requires_grad_(True)
    assert_same(step, learner, batch(), 20)
    assert step.compilations == 3


def test_a_recording_is_the_step_too() -> None:
    learner = TinyMAML()
    step = CompiledStep(learner, learner.loss, total_points=20.0)
    assert_same(step.record, learner, batch(), 20)
    assert step.compilations == 0
    learner = Written(counting)
    each, _ = CompiledStep(learner, learner.loss).record(batch())
    assert (each == 6.0).all()
    assert learner.count == 2.0  # it ran, and once
    with pytest.raises(UnsupportedError, match="parameters to train, got none that requires gradients in Written"):
        CompiledStep(learner.requires_grad_(False), learner.loss).record(batch())


@pytest.mark.parametrize(
    "loss",
    [
        pytest.param(lambda s, x: 0.0 * x + s.a.sum() + s.b.sum(), id="equal"),
        pytest.param(lambda s, x: 0.0 * x + (s.a * s.b).sum(), id="each the other"),
    ],
)
def test_every_gradient_has_its_own_memory(loss: Callable[[Written, Tensor], Tensor]) -> None:
    learner = Written(loss)
    step = CompiledStep(learner, learner.loss)
    for _ in range(2):
        assert_same(step, learner, batch())
        before = [p.detach().clone() for p in learner.parameters()]
        gradients = [p.grad.clone() for p in learner.parameters()]
        torch.nn.utils.clip_grad_norm_(learner.parameters(), 0.1)
        for p, value, gradient in zip(learner.parameters(), before, gradients, strict=True):
            torch.testing.assert_close(p.detach(), value)
            torch.testing.assert_close(p.grad / p.grad.norm(), gradient / gradient.norm())


def counting(learner: Written, x: Tensor) -> Tensor:
    learner.count += 1.0
    return 0.0 * x + learner.a.sum() * learner.count


def test_buffers_change_in_place_and_draws_are_torchs() -> None:
    learner = Written(counting)
    step = CompiledStep(learner, learner.loss)
    values = [step(batch())[0][0].item() for _ in range(3)]
    assert values == [6.0, 9.0, 12.0]
    assert learner.count == 4.0
    noisy = Written(lambda s, x: x + torch.randn_like(s.a) @ s.a)
    step, tasks = CompiledStep(noisy, noisy.loss), batch()
    step(tasks)
    torch.manual_seed(1)
    expected, _, _ = eager(noisy, tasks, torch.inf)
    torch.manual_seed(1)
    torch.testing.assert_close(step(tasks)[0], expected)


def test_checks_can_be_skipped() -> None:
    def checked(learner: Written, x: Tensor) -> Tensor:
        if not torch.compiler.is_compiling() and not bool(x.isfinite().all()):
            raise AssertionError
        # torch.distributions would look at its arguments
        return torch.distributions.Normal(x, learner.a.square().sum()).log_prob(x + 1.0)

    learner = Written(checked)
    assert_same(CompiledStep(learner, learner.loss), learner, batch())
    assert not torch.compiler.is_compiling()
    with pytest.raises(ValueError, match="scale"):  # it looks again
        torch.distributions.Normal(0.0, -1.0)


def assigning(learner: Written, x: Tensor) -> Tensor:
    learner.count = learner.count + 1.0
    return x * learner.a.sum()


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        pytest.param(lambda s, x: s.a.sum() * (x if bool((x > 0).all()) else -x), "Written.*test_compiled", id="bool"),
        pytest.param(lambda s, x: s.a.sum() * x * x.sum().item(), "Written.*test_compiled", id="item"),
        pytest.param(lambda s, x: s.a.sum() * x * x.tolist()[0], "Written.*test_compiled", id="tolist"),
        pytest.param(lambda s, x: s.a.sum() * x * float(x.detach().numpy()[0]), "Written.*test_compiled", id="numpy"),
        pytest.param(lambda s, x: s.a.sum() * x * len(x.nonzero()), "Written.*test_compiled", id="nonzero"),
        pytest.param(lambda s, x: s.a.sum() * x * x[x > 0].sum(), "Written.*test_compiled", id="mask"),
        pytest.param(lambda s, x: s.hidden[0].sum() * s.b.sum() * x, "Written.*registered", id="hidden parameter"),
        pytest.param(
            lambda s, x: s.a[0] * x * torch.rand((), generator=s.generator), "[Gg]enerator", id="generator"
        ),  # torch 2.6: its class
        pytest.param(assigning, "in place", id="assigned buffer"),
        pytest.param(lambda s, x: x, "grad", id="no parameter"),
    ],
)
def test_what_would_be_wrong_is_refused(loss: Callable[[Written, Tensor], Tensor], message: str) -> None:
    learner = Written(loss)
    own = dict(learner.named_parameters()) | dict(learner.named_buffers())
    with pytest.raises(UnsupportedError, match=f"(?s){message}.*compile=False"):
        CompiledStep(learner, learner.loss)(batch())
    assert all(value is own[name] for name, value in [*learner.named_parameters(), *learner.named_buffers()])


def test_a_schedule_in_python_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = Written(lambda s, x: s.rate * s.a.sum() * x)
    step = CompiledStep(learner, learner.loss)
    monkeypatch.setattr(
        step, "_compile", lambda inputs: (type("P", (), {"shared": [], "reached": []}), [x := inputs[0], x])
    )
    for k in range(MAX_STATES):
        learner.rate = 0.1 * k
        step(batch())
    learner.rate = 7.0
    with pytest.raises(UnsupportedError, match="schedule in a buffer"):
        step(batch())


def test_a_simulator_has_no_end_of_points() -> None:
    """What `fit` passes for one is the default itself."""
    learner = bm.ALPaCA(bm.MLP(1, [4]))
    assert CompiledStep(learner, learner.loss, math.inf).total_points == math.inf
    with pytest.raises(DataError, match="total_points to be a finite number, got -inf"):
        CompiledStep(learner, learner.loss, -math.inf)


def test_code_is_kept_where_the_user_says_or_in_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(KEPT_IN, raising=False)
    with kept_code():
        assert Path(os.environ[KEPT_IN]) == tmp_path / "bayesmeta" / "compiled"
        assert Path(os.environ[KEPT_IN]).is_dir()
    assert KEPT_IN not in os.environ
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # where no folder can be made
    with kept_code():
        assert KEPT_IN not in os.environ
    monkeypatch.setenv(KEPT_IN, "elsewhere")
    with kept_code():
        assert os.environ[KEPT_IN] == "elsewhere"


ONE_STEP = """
import torch
torch.set_num_threads(1)
import bayesmeta as bm
from bayesmeta.training.compiled import CompiledStep
from torch._dynamo.utils import counters
torch.manual_seed(0)
learner = bm.MAML(bm.MLP(1, [4]), steps=1, posterior=bm.PointEstimate())
batch = bm.tasks.Sinusoid().dataset(3, 8, seed=0).divided(bm.tasks.RandomSplit.at(5))
step = CompiledStep(learner, learner.loss)
print(step(learner.conform_tasks(batch))[1].item(), counters["inductor"]["fxgraph_cache_hit"])
"""


@pytest.mark.slow
@pytest.mark.skipif(tuple(map(int, torch.__version__.split(".")[:2])) < (2, 8), reason="torch before 2.8 keeps no code")
def test_a_second_process_finds_the_code_of_the_first(tmp_path: Path) -> None:
    environment = os.environ | {KEPT_IN: str(tmp_path)}
    command = [sys.executable, "-c", ONE_STEP]
    first, second = (
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
        for _ in range(2)
    )
    assert (first[1], second[1]) == ("0", "1")
    assert first[0] == second[0]
