"""Where a trained learner stands, in sentences: its noise, how much tasks differ, what it says before it sees a row."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.arguments import generator_of
from bayesmeta.data import Data
from bayesmeta.errors import UnsupportedError
from bayesmeta.evaluation.held_out import HeldOut, predicted
from bayesmeta.learner import Learner
from bayesmeta.modes import settled
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.source import RandomSplit
from bayesmeta.tasks.table import Schema

MOST_TASKS, POINTS_OF_TASK = 200, 30  # at whose inputs the learner is asked
MOST_NAMED = 8  # classes
NOTHING = 1e-3  # of the deviation of an outcome: noise, or differences, that are next to nothing
UNEQUAL = 1.05  # ratio of deviations that are worth telling apart


@dataclass(frozen=True)
class Deviations:
    """What makes a row of a new task uncertain, by the prior predictive at rows of known tasks: standard deviations.

    Attributes:
        total: of an outcome, before any row of its task is known, `C`, units of y.
        between: of f, how tasks differ, `C`; None where the learner does not separate f from its noise.
        noise: how rows of one task scatter, `C`: the mean over these points; None where `between` is.
        lowest: the 5 % quantile of the noise over these points, `C`.
        highest: the 95 % quantile, `C`.

    Example:
        >>> import bayesmeta as bm
        >>> simulator = bm.tasks.GPFunctions.eq()
        >>> found = deviations(simulator.oracle, simulator.dataset(20, 8, seed=0))
        >>> round(found.between.item(), 2), round(found.noise.item(), 2)
        (1.0, 0.22)
    """

    total: Float[Tensor, "C"]
    between: Float[Tensor, "C"] | None = None
    noise: Float[Tensor, "C"] | None = None
    lowest: Float[Tensor, "C"] | None = None
    highest: Float[Tensor, "C"] | None = None


@settled
def standing(learner: Learner, tasks: TaskDataset, schema: Schema, seed: int = 0) -> list[str]:
    """A line for each outcome: noise and how much tasks differ, or the class probabilities of a task without rows.

    Args:
        learner: a trained learner.
        tasks: tasks of its table.
        schema: the columns' names.
        seed: of the choice of tasks and rows, where there are many.

    Example:
        >>> import pandas as pd
        >>> import bayesmeta as bm
        >>> y = [5.0, 4.0, 3.1, 6.0, 5.5, 5.1, 4.2, 3.1, 2.4]
        >>> frame = pd.DataFrame({"cell": list("aaabbbccc"), "t": [0, 1, 2] * 3, "charge": y})
        >>> tasks = bm.TaskDataset.from_frame(frame, task="cell", x=["t"], y="charge")
        >>> learner = bm.Standardized(bm.ALPaCA(bm.Identity(1))).double()
        >>> _ = bm.fit_evidence(learner, tasks)
        >>> standing(learner, tasks, tasks.schema)
        ['charge: noise 0.100, tasks differ by 0.967 (standard deviations, in its unit)']
    """
    chosen = _some(tasks, seed)
    if schema.classes:
        return [_base_rates(learner, chosen, schema, seed)]
    found = deviations(learner, chosen, seed)
    spread = torch.stack([each[each.isfinite()].std() for each in chosen.flat.y.double().T])  # some may be missing
    return [f"{name}: {_sentence(found, spread, place)}" for place, name in enumerate(schema.y)]


@settled
def deviations(learner: Learner, tasks: TaskDataset, seed: int = 0) -> Deviations:
    """What makes a row of a new task uncertain, at 30 rows of each task, or all.

    Args:
        learner: one of numbers.
        tasks: at whose inputs it is asked.
        seed: of the choice of rows.

    Example:
        >>> import bayesmeta as bm
        >>> simulator = bm.tasks.GPFunctions.eq()
        >>> deviations(bm.ConditionalNeuralProcess(bm.MLP(1, [8])), simulator.dataset(20, 8, seed=0)).noise is None
        True
    """
    total, between = [], []
    for part in _priors(learner, tasks, seed):
        total.append(part.predictive.variance[part.mask].double().cpu())
        try:
            between.append(part.predictive.noiseless.variance[part.mask].double().cpu())
        except UnsupportedError:
            continue
    totals = torch.cat(total)
    if len(between) < len(total):
        return Deviations(totals.mean(0).sqrt())
    differences = torch.cat(between)
    noise = (totals - differences).clamp(min=0.0)
    lowest, highest = noise.sqrt().quantile(torch.tensor([0.05, 0.95], dtype=torch.float64), dim=0)
    return Deviations(totals.mean(0).sqrt(), differences.mean(0).sqrt(), noise.mean(0).sqrt(), lowest, highest)


def _some(tasks: TaskDataset, seed: int) -> TaskDataset:
    """At most 200 of the tasks, drawn at random."""
    if len(tasks) <= MOST_TASKS:
        return tasks
    return tasks.select(sorted(torch.randperm(len(tasks), generator=generator_of(seed))[:MOST_TASKS].tolist()))


def _priors(learner: Learner, tasks: TaskDataset, seed: int) -> Iterator[HeldOut]:
    """Predictions of rows of each task, some tasks at a time, as if none of its rows was known."""
    learner = learner.frozen()
    for _, part in tasks.by_length():
        divided = part.divided(RandomSplit.at(0, POINTS_OF_TASK), seed)
        yield from predicted(learner, Data.empty(divided.query), divided.query)


def _sentence(found: Deviations, spread: Float[Tensor, "C"], place: int) -> str:
    total = found.total[place].item()
    if found.noise is None or found.between is None or found.lowest is None or found.highest is None:
        return (
            f"predicted to {_number(total)} before any row of a task is known (standard deviation, in its unit); this "
            "method does not tell noise from how tasks differ"
        )
    noise, between = found.noise[place].item(), found.between[place].item()
    low, high = found.lowest[place].item(), found.highest[place].item()
    said = f"noise {_number(noise)}"
    if high > UNEQUAL * low:
        said = f"noise {_number(low)} to {_number(high)}"
    if between == 0.0:
        said += " (standard deviation, in its unit); how much tasks differ is in the steps of the method, and no number"
    else:
        said += f", tasks differ by {_number(between)} (standard deviations, in its unit)"
    scale = spread[place].item()
    if noise < NOTHING * scale:
        return f"{said}: next to no noise is left, so that a task is predicted through its rows"
    if 0.0 < between < NOTHING * scale:
        return f"{said}: tasks hardly differ, so that rows of a task say next to nothing of its others"
    return said


def _base_rates(learner: Learner, tasks: TaskDataset, schema: Schema, seed: int) -> str:
    """The class probabilities of a task without rows, beside the frequencies."""
    probs, labels = [], []
    for part in _priors(learner, tasks, seed):
        probs.append(part.predictive.probs[part.mask].double().cpu())
        labels.append(part.y[part.mask].cpu())
    mean, count = torch.cat(probs).mean(0).tolist(), len(schema.classes)
    rates = (torch.bincount(torch.cat(labels), minlength=count) / sum(map(len, labels))).tolist()
    order = sorted(range(count), key=lambda i: -rates[i])[:MOST_NAMED]
    each = ", ".join(f"{schema.classes[i]} {mean[i]:.2f} ({rates[i]:.2f})" for i in order)
    more = f" and {count - MOST_NAMED} more" if count > MOST_NAMED else ""
    return f"{schema.y[0]}: before a row of a task is known, probabilities (and frequencies) are {each}{more}"


def _number(value: float) -> str:
    """Three digits, without an exponent where that is short."""
    if value == 0.0 or not math.isfinite(value):
        return f"{value:g}"
    digits = 2 - math.floor(math.log10(value))
    return f"{value:.3g}" if not -6 < 2 - digits < 6 else f"{round(value, digits):.{max(digits, 0)}f}"
