"""What every learner in the registry keeps (docs/design.md, section 5)."""

import gc
import math
import resource
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bayesmeta as bm
from tests.contracts.order import check_order
from tests.registry import CASES, Case

# contracts are about few draws, which need not have converged
pytestmark = pytest.mark.filterwarnings("ignore::bayesmeta.ConvergenceWarning")
SAME = {"rtol": 1e-9, "atol": 1e-9}  # float64: the same mathematics in another order of summation


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    contract = request.node.originalname.removeprefix("test_")
    if contract in request.param.exceptions:
        pytest.skip(f"declared exception: {request.param.exceptions[contract]}")
    return request.param


def properties(**strategies: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[[Case], None]]:
    """A test of a case on as many examples as the case says."""

    def decorate(check: Callable[..., None]) -> Callable[[Case], None]:
        def test(case: Case) -> None:
            def body(**drawn: Any) -> None:
                check(case, **drawn)

            settings(max_examples=case.examples)(given(**strategies)(body))()

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return test

    return decorate


def _pad(data: bm.Data, extra: int, fill: float) -> bm.Data:
    def widen(value: torch.Tensor, fill: float | bool) -> torch.Tensor:
        return torch.cat([value, value.new_full((value.shape[0], extra, *value.shape[2:]), fill)], 1)

    x = torch.where(data.mask[..., None], data.x, fill)
    other = -fill if data.y.is_floating_point() else -int(fill)
    y = torch.where(data.mask.view(*data.mask.shape, *[1] * (data.y.ndim - 2)), data.y, other)
    noise = None if data.noise is None else widen(torch.where(data.mask[..., None], data.noise, abs(fill)), abs(fill))
    return bm.Data(widen(x, fill), widen(y, other), widen(data.mask, False), noise)


def _summary(prediction: bm.Predictive) -> tuple[torch.Tensor, ...]:
    """What a prediction says of each point: mean and deviation, or probabilities."""
    if isinstance(prediction.marginals, torch.distributions.Categorical | torch.distributions.Bernoulli):
        return (prediction.probs,)
    return prediction.mean, prediction.stddev


def _losses_and_gradients(learner: bm.Learner, tasks: bm.TaskBatch) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The losses of the tasks; the gradient of their sum in every parameter, none where theta is frozen."""
    losses = learner.meta_loss(tasks)
    if not any(p.requires_grad for p in learner.parameters()):
        return losses, []
    learner.zero_grad()
    losses.sum().backward()
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in learner.parameters()]
    return losses.detach(), gradients


@properties(seed=st.integers(0, 10**6), extra=st.integers(0, 4), fill=st.floats(-1e3, 1e3))
def test_padding_never_matters(case: Case, seed: int, extra: int, fill: float) -> None:
    learner, tasks = case.learner(), case.batch(4, 5, 3, seed)
    padded = replace(tasks, support=_pad(tasks.support, extra, fill), query=_pad(tasks.query, extra, fill))
    (found, gradients), (expected, own) = (_losses_and_gradients(learner, each) for each in (padded, tasks))
    torch.testing.assert_close(found, expected, **SAME)
    for a, b in zip(gradients, own, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-8)  # gradients amplify rounding
    x = tasks.query.x
    a, b = learner.adapt(padded.support).predict(x), learner.adapt(tasks.support).predict(x)
    torch.testing.assert_close(_summary(a), _summary(b), **SAME)


@properties(seed=st.integers(0, 10**6))
def test_support_order_never_matters(case: Case, seed: int) -> None:
    check_order(case.learner(), case.batch(4, 5, 3, seed), seed)


@properties(seed=st.integers(0, 10**6))
def test_a_batch_equals_a_loop_over_its_tasks(case: Case, seed: int) -> None:
    learner, tasks = case.learner(), case.batch(4, 5, 3, seed)
    batched, whole = _losses_and_gradients(learner, tasks)
    looped, gradients = [], [torch.zeros_like(g) for g in whole]
    for i in range(tasks.num_tasks):
        count = int(tasks.support.counts[i])
        support = tasks.support.select([i])
        one = bm.TaskBatch(support.points(slice(count)), tasks.query.select([i]))
        alone, own = _losses_and_gradients(learner, one)
        looped.append(alone[0])
        for total, gradient in zip(gradients, own, strict=True):
            total += gradient
    torch.testing.assert_close(batched, torch.stack(looped), **SAME)
    for a, b in zip(whole, gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-8)  # gradients amplify rounding


@properties(seed=st.integers(0, 10**6), cut=st.integers(0, 6))
def test_update_equals_adapting_on_all(case: Case, seed: int, cut: int) -> None:
    learner, tasks = case.learner(), case.batch(4, 6, 3, seed)
    support = tasks.support
    first, second = support.points(slice(cut)), support.points(slice(cut, None))
    stepwise = learner.adapt(first).update(second)
    for i in range(2):  # streaming, a point at a time, after an update
        more = support.points(slice(i, i + 1))
        stepwise, support = stepwise.update(more), support.append(more)
    a, b = stepwise.predict(tasks.query.x), learner.adapt(support).predict(tasks.query.x)
    torch.testing.assert_close(_summary(a), _summary(b), **SAME)
    torch.testing.assert_close(a.log_prob(tasks.query.y), b.log_prob(tasks.query.y), rtol=1e-7, atol=1e-7)


def test_a_posterior_is_a_value(case: Case) -> None:
    learner, tasks = case.learner(), case.batch(4, 5, 3)
    posterior = learner.adapt(tasks.support)
    before = _summary(posterior.predict(tasks.query.x))[0].clone()
    posterior.update(tasks.query)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(1.0)
    tasks.support.y.zero_()
    assert torch.equal(_summary(posterior.predict(tasks.query.x))[0], before)
    with pytest.raises(AttributeError):
        posterior.spec = None  # type: ignore[misc]


def test_marginals_ignore_the_other_query_points(case: Case) -> None:
    learner, tasks = case.learner(), case.batch(4, 5, 6)
    posterior = learner.adapt(tasks.support)
    together, alone = posterior.predict(tasks.query.x), posterior.predict(tasks.query.x[:, 2:3])
    for a, b in zip(_summary(together), _summary(alone), strict=True):
        torch.testing.assert_close(a[:, 2:3], b, **SAME)


def test_empty_support_gives_a_finite_prior_predictive(case: Case) -> None:
    learner, tasks = case.learner(), case.batch(4, 5, 3)
    prediction = learner.adapt(bm.Data.empty(tasks.support)).predict(tasks.query.x)
    intervals = () if case.num_classes else prediction.interval(0.9)
    for value in (*_summary(prediction), prediction.log_prob(tasks.query.y), *intervals):
        assert torch.isfinite(value).all()
    assert (_summary(prediction)[-1] > 0).all()
    nowhere = learner.adapt(tasks.support).predict(tasks.query.x[:, :0])
    assert _summary(nowhere)[0].shape == (4, 0, case.num_classes or case.num_outputs)
    torch.testing.assert_close(nowhere.log_prob(tasks.query.y[:, :0]), torch.zeros(4, dtype=torch.float64))


def test_densities_integrate_to_one(case: Case) -> None:
    learner, tasks = case.learner(), case.batch(3, 5, 1)
    posterior, x = learner.adapt(tasks.support), tasks.query.x
    prediction = posterior.predict(x)

    def density(points: torch.Tensor) -> torch.Tensor:
        """Of G outcomes of the one point of each task, `B G C`, by a prediction of as many tasks that are alike."""
        alike = torch.arange(3).repeat_interleave(points.shape[1])
        values = posterior.select(alike).predict(x[alike]).log_prob(points.flatten(0, 1)[:, None])
        return values.reshape(points.shape[:2]).exp()

    if case.num_classes:
        labels = torch.arange(case.num_classes).repeat(3, 1)
        total = (
            torch.stack([prediction.log_prob(labels[:, c : c + 1]) for c in range(case.num_classes)], -1).exp().sum(-1)
        )
    elif isinstance(case.outcomes, bm.tasks.Counts):
        counts = torch.arange(int(prediction.quantile(1.0 - 1e-8).max()) + 1, dtype=torch.float64)
        each = posterior.predict(x.expand(-1, len(counts), -1)).marginal_log_prob(counts.repeat(3, 1)[..., None])
        total = each.exp().sum(-1)
    elif isinstance(case.outcomes, bm.tasks.Positives):
        ends = prediction.quantile(1e-9).log(), prediction.quantile(1.0 - 1e-9).log()
        points = torch.lerp(*ends, torch.linspace(0, 1, 241, dtype=torch.float64)[:, None]).exp()  # B G 1
        total = torch.trapezoid(density(points) * points[..., 0], points[..., 0].log(), dim=-1)
    elif case.num_outputs == 1:
        grid = torch.linspace(-1, 1, 241, dtype=torch.float64)  # steps of a tenth of a deviation
        points = prediction.mean + 12 * prediction.stddev * grid[:, None]  # B G 1
        total = torch.trapezoid(density(points), points[..., 0], dim=-1)
    else:
        grid = torch.linspace(-1, 1, 61, dtype=torch.float64)  # steps of .27 of a deviation
        points = prediction.mean + 8 * prediction.stddev * torch.cartesian_prod(grid, grid)  # B G C
        cell = (8 * prediction.stddev[:, 0] * 2 / 60).prod(-1)
        total = density(points).sum(-1) * cell
    torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-6, atol=1e-6)  # the trapezoid rule's own error


def test_every_theta_gets_a_finite_gradient(case: Case) -> None:
    learner, tasks = case.learner(), case.batch(8, 6, 4)
    for parameter, gradient in zip(learner.parameters(), _losses_and_gradients(learner, tasks)[1], strict=True):
        assert torch.isfinite(gradient).all()
        assert parameter.numel() == 0 or gradient.abs().max() > 0


def test_meta_gradient_equals_finite_differences(case: Case) -> None:
    learner, tasks = case.learner(), case.batch(3, 4, 3)
    _, gradients = _losses_and_gradients(learner, tasks)
    generator = torch.Generator().manual_seed(0)
    for parameter, gradient in zip(learner.parameters(), gradients, strict=True):
        direction = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        ends = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                parameter.add_(step * direction)
                ends.append(learner.meta_loss(tasks).sum().item())
                parameter.sub_(step * direction)
        # central differences err by h² f''' ~ 1e-10 and by rounding / h ~ 1e-10
        assert math.isclose((ends[0] - ends[1]) / 2e-5, (gradient * direction).sum().item(), rel_tol=1e-5, abs_tol=1e-7)


def test_float32_agrees_with_float64(case: Case) -> None:
    tasks = case.batch(16, 8, 5)
    double = case.learner(torch.float64)
    single = case.learner(torch.float64).to(torch.float32)
    a, b = (learner.adapt(tasks.support).predict(tasks.query.x) for learner in (double, single))
    if case.num_classes:
        assert (a.probs - b.probs).abs().max() < case.float32_tolerance
        return
    difference = (a.mean - b.mean).abs() / a.stddev
    assert difference.max() < case.float32_tolerance
    torch.testing.assert_close(a.stddev, b.stddev.double(), rtol=case.float32_tolerance, atol=0.0)


@pytest.mark.usefixtures("unchecked")  # shape checks would take most of the time of so many calls
def test_constant_memory_and_no_graph(case: Case) -> None:
    learner, tasks = case.learner(torch.float32), case.batch(4, 5, 3)
    posterior = learner.adapt(tasks.support)
    assert not _summary(posterior.predict(tasks.query.x))[0].requires_grad
    x = tasks.query.x.clone().requires_grad_()
    _summary(posterior.predict(x))[0].square().sum().backward()  # acquisition functions need this
    assert x.grad is not None

    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())

    gc.freeze()  # what there is already is not counted, or looked through again and again
    try:
        with torch.no_grad():
            for calls in (min(10, case.calls), case.calls):  # the first ones fill caches
                before, peak = tensors(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                for _ in range(calls):
                    learner.condition(learner.conform(tasks.support)).predict(tasks.query.x).log_prob(tasks.query.y)
                for _ in range(calls // 5):  # what `adapt` keeps of a learner is one snapshot of it
                    posterior = learner.adapt(tasks.support)
        after = tensors()
    finally:
        gc.unfreeze()
    assert after <= before
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 20_000  # kB


class _Tasks(bm.tasks.TaskSource):
    def __init__(self, case: Case) -> None:
        self.case = case

    def draw(self, num_tasks: int, split: bm.tasks.Split, generator: torch.Generator) -> bm.TaskBatch:
        seed = int(torch.randint(10**6, (), generator=generator))
        return self.case.batch(num_tasks, split.support[1], 10, seed)

    def pooled(self, generator: torch.Generator) -> bm.Data:
        return self.case.batch(64, 6, 6, 5).query


@pytest.mark.usefixtures("unchecked")
def test_fit_lowers_the_loss(case: Case) -> None:
    torch.manual_seed(0)
    learner, test = case.make(), case.batch(64, 6, 6, seed=10**7)
    learner.prepare(test.query)
    before = learner.meta_loss(bm.TaskBatch(learner.conform(test.support), learner.conform(test.query))).mean()
    result = bm.fit(learner, _Tasks(case), steps=case.steps, lr=1e-2, split=bm.tasks.RandomSplit((0, 6)))
    after = learner.meta_loss(bm.TaskBatch(learner.conform(test.support), learner.conform(test.query))).mean()
    assert len(result.losses) == case.steps
    assert after < before - 0.05  # nats per point, on tasks never seen


def test_state_dict_round_trip(case: Case, tmp_path: object) -> None:
    learner, tasks = case.learner(), case.batch(4, 5, 3)
    expected = _summary(learner.adapt(tasks.support).predict(tasks.query.x))[0]
    torch.manual_seed(123)
    other = case.make().to(torch.float64)
    other.load_state_dict(learner.state_dict())
    assert torch.equal(_summary(other.adapt(tasks.support).predict(tasks.query.x))[0], expected)
    bm.save(learner, f"{tmp_path}/model")
    loaded = bm.load(f"{tmp_path}/model")
    assert torch.equal(_summary(loaded.adapt(tasks.support).predict(tasks.query.x))[0], expected)


def test_log_density_of_draws_and_evidence_agree(case: Case) -> None:
    """log p(D) = log p(D | phi) + log p(phi) - log p(phi | D) has one value, the chain of one-step predictives."""
    learner, tasks = case.learner(), case.batch(3, 4, 2, ragged=False)
    data, total = tasks.support, torch.zeros(3, dtype=torch.float64)
    for i in range(data.num_points):
        seen, point = data.points(slice(i)), data.points(slice(i, i + 1))
        yerr = None if point.noise is None else point.noise.sqrt()
        total += learner.adapt(seen).predict(point.x, yerr).log_prob(point.y)
    try:
        evidence = learner.log_evidence(learner.conform(data))
    except bm.UnsupportedError:
        pytest.skip("no closed form of the evidence")
    torch.testing.assert_close(evidence.detach(), total, rtol=1e-8, atol=1e-8)
