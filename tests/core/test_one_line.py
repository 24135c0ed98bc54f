"""Posteriors and predictives print as one line, whatever a dataclass would write, and of every learner."""

from dataclasses import dataclass

import pytest
import torch
from torch.distributions import Bernoulli, Categorical, Independent, Normal

import bayesmeta as bm
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
    assert repr(posterior).startswith("posterior of 3 tasks")
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
