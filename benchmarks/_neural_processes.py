"""Neural processes by name for benchmarks of functions of one input: how each is made, and how it is trained."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import bayesmeta as bm
from bayesmeta.training import Objective


@dataclass(frozen=True)
class Recipe:
    """How a learner is made and trained.

    Attributes:
        make: a fresh learner of functions of one input, with one outcome.
        seconds: the budget, processor seconds of one thread.
        others: budgets on families that want another one, by their names.
        lr: the first learning rate.
        objective: what is trained on; the learner's own by default.
        autoregressive: whether joint densities are taken point by point as well.
    """

    make: Callable[[], bm.Learner]
    seconds: float = 300.0
    others: Mapping[str, float] = field(default_factory=dict)
    lr: float = 1e-3
    objective: Objective | None = None
    autoregressive: bool = False


_LONGER = {"matern": 120.0, "weakly-periodic": 120.0, "sawtooth": 600.0, "mixture": 600.0}

PROCESSES: dict[str, Recipe] = {
    "ConvCNP": Recipe(lambda: bm.ConvCNP(), seconds=60.0, others=_LONGER, lr=3e-3, autoregressive=True),
    "ConvCNP-mixture": Recipe(  # outcomes near a jump have two likely values
        lambda: bm.ConvCNP(head=bm.heads.MixtureHead(8), layers=8, kernel_size=11),
        others=_LONGER,
        lr=3e-3,
        autoregressive=True,
    ),
    "transformer-relative": Recipe(
        lambda: bm.TransformerNeuralProcess(bm.Identity(1), relative=bm.learners.RelativeBias()), autoregressive=True
    ),
    "transformer": Recipe(
        lambda: bm.TransformerNeuralProcess(bm.networks.FourierFeatures(1)), seconds=150.0, autoregressive=True
    ),
    "CNP": Recipe(lambda: bm.ConditionalNeuralProcess(bm.Identity(1)), lr=2e-3),
    "latent": Recipe(lambda: bm.LatentNeuralProcess(bm.Identity(1), num_draws=8), lr=2e-3),
    "latent-attentive": Recipe(
        lambda: bm.LatentNeuralProcess(bm.Identity(1), path=bm.learners.CrossAttention(), num_draws=8), seconds=150.0
    ),
}
"""In the order in which they are compared."""

VARIANTS: dict[str, Recipe] = {
    "ConvCNP-fine": Recipe(  # half a wave of .125 is 2.5 cells
        lambda: bm.ConvCNP(points_per_unit=20.0, kernel_size=11), seconds=120.0, lr=4e-3, autoregressive=True
    ),
    "CNP-attentive": Recipe(
        lambda: bm.ConditionalNeuralProcess(
            bm.Identity(1), aggregation=bm.learners.CrossAttention(64, 4), width=96, layers=4
        )
    ),
}
"""What one kind of function asks for, or another library has."""

OTHERS: dict[str, Recipe] = {
    "ALPaCA": Recipe(lambda: bm.ALPaCA(bm.MLP(1, [64, 64, 32])), lr=3e-3, objective=bm.training.Evidence()),
    "DKT": Recipe(
        lambda: bm.DeepKernelTransfer(bm.Identity(1), kernel=bm.kernels.RBFKernel()),
        lr=1e-2,
        objective=bm.training.Evidence(),
    ),
    "MAML": Recipe(
        lambda: bm.MAML(
            bm.MLP(1, [40, 40]),
            steps=5,
            lr=0.05,
            likelihood=bm.likelihoods.Gaussian(bm.noise.DiagonalNoise(1, 0.02)),  # near what is left to it in the end
        ),
        lr=3e-3,
        objective=bm.training.MarginalPredictive(),
    ),
}
"""Learners of other families, to compare with."""

RECIPES = PROCESSES | VARIANTS | OTHERS
