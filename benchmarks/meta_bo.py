"""Bayesian optimisation that has seen other tasks needs fewer evaluations: on LCBench, and on simulated functions.

LCBench (Zimmer, Lindauer, Hutter 2021): a task is a data set on which networks are tuned. Five folds of five data sets
are tuned, each by what was learned of the 20 others: from one random configuration of a pool of 300 on, the one of the
largest log expected improvement, 25 evaluations in all. What counts is the evaluations until the regret is below 5 % of
the range within the pool, 27 where it never is.

The learner is ALPaCA on a network with a `TaskScale`, as a BoTorch model (`interop.botorch`). How long it is trained is
chosen by cross-validation among the 20 data sets, by the log density of points that are left out; the data sets that
are tuned take no part in it. Beside it: a fresh `SingleTaskGP` with BoTorch's defaults, fitted anew after every
evaluation; random search; and a portfolio, the configurations that one after the other lower the mean regret of the 20
data sets the most, which has no random start and needs configurations that all tasks share. *Own start* is the learner
that begins where it expects most.

Simulated: sinusoids of unknown amplitude, phase and frequency, and draws of a Gaussian process, where a fresh process
has little to learn from others but its length and its noise.

`BAYESMETA_DATA` names the folder of tables. The table is parquet, which pandas reads with pyarrow.
"""

import argparse
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from botorch.acquisition import LogExpectedImprovement as OfOneGaussian
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from botorch.models.transforms import Normalize, Standardize
from gpytorch.mlls import ExactMarginalLogLikelihood
from torch import Tensor

import bayesmeta as bm
from bayesmeta.interop.botorch import LogExpectedImprovement, TaskModel
from benchmarks._report import verdict
from benchmarks.hyperparameter_tuning import FOLDS, INPUTS, SHOTS, fit, make, read

POOL, EVALUATIONS, NEVER, BELOW = 300, 25, 27, 0.05
STEPS, INNER = (100, 300, 1000), 4  # numbers of training steps that are tried, and folds of the training tasks
SHOWN = (1, 2, 3, 5, 10, 15, 25)
LEARNED, ITSELF = "ALPaCA, task scale", "the same, own start"
FRESH, RANDOM, FIXED = "SingleTaskGP, fresh", "random", "portfolio"
D = torch.float64


@dataclass(frozen=True)
class Pool:
    """What may be tried: `x` of `T 300 d`, and `y` of `T 300`, of which the largest is wanted."""

    x: Tensor
    y: Tensor

    @property
    def regret(self) -> Tensor:
        """Of each, as a share of the range of its task."""
        worst, best = self.y.amin(1, keepdim=True), self.y.amax(1, keepdim=True)
        return (best - self.y) / (best - worst)

    def select(self, tasks: list[int]) -> "Pool":
        """Of some tasks."""
        return Pool(self.x[tasks], self.y[tasks])

    def regrets(self, tried: Tensor) -> Tensor:
        """The lowest regret after each evaluation: `T 25` of positions `T 25`."""
        return self.regret.gather(1, tried).cummin(1).values


def evaluations(regrets: Tensor) -> Tensor:
    """How many until the regret is low, of each row."""
    low = regrets < BELOW
    return torch.where(low.any(1), low.double().argmax(1) + 1, NEVER)


def first(learner: bm.Learner, pool: Pool) -> Tensor:
    """Where a learner expects most of each task before any evaluation."""
    prior = TaskModel.adapted(learner, pool.x[:, :0], pool.y[:, :0, None])
    with torch.no_grad():
        return prior.task_posterior.predict(pool.x).mean[..., 0].argmax(1)


def learned(learner: bm.Learner, pool: Pool, start: Tensor) -> Tensor:
    """What is tried of each task by a learner's expected improvement: all tasks side by side."""
    tasks = torch.arange(len(pool.y))
    tried = start[:, None]
    model = TaskModel.adapted(learner, pool.x[tasks, start][:, None], pool.y[tasks, start][:, None, None])
    points = pool.x.transpose(0, 1)[:, :, None]  # 300 T 1 d
    while tried.shape[1] < EVALUATIONS:
        best = pool.y.gather(1, tried).amax(1)
        with torch.no_grad():
            value = LogExpectedImprovement(model, best_f=best)(points).mT.scatter(1, tried, -torch.inf)
        chosen = value.argmax(1)
        tried = torch.cat([tried, chosen[:, None]], 1)
        model = model.condition_on_observations(pool.x[tasks, chosen][:, None], pool.y[tasks, chosen][:, None, None])
    return tried


def fresh(pool: Pool, start: Tensor) -> Tensor:
    """The same by a Gaussian process of each task alone, with BoTorch's defaults."""
    rows = []
    for x, y, first in zip(pool.x, pool.y, start.tolist(), strict=True):
        bounds = torch.stack([x.amin(0), x.amax(0)])
        tried = [first]
        while len(tried) < EVALUATIONS:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # one point has no deviation; a fit that tries again
                process = SingleTaskGP(
                    x[tried],
                    y[tried, None],
                    input_transform=Normalize(x.shape[1], bounds=bounds),
                    outcome_transform=Standardize(1),
                )
                fit_gpytorch_mll(ExactMarginalLogLikelihood(process.likelihood, process))
                with torch.no_grad():
                    value = OfOneGaussian(process, best_f=y[tried].max())(x[:, None])
            value[tried] = -torch.inf
            tried.append(int(value.argmax()))
        rows.append(tried)
    return torch.tensor(rows)


def portfolio(train: Pool) -> Tensor:
    """The positions that one after the other lower the mean of the training tasks' best regret the most."""
    best, chosen = torch.full((len(train.y),), torch.inf, dtype=D), []
    for _ in range(EVALUATIONS):
        reached = torch.minimum(train.regret, best[:, None]).mean(0)
        reached[chosen] = torch.inf
        chosen.append(int(reached.argmin()))
        best = torch.minimum(best, train.regret[:, chosen[-1]])
    return torch.tensor(chosen)


def steps_of(make_one: Callable[[], bm.Learner], train: bm.TaskDataset, seed: int) -> int:
    """The number of training steps with the best log density of points left out, of tasks left out of `train`."""
    places = np.array_split(np.random.default_rng(seed).permutation(len(train)), INNER)
    scores = {}
    for steps in STEPS:
        found = []
        for own in places:
            rest = [i for i in range(len(train)) if i not in own]
            torch.manual_seed(seed)
            learner = make_one()
            fit(learner, train.select(rest), seed, steps)
            at = bm.evaluate(learner, train.select(own.tolist()), SHOTS, query=100, num_bootstrap=0, seed=seed).results
            found += [value for each in at for value in each.scores["nll"]]
        scores[steps] = float(np.mean(found))
    print(
        f"  NLL of tasks left out of {len(train)}: {', '.join(f'{s} steps {v:.3f}' for s, v in scores.items())}",
        flush=True,
    )
    return min(scores, key=scores.__getitem__)


class Record:
    """What every method did."""

    def __init__(self) -> None:
        self.regrets: dict[str, list[Tensor]] = {}
        self.seconds: dict[str, list[float]] = {}

    def add(self, method: str, pool: Pool, tried: Tensor, seconds: float = 0.0) -> None:
        """Of all tasks of the pool."""
        self.regrets.setdefault(method, []).append(pool.regrets(tried))
        self.seconds.setdefault(method, []).append(seconds / (len(tried) * (EVALUATIONS - 1)))

    def counts(self, method: str) -> Tensor:
        """Evaluations until the regret is low, of every run."""
        return evaluations(torch.cat(self.regrets[method])).double()

    def show(self, title: str) -> None:
        """The table."""
        print(f"\n{title}")
        print(f"{'':<22}{'evaluations to 5 %':^24}{'mean regret, %, after so many evaluations':^50}{'ms each':>9}")
        print(f"{'':<22}{'mean':>8}{'median':>8}{'never':>8}" + "".join(f"{n:>7}" for n in SHOWN))
        for method, regrets in self.regrets.items():
            counts, mean = self.counts(method), 100.0 * torch.cat(regrets).mean(0)
            row = "".join(f"{mean[n - 1].item():>7.1f}" for n in SHOWN)
            never = (counts == NEVER).double().mean().item()
            each = 1e3 * np.mean(self.seconds[method])
            print(f"{method:<22}{counts.mean():>8.1f}{counts.median():>8.0f}{never:>8.2f}{row}{each:>9.1f}", flush=True)


def run(record: Record, learner: bm.Learner, pool: Pool, seed: int, starts: int, alone: bool) -> None:
    """All methods but the portfolio, from random starts."""
    generator = torch.Generator().manual_seed(seed)
    record.add(ITSELF, pool, learned(learner, pool, first(learner, pool)))
    for _ in range(starts):
        start = torch.randint(pool.y.shape[1], (len(pool.y),), generator=generator)
        begin = time.process_time()
        record.add(LEARNED, pool, tried := learned(learner, pool, start), time.process_time() - begin)
        assert len(tried[0].unique()) == EVALUATIONS
        if alone:
            begin = time.process_time()
            record.add(FRESH, pool, fresh(pool, start), time.process_time() - begin)
        for _ in range(10):
            record.add(RANDOM, pool, torch.rand(pool.y.shape, generator=generator).argsort(1)[:, :EVALUATIONS])


def lcbench(folder: Path, seeds: int, starts: int, alone: int, steps: int | None) -> Record:
    """Five folds of five data sets; another pool with every seed."""
    frame = read(folder)
    tasks = bm.TaskDataset.from_frame(frame, task="task", x=INPUTS, y=["y"])
    names = sorted(frame.task.unique())
    places = {name: i for i, name in enumerate(tasks.names)}
    record, chosen = Record(), {}
    folds = np.array_split(np.random.default_rng(0).permutation(len(names)), FOLDS)
    for seed in range(seeds):
        configs = np.random.default_rng(seed).permutation(frame.config.nunique())[:POOL]
        x = torch.tensor(frame.groupby("config")[INPUTS].first().loc[configs].to_numpy(), dtype=D)
        y = torch.tensor(frame.pivot(index="task", columns="config", values="y")[configs].to_numpy(), dtype=D)
        pool = Pool(x.expand(len(names), -1, -1), y)
        for number, fold in enumerate(folds):
            held = fold.tolist()
            rest = [i for i in range(len(names)) if i not in held]
            train = tasks.select([places[names[i]] for i in rest])
            if number not in chosen:
                chosen[number] = steps_of(lambda: make(True), train, seed) if steps is None else steps
            torch.manual_seed(seed)
            learner = make(True)
            fit(learner, train, seed, chosen[number])
            own = pool.select(held)
            run(record, learner, own, seed, starts, alone=seed < alone)
            record.add(FIXED, own, portfolio(pool.select(rest)).expand(len(held), -1))
            print(f"seed {seed}, fold {number}: {time.process_time():.0f} processor seconds", flush=True)
        record.show(f"LCBench, {seed + 1} pools, steps of the folds {list(chosen.values())}")
    return record


def simulated(name: str, simulator: bm.tasks.Simulator, num_tasks: int, steps: int | None) -> None:
    """100 tasks of 40 points train; others are searched."""
    train = simulator.dataset(100, 40, seed=1)
    points = simulator.dataset(num_tasks, POOL, seed=2).data.to(D)

    def one() -> bm.Learner:
        return bm.Standardized(bm.ALPaCA(bm.MLP(1, [64, 64]), scale=bm.priors.TaskScale()))

    learner = one()
    fit(learner, train, 0, steps_of(one, train, 0) if steps is None else steps)
    record = Record()
    run(record, learner, Pool(points.x, points.y[..., 0]), 0, 1, alone=True)
    record.show(f"{name}, {num_tasks} functions")


def main() -> None:
    """Fit, tune, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--starts", type=int, default=1, help="random first configurations, of each task and seed")
    parser.add_argument("--functions", type=int, default=20, help="simulated ones; 0 for LCBench alone")
    parser.add_argument("--fresh", type=int, default=3, help="pools that the fresh process searches: it is slow")
    parser.add_argument("--steps", type=int, help="of training, where a run before has chosen them")
    arguments = parser.parse_args()
    if "BAYESMETA_DATA" not in os.environ:
        parser.error("expected BAYESMETA_DATA, the folder that holds lcbench/lcbench.parquet")
    torch.set_num_threads(1)
    folder = Path(os.environ["BAYESMETA_DATA"])
    record = lcbench(folder, arguments.seeds, arguments.starts, arguments.fresh, arguments.steps)
    if arguments.functions:
        simulated("Sinusoids", bm.tasks.Sinusoid(frequency=(0.5, 2.0)), arguments.functions, arguments.steps)
        simulated("Gaussian process, Matérn 5/2", bm.tasks.GPFunctions.matern(), arguments.functions, arguments.steps)
    own, fixed = record.counts(LEARNED), record.counts(FIXED).mean().item()
    mean, median = own.mean().item(), own.median().item()
    met, share = mean <= 7.0 and median <= 3.0, "it was not run"
    if FRESH in record.regrets:
        ratio = own[: len(record.counts(FRESH))].mean().item() / record.counts(FRESH).mean().item()
        met, share = met and ratio <= 0.6, f"{ratio:.2f} of its evaluations on the same pools (<= .6)"
    verdict(
        f"{'met' if met else 'missed'}: LCBench needs {mean:.1f} evaluations in the mean (<= 7), {median:.0f} in the "
        f"median (<= 3), and the portfolio of these pools {fixed:.1f}; a fresh process: {share}",
        seed=arguments.seeds - 1,
    )


if __name__ == "__main__":
    main()
