"""Heads solved within the network are accurate and calibrated on Omniglot, with no recalibration afterwards.

Conv4-64 on 28 x 28 images, 25 of the background alphabets to train on (each character also turned by 90, 180 and 270
degrees), 5 alphabets kept out; episodes of random characters of all alphabets. One model for each head, trained on
episodes of 5 to 30 ways and 1 to 5 shots, one episode a step, and scored on 1,000 episodes at 5 and 20 ways, 1 and 5
shots: 15 query images of each class at 5 ways, 5 at 20 ways; and with 1 to 10 shots, each class its own number.
`BAYESMETA_DATA` names the folder that holds `omniglot/`.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

import bayesmeta as bm
from benchmarks._report import verdict

# accuracy of 5-way 1-shot, 5-way 5-shot, 20-way 1-shot, 20-way 5-shot, %: other splits (1,200 characters to train on)
PUBLISHED = {
    "MAML (Finn et al. 2017)": (98.7, 99.9, 95.8, 98.9),
    "prototypical (Snell et al. 2017)": (98.8, 99.7, 96.0, 98.9),
    "SNAIL (Mishra et al. 2018)": (99.07, 99.78, 97.64, 99.36),
}
BARS = {(5, 1): 0.97, (5, 5): 0.99, (20, 1): 0.90, (20, 5): 0.97}
ECE_BAR = 0.02


def features() -> bm.Conv4:
    """The backbone that all heads have."""
    return bm.Conv4((1, 28, 28), 64)


# ridge, scale and spread are where meta-training starts
METHODS: dict[str, Callable[[], bm.Learner]] = {
    "R2D2": lambda: bm.R2D2(features(), head=bm.heads.RidgeHead(0.1), scale=30.0),
    "LRD2": lambda: bm.LRD2(features(), head=bm.heads.LogisticHead(0.5), scale=10.0, spread=0.01),
    "MetaOptNet": lambda: bm.MetaOptNet(features()),
    "DKT": lambda: bm.DeepKernelClassifier(features()),
    "class means": lambda: bm.MetaOptNet(features(), head=bm.heads.NearestMeanHead()),
}


def unequal(learner: bm.Learner, test: bm.tasks.ImageClasses, ways: int, num_tasks: int) -> str:
    """Accuracy and NLL where each class has its own number of examples, 1 to 10; of the classes of few, and of many."""
    tasks = bm.tasks.Episodes(test, ways=ways).dataset(num_tasks, 15, seed=2)
    batch = tasks.divided(bm.tasks.ClassSplit((1, 10), 5, unequal=1.0), seed=0)
    right, nats, shown = [], [], []
    for index in torch.arange(num_tasks).split(4):
        support, query = batch.support.select(index.tolist()), batch.query.select(index.tolist())
        probs = learner.adapt(support).predict(query.x).probs
        counts = bm.heads.Examples.of(support.x.flatten(2)[..., :0], support.y, support.mask, ways).counts
        right.append((probs.argmax(-1) == query.y).float().flatten())
        nats.append(-probs.gather(-1, query.y[..., None]).log().flatten())
        shown.append(counts.gather(-1, query.y).flatten())
    ok, counts = torch.cat(right), torch.cat(shown)
    few, many = (100 * ok[chosen].mean() for chosen in (counts <= 2, counts >= 8))
    return f"{100 * ok.mean():>18.2f}{torch.cat(nats).mean():>18.4f}   1-2 shots {few:.1f} %, 8-10 shots {many:.1f} %"


def main() -> None:
    """Train, score, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", choices=list(METHODS), action="append", help="one method alone; can be repeated")
    parser.add_argument("--steps", type=int, default=12_000, help="episodes to train on")
    parser.add_argument("--episodes", type=int, default=1_000, help="episodes to score on")
    parser.add_argument(
        "--unequal", action="store_true", help="train on 1 to 10 shots by class in half of the episodes"
    )
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if "BAYESMETA_DATA" not in os.environ:
        parser.error("expected BAYESMETA_DATA, the folder that holds omniglot/omniglot_background.npz")
    torch.set_num_threads(arguments.threads)
    characters = bm.tasks.omniglot(Path(os.environ["BAYESMETA_DATA"]) / "omniglot" / "omniglot_background.npz")
    train, test = characters.split_groups(5 / 30, seed=0)
    print(f"{train.num_classes} characters to train on; kept out: {', '.join(map(str, test.group_names))}", flush=True)
    best, worst_ece = dict.fromkeys(BARS, 0.0), 0.0
    for name in arguments.method or METHODS:
        torch.manual_seed(0)
        learner, start = METHODS[name](), time.perf_counter()
        shots = (1, 10) if arguments.unequal else None
        episodes = bm.tasks.Episodes(train.rotated(), ways=(5, 30), shots=shots)
        bm.fit(
            learner,
            episodes,
            arguments.steps,
            batch_size=1,
            lr=2e-3,
            split=bm.tasks.ClassSplit((1, 5), 3),
            progress=False,
        )
        print(f"\n{name}: {arguments.steps} episodes in {time.perf_counter() - start:.0f} s", flush=True)
        print(f"{'ways':>5}{'shots':>6}{'accuracy, %':>18}{'NLL':>18}{'Brier':>8}{'ECE':>8}")
        for ways, query in ((5, 15), (20, 5)):
            tasks = bm.tasks.Episodes(test, ways=ways).dataset(arguments.episodes, 5 + query, seed=1)
            table = bm.evaluate(learner, tasks, (1, 5), split=bm.tasks.ClassSplit, query=query, batch_size=4).table()
            for shots in (1, 5):
                row = table.loc[shots]
                accuracy = f"{100 * row.accuracy:.2f} ± {50 * (row.accuracy_high - row.accuracy_low):.2f}"
                nll = f"{row.nll:.4f} ± {(row.nll_high - row.nll_low) / 2:.4f}"
                print(f"{ways:>5}{shots:>6}{accuracy:>18}{nll:>18}{row.brier:>8.4f}{row.ece:>8.4f}", flush=True)
                best[ways, shots] = max(best[ways, shots], row.accuracy)
                worst_ece = max(worst_ece, row.ece)
            print(f"{ways:>5}{'1-10':>6}{unequal(learner, test, ways, arguments.episodes)}", flush=True)
    print("\npublished accuracy, %: 5-way 1-shot, 5-way 5-shot, 20-way 1-shot, 20-way 5-shot")
    for name, row in PUBLISHED.items():
        print(f"  {name:<34}" + "".join(f"{value:>8.2f}" for value in row))
    short = [f"{w}-way {s}-shot {100 * best[w, s]:.2f}" for (w, s), bar in BARS.items() if best[w, s] < bar]
    accurate = "reaches 97 / 99 / 90 / 97 %" if not short else "falls short at " + ", ".join(short)
    verdict(f"the best head {accurate}; the largest ECE is {worst_ece:.4f} (bar {ECE_BAR})", seed=0)


if __name__ == "__main__":
    main()
