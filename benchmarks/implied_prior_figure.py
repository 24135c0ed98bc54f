"""The prior that k steps of gradient ascent imply: docs/figures/implied_prior.svg, and a check of what it shows.

A small MAML is meta-trained on sinusoids with 5 steps. Above: the prior over functions of its linearisation, for the
inputs of one support of five points and for 1, 5 and 25 steps at one rate. Meta-training makes the direction that a
support sees best nearly forget theta (a l close to 1, or beyond), and a prior that is flat is no picture; so the rate
is lowered until the largest a l is 0.15, and the verdict says what it was. Below: prior and posterior variance of a
direction against a l.

The check: on the linearised network, with random outcomes, the steps must end at the MAP under the prior that is drawn.
"""

from pathlib import Path

import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from torch import Tensor

import bayesmeta as bm
from bayesmeta.inference.laplace import EarlyStopping
from bayesmeta.plotting.style import BLUE, GREEN, GREY, VERMILLION
from benchmarks._report import verdict
from docs.tools import svg_figures

SEED = 0
STEPS = (1, 5, 25)
LARGEST = 0.15  # a l of the direction that the support sees best, in the upper row
DRAWS = 5
INPUTS = (-4.0, -2.5, -1.0, 0.5, 3.0)
FILE = Path(__file__).parent.parent / "docs" / "figures" / "implied_prior.svg"
COLORS = dict(zip(STEPS, (GREEN, BLUE, VERMILLION), strict=True))
LINES = dict(zip(STEPS, ("-", "--", "-."), strict=True))


def trained() -> bm.MAML:
    torch.manual_seed(SEED)
    learner = bm.MAML(bm.MLP(1, [20, 20]), steps=5, lr=0.003)
    learner.rate.requires_grad_(False)
    bm.fit(learner, bm.tasks.Sinusoid.maml(noise=0.1), 500, lr=1e-2, split=bm.tasks.RandomSplit((5, 5), 10), seed=SEED)
    return learner.double()


def disagreement(learner: bm.MAML, support: bm.Data, prior: bm.inference.ImpliedPrior) -> float:
    """The largest difference between the steps and the MAP, over the largest change that the steps make."""
    rows = learner.jacobian(learner.start(1), support.x).dense()[0, :, 0]  # N P
    noise = learner.likelihood.unit()
    target = torch.randn(len(rows), generator=torch.Generator().manual_seed(SEED), dtype=rows.dtype)  # y - f(x; theta)
    change = torch.zeros(rows.shape[1], dtype=rows.dtype)
    for _ in range(prior.steps):
        change = change + prior.scale[0].square() * (rows.mT @ (target - rows @ change)) / noise
    covariance = prior.covariance()[0]
    # Q Jᵀ (J Q Jᵀ + σ² I)⁻¹ (y - f), the MAP without an inverse of Q
    gram = rows @ covariance @ rows.mT + noise * torch.eye(len(rows), dtype=rows.dtype)
    best = covariance @ rows.mT @ torch.linalg.solve(gram, target)
    return ((change - best).abs().max() / change.abs().max()).item()


def draw_functions(ax: Axes, learner: bm.MAML, support: bm.Data, prior: bm.inference.ImpliedPrior) -> None:
    grid = torch.linspace(-5.0, 5.0, 61, dtype=torch.float64)
    start = learner.start(1)
    mean = learner.forward(start, grid[None, :, None])[0, :, 0]
    rows = learner.jacobian(start, grid[None, :, None]).dense()
    deviation = prior.function_covariance(rows)[0].diagonal().clamp(min=0.0).sqrt()
    generator = torch.Generator().manual_seed(SEED)
    color = COLORS[prior.steps]
    ax.fill_between(grid, mean - 2 * deviation, mean + 2 * deviation, color=color, alpha=0.2, linewidth=0)
    for _ in range(DRAWS):
        phi = prior.sample(generator)
        change = torch.cat([(phi[name] - start[name]).flatten(1) for name in phi], 1)
        ax.plot(grid, mean + (rows[0, :, 0] @ change[0]), color=color, linewidth=0.9, alpha=0.7)
    ax.plot(grid, mean, color="black", linewidth=1.6)
    for x in support.x[0, :, 0].tolist():
        ax.axvline(x, color=GREY, linewidth=0.8, linestyle=":")
    ax.set_title("k = 1 step" if prior.steps == 1 else f"k = {prior.steps} steps", fontsize=10)
    ax.set(xlim=(-5, 5), ylim=(-6.5, 6.5), xlabel="x", xticks=(-4, -2, 0, 2, 4))


def draw_variances(prior_axes: Axes, posterior_axes: Axes) -> None:
    information = torch.linspace(0.0, 1.6, 81, dtype=torch.float64)
    inside = information[information < 1.0]
    for steps in STEPS:
        posterior = EarlyStopping(steps).variance(information)
        style = {"color": COLORS[steps], "linestyle": LINES[steps], "linewidth": 1.6}
        prior = posterior[: len(inside)] / (1.0 - inside) ** steps
        prior_axes.plot(inside, prior, label=f"k = {steps}", **style)
        posterior_axes.plot(information, posterior, label=f"k = {steps}", **style)
        for ax in (prior_axes, posterior_axes):
            ax.plot(0.0, steps, "o", color=COLORS[steps], markersize=4, clip_on=False, zorder=3)
    prior_axes.set(xlim=(0, 1), ylim=(0.7, 1e4), ylabel="variance / a", title="prior variance of a direction")
    flat = information[information >= 0.04]
    posterior_axes.plot(flat, 1.0 / flat, color=GREY, linewidth=1.0, linestyle=":", label="flat prior: 1 / (a l)")
    posterior_axes.axvspan(1.0, 1.6, color="#cccccc", alpha=0.4, linewidth=0, zorder=0)
    posterior_axes.text(1.3, 12.0, "overshoots:\nno prior", ha="center", va="center", fontsize=9, color=GREY)
    posterior_axes.set(xlim=(0, 1.6), ylim=(0.5, 40), title="posterior variance of a direction")
    for ax in (prior_axes, posterior_axes):
        ax.set_yscale("log")
        ax.minorticks_off()
        ax.title.set_fontsize(10)
        ax.set_xlabel("a l: rate times curvature of a direction")


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    with torch.enable_grad():
        learner = trained()
    support = learner.conform(bm.Data.from_arrays(torch.tensor(INPUTS), torch.zeros(len(INPUTS))))
    learner.rate.set(1e-6)  # so small that the prior exists
    before = 0.003 / 1e-6 * learner.implied_prior(support).information.max().item()
    learner.rate.set(LARGEST / before * 0.003)
    figure = plt.figure(figsize=(7.0, 5.4), layout="constrained")
    above, below = figure.subfigures(2, 1)
    upper = above.subplots(1, len(STEPS), sharey=True)
    lower = below.subplots(1, 2)
    errors: list[float] = []
    unseen: list[Tensor] = []
    for steps, ax in zip(STEPS, upper, strict=True):
        learner.steps = steps
        prior = learner.implied_prior(support)
        draw_functions(ax, learner, support, prior)
        errors.append(disagreement(learner, support, prior))
        unseen.append(prior.unseen_variance.max())
    upper[0].set_ylabel("f(x)")
    draw_variances(*lower)
    handles, labels = lower[1].get_legend_handles_labels()
    below.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    svg_figures.save(figure, FILE)
    print(f"{FILE.name}: {FILE.stat().st_size / 1024:.0f} KiB")
    print(f"largest a l at the rate of the training {before:.3f}, in the figure {LARGEST}")
    print(f"prior variance of an unseen direction at {STEPS} steps: {[f'{value:.2e}' for value in unseen]}")
    good = max(errors) < 1e-8
    verdict(
        f"the steps {'are' if good else 'are NOT'} the MAP under the prior drawn: largest difference {max(errors):.1e}",
        SEED,
    )


if __name__ == "__main__":
    main()
