"""Does the learner mean what it says? Coverage and bias of intervals, calibration error, confidence of a classifier."""

import numpy as np

from bayesmeta.evaluation.conclusions.intervals import Interval, mean_share, ratio
from bayesmeta.evaluation.conclusions.wording import (
    FAR,
    LEVEL,
    MORE,
    NEAR,
    Conclusion,
    Sentence,
    Verdict,
    grouped,
    percent,
    signed,
    tasks_needed,
)
from bayesmeta.evaluation.scores import ShotScores

RECALIBRATE = (
    "Correct it by tasks that are kept aside for it (fit --recalibrate 0.2, or bm.calibration), and judge it again."
)
HIDDEN_ERROR = 0.1  # a calibration error above this would be seen where chance makes no more of it
SMALL_ERROR = 0.02  # a calibration error below this is none for practical purposes


def coverage(results: list[ShotScores], level: float) -> list[Conclusion]:
    """Whether central intervals of this level hold as many outcomes as they promise."""
    near = min(NEAR, 0.5 * (1.0 - level))
    name = f"{100 * level:g} % intervals"
    sentences = {
        "below": Sentence(
            Verdict.PROBLEM,
            f"Over-confident at {{}}: the {name} hold fewer outcomes than they promise.",
            f"Do not act on the intervals as they are. {RECALIBRATE}",
        ),
        "above": Sentence(
            Verdict.PROBLEM,
            f"Too cautious at {{}}: the {name} hold more outcomes than they promise.",
            f"Predictions are safe and vaguer than need be. {RECALIBRATE}",
        ),
        "good": Sentence(
            Verdict.GOOD,
            f"The {name} hold what they promise at {{}}, give or take {100 * near:g} points of a hundred.",
            "Use the intervals as they are.",
        ),
        "rough": Sentence(
            Verdict.ROUGH,
            f"The {name} hold roughly what they promise at {{}}: give or take {100 * FAR:g} points of a hundred.",
        ),
        "unknown": Sentence(
            Verdict.UNKNOWN,
            f"Nothing speaks against the {name} at {{}}, but whether they hold what they promise cannot be told from "
            "these tasks.",
        ),
    }
    shares = [result.scores["coverage"] for result in results]
    return _judged("Coverage", results, shares, level, near, sentences)


def bias(results: list[ShotScores]) -> list[Conclusion]:
    """Whether half of the outcomes lie above the predicted median."""
    higher = []
    for result in results:
        assert result.pit is not None
        share = np.where(result.pit > 0.5, 1.0, np.where(result.pit < 0.5, 0.0, 0.5)).mean(-1)
        higher.append(result.means(share))
    cause = (
        "Look at the PIT histogram and the worst tasks: a long tail, a limit of the scale, or a kind of task that the "
        "training did not have."
    )
    sentences = {
        "below": Sentence(
            Verdict.PROBLEM,
            "Predictions are too high at {}: fewer than half of the outcomes lie above the predicted median.",
            cause,
        ),
        "above": Sentence(
            Verdict.PROBLEM,
            "Predictions are too low at {}: more than half of the outcomes lie above the predicted median.",
            cause,
        ),
        "good": Sentence(
            Verdict.GOOD,
            "Predictions are neither too low nor too high at {}: half of the outcomes lie above the predicted median, "
            f"give or take {100 * NEAR:g} points of a hundred.",
            "Nothing is to be done.",
        ),
        "rough": Sentence(
            Verdict.ROUGH,
            "Predictions are not grossly too low or too high at {}: half of the outcomes lie above the predicted "
            f"median, give or take {100 * FAR:g} points of a hundred.",
        ),
        "unknown": Sentence(
            Verdict.UNKNOWN,
            "No sign that predictions are too low or too high at {}, but whether half of the outcomes lie above the "
            "predicted median cannot be told from these tasks.",
        ),
    }
    return _judged("Bias", results, higher, 0.5, NEAR, sentences)


def calibration_error(results: list[ShotScores], factor: float) -> list[Conclusion]:
    """An error beyond what chance makes of it, or how large an error chance would hide.

    Under calibration error² / noise² is about Σ_i λ_i z_i² with Σ_i λ_i = 1. Whatever the λ, its tail is at most that
    of a single z² (Szekely & Bakirov 2003), and z is Student's t as the noise is estimated from T tasks. The noise of
    an ECE is a mean of absolute values, sqrt(2/π) of a deviation: `factor` makes it one.
    """
    from scipy.stats import t

    sentences = {
        "large": Sentence(
            Verdict.PROBLEM,
            "The calibration error is larger than chance would make it at {}.",
            f"The reliability diagram shows where. {RECALIBRATE}",
        ),
        "small": Sentence(
            Verdict.GOOD, "The calibration error is small at {}.", "Probabilities may be taken at their word."
        ),
        "rough": Sentence(
            Verdict.ROUGH,
            f"The calibration error is no larger than chance could make it at {{}}, which is below {HIDDEN_ERROR:g}.",
            "A large error would be seen; more tasks would tell of a smaller one.",
        ),
        "hidden": Sentence(
            Verdict.UNKNOWN,
            "The calibration error is no larger than chance could make it at {}, but chance makes so much of it here "
            "that a real one would not be seen.",
            MORE,
        ),
        "alone": Sentence(
            Verdict.UNKNOWN,
            "What chance makes of the calibration error at {} cannot be told: tasks do not differ, or there is one.",
            "Judge it on other tasks, too.",
        ),
    }
    groups: dict[str, list[tuple[int, str]]] = {}
    for result in results:
        error, noise = result.calibration().values()
        tasks = len(result.names)
        most = factor * noise * float(t.ppf(1.0 - 0.5 * LEVEL / len(results), tasks - 1)) if tasks > 1 else np.nan
        number = f"{error:.3f} (chance: up to {most:.3f})"
        if not most > 1e-9:
            kind, number = "alone", f"{error:.3f}"
        elif error > max(most, SMALL_ERROR):
            kind = "large"
        else:
            kind = "small" if most <= NEAR else "rough" if most <= HIDDEN_ERROR else "hidden"
        groups.setdefault(kind, []).append((result.shots, number))
    return grouped("Calibration", groups, sentences)


def confidence(results: list[ShotScores]) -> list[Conclusion]:
    """Of a classifier: the share of right answers against the mean confidence."""
    sentences = {
        "over": Sentence(
            Verdict.PROBLEM,
            "Over-confident at {}: answers are right less often than they claim.",
            f"Do not act on the probabilities as they are. {RECALIBRATE}",
        ),
        "under": Sentence(
            Verdict.PROBLEM,
            "Too cautious at {}: answers are right more often than they claim.",
            f"Answers are safe and vaguer than need be. {RECALIBRATE}",
        ),
        "good": Sentence(
            Verdict.GOOD,
            "Answers are on average as often right as they claim at {}, "
            f"give or take {100 * NEAR:g} points of a hundred.",
            "Use the probabilities as they are.",
        ),
        "rough": Sentence(
            Verdict.ROUGH,
            "Answers are on average roughly as often right as they claim at {}: give or take "
            f"{100 * FAR:g} points of a hundred.",
        ),
        "unknown": Sentence(
            Verdict.UNKNOWN,
            "No sign of over-confidence or of too much caution at {}, but these tasks do not rule it out.",
        ),
    }
    groups: dict[str, list[tuple[int, str]]] = {}
    values: dict[str, list[np.ndarray]] = {}
    for result in results:
        assert result.confidence is not None
        assert result.correct is not None
        gap = result.means(result.confidence - result.correct)
        each = ratio(gap, np.ones(len(gap)), LEVEL / len(results))
        kind = _kind(each, 0.0, NEAR, ("under", "over"))
        values.setdefault(kind, []).append(gap)
        sure, right = (float(result.means(v).mean()) for v in (result.confidence, result.correct))
        number = f"{percent(right)} right, mean confidence {percent(sure)}, difference {signed(each, 'points')}"
        groups.setdefault(kind, []).append((result.shots, number))
    return grouped("Confidence", groups, _with_numbers_of_tasks(sentences, values, NEAR, len(results)))


def _judged(
    topic: str,
    results: list[ShotScores],
    shares: list[np.ndarray],
    aim: float,
    near: float,
    sentences: dict[str, Sentence],
) -> list[Conclusion]:
    """Mean shares against what they should be: one conclusion for all numbers of shots that come out alike."""
    groups: dict[str, list[tuple[int, str]]] = {}
    values: dict[str, list[np.ndarray]] = {}
    for result, each in zip(results, shares, strict=True):
        share = mean_share(each, LEVEL / len(results))
        kind = _kind(share, aim, near, ("below", "above"))
        values.setdefault(kind, []).append(each)
        limit = f"{percent(share.estimate)} ({100 * share.low:.0f} to {percent(share.high)})"
        groups.setdefault(kind, []).append((result.shots, limit))
    return grouped(topic, groups, _with_numbers_of_tasks(sentences, values, near, len(results)))


def _kind(found: Interval, aim: float, near: float, wrong: tuple[str, str]) -> str:
    """Good, rough or unknown where the aim is compatible, and which way it is wrong where it is not."""
    if found.within(aim - near, aim + near):
        return "good"
    if not found.holds(aim):
        return wrong[found.estimate > aim]
    return "rough" if found.within(aim - FAR, aim + FAR) else "unknown"


def _with_numbers_of_tasks(
    sentences: dict[str, Sentence], values: dict[str, list[np.ndarray]], near: float, questions: int
) -> dict[str, Sentence]:
    """The sentences, where it is open whether something is right with about how many tasks would tell."""
    found = dict(sentences)
    for kind, limit in (("rough", near), ("unknown", FAR)):
        if kind in values:
            widest = max(values[kind], key=lambda each: float(each.std()))
            needed = tasks_needed(widest, limit, LEVEL / questions)
            told = f"It takes {needed} to tell within {100 * limit:g} points; more points of the same ones hardly help."
            found[kind] = found[kind]._replace(advice=told if needed else MORE)
    return found
