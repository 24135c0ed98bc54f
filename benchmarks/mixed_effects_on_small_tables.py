"""On small tables an uncertain mean and known levels of an outer grouping change the predictive little.

Reads tables from the folder that BAYESMETA_DATA names. One task is left out at a time. On rail, dyestuff, orange and
cefamandole (five or six tasks) `MixedEffects` has no groupings, so that it differs from `ALPaCA` (REML fits of both) in
that K_0 is uncertain. On pbg and glucose2 its second grouping is the rabbit or subject that the task is a part of.
Scored are NLL (nats a point) and coverage of 90 % intervals of the other points, at 0, 1 and 2 points.
"""

import argparse
import os
import time
import warnings
from pathlib import Path

import pandas as pd

import bayesmeta as bm
from benchmarks._report import verdict

TABLES: dict[str, tuple[str | list[str], list[str], str]] = {
    "rail": ("task", [], "travel"),
    "dyestuff": ("task", [], "Yield"),
    "orange": ("task", ["age"], "circumference"),
    "cefamandole": ("task", ["Time"], "conc"),
    "pbg": (["Rabbit", "Treatment"], ["dose"], "deltaBP"),
    "glucose2": (["Subject", "Date"], ["Time"], "glucose"),
}
SHOTS = (0, 1, 2)


def learner_of(kind: str, tasks: bm.TaskDataset, num_inputs: int) -> bm.Learner:
    """In standard units, with an intercept of each task, and a slope where tasks are not nested."""
    features, sizes = bm.Identity(num_inputs), () if tasks.schema is None else tasks.schema.group_sizes
    varying = [0] if sizes else None
    covariance, *shared = (
        bm.priors.FullCovariance(features.num_outputs, varying=varying) for _ in range(1 + len(sizes))
    )
    if kind == "ALPaCA":
        return bm.Standardized(bm.ALPaCA(features, covariance=covariance)).double()
    return bm.Standardized(bm.learners.MixedEffects(features, sizes, covariance=covariance, shared=shared)).double()


def main() -> None:
    """Compare on every table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("BAYESMETA_DATA"))
    folder = parser.parse_args().data
    if folder is None:
        print("VERDICT: not run; set BAYESMETA_DATA, or pass --data, to the folder of tables")
        return
    start, rows = time.perf_counter(), []
    for name, (task, x, y) in TABLES.items():
        frame = pd.read_csv(folder / name / f"{name}.csv")
        nested = bm.TaskDataset.from_frame(frame, task=task, x=x, y=y, outcomes=bm.Numbers())
        plain = bm.TaskDataset(bm.Data(nested.data.x[..., : len(x)], nested.data.y, nested.data.mask), nested.names)
        for kind, tasks in (("ALPaCA", plain), ("MixedEffects", nested)):
            for left_out in range(len(tasks)):
                learner = learner_of(kind, nested, len(x))
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", bm.ConvergenceWarning)
                    others = tasks.select([i for i in range(len(tasks)) if i != left_out])
                    bm.fit_evidence(learner, others, bm.training.RestrictedMaximumLikelihood())
                scores = bm.evaluate(learner, tasks.select([left_out]), SHOTS, num_bootstrap=0).table()
                rows += [{"table": name, "shots": k, "kind": kind} | row.to_dict() for k, row in scores.iterrows()]
    scores = pd.DataFrame(rows)
    weighted = scores.assign(nll=scores["nll"] * scores["points"], coverage=scores["coverage"] * scores["points"])
    sums = weighted.groupby(["table", "shots", "kind"], sort=False)[["nll", "coverage", "points"]].sum()
    means = sums[["nll", "coverage"]].div(sums["points"], axis=0).unstack("kind")
    print(means.round(3).to_string())
    gain = means["nll"]["ALPaCA"] - means["nll"]["MixedEffects"]
    verdict(
        f"MixedEffects has the lower NLL in {int((gain > 0.0).sum())} of {len(gain)} cells, by {gain.mean():.3f} nats "
        f"a point on average ({gain.min():.3f} to {gain.max():.3f}); {time.perf_counter() - start:.0f} s",
        seed=0,
    )


if __name__ == "__main__":
    main()
