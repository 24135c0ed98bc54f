"""The error tree: everything bayesmeta raises on purpose is a `BayesMetaError`."""


class BayesMetaError(Exception):
    """The base of every error that bayesmeta raises on purpose: catching it catches them all.

    Example:
        >>> import bayesmeta as bm
        >>> try:
        ...     bm.Data.from_arrays([0.0, 1.0], [0.0])
        ... except bm.BayesMetaError as error:
        ...     print(type(error).__name__, "-", error)
        ShapeError - expected x (N, D) and y (N, C) of one length, got (2, 1) and (1, 1)
    """


class ShapeError(BayesMetaError, ValueError):
    """A tensor has the wrong number of axes, or the wrong size along one of them. It is also a `ValueError`.

    Example:
        >>> import bayesmeta as bm
        >>> posterior = bm.ALPaCA(bm.Identity(2)).adapt(bm.Data.from_arrays([[0.0, 1.0]], [0.5]))
        >>> posterior.predict([[0.0, 1.0, 2.0]])
        Traceback (most recent call last):
        ...
        bayesmeta.errors.ShapeError: expected x of shape (1, M, 2), got (1, 3)
    """


class DataError(BayesMetaError, ValueError):
    """A value is not usable: a cell that is not finite, an unknown column, a label out of range, a broken model folder.

    It is also a `ValueError`. The message names the cell, column or argument, what was expected and what was found.

    Example:
        >>> import bayesmeta as bm
        >>> try:
        ...     bm.Data.from_arrays([0.0, 1.0], [0.5, float("nan")])
        ... except bm.DataError as error:
        ...     print(str(error).split(":")[0])
        expected y to be finite, got nan at index (1,)
    """


class UnsupportedError(BayesMetaError, NotImplementedError):
    """The question makes sense, but this type has no answer to it. It is also a `NotImplementedError`.

    Example:
        >>> import bayesmeta as bm
        >>> bm.MAML(bm.MLP(1, [8])).log_evidence(bm.Data.from_arrays([0.0], [0.5]))
        Traceback (most recent call last):
        ...
        bayesmeta.errors.UnsupportedError: MAML has no closed form of the evidence: use a predictive objective
    """


class InferenceError(BayesMetaError, RuntimeError):
    """A computation failed: a matrix is not positive definite, or a loss is not finite. It is also a `RuntimeError`.

    Attributes:
        task: the position in the batch of the task that failed; None where it is not the failure of one task.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.ALPaCA(bm.Identity(2))
        >>> twice = bm.Data.from_arrays([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]], [0.0, 1.1, 1.9])  # the same input twice
        >>> try:
        ...     learner.restricted_log_evidence(twice)
        ... except bm.InferenceError as error:
        ...     print(str(error).split(":")[0])
        expected features that determine the prior mean, got a singular design over all tasks
    """

    def __init__(self, message: str, task: int | None = None) -> None:
        super().__init__(message)
        self.task = task


class ConvergenceWarning(UserWarning):
    """A result was computed, but there is reason not to trust it yet: chains disagree, or a search did not arrive.

    It is a warning, and Python's own filters turn it off, or into an error.

    Example:
        >>> import warnings
        >>> import bayesmeta as bm
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("error", bm.ConvergenceWarning)  # stop rather than go on with such draws
        ...     warnings.warn("chains disagree", bm.ConvergenceWarning)
        Traceback (most recent call last):
        ...
        bayesmeta.errors.ConvergenceWarning: chains disagree
    """
