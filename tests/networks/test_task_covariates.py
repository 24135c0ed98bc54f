"""A prior mean that is linear in covariates, or a network of them: against the Gaussian that it says, written out."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.distributions import MultivariateNormal
from typer.testing import CliRunner

import bayesmeta as bm
from bayesmeta.cli.app import app
from bayesmeta.recipes import CLASS_RECIPES, RECIPES, recipe
from bayesmeta.trainers import Training

EXACT = {"rtol": 1e-9, "atol": 1e-9}  # float64: rounding only


def _tasks(num_tasks: int = 30, seed: int = 0) -> bm.TaskDataset:
    """Lines whose intercept and slope follow two covariates, 1 to 6 points each."""
    rng = np.random.default_rng(seed)
    rows = []
    for task in range(num_tasks):
        z = rng.normal(size=2)
        intercept, slope = 1.0 + 2.0 * z[0] + 0.3 * rng.normal(), -1.0 + 0.5 * z[1] + 0.2 * rng.normal()
        known = {"task": task, "age": z[0], "dose": z[1]}
        rows += [known | {"x": x, "y": intercept + slope * x} for x in rng.uniform(-1, 1, 1 + task % 6)]
    frame = pd.DataFrame(rows)
    frame["y"] += 0.1 * rng.normal(size=len(frame))
    return bm.TaskDataset.from_frame(frame, task="task", x=["x"], covariates=["age", "dose"], y="y")


@pytest.mark.parametrize("effects", [2, bm.MLP(2, [4, 3])])
def test_the_evidence_is_that_of_the_gaussian(effects: int | bm.Network) -> None:
    """W ~ N(K_0 + Σ_j g_j(z) K_j, V σ²): mean and covariance of the points of a task, in full."""
    torch.manual_seed(0)
    learner = bm.ALPaCA(bm.networks.TaskCovariates(bm.Identity(1), effects)).double()
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    noise = learner.prior.noise.covariance()[0, 0]
    root = learner.prior.covariance.square_factor()
    weights = learner.prior.location[:, 0]
    tasks = _tasks()
    for name in tasks.names[:6]:
        task = tasks.task(name)
        z = task.x[0, :1, 1:]
        g = z[0] if isinstance(effects, int) else learner.features.effects(z[None])[0, 0]
        mean = weights[:2] + (g[:, None] * weights[2:].reshape(-1, 2)).sum(0)
        design = torch.cat([torch.ones_like(task.x[0, :, :1]), task.x[0, :, :1]], -1)
        covariance = noise * (torch.eye(len(design)) + design @ root @ root.mT @ design.mT)
        expected = MultivariateNormal(design @ mean, covariance).log_prob(task.y[0, :, 0])
        torch.testing.assert_close(learner.log_evidence(task)[0], expected, **EXACT)


def test_the_mean_of_a_new_task_follows_its_covariates() -> None:
    """Without a point, and the less the more points there are."""
    tasks = _tasks(200)
    learner = bm.ALPaCA(bm.networks.TaskCovariates(bm.Identity(1), 2)).double()
    assert bm.fit_evidence(learner, tasks).stopped_early
    empty = bm.Data.empty(bm.Data.full(torch.zeros(1, 1, 3), torch.zeros(1, 1, 1)))
    mean = learner.adapt(empty).predict([[0.0, 1.0, 0.0], [1.0, 1.0, 2.0]]).mean.flatten()
    torch.testing.assert_close(mean, torch.tensor([3.0, 3.0]).double(), rtol=0.0, atol=0.3)  # 1 + 2; 3 - 1 + 1
    shifts = bm.ALPaCA(bm.networks.TaskCovariates(bm.Identity(1), 2, shifted=[0])).double()
    bm.fit_evidence(shifts, tasks)
    both = [each.log_evidence(tasks.data).sum().item() for each in (learner, shifts)]
    assert both[0] > both[1] + 50.0  # slopes follow the dose, which a shift alone cannot say


def test_arguments() -> None:
    for arguments in ((bm.Identity(1), 0), (bm.Identity(1), 1, [2]), (bm.Identity(1), 1, [0, 0])):
        with pytest.raises(bm.DataError, match="expected"):
            bm.networks.TaskCovariates(*arguments)
    with pytest.raises(bm.ShapeError, match="of vectors"):
        bm.networks.TaskCovariates(bm.Conv4((1, 8, 8)), 1)
    own = bm.ALPaCA(bm.networks.TaskCovariates(bm.Identity(2), 1), covariance=bm.priors.DiagonalCovariance(6))
    assert own.prior.covariance.varying == tuple(range(6))  # a covariance of one's own is as it says


def _frame() -> pd.DataFrame:
    """Sites that look like numbers, a covariate that is the same everywhere, and one task of a single row."""
    rng = np.random.default_rng(1)
    rows = [
        {"who": str(w), "day": float(d), "site": ["01", "2", "10"][w % 3], "same": 1.0, "y": w % 3 + d + rng.normal()}
        for w in range(12)
        for d in range(1 if w == 5 else 4)
    ]
    return pd.DataFrame(rows).astype({"site": "category"})


def _run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_command_line_has_fixed_effects_of_covariates(tmp_path: Path) -> None:
    """What is named among the inputs has a random effect, whether it varies within a task or not."""
    table, frame = tmp_path / "table.csv", _frame()
    frame.to_csv(table, index=False)
    columns = ["--task", "who", "--x", "day", "--x", "same", "--y", "y", "--covariate", "site", "--categorical", "site"]
    _run("fit", table, *columns, "--method", "alpaca-linear", "-o", tmp_path / "model")
    learner = bm.load(tmp_path / "model").learner
    assert isinstance(learner, bm.ALPaCA)
    assert learner.prior.covariance.varying == (0, 1, 2)  # 1, day and same
    assert len(learner.prior.location) == 6
    frame.head(1).to_csv(tmp_path / "context.csv", index=False)
    _run("predict", tmp_path / "model", tmp_path / "context.csv", table, "-o", tmp_path / "out.csv")
    means = pd.read_csv(tmp_path / "out.csv", dtype={"site": str}).query("day == 0").groupby("site")["mean"].mean()
    assert means["01"] < means["2"] < means["10"]


def test_bumps_with_covariates() -> None:
    schema = bm.tasks.Schema.of(_frame(), "who", ["day"], "y", ["site", "same"])
    learner = recipe("alpaca-rbf").for_table(schema)
    assert learner.learner.prior.covariance.varying == tuple(range(9))  # 1 and the bumps of the day
    assert len(learner.learner.prior.location) == 9 + 4


@pytest.mark.parametrize("name", ["alpaca-linear", "alpaca-rbf"])
def test_covariates_alone(name: str) -> None:
    """No input varies within a task: a random intercept, and shifts by the covariates. One task is enough to fit."""
    schema = bm.tasks.Schema.of(_frame(), "who", [], "y", ["site"])
    learner = recipe(name).for_table(schema)
    assert learner.learner.prior.covariance.varying == (0,)
    one = bm.TaskDataset.from_schema(_frame().query("who == '3'"), schema)
    recipe(name).train(learner, one, Training(steps=20))
    assert learner.adapt(one.data).predict(one.data.x).mean.isfinite().all()


def test_linear_methods_and_the_default_tell_covariates_apart() -> None:
    told = {name for recipes in (RECIPES, CLASS_RECIPES) for name, each in recipes.items() if each.with_covariates}
    assert told == {"stack", "alpaca-linear", "linear-reml", "alpaca-rbf", "glmm"}


def test_a_logistic_mixed_model_has_fixed_effects_of_covariates() -> None:
    """Weights of the covariates are theta: they are the same before and after a task has points, and are learned."""
    frame = _frame().assign(ill=lambda each: (each["y"] > 2.0).map({True: "yes", False: "no"}))
    tasks = bm.TaskDataset.from_frame(frame, task="who", x=["day"], covariates=["site"], y="ill")
    learner = recipe("glmm", bm.Labels(2)).for_table(tasks.schema)
    (mixed,) = (each for each in learner.modules() if isinstance(each, bm.learners.GeneralizedLinearMixedModel))
    assert mixed.covariance.varying == (0, 1)  # the constant and the day
    assert mixed.network.location.shape == (5, 1)
    bm.fit(learner, tasks, steps=3, lr=0.1, progress=False)
    assert (mixed.network.location[2:] != 0.0).all()
    posterior = learner.adapt(tasks.data)
    assert posterior.inner.mean["effects"].shape[1:] == (2, 1)
    assert posterior.predict(tasks.data.x).probs.isfinite().all()
