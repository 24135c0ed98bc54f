"""Bayesian stacking of learners, with weights that predict held-out tasks best at each number of shots.

    common    w* = argmax Σ_s mean_t log Σ_k w_k p_k(y_t | x_t, s points of t)
    at s      w_s = argmax Σ_t log Σ_k w_k p_k(y_t | x_t, s points of t) + κ Σ_k w*_k log w_k,   all on the simplex

Yao, Vehtari, Simpson, Gelman 2018, eq. 4, with tasks left out in the place of points. What predicts best of a task
before its first point need not after the fifth, so that weights differ between numbers of shots; ten tasks say little
of each, so that they are pooled, as in the hierarchical stacking of Yao, Pirš, Vehtari, Gelman 2022: a Dirichlet prior
around the common weights that counts as much as κ = 4 held-out tasks. With hundreds of tasks it is gone. The problems
are concave, and solved by expectation maximisation: a mixture whose components are known.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from bayesmeta.errors import DataError
from bayesmeta.selection.comparison import Comparison, compare
from bayesmeta.selection.cross_validation import Factory, HeldOutDensities, OneSplit, trained_on
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.source import RandomSplit, Split
from bayesmeta.wrappers.stacked import Stacked

GAP = 1e-6  # nats per point that may be left to gain
ROUNDS = 20_000
LEAST = 0.01  # weights below this cost more than they bring: the learner is left out
COMMON_TASKS = 4.0  # κ: as many held-out tasks the weights of all numbers of shots together count as


def stacking_weights(held_out: HeldOutDensities) -> dict[str, tuple[float, ...]]:
    """The weights of each candidate, at each of `held_out.shots`, under which held-out points are predicted best.

    Tasks count alike, and points of one task. Weights at one number of shots are drawn to those that serve all numbers
    best, where numbers of shots count alike: as if these had been found best in four further tasks.

    Args:
        held_out: the densities.

    Example:
        >>> one = np.log([[0.8, 0.2], [0.8, 0.2], [0.2, 0.8], [0.8, 0.2]])  # right three times out of four, and one
        >>> place = np.arange(4)
        >>> held_out = HeldOutDensities(("a", "b"), (5,), (0, 1, 2, 3), 0 * place, place, one, (0.0, 0.0))
        >>> {name: round(at_five, 2) for name, (at_five,) in stacking_weights(held_out).items()}
        {'a': 0.92, 'b': 0.08}
    """
    log_density, shot = held_out.log_density, held_out.shot
    highest = log_density.max(1, keepdims=True)
    if not np.isfinite(highest).all():
        raise DataError("expected a candidate that gives each held-out point a density, got points without any")
    density = np.exp(log_density - highest)
    common = _highest(density, held_out.weights(), np.zeros(density.shape[1]))
    of_point = 1.0 / held_out.counts()[shot, held_out.task]
    each = [
        _highest(density[shot == place], of_point[shot == place], COMMON_TASKS * common)
        for place in range(len(held_out.shots))
    ]
    return dict(zip(held_out.candidates, zip(*np.stack(each).tolist(), strict=True), strict=True))


def _highest(density: np.ndarray, share: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """The weights w on the simplex at which Σ_i share_i log(density_i · w) + Σ_k prior_k log w_k is highest."""
    weights, total = np.full(density.shape[1], 1.0 / density.shape[1]), share.sum() + prior.sum()
    for _ in range(ROUNDS):
        # the slope of the objective, by `total`, along each corner of the simplex; none is steeper than 1 at the
        # maximum, and by how much the steepest is bounds what is left to gain
        pull = np.divide(prior, weights, out=np.zeros_like(prior), where=prior > 0.0)
        slope = (share @ (density / (density @ weights)[:, None]) + pull) / total
        if slope.max() <= 1.0 + GAP:
            break
        weights = weights * slope
        weights /= weights.sum()
    return weights


def stacked(comparison: Comparison, learners: Mapping[str, Factory], tasks: TaskDataset) -> Stacked:
    """The candidates of a comparison, trained on all tasks and mixed with the weights that it finds.

    Candidates with a weight below .01 at every number of shots are left out.

    Args:
        comparison: of these candidates on these tasks.
        learners: by name, what makes a trained learner of tasks.
        tasks: all tasks.

    Raises:
        DataError: the candidates are not those of the comparison.

    Example:
        >>> import bayesmeta as bm
        >>> tasks, learner = bm.tasks.Sawtooth().dataset(8, 6, seed=0), bm.ALPaCA(bm.Identity(1))
        >>> learners = {"line": lambda tasks: learner, "same": lambda tasks: learner}  # as if trained
        >>> comparison = bm.compare(learners, tasks, shots=[4], folds=2)
        >>> stacked(comparison, learners, tasks)
        Stacked: .50 line + .50 same
    """
    if set(learners) != set(comparison.held_out.candidates):
        raise DataError(
            f"expected the candidates of the comparison, {list(comparison.held_out.candidates)}, got {list(learners)}"
        )
    held_out = comparison.held_out
    points, order = np.unique(held_out.support_points, return_index=True)
    found = {name: [each[i] for i in order] for name, each in stacking_weights(held_out).items()}
    kept = {name: each for name, each in found.items() if max(each) >= LEAST}
    trained = {name: trained_on(learners[name], tasks, comparison.seed) for name in kept}
    return Stacked(trained, kept, points.tolist())


def stack(
    learners: Mapping[str, Factory],
    tasks: TaskDataset,
    shots: Sequence[int],
    folds: int | OneSplit = 5,
    *,
    split: type[Split] = RandomSplit,
    query: int | None = None,
    seed: int = 0,
    batch_size: int = 64,
) -> Stacked:
    """Mix learners with the weights under which held-out tasks are predicted best, and train them on all tasks.

    The mixture is not worse than the best of them but by what a few tasks leave open about the weights, and often
    better: learners that are wrong in different places help each other out. Each number of shots has weights of its
    own, as far as tasks tell them apart (`bm.selection.stacking_weights`), and other numbers have what lies between.
    Where a comparison has been made already, `bm.selection.stacked` spares its folds.

    Args:
        learners: by name, what makes a trained learner of tasks, as for `bm.compare`; give it `bm.selection.pooled` and
            `bm.selection.fresh_process`, too, which are what is left where learning across tasks fails.
        tasks: all tasks that there are to learn from.
        shots: support points that there will be in use, 0 among them where predictions are made without any.
        folds: into how many parts the tasks are divided; each learner is trained so many times, and once more. Or
            `bm.selection.OneSplit(T)`: T tasks are held out once, so that each learner is trained twice.
        split: what divides the points of a task.
        query: largest number of query points of a task; None takes all that are left.
        seed: of the folds, the divisions and the training.
        batch_size: tasks adapted to at once.

    Raises:
        DataError: as `bm.compare`.
        InferenceError: a density is not a number; the candidate is named.

    Example:
        >>> import bayesmeta as bm
        >>> tasks = bm.tasks.Sawtooth().dataset(8, 6, seed=0)
        >>> make = lambda: bm.ALPaCA(bm.Identity(1), covariance=bm.priors.IsotropicCovariance(2)).double()
        >>> line, flat = bm.selection.Candidate(make, bm.fit_evidence), bm.ALPaCA(bm.Identity(1)).double()
        >>> learner = bm.stack({"line": line, "untrained": lambda tasks: flat}, tasks, shots=[4], folds=2)
        >>> learner.points, bool(abs(learner.weights.sum() - 1.0) < 1e-9)
        ((4.0,), True)
        >>> learner.adapt(tasks.data.select([0]).points(slice(4))).predict([0.5]).shape
        torch.Size([1, 1, 1])
    """
    comparison = compare(
        learners, tasks, shots, folds, split=split, query=query, num_bootstrap=0, seed=seed, batch_size=batch_size
    )
    return stacked(comparison, learners, tasks)
