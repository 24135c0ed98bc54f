"""The head of a page of docs/methods: what a method is, costs and needs, and its plate diagram.

A page asks for it by `<!-- method: ALPaCA -->`, or by several names of classes, separated by blanks. What is said is
found where it is kept: the lines of the module's docstring, the row of `the_field`, and a learner that the registry of
the contracts makes, which is asked what it takes and what it gives. `print(head("ALPaCA"))` shows it.
"""

import functools
import inspect
import posixpath
import re
import warnings
from pathlib import Path

import torch

import bayesmeta as bm
from docs.tools import the_field
from tests.registry import Case

MARKER = re.compile(r"^<!-- method: ([\w ]+) -->$", flags=re.M)
HEADINGS = (
    "The model",
    "In use",
    "What it looks like",
    "Numbers",
    "Differences from the paper",
    "When to use it, and when not",
)
"""Sections of every page, in this order."""
LEGEND = (
    "Dots are given: inputs, and what all tasks share. Circles are unknown, double circles are computed, grey circles "
    "are observed. A box is repeated as often as it says. A solid arrow is a part of the model; a dashed one is "
    "computed by a network or a rule."
)
KINDS: dict[type[bm.Outcomes], str] = {
    bm.tasks.Counts: "counts",
    bm.tasks.Positives: "positive numbers",
}


def with_heads(markdown: str, page: str) -> str:
    """The text of a page with heads in the place of its markers.

    Args:
        markdown: of the page.
        page: its path in docs.
    """
    return MARKER.sub(lambda match: head(match[1], page), markdown)


@functools.cache
def head(names: str, page: str = "methods/page.md") -> str:
    """The plate diagrams, a table with a column a method, and where more is said of each.

    Args:
        names: of classes, separated by blanks; those that share a row of `the_field` share a column.
        page: path in docs of the page that it is for.

    Raises:
        ValueError: a name is in no row.
    """
    rows = [_row(name) for name in names.split()]
    columns = [_facts(row, page) for row in rows]
    titles = [" and ".join(f"`{value.__name__}`" for value in row.values) for row in rows]
    lines = [f"| | {' | '.join(titles)} |", "|---|" + "---|" * len(rows)]
    lines += [f"| **{fact}** | {' | '.join(column.get(fact, '') for column in columns)} |" for fact in columns[0]]
    return "\n\n".join([*_figures(rows), "\n".join(lines), *(_places(row, page) for row in rows)])


def _row(name: str) -> the_field.Row:
    for row in the_field.ROWS:
        if name in (value.__name__ for value in row.values):
            return row
    raise ValueError(f"expected a method in a row of docs/tools/the_field.py, got {name}")


def _facts(row: the_field.Row, page: str) -> dict[str, str]:
    value = row.values[0]
    said = {line: the_field.plain(row.lines.get(line, "")) for line in the_field.LINES}
    own = [found for each in row.values for found in cases_of().get(each, [])]
    facts = said | {"cost of a meta-step, a task": row.cost}
    if own:
        facts |= needs(value.__name__)
    if row.figure:
        heading = the_field.heading(row)
        section = f"{_to(page, the_field.sections()[heading].page)}#{the_field.anchor(heading)}"
        facts["measured"] = f"{row.figure} ([all of it]({section}))"
    return facts


def _places(row: the_field.Row, page: str) -> str:
    """The reference, the source and the contracts of a method, as a sentence."""
    references = [f"[`{each.__name__}`][{each.__module__}.{each.__qualname__}]" for each in row.values]
    path = Path(inspect.getsourcefile(row.values[0]) or "").relative_to(the_field.DOCS.parent)
    own = [found for each in row.values for found in cases_of().get(each, [])]
    held = [f"[{case.name}]({_to(page, 'project/contract_cases.md')}#{file})" for file, case in own]
    cases = f"; held to the contracts of all learners as {', '.join(held)}" if held else ""
    return f"{' and '.join(references)}: source `{path.as_posix()}`{cases}.\n{{ .facts }}"


cases_of = functools.cache(the_field.cases_of)


@functools.cache
def needs(name: str) -> dict[str, str]:
    """What a learner takes and gives, found by asking one that the registry makes.

    Args:
        name: of its class.
    """
    row = _row(name)
    cases = [case for each in row.values for _, case in cases_of().get(each, [])]
    with warnings.catch_warnings():  # whether it arrived is not what is asked here
        warnings.simplefilter("ignore", bm.ConvergenceWarning)
        return _asked(cases, cases[0].learner(), _support(cases[0]))


def _asked(cases: list[Case], learner: bm.Learner, support: bm.Data) -> dict[str, str]:
    posterior = learner.adapt(support)
    has_evidence = _can(lambda: learner.log_evidence(support))
    return {
        "predicts": ", ".join(_outcomes(cases)),
        "predictive": _joint(cases[0], learner, posterior),
        "support": _points(cases, learner),
        "posterior of phi": _posterior(learner, posterior),
        "evidence": "log p(D given theta) by `log_evidence`" if has_evidence else "none",
        "known noise of points": "taken (`Data.noise`, `yerr=`)" if _knows_noise(cases) else "refused",
    }


def _outcomes(cases: list[Case]) -> list[str]:
    """The kinds of outcomes, in words."""
    found: dict[str, None] = {}
    kinds = [case.outcomes for case in cases]
    for outcomes in kinds:
        if isinstance(outcomes, bm.Numbers):
            word = next((word for kind, word in KINDS.items() if isinstance(outcomes, kind)), "")
            several = any(isinstance(each, bm.Numbers) and each.count > 1 for each in kinds)
            found[word or ("one number or several" if several else "numbers")] = None
        else:
            found["labels of a fixed set of classes" if outcomes.count else "labels of each task's own classes"] = None
    return list(found)


def _support(case: Case) -> bm.Data:
    return case.batch(2, 6, 6, ragged=False).support


def _joint(case: Case, learner: bm.Learner, posterior: bm.TaskPosterior) -> str:
    """Whether two points have the density of their product."""
    query = case.batch(2, 6, 6, seed=1, ragged=False).query
    with torch.no_grad():
        prediction = posterior.predict(query.x)
        together = prediction.log_prob(query.y, query.mask)
        alone = [prediction.log_prob(query.y, query.mask & (torch.arange(6) == point)) for point in range(6)]
    joint = not torch.allclose(together, torch.stack(alone).sum(0), rtol=1e-6, atol=1e-8)
    return "joint over all points of a task" if joint else "each point on its own"


def _points(cases: list[Case], learner: bm.Learner) -> str:
    """How many the support may have, and whether their order matters."""
    skipped = "empty_support_gives_a_finite_prior_predictive"
    fewest = "from no point on" if any(skipped not in case.exceptions for case in cases) else "from one point on"
    if any(isinstance(case.outcomes, bm.Labels) and case.outcomes.count is None for case in cases):
        with_own = "; a task with classes of its own has an example of each"
        fewest = "an example of each class" if fewest.startswith("from one") else fewest + with_own
    if hasattr(learner, "max_points"):
        fewest += ", at most as many as `max_points` says"
    return f"{fewest}; their order {'does not matter' if learner.exchangeable else 'matters'}"


def _posterior(learner: bm.Learner, posterior: bm.TaskPosterior) -> str:
    drawn = _can(lambda: posterior.sample(2))
    if isinstance(learner, bm.ExplicitLearner):
        return f"explicit: densities by name, for NUTS, SBC and Pyro{'; draws' if drawn else ''}"
    return "draws, no density by name" if drawn else "not explicit: predictions only"


def _knows_noise(cases: list[Case]) -> bool:
    return any(case.known_noise or case.learner().known_noise for case in cases)


def _can(call: object) -> bool:
    assert callable(call)
    try:
        with torch.no_grad():
            call()
    except bm.UnsupportedError:
        return False
    return True


def _figures(rows: list[the_field.Row]) -> list[str]:
    """Each diagram once, with the names of those whose it is."""
    drawn: dict[str, list[str]] = {}
    for row in rows:
        if issubclass(row.values[0], bm.Learner):
            drawn.setdefault(bm.plotting.plate(row.values[0]), []).append(row.values[0].__name__)
    figures = []
    for text, names in drawn.items():
        title = f"{' and '.join(names)}. " if len(rows) > 1 else ""
        figures.append(
            f'<figure class="plate">{text}<figcaption>{title}{LEGEND if not figures else ""}</figcaption></figure>'
        )
    return figures


def _to(page: str, other: str) -> str:
    """A page as a link of another names it."""
    return posixpath.relpath(other, posixpath.dirname(page))
