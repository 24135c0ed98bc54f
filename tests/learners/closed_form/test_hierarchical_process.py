"""Two levels of Gaussian processes: one Gaussian over all rows of all tasks by hand, its limits, and what it keeps."""

import warnings

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

import bayesmeta as bm
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.hyperpriors import GaussianHyperprior
from bayesmeta.inference.nuts import NUTS
from bayesmeta.kernels import ConstantKernel, LinearKernel, RBFKernel, SumKernel
from bayesmeta.kernels.kernel import Gram
from bayesmeta.learners.closed_form.hierarchical_process import HierarchicalProcess
from bayesmeta.training.theta_posterior import nuts_hyper_posterior
from bayesmeta.wrappers import WithHyperprior

D = torch.float64
CLOSE = {"rtol": 1e-8, "atol": 1e-8}  # both sides factorise float64 matrices of a condition below 1e5


def _learner(num_outputs: int = 1, **arguments: object) -> HierarchicalProcess:
    noise = bm.noise.FullNoise(num_outputs) if num_outputs > 1 else bm.noise.DiagonalNoise(1, initial=0.05)
    learner = HierarchicalProcess(
        bm.networks.Inputs(1),
        num_outputs=num_outputs,
        shared_kernel=RBFKernel(0.8, 2.0),
        own_kernel=SumKernel([ConstantKernel(0.3), LinearKernel(0.2), RBFKernel(0.5, 0.1)]),
        noise=noise,
        **arguments,
    ).double()
    with torch.no_grad():
        learner.mean.fill_(0.7)
        if num_outputs > 1:
            learner.likelihood.noise.below.fill_(0.4)
    return learner


def _tasks(num_tasks: int = 4, num_outputs: int = 1, seed: int = 0) -> bm.Data:
    """Ragged tasks, one of them empty, with inputs that repeat."""
    generator = torch.Generator().manual_seed(seed)
    x = (torch.rand(num_tasks, 6, 1, generator=generator, dtype=D) * 4 - 2).round(decimals=1)
    y = x.sin() + 0.5 * torch.randn(num_tasks, 1, num_outputs, generator=generator, dtype=D)
    y = y + 0.2 * torch.randn(num_tasks, 6, num_outputs, generator=generator, dtype=D)
    return bm.Data(x, y, torch.arange(6) < torch.tensor([6, 0, 3, 5, 6, 2])[:num_tasks, None])


def _flat(*batches: bm.Data) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, outcomes, and whose they are, of all real points."""
    task, seen = [], 0
    for data in batches:
        task.append((seen + torch.arange(data.num_tasks)[:, None]).expand(data.mask.shape)[data.mask])
        seen += data.num_tasks
    return torch.cat([d.x[d.mask] for d in batches]), torch.cat([d.y[d.mask] for d in batches]), torch.cat(task)


@torch.no_grad()
def _covariance(learner: HierarchicalProcess, x: Tensor, task: Tensor) -> Tensor:
    """Of f_t + m at all rows, for one output of the mean size of the noise, entry by entry of the definition."""
    rows = x[None].double()
    shared, own = (Gram(kernel)(rows, rows)[0] for kernel in (learner.shared_kernel, learner.own_kernel))
    return shared + own * (task[:, None] == task)


@torch.no_grad()
def _joint(learner: HierarchicalProcess, *batches: bm.Data) -> Tensor:
    """log p of all rows as one Gaussian, outputs and all."""
    x, y, task = _flat(*batches)
    noise = learner.likelihood.noise.covariance()
    outputs = noise / noise.det() ** (1 / len(noise))
    covariance = torch.kron(_covariance(learner, x, task), outputs) + torch.kron(torch.eye(len(x), dtype=D), noise)
    return MultivariateNormal(learner.mean.repeat(len(x)), covariance).log_prob(y.flatten())


@pytest.mark.parametrize("num_outputs", [1, 2])
def test_it_is_one_gaussian_over_all_rows(num_outputs: int) -> None:
    learner, tasks = _learner(num_outputs), _tasks(4, num_outputs)
    new, query = _tasks(3, num_outputs, seed=1), torch.linspace(-3, 3, 5, dtype=D)[None, :, None].repeat(3, 1, 1)
    torch.testing.assert_close(learner.joint_evidence(tasks).detach(), _joint(learner, tasks), **CLOSE)
    # in groups of several lengths, and whatever it keeps
    learner.remember(tasks.select([0, 1]), tasks.select([2, 3]).points(slice(5)))
    groups = tasks.select([3, 2]).points(slice(5)), tasks.select([1, 0])
    torch.testing.assert_close(learner.joint_evidence(*groups).detach(), _joint(learner, tasks), **CLOSE)
    evidence, posterior = learner.log_evidence(new).detach(), learner.adapt(new)
    prediction = posterior.predict(query)
    noise = learner.likelihood.noise.covariance().detach()
    unit = noise.det() ** (1 / num_outputs)
    for b in range(3):
        one = new.select([b])
        together = _joint(learner, tasks, one)
        torch.testing.assert_close(evidence[b], together - _joint(learner, tasks), **CLOSE)
        x, y, task = _flat(tasks, one)
        at = torch.cat([x, query[b]])
        covariance = _covariance(learner, at, torch.cat([task, torch.full((5,), 4)])) / unit
        seen = covariance[: len(x), : len(x)] + torch.eye(len(x), dtype=D)
        gain = torch.linalg.solve(seen, covariance[: len(x), len(x) :]).mT
        mean = learner.mean.detach() + gain @ (y - learner.mean.detach())
        torch.testing.assert_close(prediction.mean[b], mean, **CLOSE)
        left = covariance[len(x) :, len(x) :] - gain @ covariance[: len(x), len(x) :]
        torch.testing.assert_close(prediction.noiseless.covariance()[b], left, **CLOSE)
        torch.testing.assert_close(prediction.output_covariance, noise, **CLOSE)


def test_without_a_mean_process_tasks_are_their_own() -> None:
    learner, tasks, query = _learner(), _tasks(), torch.linspace(-3, 3, 5, dtype=D)
    alone = bm.DeepKernelTransfer(
        bm.networks.Inputs(1), kernel=SumKernel([ConstantKernel(0.3), LinearKernel(0.2), RBFKernel(0.5, 0.1)])
    ).double()
    alone.mean.data.fill_(0.7)
    alone.likelihood.noise.value.set(learner.likelihood.noise.value().detach())
    learner.shared_kernel.outputscale = 1e-12
    learner.remember(tasks)
    new = _tasks(1, seed=1)
    torch.testing.assert_close(learner.joint_evidence(tasks), alone.log_evidence(tasks).sum(), **CLOSE)
    a, b = learner.adapt(new).predict(query), alone.adapt(new).predict(query)
    torch.testing.assert_close((a.mean, a.covariance()), (b.mean, b.covariance()), **CLOSE)


def test_without_deviations_tasks_are_pooled() -> None:
    learner, tasks, query = _learner(), _tasks(), torch.linspace(-3, 3, 5, dtype=D)
    pooled = bm.DeepKernelTransfer(bm.networks.Inputs(1), kernel=RBFKernel(0.8, 2.0)).double()
    pooled.mean.data.fill_(0.7)
    pooled.likelihood.noise.value.set(learner.likelihood.noise.value().detach())
    learner.own_kernel = bm.DeepKernelTransfer(bm.networks.Inputs(1), kernel=RBFKernel(1.0, 1e-12)).double().kernel
    learner.remember(tasks)
    new = _tasks(1, seed=1)
    x, y, _ = _flat(tasks, new)
    everything = bm.Data.full(x[None], y[None])
    a, b = learner.adapt(new).predict(query), pooled.adapt(everything).predict(query)
    torch.testing.assert_close((a.mean, a.covariance()), (b.mean, b.covariance()), **CLOSE)
    everything = bm.Data.full(*(each[None] for each in _flat(tasks)[:2]))
    torch.testing.assert_close(learner.joint_evidence(tasks), pooled.log_evidence(everything)[0], **CLOSE)


@pytest.mark.parametrize("num_outputs", [1, 2])
def test_inducing_points_everywhere_are_exact(num_outputs: int) -> None:
    """But for the jitter of 1e-10 among the inducing points, which is most where m is extrapolated."""
    tasks, new = _tasks(4, num_outputs), _tasks(3, num_outputs, seed=1)
    exact, induced = _learner(num_outputs), _learner(num_outputs, exact_rows=0)
    close = {"rtol": 1e-6, "atol": 1e-6}
    torch.testing.assert_close(induced.joint_evidence(tasks), exact.joint_evidence(tasks), **close)
    for learner in (exact, induced):
        learner.remember(tasks)
    torch.testing.assert_close(induced.log_evidence(new), exact.log_evidence(new), **close)
    torch.testing.assert_close(induced.left_out_evidence(), exact.left_out_evidence(), **close)
    query = torch.linspace(-4, 4, 7, dtype=D).repeat(3, 1)[..., None]
    a, b = (each.adapt(new).predict(query) for each in (induced, exact))
    torch.testing.assert_close((a.mean, a.covariance()), (b.mean, b.covariance()), rtol=1e-5, atol=1e-5)


def test_few_inducing_points_are_partially_independent() -> None:
    """PITC: what it says of tasks is one Gaussian whose covariance between tasks passes through the inducing points."""
    learner, tasks = _learner(exact_rows=0, num_inducing=3), _tasks()
    x, y, task = _flat(tasks)
    z = torch.tensor([[0.0]], dtype=D).new_tensor(_spread(x, 3))
    gram = Gram(learner.shared_kernel)
    with torch.no_grad():
        among, cross = gram(z[None], z[None])[0], gram(z[None], x[None])[0]
        among = among + 1e-10 * among.diagonal().mean() * torch.eye(3, dtype=D)
        through = cross.mT @ torch.linalg.solve(among, cross)
        covariance = _covariance(learner, x, task)
        noise = learner.likelihood.noise.covariance()[0, 0]
        covariance = torch.where(task[:, None] == task, covariance, through) + noise * torch.eye(len(x), dtype=D)
        whole = MultivariateNormal(learner.mean.expand(len(x)), covariance)
        torch.testing.assert_close(learner.joint_evidence(tasks), whole.log_prob(y[:, 0]), **CLOSE)
    learner.remember(tasks.select([0, 1, 2]))
    first = learner.joint_evidence(tasks.select([0, 1, 2]))
    assert (learner.joint_evidence(tasks) - first - learner.log_evidence(tasks.select([3]))[0]).abs() < 1.0


def _spread(x: Tensor, count: int) -> list[list[float]]:
    """The first point, and the farthest from all before, again and again."""
    chosen = [x[0]]
    while len(chosen) < count:
        chosen.append(max(x, key=lambda at: min(float((at - each).abs()) for each in chosen)))
    return [each.tolist() for each in chosen]


@pytest.mark.parametrize("exact_rows", [0, 2_000])
def test_a_task_left_out_is_a_new_one(exact_rows: int) -> None:
    learner, tasks = _learner(2, exact_rows=exact_rows, num_inducing=6), _tasks(6, 2)
    learner.remember(tasks)
    found = learner.left_out_evidence()
    for t in range(6):
        others = learner.without([t])
        assert others.num_tasks == 5
        if exact_rows or t in (1,):  # inducing points are chosen among the points that are left
            torch.testing.assert_close(found[t], others.log_evidence(tasks.select([t]))[0], **CLOSE)
        rest = [i for i in range(6) if i != t]
        if exact_rows:
            chain = learner.joint_evidence(tasks) - learner.joint_evidence(tasks.select(rest))
            torch.testing.assert_close(found[t], chain, **CLOSE)
    with pytest.raises(DataError, match="positions of 6 tasks"):
        learner.without([6])


# ------------------------------------------------------------------------------------------------------------- training


def _level_tasks() -> bm.TaskDataset:
    """A curve that all share, and a level of each task's own."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(8, 7, 1, generator=generator, dtype=D) * 6
    level = 0.3 * torch.randn(8, 1, 1, generator=generator, dtype=D)
    y = 3.0 + 2.0 * x.sin() + level + 0.1 * torch.randn(8, 7, 1, generator=generator, dtype=D)
    return bm.TaskDataset(bm.Data.full(x, y))


def test_fit_evidence_learns_what_tasks_share_and_keeps_it(tmp_path: object) -> None:
    learner = bm.Standardized(HierarchicalProcess(bm.networks.Inputs(1), own_kernel=ConstantKernel(0.1))).double()
    tasks = _level_tasks()
    result = bm.fit_evidence(learner, tasks)
    assert learner.learner.num_tasks == 8
    assert abs(result.losses[-1] * 56 + learner.joint_evidence(tasks.data).item()) < 1e-6
    nothing = learner.adapt(bm.Data.empty(tasks.data.select([0])))
    prediction = nothing.predict([0.5, 2.0, 5.0, 60.0])
    truth = 3.0 + 2.0 * torch.tensor([0.5, 2.0, 5.0]).sin()
    assert bool(((prediction.mean[0, :3, 0] - truth).abs() < 0.35).all())  # the level of a task has a deviation of .3
    assert prediction.stddev[0, 3] > 2.0 * prediction.stddev[0, 1]  # nobody has been there
    bm.save(learner, f"{tmp_path}/model")
    loaded = bm.load(f"{tmp_path}/model")
    again = loaded.adapt(bm.Data.empty(tasks.data.select([0]))).predict([0.5, 2.0, 5.0, 60.0])
    assert torch.equal(again.mean, prediction.mean)
    fresh = bm.Standardized(HierarchicalProcess(bm.networks.Inputs(1), own_kernel=ConstantKernel(0.1))).double()
    fresh.load_state_dict(learner.state_dict())
    assert fresh.learner.num_tasks == 8
    assert fresh.kept_rows == loaded.kept_rows == 56
    line = bm.Standardized(bm.ALPaCA(bm.Identity(1))).double()
    line.prepare(tasks.data)
    mixed = bm.wrappers.Stacked({"curves": learner, "line": line}, {"curves": 0.5, "line": 0.5})
    assert (mixed.kept_rows, line.kept_rows) == (56, 0)
    with pytest.raises(UnsupportedError, match="expected fit_evidence to train HierarchicalProcess, got fit"):
        bm.fit(learner, tasks, steps=1)


def test_standardized_evidence_is_in_the_users_units() -> None:
    learner, tasks = bm.Standardized(_learner()), _level_tasks().data
    learner.prepare(tasks)
    before = learner.joint_evidence(tasks)
    learner.remember(tasks.select([0, 1, 2]))
    chain = learner.joint_evidence(tasks.select([0, 1, 2])) + learner.log_evidence(tasks.select([3]))[0]
    torch.testing.assert_close(learner.joint_evidence(tasks.select([0, 1, 2, 3])), chain, **CLOSE)
    torch.testing.assert_close(learner.joint_evidence(tasks), before, **CLOSE)


def test_theta_can_be_drawn() -> None:
    """By a map over theta; every member keeps the tasks."""
    learner = WithHyperprior(_learner(), GaussianHyperprior(2.0, names=("shared", "own", "mean", "likelihood")))
    tasks = bm.TaskDataset(_level_tasks().data.points(slice(3)))
    sampler = NUTS(num_chains=2, num_draws=4, num_warmup=20, max_depth=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bm.ConvergenceWarning)  # of so few draws
        full = nuts_hyper_posterior(learner, tasks, sampler=sampler, num_members=2)
    assert [member.learner.num_tasks for member in full.learners] == [8, 8]
    assert torch.isfinite(full.adapt(_tasks(1)).predict([0.0, 1.0]).mean).all()


def test_it_says_what_it_refuses() -> None:
    for arguments in ({"exact_rows": -1}, {"num_inducing": 0}):
        with pytest.raises(DataError, match="exact_rows of 0 or more and num_inducing of 1 or more"):
            HierarchicalProcess(bm.networks.Inputs(1), **arguments)
