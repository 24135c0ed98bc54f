"""Data: what comes in from numpy, pandas, lists and torch, and what is refused by name."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bayesmeta.data import Data, Task, TaskBatch
from bayesmeta.errors import DataError, ShapeError

X, Y = [1.0, 2.0, 3.0], [4.0, 5.0, 6.0]


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (X, torch.float64),
        ([1, 2, 3], torch.float64),
        (np.array([1, 2, 3]), torch.float64),
        (np.array([1, 2, 3], np.uint16), torch.float64),
        (np.array(X, np.float16), torch.float32),
        (np.array(X, np.float32), torch.float32),
        (np.array(X, np.float64), torch.float64),
        (np.array(X, np.longdouble), torch.float64),
        (np.array(X, ">f8"), torch.float64),
        (np.array([9.0, *X, 9.0])[1:-1], torch.float64),
        (np.array([1.0, 0.0, 2.0, 0.0, 3.0, 0.0])[::2], torch.float64),
        (np.array(X)[::-1][::-1], torch.float64),
        (np.array(X, dtype=object), torch.float64),
        (pd.Series(X, index=[7, 7, 9]), torch.float64),
        (pd.Series([1, 2, 3], dtype="Int64"), torch.float64),
        (pd.Series(X, dtype="Float32"), torch.float32),
        (pd.DataFrame({"a": X}), torch.float64),
        (torch.tensor(X), torch.float32),
        (torch.tensor(X, dtype=torch.bfloat16), torch.float32),
        (torch.tensor([1, 2, 3], dtype=torch.uint8), torch.float64),
        ([torch.tensor(1.0), torch.tensor(2.0), torch.tensor(3.0)], torch.float32),
    ],
)
def test_from_arrays_takes_what_users_have(values: object, dtype: torch.dtype) -> None:
    data = Data.from_arrays(values, values)
    assert data.x.dtype == data.y.dtype == dtype
    assert data.x.tolist() == data.y.tolist() == [[[1.0], [2.0], [3.0]]]
    assert data.mask.tolist() == [[True, True, True]]


def test_from_arrays_takes_tables_of_mixed_columns() -> None:
    table = pd.DataFrame({"a": pd.array([1, 2], "Int64"), "b": [0.5, 1.5], "c": [True, False]})
    assert Data.from_arrays(table, table["b"]).x.tolist() == [[[1.0, 0.5, 1.0], [2.0, 1.5, 0.0]]]
    assert Data.from_arrays([True, False], [0, 1]).x.tolist() == [[[1.0], [0.0]]]


def test_arrays_are_copied_even_when_read_only() -> None:
    x = np.array(X)
    frozen = np.array(Y)
    frozen.flags.writeable = False
    data = Data.from_arrays(x, frozen)
    x[:] = 0.0
    assert data.x[0, :, 0].tolist() == X
    assert data.y[0, :, 0].tolist() == Y


def test_zero_points_and_images_are_legal() -> None:
    assert Data.from_arrays([], []).x.shape == (1, 0, 1)
    assert Data.from_arrays(np.zeros((0, 3)), np.zeros((0, 2))).y.shape == (1, 0, 2)
    assert Data.from_arrays(np.zeros((4, 3, 8, 8)), np.zeros(4)).spec.x_shape == (3, 8, 8)
    assert Data.from_labels([], []).y.dtype == torch.int64
    assert Data.from_arrays(np.zeros((4, 0)), np.zeros(4)).x.shape == (1, 4, 0)  # an intercept needs no input


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([1.0, float("nan"), 3.0], r"x to be finite, got nan at index \(1,\)"),
        ([1.0, 2.0, float("-inf")], r"x to be finite, got -inf at index \(2,\)"),
        ([float("inf"), 2.0, float("-inf")], r"got inf at index \(0,\)"),  # their sum is NaN
        (torch.tensor([[1.0, 2.0], [3.0, torch.nan], [0.0, 0.0]]), r"got nan at index \(1, 1\)"),
        (["1", "2", "3"], r"x to hold numbers, got '1' at index \(0,\)"),
        ([1.0, "two", 3.0], r"got 'two' at index \(1,\)"),
        (pd.Series([1.0, None, 3.0]), r"got nan at index \(1,\)"),
        (pd.Series([1, None, 3], dtype="Int64"), r"index \(1,\)"),
        (pd.DataFrame({"a": X, "b": ["u", "v", "w"]}), r"got 'u' at index \(0, 1\)"),
        (np.array([1.0, None, 3.0], object), r"got None at index \(1,\)"),
        (np.array([1j, 2, 3]), "x to hold real numbers, got dtype torch.complex128"),
        (pd.date_range("2020", periods=3), r"x to hold numbers, got .*2020"),
        (np.zeros(3, [("a", float)]), "x to hold numbers"),
        (np.ma.masked_array(X, [False, True, False]), "x without masked cells, got 1"),
        ([[1.0, 2.0], [3.0], [4.0]], "x to be an array of numbers, got list"),
        (None, "x to hold numbers, got None"),
        ({"a": 1.0}, "x to hold numbers, got {'a': 1.0}"),
    ],
)
def test_cells_that_are_not_finite_numbers_are_named(x: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Data.from_arrays(x, Y)
    with pytest.raises(DataError, match=re.sub(r"\bx\b", "y", message)):
        Data.from_arrays(Y, x)


def test_large_but_finite_numbers_pass() -> None:
    assert Data.from_arrays([1e308, 1e308], [0, 0]).x.max() == 1e308  # the sum overflows, no cell does


@pytest.mark.parametrize(
    ("x", "y", "got"),
    [
        (X, Y[:2], "(3, 1) and (2, 1)"),
        (np.zeros((3, 1)), np.zeros((3, 1, 1)), "(3, 1) and (3, 1, 1)"),
        (1.0, 2.0, "() and ()"),
        (X, 2.0, "(3, 1) and ()"),
    ],
)
def test_shapes_that_disagree_are_told(x: object, y: object, got: str) -> None:
    with pytest.raises(ShapeError, match=re.escape(got)):
        Data.from_arrays(x, y)


@pytest.mark.parametrize(
    "labels",
    [
        [0, 2, 1],
        [0.0, 2.0, 1.0],
        np.array([0, 2, 1], np.uint64),
        pd.Series([0, 2, 1], dtype="Int8"),
        torch.tensor([0, 2, 1]),
    ],
)
def test_from_labels(labels: object) -> None:
    data = Data.from_labels(X, labels)
    assert data.y.dtype == torch.int64
    assert data.y.tolist() == [[0, 2, 1]]
    assert Data.from_labels(X, [True, False, True]).y.tolist() == [[1, 0, 1]]


@pytest.mark.parametrize(
    ("x", "labels", "error", "message"),
    [
        (X, [0, -1, 1], DataError, "labels from 0 to C - 1, got -1 at index 1"),
        (X, [0, 1, 0.5], DataError, "got 0.5 at index 2"),
        (X, [0, 1, float("nan")], DataError, r"labels to be finite, got nan at index \(2,\)"),
        (X, [0, 1, 1e30], DataError, "at index 2"),
        (X, ["a", "b", "c"], DataError, "labels to hold numbers, got 'a'"),
        (X, [0, 1], ShapeError, r"labels of shape \(3,\), got \(2,\)"),
        (X, [[0], [1], [0]], ShapeError, r"labels of shape \(3,\), got \(3, 1\)"),
        (1.0, [0], ShapeError, r"x of shape \(N, D\), got \(\)"),
    ],
)
def test_bad_labels_are_named(x: object, labels: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Data.from_labels(x, labels)


@pytest.mark.usefixtures("unchecked")
def test_the_constructor_checks_shapes() -> None:
    x, y, mask = torch.zeros(2, 3, 1), torch.zeros(2, 3, 1), torch.ones(2, 3, dtype=torch.bool)
    for bad, message in (
        ((x, y, mask.int()), "boolean mask"),
        ((x, y, mask[0]), r"boolean mask of shape \(B, N\)"),
        ((x[:1], y, mask), r"x of shape \(2, 3\)"),
        ((x, y[:, :2], mask), r"y of shape \(2, 3\)"),
        ((x, y[..., 0], mask), "floating"),
        ((x, y.long(), mask), "int64 labels"),
    ):
        with pytest.raises(ShapeError, match=message):
            Data(*bad)


def test_stack_pads_and_masks() -> None:
    stacked = Data.stack([Data.from_arrays([1.0], [2.0]), Data.from_arrays([], []), Data.from_arrays(X, Y)])
    assert stacked.counts.tolist() == [1, 0, 3]
    assert stacked.x[0, :, 0].tolist() == [1.0, 0.0, 0.0]
    assert stacked.num_tasks == stacked.num_points == 3
    assert Data.stack([stacked, stacked]).counts.tolist() == [1, 0, 3, 1, 0, 3]


@pytest.mark.parametrize(
    "other",
    [Data.from_arrays(np.zeros((3, 2)), Y), Data.from_arrays(X, np.zeros((3, 2))), Data.from_labels(X, [0, 1, 2])],
)
def test_different_tasks_do_not_mix(other: Data) -> None:
    data = Data.from_arrays(X, Y)
    with pytest.raises(ShapeError, match="one point shape"):
        Data.stack([data, other])
    labels = not other.y.is_floating_point()
    with pytest.raises(DataError if labels else ShapeError, match="got labels" if labels else "expected data with x"):
        data.append(other)


def test_stacking_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="at least one task"):
        Data.stack([])
    with pytest.raises(DataError, match="at least one task"):
        TaskBatch.collate([])


def test_append_empty_to_and_select() -> None:
    data = Data.stack([Data.from_arrays(X, Y), Data.from_arrays(X[:1], Y[:1])])
    both = data.append(data.to(torch.float32))
    assert both.counts.tolist() == [6, 2]
    assert both.x.dtype == torch.float64
    assert Data.empty(data).mask.shape == (2, 0)
    assert data.append(Data.empty(data)).counts.tolist() == [3, 1]
    labels = Data.from_labels(X, [0, 1, 2]).to(torch.float32)
    assert labels.x.dtype == torch.float32
    assert labels.y.dtype == torch.int64
    for which in (slice(1, 2), [1], torch.tensor([1]), torch.tensor([False, True])):
        assert data.select(which).counts.tolist() == [1]
    with pytest.raises(ShapeError, match="expected data with x"):
        data.append(Data.from_arrays(X, Y))  # one task is not two


def test_a_value_beyond_the_precision_is_refused() -> None:
    with pytest.raises(DataError, match=r"y within the range of torch.float32, got 1e\+300"):
        Data.from_arrays([1.0], [1e300]).to(torch.float32)


def test_queries_take_what_predict_takes() -> None:
    spec = Data.from_arrays(X, Y).to(torch.float32).spec
    for x in (X, np.array(X)[:, None], torch.tensor(X)[None, :, None], pd.Series(X), [1, 2, 3]):
        queries = spec.queries(x)
        assert queries.shape == (1, 3, 1)
        assert queries.dtype == torch.float32
    assert spec.queries([]).shape == (1, 0, 1)
    for x, got in ((1.0, "()"), (np.zeros((3, 2)), "(3, 2)"), (np.zeros((2, 3, 1)), "(2, 3, 1)")):
        with pytest.raises(ShapeError, match=re.escape(f"expected x of shape (1, M, 1), got {got}")):
            spec.queries(x)
    with pytest.raises(DataError, match="got nan"):
        spec.queries([float("nan")])
    with pytest.raises(DataError, match="x within the range"):
        spec.queries([1e300])
    two = Data.stack([Data.from_arrays(X, Y)] * 2).spec
    with pytest.raises(ShapeError, match=re.escape("(2, M, 1), got (3, 1)")):
        two.queries(np.zeros((3, 1)))  # which task is meant?


def test_queries_keep_the_gradient_and_warn_of_nothing() -> None:
    x = torch.tensor(X, requires_grad=True)
    Data.from_arrays(X, Y).spec.queries(x).square().sum().backward()
    assert x.grad.tolist() == [2.0, 4.0, 6.0]


def test_collate_and_task_batches() -> None:
    long, short = (Task(torch.zeros(n, 1), torch.zeros(n, 1), torch.ones(2, 1), torch.ones(2, 1)) for n in (3, 1))
    batch = TaskBatch.collate([long, short], ["a", "b"])
    assert batch.support.counts.tolist() == [3, 1]
    assert batch.query.counts.tolist() == [2, 2]
    assert batch.select(slice(1, 2)).names == ("b",)
    assert batch.to(torch.float64).query.x.dtype == torch.float64
    with pytest.raises(ShapeError, match="names of 2 tasks, got 1"):
        TaskBatch.collate([long, short], ["a"])
    with pytest.raises(ShapeError, match="support and query of the same tasks, got 2 and 1"):
        TaskBatch(batch.support, batch.query.select([0]))


# ------------------------------------------------------------------------------------------ parts of data, made by name


def _ragged() -> Data:
    return Data.stack([Data.from_arrays(X, Y), Data.from_arrays([7.0], [8.0]), Data.from_arrays([], [])])


@pytest.mark.usefixtures("unchecked")
def test_points_full_and_clone() -> None:
    data = _ragged()
    part = data.points(slice(1, None))
    assert torch.equal(part.x, data.x[:, 1:])
    assert torch.equal(part.mask, data.mask[:, 1:])
    assert torch.equal(data.points(torch.tensor([2, 0])).y, data.y[:, [2, 0]])
    assert bool(Data.full(data.x, data.y).mask.all())
    with pytest.raises(ShapeError, match="expected y of shape"):
        Data.full(data.x, data.y[:2])
    copied = data.clone()
    data.y.zero_()
    assert copied.y.abs().sum() > 0.0


@given(seed=st.integers(0, 10**6), labels=st.booleans())
def test_packed_moves_padding_behind_and_keeps_the_order(seed: int, labels: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(4, 7, generator=generator) < 0.5
    x = torch.randn(4, 7, 2, generator=generator)
    y = torch.randint(3, (4, 7), generator=generator) if labels else torch.randn(4, 7, 2, generator=generator)
    packed = Data(x, y, mask).packed()
    for b in range(4):
        count = int(mask[b].sum())
        assert packed.mask[b].tolist() == [True] * count + [False] * (7 - count)
        assert torch.equal(packed.x[b, :count], x[b, mask[b]])
        assert torch.equal(packed.y[b, :count], y[b, mask[b]])


def test_a_joined_batch_has_the_support_first() -> None:
    support, query = _ragged(), _ragged()
    joined = TaskBatch(support, query).joined()
    assert torch.equal(joined.x, support.append(query).x)
    assert torch.equal(joined.mask, support.append(query).mask)
