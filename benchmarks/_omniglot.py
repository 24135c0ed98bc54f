"""What the benchmarks on Omniglot share: the split of its alphabets, learners and how each is trained."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

import bayesmeta as bm
from bayesmeta.tasks.images.augment import Augmentation
from bayesmeta.training import Objective
from benchmarks._training import fitted

SEED = 0
KEPT_OUT = 5  # of the 30 background alphabets


def background(size: int = 28) -> bm.tasks.ImageClasses:
    """The 964 characters of Lake's background set, in so many pixels to each side.

    `BAYESMETA_DATA` names the folder that holds `omniglot/`.
    """
    if "BAYESMETA_DATA" not in os.environ:
        raise SystemExit("expected BAYESMETA_DATA, the folder that holds omniglot/omniglot_background.npz")
    path = Path(os.environ["BAYESMETA_DATA"]) / "omniglot" / "omniglot_background.npz"
    return bm.tasks.omniglot(path, size=size)


def alphabets(size: int = 28) -> tuple[bm.tasks.ImageClasses, bm.tasks.ImageClasses]:
    """25 alphabets to train on, and 5 that are kept out."""
    train, test = background(size).split_groups(KEPT_OUT / 30, seed=SEED)
    return train, test


def turned(images: bm.tasks.ImageClasses) -> bm.tasks.ImageClasses:
    """Alphabets, and each of them turned by 90, 180 and 270 degrees as another alphabet."""
    parts = [
        replace(
            images,
            images=torch.rot90(images.images, turn, (2, 3)),
            class_names=tuple((name, 90 * turn) for name in images.class_names),
            group_names=tuple((name, 90 * turn) for name in images.group_names),
        )
        for turn in range(4)
    ]
    return bm.tasks.ImageClasses.concatenate(parts)


def features(size: int = 28) -> bm.Conv4:
    """The backbone that all learners have: Conv4-64; 64 features of 28 x 28 images."""
    return bm.Conv4((1, size, size), 64)


@dataclass(frozen=True)
class Recipe:
    """How a learner is made and trained.

    Attributes:
        make: a fresh learner on such features.
        seconds: the budget.
        ways: classes of an episode, or (smallest, largest).
        shots: smallest and largest number of examples of a class where all have as many.
        unequal: (smallest, largest) where, in half of the episodes, each class has its own number; None: in none.
        query: query images of each class.
        lr: the first learning rate.
        objective: what is trained on; the learner's own by default.
    """

    make: Callable[[bm.Conv4], bm.Learner]
    seconds: float = 600.0
    ways: int | tuple[int, int] = 20
    shots: tuple[int, int] = (1, 5)
    unequal: tuple[int, int] | None = (1, 10)
    query: int = 5
    lr: float = 2e-3
    objective: Objective | None = None


HEADS: dict[str, Recipe] = {
    "R2D2": Recipe(lambda h: bm.R2D2(h, head=bm.heads.RidgeHead(0.1), scale=30.0)),
    "LRD2": Recipe(lambda h: bm.LRD2(h, head=bm.heads.LogisticHead(0.5), scale=10.0, spread=0.01)),
    "MetaOptNet": Recipe(lambda h: bm.MetaOptNet(h)),
    "DKT": Recipe(lambda h: bm.DeepKernelClassifier(h)),
}
METRIC: dict[str, Recipe] = {
    "Prototypical": Recipe(lambda h: bm.Prototypical(h)),
    "Matching": Recipe(lambda h: bm.Matching(h)),
    "Relation": Recipe(lambda h: bm.Relation(h), seconds=900.0),
    "Siamese": Recipe(lambda h: bm.Siamese(h), seconds=900.0),
    "Graph": Recipe(lambda h: bm.GraphNetwork(h), seconds=900.0, ways=5, shots=(1, 1), unequal=None, query=15),
    "IMP": Recipe(lambda h: bm.InfiniteMixturePrototypes(h)),
}
RECIPES = HEADS | METRIC


def train(
    recipe: Recipe,
    source: bm.tasks.ImageClasses,
    seconds: float,
    *,
    augment: Augmentation | None = None,
    within: bool = False,
) -> tuple[bm.Learner, str]:
    """A learner trained on episodes of these classes, within groups or not.

    Returns:
        The learner, and a line that says what it took.
    """
    episodes = bm.tasks.Episodes(source, ways=recipe.ways, shots=recipe.unequal, within_groups=within, augment=augment)
    split = bm.tasks.ClassSplit(recipe.shots, recipe.query)
    size = source.images.shape[-1]
    return fitted(
        lambda: recipe.make(features(size)),
        episodes,
        split,
        seconds,
        batch_size=1,
        lr=recipe.lr,
        seed=SEED,
        objective=recipe.objective,
    )
