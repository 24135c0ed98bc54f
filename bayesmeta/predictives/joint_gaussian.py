"""What predictives share whose points are jointly Gaussian."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from bayesmeta.predictives.predictive import Predictive


@dataclass(frozen=True, eq=False, repr=False)
class JointGaussianPredictive(Predictive):
    """Points that are jointly Gaussian: a subclass says how their covariance is held.

    Attributes:
        location: the mean, `B M C`, units of y.
    """

    location: Float[Tensor, "B M C"]

    @property
    @override
    def mean(self) -> Float[Tensor, "B M C"]:
        return self.location

    @property
    @override
    def shape(self) -> torch.Size:
        return self.location.shape
