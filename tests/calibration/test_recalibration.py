import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, StudentT

import bayesmeta as bm
from bayesmeta.calibration.recalibration import isotonic_recalibration, temperature_scaling, variance_scaling
from bayesmeta.data import Data
from bayesmeta.errors import DataError, InferenceError, ShapeError, UnsupportedError
from bayesmeta.evaluation.evaluate import evaluate
from bayesmeta.learner import Learner
from bayesmeta.predictives import IndependentPredictive, Predictive
from bayesmeta.predictives.recalibrated import LEVELS, RecalibratedPredictive
from bayesmeta.predictives.scaled import ScaledPredictive
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.source import ClassSplit, RandomSplit
from bayesmeta.wrappers.recalibrated import IsotonicRecalibrated, TemperatureScaled, VarianceScaled, tempered
from tests.evaluation.exact import ClassShares, NormalMean, SharePosterior, label_tasks, normal_tasks

SHOTS = (0, 2, 8)


def alpaca(num_outputs: int = 1, num_inputs: int = 1) -> bm.ALPaCA:
    torch.manual_seed(0)
    noise = bm.noise.FullNoise(num_outputs)
    learner = bm.ALPaCA(bm.MLP(num_inputs, [8, 4]), num_outputs=num_outputs, noise=noise).double()
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return learner


def curves(num_tasks: int, points: int, num_outputs: int = 1, seed: int = 0) -> TaskDataset:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num_tasks, points, 1, generator=generator, dtype=torch.float64)
    slope = torch.randn(num_tasks, 1, num_outputs, generator=generator, dtype=torch.float64)
    noise = torch.randn(num_tasks, points, num_outputs, generator=generator, dtype=torch.float64)
    return TaskDataset(Data(x, slope * x + 0.3 * noise, torch.ones(num_tasks, points, dtype=torch.bool)))


def learners() -> dict[str, Learner]:
    """One for each form that a base predictive may have."""
    torch.manual_seed(1)
    mixture = bm.MixtureALPaCA(bm.MLP(1, [8, 4]), num_components=3).double()
    standard = bm.Standardized(alpaca())
    standard.prepare(curves(20, 8).data)
    return {"gaussian": alpaca(), "affine": standard, "mixture": mixture, "two outputs": alpaca(2)}


NAMES = ("gaussian", "affine", "mixture", "two outputs")


def bent_maps(num_tasks: int, num_outputs: int) -> Tensor:
    """Some increasing map for each task and output."""
    generator = torch.Generator().manual_seed(2)
    steps = torch.rand(num_tasks, len(LEVELS) - 1, num_outputs, generator=generator, dtype=torch.float64) + 0.1
    steps = steps * torch.tensor(LEVELS, dtype=torch.float64).diff()[:, None]
    ends = torch.cat([torch.zeros_like(steps[:, :1]), steps.cumsum(1)], 1)
    return ends / ends[:, -1:]


def corrected(name: str, kind: str, copies: int = 0) -> tuple[Predictive, Predictive, Tensor]:
    """The corrected predictive of three tasks, the one below it, and outcomes; or that of one point in many copies."""
    learner = learners()[name]
    tasks = curves(3, 9, 2 if name == "two outputs" else 1, seed=3).data
    x, y = tasks.x[:, 4:], tasks.y[:, 4:]
    if copies:
        x, y = x[:, :1].expand(-1, copies, -1), y[:, :1].expand(-1, copies, -1)
    with torch.no_grad():
        base = learner.adapt(Data(tasks.x[:, :4], tasks.y[:, :4], tasks.mask[:, :4])).predict(x)
    scaled = ScaledPredictive(base, torch.tensor([0.5, 1.0, 2.5], dtype=torch.float64))
    if kind == "scaled":
        return scaled, base, y
    base = base if kind == "mapped" else scaled
    return RecalibratedPredictive(base, bent_maps(3, y.shape[-1])), base, y


KINDS = ("scaled", "mapped", "both")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_a_corrected_predictive_is_one_distribution(name: str, kind: str) -> None:
    """Quantile undoes cdf, the density is the slope of the cdf, and mean and variance are those of the density."""
    predictive, _, y = corrected(name, kind)
    for q in (0.003, 0.2, 0.5, 0.85, 0.997):
        torch.testing.assert_close(predictive.cdf(predictive.quantile(q)), torch.full_like(y, q), rtol=0.0, atol=1e-9)
    lower, upper = predictive.interval(0.8)
    assert (lower < upper).all()
    copies, _, _ = corrected(name, kind, copies=6001)  # the first point again and again, to ask at 6,001 outcomes
    grid = torch.linspace(-12.0, 12.0, 6001, dtype=torch.float64)[:, None]
    points = predictive.mean[:, :1] + predictive.stddev[:, :1] * grid  # B G C
    middle, mass = 0.5 * (points[:, 1:] + points[:, :-1]), copies.cdf(points).diff(dim=1)
    assert (mass >= 0.0).all()
    mean = (middle * mass).sum(1)
    # the middles of cells of .004 deviations err by less than that squared, quadrature of functions with kinks by 1e-3
    assert ((predictive.mean[:, 0] - mean).abs() < 2e-3 * predictive.stddev[:, 0]).all()
    variance = ((middle - mean[:, None]).square() * mass).sum(1)
    torch.testing.assert_close(predictive.variance[:, 0], variance, rtol=1e-2, atol=0.0)
    if y.shape[-1] == 1:
        total = torch.trapezoid(copies.marginal_log_prob(points).exp(), points[..., 0], dim=1)
        # r jumps at 15 knots: each costs up to a cell (.004 deviations) times the jump, about 1e-3
        torch.testing.assert_close(total, torch.ones_like(total), rtol=0.0, atol=5e-3)
        step = 1e-5 * predictive.stddev
        slope = (predictive.cdf(y + step) - predictive.cdf(y - step)) / (2.0 * step)
        torch.testing.assert_close(slope[..., 0], predictive.marginal_log_prob(y).exp(), rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_densities_over_two_outputs_integrate_to_one(kind: str) -> None:
    predictive, _, _ = corrected("two outputs", kind, copies=401)
    mean, stddev = predictive.mean, predictive.stddev
    grid = torch.linspace(-8.0, 8.0, 401, dtype=torch.float64)
    total = torch.zeros(3, dtype=torch.float64)
    for first in grid:
        offset = torch.stack([first.expand(401), grid], -1)
        total += predictive.marginal_log_prob(mean + stddev * offset).exp().sum(1)
    cell = (stddev[:, 0] * 16.0 / 400).prod(-1)
    # jumps of r at 30 knots cost up to half a cell (.02 deviations, .008 of the mass) each, of either sign
    torch.testing.assert_close(total * cell, torch.ones_like(total), rtol=0.0, atol=0.008 * math.sqrt(30))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_points_keep_their_dependence(name: str, kind: str) -> None:
    """Outcomes moved to where the base has the same probabilities have the base's joint density, times dz/dy."""
    predictive, base, y = corrected(name, kind)
    mask = torch.ones(y.shape[:2], dtype=torch.bool)
    mask[0, 3:] = False
    z = torch.empty_like(y)
    for b, m, c in np.ndindex(*y.shape):  # slowly, one at a time, by the distribution functions alone
        level = float(predictive.cdf(y)[b, m, c])
        z[b, m, c] = base.quantile(level)[b, m, c]
    torch.testing.assert_close(base.cdf(z), predictive.cdf(y), rtol=0.0, atol=1e-9)

    def slope(distribution: Predictive, at: Tensor) -> Tensor:
        step = 1e-5 * distribution.stddev
        return (distribution.cdf(at + step) - distribution.cdf(at - step)) / (2.0 * step)

    change = torch.where(mask, (slope(predictive, y) / slope(base, z)).log().sum(-1), 0.0).sum(-1)
    # logarithms of slopes by differences err by 1e-6 each, and by rounding of the quantiles far out
    torch.testing.assert_close(predictive.log_prob(y, mask), base.log_prob(z, mask) + change, rtol=1e-4, atol=1e-4)
    garbage = torch.where(mask[..., None], y, 1e6)
    torch.testing.assert_close(predictive.log_prob(garbage, mask), predictive.log_prob(y, mask))
    one = predictive.log_prob(y, torch.zeros_like(mask).index_fill(1, torch.tensor([1]), True))
    torch.testing.assert_close(one, predictive.marginal_log_prob(y)[:, 1], rtol=1e-7, atol=1e-7)


@pytest.mark.usefixtures("unchecked")  # shape checks would take most of the time of 1,500 draws
@pytest.mark.parametrize("kind", KINDS)
def test_draws_have_the_marginals_and_the_dependence(kind: str) -> None:
    predictive, base, y = corrected("gaussian", kind)
    draws = predictive.sample((1500,), torch.Generator().manual_seed(0))
    assert draws.shape == (1500, *y.shape)
    for level in (0.1, 0.5, 0.9):
        share = (draws <= predictive.quantile(level)).double().mean(0)
        assert (share - level).abs().max() < 4.5 * math.sqrt(level * (1.0 - level) / 1500)  # 15 binomials
    ranks = [
        torch.stack([p.cdf(d) for d in p.sample((1500,), torch.Generator().manual_seed(0))]) for p in (predictive, base)
    ]
    torch.testing.assert_close(ranks[0], ranks[1], rtol=0.0, atol=1e-6)  # one stream of numbers: one copula
    marginal = RecalibratedPredictive(base, bent_maps(3, 1)).marginals.sample((2000,))
    assert marginal.shape == (2000, *y.shape)


@pytest.mark.parametrize("kind", ["base", *KINDS])
@pytest.mark.parametrize("name", NAMES)
def test_the_density_of_an_output_is_the_slope_of_its_distribution_function(name: str, kind: str) -> None:
    predictive, base, y = corrected(name, "mapped" if kind == "base" else kind)
    predictive = base if kind == "base" else predictive
    step = 1e-6 * predictive.stddev
    with torch.no_grad():
        slope = (predictive.cdf(y + step) - predictive.cdf(y - step)) / (2.0 * step)
        found = predictive.output_log_prob(y)
    assert found.shape == y.shape
    # a difference over 2e-6 deviations keeps ten digits of a distribution function
    torch.testing.assert_close(found.exp(), slope, rtol=1e-5, atol=1e-8)
    if y.shape[-1] == 1:
        torch.testing.assert_close(found[..., 0], predictive.marginal_log_prob(y), rtol=1e-12, atol=1e-12)


def test_labels_have_no_density_of_an_output() -> None:
    blobs = bm.tasks.GaussianBlobs(ways=3)
    tasks = blobs.episodes(2, 3).data
    predictive = blobs.oracle.adapt(tasks).predict(tasks.x)
    with pytest.raises(UnsupportedError, match="labels"):
        predictive.output_log_prob(tasks.y)


def test_a_far_tail_keeps_a_finite_density_and_the_shape_of_the_base() -> None:
    predictive, base, _ = corrected("gaussian", "mapped")
    far = base.mean + 60.0 * base.stddev  # F(y) rounds to 1
    slope = predictive._slopes[:, -1].log()
    expected = base.marginal_log_prob(far) + slope
    torch.testing.assert_close(predictive.marginal_log_prob(far), expected)
    assert torch.isfinite(predictive.log_prob(far)).all()


@pytest.mark.usefixtures("unchecked")  # shape checks would take most of the time of 500 draws
def test_heavy_tails_and_float32() -> None:
    base = IndependentPredictive(
        Independent(StudentT(torch.tensor(4.0), torch.zeros(2, 3, 1), 2.0 * torch.ones(2, 3, 1)), 1)
    )
    predictive = RecalibratedPredictive(base, bent_maps(2, 1))
    for q in (0.01, 0.4, 0.95):
        torch.testing.assert_close(predictive.cdf(predictive.quantile(q)), torch.full((2, 3, 1), q), rtol=0, atol=1e-5)
    assert predictive.mean.dtype == predictive.marginal_log_prob(base.mean).dtype == torch.float32
    # the fourth moment of a t with 4 degrees of freedom is infinite: a sample says something of the mean only
    draws = predictive.sample((500,), torch.Generator().manual_seed(0))
    assert (draws.mean(0) - predictive.mean).abs().max() < 5.0 * float(predictive.stddev.max()) / math.sqrt(500)


@pytest.mark.parametrize("claimed", [1 / 9, 1.0, 4.0])
def test_variance_scaling_recovers_a_known_factor(claimed: float) -> None:
    """The learner claims `claimed` times the true variance: the factor on the deviation is claimed^-1/2."""
    learner = NormalMean(claimed=claimed)
    scaled = variance_scaling(learner, normal_tasks(600, 20, seed=0), SHOTS)
    # log s of n independent standardised residuals has deviation 1/sqrt(2 n); at 0 shots tasks are what is independent:
    # four deviations of 600 tasks at worst, .115
    torch.testing.assert_close(
        scaled.log_factors, torch.full((3,), -0.5 * math.log(claimed), dtype=torch.float64), rtol=0.0, atol=0.115
    )
    row = evaluate(scaled, normal_tasks(400, 30, seed=1), SHOTS, num_bootstrap=0).table()
    assert (row["coverage"] - 0.9).abs().max() < 0.07  # four binomials of 400 tasks at worst, and the factor's own
    assert row["regret"].max() < 0.02  # (log s error)² = .0132 at worst, and chance


def test_the_factor_maximises_the_likelihood_and_is_interpolated() -> None:
    learner, tasks = NormalMean(claimed=0.2), normal_tasks(30, [25] * 20 + [6] * 10, seed=4)
    scaled = variance_scaling(learner, tasks, SHOTS, query=4)
    for i, shot in enumerate(SHOTS):
        batch = tasks.select([i for i in range(30) if tasks.data.counts[i] > shot]).divided(RandomSplit.at(shot, 4), 0)
        predictive = learner.adapt(batch.support).predict(batch.query.x)
        z = (batch.query.y - predictive.mean).square()[..., 0] / predictive.variance[..., 0]
        # Gaussian: s² = the mean over tasks of their mean squared standardised residual
        each = [z[t, batch.query.mask[t]].mean() for t in range(len(z))]
        torch.testing.assert_close(scaled.log_factors[i], 0.5 * torch.stack(each).mean().log(), rtol=0.0, atol=1e-5)
    x = torch.zeros(6, 1, 1, dtype=torch.float64)
    y, mask = (
        torch.zeros(6, 20, 1, dtype=torch.float64),
        torch.arange(20) < torch.tensor([[0], [1], [2], [4], [8], [20]]),
    )
    support = Data(torch.zeros_like(y), y, mask)
    ratio = scaled.adapt(support).predict(x).stddev / learner.adapt(support).predict(x).stddev
    logs = [0.0, math.log(2), math.log(3), math.log(5), math.log(9), math.log(9)]
    expected = np.interp(logs, np.log1p(SHOTS), scaled.log_factors.numpy())
    np.testing.assert_allclose(ratio.log().flatten().numpy(), expected, atol=1e-9)


def test_temperature_scaling_recovers_a_known_temperature() -> None:
    """p ∝ share^power has the right probabilities at temperature `power`, whatever the number of shots."""
    liar = ClassShares(power=2.5)
    scaled = temperature_scaling(liar, label_tasks(800, 20, seed=0), (2, 8))
    np.testing.assert_allclose(scaled.log_temperatures.exp().numpy(), 2.5, rtol=0.2)
    test = label_tasks(400, 20, seed=1)
    before, after = (evaluate(learner, test, (2, 8), num_bootstrap=0).table() for learner in (liar, scaled))
    np.testing.assert_array_equal(before["accuracy"], after["accuracy"])
    assert (after["ece"] < 0.5 * before["ece"]).all()
    assert (after["regret"] < 0.01).all()
    support = test.divided(RandomSplit.at(2), 0).support
    raw, cool = liar.adapt(support).predict(support.x), scaled.adapt(support).predict(support.x)
    temperature = scaled.log_temperatures[0].exp()
    torch.testing.assert_close(cool.probs, (raw.probs.log() / temperature).softmax(-1))


def test_shots_of_a_class_split_are_interpolated_by_points() -> None:
    scaled = temperature_scaling(ClassShares(power=2.0), label_tasks(40, 40, seed=0), (1, 3), split=ClassSplit)
    assert scaled.points[0] == pytest.approx(3.0, abs=0.5)  # three classes, of which a task may lack one
    assert scaled.points[1] == pytest.approx(9.0, abs=1.5)


def test_isotonic_recalibration_makes_held_out_probabilities_uniform() -> None:
    """A bias and a wrong variance at once: no factor repairs that."""
    liar = NormalMean(bias=0.8, claimed=3.0)
    train, test = normal_tasks(800, 20, seed=0), normal_tasks(800, 20, seed=1)
    mapped = isotonic_recalibration(liar, train, SHOTS)
    before, after = (evaluate(learner, test, SHOTS, num_bootstrap=0).table() for learner in (liar, mapped))
    assert (before["calibration_error"] > 0.1).all()
    # chance has this size by definition, for the map and for its test: three times √2 of it
    assert (after["calibration_error"] < 3.0 * math.sqrt(2.0) * after["calibration_noise"]).all()
    assert (after["nll"] < before["nll"]).all()
    assert (after["crps"] < before["crps"]).all()


def test_the_map_is_the_shares_of_each_task_shrunk_to_the_identity() -> None:
    liar, tasks = NormalMean(bias=2.0, claimed=0.1), normal_tasks(40, [12] * 25 + [5] * 15, seed=5)
    mapped = isotonic_recalibration(liar, tasks, (2,))
    batch = tasks.divided(RandomSplit.at(2), 0)
    pit = liar.adapt(batch.support).predict(batch.query.x).cdf(batch.query.y)[..., 0]
    shares = np.zeros((40, len(LEVELS) - 1))
    for t in range(40):
        values = pit[t, batch.query.mask[t]].numpy()
        for value in values:
            shares[t, sum(value > level for level in LEVELS[1:-1])] += 1.0 / len(values)
    widths = np.diff(LEVELS)
    best, gained = np.empty(0), np.full(40, -math.inf)
    for weight in (1, 2, 5, 10, 20, 50, 100, 1000):
        gains = np.zeros(40)
        for t in range(40):
            others = np.delete(shares, t, 0).sum(0)
            gains[t] = shares[t] @ np.log((others + weight * widths) / (39 + weight) / widths)
        if gains.mean() > gained.mean():
            best, gained = (shares.sum(0) + weight * widths) / (40 + weight), gains
    assert gained.mean() > gained.std(ddof=1) / math.sqrt(40)
    np.testing.assert_allclose(mapped.maps[0, 1:, 0].numpy(), np.cumsum(best), atol=1e-12)


def test_a_calibrated_learner_is_left_nearly_alone() -> None:
    test = normal_tasks(600, 20, seed=7)
    for recalibrate, most in ((variance_scaling, 0.02), (isotonic_recalibration, 0.02)):
        for seed in range(3):
            learner = recalibrate(NormalMean(), normal_tasks(40, 20, seed=10 + seed), (5,))
            # 40 tasks of 15 points: (1/sqrt(2 n))² with n between 40 and 600, that is at most .0125 in expectation
            assert evaluate(learner, test, (5,), num_bootstrap=0).table().loc[5, "regret"] < most


def test_what_is_not_worthwhile_is_not_done() -> None:
    """With a calibrated learner and few tasks, most of the time nothing is corrected; with a wrong one it is."""
    counts = {"calibrated": 0, "wrong": 0}
    for seed in range(20):
        tasks = normal_tasks(8, 12, seed=100 + seed)
        for name, learner in (("calibrated", NormalMean()), ("wrong", NormalMean(claimed=1 / 9))):
            scaled, mapped = (fit(learner, tasks, (4,)) for fit in (variance_scaling, isotonic_recalibration))
            counts[name] += scaled.log_factors[0] != 0.0
            counts[name] += not torch.equal(mapped.maps, IsotonicRecalibrated(learner, (4,), 1).maps)
    assert counts["calibrated"] <= 16  # a gain of one standard error by chance: 1 in 6, more with 8 skewed gains
    assert counts["wrong"] == 40


def test_corrections_stack() -> None:
    """Three times too narrow, and biased: the tails need the factor, the bias the map."""
    liar = NormalMean(claimed=1 / 9, bias=0.5)
    train, test = normal_tasks(400, 20, seed=0), normal_tasks(400, 20, seed=1)
    scaled = variance_scaling(liar, train, (3,))
    both = isotonic_recalibration(scaled, train, (3,))
    nll = [evaluate(m, test, (3,), num_bootstrap=0).table().loc[3, "nll"] for m in (liar, scaled, both)]
    assert nll[0] > nll[1] > nll[2]
    assert both.title == "IsotonicRecalibrated(VarianceScaled(NormalMean))"


@pytest.mark.parametrize("recalibrate", [variance_scaling, isotonic_recalibration])
def test_the_interface_of_a_learner(recalibrate: object, tmp_path: object) -> None:
    learner, tasks = alpaca(2), curves(30, 12, 2)
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    corrected_learner = recalibrate(learner, tasks, SHOTS)  # type: ignore[operator]
    assert all(torch.equal(before[name], value) for name, value in learner.state_dict().items())
    assert all(p.requires_grad for p in learner.parameters())
    assert not any(p.requires_grad for p in corrected_learner.parameters())
    batch = tasks.divided(RandomSplit.at(6), 1)
    support, query = batch.support, batch.query
    whole = corrected_learner.adapt(support).predict(query.x)
    first, second = (
        Data(support.x[:, part], support.y[:, part], support.mask[:, part]) for part in (slice(2), slice(2, None))
    )
    stepwise = corrected_learner.adapt(first).update(second).predict(query.x)
    torch.testing.assert_close(stepwise.log_prob(query.y), whole.log_prob(query.y), rtol=1e-9, atol=1e-9)
    draws = [model.adapt(support).sample(2, torch.Generator().manual_seed(0)) for model in (corrected_learner, learner)]
    for name, value in draws[0].items():
        torch.testing.assert_close(value, draws[1][name])
    bm.save(corrected_learner, f"{tmp_path}/model")
    loaded = bm.load(f"{tmp_path}/model")
    assert loaded.title == corrected_learner.title
    assert torch.equal(loaded.adapt(support).predict(query.x).log_prob(query.y), whole.log_prob(query.y))
    with torch.no_grad():  # training that goes on changes nothing
        for parameter in learner.parameters():
            parameter.add_(1.0)
    assert torch.equal(corrected_learner.adapt(support).predict(query.x).mean, whole.mean)
    for model in (corrected_learner, loaded):
        with pytest.raises(UnsupportedError, match="whose theta is final"):
            bm.fit(model, tasks, steps=1, progress=False)
    evaluation = evaluate(corrected_learner, tasks, (0, 3), num_bootstrap=0)
    assert np.isfinite(evaluation.table()[["nll", "joint_nll"]].to_numpy()).all()
    for own in evaluation.by_outcome().values():
        assert np.isfinite(own.table()["crps"].to_numpy()).all()


def test_the_correction_is_not_rounded_with_the_weights() -> None:
    scaled = variance_scaling(alpaca(), curves(20, 12), SHOTS)
    exact = scaled.log_factors.clone()
    single = scaled.float()
    assert next(single.parameters()).dtype == torch.float32
    assert torch.equal(single.log_factors, exact)


def test_a_classifier_with_saved_temperatures(tmp_path: object) -> None:
    torch.manual_seed(0)
    learner = bm.R2D2(bm.MLP(2, [8, 4]), num_classes=3).double()
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(20, 3, 2, generator=generator, dtype=torch.float64)
    labels = torch.randint(3, (20, 24), generator=generator)
    x = centers[torch.arange(20)[:, None], labels] + torch.randn(20, 24, 2, generator=generator, dtype=torch.float64)
    tasks = TaskDataset(Data(x, labels, torch.ones(20, 24, dtype=torch.bool)))
    scaled = temperature_scaling(learner, tasks, (3, 9))
    bm.save(scaled, f"{tmp_path}/model")
    batch = tasks.divided(RandomSplit.at(5), 0)
    predictions = [m.adapt(batch.support).predict(batch.query.x).probs for m in (scaled, bm.load(f"{tmp_path}/model"))]
    assert torch.equal(*predictions)


def test_until_fitted_there_is_no_correction() -> None:
    learner, tasks = alpaca(), curves(5, 8).data
    base = learner.adapt(tasks).predict(tasks.x)
    for wrapped in (VarianceScaled(learner), IsotonicRecalibrated(learner)):
        predictive = wrapped.adapt(tasks).predict(tasks.x)
        torch.testing.assert_close(predictive.log_prob(tasks.y), base.log_prob(tasks.y))
        torch.testing.assert_close(predictive.mean, base.mean)
        torch.testing.assert_close(predictive.stddev, base.stddev)
        torch.testing.assert_close(predictive.quantile(0.95), base.quantile(0.95))


def test_no_query_points_and_no_draws() -> None:
    for kind in ("scaled", "mapped"):
        predictive, _, y = corrected("gaussian", kind)
        assert predictive.sample((0,)).shape == (0, *y.shape)
    empty = alpaca().adapt(curves(3, 4).data).predict(torch.zeros(3, 0, 1))
    for nothing in (ScaledPredictive(empty, torch.ones(3)), RecalibratedPredictive(empty, bent_maps(3, 1))):
        assert nothing.mean.shape == (3, 0, 1)
        torch.testing.assert_close(nothing.log_prob(empty.mean), torch.zeros(3, dtype=torch.float64))
        assert nothing.marginal_log_prob(empty.mean).shape == (3, 0)


def test_bad_input_is_named() -> None:
    tasks, labels = normal_tasks(10, 6, seed=0), label_tasks(10, 6, seed=0)
    for shots in ((), (-1,), (2, 1), (1, 1)):
        with pytest.raises(DataError, match="shots that increase"):
            variance_scaling(NormalMean(), tasks, shots)
    with pytest.raises(DataError, match="at least 2 calibration tasks with more than 6 points, got 0"):
        isotonic_recalibration(NormalMean(), tasks, (0, 6))
    for recalibrate in (variance_scaling, isotonic_recalibration):
        with pytest.raises(DataError, match="expected a regression learner"):
            recalibrate(ClassShares(), labels, (1,))
        with pytest.raises(DataError, match="outcomes are numbers"):
            recalibrate(NormalMeanOfLabels(), labels, (1,))
    with pytest.raises(DataError, match="expected a classifier"):
        temperature_scaling(NormalMean(), tasks, (1,))
    with pytest.raises(DataError, match="labels from 0 to 1"):
        temperature_scaling(ClassSharesOfTwo(), labels, (1,))
    with pytest.raises(DataError, match="at least one task"):
        variance_scaling(NormalMean(), tasks, (1,), batch_size=0)
    with pytest.raises(DataError, match="say how many"):
        IsotonicRecalibrated(NormalMean())
    with pytest.raises(ShapeError, match="learner's 2 outputs"):
        IsotonicRecalibrated(alpaca(2), num_outputs=3)
    with pytest.raises(InferenceError, match="on the deviation between"):
        variance_scaling(NormalMean(claimed=1e-8), tasks, (1,))
    with pytest.raises(InferenceError, match="held impossible"):
        temperature_scaling(Certain(), labels, (1,))


class NormalMeanOfLabels(NormalMean):
    def condition(self, support: Data) -> object:  # type: ignore[override]
        y = support.y[..., None].to(support.x.dtype)
        return super().condition(Data(support.x, y, support.mask))


class ClassSharesOfTwo(ClassShares):
    def __init__(self) -> None:
        super().__init__(2)

    def condition(self, support: Data) -> object:  # type: ignore[override]
        return super().condition(Data(support.x, support.y.clamp(max=1), support.mask))


class CertainPosterior(SharePosterior):
    def at(self, x: Tensor) -> Predictive:
        logits = torch.tensor([0.0, -math.inf, -math.inf], dtype=x.dtype).expand(*x.shape[:2], 3)
        return IndependentPredictive(Categorical(logits=logits, validate_args=False))


class Certain(ClassShares):
    """The first class, always."""

    def condition(self, support: Data) -> SharePosterior:
        return CertainPosterior(spec=support.spec, probs=super().condition(support).probs)


def test_binary_labels_get_a_temperature_too() -> None:
    from torch.distributions import Bernoulli

    probs = torch.tensor([[0.2, 0.9]], dtype=torch.float64)
    two = torch.stack([1.0 - probs, probs], -1)
    temperature = torch.tensor([2.0], dtype=torch.float64)
    a, b = (tempered(IndependentPredictive(d), temperature).probs for d in (Bernoulli(probs), Categorical(two)))
    torch.testing.assert_close(a, b)
    assert isinstance(TemperatureScaled(ClassShares(), (1,)).log_temperatures, Tensor)
    with pytest.raises(UnsupportedError, match="regression"):
        tempered(corrected("gaussian", "scaled")[1], temperature)


@pytest.mark.parametrize("points", [1, 2, 3])  # 2 tasks: as many points as tasks must not be taken for them
def test_marginals_that_are_no_family_of_torch(points: int) -> None:
    """The oracle of sinusoids has marginals of its own; the joint density is the base's at z, times dz/dy."""
    simulator = bm.tasks.Sinusoid()
    tasks = simulator.dataset(2, 4 + points, seed=0).data
    assert simulator.oracle is not None
    base = simulator.oracle.adapt(tasks.points(slice(4))).predict(tasks.x[:, 4:])
    predictive, y = RecalibratedPredictive(base, bent_maps(2, 1)), tasks.y[:, 4:].double()
    levels = predictive.cdf(y)
    z = torch.stack([base.quantile(float(level)).flatten()[k] for k, level in enumerate(levels.flatten())])
    z = z.reshape(y.shape)
    change = (predictive.marginal_log_prob(y) - base.marginal_log_prob(z)).sum(-1)
    # quantiles are found to 1e-7 deviations, and the oracle's joint density and marginals by meshes of their own
    torch.testing.assert_close(predictive.log_prob(y), base.log_prob(z) + change, rtol=0.0, atol=1e-5)
    if points == 1:
        torch.testing.assert_close(predictive.log_prob(y), predictive.marginal_log_prob(y)[:, 0], rtol=0.0, atol=1e-3)
