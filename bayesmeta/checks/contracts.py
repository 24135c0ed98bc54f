"""Does a learner of your own keep what every learner here promises?

What callers rely on without saying so: padding is no data, tasks of a batch do not see each other, `update` is adapting
to all points, a posterior is a value, gradients are those of the loss. The suite of the library holds its own learners
to these contracts, and to more (`tests/contracts`); here they are for a learner that lives elsewhere.
"""

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical

from bayesmeta.arguments import generator_of, seed_of
from bayesmeta.data import Data, TaskBatch
from bayesmeta.errors import BayesMetaError, DataError, ShapeError, UnsupportedError
from bayesmeta.learner import Learner, TaskPosterior
from bayesmeta.one_line import several
from bayesmeta.outcomes import Counts, Labels, Positives
from bayesmeta.predictives import Predictive
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.source import ClassSplit, RandomSplit
from bayesmeta.training.checkpoint import load, save

MOST_TASKS, SUPPORT, QUERY, SHOTS = 4, 5, 3, 2
SAME = 1e-7  # float64: the same mathematics in another order of summation
SINGLE = 1e-2  # float32, in predictive deviations
FAR = 700.0  # what stands in padding
STEP, SLOPE = 1e-5, 1e-4  # of central differences, and how far a gradient may be from them
LONG_STEP, LONG_SLOPE = 3e-3, 1e-3  # the same where rounding to float32 is less than what is looked for
DEVIATIONS, CELLS = 12.0, 400  # of the line on which a density is added up
# what a learner may raise
RAISED = (BayesMetaError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Contracts:
    """Which contracts a learner keeps: prints as a page.

    Attributes:
        kept: those that it keeps.
        broken: those that it does not, each with what was seen.
        left_out: those that do not apply, each with the reason.

    Example:
        >>> import bayesmeta as bm
        >>> tasks = bm.tasks.Sinusoid().dataset(4, 8, seed=0)
        >>> found = bm.checks.contracts(bm.ALPaCA(bm.MLP(1, [8])), tasks)
        >>> found.all_kept, found.broken
        (True, {})
    """

    kept: tuple[str, ...]
    broken: dict[str, str]
    left_out: dict[str, str]

    @property
    def all_kept(self) -> bool:
        """Whether none is broken."""
        return not self.broken

    def __repr__(self) -> str:
        """A line for each contract."""
        lines = [
            f"{several(len(self.kept), 'contract')} kept, {len(self.broken)} broken, {len(self.left_out)} left out"
        ]
        lines += [f"  kept      {name}" for name in self.kept]
        lines += [f"  left out  {name}: {reason}" for name, reason in self.left_out.items()]
        lines += [f"  BROKEN    {name}: {seen}" for name, seen in self.broken.items()]
        return "\n".join(lines)


def contracts(learner: Learner, tasks: TaskDataset, seed: int = 0) -> Contracts:
    """Hold a learner to the contracts that every learner keeps, on a few tasks, in a copy of it.

    | contract | what it says |
    |---|---|
    | prior predictive | without a point there is a finite prediction, if the learner knows its classes by then |
    | densities | those of a point add up to one over its outcomes (one number, or classes) |
    | padding | what stands in places that are no points changes nothing |
    | order | the order of the support changes nothing, if the learner says `exchangeable` |
    | batch | a batch is its tasks one by one |
    | update | `update`, point by point, gives what adapting to all points at once gives |
    | select | `select` is adapting to these tasks |
    | value | what happens later to theta, or to the data, changes no posterior |
    | queries | a query point changes nothing at another |
    | graph | predictions have no gradients to theta, and have them to query points, where features are differentiable |
    | gradients | those of `meta_loss` are finite, and central differences agree |
    | precision | float32 says what float64 says, within a hundredth of a deviation |
    | saving | a model folder gives the same predictions |
    | evidence | `log_evidence` is the sum of one-step-ahead log densities, where the learner has it |

    A learner keeps them in float64 to seven digits, whatever its theta: the copy's is moved off its starting point.

    Args:
        learner: yours; it is left as it was. The copy is on the CPU.
        tasks: some that are like its own, of eight points or more each; with `Labels()` for outcomes, three points or
            more of each class. The first four are taken, and two are the least.
        seed: of the choice of points, and of how theta is moved.

    Raises:
        DataError: no tasks, or tasks of too few points; a learner whose `condition` gives no `TaskPosterior`, or whose
            posterior's `at` gives no `Predictive`. What the learner raises while it is made ready (`prepare`).
        ShapeError: a predictive that is not one distribution for each point of each task.

    Example:
        >>> from dataclasses import dataclass
        >>> from torch.distributions import Independent, Normal
        >>> import bayesmeta as bm
        >>> class Mean(bm.Learner):  # forgets that padding is no data
        ...     outcomes = bm.Numbers(1)
        ...     def condition(self, support):
        ...         return MeanPosterior(spec=support.spec, learner=self, support=support)
        >>> @dataclass(frozen=True, eq=False, kw_only=True)
        ... class MeanPosterior(bm.Refit):
        ...     def at(self, x):
        ...         mean = self.support.y.sum(1) / (1.0 + self.support.counts)[:, None]
        ...         y = Normal(mean[:, None].expand(*x.shape[:2], 1), 1.0)
        ...         return bm.predictives.IndependentPredictive(Independent(y, 1))
        >>> found = contracts(Mean(), bm.tasks.Sinusoid().dataset(4, 8, seed=0))
        >>> list(found.broken)
        ['padding', 'batch']
        >>> print(found.broken["padding"])
        the loss changes with what stands in places that are no points (use support.mask)
    """
    trial = _Trial.of(learner, tasks, seed_of(seed))
    _require_answers(trial)
    kept, broken, left_out = [], {}, {}
    for name, check in _CHECKS.items():
        try:
            check(trial)
        except _Broken as error:
            broken[name] = str(error)
        except _LeftOut as error:
            left_out[name] = str(error)
        except RAISED as error:
            broken[name] = f"{type(error).__name__}: {error}"
        else:
            kept.append(name)
    return Contracts(tuple(kept), broken, left_out)


class _Broken(Exception):
    """What was seen."""


class _LeftOut(Exception):
    """Why."""


@dataclass(frozen=True)
class _Trial:
    """A copy of the learner in float64, moved off its starting point, and tasks of unequal supports."""

    learner: Learner
    tasks: TaskBatch
    reads_classes: bool  # from the support

    @classmethod
    def of(cls, learner: Learner, tasks: TaskDataset, seed: int) -> "_Trial":
        if not isinstance(tasks, TaskDataset):
            raise DataError(
                f"expected a TaskDataset, got {type(tasks).__name__}: see TaskDataset.from_frame; a simulator gives "
                "one by dataset(4, 8)"
            )
        reads = isinstance(learner.outcomes, Labels) and learner.outcomes.count is None
        split = ClassSplit.at(SHOTS, query=1) if reads else RandomSplit.at(SUPPORT, query=QUERY)
        least = int(tasks.counts.min())
        if len(tasks) < 2 or (least < SUPPORT + QUERY and not reads):
            raise DataError(
                f"expected two tasks or more of {SUPPORT + QUERY} points or more each, got "
                f"{several(len(tasks), 'task')} of {least} points or more"
            )
        batch = tasks.select(range(min(len(tasks), MOST_TASKS))).divided(split, seed)
        trial = copy.deepcopy(learner).cpu().double()
        trial.prepare(trial.conform(batch.joined()))
        batch = trial.conform_tasks(batch)
        if not reads:  # supports of 5, 4, 3, 2 points
            shorter = torch.arange(batch.support.num_points) < SUPPORT - torch.arange(batch.num_tasks)[:, None]
            batch = TaskBatch(_masked(batch.support, shorter), batch.query, batch.names)
        generator = generator_of(seed)
        with torch.no_grad():
            for parameter in trial.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
        return cls(trial, batch, reads)

    @property
    def support(self) -> Data:
        return self.tasks.support

    @property
    def query(self) -> Data:
        return self.tasks.query

    def losses(self, tasks: TaskBatch) -> Tensor:
        return self.learner.meta_loss(tasks)


def _require_answers(trial: _Trial) -> None:
    """Raises where nothing can be tried, as what the learner returns is of another kind. Its own errors are for the
    checks, which say when they come.
    """
    shape: object = None
    try:
        posterior: object = trial.learner.adapt(trial.support)
        prediction: object = posterior.predict(trial.query.x) if isinstance(posterior, TaskPosterior) else None
        if isinstance(prediction, Predictive):
            shape = tuple(prediction.marginals.batch_shape)
    except RAISED:
        return
    if not isinstance(posterior, TaskPosterior):
        raise DataError(
            f"expected a TaskPosterior from {type(trial.learner).__name__}.condition, got {type(posterior).__name__}: "
            "inherit TaskPosterior, or Refit"
        )
    if not isinstance(prediction, Predictive):
        raise DataError(
            f"expected a Predictive from {type(posterior).__name__}.at, got {type(prediction).__name__}: a torch "
            "distribution becomes one by bm.predictives.IndependentPredictive"
        )
    if shape != (places := tuple(trial.query.x.shape[:2])):
        raise ShapeError(
            f"expected predictions of batch shape {places}, tasks and points, got {shape}: the numbers of an outcome "
            "are its event, Independent(Normal(mean, stddev), 1) of a mean with the shape (tasks, points, outcomes)"
        )


def _masked(data: Data, keep: Tensor) -> Data:
    return Data(data.x, data.y, data.mask & keep, data.noise)


def _summary(prediction: Predictive) -> tuple[Tensor, ...]:
    if isinstance(prediction.marginals, Categorical | Bernoulli):
        return (prediction.probs,)
    return prediction.mean, prediction.stddev


def _require_same(a: Any, b: Any, words: str) -> None:
    """Raises _Broken with these words, and how far two predictions or tensors are apart."""
    pairs = zip(*((each,) if isinstance(each, Tensor) else _summary(each) for each in (a, b)), strict=True)
    for one, other in pairs:
        if one.shape != other.shape:
            raise _Broken(f"{words}: shapes {tuple(one.shape)} and {tuple(other.shape)}")
        if not bool(torch.isclose(one, other, rtol=SAME, atol=SAME).all()):
            raise _Broken(words)


def _require_finite(values: "tuple[Tensor, ...] | list[Tensor]", words: str) -> None:
    if not all(bool(value.isfinite().all()) for value in values):
        raise _Broken(words)


def _prior_predictive(trial: _Trial) -> None:
    if trial.reads_classes:
        raise _LeftOut("it reads its classes from the support")
    prediction = trial.learner.adapt(Data.empty(trial.support)).predict(trial.query.x)
    _require_finite((*_summary(prediction), prediction.log_prob(trial.query.y)), "without a point it is not finite")
    if not bool((_summary(prediction)[-1] > 0.0).all()):
        raise _Broken("without a point it has deviations or probabilities that are not positive")


def _densities(trial: _Trial) -> None:
    prediction = trial.learner.adapt(trial.support).predict(trial.query.x)
    values = _summary(prediction)
    if len(values) == 1:
        _require_same(values[0].sum(-1), torch.ones_like(values[0][..., 0]), "probabilities do not add up to 1")
        return
    mean, deviation = values
    if mean.shape[-1] != 1 or isinstance(trial.learner.outcomes, Counts | Positives):
        raise _LeftOut("it is tried for one number on the whole line, and for classes")
    line = torch.linspace(-1.0, 1.0, CELLS + 1, dtype=mean.dtype)
    points = mean + DEVIATIONS * deviation * line[:, None, None, None]  # G B M 1
    total = torch.stack([prediction.marginal_log_prob(each) for each in points]).exp()
    area = torch.trapezoid(total, points[..., 0], dim=0)
    if not bool(((area - 1.0).abs() < 0.01).all()):
        raise _Broken(f"densities of a point add up to {area.min():.3f} to {area.max():.3f} over its outcomes")


def _padding(trial: _Trial) -> None:
    padded = TaskBatch(_padded(trial.support), _padded(trial.query))
    advice = "changes with what stands in places that are no points"
    _require_same(trial.losses(trial.tasks), trial.losses(padded), f"the loss {advice} (use support.mask)")
    a, b = (trial.learner.adapt(each).predict(trial.query.x) for each in (trial.support, padded.support))
    _require_same(a, b, f"a prediction {advice} (use support.mask)")


def _padded(data: Data, extra: int = 2) -> Data:
    def widened(value: Tensor, fill: float) -> Tensor:
        real = data.mask.reshape(*data.mask.shape, *[1] * (value.ndim - 2))
        inside = torch.where(real, value, torch.full_like(value, fill))
        return torch.cat([inside, torch.full_like(value[:, :1], fill).expand(-1, extra, *value.shape[2:])], 1)

    label = -FAR if data.y.is_floating_point() else -7
    noise = None if data.noise is None else widened(data.noise, FAR)
    mask = torch.cat([data.mask, data.mask.new_zeros(data.num_tasks, extra)], 1)
    return Data(widened(data.x, FAR), widened(data.y, label), mask, noise)


def _order(trial: _Trial) -> None:
    if not trial.learner.exchangeable:
        raise _LeftOut("it says that the order matters (exchangeable = False)")
    turned = trial.support.points(torch.arange(trial.support.num_points).flip(0))
    a, b = (trial.learner.adapt(each).predict(trial.query.x) for each in (trial.support, turned))
    _require_same(a, b, "a prediction changes with the order of the support (or say exchangeable = False)")


def _alone(trial: _Trial, task: int) -> TaskBatch:
    support = trial.support.select([task])
    return TaskBatch(support.points(support.mask[0]), trial.query.select([task]))


def _batch(trial: _Trial) -> None:
    each = [_alone(trial, task) for task in range(trial.tasks.num_tasks)]
    alone = torch.cat([trial.losses(one) for one in each])
    _require_same(trial.losses(trial.tasks), alone, "the losses of a batch are not those of its tasks alone")
    together = trial.learner.adapt(trial.support).predict(trial.query.x)
    for task, one in enumerate(each):
        own = trial.learner.adapt(one.support).predict(one.query.x)
        picked = zip(_summary(together), _summary(own), strict=True)
        for all_of_them, its in picked:
            _require_same(
                all_of_them[task : task + 1], its, f"task {task} is predicted otherwise alone than in a batch"
            )


def _update(trial: _Trial) -> None:
    whole = trial.learner.adapt(trial.support).predict(trial.query.x)
    cut = trial.support.num_points // 2 if not trial.reads_classes else trial.support.num_points - 1
    stepwise = trial.learner.adapt(trial.support.points(slice(cut)))
    for place in range(cut, trial.support.num_points):
        stepwise = stepwise.update(trial.support.points(slice(place, place + 1)))
    _require_same(whole, stepwise.predict(trial.query.x), "update does not give what adapting to all points gives")
    a, b = (each.log_prob(trial.query.y) for each in (whole, stepwise.predict(trial.query.x)))
    _require_same(a, b, "after update the joint log density is another one")


def _select(trial: _Trial) -> None:
    chosen = list(range(trial.tasks.num_tasks))[::-1][:2]
    query = trial.query.select(chosen)
    part = trial.learner.adapt(trial.support).select(chosen).predict(query.x)
    alone = trial.learner.adapt(trial.support.select(chosen)).predict(query.x)
    _require_same(part, alone, "select does not give the posterior of these tasks alone")


def _value(trial: _Trial) -> None:
    learner, support = copy.deepcopy(trial.learner), trial.support.clone()
    posterior = learner.adapt(support)
    before = [value.clone() for value in _summary(posterior.predict(trial.query.x))]
    posterior.update(trial.query)
    support.y.zero_()
    support.x.zero_()
    _require_same(
        before[0], _summary(posterior.predict(trial.query.x))[0], "a posterior changes by update, or with the data"
    )
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(1.0)
    words = "a posterior changes with theta after adapt (is a tensor of theta kept elsewhere than in the learner?)"
    _require_same(before[0], _summary(posterior.predict(trial.query.x))[0], words)


def _queries(trial: _Trial) -> None:
    posterior = trial.learner.adapt(trial.support)
    together, alone = posterior.predict(trial.query.x), posterior.predict(trial.query.x[:, :1])
    for one, other in zip(_summary(together), _summary(alone), strict=True):
        _require_same(one[:, :1], other, "a query point is predicted otherwise beside others than alone")


def _graph(trial: _Trial) -> None:
    posterior = trial.learner.adapt(trial.support)
    if _summary(posterior.predict(trial.query.x))[0].requires_grad:
        raise _Broken("predictions after adapt have gradients to theta")
    x = trial.query.x.clone().requires_grad_()
    if not _summary(posterior.predict(x))[0].requires_grad:
        raise _LeftOut("predictions do not depend on x by a differentiable path")


def _gradients(trial: _Trial) -> None:
    learner = copy.deepcopy(trial.learner)
    parameters = [each for each in learner.parameters() if each.requires_grad and each.numel()]
    if not parameters:
        raise _LeftOut("theta has no numbers that are trained")
    learner.meta_loss(trial.tasks).sum().backward()
    gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in parameters]
    _require_finite(gradients, "a gradient of meta_loss is not finite")
    generator = generator_of(1)
    directions = [torch.randn(each.shape, generator=generator, dtype=each.dtype) for each in parameters]
    slope, longer = (_slope(learner, trial.tasks, parameters, directions, step) for step in (STEP, LONG_STEP))
    expected = sum(float((each * way).sum()) for each, way in zip(gradients, directions, strict=True))
    if abs(slope - expected) > SLOPE * max(1.0, abs(slope)):
        words = f"along one direction meta_loss rises by {slope:.6g}, and its gradient says {expected:.6g}"
        if abs(longer - expected) <= LONG_SLOPE * max(1.0, abs(longer)):
            words += (
                "; over a longer way they agree, so that the gradient is right and the loss is rounded: something is "
                "computed in float32 (0.5 * support.counts is: use support.counts.to(support.x))"
            )
        raise _Broken(words)


def _slope(
    learner: Learner, tasks: TaskBatch, parameters: list[nn.Parameter], directions: list[Tensor], step: float
) -> float:
    """How meta_loss rises along the directions, by central differences; theta is then where it was, up to rounding."""
    losses = []
    with torch.no_grad():
        for move in (step, -2.0 * step, step):  # forward, twice back, and home
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.add_(move * direction)
            losses.append(float(learner.meta_loss(tasks).sum()))
    return (losses[0] - losses[1]) / (2.0 * step)


def _precision(trial: _Trial) -> None:
    single = copy.deepcopy(trial.learner).float()
    a, b = (each.adapt(trial.support).predict(trial.query.x) for each in (trial.learner, single))
    one, other = (tuple(value.detach().double() for value in _summary(each)) for each in (a, b))
    scale = one[-1] if len(one) == 2 else torch.ones(())
    for name, x, y in zip(("mean", "deviation"), one, other, strict=False):
        far = float(((x - y).abs() / scale).max())
        if not far < SINGLE:
            raise _Broken(f"in float32 the {name if len(one) == 2 else 'probability'} is {far:.2g} away")


def _saving(trial: _Trial) -> None:
    before = trial.learner.adapt(trial.support).predict(trial.query.x)
    with tempfile.TemporaryDirectory() as folder:
        save(trial.learner, f"{folder}/model")
        again: Learner = load(f"{folder}/model")
    after = again.adapt(trial.support).predict(trial.query.x)
    _require_same(before, after, "what is loaded from a model folder predicts otherwise")


def _evidence(trial: _Trial) -> None:
    data = trial.support
    try:
        evidence: Float[Tensor, "B"] = trial.learner.log_evidence(data).detach()
    except UnsupportedError:
        raise _LeftOut("the learner has none") from None
    if trial.reads_classes or trial.learner.coupled:
        raise _LeftOut("tasks share more than theta, or classes are read from the support")
    chain = torch.zeros_like(evidence)
    for place in range(data.num_points):
        point = data.points(slice(place, place + 1))
        prediction = trial.learner.adapt(data.points(slice(place))).predict(point.x)
        chain = chain + prediction.log_prob(point.y, point.mask)
    _require_same(evidence, chain, "log_evidence is not the sum of one-step-ahead log densities (is it approximate?)")


_CHECKS: dict[str, Callable[[_Trial], None]] = {
    "prior predictive": _prior_predictive,
    "densities": _densities,
    "padding": _padding,
    "order": _order,
    "batch": _batch,
    "update": _update,
    "select": _select,
    "value": _value,
    "queries": _queries,
    "graph": _graph,
    "gradients": _gradients,
    "precision": _precision,
    "saving": _saving,
    "evidence": _evidence,
}
