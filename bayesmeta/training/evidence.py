"""Meta-training by full-batch quasi-Newton steps: for evidence problems that are deterministic functions of theta."""

import contextlib
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from bayesmeta.data import Data
from bayesmeta.errors import ConvergenceWarning, DataError, InferenceError, retelling
from bayesmeta.learner import Learner
from bayesmeta.modes import trained
from bayesmeta.noise import Noise, Positive
from bayesmeta.rounding import silently
from bayesmeta.tasks.dataset import TaskDataset, naming_columns
from bayesmeta.training.loop import History, prepare, restoring
from bayesmeta.training.objectives import EvidenceProblem, MaximumLikelihood
from bayesmeta.training.quasi_newton import Minimum, minimise
from bayesmeta.training.result import FitResult
from bayesmeta.training.runs.answers import Ask
from bayesmeta.training.runs.folder import Resume, keeping
from bayesmeta.training.runs.parts import AtStart, ModuleState
from bayesmeta.training.runs.settings import Settings
from bayesmeta.training.runs.signals import Stopped
from bayesmeta.training.starts import Starts, search_all
from bayesmeta.training.theta_map import FAILURES, ThetaMap
from bayesmeta.training.unit_coordinates import Coordinates, UnitMixedModel
from bayesmeta.wrappers.base import require_trainable

COARSE = 1e-5  # nats per point: the slope at which many searches end, the best of which goes on from there
RETURNS = 3  # how often a search may be sent on from a boundary where it should not have ended


@trained
@naming_columns
def fit_evidence(
    learner: Learner,
    tasks: TaskDataset,
    problem: EvidenceProblem | None = None,
    *,
    starts: Starts | None = None,
    max_iterations: int = 500,
    tolerance: float = 1e-9,
    checkpoint: str | Path | None = None,
    every: int = 50,
    resume: Resume | None = None,
) -> FitResult:
    """Maximise the evidence of all tasks over theta, in place, by L-BFGS with a line search that survives failures.

    With `ALPaCA(Identity(D)).double()` this is the maximum-likelihood fit of a linear mixed model. It is searched in
    coordinates of its own, so that units and origins of the features do not matter, from the best of several prior
    covariances; what requires no gradients stays as it is.

    The evidence of a process has several maxima in the numbers of its kernel. With `starts` it is searched from many
    theta at once, the worst of which are given up early, and the best end is where the last search begins; `ends` of
    the result says how far each came, and `agreeing` how many found the best.

    A maximum at a boundary is one: a variance between tasks of zero, or a correlation of one, is what the data say
    where tasks differ by no more than their noise. `notes` names it.

    Args:
        learner: what to train; use float64 (`learner.double()`), or the search ends where rounding begins.
        tasks: all meta-training tasks; all their points are used at every step.
        problem: `MaximumLikelihood()` by default, or `RestrictedMaximumLikelihood()`.
        starts: where else to search from: `bayesmeta.training.Starts(32)`, `HyperpriorStarts`. One that cannot be
            computed is passed over.
        max_iterations: largest number of L-BFGS iterations.
        tolerance: stop when no gradient entry of the loss (nats per point), in scaled coordinates, is larger.
        checkpoint: the folder of the run, as for `fit`; it holds all values and gradients so far, and in the end the
            model. A search that goes on does again what it did, without computing these anew.
        every: evaluations of the evidence between two states.
        resume: what to do with a run that is in the folder: "auto", "never" or None, as for `fit`.

    Returns:
        The history; `stopped_early` says that nothing more was to be gained before `max_iterations`. An evaluation that
        failed, and from which the search backed off, has an infinite loss.

    Warns:
        ConvergenceWarning: the gradient is neither small nor within `tolerance` where the search ended, or a noise is
            at a bound.

    Raises:
        DataError: arguments out of range; a checkpoint folder, as for `fit`.
        InferenceError: the loss is not finite where the search starts.
        UnsupportedError: the learner has no closed form of the evidence, or its theta is final (`Untrainable`).

    Example:
        >>> import bayesmeta as bm
        >>> y = [[0.1, 1.2, 1.8, 3.1], [2.0, 2.4, 3.2, 3.3], [-1.1, 0.7, 1.9, 4.1], [1.3, 2.9, 4.2, 5.6]]
        >>> tasks = bm.TaskDataset.from_list([([0.0, 1.0, 2.0, 3.0], each) for each in y])
        >>> learner = bm.ALPaCA(bm.Identity(1)).double()
        >>> result = bm.fit_evidence(learner, tasks)
        >>> result.stopped_early, learner.prior.location.detach().flatten().round(decimals=1).tolist()
        (True, [0.6, 1.1])
    """
    require_trainable(learner)
    if not isinstance(tasks, TaskDataset):
        raise DataError(f"expected a TaskDataset, got {type(tasks).__name__}: see TaskDataset.from_frame")
    if max_iterations < 1 or not tolerance > 0.0:
        raise DataError(f"expected positive max_iterations and tolerance, got {max_iterations} and {tolerance}")
    problem = MaximumLikelihood() if problem is None else problem
    history = History()

    def settings() -> Settings:
        return {
            "training": "fit_evidence",
            "learner": learner,
            "tasks": tasks,
            "problem": problem,
            "starts": starts,
            "max_iterations": max_iterations,
            "tolerance": float(tolerance),
        }

    with keeping(checkpoint, every, resume, learner, settings) as run:
        prepare(learner, tasks.flat.folded())
        groups = tasks.by_length()
        data = [learner.conform(part.data) for _, part in groups]
        learner.remember(*data)
        parameters = [p for p in learner.parameters() if p.requires_grad]
        if not parameters:
            name = type(learner).__name__
            raise DataError(f"expected parameters to train, got none that requires gradients in {name}")
        run.begin({"history": history, "start": AtStart(ModuleState(learner))})
        found: Minimum | None = None
        ends: tuple[float, ...] = ()
        with (
            contextlib.suppress(Stopped),
            silently(),
            retelling(names=[name for _, part in groups for name in part.names]),
            restoring(parameters) as keep,
        ):
            search = _Search(learner, problem, data, max_iterations, tolerance, keep, run.ask)
            ends = () if starts is None else search.from_many(starts)
            found = search.run(parameters)
            run.conclude()
        problem.finish(learner, *data)
        learner.remember(*data)
        with torch.no_grad():
            problem(learner, *data)  # an approximation that is wrong at this theta warns (LLAMA short of the mode)
        run.finish(learner)
    losses, seconds = tuple(search.losses), history.seconds
    if found is None:
        return FitResult(losses, (), len(losses), False, seconds, ends=ends, converged=False, interrupted=True)
    names = None if tasks.schema is None else tasks.schema.x_names
    notes = () if search.model is None else search.model.boundary(names)
    bounds = _at_bounds(learner)
    converged = _warn(found, bounds, learner, tolerance)
    return FitResult(losses, (), len(losses), not found.is_exhausted, seconds, notes + bounds, ends, converged)


class _Search:
    """The loss of one fit, with its history."""

    def __init__(
        self,
        learner: Learner,
        problem: EvidenceProblem,
        data: Sequence[Data],
        max_iterations: int,
        tolerance: float,
        keep: Callable[[], None],
        ask: Ask,
    ) -> None:
        self.learner, self.problem, self.data, self.ask = learner, problem, data, ask
        self.keep, self.best = keep, -math.inf
        self.steps, self.tolerance = max_iterations, tolerance
        self.points = max(sum(int(each.counts.sum()) for each in data), 1)
        self.losses: list[float] = []
        parts = None if learner.mixed_model is None else learner.mixed_model.parts(*data)
        self.model = None if parts is None else UnitMixedModel(parts, max(int(each.counts.max()) for each in data))

    def run(self, parameters: list[nn.Parameter]) -> Minimum:
        """From a start to a maximum that is one, also in the directions in which a variance is zero."""
        if self.model is None:
            self._begin()
        else:
            self.model.start(self._begin, self.score)
        found = self._descend(parameters)
        for _ in range(RETURNS):
            if self.model is None or not self.model.flatten(self.score) or not self.model.leave_zero(self.score):
                break
            found = self._descend(parameters)
        self.losses.append(-self.score() / self.points)
        return found

    def from_many(self, starts: Starts) -> tuple[float, ...]:
        """Put theta where the best of many searches ended. Returns where each did, in total nats."""
        total = ThetaMap(self.learner, self._total, self.data)
        ends = search_all(
            total,
            total.flat(starts.draw(self.learner, total.names)),
            steps=self.steps,
            tolerance=max(self.tolerance, COARSE),
            points=self.points,
            halving=starts.halving,
            ask=self.ask,
        )
        total.place(ends.points[ends.best])
        return tuple(ends.values.tolist())

    def _begin(self) -> None:
        self.problem.start(self.learner, *self.data)

    def _descend(self, parameters: list[nn.Parameter]) -> Minimum:
        coordinates = Coordinates(parameters, {} if self.model is None else self.model.maps())
        if not math.isfinite(total := self._value()):
            raise InferenceError(f"expected a finite evidence, got {total} where the search starts")

        def computed() -> tuple[Tensor, Tensor]:
            for parameter in parameters:
                parameter.grad = None
            loss = -self._total() / self.points
            loss.backward()
            return loss.detach(), coordinates.pull_back()

        def evaluate(u: Tensor) -> tuple[float, Tensor]:
            coordinates.place(u)

            def answer() -> tuple[Tensor, Tensor]:
                try:
                    return computed()
                except FAILURES:  # a step too far
                    return torch.tensor(math.inf), u

            value, gradient = self.ask(answer)
            loss = value.item()
            is_finite = math.isfinite(loss) and bool(torch.isfinite(gradient).all())
            if is_finite:
                self._seen(-loss * self.points)
            self.losses.append(loss if is_finite else math.inf)
            return self.losses[-1], gradient.to(u)

        found = minimise(evaluate, coordinates.zero, steps=self.steps, tolerance=self.tolerance)
        coordinates.place(found.point)
        return found

    def _total(self) -> Tensor:
        return self.problem(self.learner, *self.data) + self.learner.log_hyperprior()

    def _value(self) -> float:
        (value,) = self.ask(lambda: (self._total().detach(),))
        return value.item()

    @torch.no_grad()
    def score(self) -> float:
        """Total nats; -inf where they cannot be computed."""
        try:
            value = self._value()
        except FAILURES:
            return -math.inf
        if not math.isfinite(value):
            return -math.inf
        self._seen(value)
        return value

    def _seen(self, value: float) -> None:
        """Keep theta where it is the best so far, for an interrupt."""
        if value > self.best:
            self.best = value
            self.keep()


def _at_bounds(learner: Learner) -> tuple[str, ...]:
    """The variances of noise that are at a bound, in words, each once however often the learner has it."""
    notes = []
    for module in learner.modules():
        if isinstance(module, Noise):
            for each in module.modules():
                if isinstance(each, Positive) and each.raw.requires_grad:
                    notes += [f"noise variance at its bound {bound:g}" for bound in each.at_bounds]
    return tuple(dict.fromkeys(notes))


def _warn(found: Minimum, bounds: tuple[str, ...], learner: Learner, tolerance: float) -> bool:
    """Warn where the search has not ended at a maximum within all bounds. Returns whether it has."""
    coarsest = max(torch.finfo(p.dtype).eps for p in learner.parameters())
    if bounds:
        message = (
            f"expected a noise within its bounds, got a {', '.join(bounds)}: the features fit the outcomes exactly, or "
            "the unit of the outcomes is far from their scatter (use Standardized)"
        )
    elif found.steepness <= max(tolerance, coarsest ** (1.0 / 3.0)):  # who asks for less gets it in silence
        return True
    else:
        remedy = "raise max_iterations" if found.is_exhausted else "use Standardized, or fewer parameters"
        remedy = "use float64 (learner.double())" if coarsest > 1e-10 else remedy
        message = (
            f"expected the evidence at its maximum, got a slope of {found.steepness:.1e} nats per point in scaled "
            f"coordinates after {found.steps} steps: {remedy}"
        )
    warnings.warn(message, ConvergenceWarning, stacklevel=3)
    return False
