"""Covariance functions of Gaussian processes on features h: descriptions of them, and their matrices in float64.

gpytorch gives kernel matrices and nothing else, and is imported when the first kernel is made.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from bayesmeta.description import Described
from bayesmeta.errors import DataError, ShapeError, UnsupportedError
from bayesmeta.linalg import require_matrix

if TYPE_CHECKING:
    import gpytorch

__all__ = [
    "CosineSimilarityKernel",
    "Kernel",
    "LinearKernel",
    "MaternKernel",
    "RBFKernel",
    "SpectralMixtureKernel",
]


class Kernel(Described, ABC):
    """Which kernel a learner has, in a form that a model folder can store: `make` builds it for the number of features.

    A kernel of your own is a subclass whose `make` returns any gpytorch kernel, with gpytorch priors on its parameters
    if you like: they become part of `log_hyperprior`.

    Example:
        >>> import gpytorch
        >>> import bayesmeta as bm
        >>> class PeriodicKernel(bm.kernels.Kernel):
        ...     def __init__(self, period=1.0):
        ...         self.period = period
        ...     def make(self, num_features):
        ...         kernel = gpytorch.kernels.ScaleKernel(gpytorch.kernels.PeriodicKernel())
        ...         kernel.base_kernel.period_length = self.period
        ...         return kernel
        >>> learner = bm.DeepKernelTransfer(bm.Identity(1), kernel=PeriodicKernel(2.0))
        >>> posterior = learner.adapt(bm.Data.from_arrays([0.0, 0.5, 1.0], [0.0, 1.0, 0.0]))
        >>> mean = posterior.predict([0.5, 2.5, 4.5]).mean  # three times the same place within a period
        >>> bool(mean.std() < 1e-4 * mean.mean())
        True
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
    """k(h, h') = variance * exp(-½ |h - h'|² / lengthscale²): very smooth functions of the features.

    Args:
        lengthscale: the starting length scale, units of the features.
        variance: the starting variance, squared units of y.
        per_feature: whether each feature has a length scale of its own.

    Raises:
        DataError: a value that is not positive.

    Example:
        >>> import bayesmeta as bm
        >>> kernel = bm.kernels.RBFKernel(lengthscale=2.0).make(num_features=1)
        >>> h = torch.tensor([[0.0], [2.0], [20.0]])
        >>> kernel(h).to_dense().round(decimals=4)
        tensor([[1.0000, 0.6065, 0.0000],
                [0.6065, 1.0000, 0.0000],
                [0.0000, 0.0000, 1.0000]], grad_fn=<...>)
        >>> learner = bm.DeepKernelTransfer(bm.MLP(1, [16]), kernel=bm.kernels.RBFKernel(lengthscale=2.0))
    """

    def correlation(self, ard_num_dims: int | None) -> "gpytorch.kernels.Kernel":
        """`gpytorch.kernels.RBFKernel`."""
        import gpytorch

        return gpytorch.kernels.RBFKernel(ard_num_dims=ard_num_dims)


class MaternKernel(_Stationary):
    """k(h, h') = variance * the Matérn correlation of smoothness ν: functions of the features with ν - ½ derivatives.

    Args:
        nu: ν, which is ½, 1½ or 2½. Near a distance of 0 the covariance of ½ is linear in it, and in tasks of more than
            25 points gpytorch computes distances only to 1e-8, even that of a point from itself.
        lengthscale: the starting length scale, units of the features.
        variance: the starting variance, squared units of y.
        per_feature: whether each feature has a length scale of its own.

    Raises:
        DataError: another ν, or a value that is not positive.

    Example:
        >>> import bayesmeta as bm
        >>> h = torch.tensor([[0.0], [1.0]])
        >>> for nu in (0.5, 1.5, 2.5):  # the correlation of points that are a length scale apart
        ...     print(nu, round(bm.kernels.MaternKernel(nu).make(num_features=1)(h).to_dense()[0, 1].item(), 4))
        0.5 0.3679
        1.5 0.4834
        2.5 0.524
        >>> learner = bm.DeepKernelTransfer(bm.Identity(1), kernel=bm.kernels.MaternKernel(0.5))  # rough functions
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


class _DotProduct(Kernel):
    """variance * a dot product.

    Args:
        variance: starting value, squared units of y for a unit of the product.

    Raises:
        DataError: a variance that is not positive.
    """

    def __init__(self, variance: float = 1.0) -> None:
        _require_positive(variance=variance)
        self.variance = variance

    @abstractmethod
    def product(self) -> "gpytorch.kernels.LinearKernel":
        """The kernel with gpytorch's own variance."""

    def make(self, num_features: int) -> "gpytorch.kernels.Kernel":
        """The product with its variance."""
        kernel = self.product()
        kernel.variance = self.variance
        return kernel


class LinearKernel(_DotProduct):
    """k(h, h') = variance * hᵀh': Bayesian linear regression on the features, ALPaCA with one prior variance.

    Args:
        variance: the starting variance, squared units of y for a unit of the product.

    Raises:
        DataError: a variance that is not positive.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.DeepKernelTransfer(bm.Identity(1), kernel=bm.kernels.LinearKernel(100.0))
        >>> posterior = learner.adapt(bm.Data.from_arrays([0.0, 1.0], [1.0, 3.0]))
        >>> round(posterior.predict([10.0]).mean.item())  # on the line 1 + 2 x
        21
    """

    def product(self) -> "gpytorch.kernels.LinearKernel":
        """`gpytorch.kernels.LinearKernel`."""
        import gpytorch

        return gpytorch.kernels.LinearKernel()


class CosineSimilarityKernel(_DotProduct):
    """k(h, h') = variance * hᵀh' / |h||h'|, and 0 where a feature vector is 0.

    Patacchiola et al. 2020 classify with it. (`gpytorch.kernels.CosineKernel` is something else: the cosine of a
    distance, a kernel in one dimension only.)

    Args:
        variance: the starting variance, squared units of y.

    Raises:
        DataError: a variance that is not positive.

    Example:
        >>> import bayesmeta as bm
        >>> kernel = bm.kernels.CosineSimilarityKernel().make(num_features=2)
        >>> kernel(torch.tensor([[1.0, 0.0], [5.0, 5.0]])).to_dense()  # the length of features does not matter
        tensor([[1.0000, 0.7071],
                [0.7071, 1.0000]], grad_fn=<...>)
    """

    def product(self) -> "gpytorch.kernels.LinearKernel":
        """A linear kernel on normalised features."""
        return _cosine_similarity()()


class SpectralMixtureKernel(Kernel):
    """Π_f Σ_q w_q exp(-2π² s_qf² (h_f - h'_f)²) cos(2π μ_qf (h_f - h'_f)): sums of waves, which extrapolate.

    Wilson & Adams 2013, as gpytorch has it: a product over features of mixtures of Q waves, here times a variance.
    gpytorch's Q components begin equal and, having equal gradients, stay so; here they begin at random frequencies,
    |N(0, frequency²)|, with weights 1 / Q. The evidence has many local maxima in them: train from several starts, and
    keep the best.

    Args:
        num_mixtures: Q.
        frequency: the size of the starting μ, waves per unit of a feature.
        bandwidth: the starting s, waves per unit of a feature.
        variance: the starting variance, squared units of y.

    Raises:
        DataError: no components, or a value that is not positive.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.DeepKernelTransfer(bm.Identity(1), kernel=bm.kernels.SpectralMixtureKernel(num_mixtures=2))
        >>> learner.kernel.base_kernel.mixture_means.shape  # μ: components, features (the constant is one)
        torch.Size([2, 1, 2])
        >>> learner.adapt(bm.Data.from_arrays([0.0, 1.0], [0.3, 0.7]))
        posterior of 1 task after 2 points
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


@dataclass(frozen=True, eq=False)
class Gram:
    """Matrices of a gpytorch kernel whose parameters are in float64: they are as precise as the features allow.

    Attributes:
        kernel: a gpytorch kernel without batch axes.
    """

    kernel: Any

    def __call__(self, a: Float[Tensor, "B N F"], b: Float[Tensor, "B M F"]) -> Float[Tensor, "B N M"]:
        """k(a_n, b_m)."""
        size_n, size_m = a.shape[1], b.shape[1]
        if size_n == 0 or size_m == 0:
            return a.new_zeros(a.shape[0], size_n, size_m)
        require_matrix(size_n, size_m)
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


def build(kernel: Kernel | nn.Module, num_features: int) -> Any:
    """The gpytorch kernel on F features, tried on a few points so that what is no such kernel fails here.

    Args:
        kernel: a description, or a gpytorch kernel itself.
        num_features: F.

    Raises:
        ShapeError: a kernel on another number of features. UnsupportedError: something that is not a kernel of single
            points, or has batch axes.
    """
    import gpytorch

    made = kernel.make(num_features) if isinstance(kernel, Kernel) else kernel
    if not isinstance(made, gpytorch.kernels.Kernel):
        raise UnsupportedError(
            "expected a kernel, such as bayesmeta.kernels.RBFKernel() or a gpytorch.kernels.Kernel, "
            f"got {type(made).__name__}"
        )
    if made.batch_shape:
        raise UnsupportedError(
            f"expected a kernel without batch axes, which all tasks share, got batch_shape {tuple(made.batch_shape)}"
        )
    points = torch.zeros(1, 3, num_features, dtype=torch.float64)
    try:
        with torch.no_grad():
            shape = Gram(made)._evaluate(points[:, :2], points).shape
    except (RuntimeError, IndexError) as error:
        raise ShapeError(f"expected a kernel on {num_features} features, got one that refuses them: {error}") from error
    if shape != (1, 2, 3):
        raise UnsupportedError(
            f"expected a kernel with one covariance for two points, got {type(made).__name__}, "
            f"whose matrix between 2 and 3 points has shape {tuple(shape[1:])}"
        )
    return made


def log_prior(kernel: Any) -> Float[Tensor, ""]:
    """log p of the parameters of a gpytorch kernel under the priors that it has registered, in nats.

    Args:
        kernel: a gpytorch kernel; without registered priors the result is 0.
    """
    total = torch.zeros((), dtype=torch.float64)
    for _, module, prior, closure, _ in kernel.named_priors():
        total = total + prior.log_prob(closure(module)).sum()
    return total


@cache
def _cosine_similarity() -> Any:
    """The class, made when it is first wanted: its base is gpytorch's."""
    import gpytorch

    class CosineSimilarity(gpytorch.kernels.LinearKernel):  # type: ignore[misc]
        def forward(self, x1: Tensor, x2: Tensor, **arguments: Any) -> Any:
            return super().forward(*(nn.functional.normalize(x, dim=-1) for x in (x1, x2)), **arguments)

    CosineSimilarity.__qualname__ = "CosineSimilarity"  # where pickle looks for it
    return CosineSimilarity


def __getattr__(name: str) -> Any:
    if name == "CosineSimilarity":
        return _cosine_similarity()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _require_positive(**values: float) -> None:
    for name, value in values.items():
        if not 0.0 < value < float("inf"):
            raise DataError(f"expected a positive {name}, got {value}")
