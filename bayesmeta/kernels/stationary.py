"""Kernels of the differences of features: smooth and rough functions, waves, and what repeats itself."""

from abc import abstractmethod
from typing import TYPE_CHECKING

import torch

from bayesmeta.errors import DataError
from bayesmeta.kernels.kernel import Kernel, require_positive

if TYPE_CHECKING:
    import gpytorch


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
        require_positive(lengthscale=lengthscale, variance=variance)
        self.lengthscale, self.variance, self.per_feature = lengthscale, variance, per_feature

    @abstractmethod
    def correlation(self, ard_num_dims: int | None) -> "gpytorch.kernels.Kernel":
        """The kernel without its variance."""

    def make(self, num_features: int) -> "gpytorch.kernels.Kernel":
        """A variance times the correlation."""
        from bayesmeta.kernels import modules

        kernel = modules.Scaled(self.correlation(num_features if self.per_feature else None))
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
        """`gpytorch.kernels.RBFKernel`, with plain operations."""
        from bayesmeta.kernels import modules

        return modules.RBF(ard_num_dims)


class MaternKernel(_Stationary):
    """k(h, h') = variance * the Matérn correlation of smoothness ν: functions of the features with ν - ½ derivatives.

    Args:
        nu: ν, which is ½, 1½ or 2½. Near a distance of 0 the covariance of ½ is linear in it, and over more than
            8 features distances are computed only to 1e-8, even that of a point from itself.
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
        """`gpytorch.kernels.MaternKernel`, with plain operations."""
        from bayesmeta.kernels import modules

        return modules.Matern(self.nu, ard_num_dims)


class PeriodicKernel(_Stationary):
    """k(h, h') = variance * exp(-2 Σ_f sin²(π (h_f - h'_f) / period) / lengthscale²): whatever repeats itself exactly.

    Functions of a phase (MacKay 1998): any shape within a period, and the same in every period. What only resembles
    itself from one period to the next is a product with an `RBFKernel`.

    Args:
        period: the starting period, units of the features.
        lengthscale: the starting length scale, of the sine: how smooth the shape is. gpytorch's `lengthscale` of the
            kernel that is made is its square.
        variance: the starting variance, squared units of y.
        per_feature: whether each feature has a period and a length scale of its own.

    Raises:
        DataError: a value that is not positive.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.DeepKernelTransfer(bm.networks.Inputs(1), kernel=bm.kernels.PeriodicKernel(period=2.0))
        >>> posterior = learner.adapt(bm.Data.from_arrays([0.0, 0.5, 1.0], [0.0, 1.0, 0.0]))
        >>> mean = posterior.predict([0.5, 2.5, 4.5]).mean  # three times the same place within a period
        >>> bool(mean.std() < 1e-4 * mean.mean())
        True
    """

    def __init__(
        self, period: float = 1.0, lengthscale: float = 1.0, variance: float = 1.0, per_feature: bool = False
    ) -> None:
        super().__init__(lengthscale, variance, per_feature)
        require_positive(period=period)
        self.period = period

    def correlation(self, ard_num_dims: int | None) -> "gpytorch.kernels.Kernel":
        """`gpytorch.kernels.PeriodicKernel`, with plain operations."""
        from bayesmeta.kernels import modules

        kernel = modules.Periodic(ard_num_dims)
        kernel.period_length = self.period
        return kernel

    def make(self, num_features: int) -> "gpytorch.kernels.Kernel":
        """A variance times the correlation."""
        kernel = super().make(num_features)
        kernel.base_kernel.lengthscale = self.lengthscale**2
        return kernel


class CosineKernel(Kernel):
    """k(h, h') = variance * Π_f cos(2π (h_f - h'_f) / period): waves of one period, with an amplitude and a phase.

    Of a wave nothing but its sine and cosine is free, so that a few points fix it for ever: multiplied by an
    `RBFKernel` it may change slowly. (`gpytorch.kernels.CosineKernel` has another period, and takes the
    distance between features, of which the cosine is a kernel in one dimension only.)

    Args:
        period: the starting period, units of the features.
        variance: the starting variance, squared units of y.
        per_feature: whether each feature has a period of its own.

    Raises:
        DataError: a value that is not positive.

    Example:
        >>> import bayesmeta as bm
        >>> slow = bm.kernels.RBFKernel(lengthscale=8.0)
        >>> wave = bm.kernels.ProductKernel([slow, bm.kernels.CosineKernel(period=2.0)])
        >>> wave.make(num_features=1)(torch.tensor([[0.0], [1.0], [2.0]])).to_dense()[0].round(decimals=3)
        tensor([ 1.0000, -0.9920,  0.9690], grad_fn=<...>)
    """

    def __init__(self, period: float = 1.0, variance: float = 1.0, per_feature: bool = False) -> None:
        require_positive(period=period, variance=variance)
        self.period, self.variance, self.per_feature = period, variance, per_feature

    def make(self, num_features: int) -> "gpytorch.kernels.Kernel":
        """A variance times the cosines."""
        from bayesmeta.kernels import modules

        kernel = modules.Scaled(modules.Cosine(num_features if self.per_feature else 1))
        kernel.base_kernel.period_length, kernel.outputscale = self.period, self.variance
        return kernel


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
        require_positive(frequency=frequency, bandwidth=bandwidth, variance=variance)
        self.num_mixtures, self.frequency = num_mixtures, frequency
        self.bandwidth, self.variance = bandwidth, variance

    def make(self, num_features: int) -> "gpytorch.kernels.Kernel":
        """A variance times `gpytorch.kernels.SpectralMixtureKernel`, from torch's global generator."""
        import gpytorch

        from bayesmeta.kernels import modules

        base = gpytorch.kernels.SpectralMixtureKernel(self.num_mixtures, ard_num_dims=num_features)
        base.mixture_means = (self.frequency * torch.randn(self.num_mixtures, 1, num_features)).abs() + 1e-6
        base.mixture_scales = torch.full((self.num_mixtures, 1, num_features), self.bandwidth)
        base.mixture_weights = torch.full((self.num_mixtures,), 1.0 / self.num_mixtures)
        kernel = modules.Scaled(base)
        kernel.outputscale = self.variance
        return kernel
