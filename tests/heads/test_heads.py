"""Heads against a second library, explicit inverses and draws; and what all of them keep."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from sklearn.svm import LinearSVC
from torch import Tensor

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


def _weights(targets: Tensor) -> Tensor:
    """h / n_c of each point of one task, h the harmonic mean of the numbers of the classes that have an example."""
    counts = targets.sum(0)
    shown = counts[counts > 0]
    return len(shown) / (1.0 / shown).sum() / counts[targets.argmax(-1)]


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
    weights = _weights(targets[0])
    other.fit(rows[0].numpy(), targets[0].argmax(-1).numpy(), weights.numpy())
    expected = other.decision_function(queries[0].numpy())
    # liblinear stops at its tolerance in the gradient of α; its weights err by the square root of the objective's error
    torch.testing.assert_close(mean[0], torch.from_numpy(expected), rtol=0.0, atol=1e-6)
    kernel, cross = (rows @ rows.mT)[0], (rows @ queries.mT)[0]
    noisy = kernel + torch.diag(1.0 / weights) / penalty
    explicit = queries[0].square().sum(-1) - (cross * torch.linalg.solve(noisy, cross)).sum(0)
    torch.testing.assert_close(variance[0, :, 0], explicit, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("features", [4, 40])
def test_ridge_is_the_formula(features: int) -> None:
    examples = _points(3, 2, 4, features=features, scale=5.0)
    rows, targets = examples.rows, examples.targets
    queries = torch.randn(1, 7, features, dtype=D)
    mean, variance = RidgeHead(50.0).double().solve(examples).at(queries)
    weighted = rows[0].mT * _weights(targets[0])
    noisy = weighted @ rows[0] + 50.0 * torch.eye(features, dtype=D)
    torch.testing.assert_close(mean[0], queries[0] @ torch.linalg.solve(noisy, weighted @ targets[0]))
    torch.testing.assert_close(variance[0, :, 0], (queries[0] * torch.linalg.solve(noisy, queries[0].mT).mT).sum(-1))


@pytest.mark.parametrize("spread", [1.0, 0.3])
def test_nearest_means_are_the_density_of_draws(spread: float) -> None:
    """The mean of N(x; μ, σ² I) over draws of μ from its posterior, whose variance `spread` multiplies."""
    counts, tau2, noise, size = torch.tensor([3, 1, 0]), 2.0, 0.5, 2
    examples = _points(*counts.tolist(), features=size)
    queries = torch.randn(1, 5, size, dtype=D)
    scores = NearestMeanHead(tau2, noise).double().solve(examples)
    variance = 1.0 / (1.0 / tau2 + counts / noise)
    center = variance[:, None] * (examples.targets[0].mT @ examples.rows[0]) / noise
    draws = 100_000
    means = center + (spread * variance).sqrt()[:, None] * torch.randn(draws, 3, size, dtype=D)
    each = -0.5 * (queries[0][:, None] - means[:, None]).square().sum(-1) / noise - math.log(2.0 * math.pi * noise)
    density = each.exp()
    found = scores.logits(queries, torch.tensor(float(size)), torch.tensor(spread)).exp()[0]
    assert ((found - density.mean(0)).abs() < 5.0 * density.std(0) / draws**0.5 + 1e-12).all()  # 5 standard errors
    torch.testing.assert_close(
        scores.at(queries)[0], scores.logits(queries, torch.tensor(float(size)), torch.tensor(1.0))
    )


def test_nearest_means_are_the_exact_classifier_of_gaussian_blobs() -> None:
    """With all features counting and the variances of the blobs, whatever the numbers of examples."""
    blobs = bm.tasks.GaussianBlobs(ways=4, dimension=3, spread=1.5, noise=0.7)
    labels, x = torch.tensor([0] * 1 + [1] * 10 + [2] * 3), torch.randn(1, 9, 3, dtype=D)
    support = bm.Data.full(torch.randn(1, 14, 3, dtype=D), labels[None])
    head = NearestMeanHead().double()
    head.prior_variance.set(1.5**2)  # in this precision
    head.noise.set(0.7**2)
    density, _ = head.solve(Examples.of(support.x, support.y, support.mask, num_classes=4)).at(x)
    torch.testing.assert_close(density.softmax(-1), blobs.oracle.adapt(support).predict(x).probs)


def test_nearest_means_tend_to_prototypes() -> None:
    """As the variance of the means grows; the width of the belief about them at zero, as Snell et al. have it."""
    examples = _points(2, 2, 2)
    rows, targets = examples.rows, examples.targets
    queries = torch.randn(1, 5, 6, dtype=D)
    scores = NearestMeanHead(9e5, 0.5).double().solve(examples)
    found = scores.logits(queries, torch.tensor(6.0), torch.tensor(0.0))
    expected = -torch.cdist(queries[0], targets[0].mT @ rows[0] / 2.0).square()
    # the prior moves means by σ² / (n τ²)
    torch.testing.assert_close(found[0].log_softmax(-1), expected.log_softmax(-1), rtol=0.0, atol=1e-4)


@pytest.mark.parametrize("times", [1, 3, 100])
@pytest.mark.parametrize("kind", ["ridge", "logistic", "svm", "gp"])
def test_examples_of_one_class_that_are_repeated_tell_nothing_new(kind: str, times: int) -> None:
    """Each class counts as h points: with the prior scaled by what h grows, all is as if each point were seen once."""
    rows, labels = torch.randn(5, 4, dtype=D), torch.tensor([0, 0, 1, 1, 2])
    repeats = torch.tensor([1, 1, times, times, 1])
    examples = [
        Examples.of(x[None], y[None], torch.ones(1, len(y), dtype=torch.bool), num_classes=4)
        for x, y in ((rows, labels), (rows.repeat_interleave(repeats, 0), labels.repeat_interleave(repeats)))
    ]
    growth = (1 / 2 + 1 / 2 + 1) / (1 / 2 + 0.5 / times + 1)  # of h
    made: list[Head] = []
    for factor in (1.0, growth):
        head: Head
        if kind == "svm":
            head = SVMHead().double()
            head.penalty.set(2.0 / factor)
        elif kind == "gp":
            head = GaussianProcessHead(4).double()
            head.noise.set(0.2 * factor)
        else:
            head = (RidgeHead() if kind == "ridge" else LogisticHead()).double()
            head.ridge.set(0.7 * factor)
        made.append(head)
    query = torch.randn(1, 6, 4, dtype=D)
    once, often = (head.solve(each).at(query) for head, each in zip(made, examples, strict=True))
    # the same optimum to the tolerance of its solver, and the bounds of the numbers of heads, 1e-6
    torch.testing.assert_close(often[0], once[0], rtol=1e-4, atol=1e-4)
    if kind in ("ridge", "logistic"):  # variances are in units of the prior
        torch.testing.assert_close(growth * often[1], once[1], rtol=1e-4, atol=1e-4)


def test_a_class_without_an_example() -> None:
    labels, x = torch.tensor([0, 0, 1]), torch.tensor([[2.0, 0.0], [2.0, 0.1], [-2.0, 0.0]], dtype=D)
    for make in HEADS:
        learner = MetaOptNet(bm.Identity(2), num_classes=3, head=make(), scale=20.0).double()
        probs = learner.adapt(bm.Data.from_labels(x, labels)).predict(x).probs[0]
        assert torch.isfinite(probs).all()
        assert (probs.argmax(-1) == labels).all()
        empty = learner.adapt(bm.Data.empty(bm.Data.from_labels(x, labels))).predict(x).probs
        torch.testing.assert_close(empty, torch.full_like(empty, 1.0 / 3.0), rtol=0.0, atol=1e-12)  # by symmetry


@pytest.mark.parametrize("make", [SVMHead, RidgeHead, LogisticHead], ids=lambda make: make.__name__)
def test_what_is_far_is_less_certain_than_without_a_variance(make: Callable[[], Head]) -> None:
    """Not so Gaussian classes of a known variance, where only the way from mean to mean counts."""
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
