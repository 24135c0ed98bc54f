"""Judge a learner on held-out tasks, by number of shots, next to the best that is possible where that is known."""

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributions import Normal

from bayesmeta.data import Data
from bayesmeta.errors import DataError, InferenceError, ShapeError, UnsupportedError
from bayesmeta.evaluation import metrics
from bayesmeta.evaluation.scores import Evaluation, ShotScores
from bayesmeta.learner import Learner
from bayesmeta.predictives import DenseGaussianPredictive, GaussianPredictive, Predictive
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.source import RandomSplit, Split

if TYPE_CHECKING:
    pass


def evaluate(
    learner: Learner,
    tasks: TaskDataset,
    shots: Sequence[int] = (0, 1, 2, 5, 10),
    *,
    split: type[Split] = RandomSplit,
    query: int | None = None,
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

    Args:
        learner: what is judged; it is left as it was.
        tasks: held-out tasks. Floating outcomes are scored as regression, labels as classification.
        shots: support points of a task (in classification too, unless the split is `ClassSplit`: then of each class).
        split: `RandomSplit`, `PrefixSplit` for forecasting, or `ClassSplit` for K shots of every class.
        query: largest number of query points of a task (`ClassSplit`: of each class); None takes all that are left.
        level: probability of the central interval whose coverage and width are reported.
        oracle: the exact Bayes predictive to compare with; by default `tasks.oracle`.
        num_bootstrap: resamplings of the tasks for the intervals; 0 gives none.
        seed: of the division into support and query, and of the bootstrap.
        batch_size: tasks adapted to at once.

    Raises:
        DataError: no or negative or repeated shots, no task with enough points, a level outside (0, 1), a `ClassSplit`
            of tasks without labels.
        ShapeError: the tasks or the predictions do not have the learner's inputs or outputs.
        InferenceError: a score is not a number.
    """
    room = split.room(tasks.data)
    _check(shots, room, split, level, num_bootstrap, batch_size)
    learner = learner.frozen()
    oracle = tasks.oracle if oracle is None else oracle
    oracle = None if oracle is None else oracle.frozen()
    supports, query_points = _divide(tasks, shots, split, query, seed)
    results = []
    for shot, support in zip(shots, supports, strict=True):
        positions = (room >= shot).nonzero().flatten()
        collected: list[dict[str, Tensor]] = []
        with torch.no_grad():
            for chunk in positions.split(batch_size) if len(positions) else ():
                data = support.select(chunk), query_points.select(chunk)
                scores = _score(learner, oracle, *data, level)
                _require_numbers(scores, data[1], shot, [tasks.names[i] for i in chunk.tolist()])
                collected.append(scores)
        arrays = {name: torch.cat([c[name] for c in collected]).cpu().numpy() for name in (collected or [{}])[0]}
        results.append(
            ShotScores(
                shot,
                tuple(tasks.names[i] for i in positions.tolist()),
                query_points.counts[positions].numpy(),
                {name: value for name, value in arrays.items() if value.ndim == 1},
                query_points.mask[positions].numpy(),
                **{name: arrays[name] for name in ("pit", "confidence", "correct") if name in arrays},
            )
        )
    return Evaluation(tuple(results), learner.title, level, num_bootstrap, seed)


def _check(
    shots: Sequence[int], room: Tensor, split: type[Split], level: float, num_bootstrap: int, batch_size: int
) -> None:
    if len(shots) == 0 or min(shots) < 0 or len(set(shots)) != len(shots):
        raise DataError(f"expected distinct numbers of shots, none of them negative, got {list(shots)}")
    metrics.check_level(level)
    if num_bootstrap < 0:
        raise DataError(f"expected a number of bootstrap resamplings that is not negative, got {num_bootstrap}")
    if batch_size < 1:
        raise DataError(f"expected at least one task in a batch, got {batch_size}")
    most = int(room.max()) + 1
    if most <= min(shots):
        raise DataError(
            f"expected a task with more than {min(shots)} {split.counted}, one of them to be scored at, "
            f"got at most {most}"
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


def _score(learner: Learner, oracle: Learner | None, support: Data, query: Data, level: float) -> dict[str, Tensor]:
    """Scores `B` of each task, and values `B M ..` of each point, in the learner's precision where they were made."""
    data = learner.conform(query)
    predictive = learner.condition(learner.conform(support)).at(data.x)
    y, mask = data.y, data.mask
    is_classifier = _is_classifier(predictive)
    if is_classifier == y.is_floating_point():
        kinds = ("labels", "numbers") if is_classifier else ("numbers", "labels")
        raise DataError(f"expected tasks whose outcomes are {kinds[0]}, which this learner predicts, got {kinds[1]}")
    if is_classifier:
        _check_labels(predictive, y, mask)
        scores = {
            "nll": metrics.marginal_nll(predictive, y, mask),
            "accuracy": metrics.accuracy(predictive, y, mask),
            "brier": metrics.brier(predictive, y, mask),
            "confidence": metrics.confidence(predictive).double(),
            "correct": metrics.is_correct(predictive, y),
        }
    else:
        if predictive.mean.shape != y.shape:
            raise ShapeError(f"expected predictions of shape {tuple(y.shape)}, got {tuple(predictive.mean.shape)}")
        transform = metrics.pit(predictive, y).double()
        inside = (transform - 0.5).abs() <= level / 2.0  # metrics.coverage, without a second pit
        scores = {
            "nll": metrics.marginal_nll(predictive, y, mask),
            "joint_nll": metrics.joint_nll(predictive, y, mask),
            "rmse": metrics.rmse(predictive, y, mask),
            "mae": metrics.mae(predictive, y, mask),
            "crps": metrics.crps(predictive, y, mask),
            "coverage": metrics._average(inside.double(), mask),
            "width": metrics.interval_width(predictive, mask, level),
            "sharpness": metrics.sharpness(predictive, mask),
            "task_calibration_error": metrics.root_mean_square_calibration_error(transform, mask),
            "pit": transform,
        }
    scores = {name: value.cpu() for name, value in scores.items()}
    return scores if oracle is None else scores | _compare(oracle, support, query, scores["nll"])


def _compare(oracle: Learner, support: Data, query: Data, nll: Tensor) -> dict[str, Tensor]:
    """What the exact Bayes predictive would have scored, and how far the learner and the best Gaussian are from it."""
    data = oracle.conform(query)
    predictive = oracle.condition(oracle.conform(support)).at(data.x)
    y, mask = data.y, data.mask
    best = metrics.marginal_nll(predictive, y, mask).cpu()
    compared = {"oracle_nll": best, "regret": nll - best}
    if y.is_floating_point():
        transform = metrics.pit(predictive, y)
        error = metrics.root_mean_square_calibration_error(transform, mask)
        compared["oracle_task_calibration_error"] = error.cpu()
        compared["floor"] = metrics._average(-_gaussian_log_prob(predictive, y), mask).cpu() - best
    return compared


def _gaussian_log_prob(predictive: Predictive, y: Tensor) -> Tensor:
    """log N(y; mean, variance) of each point: of all Gaussians it has the highest expected log density."""
    if isinstance(predictive, GaussianPredictive | DenseGaussianPredictive):  # its outputs may be correlated
        return predictive.marginal_log_prob(y)
    return Normal(predictive.mean, predictive.stddev, validate_args=False).log_prob(y).sum(-1)


def _is_classifier(predictive: Predictive) -> bool:
    try:
        predictive.probs  # noqa: B018
    except UnsupportedError:
        return False
    return True


def _check_labels(predictive: Predictive, y: Tensor, mask: Tensor) -> None:
    classes = predictive.probs.shape[-1]
    real = y[mask]
    if predictive.probs.shape[:2] != y.shape:
        raise ShapeError(f"expected predictions of shape {tuple(y.shape)}, got {tuple(predictive.probs.shape[:2])}")
    if bool(((real < 0) | (real >= classes)).any()):
        raise DataError(f"expected labels from 0 to {classes - 1}, got {int(real.min())}..{int(real.max())}")


def _require_numbers(scores: dict[str, Tensor], query: Data, shots: int, names: list[Hashable]) -> None:
    """Every task here has query points, so a NaN is a failure, not a missing score."""
    for name, value in scores.items():
        wrong = (
            value.isnan() & query.mask.view(*query.mask.shape, *[1] * (value.ndim - 2))
            if value.ndim > 1
            else value.isnan()
        )
        if bool(wrong.any()):
            task = names[int(wrong.nonzero()[0, 0])]
            raise InferenceError(f"expected a number as {name} of task {task!r} at {shots} shots, got NaN")
