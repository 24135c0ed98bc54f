"""The figures of a report, each with what it shows in words."""

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bayesmeta import plotting
from bayesmeta.data import Data
from bayesmeta.evaluation import metrics
from bayesmeta.evaluation.scores import Evaluation, ShotScores
from bayesmeta.learner import Learner
from bayesmeta.one_line import several
from bayesmeta.plotting.style import GREY
from bayesmeta.reporting import inline_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


LONGEST = 30  # letters of a label; captions have all of them


@dataclass(frozen=True)
class Panel:
    """One figure.

    Attributes:
        name: of its file, without an ending.
        figure: matplotlib's.
        alt: what it shows, for those who cannot see it.
        caption: what to call it.
    """

    name: str
    figure: "Figure"
    alt: str
    caption: str

    def png(self) -> bytes:
        """The figure as a file."""
        return self._saved("png", {})

    def inline(self) -> str:
        """The figure as a part of a page. The same figure gives the same text."""
        return inline_svg.inline(self._saved("svg", {"Date": None}), self.name, self.alt)

    def _saved(self, kind: str, metadata: dict[str, Any]) -> bytes:
        import matplotlib as mpl

        buffer = io.BytesIO()
        settings: dict[Any, Any] = {"svg.hashsalt": "bayesmeta", "svg.fonttype": "none"}
        with mpl.rc_context(settings), _any_letters():
            self.figure.savefig(buffer, format=kind, dpi=160, metadata=metadata)
        return buffer.getvalue()


def score_panel(
    evaluation: Evaluation, score: str, name: str, unit: str, file: str, baselines: Mapping[str, Evaluation]
) -> Panel:
    """One score against the number of shots, with those of baselines."""
    figure, ax = _one(4.2, 3.0)
    plotting.score_by_shots(evaluation, score, ax=ax)
    alt, caption = f"{name} by number of shots: {_values(evaluation, score)}.", f"{name} by shots"
    low, high = ax.get_ylim()
    for (what, other), style in zip(baselines.items(), ("--", ":", "-."), strict=False):
        table = other.table().query("tasks > 0").sort_index()
        ax.plot(np.arange(len(table)), table[score], linestyle=style, color=GREY, linewidth=1.4, label=what)
        alt += f" Of {what}: {_values(other, score)}."
        finite = table[score][np.isfinite(table[score])]
        low, high = min([low, *finite]), max([high, *finite])
    if baselines:
        ax.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
        ax.legend(frameon=False, fontsize=8)
    ax.set_ylabel(plain(f"{name}, {unit}" if unit else name))
    return Panel(file, figure, alt, f"{caption}, with 95 % intervals over tasks.")


def _values(evaluation: Evaluation, score: str) -> str:
    table = evaluation.table().query("tasks > 0").sort_index()
    return ", ".join(f"{value:.3g} at {shots}" for shots, value in table[score].items())


def reliability_panel(evaluation: Evaluation, result: ShotScores, end: str) -> Panel:
    """Reliability at one number of shots."""
    figure, ax = _one(3.5, 3.5)
    plotting.reliability_diagram(evaluation, shots=[result.shots], ax=ax)
    if result.pit is not None:
        observed = metrics.calibration_curve(torch.from_numpy(result.pit)[None]).numpy()[0]
        worst = int(np.abs(observed - metrics.LEVELS).argmax())
        what = (
            f"observed against predicted probability; the largest distance from the diagonal is at "
            f"{metrics.LEVELS[worst]:.2f}, where the observed share is {observed[worst]:.2f}"
        )
    else:
        ece = result.calibration()["ece"]
        what = f"share of right answers against confidence; the expected calibration error is {ece:.3f}"
    at = several(result.shots, "shot")
    return Panel(
        f"reliability-{result.shots}{end}", figure, f"Reliability diagram at {at}: {what}.", f"Reliability at {at}."
    )


def pit_panel(evaluation: Evaluation, result: ShotScores, end: str) -> Panel:
    """Histogram of F(y) at one number of shots."""
    assert result.pit is not None
    figure, ax = _one(3.5, 2.5)
    plotting.pit_histogram(evaluation, shots=result.shots, ax=ax)
    ax.legend(frameon=False, fontsize=8, loc="upper right", ncols=2)
    values = result.pit.ravel()
    heights = np.histogram(values, bins=10, range=(0.0, 1.0))[0] / values.size * 10.0
    shown = ", ".join(f"{height:.2f}" for height in heights)
    at = several(result.shots, "shot")
    alt = f"Histogram of F(y) at {at}; one is uniform. Heights of the ten bars from left to right: {shown}."
    return Panel(f"pit-{result.shots}{end}", figure, alt, f"PIT histogram at {at}.")


def width_panel(evaluation: Evaluation, spread: float | None, unit: str, end: str) -> Panel:
    """Widths of the intervals, task by task."""
    figure, ax = _one(4.2, 3.0)
    plotting.width_by_shots(evaluation, spread=spread, ax=ax)
    ax.set_ylabel(plain(f"width, {unit}"))
    table = evaluation.table().query("tasks > 0").sort_index()
    means = ", ".join(f"{value:.3g} at {shots}" for shots, value in table["width"].items())
    alt = (
        f"Width ({unit}) of the {100 * evaluation.level:g} % intervals of each task by number of shots. Means: {means}."
    )
    if spread is not None:
        alt += f" The range of all outcomes is {spread:.3g} wide."
    caption = f"Width of the {100 * evaluation.level:g} % intervals, task by task. Dashed: the range of all outcomes."
    return Panel(f"width{end}", figure, alt, caption)


def band_panels(
    learner: Learner, task: Data, shots: Sequence[int], along: int, output: int, labels: tuple[str, str], name: str
) -> list[Panel]:
    """Predictive bands of one task, one panel for each number of shots, on the same axes."""
    drawn = [_one(3.2, 2.6) for _ in shots]
    axes = [ax for _, ax in drawn]
    for shot, ax in zip(shots, axes, strict=True):
        plotting.predictive_bands(
            learner,
            task,
            (shot,),
            along=along,
            output=output,
            x_label=plain(labels[0]),
            y_label=plain(labels[1]),
            axes=[ax],
        )
    low, high = (end(ax.get_ylim()[i] for ax in axes) for i, end in enumerate((min, max)))
    panels = []
    for shot, (figure, ax) in zip(shots, drawn, strict=True):
        ax.set_ylim(low, high)
        inside, total = _inside(learner, task, shot, output)
        alt = (
            f"Prediction of {labels[1]} along {labels[0]} after {several(shot, 'shot')}: "
            f"the 90 % band holds {inside} of the {total} points that were not seen."
        )
        caption = f"{several(shot, 'shot')}: {inside} of {total} points not seen are in the 90 % band."
        panels.append(Panel(f"{name}-{shot}", figure, alt, caption))
    return panels


def interval_panels(
    learner: Learner, task: Data, shots: Sequence[int], level: float, output: int, y_label: str, name: str
) -> list[Panel]:
    """Where several inputs vary: the points not seen in the order of their outcomes, with their intervals."""
    panels = []
    for shot in shots:
        figure, ax = _one(3.2, 2.6)
        rest, mean, lower, upper = _predicted(learner, task, shot, level, output)
        order = rest.argsort()
        place = np.arange(len(order))
        ax.vlines(place, lower[order], upper[order], color="#0072B2", alpha=0.4, linewidth=3.0)
        ax.plot(place, mean[order], "_", color="#0072B2", markersize=8)
        ax.plot(place, rest[order], ".", color="black", markersize=5)
        ax.set_xlabel("points not seen, by outcome")
        ax.set_ylabel(plain(y_label))
        inside, total = int(((lower <= rest) & (rest <= upper)).sum()), len(rest)
        alt = (
            f"Predictions of {y_label} after {several(shot, 'shot')}: "
            f"the {100 * level:g} % intervals hold {inside} of the {total} outcomes that were not seen."
        )
        caption = (
            f"{several(shot, 'shot')}: {inside} of {total} outcomes not seen are in their {100 * level:g} % intervals."
        )
        panels.append(Panel(f"{name}-{shot}", figure, alt, caption))
    return panels


def plain(text: str) -> str:
    """A label that matplotlib does not take for mathematics, of a length that an axis has room for."""
    short = text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
    return "".join(c if c.isprintable() else " " for c in short).replace("$", r"\$")


def _predicted(learner: Learner, task: Data, shot: int, level: float, output: int) -> tuple[np.ndarray, ...]:
    """Of the points after the first `shot` that have the outcome: outcome, mean, lower and upper end."""
    real = task.points(task.mask[0])
    support, rest = real.points(slice(shot)), real.points(slice(shot, None))
    rest = learner.conform(rest.points(rest.known[0, :, output]))
    predictive = learner.adapt(support).predictive_of(rest)
    values = (rest.y, predictive.mean, *predictive.interval(level))
    return tuple(value[0, :, output].detach().cpu().numpy() for value in values)


def _inside(learner: Learner, task: Data, shot: int, output: int) -> tuple[int, int]:
    rest, _, lower, upper = _predicted(learner, task, shot, 0.9, output)
    return int(((lower <= rest) & (rest <= upper)).sum()), len(rest)


def _one(width: float, height: float) -> "tuple[Figure, Axes]":
    """A figure that pyplot does not know of, so that nobody has to close it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


@contextmanager
def _any_letters() -> Iterator[None]:
    """Names of columns may be in letters that matplotlib's font lacks; the page has them in the reader's own font."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield
