"""What the figures share: colours, new axes, and histograms with the band that uniform values stay in."""

from typing import TYPE_CHECKING

import numpy as np

from bayesmeta.errors import ShapeError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito (2008): told apart with every common colour vision
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
CYCLE = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY)
MARKERS = ("o", "s", "^", "D", "v", "P")
GREY = "0.45"
LONGEST = 30  # letters of a label


def plain_label(text: str, longest: int = LONGEST) -> str:
    r"""A label that matplotlib does not take for mathematics, of a length that an axis has room for.

    Example:
        >>> print(plain_label("price ($)"), plain_label("a" * 40, 8))
        price (\$) aaaaaaa…
    """
    short = text if len(text) <= longest else f"{text[: longest - 1]}…"
    return "".join(c if c.isprintable() else " " for c in short).replace("$", r"\$")


def uniform_band(count: int, bins: int) -> tuple[float, float]:
    """Ends of the central 95 % of a bar's height if `count` values are uniform: Binomial(count, 1/bins), as a density.

    Example:
        >>> low, high = uniform_band(1000, 10)
        >>> round(low, 2), round(high, 2)
        (0.82, 1.19)
    """
    from scipy.stats import binom

    low, high = binom.interval(0.95, count, 1.0 / bins)
    return float(low) / count * bins, float(high) / count * bins


def uniform_bars(ax: "Axes", counts: np.ndarray, label: str) -> float:
    """Draw bars of equal width from 0 to 1 as a density, with the 95 % band of uniform values behind them.

    Args:
        ax: where to draw.
        counts: how many values each bar holds.
        label: of the bars, in a legend.

    Returns:
        The height of the highest bar or of the band, whichever is higher.
    """
    total, bins = int(counts.sum()), len(counts)
    low, high = uniform_band(total, bins)
    heights = counts / total * bins
    ax.bar(np.arange(bins) / bins, heights, width=1.0 / bins, align="edge", color=SKY, edgecolor="white", label=label)
    ax.axhspan(low, high, color=GREY, alpha=0.3, linewidth=0, label="95 % band if uniform")
    ax.axhline(1.0, color="black", linewidth=1.0, linestyle="--")
    ax.set_xlim(0, 1)
    return max(float(heights.max()), high)


def figure_of(panels: "list[Axes]", count: int, what: str) -> "Figure":
    """The figure that the panels are on.

    Raises:
        ShapeError: there are not `count` panels, one for each of `what`.
    """
    if len(panels) != count:
        raise ShapeError(f"expected {count} axes, one for each {what}, got {len(panels)}")
    figure = panels[0].get_figure(root=True)
    assert figure is not None  # axes that are drawn on belong to a figure
    return figure


def row_of_axes(panels: int) -> "list[Axes]":
    """A new figure with so many panels side by side, which share their y axis."""
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(
        1, panels, figsize=(2.6 * panels + 0.6, 3.1), sharey=True, squeeze=False, layout="constrained"
    )
    return list(axes[0])


def grid_of_axes(panels: int) -> "list[Axes]":
    """A new figure with so many panels, up to three in a row, which share their x axis."""
    import matplotlib.pyplot as plt

    columns = min(panels, 3)
    rows = -(-panels // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(2.6 * columns + 0.6, 2.2 * rows + 0.4), sharex=True, squeeze=False, layout="constrained"
    )
    for ax in axes.flat[panels:]:
        figure.delaxes(ax)
    return list(axes.flat[:panels])


def table_of_axes(rows: int, columns: int) -> "list[Axes]":
    """A new figure with rows of panels that share their y axis, and columns that share their x axis, row by row."""
    import matplotlib.pyplot as plt

    size = (2.6 * columns + 0.6, 2.4 * rows + 1.1)
    _, axes = plt.subplots(rows, columns, figsize=size, sharex=True, sharey="row", squeeze=False, layout="constrained")
    return list(axes.flat)


def square_axes() -> "Axes":
    """The axes of a new figure that is as high as it is wide."""
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(4.2, 4.2), layout="constrained")[1]


def wide_axes() -> "Axes":
    """The axes of a new figure that is wider than it is high."""
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(5.0, 3.2), layout="constrained")[1]
