"""Predictives p(y | x, D, theta): what `TaskPosterior.predict` returns."""

from bayesmeta.predictives.affine import AffinePredictive
from bayesmeta.predictives.dense_gaussian import DenseGaussianPredictive
from bayesmeta.predictives.exponential import ExponentialPredictive
from bayesmeta.predictives.gaussian import GaussianPredictive
from bayesmeta.predictives.independent import IndependentPredictive
from bayesmeta.predictives.low_rank_gaussian import LowRankGaussianPredictive
from bayesmeta.predictives.mixture import EnsemblePredictive, MixturePredictive
from bayesmeta.predictives.open_set import OpenSetPredictive
from bayesmeta.predictives.predictive import LOG_2PI
from bayesmeta.predictives.predictive import Predictive as Predictive  # public as bayesmeta.Predictive
from bayesmeta.predictives.side_by_side import SideBySidePredictive
from bayesmeta.predictives.student_t import StudentTPredictive

__all__ = [
    "LOG_2PI",
    "AffinePredictive",
    "DenseGaussianPredictive",
    "EnsemblePredictive",
    "ExponentialPredictive",
    "GaussianPredictive",
    "IndependentPredictive",
    "LowRankGaussianPredictive",
    "MixturePredictive",
    "OpenSetPredictive",
    "SideBySidePredictive",
    "StudentTPredictive",
]
