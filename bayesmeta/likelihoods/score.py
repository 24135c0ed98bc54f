"""The derivative of a log density in f, where it is a weighted residual."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor


class Mean:
    """m(f), what a likelihood expects of y at f, and its derivative, which is symmetric. This one is f itself.

    Example:
        >>> mean, f = Mean(), torch.tensor([[1.0, 2.0]])
        >>> mean.at(f).tolist(), mean.pushed(f, torch.ones(1, 2)).tolist()
        ([[1.0, 2.0]], [[1.0, 1.0]])
    """

    def at(self, f: Float[Tensor, "*b K"]) -> Float[Tensor, "*b K"]:
        """m(f).

        Args:
            f: network outputs.
        """
        return f

    def pushed(self, mean: Float[Tensor, "*b K"], tangent: Float[Tensor, "*b K"]) -> Float[Tensor, "*b K"]:
        """The change of m that a change of f makes.

        Args:
            mean: m(f).
            tangent: the change of f.
        """
        return tangent


ITSELF = Mean()
"""m(f) = f."""


class Probability(Mean):
    """m(f) = sigmoid(f): the probability of class 1, output by output.

    Example:
        >>> Probability().at(torch.zeros(1)).tolist()
        [0.5]
    """

    def at(self, f: Float[Tensor, "*b K"]) -> Float[Tensor, "*b K"]:
        """sigmoid(f)."""
        return torch.sigmoid(f)

    def pushed(self, mean: Float[Tensor, "*b K"], tangent: Float[Tensor, "*b K"]) -> Float[Tensor, "*b K"]:
        """p (1 - p) times the change."""
        return mean * (1.0 - mean) * tangent


class Probabilities(Mean):
    """m(f) = softmax(f): the probabilities of all classes.

    Example:
        >>> Probabilities().at(torch.zeros(2)).tolist()
        [0.5, 0.5]
    """

    def at(self, f: Float[Tensor, "*b K"]) -> Float[Tensor, "*b K"]:
        """softmax(f)."""
        return f.softmax(-1)

    def pushed(self, mean: Float[Tensor, "*b K"], tangent: Float[Tensor, "*b K"]) -> Float[Tensor, "*b K"]:
        """(diag(p) - p pᵀ) times the change."""
        weighted = mean * tangent
        return weighted - mean * weighted.sum(-1, keepdim=True)


@dataclass(frozen=True, eq=False)
class Score:
    """w (y - m(f)), the derivative of a log density in f at the points of each task.

    Gaussian, Bernoulli and Categorical densities have it: f is their natural parameter, or the mean itself.

    Attributes:
        weight: w, 0 at padding: it broadcasts to `B N K`.
        y: outcomes in the precision of f, those of classes one-hot.
        mean: m.

    Example:
        >>> score = Score(torch.tensor([[[2.0]], [[0.0]]]), torch.tensor([[[1.0]], [[7.0]]]))  # the second is padding
        >>> score(torch.zeros(2, 1, 1)).flatten().tolist()
        [2.0, 0.0]
        >>> score.times(torch.tensor([0.5, 0.5]))(torch.zeros(2, 1, 1)).flatten().tolist()
        [1.0, 0.0]
    """

    weight: Float[Tensor, "B N #K"]
    y: Float[Tensor, "B N K"]
    mean: Mean = ITSELF

    def __call__(self, f: Float[Tensor, "B N K"]) -> Float[Tensor, "B N K"]:
        """The derivative at f.

        Args:
            f: network outputs.
        """
        return (self.y - self.mean.at(f)) * self.weight

    def times(self, factor: Float[Tensor, "#B"] | Float[Tensor, ""]) -> "Score":
        """The same multiplied by a number of each task.

        Args:
            factor: the numbers, or one for all.
        """
        return replace(self, weight=self.weight * factor.reshape(-1, 1, 1))
