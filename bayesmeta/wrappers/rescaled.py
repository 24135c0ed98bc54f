"""A Gaussian learner with other scales of signal and noise in each task, seen as a process over functions.

Where phi and the noise are Gaussian, all that theta says of the outcomes of a task is their mean m and their covariance
K ⊗ Σ + I ⊗ Σ, the prior predictive. With a signal b times and a noise a times as large it is

    y = m(x) + b f(x) + a ε,   Cov(y) = a² ((b/a)² K + I) ⊗ Σ

which is the process of the outcomes (y - m) / a with the ratio (b/a)² before its kernel. So the scales are had without
a look at how the learner holds its prior, at the price of a matrix over the points of a task.
"""

import math
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesmeta.data import Data
from bayesmeta.errors import InferenceError, UnsupportedError
from bayesmeta.inference import gaussian_process
from bayesmeta.inference.gaussian_process import GaussianProcess
from bayesmeta.learner import Learner
from bayesmeta.outcomes import Numbers
from bayesmeta.predictives import AffinePredictive, GaussianPredictive

QUERIES = 8, 64  # predicted at once, at least and at most: covariances among them are computed, and not wanted
NUMBERS = 2**24  # of covariances that are computed at once: 128 MB


@dataclass(frozen=True, eq=False)
class RescaledOutcomes:
    """The outcomes of T tasks under y = m(x) + b f(x) + a ε, in whatever units a and b will be.

    Attributes:
        residual: y - m, units of y.
        kernel: K, the prior covariance of f between the points in units of Σ.
        mask: True = real.
        output_covariance: Σ, squared units of y.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.ALPaCA(bm.Identity(1)).double()
        >>> data = bm.Data.from_arrays([0.0, 1.0, 2.0], [0.1, 0.9, 2.2])
        >>> outcomes, one = RescaledOutcomes.of(learner, data), torch.ones(1, dtype=torch.float64)
        >>> bool((outcomes.evidence(noise=one, signal=one) - learner.log_evidence(data)).abs() < 1e-9)
        True
        >>> bool(outcomes.evidence(noise=100.0 * one, signal=one) < outcomes.evidence(noise=one, signal=one))
        True
    """

    residual: Float[Tensor, "T N C"]
    kernel: Float[Tensor, "T N N"]
    mask: Bool[Tensor, "T N"]
    output_covariance: Float[Tensor, "C C"]

    @classmethod
    def of(cls, learner: Learner, data: Data) -> "RescaledOutcomes":
        """Those of points that are checked.

        Args:
            learner: whose prior predictive it is.
            data: the points, as the learner has them (`conform`).

        Raises:
            UnsupportedError: the prior predictive is not a `GaussianPredictive`.
        """
        prior = prior_predictive(learner, data.x)
        residual = data.y.double() - prior.mean
        return cls(residual, prior.noiseless.covariance(), data.mask, prior.output_covariance)

    def repeated(self, count: int) -> "RescaledOutcomes":
        """Each task so many times, the copies of a task in a row."""
        residual, kernel, mask = (v.repeat_interleave(count, 0) for v in (self.residual, self.kernel, self.mask))
        return RescaledOutcomes(residual, kernel, mask, self.output_covariance)

    def condition(self, noise: Float[Tensor, "T"], signal: Float[Tensor, "T"]) -> GaussianProcess:
        """f / a given the points, in units of Σ.

        Args:
            noise: a of each task.
            signal: b of each task.

        Raises:
            InferenceError: the covariance of a task's points is not positive definite.
        """
        return gaussian_process.condition(*self._standard(noise, signal), self.mask)

    def evidence(self, noise: Float[Tensor, "T"], signal: Float[Tensor, "T"]) -> Float[Tensor, "T"]:
        """log p(y | x, a, b, theta) of each task, in nats. Arguments and errors are those of `condition`."""
        standard = gaussian_process.log_evidence(*self._standard(noise, signal), self.mask, self.output_covariance)
        return standard - self.mask.sum(-1) * self.residual.shape[-1] * noise.log()

    def _standard(self, noise: Tensor, signal: Tensor) -> tuple[Tensor, Tensor]:
        return (signal / noise).square()[:, None, None] * self.kernel, self.residual / noise[:, None, None]


@dataclass(frozen=True, eq=False)
class RescaledPosterior:
    """f given the points of T tasks, each with scales of its own.

    Attributes:
        learner: whose prior predictive gives m, the covariance of f, and Σ.
        support: inputs of the points.
        noise: a of each task.
        signal: b of each task.
        belief: f / a in units of Σ.
        copies: so many tasks in a row have the same inputs, so that their prior predictive is computed once.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.ALPaCA(bm.Identity(1)).double()
        >>> data = bm.Data.from_arrays([0.0, 1.0, 2.0], [0.1, 0.9, 2.2])
        >>> noise, signal = torch.full((1,), 10.0).double(), torch.ones(1).double()
        >>> belief = RescaledOutcomes.of(learner, data).condition(noise, signal)
        >>> loud = RescaledPosterior(learner, data.x, noise, signal, belief).at(data.x)
        >>> bool(loud.variance.min() > 10.0)  # a hundred times the noise variance of 0.1
        True
    """

    learner: Learner
    support: Float[Tensor, "T N *x"]
    noise: Float[Tensor, "T"]
    signal: Float[Tensor, "T"]
    belief: GaussianProcess
    copies: int = 1

    def at(self, x: Float[Tensor, "T M *x"]) -> AffinePredictive:
        """The predictive at query points."""
        means, shifts, variances = [], [], []
        room = math.isqrt(NUMBERS // max(len(x) // self.copies, 1)) - self.support.shape[1]
        for part in x.split(min(max(room, QUERIES[0]), QUERIES[1]), 1) if x.shape[1] else [x]:
            prior = self._prior(part)
            cross, _ = self._kernels(prior)
            own = self._in_noise(prior.latent_variance[:, self.support.shape[1] :])
            mean, variance = self.belief.predict(cross, own)
            means.append(mean)
            variances.append(variance)
            shifts.append(prior.mean[:, self.support.shape[1] :].repeat_interleave(self.copies, 0))
        base = GaussianPredictive(
            location=torch.cat(means, 1),
            latent_variance=torch.cat(variances, 1),
            latent_covariance=partial(self._covariance, x),
            output_covariance=prior.output_covariance,
        )
        scale = self.noise[:, None, None].expand(-1, 1, base.shape[-1])
        return AffinePredictive(base, torch.cat(shifts, 1), scale)

    def _prior(self, x: Float[Tensor, "T M *x"]) -> GaussianPredictive:
        """At support and queries, once for all copies of a task."""
        return prior_predictive(self.learner, torch.cat([self.support, x], 1)[:: self.copies])

    def _kernels(self, prior: GaussianPredictive) -> tuple[Float[Tensor, "T N M"], Float[Tensor, "T M M"]]:
        """Between support and queries, and of the queries."""
        count = self.support.shape[1]
        columns = self._in_noise(prior.noiseless.covariance()[:, :, count:])
        return columns[:, :count], columns[:, count:]

    def _in_noise(self, kernel: Tensor) -> Tensor:
        ratio = (self.signal / self.noise).square()
        return ratio.view(-1, *[1] * (kernel.ndim - 1)) * kernel.repeat_interleave(self.copies, 0)

    def _covariance(self, x: Float[Tensor, "T M *x"]) -> Float[Tensor, "T M M"]:
        return self.belief.covariance(*self._kernels(self._prior(x)))


def prior_predictive(learner: Learner, x: Float[Tensor, "T N *x"]) -> GaussianPredictive:
    """What the learner predicts without any point: m and the covariance of f, in units of Σ.

    Args:
        learner: of numbers.
        x: inputs that are checked.

    Raises:
        UnsupportedError: the prior predictive is not a `GaussianPredictive`.

    Example:
        >>> import bayesmeta as bm
        >>> prior_predictive(bm.ALPaCA(bm.Identity(1)), torch.zeros(1, 1, 1))
        prediction at 1 point: mean [0], sd [0.447]
    """
    if not isinstance(learner.outcomes, Numbers):
        raise UnsupportedError(f"expected a learner of numbers, got {learner.title}")
    y = x.new_zeros(*x.shape[:2], learner.outcomes.count)
    found = learner.condition(Data.empty(Data.full(x, y))).at(x)
    if not isinstance(found, GaussianPredictive):
        raise UnsupportedError(f"expected a GaussianPredictive, got {type(found).__name__} of {learner.title}")
    return found


def require_gaussian_prior(learner: Learner, whose: str) -> None:
    """Refuse a learner whose prior predictive is not Gaussian with noise of its own at each point.

    Args:
        learner: what is asked for its prior predictive.
        whose: what needs it, for the message.

    Raises:
        UnsupportedError: the prior predictive is another.

    Example:
        >>> import bayesmeta as bm
        >>> require_gaussian_prior(bm.ALPaCA(bm.Identity(1)), "NoiseScale")  # raises nothing
        >>> try:
        ...     require_gaussian_prior(bm.ConditionalNeuralProcess(bm.Identity(1)), "NoiseScale")
        ... except UnsupportedError as error:
        ...     print(str(error).split(":")[0])
        expected a learner whose prior predictive is a GaussianPredictive for NoiseScale, got ConditionalNeuralProcess
    """
    if learner.x_shape is not None:
        dtype, device = learner.placement()
        try:
            with torch.no_grad():
                prior_predictive(learner, torch.zeros((1, 2, *learner.x_shape), dtype=dtype, device=device))
            return
        except (UnsupportedError, InferenceError):
            pass
    raise UnsupportedError(
        f"expected a learner whose prior predictive is a GaussianPredictive for {whose}, got {learner.title}: take "
        "ALPaCA, R2D2Regressor or DeepKernelTransfer, and put Standardized around the outside"
    )
