"""A wrapper is the learner inside it but for what it changes: no hook of `Learner` may be forgotten."""

import inspect
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bayesmeta as bm
from bayesmeta.learner import Learner, LinearMixedModel
from bayesmeta.summaries import Columns, PlainSummary
from bayesmeta.wrappers.base import Untrainable, WrappedPosterior, Wrapper
from bayesmeta.wrappers.recalibrated import Recalibrated

DERIVED = {"frozen", "conform_tasks"}  # made of the module itself and of other hooks
ATTRIBUTES = {"exchangeable", "x_shape", "outcomes", "coded_inputs", "known_noise", "coupled", "partial_outcomes"}
WRAPPERS = [
    Wrapper,
    Untrainable,
    bm.Standardized,
    bm.wrappers.Autoregressive,
    Recalibrated,
    bm.wrappers.VarianceScaled,
    bm.wrappers.TemperatureScaled,
    bm.wrappers.IsotonicRecalibrated,
    bm.Sampled,
    bm.HyperPosterior,
    bm.wrappers.TaskQuadrature,
    bm.wrappers.WithHyperprior,
    bm.wrappers.ConceptLearner,
    bm.wrappers.Stacked,
    bm.wrappers.LogTransformed,
]


def hooks_of(kind: type) -> set[str]:
    """What a subclass may override: all public names of its own that are not final."""
    return {
        name
        for name, value in vars(kind).items()
        if not name.startswith("_") and not getattr(value, "__final__", False)
    }


def forgotten(kind: type[Learner], base: type = Learner) -> set[str]:
    """The hooks of a base that neither the class nor a parent below the base gives."""
    below = kind.__mro__[: kind.__mro__.index(base)]
    given = {name for parent in below for name in vars(parent)}
    return hooks_of(base) - DERIVED - ATTRIBUTES - given


@pytest.mark.parametrize("kind", WRAPPERS, ids=lambda kind: kind.__name__)
def test_every_hook_is_forwarded_or_overridden(kind: type[Wrapper]) -> None:
    missing = forgotten(kind)
    if inspect.isabstract(kind):
        missing -= {"condition"}  # which is a wrapper's own to give
    assert not missing, f"expected wrappers/base.py to forward {missing}"


def test_all_wrappers_are_tested() -> None:
    def below(kind: type) -> set[type]:
        return {kind, *(each for child in kind.__subclasses__() for each in below(child))}

    def is_the_librarys(kind: type) -> bool:  # and not one of an example in a docstring
        return (
            getattr(sys.modules.get(kind.__module__), kind.__name__, None) is kind and "bayesmeta." in kind.__module__
        )

    assert set(filter(is_the_librarys, below(Wrapper))) == set(WRAPPERS)


def test_a_hook_that_nobody_forwards_is_found() -> None:
    class More(Learner):
        def hook(self) -> None: ...

    class Forgetful(More):
        def condition(self, support: bm.Data) -> bm.TaskPosterior:
            raise NotImplementedError

    assert forgotten(Forgetful, More) == {"hook"}
    assert {"title", "loss", "evidence", "prepare", "conform", "placement"} <= hooks_of(Learner)
    assert not {"adapt", "meta_loss", "log_evidence", "surprise"} & hooks_of(Learner)


class Model(LinearMixedModel):
    def restricted_log_evidence(self, data: bm.Data) -> Tensor:
        return torch.zeros(())

    def maximise_exactly(self, data: bm.Data) -> None: ...

    def maximise_location(self, data: bm.Data) -> None: ...


class Probe(Learner):
    """Every hook has an answer that no other learner has, and remembers what it was given."""

    exchangeable = False
    coded_inputs = (2,)
    x_shape = (3,)
    outcomes = bm.Numbers(2)
    model = Model()

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, dtype=torch.float64))
        self.given: list[Any] = []

    title = "a probe"  # type: ignore[assignment]
    mixed_model = model  # type: ignore[assignment]
    kept_rows = 9  # type: ignore[assignment]

    def condition(self, support: bm.Data) -> bm.TaskPosterior:
        raise NotImplementedError

    def loss(self, tasks: bm.TaskBatch) -> Tensor:
        return torch.full((tasks.num_tasks,), 4.0)

    def evidence(self, data: bm.Data) -> Tensor:
        return torch.full((data.num_tasks,), 5.0)

    def joint_evidence(self, *data: bm.Data) -> Tensor:
        return torch.tensor(8.0 * len(data))

    def remember(self, *data: bm.Data) -> None:
        self.given.append(len(data))

    def log_hyperprior(self) -> Tensor:
        return torch.tensor(6.0)

    def described(self, columns: Columns, *data: bm.Data) -> PlainSummary:
        self.given.append((columns, *data))
        return PlainSummary(title="a probe", kind="what probes are")

    def noise_stddev(self) -> Tensor:
        return torch.full((2,), 3.0)

    def configure_optimizer(self, lr: float = 1e-3) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=7.0 * lr)

    def prepare(self, tasks: bm.Data) -> None:
        self.given.append(tasks)

    def anneal(self, progress: float) -> None:
        self.given.append(progress)

    def conform(self, data: bm.Data) -> bm.Data:
        self.given.append("conform")
        return super().conform(data)

    def placement(self) -> tuple[torch.dtype, torch.device]:
        return torch.float64, torch.device("cpu")


class Plain(Wrapper):
    def condition(self, support: bm.Data) -> bm.TaskPosterior:
        return self.learner.condition(support)


def _data() -> bm.Data:
    return bm.Data.full(torch.zeros(1, 4, 3), torch.zeros(1, 4, 2))


def test_forwarding_is_to_the_learner_inside() -> None:
    probe, data = Probe(), _data()
    assert not forgotten(Probe)  # it answers every hook: a new one must be asked here, too
    wrapper = Plain(probe)
    assert (wrapper.title, wrapper.exchangeable, wrapper.x_shape) == ("Plain(a probe)", False, (3,))
    assert wrapper.outcomes == bm.Numbers(2)
    assert wrapper.mixed_model is Probe.model
    assert wrapper.coded_inputs == (2,)
    assert wrapper.kept_rows == 9
    batch = bm.TaskBatch(data, data)
    answers = (wrapper.loss(batch), wrapper.evidence(data), wrapper.log_hyperprior(), wrapper.joint_evidence(data))
    assert [answer.max().item() for answer in answers] == [4.0, 5.0, 6.0, 8.0]
    noise = wrapper.noise_stddev()
    assert noise is not None
    assert noise.tolist() == [3.0, 3.0]
    columns = Columns.of((3,), bm.Numbers(2))
    found = wrapper.described(columns, data)
    assert (found.kind, found.title) == ("what probes are", "Plain(Probe())")
    assert probe.given.pop() == (columns, data)
    optimizer = wrapper.configure_optimizer(0.5)
    assert optimizer.param_groups[0]["lr"] == 3.5
    assert optimizer.param_groups[0]["params"][0] is probe.weight
    assert wrapper.joint_evidence(data, data) == 16.0
    wrapper.prepare(data)
    wrapper.anneal(0.25)
    assert wrapper.conform(data).x.dtype == torch.float64
    wrapper.remember(data, data)
    assert probe.given == [data, 0.25, "conform", 2]
    assert wrapper.placement() == (torch.float64, torch.device("cpu"))


def test_what_is_final_is_not_trained_and_has_its_own_loss() -> None:
    class Final(Untrainable):
        def condition(self, support: bm.Data) -> bm.TaskPosterior:
            return self.learner.condition(support)

    probe = Final(Probe())
    with pytest.raises(bm.UnsupportedError, match="expected a learner to train, got Final, whose theta is final"):
        probe.configure_optimizer()
    assert probe.mixed_model is None
    assert probe.log_hyperprior().item() == 0.0
    probe.anneal(0.5)
    assert probe.learner.given == []  # type: ignore[union-attr]
    learner = bm.DeepKernelTransfer(bm.Identity(1)).double()  # whose own loss is that of support and query together
    tasks = bm.tasks.Sinusoid().dataset(4, 6, seed=0).divided(bm.tasks.RandomSplit.at(3), 0)
    predictive = learner.condition(tasks.support).at(tasks.query.x)
    expected = -predictive.log_prob(tasks.query.y, tasks.query.mask) / tasks.query.counts
    torch.testing.assert_close(Final(learner).meta_loss(tasks), expected)
    assert (learner.meta_loss(tasks) - expected).abs().max() > 1e-3


def test_what_is_final_is_refused_in_the_same_words_made_here_and_loaded(tmp_path: Path) -> None:
    learner, tasks = bm.ALPaCA(bm.Identity(1)).double(), bm.tasks.Sinusoid().dataset(4, 6, seed=0)
    for final in (
        bm.Sampled(learner),
        bm.HyperPosterior([learner]),
        bm.wrappers.VarianceScaled(learner, [1]),
        bm.Standardized(bm.Sampled(learner)),
    ):
        bm.save(final, tmp_path / "model")
        loaded = bm.load(tmp_path / "model")
        inner = final.learner if isinstance(final, bm.Standardized) else final
        for each in (final, loaded):
            for train in (bm.fit, bm.fit_evidence):
                with pytest.raises(bm.UnsupportedError, match=f"got {type(inner).__name__}, whose theta is final"):
                    train(each, tasks)


def test_recalibrated_learners_have_no_evidence() -> None:
    with pytest.raises(bm.UnsupportedError, match="VarianceScaled has no evidence"):
        bm.wrappers.VarianceScaled(bm.ALPaCA(bm.Identity(1))).log_evidence(bm.Data.from_arrays([0.0], [1.0]))


def test_a_learners_own_rules_for_data_hold_inside_a_wrapper() -> None:
    class OfOneSize(bm.ALPaCA):
        def conform(self, data: bm.Data) -> bm.Data:
            if not data.mask.all():
                raise bm.DataError("expected tasks of one size, got padding")
            return super().conform(data)

    data = bm.Data(torch.zeros(2, 2, 1), torch.zeros(2, 2, 1), torch.tensor([[True, True], [True, False]]))
    with pytest.raises(bm.DataError, match="tasks of one size"):
        bm.wrappers.VarianceScaled(OfOneSize(bm.Identity(1)), [1]).adapt(data)


def test_wrapped_posteriors_have_seen_and_draw_what_is_inside() -> None:
    inner = bm.MAML(bm.MLP(1, [4]), steps=1).adapt(bm.Data.from_arrays([0.0, 1.0], [0.0, 1.0]))

    class View(WrappedPosterior):
        at = extended = None  # type: ignore[assignment]

    view = View(spec=inner.spec, learner=Plain(Probe()), inner=inner)
    assert repr(view) == repr(inner) == "posterior of 1 task after 2 points"
    draws = [each.sample(3, torch.Generator().manual_seed(0)) for each in (view, inner)]
    assert draws[0].keys() == draws[1].keys()
    assert all(torch.equal(draws[0][name], draws[1][name]) for name in draws[0])
