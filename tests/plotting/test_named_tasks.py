"""What is drawn of a task of a table, against the predictions themselves."""

from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch

mpl.use("Agg")
import matplotlib.pyplot as plt

import bayesmeta as bm
from bayesmeta.errors import DataError, ShapeError, UnsupportedError
from bayesmeta.plotting import axis_note, task_panels, write_figure
from bayesmeta.plotting.named_tasks import MOST_CLASSES
from tests.evaluation.exact import ClassShares

DATA = {
    "plant": ["07"] * 4 + ["7"] * 3,
    "day": [0.0, 2.0, 5.0, 9.0, 1.0, 1.0, 1.0],
    "height ($mm)": [1.0, 3.0, 4.0, 9.0, 2.0, 2.5, 2.2],
    "soil": ["loam"] * 4 + ["clay", "sand", "loam"],
    "light": [200.0] * 4 + [100.0] * 3,
}
FRAME = pd.DataFrame(DATA)


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def table(x: list[str], y: list[str] | str = "height ($mm)", **more: object) -> bm.TaskDataset:
    return bm.TaskDataset.from_frame(FRAME.assign(**more), task="plant", x=x, y=y, covariates=["light"])


def learned(tasks: bm.TaskDataset, outputs: int = 1) -> bm.Learner:
    torch.manual_seed(0)
    learner = bm.Standardized(bm.ALPaCA(bm.MLP(tasks.flat.x.shape[1], [8]), num_outputs=outputs)).double()
    bm.fit(learner, tasks, steps=2)
    return learner


def band(ax: plt.Axes, place: float) -> tuple[float, float]:
    """The lowest and highest point of the widest band at a place."""
    vertices = ax.collections[0].get_paths()[0].vertices
    around = vertices[np.isclose(vertices[:, 0], place), 1]
    return float(around.min()), float(around.max())


@pytest.mark.parametrize("noiseless", [False, True])
def test_curves_are_the_predictions_along_the_first_input_that_varies(noiseless: bool) -> None:
    tasks = table(["soil", "day"])
    learner = learned(tasks)
    figure = task_panels(learner, tasks, "07", (0, 3), level=0.8, noiseless=noiseless)
    assert [ax.get_title() for ax in figure.axes] == ["no row known", "3 rows known"]
    assert [ax.get_xlabel() for ax in figure.axes] == ["day", "day"]
    assert figure.axes[0].get_ylabel() == r"height (\$mm)"
    assert figure.get_suptitle() == "plant 07"
    note = figure.legends[0].get_title().get_text()
    assert note == "the other inputs as in the task: soil = loam, light = 200"
    assert axis_note(tasks, "07") == f"along day; {note}"
    task = tasks.task("07")
    for shot, ax in zip((0, 3), figure.axes, strict=True):
        (mean,) = [line for line in ax.get_lines() if line.get_label() == "mean"]
        days = mean.get_xdata()
        assert (days[0], days[-1]) == pytest.approx((-0.45, 9.45))  # a twentieth of the range to both sides
        inputs = task.x[0, :1].repeat(len(days), 1)
        inputs[:, tasks.schema.x_names.index("day")] = torch.from_numpy(days)
        predictive = learner.adapt(task.points(slice(shot))).predict(inputs)
        predictive = predictive.noiseless if noiseless else predictive
        np.testing.assert_allclose(mean.get_ydata(), predictive.mean[0, :, 0])
        lower, upper = predictive.interval(0.8)
        assert band(ax, days[50]) == pytest.approx((float(lower[0, 50, 0]), float(upper[0, 50, 0])))
    known = figure.axes[1].get_lines()[-1]
    assert known.get_xydata().tolist() == [[0.0, 1.0], [2.0, 3.0], [5.0, 4.0]]
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["80 % interval", "50 % interval", "mean", "not known", "known"]
    figure.canvas.draw()


def test_a_category_on_the_axis_has_its_levels_as_places() -> None:
    tasks = table(["soil", "day"])
    learner = learned(tasks)
    figure = task_panels(learner, tasks, "7", (2,))
    (ax,) = figure.axes
    assert ax.get_xlabel() == "soil"
    assert [tick.get_text() for tick in ax.get_xticklabels()] == list(tasks.schema.levels["soil"])
    mean = next(line for line in ax.get_lines() if line.get_label() == "mean")
    support = tasks.task("7").points(slice(2))
    inputs = torch.tensor([[float(i == j) for j in range(3)] + [1.0, 100.0] for i in range(3)])
    expected = learner.adapt(support).predict(inputs)
    np.testing.assert_allclose(mean.get_ydata(), expected.mean[0, :, 0], rtol=1e-6)
    lower, upper = expected.interval(0.9)
    ends = [segment[:, 1].tolist() for segment in ax.collections[0].get_segments()]
    np.testing.assert_allclose(ends, torch.cat([lower, upper], -1)[0], rtol=1e-6)
    known = ax.get_lines()[-1].get_xydata()
    places = [list(tasks.schema.levels["soil"]).index(soil) for soil in ("clay", "sand")]
    assert known.tolist() == [[places[0], 2.0], [places[1], 2.5]]


@pytest.mark.parametrize(("along", "places"), [("day", [0.0, 2.0, 5.0, 9.0]), ("soil", [-0.2, 0.8, 0.2, 1.2])])
def test_where_another_input_varies_too_every_row_has_its_own_interval(along: str, places: list[float]) -> None:
    tasks = table(["soil", "day"], soil=["clay", "loam"] * 3 + ["clay"])
    learner = learned(tasks)
    (ax,) = task_panels(learner, tasks, "07", (1,), along=along).axes
    mean = next(line for line in ax.get_lines() if line.get_label() == "mean")
    shift = 0.05 if along == "soil" else 0.0  # two rows side by side in the six tenths of a category
    np.testing.assert_allclose(mean.get_xdata(), np.array(places) + shift * np.array([1, 1, -1, -1]))
    task = tasks.task("07")
    expected = learner.adapt(task.points(slice(1))).predict(task.x).mean[0, :, 0]
    np.testing.assert_allclose(mean.get_ydata(), expected)
    other = "day" if along == "soil" else "soil"
    assert axis_note(tasks, "07", along) == f"along {along}; {other} varies, too: each row at its own inputs"


def test_where_nothing_varies_the_range_is_that_of_all_tasks_or_rows_are_counted() -> None:
    (ax,) = task_panels(learned(table(["day"])), table(["day"]), "7", (3,)).axes
    assert ax.get_lines()[0].get_xdata()[[0, -1]].tolist() == pytest.approx([-0.45, 9.45])
    tasks = table([])
    (ax,) = task_panels(learned(tasks), tasks, "7", (1,)).axes
    assert ax.get_xlabel() == "row of the task"
    assert ax.get_lines()[0].get_xdata().tolist() == [1.0, 2.0, 3.0]


def test_several_outcomes_have_a_row_of_panels_each() -> None:
    frame = FRAME.assign(mass=np.arange(7.0))
    tasks = bm.TaskDataset.from_frame(frame, task="plant", x=["day"], y=["height ($mm)", "mass"])
    learner = learned(tasks, 2)
    figure = task_panels(learner, tasks, "07", (0, 1))
    assert [ax.get_ylabel() for ax in figure.axes] == [r"height (\$mm)", "", "mass", ""]
    mean = next(line for line in figure.axes[3].get_lines() if line.get_label() == "mean")
    support = tasks.task("07").points(slice(1))
    expected = learner.adapt(support).predict(torch.from_numpy(mean.get_xdata())).mean[0, :, 1]
    np.testing.assert_allclose(mean.get_ydata(), expected)


def test_known_noise_is_drawn_as_bars() -> None:
    tasks = bm.TaskDataset.from_frame(FRAME.assign(err=0.25), task="plant", x=["day"], y=["height ($mm)"], yerr=["err"])
    (ax,) = task_panels(learned(tasks), tasks, "07", (1,)).axes
    bars = [each for each in ax.collections if hasattr(each, "get_segments")]
    assert bars[-1].get_segments()[1][:, 1].tolist() == [2.75, 3.25]


def test_classes_have_a_line_of_their_probability() -> None:
    tasks = table(["day"], "state", state=["bud", "bud", "leaf", "dead", "leaf", "leaf", "bud"])
    figure = task_panels(ClassShares(), tasks, "07", (0, 3))
    for ax, probs in zip(figure.axes, ([1 / 3] * 3, [3 / 6, 1 / 6, 2 / 6]), strict=True):
        lines = {line.get_label(): line.get_ydata() for line in ax.get_lines()}
        assert list(lines) == ["bud", "dead", "leaf"]
        for line, prob in zip(lines.values(), probs, strict=True):
            np.testing.assert_allclose(line, prob)
    known = figure.axes[1].collections[1]
    assert known.get_offsets()[:, 0].tolist() == [0.0, 2.0, 5.0]
    assert figure.axes[0].get_ylabel() == "P(state)"
    with pytest.raises(UnsupportedError, match="expected outcomes that are numbers for noiseless intervals"):
        task_panels(ClassShares(), tasks, "07", noiseless=True)


def test_of_many_classes_those_of_the_task_are_shown_and_the_rest_is_added_up() -> None:
    names = [f"c{i}" for i in range(9)]
    rows = {"who": ["a"] * 8 + ["b"] * 2, "day": range(10), "state": [*names[:7], "c6", "c7", "c8"]}
    tasks = bm.TaskDataset.from_frame(pd.DataFrame(rows), task="who", x=["day"], y="state")
    (ax,) = task_panels(ClassShares(9), tasks, "b", (2,)).axes
    labels = [line.get_label() for line in ax.get_lines()]
    assert len(labels) == MOST_CLASSES + 1
    assert {"c7", "c8", "4 other classes"} < set(labels)
    np.testing.assert_allclose(ax.get_lines()[-1].get_ydata(), 4 / 11)


def test_what_cannot_be_drawn_is_refused() -> None:
    tasks = table(["day"])
    learner = learned(tasks)
    with pytest.raises(DataError, match=r"got .07\.0.; perhaps .7. is meant"):
        task_panels(learner, tasks, "07.0")
    with pytest.raises(DataError, match=r"expected an input column among \['day', 'light'\], got 'site'"):
        task_panels(learner, tasks, "07", along="site")
    for shots in ((5,), (-1,), ()):
        with pytest.raises(DataError, match=r"shots|known rows"):
            task_panels(learner, tasks, "07", shots)
    with pytest.raises(DataError, match="a level"):
        task_panels(learner, tasks, "07", level=1.0)
    with pytest.raises(DataError, match="expected a learner of numbers"):
        task_panels(bm.R2D2(bm.MLP(2, [4]), num_classes=2), tasks, "07")
    with pytest.raises(DataError, match="expected tasks of a table"):
        task_panels(learner, bm.TaskDataset(tasks.flat), 0)
    with pytest.raises(ShapeError, match="expected 2 axes"):
        task_panels(learner, tasks, "07", (0, 1), axes=[plt.subplots()[1]])


def test_files_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    tasks = table(["day"])
    learner = learned(tasks)
    for ending in ("png", "SVG"):
        for name in ("a", "b"):
            write_figure(task_panels(learner, tasks, "07", (1,)), tmp_path / f"{name}.{ending}")
        first, second = ((tmp_path / f"{name}.{ending}").read_bytes() for name in ("a", "b"))
        assert first == second
    assert b"<svg" in first
