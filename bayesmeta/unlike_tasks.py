"""What the command line keeps to tell tasks that are unlike those of the training, and what it says of them."""

from collections.abc import Hashable, Iterable

import numpy as np
import torch

from bayesmeta.checks.surprise import FEWEST, Surprise
from bayesmeta.learner import Learner
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.typing import ArrayLike

ALARM = 0.01  # p-value of a task that is named in a warning
REFERENCES = 200  # tasks that others are compared with, at most
REFERENCE_SHOTS = (1, 2, 3, 5, 10, 20)
MOST_NAMED = 10  # in one warning


def reference_tasks(
    learner: Learner, tasks: TaskDataset, held_out: TaskDataset | None = None, seed: int = 0
) -> Surprise | None:
    """What new tasks will be compared with: the held-out tasks, or all where these are too few for the alarm.

    Args:
        learner: a trained learner.
        tasks: all tasks.
        held_out: those that were not trained on.
        seed: of the choice of tasks and points.

    Returns:
        None where fewer than 10 tasks have two points.

    Raises:
        InferenceError: a log density is not a number.

    Example:
        >>> import bayesmeta as bm
        >>> simulator = bm.tasks.GPFunctions.eq()
        >>> reference_tasks(simulator.oracle, simulator.dataset(40, 3, seed=0))
        Surprise(40 tasks at 1, 40 tasks at 2 shots)
    """
    chosen = held_out if held_out is not None and len(held_out) >= 1.0 / ALARM - 1.0 else tasks
    order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(seed))[:REFERENCES]
    chosen = chosen.select(sorted(order.tolist()))
    shots = [shot for shot in REFERENCE_SHOTS if int((chosen.counts > shot).sum()) >= FEWEST]
    return Surprise.fit(learner, chosen, shots, seed=seed) if shots else None


def unlike(names: Iterable[Hashable], points: ArrayLike, p_values: ArrayLike, smallest: ArrayLike) -> str:
    """A sentence with the tasks that are unlike the reference tasks; empty where none is.

    Args:
        names: of the tasks.
        points: how many points each has; one without is not judged.
        p_values: of the tasks. One of .01 or less is named, or the smallest that the number of reference tasks allows.
        smallest: that p-value.

    Example:
        >>> unlike(["a", "b"], [5, 5], [0.004, 0.7], [0.004, 0.004])
        "1 of 2 tasks are unlike those that were learned from: 'a' (p = 0.004). By chance 0.02 would be."
    """
    names = list(names)
    points, p_values, level = np.asarray(points), np.asarray(p_values), np.maximum(ALARM, np.asarray(smallest))
    found = np.flatnonzero((points > 0) & (p_values <= level + 1e-12))
    if not len(found):
        return ""
    ordered = found[np.argsort(p_values[found], kind="stable")]
    named = ", ".join(f"{str(names[i])!r} (p = {p_values[i]:.2g})" for i in ordered[:MOST_NAMED])
    more = f" and {len(ordered) - MOST_NAMED} more" if len(ordered) > MOST_NAMED else ""
    return (
        f"{len(found)} of {int((points > 0).sum())} tasks are unlike those that were learned from: "
        f"{named}{more}. By chance {float(level[points > 0].sum()):.2g} would be."
    )
