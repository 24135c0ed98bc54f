"""The figures of docs/benchmarks, drawn from the recorded outputs: `python -m docs.tools.benchmark_figures [NAME ...]`.

Each function below is a figure, named like the benchmark; what it draws it reads from docs/benchmarks/outputs, so that a figure cannot say
what no output says. tests/test_benchmark_pages.py draws them again and says which files are out of date.
"""
# ruff: noqa: E501  (a regular expression is a line)

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

from bayesmeta.plotting.style import CYCLE, GREY, MARKERS, plain_label
from docs.tools import svg_figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOCS = Path(__file__).parent.parent
OUTPUTS, FIGURES = DOCS / "benchmarks" / "outputs", DOCS / "figures" / "benchmarks"
STYLE = {"font.size": 9.0, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}
WIDTH = 5.4  # inches, so that letters can be read where the page is as narrow as a phone
NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d))(?:e[-+]?\d+)?(?![\w])")


class Point(NamedTuple):
    """A number with the ends of its interval."""

    value: float
    low: float
    high: float


Series = dict[str, list[Point]]


def output(name: str) -> str:
    """What a benchmark printed."""
    return (OUTPUTS / f"{name}.txt").read_text()


def numbers(text: str) -> list[float]:
    """All numbers in it, in order."""
    return [float(found.replace(",", "")) for found in NUMBER.findall(text)]


def part(text: str, start: str) -> str:
    """From the line that begins so up to the next empty line.

    Raises:
        ValueError: no line begins so.
    """
    found = re.search(rf"^ *{re.escape(start)}.*?(?=\n *\n|\Z)", text, flags=re.M | re.S)
    if found is None:
        raise ValueError(f"expected a line that begins {start!r}")
    return found[0]


def row(text: str, start: str) -> list[float]:
    """The numbers of the first line that begins so, after those words.

    Raises:
        ValueError: no line begins so.
    """
    found = re.search(rf"^ *{re.escape(start)}(?![\w])(.*)$", text, flags=re.M)
    if found is None:
        raise ValueError(f"expected a line that begins {start!r}")
    return numbers(found[1])


def within(value: float, error: float = 0.0) -> Point:
    """value ± error."""
    return Point(value, value - error, value + error)


def pairs(values: list[float]) -> list[Point]:
    """value, error, value, error, ..."""
    return [within(value, error) for value, error in zip(values[::2], values[1::2], strict=True)]


def _panels(count: int, height: float, columns: int, *, sharex: bool, sharey: bool) -> tuple["Figure", list["Axes"]]:
    lines = -(-count // columns)
    size = (WIDTH, height * lines + 0.5)
    figure, axes = plt.subplots(
        lines, columns, figsize=size, sharex=sharex, sharey=sharey, squeeze=False, layout="constrained"
    )
    for ax in axes.flat[count:]:
        figure.delaxes(ax)
    return figure, list(axes.flat[:count])


def _legend(figure: "Figure", ax: "Axes") -> None:
    handles, labels = ax.get_legend_handles_labels()
    if len(labels) > 1:
        columns = 3 if max(map(len, labels)) < 22 else 2
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), columns))


def dots(
    panels: dict[str, tuple[list[str], Series]],
    xlabel: str,
    *,
    log: bool = False,
    at: float | None = None,
    columns: int = 1,
    shared: bool = True,
) -> "Figure":
    """Rows with names, and on each a dot with its interval for every series.

    Args:
        panels: by title, the names of the rows and the series, each a Point (or one that is not a number) for every row.
        xlabel: what the numbers are.
        log: whether the axis is logarithmic.
        at: where a line stands for comparison.
        columns: panels side by side.
        shared: whether panels share their axes.
    """
    longest = max(len(names) for names, _ in panels.values())
    most = max(len(series) for _, series in panels.values())
    height = 0.7 + longest * (0.2 + 0.07 * (most - 1))
    figure, axes = _panels(len(panels), height, columns, sharex=shared, sharey=shared and columns > 1)
    for ax, (title, (names, series)) in zip(axes, panels.items(), strict=True):
        for number, (label, points) in enumerate(series.items()):
            shift = (number - (len(series) - 1) / 2) * 0.8 / max(len(series), 2)
            heights = [place + shift for place in range(len(names))]
            bars = [[max(p.value - p.low, 0) for p in points], [max(p.high - p.value, 0) for p in points]]
            ax.errorbar(
                [p.value for p in points], heights, xerr=bars, fmt=MARKERS[number % 6], color=CYCLE[number % 6],
                markersize=4, linewidth=1.2, label=label,
            )  # fmt: skip
        ax.set_yticks(range(len(names)), names)
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.grid(axis="x", color=GREY, alpha=0.2, linewidth=0.6)
        for place in range(0, len(names) if len(series) > 1 else 0, 2):
            ax.axhspan(place - 0.5, place + 0.5, color=GREY, alpha=0.08, linewidth=0)
        if title:
            ax.set_title(title, fontsize=9)
        if log:
            ax.set_xscale("log")
            ax.xaxis.set_minor_formatter(NullFormatter())
            low, high = ax.get_xlim()
            if high < 60 * low:
                ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                ax.xaxis.set_major_formatter(lambda tick, _: f"{tick:g}")
        if at is not None:
            ax.axvline(at, color="black", linewidth=0.8, linestyle="--")
    for ax in axes[-columns:]:
        ax.set_xlabel(xlabel, loc="right")  # a long one goes on below the names
    _legend(figure, axes[0])
    return figure


def curves(
    panels: dict[str, dict[str, tuple[list[float], list[Point]]]],
    xlabel: str,
    ylabel: str,
    *,
    log: bool = False,
    logx: bool = False,
    at: float | None = None,
    limits: tuple[float, float] | None = None,
    names: list[str] | None = None,
    columns: int = 2,
    sharex: bool = True,
    sharey: bool = True,
) -> "Figure":
    """A curve with bands for every series, against the number of points of a task or the like."""
    columns = min(columns, len(panels))
    figure, axes = _panels(len(panels), 2.6, columns, sharex=sharex, sharey=sharey)
    for ax, (title, series) in zip(axes, panels.items(), strict=True):
        for number, (label, (places, points)) in enumerate(series.items()):
            color = CYCLE[number % 6]
            ax.plot(
                places, [p.value for p in points], marker=MARKERS[number % 6], markersize=4, linewidth=1.2,
                color=color, label=label,
            )  # fmt: skip
            if any(p.high > p.low for p in points):
                ax.fill_between(
                    places, [p.low for p in points], [p.high for p in points], color=color, alpha=0.2, linewidth=0
                )
        if title:
            ax.set_title(title, fontsize=9)
        if log:
            ax.set_yscale("log")
        if logx:
            ax.set_xscale("log")
            ax.xaxis.set_minor_locator(NullLocator())
        if at is not None:
            ax.axhline(at, color="black", linewidth=0.8, linestyle="--")
        if limits is not None:
            ax.set_ylim(*limits)
        ticks = sorted({place for own, _ in series.values() for place in own})
        ax.set_xticks(ticks, names or [f"{int(tick):,}" for tick in ticks])
    for ax in axes[-columns:]:
        ax.set_xlabel(xlabel)
    for ax in axes[::columns]:
        ax.set_ylabel(ylabel)
    most = max(axes, key=lambda ax: len(ax.get_legend_handles_labels()[1]))
    _legend(figure, most)
    return figure


NONE = Point(float("nan"), float("nan"), float("nan"))
POINTS = "points of the new task"


def demo() -> "Figure":
    blocks = {
        "ALPaCA": part(output("demo"), "ALPaCA:"),
        "mixture of ALPaCA priors": part(output("demo"), "MixtureALPaCA:"),
    }
    shots = [0.0, 1, 2, 3, 5, 10, 20]
    series = {}
    for name, block in blocks.items():
        rows = [row(block, f"{shot:.0f}") for shot in shots]
        series[name] = ([*range(len(shots))], [within(*values[12:14]) for values in rows])
        floor = ([*range(len(shots))], [within(max(values[14], 0.0)) for values in rows])
    series["floor of any Gaussian"] = floor
    return curves({"": series}, POINTS, "regret, nats per point", names=[f"{shot:.0f}" for shot in shots])


def alpaca_experiments() -> "Figure":
    panels = {}
    for name, shots in {"sinusoid": [1, 2, 3, 5, 10, 20], "step": [1, 5, 10, 20, 29], "pendulum": [10, 20, 50]}.items():
        rows = [row(part(output("alpaca_experiments"), f"{name} ("), str(shot)) for shot in shots]
        names = [f"{shot} points" for shot in shots]
        panels[name] = (
            names,
            {"ours": [within(*v[6:8]) for v in rows], "published": [within(*v[4:6]) for v in rows]},
        )
    return _uneven(panels, "NLL, nats per point")


def _uneven(panels: dict[str, tuple[list[str], Series]], xlabel: str, **options: bool) -> "Figure":
    """Panels below one another, of all their own numbers of rows, on one axis."""
    names = [f"{title}, {name}" for title, (own, _) in panels.items() for name in own]
    labels = list(dict.fromkeys(label for _, series in panels.values() for label in series))
    merged: Series = {
        label: [p for own, series in panels.values() for p in series.get(label, [NONE] * len(own))] for label in labels
    }
    return dots({"": (names, merged)}, xlabel, **options)


SETTINGS = ["sinusoid_easy, 5", "sinusoid_easy, 10", "sinusoid_hard, 10", "cauchy, 20"]
SETTING_NAMES = ["Easy, 5 points", "Easy, 10 points", "Hard, 10 points", "Cauchy, 20 points"]


def metal_benchmark() -> "Figure":
    blocks = [part(output("metal_benchmark"), name) for name in SETTINGS]
    best: Callable[[str, list[str]], Point] = lambda block, names: within(max(row(block, name)[0] for name in names))
    ours = ["ours: MLP features, evidence", "ours: MLP features, predictive", "ours: bumps, evidence"]
    series = {
        "ours, best linear regression": [best(block, ours) for block in blocks],
        "published linear regressions": [
            best(b, ["BLR prior, full (evidence)", "BLR posterior, full (ALPaCA)"]) for b in blocks
        ],
        "best published": [best(block, ["GP+SE+NN", "GP+NN+NN (PACOH-MAP)"]) for block in blocks],
        "oracle": [within(row(block, "Bayes-optimal oracle")[0]) for block in blocks],
    }
    series["published linear regressions"][2] = within(row(blocks[2], "same, report.pdf")[0])
    return dots({"": (SETTING_NAMES, series)}, "log density per point (higher is better)")


def two_levels_need_no_form() -> "Figure":
    blocks = [part(output("two_levels_need_no_form"), name) for name in SETTINGS]
    published = [re.search(r"^published: .*?  +(-?[\d.]+)", block, flags=re.M) for block in blocks]
    series = {
        label: [within(row(block, label)[0]) for block in blocks]
        for label in ["one level", "network as mean, MAP", "two levels"]
    }
    series["best published"] = [within(float(found[1])) for found in published if found]
    series["oracle"] = [within(row(block, "Bayes-optimal oracle")[0]) for block in blocks]
    return dots({"": (SETTING_NAMES, series)}, "log density per point (higher is better)")


def processes_of_few_numbers() -> "Figure":
    text = output("processes_of_few_numbers")
    panels = {}
    for title, block, seeds in [("Hard", "sinusoid_hard", [41, 1, 2]), ("Cauchy", "cauchy", [31, 1, 2])]:
        own = part(text, block)
        found = {
            seed: [float(re.search(rf"^seed {seed}, {kind} .*?  (-?0\.\d+)", own, flags=re.M)[1])  # type: ignore[index]
                   for kind in (["any", "without waves"] if title == "Hard" else ["without waves"])]
            for seed in seeds
        }  # fmt: skip
        published = numbers(own.splitlines()[0])[-1]
        series = {
            "chosen": [within(found[seed][0]) for seed in seeds] if title == "Hard" else [NONE] * 3,
            "chosen, without waves": [within(found[seed][-1]) for seed in seeds],
            "best published": [within(published)] * 3,
            "oracle": [within(row(own, f"seed {seed}, oracle")[0]) for seed in seeds],
        }
        panels[title] = ([f"seed {seed}" for seed in seeds], series)
    return _uneven(panels, "log density per point (higher is better)")


def dkt_periodic() -> "Figure":
    text = output("dkt_periodic")
    names = {"DKT + spectral": "deep kernel, spectral", "DKT + RBF": "deep kernel, RBF", "ALPaCA": "ALPaCA",
             "R2-D2 regressor": "R2-D2 regressor", "exact mean, covariance": "exact mean and covariance"}  # fmt: skip
    rows = [row(text, name) for name in names]
    published = {"DKT + spectral": "DKT + spectral, paper", "DKT + RBF": "DKT + RBF, paper", "ALPaCA": "ALPaCA, paper"}
    theirs = [row(text, published[name]) if name in published else [] for name in names]
    outside = [NONE if not v else within(v[2] if len(v) == 4 else v[1]) for v in theirs]
    series = {
        "in range": [within(v[0]) for v in rows],
        "outside": [within(v[4]) for v in rows],
        "outside, published": outside,
    }
    return dots({"": (list(names.values()), series)}, "mean squared error (the noise alone: 0.01)", log=True, at=0.01)


def alpaca_experiments_task_scale() -> "Figure":
    shots = [1.0, 2, 3, 5, 10, 20]
    found: dict[str, tuple[list[float], list[Point]]] = {}
    for seed in (0, 1):
        values = [
            numbers(line)
            for line in output("alpaca_experiments_task_scale").splitlines()
            if re.match(rf" +{seed} +\d", line)
        ]
        found[f"seed {seed}"] = ([*range(len(shots))], [within(*v[4:6]) for v in values])
    return curves({"": found}, POINTS, "loss of NLL, nats per point", at=0.0, names=[f"{shot:.0f}" for shot in shots])


def real_tables() -> "Figure":
    panels = {}
    for table, shots, name in [
        ("sleepstudy", [0, 1, 3, 5], "alpaca-linear"), ("rats", [0, 1, 2, 3], "alpaca"), ("physionet_gcs", [0, 1, 3, 5, 10], "alpaca")
    ]:  # fmt: skip
        block = part(output("real_tables"), table)
        own: dict[str, tuple[list[float], list[Point]]] = {}
        for label, method in {
            "learned prior": name,
            "one model for all": "complete pooling",
            "separate fits": "separate fits",
        }.items():
            lines = [re.search(rf"^ +{shot}  {method}  +(.*)$", block, flags=re.M) for shot in shots]
            places = [float(shot) for shot, line in zip(shots, lines, strict=True) if line]
            own[label] = (places, [within(numbers(line[1])[0]) for line in lines if line])
        panels[f"{table} ({ {'sleepstudy': 'ms', 'rats': 'g'}.get(table, 'points of the scale') })"] = own
    return curves(panels, POINTS, "error (RMSE)", sharex=False, sharey=False)


def mixed_effects_on_small_tables() -> "Figure":
    names, points, table = [], [], ""
    for line in output("mixed_effects_on_small_tables").splitlines():
        found = re.match(r"^([a-z]\w*)? +(\d) +(\d\.\d+) +(\d\.\d+) ", line)
        if found:
            table = found[1] or table
            names.append(f"{table}, {found[2]} points")
            points.append(within(float(found[4]) - float(found[3])))
    return dots(
        {"": (names, {"MixedEffects less ALPaCA": points})}, "NLL, MixedEffects less ALPaCA (nats per point)", at=0.0
    )


def structural_models() -> "Figure":
    panels = {}
    for subject in ("theoph", "indometh"):
        block = part(output("structural_models"), f"{subject}, {'357' if subject == 'theoph' else '156'}")
        panels[subject] = {
            label: ([0.0, 1, 2, 3, 5], pairs(row(block, label)[:10])) for label in ("plug-in", "averaged")
        }
    return curves(panels, POINTS, "coverage of 90 % intervals", at=0.9)


def noise_of_each_task() -> "Figure":
    text, shots = output("noise_of_each_task"), [5, 10, 20, 40]
    panels = {}
    for kind, place in [("quiet tasks", 0), ("loud tasks", 2)]:
        panels[kind] = {
            name: ([*range(4)], [within(*row(text, f"{shot}  {name}")[place : place + 2]) for shot in shots])
            for name in ("one noise", "own noise", "told")
        }
    return curves(panels, POINTS, "coverage of 90 % intervals", at=0.9, names=[str(shot) for shot in shots])


def hyperparameter_tuning() -> "Figure":
    text = output("hyperparameter_tuning")
    names = ["ALPaCA, 5 points", "ALPaCA, 20 points", "task scale, 5 points", "task scale, 20 points"]
    rows = [row(text, start) for start in ["ALPaCA                       5", "ALPaCA                      20",
                                           "ALPaCA, task scale           5", "ALPaCA, task scale          20"]]  # fmt: skip
    series = {"all points": [within(v[0]) for v in rows], "the data set covered least": [within(v[2]) for v in rows]}
    return dots({"": (names, series)}, "coverage of 95 % intervals", at=0.95)


def error_bars_make_rows_cover() -> "Figure":
    text = output("error_bars_make_rows_cover")
    found = {}
    for label, start in {"error bars known": "with error bars", "not known": "without"}.items():
        line = part(text, start).splitlines()[0]
        found[label] = [within(v) for v in numbers(line.split("error bars: ")[1].split("NLL")[0])]
    return dots({"": (["small", "middle", "large"], found)}, "coverage of 90 % intervals", at=0.9)


def gradient_experiments() -> "Figure":
    text = output("gradient_experiments")
    names = [f"MAML, 5 points, step {step}" for step in (1, 5, 10)]
    rows = [row(text, f"step {step}") for step in (1, 5, 10)]
    meta = part(text, "Meta-SGD")
    for shots in (5, 10, 20):
        names.append(f"Meta-SGD, {shots} points")
        rows.append(row(meta, f"{shots} shots")[:4])
    for shots in (5, 10, 20):
        names.append(f"MAML, {shots} points")
        rows.append(row(meta, f"{shots} shots")[4:])
    series = {"ours": [within(*v[2:4]) for v in rows], "published": [within(*v[:2]) for v in rows]}
    return dots({"": (names, series)}, "mean squared error")


LEARNERS = ["MAML (point)", "MAML (Laplace)", "iMAML (Laplace)", "LLAMA", "BMAML", "ALPaCA"]


def _uncertainty(name: str, learner: str, shots: list[int], place: int) -> list[list[float]]:
    lines = [re.search(rf"^ +{shot}  {re.escape(learner)}  +(.*)$", output(name), flags=re.M) for shot in shots]
    return [numbers(line[1]) for line in lines if line]


def gradient_uncertainty() -> "Figure":
    shots, panels = [1, 3, 5, 10], {}
    for title, name in {
        "MAML's sinusoids": "gradient_uncertainty_sinusoids",
        "Sinusoid-Hard": "gradient_uncertainty_hard",
    }.items():
        own = {}
        for learner in LEARNERS:
            lines = [
                re.search(
                    rf"^ +{shot}  {re.escape(learner)}  .*? (\d\.\d+) \((\d\.\d+)-(\d\.\d+)\)", output(name), flags=re.M
                )
                for shot in shots
            ]
            own[learner] = ([*range(4)], [Point(*map(float, line.groups())) for line in lines if line])
        panels[title] = own
    return curves(panels, POINTS, "coverage of 90 % intervals", at=0.9, names=[str(shot) for shot in shots])


def gradient_uncertainty_factored() -> "Figure":
    shots, panels = [1, 3, 5, 10], {}
    for title, name in {
        "MAML's sinusoids": "gradient_uncertainty_sinusoids",
        "Sinusoid-Hard": "gradient_uncertainty_hard",
    }.items():
        own = {}
        block = part(output("gradient_uncertainty_factored"), title)
        for label, text, learner in [
            ("iMAML, learned deviations", block, "iMAML (factored)"), ("iMAML, one deviation", output(name), "iMAML (Laplace)"),
            ("MAML, Laplace", output(name), "MAML (Laplace)"), ("ALPaCA", output(name), "ALPaCA"),
        ]:  # fmt: skip
            lines = [re.search(rf"^ +{shot}  {re.escape(learner)} .* (\d+\.\d+)$", text, flags=re.M) for shot in shots]
            own[label] = ([*range(4)], [within(float(line[1])) for line in lines if line])
        panels[title] = own
    return curves(panels, POINTS, "regret, nats per point", log=True, names=[str(shot) for shot in shots])


def gradient_tables() -> "Figure":
    names = ["alpaca", "maml", "meta-sgd", "maml++", "alpha-maml", "cavia", "imaml", "llama", "bmaml"]
    panels = {}
    for table in ("chickweight", "co2_plants", "soybean", "theoph"):
        block = part(output("gradient_tables"), table)
        panels[table] = (names, {"NLL": [within(row(block, name + " ")[7]) for name in names]})
    return dots(panels, "NLL at 3 points, nats per point", columns=2, shared=False)


def sinusoids_by_shots() -> "Figure":
    text = output("sinusoids_by_shots")
    names, five, ten = [], [], []
    for learner, steps in {"SNAIL": [0], "MetaNetworks": [0], "MAML": [1, 5, 10], "FineTuned": [1, 5, 10]}.items():
        block = part(text, f"{learner}:")
        for step in steps:
            line = next(x for x in block.splitlines()[1:] if not step or f"after {step} steps" in x)
            names.append(f"{learner}, {step} steps" if step else learner)
            for shots, found in ((5, five), (10, ten)):
                match = re.search(rf"\b{shots} shots: MSE ([\d.]+) ± ([\d.]+)", line)
                found.append(within(float(match[1]), float(match[2])) if match else NONE)
    return dots(
        {"": (names, {"5 points": five, "10 points": ten})},
        "mean squared error (the noise alone: 0.01)",
        log=True,
        at=0.01,
    )


def outside_the_training_range() -> "Figure":
    text = part(output("outside_the_training_range"), "mean squared error")
    names = ["zero", "SNAIL", "CNP", *(f"MAML, {steps}" for steps in (1, 2, 5, 10, 20))]
    rows = [pairs(row(text, name)) for name in names]
    labels = ["in range", "phase", "amplitude", "both"]
    shown = [f"{name} steps" if "MAML" in name else name.replace("zero", "predicting zero") for name in names]
    return dots(
        {"": (shown, {label: [v[n] for v in rows] for n, label in enumerate(labels)})},
        "mean squared error at 10 points",
        log=True,
    )


def class_tables() -> "Figure":
    panels = {}
    for table, shots in {"toenail": [0, 1, 2, 3, 5], "respiratory": [0, 1, 2, 3]}.items():
        block = part(output("class_tables"), table)
        series = {}
        for label, method in {
            "the task's own frequencies": "own frequencies",
            "pooled logistic regression": "pooled logistic",
        }.items():
            found = [
                re.search(
                    rf"^ +{shot} +\d+  {method} +[\d.]+ +(-?[\d.]+) \((-?[\d.]+) to (-?[\d.]+)\)", block, flags=re.M
                )
                for shot in shots
            ]
            series[label] = [Point(*map(float, match.groups())) for match in found if match]
        panels[table] = ([f"{shot} points" for shot in shots], series)
    return _uneven(panels, "log loss: how much lower the default is, nats", at=0.0)


WAYS = ["5 ways, 1 shot", "5 ways, 5 shots", "20 ways, 1 shot", "20 ways, 5 shots"]
CELLS = [(5, 1), (5, 5), (20, 1), (20, 5)]


def _accuracy(block: str, ways: int, shots: int) -> Point:
    found = re.search(rf"^ +{ways} +{shots} +([\d.]+) ± ([\d.]+)", block, flags=re.M)
    return within(float(found[1]), float(found[2])) if found else NONE


def omniglot_heads() -> "Figure":
    text = output("omniglot_heads")
    series = {
        name: [_accuracy(part(text, f"{name}:"), *cell) for cell in CELLS]
        for name in ("R2D2", "LRD2", "MetaOptNet", "DKT")
    }
    for label, start in {
        "published: MAML": "MAML (Finn et al. 2017)",
        "published: prototypical": "prototypical (Snell et al. 2017)",
    }.items():
        series[label] = [within(v) for v in row(text, start)]
    return dots({"": (WAYS, series)}, "accuracy, %")


def omniglot() -> "Figure":
    text = output("omniglot")
    starts = {"prototypical, 549 s": "Prototypical: 2669", "prototypical, 1399 s": "Prototypical: 7041", "matching": "Matching:",
              "siamese": "Siamese:", "relation": "Relation:", "graph, 480 s": "Graph: 4430", "graph, 910 s": "Graph: 9391"}  # fmt: skip
    published = {
        "prototypical": "prototypical (",
        "matching": "matching (",
        "siamese": "siamese (",
        "relation": "relation (",
        "graph": "graph (",
    }
    theirs = {name: numbers(part(text, start).splitlines()[0].split(")")[1]) for name, start in published.items()}
    series: Series = {}
    for label, cell, place in [("5 ways, 1 shot", (5, 1), 0), ("20 ways, 1 shot", (20, 1), 2)]:
        series[label] = [_accuracy(part(text, start), *cell) for start in starts.values()]
        series[f"{label}, published"] = [within(theirs[name.split(",")[0]][place]) for name in starts]
    return dots({"": (list(starts), series)}, "accuracy, %")


def omniglot_one_shot() -> "Figure":
    text = output("omniglot_one_shot")
    names = ["prototypical, augmented", "prototypical, 1 to 3 examples", "siamese", "prototypical", "LR-D2"]
    starts = ["Prototypical, augmented", "Prototypical, 1 to 3", "Siamese, plain", "Prototypical, plain", "LRD2, plain"]
    found = [re.search(rf"^{start}.*\n.*: ([\d.]+) % \(([\d.]+) to ([\d.]+)\)", text, flags=re.M) for start in starts]
    ours = [Point(*map(float, match.groups())) for match in found if match]
    block = part(text, "published error")
    published = re.findall(r"^  (.+?) +([\d.]+)$", block, flags=re.M)
    names += [f"{name.split(' (')[0]}, published" for name, _ in published]
    theirs = [within(float(value)) for _, value in published]
    return dots(
        {"": (names, {"here": ours + [NONE] * len(theirs), "in the official runs": [NONE] * len(ours) + theirs})},
        "error in one-shot runs, %",
    )


def super_classes() -> "Figure":
    text = output("super_classes")
    names = {
        "infinite mixture prototypes": "IMP:",
        "prototypical": "Prototypical: 987",
        "prototypical, features of the mixtures": "Prototypical on",
    }
    found = [re.search(rf"^{start}.*\n +([\d.]+) ± ([\d.]+) %", text, flags=re.M) for start in names.values()]
    return dots(
        {"": (list(names), {"": [within(float(m[1]), float(m[2])) for m in found if m]})},
        "accuracy where alphabets are classes, %",
    )


def blobs_regret() -> "Figure":
    texts = "\n".join(output(name) for name in ("blobs_regret", "blobs_regret_snail", "blobs_regret_mann"))
    names = [
        "Prototypical",
        "IMP",
        "SNAIL",
        "Relation",
        "MANN, LRUA",
        "Matching, attention",
        "Siamese",
        "Matching",
        "Graph",
    ]
    rows = [pairs(row(texts, f"{name}   ")[:6]) for name in names]
    floor: Callable[[Point], Point] = lambda p: Point(max(p.value, 1e-4), max(p.low, 1e-4), p.high)
    series = {"1 shot": [floor(v[0]) for v in rows], "1 to 10 shots": [floor(v[2]) for v in rows]}
    return dots({"": (names, series)}, "regret to the Bayes classifier, nats", log=True, at=0.05)


def omniglot_without_labels() -> "Figure":
    text = output("omniglot_without_labels")
    series = {
        f"{name}, ours": [_accuracy(part(text, name), *cell) for cell in CELLS]
        for name in ("AugmentedTasks", "ClusteredTasks")
    }
    for label, start in {
        "UMTRA, published": "UMTRA with MAML (Khodadadeh et al. 2019)",
        "CACTUs, published": "CACTUs with prototypical networks (Hsu et al. 2019)",
    }.items():
        series[label] = [within(v) for v in row(text, start)]
    return dots({"": (WAYS, series)}, "accuracy, %")


def omniglot_black_box() -> "Figure":
    text = output("omniglot_black_box")
    ours = [numbers(line.split("shot:")[1])[:2] for line in text.splitlines() if "shot: " in line]
    other = [
        numbers(line.split("shot:")[1])[:2]
        for line in output("omniglot_black_box_meta_networks").splitlines()
        if "shot: " in line
    ]
    series = {
        "SNAIL": [within(*v) for v in ours],
        "Meta Networks": [within(*v) for v in other],
        "SNAIL, published": [within(v) for v in row(text, "SNAIL (Mishra et al. 2018)")],
        "SNAIL, a re-run of others": [within(v) for v in row(text, "SNAIL, a re-run of others")],
    }
    return dots({"": (WAYS[:2], series)}, "accuracy, %")


def omniglot_by_presentation() -> "Figure":
    text = output("omniglot_by_presentation")
    places = row(text, "presentation")
    series = {
        "ours": (places, pairs(row(text, "accuracy"))),
        "published": (places, [within(v) for v in row(text, "published")]),
    }
    return curves({"": series}, "presentation of a character", "accuracy, %")


def concept_space() -> "Figure":
    text = output("concept_space")
    series = {}
    for label, start in {"alone": "{'weight': 0.0", "with the discriminator": "{'weight': 0.1"}.items():
        found = re.findall(r"accuracy ([\d.]+) ± ([\d.]+) %", part(text, start))
        series[label] = [within(float(a), float(b)) for a, b in found]
    return dots({"": (["5 ways, 1 shot", "20 ways, 1 shot"], series)}, "accuracy, %")


NEURAL = ["transformer-relative", "ConvCNP", "transformer", "latent-attentive", "CNP", "latent"]


def neural_process_benchmark_eq() -> "Figure":
    text = output("neural_process_benchmark_eq")
    series = {}
    for label, start in {
        "where it was trained": "eq, interpolation",
        "shifted as a whole": "eq, beyond",
        "outside": "eq, extrapolation",
    }.items():
        rows = [row(part(text, start), name) for name in NEURAL]
        series[label] = [_below(*v[4:6]) for v in rows]
    return dots({"": (NEURAL, series)}, "below the exact log density, nats per point", log=True)


def _below(value: float, error: float, least: float = 1e-3) -> Point:
    return Point(max(-value, least), max(-value - error, least), max(-value + error, least))


def neural_process_benchmark_matern() -> "Figure":
    names, marginal, joint = [], [], []
    for name, learner, file in [
        ("matern", "ConvCNP", "matern"),
        ("weakly-periodic", "ConvCNP-fine", "weakly_periodic"),
    ]:
        text = output(f"neural_process_benchmark_{file}")
        names.append(name)
        marginal.append(_below(*row(part(text, f"{name}, interpolation"), learner)[4:6]))
        joint.append(within(*row(part(text, f"{name}, {learner} point by point, 0 to 30"), "mean of the three")[2:4]))
    return dots(
        {"": (names, {"marginals": marginal, "joint, point by point": joint})},
        "below the exact log density, nats per point",
    )


def neural_process_benchmark_sawtooth() -> "Figure":
    text = output("neural_process_benchmark_sawtooth")
    names = ["CNP", "ACNP", "NP (ML)", "ANP (ML)", "ConvCNP", "ConvNP (ML)", "ConvCNP (AR)"]
    series: Series = {}
    for label, start in {
        "within the range": "sawtooth, interpolation",
        "extrapolation": "sawtooth, extrapolation",
    }.items():
        block = part(text, start)
        ours = within(*row(block, "ConvCNP-mixture")[:2])
        series[label] = [ours, *(within(row(block, f"{name}, published")[0]) for name in names)]
    return dots(
        {"": (["ConvCNP-mixture, ours", *(f"{name}, published" for name in names)], series)},
        "log density per point (higher is better)",
    )


def _regrets(
    name: str, family: str, learners: list[str], shots: list[int]
) -> dict[str, tuple[list[float], list[Point]]]:
    block = part(output(name), family)
    found = {}
    for learner in learners:
        lines = [re.search(rf"^ +{shot}  {learner}  +(.*)$", block, flags=re.M) for shot in shots]
        found[learner] = ([*range(len(shots))], [within(*numbers(line[1])[:2]) for line in lines if line])
    return found


def neural_processes_on_sinusoids() -> "Figure":
    shots = [0, 1, 3, 5, 10]
    learners = ["ALPaCA", "transformer", "CNP", "ConvCNP", "latent", "MAML"]
    panels = {
        family: _regrets("neural_processes_on_sinusoids", family, learners, shots)
        for family in ("MAML's sinusoids", "Sinusoid-Hard")
    }
    return curves(panels, POINTS, "regret, nats per point", sharey=False, names=[str(shot) for shot in shots])


def neural_processes_on_tables() -> "Figure":
    learners = ["ALPaCA", "DKT", "CNP", "ConvCNP", "transformer", "transformer-relative"]
    panels = {}
    for table in ("chickweight", "physionet_gcs", "intel_lab"):
        block = part(output("neural_processes_on_tables"), table)
        lines = [re.search(rf"^ +5  {name}  +(.*)$", block, flags=re.M) for name in learners]
        panels[table] = (learners, {"NLL": [within(*numbers(line[1])[:2]) for line in lines if line]})
    return dots(panels, "NLL at 5 points, nats per point", shared=False)


def latent_posterior() -> "Figure":
    text, shots = output("latent_posterior"), [1, 5, 10]
    series = {}
    for label, start in {"joint density": "joint density", "variational bound": "variational bound"}.items():
        block = text[text.index(start) :]
        series[label] = ([float(s) for s in shots], [within(row(block, str(shot))[0]) for shot in shots])
    return curves({"": series}, POINTS, "KL from NUTS, nats per point")


def recalibration_helps() -> "Figure":
    text = output("recalibration_helps")
    tables = ["hpo_adaboost", "physionet_gcs", "chickweight", "intel_lab", "glucose2"]
    series = {}
    for way in ("isotonic", "variance"):
        series[way] = [Point(*row(part(text, table), way)[:3]) for table in tables]
    return dots({"": (tables, series)}, "change of NLL, nats per point (negative is better)", at=0.0)


def conformal_covers() -> "Figure":
    text = output("conformal_covers")
    names: list[str] = []
    series: Series = {"Hierarchical": [], "FewShot": [], "Hierarchical, hard tasks": [], "FewShot, hard tasks": []}
    for title in ("sine waves, straight lines", "sine waves, constants", "clouds, too sure", "clouds, too timid"):
        block = part(text, title)
        for tasks in (20, 50, 200):
            found = re.search(rf"^ +0\.9 +{tasks} +0\.9 to [\d.]+ +(.*)$", block, flags=re.M)
            assert found is not None
            one, one_error, one_hard, _, _, two, two_error, two_hard, _, _ = numbers(found[1].replace("±", " "))
            names.append(f"{title}, K = {tasks}")
            for label, point in zip(
                series,
                [within(one, one_error), within(two, two_error), within(one_hard), within(two_hard)],
                strict=True,
            ):
                series[label].append(point)
    return dots({"": (names, series)}, "coverage of 90 % regions", at=0.9)


def sbc_is_uniform() -> "Figure":
    names, points, bars = [], [], []
    for line in output("sbc_is_uniform").splitlines()[1:]:
        found = re.match(r"^(.+?)  +(itself|NUTS) +\d+ +([\d.e-]+) +([\d.e-]+)  ", line)
        if found:
            names.append(found[1] + (", by NUTS" if found[2] == "NUTS" else ""))
            points.append(within(max(float(found[3]), 1e-6)))
            bars.append(within(float(found[4])))
    return dots(
        {"": (names, {"smallest p value": points, "threshold": bars})},
        "p value (below one millionth: drawn there)",
        log=True,
    )


def fidelity_to_nuts() -> "Figure":
    names = ["NUTS, another run", "MAML", "iMAML, Linearized", "iMAML, LinearizedDiagonal", "iMAML, PointEstimate",
             "CAVIA, Linearized", "LLAMA", "BMAML"]  # fmt: skip
    series = {}
    for family in ("linear", "sinusoid", "logistic"):
        block = part(output("fidelity_to_nuts"), f"{family}:")
        series[family] = [within(row(block, f"{name}  ")[0]) for name in names]
    return dots({"": (names, series)}, "KL from NUTS, nats per point", log=True)


def surprise_flags_shifted_families() -> "Figure":
    text = part(output("surprise_flags_shifted_families"), "AUC by")
    panels = {}
    for title, starts in {
        "larger shifts": ["frequency x 2 *", "amplitude x 2.5 *", "noise x 5 *"],
        "smaller shifts": ["frequency x 1.2", "amplitude x 1.5", "noise x 2"],
    }.items():
        own = {}
        for start in starts:
            values = row(text, start + "  ") if "*" not in start else row(text, start)
            own[start.replace(" *", "").split(" x")[0]] = ([*range(4)], [within(v) for v in values[:12:3]])
        panels[title] = own
    return curves(panels, POINTS, "AUC", at=0.9, names=["1", "2", "5", "10"])


def few_tasks_need_a_hyper_posterior() -> "Figure":
    text, series = output("few_tasks_need_a_hyper_posterior"), {}
    found = [
        re.search(
            rf"^all +{shot} +23 +([\d.]+) +[\d.]+ +\(([\d.]+) to ([\d.]+)\) +([\d.]+) +[\d.]+ +\(([\d.]+) to ([\d.]+)\)",
            text,
            flags=re.M,
        )
        for shot in (0, 1, 2)
    ]
    series["plug-in"] = [Point(*map(float, match.groups()[:3])) for match in found if match]
    series["averaged over theta"] = [Point(*map(float, match.groups()[3:])) for match in found if match]
    return dots({"": (["0 points", "1 point", "2 points"], series)}, "coverage of 90 % intervals", at=0.9)


def covariates_are_fixed_effects() -> "Figure":
    names, fixed, random, table = [], [], [], ""
    for line in output("covariates_are_fixed_effects").splitlines():
        found = re.match(r"^([a-z]\w*)? +1 +(-?[\d.]+) +(-?[\d.]+) +(-?[\d.]+) ", line)
        start = re.match(r"^([a-z]\w*) +0 ", line)
        table = start[1] if start else table
        if found:
            names.append(table)
            none = float(found[4])
            fixed.append(within(float(found[2]) - none))
            random.append(within(float(found[3]) - none))
    return dots(
        {"": (names, {"effects that tasks share": fixed, "random effects": random})},
        "NLL at 1 point, less that without covariates",
        at=0.0,
    )


def few_tasks_with_covariates() -> "Figure":
    sources = {"one network for all": ("few_tasks_with_covariates", "pooled"), "default (stack)": ("few_tasks_with_covariates", "stack"),
               "alpaca-linear": ("few_tasks_with_covariates", "alpaca-linear"), "alpaca": ("few_tasks_with_covariates", "alpaca"),
               "maml": ("few_tasks_with_covariates_maml", "maml"), "alpaca, network reads them": ("few_tasks_with_covariates_by_heart", "alpaca")}  # fmt: skip
    panels = {}
    for title, place in {"NLL without a point": 0, "coverage without a point": 4}.items():
        series: Series = {f"seed {seed}": [] for seed in (0, 1, 2)}
        for file, name in sources.values():
            for seed in (0, 1, 2):
                found = re.search(rf"^{name} +{seed}  +(.*)$", output(file), flags=re.M)
                series[f"seed {seed}"].append(within(numbers(found[1])[place]) if found else NONE)
        panels[title] = (list(sources), series)
    return dots(panels, "", columns=1, shared=False)


def meta_bo() -> "Figure":
    text, places = output("meta_bo"), [1.0, 2, 3, 5, 10, 15, 25]
    names = {
        "ALPaCA, task scale": "has seen other data sets",
        "SingleTaskGP, fresh": "fresh Gaussian process",
        "random": "random",
        "portfolio": "portfolio",
    }
    series = {label: (places, [within(v) for v in row(text, name)[3:10]]) for name, label in names.items()}
    return curves({"": series}, "evaluations", "mean regret, %", log=True)


def bandits() -> "Figure":
    text = output("bandits")
    names = {
        "Thompson, true prior": "true prior",
        "Thompson, ALPaCA  ": "learned prior",
        "Thompson, ALPaCA untrained": "untrained",
    }
    rows = [row(text, name) for name in names]
    series = {"in 200 steps": [within(*v[:2]) for v in rows], "in the first ten": [within(*v[2:4]) for v in rows]}
    return dots({"": (list(names.values()), series)}, "regret")


def architecture_search() -> "Figure":
    block = part(output("architecture_search"), "on 2,000 fresh tasks")
    found = re.findall(r"^(depth .+?|40-40 of the paper)  +(-[\d.]+) ± ([\d.]+)", block, flags=re.M)
    names = [f"{name}: found" if n == 0 else name for n, (name, _, _) in enumerate(found)]
    return dots(
        {"": (names, {"": [within(float(a), float(b)) for _, a, b in found]})},
        "log density per point (higher is better)",
    )


def alpaca_adapt_is_fast() -> "Figure":
    names, series = (
        [],
        {"loop over tasks": [], "original recursion": [], "gpytorch, a batch": [], "gpytorch, a loop": []},
    )  # type: ignore[var-annotated]
    for line in output("alpaca_adapt_is_fast").splitlines():
        found = re.match(r"^ *(\d+), (\d+)  (adapt \+ predict|predictive step|evidence step) (.*)$", line)
        if found:
            names.append(
                f"{found[1]} features, {found[2]} points, {found[3].replace(' + predict', ', predict').replace(' step', '')}"
            )
            ratios = [float(x) for x in re.findall(r"([\d.]+)x", found[4])]
            for label, ratio in zip(series, ratios[2:6], strict=True):
                series[label].append(within(ratio))
    return dots({"": (names, series)}, "times our time", log=True, at=1.0)


def _bars_of_speed(name: str) -> list[tuple[str, float, str, float]]:
    found = re.findall(r"^  (.+?)  +([\d.]+)   at (most|least) ([\d.]+) +(?:met|MISSED)", output(name), flags=re.M)
    return [(label, float(value), kind, float(bar)) for label, value, kind, bar in found]


def speed_bars_linear() -> "Figure":
    rows = _bars_of_speed("speed_bars_linear")
    share = [within(value / bar if kind == "least" else bar / value) for _, value, kind, bar in rows]
    names = [
        label.replace("ALPaCA, ", "")
        .replace(", in formulas", "")
        .replace(": thousand tasks a second, N = M = 5", ", tasks a second")
        for label, *_ in rows
    ]
    names = [
        name.replace(" 16,000 features: loop over tasks, in batches", " in batches").replace(": us a stream", "")
        for name in names
    ]
    return dots(
        {"": (names, {"": share})}, "share of the speed that the bar asks for (1 and above: met)", log=False, at=1.0
    )


def alpaca_update_time_is_flat() -> "Figure":
    text, places = part(output("alpaca_update_time_is_flat"), "streams"), [10.0, 100, 1000, 5000]
    panels = {}
    for streams in (1, 1024):
        rows = [numbers(line) for line in text.splitlines()[1:] if numbers(line)[0] == streams]
        panels[f"{streams:,} stream{'s' if streams > 1 else ''}"] = {
            "one more point": (places, [within(v[2]) for v in rows]),
            "fitting again": (places, [within(v[3]) for v in rows]),
        }
    return curves(panels, "points so far", "microseconds a stream", log=True, logx=True)


def speed_bars_gradient() -> "Figure":
    text = output("speed_bars_gradient")
    names, points = [], []
    for steps in (5, 1):
        for path in ("generic path", "dense path", "compiled"):
            found = re.search(
                rf"^  MAML, {steps} inner steps?: {path}, times the loop's speed +([\d.]+)", text, flags=re.M
            )
            if found:
                names.append(f"{steps} step{'s' if steps > 1 else ''}, {path.replace('dense path', 'MLP')}")
                points.append(within(float(found[1])))
        peers = re.search(
            rf"^  MAML, {steps} inner steps?: compiled.*learn2learn [\d.]+ ([\d.]+), jax [\d.]+, jit\(vmap\) ([\d.]+)",
            text,
            flags=re.M,
        )
        assert peers is not None
        names += [
            f"{steps} step{'s' if steps > 1 else ''}, JAX",
            f"{steps} step{'s' if steps > 1 else ''}, learn2learn",
        ]
        points += [within(float(peers[2])), within(float(peers[1]))]
    return dots({"": (names, {"": points})}, "times the speed of a loop over tasks", log=True, at=1.0)


def neural_process_throughput() -> "Figure":
    text = part(output("neural_process_throughput"), "meta-training, 64 tasks")
    names = {"ConvCNP": ("ConvCNP", "ConvCNP, same sizes and lattice"), "CNP": ("CNP", "CNP, same width"),
             "attentive CNP": ("CNP-attentive", "ACNP, same width"), "transformer beside attentive CNP": ("transformer", "ACNP, same width")}  # fmt: skip
    series = {
        "ours": [within(row(text, f"bayesmeta: {own}  ")[-1]) for own, _ in names.values()],
        "neuralprocesses": [within(row(text, f"peer: {peer}")[-1]) for _, peer in names.values()],
    }
    return dots({"": (list(names), series)}, "tasks a second, 64 tasks a step")


def heads() -> "Figure":
    text = part(output("heads"), "the dual of the SVM")
    names = ["5-way 1-shot", "5-way 5-shot", "20-way 1-shot", "5-way 15-shot"]
    rows = [row(text, name) for name in names]
    return dots(
        {"": (names, {label: [within(v[n]) for v in rows] for n, label in enumerate(["ours", "loop", "qpth"])})},
        "milliseconds an episode",
        log=True,
    )


def r2d2_episodes_per_second() -> "Figure":
    rows = [numbers(line) for line in output("r2d2_episodes_per_second").splitlines()[1:5]]
    series = {"": ([v[0] for v in rows], [within(v[2]) for v in rows])}
    return curves({"": series}, "episodes in a batch", "episodes a second", logx=True, limits=(0, 25))


def nuts_is_fast() -> "Figure":
    text, names = output("nuts_is_fast"), ["Pyro", "Pyro, jit", "bayesmeta"]
    return dots(
        {"": (names, {"": [within(row(text, f"{name}  ")[5]) for name in names]})}, "effective draws a second", log=True
    )


def speed_bars_chains() -> "Figure":
    names = ["eager, float64", "compiled, float64", "compiled, float32", "BlackJAX, float64", "BlackJAX, float32"]
    series = {}
    for line in output("speed_bars_chains").splitlines()[:2]:
        tasks = re.search(r"NUTS, (\d+) tasks", line)
        found = [re.search(rf"{name} ([\d,]+)", line.split("met ")[1]) for name in names]
        assert tasks is not None
        series[f"{tasks[1]} tasks"] = [within(float(match[1].replace(",", ""))) for match in found if match]
    return dots(
        {"": ([f"ours, {name}" if "Black" not in name else name for name in names], series)}, "effective draws a second"
    )


def exported_latency() -> "Figure":
    text = output("exported_latency")
    names = {"adapt and predict": "ALPaCA: adapt and predict               1", "update": "ALPaCA: update                          1",
             "predict": "ALPaCA: predict                         1", "neural process": "neural process: adapt and predict       1"}  # fmt: skip
    rows = [row(text, start) for start in names.values()]
    labels = ["API", "torch.export", "AOTInductor", "onnxruntime"]
    return dots(
        {
            "": (
                list(names),
                {label: [within(v[n]) if n < len(v) else NONE for v in rows] for n, label in enumerate(labels)},
            )
        },
        "microseconds for one task",
        log=True,
    )


def ten_million_tasks() -> "Figure":
    found = re.findall(r"(reading|converting|predicting|writing) ([\d.]+) %", output("ten_million_tasks"))
    return dots(
        {"": ([name for name, _ in found], {"": [within(float(value)) for _, value in found]})}, "share of the time, %"
    )


def ragged_tables_cost_their_rows() -> "Figure":
    text, stages = (
        output("ragged_tables_cost_their_rows"),
        ["read", "fit", "evidence", "evaluate", "surprise", "predict"],
    )
    series = {}
    for label, start in {
        "one task of 100,000 points, 10,000 of five": "10,000 x 5 + 1 x 100,000",
        "a million tasks of five": "1,000,000 x 5",
    }.items():
        series[label] = [
            within(numbers(re.search(rf"^{re.escape(start)} +{stage} +(.*)$", text, flags=re.M)[1])[1])
            for stage in stages
        ]  # type: ignore[index]
    return dots({"": (stages, series)}, "rows a second", log=True)


def many_processes() -> "Figure":
    found = re.findall(
        r"^(\w+, .+?)  +[\d,]+ +[\d,]+ +([\d.]+) \(([\d.]+) to ([\d.]+)\)", output("many_processes"), flags=re.M
    )
    return dots(
        {"": ([name for name, *_ in found], {"": [Point(*map(float, rest)) for _, *rest in found]})},
        "tasks a second, two processes over one",
        at=1.0,
    )


def test_slow() -> "Figure":
    found = re.findall(r"^([\d.]+)s call +\S+::test_(\S+)$", output("test_slow"), flags=re.M)
    names = [plain_label(name.replace("[", ", ").replace("]", "").replace("_", " "), 40) for _, name in found]
    return dots({"": (names, {"": [within(float(value)) for value, _ in found]})}, "seconds")


def outcomes_of_each_kind() -> "Figure":
    text, panels = output("outcomes_of_each_kind"), {}
    for title, start, names in [
        ("counts", "counts:", {"glmm (negative binomial)": "negative binomial", "glmm-poisson": "Poisson", "alpaca-linear, as numbers": "as numbers"}),
        ("positive numbers", "positive:", {"alpaca-linear, positive": "in logarithms", "alpaca-linear, as numbers": "as numbers"}),
    ]:  # fmt: skip
        block = part(text, start)
        panels[title] = {
            label: ([0.0, 1, 3], [within(v) for v in row(block, name)[:3]]) for name, label in names.items()
        }
    return _two_legends(panels, POINTS, "NLL, nats per point")


def _two_legends(panels: dict[str, dict[str, tuple[list[float], list[Point]]]], xlabel: str, ylabel: str) -> "Figure":
    figure = curves(panels, xlabel, ylabel, sharey=False)
    for legend in figure.legends:
        legend.remove()
    for ax in figure.axes:
        ax.legend(fontsize=8)
    return figure


def defaults_on_tables() -> "Figure":
    found = re.findall(
        r"^(\w+)\*? +(\d) +\d+ .* ([-+][\d.]+) ± ([\d.]+)(?: !)?$", output("defaults_on_tables"), flags=re.M
    )
    tables = list(dict.fromkeys(name for name, *_ in found))
    series: Series = {}
    for shot, label in {"0": "0 points", "1": "1 point", "2": "2 points", "5": "5 points"}.items():
        own = {name: within(float(a), float(b)) for name, number, a, b in found if number == shot}
        series[label] = [own.get(name, NONE) for name in tables]
    return dots({"": (tables, series)}, "NLL of the default less the better of the two others", at=0.0)


def default_with_many_tasks() -> "Figure":
    text, shots = part(output("default_with_many_tasks"), "500 tasks x 10 rows"), [0.0, 1, 2, 5]
    rows = [row(text, f"{shot:.0f}") for shot in shots]
    series = {
        label: (shots, [within(v[n]) for v in rows]) for n, label in enumerate(["true prior", "default", "alpaca"])
    }
    return curves({"": series}, POINTS, "NLL, nats per point")


def stacking_is_near_the_best() -> "Figure":
    text, tables = output("stacking_is_near_the_best"), ["sleepstudy", "rats", "soybean"]
    series = {
        way: [within(*row(part(text, table), f"regret of {way}")) for table in tables] for way in ("chosen", "stacked")
    }
    return dots({"": (tables, series)}, "regret to the best candidate in hindsight, nats per point", at=0.0)


DRAWN: dict[str, Callable[[], "Figure"]] = {
    name: value
    for name, value in list(globals().items())
    if callable(value) and getattr(value, "__module__", "") == __name__ and getattr(value, "__code__", None)
    and value.__code__.co_argcount == 0 and not name.startswith("_") and name != "main"
}  # fmt: skip


def main() -> None:
    """Draw the figures that are named, or all."""
    parser = argparse.ArgumentParser(description="Draw the figures of docs/benchmarks from the recorded outputs.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(DRAWN)}")
    for name in parser.parse_args().names or DRAWN:
        write(name, FIGURES)


def write(name: str, folder: Path) -> Path:
    """Draw one figure into a folder."""
    with mpl.rc_context(STYLE):
        path = folder / f"{name}.svg"
        svg_figures.save(DRAWN[name](), path)
    return path


if __name__ == "__main__":
    main()
