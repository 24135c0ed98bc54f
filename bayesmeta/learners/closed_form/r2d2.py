"""R2-D2: ridge regression as the last layer, solved in closed form.

Bertinetto, Henriques, Torr, Vedaldi 2019 (arXiv:1805.08136), sec. 3.2, with λ the ridge (`ridge`) and Y the labels as
unit vectors:

    W = Φᵀ (Φ Φᵀ + λ I)⁻¹ Y                                 eq. 6, in the space of points; that of features if smaller
    p(c | x, D) ∝ exp(a f_c(x)),   f(x) = Wᵀ φ(x)           eq. 7; a constant b added to all classes changes nothing

Read as inference, W is the posterior mean under W ~ N(0, I / λ) and labels y = Wᵀ φ(x) + ε, ε ~ N(0, I); with it comes
the variance v(x) = φᵀ (ΦᵀΦ + λ I)⁻¹ φ of a score, which the paper throws away and the softmax here uses.

    phi         W, the last layer, F x C
    prior       N(0, I / ridge), explicit
    likelihood  Gaussian: of the outcomes in regression (`R2D2Regressor`), of the unit vectors in classification
    inference   exact, in float64 whatever the precision of the features
"""

from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.data import Data
from bayesmeta.errors import ShapeError
from bayesmeta.heads.classes import Classes
from bayesmeta.inference import linear_gaussian
from bayesmeta.learners.closed_form._base import LastLayerRegression
from bayesmeta.learners.closed_form._classifier import HeadClassifier
from bayesmeta.learners.closed_form._linear_posterior import LinearPosterior, LinearTheta
from bayesmeta.learners.closed_form._linear_scores import LinearScores
from bayesmeta.likelihoods import Gaussian
from bayesmeta.networks.network import Network
from bayesmeta.noise import DiagonalNoise, Noise, Positive
from bayesmeta.priors import Ridge
from bayesmeta.typing import Params

RIDGE_BOUNDS = (1e-6, 1e6)


class R2D2(HeadClassifier):
    """Classification by ridge regression on unit vectors.

    theta = the features' weights, `ridge`, `scale` (nats for a unit of score) and `spread` (of the belief).

    Args:
        features: φ, a network with `num_outputs` = F features of each point on its own.
        num_classes: C; None: the classes of each task are those of its support.
        ridge: starting λ.
        scale: starting a, nats for a unit of score.
        spread: starting s², in units of the posterior variance.

    Raises:
        UnsupportedError: features that are not a `Network`, or not of each point on its own. DataError: fewer than two
            classes, or a value out of bounds.
    """

    def __init__(
        self,
        features: Network,
        num_classes: int | None = None,
        ridge: float = 1.0,
        scale: float = 10.0,
        spread: float = 1.0,
    ) -> None:
        super().__init__(features, num_classes, scale, spread)
        self.ridge = Positive((), ridge, RIDGE_BOUNDS)

    def solve(
        self,
        rows: Float[Tensor, "B N F"],
        targets: Float[Tensor, "B N C"],
        mask: Bool[Tensor, "B N"],
        classes: Classes,
    ) -> LinearScores:
        """Ridge regression on unit vectors."""
        deviation = self.ridge().to(rows.dtype).rsqrt()
        return LinearScores(linear_gaussian.condition(rows * deviation, targets, mask), deviation)


class R2D2Regressor(LastLayerRegression):
    """Regression: y = Wᵀ φ(x) + b + ε, W ~ MN(0, I / ridge, Σ), ε ~ N(0, Σ).

    theta = the features' weights, `prior.precision` (the ridge), b (`intercept`) and Σ (`likelihood.noise`). It is
    ALPaCA with K_0 = 0 and one prior variance, and a scale of the features is in the ridge.

    Args:
        features: φ, a network with `num_outputs` = F features.
        num_outputs: C.
        ridge: starting λ, in units of the noise.
        noise: Σ; `DiagonalNoise(C)` by default, or `FullNoise`.

    Raises:
        ShapeError: `noise` does not have C outputs. UnsupportedError: the features are not a `Network`.
    """

    def __init__(self, features: Network, num_outputs: int = 1, ridge: float = 1.0, noise: Noise | None = None) -> None:
        super().__init__(features, num_outputs)
        noise = DiagonalNoise(num_outputs) if noise is None else noise
        if noise.num_outputs != num_outputs:
            raise ShapeError(f"expected noise over {num_outputs} outputs, got {noise.num_outputs}")
        self.prior: Ridge = Ridge(features.num_outputs, noise, ridge, RIDGE_BOUNDS)
        self.likelihood: Gaussian = Gaussian(noise)
        self.intercept = nn.Parameter(torch.zeros(num_outputs))

    def forward(self, phi: Params, x: Float[Tensor, "B M *x"]) -> Float[Tensor, "*s_B_M_C"]:
        """φ(x) W + b."""
        out = super().forward(phi, x)
        return out + self.intercept.to(out.dtype)

    def evidence(self, data: Data) -> Float[Tensor, "B"]:
        """log p(y | x, theta) of each task, W integrated out, in nats."""
        theta = self._theta()
        return torch.cat(theta.in_chunks(partial(linear_gaussian.log_evidence, columns=theta.columns), data))

    @override
    def condition(self, support: Data) -> LinearPosterior:
        theta = self._theta()
        beliefs = theta.in_chunks(linear_gaussian.condition, support)
        return LinearPosterior(spec=support.spec, theta=theta, beliefs=tuple(beliefs))

    def _theta(self) -> LinearTheta:
        scale = self.prior.precision().double().rsqrt().expand(self.prior.num_features)
        return LinearTheta(
            features=self.features,
            location=self.prior.mean["weight"].double(),
            factor=torch.diag(scale),
            scale=scale,
            columns=self.prior.columns.covariance().double(),
            intercept=self.intercept.double(),
        )
