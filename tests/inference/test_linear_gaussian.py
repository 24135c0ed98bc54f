"""Exact linear-Gaussian inference against brute-force normal equations over vec(Z), and against itself."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from bayesmeta.inference import linear_gaussian as lg
from bayesmeta.linalg import cholesky

# float64, whitened features of size 1: the condition of I + ΦΦᵀ stays below 1e3
CLOSE = {"rtol": 1e-8, "atol": 1e-8}
D = torch.float64

problems = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 10**6),
        "points": st.integers(0, 7),
        "features": st.integers(1, 6),
        "outputs": st.integers(1, 3),
        "kind": st.sampled_from(["random", "duplicated points", "singular design", "ragged"]),
    }
)


def _make(seed: int, points: int, features: int, outputs: int, kind: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """rows B N R, residual B N C, mask B N, columns C C, for three tasks."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(3, points, features, generator=generator, dtype=D)
    residual = torch.randn(3, points, outputs, generator=generator, dtype=D)
    mask = torch.ones(3, points, dtype=torch.bool)
    if kind == "duplicated points":
        rows = rows[:, :1].expand(-1, points, -1).clone()
    if kind == "singular design":
        rows[..., -1] = rows[..., 0]
    if kind == "ragged":
        mask = torch.arange(points) < torch.tensor([[0], [max(points - 2, 0)], [points]])
        rows, residual = (torch.where(mask[..., None], value, 77.0) for value in (rows, residual))
    factor = torch.randn(outputs, outputs, generator=generator, dtype=D)
    return rows, residual, mask, factor @ factor.mT + 0.3 * torch.eye(outputs, dtype=D)


def _brute_force(rows: Tensor, residual: Tensor, columns: Tensor) -> tuple[Tensor, Tensor, float]:
    """One task: posterior mean (R, C) and covariance of vec(Z) (features, then outputs), and log p(residual)."""
    size_r, size_c = rows.shape[1], len(columns)
    prior = torch.kron(torch.eye(size_r, dtype=D), columns)
    design = torch.kron(rows, torch.eye(size_c, dtype=D))
    noise = torch.kron(torch.eye(len(rows), dtype=D), columns)
    precision = torch.linalg.inv(prior) + design.mT @ torch.linalg.inv(noise) @ design
    covariance = torch.linalg.inv(precision)
    mean = covariance @ design.mT @ torch.linalg.inv(noise) @ residual.flatten()
    evidence = 0.0
    if len(rows):
        total = design @ prior @ design.mT + noise
        evidence = stats.multivariate_normal(np.zeros(len(total)), total.numpy()).logpdf(residual.flatten().numpy())
    return mean.reshape(size_r, size_c), covariance, float(evidence)


@given(problem=problems)
def test_against_brute_force(problem: dict) -> None:
    rows, residual, mask, columns = _make(**problem)
    query = torch.randn(3, 4, rows.shape[-1], dtype=D)
    for condition in (lg.condition_point_space, lg.condition_feature_space, lg.condition):
        belief = condition(rows, residual, mask)
        mean, root = belief.moments()
        predicted, variance = belief.predict(query)
        joint = belief.covariance(query)
        for b in range(3):
            real = mask[b]
            expected_mean, expected_covariance, _ = _brute_force(rows[b][real], residual[b][real], columns)
            torch.testing.assert_close(mean[b], expected_mean, **CLOSE)
            covariance = torch.kron(root[b] @ root[b].mT, columns)
            torch.testing.assert_close(covariance, expected_covariance, **CLOSE)
            torch.testing.assert_close(predicted[b], query[b] @ expected_mean, **CLOSE)
            spread = query[b] @ root[b] @ root[b].mT @ query[b].mT
            torch.testing.assert_close(joint[b], spread, **CLOSE)
            torch.testing.assert_close(variance[b], spread.diagonal(), **CLOSE)


@given(problem=problems)
def test_evidence_against_brute_force_and_as_a_chain(problem: dict) -> None:
    rows, residual, mask, columns = _make(**problem)
    found = lg.log_evidence(rows, residual, mask, columns)
    each = lg.prefix_log_probs(rows, residual, mask, columns)
    torch.testing.assert_close(each.sum(-1), found, **CLOSE)
    assert (each[~mask] == 0.0).all()
    factor = cholesky(columns)
    for b in range(3):
        real = mask[b]
        expected = _brute_force(rows[b][real], residual[b][real], columns)[2]
        assert math.isclose(found[b].item(), expected, rel_tol=1e-8, abs_tol=1e-8)
    for n in range(rows.shape[1]):  # each term is the one-step-ahead predictive density
        belief = lg.condition(rows[:, :n], residual[:, :n], mask[:, :n])
        mean, variance = belief.predict(rows[:, n : n + 1])
        for b in range(3):
            if mask[b, n]:
                scale = (1.0 + variance[b, 0]).sqrt() * factor
                step = torch.distributions.MultivariateNormal(mean[b, 0], scale_tril=scale).log_prob(residual[b, n])
                assert math.isclose(each[b, n].item(), step.item(), rel_tol=1e-8, abs_tol=1e-8)


@given(problem=problems)
def test_dual_and_primal_have_the_same_gradients(problem: dict) -> None:
    rows, residual, mask, columns = _make(**problem)
    query = torch.randn(3, 4, rows.shape[-1], dtype=D)

    def gradients(space: int) -> list[Tensor]:
        r, y, c = (value.clone().requires_grad_() for value in (rows, residual, columns))
        if space == 0:
            evidence = lg.prefix_log_probs(r, y, mask, c).sum()  # N x N
            belief = lg.condition_point_space(r, y, mask)
        else:
            # more rows than features, all but the first padding: R x R
            extra = r.shape[-1] + 1
            wide_r, wide_y = (torch.cat([v, v.new_full((3, extra, v.shape[-1]), 7.0)], 1) for v in (r, y))
            wide_mask = torch.cat([mask, torch.zeros(3, extra, dtype=torch.bool)], 1)
            evidence = lg.log_evidence(wide_r, wide_y, wide_mask, c).sum()
            belief = lg.condition_feature_space(r, y, mask)
        mean, variance = belief.predict(query)
        # the joint covariance is quadratic in the whole belief
        total = evidence + mean.square().sum() + variance.sum() + belief.covariance(query).square().sum()
        return [total.detach(), *torch.autograd.grad(total, (r, y, c))]

    for a, b in zip(gradients(0), gradients(1), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7)  # a derivative amplifies rounding by the condition
        assert torch.isfinite(a).all()


@given(problem=problems, cut=st.integers(0, 7))
def test_update_is_conditioning_on_all(problem: dict, cut: int) -> None:
    rows, residual, mask, _ = _make(**problem)
    query = torch.randn(3, 4, rows.shape[-1], dtype=D)
    expected = lg.condition_feature_space(rows, residual, mask)
    for condition in (lg.condition_point_space, lg.condition_feature_space):
        belief: lg.LinearGaussian = condition(rows[:, :cut], residual[:, :cut], mask[:, :cut])
        belief = belief.update(rows[:, cut:], residual[:, cut:], mask[:, cut:])
        for a, b in zip(belief.predict(query), expected.predict(query), strict=True):
            torch.testing.assert_close(a, b, **CLOSE)
        torch.testing.assert_close(belief.covariance(query), expected.covariance(query), **CLOSE)


@given(problem=problems)
def test_more_points_never_raise_the_variance(problem: dict) -> None:
    rows, residual, mask, _ = _make(**problem)
    query = torch.randn(3, 6, rows.shape[-1], dtype=D)
    before = lg.condition(rows[:, :0], residual[:, :0], mask[:, :0]).predict(query)[1]
    torch.testing.assert_close(before, query.square().sum(-1), **CLOSE)  # the prior
    for n in range(1, rows.shape[1] + 1):
        after = lg.condition(rows[:, :n], residual[:, :n], mask[:, :n]).predict(query)[1]
        assert (after <= before + 1e-12 * (1.0 + before)).all()  # rounding
        before = after


@given(problem=problems)
def test_information_is_the_explicit_sum(problem: dict) -> None:
    rows, outcome, mask, _ = _make(**problem)
    design = torch.randn(3, rows.shape[1], 2, dtype=D)
    precision, moment = lg.information(rows, design, outcome, mask)
    expected = [torch.zeros(2, 2, dtype=D), torch.zeros(2, outcome.shape[-1], dtype=D)]
    for b in range(3):
        x, phi, y = design[b][mask[b]], rows[b][mask[b]], outcome[b][mask[b]]
        inverse = torch.linalg.inv(torch.eye(len(x), dtype=D) + phi @ phi.mT)
        expected[0] += x.mT @ inverse @ x
        expected[1] += x.mT @ inverse @ y
    torch.testing.assert_close(precision, expected[0], **CLOSE)
    torch.testing.assert_close(moment, expected[1], **CLOSE)


def test_one_point_by_hand() -> None:
    """R = 1, C = 1: precision 1 + φ², mean φ y / (1 + φ²)."""
    phi, y = 2.0, 3.0
    rows, residual = torch.tensor([[[phi]]], dtype=D), torch.tensor([[[y]]], dtype=D)
    mask, columns = torch.ones(1, 1, dtype=torch.bool), torch.tensor([[0.5]], dtype=D)
    for condition in (lg.condition_point_space, lg.condition_feature_space):
        mean, root = condition(rows, residual, mask).moments()
        assert math.isclose(mean.item(), phi * y / (1 + phi**2), rel_tol=1e-14)
        assert math.isclose(root.item() ** 2, 1 / (1 + phi**2), rel_tol=1e-14)
    expected = stats.norm(0.0, math.sqrt(0.5 * (1 + phi**2))).logpdf(y)
    assert math.isclose(lg.log_evidence(rows, residual, mask, columns).item(), expected, rel_tol=1e-14)


def test_no_varying_features_at_all() -> None:
    """R = 0: every weight is a fixed effect, and the belief says nothing."""
    rows, residual = torch.zeros(2, 3, 0, dtype=D), torch.randn(2, 3, 1, dtype=D)
    mask, columns = torch.ones(2, 3, dtype=torch.bool), torch.eye(1, dtype=D)
    belief = lg.condition(rows, residual, mask).update(rows, residual, mask)
    mean, variance = belief.predict(rows)
    assert not mean.any()
    assert not variance.any()
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(residual).sum((-1, -2))
    torch.testing.assert_close(lg.log_evidence(rows, residual, mask, columns), expected, **CLOSE)


def test_a_condition_is_the_smaller_space() -> None:
    mask = torch.ones(1, 4, dtype=torch.bool)
    few = lg.condition(torch.randn(1, 4, 5, dtype=D), torch.randn(1, 4, 1, dtype=D), mask)
    many = lg.condition(torch.randn(1, 4, 4, dtype=D), torch.randn(1, 4, 1, dtype=D), mask)
    assert isinstance(few, lg.PointSpace)
    assert isinstance(many, lg.FeatureSpace)


@pytest.mark.parametrize("collinear", [False, True])
@pytest.mark.parametrize("points", [50, 200])
def test_float32_features_at_a_noise_variance_of_1e_4(collinear: bool, points: int) -> None:
    """F = 64, N = 50 and 200: the error of the mean in predictive deviations, and of the variance.

    Gram matrices in float32 err by 2 % to 500 % of a deviation here; in float64 on float32 features they do not.
    """
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(8, points + 20, 64, generator=generator)
    if collinear:
        features[..., 32:] = features[..., :32] + 1e-3 * features[..., 32:]
    weights = torch.randn(8, 64, 1, generator=generator, dtype=D) / 8.0
    y = (features.double() @ weights + 1e-2 * torch.randn(8, points + 20, 1, generator=generator, dtype=D)).float()
    rows = features.double() / 8.0 / 1e-2  # V = I / 64, in units of the noise deviation 0.01
    residual, mask = y.double() / 1e-2, torch.ones(8, points + 20, dtype=torch.bool)
    seen, rest = slice(0, points), slice(points, None)
    belief = lg.condition(rows[:, seen], residual[:, seen], mask[:, seen])
    mean, variance = belief.predict(rows[:, rest])
    # the truth: QR of the stacked least-squares problem [Φ; I], which never squares the condition
    stacked = torch.cat([rows[:, seen], torch.eye(64, dtype=D).expand(8, -1, -1)], 1)
    target = torch.cat([residual[:, seen], torch.zeros(8, 64, 1, dtype=D)], 1)
    q, r = torch.linalg.qr(stacked)
    exact_mean = rows[:, rest] @ torch.linalg.solve_triangular(r, q.mT @ target, upper=True)
    exact_variance = torch.linalg.solve_triangular(r.mT, rows[:, rest].mT, upper=False).square().sum(-2)
    deviation = (1.0 + exact_variance).sqrt()
    # measured before we began: 6e-6 of a deviation and 5e-7 of the variance. Here both sides have the same float32
    # features, so what is left is float64 rounding times a condition of 1e8
    assert ((mean - exact_mean)[..., 0].abs() / deviation).max() < 1e-6
    assert ((variance - exact_variance).abs() / (1.0 + exact_variance)).max() < 1e-6


def test_a_stream_of_5000_points_stays_with_the_refit() -> None:
    """The mean of a long stream at noise variance 1e-4, in predictive deviations."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(1, 5000, 6, generator=generator, dtype=D) * 100.0
    weights = torch.randn(1, 6, 1, generator=generator, dtype=D)
    residual = rows @ weights + torch.randn(1, 5000, 1, generator=generator, dtype=D)
    mask = torch.ones(1, 5000, dtype=torch.bool)
    belief: lg.LinearGaussian = lg.condition(rows[:, :0], residual[:, :0], mask[:, :0])
    for n in range(5000):
        belief = belief.update(rows[:, n : n + 1], residual[:, n : n + 1], mask[:, n : n + 1])
    refit = lg.condition(rows, residual, mask)
    query = rows[:, :50]
    for a, b in zip(belief.predict(query), refit.predict(query), strict=True):
        # 5,000 steps of float64 rounding, amplified by rows of size 100
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7)
