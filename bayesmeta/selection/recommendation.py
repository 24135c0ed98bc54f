"""Which of several learners to take, in one plain sentence or a few: the simplest of those that predict best.

Learners are compared over all numbers of shots together, task by task. Of those within one standard error of the best
the simplest is taken (the rule of Breiman, Friedman, Olshen, Stone 1984, section 3.4.3), by the number of parameters
that it learns. Baselines are never taken: what is said of them is whether learning across tasks, and from the points of
a task, is worth having here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bayesmeta.evaluation.conclusions.wording import joined
from bayesmeta.one_line import several
from bayesmeta.selection.comparison import LEVEL, bootstrap_interval, paired_difference, standard_error

FEWEST = 6  # tasks; with fewer, resampling them says nothing
POOLED, ALONE = "pooled", "alone"
MEANING = {
    POOLED: "one regression for all tasks",
    ALONE: "each task alone",
}
"""What the baselines are that a cross-validation always has beside it."""


@dataclass(frozen=True)
class Recommendation:
    """What to take.

    Attributes:
        name: of the candidate; None where no candidate is worth taking.
        text: why, in sentences that begin with what to do.
        is_told: whether it is better than anything that it was compared with, beyond noise.

    Example:
        >>> print(Recommendation("line", "Take line: there is no other.", is_told=False))
        Take line: there is no other.
    """

    name: str | None
    text: str
    is_told: bool

    def __str__(self) -> str:
        """The sentences."""
        return self.text


@dataclass(frozen=True)
class _Gap:
    """By how much one candidate is ahead of another, nats a point, with its interval and standard error."""

    estimate: float
    low: float
    high: float
    error: float

    @property
    def is_ahead(self) -> bool:
        return self.low > 0.0

    @property
    def is_behind(self) -> bool:
        return self.high < 0.0

    def __str__(self) -> str:
        sign = "+" if self.estimate >= 0.0 else ""
        return f"{sign}{self.estimate:.3f}, {self.low:.3f} to {self.high:.3f}".replace("-", "\N{MINUS SIGN}")


def recommendation(
    candidates: Sequence[str],
    scores: np.ndarray,
    shots: Sequence[int],
    sizes: Mapping[str, int],
    baselines: Sequence[str] = (),
    num_bootstrap: int = 2_000,
    seed: int = 0,
) -> Recommendation:
    """Which candidate to take.

    Args:
        candidates: their K names, those of the baselines among them.
        scores: `S T K`, the mean log density of a point of each task at each number of shots, nats; NaN where a task
            has no point.
        shots: the S numbers of shots.
        sizes: how many numbers each candidate learns.
        baselines: the candidates that are there to be beaten.
        num_bootstrap: resamplings of the tasks.
        seed: of these.

    Example:
        >>> noise = np.random.default_rng(0).normal(size=(1, 30, 1))
        >>> scores = noise + [-1.0, -1.0001, -1.5]  # what is hard for one is hard for all
        >>> found = recommendation(["stack", "line", "pooled"], scores, [3], {"stack": 90, "line": 5}, ["pooled"])
        >>> found.name, found.is_told
        ('stack', True)
    """
    judge = _Judge(scores, max(len(candidates) - 1, 1), num_bootstrap, seed)
    methods = [k for k, name in enumerate(candidates) if name not in baselines]
    taken = _simplest(judge, methods, [sizes.get(name, 0) for name in candidates])
    name, tasks = candidates[taken], several(len(judge.each), "task")
    gaps = {other: judge.gap(taken, k) for k, other in enumerate(candidates) if k != taken}
    lost = {other: found for other, found in gaps.items() if found.is_behind and other in baselines}
    if lost:
        parts = [
            f"{other} ({_meaning(other)}) predicts better than {name}, by {-found.estimate:.3f} nats a point"
            for other, found in lost.items()
        ]
        text = f"Take none of these: {joined(parts)}, on {tasks}. {_remedy(list(lost))}"
        return Recommendation(None, text, is_told=True)
    ahead = [other for other, found in gaps.items() if found.is_ahead]
    equal = [other for other in gaps if other not in ahead]
    text = f"Take {name}: there is nothing to compare it with."
    if gaps and (not ahead or len(judge.each) < FEWEST):
        what = "the simplest of what predicts best so far" if len(methods) > 1 else "the only method"
        text = (
            f"Nothing can be told from {tasks}: no difference is larger than noise. Take {name}, {what}, until there "
            "are more tasks."
        )
        equal = []
    elif gaps:
        few = [other for other in equal if other not in baselines]
        is_simplest = all(sizes.get(name, 0) <= sizes.get(other, 0) for other in few)
        text = _account(name, gaps, few, ahead, is_simplest, len(methods), shots)
        text += "".join(
            f" From {other} ({_meaning(other)}) it cannot be told ({gaps[other]}): {_doubt(other)}."
            for other in equal
            if other in baselines
        )
    text += _exceptions(judge, candidates, taken, shots)
    return Recommendation(name, text, is_told=bool(ahead) and len(ahead) == len(gaps) and len(judge.each) >= FEWEST)


class _Judge:
    """Compares candidates task by task."""

    def __init__(self, scores: np.ndarray, others: int, num_bootstrap: int, seed: int) -> None:
        self.scores, self.others, self.num_bootstrap, self.seed = scores, others, num_bootstrap, seed
        self.each = _over_shots(scores)

    def gap(self, a: int, b: int, place: int | None = None) -> _Gap:
        """How far a is ahead of b: at all shots together, or at those of one place; for all that is asked together."""
        if place is None:
            table, level = self.each, LEVEL / self.others
        else:
            table, level = _over_shots(self.scores[place : place + 1]), LEVEL / (self.others * len(self.scores))
        difference = paired_difference(table[:, a], table[:, b])
        low, high = bootstrap_interval(difference, level, self.num_bootstrap, self.seed)
        return _Gap(float(difference.mean()), low, high, standard_error(difference))


def _simplest(judge: _Judge, methods: Sequence[int], sizes: Sequence[int]) -> int:
    """Of the methods within a standard error of the best one, and not told from it, the one that learns least."""
    means = judge.each.mean(0)
    best = max(methods, key=lambda k: (means[k], -k))
    near = [best]
    for k in methods:
        behind = judge.gap(best, k)
        if k != best and not behind.is_ahead and behind.estimate <= behind.error:
            near.append(k)
    return min(near, key=lambda k: (sizes[k], -means[k]))


def _account(
    name: str,
    gaps: Mapping[str, _Gap],
    few: list[str],
    ahead: list[str],
    is_simplest: bool,
    num_methods: int,
    shots: Sequence[int],
) -> str:
    """Why it is taken, where something can be told; `few` are the methods that it is not told from."""
    at = f"{joined(map(str, shots))} {'shot' if list(shots) == [1] else 'shots'}{' together' if len(shots) > 1 else ''}"
    if few:
        why = f"of what predicts best at {at} it is the simplest" if is_simplest else f"it has predicted best at {at}"
        others = joined(f"{other} ({gaps[other]})" for other in few)
        text = f"Take {name}: {why}; no difference from {others} is larger than noise."
    else:
        text = f"Take {name}: it predicts best at {at}." if num_methods > 1 else f"Take {name}."
    return f"{text} It is ahead of {joined(f'{other} ({gaps[other]})' for other in ahead)}, nats a point."


def _over_shots(scores: np.ndarray) -> np.ndarray:
    """The mean of each task over the numbers of shots that it has points for, `T K`, without tasks that have none."""
    present = ~np.isnan(scores).any(-1)
    total = np.where(present[..., None], scores, 0.0).sum(0)
    count = present.sum(0)
    return total[count > 0] / count[count > 0, None]


def _exceptions(judge: _Judge, candidates: Sequence[str], taken: int, shots: Sequence[int]) -> str:
    """Numbers of shots at which another candidate, be it a baseline, is better than what is taken."""
    said = ""
    for place, shot in enumerate(shots if len(shots) > 1 else ()):
        better = {k: judge.gap(k, taken, place) for k in range(len(candidates)) if k != taken}
        told = [(found.estimate, k) for k, found in better.items() if found.is_ahead]
        if told:
            most, k = max(told)
            said += f" But at {several(shot, 'shot')} {candidates[k]} is better than it, by {most:.3f} nats a point."
    return said


def _meaning(name: str) -> str:
    return MEANING.get(name, "a baseline")


def _doubt(name: str) -> str:
    doubts = {
        POOLED: "whether a task's own points are worth having is open",
        ALONE: "whether the other tasks are worth having is open",
    }
    return doubts.get(name, "whether it is worth having is open")


def _remedy(names: Sequence[str]) -> str:
    if POOLED in names:
        return "What tasks differ by is not learned here: look for inputs that tell them apart, or for another method."
    return "The tasks have too little in common for these methods, or there are too few of them."
