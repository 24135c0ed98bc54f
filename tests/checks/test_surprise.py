"""False alarms come at their rate whatever the learner, other families are found; shrinkage is that of mixed models."""

import json
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.distributions import Chi2, MultivariateNormal

import bayesmeta as bm
from bayesmeta import Data, TaskDataset
from bayesmeta.checks import Surprise, shrinkage
from bayesmeta.checks.surprise import _p_value
from bayesmeta.errors import DataError, InferenceError, ShapeError, UnsupportedError
from bayesmeta.learner import Learner, TaskPosterior
from bayesmeta.tasks import ClassSplit, PrefixSplit, RandomSplit
from bayesmeta.tasks.source import Split
from tests.evaluation.exact import ClassShares, MeanPosterior, NormalMean, label_tasks, normal_tasks

LEVELS = (0.02, 0.1, 0.2, 0.5)
WRONG = NormalMean(tau2=3.0, noise=0.1, bias=0.4, claimed=0.5)


class SineAndCosine(bm.Network):
    """The exact features of sinusoids of frequency 1."""

    def __init__(self) -> None:
        super().__init__()
        self.x_shape, self.num_outputs = (1,), 2

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([torch.sin(x), torch.cos(x)], -1)


def sinusoids(amplitude: float = 1.0, frequency: float = 1.0, noise: float = 0.1) -> bm.tasks.Sinusoid:
    return bm.tasks.Sinusoid((amplitude, 2.0 * amplitude), (0.0, 2.0 * math.pi), (frequency, frequency), noise=noise)


def sinusoid_learner() -> bm.ALPaCA:
    """The best linear-Gaussian learner of these sinusoids: the right features, mean and covariance."""
    learner = bm.ALPaCA(SineAndCosine()).double()
    learner.prior.noise.set_covariance(torch.tensor([[0.01]]))
    with torch.no_grad():
        learner.prior.location.zero_()
    learner.prior.covariance.set_matrix(7.0 / 6.0 / 0.01 * torch.eye(2))  # E A² / 2
    return learner


def draw(simulator: bm.tasks.Sinusoid, tasks: int, points: int, seed: int) -> Data:
    return simulator.simulate(tasks, points, torch.Generator().manual_seed(seed)).to(torch.float64)


@pytest.mark.parametrize(
    ("learner", "points", "split"),
    [(NormalMean(), 5, RandomSplit), (WRONG, 5, RandomSplit), (WRONG, 9, RandomSplit), (WRONG, 9, PrefixSplit)],
)
def test_false_alarms_come_at_their_rate(learner: NormalMean, points: int, split: type[Split]) -> None:
    """Whatever the learner, and with more points than were calibrated at. 40 sets of 49 reference tasks, 10 new."""
    sets, references, new = 40, 49, 10
    every = Surprise.fit(learner, normal_tasks(sets * references, 6, seed=1), [5], split=split, batch_size=4096)
    p_values = []
    for i, part in enumerate(every.statistics[5].split(references)):
        one = replace(every, statistics={5: part})
        p_values.append(one.p_value(normal_tasks(new, points, seed=1000 + i).data))
    p = torch.stack(p_values)
    assert float(p.min()) == pytest.approx(0.02)
    for level in LEVELS:
        share = (p <= level + 1e-9).double()
        # tasks of one set share its reference tasks
        chance = 4.0 * share.mean(1).std().item() / math.sqrt(sets)
        assert share.mean().item() == pytest.approx(level, abs=chance)


def test_the_rate_is_that_of_tasks_like_the_reference_tasks_only() -> None:
    """The simulation above can fail: tasks of twice the noise are flagged far more often."""
    surprise = Surprise.fit(NormalMean(), normal_tasks(199, 6, seed=0), [5])
    assert surprise.flagged(normal_tasks(400, 5, seed=1, noise=1.5).data, 0.1).double().mean() > 0.25


def test_other_sinusoids_are_found() -> None:
    learner = sinusoid_learner()
    surprise = Surprise.fit(learner, sinusoids().dataset(199, 11, seed=0), [1, 2, 5, 10])
    usual = surprise.p_value(draw(sinusoids(), 150, 5, 1))
    usual_tail = learner.surprise(draw(sinusoids(), 30, 5, 1), num_draws=99)
    others = {
        "frequency": sinusoids(frequency=2.0),
        "amplitude": sinusoids(amplitude=2.5),
        "noise": sinusoids(noise=0.5),
        "less amplitude": sinusoids(amplitude=0.4),
    }
    for name, other in others.items():
        data = draw(other, 150, 5, 2)
        assert auc(usual, surprise.p_value(data)) > 0.9, name
        tail = auc(usual_tail, learner.surprise(data.select(slice(30)), num_draws=99))
        # likelier than the prior expects is not unlikely: a tail alone does not see it
        assert tail < 0.5 if name == "less amplitude" else tail > 0.9, name
    less_noise = surprise.p_value(draw(sinusoids(noise=0.01), 150, 10, 2))
    assert auc(surprise.p_value(draw(sinusoids(), 150, 10, 1)), less_noise) > 0.9


def auc(usual: Tensor, other: Tensor) -> float:
    return (other[:, None] < usual).double().mean().item() + 0.5 * (other[:, None] == usual).double().mean().item()


def test_statistics_are_those_of_a_slow_loop() -> None:
    learner = NormalMean(tau2=2.0, noise=0.5, bias=0.1)
    tasks = normal_tasks(20, [6] * 12 + [4] * 8, seed=0)
    with pytest.raises(DataError, match="at least 10 reference tasks with more than 4 points, got"):
        Surprise.fit(learner, tasks.select(range(6, 20)), [4])  # six have more than 4
    surprise = Surprise.fit(learner, tasks, [3], batch_size=7)
    support = tasks.divided(RandomSplit.at(3), seed=0).support
    for b in range(20):
        y = support.y[b, :, 0]
        prior = MultivariateNormal(torch.full_like(y, 0.1), 2.0 * torch.ones(3, 3) + 0.5 * torch.eye(3).double())
        joint = prior.log_prob(prior.mean) - prior.log_prob(y)
        marginal = sum(0.5 * (float(v) - 0.1) ** 2 / 2.5 for v in y)
        left_out = 0.0
        for k in range(3):
            variance = 1.0 / (1.0 / 2.0 + 2.0 / 0.5)
            mean = variance * (float(y.sum()) - float(y[k])) / 0.5 + 0.1
            left_out += 0.5 * (float(y[k]) - mean) ** 2 / (variance + 0.5)
        slow = torch.tensor([float(joint), left_out, marginal], dtype=torch.float64) / 3
        torch.testing.assert_close(surprise.statistics[3][b], slow ** (1 / 3))


def test_p_value_is_the_rank_of_a_mahalanobis_distance() -> None:
    generator = torch.Generator().manual_seed(0)
    reference, new = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (30, 300))
    for row, p in zip(new, _p_value(reference, new), strict=True):
        every = torch.cat([reference, row[None]])
        centred = every - every.mean(0)
        distance = (centred @ torch.linalg.inv(torch.cov(every.T)) * centred).sum(1)
        assert p.item() == pytest.approx((distance >= distance[-1] - 1e-9).double().mean().item())
    # statistics that are copies of each other say nothing twice, and constants nothing
    copies = [torch.stack([v[:, 0], 5.0 * v[:, 0] + 1.0, torch.ones_like(v[:, 0])], 1) for v in (reference, new)]
    torch.testing.assert_close(_p_value(*copies), _p_value(reference[:, :1], new[:, :1]))


@pytest.mark.parametrize("what", ["p_value", "smallest_p_value", "surprise", "shrinkage"])
def test_ragged_is_a_loop_and_padding_never_matters(what: str) -> None:
    learner = sinusoid_learner()
    fitted = Surprise.fit(learner, sinusoids().dataset(40, 8, seed=0), [1, 3, 5])
    judge: dict[str, Callable[[Data], Tensor]] = {
        "p_value": fitted.p_value,
        "smallest_p_value": fitted.smallest_p_value,
        "surprise": learner.surprise,
        "shrinkage": lambda data: shrinkage(learner, data),
    }
    data = draw(sinusoids(noise=0.2), 6, 8, 1)
    counts = torch.tensor([5, 0, 3, 8, 1, 4])
    mask = torch.arange(8) < counts[:, None]
    mask[2] = torch.tensor([0, 1, 0, 0, 1, 0, 1, 0]).bool()  # padding need not come last
    ragged = Data(data.x, data.y, mask)
    value = judge[what](ragged)
    each = [Data(data.x[b, mask[b]][None], data.y[b, mask[b]][None], mask[b, mask[b]][None]) for b in range(6)]
    torch.testing.assert_close(value, torch.cat([judge[what](one) for one in each]))
    garbage = torch.where(mask[..., None], 0.0, 1e3)
    torch.testing.assert_close(judge[what](Data(data.x + garbage, data.y - garbage, mask)), value)
    assert value[1] == 1.0  # nothing was seen
    assert value.dtype == torch.float64
    assert value.unique().numel() > (1 if what == "smallest_p_value" else 3)
    if what in ("p_value", "shrinkage"):  # the order of the points says nothing
        back = ragged.select([0, 4])
        back = Data(back.x.flip(1), back.y.flip(1), back.mask.flip(1))
        torch.testing.assert_close(judge[what](back), value[[0, 4]])


def test_surprise_is_the_tail_probability_under_theta() -> None:
    learner, tasks = NormalMean(tau2=2.0, noise=0.5), normal_tasks(120, 4, seed=0, tau2=2.0)
    p = learner.surprise(tasks.data, num_draws=399)
    covariance = 2.0 * torch.ones(4, 4) + 0.5 * torch.eye(4)
    y = tasks.data.y[..., 0]
    exact = 1.0 - Chi2(4.0).cdf((y @ torch.linalg.inv(covariance.double()) * y).sum(1))
    assert (p - exact).abs().max() < 4.5 * math.sqrt(0.25 / 399)
    for level in (0.05, 0.2, 0.5, 0.8):  # uniform, because the model is true
        chance = 4.0 * math.sqrt(level * (1.0 - level) / 120)
        assert (p <= level).double().mean().item() == pytest.approx(level, abs=chance)
    assert p.min() >= 1 / 400 - 1e-9
    assert torch.equal(p[:5], learner.surprise(tasks.data.select(slice(5)), num_draws=399))
    far = Data(tasks.data.x[:2], tasks.data.y[:2] + 100.0, tasks.data.mask[:2])
    assert learner.surprise(far).tolist() == [1 / 200] * 2


def test_labels() -> None:
    """Tasks of one dominant class are learned from; then comes one whose labels are all over the place."""
    generator = torch.Generator().manual_seed(0)
    favourite = torch.randint(0, 3, (120, 1), generator=generator)
    noise = torch.rand(120, 12, generator=generator) < 0.05
    y = torch.where(noise, torch.randint(0, 3, (120, 12), generator=generator), favourite)
    tasks = TaskDataset(Data(torch.zeros(120, 12, 1, dtype=torch.float64), y, torch.ones(120, 12, dtype=torch.bool)))
    learner = ClassShares(power=2.0)
    surprise = Surprise.fit(learner, tasks, [8])
    even = Data(tasks.data.x[:1, :8], torch.tensor([[0, 1, 2, 0, 1, 2, 0, 1]]), tasks.data.mask[:1, :8])
    assert surprise.flagged(even).all()
    assert surprise.p_value(tasks.select(range(5)).data)[:5].min() > 0.02  # 12 points, thinned to 8
    padded = Data(
        even.x.repeat(1, 2, 1), torch.cat([even.y, torch.full_like(even.y, 99)], 1), torch.arange(16)[None] < 8
    )
    torch.testing.assert_close(surprise.p_value(padded), surprise.p_value(even))  # 99 is no class
    tail = learner.surprise(even)
    assert 0.0 < float(tail) <= 1.0
    with pytest.raises(UnsupportedError, match="separate f from its noise"):
        shrinkage(learner, even)


def test_class_splits() -> None:
    surprise = Surprise.fit(ClassShares(), label_tasks(150, 40, seed=0), [2], split=ClassSplit)
    assert surprise.sizes[2] <= {2, 4, 6}  # two of each class that a task has
    support = label_tasks(20, 40, seed=1).divided(ClassSplit.at(2), 0).support
    support = support.select(support.counts == 6)
    assert surprise.p_value(support).shape == (support.num_tasks,)
    with pytest.raises(DataError, match="6 support points, as were calibrated at, got 7"):
        surprise.p_value(label_tasks(3, 7, seed=0).data)


@pytest.mark.parametrize("count", [0, 1, 4, 20])
def test_shrinkage_is_that_of_mixed_models(count: int) -> None:
    """A random intercept: sigma²/(sigma² + n tau²), the weight of the fixed effect in the posterior mean."""
    tau2, noise = 2.0, 0.5
    tasks = normal_tasks(6, max(count, 1), seed=0)
    data = Data(tasks.data.x[:, :count], tasks.data.y[:, :count], tasks.data.mask[:, :count])
    learner = bm.ALPaCA(bm.Polynomial(1, 0)).double()
    learner.prior.noise.set_covariance(torch.tensor([[noise]]))
    learner.prior.covariance.set_matrix(torch.tensor([[tau2 / noise]]))
    with torch.no_grad():
        learner.prior.location.fill_(3.0)
    expected = noise / (noise + count * tau2)
    for each in (learner, NormalMean(tau2=tau2, noise=noise)):
        torch.testing.assert_close(shrinkage(each, data), torch.full((6,), expected, dtype=torch.float64))
    torch.testing.assert_close(shrinkage(learner, data, torch.zeros(6, 2, 1)), shrinkage(learner, data))
    if count:
        mean = learner.adapt(data).predict(data.x).mean[:, 0, 0]
        torch.testing.assert_close(mean, expected * 3.0 + (1.0 - expected) * data.y[..., 0].mean(1))


def test_shrinkage_is_of_the_task_and_the_place() -> None:
    learner = sinusoid_learner()
    data = draw(sinusoids(), 4, 6, 0)
    few = Data(data.x, data.y, torch.arange(6) < torch.tensor([[1], [2], [4], [6]]))
    value = shrinkage(learner, few)
    assert value.max() < 1.0
    assert value[0] > value[2] > value[3] > 0.0
    standardized = bm.Standardized(sinusoid_learner())
    standardized.prepare(data)
    assert shrinkage(standardized, few).shape == (4,)
    one = data.select([0])
    seen = Data(one.x[:, :1], one.y[:, :1], one.mask[:, :1])
    assert (
        shrinkage(learner, seen, one.x[:, :1])[0] < 0.02 < 0.9 < shrinkage(learner, seen, one.x[:, :1] + math.pi / 2)[0]
    )
    with pytest.raises(UnsupportedError, match="variance of zero"):
        shrinkage(NormalMean(tau2=1e-320), data)
    with pytest.raises(UnsupportedError, match="separate f from its noise"):
        shrinkage(bm.MAML(bm.MLP(1, [4]), posterior=bm.PointEstimate()), data)


def test_json_and_repr() -> None:
    learner = sinusoid_learner()
    surprise = Surprise.fit(learner, sinusoids().dataset(30, 8, seed=0), [2, 5], split=PrefixSplit, seed=3)
    assert repr(surprise) == "Surprise(30 tasks at 2, 30 tasks at 5 shots)"
    back = Surprise.from_json(learner, json.loads(json.dumps(surprise.to_json())))
    data = draw(sinusoids(), 5, 7, 1)
    assert torch.equal(back.p_value(data), surprise.p_value(data))
    assert (back.split, back.seed) == (PrefixSplit, 3)
    good = surprise.to_json()
    for bad in (
        {},
        {**good, "split": "MySplit"},
        {**good, "shots": [{"shots": 2, "sizes": [2], "statistics": [[1.0]]}]},
    ):
        with pytest.raises(DataError, match=r"Surprise\.to_json"):
            Surprise.from_json(learner, bad)

    class Mine(RandomSplit):
        pass

    with pytest.raises(UnsupportedError, match="got Mine"):
        replace(surprise, split=Mine).to_json()


def test_bad_input_is_named() -> None:
    learner, tasks = NormalMean(), normal_tasks(40, 8, seed=0)
    for shots in ([], [0, 1], [3, 2], [2, 2]):
        with pytest.raises(DataError, match="increase from 1 or more"):
            Surprise.fit(learner, tasks, shots)
    with pytest.raises(DataError, match="at least 10 reference tasks with more than 8 points, got 0"):
        Surprise.fit(learner, tasks, [8])
    with pytest.raises(DataError, match="at least 10 reference tasks with more than 2 points, got 9"):
        Surprise.fit(learner, tasks.select(range(9)), [2])
    with pytest.raises(DataError, match=r"expected labels from 0 to 1, got 0\.\.2"):
        Surprise.fit(ClassShares(2), label_tasks(20, 8, seed=0), [2])
    with pytest.raises(DataError, match="at least one task in a batch"):
        Surprise.fit(learner, tasks, [2], batch_size=0)
    with pytest.raises(InferenceError, match="got NaN"):
        Surprise.fit(NotANumber(), tasks, [2])
    surprise = Surprise.fit(learner, tasks, [2, 5])
    two = Data(tasks.data.x[:, :2], tasks.data.y[:, :2], tasks.data.mask[:, :2])
    with pytest.raises(DataError, match=r"expected 2, 5 or more support points, as were calibrated at, got 1"):
        surprise.p_value(Data(two.x[:, :1], two.y[:, :1], two.mask[:, :1]))
    with pytest.raises(DataError, match=r"at least 99 reference tasks for a level of 0.01 at 2 shots, got 40.*1/41"):
        surprise.flagged(two, 0.01)
    with pytest.raises(DataError, match=r"at least 49 reference tasks for a level of 0.02"):
        surprise.flagged(two, 0.02)
    assert surprise.flagged(two, 0.05).dtype == torch.bool
    assert surprise.smallest_p_value(two).tolist() == [1 / 41] * 40
    with pytest.raises(DataError, match="strictly between 0 and 1"):
        surprise.flagged(two, 1.0)
    with pytest.raises(DataError, match="at least one draw"):
        learner.surprise(two, num_draws=0)
    with pytest.raises(InferenceError, match="got NaN"):
        NotANumber().surprise(two)
    with pytest.raises(ShapeError):
        sinusoid_learner().surprise(Data(two.x.repeat(1, 1, 2), two.y, two.mask))


def test_enough_tasks_reach_the_level_exactly() -> None:
    learner = NormalMean()
    far = normal_tasks(2, 2, seed=0).data
    far = Data(far.x, far.y + 50.0, far.mask)
    for count, level in ((99, 0.01), (49, 0.02), (19, 0.05), (10, 1 / 11)):
        surprise = Surprise.fit(learner, normal_tasks(count, 4, seed=1), [2])
        assert surprise.flagged(far, level).all()
        if count > 10:
            fewer = replace(surprise, statistics={2: surprise.statistics[2][1:]})
            with pytest.raises(DataError, match=f"at least {count} reference tasks"):
                fewer.flagged(far, level)


class NotANumber(Learner):
    def condition(self, support: Data) -> TaskPosterior:
        mean = torch.full((support.num_tasks, 1), math.nan, dtype=support.x.dtype)
        return MeanPosterior(spec=support.spec, mean=mean, variance=torch.ones_like(mean[:, 0]), noise=1.0)
