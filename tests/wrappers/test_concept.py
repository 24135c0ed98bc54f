"""A discriminator over base classes: a second likelihood of the features, and of nothing else."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import bayesmeta as bm
from bayesmeta.description import describe
from bayesmeta.errors import DataError, ShapeError, UnsupportedError
from bayesmeta.tasks import BasePoints
from bayesmeta.training.compiled import CompiledStep
from bayesmeta.wrappers import ConceptLearner, WithHyperprior


def base_points(seed: int = 0) -> BasePoints:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(24, 2, generator=generator, dtype=torch.float64)
    return BasePoints.from_labels(x, torch.arange(24) % 6)


def concept(weight: float = 0.5, batch_size: int = 8, points: BasePoints | None = None) -> ConceptLearner:
    torch.manual_seed(0)
    inner = bm.R2D2(bm.MLP(2, [8]), num_classes=3)
    return ConceptLearner(inner, base_points() if points is None else points, weight, batch_size)


def tasks(num_tasks: int = 4) -> bm.TaskDataset:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(num_tasks, 9, 2, generator=generator, dtype=torch.float64)
    return bm.TaskDataset(bm.Data.full(x, torch.arange(9).expand(num_tasks, -1) % 3))


def cross_entropy(learner: ConceptLearner, x: Tensor, y: Tensor) -> Tensor:
    h = learner.learner.features(x.to(learner.discriminator.weight.dtype)[None])[0]
    return functional.cross_entropy(h @ learner.discriminator.weight.T + learner.discriminator.bias, y, reduction="sum")


def test_the_hyperprior_is_the_log_likelihood_of_all_base_points_to_a_power() -> None:
    learner = concept(weight=0.7).double()
    every = base_points().minibatch(0, 24)
    value = learner.log_hyperprior()
    assert value.item() == pytest.approx(-0.7 * cross_entropy(learner, every.x[0], every.y[0]).item(), rel=1e-12)
    theta = dict(learner.named_parameters())
    gradients = dict(zip(theta, torch.autograd.grad(value, list(theta.values()), allow_unused=True), strict=True))
    reached = {name for name, gradient in gradients.items() if gradient is not None and bool(gradient.abs().max() > 0)}
    assert reached == {name for name in theta if "features" in name or "discriminator" in name}
    around = WithHyperprior(bm.R2D2(bm.MLP(2, [8]), num_classes=3), bm.hyperpriors.GaussianHyperprior(1.0))
    both = ConceptLearner(around, base_points(), 0.0)
    assert both.log_hyperprior().item() == pytest.approx(around.log_hyperprior().item())


def test_a_step_weighs_a_minibatch_against_the_points_of_the_tasks() -> None:
    """A base point counts as `weight` points of the tasks: 36 here."""
    learner, plain = concept(), concept()
    split = bm.tasks.ClassSplit.at(1)
    losses = bm.fit(learner, tasks(), steps=5, split=split, progress=False).losses
    again = concept()
    assert bm.fit(again, tasks(), steps=5, split=split, progress=False).losses == losses
    assert all(torch.equal(a, b) for a, b in zip(learner.parameters(), again.parameters(), strict=True))
    without = bm.fit(plain.learner, tasks(), steps=1, split=split, progress=False).losses[0]
    first = base_points().minibatch(0, 8)
    nats = cross_entropy(concept(), first.x[0], first.y[0]).item()
    assert losses[0] == pytest.approx(without + 0.5 * (24 / 8) * nats / 36, rel=1e-5)  # float32
    # after the training all points count, and its next minibatch is the next one
    every = base_points().minibatch(0, 24)
    nats = cross_entropy(learner, every.x[0], every.y[0]).item()
    assert learner.log_hyperprior().item() == pytest.approx(-0.5 * nats, rel=1e-5)
    learner.anneal(0.0)
    assert torch.equal(learner.base_x, base_points().minibatch(5, 8).x[0].float())


def test_a_simulator_leaves_no_weight_to_it() -> None:
    points = BasePoints.from_labels([[0.0], [1.0]], [0, 1])
    torch.manual_seed(0)
    learner = ConceptLearner(bm.ALPaCA(bm.MLP(1, [4])), points, weight=1e6)
    before = learner.discriminator.weight.clone()
    bm.fit(learner, bm.tasks.Sinusoid(), steps=2, progress=False)
    assert torch.equal(learner.discriminator.weight, before)


def test_predictions_are_those_of_the_learner_inside() -> None:
    learner = concept()
    bm.fit(learner, tasks(), steps=3, split=bm.tasks.ClassSplit.at(1), progress=False)
    batch = tasks().divided(bm.tasks.ClassSplit.at(1))
    inner, outer = (each.adapt(batch.support).predict(batch.query.x) for each in (learner.learner, learner))
    assert torch.equal(inner.probs, outer.probs)
    with torch.no_grad():
        learner.discriminator.weight.fill_(9.0)
    assert torch.equal(learner.adapt(batch.support).predict(batch.query.x).probs, inner.probs)
    assert torch.equal(learner.meta_loss(batch), learner.learner.meta_loss(batch))
    assert learner.title == "ConceptLearner(R2D2)"


def test_a_model_folder_has_the_discriminator_and_not_the_points(tmp_path: object) -> None:
    learner = concept()
    bm.fit(learner, tasks(), steps=3, split=bm.tasks.ClassSplit.at(1), progress=False)
    bm.save(learner, f"{tmp_path}/model")
    loaded = bm.load(f"{tmp_path}/model")
    assert isinstance(loaded, ConceptLearner)
    assert describe(loaded) == describe(learner)
    assert torch.equal(loaded.discriminator.weight, learner.discriminator.weight)
    support = tasks().data
    before, after = (each.adapt(support).predict(support.x).probs for each in (learner, loaded))
    assert torch.equal(before, after)
    for use in (loaded.log_hyperprior, lambda: bm.fit(loaded, tasks(), steps=1, progress=False)):
        with pytest.raises(DataError, match="a model folder does not keep them"):
            use()
    loaded.take_points(base_points())
    assert torch.equal(loaded.log_hyperprior(), learner.log_hyperprior())
    arguments = {"steps": 2, "split": bm.tasks.ClassSplit.at(1), "progress": False}
    assert bm.fit(loaded, tasks(), **arguments).losses == bm.fit(learner, tasks(), **arguments).losses


def test_base_points_are_in_the_units_of_the_tasks() -> None:
    """`Standardized` inside scales them as it scales the tasks."""
    scaled = BasePoints.from_labels(100.0 * base_points().minibatch(0, 24).x[0], base_points().minibatch(0, 24).y[0])
    torch.manual_seed(0)
    learner = ConceptLearner(bm.Standardized(bm.R2D2(bm.MLP(2, [8]), num_classes=3)), scaled)
    learner.prepare(tasks().data.each(lambda x: 100.0 * x if x.is_floating_point() else x))
    assert learner.placement()[0] == torch.float64
    inner = learner.learner
    x = (scaled.minibatch(0, 24).x[0] - inner.x_shift) / inner.x_scale
    rows = inner.learner.features(x.float()[None])[0]
    torch.testing.assert_close(learner.logits(scaled.minibatch(0, 24).x[0]), learner.discriminator(rows))


def test_a_step_can_be_recorded() -> None:
    """For `fit(..., compile=True)`, with the minibatch as buffers, which are inputs of what is recorded."""
    learner = concept()
    learner.anneal(0.0)
    step = CompiledStep(learner, learner.loss, total_points=36.0)
    batch = learner.conform_tasks(tasks().divided(bm.tasks.ClassSplit.at(1)))
    losses, loss = step.record(batch)
    torch.testing.assert_close(loss, (losses.mean() - learner.log_hyperprior() / 36.0).detach())


def test_what_does_not_fit_is_refused() -> None:
    points = base_points()
    with pytest.raises(UnsupportedError, match="such as Prototypical, R2D2 or ALPaCA, got MAML"):
        ConceptLearner(bm.MAML(bm.MLP(2, [4])), points)
    with pytest.raises(UnsupportedError, match="put the ConceptLearner inside of that wrapper"):
        ConceptLearner(bm.wrappers.Autoregressive(bm.R2D2(bm.MLP(2, [4]))), points)
    with pytest.raises(ShapeError, match=r"base points of shape \(3,\), got \(2,\)"):
        ConceptLearner(bm.R2D2(bm.MLP(3, [4])), points)
    for weight in (-1.0, math.inf, math.nan):
        with pytest.raises(DataError, match="expected"):
            ConceptLearner(bm.R2D2(bm.MLP(2, [4])), points, weight)
    with pytest.raises(DataError, match="base points of 6 classes, got 7"):
        concept().take_points(BasePoints.from_labels(torch.randn(3, 2), [0, 1, 6]))
