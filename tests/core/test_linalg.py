"""Gram matrices and the square-root update against explicit inverses."""

import re
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bayesmeta import linalg
from bayesmeta.errors import InferenceError, PrecisionWarning
from bayesmeta.linalg import (
    cholesky,
    cholesky_with_jitter,
    conjugate_gradient,
    counting_jitter,
    logdet,
    lower_root,
    lower_whitening,
    semidefinite_root,
    solve_lower,
    spanning_basis,
    squared_norms,
    unit_gram,
    update_root,
)

CLOSE = {"rtol": 1e-10, "atol": 1e-10}  # float64, well-conditioned: rounding only


def test_unit_gram_and_norms_against_loops() -> None:
    rows = torch.randn(3, 5, 4, dtype=torch.float64)
    gram = torch.stack([torch.eye(5, dtype=torch.float64) + r @ r.mT for r in rows])
    torch.testing.assert_close(unit_gram(rows), gram, **CLOSE)
    torch.testing.assert_close(squared_norms(rows), rows.square().sum(-1), **CLOSE)


def test_rows_of_zeros_are_rows_of_the_identity() -> None:
    rows = torch.randn(2, 5, 4, dtype=torch.float64)
    rows[:, 3:] = 0.0
    factor, cropped = cholesky(unit_gram(rows)), cholesky(unit_gram(rows[:, :3]))
    torch.testing.assert_close(factor[:, :3, :3], cropped, **CLOSE)
    assert torch.equal(factor[:, 3:, 3:], torch.eye(2, dtype=torch.float64).expand(2, -1, -1))
    torch.testing.assert_close(logdet(factor), logdet(cropped), **CLOSE)


def test_empty_matrices() -> None:
    for shape in ((2, 0, 4), (2, 3, 0), (0, 3, 4)):
        gram = unit_gram(torch.zeros(shape))
        assert logdet(cholesky(gram)).tolist() == [0.0] * shape[0]
        assert solve_lower(cholesky(gram), torch.zeros(*shape[:2], 1)).shape == (*shape[:2], 1)


def test_a_matrix_that_is_not_positive_definite_is_named() -> None:
    matrices = torch.eye(3).repeat(2, 4, 1, 1)
    matrices[1, 2, 1, 1] = -1.0
    with pytest.raises(InferenceError, match=r"positive definite thing.* in task 1, size 3") as caught:
        cholesky(matrices, "thing")
    assert caught.value.task == 1
    with pytest.raises(InferenceError, match="positive definite matrix, got one that is not, size 2") as caught:
        cholesky(torch.full((2, 2), torch.nan))
    assert caught.value.task is None
    with pytest.raises(InferenceError, match="in task 1, size 1"):
        cholesky(torch.tensor([[[1.0]], [[torch.inf]]]))


@given(seed=st.integers(0, 10**6), size=st.integers(1, 6), points=st.integers(0, 9), rank=st.integers(0, 6))
def test_update_root_equals_the_inverse(seed: int, size: int, points: int, rank: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(2, size, rank, generator=generator, dtype=torch.float64)
    rows = torch.randn(2, points, size, generator=generator, dtype=torch.float64)
    new, gain = update_root(root, rows)
    prior = root @ root.mT
    innovation = torch.eye(points, dtype=torch.float64) + rows @ prior @ rows.mT
    expected_gain = prior @ rows.mT @ torch.linalg.inv(innovation)
    torch.testing.assert_close(gain, expected_gain, rtol=1e-8, atol=1e-8)  # the explicit inverse is the worse one
    torch.testing.assert_close(new @ new.mT, prior - expected_gain @ rows @ prior, rtol=1e-8, atol=1e-8)


def test_a_long_stream_stays_positive_and_equals_the_refit() -> None:
    """5,000 points one at a time, noise variance 1e-4: rows are in units of the noise deviation 0.01."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(1, 5000, 8, generator=generator, dtype=torch.float64) * 100.0
    root = torch.eye(8, dtype=torch.float64)[None]
    for row in rows.split(1, 1):
        root, _ = update_root(root, row)
    precision = torch.eye(8, dtype=torch.float64) + rows[0].mT @ rows[0]
    covariance = (root @ root.mT)[0]
    assert torch.linalg.eigvalsh(covariance).min() > 0.0
    # 5,000 updates of relative rounding 1e-16, and the condition of the first ones (1e4 in one direction)
    torch.testing.assert_close(covariance @ precision, torch.eye(8, dtype=torch.float64), rtol=0.0, atol=1e-9)


def test_a_long_stream_in_single_precision_does_not_lose_positivity() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(1, 2000, 4, generator=generator) * 100.0
    root = torch.eye(4)[None]
    for row in rows.split(1, 1):
        root, _ = update_root(root, row)
    exact = torch.linalg.inv(torch.eye(4, dtype=torch.float64) + rows[0].double().mT @ rows[0].double())
    covariance = (root @ root.mT)[0]
    # 2,000 updates, each with float32 rounding of 1e-7 relative, some of it systematic
    torch.testing.assert_close(covariance.double(), exact, rtol=1e-2, atol=float(1e-2 * exact.diagonal().max()))
    assert torch.linalg.eigvalsh(covariance.double()).min() > 0.0


def test_conjugate_gradients_on_a_singular_matrix() -> None:
    """Directions that the matrix does not see have a curvature of rounding: they must not be divided by it."""
    diagonal = torch.tensor([[1.0, 0.0, 2.0]], dtype=torch.float64)
    found = conjugate_gradient(lambda v: diagonal * v, torch.ones(1, 3, dtype=torch.float64), 50, 1e-10)
    assert torch.isfinite(found).all()
    consistent = torch.tensor([[3.0, 0.0, 4.0]], dtype=torch.float64)
    found = conjugate_gradient(lambda v: diagonal * v, consistent, 50, 1e-10)
    torch.testing.assert_close(found, torch.tensor([[3.0, 0.0, 2.0]], dtype=torch.float64), rtol=1e-9, atol=1e-9)


def test_roots_of_singular_matrices() -> None:
    root = torch.randn(4, 2, dtype=torch.float64)
    matrix = root @ root.mT
    for factor in (semidefinite_root(matrix), lower_root(root), lower_root(torch.cat([root, root], 1) / 2.0**0.5)):
        assert torch.equal(factor, factor.tril())
        torch.testing.assert_close(factor @ factor.mT, matrix, rtol=1e-7, atol=1e-7)
    assert (lower_root(root).diagonal() == 0.0).sum() == 2  # exactly, where there is nothing but rounding
    assert torch.equal(semidefinite_root(torch.zeros(2, 2)), torch.zeros(2, 2))
    regular = matrix + torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(semidefinite_root(regular), torch.linalg.cholesky(regular))
    for bad in (-regular, regular * torch.nan):
        with pytest.raises(InferenceError, match="positive definite such a one"):
            semidefinite_root(bad, "such a one")


def test_bases_of_designs() -> None:
    x = torch.linspace(0.0, 1.0, 20, dtype=torch.float64)
    ones = torch.ones_like(x)
    design = torch.stack([ones, 1e6 + x, 1e-200 * x, 3.0 * ones - x, torch.zeros_like(x)], 1)
    basis = spanning_basis(design)
    assert basis.shape == (5, 2)  # the constant and x: all else are sums of these
    white = design @ basis
    torch.testing.assert_close(white.mT @ white / 20.0, torch.eye(2, dtype=torch.float64), rtol=1e-8, atol=1e-8)
    for column in design.mT:  # each is in their span
        solution = torch.linalg.lstsq(white, column[:, None]).solution
        torch.testing.assert_close(white @ solution, column[:, None], rtol=1e-8, atol=1e-8)
    assert lower_whitening(design).isfinite().all()
    assert spanning_basis(design[:0]).isfinite().all()


def _nearly_singular(points: int = 12) -> torch.Tensor:
    """A squared exponential kernel so wide that its eigenvalues fall below rounding, and one that is not."""
    x = torch.linspace(0.0, 1.0, points, dtype=torch.float64)[:, None]
    return torch.stack([(-0.5 * (torch.cdist(x, x) / scale).square()).exp() for scale in (10.0, 0.01)])


def test_jitter_goes_to_the_matrices_that_need_it() -> None:
    kernels = _nearly_singular()
    with pytest.raises(InferenceError, match=r"kernel, got one that is not in task 0, size 12, eigenvalues from"):
        cholesky(kernels, "kernel")
    kernels.requires_grad_()
    with pytest.warns(PrecisionWarning, match=r"kernel, got some .* added to 1;"):
        factor = cholesky_with_jitter(kernels, "kernel")
    assert torch.equal(factor[1], torch.linalg.cholesky(kernels[1]))  # bit for bit
    torch.testing.assert_close(factor @ factor.mT, kernels, rtol=0.0, atol=1e-11)
    (slope,) = torch.autograd.grad(logdet(factor).sum(), kernels)
    assert bool(slope.isfinite().all())
    torch.testing.assert_close(slope[1], torch.linalg.inv(kernels[1]))


def test_matrices_with_factors_are_left_alone() -> None:
    rows = torch.randn(3, 4, 6, dtype=torch.float64)
    assert torch.equal(cholesky_with_jitter(unit_gram(rows)), cholesky(unit_gram(rows)))
    assert cholesky_with_jitter(torch.zeros(2, 0, 0)).shape == (2, 0, 0)


def test_an_indefinite_matrix_stays_an_error() -> None:
    matrices = torch.eye(3, dtype=torch.float64).repeat(3, 1, 1)
    matrices[2, 1, 1] = -1e-3
    message = (
        r"definite thing, got one that is not in task 2, size 3, eigenvalues from -1.0e-03 to 1.0e\+00, "
        r"condition number 1e\+03, also with 1.5e-08 of its diagonal added"
    )
    with pytest.raises(InferenceError, match=message) as caught:
        cholesky_with_jitter(matrices, "thing")
    assert caught.value.task == 2
    matrices[1, 0, 2] = matrices[1, 2, 0] = torch.nan
    with pytest.raises(InferenceError, match=r"in task 1, size 3, 2 of its values not finite. Likely"):
        cholesky_with_jitter(matrices, "thing")


def test_jitter_is_counted_over_a_block() -> None:
    kernels = _nearly_singular()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with counting_jitter():
            for _ in range(5):
                cholesky_with_jitter(kernels, "kernel")
    assert len(caught) == 1
    assert re.search(r"added to 5;", str(caught[0].message))


def test_the_first_columns_that_are_no_sums_of_others_are_kept() -> None:
    x = torch.linspace(-1.0, 2.0, 7, dtype=torch.float64)
    first = (x > 0.0).double()
    design = torch.stack([torch.ones_like(x), first, 1.0 - first, 1e6 * x, x], -1)  # levels beside the constant; units
    assert linalg.independent_columns(design, 3) == [0, 1, 3]
    basis = linalg.spanning_basis(design)
    assert basis.shape[1] == 3
    kept = design[:, [0, 1, 3]]
    # the volume by which both sets of coordinates of one space differ, by their Gram matrices
    ratio = 0.5 * (torch.logdet((design @ basis).mT @ (design @ basis)) - torch.logdet(kept.mT @ kept))
    torch.testing.assert_close(linalg.log_volume(design, basis), ratio)
    with pytest.raises(InferenceError, match="determine the prior mean, got 4 or 3 of 5"):
        linalg.independent_columns(design, 4)
