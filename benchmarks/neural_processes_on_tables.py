"""Neural processes on real tables, beside ALPaCA and deep kernel transfer: NLL, RMSE and coverage by shots.

Reads chickweight (the logarithm of the weight), physionet_gcs (a part of its tasks) and intel_lab from the folder that
BAYESMETA_DATA names (long CSV tables, first column `task`), each with time as the one input. A quarter of the tasks is
held out, and a quarter of the others says at which step each learner was best. Every learner is trained in standard
units for the same budget of processor seconds of one thread, on supports of 0 to 20 random points, and predicts at most
20 others of each held-out task.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import bayesmeta as bm
from benchmarks._neural_processes import RECIPES
from benchmarks._report import verdict
from benchmarks._training import fitted, keep_memory

SEED, QUERY = 0, 20
LEARNERS = ("ConvCNP", "transformer-relative", "transformer", "CNP", "ALPaCA", "DKT")
PROCESSES = LEARNERS[:4]
# input, outcome, whether to take its logarithm, largest number of tasks, shots: chicks have 12 points
TABLES = {
    "chickweight": ("Time", "weight", True, None, (0, 1, 3, 5)),
    "physionet_gcs": ("hours", "GCS", False, 800, (0, 1, 3, 5, 10)),
    "intel_lab": ("hours", "temperature", False, None, (0, 1, 3, 5, 10)),
}


def read(name: str, folder: Path) -> bm.TaskDataset:
    """The tasks of a table, the first of them where there are many."""
    x, y, is_log, most, _ = TABLES[name]
    frame = pd.read_csv(folder / name / f"{name}.csv")
    frame[y] = np.log(frame[y]) if is_log else frame[y]
    tasks = bm.TaskDataset.from_frame(frame, task="task", x=[x], y=[y])
    return tasks if most is None else tasks.select(list(range(most)))


def main() -> None:
    """Train and score on every table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("BAYESMETA_DATA"))
    parser.add_argument("--table", choices=list(TABLES), action="append", help="one alone; can be repeated")
    parser.add_argument("--learner", choices=list(RECIPES), action="append", help="one alone; can be repeated")
    parser.add_argument("--seconds", type=float, default=60.0, help="processor seconds to train each learner")
    arguments = parser.parse_args()
    if arguments.data is None:
        print("VERDICT: not run; set BAYESMETA_DATA, or pass --data, to the folder of tables")
        return
    torch.set_num_threads(1)
    keep_memory()
    best: list[str] = []
    covered: list[float] = []
    for name in arguments.table or TABLES:
        tasks, shots_of_table = read(name, arguments.data), TABLES[name][-1]
        train, test = tasks.split(0.25, seed=SEED)
        train, validation = train.split(0.25, seed=SEED)
        print(f"\n{name}: {tasks!r}", flush=True)
        rows: dict[tuple[str, int], pd.Series] = {}
        for label in arguments.learner or LEARNERS:
            recipe = RECIPES[label]
            learner, took = fitted(
                lambda recipe=recipe: bm.Standardized(recipe.make()),
                train,
                bm.tasks.RandomSplit((0, 20), QUERY),
                arguments.seconds,
                batch_size=16,
                lr=recipe.lr,
                seed=SEED,
                objective=recipe.objective,
                validation=validation,
                trial=40,
            )
            print(f"  {label}: {took}", flush=True)
            table = bm.evaluate(learner, test, shots_of_table, query=QUERY).table()
            rows |= {(label, shots): table.loc[shots] for shots in shots_of_table}
        print(f"{'shots':>5}  {'learner':<22}{'NLL':>18}{'RMSE':>9}{'90 % coverage':>24}{'points':>8}")
        for shots in shots_of_table:
            at = {label: row for (label, each), row in rows.items() if each == shots}
            for label, row in at.items():
                nll = f"{row.nll:.3f} ± {(row.nll_high - row.nll_low) / 2:.3f}"
                coverage = f"{row.coverage:.3f} ({row.coverage_low:.3f}-{row.coverage_high:.3f})"
                print(f"{shots:>5}  {label:<22}{nll:>18}{row.pooled_rmse:>9.3f}{coverage:>24}{int(row.points):>8}")
                covered += [row.coverage] if label in PROCESSES else []
            best.append(min(at, key=lambda label: at[label].nll))
    counts = ", ".join(f"{label} {best.count(label)}" for label in sorted(set(best), key=best.count, reverse=True))
    text = f"lowest NLL, of {len(best)} cells: {counts}"
    if covered:
        text += f"; coverage of neural processes {min(covered):.3f} to {max(covered):.3f}"
    verdict(text, SEED)


if __name__ == "__main__":
    main()
