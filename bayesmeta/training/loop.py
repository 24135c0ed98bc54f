"""The training loop: gradients down a cosine schedule, guarded, with validation, a progress bar and a history.

Whoever trains gives a `Step`, which computes gradients, and `train` does the rest. `fit` moves theta itself,
`svgd_hyper_posterior` particles of theta, and `vi_hyper_posterior` the mean and deviation of a Gaussian over theta.
"""

import contextlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from tqdm import tqdm
from typing_extensions import override

from bayesmeta.arguments import generator_at
from bayesmeta.data import Data, TaskBatch
from bayesmeta.errors import InferenceError
from bayesmeta.flat import each_part
from bayesmeta.learner import Learner, require_differentiable
from bayesmeta.rounding import silently
from bayesmeta.snapshot import require_precision
from bayesmeta.tasks.source import Split, TaskSource
from bayesmeta.training.callbacks import Callback, StepRecord, telling
from bayesmeta.training.distributed import Processes
from bayesmeta.training.objectives import Objective
from bayesmeta.training.result import FitResult
from bayesmeta.training.runs.folder import Run, Unkept
from bayesmeta.training.runs.parts import ModuleState, OptimizerState, Parts, RandomState, State, Stateful
from bayesmeta.training.runs.signals import Stopped

CHUNK = 256  # validation tasks at a time: nothing is gained above, and memory grows

LossOf = Callable[[TaskBatch], Tensor]
"""Checked tasks -> the loss of each, `B`."""


def losses_of(learner: Learner, objective: Objective | None) -> LossOf:
    """The loss that an objective gives a learner: the learner's own `loss` where there is no objective."""
    return partial(each_part, learner.loss) if objective is None else partial(objective.loss, learner)


def prepare(learner: Learner, tasks: Data) -> Data:
    """What comes before the first step: the learner can be trained, and has the statistics of its data.

    Numbers that fall together in the learner's precision are warned of here, once for all steps.

    Args:
        learner: what is trained.
        tasks: the points of the tasks.

    Returns:
        The points as the learner has them.

    Raises:
        UnsupportedError: theta is in half precision, or was made in inference mode. And what `conform` raises.
    """
    require_differentiable(learner)
    for parameter in learner.parameters():
        require_precision(parameter.dtype, type(learner).__name__)
    data = learner.conform(tasks)
    learner.prepare(tasks)
    return data


@dataclass(frozen=True)
class Batches:
    """Tasks to train on: another batch of them at every step, divided anew into support and query.

    The batch of a step depends on the seed and on the number of the step alone, so that a training that goes on in the
    middle, and each of several processes, sees the tasks that one process sees that is never interrupted.

    Attributes:
        source: where tasks are drawn from.
        size: the number of tasks in a batch.
        split: how points are divided into support and query.
        seed: of the choice of tasks and points, and of whatever else is drawn in training.
    """

    source: TaskSource
    size: int
    split: Split
    seed: int

    def draw(self, step: int) -> TaskBatch:
        """The batch of a step; steps are counted from 1."""
        return self.source.draw(self.size, self.split, generator_at(self.seed, step))

    def pooled(self) -> Data:
        """Points to take statistics of before the first step."""
        return self.source.pooled(generator_at(self.seed, 0))

    @property
    def total_points(self) -> float:
        """The number of points of all tasks, which a hyperprior is divided by; infinite for a simulator."""
        return self.source.total_points


class Step(ABC):
    """What is trained: it computes one gradient at a time, and knows nothing of schedules, failures or histories."""

    @property
    def skipped(self) -> tuple[tuple[int, Hashable], ...]:
        """(step, task) of every task that was left out so far (`SkippingStep`)."""
        return ()

    @abstractmethod
    def gradient(self, step: int) -> Tensor:
        """Set `.grad` of what the optimizer moves (it is None before), and return the loss.

        Args:
            step: the number of the step, from 1: of its batch, and for messages.

        Raises:
            InferenceError: the loss of a task is not finite (`guarded`, `require_finite`).
        """

    @abstractmethod
    def anneal(self, progress: float) -> None:
        """Set the schedules of the learners that are trained, as `Learner.anneal` does."""

    @abstractmethod
    def moved(self) -> Mapping[str, Tensor]:
        """The parameters that gradients are computed of, by name."""

    @abstractmethod
    def parts(self) -> Parts:
        """All that the next gradient depends on beside the number of the step: what a run keeps, by name."""


class BatchStep(Step):
    """A step whose gradient is that of the mean loss of a batch of tasks, in a learner's theta.

    A subclass gives `gradient_of`.

    Args:
        learner: what is trained.
        batches: what it is trained on.
    """

    def __init__(self, learner: Learner, batches: Batches) -> None:
        self.learner, self.batches = learner, batches

    @abstractmethod
    def gradient_of(self, batch: TaskBatch, step: int) -> Tensor:
        """Set `.grad` of theta, and return the loss.

        Args:
            batch: checked tasks.
            step: the number of the step, from 1, for messages.

        Raises:
            InferenceError: the loss of a task is not finite.
        """

    @override
    def gradient(self, step: int) -> Tensor:
        return self.gradient_of(self.learner.conform_tasks(self.batches.draw(step)), step)

    @override
    def anneal(self, progress: float) -> None:
        self.learner.anneal(progress)

    @override
    def moved(self) -> Mapping[str, Tensor]:
        return dict(self.learner.named_parameters())

    @override
    def parts(self) -> Parts:
        return {"learner": ModuleState(self.learner)}


class Validation:
    """Tasks that are never trained on: their loss is followed, and the theta with the lowest is kept.

    Args:
        learner: whose theta is trained.
        loss_of: the loss to follow.
        parts: checked tasks, already divided into support and query.
        every: the number of steps between two looks.
        patience: how many looks in a row may find nothing better before the training ends; None: any number.
        save: called whenever a theta is better than all before.

    Attributes:
        scores: (step, mean loss) of every look so far.
        best_step: the step whose theta was best; 0 before the first look.
    """

    def __init__(
        self,
        learner: Learner,
        loss_of: LossOf,
        parts: Sequence[TaskBatch],
        every: int,
        patience: int | None,
        save: Callable[[], None],
    ) -> None:
        self.learner, self.loss_of, self.every, self.patience, self.save = learner, loss_of, every, patience, save
        self.parts = [part.select(slice(i, i + CHUNK)) for part in parts for i in range(0, part.num_tasks, CHUNK)]
        self.scores: list[tuple[int, float]] = []
        self.best_step = 0
        self._lowest = math.inf
        self._best: dict[str, Tensor] = {}

    @torch.no_grad()
    def look(self, step: int) -> None:
        """Compute the loss, and keep theta where it is the lowest so far.

        Raises:
            InferenceError: the loss of a task is not finite.
        """
        score = self.mean_loss(step)
        self.scores.append((step, score))
        if score < self._lowest:
            self._lowest, self.best_step = score, step
            self._best = {key: value.clone() for key, value in self.learner.state_dict().items()}
            self.save()

    def mean_loss(self, step: int) -> float:
        """The loss, without a gradient.

        Args:
            step: the number of the step, for messages.

        Raises:
            InferenceError: the loss of a task is not finite.
        """
        return float(torch.cat([guarded(self.loss_of, part, step) for part in self.parts]).mean())

    def at(self, step: int) -> float | None:
        """The loss that the last look found, if it was at this step."""
        return self.scores[-1][1] if self.scores and self.scores[-1][0] == step else None

    @property
    def is_exhausted(self) -> bool:
        """Whether patience has run out."""
        last = self.scores[-1][0] if self.scores else 0
        return self.patience is not None and (last - self.best_step) // self.every >= self.patience

    def restore(self) -> None:
        """Give the learner the best theta, where there was a look; else it stays where it stands."""
        if self.scores:
            self.learner.load_state_dict(self._best)

    def state_dict(self) -> State:
        """What was seen, and the best theta: a part of a run."""
        scores = torch.tensor(self.scores, dtype=torch.float64).reshape(-1, 2)
        return {"scores": scores, "best_step": self.best_step, "lowest": self._lowest, "best": self._best}

    def load_state_dict(self, state_dict: State) -> None:
        """Go on from there."""
        self.scores = [(int(step), score) for step, score in state_dict["scores"].tolist()]
        self.best_step, self._lowest, self._best = (state_dict[name] for name in ("best_step", "lowest", "best"))


class History:
    """Losses, norms and rates of all steps so far, and how long they took, in all sittings: a part of a run."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.gradient_norms: list[float] = []
        self.lrs: list[float] = []
        self._before, self._start = 0.0, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Of this sitting and those before it."""
        return self._before + time.perf_counter() - self._start

    def state_dict(self) -> State:
        """What it is now."""
        lists = {"losses": self.losses, "gradient_norms": self.gradient_norms, "lrs": self.lrs}
        return {n: torch.tensor(v, dtype=torch.float64) for n, v in lists.items()} | {"seconds": self.seconds}

    def load_state_dict(self, state_dict: State) -> None:
        """Go on from there."""
        names = ("losses", "gradient_norms", "lrs")
        self.losses, self.gradient_norms, self.lrs = (state_dict[name].tolist() for name in names)
        self._before = state_dict["seconds"]
        self._start = time.perf_counter()


def train(
    step: Step,
    optimizer: torch.optim.Optimizer,
    steps: int,
    *,
    max_norm: float = math.inf,
    validation: Validation | None = None,
    run: Run | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool | None = None,
    title: str = "fit",
) -> FitResult:
    """Follow gradients down a cosine schedule that ends at zero.

    Args:
        step: computes the gradients.
        optimizer: what it moves is what `step` computes gradients of.
        steps: the number of steps.
        max_norm: longer gradients are shortened to this norm; infinite leaves all as they are.
        validation: what to follow meanwhile; its best theta is what the learner has in the end.
        run: where the training is kept, and goes on from; None keeps nothing.
        callbacks: who is told of every step.
        progress: whether to show a progress bar; None shows it on a terminal only.
        title: what the progress bar is called.

    Returns:
        The history.

    Raises:
        InferenceError: a loss or gradient that is not finite; the step is named, and what the optimizer moves goes back
            to where the loss was last finite.
    """
    run = Unkept() if run is None else run
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    history = History()
    parts: dict[str, Stateful] = {"optimizer": OptimizerState(optimizer, step.moved()), "history": history}
    parts |= {} if validation is None else {"validation": validation}
    number = run.begin({**parts, **step.parts(), "random": RandomState()})
    hidden = True if not Processes.here().is_first else None if progress is None else not progress
    bar = tqdm(total=steps, initial=number, disable=hidden, desc=title, leave=False)
    with bar, silently(), restoring(parameters) as keep, telling(callbacks, number) as tell:
        while number < steps and not (validation is not None and validation.is_exhausted) and not run.is_stopped:
            number += 1
            step.anneal((number - 1) / steps)
            optimizer.zero_grad(set_to_none=True)
            before = len(step.skipped)
            loss = step.gradient(number).item()
            if not math.isfinite(loss):
                raise InferenceError(f"expected a finite loss, got {loss} at step {number}: lower lr")
            history.losses.append(loss)
            keep()
            norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm).item()
            if not math.isfinite(norm):
                raise InferenceError(f"expected a finite gradient, got norm {norm} at step {number}: lower lr")
            _set_rates(optimizer, 0.5 * (1.0 + math.cos(math.pi * (number - 1) / steps)))
            history.gradient_norms.append(norm)
            history.lrs.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            bar.update()
            if number % 50 == 0:
                scores = validation.scores if validation is not None else []
                bar.set_postfix(loss=f"{loss:.3f}", validation=f"{scores[-1][1]:.3f}" if scores else "-")
            if validation is not None and (number % validation.every == 0 or number == steps):
                validation.look(number)
            seen = None if validation is None else validation.at(number)
            tell(StepRecord(number, loss, norm, history.lrs[-1], seen, len(step.skipped) - before))
            if number % run.every == 0 and number < steps:
                run.keep(number)
    is_exhausted = validation is not None and validation.is_exhausted
    is_done = number == steps or is_exhausted
    run.keep(number, is_last=is_done)
    step.anneal(1.0)
    best = number
    if validation is not None and validation.scores:
        validation.restore()
        best = validation.best_step
    return FitResult(
        losses=tuple(history.losses),
        validation=() if validation is None else tuple(validation.scores),
        best_step=best,
        stopped_early=is_exhausted,
        seconds=history.seconds,
        interrupted=not is_done,
        gradient_norms=tuple(history.gradient_norms),
        lrs=tuple(history.lrs),
        skipped=step.skipped,
    )


def require_done(result: FitResult) -> None:
    """Raise `Stopped` where a training was told to stop before it was done: for whoever has no use for a part of it."""
    if result.interrupted:
        raise Stopped


def _set_rates(optimizer: torch.optim.Optimizer, share: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * share


@contextlib.contextmanager
def restoring(parameters: Sequence[Tensor]) -> Iterator[Callable[[], None]]:
    """When a computation in the block fails or is interrupted, the parameters go back to where they were last kept.

    Yields:
        A function that keeps the parameters as they are now. They are kept once before the block.
    """
    kept = [[p.detach().clone() for p in parameters] for _ in range(2)]

    def keep() -> None:
        _assign(kept[1], parameters)
        kept.reverse()  # only then: an interrupt in the middle leaves what was kept before

    try:
        yield keep
    except (InferenceError, KeyboardInterrupt):
        _assign(parameters, kept[0])
        raise


@torch.no_grad()
def _assign(targets: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for target, value in zip(targets, values, strict=True):
        target.copy_(value)


def guarded(loss_of: LossOf, batch: TaskBatch, step: int) -> Tensor:
    """The losses of a batch, `B`.

    Raises:
        InferenceError: a loss cannot be computed, or is not finite; the message names the step, and the task where it
            is the failure of one.
    """
    try:
        each = loss_of(batch)
    except InferenceError as error:
        name = "" if error.task is None or batch.names is None else f" ({batch.names[error.task]!r})"
        raise InferenceError(f"at step {step}{name}: {error.retold(names=batch.names)}", task=error.task) from error
    require_finite(each, batch, step)
    return each


def require_finite(each: Tensor, batch: TaskBatch, step: int) -> None:
    """Raise InferenceError with step and task where a loss of the batch is not finite."""
    if not bool(torch.isfinite(each).all()):
        position = int((~torch.isfinite(each)).nonzero()[0])
        name = position if batch.names is None else batch.names[position]
        raise InferenceError(
            f"expected finite losses, got {each[position].item()} at step {step} for task {name!r}. "
            "Likely causes: a learning rate that is too high (lower lr), data far from unit scale (use Standardized)"
        )
