"""What both estimators share: their arguments, how X is checked, and what they keep."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from bayesmeta.arguments import whole
from bayesmeta.errors import DataError
from bayesmeta.flat import FlatData
from bayesmeta.learner import Learner
from bayesmeta.sklearn.answers import Method, meta_trained, with_rows
from bayesmeta.sklearn.table import Column, Table, as_frame, schema_of
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.table import Schema


class MetaEstimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """An estimator that knows the task of a row: what `MetaRegressor` and `MetaClassifier` are."""

    method: Method
    task: Column | None
    covariates: Sequence[Column]
    steps: int
    random_state: Any
    learner_: Learner
    schema_: Schema
    tasks_: TaskDataset
    by_groups_: bool

    def __init__(
        self,
        method: Method = None,
        *,
        task: Column | None = None,
        covariates: Sequence[Column] = (),
        steps: int = 5_000,
        random_state: Any = 0,
    ) -> None:
        self.method = method
        self.task = task
        self.covariates = covariates
        self.steps = steps
        self.random_state = random_state


def seed_from(random_state: Any) -> int:
    """A seed from a number, a generator of numpy's, or None for any.

    Example:
        >>> seed_from(0) == seed_from(0)
        True
    """
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def checked(estimator: MetaEstimator, X: Any, *, reset: bool = False) -> Any:
    """X as scikit-learn wants it: the number of its columns and their names, and of an array every cell.

    Args:
        estimator: remembers what the columns are.
        X: array or DataFrame.
        reset: whether these are the columns from now on; else they are compared with those of `fit`.
    """
    if hasattr(X, "iloc") and hasattr(X, "columns"):  # cells of a DataFrame have types of their own
        validate_data(estimator, X, reset=reset, skip_check_array=True)
        return X
    kind = "numeric" if estimator.task is None else None
    return validate_data(estimator, X, reset=reset, dtype=kind, ensure_min_samples=2 if reset else 1)


def learn(
    estimator: MetaEstimator,
    X: Any,
    y: Tensor,
    groups: Any,
    names: Sequence[str],
    kind: str = "classes",
    classes: Sequence[str] = (),
) -> None:
    """Meta-train theta on rows that are checked, and keep them.

    Args:
        estimator: is given `learner_`, `schema_`, `tasks_` and `by_groups_`.
        X: rows.
        y: their outcomes, `rows C` numbers or labels.
        groups: the task of each row, or None.
        names: of the outcomes.
        kind: of outcome, as `Schema.kind` says it.
        classes: of labels.

    Raises:
        DataError: a row that cannot be read, or an outcome that is not of the kind.
    """
    steps = whole(estimator.steps, "steps")
    frame = as_frame(X, getattr(estimator, "feature_names_in_", None))
    schema = schema_of(frame, estimator.task, estimator.covariates, groups, names, classes, kind)
    table = Table.of(frame, schema, estimator.task, groups)
    x, codes = torch.from_numpy(table.x), torch.from_numpy(table.codes)
    tasks = TaskDataset(FlatData.grouped(x, y, codes, len(table.names)), table.names, schema)
    estimator.learner_ = meta_trained(estimator.method, tasks, steps, seed_from(estimator.random_state))
    estimator.schema_, estimator.tasks_, estimator.by_groups_ = schema, tasks, groups is not None


def learn_more(estimator: MetaEstimator, X: Any, y: Tensor, groups: Any) -> None:
    """Keep more rows that are checked; theta stays.

    Args:
        estimator: is given other `tasks_`.
        X: rows.
        y: their outcomes.
        groups: the task of each row, or None.
    """
    estimator.tasks_ = with_rows(estimator.tasks_, read(estimator, X, groups), y)


def read(estimator: MetaEstimator, X: Any, groups: Any) -> Table:
    """Rows that are checked as those of `fit` were read.

    Args:
        estimator: is fitted.
        X: rows.
        groups: the task of each row, or None.

    Raises:
        DataError: groups, where `fit` had none.
    """
    if groups is not None and not estimator.by_groups_:
        raise DataError("expected no groups, as fit was given none: say which column is the task (task=)")
    if groups is None and estimator.by_groups_:
        groups = np.full(len(X), None, dtype=object)
    frame = as_frame(X, getattr(estimator, "feature_names_in_", None))
    return Table.of(frame, estimator.schema_, estimator.task, groups)


def read_new(estimator: MetaEstimator, X: Any, groups: Any) -> Table:
    """Rows to predict. Raises NotFittedError before a fit."""
    check_is_fitted(estimator)
    return read(estimator, checked(estimator, X), groups)
