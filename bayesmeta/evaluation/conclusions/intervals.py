"""Intervals over tasks: of a mean share, and of a ratio of sums.

    mean share of a task    Gaffke's (2005; Learned-Miller & Thomas 2019), which as far as is known holds for shares of
                            any distribution: a few tasks that went well say little of one that will not
    ratio Σ_t a_t/Σ_t b_t   Student's t with T - 1 degrees of freedom on the linearised residuals a_t - R b_t

They differ from the bootstrap of `Evaluation.table`, which is too short with few tasks and empty where all tasks agree.
"""

import math
from dataclasses import dataclass

import numpy as np

DRAWS = 8_000  # of weights for an interval


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


def mean_share(shares: np.ndarray, alpha: float) -> Interval:
    """The mean share of T tasks, `T` between 0 and 1, with its interval of probability 1 - alpha.

    Each end is a quantile of Σ_t w_t share_t with w ~ Dirichlet(1..1) over the tasks and one more that is as extreme as
    can be, 0 for the lower and 1 for the upper end: a task such as none so far is never ruled out. Where shares are 0
    or 1 this is Clopper & Pearson's interval, and with many tasks the normal one.

    Example:
        >>> interval = mean_share(np.ones(10), alpha=0.05)
        >>> interval.estimate, round(interval.low, 1), round(interval.high, 1)
        (1.0, 0.7, 1.0)
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
    """R = Σ above / Σ below of T tasks, `T` each, with its interval of probability 1 - alpha; infinite for one task.

    Example:
        >>> ratio(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0]), alpha=0.05)
        Interval(estimate=0.5, low=0.5, high=0.5)
    """
    from scipy.stats import t

    tasks = len(above)
    estimate = float(above.sum() / below.sum())
    if tasks < 2:
        return Interval(estimate, -np.inf, np.inf)
    residual = above - estimate * below
    deviation = math.sqrt(tasks / (tasks - 1.0) * float((residual**2).sum())) / abs(float(below.sum()))
    half = float(t.ppf(1.0 - alpha / 2.0, tasks - 1)) * deviation
    return Interval(estimate, estimate - half, estimate + half)
