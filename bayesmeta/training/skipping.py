"""A task whose loss or gradient is not finite is left out of its step, up to a limit.

One broken task among thousands (a sensor that jumped, a support of one point repeated) would end a training of hours.
Which task it is, is found out only once a step has failed, task by task: a training without failures pays for a look at
the norm of the gradient.
"""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor
from typing_extensions import override

from bayesmeta.data import TaskBatch
from bayesmeta.errors import InferenceError
from bayesmeta.training.loop import BatchStep, Skipped
from bayesmeta.training.runs.parts import Parts, State

SHOWN = 5  # tasks that an error names


class AllFailed(InferenceError):
    """No task of a batch has a finite loss and gradient; where the batch is one process's part, another may go on.

    Example:
        >>> try:
        ...     raise AllFailed("expected finite losses, got nan; all of its tasks fail")
        ... except InferenceError as error:
        ...     print(error)
        expected finite losses, got nan; all of its tasks fail
    """


class SkippingStep(BatchStep):
    """A step that leaves tasks out whose loss or gradient is not finite: the mean is that of the other tasks.

    Its gradient raises InferenceError where more tasks than it may leave out have failed, all tasks of a batch
    (`AllFailed`), or a batch of which no task fails alone.

    Args:
        step: computes gradients.
        eager: computes the gradients of a batch of another size, where the step is compiled for one; the same step
            where it is not.
        most: how many tasks may be left out in all of the training.

    Attributes:
        left_out: positions of those of the last batch that were.
    """

    def __init__(self, step: BatchStep, eager: BatchStep, most: int) -> None:
        super().__init__(step.learner, step.batches)
        self.step, self.eager, self.most = step, eager, most
        self.left_out: list[int] = []
        self._skipped: list[tuple[int, Hashable]] = []

    @property
    @override
    def skipped(self) -> Skipped:
        return tuple(self._skipped)

    @override
    def gradient_of(self, batch: TaskBatch, step: int) -> Tensor:
        self.left_out = []
        try:
            return self._finite(self.step, batch, step)
        except InferenceError as error:
            kept, failed = self._sorted(batch, step)
            if not failed or len(self._skipped) + len(failed) > self.most:
                raise self._told(error, batch, failed) from error
            self.left_out = failed
            self._skipped += [(step, name) for name in _names(batch, failed)]
            if not kept:
                self.learner.zero_grad(set_to_none=True)
                raise AllFailed(f"{error}; all of its tasks fail", error.task) from error
        return self._finite(self.eager, batch.select(kept), step)

    def agree(self, skipped: Sequence[tuple[int, Hashable]]) -> None:
        """Take what all processes have left out so far in the place of what this one has.

        Args:
            skipped: (step, task) of each.

        Raises:
            InferenceError: it is more than may be.
        """
        self._skipped = list(skipped)
        if len(self._skipped) > self.most:
            named = ", ".join(repr(name) for _, name in self._skipped[-SHOWN:])
            raise InferenceError(
                f"expected at most max_skipped={self.most} tasks whose loss or gradient is not finite, got "
                f"{len(self._skipped)}, of which the last are {named}"
            )

    @override
    def parts(self) -> Parts:
        return {**self.step.parts(), "skipped": self}

    def state_dict(self) -> State:
        """Which tasks were left out: a part of a run."""
        return {"skipped": [[step, name if isinstance(name, int | str) else str(name)] for step, name in self._skipped]}

    def load_state_dict(self, state_dict: State) -> None:
        """Go on from there."""
        self._skipped = [(step, name) for step, name in state_dict["skipped"]]

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

    def _told(self, error: InferenceError, batch: TaskBatch, failed: list[int]) -> InferenceError:
        """The failure, and why nothing was left out."""
        if not failed:
            return InferenceError(f"{error}; each of its tasks works alone", error.task)
        named = ", ".join(repr(name) for name in _names(batch, failed[:SHOWN])) + ", ..." * (len(failed) > SHOWN)
        return InferenceError(
            f"{error}; the tasks that fail are {named}, after {len(self._skipped)} before, and max_skipped={self.most}",
            error.task,
        )


def _names(batch: TaskBatch, places: Sequence[int]) -> list[Hashable]:
    return [place if batch.names is None else batch.names[place] for place in places]
