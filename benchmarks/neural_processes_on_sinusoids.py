"""How far neural processes are from the Bayes predictor on sinusoids, by shots, beside ALPaCA and MAML.

MAML's sinusoids (noise deviation 0.1) and Sinusoid-Hard of MetaL-Benchmark. Every learner is trained in standard units
for the same budget of processor seconds of one thread, on fresh tasks with supports of 0 to 20 points and 20 others,
and scored at 20 points of each of 500 tasks: regret is the NLL above that of the exact Bayes predictor on the same
points, with 95 % interval over tasks; coverage is that of the central 90 % interval.
"""

import argparse
from collections.abc import Callable

import pandas as pd
import torch

import bayesmeta as bm
from benchmarks._neural_processes import PROCESSES, RECIPES
from benchmarks._report import verdict
from benchmarks._training import fitted, keep_memory, trained

SEED, SHOTS, QUERY = 0, (0, 1, 3, 5, 10), 20
LEARNERS = (*PROCESSES, "ALPaCA", "MAML")
FAMILIES: dict[str, Callable[[], bm.tasks.Simulator]] = {
    "MAML's sinusoids": lambda: bm.tasks.Sinusoid.maml(noise=0.1),
    "Sinusoid-Hard": bm.tasks.SlopedSinusoid.metal_hard,
}


def main() -> None:
    """Train and score on both families."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", choices=list(FAMILIES), help="one family alone")
    parser.add_argument("--learner", choices=list(RECIPES), action="append", help="one alone; can be repeated")
    parser.add_argument("--seconds", type=float, default=120.0, help="processor seconds to train each learner")
    parser.add_argument("--models", help="a folder of models: those that are there are scored, others are put there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    best: list[str] = []
    covered: list[float] = []
    for family in [arguments.family] if arguments.family else FAMILIES:
        tasks = FAMILIES[family]()
        test = tasks.dataset(500, max(SHOTS) + QUERY, seed=1)
        print(f"\n{family}", flush=True)
        rows: dict[tuple[str, int], pd.Series] = {}
        for label in arguments.learner or LEARNERS:
            recipe = RECIPES[label]

            def make(recipe=recipe, tasks=tasks) -> tuple[bm.Learner, str]:
                return fitted(
                    lambda: bm.Standardized(recipe.make()),
                    tasks,
                    bm.tasks.EqualSplit((0, 20), QUERY),
                    arguments.seconds,
                    batch_size=32,
                    lr=recipe.lr,
                    seed=SEED,
                    objective=recipe.objective,
                    trial=40,
                )

            learner, took = trained(f"{family}-{label}-{arguments.seconds:.0f}", make, arguments.models)
            print(f"  {label}: {took}", flush=True)
            table = bm.evaluate(learner, test, SHOTS, query=QUERY).table()
            rows |= {(label, shots): table.loc[shots] for shots in SHOTS}
        print(f"{'shots':>5}  {'learner':<22}{'regret':>18}{'NLL':>9}{'RMSE':>9}{'90 % coverage':>24}")
        for shots in SHOTS:
            at = {label: row for (label, each), row in rows.items() if each == shots}
            for label, row in at.items():
                regret = f"{row.regret:.3f} ± {(row.regret_high - row.regret_low) / 2:.3f}"
                coverage = f"{row.coverage:.3f} ({row.coverage_low:.3f}-{row.coverage_high:.3f})"
                print(f"{shots:>5}  {label:<22}{regret:>18}{row.nll:>9.3f}{row.rmse:>9.3f}{coverage:>24}")
                covered += [row.coverage] if label in PROCESSES else []
            best.append(min(at, key=lambda label: at[label].regret))
    counts = ", ".join(f"{label} {best.count(label)}" for label in sorted(set(best), key=best.count, reverse=True))
    text = f"lowest regret, of {len(best)} cells: {counts}"
    if covered:
        text += f"; coverage of neural processes {min(covered):.3f} to {max(covered):.3f}"
    verdict(text, SEED)


if __name__ == "__main__":
    main()
