"""From a table to numbers: what is read, and what is refused with the column, row or task named."""

import datetime
import json
from collections.abc import Callable
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from bayesmeta.errors import DataError
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.table import Schema


def _table(**columns: object) -> pd.DataFrame:
    base = {
        "patient": ["b", "a", "b", "a", "c"],
        "time": [0.0, 1.0, 2.0, 3.0, 4.0],
        "dose": [5, 5, 10, 10, 5],
        "level": [1.0, 2.0, 3.0, 4.0, 5.0],
    }
    return pd.DataFrame(base | columns)


def _read(frame: pd.DataFrame, x: object = ("time",), y: object = ("level",), covariates: object = ()) -> TaskDataset:
    return TaskDataset.from_frame(frame, task="patient", x=x, y=y, covariates=covariates)


def test_a_long_table_in_any_order() -> None:
    tasks = _read(_table(), x=["time", "dose"])
    assert tasks.names == ("b", "a", "c")
    assert tasks.data.counts.tolist() == [2, 2, 1]
    assert tasks.task("a").x.tolist() == [[[1.0, 5.0], [3.0, 10.0]]]  # in the order of the table
    assert tasks.task("c").y.tolist() == [[[5.0]]]
    shuffled = _table().sample(frac=1.0, random_state=0)
    assert shuffled.index.tolist() != [0, 1, 2, 3, 4]
    again = _read(shuffled, x=["time", "dose"])
    for name in tasks.names:
        assert sorted(again.task(name).x.tolist()[0]) == tasks.task(name).x.tolist()[0]


def test_several_outcomes_and_no_inputs() -> None:
    tasks = _read(_table(other=[0.1, 0.2, 0.3, 0.4, 0.5]), x=[], y=["level", "other"])
    assert tasks.data.x.shape == (3, 2, 0)
    assert tasks.task("b").y.tolist() == [[[1.0, 0.1], [3.0, 0.3]]]


def test_covariates_follow_the_inputs() -> None:
    frame = _table(age=[70, 60, 70, 60, 50], site=["x", "y", "x", "y", "x"])
    tasks = _read(frame, covariates=["age", "site"])
    assert tasks.schema.x_names == ("time", "age", "site=x", "site=y")
    assert tasks.task("a").x.tolist() == [[[1.0, 60.0, 0.0, 1.0], [3.0, 60.0, 0.0, 1.0]]]
    with pytest.raises(DataError, match=r"covariate 'dose' to be constant within a task, got 2 values in task 'b'"):
        _read(_table(), covariates=["dose"])
    with pytest.raises(DataError, match=r"covariate 'age' to be constant.*in task 'a'"):
        _read(_table(age=[70, 60, 70, None, 50]), covariates=["age"])
    in_categories = _table(patient=pd.Categorical(["b", "a", "b", "a", "c"], categories=["z", "c", "b", "a"]))
    assert _read(in_categories.assign(age=frame["age"]), covariates=["age"]).names == ("b", "a", "c")


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ([True, False, True, False, True], [1, 0, 1, 0, 1]),
        (pd.array([True, False, True, False, True], dtype="boolean"), [1, 0, 1, 0, 1]),
        (pd.Series([True, False, True, False, True], dtype=object), [1, 0, 1, 0, 1]),
        (pd.array([1, 2, 3, 4, 5], dtype="Int8"), [1, 2, 3, 4, 5]),
        (pd.array([1.5, 2, 3, 4, 5], dtype="Float32"), [1.5, 2, 3, 4, 5]),
        (np.arange(5, dtype=np.uint8), [0, 1, 2, 3, 4]),
        (pd.Series([1.5, 2, 3, 4, 5], dtype=object), [1.5, 2, 3, 4, 5]),  # numbers in an object column are numbers
        ([Decimal("1.5"), Decimal(2), Decimal(3), Decimal(4), Decimal(5)], [1.5, 2, 3, 4, 5]),  # as databases give them
    ],
)
def test_columns_of_numbers(column: object, expected: list[float]) -> None:
    frame = _table(z=column)
    tasks = _read(frame, x=["z"])
    assert tasks.schema.levels == {}
    assert Schema.of(frame, "patient", ["z"], ["level"]).inputs(frame)[:, 0].tolist() == expected
    assert _read(frame, x=["time"], y=["z"]).data.counts.tolist() == [2, 2, 1]


@pytest.mark.parametrize(
    ("column", "levels"),
    [
        (["u", "w", "u", "v", "u"], ("u", "v", "w")),
        (pd.Categorical(["u", "w", "u", "v", "u"], categories=["w", "v", "u", "unused"]), ("u", "v", "w")),
        (pd.Categorical([1, 2, 1, 10, 1]), ("1", "10", "2")),  # levels are names, as tasks have them
        (pd.Categorical(["1", "A", "1", "2", "1"]), ("1", "2", "A")),  # codes, and said to be so
        (pd.Series(["u", "w", "u", "v", "u"], dtype="string"), ("u", "v", "w")),
    ],
)
def test_categories_become_one_hot(column: object, levels: tuple[object, ...]) -> None:
    frame = _table(z=column)
    schema = _read(frame, x=["z", "time"]).schema
    assert schema.levels == {"z": levels}
    assert schema.x_names == (*(f"z={level}" for level in levels), "time")
    encoded = schema.inputs(frame)
    assert encoded[:, :3].sum(1).tolist() == [1.0] * 5
    assert [levels[i] for i in encoded[:, :3].argmax(1)] == [str(cell) for cell in frame["z"]]


def test_rows_without_an_outcome_are_left_out() -> None:
    nan = float("nan")
    frame = _table(
        level=[1.0, nan, 3.0, 4.0, 5.0], time=[0.0, nan, 2.0, 3.0, 4.0]
    )  # nothing is asked of the rest of it
    tasks = _read(frame)
    assert tasks.task("a").y.tolist() == [[[4.0]]]
    assert tasks.data.counts.tolist() == [2, 1, 1]
    both = _read(_table(level=[1.0, nan, 3.0, 4.0, 5.0], other=[1.0, 2.0, nan, 4.0, 5.0]), y=["level", "other"])
    assert both.data.counts.tolist() == [2, 2, 1]  # a row that has one of its outcomes says something
    assert both.data.complete.counts.tolist() == [1, 1, 1]
    none = _read(_table(level=[1.0, nan, 3.0, 4.0, 5.0], other=[1.0, nan, nan, 4.0, 5.0]), y=["level", "other"])
    assert none.data.counts.tolist() == [2, 1, 1]
    nullable = _read(_table(level=pd.array([1, None, 3, 4, 5], dtype="Int64")))
    assert nullable.data.counts.tolist() == [2, 1, 1]
    # a level that is only found there would be an input that is always 0
    levels = _read(_table(level=[1.0, nan, 3.0, 4.0, 5.0], z=["u", "gone", "u", "v", "u"]), x=["z"]).schema.levels
    assert levels == {"z": ("u", "v")}


Bad = tuple[dict[str, object], dict[str, object], str]
BAD: dict[str, Bad] = {
    "comma for a point": (
        {"time": ["0.0", "1.0", "12,5", "3.0", "4.0"]},
        {},
        "numbers or categories in column 'time', got both: '12,5' in row 2",
    ),
    "numbers as text": (
        {"time": ["0", "1", "2", "3", "4"]},
        {},
        "column 'time', got numbers written as text.*to_numeric",
    ),
    "infinite x": (
        {"time": [0.0, 1.0, 2.0, np.inf, 4.0]},
        {},
        "finite numbers in column 'time', got infinity in row 3",
    ),
    "missing x": ({"time": [0.0, 1.0, None, 3.0, 4.0]}, {}, "column 'time' of every row, got a missing cell in row 2"),
    "missing nullable x": (
        {"time": pd.array([0, None, 2, 3, 4], "Int64")},
        {},
        "column 'time'.* missing cell in row 1",
    ),
    "missing bool x": (
        {"time": pd.Series([True, None, True, True, False], dtype=object)},
        {},
        "column 'time'.* missing cell in row 1",
    ),
    "missing category": (
        {"time": ["u", "v", None, "u", "v"]},
        {},
        r"'time' to hold one of \['u', 'v'\], got .* in row 2",
    ),
    "infinite y": ({"level": [1.0, -np.inf, 3.0, 4.0, 5.0]}, {}, "column 'level', got infinity in row 1"),
    "text y": ({"level": ["1", "2", "high", "4", "5"]}, {}, "numbers in column 'level', got 'high' in row 2"),
    "empty text y": ({"level": ["1", "", "3", "4", "5"]}, {}, "numbers in column 'level', got '' in row 1"),
    "complex y": ({"level": [1j, 2, 3, 4, 5]}, {}, "real numbers in column 'level', got complex128"),
    "complex x": ({"time": [1j, 2, 3, 4, 5]}, {}, "real numbers in column 'time', got complex128"),
    "times x": ({"time": pd.date_range("2020", periods=5)}, {}, "column 'time', got datetime64.*to days"),
    "zoned times x": ({"time": pd.date_range("2020", periods=5, tz="UTC")}, {}, "column 'time', got datetime64"),
    "times in categories": ({"time": pd.Categorical(pd.date_range("2020", periods=5))}, {}, "'time', got datetime64"),
    "durations x": ({"time": pd.to_timedelta(range(5), unit="D")}, {}, "column 'time', got timedelta64"),
    "dates x": (
        {"time": [datetime.date(2020, 1, i) for i in range(1, 6)]},
        {},
        r"numbers or text in column 'time', got datetime.date\(2020, 1, 1\) in row 0",
    ),
    "times y": ({"level": pd.date_range("2020", periods=5)}, {}, "column 'level', got datetime64"),
    "lists x": ({"time": [[1], [2], [3], [4], [5]]}, {}, r"numbers or text in column 'time', got \[1\] in row 0"),
    "missing task": ({"patient": ["b", "a", None, "a", "c"]}, {}, "a task in column 'patient' .* got none in row 2"),
    "all outcomes missing": (
        {"level": [1.0, np.nan, 3.0, np.nan, 5.0]},
        {},
        "an outcome in every task, got only missing ones in task 'a': drop it",
    ),
    "unknown x": ({}, {"x": ["times"]}, r"a column 'times', got the columns \['patient', 'time', 'dose', 'level'\]"),
    "unknown y": ({}, {"y": ["levels"]}, "a column 'levels'"),
    "unknown task": ({}, {"task": "subject"}, "a column 'subject'"),
    "unknown covariate": ({}, {"covariates": ["age"]}, "a column 'age'"),
    "text for x": ({}, {"x": "time"}, "x to be a list of column names, got the text 'time'"),
    "text for covariates": ({}, {"covariates": "age"}, "covariates to be a list of column names, got the text 'age'"),
    "list for task": ({}, {"task": ["patient"]}, r"column names to be text, got \['patient'\]"),
    "number for x": ({}, {"x": [3]}, "column names to be text, got 3"),
    "x is y": ({}, {"x": ["level"]}, "every column in one role, got 'level' twice"),
    "x is task": ({}, {"x": ["patient"]}, "got 'patient' twice"),
    "x twice": ({}, {"x": ["time", "time"]}, "got 'time' twice"),
    "no y": ({}, {"y": []}, "at least one outcome column y, got none"),
}


@pytest.mark.parametrize("which", BAD)
@pytest.mark.usefixtures("unchecked")
def test_bad_tables_are_refused_by_name(which: str) -> None:
    columns, arguments, message = BAD[which]
    with pytest.raises(DataError, match=message):
        TaskDataset.from_frame(_table(**columns), **({"task": "patient", "x": ["time"], "y": ["level"]} | arguments))


@pytest.mark.usefixtures("unchecked")
def test_tables_that_are_none() -> None:
    with pytest.raises(DataError, match="at least one row, got an empty table"):
        _read(_table().iloc[:0])
    with pytest.raises(DataError, match="expected a pandas DataFrame, got dict"):
        _read({"patient": [1]})
    twice = pd.concat([_table(), _table()[["time"]]], axis=1)
    with pytest.raises(DataError, match="one column 'time', got 2 of that name"):
        _read(twice)


def test_rows_are_named_by_the_index_even_when_it_repeats() -> None:
    frame = _table(time=["0", "1", "oops", "3", "4"]).set_index(pd.Index(["r1", "r1", "r2", "r2", "r2"]))
    with pytest.raises(DataError, match="'oops' in row 'r2'"):
        _read(frame)
    frame = _table(level=[1, 2, np.inf, 4, 5]).set_index(pd.Index([7, 7, 9, 9, 9]))
    with pytest.raises(DataError, match="row 9"):
        _read(frame)


NEW: list[tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = [
    (lambda f: f.assign(site="z"), r"column 'site' to hold one of \['u', 'v'\], got 'z' in row 0"),
    (lambda f: f.drop(columns="site"), "a column 'site'"),
    (lambda f: f.assign(time="late"), "numbers in column 'time', got 'late' in row 0"),
    (lambda f: f.assign(time=pd.Timestamp("2020")), "column 'time', got datetime64"),
    (lambda f: f.assign(time=np.nan), "column 'time' of every row, got a missing cell in row 0"),
]


@pytest.mark.parametrize(("change", "message"), NEW)
def test_a_new_table_is_read_as_the_first(change: Callable, message: str) -> None:
    frame = _table(site=["u", "v", "u", "u", "v"])
    schema = _read(frame, x=["site", "time"]).schema
    assert schema.inputs(frame[frame["site"] == "v"])[:, :2].tolist() == [[0.0, 1.0], [0.0, 1.0]]
    again = TaskDataset.from_schema(frame.iloc[[4]], schema)  # its only level keeps its place
    assert again.data.x.tolist() == [[[0.0, 1.0, 4.0]]]
    with pytest.raises(DataError, match=message):
        schema.inputs(change(frame))


@pytest.mark.usefixtures("unchecked")
def test_schemas_survive_json() -> None:
    frame = _table(site=["u", "v", "u", "v", "u"], grade=pd.Categorical([1, 2, 1, 2, 3]))
    schema = _read(frame, x=["site", "time", "grade"]).schema
    copy = Schema.from_json(json.loads(json.dumps(schema.to_json())))
    assert copy == schema
    assert copy.inputs(frame).tolist() == schema.inputs(frame).tolist()
    for broken in ({}, {"task": "t"}, [], None, {**schema.to_json(), "levels": [1]}, {**schema.to_json(), "x": None}):
        with pytest.raises(DataError, match="expected a table schema with task, x, y, covariates and levels"):
            Schema.from_json(broken)  # type: ignore[arg-type]


def _long(tasks: int = 24, rows: int = 4, **columns: object) -> pd.DataFrame:
    count = tasks * rows
    base = {"patient": np.repeat(np.arange(tasks), rows), "level": np.arange(count, dtype=float)}
    return pd.DataFrame(base | columns)


DATES = [
    "2020-01-31", "2020/1/31", "31.01.2020", "1/31/20", "31 Jan 2020", "31-jan-20", "Jan 31, 2020", "January 2020",
    "2020-01", "2020Q1", "2020-01-31 14:05", "2020-01-31T14:05:30.5Z", "14:05", "2:05 pm", "2020-01-31 14:05:00+01:00",
]  # fmt: skip
NO_DATES = [
    "10-12 years",
    "1.1",
    "v1.2",
    "2020 model",
    "stage 3",
    "May",
    "march hare",
    "90:10",
    "10:90",
    "A-2020",
    "1/2",
]


@pytest.mark.parametrize("text", DATES)
def test_dates_as_text_are_refused(text: str) -> None:
    frame = _long(day=["none", text] * 48)
    with pytest.raises(
        DataError, match=r"column 'day', got a date or time, '.*' in row 1: convert it to a number, such"
    ):
        Schema.of(frame, "patient", ["day"], ["level"])
    said = Schema.of(frame.astype({"day": "category"}), "patient", ["day"], ["level"])
    assert said.levels == {"day": tuple(sorted(["none", text]))}


@pytest.mark.parametrize("text", NO_DATES)
def test_categories_that_are_no_dates(text: str) -> None:
    frame = _long(group=["none", text + " x" if text == "1.1" else text] * 48)
    assert len(Schema.of(frame, "patient", ["group"], ["level"]).levels["group"]) == 2


def test_a_level_for_every_row_or_task_is_refused() -> None:
    rows = _long(note=[f"n{i}" for i in range(96)])
    with pytest.raises(DataError, match=r"in column 'note', got 96 different texts in 96 rows: leave it out, or group"):
        Schema.of(rows, "patient", ["note"], ["level"])
    names = _long(who=[f"w{i}" for i in np.repeat(np.arange(24), 4)])
    for roles in ({"x": ["who"]}, {"x": [], "covariates": ["who"]}):
        with pytest.raises(DataError, match=r"in column 'who', got 24 different texts in 24 tasks"):
            Schema.of(names, "patient", y=["level"], **roles)
    assert len(Schema.of(names.astype({"who": "category"}), "patient", ["who"], ["level"]).levels["who"]) == 24
    # many levels that come back, or few in a small table, are categories
    often = _long(site=[f"s{i % 30}" for i in range(96)])
    assert len(Schema.of(often, "patient", ["site"], ["level"]).levels["site"]) == 30
    few = _long(4, 4, who=[f"w{i}" for i in np.repeat(np.arange(4), 4)])
    assert len(Schema.of(few, "patient", ["who"], ["level"]).levels["who"]) == 4


@pytest.mark.parametrize(
    ("cell", "cause"),
    [
        ("3 mg", "write the number alone, without a unit or sign"),
        ("5%", "write the number alone, without a unit or sign"),
        ("$3.50", "write the number alone, without a unit or sign"),
        ("<0.1", "write the number alone, without a unit or sign"),
        ("1,234.5", "write thousands without separators"),
        ("1.234.567", "write thousands without separators"),
        ("1'000", "write thousands without separators"),
        ("1 000", "write thousands without separators"),
        ("12,5", "write a decimal point"),
        ("2020-01-31", "convert dates to a number"),
    ],
)
def test_the_likely_cause_is_named(cell: str, cause: str) -> None:
    frame = _long().astype({"level": object})
    frame.loc[2, "level"] = cell
    with pytest.raises(DataError, match=rf"in row 2: {cause}"):
        Schema.of(frame, "patient", [], ["level"]).outcomes(frame)


@pytest.mark.parametrize(
    "cell",
    [1j, np.complex128(2), np.timedelta64(1, "D"), [1], np.array([1, 2]), 10**400, b"1", Decimal("Infinity"), "1_0"],
)
@pytest.mark.parametrize("column", ["level", "time"])
def test_odd_cells_among_numbers_are_refused(cell: object, column: str) -> None:
    cells = pd.Series([1.0, 2, None, 4, 5], dtype=object)
    cells.iat[2] = cell
    with pytest.raises(DataError, match=rf"column '{column}'.* in row 2"):
        _read(_table(**{column: cells}))


def test_empty_text_is_missing() -> None:
    for patient in (["b", "a", "", "a", "c"], ["b", "a", " ", "a", "c"], pd.Categorical(["b", "a", "  ", "a", "c"])):
        with pytest.raises(DataError, match="a task in column 'patient' in row 2, got '"):
            _read(_table(patient=patient))
    with pytest.raises(DataError, match="a category of column 'time' in row 2, got ''"):
        _read(_table(time=["u", "v", "", "u", "v"]))


def test_tasks_are_positions_and_names() -> None:
    frame = _table(patient=pd.Series([3.0, "b", "3", 3, "b"], dtype=object))
    rows, names = Schema("patient", ("time",), ("level",)).tasks(frame)
    assert (rows.tolist(), names) == ([0, 1, 0, 0, 1], [3.0, "b"])
    tasks = _read(frame)
    assert (tasks.names, tasks.data.counts.tolist()) == ((3.0, "b"), [3, 2])
    # the first row of a task may be one that is left out
    late = _read(_table(level=[None, 2.0, 3.0, 4.0, 5.0]))
    assert (late.names, late.task("b").y.tolist()) == (("a", "b", "c"), [[[3.0]]])


def test_lines_are_called_lines() -> None:
    frame = _table(level=["1", "2", "high", "4", "5"]).set_index(pd.Index([2, 3, 4, 9, 10], name="line"))
    with pytest.raises(DataError, match="numbers in column 'level', got 'high' in line 4"):
        _read(frame)
