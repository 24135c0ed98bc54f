"""Neural processes of neuralprocesses (Bruinsma et al. 2023), constructed, trained and asked as in its README.

Its lattice is as fine and its layers are as wide as told, but its blocks are its own; it has no transformer: the
attentive process comes closest.
"""

import neuralprocesses.torch as nps
from torch import Tensor, nn

from benchmarks.peers import Batch


def convcnp(points_per_unit: int, channels: int, layers: int, kernel_size: int, margin: float) -> nn.Module:
    """Residual convolutions on a lattice that reaches so far beyond the data."""
    cells = 1 + layers * (kernel_size - 1)  # what it takes the kernel's size from
    return nps.construct_convgnp(
        likelihood="het",
        conv_arch="conv-res",
        conv_receptive_field=cells / points_per_unit,
        conv_channels=channels,
        conv_layers=layers,
        points_per_unit=points_per_unit,
        margin=margin,
    )


def default_convcnp() -> nn.Module:
    """Its defaults: a U-Net of six layers of 64 channels on 64 points a unit."""
    return nps.construct_convgnp(likelihood="het")


def cnp(width: int) -> nn.Module:
    """A mean over the context."""
    return nps.construct_gnp(likelihood="het", dim_embedding=width, width=width)


def acnp(width: int, layers: int, heads: int) -> nn.Module:
    """Attention from the targets to the context, once."""
    return nps.construct_agnp(
        likelihood="het",
        dim_embedding=width,
        width=2 * width,
        num_heads=heads,
        num_enc_layers=layers,
        num_dec_layers=layers,
    )


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """The mean negative log density of a target, given the context."""
    x, y, query_x, query_y = (value.mT for value in batch)
    return -nps.loglik(model, x, y, query_x, query_y, normalise=True).mean()


def predict(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Mean and variance at the targets."""
    x, y, query_x, _ = (value.mT for value in batch)
    distribution = model(x, y, query_x)
    return distribution.mean, distribution.var
