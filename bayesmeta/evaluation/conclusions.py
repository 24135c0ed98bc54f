"""What the numbers of an evaluation say, in sentences that hold, and "cannot tell" where the numbers do not tell.

Tasks are what is independent, so every interval is over tasks. Those of the sentences differ from the bootstrap of the
table, which is too short with few tasks and empty where all tasks agree:

    mean share of a task    Gaffke's (2005; Learned-Miller & Thomas 2019), which as far as is known holds for shares of
                            any distribution: a few tasks that went well say little of one that will not
    ratio Σ_t a_t/Σ_t b_t   Student's t with T - 1 degrees of freedom on the linearised residuals a_t - R b_t

Where one question is asked at k numbers of shots, each interval has probability 1 - 0.05/k: a calibrated learner is
accused at one of them about one time in twenty, or less.
"""

import itertools
import math
import re
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from bayesmeta.evaluation.scores import Evaluation, ShotScores

LEVEL = 0.05  # of wrong accusations, one question at all numbers of shots together
NEAR = 0.05  # shares that differ by less are the same for practical purposes
SMALL_ERROR = 0.02  # a calibration error below this is none for practical purposes
DRAWS = 8_000  # of weights for an interval
MOST_NAMED = 10  # tasks in a sentence
FEW = 10  # tasks; with fewer only gross faults can be seen


class Verdict(Enum):
    """What a conclusion amounts to; the value is how a page words it."""

    GOOD = "good"
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
    """

    topic: str
    verdict: Verdict
    text: str
    numbers: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line."""
        end = f" {'; '.join(self.numbers)}." if self.numbers else ""
        return f"{self.topic} ({self.verdict.value}): {self.text}{end}"


@dataclass(frozen=True)
class Interval:
    """An estimate with its lower and upper end."""

    estimate: float
    low: float
    high: float

    def within(self, low: float, high: float) -> bool:
        """Whether nothing outside [low, high] is compatible."""
        return low <= self.low and self.high <= high

    def holds(self, value: float) -> bool:
        """Whether the value is compatible."""
        return self.low <= value <= self.high


def conclusions(evaluation: Evaluation, spread: float | None = None) -> tuple[Conclusion, ...]:
    """What a reader should conclude from an evaluation.

    Args:
        evaluation: of held-out tasks.
        spread: width of the range that holds the central share `evaluation.level` of all outcomes, units of y: what an
            interval that knew nothing of the task would be.
    """
    results = sorted((result for result in evaluation.results if result.names), key=lambda result: result.shots)
    main = evaluation.at(main_shots(evaluation))
    found = [_basis(results)]
    if main.pit is None:
        found += [*_confidence(results), *_calibration_error(results, np.sqrt(np.pi / 2.0))]
        found += _progress(results, main, "accuracy")
    else:
        found += [*_coverage(results, evaluation.level), *_lean(results), *_calibration_error(results, 1.0)]
        found += [*_progress(results, main, "rmse"), *_width(results[0], main, evaluation.level, spread)]
    return (*found, *_worst(main))


def unlike(names: Sequence[Hashable], p_values: np.ndarray, smallest: np.ndarray) -> Conclusion:
    """Which of T tasks are unlike the reference tasks, with a false share of 5 % among those that are named.

    Benjamini & Hochberg's (1995), which conformal p-values may be given to though they share their reference tasks
    (Bates et al. 2023).

    Args:
        names: of the tasks.
        p_values: `T`, see `Surprise.p_value`.
        smallest: `T`, what each could have been at least.
    """
    tasks, order = len(names), np.argsort(p_values, kind="stable")
    passed = np.flatnonzero(p_values[order] <= LEVEL * (np.arange(tasks) + 1.0) / tasks + 1e-12)
    low = int((p_values <= LEVEL + 1e-12).sum())
    numbers = (f"{_count(low, 'task')} of {tasks} with p up to {LEVEL:g}, by chance {LEVEL * tasks:.2g}",)
    if len(passed):
        named = order[: passed[-1] + 1]
        shown = _join([str(names[i]) for i in named[:MOST_NAMED]])
        more = f" (and {len(named) - MOST_NAMED} more)" if len(named) > MOST_NAMED else ""
        text = (
            f"Unlike the tasks that were learned from: {shown}{more}. Look at them before you trust their predictions."
        )
        return Conclusion("Surprise", Verdict.PROBLEM, text, numbers)
    # a task that is itself among the reference tasks can come down to twice the smallest p-value only
    if 2.0 * float(smallest.min()) <= LEVEL / tasks:
        return Conclusion("Surprise", Verdict.GOOD, "No task is unlike those that were learned from.", numbers)
    text = (
        "No task stands out as unlike those that were learned from, but among so many tasks a single one could not, as "
        f"no p-value is below {float(smallest.min()):.2g}."
    )
    return Conclusion("Surprise", Verdict.UNKNOWN, text, numbers)


def main_shots(evaluation: Evaluation) -> int:
    """The largest number of shots at which at least half of the tasks are left."""
    most = max(len(result.names) for result in evaluation.results)
    return max(result.shots for result in evaluation.results if 2 * len(result.names) >= most)


def mean_share(shares: np.ndarray, alpha: float) -> Interval:
    """The mean share of T tasks, `T` between 0 and 1, with its interval of probability 1 - alpha.

    Each end is a quantile of Σ_t w_t share_t with w ~ Dirichlet(1..1) over the tasks and one more that is as extreme as
    can be, 0 for the lower and 1 for the upper end: a task such as none so far is never ruled out. Where shares are 0
    or 1 this is Clopper & Pearson's interval, and with many tasks the normal one.
    """
    generator, below, above = np.random.default_rng(0), [], []
    for _ in range(DRAWS // 1000):
        weights = generator.standard_exponential((1000, len(shares) + 1))
        total, seen = weights.sum(-1), weights[:, :-1] @ shares
        below.append(seen / total)
        above.append((seen + weights[:, -1]) / total)
    low, high = np.quantile(below, alpha / 2.0), np.quantile(above, 1.0 - alpha / 2.0)
    return Interval(float(shares.mean()), float(low), float(high))


def ratio(above: np.ndarray, below: np.ndarray, alpha: float) -> Interval:
    """R = Σ above / Σ below of T tasks, `T` each, with its interval of probability 1 - alpha; infinite for one task."""
    from scipy.stats import t

    tasks = len(above)
    estimate = float(above.sum() / below.sum())
    if tasks < 2:
        return Interval(estimate, -np.inf, np.inf)
    residual = above - estimate * below
    deviation = math.sqrt(tasks / (tasks - 1.0) * float((residual**2).sum())) / abs(float(below.sum()))
    half = float(t.ppf(1.0 - alpha / 2.0, tasks - 1)) * deviation
    return Interval(estimate, estimate - half, estimate + half)


def _basis(results: list[ShotScores]) -> Conclusion:
    most = max(len(result.names) for result in results)
    text = (
        f"All of this rests on {_count(most, 'task')}. Points of one task hang together, so it is tasks that count, "
        "not points."
    )
    fewer = [result for result in results if len(result.names) < most]
    if fewer:
        sizes = sorted({len(result.names) for result in fewer}, reverse=True)
        left = _join(f"{size} at {_shots([r.shots for r in fewer if len(r.names) == size])}" for size in sizes)
        text += f" Tasks with too few points are left out at more shots: there are {left}."
    if most < FEW:
        text += " With so few, only gross faults can be seen."
    return Conclusion("Evidence", Verdict.UNKNOWN if most < FEW else Verdict.NOTE, text)


def _coverage(results: list[ShotScores], level: float) -> list[Conclusion]:
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


def _lean(results: list[ShotScores]) -> list[Conclusion]:
    higher = []
    for result in results:
        assert result.pit is not None
        share = np.where(result.pit > 0.5, 1.0, np.where(result.pit < 0.5, 0.0, 0.5)).mean(-1)
        higher.append(np.where(result.mask, share, 0.0).sum(-1) / result.points)
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
        limit = f"{_percent(share.estimate)} ({100 * share.low:.0f} to {_percent(share.high)})"
        groups[text].append((result.shots, limit))
    return _grouped(topic, groups, texts)


def _grouped(topic: str, groups: dict[str, list[tuple[int, str]]], texts: dict[str, Verdict]) -> list[Conclusion]:
    return [
        Conclusion(
            topic,
            verdict,
            text.format(_shots([shots for shots, _ in groups[text]])),
            tuple(f"{_shots([shots])}: {number}" for shots, number in groups[text]),
        )
        for text, verdict in texts.items()
        if groups.get(text)
    ]


def _calibration_error(results: list[ShotScores], factor: float) -> list[Conclusion]:
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
    return _grouped("Calibration", groups, texts)


def _confidence(results: list[ShotScores]) -> list[Conclusion]:
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
        gap = np.where(result.mask, result.confidence - result.correct, 0.0).sum(-1)
        each = ratio(gap, result.points.astype(float), LEVEL / len(results))
        if each.within(-NEAR, NEAR):
            text = good
        elif each.holds(0.0):
            text = unknown
        else:
            text = over if each.estimate > 0.0 else under
        sure, right = (float(v[result.mask].mean()) for v in (result.confidence, result.correct))
        number = f"{_percent(right)} right, mean confidence {_percent(sure)}, difference {_signed(each, 'points')}"
        groups.setdefault(text, []).append((result.shots, number))
    return _grouped("Confidence", groups, texts)


def _progress(results: list[ShotScores], main: ShotScores, score: str) -> list[Conclusion]:
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
        f"{name} {_moves(whole, unit)} from {first.shots} to {_shots([main.shots])}, "
        f"on the same {_count(len(main.names), 'task')}."
    )
    texts = {
        "help": (Verdict.GOOD, "Adapting helps"),
        "harm": (Verdict.PROBLEM, "Adapting does harm"),
        "little": (Verdict.NOTE, "Adapting changes little"),
        "unknown": (Verdict.UNKNOWN, "Whether adapting helps cannot be told"),
    }
    verdict, text = texts[_kind(whole, score)]
    found = [Conclusion("Learning", verdict, f"{text}: {what}")]
    steps = list(itertools.pairwise(results))
    if len(steps) > 1:
        found += _steps(steps, score, unit)
    return found


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
            numbers.append(f"{name}: {_signed(change, unit)}")
    if not groups:
        return []
    parts = [f"{_join(groups[kind])} {text}" for kind, text in words.items() if kind in groups]
    verdict = Verdict.UNKNOWN if set(groups) == {"unknown"} else Verdict.NOTE
    text = f"The points that lead from one number of shots to the next: {'; '.join(parts)}."
    return [Conclusion("Step by step", verdict, text, tuple(numbers))]


def _change(first: ShotScores, last: ShotScores, score: str, alpha: float) -> Interval | None:
    """Of the error: relative change of its mean over tasks. Of the accuracy: difference over points. On the same tasks.

    None where there is nothing to compare: no error to begin with, or an infinite one.
    """
    before, after = first.scores[score][_places(first, last)], last.scores[score]
    if score == "accuracy":
        return ratio(last.points * (after - before), last.points.astype(float), alpha)
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


def _width(first: ShotScores, main: ShotScores, level: float, spread: float | None) -> list[Conclusion]:
    before, after = first.scores["width"][_places(first, main)] * main.points, main.scores["width"] * main.points
    if not np.isfinite(before + after).all() or before.sum() <= 0.0:
        return []
    sentences = []
    name = f"{100 * level:g} %"
    if first.shots < main.shots:
        each = ratio(after, before, LEVEL)
        limits = f" ({each.low:.2f} to {each.high:.2f})" if np.isfinite(each.low) else ""
        sentences.append(
            f"The {name} intervals at {_shots([main.shots])} are {each.estimate:.2f}{limits} times as wide as at "
            f"{_shots([first.shots])}, on the same {_count(len(main.names), 'task')}."
        )
    if spread is not None and spread > 0.0:
        share = float(after.sum() / main.points.sum()) / spread
        sentences.append(
            f"The {name} intervals at {_shots([main.shots])} are {share:.2f} times as wide as the range that holds the "
            f"middle {name} of all outcomes."
        )
    if not sentences:
        return []
    return [Conclusion("Sharpness", Verdict.NOTE, " ".join([*sentences, "Narrow is good only where coverage holds."]))]


def _worst(main: ShotScores) -> list[Conclusion]:
    if len(main.names) < 3:
        return []
    nll = main.scores["nll"]
    order = np.argsort(-nll, kind="stable")
    names = [str(main.names[i]) for i in order[:3]]
    text = (
        f"At {_shots([main.shots])} the outcomes of the tasks {_join(names)} were given the lowest densities. "
        "Some task is always last."
    )
    if np.isfinite(nll).all():
        rest = np.delete(nll, order[0]).mean()
        text += f" With the first of them the mean NLL is {nll.mean():.3g} nats a point, and {rest:.3g} without."
    else:
        text += " An outcome had density zero, so the mean NLL is infinite."
    return [Conclusion("Worst tasks", Verdict.NOTE, text)]


def _moves(change: Interval, unit: str) -> str:
    """Falls by 3 % (1 to 5 %)."""
    if change.holds(0.0):
        return f"changes by {_signed(change, unit)}"
    low, high = sorted((100 * abs(change.low), 100 * abs(change.high)))
    verb = "rises" if change.estimate > 0.0 else "falls"
    return f"{verb} by {100 * abs(change.estimate):.0f} {unit} ({low:.0f} to {high:.0f} {unit})"


def _signed(change: Interval, unit: str) -> str:
    """+3 % (-1 to +7 %)."""
    ends = f" ({100 * change.low:+.0f} to {100 * change.high:+.0f} {unit})" if np.isfinite(change.low) else ""
    text = re.sub(r"[+-]0(?!\d)", "0", f"{100 * change.estimate:+.0f} {unit}{ends}")
    return text.replace("-", "\N{MINUS SIGN}")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _shots(numbers: Sequence[int]) -> str:
    return f"{_join(map(str, numbers))} {'shot' if list(numbers) == [1] else 'shots'}"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _join(parts: Iterable[str]) -> str:
    """a, b and c."""
    words = list(parts)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
