"""`bm.checks.contracts`: learners of the library keep them, and each kind of mistake is found and named."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

import bayesmeta as bm

pytestmark = pytest.mark.usefixtures("unchecked")
NUMBERS = bm.tasks.Sinusoid().dataset(4, 8, seed=0)
BLOBS = bm.tasks.GaussianBlobs(ways=3, dimension=2, spread=3.0).episodes(4, per_class=6, seed=0)


@pytest.mark.parametrize(
    ("make", "tasks", "left_out"),
    [
        (lambda: bm.ALPaCA(bm.MLP(1, [8])), NUMBERS, set()),
        (lambda: bm.Standardized(bm.MAML(bm.MLP(1, [8]), steps=1)), NUMBERS, {"evidence"}),
        (lambda: bm.SNAIL(bm.Identity(1), max_points=8), NUMBERS, {"evidence", "order"}),
        (lambda: bm.R2D2(bm.MLP(2, [8]), num_classes=3), BLOBS, {"evidence"}),
        (lambda: bm.Prototypical(bm.MLP(2, [8])), BLOBS, {"evidence", "prior predictive"}),
    ],
    ids=["alpaca", "maml", "snail", "r2d2", "prototypical"],
)
def test_learners_of_the_library_keep_them(
    make: Callable[[], bm.Learner], tasks: bm.TaskDataset, left_out: set[str]
) -> None:
    torch.manual_seed(0)
    learner = make()
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    found = bm.checks.contracts(learner, tasks)
    assert found.broken == {}
    assert found.all_kept
    assert set(found.left_out) == left_out
    assert len(found.kept) + len(left_out) == 14
    for name, value in learner.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0.0, atol=0.0, equal_nan=True)


class Level(bm.Learner):
    """y ~ N(phi, 1), phi ~ N(mean, 1), or one mistake."""

    outcomes, x_shape = bm.Numbers(1), (1,)

    def __init__(self, mistake: str) -> None:
        super().__init__()
        self.mistake = mistake
        self.mean = nn.Parameter(torch.zeros(()))
        self.calls = 0

    def condition(self, support: bm.Data) -> "LevelPosterior":
        shown = support.points(slice(-2, None)) if self.mistake == "order" else support
        return LevelPosterior(spec=support.spec, learner=self, support=support, shown=shown)

    def loss(self, tasks: bm.TaskBatch) -> Tensor:
        losses = super().loss(tasks)
        if self.mistake == "batch":
            losses = losses + 0.01 * (losses.shape[0] - 1)
        if self.mistake == "rounding":
            losses = losses.float().to(losses.dtype)
        return losses.detach() + 0.0 * self.mean if self.mistake == "gradients" else losses

    def evidence(self, data: bm.Data) -> Tensor:
        if self.mistake != "evidence":
            raise bm.UnsupportedError("none")
        return torch.zeros(data.num_tasks, dtype=data.y.dtype)


@dataclass(frozen=True, eq=False, kw_only=True)
class LevelPosterior(bm.Refit):
    learner: Level
    shown: bm.Data

    def extended(self, data: bm.Data) -> bm.TaskPosterior:
        if self.learner.mistake == "update":
            return self
        if self.learner.mistake == "value":
            object.__setattr__(self, "shown", self.shown.append(data))
        return super().extended(data)

    def selected(self, tasks: Tensor) -> bm.TaskPosterior:
        found = super().selected(tasks)
        return replace(found, shown=found.shown.points(slice(1))) if self.learner.mistake == "select" else found

    def at(self, x: Tensor) -> bm.Predictive:
        mistake, y = self.learner.mistake, self.shown.y
        if mistake != "padding":
            y = torch.where(self.shown.mask[..., None], y, 0.0)
        precision = (1.0 + self.shown.counts)[:, None, None]
        mean = ((self.learner.mean + y.sum(1, keepdim=True)) / precision).expand(*x.shape[:2], 1)
        mean = mean + 0.1 * x
        if mistake == "queries":
            mean = mean + 0.1 * x.mean(1, keepdim=True)
        spread = (1.0 + 1.0 / precision).sqrt()
        if mistake == "prior predictive":
            spread = torch.where(self.shown.counts[:, None, None] == 0, torch.nan, spread)
        if mistake == "precision" and x.dtype == torch.float32:
            mean = mean + 1.0
        normal = Twice if mistake == "densities" else Normal
        return bm.predictives.IndependentPredictive(Independent(normal(mean, spread, validate_args=False), 1))


class Twice(Normal):
    """A density that adds up to two."""

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value) + torch.log(torch.tensor(2.0))

    def expand(self, shape: torch.Size, _instance: object = None) -> "Twice":
        return Twice(self.loc.expand(shape), self.scale.expand(shape), validate_args=False)


def test_a_right_one_keeps_them() -> None:
    found = bm.checks.contracts(Level("none"), NUMBERS)
    assert found.broken == {}


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ("prior predictive", "without a point it is not finite"),
        ("densities", "add up to 2.000"),
        ("padding", "use support.mask"),
        ("order", "order of the support"),
        ("batch", "a batch are not those of its tasks"),
        ("update", "update does not give"),
        ("select", "select does not give"),
        ("value", "a posterior changes by update"),
        ("queries", "beside others"),
        ("gradients", "its gradient says 0"),
        ("precision", "in float32 the mean"),
        ("evidence", "not the sum of one-step-ahead"),
    ],
)
def test_mistakes_are_named(mistake: str, words: str) -> None:
    found = bm.checks.contracts(Level(mistake), NUMBERS)
    assert not found.all_kept
    assert words in found.broken[mistake]
    assert f"BROKEN    {mistake}: " in repr(found)


def test_a_loss_in_float32_is_named_as_the_cause() -> None:
    found = bm.checks.contracts(Level("rounding"), NUMBERS)
    assert "support.counts.to(support.x)" in found.broken["gradients"]
    assert "float32" not in bm.checks.contracts(Level("gradients"), NUMBERS).broken["gradients"]


def test_what_it_cannot_try_is_refused() -> None:
    with pytest.raises(bm.DataError, match="two tasks or more of 8 points"):
        bm.checks.contracts(bm.ALPaCA(bm.Identity(1)), bm.tasks.Sinusoid().dataset(4, 6, seed=0))
    with pytest.raises(bm.DataError, match=r"got Sinusoid: .* dataset\(4, 8\)"):
        bm.checks.contracts(bm.ALPaCA(bm.Identity(1)), bm.tasks.Sinusoid())  # type: ignore[arg-type]


class Answers(bm.Learner):
    """Predicts what `answer` makes of the query points."""

    def __init__(self, answer: str) -> None:
        super().__init__()
        self.answer = answer

    def condition(self, support: bm.Data) -> bm.TaskPosterior:
        if self.answer == "no posterior":
            return {}  # type: ignore[return-value]
        return AnswersPosterior(spec=support.spec, learner=self, support=support)


@dataclass(frozen=True, eq=False, kw_only=True)
class AnswersPosterior(bm.Refit):
    learner: Answers

    def at(self, x: Tensor) -> bm.Predictive:
        y = Normal(x, 1.0)
        if self.learner.answer == "torch's":
            return y  # type: ignore[return-value]
        if self.learner.answer == "raises":
            raise bm.InferenceError("expected nothing")
        return bm.predictives.IndependentPredictive(y)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("no posterior", r"TaskPosterior from Answers\.condition, got dict"),
        ("torch's", r"Predictive from AnswersPosterior\.at, got Normal: .*IndependentPredictive"),
        ("no event", r"batch shape \(4, 3\), tasks and points, got \(4, 3, 1\)"),
    ],
)
def test_answers_of_another_kind_are_refused_once(answer: str, words: str) -> None:
    with pytest.raises((bm.DataError, bm.ShapeError), match=words):
        bm.checks.contracts(Answers(answer), NUMBERS)


def test_what_the_learner_raises_is_a_finding() -> None:
    assert bm.checks.contracts(Answers("raises"), NUMBERS).broken["batch"] == "InferenceError: expected nothing"
