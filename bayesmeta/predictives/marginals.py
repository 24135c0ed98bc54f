"""The marginals of a predictive that are no distribution of torch's: a distribution that asks the predictive."""

from typing import ClassVar

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
        return self.predictive.marginal_log_prob(value)

    def cdf(self, value: Tensor) -> Tensor:
        """P(Y <= value), output by output."""
        return self.predictive.cdf(value)
