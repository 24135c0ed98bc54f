"""The demonstration: sinusoids of random amplitude and phase, ALPaCA, and the Bayes-optimal predictor beside it."""

import time
from pathlib import Path

import torch

from bayesmeta import plotting
from bayesmeta.evaluation.evaluate import Evaluation, evaluate
from bayesmeta.learners.closed_form.alpaca import ALPaCA
from bayesmeta.networks.mlp import MLP
from bayesmeta.tasks.sinusoid import Sinusoid
from bayesmeta.tasks.source import RandomSplit
from bayesmeta.training.fit import fit
from bayesmeta.training.objectives import Evidence

SHOTS = (0, 1, 2, 3, 5, 10, 20)


def run(folder: Path, steps: int = 20_000, num_tasks: int = 1_000) -> Evaluation:
    """Meta-train, print the table by shots, and save a figure.

    Args:
        folder: where the figure goes.
        steps: meta-training steps.
        num_tasks: test tasks.
    """
    torch.set_num_threads(1)  # small matrices: threads only get in each other's way
    torch.manual_seed(0)
    tasks = Sinusoid.maml(noise=0.1)
    learner = ALPaCA(MLP(1, [64, 64, 32]))
    print("Tasks: y = A sin(x - b) + noise, A ~ U(0.1, 5), b ~ U(0, pi), x ~ U(-5, 5), noise deviation 0.1")
    print(f"Meta-training ALPaCA for {steps} steps of 50 tasks with 10 points each ...")
    start = time.perf_counter()
    fit(learner, tasks, steps, batch_size=50, lr=3e-3, split=RandomSplit((5, 5), 5), objective=Evidence())
    print(f"... took {time.perf_counter() - start:.0f} s. Scoring {num_tasks} new tasks, 20 query points each ...")
    test = tasks.dataset(num_tasks, max(SHOTS) + 20, seed=1)
    evaluation = evaluate(learner, test, SHOTS, query=20)
    print(f"\n{evaluation}\n")
    print("regret: nats per point above the exact Bayes predictor, on the same points")
    print("floor:  the regret of the best possible Gaussian (the Bayes predictor's own mean and variance)")
    folder.mkdir(parents=True, exist_ok=True)
    figure = plotting.predictive_bands(learner, test.select([0]).data, shots=(0, 1, 2, 5, 10), oracle=tasks.oracle)
    path = folder / "sinusoid.png"
    figure.savefig(path, dpi=150)
    print(f"Figure: {path}")
    return evaluation
