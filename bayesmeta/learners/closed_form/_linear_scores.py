"""Scores of ridge regression on unit vectors, for the heads that are one."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from bayesmeta.inference.linear_gaussian import LinearGaussian
from bayesmeta.learners.closed_form._classifier import Scores


@dataclass(frozen=True, eq=False)
class LinearScores(Scores):
    """Posterior mean and variance of the scores: all classes have one variance.

    Attributes:
        belief: of the whitened weights, labels having variance 1.
        deviation: the prior's, by which features are whitened.
    """

    belief: LinearGaussian
    deviation: Float[Tensor, ""] | float

    def at(self, rows: Float[Tensor, "B M F"]) -> tuple[Float[Tensor, "B M C"], Float[Tensor, "B M 1"]]:
        """The belief's prediction."""
        mean, variance = self.belief.predict(rows * self.deviation)
        return mean, variance[..., None]
