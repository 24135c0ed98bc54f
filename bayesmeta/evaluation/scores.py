"""The scores of a learner on held-out tasks, as a value: tables, single tasks, the worst ones."""

import html
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from bayesmeta.errors import DataError
from bayesmeta.evaluation import metrics
from bayesmeta.evaluation.bootstrap import resampled

if TYPE_CHECKING:
    import pandas as pd

MANY_DIGITS = 1e7  # numbers from here on are printed as powers of ten
POINT_VALUES = ("log_density", "pit", "confidence", "correct", "label", "predicted")
"""What there is of each point, not of each task."""

# In units of the outcome: of several outcomes together they mean nothing
OF_ONE_OUTCOME = ("rmse", "mae", "crps", "width", "sharpness")

_HIGHER_IS_BETTER = ("accuracy", "none_auroc", "max_prob_auroc")


@dataclass(frozen=True, eq=False)
class ShotScores:
    """Scores of every task at one number of support points, which `Evaluation.at` gives.

    T tasks, P query points of all tasks together (those of the first task come first), C outputs.

    Attributes:
        shots: support points of a task (of each of its classes, where the split was a `ClassSplit`).
        names: the tasks that have more points than that.
        points: `T`, query points of each task.
        scores: `T` for each score, see `Evaluation.table`.
        pit: `P C`, F(y) of each query point; None for a classifier.
        confidence: `P`, probability of the most probable class; None in regression.
        correct: `P`, whether the most probable class was right; None in regression.
        label: `P`, the class that came; None in regression.
        predicted: `P`, the most probable class; None in regression.
        log_density: `P`, of each query point on its own, all its outcomes together, nats.
        by_outcome: of several outcomes the scores of each, `T` for each score; empty for one outcome.

    Example:
        >>> import bayesmeta as bm
        >>> simulator = bm.tasks.GPFunctions.eq()
        >>> scores = bm.evaluate(simulator.oracle, simulator.dataset(30, 12, seed=0), shots=[5]).at(5)
        >>> scores.scores["nll"].shape, scores.pit.shape
        ((30,), (210, 1))
        >>> len(np.split(scores.pit, scores.starts[1:]))  # task by task
        30
        >>> calibration = scores.calibration()  # the oracle is calibrated: what is left is chance
        >>> calibration["calibration_error"] < 3.0 * calibration["calibration_noise"]
        True
    """

    shots: int
    names: tuple[Hashable, ...]
    points: np.ndarray
    scores: dict[str, np.ndarray]
    pit: np.ndarray | None = None
    confidence: np.ndarray | None = None
    correct: np.ndarray | None = None
    label: np.ndarray | None = None
    predicted: np.ndarray | None = None
    log_density: np.ndarray | None = None
    by_outcome: tuple[dict[str, np.ndarray], ...] = ()

    @property
    def starts(self) -> np.ndarray:
        """The place in `pit`, and in what there is of each point of a classifier, at which each task begins, `T`."""
        return np.cumsum(self.points) - self.points

    def means(self, values: np.ndarray) -> np.ndarray:
        """The mean over the points of each task, `T *c`, of values `P *c`."""
        if not len(self.points):
            return np.zeros((0, *values.shape[1:]))
        sums = np.add.reduceat(values.astype(float), self.starts)
        return sums / self.points.reshape(-1, *[1] * (values.ndim - 1))

    def curve(self) -> np.ndarray:
        """The share of each task's points with F(y) <= p, for each p of `metrics.LEVELS`: `T L`.

        Its mean over tasks is what a reliability diagram draws, and what it rises by between two levels is coverage.
        """
        assert self.pit is not None
        return np.stack([self.means((self.pit <= level).mean(-1)) for level in metrics.LEVELS], -1)

    def bins(self, bins: int = 15) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each task and bin of confidence the shares of points, of right answers, and of confidence: `T K`.

        All three are divided by the number of the task's points, so that means over tasks count every task alike.
        """
        assert self.confidence is not None
        assert self.correct is not None
        chosen = metrics.confidence_bin(torch.from_numpy(self.confidence), bins).numpy()
        cell = np.repeat(np.arange(len(self.points)), self.points) * bins + chosen
        shape = (len(self.points), bins)
        weights = (None, self.correct.astype(float), self.confidence)
        count, hits, total = (np.bincount(cell, each, shape[0] * bins).reshape(shape).astype(float) for each in weights)
        each = np.maximum(self.points, 1)[:, None]
        return count / each, hits / each, total / each

    def averages(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Averages of the scores, `R` each, for R weightings of the tasks.

        Args:
            weights: `R T`: all ones, or the counts of a bootstrap.
        """
        columns = {}
        for name, value in self.scores.items():
            columns[name] = _weighted_mean(weights, value)
            if name == "rmse":
                columns["pooled_rmse"] = np.sqrt(_weighted_mean(weights * self.points, value**2))
        return columns

    @classmethod
    def joined(cls, parts: Sequence["ShotScores"], order: Sequence[Hashable]) -> "ShotScores":
        """The scores of several groups of tasks at one number of shots as those of all.

        Args:
            parts: of groups that have no task in common.
            order: names of tasks, in the order in which they come.

        Example:
            >>> import bayesmeta as bm
            >>> simulator = bm.tasks.GPFunctions.eq()
            >>> tasks = simulator.dataset(5, 12, seed=0)
            >>> halves = [bm.evaluate(simulator.oracle, tasks.select(each), [3]).at(3) for each in ([4, 1, 3], [0, 2])]
            >>> ShotScores.joined(halves, tasks.names).names
            (0, 1, 2, 3, 4)
        """
        parts = [part for part in parts if part.names] or list(parts[:1])
        names = [name for part in parts for name in part.names]
        place = {name: i for i, name in enumerate(order)}
        rows = np.argsort([place[name] for name in names], kind="stable")
        points = np.concatenate([part.points for part in parts])
        starts = np.cumsum(points) - points
        of_points = np.concatenate([np.arange(starts[i], starts[i] + points[i]) for i in rows] or [points]).astype(int)
        values = {}
        for name in POINT_VALUES:
            given = [value for value in (getattr(part, name) for part in parts) if value is not None]
            values[name] = np.concatenate(given)[of_points] if given else None

        def scores(each: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
            return {name: np.concatenate([one[name] for one in each])[rows] for name in each[0]}

        return cls(
            parts[0].shots,
            tuple(names[i] for i in rows),
            points[rows],
            scores([part.scores for part in parts]),
            by_outcome=tuple(scores(each) for each in zip(*(part.by_outcome for part in parts), strict=True)),
            **values,
        )

    def of(self, outcome: int) -> "ShotScores":
        """The scores of one outcome among several.

        Args:
            outcome: its place.
        """
        assert self.pit is not None
        return replace(
            self,
            scores=self.by_outcome[outcome],
            by_outcome=(),
            log_density=None,
            pit=self.pit[:, outcome : outcome + 1],
        )

    def calibration(self) -> dict[str, float]:
        """Calibration errors of shares that are means over tasks, and the size that chance alone gives them.

        Bootstrapping a distance from zero only adds to it, so these have no interval. The noise is about the error that
        a calibrated learner would show, given how much the tasks differ: an error means something well above it.
        """
        if not self.names:
            return {}
        tasks = len(self.names)
        small = tasks / (tasks - 1.0) if tasks > 1 else np.nan
        if self.pit is not None:
            levels = np.array(metrics.LEVELS)
            curve = self.curve()
            observed = curve.mean(0)
            # Var p̂_j = Σ_t (p̂_tj - p̂_j)² / T²: whole tasks are what is independent
            variance = small * ((curve - observed) ** 2).sum(0) / tasks**2
            error, noise = np.sqrt(((observed - levels) ** 2).mean()), np.sqrt(variance.mean())
            return {"calibration_error": float(error), "calibration_noise": float(noise)}
        count, hits, sums = self.bins()
        gaps = (hits - sums).mean(0)
        # of a mean of zero and deviation s_k the expected size is sqrt(2/π) s_k
        share = np.divide(count, count.sum(0), out=np.zeros_like(count), where=count.sum(0) > 0)
        deviation = np.sqrt(small * ((hits - sums - share * gaps * tasks) ** 2).sum(0)) / tasks
        return {"ece": float(np.abs(gaps).sum()), "ece_noise": float(np.sqrt(2.0 / np.pi) * deviation.sum())}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How a learner did on held-out tasks, for each number of support points.

    Printing it shows the main columns with half the width of their 95 % task-bootstrap interval; `table()` has all of
    them, `per_task()` every task, `worst()` the tasks to look at first.

    Attributes:
        results: one `ShotScores` for each number of shots.
        learner: the name of the learner's class.
        level: what `coverage` and `width` are about.
        num_bootstrap: resamplings of the tasks.
        seed: of the division into support and query, and of the bootstrap.
        unseen: classes of each task that its support did not show.
        classes: the names of the classes, where the tasks came from a table that has them.
        outcomes: the names of the outcomes: columns of a table, or y, or y1, y2.

    Example:
        >>> import bayesmeta as bm
        >>> simulator = bm.tasks.GPFunctions.eq()
        >>> evaluation = bm.evaluate(simulator.oracle, simulator.dataset(30, 12, seed=0), shots=[0, 5])
        >>> evaluation.shots, len(evaluation.per_task(5))
        ((0, 5), 30)
        >>> bool(evaluation.worst(1)["nll"].item() == evaluation.per_task(5)["nll"].max())
        True
    """

    results: tuple[ShotScores, ...]
    learner: str
    level: float
    num_bootstrap: int
    seed: int
    unseen: int = 0
    classes: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ("y",)

    @property
    def shots(self) -> tuple[int, ...]:
        """The numbers of support points."""
        return tuple(result.shots for result in self.results)

    def at(self, shots: int) -> ShotScores:
        """The scores at one number of shots. Raises DataError for one that was not evaluated."""
        for result in self.results:
            if result.shots == shots:
                return result
        raise DataError(f"expected one of the evaluated numbers of shots {list(self.shots)}, got {shots}")

    def table(self) -> "pd.DataFrame":
        """One row for each number of shots; `<column>_low` and `<column>_high` bound the 95 % interval of a column.

        The interval is the percentile bootstrap over tasks, NaN for a single task: points of one task are dependent,
        so tasks are what is resampled (of more than 10,000, as many bags of them). With few tasks such intervals are
        too short.

        Every score of a task is a mean over its points, and every number of the table a mean over tasks, so that tasks
        count alike, as new ones will; `pooled_rmse` alone is over all points at once.

        | column | what |
        |---|---|
        | tasks, points | tasks with more points than shots; their query points |
        | nll | -log density of a point on its own, nats per point |
        | joint_nll | -joint log density of a task's query points, nats per point |
        | rmse, pooled_rmse | root mean squared error of a task, units of y; that over all points at once |
        | mae, crps | absolute error of the median; continuous ranked probability score, units of y |
        | coverage, width | of the central interval of probability `level`; width in units of y |
        | sharpness | predictive variance, squared units of y |
        | task_calibration_error | root mean square definition within each task: it has a floor well above 0 |
        | calibration_error | that of the mean over tasks of the shares of points with F(y) <= p; no interval |
        | calibration_noise | what chance alone makes of it, for a calibrated learner |
        | oracle_nll, oracle_task_calibration_error | the same scores of the exact Bayes predictive |
        | regret | nll - oracle_nll, nats per point |
        | floor | regret of the Gaussian that has the oracle's mean and variance |
        | accuracy | classifiers: share of right answers |
        | brier | classifiers: Brier score, 0 to 2 |
        | none_auroc | `unseen` classes told from the others of a task by an `OpenSetPredictive`: .5 is chance |
        | max_prob_auroc | the same by 1 - the largest class probability, which every classifier has |
        | ece, ece_noise | classifiers: expected calibration error, 15 bins, and what chance makes of it |

        Of several outcomes densities are joint, and shares and calibration means over outcomes; what is in units of an
        outcome is left out, and in the tables of `by_outcome`.
        """
        import pandas as pd

        rows = []
        for result in self.results:
            row: dict[str, float] = {"tasks": len(result.names), "points": int(result.points.sum())}
            for name, (estimate, low, high) in self._intervals(result).items():
                row |= {name: estimate, f"{name}_low": low, f"{name}_high": high}
            rows.append(row | result.calibration())
        return pd.DataFrame(rows, index=pd.Index(self.shots, name="shots"))

    def by_outcome(self) -> dict[str, "Evaluation"]:
        """The scores of each outcome by its name; of a single one they are all that there are.

        Example:
            >>> import numpy as np
            >>> import pandas as pd
            >>> import bayesmeta as bm
            >>> frame = pd.DataFrame({"who": np.arange(40) // 5, "day": np.arange(40) % 5})
            >>> frame["weight"], frame["pulse"] = frame.who + frame.day, 60.0 - frame.day
            >>> tasks = bm.TaskDataset.from_frame(frame, task="who", x=["day"], y=["weight", "pulse"])
            >>> learner = bm.Standardized(bm.ALPaCA(bm.Identity(1), num_outputs=2)).double()
            >>> learner.prepare(tasks.data)
            >>> evaluation = bm.evaluate(learner, tasks, shots=[2], num_bootstrap=0)
            >>> {name: "rmse" in each.table() for name, each in evaluation.by_outcome().items()}
            {'weight': True, 'pulse': True}
            >>> "rmse" in evaluation.table()
            False
        """
        if len(self.outcomes) < 2:
            return dict.fromkeys(self.outcomes, self)
        empty = [ShotScores(result.shots, (), result.points, {}) for result in self.results]
        return {
            name: replace(
                self,
                results=tuple(
                    result.of(place) if result.names else none for result, none in zip(self.results, empty, strict=True)
                ),
                learner=f"{self.learner}, {name}",
                outcomes=(name,),
            )
            for place, name in enumerate(self.outcomes)
        }

    def all_tables(self) -> "pd.DataFrame":
        """`table` and, of several outcomes, that of each below it: one row for each outcome and number of shots.

        Of a single outcome it is `table`.
        """
        import pandas as pd

        if len(self.outcomes) < 2:
            return self.table()
        parts = {"all": self.table()} | {name: each.table() for name, each in self.by_outcome().items()}
        return pd.concat(parts, names=["outcome"])

    def per_task(self, shots: int | None = None) -> "pd.DataFrame":
        """One row for each task and number of shots, with the task's own scores.

        Args:
            shots: one number of shots; all of them by default.

        Raises:
            DataError: a number of shots that was not evaluated.
        """
        import pandas as pd

        chosen = [r for r in self.results if r.names] if shots is None else [self.at(shots)]
        heads = ({"shots": r.shots, "task": list(r.names), "points": r.points} for r in chosen)
        return pd.concat([pd.DataFrame(h | r.scores) for h, r in zip(heads, chosen, strict=True)], ignore_index=True)

    def confusion(self, shots: int | None = None) -> "pd.DataFrame":
        """How many query points of each class (rows) were predicted as each (columns), all tasks together.

        Args:
            shots: the number of shots; by default the largest for which there are tasks.

        Returns:
            Classes go by their names, where the tasks came from a table with names, and else by their labels.

        Raises:
            DataError: outcomes that are numbers, an unknown number of shots, or one without tasks.

        Example:
            >>> import pandas as pd
            >>> import bayesmeta as bm
            >>> pain = ["none", "mild", "none"] * 2
            >>> frame = pd.DataFrame({"who": list("aaabbb"), "day": [0, 1, 2] * 2, "pain": pain})
            >>> tasks = bm.TaskDataset.from_frame(frame, task="who", x=["day"], y="pain")
            >>> found = bm.evaluate(bm.R2D2(bm.MLP(1, [8]), num_classes=2), tasks, shots=[0]).confusion()
            >>> found.index.tolist(), found.sum(axis=1).tolist()
            (['mild', 'none'], [2, 4])
        """
        import pandas as pd

        result = self._largest() if shots is None else self.at(shots)
        if result.label is None or result.predicted is None:
            raise DataError("expected outcomes that are classes, got numbers, or no task at this number of shots")
        count = len(self.classes) or int(max(result.label.max(), result.predicted.max())) + 1
        names = pd.Index(self.classes or range(count), dtype=object if self.classes else None)
        table = np.bincount(result.label * count + result.predicted, minlength=count * count).reshape(count, count)
        return pd.DataFrame(table, index=names.rename("class"), columns=names.rename("predicted"))

    def _largest(self) -> ShotScores:
        """The largest number of shots for which there are tasks."""
        return self.at(max(result.shots for result in self.results if result.names))

    def worst(self, k: int = 5, shots: int | None = None, by: str = "nll") -> "pd.DataFrame":
        """The k tasks of the highest score `by` (of the lowest accuracy or AUROC) at one number of shots.

        Args:
            k: how many tasks.
            shots: the number of shots; by default the largest for which there are tasks.
            by: the score, a column of `per_task`.

        Raises:
            DataError: an unknown score or number of shots, or k below 1.
        """
        if k < 1:
            raise DataError(f"expected at least one task, got k = {k}")
        result = self._largest() if shots is None else self.at(shots)
        if by not in result.scores:
            raise DataError(f"expected one of the scores {list(result.scores)}, got {by!r}")
        frame = self.per_task(result.shots).sort_values(by, ascending=by in _HIGHER_IS_BETTER, kind="stable")
        return frame.head(k).reset_index(drop=True)

    def __str__(self) -> str:
        """A table of fixed width; of several outcomes that of each follows."""
        if len(self.outcomes) > 1:
            return "\n\n".join([self._as_text(), *(each._as_text() for each in self.by_outcome().values())])
        return self._as_text()

    def _as_text(self) -> str:
        return f"{self._title()}\n{in_columns(*self._cells())}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        others = list(self.by_outcome().values()) if len(self.outcomes) > 1 else []
        return "".join(each._as_html() for each in (self, *others))

    def _as_html(self) -> str:
        heads, rows = self._cells()
        top = "".join(f"<th>{html.escape(head)}</th>" for head in heads)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        caption = f"<caption>{html.escape(self._title())}</caption>"
        return f"<table>{caption}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"

    def _title(self) -> str:
        left_out = f", {self.unseen} class{'es' * (self.unseen > 1)} of each task not shown" if self.unseen else ""
        return f"{self.learner}{left_out}: estimate ± half the width of its 95 % bootstrap interval over tasks"

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        shown = {
            "nll": "NLL",
            "rmse": "RMSE",
            "crps": "CRPS",
            "coverage": f"coverage {100 * self.level:g} %",
            "width": "width",
            "accuracy": "accuracy",
            "brier": "Brier",
            "none_auroc": "AUROC none of these",
            "max_prob_auroc": "AUROC max. prob.",
            "regret": "regret",
            "floor": "floor",
        }
        errors = {"calibration_error": "calib. error (noise)", "ece": "ECE (noise)"}
        averages = [self._intervals(result) for result in self.results]
        calibrations = [result.calibration() for result in self.results]
        shown = {name: head for name, head in shown.items() if any(name in average for average in averages)}
        errors = {name: head for name, head in errors.items() if any(name in value for value in calibrations)}
        rows = []
        for result, average, calibration in zip(self.results, averages, calibrations, strict=True):
            row = [str(result.shots), str(len(result.names)), str(int(result.points.sum()))]
            row += [with_half(*average[name]) if name in average else "" for name in shown]
            row += ["{:.3f} ({:.3f})".format(*calibration.values()) if name in calibration else "" for name in errors]
            rows.append(row)
        return ["shots", "tasks", "points", *shown.values(), *errors.values()], rows

    def _intervals(self, result: ShotScores) -> dict[str, tuple[float, float, float]]:
        """Estimate, lower and upper end of every average."""
        tasks = len(result.names)
        estimate = result.averages(np.ones((1, tasks)))
        if tasks < 2 or self.num_bootstrap < 1:
            return {name: (float(value[0]), np.nan, np.nan) for name, value in estimate.items()}
        drawn: dict[str, list[np.ndarray]] = {name: [] for name in estimate}
        for weights in resampled(tasks, self.num_bootstrap, self.seed):
            for name, value in result.averages(weights).items():
                drawn[name].append(value)
        intervals = {}
        for name, value in ((name, np.concatenate(values)) for name, values in drawn.items()):
            low, high = np.quantile(value, [0.025, 0.975], method="inverted_cdf")  # infinite scores must not mix
            intervals[name] = (float(estimate[name][0]), float(low), float(high))
        return intervals


def _weighted_mean(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Σ_t w_t v_t / Σ_t w_t for each row of weights `R T`; an infinite score counts where its weight is positive."""
    with np.errstate(invalid="ignore"):  # no tasks: 0/0 is NaN, and meant
        mean = weights @ np.where(np.isfinite(values), values, 0.0) / weights.sum(-1)
    for infinity in {np.inf, -np.inf} & set(values[np.isinf(values)].tolist()):
        mean = np.where((weights > 0.0) @ (values == infinity), infinity, mean)
    return mean


def with_half(estimate: float, low: float, high: float) -> str:
    """An estimate with half the width of its interval, and the digits that this bears.

    Example:
        >>> with_half(1.23456, 1.1, 1.3), with_half(1.23456, float("nan"), float("nan"))
        ('1.23 ± 0.10', '1.235')
    """
    half = 0.5 * (high - low)
    if not (np.isfinite(estimate) and np.isfinite(half) and half > 1e-12 * abs(estimate)):
        return f"{estimate:.4g}"
    if abs(estimate) + half >= MANY_DIGITS:
        return f"{estimate:.3g} ± {half:.2g}"
    decimals = int(np.clip(1 - np.floor(np.log10(half)), 0, 4))  # two significant digits of the uncertainty
    return f"{estimate:.{decimals}f} ± {half:.{decimals}f}"


def in_columns(heads: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = ()) -> str:
    r"""A table of fixed width.

    Args:
        heads: of the columns.
        rows: cells.
        left: columns that begin at one place; the others end at one.

    Example:
        >>> print(in_columns(["shots", "learner"], [["10", "line"]], left=[1]))
        shots  learner
           10  line
    """
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in (heads, *rows)
    ]
    return "\n".join(line.rstrip() for line in lines)
