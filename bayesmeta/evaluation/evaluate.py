"""Judge a learner on held-out tasks, by number of shots, next to the best that is possible where that is known."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Normal

from bayesmeta.arguments import probability, seed_of, shot_counts, whole
from bayesmeta.data import Data
from bayesmeta.errors import DataError, InferenceError, retelling
from bayesmeta.evaluation import metrics
from bayesmeta.evaluation.held_out import HeldOut, predicted, predicts_labels, require_batch
from bayesmeta.evaluation.scores import OF_ONE_OUTCOME, POINT_VALUES, Evaluation, ShotScores
from bayesmeta.evaluation.unseen import ShownClasses, has_fixed_classes, require_class_split, require_free_classes
from bayesmeta.flat import in_order
from bayesmeta.learner import Learner
from bayesmeta.modes import settled
from bayesmeta.predictives import DenseGaussianPredictive, GaussianPredictive, OpenSetPredictive, Predictive
from bayesmeta.tasks.dataset import TaskDataset, naming_columns
from bayesmeta.tasks.source import RandomSplit, Split


@settled
@naming_columns
def evaluate(
    learner: Learner,
    tasks: TaskDataset,
    shots: Sequence[int] = (0, 1, 2, 5, 10),
    *,
    split: type[Split] = RandomSplit,
    query: int | None = None,
    unseen: int = 0,
    level: float = 0.9,
    oracle: Learner | None = None,
    num_bootstrap: int = 1000,
    seed: int = 0,
    batch_size: int = 256,
) -> Evaluation:
    """Adapt to the first points of each task and score the prediction of others, for each number of shots.

    The query points of a task are the same at every number of shots: those that `split` leaves at the largest number
    for which the task has enough points. A task with no more points than a number of shots is left out there, which
    the column `tasks` shows. With `ClassSplit` this is K-shot classification: shots and `query` count points of each
    class, and so does the question whether a task has enough.

    With `unseen`, so many classes of each task, drawn once for all numbers of shots, have no points in its support.
    The others are numbered from 0 without gaps, and scores are of their query points alone, but for `none_auroc` and
    `max_prob_auroc`: these say how well the query points of unseen classes are told from the others.

    Args:
        learner: what is judged; it is left as it was.
        tasks: held-out tasks. Floating outcomes are scored as regression, labels as classification.
        shots: support points of a task (in classification too, unless the split is `ClassSplit`: then of each class).
        split: `RandomSplit`, `PrefixSplit` for forecasting, or `ClassSplit` for K shots of every class.
        query: largest number of query points of a task (`ClassSplit`: of each class); None takes all that are left.
        unseen: classes of each task that its support does not show, with `ClassSplit`; two at least are shown. The
            learner must read its classes from the support, and the tasks' own oracle is left out where it does not.
        level: probability of the central interval whose coverage and width are reported.
        oracle: the exact Bayes predictive to compare with; by default `tasks.oracle`.
        num_bootstrap: resamplings of the tasks for the intervals; 0 gives none.
        seed: of the division into support and query, and of the bootstrap.
        batch_size: tasks adapted to at once.

    Raises:
        DataError: no learner, no or negative or repeated shots, no task with enough points, a level outside (0, 1), a
            `ClassSplit` of tasks without labels; unseen classes without `ClassSplit`, or tasks with too few others.
        UnsupportedError: unseen classes, and a learner or the given oracle with a fixed number of classes.
        ShapeError: the tasks or the predictions do not have the learner's inputs or outputs.
        InferenceError: a score is not a number, or cannot be computed; the task is named.

    Example:
        >>> import bayesmeta as bm
        >>> simulator = bm.tasks.GPFunctions.eq()
        >>> evaluation = evaluate(simulator.oracle, simulator.dataset(30, 12, seed=0), shots=[0, 5], num_bootstrap=0)
        >>> evaluation.table()[["tasks", "points", "regret"]].values.tolist()
        [[30.0, 210.0, 0.0], [30.0, 210.0, 0.0]]
    """
    if not isinstance(learner, Learner):
        raise DataError(
            f"expected a learner, got {type(learner).__name__}: conformal regions are judged by their own method, "
            "conformal.evaluate(tasks, level), and posteriors through the learner that made them"
        )
    shots, level = shot_counts(shots), probability(level, "an interval level")
    num_bootstrap, seed = whole(num_bootstrap, "of bootstrap resamplings"), seed_of(seed)
    require_batch(batch_size)
    unseen = whole(unseen, "of unseen classes")
    if unseen:
        require_class_split(split)
        require_free_classes(learner)
        if oracle is not None:
            require_free_classes(oracle)
    groups = tasks.by_length()
    rooms = [split.room(part.data) for _, part in groups]
    _require_room(min(shots), torch.cat(rooms), split)
    learner = learner.frozen()
    oracle = _comparable_oracle(tasks, unseen) if oracle is None else oracle
    oracle = None if oracle is None else oracle.frozen()
    found: list[list[_Scored]] = [[] for _ in shots]
    for (positions, part), room in zip(groups, rooms, strict=True):
        supports, rest = _divide(part, shots, split, query, seed)
        rest = rest.complete  # a point that lacks some of its outcomes is known, and is not scored at
        outside = torch.zeros_like(rest.mask)
        if unseen:
            classes = ShownClasses.drawn(part.data, unseen, seed)
            classes.require_enough(unseen, (room >= min(shots)).nonzero().flatten(), part.names)
            supports = [classes.support(support) for support in supports]
            rest, outside = classes.query(rest)
        for shot, support, scored in zip(shots, supports, found, strict=True):
            able = ((room >= shot) & rest.mask.any(-1)).nonzero().flatten()
            if not len(able):
                continue
            names, held_out = tuple(part.names[i] for i in able.tolist()), rest.select(able)
            with retelling(names=names):
                scores = _scores(learner, oracle, support.select(able), held_out, outside[able], level, batch_size)
            shown = held_out.mask & ~outside[able]
            _require_numbers(scores, shown, shot, names)
            scored.append(_Scored(positions[able], names, shown, scores))
    if not any(found):
        raise DataError(
            "expected points with all their outcomes to score at, got none: score each outcome on its own, with "
            "tasks.of_outcome(name) and the learner of that outcome"
        )
    results = [_joined(shot, scored) for shot, scored in zip(shots, found, strict=True)]
    names_of_classes = () if tasks.schema is None else tasks.schema.classes
    outcomes = names_of_outcomes(tasks)
    return Evaluation(tuple(results), learner.title, level, num_bootstrap, seed, unseen, names_of_classes, outcomes)


def names_of_outcomes(tasks: TaskDataset) -> tuple[str, ...]:
    """The columns of a table, where the tasks came from one; else y, or y1, y2 for several.

    Example:
        >>> import bayesmeta as bm
        >>> names_of_outcomes(bm.tasks.Sawtooth().dataset(3, 4, seed=0))
        ('y',)
    """
    if tasks.schema is not None:
        return tasks.schema.y
    count = tasks.flat.y.shape[-1] if tasks.flat.y.is_floating_point() else 1
    return ("y",) if count == 1 else tuple(f"y{i + 1}" for i in range(count))


@dataclass(frozen=True, eq=False)
class _Scored:
    """Scores of the tasks of one group: `T`, or `T M ..` of each point."""

    positions: Tensor
    names: tuple[Hashable, ...]
    mask: Tensor
    scores: dict[str, Tensor]


def _joined(shots: int, parts: Sequence[_Scored]) -> ShotScores:
    """The scores of all groups in the order of the tasks, those of points without padding."""
    if not parts:
        return ShotScores(shots, (), np.zeros(0, dtype=int), {})
    order = torch.cat([part.positions for part in parts]).argsort()
    names = [name for part in parts for name in part.names]

    def of_points(name: str) -> np.ndarray:
        return in_order([(part.positions, part.scores[name], part.mask) for part in parts])[0].numpy()

    counts = torch.cat([part.mask.sum(-1) for part in parts])
    kinds = {name: value.ndim for name, value in parts[0].scores.items()}
    of_tasks = {name: torch.cat([p.scores[name] for p in parts])[order].numpy() for name, n in kinds.items() if n == 1}
    outcomes = sum(name.startswith("nll ") for name in of_tasks)
    return ShotScores(
        shots,
        tuple(names[i] for i in order.tolist()),
        counts[order].numpy(),
        {name: value for name, value in of_tasks.items() if " " not in name},
        by_outcome=tuple(
            {name.split(" ")[0]: value for name, value in of_tasks.items() if name.endswith(f" {c}")}
            for c in range(outcomes)
        ),
        **{name: of_points(name) for name in POINT_VALUES if name in kinds},
    )


def _comparable_oracle(tasks: TaskDataset, unseen: int) -> Learner | None:
    """The tasks' own, unless it gives classes that are not shown a part of the probability."""
    oracle = tasks.oracle
    return None if oracle is None or (unseen and has_fixed_classes(oracle)) else oracle


def _require_room(fewest: int, room: Tensor, split: type[Split]) -> None:
    most = int(room.max()) + 1
    if most <= fewest:
        raise DataError(
            f"expected a task with more than {fewest} {split.counted}, one of them to be scored at, got at most {most}"
        )


def _divide(
    tasks: TaskDataset, shots: Sequence[int], split: type[Split], query: int | None, seed: int
) -> tuple[list[Data], Data]:
    """The support of all tasks at each number of shots, and the query points that go with all of them."""
    batches = [tasks.divided(split.at(shot, query), seed) for shot in shots]  # one seed: one order of the points
    room = split.room(tasks.data)
    largest = torch.stack([torch.where(room >= shot, shot, -1) for shot in shots]).argmax(0)  # B, position in shots
    groups = [(largest == i).nonzero().flatten() for i in range(len(shots))]
    parts = [batch.query.select(group) for batch, group in zip(batches, groups, strict=True) if len(group)]
    return [batch.support for batch in batches], Data.stack(parts).select(torch.cat(groups).argsort())


@torch.no_grad()
def _scores(
    learner: Learner,
    oracle: Learner | None,
    support: Data,
    query: Data,
    outside: Tensor,
    level: float,
    batch_size: int,
) -> dict[str, Tensor]:
    """Scores `T` of each task and values `T M ..` of each point, on the CPU; no scores of no tasks."""
    collected: list[dict[str, Tensor]] = []
    done = 0
    for part, none in _inside(predicted(learner, support, query, batch_size), outside):
        with retelling(lambda task, done=done: done + task):  # type: ignore[misc]
            scores = _class_scores(part) if predicts_labels(part.predictive) else _number_scores(part, level)
            if bool(none.any()):
                scores |= _open_set_scores(part, none)
        done += len(part.mask)
        collected.append({name: value.cpu() for name, value in scores.items()})
    scores = {name: torch.cat([each[name] for each in collected]) for name in (collected or [{}])[0]}
    if oracle is None or not collected:
        return scores
    compared = [_oracle_scores(part) for part, _ in _inside(predicted(oracle, support, query, batch_size), outside)]
    best = {name: torch.cat([each[name] for each in compared]) for name in compared[0]}
    return scores | {"regret": scores["nll"] - best["oracle_nll"]} | best


def _inside(parts: Iterator[HeldOut], outside: Tensor) -> Iterator[tuple[HeldOut, Tensor]]:
    """What was predicted, masked to the points of shown classes, and which are of none of them."""
    done = 0
    for part in parts:
        none = outside[done : done + len(part.mask)].to(part.mask.device)
        done += len(none)
        yield replace(part, mask=part.mask & ~none), none


def _open_set_scores(part: HeldOut, none: Tensor) -> dict[str, Tensor]:
    """How well points of no shown class are told from the others; every task here has both."""
    real = part.mask | none
    scores = {"max_prob_auroc": metrics.auroc(-metrics.confidence(part.predictive), none, real)}
    if isinstance(part.predictive, OpenSetPredictive):
        scores = {"none_auroc": metrics.auroc(-part.predictive.log_ratio, none, real)} | scores
    return scores


def _class_scores(part: HeldOut) -> dict[str, Tensor]:
    predictive, y, mask = part.predictive, part.y, part.mask
    density = _point_density(part)
    return {
        "nll": metrics.average(-density, mask),
        "log_density": density,
        "accuracy": metrics.accuracy(predictive, y, mask),
        "brier": metrics.brier(predictive, y, mask),
        "confidence": metrics.confidence(predictive).double(),
        "correct": metrics.is_correct(predictive, y),
        "label": y,
        "predicted": predictive.probs.argmax(-1),
    }


def _number_scores(part: HeldOut, level: float) -> dict[str, Tensor]:
    """Scores of all outcomes together, and of several those of each, by names with its place."""
    predictive, y, mask = part.predictive, part.y, part.mask
    transform, density = metrics.pit(predictive, y).double(), _point_density(part)
    inside = metrics.inside(predictive, y, level, transform)  # metrics.coverage, without a second pit
    lower, upper = predictive.interval(level)
    points = {
        "rmse": (predictive.mean - y).square(),
        "mae": (predictive.quantile(0.5) - y).abs(),
        "crps": metrics.point_crps(predictive, y),
        "coverage": inside,
        "width": upper - lower,
        "sharpness": predictive.variance,
    }
    together = {"nll": metrics.average(-density, mask), "joint_nll": metrics.joint_nll(predictive, y, mask)}
    error = metrics.root_mean_square_calibration_error
    if y.shape[-1] == 1:
        scores = together | _means(points, mask) | {"task_calibration_error": error(transform, mask)}
        return scores | {"log_density": density, "pit": transform}
    unitless = {name: value for name, value in points.items() if name not in OF_ONE_OUTCOME}
    scores = together | _means(unitless, mask) | {"task_calibration_error": error(transform, mask)}
    own = {"nll": -predictive.output_log_prob(y)} | points
    for c in range(y.shape[-1]):
        each = _means({name: value[..., c : c + 1] for name, value in own.items()}, mask)
        each["task_calibration_error"] = error(transform[..., c : c + 1], mask)
        scores |= {f"{name} {c}": value for name, value in each.items()}
    return scores | {"log_density": density, "pit": transform}


def _means(points: dict[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
    """The mean over the points of each task, `T`; of squared errors its root."""
    means = {name: metrics.average(value, mask) for name, value in points.items()}
    return means | ({"rmse": means["rmse"].sqrt()} if "rmse" in means else {})


def _point_density(part: HeldOut) -> Tensor:
    """The log density of each point on its own, all its outcomes together, `T M`; 0 in padding."""
    y = torch.where(part.mask.view(*part.mask.shape, *[1] * (part.y.ndim - 2)), part.y, 0)
    return torch.where(part.mask, part.predictive.marginal_log_prob(y), 0.0).double()


def _oracle_scores(part: HeldOut) -> dict[str, Tensor]:
    """What the exact Bayes predictive would have scored, and how far the best Gaussian is from it."""
    predictive, y, mask = part.predictive, part.y, part.mask
    best = metrics.marginal_nll(predictive, y, mask)
    scores = {"oracle_nll": best}
    if y.is_floating_point():
        transform = metrics.pit(predictive, y)
        scores["oracle_task_calibration_error"] = metrics.root_mean_square_calibration_error(transform, mask)
        scores["floor"] = metrics.average(-_gaussian_log_prob(predictive, y), mask) - best
    return {name: value.cpu() for name, value in scores.items()}


def _gaussian_log_prob(predictive: Predictive, y: Tensor) -> Tensor:
    """log N(y; mean, variance) of each point: of all Gaussians it has the highest expected log density."""
    if isinstance(predictive, GaussianPredictive | DenseGaussianPredictive):  # its outputs may be correlated
        return predictive.marginal_log_prob(y)
    return Normal(predictive.mean, predictive.stddev, validate_args=False).log_prob(y).sum(-1)


def _require_numbers(scores: dict[str, Tensor], mask: Tensor, shots: int, names: Sequence[Hashable]) -> None:
    """Every task here has query points, so a NaN is a failure, not a missing score."""
    for name, value in scores.items():
        wrong = value.isnan() & mask.view(*mask.shape, *[1] * (value.ndim - 2)) if value.ndim > 1 else value.isnan()
        if bool(wrong.any()):
            task = names[int(wrong.nonzero()[0, 0])]
            raise InferenceError(f"expected a number as {name} of task {task!r} at {shots} shots, got NaN")
