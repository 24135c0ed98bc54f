"""The surrogate: a Gaussian process over architectures, which says what a trial would score before it is made.

    score(a, b) ~ GP(m, k(h, h')),   h = features of architecture a, and log10 of its budget b (steps or seconds)

Each score has its own known noise, the square of its error over validation tasks, besides a learned one. The numbers of
the kernel and the noise are where the evidence, with log-normal hyperpriors, is highest. It is `DeepKernelTransfer` on
one task, whose points are trials.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from bayesmeta.data import Data
from bayesmeta.errors import ConvergenceWarning
from bayesmeta.hyperpriors import LogNormalHyperprior
from bayesmeta.kernels import RBFKernel
from bayesmeta.learner import Learner, TaskPosterior
from bayesmeta.learners.closed_form.deep_kernel import DeepKernelTransfer
from bayesmeta.networks.bases import Inputs
from bayesmeta.noise import DiagonalNoise
from bayesmeta.one_line import OneLine, several
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.training.architectures.budgets import Budget
from bayesmeta.training.architectures.spaces import Architecture, Space
from bayesmeta.training.architectures.trials import Trial
from bayesmeta.training.evidence import fit_evidence
from bayesmeta.wrappers.with_hyperprior import WithHyperprior

FAR = 4.0  # times the distance from the median to the upper quartile: scores that are lower count as that low
NOISE = 0.05  # the median variance of what chance does, a priori, in units of the scores' variance
LENGTHSCALE = 1.0  # the median, in units of the features, most of which go from 0 to 1; and of the signal's variance
SPREAD = 1.0  # standard deviation of the logarithms, a priori: a handful of trials cannot say that all are alike


@dataclass(frozen=True, eq=False)
class Surrogate(OneLine):
    """What trials say of the scores of other architectures.

    Scores far below the median are as good as at 4 times the distance from it to the upper quartile, so that one
    training that went wrong does not set the scale of all.

    Attributes:
        space: of the architectures.
        budget: of the trials.
        learner: the process, with learned numbers of its kernel.
        posterior: given the trials.
        center: what was subtracted from scores.
        scale: what they were divided by.

    Example:
        >>> import bayesmeta as bm
        >>> space = bm.training.DenseSpace(1, depths=(1, 2), widths=(4, 8, 16), activations=("relu",))
        >>> trials = [
        ...     Trial(each, 0, 0, 50, 0, 0, density=(0.0,), score=-1.0 / each["width"], error=0.01)
        ...     for each in space.smallest()
        ... ]
        >>> surrogate = Surrogate.fit(space, bm.training.Steps((50,)), trials)
        >>> mean, deviation = surrogate.scores(space.all(), rung=0)
        >>> bool(mean[0] < mean[1] < mean[2]), mean.shape
        (True, (15,))
    """

    space: Space
    budget: Budget
    learner: DeepKernelTransfer
    posterior: TaskPosterior
    center: float
    scale: float

    def __repr__(self) -> str:
        """One line."""
        seen = self.posterior.points_seen
        return f"surrogate of {several(0 if seen is None else int(seen), 'trial')}"

    @classmethod
    def fit(cls, space: Space, budget: Budget, trials: Sequence[Trial]) -> "Surrogate":
        """The process, with numbers that the trials and their hyperprior make most probable.

        Args:
            space: of the architectures.
            budget: of the trials.
            trials: those without a score are left out; at least one has one.
        """
        known = [trial for trial in trials if not trial.failure]
        score = np.array([trial.score for trial in known])
        upper, middle = np.quantile(score, 0.75), np.median(score)
        score = np.maximum(score, middle - FAR * max(upper - middle, 1e-9))
        center, scale = float(score.mean()), float(score.std()) or 1.0
        x = np.array([_inputs(space, budget, trial.architecture, trial.rung) for trial in known])
        errors = np.array([trial.error for trial in known]) / scale
        data = Data.from_arrays(x, (score - center) / scale, yerr=errors)
        kernel = RBFKernel(lengthscale=LENGTHSCALE)
        learner = DeepKernelTransfer(Inputs(x.shape[1]), kernel=kernel, noise=DiagonalNoise(1, NOISE)).double()
        believed: Learner = learner
        for name, median in (("kernel", LENGTHSCALE), ("likelihood", NOISE)):
            believed = WithHyperprior(believed, LogNormalHyperprior(median, SPREAD, name))
        with warnings.catch_warnings():  # fifty iterations are enough to rank by
            warnings.simplefilter("ignore", ConvergenceWarning)
            fit_evidence(believed, TaskDataset(data), max_iterations=50)
        return cls(space, budget, learner, learner.adapt(data), center, scale)

    def scores(self, architectures: Sequence[Architecture], rung: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of what architectures would score, nats per point, each `n`.

        Args:
            architectures: n of them.
            rung: of the budget that they would have.
        """
        x = np.array([_inputs(self.space, self.budget, each, rung) for each in architectures])
        predictive = self.posterior.predict(torch.as_tensor(x)[None]).noiseless
        mean, deviation = (value[0, :, 0].numpy() for value in (predictive.mean, predictive.stddev))
        return self.center + self.scale * mean, self.scale * deviation


def _inputs(space: Space, budget: Budget, architecture: Architecture, rung: int) -> list[float]:
    return [*space.features(architecture), math.log10(budget.rungs[rung])]
