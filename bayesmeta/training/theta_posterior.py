"""Draws of theta from p(theta | tasks) ∝ p(theta) Π_t p(D_t | theta): full Bayes in place of step 2's maximum.

    nuts    few parameters, exact up to Monte Carlo error: the evidence of all tasks, chains side by side
    svgd    networks: particles of theta that repel each other (PACOH-SVGD)
    vi      networks: one Gaussian with independent numbers (PACOH-VI)

Rothfuss et al. 2021 (arXiv:2002.05551), section 5, for the last two, whose batches of tasks stand for all, and whose
score of a batch is an objective in nats a point times the number of all points. Their tempering is not in here: the
evidence counts in full, as Bayes' rule has it.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import vmap
from typing_extensions import override

from bayesmeta.arguments import generator_at, generator_of, seed_of, whole
from bayesmeta.data import TaskBatch
from bayesmeta.distributions import common_normals
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.inference.nuts import NUTS
from bayesmeta.inference.svgd import stein_direction
from bayesmeta.learner import Learner
from bayesmeta.modes import trained
from bayesmeta.rounding import silently
from bayesmeta.swapped import swapped
from bayesmeta.tasks.dataset import TaskDataset, naming_columns
from bayesmeta.tasks.source import RandomSplit, Split
from bayesmeta.training.loop import Batches, Step, guarded, losses_of, prepare, require_done, train
from bayesmeta.training.objectives import EvidenceProblem, MaximumLikelihood, Objective
from bayesmeta.training.runs.folder import EVERY, Resume, Run, keeping
from bayesmeta.training.runs.parts import AtStart, ModuleState, Parts, TensorState
from bayesmeta.training.runs.settings import Settings
from bayesmeta.typing import Params
from bayesmeta.wrappers.hyper_posterior import HyperPosterior


@trained
@naming_columns
def nuts_hyper_posterior(
    learner: Learner,
    tasks: TaskDataset,
    *,
    problem: EvidenceProblem | None = None,
    sampler: NUTS | None = None,
    num_members: int = 200,
    spread: float = 0.1,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    every: int = EVERY,
    resume: Resume | None = None,
) -> HyperPosterior:
    """Draws of theta by the no-U-turn sampler: for learners with a closed form of the evidence and few parameters.

    Args:
        learner: at a theta that is plausible, as after `fit_evidence`, with its hyperprior (`WithHyperprior`); it is
            left as it was. What no hyperprior speaks of is flat, and p(theta | tasks) has to exist nevertheless. Use
            float64.
        tasks: all meta-training tasks.
        problem: `MaximumLikelihood()` by default: the evidence.
        sampler: chains and their length.
        num_members: draws of theta that are kept, evenly from all chains.
        spread: deviation of the chains' first theta around the learner's.
        seed: of the randomness.
        checkpoint: the folder of the run, as for `fit`; it holds all values and gradients so far, and in the end the
            hyper-posterior. Chains that go on do again what they did, without computing these anew.
        every: evaluations, of all chains at once, between two states.
        resume: what to do with a run that is in the folder: "auto", "never" or None, as for `fit`.

    Returns:
        The learner with its theta averaged over; it has learnt the statistics of `tasks`, like a fitted one.

    Warns:
        ConvergenceWarning: chains that disagree.

    Raises:
        DataError: nothing to draw, or fewer draws than members; a checkpoint folder, as for `fit`.
        UnsupportedError: the learner has no evidence, or chains that are kept are to be compiled.
        KeyboardInterrupt: also of SIGTERM where the run is kept.

    Example:
        >>> import warnings
        >>> import bayesmeta as bm
        >>> y = [[0.1, 0.9, 2.2], [1.2, 1.8, 3.1], [-0.9, 0.2, 0.9]]
        >>> tasks = bm.TaskDataset.from_list([([0.0, 1.0, 2.0], each) for each in y])
        >>> learner = bm.ALPaCA(bm.Identity(1), covariance=bm.priors.IsotropicCovariance(2)).double()
        >>> learner = bm.wrappers.WithHyperprior(learner, bm.hyperpriors.DeviationHyperprior())
        >>> few = bm.inference.NUTS(num_chains=4, num_draws=4, num_warmup=20, max_depth=3)  # far more in earnest
        >>> with warnings.catch_warnings(action="ignore", category=bm.ConvergenceWarning):
        ...     full = nuts_hyper_posterior(learner, tasks, sampler=few, num_members=5)
        >>> len(full.learners), full.adapt(tasks.data).predict(tasks.data.x).mean.shape
        (5, torch.Size([3, 3, 1]))
    """
    learner = copy.deepcopy(learner)
    sampler = NUTS(num_chains=8, num_draws=200, num_warmup=300) if sampler is None else sampler
    total = sampler.num_chains * sampler.num_draws
    num_members = whole(num_members, "num_members", 1, total)  # as many as there are draws
    seed = seed_of(seed)
    problem = MaximumLikelihood() if problem is None else problem
    if checkpoint is not None and sampler.compile:
        raise UnsupportedError(
            "expected a sampler that asks for one evaluation after the other where the run is kept, got one that is "
            "compiled: use NUTS(compile=False), or no checkpoint"
        )

    def settings() -> Settings:
        return {
            "training": "nuts",
            "learner": learner,
            "tasks": tasks,
            "problem": problem,
            "sampler": sampler,
            "num_members": num_members,
            "spread": float(spread),
            "seed": seed,
        }

    with keeping(checkpoint, every, resume, learner, settings) as run:
        data = prepare(learner, tasks.data)
        learner.remember(data)
        theta = _trained(learner)
        run.begin({"start": AtStart(ModuleState(learner))})

        def joint() -> Tensor:
            return problem(learner, data) + learner.log_hyperprior()

        def at(values: Params) -> Tensor:
            with swapped(learner, {theta[name]: value for name, value in values.items()}):
                return joint()

        with torch.no_grad():
            joint()  # errors with their own messages, which the map would hide
        each = vmap(at)

        def log_joint(phi: Params) -> Tensor:
            return each({name: value[:, 0] for name, value in phi.items()})[:, None]

        generator = generator_of(seed, next(iter(theta.values())).device)
        start = {}
        for name, value in theta.items():
            shape = (sampler.num_chains, 1, *value.shape)
            noise = common_normals(shape, value, generator)
            start[name] = value.detach() + spread * noise
        with silently():
            draws = sampler.chains(run.recalling(log_joint), start, generator).merged
        run.conclude()
        places = torch.linspace(0, total - 1, num_members).round().long().tolist()
        members = [_at(learner, {name: value[i, 0] for name, value in draws.items()}) for i in places]
        for member in members:
            member.remember(data)  # what tasks teach beside theta is another under each theta
        return _finished(members, run)


@trained
@naming_columns
def svgd_hyper_posterior(
    learners: Sequence[Learner],
    tasks: TaskDataset,
    *,
    steps: int = 2_000,
    batch_size: int = 16,
    lr: float = 1e-3,
    split: Split | None = None,
    objective: Objective | None = None,
    seed: int = 0,
    progress: bool | None = None,
    checkpoint: str | Path | None = None,
    every: int = EVERY,
    resume: Resume | None = None,
) -> HyperPosterior:
    """Particles of theta by Stein variational gradient descent, with Adam and a cosine learning rate.

    Args:
        learners: the first particles: as many learners, each with initial weights of its own, and all with the same
            hyperprior (`WithHyperprior`), or p(theta) is flat. They are left as they were.
        tasks: all meta-training tasks.
        steps: number of steps.
        batch_size: tasks a step.
        lr: first learning rate.
        split: support and query of a task, anew at every step; `RandomSplit()` by default.
        objective: the learners' own `meta_loss` by default; with `Evidence()` it is p(theta | tasks) in full.
        seed: of the choice of tasks and points.
        progress: show a progress bar; None shows it on a terminal only.
        checkpoint: the folder of the run, as for `fit`; the model in it is the hyper-posterior, in the end.
        every: steps between two states.
        resume: what to do with a run that is in the folder: "auto", "never" or None, as for `fit`.

    Returns:
        The learners, averaged over; they have learnt the statistics of `tasks`, like fitted ones.

    Raises:
        DataError: arguments out of range; a checkpoint folder, as for `fit`.
        InferenceError: a loss or gradient that is not finite; step and task are named.
        KeyboardInterrupt: also of SIGTERM where the run is kept, as what has not come to its end is no posterior.

    Example:
        >>> import bayesmeta as bm
        >>> tasks = bm.tasks.Sinusoid().dataset(num_tasks=10, num_points=8, seed=0)
        >>> hyperprior = bm.hyperpriors.GaussianHyperprior()
        >>> learners = [bm.wrappers.WithHyperprior(bm.ALPaCA(bm.MLP(1, [8])), hyperprior) for _ in range(3)]
        >>> full = svgd_hyper_posterior(learners, tasks, steps=5, lr=0.01)
        >>> len(full.learners)
        3
    """
    steps, batch_size = whole(steps, "steps", 1), whole(batch_size, "batch_size", 1)
    _require_rate(lr)
    for learner in learners:
        _require_uncoupled(learner)
    members = [copy.deepcopy(learner) for learner in learners]
    if len(members) < 2:
        raise DataError(f"expected at least two particles, got {len(members)}: one is what fit finds")
    joint = _ThetaJoint(_batches(tasks, batch_size, split, seed), objective)

    def settings() -> Settings:
        return {"training": "svgd", "learners": members, "steps": steps, "lr": float(lr), **joint.settings()}

    with keeping(checkpoint, every, resume, HyperPosterior(members), settings) as run:
        for member in members:
            joint.prepare(member)
        step = _Particles(members, joint)
        optimizer = torch.optim.Adam([step.particles], lr=lr)
        require_done(train(step, optimizer, steps, run=run, progress=progress, title="svgd"))
        step.place()
        return _finished(members, run)


@trained
@naming_columns
def vi_hyper_posterior(
    learner: Learner,
    tasks: TaskDataset,
    *,
    steps: int = 2_000,
    batch_size: int = 16,
    lr: float = 1e-3,
    split: Split | None = None,
    objective: Objective | None = None,
    initial_scale: float = 0.01,
    num_members: int = 20,
    seed: int = 0,
    progress: bool | None = None,
    checkpoint: str | Path | None = None,
    every: int = EVERY,
    resume: Resume | None = None,
) -> HyperPosterior:
    """Draws from the independent Gaussian that is nearest to p(theta | tasks), by the evidence lower bound.

    Args:
        learner: its theta is the first mean; it is left as it was. With its hyperprior (`WithHyperprior`), or p(theta)
            is flat.
        tasks: all meta-training tasks.
        steps: number of steps.
        batch_size: tasks a step.
        lr: first learning rate.
        split: support and query of a task, anew at every step; `RandomSplit()` by default.
        objective: as for `svgd_hyper_posterior`.
        initial_scale: first deviation of every number of theta.
        num_members: draws of theta that are kept.
        seed: of the randomness.
        progress: show a progress bar; None shows it on a terminal only.
        checkpoint: the folder of the run, as for `fit`; the model in it is the hyper-posterior, in the end.
        every: steps between two states.
        resume: what to do with a run that is in the folder: "auto", "never" or None, as for `fit`.

    Returns:
        The learner with its theta averaged over; it has learnt the statistics of `tasks`, like a fitted one.

    Raises:
        DataError: arguments out of range; a checkpoint folder, as for `fit`.
        InferenceError: a loss or gradient that is not finite; step and task are named.
        KeyboardInterrupt: also of SIGTERM where the run is kept, as what has not come to its end is no posterior.

    Example:
        >>> import bayesmeta as bm
        >>> tasks = bm.tasks.Sinusoid().dataset(num_tasks=10, num_points=8, seed=0)
        >>> learner = bm.wrappers.WithHyperprior(bm.ALPaCA(bm.MLP(1, [8])), bm.hyperpriors.GaussianHyperprior())
        >>> full = vi_hyper_posterior(learner, tasks, steps=5, lr=0.01, num_members=4)
        >>> len(full.learners)
        4
    """
    steps, batch_size = whole(steps, "steps", 1), whole(batch_size, "batch_size", 1)
    _require_uncoupled(learner)
    num_members = whole(num_members, "num_members", 1)
    _require_rate(lr)
    if not 0.0 < initial_scale < math.inf:
        raise DataError(f"expected a positive, finite initial_scale, got {initial_scale}")
    learner = copy.deepcopy(learner)
    joint = _ThetaJoint(_batches(tasks, batch_size, split, seed), objective)

    def settings() -> Settings:
        own = {"learner": learner, "initial_scale": float(initial_scale), "num_members": num_members}
        return {"training": "vi", "steps": steps, "lr": float(lr), **own, **joint.settings()}

    with keeping(checkpoint, every, resume, learner, settings) as run:
        joint.prepare(learner)
        step = _Gaussian(learner, joint, initial_scale)
        optimizer = torch.optim.Adam([step.mean, step.log_scale], lr=lr)
        require_done(train(step, optimizer, steps, run=run, progress=progress, title="vi"))
        members = []
        with torch.no_grad():
            for member in range(num_members):
                _assign(learner, step.draw(0, 1 + member))
                members.append(copy.deepcopy(learner))
        return _finished(members, run)


def _finished(members: list[Learner], run: Run) -> HyperPosterior:
    found = HyperPosterior(members)
    run.finish(found)
    return found


def _require_uncoupled(learner: Learner) -> None:
    if learner.coupled:
        raise UnsupportedError(
            f"expected tasks that share theta alone, got {learner.title}, of which a batch of tasks says nothing "
            "of what all have in common: use nuts_hyper_posterior"
        )


class _ThetaJoint:
    """log p(theta) + log p(tasks | theta) by a batch that stands for all tasks, in nats."""

    def __init__(self, batches: Batches, objective: Objective | None) -> None:
        self.batches, self.objective = batches, objective
        self.total_points = batches.total_points

    def settings(self) -> Settings:
        """What the batches are, and what is asked of them."""
        batches = self.batches
        drawn = {"tasks": batches.source, "batch_size": batches.size, "split": batches.split, "seed": batches.seed}
        return {**drawn, "objective": self.objective}

    def prepare(self, learner: Learner) -> None:
        """Take the statistics of the tasks."""
        prepare(learner, self.batches.pooled())

    def gradient(self, learner: Learner, batch: TaskBatch, step: int) -> tuple[Tensor, Tensor]:
        """The value, and its gradient in what is drawn of theta, flat."""
        each = guarded(losses_of(learner, self.objective), learner.conform_tasks(batch), step)
        value = learner.log_hyperprior() - self.total_points * each.mean()
        parts = torch.autograd.grad(value, list(_trained(learner).values()), materialize_grads=True)
        return value.detach(), torch.cat([part.flatten() for part in parts])


class _Particles(Step):
    """Several theta, each a learner's, that move together; `S P` numbers."""

    def __init__(self, members: Sequence[Learner], joint: _ThetaJoint) -> None:
        self.members, self.joint = members, joint
        self.particles = nn.Parameter(torch.stack([_flat(_trained(member)) for member in members]))

    def place(self) -> None:
        """Give each learner its particle."""
        for member, value in zip(self.members, self.particles.detach(), strict=True):
            _assign(member, value)

    @override
    def gradient(self, step: int) -> Tensor:
        self.place()
        batch = self.joint.batches.draw(step)
        each = [self.joint.gradient(member, batch, step) for member in self.members]
        values, gradients = (torch.stack(parts) for parts in zip(*each, strict=True))
        direction = stein_direction(self.particles.detach()[:, None], gradients[:, None])[:, 0]
        self.particles.grad = -direction / self.joint.total_points
        return -values.mean() / self.joint.total_points

    @override
    def anneal(self, progress: float) -> None:
        for member in self.members:
            member.anneal(progress)

    @override
    def moved(self) -> Mapping[str, Tensor]:
        return {"particles": self.particles}

    @override
    def parts(self) -> Parts:
        members = {f"learner {place}": ModuleState(member) for place, member in enumerate(self.members)}
        return {**members, "particles": TensorState(self.moved())}


class _Gaussian(Step):
    """A Gaussian over theta with independent numbers: its mean and log deviation, `P` each."""

    def __init__(self, learner: Learner, joint: _ThetaJoint, initial_scale: float) -> None:
        self.learner, self.joint = learner, joint
        self.mean = nn.Parameter(_flat(_trained(learner)))
        self.log_scale = nn.Parameter(torch.full_like(self.mean, math.log(initial_scale)))

    def draw(self, *place: int) -> Tensor:
        """One theta, flat, by its path from the mean and the deviation; which one depends on the place alone."""
        mean, generator = self.mean, generator_at(self.joint.batches.seed, *place)
        normal = torch.randn(mean.shape, dtype=mean.dtype, generator=generator).to(mean.device)
        return mean + self.log_scale.exp() * normal

    @override
    def gradient(self, step: int) -> Tensor:
        batch, theta = self.joint.batches.draw(step), self.draw(step, 1)
        _assign(self.learner, theta.detach())
        value, gradient = self.joint.gradient(self.learner, batch, step)
        # ∇ of E log p(theta, tasks) by the path of the draw; the entropy is Σ log scale and a constant
        bound = (theta * gradient).sum() + self.log_scale.sum()
        (-bound / self.joint.total_points).backward()
        return -(value + self.log_scale.detach().sum()) / self.joint.total_points

    @override
    def anneal(self, progress: float) -> None:
        self.learner.anneal(progress)

    @override
    def moved(self) -> Mapping[str, Tensor]:
        return {"mean": self.mean, "log_scale": self.log_scale}

    @override
    def parts(self) -> Parts:
        return {"learner": ModuleState(self.learner), "gaussian": TensorState(self.moved())}


def _batches(tasks: TaskDataset, batch_size: int, split: Split | None, seed: int) -> Batches:
    split = RandomSplit() if split is None else split
    return Batches(tasks, batch_size, split, seed_of(seed))


def _trained(learner: Learner) -> dict[str, Tensor]:
    """What is drawn of theta, by name."""
    return {name: value for name, value in learner.named_parameters() if value.requires_grad and value.numel()}


def _flat(theta: dict[str, Tensor]) -> Tensor:
    if not theta:
        raise DataError("expected parameters to draw, got none that requires gradients")
    return torch.cat([value.detach().flatten() for value in theta.values()])


@torch.no_grad()
def _assign(learner: Learner, flat: Tensor) -> None:
    theta = _trained(learner)
    for target, value in zip(theta.values(), flat.split([v.numel() for v in theta.values()]), strict=True):
        target.copy_(value.reshape(target.shape))


def _at(learner: Learner, theta: Params) -> Learner:
    copied = copy.deepcopy(learner)
    parameters = dict(copied.named_parameters())
    with torch.no_grad():
        for name, value in theta.items():
            parameters[name].copy_(value)
    return copied


def _require_rate(lr: float) -> None:
    if not 0.0 < lr < math.inf:
        raise DataError(f"expected a positive, finite lr, got {lr}")
