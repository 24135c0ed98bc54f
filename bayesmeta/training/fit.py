"""Meta-training by stochastic gradients: max_theta of an objective over batches of tasks."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm import tqdm

from bayesmeta.data import TaskBatch
from bayesmeta.errors import DataError, InferenceError
from bayesmeta.learner import Learner
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.source import RandomSplit, Split, TaskSource
from bayesmeta.training.checkpoint import require_savable, save
from bayesmeta.training.compiled import CompiledStep
from bayesmeta.training.objectives import Objective

if TYPE_CHECKING:
    import pandas as pd

CHUNK = 256  # tasks at a time: nothing is gained above, and memory grows


@dataclass(frozen=True)
class FitResult:
    """What happened during meta-training.

    Attributes:
        losses: the loss of every step, nats per point.
        validation: (step, loss on the validation tasks) in order.
        best_step: the step whose theta the learner now has.
        stopped_early: whether patience ran out (or a full-batch fit found nothing more to gain) before the last step.
        seconds: wall time.
    """

    losses: tuple[float, ...]
    validation: tuple[tuple[int, float], ...]
    best_step: int
    stopped_early: bool
    seconds: float

    def frame(self) -> "pd.DataFrame":
        """The history as a table: step, loss, validation (NaN between validations)."""
        import pandas as pd

        table = pd.DataFrame({"step": range(1, len(self.losses) + 1), "loss": self.losses})
        validation = pd.DataFrame(list(self.validation), columns=["step", "validation"])
        return table.merge(validation, on="step", how="left")

    def __repr__(self) -> str:
        """The end of the history."""
        last = self.losses[-1] if self.losses else math.nan
        return f"FitResult({len(self.losses)} steps in {self.seconds:.1f} s, last loss {last:.4f} nats per point)"


def fit(
    learner: Learner,
    tasks: TaskSource,
    steps: int = 5_000,
    *,
    batch_size: int = 16,
    lr: float = 1e-3,
    split: Split | None = None,
    objective: Objective | None = None,
    validation: TaskDataset | None = None,
    validate_every: int = 250,
    patience: int | None = None,
    grad_clip: float = 10.0,
    seed: int = 0,
    progress: bool | None = None,
    checkpoint: str | Path | None = None,
    compile: bool = False,
) -> FitResult:
    """Meta-train theta in place, with the learner's optimizer (Adam) and a cosine learning rate that ends at zero.

    Args:
        learner: what to train; it ends with the theta of the best validation, or of the last step without validation.
        tasks: a `TaskDataset` or a simulator.
        steps: number of gradient steps.
        batch_size: tasks a step.
        lr: first learning rate.
        split: how points are divided into support and query, anew at every step; `RandomSplit()` by default.
        objective: what to maximise; the learner's own `meta_loss` by default.
        validation: tasks that are never trained on, divided once by the same split.
        validate_every: steps between validations.
        patience: stop after so many validations without a better one; None never stops early.
        grad_clip: largest norm of the gradient.
        seed: seeds the choice of tasks and points. (Initial weights are seeded where the learner is made.)
        progress: show a progress bar; None shows it on a terminal only.
        checkpoint: a model folder, written at every better validation and at the end.
        compile: compile the step with inductor: 2 to 9 times as fast for small networks, after a minute or so for the
            first step and for every larger number of points. It needs a C++ compiler and a loss that is nothing but
            tensor operations (`CompiledStep`).

    Returns:
        The history.

    Raises:
        DataError: arguments out of range. InferenceError: a loss or gradient that is not finite; step and task are
            named, and theta goes back to where its loss was last finite. UnsupportedError: a checkpoint of a learner
            that cannot be described; a loss that cannot be compiled.
    """
    if not isinstance(tasks, TaskSource):
        raise DataError(f"expected a TaskDataset or a simulator, got {type(tasks).__name__}: see TaskDataset")
    for name, value in (("steps", steps), ("batch_size", batch_size), ("validate_every", validate_every)):
        if not isinstance(value, Integral) or value < 1:
            raise DataError(f"expected a whole number {name} >= 1, got {value}")
    if not 0.0 < lr < math.inf or not grad_clip > 0.0 or (patience is not None and patience < 1):
        raise DataError(f"expected positive lr, grad_clip and patience, got {lr}, {grad_clip} and {patience}")
    if not any(parameter.requires_grad for parameter in learner.parameters()):
        raise DataError(f"expected parameters to train, got none that requires gradients in {type(learner).__name__}")
    if checkpoint is not None:
        require_savable(learner, checkpoint)  # now, rather than after hours of training
    split = RandomSplit() if split is None else split
    loss_of: Callable[[TaskBatch], Tensor] = learner.loss if objective is None else _Bound(objective, learner)
    generator = torch.Generator().manual_seed(seed)
    learner.prepare(tasks.pooled(generator))
    held_out = None if validation is None else learner.conform_tasks(validation.divided(split, seed))
    total_points = float(tasks.data.counts.sum()) if isinstance(tasks, TaskDataset) else math.inf
    compiled = CompiledStep(learner, loss_of, total_points) if compile else None
    optimizer = learner.configure_optimizer(lr)
    cosine = lambda step: 0.5 * (1.0 + math.cos(math.pi * step / steps))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, cosine)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    previous = [p.detach().clone() for p in parameters]

    losses: list[float] = []
    scores: list[tuple[int, float]] = []
    best, best_step, best_state, stopped = math.inf, 0, None, False
    start = time.perf_counter()
    bar = tqdm(total=steps, disable=None if progress is None else not progress, desc="fit", leave=False)
    with bar, _restoring(parameters, previous):
        for step in range(1, steps + 1):
            learner.anneal((step - 1) / steps)
            batch = learner.conform_tasks(tasks.draw(batch_size, split, generator))
            if compiled is None:
                each = _guarded(loss_of, batch, step)
                loss = each.mean() - learner.log_hyperprior() / total_points
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
            else:
                each, loss = compiled(batch)
                _require_finite(each, batch, step)
            _assign(previous, parameters)
            norm = torch.nn.utils.clip_grad_norm_(parameters, grad_clip)
            if not bool(torch.isfinite(norm)):
                raise InferenceError(f"expected a finite gradient, got norm {norm.item()} at step {step}: lower lr")
            optimizer.step()
            scheduler.step()
            losses.append(loss.item())
            bar.update()
            if step % 50 == 0:
                bar.set_postfix(loss=f"{losses[-1]:.3f}", validation=f"{scores[-1][1]:.3f}" if scores else "-")
            if held_out is not None and (step % validate_every == 0 or step == steps):
                scores.append((step, _score(loss_of, held_out, step)))
                if scores[-1][1] < best:
                    best, best_step = scores[-1][1], step
                    best_state = {key: value.clone() for key, value in learner.state_dict().items()}
                    if checkpoint is not None:
                        save(learner, checkpoint)
                elif patience is not None and (step - best_step) // validate_every >= patience:
                    stopped = True
                    break
    learner.anneal(1.0)
    if best_state is not None:
        learner.load_state_dict(best_state)
    if checkpoint is not None:
        save(learner, checkpoint)
    seconds = time.perf_counter() - start
    return FitResult(tuple(losses), tuple(scores), best_step or len(losses), stopped, seconds)


@dataclass(frozen=True)
class _Bound:
    objective: Objective
    learner: Learner

    def __call__(self, tasks: TaskBatch) -> Tensor:
        return self.objective.loss(self.learner, tasks)


@torch.no_grad()
def _assign(targets: list[Tensor], values: list[Tensor]) -> None:
    for target, value in zip(targets, values, strict=True):
        target.copy_(value)


@contextlib.contextmanager
def _restoring(parameters: list[Tensor], previous: list[Tensor]) -> Iterator[None]:
    """When a computation fails, theta goes back to where its loss was last finite."""
    try:
        yield
    except InferenceError:
        _assign(parameters, previous)
        raise


def _guarded(loss_of: Callable[[TaskBatch], Tensor], batch: TaskBatch, step: int) -> Tensor:
    """The losses, or an error that says at which step and for which task they broke."""
    try:
        each = loss_of(batch)
    except InferenceError as error:
        name = "" if error.task is None or batch.names is None else f" ({batch.names[error.task]!r})"
        raise InferenceError(f"at step {step}{name}: {error}", task=error.task) from error
    _require_finite(each, batch, step)
    return each


def _require_finite(each: Tensor, batch: TaskBatch, step: int) -> None:
    if not bool(torch.isfinite(each).all()):
        position = int((~torch.isfinite(each)).nonzero()[0])
        name = position if batch.names is None else batch.names[position]
        raise InferenceError(
            f"expected finite losses, got {each[position].item()} at step {step} for task {name!r}. "
            "Likely causes: a learning rate that is too high (lower lr), data far from unit scale (use Standardized)"
        )


@torch.no_grad()
def _score(loss_of: Callable[[TaskBatch], Tensor], batch: TaskBatch, step: int) -> float:
    parts = [batch.select(slice(i, i + CHUNK)) for i in range(0, batch.num_tasks, CHUNK)]
    return float(torch.cat([_guarded(loss_of, part, step) for part in parts]).mean())
