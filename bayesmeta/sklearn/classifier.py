"""Classes, by scikit-learn's interface."""

from typing import Any, Self

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_consistent_length, column_or_1d
from torch import Tensor

from bayesmeta.arguments import generator_of, some
from bayesmeta.errors import DataError
from bayesmeta.sklearn.answers import answered
from bayesmeta.sklearn.estimator import MetaEstimator, checked, learn, learn_more, read_new, seed_from
from bayesmeta.task_names import name_text


class MetaClassifier(ClassifierMixin, MetaEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Classification of rows that belong to tasks, with the probability of each class.

    `fit` meta-trains theta on the tasks among the rows and keeps each task's rows as its support. A row of a known task
    is predicted from that task's posterior, any other from the prior predictive. The task is a column of X (`task=`),
    because splitters, pipelines and scorers hand on X and y alone; without a column and without `groups` all rows are
    of one task.

    Args:
        method: a name that `bayesmeta fit --method` knows for classes, a `Learner`, a function of the numbers of
            encoded inputs and of classes that gives one, or None for the default of the command line. It is trained in
            float64.
        task: the column of X that names the task of a row, by name (of a DataFrame) or position. A cell without a name
            is of a task that is not known.
        covariates: columns that are constant within a task.
        steps: gradient steps. 0 leaves theta as it is, for a `method` that is a trained learner.
        random_state: of initial weights and training: a number, numpy's `RandomState`, or None.

    Attributes:
        learner_: the trained learner.
        classes_: the classes, sorted, as y has them.
        tasks_: the known rows of each task, a `TaskDataset`.
        schema_: which column is what.
        n_features_in_: the number of columns of X, the task's among them.
        feature_names_in_: their names, where X had names.

    Example:
        >>> import pandas as pd
        >>> from bayesmeta.sklearn import MetaClassifier
        >>> frame = pd.DataFrame({"who": list("aaaabbbb"), "dose": [0.0, 1, 2, 3] * 2})
        >>> model = MetaClassifier("r2d2", task="who", steps=20)
        >>> model = model.fit(frame, ["no", "no", "yes", "yes", "no", "yes", "yes", "yes"])
        >>> model.classes_.tolist()
        ['no', 'yes']
        >>> model.predict_proba(pd.DataFrame({"who": ["b", None], "dose": [3.0, 3.0]})).shape
        (2, 2)
    """

    classes_: np.ndarray

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Meta-train theta on the tasks among the rows, and keep each task's rows as its support.

        Args:
            X: array or DataFrame `rows columns`; text and categories of a DataFrame become one-hot.
            y: the class of each row: numbers, texts or truths.
            groups: the task of each row, in place of a column of X. `predict` then knows of a row's task only what it
                is told by its own `groups`.

        Raises:
            DataError: fewer than two classes, a cell that cannot be read, an unknown column or method, or both a column
                and groups. It is also a `ValueError`, as are scikit-learn's own.
        """
        X = checked(self, X, reset=True)
        y = _classes(X, y)
        return self._fitted(X, y, np.unique(y), groups)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, groups: Any = None) -> Self:
        """Update posteriors by more rows, of known tasks or of new ones; theta stays. Before any `fit` it is one.

        Args:
            X: as for `fit`.
            y: as for `fit`; no other classes.
            classes: all classes, where this is the first call and not all of them are in y.
            groups: the task of each row, where `fit` was given groups.

        Raises:
            DataError: a class that is not known, a cell that cannot be read, or a row without a task.
        """
        is_first = not hasattr(self, "tasks_")
        X = checked(self, X, reset=is_first)
        y = _classes(X, y)
        if is_first:
            return self._fitted(X, y, np.unique(y if classes is None else classes), groups)
        if classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise DataError(f"expected the classes {self.classes_.tolist()}, got {list(classes)}")
        learn_more(self, X, self._labels(y), groups)
        return self

    def predict(self, X: Any, groups: Any = None) -> np.ndarray:
        """The most probable class of each row.

        Args:
            X: array or DataFrame, the task's column included.
            groups: the task of each row, where `fit` was given groups; without it every row is of a task that is not
                known.
        """
        return self.classes_of(self.predict_proba(X, groups))

    def classes_of(self, probs: np.ndarray) -> np.ndarray:
        """The most probable class of each row, the first of several that are alike.

        Args:
            probs: as `predict_proba` gives them.
        """
        return self.classes_[probs.argmax(1)]

    def predict_proba(self, X: Any, groups: Any = None) -> np.ndarray:
        """The probability of each class, `rows C`, in the order of `classes_`.

        Args:
            X: as for `predict`.
            groups: as for `predict`.
        """
        table = read_new(self, X, groups)
        return answered(self.learner_.frozen(), self.tasks_, table, lambda predictive: predictive.probs)

    def predict_log_proba(self, X: Any, groups: Any = None) -> np.ndarray:
        """The log probability of each class, `rows C`, in nats.

        Args:
            X: as for `predict`.
            groups: as for `predict`.
        """
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X, groups))

    def sample_y(self, X: Any, n_samples: int = 1, random_state: Any = 0, groups: Any = None) -> np.ndarray:
        """Classes that are drawn from the predictive, joint over the rows of a task: `rows n_samples`.

        Args:
            X: as for `predict`.
            n_samples: how many draws.
            random_state: a number, numpy's `RandomState`, or None.
            groups: as for `predict`.
        """
        table, count = read_new(self, X, groups), some(n_samples, "n_samples", "draw")
        generator = generator_of(seed_from(random_state))

        def draws(predictive: Any) -> Tensor:
            return predictive.sample((count,), generator).movedim(0, -1).long()

        return self.classes_[answered(self.learner_.frozen(), self.tasks_, table, draws, jointly=True)]

    def _fitted(self, X: Any, y: np.ndarray, classes: np.ndarray, groups: Any) -> Self:
        if len(classes) < 2:
            raise DataError(f"expected at least 2 classes in y, got 1 class: {classes.tolist()}")
        self.classes_ = classes
        learn(self, X, self._labels(y), groups, ["y"], classes=[name_text(name) for name in classes])
        return self

    def _labels(self, y: np.ndarray) -> Tensor:
        places = np.searchsorted(self.classes_, y)
        wrong = self.classes_[np.minimum(places, len(self.classes_) - 1)] != y
        if wrong.any():
            raise DataError(f"expected classes among {self.classes_.tolist()}, got {y[int(np.argmax(wrong))]!r}")
        return torch.from_numpy(places.astype(np.int64))


def _classes(X: Any, y: Any) -> np.ndarray:
    if y is None:
        raise DataError("MetaClassifier requires y to be passed, but the target y is None")
    y = check_array(y, ensure_2d=False, dtype=None, input_name="y", ensure_min_samples=0)
    check_classification_targets(y)
    y = column_or_1d(y, warn=True)
    check_consistent_length(X, y)
    return y
