import itertools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import beta
from scipy.stats import t as student_t
from torch.distributions import (
    Bernoulli,
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    StudentT,
)

from bayesmeta.errors import DataError, ShapeError, UnsupportedError
from bayesmeta.evaluation import metrics
from bayesmeta.predictives import (
    AffinePredictive,
    GaussianPredictive,
    IndependentPredictive,
    MixturePredictive,
    Predictive,
)

B, M, C, S = 3, 4, 2, 5
MASK = torch.tensor([[True, True, True, False], [True, True, False, False], [False] * 4])


def rand(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def normal(batch: int = B) -> IndependentPredictive:
    return IndependentPredictive(Independent(Normal(rand(batch, M, C), rand(batch, M, C).exp()), 1))


def joint(batch: int = B) -> GaussianPredictive:
    root = rand(batch, M, M)
    covariance = root @ root.mT
    columns = torch.tensor([[0.7, 0.3], [0.3, 0.5]], dtype=torch.float64)
    return GaussianPredictive(rand(batch, M, C), covariance.diagonal(dim1=-2, dim2=-1), lambda: covariance, columns)


def correlated(batch: int = B) -> IndependentPredictive:
    factor = torch.tensor([[1.0, 0.0], [0.5, 0.8]], dtype=torch.float64).expand(batch, M, C, C)
    return IndependentPredictive(MultivariateNormal(rand(batch, M, C), scale_tril=factor))


def point_mixture() -> IndependentPredictive:
    components = Independent(Normal(3.0 * rand(B, M, S, C), rand(B, M, S, C).exp()), 1)
    return IndependentPredictive(MixtureSameFamily(Categorical(logits=rand(B, M, S)), components))


def output_mixture() -> IndependentPredictive:
    components = Normal(3.0 * rand(B, M, C, S), rand(B, M, C, S).exp())
    return IndependentPredictive(Independent(MixtureSameFamily(Categorical(logits=rand(B, M, C, S)), components), 1))


def student() -> IndependentPredictive:
    return IndependentPredictive(
        Independent(StudentT(3.0 + rand(B, M, C).exp(), rand(B, M, C), rand(B, M, C).exp()), 1)
    )


def student_mixture() -> MixturePredictive:
    components = Independent(StudentT(torch.full((B * S, M, C), 4.0).double(), rand(B * S, M, C), torch.ones(())), 1)
    return MixturePredictive(rand(B, S), IndependentPredictive(components))


def moved(base: Predictive) -> AffinePredictive:
    return AffinePredictive(base, torch.tensor([5.0, -1.0]).double(), torch.tensor([0.1, 20.0]).double())


REGRESSION = {
    "normal": normal,
    "joint gaussian": joint,
    "correlated outputs": correlated,
    "mixture": lambda: MixturePredictive(rand(B, S), normal(B * S)),
    "mixture of joint gaussians": lambda: MixturePredictive(rand(B, S), joint(B * S)),
    "mixture of correlated outputs": lambda: MixturePredictive(rand(B, S), correlated(B * S)),
    "mixture of mixtures": lambda: MixturePredictive(rand(B, 2), MixturePredictive(rand(B * 2, S), normal(B * 2 * S))),
    "mixture at each point": point_mixture,
    "mixture of each output": output_mixture,
    "moved mixture": lambda: moved(MixturePredictive(rand(B, S), normal(B * S))),
    "mixture of moved": lambda: MixturePredictive(rand(B, S), moved(normal(B * S))),
    "student": student,
    "student mixture": student_mixture,
    "moved student": lambda: moved(student()),
}
CLASSIFICATION = {
    "categorical": lambda: IndependentPredictive(Categorical(logits=rand(B, M, 3))),
    "mixture": lambda: MixturePredictive(rand(B, S), IndependentPredictive(Categorical(logits=rand(B * S, M, 3)))),
    "bernoulli": lambda: IndependentPredictive(Bernoulli(logits=rand(B, M), validate_args=False)),
}
REGRESSION_SCORES = (
    metrics.joint_nll,
    metrics.marginal_nll,
    metrics.mse,
    metrics.rmse,
    metrics.mae,
    metrics.crps,
    metrics.coverage,
)
CLASSIFICATION_SCORES = (metrics.joint_nll, metrics.marginal_nll, metrics.accuracy, metrics.brier)


def first_rows(predictive: Predictive, y: torch.Tensor) -> torch.Tensor:
    """CRPS of every output of every point by itself, through masks that leave one point."""
    each = []
    for m in range(M):
        mask = torch.zeros(B, M, dtype=torch.bool)
        mask[:, m] = True
        each.append(metrics.crps(predictive, y, mask))
    return torch.stack(each, 1)


@pytest.mark.parametrize("name", REGRESSION)
def test_crps_is_the_integral_of_its_definition(name: str) -> None:
    predictive = REGRESSION[name]()
    y = predictive.sample(generator=torch.Generator().manual_seed(1))
    found = first_rows(predictive, y)

    def integral(b: int, m: int, c: int) -> float:
        def squared(z: float, above: bool) -> float:
            at = y.clone()
            at[b, m, c] = z
            return (float(above) - float(predictive.cdf(at)[b, m, c])) ** 2

        mean, stddev, middle = (float(v[b, m, c]) for v in (predictive.mean, predictive.stddev, y))
        # 60 deviations: at 4 degrees of freedom the tails of F² beyond hold some 60^-7 of a deviation
        low, high = min(mean, middle) - 60.0 * stddev, max(mean, middle) + 60.0 * stddev
        near = sorted({low, high, middle, *(mean + k * stddev for k in range(-6, 7))})
        return sum(
            quad(squared, a, z, (a >= middle,), epsabs=1e-8, epsrel=1e-8)[0] for a, z in itertools.pairwise(near)
        )

    truth = np.mean([integral(1, 2, c) for c in range(C)])
    # the quadrature of crps has 64 nodes a side: some ten digits where F is smooth; the closed forms are exact
    assert float(found[1, 2]) == pytest.approx(truth, rel=1e-5)


@pytest.mark.parametrize("name", REGRESSION)
def test_crps_is_its_two_sample_formula(name: str) -> None:
    """E|X - y| - E|X - X'| / 2 (Gneiting & Raftery 2007, eq. 21)."""
    predictive = REGRESSION[name]()
    y = rand(B, M, C)
    draws = predictive.sample((4000,), torch.Generator().manual_seed(2))
    score = ((draws - y).abs() - 0.5 * (draws - draws.roll(1, 0)).abs()).mean(-1)
    # five standard errors; draws of roll overlap, which at most doubles the variance of the second term
    error = 5.0 * (2.0 * score.var(0) / len(draws)).sqrt()
    assert bool(((first_rows(predictive, y) - score.mean(0)).abs() < error).all())


def test_crps_of_many_components_is_integrated() -> None:
    """Above 128 components the quadrature takes over; narrow components are what it finds hardest."""
    components = normal(B * 150)
    narrow = Independent(Normal(components.mean, 0.05 * torch.ones_like(components.mean)), 1)
    predictive = MixturePredictive(rand(B, 150), IndependentPredictive(narrow))
    y = rand(B, M, C)
    exact = metrics._mixture_crps(*metrics._gaussians(predictive), y).mean(-1).mean(-1)
    # components a twentieth as wide as the whole are finer than its nodes: some four digits after averaging
    torch.testing.assert_close(metrics.crps(predictive, y), exact, rtol=1e-3, atol=0.0)


def test_crps_of_a_normal_is_the_published_closed_form() -> None:
    """s [z (2 Φ(z) - 1) + 2 φ(z) - 1/sqrt(π)], z = (y - m)/s (Gneiting & Raftery 2007, eq. 20)."""
    predictive, y = normal(), rand(B, M, C)
    z, unit = (y - predictive.mean) / predictive.stddev, Normal(0.0, 1.0)
    truth = predictive.stddev * (z * (2.0 * unit.cdf(z) - 1.0) + 2.0 * unit.log_prob(z).exp() - math.pi**-0.5)
    torch.testing.assert_close(metrics.crps(predictive, y), truth.mean((1, 2)))  # the same formula: rounding only


@pytest.mark.parametrize("dof", [2.0, 2.001, 2.1, 3.0, 30.0])
def test_crps_of_student_t_is_the_published_closed_form(dof: float) -> None:
    """Jordan, Krüger & Lerch 2019, appendix A: also where the deviation is huge or infinite."""
    y = torch.linspace(-20.0, 20.0, M, dtype=torch.float64).view(1, M, 1)
    unit = StudentT(torch.full_like(y, dof), torch.zeros_like(y), torch.ones_like(y))
    found = torch.cat([
        metrics.crps(IndependentPredictive(Independent(unit, 1)), y, torch.arange(M)[None] == m) for m in range(M)
    ])  # fmt: skip
    z, t = y.flatten().numpy(), student_t(dof)
    constant = 2.0 * math.sqrt(dof) / (dof - 1.0) * beta(0.5, dof - 0.5) / beta(0.5, 0.5 * dof) ** 2
    truth = z * (2.0 * t.cdf(z) - 1.0) + 2.0 * t.pdf(z) * (dof + z**2) / (dof - 1.0) - constant
    # tails beyond some 1,000 scales are cut off: with two degrees of freedom they hold about 1,000^-3
    np.testing.assert_allclose(found, truth, rtol=1e-6)


def test_crps_of_a_far_observation_is_its_distance() -> None:
    """|y - m| less E|X - X'|/2 = s/sqrt(π), on both routes, at a thousand deviations."""
    for distribution in (Normal(0.0, 1.0), StudentT(1e3, 0.0, 1.0)):
        wide = Independent(distribution.expand(torch.Size([1, 1, 1])), 1)
        for y in (-1000.0, 1000.0):
            found = float(metrics.crps(IndependentPredictive(wide), torch.full((1, 1, 1), y)))
            assert found == pytest.approx(1000.0 - math.pi**-0.5, abs=2e-3)  # t of 1,000 degrees: 0.1 % from Normal


@pytest.mark.parametrize("name", REGRESSION)
@pytest.mark.parametrize("score", REGRESSION_SCORES, ids=lambda f: f.__name__)
def test_padding_never_matters_and_no_points_give_nan(name: str, score) -> None:
    predictive = REGRESSION[name]()
    y = rand(B, M, C)
    other = torch.where(MASK[..., None], y, 1e6)
    found = score(predictive, y, MASK)
    assert torch.equal(found.nan_to_num(-1.0), score(predictive, other, MASK).nan_to_num(-1.0))
    assert found.isnan().tolist() == [False, False, True]
    assert found.shape == (B,)


@pytest.mark.parametrize("name", CLASSIFICATION)
@pytest.mark.parametrize("score", CLASSIFICATION_SCORES, ids=lambda f: f.__name__)
def test_padded_labels_never_matter_even_when_they_are_no_class(name: str, score) -> None:
    predictive = CLASSIFICATION[name]()
    y = torch.randint(0, 2, (B, M))
    found = score(predictive, y, MASK)
    for pad in (-7, 99):
        again = score(predictive, torch.where(MASK, y, pad), MASK)
        assert torch.equal(found.nan_to_num(-1.0), again.nan_to_num(-1.0))
    assert found.isnan().tolist() == [False, False, True]


@pytest.mark.parametrize("name", REGRESSION)
def test_scores_of_a_prefix_are_scores_of_the_masked_whole(name: str) -> None:
    """A task alone and unpadded scores as it does padded: the slow truth of every average."""
    predictive, y = REGRESSION[name](), rand(B, M, C)
    mean, stddev = predictive.mean[0, :3], predictive.stddev[0, :3]
    assert float(metrics.mse(predictive, y, MASK)[0]) == pytest.approx(float((mean - y[0, :3]).square().mean()))
    assert float(metrics.rmse(predictive, y, MASK)[0]) == pytest.approx(float((mean - y[0, :3]).square().mean().sqrt()))
    assert float(metrics.sharpness(predictive, MASK)[0]) == pytest.approx(float(stddev.square().mean()))
    median = predictive.quantile(0.5)[0, :3]
    assert float(metrics.mae(predictive, y, MASK)[0]) == pytest.approx(float((median - y[0, :3]).abs().mean()))
    each = -predictive.marginal_log_prob(y)[0, :3]
    assert float(metrics.marginal_nll(predictive, y, MASK)[0]) == pytest.approx(float(each.mean()))
    together = -predictive.log_prob(y, MASK)[0] / 3.0
    assert float(metrics.joint_nll(predictive, y, MASK)[0]) == pytest.approx(float(together))


@pytest.mark.parametrize("name", REGRESSION)
def test_pit_coverage_and_width_agree_with_the_interval(name: str) -> None:
    predictive, y = REGRESSION[name](), rand(B, M, C)
    lower, upper = predictive.interval(0.8)
    inside = ((lower <= y) & (y <= upper)).double().mean((1, 2))
    assert torch.equal(metrics.coverage(predictive, y, level=0.8), inside)
    torch.testing.assert_close(metrics.interval_width(predictive, level=0.8), (upper - lower).mean((1, 2)))
    torch.testing.assert_close(metrics.pit(predictive, upper), torch.full_like(upper, 0.9))


@pytest.mark.parametrize("name", REGRESSION)
def test_the_truth_covers_at_the_nominal_level_and_has_uniform_pits(name: str) -> None:
    predictive = REGRESSION[name]()
    draws = predictive.sample((2000,), torch.Generator().manual_seed(3))
    pits = torch.stack([metrics.pit(predictive, y) for y in draws])  # draws of a point are independent
    inside = ((pits - 0.5).abs() <= 0.45).double().mean(0)
    # five binomial deviations, over some 24 points
    assert bool(((inside - 0.9).abs() < 5.0 * math.sqrt(0.9 * 0.1 / 2000)).all())
    # a uniform mean of 2000 has deviation 1/sqrt(12 * 2000)
    assert bool(((pits.mean(0) - 0.5).abs() < 5.0 / math.sqrt(12 * 2000)).all())


def test_calibration_errors_by_hand() -> None:
    pit = torch.tensor([[[0.1], [0.3], [0.6], [0.99]]])
    levels = (0.25, 0.5, 0.75)  # observed 1/4, 2/4, 3/4
    assert metrics.calibration_curve(pit, None, levels).tolist() == [[0.25, 0.5, 0.75]]
    assert metrics.kuleshov_calibration_error(pit, None, levels).tolist() == [0.0]
    levels = (0.2, 0.4)  # observed .25 and .5: gaps .05 and .1
    assert float(metrics.kuleshov_calibration_error(pit, None, levels)) == pytest.approx(0.0125)
    assert float(metrics.root_mean_square_calibration_error(pit, None, levels)) == pytest.approx(math.sqrt(0.00625))
    assert float(metrics.mean_absolute_calibration_error(pit, None, levels)) == pytest.approx(0.075)


def test_three_definitions_are_as_in_their_papers_code() -> None:
    """Against a transcription: PACOH-GP's `_calib_error`, PACOH-NN's `calib_error`, Kuleshov's weighted sum."""
    pit = torch.rand(1, 57, 1, dtype=torch.float64)
    levels = np.linspace(0.05, 0.95, 20)
    frequency = np.array([(pit.numpy() <= level).mean() for level in levels])
    gaps = frequency - levels
    assert float(metrics.root_mean_square_calibration_error(pit)) == pytest.approx(np.sqrt(np.mean(gaps**2)))
    assert float(metrics.mean_absolute_calibration_error(pit)) == pytest.approx(np.mean(np.abs(gaps)))
    assert float(metrics.kuleshov_calibration_error(pit)) == pytest.approx(np.sum(gaps**2))
    assert tuple(levels) == metrics.LEVELS


@pytest.mark.parametrize(("points", "floor"), [(50, 0.055), (100, 0.039), (200, 0.027)])
def test_calibration_error_of_independent_uniform_pits_has_the_known_floor(points: int, floor: float) -> None:
    error = metrics.root_mean_square_calibration_error(torch.rand(4000, points, 1, dtype=torch.float64))
    # the floors are known to three decimals, so to half a unit of the third; the mean of 4000 errors to .0003
    assert float(error.mean()) == pytest.approx(floor, abs=0.0005 + 0.0005)


def test_calibration_errors_per_task_and_pooled() -> None:
    pit = torch.rand(B, M, C, dtype=torch.float64)
    flat = pit[MASK].reshape(1, -1, 1)  # real points, both outputs as further points
    for error in (
        metrics.kuleshov_calibration_error,
        metrics.root_mean_square_calibration_error,
        metrics.mean_absolute_calibration_error,
    ):
        torch.testing.assert_close(error(*metrics.pooled(pit, MASK)), error(flat))
        alone = error(pit[1:2, :2])
        torch.testing.assert_close(error(pit, MASK)[1:2], alone)
        assert error(pit, MASK).isnan().tolist() == [False, False, True]
        padded = torch.where(MASK[..., None], pit, 123.0)
        assert torch.equal(error(padded, MASK)[:2], error(pit, MASK)[:2])


def test_ece_by_hand() -> None:
    # two bins: (0, .5] holds .4 (wrong) and .5 (right); (.5, 1] holds .9 (right), .8 (right), .7 (wrong)
    confidence = torch.tensor([[0.4, 0.5, 0.9], [0.8, 0.7, 0.1]])
    correct = torch.tensor([[False, True, True], [True, False, True]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    # 2/5 |.5 - .45| + 3/5 |2/3 - .8|
    assert float(metrics.ece(confidence, correct, mask, bins=2)) == pytest.approx(0.4 * 0.05 + 0.6 * (0.8 - 2 / 3))
    count, hits, total = metrics.confidence_bins(confidence, correct, mask, bins=2)
    assert count.tolist() == [[2.0, 1.0], [0.0, 2.0]]
    assert hits.tolist() == [[1.0, 1.0], [0.0, 1.0]]
    torch.testing.assert_close(total, torch.tensor([[0.9, 0.9], [0.0, 1.5]], dtype=torch.float64), rtol=0, atol=1e-6)


def test_rounding_does_not_tear_a_bin_apart() -> None:
    """10/15 is an edge: a confidence of 2/3 belongs to the bin below, however it was rounded."""
    edge = torch.tensor([[2.0 / 3.0, 2.0 / 3.0 + 1e-15, 2.0 / 3.0 - 1e-15]], dtype=torch.float64)
    count, _, _ = metrics.confidence_bins(edge, torch.ones(1, 3, dtype=torch.bool))
    assert count[0, 9] == 3.0


def test_ece_extremes() -> None:
    sure = torch.ones(2, 10)
    assert float(metrics.ece(sure, torch.ones(2, 10, dtype=torch.bool))) == 0.0
    assert float(metrics.ece(sure, torch.zeros(2, 10, dtype=torch.bool))) == 1.0
    assert math.isnan(float(metrics.ece(sure, torch.ones(2, 10).bool(), torch.zeros(2, 10).bool())))
    # an honest classifier: 20,000 points in 15 bins have an expected error of about sqrt(2/π) sqrt(15 p(1-p)/n) < .011
    confidence = 0.3 + 0.7 * torch.rand(1, 20_000, dtype=torch.float64)
    assert float(metrics.ece(confidence, torch.rand(1, 20_000) < confidence)) < 0.02


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_classification_scores_are_their_definitions(name: str) -> None:
    predictive = CLASSIFICATION[name]()
    probs = predictive.probs
    y = torch.randint(0, probs.shape[-1], (B, M))
    brier = [[sum((float(p) - (c == int(t))) ** 2 for c, p in enumerate(row)) for row, t in zip(*bt, strict=True)]
             for bt in zip(probs, y, strict=True)]  # fmt: skip
    torch.testing.assert_close(metrics.brier(predictive, y), torch.tensor(brier).double().mean(-1), rtol=0, atol=1e-6)
    right = (probs.argmax(-1) == y).double().mean(-1)
    assert torch.equal(metrics.accuracy(predictive, y), right)
    nll = -probs.gather(-1, y[..., None]).log().mean((1, 2))
    torch.testing.assert_close(metrics.marginal_nll(predictive, y), nll)
    torch.testing.assert_close(metrics.confidence(predictive), probs.max(-1).values)


def test_no_query_points_at_all_never_crashes() -> None:
    empty = IndependentPredictive(Independent(Normal(torch.zeros(B, 0, C), torch.ones(B, 0, C)), 1))
    y = torch.zeros(B, 0, C)
    for score in REGRESSION_SCORES:
        assert score(empty, y, torch.zeros(B, 0, dtype=torch.bool)).isnan().all()
        assert score(empty, y).isnan().all()
    assert metrics.root_mean_square_calibration_error(metrics.pit(empty, y)).isnan().all()


def test_wrong_questions_have_clear_answers(unchecked: None) -> None:
    predictive, y = normal(), rand(B, M, C)
    for level in (0.0, 1.0, -0.1):
        with pytest.raises(DataError, match="expected an interval level"):
            metrics.coverage(predictive, y, level=level)
        with pytest.raises(DataError, match="expected an interval level"):
            metrics.interval_width(predictive, level=level)
    with pytest.raises(DataError, match="expected levels"):
        metrics.calibration_curve(torch.rand(1, 2, 1), None, (0.0, 0.5))
    with pytest.raises(DataError, match="expected at least one bin"):
        metrics.ece(torch.ones(1, 2), torch.ones(1, 2).bool(), bins=0)
    with pytest.raises(ShapeError, match="expected a mask"):
        metrics.mse(predictive, y, torch.ones(B, M + 1, dtype=torch.bool))
    with pytest.raises(UnsupportedError):
        metrics.crps(CLASSIFICATION["categorical"](), y)
    with pytest.raises(UnsupportedError):
        metrics.confidence(predictive)
