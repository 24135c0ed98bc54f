"""Two processes take more meta-training tasks a second than one, on a machine with two cores that are free.

`torchrun --nproc-per-node 2 -m benchmarks.many_processes`; more processes, or more machines, as torchrun has it. Every
round trains in the first process alone, while the others wait, and then in all of them, so that a busy machine slows
both; ratios of rounds count. Wall time says how much faster it is here and now. Processor time, of all processes
together, says what dividing costs beside the work itself, whoever else is busy: count x this share is what free cores
would give.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

import bayesmeta as bm
from bayesmeta.training import Processes, alone
from benchmarks._report import verdict


class Training(NamedTuple):
    """What is timed."""

    name: str
    make: Callable[[], bm.Learner]
    batch_size: int
    steps: int


def maml() -> bm.Learner:
    """Finn's network on sinusoids, 5 inner steps."""
    return bm.MAML(bm.MLP(1, [40, 40]), steps=5, posterior=bm.PointEstimate())


def alpaca() -> bm.Learner:
    """A closed form, whose steps are short."""
    return bm.ALPaCA(bm.MLP(1, [64, 64, 32]))


TRAININGS = [
    Training("MAML, 5 steps, 25 tasks", maml, 25, 60),
    Training("MAML, 5 steps, 256 tasks", maml, 256, 12),
    Training("ALPaCA, 32 features, 16 tasks", alpaca, 16, 100),
    Training("ALPaCA, 32 features, 256 tasks", alpaca, 256, 30),
]


def timed(training: Training, seed: int) -> tuple[float, float]:
    """Wall and processor seconds of the steps of one training."""
    torch.manual_seed(seed)
    learner, sinusoids = training.make(), bm.tasks.Sinusoid()
    start = time.process_time()
    split = bm.tasks.RandomSplit.at(10, 10)
    result = bm.fit(
        learner, sinusoids, training.steps, batch_size=training.batch_size, split=split, seed=seed, progress=False
    )
    return result.seconds, time.process_time() - start


def rounds(training: Training, count: int, seed: int, here: Processes) -> tuple[list[float], list[float], list[float]]:
    """Of every round: tasks a second alone and together, and processor time alone over that of all together."""
    ones, severals, shares = [], [], []
    tasks = training.batch_size * training.steps
    for number in range(count + 1):
        alone_seconds = alone_cost = 0.0
        if here.is_first:
            with alone():
                alone_seconds, alone_cost = timed(training, seed)
        here.gathered(None)  # the others wait until it is done
        seconds, cost = timed(training, seed)
        costs = here.gathered(cost)
        if number:  # the first one warms up
            ones.append(tasks / max(alone_seconds, 1e-9))
            severals.append(tasks / seconds)
            shares.append(alone_cost / sum(costs))
    return ones, severals, shares


def main() -> None:
    """Time all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    here = Processes.here().connect()
    if here.count == 1:
        parser.error("expected several processes: torchrun --nproc-per-node 2 -m benchmarks.many_processes")
    load, lines = os.getloadavg()[0], []
    if here.is_first:
        print(f"{here.count} processes, gloo; load {load:.1f} at the start")
        print(
            "                                 tasks/s, 1   tasks/s, all   faster (min to max)   work / all that is done"
        )
    for training in TRAININGS:
        ones, severals, shares = rounds(training, arguments.rounds, arguments.seed, here)
        if here.is_first:
            ratios = sorted(b / a for a, b in zip(ones, severals, strict=True))
            middle, share = statistics.median(ratios), statistics.median(shares)
            spread = f"{middle:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            print(
                f"{training.name:32s}  {statistics.median(ones):10,.0f}   {statistics.median(severals):12,.0f}   "
                f"{spread:>19s}   {share:.2f}"
            )
            lines.append(f"{training.name} {middle:.2f} times one (work is {share:.2f} of all that is done)")
    if here.is_first:
        print(f"load {os.getloadavg()[0]:.1f} at the end")
        verdict(f"{here.count} processes against one, tasks a second: {'; '.join(lines)}", arguments.seed)


if __name__ == "__main__":
    main()
