"""Is this task like the ones that were learned from? A p-value by reference tasks; and how much the prior decided.

Three misfits of the points of a task, each the drop of log density from the mean of a predictive to what was observed,
per point; half a squared standardised residual, where the predictive is Gaussian. (For labels, the drop from certainty,
-log p.)

    joint           log p(m_1..m_N) - log p(y_1..y_N)  under the prior predictive: is it a likely function?
    left one out    of y_n given all other points: does it hang together as the others did?
    marginal        of y_n given nothing: is it as large as it should be?

A task may be unlike the others by a misfit that is too large, too small (less amplitude, less noise), or unusual next
to the other two, so the score is the distance of the three (their cube roots, which for a χ² are nearly normal: Wilson
& Hilferty 1931) from the mean of all tasks, in their own covariance (Mahalanobis). With K reference tasks, the mean and
covariance are those of all K + 1, the new one included, so that it is treated like any other, and

    p = (1 + #{reference tasks whose score is no smaller}) / (K + 1)

is at most α with probability at most α for a new task that is exchangeable with the K, whatever the learner, however
wrong its model (full conformal prediction: Vovk, Gammerman, Shafer 2005). `Learner.surprise` is the tail probability
under theta alone: it asks for no tasks, and believes the model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesmeta.arguments import generator_of, rising_shots, seed_of
from bayesmeta.data import Data
from bayesmeta.errors import DataError, InferenceError, UnsupportedError, retelling
from bayesmeta.evaluation.held_out import HeldOut, left_one_out, predicted, with_room
from bayesmeta.evaluation.metrics import check_level
from bayesmeta.learner import Learner
from bayesmeta.modes import settled
from bayesmeta.tasks.dataset import TaskDataset, naming_columns
from bayesmeta.tasks.source import ClassSplit, OrderedSplit, PrefixSplit, RandomSplit, Split
from bayesmeta.typing import ArrayLike

SHOTS: tuple[int, ...] = (1, 2, 3, 5, 10)
"""Numbers of support points that are calibrated at unless others are given."""

FEWEST = 10  # reference tasks
LARGEST = 1e12  # misfit, where an outcome was held impossible
SPLITS: dict[str, type[Split]] = {split.__name__: split for split in (RandomSplit, PrefixSplit, ClassSplit)}
CHUNK = 256  # new tasks at a time next to all reference tasks


@dataclass(frozen=True, eq=False)
class Surprise:
    """How unlike the reference tasks a new task is, as a p-value: a value, made by `Surprise.fit`.

    The promise is for a task drawn like the reference tasks, whose points are chosen as `split` chose theirs: of such
    tasks a share of at most α gets a p-value of at most α. (On average over reference tasks, too: with one set of K the
    share is α give or take sqrt(α (1 - α)/K).) Tasks that the learner was trained on may serve as reference tasks, but
    fit it better than new ones do, so that more than α of the new ones are flagged: the more, the fewer there were.

    A task that has more points than a number that was calibrated at is judged by so many of them, chosen as `split`
    chooses; a task without points has a p-value of 1.

    Attributes:
        learner: frozen.
        statistics: at each number of shots the cube roots of the three misfits of the K reference tasks, `K 3`.
        sizes: at each number of shots the support points of the reference tasks (other than the shots where these count
            points by class).
        split: how points are chosen.
        seed: of the choice.
        batch_size: tasks adapted to at once.

    Example:
        >>> import bayesmeta as bm
        >>> simulator = bm.tasks.GPFunctions.eq()
        >>> louder = bm.tasks.GPFunctions(bm.tasks.ExponentiatedQuadratic(0.25, variance=25.0))
        >>> surprise = Surprise.fit(simulator.oracle, simulator.dataset(99, 11, seed=0), shots=[10])
        >>> surprise
        Surprise(99 tasks at 10 shots)
        >>> [bool(surprise.p_value(each.dataset(1, 10, seed=1).data) > 0.02) for each in (simulator, louder)]
        [True, False]
    """

    learner: Learner
    statistics: Mapping[int, Float[Tensor, "_ 3"]]
    sizes: Mapping[int, frozenset[int]]
    split: type[Split] = RandomSplit
    seed: int = 0
    batch_size: int = 256

    @classmethod
    @settled
    @naming_columns
    def fit(
        cls,
        learner: Learner,
        tasks: TaskDataset,
        shots: Sequence[int] = SHOTS,
        *,
        split: type[Split] = RandomSplit,
        seed: int = 0,
        batch_size: int = 256,
    ) -> "Surprise":
        """Take the statistics of reference tasks. With K of them no p-value is below 1/(K + 1): 99 are needed for .01.

        Args:
            learner: a trained learner; it is left as it was.
            tasks: reference tasks; best are ones that were not trained on. One with no more points than a number of
                shots is left out there.
            shots: numbers of support points, increasing (of each class, with `ClassSplit`).
            split: how the points of a task are chosen: `RandomSplit`, `PrefixSplit` for the beginning of a task, or
                `ClassSplit`.
            seed: of that choice.
            batch_size: tasks adapted to at once.

        Raises:
            DataError: shots that are not positive or do not increase; fewer than 10 tasks with more points; outcomes
                that the learner does not predict.
            InferenceError: a log density is not a number.
        """
        shots, seed = rising_shots(shots, least=1), seed_of(seed)
        learner = learner.frozen()
        statistics, sizes = {}, {}
        for shot in shots:
            chosen = with_room(tasks, shot, split, FEWEST, "reference")
            support = chosen.divided(split.at(shot, 1), seed).support  # the support is the same with any query
            with retelling(names=chosen.names):
                statistics[shot] = _statistics(learner, support, batch_size)
            sizes[shot] = frozenset(support.counts.tolist())
        return cls(learner, statistics, sizes, split, seed, batch_size)

    def __repr__(self) -> str:
        """How many tasks at each number of shots."""
        counts = ", ".join(f"{len(each)} tasks at {shot}" for shot, each in self.statistics.items())
        return f"Surprise({counts} shots)"

    @settled
    @naming_columns
    def p_value(self, support: Data) -> Float[Tensor, "B"]:
        """The p-value of each task: small where its points are unlike those of the reference tasks.

        Args:
            support: points of new tasks.

        Raises:
            DataError: a task has fewer points than were calibrated at (or others, with `ClassSplit`), or outcomes that
                the learner does not predict.
            ShapeError: the support does not have the learner's inputs or outputs.
            InferenceError: a log density is not a number.
        """
        support = support.to(device=torch.device("cpu"))
        chosen = self._shots(support)
        result = torch.ones(support.num_tasks, dtype=torch.float64)
        for shot in sorted(set(chosen) - {0}):
            positions = torch.tensor([b for b, each in enumerate(chosen) if each == shot])
            whole = torch.tensor([count in self.sizes[shot] for count in support.counts[positions].tolist()])
            parts = [support.select(positions[whole])] if bool(whole.any()) else []
            parts += [self._thinned(support.select([b]), shot) for b in positions[~whole].tolist()]
            order = torch.cat([positions[whole], positions[~whole]])
            with retelling(lambda task, order=order: int(order[task])):  # type: ignore[misc]
                judged = _statistics(self.learner, Data.stack(parts), self.batch_size)
            result[order] = _p_value(self.statistics[shot], judged)
        return result

    def judged(self, tasks: TaskDataset) -> tuple[Float[Tensor, "T"], Float[Tensor, "T"]]:
        """`p_value` and `smallest_p_value` of the tasks of a data set by all their points. Raises as `p_value` does."""
        p_value, smallest = torch.ones(2, len(tasks), dtype=torch.float64)
        for positions, part in tasks.by_length():
            with retelling(names=part.names):
                p_value[positions], smallest[positions] = self.p_value(part.data), self.smallest_p_value(part.data)
        return p_value, smallest

    def smallest_p_value(self, support: Data) -> Float[Tensor, "B"]:
        """1/(K + 1), the smallest p-value that these tasks could have; 1 without points. Raises as `p_value` does."""
        smallest = {shot: 1.0 / (len(each) + 1.0) for shot, each in self.statistics.items()} | {0: 1.0}
        return torch.tensor([smallest[shot] for shot in self._shots(support)], dtype=torch.float64)

    def flagged(self, support: Data, level: float = 0.01) -> Bool[Tensor, "B"]:
        """Whether the p-value is at most `level`: true for at most that share of tasks drawn like the reference tasks.

        Args:
            support: points of new tasks.
            level: the share of false alarms, within (0, 1).

        Raises:
            DataError: a level outside (0, 1) or below 1/(K + 1), which no task could reach; and as `p_value` does.
        """
        check_level(level)
        for shot in set(self._shots(support)) - {0}:
            count, needed = len(self.statistics[shot]), -int(-(1.0 - 1e-9) // level) - 1
            if count < needed:
                raise DataError(
                    f"expected at least {needed} reference tasks for a level of {level} at {shot} shots, got {count}: "
                    f"the smallest p-value is 1/{count + 1} = {1.0 / (count + 1):.3g}"
                )
        return self.p_value(support) <= level + 1e-12  # 2/200 must not miss .01 by rounding

    def to_json(self) -> dict[str, Any]:
        """Plain JSON for a model folder: statistics of the reference tasks, not their points.

        Raises:
            UnsupportedError: a split of one's own, which could not be found again.
        """
        if SPLITS.get(self.split.__name__) is not self.split:
            raise UnsupportedError(f"expected a split among {sorted(SPLITS)} to be kept, got {self.split.__name__}")
        return {
            "split": self.split.__name__,
            "seed": self.seed,
            "shots": [
                {"shots": shot, "sizes": sorted(self.sizes[shot]), "statistics": each.tolist()}
                for shot, each in self.statistics.items()
            ],
        }

    @classmethod
    def from_json(cls, learner: Learner, value: dict[str, Any]) -> "Surprise":
        """What `to_json` gave, for the same learner. Raises DataError for anything else."""
        try:
            each = [(int(part["shots"]), part["sizes"], part["statistics"]) for part in value["shots"]]
            statistics = {shot: torch.tensor(rows, dtype=torch.float64) for shot, _, rows in each}
            if any(rows.ndim != 2 or rows.shape[1] != 3 for rows in statistics.values()):
                raise ValueError("three statistics a task were expected")
            sizes = {shot: frozenset(map(int, counts)) for shot, counts, _ in each}
            return cls(learner.frozen(), statistics, sizes, SPLITS[value["split"]], int(value["seed"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"expected what Surprise.to_json gives, got another thing: {error!r}") from error

    def _shots(self, support: Data) -> list[int]:
        """The number of shots at which each task is judged; 0 without points."""
        return [self._shot(count) for count in support.counts.tolist()]

    def _shot(self, count: int) -> int:
        same = [shot for shot, sizes in self.sizes.items() if count in sizes]
        fewer = [shot for shot in self.statistics if shot < count] if issubclass(self.split, OrderedSplit) else []
        if count > 0 and not same and not fewer:
            wanted = ", ".join(str(size) for sizes in self.sizes.values() for size in sorted(sizes))
            more = " or more" if issubclass(self.split, OrderedSplit) else ""
            raise DataError(f"expected {wanted}{more} support points, as were calibrated at, got {count}")
        return max(same or fewer) if count > 0 else 0

    def _thinned(self, one: Data, shot: int) -> Data:
        """The points that one task is judged by, of more; the choice depends on nothing but how many there are."""
        real = one.mask[0]
        alone = one.points(real)
        return self.split.at(shot).divide(alone, generator_of(self.seed))[0]


@settled
@naming_columns
def shrinkage(learner: Learner, support: Data, x: ArrayLike | None = None) -> Float[Tensor, "B"]:
    """How much the prior decided: Var[f | D] / Var[f] of each task, averaged over points and outputs.

    1 before any point is seen, towards 0 as the data decide. For y_n = phi + ε_n, phi ~ N(m, τ²), it is the weight of m
    in the posterior mean, σ²/(σ² + n τ²), the shrinkage of mixed models. Where data can make the learner less certain
    than its prior (a mixture, or a posterior linearised elsewhere), it can be above 1.

    Args:
        learner: one whose predictive separates f from its noise.
        support: what is adapted to.
        x: where f is asked about, `B M *x`; the points of each task by default. Points at which the prior is certain do
            not count.

    Raises:
        UnsupportedError: f and its noise do not separate, or outcomes are labels; or a prior that is certain of f at
            every point of a task, as that of a point estimate is.
        ShapeError: the data do not have the learner's inputs or outputs.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.ALPaCA(bm.Polynomial(1, 0))
        >>> [round(shrinkage(learner, bm.Data.from_arrays([0.0] * n, [1.0] * n), [0.0]).item(), 2) for n in (0, 1, 9)]
        [1.0, 0.5, 0.1]
    """
    learner = learner.frozen()
    support = learner.conform(support)
    posterior, prior = learner.adapt(support), learner.adapt(Data.empty(support))
    at = support.x if x is None else posterior.spec.queries(x)
    mask = support.mask if x is None else torch.ones(at.shape[:2], dtype=torch.bool, device=at.device)
    with torch.no_grad():
        after, before = (each.predict(at).noiseless.variance.double() for each in (posterior, prior))
    counted = mask[..., None] & (before > 0.0)
    if bool((mask.any(-1) & ~counted.any((-1, -2))).any()):
        raise UnsupportedError("expected a learner that is uncertain of f before it sees data, got a variance of zero")
    ratio = torch.where(counted, after / torch.where(counted, before, 1.0), 0.0).sum((-1, -2))
    count = counted.sum((-1, -2))
    return torch.where(count > 0, ratio / count.clamp(min=1), 1.0).cpu()


@torch.no_grad()
def _statistics(learner: Learner, support: Data, batch_size: int) -> Float[Tensor, "B 3"]:
    """Cube roots of the joint, the left-one-out and the marginal misfit of each task, per point."""
    joint, marginal = [], []
    done = 0
    for part in predicted(learner, Data.empty(support), support, batch_size):
        prior, y, mask = part.predictive, part.y, part.mask
        with retelling(lambda task, done=done: done + task):  # type: ignore[misc]
            best = prior.log_prob(prior.mean.to(y.dtype), mask) if y.is_floating_point() else 0.0
            joint.append((best - prior.log_prob(y, mask)).double())
        done += len(mask)
        marginal.append(torch.where(mask, _misfit(part), 0.0).sum(-1))
    data = learner.conform(support)
    left_out = torch.zeros(data.num_tasks, dtype=torch.float64, device=data.mask.device)
    for task, _, found in left_one_out(learner, data, batch_size):
        left_out.index_add_(0, task, _misfit(found)[:, 0])
    misfits = torch.stack([torch.cat(joint), left_out, torch.cat(marginal)], -1) / data.counts[:, None]
    if bool(misfits.isnan().any()):
        wrong = int(misfits.isnan().any(1).nonzero()[0])
        raise InferenceError(
            f"expected log densities of the support, got NaN in task {wrong}: is the learner trained?", task=wrong
        )
    misfits = misfits.clamp(-LARGEST, LARGEST)
    return (misfits.sign() * misfits.abs().pow(1.0 / 3.0)).cpu()


def _misfit(held_out: HeldOut) -> Float[Tensor, "B M"]:
    """log p(mean) - log p(y) of each point on its own, or -log p(y) for labels, in nats."""
    predictive, y = held_out.predictive, held_out.y
    best = predictive.marginal_log_prob(predictive.mean.to(y.dtype)) if y.is_floating_point() else 0.0
    return (best - predictive.marginal_log_prob(y)).double()


def _p_value(reference: Float[Tensor, "K S"], new: Float[Tensor, "B S"]) -> Float[Tensor, "B"]:
    """The share of the K + 1 tasks whose Mahalanobis distance from their common mean is no smaller than the new one's.

    Directions in which the tasks do not differ (with one point, the three statistics may be the same) do not count.
    """
    parts = []
    for chunk in new.split(CHUNK):
        every = torch.cat([reference.expand(len(chunk), -1, -1), chunk[:, None]], 1)  # B K+1 S
        every = every - every.mean(1, keepdim=True)
        spread = every.square().mean(1, keepdim=True).sqrt()
        every = every / torch.where(spread > 0.0, spread, 1.0)
        precision = torch.linalg.pinv(every.mT @ every / every.shape[1], rtol=1e-6, hermitian=True)
        score = ((every @ precision) * every).sum(-1)
        parts.append((score >= score[:, -1:] * (1.0 - 1e-9)).double().mean(1))
    return torch.cat(parts)
