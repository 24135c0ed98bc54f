"""Learners that compare a query with the support."""

from collections.abc import Callable
from typing import Any

import bayesmeta as bm
from tests.registry.case import Case
from tests.registry.closed_form import OWN_CLASSES

CONSTANT_SHARES = {
    "meta_gradient_equals_finite_differences": "which example is of which cluster is a constant to it on purpose"
}


def _metric(name: str, make: Callable[[], bm.Learner], **arguments: Any) -> Case:
    return Case(name, make, **{"outcomes": bm.Labels(3), "num_inputs": 2, "examples": 6} | arguments)


def _clusters() -> bm.heads.ClusterHead:
    """One that finds several clusters in a class of few examples."""
    return bm.heads.ClusterHead(8, alpha=0.5, prior_variance=0.5, noise=0.02)


def _graph() -> bm.heads.GraphHead:
    return bm.heads.GraphHead(8, width=6, channels=2)


METRIC = [
    _metric(
        "infinite-mixture-prototypes",
        lambda: bm.InfiniteMixturePrototypes(bm.MLP(2, [16, 8]), num_classes=3, head=_clusters()),
        exceptions=CONSTANT_SHARES,
    ),
    _metric(
        "infinite-mixture-prototypes-one-cluster",
        lambda: bm.InfiniteMixturePrototypes(bm.MLP(2, [16, 8]), num_classes=3),
    ),
    _metric(
        "infinite-mixture-prototypes-own-classes",
        lambda: bm.InfiniteMixturePrototypes(bm.MLP(2, [16, 8]), head=_clusters()),
        outcomes=bm.Labels(),
        exceptions=OWN_CLASSES | CONSTANT_SHARES,
    ),
    _metric("graph-network", lambda: bm.GraphNetwork(bm.MLP(2, [16, 8]), num_classes=3, head=_graph())),
    _metric(
        "graph-network-own-classes",
        lambda: bm.GraphNetwork(bm.MLP(2, [16, 8]), head=_graph()),
        outcomes=bm.Labels(),
        exceptions=OWN_CLASSES,
    ),
]
