"""Tables of polars and pyarrow: read as the same table of pandas, and given back as what they were."""

import sys

import numpy as np
import pandas as pd
import pytest

import bayesmeta as bm
from bayesmeta.errors import DataError
from bayesmeta.frame_kinds import as_pandas, with_columns

pl = pytest.importorskip("polars")
pa = pytest.importorskip("pyarrow")
pytest.importorskip("narwhals")
KINDS = {"polars": pl.from_pandas, "pyarrow": lambda frame: pa.Table.from_pandas(frame, preserve_index=False)}
FRAME = pd.DataFrame(
    {"cell": ["a", "a", "a", "b", "b", "b"], "t": [0, 1, 2] * 2, "volt": [4.1, 4.0, None, 3.6, 3.7, 3.5]}
)
FRAME["arm"] = ["u"] * 3 + ["v"] * 3
FRAME["state"] = pd.Series(["good", "bad", "good"] * 2, dtype=pd.CategoricalDtype(["good", "bad"]))


@pytest.mark.parametrize("kind", KINDS)
def test_tasks_are_those_of_pandas(kind: str) -> None:
    frame = KINDS[kind](FRAME)
    for y in ("volt", "state"):
        columns = {"task": "cell", "x": ["t"], "y": y, "covariates": ["arm"]}
        ours, wanted = (bm.TaskDataset.from_frame(each, **columns) for each in (frame, FRAME))
        assert ours.schema.levels == wanted.schema.levels
        assert set(ours.schema.classes) == set(wanted.schema.classes)
        assert ours.names == wanted.names
        assert ours.flat.x.equal(wanted.flat.x)
        if y == "volt":
            assert ours.flat.y.equal(wanted.flat.y)
            known = bm.tasks.KnownPoints.of(ours.schema, frame).extended(frame)
            assert repr(known) == "KnownPoints(10 rows of 2 tasks)"


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_come_back_as_what_was_asked(kind: str) -> None:
    """With the columns and types that it had, and the numbers of pandas."""
    tasks = bm.TaskDataset.from_frame(FRAME, task="cell", x=["t"], y="volt")
    learner = bm.Standardized(bm.ALPaCA(bm.Identity(1))).double()
    learner.prepare(tasks.data)
    context, query = FRAME.dropna(), pd.DataFrame({"cell": ["b", "a"], "t": [3, 4], "note": ["x", None]})
    wanted = bm.predict_frame(learner, tasks.schema, context, query)
    native = KINDS[kind](query)
    found = bm.predict_frame(learner, tasks.schema, KINDS[kind](context), native)
    assert type(found) is type(native)
    for name in query.columns:
        assert (
            found[name].to_pylist() == native[name].to_pylist()
            if kind == "pyarrow"
            else found[name].equals(native[name])
        )
    np.testing.assert_array_equal(np.asarray(found["mean"]), wanted["mean"])
    labels = bm.TaskDataset.from_frame(FRAME, task="cell", x=["t"], y="state")
    classifier = bm.R2D2(bm.MLP(1, [4]), num_classes=2)
    found = bm.predict_frame(classifier, labels.schema, KINDS[kind](FRAME), native)
    assert set(np.asarray(found["predicted"]).tolist()) <= {"good", "bad"}


def test_what_is_no_table_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="expected a pandas DataFrame, got list"):
        as_pandas([1, 2])
    with pytest.raises(DataError, match=r"got polars\.LazyFrame: collect it first"):
        as_pandas(pl.from_pandas(FRAME).lazy())
    assert as_pandas(FRAME) is FRAME
    assert with_columns(FRAME, {"mean": np.zeros(6)}).columns[-1] == "mean"
    monkeypatch.setitem(sys.modules, "narwhals", None)
    assert as_pandas(FRAME) is FRAME  # which needs none
    with pytest.raises(DataError, match=r"got polars\.DataFrame: pip install narwhals"):
        as_pandas(pl.from_pandas(FRAME))
