"""Neural processes by name for benchmarks of functions of one input: how each is made, and how it is trained."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

import bayesmeta as bm
from bayesmeta.training import Objective


class Waves(bm.Network):
    """x, and the sine and cosine of 2π ν x at learned frequencies ν, which start evenly spaced in their logarithm.

    Args:
        num_waves: frequencies.
        bounds: the first lowest and highest of them, cycles a unit of x.
    """

    def __init__(self, num_waves: int = 12, bounds: tuple[float, float] = (0.1, 8.0)) -> None:
        super().__init__()
        low, high = map(math.log, bounds)
        self.log_frequency = nn.Parameter(torch.linspace(low, high, num_waves))
        self.x_shape, self.num_outputs = (1,), 1 + 2 * num_waves

    def forward(self, x: Float[Tensor, "B N 1"]) -> Float[Tensor, "B N F"]:
        turn = 2.0 * math.pi * self.log_frequency.exp() * x
        return torch.cat([x, turn.sin(), turn.cos()], -1)


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
    "ConvCNP": Recipe(lambda: bm.ConvCNP(), seconds=60.0, others=_LONGER, autoregressive=True),
    "transformer-relative": Recipe(
        lambda: bm.TransformerNeuralProcess(bm.Identity(1), relative=bm.learners.RelativeBias()), autoregressive=True
    ),
    "transformer": Recipe(
        lambda: bm.TransformerNeuralProcess(Waves(), relative=None), seconds=600.0, autoregressive=True
    ),
    "CNP": Recipe(lambda: bm.ConditionalNeuralProcess(bm.Identity(1))),
    "latent": Recipe(lambda: bm.LatentNeuralProcess(bm.Identity(1))),
}
"""In the order in which they are compared."""

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

RECIPES = PROCESSES | OTHERS
