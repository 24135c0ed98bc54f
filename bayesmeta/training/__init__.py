"""Meta-training: objectives, compiled steps, draws of theta, architectures. The root has its verbs, such as `fit`."""

from bayesmeta.training.architectures.budgets import Budget, Seconds, Steps
from bayesmeta.training.architectures.result import SearchResult
from bayesmeta.training.architectures.search import ArchitectureSearch
from bayesmeta.training.architectures.spaces import Architecture, ConvSpace, DenseSpace, Space
from bayesmeta.training.architectures.surrogate import Surrogate
from bayesmeta.training.architectures.trials import Trial
from bayesmeta.training.averaging import Averaged, average
from bayesmeta.training.callbacks import Callback, CSVLog, StepRecord, TensorBoardLog
from bayesmeta.training.chaser import Chaser
from bayesmeta.training.compiled import CompiledStep
from bayesmeta.training.cuda_graphs import CudaGraphStep
from bayesmeta.training.distributed import Processes, alone
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
from bayesmeta.training.runs.folder import CheckpointWarning
from bayesmeta.training.starts import HyperpriorStarts, Starts
from bayesmeta.training.theta_posterior import nuts_hyper_posterior, svgd_hyper_posterior, vi_hyper_posterior

__all__ = [
    "Architecture",
    "ArchitectureSearch",
    "Averaged",
    "Budget",
    "CSVLog",
    "Callback",
    "Chaser",
    "CheckpointWarning",
    "CompiledStep",
    "ConvSpace",
    "CudaGraphStep",
    "DenseSpace",
    "Evidence",
    "EvidenceProblem",
    "FitResult",
    "Halving",
    "HyperpriorStarts",
    "JointPredictive",
    "MarginalPredictive",
    "MaximumLikelihood",
    "Objective",
    "Processes",
    "RestrictedMaximumLikelihood",
    "SearchResult",
    "Seconds",
    "Space",
    "SquaredMatchError",
    "Starts",
    "StepRecord",
    "Steps",
    "Surrogate",
    "TensorBoardLog",
    "Trial",
    "VariationalBound",
    "alone",
    "average",
    "nuts_hyper_posterior",
    "svgd_hyper_posterior",
    "vi_hyper_posterior",
]
