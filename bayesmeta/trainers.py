"""How the learner of a recipe is trained on a table: by stochastic steps, or by the evidence of all tasks at once."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

from bayesmeta.arguments import whole
from bayesmeta.errors import DataError
from bayesmeta.learner import Learner
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.training.evidence import fit_evidence
from bayesmeta.training.fit import fit
from bayesmeta.training.loop import prepare
from bayesmeta.training.objectives import Objective
from bayesmeta.wrappers.log_transformed import LogTransformed


@dataclass(frozen=True)
class Training:
    """What a user may change about a training run.

    Attributes:
        steps: gradient steps (at most 500 iterations of a full-batch fit).
        seed: of the tasks and points that are drawn, and of the validation tasks.
        validation: share of the tasks that stop the training early; 0 for none. Full-batch fits do not use it.
        progress: show a progress bar; None shows it on a terminal only.

    Raises:
        DataError: fewer than one step.

    Example:
        >>> Training(steps=100).seed
        0
    """

    steps: int = 5_000
    seed: int = 0
    validation: float = 0.2
    progress: bool | None = None

    def __post_init__(self) -> None:
        """Check the number of steps, whether the method takes any or not."""
        whole(self.steps, "steps", 1)


@dataclass(frozen=True)
class Trained:
    """What a training has made.

    Attributes:
        learner: to predict with.
        account: how it went, on one line.

    Example:
        >>> import bayesmeta as bm
        >>> Trained(bm.ALPaCA(bm.Identity(1)), "400 steps").learner.title
        'ALPaCA'
    """

    learner: Learner
    account: str


class Trainer(ABC):
    """How a learner is trained on a table, and with which of its tasks."""

    @abstractmethod
    def purposes(self, tasks: TaskDataset, training: Training) -> str:
        """How many of the tasks are for what, such as `8 to learn from, 2 for early stopping`."""

    @abstractmethod
    def __call__(self, learner: Learner, tasks: TaskDataset, training: Training) -> Trained:
        """Train with the tasks as `purposes` says: in place, where what is trained is what was given."""


@dataclass(frozen=True)
class ByGradients(Trainer):
    """Stochastic steps; of five tasks or more, a share stops the training early.

    Attributes:
        objective: what is maximised; the predictive density of query points by default.

    Example:
        >>> import bayesmeta as bm
        >>> tasks = bm.tasks.Sinusoid.maml().dataset(10, 5)
        >>> ByGradients().divided(tasks, Training(validation=0.2))
        (TaskDataset(8 tasks, 5 to 5 points each), TaskDataset(2 tasks, 5 to 5 points each))
        >>> ByGradients().purposes(tasks, Training(validation=0.2))
        '8 to learn from, 2 for early stopping'
    """

    objective: Objective | None = None

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
        tasks, validation = self.divided(tasks, training)
        result = fit(
            learner,
            tasks,
            training.steps,
            objective=self.objective,
            validation=validation,
            patience=8,
            validate_every=max(training.steps // 40, 1),
            seed=training.seed,
            progress=training.progress,
        )
        return Trained(learner, repr(result))


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
        logged = replace(tasks.flat, y=tasks.flat.y.log())
        inside = TaskDataset(logged, tasks.names, tasks.schema)
        trained = self.trainer(learner.learner, inside, training)
        return replace(trained, learner=LogTransformed(trained.learner))


@dataclass(frozen=True)
class ByEvidence(Trainer):
    """The evidence of all tasks at once, maximised until nothing more is gained: no task is needed for stopping.

    Example:
        >>> import bayesmeta as bm
        >>> ByEvidence().purposes(bm.tasks.Sinusoid.maml().dataset(10, 5), Training())
        '10 to learn from'
    """

    def purposes(self, tasks: TaskDataset, training: Training) -> str:
        """All are to learn from."""
        return f"{len(tasks)} to learn from"

    def __call__(self, learner: Learner, tasks: TaskDataset, training: Training) -> Trained:
        """Train in place."""
        result = fit_evidence(learner, tasks, max_iterations=min(training.steps, 500))  # L-BFGS is done long before
        return Trained(learner, repr(result))
