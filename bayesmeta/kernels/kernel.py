"""What every kernel is, a description that a model folder can store, and the matrices of what it makes, in float64."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from bayesmeta.description import Described
from bayesmeta.errors import DataError, ShapeError, UnsupportedError
from bayesmeta.linalg import is_symbolic, require_matrix
from bayesmeta.snapshot import own_tree

if TYPE_CHECKING:
    import gpytorch


class Kernel(Described, ABC):
    """Which kernel a learner has, in a form that a model folder can store: `make` builds it for the number of features.

    A kernel of your own is a subclass whose `make` returns any gpytorch kernel, with gpytorch priors on its parameters
    if you like: they become part of `log_hyperprior`.

    Example:
        >>> import gpytorch
        >>> import bayesmeta as bm
        >>> class RationalQuadratic(bm.kernels.Kernel):
        ...     def __init__(self, alpha=1.0):
        ...         self.alpha = alpha
        ...     def make(self, num_features):
        ...         kernel = gpytorch.kernels.ScaleKernel(gpytorch.kernels.RQKernel())
        ...         kernel.base_kernel.alpha = self.alpha
        ...         return kernel
        >>> learner = bm.DeepKernelTransfer(bm.Identity(1), kernel=RationalQuadratic(2.0))
        >>> learner.adapt(bm.Data.from_arrays([0.0, 0.5, 1.0], [0.0, 1.0, 0.0]))
        posterior of 1 task after 3 points
    """

    @abstractmethod
    def make(self, num_features: int) -> "gpytorch.kernels.Kernel":
        """A fresh gpytorch kernel on F features, without batch axes."""


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
        if is_symbolic(size_n) or is_symbolic(size_m):  # any number of points, so that none is left out
            return self._evaluate(a, b)
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
        if not is_symbolic(a.shape[1]) and not a.shape[1]:
            return a.new_zeros(a.shape[:2])
        return self._evaluate(a, a, diag=True)

    def _evaluate(self, a: Tensor, b: Tensor, **arguments: bool) -> Tensor:
        import gpytorch
        from linear_operator import to_dense

        parameters = {name: value.double() for name, value in self.kernel.named_parameters()}
        with gpytorch.settings.lazily_evaluate_kernels(False):  # now, while the parameters are replaced
            return to_dense(functional_call(own_tree(self.kernel), parameters, (a, b), arguments))


def build(kernel: Kernel | nn.Module, num_features: int) -> Any:
    """The gpytorch kernel on F features, tried on a few points so that what is no such kernel fails here.

    Args:
        kernel: a description, or a gpytorch kernel itself.
        num_features: F.

    Raises:
        ShapeError: a kernel on another number of features.
        UnsupportedError: something that is not a kernel of single points, or has batch axes; gpytorch is not installed.
    """
    try:
        import gpytorch
    except ImportError as error:  # an installation without dependencies
        raise UnsupportedError("expected gpytorch for kernels, got none: pip install gpytorch") from error
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


def require_positive(**values: float) -> None:
    """Raise DataError for a value, given by its name, that is not positive and finite."""
    for name, value in values.items():
        if not 0.0 < value < float("inf"):
            raise DataError(f"expected a positive {name}, got {value}")
