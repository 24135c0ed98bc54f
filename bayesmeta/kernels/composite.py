"""Kernels made of kernels: sums, products, multiples, and kernels that see some of the features.

Every kernel of the library has a variance of its own. A sum keeps them all; of a product only one could be learned from
data, so that the first factor keeps its own and the variances of the others are held where they start.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bayesmeta.errors import DataError, ShapeError
from bayesmeta.kernels.kernel import Kernel, require_positive

if TYPE_CHECKING:
    import gpytorch


class _Composite(Kernel):
    """Made of kernels on the same features.

    Args:
        kernels: what it is made of.

    Raises:
        DataError: no kernels.
    """

    def __init__(self, kernels: Sequence[Kernel]) -> None:
        self.kernels = tuple(kernels)
        if not self.kernels:
            raise DataError("expected at least one kernel, got none")


class SumKernel(_Composite):
    """k(h, h') = Σ_i k_i(h, h'): a function that is a sum of independent functions, one of each kernel.

    Args:
        kernels: the terms.

    Raises:
        DataError: no kernels.

    Example:
        >>> import bayesmeta as bm
        >>> kernels = bm.kernels
        >>> wave = kernels.ProductKernel([kernels.RBFKernel(lengthscale=10.0), kernels.CosineKernel(period=4.0)])
        >>> kernel = kernels.SumKernel([kernels.ConstantKernel(), kernels.LinearKernel(), wave])
        >>> learner = bm.DeepKernelTransfer(bm.networks.Inputs(1), kernel=kernel)
        >>> sum(p.numel() for p in learner.parameters())  # with the mean and the noise
        7
    """

    def make(self, num_features: int) -> "gpytorch.kernels.Kernel":
        """The sum of what the terms make."""
        from bayesmeta.kernels import modules

        return modules.Sum(*(kernel.make(num_features) for kernel in self.kernels))


class ProductKernel(_Composite):
    """k(h, h') = Π_i k_i(h, h'): points are alike where they are alike for every factor.

    Only one variance is learned, that of the first factor; those of the others are held where they start.

    Args:
        kernels: the factors.

    Raises:
        DataError: no kernels.

    Example:
        >>> import torch
        >>> import bayesmeta as bm
        >>> kernel = bm.kernels.ProductKernel([bm.kernels.RBFKernel(variance=3.0), bm.kernels.PeriodicKernel()])
        >>> made = kernel.make(num_features=1)
        >>> made(torch.tensor([[0.0], [1.0]])).to_dense()[0].round(decimals=3)  # a period apart: the RBF alone
        tensor([3.0000, 1.8200], grad_fn=<...>)
        >>> [name for name, _ in made.named_parameters() if "variance" in name or "scale" in name.split("_")[-1]]
        ['kernels.0.raw_outputscale', 'kernels.0.base_kernel.raw_lengthscale', 'kernels.1.base_kernel.raw_lengthscale']
    """

    def make(self, num_features: int) -> "gpytorch.kernels.Kernel":
        """The product of what the factors make."""
        from bayesmeta.kernels import modules

        made = [kernel.make(num_features) for kernel in self.kernels]
        for factor in made[1:]:
            modules.hold_variance(factor)
        return modules.Product(*made)


class ScaledKernel(Kernel):
    """k(h, h') = variance * k_0(h, h'): a variance for a kernel of your own that has none.

    Args:
        kernel: k_0, whose own variance, if it has one, is held where it starts.
        variance: the starting variance.

    Raises:
        DataError: a variance that is not positive.

    Example:
        >>> import bayesmeta as bm
        >>> levels_and_lines = bm.kernels.SumKernel([bm.kernels.ConstantKernel(), bm.kernels.LinearKernel()])
        >>> made = bm.kernels.ScaledKernel(levels_and_lines, variance=4.0).make(num_features=1)
        >>> sum(p.numel() for p in made.parameters())  # one for all, and the ratio of the two
        2
    """

    def __init__(self, kernel: Kernel, variance: float = 1.0) -> None:
        require_positive(variance=variance)
        self.kernel, self.variance = kernel, variance

    def make(self, num_features: int) -> "gpytorch.kernels.Kernel":
        """A variance times what the kernel makes."""
        from bayesmeta.kernels import modules

        base = self.kernel.make(num_features)
        modules.hold_variance(base)
        made = modules.Scaled(base)
        made.outputscale = self.variance
        return made


class SubsetKernel(Kernel):
    """k(h, h') = k_0(h_S, h'_S): a kernel that sees some of the features.

    With `bayesmeta.networks.Concatenated` features, of which some are the inputs themselves, it is a kernel on inputs
    beside learned features.

    Args:
        kernel: k_0.
        columns: S, the places of its features; negative ones count from the last feature.

    Raises:
        DataError: no columns, or one of them twice.
        ShapeError: when made, a column that there is not.

    Example:
        >>> import bayesmeta as bm
        >>> from bayesmeta.kernels import RBFKernel, SubsetKernel, SumKernel
        >>> features = bm.networks.Concatenated([bm.MLP(1, [16, 8]), bm.networks.Inputs(1)])  # h(x), then x itself
        >>> kernel = SumKernel([SubsetKernel(RBFKernel(), range(8)), SubsetKernel(RBFKernel(lengthscale=0.1), [-1])])
        >>> learner = bm.DeepKernelTransfer(features, kernel=kernel)
        >>> learner.adapt(bm.Data.from_arrays([0.0, 1.0], [0.3, 0.7]))
        posterior of 1 task after 2 points
    """

    def __init__(self, kernel: Kernel, columns: Sequence[int]) -> None:
        self.kernel, self.columns = kernel, tuple(columns)
        if not self.columns or len(set(self.columns)) < len(self.columns):
            raise DataError(f"expected columns, each of them once, got {columns!r}")

    def make(self, num_features: int) -> "gpytorch.kernels.Kernel":
        """What the kernel makes, on these columns."""
        from bayesmeta.kernels import modules

        places = [column % num_features for column in self.columns]
        if not all(-num_features <= column < num_features for column in self.columns) or len(set(places)) < len(places):
            raise ShapeError(f"expected columns of {num_features} features, got {self.columns}")
        return modules.OnColumns(self.kernel.make(len(places)), places)
