"""Learners that wrap a learner: other units, joint predictives, corrected ones, sampled posteriors, uncertain theta."""

from bayesmeta.wrappers.autoregressive import Autoregressive
from bayesmeta.wrappers.base import Untrainable, WrappedPosterior, Wrapper
from bayesmeta.wrappers.orders import Given, LeftToRight, Order, Random
from bayesmeta.wrappers.recalibrated import IsotonicRecalibrated, Recalibrated, TemperatureScaled, VarianceScaled
from bayesmeta.wrappers.sampled import DrawsPosterior
from bayesmeta.wrappers.with_hyperprior import WithHyperprior

__all__ = [
    "Autoregressive",
    "DrawsPosterior",
    "Given",
    "IsotonicRecalibrated",
    "LeftToRight",
    "Order",
    "Random",
    "Recalibrated",
    "TemperatureScaled",
    "Untrainable",
    "VarianceScaled",
    "WithHyperprior",
    "WrappedPosterior",
    "Wrapper",
]
