"""ALPaCA: Bayesian linear regression on meta-learned features. Harrison, Sharma, Pavone 2018 (arXiv:1807.08912).

    y = Wᵀ φ(x) + ε,   ε ~ N(0, Σ),   W ~ MN(K_0, V, Σ)                       (eq. 4, V = Lambda_0⁻¹)
    p(y* | x*, D) = N(K_nᵀ φ*, (1 + φ*ᵀ Lambda_n⁻¹ φ*) Σ)                     (eqs. 7-9)

    phi         W, the last layer, F x C
    prior       matrix normal MN(K_0, V, Σ), explicit
    likelihood  Gaussian, noise covariance Σ over the outputs
    inference   exact, in float64 whatever the precision of the features
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.data import Data, TaskBatch
from bayesmeta.errors import DataError, InferenceError, ShapeError
from bayesmeta.inference import linear_gaussian
from bayesmeta.inference.linear_gaussian import LinearGaussian
from bayesmeta.learner import ExplicitLearner, TaskPosterior
from bayesmeta.likelihoods import DiagonalNoise, Gaussian, Noise
from bayesmeta.linalg import cholesky
from bayesmeta.networks.network import Network
from bayesmeta.predictives import GaussianPredictive
from bayesmeta.priors import FullRows, MatrixNormal, Rows
from bayesmeta.typing import Params


class ALPaCA(ExplicitLearner):
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
    """

    def __init__(
        self, features: Network, num_outputs: int = 1, rows: Rows | None = None, noise: Noise | None = None
    ) -> None:
        super().__init__()
        noise = DiagonalNoise(num_outputs) if noise is None else noise
        rows = FullRows(features.num_outputs) if rows is None else rows
        if rows.num_features != features.num_outputs or noise.num_outputs != num_outputs:
            raise ShapeError(
                f"expected rows over {features.num_outputs} features and noise over {num_outputs} outputs, "
                f"got {rows.num_features} and {noise.num_outputs}"
            )
        self.features = features
        self.prior: MatrixNormal = MatrixNormal(rows, noise)
        self.likelihood: Gaussian = Gaussian(noise)
        self.x_shape, self.num_outputs = features.x_shape, num_outputs

    def forward(self, phi: Params, x: Float[Tensor, "B M *x"]) -> Float[Tensor, "*s_B_M_C"]:
        """φ(x) W."""
        weight = phi["weight"]
        return self.features(x).to(weight.dtype) @ weight

    def log_evidence(self, data: Data) -> Float[Tensor, "B"]:
        """log p(y | x, theta) of each task, W integrated out, in nats (eq. 10 with the whole task as query)."""
        data = self.conform(data)
        rows, residual = self._whitened(data)
        return linear_gaussian.log_evidence(rows, residual, data.mask, self.prior.columns.covariance().double())

    def restricted_log_evidence(self, data: Data) -> Float[Tensor, ""]:
        """log ∫ Π_t p(y_t | x_t, theta) dK_0, in nats: K_0 under a flat hyperprior (REML, Patterson & Thompson 1971).

        Raises:
            InferenceError: the features of all tasks together do not determine K_0.
        """
        data = self.conform(data)
        location, precision = self._least_squares(data)
        rows, design = self._rows(data)
        columns = self.prior.columns.covariance().double()
        residual = data.y.double() - design @ location
        profile = linear_gaussian.log_evidence(rows, residual, data.mask, columns).sum()
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

        Raises:
            InferenceError: the features of all tasks together do not determine K_0, or fit every point exactly.
        """
        data = self.conform(data)
        self.maximise_location(data)
        rows, residual = self._whitened(data)
        squares, _ = linear_gaussian.information(rows, residual, residual, data.mask)
        try:
            self.prior.columns.set_covariance(squares / data.counts.sum())
        except DataError as error:
            raise InferenceError(f"expected outcomes that scatter around the prior mean, got an exact fit: {error}") from error

    def meta_loss(self, tasks: TaskBatch) -> Float[Tensor, "B"]:
        """-mean over the query of the marginal log p(y | x, support, theta), in nats (eq. 11)."""
        posterior = self._adapt(tasks.support)
        query = tasks.query
        each = posterior._predict(query.x).marginal_log_prob(query.y)
        return -torch.where(query.mask, each, 0.0).sum(-1) / query.counts.clamp(min=1)

    def _adapt(self, support: Data) -> "ALPaCAPosterior":
        rows, residual = self._whitened(support)
        belief = linear_gaussian.condition(rows, residual, support.mask)
        return ALPaCAPosterior(spec=support.spec, learner=self, belief=belief)

    def _rows(self, data: Data) -> tuple[Tensor, Tensor]:
        """Whitened features Φ L and plain features Φ, in float64."""
        design = self.features(data.x).double()
        return design @ self.prior.rows.factor().double(), design

    def _whitened(self, data: Data) -> tuple[Tensor, Tensor]:
        rows, design = self._rows(data)
        return rows, data.y.double() - design @ self.prior.location.double()

    def _least_squares(self, data: Data) -> tuple[Tensor, Tensor]:
        rows, design = self._rows(data)
        precision, moment = linear_gaussian.information(rows, design, data.y.double(), data.mask)
        scale = precision.diagonal().sqrt()
        normalised = precision / (scale * scale[:, None])
        if not bool(torch.isfinite(normalised).all()) or bool(torch.linalg.cond(normalised.detach()) > 1e13):
            raise InferenceError(
                "expected features that determine the prior mean, got a singular design over all tasks: "
                "a feature is constant, repeated or a sum of others. Leave it out"
            )
        return torch.linalg.solve(precision, moment), precision


@dataclass(frozen=True, eq=False, kw_only=True)
class ALPaCAPosterior(TaskPosterior):
    """W | D, theta: matrix normal, exact.

    Attributes:
        learner: theta.
        belief: the posterior of the whitened weights Z, where W = K_0 + L Z.
    """

    learner: ALPaCA
    belief: LinearGaussian

    @property
    def mean(self) -> Params:
        """K_n, `B F C`: the posterior mean of W."""
        prior = self.learner.prior
        mean, _ = self.belief.moments()
        return {"weight": prior.location.double() + prior.rows.factor().double() @ mean}

    @property
    def row_covariance(self) -> Float[Tensor, "B F F"]:
        """Lambda_n⁻¹: the covariance of W over features, in units of Σ."""
        _, root = self.belief.moments()
        spread = self.learner.prior.rows.factor().double() @ root
        return spread @ spread.mT

    def sample(self, num_draws: int, generator: torch.Generator | None = None) -> Params:
        """Draws of W, `S B F C`."""
        prior = self.learner.prior
        mean, root = self.belief.moments()
        columns = cholesky(prior.columns.covariance().double(), "noise covariance")
        shape = (num_draws, *mean.shape)
        normal = torch.randn(shape, dtype=mean.dtype, device=mean.device, generator=generator)
        draws = mean + root @ normal @ columns.mT
        return {"weight": prior.location.double() + prior.rows.factor().double() @ draws}

    def _predict(self, x: Float[Tensor, "B M *x"]) -> GaussianPredictive:
        prior = self.learner.prior
        design = self.learner.features(x).double()
        rows = design @ prior.rows.factor().double()
        mean, variance = self.belief.predict(rows)
        return GaussianPredictive(
            location=design @ prior.location.double() + mean,
            latent_variance=variance,
            latent_covariance=lambda: self.belief.covariance(rows),
            columns=prior.columns.covariance().double(),
        )

    def _update(self, data: Data) -> "ALPaCAPosterior":
        rows, residual = self.learner._whitened(data)
        belief = self.belief.update(rows, residual, data.mask)
        return type(self)(spec=self.spec, learner=self.learner, belief=belief)
