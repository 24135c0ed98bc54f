"""Comparisons come within .05 nats of the exact Bayes classifier of Gaussian classes, prototypical networks within .02.

Five classes in four dimensions, means N(0, 1.5² I), points N(mean, .7² I). Every learner is trained for a budget of
processor seconds of one thread on tasks of 1 to 10 examples of a class, equal numbers in half of them, and scored on
2,000 tasks at 1, 5 and unequal shots (1 to 10): NLL above that of the Bayes classifier, nats, with 95 % interval over
tasks. Prototypical networks and mixtures see the inputs themselves; the others have features from a network, which they
need to compare as densities do.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import bayesmeta as bm
from benchmarks._report import verdict
from benchmarks._training import fitted

SEED, DIMENSION = 0, 4
BARS = {"Prototypical": 0.02, "MANN, LSTM": float("inf")}  # a memory without slots is shown for comparison
BAR = 0.05
SPLITS = {
    "1 shot": bm.tasks.ClassSplit((1, 1), 10),
    "5 shots": bm.tasks.ClassSplit((5, 5), 10),
    "1 to 10": bm.tasks.ClassSplit((1, 10), 10, unequal=1.0),
}


class Inputs(bm.Network):
    """h(x) = x."""

    x_shape, num_outputs = (DIMENSION,), DIMENSION

    def __init__(self) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x


@dataclass(frozen=True)
class Recipe:
    make: Callable[[], bm.Learner]
    seconds: float = 60.0
    lr: float = 3e-3
    objective: bm.training.Objective | None = None
    query: int = 5  # of each class; evidence counts all points, so that it needs few


def mlp() -> bm.MLP:
    return bm.MLP(DIMENSION, [64, 64, 32])


def mann(memory: bm.networks.Memory) -> bm.MANN:
    return bm.MANN(mlp(), head=bm.heads.OneHotHead(5), memory=memory)


RECIPES = {
    "Prototypical": Recipe(lambda: bm.Prototypical(Inputs(), num_classes=5), seconds=20.0, lr=1e-2),
    "IMP": Recipe(lambda: bm.InfiniteMixturePrototypes(Inputs(), num_classes=5), seconds=20.0, lr=1e-2),
    "Matching": Recipe(lambda: bm.Matching(mlp(), num_classes=5)),
    "Matching, attention": Recipe(
        lambda: bm.Matching(mlp(), num_classes=5, context=bm.heads.SetAttention(32)), lr=1e-3
    ),
    "Siamese": Recipe(lambda: bm.Siamese(mlp(), num_classes=5), objective=bm.training.MarginalPredictive()),
    "Siamese, pairs": Recipe(lambda: bm.Siamese(mlp(), num_classes=5)),
    "Relation": Recipe(lambda: bm.Relation(mlp(), num_classes=5)),
    "Graph": Recipe(lambda: bm.GraphNetwork(mlp(), num_classes=5)),
    "MANN, LRUA": Recipe(
        lambda: mann(bm.networks.LRUA(slots=64, reads=1, size=32, decay=0.99)),
        seconds=300.0,
        objective=bm.training.Evidence(),
        query=1,
    ),
    "MANN, LSTM": Recipe(
        lambda: mann(bm.networks.LSTMMemory()), seconds=300.0, objective=bm.training.Evidence(), query=1
    ),
    "SNAIL": Recipe(
        lambda: bm.SNAIL(mlp(), head=bm.heads.OneHotHead(5), max_points=50, channels=8, attention=((32, 32), (32, 32))),
        seconds=120.0,
    ),
    "MetaNetworks": Recipe(lambda: bm.MetaNetworks(mlp(), head=bm.heads.OneHotHead(5)), seconds=300.0, lr=1e-2),
}


def nll(learner: bm.Learner, batch: bm.TaskBatch) -> Tensor:
    """Of each task."""
    found = []
    for index in torch.arange(batch.num_tasks).split(100):
        query = batch.query.select(index.tolist())
        probs = learner.adapt(batch.support.select(index.tolist())).predict(query.x).probs
        log_probs = probs.gather(-1, torch.where(query.mask, query.y, 0)[..., None])[..., 0].double().log()
        found.append(-torch.where(query.mask, log_probs, 0.0).sum(-1) / query.counts)
    return torch.cat(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--learner", choices=list(RECIPES), action="append", help="one alone; can be repeated")
    parser.add_argument("--scale", type=float, default=1.0, help="of all budgets")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    blobs = bm.tasks.GaussianBlobs(ways=5, dimension=DIMENSION, spread=1.5, noise=0.7)
    assert blobs.oracle is not None
    batches = {name: blobs.draw(2_000, split, torch.Generator().manual_seed(1)) for name, split in SPLITS.items()}
    best = {name: nll(blobs.oracle, batch) for name, batch in batches.items()}
    print("NLL of the Bayes classifier: " + ", ".join(f"{name} {value.mean():.4f}" for name, value in best.items()))
    print(f"\n{'regret, nats':<22}" + "".join(f"{name:>20}" for name in SPLITS))
    missed = []
    for name in arguments.learner or RECIPES:
        recipe = RECIPES[name]
        learner, took = fitted(
            recipe.make,
            blobs,
            bm.tasks.ClassSplit((1, 10), recipe.query, unequal=0.5),
            arguments.scale * recipe.seconds,
            batch_size=16,
            lr=recipe.lr,
            seed=SEED,
            objective=recipe.objective,
            trial=20,
        )
        row = f"{name:<22}"
        worst = 0.0
        for title, batch in batches.items():
            regret = nll(learner, batch) - best[title]
            interval = 1.96 * regret.std().item() / len(regret) ** 0.5
            row += f"{f'{regret.mean():.4f} ± {interval:.4f}':>20}"
            worst = max(worst, regret.mean().item())
        print(f"{row}  {took}", flush=True)
        bar = BARS.get(name, BAR)
        if worst > bar:
            missed.append(f"{name} {worst:.4f} (bar {bar})")
    verdict(f"above the bars: {', '.join(missed) or 'none'}", SEED)


if __name__ == "__main__":
    main()
