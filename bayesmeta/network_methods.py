"""Learners on any network: what the command line looks for a network for."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from bayesmeta.errors import DataError
from bayesmeta.learner import Learner
from bayesmeta.learners.closed_form.alpaca import ALPaCA
from bayesmeta.learners.closed_form.lrd2 import LRD2
from bayesmeta.learners.closed_form.r2d2 import R2D2
from bayesmeta.learners.closed_form.r2d2_regressor import R2D2Regressor
from bayesmeta.learners.gradient.maml import MAML, FirstOrderMAML
from bayesmeta.learners.gradient.meta_sgd import MetaSGD
from bayesmeta.likelihoods import Categorical
from bayesmeta.networks.network import Network
from bayesmeta.outcomes import Labels, Outcomes
from bayesmeta.training.objectives import Evidence, Objective
from bayesmeta.wrappers.standardized import Standardized


@dataclass(frozen=True)
class NetworkMethod:
    """A learner that takes any network, and what it is trained on.

    Attributes:
        make: (network, C) -> an untrained learner of C numbers, or of C classes.
        objective: what is maximised; the learner's own loss by default.

    Example:
        >>> import bayesmeta as bm
        >>> method = network_method("maml", bm.Numbers())
        >>> method.make(bm.MLP(2, [8]), 1).title
        'Standardized(MAML)'
    """

    make: Callable[[Network, int], Learner]
    objective: Objective | None = None


def _outputs(kind: Callable[..., Learner], network: Network, count: int, **arguments: Any) -> Learner:
    return Standardized(kind(network, num_outputs=count, **arguments))


def _softmax(kind: Callable[..., Learner], network: Network, count: int, **arguments: Any) -> Learner:
    return Standardized(kind(network, likelihood=Categorical(count), **arguments))


def _headed(kind: Callable[..., Learner], network: Network, count: int) -> Learner:
    return Standardized(kind(network, num_classes=count))


GRADIENT: dict[str, Callable[..., Learner]] = {"maml": MAML, "first-order-maml": FirstOrderMAML, "meta-sgd": MetaSGD}

FOR_NUMBERS = {
    "alpaca": NetworkMethod(partial(_outputs, ALPaCA), Evidence()),
    "r2d2": NetworkMethod(partial(_outputs, R2D2Regressor), Evidence()),
    **{name: NetworkMethod(partial(_outputs, kind, lr=0.1)) for name, kind in GRADIENT.items()},
}
FOR_CLASSES = {
    **{name: NetworkMethod(partial(_softmax, kind, lr=0.1)) for name, kind in GRADIENT.items()},
    "r2d2": NetworkMethod(partial(_headed, R2D2)),
    "lrd2": NetworkMethod(partial(_headed, LRD2)),
}


def network_methods(outcomes: Outcomes) -> dict[str, NetworkMethod]:
    """The learners for outcomes, by name; the first is the default.

    Args:
        outcomes: numbers, or labels.
    """
    return dict(FOR_CLASSES if isinstance(outcomes, Labels) else FOR_NUMBERS)


def network_method(name: str | None, outcomes: Outcomes) -> NetworkMethod:
    """One of them.

    Args:
        name: of it; None for the default.
        outcomes: numbers, or labels.

    Raises:
        DataError: a name that is not among them.

    Example:
        >>> import bayesmeta as bm
        >>> network_method("dkt", bm.Numbers())
        Traceback (most recent call last):
        ...
        bayesmeta.errors.DataError: expected a method among ['alpaca', 'r2d2', 'maml', ...
    """
    known = network_methods(outcomes)
    if name is not None and name not in known:
        raise DataError(f"expected a method among {list(known)}, which take any network, got {name!r}")
    return known[next(iter(known)) if name is None else name]
