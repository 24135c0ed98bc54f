"""What learners demand of a network before they take it."""

from numbers import Integral
from typing import Any

from bayesmeta.annotations import said
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.networks.network import Network


def require_network(network: Any, role: str = "features that inherit") -> None:
    """Raise UnsupportedError for what is not a `Network`, and DataError for one without its shapes.

    Args:
        network: what a user gave.
        role: what it is to the learner, for the message, and a verb.
    """
    if not isinstance(network, Network):
        raise UnsupportedError(
            f"expected {role} bayesmeta.Network, which says x_shape and num_outputs, "
            f"got {type(network).__name__}: call yours in the forward of a Network"
        )
    shape, size = getattr(network, "x_shape", None), getattr(network, "num_outputs", None)
    if not isinstance(shape, tuple) or not all(isinstance(n, Integral) for n in (*shape, size)):
        raise DataError(
            f"expected {type(network).__name__} to say x_shape, such as (2,), and num_outputs, got {said(shape)} and "
            f"{said(size)}: set self.x_shape and self.num_outputs in its __init__, after super().__init__()"
        )


def require_pointwise(features: Any) -> None:
    """Raise UnsupportedError for what is not a `Network`, or takes statistics over the points of a task."""
    require_network(features)
    if not features.pointwise:
        raise UnsupportedError(
            "expected features of each point on its own, got statistics over the points of a task, through which "
            "query points would tell of each other: use norm='group'"
        )
