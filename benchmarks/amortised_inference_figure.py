"""What neural processes have learned, beside the exact posterior: docs/figures/amortised_inference.svg.

A row is a learner, trained on functions of a Gaussian process with inputs between -2 and 2 as in
`neural_process_benchmark.py`, whose models are used where they are there. A column is a number of support points. Bands
are central 50 % and 90 % intervals of outcomes; lines are the exact predictive. Beyond 2 no training has ever been: the
three points there are among those of the last column.

The check: how far the ends of 90 % intervals are from the exact ones beyond 2, over 200 tasks.
"""

import argparse
from pathlib import Path

import torch
from matplotlib import pyplot as plt

import bayesmeta as bm
from bayesmeta.plotting import predictive_bands
from benchmarks._neural_processes import RECIPES
from benchmarks._report import verdict
from benchmarks._training import keep_memory, trained
from benchmarks.neural_process_benchmark import make
from docs.tools import svg_figures

SEED, FAMILY = 2, "eq"
SHOTS = (3, 12)
LEARNERS = ("CNP", "transformer", "transformer-relative", "ConvCNP")
FILE = Path(__file__).parent.parent / "docs" / "figures" / "amortised_inference.svg"


def task() -> bm.Data:
    """A function on (-2, 6): nine points of the training range, three beyond, then two at the ends, never shown."""
    generator = torch.Generator().manual_seed(SEED)
    inside = 4.0 * torch.rand(9, generator=generator, dtype=torch.float64) - 2.0
    beyond = 3.0 + 2.0 * torch.rand(3, generator=generator, dtype=torch.float64)
    ends = torch.tensor([-2.0, 6.0], dtype=torch.float64)
    x = torch.cat([inside, beyond, ends])[None, :, None]
    return bm.Data.full(x, bm.tasks.GPFunctions.eq().observe(x, generator))


def distance(learner: bm.Learner) -> float:
    """The mean distance of the ends of 90 % intervals from the exact ones, beyond the range of training."""
    functions, generator = bm.tasks.GPFunctions.eq(), torch.Generator().manual_seed(SEED)
    batch = functions.draw(200, bm.tasks.RandomSplit.at(12, 20), generator)
    moved = bm.Data.full(batch.support.x + 4.0, batch.support.y)
    exact, own = (each.adapt(moved).predict(batch.query.x + 4.0).interval(0.9) for each in (functions.oracle, learner))
    return sum((a - b).abs().mean().item() / 2.0 for a, b in zip(exact, own, strict=True))


def main() -> None:
    """Draw, and check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, help="processor seconds to train; by default those of the benchmark")
    parser.add_argument("--models", help="a folder of models: those that are there are used, others are put there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    figure, axes = plt.subplots(
        len(LEARNERS), len(SHOTS), figsize=(6.0, 1.8 * len(LEARNERS)), sharex=True, sharey=True, layout="constrained"
    )
    found = {}
    for row, name in enumerate(LEARNERS):
        recipe = RECIPES[name]
        seconds = recipe.others.get(FAMILY, recipe.seconds) if arguments.seconds is None else arguments.seconds
        learner, took = trained(
            f"{FAMILY}-{name}-{seconds:.0f}", lambda r=recipe, s=seconds: make(FAMILY, r, s), arguments.models
        )
        found[name] = distance(learner)
        print(f"{name}: {took}; ends of 90 % intervals are off by {found[name]:.3f} in (2, 6)", flush=True)
        predictive_bands(
            learner.double(),
            task(),
            SHOTS,
            oracle=bm.tasks.GPFunctions.eq().oracle,
            axes=list(axes[row]),
            num_points=49,
        )
        for column, ax in enumerate(axes[row]):
            ax.axvline(2.0, color="0.45", linewidth=0.8, linestyle=":")
            ax.set(ylim=(-3.5, 3.5), xlabel="x" if row == len(LEARNERS) - 1 else "")
            ax.set_title(f"{SHOTS[column]} points" if row == 0 else "", fontsize=10)
            ax.set_ylabel(name if column == 0 else "")
            legend = ax.get_legend()
            if legend is not None and (row, column) != (0, len(SHOTS) - 1):
                legend.remove()
    svg_figures.save(figure, FILE)
    best = min(found, key=found.__getitem__)
    verdict(f"nearest to the exact intervals beyond the range of training is {best}: {found[best]:.3f}", SEED)


if __name__ == "__main__":
    main()
