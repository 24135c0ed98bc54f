"""Learners that wrap a learner: other units, joint or corrected predictives, uncertain theta, unlike tasks."""

from bayesmeta.wrappers.autoregressive import Autoregressive
from bayesmeta.wrappers.base import Untrainable, WrappedPosterior, Wrapper
from bayesmeta.wrappers.concept import ConceptLearner
from bayesmeta.wrappers.log_transformed import LogTransformed
from bayesmeta.wrappers.orders import Given, LeftToRight, Order, Random
from bayesmeta.wrappers.recalibrated import IsotonicRecalibrated, Recalibrated, TemperatureScaled, VarianceScaled
from bayesmeta.wrappers.sampled import DrawsPosterior
from bayesmeta.wrappers.separately import Separately
from bayesmeta.wrappers.stacked import Stacked
from bayesmeta.wrappers.task_hyperparameters import (
    InputHyperparameter,
    InputScale,
    NoiseScale,
    ScaleHyperparameter,
    SignalScale,
    TaskHyperparameter,
)
from bayesmeta.wrappers.task_quadrature import TaskQuadrature
from bayesmeta.wrappers.with_hyperprior import WithHyperprior

__all__ = [
    "Autoregressive",
    "ConceptLearner",
    "DrawsPosterior",
    "Given",
    "InputHyperparameter",
    "InputScale",
    "IsotonicRecalibrated",
    "LeftToRight",
    "LogTransformed",
    "NoiseScale",
    "Order",
    "Random",
    "Recalibrated",
    "ScaleHyperparameter",
    "Separately",
    "SignalScale",
    "Stacked",
    "TaskHyperparameter",
    "TaskQuadrature",
    "TemperatureScaled",
    "Untrainable",
    "VarianceScaled",
    "WithHyperprior",
    "WrappedPosterior",
    "Wrapper",
]
