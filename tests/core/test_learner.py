"""What every learner does before and after its own mathematics: precision, shapes, copies, messages."""

import re

import numpy as np
import pandas as pd
import pytest
import torch

import bayesmeta as bm
from bayesmeta.errors import DataError, InferenceError, ShapeError, UnsupportedError

X, Y = [0.0, 0.5, 1.0], [1.0, 2.0, 1.5]


def _learner(num_inputs: int = 1, num_outputs: int = 1) -> bm.ALPaCA:
    return bm.ALPaCA(bm.MLP(num_inputs, [8]), num_outputs=num_outputs)


def test_numpy_and_lists_go_into_a_float32_learner() -> None:
    learner = _learner()
    expected = learner.adapt(bm.Data.from_arrays(torch.tensor(X), torch.tensor(Y))).predict(torch.tensor([0.3])).mean
    for x, y in ((X, Y), (np.array(X), np.array(Y)), (pd.Series(X), pd.Series(Y)), (np.array(X, np.float32), Y)):
        posterior = learner.adapt(bm.Data.from_arrays(x, y))
        for query in ([0.3], np.array([0.3]), pd.Series([0.3]), torch.tensor([[0.3]], dtype=torch.float64)):
            torch.testing.assert_close(posterior.predict(query).mean, expected, rtol=1e-6, atol=1e-6)  # float32 inputs
        again = posterior.update(bm.Data.from_arrays(np.array([2.0]), np.array([1.0])))
        assert torch.isfinite(again.predict([0.3]).mean).all()
    assert posterior.spec.dtype == torch.float32


def test_public_losses_convert_too() -> None:
    learner = _learner()
    tasks = bm.TaskDataset.from_arrays(np.linspace(0, 1, 12), np.linspace(1, 2, 12), np.repeat([0, 1, 2], 4))
    batch = tasks.divided(bm.tasks.RandomSplit.at(2))  # float64
    assert torch.isfinite(learner.meta_loss(batch)).all()
    for objective in (bm.training.JointPredictive(), bm.training.MarginalPredictive(), bm.training.Evidence()):
        assert torch.isfinite(objective(learner, batch)).all()
    data = tasks.data
    assert torch.isfinite(learner.log_evidence(data)).all()
    draws = learner.adapt(data).sample(4)
    assert learner.log_joint(data)(draws).shape == (4, 3)


def test_predict_takes_one_task_without_its_axis() -> None:
    posterior = _learner().adapt(bm.Data.from_arrays(X, Y))
    x = torch.tensor(X)
    full = posterior.predict(x[None, :, None]).mean
    for short in (x, x[:, None]):
        assert torch.equal(posterior.predict(short).mean, full)
    assert posterior.predict([]).mean.shape == (1, 0, 1)


@pytest.mark.usefixtures("unchecked")
def test_wrong_sizes_are_told() -> None:
    learner = _learner(2, 3)
    good = bm.Data.from_arrays(np.zeros((4, 2)), np.zeros((4, 3)))
    for x, y in ((np.zeros((4, 1)), np.zeros((4, 3))), (np.zeros((4, 2)), np.zeros((4, 1))), (X, Y)):
        data = bm.Data.from_arrays(x, y)
        expected = f"x (1, N, 2) and y (1, N, 3), got x {tuple(data.x.shape)} and y {tuple(data.y.shape)}"
        for question in (learner.adapt, learner.log_evidence, learner.log_joint, learner.adapt(good).update):
            with pytest.raises(ShapeError, match=re.escape(expected)):
                question(data)
        with pytest.raises(ShapeError, match=re.escape(expected)):
            learner.meta_loss(bm.TaskBatch(data, data))
    posterior = learner.adapt(good)
    for x in (np.zeros((4, 3)), np.zeros(4), np.zeros((2, 4, 2)), 0.0):
        with pytest.raises(ShapeError, match=re.escape(f"expected x of shape (1, M, 2), got {np.shape(x)}")):
            posterior.predict(x)
    with pytest.raises(ShapeError, match=re.escape("expected data with x (1, N, 2)")):
        posterior.update(bm.Data.stack([good, good]))  # of another number of tasks
    two = learner.adapt(bm.Data.stack([good, good]))
    with pytest.raises(ShapeError, match=re.escape("expected x of shape (2, M, 2), got (4, 2)")):
        two.predict(np.zeros((4, 2)))


@pytest.mark.usefixtures("unchecked")
def test_wrong_kinds_are_told() -> None:
    learner = _learner()
    posterior = learner.adapt(bm.Data.from_arrays(X, Y))
    with pytest.raises(DataError, match=r"expected Data, got tuple: make it with Data.from_arrays"):
        learner.adapt((X, Y))
    with pytest.raises(DataError, match="expected Data, got DataFrame"):
        learner.adapt(pd.DataFrame({"x": X}))
    labels = bm.Data.from_labels(X, [0, 1, 1])
    for question in (learner.adapt, learner.log_evidence):
        with pytest.raises(DataError, match=r"expected numbers for ALPaCA .*, got labels: take a classifier"):
            question(labels)
    with pytest.raises(DataError, match=r"expected numbers for these tasks .*, got labels"):
        posterior.update(labels)
    for bad, message in (([np.nan], "x to be finite, got nan"), (["a"], "x to hold numbers, got 'a'")):
        with pytest.raises(DataError, match=message):
            posterior.predict(bad)
    with pytest.raises(ShapeError, match="expected a covariance over 8 features, got one over 7"):
        bm.ALPaCA(bm.MLP(1, [8]), covariance=bm.priors.FullCovariance(7))
    with pytest.raises(ShapeError, match="expected noise over 2 outputs, got 1"):
        bm.ALPaCA(bm.MLP(1, [8]), num_outputs=2, noise=bm.noise.DiagonalNoise(1))


def test_values_beyond_float32_are_refused() -> None:
    learner = _learner()
    with pytest.raises(DataError, match=r"y within the range of torch.float32"):
        learner.adapt(bm.Data.from_arrays(X, [1.0, 2.0, 1e60]))
    assert torch.isfinite(learner.double().adapt(bm.Data.from_arrays(X, [1.0, 2.0, 1e60])).predict([0.0]).mean).all()


def test_diverged_parameters_are_an_inference_error() -> None:
    learner = _learner()
    with torch.no_grad():
        learner.prior.covariance.lower.fill_(torch.inf)
    with pytest.raises(InferenceError, match="parameters that have diverged"):
        learner.adapt(bm.Data.from_arrays(X, Y))


def test_frozen_is_a_copy_that_nothing_reaches() -> None:
    learner = _learner()
    frozen = learner.frozen()
    assert frozen is not learner
    assert not any(p.requires_grad for p in frozen.parameters())
    assert all(p.requires_grad for p in learner.parameters())
    with torch.no_grad():
        next(learner.parameters()).add_(1.0)
    assert not torch.equal(next(learner.parameters()), next(frozen.parameters()))
    posterior = frozen.adapt(bm.Data.from_arrays(X, Y))
    before = posterior.predict([0.3]).mean
    frozen.load_state_dict(learner.state_dict())  # nothing in it requires a gradient, and still it is copied
    frozen.double()
    assert torch.equal(posterior.predict([0.3]).mean, before)


def test_adapt_builds_no_graph_and_keeps_none() -> None:
    learner = _learner()
    posterior = learner.adapt(bm.Data.from_arrays(X, Y))
    prediction = posterior.predict([0.3])
    assert not prediction.mean.requires_grad
    assert not posterior.mean["weight"].requires_grad
    assert all(p.grad is None for p in learner.parameters())


def test_posterior_moments_and_draws_agree() -> None:
    learner = _learner(1, 2).double()
    posterior = learner.adapt(bm.Data.from_arrays(X, np.random.default_rng(0).normal(size=(3, 2))))
    draws = posterior.sample(20_000, torch.Generator().manual_seed(0))["weight"]
    mean = posterior.mean["weight"]
    columns = learner.prior.noise.covariance().detach()
    variance = posterior.feature_covariance.diagonal(dim1=-2, dim2=-1)[..., None] * columns.diagonal()
    assert draws.shape == (20_000, 1, 8, 2)
    assert ((draws.mean(0) - mean) / variance.sqrt()).abs().max() < 0.035  # five standard errors
    torch.testing.assert_close(draws.var(0), variance, rtol=0.05, atol=0.0)  # five errors of a variance
    # the predictive of f is what the draws say
    f = learner({"weight": draws}, torch.tensor([[[0.3]]], dtype=torch.float64))[:, :, 0]
    prediction = posterior.predict([0.3]).noiseless
    assert ((f.mean(0) - prediction.mean[0]) / prediction.stddev[0]).abs().max() < 0.035
    torch.testing.assert_close(f.var(0), prediction.variance[0], rtol=0.05, atol=0.0)


def test_questions_without_an_answer() -> None:
    class Silent(bm.Learner):
        def condition(self, support: bm.Data) -> bm.TaskPosterior:
            raise NotImplementedError

    silent, data = Silent(), bm.Data.from_arrays(X, Y)
    with pytest.raises(UnsupportedError, match="Silent has no closed form"):
        silent.log_evidence(data)
    assert silent.mixed_model is None
    assert silent.log_hyperprior() == 0.0
    assert silent.conform(data).x.dtype == torch.float64  # nothing to convert to
