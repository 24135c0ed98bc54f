"""Adaptive importance sampling: moments and evidences that are known, from first proposals that are wrong."""

import math

import torch

from bayesmeta.inference.importance import StudentMixture, WeightedDraws, importance_draws

D = torch.float64


def _start(*means: list[float]) -> StudentMixture:
    size = len(means[0])
    roots = torch.eye(size, dtype=D).expand(len(means), size, size)
    return StudentMixture(torch.tensor(means, dtype=D), roots, torch.zeros(len(means), dtype=D).log_softmax(0))


def test_the_proposal_is_a_density_and_draws_from_it() -> None:
    root = torch.tensor([[[2.0, 0.0], [-1.0, 0.5]]], dtype=D)
    proposal = StudentMixture(torch.tensor([[1.0, -1.0]], dtype=D), root, torch.zeros(1, dtype=D))
    points = proposal.draw(20_000, torch.Generator().manual_seed(0))
    covariance = root[0] @ root[0].mT * 5.0 / 3.0
    assert (points.mean(0) - proposal.means[0]).abs().max() < 0.1
    assert (points.mT.cov() / covariance - 1.0).abs().max() < 0.15  # a t of 5 degrees has wild fourth moments
    grid = torch.linspace(-60.0, 60.0, 1201, dtype=D)
    each = torch.stack(torch.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2)
    assert math.isclose((proposal.log_prob(each).exp().sum() * 0.01).item(), 1.0, abs_tol=2e-3)  # tails are cut off
    one = StudentMixture(torch.zeros(1, 1, dtype=D), torch.full((1, 1, 1), 3.0, dtype=D), torch.zeros(1, dtype=D))
    x = torch.tensor([[0.0], [4.0]], dtype=D)
    torch.testing.assert_close(one.log_prob(x), torch.distributions.StudentT(5.0, 0.0, 3.0).log_prob(x[:, 0]).double())


def test_moments_and_evidence_of_a_correlated_normal() -> None:
    covariance = torch.tensor([[4.0, 1.9, 0.0], [1.9, 1.0, 0.0], [0.0, 0.0, 0.01]], dtype=D)
    normal = torch.distributions.MultivariateNormal(torch.tensor([1.0, -2.0, 0.3], dtype=D), covariance)
    found = importance_draws(lambda u: normal.log_prob(u) + 7.0, _start([0.0] * 3), torch.Generator().manual_seed(0))
    weights = found.log_weights.exp()
    mean = weights @ found.points
    errors = covariance.diagonal().sqrt() / math.sqrt(found.effective)
    assert found.effective > 500.0
    assert ((mean - normal.mean).abs() < 4.0 * errors).all()
    assert abs(found.log_evidence - 7.0) < 0.1
    spread = (found.resampled(400).std(0) / covariance.diagonal().sqrt() - 1.0).abs()
    assert spread.max() < 0.15


def test_both_of_two_modes() -> None:
    """Far from each other, one of them three times as likely: it has three quarters of the draws."""

    def log_density(u: torch.Tensor) -> torch.Tensor:
        near, far = (torch.distributions.Normal(mean, 0.3).log_prob(u[:, 0]) for mean in (-5.0, 5.0))
        return torch.logaddexp(near + math.log(0.25), far + math.log(0.75))

    found = importance_draws(log_density, _start([-5.0], [5.0]), torch.Generator().manual_seed(0))
    share = found.log_weights.exp()[found.points[:, 0] > 0.0].sum()
    assert abs(share - 0.75) < 0.05
    assert abs(found.log_evidence) < 0.1


def test_densities_that_cannot_be_computed_have_no_weight() -> None:
    log_density = lambda u: torch.where(u[:, 0] > 0.0, -u[:, 0], math.nan)  # an exponential distribution
    found = importance_draws(log_density, _start([1.0]), torch.Generator().manual_seed(0))
    assert bool((found.resampled(50) > 0.0).all())
    assert abs((found.log_weights.exp() @ found.points).item() - 1.0) < 0.15
    assert abs(found.log_evidence) < 0.1
    assert found.points.shape == (4_000, 1)
    again = importance_draws(log_density, _start([1.0]), torch.Generator().manual_seed(0))
    assert torch.equal(found.points, again.points)


def test_effective_draws_and_even_resampling() -> None:
    weights = torch.tensor([0.5, 0.25, 0.25, 0.0], dtype=D)
    draws = WeightedDraws(torch.arange(4.0, dtype=D)[:, None], weights.log(), 0.0)
    assert math.isclose(draws.effective, 1.0 / (0.25 + 2.0 * 0.0625))
    assert draws.resampled(8).flatten().tolist() == [0.0] * 4 + [1.0] * 2 + [2.0] * 2
