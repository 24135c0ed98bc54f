"""Scores of an evaluation, and the widths of its intervals, against the number of shots."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.evaluation.scores import Evaluation
from bayesmeta.plotting.style import BLUE, VERMILLION, wide_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def score_by_shots(evaluation: Evaluation, score: str = "rmse", *, ax: "Axes | None" = None) -> "Axes":
    """Draw a score against the number of support points, with its 95 % interval over tasks.

    Args:
        evaluation: of any learner.
        score: a column of `Evaluation.table`.
        ax: where to draw; a new figure by default.

    Returns:
        The axes that were drawn on.

    Raises:
        DataError: the evaluation has no such column.

    Example:
        >>> import bayesmeta as bm
        >>> from matplotlib.figure import Figure
        >>> simulator = bm.tasks.GPFunctions.eq()
        >>> tasks = simulator.dataset(20, 15)
        >>> evaluation = bm.evaluate(simulator.oracle, tasks, shots=[0, 2, 5], num_bootstrap=100)
        >>> ax = bm.plotting.score_by_shots(evaluation, "nll", ax=Figure().subplots())
        >>> ax.get_ylabel(), [tick.get_text() for tick in ax.get_xticklabels()]
        ('nll', ['0', '2', '5'])
    """
    table = evaluation.table().query("tasks > 0").sort_index()
    if score not in table or not len(table):
        raise DataError(f"expected a column of the evaluation's table, got {score!r}: it has {list(table.columns)}")
    ax = wide_axes() if ax is None else ax
    place = np.arange(len(table))
    if f"{score}_low" in table:
        ax.vlines(
            place,
            table[f"{score}_low"],
            table[f"{score}_high"],
            color=BLUE,
            alpha=0.5,
            linewidth=3.0,
            label="95 % over tasks",
        )
    ax.plot(place, table[score], marker="o", markersize=5, color=BLUE, linewidth=1.4)
    _label_shots(ax, list(table.index))
    ax.set_ylabel(score)
    return ax


def width_by_shots(evaluation: Evaluation, *, spread: float | None = None, ax: "Axes | None" = None) -> "Axes":
    """Draw the widths of the central intervals, task by task, against the number of support points.

    Among calibrated predictions the sharper ones, whose intervals are narrower, are better. A black bar is the mean
    over tasks.

    Args:
        evaluation: of a regression learner.
        spread: width of the range of all outcomes that an interval should beat, units of y; drawn as a dashed line.
        ax: where to draw; a new figure by default.

    Returns:
        The axes that were drawn on.

    Raises:
        UnsupportedError: a classifier has no intervals.

    Example:
        >>> import bayesmeta as bm
        >>> from matplotlib.figure import Figure
        >>> simulator = bm.tasks.GPFunctions.eq()
        >>> tasks = simulator.dataset(20, 15)
        >>> evaluation = bm.evaluate(simulator.oracle, tasks, shots=[0, 5], num_bootstrap=0)
        >>> ax = bm.plotting.width_by_shots(evaluation, spread=4.0, ax=Figure().subplots())
        >>> ax.get_ylabel(), [text.get_text() for text in ax.get_legend().get_texts()]
        ('width of the 90 % interval', ['a task', 'mean', 'all outcomes'])
    """
    results = sorted((result for result in evaluation.results if result.names), key=lambda result: result.shots)
    if any(result.pit is None for result in results):
        raise UnsupportedError("labels have no intervals: a classifier is sharp where it is confident")
    ax = wide_axes() if ax is None else ax
    generator = np.random.default_rng(0)
    for place, result in enumerate(results):
        width = result.scores["width"]
        ax.plot(
            place + generator.uniform(-0.15, 0.15, len(width)),
            width,
            ".",
            color=BLUE,
            alpha=0.5,
            markersize=5,
            label=None if place else "a task",
        )
        mean = float(width.mean())
        ax.plot([place - 0.3, place + 0.3], [mean, mean], "k-", linewidth=2.0, label=None if place else "mean")
    if spread is not None:
        ax.axhline(spread, color=VERMILLION, linestyle="--", linewidth=1.2, label="all outcomes")
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
