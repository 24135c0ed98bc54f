"""Functions of a point: feature networks and bases."""

from bayesmeta.networks.dense_network import DenseNetwork
from bayesmeta.networks.fourier import FourierFeatures
from bayesmeta.networks.network import DenseOutput
from bayesmeta.networks.task_covariates import SplitOutput, TaskCovariates
from bayesmeta.networks.task_norm import TaskNorm

__all__ = [
    "DenseNetwork",
    "DenseOutput",
    "FourierFeatures",
    "SplitOutput",
    "TaskCovariates",
    "TaskNorm",
]
