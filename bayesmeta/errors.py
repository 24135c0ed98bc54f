"""The error tree: everything bayesmeta raises on purpose is a `BayesMetaError`."""


class BayesMetaError(Exception):
    """Base of every error that bayesmeta raises on purpose."""


class ShapeError(BayesMetaError, ValueError):
    """A tensor has the wrong number of axes or the wrong size along one of them."""


class DataError(BayesMetaError, ValueError):
    """A value is not usable: a non-finite cell, an unknown column, a label out of range, a broken model folder."""


class UnsupportedError(BayesMetaError, NotImplementedError):
    """The question makes sense, but this type cannot answer it."""


class InferenceError(BayesMetaError, RuntimeError):
    """A computation failed: a matrix that is not positive definite, a loss that is not finite.

    Attributes:
        task: position in the batch of the task that failed; None where it is not one task's failure.
    """

    def __init__(self, message: str, task: int | None = None) -> None:
        super().__init__(message)
        self.task = task


class ConvergenceWarning(UserWarning):
    """Draws were made, but there is reason not to trust them yet: chains that disagree, trajectories that diverge."""
