"""What a recipe does with the tasks that it is given."""

import numpy as np
import pandas as pd
import pytest
import torch

import bayesmeta as bm
from bayesmeta import default_stack
from bayesmeta.recipes import RECIPES, ShiftedRecipe, network_recipes, recipe
from bayesmeta.trainers import ByGradients, Training


@pytest.mark.parametrize("name", RECIPES)
def test_tasks_are_divided_as_it_is_said(name: str) -> None:
    tasks = bm.tasks.Sinusoid.maml().dataset(20, 5, seed=0)
    trainer = recipe(name).train
    said = trainer.purposes(tasks, Training(seed=3))
    if isinstance(trainer, ByGradients):
        train, stopping = trainer.divided(tasks, Training(seed=3))
        assert stopping is not None
        assert (len(train), len(stopping)) == (16, 4)
        assert not {*train.names} & {*stopping.names}
        assert said == "16 to learn from, 4 for early stopping"
    else:
        assert name in ("alpaca-linear", "linear-reml", "alpaca-rbf", "stack")
        assert said.split(",")[0] == "20 to learn from"
        assert "stopping" not in said
    for few, training in ((tasks.select(range(4)), Training()), (tasks, Training(validation=0.0))):
        assert trainer.purposes(few, training).split(",")[0] == f"{len(few)} to learn from"
        if isinstance(trainer, ByGradients):
            assert trainer.divided(few, training) == (few, None)


@pytest.mark.parametrize("outcomes", [bm.Numbers(), bm.Labels(3)])
def test_a_convolution_is_over_one_input(outcomes: bm.Outcomes) -> None:
    """Two are refused, with what to take."""
    assert recipe("convcnp", outcomes).build(1, 3).x_shape == (1,)
    with pytest.raises(bm.DataError, match="take transformer"):
        recipe("convcnp", outcomes).build(2, 3)


def _with_covariates(num_tasks: int, label: bool = False) -> bm.TaskDataset:
    """Lines with a level for each task, of which a covariate tells half, and another nothing."""
    generator = np.random.default_rng(0)
    size, x = generator.standard_normal((num_tasks, 2)), generator.uniform(-1.0, 1.0, (num_tasks, 4))
    y = size[:, :1] + generator.standard_normal((num_tasks, 1)) + x + 0.3 * generator.standard_normal((num_tasks, 4))
    task = np.arange(num_tasks).repeat(4)
    columns = {"task": task, "x": x.ravel(), "size": size[task, 0], "colour": size[task, 1], "y": y.ravel()}
    frame = pd.DataFrame(columns | {"high": np.where(y.ravel() > 0.0, "yes", "no")})
    outcome = "high" if label else "y"
    return bm.TaskDataset.from_frame(frame, task="task", x=["x"], covariates=["size", "colour"], y=outcome)


@pytest.mark.parametrize("label", [False, True], ids=["numbers", "classes"])
def test_covariates_of_few_tasks_have_linear_effects_of_all_tasks(label: bool) -> None:
    """In every recipe on a network but that of CAVIA, and what a layer of them has learned does not adapt."""
    tasks = _with_covariates(6, label)
    schema = tasks.schema
    assert schema is not None
    found = network_recipes(schema.outcome_kind)
    assert {name for name, each in found.items() if not isinstance(each, ShiftedRecipe)} == {"cavia"}
    for name, each in found.items():
        few, many = each.for_table(schema, 99), each.for_table(schema, 100)
        assert few.x_shape == many.x_shape == (3,)
        shifted = [part for part in few.modules() if isinstance(part, bm.networks.TaskCovariates)]
        assert bool(shifted) == (name != "cavia")
        assert not any(isinstance(part, bm.networks.TaskCovariates) for part in many.modules())
        adapted = getattr(few.learner, "adapted", ())  # type: ignore[union-attr]
        assert not any("shared" in layer for layer in adapted)
        few.prepare(tasks.data)
        points = few.adapt(tasks.data.points(slice(2))).predict(tasks.data.x)
        assert points.log_prob(tasks.data.y).isfinite().all()


def test_a_recipe_says_that_effects_are_linear() -> None:
    tasks, chosen = _with_covariates(6), recipe("alpaca")
    assert tasks.schema is not None
    for num_tasks, said in ((6, True), (100, False)):
        learner = chosen.for_table(tasks.schema, num_tasks)
        account = chosen.train(learner, tasks, Training(steps=2, progress=False)).account
        assert account.endswith("; effects of covariates are linear, as 6 tasks do not tell curved ones") is said


def test_no_input_varies_within_a_task() -> None:
    """A network has nothing to read but the covariates, whose effects are linear: what is left is a level."""
    schema = bm.tasks.Schema(task="task", x=(), y=("y",), covariates=("size",))
    learner = recipe("maml").for_table(schema, 10)
    learner.prepare(bm.Data.full(torch.randn(4, 3, 1), torch.randn(4, 3, 1)))
    posterior = learner.adapt(bm.Data.full(torch.randn(2, 3, 1), torch.randn(2, 3, 1)))
    assert posterior.predict(torch.randn(2, 1, 1)).mean.isfinite().all()


def test_the_default_does_not_learn_the_tasks_by_heart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty-four tasks, two covariates: without a point of fresh ones it is near the model that made the tasks.

    The level of a task has deviation 1 around its mean, noise .3 and so, of what is known before its first point, the
    entropy is 1.46 nats and the best mean 90 % coverage; a network that has learned the tasks by heart has a coverage
    under .8 (benchmarks/few_tasks_with_covariates.py). Of 200 tasks the mean NLL has a deviation of .05.
    """
    for name, value in {"ITERATIONS": 15, "MOST_AVERAGED": 0, "STEPS": 20, "FOLDS": 2, "SHOTS": (0, 1)}.items():
        monkeypatch.setattr(default_stack, name, value)
    train, test = _with_covariates(224).split(200 / 224, seed=0)
    assert train.schema is not None
    chosen = recipe("stack")
    learner = chosen.train(chosen.for_table(train.schema, len(train)), train, Training(progress=False)).learner
    scores = bm.evaluate(learner, test, shots=[0], level=0.9, num_bootstrap=0).table()
    assert scores.loc[0, "nll"] < 1.46 + 0.25  # two deviations, and what twenty-four tasks do not tell
    assert scores.loc[0, "coverage"] > 0.82
