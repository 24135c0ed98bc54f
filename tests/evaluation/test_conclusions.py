"""The sentences of a report, on evaluations whose conclusion is known because they were made so."""

import numpy as np
import pytest
from scipy.stats import binomtest, norm, ttest_1samp

from bayesmeta.evaluation.conclusions import Conclusion, Verdict, conclusions, main_shots, unlike
from bayesmeta.evaluation.conclusions.intervals import mean_share, ratio
from bayesmeta.evaluation.evaluate import evaluate
from bayesmeta.evaluation.scores import Evaluation, ShotScores
from tests.evaluation.exact import ClassShares, NormalMean, label_tasks, normal_tasks


def scores(
    tasks: int,
    shots: int = 0,
    *,
    seed: int = 0,
    points: int = 20,
    scale: float = 1.0,
    shift: float = 0.0,
    within: float = 0.3,
    rmse: np.ndarray | None = None,
    width: float = 1.0,
) -> ShotScores:
    """Standardised errors of deviation `scale` and mean `shift`; `within` is their correlation within a task."""
    rng = np.random.default_rng([seed, shots])
    error = within**0.5 * rng.normal(size=(tasks, 1)) + (1.0 - within) ** 0.5 * rng.normal(size=(tasks, points))
    pit = norm.cdf(scale * error + shift)
    inside = (np.abs(pit - 0.5) <= 0.45).mean(1)
    each = {
        "nll": rng.normal(size=tasks),
        "rmse": np.full(tasks, 1.0) if rmse is None else rmse,
        "coverage": inside,
        "width": np.full(tasks, width),
    }
    return ShotScores(shots, tuple(range(tasks)), np.full(tasks, points), each, pit=pit.reshape(-1, 1))


def said(*results: ShotScores, spread: float | None = None) -> dict[str, list[Conclusion]]:
    """Conclusions by topic."""
    found: dict[str, list[Conclusion]] = {}
    for each in conclusions(Evaluation(results, "Made", 0.9, 0, 0), spread):
        found.setdefault(each.topic, []).append(each)
    return found


def one(found: dict[str, list[Conclusion]], topic: str) -> Conclusion:
    (only,) = found[topic]
    return only


def test_a_calibrated_learner_on_many_tasks_is_good() -> None:
    found = said(scores(600), scores(600, 5))
    for topic in ("Coverage", "Bias", "Calibration"):
        assert one(found, topic).verdict is Verdict.GOOD, found[topic]
    assert one(found, "Evidence").verdict is Verdict.NOTE
    assert "rests on 600 tasks" in one(found, "Evidence").text
    assert "hold what they promise at 0 and 5 shots" in one(found, "Coverage").text
    assert [number.split(":")[0] for number in one(found, "Coverage").numbers] == ["0 shots", "5 shots"]


def test_what_is_wrong_is_named_by_its_name() -> None:
    narrow = said(scores(60, scale=2.0))
    assert one(narrow, "Coverage").verdict is one(narrow, "Calibration").verdict is Verdict.PROBLEM
    assert "Over-confident at 0 shots" in one(narrow, "Coverage").text
    wide = said(scores(60, scale=0.4))
    assert "Too cautious at 0 shots" in one(wide, "Coverage").text
    assert one(wide, "Coverage").verdict is Verdict.PROBLEM
    # outcomes above what was predicted: F(y) is large
    assert "too low at 0 shots" in one(said(scores(60, shift=1.0)), "Bias").text
    assert "too high at 0 shots" in one(said(scores(60, shift=-1.0)), "Bias").text


def test_numbers_of_shots_that_differ_get_sentences_of_their_own() -> None:
    found = said(scores(600), scores(600, 3, scale=2.0), scores(600, 5, scale=2.0))
    problem, good = found["Coverage"]
    assert (problem.verdict, good.verdict) == (Verdict.PROBLEM, Verdict.GOOD)
    assert "at 3 and 5 shots" in problem.text
    assert "at 0 shots" in good.text


@pytest.mark.parametrize("tasks", [1, 2, 6])
def test_few_tasks_cannot_tell(tasks: int) -> None:
    found = said(scores(tasks), scores(tasks, 5, rmse=np.linspace(0.5, 1.4, tasks)))
    for topic in ("Evidence", "Coverage", "Bias", "Calibration", "Learning"):
        assert one(found, topic).verdict is Verdict.UNKNOWN, found[topic]
    assert "only gross faults" in one(found, "Evidence").text


def test_all_outcomes_inside_are_not_more_than_few_tasks_can_say() -> None:
    """Every interval of six tasks held: a bootstrap would be sure that coverage is 100 %."""
    assert one(said(scores(6, scale=0.3)), "Coverage").verdict is Verdict.UNKNOWN
    assert one(said(scores(200, scale=0.3)), "Coverage").verdict is Verdict.PROBLEM


@pytest.mark.parametrize(("tasks", "within"), [(5, 0.1), (12, 0.8)])
def test_a_calibrated_learner_is_rarely_accused(tasks: int, within: float) -> None:
    accused = {"Coverage": 0, "Bias": 0, "Calibration": 0}
    for seed in range(60):
        found = said(*(scores(tasks, shots, seed=seed, within=within) for shots in (0, 5)))
        for topic in accused:
            accused[topic] += any(each.verdict is Verdict.PROBLEM for each in found[topic])
    # Binomial(60, .05) is above 9 about once in 1000
    assert max(accused.values()) <= 9, accused


def test_shares_of_zero_and_one_have_clopper_pearsons_interval() -> None:
    for hits, tasks in ((320, 400), (7, 9), (8, 8), (0, 5)):
        found = mean_share((np.arange(tasks) < hits).astype(float), 0.05)
        exact = binomtest(hits, tasks).proportion_ci(0.95)
        # 8,000 draws: a quantile's own deviation is about sqrt(.025 / 8000) / density, below .006 here
        assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=0.015)
        assert found.estimate == hits / tasks


def test_shares_of_many_tasks_have_the_normal_interval() -> None:
    values = np.random.default_rng(0).beta(9.0, 1.0, 2000)
    found, half = mean_share(values, 0.05), 1.96 * values.std() / 2000**0.5
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half + 5e-4)


def test_a_ratio_to_a_constant_is_the_t_interval() -> None:
    values = np.random.default_rng(0).normal(1.0, 0.3, 9)
    found = ratio(values, np.full(9, 2.0), 0.05)
    exact = ttest_1samp(values / 2.0, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))


def test_learning_is_what_it_is() -> None:
    rng = np.random.default_rng(0)
    before = rng.uniform(0.8, 1.2, 40)

    def verdict(after: np.ndarray) -> Conclusion:
        return one(said(scores(40, 0, rmse=before), scores(40, 5, rmse=after)), "Learning")

    better = verdict(0.5 * before + rng.normal(0.0, 0.05, 40))
    assert better.verdict is Verdict.GOOD
    assert "falls by 49 % (47 to 50 %)" in better.text
    assert "from 0 to 5 shots, on the same 40 tasks" in better.text
    worse = verdict(1.5 * before + rng.normal(0.0, 0.05, 40))
    assert (worse.verdict, worse.text[:18]) == (Verdict.PROBLEM, "Adapting does harm")
    assert "rises by" in worse.text
    same = verdict(before + rng.normal(0.0, 0.02, 40))
    assert (same.verdict, same.text[:23]) == (Verdict.NOTE, "Adapting changes little")
    unclear = verdict(before + rng.normal(0.0, 0.8, 40))
    assert (unclear.verdict, "cannot be told" in unclear.text) == (Verdict.UNKNOWN, True)


def test_steps_that_help_are_told_from_those_that_do_not() -> None:
    rng = np.random.default_rng(0)
    first = rng.uniform(0.8, 1.2, 40)
    second = 0.5 * first + rng.normal(0.0, 0.03, 40)
    third = second + rng.normal(0.0, 0.01, 40)
    rows = [scores(40, shots, rmse=rmse) for shots, rmse in ((0, first), (2, second), (5, third))]
    found = one(said(*rows[::-1]), "Step by step")  # rows may come in any order
    assert "0 to 2 clearly help; 2 to 5 change little" in found.text
    assert len(found.numbers) == 2
    assert "Step by step" not in said(*rows[:2])
    assert "Learning" not in said(rows[0])


def test_errors_are_compared_on_the_same_tasks() -> None:
    """Only tasks that were easy all along have room for 5 shots; adapting does nothing."""
    rmse = np.concatenate([np.full(30, 1.0), np.full(30, 3.0)]) + 0.01 * np.arange(60)
    few = scores(30, 5, rmse=rmse[:30])
    found = said(scores(60, 0, rmse=rmse), few)
    assert one(found, "Learning").text.startswith("Adapting changes little")
    assert "there are 30 at 5 shots" in one(found, "Evidence").text


def test_main_shots_keep_half_of_the_tasks() -> None:
    rows = (scores(40), scores(20, 5), scores(19, 10))
    assert main_shots(Evaluation(rows, "Made", 0.9, 0, 0)) == 5


def test_sharpness_is_relative() -> None:
    found = one(said(scores(30, 0, width=4.0), scores(30, 5, width=1.0), spread=5.0), "Sharpness")
    assert "at 5 shots are 0.25 (0.25 to 0.25) times as wide as at 0 shots" in found.text
    assert "0.20 times as wide as the range that holds the middle 90 %" in found.text


def test_worst_tasks_are_named_and_infinite_scores_survive() -> None:
    result = scores(5)
    result.scores["nll"][:] = [0.0, 3.0, 1.0, 2.0, 0.5]
    assert "tasks 1, 3 and 2" in one(said(result), "Worst tasks").text
    assert "1.3 nats a point, and 0.875 without" in one(said(result), "Worst tasks").text
    result.scores["nll"][4] = np.inf
    assert "tasks 4, 1 and 3" in one(said(result), "Worst tasks").text
    assert "density zero" in one(said(result), "Worst tasks").text
    assert "Worst tasks" not in said(scores(2))


def test_real_evaluations() -> None:
    tasks = normal_tasks(100, 20, seed=0)
    found = conclusions(evaluate(NormalMean(claimed=0.25), tasks, (0, 5), num_bootstrap=0))
    assert {each.topic for each in found if each.verdict is Verdict.PROBLEM} == {"Coverage", "Calibration"}
    found = conclusions(evaluate(NormalMean(bias=1.0), tasks, (0, 5), num_bootstrap=0))
    assert {each.topic for each in found if each.verdict is Verdict.PROBLEM} == {"Coverage", "Bias", "Calibration"}


def test_classifiers() -> None:
    tasks = label_tasks(300, 20, seed=0)
    honest = conclusions(evaluate(ClassShares(), tasks, (1, 5), num_bootstrap=0))
    assert not any(each.verdict is Verdict.PROBLEM for each in honest)
    assert any("as often right as they claim" in each.text for each in honest)
    liar = conclusions(evaluate(ClassShares(power=3.0), tasks, (1, 5), num_bootstrap=0))
    assert {each.topic for each in liar if each.verdict is Verdict.PROBLEM} == {"Confidence", "Calibration"}
    assert any(each.text.startswith("Over-confident at 1 and 5 shots") for each in liar)
    assert any(each.text.startswith("Adapting helps: the share of right answers rises") for each in liar)
    shy = conclusions(evaluate(ClassShares(power=0.3), tasks, (5,), num_bootstrap=0))
    assert any(each.text.startswith("Too cautious at 5 shots") for each in shy)


def test_unlike_tasks() -> None:
    names, fine = ["a", "b", "c", "d"], np.array([0.3, 0.5, 0.9, 0.2])
    many, few = np.full(4, 1.0 / 200), np.full(4, 1.0 / 31)
    assert unlike(names, fine, many).verdict is Verdict.GOOD
    assert unlike(names, fine, few).verdict is Verdict.UNKNOWN
    strange = unlike(names, np.array([0.3, 0.005, 0.9, 0.2]), many)
    assert strange.verdict is Verdict.PROBLEM
    assert "learned from: b. Look" in strange.text
    # .04 alone is nothing among four tasks
    assert unlike(names, np.array([0.3, 0.04, 0.9, 0.2]), many).verdict is Verdict.GOOD
    assert unlike(names, np.array([0.3, 0.04, 0.9, 0.2]), many).numbers == (
        "1 task of 4 with p up to 0.05, by chance 0.2",
    )
