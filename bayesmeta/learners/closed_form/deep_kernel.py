"""Deep kernel transfer: a Gaussian process on meta-learned features.

Patacchiola, Turner, Crowley, O'Boyle, Storkey 2020 (arXiv:1910.05199), eqs. 5-7:

    y = f(x) + ε,   f ~ GP(m, k(φ(x), φ(x'))),   ε ~ N(0, σ²)
    max_theta Σ_t log p(y_t | x_t, theta),   y_t all points of a task

    phi         f, a function
    prior       Gaussian process: constant mean m, any kernel of gpytorch on the features φ
    likelihood  Gaussian
    inference   exact, in float64 whatever the precision of the features

Several outputs have Cov(f_c(x), f_c'(x')) = k(φ(x), φ(x')) Σ_cc' / σ̄², with Σ their noise covariance and σ̄² = |Σ|^(1/C)
the geometric mean of its variances: for one output k itself, in squared units of y, and for more the matrix-normal form
of ALPaCA. So all outputs have one kernel matrix and one Cholesky factor, and one with more noise has more signal; where
that is not so, give each a learner of its own.

gpytorch gives kernel matrices and nothing else, and is imported when the first kernel is made.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.func import functional_call

from bayesmeta.classes import Classes
from bayesmeta.data import Data, TaskBatch
from bayesmeta.description import Described
from bayesmeta.errors import DataError, ShapeError, UnsupportedError
from bayesmeta.hyperpriors import Hyperprior
from bayesmeta.inference import gaussian_process
from bayesmeta.inference.gaussian_process import GaussianProcess
from bayesmeta.learner import Learner, TaskPosterior
from bayesmeta.learners.closed_form._classifier import HeadClassifier, Scores
from bayesmeta.likelihoods import Gaussian
from bayesmeta.linalg import cholesky, logdet
from bayesmeta.networks.network import Network
from bayesmeta.noise import DiagonalNoise, Noise, Positive
from bayesmeta.predictives import GaussianPredictive

if TYPE_CHECKING:
    import gpytorch

LABEL_NOISE_BOUNDS = (1e-6, 1e6)


class Kernel(Described, ABC):
    """Which kernel a learner has, as a model folder can store it: `make` builds it for the number of features.

    A kernel of your own is a subclass whose `make` returns any gpytorch kernel, with gpytorch priors on its parameters
    if you like: they become part of `log_hyperprior`.
    """

    @abstractmethod
    def make(self, num_features: int) -> "gpytorch.kernels.Kernel":
        """A fresh gpytorch kernel on F features, without batch axes."""


class _Stationary(Kernel):
    """variance * a correlation that falls with the distance of the features.

    Args:
        lengthscale: starting value, units of the features.
        variance: starting value, squared units of y.
        per_feature: whether each feature has a length scale of its own.

    Raises:
        DataError: a value that is not positive.
    """

    def __init__(self, lengthscale: float = 1.0, variance: float = 1.0, per_feature: bool = False) -> None:
        _require_positive(lengthscale=lengthscale, variance=variance)
        self.lengthscale, self.variance, self.per_feature = lengthscale, variance, per_feature

    @abstractmethod
    def correlation(self, ard_num_dims: int | None) -> "gpytorch.kernels.Kernel":
        """The kernel without its variance."""

    def make(self, num_features: int) -> "gpytorch.kernels.Kernel":
        """A `ScaleKernel` of the correlation."""
        import gpytorch

        kernel = gpytorch.kernels.ScaleKernel(self.correlation(num_features if self.per_feature else None))
        kernel.base_kernel.lengthscale, kernel.outputscale = self.lengthscale, self.variance
        return kernel


class RBFKernel(_Stationary):
    """variance * exp(-½ |φ - φ'|² / lengthscale²)."""

    def correlation(self, ard_num_dims: int | None) -> "gpytorch.kernels.Kernel":
        """`gpytorch.kernels.RBFKernel`."""
        import gpytorch

        return gpytorch.kernels.RBFKernel(ard_num_dims=ard_num_dims)


class MaternKernel(_Stationary):
    """variance * Matérn correlation of smoothness ν: functions with ν - ½ derivatives.

    Args:
        nu: ½, 1½ or 2½. With ½ a covariance is linear in the distance, which gpytorch gives to 1e-8 only in tasks of
            more than 25 points, even of a point from itself.
        lengthscale: starting value, units of the features.
        variance: starting value, squared units of y.
        per_feature: whether each feature has a length scale of its own.

    Raises:
        DataError: another ν, or a value that is not positive.
    """

    def __init__(
        self, nu: float = 2.5, lengthscale: float = 1.0, variance: float = 1.0, per_feature: bool = False
    ) -> None:
        super().__init__(lengthscale, variance, per_feature)
        if nu not in (0.5, 1.5, 2.5):
            raise DataError(f"expected nu of 0.5, 1.5 or 2.5, got {nu}")
        self.nu = nu

    def correlation(self, ard_num_dims: int | None) -> "gpytorch.kernels.Kernel":
        """`gpytorch.kernels.MaternKernel`."""
        import gpytorch

        return gpytorch.kernels.MaternKernel(nu=self.nu, ard_num_dims=ard_num_dims)


class LinearKernel(Kernel):
    """variance * φᵀφ': Bayesian linear regression on the features, ALPaCA with one prior variance.

    Args:
        variance: starting value of each weight's variance, squared units of y per feature.

    Raises:
        DataError: a variance that is not positive.
    """

    def __init__(self, variance: float = 1.0) -> None:
        _require_positive(variance=variance)
        self.variance = variance

    def make(self, num_features: int) -> "gpytorch.kernels.Kernel":
        """`gpytorch.kernels.LinearKernel`."""
        import gpytorch

        kernel = gpytorch.kernels.LinearKernel()
        kernel.variance = self.variance
        return kernel


class CosineSimilarityKernel(Kernel):
    """variance * φᵀφ' / |φ||φ'|, 0 where a feature vector is 0: the paper's choice for classification.

    (`gpytorch.kernels.CosineKernel` is something else: the cosine of a distance, a kernel in one dimension only.)

    Args:
        variance: starting value, squared units of y.

    Raises:
        DataError: a variance that is not positive.
    """

    def __init__(self, variance: float = 1.0) -> None:
        _require_positive(variance=variance)
        self.variance = variance

    def make(self, num_features: int) -> "gpytorch.kernels.Kernel":
        """A linear kernel on normalised features."""
        kernel = _cosine_similarity()()
        kernel.variance = self.variance
        return kernel


class SpectralMixtureKernel(Kernel):
    """Π_f Σ_q w_q exp(-2π² s_qf² (φ_f - φ'_f)²) cos(2π μ_qf (φ_f - φ'_f)): sums of waves, which extrapolate.

    Wilson & Adams 2013, as gpytorch has it: a product over features of mixtures of Q waves, here times a variance.
    gpytorch's Q components begin equal and, having equal gradients, stay so; here they begin at random frequencies,
    |N(0, frequency²)|, with weights 1 / Q. The evidence has many local maxima in them: train from several starts, and
    keep the best.

    Args:
        num_mixtures: Q.
        frequency: size of the starting μ, waves per unit of a feature.
        bandwidth: starting s, waves per unit of a feature.
        variance: starting value, squared units of y.

    Raises:
        DataError: no components, or a value that is not positive.
    """

    def __init__(
        self, num_mixtures: int = 4, frequency: float = 0.5, bandwidth: float = 0.01, variance: float = 1.0
    ) -> None:
        if num_mixtures < 1:
            raise DataError(f"expected at least one mixture component, got {num_mixtures}")
        _require_positive(frequency=frequency, bandwidth=bandwidth, variance=variance)
        self.num_mixtures, self.frequency = num_mixtures, frequency
        self.bandwidth, self.variance = bandwidth, variance

    def make(self, num_features: int) -> "gpytorch.kernels.Kernel":
        """A `ScaleKernel` of `gpytorch.kernels.SpectralMixtureKernel`, from torch's global generator."""
        import gpytorch

        base = gpytorch.kernels.SpectralMixtureKernel(self.num_mixtures, ard_num_dims=num_features)
        base.mixture_means = (self.frequency * torch.randn(self.num_mixtures, 1, num_features)).abs() + 1e-6
        base.mixture_scales = torch.full((self.num_mixtures, 1, num_features), self.bandwidth)
        base.mixture_weights = torch.full((self.num_mixtures,), 1.0 / self.num_mixtures)
        kernel = gpytorch.kernels.ScaleKernel(base)
        kernel.outputscale = self.variance
        return kernel


class DeepKernelTransfer(Learner):
    """Exact Gaussian process regression on features that all tasks share.

    theta = the features' weights, the kernel's parameters (`kernel`), m (`mean`) and Σ (`likelihood.noise`). With
    `Identity` features it is a Gaussian process on the inputs, whose hyperparameters are learned from many tasks.

    Args:
        features: φ, a network with `num_outputs` = F features of each point on its own.
        num_outputs: C.
        kernel: k; `RBFKernel()` by default, any `Kernel`, or a gpytorch kernel without batch axes on F features. A
            model folder can store only the former: it holds no foreign objects.
        noise: Σ; `DiagonalNoise(C)` by default, or `FullNoise`.
        hyperprior: p(theta) besides the priors that the gpytorch kernel has registered; none by default.

    Raises:
        ShapeError: a kernel on another number of features, or noise over other outputs. UnsupportedError: features that
            are not a `Network`, or not of each point on its own; something that is not a kernel of single points.
    """

    def __init__(
        self,
        features: Network,
        num_outputs: int = 1,
        kernel: "Kernel | gpytorch.kernels.Kernel | None" = None,
        noise: Noise | None = None,
        hyperprior: Hyperprior | None = None,
    ) -> None:
        super().__init__()
        _require_pointwise(features)
        noise = DiagonalNoise(num_outputs) if noise is None else noise
        if noise.num_outputs != num_outputs:
            raise ShapeError(f"expected noise over {num_outputs} outputs, got {noise.num_outputs}")
        self.features, self.x_shape, self.num_outputs = features, features.x_shape, num_outputs
        self.kernel = _made(kernel, features.num_outputs)
        self.mean = nn.Parameter(torch.zeros(num_outputs))
        self.likelihood = Gaussian(noise)
        self.hyperprior = hyperprior

    def conform(self, data: Data) -> Data:
        """`data` in the learner's precision and on its device. Raises UnsupportedError for labels."""
        data = super().conform(data)
        if not data.y.is_floating_point():
            raise UnsupportedError(
                f"expected floating outcomes for {type(self).__name__}, got labels: use DeepKernelClassifier"
            )
        return data

    def meta_loss(self, tasks: TaskBatch) -> Float[Tensor, "B"]:
        """-log p(support and query | theta) of each whole task, in nats per point (the paper's eq. 6)."""
        tasks = self.conform_tasks(tasks)
        data = tasks.support.append(tasks.query)
        return -self.log_evidence(data) / data.counts.clamp(min=1)

    def log_evidence(self, data: Data) -> Float[Tensor, "B"]:
        """log p(y | x, theta) of each task, f integrated out, in nats.

        Raises:
            InferenceError: the kernel matrix plus noise is not positive definite.
        """
        data, theta = self.conform(data), self._theta()
        rows = _zero_padding(theta.rows(data.x), data.mask)
        return gaussian_process.log_evidence(theta.gram(rows, rows), theta.residual(data), data.mask, theta.columns)

    def log_hyperprior(self) -> Float[Tensor, ""]:
        """log p(theta), in nats: the hyperprior, and the priors that the kernel has registered."""
        return _log_hyperprior(self, self.kernel, self.hyperprior)

    def _adapt(self, support: Data) -> "DeepKernelPosterior":
        theta = self._theta()
        rows = _zero_padding(theta.rows(support.x), support.mask)
        belief = gaussian_process.condition(theta.gram(rows, rows), theta.residual(support), support.mask)
        return DeepKernelPosterior(spec=support.spec, theta=theta, rows=rows, belief=belief)

    def _theta(self) -> "_Theta":
        columns = self.likelihood.noise.covariance().double()
        unit = (logdet(cholesky(columns, "noise covariance")) / len(columns)).exp()  # |Σ|^(1/C)
        return _Theta(self.features, _Gram(self.kernel), self.mean.double(), columns, unit)


@dataclass(frozen=True, eq=False)
class _Theta:
    """theta as inference uses it, in float64."""

    features: Network
    kernel: "_Gram"
    mean: Float[Tensor, "C"]
    columns: Float[Tensor, "C C"]
    unit: Float[Tensor, ""]

    def rows(self, x: Float[Tensor, "B N *x"]) -> Float[Tensor, "B N F"]:
        """Features."""
        return self.features(x).double()

    def residual(self, data: Data) -> Float[Tensor, "B N C"]:
        """Outcomes less their prior mean."""
        return data.y.double() - self.mean

    def gram(self, a: Float[Tensor, "B N F"], b: Float[Tensor, "B M F"]) -> Float[Tensor, "B N M"]:
        """The kernel matrix in units of the noise."""
        return self.kernel(a, b) / self.unit

    def diagonal(self, a: Float[Tensor, "B M F"]) -> Float[Tensor, "B M"]:
        """k(x, x) in units of the noise."""
        return self.kernel.diagonal(a) / self.unit


@dataclass(frozen=True, eq=False, kw_only=True)
class DeepKernelPosterior(TaskPosterior):
    """f | D, theta: a Gaussian process, exact.

    Attributes:
        theta: what adapt knew of theta.
        rows: features of the support, zero where padded.
        belief: the Gaussian process in units of the noise.
    """

    theta: _Theta
    rows: Float[Tensor, "B N F"]
    belief: GaussianProcess

    def _predict(self, x: Float[Tensor, "B M *x"]) -> GaussianPredictive:
        theta, belief, rows = self.theta, self.belief, self.theta.rows(x)
        cross = theta.gram(self.rows, rows)
        mean, variance = belief.predict(cross, theta.diagonal(rows))
        return GaussianPredictive(
            location=theta.mean + mean,
            latent_variance=variance,
            latent_covariance=lambda: belief.covariance(cross, theta.gram(rows, rows)),
            columns=theta.columns,
        )

    def _update(self, data: Data) -> "DeepKernelPosterior":
        rows = _zero_padding(self.theta.rows(data.x), data.mask)
        cross, kernel = self.theta.gram(self.rows, rows), self.theta.gram(rows, rows)
        belief = self.belief.append(cross, kernel, self.theta.residual(data), data.mask)
        return replace(self, rows=torch.cat([self.rows, rows], 1), belief=belief)


class DeepKernelClassifier(HeadClassifier):
    """Classification by Gaussian process regression on labels of ±1, one class against the rest.

    The paper's choice (sec. 4.2): the labels of each class are regressed on as numbers, with a Gaussian process of one
    kernel for all. Its mean and variance then go through the calibrated softmax of all classifiers here, whose two
    numbers are learned by the predictive density of the query labels, as is all of theta. The paper has a sigmoid of
    the mean, and learns by the evidence of the ±1. A constant mean would change no probability: it is the same for all
    classes.

    theta = the features' weights, the kernel's parameters (`kernel`), the noise variance of the labels (`noise`),
    `scale` and `spread`.

    Args:
        features: φ, a network with `num_outputs` = F features of each point on its own.
        num_classes: C; None: the classes of each task are those of its support.
        kernel: as for `DeepKernelTransfer`; `CosineSimilarityKernel()` by default.
        noise: starting noise variance of the labels.
        scale: starting a, nats for a unit of score.
        spread: starting s², in units of the posterior variance.
        hyperprior: as for `DeepKernelTransfer`.

    Raises:
        ShapeError: a kernel on another number of features. UnsupportedError: features that are not a `Network`, or not
            of each point on its own; something that is not a kernel of single points. DataError: fewer than two
            classes, or a value out of bounds.
    """

    def __init__(
        self,
        features: Network,
        num_classes: int | None = None,
        kernel: "Kernel | gpytorch.kernels.Kernel | None" = None,
        noise: float = 0.1,
        scale: float = 5.0,
        spread: float = 1.0,
        hyperprior: Hyperprior | None = None,
    ) -> None:
        super().__init__(features, num_classes, scale, spread)
        self.kernel = _made(CosineSimilarityKernel() if kernel is None else kernel, features.num_outputs)
        self.noise = Positive((), noise, LABEL_NOISE_BOUNDS)
        self.hyperprior = hyperprior

    def log_hyperprior(self) -> Float[Tensor, ""]:
        """log p(theta), in nats: the hyperprior, and the priors that the kernel has registered."""
        return _log_hyperprior(self, self.kernel, self.hyperprior)

    def solve(
        self,
        rows: Float[Tensor, "B N F"],
        targets: Float[Tensor, "B N C"],
        mask: Bool[Tensor, "B N"],
        classes: Classes,
    ) -> "KernelScores":
        """Regression on labels of ±1.

        Raises:
            InferenceError: the kernel matrix plus noise is not positive definite.
        """
        kernel, noise = _Gram(self.kernel), self.noise().double()
        belief = gaussian_process.condition(kernel(rows, rows) / noise, 2.0 * targets - 1.0, mask)
        return KernelScores(kernel, noise, rows, belief)


class KernelScores(Scores):
    """Scores of a Gaussian process on labels of ±1: all classes have one variance."""

    def __init__(
        self, kernel: "_Gram", noise: Float[Tensor, ""], support: Float[Tensor, "B N F"], belief: GaussianProcess
    ) -> None:
        self.kernel, self.noise, self.support, self.belief = kernel, noise, support, belief

    def at(self, rows: Float[Tensor, "B M F"]) -> tuple[Float[Tensor, "B M C"], Float[Tensor, "B M 1"]]:
        """Posterior mean and variance, of a score between labels of -1 and 1."""
        cross, prior = self.kernel(self.support, rows) / self.noise, self.kernel.diagonal(rows) / self.noise
        mean, variance = self.belief.predict(cross, prior)
        return mean, (self.noise * variance)[..., None]


@dataclass(frozen=True, eq=False)
class _Gram:
    """Matrices of a gpytorch kernel whose parameters are in float64: they are as precise as the features allow."""

    kernel: Any

    def __call__(self, a: Float[Tensor, "B N F"], b: Float[Tensor, "B M F"]) -> Float[Tensor, "B N M"]:
        size_n, size_m = a.shape[1], b.shape[1]
        if size_n == 0 or size_m == 0:
            return a.new_zeros(a.shape[0], size_n, size_m)
        # where both sets of points are equal, gpytorch takes sums and products of kernels by way of roots, to which it
        # adds jitter: points that are left out again keep them unequal
        extra = 2 if size_m + 1 == size_n else 1
        longer = torch.cat([b, b.new_zeros(b.shape[0], extra, b.shape[2])], 1)
        return self._evaluate(a, longer)[..., :size_m]

    def diagonal(self, a: Float[Tensor, "B M F"]) -> Float[Tensor, "B M"]:
        """k(x, x) of each point."""
        return self._evaluate(a, a, diag=True) if a.shape[1] else a.new_zeros(a.shape[:2])

    def _evaluate(self, a: Tensor, b: Tensor, **arguments: bool) -> Tensor:
        import gpytorch
        from linear_operator import to_dense

        parameters = {name: value.double() for name, value in self.kernel.named_parameters()}
        with gpytorch.settings.lazily_evaluate_kernels(False):  # now, while the parameters are replaced
            return to_dense(functional_call(self.kernel, parameters, (a, b), arguments))


@cache
def _cosine_similarity() -> Any:
    """The class, made when it is first wanted: its base is gpytorch's."""
    import gpytorch

    class CosineSimilarity(gpytorch.kernels.LinearKernel):  # type: ignore[misc]
        def forward(self, x1: Tensor, x2: Tensor, **arguments: Any) -> Any:
            return super().forward(*(nn.functional.normalize(x, dim=-1) for x in (x1, x2)), **arguments)

    return CosineSimilarity


def _made(kernel: Any, num_features: int) -> Any:
    """The gpytorch kernel, tried on a few points."""
    import gpytorch

    made = RBFKernel() if kernel is None else kernel
    made = made.make(num_features) if isinstance(made, Kernel) else made
    if not isinstance(made, gpytorch.kernels.Kernel):
        raise UnsupportedError(
            f"expected a kernel, such as bayesmeta.RBFKernel() or a gpytorch.kernels.Kernel, got {type(made).__name__}"
        )
    if made.batch_shape:
        raise UnsupportedError(
            f"expected a kernel without batch axes, which all tasks share, got batch_shape {tuple(made.batch_shape)}"
        )
    points = torch.zeros(1, 3, num_features, dtype=torch.float64)
    try:
        with torch.no_grad():
            shape = _Gram(made)._evaluate(points[:, :2], points).shape
    except (RuntimeError, IndexError) as error:
        raise ShapeError(f"expected a kernel on {num_features} features, got one that refuses them: {error}") from error
    if shape != (1, 2, 3):
        raise UnsupportedError(
            f"expected a kernel with one covariance for two points, got {type(made).__name__}, "
            f"whose matrix between 2 and 3 points has shape {tuple(shape[1:])}"
        )
    return made


def _require_pointwise(features: Network) -> None:
    if not isinstance(features, Network):
        raise UnsupportedError(
            f"expected features that inherit bayesmeta.Network, which says x_shape and num_outputs, "
            f"got {type(features).__name__}: call yours in the forward of a Network"
        )
    if not features.pointwise:
        raise UnsupportedError(
            "expected features of each point on its own, got statistics over the points of a task, with which no "
            "Gaussian process is defined: use norm='group'"
        )


def _require_positive(**values: float) -> None:
    for name, value in values.items():
        if not 0.0 < value < float("inf"):
            raise DataError(f"expected a positive {name}, got {value}")


def _zero_padding(rows: Float[Tensor, "B N F"], mask: Bool[Tensor, "B N"]) -> Float[Tensor, "B N F"]:
    return torch.where(mask[..., None], rows, 0.0)


def _log_hyperprior(learner: Learner, kernel: Any, hyperprior: Hyperprior | None) -> Tensor:
    total = torch.zeros((), dtype=torch.float64, device=next(learner.parameters()).device)
    for _, module, prior, closure, _ in kernel.named_priors():
        total = total + prior.log_prob(closure(module)).sum()
    return total if hyperprior is None else total + hyperprior.log_prob(dict(learner.named_parameters()))
