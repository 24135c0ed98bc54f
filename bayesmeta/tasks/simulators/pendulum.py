"""A swinging pendulum of unknown length: one-step prediction of its state, as in ALPaCA."""

import math

import torch

from bayesmeta.data import Data
from bayesmeta.tasks.simulators.simulator import Simulator, nondecreasing, nonnegative, normal, uniform

GRAVITY, TIME_STEP, MAX_SPEED = 10.0, 0.05, 8.0


class Pendulum(Simulator):
    """Trajectories of Gym's Pendulum-v0 without torque; Harrison et al. 2018. x = (θ, θ̇), y = the next (θ, θ̇).

        θ̇' = θ̇ + (-3g / (2l) sin(θ + π) + 3u / (m l²)) Δt,   θ' = θ + θ̇' Δt,   then |θ̇'| is cut at 8

    with u = 0, so that the mass m does not matter, g = 10 and Δt = .05 s; θ = 0 is upright and is not wrapped. Points
    are in the order of time from θ ~ U(-π, π), θ̇ ~ U(-1, 1); use a `PrefixSplit` to forecast. ALPaCA's code appends
    the torque, always 0, to x; here it is left out. There is no oracle: without noise there is no density.

    Args:
        length: (low, high) of l, metres.
        noise: standard deviation added to y, not to the dynamics.

    Raises:
        DataError: an interval that decreases, or negative noise.

    Example:
        >>> import torch
        >>> import bayesmeta as bm
        >>> tasks = bm.tasks.Pendulum().dataset(2, 50)
        >>> tasks.data.x.shape, tasks.data.y.shape
        (torch.Size([2, 50, 2]), torch.Size([2, 50, 2]))
        >>> torch.equal(tasks.data.x[:, 1:], tasks.data.y[:, :-1])
        True
    """

    def __init__(self, length: tuple[float, float] = (0.5, 1.5), noise: float = 0.0) -> None:
        self.length = nondecreasing(length, "the length")
        self.noise = nonnegative(noise, "the noise deviation")

    def simulate(self, num_tasks: int, num_points: int, generator: torch.Generator) -> Data:
        """Fresh tasks, each a trajectory of `num_points` steps. The generator is the only source of randomness."""
        length, angle, speed = (
            uniform(bounds, (num_tasks,), generator) for bounds in (self.length, (-math.pi, math.pi), (-1.0, 1.0))
        )
        states = [torch.stack([angle, speed], -1)]
        for _ in range(num_points):
            speed = speed - 1.5 * GRAVITY / length * torch.sin(angle + math.pi) * TIME_STEP
            angle = angle + speed * TIME_STEP
            speed = speed.clamp(-MAX_SPEED, MAX_SPEED)
            states.append(torch.stack([angle, speed], -1))
        path = torch.stack(states, 1)
        y = path[:, 1:] + normal((0.0, self.noise), (num_tasks, num_points, 2), generator)
        return Data.full(path[:, :-1], y)
