"""Explicit priors p(phi | theta) over the parameters of a task."""

from bayesmeta.priors.feature_covariance import (
    DiagonalCovariance,
    FeatureCovariance,
    FullCovariance,
    IsotropicCovariance,
)
from bayesmeta.priors.gaussian import DiagonalGaussian, FullGaussian, IsotropicGaussian, StandardNormal
from bayesmeta.priors.matrix_normal import LastLayerPrior, MatrixNormal, MatrixNormalMixture, Ridge
from bayesmeta.priors.prior import Prior
from bayesmeta.priors.task_scale import TaskScale

__all__ = [
    "DiagonalCovariance",
    "DiagonalGaussian",
    "FeatureCovariance",
    "FullCovariance",
    "FullGaussian",
    "IsotropicCovariance",
    "IsotropicGaussian",
    "LastLayerPrior",
    "MatrixNormal",
    "MatrixNormalMixture",
    "Prior",
    "Ridge",
    "StandardNormal",
    "TaskScale",
]
