"""What was made of a table, in sentences: every column, the rows that are left out, and what the tasks are for."""

from typing import TYPE_CHECKING, Any

import numpy as np

from bayesmeta.task_names import place, texts
from bayesmeta.tasks.columns import constant_within
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.table import Schema

if TYPE_CHECKING:
    import pandas as pd

MOST = 8  # levels or rows that are named
NAMES = {"positive": "a positive number", "count": "a count"}  # what an outcome of a kind is called
ENOUGH, LOW, HIGH = 20, 2, 1_000  # rows, and numbers, of what may be counts


def account(frame: "pd.DataFrame", schema: Schema) -> list[str]:
    r"""A line for each column that is used, one for those that are not, and one for rows that are left out.

    Args:
        frame: the table, its cells understood.
        schema: which column is what.

    Raises:
        DataError: a cell cannot be read as the schema says.

    Example:
        >>> import pandas as pd
        >>> import bayesmeta as bm
        >>> frame = pd.DataFrame({"who": list("aabb"), "t": [0, 1, 0, 1], "arm": list("uuvv"), "y": [1.0, 2, 3, None]})
        >>> schema = bm.tasks.Schema.of(frame, task="who", x=["t"], y=["y"], covariates=["arm"])
        >>> print("\n".join(account(frame, schema)))
        who: names the task, 2 of them
        t: input, a number from 0 to 1
        arm: covariate, categories u (2 rows), v (1 row), a 0/1 input each
        y: outcome, a number from 1 to 3, missing in 1 row
        1 row is left out, because it has no outcome: row 3
    """
    import pandas as pd

    present = schema.has_outcome(frame)
    used = frame[present]
    rows, names = schema.tasks(used)
    lines = [f"{schema.task}: names the task, {len(names)} of them"]
    for name in (*schema.x, *schema.covariates):
        codes = pd.factorize(used[name])[0]
        constant = ", the same in every row" if len(set(codes[:1000])) == 1 and not codes.any() else ""
        role = "covariate" if name in schema.covariates else "input"
        if not constant and role == "input" and constant_within(codes, rows):
            constant = ", constant within tasks"
        what = f"{_levels(used[name])}, a 0/1 input each" if name in schema.levels else _number(used[name])
        lines.append(f"{name}: {role}, {what}{constant}")
    for name in schema.y:
        missing = int(frame[name].isna().sum())
        what = _classes(frame, schema) if schema.classes else _number(frame[name], NAMES.get(schema.kind, "a number"))
        lines.append(f"{name}: outcome, {what}" + (f", missing in {_rows(missing)}" if missing else ""))
    for name, outcome in zip(schema.yerr, schema.y, strict=False):
        lines.append(f"{name}: known noise of {outcome}, {_number(used[name])}")
    used_names = {*schema.columns, *schema.y, *schema.yerr}
    others = [str(name) or "a column without a name" for name in frame.columns if name not in used_names]
    if others:
        lines.append(f"not used: {_some(others)}")
    left_out = np.flatnonzero(~present)
    if len(left_out):
        column = frame[schema.task]
        where = _some([place(column, int(i)) for i in left_out[:MOST]], len(left_out))
        are, have = ("is", "it has") if len(left_out) == 1 else ("are", "they have")
        lines.append(f"{_rows(len(left_out))} {are} left out, because {have} no outcome: {where}")
    lacking = int((used[list(schema.y)].isna().any(axis=1)).sum())
    if lacking:
        have = "has some of its outcomes and is" if lacking == 1 else "have some of their outcomes and are"
        lines.append(f"{_rows(lacking)} {have} kept: each outcome has a learner of its own")
    return lines


def effects(schema: Schema, is_linear: bool) -> list[str]:
    """A line on effects of covariates, where a linear method has to choose.

    Args:
        schema: which column is what.
        is_linear: whether the method tells fixed effects from random ones.

    Example:
        >>> import bayesmeta as bm
        >>> effects(bm.tasks.Schema("who", x=("t",), y=("y",), covariates=("age", "arm")), True)
        ['effects of age, arm are the same in all tasks; those of t differ between tasks']
    """
    if not is_linear or not schema.covariates:
        return []
    others = f"; those of {', '.join(schema.x)} differ between tasks" if schema.x else ""
    return [f"effects of {', '.join(schema.covariates)} are the same in all tasks{others}"]


def purposes(train: TaskDataset, said: str, held_out: TaskDataset | None, correcting: TaskDataset | None = None) -> str:
    """What the tasks are for.

    Args:
        train: tasks that the training is given.
        said: what the training does with them (`Trainer.purposes`).
        held_out: tasks that are kept for evaluation, if there are any.
        correcting: tasks that recalibrate what was learned, if there are any.

    Example:
        >>> import bayesmeta as bm
        >>> tasks = bm.tasks.Sinusoid.maml().dataset(10, 5)
        >>> purposes(tasks.select(range(8)), "8 to learn from", tasks.select([8, 9]))
        '10 tasks: 8 to learn from, 2 held out'
    """
    others = [(correcting, "to correct predictions by"), (held_out, "held out")]
    kept = "".join(f", {len(tasks)} {purpose}" for tasks, purpose in others if tasks is not None)
    return f"{len(train) + sum(len(tasks or ()) for tasks, _ in others)} tasks: {said}{kept}"


def hint_of_counts(frame: "pd.DataFrame", schema: Schema) -> str:
    """A sentence where outcomes that are predicted as numbers look like counts; empty where they do not.

    They are whole, not negative, small, and at least three different ones.

    Args:
        frame: the table, its cells understood.
        schema: which column is what.

    Example:
        >>> import pandas as pd
        >>> import bayesmeta as bm
        >>> frame = pd.DataFrame({"who": list("abcde") * 4, "seizures": [0, 3, 2, 5, 1] * 4})
        >>> hint_of_counts(frame, bm.tasks.Schema.of(frame, task="who", x=[], y=["seizures"]))
        "'seizures' holds whole numbers from 0 to 5: if they are counts, --outcome count predicts them as such"
    """
    if schema.kind != "number" or schema.classes or schema.yerr:
        return ""
    values = schema.outcomes(frame)
    values = values[~np.isnan(values).any(1)]
    if len(values) < ENOUGH or not ((values >= 0.0) & (values == np.round(values)) & (values <= HIGH)).all():
        return ""
    if values.min() > LOW or any(len(np.unique(column)) < 3 for column in values.T):
        return ""
    low, high = values.min(), values.max()
    names = ", ".join(map(repr, schema.y))
    verb = "hold" if len(schema.y) > 1 else "holds"
    what = f"{names} {verb} whole numbers from {low:g} to {high:g}"
    return f"{what}: if they are counts, --outcome count predicts them as such"


def hint_of_codes(frame: "pd.DataFrame", schema: Schema) -> str:
    """A sentence where covariates that are taken for quantities look like codes of groups; empty where they do not.

    They are 1, 2, 3 or more, or 0, 1, 2 or more, without a gap, fewer than ten, and the same in all rows of a task: a
    covariate that is not is refused later, for that reason.

    Args:
        frame: the table, its cells understood.
        schema: which column is what.

    Example:
        >>> import pandas as pd
        >>> import bayesmeta as bm
        >>> frame = pd.DataFrame({"chick": list("abcd") * 2, "diet": [1, 2, 3, 1] * 2, "gram": [41.0, 42, 43, 44] * 2})
        >>> schema = bm.tasks.Schema.of(frame, task="chick", x=[], y=["gram"], covariates=["diet"])
        >>> hint_of_codes(frame, schema)
        "'diet' holds 1, 2, 3: if they are codes of groups and no quantity, --categorical diet says so"
    """
    sentences = []
    for name in schema.covariates:
        if name in schema.levels or frame[name].dtype == bool:
            continue
        values = np.unique(frame[name].dropna().to_numpy(dtype=float))
        if frame.groupby(schema.task)[name].nunique().max() > 1:
            continue
        if 3 <= len(values) < 10 and values[0] in (0.0, 1.0) and (np.diff(values) == 1.0).all():
            codes = ", ".join(f"{value:g}" for value in values)
            sentences.append(
                f"{name!r} holds {codes}: if they are codes of groups and no quantity, --categorical {name} says so"
            )
    return "; ".join(sentences)


def _number(column: "pd.Series[Any]", called: str = "a number") -> str:
    if column.dropna().isin([0, 1]).all() and column.dtype == bool:
        return "true as 1 and false as 0"
    values = column.dropna().astype(float)
    return f"{called} from {values.min():.6g} to {values.max():.6g}" if len(values) else called


def _levels(column: "pd.Series[Any]") -> str:
    counts = column.value_counts()
    counts = counts[counts > 0].sort_index(key=lambda index: index.astype(str))
    each = [f"{text} ({_rows(count)})" for text, count in zip(texts(counts.index), counts.tolist(), strict=True)]
    return f"categories {_some(each)}"


def _classes(frame: "pd.DataFrame", schema: Schema) -> str:
    found = schema.outcomes(frame)
    counts = np.bincount(found[found >= 0], minlength=len(schema.classes)).tolist()
    each = [f"{name} ({_rows(count)})" for name, count in zip(schema.classes, counts, strict=True)]
    if schema.kind == "binary":
        return f"binary, {_some(each)}; p is the probability of {schema.classes[1]}"
    return f"classes {_some(each)}"


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _some(parts: list[str], count: int | None = None) -> str:
    """The first of them, and how many more there are."""
    count = len(parts) if count is None else count
    return ", ".join(parts[:MOST]) + (f" and {count - MOST} more" if count > MOST else "")
