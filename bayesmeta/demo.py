"""The demonstration: sinusoids of random amplitude and phase, ALPaCA, and the Bayes-optimal predictor beside it."""

import time
from pathlib import Path

import torch

from bayesmeta import plotting
from bayesmeta.evaluation.evaluate import evaluate
from bayesmeta.evaluation.scores import Evaluation
from bayesmeta.learners.closed_form.alpaca import ALPaCA
from bayesmeta.learners.closed_form.mixture_alpaca import MixtureALPaCA
from bayesmeta.networks.mlp import MLP
from bayesmeta.tasks.simulators.sinusoid import Sinusoid
from bayesmeta.tasks.source import RandomSplit
from bayesmeta.training.fit import fit
from bayesmeta.training.objectives import Evidence

SHOTS = (0, 1, 2, 3, 5, 10, 20)


def run(folder: Path, steps: int = 20_000, num_tasks: int = 1_000) -> tuple[Evaluation, Evaluation]:
    """Meta-train, print the tables by shots, and save a figure.

    Args:
        folder: where the figure goes.
        steps: meta-training steps of ALPaCA; its mixture then takes a fifth of them.
        num_tasks: test tasks.

    Returns:
        The evaluations of ALPaCA and of its mixture.
    """
    torch.set_num_threads(1)  # small matrices: threads only get in each other's way
    torch.manual_seed(0)
    tasks = Sinusoid.maml(noise=0.1)
    print("Tasks: y = A sin(x - b) + noise, A ~ U(0.1, 5), b ~ U(0, pi), x ~ U(-5, 5), noise deviation 0.1")
    split, start = RandomSplit((5, 5), 5), time.perf_counter()

    print(f"Meta-training ALPaCA: {steps} steps of 50 tasks with 10 points each ...")
    alpaca = ALPaCA(MLP(1, [64, 64, 32]))
    fit(alpaca, tasks, steps, batch_size=50, lr=3e-3, split=split, objective=Evidence())
    print(f"... and its prior split into a mixture of 6: {steps // 5} more ...")
    mixture = MixtureALPaCA.split_prior(alpaca.features, alpaca.prior, 6, torch.Generator().manual_seed(0))
    fit(mixture, tasks, steps // 5, batch_size=40, lr=2e-3, split=split, objective=Evidence(), seed=1)
    print(f"... took {time.perf_counter() - start:.0f} s. Scoring {num_tasks} new tasks, 20 query points each ...")

    test = tasks.dataset(num_tasks, max(SHOTS) + 20, seed=1)
    evaluations = evaluate(alpaca, test, SHOTS, query=20), evaluate(mixture, test, SHOTS, query=20)
    for evaluation in evaluations:
        print(f"\n{evaluation}")
    print("\nregret: nats per point above the exact Bayes predictor, on the same points")
    print("floor:  the regret of the best possible Gaussian (the Bayes predictor's own mean and variance)")
    print("ALPaCA's joint Gaussian has a variance that does not depend on the outcomes seen; at 1 point that costs it")
    print("more than the floor, however long it trains. A mixture of priors is not bound by either.")
    folder.mkdir(parents=True, exist_ok=True)
    figure = plotting.predictive_bands(mixture, test.select([0]).data, shots=(0, 1, 2, 5, 10), oracle=tasks.oracle)
    path = folder / "sinusoid.png"
    figure.savefig(path, dpi=150)
    print(f"Figure: {path}")
    return evaluations
