"""R2-D2 and LR-D2: the normal equations, ALPaCA, scikit-learn, finite differences; what they refuse."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

import bayesmeta as bm
from bayesmeta.heads import HeadClassifier, LogisticHead, RidgeHead
from bayesmeta.inference import linear_gaussian

D = torch.float64


def _support(seed: int = 0, points: int = 6, classes: int = 3, tasks: int = 2) -> bm.Data:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tasks, points, 2, generator=generator, dtype=D)
    labels = (torch.arange(points) % classes).expand(tasks, -1)
    return bm.Data.full(x, labels)


def _learner(kind: type[HeadClassifier], **arguments: Any) -> HeadClassifier:
    torch.manual_seed(0)
    return kind(bm.MLP(2, [16, 8]), **arguments).double()


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), points=st.integers(3, 20), ridge=st.sampled_from([0.01, 1.0, 50.0]))
def test_the_head_solves_the_normal_equations(seed: int, points: int, ridge: float) -> None:
    """More points than features, and fewer."""
    learner, support = _learner(bm.R2D2, head=RidgeHead(ridge)), _support(seed, points)
    posterior, query = learner.adapt(support), _support(seed + 1).x
    mean, variance = posterior.scores.at(posterior.learner.rows(query))
    with torch.no_grad():
        rows, at, ridge_ = learner.rows(support.x), learner.rows(query), learner.head.ridge()
    targets = torch.eye(3, dtype=D)[support.y]
    weighted = rows.mT * posterior.examples.weights[:, None]  # by which every class counts alike
    inverse = torch.linalg.inv(weighted @ rows + ridge_ * torch.eye(8, dtype=D))
    torch.testing.assert_close(mean, at @ inverse @ weighted @ targets, rtol=1e-9, atol=1e-9)
    expected = torch.einsum("bmf,bfg,bmg->bm", at, inverse, at)
    torch.testing.assert_close(variance[..., 0], expected, rtol=1e-8, atol=1e-9)  # an inverse of condition 1e4


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), points=st.integers(1, 12))
def test_primal_and_dual_are_one(seed: int, points: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows, targets, query = (
        torch.randn(3, n, f, generator=generator, dtype=D) for n, f in ((points, 6), (points, 2), (4, 6))
    )
    mask = torch.rand(3, points, generator=generator) < 0.7
    primal = linear_gaussian.condition_feature_space(rows, targets, mask).predict(query)
    dual = linear_gaussian.condition_point_space(rows, targets, mask).predict(query)
    torch.testing.assert_close(primal, dual, rtol=1e-9, atol=1e-9)


def test_the_regressor_is_alpaca_with_its_prior() -> None:
    torch.manual_seed(0)
    features, ridge = bm.MLP(1, [8, 4]), 3.0
    learner = bm.R2D2Regressor(features, num_outputs=2, ridge=ridge, noise=bm.noise.FullNoise(2)).double()
    other = bm.ALPaCA(
        features, num_outputs=2, covariance=bm.priors.IsotropicCovariance(4, 1.0 / ridge), noise=bm.noise.FullNoise(2)
    ).double()
    with torch.no_grad():
        for parameter in learner.likelihood.noise.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        other.likelihood.noise.load_state_dict(learner.likelihood.noise.state_dict())
        other.prior.covariance.stddev.copy_(learner.prior.precision().rsqrt())  # not through float32
        learner.intercept.copy_(torch.tensor([2.0, -1.0]))
    x, y = torch.randn(3, 7, 1, dtype=D), torch.randn(3, 7, 2, dtype=D)
    mask, query = torch.rand(3, 7) < 0.7, torch.randn(3, 5, 1, dtype=D)
    shift = learner.intercept.detach()
    a, b = learner.adapt(bm.Data(x, y + shift, mask)), other.adapt(bm.Data(x, y, mask))
    found, expected = a.predict(query), b.predict(query)
    torch.testing.assert_close(found.mean, expected.mean + shift, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.covariance(), expected.covariance(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(a.mean["weight"], b.mean["weight"], rtol=1e-10, atol=1e-10)
    evidence = learner.log_evidence(bm.Data(x, y + shift, mask))
    torch.testing.assert_close(evidence, other.log_evidence(bm.Data(x, y, mask)), rtol=1e-10, atol=1e-10)
    weight = a.sample(3)
    torch.testing.assert_close(learner.prior.log_prob(weight), other.prior.log_prob(weight), rtol=1e-10, atol=1e-10)
    data = bm.Data(x, y, mask)
    assert learner.log_joint(data)(weight).shape == (3, 3)


def test_the_ridge_prior_draws_what_it_says() -> None:
    torch.manual_seed(0)
    noise = bm.noise.FullNoise(2)
    noise.set_covariance(torch.tensor([[1.0, 0.6], [0.6, 2.0]]))
    prior = bm.priors.Ridge(3, noise, 4.0)
    draws = prior.sample(100_000, torch.Generator().manual_seed(0))["weight"]
    covariance = torch.einsum("bfc,bfd->cd", draws, draws) / 300_000
    # a covariance of 3e5 draws errs by 0.3 % of its scale
    torch.testing.assert_close(covariance.detach(), noise.covariance().detach() / 4.0, rtol=0.0, atol=0.006)
    assert prior.mean["weight"].abs().max() == 0.0


def test_lrd2_is_a_converged_logistic_regression() -> None:
    learner, support, query = (
        _learner(bm.LRD2, head=LogisticHead(0.5)),
        _support(3, 12, tasks=1),
        _support(4, tasks=1).x,
    )
    posterior = learner.adapt(support)
    with torch.no_grad():
        rows, at, ridge = learner.rows(support.x)[0], learner.rows(query)[0], learner.head.ridge().item()
    other = LogisticRegression(C=1.0 / ridge, fit_intercept=False, tol=1e-12, max_iter=10_000, solver="newton-cg")
    weights = posterior.examples.weights[0]
    other.fit(rows.numpy(), support.y[0].numpy(), weights.numpy())
    mean, _ = posterior.scores.at(posterior.learner.rows(query))
    torch.testing.assert_close(mean[0], torch.from_numpy(at.numpy() @ other.coef_.T), rtol=0.0, atol=1e-6)
    # and with the width of the belief at zero the probabilities are scikit-learn's
    with torch.no_grad():
        learner.spread.raw.fill_(-100.0)
        learner.class_prior.concentration.raw.fill_(100.0)  # and the numbers of examples say nothing of the query
    probs = learner.adapt(support).predict(query).probs[0]
    expected = torch.from_numpy(other.predict_proba(at.numpy()))
    torch.testing.assert_close(probs, expected, rtol=0.0, atol=1e-5)  # the spread's lower bound is 1e-8


@pytest.mark.parametrize("kind", [bm.R2D2, bm.LRD2])
def test_what_is_far_from_the_support_is_less_certain(kind: type[HeadClassifier]) -> None:
    """The same scores with and without the variance: the softmax is flatter with it, and keeps its order."""
    support, query = _support(0), _support(1).x
    wide, narrow = _learner(kind, spread=100.0), _learner(kind, spread=1e-7)
    a, b = (learner.adapt(support).predict(query).probs for learner in (wide, narrow))
    assert (a.amax(-1) < b.amax(-1)).all()
    if kind is bm.R2D2:  # all classes have one variance
        assert torch.equal(a.argmax(-1), b.argmax(-1))
    mean, variance = (posterior := wide.adapt(support)).scores.at(posterior.learner.rows(query))
    scale = wide.scale().item()
    expected = scale * mean / (1.0 + math.pi / 8.0 * scale**2 * wide.spread().item() * variance).sqrt()
    torch.testing.assert_close(a, expected.softmax(-1), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", [bm.R2D2, bm.LRD2])
def test_ways_that_differ_within_a_batch(kind: type[HeadClassifier]) -> None:
    learner = _learner(kind)
    tasks = [_support(i, 6, ways, tasks=1) for i, ways in enumerate((2, 3, 2))]
    batch, query = bm.Data.stack(tasks), _support(9, tasks=3).x
    together = learner.adapt(batch).predict(query).probs
    assert together.shape == (3, 6, 3)
    assert (together[[0, 2], :, 2] == 0.0).all()
    for i, task in enumerate(tasks):
        alone = learner.adapt(task).predict(query[i : i + 1]).probs
        torch.testing.assert_close(together[i, :, : alone.shape[-1]], alone[0], rtol=1e-9, atol=1e-9)
    # gradients pass by the classes that a task does not have
    tasks_ = bm.TaskBatch(batch, bm.Data(query, batch.y, batch.mask))
    learner.meta_loss(tasks_).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in learner.parameters() if p.grad is not None)
    more = learner.adapt(tasks[0]).update(tasks[1])  # a class that appears later
    torch.testing.assert_close(
        more.predict(query[:1]).probs, learner.adapt(tasks[0].append(tasks[1])).predict(query[:1]).probs
    )


@pytest.mark.usefixtures("unchecked")  # our own errors, not those of the type checker
@pytest.mark.parametrize("kind", [bm.R2D2, bm.LRD2])
def test_bad_input(kind: type[HeadClassifier]) -> None:
    features, support = bm.MLP(2, [4]), _support()
    for make, error, message in (
        (lambda: kind(torch.nn.Linear(2, 3)), bm.UnsupportedError, "inherit bayesmeta.Network"),
        (lambda: kind(bm.Conv4((1, 8, 8), 8, norm="task")), bm.UnsupportedError, "norm='group'"),
        (lambda: kind(features, num_classes=1), bm.DataError, "at least 2 classes, got 1"),
        (lambda: kind(features, head=RidgeHead(0.0)), bm.DataError, "strictly between"),
        (lambda: kind(features, scale=-1.0), bm.DataError, "strictly between"),
        (lambda: kind(features, spread=math.inf), bm.DataError, "strictly between"),
    ):
        with pytest.raises(error, match=message):
            make()
    learner = _learner(kind, num_classes=3)
    with pytest.raises(bm.DataError, match=r"expected labels for .*, got numbers"):
        learner.adapt(bm.Data.from_arrays(support.x[0], support.x[0, :, :1]))
    with pytest.raises(bm.DataError, match="labels from 0 to 2, got labels from 0 to 5"):
        learner.adapt(bm.Data(support.x, torch.arange(6).expand(2, -1), support.mask))
    with pytest.raises(bm.ShapeError, match="expected data with x"):
        learner.adapt(bm.Data(support.x[..., :1], support.y, support.mask))
    with pytest.raises(bm.DataError, match="none of class 1 in task 0"):
        _learner(kind).adapt(bm.Data(support.x, 2 * support.y, support.mask))
    with pytest.raises(bm.DataError, match="shows which classes there are"):
        _learner(kind).adapt(bm.Data.empty(support))
    with pytest.raises(bm.ShapeError, match="noise over 1 outputs, got 2"):
        bm.R2D2Regressor(features, noise=bm.noise.DiagonalNoise(2))


def test_images_of_another_size() -> None:
    learner = bm.R2D2(bm.Conv4((1, 28, 28), 8))
    with pytest.raises(bm.ShapeError, match=r"x \(1, N, 1, 28, 28\).*got x \(1, 2, 1, 20, 20\)"):
        learner.adapt(bm.Data.from_labels(torch.zeros(2, 1, 20, 20), [0, 1]))


def test_the_head_learns_faster_than_the_features() -> None:
    learner = bm.R2D2(bm.MLP(2, [4]))
    optimizer = learner.configure_optimizer(1e-3)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {rates[id(p)] for p in learner.features.parameters()} == {1e-3}
    assert {rates[id(p.raw)] for p in (learner.head.ridge, learner.scale, learner.spread)} == {1e-2}
    assert len(rates) == len(list(learner.parameters()))
    learner.features.requires_grad_(False)
    assert len(learner.configure_optimizer().param_groups) == 1
