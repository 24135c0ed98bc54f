"""Conditional neural processes against conjugate formulae, and what their aggregations must not lose."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

import bayesmeta as bm
from bayesmeta.heads import Shown
from tests.learners.amortized.level import TAU, Level, LevelEncoder, inputs, levels

D = torch.float64
AGGREGATIONS = {
    "mean": lambda: bm.learners.MeanPool(8),
    "bayesian": lambda: bm.learners.BayesianPool(4),
    "attention": lambda: bm.learners.CrossAttention(8, 2),
}
every = pytest.mark.parametrize("aggregation", AGGREGATIONS.values(), ids=AGGREGATIONS)


def learner(aggregation: bm.learners.Aggregation, head: bm.heads.OutputHead | None = None) -> bm.Learner:
    """A small one, moved off its starting point: attention begins by saying nothing."""
    torch.manual_seed(0)
    made = bm.ConditionalNeuralProcess(bm.Identity(1), aggregation=aggregation, head=head, width=16, layers=2).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


class LevelHead(bm.heads.OutputHead):
    """N(tau m, tau² v + s²) from the mean and variance of z, where phi = tau z."""

    outcomes, num_inputs, size = bm.Numbers(1), 1, 2

    def predictive(self, raw: Tensor, shown: Shown) -> bm.Predictive:
        mean, variance = raw[..., :1], raw[..., 1:]
        normal = Normal(TAU * mean, (TAU**2 * variance + Level.noise**2).sqrt(), validate_args=False)
        return bm.predictives.IndependentPredictive(Independent(normal, 1))


class Told(nn.Module):
    """The mean and variance of z, of all that a decoder is given: h(x) = (1, x) is before, log(1 + N) after."""

    def forward(self, given: Tensor) -> Tensor:
        return given[..., 2:4]


@pytest.mark.parametrize("count", [0, 1, 7])
def test_a_bayesian_pool_is_the_conjugate_posterior(count: int) -> None:
    """y_i ~ N(phi, s²), phi ~ N(0, tau²), with weights set by hand: the predictive in closed form."""
    made = bm.ConditionalNeuralProcess(bm.Identity(1), head=LevelHead(), aggregation=bm.learners.BayesianPool(1))
    made.reader.encoder, made.decoder = LevelEncoder(), Told()
    made, support = made.double(), levels(3, count)
    prediction = made.adapt(support).predict(inputs(3, 4))
    precision = 1.0 / TAU**2 + count / Level.noise**2
    mean = support.y.sum(1, keepdim=True) / Level.noise**2 / precision
    torch.testing.assert_close(prediction.mean, mean.expand(3, 4, 1), rtol=1e-10, atol=1e-10)
    variance = torch.tensor(1.0 / precision + Level.noise**2, dtype=D).expand(3, 4, 1)
    torch.testing.assert_close(prediction.variance, variance, rtol=1e-10, atol=0.0)


def test_draws_of_z_have_the_moments_of_its_posterior() -> None:
    made = learner(bm.learners.BayesianPool(3))
    posterior = made.adapt(levels(2, 5))
    belief = made.belief(posterior.kept)
    z = posterior.sample(40_000, torch.Generator().manual_seed(0))["z"]
    assert z.shape == (40_000, 2, 3)
    error = 5.0 / 40_000**0.5  # five standard errors of a mean, in deviations
    assert ((z.mean(0) - belief.mean) / belief.variance.sqrt()).abs().max() < error
    torch.testing.assert_close(z.var(0), belief.variance, rtol=5.0 * (2.0 / 40_000) ** 0.5, atol=0.0)
    with pytest.raises(bm.UnsupportedError, match="BayesianPool"):
        learner(bm.learners.MeanPool(4)).adapt(levels(2, 5)).sample(3)


def test_without_points_z_has_its_prior_and_a_mean_is_what_was_learned_for_it() -> None:
    pool, mean = learner(bm.learners.BayesianPool(3)), learner(bm.learners.MeanPool(3))
    belief = pool.belief(pool.adapt(levels(2, 0)).kept)
    assert torch.equal(belief.mean, torch.zeros(2, 3, dtype=D))
    assert torch.equal(belief.variance, torch.ones(2, 3, dtype=D))
    read = mean.reader.read(mean.adapt(levels(2, 0)).kept, torch.zeros(2, 1, 2, dtype=D))
    torch.testing.assert_close(read[:, 0], mean.reader.aggregation.nothing.detach().expand(2, 3))


@every
def test_the_number_of_points_is_not_lost(aggregation: object) -> None:
    """The same points twice are not the same support; and every point makes z surer."""
    made, once = learner(aggregation()), levels(2, 4)
    twice, x = once.append(once), inputs(2, 3)
    one, two = (made.adapt(data).predict(x) for data in (once, twice))
    assert (one.mean - two.mean).abs().min() > 1e-6
    pool = learner(bm.learners.BayesianPool(4))
    single, double = (pool.belief(pool.adapt(data).kept).variance for data in (once, twice))
    assert (double < single).all()


@every
def test_an_update_reads_the_new_points_alone(aggregation: object) -> None:
    """By the number of rows that the encoder sees, not by a clock."""
    made, first, second = learner(aggregation()), levels(2, 50), levels(2, 1, seed=1)
    posterior, seen = made.adapt(first), []
    posterior.learner.reader.encoder.register_forward_hook(lambda module, given, out: seen.append(given[0].shape[1]))
    updated = posterior.update(second)
    assert seen == [1]
    x = inputs(2, 5)
    expected = made.adapt(first.append(second)).predict(x)
    torch.testing.assert_close(updated.predict(x).mean, expected.mean, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(updated.predict(x).stddev, expected.stddev, rtol=1e-10, atol=1e-10)
    assert updated.points_seen.tolist() == [51, 51]


@every
def test_ragged_tasks_equal_their_loop_after_an_update(aggregation: object) -> None:
    made, x = learner(aggregation()), inputs(3, 4)
    tasks = [levels(1, count, seed=count) for count in (0, 5, 2)]
    more = [levels(1, count, seed=9 + count) for count in (3, 0, 1)]
    batched = made.adapt(bm.Data.stack(tasks)).update(bm.Data.stack(more)).predict(x)
    for i in range(3):
        alone = made.adapt(tasks[i].append(more[i])).predict(x[i : i + 1])
        torch.testing.assert_close(batched.mean[i : i + 1], alone.mean, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(batched.stddev[i : i + 1], alone.stddev, rtol=1e-10, atol=1e-10)


def test_classes_of_a_fixed_number_are_updated_too() -> None:
    made = learner(bm.learners.MeanPool(4), bm.heads.CategoricalHead(3))
    first, second = bm.Data.from_labels([0.1, 0.5], [0, 0]), bm.Data.from_labels([0.7, 0.9], [2, 1])
    x = torch.linspace(0.0, 1.0, 5, dtype=D)[None, :, None]
    updated, whole = made.adapt(first).update(second).predict(x), made.adapt(first.append(second)).predict(x)
    torch.testing.assert_close(updated.probs, whole.probs, rtol=1e-10, atol=1e-10)


def test_classes_of_the_support_may_become_more() -> None:
    made = learner(bm.learners.MeanPool(4), bm.heads.CategoricalHead())
    first, second = bm.Data.from_labels([0.1, 0.5], [0, 1]), bm.Data.from_labels([0.7], [2])
    x = torch.linspace(0.0, 1.0, 5, dtype=D)[None, :, None]
    updated, whole = made.adapt(first).update(second).predict(x), made.adapt(first.append(second)).predict(x)
    assert updated.probs.shape[-1] == 3
    torch.testing.assert_close(updated.probs, whole.probs)


def test_cross_attention_can_be_differentiated_twice() -> None:
    made = learner(bm.learners.CrossAttention(8, 2))
    support, x = levels(2, 4), inputs(2, 3)

    def total(y: Tensor) -> Tensor:
        return made.condition(bm.Data.full(support.x, y)).at(x).mean.sum()

    assert torch.autograd.gradgradcheck(total, (support.y.clone().requires_grad_(),))


def test_attention_tells_queries_apart_and_pools_do_not() -> None:
    """What is read, not what is decoded."""
    rows = torch.randn(1, 4, 2, dtype=D)
    for make, apart in ((AGGREGATIONS["mean"], False), (AGGREGATIONS["attention"], True)):
        made = learner(make())
        read = made.reader.read(made.adapt(levels(1, 5)).kept, rows)
        assert bool((read[:, 0] - read[:, 1]).abs().max() > 1e-6) is apart


def test_deviations_have_no_floor_of_a_tenth() -> None:
    made = learner(bm.learners.MeanPool(4))
    with torch.no_grad():
        made.decoder.output.bias.fill_(-30.0)
    assert made.adapt(levels(2, 3)).predict(inputs(2, 3)).stddev.max() < 2e-3


def test_features_see_each_point_once_whatever_the_classes() -> None:
    """Images of twenty ways would be convolved twenty times."""
    features, seen = bm.MLP(1, [4]), []
    made = bm.ConditionalNeuralProcess(features, head=bm.heads.CategoricalHead(), width=8, layers=1)
    made.features.register_forward_hook(lambda module, given, out: seen.append(tuple(given[0].shape[:2])))
    posterior = made.condition(made.conform(bm.Data.from_labels([0.0, 1.0, 2.0], [0, 1, 2])))
    posterior.at(torch.zeros(1, 7, 1))
    assert seen == [(1, 3), (1, 7)]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(bm.DataError, match="at least 1, got 0"):
        bm.learners.MeanPool(0)
    with pytest.raises(bm.DataError, match="divides 8 features, got 3"):
        bm.learners.CrossAttention(8, 3)
    with pytest.raises(bm.UnsupportedError, match="statistics over the points"):
        bm.ConditionalNeuralProcess(bm.Conv4((1, 8, 8), norm="task"))
    assert math.isfinite(learner(bm.learners.MeanPool(2)).adapt(levels(1, 0)).predict(inputs(1, 1)).mean.item())
