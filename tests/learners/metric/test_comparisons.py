"""What every comparison keeps besides the contracts: ties, blobs, points of no class."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import bayesmeta as bm
from bayesmeta.evaluation import metrics

D = torch.float64
LEARNERS: dict[str, Callable[[bm.Network, int | None], bm.Learner]] = {
    "prototypical": lambda network, ways: bm.Prototypical(network, num_classes=ways),
    "matching": lambda network, ways: bm.Matching(network, num_classes=ways),
    "siamese": lambda network, ways: bm.Siamese(network, num_classes=ways),
    "relation": lambda network, ways: bm.Relation(network, num_classes=ways),
}


class Constant(bm.Network):
    """Features that say nothing."""

    x_shape, num_outputs = (2,), 4

    def forward(self, x: Tensor) -> Tensor:
        return torch.ones(*x.shape[:2], 4, dtype=x.dtype)


@pytest.mark.parametrize("name", LEARNERS)
def test_ties_do_not_favour_the_first_class(name: str) -> None:
    """A collapsed network is right 1/C of the time, whichever class is listed first (a known trap of argmax)."""
    learner = LEARNERS[name](Constant(), None).double()
    support = bm.Data.from_labels(torch.randn(4, 2, dtype=D), [0, 1, 2, 3])
    prediction = learner.adapt(support).predict(torch.randn(1, 8, 2, dtype=D))
    torch.testing.assert_close(prediction.probs, torch.full((1, 8, 4), 0.25, dtype=D))
    labels = torch.zeros(1, 8, dtype=torch.long)
    assert metrics.accuracy(prediction, labels).item() == pytest.approx(0.25)


def _nll(learner: bm.Learner, batch: bm.TaskBatch) -> float:
    probs = learner.adapt(batch.support).predict(batch.query.x).probs
    return -probs.gather(-1, batch.query.y[..., None]).log().mean().item()


@pytest.mark.parametrize("name", LEARNERS)
def test_statistics_over_query_points_are_refused(name: str) -> None:
    """Through them query points would tell of each other."""
    with pytest.raises(bm.UnsupportedError, match="each point on its own"):
        LEARNERS[name](bm.Conv4((1, 8, 8), channels=8, norm="task"), None)
