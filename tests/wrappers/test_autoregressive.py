"""The chain rule against exact joints, slow loops and integrals; orders; draws; what is refused."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import bayesmeta as bm
from bayesmeta.wrappers import Autoregressive, Given, LeftToRight, Order, Random, autoregressive

EXACT = {"rtol": 1e-8, "atol": 1e-8}  # float64: the same density by other factorisations
SAME = {"rtol": 1e-9, "atol": 1e-9}  # float64: the same mathematics in another order of summation
ORDERS: dict[str, Callable[[], Order]] = {
    "given": Given,
    "left-to-right": LeftToRight,
    "random": Random,
    "mixture": lambda: Random(3, seed=5),
}
every_order = pytest.mark.parametrize("order", [make() for make in ORDERS.values()], ids=list(ORDERS))


def _batch(outputs: int = 1, points: int = 5, seed: int = 0) -> tuple[bm.Data, bm.Data]:
    """Three tasks of 3, 1 and 0 support points, and of 5, 2 and 0 query points that are not all in front."""
    generator = torch.Generator().manual_seed(seed)
    numbers = {"generator": generator, "dtype": torch.float64}
    x, y = 4.0 * torch.rand(3, 3 + points, 1, **numbers) - 2.0, torch.randn(3, 3 + points, outputs, **numbers)
    support = bm.Data(x[:, :3], y[:, :3], torch.arange(3) < torch.tensor([3, 1, 0])[:, None])
    mask = torch.zeros(3, points, dtype=torch.bool)
    mask[0], mask[1, 1], mask[1, 3] = True, True, True
    return support, bm.Data(x[:, 3:], y[:, 3:], mask)


def _labels(count: int = 3, points: int = 4) -> tuple[bm.Data, bm.Data]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5 + points, 2, generator=generator, dtype=torch.float64)
    y = torch.randint(count, (2, 5 + points), generator=generator)
    support = bm.Data(x[:, :5], y[:, :5], torch.arange(5) < torch.tensor([5, 2])[:, None])
    return support, bm.Data.full(x[:, 5:], y[:, 5:])


def _moved(learner: bm.Learner) -> bm.Learner:
    """Off its starting point, in float64."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return learner.double()


def _alpaca(outputs: int = 1) -> bm.Learner:
    torch.manual_seed(0)
    noise = bm.noise.FullNoise(outputs) if outputs > 1 else None
    return _moved(bm.ALPaCA(bm.MLP(1, [8, 4]), num_outputs=outputs, noise=noise))


def _maml() -> bm.Learner:
    """Inexact: its prior depends on the number of points."""
    torch.manual_seed(0)
    return _moved(bm.MAML(bm.MLP(1, [6]), steps=2, lr=0.1))


def _r2d2(classes: int | None = 3) -> bm.Learner:
    torch.manual_seed(0)
    return _moved(bm.R2D2(bm.MLP(2, [6]), num_classes=classes))


EXACT_LEARNERS: dict[str, tuple[Callable[[], bm.Learner], int]] = {
    "alpaca": (_alpaca, 1),
    "alpaca with two outputs": (lambda: _alpaca(2), 2),
    "gaussian process": (lambda: bm.tasks.GPFunctions.eq().oracle, 1),
    "deep kernel": (lambda: _moved(bm.DeepKernelTransfer(bm.Identity(1))), 1),
    "standardized outside": (lambda: bm.tasks.GPFunctions.eq().oracle, 1),
}


@every_order
@pytest.mark.parametrize("name", EXACT_LEARNERS)
def test_around_an_exact_learner_it_is_the_exact_joint(name: str, order: Order) -> None:
    make, outputs = EXACT_LEARNERS[name]
    learner, (support, query) = make(), _batch(outputs)
    exact, chain = (each.adapt(support).predict(query.x) for each in (learner, Autoregressive(learner, order)))
    for mask in (None, query.mask):
        torch.testing.assert_close(chain.log_prob(query.y, mask), exact.log_prob(query.y, mask), **EXACT)
    assert (exact.log_prob(query.y) - exact.marginal_log_prob(query.y).sum(-1)).abs().min() > 1e-3  # points depend


@every_order
def test_standard_units_on_either_side(order: Order) -> None:
    support, query = _batch()
    far = bm.Data(support.x * 100.0, 1e3 + 50.0 * support.y, support.mask)
    learners = bm.Standardized(_alpaca()), bm.Standardized(Autoregressive(_alpaca(), order))
    for learner in learners:
        learner.prepare(far)
    exact, *chains = (
        learner.adapt(far).predict(query.x * 100.0) for learner in (*learners, Autoregressive(learners[0], order))
    )
    for chain in chains:
        assert chain.log_prob(1e3 + 50.0 * query.y, query.mask).shape == (3,)
        torch.testing.assert_close(chain.log_prob(1e3 + 50.0 * query.y), exact.log_prob(1e3 + 50.0 * query.y), **EXACT)
        torch.testing.assert_close(chain.interval(0.8), exact.interval(0.8))
        assert chain.sample((4,)).shape == (4, 3, 5, 1)
        torch.testing.assert_close(chain.noiseless.stddev, exact.noiseless.stddev)


def _slow(posterior: bm.TaskPosterior, x: Tensor, y: Tensor, positions: Tensor) -> Tensor:
    """The chain of one task in one order, a point at a time."""
    total = torch.zeros(1, dtype=torch.float64)
    for place in positions.tolist():
        here, there = x[:, place : place + 1], y[:, place : place + 1]
        total = total + posterior.predict(here).log_prob(there)
        posterior = posterior.update(bm.Data.full(here, there))
    return total


@every_order
def test_several_orders_are_the_mixture_of_their_chains(order: Order) -> None:
    learner, (support, query) = _maml(), _batch()
    found = Autoregressive(learner, order).adapt(support).predict(query.x).log_prob(query.y, query.mask)
    places, counts = order.positions(query.x, query.mask), query.counts.tolist()
    spreads = []
    for b, count in enumerate(counts):
        alone = learner.adapt(support.select([b]))
        x, y = query.x[b : b + 1], query.y[b : b + 1]
        each = torch.stack([_slow(alone, x, y, places[b, s, :count]) for s in range(places.shape[1])])
        torch.testing.assert_close(found[b], (each.logsumexp(0) - math.log(len(each)))[0], **EXACT)
        spreads.append((each.max() - each.min()).item())
    if isinstance(order, Random) and order.num_orders > 1:
        assert max(spreads) > 1e-3  # orders differ: the test could tell the mixture from one of them
        assert found[2] == 0.0  # of no points


def test_the_order_matters_to_an_inexact_learner_and_is_the_one_that_was_asked_for() -> None:
    learner, (support, query) = _maml(), _batch()
    shuffle = torch.tensor([3, 0, 4, 2, 1])
    given = Autoregressive(learner, Given()).adapt(support)
    straight = given.predict(query.x).log_prob(query.y)
    shuffled = given.predict(query.x[:, shuffle]).log_prob(query.y[:, shuffle])
    assert (straight - shuffled).abs().max() > 1e-3
    sorted_ = Autoregressive(learner, LeftToRight()).adapt(support)
    by_x = query.x[..., 0].argsort(-1)[..., None]
    expected = given.predict(query.x.gather(1, by_x)).log_prob(query.y.gather(1, by_x))
    for x, y in ((query.x, query.y), (query.x[:, shuffle], query.y[:, shuffle])):
        torch.testing.assert_close(sorted_.predict(x).log_prob(y), expected, **SAME)


@every_order
def test_the_density_of_two_points_integrates_to_one(order: Order) -> None:
    learner, (support, query) = Autoregressive(_maml(), order), _batch()
    posterior = learner.adapt(support.select([0]))
    x = query.x[:1, :2]
    prediction = posterior.predict(x)
    steps = torch.linspace(-9.0, 9.0, 91, dtype=torch.float64)  # of marginal deviations: .2 apart
    grid = prediction.mean[0, :, 0] + prediction.stddev[0, :, 0] * torch.cartesian_prod(steps, steps)  # G 2
    copies = posterior.select([0] * len(grid)).predict(x.expand(len(grid), -1, -1))
    cell = (0.2 * prediction.stddev[0, :, 0]).prod()
    total = copies.log_prob(grid[..., None]).exp().sum() * cell
    assert total.item() == pytest.approx(1.0, abs=1e-6)  # the trapezoid rule's own error is far below that


@every_order
@pytest.mark.parametrize("classes", [3, None], ids=["named", "own"])
def test_the_probabilities_of_all_labels_add_up_to_one(classes: int | None, order: Order) -> None:
    if isinstance(order, LeftToRight):
        pytest.skip("inputs are vectors")
    support, query = _labels()
    if classes is None:
        support = bm.Data.full(support.x, torch.tensor([[0, 1, 2, 1, 0], [0, 1, 2, 2, 1]]))
    posterior = Autoregressive(_r2d2(classes), order).adapt(support)
    labels = torch.tensor(list(itertools.product(range(3), repeat=2)))  # G 2
    for b in range(2):
        x = query.x[b : b + 1, :2].expand(len(labels), -1, -1)
        joint = posterior.select([b] * len(labels)).predict(x).log_prob(labels).exp()
        assert joint.sum().item() == pytest.approx(1.0, abs=1e-9)
        marginal = torch.stack([joint[labels[:, 0] == c].sum() for c in range(3)])
        if isinstance(order, Given):  # the first point is drawn from its marginal
            torch.testing.assert_close(marginal, posterior.select([b]).predict(x[:1]).probs[0, 0], **SAME)


@every_order
def test_draws_have_the_exact_joint_moments(order: Order) -> None:
    learner, (support, query) = _alpaca(2), _batch(2, points=4)
    exact = learner.adapt(support).predict(query.x)
    count = 4_000
    chain = Autoregressive(learner, order).adapt(support).predict(query.x)
    draws = chain.sample((count,), torch.Generator().manual_seed(0)).flatten(2)
    reference = exact.sample((200_000,), torch.Generator().manual_seed(1)).flatten(2)
    for b in range(3):
        found, wanted = draws[:, b].mT.cov(), reference[:, b].mT.cov()
        variance = wanted.diag()
        # the deviation of a covariance of n Gaussian draws is √((s_ii s_jj + s_ij²) / n); five of them
        error = ((variance[:, None] * variance + wanted.square()) / count).sqrt()
        assert ((found - wanted).abs() < 5.0 * error).all()
        assert ((draws[:, b].mean(0) - exact.mean[b].flatten()).abs() < 5.0 * (variance / count).sqrt()).all()
        correlation = wanted / (variance[:, None] * variance).sqrt()
        assert (correlation - torch.eye(8, dtype=torch.float64)).abs().max() > 0.1  # points do depend on each other


def test_what_is_fed_back_is_drawn_and_not_a_mean() -> None:
    """Draws of many points at one input are as far apart as the noise, around a level of their own."""
    learner = _alpaca()
    support = bm.Data.from_arrays([[0.0]], [[0.0]]).select([0] * 500)
    x = torch.ones(500, 6, 1, dtype=torch.float64)
    draws = Autoregressive(learner, Given()).adapt(support).predict(x).sample((), torch.Generator().manual_seed(0))
    own = learner.adapt(support).predict(x)
    noise = (own.variance - own.noiseless.variance)[0, 0, 0].sqrt().item()
    # the deviation of an estimate with 2,500 degrees of freedom is 1.4 %: five of them
    assert draws[..., 0].var(-1).mean().sqrt().item() == pytest.approx(noise, rel=0.07)
    level = (own.noiseless.variance[0, 0, 0] + noise**2 / 6).sqrt().item()
    assert draws.mean(1).std().item() == pytest.approx(level, rel=0.16)  # 500 draws: 3.2 %, five of them


def test_draws_of_labels_have_the_joint_probabilities() -> None:
    support, query = _labels()
    chain = Autoregressive(_r2d2(), Random(2)).adapt(support).predict(query.x[:, :2])
    draws = chain.sample((8_000,), torch.Generator().manual_seed(0))
    assert draws.dtype == torch.int64
    for first, second in itertools.product(range(3), repeat=2):
        labels = torch.tensor([first, second]).expand(2, -1)
        share = (draws == labels).all(-1).double().mean(0)
        probability = chain.log_prob(labels).exp()
        assert ((share - probability).abs() < 5.0 * (probability * (1.0 - probability) / 8_000).sqrt() + 1e-9).all()


def test_each_draw_of_a_mixture_takes_an_order_of_its_own() -> None:
    """Whether point 0 or point 1 comes first decides which is drawn from its marginal at the learner's own N."""

    class Counting(bm.Learner):
        """Predicts how many points it has seen, with hardly any noise: a draw says when its point was taken."""

        outcomes = bm.Numbers(1)

        def condition(self, support: bm.Data) -> bm.TaskPosterior:
            return CountingPosterior(spec=support.spec, learner=self, support=support)

    class CountingPosterior(bm.Refit):
        def at(self, x: Tensor) -> bm.Predictive:
            mean = self.support.counts[:, None, None].to(x.dtype).expand(*x.shape[:2], 1)
            normal = torch.distributions.Independent(torch.distributions.Normal(mean, 1e-3), 1)
            return bm.predictives.IndependentPredictive(normal)

    order = Random(2, seed=0)
    support = bm.Data.from_arrays([[0.0], [1.0]], [[0.0], [0.0]])
    chain = Autoregressive(Counting(), order).adapt(support).predict(torch.zeros(1, 4, 1))
    draws = chain.sample((400,), torch.Generator().manual_seed(0)).round()[:, 0, :, 0] - 2.0
    taken = order.positions(torch.zeros(1, 4, 1), torch.ones(1, 4, dtype=torch.bool))[0].argsort(-1).double()
    is_first, is_second = ((draws == each).all(-1) for each in taken)
    assert (is_first ^ is_second).all()
    assert 150 < is_first.sum() < 250  # half of 400, by five deviations


@every_order
@pytest.mark.parametrize("make", [_maml, _alpaca], ids=["maml", "alpaca"])
def test_padding_never_matters_and_a_batch_equals_a_loop(make: Callable[[], bm.Learner], order: Order) -> None:
    posterior_of = Autoregressive(make(), order).adapt
    support, query = _batch()
    found = posterior_of(support).predict(query.x).log_prob(query.y, query.mask)
    wide = torch.full((3, 2, 1), 1.7, dtype=torch.float64)
    x, y = torch.cat([wide, query.x, wide], 1), torch.cat([wide, query.y, wide], 1)
    outside = torch.zeros(3, 2, dtype=torch.bool)
    padded = torch.cat([outside, query.mask, outside], 1)
    y = torch.where(padded[..., None], y, math.nan)  # whatever stands there
    torch.testing.assert_close(posterior_of(support).predict(x).log_prob(y, padded), found, **SAME)
    for b in range(3):
        real = query.mask[b]
        alone = posterior_of(support.select([b]).points(slice(int(support.counts[b]))))
        one = alone.predict(query.x[b : b + 1, real]).log_prob(query.y[b : b + 1, real])
        torch.testing.assert_close(found[b : b + 1], one, **SAME)


def test_parts_change_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, (support, query) = Autoregressive(_maml(), Random(2)), _batch()
    prediction = learner.adapt(support).predict(query.x)
    whole = prediction.log_prob(query.y, query.mask)
    sizes = []
    condition = bm.MAML.condition

    def counted(self: bm.MAML, data: bm.Data) -> bm.TaskPosterior:
        sizes.append(data.num_tasks)
        return condition(self, data)

    monkeypatch.setattr(bm.MAML, "condition", counted)
    prediction.log_prob(query.y, query.mask)
    assert sizes == [2 * (5 + 2 + 0)]  # once, and not for what is padding
    monkeypatch.setattr(autoregressive, "MOST_NUMBERS", 3 * autoregressive.POINT * (3 + 5))
    sizes.clear()
    torch.testing.assert_close(prediction.log_prob(query.y, query.mask), whole, **SAME)
    assert sizes == [3, 3, 3, 3, 2]
    sizes.clear()
    assert prediction.sample((2,)).shape == (2, 3, 5, 1)
    assert sizes == [3] * 10  # two parts of 3 rows, five points each
    monkeypatch.setattr(autoregressive, "MOST_NUMBERS", 1)  # never none at all
    torch.testing.assert_close(prediction.log_prob(query.y, query.mask), whole, **SAME)


@every_order
def test_the_order_of_real_points_ignores_padding_and_other_tasks(order: Order) -> None:
    x = torch.rand(2, 7, 1, dtype=torch.float64)
    mask = torch.tensor([[True] * 7, [False, True, True, False, True, False, True]])
    positions = order.positions(x, mask)
    assert torch.equal(positions.sort(-1).values, torch.arange(7).expand_as(positions))
    real = mask[1].nonzero()[:, 0]
    alone = order.positions(x[1:, real], torch.ones(1, 4, dtype=torch.bool))
    assert torch.equal(positions[1, :, :4], real[alone[0]])
    assert not mask[1][positions[1, :, 4:]].any()
    assert torch.equal(order.positions(x, mask), positions)
    assert order.positions(x[:, :0], mask[:, :0]).shape[2] == 0


def test_equal_inputs_stay_as_they_are_given() -> None:
    x = torch.tensor([[[1.0], [0.0], [1.0], [0.0], [1.0]]])
    assert LeftToRight().positions(x, torch.ones(1, 5, dtype=torch.bool)).tolist() == [[[1, 3, 0, 2, 4]]]


def test_random_orders_differ_by_seed_and_number() -> None:
    x, mask = torch.zeros(1, 30, 1), torch.ones(1, 30, dtype=torch.bool)
    found = [*Random(2).positions(x, mask)[0].tolist(), *Random(2, seed=1).positions(x, mask)[0].tolist()]
    assert len({tuple(each) for each in found}) == 4
    assert torch.equal(Random(1).positions(x, mask), Random(2).positions(x, mask)[:, :1])


@pytest.mark.parametrize("make", [_alpaca, _maml], ids=["alpaca", "maml"])
def test_log_densities_are_differentiable_in_theta_and_in_y(make: Callable[[], bm.Learner]) -> None:
    learner, (support, query) = Autoregressive(make(), Random(2)), _batch()
    y = query.y.clone().requires_grad_()
    found = learner.condition(support).at(query.x).log_prob(y, query.mask).sum()
    theta = list(learner.parameters())
    *gradients, of_y = torch.autograd.grad(found, [*theta, y])
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def value(step: float) -> float:
        with torch.no_grad():
            for parameter in theta:
                parameter.add_(step)
            density = learner.condition(support).at(query.x).log_prob(query.y + step * direction, query.mask)
            for parameter in theta:
                parameter.sub_(step)
        return density.sum().item()

    slope = (of_y * direction).sum() + sum(gradient.sum() for gradient in gradients)
    assert (value(1e-5) - value(-1e-5)) / 2e-5 == pytest.approx(slope.item(), rel=1e-5, abs=1e-6)
    assert (of_y[~query.mask] == 0.0).all()  # what is padding never matters
    frozen = learner.adapt(support)
    density = frozen.predict(query.x).log_prob(y, query.mask)
    torch.testing.assert_close(torch.autograd.grad(density.sum(), y)[0], of_y, rtol=1e-7, atol=1e-8)
    assert not frozen.predict(query.x).log_prob(query.y).requires_grad


def test_draws_are_differentiable_through_what_was_fed_back() -> None:
    learner, (support, query) = Autoregressive(_alpaca(), Given()), _batch(points=4)
    posterior, x = learner.adapt(support), query.x.clone().requires_grad_()

    def last(x: Tensor) -> Tensor:
        return posterior.predict(x).rsample((2,), torch.Generator().manual_seed(0))[:, :, 2].sum()

    (gradient,) = torch.autograd.grad(last(x), x)
    step = torch.zeros_like(query.x)
    step[0, 0] = 1e-5  # of a point that was drawn before
    slope = (last(query.x + step) - last(query.x - step)) / 2e-5
    assert gradient[0, 0].item() == pytest.approx(slope.item(), rel=1e-5)
    assert abs(slope.item()) > 1e-3


def test_what_is_asked_of_each_point_is_the_learners_own() -> None:
    learner, (support, query) = _maml(), _batch()
    own, chain = (each.adapt(support).predict(query.x) for each in (learner, Autoregressive(learner)))
    for ask in (
        lambda p: p.mean,
        lambda p: p.stddev,
        lambda p: p.quantile(0.3),
        lambda p: p.cdf(query.y),
        lambda p: p.marginal_log_prob(query.y),
        lambda p: p.output_log_prob(query.y),
        lambda p: p.marginals.mean,
        lambda p: p.noiseless.stddev,
    ):
        torch.testing.assert_close(ask(chain), ask(own), rtol=0.0, atol=0.0)
    assert repr(chain) == repr(own)
    student = bm.MAML(bm.MLP(1, [4]), steps=1, likelihood=bm.likelihoods.StudentT(1), posterior=bm.PointEstimate())
    support, query = _labels()
    with pytest.raises(bm.UnsupportedError, match="does not separate f"):
        _ = Autoregressive(_r2d2()).adapt(support).predict(query.x).noiseless
    assert Autoregressive(student).title == "Autoregressive(MAML)"


@pytest.mark.parametrize("make", [_alpaca, _maml], ids=["alpaca", "maml"])
def test_nothing_is_legal(make: Callable[[], bm.Learner]) -> None:
    learner, (support, query) = Autoregressive(make(), Random(2)), _batch()
    nothing = learner.adapt(bm.Data.empty(support))
    assert torch.isfinite(nothing.predict(query.x).log_prob(query.y)).all()
    prediction = nothing.predict(query.x[:, :0])
    torch.testing.assert_close(prediction.log_prob(query.y[:, :0]), torch.zeros(3, dtype=torch.float64))
    assert prediction.sample((2,)).shape == (2, 3, 0, 1)
    full = nothing.predict(query.x)
    assert (full.log_prob(query.y, torch.zeros_like(query.mask)) == 0.0).all()
    assert full.sample((0,)).shape == (0, 3, 5, 1)
    assert full.rsample((2, 0)).shape == (2, 0, 3, 5, 1)
    no_task = learner.adapt(support).select([])
    assert no_task.predict(query.x[:0]).log_prob(query.y[:0]).shape == (0,)


def test_a_posterior_streams_and_can_be_divided() -> None:
    learner, (support, query) = Autoregressive(_maml(), Random(2)), _batch()
    more = query.points(slice(2))
    stepwise, at_once = learner.adapt(support).update(more), learner.adapt(support.append(more))
    assert repr(stepwise) == repr(at_once)
    expected = at_once.predict(query.x).log_prob(query.y)
    torch.testing.assert_close(stepwise.predict(query.x).log_prob(query.y), expected, **SAME)
    some = stepwise.select([2, 0]).predict(query.x[[2, 0]]).log_prob(query.y[[2, 0]])
    torch.testing.assert_close(some, expected[[2, 0]], **SAME)


def test_outcomes_of_another_precision() -> None:
    """A learner in float32 whose user has float64, and the other way round."""
    support, query = _batch()
    single = Autoregressive(_alpaca().float(), Random()).adapt(support).predict(query.x)
    double = Autoregressive(_alpaca(), Random()).adapt(support).predict(query.x)
    expected = double.log_prob(query.y)
    torch.testing.assert_close(single.log_prob(query.y).double(), expected, rtol=1e-3, atol=1e-3)  # float32 theta
    torch.testing.assert_close(double.log_prob(query.y.float()).double(), expected, rtol=1e-4, atol=1e-4)


def test_training_is_that_of_what_is_inside() -> None:
    tasks = bm.tasks.Sinusoid().dataset(8, 8, seed=0)
    results = []
    for wrap in (lambda learner: learner, Autoregressive):
        torch.manual_seed(0)
        results.append(bm.fit(wrap(bm.ALPaCA(bm.MLP(1, [8]))), tasks, steps=3, progress=False).losses)
    assert results[0] == results[1]


def test_the_chain_itself_can_be_trained_on() -> None:
    """With `JointPredictive` the loss is that of the chain, on contexts of up to N + M points."""
    tasks = bm.tasks.Sinusoid().dataset(8, 8, seed=0)
    learner, objective = Autoregressive(_maml(), Given()), bm.training.JointPredictive()
    batch = learner.conform_tasks(tasks.divided(bm.tasks.RandomSplit((0, 4), 4), 0))
    with torch.no_grad():
        predictive = learner.condition(batch.support).at(batch.query.x)
        expected = -predictive.log_prob(batch.query.y, batch.query.mask) / batch.query.counts
        torch.testing.assert_close(objective(learner, batch), expected, **SAME)
        assert (learner.meta_loss(batch) - expected).abs().max() > 1e-3  # the learner's own
    before = [parameter.clone() for parameter in learner.parameters()]
    bm.fit(learner, tasks, steps=2, objective=objective, progress=False)
    assert all((old != new).any() for old, new in zip(before, learner.parameters(), strict=True))


def test_whoever_takes_predictives_takes_these() -> None:
    tasks, exact = bm.tasks.Sinusoid().dataset(24, 8, seed=0), bm.ALPaCA(bm.Polynomial(1, 2)).double()
    chain = Autoregressive(exact, Random(2))
    bm.fit_evidence(chain, tasks)
    scores, expected = (bm.evaluate(learner, tasks, shots=[0, 3]).table() for learner in (chain, exact))
    torch.testing.assert_close(torch.as_tensor(scores.to_numpy()), torch.as_tensor(expected.to_numpy()), **EXACT)
    assert scores["joint_nll"].ne(scores["nll"]).all()
    scaled, wanted = (bm.calibration.variance_scaling(learner, tasks, shots=[2]) for learner in (chain, exact))
    torch.testing.assert_close(scaled.log_factors, wanted.log_factors, **EXACT)
    regions = [bm.calibration.HierarchicalConformal(learner, tasks, shots=2) for learner in (chain, exact)]
    support = tasks.data.select([0]).points(slice(2))
    found = [each.adapt(support).interval([0.5], level=0.8) for each in regions]
    torch.testing.assert_close(found[0], found[1], **EXACT)
    data, query = tasks.data.select([0, 1]).points(slice(4)), [[[0.1], [2.0]]] * 2
    surprise = chain.surprise(data, 99)
    assert ((surprise - exact.surprise(data, 99)).abs() < 0.3).all()  # other draws: five deviations of two times 99
    wrapped = Autoregressive(scaled.learner).adapt(data).predict(query)  # a chain of chains
    torch.testing.assert_close(wrapped.mean, exact.adapt(data).predict(query).mean, **EXACT)


def test_what_it_is_made_of_is_saved(tmp_path: object) -> None:
    support, query = _batch()
    learner = Autoregressive(_maml(), Random(2, seed=7))
    bm.save(learner, f"{tmp_path}/model")
    loaded = bm.load(f"{tmp_path}/model")
    found, expected = (each.adapt(support).predict(query.x).log_prob(query.y) for each in (loaded, learner))
    assert torch.equal(found, expected)


def test_a_failure_is_told_as_that_of_a_task() -> None:
    class Failing(bm.ALPaCA):
        """Cannot adapt to a support with an outcome above 100."""

        def condition(self, support: bm.Data) -> bm.TaskPosterior:
            wrong = (support.y > 100.0).any(-1).any(-1)
            if wrong.any():
                task = int(wrong.nonzero()[0])
                raise bm.InferenceError(f"expected less, got more in task {task}", task=task)
            return super().condition(support)

    support, query = _batch()
    prediction = Autoregressive(Failing(bm.Identity(1)), Given()).adapt(support).predict(query.x)
    y = query.y.clone()
    y[1, 3] = 1e3
    with pytest.raises(bm.InferenceError, match="got more in task 1"):
        prediction.log_prob(y)
    y[1, 4], y[1, 3] = 1e3, 0.0
    assert torch.isfinite(prediction.log_prob(y)).all()  # nothing is predicted from the last point


def test_what_is_refused() -> None:
    ordered = bm.Matching(bm.MLP(2, [4]), num_classes=3, context=bm.heads.BiLSTM(4))
    with pytest.raises(bm.UnsupportedError, match="order of the support does not matter, got Matching"):
        Autoregressive(ordered)
    with pytest.raises(bm.UnsupportedError, match=r"Standardized\(Matching\)"):
        Autoregressive(bm.Standardized(ordered))
    with pytest.raises(bm.UnsupportedError, match=r"from left to right, got inputs of shape \(2,\)"):
        Autoregressive(_r2d2(), LeftToRight())
    with pytest.raises(bm.DataError, match="at least one order, got 0"):
        Random(0)
    with pytest.raises(bm.DataError, match="seed"):
        Random(2, seed=-1)
    with pytest.raises(bm.DataError, match="order to be an Order or None"):
        Autoregressive(_alpaca(), "random")  # type: ignore[arg-type]
    support, query = _labels()
    prediction = Autoregressive(_r2d2()).adapt(support).predict(query.x)
    with pytest.raises(bm.DataError, match="labels from 0 to 2, got 3"):
        prediction.log_prob(torch.full_like(query.y, 3))
    mask = torch.zeros_like(query.mask)
    mask[:, 0] = True
    strange = torch.where(mask, query.y, 3)
    assert torch.isfinite(prediction.log_prob(strange, mask)).all()  # what stands in padding need not be a class
