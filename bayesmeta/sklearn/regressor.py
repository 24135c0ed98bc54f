"""Numbers, by scikit-learn's interface."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import RegressorMixin
from sklearn.pipeline import Pipeline
from sklearn.utils import Tags
from sklearn.utils.validation import check_array, check_consistent_length
from torch import Tensor

from bayesmeta.arguments import generator_of, probability, some
from bayesmeta.errors import DataError
from bayesmeta.predictives.covariances import covariance_of_points
from bayesmeta.sklearn.answers import Method, answered, predictions
from bayesmeta.sklearn.estimator import MetaEstimator, checked, learn, learn_more, read_new, seed_from
from bayesmeta.sklearn.table import Column
from bayesmeta.tasks.table import KINDS


class MetaRegressor(RegressorMixin, MetaEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Regression of rows that belong to tasks: a prior from all of them, a posterior of each, and honest intervals.

    `fit` meta-trains theta on the tasks among the rows and keeps each task's rows as its support. `predict` conditions
    on them: a row of a known task is predicted from that task's posterior, any other from the prior predictive. More
    rows (`partial_fit`) update posteriors, also of tasks that `fit` has not seen, and leave theta as it is.

    The task is a column of X (`task=`), because splitters, pipelines and scorers hand on X and y alone. So `KFold` asks
    how well other points of known tasks are predicted, and `GroupKFold` how well new tasks are. Without a column and
    without `groups` all rows are of one task, which is a plain regression.

    Args:
        method: a name that `bayesmeta fit --method` knows, a `Learner`, a function of the numbers of encoded inputs and
            of outcomes that gives one, or None for the default of the command line. It is trained in float64.
        task: the column of X that names the task of a row, by name (of a DataFrame) or position. A cell without a name
            is of a task that is not known.
        covariates: columns that are constant within a task, whose effects linear methods hold for the same in all.
        steps: gradient steps, or iterations of a full-batch training. 0 leaves theta as it is, for a `method` that is
            a trained learner.
        random_state: of initial weights and training: a number, numpy's `RandomState`, or None.
        outcome: what numbers y holds: "number" any, "positive" positive ones (durations, prices), "count" whole numbers
            from 0. It decides which methods there are.

    Attributes:
        learner_: the trained learner.
        tasks_: the known rows of each task, a `TaskDataset`.
        schema_: which column is what.
        n_features_in_: the number of columns of X, the task's among them.
        feature_names_in_: their names, where X had names.

    Example:
        >>> import pandas as pd
        >>> from bayesmeta.sklearn import MetaRegressor
        >>> frame = pd.DataFrame({"subject": list("aaabbbccc"), "days": [0, 1, 2] * 3})
        >>> reaction = [250.0, 259.0, 271.0, 223.0, 215.0, 235.0, 279.0, 284.0, 301.0]
        >>> model = MetaRegressor("alpaca-linear", task="subject").fit(frame, reaction)
        >>> mean, sd = model.predict(pd.DataFrame({"subject": ["a", "new"], "days": [3, 3]}), return_std=True)
        >>> bool(sd[0] < sd[1])  # nothing is known of the new subject but what all have in common
        True
        >>> _ = model.partial_fit(pd.DataFrame({"subject": ["new"], "days": [0]}), [200.0])
        >>> bool(model.predict(pd.DataFrame({"subject": ["new"], "days": [3]}))[0] < mean[1])
        True
    """

    outcome: str
    one_column_: bool

    def __init__(
        self,
        method: Method = None,
        *,
        task: Column | None = None,
        covariates: Sequence[Column] = (),
        steps: int = 5_000,
        random_state: Any = 0,
        outcome: str = "number",
    ) -> None:
        super().__init__(method, task=task, covariates=covariates, steps=steps, random_state=random_state)
        self.outcome = outcome

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Meta-train theta on the tasks among the rows, and keep each task's rows as its support.

        Args:
            X: array or DataFrame `rows columns`; text and categories of a DataFrame become one-hot.
            y: the outcomes, `rows`, or `rows C` for several.
            groups: the task of each row, in place of a column of X. `predict` then knows of a row's task only what it
                is told by its own `groups`.

        Raises:
            DataError: a cell that cannot be read, an unknown column or method, or both a column and groups. It is also
                a `ValueError`, as are scikit-learn's own.
        """
        X = checked(self, X, reset=True)
        names = _names_of(y)
        y, self.one_column_ = _numbers(X, y)
        require_kind_of(y, self.outcome)
        names = names or (["y"] if y.shape[1] == 1 else [f"y{c}" for c in range(y.shape[1])])
        learn(self, X, y, groups, names, self.outcome)
        return self

    def partial_fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Update posteriors by more rows, of known tasks or of new ones; theta stays. Before any `fit` it is one.

        Args:
            X: as for `fit`.
            y: as for `fit`.
            groups: the task of each row, where `fit` was given groups.

        Raises:
            DataError: a cell that cannot be read, or a row without a task.
            ShapeError: another number of outcomes.
        """
        if not hasattr(self, "tasks_"):
            return self.fit(X, y, groups)
        X = checked(self, X)
        y = _numbers(X, y, len(self.schema_.y))[0]
        require_kind_of(y, self.schema_.kind)
        learn_more(self, X, y, groups)
        return self

    def predict(self, X: Any, return_std: bool = False, return_cov: bool = False, groups: Any = None) -> Any:
        """The predictive mean of each row.

        Args:
            X: array or DataFrame, the task's column included.
            return_std: also the predictive standard deviation, observation noise included.
            return_cov: also the predictive covariance between rows, `rows rows`: noise included, and 0 between tasks,
                which are independent given theta. Rows without a name of their task are each of another.
            groups: the task of each row, where `fit` was given groups; without it every row is of a task that is not
                known.

        Returns:
            The mean, `rows`, or `rows C` where `fit` was given such y; with `return_std` (mean, deviation) of the same
            shape, with `return_cov` (mean, covariance), which of C outcomes is `rows rows C`, one for each.

        Raises:
            DataError: both are asked for, or a cell that cannot be read.
            UnsupportedError: the method has no covariance between points.
        """
        if return_std and return_cov:
            raise DataError("expected at most one of return_std and return_cov, got both")
        table = read_new(self, X, groups)
        learner, tasks = self.learner_.frozen(), self.tasks_
        if return_cov:
            count, outputs = len(table.x), len(self.schema_.y)
            mean, covariance = np.empty((count, outputs)), np.zeros((count, count, outputs))
            for piece, predictive in predictions(learner, tasks, table, jointly=True):
                between, means = covariance_of_points(predictive), predictive.mean
                for b, mask in enumerate(piece.mask):
                    rows = piece.y[b, mask].numpy()
                    mean[rows] = means[b, mask].numpy()
                    covariance[np.ix_(rows, rows)] = between[b][:, mask][:, :, mask].movedim(0, -1).numpy()
            return self._shaped(mean), covariance[..., 0] if self.one_column_ else covariance
        if return_std:
            both = answered(learner, tasks, table, lambda p: torch.stack([p.mean, p.stddev], -1))
            return self._shaped(both[..., 0]), self._shaped(both[..., 1])
        return self._shaped(answered(learner, tasks, table, lambda p: p.mean))

    def predict_interval(self, X: Any, level: float = 0.9, groups: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """The central interval (lower, upper) that holds an outcome of a row with a probability.

        Args:
            X: as for `predict`.
            level: the probability.
            groups: as for `predict`.

        Raises:
            DataError: a level outside (0, 1), or a cell that cannot be read.
        """
        level = probability(level, "a level")
        table = read_new(self, X, groups)
        both = answered(self.learner_.frozen(), self.tasks_, table, lambda p: torch.stack(p.interval(level), -1))
        return self._shaped(both[..., 0]), self._shaped(both[..., 1])

    def sample_y(self, X: Any, n_samples: int = 1, random_state: Any = 0, groups: Any = None) -> np.ndarray:
        """Draws from the predictive, joint over the rows of a task, observation noise included.

        Args:
            X: as for `predict`.
            n_samples: how many draws.
            random_state: a number, numpy's `RandomState`, or None.
            groups: as for `predict`.

        Returns:
            `rows n_samples`, or `rows C n_samples` of several outcomes.
        """
        table, count = read_new(self, X, groups), some(n_samples, "n_samples", "draw")
        generator = generator_of(seed_from(random_state))

        def draws(predictive: Any) -> Tensor:
            return predictive.sample((count,), generator).movedim(0, -1)

        found = answered(self.learner_.frozen(), self.tasks_, table, draws, jointly=True)
        return found[:, 0] if self.one_column_ else found

    def log_density(self, X: Any, y: Any, groups: Any = None) -> np.ndarray:
        """log p(y | x, D, theta) of each row on its own, in nats: a proper score, which squared errors are not.

        Args:
            X: as for `predict`.
            y: the outcomes.
            groups: as for `predict`.
        """
        table = read_new(self, X, groups)
        outcomes = _numbers(X, y, len(self.schema_.y))[0]
        values = np.empty(len(outcomes))
        for piece, predictive in predictions(self.learner_.frozen(), self.tasks_, table):
            densities = predictive.marginal_log_prob(outcomes[piece.y])
            values[piece.y[piece.mask].numpy()] = densities[piece.mask].numpy()
        return values

    def _shaped(self, values: np.ndarray) -> np.ndarray:
        return values[:, 0] if self.one_column_ else values

    def __sklearn_tags__(self) -> Tags:
        tags: Tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def mean_log_density(estimator: MetaRegressor | Pipeline, X: Any, y: Any) -> float:
    """A score for searches and cross-validation (`scoring=mean_log_density`): the mean log density of rows, in nats.

    It rewards a mean that is right and a deviation that says how far off it is, where R² sees the mean alone.

    Args:
        estimator: a fitted `MetaRegressor`, or a pipeline that ends in one.
        X: rows.
        y: their outcomes.

    Example:
        >>> import numpy as np
        >>> from sklearn.model_selection import GroupKFold, cross_val_score
        >>> from bayesmeta.sklearn import MetaRegressor, mean_log_density
        >>> who, t = np.repeat(np.arange(6.0), 4), np.tile(np.arange(4.0), 6)
        >>> y = np.sin(who) + 0.3 * t + 0.1 * np.cos(7.0 * who + 5.0 * t)
        >>> model = MetaRegressor("alpaca-linear", task=0)
        >>> scores = cross_val_score(
        ...     model, np.stack([who, t], 1), y, groups=who, cv=GroupKFold(3), scoring=mean_log_density
        ... )
        >>> scores.shape
        (3,)
    """
    if isinstance(estimator, Pipeline):
        return mean_log_density(estimator[-1], estimator[:-1].transform(X), y)
    return float(np.mean(estimator.log_density(X, y)))


def _numbers(X: Any, y: Any, outputs: int | None = None) -> tuple[Tensor, bool]:
    """Outcomes `rows C`, and whether they came without the second axis."""
    if y is None:
        raise DataError("MetaRegressor requires y to be passed, but the target y is None")
    array = check_array(y, ensure_2d=False, dtype=np.float64, input_name="y", ensure_min_samples=0)
    check_consistent_length(X, array)
    numbers = torch.from_numpy(np.array(array, dtype=np.float64))
    one = numbers.ndim == 1
    numbers = numbers[:, None] if one else numbers
    if outputs is not None and numbers.shape[1] != outputs:
        raise DataError(f"expected {outputs} outcomes in each row of y, got {numbers.shape[1]}")
    return numbers, one


def require_kind_of(y: Tensor, kind: str) -> None:
    """Raise DataError for an outcome that is not of a kind, or a kind that does not exist.

    Args:
        y: outcomes, `rows C`.
        kind: as `Schema.kind` says it.

    Example:
        >>> require_kind_of(torch.tensor([[2.0], [0.5]]), "count")
        Traceback (most recent call last):
        ...
        bayesmeta.errors.DataError: expected counts (whole numbers from 0) in y, got 0.5 in row 1
    """
    if kind not in KINDS:
        raise DataError(f"expected an outcome among {sorted(KINDS)}, got {kind!r}")
    numbers = KINDS[kind](y.shape[1])
    wrong = numbers.forbidden(y)
    if wrong is not None and bool(wrong.any()):
        row, output = (int(place) for place in wrong.nonzero()[0])
        raise DataError(f"expected {numbers.requirement} in y, got {y[row, output].item():g} in row {row}")


def _names_of(y: Any) -> list[str]:
    """Names of outcomes that have some."""
    names = [y.name] if hasattr(y, "name") else list(getattr(y, "columns", []))
    return names if names and all(isinstance(name, str) for name in names) else []
