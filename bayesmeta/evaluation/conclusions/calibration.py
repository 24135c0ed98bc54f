"""Does the learner mean what it says? Coverage and bias of intervals, calibration error, confidence of a classifier."""

import numpy as np

from bayesmeta.evaluation.conclusions.intervals import mean_share, ratio
from bayesmeta.evaluation.conclusions.wording import LEVEL, NEAR, Conclusion, Verdict, grouped, percent, signed
from bayesmeta.evaluation.scores import ShotScores

SMALL_ERROR = 0.02  # a calibration error below this is none for practical purposes


def coverage(results: list[ShotScores], level: float) -> list[Conclusion]:
    """Whether central intervals of this level hold as many outcomes as they promise."""
    near = min(NEAR, 0.5 * (1.0 - level))
    name = f"{100 * level:g} % intervals"
    return _judged(
        "Coverage",
        results,
        [result.scores["coverage"] for result in results],
        (level - near, level, level + near),
        below=f"Over-confident at {{}}: the {name} hold fewer outcomes than they promise.",
        above=f"Too cautious at {{}}: the {name} hold more outcomes than they promise.",
        good=f"The {name} hold what they promise at {{}}, give or take {100 * near:g} points of a hundred.",
        unknown=f"Nothing speaks against the {name} at {{}}, but whether they hold what they promise cannot be told "
        "from these tasks.",
    )


def bias(results: list[ShotScores]) -> list[Conclusion]:
    """Whether half of the outcomes lie above the predicted median."""
    higher = []
    for result in results:
        assert result.pit is not None
        share = np.where(result.pit > 0.5, 1.0, np.where(result.pit < 0.5, 0.0, 0.5)).mean(-1)
        higher.append(result.means(share))
    return _judged(
        "Bias",
        results,
        higher,
        (0.5 - NEAR, 0.5, 0.5 + NEAR),
        below="Predictions are too high at {}: fewer than half of the outcomes lie above the predicted median.",
        above="Predictions are too low at {}: more than half of the outcomes lie above the predicted median.",
        good="Predictions are neither too low nor too high at {}: half of the outcomes lie above the predicted median, "
        f"give or take {100 * NEAR:g} points of a hundred.",
        unknown="No sign that predictions are too low or too high at {}, but whether half of the outcomes lie above "
        "the predicted median cannot be told from these tasks.",
    )


def calibration_error(results: list[ShotScores], factor: float) -> list[Conclusion]:
    """An error beyond what chance makes of it, or how large an error chance would hide.

    Under calibration error² / noise² is about Σ_i λ_i z_i² with Σ_i λ_i = 1. Whatever the λ, its tail is at most that
    of a single z² (Szekely & Bakirov 2003), and z is Student's t as the noise is estimated from T tasks. The noise of
    an ECE is a mean of absolute values, sqrt(2/π) of a deviation: `factor` makes it one.
    """
    from scipy.stats import t

    large = "The calibration error is larger than chance would make it at {}."
    small = "The calibration error is small at {}."
    hidden = (
        "The calibration error is no larger than chance could make it at {}, but chance makes so much of it here that "
        "a real one would not be seen."
    )
    alone = "What chance makes of the calibration error at {} cannot be told: the tasks do not differ, or there is one."
    texts = {large: Verdict.PROBLEM, small: Verdict.GOOD, hidden: Verdict.UNKNOWN, alone: Verdict.UNKNOWN}
    groups: dict[str, list[tuple[int, str]]] = {}
    for result in results:
        error, noise = result.calibration().values()
        tasks = len(result.names)
        most = factor * noise * float(t.ppf(1.0 - 0.5 * LEVEL / len(results), tasks - 1)) if tasks > 1 else np.nan
        number = f"{error:.3f} (chance: up to {most:.3f})"
        if not most > 1e-9:
            text, number = alone, f"{error:.3f}"
        elif error > max(most, SMALL_ERROR):
            text = large
        else:
            text = small if most <= NEAR else hidden
        groups.setdefault(text, []).append((result.shots, number))
    return grouped("Calibration", groups, texts)


def confidence(results: list[ShotScores]) -> list[Conclusion]:
    """Of a classifier: the share of right answers against the mean confidence."""
    over = "Over-confident at {}: answers are right less often than they claim."
    under = "Too cautious at {}: answers are right more often than they claim."
    good = (
        "Answers are on average as often right as they claim at {}, "
        + f"give or take {100 * NEAR:g} points of a hundred."
    )
    unknown = "No sign of over-confidence or of too much caution at {}, but these tasks do not rule it out."
    texts = {over: Verdict.PROBLEM, under: Verdict.PROBLEM, good: Verdict.GOOD, unknown: Verdict.UNKNOWN}
    groups: dict[str, list[tuple[int, str]]] = {}
    for result in results:
        assert result.confidence is not None
        assert result.correct is not None
        gap = result.means(result.confidence - result.correct)
        each = ratio(gap, np.ones(len(gap)), LEVEL / len(results))
        if each.within(-NEAR, NEAR):
            text = good
        elif each.holds(0.0):
            text = unknown
        else:
            text = over if each.estimate > 0.0 else under
        sure, right = (float(result.means(v).mean()) for v in (result.confidence, result.correct))
        number = f"{percent(right)} right, mean confidence {percent(sure)}, difference {signed(each, 'points')}"
        groups.setdefault(text, []).append((result.shots, number))
    return grouped("Confidence", groups, texts)


def _judged(
    topic: str,
    results: list[ShotScores],
    shares: list[np.ndarray],
    limits: tuple[float, float, float],
    *,
    below: str,
    above: str,
    good: str,
    unknown: str,
) -> list[Conclusion]:
    """Mean shares against (low, aim, high): one conclusion for all numbers of shots that come out alike."""
    low, aim, high = limits
    texts = {
        below: Verdict.PROBLEM,
        above: Verdict.PROBLEM,
        good: Verdict.GOOD,
        unknown: Verdict.UNKNOWN,
    }
    groups: dict[str, list[tuple[int, str]]] = {text: [] for text in texts}
    for result, each in zip(results, shares, strict=True):
        share = mean_share(each, LEVEL / len(results))
        if share.within(low, high):
            text = good
        elif share.holds(aim):
            text = unknown
        else:
            text = below if share.estimate < aim else above
        limit = f"{percent(share.estimate)} ({100 * share.low:.0f} to {percent(share.high)})"
        groups[text].append((result.shots, limit))
    return grouped(topic, groups, texts)
