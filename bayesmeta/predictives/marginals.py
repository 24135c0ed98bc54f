"""The marginals of a predictive that are no distribution of torch's: a distribution that asks the predictive."""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from bayesmeta.predictives.predictive import Predictive


class PredictiveMarginals(Distribution):
    """A predictive point by point, for code that asks for a torch distribution.

    Args:
        predictive: what answers.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}  # printing asks for it

    def __init__(self, predictive: Predictive) -> None:
        self.predictive = predictive
        shape = predictive.shape
        super().__init__(shape[:2], shape[2:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The predictive's mean."""
        return self.predictive.mean

    @property
    def variance(self) -> Tensor:
        """The predictive's variance."""
        return self.predictive.variance

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density of each point on its own, in nats."""
        return self._each(self.predictive.marginal_log_prob, value)

    def cdf(self, value: Tensor) -> Tensor:
        """P(Y <= value), output by output."""
        return self._each(self.predictive.cdf, value)

    def _each(self, function: Callable[[Tensor], Tensor], value: Tensor) -> Tensor:
        """A predictive takes one outcome of each point; a distribution any number, along leading axes."""
        shape = self.predictive.shape
        if value.ndim <= len(shape) or value.shape[-len(shape) :] != shape:
            return function(value)
        leading = value.shape[: value.ndim - len(shape)]
        results = torch.stack([function(each) for each in value.reshape(-1, *shape)])
        return results.unflatten(0, leading)
