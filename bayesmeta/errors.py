"""The error tree: everything bayesmeta raises on purpose is a `BayesMetaError`."""

import contextlib
import re
from collections.abc import Callable, Hashable, Iterator, Sequence


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
        task: the position in the batch of the task that failed, which the message calls "task 3"; None where it is not
            the failure of one task, or where the message has the task's name.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.MAML(bm.MLP(1, [8]), lr=900.0)  # far too large a step
        >>> try:
        ...     learner.implied_prior(bm.Data.from_arrays([0.0, 1.0, 3.0], [1.0, 2.0, 5.0]))
        ... except bm.InferenceError as error:
        ...     print(str(error).split(",")[0])
        expected step sizes with rate times curvature below 1
    """

    def __init__(self, message: str, task: int | None = None) -> None:
        super().__init__(message)
        self.task = task

    def retold(
        self, place: Callable[[int], int] | None = None, names: Sequence[Hashable] | None = None
    ) -> "InferenceError":
        """The same failure as who gave the tasks knows it; itself where it is not the failure of one task.

        Args:
            place: where the task is among those that were given, by its position in this batch.
            names: the names of those that were given.
        """
        if self.task is None:
            return self
        position = self.task if place is None else place(self.task)
        if names is not None and not 0 <= position < len(names):
            return self  # not a position among these
        name = position if names is None else repr(names[position])
        message = re.sub(rf"\btask {self.task}\b", lambda _: f"task {name}", str(self))
        return InferenceError(message, position if names is None else None)


@contextlib.contextmanager
def retelling(place: Callable[[int], int] | None = None, names: Sequence[Hashable] | None = None) -> Iterator[None]:
    """In this block the failure of a task is told by its place or its name among the tasks that a user gave.

    Args:
        place: where a task is among them, by its position in the batch that is computed.
        names: their names.

    Example:
        >>> with retelling(lambda position: 256 + position, names=range(1_000, 2_000)):
        ...     raise InferenceError("expected numbers, got NaN in task 3", task=3)
        Traceback (most recent call last):
        ...
        bayesmeta.errors.InferenceError: expected numbers, got NaN in task 1259
    """
    try:
        yield
    except InferenceError as error:
        told = error.retold(place, names)
        if told is error:
            raise
        raise told from error


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


class PrecisionWarning(UserWarning):
    """Numbers that differ became one number in a lower precision, such as times in seconds since 1970 in float32.

    It also tells of matrices that a precision takes for singular, and of the jitter that was added to their diagonals.
    It is a warning, and Python's own filters turn it off, or into an error.

    Example:
        >>> import warnings
        >>> import bayesmeta as bm
        >>> learner, start = bm.ALPaCA(bm.Identity(1)), 1.7e9
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("error", bm.PrecisionWarning)
        ...     try:
        ...         learner.adapt(bm.Data.from_arrays([start, start + 20.0, start + 40.0], [0.1, 0.5, 0.7]))
        ...     except bm.PrecisionWarning as warning:
        ...         print(str(warning).split(",")[0])
        expected inputs that stay apart in float32
    """


class OutcomeWarning(UserWarning):
    """An outcome column is probably not what it is taken for: 0 and 1 predicted as numbers, tasks without any outcome.

    It is a warning, and Python's own filters turn it off, or into an error. Where an outcome is named for what it is
    (`outcomes=bm.Numbers()` or `bm.Labels()`), nothing is guessed, and nothing is warned of.

    Example:
        >>> import warnings
        >>> import pandas as pd
        >>> import bayesmeta as bm
        >>> frame = pd.DataFrame({"who": list("aabb"), "day": [0, 1, 0, 1], "ill": [0, 1, 1, 1]})
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("error", bm.OutcomeWarning)
        ...     try:
        ...         bm.TaskDataset.from_frame(frame, task="who", x=["day"], y="ill")
        ...     except bm.OutcomeWarning as warning:
        ...         print(str(warning).split(",")[0])
        column 'ill' holds 0 and 1 alone
    """
