"""Functions of a point: feature networks and fixed bases."""

from bayesmeta.networks.bases import Identity, Polynomial, RadialBasis, Spline
from bayesmeta.networks.conv4 import Conv4
from bayesmeta.networks.dense_network import DenseNetwork
from bayesmeta.networks.mlp import MLP
from bayesmeta.networks.network import DenseOutput, Network, WholeNetwork
from bayesmeta.networks.resnet12 import ResNet12
from bayesmeta.networks.task_norm import TaskNorm

__all__ = [
    "MLP",
    "Conv4",
    "DenseNetwork",
    "DenseOutput",
    "Identity",
    "Network",
    "Polynomial",
    "RadialBasis",
    "ResNet12",
    "Spline",
    "TaskNorm",
    "WholeNetwork",
]
