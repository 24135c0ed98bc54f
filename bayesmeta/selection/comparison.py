"""What a cross-validation says of several learners: scores, paired differences with intervals, sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bayesmeta.arguments import seed_of, whole
from bayesmeta.errors import DataError
from bayesmeta.evaluation.bootstrap import resampled
from bayesmeta.one_line import OneLine, several
from bayesmeta.selection.cross_validation import Factory, HeldOutDensities, OneSplit, cross_validated
from bayesmeta.tasks.dataset import TaskDataset, naming_columns
from bayesmeta.tasks.source import RandomSplit, Split

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.05  # of wrong verdicts, all candidates at one number of shots together


@dataclass(frozen=True, eq=False)
class Comparison(OneLine):
    """Several learners on tasks that they were not trained on, each task counted once: what `bm.compare` gives.

    Differences are paired: the same task, support and query points under both learners, so that what is hard for all
    cancels. Tasks are what is independent, and what intervals are over; the folds share most of their training tasks,
    which makes intervals a little too short.

    Attributes:
        held_out: the log density of each held-out point under each learner.
        num_bootstrap: resamplings of the tasks.
        seed: of the folds, the divisions and the bootstrap.

    Example:
        >>> import bayesmeta as bm
        >>> simulator = bm.tasks.GPFunctions.eq()
        >>> flat = bm.ALPaCA(bm.Identity(1)).double()
        >>> learners = {"truth": lambda tasks: simulator.oracle, "line": lambda tasks: flat}
        >>> comparison = bm.compare(learners, simulator.dataset(20, 12, seed=0), shots=[5], folds=2)
        >>> comparison
        comparison of 2 learners on 20 tasks at 5 shots: truth is best
        >>> bool(comparison.table().loc[(5, "line"), "difference"] < 0.0)
        True
        >>> print(comparison.conclusions[0].split(",")[0])
        At 5 shots truth predicts best
    """

    held_out: HeldOutDensities
    num_bootstrap: int = 2_000
    seed: int = 0

    def __repr__(self) -> str:
        """One line."""
        held_out, places = self.held_out, range(len(self.held_out.shots))
        count, tasks = several(len(held_out.candidates), "learner"), several(len(held_out.names), "task")
        is_told = all(
            not self._rivals(place) and held_out.candidates[self._best(place)] == self.best for place in places
        )
        shots = ", ".join(str(shot) for shot in held_out.shots)
        verdict = "is best" if is_told else "is ahead, but not beyond doubt"
        return f"comparison of {count} on {tasks} at {shots} shots: {self.best} {verdict}"

    @property
    def best(self) -> str:
        """The candidate with the highest density, the mean over all numbers of shots: a guess where differences are
        within their intervals.
        """
        means = np.stack([self._means(place) for place in range(len(self.held_out.shots))])
        return self.held_out.candidates[int(means.mean(0).argmax())]

    def table(self) -> "pd.DataFrame":
        """One row for each number of shots and candidate, the best first.

        | column | what |
        |---|---|
        | tasks | with more points than shots |
        | score, score_se | mean log density of a point, nats, averaged over tasks; its standard error |
        | difference, difference_se | of the score to the best one's, paired by task; its standard error |
        | low, high | 95 % bootstrap interval of the difference, over tasks |
        | wins | share of the tasks in which it is ahead of the best one |
        | seconds | that all folds took |
        """
        import pandas as pd

        rows = []
        for place, shots in enumerate(self.held_out.shots):
            each, best = self._each(place), self._best(place)
            for k in np.argsort(-self._means(place), kind="stable"):
                difference = paired_difference(each[:, k], each[:, best])
                low, high = self._interval(difference, LEVEL)
                rows.append(
                    {
                        "shots": shots,
                        "candidate": self.held_out.candidates[k],
                        "tasks": len(each),
                        "score": each[:, k].mean(),
                        "score_se": standard_error(each[:, k]),
                        "difference": difference.mean(),
                        "difference_se": standard_error(difference),
                        "low": low,
                        "high": high,
                        "wins": (difference > 0.0).mean(),
                        "seconds": self.held_out.seconds[k],
                    }
                )
        return pd.DataFrame(rows).set_index(["shots", "candidate"])

    @property
    def conclusions(self) -> tuple[str, ...]:
        """What follows, a sentence for each number of shots; that it cannot be told is a conclusion, too.

        Each sentence is wrong one time in twenty or less, whatever the number of candidates: intervals in it are wider
        than those of the table.
        """
        return tuple(self._sentence(place) for place in range(len(self.held_out.shots)))

    def _sentence(self, place: int) -> str:
        candidates, best = self.held_out.candidates, self._best(place)
        name, shots = candidates[best], several(self.held_out.shots[place], "shot")
        tasks = several(len(self._each(place)), "task")
        if len(candidates) == 1:
            return f"At {shots} {name} has {self._means(place)[0]:.3f} nats per point on {tasks}: there is no other."
        rivals = self._rivals(place)
        if not rivals:
            second = int(np.argsort(-self._means(place), kind="stable")[1])
            gap, low, high = self._gap(place, second)
            return (
                f"At {shots} {name} predicts best, {gap:.3f} nats per point ({low:.3f} to {high:.3f}) ahead of "
                f"{candidates[second]}, on {tasks}."
            )
        parts = []
        for k in rivals:
            gap, low, high = self._gap(place, k)
            parts.append(f"{candidates[k]} ({gap:.3f} behind, {low:.3f} to {high:.3f})")
        return (
            f"At {shots} {name} has the highest density, but {tasks} cannot tell it from {' and '.join(parts)}: take "
            "the simpler or faster one, or stack them."
        )

    def _each(self, place: int) -> np.ndarray:
        """Of the tasks that have points at these shots, `T K`."""
        scores = self.held_out.scores()[place]
        return scores[self.held_out.counts()[place] > 0]

    def _means(self, place: int) -> np.ndarray:
        return self._each(place).mean(0)

    def _best(self, place: int) -> int:
        return int(self._means(place).argmax())

    def _rivals(self, place: int) -> list[int]:
        """Candidates that may be as good as the best one, the nearest first."""
        best = self._best(place)
        others = [int(k) for k in np.argsort(-self._means(place), kind="stable") if k != best]
        return [k for k in others if not self._gap(place, k)[1] > 0.0]

    def _gap(self, place: int, k: int) -> tuple[float, float, float]:
        """How far a candidate is behind the best one, with an interval for all candidates together."""
        each = self._each(place)
        difference = paired_difference(each[:, self._best(place)], each[:, k])
        return float(difference.mean()), *self._interval(difference, LEVEL / max(each.shape[1] - 1, 1))

    def _interval(self, difference: np.ndarray, level: float) -> tuple[float, float]:
        return bootstrap_interval(difference, level, self.num_bootstrap, self.seed)


def compare(
    learners: Mapping[str, Factory],
    tasks: TaskDataset,
    shots: Sequence[int],
    folds: int | OneSplit = 5,
    *,
    split: type[Split] = RandomSplit,
    query: int | None = None,
    num_bootstrap: int = 2_000,
    seed: int = 0,
    batch_size: int = 64,
) -> Comparison:
    """Choose among learners without test tasks: cross-validation over tasks of the density at the shots asked for.

    Every task is predicted by learners that were trained without it, from so many of its points. What counts is the log
    density of other points of the task, each on its own: the score that rewards both the mean and the right
    uncertainty.

    Args:
        learners: by name, what makes a trained learner of tasks: any function, or a `bm.selection.Candidate`;
            `bm.selection.pooled` and `bm.selection.fresh_process` are there to be beaten.
        tasks: all tasks that there are to learn from.
        shots: support points of a held-out task: those that there will be in use.
        folds: into how many parts the tasks are divided; each learner is trained so many times. Or
            `bm.selection.OneSplit(T)`: T tasks are held out once, and each learner is trained once.
        split: `RandomSplit`, `PrefixSplit` for forecasting, or `ClassSplit` for K shots of every class.
        query: largest number of query points of a task; None takes all that are left.
        num_bootstrap: resamplings of the tasks for the intervals.
        seed: of the folds, the divisions, the training and the bootstrap.
        batch_size: tasks adapted to at once.

    Raises:
        DataError: no learners, fewer than two folds or more than tasks, as many held-out tasks as there are, no task
            with more points than shots, or a factory that returns something else.
        InferenceError: a density is not a number; the candidate is named.

    Example:
        >>> import bayesmeta as bm
        >>> tasks = bm.tasks.Sawtooth().dataset(8, 6, seed=0)
        >>> make = lambda: bm.ALPaCA(bm.Identity(1), covariance=bm.priors.IsotropicCovariance(2)).double()
        >>> line, flat = bm.selection.Candidate(make, bm.fit_evidence), bm.ALPaCA(bm.Identity(1)).double()
        >>> comparison = bm.compare({"line": line, "untrained": lambda tasks: flat}, tasks, shots=[2, 4], folds=2)
        >>> sorted(comparison.table().loc[4].index)
        ['line', 'untrained']
    """
    num_bootstrap, seed = whole(num_bootstrap, "of bootstrap resamplings"), seed_of(seed)
    named = naming_columns(cross_validated)
    held_out = named(learners, tasks, shots, folds, split=split, query=query, seed=seed, batch_size=batch_size)
    empty = [shot for shot, count in zip(held_out.shots, held_out.counts().sum(1), strict=True) if not count]
    if empty:
        raise DataError(f"expected tasks with more points than {empty[0]} shots, got none: ask for fewer shots")
    return Comparison(held_out, num_bootstrap, seed)


def paired_difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a - b, and 0 where both are infinite.

    Example:
        >>> paired_difference(np.array([1.0, -np.inf]), np.array([0.25, -np.inf])).tolist()
        [0.75, 0.0]
    """
    with np.errstate(invalid="ignore"):
        return np.where(a == b, 0.0, a - b)


def bootstrap_interval(values: np.ndarray, level: float, num_bootstrap: int, seed: int) -> tuple[float, float]:
    """The interval of probability 1 - level of the mean of T values, by resampling them; NaN for a single one.

    Args:
        values: of each task, `T`.
        level: of wrong intervals.
        num_bootstrap: resamplings of the tasks.
        seed: of these.

    Example:
        >>> bootstrap_interval(np.full(9, 0.5), 0.05, 100, 0)
        (0.5, 0.5)
    """
    if len(values) < 2 or not num_bootstrap:
        return float("nan"), float("nan")
    drawn = resampled(len(values), num_bootstrap, seed)
    finite = np.nan_to_num(values, posinf=1e300, neginf=-1e300)  # 0 times infinity is no number
    means = np.concatenate([weights @ finite / len(values) for weights in drawn])
    low, high = np.quantile(means, [level / 2.0, 1.0 - level / 2.0], method="inverted_cdf")
    return float(low), float(high)


def standard_error(values: np.ndarray) -> float:
    """Of the mean of T values; NaN for a single one, or where one is infinite.

    Example:
        >>> standard_error(np.array([1.0, 3.0]))
        1.0
    """
    if len(values) < 2 or not np.isfinite(values).all():
        return float("nan")
    return float(values.std(ddof=1) / np.sqrt(len(values)))
