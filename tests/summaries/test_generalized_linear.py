"""The summary of a generalised linear mixed model: fixed effects, their errors, and levels of categories."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import torch

import bayesmeta as bm


def table(between: float, tasks: int = 60, points: int = 6) -> pd.DataFrame:
    """Sick or not, by dose and by arm; tasks differ in their level."""
    generator = np.random.default_rng(3)
    who = np.repeat(np.arange(tasks), points)
    dose, arm = generator.uniform(0.0, 2.0, len(who)), who % 3
    logits = -0.5 + 0.8 * dose + np.array([0.0, 0.7, -0.6])[arm] + generator.normal(0.0, between, tasks)[who]
    sick = (generator.uniform(size=len(who)) < 1.0 / (1.0 + np.exp(-logits))).astype(int)
    frame = pd.DataFrame({"who": who, "dose": dose, "arm": np.array(["a", "b", "c"])[arm], "sick": sick})
    return frame.assign(b=(frame["arm"] == "b").astype(float), c=(frame["arm"] == "c").astype(float))


def fitted(frame: pd.DataFrame, covariates: list[str], inputs: int) -> tuple[bm.Learner, bm.TaskDataset]:
    """A random intercept."""
    tasks = bm.TaskDataset.from_frame(
        frame, task="who", x=["dose"], covariates=covariates, y="sick", outcomes=bm.Labels(2)
    )
    learner = bm.learners.GeneralizedLinearMixedModel(
        bm.Identity(inputs),
        likelihood=bm.likelihoods.Bernoulli(),
        covariance=bm.priors.FullCovariance(inputs + 1, varying=[0]),
    ).double()
    bm.fit_evidence(learner, tasks)
    return learner, tasks


def test_levels_of_a_category_are_differences_from_the_first() -> None:
    """As if the first level had no column: the same effects, errors and number of parameters."""
    frame = table(between=1.0)
    arms, columns = (
        learner.summary(tasks) for learner, tasks in (fitted(frame, ["arm"], 4), fitted(frame, ["b", "c"], 3))
    )
    assert arms.fixed_effects.index.tolist() == ["intercept", "dose", "arm=b - a", "arm=c - a"]
    assert "The intercept is of rows with arm=a; effects of other levels are differences from these." in arms.notes
    # two searches for one maximum, and second derivatives by differences
    np.testing.assert_allclose(arms.fixed_effects.to_numpy(), columns.fixed_effects.to_numpy(), rtol=1e-3, atol=1e-4)
    assert arms.likelihood.parameters == columns.likelihood.parameters == 5
    assert arms.likelihood.log_likelihood == pytest.approx(columns.likelihood.log_likelihood, abs=1e-5)


def test_without_differences_between_tasks_errors_are_those_of_logistic_regression() -> None:
    frame = table(between=0.0)
    learner, tasks = fitted(frame, ["b", "c"], 3)
    with torch.no_grad():
        for parameter in learner.covariance.parameters():
            parameter.mul_(1e-6)
    exact = sm.Logit(frame["sick"], sm.add_constant(frame[["dose", "b", "c"]])).fit(disp=False)
    with torch.no_grad():
        learner.network.location[:, 0] = torch.from_numpy(exact.params.to_numpy().copy())
    found = learner.summary(tasks).fixed_effects
    np.testing.assert_allclose(found["estimate"], exact.params, rtol=1e-6)
    np.testing.assert_allclose(found["std_error"], exact.bse, rtol=1e-4)


def test_effects_that_are_sums_of_others_have_no_error() -> None:
    frame = table(between=1.0)
    frame["twice"] = 2.0 * frame["b"]
    learner, tasks = fitted(frame, ["b", "twice"], 3)
    assert learner.summary(tasks).fixed_effects["std_error"].isna().all()
