"""Which tasks a report draws, along which input, and at which numbers of shots."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from bayesmeta.data import Data
from bayesmeta.evaluation.conclusions import main_shots
from bayesmeta.evaluation.scores import Evaluation
from bayesmeta.flat import FlatData
from bayesmeta.learner import Learner
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.source import Split

MOST_PANELS = 4  # of one task, each at another number of shots


class Example(NamedTuple):
    """A task that is drawn.

    Attributes:
        why: what it is an example of.
        name: the user's name of the task.
        points: its points in the order in which the evaluation took them.
        shots: numbers of support points.
        learner: what predicts it.
    """

    why: str
    name: Hashable
    points: Data
    shots: tuple[int, ...]
    learner: Learner


def examples_of(
    parts: Sequence[tuple[TaskDataset, Learner]],
    evaluation: Evaluation,
    split: type[Split],
    query: int | None,
    number: int,
) -> tuple[Example, ...]:
    """Tasks from the worst to the best.

    Args:
        parts: tasks that were evaluated, and by which learner: one part, or the folds of a cross-validation.
        evaluation: of all of them.
        split: as `evaluate` had it.
        query: as `evaluate` had it.
        number: how many.
    """
    main = evaluation.at(main_shots(evaluation))
    order = np.argsort(-main.scores["nll"], kind="stable")
    chosen = []
    for place in spread_out(len(order), number):
        name = main.names[order[place]]
        why = {0: "Worst", len(order) - 1: "Best"}.get(place, f"Rank {place + 1} of {len(order)} from the worst")
        if place == (len(order) - 1) // 2 and 0 < place < len(order) - 1:
            why = "Typical"
        tasks, learner = next(part for part in parts if name in part[0].names)
        row = tasks.names.index(name)
        room = int(split.room(tasks.task(name)))
        fitting = sorted(shots for shots in evaluation.shots if shots <= room)
        points = tasks.divided_task(row, split.at(fitting[-1], query), evaluation.seed).joined()
        shown = tuple(fitting[i] for i in spread_out(len(fitting), MOST_PANELS))
        chosen.append(Example(why, name, points.points(points.mask[0]), shown, learner))
    return tuple(chosen)


def spread_out(count: int, number: int) -> list[int]:
    """Up to `number` different places among `count`, the first and the last with them."""
    return sorted({round(place) for place in np.linspace(0, count - 1, min(number, count))})


def varying_input(data: FlatData) -> int | None:
    """The one input that varies within tasks; None where there are several, or where inputs are not numbers."""
    if data.x.ndim != 2 or data.x.shape[-1] == 0:
        return None
    first = data.x[data.offsets[:-1].repeat_interleave(data.counts)]
    varying = (data.x != first).any(0).nonzero().flatten().tolist()
    if len(varying) > 1:
        return None
    return varying[0] if varying else 0
