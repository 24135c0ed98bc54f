"""Candidates of a comparison: how one is written down, and two that are always worth a try.

Candidate        a learner that is made anew, and how it is trained
pooled           one regression for all tasks: nothing is learned of a task from its own points
alone            each task alone: nothing is learned of a task from other tasks
fresh_process    how: a Gaussian process for each task
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from typing_extensions import override

from bayesmeta.arguments import generator_of
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.evaluation.evaluate import names_of_outcomes
from bayesmeta.inference.gauss_newton import LevenbergMarquardt
from bayesmeta.inference.solvers import MapProblem, Solver
from bayesmeta.kernels import MaternKernel
from bayesmeta.learner import Learner
from bayesmeta.learners.baselines.fine_tuned import FineTuned
from bayesmeta.learners.closed_form.alpaca import ALPaCA
from bayesmeta.learners.closed_form.deep_kernel import DeepKernelTransfer
from bayesmeta.learners.gradient.llama import LLAMA
from bayesmeta.learners.gradient.posteriors import PointEstimate
from bayesmeta.likelihoods import Categorical, NegativeBinomial
from bayesmeta.networks.bases import Identity
from bayesmeta.networks.mlp import MLP
from bayesmeta.networks.network import Network
from bayesmeta.noise import DiagonalNoise
from bayesmeta.outcomes import Counts, Labels, Numbers, Outcomes, Positives
from bayesmeta.priors import FullCovariance
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.trainers import ByGradients, OnLogScale, Training
from bayesmeta.training.objectives import Evidence
from bayesmeta.typing import Params
from bayesmeta.wrappers.log_transformed import LogTransformed
from bayesmeta.wrappers.separately import Separately
from bayesmeta.wrappers.standardized import Standardized
from bayesmeta.wrappers.task_hyperparameters import InputScale, NoiseScale, SignalScale
from bayesmeta.wrappers.task_quadrature import TaskQuadrature

WIDTH = 64  # of the two hidden layers of a pooled fit
NOISE = 0.01  # variance that a fresh process expects, in units of the variance of all outcomes
LEAST_RATE = 0.01  # of counts, where there are none
DEVIATION = 0.7  # of the logarithms of what it does not know: 95 % within a factor of four


@dataclass(frozen=True)
class Candidate:
    """A learner that is made anew for every fold, and how it is trained.

    Attributes:
        make: makes an untrained learner.
        train: trains it in place on tasks: `bm.fit_evidence`, or a function that calls `bm.fit` with arguments.

    Example:
        >>> from functools import partial
        >>> import bayesmeta as bm
        >>> tasks = bm.tasks.Sawtooth().dataset(8, 6, seed=0)
        >>> line = Candidate(lambda: bm.ALPaCA(bm.Identity(1)).double(), partial(bm.fit_evidence, max_iterations=5))
        >>> network = Candidate(lambda: bm.ALPaCA(bm.MLP(1, [8])), partial(bm.fit, steps=10, progress=False))
        >>> line(tasks).title, network(tasks).title
        ('ALPaCA', 'ALPaCA')
    """

    make: Callable[[], Learner]
    train: Callable[[Learner, TaskDataset], Any]

    def __call__(self, tasks: TaskDataset) -> Learner:
        """A trained learner."""
        learner = self.make()
        if not isinstance(learner, Learner):
            raise DataError(f"expected make to return a learner, got {type(learner).__name__}")
        self.train(learner, tasks)
        return learner


def pooled(tasks: TaskDataset, steps: int = 2_000) -> Learner:
    """One regression for all tasks together, by a network of two layers: a support changes nothing.

    What cannot beat it does not learn anything from a task's own points that is worth having. Labels have a softmax,
    counts of a table a negative binomial, and of its positive outcomes the logarithms are predicted.

    Args:
        tasks: to learn from.
        steps: of the training, which a fifth of the tasks may stop before.

    Example:
        >>> import bayesmeta as bm
        >>> learner = pooled(bm.tasks.Sawtooth().dataset(12, 6, seed=0), steps=10)
        >>> before, after = (learner.adapt(bm.Data.from_arrays(x, x)) for x in ([], [0.1, 0.9]))
        >>> bool(before.predict([0.5]).mean == after.predict([0.5]).mean)
        True
    """
    if tasks.has_gaps:
        return _of_each_outcome(partial(pooled, steps=steps), tasks)
    training, kind = Training(steps=steps, progress=False), _kind(tasks)
    num_inputs, features = _num_inputs(tasks), _features(tasks)
    if isinstance(kind, Labels | Counts):
        likelihood = Categorical(num_classes(tasks)) if isinstance(kind, Labels) else NegativeBinomial(kind.count)
        network = FineTuned(features, likelihood=likelihood, solver=_Stay(), posterior=PointEstimate())
        return ByGradients()(Standardized(network), tasks, training).learner
    shared = FullCovariance(WIDTH if num_inputs else 1, varying=[])
    learner: Learner = Standardized(ALPaCA(features, num_outputs=kind.count, covariance=shared))
    if isinstance(kind, Positives):
        return OnLogScale(ByGradients(Evidence()))(LogTransformed(learner), tasks, training).learner
    return ByGradients(Evidence())(learner, tasks, training).learner


def alone(tasks: TaskDataset) -> Learner:
    """Each task alone: `fresh_process` for numbers, for labels a logistic regression with coefficients from N(0, 1).

    Of the positive outcomes of a table the process is of the logarithms, and its counts have a log-linear regression,
    around the logarithm of the mean of all counts. What cannot beat it does not learn anything from other tasks that is
    worth having.

    Args:
        tasks: to take the units of.

    Example:
        >>> import bayesmeta as bm
        >>> tasks = bm.TaskDataset.from_labels([([0.0, 1.0, 2.0, 3.0], [0, 0, 1, 1])] * 3)
        >>> learner = alone(tasks)
        >>> learner.adapt(bm.Data.from_labels([], [])).predict([1.0]).probs
        tensor([[[0.5000, 0.5000]]], dtype=torch.float64)
        >>> bool(learner.adapt(tasks.data.select([0])).predict([3.0]).probs[0, 0, 1] > 0.6)
        True
    """
    if tasks.has_gaps:
        return _of_each_outcome(alone, tasks)
    kind = _kind(tasks)
    if isinstance(kind, Positives):
        logged = replace(tasks.flat, y=tasks.flat.y.log())
        return LogTransformed(fresh_process(TaskDataset(logged, tasks.names)))
    if not isinstance(kind, Labels | Counts):
        return fresh_process(tasks)
    likelihood = Categorical(num_classes(tasks)) if isinstance(kind, Labels) else NegativeBinomial(kind.count)
    linear = LLAMA(Identity(_num_inputs(tasks)), solver=LevenbergMarquardt(20), precision=1.0, likelihood=likelihood)
    with torch.no_grad():  # no class, and no task, is preferred before a point of it is seen
        for name, mean in linear.network.named_parameters():
            mean.zero_()
            if isinstance(kind, Counts) and name.endswith("bias"):
                rate = tasks.flat.y.double().mean(0).clamp(min=LEAST_RATE)
                mean.copy_(rate.log())
    learner = Standardized(linear).double()
    learner.prepare(tasks.pooled(generator_of(0)))
    return learner


def fresh_process(tasks: TaskDataset) -> Learner:
    """A Gaussian process for each task alone; its scales of noise, signal and inputs are integrated out.

    Of other tasks it knows the units: means and deviations of inputs and outcomes. What cannot beat it does not learn
    anything from other tasks that is worth having.

    Args:
        tasks: to take the units of, with outcomes that are numbers.

    Raises:
        UnsupportedError: outcomes are labels.

    Example:
        >>> import bayesmeta as bm
        >>> tasks = bm.tasks.GPFunctions.eq().dataset(12, 6, seed=0)
        >>> learner = fresh_process(tasks)
        >>> learner.title
        'Standardized(TaskQuadrature(DeepKernelTransfer))'
        >>> learner.adapt(tasks.data.select([0]))
        posterior of 1 task after 6 points
    """
    num_inputs, num_outputs = _num_inputs(tasks), _num_outputs(tasks)
    process = DeepKernelTransfer(
        Identity(num_inputs),
        num_outputs=num_outputs,
        kernel=MaternKernel(2.5, lengthscale=math.sqrt(max(num_inputs, 1))),
        noise=DiagonalNoise(num_outputs, initial=NOISE),
    )
    unknown = [NoiseScale(2.0 * DEVIATION), SignalScale(DEVIATION), InputScale(DEVIATION)]
    learner = Standardized(TaskQuadrature(process, unknown, nodes=5)).double()
    learner.prepare(tasks.pooled(generator_of(0)))
    return learner


def num_classes(tasks: TaskDataset) -> int:
    """How many classes the outcomes of tasks have: those of their table, or as many as the largest label tells.

    Args:
        tasks: with labels.

    Example:
        >>> import bayesmeta as bm
        >>> num_classes(bm.TaskDataset.from_labels([([0.0, 1.0], [0, 2])]))
        3
    """
    named = () if tasks.schema is None else tasks.schema.classes
    return len(named) or max(int(tasks.flat.y.max()) + 1, 2)


class _Stay(Solver):
    """Takes no step: a network that is fine-tuned by it is the one of all tasks."""

    unrolls = True

    @override
    def solve(self, problem: MapProblem) -> Params:
        return problem.start


def _of_each_outcome(make: Callable[[TaskDataset], Learner], tasks: TaskDataset) -> Learner:
    """A learner for each outcome, from the points where it was measured."""
    names = names_of_outcomes(tasks)
    return Separately({name: make(tasks.of_outcome(place)) for place, name in enumerate(names)})


def _kind(tasks: TaskDataset) -> Outcomes:
    """What outcomes are: as their table says, or numbers or labels."""
    return tasks.flat.folded().outcomes if tasks.schema is None else tasks.schema.outcome_kind


def _num_inputs(tasks: TaskDataset) -> int:
    return int(tasks.flat.x[0].numel())


def _features(tasks: TaskDataset) -> Network:
    size = _num_inputs(tasks)
    return MLP(size, [WIDTH, WIDTH]) if size else Identity(0)


def _num_outputs(tasks: TaskDataset) -> int:
    outcomes = tasks.flat.folded().outcomes
    if not isinstance(outcomes, Numbers):
        raise UnsupportedError("expected outcomes that are numbers for fresh_process, got labels")
    return outcomes.count
