"""f(x) = -1 or 1, changing sign at a few random switch points: ALPaCA's step functions."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.errors import DataError
from bayesmeta.tasks.oracles.step import StepOracle
from bayesmeta.tasks.simulators.simulator import FunctionSimulator, increasing, nonnegative, uniform

MOST_SWITCHES = 1_000  # the oracle counts their square


class Step(FunctionSimulator):
    """Step functions of Harrison et al. 2018: y = 2 XOR_j(x > s_j) - 1 + N(0, noise²), s_j ~ U(-2.5, 2.5).

    Args:
        switches: (low, high) of the switch points s_j.
        num_switches: how many.
        x: (low, high) of the inputs.
        noise: standard deviation of the noise, units of y; the authors' variance is .05. Without noise, no oracle.

    Raises:
        DataError: an interval that does not increase, fewer than one switch, or negative noise.

    Example:
        >>> import bayesmeta as bm
        >>> steps = bm.tasks.Step(num_switches=1, noise=0.1)
        >>> task = steps.dataset(1, 30).task(0)
        >>> prediction = steps.oracle.adapt(task).predict([-5.0, 5.0])  # far from the switch
        >>> [round(value, 3) for value in prediction.mean.flatten().tolist()]
        [-1.0, 1.0]
    """

    def __init__(
        self,
        switches: tuple[float, float] = (-2.5, 2.5),
        num_switches: int = 3,
        x: tuple[float, float] = (-5.0, 5.0),
        noise: float = math.sqrt(0.05),
    ) -> None:
        super().__init__(x)
        if not 1 <= num_switches <= MOST_SWITCHES:
            raise DataError(f"expected from 1 to {MOST_SWITCHES} switch points, got {num_switches}")
        self.switches, self.num_switches = increasing(switches, "the interval of switch points"), num_switches
        self.noise = nonnegative(noise, "the noise deviation")
        if noise > 0.0:
            self.oracle = StepOracle(self.switches, num_switches, self.noise**2)

    def observe(self, x: Float[Tensor, "B N 1"], generator: torch.Generator) -> Float[Tensor, "B N 1"]:
        """A fresh step function for every task, observed with noise at these points."""
        switches = uniform(self.switches, (len(x), 1, self.num_switches), generator)
        f = 2.0 * ((x > switches).sum(-1, keepdim=True) % 2) - 1.0
        return f + self.noise * torch.randn(x.shape, dtype=torch.float32, generator=generator)
