"""The contract on order can fail, in both directions: probes that keep their word and probes that do not."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal

import bayesmeta as bm
from tests.contracts.order import check_order


@dataclass(frozen=True, eq=False, kw_only=True)
class Latest(bm.Refit):
    """Predicts the last outcome it saw."""

    def at(self, x: Tensor) -> bm.Predictive:
        packed = self.support.packed()
        last = packed.y.gather(1, (packed.counts - 1).clamp(min=0)[:, None, None])
        mean = torch.where(packed.counts[:, None, None] > 0, last, 0.0).expand(*x.shape[:2], 1)
        return bm.predictives.IndependentPredictive(Independent(Normal(mean, torch.ones_like(mean)), 1))


class Sequence(bm.Learner):
    """Depends on order, and says so."""

    exchangeable = False
    outcomes = bm.Numbers(1)

    def condition(self, support: bm.Data) -> bm.TaskPosterior:
        return Latest(spec=support.spec, learner=self, support=support)


class Silent(Sequence):
    """Depends on order, and does not say so."""

    exchangeable = True


class Modest(bm.ALPaCA):
    """Says that it depends on order, and does not."""

    exchangeable = False


def _tasks() -> bm.TaskBatch:
    x = torch.randn(4, 9, 1, dtype=torch.float64)
    data = bm.Data.full(x, torch.sin(x) + torch.randn(4, 1, 1, dtype=torch.float64))
    return bm.TaskBatch(data.points(slice(6)), data.points(slice(6, None)))


def test_words_that_are_kept() -> None:
    check_order(Sequence(), _tasks())
    check_order(bm.ALPaCA(bm.Identity(1)).double(), _tasks())


def test_a_dependence_that_is_not_admitted_fails() -> None:
    with pytest.raises(AssertionError):
        check_order(Silent(), _tasks())


def test_a_dependence_that_is_not_there_fails() -> None:
    with pytest.raises(AssertionError, match="says that the order of the support matters"):
        check_order(Modest(bm.Identity(1)).double(), _tasks())


def test_a_sequence_streams_past_padding() -> None:
    """After `append` padding stands between points; packed, the last point is the last that is real."""
    tasks = _tasks()
    mask = torch.arange(6) < torch.tensor([6, 3, 1, 0])[:, None]
    support = bm.Data(tasks.support.x, tasks.support.y, mask)
    posterior = Sequence().adapt(support).update(tasks.query.points(slice(1)))
    expected = tasks.query.y[:, :1].expand(-1, 2, -1)
    assert torch.equal(posterior.predict(tasks.query.x[:, :2]).mean, expected)
