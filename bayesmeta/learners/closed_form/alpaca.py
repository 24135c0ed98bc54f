"""ALPaCA: Bayesian linear regression on meta-learned features.

Harrison, Sharma, Pavone 2018 (arXiv:1807.08912), with V = Lambda_0⁻¹ in eq. 4 and the predictive of eqs. 7-9:

    y = Wᵀ φ(x) + ε,   ε ~ N(0, Σ),   W ~ MN(K_0, V, Σ)
    p(y* | x*, D) = N(K_nᵀ φ*, (1 + φ*ᵀ Lambda_n⁻¹ φ*) Σ)

    phi         W, the last layer, F x C
    prior       matrix normal MN(K_0, V, Σ), explicit
    likelihood  Gaussian, noise covariance Σ over the outputs
    inference   exact, in float64 whatever the precision of the features
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.data import Data
from bayesmeta.errors import DataError, InferenceError, ShapeError
from bayesmeta.inference import linear_gaussian
from bayesmeta.inference.linear_gaussian import LinearGaussian
from bayesmeta.learner import TaskPosterior
from bayesmeta.learners.closed_form._base import LastLayerRegression
from bayesmeta.likelihoods import Gaussian
from bayesmeta.linalg import cholesky
from bayesmeta.networks.network import Network
from bayesmeta.noise import DiagonalNoise, Noise
from bayesmeta.predictives import GaussianPredictive
from bayesmeta.priors import DiagonalRows, FullRows, IsotropicRows, MatrixNormal, Rows
from bayesmeta.typing import Params

T = TypeVar("T")
CHUNK_NUMBERS = 2**18  # float64 numbers in one buffer: 2 MB


class ALPaCA(LastLayerRegression):
    """Exact Bayesian linear regression on features that all tasks share.

    theta = the features' weights, K_0 (`prior.location`), V (`prior.rows`) and Σ (`prior.columns`). With `Identity`
    features and the evidence as objective it is a linear mixed model: K_0 the fixed effects, V Σ the covariance of the
    random effects.

    Args:
        features: φ, a network with `num_outputs` = F features (`MLP`, or a basis).
        num_outputs: C.
        rows: V; `FullRows(F)` by default, or `DiagonalRows`, `IsotropicRows`.
        noise: Σ; `DiagonalNoise(C)` by default, or `FullNoise`.

    Raises:
        ShapeError: `rows` or `noise` do not have F features or C outputs.
        UnsupportedError: the features are not a `Network`.
    """

    def __init__(
        self, features: Network, num_outputs: int = 1, rows: Rows | None = None, noise: Noise | None = None
    ) -> None:
        super().__init__(features, num_outputs)
        noise = DiagonalNoise(num_outputs) if noise is None else noise
        rows = FullRows(features.num_outputs) if rows is None else rows
        if rows.num_features != features.num_outputs or noise.num_outputs != num_outputs:
            raise ShapeError(
                f"expected rows over {features.num_outputs} features and noise over {num_outputs} outputs, "
                f"got {rows.num_features} and {noise.num_outputs}"
            )
        self.prior: MatrixNormal = MatrixNormal(rows, noise)
        self.likelihood: Gaussian = Gaussian(noise)

    def log_evidence(self, data: Data) -> Float[Tensor, "B"]:
        """log p(y | x, theta) of each task, W integrated out, in nats (eq. 10 with the whole task as query)."""
        data, theta = self.conform(data), self._theta()
        return torch.cat(theta.in_chunks(partial(linear_gaussian.log_evidence, columns=theta.columns), data))

    def restricted_log_evidence(self, data: Data) -> Float[Tensor, ""]:
        """log ∫ Π_t p(y_t | x_t, theta) dK_0, in nats: K_0 under a flat hyperprior (REML, Patterson & Thompson 1971).

        Raises:
            InferenceError: the features of all tasks together do not determine K_0.
        """
        data, theta = self.conform(data), self._theta()
        location, precision = self._least_squares(data)
        columns = theta.columns
        log_evidence = partial(linear_gaussian.log_evidence, columns=columns)
        profile = torch.cat(replace(theta, location=location).in_chunks(log_evidence, data)).sum()
        size_f, size_c = location.shape
        # vec K_0 has precision (Σ_t Xᵀ S⁻¹ X) ⊗ Σ⁻¹
        determinant = size_c * torch.logdet(precision) - size_f * torch.logdet(columns)
        return profile - 0.5 * determinant + 0.5 * size_f * size_c * math.log(2.0 * math.pi)

    @torch.no_grad()
    def maximise_location(self, data: Data) -> None:
        """Set K_0 to its generalised-least-squares estimate given V, where the evidence is largest over K_0.

        Raises:
            InferenceError: the features of all tasks together do not determine K_0.
        """
        self.prior.location.copy_(self._least_squares(self.conform(data))[0])

    @torch.no_grad()
    def maximise_exactly(self, data: Data) -> None:
        """Set K_0 and Σ where the evidence is largest given V and the features: Σ = Σ_t Rᵀ S⁻¹ R / points.

        Where the features do not determine K_0 (the levels of a category and a constant, say), the smallest one is set.

        Raises:
            InferenceError: the features fit every point exactly.
        """
        data = self.conform(data)
        precision, moment = self._normal_equations(data)
        scale = torch.where(precision.diagonal() > 0.0, precision.diagonal(), 1.0).sqrt()
        inverse = torch.linalg.pinv(precision / (scale * scale[:, None]), rtol=1e-12, hermitian=True)
        self.prior.location.copy_((inverse @ (moment / scale[:, None])) / scale[:, None])
        rows, residual = self._theta().whitened(data)
        squares, _ = linear_gaussian.information(rows, residual, residual, data.mask)
        try:
            self.prior.columns.set_covariance(squares / data.counts.sum())
        except DataError as error:
            raise InferenceError(
                "expected a noise variance within its bounds, got one outside: the features fit the outcomes exactly, "
                f"or their unit is far from their scatter (use Standardized). {error}"
            ) from error

    def _adapt(self, support: Data) -> "ALPaCAPosterior":
        theta = self._theta()
        beliefs = theta.in_chunks(linear_gaussian.condition, support)
        return ALPaCAPosterior(spec=support.spec, theta=theta, beliefs=tuple(beliefs))

    def _theta(self) -> "_Theta":
        rows = self.prior.rows
        factor = rows.factor().double()
        is_diagonal = isinstance(rows, DiagonalRows | IsotropicRows) and rows.varying == tuple(range(rows.num_features))
        return _Theta(
            features=self.features,
            location=self.prior.location.double(),
            factor=factor,
            scale=factor.diagonal() if is_diagonal else None,
            columns=self.prior.columns.covariance().double(),
        )

    def _least_squares(self, data: Data) -> tuple[Tensor, Tensor]:
        """K_0 by generalised least squares, and its precision: unique, or an error."""
        precision, moment = self._normal_equations(data)
        scale = precision.diagonal().sqrt()
        normalised = (precision / (scale * scale[:, None])).detach()
        if not bool(torch.isfinite(normalised).all()) or bool(torch.linalg.cond(normalised) > 1e13):
            raise InferenceError(
                "expected features that determine the prior mean, got a singular design over all tasks: "
                "a feature is constant, repeated or a sum of others (all levels of a category sum to the constant). "
                "Leave it out, or use MaximumLikelihood, which does without"
            )
        return torch.linalg.solve(precision, moment), precision

    def _normal_equations(self, data: Data) -> tuple[Tensor, Tensor]:
        theta = self._theta()
        design = theta.design(data.x)
        return linear_gaussian.information(theta.rows(design), design, data.y.double(), data.mask)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Theta:
    """theta as inference uses it: computed once for each posterior, in float64."""

    features: Network
    location: Float[Tensor, "F C"]
    factor: Float[Tensor, "F R"]
    scale: Float[Tensor, "F"] | None  # the diagonal of a factor that is diagonal
    columns: Float[Tensor, "C C"]

    def design(self, x: Float[Tensor, "B N *x"]) -> Float[Tensor, "B N F"]:
        """Features Φ."""
        return self.features(x).double()

    def rows(self, design: Float[Tensor, "B N F"]) -> Float[Tensor, "B N R"]:
        """Whitened features Φ L."""
        return design @ self.factor if self.scale is None else design * self.scale

    def whitened(self, data: Data) -> tuple[Float[Tensor, "B N R"], Float[Tensor, "B N C"]]:
        """Whitened features, and outcomes less their prior mean."""
        design = self.design(data.x)
        return self.rows(design), data.y.double() - design @ self.location

    def chunk(self, num_points: int) -> int:
        """How many tasks to work on at a time. On a CPU: what its caches hold, up to 1.5 times faster than all.

        A power of two, so that chunks of different sizes nest.
        """
        if self.factor.device.type != "cpu":
            return 2**30
        return int(2 ** max(4, (CHUNK_NUMBERS // max(num_points * len(self.factor), 1)).bit_length() - 1))

    def in_chunks(self, function: Callable[[Tensor, Tensor, Tensor], T], data: Data) -> list[T]:
        """function(rows, residual, mask), a chunk of the tasks at a time."""
        size, results = self.chunk(data.num_points), []
        for i, part in enumerate(zip(*(value.split(size) for value in (data.x, data.y, data.mask)), strict=True)):
            try:
                results.append(function(*self.whitened(Data(*part)), part[-1]))
            except InferenceError as error:
                raise InferenceError(f"counting tasks from {i * size}: {error}" if i else str(error)) from error
        return results


@dataclass(frozen=True, eq=False, kw_only=True)
class ALPaCAPosterior(TaskPosterior):
    """W | D, theta: matrix normal, exact.

    Attributes:
        theta: what adapt knew of theta.
        beliefs: the posterior of the whitened weights Z, where W = K_0 + L Z; a chunk of the tasks in each.
    """

    theta: _Theta
    beliefs: tuple[LinearGaussian, ...]

    @property
    def mean(self) -> Params:
        """K_n, `B F C`: the posterior mean of W."""
        mean, _ = self._moments()
        return {"weight": self.theta.location + self.theta.factor @ mean}

    @property
    def row_covariance(self) -> Float[Tensor, "B F F"]:
        """Lambda_n⁻¹: the covariance of W over features, in units of Σ."""
        _, root = self._moments()
        spread = self.theta.factor @ root
        return spread @ spread.mT

    def sample(self, num_draws: int, generator: torch.Generator | None = None) -> Params:
        """Draws of W, `S B F C`."""
        mean, root = self._moments()
        columns = cholesky(self.theta.columns, "noise covariance")
        shape = (num_draws, *mean.shape)
        normal = torch.randn(shape, dtype=mean.dtype, device=mean.device, generator=generator)
        draws = mean + root @ normal @ columns.mT
        return {"weight": self.theta.location + self.theta.factor @ draws}

    def _predict(self, x: Float[Tensor, "B M *x"]) -> GaussianPredictive:
        beliefs, counts = self._chunks(x.shape[1])
        rows, means, variances = [], [], []
        for belief, part in zip(beliefs, x.split(counts), strict=True):
            design = self.theta.design(part)
            rows.append(self.theta.rows(design))
            mean, variance = belief.predict(rows[-1])
            means.append(design @ self.theta.location + mean)
            variances.append(variance)
        return GaussianPredictive(
            location=torch.cat(means),
            latent_variance=torch.cat(variances),
            latent_covariance=lambda: torch.cat([b.covariance(r) for b, r in zip(beliefs, rows, strict=True)]),
            columns=self.theta.columns,
        )

    def _update(self, data: Data) -> "ALPaCAPosterior":
        beliefs, counts = self._chunks(self.theta.factor.shape[1])
        parts = [value.split(counts) for value in (*self.theta.whitened(data), data.mask)]
        return replace(self, beliefs=tuple(b.update(*part) for b, *part in zip(beliefs, *parts, strict=True)))

    def _chunks(self, num_points: int) -> tuple[list[LinearGaussian], list[int]]:
        size = self.theta.chunk(num_points)
        beliefs = [part for belief in self.beliefs for part in belief.split(size)]
        return beliefs, [belief.num_tasks for belief in beliefs]

    def _moments(self) -> tuple[Float[Tensor, "B R C"], Float[Tensor, "B R R"]]:
        means, roots = zip(*(belief.moments() for belief in self.beliefs), strict=True)
        return torch.cat(means), torch.cat(roots)
