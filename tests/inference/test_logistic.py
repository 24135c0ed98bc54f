"""Logistic regression against scikit-learn, the dense Hessian, and finite differences."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

import bayesmeta as bm
from bayesmeta.heads.classes import Classes, one_hot
from bayesmeta.inference.logistic import LogisticBelief, logistic

D = torch.float64


def _task(seed: int, points: int = 9, features: int = 4, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(points, features, generator=generator, dtype=D)
    labels = torch.arange(points) % classes  # each has an example
    return rows, labels


def _solve(rows: torch.Tensor, labels: torch.Tensor, classes: int, ridge: float = 1.0) -> LogisticBelief:
    mask = torch.ones(1, len(labels), dtype=torch.bool)
    targets = one_hot(labels[None], classes, mask)
    return logistic((rows @ rows.mT / ridge)[None], targets, mask, torch.ones(1, classes, dtype=torch.bool))


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), ridge=st.sampled_from([0.01, 0.3, 1.0, 30.0]), classes=st.integers(3, 5))
def test_it_is_the_regression_of_scikit_learn(seed: int, ridge: float, classes: int) -> None:
    rows, labels = _task(seed, classes=classes)
    weights = rows.mT / ridge @ _solve(rows, labels, classes, ridge).dual[0]
    other = LogisticRegression(C=1.0 / ridge, fit_intercept=False, tol=1e-12, max_iter=10_000, solver="newton-cg")
    other.fit(rows.numpy(), labels.numpy())
    expected = torch.from_numpy(other.coef_).mT
    # its classes' weights sum to zero, as the prior makes ours; it stops at a gradient of 1e-12 or so per point
    torch.testing.assert_close(weights, expected, rtol=0.0, atol=1e-6)


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6))
def test_the_variance_is_that_of_the_dense_hessian(seed: int) -> None:
    rows, labels = _task(seed, points=6)
    query = torch.randn(5, 4, generator=torch.Generator().manual_seed(seed + 1), dtype=D)
    belief = _solve(rows, labels, 3)
    mean, variance = belief.predict((query @ rows.mT)[None], query.square().sum(-1)[None])
    weights = rows.mT @ belief.dual[0]

    def loss(flat: torch.Tensor) -> torch.Tensor:
        w = flat.view(4, 3)
        log_probs = (rows @ w).log_softmax(-1)
        return 0.5 * w.square().sum() - log_probs[torch.arange(6), labels].sum()

    gradient = torch.func.grad(loss)(weights.flatten())
    assert gradient.abs().max() < 1e-5  # Newton's last gain is below 1e-10, half its square over a curvature above 1
    covariance = torch.linalg.inv(torch.func.hessian(loss)(weights.flatten())).view(4, 3, 4, 3)
    expected = torch.einsum("mi,icjc,mj->mc", query, covariance, query)
    torch.testing.assert_close(mean[0], query @ weights, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(variance[0], expected, rtol=1e-5, atol=1e-7)  # of the same optimum


@pytest.mark.parametrize("what", ["mean", "variance"])
def test_the_gradient_is_that_of_finite_differences(what: str) -> None:
    rows, labels = _task(3)
    query = torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=D)

    def value(rows: torch.Tensor) -> torch.Tensor:
        mean, variance = _solve(rows, labels, 3).predict((query @ rows.mT)[None], query.square().sum(-1)[None])
        return (mean if what == "mean" else variance).mul(torch.arange(12, dtype=D).view(1, 4, 3)).sum()

    leaf = rows.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(leaf), leaf)
    direction = torch.randn(rows.shape, generator=torch.Generator().manual_seed(2), dtype=D)
    step = 1e-5
    expected = (value(rows + step * direction) - value(rows - step * direction)) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), expected, rtol=1e-6, atol=1e-8)  # h² f''' and rounding / h


def test_ragged_tasks_of_different_ways_are_a_loop() -> None:
    tasks = [_task(i, points, classes=ways) for i, (points, ways) in enumerate([(9, 3), (4, 2), (12, 4)])]
    rows, labels = torch.full((3, 12, 4), 7.0, dtype=D), torch.zeros(3, 12, dtype=torch.int64)
    mask = torch.zeros(3, 12, dtype=torch.bool)
    for i, (x, y) in enumerate(tasks):
        rows[i, : len(y)], labels[i, : len(y)], mask[i, : len(y)] = x, y, True
    rows = torch.where(mask[..., None], rows, 0.0)
    classes = Classes.of(labels, mask, None)
    batch = logistic(rows @ rows.mT, one_hot(labels, 4, mask), mask, classes.mask)
    for i, (x, y) in enumerate(tasks):
        ways = int(y.max()) + 1
        alone = _solve(x, y, ways).dual[0]
        torch.testing.assert_close(batch.dual[i, : len(y), :ways], alone, rtol=1e-9, atol=1e-9)  # rounding
        assert (batch.dual[i, len(y) :] == 0.0).all()
        assert (batch.dual[i, :, ways:] == 0.0).all()


def test_no_points_give_the_prior() -> None:
    belief = _solve(torch.zeros(0, 4, dtype=D), torch.zeros(0, dtype=torch.int64), 3)
    mean, variance = belief.predict(torch.zeros(1, 2, 0, dtype=D), torch.tensor([[1.0, 4.0]], dtype=D))
    assert mean.tolist() == [[[0.0] * 3] * 2]
    assert variance.tolist() == [[[1.0] * 3, [4.0] * 3]]


def test_far_apart_scores_still_converge() -> None:
    """Separable classes, and a prior so wide that all probabilities are 0 or 1 to 1e-4."""
    rows, labels = _task(5)
    rows = 1e3 * (0.2 * rows + torch.eye(4, dtype=D)[labels])
    dual = _solve(rows, labels, 3).dual[0]
    probs = (rows @ rows.mT @ dual).softmax(-1)
    torch.testing.assert_close(dual, torch.eye(3, dtype=D)[labels] - probs, rtol=1e-6, atol=1e-9)  # the optimum's
    assert (probs[torch.arange(9), labels] > 1.0 - 1e-4).all()


def test_too_few_steps_are_an_error() -> None:
    rows, labels = _task(0)
    mask = torch.ones(1, 9, dtype=torch.bool)
    with pytest.raises(bm.InferenceError, match=r"converge in 1 steps.* in task 0") as caught:
        logistic(
            (100.0 * rows @ rows.mT)[None],
            one_hot(labels[None], 3, mask),
            mask,
            torch.ones(1, 3, dtype=torch.bool),
            steps=1,
        )
    assert caught.value.task == 0
