"""A search finds a network for MAML that is as good as the paper's 40-40, and better than the median of its space.

MAML with 2 inner steps (from 0.02, learned) and a learned noise on the sinusoids of its paper, observed with deviation
0.1: supports of 5 to 10 points, 10 query points, 16 tasks a step, Adam. The space is `DenseSpace(1)`, 208 networks:
1 to 4 layers x 10, 20, 40, 80 wide x four activations x layer normalisation x skip.

The whole search has 10 minutes of one thread, its validation and surrogate included; trials have 2, 6 and 18 processor
seconds, whatever their size. What it finds is compared with 40-40 (ReLU, as in the paper), and with networks drawn at
random from the space, each trained with 18 seconds, too, on fresh test tasks, which the search never saw. The score is
log p(query | support), nats per point; differences are paired by task.

The median's error is that of the difference, task by task, to the network in the middle of the sample.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

import bayesmeta as bm
from benchmarks._report import affordable, verdict
from benchmarks._training import keep_memory

SEED, RUNGS, LIMIT, LR = 0, (2.0, 6.0, 18.0), 600.0, 1e-2
CANDIDATES, SURVIVORS, SAMPLE = 8, 2, 7
SPLIT = bm.tasks.RandomSplit((5, 10), 10)
SPACE = bm.training.DenseSpace(1)


def make(network: bm.networks.DenseNetwork) -> bm.MAML:
    """MAML as in the paper, but for the learned step size and noise."""
    return bm.MAML(network, steps=2, lr=0.02, posterior=bm.PointEstimate())


def trained(architecture: bm.training.Architecture, tasks: bm.tasks.Sinusoid) -> tuple[bm.Learner | None, str]:
    """An architecture trained with the last budget, as the search trains it; None where that fails."""

    def run(steps: int) -> tuple[bm.Learner, float]:
        start = time.process_time()
        torch.manual_seed(SEED)
        learner = make(SPACE.network(architecture))
        bm.fit(learner, tasks, steps, lr=LR, split=SPLIT, seed=SEED, progress=False)
        return learner, time.process_time() - start

    steps = affordable(lambda steps: run(steps)[1], RUNGS[-1])
    try:
        learner, seconds = run(steps)
    except bm.InferenceError as error:
        return None, str(error)
    return learner, f"{steps} steps in {seconds:.0f} s"


def scores(learner: bm.Learner, test: bm.TaskBatch) -> np.ndarray:
    """log p(query | support) of each task, nats per point."""
    query = learner.conform(test.query)
    with torch.no_grad():
        found = learner.adapt(test.support).predict(query.x).log_prob(query.y, query.mask)
    return (found / query.counts).double().numpy()


def told(each: np.ndarray) -> str:
    """Mean and standard error over tasks."""
    return f"{each.mean():.3f} ± {each.std(ddof=1) / len(each) ** 0.5:.3f}"


def main() -> None:
    """Search, then compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=Path, help="a file of trials, to go on from")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    tasks = bm.tasks.Sinusoid.maml()
    validation = tasks.dataset(500, 20, seed=1)
    test = tasks.dataset(2_000, 20, seed=2).divided(SPLIT, SEED)

    start = time.process_time()
    search = bm.training.ArchitectureSearch(
        SPACE,
        make,
        bm.training.Seconds(RUNGS),
        candidates=CANDIDATES,
        survivors=SURVIVORS,
        lr=LR,
        split=SPLIT,
        seed=SEED,
    )
    result = search.run(tasks, validation, arguments.trials)
    spent = time.process_time() - start
    print(result.table().drop(columns=["seed", "failure", "evidence"]).round(3).to_string())
    print(f"\n{result}\n")
    print(f"the search took {spent:.0f} processor seconds (limit {LIMIT:.0f}), {len(result.trials)} trials", flush=True)

    found = scores(result.learner(), test)
    print(f"\n{'on 2,000 fresh tasks':<46}{'nats per point':>16}")
    print(f"{result.best!s:<46}{told(found):>16}", flush=True)
    average = scores(result.averaged(), test)
    print(f"{f'average: {len(result.weights())} finalists':<46}{told(average):>16}", flush=True)
    choices = {"depth": 2, "width": 40, "activation": "relu", "norm": None, "skip": False}
    learner, line = trained(SPACE.of(choices), tasks)
    assert learner is not None
    paper = scores(learner, test)
    print(f"{'40-40 of the paper':<46}{told(paper):>16}  {line}", flush=True)

    everything = SPACE.all()
    places = np.random.default_rng(SEED).choice(len(everything), SAMPLE, replace=False)
    sample: list[np.ndarray] = []
    for place in places:
        learner, line = trained(everything[place], tasks)
        each = np.full(len(found), -np.inf) if learner is None else scores(learner, test)
        sample.append(each)
        print(f"{everything[place]!s:<46}{told(each) if learner else 'failed':>16}  {line}", flush=True)
    median = sorted(sample, key=np.mean)[SAMPLE // 2]

    def gain(other: np.ndarray) -> tuple[float, float]:
        difference = found - other
        return difference.mean(), difference.std(ddof=1) / len(difference) ** 0.5

    (over_paper, paper_error), (over_median, median_error) = gain(paper), gain(median)
    is_met = over_paper >= -paper_error and over_median > 2.0 * median_error and spent <= LIMIT
    verdict(
        f"{'met' if is_met else 'missed'}: in {spent:.0f} processor seconds (at most {LIMIT:.0f}) the search found "
        f"{result.best}, {over_paper:+.3f} ± {paper_error:.3f} nats per point against 40-40 (not worse within its "
        f"error), {over_median:+.3f} ± {median_error:.3f} against the median of {SAMPLE} networks of the space (more "
        "than 2 errors)",
        SEED,
    )


if __name__ == "__main__":
    main()
