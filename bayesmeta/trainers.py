"""How the learner of a recipe is trained on a table: by stochastic steps, or by the evidence of all tasks at once."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch

from bayesmeta.arguments import whole
from bayesmeta.errors import DataError
from bayesmeta.learner import Learner
from bayesmeta.networks.task_covariates import TaskCovariates
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.source import Split
from bayesmeta.training.evidence import fit_evidence
from bayesmeta.training.fit import fit
from bayesmeta.training.loop import prepare, require_done
from bayesmeta.training.objectives import EvidenceProblem, Objective
from bayesmeta.training.result import FitResult
from bayesmeta.training.runs.folder import Resume
from bayesmeta.wrappers.log_transformed import LogTransformed

MANY = 100  # tasks: from here on a network is worth its time, and may learn what covariates do
LOOKS = 40  # validations in a training
PATIENCE = 8  # of them without a better one end it
MOST_ITERATIONS = 500  # of a full-batch fit
EARLY = 0.1  # share of the steps: a best validation before that may be chance
SMALL = 0.01  # nats per point: a loss that changes by less at the end of a training has settled


@dataclass(frozen=True)
class Training:
    """What a user may change about a training run.

    Attributes:
        steps: gradient steps (at most 500 iterations of a full-batch fit).
        seed: of the tasks and points that are drawn, and of the validation tasks.
        validation: share of the tasks that stop the training early; 0 for none. Full-batch fits do not use it.
        progress: show a progress bar; None shows it on a terminal only.
        lr: first learning rate of gradient steps.
        device: where the learner is trained, and stays; None is where it is.
        checkpoint: the folder that the run is kept in, as for `fit`; of several that take their time each has a folder
            in it. None keeps nothing.
        every: steps between two states of a run (evaluations, of a full-batch fit); None is what the training takes.
        resume: what to do with a run that is there: "auto", "never" or None, as for `fit`.

    Raises:
        DataError: fewer than one step, a share outside [0, 1), a learning rate that is not positive.

    Example:
        >>> Training(steps=100).seed
        0
    """

    steps: int = 5_000
    seed: int = 0
    validation: float = 0.2
    progress: bool | None = None
    lr: float = 1e-3
    device: torch.device | None = None
    checkpoint: Path | None = None
    every: int | None = None
    resume: Resume | None = None

    def __post_init__(self) -> None:
        """Check all of it, whether the method has a use for it or not."""
        whole(self.steps, "steps", 1)
        if not 0.0 <= self.validation < 1.0:
            raise DataError(
                f"expected a share of the tasks for validation, of 0 or more and less than 1, got {self.validation}"
            )
        if not 0.0 < self.lr < math.inf:
            raise DataError(f"expected a positive learning rate, got {self.lr}")

    def part(self, name: str) -> "Training":
        """The same of one of several trainings, which is kept in a folder of its own.

        Args:
            name: of the folder.
        """
        return self if self.checkpoint is None else replace(self, checkpoint=self.checkpoint / name)

    def keeping(self) -> dict[str, Any]:
        """The arguments of `fit` and `fit_evidence` that say where the run is kept."""
        how_often = {} if self.every is None else {"every": self.every}
        return {"checkpoint": self.checkpoint, "resume": self.resume, **how_often}


@dataclass(frozen=True)
class Trained:
    """What a training has made.

    Attributes:
        learner: to predict with.
        account: how it went, on one line.
        convergence: whether it has arrived, and what to do where it has not, on one line; empty where it cannot say.

    Example:
        >>> import bayesmeta as bm
        >>> Trained(bm.ALPaCA(bm.Identity(1)), "400 steps").learner.title
        'ALPaCA'
    """

    learner: Learner
    account: str
    convergence: str = ""


class Trainer(ABC):
    """How a learner is trained on a table, and with which of its tasks.

    Attributes:
        uses: what of `Training` makes a difference to some methods only, and does to this: "lr", "validation".
    """

    uses: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def purposes(self, tasks: TaskDataset, training: Training) -> str:
        """How many of the tasks are for what, such as `8 to learn from, 2 for early stopping`."""

    @abstractmethod
    def __call__(self, learner: Learner, tasks: TaskDataset, training: Training) -> Trained:
        """Train with the tasks as `purposes` says: in place, where what is trained is what was given.

        Raises:
            KeyboardInterrupt: the training was stopped; where it has a checkpoint its state is kept.
        """


@dataclass(frozen=True)
class ByGradients(Trainer):
    """Stochastic steps; of five tasks or more, a share stops the training early.

    Attributes:
        objective: what is maximised; the predictive density of query points by default.
        split: how points are divided into support and query at every step; as `fit` does by default.

    Example:
        >>> import bayesmeta as bm
        >>> tasks = bm.tasks.Sinusoid.maml().dataset(10, 5)
        >>> ByGradients().divided(tasks, Training(validation=0.2))
        (TaskDataset(8 tasks, 5 to 5 points each), TaskDataset(2 tasks, 5 to 5 points each))
        >>> ByGradients().purposes(tasks, Training(validation=0.2))
        '8 to learn from, 2 for early stopping'
    """

    uses: ClassVar[frozenset[str]] = frozenset({"lr", "validation"})
    objective: Objective | None = None
    split: Split | None = None

    def divided(self, tasks: TaskDataset, training: Training) -> tuple[TaskDataset, TaskDataset | None]:
        """Tasks to learn from, and a share, drawn at random, that only says when to stop, if there is one."""
        if training.validation > 0.0 and len(tasks) >= 5:
            return tasks.split(training.validation, training.seed)
        return tasks, None

    def purposes(self, tasks: TaskDataset, training: Training) -> str:
        """How many of the tasks are to learn from, and how many for early stopping, if there are any."""
        train, stopping = self.divided(tasks, training)
        return f"{len(train)} to learn from" + ("" if stopping is None else f", {len(stopping)} for early stopping")

    def __call__(self, learner: Learner, tasks: TaskDataset, training: Training) -> Trained:
        """Train in place; statistics, such as how frequent classes are, are taken of all tasks."""
        prepare(learner, tasks.flat.folded())
        learned_from, validation = self.divided(tasks, training)
        result = fit(
            learner.to(training.device),
            learned_from,
            training.steps,
            lr=training.lr,
            objective=self.objective,
            split=self.split,
            validation=validation,
            patience=PATIENCE,
            validate_every=max(training.steps // LOOKS, 1),
            seed=training.seed,
            progress=training.progress,
            **training.keeping(),
        )
        require_done(result)
        linear = len(tasks) < MANY and any(isinstance(each, TaskCovariates) for each in learner.modules())
        remark = f"; effects of covariates are linear, as {len(tasks)} tasks do not tell curved ones" * linear
        return Trained(learner, repr(result) + remark, settling(result, training.steps))


def on_log_scale(tasks: TaskDataset) -> TaskDataset:
    """The tasks with the logarithms of their outcomes, which are positive.

    Args:
        tasks: of a table, or others.

    Example:
        >>> import bayesmeta as bm
        >>> tasks = bm.TaskDataset.from_list([([0.0, 1.0], [1.0, 1.0])])
        >>> on_log_scale(tasks).flat.y.flatten().tolist()
        [0.0, 0.0]
    """
    schema = None if tasks.schema is None else replace(tasks.schema, kind="number")  # logarithms may be negative
    return TaskDataset(replace(tasks.flat, y=tasks.flat.y.log()), tasks.names, schema)


@dataclass(frozen=True)
class OnLogScale(Trainer):
    """A learner of positive outcomes whose inside is trained on their logarithms.

    Attributes:
        trainer: what trains the learner inside a `LogTransformed`.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.wrappers.LogTransformed(bm.Standardized(bm.ALPaCA(bm.Identity(0))).double())
        >>> tasks = bm.TaskDataset.from_list([([[], []], [1.0, 2.0]), ([[], []], [4.0, 3.0]), ([[], []], [9.0, 8.0])])
        >>> OnLogScale(ByEvidence())(learner, tasks, Training(progress=False)).learner.title
        'LogTransformed(Standardized(ALPaCA))'
    """

    trainer: Trainer

    def purposes(self, tasks: TaskDataset, training: Training) -> str:
        """As on any scale."""
        return self.trainer.purposes(tasks, training)

    def __call__(self, learner: Learner, tasks: TaskDataset, training: Training) -> Trained:
        """What is trained may be another learner than what was given, as the trainer has it."""
        if not isinstance(learner, LogTransformed):
            raise DataError(f"expected a LogTransformed learner, got {learner.title}")
        trained = self.trainer(learner.learner, on_log_scale(tasks), training)
        return replace(trained, learner=LogTransformed(trained.learner))


@dataclass(frozen=True)
class ByEvidence(Trainer):
    """The evidence of all tasks at once, maximised until nothing more is gained: no task is needed for stopping.

    Attributes:
        problem: what is maximised; the likelihood by default.

    Example:
        >>> import bayesmeta as bm
        >>> ByEvidence().purposes(bm.tasks.Sinusoid.maml().dataset(10, 5), Training())
        '10 to learn from'
    """

    problem: EvidenceProblem | None = None

    def purposes(self, tasks: TaskDataset, training: Training) -> str:
        """All are to learn from."""
        return f"{len(tasks)} to learn from"

    def __call__(self, learner: Learner, tasks: TaskDataset, training: Training) -> Trained:
        """Train in place."""
        most = min(training.steps, MOST_ITERATIONS)  # L-BFGS is done long before
        result = fit_evidence(
            learner.to(training.device),
            tasks,
            self.problem,
            max_iterations=most,
            **training.keeping(),
        )
        require_done(result)
        if result.converged:
            said = "converged: nothing more was to be gained"
        elif result.stopped_early:
            said = "not converged: the warning says what to do"
        else:
            said = f"not converged in {most} iterations: raise --steps, up to {MOST_ITERATIONS}"
        return Trained(learner, repr(result), said)


def settling(result: FitResult, steps: int) -> str:
    """Whether a training by stochastic steps has settled, and what to do where it has not, in a sentence.

    It has where validation tasks ended it early, though not within the first tenth of its steps, or where the loss fell
    by less than .01 nats per point over the last fifth of the steps: that of the validation tasks or, without any, the
    mean loss of training, by more than two of its standard errors. The learning rate ends at zero, so that the end says
    less of what more steps would give.

    Args:
        result: of `fit`.
        steps: how many it was to take.

    Example:
        >>> from bayesmeta.training import FitResult
        >>> falling = tuple((step, 3.0 - 0.01 * step) for step in range(1, 101))
        >>> settling(FitResult((1.0,) * 100, falling, best_step=100, stopped_early=False, seconds=1.0), steps=100)
        'not converged: the validation loss fell by 0.20 nats per point in the last fifth of 100 steps: raise --steps'
        >>> stopped = FitResult((1.0,) * 50, ((25, 1.1), (50, 1.2)), best_step=25, stopped_early=True, seconds=1.0)
        >>> settling(stopped, steps=100)
        'converged: validation was best at step 25 of 100, where theta is from'
        >>> settling(stopped, steps=1000)
        'stopped early: validation was best at step 25 of 1000, where theta is from: a lower --lr may gain more'
    """
    if result.stopped_early:
        best = f"validation was best at step {result.best_step} of {steps}, where theta is from"
        if result.best_step < EARLY * steps:
            return f"stopped early: {best}: a lower --lr may gain more"
        return f"converged: {best}"
    start = steps - steps // 5
    if result.validation:
        what = "validation"
        before = [loss for step, loss in result.validation if step <= start]
        fall = min(before, default=math.inf) - min(loss for _, loss in result.validation)
    else:
        what = "training"
        fall = _significant_fall(result.losses[start - steps // 5 : start], result.losses[start:])
    if not math.isfinite(fall):
        return f"not converged: {steps} steps are too few to tell: raise --steps"
    if fall > SMALL:
        return (
            f"not converged: the {what} loss fell by {fall:.2f} nats per point in the last fifth of {steps} steps: "
            "raise --steps"
        )
    return f"converged: the {what} loss fell by less than {SMALL} nats per point in the last fifth of {steps} steps"


def _significant_fall(earlier: Sequence[float], later: Sequence[float]) -> float:
    """By how much a mean of noisy losses fell; 0 where that is within two standard errors, infinite for too few."""
    if len(earlier) < 2 or len(later) < 2:
        return math.inf
    first, last = (torch.tensor(losses, dtype=torch.float64) for losses in (earlier, later))
    fall = (first.mean() - last.mean()).item()
    error = (first.var() / len(first) + last.var() / len(last)).sqrt().item()
    return fall if fall > 2.0 * error else 0.0
