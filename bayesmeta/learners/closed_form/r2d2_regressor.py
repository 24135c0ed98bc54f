"""R2-D2 for numbers: ridge regression as the last layer, solved in closed form.

Bertinetto, Henriques, Torr, Vedaldi 2019 (arXiv:1805.08136), sec. 3.2, with λ the ridge (`prior.precision`):

    y = Wᵀ h(x) + b + ε,   ε ~ N(0, Σ),   W ~ MN(0, I / λ, Σ)
    E[W | D] = Φᵀ (Φ Φᵀ + λ I)⁻¹ (Y - b)                    eq. 6, in the space of points; that of features if smaller

    phi         W, the last layer, F x C; with a task scale also log λ
    prior       matrix normal MN(0, I / ridge, Σ), explicit
    likelihood  Gaussian, noise covariance Σ over the outputs
    inference   exact, in float64 whatever the precision of the features
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.learners.closed_form.last_layer import LinearLearner
from bayesmeta.learners.closed_form.linear_posterior import LinearTheta
from bayesmeta.networks.network import Network
from bayesmeta.noise import Noise
from bayesmeta.priors import Ridge, TaskScale

RIDGE_BOUNDS = (1e-6, 1e6)


class R2D2Regressor(LinearLearner):
    """Regression by ridge regression on features that all tasks share.

    theta is the weights of the features, the ridge λ (`prior.precision`), b (`intercept`) and Σ (`likelihood.noise`).
    It is ALPaCA with a prior mean of zero and one prior variance for all features: their scale is in the ridge.

    Args:
        features: h, a network with `num_outputs` = F features.
        num_outputs: C.
        ridge: starting λ, in units of the noise.
        noise: Σ, covariance of the observation noise; `DiagonalNoise(C)` by default, or `FullNoise`.
        scale: p(λ), where every task has a scale of its own: `TaskScale()`. None for one scale of all tasks.

    Raises:
        ShapeError: `noise` does not have C outputs.
        UnsupportedError: the features are not a `Network`.
        DataError: a ridge out of bounds.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.R2D2Regressor(bm.MLP(1, [16, 8]))
        >>> posterior = learner.adapt(bm.Data.from_arrays([0.0, 1.0], [0.2, 0.4]))
        >>> posterior
        posterior of 1 task after 2 points
        >>> posterior.predict([0.5]).mean.shape
        torch.Size([1, 1, 1])
    """

    prior: Ridge

    def __init__(
        self,
        features: Network,
        *,
        num_outputs: int = 1,
        ridge: float = 1.0,
        noise: Noise | None = None,
        scale: TaskScale | None = None,
    ) -> None:
        prior = lambda noise: Ridge(features.num_outputs, noise, ridge, RIDGE_BOUNDS, scale)
        super().__init__(features, num_outputs, noise, prior, scale)
        self.intercept = nn.Parameter(torch.zeros(num_outputs))

    @override
    def mean_given(
        self, weight: Float[Tensor, "*s B F C"], features: Float[Tensor, "B M F"]
    ) -> Float[Tensor, "*s_B_M_C"]:
        out = super().mean_given(weight, features)
        return out + self.intercept.to(out.dtype)

    @override
    def theta(self) -> LinearTheta:
        return LinearTheta(
            features=self.features,
            location=self.prior.mean["weight"].double(),
            factor=self.prior.precision().double().rsqrt().expand(self.prior.num_features),
            output_covariance=self.prior.noise.covariance().double(),
            intercept=self.intercept.double(),
            noise=self.prior.noise,
        )
