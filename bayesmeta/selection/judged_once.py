"""Every task judged exactly once, by learners that were trained without it: scores, differences, a recommendation.

A share of the tasks that is held out judges by that share alone. With ten to fifty tasks it says next to nothing; all
of them, each in its turn, may say enough. What is judged is a way of learning, not the learners of the folds: those are
a little worse than one that learns from all tasks.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from bayesmeta.arguments import probability, seed_of, shot_counts, whole
from bayesmeta.errors import DataError
from bayesmeta.evaluation.evaluate import evaluate
from bayesmeta.evaluation.scores import Evaluation, ShotScores, in_columns, with_half
from bayesmeta.learner import Learner
from bayesmeta.one_line import OneLine, several
from bayesmeta.selection.candidates import alone, pooled
from bayesmeta.selection.comparison import Comparison
from bayesmeta.selection.cross_validation import (
    Factory,
    HeldOutDensities,
    folds_of,
    require_factories,
    trained_on,
)
from bayesmeta.selection.recommendation import ALONE, POOLED, Recommendation, recommendation
from bayesmeta.tasks.dataset import TaskDataset, naming_columns
from bayesmeta.tasks.source import RandomSplit, Split

if TYPE_CHECKING:
    import pandas as pd


def usual_baselines(steps: int = 2_000) -> dict[str, Factory]:
    """What every comparison has beside it: one regression for all tasks, and each task alone.

    Args:
        steps: of the training of the regression.

    Example:
        >>> list(usual_baselines())
        ['pooled', 'alone']
    """
    return {POOLED: partial(pooled, steps=steps), ALONE: alone}


@dataclass(frozen=True, eq=False)
class Fold:
    """A part of the tasks, and what was trained on all others.

    Attributes:
        tasks: that were held out.
        learner: that predicted them.

    Example:
        >>> import bayesmeta as bm
        >>> tasks = bm.tasks.Sawtooth().dataset(3, 6, seed=0)
        >>> Fold(tasks, bm.ALPaCA(bm.Identity(1))).tasks
        TaskDataset(3 tasks, 6 to 6 points each)
    """

    tasks: TaskDataset
    learner: Learner


@dataclass(frozen=True, eq=False)
class CrossValidated(OneLine):
    """Several ways of learning on tasks that were not learned from, every task once: what `cross_validate` gives.

    Printing it shows the scores; `recommendation` says what to take, `table()` has all numbers, and `bm.report` makes a
    page of one candidate.

    Attributes:
        evaluations: of each candidate, of all tasks.
        folds: of each candidate the tasks of each fold, and the learner that predicted them.
        baselines: the candidates that are there to be beaten.
        comparison: of the densities, paired by task.
        tasks: all tasks.
        split: what divided their points.
        query: largest number of query points of a task.

    Example:
        >>> import bayesmeta as bm
        >>> simulator = bm.tasks.GPFunctions.eq()
        >>> flat = bm.ALPaCA(bm.Identity(1)).double()
        >>> learners = {"truth": lambda tasks: simulator.oracle, "line": lambda tasks: flat}
        >>> found = cross_validate(learners, simulator.dataset(20, 12, seed=0), shots=[5], folds=2, baselines={})
        >>> found
        2 learners on 20 tasks, each judged once: truth is best
        >>> print(found.recommendation.text.split(":")[0])
        Take truth
        >>> found.evaluations["truth"].per_task(5).shape[0]
        20
    """

    evaluations: dict[str, Evaluation]
    folds: dict[str, tuple[Fold, ...]]
    baselines: tuple[str, ...]
    comparison: Comparison
    tasks: TaskDataset
    split: type[Split]
    query: int | None

    def __repr__(self) -> str:
        """One line."""
        count, tasks = several(len(self.evaluations), "learner"), several(len(self.comparison.held_out.names), "task")
        found = self.recommendation
        verdict = "none is worth taking" if found.name is None else f"{found.name} is best"
        return f"{count} on {tasks}, each judged once: {verdict if found.is_told else 'not beyond doubt'}"

    @property
    def recommendation(self) -> Recommendation:
        """Which candidate to take, and why."""
        held_out = self.comparison.held_out
        return recommendation(
            held_out.candidates,
            held_out.scores(),
            held_out.shots,
            {name: _size(each[0].learner) for name, each in self.folds.items()},
            self.baselines,
            self.comparison.num_bootstrap,
            self.comparison.seed,
        )

    def table(self) -> "pd.DataFrame":
        """The scores of each candidate as `Evaluation.table` has them, and how far it is from the best one.

        One row for each number of shots and candidate; of several outcomes for each outcome, too, with `all` first.
        Beside the scores:

        | column | what |
        |---|---|
        | difference | of the log density of a point to the best candidate at these shots, paired by task, nats |
        | difference_low, difference_high | its 95 % bootstrap interval over tasks |
        | wins | share of the tasks in which it is ahead of the best one |
        | learned | how many numbers it learns |
        | seconds | that all folds took |

        Differences are of all outcomes together.
        """
        import pandas as pd

        tables = {name: each.all_tables() for name, each in self.evaluations.items()}
        joined = pd.concat(tables, names=["candidate"])
        order = [name for name in ("outcome", "shots", "candidate") if name in joined.index.names]
        joined = joined.reorder_levels(order)
        compared = self.comparison.table()[["difference", "low", "high", "wins", "seconds"]]
        compared = compared.rename(columns={"low": "difference_low", "high": "difference_high"})
        compared["learned"] = [_size(self.folds[name][0].learner) for _, name in compared.index]
        if "outcome" in order:
            compared = pd.concat({"all": compared}, names=["outcome"])
        places = {name: place for place, name in enumerate(["all", *next(iter(self.evaluations.values())).outcomes])}
        return joined.join(compared).sort_index(
            level=order[:-1],
            sort_remaining=False,
            key=lambda level: level.map(places) if level.name == "outcome" else level,
        )

    def __str__(self) -> str:
        """The scores as tables of fixed width, and the recommendation."""
        folds, tasks = len(next(iter(self.folds.values()))), len(self.comparison.held_out.names)
        title = f"{several(tasks, 'task')}, each judged once by learners that were trained without it, in {folds} folds"
        held_out = sum(len(fold.tasks) for fold in next(iter(self.folds.values())))
        title += f"; {len(self.tasks) - held_out:,} more are only learned from" if held_out < len(self.tasks) else ""
        left_out = held_out - tasks
        title += f"; {several(left_out, 'task')} with too few points left out" if left_out else ""
        title += f"; at most {several(self.query, 'point')} of a task predicted" if self.query is not None else ""
        level = next(iter(self.evaluations.values())).level
        title += (
            "\n±: half of a 95 % bootstrap interval over tasks; behind: of the best in nats a point, paired by task"
        )
        table = self.table()
        if "outcome" not in table.index.names:
            return f"{title}\n{_printed(table, level)}\n{self.recommendation}"
        parts = [f"all outcomes together\n{_printed(table.xs('all'), level)}"]
        for name in next(iter(self.evaluations.values())).outcomes:
            own = table.loc[name].drop(
                columns=["difference", "difference_low", "difference_high", "seconds", "learned"]
            )
            parts.append(f"{name}\n{_printed(own, level)}")
        return "\n\n".join([title, *parts, self.recommendation.text])


def cross_validate(
    learners: Mapping[str, Factory],
    tasks: TaskDataset,
    shots: Sequence[int] = (0, 1, 2, 5, 10),
    folds: int = 5,
    *,
    baselines: Mapping[str, Factory] | None = None,
    split: type[Split] = RandomSplit,
    query: int | None = None,
    most: int | None = None,
    level: float = 0.9,
    num_bootstrap: int = 1_000,
    seed: int = 0,
    batch_size: int = 64,
    progress: bool | None = False,
) -> CrossValidated:
    """Judge ways of learning by all tasks: each is predicted once, by learners that were trained without it.

    All candidates see the same folds, the same supports and the same query points; these are the same at every number
    of shots, as in `bm.evaluate`. (`bm.compare` takes all points that are left at a number of shots, and densities
    alone.)

    Args:
        learners: by name, what makes a trained learner of tasks: any function, or a `bm.selection.Candidate`.
        tasks: all tasks that there are to learn from.
        shots: support points of a held-out task; numbers that no task has room for are left out.
        folds: into how many parts the tasks are divided, at random; each learner is trained so many times.
        baselines: what is there to be beaten; `usual_baselines()` by default, which are `pooled` and `alone`.
        split: `RandomSplit`, `PrefixSplit` for forecasting, or `ClassSplit` for K shots of every class.
        query: largest number of query points of a task; None takes all that are left.
        most: largest number of tasks that are judged, drawn at random, at least one of a fold; the others are learned
            from in every fold. None judges all.
        level: probability of the central interval whose coverage and width are reported.
        num_bootstrap: resamplings of the tasks for the intervals.
        seed: of the folds, the divisions, the training and the bootstrap.
        batch_size: tasks adapted to at once.
        progress: whether to show a progress bar, which counts trainings; None shows it on a terminal only.

    Raises:
        DataError: no learners, one that is called as a baseline, fewer than two folds or more than tasks, no task with
            more points than shots, or a factory that returns something else.
        InferenceError: a score is not a number.

    Example:
        >>> import bayesmeta as bm
        >>> tasks = bm.tasks.Sawtooth().dataset(9, 6, seed=0)
        >>> make = lambda: bm.ALPaCA(bm.Identity(1), covariance=bm.priors.IsotropicCovariance(2)).double()
        >>> line = bm.selection.Candidate(make, bm.fit_evidence)
        >>> found = cross_validate({"line": line}, tasks, [0, 3], folds=3, baselines={"alone": bm.selection.alone})
        >>> sorted(found.table().loc[3, "tasks"].to_dict().items())
        [('alone', 9), ('line', 9)]
    """
    baselines = usual_baselines() if baselines is None else baselines
    shots, seed, num_bootstrap = shot_counts(shots), seed_of(seed), whole(num_bootstrap, "of bootstrap resamplings")
    level = probability(level, "an interval level")
    if not isinstance(tasks, TaskDataset):
        raise DataError(f"expected a TaskDataset, got {type(tasks).__name__}: see TaskDataset.from_frame")
    require_factories(learners)
    if set(learners) & set(baselines):
        raise DataError(f"expected other names than those of the baselines, {list(baselines)}, got {list(learners)}")
    room = int(split.room(tasks.data).max())
    fitting = tuple(shot for shot in shots if shot <= room)
    if not fitting:
        raise DataError(f"expected a task with more than {min(shots)} {split.counted}, got at most {room + 1}")
    arguments = dict(split=split, query=query, level=level, num_bootstrap=num_bootstrap, seed=seed)  # noqa: C408
    parts = [part.tolist() for part in folds_of(tasks, folds, seed)]
    if most is not None:
        share, generator = max(whole(most, "most", 1) // len(parts), 1), np.random.default_rng([seed, 1])
        parts = [sorted(generator.permutation(part)[:share].tolist()) for part in parts]
    evaluations, kept, seconds = {}, {}, []
    everybody = {**learners, **baselines}
    bar = tqdm(total=len(everybody) * len(parts), disable=None if progress is None else not progress, leave=False)
    with bar:
        for name, factory in everybody.items():
            bar.set_description(name)
            start = time.perf_counter()
            found = _judged(factory, tasks, parts, fitting, batch_size, arguments, bar)
            seconds.append(time.perf_counter() - start)
            kept[name] = tuple([fold for fold, _ in found])
            evaluations[name] = _joined([each for _, each in found if each is not None], tasks)
    held_out = _densities(evaluations, fitting, seconds)
    comparison = Comparison(held_out, num_bootstrap, seed)
    return CrossValidated(evaluations, kept, tuple(baselines), comparison, tasks, split, query)


@naming_columns
def _judged(
    factory: Factory,
    tasks: TaskDataset,
    parts: Sequence[list[int]],
    shots: tuple[int, ...],
    batch_size: int,
    arguments: dict[str, Any],
    bar: "tqdm[Any]",
) -> list[tuple[Fold, Evaluation | None]]:
    """Fold by fold; no evaluation where no task of a fold has room for the least number of shots."""
    judged: list[tuple[Fold, Evaluation | None]] = []
    for part in parts:
        others = np.setdiff1d(np.arange(len(tasks)), part).tolist()
        held_out = tasks.select(part)
        learner = trained_on(factory, tasks.select(others), arguments["seed"]).frozen()
        able = int(arguments["split"].room(held_out.data).max()) >= min(shots)
        found = evaluate(learner, held_out, shots, batch_size=batch_size, **arguments) if able else None
        judged.append((Fold(held_out, learner), found))
        bar.update()
    return judged


def _joined(evaluations: Sequence[Evaluation], tasks: TaskDataset) -> Evaluation:
    """The evaluation of all folds together, its tasks in their order."""
    first = evaluations[0]
    results = [
        ShotScores.joined([each.results[place] for each in evaluations], tasks.names)
        for place in range(len(first.results))
    ]
    return replace(first, results=tuple(results))


def _densities(
    evaluations: Mapping[str, Evaluation], shots: tuple[int, ...], seconds: Sequence[float]
) -> HeldOutDensities:
    """What a comparison asks for: the density of each point under each candidate."""
    first = next(iter(evaluations.values()))
    names = max((result.names for result in first.results), key=len)
    place = {name: i for i, name in enumerate(names)}
    shot = [np.full(int(result.points.sum()), i) for i, result in enumerate(first.results)]
    task = [np.repeat([place[name] for name in result.names], result.points) for result in first.results]
    columns = [
        np.concatenate([result.log_density for result in each.results if result.log_density is not None])
        for each in evaluations.values()
    ]
    return HeldOutDensities(
        tuple(evaluations),
        shots,
        names,
        np.concatenate(shot),
        np.concatenate(task).astype(int),
        np.stack(columns, -1),
        tuple(seconds),
    )


def _size(learner: Learner) -> int:
    """How many numbers a learner learns, and rows that it keeps."""
    return sum(parameter.numel() for parameter in learner.parameters()) + learner.kept_rows


def _printed(table: "pd.DataFrame | pd.Series[Any]", level: float) -> str:
    """The main columns, a line for each number of shots and candidate, those of one number of shots together."""
    import pandas as pd

    assert not isinstance(table, pd.Series)  # one outcome of several has rows, too
    table = table.dropna(axis=1, how="all")  # several outcomes have no error together
    shown = {"nll": "NLL", "rmse": "RMSE", "crps": "CRPS", "accuracy": "accuracy", "brier": "Brier"}
    rows = []
    heads = ["shots", "tasks", "learner", *(head for name, head in shown.items() if name in table)]
    behind, coverage = "difference" in table, "coverage" in table
    error = next(name for name in ("calibration_error", "ece") if name in table)
    noise = "calibration_noise" if error == "calibration_error" else "ece_noise"
    heads[4:4] = ["behind"] if behind else []
    heads += [f"coverage {100 * level:g} %"] if coverage else []
    heads += ["calib. error (noise)", *(["learned", "seconds"] if "seconds" in table else [])]
    last = None
    for place, (_, row) in zip(table.index.tolist(), table.iterrows(), strict=True):
        shots, name = place
        cells = ["" if shots == last else str(shots), "" if shots == last else f"{row['tasks']:.0f}", name]
        for column in shown:
            if column in table:
                cells.append(with_half(row[column], row[f"{column}_low"], row[f"{column}_high"]))
                if column == "nll" and behind:
                    cells.append(_gap(row))
        if coverage:
            cells.append(with_half(row["coverage"], row["coverage_low"], row["coverage_high"]))
        cells.append(f"{row[error]:.3f} ({row[noise]:.3f})")
        if "seconds" in table:
            cells += [f"{row['learned']:,.0f}", f"{row['seconds']:.1f}"]
        rows.append(cells)
        last = shots
    return in_columns(heads, rows, left=(2,))


def _gap(row: "pd.Series[Any]") -> str:
    if row["difference"] == 0.0:
        return "best"
    return f"{-row['difference']:.3f} ({-row['difference_high']:.3f} to {-row['difference_low']:.3f})"
