"""Draws the figures of docs/concepts: `python -m docs.tools.concept_figures [NAME ...]`, all of them without a name.

Each function of `FIGURES` returns one figure; it is written to docs/figures/concepts/NAME.svg. A picture shows what the
page beside it computes, so that both have the same numbers.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

from docs.tools import svg_figures

FOLDER = Path(__file__).parent.parent / "figures" / "concepts"
BLUE, VERMILLION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "0.45"  # of bayesmeta.plotting
TREE_MEAN, TREE_DEVIATION, APPLE_DEVIATION = 150.0, 20.0, 30.0  # grams: theta of the orchard in concepts/one_idea.md
APPLES = (185.0, 205.0, 180.0)


def one_idea() -> Figure:
    """The hierarchical model of all methods as a plate diagram."""
    figure, ax = plt.subplots(figsize=(6.2, 2.7), layout="constrained")
    nodes = {"theta": (0.0, 0.0), "phi": (2.2, 0.0), "y": (4.4, 0.0), "x": (4.4, -1.75)}
    labels = {"theta": "θ", "phi": r"$\phi_t$", "y": r"$y_{tn}$", "x": r"$x_{tn}$"}
    for (left, bottom), (width, height), words in (
        ((1.35, -2.75), (4.3, 3.75), "tasks  t = 1 … T"),
        ((3.65, -2.4), (1.75, 3.1), "points n"),
    ):
        box = FancyBboxPatch(
            (left, bottom), width, height, boxstyle="round,pad=0,rounding_size=0.15", fill=False, edgecolor="black"
        )
        ax.add_patch(box)
        ax.text(left + 0.12, bottom + 0.12, words, fontsize=9, va="bottom")
    circles = {}
    for name, where in nodes.items():
        radius, color = {"x": (0.08, "black"), "y": (0.42, "0.85")}.get(name, (0.42, "white"))
        circles[name] = ax.add_patch(Circle(where, radius, facecolor=color, edgecolor="black", linewidth=1.4))
        beside = 0.45 if name == "x" else 0.0
        ax.text(where[0] + beside, where[1], labels[name], fontsize=14, ha="center", va="center")
    for start, end in (("theta", "phi"), ("phi", "y"), ("x", "y")):
        arrow = {"patchA": circles[start], "patchB": circles[end], "shrinkA": 0, "shrinkB": 1, "color": "black"}
        ax.add_patch(FancyArrowPatch(nodes[start], nodes[end], arrowstyle="-|>", mutation_scale=13, **arrow))
    ax.text(0.0, -0.62, "shared by\nall tasks", fontsize=9, ha="center", va="top")
    ax.text(2.2, -0.62, "of one task,\nunknown", fontsize=9, ha="center", va="top")
    ax.set(xlim=(-0.75, 5.75), ylim=(-2.85, 1.1), aspect="equal")
    ax.axis("off")
    return figure


def orchard() -> Figure:
    """What is believed of one tree, and predicted of its next apple, after none, one and three apples."""
    figure, axes = plt.subplots(1, 3, figsize=(7.0, 2.6), sharey=True, layout="constrained")
    grid = np.linspace(40.0, 280.0, 241)
    for ax, count in zip(axes, (0, 1, 3), strict=True):
        seen = np.array(APPLES[:count])
        weight = count * TREE_DEVIATION**2 / (count * TREE_DEVIATION**2 + APPLE_DEVIATION**2)
        mean = TREE_MEAN + weight * (seen.mean() - TREE_MEAN if count else 0.0)
        belief = np.sqrt(1.0 - weight) * TREE_DEVIATION
        for deviation, color, line, words in (
            (belief, BLUE, "-", "the mean of this tree"),
            (np.hypot(belief, APPLE_DEVIATION), VERMILLION, "--", "its next apple"),
        ):
            density = np.exp(-0.5 * ((grid - mean) / deviation) ** 2) / (deviation * np.sqrt(2.0 * np.pi))
            ax.plot(grid, density, color=color, linestyle=line, label=words)
        ax.plot(seen, np.zeros(count), "o", color="black", markersize=5, clip_on=False)
        ax.axvline(TREE_MEAN, color=GREY, linewidth=0.8, linestyle=":")
        ax.set(xlabel="grams", ylim=(0.0, 0.032), yticks=[], title=f"{count} apple{'' if count == 1 else 's'}")
        ax.title.set_fontsize(10)
    axes[0].set_ylabel("density")
    axes[0].legend(loc="upper left", frameon=False, fontsize=8)
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {"one_idea": one_idea, "orchard": orchard}


def main(names: list[str]) -> None:
    """Draw figures by name, or all of them."""
    for name in names or FIGURES:
        svg_figures.save(FIGURES[name](), FOLDER / f"{name}.svg")


if __name__ == "__main__":
    main(sys.argv[1:])
