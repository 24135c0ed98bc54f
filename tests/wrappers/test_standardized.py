"""Standardized: the same as standardising by hand, in the user's units."""

import math

import numpy as np
import pytest
import torch

import bayesmeta as bm
from bayesmeta.errors import DataError, InferenceError

CLOSE = {"rtol": 1e-9, "atol": 1e-9}  # float64: the same operations in another order
D = torch.float64


def _tasks(offset: float = 30.0, scale: float = 5.0, seed: int = 0) -> bm.TaskDataset:
    rng = np.random.default_rng(seed)
    x = rng.normal(offset, scale, size=(60, 2))
    y = np.stack([1e3 * np.sin(x[:, 0]) + 2e4, 1e-3 * x[:, 1]], 1) + rng.normal(size=(60, 2)) * [10.0, 1e-4]
    return bm.TaskDataset.from_arrays(x, y, rng.integers(0, 8, 60))


def _make() -> bm.ALPaCA:
    torch.manual_seed(0)
    return bm.ALPaCA(bm.MLP(2, [6]), num_outputs=2, noise=bm.noise.FullNoise(2)).double()


def _by_hand(tasks: bm.TaskDataset) -> tuple[torch.Tensor, ...]:
    x, y = tasks.data.x[tasks.data.mask], tasks.data.y[tasks.data.mask]
    return x.mean(0), x.std(0), y.mean(0), y.std(0)


def test_predictions_are_those_of_standardising_by_hand() -> None:
    tasks = _tasks()
    learner, plain = bm.Standardized(_make()), _make()
    learner.prepare(tasks.data)
    xm, xs, ym, ys = _by_hand(tasks)
    support, query = tasks.data.select(slice(0, 3)), tasks.data.select(slice(3, 6)).x[:, :4]
    inside = bm.Data((support.x - xm) / xs, (support.y - ym) / ys, support.mask)
    found, base = learner.adapt(support).predict(query), plain.adapt(inside).predict((query - xm) / xs)
    torch.testing.assert_close(found.mean, ym + ys * base.mean, **CLOSE)
    torch.testing.assert_close(found.stddev, ys * base.stddev, **CLOSE)
    y = found.sample(generator=torch.Generator().manual_seed(0))
    jacobian = 4 * ys.log().sum()
    torch.testing.assert_close(found.log_prob(y), base.log_prob((y - ym) / ys) - jacobian, rtol=1e-7, atol=1e-7)
    more = tasks.data.select(slice(3, 6))
    updated = learner.adapt(support).update(more).predict(query)
    together = learner.adapt(support.append(more)).predict(query)
    torch.testing.assert_close(updated.mean, together.mean, **CLOSE)
    torch.testing.assert_close(updated.stddev, together.stddev, **CLOSE)


def test_losses_and_evidences_are_in_the_users_units() -> None:
    tasks = _tasks()
    learner = bm.Standardized(_make())
    learner.prepare(tasks.data)
    batch = tasks.divided(bm.tasks.RandomSplit.at(3, query=4))
    predictive = learner.condition(batch.support).at(batch.query.x)
    marginal = torch.where(batch.query.mask, predictive.marginal_log_prob(batch.query.y), 0.0).sum(-1)
    torch.testing.assert_close(learner.meta_loss(batch), -marginal / batch.query.counts, **CLOSE)
    joint = -predictive.log_prob(batch.query.y, batch.query.mask) / batch.query.counts
    torch.testing.assert_close(bm.training.JointPredictive()(learner, batch), joint, **CLOSE)
    # the evidence is the joint density of a task under the prior predictive
    data = tasks.data
    prior = learner.condition(bm.Data.empty(data)).at(data.x)
    torch.testing.assert_close(learner.log_evidence(data), prior.log_prob(data.y, data.mask), rtol=1e-8, atol=1e-8)


def test_maximum_likelihood_in_standard_units_is_the_same_model() -> None:
    """A linear mixed model with free V is equivariant: the evidence in the user's units does not see the units."""
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(20), 6)
    x = rng.normal(50.0, 4.0, 120)
    y = 300.0 + rng.normal(0, 20, 20)[groups] + (3.0 + rng.normal(0, 0.7, 20)[groups]) * x + rng.normal(0, 5, 120)
    tasks = bm.TaskDataset.from_arrays(x, y, groups)
    values = []
    for wrap in (lambda a: a, bm.Standardized):
        learner = wrap(bm.ALPaCA(bm.Identity(1)).double())
        bm.fit_evidence(learner, tasks)
        values.append(learner.log_evidence(tasks.data).sum().item())
    assert math.isclose(values[0], values[1], abs_tol=1e-3)  # both stop near a flat maximum
    learner = bm.Standardized(bm.ALPaCA(bm.Identity(1)).double())
    result = bm.fit_evidence(learner, tasks, bm.training.RestrictedMaximumLikelihood())
    assert result.losses[-1] < result.losses[0]
    assert learner.learner.prior.location.abs().max() > 0.1  # finish() has set it


def test_constant_inputs_are_harmless_and_constant_outcomes_refused() -> None:
    x, y = np.stack([np.full(6, 7.1), np.arange(6.0)], 1), np.arange(6.0)
    learner = bm.Standardized(bm.ALPaCA(bm.MLP(2, [4])))
    constant = bm.Data.from_arrays(x, np.full(6, 0.1))
    with pytest.raises(DataError, match=r"outcomes that vary, got 0.1 at every point of y 0"):
        learner.prepare(constant)
    with pytest.raises(InferenceError, match="statistics"):  # and nothing half-taken is left
        learner.adapt(constant)
    learner.prepare(bm.Data.from_arrays(x, y))
    assert learner.x_scale[0] == 1.0
    prediction = learner.adapt(bm.Data.from_arrays(x, y)).predict(x)
    assert torch.isfinite(prediction.mean).all()
    with pytest.raises(DataError, match="at least 2 points to take statistics of, got 1"):
        bm.Standardized(bm.ALPaCA(bm.MLP(2, [4]))).prepare(bm.Data.from_arrays(x[:1], y[:1]))
    tiny = bm.Standardized(bm.ALPaCA(bm.Identity(1)))
    with pytest.raises(DataError, match="outcomes that vary"):
        tiny.prepare(bm.Data.from_arrays([0.0, 1.0], [0.0, 1e-200]))  # its square underflows


def test_use_before_fit_is_told() -> None:
    learner, data = bm.Standardized(bm.ALPaCA(bm.Identity(1))), bm.Data.from_arrays([0.0, 1.0], [0.0, 1.0])
    for question in (learner.adapt, learner.log_evidence, learner.mixed_model.maximise_exactly):
        with pytest.raises(InferenceError, match=r"expected statistics of meta-training tasks, got none: call fit"):
            question(data)
    with pytest.raises(InferenceError, match="call fit"):
        learner.meta_loss(bm.TaskBatch(data, data))


@pytest.mark.usefixtures("unchecked")
def test_labels_that_the_learner_refuses_leave_no_statistics() -> None:
    learner = bm.Standardized(bm.ALPaCA(bm.Identity(1)))
    with pytest.raises(DataError, match="got labels"):
        learner.prepare(bm.Data.from_labels([0.0, 1.0], [0, 1]))
    learner.prepare(bm.Data.from_arrays([0.0, 1.0], [10.0, 30.0]))
    assert learner.y_shift.item() == 20.0


def test_padding_does_not_enter_the_statistics() -> None:
    tasks = _tasks()
    data = tasks.data
    padded = bm.Data(torch.where(data.mask[..., None], data.x, 1e6), data.y, data.mask)
    learner = bm.Standardized(_make())
    learner.prepare(padded)
    xm, xs, ym, ys = _by_hand(tasks)
    for found, expected in ((learner.x_shift, xm), (learner.x_scale, xs), (learner.y_shift, ym), (learner.y_scale, ys)):
        torch.testing.assert_close(found, expected, **CLOSE)


def test_statistics_are_taken_once() -> None:
    learner = bm.Standardized(_make())
    learner.prepare(_tasks().data)
    before = learner.x_shift.clone()
    learner.prepare(_tasks(offset=1000.0).data)
    assert torch.equal(learner.x_shift, before)


def test_large_offsets_keep_their_precision_in_a_float32_learner(tmp_path: object) -> None:
    """Seconds since the epoch, metres of a map grid: float32 resolves 0.06 at 1e6, a quarter of this spread."""
    tasks, shifted = _tasks(offset=0.0, scale=0.2), _tasks(offset=0.0, scale=0.2)
    shifted = bm.TaskDataset(bm.Data(shifted.data.x + 1e6, shifted.data.y, shifted.data.mask))
    near, far = (bm.Standardized(_make().float()) for _ in range(2))
    near.prepare(tasks.data)
    far.prepare(shifted.data)
    far = far.float()  # which must not round the statistics
    assert far.x_shift.dtype == torch.float64
    bm.save(far, f"{tmp_path}/model")
    for learner in (far, far.double().float(), bm.load(f"{tmp_path}/model")):
        query = tasks.data.x[:2, :3]
        a = near.adapt(tasks.data.select([0, 1])).predict(query)
        b = learner.adapt(shifted.data.select([0, 1])).predict(query + 1e6)
        # float64 at 1e6 resolves 1e-10, of a spread of 0.2: 1e-9 in standard units, then float32 features
        torch.testing.assert_close(b.mean, a.mean, rtol=0.0, atol=float(1e-4 * a.stddev.min()))
        torch.testing.assert_close(b.stddev, a.stddev, rtol=1e-5, atol=0.0)
        assert next(learner.parameters()).dtype == torch.float32


def test_a_learner_of_unknown_shape_is_refused() -> None:
    class Anything(bm.Learner):
        def condition(self, support: bm.Data) -> bm.TaskPosterior:
            raise NotImplementedError

    with pytest.raises(DataError, match="known inputs and outputs, got Anything"):
        bm.Standardized(Anything())


def test_a_learner_that_depends_on_order_still_does_in_other_units() -> None:
    class Sequential(bm.ALPaCA):
        exchangeable = False

    assert bm.Standardized(bm.ALPaCA(bm.Identity(1))).exchangeable
    assert not bm.Standardized(Sequential(bm.Identity(1))).exchangeable
