"""What a recipe does with the tasks that it is given."""

import pytest

import bayesmeta as bm
from bayesmeta.recipes import RECIPES, recipe
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
        assert name in ("alpaca-linear", "alpaca-rbf", "stack")
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
