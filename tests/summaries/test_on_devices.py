"""A summary of a learner that is on a device is that of the same learner on the CPU."""

import copy

import pytest
import torch

import bayesmeta as bm
from tests.registry import CASES

NAMES = ["alpaca-many-points", "mixture-alpaca-two-outputs", "maml", "stacked", "hyper-posterior", "alpaca-task-scale"]


@pytest.mark.filterwarnings("ignore::bayesmeta.errors.ConvergenceWarning")
@pytest.mark.parametrize("name", NAMES)
def test_summaries_are_those_of_the_cpu(name: str, device: torch.device) -> None:
    case = next(case for case in CASES if case.name == name)
    learner, data = case.learner(), case.batch(3, 4, 2, ragged=False).support
    tasks, there = bm.TaskDataset(data), copy.deepcopy(learner).to(device)
    assert str(there.summary(tasks)) == str(learner.summary(tasks))
    assert str(there.adapt(data).summary(tasks)) == str(learner.adapt(data).summary(tasks))
    assert repr(there) == repr(learner)


def test_a_standardised_mixed_model_too(device: torch.device) -> None:
    tasks = bm.TaskDataset(bm.tasks.Sawtooth().dataset(5, 6, seed=0).data)
    learner = bm.Standardized(bm.learners.MixedEffects(bm.Identity(1), [])).double()
    learner.prepare(tasks.data)
    there = copy.deepcopy(learner).to(device)
    assert str(there.summary(tasks)) == str(learner.summary(tasks))
    found = there.adapt(tasks.data.to(device=device)).summary(tasks).coefficients
    assert found["mean"].tolist() == pytest.approx(
        learner.adapt(tasks.data).summary(tasks).coefficients["mean"].tolist()
    )
