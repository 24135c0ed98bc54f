"""Meta-training: what is maximised, compiled steps, draws of theta. The verbs are `bayesmeta.fit` and `fit_evidence`."""

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
)
from bayesmeta.training.result import FitResult
from bayesmeta.training.theta_posterior import nuts_hyper_posterior, svgd_hyper_posterior, vi_hyper_posterior

__all__ = [
    "Chaser",
    "CompiledStep",
    "Evidence",
    "EvidenceProblem",
    "FitResult",
    "JointPredictive",
    "MarginalPredictive",
    "MaximumLikelihood",
    "Objective",
    "RestrictedMaximumLikelihood",
    "nuts_hyper_posterior",
    "svgd_hyper_posterior",
    "vi_hyper_posterior",
]
