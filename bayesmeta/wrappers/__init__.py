"""Learners that wrap a learner: other units, corrected predictives, sampled posteriors, an uncertain theta."""

from bayesmeta.wrappers.base import Untrainable, WrappedPosterior, Wrapper
from bayesmeta.wrappers.recalibrated import IsotonicRecalibrated, Recalibrated, TemperatureScaled, VarianceScaled
from bayesmeta.wrappers.sampled import DrawsPosterior

__all__ = [
    "DrawsPosterior",
    "IsotonicRecalibrated",
    "Recalibrated",
    "TemperatureScaled",
    "Untrainable",
    "VarianceScaled",
    "WrappedPosterior",
    "Wrapper",
]
