"""Predictive bands of one task as its support grows."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bayesmeta.arguments import shot_counts, whole
from bayesmeta.data import Data
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.learner import Learner
from bayesmeta.one_line import several
from bayesmeta.plotting.style import BLUE, GREY, VERMILLION, figure_of, row_of_axes
from bayesmeta.predictives import Predictive

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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
    """Draw the predictive distribution along an input, one panel for each number of support points.

    A panel shows the predictive mean with the central 50 % and 90 % intervals of y, observation noise included, and
    the points of the task: the support and those that were not seen. Error bars are one deviation of the noise that is
    known of a point (`Data.noise`), which the intervals leave out.

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

    Returns:
        The figure; it is not shown.

    Raises:
        DataError: more than one task, an output or number of shots that the task does not have, no shots.
        UnsupportedError: several inputs that vary within the task, inputs that are no vectors, or labels for outcomes.
        ShapeError: another number of axes than of shots.

    Example:
        >>> import bayesmeta as bm
        >>> from matplotlib.figure import Figure
        >>> simulator = bm.tasks.GPFunctions.eq()
        >>> task = simulator.dataset(1, 20).task(0)
        >>> panels = list(Figure(figsize=(6, 3)).subplots(1, 2))
        >>> figure = bm.plotting.predictive_bands(simulator.oracle, task, shots=[0, 5], axes=panels)
        >>> [ax.get_title() for ax in figure.axes]
        ['0 shots', '5 shots']
        >>> figure.savefig("bands.png")
    """
    if task.num_tasks != 1 or not bool(task.mask.any()):
        raise DataError(f"expected one task with points, got {task.num_tasks} tasks of {task.counts.tolist()} points")
    along = _varying(task, along)
    real = task.points(task.mask[0])
    if not 0 <= output < real.y.shape[2]:
        raise DataError(f"expected an output from 0 to {real.y.shape[2] - 1}, got {output}")
    shots, num_points = shot_counts(shots), whole(num_points, "num_points", 2)
    if max(shots) > real.num_points:
        raise DataError(f"expected numbers of shots from 0 to the task's {real.num_points} points, got {list(shots)}")
    panels = row_of_axes(len(shots)) if axes is None else list(axes)
    figure = figure_of(panels, len(shots), "number of shots")
    grid = _grid(real.x[0], along, num_points)
    for shot, ax in zip(shots, panels, strict=True):
        support = real.points(slice(shot))
        _draw_bands(ax, learner.adapt(support).predict(grid[None]), grid[:, along], output)
        if oracle is not None:
            _draw_oracle(ax, oracle.adapt(support).predict(grid[None]), grid[:, along], output)
        unknown = ~real.known[0, :, output]
        x, y = real.x[0, :, along], real.y[0, :, output].masked_fill(unknown, torch.nan)  # which is not drawn
        if real.noise is not None:
            bars = real.noise[0, :, output].sqrt().masked_fill(unknown, torch.nan)
            ax.errorbar(x, y, yerr=bars, fmt="none", ecolor=GREY, elinewidth=0.8, alpha=0.7)
        ax.plot(x[shot:], y[shot:], ".", color=GREY, markersize=4, alpha=0.7, label="not seen")
        ax.plot(x[:shot], y[:shot], "o", color="black", markersize=5, label="support")
        ax.set_title(several(shot, "shot"), fontsize=10)
        ax.set_xlabel(x_label)
    panels[0].set_ylabel(y_label)
    if axes is None:
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    return figure


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


def _grid(inputs: Tensor, along: int, num_points: int) -> Tensor:
    """Inputs `num_points D` that go a little beyond those of the task along one of them."""
    x = inputs[:, along]
    margin = 0.05 * float(x.max() - x.min()) or 1.0
    grid = inputs[:1].repeat(num_points, 1)
    grid[:, along] = torch.linspace(float(x.min()) - margin, float(x.max()) + margin, num_points, dtype=x.dtype)
    return grid


def _draw_bands(ax: "Axes", predictive: Predictive, x: Tensor, output: int) -> None:
    mean, *bands = _bands(predictive, output, (0.9, 0.5))
    for (lower, upper), alpha, label in zip(bands, (0.2, 0.35), ("90 % band", "50 % band"), strict=True):
        ax.fill_between(x, lower, upper, color=BLUE, alpha=alpha, linewidth=0, label=label)
    ax.plot(x, mean, color=BLUE, linewidth=1.8, label="mean")


def _draw_oracle(ax: "Axes", predictive: Predictive, x: Tensor, output: int) -> None:
    mean, (lower, upper) = _bands(predictive, output, (0.9,))
    ax.plot(x, mean, color=VERMILLION, linewidth=1.2, label="oracle (dashes: 90 %)")
    for line in (lower, upper):
        ax.plot(x, line, color=VERMILLION, linewidth=1.0, linestyle="--")


def _bands(predictive: Predictive, output: int, levels: tuple[float, ...]) -> tuple[Any, ...]:
    """Mean and intervals of one output of one task, as arrays."""

    def array(value: Tensor) -> np.ndarray:
        return value[0, :, output].detach().cpu().numpy()

    intervals = [tuple(array(end) for end in predictive.interval(level)) for level in levels]
    return array(predictive.mean), *intervals
