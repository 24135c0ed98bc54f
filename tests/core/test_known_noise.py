"""Known noise of points (yerr): what carries it, what refuses it, and that no way to a learner loses it."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch

import bayesmeta as bm
from bayesmeta.errors import DataError, ShapeError, UnsupportedError
from bayesmeta.evaluation.held_out import left_one_out, predicted

D = torch.float64


def _tasks() -> bm.TaskDataset:
    generator = np.random.default_rng(0)
    each = []
    for count in (3, 5, 4, 6):
        x, yerr = generator.normal(size=count), generator.uniform(0.1, 2.0, count)
        each.append((x, x + generator.normal(size=count) * yerr, yerr))
    return bm.TaskDataset.from_list(each)


# ------------------------------------------------------------------------------------------------------------ the data


def test_deviations_become_variances() -> None:
    data = bm.Data.from_arrays([0.0, 1.0], [[1.0, 2.0], [3.0, 4.0]], yerr=[[0.1, 0.2], [0.0, 3.0]])
    torch.testing.assert_close(data.noise, torch.tensor([[[0.01, 0.04], [0.0, 9.0]]], dtype=D), rtol=1e-12, atol=0.0)
    assert bm.Data.from_arrays([0.0, 1.0], [1.0, 2.0], yerr=2.0).noise.flatten().tolist() == [4.0, 4.0]
    assert bm.Data.from_arrays([0.0], [1.0]).noise is None


@pytest.mark.parametrize(
    ("yerr", "error", "message"),
    [
        ([0.1, -0.2], DataError, r"yerr, standard deviations, not to be negative, got -0\.2 at row 1"),
        ([0.1, float("nan")], DataError, "yerr to be finite, got nan at index"),
        ([0.1, 0.2, 0.3], ShapeError, r"yerr of the shape of y, \(2, 1\), got \(3,\)"),
        ([[0.1, 0.2]], ShapeError, r"got \(1, 2\)"),
        (["a", "b"], DataError, "yerr to hold numbers"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_impossible_deviations_are_refused(yerr: list, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        bm.Data.from_arrays([0.0, 1.0], [1.0, 2.0], yerr=yerr)


@pytest.mark.usefixtures("unchecked")
def test_noise_of_another_shape_or_of_labels_is_refused() -> None:
    x, y, mask = torch.zeros(1, 2, 1), torch.zeros(1, 2, 1), torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(ShapeError, match=r"noise of the shape of floating y, got \(1, 2\)"):
        bm.Data(x, y, mask, torch.zeros(1, 2))
    with pytest.raises(ShapeError, match=r"int64"):
        bm.Data(x, y[..., 0].long(), mask, torch.zeros(1, 2))


def test_everything_that_moves_points_moves_their_noise() -> None:
    a = bm.Data.from_arrays([0.0, 1.0, 2.0], [5.0, 6.0, 7.0], yerr=[1.0, 2.0, 3.0])
    b = bm.Data.from_arrays([4.0], [8.0])  # of no known noise: none
    both = bm.Data.stack([a, b])
    assert both.noise[..., 0].tolist() == [[1.0, 4.0, 9.0], [0.0, 0.0, 0.0]]
    assert both.select([1, 0]).noise[1, :, 0].tolist() == [1.0, 4.0, 9.0]
    assert both.points([2, 0]).noise[0, :, 0].tolist() == [9.0, 1.0]
    assert both.append(both).noise.shape == (2, 6, 1)
    assert both.append(both).packed().noise[1, :2, 0].tolist() == [0.0, 0.0]
    assert a.append(bm.Data.from_arrays([9.0], [9.0])).noise.flatten().tolist() == [1.0, 4.0, 9.0, 0.0]
    assert bm.Data.from_arrays([9.0], [9.0]).append(a).noise.flatten().tolist() == [0.0, 1.0, 4.0, 9.0]
    assert both.to(torch.float32).noise.dtype == torch.float32
    assert bm.Data.empty(both).noise.shape == (2, 0, 1)
    clone = a.clone()
    a.noise.zero_()
    assert clone.noise.flatten().tolist() == [1.0, 4.0, 9.0]
    with pytest.raises(DataError, match=r"noise within the range of torch.float32"):
        bm.Data.from_arrays([0.0], [1.0], yerr=1e30).to(torch.float32)
    task = bm.Task(
        torch.zeros(1, 1), torch.zeros(1, 1), torch.ones(2, 1), torch.ones(2, 1), query_noise=torch.ones(2, 1)
    )
    batch = bm.TaskBatch.collate([task, task])
    assert batch.support.noise is None
    assert batch.query.noise.shape == (2, 2, 1)
    assert batch.joined().noise[0, :, 0].tolist() == [0.0, 1.0, 1.0]


def test_data_sets_keep_noise_through_splits_groups_and_flat_rows() -> None:
    tasks = _tasks()
    given = {round(float(y), 12): float(v) for y, v in zip(tasks.flat.y, tasks.flat.noise, strict=True)}

    def check(data: bm.Data) -> None:
        for y, v in zip(data.y[data.mask].flatten().tolist(), data.noise[data.mask].flatten().tolist(), strict=True):
            assert given[round(y, 12)] == v

    check(tasks.data)
    check(tasks.select([2, 0]).data)
    check(tasks.pooled(torch.Generator()))
    for part in tasks.split(test=0.5, seed=1):
        check(part.data)
    for split in (bm.tasks.RandomSplit.at(2), bm.tasks.PrefixSplit.at(1)):
        batch = tasks.divided(split, 0)
        check(batch.support)
        check(batch.query)
    batch = tasks.draw(2, bm.tasks.RandomSplit.at(1), torch.Generator().manual_seed(0))
    check(batch.joined())
    long = bm.TaskDataset.from_list([([0.0] * n, [float(n)] * n, [float(n)] * n) for n in (2, 9_000, 3)])
    for _, part in long.by_length():  # padded a few tasks at a time
        data = part.data
        assert bool((data.noise[data.mask] == data.y[data.mask].square()).all())


def test_a_table_with_a_column_of_error_bars() -> None:
    frame = pd.DataFrame(
        {"star": list("abab"), "t": [0.0, 1.0, 2.0, 3.0], "v": [1.0, 2.0, None, 4.0], "e": [0.5, 0.1, None, 2.0]}
    )
    tasks = bm.TaskDataset.from_frame(frame, task="star", x=["t"], y="v", yerr="e")
    assert tasks.task("a").noise.flatten().tolist() == [0.25]  # a row without an outcome needs no error bar
    torch.testing.assert_close(tasks.task("b").noise.flatten(), torch.tensor([0.01, 4.0], dtype=D), rtol=1e-12, atol=0)
    again = bm.tasks.Schema.from_json(tasks.schema.to_json())
    assert again == tasks.schema
    assert again.yerr == ("e",)
    assert torch.equal(bm.TaskDataset.from_schema(frame, again).flat.noise, tasks.flat.noise)
    by_rows = bm.TaskDataset.from_arrays([0.0, 1.0, 3.0], [1.0, 2.0, 4.0], ["a", "b", "b"], yerr=[0.5, 0.1, 2.0])
    assert torch.equal(by_rows.flat.noise, tasks.flat.noise)
    for value, message in ((-1.0, "standard deviations in column 'e', got -1"), (None, "column 'e'")):
        bad = frame.assign(e=[0.5, value, None, 2.0])
        with pytest.raises(DataError, match=message):
            bm.TaskDataset.from_frame(bad, task="star", x=["t"], y="v", yerr="e")
    with pytest.raises(DataError, match="every column in one role"):
        bm.TaskDataset.from_frame(frame, task="star", x=["t"], y="v", yerr="t")
    with pytest.raises(DataError, match="a yerr column for each of the outcomes"):
        bm.TaskDataset.from_frame(frame, task="star", x=[], y=["v", "t"], yerr=["e"])
    with pytest.raises(DataError, match="no known noise of classes"):
        bm.TaskDataset.from_frame(frame.assign(v=list("xyxy")), task="star", x=["t"], y="v", yerr="e")
    with pytest.raises(DataError, match=r"a pair .* or .* got 4 arrays"):
        bm.TaskDataset.from_list([([0.0], [1.0], [0.1], [0.1])])


# --------------------------------------------------------------------------------------------- learners without a place

REFUSING: dict[str, Callable[[], bm.Learner]] = {
    "alpaca of two outputs": lambda: bm.ALPaCA(bm.Identity(1), num_outputs=2),
    "deep kernel of two outputs": lambda: bm.DeepKernelTransfer(bm.Identity(1), num_outputs=2),
    "task scale": lambda: bm.ALPaCA(bm.Identity(1), scale=bm.priors.TaskScale()),
    "task scale of a process": lambda: bm.DeepKernelTransfer(bm.Identity(1), scale=bm.priors.TaskScale()),
    "task scale of a mixture": lambda: bm.MixtureALPaCA(bm.Identity(1), scale=bm.priors.TaskScale()),
    "student-t": lambda: bm.MAML(bm.MLP(1, [4]), likelihood=bm.likelihoods.StudentT()),
    "heteroscedastic": lambda: bm.MAML(bm.MLP(1, [4]), likelihood=bm.likelihoods.HeteroscedasticGaussian()),
    "neural process": lambda: bm.ConditionalNeuralProcess(bm.Identity(1)),
    "latent neural process": lambda: bm.LatentNeuralProcess(bm.Identity(1)),
    "recalibrated": lambda: bm.wrappers.VarianceScaled(bm.ALPaCA(bm.Identity(1))),
    "autoregressive": lambda: bm.wrappers.Autoregressive(bm.ALPaCA(bm.Identity(1))),
}


@pytest.mark.parametrize("which", REFUSING)
def test_a_learner_that_cannot_use_noise_refuses_it_everywhere(which: str) -> None:
    learner = REFUSING[which]()
    count = learner.outcomes.count
    known = bm.Data.from_arrays([0.0, 1.0], np.ones((2, count)), yerr=0.1)
    unknown = bm.Data.from_arrays([0.0, 1.0], np.ones((2, count)))
    refused = pytest.raises(UnsupportedError, match=r"without known noise \(yerr\)")
    with refused:
        learner.adapt(known)
    with refused:
        learner.meta_loss(bm.TaskBatch(unknown, known))
    with refused:
        learner.meta_loss(bm.TaskBatch(known, unknown))
    with refused:
        learner.log_evidence(known)
    with refused:
        learner.adapt(unknown).update(known)
    with refused:
        learner.adapt(unknown).predict([0.5], yerr=0.1)


def test_likelihoods_without_a_place_refuse_it_too() -> None:
    data = bm.Data.from_arrays([0.0], [1.0], yerr=0.1)
    for likelihood in (bm.likelihoods.StudentT(), bm.likelihoods.HeteroscedasticGaussian()):
        f = torch.zeros(1, 1, likelihood.network_outputs)
        with pytest.raises(UnsupportedError, match="no place for known noise"):
            likelihood.log_prob(f, data)
        with pytest.raises(UnsupportedError, match="no place for known noise"):
            likelihood.curvature_of(f, data)


def test_recalibration_and_conformal_regions_refuse_it() -> None:
    learner, tasks = bm.ALPaCA(bm.Identity(1)).double(), _tasks()
    with pytest.raises(UnsupportedError, match="without known noise"):
        bm.calibration.variance_scaling(learner, tasks, shots=[2])
    with pytest.raises(UnsupportedError, match="outcomes without known noise"):
        bm.calibration.HierarchicalConformal(learner, tasks, shots=2)
    known, unknown = bm.Data.from_arrays([0.0, 1.0], [0.1, 0.9], yerr=0.1), bm.Data.from_arrays([2.0], [2.1])
    with pytest.raises(UnsupportedError, match="outcomes without known noise"):
        bm.calibration.SplitConformal(learner).adapt(unknown, known)
    assert bm.calibration.SplitConformal(learner).adapt(known, unknown) is not None  # what is adapted to may have it


# ------------------------------------------------------------------------------------ likelihoods that add it, by hand

LIKELIHOODS: dict[str, Callable[[], bm.likelihoods.Likelihood]] = {
    "gaussian": lambda: bm.likelihoods.Gaussian(bm.noise.DiagonalNoise(2, initial=0.3)),
    "full": lambda: bm.likelihoods.Gaussian(bm.noise.FullNoise(2, initial=0.3)),
    "proportional": lambda: bm.likelihoods.ProportionalGaussian(2, 0.3, 0.4),
    "censored": lambda: bm.likelihoods.Censored(bm.likelihoods.ProportionalGaussian(2, 0.3, 0.4), limit=-3.0),
}


@pytest.mark.parametrize("which", LIKELIHOODS)
def test_known_noise_is_added_to_the_variance_and_zero_changes_nothing(which: str) -> None:
    likelihood = LIKELIHOODS[which]().double()
    f, y = torch.randn(3, 4, 2, dtype=D), torch.randn(3, 4, 2, dtype=D)
    noise = torch.rand(3, 4, 2, dtype=D)
    mask = torch.rand(3, 4) < 0.7
    data = bm.Data(torch.zeros(3, 4, 1, dtype=D), y, mask, noise)
    variance = likelihood(f).variance if which != "censored" else likelihood.likelihood(f).variance
    each = torch.distributions.Normal(f, (variance + noise).sqrt()).log_prob(y).sum(-1)
    expected = torch.where(mask, each, 0.0).sum(-1)
    torch.testing.assert_close(likelihood.log_prob(f, data), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(likelihood.given(data)(f), expected, rtol=1e-10, atol=1e-10)
    zero = bm.Data(data.x, y, mask, torch.zeros_like(noise))
    none = bm.Data(data.x, y, mask)
    torch.testing.assert_close(likelihood.log_prob(f, zero), likelihood.log_prob(f, none), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        likelihood.curvature_of(f, zero), likelihood.curvature_of(f, none), rtol=1e-10, atol=1e-12
    )
    # the information of a Gaussian whose variance v = v(f) + s² is 1 / v + v'² / (2 v²)
    if which in ("gaussian", "proportional"):
        slope = 2.0 * 0.16 * f if which == "proportional" else torch.zeros_like(f)
        total = variance + noise
        information = total.reciprocal() + 0.5 * (slope / total).square()
        root = likelihood.curvature_of(f, data).diagonal(dim1=-2, dim2=-1)
        torch.testing.assert_close(root.square(), information, rtol=1e-6, atol=0.0)  # the bounds of b bend it by 1e-6


# --------------------------------------------------------------------------------------- every way to a held-out score


def test_held_out_scores_use_the_noise_of_the_query() -> None:
    learner, tasks = bm.ALPaCA(bm.Identity(1)).double(), _tasks()
    batch = tasks.divided(bm.tasks.RandomSplit.at(2), 0)
    (part,) = predicted(learner, batch.support, batch.query)
    own = learner.adapt(batch.support).predict(batch.query.x)
    torch.testing.assert_close(part.predictive.variance, own.variance + batch.query.noise, rtol=1e-12, atol=1e-12)
    loss = -part.predictive.marginal_log_prob(part.y)
    expected = torch.where(part.mask, loss, 0.0).sum(-1) / batch.query.counts
    torch.testing.assert_close(learner.meta_loss(batch), expected, rtol=1e-12, atol=1e-12)
    for task, place, found in left_one_out(learner, learner.conform(tasks.data)):
        noise = tasks.data.noise[task, place][:, None]
        latent = found.predictive.noiseless.variance + learner.prior.noise.variance()
        torch.testing.assert_close(found.predictive.variance, latent + noise, rtol=1e-12, atol=1e-12)
    table = bm.evaluate(learner, tasks, shots=[0, 2], num_bootstrap=0).table()
    assert bool(np.isfinite(table["nll"]).all())
    assert bool((learner.surprise(tasks.data) > 0.0).all())


def test_deviations_of_a_prediction_in_every_shape_they_may_have() -> None:
    posterior = bm.ALPaCA(bm.Identity(1)).double().adapt(bm.Data.from_arrays([0.0, 1.0], [0.3, 0.7]))
    plain = posterior.predict([0.5, 2.0]).variance
    for yerr in (3.0, [3.0, 3.0], [[3.0], [3.0]], [[[3.0], [3.0]]]):
        torch.testing.assert_close(posterior.predict([0.5, 2.0], yerr).variance, plain + 9.0, rtol=1e-12, atol=0.0)
    assert posterior.predict([0.5, 2.0], [1.0, 2.0]).noiseless.variance.allclose(
        posterior.predict([0.5, 2.0]).noiseless.variance
    )
    with pytest.raises(ShapeError, match=r"yerr of shape \(1, 2, 1\), as the prediction"):
        posterior.predict([0.5, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(DataError, match="not to be negative"):
        posterior.predict([0.5, 2.0], -1.0)
    classifier = bm.R2D2(bm.Identity(1), num_classes=2).adapt(bm.Data.from_labels([0.0, 1.0], [0, 1]))
    with pytest.raises(UnsupportedError, match="without known noise"):
        classifier.predict([0.5], yerr=1.0)
