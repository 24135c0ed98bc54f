"""Recipes for tables whose rows may lack some of several outcomes: a learner for each, from the rows that have it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from bayesmeta.errors import DataError
from bayesmeta.evaluation.evaluate import evaluate
from bayesmeta.evaluation.scores import Evaluation
from bayesmeta.learner import Learner
from bayesmeta.recipes import Recipe
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.trainers import Trained, Trainer, Training
from bayesmeta.wrappers.separately import Separately


@dataclass(frozen=True)
class BySeparating(Trainer):
    """Each outcome's learner is trained on the rows that have the outcome.

    Attributes:
        train: how a learner of one outcome is trained.

    Example:
        >>> import pandas as pd
        >>> import bayesmeta as bm
        >>> from bayesmeta.trainers import ByEvidence
        >>> frame = pd.DataFrame({"who": list("aabb"), "u": [1.0, 2.0, 3.0, 5.0], "v": [4.0, None, None, 2.0]})
        >>> tasks = bm.TaskDataset.from_frame(frame, task="who", x=[], y=["u", "v"])
        >>> BySeparating(ByEvidence()).purposes(tasks, Training())
        'u: 2 to learn from; v: 2 to learn from'
    """

    train: Trainer

    @override
    def purposes(self, tasks: TaskDataset, training: Training) -> str:
        names = range(tasks.flat.y.shape[1]) if tasks.schema is None else tasks.schema.y
        return "; ".join(f"{name}: {self.train.purposes(tasks.of_outcome(name), training)}" for name in names)

    @override
    def __call__(self, learner: Learner, tasks: TaskDataset, training: Training) -> Trained:
        if not isinstance(learner, Separately):
            raise DataError(f"expected Separately, got {learner.title}")
        found = {
            name: self.train(each, tasks.of_outcome(place), training.part(f"outcome-{place}"))
            for place, (name, each) in enumerate(zip(learner.names, learner.learners, strict=True))
        }
        account = "; ".join(f"{name}: {each.account}" for name, each in found.items())
        convergence = "; ".join(f"{name}: {each.convergence}" for name, each in found.items() if each.convergence)
        return Trained(Separately({name: each.learner for name, each in found.items()}), account, convergence)


def for_tasks(recipe: Recipe, tasks: TaskDataset) -> Recipe:
    """The recipe itself, or where points lack some of their outcomes one with a learner for each outcome.

    Args:
        recipe: of any method for numbers.
        tasks: of a table.

    Example:
        >>> import pandas as pd
        >>> import bayesmeta as bm
        >>> from bayesmeta.recipes import recipe
        >>> frame = pd.DataFrame({"who": list("aabb"), "u": [1.0, 2.0, 3.0, 5.0], "v": [4.0, None, 1.0, 2.0]})
        >>> tasks = bm.TaskDataset.from_frame(frame, task="who", x=[], y=["u", "v"])
        >>> for_tasks(recipe("alpaca-linear"), tasks).for_table(tasks.schema).title
        'Separately(Standardized(ALPaCA))'
    """
    if not tasks.has_gaps:
        return recipe
    names = [f"y{place}" for place in range(tasks.flat.y.shape[1])] if tasks.schema is None else tasks.schema.y

    def each(make: Callable[..., Learner]) -> Callable[..., Learner]:
        return lambda *sizes: Separately({name: make(*sizes[:-1], 1) for name in names})

    covariates = recipe.apart(len(tasks))
    return Recipe(
        recipe.summary, each(recipe.build), BySeparating(recipe.train), None if covariates is None else each(covariates)
    )


def evaluate_each(
    learner: Learner, tasks: TaskDataset, shots: Sequence[int], **arguments: Any
) -> dict[str, Evaluation]:
    """The scores of each outcome at all points where it was measured, by name; shots are points that have it.

    `bm.evaluate` scores points that have all of their outcomes, of which there may be few. As the learners of
    `Separately` know nothing of each other, nothing is lost by scoring them one by one.

    Args:
        learner: `Separately`.
        tasks: held-out tasks.
        shots: numbers of support points.
        arguments: others of `bm.evaluate`.

    Raises:
        DataError: a learner of other outcomes; as `bm.evaluate`.

    Example:
        >>> import pandas as pd
        >>> import bayesmeta as bm
        >>> frame = pd.DataFrame({"who": list("aabb"), "u": [1.0, 2.0, 3.0, 5.0], "v": [4.0, None, 1.0, 2.0]})
        >>> tasks = bm.TaskDataset.from_frame(frame, task="who", x=[], y=["u", "v"])
        >>> learner = Separately({name: bm.ALPaCA(bm.Identity(0)) for name in "uv"})
        >>> found = evaluate_each(learner, tasks, [0], num_bootstrap=0)
        >>> {name: int(each.table()["points"].iloc[0]) for name, each in found.items()}
        {'u': 4, 'v': 3}
    """
    count = tasks.flat.y.shape[1] if tasks.flat.y.is_floating_point() else 0
    if not isinstance(learner, Separately) or len(learner.names) != count:
        raise DataError(f"expected Separately of {count} outcomes, got {learner.title} of {learner.outcomes}")
    pairs = enumerate(zip(learner.names, learner.learners, strict=True))
    return {name: evaluate(each, tasks.of_outcome(place), shots, **arguments) for place, (name, each) in pairs}
