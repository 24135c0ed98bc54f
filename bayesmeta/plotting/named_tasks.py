"""What a learner predicts of one task of a table as its rows become known, in the names and categories of the table."""

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bayesmeta.arguments import probability, shot_counts, whole
from bayesmeta.data import Data
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.frames import require_kind_of
from bayesmeta.learner import Learner
from bayesmeta.one_line import several
from bayesmeta.plotting.axis import Axis, axis_of
from bayesmeta.plotting.style import BLUE, CYCLE, GREY, figure_of, plain_label, table_of_axes
from bayesmeta.predictives import Predictive
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.table import Schema

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_CLASSES = len(CYCLE) - 1  # that have a colour of their own; the others are added up


def task_panels(
    learner: Learner,
    tasks: TaskDataset,
    name: Hashable,
    shots: Sequence[int] = (0, 1, 3),
    *,
    along: str | None = None,
    level: float = 0.9,
    noiseless: bool = False,
    num_points: int = 101,
    axes: "Sequence[Axes] | None" = None,
) -> "Figure":
    """Draw what a learner predicts of one task of a table, from none of its rows, the first one, the first three.

    There is a column of panels for each number of known rows, and a row of them for each outcome. Numbers have their
    mean and the central interval of `level`, and where they are curves the one of 50 %, too; classes have a line of
    their probability each, and their points are a row of marks above. Points are those of the task: black where they
    are known, grey where they are not; their bars are one deviation of the noise that is known of a row (`yerr`), which
    the intervals leave out.

    One input is on the axis: `along`, or the first that varies within the task, or, where none does, the first that is
    a number. The other inputs have the task's own values, which the figure says. Where one of these varies, too,
    there is no curve, and every row of the task has an interval, at its own inputs. Categories have their places.

    Args:
        learner: adapted to the first rows of the task.
        tasks: of a table (`TaskDataset.from_frame`), for the names of its columns.
        name: of the task.
        shots: numbers of known rows, the first ones of the task in the order of the table.
        along: the column on the axis.
        level: probability of the intervals.
        noiseless: whether intervals are those of the curve itself, without observation noise.
        num_points: points at which curves are computed.
        axes: one for each panel, row by row; by default a new figure.

    Returns:
        The figure; it is not shown.

    Raises:
        DataError: an unknown task or column, more shots than the task has rows, no shots, a level outside (0, 1),
            tasks that are no table, or a learner of other outcomes.
        UnsupportedError: the noise of classes or of this learner cannot be left out.
        ShapeError: another number of axes than of panels.

    Example:
        >>> import pandas as pd
        >>> import bayesmeta as bm
        >>> from matplotlib.figure import Figure
        >>> frame = pd.DataFrame({"cell": ["07"] * 4 + ["12"] * 3, "day": [0, 1, 2, 3, 0, 1, 2], "volt": [4.0] * 7})
        >>> tasks = bm.TaskDataset.from_frame(frame, task="cell", x=["day"], y=["volt"])
        >>> panels = list(Figure(figsize=(6, 3)).subplots(1, 2))
        >>> figure = bm.plotting.task_panels(bm.ALPaCA(bm.Identity(1)), tasks, "07", shots=[0, 3], axes=panels)
        >>> [(ax.get_title(), ax.get_xlabel()) for ax in figure.axes]
        [('no row known', 'day'), ('3 rows known', 'day')]
    """
    schema = _schema_of(tasks)
    require_kind_of(learner, schema)
    level, shots, num_points = probability(level, "a level"), shot_counts(shots), whole(num_points, "num_points", 2)
    if noiseless and schema.classes:
        raise UnsupportedError("expected outcomes that are numbers for noiseless intervals, got classes")
    task = tasks.task(name)
    if max(shots) > task.num_points:
        raise DataError(
            f"expected numbers of known rows from 0 to the {task.num_points} of task {name!r}, got {list(shots)}"
        )
    axis = axis_of(task.x[0], schema, along, tasks.flat.x, num_points)
    outcomes = [schema.y[0]] if schema.classes else list(schema.y)
    panels = table_of_axes(len(outcomes), len(shots)) if axes is None else list(axes)
    figure = figure_of(panels, len(outcomes) * len(shots), "outcome and number of known rows")
    found = [learner.adapt(task.points(slice(shot))).predict(axis.inputs[None]) for shot in shots]
    classes = _shown_classes(task, found, schema) if schema.classes else []
    for i, (shot, predictive) in enumerate(zip(shots, found, strict=True)):
        column = panels[i :: len(shots)]
        column[0].set_title(f"{several(shot, 'row')} known" if shot else "no row known", fontsize=10)
        for output, ax in enumerate(column):
            if schema.classes:
                _draw_classes(ax, axis, predictive, classes, schema)
                _draw_labels(ax, axis, task, shot, classes)
            else:
                _draw_numbers(ax, axis, predictive.noiseless if noiseless else predictive, output, level)
                _draw_points(ax, axis, task, shot, output)
            _dress(ax, axis)
        column[-1].set_xlabel(plain_label(axis.label))
    for row, outcome in enumerate(outcomes):
        panels[row * len(shots)].set_ylabel(plain_label(f"P({outcome})" if schema.classes else outcome))
    if axes is None:
        figure.suptitle(plain_label(f"{schema.task} {name}", 60), fontsize=11)
        handles, labels = panels[0].get_legend_handles_labels()
        more = panels[len(shots) - 1].get_legend_handles_labels()
        new = [i for i, label in enumerate(more[1]) if label not in labels]  # no row is known in the first panel
        handles, labels = [*handles, *(more[0][i] for i in new)], [*labels, *(more[1][i] for i in new)]
        title = plain_label(axis.note, 110) or None
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=min(len(labels), 5),
            frameon=False,
            fontsize=9,
            title=title,
            title_fontsize=9,
        )
    return figure


def axis_note(tasks: TaskDataset, name: Hashable, along: str | None = None) -> str:
    """Which input `task_panels` puts on its axis, and which values the others have, in words.

    Args:
        tasks: of a table.
        name: of the task.
        along: the column on the axis; by default as `task_panels` chooses it.

    Raises:
        DataError: an unknown task or column, or tasks that are no table.

    Example:
        >>> import pandas as pd
        >>> import bayesmeta as bm
        >>> frame = pd.DataFrame({"cell": ["07"] * 2, "day": [0, 1], "site": ["n", "n"], "volt": [4.1, 4.0]})
        >>> tasks = bm.TaskDataset.from_frame(frame, task="cell", x=["day"], y=["volt"], covariates=["site"])
        >>> bm.plotting.axis_note(tasks, "07")
        'along day; the other inputs as in the task: site = n'
    """
    axis = axis_of(tasks.task(name).x[0], _schema_of(tasks), along, tasks.flat.x)
    return f"along {axis.label}" + (f"; {axis.note}" if axis.note else "")


def _schema_of(tasks: TaskDataset) -> Schema:
    if tasks.schema is None:
        raise DataError("expected tasks of a table (TaskDataset.from_frame), got tasks without a schema")
    return tasks.schema


def _draw_numbers(ax: "Axes", axis: Axis, predictive: Predictive, output: int, level: float) -> None:
    mean, lower, upper = (_array(end[0, :, output]) for end in (predictive.mean, *predictive.interval(level)))
    label = f"{100 * level:g} % interval"
    if not axis.is_curve:
        width = min(max(100.0 / len(mean), 0.8), 4.0)  # many rows are thin, so that each is seen
        ax.vlines(axis.places, lower, upper, color=BLUE, alpha=0.4, linewidth=width, label=label)
        ax.plot(axis.places, mean, "_", color=BLUE, markersize=5.0 + width, markeredgewidth=width / 3.0, label="mean")
        return
    ax.fill_between(axis.places, lower, upper, color=BLUE, alpha=0.2, linewidth=0, label=label)
    if level > 0.5:
        low, high = (_array(end[0, :, output]) for end in predictive.interval(0.5))
        ax.fill_between(axis.places, low, high, color=BLUE, alpha=0.35, linewidth=0, label="50 % interval")
    ax.plot(axis.places, mean, color=BLUE, linewidth=1.8, label="mean")


def _draw_points(ax: "Axes", axis: Axis, task: Data, shot: int, output: int) -> None:
    measured = task.known[0, :, output]
    y = _array(task.y[0, :, output].masked_fill(~measured, torch.nan))  # which is not drawn
    if task.noise is not None:
        bars = _array(task.noise[0, :, output].sqrt().masked_fill(~measured, torch.nan))
        ax.errorbar(axis.rows, y, yerr=bars, fmt="none", ecolor=GREY, elinewidth=0.8, alpha=0.7)
    if shot < len(y):
        ax.plot(axis.rows[shot:], y[shot:], ".", color=GREY, markersize=5, label="not known")
    if shot:
        ax.plot(axis.rows[:shot], y[:shot], "o", color="black", markersize=5, label="known")


def _shown_classes(task: Data, found: Sequence[Predictive], schema: Schema) -> list[int]:
    """The classes that have a line of their own, in their order: those of the task, then the most probable ones."""
    count = len(schema.classes)
    if count <= MOST_CLASSES + 1:
        return list(range(count))
    often = torch.bincount(task.y[0], minlength=count) > 0
    weight = torch.stack([predictive.probs[0].mean(0).cpu() for predictive in found]).sum(0) + 1e3 * often
    return sorted(weight.argsort(descending=True)[:MOST_CLASSES].tolist())


def _draw_classes(ax: "Axes", axis: Axis, predictive: Predictive, classes: Sequence[int], schema: Schema) -> None:
    probs = _array(predictive.probs[0])
    lines = [(plain_label(schema.classes[c]), probs[:, c], CYCLE[i]) for i, c in enumerate(classes)]
    if len(classes) < len(schema.classes):
        rest = 1.0 - probs[:, list(classes)].sum(1)
        lines.append((f"{len(schema.classes) - len(classes)} other classes", rest, GREY))
    for label, values, color in lines:
        if axis.is_curve:
            ax.plot(axis.places, values, color=color, linewidth=1.8, label=label)
        else:
            ax.plot(axis.places, values, "_", color=color, markersize=9, markeredgewidth=2.5, label=label)
    ax.set_ylim(-0.03, 1.12)
    ax.set_yticks(np.linspace(0.0, 1.0, 6))


def _draw_labels(ax: "Axes", axis: Axis, task: Data, shot: int, classes: Sequence[int]) -> None:
    """Marks above the probabilities in the colours of the classes: full and ringed where a row is known."""
    colors = [CYCLE[classes.index(c)] if c in classes else GREY for c in task.y[0].tolist()]
    height = np.full(len(colors), 1.06)
    ax.scatter(axis.rows[shot:], height[shot:], s=12, c=colors[shot:], alpha=0.6)
    ax.scatter(axis.rows[:shot], height[:shot], s=36, c=colors[:shot], edgecolors="black")


def _dress(ax: "Axes", axis: Axis) -> None:
    if axis.ticks is not None:
        ax.set_xticks(range(len(axis.ticks)), [plain_label(tick, 14) for tick in axis.ticks])
        ax.set_xlim(-0.5, len(axis.ticks) - 0.5)


def _array(value: Tensor) -> np.ndarray:
    return value.detach().cpu().numpy()
