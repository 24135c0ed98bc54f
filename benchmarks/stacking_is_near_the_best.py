"""On real tables, learners stacked without test tasks are within .02 nats per point of the best one in hindsight.

Tasks of a table are divided into three parts. On two of them `bm.compare` cross-validates five candidates (three
folds) at 1 and 3 shots, the best one is chosen, and all are stacked; the third part judges. The candidates are the
linear mixed model, ALPaCA on bumps, a Gaussian process with a noise of each task's own, and what is always there: a
pooled network and a fresh process for each task. *Regret* is the NLL of a point less that of the candidate which is
best on the test tasks, in hindsight, averaged over tasks; its standard error is that of the paired differences.
`BAYESMETA_DATA` names the folder of tables; logarithms are taken of weights.
"""

import argparse
import os
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import bayesmeta as bm
from bayesmeta.recipes import recipe
from bayesmeta.selection import Candidate, fresh_process, pooled
from bayesmeta.selection.cross_validation import Factory, trained_on
from bayesmeta.wrappers import NoiseScale, TaskQuadrature
from benchmarks._report import verdict

SHOTS, OUTER, INNER = (1, 3), 3, 3
NEAR = 0.02  # nats per point
# inputs, outcome, whether its logarithm is taken
TABLES = {
    "sleepstudy": (["Days"], "Reaction", False),
    "rats": (["day"], "weight", True),
    "soybean": (["Time"], "weight", True),
    "chickweight": (["Time"], "weight", True),
    "dialyzer": (["pressure"], "rate", False),
    "glucose2": (["Time"], "glucose", False),
    "theoph": (["Time"], "conc", False),
}


def candidates() -> dict[str, Factory]:
    """By name."""

    def process() -> bm.Learner:
        inside = bm.DeepKernelTransfer(bm.Identity(1))
        return bm.Standardized(TaskQuadrature(inside, NoiseScale(), nodes=15)).double()

    fit = partial(bm.fit_evidence, max_iterations=60, tolerance=1e-6)
    return {
        "linear": Candidate(lambda: recipe("alpaca-linear").build(1, 1), fit),
        "bumps": Candidate(lambda: recipe("alpaca-rbf").build(1, 1), fit),
        "process": Candidate(process, fit),
        "pooled": partial(pooled, steps=500),
        "fresh": fresh_process,
    }


def read(name: str, folder: Path) -> bm.TaskDataset:
    """A table as tasks."""
    x, y, logarithm = TABLES[name]
    frame = pd.read_csv(folder / name / f"{name}.csv")
    if logarithm:
        frame[y] = np.log(frame[y])
    return bm.TaskDataset.from_frame(frame, task="task", x=x, y=[y])


def nlls(learner: bm.Learner, tasks: bm.TaskDataset) -> pd.Series:
    """Of each test task at each number of shots."""
    frames = [bm.evaluate(learner, tasks, [shots], num_bootstrap=0).per_task() for shots in SHOTS]
    return pd.concat(frames).set_index(["shots", "task"])["nll"]


def judged(name: str, folder: Path, seed: int) -> tuple[float, float, float, float]:
    """Print one table; regret of the chosen one and of the stack, with standard errors."""
    tasks, start = read(name, folder), time.process_time()
    order = torch.randperm(len(tasks), generator=torch.Generator().manual_seed(seed)).tolist()
    parts, chosen = [], []
    for fold in range(OUTER):
        test = sorted(order[fold::OUTER])
        train = tasks.select(sorted(set(order) - set(test)))
        factories = candidates()
        comparison = bm.compare(factories, train, SHOTS, INNER, seed=seed)
        learners: dict[str, bm.Learner] = {name: trained_on(each, train, seed) for name, each in factories.items()}
        weights = bm.selection.stacking_weights(comparison.held_out)
        stack = bm.wrappers.Stacked(learners, weights)
        chosen.append(f"{comparison.best} [{stack!r}]")
        columns = {each: nlls(learner, tasks.select(test)) for each, learner in learners.items()}
        columns |= {"chosen": columns[comparison.best], "stacked": nlls(stack, tasks.select(test))}
        parts.append(pd.DataFrame(columns))
    # numbers of shots of a task are averaged: tasks are what is independent
    table = pd.concat(parts).groupby("task").mean()
    means = table.mean()
    best = means.drop(["chosen", "stacked"]).idxmin()
    regret = table[["chosen", "stacked"]].sub(table[best], axis=0)
    errors = regret.std(ddof=1) / np.sqrt(len(regret))
    print(f"\n{name}: {len(tasks)} tasks, NLL by candidate, best {best} ({time.process_time() - start:.0f} s)")
    print("  " + "  ".join(f"{key} {value:.3f}" for key, value in means.items()))
    for line in chosen:
        print(f"  chosen {line}")
    for key in ("chosen", "stacked"):
        print(f"  regret of {key:8} {regret[key].mean():+.3f} ± {errors[key]:.3f}", flush=True)
    return regret["chosen"].mean(), errors["chosen"], regret["stacked"].mean(), errors["stacked"]


def main() -> None:
    """Print all tables and the verdict."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", choices=TABLES, action="append")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", bm.ConvergenceWarning)  # of bumps with few tasks
    folder = Path(os.environ["BAYESMETA_DATA"])
    names = arguments.table or list(TABLES)
    found = np.array([judged(name, folder, arguments.seed) for name in names])
    near = int((found[:, 2] <= NEAR).sum())
    verdict(
        f"on {near} of {len(names)} tables the stack is within {NEAR:g} nats per point of the best in hindsight, "
        f"or better; mean regret {found[:, 2].mean():.3f}, and {found[:, 0].mean():.3f} of the one that is chosen",
        arguments.seed,
    )


if __name__ == "__main__":
    main()
