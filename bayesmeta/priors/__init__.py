"""Explicit priors p(phi | theta) over the parameters of a task."""

from bayesmeta.priors.feature_covariance import (
    DiagonalCovariance,
    FeatureCovariance,
    FullCovariance,
    IsotropicCovariance,
)
from bayesmeta.priors.gaussian import (
    DiagonalGaussian,
    FactoredGaussian,
    FullGaussian,
    IndependentGaussian,
    IsotropicGaussian,
    LayerwiseGaussian,
    StandardNormal,
)
from bayesmeta.priors.matrix_normal import MatrixNormal, MatrixNormalMixture, Ridge
from bayesmeta.priors.prior import Prior

__all__ = [
    "DiagonalCovariance",
    "DiagonalGaussian",
    "FactoredGaussian",
    "FeatureCovariance",
    "FullCovariance",
    "FullGaussian",
    "IndependentGaussian",
    "IsotropicCovariance",
    "IsotropicGaussian",
    "LayerwiseGaussian",
    "MatrixNormal",
    "MatrixNormalMixture",
    "Prior",
    "Ridge",
    "StandardNormal",
]
