"""Learners whose inference is one pass of a network."""

from collections.abc import Callable
from typing import Any

import bayesmeta as bm
from tests.registry.case import Case
from tests.registry.closed_form import OWN_CLASSES

SMALL: dict[str, int] = {"width": 16, "layers": 2}


def _conditional(features: bm.Network, **arguments: Any) -> bm.Learner:
    return bm.ConditionalNeuralProcess(features, **{"aggregation": bm.learners.MeanPool(8)} | SMALL | arguments)


def _latent(features: bm.Network, **arguments: Any) -> bm.Learner:
    pool = bm.learners.BayesianPool(4)
    return bm.LatentNeuralProcess(features, **{"aggregation": pool, "num_draws": 5} | SMALL | arguments)


def _case(name: str, make: Callable[[], bm.Learner], **arguments: Any) -> Case:
    return Case(name, make, examples=6, **arguments)


def _pair(name: str, make: Callable[[bm.Network], bm.Learner], two: Callable[[bm.Network], bm.Learner]) -> list[Case]:
    """One number from one, and two from two."""
    return [
        _case(name, lambda: make(bm.Identity(1))),
        _case(f"{name}-two-outputs", lambda: two(bm.MLP(2, [8])), outcomes=bm.Numbers(2), num_inputs=2),
    ]


def _classes(name: str, make: Callable[[int | None], bm.Learner]) -> list[Case]:
    """Of a fixed number, and those of each task's support."""
    shared: dict[str, Any] = {"num_inputs": 2}
    return [
        _case(name, lambda: make(3), outcomes=bm.Labels(3), **shared),
        _case(f"{name}-own-classes", lambda: make(None), outcomes=bm.Labels(), exceptions=OWN_CLASSES, **shared),
    ]


AMORTIZED = [
    *_pair(
        "conditional-mean",
        lambda features: _conditional(features),
        lambda features: _conditional(features, head=bm.heads.GaussianHead(2)),
    ),
    *_pair(
        "conditional-bayesian",
        lambda features: _conditional(features, aggregation=bm.learners.BayesianPool(4)),
        lambda features: _conditional(
            features, aggregation=bm.learners.BayesianPool(4), head=bm.heads.MixtureHead(3, 2)
        ),
    ),
    *_pair(
        "conditional-attention",
        lambda features: _conditional(features, aggregation=bm.learners.CrossAttention(8, 2)),
        lambda features: _conditional(
            features, aggregation=bm.learners.CrossAttention(8, 2), head=bm.heads.LowRankGaussianHead(3, 2)
        ),
    ),
    _case("conditional-mixture", lambda: _conditional(bm.Identity(1), head=bm.heads.MixtureHead(3))),
    _case("conditional-low-rank", lambda: _conditional(bm.Identity(1), head=bm.heads.LowRankGaussianHead(3))),
    *_classes(
        "conditional-classes",
        lambda ways: _conditional(bm.MLP(2, [8]), head=bm.heads.CategoricalHead(ways)),
    ),
    *_classes(
        "conditional-attention-classes",
        lambda ways: _conditional(
            bm.MLP(2, [8]), head=bm.heads.CategoricalHead(ways), aggregation=bm.learners.CrossAttention(8, 2)
        ),
    ),
    *_pair(
        "latent",
        lambda features: _latent(features),
        lambda features: _latent(features, head=bm.heads.GaussianHead(2)),
    ),
    _case("latent-attentive", lambda: _latent(bm.Identity(1), path=bm.learners.CrossAttention(8, 2))),
    _case("latent-mixture", lambda: _latent(bm.Identity(1), head=bm.heads.MixtureHead(2))),
    *_classes("latent-classes", lambda ways: _latent(bm.MLP(2, [8]), head=bm.heads.CategoricalHead(ways))),
]
