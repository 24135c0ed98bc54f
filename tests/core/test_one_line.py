"""Posteriors and predictives print as one line, whatever a dataclass would write, and of every learner."""

from dataclasses import dataclass

import pytest
import torch
from torch.distributions import Bernoulli, Categorical, Independent, Normal

import bayesmeta as bm
from bayesmeta.learners.closed_form.linear_posterior import LinearPosterior
from bayesmeta.one_line import OneLine, several
from tests.registry import CASES, Case


def test_a_dataclass_keeps_the_line_it_inherits_or_writes() -> None:
    class Value(OneLine):
        def __repr__(self) -> str:
            return "a value"

    @dataclass(frozen=True)
    class Child(Value):
        numbers: tuple[int, ...]

    @dataclass(frozen=True)
    class Spoken(Child):
        def __repr__(self) -> str:
            return f"{super().__repr__()} of {several(len(self.numbers), 'number')}"

    @dataclass(frozen=True)
    class Grandchild(Spoken):
        more: int = 0

    assert repr(Child((1, 2))) == "a value"
    assert repr(Spoken((1,))) == "a value of 1 number"
    assert repr(Grandchild((1, 2))) == "a value of 2 numbers"


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        ([2, 5, 0], "posterior of 3 tasks after 2, 5, 0 points"),
        ([4], "posterior of 1 task after 4 points"),
        ([1], "posterior of 1 task after 1 point"),
        ([0], "posterior of 1 task after 0 points"),
        ([1, 2, 3, 4, 5], "posterior of 5 tasks after 1, 2, 3, 4, 5 points"),
        ([1, 2, 3, 4, 5, 6, 7], "posterior of 7 tasks after 1, 2, 3, 4, 5, ... points"),
        ([], "posterior of 0 tasks"),
    ],
)
def test_a_posterior_counts_its_tasks_and_their_points(counts: list[int], line: str) -> None:
    mask = torch.arange(7) < torch.tensor(counts, dtype=torch.long)[:, None]
    support = bm.Data(torch.zeros(len(counts), 7, 1), torch.zeros(len(counts), 7, 1), mask)

    @dataclass(frozen=True, eq=False, kw_only=True)
    class Known(bm.Refit):
        def at(self, x: torch.Tensor) -> bm.Predictive:
            raise NotImplementedError

    @dataclass(frozen=True, eq=False, kw_only=True)
    class Unknown(bm.TaskPosterior):
        weights: torch.Tensor

        def at(self, x: torch.Tensor) -> bm.Predictive:
            raise NotImplementedError

        def extended(self, data: bm.Data) -> bm.TaskPosterior:
            raise NotImplementedError

    assert repr(Known(spec=support.spec, learner=bm.ALPaCA(bm.Identity(1)), support=support)) == line
    unknown = Unknown(spec=support.spec, weights=torch.zeros(1000))
    assert repr(unknown) == f"posterior of {several(len(counts), 'task')}"


def _support(counts: list[int], num_classes: int | None) -> bm.Data:
    generator = torch.Generator().manual_seed(0)
    x = [torch.randn(count, 1, generator=generator) for count in counts]
    if num_classes is None:
        return bm.Data.stack([bm.Data.from_arrays(each, torch.sin(each)) for each in x])
    return bm.Data.stack([bm.Data.from_labels(each, torch.arange(len(each)) % num_classes) for each in x])


@pytest.mark.parametrize(
    "learner",
    [
        bm.ALPaCA(bm.Identity(1)),
        bm.R2D2Regressor(bm.Identity(1)),
        bm.MixtureALPaCA(bm.Identity(1), num_components=2),
        bm.DeepKernelTransfer(bm.Identity(1)),
        bm.R2D2(bm.Identity(1), num_classes=2),
        bm.LRD2(bm.Identity(1), num_classes=2),
        bm.MetaOptNet(bm.Identity(1), num_classes=2),
        bm.DeepKernelClassifier(bm.Identity(1), num_classes=2),
        bm.Standardized(bm.ALPaCA(bm.Identity(1))),
    ],
    ids=lambda learner: type(learner).__name__,
)
def test_a_posterior_that_keeps_no_support_counts_what_it_has_seen(learner: bm.Learner) -> None:
    num_classes = learner.outcomes.count if isinstance(learner.outcomes, bm.Labels) else None
    learner.prepare(_support([5, 5], num_classes))
    posterior = learner.adapt(_support([2, 5, 0], num_classes))
    assert repr(posterior) == "posterior of 3 tasks after 2, 5, 0 points"
    more = _support([1, 0, 3], num_classes)
    assert repr(posterior.update(more)) == "posterior of 3 tasks after 3, 5, 3 points"
    assert repr(posterior) == "posterior of 3 tasks after 2, 5, 0 points"
    assert repr(learner.adapt(bm.Data.empty(more))) == "posterior of 3 tasks after 0, 0, 0 points"


def test_a_posterior_of_chunks_of_tasks_counts_them_all() -> None:
    """Learners that work on a chunk of the tasks at a time still count in the order of the tasks."""
    counts = [index % 3 for index in range(10_000)]
    mask = torch.arange(2) < torch.tensor(counts)[:, None]
    support = bm.Data(torch.zeros(len(counts), 2, 1), torch.zeros(len(counts), 2, 1), mask)
    posterior = bm.ALPaCA(bm.Polynomial(1, 31), covariance=bm.priors.IsotropicCovariance(32)).adapt(support)
    assert isinstance(posterior, LinearPosterior)
    assert len(posterior.beliefs) > 1
    assert posterior.update(support).points_seen.tolist() == [2 * count for count in counts]


def _normal(tasks: int, points: int, outputs: int = 1) -> bm.Predictive:
    mean = torch.arange(float(tasks * points * outputs)).reshape(tasks, points, outputs) / 3.0
    return bm.predictives.IndependentPredictive(Independent(Normal(mean, torch.full_like(mean, 0.25)), 1))


def test_a_predictive_of_one_task_says_what_it_predicts() -> None:
    assert repr(_normal(1, 2)) == "prediction at 2 points: mean [0, 0.333], sd [0.25, 0.25]"
    assert repr(_normal(1, 1)) == "prediction at 1 point: mean [0], sd [0.25]"
    assert repr(_normal(1, 0)) == "prediction at 0 points"
    assert repr(_normal(1, 1, 2)) == "prediction at 1 point: mean [[0, 0.333]], sd [[0.25, 0.25]]"
    long = "prediction at 9 points: mean [0, 0.333, 0.667, 1, ...], sd [0.25, 0.25, 0.25, 0.25, ...]"
    assert repr(_normal(1, 9)) == long
    assert repr(_normal(3, 2)) == "prediction at 2 points of 3 tasks"
    assert repr(_normal(0, 2)) == "prediction at 2 points of 0 tasks"


def test_a_predictive_of_labels_says_the_probabilities() -> None:
    three = bm.predictives.IndependentPredictive(Categorical(torch.tensor([[[0.7, 0.2, 0.1]]])))
    assert repr(three) == "prediction at 1 point: class probabilities [[0.7, 0.2, 0.1]]"
    two = bm.predictives.IndependentPredictive(Bernoulli(torch.tensor([[0.25, 1.0]])))
    assert repr(two) == "prediction at 2 points: class probabilities [[0.75, 0.25], [0, 1]]"


@pytest.mark.filterwarnings("ignore::bayesmeta.ConvergenceWarning")  # few draws, which need not have converged
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_learner_has_one_line_for_both(case: Case) -> None:
    learner, tasks = case.learner(), case.batch(3, 4, 2)
    posterior = learner.adapt(tasks.support)
    assert repr(posterior).startswith("posterior of 3 tasks after ")
    assert repr(posterior.predict(tasks.query.x)) == "prediction at 2 points of 3 tasks"
    alone = learner.adapt(tasks.support.select([0])).predict(tasks.query.x[:1])
    said = "class probabilities [[" if case.num_classes else "mean ["
    assert repr(alone).startswith(f"prediction at 2 points: {said}")
    assert "\n" not in repr(alone) + repr(posterior)


@pytest.mark.parametrize(
    "simulator",
    [bm.tasks.Sinusoid(), bm.tasks.Step(), bm.tasks.GPFunctions.eq(), bm.tasks.GaussianBlobs(3)],
    ids=lambda each: type(each).__name__,
)
def test_every_oracle_has_one_line_for_both(simulator: bm.tasks.Simulator) -> None:
    data = simulator.dataset(1, 3, seed=0).data
    assert simulator.oracle is not None
    posterior = simulator.oracle.adapt(data)
    assert repr(posterior) == "posterior of 1 task after 3 points"
    assert repr(posterior.predict(data.x)).startswith("prediction at 3 points: ")
