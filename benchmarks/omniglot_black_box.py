"""Black boxes learn to classify: how right they are on new characters from one example each, after 15 minutes.

Omniglot at 14 x 14 pixels (averages of 2 x 2 of the usual 28 x 28), 25 of the background alphabets to train on (each
character also turned by 90, 180 and 270 degrees), 5 alphabets kept out; 5-way episodes of random characters of all
alphabets, labels and order drawn at random, 1 to 5 shots in one model. Features are Conv4-64, trained with the rest.
Scored on 1,000 episodes with 15 query images of each class. `BAYESMETA_DATA` names the folder that holds `omniglot/`.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch.nn import functional

import bayesmeta as bm
from bayesmeta.training import Objective
from benchmarks._omniglot import SEED, alphabets, features
from benchmarks._report import verdict
from benchmarks._training import fitted, keep_memory, trained

SIZE, WAYS, MOST_SHOTS = 14, 5, 5
SHOTS = (1, 5)
BARS = {"SNAIL": 0.95, "MetaNetworks": 0.93}  # 5 ways, 1 shot

# accuracy of 5-way 1-shot and 5-way 5-shot, %: 28 x 28 images and other splits (1,200 characters to train on)
PUBLISHED = {"SNAIL (Mishra et al. 2018)": (99.07, 99.78), "SNAIL, a re-run of others": (98.31, 99.26)}


@dataclass(frozen=True)
class Recipe:
    """How a learner is made and trained.

    Attributes:
        make: a fresh learner.
        seconds: the budget, of processor time of one thread.
        lr: the first learning rate.
        batch_size: episodes a step.
        query: query images of each class.
        objective: what is trained on; the learner's own by default.
    """

    make: Callable[[], bm.Learner]
    seconds: float = 900.0
    lr: float = 1e-3
    batch_size: int = 8
    query: int = 3
    objective: Objective | None = None


def snail() -> bm.SNAIL:
    """One model for 1 to 5 shots."""
    return bm.SNAIL(features(SIZE), head=bm.heads.OneHotHead(WAYS), max_points=WAYS * MOST_SHOTS)


def meta_networks() -> bm.MetaNetworks:
    return bm.MetaNetworks(features(SIZE), head=bm.heads.OneHotHead(WAYS))


RECIPES = {"SNAIL": Recipe(snail), "MetaNetworks": Recipe(meta_networks)}


def small(images: bm.tasks.ImageClasses) -> bm.tasks.ImageClasses:
    """The same images at half the height and width: averages of four pixels."""
    pixels = functional.avg_pool2d(images.images.float(), 2)
    return replace(images, images=pixels if images.images.is_floating_point() else pixels.round().to(torch.uint8))


def scores(learner: bm.Learner, images: bm.tasks.ImageClasses, episodes: int) -> dict[int, tuple[float, str]]:
    """Accuracy, and a line with it, its 95 % interval, NLL and ECE; by the number of shots."""
    tasks = bm.tasks.Episodes(images, ways=WAYS).dataset(episodes, 20, seed=1)
    table = bm.evaluate(learner, tasks, SHOTS, split=bm.tasks.ClassSplit, query=15, batch_size=25).table()
    found = {}
    for shots in SHOTS:
        row = table.loc[shots]
        accuracy = f"{100 * row.accuracy:.2f} ± {50 * (row.accuracy_high - row.accuracy_low):.2f} %"
        found[shots] = (row.accuracy, f"{accuracy}, NLL {row.nll:.4f}, ECE {row.ece:.4f}")
    return found


def main() -> None:
    """Train, score, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--learner", choices=list(RECIPES), action="append", help="one alone; can be repeated")
    parser.add_argument("--scale", type=float, default=1.0, help="of all budgets")
    parser.add_argument("--episodes", type=int, default=1_000, help="episodes to score on")
    parser.add_argument("--models", help="a folder of models: those that are there are scored, others are put there")
    parser.add_argument("--pilot", action="store_true", help="keep 5 training alphabets out, and score on these")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    training, test = (small(images) for images in alphabets())
    if arguments.pilot:
        training, test = training.split_groups(5 / 25, seed=SEED)
    print(f"{training.num_classes} characters to train on; kept out: {', '.join(map(str, test.group_names))}")
    episodes = bm.tasks.Episodes(training.rotated(), ways=WAYS)
    missed = []
    for name in arguments.learner or RECIPES:
        recipe = RECIPES[name]
        learner, took = trained(
            name,
            lambda recipe=recipe: fitted(
                recipe.make,
                episodes,
                bm.tasks.ClassSplit((1, MOST_SHOTS), recipe.query),
                arguments.scale * recipe.seconds,
                batch_size=recipe.batch_size,
                lr=recipe.lr,
                seed=SEED,
                objective=recipe.objective,
            ),
            arguments.models,
        )
        print(f"\n{name}: {took}", flush=True)
        found = scores(learner, test, arguments.episodes)
        for shots, (_, line) in found.items():
            print(f"  {WAYS}-way {shots}-shot: {line}", flush=True)
        if found[1][0] < BARS[name]:
            missed.append(f"{name} {100 * found[1][0]:.2f} (bar {100 * BARS[name]:.0f})")
    print("\npublished accuracy, %: 5-way 1-shot, 5-way 5-shot")
    for name, row in PUBLISHED.items():
        print(f"  {name:<34}" + "".join(f"{value:>8.2f}" for value in row))
    verdict(f"5-way 1-shot below the bars: {', '.join(missed) or 'none'}", SEED)


if __name__ == "__main__":
    main()
