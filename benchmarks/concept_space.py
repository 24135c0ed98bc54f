"""Few episodes: the labels of all their classes make a learner better, at the same number of images seen.

300 fixed 5-way episodes of two images a class (1 support, 1 query) from 20 of Lake's background alphabets, 14 x 14
pixels, are all there is. The learner alone is trained on them; a `ConceptLearner` around it, by the same network, on
them and on the same images with the labels of all classes. Both see as many images in training, counted with repeats:
what the discriminator sees, episodes do not. The learning rate is the same for both; the weight of base points and the
make-up of a step are those of two that did better on 5 validation alphabets (`--validate` prints them). Scored are
the 5 alphabets that all benchmarks on Omniglot keep out, on the same episodes for both: accuracy, and the difference,
with its standard error over episodes.

`BAYESMETA_DATA` names the folder that holds `omniglot/`.
"""

import argparse
import time

import torch

import bayesmeta as bm
from bayesmeta.tasks.images.points import unit
from benchmarks._omniglot import SEED, alphabets, features
from benchmarks._report import verdict
from benchmarks._training import keep_memory

SIZE = 14
EPISODES, WAYS, PER_CLASS = 300, 5, 2
BAR = 2.0  # errors of the difference
ONE = WAYS * PER_CLASS  # images of an episode


def shown(images: bm.tasks.ImageClasses, tasks: bm.TaskDataset) -> bm.tasks.ImageClasses:
    """The images that the episodes show, with the labels of all classes."""
    rows = {row.numpy().tobytes() for row in tasks.data.x.flatten(0, 1)}
    kept = torch.tensor([row.numpy().tobytes() in rows for row in unit(images.images)])
    return bm.tasks.ImageClasses.from_arrays(images.images[kept], images.labels[kept])


def trained(
    tasks: bm.TaskDataset,
    base: bm.tasks.ImageClasses,
    images: int,
    *,
    weight: float,
    episodes: int,
    base_points: int,
    lr: float,
) -> tuple[bm.Learner, str]:
    """A learner, and a line that says what it took; without a discriminator where there are no base points."""
    torch.manual_seed(SEED)
    learner: bm.Learner = bm.Prototypical(features(SIZE))
    if base_points:
        points = bm.tasks.BasePoints.from_images(base)
        learner = bm.wrappers.ConceptLearner(learner, points, weight, base_points)
    steps = images // (ONE * episodes + base_points)
    start, split = time.process_time(), bm.tasks.ClassSplit.at(1, PER_CLASS - 1)
    bm.fit(learner, tasks, steps, batch_size=episodes, lr=lr, split=split, seed=SEED, progress=False)
    return learner, f"{steps} steps, {time.process_time() - start:.0f} processor seconds"


@torch.no_grad()
def accuracies(learner: bm.Learner, images: bm.tasks.ImageClasses, ways: int, count: int) -> tuple[torch.Tensor, float]:
    """The accuracy of each episode with one shot and 5 query images of each class, and the NLL of all."""
    tasks = bm.tasks.Episodes(images, ways=ways).dataset(count, 6, seed=1).divided(bm.tasks.ClassSplit.at(1, 5))
    right, nats = [], []
    for start in range(0, count, 20):
        support, query = (side.select(slice(start, start + 20)) for side in (tasks.support, tasks.query))
        prediction = learner.adapt(support).predict(query.x)
        right.append((prediction.probs.argmax(-1) == query.y).double().mean(-1))
        nats.append(-prediction.log_prob(query.y) / query.y.shape[1])
    return 100.0 * torch.cat(right), float(torch.cat(nats).mean())


ALONE = {"weight": 0.0, "episodes": 4, "base_points": 0, "lr": 5e-3}
CONCEPT = {"weight": 0.1, "episodes": 3, "base_points": 16, "lr": 5e-3}
CANDIDATES = [
    ALONE,
    ALONE | {"lr": 2e-3},
    CONCEPT,
    CONCEPT | {"weight": 0.02},
    CONCEPT | {"weight": 1.0, "episodes": 4, "base_points": 64},
]


def main() -> None:
    """Train both, score both on the same episodes, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--validate", action="store_true", help="score the candidates on validation alphabets alone")
    parser.add_argument("--episodes", type=int, default=300, help="5-way episodes to score on; a third at 20 ways")
    parser.add_argument("--images", type=int, default=56_000, help="seen by either in training, with repeats")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    training, test = alphabets(SIZE)
    own, validation = training.split_groups(5 / 25, seed=1)
    tasks = bm.tasks.Episodes(own, ways=WAYS).dataset(EPISODES, PER_CLASS, seed=SEED)
    base = shown(own, tasks)
    bm.tasks.BasePoints.from_images(base).require_apart(test)
    print(f"{EPISODES} episodes of {WAYS} classes with {PER_CLASS} images each, {SIZE} x {SIZE} pixels: {base}")
    print(f"in training {arguments.images:,} images are seen, with repeats", flush=True)
    scored, found = (validation if arguments.validate else test), {}
    for settings in CANDIDATES if arguments.validate else (ALONE, CONCEPT):
        learner, took = trained(tasks, base, arguments.images, **settings)
        print(f"\n{settings}\n{took}", flush=True)
        for ways, count in ((5, arguments.episodes), (20, arguments.episodes // 3)):
            each, nll = accuracies(learner, scored, ways, count)
            found.setdefault(ways, []).append(each)
            error = each.std() / len(each) ** 0.5
            print(f"{ways:>3} ways, 1 shot: accuracy {each.mean():.2f} ± {error:.2f} %, NLL {nll:.3f}", flush=True)
    if arguments.validate:
        return
    print("\nthe difference that the discriminator makes, with its error:")
    lines = []
    for ways, (alone, concept) in found.items():
        difference = concept - alone
        error = float(difference.std() / len(difference) ** 0.5)
        lines.append((float(difference.mean()), error))
        print(f"{ways:>3} ways: {lines[-1][0]:+.2f} ± {error:.2f} points, {lines[-1][0] / error:+.1f} errors")
    gain, error = lines[0]
    word = "met" if gain > BAR * error else "missed"
    verdict(
        f"{word}: with a discriminator {gain:+.2f} ± {error:.2f} points at 5 ways and 1 shot, {gain / error:+.1f} "
        f"errors; the bar was {BAR:+.0f} errors",
        SEED,
    )


if __name__ == "__main__":
    main()
