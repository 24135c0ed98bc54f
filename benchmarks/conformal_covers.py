"""Conformal regions of wrong learners hold at least what they promise of new tasks, and little more.

Simulated tasks differ in difficulty. Regression: sine waves, which learners believe to be straight lines, or constants,
with a noise that they do not have; labels: three clouds of a width of their own in each task, by a softmax that is far
too sure or far too timid. 5 support points, 1 to 4 query points. 2,000 times, K calibration tasks and a test task are
drawn anew; coverage must be at least nominal (less 3 standard errors of 2,000 draws) and at most 2/(K + 1) + .02 more.
`FewShotConformal` has learned once, from 300 other tasks, how scores depend on the support. `hard` is the coverage in
the quarter of the tasks with most noise.

Exact split conformal prediction from 16 points of the task itself has nothing to say at .95: 16/17 < .95.

With `BAYESMETA_DATA`, the folder that holds `omniglot/`: the setting of Fisch et al. 2021, 10 ways with 16 support
points of each, where each class has its own threshold, beside their table. Their data (miniImageNet, FewRel, ChEMBL)
and networks are others: here it is Omniglot by nearest means of raw pixels, so that coverage can be compared, and sizes
not.
"""

import argparse
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import bayesmeta as bm
from bayesmeta.calibration.conformal import hierarchical_quantile, require_tasks, split_quantile
from bayesmeta.calibration.conformity_scores import (
    ConformityScore,
)
from bayesmeta.calibration.few_shot_conformal import leave_one_out_scores
from bayesmeta.calibration.score_quantiles import ScoreQuantiles, fit_score_quantiles
from benchmarks._report import verdict

LEVELS, TASKS = (0.8, 0.9, 0.95), (20, 50, 200)
DRAWS, SHOTS, QUERIES, TRAINING, CHUNK = 2000, 5, 4, 300, 20_000
SLACK, ERRORS = 0.02, 3.0
WAYS, PER_CLASS, SUPPORT, CALIBRATION, TRIALS = 10, 20, 16, 100, 100

# level: accuracy and mean size, exact and meta (few-shot-cp, plots/*/table_acc_size.txt, 5,000 trials)
FISCH = {
    "ChEMBL": {0.8: (0.82, 1.84, 0.82, 1.72), 0.9: (0.94, 3.12, 0.92, 2.44), 0.95: (1.00, math.inf, 0.97, 3.37)},
    "miniImageNet": {0.8: (0.82, 2.63, 0.80, 2.13), 0.9: (0.94, 4.65, 0.90, 3.21), 0.95: (1.00, 10.0, 0.95, 4.26)},
    "FewRel": {0.8: (0.83, 1.25, 0.80, 1.12), 0.9: (0.94, 1.84, 0.90, 1.39), 0.95: (1.00, 10.0, 0.95, 1.65)},
}


def waves(num_tasks: int, generator: torch.Generator) -> tuple[bm.Data, Tensor]:
    """a sin(x + b) + σ_t ε, a between .1 and 3, with a noise σ_t of each task; and σ_t."""
    noise = torch.randn(num_tasks, generator=generator, dtype=torch.float64).exp()
    amplitude, phase = torch.rand(2, num_tasks, 1, 1, generator=generator, dtype=torch.float64)
    x = 6.0 * torch.rand(num_tasks, SHOTS + QUERIES, 1, generator=generator, dtype=torch.float64) - 3.0
    error = noise[:, None, None] * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    y = (0.1 + 2.9 * amplitude) * (x + math.pi * phase).sin() + error
    return bm.Data(x, y, torch.ones(y.shape[:2], dtype=torch.bool)), noise


def clouds(num_tasks: int, generator: torch.Generator) -> tuple[bm.Data, Tensor]:
    """Three clouds in the plane, whose width σ_t is that of the task; and σ_t."""
    noise = torch.randn(num_tasks, generator=generator, dtype=torch.float64).exp()
    means = 2.0 * torch.randn(num_tasks, 3, 2, generator=generator, dtype=torch.float64)
    labels = torch.randint(3, (num_tasks, SHOTS + QUERIES), generator=generator)
    x = means.gather(1, labels[..., None].expand(-1, -1, 2))
    x = x + noise[:, None, None] * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    return bm.Data(x, labels, torch.ones(labels.shape, dtype=torch.bool)), noise


@dataclass(frozen=True)
class Case:
    """A family of tasks, a learner that is wrong about it, and a score."""

    simulate: Callable[[int, torch.Generator], tuple[bm.Data, Tensor]]
    learner: bm.Learner
    score: ConformityScore


def cases() -> dict[str, Case]:
    """Untrained learners."""
    torch.manual_seed(0)
    straight, constant = (bm.ALPaCA(bm.Polynomial(1, degree)).double().frozen() for degree in (1, 0))
    sure, timid = (
        bm.MetaOptNet(bm.Identity(2), num_classes=3, head=bm.heads.NearestMeanHead(), scale=scale).double().frozen()
        for scale in (30.0, 0.1)
    )
    return {
        "sine waves, straight lines": Case(waves, straight, bm.calibration.StandardizedResidual()),
        "sine waves, constants": Case(waves, constant, bm.calibration.StandardizedResidual()),
        "clouds, too sure": Case(clouds, sure, bm.calibration.MissingProbability()),
        "clouds, too timid": Case(clouds, timid, bm.calibration.MissingProbability()),
    }


@dataclass(frozen=True)
class Scored:
    """Scores of many tasks: of the support, one left out at a time, `T N 1`; of the query `T M 1`; ragged."""

    known: Tensor
    scores: Tensor
    mask: Tensor
    noise: Tensor  # T
    size: Callable[[Tensor], Tensor]  # mean size `T` of the regions at these thresholds `T`


def scored(case: Case, num_tasks: int, generator: torch.Generator, sized: bool = False) -> Scored:
    """Draw tasks, adapt, score. Region sizes are kept for few tasks only."""
    data, noise = case.simulate(num_tasks, generator)
    support, query = (bm.Data(data.x[:, p], data.y[:, p], data.mask[:, p]) for p in (slice(SHOTS), slice(SHOTS, None)))
    mask = torch.arange(QUERIES) < torch.randint(1, QUERIES + 1, (num_tasks, 1), generator=generator)
    with torch.no_grad():
        known = leave_one_out_scores(case.learner, support, case.score, CHUNK)
        predictive = case.learner.condition(support).at(query.x)
        scores = case.score(predictive, query.y)
    scores = scores if scores.ndim == 3 else scores[..., None]

    def size(thresholds: Tensor) -> Tensor:
        if isinstance(case.score, bm.calibration.StandardizedResidual):
            return (2.0 * thresholds[:, None, None] * predictive.stddev).mean((1, 2))
        return (case.score.all(predictive) <= thresholds[:, None, None] + 1e-12).double().sum(-1).mean(1)  # type: ignore[attr-defined]

    return Scored(known, scores, mask, noise, size)


def learned(case: Case, generator: torch.Generator) -> ScoreQuantiles:
    """What 300 tasks teach of scores."""
    training = scored(case, TRAINING, generator)
    real = torch.ones(training.known.shape[:2], dtype=torch.bool)
    return fit_score_quantiles(training.known, real, training.scores, training.mask)


def covers(name: str, case: Case) -> tuple[list[str], float]:
    """The table of a case; returns what missed its bar, and how far below nominal coverage is, in standard errors."""
    generator = torch.Generator().manual_seed(0)
    quantiles = learned(case, generator)
    calibration = [scored(case, CHUNK, generator) for _ in range(DRAWS * TASKS[-1] // CHUNK)]
    test = scored(case, DRAWS, generator)

    def deviations(tasks: Scored) -> tuple[Tensor, Tensor]:
        knots = quantiles.knots(tasks.known, torch.ones(tasks.known.shape[:2], dtype=torch.bool))
        return quantiles.deviations(tasks.scores, knots), knots

    mask = torch.cat([c.mask for c in calibration]).unflatten(0, (DRAWS, -1))
    scores = torch.cat([c.scores for c in calibration]).unflatten(0, (DRAWS, -1))
    v = torch.cat([deviations(c)[0] for c in calibration]).unflatten(0, (DRAWS, -1))
    test_v, knots = deviations(test)
    hard = test.noise > test.noise.quantile(0.75)
    print(f"\n{name}")
    print(f"{'level':>6}{'K':>5}{'bar':>16}" + 2 * f"{'coverage':>18}{'hard':>7}{'size':>8}{'median':>8}")
    missed, below = [], []
    for level in LEVELS:
        for tasks in TASKS:
            low, high = level, level + 2.0 / (tasks + 1) + SLACK
            cells = ""
            for method in ("HierarchicalConformal", "FewShotConformal"):
                if method == "HierarchicalConformal":
                    threshold = hierarchical_quantile(scores[:, :tasks], mask[:, :tasks], level)
                    inside, thresholds = test.scores <= threshold[:, None], threshold[:, 0]
                else:
                    threshold = hierarchical_quantile(v[:, :tasks], mask[:, :tasks], level)
                    inside = test_v <= threshold[:, None]
                    pairs = zip(threshold, knots, strict=True)
                    thresholds = torch.cat([quantiles.scores(t, k[None])[:, 0] for t, k in pairs])
                share = (inside[..., 0] & test.mask).sum(1) / test.mask.sum(1)
                covered, error = float(share.mean()), float(share.double().std()) / math.sqrt(DRAWS)
                below.append((level - covered) / error)
                sizes = test.size(thresholds)
                if not low - ERRORS * error <= covered <= high:
                    missed.append(f"{method} {name} at {level} with {tasks} tasks: {covered:.3f}")
                cells += (
                    f"{covered:>11.3f} ±{error:.3f}{share[hard].mean():>7.2f}{sizes.mean():>8.2f}{sizes.median():>8.2f}"
                )
            print(f"{level:>6}{tasks:>5}{f'{low} to {high:.3f}':>16}{cells}", flush=True)
    return missed, max(below)


def exact_split() -> bool:
    """16 points of the task itself: nothing at .95, as it must be, and the largest of 16 scores at .9."""
    generator = torch.Generator().manual_seed(1)
    case = cases()["sine waves, straight lines"]
    x = 6.0 * torch.rand(DRAWS, SHOTS + SUPPORT + 1, 1, generator=generator, dtype=torch.float64) - 3.0
    y = x.sin() + torch.randn(x.shape, generator=generator, dtype=torch.float64)
    parts = (slice(SHOTS), slice(SHOTS, -1), slice(-1, None))
    support, own, query = (bm.Data(x[:, p], y[:, p], torch.ones(y[:, p, 0].shape, dtype=torch.bool)) for p in parts)
    posterior = bm.calibration.SplitConformal(case.learner).adapt(support, own)
    print("\nexact split conformal from 16 points of the task")
    whole = {}
    for level in (0.8, 0.9, 0.94, 0.95):
        lower, upper = posterior.interval(query.x, level)
        covered = ((lower <= query.y) & (query.y <= upper)).double().mean()
        whole[level] = float((lower.isneginf() & upper.isposinf()).double().mean())
        print(f"  level {level:<5} coverage {covered:.3f}, the whole line in {100 * whole[level]:.0f} % of the tasks")
    return whole[0.94] == 0.0 and whole[0.95] == 1.0


def pixels(images: bm.tasks.ImageClasses, num_tasks: int, seed: int) -> Tensor:
    """10-way episodes of raw pixels, 14 x 14, `T 10 20 196`."""
    parts = []
    for first in range(0, num_tasks, 50):
        data = (
            bm.tasks.Episodes(images, ways=WAYS).dataset(min(50, num_tasks - first), PER_CLASS, seed=seed + first).data
        )
        small = torch.nn.functional.avg_pool2d(data.x.flatten(0, 1), 2).unflatten(0, data.y.shape).flatten(2)
        order = data.y.argsort(dim=-1, stable=True)
        parts.append(small.gather(1, order[..., None].expand_as(small)).unflatten(1, (WAYS, PER_CLASS)))
    return torch.cat(parts).double()


@dataclass(frozen=True)
class Episodes:
    """Squared distances to class means, Q = C M query points; a class always is the place of an axis.

    Attributes:
        left_out: `T C N C`, of support points, those of their own class to its mean without them.
        query: `T Q C`.
        joined: `T Q C N C`, of the support of a class, when the query has joined it.
        joining: `T Q C C`, of the query, when it has joined a class.
    """

    left_out: Tensor
    query: Tensor
    joined: Tensor
    joining: Tensor

    @classmethod
    def of(cls, x: Tensor) -> "Episodes":
        """From points `T C 20 F`, 16 of each class support."""
        ways, n = x.shape[1], SUPPORT
        support, query = x[:, :, :n], x[:, :, n:].flatten(1, 2)
        means, eye = support.mean(2), torch.eye(ways, dtype=torch.bool)
        d = torch.cdist(support.flatten(1, 2), means).square().unflatten(1, (ways, n))
        q = torch.cdist(query, means).square()
        # x - (mean without x) = (x - mean) n / (n - 1);   x - (mean with x) = (x - mean) n / (n + 1)
        left_out = torch.where(eye[:, None], d * (n / (n - 1.0)) ** 2, d)
        joining = torch.where(eye, (q * (n / (n + 1.0)) ** 2)[..., None, :], q[..., None, :])
        # |x - mean - step|² with step = (q - mean) / (n + 1)
        step = (query[:, :, None] - means[:, None]) / (n + 1.0)
        cross = torch.einsum("tqcf,tcnf->tqcn", step, support - means[:, :, None])
        moved = d.diagonal(dim1=1, dim2=3).mT[:, None] - 2.0 * cross + step.square().sum(-1)[..., None]
        return cls(left_out, q, torch.where(eye[:, None], moved[..., None], d[:, None]), joining)

    @classmethod
    def in_parts(cls, x: Tensor) -> "Episodes":
        """The same, 20 episodes at a time."""
        parts = [cls.of(part) for part in x.split(20)]
        names = ("left_out", "query", "joined", "joining")
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def missing(distance: Tensor, scale: float) -> Tensor:
    """1 - p(c)."""
    return 1.0 - (-scale * distance).softmax(-1)


def own(scores: Tensor, dim: int) -> Tensor:
    """Of scores `.. C .. C` for all classes those of the class that the axis `dim` says."""
    return scores.diagonal(dim1=dim, dim2=-1).movedim(-1, dim)


def few_shot_setting(folder: Path) -> None:
    """10 ways, 16 shots, on Omniglot: sets by class as in the paper, and for all classes together as in the library."""
    train, rest = bm.tasks.omniglot(folder / "omniglot" / "omniglot_background.npz").split(0.5, seed=0)
    learning, episodes = (
        Episodes.in_parts(pixels(part, n, seed)) for part, n, seed in ((train, 150, 0), (rest, 300, 1000))
    )
    truth = torch.arange(WAYS).repeat_interleave(PER_CLASS - SUPPORT)
    scales = [2.0**k for k in range(-8, 4)]

    def nll(scale: float) -> float:
        logits = -scale * learning.query
        return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), truth.repeat(len(logits))))

    scale = min(scales, key=nll)
    accuracy = float((episodes.query.argmin(-1) == truth).double().mean())

    def by_class(found: Episodes) -> tuple[Tensor, Tensor]:
        """Of every class of every episode, scores of its support, `T C N`, and of its query, `T C M`."""
        query = missing(found.query, scale).unflatten(1, (WAYS, -1))
        return own(missing(found.left_out, scale), 1), own(query, 1)

    def fit(known: Tensor, scores: Tensor) -> ScoreQuantiles:
        ones = (torch.ones(t.shape[:2], dtype=torch.bool) for t in (known, scores))
        known_mask, mask = ones
        return fit_score_quantiles(known[..., None], known_mask, scores[..., None], mask)

    known, scores = by_class(learning)
    each, together = fit(known.flatten(0, 1), scores.flatten(0, 1)), fit(known.flatten(1), scores.flatten(1))
    known, scores = by_class(episodes)
    everything = missing(episodes.query, scale)  # T Q C

    def deviations(quantiles: ScoreQuantiles, known: Tensor, scores: Tensor) -> Tensor:
        knots = quantiles.knots(known[..., None], torch.ones(known.shape, dtype=torch.bool))
        return quantiles.deviations(scores[..., None], knots)[..., 0]

    # v of every class at every query point, by the support of that class, or of the episode
    class_v = deviations(each, known.flatten(0, 1), everything.mT.flatten(0, 1)).unflatten(0, (-1, WAYS)).mT
    task_v = deviations(together, known.flatten(1), everything.flatten(1)).unflatten(1, (-1, WAYS))
    inside = own(missing(episodes.joined, scale).movedim(3, 2), 3).movedim(-1, 2)  # T Q C N
    joining = own(missing(episodes.joining, scale), 2)
    generator = torch.Generator().manual_seed(0)
    right = f"{100 * accuracy:.0f} %"
    print(f"\nOmniglot, {WAYS} ways, {SUPPORT} shots, raw pixels, accuracy {right}: accuracy and size of sets")
    names = ("exact, by class", "few-shot, by class", "few-shot, marginal", "hierarchical, marginal")
    print(f"{'level':>6}" + "".join(f"{name:>25}" for name in names))
    for level in LEVELS:
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
        for _ in range(TRIALS):
            order = torch.randperm(len(known), generator=generator)
            calibration, test = order[:CALIBRATION], order[CALIBRATION:]
            place = truth.expand(len(known), -1)[..., None]

            def threshold(values: Tensor, rows: Tensor = calibration, level: float = level) -> Tensor:
                return hierarchical_quantile(
                    values[rows][..., None], torch.ones(values[rows].shape, dtype=torch.bool), level
                )[..., 0]

            outcome = class_v.gather(-1, place)[..., 0].unflatten(1, (WAYS, -1)).movedim(1, 0)  # C T M
            by_place = torch.stack([threshold(outcome[c]) for c in range(WAYS)])
            sets = {
                names[1]: class_v[test] <= by_place + 1e-9,
                names[2]: task_v[test] <= threshold(task_v.gather(-1, place)[..., 0]) + 1e-9,
                names[3]: everything[test] <= threshold(everything.gather(-1, place)[..., 0]) + 1e-12,
            }
            at = split_quantile(
                inside[test].flatten(0, 2)[..., None],
                torch.ones(inside[test].flatten(0, 2).shape, dtype=torch.bool),
                level,
            )
            sets[names[0]] = joining[test] <= at[:, 0].view(joining[test].shape) + 1e-12
            for name, chosen in sets.items():
                covered = float(chosen.gather(-1, place[test]).double().mean())
                found[name].append((covered, float(chosen.double().sum(-1).mean())))
        cells = [torch.tensor(found[name]).mean(0).tolist() for name in names]
        print(f"{level:>6}" + "".join(f"{f'{a:.3f} / {b:.2f}':>25}" for a, b in cells), flush=True)
    print("their table: exact, few-shot (both by class; ChEMBL: length of intervals)")
    for name, rows in FISCH.items():
        for level, (a, b, c, d) in rows.items():
            print(f"{level:>6}{f'{a:.2f} / {b:.2f}':>25}{f'{c:.2f} / {d:.2f}':>25}   {name}")


def main() -> None:
    """All tables and the verdict."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("BAYESMETA_DATA"))
    folder = parser.parse_args().data
    torch.set_num_threads(1)
    print("columns: HierarchicalConformal, then FewShotConformal: coverage, in hard tasks, mean and median size")
    results = [covers(name, case) for name, case in cases().items()]
    missed, worst = [miss for found, _ in results for miss in found], max(below for _, below in results)
    try:
        require_tasks(50, 0.99)
    except bm.DataError as error:
        print(f"\na level of .99 from 50 tasks: {error}")
    is_whole = exact_split()
    if folder is not None:
        few_shot_setting(folder)
    cells = 2 * len(LEVELS) * len(TASKS) * len(cases())
    verdict(
        f"coverage is at least nominal, up to {ERRORS:g} standard errors, and at most 2/(K + 1) + {SLACK} above in "
        f"{cells - len(missed)} of {cells} cells; the furthest below is {worst:.1f} standard errors"
        + "".join(f"; not {miss}" for miss in missed)
        + f"; 16 points of a task promise nothing at .95: {'yes' if is_whole else 'no'}",
        seed=0,
    )


if __name__ == "__main__":
    main()
