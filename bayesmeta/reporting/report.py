"""`report(learner, tasks).write("report.html")`: what a learner does on held-out tasks, for people who decide."""

import contextlib
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from bayesmeta.arguments import whole
from bayesmeta.checks.surprise import Surprise, shrinkage
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.evaluation.conclusions import Conclusion, Verdict, conclusions, main_shots, unlike
from bayesmeta.evaluation.evaluate import evaluate
from bayesmeta.evaluation.scores import Evaluation, ShotScores
from bayesmeta.learner import Learner
from bayesmeta.one_line import several
from bayesmeta.outputs import require_folder, require_outputs, require_writable, write
from bayesmeta.reporting import figures, page, sections
from bayesmeta.reporting.examples import Example, examples_of, spread_out, varying_input
from bayesmeta.reporting.figures import Panel
from bayesmeta.selection.judged_once import CrossValidated
from bayesmeta.selection.recommendation import MEANING
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
        examples: the tasks that are drawn, each with the learner that predicts it.
        along: the input that is drawn, where one varies within a task.
        x_label: name of that input.
        spread: of each outcome the width of the range that holds the central share `evaluation.level` of all outcomes,
            units of y; empty for classes.
        baselines: evaluations of others on the same tasks and points, by what they are.
        training: how the model was trained, line by line.
        surprise: p-value of each task (`Surprise`) and how much the prior decides (`shrinkage`), NaN where not known.
    """

    evaluation: Evaluation
    conclusions: tuple[Conclusion, ...]
    title: str
    facts: tuple[tuple[str, str], ...]
    examples: tuple[Example, ...] = ()
    along: int | None = None
    x_label: str = "x"
    spread: Mapping[str, float] = field(default_factory=dict)
    baselines: Mapping[str, Evaluation] = field(default_factory=dict)
    training: tuple[str, ...] = ()
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
            write(each, panel.png())

    @property
    def _outcomes(self) -> dict[str, Evaluation]:
        return self.evaluation.by_outcome()

    @property
    def _is_classifier(self) -> bool:
        return _by_shots(self.evaluation)[0].pit is None

    def _panels(self) -> dict[str, list[Panel]]:
        """The figures of each part of the page; those of an outcome have its name in the key."""
        evaluation, named = self.evaluation, len(self._outcomes) > 1
        panels = {"nll": [figures.score_panel(evaluation, "nll", "NLL", "nats a point", "nll", self.baselines)]}
        for place, (name, own) in enumerate(self._outcomes.items()):
            end = f"-outcome-{place + 1}" if named else ""
            chosen = [_by_shots(own)[i] for i in spread_out(self._at_main() + 1, 3)]
            score, what, unit = (
                ("accuracy", "Share of right answers", "") if self._is_classifier else ("rmse", "RMSE", name)
            )
            others = {each: other.by_outcome()[name] for each, other in self.baselines.items()}
            panels[f"scores {name}"] = [figures.score_panel(own, score, what, unit, f"{score}{end}", others)]
            panels[f"calibration {name}"] = [figures.reliability_panel(own, result, end) for result in chosen]
            if not self._is_classifier:
                panels[f"calibration {name}"] += [figures.pit_panel(own, result, end) for result in chosen]
                panels[f"sharpness {name}"] = [figures.width_panel(own, self.spread.get(name), name, end)]
        for number, example in enumerate(self.examples):
            panels[f"task {number}"] = self._task_panels(number, example)
        return panels

    def _task_panels(self, number: int, example: Example) -> list[Panel]:
        panels: list[Panel] = []
        data, shots, labels = example.points, example.shots, self.evaluation.outcomes
        for output, label in enumerate(labels[:MOST_OUTPUTS]):
            name = f"task-{number + 1}" if len(labels) == 1 else f"task-{number + 1}-outcome-{output + 1}"
            if self.along is None:
                level = self.evaluation.level
                panels += figures.interval_panels(example.learner, data, shots, level, output, label, name)
            else:
                both = (self.x_label, label)
                panels += figures.band_panels(example.learner, data, shots, self.along, output, both, name)
        return panels

    def _at_main(self) -> int:
        main = main_shots(self.evaluation)
        return next(i for i, result in enumerate(_by_shots(self.evaluation)) if result.shots == main)

    def _page(self, panels: dict[str, list[Panel]]) -> str:
        evaluation, outcomes = self.evaluation, self._outcomes
        parts = [
            page.Section("conclusions", "What to conclude", sections.conclusions(self.conclusions)),
            page.Section("scores", "Scores by shots", sections.scores(evaluation, outcomes, self.baselines, panels)),
            page.Section(
                "calibration", "Calibration", sections.calibration(self._is_classifier, list(outcomes), panels)
            ),
        ]
        if self._is_classifier:
            parts.append(page.Section("classes", "Classes", sections.classes(evaluation)))
        else:
            parts.append(page.Section("sharpness", "Sharpness", sections.sharpness(list(outcomes), panels)))
        parts.append(page.Section("worst", "Worst tasks", sections.worst_tasks(evaluation)))
        parts.append(page.Section("surprise", "Surprise", sections.surprise(self.surprise)))
        if self.examples:
            groups = [
                (f"{example.why}: task {example.name}", panels[f"task {number}"])
                for number, example in enumerate(self.examples)
            ]
            count = len(outcomes)
            left_out = f"Of {count} outcomes the first {MOST_OUTPUTS} are drawn." if count > MOST_OUTPUTS else ""
            body = sections.example_tasks(groups, self.along is not None, left_out)
            parts.append(page.Section("tasks", "A few tasks", body))
        if self.training:
            parts.append(page.Section("training", "Training", sections.training(self.training)))
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
    baselines: Mapping[str, Learner] | None = None,
    surprise: Surprise | None = None,
    trained_on: Collection[Hashable] = (),
    training: Sequence[str] = (),
    title: str | None = None,
    facts: Sequence[tuple[str, str]] = (),
) -> Report:
    """Evaluate a learner on tasks that it was not trained on, and say what follows from that.

    The conclusions are sentences that follow from the scores by fixed rules: whether more support points help, whether
    the intervals hold what they promise, for which tasks the predictions are bad, and what to do next. `Report.write`
    makes a page of them with tables and figures (HTML in one file, which loads nothing); printing the report shows the
    sentences. Of several outcomes each has sentences, scores and figures of its own.

    With ten to fifty tasks a share that is held out tells little: `bayesmeta.reporting.cross_validated_report` judges
    by all of them.

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
        baselines: what it should beat, by what it is, trained on the same tasks: `bm.selection.pooled(train)` (one
            regression for all tasks) and `bm.selection.alone(train)` (each task alone).
        surprise: reference tasks, with which these are compared.
        trained_on: names of the tasks of the training: if some are among the tasks, the page says so.
        training: how the learner was trained, line by line: tasks, rows, steps, noise, convergence.
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

    def judged(each: Learner) -> Evaluation:
        return evaluate(
            each, tasks, shots, split=split, query=query, level=level, num_bootstrap=num_bootstrap, seed=seed
        )

    evaluation = judged(learner)
    others = {name: judged(each) for name, each in (baselines or {}).items()}
    compared = None if surprise is None else _compared(learner, tasks, surprise)
    return _report(
        evaluation,
        others,
        [(tasks, learner.frozen())],
        tasks,
        split,
        query,
        examples,
        compared,
        _seen(tasks, trained_on),
        training,
        f"Report on {evaluation.learner}" if title is None else title,
        facts,
    )


def cross_validated_report(
    found: CrossValidated,
    candidate: str | None = None,
    *,
    examples: int = 3,
    surprise: Surprise | None = None,
    training: Sequence[str] = (),
    title: str | None = None,
    facts: Sequence[tuple[str, str]] = (),
) -> Report:
    """What follows from a cross-validation of one candidate: every task is judged once, by learners without it.

    The page is that of `report`. What it judges is a way of learning on these tasks; a model that learns from all of
    them does no worse on average. The baselines of the cross-validation are those of the page.

    Args:
        found: what `bm.selection.cross_validate` gives.
        candidate: which is judged; by default the recommended one, or the first.
        examples: how many tasks are drawn, from the worst to the best; of a classifier none is.
        surprise: reference tasks, with which these are compared.
        training: how the learner was trained, line by line.
        title: of the page.
        facts: (name, value) lines below the title.

    Raises:
        DataError: an unknown candidate, or a negative number of examples.

    Example:
        >>> import bayesmeta as bm
        >>> simulator = bm.tasks.GPFunctions.eq()
        >>> learners = {"truth": lambda tasks: simulator.oracle}
        >>> found = bm.selection.cross_validate(learners, simulator.dataset(30, 12), [0, 5], folds=2, baselines={})
        >>> print(cross_validated_report(found, examples=1).conclusions[0].text)
        Every task was predicted once, by one of 2 models that were trained without it. ...
    """
    examples = whole(examples, "of examples")
    chosen = found.recommendation.name or next(iter(found.evaluations)) if candidate is None else candidate
    if chosen not in found.evaluations:
        raise DataError(f"expected a candidate among {list(found.evaluations)}, got {chosen!r}")
    folds = found.folds[chosen]
    basis = Conclusion(
        "Cross-validation",
        Verdict.NOTE,
        f"Every task was predicted once, by one of {len(folds)} models that were trained without it. What is judged is "
        "the method on these tasks: a model that learns from all of them does no worse on average.",
    )
    return _report(
        found.evaluations[chosen],
        {MEANING.get(name, name): found.evaluations[name] for name in found.baselines if name != chosen},
        [(fold.tasks, fold.learner) for fold in folds],
        found.tasks,
        found.split,
        found.query,
        examples,
        None if surprise is None else _compared(surprise.learner, found.tasks, surprise),
        [basis],
        training,
        f"Cross-validation of {chosen}" if title is None else title,
        [*facts, ("Judged by", f"cross-validation over tasks, {len(folds)} folds")],
    )


def _report(
    evaluation: Evaluation,
    baselines: Mapping[str, Evaluation],
    parts: Sequence[tuple[TaskDataset, Learner]],
    tasks: TaskDataset,
    split: type[Split],
    query: int | None,
    examples: int,
    compared: "pd.DataFrame | None",
    first: Sequence[Conclusion],
    training: Sequence[str],
    title: str,
    facts: Sequence[tuple[str, str]],
) -> Report:
    """What both kinds of report have in common."""
    regression, schema = tasks.flat.y.is_floating_point(), tasks.schema
    spread = _ranges_of_outcomes(tasks.flat.measured, evaluation.level, evaluation.outcomes) if regression else {}
    along = varying_input(tasks.flat) if regression else None
    return Report(
        evaluation=evaluation,
        conclusions=(*first, *conclusions(evaluation, spread, baselines), *_unlike(compared)),
        title=title,
        facts=(*facts, *_facts(tasks, evaluation, split)),
        examples=examples_of(parts, evaluation, split, query, examples) if regression else (),
        along=along,
        x_label="x" if along is None or schema is None else schema.x_names[along],
        spread=spread,
        baselines=baselines,
        training=tuple(training),
        surprise=compared,
    )


def _by_shots(evaluation: Evaluation) -> list[ShotScores]:
    """Rows with tasks, by shots."""
    return sorted((result for result in evaluation.results if result.names), key=lambda r: r.shots)


def _facts(tasks: TaskDataset, evaluation: Evaluation, split: type[Split]) -> list[tuple[str, str]]:
    """What was evaluated, and how."""
    how = {"RandomSplit": "known points drawn at random", "PrefixSplit": "known points are the first of each task"}
    return [
        *([("Columns", _columns(tasks.schema))] if tasks.schema else []),
        *([("Classes", ", ".join(tasks.schema.classes))] if tasks.schema and tasks.schema.classes else []),
        ("Learner", evaluation.learner),
        ("Tasks", f"{len(tasks)}, of {_points(int(tasks.counts.min()), int(tasks.counts.max()))}"),
        ("Division", f"{how.get(split.__name__, split.__name__)}, seed {evaluation.seed}"),
        ("Made with", f"bayesmeta {VERSION}"),
    ]


def _points(fewest: int, most: int) -> str:
    return f"{several(most, 'point')} each" if fewest == most else f"{fewest} to {most} points"


def _seen(tasks: TaskDataset, trained_on: Collection[Hashable]) -> list[Conclusion]:
    """A warning where tasks are of the training."""
    seen = set(texts(trained_on)) & set(texts(tasks.names))
    warning = (
        f"{len(seen)} of the {len(tasks)} tasks are of the training: for new tasks expect worse than what is below."
    )
    advice = "Judge by tasks that were held out, or by cross-validation: bayesmeta report --folds 5."
    return [Conclusion("Trained on", Verdict.PROBLEM, warning, advice=advice)] if seen else []


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


def _ranges_of_outcomes(y: Tensor, level: float, outcomes: Sequence[str]) -> dict[str, float]:
    """Of each outcome the width of the range that holds the central share of all of its values, NaN where missing."""
    low, high = np.nanquantile(y.double().numpy(), [0.5 - 0.5 * level, 0.5 + 0.5 * level], axis=0)
    return dict(zip(outcomes, (high - low).tolist(), strict=True))
