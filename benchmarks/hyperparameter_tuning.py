"""Data sets that scatter unlike each other: with a scale for each task, intervals hold 95 % of a single one, too.

LCBench (Zimmer, Lindauer, Hutter 2021): a task is a data set on which networks are tuned, a point one of 2,000
configurations with its validation accuracy, as -log(1.01 - accuracy). Within a task it deviates by .01 to 1.11. Five
folds of five data sets; the 20 others train ALPaCA with and without a `TaskScale`, all else alike. Scores are at 5 and
20 points of a new data set, on others of its points.

`benchmarks.meta_bo` tunes the data sets with the same learner.

`BAYESMETA_DATA` names the folder of tables. The table is parquet, which pandas reads with pyarrow.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import bayesmeta as bm
from benchmarks._report import verdict

LEVEL, SHOTS, QUERY, FOLDS = 0.95, (5, 20), 300, 5
LOGARITHMIC = ["batch_size", "max_units", "learning_rate"]
INPUTS = [*LOGARITHMIC, "max_dropout", "num_layers", "momentum", "weight_decay"]


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


def main() -> None:
    """Fit and score."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--draws", type=int, default=1, help="choices of the points that are seen, for each fit")
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
    rows, spent = [], {name: [] for name in methods}
    for seed in range(arguments.seeds):
        for fold in folds:
            held = fold.tolist()
            rest = [i for i in range(len(names)) if i not in held]
            train, test = (tasks.select([places[names[i]] for i in part]) for part in (rest, held))
            for name, scale in methods.items():
                torch.manual_seed(seed)
                learner = make(scale)
                spent[name].append(fit(learner, train, seed, arguments.steps))
                rows += [(name, seed, *row) for row in scores(learner, test, arguments.draws)]
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
    without, scaled = (shown.loc[name] for name in methods)
    verdict(
        "with a task scale the coverage of a single data set misses 95 % by "
        f"{scaled.miss[5]:.3f} at 5 and {scaled.miss[20]:.3f} at 20 points in place of {without.miss[5]:.3f} and "
        f"{without.miss[20]:.3f}; NLL {scaled.nll[5]:.3f} and {scaled.nll[20]:.3f} in place of "
        f"{without.nll[5]:.3f} and {without.nll[20]:.3f}",
        seed=arguments.seeds - 1,
    )


HIDDEN, POINTS, LR, STEPS = [64, 64], 25, 3e-3, 300

if __name__ == "__main__":
    main()
