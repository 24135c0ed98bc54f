"""What a trial of an architecture may cost: gradient steps, or processor seconds; the same for all sizes."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from bayesmeta.arguments import whole
from bayesmeta.errors import DataError

TIMED = 10  # steps whose time says how many a second has room for


@dataclass(frozen=True)
class Budget(ABC):
    """The budgets of the rungs of successive halving, the cheapest first.

    A trial of a later rung is trained anew, with a learning rate that falls over all of its steps.

    Attributes:
        rungs: of a trial on each rung.

    Raises:
        DataError: no rung, or budgets that do not increase.

    Example:
        >>> class Hundreds(Budget):
        ...     '''Of hundreds of steps.'''
        ...     def steps(self, rung, seconds):
        ...         return int(100 * self.rungs[rung])
        >>> Hundreds((1.0, 3.0)).steps(1, lambda steps: 0.1 * steps)
        300
    """

    rungs: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check that they increase."""
        rungs = tuple(self.rungs) if isinstance(self.rungs, tuple | list) else ()
        if not rungs or not rungs[0] > 0 or any(not a < b for a, b in itertools.pairwise(rungs)):
            raise DataError(f"expected budgets that increase from rung to rung, got {self.rungs!r}")
        object.__setattr__(self, "rungs", rungs)

    @abstractmethod
    def steps(self, rung: int, seconds: Callable[[int], float]) -> int:
        """The gradient steps of a trial.

        Args:
            rung: its rung, from 0.
            seconds: takes so many steps of a learner that is thrown away; processor seconds.
        """


@dataclass(frozen=True)
class Steps(Budget):
    """So many gradient steps for every architecture: what is found is a function of the seed.

    Large networks take more time for them.

    Attributes:
        rungs: of a trial on each rung.

    Raises:
        DataError: no rung, or steps that are not whole numbers that increase.

    Example:
        >>> Steps((100, 300)).steps(1, lambda steps: 0.1 * steps)
        300
    """

    rungs: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check that they are whole."""
        super().__post_init__()
        object.__setattr__(self, "rungs", tuple(whole(each, "steps", 1) for each in self.rungs))

    def steps(self, rung: int, seconds: Callable[[int], float]) -> int:
        """What was said."""
        return self.rungs[rung]


@dataclass(frozen=True)
class Seconds(Budget):
    """So many processor seconds for every architecture: large networks take fewer steps.

    A few steps are timed before each trial, beside its budget; its row says how many steps it took.

    Attributes:
        rungs: processor seconds of a trial on each rung.

    Raises:
        DataError: no rung, or seconds that do not increase.

    Example:
        >>> Seconds((1.0, 4.0)).steps(1, lambda steps: 0.01 * steps)
        400
    """

    def steps(self, rung: int, seconds: Callable[[int], float]) -> int:
        """As many as there is time for, at least one."""
        seconds(2)  # what the first steps need once is not counted
        return max(int(self.rungs[rung] / max(seconds(TIMED) / TIMED, 1e-9)), 1)
