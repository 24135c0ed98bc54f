"""From a long table (one row a point, one column the task) to numbers and back: what a model folder remembers of it."""

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesmeta.data import Data, as_tensor
from bayesmeta.errors import DataError, ShapeError
from bayesmeta.frame_kinds import as_pandas
from bayesmeta.outcomes import Counts, Labels, Numbers, Outcomes, Positives
from bayesmeta.task_names import factorized, name_text, place
from bayesmeta.task_names import texts as text_of
from bayesmeta.tasks.class_columns import ASK_CLASSES, classes_of, labels, warn_of_codes
from bayesmeta.tasks.columns import first_of_task, levels_of, numbers, one_hot, positions
from bayesmeta.typing import ArrayLike

if TYPE_CHECKING:
    import pandas as pd

KINDS: dict[str, type[Numbers]] = {"number": Numbers, "positive": Positives, "count": Counts}
UNMEASURED = ("positive", "count")  # kinds whose known noise, an error bar of their own unit, has no place


@dataclass(frozen=True)
class Schema:
    """Which column of a table is what, and how its cells become numbers.

    Attributes:
        task: the column with the task's name.
        x: input columns that vary from point to point.
        y: outcome columns, all numeric, or a single one of classes.
        covariates: input columns that are constant within a task (age, site); appended to x.
        levels: for every categorical input column its levels, one-hot encoded in this order. They are names, compared
            like those of tasks (`bayesmeta.task_names`): level "1" is found in cells "1", 1 and 1.0.
        classes: the classes of the outcome, names like the levels, of which label c is the c-th; empty where outcomes
            are numbers.
        within: columns of groupings that the task is a part of (the school of a class), the outermost first. Names of
            tasks are then tuples.
        groups: columns of groupings that tasks have in common, point by point (the samples on a plate).
        yerr: for every outcome column that of its known noise, a standard deviation in its units; empty where none is
            known.
        kind: of the outcome: "number", "positive", "count", "classes", or "binary" where it is one of two classes and
            predictions are the probability of the second.

    The levels of `within` and `groups` are the last inputs, a number each: the place of the level in `levels`, or their
    number for a level that is not known. A name that is not among those of `within` is such a level; in a column of
    `groups` it is an empty cell.

    Example:
        >>> import pandas as pd
        >>> import bayesmeta as bm
        >>> frame = pd.DataFrame(
        ...     {"who": ["a", "a", "b"], "dose": [1.0, 2.0, 1.0], "arm": ["drug", "drug", "none"], "effect": [3, 6, 1]}
        ... )
        >>> schema = bm.tasks.Schema.of(frame, task="who", x=["dose"], y=["effect"], covariates=["arm"])
        >>> schema.x_names
        ('dose', 'arm=drug', 'arm=none')
        >>> schema.inputs(frame).tolist()
        [[1.0, 1.0, 0.0], [2.0, 1.0, 0.0], [1.0, 0.0, 1.0]]
    """

    task: str
    x: tuple[str, ...]
    y: tuple[str, ...]
    covariates: tuple[str, ...] = ()
    levels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    within: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    yerr: tuple[str, ...] = ()
    kind: str = "number"

    @classmethod
    def of(
        cls,
        frame: "pd.DataFrame",
        task: str | Sequence[str],
        x: Sequence[str],
        y: str | Sequence[str],
        covariates: Sequence[str] = (),
        outcomes: Outcomes | None = None,
        groups: Sequence[str] = (),
        yerr: str | Sequence[str] = (),
    ) -> "Schema":
        """Read the schema off a table: text and category columns among the inputs become one-hot, booleans 0 and 1.

        A single outcome column of text, categories or truths is one of classes (`bayesmeta.tasks.class_columns`).

        Args:
            frame: the table, of pandas, polars or pyarrow.
            task: the column with the task's name, or several of nested groupings, the task's last.
            x: input columns.
            y: an outcome column, or several of numbers.
            covariates: input columns that are constant within a task.
            groups: columns of groupings that tasks have in common.
            outcomes: `Labels()` where the outcome is a class whatever it looks like, `Numbers()` where it is a number;
                by default what it looks like. `Labels(3)` and `Numbers(2)` also say how many; `Labels(2)` that it is
                binary; `bm.tasks.Positives()` and `bm.tasks.Counts()` which numbers.
            yerr: the column of known standard deviations of the outcome, or one for each outcome column.

        Raises:
            DataError: a column is unknown, named twice, or neither numeric nor categorical: times and dates, numbers
                written as text, text with about as many levels as rows. `astype("category")` says that a column holds
                categories. Also classes or numbers of another count than `outcomes` says, a number that is not
                positive, or no count, where it should be.
        """
        from pandas.api.types import is_numeric_dtype

        frame = as_pandas(frame)
        y = [y] if isinstance(y, str) else y
        yerr = [yerr] if isinstance(yerr, str) else yerr
        for name, given in (("x", x), ("covariates", covariates), ("groups", groups)):
            if isinstance(given, str):
                raise DataError(f"expected {name} to be a list of column names, got the text {given!r}")
        several = isinstance(task, Sequence) and not isinstance(task, str) and len(task) > 1
        nested: list[str] = list(task) if several else [task]  # type: ignore[list-item]
        within = nested[:-1]
        named = [nested[-1], *x, *y, *covariates, *within, *groups, *yerr]
        for name in named:
            if not isinstance(name, str):
                raise DataError(f"expected column names to be text, got {name!r}: rename the column")
        _require_columns(frame, named)
        if len(set(named)) != len(named):
            twice = next(name for name in named if named.count(name) > 1)
            raise DataError(f"expected every column in one role, got {twice!r} twice")
        if not y:
            raise DataError("expected at least one outcome column y, got none")
        if len(yerr) not in (0, len(y)):
            raise DataError(f"expected a yerr column for each of the outcomes {list(y)}, got {list(yerr)}")
        used = frame[frame[list(y)].notna().any(axis=1)]  # a row without an outcome is left out, and its levels too
        texts = [name for name in (*x, *covariates) if not is_numeric_dtype(used[name])]
        tasks = _tasks(used, nested)[0] if texts else np.zeros(len(used), dtype=np.int64)
        found = {name: each for name in texts if (each := levels_of(used[name], tasks)) is not None}
        found |= {name: tuple(text_of(_tasks(used, within[: i + 1])[1])) for i, name in enumerate(within)}
        found |= {name: tuple(text_of(_tasks(used.dropna(subset=[name]), [name])[1])) for name in groups}
        classes = _classes(used, y, outcomes)
        if classes and yerr:
            raise DataError(f"expected no known noise of classes, got the column {yerr[0]!r} for {y[0]!r}")
        kind = _kind(classes, outcomes)
        if yerr and kind in UNMEASURED:
            raise DataError(f"expected no known noise of an outcome that is a {kind}, got the column {yerr[0]!r}")
        columns = (tuple(x), tuple(y), tuple(covariates), found, classes, tuple(within), tuple(groups), tuple(yerr))
        schema = cls(nested[-1], *columns, kind)
        if not classes:
            schema.outcomes(used)  # says which cell is not of the kind
        return schema

    @property
    def outcome_kind(self) -> Outcomes:
        """What a learner of such tables predicts: `Labels(C)` of the classes, or so many numbers, of a kind."""
        if self.classes:
            return Labels(len(self.classes))
        return KINDS.get(self.kind, Numbers)(len(self.y))

    @property
    def x_names(self) -> tuple[str, ...]:
        """The names of the encoded inputs, in order: `column`, or `column=level` where it is one-hot encoded."""
        return (*self._encoded((*self.x, *self.covariates)), *self.within, *self.groups)

    @property
    def group_sizes(self) -> tuple[int, ...]:
        """How many known levels each grouping besides the task has: those of `within`, then those of `groups`."""
        return tuple(len(self.levels[name]) for name in (*self.within, *self.groups))

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns but the outcome's: of the task, of groupings and of inputs."""
        return (*self.within, self.task, *self.x, *self.covariates, *self.groups)

    @property
    def num_covariates(self) -> int:
        """How many of the encoded inputs are of covariates: the last ones before groupings."""
        return len(self._encoded(self.covariates))

    def _encoded(self, columns: Sequence[str]) -> tuple[str, ...]:
        names: list[str] = []
        for name in columns:
            names += [f"{name}={level}" for level in self.levels[name]] if name in self.levels else [name]
        return tuple(names)

    def inputs(self, frame: "pd.DataFrame") -> np.ndarray:
        """The encoded inputs of each row, `rows D` in float64.

        Raises:
            DataError: an unknown column or level, a missing or infinite cell, a cell that is not a number, or a
                covariate that changes within a task; column and row are named.
        """
        frame = as_pandas(frame)
        _require_columns(frame, self.columns)
        if self.covariates:
            self._require_constant(frame)
        columns = []
        for name in (*self.x, *self.covariates):
            if name in self.levels:
                columns.append(one_hot(frame[name], self.levels[name]))
            else:
                columns.append(numbers(frame[name], missing_allowed=False)[:, None])
        for i, name in enumerate(self.within):
            rows, names = _tasks(frame, self.within[: i + 1])
            places = {level: place for place, level in enumerate(self.levels[name])}
            codes = np.array([places.get(text, len(places)) for text in text_of(names)], dtype=np.float64)
            columns.append(codes[rows][:, None])
        for name in self.groups:
            known, levels = frame[name].notna().to_numpy(), self.levels[name]
            column = np.full((len(frame), 1), float(len(levels)))
            column[known, 0] = positions(
                frame[name][known], levels, f"one of {list(levels)}", ": leave the cell empty where the level is new"
            )
            columns.append(column)
        return np.concatenate(columns, 1) if columns else np.zeros((len(frame), 0))

    def outcomes(self, frame: "pd.DataFrame") -> np.ndarray:
        """The outcomes of each row: `rows C` in float64, NaN where missing, or labels `rows` in int64, there -1.

        Raises:
            DataError: like `inputs`; a class that is not one of `classes`, a number that is not of the outcome's kind.
        """
        frame = as_pandas(frame)
        _require_columns(frame, self.y)
        if self.classes:
            return labels(frame[self.y[0]], self.classes)
        values = np.stack([numbers(frame[name], missing_allowed=True) for name in self.y], 1)
        self._require_kind(frame, values)
        return values

    def _require_kind(self, frame: "pd.DataFrame", values: np.ndarray) -> None:
        kind = self.outcome_kind
        assert isinstance(kind, Numbers)
        wrong = kind.forbidden(as_tensor(np.nan_to_num(values, nan=1.0), "outcomes"))
        if wrong is not None and bool(wrong.any()):
            row, output = (int(i) for i in wrong.nonzero()[0])
            name = self.y[output]
            raise DataError(
                f"expected {kind.requirement} in column {name!r}, got {values[row, output]:g} in "
                f"{place(frame[name], row)}"
            )

    def deviations(self, frame: "pd.DataFrame") -> np.ndarray | None:
        """The known noise of the outcomes of each row, standard deviations `rows C` in float64; None where none is.

        Of several outcomes, the noise of one that is missing is not looked at, and is 0 here.

        Raises:
            DataError: an unknown column, a missing or infinite cell, one that is not a number, or a negative one;
                column and row are named.

        Example:
            >>> import pandas as pd
            >>> schema = Schema("who", x=(), y=("mass",), yerr=("mass_err",))
            >>> schema.deviations(pd.DataFrame({"who": [1, 1], "mass": [2.0, 3.0], "mass_err": [0.5, 0.25]})).tolist()
            [[0.5], [0.25]]
        """
        if not self.yerr:
            return None
        frame = as_pandas(frame)
        _require_columns(frame, [*self.yerr, *self.y])
        columns = []
        for name, outcome in zip(self.yerr, self.y, strict=True):
            measured = frame[outcome].notna().to_numpy() if len(self.y) > 1 else np.ones(len(frame), dtype=bool)
            columns.append(np.zeros(len(frame)))
            columns[-1][measured] = numbers(frame[name][measured], missing_allowed=False)
        for name, values in zip(self.yerr, columns, strict=True):
            if (values < 0.0).any():
                row = int(np.argmax(values < 0.0))
                raise DataError(
                    f"expected standard deviations in column {name!r}, got {values[row]:g} in {place(frame[name], row)}"
                )
        return np.stack(columns, 1)

    def has_outcome(self, frame: "pd.DataFrame") -> np.ndarray:
        """Which rows have their outcome, or at least one of several, `rows`. Raises DataError like `outcomes`.

        Example:
            >>> import pandas as pd
            >>> schema = Schema("who", x=(), y=("ill",), classes=("no", "yes"))
            >>> schema.has_outcome(pd.DataFrame({"who": [1, 2], "ill": ["yes", None]})).tolist()
            [True, False]
        """
        return observed(self.outcomes(frame))

    def points(self, frame: "pd.DataFrame") -> Data:
        """Rows that have an outcome (`has_outcome`) as the points of one task, in their order.

        Raises:
            DataError: like `inputs`, `outcomes` and `deviations`.

        Example:
            >>> import pandas as pd
            >>> schema = Schema("who", x=("day",), y=("weight", "height"))
            >>> frame = pd.DataFrame({"who": ["a"] * 2, "day": [0, 1], "weight": [3.2, 3.4], "height": [50.0, None]})
            >>> schema.points(frame).known.tolist()
            [[[True, True], [True, False]]]
        """
        frame = as_pandas(frame)
        x, y = self.inputs(frame), self.outcomes(frame)
        return Data.from_labels(x, y) if self.classes else Data.partly_known(x, y, self.deviations(frame))

    def class_sets(self, sets: ArrayLike) -> list[tuple[str, ...]]:
        """The names of the classes in each set, such as `label_set` of conformal prediction gives for one task.

        Args:
            sets: `rows C`, True where a class is in the set of a row.

        Raises:
            ShapeError: another number of classes than the schema has.

        Example:
            >>> schema = Schema("who", x=(), y=("ill",), classes=("no", "yes"))
            >>> schema.class_sets([[True, True], [False, True]])
            [('no', 'yes'), ('yes',)]
        """
        chosen = as_tensor(sets, "sets").bool()
        if chosen.ndim != 2 or chosen.shape[1] != len(self.classes):
            raise ShapeError(f"expected sets of shape (rows, {len(self.classes)}), got {tuple(chosen.shape)}")
        return [tuple(self.classes[i] for i in row.nonzero().flatten().tolist()) for row in chosen]

    def tasks(self, frame: "pd.DataFrame") -> tuple[np.ndarray, list[Hashable]]:
        """The task of each row as a position, and the names as they were written, in order of appearance.

        Names are one where `bayesmeta.task_names.name_text` of both is the same: 3 and 3.0 are.

        Raises:
            DataError: a task is missing, or its column is one of floats that may have merged large whole numbers.
        """
        frame = as_pandas(frame)
        _require_columns(frame, [*self.within, self.task])
        return _tasks(frame, [*self.within, self.task])

    def _require_constant(self, frame: "pd.DataFrame") -> None:
        import pandas as pd

        tasks, names = self.tasks(frame)
        for name in self.covariates:
            try:
                codes, _ = pd.factorize(frame[name])  # -1 where missing
            except TypeError:  # cells without a hash, which are no numbers either
                continue
            changed = codes != first_of_task(codes, tasks)
            if changed.any():
                task = int(tasks[int(np.argmax(changed))])
                count = len(np.unique(codes[tasks == task]))
                raise DataError(
                    f"expected the covariate {name!r} to be constant within a task, "
                    f"got {count} values in task {names[task]!r}: name it among x instead"
                )

    def to_json(self) -> dict[str, Any]:
        """The schema as plain JSON, for `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Schema":
        """The inverse of `to_json`. Raises DataError when a field is missing."""
        try:
            found = {name: tuple(map(name_text, items)) for name, items in value["levels"].items()}
            lists = {name: tuple(value[name]) for name in ("x", "y", "covariates")}
            lists["yerr"] = tuple(value.get("yerr", ()))  # folders of before there was known noise have none
            classes = tuple(map(name_text, value.get("classes", ())))  # folders of before there were any have none
            lists |= {name: tuple(value.get(name, ())) for name in ("within", "groups")}
            kind = value.get("kind", "classes" if classes else "number")
            return cls(task=value["task"], levels=found, classes=classes, kind=kind, **lists)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise DataError(f"expected a table schema with task, x, y, covariates and levels, got {value!r}") from error


def _tasks(frame: "pd.DataFrame", columns: Sequence[str]) -> tuple[np.ndarray, list[Hashable]]:
    """Positions and names, in order of appearance; of several columns the names are tuples."""
    parts = []
    for name in columns:
        column = frame[name]
        missing = column.isna().to_numpy()
        if missing.any():
            where = place(column, int(np.argmax(missing)))
            raise DataError(f"expected a task in column {name!r} of every row, got none in {where}")
        parts.append(factorized(column, f"a task in column {name!r}"))
    if len(parts) == 1:
        return parts[0]
    codes = np.stack([rows for rows, _ in parts], 1)
    _, first, inverse = np.unique(codes, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    lists = [names for _, names in parts]
    names: list[Hashable] = [tuple(each[i] for each, i in zip(lists, codes[row], strict=True)) for row in first[order]]
    return rank[inverse.reshape(-1)], names


def observed(outcomes: np.ndarray) -> np.ndarray:
    """Which rows have an outcome, or at least one of several, of those that `Schema.outcomes` gives.

    Example:
        >>> observed(np.array([1, -1])).tolist(), observed(np.array([[0.5, np.nan], [np.nan, np.nan]])).tolist()
        ([True, False], [True, False])
    """
    return outcomes >= 0 if outcomes.ndim == 1 else ~np.isnan(outcomes).all(1)


def _kind(classes: tuple[str, ...], outcomes: Outcomes | None) -> str:
    if classes:
        return "binary" if outcomes == Labels(2) else "classes"
    return next((name for name, kind in KINDS.items() if type(outcomes) is kind), "number")


def _classes(used: "pd.DataFrame", y: Sequence[str], outcomes: Outcomes | None) -> tuple[str, ...]:
    """The classes of the outcome, none where it is a number."""
    if isinstance(outcomes, Numbers):
        if outcomes.count != len(y):
            raise DataError(f"expected {outcomes.count} outcome columns, as {outcomes} says, got {list(y)}")
        return ()
    if len(y) > 1:
        if outcomes is not None:
            raise DataError(f"expected one outcome column of classes, got {list(y)}: make a data set of each")
        return ()
    found = classes_of(used[y[0]], asked=outcomes is not None)
    if found is None:
        warn_of_codes(y[0], _numbers(used[y[0]]))
        return ()
    if outcomes is not None and outcomes.count not in (None, len(found)):
        raise DataError(f"expected {outcomes.count} classes in column {y[0]!r}, got {len(found)}: {', '.join(found)}")
    return found


def _numbers(column: "pd.Series[Any]") -> np.ndarray:
    """Those of an outcome; text among them is refused, which may be of classes after all."""
    try:
        return numbers(column, missing_allowed=True)
    except DataError as error:
        if not any(isinstance(cell, str) for cell in column):
            raise
        raise DataError(f"{error}. If these are classes, say {ASK_CLASSES}") from error


def _require_columns(frame: "pd.DataFrame", names: Sequence[str]) -> None:
    for name in names:
        if name not in frame.columns:
            raise DataError(f"expected a column {name!r}, got the columns {[str(c) for c in frame.columns]}")
        if getattr(frame[name], "ndim", 1) != 1:
            raise DataError(f"expected one column {name!r}, got {frame[name].shape[1]} of that name")
