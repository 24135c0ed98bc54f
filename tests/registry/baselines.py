"""What every method is compared with."""

from collections.abc import Callable
from typing import Any

import bayesmeta as bm
from tests.registry.case import Case

NOTHING_SHARED = {
    "fit_lowers_the_loss": "pooled labels of classes that are each task's own: nothing is to be learned of them"
}
STEPS = bm.inference.GradientSteps(2, lr=0.1)


def _case(name: str, make: Callable[[], bm.Learner], **arguments: Any) -> Case:
    return Case(name, make, examples=3, calls=20, steps=100, **arguments)


def _new_classes(features: bm.Network, **arguments: Any) -> bm.Learner:
    return bm.FineTuned(
        features,
        base_classes=3,
        likelihood=bm.likelihoods.Categorical(3),
        solver=STEPS,
        posterior=bm.PointEstimate(),
        **arguments,
    )


BASELINES = [
    _case("fine-tuned", lambda: bm.FineTuned(bm.MLP(1, [8]), solver=STEPS)),
    _case(
        "fine-tuned-exact",
        lambda: bm.FineTuned(bm.MLP(1, [8]), solver=bm.inference.GaussNewton(1), adapted=["output"]),
    ),
    _case(
        "fine-tuned-new-classes",
        lambda: _new_classes(bm.MLP(2, [8])),
        outcomes=bm.Labels(3),
        num_inputs=2,
        exceptions=NOTHING_SHARED,
    ),
    _case(
        "fine-tuned-new-classes-by-angle",
        lambda: _new_classes(bm.networks.Cosine(bm.MLP(2, [8])), adapted=["output"]),
        outcomes=bm.Labels(3),
        num_inputs=2,
        exceptions=NOTHING_SHARED,
    ),
]
