"""What the numbers of an evaluation say, in sentences that hold, and "cannot tell" where the numbers do not tell.

Tasks are what is independent, so every interval is over tasks (`intervals`). Where one question is asked at k numbers
of shots, each interval has probability 1 - 0.05/k: a calibrated learner is accused at one of them about one time in
twenty, or less.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from bayesmeta.evaluation.conclusions.baselines import against
from bayesmeta.evaluation.conclusions.calibration import bias, calibration_error, confidence, coverage
from bayesmeta.evaluation.conclusions.learning import progress, width
from bayesmeta.evaluation.conclusions.wording import LEVEL, Conclusion, Verdict, joined, shots_in_words
from bayesmeta.evaluation.scores import Evaluation, ShotScores
from bayesmeta.one_line import several

MOST_NAMED = 10  # tasks in a sentence
FEW = 10  # tasks; with fewer only gross faults can be seen


def conclusions(
    evaluation: Evaluation,
    spread: float | Mapping[str, float] | None = None,
    baselines: Mapping[str, Evaluation] | None = None,
) -> tuple[Conclusion, ...]:
    """What a reader should conclude from an evaluation; of several outcomes, of each.

    Args:
        evaluation: of held-out tasks.
        spread: width of the range that holds the central share `evaluation.level` of all outcomes, units of y: what an
            interval that knew nothing of the task would be. Of several outcomes, by their names.
        baselines: of others on the same tasks and points, by what they are.

    Example:
        >>> import bayesmeta as bm
        >>> simulator = bm.tasks.GPFunctions.eq()
        >>> evaluation = bm.evaluate(simulator.oracle, simulator.dataset(200, 20, seed=0), shots=[0, 10])
        >>> for each in conclusions(evaluation)[:2]:
        ...     print(each.topic, each.verdict.name)
        Evidence NOTE
        Coverage GOOD
    """
    results = _by_shots(evaluation)
    main = evaluation.at(main_shots(evaluation))
    found = [_basis(results)]
    for name, other in (baselines or {}).items():
        found += against(results, _by_shots(other), name)
    each = evaluation.by_outcome()
    for name, own in each.items():
        known = spread.get(name) if isinstance(spread, Mapping) else spread
        own_found = _of_outcome(_by_shots(own), own.at(main.shots), evaluation.level, known)
        found += [replace(one, outcome=name) for one in own_found] if len(each) > 1 else own_found
    return (*found, *_worst(main))


def _by_shots(evaluation: Evaluation) -> list[ShotScores]:
    return sorted((result for result in evaluation.results if result.names), key=lambda result: result.shots)


def _of_outcome(results: list[ShotScores], main: ShotScores, level: float, spread: float | None) -> list[Conclusion]:
    if main.pit is None:
        found = [*confidence(results), *calibration_error(results, np.sqrt(np.pi / 2.0))]
        return [*found, *progress(results, main, "accuracy")]
    found = [*coverage(results, level), *bias(results), *calibration_error(results, 1.0)]
    return [*found, *progress(results, main, "rmse"), *width(results[0], main, level, spread)]


def unlike(names: Sequence[Hashable], p_values: np.ndarray, smallest: np.ndarray) -> Conclusion:
    """Which of T tasks are unlike the reference tasks, with a false share of 5 % among those that are named.

    Benjamini & Hochberg's (1995), which conformal p-values may be given to though they share their reference tasks
    (Bates et al. 2023).

    Args:
        names: of the tasks.
        p_values: `T`, see `Surprise.p_value`.
        smallest: `T`, what each could have been at least.

    Example:
        >>> found = unlike(["a", "b", "c"], np.array([0.4, 0.002, 0.8]), np.full(3, 0.002))
        >>> print(found.text.split(".")[0])
        Unlike the tasks that were learned from: b
    """
    tasks, order = len(names), np.argsort(p_values, kind="stable")
    passed = np.flatnonzero(p_values[order] <= LEVEL * (np.arange(tasks) + 1.0) / tasks + 1e-12)
    low = int((p_values <= LEVEL + 1e-12).sum())
    numbers = (f"{several(low, 'task')} of {tasks} with p up to {LEVEL:g}, by chance {LEVEL * tasks:.2g}",)
    if len(passed):
        named = order[: passed[-1] + 1]
        shown = joined([str(names[i]) for i in named[:MOST_NAMED]])
        more = f" (and {len(named) - MOST_NAMED} more)" if len(named) > MOST_NAMED else ""
        text = (
            f"Unlike the tasks that were learned from: {shown}{more}. Look at them before you trust their predictions."
        )
        advice = "If they are sound, add such tasks to the training."
        return Conclusion("Surprise", Verdict.PROBLEM, text, numbers, advice)
    # a task that is itself among the reference tasks can come down to twice the smallest p-value only
    if 2.0 * float(smallest.min()) <= LEVEL / tasks:
        text = "No task is unlike those that were learned from."
        return Conclusion("Surprise", Verdict.GOOD, text, numbers, "Nothing is to be done.")
    text = (
        "No task stands out as unlike those that were learned from, but among so many tasks a single one could not, as "
        f"no p-value is below {float(smallest.min()):.2g}."
    )
    advice = "With more tasks to learn from, p-values go lower."
    return Conclusion("Surprise", Verdict.UNKNOWN, text, numbers, advice)


def main_shots(evaluation: Evaluation) -> int:
    """The largest number of shots at which at least half of the tasks are left."""
    most = max(len(result.names) for result in evaluation.results)
    return max(result.shots for result in evaluation.results if 2 * len(result.names) >= most)


def _basis(results: list[ShotScores]) -> Conclusion:
    most = max(len(result.names) for result in results)
    text = (
        f"All of this rests on {several(most, 'task')}. Points of one task hang together, so it is tasks that count, "
        "not points."
    )
    fewer = [result for result in results if len(result.names) < most]
    if fewer:
        sizes = sorted({len(result.names) for result in fewer}, reverse=True)
        left = joined(f"{size} at {shots_in_words([r.shots for r in fewer if len(r.names) == size])}" for size in sizes)
        text += f" Tasks with too few points are left out at more shots: there are {left}."
    if most < FEW:
        text += " With so few, only gross faults can be seen."
        advice = "Cross-validate, so that every task is judged: bayesmeta report --folds 5, or bayesmeta crossval."
        return Conclusion("Evidence", Verdict.UNKNOWN, text, advice=advice)
    return Conclusion("Evidence", Verdict.NOTE, text)


def _worst(main: ShotScores) -> list[Conclusion]:
    if len(main.names) < 3:
        return []
    nll = main.scores["nll"]
    order = np.argsort(-nll, kind="stable")
    names = [str(main.names[i]) for i in order[:3]]
    text = (
        f"At {shots_in_words([main.shots])} the outcomes of the tasks {joined(names)} were given the lowest densities. "
        "Some task is always last."
    )
    if np.isfinite(nll).all():
        rest = np.delete(nll, order[0]).mean()
        text += f" With the first of them the mean NLL is {nll.mean():.3g} nats a point, and {rest:.3g} without."
    else:
        text += " An outcome had density zero, so the mean NLL is infinite."
    return [Conclusion("Worst tasks", Verdict.NOTE, text, advice="Look for mistakes in their rows first.")]
