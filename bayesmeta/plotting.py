"""Figures: what a learner believes as shots grow, and whether it can be believed.

matplotlib is imported when a figure is made, and nothing is shown: the figure or axes are returned.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bayesmeta.checks.rank_statistics import RankStatistics
from bayesmeta.data import Data
from bayesmeta.errors import DataError, ShapeError, UnsupportedError
from bayesmeta.evaluation import metrics
from bayesmeta.evaluation.scores import Evaluation, ShotScores
from bayesmeta.learner import Learner
from bayesmeta.predictives import Predictive
from bayesmeta.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito (2008): told apart with every common colour vision
_BLUE, _VERMILLION, _GREEN, _PURPLE, _ORANGE, _SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
_CYCLE = (_BLUE, _ORANGE, _GREEN, _VERMILLION, _PURPLE, _SKY)
_MARKERS = ("o", "s", "^", "D", "v", "P")
_GREY = "0.45"


def predictive_bands(
    learner: Learner,
    task: Data,
    shots: Sequence[int] = (0, 1, 2, 5),
    *,
    oracle: Learner | None = None,
    output: int = 0,
    along: int | None = None,
    x_label: str = "x",
    y_label: str = "y",
    num_points: int = 101,
    axes: "Sequence[Axes] | None" = None,
) -> "Figure":
    """One panel for each number of shots: predictive mean with the central 50 % and 90 % bands, noise included.

    Args:
        learner: adapted to the first points of the task.
        task: one task (`TaskDataset.task(name)`), its points in the order they are taken. Of its inputs one varies; the
            others are covariates, and stay what they are.
        shots: numbers of support points, none larger than the task.
        oracle: the exact Bayes predictive, drawn as mean and 90 % lines.
        output: which outcome is drawn.
        along: which input is drawn; by default the one that varies.
        x_label: what x is, with its unit.
        y_label: what y is, with its unit.
        num_points: points at which the bands are computed.
        axes: one axes for each number of shots; by default a new figure with a row of panels.

    Raises:
        DataError: more than one task, an output or number of shots that the task does not have, no shots.
        UnsupportedError: several inputs that vary within the task, inputs that are no vectors, or labels for outcomes.
        ShapeError: another number of axes than of shots.
    """
    if task.num_tasks != 1 or not bool(task.mask.any()):
        raise DataError(f"expected one task with points, got {task.num_tasks} tasks of {task.counts.tolist()} points")
    along = _varying(task, along)
    count = int(task.counts)
    if not 0 <= output < task.y.shape[2]:
        raise DataError(f"expected an output from 0 to {task.y.shape[2] - 1}, got {output}")
    if len(shots) == 0 or min(shots) < 0 or max(shots) > count:
        raise DataError(f"expected numbers of shots from 0 to the task's {count} points, got {list(shots)}")
    inputs, outcomes = task.x[0, task.mask[0]], task.y[0, task.mask[0]]
    x, y = inputs[:, along], outcomes[:, output]
    margin = 0.05 * float(x.max() - x.min()) or 1.0
    grid = torch.linspace(float(x.min()) - margin, float(x.max()) + margin, num_points, dtype=x.dtype)
    panels = _row_of_axes(len(shots)) if axes is None else list(axes)
    if len(panels) != len(shots):
        raise ShapeError(f"expected {len(shots)} axes, one for each number of shots, got {len(panels)}")
    at_grid = inputs[:1].repeat(num_points, 1)
    at_grid[:, along] = grid
    real = Data(inputs[None], outcomes[None], torch.ones(1, count, dtype=torch.bool))
    for shot, ax in zip(shots, panels, strict=True):
        support = Data(real.x[:, :shot], real.y[:, :shot], real.mask[:, :shot])
        mean, *bands = _bands(learner.adapt(support).predict(at_grid[None]), output, (0.9, 0.5))
        for (lower, upper), alpha, label in zip(bands, (0.2, 0.35), ("90 % band", "50 % band"), strict=True):
            ax.fill_between(grid, lower, upper, color=_BLUE, alpha=alpha, linewidth=0, label=label)
        ax.plot(grid, mean, color=_BLUE, linewidth=1.8, label="mean")
        if oracle is not None:
            best, (lower, upper) = _bands(oracle.adapt(support).predict(at_grid[None]), output, (0.9,))
            ax.plot(grid, best, color=_VERMILLION, linewidth=1.2, label="oracle (dashes: 90 %)")
            for line in (lower, upper):
                ax.plot(grid, line, color=_VERMILLION, linewidth=1.0, linestyle="--")
        ax.plot(x[shot:], y[shot:], ".", color=_GREY, markersize=4, alpha=0.7, label="not seen")
        ax.plot(x[:shot], y[:shot], "o", color="black", markersize=5, label="support")
        ax.set_title(f"{shot} shot" if shot == 1 else f"{shot} shots", fontsize=10)
        ax.set_xlabel(x_label)
    panels[0].set_ylabel(y_label)
    figure = panels[0].get_figure(root=True)
    assert figure is not None  # axes that are drawn on belong to a figure
    if axes is None:
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    return figure


def reliability_diagram(
    values: "Evaluation | Tensor | np.ndarray | tuple[ArrayLike, ArrayLike]",
    *,
    shots: Sequence[int] | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Observed against predicted: on the diagonal, the learner means what it says.

    In regression, the share of points with F(y) <= p for each level p. For a classifier, the share of right answers in
    15 bins of confidence, empty bins left out. Points of all tasks are pooled, and every number of shots is a line. A
    single line gets 95 % intervals by resampling tasks, and for a classifier grey bars: the share of all points that
    lies in each bin.

    Args:
        values: an `Evaluation`, `pit` values of any shape, or (confidence, correct) of a classifier: `tasks points` of
            each, or `points`, which are then resampled one by one.
        shots: which numbers of shots of the evaluation; all by default.
        ax: where to draw; a new figure by default.

    Raises:
        DataError: shots that were not evaluated, no tasks, pit values or confidences outside [0, 1], answers that are
            neither right nor wrong. ShapeError: confidences and answers of different shapes.
    """
    lines = _chosen(values, shots)
    ax = _square_axes() if ax is None else ax
    ax.plot([0, 1], [0, 1], color=_GREY, linewidth=1.0, linestyle="--", label="calibrated")
    classifier = lines[0][1].pit is None
    for i, (label, scores) in enumerate(lines):
        predicted, observed = _reliability(scores, np.ones((1, len(scores.points))))
        color = _CYCLE[i % len(_CYCLE)]
        marker = _MARKERS[i % len(_MARKERS)]
        if len(lines) == 1 and len(scores.points) > 1:
            tasks = len(scores.points)
            counts = np.random.default_rng(0).multinomial(tasks, np.full(tasks, 1.0 / tasks), size=500).astype(float)
            low, high = np.nanquantile(_reliability(scores, counts)[1], [0.025, 0.975], axis=0)
            if classifier:
                ax.vlines(predicted[0], low, high, color=color, alpha=0.5, linewidth=3.0, label="95 % over tasks")
            else:
                ax.fill_between(predicted[0], low, high, color=color, alpha=0.2, linewidth=0, label="95 % over tasks")
        if len(lines) == 1 and classifier:
            shares = _shares(scores)
            places = np.arange(len(shares)) / len(shares)
            ax.bar(
                places,
                shares,
                1.0 / len(shares),
                align="edge",
                color="0.85",
                edgecolor="white",
                zorder=0,
                label="points",
            )
        ax.plot(predicted[0], observed[0], marker=marker, markersize=4, color=color, linewidth=1.4, label=label)
    ax.set_xlabel("confidence" if classifier else "predicted probability p")
    ax.set_ylabel("share of right answers" if classifier else "observed share of y with F(y) ≤ p")
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ax.legend(frameon=False, fontsize=9, loc="upper left")
    return ax


def pit_histogram(
    values: "Evaluation | Tensor | np.ndarray",
    *,
    shots: int | None = None,
    bins: int = 10,
    ax: "Axes | None" = None,
) -> "Axes":
    """Histogram of F(y) with the 95 % band that independent uniform values would stay in, bin by bin.

    A hump in the middle: intervals too wide. Walls at both ends: too narrow. A slope: biased. The band takes the points
    as independent; those of one task are not, so with few tasks bars leave it more often than one time in twenty.

    Args:
        values: an `Evaluation` of a regression learner, or `pit` values of any shape.
        shots: which number of shots of the evaluation; the largest by default.
        bins: number of bars.
        ax: where to draw; a new figure by default.

    Raises:
        DataError: shots that were not evaluated, no tasks, pit values outside [0, 1], fewer than two bins.
        UnsupportedError: a classifier has no pit.
    """
    if bins < 2:
        raise DataError(f"expected at least 2 bins, got {bins}")
    if isinstance(values, Evaluation):
        shots = max(values.shots) if shots is None else shots
    ((label, scores),) = _chosen(values, None if shots is None else (shots,))
    if scores.pit is None:
        raise UnsupportedError("labels have no pit: use reliability_diagram for a classifier")
    ax = _wide_axes() if ax is None else ax
    flat = scores.pit[scores.mask].ravel()
    low, high = _uniform_band(flat.size, bins)
    heights, edges = np.histogram(flat, bins=bins, range=(0.0, 1.0))
    relative = heights / flat.size * bins
    ax.bar(edges[:-1], relative, width=1.0 / bins, align="edge", color=_SKY, edgecolor="white", label=label)
    ax.axhspan(low, high, color=_GREY, alpha=0.3, linewidth=0, label="95 % band if uniform")
    ax.axhline(1.0, color="black", linewidth=1.0, linestyle="--")
    ax.set_xlabel("probability integral transform F(y)")
    ax.set_ylabel("density")
    ax.set(xlim=(0, 1), ylim=(0, 1.35 * max(float(relative.max()), high)))
    ax.legend(frameon=False, fontsize=9, loc="upper right", ncols=2)
    return ax


def rank_histograms(
    ranks: RankStatistics,
    names: Sequence[str] | None = None,
    *,
    bins: int | None = None,
    axes: "Sequence[Axes] | None" = None,
) -> "Figure":
    """Histograms of simulation-based calibration, with the 95 % band of each bar if ranks are uniform (the binomial).

    Walls at both ends: the posterior is too narrow. A hump: too wide. High on the left: the posterior is too high; on
    the right: too low.

    Args:
        ranks: from `sbc`.
        names: which quantities; by default the six that are furthest from uniform.
        bins: as for `RankStatistics.counts`.
        axes: one for each quantity; by default a new figure with up to three in a row.

    Raises:
        DataError: a quantity that was not ranked, or a number of bins that does not divide S + 1. ShapeError: another
            number of axes than of quantities.
    """
    chosen = _quantities(ranks, names)
    counts = ranks.counts(bins)[:, chosen].numpy()
    panels = _grid_of_axes(len(chosen)) if axes is None else list(axes)
    if len(panels) != len(chosen):
        raise ShapeError(f"expected {len(chosen)} axes, one for each quantity, got {len(panels)}")
    total, bars = len(ranks.ranks), len(counts)
    low, high = _uniform_band(total, bars)
    places = np.arange(bars) / bars
    for heights, quantity, ax in zip(counts.T, chosen, panels, strict=True):
        relative = heights / total * bars
        ax.bar(places, relative, width=1.0 / bars, align="edge", color=_SKY, edgecolor="white", label="ranks")
        ax.axhspan(low, high, color=_GREY, alpha=0.3, linewidth=0, label="95 % band if uniform")
        ax.axhline(1.0, color="black", linewidth=1.0, linestyle="--")
        ax.set(xlim=(0, 1), ylim=(0, max(float(relative.max()), high) * 1.15))
        ax.set_title(ranks.names[quantity], fontsize=10)
    figure = panels[0].get_figure(root=True)
    assert figure is not None  # axes that are drawn on belong to a figure
    if axes is None:
        figure.supxlabel("rank of the truth among draws, over their number", fontsize=10)
        figure.supylabel("density", fontsize=10)
    return figure


def rank_curves(
    ranks: RankStatistics,
    names: Sequence[str] | None = None,
    *,
    level: float = 0.95,
    ax: "Axes | None" = None,
) -> "Axes":
    """The share of ranks up to r/S less r/S itself, with the band that a curve stays in with probability `level`.

    The band holds the whole curve at once (Säilynoja, Bürkner, Vehtari 2022, arXiv:2103.10522), and needs no bins. A
    posterior too narrow: above zero on the left and below it on the right. Too wide: the other way round. Above zero
    throughout: too high.

    Args:
        ranks: from `sbc`.
        names: which quantities; by default the six that are furthest from uniform.
        level: of the band, for each curve.
        ax: where to draw; a new figure by default.

    Raises:
        DataError: a quantity that was not ranked, or a level outside (0, 1).
    """
    metrics.check_level(level)
    chosen = _quantities(ranks, names)
    ax = _wide_axes() if ax is None else ax
    places = np.arange(1, ranks.num_draws + 2) / (ranks.num_draws + 1)
    low, high = _curve_band(len(ranks.ranks), ranks.num_draws, level)
    start = np.concatenate([[0.0], places])
    for end, label in ((low, f"{level:.0%} band if uniform"), (high, None)):
        ax.plot(start, np.concatenate([[0.0], end - places]), color=_GREY, linewidth=1.2, linestyle="--", label=label)
    ax.axhline(0.0, color="black", linewidth=0.8)
    for i, quantity in enumerate(chosen):
        counts = np.bincount(ranks.ranks[:, quantity].numpy(), minlength=ranks.num_draws + 1)
        curve = np.concatenate([[0.0], counts.cumsum() / counts.sum() - places])
        ax.plot(start, curve, color=_CYCLE[i % len(_CYCLE)], linewidth=1.4, label=ranks.names[quantity])
    ax.set_xlabel("rank of the truth among draws, over their number")
    ax.set_ylabel("share of ranks up to it, less itself")
    ax.set_xlim(0, 1)
    ax.legend(frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.18))
    return ax


def _quantities(ranks: RankStatistics, names: Sequence[str] | None) -> list[int]:
    """Positions of the quantities that are drawn."""
    if names is None:
        return [int(i) for i in ranks.p_values().argsort()[:6]]
    missing = [name for name in names if name not in ranks.names]
    if missing or not names:
        raise DataError(f"expected some of the ranked quantities {list(ranks.names)}, got {list(names)}")
    return [ranks.names.index(name) for name in names]


def _curve_band(count: int, num_draws: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the band of the share of ranks up to r = 0..S: pointwise binomial quantiles at the probability at which
    `level` of 2,000 uniform curves stay inside everywhere.
    """
    from scipy.stats import binom

    places = np.arange(1, num_draws + 2) / (num_draws + 1)
    rng = np.random.default_rng(0)
    counts = rng.multinomial(count, np.full(num_draws + 1, 1.0 / (num_draws + 1)), size=2000).cumsum(1)[:, :-1]
    heights = np.arange(count + 1)[:, None]
    below, above = binom.cdf(heights, count, places[:-1]), binom.sf(heights - 1, count, places[:-1])
    each = np.minimum(below, above)[counts, np.arange(num_draws)].min(1)
    tail = np.quantile(each, 1.0 - level)
    ends = binom.ppf(tail, count, places), binom.isf(tail, count, places)
    return ends[0] / count, ends[1] / count


def _grid_of_axes(panels: int) -> "list[Axes]":
    import matplotlib.pyplot as plt

    columns = min(panels, 3)
    rows = -(-panels // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(2.6 * columns + 0.6, 2.2 * rows + 0.4), sharex=True, squeeze=False, layout="constrained"
    )
    for ax in axes.flat[panels:]:
        figure.delaxes(ax)
    return list(axes.flat[:panels])


def score_by_shots(evaluation: Evaluation, score: str = "rmse", *, ax: "Axes | None" = None) -> "Axes":
    """A column of the evaluation's table against the number of shots, with its 95 % interval over tasks.

    Args:
        evaluation: of any learner.
        score: a column of `Evaluation.table`.
        ax: where to draw; a new figure by default.

    Raises:
        DataError: the evaluation has no such column.
    """
    table = evaluation.table().query("tasks > 0").sort_index()
    if score not in table or not len(table):
        raise DataError(f"expected a column of the evaluation's table, got {score!r}: it has {list(table.columns)}")
    ax = _wide_axes() if ax is None else ax
    place = np.arange(len(table))
    if f"{score}_low" in table:
        ax.vlines(
            place,
            table[f"{score}_low"],
            table[f"{score}_high"],
            color=_BLUE,
            alpha=0.5,
            linewidth=3.0,
            label="95 % over tasks",
        )
    ax.plot(place, table[score], marker="o", markersize=5, color=_BLUE, linewidth=1.4)
    _label_shots(ax, list(table.index))
    ax.set_ylabel(score)
    return ax


def width_by_shots(evaluation: Evaluation, *, spread: float | None = None, ax: "Axes | None" = None) -> "Axes":
    """How wide the central intervals are, task by task, against the number of shots: narrow is sharp.

    Args:
        evaluation: of a regression learner.
        spread: width of the range of all outcomes that an interval should beat, units of y; drawn as a dashed line.
        ax: where to draw; a new figure by default.

    Raises:
        UnsupportedError: a classifier has no intervals.
    """
    results = sorted((result for result in evaluation.results if result.names), key=lambda result: result.shots)
    if any(result.pit is None for result in results):
        raise UnsupportedError("labels have no intervals: a classifier is sharp where it is confident")
    ax = _wide_axes() if ax is None else ax
    generator = np.random.default_rng(0)
    for place, result in enumerate(results):
        width = result.scores["width"]
        ax.plot(
            place + generator.uniform(-0.15, 0.15, len(width)),
            width,
            ".",
            color=_BLUE,
            alpha=0.5,
            markersize=5,
            label=None if place else "a task",
        )
        mean = float(np.average(width, weights=result.points))
        ax.plot([place - 0.3, place + 0.3], [mean, mean], "k-", linewidth=2.0, label=None if place else "mean")
    if spread is not None:
        ax.axhline(spread, color=_VERMILLION, linestyle="--", linewidth=1.2, label="all outcomes")
    _label_shots(ax, [result.shots for result in results])
    ax.set_ylim(0.0, 1.06 * ax.get_ylim()[1])
    ax.set_ylabel(f"width of the {100 * evaluation.level:g} % interval")
    ax.legend(frameon=False, fontsize=9)
    return ax


def _label_shots(ax: "Axes", shots: Sequence[int]) -> None:
    """Even spaces: 0, 1, 2, 5, 10 would crowd at one end otherwise."""
    ax.set_xticks(range(len(shots)), [str(number) for number in shots])
    ax.set_xlim(-0.5, len(shots) - 0.5)
    ax.set_xlabel("shots")


def _varying(task: Data, along: int | None) -> int:
    """The input that is drawn."""
    if task.x.ndim != 3 or task.x.shape[2] == 0 or not task.y.is_floating_point():
        raise UnsupportedError(
            "expected scalar inputs and numeric outcomes, "
            f"got x of shape {tuple(task.x.shape)} and y of shape {tuple(task.y.shape)}, {task.y.dtype}"
        )
    if along is not None and not 0 <= along < task.x.shape[2]:
        raise DataError(f"expected an input from 0 to {task.x.shape[2] - 1}, got {along}")
    inputs = task.x[0, task.mask[0]]
    varying = (inputs != inputs[0]).any(0).nonzero().flatten().tolist()
    chosen = (varying[0] if varying else 0) if along is None else along
    if any(column != chosen for column in varying):
        raise UnsupportedError(f"expected scalar inputs, or covariates next to one, got {len(varying)} that vary")
    return chosen


def _bands(predictive: Predictive, output: int, levels: tuple[float, ...]) -> tuple[Any, ...]:
    """Mean and intervals of one output of one task, as arrays."""

    def array(value: Tensor) -> np.ndarray:
        return value[0, :, output].detach().cpu().numpy()

    intervals = [tuple(array(end) for end in predictive.interval(level)) for level in levels]
    return array(predictive.mean), *intervals


def _chosen(
    values: "Evaluation | Tensor | np.ndarray | tuple[ArrayLike, ArrayLike]", shots: Sequence[int] | None
) -> list[tuple[str, ShotScores]]:
    """What to draw, each with its label."""
    if isinstance(values, Evaluation):
        results = values.results if shots is None else [values.at(shot) for shot in shots]
        found = [(f"{r.shots} shot" if r.shots == 1 else f"{r.shots} shots", r) for r in results if r.names]
        if not found:
            raise DataError("expected an evaluation with tasks at these shots, got none")
        return found
    if shots is not None:
        raise DataError(f"expected no shots with bare values, got {shots}")
    if isinstance(values, tuple):
        return [("observed", _answers(*values))]
    flat = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=float).reshape(1, -1, 1)
    if flat.size == 0 or not bool(((flat >= 0.0) & (flat <= 1.0)).all()):
        raise DataError(f"expected pit values between 0 and 1, got {flat.size} of them, {flat.ravel()[:5]}")
    mask = np.ones(flat.shape[:2], dtype=bool)
    return [("observed", ShotScores(0, ("pit",), np.array([flat.size]), {}, mask, pit=flat))]


def _answers(confidence: ArrayLike, correct: ArrayLike) -> ShotScores:
    """Bare confidences and answers as scores; without an axis of tasks every point is a task of its own."""
    sure, right = (np.asarray(v.detach().cpu() if isinstance(v, Tensor) else v) for v in (confidence, correct))
    if sure.shape != right.shape or sure.ndim not in (1, 2):
        raise ShapeError(
            "expected confidence and correct of one shape, (tasks, points) or (points,), "
            f"got {sure.shape} and {right.shape}"
        )
    if sure.size == 0 or not bool(((sure >= 0.0) & (sure <= 1.0)).all()):
        raise DataError(f"expected confidences between 0 and 1, got {sure.size} of them, {sure.ravel()[:5]}")
    if not bool(((right == 0) | (right == 1)).all()):
        raise DataError(f"expected answers that are right (1) or wrong (0), got {right.ravel()[:5]}")
    sure, right = (v.reshape(len(v), -1) for v in (sure.astype(float), right.astype(bool)))
    points = np.full(len(sure), sure.shape[1])
    mask = np.ones(sure.shape, dtype=bool)
    return ShotScores(0, tuple(range(len(sure))), points, {}, mask, confidence=sure, correct=right)


def _shares(scores: ShotScores) -> np.ndarray:
    """The share of all points in each bin of confidence."""
    assert scores.confidence is not None
    assert scores.correct is not None
    confidence, correct, mask = (torch.from_numpy(v) for v in (scores.confidence, scores.correct, scores.mask))
    count = metrics.confidence_bins(confidence, correct, mask)[0].sum(0).numpy()
    return count / count.sum()


def _reliability(scores: ShotScores, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and observed shares, one row for each weighting of the tasks."""
    mask = torch.from_numpy(scores.mask)
    if scores.pit is not None:
        curve = metrics.calibration_curve(torch.from_numpy(scores.pit), mask).numpy()
        points = weights * scores.points
        return np.tile(metrics.LEVELS, (len(weights), 1)), points @ curve / points.sum(-1, keepdims=True)
    confidence, correct = (torch.from_numpy(v) for v in (scores.confidence, scores.correct) if v is not None)
    count, hits, total = (v.numpy() for v in metrics.confidence_bins(confidence, correct, mask))
    filled = count.sum(0) > 0
    with np.errstate(invalid="ignore"):  # a resampling may leave a bin empty: NaN, and ignored
        return tuple(weights @ v[:, filled] / (weights @ count[:, filled]) for v in (total, hits))


def _uniform_band(count: int, bins: int) -> tuple[float, float]:
    """Central 95 % of a bar's height under uniformity: Binomial(count, 1/bins), as a density."""
    from scipy.stats import binom

    low, high = binom.interval(0.95, count, 1.0 / bins)
    return float(low) / count * bins, float(high) / count * bins


def _row_of_axes(panels: int) -> "list[Axes]":
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(
        1, panels, figsize=(2.6 * panels + 0.6, 3.1), sharey=True, squeeze=False, layout="constrained"
    )
    return list(axes[0])


def _square_axes() -> "Axes":
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(4.2, 4.2), layout="constrained")[1]


def _wide_axes() -> "Axes":
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(5.0, 3.2), layout="constrained")[1]
