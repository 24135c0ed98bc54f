"""Few-shot conformal prediction: the support says how hard its task is, and calibration tasks keep the promise.

Fisch, Schuster, Jaakkola, Barzilay 2021 (arXiv:2102.08898). Three steps, with s a score as in `conformal`:

    l_n = s(y_n; D without n)                  leave-one-out scores of the support D
    v(s | l_1..l_N)                            learned on training tasks: how far out s is among the scores of this task
    threshold: the largest s with v(s | l) <= τ,  τ the `level`-quantile of
        Σ_t Σ_m 1/((K + 1) M_t) δ(v(s_tm | l_t))  +  1/(K + 1) δ(∞)                      K calibration tasks

The paper corrects a foretold quantile q by the smallest λ at which Σ_t F_t(q_t + λ) / (K + 1) reaches the level, F_t
being the empirical distribution of scores in task t. That is `HierarchicalConformal` on s - q, and has its guarantee.
Here v takes the place of s - q: any increasing function of s that depends on the support alone would do, because tasks
stay exchangeable with it (Lee, Barber, Willett 2023). Coverage at a point of a new task is at least `level` and, where
scores have no ties, at most level + 2/(K + 1). One network serves all levels, so that the region of a higher level
holds that of a lower one; the paper trains one for each.

Against `HierarchicalConformal` regions are smaller in easy tasks and larger in hard ones; their mean size is often
smaller, but need not be. This takes tasks to learn v from, which are no calibration tasks, and N adaptations more for
each task.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.calibration.conformal import (
    ConformalPosterior,
    Score,
    choose_score,
    hierarchical_quantile,
    require_sizes,
    require_tasks,
    score_outcomes,
)
from bayesmeta.calibration.recalibration import predict_calibration
from bayesmeta.calibration.score_quantiles import fit_score_quantiles
from bayesmeta.data import Data
from bayesmeta.learner import Learner
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.source import RandomSplit, Split


class FewShotConformal:
    """Regions for a point of a new task, by what its support says and by calibration tasks.

    The promise is that of `HierarchicalConformal`: for a task drawn like the calibration tasks, that has `shots` points
    to adapt to, and for one of its other points.

    Args:
        learner: a trained learner; it is left as it was.
        training: tasks that show how the scores of a task follow from those of its support. The learner's own training
            tasks will do where it is not fitted to them too closely; what is promised does not rest on it.
        calibration: tasks used in nothing else: not in training, validation or recalibration, and none of `training`.
        shots: support points of a task (of each class, with `ClassSplit`), here and in `adapt`. A learner that takes
            its classes from the support needs two of each, since one is left out.
        score: `StandardizedResidual` for numbers and `MissingProbability` for labels unless given.
        split: as `evaluate` has it.
        query: largest number of query points of a task; None takes all that are left.
        seed: of the divisions into support and query, and of what is learned.
        batch_size: tasks adapted to at once.

    Attributes:
        quantiles: what was learned of scores.
        deviations: `K M C` (labels: `K M 1`), v of the scores of the calibration tasks, padded.
        mask: `K M`, True = real.

    Raises:
        DataError: fewer than ten training or two calibration tasks with enough points, outcomes that the learner does
            not predict, a score of the other kind, a score that is not a number.
    """

    def __init__(
        self,
        learner: Learner,
        training: TaskDataset,
        calibration: TaskDataset,
        shots: int = 5,
        *,
        score: Score | None = None,
        split: type[Split] = RandomSplit,
        query: int | None = None,
        seed: int = 0,
        batch_size: int = 256,
    ) -> None:
        self.learner, self.shots, self._batch_size = learner.frozen(), shots, batch_size
        self.score = choose_score(score, calibration.data)
        sides = []
        for tasks in (training, calibration):
            predictions = predict_calibration(self.learner, tasks, shots, split, query, seed, batch_size)
            scores = [score_outcomes(self.score, p, y, mask) for p, y, mask in predictions.batches]
            support = self.learner.conform(predictions.support)
            sides.append(
                (
                    self._leave_one_out(support),
                    support.mask,
                    torch.cat(scores),
                    torch.cat([mask for *_, mask in predictions.batches]),
                )
            )
        self.quantiles = fit_score_quantiles(*sides[0], seed=seed)
        known, known_mask, scores_of_query, self.mask = sides[1]
        self.deviations = self.quantiles.deviations(scores_of_query, self.quantiles.knots(known, known_mask))
        self._sizes = frozenset(known_mask.sum(-1).tolist())

    def __repr__(self) -> str:
        """How many tasks, and up to which level they serve."""
        count = len(self.mask)
        return f"FewShotConformal({count} tasks at {self.shots} shots: levels up to {count / (count + 1):.3f})"

    def threshold(self, level: float) -> Float[Tensor, "C"]:
        """τ, output by output: the largest v in the region. About Φ⁻¹(level), where what was learned is right.

        Raises:
            DataError: a level outside (0, 1), or higher than K/(K + 1): the message says how many tasks it needs.
        """
        require_tasks(len(self.mask), level)
        return hierarchical_quantile(self.deviations, self.mask, level)

    def adapt(self, support: Data) -> "FewShotPosterior":
        """The posterior of tasks with as many support points as the calibration tasks had.

        Raises:
            ShapeError: the support does not have the learner's inputs or outputs. DataError: other numbers of points,
                outcomes that the learner does not predict, a score that is not a number.
        """
        posterior = self.learner.adapt(support)
        require_sizes(support, self._sizes)
        support = self.learner.conform(support)
        choose_score(self.score, support)
        knots = self.quantiles.knots(self._leave_one_out(support), support.mask)
        return FewShotPosterior(posterior=posterior, score=self.score, conformal=self, knots=knots)

    def _leave_one_out(self, support: Data) -> Float[Tensor, "B N C"]:
        return leave_one_out_scores(self.learner, support, self.score, self._batch_size)


@dataclass(frozen=True, eq=False, kw_only=True)
class FewShotPosterior(ConformalPosterior):
    """Regions for tasks by their support and calibration tasks.

    Attributes:
        conformal: has what was learned, and the calibration tasks.
        knots: `B C L`, the foretold quantiles of the scores of each task, as normal scores.
    """

    conformal: FewShotConformal
    knots: Float[Tensor, "B C L"]

    def _threshold(self, level: float) -> Float[Tensor, "B 1 C"]:
        return self.conformal.quantiles.scores(self.conformal.threshold(level), self.knots)[:, None]


def leave_one_out_scores(
    learner: Learner, support: Data, score: Score, batch_size: int = 256
) -> Float[Tensor, "B N C"]:
    """The score of each support point by the posterior of the others of its task; zero where padded.

    Args:
        learner: what adapts.
        support: as the learner has it (`learner.conform`).
        score: how badly an outcome fits.
        batch_size: points left out at once.

    Raises:
        DataError: outcomes that the learner does not predict, a score that is not a number.
    """
    outputs = support.y.shape[2:] if support.y.is_floating_point() else (1,)
    scores = torch.zeros(*support.mask.shape, *outputs, dtype=torch.float64, device=support.x.device)
    places = torch.arange(support.num_points, device=support.x.device)
    with torch.no_grad():
        for b, n in _chunks(support.mask.nonzero(), batch_size):
            others = Data(support.x[b], support.y[b], support.mask[b] & (places != n[:, None]))
            predictive = learner.condition(others).at(support.x[b, n][:, None])
            found = score_outcomes(score, predictive, support.y[b, n][:, None], support.mask[b, n][:, None])
            scores[b, n] = found[:, 0].double()
    return scores


def _chunks(pairs: Tensor, size: int) -> Sequence[tuple[Tensor, ...]]:
    return [tuple(chunk.unbind(-1)) for chunk in pairs.split(size) if len(chunk)]
