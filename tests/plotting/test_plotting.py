from collections.abc import Iterator

import matplotlib as mpl
import numpy as np
import pytest
import torch

mpl.use("Agg")
import matplotlib.pyplot as plt

from bayesmeta import plotting
from bayesmeta.data import Data
from bayesmeta.errors import DataError, ShapeError, UnsupportedError
from bayesmeta.evaluation.evaluate import evaluate
from bayesmeta.evaluation.scores import Evaluation
from bayesmeta.plotting.style import uniform_band
from tests.evaluation.exact import ClassShares, NormalMean, label_tasks, normal_tasks


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return evaluate(NormalMean(claimed=0.5), normal_tasks(60, 30, seed=0), (0, 1, 5), num_bootstrap=20)


@pytest.fixture(scope="module")
def labels() -> Evaluation:
    return evaluate(ClassShares(power=2.0), label_tasks(60, 30, seed=0), (0, 1, 5), num_bootstrap=20)


def test_bands_have_a_panel_for_each_number_of_shots() -> None:
    tasks = normal_tasks(3, [20, 9, 12], seed=1)
    figure = plotting.predictive_bands(NormalMean(), tasks.task(0), (0, 1, 5), oracle=tasks.oracle, x_label="time (s)")
    assert [ax.get_title() for ax in figure.axes] == ["0 shots", "1 shot", "5 shots"]
    assert figure.axes[0].get_xlabel() == "time (s)"
    assert figure.axes[0].get_ylabel() == "y"
    support = figure.axes[2].get_lines()[-1].get_xydata()
    np.testing.assert_array_equal(support[:, 0], tasks.data.x[0, :5, 0])
    figure.canvas.draw()


def test_bands_are_the_intervals_of_the_predictive() -> None:
    task = normal_tasks(1, 10, seed=2).task(0)
    figure = plotting.predictive_bands(NormalMean(), task, (3,), num_points=5)
    lower, upper = NormalMean().adapt(task.points(slice(3))).predict(task.x).interval(0.9)
    drawn = figure.axes[0].collections[0].get_paths()[0].vertices[:, 1]  # the 90 % band; it is flat for this learner
    assert drawn.min() == pytest.approx(float(lower[0, 0, 0]))
    assert drawn.max() == pytest.approx(float(upper[0, 0, 0]))


def test_bands_ignore_padding_and_take_given_axes() -> None:
    task = normal_tasks(2, [4, 9], seed=3).data.select([0])  # padded to 9
    figure, axes = plt.subplots(1, 2)
    assert plotting.predictive_bands(NormalMean(), task, (0, 4), axes=list(axes)) is figure
    assert len(axes[0].get_lines()[1].get_xdata()) == 4


def test_bands_refuse_what_cannot_be_drawn() -> None:
    task = normal_tasks(1, 6, seed=4).task(0)
    with pytest.raises(DataError, match="expected one task"):
        plotting.predictive_bands(NormalMean(), normal_tasks(2, 6, seed=4).data)
    with pytest.raises(UnsupportedError, match="expected scalar inputs"):
        plotting.predictive_bands(NormalMean(), Data(task.x.repeat(1, 1, 2), task.y, task.mask))
    with pytest.raises(UnsupportedError, match="expected scalar inputs"):
        plotting.predictive_bands(ClassShares(), label_tasks(1, 6, seed=4).task(0))
    for shots in ((7,), (-1,), ()):
        with pytest.raises(DataError, match="numbers of shots"):
            plotting.predictive_bands(NormalMean(), task, shots)
    with pytest.raises(DataError, match="expected an output"):
        plotting.predictive_bands(NormalMean(), task, (0,), output=1)
    with pytest.raises(ShapeError, match="expected 2 axes"):
        plotting.predictive_bands(NormalMean(), task, (0, 1), axes=[plt.subplots()[1]])


def test_reliability_lines_are_the_calibration_curves(evaluation: Evaluation) -> None:
    ax = plotting.reliability_diagram(evaluation)
    assert [line.get_label() for line in ax.get_lines()] == ["calibrated", "0 shots", "1 shot", "5 shots"]
    result = evaluation.at(5)
    line = ax.get_lines()[-1]
    observed = [(result.pit <= level).mean() for level in line.get_xdata()]
    np.testing.assert_allclose(line.get_ydata(), observed)


def test_a_single_line_has_a_band_that_holds_it(evaluation: Evaluation) -> None:
    ax = plotting.reliability_diagram(evaluation, shots=[5])
    ((band,), line) = ax.collections, ax.get_lines()[-1]
    vertices = band.get_paths()[0].vertices
    for x, y in line.get_xydata():
        around = vertices[np.isclose(vertices[:, 0], x), 1]
        assert around.min() - 1e-9 <= y <= around.max() + 1e-9


def test_a_single_classifier_has_an_interval_in_every_bin_and_bars_of_confidence(labels: Evaluation) -> None:
    ax = plotting.reliability_diagram(labels, shots=[5])
    ((intervals,), line) = ax.collections, ax.get_lines()[-1]
    assert len(intervals.get_segments()) == len(line.get_xdata()) > 2
    for (low, high), (x, y) in zip(intervals.get_segments(), line.get_xydata(), strict=True):
        assert low[0] == high[0] == x
        assert low[1] - 1e-9 <= y <= high[1] + 1e-9
    result = labels.at(5)
    bins = np.ceil(15 * result.confidence - 1e-4) - 1  # (lower, upper], an edge itself too
    expected = np.bincount(bins.astype(int), minlength=15) / bins.size
    np.testing.assert_allclose([bar.get_height() for bar in ax.patches], expected)
    assert not plotting.reliability_diagram(labels).patches  # several lines: no bars


def test_intervals_of_bare_answers_are_binomial() -> None:
    right = torch.arange(400) % 4 > 0  # three of four
    ax = plotting.reliability_diagram((torch.full((400,), 0.7), right))
    ((segment,),) = (c.get_segments() for c in ax.collections)
    # deviation sqrt(.75 * .25 / 400) = .0217; an end from 500 resamplings is known to about .003; three of these
    assert segment[0][1] == pytest.approx(0.75 - 1.96 * 0.0217, abs=0.009)
    assert segment[1][1] == pytest.approx(0.75 + 1.96 * 0.0217, abs=0.009)
    assert ax.get_lines()[-1].get_xydata().tolist() == [[pytest.approx(0.7), 0.75]]
    # ten copies of each point in a task say no more than one of them: tasks are what is resampled
    rows = plotting.reliability_diagram((np.full((400, 10), 0.7), right[:, None].repeat(1, 10).numpy()))
    ((same,),) = (c.get_segments() for c in rows.collections)
    np.testing.assert_allclose(same, segment)


def test_reliability_of_a_classifier_is_accuracy_by_confidence(labels: Evaluation) -> None:
    ax = plotting.reliability_diagram(labels, shots=[0])
    x, y = ax.get_lines()[-1].get_data()
    result = labels.at(0)
    np.testing.assert_allclose(x, [1.0 / 3.0])  # without support all three classes have the same probability
    np.testing.assert_allclose(y, [result.correct.mean()])
    assert ax.get_xlabel() == "confidence"


def test_histogram_of_bare_pits_and_its_band() -> None:
    ax = plotting.pit_histogram(torch.rand(40, 25), bins=20)
    heights = np.array([bar.get_height() for bar in ax.patches if bar.get_width() < 0.5])
    assert heights.mean() == pytest.approx(1.0)  # a density on (0, 1)
    low, high = uniform_band(1000, 20)
    # Binomial(1000, .05): 50 points a bar, deviation 6.9, so about 1.96 * .138 either side of 1
    assert low == pytest.approx(1.0 - 1.96 * 0.138, abs=0.02)  # a bar changes by steps of .02
    assert high == pytest.approx(1.0 + 1.96 * 0.138, abs=0.02)
    assert ((heights >= low) & (heights <= high)).mean() >= 0.75  # 95 % of 20 bars expected; 5 outside is 1 in 1000


def test_histogram_of_an_evaluation_shows_what_is_wrong(evaluation: Evaluation) -> None:
    ax = plotting.pit_histogram(evaluation, shots=0)
    heights = [bar.get_height() for bar in ax.patches if bar.get_width() < 0.5]
    assert min(heights[0], heights[-1]) > 1.3 * max(heights[3:7])  # intervals too narrow: walls at both ends


def test_given_axes_are_drawn_on(evaluation: Evaluation) -> None:
    _, ax = plt.subplots()
    assert plotting.reliability_diagram(evaluation, ax=ax) is ax
    assert plotting.pit_histogram(evaluation, ax=ax) is ax
    assert len(plt.get_fignums()) == 1


def test_calibration_figures_refuse_what_cannot_be_drawn(evaluation: Evaluation, labels: Evaluation) -> None:
    with pytest.raises(DataError, match="expected pit values between 0 and 1"):
        plotting.pit_histogram(np.array([0.5, 1.2]))
    with pytest.raises(DataError, match="expected pit values between 0 and 1"):
        plotting.reliability_diagram(np.array([]))
    with pytest.raises(DataError, match="expected no shots"):
        plotting.reliability_diagram(np.array([0.5]), shots=[1])
    with pytest.raises(ShapeError, match="expected confidence and correct of one shape"):
        plotting.reliability_diagram((np.array([0.5, 0.6]), np.array([True])))
    with pytest.raises(DataError, match="expected confidences between 0 and 1"):
        plotting.reliability_diagram((np.array([0.5, np.nan]), np.array([True, False])))
    with pytest.raises(DataError, match="expected answers that are right"):
        plotting.reliability_diagram((np.array([0.5, 0.6]), np.array([3, 1])))
    with pytest.raises(DataError, match="expected one of the evaluated"):
        plotting.reliability_diagram(evaluation, shots=[3])
    with pytest.raises(DataError, match="expected at least 2 bins"):
        plotting.pit_histogram(evaluation, bins=1)
    with pytest.raises(UnsupportedError, match="labels have no pit"):
        plotting.pit_histogram(labels)


def test_bands_along_one_input_next_to_covariates() -> None:
    task = normal_tasks(1, 6, seed=4).task(0)
    both = Data(torch.cat([torch.full_like(task.x, 7.0), task.x], -1), task.y, task.mask)
    seen = []

    class Watched(NormalMean):
        def condition(self, support: Data) -> object:
            seen.append(support.x)
            return super().condition(support)

    figure = plotting.predictive_bands(Watched(), both, (6,), num_points=5)
    assert torch.equal(seen[0], both.x)
    np.testing.assert_array_equal(figure.axes[0].get_lines()[-1].get_xdata(), task.x[0, :, 0])
    with pytest.raises(UnsupportedError, match="got 1 that vary"):
        plotting.predictive_bands(NormalMean(), both, (0,), along=0)
    with pytest.raises(DataError, match="expected an input from 0 to 1"):
        plotting.predictive_bands(NormalMean(), both, (0,), along=2)


def test_scores_by_shots_are_the_table(evaluation: Evaluation) -> None:
    ax = plotting.score_by_shots(evaluation, "crps")
    table = evaluation.table()
    np.testing.assert_array_equal(ax.get_lines()[0].get_ydata(), table.crps)
    ends = [segment[:, 1].tolist() for segment in ax.collections[0].get_segments()]
    np.testing.assert_array_equal(ends, table[["crps_low", "crps_high"]])
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0", "1", "5"]
    with pytest.raises(DataError, match="expected a column of the evaluation's table, got 'accuracy'"):
        plotting.score_by_shots(evaluation, "accuracy")


def test_widths_by_shots_are_those_of_the_tasks(evaluation: Evaluation, labels: Evaluation) -> None:
    ax = plotting.width_by_shots(evaluation, spread=9.0)
    dots = [line.get_ydata() for line in ax.get_lines() if line.get_marker() == "."]
    for result, drawn in zip(evaluation.results, dots, strict=True):
        np.testing.assert_array_equal(drawn, result.scores["width"])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a task", "mean", "all outcomes"]
    assert ax.get_ylim()[0] == 0.0 < 9.0 < ax.get_ylim()[1]
    with pytest.raises(UnsupportedError, match="labels have no intervals"):
        plotting.width_by_shots(labels)
