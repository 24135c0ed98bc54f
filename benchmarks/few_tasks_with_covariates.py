"""With fifty tasks and three covariates, methods of the command line do not learn the tasks by heart.

Tasks have a level and a slope of their own around a curve that all share, ten rows each, and three covariates, of which
one shifts the outcome and two do nothing. A covariate shows one value in a task: there are fifty of them, however many
rows there are. Each method is trained as `bayesmeta fit TABLE --method NAME` does, and predicts ten points of 200 fresh
tasks from 0, 1, 2 and 5 others; beside them stands complete pooling (`bm.selection.pooled`, a network, with 2,000
steps). `--by-heart` trains networks that see the covariates like all other inputs, as with a hundred tasks or more.

The claim is of 0 points, where covariates are all that is known of a task: NLL is not worse than that of the pooled fit
by more than .1 nats, and the 90 % interval covers as much as that of the pooled fit, or .85. Seeds are those of the
tables; settings were chosen with seeds 10 and 11.
"""

import argparse
import time
import warnings

import numpy as np
import pandas as pd
import torch

import bayesmeta as bm
from bayesmeta.recipes import NetworkRecipe, recipe
from bayesmeta.selection import pooled
from bayesmeta.trainers import Training
from benchmarks._report import verdict

SHOTS, QUERY, LEVEL = (0, 1, 2, 5), 10, 0.9
WORSE, COVERED = 0.1, 0.85
COVARIATES = ["age", "weight", "site"]


def table(num_tasks: int, seed: int) -> pd.DataFrame:
    """Rows of tasks."""
    generator = np.random.default_rng(seed)
    covariates = generator.standard_normal((num_tasks, 3))
    level, slope = generator.standard_normal((num_tasks, 2)).T * [[3.0], [2.0]]
    parts = []
    for task in range(num_tasks):
        time_ = np.sort(generator.uniform(0.0, 1.0, 10))
        mean = 20.0 + 4.0 * covariates[task, 0] + level[task] + (6.0 + slope[task]) * time_ + 2.0 * np.sin(5.0 * time_)
        columns = {"task": task, "time": time_, "y": mean + generator.standard_normal(10)}
        parts.append(pd.DataFrame(columns | dict(zip(COVARIATES, covariates[task], strict=True))))
    return pd.concat(parts)


def tasks_of(num_tasks: int, seed: int) -> bm.TaskDataset:
    """As `bayesmeta fit --task task --x time --covariate .. --y y` reads them."""
    return bm.TaskDataset.from_frame(table(num_tasks, seed), task="task", x=["time"], covariates=COVARIATES, y="y")


def trained(method: str, tasks: bm.TaskDataset, by_heart: bool) -> tuple[bm.Learner, str]:
    """What `bayesmeta fit` makes of the tasks, and what it says of it."""
    torch.manual_seed(0)
    if method == "pooled":
        return pooled(tasks), ""
    chosen = recipe(method)
    assert tasks.schema is not None
    many = by_heart and isinstance(chosen, NetworkRecipe)
    learner = chosen.for_table(tasks.schema, 1_000 if many else len(tasks))
    made = chosen.train(learner, tasks, Training(progress=False))
    return made.learner, made.account


def scores(learner: bm.Learner, test: bm.TaskDataset) -> tuple[list[float], list[float]]:
    """NLL and coverage at each number of shots, means over tasks."""
    each = [bm.evaluate(learner, test, [s], query=QUERY, level=LEVEL, num_bootstrap=0).per_task() for s in SHOTS]
    return [one["nll"].mean() for one in each], [one["coverage"].mean() for one in each]


def main() -> None:
    """Score every method on every seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", action="append", help="one alone; can be repeated")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--by-heart", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", bm.ConvergenceWarning)
    methods = ["pooled", *(arguments.method or ["stack", "alpaca-linear", "alpaca", "maml"])]
    found: dict[str, list[tuple[list[float], list[float]]]] = {method: [] for method in methods}
    print("method        seed   NLL at 0, 1, 2, 5 points            coverage of 90 %         processor seconds")
    for seed in arguments.seeds:
        train, test = tasks_of(50, seed), tasks_of(200, 1_000 + seed)
        for method in methods:
            start = time.process_time()
            learner, account = trained(method, train, arguments.by_heart)
            seconds = time.process_time() - start
            found[method].append(scores(learner, test))
            nll, coverage = found[method][-1]
            numbers = " ".join(f"{each:7.3f}" for each in nll), " ".join(f"{each:.3f}" for each in coverage)
            print(f"{method:<14}{seed:>4}   {numbers[0]}     {numbers[1]}   {seconds:6.1f}  {account}", flush=True)
    base_nll, base_coverage = (np.mean([each[k][0] for each in found["pooled"]]) for k in (0, 1))
    said, met = [], True
    for method in methods[1:]:
        nll, coverage = (np.mean([each[k][0] for each in found[method]]) for k in (0, 1))
        met &= bool(nll <= base_nll + WORSE and coverage >= min(base_coverage, COVERED))
        said.append(f"{method} {nll - base_nll:+.3f} nats and {coverage:.3f}")
    verdict(
        f"{'met' if met else 'missed'}: without a point, mean of {len(arguments.seeds)} tables, NLL from that of the "
        f"pooled fit ({base_nll:.3f}; bar {WORSE:+.1f}) and coverage (pooled {base_coverage:.3f}): {', '.join(said)}",
        seed=arguments.seeds[0],
    )


if __name__ == "__main__":
    main()
