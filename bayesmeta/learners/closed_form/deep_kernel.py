"""Deep kernel transfer: a Gaussian process on meta-learned features.

Patacchiola, Turner, Crowley, O'Boyle, Storkey 2020 (arXiv:1910.05199), eqs. 5-7:

    y = f(x) + ε,   f ~ GP(m, k(h(x), h(x'))),   ε ~ N(0, σ²)
    max_theta Σ_t log p(y_t | x_t, theta),   y_t all points of a task

    phi         f, a function
    prior       Gaussian process: constant mean m, any kernel of gpytorch on the features h
    likelihood  Gaussian
    inference   exact, in float64 whatever the precision of the features

Several outputs have Cov(f_c(x), f_c'(x')) = k(h(x), h(x')) Σ_cc' / σ̄², with Σ their noise covariance and σ̄² = |Σ|^(1/C)
the geometric mean of its variances: for one output k itself, in squared units of y, and for more the matrix-normal form
of ALPaCA. So all outputs have one kernel matrix and one Cholesky factor, and one with more noise has more signal; where
that is not so, give each a learner of its own.

With a `TaskScale` every task has λ k and λ Σ in place of k and Σ, λ ~ InvGamma(ν/2, (ν - 2)/2): a Student-t process
(Shah, Wilson, Ghahramani 2014, arXiv:1402.4306).
"""

from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.data import Data, TaskBatch
from bayesmeta.errors import ShapeError
from bayesmeta.hyperpriors import Hyperprior
from bayesmeta.inference import gaussian_process
from bayesmeta.inference.gaussian_process import GaussianProcess
from bayesmeta.inverse_gamma import InverseGamma
from bayesmeta.kernels import Gram, Kernel, RBFKernel, build, log_prior
from bayesmeta.learner import Learner, TaskPosterior
from bayesmeta.learners.closed_form.linear_posterior import noise_root, relative_noise
from bayesmeta.learners.closed_form.scale import is_untouched, start_noise, two_speeds
from bayesmeta.likelihoods import Gaussian
from bayesmeta.linalg import cholesky, logdet
from bayesmeta.networks.network import Network
from bayesmeta.networks.requirements import require_pointwise
from bayesmeta.noise import DiagonalNoise, Noise
from bayesmeta.outcomes import Numbers
from bayesmeta.predictives import GaussianPredictive, StudentTPredictive
from bayesmeta.priors import TaskScale


class DeepKernelTransfer(Learner):
    """Exact Gaussian process regression on features that all tasks share.

    theta is the weights of the features, the parameters of the kernel (`kernel`), m (`mean`) and Σ
    (`likelihood.noise`). With `Identity` features it is a Gaussian process on the inputs, whose hyperparameters are
    learned from many tasks.

    Args:
        features: h, a network with `num_outputs` = F features of each point on its own.
        num_outputs: C.
        kernel: k; `RBFKernel()` by default, any `Kernel`, or a gpytorch kernel without batch axes on F features. A
            model folder can store only the former: it holds no foreign objects.
        noise: Σ; `DiagonalNoise(C)` by default, or `FullNoise`.
        hyperprior: p(theta) besides the priors that the gpytorch kernel has registered; none by default.
        scale: p(λ), where every task has a scale of its own: `TaskScale()`. None for one scale of all tasks.

    Raises:
        ShapeError: a kernel on another number of features, or noise over other outputs. UnsupportedError: features that
            are not a `Network`, or not of each point on its own; something that is not a kernel of single points.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.DeepKernelTransfer(bm.MLP(1, [16, 8]), kernel=bm.kernels.MaternKernel(2.5))
        >>> tasks = bm.tasks.Sawtooth().dataset(20, 10, seed=0)
        >>> _ = bm.fit(learner, tasks, steps=50, progress=False)  # a real training takes thousands
        >>> posterior = learner.adapt(tasks.data.select([0]).points(slice(4)))
        >>> posterior
        posterior of 1 task after 4 points
        >>> lower, upper = posterior.predict([0.0, 1.0]).interval(0.9)
    """

    def __init__(
        self,
        features: Network,
        *,
        num_outputs: int = 1,
        kernel: Kernel | nn.Module | None = None,
        noise: Noise | None = None,
        hyperprior: Hyperprior | None = None,
        scale: TaskScale | None = None,
    ) -> None:
        super().__init__()
        require_pointwise(features)
        self.noise_is_given = noise is not None
        noise = DiagonalNoise(num_outputs) if noise is None else noise
        if noise.num_outputs != num_outputs:
            raise ShapeError(f"expected noise over {num_outputs} outputs, got {noise.num_outputs}")
        self.features, self.x_shape, self.outcomes = features, features.x_shape, Numbers(num_outputs)
        self.kernel = build(RBFKernel() if kernel is None else kernel, features.num_outputs)
        self.mean = nn.Parameter(torch.zeros(num_outputs))
        self.likelihood, self.scale = Gaussian(noise), scale
        self.hyperprior = hyperprior
        # a diagonal beside that of Σ: several outputs share one, and a task's scale leaves error bars as they are
        self.known_noise = num_outputs == 1 and scale is None

    @override
    def prepare(self, tasks: Data) -> None:
        """Start the noise, where none was given and it has not been trained, from the tasks: where their evidence is
        largest, with the features and the kernel as they are.
        """
        if not self.noise_is_given and is_untouched(self.likelihood.noise):
            start_noise(self, self.likelihood.noise, self.conform(tasks))

    @override
    def configure_optimizer(self, lr: float = 1e-3) -> torch.optim.Optimizer:
        """Adam; the numbers of kernel, mean and noise, which set the scale of all else, go 10 times as fast."""
        return two_speeds(self, self.features, lr)

    def loss(self, tasks: TaskBatch) -> Float[Tensor, "B"]:
        """-log p(support and query | theta) of each whole task, in nats per point (the paper's eq. 6)."""
        data = tasks.joined()
        return -self.evidence(data) / data.counts.clamp(min=1)

    def evidence(self, data: Data) -> Float[Tensor, "B"]:
        """log p(y | x, theta) of each task, f integrated out, in nats.

        Raises:
            InferenceError: the kernel matrix plus noise is not positive definite.
        """
        theta = self._theta()
        rows = _zero_padding(theta.rows(data.x), data.mask)
        kernel, residual = theta.gram_of(rows, data), theta.residual(data)
        if self.scale is not None:
            belief = gaussian_process.condition(kernel, residual, data.mask)
            return self.scale.belief(data.num_tasks).log_evidence(*belief.quadratic_form(theta.output_covariance))
        return gaussian_process.log_evidence(kernel, residual, data.mask, theta.output_covariance)

    def log_hyperprior(self) -> Float[Tensor, ""]:
        """log p(theta), in nats: the hyperprior, and the priors that the kernel has registered."""
        own = log_prior(self.kernel)
        return own if self.hyperprior is None else own + self.hyperprior.log_prob(dict(self.named_parameters()))

    @override
    def condition(self, support: Data) -> "DeepKernelPosterior":
        theta = self._theta()
        rows = _zero_padding(theta.rows(support.x), support.mask)
        belief = gaussian_process.condition(theta.gram_of(rows, support), theta.residual(support), support.mask)
        scale = None if self.scale is None else self.scale.belief(support.num_tasks)
        return DeepKernelPosterior(spec=support.spec, theta=theta, rows=rows, belief=belief, prior_scale=scale)

    def _theta(self) -> "_Theta":
        output_covariance = self.likelihood.noise.covariance().double()
        unit = (logdet(cholesky(output_covariance, "noise covariance")) / len(output_covariance)).exp()  # |Σ|^(1/C)
        noise = self.likelihood.noise
        return _Theta(self.features, Gram(self.kernel), self.mean.double(), output_covariance, unit, noise)


@dataclass(frozen=True, eq=False)
class _Theta:
    """theta as inference uses it, in float64."""

    features: Network
    kernel: "Gram"
    mean: Float[Tensor, "C"]
    output_covariance: Float[Tensor, "C C"]
    unit: Float[Tensor, ""]
    noise: Noise

    def rows(self, x: Float[Tensor, "B N *x"]) -> Float[Tensor, "B N F"]:
        """Features."""
        return self.features(x).double()

    def residual(self, data: Data) -> Float[Tensor, "B N C"]:
        """Outcomes less their prior mean."""
        return data.y.double() - self.mean

    def gram(self, a: Float[Tensor, "B N F"], b: Float[Tensor, "B M F"]) -> Float[Tensor, "B N M"]:
        """The kernel matrix in units of the noise."""
        return self.kernel(a, b) / self.unit

    def gram_of(self, rows: Float[Tensor, "B N F"], data: Data) -> Float[Tensor, "B N N"]:
        """The kernel matrix of points in units of the noise, and on its diagonal what their own noise is above 1."""
        root = noise_root(data, self.output_covariance, self.noise)
        return gaussian_process.with_noise(self.gram(rows, rows), None if root is None else root[..., 0].square())

    def diagonal(self, a: Float[Tensor, "B M F"]) -> Float[Tensor, "B M"]:
        """k(x, x) in units of the noise."""
        return self.kernel.diagonal(a) / self.unit


@dataclass(frozen=True, eq=False, kw_only=True)
class DeepKernelPosterior(TaskPosterior):
    """f | D, theta: the exact Gaussian process posterior.

    Attributes:
        theta: theta as it was when the task was adapted to.
        rows: features of the support, zero where padded.
        belief: the Gaussian process in units of the noise.
        prior_scale: p(λ) of each task; None where all tasks have λ = 1.
    """

    theta: _Theta
    rows: Float[Tensor, "B N F"]
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
            location=theta.mean + mean,
            latent_variance=variance,
            latent_covariance=partial(_covariance, theta, belief, cross, rows),
            output_covariance=theta.output_covariance,
            noise=1.0 if relative is None else relative,
        )
        scale = self.scale
        return gaussian if scale is None else StudentTPredictive(gaussian, scale)

    @override
    def selected(self, tasks: Int[Tensor, "K"]) -> "DeepKernelPosterior":
        spec = self.spec.of_tasks(len(tasks))
        scale = None if self.prior_scale is None else self.prior_scale.select(tasks)
        return replace(self, spec=spec, rows=self.rows[tasks], belief=self.belief.select(tasks), prior_scale=scale)

    @override
    def extended(self, data: Data) -> "DeepKernelPosterior":
        rows = _zero_padding(self.theta.rows(data.x), data.mask)
        cross, kernel = self.theta.gram(self.rows, rows), self.theta.gram_of(rows, data)
        belief = self.belief.append(cross, kernel, self.theta.residual(data), data.mask)
        return replace(self, rows=torch.cat([self.rows, rows], 1), belief=belief)


def _covariance(theta: _Theta, belief: GaussianProcess, cross: Tensor, rows: Tensor) -> Float[Tensor, "B M M"]:
    return belief.covariance(cross, theta.gram(rows, rows))


def _zero_padding(rows: Float[Tensor, "B N F"], mask: Bool[Tensor, "B N"]) -> Float[Tensor, "B N F"]:
    return torch.where(mask[..., None], rows, 0.0)
