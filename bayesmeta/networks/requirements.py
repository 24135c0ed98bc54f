"""What learners demand of a network before they take it."""

from typing import Any

from bayesmeta.errors import UnsupportedError
from bayesmeta.networks.network import Network


def require_network(network: Any, role: str = "features") -> None:
    """Raise UnsupportedError for what is not a `Network`.

    Args:
        network: what a user gave.
        role: what it is to the learner, for the message.
    """
    if not isinstance(network, Network):
        raise UnsupportedError(
            f"expected {role} that inherit bayesmeta.Network, which says x_shape and num_outputs, "
            f"got {type(network).__name__}: call yours in the forward of a Network"
        )


def require_pointwise(features: Any) -> None:
    """Raise UnsupportedError for what is not a `Network`, or takes statistics over the points of a task."""
    require_network(features)
    if not features.pointwise:
        raise UnsupportedError(
            "expected features of each point on its own, got statistics over the points of a task, through which "
            "query points would tell of each other: use norm='group'"
        )
