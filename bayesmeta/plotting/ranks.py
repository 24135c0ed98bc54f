"""Whether a posterior is the posterior: histograms and curves of the ranks of simulation-based calibration."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bayesmeta.checks.rank_statistics import RankStatistics
from bayesmeta.errors import DataError
from bayesmeta.evaluation import metrics
from bayesmeta.plotting.style import CYCLE, GREY, figure_of, grid_of_axes, uniform_bars, wide_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AXIS = "rank of the truth among draws, over their number"


def rank_histograms(
    ranks: RankStatistics,
    names: Sequence[str] | None = None,
    *,
    bins: int | None = None,
    axes: "Sequence[Axes] | None" = None,
) -> "Figure":
    """Draw the rank histograms of simulation-based calibration, one panel for each quantity.

    Each bar comes with the central 95 % of its height if ranks are uniform, by the binomial distribution. Walls at both
    ends mean that the posterior is too narrow, and a hump that it is too wide. Bars that are high on the left mean that
    the posterior is too high, and on the right that it is too low.

    Args:
        ranks: from `sbc`.
        names: which quantities; by default the six that are furthest from uniform.
        bins: as for `RankStatistics.counts`.
        axes: one for each quantity; by default a new figure with up to three in a row.

    Returns:
        The figure; it is not shown.

    Raises:
        DataError: a quantity that was not ranked, or a number of bins that does not divide S + 1.
        ShapeError: another number of axes than of quantities.

    Example:
        >>> import torch
        >>> import bayesmeta as bm
        >>> from matplotlib.figure import Figure
        >>> ranks = bm.checks.sbc(bm.ALPaCA(bm.Polynomial(1, 1)).double(), torch.rand(200, 4, 1).double())
        >>> panels = list(Figure(figsize=(6, 3)).subplots(1, 2))
        >>> figure = bm.plotting.rank_histograms(ranks, ["log likelihood", "log joint"], axes=panels)
        >>> [ax.get_title() for ax in figure.axes]
        ['log likelihood', 'log joint']
    """
    chosen = _quantities(ranks, names)
    counts = ranks.counts(bins)[:, chosen].numpy()
    panels = grid_of_axes(len(chosen)) if axes is None else list(axes)
    figure = figure_of(panels, len(chosen), "quantity")
    for heights, quantity, ax in zip(counts.T, chosen, panels, strict=True):
        highest = uniform_bars(ax, heights, "ranks")
        ax.set_ylim(0, 1.15 * highest)
        ax.set_title(ranks.names[quantity], fontsize=10)
    if axes is None:
        figure.supxlabel(AXIS, fontsize=10)
        figure.supylabel("density", fontsize=10)
    return figure


def rank_curves(
    ranks: RankStatistics,
    names: Sequence[str] | None = None,
    *,
    level: float = 0.95,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the distribution function of the ranks less that of uniform ranks, one curve for each quantity.

    The height at r/S is the share of ranks up to r, less r/S. The band holds a whole curve of uniform ranks with
    probability `level` (Säilynoja, Bürkner, Vehtari 2022, arXiv:2103.10522), and needs no bins. A curve above zero on
    the left and below it on the right means that the posterior is too narrow, and the other way round that it is too
    wide. A curve above zero throughout means that it is too high.

    Args:
        ranks: from `sbc`.
        names: which quantities; by default the six that are furthest from uniform.
        level: of the band, for each curve.
        ax: where to draw; a new figure by default.

    Returns:
        The axes that were drawn on.

    Raises:
        DataError: a quantity that was not ranked, or a level outside (0, 1).

    Example:
        >>> import torch
        >>> import bayesmeta as bm
        >>> from matplotlib.figure import Figure
        >>> ranks = bm.checks.sbc(bm.ALPaCA(bm.Polynomial(1, 1)).double(), torch.rand(200, 4, 1).double())
        >>> ax = bm.plotting.rank_curves(ranks, ["log likelihood"], ax=Figure().subplots())
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['95% band if uniform', 'log likelihood']
    """
    metrics.check_level(level)
    chosen = _quantities(ranks, names)
    ax = wide_axes() if ax is None else ax
    places = np.arange(1, ranks.num_draws + 2) / (ranks.num_draws + 1)
    low, high = curve_band(len(ranks.ranks), ranks.num_draws, level)
    start = np.concatenate([[0.0], places])
    for end, label in ((low, f"{level:.0%} band if uniform"), (high, None)):
        ax.plot(start, np.concatenate([[0.0], end - places]), color=GREY, linewidth=1.2, linestyle="--", label=label)
    ax.axhline(0.0, color="black", linewidth=0.8)
    for i, quantity in enumerate(chosen):
        counts = np.bincount(ranks.ranks[:, quantity].numpy(), minlength=ranks.num_draws + 1)
        curve = np.concatenate([[0.0], counts.cumsum() / counts.sum() - places])
        ax.plot(start, curve, color=CYCLE[i % len(CYCLE)], linewidth=1.4, label=ranks.names[quantity])
    ax.set_xlabel(AXIS)
    ax.set_ylabel("share of ranks up to it, less itself")
    ax.set_xlim(0, 1)
    ax.legend(frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.18))
    return ax


def curve_band(count: int, num_draws: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the band of the share of ranks up to r = 0..S, if `count` ranks are uniform.

    They are pointwise binomial quantiles at the probability at which `level` of 2,000 uniform curves stay inside
    everywhere.
    """
    from scipy.stats import binom

    places = np.arange(1, num_draws + 2) / (num_draws + 1)
    rng = np.random.default_rng(0)
    counts = rng.multinomial(count, np.full(num_draws + 1, 1.0 / (num_draws + 1)), size=2000).cumsum(1)[:, :-1]
    heights = np.arange(count + 1)[:, None]
    below, above = binom.cdf(heights, count, places[:-1]), binom.sf(heights - 1, count, places[:-1])
    each = np.minimum(below, above)[counts, np.arange(num_draws)].min(1)
    tail = np.quantile(each, 1.0 - level)
    ends = binom.ppf(tail, count, places), binom.isf(tail, count, places)
    return ends[0] / count, ends[1] / count


def _quantities(ranks: RankStatistics, names: Sequence[str] | None) -> list[int]:
    """Positions of the quantities that are drawn."""
    if names is None:
        return [int(i) for i in ranks.p_values().argsort()[:6]]
    missing = [name for name in names if name not in ranks.names]
    if missing or not names:
        raise DataError(f"expected some of the ranked quantities {list(ranks.names)}, got {list(names)}")
    return [ranks.names.index(name) for name in names]
