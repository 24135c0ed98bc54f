"""A snapshot is what a deep copy is, and nothing that happens to the original reaches it."""

import copy

import pytest
import torch
from torch import nn

from bayesmeta.snapshot import snapshot
from tests.registry import CASES, Case


@pytest.mark.filterwarnings("ignore::bayesmeta.ConvergenceWarning")  # short chains
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_is_a_frozen_deep_copy(case: Case) -> None:
    learner = case.learner()
    made, expected = snapshot(learner), copy.deepcopy(learner)
    assert type(made) is type(learner)
    assert list(made.state_dict()) == list(expected.state_dict())
    for (name, a), (_, b) in zip(made.state_dict().items(), expected.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
        assert a.data_ptr() != learner.state_dict()[name].data_ptr() or not a.numel(), name
    assert not any(p.requires_grad for p in made.parameters())
    assert [n for n, _ in made.named_parameters()] == [n for n, _ in expected.named_parameters()]  # tied ones once
    assert {id(m) for m in made.modules()}.isdisjoint({id(m) for m in learner.modules()})
    tasks = case.batch(2, 3, 2)
    before = made.condition(made.conform(tasks.support)).at(made.conform(tasks.query).x).marginals
    with torch.no_grad():
        for value in learner.state_dict().values():
            if value.is_floating_point():
                value.add_(1.0)
    after = made.condition(made.conform(tasks.support)).at(made.conform(tasks.query).x).marginals
    which = "probs" if case.num_classes else "mean"
    assert torch.equal(getattr(before, which), getattr(after, which))


class _Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(1, 1)
        self.also = self.inner  # the same module twice
        self.tied = self.inner.weight  # the same parameter twice
        self.listed = [self.inner, {"of": self.inner.weight}]  # and where modules do not look
        self.loose = torch.zeros(2)
        self.numbers = [1, 2]
        self.register_buffer("nothing", None)
        self.inner.register_forward_hook(lambda module, args, out: out + 1.0)


def test_references_point_into_the_copy() -> None:
    odd = _Odd()
    made = snapshot(odd)
    assert made.inner is made.also is made.listed[0]
    assert made.tied is made.inner.weight is made.listed[1]["of"]
    odd.loose.add_(1.0)
    odd.numbers.append(3)
    assert made.loose.sum() == 0.0
    assert made.numbers == [1, 2]
    assert made.nothing is None
    x = torch.ones(1, 1)
    assert torch.equal(made.inner(x), odd.inner(x))  # hooks come along
    odd.inner.register_forward_hook(lambda module, args, out: out + 100.0)
    assert odd.inner(x) > made.inner(x) + 50.0


def test_parameters_elsewhere_stay_parameters(device: torch.device) -> None:
    """There they are of a class of their own, and `isinstance(value, nn.Parameter)` is what code looks at."""
    copied = snapshot(nn.Linear(2, 1).to(device)).weight
    assert isinstance(copied, nn.Parameter)
    assert copied.device == device
    assert not copied.requires_grad
