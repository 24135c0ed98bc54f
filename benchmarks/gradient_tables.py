"""Gradient-based learners on small real tables, through the command line, beside ALPaCA: RMSE, NLL and coverage.

Reads chickweight and soybean (the logarithm of the weight), co2_plants and theoph from the folder that BAYESMETA_DATA
names (long CSV tables, first column `task`). Every method is run as a user would, `bayesmeta fit TABLE --method M
--holdout 0.3 --seed S` and `bayesmeta evaluate`, over `--seeds` seeds, each of which holds out other tasks; figures are
averages over all points scored.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from typer.testing import CliRunner

from bayesmeta.cli.app import app
from benchmarks._report import verdict

# input, outcome, whether to take its logarithm
TABLES = {
    "chickweight": ("Time", "weight", True),
    "co2_plants": ("conc", "uptake", False),
    "soybean": ("Time", "weight", True),
    "theoph": ("Time", "conc", False),
}
METHODS = ("alpaca", "maml", "meta-sgd", "maml++", "alpha-maml", "cavia", "imaml", "llama", "bmaml")
SHOTS = (1, 2, 3)


def command(*arguments: object) -> str:
    """Run the command line; its output."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exit_code != 0:
        raise RuntimeError(f"{' '.join(map(str, arguments))}: {result.output}{result.exception!r}")
    return result.output


def run(table: Path, x: str, y: str, method: str, seed: int, steps: int, folder: Path) -> pd.DataFrame:
    """Scores by shots of one method on the tasks that one seed holds out."""
    model, scores = folder / "model", folder / "scores.csv"
    fit = ("fit", table, "--task", "task", "--x", x, "--y", y, "--method", method, "--holdout", 0.3)
    command(*fit, "--seed", seed, "--steps", steps, "-o", model)
    command("evaluate", model, table, "--shots", ",".join(map(str, SHOTS)), "--seed", seed, "-o", scores)
    return pd.read_csv(scores).set_index("shots")


def main() -> None:
    """Run every method on every table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("BAYESMETA_DATA"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    arguments = parser.parse_args()
    if arguments.data is None:
        print("VERDICT: not run; set BAYESMETA_DATA, or pass --data, to the folder of tables")
        return
    torch.set_num_threads(1)
    best: list[str] = []
    covered = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for table, (x, y, is_log) in TABLES.items():
            frame = pd.read_csv(arguments.data / table / f"{table}.csv")
            frame[y] = np.log(frame[y]) if is_log else frame[y]
            path = folder / f"{table}.csv"
            frame.to_csv(path, index=False)
            print(f"\n{table}: {y}{' (logarithm)' if is_log else ''}, {frame['task'].nunique()} tasks", flush=True)
            heads = "".join(f"{f'{s} point(s): RMSE':>18}{'NLL':>8}{'cov.':>7}" for s in SHOTS)
            print(f"{'method':<12}{heads}  fit")
            rows = {}
            for method in arguments.methods:
                start = time.perf_counter()
                runs = [run(path, x, y, method, seed, arguments.steps, folder) for seed in range(arguments.seeds)]
                text = f"{method:<12}"
                for shots in SHOTS:
                    points = [r.loc[shots, "points"] for r in runs]
                    mse, nll, cover = (
                        np.average([f(r.loc[shots]) for r in runs], weights=points)
                        for f in (lambda r: r.pooled_rmse**2, lambda r: r.nll, lambda r: r.coverage)
                    )
                    rows[method, shots] = nll
                    covered += [cover] if method in ("maml", "imaml", "llama") else []
                    text += f"{mse**0.5:>18.4g}{nll:>8.3f}{cover:>7.3f}"
                print(f"{text}{(time.perf_counter() - start) / arguments.seeds:>5.0f} s", flush=True)
            best += [min((rows[m, shots], m) for m in arguments.methods)[1] for shots in SHOTS]
    counts = ", ".join(f"{m} {best.count(m)}" for m in arguments.methods if m in best)
    text = f"lowest NLL by method, of {len(best)} cells: {counts}"
    if covered:
        text += (
            f"; coverage of maml, imaml and llama: {np.mean(covered):.3f} on average, "
            f"{min(covered):.3f} to {max(covered):.3f}"
        )
    verdict(text, seed=0)


if __name__ == "__main__":
    main()
