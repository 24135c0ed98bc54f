"""Sawtooth waves of random frequency, direction and offset, from the neural process benchmark."""

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.tasks.simulators.simulator import FunctionSimulator, nondecreasing, nonnegative, uniform


class Sawtooth(FunctionSimulator):
    """Sawtooth waves: y = (ω (d x - o)) mod 1, d = ±1, o ~ U(0, 1 / ω); Bruinsma et al. 2023.

    They are those of the neural process benchmark, github wesselb/neuralprocesses.

    There is no noise unless asked for, so no density, and no oracle.

    Args:
        frequency: (low, high) of ω.
        x: (low, high) of the inputs.
        noise: standard deviation, units of y.

    Raises:
        DataError: an interval that decreases, or negative noise.

    Example:
        >>> import bayesmeta as bm
        >>> task = bm.tasks.Sawtooth().dataset(1, 100).task(0)
        >>> bool(((0.0 <= task.y) & (task.y < 1.0)).all())
        True
    """

    def __init__(
        self,
        frequency: tuple[float, float] = (2.0, 4.0),
        x: tuple[float, float] = (-2.0, 2.0),
        noise: float = 0.0,
    ) -> None:
        super().__init__(x)
        self.frequency = nondecreasing(frequency, "the frequency")
        self.noise = nonnegative(noise, "the noise deviation")

    def observe(self, x: Float[Tensor, "B N 1"], generator: torch.Generator) -> Float[Tensor, "B N 1"]:
        """A fresh sawtooth for every task."""
        shape = (len(x), 1, 1)
        frequency = uniform(self.frequency, shape, generator)
        direction = torch.randint(2, shape, generator=generator) * 2.0 - 1.0
        phase = torch.rand(shape, dtype=torch.float32, generator=generator)  # ω o ~ U(0, 1)
        f = (frequency * direction * x - phase) % 1.0
        return f + self.noise * torch.randn(x.shape, dtype=torch.float32, generator=generator)
