"""The pull of a loss against the residual, docs/figures/pulls_of_losses.svg: `python -m docs.tools.pulls_of_losses`.

e = -∂loss/∂f is all that one gradient step learns of a label. Where the curve of a loss takes a value twice, two labels
look alike.
"""

from pathlib import Path

import torch
from torch import Tensor

import bayesmeta as bm
from bayesmeta.plotting.style import BLUE, GREEN, GREY, ORANGE, VERMILLION
from docs.tools import svg_figures

FILE = Path(__file__).parent.parent / "figures" / "pulls_of_losses.svg"


def pull(likelihood: bm.likelihoods.Likelihood, residuals: Tensor) -> Tensor:
    """The derivative of log p(y | f) in f, at f = 0 and y = the residuals."""
    f = torch.zeros(len(residuals), 1, 1, dtype=residuals.dtype, requires_grad=True)
    y = residuals[:, None, None]
    points = bm.Data(x=torch.zeros_like(y), y=y, mask=torch.ones(y.shape[:2], dtype=torch.bool))
    (derivative,) = torch.autograd.grad(likelihood.double().given(points)(f).sum(), f)
    return derivative[:, 0, 0]


def main() -> None:
    """Draw it."""
    import matplotlib.pyplot as plt

    r = torch.linspace(-6.0, 6.0, 97, dtype=torch.float64)
    gaussian = bm.likelihoods.Gaussian(bm.noise.DiagonalNoise(1, initial=1.0))
    student = bm.likelihoods.StudentT(initial_scale=1.0, initial_dof=3.0)
    figure, ax = plt.subplots(figsize=(5.6, 3.6), layout="constrained")
    ax.axhline(0.0, color=GREY, linewidth=0.6)
    ax.axvline(0.0, color=GREY, linewidth=0.6)
    ax.plot(r, pull(gaussian, r), color=BLUE, label="squared error")
    ax.plot(r, r.clamp(-1.5, 1.5), color=GREEN, linestyle="--", label="Huber, threshold 1.5")
    ax.plot([-6.0, 0.0, 0.0, 6.0], [-1.0, -1.0, 1.0, 1.0], color=ORANGE, linestyle="-.", label="absolute error")
    ax.plot(r, pull(student, r), color=VERMILLION, label="Student's t, ν = 3, s = 1")
    alike = torch.tensor([1.0, 3.0], dtype=torch.float64)
    ax.plot(alike, pull(student, alike), "o", color=VERMILLION)
    ax.annotate("two labels,\none pull", (3.0, 1.0), (3.6, 2.3), arrowprops={"arrowstyle": "-", "color": GREY})
    ax.set(xlim=(-6, 6), ylim=(-3, 3), xlabel="residual y - f of the support point", ylabel="pull e")
    ax.legend(loc="upper left", frameon=False, fontsize=9)
    svg_figures.save(figure, FILE)


if __name__ == "__main__":
    main()
