"""The picture of the home page: a seedling that was not trained on, predicted from 0, 1 and 3 of its heights.

python -m docs.tools.home_figure    # writes docs/figures/home.svg
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bayesmeta as bm
from bayesmeta.plotting.style import BLUE, GREY, ORANGE, VERMILLION
from docs.tools import svg_figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROOT = Path(__file__).parent.parent.parent
FIGURE = ROOT / "docs" / "figures" / "home.svg"
PLANT, KNOWN = "32", ((), (3,), (3, 0, 6))  # its heights that each panel knows, counted from 0
TITLES = ("nothing measured yet", "one height known", "three heights known")


def fitted() -> dict[str, Any]:
    """What the first block of the home page leaves behind: its table, tasks and learner."""
    (block, *_) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "index.md").read_text(), flags=re.M | re.S)
    scope: dict[str, Any] = {}
    exec(block, scope)
    return scope


def drawn() -> "Figure":
    """The figure: one panel for each number of heights that are known."""
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle

    scope = fitted()
    tasks: bm.TaskDataset = scope["tasks"]
    learner: bm.Learner = scope["learner"]
    train: bm.TaskDataset = scope["train"]
    heights = tasks.task(PLANT)
    assert PLANT not in train.names  # the model has never seen it
    others = [train.task(name) for name in train.names]

    settings = {"font.size": 9.5, "axes.spines.top": False, "axes.spines.right": False}
    with plt.rc_context(settings):
        figure, axes = plt.subplots(1, 3, figsize=(6.0, 2.5), sharey=True, layout="constrained")
        paper = Rectangle((0, 0), 1, 1, transform=figure.transFigure, facecolor="white", zorder=-10)
        figure.add_artist(paper)  # where the figure stands alone, on dark paper too
        for ax, known, title in zip(axes, KNOWN, TITLES, strict=True):
            panel(ax, learner, heights, others, known)
            ax.set_title(title, fontsize=9.5)
        axes[0].set_ylabel("height (cm)")
        axes[1].set_xlabel("day")
    return figure


def panel(ax: "Axes", learner: bm.Learner, heights: bm.Data, others: list[bm.Data], known: tuple[int, ...]) -> None:
    """Bands of 50 and 90 % from the known points, with all points of the plant, and the other plants behind."""
    import torch

    days = torch.linspace(0.0, 28.0, 29, dtype=torch.float64)
    grid = heights.x[0, :1].double().repeat(len(days), 1)
    grid[:, 0] = days
    prediction = learner.adapt(heights.points(list(known))).predict(grid)
    for other in others:
        ax.plot(other.x[0, :, 0].numpy(), other.y[0, :, 0].numpy(), color=GREY, alpha=0.25, linewidth=0.7)
    for level, opacity in ((0.9, 0.25), (0.5, 0.35)):
        low, high = (end.flatten().numpy() for end in prediction.interval(level))
        ax.fill_between(days.numpy(), low, high, color=BLUE, alpha=opacity, linewidth=0)
    ax.plot(days.numpy(), prediction.mean.flatten().numpy(), color=BLUE, linewidth=1.4)
    x, y = heights.x[0, :, 0].numpy(), heights.y[0, :, 0].numpy()
    hidden = [i for i in range(len(x)) if i not in known]
    ax.plot(x[hidden], y[hidden], "o", markersize=4.5, markerfacecolor="white", markeredgecolor=VERMILLION)
    ax.plot(x[list(known)], y[list(known)], "o", markersize=5, color=ORANGE, markeredgecolor=VERMILLION)
    ax.set_ylim(0, 34)
    ax.set_xticks([0, 7, 14, 21, 28])


def main() -> None:
    """Write the figure."""
    svg_figures.save(drawn(), FIGURE)
    print(f"{FIGURE.relative_to(ROOT)}: {FIGURE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
