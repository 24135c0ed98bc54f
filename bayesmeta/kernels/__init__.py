"""Covariance functions of Gaussian processes on features h: descriptions of them, which a model folder can store.

gpytorch gives kernel matrices and nothing else, and is imported when the first kernel is made.
"""

from bayesmeta.kernels.composite import ProductKernel, ScaledKernel, SubsetKernel, SumKernel
from bayesmeta.kernels.dot_product import ConstantKernel, CosineSimilarityKernel, LinearKernel
from bayesmeta.kernels.kernel import Kernel
from bayesmeta.kernels.stationary import CosineKernel, MaternKernel, PeriodicKernel, RBFKernel, SpectralMixtureKernel

__all__ = [
    "ConstantKernel",
    "CosineKernel",
    "CosineSimilarityKernel",
    "Kernel",
    "LinearKernel",
    "MaternKernel",
    "PeriodicKernel",
    "ProductKernel",
    "RBFKernel",
    "ScaledKernel",
    "SpectralMixtureKernel",
    "SubsetKernel",
    "SumKernel",
]
