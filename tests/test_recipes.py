"""What a recipe does with the tasks that it is given."""

import pytest

import bayesmeta as bm
from bayesmeta.recipes import RECIPES, recipe
from bayesmeta.trainers import Training


@pytest.mark.parametrize("name", RECIPES)
def test_tasks_are_divided_as_it_is_said(name: str) -> None:
    tasks = bm.tasks.Sinusoid.maml().dataset(20, 5, seed=0)
    train, stopping = recipe(name).train.divided(tasks, Training(seed=3))
    by_evidence = name in ("alpaca-linear", "alpaca-rbf", "stack")
    assert (stopping is None) == by_evidence
    if stopping is not None:
        assert (len(train), len(stopping)) == (16, 4)
        assert not {*train.names} & {*stopping.names}
    for few, training in ((tasks.select(range(4)), Training()), (tasks, Training(validation=0.0))):
        assert recipe(name).train.divided(few, training) == (few, None)


@pytest.mark.parametrize("outcomes", [bm.Numbers(), bm.Labels(3)])
def test_a_convolution_is_over_one_input(outcomes: bm.Outcomes) -> None:
    """Two are refused, with what to take."""
    assert recipe("convcnp", outcomes).build(1, 3).x_shape == (1,)
    with pytest.raises(bm.DataError, match="take transformer"):
        recipe("convcnp", outcomes).build(2, 3)
