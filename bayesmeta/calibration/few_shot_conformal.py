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

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from typing_extensions import override

from bayesmeta.annotations import checked
from bayesmeta.calibration.conformal import ConformalPosterior, TaskConformal
from bayesmeta.calibration.conformity_scores import (
    ConformityScore,
    choose_score,
    score_outcomes,
    scored_tasks,
)
from bayesmeta.calibration.score_quantiles import fit_score_quantiles
from bayesmeta.data import Data
from bayesmeta.evaluation.held_out import left_one_out
from bayesmeta.flat import FlatData
from bayesmeta.learner import Learner, TaskPosterior
from bayesmeta.modes import settled
from bayesmeta.tasks.dataset import TaskDataset, naming_columns
from bayesmeta.tasks.source import RandomSplit, Split


class FewShotConformal(TaskConformal):
    """Regions for a point of a new task, by what its support says and by calibration tasks.

    What is promised is said in `TaskConformal`. What is compared with `threshold` here is v of a score, whose quantile
    is about Φ⁻¹(level) where what was learned is right.

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
        scores: `K M C` (labels: `K M 1`), v of the scores of the calibration tasks, padded.

    Raises:
        DataError: fewer than ten training or two calibration tasks with enough points, outcomes that the learner does
            not predict, a score of the other kind, a score that is not a number.

    Example:
        >>> import bayesmeta as bm
        >>> simulator = bm.tasks.GPFunctions.eq()
        >>> training, calibration = (simulator.dataset(40, 10, seed=seed) for seed in (0, 1))
        >>> conformal = FewShotConformal(simulator.oracle, training, calibration, shots=5)
        >>> conformal
        FewShotConformal(40 tasks at 5 shots: levels up to 0.976)
    """

    @checked
    @settled
    @naming_columns
    def __init__(
        self,
        learner: Learner,
        training: TaskDataset,
        calibration: TaskDataset,
        shots: int = 5,
        *,
        score: ConformityScore | None = None,
        split: type[Split] = RandomSplit,
        query: int | None = None,
        seed: int = 0,
        batch_size: int = 256,
    ) -> None:
        learner, score = learner.frozen(), choose_score(score, calibration.flat.outcomes)
        sides = []
        for tasks in (training, calibration):
            support, scores, counts = scored_tasks(learner, tasks, score, shots, split, query, seed, batch_size)
            support = learner.conform(support)
            padded = _padded(scores, counts)
            sides.append((leave_one_out_scores(learner, support, score, batch_size), support.mask, *padded))
        self.quantiles = fit_score_quantiles(*sides[0], seed=seed)
        known, known_mask, padded_scores, mask = sides[1]
        deviations = self.quantiles.deviations(padded_scores, self.quantiles.knots(known, known_mask))
        sizes = frozenset(known_mask.sum(-1).tolist())
        super().__init__(learner, shots, score, deviations[mask], mask.sum(-1), sizes)
        self._batch_size = batch_size

    def _posterior(self, posterior: TaskPosterior, support: Data) -> "FewShotPosterior":
        support = self.learner.conform(support)
        choose_score(self.score, support.outcomes)
        known = leave_one_out_scores(self.learner, support, self.score, self._batch_size)
        knots = self.quantiles.knots(known, support.mask)
        return FewShotPosterior(posterior=posterior, score=self.score, conformal=self, knots=knots)


@dataclass(frozen=True, eq=False, kw_only=True)
class FewShotPosterior(ConformalPosterior):
    """Regions for tasks by their support and calibration tasks.

    Attributes:
        conformal: has what was learned, and the calibration tasks.
        knots: `B C L`, the foretold quantiles of the scores of each task, as normal scores.
    """

    conformal: FewShotConformal
    knots: Float[Tensor, "B C L"]

    @override
    def threshold(self, level: float) -> Float[Tensor, "B 1 C"]:
        """That of the calibration tasks, as a score of each task."""
        return self.conformal.quantiles.scores(self.conformal.threshold(level), self.knots)[:, None]


def _padded(scores: Float[Tensor, "P C"], counts: Int[Tensor, "K"]) -> tuple[Tensor, Tensor]:
    """Scores `K M C` and mask `K M`: the network of the quantiles sees all tasks at once."""
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    data = FlatData(scores, counts.new_zeros(len(scores)), offsets).padded()
    return data.x, data.mask


def leave_one_out_scores(
    learner: Learner, support: Data, score: ConformityScore, batch_size: int = 256
) -> Float[Tensor, "B N C"]:
    """The score of each support point by the posterior of the others of its task; zero where padded.

    Args:
        learner: what adapts.
        support: as the learner has it (`learner.conform`).
        score: how badly an outcome fits.
        batch_size: points left out at once.

    Raises:
        DataError: outcomes that the learner does not predict, a score that is not a number.

    Example:
        >>> import bayesmeta as bm
        >>> learner, support = bm.ALPaCA(bm.Identity(1)), bm.Data.from_arrays([0.0, 1.0, 2.0], [0.0, 5.0, 0.0])
        >>> score = bm.calibration.StandardizedResidual()
        >>> leave_one_out_scores(learner, learner.conform(support), score).argmax().item()
        1
    """
    outputs = support.y.shape[2:] if support.y.is_floating_point() else (1,)
    scores = torch.zeros(*support.mask.shape, *outputs, dtype=torch.float64, device=support.x.device)
    for task, place, found in left_one_out(learner, support, batch_size):
        scores[task, place] = score_outcomes(score, found)[:, 0].double()
    return scores
