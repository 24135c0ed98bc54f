"""Transformer neural processes."""

from typing import Any

import bayesmeta as bm
from tests.registry.case import Case
from tests.registry.closed_form import OWN_CLASSES

SMALL: dict[str, Any] = {"width": 8, "layers": 2, "num_heads": 2}


def _absolute(num_inputs: int, **arguments: Any) -> bm.Learner:
    return bm.TransformerNeuralProcess(bm.networks.FourierFeatures(num_inputs, 3), **SMALL, **arguments)


def _relative(num_inputs: int, **arguments: Any) -> bm.Learner:
    relative = bm.learners.RelativeBias(num_bumps=4, hidden=4)
    return bm.TransformerNeuralProcess(bm.Identity(num_inputs), relative=relative, **SMALL, **arguments)


TRANSFORMERS = [
    Case("transformer", lambda: _absolute(1), examples=6),
    Case("transformer-relative", lambda: _relative(1), examples=6),
    Case("transformer-mixture", lambda: _relative(1, head=bm.heads.MixtureHead(3)), examples=6),
    Case(
        "transformer-two-outputs",
        lambda: _absolute(2, head=bm.heads.GaussianHead(2)),
        outcomes=bm.Numbers(2),
        num_inputs=2,
        examples=6,
    ),
    Case(
        "transformer-classes",
        lambda: _absolute(2, head=bm.heads.CategoricalHead(3)),
        outcomes=bm.Labels(3),
        num_inputs=2,
        examples=6,
    ),
    Case(
        "transformer-relative-own-classes",
        lambda: _relative(2, head=bm.heads.CategoricalHead()),
        outcomes=bm.Labels(),
        num_inputs=2,
        examples=6,
        exceptions=OWN_CLASSES,
    ),
]
