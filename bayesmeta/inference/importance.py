"""Adaptive importance sampling: weighted draws from a density of few numbers, by evaluations that run side by side.

    q = Σ_r N_r q_r / N,   w_i ∝ p(θ_i) / q(θ_i)

Cornuet, Marin, Mira, Robert 2012 (arXiv:0907.1254), "Adaptive multiple importance sampling": proposals are mixtures of
Student t, the first around known modes (Laplace's approximation with heavier tails), later ones adapted to the weighted
draws so far, and all draws are weighted by all proposals together. It needs no gradients and
no chain: a few thousand densities, as many at a time as memory allows. For up to about 20 numbers; the effective number
of draws tells whether it has worked.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.distributions import common_normals
from bayesmeta.linalg import logdet, solve_lower

DOF = 5.0  # of the proposals: tails that are heavier than a Gaussian's, with a finite covariance
WIDENED = 1.1  # times the deviations
DEFENSIVE = 0.1  # share of the first proposal in all later ones: modes that a round has missed stay seen
LEAST_SHARE = 1e-3  # of the draws, of a component that is kept
NARROWEST = 1e-8  # of the variances of the first proposals that a later one has at least

LogDensities = Callable[[Float[Tensor, "N P"]], Float[Tensor, "N"]]
"""Points -> log densities up to a constant, nats; -inf or NaN where there is none."""


@dataclass(frozen=True, eq=False)
class WeightedDraws:
    """Draws with weights.

    Attributes:
        points: θ.
        log_weights: normalised.
        log_evidence: log ∫ p(θ) dθ, in nats.

    Example:
        >>> draws = WeightedDraws(torch.randn(4, 2), torch.full((4,), 0.25).log(), 0.0)
        >>> round(draws.effective, 2), draws.resampled(8).shape
        (4.0, torch.Size([8, 2]))
    """

    points: Float[Tensor, "N P"]
    log_weights: Float[Tensor, "N"]
    log_evidence: float

    @property
    def effective(self) -> float:
        """How many independent draws they are worth, 1 / Σ w²."""
        return 1.0 / float(self.log_weights.exp().square().sum())

    def resampled(self, count: int) -> Float[Tensor, "S P"]:
        """As many draws of equal weight, evenly through the weights (systematic, without chance).

        Args:
            count: S.
        """
        places = (torch.arange(count, dtype=torch.float64, device=self.points.device) + 0.5) / count
        cumulative = self.log_weights.exp().cumsum(0).double()
        chosen = torch.searchsorted(cumulative / cumulative[-1], places)
        return self.points[chosen.clamp(max=len(self.points) - 1)]


@dataclass(frozen=True, eq=False)
class StudentMixture:
    """Σ_k w_k t_5(mean_k, L_k L_kᵀ), what is drawn from.

    Attributes:
        means: of each component.
        roots: L_k, lower triangular.
        log_weights: normalised.

    Example:
        >>> proposal = StudentMixture(torch.zeros(1, 2), torch.eye(2)[None], torch.zeros(1))
        >>> points = proposal.draw(4, torch.Generator().manual_seed(0))
        >>> points.shape, proposal.log_prob(points).shape
        (torch.Size([4, 2]), torch.Size([4]))
    """

    means: Float[Tensor, "K P"]
    roots: Float[Tensor, "K P P"]
    log_weights: Float[Tensor, "K"]

    def draw(self, count: int, generator: torch.Generator) -> Float[Tensor, "N P"]:
        """Draws, the number of each component as near to its share as can be.

        Args:
            count: N.
            generator: of the randomness.
        """
        bounds = (self.log_weights.exp().cumsum(0) * count).round()
        component = torch.searchsorted(bounds, torch.arange(count).to(bounds) + 0.5).clamp(max=len(bounds) - 1)
        size = self.means.shape[1]
        z = common_normals((count, size + int(DOF)), self.means, generator)
        z, chi_squared = z[:, :size], z[:, size:].square().sum(-1)
        steps = (self.roots[component] @ z[..., None])[..., 0] * (DOF / chi_squared).sqrt()[:, None]
        return self.means[component] + steps

    def log_prob(self, points: Float[Tensor, "N P"]) -> Float[Tensor, "N"]:
        """Log densities, in nats."""
        return self.of_components(points).logsumexp(0)

    def of_components(self, points: Float[Tensor, "N P"]) -> Float[Tensor, "K N"]:
        """Log densities of each component, its weight in them."""
        size = self.means.shape[1]
        white = solve_lower(self.roots, (points - self.means[:, None]).mT)  # K P N
        constant = math.lgamma(0.5 * (DOF + size)) - math.lgamma(0.5 * DOF) - 0.5 * size * math.log(DOF * math.pi)
        each = -0.5 * (DOF + size) * (white.square().sum(-2) / DOF).log1p()
        return each + (constant - 0.5 * logdet(self.roots) + self.log_weights)[:, None]


def importance_draws(
    log_density: LogDensities,
    first: StudentMixture,
    generator: torch.Generator,
    *,
    rounds: int = 8,
    draws: int = 500,
) -> WeightedDraws:
    """Weighted draws from a density.

    Args:
        log_density: what is drawn from.
        first: the first proposal: its modes, and how wide they are.
        generator: of the randomness.
        rounds: proposals, the first among them.
        draws: of each.

    Example:
        >>> normal = torch.distributions.Normal(torch.tensor([1.0, -2.0]).double(), torch.tensor([1.0, 0.1]).double())
        >>> start = StudentMixture(torch.zeros(1, 2).double(), torch.eye(2)[None].double(), torch.zeros(1).double())
        >>> log_density = lambda points: normal.log_prob(points).sum(-1)
        >>> found = importance_draws(log_density, start, torch.Generator().manual_seed(0))
        >>> found.effective > 1_000, abs(found.log_evidence) < 0.05
        (True, True)
    """
    proposals, parts, values = [first], [], []
    last = first
    while True:
        points = proposals[-1].draw(draws, generator)
        parts.append(points)
        value = log_density(points)
        values.append(torch.where(value.isfinite(), value, -math.inf))
        every = torch.cat(parts)
        mixed = torch.stack([proposal.log_prob(every) for proposal in proposals]).logsumexp(0) - math.log(len(parts))
        log_weights = torch.cat(values) - mixed
        total = log_weights.logsumexp(0)
        found = WeightedDraws(every, log_weights - total, float(total) - math.log(len(every)))
        if len(parts) == rounds:
            return found
        proposals.append(_adapted(found, last, first))
        last = proposals[-1]


def _adapted(found: WeightedDraws, last: StudentMixture, first: StudentMixture) -> StudentMixture:
    """Each component with the weighted mean and covariance of the draws that are likely its own, and the first beside.

    One step of expectation maximisation of the mixture on weighted draws (Cappé, Douc, Guillin, Marin, Robert 2008,
    arXiv:0710.4242).
    """
    # weights to a power of at most one: a covariance of two points would end the search
    size = found.points.shape[1]
    power = 1.0 if found.effective > 10.0 * (1.0 + size) else 0.5
    log_weights = (power * found.log_weights).log_softmax(0)
    log_shares = last.of_components(found.points).log_softmax(0) + log_weights  # K N
    shares = log_shares.logsumexp(1)
    weights = (log_shares - shares[:, None]).exp()
    used = (shares.exp() > LEAST_SHARE) & (1.0 / weights.square().sum(1) > size + 2.0)
    if not bool(used.any()):
        return first
    weights, shares = weights[used], shares[used]
    means = weights @ found.points
    centred = found.points - means[:, None]  # K N P
    floor = torch.diag(NARROWEST * first.roots.square().sum(-1).amin(0))
    covariances = (weights[..., None] * centred).mT @ centred + floor
    roots, info = torch.linalg.cholesky_ex(WIDENED**2 * covariances)
    if bool(info.any()):
        return first
    return StudentMixture(
        torch.cat([first.means, means]),
        torch.cat([first.roots, roots]),
        torch.cat([first.log_weights + math.log(DEFENSIVE), shares.log_softmax(0) + math.log(1.0 - DEFENSIVE)]),
    )
