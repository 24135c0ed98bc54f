"""The metric of the no-U-turn sampler: the scales in which phi is explored, learned from the draws of the warm-up.

    phi = T z,   T Tᵀ ≈ Cov(phi | D)        so that z has about unit covariance, and unit mass serves every direction

T is the *root* of the metric: a deviation for each number of phi, or the Cholesky factor of their covariance. It is
learned in windows of the warm-up that double in length, as in Stan (Carpenter et al. 2017, and the reference manual's
section on automatic parameter tuning), each from the draws of its own window, shrunk towards a small multiple of the
identity.
"""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.description import Described
from bayesmeta.linalg import cholesky

FIRST_WINDOW = 25
SHRUNK_TO, PRIOR_DRAWS = 1e-3, 5.0  # the variance that estimates are shrunk to, and how many draws it is worth


class Metric(Described, ABC):
    """How the scales of phi are estimated: what `NUTS` takes as its metric. Chains of one task share their scales.

    A subclass gives `root`.

    Example:
        >>> class Isotropic(Metric):  # one deviation for all numbers of phi
        ...     def root(self, draws):
        ...         return draws.var(0).mean(-1, keepdim=True).sqrt().expand(draws.shape[1:])
        >>> draws = torch.tensor([[[0.0, 0.0]], [[2.0, 0.0]]])  # n B P
        >>> Isotropic().root(draws)
        tensor([[1., 1.]])
    """

    @abstractmethod
    def root(self, draws: Float[Tensor, "n B P"]) -> Tensor:
        """The root T of each task's covariance: deviations `B P`, or lower triangular factors `B P P`.

        Args:
            draws: of phi in the units of the log joint, n of all chains of each task together.
        """


class DiagonalMetric(Metric):
    """A deviation for each number of phi: the metric that `NUTS` has unless another is given.

    Its cost is that of phi itself. Numbers that depend on each other strongly are explored in longer trajectories; for
    few of them `DenseMetric` is quicker.

    Example:
        >>> import bayesmeta as bm
        >>> draws = torch.randn(1000, 1, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 10.0])
        >>> bm.inference.DiagonalMetric().root(draws).round()
        tensor([[ 1., 10.]])
    """

    def root(self, draws: Float[Tensor, "n B P"]) -> Float[Tensor, "B P"]:
        """√((n s² + 5e-3) / (n + 5)): deviations, whose variances s² are shrunk to 1e-3 with the weight of 5 draws."""
        count = len(draws)
        return ((count * draws.var(0) + PRIOR_DRAWS * SHRUNK_TO) / (count + PRIOR_DRAWS)).sqrt()


class DenseMetric(Metric):
    """All covariances of phi: for few numbers that depend on each other strongly.

    A step costs P² for P numbers in phi, and a window of the warm-up P³. Trajectories are as short as those of a
    Gaussian whose numbers are independent.

    Example:
        >>> import bayesmeta as bm
        >>> normal = torch.randn(4000, 1, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        >>> draws = normal @ torch.tensor([[3.0, 3.0], [0.0, 4.0]], dtype=torch.float64)  # deviations 3 and 5
        >>> root = bm.inference.DenseMetric().root(draws)
        >>> (root @ root.mT).round(decimals=-1)  # about [[9, 9], [9, 25]]
        tensor([[[10., 10.],
                 [10., 30.]]], dtype=torch.float64)
    """

    def root(self, draws: Float[Tensor, "n B P"]) -> Float[Tensor, "B P P"]:
        """The Cholesky factor of the covariance, its correlations shrunk to 0 with the weight of P + 5 draws.

        Raises:
            InferenceError: draws that are not finite.
        """
        count, size = len(draws), draws.shape[-1]
        centred = (draws - draws.mean(0)).transpose(0, 1)
        covariance = centred.mT @ centred / max(count - 1, 1)
        weight = count / (count + PRIOR_DRAWS + size)
        extra = PRIOR_DRAWS * SHRUNK_TO / (count + PRIOR_DRAWS)
        diagonal = torch.diag_embed((1.0 - weight) * covariance.diagonal(dim1=-2, dim2=-1) + extra)
        return cholesky(weight * covariance + diagonal, "covariance of the warm-up's draws")


def times_root(root: Float[Tensor, "B P P"], v: Float[Tensor, "P chains B"]) -> Float[Tensor, "P chains B"]:
    """T v for each row, which are the last axes: z in the units of the log joint. With Tᵀ, a gradient in those of z.

    Args:
        root: T of each task, or its transpose.
        v: of each chain of each task.

    Example:
        >>> times_root(torch.tensor([[[2.0, 0.0], [1.0, 1.0]]]), torch.tensor([1.0, 3.0])[:, None, None]).flatten()
        tensor([2., 4.])
    """
    return (root @ v.permute(2, 0, 1)).permute(1, 2, 0)


def window_ends(num_warmup: int) -> list[int]:
    """After how many transitions the metric begins to be learned, and is learned anew: windows that double.

    The first 15 % of the warm-up find the bulk of the density, and the last 10 % (at least 10 transitions) the step
    size for the last metric.

    Args:
        num_warmup: transitions of the warm-up.

    Example:
        >>> window_ends(300)
        [45, 70, 120, 270]
    """
    begin, end = round(0.15 * num_warmup), num_warmup - max(round(0.1 * num_warmup), 10)
    ends, size = [begin], min(FIRST_WINDOW, end - begin)
    while end - ends[-1] >= 3 * size:  # what is left must hold the next window, which is twice as long
        ends.append(ends[-1] + size)
        size *= 2
    return [*ends, end]
