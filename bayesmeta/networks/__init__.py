"""Functions of a point: feature networks and bases."""

from bayesmeta.networks.bases import Inputs
from bayesmeta.networks.concatenated import Concatenated
from bayesmeta.networks.conv4 import ConvNet
from bayesmeta.networks.cosine import Cosine, CosineOutput
from bayesmeta.networks.dense_network import DenseNetwork
from bayesmeta.networks.fourier import FourierFeatures
from bayesmeta.networks.low_precision import LowPrecision, LowPrecisionOutput
from bayesmeta.networks.memory import LRUA, LSTMMemory, Memory, MemoryCell
from bayesmeta.networks.network import DenseOutput
from bayesmeta.networks.task_covariates import SplitOutput, TaskCovariates
from bayesmeta.networks.task_norm import TaskNorm

__all__ = [
    "LRUA",
    "Concatenated",
    "ConvNet",
    "Cosine",
    "CosineOutput",
    "DenseNetwork",
    "DenseOutput",
    "FourierFeatures",
    "Inputs",
    "LSTMMemory",
    "LowPrecision",
    "LowPrecisionOutput",
    "Memory",
    "MemoryCell",
    "SplitOutput",
    "TaskCovariates",
    "TaskNorm",
]
