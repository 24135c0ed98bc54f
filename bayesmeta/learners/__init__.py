"""Meta-learners, by family, one method a file. Here are the classes that a method of your own may inherit."""

from bayesmeta.learners.amortized.base import AmortizedLearner, EncodedPosterior
from bayesmeta.learners.amortized.relative_bias import RelativeBias
from bayesmeta.learners.closed_form.last_layer import LastLayerRegression, LinearLearner
from bayesmeta.learners.gradient.base import AscentLearner, ExplicitWeightLearner, GradientLearner, WeightLearner
from bayesmeta.learners.gradient.posteriors import Approximation, LinearizableLearner
from bayesmeta.learners.metric.base import DensityLearner, MetricLearner
from bayesmeta.learners.metric.gaussian_classes import GaussianClasses

__all__ = [
    "AmortizedLearner",
    "Approximation",
    "AscentLearner",
    "DensityLearner",
    "EncodedPosterior",
    "ExplicitWeightLearner",
    "GaussianClasses",
    "GradientLearner",
    "LastLayerRegression",
    "LinearLearner",
    "LinearizableLearner",
    "MetricLearner",
    "RelativeBias",
    "WeightLearner",
]
