"""Lake's one-shot classification within alphabets: one example of each of 20 characters, all by one person.

Lake, Salakhutdinov, Tenenbaum 2015: in a run 20 characters of one alphabet are drawn by one person, and 20 test images
by another are to be told apart. The 20 official runs and their evaluation alphabets are kept aside; here runs are drawn
in the same way from background alphabets that no training has seen.

    plain           25 alphabets, random episodes of characters and their rotations, as in `omniglot.py`, 28 x 28 pixels
    augmented       the same alphabets, episodes of one example within (rotated) alphabets, with affine maps and changes
                    of stroke width; 32 x 32 pixels, of which four poolings lose nothing
    small1, small2  as augmented, on Lake's two small background sets of 5 alphabets each

Features are Conv4-64. Budgets are processor seconds of one thread. `BAYESMETA_DATA` names the folder
that holds `omniglot/`.
"""

import argparse
from dataclasses import replace

import torch

import bayesmeta as bm
from bayesmeta.tasks.images.augment import Affine, Augmentation, Composed, StrokeWidth
from bayesmeta.tasks.images.omniglot import SMALL
from benchmarks._omniglot import RECIPES, Recipe, alphabets, background, train, turned
from benchmarks._report import verdict
from benchmarks._training import keep_memory, trained

# error, %: of the official runs on the evaluation alphabets (Lake et al. 2015, 2019)
PUBLISHED = {
    "people (Lake et al. 2015)": 4.5,
    "Bayesian program learning (Lake et al. 2015)": 3.3,
    "siamese (Koch et al. 2015)": 8.0,
    "prototypical (Lake et al. 2019)": 13.7,
    "convnet (Lake et al. 2015)": 13.5,
}
BAR = 6.0
AUGMENTATION = Composed((Affine(degrees=12.0, shear=0.25, scale=0.15, shift=0.07), StrokeWidth(0.6)))
SIZE = 32  # pixels of what is trained within alphabets
RUNS = 200  # of each set: 4,000 test images


def error(learner: bm.Learner, images: bm.tasks.ImageClasses) -> tuple[float, float, float]:
    """Share of test images that are taken for another character, %, with its 95 % interval over runs."""
    runs = bm.tasks.OneShotRuns(images, ways=20).dataset(RUNS, seed=0)
    table = bm.evaluate(
        learner, runs, (20,), split=bm.tasks.PrefixSplit, query=20, batch_size=8, num_bootstrap=1000
    ).table()
    row = table.loc[20]
    return 100 * (1 - row.accuracy), 100 * (1 - row.accuracy_high), 100 * (1 - row.accuracy_low)


def main() -> None:
    """Train, draw runs, count errors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1500.0, help="processor seconds to train on 25 alphabets")
    parser.add_argument("--small-seconds", type=float, default=400.0, help="and on 5 alphabets")
    parser.add_argument("--learner", choices=list(RECIPES), default="Prototypical")
    parser.add_argument("--models", help="a folder of models: those that are there are scored, others are put there")
    parser.add_argument("--only", choices=["plain", "augmented", *SMALL], action="append")
    parser.add_argument("--by-alphabet", action="store_true", help="the error in each alphabet, too")
    parser.add_argument("--train-only", action="store_true", help="train, and leave the scores for another run")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    training, test = alphabets()
    larger, larger_test = alphabets(SIZE)
    everything = background(SIZE)
    seconds, small_seconds = arguments.seconds, arguments.small_seconds
    name = arguments.learner
    random, within = RECIPES[name], replace(RECIPES[name], shots=(1, 1), unequal=None)
    sets: dict[str, tuple[Recipe, bm.tasks.ImageClasses, bm.tasks.ImageClasses, float, Augmentation | None, str]] = {
        "plain": (random, training, test, seconds, None, f"{name}-{seconds:.0f}"),
        "augmented": (within, larger, larger_test, seconds, AUGMENTATION, f"one-shot-{name}-{seconds:.0f}"),
    }
    for part, names in SMALL.items():
        unseen = larger_test.select_groups([group for group in larger_test.group_names if group not in names])
        few = everything.select_groups(names)
        sets[part] = (within, few, unseen, small_seconds, AUGMENTATION, f"one-shot-{part}-{name}-{small_seconds:.0f}")
    found: dict[str, float] = {}
    for part in arguments.only or sets:
        recipe, source, kept_out, budget, augment, title = sets[part]

        def make(
            recipe: Recipe = recipe,
            source: bm.tasks.ImageClasses = source,
            budget: float = budget,
            augment: Augmentation | None = augment,
        ) -> tuple[bm.Learner, str]:
            if augment is None:
                return train(recipe, source.rotated(), budget)
            return train(recipe, turned(source), budget, augment=augment, within=True)

        learner, took = trained(title, make, arguments.models)
        groups, classes = len(source.group_names), source.num_classes
        print(f"{name}, {part}: {classes} characters of {groups} alphabets, {took}", flush=True)
        if arguments.train_only:
            continue
        found[part], low, high = error(learner, kept_out)
        count = len(kept_out.group_names)
        interval = f"{found[part]:.2f} % ({low:.2f} to {high:.2f})"
        print(f"    error in {RUNS} runs of {count} alphabets: {interval}", flush=True)
        for group in kept_out.group_names if arguments.by_alphabet else ():
            each, low, high = error(learner, kept_out.select_groups([group]))
            print(f"        {group}: {each:.2f} % ({low:.2f} to {high:.2f})", flush=True)
    print("\npublished error in the official runs, %")
    for name, value in PUBLISHED.items():
        print(f"  {name:<46}{value:>6.1f}")
    best = min(found, key=lambda part: found[part]) if found else None
    text = "trained, not scored" if best is None else f"the least error is {found[best]:.2f} %, of {best} (bar {BAR} %)"
    verdict(text, seed=0)


if __name__ == "__main__":
    main()
