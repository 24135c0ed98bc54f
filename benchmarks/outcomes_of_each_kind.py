"""Classes, counts, positive numbers and outcomes with gaps are predicted as what they are.

Four parts, of which each compares what the command line takes for a kind of outcome with the way around it:

- binary: a generalised linear mixed model (random intercept, treatment and time) on the toenail table, where
  BAYESMETA_DATA has it: its total log-likelihood by Laplace's approximation and by quadrature, each at its own maximum,
  beside a sum over a grid of 4,001 intercepts at the same parameters. The bar is .2 nats for quadrature.
- counts: 100 tasks of 8 counts, negative binomial around a log rate of each task's own, and 400 fresh tasks: density
  and coverage of 90 % intervals by the negative binomial, by the Poisson and by the linear mixed model of numbers,
  whose density is compared as it is: a count is an interval of length 1.
- positive: 60 tasks whose outcome is multiplied by a factor of each task's own, and 400 fresh ones: density with
  logarithms inside (`LogTransformed`) and without.
- gaps: 60 tasks with two outcomes, of which the second is missing in seven rows of ten, as is the first: the density of
  the second, trained on the rows that have it (`Separately`), and trained on those that have both.
"""

import argparse
import math
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import logsigmoid

import bayesmeta as bm
from bayesmeta.learners import GeneralizedLinearMixedModel
from bayesmeta.recipes import recipe
from bayesmeta.separate_outcomes import evaluate_each, for_tasks
from bayesmeta.trainers import Training
from benchmarks._report import verdict

SHOTS = (0, 1, 3)


def toenail(folder: Path) -> dict[int, tuple[float, float, float]]:
    """By number of nodes: the log-likelihood, that of the grid, the deviation of intercepts."""
    frame = pd.read_csv(folder / "toenail" / "toenail.csv")
    frame["drug"] = (frame.treatment == "terbinafine").astype(float)
    frame["both"] = frame.drug * frame.time
    frame["ill"] = (frame.outcome == "moderate or severe").astype(int)
    tasks = bm.TaskDataset.from_frame(frame, task="task", x=["drug", "time", "both"], y=["ill"], outcomes=bm.Labels(2))
    found = {}
    for nodes in (1, 10, 50):
        learner = GeneralizedLinearMixedModel(
            bm.Identity(3),
            likelihood=bm.likelihoods.Bernoulli(),
            covariance=bm.priors.FullCovariance(4, varying=[0]),
            nodes=nodes,
        ).double()
        bm.fit_evidence(learner, tasks)
        weights, deviation = learner.network.location.detach()[:, 0], learner.covariance.lower.detach().abs().item()
        grid = torch.linspace(-12.0, 12.0, 4_001, dtype=torch.float64)
        log_prior = -0.5 * grid.square() - 0.5 * math.log(2.0 * math.pi) + math.log(24.0 / 4_000)
        f = weights[0] + tasks.data.x.double() @ weights[1:]
        signs = (2 * tasks.data.y - 1)[..., None].double()
        terms = logsigmoid(signs * (f[..., None] + deviation * grid))
        exact = (torch.where(tasks.data.mask[..., None], terms, 0.0).sum(1) + log_prior).logsumexp(-1).sum().item()
        found[nodes] = learner.log_evidence(tasks.data).sum().item(), exact, deviation
    return found


def counts(num_tasks: int, seed: int, outcomes: bm.Numbers) -> bm.TaskDataset:
    """Log rates are lines; the dispersion is .5."""
    generator = np.random.default_rng(seed)
    who, day = np.repeat(np.arange(num_tasks), 8), np.tile(np.arange(8.0), num_tasks)
    level, slope = generator.normal(1.0, 0.8, num_tasks), generator.normal(-0.1, 0.1, num_tasks)
    mean = np.exp(level[who] + slope[who] * day)
    y = generator.poisson(generator.gamma(2.0, 1.0, len(who)) * mean / 2.0)
    frame = pd.DataFrame({"who": who, "day": day, "y": y.astype(float)})
    return bm.TaskDataset.from_frame(frame, task="who", x=["day"], y=["y"], outcomes=outcomes)


def products(num_tasks: int, seed: int, outcomes: bm.Numbers) -> bm.TaskDataset:
    """A factor of each task's own, and errors in proportion."""
    generator = np.random.default_rng(seed)
    who, day = np.repeat(np.arange(num_tasks), 8), np.tile(np.arange(8.0), num_tasks)
    factor = np.exp(generator.normal(2.0, 0.7, num_tasks))
    y = factor[who] * np.exp(0.2 * day + generator.normal(0.0, 0.2, len(who)))
    frame = pd.DataFrame({"who": who, "day": day, "y": y})
    return bm.TaskDataset.from_frame(frame, task="who", x=["day"], y=["y"], outcomes=outcomes)


def with_gaps(num_tasks: int, seed: int, share: float) -> pd.DataFrame:
    """Two lines of each task; a share of the second outcome is missing, and none where the share is 0."""
    generator = np.random.default_rng(seed)
    who, day = np.repeat(np.arange(num_tasks), 8), np.tile(np.arange(8.0), num_tasks)
    lines = generator.normal(0.0, [[2.0], [0.5], [2.0], [0.5]], (4, num_tasks))
    first = lines[0][who] + lines[1][who] * day + generator.normal(0.0, 0.5, len(who))
    second = lines[2][who] + lines[3][who] * day + generator.normal(0.0, 0.5, len(who))
    second[generator.uniform(size=len(who)) < share] = np.nan
    first[generator.uniform(size=len(who)) < share] = np.nan
    return pd.DataFrame({"who": who, "day": day, "first": first, "second": second})


def fitted(method: str, tasks: bm.TaskDataset) -> bm.Learner:
    """What `bayesmeta fit TABLE --method METHOD` makes of the tasks."""
    assert tasks.schema is not None
    chosen = for_tasks(recipe(method, tasks.schema.outcome_kind), tasks)
    torch.manual_seed(0)
    return chosen.train(chosen.for_table(tasks.schema, len(tasks)), tasks, Training(progress=False)).learner


def line(name: str, learner: bm.Learner, tasks: bm.TaskDataset) -> float:
    """Print NLL and coverage by shots. Returns the NLL at most points."""
    table = bm.evaluate(learner, tasks, SHOTS, num_bootstrap=0).table()
    print(f"  {name:<28}" + " ".join(f"{value:8.3f}" for value in table["nll"]), end="   ")
    print(" ".join(f"{value:7.3f}" for value in table["coverage"]))
    return float(table["nll"].iloc[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    seed = parser.parse_args().seed
    torch.set_num_threads(1)
    start, said = time.process_time(), []

    folder = os.environ.get("BAYESMETA_DATA")
    if folder is None:
        print("binary: left out, as BAYESMETA_DATA names no folder of tables")
    else:
        print("binary: toenail, 294 patients, random intercept\n  nodes   log-likelihood   on the grid   deviation")
        found = toenail(Path(folder))
        for nodes, (own, exact, deviation) in found.items():
            print(f"  {nodes:>5} {own:16.2f} {exact:13.2f} {deviation:11.2f}")
        own, exact, _ = found[50]
        said.append(f"quadrature within {abs(own - exact):.4f} nats of the grid (bar .2)")

    heading = f"  {'':<28}{'NLL at ' + ', '.join(map(str, SHOTS)) + ' points':<29}coverage of 90 %"
    print(f"\ncounts: 100 tasks, 400 fresh ones\n{heading}")
    kinds = bm.tasks.Counts(), bm.Numbers()
    train, fresh = ([counts(n, seed + i, kind) for kind in kinds] for i, n in ((0, 100), (1, 400)))
    count = line("glmm (negative binomial)", fitted("glmm", train[0]), fresh[0])
    line("glmm-poisson", fitted("glmm-poisson", train[0]), fresh[0])
    number = line("alpaca-linear, as numbers", fitted("alpaca-linear", train[1]), fresh[1])
    said.append(f"counts {count - number:+.3f} nats from numbers at 3 points")

    print(f"\npositive: 60 tasks, 400 fresh ones\n{heading}")
    kinds = bm.tasks.Positives(), bm.Numbers()
    train, fresh = ([products(n, seed + i, kind) for kind in kinds] for i, n in ((2, 60), (3, 400)))
    positive = line("alpaca-linear, positive", fitted("alpaca-linear", train[0]), fresh[0])
    number = line("alpaca-linear, as numbers", fitted("alpaca-linear", train[1]), fresh[1])
    said.append(f"positive {positive - number:+.3f} nats from numbers at 3 points")

    print("\ngaps: 60 tasks, seven cells of ten missing; 400 fresh tasks without gaps; outcome 'second'")
    frame, names = with_gaps(60, seed + 4, 0.7), ["first", "second"]
    test = bm.TaskDataset.from_frame(with_gaps(400, seed + 5, 0.0), task="who", x=["day"], y=names)
    nll = {}
    for name, rows in (("rows that have one of both", frame), ("rows that have both", frame.dropna())):
        tasks = bm.TaskDataset.from_frame(rows, task="who", x=["day"], y=names)
        learner = fitted("alpaca-linear", tasks)
        if isinstance(learner, bm.wrappers.Separately):
            scores = evaluate_each(learner, test, [1], num_bootstrap=0)["second"].table()
        else:
            scores = bm.evaluate(learner, test, [1], num_bootstrap=0).by_outcome()["second"].table()
        nll[name] = float(scores["nll"].iloc[0])
        print(f"  {name:<28}{len(rows.dropna(subset=names, how='all')):>4} rows   NLL at 1 point {nll[name]:.3f}")
    kept, dropped = nll.values()
    said.append(f"gaps kept {kept - dropped:+.3f} nats from gaps dropped")
    print(f"\n{time.process_time() - start:.0f} processor seconds")
    verdict("; ".join(said), seed)


if __name__ == "__main__":
    main()
