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

    def __repr__(self) -> str:
        """One line."""
        found = f"coverage {self.coverage.mean():.3g}, {self.measure} {self.size.mean():.3g}"
        return f"regions of {several(len(self.names), 'task')} at level {self.level:g}: {found}"

    def table(self) -> "pd.DataFrame":
        """One row: means over tasks, with 95 % intervals by the bootstrap over tasks (`_low`, `_high`)."""
        import pandas as pd

        row: dict[str, float] = {"tasks": len(self.names), "points": int(self.points.sum()), "level": self.level}
        for name, values in (("coverage", self.coverage), (self.measure, self.size)):
            averages = [weights @ values / weights.sum(1) for weights in resampled(len(values), RESAMPLINGS)]
            low, high = np.quantile(np.concatenate(averages), [0.025, 0.975], method="inverted_cdf")
            row |= {name: values.mean(), f"{name}_low": low, f"{name}_high": high}
        return pd.DataFrame([row], index=pd.Index([self.shots], name="shots"))

    def per_task(self) -> "pd.DataFrame":
        """One row for each task."""
        import pandas as pd

        columns = {"task": list(self.names), "points": self.points, "coverage": self.coverage, self.measure: self.size}
        return pd.DataFrame(columns)


def region_scores(
    tasks: TaskDataset,
    shots: int,
    level: float,
    parts: Iterable[tuple[Int[Tensor, "_"], tuple[Tensor, Tensor, Tensor]]],
    measure: str,
) -> RegionScores:
    """The scores of regions that come a batch of tasks at a time.

    Args:
        tasks: all of them.
        shots: support points of a task.
        level: the coverage that was asked for.
        parts: positions of tasks, with which regions hold the outcome, their sizes (of the same shape, `B M C`) and the
            mask of the query points.
        measure: what sizes are.
    """
    each = [
        (positions, average(held.double(), mask).cpu(), average(size, mask).cpu(), mask.sum(-1).cpu())
        for positions, (held, size, mask) in parts
    ]
    positions, *found = (torch.cat(values) for values in zip(*each, strict=True))
    coverage, size, points = (values[positions.argsort()].numpy() for values in found)
    return RegionScores(tasks.names, shots, level, points, coverage, size, measure)


def held_by_intervals(
    interval: tuple[Float[Tensor, "B M C"], Float[Tensor, "B M C"]], query: Data
) -> tuple[Tensor, Tensor, Tensor]:
    """Which intervals hold the outcome, how wide they are, and the mask: what `region_scores` takes."""
    lower, upper = interval
    y = query.y.to(lower)
    return (y >= lower) & (y <= upper), (upper - lower).double(), query.mask


def held_by_sets(sets: Bool[Tensor, "B M C"], query: Data) -> tuple[Tensor, Tensor, Tensor]:
    """Which label sets hold the outcome, how many classes they have, and the mask: what `region_scores` takes."""
    y = torch.where(query.mask, query.y, 0)[..., None].to(sets.device)
    return sets.gather(-1, y), sets.sum(-1, keepdim=True).double(), query.mask
