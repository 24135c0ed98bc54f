"""Known points of named tasks, table by table: the same as all rows at once, and a file that is whole or refused."""

import itertools
import json
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import bayesmeta as bm
from bayesmeta import outputs
from bayesmeta.errors import DataError
from bayesmeta.tasks import KnownPoints, Schema
from bayesmeta.tasks.known_points import is_known_points

SCHEMA = Schema("cell", x=("day",), y=("volt",), covariates=("site",), levels={"site": ("n", "s")})


def frame_of(rows: list[tuple[object, float, float]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["cell", "day", "volt"])
    return frame.assign(site=["n" if str(name) in ("07", "3") else "s" for name in frame.cell])


ALL = frame_of(
    [("07", 0.0, 4.1), ("7", 0.0, 3.0), ("07", 1.0, 4.0), ("3.0", 2.0, 3.5), ("3", 2.0, 1.5), ("07", 1.0, 4.0)]
)
QUERY = frame_of([("3", 5.0, 0.0), ("07", 5.0, 0.0), ("new", 1.0, 0.0), ("7", 2.0, 0.0), ("3.0", 5.0, 0.0)])


@pytest.fixture(scope="module")
def learner() -> bm.Learner:
    torch.manual_seed(0)
    return bm.ALPaCA(bm.MLP(3, [8])).double()


def predicted(learner: bm.Learner, known: KnownPoints | pd.DataFrame) -> pd.DataFrame:
    return bm.predict_frame(learner, SCHEMA, known, QUERY.drop(columns="volt"))


@pytest.mark.parametrize("cuts", [[6], [1, 2, 3, 4, 5, 6], [3, 6], [0, 2, 2, 6]], ids=str)
def test_any_division_into_tables_predicts_what_all_rows_at_once_do(
    learner: bm.Learner, cuts: list[int], tmp_path: Path
) -> None:
    known = KnownPoints.of(SCHEMA, ALL.iloc[: cuts[0]])
    for start, end in itertools.pairwise(cuts):
        known.save(tmp_path / "state", learner)  # every step through the file
        known = KnownPoints.load(tmp_path / "state", learner).extended(ALL.iloc[start:end])
    assert known.names == ("07", "7", "3.0", "3")  # names that look like numbers are not merged
    pd.testing.assert_frame_equal(predicted(learner, known), predicted(learner, ALL))


def test_rows_in_another_order_predict_the_same_to_rounding(learner: bm.Learner) -> None:
    known = KnownPoints.of(SCHEMA, ALL.iloc[4:]).extended(ALL.iloc[[3, 1]]).extended(ALL.iloc[[2, 0]])
    left, right = predicted(learner, known), predicted(learner, ALL)
    # sums of six float64 numbers in another order
    np.testing.assert_allclose(left[["mean", "sd"]], right[["mean", "sd"]], rtol=1e-12)


def test_names_are_one_by_the_rule_of_all_tables(learner: bm.Learner, tmp_path: Path) -> None:
    known = KnownPoints.of(SCHEMA, frame_of([(3, 0.0, 1.0)]))
    known.save(tmp_path / "state", learner)
    more = frame_of([(3.0, 1.0, 2.0), ("3", 2.0, 3.0)]).assign(site="n")
    again = KnownPoints.load(tmp_path / "state", learner).extended(more)
    assert again.names == ("3",)
    assert again.of_tasks([3.0, "4"]).counts.tolist() == [3, 0]


def test_rows_without_outcome_say_nothing_and_rows_twice_count_twice() -> None:
    known = KnownPoints.of(SCHEMA, ALL.assign(volt=ALL.volt.where(ALL.cell != "07")))
    assert (known.names, len(known.points.x)) == (("7", "3.0", "3"), 3)
    assert known.repeated(ALL) == 3
    assert known.extended(ALL).of_tasks(["7"]).y.flatten().tolist() == [3.0, 3.0]


def test_matching_counts_what_is_in_the_file(learner: bm.Learner) -> None:
    with pytest.warns(UserWarning, match="none of 1 task to predict has context.*'7.0' and '7'"):
        bm.predict_frame(learner, SCHEMA, KnownPoints.of(SCHEMA, frame_of([("7.0", 0, 1)])), QUERY.iloc[[3]])


def test_a_covariate_may_not_change_from_table_to_table() -> None:
    moved = ALL.iloc[[2]].assign(site="s")
    with pytest.raises(DataError, match="expected the covariate 'site=n' of task '07' to stay 1, got 0"):
        KnownPoints.of(SCHEMA, ALL.head(2)).extended(moved)


def test_classes_and_known_noise_go_through_the_file(tmp_path: Path) -> None:
    classes = Schema("who", x=("day",), y=("pain",), classes=("none", "mild"))
    rows = pd.DataFrame({"who": [1, 2, 1], "day": [0, 1, 2], "pain": ["mild", "none", None]})
    learner = bm.Prototypical(bm.MLP(1, [4]), num_classes=2)
    KnownPoints.of(classes, rows).save(tmp_path / "state", learner)
    assert KnownPoints.load(tmp_path / "state", learner).points.y.tolist() == [1, 0]
    noisy = Schema("who", x=(), y=("mass",), yerr=("err",))
    measured = pd.DataFrame({"who": [1, 1], "mass": [2.0, 3.0], "err": [0.5, 0.25]})
    known = KnownPoints.of(noisy, measured).extended(measured.head(1))
    known.save(tmp_path / "noisy", learner)
    loaded = KnownPoints.load(tmp_path / "noisy", learner).points
    assert loaded.noise is not None
    assert loaded.noise.flatten().tolist() == [0.25, 0.0625, 0.25]


def test_files_that_are_not_whole_or_not_of_this_model_are_refused(learner: bm.Learner, tmp_path: Path) -> None:
    path = tmp_path / "state"
    KnownPoints.of(SCHEMA, ALL).save(path, learner)
    assert is_known_points(path)
    content = path.read_bytes()
    torch.manual_seed(1)
    other = bm.ALPaCA(bm.MLP(3, [8])).double()  # built alike, with other weights
    with pytest.raises(DataError, match=r"expected known points for this model in .*, got those for another"):
        KnownPoints.load(path, other)
    path.write_bytes(content[:-8])
    with pytest.raises(DataError, match="expected a whole file of known points"):
        KnownPoints.load(path, learner)
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    about = json.loads(header["__metadata__"]["bayesmeta known points"])

    def write(**changes: object) -> None:
        header["__metadata__"] = {"bayesmeta known points": json.dumps(about | changes)}
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])

    write()
    assert KnownPoints.load(path, learner).names == ("07", "7", "3.0", "3")
    for changes, message in (
        ({"format": 2}, "expected a file of format 1"),
        ({"names": ["07", "7", "3.0", "07"]}, "rows are not of its columns"),
        ({"names": 3}, "got a broken one"),
        ({"schema": {}}, "expected a table schema"),
        ({"schema": SCHEMA.to_json() | {"x": ["day", "night"]}}, "rows are not of its columns"),
    ):
        write(**changes)
        with pytest.raises(DataError, match=message):
            KnownPoints.load(path, learner)
    (tmp_path / "table.csv").write_text("cell,volt\n1,2\n")
    for wrong in ("table.csv", ".", "nowhere"):
        with pytest.raises(DataError, match="expected a file of known points"):
            KnownPoints.load(tmp_path / wrong, learner)


def test_a_write_that_is_interrupted_leaves_the_old_file(
    learner: bm.Learner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state"
    known = KnownPoints.of(SCHEMA, ALL.head(3))
    known.save(path, learner)
    before = path.read_bytes()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(outputs.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        known.extended(ALL).save(path, learner)
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [before]  # and no unfinished file beside it


def test_known_points_of_another_schema_are_refused(learner: bm.Learner) -> None:
    other = Schema("cell", x=("day",), y=("ampere",), covariates=("site",), levels={"site": ("n", "s")})
    known = KnownPoints.of(other, ALL.rename(columns={"volt": "ampere"}))
    with pytest.raises(DataError, match="expected known points of tables with this schema"):
        predicted(learner, known)
