"""The training loop on its own: the schedule, clipping, what it refuses, and what it puts back."""

import math
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

import bayesmeta as bm
from bayesmeta.errors import InferenceError
from bayesmeta.training.loop import Batches, Step, Validation, losses_of, restoring, train
from bayesmeta.training.runs.parts import Parts, TensorState


@dataclass
class _Slope(Step):
    """A number that goes down a constant slope; the loss is the number itself."""

    slope: float = 2.0
    value: torch.nn.Parameter = field(default_factory=lambda: torch.nn.Parameter(torch.zeros(1)))
    progress: list[float] = field(default_factory=list)
    losses: dict[int, float] = field(default_factory=dict)  # in place of the number itself, by step

    def gradient(self, step: int) -> Tensor:
        assert self.value.grad is None
        self.value.grad = torch.full((1,), self.slope)
        return torch.tensor(self.losses.get(step, self.value.item()))

    def anneal(self, progress: float) -> None:
        self.progress.append(progress)

    def moved(self) -> dict[str, Tensor]:
        return {"value": self.value}

    def parts(self) -> Parts:
        return {"value": TensorState(self.moved())}


def _sgd(step: _Slope) -> torch.optim.Optimizer:
    return torch.optim.SGD([step.value], lr=1.0)


def test_rates_fall_as_a_cosine_and_progress_is_told() -> None:
    step = _Slope()
    result = train(step, _sgd(step), 4)
    rates = [0.5 * (1.0 + math.cos(math.pi * k / 4)) for k in range(4)]
    assert math.isclose(step.value.item(), -2.0 * sum(rates), rel_tol=1e-6)  # float32
    assert step.progress == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert result.losses[:2] == (0.0, -2.0)
    assert (result.best_step, result.validation, result.stopped_early) == (4, (), False)


@pytest.mark.parametrize(("max_norm", "moved"), [(0.5, 0.5), (3.0, 2.0), (math.inf, 2.0)])
def test_long_gradients_are_shortened(max_norm: float, moved: float) -> None:
    step = _Slope()
    train(step, _sgd(step), 1, max_norm=max_norm)
    assert math.isclose(step.value.item(), -moved, rel_tol=1e-5)  # torch divides by the norm + 1e-6


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_refused_and_the_last_good_value_put_back(value: float) -> None:
    step = _Slope(losses={3: value})
    with pytest.raises(InferenceError, match=f"a finite loss, got {value} at step 3"):
        train(step, _sgd(step), 4)
    assert step.value.item() == -2.0  # where the loss of step 2 was taken
    assert step.progress == [0.0, 0.25, 0.5]  # not told that it came to an end
    steep = _Slope(slope=value)
    with pytest.raises(InferenceError, match=r"a finite gradient, got norm .* at step 1"):
        train(steep, _sgd(steep), 4)
    assert steep.value.item() == 0.0


def test_restoring_is_for_computations_that_fail_or_are_interrupted() -> None:
    value = torch.zeros(2)

    def fail(error: BaseException) -> None:
        with restoring([value]) as keep:
            value.fill_(1.0)
            keep()
            value.fill_(2.0)
            raise error

    for error, expected in ((InferenceError("singular"), 1.0), (KeyboardInterrupt(), 1.0), (ValueError(), 2.0)):
        with pytest.raises(type(error)):
            fail(error)
        assert (value == expected).all()
    with restoring([value]):
        value.fill_(3.0)
    assert (value == 3.0).all()


def _validation(every: int = 1, patience: int | None = None) -> tuple[bm.ALPaCA, Validation, list[int]]:
    learner, saved = bm.ALPaCA(bm.Identity(1)), []
    tasks = learner.conform_tasks(bm.tasks.Sinusoid().dataset(3, 6).divided(bm.tasks.RandomSplit.at(4)))

    def loss(batch: bm.TaskBatch) -> Tensor:
        return learner.prior.location.sum().expand(batch.num_tasks)

    return learner, Validation(learner, loss, [tasks], every, patience, lambda: saved.append(1)), saved


def test_validation_keeps_the_best_theta() -> None:
    learner, validation, saved = _validation(every=5, patience=2)
    location = learner.prior.location
    assert not validation.is_exhausted
    for step, value in ((5, 1.0), (10, -1.0), (15, 0.5), (20, -1.0)):
        torch.nn.init.constant_(location, value / location.numel())
        validation.look(step)
        assert validation.is_exhausted is (step == 20)  # as good is not better
    assert [step for step, _ in validation.scores] == [5, 10, 15, 20]
    assert (validation.best_step, len(saved)) == (10, 2)
    torch.nn.init.constant_(location, 7.0)
    validation.restore()
    assert math.isclose(location.sum().item(), -1.0, rel_tol=1e-6)


def test_validation_comes_in_its_turn_and_at_the_end() -> None:
    step, (_, validation, _) = _Slope(), _validation(every=3)
    result = train(step, _sgd(step), 7, validation=validation)
    assert [number for number, _ in result.validation] == [3, 6, 7]
    step, (_, validation, _) = _Slope(), _validation(every=2, patience=2)
    result = train(step, _sgd(step), 100, validation=validation)
    assert (len(result.losses), result.best_step, result.stopped_early) == (6, 2, True)


def test_batches_and_losses() -> None:
    tasks = bm.tasks.Sinusoid().dataset(5, 6)
    assert Batches(tasks, 3, bm.tasks.RandomSplit(), 0).total_points == 30.0
    simulated = Batches(bm.tasks.Sinusoid(), 3, bm.tasks.RandomSplit.at(2, 4), 0)
    assert simulated.total_points == math.inf
    batch = simulated.draw(1)
    assert batch.num_tasks == 3
    assert torch.equal(simulated.draw(1).query.y, batch.query.y)  # of (seed, step) alone
    others = simulated.draw(2), replace(simulated, seed=1).draw(1)
    assert not any(torch.equal(other.query.y, batch.query.y) for other in others)
    learner = bm.ALPaCA(bm.Identity(1)).double()
    assert torch.equal(losses_of(learner, None)(batch), learner.meta_loss(batch))
    assert torch.equal(losses_of(learner, bm.training.Evidence())(batch), bm.training.Evidence()(learner, batch))
