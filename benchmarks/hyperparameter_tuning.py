"""Data sets that scatter unlike each other: with a scale for each task, intervals hold 95 % of a single one, too.

LCBench (Zimmer, Lindauer, Hutter 2021): a task is a data set on which networks are tuned, a point one of 2,000
configurations with its validation accuracy, as -log(1.01 - accuracy). Within a task it deviates by .01 to 1.11. Five
folds of five data sets; the 20 others train ALPaCA with and without a `TaskScale`, all else alike. Scores are at 5 and
20 points of a new data set, on others of its points.

Then the data sets of each fold are tuned: 300 configurations, one random start, then the largest expected improvement,
25 evaluations in all. What counts is the evaluations until the regret is below 5 % of the range within the pool; 27
where it never is. A Gaussian process that knows no other data set, random search, and a portfolio, the configurations
that one after the other lower the mean regret of the training data sets the most, are for comparison.

`BAYESMETA_DATA` names the folder of tables. The table is parquet, which pandas reads with pyarrow.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import stats
from scipy.special import log_ndtr

import bayesmeta as bm
from bayesmeta import distributions
from benchmarks._report import verdict

LEVEL, SHOTS, QUERY, FOLDS = 0.95, (5, 20), 300, 5
LOGARITHMIC = ["batch_size", "max_units", "learning_rate"]
INPUTS = [*LOGARITHMIC, "max_dropout", "num_layers", "momentum", "weight_decay"]
POOL, EVALUATIONS, NEVER, BELOW = 300, 25, 27, 0.05
D = torch.float64


def read(folder: Path) -> pd.DataFrame:
    """The table, with the outcome and what is log-uniform transformed."""
    frame = pd.read_parquet(folder / "lcbench" / "lcbench.parquet")
    frame[LOGARITHMIC] = np.log(frame[LOGARITHMIC])
    return frame.assign(y=-np.log(1.01 - frame["final_val_accuracy"] / 100.0))


def make(scale: bool) -> bm.Learner:
    """ALPaCA on a network, with or without a scale for each task."""
    return bm.Standardized(bm.ALPaCA(bm.MLP(7, HIDDEN), scale=bm.priors.TaskScale() if scale else None))


def fit(learner: bm.Learner, train: bm.TaskDataset, seed: int, steps: int) -> float:
    """Processor seconds."""
    start = time.process_time()
    split = bm.tasks.RandomSplit((0, 0), query=POINTS)
    bm.fit(learner, train, steps, lr=LR, split=split, objective=bm.training.Evidence(), seed=seed, progress=False)
    return time.process_time() - start


def scores(learner: bm.Learner, test: bm.TaskDataset, draws: int) -> list[tuple[int, object, float, float]]:
    """Shots, task, coverage and NLL, of several choices of the points that are seen."""
    rows = []
    for draw in range(draws):
        for at in bm.evaluate(learner, test, SHOTS, query=QUERY, level=LEVEL, num_bootstrap=0, seed=draw).results:
            values = zip(at.names, at.scores["coverage"], at.scores["nll"], strict=True)
            rows += [(at.shots, *each) for each in values]
    return rows


# ---------------------------------------------------------------------------------------------------------- tuning


class Pool:
    """The configurations that may be tried, of some tasks: `y` and the regret of each, `T 300`."""

    def __init__(self, frame: pd.DataFrame, seed: int) -> None:
        configs = np.random.default_rng(seed).permutation(frame.config.nunique())[:POOL]
        self.x = torch.tensor(frame.groupby("config")[INPUTS].first().loc[configs].to_numpy(), dtype=D)
        self.y = torch.tensor(frame.pivot(index="task", columns="config", values="y")[configs].to_numpy(), dtype=D)
        worst, best = self.y.amin(1, keepdim=True), self.y.amax(1, keepdim=True)
        self.regret = (best - self.y) / (best - worst)

    def evaluations(self, task: int, tried: list[int]) -> int:
        """How many until the regret is low."""
        low = (self.regret[task, tried] < BELOW).nonzero()
        return int(low[0]) + 1 if len(low) else NEVER


def log_improvement(gain: np.ndarray, deviation: np.ndarray, dof: float | None) -> np.ndarray:
    """log E max(f - best, 0) of f with a mean `gain` above the best; of Student's t where degrees of freedom are given.

    `deviation` is the scale of the t, or the standard deviation of the Gaussian.
    """
    z = gain / deviation
    if dof is not None:
        t = stats.t(dof)
        return np.log(deviation) + np.log(np.maximum((dof + z**2) / (dof - 1.0) * t.pdf(z) + z * t.cdf(z), 1e-300))
    far = -0.5 * z**2 - 0.9189385 - 2.0 * np.log(np.maximum(np.abs(z), 1.0))  # φ(z) / z²
    near = np.log(np.maximum(stats.norm.pdf(z) + z * np.exp(log_ndtr(z)), 1e-300))
    return np.log(deviation) + np.where(z < -6.0, far, near)


def tuned(learner: bm.Learner, pool: Pool, tasks: list[int], starts: np.ndarray) -> list[int]:
    """Evaluations of every task and start by a learner's expected improvement."""
    x = pool.x.expand(len(tasks), -1, -1)
    counts = []
    for start in starts:
        tried = [[int(start)] for _ in tasks]
        while len(tried[0]) < EVALUATIONS:
            seen = torch.tensor(tried)
            y = pool.y[tasks].gather(1, seen)
            support = bm.Data.full(pool.x[seen], y[..., None])
            f = learner.adapt(support).predict(x).noiseless
            marginal = distributions.univariate(f.marginals)
            for b, own in enumerate(tried):
                gain = (marginal.mean[b, :, 0] - y[b].max()).numpy()
                dof = float(marginal.df[b, 0, 0]) if isinstance(marginal, torch.distributions.StudentT) else None
                value = log_improvement(gain, marginal.scale[b, :, 0].numpy(), dof)
                value[own] = -np.inf
                own.append(int(value.argmax()))
        counts += [pool.evaluations(task, own) for task, own in zip(tasks, tried, strict=True)]
    return counts


def alone(pool: Pool, tasks: list[int], starts: np.ndarray) -> list[int]:
    """The same by a Gaussian process of each task alone: Matérn 5/2, length and noise where the evidence is largest."""
    unit = (pool.x - pool.x.mean(0)) / pool.x.std(0)
    lengths, noises = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=D), torch.tensor([1e-4, 1e-2, 1e-1], dtype=D)
    r = 5.0**0.5 * torch.cdist(unit, unit) / lengths[:, None, None]
    kernel = ((1.0 + r + r.square() / 3.0) * (-r).exp()).repeat_interleave(len(noises), 0)  # K 300 300
    noise = noises.repeat(len(lengths))[:, None, None]
    counts = []
    for start in starts:
        for task in tasks:
            tried = [int(start)]
            while len(tried) < EVALUATIONS:
                y = pool.y[task, tried]
                center, spread = y.mean(), y.std().clamp(min=1e-3) if len(y) > 1 else torch.ones((), dtype=D)
                z = ((y - center) / spread)[:, None]
                factor = torch.linalg.cholesky(kernel[:, tried][:, :, tried] + noise * torch.eye(len(tried), dtype=D))
                white = torch.linalg.solve_triangular(factor, z.expand(len(factor), -1, -1), upper=False)
                cross = torch.linalg.solve_triangular(factor, kernel[:, tried], upper=False)
                evidence = -0.5 * white.square().sum((1, 2)) - factor.diagonal(dim1=1, dim2=2).log().sum(1)
                k = int(evidence.argmax())
                mean = center + spread * (cross[k].mT @ white[k])[:, 0]
                deviation = spread * (1.0 - cross[k].square().sum(0)).clamp(min=1e-10).sqrt()
                value = log_improvement((mean - y.max()).numpy(), deviation.numpy(), None)
                value[tried] = -np.inf
                tried.append(int(value.argmax()))
            counts.append(pool.evaluations(task, tried))
    return counts


def portfolio(pool: Pool, train: list[int]) -> list[int]:
    """The configurations that one after the other lower the mean of the training tasks' best regret the most."""
    best, chosen = torch.full((len(train),), torch.inf, dtype=D), []
    for _ in range(EVALUATIONS):
        reached = torch.minimum(pool.regret[train], best[:, None]).mean(0)
        reached[chosen] = torch.inf
        chosen.append(int(reached.argmin()))
        best = torch.minimum(best, pool.regret[train, chosen[-1]])
    return chosen


def main() -> None:
    """Fit, score, tune."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--draws", type=int, default=1, help="choices of the points that are seen, for each fit")
    parser.add_argument("--starts", type=int, default=4, help="random first configurations, of each task and seed")
    arguments = parser.parse_args()
    if "BAYESMETA_DATA" not in os.environ:
        parser.error("expected BAYESMETA_DATA, the folder that holds lcbench/lcbench.parquet")
    torch.set_num_threads(1)
    frame = read(Path(os.environ["BAYESMETA_DATA"]))
    tasks = bm.TaskDataset.from_frame(frame, task="task", x=INPUTS, y=["y"])
    names = sorted(frame.task.unique())
    places = {name: i for i, name in enumerate(tasks.names)}
    folds = np.array_split(np.random.default_rng(0).permutation(len(names)), FOLDS)
    methods = {"ALPaCA": False, "ALPaCA, task scale": True}
    rows, spent, found = [], {name: [] for name in methods}, []
    for seed in range(arguments.seeds):
        pool = Pool(frame, seed)
        starts = np.random.default_rng(seed).integers(POOL, size=arguments.starts)
        for fold in folds:
            held = fold.tolist()
            rest = [i for i in range(len(names)) if i not in held]
            train, test = (tasks.select([places[names[i]] for i in part]) for part in (rest, held))
            for name, scale in methods.items():
                torch.manual_seed(seed)
                learner = make(scale)
                spent[name].append(fit(learner, train, seed, arguments.steps))
                rows += [(name, seed, *row) for row in scores(learner, test, arguments.draws)]
                found += [(name, count) for count in tuned(learner, pool, held, starts)]
            found += [("Gaussian process, alone", count) for count in alone(pool, held, starts)]
            order = [np.random.default_rng((seed, i)).permutation(POOL)[:EVALUATIONS].tolist() for i in range(20)]
            found += [("random", pool.evaluations(task, each)) for task in held for each in order]
            found += [("portfolio", pool.evaluations(task, portfolio(pool, rest))) for task in held]
        print(f"seed {seed}: {time.process_time():.0f} processor seconds", flush=True)
    table = pd.DataFrame(rows, columns=["method", "seed", "shots", "task", "coverage", "nll"])
    each = table.groupby(["method", "shots", "seed", "task"])[["coverage", "nll"]].mean()
    each["miss"] = (each.coverage - LEVEL).abs()
    shown = each.groupby(["method", "shots"]).mean()
    shown["lowest"] = each.groupby(["method", "shots"]).coverage.min()
    print(f"\n{'':<24}{'shots':>6}{'coverage':>10}{'|c - .95|':>11}{'lowest':>8}{'NLL':>8}{'fit, s':>8}")
    for (name, shots), row in shown.iterrows():
        seconds = np.mean(spent[name])
        print(
            f"{name:<24}{shots:>6}{row.coverage:>10.3f}{row.miss:>11.3f}{row.lowest:>8.2f}{row.nll:>8.3f}{seconds:>8.1f}"
        )
    counts = pd.DataFrame(found, columns=["method", "evaluations"]).groupby("method").evaluations
    print(f"\n{'evaluations until regret < 5 %':<32}{'mean':>6}{'median':>8}{'never':>8}")
    for name, own in counts:
        print(f"{name:<32}{own.mean():>6.1f}{own.median():>8.0f}{(own == NEVER).mean():>8.2f}")
    without, scaled = (shown.loc[name] for name in methods)
    verdict(
        "with a task scale the coverage of a single data set misses 95 % by "
        f"{scaled.miss[5]:.3f} at 5 and {scaled.miss[20]:.3f} at 20 points in place of {without.miss[5]:.3f} and "
        f"{without.miss[20]:.3f}; NLL {scaled.nll[5]:.3f} and {scaled.nll[20]:.3f} in place of "
        f"{without.nll[5]:.3f} and {without.nll[20]:.3f}",
        seed=arguments.seeds - 1,
    )


HIDDEN, POINTS, LR, STEPS = [64, 64], 25, 3e-3, 700

if __name__ == "__main__":
    main()
