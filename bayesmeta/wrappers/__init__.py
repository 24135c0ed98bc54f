"""Learners that wrap a learner: other units, corrected predictives, sampled posteriors, an uncertain theta."""

from bayesmeta.wrappers.base import Untrainable, WrappedPosterior, Wrapper
from bayesmeta.wrappers.hyper_posterior import HyperPosterior
from bayesmeta.wrappers.recalibrated import IsotonicRecalibrated, Recalibrated, TemperatureScaled, VarianceScaled
from bayesmeta.wrappers.sampled import DrawsPosterior, Sampled
from bayesmeta.wrappers.standardized import Standardized

__all__ = [
    "DrawsPosterior",
    "HyperPosterior",
    "IsotonicRecalibrated",
    "Recalibrated",
    "Sampled",
    "Standardized",
    "TemperatureScaled",
    "Untrainable",
    "VarianceScaled",
    "WrappedPosterior",
    "Wrapper",
]
