"""Functions of a point: feature networks and fixed bases."""

from bayesmeta.networks.dense_network import DenseNetwork
from bayesmeta.networks.network import DenseOutput
from bayesmeta.networks.task_norm import TaskNorm

__all__ = [
    "DenseNetwork",
    "DenseOutput",
    "TaskNorm",
]
