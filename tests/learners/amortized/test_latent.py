"""Latent neural processes: what a shared z means, the bound, and z against its exact posterior."""

import math

import pytest
import torch
from torch.distributions import Normal

import bayesmeta as bm
from tests.learners.amortized.level import TAU, D, Level, LevelDecoder, LevelEncoder, inputs, levels


def exact(num_draws: int = 32) -> bm.LatentNeuralProcess:
    """One whose q(z | D) is the posterior: weights set by hand."""
    made = bm.LatentNeuralProcess(
        bm.Identity(1), aggregation=bm.learners.BayesianPool(1), num_draws=num_draws, width=4, layers=1
    )
    made.reader.encoder, made.decoder = LevelEncoder(), LevelDecoder(made.head.min_stddev)
    return made.double()


def learner(**arguments: object) -> bm.LatentNeuralProcess:
    torch.manual_seed(0)
    pool = bm.learners.BayesianPool(4)
    made = bm.LatentNeuralProcess(bm.Identity(1), aggregation=pool, num_draws=6, width=16, layers=2, **arguments)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made.double()


def joint_log_density(support: bm.Data, y: torch.Tensor) -> torch.Tensor:
    """log p(y_1..y_M | D) of the model, in closed form."""
    variance = 1.0 / (1.0 / TAU**2 + support.num_points / Level.noise**2)
    mean = variance * support.y.sum(1) / Level.noise**2  # B 1
    covariance = variance + Level.noise**2 * torch.eye(y.shape[1], dtype=D)
    normal = torch.distributions.MultivariateNormal(mean.expand(-1, y.shape[1]), covariance)
    return normal.log_prob(y[..., 0])


@pytest.mark.parametrize("count", [0, 3])
def test_many_draws_give_the_exact_joint_density(count: int) -> None:
    made, data = exact(4000), levels(5, count + 4)
    support, query = data.points(slice(count)), data.points(slice(count, None))
    found = made.adapt(support).predict(query.x).log_prob(query.y)
    # the middle of each of 4,000 quantiles of z: the tails beyond 1/8,000 are left out
    torch.testing.assert_close(found, joint_log_density(support, query.y), rtol=0.0, atol=2e-3)


def test_all_queries_share_z() -> None:
    """The joint density is that of draws of functions; a log-mean-exp of each point would make points independent."""
    made, support, query = exact(), levels(3, 1), levels(3, 6, seed=2)
    prediction = made.adapt(support).predict(query.x)
    joint, apart = prediction.log_prob(query.y), prediction.marginal_log_prob(query.y).sum(-1)
    assert (joint - apart).abs().min() > 0.1
    draws = prediction.sample((500,), torch.Generator().manual_seed(0))[..., 0]  # S B M
    correlation = torch.stack([torch.corrcoef(draws[:, b].T)[0, 1] for b in range(3)])
    variance = 1.0 / (1.0 / TAU**2 + 1.0 / Level.noise**2)
    expected = variance / (variance + Level.noise**2)
    assert (correlation - expected).abs().max() < 5.0 / 500**0.5  # five standard errors, at most 1/√S each


def test_the_loss_is_of_the_joint_mixture() -> None:
    """log-sum-exp over draws of products over points, by hand."""
    made, tasks = learner(), bm.TaskBatch(levels(3, 2), levels(3, 5, seed=1))
    z = made.belief(made.condition(tasks.support).kept).draws(made.base)  # B S d
    raw = made.at_draws(z, None, made.features(tasks.query.x)).unflatten(0, (3, 6))  # B S M K
    each = made.head.distribution(raw).log_prob(tasks.query.y[:, None])
    expected = -(each.sum(-1).logsumexp(1) - math.log(6)) / 5
    torch.testing.assert_close(made.meta_loss(tasks), expected)


def test_the_bound_is_one_and_is_tight_where_the_encoder_is_exact() -> None:
    """With the exact posterior of z the ELBO is log p(query | support), up to the fixed draws."""
    made, tasks = exact(4000), bm.TaskBatch(levels(4, 2), levels(4, 3, seed=1))
    bound = -bm.training.VariationalBound()(made, tasks) * 3
    truth = joint_log_density(tasks.support, tasks.query.y)
    # log p(query | z) is quadratic in z, and the draws have its moments exactly
    torch.testing.assert_close(bound.detach(), truth, rtol=1e-6, atol=1e-6)
    made.reader.encoder.forward = lambda given: torch.cat([given[..., -1:] / TAU, 0.0 * given[..., -1:]], -1)
    worse = made.bound(made.conform_tasks(tasks))
    # the support's q(z) is another prior now: still the bound of that model's own density
    prior = made.belief(made.condition(tasks.support).kept)
    variance = TAU**2 * prior.variance[..., None] + Level.noise**2 * torch.eye(3, dtype=D)
    normal = torch.distributions.MultivariateNormal(TAU * prior.mean.expand(-1, 3), variance)
    assert (worse <= normal.log_prob(tasks.query.y[..., 0]) + 1e-9).all()


def test_the_encoder_sees_the_targets_in_the_bound() -> None:
    made, support = learner(path=bm.learners.CrossAttention(8, 2)), levels(2, 3)
    y = levels(2, 2, seed=1).y.requires_grad_()
    beliefs = []
    kept = made.encode

    def watched(points: bm.Data) -> object:
        found = kept(points)
        beliefs.append(found.belief)
        return found

    made.encode = watched  # type: ignore[method-assign]
    made.bound(bm.TaskBatch(support, bm.Data.full(inputs(2, 2), y)))
    of_support, of_all = beliefs
    assert of_support.mean.grad_fn is not None
    (slope,) = torch.autograd.grad(of_all.mean.sum(), y, retain_graph=True)
    assert slope.abs().min() > 0.0
    (none,) = torch.autograd.grad(of_support.mean.sum(), y, allow_unused=True)
    assert none is None


def test_the_bound_in_other_units_and_of_other_learners() -> None:
    tasks = bm.TaskBatch(levels(3, 2), levels(3, 4, seed=1))
    inner = learner()
    made = bm.Standardized(inner)
    made.prepare(levels(20, 5, seed=7))
    standard = bm.TaskBatch(made.standard(tasks.support), made.standard(tasks.query))
    expected = bm.training.VariationalBound()(inner, standard) + made.y_scale.log().sum()
    torch.testing.assert_close(bm.training.VariationalBound()(made, tasks), expected)
    with pytest.raises(bm.UnsupportedError, match="latent neural process, got ALPaCA"):
        bm.training.VariationalBound()(bm.ALPaCA(bm.Identity(1)), tasks)
    labels = bm.Data.from_labels([0.0, 1.0], [0, 1])
    classes = bm.LatentNeuralProcess(bm.Identity(1), head=bm.heads.CategoricalHead(2))
    with pytest.raises(bm.UnsupportedError, match="expected numbers"):
        bm.training.VariationalBound()(classes, bm.TaskBatch(labels, labels))


def test_training_on_the_bound_lowers_it() -> None:
    made = learner()
    tasks = bm.tasks.Sinusoid().dataset(32, 12, seed=0)
    batch, bound = tasks.divided(bm.tasks.RandomSplit.at(6)), bm.training.VariationalBound()
    before = bound(made, batch).mean()
    bm.fit(made, tasks, 100, objective=bound, lr=5e-3, split=bm.tasks.RandomSplit((0, 6)), seed=0, progress=False)
    assert bound(made, batch).mean() < before - 0.1


def test_draws_change_while_training_and_are_fixed_after() -> None:
    made = learner()
    fixed = made.base.clone()
    torch.testing.assert_close(fixed.mean(0), torch.zeros(4, dtype=D), rtol=0.0, atol=1e-6)
    torch.testing.assert_close(fixed.square().mean(0), torch.ones(4, dtype=D), rtol=1e-6, atol=0.0)
    made.anneal(0.5)
    first = made.base.clone()
    made.anneal(0.6)
    assert not torch.equal(made.base, first)
    made.anneal(1.0)
    torch.testing.assert_close(made.base, fixed, rtol=1e-6, atol=1e-6)  # made in single precision at first
    assert "base" not in made.state_dict()


def test_a_path_is_given_the_support_and_z_alone_without_it() -> None:
    attentive, plain = learner(path=bm.learners.CrossAttention(8, 2)), learner()
    one, other = levels(1, 3), levels(1, 3, seed=1)
    x = inputs(1, 4)
    z = torch.zeros(1, 2, 4, dtype=D)
    for made, differs in ((attentive, True), (plain, False)):
        rows = made.features(x)
        a, b = (made.at_draws(z, made.condition(data).kept.path, rows) for data in (one, other))
        assert bool((a - b).abs().max() > 1e-6) is differs


def test_ranks_of_z_are_uniform_where_the_encoder_is_exact() -> None:
    """And are not where its variance is wrong: the check can fail."""
    model = bm.learners.LatentModel(exact())
    x, mask = inputs(1000, 4), torch.arange(4) < torch.arange(1000)[:, None] % 5  # ragged, some empty
    assert bm.checks.sbc(model, x, mask).is_uniform()
    narrow = exact()
    narrow.reader.encoder.forward = lambda given: (
        LevelEncoder.forward(LevelEncoder(), given) * torch.tensor([1.0, 2.0], dtype=D)
    )
    found = bm.checks.sbc(model, x, mask, judge=bm.learners.LatentModel(narrow))
    assert not found.is_uniform()


def test_the_sampler_agrees_with_an_exact_encoder() -> None:
    made, support = exact(512), levels(2, 3)
    model = bm.learners.LatentModel(made)
    sampled = bm.Sampled(model, bm.inference.NUTS(num_chains=16, num_draws=100, num_warmup=60)).adapt(support)
    found = bm.checks.fidelity(made.adapt(support), sampled, inputs(2, 3), num_draws=800)
    assert found.parameters is not None
    assert found.parameters.names == ("z[0]",)
    assert found.parameters.mean_error.abs().max() < 0.2  # five standard errors of 600 draws, in deviations
    assert found.parameters.log_scale.abs().max() < 0.15  # likewise, 5 / √(2 · 600)
    assert found.predictive_kl.max() < 5e-3  # half the square of such an error


def test_the_model_has_the_density_of_its_parts() -> None:
    """Prior and likelihood, point by point, for draws and tasks."""
    made, data = learner(), levels(2, 3)
    z = torch.randn(5, 2, 4, dtype=D)
    found = bm.learners.LatentModel(made).log_joint(data)({"z": z})
    expected = Normal(0.0, 1.0).log_prob(z).sum(-1)
    for s in range(5):
        for b in range(2):
            raw = made.at_draws(z[s, b][None, None], None, made.features(data.x[b : b + 1]))
            expected[s, b] += made.head.distribution(raw).log_prob(data.y[b : b + 1]).sum()
    torch.testing.assert_close(found, expected)


def test_what_has_no_model_is_refused() -> None:
    with pytest.raises(bm.UnsupportedError, match="without a deterministic path"):
        bm.learners.LatentModel(learner(path=bm.learners.CrossAttention(8, 2)))
    with pytest.raises(bm.UnsupportedError, match="got CategoricalHead"):
        bm.learners.LatentModel(learner(head=bm.heads.CategoricalHead(2)))
    with pytest.raises(bm.DataError, match="at least one draw"):
        bm.LatentNeuralProcess(bm.Identity(1), num_draws=0)


def test_classes_of_a_draw_share_it() -> None:
    """Without an example all classes are alike: their frequencies, whatever the draws."""
    made = learner(head=bm.heads.CategoricalHead(3))
    empty = bm.Data.empty(bm.Data.from_labels([0.0], [1]))
    torch.testing.assert_close(made.adapt(empty).predict([0.3]).probs, made.adapt(empty).predict([9.0]).probs)
    assert made.adapt(empty).sample(5)["z"].shape == (5, 1, 3, 4)


def test_what_was_trained_with_few_draws_predicts_with_many() -> None:
    few, many = exact(8), exact(2000)
    with torch.no_grad():
        few.decoder.spread.add_(0.5)
    many.load_state_dict(few.state_dict())
    data = levels(2, 4)
    assert many.adapt(data).predict(inputs(2, 1)).log_weights.shape == (2, 2000)
    assert torch.equal(many.decoder.spread, few.decoder.spread)
