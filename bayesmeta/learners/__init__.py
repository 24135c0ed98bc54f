"""Meta-learners, by family, one method a file. Here are the classes that a method of your own may inherit."""

from bayesmeta.learners.amortized.aggregation import (
    Aggregation,
    BayesianPool,
    Belief,
    CrossAttention,
    MeanPool,
    Rows,
    Summary,
    Sums,
)
from bayesmeta.learners.amortized.base import AmortizedLearner, EncodedPosterior
from bayesmeta.learners.amortized.latent_model import LatentModel
from bayesmeta.learners.amortized.reader import ReadingLearner, ReadPosterior
from bayesmeta.learners.amortized.relative_bias import RelativeBias
from bayesmeta.learners.closed_form.last_layer import LastLayerRegression, LinearLearner
from bayesmeta.learners.closed_form.mixed_effects import MixedEffects
from bayesmeta.learners.gradient.base import AscentLearner, ExplicitWeightLearner, GradientLearner, WeightLearner
from bayesmeta.learners.gradient.generalized_linear import (
    AdaptiveQuadrature,
    GeneralizedLinearMixedModel,
    QuadraturePosterior,
)
from bayesmeta.learners.gradient.posteriors import Approximation, LinearizableLearner
from bayesmeta.learners.gradient.random_effects import RandomEffects
from bayesmeta.learners.gradient.weighted_draws import WeightedDraws, WeightedDrawsPosterior
from bayesmeta.learners.metric.base import DensityLearner, MetricLearner
from bayesmeta.learners.metric.gaussian_classes import GaussianClasses

__all__ = [
    "AdaptiveQuadrature",
    "Aggregation",
    "AmortizedLearner",
    "Approximation",
    "AscentLearner",
    "BayesianPool",
    "Belief",
    "CrossAttention",
    "DensityLearner",
    "EncodedPosterior",
    "ExplicitWeightLearner",
    "GaussianClasses",
    "GeneralizedLinearMixedModel",
    "GradientLearner",
    "LastLayerRegression",
    "LatentModel",
    "LinearLearner",
    "LinearizableLearner",
    "MeanPool",
    "MetricLearner",
    "MixedEffects",
    "QuadraturePosterior",
    "RandomEffects",
    "ReadPosterior",
    "ReadingLearner",
    "RelativeBias",
    "Rows",
    "Summary",
    "Sums",
    "WeightLearner",
    "WeightedDraws",
    "WeightedDrawsPosterior",
]
