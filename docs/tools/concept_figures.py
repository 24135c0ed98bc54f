"""Draws the figures of docs/concepts: `python -m docs.tools.concept_figures [NAME ...]`, all of them without a name.

Each function of `FIGURES` returns one figure; it is written to docs/figures/concepts/NAME.svg. A picture shows what the
page beside it computes, so that both have the same numbers.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch
from scipy.stats import norm

import bayesmeta as bm
from bayesmeta.inference.nuts import nuts
from bayesmeta.plotting.style import BLUE, GREY, SKY, VERMILLION, uniform_bars
from docs.tools import svg_figures

FOLDER = Path(__file__).parent.parent / "figures" / "concepts"
TREE_MEAN, TREE_DEVIATION, APPLE_DEVIATION = 150.0, 20.0, 30.0  # grams: theta of the orchard in concepts/one_idea.md
APPLES = (185.0, 205.0, 180.0)


def one_idea() -> Figure:
    """The hierarchical model of all methods as a plate diagram."""
    figure, ax = plt.subplots(figsize=(4.9, 2.9), layout="constrained")
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


def calibration_shapes() -> Figure:
    """What wrong predictions do to the histogram of PITs and to the reliability diagram."""
    figure, axes = plt.subplots(2, 4, figsize=(7.0, 3.9), sharey="row", layout="constrained")
    rng = np.random.default_rng(0)
    outcomes = rng.normal(size=4000)
    predicted = {"right": (0.0, 1.0), "too wide": (0.0, 1.7), "too narrow": (0.0, 0.6), "too low": (-0.6, 1.0)}
    for (above, below), (name, (mean, deviation)) in zip(axes.T, predicted.items(), strict=True):
        pit = norm.cdf(outcomes, mean, deviation)
        uniform_bars(above, np.histogram(pit, bins=10, range=(0.0, 1.0))[0], "outcomes")
        above.set(title=name, xticks=[0, 1], yticks=[0, 1, 2])
        above.title.set_fontsize(10)
        levels = np.linspace(0.0, 1.0, 41)
        below.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
        below.plot(levels, [np.mean(pit <= level) for level in levels], color=BLUE)
        below.set(xlabel="level", xticks=[0, 1], yticks=[0, 1], xlim=(0, 1), ylim=(0, 1))
    axes[0, 0].set_ylabel("PIT: density")
    axes[1, 0].set_ylabel("share below")
    axes[0, 0].set_ylim(0.0, 2.9)
    return figure


def calibration_by_task() -> Figure:
    """The exact posterior predictive: calibrated over tasks, and in no task by itself."""
    rng = np.random.default_rng(1)
    trees, apples, known = 400, 60, 3
    tree = rng.normal(TREE_MEAN, TREE_DEVIATION, (trees, 1))
    seen = rng.normal(tree, APPLE_DEVIATION, (trees, known)).mean(1, keepdims=True)
    weight = known * TREE_DEVIATION**2 / (known * TREE_DEVIATION**2 + APPLE_DEVIATION**2)
    spread = np.hypot(np.sqrt(1.0 - weight) * TREE_DEVIATION, APPLE_DEVIATION)
    pit = norm.cdf(rng.normal(tree, APPLE_DEVIATION, (trees, apples)), TREE_MEAN + weight * (seen - TREE_MEAN), spread)
    levels = np.linspace(0.0, 1.0, 41)
    shares = (pit[..., None] <= levels).mean(1)
    figure, ax = plt.subplots(figsize=(4.2, 3.6), layout="constrained")
    ax.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    for row in shares[:12]:
        ax.plot(levels, row, color=BLUE, linewidth=0.8, alpha=0.6, label="one task" if row is shares[0] else None)
    ax.plot(levels, shares.mean(0), color=VERMILLION, linewidth=2.0, label="mean over tasks")
    ax.plot([], [], color=BLUE, linewidth=0.8, label="a task each")
    ax.set(xlabel="level", ylabel="share of outcomes below the quantile", xlim=(0, 1), ylim=(0, 1))
    ax.legend(loc="upper left", frameon=False, fontsize=9)
    return figure


def noise() -> Figure:
    """Error bars that are known, and noise that grows along the input."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.0, 3.0), layout="constrained")
    rng = np.random.default_rng(4)
    stars = []
    for _ in range(40):
        t, yerr = rng.uniform(0.0, 2.0, 8), 10.0 ** rng.uniform(-1.0, 0.5, 8)
        stars.append((t, rng.normal(0.0, 1.0) + rng.normal(1.0, 1.0) * t + yerr * rng.normal(size=8), yerr))
    t, y, yerr = stars[0]
    grid = np.linspace(0.0, 2.0, 41)
    told = bm.TaskDataset.from_list(stars)
    untold = bm.TaskDataset.from_list([star[:2] for star in stars])
    for tasks, color, line, name in ((told, BLUE, "-", "error bars known"), (untold, VERMILLION, "--", "unknown")):
        learner = bm.ALPaCA(bm.Identity(1)).double()
        bm.fit_evidence(learner, tasks)
        curve = learner.adapt(tasks.data.select([0])).predict(grid).noiseless
        low, high = (end.detach().flatten() for end in curve.interval(0.9))
        left.plot(grid, curve.mean.detach().flatten(), color=color, linestyle=line, label=name)
        left.fill_between(grid, low, high, color=color, alpha=0.2, linewidth=0)
    left.errorbar(t, y, yerr, fmt="o", color="black", markersize=4, linewidth=1.0)
    left.set(xlabel="t", ylabel="velocity", title="error bars of one star")
    left.legend(loc="upper left", frameon=False, fontsize=8)
    tasks = bm.TaskDataset.from_list(
        [
            (x := rng.uniform(0.0, 1.0, 12), rng.normal() + 2.0 * x + 0.1 * np.exp(2.0 * x) * rng.normal(size=12))
            for _ in range(60)
        ]
    )
    grid = np.linspace(0.0, 1.0, 41)
    own = {"noise of x": bm.noise.HeteroscedasticNoise(bm.Identity(1)), "one noise": bm.noise.DiagonalNoise()}
    for (name, kind), color, line in zip(own.items(), (BLUE, VERMILLION), ("-", "--"), strict=True):
        learner = bm.ALPaCA(bm.Identity(1), noise=kind).double()
        bm.fit_evidence(learner, tasks)
        prediction = learner.adapt(tasks.data.select([0])).predict(grid)
        for end in prediction.interval(0.9):
            right.plot(grid, end.detach().flatten(), color=color, linestyle=line, label=name)
            name = None
    right.plot(tasks.data.x[0].flatten(), tasks.data.y[0].flatten(), "o", color="black", markersize=4)
    right.set(xlabel="x", ylabel="y", title="90 % intervals of one task")
    right.legend(frameon=False, fontsize=8)
    for ax in (left, right):
        ax.title.set_fontsize(10)
    return figure


def gold_standards() -> Figure:
    """A posterior that is no Gaussian, and a prediction that does not take its theta for granted."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.0, 3.0), layout="constrained")
    grid = np.linspace(-9.0, 2.0, 301)
    joint = norm.logpdf(grid, 0.0, 2.5) - 4.0 * np.exp(grid)  # no event in four days, log rate phi
    density = np.exp(joint - joint.max())
    density /= density.sum() * (grid[1] - grid[0])
    mode = grid[joint.argmax()]
    chains = nuts(
        lambda phi: -0.5 * (phi["rate"] / 2.5).square() - 4.0 * phi["rate"].exp(),
        {"rate": torch.zeros(16, 1, dtype=torch.float64)},
        num_draws=150,
        num_warmup=50,
        generator=torch.Generator().manual_seed(0),
    )
    draws = chains.merged["rate"].flatten()
    left.hist(draws, bins=40, range=(-9.0, 2.0), density=True, color=SKY, edgecolor="white", label="draws by NUTS")
    left.plot(grid, density, color="black", label="exact")
    laplace = norm.pdf(grid, mode, (1.0 / 2.5**2 + 4.0 * np.exp(mode)) ** -0.5)
    left.plot(grid, laplace, color=VERMILLION, linestyle="--", label="Laplace")
    left.set(xlabel="log rate of the task", yticks=[], title="no event in four days", ylim=(0.0, 0.5))
    rng = np.random.default_rng(3)
    rows = rng.normal(rng.normal(TREE_MEAN, TREE_DEVIATION, (5, 1)), APPLE_DEVIATION, (5, 4))
    trees = bm.TaskDataset.from_list([(np.zeros(4), row) for row in rows])
    learner = bm.Standardized(bm.ALPaCA(bm.Polynomial(1, 0))).double()
    averaged = bm.training.average(learner, trees, num_members=400, seed=0, sampler=None).learner
    nothing = bm.Data.empty(trees.data.select([0]))
    weights = np.linspace(40.0, 280.0, 121)
    for model, color, line, name in (
        (learner, VERMILLION, "--", "the best theta"),
        (averaged, BLUE, "-", "averaged over theta"),
    ):
        prediction = model.adapt(nothing).predict([0.0])
        each = [prediction.log_prob(torch.full((1, 1, 1), w, dtype=torch.float64)).exp().item() for w in weights]
        right.plot(weights, each, color=color, linestyle=line, label=name)
    right.plot(
        weights,
        norm.pdf(weights, TREE_MEAN, np.hypot(TREE_DEVIATION, APPLE_DEVIATION)),
        color="black",
        label="the truth",
    )
    right.set(xlabel="grams", yticks=[], title="an apple of a sixth tree", ylim=(0.0, 0.0165))
    for ax in (left, right):
        ax.title.set_fontsize(10)
        ax.legend(frameon=False, fontsize=8)
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {
    "one_idea": one_idea,
    "orchard": orchard,
    "calibration_shapes": calibration_shapes,
    "calibration_by_task": calibration_by_task,
    "noise": noise,
    "gold_standards": gold_standards,
}


def main(names: list[str]) -> None:
    """Draw figures by name, or all of them."""
    for name in names or FIGURES:
        svg_figures.save(FIGURES[name](), FOLDER / f"{name}.svg")


if __name__ == "__main__":
    main(sys.argv[1:])
