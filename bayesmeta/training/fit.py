"""Meta-training by stochastic gradients: max_theta of an objective over batches of tasks."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from typing_extensions import override

from bayesmeta.arguments import seed_of, whole
from bayesmeta.data import TaskBatch
from bayesmeta.devices import device_of
from bayesmeta.errors import DataError, InferenceError
from bayesmeta.learner import Learner
from bayesmeta.modes import trained
from bayesmeta.tasks.dataset import TaskDataset, naming_columns
from bayesmeta.tasks.source import RandomSplit, Split, TaskSource
from bayesmeta.training.callbacks import Callback
from bayesmeta.training.compiled import CompiledStep
from bayesmeta.training.distributed import Processes
from bayesmeta.training.divided import SharedCallbacks, copy_theta, divided, meet
from bayesmeta.training.loop import (
    Batches,
    BatchStep,
    LossOf,
    Step,
    Validation,
    guarded,
    losses_of,
    prepare,
    require_finite,
    train,
)
from bayesmeta.training.objectives import Objective
from bayesmeta.training.result import FitResult
from bayesmeta.training.runs.folder import EVERY, Resume, keeping
from bayesmeta.training.runs.parts import Parts
from bayesmeta.training.runs.settings import Settings, plain
from bayesmeta.training.shared_run import SharedRun
from bayesmeta.training.skipping import SkippingStep
from bayesmeta.wrappers.base import require_trainable


@trained
@naming_columns
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
    every: int = EVERY,
    resume: Resume | None = None,
    compile: bool | type[CompiledStep] = False,
    max_skipped: int = 0,
    device: str | torch.device | None = None,
    callbacks: Sequence[Callback] = (),
) -> FitResult:
    """Meta-train theta in place, with the learner's optimizer (Adam) and a cosine learning rate that ends at zero.

    Several processes, as `torchrun` starts them, divide the tasks of every step among them, and all end with the same
    theta and result; the first one writes (`bayesmeta.training.distributed`).

    Args:
        learner: what to train; it ends with the theta of the best validation, or of the last step without validation.
        tasks: a `TaskDataset` or a simulator.
        steps: number of gradient steps.
        batch_size: tasks a step, of all processes together.
        lr: first learning rate.
        split: how points are divided into support and query, anew at every step; `RandomSplit()` by default.
        objective: what to maximise; the learner's own `meta_loss` by default.
        validation: tasks that are never trained on, divided once by the same split.
        validate_every: steps between validations.
        patience: stop after so many validations without a better one; None never stops early.
        grad_clip: largest norm of the gradient.
        seed: seeds the choice of tasks and points. (Initial weights are seeded where the learner is made.)
        progress: show a progress bar; None shows it on a terminal only.
        checkpoint: the folder of the run. It is a model folder of the best validation, or of the last state without
            validation, from early on; and in `states` it keeps all that the training was at its last two states, so
            that a killed run goes on. Ctrl-C or SIGTERM then end the training after the step that it is at: the state
            is kept, and the result says `interrupted`. (A second one ends it at once.)
        every: steps between two states.
        resume: what to do with a run that is in the folder. "auto" goes on with it, or begins where there is none; on a
            CPU the end is bit for bit that of a run without a break. "never" begins anew in its place. None begins
            anew, too, but refuses to replace a run that has not come to its end.
        compile: compile the step with inductor: 2 to 9 times as fast for small networks, after a minute or so for the
            first step and for every larger number of points. It needs a C++ compiler and a loss that is nothing but
            tensor operations (`CompiledStep`). A kind of `CompiledStep` is taken in its place: `CudaGraphStep`.
        max_skipped: how many tasks may be left out of a step, over all steps, as their loss or gradient is not finite.
            They are found one by one, and named in the result; one more is an error, as is the first one by default.
        device: where to train: `"auto"` (the accelerator where there is one), `"cpu"`, `"cuda"`, or a `torch.device`.
            The learner is moved there, and stays. None trains where it is. Tasks are drawn on the CPU, so that they are
            the same everywhere.
        callbacks: who is told of every step: `bm.training.CSVLog`, `bm.training.TensorBoardLog`, or a
            `bm.training.Callback` of your own. Of several processes the first one's are called.

    Returns:
        The history.

    Raises:
        DataError: arguments out of range, or others in another process of this training; a checkpoint folder that
            cannot be written, that another training writes to, or whose run has other settings.
        InferenceError: a loss or gradient that is not finite; step and task are named, and theta goes back to where its
            loss was last finite; or another process has ended.
        KeyboardInterrupt: without a checkpoint; theta is then that of the best validation, or where its loss was last
            finite.
        UnsupportedError: a learner whose theta is final (`Untrainable`), or in half precision; a checkpoint of one that
            cannot be described; a loss that cannot be compiled, or divided among processes.
        Exception: what a callback raises; theta is then that of the best validation, or of the last step.

    Warns:
        PrecisionWarning: distinct inputs or outcomes of a task are one number in the learner's precision (the column is
            named, once), or matrices of tasks were singular to rounding, and got jitter (how many, at the end).
        CheckpointWarning: a state is damaged, and the one before it serves; or one cannot be written, as on a full
            disk, and the training goes on. (The model of the end is an error.)

    Example:
        >>> import bayesmeta as bm
        >>> tasks = bm.tasks.Sinusoid().dataset(num_tasks=20, num_points=8, seed=0)
        >>> learner = bm.ALPaCA(bm.MLP(1, [8]))
        >>> result = bm.fit(learner, tasks, steps=50, lr=0.01, progress=False)
        >>> len(result.losses), result.losses[-1] < result.losses[0]
        (50, True)
    """
    require_trainable(learner)
    if not isinstance(tasks, TaskSource):
        raise DataError(f"expected a TaskDataset or a simulator, got {type(tasks).__name__}: see TaskDataset")
    steps, batch_size = whole(steps, "steps", 1), whole(batch_size, "batch_size", 1)
    validate_every, max_skipped = whole(validate_every, "validate_every", 1), whole(max_skipped, "max_skipped", 0)
    if not 0.0 < lr < math.inf or not grad_clip > 0.0 or (patience is not None and patience < 1):
        raise DataError(f"expected positive lr, grad_clip and patience, got {lr}, {grad_clip} and {patience}")
    for each in callbacks:
        if not isinstance(each, Callback):
            raise DataError(f"expected callbacks that inherit bayesmeta.training.Callback, got {type(each).__name__}")
    processes = Processes.here().connect()
    if device is not None:
        learner.to(processes.device if device == "auto" and processes.count > 1 else device_of(device))
    if not any(parameter.requires_grad for parameter in learner.parameters()):
        raise DataError(f"expected parameters to train, got none that requires gradients in {type(learner).__name__}")
    split = RandomSplit() if split is None else split
    batches = Batches(tasks, batch_size, split, seed_of(seed))

    def settings() -> Settings:
        return {
            "training": "fit",
            "learner": learner,
            "tasks": tasks,
            "steps": steps,
            "batch_size": batch_size,
            "lr": float(lr),
            "split": split,
            "objective": objective,
            "validation": validation,
            "validate_every": validate_every,
            "patience": patience,
            "grad_clip": float(grad_clip),
            "seed": batches.seed,
            "compile": compile if isinstance(compile, bool) else compile.__name__,
        }

    own = partial(keeping, checkpoint, every, resume, learner, settings, follow=validation is None)
    with own() if processes.count == 1 else SharedRun(processes, own) as run:
        loss_of = losses_of(learner, objective)
        prepare(learner, batches.pooled())
        watched = None
        if validation is not None:
            held_out = [learner.conform_tasks(part.divided(split, seed)) for _, part in validation.by_length()]
            better = partial(run.offer, learner)
            watched = Validation(learner, loss_of, held_out, validate_every, patience, better)
        eager = _Eager(learner, batches, loss_of)
        step: BatchStep = eager
        if compile:
            kind = CompiledStep if compile is True else compile
            step = _Compiled(kind(learner, loss_of, batches.total_points), batches)
        if max_skipped:
            step = SkippingStep(step, eager, max_skipped)
        training: Step = step
        if isinstance(run, SharedRun):
            same = {name: value for name, value in settings().items() if name != "learner"}
            meet(processes, learner, batches, plain(same | {"max_skipped": max_skipped}))
            training, watched = divided(step, watched, run, objective)
            callbacks = [SharedCallbacks(callbacks, processes)] if processes.of_first(len(callbacks)) else ()
        optimizer = learner.configure_optimizer(lr)
        try:
            result = train(
                training,
                optimizer,
                steps,
                max_norm=grad_clip,
                validation=watched,
                run=run,
                callbacks=callbacks,
                progress=progress,
            )
        except InferenceError:
            raise  # theta is where its loss was last finite
        except BaseException:  # an interrupt, or a callback's own
            step.anneal(1.0)
            if watched is not None:
                watched.restore()
            raise
        run.finish(learner)
        copy_theta(processes, learner)
    return processes.of_first(result)


class _Eager(BatchStep):
    """The gradient in theta, by PyTorch as it comes."""

    def __init__(self, learner: Learner, batches: Batches, loss_of: LossOf) -> None:
        super().__init__(learner, batches)
        self.loss_of = loss_of

    @override
    def gradient_of(self, batch: TaskBatch, step: int) -> Tensor:
        each = guarded(self.loss_of, batch, step)
        loss = each.mean() - self.learner.log_hyperprior() / self.batches.total_points
        loss.backward()
        return loss.detach()


class _Compiled(BatchStep):
    """The gradient in theta, by compiled code."""

    def __init__(self, compiled: CompiledStep, batches: Batches) -> None:
        super().__init__(compiled.learner, batches)
        self.compiled = compiled

    @override
    def gradient_of(self, batch: TaskBatch, step: int) -> Tensor:
        each, loss = self.compiled(batch)
        require_finite(each, batch, step)
        return loss

    @override
    def parts(self) -> Parts:
        return {**super().parts(), "compiled": self.compiled}
