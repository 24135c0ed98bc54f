"""Which classes a task has: fixed, or those of its support."""

import pytest
import torch

import bayesmeta as bm
from bayesmeta.heads.classes import Classes, one_hot


def test_a_fixed_number_of_classes_needs_no_examples() -> None:
    labels, mask = torch.tensor([[2, 0], [1, 7]]), torch.tensor([[True, True], [True, False]])
    assert Classes.of(labels, mask, 4).mask.tolist() == [[True] * 4] * 2
    assert Classes.of(labels[:, :0], mask[:, :0], 3).mask.tolist() == [[True] * 3] * 2


def test_ways_may_differ_between_tasks() -> None:
    labels, mask = torch.tensor([[2, 0, 1], [1, 0, 9]]), torch.tensor([[True] * 3, [True, True, False]])
    classes = Classes.of(labels, mask, None)
    assert classes.mask.tolist() == [[True, True, True], [True, True, False]]
    logits = classes.logits(torch.zeros(2, 1, 3))
    assert logits.tolist() == [[[0.0, 0.0, 0.0]], [[0.0, 0.0, -torch.inf]]]
    assert one_hot(labels, 3, mask).tolist() == [[[0, 0, 1], [1, 0, 0], [0, 1, 0]], [[0, 1, 0], [1, 0, 0], [0, 0, 0]]]


@pytest.mark.parametrize(
    ("labels", "num_classes", "message"),
    [
        ([[0, 3]], 3, "expected labels from 0 to 2, got labels from 0 to 3"),
        ([[0, -1]], 3, "got labels from -1 to 0"),
        ([[0, -1]], None, "expected labels from 0, got labels from -1 to 0"),
        ([[0, 1], [0, 2]], None, "got none of class 1 in task 1, which has labels up to 2"),
        ([[]], None, "shows which classes there are, got none for task 0"),
    ],
)
def test_bad_labels(labels: list[list[int]], num_classes: int | None, message: str) -> None:
    values = torch.tensor(labels, dtype=torch.int64)
    with pytest.raises(bm.DataError, match=message):
        Classes.of(values, torch.ones_like(values, dtype=torch.bool), num_classes)


def test_a_task_of_padding_alone() -> None:
    with pytest.raises(bm.DataError, match="got none for task 1"):
        Classes.of(torch.zeros(2, 1, dtype=torch.int64), torch.tensor([[True], [False]]), None)
