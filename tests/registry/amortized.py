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


ATTENTIVE: dict[str, Any] = {"width": 8, "layers": 2, "num_heads": 2}
LATTICE = {"compiles": "which cells of the lattice are held depends on where the points are"}


def _conv(head: bm.heads.OutputHead | None = None) -> bm.Learner:
    return bm.ConvCNP(head=head, points_per_unit=4.0, channels=8, layers=2, kernel_size=5)


def _absolute(num_inputs: int, **arguments: Any) -> bm.Learner:
    return bm.TransformerNeuralProcess(bm.networks.FourierFeatures(num_inputs, 3), **ATTENTIVE, **arguments)


def _relative(num_inputs: int, **arguments: Any) -> bm.Learner:
    relative = bm.learners.RelativeBias(num_bumps=4, hidden=4)
    return bm.TransformerNeuralProcess(bm.Identity(num_inputs), relative=relative, **ATTENTIVE, **arguments)


def _case(name: str, make: Callable[[], bm.Learner], **arguments: Any) -> Case:
    return Case(name, make, examples=4, calls=80, steps=100, **arguments)


def _classes(name: str, make: Callable[[int | None], bm.Learner]) -> list[Case]:
    """Of a fixed number, and those of each task's support."""
    shared: dict[str, Any] = {"num_inputs": 2}
    return [
        _case(name, lambda: make(3), outcomes=bm.Labels(3), **shared),
        _case(f"{name}-own-classes", lambda: make(None), outcomes=bm.Labels(), exceptions=OWN_CLASSES, **shared),
    ]


AMORTIZED = [
    _case("conditional-mean", lambda: _conditional(bm.Identity(1))),
    _case("conditional-bayesian", lambda: _conditional(bm.Identity(1), aggregation=bm.learners.BayesianPool(4))),
    _case(
        "conditional-attention-two-outputs",
        lambda: _conditional(
            bm.MLP(2, [8]), aggregation=bm.learners.CrossAttention(8, 2), head=bm.heads.LowRankGaussianHead(3, 2)
        ),
        outcomes=bm.Numbers(2),
        num_inputs=2,
    ),
    *_classes(
        "conditional-bayesian-classes",
        lambda ways: _conditional(
            bm.MLP(2, [8]), head=bm.heads.CategoricalHead(ways), aggregation=bm.learners.BayesianPool(4)
        ),
    ),
    _case("latent", lambda: _latent(bm.Identity(1))),
    _case(
        "latent-attentive-two-outputs",
        lambda: _latent(bm.MLP(2, [8]), path=bm.learners.CrossAttention(8, 2), head=bm.heads.MixtureHead(2, 2)),
        outcomes=bm.Numbers(2),
        num_inputs=2,
    ),
    *_classes("latent-classes", lambda ways: _latent(bm.MLP(2, [8]), head=bm.heads.CategoricalHead(ways))),
    _case("conv-cnp", _conv, exceptions=LATTICE),
    _case("conv-cnp-two-outputs", lambda: _conv(bm.heads.GaussianHead(2)), outcomes=bm.Numbers(2), exceptions=LATTICE),
    _case("conv-cnp-low-rank", lambda: _conv(bm.heads.LowRankGaussianHead(3)), exceptions=LATTICE),
    _case(
        "conv-cnp-classes",
        lambda: _conv(bm.heads.CategoricalHead(3)),
        outcomes=bm.Labels(3),
        exceptions=LATTICE
        | {"every_theta_gets_a_finite_gradient": "the last bias moves the scores of all classes alike"},
    ),
    _case(
        "conv-cnp-own-classes",
        lambda: _conv(bm.heads.CategoricalHead()),
        outcomes=bm.Labels(),
        exceptions=OWN_CLASSES | LATTICE,
    ),
    _case("transformer", lambda: _absolute(1)),
    _case("transformer-relative", lambda: _relative(1)),
    _case("transformer-mixture", lambda: _relative(1, head=bm.heads.MixtureHead(3))),
    _case(
        "transformer-two-outputs",
        lambda: _absolute(2, head=bm.heads.GaussianHead(2)),
        outcomes=bm.Numbers(2),
        num_inputs=2,
    ),
    _case(
        "transformer-classes",
        lambda: _absolute(2, head=bm.heads.CategoricalHead(3)),
        outcomes=bm.Labels(3),
        num_inputs=2,
    ),
    _case(
        "transformer-relative-own-classes",
        lambda: _relative(2, head=bm.heads.CategoricalHead()),
        outcomes=bm.Labels(),
        num_inputs=2,
        exceptions=OWN_CLASSES,
    ),
]
