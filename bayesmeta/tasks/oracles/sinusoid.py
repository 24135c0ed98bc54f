"""The exact posterior of sinusoids with unknown amplitude, shift, frequency and, where there is one, line.

    y = A sin θ(x) + c + s x + ε,   θ(x) = ω x - a, or ω (x - a);   A uniform, (c, s) Gaussian, ε ~ N(0, σ²)

Given (a, ω) the model is linear in A and (c, s), and these are integrated analytically; (a, ω) by an adaptive mesh. The
joint density of the query is a ratio of two evidences, each on a mesh of its own.
"""

import math
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from bayesmeta.data import Data
from bayesmeta.errors import DataError
from bayesmeta.linalg import cholesky, logdet, solve_lower
from bayesmeta.outcomes import Numbers
from bayesmeta.predictives import LOG_2PI
from bayesmeta.tasks.oracles.amplitude import log_integral
from bayesmeta.tasks.oracles.mesh import Normal, Uniform, grid, refine
from bayesmeta.tasks.oracles.oracle import Oracle, OraclePosterior
from bayesmeta.tasks.oracles.sinusoid_predictive import Leaves, SinusoidPredictive

CHUNK = 100_000  # numbers in a temporary tensor: it should stay in the processor's cache


class SinusoidOracle(Oracle):
    """Bayes-optimal prediction of sinusoids.

    Args:
        amplitude: (low, high) of A, units of y.
        shift: prior of a.
        frequency: prior of ω.
        noise_variance: σ², squared units of y, positive.
        line: priors of (c, s), offset and slope; None when there is no line.
        shift_in_x: True for ω (x - a), False for ω x - a.
        reach: largest absolute input; it decides which of a and ω is resolved first.
        resolution: (cells of the mesh for the prior, how many of the most probable are halved in a round, rounds). By
            default one at which log densities are off by about 1e-4 nats where only the shift is unknown, and by about
            3e-3 where the frequency is too.

    Raises:
        DataError: noise that is not positive.
    """

    x_shape = (1,)
    outcomes = Numbers(1)

    def __init__(
        self,
        amplitude: tuple[float, float],
        shift: Uniform | Normal,
        frequency: Uniform,
        noise_variance: float,
        *,
        line: tuple[Normal, Normal] | None = None,
        shift_in_x: bool = False,
        reach: float = 5.0,
        resolution: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__()
        if not noise_variance > 0.0:
            raise DataError(f"expected a positive noise variance, got {noise_variance}")
        self.amplitude = (amplitude[0], max(amplitude[1], amplitude[0] + 1e-9))  # a fixed one gets a density too
        self.shift, self.frequency, self.noise_variance = shift, frequency, noise_variance
        self.line, self.shift_in_x, self.reach = line or (), shift_in_x, reach
        if resolution is None:
            turns = reach * (frequency.high - frequency.low) > 0.1  # a frequency that is nearly fixed needs no cells
            resolution = (2048, 192, 10) if turns else (256, 32, 8)
        leaves, self.splits, self.rounds = resolution
        self.centers, self.halves = grid(2, leaves, self.change)

    def angle(self, u: Float[Tensor, "B L 2"], x: Float[Tensor, "B N"]) -> Float[Tensor, "B L N"]:
        """θ(x) of every leaf at every point; u are prior quantiles of (a, ω)."""
        shift, frequency = self.shift.quantile(u[..., :1]), self.frequency.quantile(u[..., 1:])
        return torch.baddbmm(-shift * frequency if self.shift_in_x else -shift, frequency, x[:, None])

    def features(self, x: Float[Tensor, "B N"]) -> Float[Tensor, "B N Q"]:
        """(1, x) times the prior deviations of (c, s): the line is its prior mean + features · N(0, I)."""
        columns = [part.deviation * x**power for power, part in enumerate(self.line)]
        return torch.stack(columns, -1) if columns else x[..., None][..., :0]

    def line_mean(self, x: Float[Tensor, "B N"]) -> Float[Tensor, "B N"]:
        """The prior mean of the line."""
        return sum((part.mean * x**power for power, part in enumerate(self.line)), torch.zeros_like(x))

    def change(self, centers: Float[Tensor, "*b L 2"], halves: Float[Tensor, "*b L 2"]) -> Float[Tensor, "*b L 2"]:
        """How much θ at a typical input changes across a cell, along a and along ω."""
        shift, frequency = (
            prior.quantile((centers + halves)[..., i]) - prior.quantile((centers - halves)[..., i])
            for i, prior in enumerate((self.shift, self.frequency))
        )
        scale = self.frequency.quantile(centers[..., 1]) if self.shift_in_x else 1.0
        return torch.stack([scale * shift, 0.58 * self.reach * frequency], -1)  # .58: deviation of U(-1, 1)

    def condition(self, data: Data) -> "SinusoidPosterior":
        """The leaves that hold the posterior, and what their likelihood is as a function of A."""
        parts = [_Points.of(self, data.select(part)) for part in self._chunks(data)]
        meshes = [part.mesh() for part in parts]
        kept = max(int(_needed(mass).max()) for _, mass in meshes)
        each = [part.leaves(*mesh, kept) for part, mesh in zip(parts, meshes, strict=True)]
        leaves = Leaves(*(torch.cat(values) for values in zip(*each, strict=True)))
        root, line = (torch.cat([getattr(part, name) for part in parts]) for name in ("root", "line"))
        return SinusoidPosterior(spec=data.spec, learner=self, support=data, leaves=leaves, root=root, line=line)

    def evidence(self, data: Data) -> Float[Tensor, "B"]:
        """log p(y | x), jointly over the real points of each task, in nats."""
        parts = [_Points.of(self, data.select(part)) for part in self._chunks(data)]
        return torch.cat([part.constant + part.mesh()[1].logsumexp(-1) for part in parts])

    def _chunks(self, data: Data) -> list[slice]:
        size = max(1, CHUNK // (len(self.centers) * max(data.num_points, 8)))
        return [slice(start, start + size) for start in range(0, data.num_tasks, size)]


def _needed(log_mass: Tensor, lost: float = 1e-9) -> Tensor:
    """The number of leaves `B` that hold all but `lost` of the mass."""
    mass = log_mass.softmax(-1).sort(-1, descending=True).values
    return (mass.cumsum(-1) < 1.0 - lost).sum(-1).clamp(max=mass.shape[1] - 1) + 1


@dataclass(frozen=True, eq=False)
class _Points:
    """The data of some tasks in units of σ, so that the noise is N(0, I), with the line integrated out.

    With H = features / σ and I + HᵀH = C Cᵀ: (I + HHᵀ)⁻¹ = I - V Vᵀ, V = H C⁻ᵀ.
    """

    oracle: SinusoidOracle
    x: Tensor  # B N
    scale: Tensor  # 1 / σ at real points, else 0, B N
    columns: Tensor  # r and V, B N (1 + Q)
    root: Tensor  # C, B Q Q
    line: Tensor  # Vᵀ r, B Q 1
    constant: Tensor  # log N(r; 0, I + HHᵀ) - N log σ, B

    @classmethod
    def of(cls, oracle: SinusoidOracle, data: Data) -> "_Points":
        x = torch.where(data.mask, data.x[..., 0], 0.0)
        scale = data.mask.to(x.dtype) / oracle.noise_variance**0.5
        residual = torch.where(data.mask, data.y[..., 0] - oracle.line_mean(x), 0.0)[..., None] * scale[..., None]
        design = oracle.features(x) * scale[..., None]
        root = cholesky(torch.eye(design.shape[-1], dtype=x.dtype) + design.mT @ design, "line precision")
        columns = solve_lower(root, design.mT).mT
        line = columns.mT @ residual
        squared = residual.square().sum((-1, -2)) - line.square().sum((-1, -2))
        count = data.counts.double()  # an integer tensor times a float would be float32
        constant = -0.5 * (squared + logdet(root) + count * (LOG_2PI + math.log(oracle.noise_variance)))
        return cls(oracle, x, scale, torch.cat([residual, columns], -1), root, line, constant)

    def likelihood(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log p(y | A, leaf) = constant + A linear - ½ A² precision, both `B L`; and Vᵀ sin θ, `B L Q`."""
        wave = torch.sin(self.oracle.angle(u, self.x)) * self.scale[:, None]
        projected = wave @ self.columns
        projection = projected[..., 1:]
        precision = wave.square().sum(-1) - projection.square().sum(-1)
        return projected[..., 0] - (projection @ self.line)[..., 0], precision, projection

    def mesh(self) -> tuple[Tensor, Tensor]:
        """Leaves `B L 2`, and the logarithm of their mass, up to `constant`, `B L`."""
        oracle = self.oracle

        def log_density(u: Tensor) -> Tensor:
            linear, precision, _ = self.likelihood(u)
            return log_integral(linear, precision, oracle.amplitude)

        start = (oracle.centers, oracle.halves)
        return refine(log_density, start, oracle.change, len(self.x), oracle.rounds, oracle.splits)

    def leaves(self, centers: Tensor, mass: Tensor, kept: int) -> Leaves:
        """The most probable leaves, in descending order."""
        top = mass.topk(kept, dim=1)
        u = centers.gather(1, top.indices[..., None].expand(-1, -1, 2))
        return Leaves(_needed(mass), u, top.values.log_softmax(-1), *self.likelihood(u))


@dataclass(frozen=True, eq=False, kw_only=True)
class SinusoidPosterior(OraclePosterior):
    """p(A, a, ω, c, s | D) as mesh leaves, with a truncated Gaussian A and a Gaussian line in each of them.

    Attributes:
        leaves: the mesh.
        root: C with C Cᵀ the posterior precision of the line in units of its prior deviations, `B Q Q`.
        line: C⁻¹ Hᵀ r, `B Q 1`.
    """

    learner: SinusoidOracle
    leaves: Leaves
    root: Float[Tensor, "B Q Q"]
    line: Float[Tensor, "B Q 1"]

    @override
    def at(self, x: Float[Tensor, "B M 1"]) -> SinusoidPredictive:
        points = x[..., 0].double()
        rows = solve_lower(self.root, self.learner.features(points).mT).mT
        return SinusoidPredictive(
            leaves=self.leaves,
            rows=rows,
            base=self.learner.line_mean(points) + (rows @ self.line)[..., 0],
            component_variance=self.learner.noise_variance + rows.square().sum(-1),
            amplitude=self.learner.amplitude,
            noise_variance=self.learner.noise_variance,
            wave=partial(_wave, self.learner, points),
            joint=partial(self.log_conditional, x),
        )


def _wave(oracle: SinusoidOracle, points: Tensor, u: Tensor, tasks: slice) -> Tensor:
    return torch.sin(oracle.angle(u, points[tasks]))
