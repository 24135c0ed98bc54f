"""To scikit-learn: estimators that know the task of a row, for its pipelines, searches and cross-validation.

    fit(X, y)          theta from the tasks among the rows, and the rows of each task as its support
    predict(X)         of a task that is known: from its posterior; of any other: from the prior
    partial_fit(X, y)  more rows of known or new tasks: posteriors follow, and theta stays

The task is a column of X (`task="subject"`), as splitters and scorers hand on X and y alone. It needs scikit-learn,
which is the extra `sklearn`.
"""

try:
    import sklearn  # noqa: F401
except ImportError as error:
    raise ImportError("bayesmeta.sklearn needs scikit-learn: pip install 'bayesmeta[sklearn]'") from error

from bayesmeta.sklearn.classifier import MetaClassifier
from bayesmeta.sklearn.regressor import MetaRegressor, mean_log_density

__all__ = ["MetaClassifier", "MetaRegressor", "mean_log_density"]
