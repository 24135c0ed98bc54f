"""Whether predictive distributions mean what they say: reliability diagrams and PIT histograms."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from bayesmeta.errors import DataError, ShapeError, UnsupportedError
from bayesmeta.evaluation import metrics
from bayesmeta.evaluation.bootstrap import resampled
from bayesmeta.evaluation.scores import Evaluation, ShotScores
from bayesmeta.one_line import several
from bayesmeta.plotting.style import CYCLE, GREY, MARKERS, square_axes, uniform_bars, wide_axes
from bayesmeta.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def reliability_diagram(
    values: "Evaluation | Tensor | np.ndarray | tuple[ArrayLike, ArrayLike]",
    *,
    shots: Sequence[int] | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw observed against predicted probabilities: the line of a calibrated learner is the diagonal.

    In regression, the share of points with F(y) <= p is drawn for each level p. For a classifier, it is the share of
    right answers in 15 bins of confidence, empty bins left out. Shares are means over tasks, and every number of shots
    is a line. A single line gets 95 % intervals by resampling tasks, and for a classifier grey bars: the share of
    points that lies in each bin.

    Args:
        values: an `Evaluation`, `pit` values of any shape, or (confidence, correct) of a classifier: `tasks points` of
            each, or `points`, which are then resampled one by one.
        shots: which numbers of shots of the evaluation; all by default.
        ax: where to draw; a new figure by default.

    Returns:
        The axes that were drawn on.

    Raises:
        DataError: shots that were not evaluated, no tasks, pit values or confidences outside [0, 1], answers that are
            neither right nor wrong.
        ShapeError: confidences and answers of different shapes.

    Example:
        >>> import bayesmeta as bm
        >>> from matplotlib.figure import Figure
        >>> simulator = bm.tasks.GPFunctions.eq()
        >>> tasks = simulator.dataset(20, 15)
        >>> evaluation = bm.evaluate(simulator.oracle, tasks, shots=[0, 5], num_bootstrap=0)
        >>> ax = bm.plotting.reliability_diagram(evaluation, ax=Figure().subplots())
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['calibrated', '0 shots', '5 shots']
    """
    lines = _chosen(values, shots)
    ax = square_axes() if ax is None else ax
    ax.plot([0, 1], [0, 1], color=GREY, linewidth=1.0, linestyle="--", label="calibrated")
    classifier = lines[0][1].pit is None
    if len(lines) == 1:
        _draw_chance(ax, lines[0][1])
    for i, (label, scores) in enumerate(lines):
        predicted, observed = _reliability(scores, np.ones((1, len(scores.points))))
        color, marker = CYCLE[i % len(CYCLE)], MARKERS[i % len(MARKERS)]
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
    """Draw the histogram of the probability integral transform F(y), which is uniform for a calibrated learner.

    A hump in the middle means intervals that are too wide, walls at both ends intervals that are too narrow, and a
    slope a bias. The 95 % band of a bar takes the points as independent; those of one task are not, so with few tasks
    bars leave it more often than one time in twenty.

    Args:
        values: an `Evaluation` of a regression learner, or `pit` values of any shape.
        shots: which number of shots of the evaluation; the largest by default.
        bins: number of bars.
        ax: where to draw; a new figure by default.

    Returns:
        The axes that were drawn on.

    Raises:
        DataError: shots that were not evaluated, no tasks, pit values outside [0, 1], fewer than two bins.
        UnsupportedError: a classifier has no pit.

    Example:
        >>> import torch
        >>> import bayesmeta as bm
        >>> from matplotlib.figure import Figure
        >>> prediction = bm.ALPaCA(bm.Polynomial(1, 1)).adapt(bm.Data.from_arrays([], [])).predict(torch.rand(500))
        >>> pit = bm.evaluation.metrics.pit(prediction, prediction.sample())
        >>> ax = bm.plotting.pit_histogram(pit, bins=5, ax=Figure().subplots())
        >>> ax.get_xlabel(), ax.get_ylabel()
        ('probability integral transform F(y)', 'density')
    """
    if bins < 2:
        raise DataError(f"expected at least 2 bins, got {bins}")
    if isinstance(values, Evaluation):
        shots = max(values.shots) if shots is None else shots
    ((label, scores),) = _chosen(values, None if shots is None else (shots,))
    if scores.pit is None:
        raise UnsupportedError("labels have no pit: use reliability_diagram for a classifier")
    ax = wide_axes() if ax is None else ax
    counts, _ = np.histogram(scores.pit, bins=bins, range=(0.0, 1.0))
    highest = uniform_bars(ax, counts, label)
    ax.set_xlabel("probability integral transform F(y)")
    ax.set_ylabel("density")
    ax.set_ylim(0, 1.35 * highest)
    ax.legend(frameon=False, fontsize=9, loc="upper right", ncols=2)
    return ax


def _draw_chance(ax: "Axes", scores: ShotScores) -> None:
    """95 % intervals of the only line of a reliability diagram, and of a classifier the shares of its points."""
    tasks, classifier = len(scores.points), scores.pit is None
    if tasks > 1:
        predicted, _ = _reliability(scores, np.ones((1, tasks)))
        observed = np.concatenate([_reliability(scores, weights)[1] for weights in resampled(tasks, 500)])
        low, high = np.nanquantile(observed, [0.025, 0.975], axis=0)
        if classifier:
            ax.vlines(predicted[0], low, high, color=CYCLE[0], alpha=0.5, linewidth=3.0, label="95 % over tasks")
        else:
            ax.fill_between(predicted[0], low, high, color=CYCLE[0], alpha=0.2, linewidth=0, label="95 % over tasks")
    if classifier:
        shares = _shares(scores)
        bins = len(shares)

        ax.bar(
            np.arange(bins) / bins,
            shares,
            1.0 / bins,
            align="edge",
            color="0.85",
            edgecolor="white",
            zorder=0,
            label="points",
        )


def _chosen(
    values: "Evaluation | Tensor | np.ndarray | tuple[ArrayLike, ArrayLike]", shots: Sequence[int] | None
) -> list[tuple[str, ShotScores]]:
    """What to draw, each with its label."""
    if isinstance(values, Evaluation):
        results = values.results if shots is None else [values.at(shot) for shot in shots]
        found = [(several(r.shots, "shot"), r) for r in results if r.names]
        if not found:
            raise DataError("expected an evaluation with tasks at these shots, got none")
        return found
    if shots is not None:
        raise DataError(f"expected no shots with bare values, got {shots}")
    if isinstance(values, tuple):
        return [("observed", _answers(*values))]
    flat = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=float).reshape(-1, 1)
    if flat.size == 0 or not bool(((flat >= 0.0) & (flat <= 1.0)).all()):
        raise DataError(f"expected pit values between 0 and 1, got {flat.size} of them, {flat.ravel()[:5]}")
    return [("observed", ShotScores(0, ("pit",), np.array([flat.size]), {}, pit=flat))]


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
    points = np.full(len(sure), sure[0].size)
    confidence, correct = sure.astype(float).ravel(), right.astype(bool).ravel()
    return ShotScores(0, tuple(range(len(sure))), points, {}, confidence=confidence, correct=correct)


def _shares(scores: ShotScores) -> np.ndarray:
    """The share of points in each bin of confidence."""
    return scores.bins()[0].mean(0)


def _reliability(scores: ShotScores, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and observed shares, one row for each weighting of the tasks."""
    if scores.pit is not None:
        return np.tile(metrics.LEVELS, (len(weights), 1)), weights @ scores.curve() / weights.sum(-1, keepdims=True)
    count, hits, total = scores.bins()
    filled = count.sum(0) > 0
    with np.errstate(invalid="ignore"):  # a resampling may leave a bin empty: NaN, and ignored
        return tuple(weights @ v[:, filled] / (weights @ count[:, filled]) for v in (total, hits))
