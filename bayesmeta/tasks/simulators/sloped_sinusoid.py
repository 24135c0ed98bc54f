"""y = s x + A sin(p (x - a)) + c + ε: the sinusoids on a slope of PACOH and MetaL-Benchmark."""

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.tasks.oracles.mesh import Normal, Uniform
from bayesmeta.tasks.oracles.sinusoid import SinusoidOracle
from bayesmeta.tasks.simulators.simulator import FunctionSimulator, nondecreasing, nonnegative, normal, uniform


class SlopedSinusoid(FunctionSimulator):
    """Sine waves on a random line: phi = (slope s, amplitude A, period p, x_shift a, y_shift c), all independent.

    What PACOH's code calls "period" multiplies x: it is an angular frequency.

    Args:
        slope: (mean, deviation) of s.
        amplitude: (low, high) of A.
        period: (low, high) of p; equal for a fixed one.
        x_shift: (mean, deviation) of a.
        y_shift: (mean, deviation) of c.
        noise: standard deviation of ε, units of y. Without noise, no oracle.
        x: (low, high) of the inputs.

    Raises:
        DataError: an interval that decreases, or a negative deviation.

    Example:
        >>> import bayesmeta as bm
        >>> simulator = bm.tasks.SlopedSinusoid.metal_easy()
        >>> simulator.dataset(20, 5)
        TaskDataset(20 tasks, 5 to 5 points each)
        >>> simulator.oracle.adapt(simulator.dataset(1, 10).data).predict([0.0, 1.0]).mean.shape
        torch.Size([1, 2, 1])
    """

    def __init__(
        self,
        slope: tuple[float, float],
        amplitude: tuple[float, float],
        period: tuple[float, float],
        x_shift: tuple[float, float],
        y_shift: tuple[float, float],
        noise: float,
        x: tuple[float, float] = (-5.0, 5.0),
    ) -> None:
        super().__init__(x)
        self.slope, self.x_shift, self.y_shift = slope, x_shift, y_shift
        for name, (_, deviation) in (("slope", slope), ("x_shift", x_shift), ("y_shift", y_shift)):
            nonnegative(deviation, f"the deviation of {name}")
        self.amplitude = nondecreasing(amplitude, "the amplitude")
        self.period = nondecreasing(period, "the period")
        self.noise = nonnegative(noise, "the noise deviation")
        if noise > 0.0:
            self.oracle = SinusoidOracle(
                self.amplitude,
                Normal(*x_shift),
                Uniform(*self.period),
                self.noise**2,
                line=(Normal(*y_shift), Normal(*slope)),
                shift_in_x=True,
                reach=max(map(abs, x)),
            )

    @classmethod
    def metal_easy(cls) -> "SlopedSinusoid":
        """Sinusoid-Easy of MetaL-Benchmark, which is the sinusoid of PACOH (Rothfuss et al. 2021)."""
        return cls((0.5, 0.2), (0.7, 1.3), (1.5, 1.5), (0.0, 0.1), (5.0, 0.1), noise=0.1)

    @classmethod
    def metal_hard(cls) -> "SlopedSinusoid":
        """Sinusoid-Hard of MetaL-Benchmark."""
        return cls((0.5, 0.6), (0.7, 1.4), (1.0, 2.0), (0.0, 2.0), (5.0, 0.8), noise=0.2)

    def observe(self, x: Float[Tensor, "B N 1"], generator: torch.Generator) -> Float[Tensor, "B N 1"]:
        """A fresh function for every task, observed with noise at these points."""
        shape = (len(x), 1, 1)
        slope, x_shift, y_shift = (normal(m, shape, generator) for m in (self.slope, self.x_shift, self.y_shift))
        amplitude, period = (uniform(bounds, shape, generator) for bounds in (self.amplitude, self.period))
        f = slope * x + amplitude * torch.sin(period * (x - x_shift)) + y_shift
        return f + self.noise * torch.randn(x.shape, dtype=torch.float32, generator=generator)
