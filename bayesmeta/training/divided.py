"""Steps and validations that several processes share: each computes some of the tasks, and all go on with the sum.

With the tasks of a batch in parts, one a process, the gradient of the mean loss is Σ share x gradient of a part's mean.
The sum is one vector that is added up once a step, with the loss and whatever went wrong at its end.
"""

import contextlib
import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from bayesmeta.arguments import generator_at
from bayesmeta.data import TaskBatch, tensors_of
from bayesmeta.errors import InferenceError, UnsupportedError
from bayesmeta.learner import Learner
from bayesmeta.training.callbacks import Callback, StepRecord
from bayesmeta.training.distributed import Processes, fingerprint
from bayesmeta.training.loop import Batches, BatchStep, LossOf, Step, Validation, guarded, losses_of
from bayesmeta.training.objectives import Objective
from bayesmeta.training.runs.parts import Parts
from bayesmeta.training.runs.settings import Settings
from bayesmeta.training.shared_run import SharedRun
from bayesmeta.training.skipping import SkippingStep

ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # of what prints as no more than an object
SEPARATE = 1e-3  # relative: by more than rounding, a loss depends on who else is in the batch

ShareOf = Callable[[TaskBatch, TaskBatch], float]
"""A part of a batch and the batch -> the share of the part's mean loss in the mean loss of all."""


def meet(processes: Processes, learner: Learner, batches: Batches, settings: Settings) -> None:
    """Before the first step: all processes have the same tasks and arguments, and get the first one's theta.

    What training draws from torch's global generator, such as the latents of a step, is the first one's, too.

    Args:
        processes: all of them.
        learner: it is prepared.
        batches: what it is trained on.
        settings: what must be the same in all of them.

    Raises:
        DataError: a process has others.
        UnsupportedError: two have one GPU.
    """
    device, batch = next(learner.parameters()).device, batches.draw(1)
    processes.require_devices(device)
    same = {name: ADDRESS.sub("", value) if isinstance(value, str) else value for name, value in settings.items()}
    same["learner"] = [[name, tuple(value.shape), str(value.dtype)] for name, value in learner.named_parameters()]
    same["first batch of tasks"] = [fingerprint(tensors) for tensors in tensors_of((batch.support, batch.query))]
    processes.agree(same)
    copy_theta(processes, learner)
    state = torch.get_rng_state()
    processes.copy_from_first([state])
    torch.set_rng_state(state)
    if device.type == "cuda":
        state = torch.cuda.get_rng_state(device)
        processes.copy_from_first([state])
        torch.cuda.set_rng_state(state, device)


def divided(
    step: BatchStep, validation: Validation | None, run: SharedRun, objective: Objective | None
) -> "tuple[DividedStep, DividedValidation | None]":
    """A step and a validation that processes share.

    Args:
        step: computes the gradient of a part.
        validation: what is followed, before the first look.
        run: of all processes.
        objective: what is trained on; None for the learner's own loss.
    """
    share_of = _share_of_tasks if objective is None else objective.share
    both = DividedStep(step, run, losses_of(step.learner, objective), share_of)
    return both, None if validation is None else DividedValidation(validation, run.processes, share_of)


class SharedCallbacks(Callback):
    """The first process's callbacks: it alone tells them, and what one of them raises ends the training in all.

    Args:
        callbacks: of the first process.
        processes: all of them.
    """

    def __init__(self, callbacks: Sequence[Callback], processes: Processes) -> None:
        self.callbacks, self.processes = callbacks, processes

    @override
    def on_start(self, step: int) -> None:
        self._tell(lambda each: each.on_start(step))

    @override
    def on_step(self, record: StepRecord) -> None:
        self._tell(lambda each: each.on_step(record))

    @override
    def on_end(self) -> None:  # also where a process has failed: nobody waits
        for each in self.callbacks if self.processes.is_first else ():
            each.on_end()

    def _tell(self, what: Callable[[Callback], None]) -> None:
        def all_of_them() -> None:
            for each in self.callbacks:
                what(each)

        self.processes.first_does(all_of_them)


def copy_theta(processes: Processes, learner: Learner) -> None:
    """Give all processes the first one's parameters and buffers."""
    processes.copy_from_first([*learner.parameters(), *learner.buffers()])


class _Part(NamedTuple):
    """What one process has found of a step: the mean loss of its tasks, their share, and what was left out."""

    loss: Tensor | None = None
    share: float = 0.0
    failed: tuple[Hashable, ...] = ()
    error: InferenceError | None = None


class DividedStep(Step):
    """A step whose tasks are divided among processes.

    Every process draws the whole batch, which costs little, and keeps its part. What fails in one fails in all.

    A loss that draws from torch's global generator (dropout) has draws of its own in every process, which depend on
    seed, step and process alone.

    Args:
        step: computes the gradient of a part.
        run: of all processes; it is told where one was asked to stop.
        loss_of: the loss, to find out whether tasks depend on each other.
        share_of: what part of the mean loss a part of the tasks is.
    """

    def __init__(self, step: BatchStep, run: SharedRun, loss_of: LossOf, share_of: ShareOf) -> None:
        self.step, self.run, self.loss_of, self.share_of = step, run, loss_of, share_of
        self.processes = run.processes
        self._theta = [value for value in step.learner.parameters() if value.requires_grad]
        self._is_checked = False

    @override
    def gradient(self, step: int) -> Tensor:
        part, error = _Part(), None
        try:
            whole = _named(self.step.batches.draw(step))
            own = whole.select(self.processes.share(whole.num_tasks))
            if own.num_tasks:  # there may be fewer tasks than processes
                with self._own_draws(step):
                    part = self._part(own, whole, step)
                    self._require_separate(whole)
        except Exception as caught:  # also what is not ours: the others must not wait
            error = caught
        return self._summed(part, error, step)

    @override
    def anneal(self, progress: float) -> None:
        self.step.anneal(progress)

    @override
    def moved(self) -> Mapping[str, Tensor]:
        return self.step.moved()

    @override
    def parts(self) -> Parts:
        return self.step.parts()

    @property
    @override
    def skipped(self) -> tuple[tuple[int, Hashable], ...]:
        return self.step.skipped

    def _part(self, own: TaskBatch, whole: TaskBatch, step: int) -> "_Part":
        own = self.step.learner.conform_tasks(own)
        if not isinstance(self.step, SkippingStep):
            return _Part(self.step.gradient_of(own, step), self.share_of(own, whole))
        loss, kept, failed, error = self.step.tried(own, step)
        return _Part(loss, 0.0 if loss is None else self.share_of(kept, whole), failed, error)

    def _summed(self, part: "_Part", error: Exception | None, step: int) -> Tensor:
        """Add gradients, losses and failures of all processes in one vector. Raises in all where one has failed."""
        theta, dtype = self._theta, max((value.dtype for value in self._theta), key=lambda each: each.itemsize)
        flags = [error is not None, self.run.is_asked, part.error is not None]
        reached = [value.grad is not None for value in theta]
        tail = torch.tensor([0.0, part.share, *map(float, (*flags, *reached))], dtype=dtype, device="cpu")
        sizes = [value.numel() for value in theta]
        flat = torch.zeros(sum(sizes) + len(tail), dtype=dtype, device=theta[0].device)
        *slots, end = flat.split([*sizes, len(tail)])
        end.copy_(tail)
        if part.loss is not None and error is None:
            end[0] = part.share * part.loss
            for slot, value in zip(slots, theta, strict=True):
                if value.grad is not None:
                    slot.copy_(value.grad.flatten()).mul_(part.share)
        flat = self.processes.add(flat)
        *slots, end = flat.split([*sizes, len(tail)])
        total, has_failed, is_asked, has_skipped, *counts = end[1:].tolist()
        if has_failed:
            self.processes.fail_together(error)
        if has_skipped:
            self._leave_out(part, step, are_all=total == 0.0)
            flat /= total  # the mean is that of the other tasks
        self.run.tell(bool(is_asked))
        for slot, value, count in zip(slots, theta, counts, strict=True):
            # where no process has a gradient the optimizer skips the parameter, as one process would
            value.grad = slot.view_as(value).to(value.dtype) if count else None
        return end[0]

    def _leave_out(self, part: "_Part", step: int, *, are_all: bool) -> None:
        """Count what was left out in all processes. Raises in all where it is too much."""
        assert isinstance(self.step, SkippingStep)
        found = self.processes.gathered((part.failed, None if part.error is None else str(part.error)))
        first = next(message for _, message in found if message is not None)
        self.step.leave_out(step, [name for each, _ in found for name in each], InferenceError(first), are_all=are_all)

    @contextlib.contextmanager
    def _own_draws(self, step: int) -> Iterator[None]:
        """Leave torch's global generator, from which all processes draw alike between the steps, as it was."""
        with torch.random.fork_rng([each.index for each in [self._theta[0].device] if each.type == "cuda"]):
            generator = generator_at(self.step.batches.seed, step, 2, self.processes.rank)
            torch.manual_seed(generator.initial_seed())
            yield

    def _random_states(self) -> list[Tensor]:
        device = self._theta[0].device
        return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]

    @torch.no_grad()
    def _require_separate(self, whole: TaskBatch) -> None:
        """Raise at the first step where the losses of tasks depend on the other tasks of a batch."""
        if self._is_checked:
            return
        self._is_checked = True
        mine = self.processes.share(whole.num_tasks)
        if mine.stop - mine.start > 1:
            a, b = whole.select(mine), whole.select(slice(mine.start, mine.stop - 1))
        else:  # this task with its neighbour
            first = max(min(mine.start, whole.num_tasks - 2), 0)
            a, b = whole.select(slice(first, first + 2)), whole.select(slice(first, first + 1))
        before = self._random_states()
        each, other = (
            self.loss_of(self.step.learner.conform_tasks(part)) * self.share_of(part, whole) / part.num_tasks
            for part in (a, b)
        )
        if not all(map(torch.equal, before, self._random_states())):
            return  # losses are random
        gap = (each[: len(other)] - other).abs().max()
        if bool(gap > SEPARATE * each.abs().max()):
            raise UnsupportedError(
                f"expected losses of {self.step.learner.title} in which tasks do not depend on each other, got others "
                "for the same tasks in another batch: several processes compute a part of the batch each. Write an "
                "objective whose `share` says what a part counts, or train in one process"
            )


class DividedValidation(Validation):
    """A validation whose tasks are divided among processes; what it finds is the same in all of them.

    Args:
        validation: what is divided, before the first look.
        processes: all of them.
        share_of: what part of the mean loss a part of the tasks is.
    """

    def __init__(self, validation: Validation, processes: Processes, share_of: ShareOf) -> None:
        learner, loss_of, parts = validation.learner, validation.loss_of, validation.parts
        super().__init__(learner, loss_of, parts, validation.every, validation.patience, validation.save)
        self.processes, self.share_of = processes, share_of

    @override
    def mean_loss(self, step: int) -> float:
        total, error = 0.0, None
        try:
            for whole in map(_named, self.parts):
                part = whole.select(self.processes.share(whole.num_tasks))
                if part.num_tasks:
                    mean = float(guarded(self.loss_of, part, step).mean())
                    total += mean * self.share_of(part, whole) * whole.num_tasks
        except Exception as caught:
            error = caught
        found = torch.tensor([total, float(error is not None)], dtype=torch.float64, device="cpu")
        total, failed = self.processes.add(found).tolist()
        if failed:
            self.processes.fail_together(error)
        return total / sum(part.num_tasks for part in self.parts)


def _named(batch: TaskBatch) -> TaskBatch:
    """The same tasks with names, so that messages name those of the whole batch."""
    return batch if batch.names is not None else replace(batch, names=tuple(range(batch.num_tasks)))


def _share_of_tasks(part: TaskBatch, whole: TaskBatch) -> float:
    return part.num_tasks / whole.num_tasks
