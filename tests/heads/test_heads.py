"""Heads against a second library, explicit inverses and draws; and what all of them keep."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from sklearn.svm import LinearSVC

import bayesmeta as bm
from bayesmeta.heads import (
    Classes,
    Examples,
    GaussianProcessHead,
    Head,
    LogisticHead,
    NearestMeanHead,
    RidgeHead,
    SVMHead,
)
from bayesmeta.learners.closed_form.metaoptnet import MetaOptNet

D = torch.float64
HEADS: list[Callable[[], Head]] = [SVMHead, RidgeHead, NearestMeanHead, LogisticHead]
heads = pytest.mark.parametrize("make", HEADS, ids=lambda make: make.__name__)


def _points(*counts: int, features: int = 6, scale: float = 1.0) -> Examples:
    """One task with so many examples of each class."""
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    rows = scale * (torch.randn(len(counts), features, dtype=D)[labels] + torch.randn(len(labels), features, dtype=D))
    targets = torch.eye(len(counts), dtype=D)[labels]
    mask, classes = torch.ones(1, len(labels), dtype=torch.bool), torch.ones(1, len(counts), dtype=torch.bool)
    return Examples(rows[None], targets[None], mask, Classes(classes))


def _learner(head: Head, num_classes: int | None = 3) -> MetaOptNet:
    torch.manual_seed(0)
    learner = MetaOptNet(bm.MLP(2, [8, 8]), num_classes=num_classes, head=head, scale=3.0).double()
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return learner


def _batch(seed: int = 0, num_tasks: int = 4, support: int = 6, query: int = 4) -> bm.TaskBatch:
    """Three classes around centers; ragged supports, in which classes may be missing."""
    generator = torch.Generator().manual_seed(seed)
    total = support + query
    labels = torch.randint(3, (num_tasks, total), generator=generator)
    centers = torch.randn(num_tasks, 3, 2, generator=generator, dtype=D)
    x = centers[torch.arange(num_tasks)[:, None], labels] + 0.3 * torch.randn(
        num_tasks, total, 2, generator=generator, dtype=D
    )
    counts = torch.randint(0, support + 1, (num_tasks,), generator=generator)
    counts[0] = support
    mask = torch.arange(total) < torch.where(torch.arange(total) < support, counts[:, None], total)
    parts = [bm.Data(x[:, part], labels[:, part], mask[:, part]) for part in (slice(support), slice(support, None))]
    return bm.TaskBatch(*parts)


# ------------------------------------------------------------------------------------------------------------ the heads


@pytest.mark.parametrize("penalty", [0.02, 0.1, 1.0])
def test_the_svm_is_that_of_liblinear(penalty: float) -> None:
    examples = _points(5, 3, 6, 1, features=8)
    rows, targets = examples.rows, examples.targets
    queries = torch.randn(1, 7, 8, dtype=D)
    head = SVMHead().double()
    head.penalty.set(penalty)  # in this precision
    mean, variance = head.solve(examples).at(queries)
    other = LinearSVC(C=penalty, multi_class="crammer_singer", fit_intercept=False, tol=1e-12, max_iter=10**6)
    expected = other.fit(rows[0].numpy(), targets[0].argmax(-1).numpy()).decision_function(queries[0].numpy())
    # liblinear stops at its tolerance in the gradient of α; its weights err by the square root of the objective's error
    torch.testing.assert_close(mean[0], torch.from_numpy(expected), rtol=0.0, atol=1e-6)
    kernel, cross = (rows @ rows.mT)[0], (rows @ queries.mT)[0]
    noisy = kernel + torch.eye(len(kernel), dtype=D) / penalty
    explicit = queries[0].square().sum(-1) - (cross * torch.linalg.solve(noisy, cross)).sum(0)
    torch.testing.assert_close(variance[0, :, 0], explicit, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("features", [4, 40])
def test_ridge_is_the_formula(features: int) -> None:
    examples = _points(3, 2, 4, features=features, scale=5.0)
    rows, targets = examples.rows, examples.targets
    queries = torch.randn(1, 7, features, dtype=D)
    mean, variance = RidgeHead(50.0).double().solve(examples).at(queries)
    noisy = rows[0].mT @ rows[0] + 50.0 * torch.eye(features, dtype=D)
    torch.testing.assert_close(mean[0], queries[0] @ torch.linalg.solve(noisy, rows[0].mT @ targets[0]))
    torch.testing.assert_close(variance[0, :, 0], (queries[0] * torch.linalg.solve(noisy, queries[0].mT).mT).sum(-1))


def test_nearest_means_have_the_moments_of_draws() -> None:
    """Of -|x - μ_c|² / F less its average over classes, with μ drawn from the conjugate posterior."""
    counts, tau2, size = torch.tensor([3, 1, 0]), 2.0, 6
    examples = _points(*counts.tolist(), features=size)
    rows, targets = examples.rows, examples.targets
    queries = torch.randn(1, 5, size, dtype=D)
    mean, variance = NearestMeanHead(tau2).double().solve(examples).at(queries)
    spread = tau2 / (1.0 + counts * tau2)
    center = spread[:, None] * (targets[0].mT @ rows[0])
    draws = 200_000
    means = center + spread.sqrt()[:, None] * torch.randn(draws, 3, size, dtype=D)
    score = -(queries[0][:, None] - means[:, None]).square().sum(-1) / size
    score = score - score.mean(-1, keepdim=True)
    # 5 standard errors: of a mean stddev / √draws; of a variance about variance √(2 / draws) (kurtosis near 3)
    assert ((mean[0] - score.mean(0)).abs() < 5.0 * (variance[0] / draws).sqrt()).all()
    torch.testing.assert_close(variance[0], score.var(0), rtol=5.0 * math.sqrt(4.0 / draws), atol=0.0)


def test_nearest_means_tend_to_prototypes() -> None:
    examples = _points(2, 2, 2)
    rows, targets = examples.rows, examples.targets
    queries = torch.randn(1, 5, 6, dtype=D)
    mean, variance = NearestMeanHead(9e5).double().solve(examples).at(queries)
    prototypes = targets[0].mT @ rows[0] / 2.0
    expected = -torch.cdist(queries[0], prototypes).square() / 6.0
    # the prior moves means by 1 / (n τ²)
    torch.testing.assert_close(mean[0].log_softmax(-1), expected.log_softmax(-1), rtol=0.0, atol=1e-5)
    half = Examples(rows[:, ::2], targets[:, ::2], examples.mask[:, ::2], examples.classes)
    few = NearestMeanHead(9e5).double().solve(half).at(queries)
    assert (few[1].mean() > 1.5 * variance.mean()).all()  # one example has about twice the variance of two


def test_a_class_without_an_example() -> None:
    labels, x = torch.tensor([0, 0, 1]), torch.tensor([[2.0, 0.0], [2.0, 0.1], [-2.0, 0.0]], dtype=D)
    for make in HEADS:
        learner = MetaOptNet(bm.Identity(2), num_classes=3, head=make(), scale=20.0).double()
        probs = learner.adapt(bm.Data.from_labels(x, labels)).predict(x).probs[0]
        assert torch.isfinite(probs).all()
        assert (probs.argmax(-1) == labels).all()
        empty = learner.adapt(bm.Data.empty(bm.Data.from_labels(x, labels))).predict(x).probs
        torch.testing.assert_close(empty, torch.full_like(empty, 1.0 / 3.0), rtol=0.0, atol=1e-12)  # by symmetry


@heads
def test_what_is_far_is_less_certain_than_without_a_variance(make: Callable[[], Head]) -> None:
    x, labels = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=D), torch.tensor([0, 1])
    learner = MetaOptNet(bm.Identity(2), num_classes=2, head=make(), scale=10.0).double()
    far = torch.tensor([[1.0, 10.0]], dtype=D)  # as near to each class as the first point but for the new direction
    posterior = learner.adapt(bm.Data.from_labels(x, labels))
    near, away = posterior.predict(x[:1]).probs[0, 0], posterior.predict(far).probs[0, 0]
    assert near[0] > away[0] > 0.5


# -------------------------------------------------------------------------------------------------- what all heads keep


@heads
def test_every_theta_has_the_gradient_of_finite_differences(make: Callable[[], Head]) -> None:
    learner, tasks = _learner(make()), _batch(support=8)
    learner.meta_loss(tasks).sum().backward()
    for name, parameter in learner.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 1e-8, name
        direction, ends = torch.randn_like(parameter), []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                parameter.add_(step * direction)
                ends.append(learner.meta_loss(tasks).sum().item())
                parameter.sub_(step * direction)
        expected = (ends[0] - ends[1]) / 2e-5
        # central differences err by h² f''' ~ 1e-10 and by rounding / h ~ 1e-10
        assert math.isclose((parameter.grad * direction).sum().item(), expected, rel_tol=1e-5, abs_tol=1e-7), name


@heads
def test_padding_order_batch_and_update(make: Callable[[], Head]) -> None:
    learner, tasks = _learner(make()), _batch(1)
    support, x = tasks.support, tasks.query.x
    expected = learner.adapt(support).predict(x).probs
    filled = replace(
        support, x=torch.where(support.mask[..., None], support.x, 7.0), y=torch.where(support.mask, support.y, -3)
    )
    order = torch.randperm(6)
    shuffled = bm.Data(*(value[:, order] for value in (support.x, support.y, support.mask)))
    first, second = (
        bm.Data(*(value[:, part] for value in (support.x, support.y, support.mask)))
        for part in (slice(2), slice(2, None))
    )
    rows = [learner.adapt(support.select([i])).predict(x[i : i + 1]).probs for i in range(4)]
    for found in (
        learner.adapt(filled).predict(x).probs,
        learner.adapt(shuffled).predict(x).probs,
        learner.adapt(first).update(second).predict(x).probs,
        torch.cat(rows),
    ):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)  # another order of summation


@heads
def test_tasks_of_different_ways(make: Callable[[], Head]) -> None:
    """Each as it is on its own, and nothing for what is not a class of it."""
    learner = _learner(make(), None)
    x, y = torch.randn(2, 5, 2, dtype=D), torch.tensor([[0, 1, 2, 3, 1], [1, 0, 1, 0, 0]])
    query = torch.randn(2, 3, 2, dtype=D)
    probs = learner.adapt(bm.Data(x, y, torch.ones(2, 5, dtype=torch.bool))).predict(query).probs
    alone = learner.adapt(bm.Data.from_labels(x[1], y[1])).predict(query[1]).probs
    assert (probs[1, :, 2:] == 0.0).all()
    torch.testing.assert_close(probs[1:, :, :2], alone, rtol=1e-9, atol=1e-9)


@heads
def test_scores_of_float32_features_are_float64(make: Callable[[], Head]) -> None:
    learner = _learner(make()).float()
    assert all(parameter.dtype == torch.float32 for parameter in learner.parameters())
    probs = learner.adapt(_batch().support).predict(_batch().query.x).probs
    other = _learner(make()).adapt(_batch().support).predict(_batch().query.x).probs
    assert probs.dtype == D
    torch.testing.assert_close(probs, other, rtol=0.0, atol=1e-5)  # float32 features


def test_a_model_folder_keeps_the_head(tmp_path: object) -> None:
    learner = _learner(NearestMeanHead(3.0))
    bm.save(learner, f"{tmp_path}/model")
    loaded = bm.load(f"{tmp_path}/model")
    assert isinstance(loaded.head, NearestMeanHead)
    assert loaded.head.prior_variance() == learner.head.prior_variance()


@pytest.mark.usefixtures("unchecked")
def test_what_is_refused() -> None:
    features = bm.MLP(2, [4])
    with pytest.raises(bm.UnsupportedError, match=r"expected a head such as RidgeHead\(\), got 'svm'"):
        MetaOptNet(features, num_classes=3, head="svm")
    with pytest.raises(bm.ShapeError, match="expected a head on 4 features, got one on 3"):
        MetaOptNet(features, head=GaussianProcessHead(3))
    for head in (SVMHead, NearestMeanHead, RidgeHead, LogisticHead):
        with pytest.raises(bm.DataError, match="expected values strictly between"):
            head(-1.0)
    with pytest.raises(bm.DataError, match="expected at least 2 classes, got 1"):
        MetaOptNet(features, num_classes=1)
    learner = MetaOptNet(features, num_classes=2)
    with pytest.raises(bm.DataError, match="expected labels from 0 to 1, got labels from 0 to 2"):
        learner.adapt(bm.Data.from_labels(torch.rand(3, 2), [0, 1, 2]))
    with pytest.raises(bm.DataError, match=r"expected labels for MetaOptNet .*, got numbers"):
        learner.adapt(bm.Data.from_arrays(torch.rand(3, 2), torch.rand(3)))
