"""With five or six tasks, one best theta makes intervals too short; averaged over p(theta | tasks) they cover.

Mixed models of four classic tables, each task left out in turn: the others train ALPaCA by maximum likelihood (the
plug-in), and `average` draws theta around it under half Student t hyperpriors on deviations. Both predict the task that
was left out, from none, one or two of its points. Coverage is of 90 % intervals, a task's points averaged; tasks are
what is independent, so its interval is binomial in tasks (Clopper & Pearson). `BAYESMETA_DATA` names the folder of
tables.
"""

import argparse
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import bayesmeta as bm
from benchmarks._report import verdict

LEVEL, SHOTS = 0.9, (0, 1, 2)
# the table's inputs, outcome, whether logarithms are taken, and features with the covariance between tasks
TABLES: dict[str, tuple[list[str], str, bool, Callable[[], bm.ALPaCA]]] = {
    "rail": ([], "travel", False, lambda: bm.ALPaCA(bm.Identity(0))),
    "dyestuff": ([], "Yield", False, lambda: bm.ALPaCA(bm.Identity(0))),
    "orange": (["age"], "circumference", False, lambda: bm.ALPaCA(bm.Identity(1))),
    "cefamandole": (
        ["Time"],
        "conc",
        True,
        lambda: bm.ALPaCA(bm.Polynomial(1, 2), covariance=bm.priors.DiagonalCovariance(3)),
    ),
}


def read(name: str, folder: Path) -> bm.TaskDataset:
    """A table as tasks."""
    x, y, logarithm, _ = TABLES[name]
    frame = pd.read_csv(folder / name / f"{name}.csv")
    if logarithm:
        frame[[*x, y]] = np.log(frame[[*x, y]])
    return bm.TaskDataset.from_frame(frame, task="task", x=x, y=[y])


def scores(learner: bm.Learner, task: bm.TaskDataset) -> pd.DataFrame:
    """Coverage, NLL and width by shots."""
    table = bm.evaluate(learner, task, SHOTS, level=LEVEL, num_bootstrap=0).table()
    return table[["coverage", "nll", "width"]]


def interval(share: float, count: int) -> tuple[float, float]:
    """Clopper & Pearson, 95 %, for a share that may lie between two numbers of successes."""
    from scipy.stats import beta

    hits = share * count
    low = beta.ppf(0.025, hits, count - hits + 1) if hits > 0 else 0.0
    high = beta.ppf(0.975, hits + 1, count - hits) if hits < count else 1.0
    return float(low), float(high)


def main() -> None:
    """Leave out, fit, predict, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", type=int, default=200, help="draws of theta that are kept")
    arguments = parser.parse_args()
    if "BAYESMETA_DATA" not in os.environ:
        parser.error("expected BAYESMETA_DATA, the folder that holds rail/rail.csv")
    torch.set_num_threads(1)
    folder = Path(os.environ["BAYESMETA_DATA"])
    rows, draws, start, doubts = [], [], time.perf_counter(), 0
    for name, (_, _, _, make) in TABLES.items():
        tasks = read(name, folder)
        for left_out in range(len(tasks)):
            train = tasks.select([i for i in range(len(tasks)) if i != left_out])
            plug_in = bm.Standardized(make().double())
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", bm.ConvergenceWarning)
                found = bm.training.average(plug_in, train, num_members=arguments.members, seed=left_out)
            full = found.learner
            doubts += any("chains" in str(each.message) for each in caught)
            draws.append(found.effective)
            for method, learner in (("plug-in", plug_in), ("hyper-posterior", full)):
                table = scores(learner, tasks.select([left_out])).reset_index()
                rows.append(table.assign(table=name, method=method, task=tasks.names[left_out]))
        print(f"{name}: {len(tasks)} tasks, {time.perf_counter() - start:.0f} s", flush=True)
    frame = pd.concat(rows)
    print(f"\n{'table':<14}{'shots':>6}{'tasks':>6}   {'plug-in':<24}{'hyper-posterior':<24}  coverage, NLL, width")
    covers, short = True, []
    for name in [*TABLES, "all"]:
        part = frame if name == "all" else frame[frame.table == name]
        for shots in SHOTS:
            line = f"{name:<14}{shots:>6}"
            for method in ("plug-in", "hyper-posterior"):
                own = part[(part.method == method) & (part.shots == shots)]
                share = own.coverage.mean()
                if method == "plug-in":
                    line += f"{len(own):>6}   "
                width = f"{own.width.mean():<8.3g}" if name != "all" else " " * 8
                line += f"{share:<7.3f}{own.nll.mean():<9.3f}{width}"
                low, high = interval(share, len(own))
                if method == "hyper-posterior":
                    covers = covers and low <= LEVEL <= high
                elif name == "all":
                    short.append(f"{share:.3f} at {shots}")
                if name == "all":
                    line += f"({low:.2f} to {high:.2f})  "
            print(line)
    print(
        f"\neffective draws of theta: {min(draws):.0f} at least; chains that disagreed: {doubts} of {len(draws)} fits"
    )
    says = "holds 90 % within its binomial interval in every row" if covers else "leaves its binomial interval"
    verdict(f"the plug-in covers {', '.join(short)} shots; the hyper-posterior {says}", seed=0)


if __name__ == "__main__":
    main()
