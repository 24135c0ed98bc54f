"""Exact Gaussian process inference from kernel matrices: against brute force, the library's linear form and itself."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

import bayesmeta as bm
from bayesmeta.errors import InferenceError
from bayesmeta.inference import gaussian_process as gp
from bayesmeta.inference import linear_gaussian as lg
from bayesmeta.linalg import cholesky_with_jitter

# float64, kernel matrices of size 1 to 10: the condition of K + I stays below 1e3
CLOSE = {"rtol": 1e-8, "atol": 1e-8}
D = torch.float64

problems = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 10**6),
        "points": st.integers(0, 7),
        "outputs": st.integers(1, 3),
        "kind": st.sampled_from(["random", "duplicated points", "low rank", "ragged"]),
    }
)
QUERIES = 4


class Problem:
    """Kernel matrices of support and queries together, residuals, a mask and Σ, for three tasks."""

    def __init__(self, seed: int, points: int, outputs: int, kind: str) -> None:
        generator = torch.Generator().manual_seed(seed)
        rank = 2 if kind == "low rank" else points + QUERIES + 1
        rows = torch.randn(3, points + QUERIES, rank, generator=generator, dtype=D)
        if kind == "duplicated points":
            rows[:, :points] = rows[:, :1]
        kernel = rows @ rows.mT
        self.residual = torch.randn(3, points, outputs, generator=generator, dtype=D)
        self.mask = torch.ones(3, points, dtype=torch.bool)
        if kind == "ragged":
            self.mask = torch.arange(points) < torch.tensor([[0], [max(points - 2, 0)], [points]])
            self.residual = torch.where(self.mask[..., None], self.residual, 77.0)
            everything = torch.cat([self.mask, torch.ones(3, QUERIES, dtype=torch.bool)], 1)
            kernel = torch.where(everything[..., None] & everything[:, None], kernel, -99.0)  # not even a kernel
        factor = torch.randn(outputs, outputs, generator=generator, dtype=D)
        self.columns = factor @ factor.mT + 0.3 * torch.eye(outputs, dtype=D)
        self.rows, self.points = rows[:, :points], points
        self.support, self.cross = kernel[:, :points, :points], kernel[:, :points, points:]
        self.queries = kernel[:, points:, points:]
        self.prior = self.queries.diagonal(dim1=-2, dim2=-1)

    def condition(self, points: int | None = None) -> gp.GaussianProcess:
        return gp.condition(self.support[:, :points, :points], self.residual[:, :points], self.mask[:, :points])

    def brute_force(self, b: int) -> tuple[Tensor, Tensor, float]:
        """One task: mean and covariance of vec(F*) (points, then outputs), and log p(R), by Kronecker products."""
        real = self.mask[b]
        eye = torch.eye(int(real.sum()), dtype=D)
        total = torch.kron(self.support[b][real][:, real] + eye, self.columns)
        cross = torch.kron(self.cross[b][real], self.columns)
        inverse, y = torch.linalg.inv(total), self.residual[b][real].flatten()
        covariance = torch.kron(self.queries[b], self.columns) - cross.mT @ inverse @ cross
        evidence = stats.multivariate_normal(np.zeros(len(y)), total.numpy()).logpdf(y.numpy()) if len(y) else 0.0
        return (cross.mT @ inverse @ y).reshape(QUERIES, -1), covariance, float(evidence)


@given(problem=problems)
def test_against_brute_force(problem: dict) -> None:
    made = Problem(**problem)
    belief = made.condition()
    mean, variance = belief.predict(made.cross, made.prior)
    joint = belief.covariance(made.cross, made.queries)
    evidence = gp.log_evidence(made.support, made.residual, made.mask, made.columns)
    for b in range(3):
        expected_mean, expected_covariance, expected = made.brute_force(b)
        torch.testing.assert_close(mean[b], expected_mean, **CLOSE)
        torch.testing.assert_close(torch.kron(joint[b], made.columns), expected_covariance, **CLOSE)
        torch.testing.assert_close(variance[b], joint[b].diagonal(), **CLOSE)
        assert math.isclose(evidence[b].item(), expected, rel_tol=1e-8, abs_tol=1e-8)


@given(problem=problems)
def test_a_linear_kernel_is_the_linear_form(problem: dict) -> None:
    made = Problem(**problem)
    found = gp.prefix_log_probs(made.support, made.residual, made.mask, made.columns)
    expected = lg.prefix_log_probs(made.rows, made.residual, made.mask, made.columns)
    torch.testing.assert_close(found, expected, **CLOSE)
    assert (found[~made.mask] == 0.0).all()


@given(problem=problems)
def test_each_prefix_is_the_density_one_step_ahead(problem: dict) -> None:
    made = Problem(**problem)
    each = gp.prefix_log_probs(made.support, made.residual, made.mask, made.columns)
    factor = torch.linalg.cholesky(made.columns)
    for n in range(made.points):
        belief = made.condition(n)
        mean, variance = belief.predict(made.support[:, :n, n : n + 1], made.support[:, n, n : n + 1])
        for b in range(3):
            if made.mask[b, n]:
                scale = (1.0 + variance[b, 0]).sqrt() * factor
                step = torch.distributions.MultivariateNormal(mean[b, 0], scale_tril=scale).log_prob(
                    made.residual[b, n]
                )
                assert math.isclose(each[b, n].item(), step.item(), rel_tol=1e-8, abs_tol=1e-8)


@given(problem=problems, cut=st.integers(0, 7))
def test_appending_is_conditioning_on_all(problem: dict, cut: int) -> None:
    made = Problem(**problem)
    expected, belief = made.condition(), made.condition(cut)
    belief = belief.append(
        made.support[:, :cut, cut:], made.support[:, cut:, cut:], made.residual[:, cut:], made.mask[:, cut:]
    )
    torch.testing.assert_close(belief.factor, expected.factor, **CLOSE)
    torch.testing.assert_close(belief.white, expected.white, **CLOSE)
    for a, b in zip(belief.predict(made.cross, made.prior), expected.predict(made.cross, made.prior), strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


@given(problem=problems)
def test_padding_has_no_gradient(problem: dict) -> None:
    made = Problem(**problem)
    kernel, residual = made.support.clone().requires_grad_(), made.residual.clone().requires_grad_()
    evidence = gp.log_evidence(kernel, residual, made.mask, made.columns).sum()
    by_kernel, by_residual = torch.autograd.grad(evidence, (kernel, residual))
    both = made.mask[..., None] & made.mask[:, None]
    assert torch.isfinite(by_kernel).all()
    assert (by_kernel[~both] == 0.0).all()
    assert (by_residual[~made.mask] == 0.0).all()
    assert not made.mask.any() or bool((by_residual[made.mask] != 0.0).all())


def test_the_oracle_of_gaussian_process_tasks() -> None:
    """The same posterior and evidence as `GaussianProcessOracle`, which knows the kernel and no matrices."""
    tasks = bm.tasks.GPFunctions.matern()
    batch = tasks.dataset(5, 12, seed=0).divided(bm.tasks.RandomSplit((2, 6), 6), seed=0)
    support, query, oracle = batch.support.to(D), batch.query.to(D), tasks.oracle
    noise = tasks.noise**2
    kernel = lambda a, b: tasks.kernel(a, b) / noise
    belief = gp.condition(kernel(support.x, support.x), support.y, support.mask)
    cross, queries = kernel(support.x, query.x), kernel(query.x, query.x)
    expected = oracle.adapt(support).predict(query.x)
    mean, variance = belief.predict(cross, queries.diagonal(dim1=-2, dim2=-1))
    torch.testing.assert_close(mean, expected.mean, **CLOSE)
    torch.testing.assert_close(variance, expected.latent_variance, **CLOSE)
    torch.testing.assert_close(belief.covariance(cross, queries), expected.latent_covariance(), **CLOSE)
    columns = torch.tensor([[noise]], dtype=D)
    evidence = gp.log_evidence(kernel(support.x, support.x), support.y, support.mask, columns)
    torch.testing.assert_close(evidence, oracle.log_evidence(support), **CLOSE)


def test_one_point_by_hand() -> None:
    """S = k + 1, mean k* r / (k + 1), variance k** - k*² / (k + 1)."""
    k, cross, prior, r, noise = 3.0, 1.5, 2.0, 0.7, 0.25
    as_matrix = lambda value: torch.full((1, 1, 1), value, dtype=D)
    mask, columns = torch.ones(1, 1, dtype=torch.bool), torch.tensor([[noise]], dtype=D)
    mean, variance = gp.condition(as_matrix(k), as_matrix(r), mask).predict(as_matrix(cross), as_matrix(prior)[0])
    assert math.isclose(mean.item(), cross * r / (k + 1), rel_tol=1e-14)
    assert math.isclose(variance.item(), prior - cross**2 / (k + 1), rel_tol=1e-14)
    expected = stats.norm(0.0, math.sqrt(noise * (k + 1))).logpdf(r)
    assert math.isclose(gp.log_evidence(as_matrix(k), as_matrix(r), mask, columns).item(), expected, rel_tol=1e-14)


def test_a_matrix_that_is_no_kernel() -> None:
    mask, residual = torch.ones(2, 2, dtype=torch.bool), torch.zeros(2, 2, 1, dtype=D)
    indefinite = torch.tensor([[1.0, 5.0], [5.0, 1.0]], dtype=D).expand(2, -1, -1)
    with pytest.raises(InferenceError, match=r"not positive semi-definite.*raise the lower bound of the noise"):
        gp.condition(indefinite, residual, mask)
    with pytest.raises(InferenceError, match=r"not positive semi-definite"):
        gp.condition(indefinite[:, :1, :1], residual[:, :1], mask[:, :1]).append(
            indefinite[:, :1, 1:], indefinite[:, 1:, 1:], residual[:, 1:], mask[:, 1:]
        )
    broken = torch.eye(2, dtype=D).repeat(2, 1, 1)
    broken[1, 0, 0] = torch.nan
    with pytest.raises(InferenceError, match=r"kernel of task 1 has values that are not finite.*lower lr"):
        gp.condition(broken, residual, mask)
    gp.condition(broken, residual, torch.tensor([[True, True], [False, True]]))  # NaN in padding is no harm


def test_a_kernel_that_drowns_the_noise_predicts_with_jitter_and_has_no_evidence() -> None:
    """A constant of variance 1e17, in units of the noise: float64 does not see the noise, and the mean is that of r."""
    kernel, mask = torch.full((2, 3, 3), 1e17, dtype=D), torch.ones(2, 3, dtype=torch.bool)
    kernel[1] = 2.0
    residual = torch.tensor([1.0, 2.0, 6.0], dtype=D)[None, :, None].expand(2, -1, -1)
    with pytest.warns(bm.PrecisionWarning, match=r"kernel matrix plus noise, got some .* added to 1;"):
        belief = gp.condition(kernel, residual, mask, cholesky_with_jitter)
    mean, variance = belief.predict(kernel[..., :1], kernel[:, :1, 0])
    torch.testing.assert_close(mean[0], torch.full((1, 1), 3.0, dtype=D), rtol=1e-3, atol=0.0)
    assert bool((variance[0] < 1e-10 * 1e17).all())
    alone = gp.condition(kernel[1:], residual[1:], mask[1:])
    assert torch.equal(belief.factor[1:], alone.factor)
    with pytest.raises(InferenceError, match=r"in task 0, size 3, eigenvalues from .*its variance is above 1e15"):
        gp.log_evidence(kernel, residual, mask, torch.eye(1, dtype=D))
