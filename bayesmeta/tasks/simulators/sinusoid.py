"""y = A sin(ω x ∓ b) + ε: the sinusoids of MAML, Meta-SGD and ALPaCA."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.errors import DataError
from bayesmeta.tasks.oracles.mesh import Uniform
from bayesmeta.tasks.oracles.sinusoid import SinusoidOracle
from bayesmeta.tasks.simulators.simulator import FunctionSimulator, nondecreasing, nonnegative, uniform


class Sinusoid(FunctionSimulator):
    """Sine waves whose amplitude A, phase b and frequency ω are uniform and independent.

    phi = (A, b, ω);  y = A sin(ω x - b) + N(0, noise²), or + b when `phase_sign` is 1.

    Without noise there is no density, and no oracle.

    Args:
        amplitude: (low, high) of A, units of y.
        phase: (low, high) of b, radians.
        frequency: (low, high) of ω; equal for a fixed frequency.
        x: (low, high) of the inputs.
        noise: standard deviation of ε, units of y.
        phase_sign: -1 for sin(ω x - b), 1 for sin(ω x + b).

    Raises:
        DataError: an interval that decreases, negative noise, a sign that is not 1 or -1.

    Example:
        >>> import bayesmeta as bm
        >>> sinusoids = bm.tasks.Sinusoid.maml(noise=0.1)
        >>> task = sinusoids.dataset(1, 10).task(0)
        >>> sinusoids.oracle.adapt(task).predict([0.0, 1.0, 2.0]).mean.shape
        torch.Size([1, 3, 1])
    """

    def __init__(
        self,
        amplitude: tuple[float, float] = (0.1, 5.0),
        phase: tuple[float, float] = (0.0, math.pi),
        frequency: tuple[float, float] = (1.0, 1.0),
        x: tuple[float, float] = (-5.0, 5.0),
        noise: float = 0.1,
        phase_sign: int = -1,
    ) -> None:
        super().__init__(x)
        self.amplitude = nondecreasing(amplitude, "the amplitude")
        self.phase = nondecreasing(phase, "the phase")
        self.frequency = nondecreasing(frequency, "the frequency")
        self.noise = nonnegative(noise, "the noise deviation")
        if phase_sign not in (-1, 1):
            raise DataError(f"expected a phase sign of -1 or 1, got {phase_sign}")
        self.phase_sign = phase_sign
        if noise > 0.0:
            low, high = sorted(-phase_sign * end for end in self.phase)  # the oracle's angle is ω x - shift
            self.oracle = SinusoidOracle(
                self.amplitude, Uniform(low, high), Uniform(*self.frequency), self.noise**2, reach=max(map(abs, x))
            )

    @classmethod
    def maml(cls, noise: float = 0.1) -> "Sinusoid":
        """Finn et al. 2017, sec. 5.1: A ~ U(.1, 5), b ~ U(0, π), x ~ U(-5, 5), sin(x - b) as in the authors' code.

        The paper has no noise; a density needs some, so the deviation is .1 unless given.
        """
        return cls(noise=noise)

    @classmethod
    def meta_sgd(cls, noise: float = 0.1) -> "Sinusoid":
        """Li et al. 2017, sec. 4.1: the frequency varies too, ω ~ U(.8, 1.2), and the phase is added.

        The paper has no noise; a density needs some, so the deviation is .1 unless given.
        """
        return cls(frequency=(0.8, 1.2), noise=noise, phase_sign=1)

    @classmethod
    def alpaca(cls) -> "Sinusoid":
        """Harrison et al. 2018, authors' code: ω ~ U(.999, 1), b ~ U(0, 3.14) added, noise *variance* .02."""
        return cls(phase=(0.0, 3.14), frequency=(0.999, 1.0), noise=math.sqrt(0.02), phase_sign=1)

    def observe(self, x: Float[Tensor, "B N 1"], generator: torch.Generator) -> Float[Tensor, "B N 1"]:
        """A fresh sinusoid for every task, observed with noise at these points."""
        shape = (len(x), 1, 1)
        amplitude, phase, frequency = (
            uniform(bounds, shape, generator) for bounds in (self.amplitude, self.phase, self.frequency)
        )
        f = amplitude * torch.sin(frequency * x + self.phase_sign * phase)
        return f + self.noise * torch.randn(x.shape, dtype=torch.float32, generator=generator)
