"""Where the noise of tasks differs tenfold, a noise of each task's own covers quiet and loud tasks alike.

Tasks are smooth functions (a Gaussian process with an RBF kernel, length scale 1, variance 1, on inputs from -2 to 2)
with Gaussian noise of deviation .1 in half of the tasks and 1 in the others. Two processes are trained on 40 tasks of
20 points by maximum likelihood: one with a noise that all share, one inside `TaskQuadrature` with `NoiseScale`. Both
predict 30 further points of 400 new tasks, given 5, 10, 20 or 40. Coverage is that of 90 % intervals, over the points
of the quiet and of the loud tasks; its standard error is over tasks. The last learner is told the noise of each task.
"""

import argparse
import math
import time

import torch
from torch import Tensor

import bayesmeta as bm
from bayesmeta.evaluation import metrics
from bayesmeta.wrappers import NoiseScale, TaskQuadrature
from benchmarks._report import verdict

LEVEL, SHOTS, QUERY = 0.9, (5, 10, 20, 40), 30
NOISES = (0.1, 1.0)
MOST = 0.02  # that coverage may be off where points are as many as in training, or more


def process(noise: float = 0.1) -> bm.DeepKernelTransfer:
    """A Gaussian process on the inputs."""
    return bm.DeepKernelTransfer(bm.Identity(1), noise=bm.noise.DiagonalNoise(1, initial=noise)).double()


def tasks(count: int, points: int, seed: int) -> tuple[bm.Data, Tensor]:
    """Tasks, and which of them are loud."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, points, 1, generator=generator, dtype=torch.float64) * 4.0 - 2.0
    kernel = torch.exp(-0.5 * torch.cdist(x, x).square()) + 1e-9 * torch.eye(points, dtype=torch.float64)
    f = torch.linalg.cholesky(kernel) @ torch.randn(count, points, 1, generator=generator, dtype=torch.float64)
    loud = torch.arange(count) % 2 == 1
    noise = torch.where(loud, NOISES[1], NOISES[0])[:, None, None]
    return bm.Data.full(x, f + noise * torch.randn(f.shape, generator=generator, dtype=torch.float64)), loud


def main() -> None:
    """Print coverage and NLL by shots and kind of task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tasks", type=int, default=400, help="that are predicted")
    arguments = parser.parse_args()
    train, _ = tasks(40, 20, arguments.seed)
    learners: dict[str, bm.Learner] = {
        "one noise": process(),
        "own noise": TaskQuadrature(process(), NoiseScale(), nodes=15),
    }
    for name, learner in learners.items():
        start = time.process_time()
        bm.fit_evidence(learner, bm.TaskDataset(train), tolerance=1e-6)
        print(f"{name}: fitted in {time.process_time() - start:.1f} s", end="")
        print(f", δ = {abs(learner.vary[0].deviation.item()):.2f}" if isinstance(learner, TaskQuadrature) else "")
    data, loud = tasks(arguments.tasks, max(SHOTS) + QUERY, arguments.seed + 1)
    query = data.points(slice(max(SHOTS), None))
    print(f"\n{'shots':>5}  {'learner':10} {'quiet':>6} {'(se)':>6} {'loud':>6} {'(se)':>6} {'NLL':>8}")
    worst = 0.0
    for shots in SHOTS:
        support = data.points(slice(shots))
        for name in (*learners, "told"):
            coverage, nll = torch.zeros(len(loud)), torch.zeros(len(loud))
            for kind, noise in zip((~loud, loud), NOISES, strict=True):
                learner = learners.get(name, process(noise**2))
                prediction = learner.adapt(support.select(kind)).predict(query.x[kind])
                coverage[kind] = metrics.coverage(prediction, query.y[kind], level=LEVEL).float()
                nll[kind] = metrics.marginal_nll(prediction, query.y[kind]).float()
            cells = []
            for kind in (~loud, loud):
                share, error = coverage[kind].mean().item(), coverage[kind].std().item() / math.sqrt(int(kind.sum()))
                cells.append(f"{share:6.3f} {error:6.3f}")
                if name == "own noise" and shots >= 20:
                    worst = max(worst, abs(share - LEVEL))
            print(f"{shots:5}  {name:10} {' '.join(cells)} {nll.mean().item():8.3f}", flush=True)
    verdict(
        f"with a noise of each task's own, coverage from 20 points on is at most {worst:.3f} off {LEVEL:g} for quiet "
        f"and for loud tasks ({'at most' if worst <= MOST else 'MORE than'} {MOST:g})",
        arguments.seed,
    )


if __name__ == "__main__":
    main()
