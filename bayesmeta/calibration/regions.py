"""How often conformal regions hold what comes, and how large they are, on held-out tasks."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmeta.data import Data
from bayesmeta.evaluation.bootstrap import resampled
from bayesmeta.evaluation.metrics import average
from bayesmeta.one_line import OneLine, several
from bayesmeta.tasks.dataset import TaskDataset

if TYPE_CHECKING:
    import pandas as pd

RESAMPLINGS = 1000  # of the tasks, for intervals


@dataclass(frozen=True, eq=False)
class RegionScores(OneLine):
    """Coverage and size of the regions of held-out tasks: what `evaluate` of a conformal object returns.

    Attributes:
        names: of the tasks.
        shots: support points of a task.
        level: the coverage that was asked for.
        points: query points of each task.
        coverage: the share of each task's query points that their regions hold (with several outputs, their average).
        size: the mean size of each task's regions: widths in units of y, or numbers of classes.
        measure: what size is: "width" or "classes".
        empty: the share of each task's label sets that hold no class; None for intervals.
        full: the share that hold every class of the task, and so rule nothing out; None for intervals. What sets of
            either kind mean, `ConformalPosterior.label_set` says.

    Example:
        >>> import bayesmeta as bm
        >>> simulator = bm.tasks.GPFunctions.eq()
        >>> calibration, held_out = (simulator.dataset(50, 10, seed=seed) for seed in (0, 1))
        >>> conformal = bm.calibration.HierarchicalConformal(simulator.oracle, calibration, shots=5)
        >>> scores = conformal.evaluate(held_out, level=0.8)
        >>> scores.table().columns.tolist()
        ['tasks', 'points', 'level', 'coverage', 'coverage_low', 'coverage_high', 'width', 'width_low', 'width_high']
        >>> abs(scores.table()["coverage"].item() - 0.8) < 0.1
        True
    """

    names: tuple[Hashable, ...]
    shots: int
    level: float
    points: np.ndarray
    coverage: np.ndarray
    size: np.ndarray
    measure: str
    empty: np.ndarray | None = None
    full: np.ndarray | None = None

    def __repr__(self) -> str:
        """One line."""
        found = ", ".join(f"{name} {values.mean():.3g}" for name, values in self._columns().items())
        return f"regions of {several(len(self.names), 'task')} at level {self.level:g}: {found}"

    def table(self) -> "pd.DataFrame":
        """One row: means over tasks, with 95 % intervals by the bootstrap over tasks (`_low`, `_high`)."""
        import pandas as pd

        row: dict[str, float] = {"tasks": len(self.names), "points": int(self.points.sum()), "level": self.level}
        for name, values in self._columns().items():
            averages = [weights @ values / weights.sum(1) for weights in resampled(len(values), RESAMPLINGS)]
            low, high = np.quantile(np.concatenate(averages), [0.025, 0.975], method="inverted_cdf")
            row |= {name: values.mean(), f"{name}_low": low, f"{name}_high": high}
        return pd.DataFrame([row], index=pd.Index([self.shots], name="shots"))

    def per_task(self) -> "pd.DataFrame":
        """One row for each task."""
        import pandas as pd

        return pd.DataFrame({"task": list(self.names), "points": self.points} | self._columns())

    def _columns(self) -> dict[str, np.ndarray]:
        """What is known of every task."""
        shares = {"empty": self.empty, "full": self.full}
        known = {name: values for name, values in shares.items() if values is not None}
        return {"coverage": self.coverage, self.measure: self.size} | known


def region_scores(
    tasks: TaskDataset,
    shots: int,
    level: float,
    parts: Iterable[tuple[Int[Tensor, "_"], dict[str, Tensor], Bool[Tensor, "B M"]]],
    measure: str,
) -> RegionScores:
    """The scores of regions that come a batch of tasks at a time.

    Args:
        tasks: all of them.
        shots: support points of a task.
        level: the coverage that was asked for.
        parts: positions of tasks, what is known of each region by the names of `RegionScores` (`coverage`, whether it
            holds the outcome, and `size`, both `B M C`; of label sets also `empty` and `full`), and the mask of the
            query points.
        measure: what sizes are.
    """
    positions, points, each = [], [], []
    for where, known, mask in parts:
        positions.append(where)
        points.append(mask.sum(-1).cpu())
        each.append({name: average(values, mask).cpu() for name, values in known.items()})
    order = torch.cat(positions).argsort()
    found = {name: torch.cat([known[name] for known in each])[order].numpy() for name in each[0]}
    return RegionScores(tasks.names, shots, level, torch.cat(points)[order].numpy(), measure=measure, **found)


def held_by_intervals(
    interval: tuple[Float[Tensor, "B M C"], Float[Tensor, "B M C"]], query: Data
) -> dict[str, Tensor]:
    """Which intervals hold the outcome, and how wide they are: what `region_scores` takes.

    Args:
        interval: lower and upper ends.
        query: the outcomes.
    """
    lower, upper = interval
    y = query.y.to(lower)
    return {"coverage": (y >= lower) & (y <= upper), "size": upper - lower}


def held_by_sets(sets: Bool[Tensor, "B M C"], possible: Bool[Tensor, "B M C"], query: Data) -> dict[str, Tensor]:
    """Which label sets hold the outcome, how many classes they have, which have none, and which all.

    Args:
        sets: which classes are in them.
        possible: which classes are any of the task's; tasks of a batch may differ in their ways.
        query: the outcomes.

    Example:
        >>> import bayesmeta as bm
        >>> sets = torch.tensor([[[True, False], [False, False], [True, True]]])
        >>> held = held_by_sets(sets, torch.ones_like(sets), bm.Data.from_labels([0.0, 0.1, 0.2], [0, 0, 1]))
        >>> {name: values.flatten().int().tolist() for name, values in held.items()}
        {'coverage': [1, 0, 1], 'size': [1, 0, 2], 'empty': [0, 1, 0], 'full': [0, 0, 1]}
    """
    y = torch.where(query.mask, query.y, 0)[..., None].to(sets.device)
    size = sets.sum(-1, keepdim=True)
    full = (sets | ~possible).all(-1, keepdim=True)
    return {"coverage": sets.gather(-1, y), "size": size, "empty": size == 0, "full": full}
