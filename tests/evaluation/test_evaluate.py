import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from bayesmeta.data import Data
from bayesmeta.errors import DataError, InferenceError, ShapeError
from bayesmeta.evaluation import bootstrap, metrics
from bayesmeta.evaluation.evaluate import _divide, evaluate
from bayesmeta.evaluation.scores import ShotScores
from bayesmeta.outcomes import Numbers
from bayesmeta.predictives import AffinePredictive, IndependentPredictive, Predictive
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.simulators.gaussian_blobs import GaussianBlobs
from bayesmeta.tasks.source import ClassSplit, PrefixSplit, RandomSplit
from tests.evaluation.exact import ClassShares, MeanPosterior, NormalMean, SharePosterior, label_tasks, normal_tasks


def test_every_column_is_its_definition_on_one_task_at_a_time() -> None:
    tasks = normal_tasks(7, [4, 9, 6, 12, 5, 3, 8], seed=0)
    learner = NormalMean(noise=0.3, bias=0.2)
    evaluation = evaluate(learner, tasks, (2,), query=4, num_bootstrap=20)
    row, scores = evaluation.table().loc[2], evaluation.at(2).scores
    divided = tasks.divided(RandomSplit.at(2, 4), 0)
    squares, points, nll, regret, rmse, inside, width = 0.0, 0, [], [], [], [], []
    for i in range(7):
        support, query = divided.support.select([i]), divided.query.select([i])
        real = query.mask[0]
        predictive = learner.condition(support).at(query.x[:, real])
        best = tasks.oracle.condition(support).at(query.x[:, real])
        y = query.y[:, real]
        each = -predictive.marginal_log_prob(y)[0]
        nll.append(float(each.mean()))
        regret.append(float((best.marginal_log_prob(y)[0] + each).mean()))
        lower, upper = predictive.interval(0.9)
        squares += float((predictive.mean - y).square().sum())
        inside.append(float(((lower <= y) & (y <= upper)).double().mean()))
        width.append(float((upper - lower).mean()))
        points += int(real.sum())
        rmse.append(float((predictive.mean - y).square().mean().sqrt()))
        assert scores["crps"][i] == pytest.approx(float(metrics.crps(predictive, y)))
        error = metrics.root_mean_square_calibration_error(metrics.pit(predictive, y))
        assert scores["task_calibration_error"][i] == pytest.approx(float(error))
    np.testing.assert_allclose(scores["nll"], nll)
    np.testing.assert_allclose(scores["regret"], regret, atol=1e-12)
    assert row["tasks"] == 7
    assert row["points"] == points
    assert row["nll"] == pytest.approx(np.mean(nll))
    assert row["regret"] == pytest.approx(np.mean(regret))
    assert row["rmse"] == pytest.approx(np.mean(rmse))
    assert row["pooled_rmse"] == pytest.approx(math.sqrt(squares / points))
    # every task counts alike, whatever the number of its points
    assert row["coverage"] == pytest.approx(np.mean(inside))
    assert row["width"] == pytest.approx(np.mean(width))
    curve = evaluation.at(2).curve().mean(0)  # from .05 to .95: what the reliability diagram says of the same interval
    assert curve[-1] - curve[0] == pytest.approx(row["coverage"])
    assert row["nll"] - row["oracle_nll"] == pytest.approx(row["regret"])


def test_the_oracle_has_no_regret_and_covers_at_the_nominal_level() -> None:
    tasks = normal_tasks(400, 30, seed=1)
    table = evaluate(tasks.oracle, tasks, (0, 1, 5, 20), num_bootstrap=200).table()
    assert (table["regret"] == 0.0).all()
    np.testing.assert_allclose(table["floor"], 0.0, atol=1e-12)  # the oracle is itself Gaussian: rounding only
    for shots in table.index:
        # binomial with 400 independent tasks at worst (the points of a task are dependent): four deviations
        assert abs(table.loc[shots, "coverage"] - 0.9) < 4.0 * math.sqrt(0.9 * 0.1 / 400)
        # chance has this size by definition; three times it is rarer than 1 in 1000
        assert table.loc[shots, "calibration_error"] < 3.0 * table.loc[shots, "calibration_noise"]
    # within a task the errors share one posterior: the floor of the per-task error does not vanish, pooling does it
    assert table.loc[0, "task_calibration_error"] > 5.0 * table.loc[0, "calibration_error"]
    np.testing.assert_array_equal(table["task_calibration_error"], table["oracle_task_calibration_error"])


@pytest.mark.parametrize(("learner", "wrong"), [(NormalMean(claimed=0.25), 0.05), (NormalMean(bias=1.0), 0.1)])
def test_a_wrong_learner_is_found_out(learner: NormalMean, wrong: float) -> None:
    tasks = normal_tasks(200, 30, seed=2)
    row = evaluate(learner, tasks, (5,), num_bootstrap=100).table().loc[5]
    assert row["regret_low"] > 0.0
    assert row["calibration_error"] > max(wrong, 3.0 * row["calibration_noise"])


def test_regret_is_the_divergence_from_the_truth() -> None:
    """At zero shots y ~ N(0, v) and the learner says N(b, c v): regret is KL = (c⁻¹ - 1 + log c + b²/(c v)) / 2."""
    tasks = normal_tasks(4000, 1, seed=3)  # one point a task: independent draws
    v, c, b = 1.5, 2.0, 0.5
    result = evaluate(NormalMean(claimed=c, bias=b), tasks, (0,), num_bootstrap=0).at(0).scores["regret"]
    divergence = 0.5 * (1.0 / c - 1.0 + math.log(c) + b**2 / (c * v))
    assert result.mean() == pytest.approx(divergence, abs=4.0 * result.std() / math.sqrt(4000))  # four standard errors


class TwoModes(NormalMean):
    """y is 3 or -3, plus N(0, 1), whatever was seen."""

    def condition(self, support: Data) -> "TwoModesPosterior":
        nothing = torch.zeros(support.num_tasks)
        return TwoModesPosterior(spec=support.spec, mean=nothing, variance=nothing, noise=1.0)


class TwoModesPosterior(MeanPosterior):
    def at(self, x: Tensor) -> Predictive:
        means = torch.tensor([-3.0, 3.0], dtype=x.dtype).expand(*x.shape[:2], 1, 2)
        mixing = Categorical(probs=torch.full_like(means, 0.5))
        return IndependentPredictive(Independent(MixtureSameFamily(mixing, Normal(means, torch.ones_like(means))), 1))


def test_floor_is_the_regret_of_the_best_gaussian() -> None:
    generator = torch.Generator().manual_seed(4)
    sign = 2.0 * torch.randint(0, 2, (500, 21, 1), generator=generator) - 1.0
    y = (3.0 * sign + torch.randn(500, 21, 1, generator=generator)).double()
    tasks = TaskDataset(Data.full(torch.rand_like(y), y), oracle=TwoModes())
    # y has mean 0 and variance 9 + 1: at zero shots NormalMean(tau2=9, noise=1) says exactly N(0, 10)
    best = evaluate(NormalMean(9.0, 1.0), tasks, (0,), num_bootstrap=0, oracle=TwoModes()).table().loc[0]
    assert best["regret"] == pytest.approx(best["floor"], abs=1e-12)
    # log sqrt(10) for the wider Gaussian, less log 2 for the coin (the modes hardly overlap); 0.05 is chance
    assert best["floor"] == pytest.approx(math.log(math.sqrt(10.0)) - math.log(2.0), abs=0.05)
    for learner in (NormalMean(9.0, 2.0), NormalMean(9.0, 0.3), NormalMean(9.0, 1.0, bias=0.5)):
        assert (
            evaluate(learner, tasks, (0,), num_bootstrap=0, oracle=TwoModes()).table().loc[0, "regret"] > best["floor"]
        )


def test_bootstrap_interval_covers_the_truth() -> None:
    """Of 300 evaluations of 40 tasks, about 95 % of the intervals hold the true expected score."""
    truth = 0.5 * math.log(2.0 * math.pi * 1.5) + 0.5  # entropy of N(0, 1.5)
    covered = 0
    for seed in range(300):
        row = evaluate(NormalMean(), normal_tasks(40, 4, seed), (0,), num_bootstrap=200, seed=seed).table().loc[0]
        covered += row["nll_low"] <= truth <= row["nll_high"]
    # percentile intervals of a skewed mean of 40 fall short by about .02; four binomial deviations are .05
    assert 0.95 - 0.02 - 0.05 < covered / 300 < 0.95 + 0.05


def test_calibration_noise_is_the_error_that_chance_makes() -> None:
    """Against repeating the whole experiment: for calibrated learners, RMS over repetitions."""
    errors, noises = [], []
    for seed in range(200):
        found = evaluate(NormalMean(), normal_tasks(40, 12, seed), (2,), num_bootstrap=0).at(2).calibration()
        errors.append(found["calibration_error"])
        noises.append(found["calibration_noise"])
    # the RMS of 200 errors, each with about 3 effective degrees of freedom, is known to 1/sqrt(2 * 200 * 3) = 3 %
    assert np.sqrt(np.mean(np.square(noises))) == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=0.12)


def test_ece_noise_is_the_error_that_chance_makes() -> None:
    errors, noises = [], []
    for seed in range(200):
        found = evaluate(ClassShares(), label_tasks(60, 20, seed), (5,), num_bootstrap=0).at(5).calibration()
        errors.append(found["ece"])
        noises.append(found["ece_noise"])
    # bins with few tasks are not normal and their noise is estimated from themselves: a tenth, plus 3 % of chance
    assert np.mean(noises) == pytest.approx(np.mean(errors), rel=0.13)


def test_query_points_are_the_same_at_every_number_of_shots() -> None:
    tasks = normal_tasks(5, [30, 12, 6, 3, 2], seed=5)
    for split in (RandomSplit, PrefixSplit):
        for query in (None, 4):
            shots = (0, 1, 5, 10)
            supports, query_points = _divide(tasks, shots, split, query, seed=0)
            for i, count in enumerate(tasks.data.counts.tolist()):
                largest = max(s for s in shots if s < count)
                left = count - largest
                scored = query_points.x[i, query_points.mask[i]].flatten().tolist()
                assert len(scored) == (left if query is None else min(left, query))
                for shot, support in zip(shots, supports, strict=True):
                    if shot < count:
                        seen = support.x[i, support.mask[i]].flatten().tolist()
                        assert len(seen) == shot
                        assert not set(seen) & set(scored)


def test_points_do_not_depend_on_the_order_or_presence_of_other_shots() -> None:
    tasks = normal_tasks(20, 30, seed=6)
    up = evaluate(NormalMean(), tasks, (0, 5, 10), num_bootstrap=0)
    down = evaluate(NormalMean(), tasks, (10, 0), num_bootstrap=0)
    for shots in (0, 10):
        assert np.array_equal(up.at(shots).scores["nll"], down.at(shots).scores["nll"])


def test_tasks_with_too_few_points_are_left_out_and_counted() -> None:
    tasks = normal_tasks(6, [2, 3, 6, 7, 11, 20], seed=7)
    evaluation = evaluate(NormalMean(), tasks, (40, 0, 2, 5, 10), num_bootstrap=50)
    table = evaluation.table()
    assert table.index.tolist() == [40, 0, 2, 5, 10]
    assert table["tasks"].tolist() == [0, 6, 5, 4, 2]
    assert table.loc[40].drop(["tasks", "points"]).isna().all()
    assert table.drop(40).notna().all().all()
    assert evaluation.at(10).names == (4, 5)
    assert evaluation.worst(1)["shots"].tolist() == [10]
    assert set(evaluation.per_task()["shots"]) == {0, 2, 5, 10}
    assert "40" in str(evaluation)


def test_one_task_has_estimates_but_no_interval() -> None:
    row = evaluate(NormalMean(), normal_tasks(1, 9, seed=8), (2,)).table().loc[2]
    assert math.isfinite(row["nll"])
    assert math.isnan(row["nll_low"])
    assert math.isnan(row["calibration_noise"])


def test_batches_and_padding_never_matter() -> None:
    tasks = normal_tasks(11, [5, 9, 4, 12, 30, 4, 7, 8, 9, 10, 6], seed=9)
    pads = ~tasks.data.mask
    dirty = Data(
        torch.where(pads[..., None], 1e6, tasks.data.x),
        torch.where(pads[..., None], -1e6, tasks.data.y),
        tasks.data.mask,
    )
    whole = evaluate(NormalMean(), tasks, (3,), num_bootstrap=0).at(3).scores
    pieces = evaluate(NormalMean(), tasks, (3,), num_bootstrap=0, batch_size=2).at(3).scores
    other = evaluate(NormalMean(), TaskDataset(dirty, oracle=tasks.oracle), (3,), num_bootstrap=0).at(3).scores
    for name, value in whole.items():
        np.testing.assert_allclose(pieces[name], value, rtol=1e-12, atol=1e-12)  # sums in another order
        np.testing.assert_array_equal(other[name], value)


def test_learner_is_left_as_it_was_and_global_randomness_untouched() -> None:
    learner = NormalMean()
    learner.weight = torch.nn.Parameter(torch.zeros(3))  # a float32 parameter: tasks are brought to its precision
    state = torch.get_rng_state()
    result = evaluate(learner, normal_tasks(5, 8, seed=1), (2,), num_bootstrap=10)
    assert torch.equal(state, torch.get_rng_state())
    assert learner.weight.requires_grad
    assert learner.weight.grad is None
    # the oracle works in float64, the learner in float32 with seven digits
    np.testing.assert_allclose(result.at(2).scores["regret"], 0.0, atol=1e-5)


def test_classification_scores() -> None:
    tasks = label_tasks(150, 30, seed=10)
    table = evaluate(ClassShares(), tasks, (0, 1, 10), num_bootstrap=50).table()
    assert (table["regret"] == 0.0).all()
    assert table.loc[0, "nll"] == pytest.approx(math.log(3.0))  # uniform over three classes
    assert table.loc[0, "brier"] == pytest.approx(2.0 / 3.0)
    assert table.loc[10, "accuracy"] > table.loc[0, "accuracy"]
    # the noise is a mean of absolute values: three times it is far in the tail
    assert (table["ece"] <= 3.0 * table["ece_noise"]).all()  # without a shot all classes tie, and both are zero
    liar = evaluate(ClassShares(power=3.0), tasks, (10,), num_bootstrap=50)
    row = liar.table().loc[10]
    assert row["regret_low"] > 0.0
    assert row["ece"] > 3.0 * row["ece_noise"]
    result = liar.at(10)
    whole = metrics.ece(*(torch.from_numpy(v)[None] for v in (result.confidence, result.correct)))
    assert row["ece"] == pytest.approx(float(whole))
    assert "rmse" not in table
    assert "floor" not in table
    worst = liar.worst(3, by="accuracy")
    assert worst["accuracy"].is_monotonic_increasing


def test_shots_of_a_class_split_are_of_each_class() -> None:
    blobs = GaussianBlobs(ways=3)
    tasks = blobs.episodes(30, 8)
    evaluation = evaluate(blobs.oracle, tasks, (0, 1, 5), split=ClassSplit, query=3, num_bootstrap=20)
    for shots in (0, 1, 5):
        scores = evaluation.at(shots)
        assert scores.points.tolist() == [9] * 30  # 3 of each class
        divided = tasks.divided(ClassSplit.at(shots, 3), 0)
        assert divided.support.counts.tolist() == [3 * shots] * 30
        predictive = blobs.oracle.adapt(divided.support).predict(divided.query.x)
        nll = metrics.marginal_nll(predictive, divided.query.y, divided.query.mask)
        np.testing.assert_allclose(scores.scores["nll"], nll)
    table = evaluation.table()
    assert table["nll"].is_monotonic_decreasing
    columns = {f"{name}{end}" for name in ("nll", "accuracy", "brier") for end in ("", "_low", "_high")}
    assert columns | {"ece", "ece_noise"} <= set(table.columns)


def test_a_task_needs_a_point_of_every_class_beside_the_shots() -> None:
    x = [np.arange(float(n)) for n in (6, 5, 2)]
    tasks = TaskDataset.from_labels(
        list(zip(x, ([0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1], [0, 1]), strict=True)), list("abc")
    )
    evaluation = evaluate(ClassShares(2), tasks, (0, 1, 2, 3), split=ClassSplit, num_bootstrap=0)
    assert [r.names for r in evaluation.results] == [tuple("abc"), tuple("ab"), ("a",), ()]
    supports, query = _divide(tasks, (0, 1, 2, 3), ClassSplit, None, 0)
    for shot, support in zip((0, 1, 2, 3), supports, strict=True):
        for t in range(3):
            if tasks.names[t] in evaluation.at(shot).names:
                given = set(support.x[t, support.mask[t], 0].tolist())
                assert len(given) == 2 * shot
                assert not given & set(query.x[t, query.mask[t], 0].tolist())
    # what is left at the largest number of shots that the task has room for: 1 of each class; of b one more of class 0
    assert query.counts.tolist() == [2, 3, 2]
    with pytest.raises(DataError, match=r"expected a task with more than 3 points of every class, .*got at most 3"):
        evaluate(ClassShares(2), tasks, (3, 4), split=ClassSplit)


def test_several_outputs_without_an_oracle() -> None:
    x, y = torch.rand(6, 9, 1, dtype=torch.float64), torch.randn(6, 9, 2, dtype=torch.float64)
    tasks = TaskDataset(Data.full(x, y), names=list("abcdef"))
    evaluation = evaluate(NormalMean(), tasks, (0, 3), num_bootstrap=10)
    assert evaluation.at(3).pit.shape == (36, 2)
    assert evaluation.at(3).log_density.shape == (36,)
    assert "regret" not in evaluation.table()
    assert evaluation.worst(2)["task"].isin(list("abcdef")).all()


def test_outcomes_have_scores_of_their_own_and_are_never_pooled() -> None:
    """Of two outcomes, one in units a thousand times the other's: each is scored as if it were alone."""
    units = torch.tensor([1.0, 1000.0], dtype=torch.float64)
    both = normal_tasks(12, [4, 9, 6, 12, 5, 3, 8, 7, 6, 9, 10, 4], seed=0)
    second = normal_tasks(12, both.counts.tolist(), seed=1)
    y = torch.cat([both.data.y, second.data.y], -1)
    tasks = TaskDataset(Data(both.data.x, units * y, both.data.mask))

    class Scaled(NormalMean):
        def condition(self, support: Data) -> MeanPosterior:
            found = super().condition(replace(support, y=support.y / units))
            return ScaledPosterior(spec=support.spec, mean=found.mean, variance=found.variance, noise=found.noise)

    class ScaledPosterior(MeanPosterior):
        def at(self, x: Tensor) -> Predictive:
            return AffinePredictive(super().at(x), torch.zeros_like(units), units)

    evaluation = evaluate(Scaled(), tasks, (0, 2, 11), num_bootstrap=20)
    whole, each = evaluation.table(), evaluation.by_outcome()
    assert not {"rmse", "pooled_rmse", "mae", "crps", "width", "sharpness"} & set(whole.columns)
    assert list(each) == ["y1", "y2"]
    names = ["nll", "rmse", "mae", "crps", "coverage", "width", "sharpness", "calibration_error", "calibration_noise"]
    for data, name, unit in ((both, "y1", 1.0), (second, "y2", 1000.0)):
        alone = evaluate(NormalMean(), TaskDataset(data.data), (0, 2, 11), num_bootstrap=20).table()
        found = each[name].table()
        scale = pd.Series({"rmse": unit, "mae": unit, "crps": unit, "width": unit, "sharpness": unit**2})
        expected = alone[names] * scale.reindex(names).fillna(1.0)
        expected["nll"] += math.log(unit)
        # the quantiles of an affine predictive come by another route than those of a Gaussian
        np.testing.assert_allclose(found[names], expected, rtol=1e-6)
    mean = sum(table.table()["coverage"] for table in each.values()) / 2.0
    np.testing.assert_allclose(whole["coverage"], mean)
    joint = sum(table.table()["nll"] for table in each.values())  # these outcomes are independent
    np.testing.assert_allclose(whole["nll"], joint)
    own = each["y2"].table()
    assert evaluation.all_tables().loc["y2", own.columns].equals(own)
    printed = str(evaluation).split("\n\n")
    assert [part.splitlines()[0].split(":")[0] for part in printed] == ["Scaled", "Scaled, y1", "Scaled, y2"]
    assert evaluation._repr_html_().count("<table>") == 3
    alone = evaluate(NormalMean(), both, (2,), num_bootstrap=0)
    assert alone.by_outcome()["y"] is alone
    assert alone.all_tables().equals(alone.table())


def test_worst_tasks_come_first() -> None:
    evaluation = evaluate(NormalMean(), normal_tasks(30, 10, seed=11), (0, 4), num_bootstrap=0)
    worst = evaluation.worst(4, shots=0, by="crps")
    scores = evaluation.at(0).scores["crps"]
    assert worst["task"].tolist() == np.argsort(-scores)[:4].tolist()
    with pytest.raises(DataError, match="expected one of the scores"):
        evaluation.worst(by="beauty")
    with pytest.raises(DataError, match="expected one of the evaluated numbers of shots"):
        evaluation.worst(shots=3)
    with pytest.raises(DataError, match="expected at least one task"):
        evaluation.worst(0)


def test_printed_table_is_aligned_and_fits_on_a_line() -> None:
    evaluation = evaluate(NormalMean(claimed=0.5), normal_tasks(30, 20, seed=12), num_bootstrap=100)
    title, *lines = str(evaluation).splitlines()
    assert "NormalMean" in title
    assert len(lines) == 6
    assert len({len(line) for line in lines}) == 1
    assert max(map(len, [title, *lines])) <= 150
    assert "±" in lines[1]
    assert "coverage 90 %" in lines[0]
    html = evaluation._repr_html_()
    assert html.count("<tr>") == 6
    assert repr(evaluation) == str(evaluation)


def test_infinite_scores_stay_infinite() -> None:
    scores = {"nll": np.array([1.0, np.inf, 2.0])}
    result = ShotScores(0, (0, 1, 2), np.array([1, 1, 1]), scores, np.ones((3, 1), dtype=bool))
    averages = result.averages(np.array([[1.0, 1.0, 1.0], [1.0, 0.0, 2.0]]))["nll"]
    assert averages.tolist() == [math.inf, 5.0 / 3.0]


def test_evaluating_imports_neither_pandas_nor_matplotlib() -> None:
    code = (
        "import sys, bayesmeta.evaluation.evaluate, bayesmeta.plotting;"
        "assert not {'pandas', 'matplotlib'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class Broken(NormalMean):
    def condition(self, support: Data) -> MeanPosterior:
        posterior = super().condition(support)
        posterior.mean[-1] = math.nan
        return posterior


class Guess(ClassShares):
    def condition(self, support: Data) -> SharePosterior:
        return SharePosterior(spec=support.spec, probs=torch.full((support.num_tasks, self.num_classes), 1.0 / 3.0))


class Narrow(NormalMean):
    def condition(self, support: Data) -> MeanPosterior:
        posterior = super().condition(support)
        return MeanPosterior(
            spec=posterior.spec, mean=posterior.mean[:, :1], variance=posterior.variance, noise=posterior.noise
        )


def test_wrong_questions_have_clear_answers(unchecked: None) -> None:
    tasks = normal_tasks(5, 6, seed=13)
    for shots in ((-1, 2), (), (2, 2)):
        with pytest.raises(DataError, match="expected distinct numbers of shots"):
            evaluate(NormalMean(), tasks, shots)
    with pytest.raises(DataError, match="expected a task with more than 6 points"):
        evaluate(NormalMean(), tasks, (6, 7))
    for level in (0.0, 1.0):
        with pytest.raises(DataError, match="expected an interval level"):
            evaluate(NormalMean(), tasks, level=level)
    with pytest.raises(DataError, match="expected at least one query point"):
        evaluate(NormalMean(), tasks, query=0)
    with pytest.raises(DataError, match="number of bootstrap resamplings >= 0, got -1"):
        evaluate(NormalMean(), tasks, num_bootstrap=-1)
    with pytest.raises(DataError, match="expected at least one task in a batch"):
        evaluate(NormalMean(), tasks, batch_size=0)
    with pytest.raises(InferenceError, match="task 4 at 0 shots, got NaN"):
        evaluate(Broken(), tasks)
    two = TaskDataset(Data(tasks.data.x, tasks.data.y.repeat(1, 1, 2), tasks.data.mask))
    with pytest.raises(ShapeError, match="expected predictions of shape"):
        evaluate(Narrow(), two)
    demanding = NormalMean()
    demanding.outcomes = Numbers(3)
    with pytest.raises(ShapeError, match="expected data with x"):
        evaluate(demanding, tasks)
    labels = label_tasks(5, 20, seed=1)
    with pytest.raises(DataError, match="expected tasks whose outcomes are labels"):
        evaluate(Guess(), tasks)
    with pytest.raises(DataError, match="expected labels from 0 to 1"):
        evaluate(ClassShares(num_classes=2), TaskDataset(labels.data), shots=(0,))


def test_long_tasks_among_short_ones_are_scored_as_if_alone() -> None:
    """Groups of similar length, in whose order nothing depends: against one task at a time."""
    tasks = normal_tasks(7, [4, 2600, 6, 100, 5, 3, 8], seed=0)
    assert len(tasks.by_length()) > 1
    found = evaluate(NormalMean(), tasks, (0, 3), split=PrefixSplit, num_bootstrap=10, batch_size=2)
    assert found.at(3).names == tuple(tasks.names[i] for i in (0, 1, 2, 3, 4, 6))
    assert found.at(3).points.tolist() == [1, 2597, 3, 97, 2, 5]
    frame = found.per_task().set_index(["shots", "task"])
    for i, name in enumerate(tasks.names):
        own = evaluate(NormalMean(), tasks.select([i]), (0, 3) if i != 5 else (0,), split=PrefixSplit, num_bootstrap=0)
        alone = own.per_task().set_index(["shots", "task"])
        for shots in own.shots:
            np.testing.assert_allclose(frame.loc[(shots, name)], alone.loc[(shots, name)], rtol=1e-6)
            scores, whole = own.at(shots), found.at(shots)
            place = whole.names.index(name)
            np.testing.assert_allclose(np.split(whole.pit, whole.starts[1:])[place], scores.pit, rtol=1e-6)


def test_the_division_of_a_task_is_the_same_wherever_it_is_asked_for() -> None:
    tasks = normal_tasks(5, [4, 9000, 6, 700, 5], seed=0)
    whole = tasks.divided(RandomSplit.at(2), 3)
    for positions, part in tasks.by_length():
        divided = part.divided(RandomSplit.at(2), 3)
        for place, position in enumerate(positions.tolist()):
            one = tasks.divided_task(position, RandomSplit.at(2), 3)
            assert one.names == (tasks.names[position],)
            for other in (divided.select(slice(place, place + 1)), one):
                assert torch.equal(other.query.x[other.query.mask], whole.query.x[position, whole.query.mask[position]])
                assert torch.equal(other.support.x[0], whole.support.x[position])


def test_bags_of_many_tasks_vary_as_the_tasks_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a table that is sorted neighbours are alike: bags of neighbours would vary as if there were fewer tasks."""
    values = np.sort(np.random.default_rng(0).normal(size=2_000))
    found = []
    for most, numbers in ((10_000, 2**24), (200, 2**24), (200, 5_000)):
        monkeypatch.setattr(bootstrap, "MOST_BAGS", most)
        monkeypatch.setattr(bootstrap, "MOST_NUMBERS", numbers)
        weights = np.concatenate(list(bootstrap.resampled(len(values), 2_000)))
        assert weights.shape == (2_000, 2_000)
        found.append((weights @ values / weights.sum(1)).std() * len(values) ** 0.5 / values.std())
    assert abs(found[0] - 1.0) < 4.0 / 4_000**0.5
    assert abs(found[1] - 1.0) < 4.0 * (1.0 / 400 + 1.0 / 4_000) ** 0.5  # 200 bags have a deviation of their own
    assert found[2] == found[1]
