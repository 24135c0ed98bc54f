"""Scores of more tasks than memory holds: what is added up are sums over tasks, as every score is a mean over them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from bayesmeta.arguments import shot_counts, some
from bayesmeta.errors import DataError
from bayesmeta.evaluation import metrics
from bayesmeta.evaluation.evaluate import evaluate
from bayesmeta.evaluation.scores import Evaluation, ShotScores, in_columns, with_half
from bayesmeta.learner import Learner
from bayesmeta.task_names import texts
from bayesmeta.tasks.parquet_tasks import ParquetTasks
from bayesmeta.tasks.source import RandomSplit, Split

if TYPE_CHECKING:
    import pandas as pd

ROWS = 2**18  # of the table at a time, about
QUANTILE = 1.959964  # of 95 % of a normal distribution


@dataclass
class Sums:
    """What is known of the scores of tasks at one number of shots.

    Attributes:
        tasks: how many there were.
        points: their query points.
        totals: of each score its sum over tasks, and that of its squares.
        squares: the sum of squared errors over all points.
        shares: of each level p the share of a task's points with F(y) <= p, summed over tasks; and that of its squares.
    """

    tasks: int = 0
    points: int = 0
    totals: dict[str, np.ndarray] = field(default_factory=dict)
    squares: float = 0.0
    shares: np.ndarray = field(default_factory=lambda: np.zeros((2, len(metrics.LEVELS))))

    def add(self, scores: ShotScores) -> None:
        """Count more tasks."""
        self.tasks += len(scores.names)
        self.points += int(scores.points.sum())
        for name, values in scores.scores.items():
            self.totals[name] = self.totals.get(name, np.zeros(2)) + np.array([values.sum(), (values**2).sum()])
        if "rmse" in scores.scores:
            self.squares += float((scores.scores["rmse"] ** 2 * scores.points).sum())
        if scores.pit is not None and scores.names:
            curve = scores.curve()
            self.shares = self.shares + np.stack([curve.sum(0), (curve**2).sum(0)])

    def averages(self) -> dict[str, tuple[float, float]]:
        """Of each score the mean over tasks, and its standard error."""
        found = {}
        for name, (total, squares) in self.totals.items():
            mean = total / self.tasks
            variance = max(squares / self.tasks - mean**2, 0.0) / max(self.tasks - 1, 1)
            found[name] = (float(mean), math.sqrt(variance) if self.tasks > 1 else math.nan)
            if name == "rmse":
                found["pooled_rmse"] = (math.sqrt(self.squares / self.points), math.nan)
        return found

    def calibration(self) -> dict[str, float]:
        """The calibration error of numbers, and what chance alone makes of it, as `ShotScores.calibration` has them."""
        if not self.shares.any():
            return {}
        observed = self.shares[0] / self.tasks
        variance = (self.shares[1] / self.tasks - observed**2).clip(min=0.0) / max(self.tasks - 1, 1)
        error = math.sqrt(((observed - np.array(metrics.LEVELS)) ** 2).mean())
        return {"calibration_error": error, "calibration_noise": math.sqrt(variance.mean())}


@dataclass(frozen=True)
class StreamedEvaluation:
    """The scores of many tasks, of which single tasks are not kept: `evaluate_stream` makes it.

    Attributes:
        sums: what is known at each number of shots.
        learner: the name of the learner's class.
        level: what `coverage` and `width` are about.
        outcomes: the names of the outcomes.
    """

    sums: dict[int, Sums]
    learner: str
    level: float
    outcomes: tuple[str, ...]

    def table(self) -> "pd.DataFrame":
        """One row for each number of shots, with the columns of `Evaluation.table`.

        `<column>_low` and `<column>_high` bound the 95 % interval of a column, mean ± 1.96 standard errors over tasks.
        """
        import pandas as pd

        rows = []
        for each in self.sums.values():
            row: dict[str, float] = {"tasks": each.tasks, "points": each.points}
            for name, (mean, error) in each.averages().items():
                row |= {name: mean, f"{name}_low": mean - QUANTILE * error, f"{name}_high": mean + QUANTILE * error}
            rows.append(row | each.calibration())
        return pd.DataFrame(rows, index=pd.Index(list(self.sums), name="shots"))

    def __str__(self) -> str:
        """A table of fixed width."""
        shown = {"nll": "NLL", "rmse": "RMSE", "crps": "CRPS", "coverage": f"coverage {100 * self.level:g} %"}
        shown |= {"width": "width", "accuracy": "accuracy", "brier": "Brier"}
        averages = {shots: each.averages() for shots, each in self.sums.items()}
        shown = {name: head for name, head in shown.items() if any(name in each for each in averages.values())}
        rows = []
        for shots, each in self.sums.items():
            row = [str(shots), str(each.tasks), str(each.points)]
            for name in shown:
                mean, error = averages[shots].get(name, (math.nan, math.nan))
                row.append(
                    with_half(mean, mean - QUANTILE * error, mean + QUANTILE * error) if name in averages[shots] else ""
                )
            rows.append(row)
        title = f"{self.learner}: estimate ± half the width of its 95 % interval over tasks"
        return f"{title}\n{in_columns(['shots', 'tasks', 'points', *shown.values()], rows)}"

    __repr__ = __str__


def evaluate_stream(
    learner: Learner,
    tasks: ParquetTasks,
    shots: Sequence[int] = (0, 1, 2, 5, 10),
    *,
    split: type[Split] = RandomSplit,
    level: float = 0.9,
    seed: int = 0,
    rows: int = ROWS,
    without: frozenset[str] = frozenset(),
) -> StreamedEvaluation:
    """As `bayesmeta.evaluate`, of tasks that are read some at a time and forgotten.

    Args:
        learner: what is judged.
        tasks: held-out tasks.
        shots: support points of a task.
        split: `RandomSplit`, or `PrefixSplit` for forecasting.
        level: probability of the central interval whose coverage and width are reported.
        seed: of the division into support and query.
        rows: of the table at a time, about.
        without: tasks that are left out, by the texts of their names.

    Raises:
        DataError: as for `evaluate`; no task with more points than the smallest number of shots.

    Example:
        >>> import tempfile
        >>> import pandas as pd
        >>> import bayesmeta as bm
        >>> tasks = bm.tasks.GPFunctions.eq().dataset(30, 12, seed=0)
        >>> frame = pd.DataFrame({"task": [i // 12 for i in range(360)]})
        >>> frame["x"], frame["y"] = tasks.flat.x.numpy(), tasks.flat.y.numpy()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     frame.to_parquet(f"{folder}/t.parquet")
        ...     streamed = bm.tasks.ParquetTasks.from_parquet(f"{folder}/t.parquet", task="task", x=["x"], y=["y"])
        ...     found = evaluate_stream(tasks.oracle, streamed, shots=[0, 5], rows=100)
        >>> found.table()[["tasks", "points"]].values.tolist()
        [[30, 210], [30, 210]]
    """
    shots = shot_counts(shots)
    sums = {each: Sums() for each in shots}
    for number, part in enumerate(tasks.parts(some(rows, "rows", "row"))):
        kept = [
            i
            for i, (text, count) in enumerate(zip(texts(part.names), part.counts.tolist(), strict=True))
            if text not in without and count > min(shots)
        ]
        if not kept:
            continue
        part = part if len(kept) == len(part) else part.select(kept)
        found: Evaluation = evaluate(
            learner, part, shots, split=split, level=level, num_bootstrap=0, seed=seed + number
        )
        for each in shots:
            sums[each].add(found.at(each))
    if not sums[min(shots)].tasks:
        raise DataError(f"expected tasks with more than {min(shots)} points that are not left out, got none")
    return StreamedEvaluation({n: each for n, each in sums.items() if each.tasks}, learner.title, level, tasks.schema.y)
