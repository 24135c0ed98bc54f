"""A sampled posterior against the exact one of the same model, and what it refuses."""

import pickle

import pytest
import torch

import bayesmeta as bm
from bayesmeta.wrappers.sampled import SampledPosterior


def _support() -> bm.Data:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(3, 6, 1, generator=generator, dtype=torch.float64) * 2.0 - 1.0
    y = torch.sin(3.0 * x) + 0.3 * torch.randn(3, 6, 1, generator=generator, dtype=torch.float64)
    mask = torch.arange(6) < torch.tensor([6, 2, 0])[:, None]
    return bm.Data(x, y, mask)


def _alpaca() -> bm.ALPaCA:
    torch.manual_seed(0)
    return bm.ALPaCA(bm.Polynomial(1, 2)).double()


def test_the_posterior_of_a_linear_model_is_the_exact_one() -> None:
    """Means within 0.02 posterior deviations: 2.8 Monte Carlo errors of 20,000 independent draws."""
    learner, support = _alpaca(), _support()
    exact = learner.adapt(support)
    sampled = bm.Sampled(learner, bm.inference.NUTS(400, 50, 60, metric=bm.inference.DenseMetric())).adapt(support)
    assert isinstance(sampled, SampledPosterior)
    assert sampled.chains.worst_r_hat.max() < 1.01
    deviation = exact.sample(20_000, torch.Generator().manual_seed(1))["weight"].std(0)
    assert ((sampled.mean["weight"] - exact.mean["weight"]) / deviation).abs().max() < 0.02
    assert (sampled.draws["weight"].std(0) / deviation).log().abs().max() < 0.03  # the reference is drawn too
    x = torch.linspace(-1.0, 1.0, 5, dtype=torch.float64)[None, :, None].expand(3, -1, -1)
    ours, theirs = sampled.predict(x), exact.predict(x)
    assert ((ours.mean - theirs.mean) / theirs.stddev).abs().max() < 0.02
    assert (ours.stddev / theirs.stddev).log().abs().max() < 0.03
    for q in (0.05, 0.5, 0.95):
        assert ((ours.quantile(q) - theirs.quantile(q)) / theirs.stddev).abs().max() < 0.06


def test_sample_uses_every_draw_once_before_any_twice() -> None:
    class Held(bm.wrappers.DrawsPosterior):
        def extended(self, data: bm.Data) -> bm.TaskPosterior:
            raise NotImplementedError

    draws = torch.arange(10.0, dtype=torch.float64)[:, None, None, None].expand(10, 3, 3, 1)
    posterior = Held(spec=_support().spec, learner=_alpaca(), support=_support(), draws={"weight": draws})
    chosen = posterior.sample(20, torch.Generator().manual_seed(0))["weight"][:, 0, 0, 0]
    assert chosen[:10].sort().values.tolist() == list(range(10)) == chosen[10:].sort().values.tolist()
    assert posterior.sample(0)["weight"].shape == (0, 3, 3, 1)


def test_it_is_not_trained_and_needs_an_explicit_model() -> None:
    with pytest.raises(bm.UnsupportedError, match="explicit"):
        bm.Sampled(bm.DeepKernelTransfer(bm.Identity(1)))
    sampled = bm.Sampled(_alpaca())
    with pytest.raises(bm.UnsupportedError, match="train"):
        sampled.configure_optimizer()
    assert sampled.title == "Sampled(ALPaCA)"


def test_theta_stays_when_the_learner_is_trained_on() -> None:
    learner = _alpaca()
    sampled = bm.Sampled(learner)
    before = sampled.learner.prior.location.clone()
    with torch.no_grad():
        learner.prior.location.add_(1.0)
    assert torch.equal(sampled.learner.prior.location, before)


@pytest.mark.filterwarnings("ignore::bayesmeta.ConvergenceWarning")  # it is about few draws
def test_a_posterior_is_a_value_that_can_be_stored() -> None:
    support = _support()
    posterior = bm.Sampled(_alpaca(), bm.inference.NUTS(4, 10, 20), seed=3).adapt(support.points(slice(3)))
    stored = pickle.loads(pickle.dumps(posterior))
    assert repr(stored) == repr(posterior) == "posterior of 3 tasks after 3, 2, 0 points"
    more, again = posterior.update(support.points(slice(3, 6))), stored.update(support.points(slice(3, 6)))
    assert torch.equal(again.draws["weight"], more.draws["weight"])
    assert repr(more) == "posterior of 3 tasks after 6, 2, 0 points"


@pytest.mark.filterwarnings("ignore::bayesmeta.ConvergenceWarning")  # it is about few draws
def test_data_are_checked_once() -> None:
    checked = []

    class Counting(bm.ALPaCA):
        def conform(self, data: bm.Data) -> bm.Data:
            checked.append(data)
            return super().conform(data)

    posterior = bm.Sampled(Counting(bm.Polynomial(1, 1)), bm.inference.NUTS(2, 4, 20)).adapt(_support())
    assert len(checked) == 1
    posterior.update(_support())
    assert len(checked) == 2


def test_the_evidence_is_the_learners_own() -> None:
    learner, support = _alpaca(), _support()
    assert torch.equal(bm.Sampled(learner).log_evidence(support), learner.log_evidence(support))
