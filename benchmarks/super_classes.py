"""Where classes are made of several things mixtures of prototypes are far better than one prototype, and else the same.

Alphabets are the classes (Allen et al. 2019): 10 of them, each with one image of 10 of its characters, and other images
of the same characters are to be told apart by alphabet. 20 of Lake's background alphabets to train on, also turned by
90, 180 and 270 degrees as alphabets of their own, 10 kept out. Infinite mixture prototypes and prototypical networks
are trained with the same backbone (Conv4-64), episodes and budget, processor seconds of one thread, the mixtures with a
cluster at every example that is unlike the others (`radius=0.0`); the prototypical head is also put on the features
that the mixtures have learned, its own numbers trained there.

On ordinary episodes (5 kept-out alphabets, characters as classes) both heads score the features of one prototypical
network, with its numbers. `BAYESMETA_DATA` names the folder that holds `omniglot/`.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch

import bayesmeta as bm
from benchmarks._omniglot import METRIC, SEED, alphabets, background, features, train, turned
from benchmarks._report import affordable, verdict
from benchmarks._training import keep_memory, trained

WAYS, MEMBERS, HEAD_STEPS = 10, 10, 60
BARS = {"super-classes": 10.0, "ordinary": 0.3}  # points of accuracy above prototypical networks; below them
PUBLISHED = "published (Allen et al. 2019): mixtures about 92 %, prototypes about 65 %, another split"


def fitted(learner: bm.Learner, images: bm.tasks.ImageClasses, steps: int, lr: float) -> float:
    """Train on alphabets as classes; processor seconds."""
    source = bm.tasks.SuperClassEpisodes(images, ways=WAYS, members=MEMBERS)
    start = time.process_time()
    bm.fit(learner, source, steps, batch_size=1, lr=lr, split=bm.tasks.ClassSplit.at(1, 1), seed=SEED, progress=False)
    return time.process_time() - start


def within_budget(
    learner: bm.Learner, trial: bm.Learner, images: bm.tasks.ImageClasses, seconds: float
) -> tuple[bm.Learner, str]:
    """Train for a budget of processor seconds."""
    steps = affordable(lambda count: fitted(trial, images, count, 2e-3), seconds, trial=8)
    return learner, f"{steps} episodes in {fitted(learner, images, steps, 2e-3):.0f} processor seconds"


def accuracy(learner: bm.Learner, tasks: bm.TaskDataset) -> str:
    """On frozen super-class episodes, with its interval."""
    row = (
        bm.evaluate(learner, tasks, (WAYS * MEMBERS,), split=bm.tasks.PrefixSplit, query=WAYS * MEMBERS, batch_size=4)
        .table()
        .loc[WAYS * MEMBERS]
    )
    half = 50 * (row.accuracy_high - row.accuracy_low)
    return f"{100 * row.accuracy:6.2f} ± {half:.2f} %, NLL {row.nll:.4f}, ECE {row.ece:.4f}"


def mixtures(**arguments: float) -> bm.InfiniteMixturePrototypes:
    """A fresh learner; `radius=0.0` starts a cluster at every example that is unlike the others."""
    return bm.InfiniteMixturePrototypes(features(), head=bm.heads.ClusterHead(64, **arguments))


def same_numbers(prototypical: bm.Prototypical, learner: bm.InfiniteMixturePrototypes) -> bm.Learner:
    """Mixtures with the features and numbers of a prototypical network."""
    theirs = prototypical.state_dict()
    learner.load_state_dict({name: theirs[name] for name in learner.state_dict()})
    return learner


def main() -> None:
    """Train, score, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=400.0, help="processor seconds to train on alphabets")
    parser.add_argument("--ordinary-seconds", type=float, default=600.0, help="and on characters")
    parser.add_argument("--episodes", type=int, default=200, help="episodes of alphabets to score on")
    parser.add_argument("--models", help="a folder of models: those that are there are scored, others are put there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    training, test = background().split_groups(10 / 30, seed=SEED)
    source = turned(training)
    tasks = bm.tasks.SuperClassEpisodes(test, ways=WAYS, members=MEMBERS).dataset(arguments.episodes, 2, seed=1)
    print(f"{len(source.group_names)} alphabets to train on, {len(test.group_names)} kept out; {PUBLISHED}", flush=True)
    shares: dict[str, float] = {}
    learned: dict[str, bm.Learner] = {}
    makers: dict[str, Callable[[], bm.heads.FeatureClassifier]] = {
        "IMP": lambda: mixtures(radius=0.0, noise=0.3),
        "Prototypical": lambda: bm.Prototypical(features()),
    }
    for name, make in makers.items():

        def run(make: Callable[[], bm.heads.FeatureClassifier] = make) -> tuple[bm.Learner, str]:
            torch.manual_seed(SEED)
            return within_budget(make(), make(), source, arguments.seconds)

        learned[name], took = trained(f"alphabets-{name}-{arguments.seconds:.0f}", run, arguments.models)
        line = accuracy(learned[name], tasks)
        shares[name] = float(line.split()[0])
        print(f"{name}: {took}\n    {line}", flush=True)
    same = bm.Prototypical(learned["IMP"].features)
    same.features.requires_grad_(False)
    fitted(same, source, HEAD_STEPS, 1e-2)
    line = accuracy(same, tasks)
    shares["same features"] = float(line.split()[0])
    print(f"Prototypical on the features of IMP\n    {line}", flush=True)
    prototypical, _ = trained(
        f"Prototypical-{arguments.ordinary_seconds:.0f}",
        partial(train, METRIC["Prototypical"], alphabets()[0].rotated(), arguments.ordinary_seconds),
        arguments.models,
    )
    others = [same_numbers(prototypical, learner) for learner in (mixtures(), mixtures(radius=0.0))]
    worst = 0.0
    print("\ncharacters as classes, one network's features and numbers: accuracy, % (and NLL)")
    for ways in (5, 20):
        ordinary = bm.tasks.Episodes(alphabets()[1], ways=ways).dataset(arguments.episodes, 10, seed=1)
        both = [
            bm.evaluate(each, ordinary, (1, 5), split=bm.tasks.ClassSplit, query=5, batch_size=4).table()
            for each in (prototypical, *others)
        ]
        for shots in (1, 5):
            one, many, kernel = (table.loc[shots] for table in both)
            worst = max(worst, 100 * (one.accuracy - many.accuracy))
            figures = [f"{100 * row.accuracy:.2f} ({row.nll:.4f})" for row in (one, many, kernel)]
            print(f"  {ways}-way {shots}-shot: Prototypical {figures[0]}, IMP {figures[1]}, with radius 0 {figures[2]}")
    gain = shares["IMP"] - max(shares["same features"], shares["Prototypical"])
    verdict(
        f"where alphabets are classes mixtures are {gain:.1f} points above the better of two prototypical networks "
        f"(bar {BARS['super-classes']:.0f}); elsewhere at most {worst:.2f} points below (bar {BARS['ordinary']})",
        SEED,
    )


if __name__ == "__main__":
    main()
