"""The scale of a parameter: where its prior across tasks is Gaussian, and where that prior starts."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.distributions import Transform
from torch.distributions.transforms import AffineTransform, ComposeTransform, ExpTransform, SigmoidTransform

from bayesmeta.description import Described
from bayesmeta.errors import DataError


class Scale(Described, ABC):
    """What a parameter of a formula is: its range, and the prior across tasks that the training starts from.

    A subclass gives `transform`.

    Args:
        initial: the starting value of the typical parameter (the median across tasks), in the parameter's own unit.
        stddev: the starting deviation between tasks, on the transformed scale; 0 for a parameter that is the same in
            all tasks, whose value is learned like others.

    Raises:
        DataError: an initial value outside of the range, a deviation that is negative or not finite.

    Example:
        >>> import bayesmeta as bm
        >>> from torch.distributions.transforms import PowerTransform
        >>> class Squared(bm.parametric.Scale):
        ...     '''A positive number whose square root is Gaussian.'''
        ...     @property
        ...     def transform(self):
        ...         return PowerTransform(torch.tensor(2.0))
        >>> Squared(9.0, stddev=0.1).start()
        3.0
    """

    def __init__(self, initial: float, stddev: float) -> None:
        self.initial, self.stddev = float(initial), float(stddev)
        if not 0.0 <= self.stddev < math.inf:
            raise DataError(f"expected a deviation between tasks of at least 0, got {stddev}")
        if not (math.isfinite(self.initial) and math.isfinite(self.start())):
            raise DataError(f"expected an initial value within the range of {self.said()}, got {initial}")

    @property
    @abstractmethod
    def transform(self) -> Transform:
        """From the real line, where the prior is Gaussian, to the parameter: torch's, with its log determinant."""

    def start(self) -> float:
        """The initial value on the transformed scale; NaN or infinite outside of the range."""
        return float(self.transform.inv(torch.tensor(self.initial, dtype=torch.float64)))

    def value(self, real: Tensor) -> Tensor:
        """The parameter itself.

        Args:
            real: on the transformed scale.
        """
        result: Tensor = self.transform(real)
        return result

    def said(self) -> str:
        """The scale as an error message names it."""
        return type(self).__name__


class Positive(Scale):
    """A positive parameter, log-normal across tasks: a rate, a volume, a concentration.

    Args:
        initial: the starting median across tasks, in the parameter's own unit.
        stddev: the starting deviation of its logarithm between tasks: .3 is about 30 %. 0: the same in all tasks.

    Raises:
        DataError: an initial value that is not positive, a deviation that is negative.

    Example:
        >>> import bayesmeta as bm
        >>> clearance = bm.parametric.Positive(0.04, stddev=0.3)
        >>> logarithms = clearance.start() + 0.3 * torch.tensor([-2.0, 0.0, 2.0])
        >>> [round(value, 3) for value in clearance.value(logarithms).tolist()]
        [0.022, 0.04, 0.073]
    """

    def __init__(self, initial: float, stddev: float = 0.5) -> None:
        super().__init__(initial, stddev)

    @property
    def transform(self) -> Transform:
        """exp."""
        return ExpTransform()


class Interval(Scale):
    """A parameter between two bounds, logit-normal across tasks: a fraction, a probability, an efficiency.

    Args:
        lower: the lower bound.
        upper: the upper bound.
        initial: the starting median across tasks; the middle by default.
        stddev: the starting deviation of its logit between tasks. 0: the same in all tasks.

    Raises:
        DataError: bounds that are not in order, an initial value that is not between them, a negative deviation.

    Example:
        >>> import bayesmeta as bm
        >>> fraction = bm.parametric.Interval(0.0, 1.0, initial=0.8)
        >>> logits = fraction.start() + torch.tensor([-1.0, 0.0, 1.0])
        >>> [round(value, 3) for value in fraction.value(logits).tolist()]
        [0.595, 0.8, 0.916]
    """

    def __init__(self, lower: float, upper: float, initial: float | None = None, stddev: float = 0.5) -> None:
        if not -math.inf < lower < upper < math.inf:
            raise DataError(f"expected bounds with lower < upper, got {lower} and {upper}")
        self.lower, self.upper = float(lower), float(upper)
        middle = self.lower + 0.5 * (self.upper - self.lower)
        if initial is not None and not lower < initial < upper:
            raise DataError(f"expected an initial value between {lower} and {upper}, got {initial}")
        super().__init__(middle if initial is None else initial, stddev)

    @property
    def transform(self) -> Transform:
        """lower + (upper - lower) sigmoid."""
        return ComposeTransform([SigmoidTransform(), AffineTransform(self.lower, self.upper - self.lower)])


class Real(Scale):
    """A parameter of any sign, Gaussian across tasks: an offset, a time of onset.

    Args:
        initial: the starting mean across tasks.
        stddev: the starting deviation between tasks, in the parameter's own unit. 0: the same in all tasks.

    Raises:
        DataError: a number that is not finite, a negative deviation.

    Example:
        >>> import bayesmeta as bm
        >>> bm.parametric.Real(50.0, stddev=10.0).value(torch.tensor([40.0, 60.0])).tolist()
        [40.0, 60.0]
    """

    def __init__(self, initial: float, stddev: float = 1.0) -> None:
        super().__init__(initial, stddev)

    @property
    def transform(self) -> Transform:
        """The identity."""
        return ComposeTransform([AffineTransform(0.0, 1.0)])
