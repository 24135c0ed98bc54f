"""Classes that a support does not show, and how well their points are told from the others."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical
from typing_extensions import override

import bayesmeta as bm
from bayesmeta.data import Data
from bayesmeta.errors import DataError, InferenceError, UnsupportedError
from bayesmeta.evaluation import metrics
from bayesmeta.evaluation.evaluate import evaluate
from bayesmeta.evaluation.unseen import ShownClasses
from bayesmeta.heads import Classes
from bayesmeta.learner import Learner, Refit
from bayesmeta.outcomes import Labels
from bayesmeta.predictives import IndependentPredictive, OpenSetPredictive, Predictive
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.simulators.gaussian_blobs import GaussianBlobs
from bayesmeta.tasks.source import ClassSplit, RandomSplit

BLOBS = GaussianBlobs(ways=4, dimension=2, spread=3.0, noise=1.0)


def brute_force(scores: list[float], positives: list[bool]) -> float:
    wins = [
        float(a > b) + 0.5 * float(a == b)
        for a, is_positive in zip(scores, positives, strict=True)
        if is_positive
        for b, is_other in zip(scores, positives, strict=True)
        if not is_other
    ]
    return sum(wins) / len(wins) if wins else float("nan")


class Blobs(Learner):
    """The densities of Gaussian blobs whose means have a prior, exact; the classes are those of the support."""

    def __init__(self, *, knows_densities: bool = True, broken: bool = False) -> None:
        super().__init__()
        self.x_shape, self.outcomes = (BLOBS.dimension,), Labels(None)
        self.knows_densities, self.broken = knows_densities, broken

    @override
    def condition(self, support: Data) -> "BlobsPosterior":
        classes = Classes.of(support.y, support.mask, None)
        member = (support.y[..., None] == torch.arange(classes.num_classes)) & support.mask[..., None]
        member = member.double()
        variance = 1.0 / (1.0 / BLOBS.spread**2 + member.sum(1) / BLOBS.noise**2)
        mean = variance[..., None] * (member.mT @ support.x.double()) / BLOBS.noise**2
        return BlobsPosterior(
            spec=support.spec, learner=self, support=support, classes=classes, mean=mean, variance=variance
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class BlobsPosterior(Refit):
    learner: Blobs
    classes: Classes
    mean: Tensor
    variance: Tensor

    @override
    def at(self, x: Tensor) -> Predictive:
        x = x.double()

        def log_density(mean: Tensor, variance: Tensor) -> Tensor:
            total = variance + BLOBS.noise**2
            return -0.5 * ((x[:, :, None] - mean).square().sum(-1) / total + BLOBS.dimension * total.log())

        each = self.classes.logits(log_density(self.mean[:, None], self.variance[:, None]))
        distribution = Categorical(logits=each, validate_args=False)
        if not self.learner.knows_densities:
            return IndependentPredictive(distribution)
        new = log_density(torch.zeros(BLOBS.dimension), torch.tensor(BLOBS.spread**2))[..., 0]
        ratio = each.logsumexp(-1) - self.classes.mask.sum(-1).double().log()[:, None] - new
        return OpenSetPredictive(distribution, log_ratio=ratio * float("nan") if self.learner.broken else ratio)


def ragged(num_tasks: int = 5) -> TaskDataset:
    """Tasks of 3 to 5 classes with labels that have gaps, and unequal numbers of points."""
    generator = torch.Generator().manual_seed(3)
    tasks = []
    for i in range(num_tasks):
        classes = torch.randperm(9, generator=generator)[: 3 + i % 3]
        labels = torch.cat([classes.repeat(4), classes[:1].repeat(i)])
        means = 3.0 * torch.randn(9, 2, generator=generator)
        tasks.append((means[labels] + torch.randn(len(labels), 2, generator=generator), labels))
    return TaskDataset.from_labels(tasks, names=[f"task {i}" for i in range(num_tasks)])


def by_hand(
    learner: Learner, tasks: TaskDataset, shots: int, unseen: int, query: int | None, seed: int
) -> list[dict[str, float]]:
    """Scores of each task, one task at a time, by the classes that are shown in it."""
    divided = tasks.divided(ClassSplit.at(shots, query), seed)
    found = []
    classes = ShownClasses.drawn(tasks.data, unseen, seed)
    for i in range(len(tasks)):
        shown = classes.labels[classes.shown[i]].tolist()
        support = [(x, y) for x, y, real in zip(*_rows(divided.support, i), strict=True) if real and y in shown]
        query_rows = [(x, y) for x, y, real in zip(*_rows(divided.query, i), strict=True) if real]
        data = Data.from_labels([x for x, _ in support], [shown.index(y) for _, y in support])
        posterior = learner.adapt(data)
        inside = [(x, shown.index(y)) for x, y in query_rows if y in shown]
        predictive = posterior.predict([x for x, _ in inside])
        y = torch.tensor([[y for _, y in inside]])
        everything = posterior.predict([x for x, _ in query_rows])
        outside = [y not in shown for _, y in query_rows]
        assert any(outside)
        scores = {
            "points": len(inside),
            "nll": metrics.marginal_nll(predictive, y).item(),
            "accuracy": metrics.accuracy(predictive, y).item(),
            "brier": metrics.brier(predictive, y).item(),
            "max_prob_auroc": brute_force((1.0 - everything.probs[0].amax(-1)).tolist(), outside),
        }
        if isinstance(everything, OpenSetPredictive):
            scores["none_auroc"] = brute_force((-everything.log_ratio[0]).tolist(), outside)
        found.append(scores)
    return found


def _rows(data: Data, task: int) -> tuple[list[list[float]], list[int], list[bool]]:
    return data.x[task].tolist(), data.y[task].tolist(), data.mask[task].tolist()


@pytest.mark.parametrize("knows_densities", [True, False])
@pytest.mark.parametrize(("unseen", "seed"), [(1, 0), (1, 7)])
def test_scores_are_those_of_tasks_without_the_unseen_classes(knows_densities: bool, unseen: int, seed: int) -> None:
    learner, tasks = Blobs(knows_densities=knows_densities), ragged()
    evaluation = evaluate(
        learner, tasks, [1, 2], split=ClassSplit, query=2, unseen=unseen, num_bootstrap=0, seed=seed, batch_size=2
    )
    assert ("none_auroc" in evaluation.table()) == knows_densities
    for shots in (1, 2):
        frame = evaluation.per_task(shots)
        for row, expected in zip(
            frame.to_dict("records"), by_hand(learner, tasks, shots, unseen, 2, seed), strict=True
        ):
            for name, value in expected.items():
                assert row[name] == pytest.approx(value, rel=1e-10), name  # the same sums, in another order


def test_two_unseen_classes_of_four() -> None:
    tasks, learner = BLOBS.episodes(6, 8, seed=2), Blobs()
    evaluation = evaluate(learner, tasks, [3], split=ClassSplit, unseen=2, num_bootstrap=0)
    expected = by_hand(learner, tasks, 3, 2, None, 0)
    found = evaluation.at(3)
    for name in ("nll", "none_auroc", "max_prob_auroc"):
        np.testing.assert_allclose(found.scores[name], [each[name] for each in expected], rtol=1e-10)
    assert found.points.tolist() == [10] * 6
    assert len(found.confidence) == len(found.correct) == 60  # points of shown classes alone
    assert evaluation.table()["none_auroc"].item() == pytest.approx(np.mean([each["none_auroc"] for each in expected]))


def test_densities_tell_new_classes_from_old_ones_and_chance_does_not() -> None:
    tasks = BLOBS.episodes(60, 12, seed=0)
    table = evaluate(Blobs(), tasks, [1, 5], split=ClassSplit, unseen=1, num_bootstrap=200).table()
    assert bool((table["none_auroc_low"] > 0.6).all())
    assert bool((table["none_auroc_high"] > table["none_auroc"]).all())
    assert table.loc[5, "none_auroc"] > table.loc[5, "max_prob_auroc"]  # points far from all classes have a sure label
    # classes that have nothing to say of where they are: the same mean for all
    same = GaussianBlobs(ways=4, dimension=2, spread=0.0).episodes(60, 12, seed=0)
    chance = evaluate(Blobs(), same, [5], split=ClassSplit, unseen=1, num_bootstrap=200).table().loc[5]
    assert chance["none_auroc_low"] < 0.55  # the 95 % interval of 60 tasks is about .03 to each side of .5
    assert chance["none_auroc_high"] > 0.45


def test_what_is_not_shown_is_the_same_at_every_number_of_shots_and_grows() -> None:
    data = BLOBS.episodes(20, 6, seed=0).data
    one, two = (ShownClasses.drawn(data, unseen, 5).shown for unseen in (1, 2))
    assert one.sum(-1).tolist() == [3] * 20
    assert two.sum(-1).tolist() == [2] * 20
    assert not bool((two & ~one).any())
    assert len(one.unique(dim=0)) == 4  # every class is left out somewhere
    assert torch.equal(ShownClasses.drawn(data, 1, 5).shown, one)
    assert not torch.equal(ShownClasses.drawn(data, 1, 6).shown, one)
    tasks, recorded = BLOBS.episodes(4, 9, seed=1), []

    class Listening(Blobs):
        def condition(self, support: Data) -> BlobsPosterior:
            posterior = super().condition(support)
            recorded.append(support.counts.tolist())
            return posterior

    evaluation = evaluate(Listening(), tasks, [1, 3], split=ClassSplit, query=2, unseen=1, num_bootstrap=0)
    assert recorded == [[3] * 4, [9] * 4]
    assert [result.points.tolist() for result in evaluation.results] == [[6] * 4] * 2


def test_tasks_of_very_unlike_lengths() -> None:
    generator = torch.Generator().manual_seed(0)
    tasks = []
    for size in (3, 4_000, 3, 4, 3, 3):
        labels = torch.arange(3).repeat(size)
        tasks.append((2.0 * labels[:, None] + torch.randn(len(labels), 2, generator=generator), labels))
    dataset = TaskDataset.from_labels(tasks)
    assert len(dataset.by_length()) > 1
    evaluation = evaluate(Blobs(), dataset, [1], split=ClassSplit, query=3, unseen=1, num_bootstrap=0)
    assert evaluation.at(1).points.tolist() == [4, 6, 4, 6, 4, 4]
    assert np.isfinite(evaluation.at(1).scores["none_auroc"]).all()


def test_without_unseen_classes_nothing_changes() -> None:
    table = evaluate(Blobs(), BLOBS.episodes(5, 6), [1], split=ClassSplit, num_bootstrap=0).table()
    assert "none_auroc" not in table
    assert "max_prob_auroc" not in table
    assert "regret" in table  # the oracle of four classes is comparable


def test_the_tasks_own_oracle_is_left_out_where_it_knows_its_classes() -> None:
    tasks = BLOBS.episodes(5, 6)
    assert "regret" not in evaluate(Blobs(), tasks, [1], split=ClassSplit, unseen=1, num_bootstrap=0).table()
    own = evaluate(Blobs(), tasks, [1], split=ClassSplit, unseen=1, oracle=Blobs(), num_bootstrap=0)
    assert own.table()["regret"].item() == 0.0
    with pytest.raises(UnsupportedError, match="num_classes=None"):
        evaluate(Blobs(), tasks, [1], split=ClassSplit, unseen=1, oracle=BLOBS.oracle)


def test_columns_are_shown_and_the_worst_tasks_have_the_lowest_area() -> None:
    evaluation = evaluate(Blobs(), BLOBS.episodes(8, 6), [2], split=ClassSplit, unseen=1, num_bootstrap=50)
    text = str(evaluation)
    assert "Blobs, 1 class of each task not shown: estimate" in text
    assert "AUROC none of these" in text
    assert "AUROC max. prob." in text
    worst = evaluation.worst(3, by="none_auroc")
    assert worst["none_auroc"].tolist() == sorted(evaluation.at(2).scores["none_auroc"])[:3]
    ax = bm.plotting.score_by_shots(evaluation, "none_auroc")
    assert ax.get_ylabel() == "none_auroc"


def test_bad_questions_are_refused() -> None:
    tasks = BLOBS.episodes(5, 6)
    with pytest.raises(DataError, match="expected split=ClassSplit"):
        evaluate(Blobs(), tasks, [1], unseen=1)
    with pytest.raises(DataError, match="expected split=ClassSplit"):
        evaluate(Blobs(), tasks, [1], split=RandomSplit, unseen=1)
    with pytest.raises(DataError, match="at least 5 classes, of which 3 are not shown, got 4 in task 0"):
        evaluate(Blobs(), tasks, [1], split=ClassSplit, unseen=3)
    with pytest.raises(DataError, match="got 3 in task 'task 0'"):
        evaluate(Blobs(), ragged(), [1], split=ClassSplit, unseen=2)
    with pytest.raises(UnsupportedError, match=r"got R2D2 with 4 classes.*num_classes=None"):
        evaluate(bm.R2D2(bm.Identity(2), num_classes=4), tasks, [1], split=ClassSplit, unseen=1)
    with pytest.raises(InferenceError, match="none_auroc of task 0"):
        evaluate(Blobs(broken=True), tasks, [1], split=ClassSplit, unseen=1)
    with pytest.raises(DataError, match="unseen"):
        evaluate(Blobs(), tasks, [1], split=ClassSplit, unseen=-1)
    with pytest.raises(DataError, match="expected labels for ClassSplit"):
        evaluate(Blobs(), bm.tasks.Sinusoid.maml().dataset(3, 5), [1], split=ClassSplit, unseen=1)


def test_a_learner_of_the_library_reads_its_classes_from_the_support() -> None:
    table = evaluate(
        bm.R2D2(bm.Identity(2)), BLOBS.episodes(10, 6), [1, 2], split=ClassSplit, unseen=1, num_bootstrap=0
    ).table()
    assert "none_auroc" not in table  # its scores are no densities
    assert bool(table["max_prob_auroc"].between(0.0, 1.0).all())


def test_the_area_is_that_of_all_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(6, (30, 9), generator=generator).double()  # many ties
    scores[scores == 5.0] = torch.inf
    scores[scores == 0.0] = -torch.inf
    positives = torch.rand(30, 9, generator=generator) < 0.4
    mask = torch.rand(30, 9, generator=generator) < 0.7
    found = metrics.auroc(scores, positives, mask)
    expected = [
        brute_force(s[real].tolist(), p[real].tolist()) for s, p, real in zip(scores, positives, mask, strict=True)
    ]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-14)  # rounding; NaN where a kind is missing
    assert 0 < sum(np.isnan(expected)) < 15


def test_the_area_needs_both_kinds_and_ignores_padding() -> None:
    scores = torch.tensor([[0.0, 1.0, torch.nan], [1.0, 0.0, 2.0], [3.0, 3.0, 3.0], [0.0, 1.0, 2.0]])
    positives = torch.tensor([[False, True, True], [True, True, True], [True, False, False], [False, True, False]])
    mask = torch.tensor([[True, True, False], [True, True, True], [True, True, True], [True, True, False]])
    np.testing.assert_array_equal(metrics.auroc(scores, positives, mask).numpy(), [1.0, np.nan, 0.5, 1.0])
    assert metrics.auroc(scores[:1], positives[:1]).isnan().item()  # a real score that is no number
    assert metrics.auroc(torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.bool)).isnan().all()
    flipped = metrics.auroc(-scores[3:], positives[3:])
    assert flipped.item() == 1.0 - metrics.auroc(scores[3:], positives[3:]).item()
