"""`report(learner, tasks).write("report.html")`: what a learner does on held-out tasks, for people who decide."""

import contextlib
import os
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from bayesmeta.checks.surprise import Surprise, shrinkage
from bayesmeta.data import Data
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.evaluation.conclusions import Conclusion, Verdict, conclusions, main_shots, unlike
from bayesmeta.evaluation.evaluate import evaluate
from bayesmeta.evaluation.scores import Evaluation, ShotScores
from bayesmeta.learner import Learner
from bayesmeta.reporting import figures, page
from bayesmeta.reporting.figures import Panel
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.source import RandomSplit, Split
from bayesmeta.tasks.table import Schema
from bayesmeta.version import VERSION

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS = 10  # of a list of tasks
MOST_OUTPUTS = 3  # outcomes that are drawn; all of them are scored


@dataclass(frozen=True, eq=False)
class Report:
    """An evaluation with its conclusions and figures. Printing it shows the conclusions; `write` makes the page.

    Attributes:
        evaluation: the scores.
        conclusions: what they say.
        title: of the page.
        facts: (name, value) lines below the title.
        learner: what was judged, with parameters of its own.
        examples: the tasks that are drawn, (why, name, points in the order they are taken, numbers of shots).
        along: the input that is drawn, where one varies within a task.
        labels: names of that input and of the outcomes.
        spread: width of the range that holds the central share `evaluation.level` of all outcomes, units of y.
        surprise: p-value of each task (`Surprise`) and how much the prior decides (`shrinkage`), NaN where not known.
    """

    evaluation: Evaluation
    conclusions: tuple[Conclusion, ...]
    title: str
    facts: tuple[tuple[str, str], ...]
    learner: Learner
    examples: tuple[tuple[str, Hashable, Data, tuple[int, ...]], ...] = ()
    along: int | None = None
    labels: tuple[str, tuple[str, ...]] = ("x", ("y",))
    spread: float | None = None
    surprise: "pd.DataFrame | None" = None

    def __str__(self) -> str:
        """The conclusions as text."""
        return "\n".join([self.title, *(f"- {each}" for each in self.conclusions)])

    __repr__ = __str__

    def html(self) -> str:
        """The page: one file, nothing to load."""
        return self._page(self._panels())

    def write(self, path: str | Path, figures: str | Path | None = None) -> None:
        """Write the page, and the figures as PNG files into a folder when one is given.

        A page that is there already is replaced in one step.

        Raises:
            DataError: the file or the folder cannot be written.
        """
        path, folder = Path(path), None if figures is None else Path(figures)
        if path.is_dir() or not path.absolute().parent.is_dir():  # before the figures are drawn rather than after it
            raise DataError(f"expected a file that can be written, in a folder that exists, got {path}")
        try:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"expected a folder that can be written, got {folder}: {error}") from error
        panels = self._panels()
        _write(path, self._page(panels).encode())
        if folder is None:
            return
        for group in panels.values():
            for panel in group:
                _write(folder / f"{panel.name}.png", panel.bytes("png"))

    @property
    def _results(self) -> list[ShotScores]:
        """Rows with tasks, by shots."""
        return sorted((result for result in self.evaluation.results if result.names), key=lambda r: r.shots)

    def _panels(self) -> dict[str, list[Panel]]:
        evaluation, classifier = self.evaluation, self._results[0].pit is None
        unit = ", ".join(self.labels[1][:MOST_OUTPUTS])
        errors = (("accuracy", "Share of right answers", "")) if classifier else (("rmse", "RMSE", unit))
        chosen = [self._results[i] for i in _spread_out(self._at_main() + 1, 3)]
        panels = {
            "scores": [figures.score_panel(evaluation, *each) for each in (errors, ("nll", "NLL", "nats a point"))],
            "calibration": [figures.reliability_panel(evaluation, result) for result in chosen],
        }
        if not classifier:
            panels["calibration"] += [figures.pit_panel(evaluation, result) for result in chosen]
            panels["sharpness"] = [figures.width_panel(evaluation, self.spread, unit)]
        for number, (_, _, data, shots) in enumerate(self.examples):
            panels[f"task {number}"] = self._task_panels(number, data, shots)
        return panels

    def _task_panels(self, number: int, data: Data, shots: tuple[int, ...]) -> list[Panel]:
        panels = []
        for output, label in enumerate(self.labels[1][:MOST_OUTPUTS]):
            name = f"task-{number + 1}" if len(self.labels[1]) == 1 else f"task-{number + 1}-outcome-{output + 1}"
            if self.along is None:
                level = self.evaluation.level
                panels += figures.interval_panels(self.learner, data, shots, level, output, label, name)
            else:
                labels = (self.labels[0], label)
                panels += figures.band_panels(self.learner, data, shots, self.along, output, labels, name)
        return panels

    def _at_main(self) -> int:
        main = main_shots(self.evaluation)
        return next(i for i, result in enumerate(self._results) if result.shots == main)

    def _page(self, panels: dict[str, list[Panel]]) -> str:
        sections = [
            page.Section("conclusions", "What to conclude", self._conclusions()),
            page.Section("scores", "Scores by shots", self._scores(panels["scores"])),
            page.Section("calibration", "Calibration", self._calibration(panels["calibration"])),
        ]
        if "sharpness" in panels:
            sections.append(page.Section("sharpness", "Sharpness", _sharpness(panels["sharpness"])))
        sections.append(page.Section("worst", "Worst tasks", self._worst()))
        sections.append(page.Section("surprise", "Surprise", self._surprise()))
        if self.examples:
            sections.append(page.Section("tasks", "A few tasks", self._tasks(panels)))
        sections.append(page.Section("terms", "Terms", page.terms(_terms(self.evaluation, self._results[0]))))
        return page.page(self.title, self.facts, sections)

    def _conclusions(self) -> str:
        text = (
            "Every sentence follows from the numbers below by a fixed rule. Intervals are over tasks, and for each "
            "question of 95 % for all numbers of shots together; shares are means over tasks. “Cannot tell” means that "
            "the tasks at hand leave both answers open. Shots: how many points of a new task are known before the "
            "others are predicted."
        )
        return page.paragraph(text) + page.listed(self.conclusions)

    def _scores(self, panels: list[Panel]) -> str:
        intro = page.paragraph(
            "Small: 95 % interval, by resampling tasks. With few tasks such intervals are somewhat too short; "
            "the sentences above use wider ones."
        )
        return intro + self._table() + _drawn(panels)

    def _table(self) -> str:
        table = self.evaluation.table().query("tasks > 0").sort_index()
        shown = {
            "nll": "NLL",
            "rmse": "RMSE",
            "crps": "CRPS",
            "accuracy": "right answers",
            "brier": "Brier score",
            "coverage": f"{100 * self.evaluation.level:g} % coverage",
            "width": "width",
            "regret": "regret",
        }
        errors = {"calibration_error": "calibration_noise", "ece": "ece_noise"}
        names = [name for name in shown if name in table]
        error = next(name for name in errors if name in table)
        rows: list[list[str | tuple[str, str]]] = []
        for shots, row in table.iterrows():
            cells: list[str | tuple[str, str]] = [str(shots), f"{row['tasks']:.0f}", f"{row['points']:.0f}"]
            for name in names:
                percent = name in ("coverage", "accuracy")
                cells.append(_cell(row[name], row[f"{name}_low"], row[f"{name}_high"], percent))
            noise = row[errors[error]]
            cells.append((f"{row[error]:.3f}", f"noise {noise:.3f}" if np.isfinite(noise) else ""))
            rows.append(cells)
        heads = ["shots", "tasks", "points", *(shown[name] for name in names), "calibration error"]
        return page.table(heads, rows, "Scores by shots")

    def _calibration(self, panels: list[Panel]) -> str:
        if self._results[0].pit is None:
            text = (
                "On the diagonal, answers are right as often as they claim. Below it: over-confident. "
                "Grey: the share of points at each confidence."
            )
        else:
            text = (
                "Reliability: on the diagonal, the model means what it says. PIT histogram: flat when it does; walls "
                "at both ends mean intervals that are too narrow, a hump in the middle too wide ones, a slope a bias. "
                "The grey band of the histogram takes points as independent; those of one task are not, so with few "
                "tasks bars leave it more often than one time in twenty."
            )
        return page.paragraph(text) + _drawn(panels)

    def _worst(self) -> str:
        shots = main_shots(self.evaluation)
        worst = self.evaluation.worst(MOST_ROWS, shots)
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

    def _surprise(self) -> str:
        if self.surprise is None:
            return page.paragraph("Not judged: there are no reference tasks to compare with.")
        intro = page.paragraph(
            "p: the share of reference tasks that are as unusual or more so, by how large, how smooth and how likely "
            "their outcomes are under the learned prior, judged by as many points as these. The smallest comes first. "
            "Where tasks of this page are among the reference tasks, their p is a little too large. Prior: the share "
            "of the variance of the curve that is left after all points; 100 % where the prior decides alone."
        )
        rows = []
        for row in self.surprise.head(MOST_ROWS).to_dict("records"):
            p, share = row["p_value"], row["shrinkage"]
            cells = [f"{p:.2g}" if p == p else "", f"{100 * share:.0f} %" if share == share else ""]
            rows.append([str(row["task"]), str(row["points"]), *cells])
        more = len(self.surprise) - len(rows)
        end = page.paragraph(f"{more} more with larger p.", "quiet") if more > 0 else ""
        return intro + page.table(["task", "points", "p", "prior"], rows, "Surprise", text_columns=(0,)) + end

    def _tasks(self, panels: dict[str, list[Panel]]) -> str:
        if self.along is None:
            text = (
                "Several inputs vary within a task, so points are shown in the order of their outcomes. Dot: outcome. "
                "Bar and dash: interval and mean of its prediction."
            )
        else:
            text = (
                "Line: mean. Dark and light band: 50 and 90 %, noise included. Black: the points that are known. "
                "Grey: points that are not."
            )
        if len(self.labels[1]) > MOST_OUTPUTS:
            text += f" Of {len(self.labels[1])} outcomes the first {MOST_OUTPUTS} are drawn."
        parts = [page.paragraph(text)]
        for number, (why, name, _, _) in enumerate(self.examples):
            head = page.escape(f"{why}: task {name}")
            parts.append(f"<h3>{head}</h3>{_drawn(panels[f'task {number}'], narrow=True)}")
        return "".join(parts)


def report(
    learner: Learner,
    tasks: TaskDataset,
    shots: Sequence[int] = (0, 1, 2, 5, 10),
    *,
    split: type[Split] = RandomSplit,
    query: int | None = None,
    level: float = 0.9,
    num_bootstrap: int = 1000,
    seed: int = 0,
    examples: int = 3,
    surprise: Surprise | None = None,
    trained_on: Collection[Hashable] = (),
    title: str | None = None,
    facts: Sequence[tuple[str, str]] = (),
) -> Report:
    """Evaluate a learner on tasks that it was not trained on, and say what follows from that.

    Args:
        learner: what is judged; it is left as it was.
        tasks: held-out tasks.
        shots: numbers of support points.
        split: as in `evaluate`.
        query: as in `evaluate`.
        level: probability of the intervals whose coverage is judged.
        num_bootstrap: resamplings of the tasks for the table.
        seed: of the division into support and query, and of the bootstrap.
        examples: how many tasks are drawn, from the worst to the best; of a classifier none is.
        surprise: reference tasks, with which these are compared.
        trained_on: names of the tasks of the training, compared as text: if some are among the tasks, the page says so.
        title: of the page.
        facts: (name, value) lines below the title, such as where the tasks come from.

    Raises:
        DataError: like `evaluate`, or a negative number of examples.
    """
    if examples < 0:
        raise DataError(f"expected a number of examples that is not negative, got {examples}")
    evaluation = evaluate(
        learner, tasks, shots, split=split, query=query, level=level, num_bootstrap=num_bootstrap, seed=seed
    )
    regression = tasks.data.y.is_floating_point()
    spread = _range_of_outcomes(tasks.data, level) if regression else None
    how = {"RandomSplit": "known points drawn at random", "PrefixSplit": "known points are the first of each task"}
    schema = tasks.schema
    told = [
        *([("Columns", _columns(schema))] if schema else []),
        ("Learner", evaluation.learner),
        ("Tasks", f"{len(tasks)}, of {int(tasks.data.counts.min())} to {int(tasks.data.counts.max())} points"),
        ("Division", f"{how.get(split.__name__, split.__name__)}, seed {seed}"),
        ("Made with", f"bayesmeta {VERSION}"),
    ]
    seen = {str(name) for name in trained_on} & {str(name) for name in tasks.names}
    warning = (
        f"{len(seen)} of the {len(tasks)} tasks are of the training: for new tasks expect worse than what is below."
    )
    first = (Conclusion("Trained on", Verdict.PROBLEM, warning),) if seen else ()
    last: tuple[Conclusion, ...] = ()
    along = _along(tasks.data) if regression else None
    compared = None if surprise is None else _compared(learner, tasks, surprise)
    if compared is not None and compared["p_value"].notna().any():
        judged = compared.dropna(subset="p_value")
        last = (unlike(judged["task"].tolist(), *(judged[name].to_numpy() for name in ("p_value", "smallest"))),)
    outcomes = tasks.data.y.shape[-1] if regression else 1
    y_labels = schema.y if schema else ("y",) if outcomes == 1 else tuple(f"y{i + 1}" for i in range(outcomes))
    x_label = "x" if along is None or schema is None else schema.x_names[along]
    return Report(
        evaluation=evaluation,
        conclusions=(*first, *conclusions(evaluation, spread), *last),
        title=f"Report on {evaluation.learner}" if title is None else title,
        facts=(*facts, *told),
        learner=learner.frozen(),
        examples=_examples(tasks, evaluation, split, query, seed, examples) if regression else (),
        along=along,
        labels=(x_label, y_labels),
        spread=spread,
        surprise=compared,
    )


def _examples(
    tasks: TaskDataset, evaluation: Evaluation, split: type[Split], query: int | None, seed: int, number: int
) -> tuple[tuple[str, Hashable, Data, tuple[int, ...]], ...]:
    """Tasks from the worst to the best, their points in the order in which the evaluation took them."""
    main = evaluation.at(main_shots(evaluation))
    order = np.argsort(-main.scores["nll"], kind="stable")
    chosen = []
    for place in _spread_out(len(order), number):
        name = main.names[order[place]]
        rank = {0: "Worst", len(order) - 1: "Best"}.get(place, f"Rank {place + 1} of {len(order)} from the worst")
        if place == (len(order) - 1) // 2 and 0 < place < len(order) - 1:
            rank = "Typical"
        row = tasks.names.index(name)
        room = int(split.room(tasks.data.select([row])))
        fitting = sorted(shots for shots in evaluation.shots if shots <= room)
        batch = tasks.divided(split.at(fitting[-1], query), seed)
        parts = [part.select([row]) for part in (batch.support, batch.query)]
        x, y = (torch.cat([getattr(part, kind)[part.mask] for part in parts])[None] for kind in ("x", "y"))
        ordered = Data(x, y, torch.ones(y.shape[:2], dtype=torch.bool))
        shown = tuple(fitting[i] for i in _spread_out(len(fitting), 4))
        chosen.append((rank, name, ordered, shown))
    return tuple(chosen)


def _compared(learner: Learner, tasks: TaskDataset, surprise: Surprise) -> "pd.DataFrame":
    """One row for each task, the most surprising first; a task with fewer points than were calibrated at has no p."""
    import pandas as pd

    values = np.full((3, len(tasks)), np.nan)
    able = (tasks.data.counts >= min(surprise.statistics)).nonzero().flatten().tolist()
    if able:
        data = tasks.select(able).data
        values[:2, able] = surprise.p_value(data).numpy(), surprise.smallest_p_value(data).numpy()
    with contextlib.suppress(UnsupportedError):  # where f and its noise are one to the learner
        values[2] = shrinkage(learner, tasks.data).numpy()
    columns = dict(zip(("p_value", "smallest", "shrinkage"), values, strict=True))
    frame = pd.DataFrame({"task": list(tasks.names), "points": tasks.data.counts.tolist(), **columns})
    return frame.sort_values("p_value", kind="stable", ignore_index=True)


def _spread_out(count: int, number: int) -> list[int]:
    """Up to `number` different places among `count`, the first and the last with them."""
    return sorted({round(place) for place in np.linspace(0, count - 1, min(number, count))})


def _columns(schema: Schema) -> str:
    """reaction from days, arm, by subject."""
    inputs = [*schema.x, *schema.covariates]
    source = f" from {', '.join(inputs)}" if inputs else ""
    return f"{', '.join(schema.y)}{source}, by {schema.task}"


def _along(data: Data) -> int | None:
    """The one input that varies within tasks; None where there are several, or where inputs are not numbers."""
    if data.x.ndim != 3 or data.x.shape[-1] == 0:
        return None
    first = data.x[torch.arange(data.num_tasks), data.mask.int().argmax(1)][:, None]
    varying = ((data.x != first) & data.mask[..., None]).flatten(0, 1).any(0).nonzero().flatten().tolist()
    if len(varying) > 1:
        return None
    return varying[0] if varying else 0


def _range_of_outcomes(data: Data, level: float) -> float:
    """Mean over outcomes of the width of the range that holds their central share."""
    y = data.y[data.mask].double()
    low, high = (y.quantile(p, dim=0) for p in (0.5 - 0.5 * level, 0.5 + 0.5 * level))
    return float((high - low).mean())


def _drawn(panels: list[Panel], narrow: bool = False) -> str:
    return page.figures([page.figure(panel.bytes("svg"), panel.alt, panel.caption) for panel in panels], narrow)


def _sharpness(panels: list[Panel]) -> str:
    text = (
        "Of two models whose intervals hold what they promise, the one with the narrower intervals is better. "
        "The dashed line is what one would say without knowing the task or its inputs."
    )
    return page.paragraph(text) + _drawn(panels)


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


def _terms(evaluation: Evaluation, result: ShotScores) -> list[tuple[str, str]]:
    known = {
        "nll": ("NLL", "Minus the log density of an outcome under its prediction, nats a point, mean over tasks. Lower "
                "is better; its zero means nothing."),
        "rmse": ("RMSE", "Root mean squared error of a task, in units of the outcome, mean over tasks."),
        "crps": ("CRPS", "Continuous ranked probability score: the absolute error of a prediction that is a "
                 "distribution, in units of the outcome."),
        "coverage": (f"{100 * evaluation.level:g} % coverage, width", "The share of outcomes that lie in the central "
                     f"intervals of probability {evaluation.level:g}, and the mean width of these."),
        "accuracy": ("Right answers", "The share of points whose most probable class is theirs."),
        "brier": ("Brier score", "Squared distance of the class probabilities from the truth, 0 to 2."),
        "regret": ("Regret", "NLL minus that of the exact Bayes predictive, which is known for simulated tasks."),
    }  # fmt: skip
    error = (
        "Calibration error",
        "How far the reliability diagram is from the diagonal, over the points of all tasks; noise: about the error "
        "that a calibrated model would show with these tasks.",
    )
    pit = ("PIT", "F(y), the predicted probability of a smaller outcome than the one that came. Uniform if right.")
    listed = [value for name, value in known.items() if name in result.scores]
    return [*listed, error, *([pit] if result.pit is not None else [])]


def _write(path: Path, content: bytes) -> None:
    part = path.with_name(path.name + ".new")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise DataError(f"expected a file that can be written, got {path}: {error}") from error
