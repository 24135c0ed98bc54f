"""Predictives that know how probable a point is under the classes of its task."""

import copy

import pytest
import torch
from torch.distributions import Categorical

import bayesmeta as bm
from bayesmeta.data import Data
from bayesmeta.errors import DataError, ShapeError
from bayesmeta.learner import Learner, Refit
from bayesmeta.outcomes import Labels
from bayesmeta.predictives import OpenSetPredictive

PROBS = torch.tensor([[[0.7, 0.2, 0.1], [0.3, 0.3, 0.4]], [[0.1, 0.1, 0.8], [0.2, 0.5, 0.3]]], dtype=torch.float64)
RATIO = torch.tensor([[3.0, -2.0], [0.0, -300.0]], dtype=torch.float64)


def predictive() -> OpenSetPredictive:
    return OpenSetPredictive(Categorical(PROBS), log_ratio=RATIO)


@pytest.mark.parametrize("prior", [0.01, 0.05, 0.5, 0.99])
def test_none_of_these_is_bayes_rule(prior: float) -> None:
    expected = prior / (prior + (1.0 - prior) * RATIO.exp())
    torch.testing.assert_close(predictive().none_of_these(prior), expected, rtol=1e-13, atol=0.0)  # rounding


def test_none_of_these_knows_no_overflow() -> None:
    ratio = torch.tensor([[-1e4, 1e4]])
    found = OpenSetPredictive(Categorical(torch.full((1, 2, 2), 0.5)), log_ratio=ratio).none_of_these()
    assert found.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("prior", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_of_nothing_or_all_is_refused(prior: float) -> None:
    with pytest.raises(DataError, match="prior probability"):
        predictive().none_of_these(prior)


@pytest.mark.parametrize("shape", [(2, 3), (1, 2)])
def test_the_ratio_belongs_to_points(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="expected log_ratio of shape"):
        OpenSetPredictive(Categorical(PROBS), log_ratio=torch.zeros(shape))


def test_class_probabilities_are_those_of_the_classes() -> None:
    torch.testing.assert_close(predictive().probs, PROBS, rtol=1e-14, atol=0.0)
    y = torch.tensor([[0, 1], [2, 2]])
    plain = bm.predictives.IndependentPredictive(Categorical(PROBS))
    torch.testing.assert_close(predictive().log_prob(y), plain.log_prob(y), rtol=0.0, atol=0.0)
    assert repr(predictive()) == repr(plain)


def test_modes_of_torch_and_copies_change_nothing() -> None:
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = predictive().none_of_these()
    assert not found.is_inference()
    assert found.dtype == torch.float64
    assert torch.equal(copy.deepcopy(predictive()).none_of_these(), found)


class _Distances(Learner):
    """Two classes at -1 and 1, and a wide prior around them."""

    def __init__(self) -> None:
        super().__init__()
        self.x_shape, self.outcomes = (1,), Labels(2)
        self.centre = torch.nn.Parameter(torch.tensor(1.0))

    def condition(self, support: Data) -> "_Distance":
        return _Distance(spec=support.spec, learner=self, support=support)


class _Distance(Refit):
    def at(self, x: torch.Tensor) -> OpenSetPredictive:
        logits = torch.stack(
            [-(x[..., 0] + self.learner.centre).square(), -((x[..., 0] - self.learner.centre) ** 2)], -1
        )
        return OpenSetPredictive(Categorical(logits=logits), log_ratio=logits.logsumexp(-1) + 0.1 * x[..., 0] ** 2)


def test_wrappers_keep_the_ratio() -> None:
    support = Data.from_labels([-1.0, 1.0], [0, 1])
    learner = _Distances()
    plain = learner.adapt(support).predict([0.0, 5.0])
    standard = bm.Standardized(learner)
    standard.prepare(Data.from_labels([-1.0, 1.0], [0, 1]))
    scale = standard.x_scale.item()
    wrapped = standard.adapt(support).predict([0.0, 5.0 * scale])
    assert isinstance(wrapped, OpenSetPredictive)
    torch.testing.assert_close(wrapped.none_of_these(), plain.none_of_these(), rtol=1e-5, atol=0.0)  # float32
    calmer = bm.wrappers.TemperatureScaled(learner)
    calmer.log_temperatures.fill_(1.0)
    calm = calmer.adapt(support).predict([0.0, 5.0])
    assert isinstance(calm, OpenSetPredictive)
    assert torch.equal(calm.log_ratio, plain.log_ratio)
    assert bool(calm.probs[0, 1].amax() < plain.probs[0, 1].amax())
