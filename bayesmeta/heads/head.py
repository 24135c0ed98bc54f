"""A head: how the features of labelled examples become a belief about the scores of classes.

    f_c(x) = score of class c at x;   a head gives its mean m_c(x) and variance v_c(x) given the examples

    logits of the softmax:   a m_c / sqrt(1 + π/8 a² s² v_c)        MacKay 1992, with the width of the belief learned

A head is a last layer that is solved within the network, most in float64, and differentiated through its solution. It
knows nothing of images, of the network before it, or of the softmax behind it (`HeadClassifier`).
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.description import Described
from bayesmeta.errors import UnsupportedError
from bayesmeta.heads.classes import Classes, one_hot
from bayesmeta.one_line import InShort
from bayesmeta.typing import Params


@dataclass(frozen=True, eq=False)
class Examples(InShort):
    """The labelled examples of each task as a head sees them: features and labels, padding at zero.

    Attributes:
        rows: features Φ in the precision of the head, zero where padded.
        targets: labels as unit vectors Y, in the same precision, zero where padded.
        mask: True = real.
        classes: which classes each task has.

    Example:
        >>> rows, labels = torch.randn(1, 4, 6, dtype=torch.float64), torch.tensor([[0, 1, 1, 2]])
        >>> examples = Examples.of(rows, labels, torch.ones(1, 4, dtype=torch.bool), num_classes=3)
        >>> examples.targets[0].argmax(-1).tolist()
        [0, 1, 1, 2]
    """

    rows: Float[Tensor, "B N F"]
    targets: Float[Tensor, "B N C"]
    mask: Bool[Tensor, "B N"]
    classes: Classes

    @property
    def counts(self) -> Float[Tensor, "B C"]:
        """n_c, the number of examples of each class."""
        return self.targets.sum(1)

    @property
    def weights(self) -> Float[Tensor, "B N"]:
        """What a point counts in the fit: h / n_c, so that classes count alike; zero where padded.

        h is the harmonic mean of the n_c of the classes that have an example: each of them counts as h points. Where
        all have as many, a weight is 1.
        """
        inverse = torch.where(self.counts > 0.0, 1.0 / self.counts.clamp(min=1.0), 0.0)
        mean = (self.counts > 0.0).sum(-1) / inverse.sum(-1).clamp(min=torch.finfo(inverse.dtype).tiny)
        return (self.targets @ (mean[:, None] * inverse)[..., None])[..., 0]

    @classmethod
    def of(
        cls,
        rows: Float[Tensor, "B N F"],
        labels: Int[Tensor, "B N"],
        mask: Bool[Tensor, "B N"],
        num_classes: int | None,
    ) -> "Examples":
        """From features and labels.

        Args:
            rows: features of the support, in the precision of the head: float64 for those that solve equations.
            labels: of the support.
            mask: True = real.
            num_classes: C, or None for the classes that each support shows.

        Raises:
            DataError: as `Classes.of` does.
        """
        classes = Classes.of(labels, mask, num_classes)
        targets = one_hot(labels, classes.num_classes, mask).to(rows.dtype)
        is_full = not torch.compiler.is_compiling() and bool(mask.all())  # recorded code decides nothing
        return cls(rows if is_full else torch.where(mask[..., None], rows, 0.0), targets, mask, classes)


class Scores(InShort, ABC):
    """The posterior of the scores of each task's classes, given its examples: a value, which `Head.solve` gives.

    A subclass gives `at`; one that knows more of its scores than two moments also gives `logits`.

    Example:
        >>> class Indifferent(Scores):  # every score is 0, with variance 1
        ...     def at(self, rows):
        ...         return rows.new_zeros(*rows.shape[:2], 3), rows.new_ones(*rows.shape[:2], 1)
        >>> mean, variance = Indifferent().at(torch.randn(2, 5, 4))
        >>> mean.shape, variance.shape
        (torch.Size([2, 5, 3]), torch.Size([2, 5, 1]))
    """

    @abstractmethod
    def at(self, rows: Float[Tensor, "B M F"]) -> tuple[Float[Tensor, "B M C"], Float[Tensor, "B M #C"]]:
        """Mean and variance of every class's score; where all classes have one variance, a single column.

        Args:
            rows: features of the query points, float64.
        """

    def logits(
        self, rows: Float[Tensor, "B M F"], scale: Float[Tensor, ""], spread: Float[Tensor, ""]
    ) -> Float[Tensor, "B M C"]:
        """The logits of the softmax over classes, in nats, before how frequent the classes are.

        Args:
            rows: features of the query points, float64.
            scale: a, nats for a unit of score.
            spread: s², the width of the belief in units of the head's own variance.
        """
        mean, variance = self.at(rows)
        return scale * mean / (1.0 + math.pi / 8.0 * scale.square() * spread * variance).sqrt()

    def sample(self, num_draws: int, generator: torch.Generator | None = None) -> Params:
        """Draws of what the head believes in, each value `S B *shape`. Raises UnsupportedError where it has no density.

        Args:
            num_draws: S.
            generator: the global one when None.
        """
        raise UnsupportedError(f"{type(self).__name__} has no draws of phi")


class LogScores(Scores):
    """Scores that are log densities or log odds, in nats, and of which nothing is uncertain. A subclass gives
    `log_scores`.

    Example:
        >>> class Nearest(LogScores):  # of two classes around 0 and 1
        ...     def log_scores(self, rows):
        ...         return -(rows - torch.tensor([0.0, 1.0])).square()
        >>> mean, variance = Nearest().at(torch.tensor([[[0.25]]]))
        >>> mean.tolist(), variance.tolist()
        ([[[-0.0625, -0.5625]]], [[[0.0]]])
    """

    @abstractmethod
    def log_scores(self, rows: Float[Tensor, "B M F"]) -> Float[Tensor, "B M C"]:
        """The score of each class, in nats, before how frequent the classes are.

        Args:
            rows: features of the query points, in the precision of the head.
        """

    @override
    def at(self, rows: Float[Tensor, "B M F"]) -> tuple[Float[Tensor, "B M C"], Float[Tensor, "B M 1"]]:
        return self.log_scores(rows), torch.zeros_like(rows[..., :1])


class OpenScores(LogScores):
    """Scores that also know a class which the support does not show: that of the prior. A subclass gives `log_none`.

    Example:
        >>> class Standard(OpenScores):  # a class at 0, and classes whose means are N(0, 3)
        ...     def log_scores(self, rows):
        ...         return torch.distributions.Normal(0.0, 1.0).log_prob(rows)
        ...     def log_none(self, rows):
        ...         return torch.distributions.Normal(0.0, 2.0).log_prob(rows[..., 0])
        >>> rows = torch.tensor([[[0.0], [4.0]]])
        >>> (Standard().log_none(rows) > Standard().log_scores(rows)[..., 0]).tolist()
        [[False, True]]
    """

    @abstractmethod
    def log_none(self, rows: Float[Tensor, "B M F"]) -> Float[Tensor, "B M"]:
        """The score of a class without an example, whatever it is, in the units of `log_scores`.

        Args:
            rows: features of the query points, in the precision of the head.
        """


class Head(Described, nn.Module, ABC):
    """How the features of examples become a belief about scores. A subclass gives `solve`; its parameters are theta's.

    Attributes:
        num_features: F, where the head is made for so many features; None where any will do.
        precision: what features are converted to before it sees them: float64 where equations are solved; None leaves
            them as they are, for heads that are networks.

    Example:
        >>> from bayesmeta.heads import RidgeHead
        >>> rows, labels = torch.eye(3, dtype=torch.float64)[None], torch.tensor([[0, 1, 2]])
        >>> examples = Examples.of(rows, labels, torch.ones(1, 3, dtype=torch.bool), num_classes=3)
        >>> mean, variance = RidgeHead(1.0).solve(examples).at(rows)
        >>> [round(value, 3) for value in mean[0, 0].tolist()]
        [0.5, 0.0, 0.0]
    """

    num_features: int | None = None
    precision: torch.dtype | None = torch.float64

    @abstractmethod
    def solve(self, examples: Examples) -> Scores:
        """The posterior of the scores, differentiable in the rows and in the head's own parameters.

        Args:
            examples: features and labels of the support, in the head's precision.
        """

    def log_hyperprior(self) -> Float[Tensor, ""]:
        """log p of the head's own parameters, in nats, up to a constant: 0 unless a subclass has one."""
        return torch.zeros((), dtype=torch.float32, device="cpu")  # joins any precision and device
