"""What learners share whose phi is a function with a Gaussian process as its prior: inference is exact.

A learner gives `theta()`: the prior mean and the covariance of points, in float64. Several outputs have
Cov(f_c(x), f_c'(x')) = k(x, x') Σ_cc' / σ̄², with Σ their noise covariance and σ̄² = |Σ|^(1/C) the geometric mean of its
variances: for one output k itself, in squared units of y.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.data import Data, TaskBatch
from bayesmeta.errors import ShapeError
from bayesmeta.inference import gaussian_process
from bayesmeta.inference.gaussian_process import GaussianProcess
from bayesmeta.inverse_gamma import InverseGamma
from bayesmeta.learner import Learner, TaskPosterior
from bayesmeta.learners.closed_form.linear_posterior import noise_root, relative_noise
from bayesmeta.learners.closed_form.scale import is_untouched, noise_over, start_noise, two_speeds
from bayesmeta.likelihoods import Gaussian
from bayesmeta.linalg import cholesky, cholesky_with_jitter, logdet
from bayesmeta.networks.network import Network
from bayesmeta.networks.requirements import require_pointwise
from bayesmeta.noise import Noise
from bayesmeta.outcomes import Numbers
from bayesmeta.predictives import GaussianPredictive, StudentTPredictive
from bayesmeta.priors import TaskScale
from bayesmeta.snapshot import once


@dataclass(frozen=True, eq=False, kw_only=True)
class ProcessTheta(ABC):
    """theta as inference uses it, in float64.

    Attributes:
        features: h.
        mean: the prior mean of f, a constant for each output or a network.
        output_covariance: Σ.
        noise: what Σ is the covariance of; it may depend on x.
    """

    features: Network
    mean: Float[Tensor, "C"] | Network
    output_covariance: Float[Tensor, "C C"]
    noise: Noise

    @property
    def unit(self) -> Float[Tensor, ""]:
        """σ̄², the unit of covariances over points: |Σ|^(1/C)."""
        factor = cholesky(self.output_covariance, "noise covariance")
        return (logdet(factor) / len(self.output_covariance)).exp()

    def rows(self, x: Float[Tensor, "B N *x"]) -> Float[Tensor, "B N E"]:
        """What covariances are computed of: the features, and whatever else a process needs of a point."""
        return self.features(x).double()

    def location(self, x: Float[Tensor, "B N *x"], rows: Float[Tensor, "B N E"]) -> Float[Tensor, "... C"]:
        """The prior mean."""
        return (self.mean(x) if isinstance(self.mean, Network) else self.mean).double()

    def residual(self, data: Data, rows: Float[Tensor, "B N E"]) -> Float[Tensor, "B N C"]:
        """Outcomes less their prior mean."""
        return data.y.double() - self.location(data.x, rows)

    @abstractmethod
    def gram(self, a: Float[Tensor, "B N E"], b: Float[Tensor, "B M E"]) -> Float[Tensor, "B N M"]:
        """Prior covariances of f at points of a task, in units of the noise."""

    def gram_of(self, rows: Float[Tensor, "B N E"], data: Data) -> Float[Tensor, "B N N"]:
        """Prior covariances of points in units of the noise, and on the diagonal what their own noise is above 1."""
        root = noise_root(data, self.output_covariance, self.noise)
        return gaussian_process.with_noise(self.gram(rows, rows), None if root is None else root[..., 0].square())

    @abstractmethod
    def diagonal(self, a: Float[Tensor, "B M E"]) -> Float[Tensor, "B M"]:
        """Prior variances of f, in units of the noise."""


class ProcessLearner(Learner):
    """A learner of functions by exact Gaussian process regression. A subclass gives `theta`.

    Args:
        features: h, of each point on its own.
        num_outputs: C.
        mean: a network for the prior mean, or None for a constant.
        noise: Σ; `DiagonalNoise(C)`, started from the meta-training tasks, where it is None.
        scale: p(λ), where every task has a scale of its own; None for one scale of all tasks.

    Raises:
        ShapeError: a mean of other inputs, or noise over other outputs.
        UnsupportedError: features or a mean that are not a `Network`, or not of each point on its own.
    """

    def __init__(
        self,
        features: Network,
        num_outputs: int,
        mean: Network | None,
        noise: Noise | None,
        scale: TaskScale | None = None,
    ) -> None:
        super().__init__()
        require_pointwise(features)
        self.noise_is_given = noise is not None
        noise = noise_over(num_outputs, noise, scale)
        self.features, self.x_shape, self.outcomes = features, features.x_shape, Numbers(num_outputs)
        self.mean = _prior_mean(mean, features, num_outputs)
        self.likelihood, self.scale = Gaussian(noise), scale
        # a diagonal beside that of Σ: several outputs share one, and a scale would scale it
        self.known_noise = num_outputs == 1 and scale is None

    @abstractmethod
    def theta(self) -> ProcessTheta:
        """theta as inference uses it."""

    @override
    def prepare(self, tasks: Data) -> None:
        """Start the noise, where none was given and it has not been trained, from the tasks: where their evidence is
        largest, with the features and kernels as they are.
        """
        if not self.noise_is_given and is_untouched(self.likelihood.noise):
            start_noise(self, self.likelihood.noise, self.conform(tasks))

    @override
    def configure_optimizer(self, lr: float = 1e-3) -> torch.optim.Optimizer:
        """Adam; the numbers of kernel, mean and noise, which set the scale of all else, go 10 times as fast."""
        networks = [each for each in (self.features, self.mean) if isinstance(each, Network)]
        return two_speeds(self, nn.ModuleList(networks), lr)

    def loss(self, tasks: TaskBatch) -> Float[Tensor, "B"]:
        """-log p(support and query | theta) of each whole task, in nats per point."""
        data = tasks.joined()
        return -self.evidence(data) / data.counts.clamp(min=1)

    def evidence(self, data: Data) -> Float[Tensor, "B"]:
        """log p(y | x, theta) of each task, f integrated out, in nats.

        Raises:
            InferenceError: the kernel matrix plus noise is not positive definite.
        """
        theta = self.theta()
        rows = _zero_padding(theta.rows(data.x), data.mask)
        kernel, residual = theta.gram_of(rows, data), theta.residual(data, rows)
        if self.scale is not None:
            belief = gaussian_process.condition(kernel, residual, data.mask)
            return self.scale.belief(data.num_tasks).log_evidence(*belief.quadratic_form(theta.output_covariance))
        return gaussian_process.log_evidence(kernel, residual, data.mask, theta.output_covariance)

    @override
    def condition(self, support: Data) -> "ProcessPosterior":
        theta = once(self, self.theta)
        rows = _zero_padding(theta.rows(support.x), support.mask)
        kernel, residual = theta.gram_of(rows, support), theta.residual(support, rows)
        belief = gaussian_process.condition(kernel, residual, support.mask, cholesky_with_jitter)
        scale = None if self.scale is None else self.scale.belief(support.num_tasks)
        return ProcessPosterior(spec=support.spec, theta=theta, rows=rows, belief=belief, prior_scale=scale)


@dataclass(frozen=True, eq=False, kw_only=True)
class ProcessPosterior(TaskPosterior):
    """f | D, theta: the exact Gaussian process posterior.

    Attributes:
        theta: theta as it was when the task was adapted to.
        rows: what covariances with the support are computed of, zero where padded.
        belief: the Gaussian process in units of the noise.
        prior_scale: p(λ) of each task; None where all tasks have λ = 1.
    """

    theta: ProcessTheta
    rows: Float[Tensor, "B N E"]
    belief: GaussianProcess
    prior_scale: InverseGamma | None = None

    @property
    def scale(self) -> InverseGamma | None:
        """p(λ | D) of each task; None where all tasks have λ = 1."""
        if self.prior_scale is None:
            return None
        count, squares, _ = self.belief.quadratic_form(self.theta.output_covariance)
        return self.prior_scale.after(count, squares)

    @property
    @override
    def points_seen(self) -> Int[Tensor, "B"]:
        return self.belief.mask.sum(-1)

    @property
    @override
    def known_noise(self) -> bool:
        return len(self.theta.output_covariance) == 1 and self.prior_scale is None

    @override
    def at(self, x: Float[Tensor, "B M *x"]) -> GaussianPredictive | StudentTPredictive:
        theta, belief, rows = self.theta, self.belief, self.theta.rows(x)
        cross = theta.gram(self.rows, rows)
        mean, variance = belief.predict(cross, theta.diagonal(rows))
        relative = relative_noise(x, theta.noise)
        gaussian = GaussianPredictive(
            location=theta.location(x, rows) + mean,
            latent_variance=variance,
            latent_covariance=partial(_covariance, theta, belief, cross, rows),
            output_covariance=theta.output_covariance,
            noise=1.0 if relative is None else relative,
        )
        scale = self.scale
        return gaussian if scale is None else StudentTPredictive(gaussian, scale)

    @override
    def selected(self, tasks: Int[Tensor, "K"]) -> "ProcessPosterior":
        spec = self.spec.of_tasks(len(tasks))
        scale = None if self.prior_scale is None else self.prior_scale.select(tasks)
        return replace(self, spec=spec, rows=self.rows[tasks], belief=self.belief.select(tasks), prior_scale=scale)

    @override
    def extended(self, data: Data) -> "ProcessPosterior":
        rows = _zero_padding(self.theta.rows(data.x), data.mask)
        cross, kernel = self.theta.gram(self.rows, rows), self.theta.gram_of(rows, data)
        belief = self.belief.append(cross, kernel, self.theta.residual(data, rows), data.mask)
        return replace(self, rows=torch.cat([self.rows, rows], 1), belief=belief)


def _prior_mean(mean: Network | None, features: Network, num_outputs: int) -> nn.Parameter | Network:
    if mean is None:
        return nn.Parameter(torch.zeros(num_outputs))
    require_pointwise(mean)
    if mean.x_shape != features.x_shape:
        raise ShapeError(f"expected a mean of inputs of shape {features.x_shape}, got {mean.x_shape}")
    return mean.with_outputs(num_outputs)


def _covariance(theta: ProcessTheta, belief: GaussianProcess, cross: Tensor, rows: Tensor) -> Float[Tensor, "B M M"]:
    return belief.covariance(cross, theta.gram(rows, rows))


def _zero_padding(rows: Float[Tensor, "B N E"], mask: Bool[Tensor, "B N"]) -> Float[Tensor, "B N E"]:
    return torch.where(mask[..., None], rows, 0.0)
