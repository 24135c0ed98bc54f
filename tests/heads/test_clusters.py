"""Clusters of classes against loops, their limits, and what must not matter to them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import bayesmeta as bm
from bayesmeta.heads import ClusterHead, Examples, NearestMeanHead
from bayesmeta.heads.clusters import clusters

D = torch.float64
SAME = {"rtol": 1e-10, "atol": 1e-10}  # float64: the same mathematics in another order of summation


def _examples(rows: Tensor, labels: Tensor, num_classes: int | None = None, mask: Tensor | None = None) -> Examples:
    mask = torch.ones_like(labels, dtype=torch.bool) if mask is None else mask
    return Examples.of(rows, labels, mask, num_classes)


def _head(features: int = 3, prior: float = 4.0, noise: float = 0.3, alpha: float = 0.1) -> ClusterHead:
    """One with a location, in float64."""
    torch.manual_seed(0)
    head = ClusterHead(features, alpha=alpha).double()
    head.prior_variance.set(prior)
    head.noise.set(noise)
    with torch.no_grad():
        head.location.normal_()
    return head


def _clumps(seed: int = 0, classes: int = 3, each: int = 3, shots: int = 3, features: int = 3) -> tuple[Tensor, Tensor]:
    """A task whose classes are `each` clumps of `shots` points."""
    generator = torch.Generator().manual_seed(seed)
    centers = 4.0 * torch.randn(classes * each, features, generator=generator, dtype=D)
    rows = centers.repeat_interleave(shots, 0)
    rows = rows + 0.3 * torch.randn(rows.shape, generator=generator, dtype=D)
    return rows[None], torch.arange(classes).repeat_interleave(each * shots)[None]


# ------------------------------------------------------------------------------------------------------ slow truth


def _log_normal(x: Tensor, mean: Tensor, variance: float) -> float:
    return float(-0.5 * ((x - mean).square().sum() / variance + len(x) * math.log(2.0 * math.pi * variance)))


def _slow(head: ClusterHead, rows: Tensor, labels: Tensor, num_classes: int, queries: Tensor) -> Tensor:
    """One task, one class and one cluster after the other; examples without ties."""
    noise, prior, alpha = head.noise().item(), head.prior_variance().item(), head.alpha
    limit = -2.0 * noise * math.log(alpha) + rows.shape[1] * noise * math.log(1.0 + prior / noise)
    location, scores = head.location.detach(), torch.empty(len(queries), num_classes, dtype=D)
    for c in range(num_classes):
        own = rows[labels == c]
        centers = [own.mean(0)] if len(own) else []
        while len(own):
            nearest = [min(float((row - center).square().sum()) for center in centers) for row in own]
            if max(nearest) <= limit:
                break
            centers.append(own[nearest.index(max(nearest))])
        shares = torch.zeros(len(own), len(centers), dtype=D)
        for n, row in enumerate(own):
            distances = torch.stack([(row - center).square().sum() for center in centers])
            shares[n] = (-distances / (2.0 * noise)).softmax(0)
        for m, query in enumerate(queries):
            total = alpha * math.exp(_log_normal(query, location, noise + prior))
            for k in range(len(centers)):
                size = float(shares[:, k].sum())
                variance = 1.0 / (1.0 / prior + size / noise)
                mean = variance * (location / prior + (shares[:, k, None] * own).sum(0) / noise)
                total += size * math.exp(_log_normal(query, mean, noise + variance))
            scores[m, c] = math.log(total / (len(own) + alpha))
    return scores


@pytest.mark.parametrize("alpha", [0.1, 2.0])
@pytest.mark.parametrize("seed", range(4))
def test_scores_are_those_of_loops(seed: int, alpha: float) -> None:
    head, (rows, labels) = _head(alpha=alpha), _clumps(seed)
    keep = torch.randperm(rows.shape[1], generator=torch.Generator().manual_seed(seed))[:17]  # unequal numbers
    rows, labels = rows[:, keep], labels[:, keep]
    queries = rows[:, :6] + 0.5
    scores = head.solve(_examples(rows, labels, 4))  # class 3 has none
    assert (scores.log_weight.isfinite().sum(-1) > 3).all()  # some have several
    torch.testing.assert_close(
        scores.log_scores(queries)[0].detach(), _slow(head, rows[0], labels[0], 4, queries[0]), **SAME
    )


# ---------------------------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize("counts", [(3, 3, 3), (1, 5, 2), (4, 0, 1)])
def test_without_new_clusters_it_is_the_nearest_mean(counts: tuple[int, ...]) -> None:
    """α -> 0 is λ -> ∞."""
    labels = torch.arange(3).repeat_interleave(torch.tensor(counts))[None]
    rows = torch.randn(1, labels.shape[1], 3, dtype=D)
    head, plain = _head(alpha=1e-300), NearestMeanHead(num_features=3).double()
    plain.load_state_dict(head.state_dict())
    queries = torch.randn(1, 5, 3, dtype=D)
    found, expected = head.solve(_examples(rows, labels, 3)), plain.solve(_examples(rows, labels, 3))
    torch.testing.assert_close(found.log_scores(queries), expected.log_scores(queries), **SAME)
    torch.testing.assert_close(found.log_none(queries), expected.log_none(queries), **SAME)


def test_one_example_a_class_is_the_nearest_mean_and_the_prior() -> None:
    head, plain = _head(alpha=0.1), NearestMeanHead(num_features=3).double()
    plain.load_state_dict(head.state_dict())
    examples, queries = _examples(torch.randn(1, 4, 3, dtype=D), torch.arange(4)[None]), torch.randn(1, 6, 3, dtype=D)
    scores = plain.solve(examples)
    expected = scores.log_scores(queries).exp() + 0.1 * scores.log_none(queries).exp()[..., None]
    torch.testing.assert_close(head.solve(examples).log_scores(queries), (expected / 1.1).log(), **SAME)


def test_a_cluster_at_every_example_is_a_kernel_density() -> None:
    """λ = 0 at α² = (1 + τ²/σ²)^F; examples so far apart that each belongs to its own cluster alone."""
    head = _head(features=2, prior=3.0, noise=0.5, alpha=7.0)
    assert head.threshold().item() == pytest.approx(0.0, abs=1e-12)
    rows = 40.0 * torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [3.0, 1.0]]], dtype=D)
    labels, queries = torch.tensor([[0, 0, 0, 1]]), torch.randn(1, 5, 2, dtype=D)
    variance = 1.0 / (1.0 / 3.0 + 1.0 / 0.5)
    means = variance * (rows[0] / 0.5 + head.location.detach() / 3.0)
    kernel = torch.distributions.Normal(means, math.sqrt(0.5 + variance))
    each = kernel.log_prob(queries[0][:, None]).sum(-1).exp()  # M N
    scores = head.solve(_examples(rows, labels))
    new = 7.0 * scores.log_none(queries)[0].detach().exp()
    expected = torch.stack([(each[:, :3].sum(1) + new) / 10.0, (each[:, 3] + new) / 8.0], -1).log()
    torch.testing.assert_close(scores.log_scores(queries)[0].detach(), expected, **SAME)


def test_densities_integrate_to_one() -> None:
    head = _head(features=1, prior=30.0, noise=0.2)
    rows, labels = torch.tensor([[[-9.0], [-8.8], [9.0], [1.0]]], dtype=D), torch.tensor([[0, 0, 0, 1]])
    scores, grid = head.solve(_examples(rows, labels)), torch.linspace(-80.0, 80.0, 20_001, dtype=D)
    for density in (scores.log_scores(grid[None, :, None])[0], scores.log_none(grid[None, :, None])[0][:, None]):
        mass = torch.trapezoid(density.detach().exp(), grid, dim=0)
        torch.testing.assert_close(mass, torch.ones_like(mass), rtol=0.0, atol=1e-8)  # tails beyond 14 deviations


# ------------------------------------------------------------------------------------- order, ties, padding, units


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=9), st.integers(0, 10**6))
def test_the_order_of_examples_does_not_matter(points: list[tuple[int, int]], seed: int) -> None:
    """On a lattice, where distances are often equal and points often identical."""
    rows = 2.0 * torch.tensor([points], dtype=D)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, rows.shape[:2], generator=generator)
    order = torch.randperm(rows.shape[1], generator=generator)
    head, queries = _head(features=2, noise=0.4), torch.randn(1, 4, 2, generator=generator, dtype=D)
    found = head.solve(_examples(rows[:, order], labels[:, order], 2)).log_scores(queries)
    torch.testing.assert_close(found, head.solve(_examples(rows, labels, 2)).log_scores(queries), **SAME)


@pytest.mark.parametrize("angle", [0.1, 0.7, 2.0])
def test_ties_to_rounding_are_ties(angle: float) -> None:
    """Three arcs of three on a circle around their mean, in every order.

    The one in the middle of an arc covers both others, which do not cover each other: which of them starts a cluster
    decides how many there are.
    """
    starts, steps = torch.tensor([[0.0], [2.0], [4.0]], dtype=D), torch.tensor([0.0, 0.3, 0.6], dtype=D)
    angles = angle + (math.pi / 3.0 * starts + steps).flatten()
    rows = 5.0 * torch.stack([angles.cos(), angles.sin()], -1)[None] + torch.tensor([97.0, 107.0], dtype=D)
    labels, head = torch.zeros(1, 9, dtype=torch.long), _head(features=2, noise=0.3)
    assert 2.3 < head.threshold() < 8.7  # squared distances of neighbours and of the ends of an arc
    queries, found = rows[:, :3] + 0.2, []
    for seed in range(20):
        order = torch.randperm(9, generator=torch.Generator().manual_seed(seed))
        found.append(head.solve(_examples(rows[:, order], labels)).log_scores(queries).detach())
    torch.testing.assert_close(torch.stack(found), found[0].expand(20, -1, -1, -1), rtol=1e-8, atol=1e-8)


def test_identical_examples_start_one_cluster() -> None:
    rows = torch.tensor([[[-9.0]] * 5 + [[9.0]] * 3], dtype=D).reshape(1, 8, 1)
    scores = _head(features=1, prior=30.0, noise=0.2).solve(_examples(rows, torch.zeros(1, 8, dtype=torch.long)))
    sizes = (scores.log_weight.exp() * 8.1)[0]
    torch.testing.assert_close(sizes[sizes > 1e-6].sort().values, torch.tensor([3.0, 5.0], dtype=D), **SAME)


def test_padding_between_examples_does_not_matter() -> None:
    head, (rows, labels) = _head(), _clumps()
    mask = torch.arange(rows.shape[1])[None] % 4 != 1
    other = torch.where(mask[..., None], rows, 1e3)
    queries = rows[:, :5] + 0.1
    found = head.solve(_examples(other, labels, 3, mask)).log_scores(queries)
    expected = head.solve(_examples(rows[mask][None], labels[mask][None], 3)).log_scores(queries)
    torch.testing.assert_close(found, expected, **SAME)


@pytest.mark.parametrize("unit", [1e-2, 10.0])
def test_other_units_shift_all_scores(unit: float) -> None:
    (rows, labels), head, other = _clumps(), _head(), _head(prior=4.0 * unit**2, noise=0.3 * unit**2)
    with torch.no_grad():
        other.location.mul_(unit)
    queries = rows[:, :5] + 0.1
    found = other.solve(_examples(unit * rows, labels)).log_scores(unit * queries)
    expected = head.solve(_examples(rows, labels)).log_scores(queries) - 3 * math.log(unit)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)  # the bounds of a variance bend it a little


def test_precisions_agree() -> None:
    (rows, labels), head = _clumps(), _head()
    queries = rows[:, :5] + 0.1
    single = _head().float().solve(_examples(rows.float(), labels)).log_scores(queries.float())
    assert single.dtype == torch.float32
    expected = head.solve(_examples(rows, labels)).log_scores(queries)
    # |h|² is 1e2 and the variance .3: rounding of 6e-8 becomes 2e-5
    torch.testing.assert_close(single.double(), expected, rtol=1e-4, atol=1e-3)


# ------------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("count", [0, 1, 9])
def test_gradients_are_finite(count: int) -> None:
    rows = torch.zeros(2, count, 3, dtype=D, requires_grad=True)  # all identical
    head, labels = _head(), torch.arange(count).remainder(2).expand(2, -1)
    queries = torch.zeros(2, 4, 3, dtype=D, requires_grad=True)
    head.solve(_examples(rows, labels, 3)).log_scores(queries).log_softmax(-1)[..., 0].sum().backward()
    for leaf in (rows, queries, *head.parameters()):
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()


def test_clusters_are_constants_to_gradients() -> None:
    """The gradient is that at shares as they are, which a central difference with the same shares confirms."""
    head, (rows, labels) = _head(noise=1.0), _clumps()
    assert not head.threshold().requires_grad
    found = clusters(_examples(rows.clone().requires_grad_(), labels), head.threshold(), head.noise())
    assert not found.shares.requires_grad
    far = 50.0 * rows  # each example is of one cluster alone: the shares do not change with σ²
    queries, ends = far[:, :4] + 1.0, []
    (gradient,) = torch.autograd.grad(head.solve(_examples(far, labels)).log_scores(queries).sum(), head.noise.raw)
    for step in (1e-5, -1e-5):
        with torch.no_grad():
            head.noise.raw.add_(step)
            ends.append(head.solve(_examples(far, labels)).log_scores(queries).sum().item())
            head.noise.raw.sub_(step)
    assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(gradient.item(), rel=1e-6)  # h² f''' and rounding / h


# --------------------------------------------------------------------------------------------------------- its use


def test_classes_of_several_clumps_are_told_apart() -> None:
    """Ten characters an alphabet, one image each, as the paper has it; class means know much less."""
    generator, correct = torch.Generator().manual_seed(0), {}
    centers = 2.0 * torch.randn(50, 10, 10, 16, generator=generator, dtype=D)  # tasks, classes, clumps, features
    rows, queries = (centers + torch.randn(centers.shape, generator=generator, dtype=D) for _ in range(2))
    labels = torch.arange(10).repeat_interleave(10).expand(50, -1)
    for make in (bm.heads.ClusterHead, lambda features: NearestMeanHead(num_features=features)):
        head = make(16)
        head.prior_variance.set(4.0)
        found = head.solve(_examples(rows.flatten(1, 2), labels)).log_scores(queries.flatten(1, 2)).argmax(-1)
        correct[type(head)] = (found == labels).double().mean().item()
    assert correct[ClusterHead] > correct[NearestMeanHead] + 0.1


def test_the_power_is_of_the_mixture() -> None:
    torch.manual_seed(0)
    learner = bm.InfiniteMixturePrototypes(bm.Identity(1), num_classes=3, power=0.2).double()
    support = bm.Data.from_labels([-9.0, 9.0, 0.0], [0, 0, 1])
    posterior = learner.adapt(support)
    x = torch.tensor([[[-8.0], [0.3]]], dtype=D)
    density = posterior.scores.log_scores(learner.rows(x)).detach()
    prior = learner.class_prior(posterior.examples.counts, posterior.examples.classes.mask).detach()
    prediction = posterior.predict(x)
    torch.testing.assert_close(prediction.probs, (0.2 * density + prior[:, None]).softmax(-1))
    ratio = (0.2 * density + prior[:, None]).logsumexp(-1) - 0.2 * posterior.scores.log_none(learner.rows(x)).detach()
    torch.testing.assert_close(prediction.log_ratio, ratio)


def test_draws_of_the_means_have_their_moments() -> None:
    scores = _head(features=2, noise=2.0).solve(_examples(torch.randn(1, 4, 2, dtype=D), torch.tensor([[0, 0, 1, 1]])))
    draws = scores.sample(20_000, torch.Generator().manual_seed(0))["mean"].detach()
    deviation = scores.variance.sqrt()[..., None].expand_as(scores.mean)
    assert ((draws.mean(0) - scores.mean).abs() < 5.0 * deviation / 20_000**0.5).all()  # 5 standard errors
    torch.testing.assert_close(draws.std(0), deviation.detach(), rtol=0.025, atol=0.0)  # 5 / sqrt(2 S)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_features": 0}, "at least one feature, got 0"),
        ({"num_features": 2, "alpha": 0.0}, "positive alpha, got 0"),
        ({"num_features": 2, "alpha": math.inf}, "positive alpha, got inf"),
        ({"num_features": 2, "noise": -1.0}, "strictly between"),
    ],
)
def test_errors(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(bm.DataError, match=message):
        ClusterHead(**arguments)
