"""Do further points help? How errors and intervals change with shots, each time on the tasks that both ends have."""

import itertools

import numpy as np

from bayesmeta.evaluation.conclusions.intervals import Interval, ratio
from bayesmeta.evaluation.conclusions.wording import (
    LEVEL,
    MORE,
    NEAR,
    Conclusion,
    Verdict,
    joined,
    moves,
    shots_in_words,
    signed,
)
from bayesmeta.evaluation.scores import ShotScores
from bayesmeta.one_line import several


def progress(results: list[ShotScores], main: ShotScores, score: str) -> list[Conclusion]:
    """How the error falls with shots, over all of them and step by step, each time on the tasks that both ends have."""
    first = results[0]
    if first.shots >= main.shots:
        return []
    whole = _change(first, main, score, LEVEL)
    if whole is None:
        return []
    unit = "points" if score == "accuracy" else "%"
    name = "the share of right answers" if score == "accuracy" else "the root mean squared error of a task"
    what = (
        f"{name} {moves(whole, unit)} from {first.shots} to {shots_in_words([main.shots])}, "
        f"on the same {several(len(main.names), 'task')}."
    )
    texts = {
        "help": (
            Verdict.GOOD,
            "Adapting helps",
            "Collect a few points of a new task before you rely on what is predicted of it.",
        ),
        "harm": (
            Verdict.PROBLEM,
            "Adapting does harm",
            "Predict without the points of a task, or take another method: bayesmeta crossval compares them.",
        ),
        "little": (
            Verdict.NOTE,
            "Adapting changes little",
            "Points of a new task are hardly worth their price here; inputs that tell tasks apart may be.",
        ),
        "unknown": (Verdict.UNKNOWN, "Whether adapting helps cannot be told", MORE),
    }
    verdict, text, advice = texts[_kind(whole, score)]
    found = [Conclusion("Learning", verdict, f"{text}: {what}", advice=advice)]
    steps = list(itertools.pairwise(results))
    if len(steps) > 1:
        found += _steps(steps, score, unit)
    return found


def width(first: ShotScores, main: ShotScores, level: float, spread: float | None) -> list[Conclusion]:
    """How wide intervals are beside those of fewer shots, and beside the spread of all outcomes, where it is known."""
    before, after = first.scores["width"][_places(first, main)], main.scores["width"]
    if not np.isfinite(before + after).all() or before.sum() <= 0.0:
        return []
    sentences = []
    name, at = f"{100 * level:g} %", shots_in_words([main.shots])
    if first.shots < main.shots:
        each = ratio(after, before, LEVEL)
        limits = f" ({each.low:.2f} to {each.high:.2f})" if np.isfinite(each.low) else ""
        sentences.append(
            f"The {name} intervals at {at} are {each.estimate:.2f}{limits} times as wide as at "
            f"{shots_in_words([first.shots])}, on the same {several(len(main.names), 'task')}."
        )
    if spread is not None and spread > 0.0:
        share = float(after.mean()) / spread
        sentences.append(
            f"The {name} intervals at {at} are {share:.2f} times as wide as the range that holds the "
            f"middle {name} of all outcomes."
        )
    if not sentences:
        return []
    text = " ".join([*sentences, "Narrow is good only where coverage holds."])
    advice = "Where intervals are too wide to decide by, look for inputs that explain the outcome, or for more points."
    return [Conclusion("Sharpness", Verdict.NOTE, text, advice=advice)]


def _steps(steps: list[tuple[ShotScores, ShotScores]], score: str, unit: str) -> list[Conclusion]:
    words = {
        "help": "clearly help",
        "harm": "clearly do harm",
        "little": "change little",
        "unknown": "may help or not, which these tasks cannot tell",
    }
    groups: dict[str, list[str]] = {}
    numbers = []
    for before, after in steps:
        change = _change(before, after, score, LEVEL / len(steps))
        if change is not None:
            name = f"{before.shots} to {after.shots}"
            groups.setdefault(_kind(change, score), []).append(name)
            numbers.append(f"{name}: {signed(change, unit)}")
    if not groups:
        return []
    parts = [f"{joined(groups[kind])} {text}" for kind, text in words.items() if kind in groups]
    verdict = Verdict.UNKNOWN if set(groups) == {"unknown"} else Verdict.NOTE
    text = f"The points that lead from one number of shots to the next: {'; '.join(parts)}."
    advice = MORE if verdict is Verdict.UNKNOWN else "Stop collecting where points change little."
    return [Conclusion("Step by step", verdict, text, tuple(numbers), advice)]


def _change(first: ShotScores, last: ShotScores, score: str, alpha: float) -> Interval | None:
    """Of the error: relative change of its mean over tasks. Of the accuracy: difference of its mean. On the same tasks.

    None where there is nothing to compare: no error to begin with, or an infinite one.
    """
    before, after = first.scores[score][_places(first, last)], last.scores[score]
    if score == "accuracy":
        return ratio(after - before, np.ones(len(after)), alpha)
    if not np.isfinite(before + after).all() or before.sum() <= 0.0:
        return None
    each = ratio(after, before, alpha)
    return Interval(each.estimate - 1.0, each.low - 1.0, each.high - 1.0)


def _kind(change: Interval, score: str) -> str:
    if not change.holds(0.0):
        return "help" if (change.estimate > 0.0) == (score == "accuracy") else "harm"
    return "little" if change.within(-NEAR, NEAR) else "unknown"


def _places(first: ShotScores, last: ShotScores) -> list[int]:
    """Where the tasks of `last` are among those of `first`: a task with room for more shots has it for fewer."""
    place = {name: i for i, name in enumerate(first.names)}
    return [place[name] for name in last.names]
