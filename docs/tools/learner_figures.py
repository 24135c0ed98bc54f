"""What each method looks like: a small one, trained for some seconds, drawn beside what is exact.

python -m docs.tools.learner_figures alpaca r2d2     # docs/figures/methods/alpaca.svg and r2d2.svg
python -m docs.tools.learner_figures                 # all

A row of `FIGURES` is a figure: how the learner is made and trained, and what is drawn of it. Learners of numbers are
drawn as bands around a function as points of it are seen, learners of classes as maps of the plane. Nothing is random
but by seeds, and one thread computes it, so that a figure is the same on the same machine.
"""

import argparse
import re
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import bayesmeta as bm
from bayesmeta.plotting.style import BLUE, GREEN, ORANGE
from bayesmeta.tasks.source import TaskSource
from docs.tools import svg_figures
from docs.tools.the_field import DOCS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FOLDER = DOCS / "figures" / "methods"
WAVES = bm.tasks.Sinusoid.maml(noise=0.1)
SMOOTH = bm.tasks.GPFunctions.eq()
BLOBS = bm.tasks.GaussianBlobs(ways=3, dimension=2, spread=2.0, noise=0.8)
COLOURS = (BLUE, ORANGE, GREEN)
SHOTS = (0, 1, 3, 5)
FEW = bm.tasks.RandomSplit((0, 10), 15)
EXAMPLES = bm.tasks.ClassSplit((1, 10), 10)


def fitted(learner: bm.Learner, tasks: TaskSource, steps: int, **arguments: object) -> bm.Learner:
    """The learner, trained: on supports of few points unless a split says otherwise."""
    settings = {"split": FEW, "lr": 3e-3, "progress": False} | arguments
    bm.fit(learner, tasks, steps, **settings)  # type: ignore[arg-type]
    return learner


def classifying(learner: bm.Learner, steps: int, **arguments: object) -> bm.Learner:
    """The learner, trained on blobs."""
    return fitted(learner, BLOBS, steps, **{"split": EXAMPLES} | arguments)


def mlp(*sizes: int, inputs: int = 1) -> bm.MLP:
    """The network that most figures have."""
    return bm.MLP(inputs, list(sizes or (40, 40)))


def bands(learner: bm.Learner, simulator: bm.tasks.Simulator, seed: int = 3, limit: float = 6.0) -> "Figure":
    """A function at 0, 1, 3 and 5 points, beside the exact Bayes predictive where there is one."""
    task = simulator.dataset(1, 25, seed=seed).task(0)
    return band_panels(learner, task, oracle=getattr(simulator, "oracle", None), limit=limit)


def band_panels(
    learner: bm.Learner,
    task: bm.Data,
    shots: Sequence[int] = SHOTS,
    *,
    oracle: bm.Learner | None = None,
    limit: float | None = None,
    x_label: str = "x",
    y_label: str = "y",
) -> "Figure":
    """Panels two by two, with one legend."""
    panels = grid(2, 2, (6.0, 4.6))
    figure = bm.plotting.predictive_bands(
        learner, task, shots, oracle=oracle, num_points=61, axes=panels, x_label=x_label, y_label=y_label
    )
    for number, ax in enumerate(panels):
        ax.set_xlabel(x_label if number > 1 else "")
        ax.set_ylabel(y_label if number % 2 == 0 else "")
        if limit is not None:
            ax.set_ylim(-limit, limit)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def maps(learner: bm.Learner, seed: int = 5) -> "Figure":
    """The plane after one and five examples of each of three classes, beside the Bayes classifier."""
    task = BLOBS.episodes(1, per_class=5, seed=seed).task(0)
    panels = grid(2, 2, (6.0, 5.4))
    order = [label * 5 + shot for shot in range(5) for label in range(3)]
    points = bm.Data.full(task.x[:, order], task.y[:, order])
    for column, shots in enumerate((1, 5)):
        support = points.points(slice(3 * shots))
        for row, (who, name) in enumerate(((learner, type(learner).__name__), (BLOBS.oracle, "Bayes classifier"))):
            ax = panels[2 * row + column]
            draw_map(ax, who, support)
            ax.set_title(f"{name}, {shots} {'example' if shots == 1 else 'examples'} a class", fontsize=9)
    return panels[0].figure  # type: ignore[return-value]


def draw_map(ax: "Axes", learner: bm.Learner, support: bm.Data, reach: float = 5.0) -> None:
    """Where each class has more than half, 80 % and 95 % of the probability, and the examples."""
    along = torch.linspace(-reach, reach, 41)
    places = torch.cartesian_prod(along, along)
    shares = learner.adapt(support).predict(places[None]).probs[0].detach().numpy()  # type: ignore[attr-defined]
    for label, colour in enumerate(COLOURS):
        share = shares[:, label].reshape(41, 41).T
        for level in (0.5, 0.8, 0.95):  # darker where it is surer
            if share.max() > level:
                ax.contourf(along, along, share, levels=[level, 1.001], colors=[colour], alpha=0.28)
        here = support.x[0, support.y[0] == label]
        ax.plot(here[:, 0], here[:, 1], "o", color=colour, markeredgecolor="black", markersize=6)
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach), xticks=[-4, 0, 4], yticks=[-4, 0, 4], aspect="equal")


def grid(rows: int, columns: int, size: tuple[float, float], share: bool = True) -> "list[Axes]":
    """Panels of a new figure, row by row."""
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(rows, columns, figsize=size, sharex=share, sharey=share, squeeze=False, layout="constrained")
    return list(axes.flat)


@dataclass(frozen=True)
class Row:
    """A figure.

    Attributes:
        make: the learner, trained.
        draw: the figure of it.
    """

    make: Callable[[], bm.Learner]
    draw: Callable[[bm.Learner], "Figure"]


def waves(make: Callable[[], bm.Learner], steps: int, **arguments: object) -> Row:
    """Of a learner that is trained on sinusoids."""
    return Row(lambda: fitted(make(), WAVES, steps, **arguments), lambda learner: bands(learner, WAVES))


def smooth(make: Callable[[], bm.Learner], steps: int, **arguments: object) -> Row:
    """Of a learner that is trained on draws of a Gaussian process."""
    return Row(
        lambda: fitted(make(), SMOOTH, steps, **arguments), lambda learner: bands(learner, SMOOTH, seed=1, limit=3.5)
    )


def blobs(make: Callable[[], bm.Learner], steps: int, **arguments: object) -> Row:
    """Of a learner that is trained on three classes in the plane."""
    return Row(lambda: classifying(make(), steps, **arguments), maps)


EVIDENCE = bm.training.Evidence()
FIGURES: dict[str, Row] = {
    # solved exactly
    "alpaca": waves(lambda: bm.ALPaCA(mlp(64, 64)), 1500, objective=EVIDENCE),
    "r2d2_regressor": waves(lambda: bm.R2D2Regressor(mlp(64, 64)), 1500),
    "r2d2": blobs(lambda: bm.R2D2(mlp(inputs=2), num_classes=3), 500),
    "lrd2": blobs(lambda: bm.LRD2(mlp(inputs=2), num_classes=3), 300),
    "metaoptnet": blobs(lambda: bm.MetaOptNet(mlp(inputs=2), num_classes=3), 200),
}


def round_coordinates(path: Path) -> None:
    """Lines of a file with one decimal of a point, which is less than can be seen."""

    def short(line: re.Match[str]) -> str:
        return re.sub(r"-?\d+\.\d{2,}", lambda number: f"{float(number[0]):.1f}", line[0])

    path.write_text(re.sub(r' d="[^"]*"', short, path.read_text()))


def write(name: str) -> float:
    """Train, draw and write one figure; the seconds that it took."""
    torch.manual_seed(0)
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bm.ConvergenceWarning)  # trainings are short
        figure = FIGURES[name].draw(FIGURES[name].make())
    svg_figures.save(figure, FOLDER / f"{name}.svg")
    round_coordinates(FOLDER / f"{name}.svg")
    return time.process_time() - start


def main() -> None:
    """Write the figures that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *FIGURES], help="of figures; by default all")
    names = parser.parse_args().names or list(FIGURES)
    torch.set_num_threads(1)
    for name in names:
        print(f"{name}: {write(name):.0f} s, {(FOLDER / f'{name}.svg').stat().st_size / 1024:.0f} KB", flush=True)


if __name__ == "__main__":
    main()
