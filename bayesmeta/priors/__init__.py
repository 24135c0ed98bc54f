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
from bayesmeta.priors.matrix_normal import LastLayerPrior, MatrixNormal, MatrixNormalMixture, Ridge
from bayesmeta.priors.prior import Prior
from bayesmeta.priors.shared_effects import SharedEffects
from bayesmeta.priors.task_scale import TaskScale

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
    "LastLayerPrior",
    "LayerwiseGaussian",
    "MatrixNormal",
    "MatrixNormalMixture",
    "Prior",
    "Ridge",
    "SharedEffects",
    "StandardNormal",
    "TaskScale",
]
