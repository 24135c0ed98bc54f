"""Predictives of labels that also know how probable a point is under the classes: it may be of none of them."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.arguments import probability
from bayesmeta.predictives.independent import IndependentPredictive
from bayesmeta.predictives.predictive import require_shape


@dataclass(frozen=True, eq=False, kw_only=True)
class OpenSetPredictive(IndependentPredictive):
    """Class probabilities, and how much better the classes of the task explain a point than a class nobody showed.

    `probs` are those of the C classes and add up to 1, as those of every classifier: they say which class it is if it
    is one of them. Whether it is one is a second question, which `none_of_these` answers by Bayes' rule:

        p(none | x, D) = ρ p(x | new) / (ρ p(x | new) + (1 - ρ) p(x | classes, D)),   ρ the share of such points

    p(x | classes, D) is the mixture of the densities of the classes given the support, p(x | new) the density of a
    class that the prior draws and the support does not show.

    Attributes:
        distribution: a `Categorical` over the C classes, of batch shape (B, M).
        log_ratio: `B M`, log p(x | classes, D) - log p(x | new), in nats. A learner that tempers its densities tempers
            both.

    Raises:
        ShapeError: `log_ratio` does not have the shape of the points.

    Example:
        >>> from torch.distributions import Categorical
        >>> import bayesmeta as bm
        >>> labels = Categorical(torch.tensor([[[0.7, 0.3], [0.7, 0.3]]]))  # two points that look alike within the task
        >>> predictive = bm.predictives.OpenSetPredictive(labels, log_ratio=torch.tensor([[4.0, -4.0]]))
        >>> predictive.none_of_these(0.05)  # the second is far from both classes
        tensor([[0.0010, 0.7418]])
        >>> predictive
        prediction at 2 points: class probabilities [[0.7, 0.3], [0.7, 0.3]]
    """

    log_ratio: Float[Tensor, "B M"]

    def __post_init__(self) -> None:
        """Check the shape."""
        require_shape(self.log_ratio, self.distribution.batch_shape, "log_ratio")

    def none_of_these(self, prior: float = 0.05) -> Float[Tensor, "B M"]:
        """The probability that a point is of no class of the task.

        Args:
            prior: ρ, the share of such points before any is seen.

        Raises:
            DataError: unless 0 < prior < 1.
        """
        prior = probability(prior, "a prior probability")
        return torch.sigmoid(math.log(prior) - math.log1p(-prior) - self.log_ratio)
