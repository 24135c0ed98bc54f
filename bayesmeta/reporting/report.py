"""`report(learner, tasks).write("report.html")`: what a learner does on held-out tasks, for people who decide."""

import contextlib
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from bayesmeta.arguments import whole
from bayesmeta.checks.surprise import Surprise, shrinkage
from bayesmeta.errors import UnsupportedError
from bayesmeta.evaluation.conclusions import Conclusion, Verdict, conclusions, main_shots, unlike
from bayesmeta.evaluation.evaluate import evaluate
from bayesmeta.evaluation.scores import Evaluation, ShotScores
from bayesmeta.learner import Learner
from bayesmeta.outputs import require_folder, require_outputs, require_writable, write
from bayesmeta.reporting import figures, page, sections
from bayesmeta.reporting.examples import Example, examples_of, spread_out, varying_input
from bayesmeta.reporting.figures import Panel
from bayesmeta.task_names import texts
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.source import RandomSplit, Split
from bayesmeta.tasks.table import Schema
from bayesmeta.version import VERSION

if TYPE_CHECKING:
    import pandas as pd

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
        examples: the tasks that are drawn.
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
    examples: tuple[Example, ...] = ()
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

        A page that is there already is replaced in one step. Folders are made.

        Raises:
            DataError: the file or the folder cannot be written.
        """
        path = Path(path)
        require_writable(path)  # before the figures are drawn rather than after it
        panels = self._panels()
        drawn: dict[str, tuple[Path, Panel]] = {}
        if figures is not None:
            require_folder(Path(figures))
            names = [(Path(figures, f"{panel.name}.png"), panel) for group in panels.values() for panel in group]
            drawn = {f"the figure {each.name}": (each, panel) for each, panel in names}
            require_outputs({"the page": path} | {name: each for name, (each, _) in drawn.items()}, {})
        write(path, self._page(panels).encode())
        for each, panel in drawn.values():
            write(each, panel.bytes("png"))

    @property
    def _results(self) -> list[ShotScores]:
        """Rows with tasks, by shots."""
        return sorted((result for result in self.evaluation.results if result.names), key=lambda r: r.shots)

    @property
    def _is_classifier(self) -> bool:
        return self._results[0].pit is None

    def _panels(self) -> dict[str, list[Panel]]:
        evaluation, classifier = self.evaluation, self._is_classifier
        unit = ", ".join(self.labels[1][:MOST_OUTPUTS])
        errors = (("accuracy", "Share of right answers", "")) if classifier else (("rmse", "RMSE", unit))
        chosen = [self._results[i] for i in spread_out(self._at_main() + 1, 3)]
        panels = {
            "scores": [figures.score_panel(evaluation, *each) for each in (errors, ("nll", "NLL", "nats a point"))],
            "calibration": [figures.reliability_panel(evaluation, result) for result in chosen],
        }
        if not classifier:
            panels["calibration"] += [figures.pit_panel(evaluation, result) for result in chosen]
            panels["sharpness"] = [figures.width_panel(evaluation, self.spread, unit)]
        for number, example in enumerate(self.examples):
            panels[f"task {number}"] = self._task_panels(number, example)
        return panels

    def _task_panels(self, number: int, example: Example) -> list[Panel]:
        panels: list[Panel] = []
        data, shots = example.points, example.shots
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
        evaluation, outputs = self.evaluation, len(self.labels[1])
        parts = [
            page.Section("conclusions", "What to conclude", sections.conclusions(self.conclusions)),
            page.Section("scores", "Scores by shots", sections.scores(evaluation, panels["scores"])),
            page.Section(
                "calibration", "Calibration", sections.calibration(self._is_classifier, panels["calibration"])
            ),
        ]
        if "sharpness" in panels:
            parts.append(page.Section("sharpness", "Sharpness", sections.sharpness(panels["sharpness"])))
        if self._is_classifier:
            shown = sections.classes(evaluation)
            parts.append(page.Section("classes", "Classes", shown))
        parts.append(page.Section("worst", "Worst tasks", sections.worst_tasks(evaluation)))
        parts.append(page.Section("surprise", "Surprise", sections.surprise(self.surprise)))
        if self.examples:
            groups = [
                (f"{example.why}: task {example.name}", panels[f"task {number}"])
                for number, example in enumerate(self.examples)
            ]
            left_out = f"Of {outputs} outcomes the first {MOST_OUTPUTS} are drawn." if outputs > MOST_OUTPUTS else ""
            body = sections.example_tasks(groups, self.along is not None, left_out)
            parts.append(page.Section("tasks", "A few tasks", body))
        parts.append(page.Section("terms", "Terms", sections.terms(evaluation)))
        return page.page(self.title, self.facts, parts)


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

    The conclusions are sentences that follow from the scores by fixed rules: whether more support points help, whether
    the intervals hold what they promise, for which tasks the predictions are bad. `Report.write` makes a page of them
    with tables and figures (HTML in one file, which loads nothing); printing the report shows the sentences.

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
        trained_on: names of the tasks of the training: if some are among the tasks, the page says so.
        title: of the page.
        facts: (name, value) lines below the title, such as where the tasks come from.

    Raises:
        DataError: like `evaluate`, or a negative number of examples.

    Example:
        >>> import bayesmeta as bm
        >>> simulator = bm.tasks.GPFunctions.eq()
        >>> tasks = simulator.dataset(30, 12)
        >>> found = bm.report(simulator.oracle, tasks, shots=[0, 5], num_bootstrap=100, examples=1)
        >>> print(found)
        Report on GaussianProcessOracle
        - Evidence (note): All of this rests on 30 tasks. ...
        - Learning (good): Adapting helps: the root mean squared error of a task falls by 29 % ...
    """
    examples = whole(examples, "of examples")
    evaluation = evaluate(
        learner, tasks, shots, split=split, query=query, level=level, num_bootstrap=num_bootstrap, seed=seed
    )
    regression, schema = tasks.flat.y.is_floating_point(), tasks.schema
    spread = _range_of_outcomes(tasks.flat.y, level) if regression else None
    along = varying_input(tasks.flat) if regression else None
    compared = None if surprise is None else _compared(learner, tasks, surprise)
    outcomes = tasks.flat.y.shape[-1] if regression else 1
    y_labels = schema.y if schema else ("y",) if outcomes == 1 else tuple(f"y{i + 1}" for i in range(outcomes))
    x_label = "x" if along is None or schema is None else schema.x_names[along]
    return Report(
        evaluation=evaluation,
        conclusions=(*_seen(tasks, trained_on), *conclusions(evaluation, spread), *_unlike(compared)),
        title=f"Report on {evaluation.learner}" if title is None else title,
        facts=(*facts, *_facts(tasks, evaluation, split)),
        learner=learner.frozen(),
        examples=examples_of(tasks, evaluation, split, query, examples) if regression else (),
        along=along,
        labels=(x_label, y_labels),
        spread=spread,
        surprise=compared,
    )


def _facts(tasks: TaskDataset, evaluation: Evaluation, split: type[Split]) -> list[tuple[str, str]]:
    """What was evaluated, and how."""
    how = {"RandomSplit": "known points drawn at random", "PrefixSplit": "known points are the first of each task"}
    return [
        *([("Columns", _columns(tasks.schema))] if tasks.schema else []),
        *([("Classes", ", ".join(tasks.schema.classes))] if tasks.schema and tasks.schema.classes else []),
        ("Learner", evaluation.learner),
        ("Tasks", f"{len(tasks)}, of {int(tasks.counts.min())} to {int(tasks.counts.max())} points"),
        ("Division", f"{how.get(split.__name__, split.__name__)}, seed {evaluation.seed}"),
        ("Made with", f"bayesmeta {VERSION}"),
    ]


def _seen(tasks: TaskDataset, trained_on: Collection[Hashable]) -> list[Conclusion]:
    """A warning where tasks are of the training."""
    seen = set(texts(trained_on)) & set(texts(tasks.names))
    warning = (
        f"{len(seen)} of the {len(tasks)} tasks are of the training: for new tasks expect worse than what is below."
    )
    return [Conclusion("Trained on", Verdict.PROBLEM, warning)] if seen else []


def _unlike(compared: "pd.DataFrame | None") -> list[Conclusion]:
    """What the comparison with reference tasks says, where one was made."""
    if compared is None or not compared["p_value"].notna().any():
        return []
    judged = compared.dropna(subset="p_value")
    return [unlike(judged["task"].tolist(), *(judged[name].to_numpy() for name in ("p_value", "smallest")))]


def _compared(learner: Learner, tasks: TaskDataset, surprise: Surprise) -> "pd.DataFrame":
    """One row for each task, the most surprising first; a task with fewer points than were calibrated at has no p."""
    import pandas as pd

    values = np.full((3, len(tasks)), np.nan)
    able = (tasks.counts >= min(surprise.statistics)).nonzero().flatten().tolist()
    if able:
        values[:2, able] = np.stack([each.numpy() for each in surprise.judged(tasks.select(able))])
    with contextlib.suppress(UnsupportedError):  # where f and its noise are one to the learner
        for positions, part in tasks.by_length():
            values[2, positions.numpy()] = shrinkage(learner, part.data).numpy()
    columns = dict(zip(("p_value", "smallest", "shrinkage"), values, strict=True))
    frame = pd.DataFrame({"task": list(tasks.names), "points": tasks.counts.tolist(), **columns})
    return frame.sort_values("p_value", kind="stable", ignore_index=True)


def _columns(schema: Schema) -> str:
    """reaction from days, arm, by subject."""
    inputs = [*schema.x, *schema.covariates]
    source = f" from {', '.join(inputs)}" if inputs else ""
    return f"{', '.join(schema.y)}{source}, by {schema.task}"


def _range_of_outcomes(y: Tensor, level: float) -> float:
    """Mean over outcomes of the width of the range that holds their central share."""
    low, high = np.quantile(y.double().numpy(), [0.5 - 0.5 * level, 0.5 + 0.5 * level], axis=0)
    return float((high - low).mean())
