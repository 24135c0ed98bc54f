"""The sections of a report as HTML: what each says about an evaluation, and the words around its figures."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesmeta.evaluation.conclusions import Conclusion, main_shots
from bayesmeta.evaluation.scores import Evaluation
from bayesmeta.one_line import several
from bayesmeta.reporting import page
from bayesmeta.reporting.figures import Panel

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS = 10  # of a list of tasks
MOST_CLASSES = 12  # that all have a column


def conclusions(found: Sequence[Conclusion]) -> str:
    """What to conclude, and how the sentences came about."""
    text = (
        "Every sentence follows from the numbers below by a fixed rule. Intervals are over tasks, and for each "
        "question of 95 % for all numbers of shots together; shares are means over tasks. “Cannot tell” means that "
        "the tasks at hand leave both answers open. Shots: how many points of a new task are known before the "
        "others are predicted. An arrow says what to do next."
    )
    return page.paragraph(text) + page.listed(found)


def scores(
    evaluation: Evaluation,
    outcomes: Mapping[str, Evaluation],
    baselines: Mapping[str, Evaluation],
    panels: Mapping[str, list[Panel]],
) -> str:
    """The tables of scores by shots, and their figures; of several outcomes those of each below what is of all."""
    intro = page.paragraph(
        "Every number is a mean over tasks, so that tasks count alike. Small: 95 % interval, by resampling tasks. With "
        "few tasks such intervals are somewhat too short; the sentences above use wider ones."
    )
    if len(outcomes) < 2:
        (only,) = outcomes
        return (
            intro
            + _table(evaluation)
            + _beside(evaluation, baselines)
            + drawn(panels["nll"] + panels[f"scores {only}"])
        )
    parts = [intro, _heading("All outcomes together"), _table(evaluation), _beside(evaluation, baselines)]
    parts.append(drawn(panels["nll"]))
    for name, own in outcomes.items():
        parts += [_heading(name), _table(own), drawn(panels[f"scores {name}"])]
    return "".join(parts)


def calibration(classifier: bool, outcomes: Sequence[str], panels: Mapping[str, list[Panel]]) -> str:
    """Reliability diagrams, and in regression PIT histograms, with how to read them."""
    if classifier:
        text = (
            "On the diagonal, answers are right as often as they claim. Below it: over-confident. "
            "Grey: the share of points at each confidence."
        )
    else:
        text = (
            "Reliability: on the diagonal, the model means what it says; what the line rises by between two levels is "
            "the coverage of the interval between them. PIT histogram: flat when the model means what it says; walls "
            "at both ends mean intervals that are too narrow, a hump in the middle too wide ones, a slope a bias. "
            "The grey band of the histogram takes points as independent; those of one task are not, so with few "
            "tasks bars leave it more often than one time in twenty."
        )
    return page.paragraph(text) + _of_each("calibration", outcomes, panels)


def sharpness(outcomes: Sequence[str], panels: Mapping[str, list[Panel]]) -> str:
    """Widths of the intervals."""
    text = (
        "Of two models whose intervals hold what they promise, the one with the narrower intervals is better. "
        "The dashed line is what one would say without knowing the task or its inputs."
    )
    return page.paragraph(text) + _of_each("sharpness", outcomes, panels)


def training(lines: Sequence[str]) -> str:
    """How the model was trained."""
    return page.lines(lines)


def classes(evaluation: Evaluation) -> str:
    """How often each class came, and as what it was predicted."""
    shots = main_shots(evaluation)
    table = evaluation.confusion(shots)
    named = [str(name) for name in table.index]
    intro = page.paragraph(
        f"Points not seen at {several(shots, 'shot')}, all tasks together: the class that came, and what its points "
        "were predicted as. A frequent class is often the most probable one of nearly all points; whether "
        "the probabilities are right is what calibration says."
    )
    rows: list[list[str | tuple[str, str]]] = []
    for name, counts in zip(named, table.to_numpy(), strict=True):
        total = int(counts.sum())
        shares = [(str(count), f"{100 * count / total:.0f} %" if total else "") for count in counts.tolist()]
        rows.append([name, str(total), *(shares if len(named) <= MOST_CLASSES else [shares[len(rows)]])])
    heads = [
        "class",
        "points",
        *([f"as {name}" for name in named] if len(named) <= MOST_CLASSES else ["right answers"]),
    ]
    return intro + page.table(heads, rows, "Classes", text_columns=(0,))


def worst_tasks(evaluation: Evaluation) -> str:
    """The tasks that were predicted worst."""
    shots = main_shots(evaluation)
    worst = evaluation.worst(MOST_ROWS, shots)
    shown = {"nll": "NLL", "rmse": "RMSE", "accuracy": "right answers", "coverage": "coverage"}
    names = [name for name in shown if name in worst]
    rows = []
    for row in worst.to_dict("records"):
        values = [
            f"{100 * row[name]:.0f} %" if name in ("accuracy", "coverage") else f"{row[name]:.3g}" for name in names
        ]
        rows.append([str(row["task"]), str(row["points"]), *values])
    intro = page.paragraph(
        f"By NLL at {shots} shots. Some task is always last; look whether it is a fault of the data, or a kind of "
        "task that the training did not have."
    )
    return intro + page.table(
        ["task", "points scored", *(shown[name] for name in names)], rows, "Worst tasks", text_columns=(0,)
    )


def surprise(compared: "pd.DataFrame | None") -> str:
    """The tasks that are least like the reference tasks; None where there are none to compare with."""
    if compared is None:
        return page.paragraph("Not judged: there are no reference tasks to compare with.")
    intro = page.paragraph(
        "p: the share of reference tasks that are as unusual or more so, by how large, how smooth and how likely "
        "their outcomes are under the learned prior, judged by as many points as these. The smallest comes first. "
        "Where tasks of this page are among the reference tasks, their p is a little too large. Prior: the share "
        "of the variance of the curve that is left after all points; 100 % where the prior decides alone."
    )
    rows = []
    for row in compared.head(MOST_ROWS).to_dict("records"):
        p, share = row["p_value"], row["shrinkage"]
        cells = [f"{p:.2g}" if p == p else "", f"{100 * share:.0f} %" if share == share else ""]
        rows.append([str(row["task"]), str(row["points"]), *cells])
    more = len(compared) - len(rows)
    end = page.paragraph(f"{more} more with larger p.", "quiet") if more > 0 else ""
    return intro + page.table(["task", "points", "p", "prior"], rows, "Surprise", text_columns=(0,)) + end


def example_tasks(groups: Sequence[tuple[str, list[Panel]]], one_varies: bool, left_out: str) -> str:
    """A few tasks with their predictions.

    Args:
        groups: the heading of each task, and its figures.
        one_varies: whether a single input varies within tasks, along which predictions are drawn.
        left_out: a sentence on outcomes that are not drawn, or nothing.
    """
    if one_varies:
        text = (
            "Line: mean. Bands: 50 and 90 %, noise included. Large dots: the points that are known. Small dots: points "
            "that are not."
        )
    else:
        text = (
            "Several inputs vary within a task, so points are shown in the order of their outcomes. Dot: outcome. "
            "Bar and dash: interval and mean of its prediction."
        )
    parts = [page.paragraph(f"{text} {left_out}".rstrip())]
    for heading, panels in groups:
        parts.append(f"<h3>{page.escape(heading)}</h3>{drawn(panels, narrow=True)}")
    return "".join(parts)


def terms(evaluation: Evaluation) -> str:
    """What the words of the page mean."""
    result = next(result for result in evaluation.results if result.names)
    known = {
        "nll": ("NLL", "Minus the log density of an outcome under its prediction, nats a point, mean over tasks. Lower "
                "is better; its zero means nothing."),
        "rmse": ("RMSE", "Root mean squared error of a task, in units of the outcome, mean over tasks."),
        "crps": ("CRPS", "Continuous ranked probability score: the absolute error of a prediction that is a "
                 "distribution, in units of the outcome."),
        "coverage": (f"{100 * evaluation.level:g} % coverage, width", "The share of a task's outcomes that lie in the "
                     f"central intervals of probability {evaluation.level:g}, mean over tasks, and the mean width."),
        "accuracy": ("Right answers", "The share of a task's points whose most probable class is theirs."),
        "brier": ("Brier score", "Squared distance of the class probabilities from the truth, 0 to 2."),
        "regret": ("Regret", "NLL minus that of the exact Bayes predictive, which is known for simulated tasks."),
    }  # fmt: skip
    error = (
        "Calibration error",
        "How far the reliability diagram is from the diagonal; noise: about the error that a calibrated model would "
        "show with these tasks.",
    )
    pit = ("PIT", "F(y), the predicted probability of a smaller outcome than the one that came. Uniform if right.")
    scored = {*result.scores, *(name for own in result.by_outcome for name in own)}
    listed = [value for name, value in known.items() if name in scored]
    return page.terms([*listed, error, *([pit] if result.pit is not None else [])])


def drawn(panels: list[Panel], narrow: bool = False) -> str:
    """The figures, inside of the page."""
    return page.figures([page.figure(panel.inline(), panel.caption) for panel in panels], narrow)


def _of_each(section: str, outcomes: Sequence[str], panels: Mapping[str, list[Panel]]) -> str:
    """The figures of a section, of several outcomes below their names."""
    heads = [_heading(name) if len(outcomes) > 1 else "" for name in outcomes]
    return "".join(head + drawn(panels[f"{section} {name}"]) for head, name in zip(heads, outcomes, strict=True))


def _heading(text: str) -> str:
    return f"<h3>{page.escape(text)}</h3>"


def _beside(evaluation: Evaluation, baselines: Mapping[str, Evaluation]) -> str:
    """The NLL next to that of each baseline, on the same tasks and points."""
    if not baselines:
        return ""
    rows: list[list[str | tuple[str, str]]] = []
    table = _rows(evaluation)
    others = {name: _rows(other) for name, other in baselines.items()}
    for shots, row in table.items():
        each = [row, *(other[shots] for other in others.values())]
        rows.append([str(shots), *(_interval(one, "nll") for one in each)])
    text = (
        "The same tasks and points, predicted by what does not learn from a task's own points, or not from other tasks."
    )
    heads = ["shots", "NLL", *(f"NLL, {name}" for name in baselines)]
    return page.paragraph(text) + page.table(heads, rows, "Beside the baselines")


def _rows(evaluation: Evaluation) -> "dict[Any, pd.Series[Any]]":
    """The rows of the table that have tasks, by shots."""
    table = evaluation.table().query("tasks > 0").sort_index()
    return dict(table.iterrows())


def _interval(row: "pd.Series[Any]", name: str, percent: bool = False) -> tuple[str, str]:
    return _cell(row[name], row[f"{name}_low"], row[f"{name}_high"], percent)


def _table(evaluation: Evaluation) -> str:
    table = _rows(evaluation)
    names_of_columns = next(iter(table.values())).index
    shown = {
        "nll": "NLL",
        "rmse": "RMSE",
        "crps": "CRPS",
        "accuracy": "right answers",
        "brier": "Brier score",
        "coverage": f"{100 * evaluation.level:g} % coverage",
        "width": "width",
        "regret": "regret",
    }
    errors = {"calibration_error": "calibration_noise", "ece": "ece_noise"}
    names = [name for name in shown if name in names_of_columns]
    error = next(name for name in errors if name in names_of_columns)
    rows: list[list[str | tuple[str, str]]] = []
    for shots, row in table.items():
        cells: list[str | tuple[str, str]] = [str(shots), f"{row['tasks']:.0f}", f"{row['points']:.0f}"]
        cells += [_interval(row, name, percent=name in ("coverage", "accuracy")) for name in names]
        noise = row[errors[error]]
        cells.append((f"{row[error]:.3f}", f"noise {noise:.3f}" if np.isfinite(noise) else ""))
        rows.append(cells)
    heads = ["shots", "tasks", "points", *(shown[name] for name in names), "calibration error"]
    return page.table(heads, rows, "Scores by shots")


def _cell(value: float, low: float, high: float, percent: bool) -> tuple[str, str]:
    """The value with as many digits as its interval bears, and the interval."""
    scale, end = (100.0, " %") if percent else (1.0, "")
    value, low, high = (scale * v for v in (value, low, high))
    if not np.isfinite(value):
        return f"{value}", ""
    half = 0.5 * (high - low)
    if not np.isfinite(half):
        return f"{value:.4g}{end}", ""
    decimals = 0 if percent else int(np.clip(1 - np.floor(np.log10(half)), 0, 4)) if half > 1e-12 else 3
    low_text, high_text = (f"{v:.{decimals}f}".replace("-", "\N{MINUS SIGN}") for v in (low, high))
    return f"{value:.{decimals}f}{end}".replace("-", "\N{MINUS SIGN}"), f"{low_text} to {high_text}"
