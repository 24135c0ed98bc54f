"""Learners that compare a query with the support."""

from collections.abc import Callable
from typing import Any

import bayesmeta as bm
from tests.registry.case import Case
from tests.registry.closed_form import OWN_CLASSES


def _classifier(name: str, make: Callable[[int | None], bm.Learner], **exceptions: str) -> list[Case]:
    """With classes of a fixed number, and with those of each task's support: tasks of a batch have different ways."""
    shared: dict[str, Any] = {"num_inputs": 2, "examples": 6}
    return [
        Case(name, lambda: make(3), outcomes=bm.Labels(3), exceptions=exceptions, **shared),
        Case(
            f"{name}-own-classes",
            lambda: make(None),
            outcomes=bm.Labels(),
            exceptions=OWN_CLASSES | exceptions,
            steps=120,
            **shared,
        ),
    ]


def _mlp() -> bm.MLP:
    return bm.MLP(2, [16, 8])


def _clusters() -> bm.heads.ClusterHead:
    """One that finds several clusters in a class of few examples."""
    return bm.heads.ClusterHead(8, alpha=0.5, prior_variance=0.5, noise=0.02)


SHARES = {"meta_gradient_equals_finite_differences": "which example is of which cluster is a constant to it on purpose"}
PAIRS = {"meta_gradient_equals_finite_differences": "of its loss a half is learned while the pairs are held still"}

METRIC = [
    *_classifier("prototypical", lambda ways: bm.Prototypical(_mlp(), num_classes=ways)),
    *_classifier("matching", lambda ways: bm.Matching(_mlp(), num_classes=ways)),
    *_classifier("matching-bilstm", lambda ways: bm.Matching(_mlp(), num_classes=ways, context=bm.heads.BiLSTM(8))),
    *_classifier(
        "matching-set-attention",
        lambda ways: bm.Matching(_mlp(), num_classes=ways, context=bm.heads.SetAttention(8, 2)),
    ),
    *_classifier("siamese", lambda ways: bm.Siamese(_mlp(), num_classes=ways), **PAIRS),
    *_classifier("relation", lambda ways: bm.Relation(_mlp(), num_classes=ways)),
    *_classifier("relation-maps", lambda ways: bm.Relation(_mlp(), num_classes=ways, map_shape=(2, 2, 2))),
    *_classifier(
        "infinite-mixture-prototypes",
        lambda ways: bm.InfiniteMixturePrototypes(_mlp(), num_classes=ways, head=_clusters()),
        **SHARES,
    ),
    *_classifier(
        "infinite-mixture-prototypes-one-cluster",
        lambda ways: bm.InfiniteMixturePrototypes(_mlp(), num_classes=ways),
    ),
    *_classifier(
        "graph-network",
        lambda ways: bm.GraphNetwork(_mlp(), num_classes=ways, head=bm.heads.GraphHead(8, width=6, channels=2)),
    ),
]
