"""One verb that averages over theta: what it chooses, that its draws are right, and what it says of its gain."""

import math

import pytest
import torch

import bayesmeta as bm
from bayesmeta.training import averaging
from bayesmeta.training.averaging import average
from bayesmeta.training.starts import Starts
from bayesmeta.training.theta_map import ThetaMap

D = torch.float64
FEW = Starts(4, seed=0)


def _tasks(num_tasks: int = 6, points: int = 4, seed: int = 0) -> bm.TaskDataset:
    """A random intercept of deviation 2 around 1, noise of deviation 0.5."""
    generator = torch.Generator().manual_seed(seed)
    effects = 1.0 + 2.0 * torch.randn(num_tasks, 1, 1, generator=generator, dtype=D)
    y = effects + 0.5 * torch.randn(num_tasks, points, 1, generator=generator, dtype=D)
    return bm.TaskDataset(bm.Data.full(torch.zeros(num_tasks, points, 0, dtype=D), y))


def _normal_mean() -> bm.ALPaCA:
    """All is known but the prior mean."""
    noise = bm.noise.DiagonalNoise(1, initial=0.25)
    learner = bm.ALPaCA(bm.Identity(0), noise=noise).double()
    learner.prior.covariance.set_matrix(torch.full((1, 1), 16.0, dtype=D))  # in units of the noise
    learner.requires_grad_(False)
    learner.prior.location.requires_grad_()
    return learner


def _members(learner: bm.Learner) -> list[bm.Learner]:
    assert isinstance(learner, bm.HyperPosterior)
    return learner.learners


def _locations(learner: bm.Learner) -> torch.Tensor:
    return torch.stack([m.prior.location.flatten()[0] for m in _members(learner) if isinstance(m, bm.ALPaCA)])


def test_draws_have_the_moments_of_generalised_least_squares() -> None:
    """Variances held fixed: K_0 given y is Gaussian, known in closed form."""
    tasks, learner = _tasks(), _normal_mean()
    found = average(learner, tasks, starts=FEW, num_members=400)
    noise = learner.prior.noise.variance()
    variance = learner.prior.covariance.matrix()[0, 0] * noise + noise / 4.0  # of a task's mean around K_0
    expected, error = tasks.data.y.mean(), (variance / 6.0).sqrt()
    locations = _locations(found.learner)
    assert found.effective > 1_000.0
    assert abs(locations.mean() - expected) < 4.0 * error / math.sqrt(400)
    assert abs(locations.std() / error - 1.0) < 0.1
    assert abs(learner.prior.location - expected) < 1e-6  # the learner itself is fitted
    again = average(_normal_mean(), tasks, starts=FEW, num_members=400)
    assert torch.equal(_locations(again.learner), locations)
    assert again.gains == found.gains


def test_draws_agree_with_a_grid() -> None:
    """Deviations of a mixed model, whose posterior has a long tail: moments of what is trained, by brute force."""
    tasks, hyperprior = _tasks(8), bm.hyperpriors.DeviationHyperprior()
    learner = bm.ALPaCA(bm.Identity(0)).double()
    learner.prior.location.requires_grad_(False)
    found = average(learner, tasks, hyperprior, starts=FEW, num_members=400)
    data = learner.conform(tasks.data)
    total = ThetaMap(learner, lambda: learner.evidence(data).sum() + hyperprior.of(learner), [data])
    assert [name.rsplit(".", 1)[-1] for name in total.names] == ["lower", "raw"]
    grid = torch.stack(
        torch.meshgrid(torch.linspace(-40, 40, 401, dtype=D), torch.linspace(-4.0, 1.5, 81, dtype=D), indexing="ij"), -1
    ).reshape(-1, 2)
    weights = total(grid).softmax(0)
    size, noise = grid[:, 0].abs().log1p(), grid[:, 1]
    draws = torch.stack(
        [torch.cat([m.prior.covariance.lower, m.prior.noise.value.raw]) for m in _members(found.learner)]
    ).detach()
    for exact, drawn in ((size, draws[:, 0].abs().log1p()), (noise, draws[:, 1])):
        mean = weights @ exact
        deviation = (weights @ (exact - mean).square()).sqrt()
        assert abs(drawn.mean() - mean) < 4.0 * deviation / math.sqrt(400)
        assert abs(drawn.std() / deviation - 1.0) < 0.15


def test_what_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = _tasks(6), _tasks(61)
    found = average(_normal_mean(), many, starts=FEW)
    assert found.choice == "the best theta alone: 61 tasks say enough of its 1 numbers"
    assert (found.effective, found.gains) == (0.0, ())
    assert not isinstance(found.learner, bm.HyperPosterior)
    found = average(_normal_mean(), few, starts=FEW, shots=(0, 2, 9))
    assert found.choice == "averaged over 1 numbers of theta, of which 6 tasks say little, by importance sampling"
    assert found.shots == (0, 2)
    shown = repr(found)
    assert "effective draws" in shown
    assert "gain on held-out tasks from 2 points: " in shown
    assert average(_normal_mean(), few, starts=FEW, shots=()).gains == ()
    monkeypatch.setattr(averaging, "MOST_NUMBERS", 0)
    found = average(_normal_mean(), few, starts=FEW)
    assert found.choice.startswith("the best theta alone: its 1 numbers are too many (svgd_hyper_posterior")


@pytest.mark.filterwarnings("ignore::bayesmeta.ConvergenceWarning")  # of chains that are far too short
def test_chains_where_too_few_draws_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(averaging, "ENOUGH", 1e9)
    monkeypatch.setattr(averaging, "NUTS", lambda *_, **__: bm.inference.NUTS(8, 25, 25))
    found = average(_normal_mean(), _tasks(), starts=FEW, num_members=100)
    assert found.choice.endswith("by the no-U-turn sampler")
    assert abs(_locations(found.learner).std() / math.sqrt((4.0 + 0.25 / 4.0) / 6.0) - 1.0) < 0.3


def test_the_gain_is_that_of_tasks_left_out() -> None:
    """By brute force for a normal mean: theta given the other tasks is Gaussian, its predictive has a closed form."""
    tasks = _tasks(5, 3)
    found = average(_normal_mean(), tasks, starts=FEW, shots=(0, 1))
    noise, scale = 0.25, 4.0
    gains = []
    for out in range(5):
        rest = [i for i in range(5) if i != out]
        variance = (scale + noise / 3.0) / 4.0
        center = tasks.data.y[rest].mean()
        y, gain = tasks.data.y[out, :, 0], []
        for shots in (0, 1):
            total = []
            for extra in (variance, 0.0):
                both = torch.full((3, 3), scale + extra, dtype=D) + noise * torch.eye(3, dtype=D)
                joint = torch.distributions.MultivariateNormal(center.expand(3), both).log_prob(y)
                first = (
                    torch.distributions.MultivariateNormal(center.expand(1), both[:1, :1]).log_prob(y[:1])
                    if shots
                    else torch.zeros((), dtype=D)
                )
                total.append(joint - first)
            gain.append(total[0] - total[1])
        gains.append(torch.stack(gain))
    expected = torch.stack(gains).mean(0).tolist()
    # 400 draws that are weighted anew for each fold: the error of a density of one task
    assert found.gains == pytest.approx(expected, abs=0.1)


def test_each_member_remembers_the_tasks_under_its_own_theta() -> None:
    """What coupled tasks teach beside theta is another under each theta: that of the best one would be wrong."""
    torch.manual_seed(0)
    learner = bm.learners.MixedEffects(bm.Identity(0), [2]).double()
    level = torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0], dtype=D)
    tasks = bm.TaskDataset(bm.Data.full(level[:, None, None].expand(-1, 3, -1), torch.randn(5, 3, 1, dtype=D)))
    found = average(
        learner, tasks, bm.hyperpriors.GaussianHyperprior(1.0, "prior"), starts=FEW, num_members=3, shots=()
    )
    for member in _members(found.learner):
        again = bm.learners.MixedEffects(bm.Identity(0), [2]).double()
        again.load_state_dict(member.state_dict())
        again.remember(tasks.data)
        torch.testing.assert_close(again.get_buffer("prior.shared_mean"), member.get_buffer("prior.shared_mean"))
        torch.testing.assert_close(again.get_buffer("prior.shared_root"), member.get_buffer("prior.shared_root"))
    first, *others = (member.get_buffer("prior.shared_mean") for member in _members(found.learner))
    assert not all(torch.allclose(first, other) for other in others)


def test_a_process_has_a_hyperprior_by_default() -> None:
    tasks = bm.tasks.Sinusoid().dataset(num_tasks=6, num_points=4, seed=0)
    learner = bm.Standardized(bm.DeepKernelTransfer(bm.networks.Inputs(1))).double()
    found = average(learner, tasks, starts=FEW, num_members=8, shots=(2,))
    assert found.effective > 50.0
    prediction = found.learner.adapt(tasks.data).predict(tasks.data.x)
    assert prediction.mean.isfinite().all()
    with pytest.raises(bm.UnsupportedError):
        average(bm.MAML(bm.MLP(1, [3])).double(), tasks)
    with pytest.raises(bm.UnsupportedError, match="theta is final"):
        average(found.learner, tasks)


def test_without_a_sampler_the_best_theta_is_taken_where_draws_do_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the noise goes to 0, chains take many minutes."""
    monkeypatch.setattr("bayesmeta.training.averaging.ENOUGH", 1e9)
    tasks = bm.tasks.Sinusoid().dataset(num_tasks=6, num_points=4, seed=0)
    learner = bm.Standardized(bm.ALPaCA(bm.Identity(1))).double()
    found = average(learner, tasks, starts=FEW, sampler=None, num_members=3, shots=())
    assert found.learner is learner
    assert found.choice.startswith("the best theta alone: importance sampling does not do for its")
