"""Recalibration on tasks of its own lowers calibration error, NLL and CRPS on other tasks, and does no harm elsewhere.

Reads hpo_adaboost, physionet_gcs, chickweight (the logarithm of the weight), intel_lab and, as a control in which there
is little to gain and few tasks to learn it from, glucose2, from the folder that BAYESMETA_DATA names (long CSV tables,
first column `task`). Tasks are split three ways, over and over with other seeds: half to train ALPaCA on learned
features, a quarter to calibrate, a quarter to test. Each method corrects the same learner. Shown are the learner's own
scores and the differences that each method makes, test tasks of all splits pooled, with 95 % intervals from resampling
tasks (a task that is tested in several splits is resampled as one).
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import bayesmeta as bm
from bayesmeta.calibration.conformal import HierarchicalConformal
from bayesmeta.calibration.recalibration import isotonic_recalibration, variance_scaling
from bayesmeta.evaluation import metrics
from benchmarks._report import verdict

# inputs, outcome, its logarithm, shots, query points a task, splits, steps of training
TABLES = {
    "hpo_adaboost": (["iterations", "products"], "accuracy", False, (1, 5, 10), 30, 16, 600),
    "physionet_gcs": (["hours"], "GCS", False, (1, 3, 8), 4, 4, 1000),
    "chickweight": (["Time"], "weight", True, (1, 3, 5), 6, 16, 600),
    "intel_lab": (["hours", "hour_of_day"], "temperature", False, (1, 5, 10), 30, 16, 600),
    "glucose2": (["Time"], "glucose", False, (1, 3, 5), 8, 16, 600),
}
CONTROL = "glucose2"
MOST_TASKS = 600
LEVEL = 0.8
METHODS: dict[str, Callable[..., bm.Learner]] = {
    "variance": variance_scaling,
    "isotonic": isotonic_recalibration,
    "both": lambda learner, tasks, shots, query: isotonic_recalibration(
        variance_scaling(learner, tasks, shots, query=query), tasks, shots, query=query
    ),
}
LEVELS = np.array(metrics.LEVELS)


def read(name: str, folder: Path) -> bm.TaskDataset:
    """The tasks of a table that are long enough, at most 600."""
    x, y, logarithm, shots, *_ = TABLES[name]
    frame = pd.read_csv(folder / name / f"{name}.csv")
    if logarithm:
        frame[y] = np.log(frame[y])
    frame = frame[frame.groupby("task")["task"].transform("size") > max(shots) + 1]
    tasks = bm.TaskDataset.from_frame(frame, task="task", x=x, y=[y])
    order = torch.randperm(len(tasks), generator=torch.Generator().manual_seed(0))[:MOST_TASKS]
    return tasks.select(sorted(order.tolist()))


def trained(tasks: bm.TaskDataset, steps: int, seed: int) -> bm.Learner:
    """ALPaCA on a small network, trained quickly, as a first user would."""
    torch.manual_seed(seed)
    num_inputs = tasks.data.x.shape[-1]
    learner = bm.Standardized(bm.ALPaCA(bm.MLP(num_inputs, [32, 32]), num_outputs=1))
    bm.fit(learner, tasks, steps, lr=3e-3, split=bm.tasks.RandomSplit((0, 10), 30), seed=seed, progress=False)
    return learner


def scores(learner: bm.Learner, test: bm.TaskDataset, shots: tuple[int, ...], query: int, seed: int) -> pd.DataFrame:
    """One row for each task and number of shots: its scores, and the shares of its points below each level."""
    evaluation = bm.evaluate(learner, test, shots, query=query, num_bootstrap=0, seed=seed, level=LEVEL)
    frame = evaluation.per_task()
    curves = [result.curve() for result in evaluation.results]
    return frame.assign(curve=list(np.concatenate(curves)))


def conformal_coverage(
    learner: bm.Learner, calibration: bm.TaskDataset, test: bm.TaskDataset, shots: int, query: int, seed: int
) -> pd.DataFrame:
    """For each test task, the share of its points in the conformal interval, and its width over the learner's own."""
    conformal = HierarchicalConformal(learner, calibration, shots, query=query)
    batch = test.divided(bm.tasks.RandomSplit.at(shots, query), seed)
    posterior, (x, y, mask) = conformal.adapt(batch.support), (batch.query.x, batch.query.y, batch.query.mask)
    lower, upper = posterior.interval(x, LEVEL)
    inside = ((lower <= y) & (y <= upper))[..., 0].double()
    own = posterior.predict(x).interval(LEVEL)
    width = ((upper - lower) / (own[1] - own[0]))[..., 0]
    means = [(torch.where(mask, v, 0.0).sum(1) / mask.sum(1)).numpy() for v in (inside, width)]
    return pd.DataFrame({"shots": shots, "task": test.names, "conformal": means[0], "ratio": means[1]})


def summary(frame: pd.DataFrame, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Scores for R weightings `R T` of the tasks: means over tasks, splits and shots; calibration errors over shots."""
    tasks = pd.Categorical(frame["task"]).codes
    per_row = weights[:, tasks]
    total = per_row.sum(1)
    columns = {name: per_row @ frame[name].to_numpy() / total for name in ("nll", "crps", "coverage")}
    errors = []
    for _, rows in frame.reset_index(drop=True).groupby("shots"):
        chosen = per_row[:, rows.index]
        observed = chosen @ np.stack(rows["curve"].tolist()) / chosen.sum(1, keepdims=True)
        errors.append(np.sqrt(((observed - LEVELS) ** 2).mean(1)))
    return columns | {"error": np.mean(errors, axis=0)}


def compare(name: str, folder: Path) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Print the comparison of one table; returns the difference and its interval for each method and score."""
    _, _, _, shots, query, splits, steps = TABLES[name]
    tasks = read(name, folder)
    collected: dict[str, list[pd.DataFrame]] = {}
    for seed in range(splits):
        rest, test = tasks.split(0.25, seed)
        train, calibration = rest.split(1 / 3, seed)
        learner = trained(train, steps, seed)
        corrected = {m: make(learner, calibration, shots, query=query) for m, make in METHODS.items()}
        for label, model in {"learner": learner, **corrected}.items():
            collected.setdefault(label, []).append(scores(model, test, shots, query, seed).assign(split=seed))
        if len(calibration) >= 4:  # what a level of .8 needs
            collected.setdefault("conformal", []).extend(
                conformal_coverage(learner, calibration, test, shot, query, seed) for shot in shots
            )
    frames = {label: pd.concat(parts, ignore_index=True) for label, parts in collected.items()}
    count = frames["learner"]["task"].nunique()
    draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=2000).astype(float)
    print(f"\n{name}: {tasks!r}; {len(train)} train, {len(calibration)} calibrate, {len(test)} test, {splits} split(s)")
    print(f"{'':<10}{'NLL':>22}{'CRPS (1/1000)':>22}{'calibration error':>24}{'80 % coverage':>15}")
    base, base_draws = summary(frames["learner"], np.ones((1, count))), summary(frames["learner"], draws)
    print(
        f"{'learner':<10}{base['nll'][0]:>22.3f}{1e3 * base['crps'][0]:>22.1f}{base['error'][0]:>24.3f}"
        f"{base['coverage'][0]:>15.3f}"
    )
    differences: dict[str, dict[str, tuple[float, float, float]]] = {}
    for label in METHODS:
        point, boot = summary(frames[label], np.ones((1, count))), summary(frames[label], draws)
        gains, cells = {}, []
        for score, unit in (("nll", 1.0), ("crps", 1e3), ("error", 1.0)):
            low, high = np.quantile(boot[score] - base_draws[score], [0.025, 0.975])
            gains[score] = (float(point[score][0] - base[score][0]), float(low), float(high))
            middle, low, high = (unit * value for value in gains[score])
            digits = 1 if score == "crps" else 3
            cells.append(f"{middle:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]")
        print(f"{label:<10}{cells[0]:>22}{cells[1]:>22}{cells[2]:>24}{point['coverage'][0]:>15.3f}")
        differences[label] = gains
    if "conformal" in frames:
        frame = frames["conformal"]
        print(
            f"conformal 80 % intervals: coverage {frame['conformal'].mean():.3f}, width {frame['ratio'].median():.2f} "
            "times the learner's own"
        )
    return differences


def main() -> None:
    """Compare on every table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("BAYESMETA_DATA"))
    folder = parser.parse_args().data
    if folder is None:
        print("VERDICT: not run; set BAYESMETA_DATA, or pass --data, to the folder of tables")
        return
    torch.set_num_threads(1)
    print("differences to the learner [95 % interval over tasks]; negative is better")
    results = {name: compare(name, folder) for name in TABLES}
    parts = []
    for method in METHODS:
        helped, harmed = [], []
        for name, differences in results.items():
            gains = differences[method]
            if name != CONTROL and all(gains[score][2] < 0.0 for score in ("nll", "error")):
                helped.append(name)
            harmed += [f"{name} {score}" for score in ("nll", "crps", "error") if gains[score][1] > 0.0]
        parts.append(
            f"{method}: better NLL and calibration on {len(helped)} of {len(TABLES) - 1} tables "
            f"({', '.join(helped) or 'none'}), worse: {', '.join(harmed) or 'nowhere'}"
        )
    verdict("beyond chance, " + "; ".join(parts), seed=0)


if __name__ == "__main__":
    main()
