"""A compiled step that is recorded as a CUDA graph, rehearsed without one: a recording that runs the program anew."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

import bayesmeta as bm
from bayesmeta.training import CudaGraphStep, compiled, cuda_graphs


def pretended(run: compiled.Program, inputs: Sequence[Tensor]) -> Callable[[], Sequence[Tensor]]:
    """Reads and writes the same memory at every call, as a graph does."""
    outputs = [value.clone() for value in run(*inputs)]

    def replay() -> Sequence[Tensor]:
        for place, value in zip(outputs, run(*inputs), strict=True):
            place.copy_(value)
        return outputs

    return replay


@pytest.fixture(autouse=True)
def rehearsal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU records; programs are not compiled, which takes many seconds."""
    monkeypatch.setattr(compiled, "compile_graph", lambda graph, inputs: graph)
    monkeypatch.setattr(cuda_graphs, "KINDS", ("cpu",))
    monkeypatch.setattr(cuda_graphs, "recording", pretended)


def batch(tasks: int, seed: int = 0) -> bm.TaskBatch:
    return bm.tasks.Sinusoid().dataset(tasks, 8, seed=seed).divided(bm.tasks.RandomSplit.at(5))


def test_steps_are_those_of_the_learner() -> None:
    torch.manual_seed(0)
    learner = bm.ALPaCA(bm.MLP(1, [4]))
    step = CudaGraphStep(learner, learner.loss)
    theta = [p for p in learner.parameters() if p.requires_grad]
    for number in range(4):
        tasks = learner.conform_tasks(batch(3 if number % 2 else 4, number))
        expected = learner.loss(tasks)
        gradient = torch.autograd.grad(expected.mean(), theta)
        each, loss = step(tasks)
        torch.testing.assert_close(each, expected)
        torch.testing.assert_close(loss, expected.mean())
        torch.testing.assert_close(tuple(p.grad for p in theta), gradient)
        with torch.no_grad():
            for p in theta:
                p -= 0.1 * p.grad  # theta moves where it stands, and the graph has to see it
    assert (step.compilations, step.recordings) == (2, 2)


class Counting(bm.ALPaCA):
    """A loss that changes a buffer."""

    def __init__(self) -> None:
        super().__init__(bm.Identity(1))
        self.register_buffer("calls", torch.zeros(()))

    def loss(self, tasks: bm.TaskBatch) -> Tensor:
        self.calls.add_(1.0)
        return super().loss(tasks)


def fails(run: compiled.Program, inputs: Sequence[Tensor]) -> Callable[[], Sequence[Tensor]]:
    raise RuntimeError("operation not permitted when stream is capturing")


def test_what_cannot_be_recorded_is_launched_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = Counting()
    step, tasks = CudaGraphStep(learner, learner.loss), learner.conform_tasks(batch(3))
    for count in (1.0, 2.0, 3.0):
        step(tasks)
        assert learner.calls.item() == count
    assert step.recordings == 0
    monkeypatch.setattr(cuda_graphs, "recording", fails)
    learner = bm.ALPaCA(bm.Identity(1))
    step = CudaGraphStep(learner, learner.loss)
    for _ in range(2):
        torch.testing.assert_close(step(tasks)[0], learner.loss(tasks))
    assert step.recordings == 0
