"""Gaussian classes: moments, and a Bayes classifier that is exact, calibrated and cannot be improved."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from bayesmeta.data import Data
from bayesmeta.description import construct, describe
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.evaluation import metrics
from bayesmeta.evaluation.evaluate import evaluate
from bayesmeta.tasks.simulators.gaussian_blobs import GaussianBlobs, GaussianBlobsOracle
from bayesmeta.tasks.source import ClassSplit, RandomSplit

BLOBS = GaussianBlobs(ways=3, dimension=2, spread=1.5, noise=0.7)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_points_have_the_stated_moments() -> None:
    data = GaussianBlobs(ways=4, dimension=3, spread=2.0, noise=0.5).simulate(4000, 12, generator())
    assert data.x.shape == (4000, 12, 3)
    share = torch.bincount(data.y.flatten(), minlength=4) / 48_000
    assert (share - 0.25).abs().max() < 0.008  # deviation sqrt(.25 * .75 / 48,000) = .002; four of these
    # x = m + ε: 4 + .25; the 48,000 values of a direction share 16,000 means: known to sqrt(2 / 16,000) = 1.1 %
    torch.testing.assert_close(data.x.flatten(0, 1).var(0), torch.full((3,), 4.25), rtol=0.05, atol=0.0)
    same = data.y[:, :1] == data.y[:, 1:2]
    within = (data.x[:, 0] - data.x[:, 1])[same[:, 0]]
    # 1,000 pairs of one class, 3 directions: a variance of 2 noise² is known to sqrt(2 / 3,000) = 2.6 %; four of these
    assert within.var().item() == pytest.approx(0.5, rel=0.105)
    between = (data.x[:, 0] - data.x[:, 1])[~same[:, 0]]
    assert between.var().item() == pytest.approx(8.5, rel=0.06)  # 9,000 values: 1.5 %; four of these


def test_draws_follow_the_split_and_the_generator() -> None:
    batch = BLOBS.draw(50, ClassSplit((1, 3), 2), generator())
    support = torch.stack([((batch.support.y == c) & batch.support.mask).sum(-1) for c in range(3)], -1)
    assert (support == support[:, :1]).all()
    assert set(support[:, 0].tolist()) == {1, 2, 3}
    assert (batch.query.counts == 6).all()
    assert torch.equal(batch.query.x, BLOBS.draw(50, ClassSplit((1, 3), 2), generator()).query.x)
    assert BLOBS.draw(2, ClassSplit.at(1), generator()).query.counts.tolist() == [60, 60]
    random = BLOBS.draw(50, RandomSplit.at(4, 5), generator())
    assert random.support.counts.unique().tolist() == [4]
    assert random.query.counts.unique().tolist() == [5]
    tasks = BLOBS.episodes(7, 5, seed=1)
    assert tasks.oracle is BLOBS.oracle
    assert [int((tasks.data.y == c).sum()) for c in range(3)] == [35, 35, 35]
    again = construct(describe(BLOBS))
    assert torch.equal(again.episodes(7, 5, seed=1).data.x, tasks.data.x)


def quadrature(blobs: GaussianBlobs, support: Data, x: Tensor) -> Tensor:
    """p(y | x, D) of one task with ragged support, by the trapezoid rule over each direction of each class mean."""
    m = torch.linspace(-12.0 * blobs.spread, 12.0 * blobs.spread, 4001, dtype=torch.float64)
    log_normal = lambda v, mean, s: -0.5 * ((v - mean) / s).square() - math.log(s) - 0.5 * math.log(2.0 * math.pi)
    evidence = torch.zeros(len(x), blobs.ways, dtype=torch.float64)
    real = support.mask[0]
    for c in range(blobs.ways):
        of_class = support.x[0, real][support.y[0, real] == c]  # n D
        for d in range(blobs.dimension):
            weight = log_normal(m, 0.0, blobs.spread) + log_normal(of_class[:, d, None], m, blobs.noise).sum(0)
            likelihood = log_normal(x[:, d, None], m, blobs.noise)
            evidence[:, c] += (weight + likelihood).logsumexp(-1) - weight.logsumexp(-1)
    return evidence.softmax(-1)


@pytest.mark.parametrize("blobs", [BLOBS, GaussianBlobs(4, 1, 3.0, 1.0), GaussianBlobs(2, 5, 0.5, 2.0)])
@pytest.mark.parametrize("shots", [(0, 0), (0, 9), (3, 3)])
def test_the_oracle_equals_quadrature_over_the_means(blobs: GaussianBlobs, shots: tuple[int, int]) -> None:
    """Ragged supports, in which some classes have no example."""
    assert blobs.oracle is not None
    batch = blobs.draw(6, RandomSplit(shots, 4), generator(1)).to(torch.float64)
    prediction = blobs.oracle.adapt(batch.support).predict(batch.query.x)
    for t in range(6):
        expected = quadrature(blobs, batch.support.select([t]), batch.query.x[t])
        # the rule errs by far less than rounding for a Gaussian 100 steps wide
        torch.testing.assert_close(prediction.probs[t], expected, rtol=0.0, atol=1e-9)
    if shots == (0, 0):
        torch.testing.assert_close(prediction.probs, torch.full_like(prediction.probs, 1.0 / blobs.ways))


def test_the_oracle_equals_the_frequency_of_labels_in_simulated_tasks() -> None:
    """Slowest truth: of the simulated tasks that come close to a support and a query, how many have which label."""
    blobs = GaussianBlobs(ways=2, dimension=1, spread=1.5, noise=1.0)
    assert blobs.oracle is not None
    data = blobs.simulate(2_000_000, 2, generator())
    seen, asked = data.x[:, 0, 0], data.x[:, 1, 0]
    near = ((seen - 1.0).abs() < 0.15) & (data.y[:, 0] == 0) & ((asked - 1.6).abs() < 0.15)
    share = (data.y[near, 1] == 0).double().mean().item()
    expected = blobs.oracle.adapt(Data.from_labels([1.0], [0])).predict([1.6]).probs[0, 0, 0].item()
    assert near.sum() > 3000
    # .5 / sqrt(3,000) = .009; four of these. The windows are .3 wide: what they change is of order .15² / 2
    assert share == pytest.approx(expected, abs=0.04)
    assert abs(expected - 0.5) > 0.1  # a classifier that had learnt nothing would be found out


def test_padding_order_precision_and_streaming_do_not_matter() -> None:
    oracle = BLOBS.oracle
    assert oracle is not None
    batch = BLOBS.draw(4, RandomSplit.at(5, 3), generator()).to(torch.float64)
    support, x = batch.support, batch.query.x
    probs = oracle.adapt(support).predict(x).probs
    mask = torch.tensor([[True, True, False, True, True, True]]).expand(4, -1)
    pad_x, pad_y = torch.full_like(support.x[:, :1], 1e3), torch.full_like(support.y[:, :1], 99)
    padded = Data(
        torch.cat([support.x[:, :2], pad_x, support.x[:, 2:].flip(1)], 1),
        torch.cat([support.y[:, :2], pad_y, support.y[:, 2:].flip(1)], 1),
        mask,
    )
    parts = [support.points(part) for part in (slice(2), slice(2, None))]
    for posterior in (oracle.adapt(padded), oracle.adapt(parts[0]).update(parts[1])):
        torch.testing.assert_close(posterior.predict(x).probs, probs, rtol=0.0, atol=1e-12)
    alone = oracle.adapt(support.select([2])).predict(x[2:3, :1]).probs
    torch.testing.assert_close(alone, probs[2:3, :1], rtol=0.0, atol=1e-12)
    assert oracle.adapt(support.to(torch.float32)).predict(x.float()).probs.dtype == torch.float64
    none = oracle.adapt(Data.empty(support)).predict(x)
    torch.testing.assert_close(
        none.log_prob(batch.query.y), torch.full((4,), -3.0 * math.log(3.0), dtype=torch.float64)
    )


def test_no_temperature_improves_the_oracle_and_it_is_calibrated() -> None:
    """One query point of 400,000 independent tasks, so that points are independent."""
    assert BLOBS.oracle is not None
    batch = BLOBS.draw(400_000, RandomSplit((0, 8), 1), generator(2))
    prediction = BLOBS.oracle.adapt(batch.support).predict(batch.query.x)
    log_probs = prediction.probs.log()[:, 0]
    nll = -log_probs.gather(-1, batch.query.y)[:, 0]
    for temperature in (0.8, 0.9, 1.1, 1.25):
        tempered = -(log_probs / temperature).log_softmax(-1).gather(-1, batch.query.y)[:, 0]
        worse = tempered - nll
        assert worse.mean() > 3.0 * worse.std() / 400_000**0.5
    confidence, correct = metrics.confidence(prediction), metrics.is_correct(prediction, batch.query.y)
    count, _, total = (value.sum(0) for value in metrics.confidence_bins(confidence, correct))
    kept = count > 0
    mean = total[kept] / count[kept]
    # E|x̄ - p| of a bin is sqrt(2/π p (1 - p) / n), weighted by n / 400,000
    noise = float(((2.0 / math.pi) * mean * (1.0 - mean) * count[kept]).sqrt().sum()) / 400_000
    assert float(metrics.ece(confidence, correct)) < 2.0 * noise  # 15 terms of deviation .75 each: five of its own
    sharp = (2.0 * log_probs).softmax(-1).amax(-1, keepdim=True)
    assert float(metrics.ece(sharp, correct)) > 5.0 * noise


def test_the_oracle_is_what_evaluate_compares_with() -> None:
    tasks = BLOBS.episodes(100, 12, seed=3)
    table = evaluate(BLOBS.oracle, tasks, (1, 5), split=ClassSplit, query=5, num_bootstrap=50).table()
    np.testing.assert_allclose(table["regret"], 0.0, atol=1e-12)
    wrong = GaussianBlobsOracle(3, 2, 1.5**2, 0.2**2)  # thinks the clouds smaller than they are
    table = evaluate(wrong, tasks, (1, 5), split=ClassSplit, query=5, num_bootstrap=50).table()
    assert (table["regret_low"] > 0.1).all()
    assert (table["ece"] > 4.0 * table["ece_noise"]).all()


def test_wrong_settings_and_labels_are_refused(unchecked: None) -> None:
    for arguments in ({"ways": 1}, {"dimension": 0}, {"spread": -1.0}, {"noise": 0.0}, {"noise": math.inf}):
        with pytest.raises(DataError, match="expected"):
            GaussianBlobs(**arguments)
    assert BLOBS.oracle is not None
    x = np.zeros((1, 2))
    with pytest.raises(DataError, match="labels from 0 to 2, got 3 to 3"):
        BLOBS.oracle.adapt(Data.from_labels(x, [3]))
    with pytest.raises(DataError, match=r"expected labels for GaussianBlobsOracle .*, got numbers"):
        BLOBS.oracle.adapt(Data.from_arrays(x, [1.0]))
    with pytest.raises(UnsupportedError, match="sum over labelings"):
        BLOBS.oracle.log_evidence(Data.from_labels(x, [1]))
    with pytest.raises(DataError, match="at least one task"):
        BLOBS.episodes(0)


def test_classes_that_are_all_alike_leave_chance() -> None:
    blobs = GaussianBlobs(spread=0.0)
    assert blobs.oracle is not None
    batch = blobs.draw(3, ClassSplit.at(2, 1), generator())
    probs = blobs.oracle.adapt(batch.support).predict(batch.query.x).probs
    torch.testing.assert_close(probs, torch.full_like(probs, 0.2))
