"""Crossed and nested random effects: recorded fits of lme4 and MixedModels.jl, and a likelihood written out.

Anchors: penicillin (crossed) as lme4's and MixedModels.jl's documentation have it, which statsmodels repeats to 1e-8.
For pbg and glucose2 (nested) no published fit is at hand: their values are those of a dense Gaussian likelihood that
scipy maximised from four starts. statsmodels has the same for pbg; for glucose2 by ML it stops .12 nats below.
"""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import bayesmeta as bm


@dataclass(frozen=True)
class Fit:
    table: str
    task: str | list[str]
    groups: tuple[str, ...]
    x: tuple[str, ...]
    y: str
    log_likelihood: float
    task_variance: float
    group_variance: float
    noise: float
    restricted: bool


RABBITS, DATES = ["Rabbit", "Treatment"], ["Subject", "Date"]
FITS = [
    Fit("penicillin", "task", ("sample",), (), "diameter", -166.094174, 0.714992, 3.135194, 0.302425, False),
    Fit("penicillin", "task", ("sample",), (), "diameter", -165.430294, 0.716908, 3.730917, 0.302415, True),
    Fit("pbg", RABBITS, (), ("dose",), "deltaBP", -193.797873, 7.548805, 0.0, 32.332821, False),
    Fit("pbg", RABBITS, (), ("dose",), "deltaBP", -196.323549, 8.661706, 0.241464, 32.992676, True),
    Fit("glucose2", DATES, (), ("Time",), "glucose", -310.435978, 0.006836, 0.072673, 1.340985, False),
    Fit("glucose2", DATES, (), ("Time",), "glucose", -315.351741, 0.006306, 0.093336, 1.348393, True),
]


@pytest.mark.data
@pytest.mark.parametrize("expected", FITS, ids=lambda f: f"{f.table}-{'REML' if f.restricted else 'ML'}")
def test_fit(expected: Fit, real_data: Path) -> None:
    import pandas as pd

    frame = pd.read_csv(real_data / expected.table / f"{expected.table}.csv")
    tasks = bm.TaskDataset.from_frame(
        frame, task=expected.task, x=expected.x, groups=expected.groups, y=expected.y, outcomes=bm.Numbers()
    )
    features = bm.Identity(len(expected.x))
    own, shared = (bm.priors.FullCovariance(features.num_outputs, varying=[0]) for _ in range(2))
    learner = bm.learners.MixedEffects(features, tasks.schema.group_sizes, covariance=own, shared=[shared]).double()
    problem = bm.training.RestrictedMaximumLikelihood() if expected.restricted else bm.training.MaximumLikelihood()
    assert bm.fit_evidence(learner, tasks, problem).stopped_early
    assert abs(problem(learner, learner.conform(tasks.data)).item() - expected.log_likelihood) < 1e-5
    noise = learner.prior.noise.variance().item()
    found = torch.tensor([own.matrix()[0, 0].item() * noise, shared.matrix()[0, 0].item() * noise, noise])
    wanted = torch.tensor([expected.task_variance, expected.group_variance, expected.noise])
    # four digits, as the likelihood is flat at its top; and a variance of zero to a thousandth of a deviation squared
    torch.testing.assert_close(found, wanted, rtol=2e-4, atol=1e-5)
