"""One rule for names, whatever type a column has."""

import datetime
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch

import bayesmeta as bm
from bayesmeta.errors import DataError
from bayesmeta.task_names import factorized, look_alikes, name_text, texts

SAME = [
    [3, 3.0, np.int64(3), np.float32(3), np.uint8(3), Decimal("3.00"), Fraction(6, 2), torch.tensor(3), "3"],
    [1.5, np.float32(1.5), Decimal("1.50"), "1.5"],
    [1.1, np.float32(1.1), "1.1"],
    [0.0, -0.0, 0, "0"],
    [True, np.bool_(True), "True"],
    [100000, 1e5, "100000"],
    [2**70, float(2**70), str(2**70)],
    [
        datetime.date(2020, 1, 31),
        datetime.datetime(2020, 1, 31),
        pd.Timestamp("2020-01-31"),
        np.datetime64("2020-01-31", "ns"),
        "2020-01-31",
    ],
    [(3, "a"), (3.0, "a"), ("3", "a")],
]


@pytest.mark.parametrize("names", SAME, ids=lambda names: repr(names[0]))
def test_one_name_in_many_types(names: list) -> None:
    assert len({name_text(name) for name in names}) == 1


def test_text_is_as_it_is_written() -> None:
    different = [
        "007",
        "7",
        "7.0",
        "1.1",
        "1.10",
        "NA",
        "nan",
        "None",
        " a",
        "a",
        "A",
        "1e5",
        "1E5",
        "100000",
        "True",
        "1",
    ]
    assert texts(different) == different
    assert name_text(True) != name_text(1)
    assert name_text(pd.Timestamp("2020-01-31", tz="UTC")) != name_text(pd.Timestamp("2020-01-31"))
    assert name_text(pd.Timestamp("2020-01-31 00:00:00.000000001")) != "2020-01-31"


@pytest.mark.parametrize("name", [None, np.nan, pd.NA, pd.NaT, "", "  ", Decimal("NaN"), np.float32("nan")])
def test_missing_names(name: object) -> None:
    with pytest.raises(DataError, match="expected the name of a task, got"):
        name_text(name)
    with pytest.raises(DataError, match="expected the name of a task in row 1, got"):
        factorized(["a", name])


COLUMNS = [
    pd.Series([3, 1, 3]),
    pd.Series([3.0, 1.0, 3.0]),
    pd.Series([3, 1, 3], dtype="Int64"),
    pd.Series([3, 1, 3], dtype="Float64"),
    pd.Series(["3", "1", "3"]),
    pd.Series(["3", "1", "3"], dtype="string"),
    pd.Series(["3", "1", "3"], dtype=object),
    pd.Series([3, "1", 3.0], dtype=object),
    pd.Series(["3", 1.0, np.int8(3)], dtype=object),
    pd.Categorical([3, 1, 3], categories=[9, 1, 3]),
    pd.Categorical(["3", "1", "3"]),
    pd.Index([3, 1, 3]),
    np.array([3, 1, 3], dtype=np.uint64),
    np.array(["3", "1", "3"]),
    torch.tensor([3, 1, 3]),
    [3, 1.0, "3"],
    [3, 1, 3],
    [3.0, 1.0, 3.0],
    [np.int64(3), 1, np.int8(3)],
]


@pytest.mark.parametrize("column", COLUMNS, ids=lambda c: f"{type(c).__name__}-{getattr(c, 'dtype', '')}")
def test_every_column_has_the_same_tasks(column: object) -> None:
    codes, names = factorized(column)
    assert codes.tolist() == [0, 1, 0]
    assert texts(names) == ["3", "1"]


def test_categories_that_are_one_name_are_one_task() -> None:
    codes, names = factorized(pd.Categorical([3, "3", "b", 3.5], categories=["b", 3, "3", 3.5, "unused"]))
    assert codes.tolist() == [0, 0, 1, 2]
    assert names == [3, "b", 3.5]


def test_truths_and_numbers_are_not_one() -> None:
    codes, names = factorized(pd.Series([True, 1, "True", 1.0, False], dtype=object))
    assert codes.tolist() == [0, 1, 0, 1, 2]
    assert names == [True, 1, False]


@pytest.mark.parametrize(
    ("column", "limit"),
    [(pd.Series([1.0, 2.0**53 + 2]), 53), (np.array([1.0, 2.0**25], dtype=np.float32), 24), ([1.0, 1e300], 53)],
)
def test_floats_that_may_have_merged_names_are_refused(column: object, limit: int) -> None:
    with pytest.raises(
        DataError, match=rf"tells from others, a number up to 2\*\*{limit}, got .* in row 1: read .* as text"
    ):
        factorized(column)
    assert factorized(np.array([2.0**53]))[1] == [2.0**53]


def test_names_that_look_alike() -> None:
    assert look_alikes(["3.0", "007", "a ", "x", "b"], ["3", "7", "A", "y", "b"]) == [
        ("3.0", "3"), ("007", "7"), ("a ", "A"),
    ]  # fmt: skip
    assert look_alikes(["1,5", "1e3"], ["1.50", 1000]) == [("1,5", "1.50"), ("1e3", 1000)]
    assert look_alikes(["sNaN", "1E999999999"], ["nan", "1"]) == []


def test_datasets_find_tasks_by_the_rule() -> None:
    frame = pd.DataFrame({"id": [3.0, 3.0, 4.0], "x": [0.0, 1.0, 2.0], "y": [0.0, 1.0, 2.0]})
    tasks = bm.TaskDataset.from_frame(frame, task="id", x=["x"], y=["y"])
    for name in (3, 3.0, "3", np.int64(3)):
        assert tasks.task(name).num_points == 2
    with pytest.raises(DataError, match=r"expected the name of a task, got '3\.0'"):
        tasks.task("3.0")
    with pytest.raises(DataError, match="2 distinct task names, got 1"):
        bm.TaskDataset(tasks.data, [3, "3"])
    mixed = frame.assign(id=[3, "3", "b"])
    assert bm.TaskDataset.from_frame(mixed, task="id", x=["x"], y=["y"]).data.counts.tolist() == [2, 1]
