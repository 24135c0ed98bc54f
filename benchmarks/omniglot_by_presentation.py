"""A memory-augmented network has learned a character of a new alphabet at its second presentation.

Omniglot at 14 x 14 pixels. Episodes of 5 characters with random labels, images in a random order; each label is
predicted before it is shown. Trained for 900 processor seconds of one thread on 25 background alphabets and their
rotations, 4 to 10 images of a character; scored on 400 episodes of 10 images of each from 5 alphabets that are kept out
(and not turned): accuracy at the k-th presentation of a character, with 95 % interval over episodes. The first is a
guess. `BAYESMETA_DATA` names the folder that holds `omniglot/`.

Published (Santoro et al. 2016, table 1; 20 x 20 pixels, 100,000 episodes of 16, characters kept out and not alphabets):

    presentation     1     2     3     4     5    10
    LRUA          36.4  82.8  91.0  92.6  94.9  98.1
    LSTM          24.4  49.5  55.3  61.0  63.6  62.5
"""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

import bayesmeta as bm
from benchmarks._omniglot import SEED, alphabets, features, turned
from benchmarks._report import verdict
from benchmarks._training import fitted, keep_memory, trained

SIZE, WAYS, IMAGES = 14, 5, 10
SPLIT = bm.tasks.ClassSplit((1, 7), 3, unequal=1.0)  # in training one sequence; counts do not give labels away
SHOWN = (1, 2, 3, 4, 5, 10)
PUBLISHED = {"LRUA": (36.4, 82.8, 91.0, 92.6, 94.9, 98.1), "LSTM": (24.4, 49.5, 55.3, 61.0, 63.6, 62.5)}
BARS = {2: 0.85, 5: 0.93}
MEMORIES: dict[str, Callable[[], bm.networks.Memory]] = {
    "LRUA": lambda: bm.networks.LRUA(slots=64, width=64, reads=1, size=100, decay=0.99),
    "LSTM": lambda: bm.networks.LSTMMemory(),
}


def presentations(y: Tensor) -> Tensor:
    """Which presentation of its class each point of a task is, from 1."""
    same = y[:, :, None] == y[:, None]
    return same.tril().sum(-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--memory", choices=list(MEMORIES), default="LRUA")
    parser.add_argument("--seconds", type=float, default=900.0)
    parser.add_argument("--models", help="a folder that keeps what was trained")
    parser.add_argument("--pilot", action="store_true", help="keep 5 training alphabets out, and score on these")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    name, (train, test) = arguments.memory, alphabets(SIZE)
    if arguments.pilot:
        train, test = train.split_groups(5 / 25, seed=SEED)

    def make() -> tuple[bm.Learner, str]:
        return fitted(
            lambda: bm.MANN(features(SIZE), head=bm.heads.OneHotHead(WAYS), memory=MEMORIES[name]()),
            bm.tasks.Episodes(turned(train), ways=WAYS),
            SPLIT,
            arguments.seconds,
            batch_size=8,
            lr=1e-3,
            seed=SEED,
            objective=bm.training.Evidence(),
        )

    learner, line = trained(name, make, arguments.models)
    assert isinstance(learner, bm.MANN)
    data = bm.tasks.Episodes(test, ways=WAYS).dataset(400, per_class=IMAGES, seed=SEED + 1).data
    right, log_prob = [], []
    with torch.no_grad():
        for part in range(0, data.num_tasks, 50):
            some = data.select(slice(part, part + 50))
            predictive = learner.step_ahead(some)
            right.append((predictive.probs.argmax(-1) == some.y).double())
            log_prob.append(predictive.marginal_log_prob(some.y).double())
    correct, nats, which = torch.cat(right), torch.cat(log_prob), presentations(data.y)
    print(f"{name}: {line}\n\n{'presentation':<16}" + "".join(f"{k:>15}" for k in SHOWN))
    accuracy = {}
    rows = {"accuracy": "", "NLL, nats": ""}
    for k in SHOWN:
        at = (which == k).double()
        each = (correct * at).sum(-1) / at.sum(-1)
        accuracy[k] = each.mean().item()
        rows["accuracy"] += f"{f'{100 * accuracy[k]:.1f} ± {196 * each.std().item() / len(each) ** 0.5:.1f}':>15}"
        rows["NLL, nats"] += f"{-((nats * at).sum() / at.sum()).item():>15.3f}"
    for title, row in rows.items():
        print(f"{title:<16}{row}")
    print(f"{'published':<16}" + "".join(f"{value:>15}" for value in PUBLISHED[name]))
    found = ", ".join(f"{accuracy[k]:.3f} at presentation {k} (bar {bar})" for k, bar in BARS.items())
    met = all(accuracy[k] >= bar for k, bar in BARS.items())
    verdict(f"{name} {'met' if met else 'missed'}: {found}", SEED)


if __name__ == "__main__":
    main()
