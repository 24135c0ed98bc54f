"""On real tables a learned prior beats both complete pooling and separate fits, and its 90 % intervals hold 90 %.

Reads sleepstudy, rats and physionet_gcs from the folder that BAYESMETA_DATA names (long CSV tables, first column
`task`). Tasks are held out by cross-validation over tasks (small tables) or by one split. Compared at every number of
support points: the command line's methods; complete pooling (one regression for all tasks); separate fits (least
squares on the support alone, Student-t intervals, from the smallest number of points with a residual degree of
freedom). In ragged tables the separate fits are scored on a few points more: those of tasks that end before the largest
number of support points.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import t as student

import bayesmeta as bm
from bayesmeta.recipes import RECIPES
from bayesmeta.trainers import Training
from benchmarks._report import verdict

# inputs, outcome, shots, query points a task, folds (0: one split), methods
TABLES = {
    "sleepstudy": (["Days"], "Reaction", (0, 1, 3, 5), 5, 6, ("alpaca-linear", "alpaca")),
    "rats": (["day"], "weight", (0, 1, 2, 3), 2, 6, ("alpaca-linear", "alpaca")),
    "physionet_gcs": (["hours"], "GCS", (0, 1, 3, 5, 10), 5, 0, ("alpaca-linear", "alpaca", "alpaca-rbf")),
}


def separate_fit(support: bm.Data, query: bm.Data) -> tuple[np.ndarray, np.ndarray]:
    """Squared errors and hits of the 90 % interval of a least-squares line through the support alone."""
    errors, hits = [], []
    for i in range(support.num_tasks):
        real, asked = support.mask[i], query.mask[i]
        design = np.column_stack([np.ones(int(real.sum())), support.x[i][real].numpy()])
        y, freedom = support.y[i][real, 0].numpy(), int(real.sum()) - design.shape[1]
        inverse = np.linalg.pinv(design.T @ design)
        beta = inverse @ design.T @ y
        sigma2 = max(((y - design @ beta) ** 2).sum() / freedom, 1e-12)
        rows = np.column_stack([np.ones(int(asked.sum())), query.x[i][asked].numpy()])
        residual = query.y[i][asked, 0].numpy() - rows @ beta
        width = student.ppf(0.95, freedom) * np.sqrt(sigma2 * (1 + ((rows @ inverse) * rows).sum(1)))
        errors += list(residual**2)
        hits += list(np.abs(residual) <= width)
    return np.array(errors), np.array(hits)


def folds(tasks: bm.TaskDataset, count: int) -> list[tuple[bm.TaskDataset, bm.TaskDataset]]:
    """Cross-validation by task, or one split when `count` is 0."""
    if count == 0:
        return [tasks.split(0.25, seed=0)]
    order = torch.randperm(len(tasks), generator=torch.Generator().manual_seed(0)).tolist()
    parts = [sorted(order[i::count]) for i in range(count)]
    return [(tasks.select(sorted(set(range(len(tasks))) - set(part))), tasks.select(part)) for part in parts]


def compare(name: str, folder: Path) -> list[str]:
    """Print the comparison of one table; returns where pooling or separate fits have the lower error."""
    x, y, shots, query, count, methods = TABLES[name]
    tasks = bm.TaskDataset.from_frame(pd.read_csv(folder / name / f"{name}.csv"), task="task", x=x, y=[y])
    collected: dict[tuple[str, int], list[tuple[float, float, float, int]]] = {}
    for train, test in folds(tasks, count):
        learners: dict[str, bm.Learner] = {}
        for method in methods:
            torch.manual_seed(0)
            learners[method] = RECIPES[method].build(len(x), 1)
            RECIPES[method].train(learners[method], train, Training(progress=False))
        features = bm.Identity(len(x))
        pooled = bm.ALPaCA(features, covariance=bm.priors.FullCovariance(features.num_outputs, varying=[])).double()
        bm.fit_evidence(pooled, train)
        learners["complete pooling"] = pooled
        for label, learner in learners.items():
            result = bm.evaluate(learner, test, shots, query=query, num_bootstrap=0)
            for shot, row in result.table().iterrows():
                if row["tasks"]:
                    collected.setdefault((label, int(shot)), []).append(
                        (row["pooled_rmse"] ** 2, row["coverage"], row["nll"], int(row["points"]))
                    )
        for shot in (s for s in shots if s >= 3):
            enough = test.select([i for i, n in enumerate(test.data.counts.tolist()) if n > shot])
            batch = enough.divided(bm.tasks.RandomSplit.at(shot, query), seed=0)
            errors, hits = separate_fit(batch.support, batch.query)
            collected.setdefault(("separate fits", shot), []).append(
                (float(errors.mean()), float(hits.mean()), float("nan"), len(errors))
            )
    print(f"\n{name}: {tasks!r}")
    print(f"{'shots':>5}  {'method':<18}{'RMSE':>9}{'90 % coverage':>15}{'NLL':>9}{'points':>8}")
    worse = []
    for shot in shots:
        rmse = {}
        for (label, at), parts in collected.items():
            if at == shot:
                error, coverage, nll = np.average([p[:3] for p in parts], axis=0, weights=[p[3] for p in parts])
                rmse[label] = error**0.5
                points = sum(p[3] for p in parts)
                print(f"{shot:>5}  {label:<18}{rmse[label]:>9.3f}{coverage:>15.3f}{nll:>9.3f}{points:>8}")
        best = min(rmse[m] for m in methods)
        if shot == 0:  # nothing to learn from yet: pooling is what there is
            continue
        worse += [
            f"{name} at {shot} ({k})" for k in ("complete pooling", "separate fits") if rmse.get(k, np.inf) < best
        ]
    return worse


def main() -> None:
    """Compare on every table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("BAYESMETA_DATA"))
    folder = parser.parse_args().data
    if folder is None:
        print("VERDICT: not run; set BAYESMETA_DATA, or pass --data, to the folder of tables")
        return
    torch.set_num_threads(1)
    worse = [place for name in TABLES for place in compare(name, folder)]
    where = "everywhere" if not worse else f"not {', '.join(worse)}"
    verdict(f"from 1 point on the lowest RMSE is that of a learned prior: {where}", seed=0)


if __name__ == "__main__":
    main()
