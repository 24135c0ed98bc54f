"""A snapshot is what a deep copy is, and nothing that happens to the original reaches it."""

import copy
import pickle
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.nn.utils.parametrizations import orthogonal

import bayesmeta as bm
from bayesmeta.snapshot import KNOWN, shared, snapshot
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


def _changes() -> list[tuple[str, Callable[[bm.Learner], object]]]:
    """Everything that can happen to a learner, by name."""
    fresh = bm.ALPaCA(bm.MLP(1, [4, 4]))
    return [
        ("in place", lambda learner: learner.prior.location.data.add_(1.0)),
        ("set", lambda learner: setattr(learner.prior, "location", nn.Parameter(torch.ones(4, 1)))),
        ("loaded", lambda learner: learner.load_state_dict(fresh.state_dict())),
        ("moved", lambda learner: learner.double()),
        ("buffer", lambda learner: learner.features.register_buffer("more", torch.zeros(1))),
        ("mode", lambda learner: learner.eval()),
        ("number", lambda learner: setattr(learner.prior.noise.value, "upper", 2e8)),
        ("kind of number", lambda learner: setattr(learner.prior.noise.value, "upper", int(1e8))),
        ("tuple", lambda learner: setattr(learner.features, "hidden", (4, 5))),
        ("new attribute", lambda learner: setattr(learner, "also", None)),
        ("attribute gone", lambda learner: delattr(learner.features, "skip")),
        ("outcomes", lambda learner: setattr(learner, "outcomes", bm.outcomes.Positives(1))),
        ("module", lambda learner: setattr(learner.features.layers, "1", nn.ReLU())),
        (
            "modules in another order",
            lambda learner: learner.features.layers.__dict__.update(_modules=_turned(learner)),
        ),
        ("module gone", lambda learner: learner.features.layers.__delitem__(3)),
        ("hook", lambda learner: learner.features.register_forward_hook(lambda module, args, out: out + 1.0)),
        ("parametrised", lambda learner: orthogonal(learner.features.layers[2])),
        ("not a number", lambda learner: learner.prior.location.data.fill_(torch.nan)),
    ]


def _turned(learner: bm.Learner) -> dict[str, nn.Module]:
    return dict(reversed(learner.features.layers._modules.items()))


@pytest.mark.parametrize(("name", "change"), _changes(), ids=[name for name, _ in _changes()])
def test_a_shared_snapshot_is_what_the_learner_is_now(name: str, change: Callable[[bm.Learner], object]) -> None:
    learner = bm.ALPaCA(bm.MLP(1, [4, 4]))
    before = shared(learner)
    assert shared(learner) is before, "nothing has changed"
    state = copy.deepcopy(before.state_dict())
    change(learner)
    after = shared(learner)
    assert after is not before
    assert all(torch.equal(value, state[key]) for key, value in before.state_dict().items())
    assert list(after.state_dict()) == list(learner.state_dict())
    for key, value in after.state_dict().items():
        torch.testing.assert_close(value, learner.state_dict()[key], rtol=0.0, atol=0.0, equal_nan=True)
    assert after.training == learner.training


@pytest.mark.filterwarnings("ignore::bayesmeta.ConvergenceWarning")  # short chains
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_learner_is_compared_by_value(case: Case) -> None:
    """What stays as it is shares a snapshot, whatever else it holds, and any number of theta that moves is noticed."""
    learner = case.learner()
    if any(not type(each).__module__.startswith(KNOWN) for each in learner.modules()):
        assert shared(learner) is not shared(learner)  # a user's own may write to themselves while they run
        return
    if case.name in ("parametric-two-outputs",):
        assert shared(learner) is not shared(learner)  # a formula of a user's own may have a state
        return
    first = shared(learner)
    assert shared(learner) is first
    for name, value in learner.state_dict().items():
        if value.is_floating_point() and value.numel() and value.flatten()[-1].isfinite():
            value[(-1,) * value.ndim].add_(1.0)
            second = shared(learner)
            assert second is not first, name
            first = second


def test_users_modules_have_a_snapshot_each() -> None:
    odd = _Odd()
    assert shared(odd) is not shared(odd)
    learner = bm.ALPaCA(bm.Identity(1))
    learner.features.note = [lambda: odd]  # what a closure holds may change
    assert shared(learner) is not shared(learner)


def test_a_kept_snapshot_goes_with_the_learner() -> None:
    """One is kept of each learner, and nothing of what is kept holds the learner, or itself."""
    learner = bm.Standardized(bm.ALPaCA(bm.MLP(1, [4])))
    learner.prepare(bm.Data.from_arrays([0.0, 1.0, 2.0], [0.2, 0.4, 0.9]))
    data = bm.Data.from_arrays([0.0, 1.0], [0.2, 0.4])
    learner.adapt(data)
    kept = weakref.ref(shared(learner))
    inner = weakref.ref(shared(learner).learner)
    assert kept() is not None
    learner.adapt(data)
    learner.learner.prior.location.data.add_(1.0)
    learner.adapt(data)
    gone = weakref.ref(learner)
    assert kept() is None, "another has taken its place"
    assert inner() is None
    kept = weakref.ref(shared(learner))
    del learner
    assert gone() is None
    assert kept() is None


def test_copies_and_pickles_know_nothing_of_it() -> None:
    learner = bm.ALPaCA(bm.MLP(1, [4]))
    data = bm.Data.from_arrays([0.0, 1.0], [0.2, 0.4])
    before, bare = learner.adapt(data).predict([0.3]).mean, len(pickle.dumps(learner))
    assert len(pickle.dumps(learner)) == bare
    for other in (copy.deepcopy(learner), pickle.loads(pickle.dumps(learner))):
        assert shared(other) is not shared(learner)
        other.prior.location.data.add_(1.0)
        assert not torch.equal(other.adapt(data).predict([0.3]).mean, before)
    assert torch.equal(learner.adapt(data).predict([0.3]).mean, before)


def test_posteriors_of_one_snapshot_do_not_meet() -> None:
    """Weights of tasks stand in the place of a network's own while it runs: threads have a tree each for that."""
    learner = bm.MAML(bm.Conv4((1, 16, 16), channels=8), steps=1, posterior=bm.PointEstimate())
    data = bm.Data.full(torch.randn(2, 3, 1, 16, 16), torch.randn(2, 3, 1))
    posteriors = [learner.adapt(data.select([k])) for k in range(2)]
    wanted = [posterior.predict(data.x[[k]]).mean for k, posterior in enumerate(posteriors)]

    def work(number: int) -> bool:
        k = number % 2
        got = posteriors[k].predict(data.x[[k]]).mean, learner.adapt(data.select([k])).predict(data.x[[k]]).mean
        return all(torch.equal(each, wanted[k]) for each in got)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(32)))


def test_mapped_and_recorded_code_decides_nothing() -> None:
    learner = bm.ALPaCA(bm.Identity(1))
    first = shared(learner)
    torch.vmap(lambda x: x * (shared(learner) is not first))(torch.ones(2))
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert shared(learner) is not first
    assert shared(learner) is first
