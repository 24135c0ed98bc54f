"""W | D, theta of a Bayesian linear head: exact, in float64, a chunk of the tasks at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from typing_extensions import override

from bayesmeta.arguments import generator_of, whole
from bayesmeta.data import Data
from bayesmeta.distributions import common_normals
from bayesmeta.errors import retelling
from bayesmeta.inference import linear_gaussian
from bayesmeta.inference.linear_gaussian import LinearGaussian
from bayesmeta.inverse_gamma import InverseGamma
from bayesmeta.learner import TaskPosterior
from bayesmeta.linalg import cholesky, exceeds, is_symbolic
from bayesmeta.networks.network import Network
from bayesmeta.noise import Noise
from bayesmeta.one_line import InShort
from bayesmeta.predictives import GaussianPredictive, StudentTPredictive
from bayesmeta.summaries import Coefficients, Columns
from bayesmeta.typing import Params

T = TypeVar("T")
COEFFICIENT_DRAWS = 4_000  # where weights are not Gaussian
CHUNK_NUMBERS = 2**18  # float64 numbers in one buffer: 2 MB


@dataclass(frozen=True, eq=False, kw_only=True)
class LinearTheta(InShort):
    """theta as inference uses it: computed once for each posterior, in float64.

    Attributes:
        features: h.
        location: K_0, the prior mean of W.
        factor: L, with V = L Lᵀ the prior covariance over features, in units of Σ; of a diagonal L the diagonal alone,
            as F x F numbers would be more than all else where features are many.
        output_covariance: Σ, squared units of y.
        intercept: b, a constant that is added to each output; None for none.
        noise: what says how Σ depends on x; None where it is the same everywhere.
    """

    features: Network
    location: Float[Tensor, "F C"]
    factor: Float[Tensor, "F R"] | Float[Tensor, "F"]
    output_covariance: Float[Tensor, "C C"]
    intercept: Float[Tensor, "C"] | None = None
    noise: Noise | None = None

    def design(self, x: Float[Tensor, "B N *x"]) -> Float[Tensor, "B N F"]:
        """The matrix of features Φ."""
        return self.features(x).double()

    def rows(self, design: Float[Tensor, "B N F"]) -> Float[Tensor, "B N R"]:
        """Whitened features Φ L."""
        return design * self.factor if self.factor.ndim == 1 else design @ self.factor

    def unwhitened(self, right: Float[Tensor, "*s B R C"]) -> Float[Tensor, "*s B F C"]:
        """L times whitened weights, or a root of their covariance."""
        return self.factor[:, None] * right if self.factor.ndim == 1 else self.factor @ right

    def prior_mean(self, design: Float[Tensor, "B N F"]) -> Float[Tensor, "B N C"]:
        """Φ K_0, and the intercept where there is one."""
        mean = design @ self.location
        return mean if self.intercept is None else mean + self.intercept

    def whitened(self, data: Data) -> tuple[Float[Tensor, "B N R"], Float[Tensor, "B N C"]]:
        """Whitened features, and outcomes less their prior mean; both divided by the relative deviation of each point's
        noise (`noise_root`), where points differ in it: such rows have the noise Σ again.
        """
        design = self.design(data.x)
        rows, residual = self.rows(design), data.y.double() - self.prior_mean(design)
        root = noise_root(data, self.output_covariance, self.noise)
        return (rows, residual) if root is None else (rows / root, residual / root)

    def quadratic_form(self, data: Data) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"], Float[Tensor, "B"]]:
        """n, q and log|K| of the real outcomes of each task, K their covariance: all that its scale depends on."""
        form = partial(linear_gaussian.quadratic_form, output_covariance=self.output_covariance)
        count, squares, determinant = (torch.cat(parts) for parts in zip(*self.in_chunks(form, data), strict=True))
        return count, squares, determinant

    def chunk(self, num_points: int) -> int:
        """How many tasks to work on at a time. On a CPU: what its caches hold, up to 1.5 times faster than all.

        A power of two, so that chunks of different sizes nest.
        """
        if not self.factor.is_cpu or is_symbolic(num_points):
            return 2**30
        return 1 << max(0, (CHUNK_NUMBERS // max(num_points * self.factor.shape[0], 1)).bit_length() - 1)

    def in_chunks(self, function: Callable[[Tensor, Tensor, Tensor], T], data: Data) -> list[T]:
        """function(rows, residual, mask), a chunk of the tasks at a time."""
        size, results = self.chunk(data.num_points), []
        if is_symbolic(data.num_tasks) or data.num_tasks <= size:
            return [function(*self.whitened(data), data.mask)]
        for first in range(0, data.num_tasks, size):
            part = data.select(slice(first, first + size))
            with retelling(lambda task, first=first: first + task):  # type: ignore[misc]
                results.append(function(*self.whitened(part), part.mask))
        return results


def relative_noise(x: Float[Tensor, "B N *x"], noise: Noise | None) -> Float[Tensor, "B N"] | None:
    """τ(x), the noise variance at inputs in units of Σ, in float64; None where it is 1 everywhere.

    Args:
        x: the inputs.
        noise: what says how Σ depends on x; None where it does not.
    """
    relative = None if noise is None else noise.relative(x)
    return None if relative is None else relative.double()


def noise_root(
    data: Data, output_covariance: Float[Tensor, "C C"], noise: Noise | None = None
) -> Float[Tensor, "B N 1"] | None:
    """√(τ(x) + s² / σ²) of each point, with s² its known noise, of a single output; None where it is 1 everywhere.

    A row that is divided by it has the noise Σ, as all others: weighted least squares (Aitken 1935).

    Args:
        data: the points.
        output_covariance: Σ, squared units of y.
        noise: what says how Σ depends on x; None where it does not.

    Example:
        >>> data = Data.from_arrays([0.0, 1.0], [0.1, 0.9], yerr=[0.0, 3.0])
        >>> noise_root(data, torch.ones(1, 1, dtype=torch.float64)).flatten().round(decimals=4).tolist()
        [1.0, 3.1623]
    """
    relative = relative_noise(data.x, noise)
    if data.noise is None:
        return None if relative is None else relative.sqrt()[..., None]
    known = data.noise.double() / output_covariance[0, 0]
    return (known + (1.0 if relative is None else relative[..., None])).sqrt()


def log_jacobian(data: Data, output_covariance: Float[Tensor, "C C"], noise: Noise | None = None) -> Float[Tensor, "B"]:
    """C Σ_n log root_n of the real points: by how much a log density of rows divided by `noise_root` is too high, in
    nats.

    Args:
        data: the points.
        output_covariance: Σ, squared units of y.
        noise: what says how Σ depends on x; None where it does not.
    """
    root = noise_root(data, output_covariance, noise)
    if root is None:
        return output_covariance.new_zeros(data.num_tasks)
    return len(output_covariance) * torch.where(data.mask, root[..., 0].log(), 0.0).sum(-1)


@dataclass(frozen=True, eq=False, kw_only=True)
class LinearPosterior(TaskPosterior):
    """W | D, theta: the exact posterior, which is matrix normal; a matrix t where tasks have a scale λ each.

    Attributes:
        theta: theta as it was when the task was adapted to.
        beliefs: the posterior of the whitened weights Z at λ = 1, where W = K_0 + L Z; a chunk of the tasks in each.
        seen: how many points of each task the posterior has been given.
        scale: p(λ | D) of each task; None where all tasks have λ = 1.
    """

    theta: LinearTheta
    beliefs: tuple[LinearGaussian, ...]
    seen: Int[Tensor, "B"]
    scale: InverseGamma | None = None

    @property
    @override
    def points_seen(self) -> Int[Tensor, "B"]:
        return self.seen

    @property
    @override
    def known_noise(self) -> bool:
        return len(self.theta.output_covariance) == 1 and self.scale is None

    @property
    def mean(self) -> Params:
        """The posterior mean K_n of W, `B F C`."""
        mean, _ = self._moments()
        return {"weight": self.theta.location + self.theta.unwhitened(mean)}

    @property
    def feature_covariance(self) -> Float[Tensor, "B F F"]:
        """The posterior covariance Lambda_n⁻¹ of W over features, in units of Σ (of λ Σ where tasks have scales)."""
        _, root = self._moments()
        spread = self.theta.unwhitened(root)
        return spread @ spread.mT

    @override
    def coefficients(self, columns: Columns) -> Coefficients | None:
        terms, theta = columns.terms(self.theta.features), self.theta
        if terms is None:  # weights of learned features
            return None
        if self.scale is not None:  # Student's t
            draws = self.sample(COEFFICIENT_DRAWS, generator_of(0, self.spec.device))["weight"]
            return Coefficients.of_weights(draws, theta.features, columns)
        units = theta.output_covariance.diagonal().sqrt().cpu() * columns.y_scale
        outcomes = columns.outcomes.names
        root = theta.factor.diag() if theta.factor.ndim == 1 else theta.factor
        after, prior = self.feature_covariance.cpu(), (root @ root.mT).cpu()
        spread, before = (terms.covariance(each).diagonal(dim1=-2, dim2=-1) for each in (after, prior))
        return Coefficients(
            terms.names * len(outcomes),
            columns.weights(terms, self.mean["weight"].cpu()).mT.flatten(1),
            (units[:, None] * spread.clamp(min=0.0).sqrt()[:, None]).flatten(1),
            tuple(outcome for outcome in outcomes for _ in terms.names) if len(outcomes) > 1 else (),
            prior_stddev=(units[:, None] * before.clamp(min=0.0).sqrt()).flatten(),
        )

    def sample(self, num_draws: int, generator: torch.Generator | None = None) -> Params:
        """Draws of W, `S B F C`, and where tasks have scales of log λ, `S B`.

        Example:
            >>> import bayesmeta as bm
            >>> posterior = bm.ALPaCA(bm.Identity(1)).adapt(bm.Data.from_arrays([0.0, 1.0], [0.2, 0.4]))
            >>> posterior.sample(100)["weight"].shape  # intercepts and slopes
            torch.Size([100, 1, 2, 1])
        """
        num_draws = whole(num_draws, "num_draws")
        mean, root = self._moments()
        scale = None if self.scale is None else self.scale.rsample((num_draws,), generator)
        output_covariance = cholesky(self.theta.output_covariance, "noise covariance")
        shape = (num_draws, *mean.shape)
        normal = common_normals(shape, mean, generator)
        deviation = root @ normal @ output_covariance.mT
        if scale is None:
            return {"weight": self.theta.location + self.theta.unwhitened(mean + deviation)}
        draws = mean + scale.sqrt()[..., None, None] * deviation
        return {"weight": self.theta.location + self.theta.unwhitened(draws), "log_scale": scale.log()}

    @override
    def at(self, x: Float[Tensor, "B M *x"]) -> GaussianPredictive | StudentTPredictive:
        gaussian = self.gaussian(x)
        return gaussian if self.scale is None else StudentTPredictive(gaussian, self.scale)

    def gaussian(self, x: Float[Tensor, "B M *x"]) -> GaussianPredictive:
        """The predictive where all tasks have λ = 1.

        Args:
            x: query points, checked.
        """
        beliefs, counts = self._chunks(x.shape[1])
        rows, means, variances = [], [], []
        for belief, part in zip(beliefs, _split(x, counts), strict=True):
            design = self.theta.design(part)
            rows.append(self.theta.rows(design))
            mean, variance = belief.predict(rows[-1])
            means.append(self.theta.prior_mean(design) + mean)
            variances.append(variance)
        relative = relative_noise(x, self.theta.noise)
        return GaussianPredictive(
            location=_joined(means),
            latent_variance=_joined(variances),
            latent_covariance=partial(_covariance, beliefs, rows),
            output_covariance=self.theta.output_covariance,
            noise=1.0 if relative is None else relative,
            latent_root=partial(_root, beliefs, rows) if exceeds(x.shape[1], self.theta.factor.shape[-1]) else None,
        )

    @override
    def extended(self, data: Data) -> "LinearPosterior":
        beliefs, counts = self._chunks(self.theta.factor.shape[-1])
        parts = [_split(value, counts) for value in (*self.theta.whitened(data), data.mask)]
        beliefs = [belief.update(*part) for belief, *part in zip(beliefs, *parts, strict=True)]
        scale = self.scale
        if scale is not None:
            count, squares, _ = self.gaussian(data.x).quadratic_form(data.y, data.mask)
            scale = scale.after(count, squares)
        return replace(self, beliefs=tuple(beliefs), seen=self.seen + data.counts, scale=scale)

    @override
    def selected(self, tasks: Int[Tensor, "K"]) -> "LinearPosterior":
        belief = LinearGaussian.joined(self.beliefs).select(tasks)
        scale = None if self.scale is None else self.scale.select(tasks)
        spec = self.spec.of_tasks(len(tasks))
        return replace(self, spec=spec, beliefs=(belief,), seen=self.seen[tasks], scale=scale)

    def _chunks(self, num_points: int) -> tuple[list[LinearGaussian], list[int]]:
        if is_symbolic(self.spec.num_tasks):
            return list(self.beliefs), [self.spec.num_tasks]
        size = self.theta.chunk(num_points)
        if len(self.beliefs) == 1 and self.spec.num_tasks <= size:
            return [*self.beliefs], [self.spec.num_tasks]
        beliefs = [part for belief in self.beliefs for part in belief.split(size)]
        return beliefs, [belief.num_tasks for belief in beliefs]

    def _moments(self) -> tuple[Float[Tensor, "B R C"], Float[Tensor, "B R R"]]:
        means, roots = zip(*(belief.moments() for belief in self.beliefs), strict=True)
        return torch.cat(means), torch.cat(roots)


def _split(value: Tensor, counts: Sequence[int]) -> Sequence[Tensor]:
    """The parts of each chunk of tasks; one is what it is, as of one task every operation counts."""
    return value.split(counts) if len(counts) != 1 else [value]


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if len(parts) != 1 else parts[0]


def _root(beliefs: list[LinearGaussian], rows: list[Tensor]) -> Float[Tensor, "B M R"]:
    return torch.cat([belief.spread(part) for belief, part in zip(beliefs, rows, strict=True)])


def _covariance(beliefs: list[LinearGaussian], rows: list[Tensor]) -> Float[Tensor, "B M M"]:
    return torch.cat([belief.covariance(part) for belief, part in zip(beliefs, rows, strict=True)])
