"""In a linear method, covariates with one effect in all tasks predict on average not worse than with random effects.

Reads tables with columns that are constant within a task from the folder that BAYESMETA_DATA names. The command line's
`alpaca-linear` is fitted three times to each training set of a five-fold cross-validation over tasks: with the
covariates as fixed effects (its default), with a random effect of each covariate (named by --x), and without them.
Scored is the density of query points (NLL, nats a point) and the coverage of 90 % intervals at 0, 1, 2 and 5 points.
"""

import argparse
import os
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

import bayesmeta as bm
from bayesmeta.recipes import recipe
from bayesmeta.trainers import Training
from benchmarks._report import verdict
from benchmarks.real_tables import folds

# inputs, covariates, outcome, whether it is positive and taken as its logarithm
TABLES: dict[str, tuple[list[str], list[str], str, bool]] = {
    "dialyzer": (["pressure"], ["QB"], "rate", False),
    "orthodont": (["age"], ["Sex"], "distance", False),
    "co2_plants": (["conc"], ["Type", "Treatment"], "uptake", False),
    "exam": (["standLRT"], ["schgend", "schavg", "type"], "normexam", False),
    "radon_mn": (["floor"], ["log_uranium"], "log_radon", False),
    "chickweight": (["Time"], ["Diet"], "weight", True),
    "soybean": (["Time"], ["Variety", "Year"], "weight", True),
    "theoph": (["Time"], ["Wt", "Dose"], "conc", False),
    "pbg": (["dose"], ["Treatment"], "deltaBP", False),
}
CATEGORIES = ("Diet", "Year", "QB", "Type", "Treatment", "Sex", "schgend", "type", "Variety")
SHOTS = (0, 1, 2, 5)


def rows_of(name: str, folder: Path) -> list[dict[str, object]]:
    """The scores of one table, for each way of using the covariates."""
    x, covariates, outcome, is_log = TABLES[name]
    frame = pd.read_csv(folder / name / f"{name}.csv")
    frame = frame.astype({column: "category" for column in covariates if column in CATEGORIES})
    if is_log:
        frame[outcome] = np.log(frame[outcome])
    tasks = bm.TaskDataset.from_frame(frame, task="task", x=x, covariates=covariates, y=outcome, outcomes=bm.Numbers())
    without = bm.TaskDataset.from_frame(frame, task="task", x=x, y=outcome, outcomes=bm.Numbers())
    ways = {
        "fixed": (tasks, tasks.schema),
        "random": (tasks, replace(tasks.schema, x=(*x, *covariates), covariates=())),
        "none": (without, without.schema),
    }
    rows: list[dict[str, object]] = []
    for way, (data, schema) in ways.items():
        for fold, (train, test) in enumerate(folds(data, 5)):
            method = recipe("alpaca-linear")
            learner = method.for_table(schema)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", bm.ConvergenceWarning)
                method.train(learner, train, Training(progress=False))
            scores = bm.evaluate(learner, test, SHOTS, num_bootstrap=0).table()
            for shots, row in scores[scores["tasks"] > 0].iterrows():
                rows.append({"table": name, "way": way, "fold": fold, "shots": shots} | row.to_dict())
    return rows


def main() -> None:
    """Compare on every table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("BAYESMETA_DATA"))
    parser.add_argument("--table", choices=list(TABLES), action="append", help="one alone; can be repeated")
    arguments = parser.parse_args()
    if arguments.data is None:
        print("VERDICT: not run; set BAYESMETA_DATA, or pass --data, to the folder of tables")
        return
    start = time.perf_counter()
    scores = pd.DataFrame([row for name in arguments.table or TABLES for row in rows_of(name, arguments.data)])
    weighted = scores.assign(nll=scores["nll"] * scores["points"], coverage=scores["coverage"] * scores["points"])
    sums = weighted.groupby(["table", "shots", "way"], sort=False)[["nll", "coverage", "points"]].sum()
    means = sums[["nll", "coverage"]].div(sums["points"], axis=0).unstack("way")
    print(means.round(3).to_string())
    difference = means["nll"]["random"] - means["nll"]["fixed"]
    better, worse = int((difference > 0.0).sum()), int((difference < 0.0).sum())
    verdict(
        f"fixed effects of covariates have the lower NLL than random ones in {better} of {better + worse} cells; the "
        f"difference is {difference.min():.3f} to {difference.max():.3f} nats a point, {difference.mean():.3f} on "
        f"average; {time.perf_counter() - start:.0f} s",
        seed=0,
    )


if __name__ == "__main__":
    main()
