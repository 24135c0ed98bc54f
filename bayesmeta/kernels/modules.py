"""gpytorch kernels whose matrices are plain functions of torch: a description in `bayesmeta.kernels` makes them.

gpytorch's own ask whether two sets of points are equal, by their values, and have derivatives of their own, so that no
map over theta (many starts, chains side by side) can run them. These are kernels of gpytorch that compute the same
covariances by ordinary operations. Their parameters are logarithms, `raw_lengthscale` of the length scale and so on, as
those of noise are: a Gaussian density on them is a log-normal one on what they stand for.

This file imports gpytorch: import it inside functions.
"""

import math
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

import gpytorch
import torch
from linear_operator import to_dense
from torch import Tensor, nn

FEW_FEATURES = 8  # up to which distances are computed from differences
VARIANCES = ("raw_outputscale", "raw_variance", "raw_constant")  # what gpytorch calls them


def positive() -> gpytorch.constraints.Positive:
    """The constraint of a number that is learned as its logarithm."""
    return gpytorch.constraints.Positive(transform=torch.exp, inv_transform=torch.log)


class RBF(gpytorch.kernels.RBFKernel):  # type: ignore[misc]
    """exp(-½ |h - h'|² / lengthscale²).

    Args:
        ard_num_dims: F where each feature has a length scale of its own.

    Example:
        >>> h = torch.tensor([[[0.0], [1.0]]])
        >>> RBF()(h).to_dense().shape
        torch.Size([1, 2, 2])
    """

    def __init__(self, ard_num_dims: int | None = None) -> None:
        super().__init__(ard_num_dims=ard_num_dims, lengthscale_constraint=positive())

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **arguments: Any) -> Tensor:
        """The matrix, or its diagonal."""
        return (-0.5 * squared_distance(x1 / self.lengthscale, x2 / self.lengthscale, diag)).exp()


class Matern(gpytorch.kernels.MaternKernel):  # type: ignore[misc]
    """The Matérn correlation of smoothness ν, of |h - h'| / lengthscale.

    Args:
        nu: ν, which is ½, 1½ or 2½.
        ard_num_dims: F where each feature has a length scale of its own.

    Example:
        >>> h = torch.tensor([[[0.0], [1.0]]])
        >>> Matern(0.5)(h).to_dense().shape
        torch.Size([1, 2, 2])
    """

    def __init__(self, nu: float, ard_num_dims: int | None = None) -> None:
        super().__init__(nu=nu, ard_num_dims=ard_num_dims, lengthscale_constraint=positive())

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **arguments: Any) -> Tensor:
        """The matrix, or its diagonal."""
        squared = squared_distance(x1 / self.lengthscale, x2 / self.lengthscale, diag)
        scaled = math.sqrt(2.0 * self.nu) * squared.clamp(min=1e-30).sqrt()  # whose derivative at 0 is 0
        correlation = (-scaled).exp()
        if self.nu == 0.5:
            return correlation
        return correlation * (1.0 + scaled if self.nu == 1.5 else 1.0 + scaled + scaled.square() / 3.0)


class Periodic(gpytorch.kernels.PeriodicKernel):  # type: ignore[misc]
    """exp(-2 Σ_f sin²(π (h_f - h'_f) / period) / lengthscale).

    Args:
        ard_num_dims: F where each feature has a period and a length scale of its own.

    Example:
        >>> h = torch.tensor([[[0.0], [1.0]]])
        >>> Periodic()(h).to_dense().shape
        torch.Size([1, 2, 2])
    """

    def __init__(self, ard_num_dims: int | None = None) -> None:
        super().__init__(
            lengthscale_constraint=positive(),
            period_length_constraint=positive(),
            **({} if ard_num_dims is None else {"ard_num_dims": ard_num_dims}),
        )

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **arguments: Any) -> Tensor:
        """The matrix, or its diagonal."""
        sines = (math.pi * differences(x1 / self.period_length, x2 / self.period_length, diag)).sin()
        return (-2.0 * (sines.square() / self.lengthscale.squeeze(-2)).sum(-1)).exp()


class Cosine(gpytorch.kernels.CosineKernel):  # type: ignore[misc]
    """Π_f cos(2π (h_f - h'_f) / period); gpytorch's own is a kernel in one dimension only, and has half the period.

    Args:
        num_periods: F where each feature has a period of its own, or 1.

    Example:
        >>> h = torch.tensor([[[0.0], [1.0]]])
        >>> Cosine()(h).to_dense().shape
        torch.Size([1, 2, 2])
    """

    def __init__(self, num_periods: int = 1) -> None:
        super().__init__(period_length_constraint=positive())
        self.raw_period_length = nn.Parameter(torch.zeros(1, num_periods))

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **arguments: Any) -> Tensor:
        """The matrix, or its diagonal."""
        period = self.period_length
        return (2.0 * math.pi * differences(x1 / period, x2 / period, diag)).cos().prod(-1)


class Linear(gpytorch.kernels.Kernel):  # type: ignore[misc]
    """variance * hᵀh'. gpytorch's own gives roots in place of matrices, and predicts in a way of its own.

    Example:
        >>> Linear()(torch.tensor([[[1.0], [2.0]]])).to_dense().shape
        torch.Size([1, 2, 2])
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_parameter("raw_variance", nn.Parameter(torch.zeros(1)))
        self.register_constraint("raw_variance", positive())

    @property
    def variance(self) -> Tensor:
        """The variance of f for a unit of the product."""
        return self.raw_variance_constraint.transform(self.raw_variance)

    @variance.setter
    def variance(self, value: float) -> None:
        raw = self.raw_variance_constraint.inverse_transform(torch.tensor([value]).to(self.raw_variance))
        self.initialize(raw_variance=raw)

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **arguments: Any) -> Tensor:
        """The matrix, or its diagonal."""
        return self.variance * ((x1 * x2).sum(-1) if diag else x1 @ x2.mT)


class CosineSimilarity(Linear):
    """variance * hᵀh' / |h||h'|, and 0 where a feature vector is 0.

    Example:
        >>> CosineSimilarity()(torch.tensor([[[1.0], [2.0]]])).to_dense().shape
        torch.Size([1, 2, 2])
    """

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **arguments: Any) -> Tensor:
        """The matrix, or its diagonal."""
        x1, x2 = (nn.functional.normalize(x, dim=-1) for x in (x1, x2))
        return super().forward(x1, x2, diag, **arguments)


class Constant(gpytorch.kernels.ConstantKernel):  # type: ignore[misc]
    """A variance.

    Example:
        >>> Constant()(torch.tensor([[[1.0], [2.0]]])).to_dense().shape
        torch.Size([1, 2, 2])
    """

    def __init__(self) -> None:
        super().__init__(constant_constraint=positive())


class Scaled(gpytorch.kernels.ScaleKernel):  # type: ignore[misc]
    """A variance times a kernel.

    Args:
        base_kernel: the kernel.

    Example:
        >>> Scaled(RBF()).outputscale
        tensor(1., grad_fn=<...>)
    """

    def __init__(self, base_kernel: gpytorch.kernels.Kernel) -> None:
        super().__init__(base_kernel, outputscale_constraint=positive())


class Sum(gpytorch.kernels.AdditiveKernel):  # type: ignore[misc]
    """A sum of kernels: its arguments.

    Example:
        >>> Sum(RBF(), Linear())(torch.zeros(1, 2, 1)).to_dense().shape
        torch.Size([1, 2, 2])
    """

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **arguments: Any) -> Tensor:
        """The matrix, or its diagonal."""
        return reduce(torch.add, _each(self.kernels, x1, x2, diag))


class Product(gpytorch.kernels.ProductKernel):  # type: ignore[misc]
    """A product of kernels: its arguments.

    Example:
        >>> Product(RBF(), Linear())(torch.zeros(1, 2, 1)).to_dense().shape
        torch.Size([1, 2, 2])
    """

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **arguments: Any) -> Tensor:
        """The matrix, or its diagonal."""
        return reduce(torch.mul, _each(self.kernels, x1, x2, diag))


class OnColumns(gpytorch.kernels.Kernel):  # type: ignore[misc]
    """A kernel that sees some of the features.

    Args:
        base_kernel: a kernel on so many features.
        columns: their places.

    Example:
        >>> OnColumns(RBF(), [1])(torch.tensor([[[0.0, 1.0], [5.0, 1.0]]])).to_dense().tolist()
        [[[1.0, 1.0], [1.0, 1.0]]]
    """

    def __init__(self, base_kernel: gpytorch.kernels.Kernel, columns: Sequence[int]) -> None:
        super().__init__(active_dims=tuple(columns))
        self.base_kernel = base_kernel

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **arguments: Any) -> Tensor:
        """The matrix, or its diagonal; `active_dims` have been selected."""
        return to_dense(self.base_kernel(x1, x2, diag=diag))


def differences(a: Tensor, b: Tensor, diag: bool) -> Tensor:
    """a_n - b_m of each feature, `N M F`, or a_n - b_n, `N F`.

    Args:
        a: points.
        b: points; as many as a for the diagonal.
        diag: whether only pairs of the same place are wanted.

    Example:
        >>> differences(torch.ones(2, 1), torch.zeros(3, 1), diag=False).shape
        torch.Size([2, 3, 1])
    """
    return a - b if diag else a[..., :, None, :] - b[..., None, :, :]


def squared_distance(a: Tensor, b: Tensor, diag: bool) -> Tensor:
    """|a_n - b_m|²: exact for few features, to rounding of |a|² for many, where the differences would fill memory.

    Args:
        a: points.
        b: points; as many as a for the diagonal.
        diag: whether only pairs of the same place are wanted.

    Example:
        >>> squared_distance(torch.ones(2, 1), torch.zeros(3, 1), diag=False)
        tensor([[1., 1., 1.],
                [1., 1., 1.]])
    """
    if diag or a.shape[-1] <= FEW_FEATURES:
        return differences(a, b, diag).square().sum(-1)
    center = a.detach().mean(-2, keepdim=True)
    a, b = a - center, b - center
    squares = a.square().sum(-1)[..., :, None] + b.square().sum(-1)[..., None, :]
    return (squares - 2.0 * (a @ b.mT)).clamp(min=0.0)


def _each(kernels: Iterable[gpytorch.kernels.Kernel], x1: Tensor, x2: Tensor, diag: bool) -> list[Tensor]:
    return [to_dense(kernel(x1, x2, diag=diag)) for kernel in kernels]


def hold_variance(kernel: gpytorch.kernels.Kernel) -> None:
    """Make the variance of a kernel a constant (a buffer): where it is multiplied by another, one of the two is enough.

    Of a sum that of the first term is held, which leaves the ratios.

    Args:
        kernel: what is multiplied.

    Example:
        >>> kernel = Scaled(RBF())
        >>> hold_variance(kernel)
        >>> [name for name, _ in kernel.named_parameters()]
        ['base_kernel.raw_lengthscale']
    """
    for name, parameter in list(kernel.named_parameters(recurse=False)):
        if name in VARIANCES:
            delattr(kernel, name)
            kernel.register_buffer(name, parameter.detach())
    if isinstance(kernel, gpytorch.kernels.AdditiveKernel | gpytorch.kernels.ProductKernel):
        hold_variance(kernel.kernels[0])
    elif isinstance(kernel, OnColumns):
        hold_variance(kernel.base_kernel)
