"""Kernels of the products of features: constants, lines and angles."""

from abc import abstractmethod
from typing import TYPE_CHECKING

import torch

from bayesmeta.kernels.kernel import Kernel, require_positive

if TYPE_CHECKING:
    import gpytorch


class ConstantKernel(Kernel):
    """k(h, h') = variance: a level of each task's own, anywhere.

    Args:
        variance: the starting variance, squared units of y.

    Raises:
        DataError: a variance that is not positive.

    Example:
        >>> import bayesmeta as bm
        >>> line = bm.kernels.SumKernel([bm.kernels.ConstantKernel(100.0), bm.kernels.LinearKernel(100.0)])
        >>> learner = bm.DeepKernelTransfer(bm.networks.Inputs(1), kernel=line)
        >>> posterior = learner.adapt(bm.Data.from_arrays([0.0, 1.0], [1.0, 3.0]))
        >>> round(posterior.predict([10.0]).mean.item())  # on the line 1 + 2 x
        21
    """

    def __init__(self, variance: float = 1.0) -> None:
        require_positive(variance=variance)
        self.variance = variance

    def make(self, num_features: int) -> "gpytorch.kernels.Kernel":
        """`gpytorch.kernels.ConstantKernel`."""
        from bayesmeta.kernels import modules

        kernel = modules.Constant()
        kernel.constant = torch.tensor(self.variance)
        return kernel


class _DotProduct(Kernel):
    """variance * a dot product.

    Args:
        variance: starting value, squared units of y for a unit of the product.

    Raises:
        DataError: a variance that is not positive.
    """

    def __init__(self, variance: float = 1.0) -> None:
        require_positive(variance=variance)
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
        """`gpytorch.kernels.LinearKernel`, with plain operations."""
        from bayesmeta.kernels import modules

        return modules.Linear()


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
        from bayesmeta.kernels import modules

        return modules.CosineSimilarity()
