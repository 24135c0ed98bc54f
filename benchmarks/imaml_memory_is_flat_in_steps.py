"""iMAML's memory does not grow with the steps of its inner solver; that of an unrolled path does.

Peak of the tensors that a meta-step allocates (torch's profiler, forward and backward), MLP 1-100-100-1, 25 tasks of 10
support and 10 query points, 1 to 100 inner steps. A checkpointed path keeps phi alone of each step.
"""

import argparse

import torch

import bayesmeta as bm
from benchmarks._report import verdict

STEPS = (1, 5, 20, 100)


def network() -> bm.MLP:
    torch.manual_seed(0)
    return bm.MLP(1, [100, 100])


def learners(steps: int) -> dict[str, bm.Learner]:
    """The same network, adapted for `steps` steps."""
    point = bm.PointEstimate()
    ascent = bm.inference.GradientAscent(steps, lr=0.01)
    return {
        "iMAML": bm.IMAML(network(), precision=10.0, solver=ascent, posterior=point, solve_steps=5),
        "MAML": bm.MAML(network(), steps=steps, lr=0.01, posterior=point),
        "MAML, checkpointed": bm.MAML(network(), steps=steps, lr=0.01, posterior=point, checkpoint=True),
    }


def peak(learner: bm.Learner, tasks: bm.TaskBatch) -> float:
    """Largest number of megabytes held at once beyond what was there before."""
    learner.meta_loss(tasks).mean().backward()  # gradients exist from here on
    with torch.profiler.profile(profile_memory=True, record_shapes=False) as profile:
        learner.meta_loss(tasks).mean().backward()
    held = largest = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            largest = max(largest, held)
    return largest / 2**20


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    torch.set_num_threads(1)
    batch = bm.tasks.Sinusoid.maml().draw(25, bm.tasks.RandomSplit.at(10, 10), torch.Generator().manual_seed(0))
    rows = {steps: {name: peak(each, batch) for name, each in learners(steps).items()} for steps in STEPS}
    print("peak MB of a meta-step by inner steps")
    print(f"{'steps':>6}" + "".join(f"{name:>20}" for name in rows[1]))
    for steps, row in rows.items():
        print(f"{steps:>6}" + "".join(f"{value:>20.1f}" for value in row.values()))
    ratios = {name: rows[STEPS[-1]][name] / rows[STEPS[0]][name] for name in rows[1]}
    verdict("peak memory at 100 steps over 1: " + ", ".join(f"{n} {r:.2f}" for n, r in ratios.items()), seed=0)


if __name__ == "__main__":
    main()
