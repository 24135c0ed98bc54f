"""What predictives share whose points are jointly Gaussian."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from bayesmeta.errors import InferenceError
from bayesmeta.predictives.predictive import Predictive

MOST_TOGETHER = 20_000  # numbers with a joint covariance: 3 GB in float64


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


def require_matrix(size: int) -> None:
    """Refuse a covariance between so many numbers that its memory would be all there is.

    Args:
        size: of the matrix.

    Raises:
        InferenceError: more than 20,000.

    Example:
        >>> require_matrix(100)
    """
    if size > MOST_TOGETHER:
        raise InferenceError(
            f"expected at most {MOST_TOGETHER} points whose joint distribution is asked for, got {size}: take fewer of "
            "them (query= in evaluate, or of the split), or ask about each on its own"
        )
