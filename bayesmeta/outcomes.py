"""What a learner predicts at a point: numbers (any, positive, or counts), or the label of one of several classes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from bayesmeta.errors import DataError


@dataclass(frozen=True)
class Numbers:
    """Outcomes that are real numbers: regression. Data have a floating y of shape `B N C`.

    Attributes:
        count: C, how many numbers the outcome of one point has.

    Raises:
        DataError: a count that is not a positive whole number.

    Example:
        >>> import bayesmeta as bm
        >>> bm.Numbers(2).y_shape
        (2,)
        >>> bm.ALPaCA(bm.Identity(1), num_outputs=2).outcomes
        Numbers(count=2)
    """

    count: int = 1

    def __post_init__(self) -> None:
        """Check the count."""
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 1:
            raise DataError(f"expected a whole number of outputs, at least one, got {self.count!r}")

    @property
    def y_shape(self) -> tuple[int, ...]:
        """Shape of the outcome of one point: `(C,)`."""
        return (self.count,)

    @property
    def has_units(self) -> bool:
        """Whether outcomes may be shifted and scaled: a change of their unit makes outcomes of the same kind."""
        return True

    def forbidden(self, y: Tensor) -> Tensor | None:
        """Which outcomes are not of this kind; None where any number is.

        Args:
            y: finite outcomes of any shape.
        """
        return None

    @property
    def requirement(self) -> str:
        """What outcomes have to be, for messages."""
        return "numbers"

    def require(self, y: Tensor, real: Callable[[], Tensor], whose: str) -> None:
        """Raise DataError for the first real outcome that is not of this kind.

        Args:
            y: outcomes, `B N C`.
            real: says which outcomes are there, `B N C`; asked for only where some could be wrong.
            whose: who expects them, for the message.
        """
        if torch.compiler.is_compiling():  # no decisions in recorded code
            return
        wrong = self.forbidden(y)
        if wrong is None or not bool((wrong := wrong & real()).any()):
            return
        task, point, output = (int(i) for i in wrong.nonzero()[0])
        raise DataError(
            f"expected {self.requirement} as outcomes of {whose}, got {y[task, point, output].item():g} in task {task}"
        )


@dataclass(frozen=True)
class Positives(Numbers):
    """Outcomes that are positive numbers: durations, concentrations, prices. Data have a floating y of shape `B N C`.

    A change of their unit multiplies them; they are not shifted.

    Attributes:
        count: C, how many numbers the outcome of one point has.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.wrappers.LogTransformed(bm.ALPaCA(bm.Identity(1)))
        >>> learner.outcomes
        Positives(count=1)
        >>> learner.adapt(bm.Data.from_arrays([0.0, 1.0], [2.5, 0.0]))
        Traceback (most recent call last):
        ...
        bayesmeta.errors.DataError: expected positive numbers as outcomes of LogTransformed(ALPaCA), got 0 in task 0
    """

    @override
    def forbidden(self, y: Tensor) -> Tensor:
        return ~(y > 0.0)

    @property
    @override
    def requirement(self) -> str:
        return "positive numbers"


@dataclass(frozen=True)
class Counts(Numbers):
    """Outcomes that are counts, whole numbers from 0: seizures, visits, sales. Data have a floating y of shape `B N C`.

    They have no unit: nothing shifts or scales them (`bm.Standardized` leaves them as they are).

    Attributes:
        count: C, how many numbers the outcome of one point has.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.MAML(bm.MLP(1, [8]), likelihood=bm.likelihoods.NegativeBinomial())
        >>> learner.outcomes
        Counts(count=1)
        >>> learner.adapt(bm.Data.from_arrays([0.0, 1.0], [3.0, 2.5]))
        Traceback (most recent call last):
        ...
        bayesmeta.errors.DataError: expected counts (whole numbers from 0) as outcomes of MAML, got 2.5 in task 0
    """

    @property
    @override
    def has_units(self) -> bool:
        return False

    @override
    def forbidden(self, y: Tensor) -> Tensor:
        return (y < 0.0) | (y != y.round())

    @property
    @override
    def requirement(self) -> str:
        return "counts (whole numbers from 0)"


@dataclass(frozen=True)
class Labels:
    """Outcomes that are labels of classes: classification. Data have an int64 y of shape `B N`.

    Attributes:
        count: C, the classes of every task, labelled 0 to C - 1, with or without an example. None: the classes of a
            task are those of its support, each with an example, and tasks may differ in how many they have.

    Raises:
        DataError: a count that is neither None nor a whole number of at least two.

    Example:
        >>> import bayesmeta as bm
        >>> bm.Labels(5).y_shape
        ()
        >>> bm.R2D2(bm.MLP(2, [8]), num_classes=5).outcomes, bm.R2D2(bm.MLP(2, [8])).outcomes
        (Labels(count=5), Labels(count=None))
    """

    count: int | None = None

    def __post_init__(self) -> None:
        """Check the count."""
        if self.count is None:
            return
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 2:
            raise DataError(f"expected at least 2 classes, got {self.count!r}")

    @property
    def y_shape(self) -> tuple[int, ...]:
        """Shape of the outcome of one point: a label has no axis."""
        return ()


Outcomes = Numbers | Labels
"""What a learner predicts at a point."""


def require_kind(y_shape: tuple[int, ...], given: tuple[int, ...], whose: str = "these tasks") -> None:
    """Raise DataError where labels are given for numbers, or numbers for labels.

    Args:
        y_shape: shape of the outcome of one point that is expected; `()` is a label.
        given: shape of the outcome of one point that was given.
        whose: who expects it, for the message.
    """
    if bool(y_shape) == bool(given):
        return
    if y_shape:
        raise DataError(
            f"expected numbers for {whose} (floating y of shape (B, N, C), as Data.from_arrays makes them), "
            "got labels: take a classifier, or turn the labels into numbers yourself"
        )
    raise DataError(
        f"expected labels for {whose} (int64 y of shape (B, N), as Data.from_labels makes them), "
        "got numbers: take a learner for regression, or make the data with Data.from_labels"
    )
