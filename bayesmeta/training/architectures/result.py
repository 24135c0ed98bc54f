"""What a search has found: the finalists, how sure their order is, and the average of them.

p(a | validation tasks) ∝ p(a) exp(Σ_t log p(query_t | support_t, theta_a, a)),   log p(a) = -price · parameters of a
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bayesmeta.errors import InferenceError
from bayesmeta.learner import Learner
from bayesmeta.one_line import OneLine, several
from bayesmeta.training.architectures.spaces import Architecture
from bayesmeta.training.architectures.trials import Trial
from bayesmeta.wrappers.stacked import Stacked

if TYPE_CHECKING:
    import pandas as pd

NOISE = 2.0  # standard errors of a difference within which it is noise
LEAST = 1e-3  # a weight below this does not pay for its training


@dataclass(frozen=True, eq=False)
class SearchResult(OneLine):
    """The trials of a search: what `ArchitectureSearch.run` gives.

    Attributes:
        trials: all of them, in the order in which they were made.
        points: query points of all validation tasks together.
        last: the last rung; architectures that were trained with its budget are the finalists.
        price: nats that a parameter costs: log p(a) = -price · parameters.
        train: trains an architecture with the budget of its trial anew, or returns what is trained already.

    Example:
        >>> import bayesmeta as bm
        >>> small, large = bm.training.DenseSpace(1, depths=(1,), widths=(8, 16), activations=("relu",)).all()
        >>> trials = [
        ...     Trial.scored(each, density, [10, 10], rung=0, round=0, steps=100, seed=0, parameters=16)
        ...     for each, density in ((small, [-1.0, -1.2]), (large, [-1.1, -1.05]))
        ... ]
        >>> result = SearchResult(tuple(trials), 20, 0, 0.0, lambda trial: bm.ALPaCA(bm.Identity(1)))
        >>> result.best, {str(name): round(weight, 3) for name, weight in result.weights().items()}
        (depth 1, width 16, relu, {'depth 1, width 16, relu': 0.622, 'depth 1, width 8, relu': 0.378})
        >>> print(result)
        best of 2 finalists: depth 1, width 16, relu, -1.075 ± 0.018 nats per point
        depth 1, width 8, relu is 0.025 ± 0.125 behind: within noise
        1 of the 2 finalists is within noise of the best; the smallest of these is depth 1, width 16, relu
        >>> result.averaged()
        Stacked: .62 depth 1, width 16, relu + .38 depth 1, width 8, relu
    """

    trials: tuple[Trial, ...]
    points: int
    last: int
    price: float
    train: Callable[[Trial], Learner]

    def __repr__(self) -> str:
        """One line."""
        trials, finalists = several(len(self.trials), "trial"), several(len(self.finalists), "finalist")
        return f"search of {trials}, {finalists}: {self.best}"

    def __str__(self) -> str:
        """The best, how far the others are behind, and which of these differences are noise."""
        return "\n".join(self.conclusions)

    def log_joint(self, trial: Trial) -> float:
        """log p(a) + log evidence of its trial, up to a constant, nats."""
        return trial.evidence - self.price * trial.parameters

    @property
    def finalists(self) -> tuple[Trial, ...]:
        """The trials with the whole budget, the most probable first.

        Raises:
            InferenceError: all of them failed.
        """
        found = [trial for trial in self.trials if trial.rung == self.last and not trial.failure]
        if not found:
            why = next((trial.failure for trial in self.trials if trial.failure), "there was none")
            raise InferenceError(f"expected an architecture that can be trained, got failures alone: {why}")
        return tuple(sorted(found, key=self.log_joint, reverse=True))

    @property
    def best(self) -> Architecture:
        """The most probable architecture."""
        return self.finalists[0].architecture

    @property
    def simplest(self) -> Architecture:
        """The one with the fewest parameters among the best and those within noise of it."""
        alike = [self.finalists[0], *(trial for trial in self.finalists[1:] if self._is_noise(trial))]
        return min(alike, key=lambda trial: trial.parameters).architecture

    def behind(self, trial: Trial) -> tuple[float, float]:
        """How far a trial's score is behind that of the best, nats per point, and the standard error over tasks.

        Both have the same validation tasks: what is hard for all cancels in the error.
        """
        difference = np.subtract(self.finalists[0].density, trial.density)
        error = difference.std(ddof=1) / len(difference) ** 0.5 if len(difference) > 1 else float("nan")
        return float(difference.mean()), float(error)

    @property
    def conclusions(self) -> tuple[str, ...]:
        """What follows, a sentence each; that a difference is within noise is a conclusion, too."""
        best, *others = self.finalists
        count = several(len(self.finalists), "finalist")
        lines = [f"best of {count}: {best.architecture}, {best.score:.3f} ± {best.error:.3f} nats per point"]
        for trial in others:
            gap, error = self.behind(trial)
            side = "behind" if gap >= 0.0 else "ahead, for more parameters,"
            noise = ": within noise" if self._is_noise(trial) else ""
            lines.append(f"{trial.architecture} is {abs(gap):.3f} ± {error:.3f} {side}{noise}")
        alike = sum(map(self._is_noise, others))
        if alike:
            lines.append(
                f"{alike} of the {count} {'is' if alike == 1 else 'are'} within noise of the best; the smallest of "
                f"these is {self.simplest}"
            )
        return tuple(lines)

    def weights(self) -> dict[Architecture, float]:
        """p(a | validation tasks) of each finalist, the most probable first."""
        joint = np.array([self.log_joint(trial) for trial in self.finalists])
        share = np.exp(joint - joint.max())
        names = [trial.architecture for trial in self.finalists]
        return dict(zip(names, (share / share.sum()).tolist(), strict=True))

    def learner(self, architecture: Architecture | None = None) -> Learner:
        """A trained learner: that of the search where it is at hand, else trained anew with the same seed and steps.

        Args:
            architecture: one of the finalists; the best by default.
        """
        wanted = self.best if architecture is None else architecture
        return self.train(next(trial for trial in self.finalists if trial.architecture == wanted))

    def averaged(self) -> Stacked:
        """The finalists as one learner: a mixture of their predictives with `weights()`.

        Those below a thousandth are left out. Evidence is a sum over tasks, so that with hundreds of validation tasks
        most of the weight is on one.
        """
        kept = {a: weight for a, weight in self.weights().items() if weight >= LEAST}
        return Stacked({str(a): self.learner(a) for a in kept}, {str(a): weight for a, weight in kept.items()})

    def table(self) -> "pd.DataFrame":
        """One row for each trial, in their order: what was chosen, and the columns of `Trial` but for the densities."""
        import pandas as pd

        columns = ("round", "rung", "steps", "seed", "parameters", "seconds", "score", "error", "evidence", "failure")
        return pd.DataFrame(
            [
                {"round": trial.round} | dict(trial.architecture.choices) | {n: getattr(trial, n) for n in columns}
                for trial in self.trials
            ]
        )

    def _is_noise(self, trial: Trial) -> bool:
        gap, error = self.behind(trial)
        return not abs(gap) > NOISE * error
