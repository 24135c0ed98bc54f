"""A task whose loss or gradient is not finite is left out of its step, up to a limit.

One broken task among thousands (a sensor that jumped, a support of one point repeated) would end a training of hours.
Which task it is, is found out only once a step has failed, task by task: a training without failures pays for a look at
the norm of the gradient.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from bayesmeta.data import TaskBatch
from bayesmeta.errors import InferenceError
from bayesmeta.training.loop import BatchStep
from bayesmeta.training.runs.parts import Parts, State

SHOWN = 5  # tasks that an error names


class Tried(NamedTuple):
    """What became of the tasks of a step.

    Attributes:
        loss: the mean over those that are kept; None where all fail.
        kept: the tasks that do not fail.
        failed: the names of those that do.
        error: what failed; None where nothing did.
    """

    loss: Tensor | None
    kept: TaskBatch
    failed: tuple[Hashable, ...] = ()
    error: InferenceError | None = None


class SkippingStep(BatchStep):
    """A step that leaves tasks out whose loss or gradient is not finite: the mean is that of the other tasks.

    Its gradient raises InferenceError where more tasks than it may leave out have failed, all tasks of a batch, or a
    batch of which no task fails alone.

    Args:
        step: computes gradients.
        eager: computes the gradients of a batch of another size, where the step is compiled for one; the same step
            where it is not.
        most: how many tasks may be left out in all of the training.
    """

    def __init__(self, step: BatchStep, eager: BatchStep, most: int) -> None:
        super().__init__(step.learner, step.batches)
        self.step, self.eager, self.most = step, eager, most
        self._skipped: tuple[tuple[int, Hashable], ...] = ()

    @property
    @override
    def skipped(self) -> tuple[tuple[int, Hashable], ...]:
        return self._skipped

    @override
    def gradient_of(self, batch: TaskBatch, step: int) -> Tensor:
        tried = self.tried(batch, step)
        if tried.error is not None:
            self.leave_out(step, tried.failed, tried.error, are_all=tried.loss is None)
        assert tried.loss is not None
        return tried.loss

    def tried(self, batch: TaskBatch, step: int) -> Tried:
        """Set `.grad` to the gradient of the tasks that do not fail.

        Args:
            batch: checked tasks; of several processes those of this one.
            step: the number of the step, for messages.

        Raises:
            InferenceError: the batch fails, and none of its tasks does so alone.
        """
        try:
            return Tried(self._finite(self.step, batch, step), batch)
        except InferenceError as error:
            kept, failed = self._sorted(batch, step)
            if not failed:
                raise InferenceError(f"{error}; each of its tasks works alone", error.task) from error
            self.learner.zero_grad(set_to_none=True)
            chosen = batch.select(kept)
            loss = self._finite(self.eager, chosen, step) if kept else None
            return Tried(loss, chosen, _names(batch, failed), error)

    def leave_out(self, step: int, failed: Sequence[Hashable], error: InferenceError, *, are_all: bool) -> None:
        """Count the tasks that failed in a step.

        Args:
            step: its number.
            failed: their names.
            error: what failed.
            are_all: whether no task of the batch is left.

        Raises:
            InferenceError: they are all of the batch, or too many.
        """
        if are_all:
            raise InferenceError(f"{error}; all of its tasks fail", error.task) from error
        if len(self._skipped) + len(failed) > self.most:
            named = ", ".join(map(repr, failed[:SHOWN])) + ", ..." * (len(failed) > SHOWN)
            why = f"the tasks that fail are {named}, after {len(self._skipped)}, and max_skipped={self.most}"
            raise InferenceError(f"{error}; {why}", error.task) from error
        self._skipped = (*self._skipped, *((step, name) for name in failed))

    @override
    def parts(self) -> Parts:
        return {**self.step.parts(), "skipped": self}

    def state_dict(self) -> State:
        """Which tasks were left out: a part of a run."""
        return {"skipped": [[step, name if isinstance(name, int | str) else str(name)] for step, name in self._skipped]}

    def load_state_dict(self, state_dict: State) -> None:
        """Go on from there."""
        self._skipped = tuple([(step, name) for step, name in state_dict["skipped"]])

    def _finite(self, own: BatchStep, batch: TaskBatch, step: int) -> Tensor:
        """The loss; raises InferenceError where it or the gradient is not finite."""
        self.learner.zero_grad(set_to_none=True)
        loss = own.gradient_of(batch, step)
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.learner.parameters() if p.grad is not None])
        if not bool(torch.isfinite(norm)):
            raise InferenceError(f"expected a finite gradient, got norm {norm.item()} at step {step}: lower lr")
        return loss

    def _sorted(self, batch: TaskBatch, step: int) -> tuple[list[int], list[int]]:
        """Positions of the tasks that work alone, and of those that do not."""
        kept, failed = list[int](), list[int]()
        for place in range(batch.num_tasks):
            try:
                self._finite(self.eager, batch.select(slice(place, place + 1)), step)
            except InferenceError:
                failed.append(place)
            else:
                kept.append(place)
        return kept, failed


def _names(batch: TaskBatch, places: Sequence[int]) -> tuple[Hashable, ...]:
    return tuple([place if batch.names is None else batch.names[place] for place in places])
