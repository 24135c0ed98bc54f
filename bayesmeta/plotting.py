"""Figures: what a learner believes as shots grow, and whether it can be believed.

matplotlib is imported when a figure is made, and nothing is shown: the figure or axes are returned.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bayesmeta.data import Data
from bayesmeta.errors import DataError, ShapeError, UnsupportedError
from bayesmeta.evaluation import metrics
from bayesmeta.evaluation.scores import Evaluation, ShotScores
from bayesmeta.learner import Learner
from bayesmeta.predictives import Predictive

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
    x_label: str = "x",
    y_label: str = "y",
    num_points: int = 101,
    axes: "Sequence[Axes] | None" = None,
) -> "Figure":
    """One panel for each number of shots: predictive mean with the central 50 % and 90 % bands, noise included.

    Args:
        learner: adapted to the first points of the task.
        task: one task with scalar inputs (`TaskDataset.task(name)`), its points in the order they are taken.
        shots: numbers of support points, none larger than the task.
        oracle: the exact Bayes predictive, drawn as mean and 90 % lines.
        output: which outcome is drawn.
        x_label: what x is, with its unit.
        y_label: what y is, with its unit.
        num_points: points at which the bands are computed.
        axes: one axes for each number of shots; by default a new figure with a row of panels.

    Raises:
        DataError: more than one task, an output or number of shots that the task does not have, no shots.
        UnsupportedError: inputs that are not single numbers, or labels for outcomes.
        ShapeError: another number of axes than of shots.
    """
    if task.num_tasks != 1 or not bool(task.mask.any()):
        raise DataError(f"expected one task with points, got {task.num_tasks} tasks of {task.counts.tolist()} points")
    if tuple(task.x.shape[2:]) != (1,) or not task.y.is_floating_point():
        raise UnsupportedError(
            "expected scalar inputs and numeric outcomes, "
            f"got x of shape {tuple(task.x.shape)} and y of shape {tuple(task.y.shape)}, {task.y.dtype}"
        )
    count = int(task.counts)
    if not 0 <= output < task.y.shape[2]:
        raise DataError(f"expected an output from 0 to {task.y.shape[2] - 1}, got {output}")
    if len(shots) == 0 or min(shots) < 0 or max(shots) > count:
        raise DataError(f"expected numbers of shots from 0 to the task's {count} points, got {list(shots)}")
    x, y = task.x[0, task.mask[0], 0], task.y[0, task.mask[0], output]
    margin = 0.05 * float(x.max() - x.min()) or 1.0
    grid = torch.linspace(float(x.min()) - margin, float(x.max()) + margin, num_points, dtype=x.dtype)
    panels = _row_of_axes(len(shots)) if axes is None else list(axes)
    if len(panels) != len(shots):
        raise ShapeError(f"expected {len(shots)} axes, one for each number of shots, got {len(panels)}")
    real = Data(x[None, :, None], task.y[0, task.mask[0]][None], torch.ones(1, count, dtype=torch.bool))
    for shot, ax in zip(shots, panels, strict=True):
        support = Data(real.x[:, :shot], real.y[:, :shot], real.mask[:, :shot])
        mean, *bands = _bands(learner.adapt(support).predict(grid[None, :, None]), output, (0.9, 0.5))
        for (lower, upper), alpha, label in zip(bands, (0.2, 0.35), ("90 % band", "50 % band"), strict=True):
            ax.fill_between(grid, lower, upper, color=_BLUE, alpha=alpha, linewidth=0, label=label)
        ax.plot(grid, mean, color=_BLUE, linewidth=1.8, label="mean")
        if oracle is not None:
            best, (lower, upper) = _bands(oracle.adapt(support).predict(grid[None, :, None]), output, (0.9,))
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
    values: "Evaluation | Tensor | np.ndarray",
    *,
    shots: Sequence[int] | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Observed against predicted: on the diagonal, the learner means what it says.

    In regression, the share of points with F(y) <= p for each level p. For a classifier, the share of right answers in
    15 bins of confidence, empty bins left out. Points of all tasks are pooled, and every number of shots is a line. A
    single line gets its 95 % band by resampling tasks.

    Args:
        values: an `Evaluation`, or `pit` values of any shape.
        shots: which numbers of shots of the evaluation; all by default.
        ax: where to draw; a new figure by default.

    Raises:
        DataError: shots that were not evaluated, no tasks, or pit values outside [0, 1].
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
            ax.fill_between(predicted[0], low, high, color=color, alpha=0.2, linewidth=0, label="95 % over tasks")
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


def _bands(predictive: Predictive, output: int, levels: tuple[float, ...]) -> tuple[Any, ...]:
    """Mean and intervals of one output of one task, as arrays."""

    def array(value: Tensor) -> np.ndarray:
        return value[0, :, output].detach().cpu().numpy()

    intervals = [tuple(array(end) for end in predictive.interval(level)) for level in levels]
    return array(predictive.mean), *intervals


def _chosen(values: "Evaluation | Tensor | np.ndarray", shots: Sequence[int] | None) -> list[tuple[str, ShotScores]]:
    """What to draw, each with its label."""
    if isinstance(values, Evaluation):
        results = values.results if shots is None else [values.at(shot) for shot in shots]
        found = [(f"{r.shots} shot" if r.shots == 1 else f"{r.shots} shots", r) for r in results if r.names]
        if not found:
            raise DataError("expected an evaluation with tasks at these shots, got none")
        return found
    if shots is not None:
        raise DataError(f"expected no shots with bare pit values, got {shots}")
    flat = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=float).reshape(1, -1, 1)
    if flat.size == 0 or not bool(((flat >= 0.0) & (flat <= 1.0)).all()):
        raise DataError(f"expected pit values between 0 and 1, got {flat.size} of them, {flat.ravel()[:5]}")
    mask = np.ones(flat.shape[:2], dtype=bool)
    return [("observed", ShotScores(0, ("pit",), np.array([flat.size]), {}, mask, pit=flat))]


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
