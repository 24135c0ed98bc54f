"""What a conclusion is, and how numbers are put into words."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import numpy as np

from bayesmeta.evaluation.conclusions.intervals import Interval

LEVEL = 0.05  # of wrong accusations, one question at all numbers of shots together
NEAR = 0.05  # shares that differ by less are the same for practical purposes
FAR = 0.15  # shares that differ by less are no gross fault
MORE = "More tasks would tell; more points of the same ones hardly help."


class Verdict(Enum):
    """What a conclusion amounts to; the value is how a page words it."""

    GOOD = "good"
    ROUGH = "roughly right"
    PROBLEM = "problem"
    UNKNOWN = "cannot tell"
    NOTE = "note"


@dataclass(frozen=True)
class Conclusion:
    """One statement.

    Attributes:
        topic: what it is about, one or two words.
        verdict: what it amounts to.
        text: one or more plain sentences.
        numbers: what they rest on, one entry for each number of shots.
        advice: what to do next, a sentence.
        outcome: of several, the one that it is about; empty for all.

    Example:
        >>> print(Conclusion("Coverage", Verdict.GOOD, "Intervals hold what they promise.", ("0 shots: 91 %",)))
        Coverage (good): Intervals hold what they promise. 0 shots: 91 %.
    """

    topic: str
    verdict: Verdict
    text: str
    numbers: tuple[str, ...] = ()
    advice: str = ""
    outcome: str = ""

    def __str__(self) -> str:
        """One line."""
        numbers = f" {'; '.join(self.numbers)}." if self.numbers else ""
        end = f" Next: {self.advice}" if self.advice else ""
        head = f"{self.topic} of {self.outcome}" if self.outcome else self.topic
        return f"{head} ({self.verdict.value}): {self.text}{numbers}{end}"


class Sentence(NamedTuple):
    """What may be said at some numbers of shots.

    Attributes:
        verdict: what it amounts to.
        text: with a place for the numbers of shots.
        advice: what to do next.
    """

    verdict: Verdict
    text: str
    advice: str = ""


def grouped(topic: str, groups: dict[str, list[tuple[int, str]]], sentences: dict[str, Sentence]) -> list[Conclusion]:
    """One conclusion for all numbers of shots that come out alike.

    Args:
        topic: of all of them.
        groups: for each kind of sentence the numbers of shots that it holds of, with what it rests on there.
        sentences: of each kind, in the order in which they are said.
    """
    return [
        Conclusion(
            topic,
            verdict,
            text.format(shots_in_words([shots for shots, _ in groups[kind]])),
            tuple(f"{shots_in_words([shots])}: {number}" for shots, number in groups[kind]),
            advice,
        )
        for kind, (verdict, text, advice) in sentences.items()
        if groups.get(kind)
    ]


def tasks_needed(values: np.ndarray, near: float, alpha: float) -> str:
    """About how many tasks would tell a mean to within `near`, in words; empty where there are as many already.

    The half width of an interval is z s / √T: as many tasks as make it half of `near`, to one digit.

    Args:
        values: of each task, `T`.
        near: what would not matter.
        alpha: one minus the probability of the interval.

    Example:
        >>> tasks_needed(np.array([0.0, 1.0] * 6), near=0.05, alpha=0.05)
        'about 2,000 tasks'
    """
    from scipy.stats import norm

    if len(values) < 3:
        return ""
    number = (float(norm.ppf(1.0 - alpha / 2.0)) * float(values.std(ddof=1)) / (0.5 * near)) ** 2
    if number <= len(values):
        return ""
    size = 10 ** int(np.floor(np.log10(number)))
    return f"about {int(np.ceil(number / size)) * size:,} tasks"


def moves(change: Interval, unit: str) -> str:
    """What a change does, where it is certain which way it goes.

    Example:
        >>> moves(Interval(-0.03, -0.05, -0.01), "%")
        'falls by 3 % (1 to 5 %)'
    """
    if change.holds(0.0):
        return f"changes by {signed(change, unit)}"
    low, high = sorted((100 * abs(change.low), 100 * abs(change.high)))
    verb = "rises" if change.estimate > 0.0 else "falls"
    return f"{verb} by {100 * abs(change.estimate):.0f} {unit} ({low:.0f} to {high:.0f} {unit})"


def signed(change: Interval, unit: str) -> str:
    """A change with its sign and its interval.

    Example:
        >>> signed(Interval(0.03, 0.01, 0.07), "%")
        '+3 % (+1 to +7 %)'
    """
    ends = f" ({100 * change.low:+.0f} to {100 * change.high:+.0f} {unit})" if np.isfinite(change.low) else ""
    text = re.sub(r"[+-]0(?!\d)", "0", f"{100 * change.estimate:+.0f} {unit}{ends}")
    return text.replace("-", "\N{MINUS SIGN}")


def percent(share: float) -> str:
    """A share of one in whole percent.

    Example:
        >>> percent(0.905)
        '90 %'
    """
    return f"{100 * share:.0f} %"


def shots_in_words(numbers: Sequence[int]) -> str:
    """The numbers of shots with their noun.

    Example:
        >>> shots_in_words([0, 2, 5]), shots_in_words([1])
        ('0, 2 and 5 shots', '1 shot')
    """
    return f"{joined(map(str, numbers))} {'shot' if list(numbers) == [1] else 'shots'}"


def joined(parts: Iterable[str]) -> str:
    """The parts as a list in a sentence.

    Example:
        >>> joined(["a", "b", "c"])
        'a, b and c'
    """
    words = list(parts)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
