"""Cross-validation over tasks: every task is predicted by learners that were trained without it, at given shots.

Choosing by the evidence of whole tasks rewards what is predicted of a task's first point, which a prior mean decides,
as much as the rest; what is wanted is the density of further points at the number of shots that there will be.
"""

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from bayesmeta.arguments import seed_of, shot_counts, whole
from bayesmeta.errors import DataError, InferenceError, retelling
from bayesmeta.evaluation.held_out import predicted, require_batch
from bayesmeta.learner import Learner
from bayesmeta.one_line import OneLine, several
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.source import RandomSplit, Split

Factory = Callable[[TaskDataset], Learner]
"""Tasks to learn from -> a learner that is trained on them. It is called anew for every fold."""


@dataclass(frozen=True)
class OneSplit:
    """In the place of a number of folds: one part of the tasks is held out, once, and learners learn from the others.

    Every learner is trained once rather than once for each fold, and what is found rests on the tasks that were held
    out alone. That is enough where there are hundreds, and where training takes long.

    Attributes:
        held_out: how many tasks are held out, drawn at random; less than all.

    Example:
        >>> import bayesmeta as bm
        >>> simulator = bm.tasks.GPFunctions.eq()
        >>> known = {"truth": lambda tasks: simulator.oracle}
        >>> cross_validated(known, simulator.dataset(9, 8, seed=0), shots=[3], folds=OneSplit(4))
        densities of 20 points of 4 held-out tasks under 1 learner
    """

    held_out: int

    def parts(self, num_tasks: int, seed: int) -> list[np.ndarray]:
        """The positions of the tasks that are held out, in order: one part.

        Args:
            num_tasks: how many tasks there are.
            seed: of the draw.

        Raises:
            DataError: no task is held out, or all are.
        """
        held_out = whole(self.held_out, "of held-out tasks", 1, num_tasks - 1)
        return [np.sort(np.random.default_rng(seed).permutation(num_tasks)[:held_out])]


@dataclass(frozen=True, eq=False)
class HeldOutDensities(OneLine):
    """log p(y | x, support) of points of held-out tasks under each candidate.

    Attributes:
        candidates: K names.
        shots: S numbers of support points.
        names: of the T tasks that were held out at some time: all, where there are folds.
        shot: position in `shots` of each of the P points, `P`.
        task: position in `names` of each point, `P`.
        log_density: of each point on its own under each candidate, `P K`, nats.
        seconds: that each candidate took, training included, `K`.
        points: mean number of points of a support at each of `shots`, `S`; empty where it is `shots`, which may count
            points otherwise (`ClassSplit` counts those of a class).

    Example:
        >>> import bayesmeta as bm
        >>> simulator = bm.tasks.GPFunctions.eq()
        >>> known = {"truth": lambda tasks: simulator.oracle}
        >>> held_out = cross_validated(known, simulator.dataset(10, 12, seed=0), shots=[0, 5], folds=2)
        >>> held_out
        densities of 190 points of 10 held-out tasks under 1 learner
        >>> bool(np.nanmean(held_out.scores()[1]) > np.nanmean(held_out.scores()[0]))  # five points help
        True
    """

    candidates: tuple[str, ...]
    shots: tuple[int, ...]
    names: tuple[Hashable, ...]
    shot: np.ndarray
    task: np.ndarray
    log_density: np.ndarray
    seconds: tuple[float, ...]
    points: tuple[float, ...] = ()

    @property
    def support_points(self) -> tuple[float, ...]:
        """How many points a support has at each of `shots`; in the mean, where `shots` count otherwise."""
        return self.points or tuple(float(shot) for shot in self.shots)

    def __repr__(self) -> str:
        """One line."""
        points, tasks = several(len(self.task), "point"), several(len(self.names), "held-out task")
        return f"densities of {points} of {tasks} under {several(len(self.candidates), 'learner')}"

    def counts(self) -> np.ndarray:
        """How many points there are of each task at each number of shots, `S T`."""
        cells = self.shot * len(self.names) + self.task
        size = len(self.shots) * len(self.names)
        return np.bincount(cells, minlength=size).reshape(len(self.shots), len(self.names))

    def scores(self) -> np.ndarray:
        """The mean log density of a point, `S T K`, nats; NaN where a task has no point."""
        total = np.zeros((len(self.shots), len(self.names), len(self.candidates)))
        np.add.at(total, (self.shot, self.task), self.log_density)
        with np.errstate(invalid="ignore", divide="ignore"):
            return total / self.counts()[..., None]

    def weights(self) -> np.ndarray:
        """The weight of each point in an average over numbers of shots, tasks and points of a task, in turn, `P`."""
        counts = self.counts()
        tasks = (counts > 0).sum(1)
        return 1.0 / (counts[self.shot, self.task] * tasks[self.shot] * (tasks > 0).sum())


def cross_validated(
    learners: Mapping[str, Factory],
    tasks: TaskDataset,
    shots: Sequence[int],
    folds: int | OneSplit = 5,
    *,
    seed: int = 0,
    split: type[Split] = RandomSplit,
    query: int | None = None,
    batch_size: int = 64,
) -> HeldOutDensities:
    """The density of points of every task under learners that were trained on the tasks of the other folds.

    All candidates see the same folds, the same supports and the same points. What they draw at random while they are
    made and trained follows from the seed and leaves the global generator as it was.

    Args:
        learners: by name, what makes a trained learner of tasks.
        tasks: all tasks.
        shots: support points of a held-out task.
        folds: into how many parts the tasks are divided, at random; as many as tasks leave out one at a time. Or
            `OneSplit(T)`, which holds out T tasks once.
        split: what divides the points of a task.
        query: largest number of query points of a task; None takes all that are left.
        seed: of the folds, the divisions and the training.
        batch_size: tasks adapted to at once.

    Raises:
        DataError: no learners, fewer than two folds or more than tasks, as many held-out tasks as there are, no task
            with more points than shots, or a factory that returns something else.
        InferenceError: a density is not a number; the candidate is named.

    Example:
        >>> import bayesmeta as bm
        >>> simulator = bm.tasks.GPFunctions.eq()
        >>> known = {"truth": lambda tasks: simulator.oracle}
        >>> cross_validated(known, simulator.dataset(4, 8, seed=0), shots=[3], folds=4).log_density.shape
        (20, 1)
    """
    shots, seed, batch_size = shot_counts(shots), seed_of(seed), require_batch(batch_size)
    if not isinstance(tasks, TaskDataset):
        raise DataError(f"expected a TaskDataset, got {type(tasks).__name__}: see TaskDataset.from_frame")
    require_factories(learners)
    parts = folds_of(tasks, folds, seed)
    held_out = np.sort(np.concatenate(parts))
    columns, places, seconds = [], None, []
    for name, factory in learners.items():
        start = time.perf_counter()
        found = [_fold(name, factory, tasks, part, shots, split, query, seed, batch_size) for part in parts]
        seconds.append(time.perf_counter() - start)
        columns.append(np.concatenate([each[-1] for each in found]))
        places = places or tuple(np.concatenate(each) for each in list(zip(*found, strict=True))[:-1])
    assert places is not None
    if not len(places[0]):
        raise DataError(f"expected a task with more than {min(shots)} {split.counted}, got none")
    shot, task, support = places[0], np.searchsorted(held_out, places[1]), places[2]
    names, density = tuple(tasks.names[i] for i in held_out), np.stack(columns, -1)
    seen = [support[shot == place] for place in range(len(shots))]
    points = tuple(float(each.mean()) if len(each) else float(s) for each, s in zip(seen, shots, strict=True))
    return HeldOutDensities(tuple(learners), shots, names, shot, task, density, tuple(seconds), points)


def trained_on(factory: Factory, tasks: TaskDataset, seed: int) -> Learner:
    """A learner trained on tasks, with random numbers that follow from the seed; the global ones go on as before.

    Args:
        factory: what makes it.
        tasks: to learn from.
        seed: of the global generator meanwhile.

    Raises:
        DataError: the factory returns something else.

    Example:
        >>> import bayesmeta as bm
        >>> tasks = bm.tasks.Sawtooth().dataset(4, 6, seed=0)
        >>> a, b = (trained_on(lambda tasks: bm.ALPaCA(bm.MLP(1, [4])), tasks, seed=1) for _ in range(2))
        >>> bool((a.features.layers[0].weight == b.features.layers[0].weight).all())
        True
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        learner = factory(tasks)
    if not isinstance(learner, Learner):
        raise DataError(f"expected a function that returns a trained learner, got one of {type(learner).__name__}")
    return learner


def require_factories(learners: Mapping[str, Factory]) -> None:
    """Refuse what does not make learners.

    Args:
        learners: by name, what makes a trained learner of tasks.

    Raises:
        DataError: there is none, or one that is no function, or a learner itself.
    """
    factories = list(learners.values()) if isinstance(learners, Mapping) else []
    if not factories or not all(callable(each) and not isinstance(each, Learner) for each in factories):
        raise DataError(
            "expected learners by name, each a function of training tasks that returns a trained learner, such as "
            "bm.selection.Candidate(make, train), got " + repr(learners)
        )


def folds_of(tasks: TaskDataset, folds: int | OneSplit, seed: int) -> list[np.ndarray]:
    """The positions of the tasks of each fold, in order.

    Args:
        tasks: all tasks.
        folds: into how many parts they are divided, at random; or a part that is held out once.
        seed: of the division.

    Raises:
        DataError: fewer than two folds, or more than tasks.

    Example:
        >>> import bayesmeta as bm
        >>> parts = folds_of(bm.tasks.Sawtooth().dataset(5, 6, seed=0), 2, seed=0)
        >>> [len(part) for part in parts], sorted(np.concatenate(parts).tolist())
        ([3, 2], [0, 1, 2, 3, 4])
    """
    if isinstance(folds, OneSplit):
        return folds.parts(len(tasks), seed)
    folds = whole(folds, "folds", 2, len(tasks))
    order = np.random.default_rng(seed).permutation(len(tasks))
    return [np.sort(order[fold::folds]) for fold in range(folds)]


def _fold(
    name: str,
    factory: Factory,
    tasks: TaskDataset,
    held_out: np.ndarray,
    shots: tuple[int, ...],
    split: type[Split],
    query: int | None,
    seed: int,
    batch_size: int,
) -> tuple[np.ndarray, ...]:
    """Of the points of the tasks of one fold: the position of the shots, that of the task, how many points the task had
    shown, the log density.
    """
    others = np.setdiff1d(np.arange(len(tasks)), held_out)
    learner = trained_on(factory, tasks.select(others.tolist()), seed).frozen()
    shot_of, task_of, seen, density = [np.zeros(0, dtype=int)], [np.zeros(0, dtype=int)], [np.zeros(0)], [np.zeros(0)]
    for place, shot in enumerate(shots):
        for positions, part in tasks.select(held_out.tolist()).by_length():
            batch, able = part.divided(split.at(shot, query), seed), split.room(part.data) >= shot
            chosen = able.nonzero().flatten()
            support, points = batch.support.select(chosen), batch.query.select(chosen).complete
            names = [part.names[i] for i in chosen.tolist()]
            with retelling(names=names):
                each = [
                    found.predictive.marginal_log_prob(found.y)[found.mask].detach().double().cpu().numpy()
                    for found in predicted(learner, support, points, batch_size)
                ]
            values = np.concatenate([np.zeros(0), *each])
            if np.isnan(values).any():
                raise InferenceError(f"expected log densities under {name!r} at {shot} shots, got NaN")
            counts = points.counts.cpu().numpy()
            density.append(values)
            task_of.append(np.repeat(held_out[positions[chosen].cpu().numpy()], counts))
            shot_of.append(np.full(len(values), place))
            seen.append(np.repeat(support.counts.cpu().numpy(), counts))
    return tuple(np.concatenate(each) for each in (shot_of, task_of, seen, density))
