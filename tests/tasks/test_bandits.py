"""Bandits: exact posteriors, indices and optimal values by brute force, and what Thompson sampling draws."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

import bayesmeta as bm
from bayesmeta.description import construct, describe
from bayesmeta.predictives import AffinePredictive, MixturePredictive
from bayesmeta.tasks.bandits import gittins
from bayesmeta.tasks.bandits.gittins import gittins_indices
from bayesmeta.tasks.oracles.beta_bernoulli import BetaBernoulliOracle, BetaBernoulliPosterior

BERNOULLI = bm.tasks.BernoulliBandits(3, alpha=2.0, beta=1.0)
GAUSSIAN = bm.tasks.GaussianBandits(3, mean=1.0, spread=2.0, noise=0.5)
LINEAR = bm.tasks.LinearBandits(4, mean=[1.0, -1.0], covariance=[[1.0, 0.6], [0.6, 2.0]], noise=0.7)
FAMILIES = {"Bernoulli": BERNOULLI, "Gaussian": GAUSSIAN, "linear": LINEAR}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ragged(bandits: bm.tasks.Bandits) -> bm.Data:
    """Logs of 7, 0 and 4 pulls."""
    data = bandits.dataset(3, 7, seed=1).data
    return bm.Data(data.x, data.y, torch.arange(7) < torch.tensor([7, 0, 4])[:, None])


# --- exact posteriors


def test_wins_and_losses_are_counted() -> None:
    x = torch.eye(3)[torch.tensor([[0, 0, 1, 0], [2, 2, 2, 2]])]
    data = bm.Data(
        x, torch.tensor([[1, 1, 0, 0], [1, 0, 1, 1]]), torch.tensor([[True] * 4, [True, True, False, False]])
    )
    posterior = BERNOULLI.oracle.adapt(data)
    assert isinstance(posterior, BetaBernoulliPosterior)
    assert posterior.wins.tolist() == [[2, 0, 0], [0, 0, 1]]
    assert posterior.losses.tolist() == [[1, 1, 0], [0, 0, 1]]
    p = posterior.predict(torch.eye(3).expand(2, 3, 3)).probs[..., 1]
    torch.testing.assert_close(p, torch.tensor([[4 / 6, 2 / 4, 2 / 3], [2 / 3, 2 / 3, 3 / 5]], dtype=torch.float64))
    draws = posterior.sample(20_000, generator())["probability"]
    torch.testing.assert_close(
        draws.mean(0), p, atol=0.01, rtol=0.0
    )  # a deviation of at most .25 / sqrt(20,000) = .002
    # the evidence is the product of predictions: win, win (2/3, 3/4), a loss of arm 1 (1/3), a loss of arm 0 (1/5)
    expected = math.log(2 / 3 * 3 / 4 * 1 / 3 * 1 / 5)
    assert BERNOULLI.oracle.log_evidence(data)[0].item() == pytest.approx(expected, abs=1e-12)


def test_weights_have_the_conjugate_posterior() -> None:
    data = ragged(LINEAR).to(torch.float64)
    posterior, query = LINEAR.oracle.adapt(data), torch.randn(3, 5, 2, dtype=torch.float64, generator=generator())
    prior = torch.tensor([[1.0, 0.6], [0.6, 2.0]], dtype=torch.float64).inverse()
    evidence = LINEAR.oracle.log_evidence(data)
    draws = posterior.sample(20_000, generator())["weight"]
    for task, count in enumerate([7, 0, 4]):
        x, y = data.x[task, :count], data.y[task, :count, 0]
        covariance = (prior + x.mT @ x / 0.49).inverse()
        mean = covariance @ (prior @ torch.tensor([1.0, -1.0], dtype=torch.float64) + x.mT @ y / 0.49)
        latent = posterior.predict(query).noiseless
        torch.testing.assert_close(latent.mean[task, :, 0], query[task] @ mean)
        expected = (query[task] @ covariance * query[task]).sum(-1)
        torch.testing.assert_close(latent.variance[task, :, 0], expected)
        # moments of 20,000 draws: 1/sqrt(20,000) of a deviation is .007 of it; five of these
        torch.testing.assert_close(draws[:, task].mean(0), mean, atol=0.05, rtol=0.0)
        torch.testing.assert_close(draws[:, task].T.cov(), covariance, atol=0.08, rtol=0.0)
        marginal = x @ prior.inverse() @ x.mT + 0.49 * torch.eye(count, dtype=torch.float64)
        if count:
            location = x @ torch.tensor([1.0, -1.0], dtype=torch.float64)
            density = torch.distributions.MultivariateNormal(location, marginal).log_prob(y)
            torch.testing.assert_close(evidence[task], density)


@pytest.mark.parametrize("bandits", FAMILIES.values(), ids=FAMILIES)
def test_rewards_come_one_by_one_or_all_at_once(bandits: bm.tasks.Bandits) -> None:
    data, options = ragged(bandits), bandits.options(3, generator())
    assert bandits.oracle is not None
    posterior = bandits.oracle.adapt(bandits.nothing(3))
    for n in range(7):
        posterior = posterior.update(data.points([n]))
    at_once = bandits.oracle.adapt(data)
    assert posterior.points_seen is not None
    assert posterior.points_seen.tolist() == [7, 0, 4]
    for one, other in ((posterior, at_once), (posterior.select([2, 0]), at_once.select([2, 0]))):
        x = options[: one.spec.num_tasks]
        a, b = one.predict(x).marginals, other.predict(x).marginals
        for key in ("mean", "probs"):
            if isinstance(a, torch.distributions.Categorical) == (key == "probs"):
                torch.testing.assert_close(getattr(a, key), getattr(b, key))
    assert (
        construct(describe(bandits)).dataset(2, 3, seed=5).data.y.tolist()
        == bandits.dataset(2, 3, seed=5).data.y.tolist()
    )


def test_logs_have_the_moments_of_the_family() -> None:
    data = LINEAR.simulate(4000, 3, generator())
    # E y² = tr(V + m mᵀ) + noise² = 5 + .49, as x ~ N(0, I); heavy tails: known to about 2 %, four of these
    assert data.y.square().mean().item() == pytest.approx(5.49, rel=0.08)
    arms = GAUSSIAN.simulate(4000, 3, generator())
    assert arms.x.mean((0, 1)).tolist() == pytest.approx(
        [1 / 3] * 3, abs=0.02
    )  # sqrt(2/9 / 12,000) = .004; five of these
    assert arms.y.mean().item() == pytest.approx(
        1.0, abs=0.12
    )  # 12,000 of 3 arms: 2 / sqrt(7,000) = .024; five of these
    wins = BERNOULLI.simulate(4000, 3, generator())
    assert wins.y.double().mean().item() == pytest.approx(2 / 3, abs=0.025)


# --- indices and optimal values


@cache
def retirement_gain(a: float, b: float, steps: int, payment: float) -> float:
    """By recursion: what pulling once more gains over taking the payment for good."""
    if not steps:
        return 0.0
    p = a / (a + b)
    after = [max(retirement_gain(a + won, b + 1 - won, steps - 1, payment), 0.0) for won in (1, 0)]
    return p - payment + p * after[0] + (1 - p) * after[1]


def brute_index(a: float, b: float, steps: int) -> float:
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if retirement_gain(a, b, steps, middle) > 0.0 else (low, middle)
    retirement_gain.cache_clear()
    return low


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (2.0, 0.5)])
def test_indices_are_those_of_the_recursion(alpha: float, beta: float) -> None:
    indices = gittins_indices(9, alpha, beta)
    assert indices.index[0, :3, :3].flatten().tolist() == pytest.approx(  # one step to go: the mean
        [(alpha + w) / (alpha + beta + w + b) for w in range(3) for b in range(3)], abs=1e-6
    )
    for wins, losses, steps in [(0, 0, 2), (0, 0, 9), (1, 0, 5), (0, 3, 6), (2, 1, 4), (4, 4, 1)]:
        found = indices.at(torch.tensor([steps]), torch.tensor([[wins]]), torch.tensor([[losses]])).item()
        # gains are linear in λ between kinks; at a kink within .01 the interpolation is off by a part of it
        assert found == pytest.approx(brute_index(alpha + wins, beta + losses, steps), abs=1e-3)


def test_an_index_grows_with_the_steps_to_go_and_long_horizons_are_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    index = gittins_indices(30).index[:, 0, 0]
    assert bool((index.diff() > 0.0).all())
    monkeypatch.setattr(gittins, "ALL_KEPT", 16)
    monkeypatch.setattr(gittins, "MOST_NUMBERS", 10 * 31**2)  # ten payments at a time
    thinned = gittins_indices.__wrapped__(30)
    assert int(thinned.remaining[-1]) == 30
    assert len(thinned.remaining) <= 8
    torch.testing.assert_close(thinned.index[:, 0, 0], index[thinned.remaining - 1])


def value(steps: int, choose: Callable[[int, tuple[int, ...]], int | None]) -> float:
    """The expected reward of two Bernoulli arms with p ~ U(0, 1): of a policy, or the best (None) at each state."""

    @cache
    def remaining(left: int, state: tuple[int, ...]) -> float:
        if not left:
            return 0.0
        arm, found = choose(left, state), []
        for k in (0, 1) if arm is None else (arm,):
            won, lost = state[2 * k], state[2 * k + 1]
            p = (won + 1) / (won + lost + 2)
            after = [
                remaining(left - 1, tuple(count + (position == one) for position, count in enumerate(state)))
                for one in (2 * k, 2 * k + 1)
            ]
            found.append(p * (1.0 + after[0]) + (1.0 - p) * after[1])
        return max(found)

    return remaining(steps, (0, 0, 0, 0))


def test_gittins_is_nearly_optimal_and_is_played_as_it_is_valued() -> None:
    index = gittins_indices(8).index

    def by_index(left: int, state: tuple[int, ...]) -> int:
        first, second = index[left - 1, state[0], state[1]], index[left - 1, state[2], state[3]]
        return int(second > first)

    best, own = value(8, lambda left, state: None), value(8, by_index)
    assert value(2, lambda left, state: None) == pytest.approx(13 / 12)  # 1/2, then 1/2 · 2/3 + 1/2 · 1/2
    assert best - 0.005 < own <= best + 1e-12
    bandits = bm.tasks.BernoulliBandits(2)
    play = bm.tasks.play(bandits, bm.tasks.Gittins.start(bandits, 4000, 8), 4000, 8)
    error = play.total.std().item() / math.sqrt(4000)
    assert abs(play.total.mean().item() - own) < 4 * error
    assert play.total.mean() > 4.0 + 10 * error  # random arms


# --- Thompson sampling


def test_an_arm_is_chosen_as_often_as_it_is_the_best() -> None:
    log = bm.Data.from_arrays(torch.eye(3)[[0, 1, 2, 2]], [1.2, 1.0, 0.7, 0.9])
    many = log.select([0] * 20_000)
    posterior = GAUSSIAN.oracle.adapt(many)
    options = torch.eye(3).expand(20_000, 3, 3)
    arms = bm.tasks.Thompson(posterior).choose(options, generator())
    draws = posterior.select([0]).sample(200_000, generator(1))["weight"][:, 0]
    expected = torch.bincount(draws.argmax(-1), minlength=3) / 200_000
    # sqrt(.25 / 20,000) = .0035; four of these
    torch.testing.assert_close(torch.bincount(arms, minlength=3) / 20_000, expected, atol=0.014, rtol=0.0)


def test_draws_of_the_function_are_draws_of_the_weights() -> None:
    torch.manual_seed(0)
    learner = bm.ALPaCA(bm.MLP(2, [6, 5])).double()
    data = ragged(LINEAR).to(torch.float64).select([2] * 20_000)
    posterior, x = learner.adapt(data), torch.randn(1, 4, 2, dtype=torch.float64, generator=generator(1))
    found = bm.tasks.drawn_rewards(posterior, x.expand(20_000, -1, -1), generator())
    one = posterior.select([0])
    weights = one.sample(20_000, generator(2))["weight"]
    direct = learner.forward({"weight": weights}, x)[:, 0, :, 0].detach()
    scale = direct.std(0)
    # 1/sqrt(20,000) = .007 for each of two; seven deviations of the difference
    assert ((found.mean(0) - direct.mean(0)) / scale).abs().max() < 0.07
    assert ((found.T.cov() - direct.T.cov()) / (scale[:, None] * scale)).abs().max() < 0.1


def standardized(num_inputs: int) -> bm.Standardized:
    """A mixture in units that are given back."""
    return bm.Standardized(bm.LatentNeuralProcess(bm.Identity(num_inputs), num_draws=4))


def stacked(other: bm.Learner) -> bm.Learner:
    return bm.wrappers.Stacked({"line": bm.ALPaCA(bm.Identity(3)), "other": other}, {"line": 0.5, "other": 0.5})


def classifier_of_latents() -> bm.Learner:
    return bm.LatentNeuralProcess(bm.Identity(3), head=bm.heads.OneHotHead(2), num_draws=4)


MAKERS: dict[str, tuple[bm.tasks.Bandits, Callable[[], bm.Learner]]] = {
    "ALPaCA": (LINEAR, lambda: bm.ALPaCA(bm.Identity(2))),
    "process": (LINEAR, lambda: bm.DeepKernelTransfer(bm.Identity(2))),
    "MAML": (GAUSSIAN, lambda: bm.MAML(bm.MLP(3, [4]), lr=0.1)),
    "latent": (GAUSSIAN, lambda: bm.LatentNeuralProcess(bm.Identity(3), num_draws=4)),
    "standardized": (GAUSSIAN, lambda: standardized(3)),
    "stacked": (GAUSSIAN, lambda: stacked(bm.DeepKernelTransfer(bm.Identity(3)))),
    "particles": (GAUSSIAN, lambda: bm.BMAML(bm.MLP(3, [4]), steps=1, num_particles=2)),
    "mixture": (LINEAR, lambda: bm.MixtureALPaCA(bm.Identity(2), num_components=2)),
    "labels": (BERNOULLI, classifier_of_latents),
    "explicit": (BERNOULLI, lambda: bm.IMAML(bm.MLP(3, [4]), likelihood=bm.likelihoods.Bernoulli(), precision=1.0)),
}


@pytest.mark.parametrize("name", MAKERS)
def test_any_posterior_with_draws_plays(name: str) -> None:
    torch.manual_seed(0)
    bandits, make = MAKERS[name]
    learner = make()
    learner.prepare(bandits.dataset(10, 5).data)
    policy = bm.tasks.Thompson(learner.adapt(bandits.nothing(4)))
    play = bm.tasks.play(bandits, policy, num_bandits=4, steps=[3, 0, 2, 3])
    assert play.data.counts.tolist() == [3, 0, 2, 3]
    assert isinstance(play.policy, bm.tasks.Thompson)
    seen = play.policy.posterior.points_seen
    assert seen is not None
    assert seen.tolist() == [3, 0, 2, 3]
    assert policy.posterior.points_seen is not None
    assert policy.posterior.points_seen.tolist() == [0, 0, 0, 0]  # a policy is a value
    drawn = bm.tasks.drawn_rewards(play.policy.posterior, bandits.options(4, generator()), generator())
    assert drawn.shape == (4, bandits.num_arms)
    assert bool(drawn.isfinite().all())
    if isinstance(bandits, bm.tasks.BernoulliBandits):
        assert bool(((drawn >= 0.0) & (drawn <= 1.0)).all())


def test_a_component_of_a_mixture_is_one_function() -> None:
    torch.manual_seed(0)
    x = torch.linspace(-1.0, 1.0, 5)[None, :, None]
    learner = standardized(1)
    learner.prepare(bm.Data.from_arrays([0.0, 2.0], [10.0, 30.0]))
    posterior = learner.adapt(bm.Data.from_arrays([0.0], [12.0]))
    inner = posterior.predict(x)
    assert isinstance(inner, AffinePredictive)
    assert isinstance(inner.base, MixturePredictive)
    functions = (inner.shift + inner.scale * inner.base.components.mean)[..., 0]
    for seed in range(5):
        drawn = bm.tasks.drawn_rewards(posterior, x, generator(seed))
        assert bool(torch.isclose(functions, drawn).all(-1).any())


# --- play


@pytest.mark.parametrize("bandits", FAMILIES.values(), ids=FAMILIES)
def test_thompson_beats_random_arms_on_the_same_bandits(bandits: bm.tasks.Bandits) -> None:
    assert bandits.oracle is not None
    thompson = bm.tasks.Thompson(bandits.oracle.adapt(bandits.nothing(200)))
    random, own, again = (
        bm.tasks.play(bandits, policy, 200, 24, seed=3) for policy in (bm.tasks.RandomArms(), thompson, thompson)
    )
    assert torch.equal(own.best, random.best)
    assert torch.equal(own.data.x, again.data.x)
    assert torch.equal(own.data.y, again.data.y)
    assert not torch.equal(own.data.x[:, :2], bm.tasks.play(bandits, thompson, 200, 2, seed=4).data.x)
    gained = random.regret - own.regret
    assert gained.mean() > 10 * gained.std() / math.sqrt(200)
    assert bool((own.regret_by_step >= 0.0).all())
    early, late = own.regret_by_step[:, :8].mean(), own.regret_by_step[:, 16:].mean()
    assert late < 0.7 * early


def test_shorter_bandits_are_padded() -> None:
    steps = [5, 0, 2]
    play = bm.tasks.play(BERNOULLI, bm.tasks.Gittins.start(BERNOULLI, 3, steps), 3, steps)
    assert play.arms.shape == (3, 5)
    assert play.rewards[1:, 2:].abs().sum() == 0.0
    assert play.regret_by_step[2, 2:].abs().sum() == 0.0
    assert isinstance(play.policy, bm.tasks.Gittins)
    assert play.policy.remaining.tolist() == [0, 0, 0]
    assert (play.policy.wins + play.policy.losses).sum(-1).tolist() == steps
    assert play.policy.wins.sum(-1).tolist() == play.total.tolist()


def test_a_prior_is_learned_from_the_logs_of_a_policy() -> None:
    torch.manual_seed(0)
    logs = bm.tasks.play(LINEAR, bm.tasks.Thompson(LINEAR.oracle.adapt(LINEAR.nothing(400))), 400, 8).tasks()
    learner = bm.ALPaCA(bm.Identity(2))
    bm.fit_evidence(learner, logs)
    location = learner.prior.location[:, 0].tolist()
    # deviations of the weights over sqrt(400) tasks are .05 and .07; arms were chosen, which does no harm
    assert location == pytest.approx([0.0, 1.0, -1.0], abs=0.3)


# --- what is refused


class Constant(bm.tasks.Policy):
    """Whatever it is given."""

    def __init__(self, arms: Any) -> None:
        self.arms = arms

    def choose(self, options: Tensor, generator: torch.Generator) -> Any:
        return self.arms

    def after(self, data: bm.Data) -> "Constant":
        return self


REFUSED: dict[str, Callable[[], object]] = {
    "one arm": lambda: bm.tasks.BernoulliBandits(1),
    "alpha": lambda: bm.tasks.BernoulliBandits(2, alpha=0.0),
    "spread": lambda: bm.tasks.GaussianBandits(2, spread=0.0),
    "noise": lambda: bm.tasks.LinearBandits(2, noise=0.0),
    "negative noise": lambda: bm.tasks.LinearBandits(2, noise=-1.0),
    "sizes": lambda: bm.tasks.LinearBandits(2, mean=[0.0], covariance=[[1.0, 0.0], [0.0, 1.0]]),
    "no weights": lambda: bm.tasks.LinearBandits(2, mean=[], covariance=[]),
    "indefinite": lambda: bm.tasks.LinearBandits(2, mean=[0.0, 0.0], covariance=[[1.0, 2.0], [2.0, 1.0]]),
    "asymmetric": lambda: bm.tasks.LinearBandits(2, mean=[0.0, 0.0], covariance=[[1.0, 0.5], [0.0, 1.0]]),
    "half an arm": lambda: BERNOULLI.oracle.adapt(bm.Data.from_labels([[0.5, 0.5, 0.0]], [1])),
    "third label": lambda: BetaBernoulliOracle(2).adapt(bm.Data.from_labels([[1.0, 0.0]], [2])),
    "numbers": lambda: BERNOULLI.oracle.adapt(bm.Data.from_arrays([[1.0, 0.0, 0.0]], [1.0])),
    "no steps": lambda: bm.tasks.play(GAUSSIAN, bm.tasks.RandomArms(), 2, 0),
    "fewer than no steps": lambda: bm.tasks.play(GAUSSIAN, bm.tasks.RandomArms(), 2, [1, -1]),
    "no bandits": lambda: bm.tasks.play(GAUSSIAN, bm.tasks.RandomArms(), 0, 1),
    "no such arm": lambda: bm.tasks.play(GAUSSIAN, Constant(torch.tensor([0, 3])), 2, 1),
    "floats": lambda: bm.tasks.play(GAUSSIAN, Constant(torch.tensor([0.0, 1.0])), 2, 1),
    "horizon": lambda: gittins_indices(0),
    "too long": lambda: gittins_indices(100_000),
    "more than foreseen": lambda: bm.tasks.play(BERNOULLI, bm.tasks.Gittins.start(BERNOULLI, 2, 3), 2, 4),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_bandit_or_no_choice_is_refused(name: str) -> None:
    with pytest.raises(bm.DataError, match=r"expected .*got"):
        REFUSED[name]()


def test_other_numbers_of_bandits_are_refused() -> None:
    policy = bm.tasks.Thompson(GAUSSIAN.oracle.adapt(GAUSSIAN.nothing(3)))
    for each in (
        lambda: bm.tasks.play(GAUSSIAN, policy, 2, 1),
        lambda: bm.tasks.play(GAUSSIAN, Constant(torch.tensor([0])), 2, 1),
        lambda: bm.tasks.play(GAUSSIAN, bm.tasks.RandomArms(), 2, [1]),
        lambda: bm.tasks.play(BERNOULLI, bm.tasks.Gittins.start(BERNOULLI, 2, 1), 3, 1),
        lambda: bm.tasks.Gittins.start(BERNOULLI, 2, [1]),
    ):
        with pytest.raises(bm.ShapeError, match=r"expected .*got"):
            each()


def test_a_posterior_of_other_outcomes_is_refused() -> None:
    two = bm.ALPaCA(bm.Identity(3), num_outputs=2).adapt(bm.Data.from_arrays([[0.0, 1.0, 0.0]], [[1.0, 2.0]]))
    with pytest.raises(bm.DataError, match="expected a posterior of one output"):
        bm.tasks.drawn_rewards(two, torch.eye(3)[None])
    classes = bm.LatentNeuralProcess(bm.Identity(3), head=bm.heads.OneHotHead(3), num_draws=4)
    with pytest.raises(bm.DataError, match="expected rewards of 0 or 1, got labels of 3 classes"):
        bm.tasks.drawn_rewards(classes.adapt(bm.Data.from_labels([[0.0, 1.0, 0.0]], [2])), torch.eye(3)[None])


def test_a_posterior_without_draws_is_refused() -> None:
    process = bm.ConditionalNeuralProcess(bm.Identity(3))
    with pytest.raises(bm.UnsupportedError, match="expected a posterior with draws of the function"):
        bm.tasks.play(GAUSSIAN, bm.tasks.Thompson(process.adapt(GAUSSIAN.nothing(2))), 2, 1)
    part = stacked(bm.ConditionalNeuralProcess(bm.Identity(3))).adapt(GAUSSIAN.nothing(2))
    with pytest.raises(bm.UnsupportedError, match="expected a posterior with draws of the function"):
        bm.tasks.drawn_rewards(part, GAUSSIAN.options(2, generator()))
    posterior = bm.R2D2(bm.Identity(3), num_classes=2).adapt(BERNOULLI.nothing(2))
    with pytest.raises(bm.UnsupportedError, match="expected a posterior with draws of the function"):
        bm.tasks.drawn_rewards(posterior, BERNOULLI.options(2, generator()))
