"""What learners share whose phi is the last layer of a network: f(x; W) = Wᵀ h(x).

Beliefs about W are Gaussian and exact: `LinearLearner` computes with them, a subclass says what it knows of theta.
"""

from abc import abstractmethod
from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from bayesmeta.data import Data, TaskBatch
from bayesmeta.errors import ShapeError
from bayesmeta.inference import linear_gaussian
from bayesmeta.learner import ExplicitLearner, marginal_loss
from bayesmeta.learners.closed_form.linear_posterior import LinearPosterior, LinearTheta
from bayesmeta.likelihoods import Gaussian
from bayesmeta.networks.network import Network
from bayesmeta.networks.requirements import require_network
from bayesmeta.noise import DiagonalNoise, Noise
from bayesmeta.outcomes import Numbers
from bayesmeta.priors import Prior
from bayesmeta.typing import Params


class LastLayerRegression(ExplicitLearner):
    """Regression whose phi is W, `F C`, on the features h that all tasks share.

    Args:
        features: h, a network with `num_outputs` = F features.
        num_outputs: C.
        noise: covariance of the observation noise over the outputs; `DiagonalNoise(C)` by default.
        prior: makes the prior of W from the noise, in whose units it is.

    Raises:
        ShapeError: `noise` does not have C outputs. UnsupportedError: the features are not a `Network`.
    """

    likelihood: Gaussian

    def __init__(
        self, features: Network, num_outputs: int, noise: Noise | None, prior: Callable[[Noise], Prior]
    ) -> None:
        super().__init__()
        require_network(features)
        noise = DiagonalNoise(num_outputs) if noise is None else noise
        if noise.num_outputs != num_outputs:
            raise ShapeError(f"expected noise over {num_outputs} outputs, got {noise.num_outputs}")
        self.features, self.prior, self.likelihood = features, prior(noise), Gaussian(noise)
        self.x_shape, self.outcomes = features.x_shape, Numbers(num_outputs)

    def forward(self, phi: Params, x: Float[Tensor, "B M *x"]) -> Float[Tensor, "*s_B_M_C"]:
        """h(x) W."""
        weight = phi["weight"]
        return self.features(x).to(weight.dtype) @ weight

    def loss(self, tasks: TaskBatch) -> Float[Tensor, "B"]:
        """-mean over the query of the marginal log p(y | x, support, theta), in nats (Harrison et al. 2018, eq. 11)."""
        return marginal_loss(self, tasks)


class LinearLearner(LastLayerRegression):
    """Bayesian linear regression on features, with a Gaussian prior of W. A subclass gives `theta`."""

    @abstractmethod
    def theta(self) -> LinearTheta:
        """What inference needs of theta, in float64."""

    def evidence(self, data: Data) -> Float[Tensor, "B"]:
        """log p(y | x, theta) of each task, W integrated out, in nats."""
        theta = self.theta()
        return torch.cat(
            theta.in_chunks(partial(linear_gaussian.log_evidence, output_covariance=theta.output_covariance), data)
        )

    @override
    def condition(self, support: Data) -> LinearPosterior:
        theta = self.theta()
        beliefs = theta.in_chunks(linear_gaussian.condition, support)
        return LinearPosterior(spec=support.spec, theta=theta, beliefs=tuple(beliefs))
