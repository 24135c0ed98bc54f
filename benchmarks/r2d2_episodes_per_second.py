"""Meta-training R2D2 on Conv4-64: how episodes a second grow with the episodes of a batch.

5-way 1-shot episodes with 5 query images of each class, 28 x 28, from random images that lie on the device:

    draw    fresh episodes alone
    step    episodes drawn, forward, backward and Adam, as `fit` does it

On a GPU from 1 to 1,024 episodes a batch, or until its memory is full; on a CPU from 1 to 64, one thread.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch

import bayesmeta as bm
from benchmarks._report import interleaved, verdict

SEED, WAYS, SHOTS, QUERIES, CHANNELS = 0, 5, 1, 5, 64
BATCHES = {"cpu": (1, 4, 16, 64), "cuda": (1, 4, 16, 64, 256, 1_024)}


def draw(source: bm.tasks.Episodes, size: int, generator: torch.Generator) -> bm.TaskBatch:
    """Fresh episodes."""
    return source.draw(size, bm.tasks.ClassSplit.at(SHOTS, QUERIES), generator)


def step(learner: bm.Learner, optimizer: torch.optim.Optimizer, new: Callable[[], bm.TaskBatch]) -> None:
    """One meta-step."""
    optimizer.zero_grad(set_to_none=True)
    learner.meta_loss(learner.conform_tasks(new())).mean().backward()
    optimizer.step()


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=list(BATCHES), default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(SEED)
    pixels = torch.randint(0, 256, (1_000 * 20, 1, 28, 28), generator=generator, dtype=torch.uint8)
    labels = torch.arange(1_000).repeat_interleave(20)
    source = bm.tasks.Episodes(bm.tasks.ImageClasses.from_arrays(pixels, labels).to(arguments.device), ways=WAYS)
    torch.manual_seed(SEED)
    learner = bm.R2D2(bm.Conv4((1, 28, 28), CHANNELS), num_classes=WAYS).to(arguments.device)
    optimizer = learner.configure_optimizer(1e-3)
    print(f"{'episodes a batch':>16}{'draw, a second':>16}{'step, a second':>16}{'step, ms':>10}")
    rates: dict[int, float] = {}
    for size in BATCHES[arguments.device]:
        new = partial(draw, source, size, generator)
        steps: dict[str, Callable[[], object]] = {"draw": new, "step": partial(step, learner, optimizer, new)}
        try:
            times = interleaved(steps, arguments.rounds, arguments.device)
        except torch.OutOfMemoryError:
            print(f"{size:>16}   out of memory")
            break
        rates[size] = size / times["step"]
        print(f"{size:>16}{size / times['draw']:>16.0f}{rates[size]:>16.1f}{1e3 * times['step']:>10.1f}", flush=True)
    best = max(rates, key=lambda size: rates[size])
    verdict(
        f"meta-training Conv4-{CHANNELS} R2D2, {WAYS}-way {SHOTS}-shot with {QUERIES} query images of a class, takes "
        f"{rates[best]:.0f} episodes a second at {best} a batch on {arguments.device}, "
        f"{rates[best] / rates[1]:.1f} times as many as one by one",
        SEED,
    )


if __name__ == "__main__":
    main()
