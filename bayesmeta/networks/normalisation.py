"""Which weights of a network belong to normalisation layers."""

from torch import nn

from bayesmeta.networks.network import Network
from bayesmeta.networks.task_norm import TaskNorm


def normalisation_parameters(network: Network) -> list[str]:
    """Names of the weights and biases of normalisation layers, in order."""
    kinds = (nn.GroupNorm, nn.LayerNorm, TaskNorm)
    layers = [name for name, layer in network.named_modules() if isinstance(layer, kinds)]
    return [name for name, _ in network.named_parameters() if name.rpartition(".")[0] in layers]
