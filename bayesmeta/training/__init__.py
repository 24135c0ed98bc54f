"""Meta-training: objectives, compiled steps, draws of theta. Its verbs, `fit` and `fit_evidence`, are at the root."""

from bayesmeta.training.averaging import Averaged, average
from bayesmeta.training.chaser import Chaser
from bayesmeta.training.compiled import CompiledStep
from bayesmeta.training.objectives import (
    Evidence,
    EvidenceProblem,
    JointPredictive,
    MarginalPredictive,
    MaximumLikelihood,
    Objective,
    RestrictedMaximumLikelihood,
    SquaredMatchError,
    VariationalBound,
)
from bayesmeta.training.quasi_newton import Halving
from bayesmeta.training.result import FitResult
from bayesmeta.training.starts import HyperpriorStarts, Starts
from bayesmeta.training.theta_posterior import nuts_hyper_posterior, svgd_hyper_posterior, vi_hyper_posterior

__all__ = [
    "Averaged",
    "Chaser",
    "CompiledStep",
    "Evidence",
    "EvidenceProblem",
    "FitResult",
    "Halving",
    "HyperpriorStarts",
    "JointPredictive",
    "MarginalPredictive",
    "MaximumLikelihood",
    "Objective",
    "RestrictedMaximumLikelihood",
    "SquaredMatchError",
    "Starts",
    "VariationalBound",
    "average",
    "nuts_hyper_posterior",
    "svgd_hyper_posterior",
    "vi_hyper_posterior",
]
