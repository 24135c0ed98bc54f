"""Integrals over a few numbers z ~ N(0, I) that every task has of its own, by adaptive Gauss-Hermite quadrature.

    p(D) = ∫ p(D | z) N(z; 0, I) dz  ≈  Σ_k w_k p(D | z_k)

The nodes of a Gauss-Hermite rule are right for a function that is a polynomial times N(0, I). What many points say of
z is narrower than that, and may fall between two nodes. So the rule is moved and scaled, task by task, to the mean and
the covariance of z given the task (Naylor & Smith 1982, "Applications of a method for the efficient computation of
posterior distributions"; mixed models have it as nAGQ > 1, Pinheiro & Bates 1995):

    z_k = m + L ξ_k,   w_k = ω_k |L| N(z_k; 0, I) / N(ξ_k; 0, I)

with ξ_k and ω_k the nodes and weights for N(0, I). The moments come from the same rule, starting at the prior.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

SEARCH_NODES = 5  # along each axis, while the rule is moved
ROUNDS = 6  # each may narrow the rule by half: to a sixtieth of the prior in all
WIDENING = (
    0.2  # share of a rule's own covariance that the next has besides what was found: nothing is lost between nodes
)


@dataclass(frozen=True, eq=False)
class Nodes:
    """A rule for each task: Σ_k exp(log_weights_k) g(z_k) ≈ E[g(z)], z ~ N(0, I).

    Attributes:
        z: the nodes, in D dimensions.
        log_weights: the logarithms of their weights; the prior density is in them.

    Example:
        >>> nodes = gauss_hermite(5, 1, torch.zeros(1, dtype=torch.float64))
        >>> moment = (nodes.log_weights.exp() * nodes.z[..., 0] ** 4).sum()
        >>> round(moment.item(), 9)  # the fourth moment of N(0, 1)
        3.0
    """

    z: Float[Tensor, "B K D"]
    log_weights: Float[Tensor, "B K"]


def gauss_hermite(count: int, dimension: int, like: Float[Tensor, "B"]) -> Nodes:
    """The rule for N(0, I) itself, the same for all tasks: exact for polynomials of degree 2 count - 1 in each number.

    Args:
        count: nodes along each axis; there are count ** D in all.
        dimension: D.
        like: of B tasks, in the precision and on the device that are wanted.

    Example:
        >>> nodes = gauss_hermite(3, 2, torch.zeros(1))
        >>> nodes.z.shape, round(nodes.log_weights.exp().sum().item(), 4)
        (torch.Size([1, 9, 2]), 1.0)
    """
    points, weights = np.polynomial.hermite_e.hermegauss(count)
    grid = np.stack(np.meshgrid(*[points] * dimension, indexing="ij"), -1).reshape(-1, dimension)
    log_weights = np.log(weights / weights.sum())
    total = np.stack(np.meshgrid(*[log_weights] * dimension, indexing="ij"), -1).reshape(-1, dimension).sum(-1)
    z, total = (torch.as_tensor(value, dtype=like.dtype, device=like.device) for value in (grid, total))
    return Nodes(z.expand(len(like), *z.shape), total.expand(len(like), *total.shape))


@torch.no_grad()
def adapted(
    log_likelihood: Callable[[Float[Tensor, "B K D"]], Float[Tensor, "B K"]],
    count: int,
    dimension: int,
    like: Float[Tensor, "B"],
) -> Nodes:
    """A rule for each task that lies where z is, given the task.

    Nodes and weights are constants: the integral is right wherever the nodes are, so that its derivative needs none of
    theirs.

    Args:
        log_likelihood: log p(D | z) of each task at K nodes, in nats.
        count: nodes along each axis.
        dimension: D.
        like: of B tasks, in the precision and on the device that are wanted.

    Example:
        >>> like = torch.zeros(1, dtype=torch.float64)
        >>> far = lambda z: -0.5 * ((z[..., 0] - 3.0) / 0.1) ** 2  # a likelihood that falls between fixed nodes
        >>> nodes = adapted(far, 7, 1, like)
        >>> exact = torch.tensor(0.01 / 1.01).log() / 2.0 - 0.5 * 9.0 / 1.01
        >>> found = (nodes.log_weights + far(nodes.z)).logsumexp(-1)
        >>> bool((found - exact).abs() < 1e-6)
        True
    """
    search = gauss_hermite(SEARCH_NODES, dimension, like)
    mean = like.new_zeros(len(like), dimension)
    covariance = torch.eye(dimension, dtype=like.dtype, device=like.device).expand(len(like), dimension, dimension)
    for _ in range(ROUNDS):
        nodes = _moved(search, mean, covariance)
        weights = (nodes.log_weights + log_likelihood(nodes.z)).softmax(-1)
        mean = (weights[..., None] * nodes.z).sum(1)
        spread = nodes.z - mean[:, None]
        found = (weights[..., None] * spread).mT @ spread
        covariance = found + WIDENING * covariance
    # where the rounds have arrived, covariance = found / (1 - w), and what is left below is what was found; where they
    # have not, because all is between two nodes, it is the share that was handed on
    return _moved(gauss_hermite(count, dimension, like), mean, covariance - WIDENING / (1.0 - WIDENING) * found)


def _moved(rule: Nodes, mean: Tensor, covariance: Tensor) -> Nodes:
    factor = torch.linalg.cholesky(covariance)
    z = mean[:, None] + rule.z @ factor.mT
    log_determinant = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1, keepdim=True)
    change = log_determinant - 0.5 * (z.square() - rule.z.square()).sum(-1)
    return Nodes(z, rule.log_weights + change)


def log_integral(nodes: Nodes, log_likelihood: Float[Tensor, "B K"]) -> Float[Tensor, "B"]:
    """log p(D) of each task, in nats.

    Args:
        nodes: the rule.
        log_likelihood: log p(D | z) at its nodes, in nats.

    Example:
        >>> nodes = gauss_hermite(15, 1, torch.zeros(1, dtype=torch.float64))
        >>> density = torch.distributions.Normal(nodes.z[..., 0], 1.0).log_prob(torch.tensor(1.0).double())
        >>> round(log_integral(nodes, density).item(), 4)  # of 1 under N(0, 2)
        -1.5155
    """
    return (nodes.log_weights + log_likelihood).logsumexp(-1)
