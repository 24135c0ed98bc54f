"""The SVM's dual against a general solver, its optimality conditions, and finite differences."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor

import bayesmeta as bm
from bayesmeta.inference import svm
from bayesmeta.inference.svm import svm_dual

D = torch.float64


def _tasks(
    seed: int, num_tasks: int = 4, points: int = 6, classes: int = 3, features: int = 8, scale: float = 1.0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows, unit vectors, mask and classes: ragged in both, the first task full. Classes may be without examples."""
    generator = torch.Generator().manual_seed(seed)
    ways = torch.randint(2, classes + 1, (num_tasks,), generator=generator)
    counts = torch.randint(0, points + 1, (num_tasks,), generator=generator)
    ways[0], counts[0] = classes, points
    labels = (torch.rand(num_tasks, points, generator=generator) * ways[:, None]).long()
    centers = torch.randn(num_tasks, classes, features, generator=generator, dtype=D)
    rows = torch.randn(num_tasks, points, features, generator=generator, dtype=D)
    rows = rows + torch.gather(centers, 1, labels[..., None].expand_as(rows))
    mask, present = torch.arange(points) < counts[:, None], torch.arange(classes) < ways[:, None]
    targets = torch.nn.functional.one_hot(labels, classes).to(D) * mask[..., None]
    return torch.where(mask[..., None], scale * rows, 0.0), targets, mask, present


def _dual(tasks: tuple[Tensor, Tensor, Tensor, Tensor], penalty: float | Tensor) -> Tensor:
    rows, targets, mask, present = tasks
    return svm_dual(rows @ rows.mT, targets, mask, present, torch.as_tensor(penalty, dtype=D))


def _primal(rows: Tensor, weights: Tensor, targets: Tensor, mask: Tensor, present: Tensor, penalty: float) -> Tensor:
    """½ Σ |w_c|² + penalty Σ_n max_c (w_cᵀ x_n + [c ≠ y_n] - w_yᵀ x_n), as it is written."""
    scores = rows @ weights
    margins = (scores + 1.0 - targets).masked_fill(~present[:, None], -math.inf).amax(-1)
    hinge = torch.where(mask, margins - (scores * targets).sum(-1), 0.0)
    return 0.5 * weights.square().sum((-1, -2)) + penalty * hinge.sum(-1)


@pytest.mark.parametrize("penalty", [0.02, 0.1, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_the_dual_is_that_of_a_general_solver(seed: int, penalty: float) -> None:
    rows, targets, _, _ = tasks = _tasks(seed, 1)
    found = _dual(tasks, penalty)[0]
    kernel, labels = (rows @ rows.mT)[0].numpy(), targets[0].numpy()
    shape = labels.shape

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        alpha = flat.reshape(shape)
        image = kernel @ alpha
        return 0.5 * (alpha * image).sum() - (alpha * labels).sum(), (image - labels).ravel()

    sums = np.kron(np.eye(shape[0]), np.ones((1, shape[1])))
    result = minimize(
        objective,
        np.zeros(labels.size),
        jac=True,
        method="SLSQP",
        bounds=[(None, penalty * label) for label in labels.ravel()],
        constraints={"type": "eq", "fun": lambda flat: sums @ flat, "jac": lambda flat: sums},
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    # SLSQP stops where the objective no longer falls in float64: α by the square root of that, times 1 / eigenvalue
    np.testing.assert_allclose(found.numpy(), result.x.reshape(shape), rtol=0.0, atol=1e-6)
    assert objective(found.numpy().ravel())[0] <= result.fun + 1e-12


@given(
    seed=st.integers(0, 10**6),
    smallest=st.sampled_from([1e-2, 1e-3, 3e-4, 1e-4, 1e-5]),
    scale=st.sampled_from([0.03, 0.3, 1.0]),
)
def test_kernels_that_are_nearly_singular(seed: int, smallest: float, scale: float) -> None:
    """Features whose last direction hardly varies, as few tanh units have it: eigenvalues of K of about ρ.

    A proximal step then leaves ρ / (λ + ρ) of what is missing along them, and at ρ = 1e-6 of K never arrived.
    """
    rows, targets, mask, present = _tasks(seed, 20, 6, 3, 4, scale)
    rows = rows * torch.tensor([1.0, 0.3, 30.0 * smallest, smallest], dtype=D)
    alpha = _dual((rows, targets, mask, present), 0.1)
    weights = rows.mT @ alpha
    dual = (alpha * targets).sum((-1, -2)) - 0.5 * weights.square().sum((-1, -2))
    primal = _primal(rows, weights, targets, mask, present, 0.1)
    torch.testing.assert_close(primal, dual, rtol=1e-7, atol=1e-9)  # as in test_no_duality_gap


@given(
    seed=st.integers(0, 10**6),
    features=st.integers(1, 12),
    classes=st.integers(2, 5),
    scale=st.sampled_from([1e-3, 0.1, 1.0, 10.0, 100.0]),
    penalty=st.sampled_from([0.01, 0.1, 2.0]),
)
def test_no_duality_gap(seed: int, features: int, classes: int, scale: float, penalty: float) -> None:
    """Feasible, and the primal at w(α) is as small as the dual is large: α is optimal, whatever the rank of K."""
    scale = min(scale, 10.0 / penalty**0.5) if features < 8 else scale  # what more points than features allow
    rows, targets, mask, present = tasks = _tasks(seed, 5, 8, classes, features, scale)
    alpha = _dual(tasks, penalty)
    real = mask[..., None] & present[:, None]
    assert (alpha[~real] == 0.0).all()
    assert (alpha <= penalty * targets + 1e-8 * penalty).all()  # TOLERANCE, in units of the largest α
    assert (alpha.sum(-1).abs() <= 1e-8 * penalty).all()
    weights = rows.mT @ alpha
    dual = (alpha * targets).sum((-1, -2)) - 0.5 * weights.square().sum((-1, -2))
    primal = _primal(rows, weights, targets, mask, present, penalty)
    # rounding of scores up to |x|² penalty, times α
    torch.testing.assert_close(primal, dual, rtol=1e-7, atol=1e-8 * penalty)


@given(seed=st.integers(0, 10**6), features=st.sampled_from([3, 12]))
def test_a_ragged_batch_is_a_loop(seed: int, features: int) -> None:
    rows, targets, mask, present = tasks = _tasks(seed, 5, 7, 4, features)
    rows = rows + torch.where(mask[..., None], 0.0, 7.0)  # padding that is not zero
    queries = torch.randn(5, 3, features, dtype=D)
    scores = queries @ tasks[0].mT @ _dual((rows, *tasks[1:]), 0.1)
    for b in range(5):
        count, ways = int(mask[b].sum()), int(present[b].sum())
        one = (
            rows[b : b + 1, :count],
            targets[b : b + 1, :count, :ways],
            mask[b : b + 1, :count],
            present[b : b + 1, :ways],
        )
        expected = queries[b] @ one[0][0].mT @ _dual(one, 0.1)[0]
        torch.testing.assert_close(scores[b, :, :ways], expected, rtol=1e-9, atol=1e-9)  # another order of summation


@pytest.mark.parametrize(
    ("features", "repeat"), [(20, False), (3, False), (20, True)], ids=["plain", "wide", "repeated"]
)
@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_is_that_of_finite_differences(seed: int, features: int, repeat: bool) -> None:
    """Of scores, in the features of support and query and in the penalty; also where K is singular."""
    rows, targets, mask, present = _tasks(seed, 3, 7, 3, features, 0.7)
    if repeat:
        targets[:, 1] = targets[:, 0]
    queries = torch.randn(3, 4, features, dtype=D)
    weights = torch.randn(3, 4, 3, dtype=D)

    def loss(rows: Tensor, penalty: Tensor) -> Tensor:
        rows = torch.cat([rows[:, :1], rows[:, :1], rows[:, 2:]], 1) if repeat else rows
        alpha = svm_dual(rows @ rows.mT, targets, mask, present, penalty)
        return (weights * (queries @ rows.mT @ alpha)).sum()

    inputs = [rows.requires_grad_(), torch.tensor(0.02, dtype=D, requires_grad=True)]  # some α at their bound
    gradients = torch.autograd.grad(loss(*inputs), inputs)
    for index, gradient in enumerate(gradients):
        assert gradient.abs().max() > 1e-3
        direction, ends = torch.randn_like(gradient) * inputs[index].detach().abs().amax(), []
        for step in (1e-5, -1e-5):
            moved = [v.detach() + step * direction if i == index else v.detach() for i, v in enumerate(inputs)]
            ends.append(loss(*moved).item())
        # central differences: h² f''' ~ 1e-10, and over h the scores' rounding: 1e-10 where K is singular
        assert math.isclose((ends[0] - ends[1]) / 2e-5, (gradient * direction).sum().item(), rel_tol=1e-5, abs_tol=1e-5)
    assert (gradients[0][~mask] == 0.0).all()


def test_the_gradient_in_the_kernel_is_symmetric_and_without_a_path() -> None:
    rows, targets, mask, present = _tasks(1, features=20)
    kernel = (rows @ rows.mT).requires_grad_()
    alpha = svm_dual(kernel, targets, mask, present, torch.tensor(0.1, dtype=D))
    (gradient,) = torch.autograd.grad(alpha.square().sum(), kernel)
    torch.testing.assert_close(gradient, gradient.mT, rtol=0.0, atol=0.0)
    with torch.no_grad():
        same = svm_dual(kernel, targets, mask, present, torch.tensor(0.1, dtype=D))
    assert not same.requires_grad
    assert torch.equal(same, alpha)


def test_without_points_or_examples() -> None:
    rows, targets, mask, present = _tasks(0)
    penalty = torch.tensor(0.1, dtype=D)
    for few in (slice(0), slice(6)):
        nothing = svm_dual(
            (rows @ rows.mT)[:, few, few], 0.0 * targets[:, few], torch.zeros_like(mask[:, few]), present, penalty
        )
        assert nothing.shape == targets[:, few].shape
        assert (nothing == 0.0).all()
    assert svm_dual(torch.zeros(0, 6, 6, dtype=D), targets[:0], mask[:0], present[:0], penalty).shape == (0, 6, 3)
    # one class: nothing to tell apart. A class without an example scores below the others at the support.
    one = svm_dual(
        rows[:, :2] @ rows[:, :2].mT,
        torch.ones(4, 2, 1, dtype=D),
        mask[:, :2],
        torch.ones(4, 1, dtype=torch.bool),
        penalty,
    )
    assert one.abs().max() < 1e-12
    targets = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], dtype=D)[None]
    alpha = svm_dual(torch.eye(2, dtype=D)[None], targets, torch.ones(1, 2, dtype=torch.bool), present[:1], penalty)
    expected = 0.1 * torch.tensor([[1.0, -0.5, -0.5], [-0.5, 1.0, -0.5]], dtype=D)
    torch.testing.assert_close(alpha[0], expected, rtol=1e-9, atol=1e-12)  # by hand: all within the margin, by symmetry


@pytest.mark.parametrize("kind", ["zeros", "equal"])
def test_points_without_information(kind: str) -> None:
    rows, targets, mask, present = _tasks(0)
    rows = (torch.zeros_like(rows) if kind == "zeros" else torch.ones_like(rows)).requires_grad_()
    alpha = svm_dual(rows @ rows.mT, targets, mask, present, torch.tensor(0.1, dtype=D))
    (gradient,) = torch.autograd.grad((rows @ rows.mT @ alpha).sum(), rows)
    assert torch.isfinite(alpha).all()
    assert torch.isfinite(gradient).all()


def test_a_task_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, targets, mask, present = _tasks(0, scale=3.0)
    kernel = rows @ rows.mT
    kernel[1, 0, 1] = kernel[1, 1, 0] = math.nan
    penalty = torch.tensor(0.1, dtype=D)
    with pytest.raises(bm.InferenceError, match=r"conditions are met, got task 1, .*not finite") as caught:
        svm_dual(kernel, targets, torch.ones_like(mask), present, penalty)
    assert caught.value.task == 1
    monkeypatch.setattr(svm, "STEPS", (1, 1))
    with pytest.raises(bm.InferenceError, match=r"got task \d, .* \|x\|² is \d"):
        svm_dual(rows @ rows.mT, targets, mask, present, penalty)
