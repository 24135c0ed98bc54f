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
from bayesmeta.inference import linear_gaussian
from bayesmeta.learner import ExplicitLearner, marginal_loss
from bayesmeta.learners.closed_form.linear_posterior import LinearPosterior, LinearTheta, log_jacobian
from bayesmeta.learners.closed_form.scale import is_untouched, noise_over, start_noise, two_speeds
from bayesmeta.likelihoods import Gaussian, ScaledGaussian
from bayesmeta.networks.network import Network
from bayesmeta.networks.requirements import require_network
from bayesmeta.noise import Noise
from bayesmeta.outcomes import Numbers
from bayesmeta.priors import Prior, TaskScale
from bayesmeta.snapshot import once
from bayesmeta.typing import LogJoint, Params


class LastLayerRegression(ExplicitLearner):
    """Regression whose phi is W, `F C`, the weights of a last layer on features h that all tasks share.

    A subclass gives the prior of W, and `condition`. Where its belief about W is Gaussian it inherits `LinearLearner`.

    Args:
        features: h, a network with `num_outputs` = F features.
        num_outputs: C.
        noise: covariance of the observation noise over the outputs; `DiagonalNoise(C)` by default.
        prior: makes the prior of W from the noise, in whose units it is.
        scale: p(λ), where every task has a scale of its own: the prior that is made has it, too, and phi has log λ
            beside W.

    Raises:
        ShapeError: `noise` does not have C outputs.
        UnsupportedError: the features are not a `Network`.

    Example:
        >>> import bayesmeta as bm
        >>> class SampledLastLayer(bm.learners.LastLayerRegression):
        ...     '''A last layer under a ridge prior, whose posterior `Sampled` draws.'''
        ...     def __init__(self, features):
        ...         super().__init__(features, 1, None, lambda noise: bm.priors.Ridge(features.num_outputs, noise))
        ...     def condition(self, support):
        ...         raise bm.UnsupportedError("expected a sampler to adapt: use Sampled")
        >>> learner = SampledLastLayer(bm.MLP(1, [8]))
        >>> log_joint = learner.log_joint(bm.Data.from_arrays([0.0, 1.0], [0.2, 0.4]))
        >>> log_joint({"weight": torch.zeros(1, 8, 1)}).shape
        torch.Size([1])
    """

    likelihood: Gaussian | ScaledGaussian

    def __init__(
        self,
        features: Network,
        num_outputs: int,
        noise: Noise | None,
        prior: Callable[[Noise], Prior],
        scale: TaskScale | None = None,
    ) -> None:
        super().__init__()
        require_network(features)
        self.noise_is_given = noise is not None
        noise = noise_over(num_outputs, noise, scale)
        self.features, self.prior, self.scale = features, prior(noise), scale
        self.likelihood = Gaussian(noise) if scale is None else ScaledGaussian(noise)
        self.x_shape, self.outcomes = features.x_shape, Numbers(num_outputs)
        # rows are weighted: those of several outputs share one weight, and a scale would scale what is known
        self.known_noise = num_outputs == 1 and scale is None

    def forward(self, phi: Params, x: Float[Tensor, "B M *x"]) -> Float[Tensor, "*s_B_M_K"]:
        """The mean of y at every point, and where tasks have scales log λ as a further column."""
        return self._outputs(phi, self.features(x))

    @override
    def joint(self, data: Data) -> LogJoint:
        # samplers call it thousands of times with the same features
        given, density, features = self.likelihood.given(data), self.prior.density(), self.features(data.x)
        return lambda phi: given(self._outputs(phi, features)) + density(phi)

    def _outputs(self, phi: Params, features: Float[Tensor, "B M F"]) -> Float[Tensor, "*s_B_M_K"]:
        mean = self.mean_given(phi["weight"], features)
        if self.scale is None:
            return mean
        log_scale = phi["log_scale"][..., None, None].to(mean.dtype)
        return torch.cat([mean, log_scale.expand(*mean.shape[:-1], 1)], -1)

    def mean_given(
        self, weight: Float[Tensor, "*s B F C"], features: Float[Tensor, "B M F"]
    ) -> Float[Tensor, "*s_B_M_C"]:
        """h(x) W.

        Args:
            weight: W.
            features: h(x).
        """
        features = features.to(weight.dtype)
        if weight.ndim == 3:
            return features @ weight
        # all draws of a task in one product, in place of a copy of its features for each
        return torch.einsum("bmf,...bfc->...bmc", features, weight)

    @override
    def prepare(self, tasks: Data) -> None:
        """Start the noise, where none was given and it has not been trained, and the scale of the prior from the tasks.

        They are those under which the evidence of the tasks is largest, with the features as they are.
        """
        if not self.noise_is_given and is_untouched(self.likelihood.noise):
            start_noise(self, self.likelihood.noise, self.conform(tasks), self.features)

    @override
    def configure_optimizer(self, lr: float = 1e-3) -> torch.optim.Optimizer:
        """Adam; the numbers of prior and noise, which set the scale of all else, go 10 times as fast."""
        return two_speeds(self, self.features, lr)

    def loss(self, tasks: TaskBatch) -> Float[Tensor, "B"]:
        """The mean of -log p(y | x, support, theta) over query points, each on its own, in nats.

        Harrison et al. 2018, eq. 11.
        """
        return marginal_loss(self, tasks)


class LinearLearner(LastLayerRegression):
    """Bayesian linear regression on features: the prior of W is Gaussian, and all else is exact.

    A subclass gives its prior of W to the constructor, and the same in numbers by `theta`.

    Example:
        >>> import bayesmeta as bm
        >>> from bayesmeta.learners.closed_form.linear_posterior import LinearTheta
        >>> class UnitPrior(bm.learners.LinearLearner):
        ...     '''Bayesian linear regression with W ~ MN(0, I, Σ): only the features and Σ are learned.'''
        ...     def __init__(self, features):
        ...         super().__init__(features, 1, None, lambda noise: bm.priors.Ridge(features.num_outputs, noise))
        ...         self.prior.precision.requires_grad_(False)
        ...     def theta(self):
        ...         return LinearTheta(
        ...             features=self.features,
        ...             location=self.prior.mean["weight"].double(),
        ...             factor=torch.ones(self.features.num_outputs, dtype=torch.float64),  # the diagonal of I
        ...             output_covariance=self.prior.noise.covariance().double(),
        ...         )
        >>> posterior = UnitPrior(bm.Identity(1)).adapt(bm.Data.from_arrays([0.0, 1.0, 2.0], [0.0, 1.0, 2.0]))
        >>> [round(weight, 2) for weight in posterior.mean["weight"].flatten().tolist()]  # intercept and slope, shrunk
        [0.2, 0.73]
    """

    @abstractmethod
    def theta(self) -> LinearTheta:
        """What inference needs of theta, in float64."""

    def evidence(self, data: Data) -> Float[Tensor, "B"]:
        """log p(y | x, theta) of each task, W integrated out, in nats."""
        theta = self.theta()
        if self.scale is not None:
            return self.scale.belief(data.num_tasks).log_evidence(*theta.quadratic_form(data))
        each = theta.in_chunks(partial(linear_gaussian.log_evidence, output_covariance=theta.output_covariance), data)
        return torch.cat(each) - log_jacobian(data, theta.output_covariance, theta.noise)

    @override
    def condition(self, support: Data) -> LinearPosterior:
        theta = once(self, self.theta)
        beliefs = theta.in_chunks(linear_gaussian.condition, support)
        scale = None
        if self.scale is not None:
            count, squares, _ = theta.quadratic_form(support)
            scale = self.scale.belief(support.num_tasks).after(count, squares)
        return LinearPosterior(spec=support.spec, theta=theta, beliefs=tuple(beliefs), seen=support.counts, scale=scale)
