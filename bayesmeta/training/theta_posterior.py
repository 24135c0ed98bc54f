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
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import vmap

from bayesmeta.data import TaskBatch
from bayesmeta.distributions import common_normals
from bayesmeta.errors import DataError, InferenceError
from bayesmeta.hyperpriors import Hyperprior
from bayesmeta.inference.nuts import NUTS
from bayesmeta.inference.svgd import stein_direction
from bayesmeta.learner import Learner
from bayesmeta.swapped import swapped
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.source import RandomSplit, Split
from bayesmeta.training.objectives import EvidenceProblem, MaximumLikelihood, Objective
from bayesmeta.typing import Params
from bayesmeta.wrappers.hyper_posterior import HyperPosterior


def nuts_hyper_posterior(
    learner: Learner,
    tasks: TaskDataset,
    hyperprior: Hyperprior | None = None,
    *,
    problem: EvidenceProblem | None = None,
    sampler: NUTS | None = None,
    num_members: int = 200,
    spread: float = 0.1,
    seed: int = 0,
) -> HyperPosterior:
    """Draws of theta by the no-U-turn sampler: for learners with a closed form of the evidence and few parameters.

    Args:
        learner: at a theta that is plausible, as after `fit_evidence`; it is left as it was. Use float64.
        tasks: all meta-training tasks.
        hyperprior: p(theta); without it only what the learner's `log_hyperprior` says. What neither speaks of is flat,
            and p(theta | tasks) has to exist nevertheless.
        problem: `MaximumLikelihood()` by default: the evidence.
        sampler: chains and their length.
        num_members: draws of theta that are kept, evenly from all chains.
        spread: deviation of the chains' first theta around the learner's.
        seed: of the randomness.

    Returns:
        The learner with its theta averaged over; it has learnt the statistics of `tasks`, like a fitted one.

    Warns:
        ConvergenceWarning: chains that disagree.

    Raises:
        DataError: nothing to draw, or fewer draws than members. UnsupportedError: the learner has no evidence.
    """
    learner = copy.deepcopy(learner)
    learner.prepare(tasks.data)
    data = learner.conform(tasks.data)
    sampler = NUTS(num_chains=8, num_draws=200, num_warmup=300) if sampler is None else sampler
    total = sampler.num_chains * sampler.num_draws
    if not 1 <= num_members <= total:
        raise DataError(f"expected from 1 to {total} members, as many as there are draws, got {num_members}")
    problem = MaximumLikelihood() if problem is None else problem
    theta = _trained(learner)

    def joint() -> Tensor:
        value = problem(learner, data) + learner.log_hyperprior()
        return value if hyperprior is None else value + hyperprior.log_prob(dict(learner.named_parameters()))

    def at(values: Params) -> Tensor:
        with swapped(learner, {theta[name]: value for name, value in values.items()}):
            return joint()

    with torch.no_grad():
        joint()  # errors with their own messages, which the map would hide
    each = vmap(at)

    def log_joint(phi: Params) -> Tensor:
        return each({name: value[:, 0] for name, value in phi.items()})[:, None]

    generator = torch.Generator(next(iter(theta.values())).device).manual_seed(seed)
    start = {}
    for name, value in theta.items():
        shape = (sampler.num_chains, 1, *value.shape)
        noise = common_normals(shape, value, generator)
        start[name] = value.detach() + spread * noise
    draws = sampler.chains(log_joint, start, generator).merged
    places = torch.linspace(0, total - 1, num_members).round().long().tolist()
    return HyperPosterior([_at(learner, {name: value[i, 0] for name, value in draws.items()}) for i in places])


def svgd_hyper_posterior(
    learners: Sequence[Learner],
    tasks: TaskDataset,
    hyperprior: Hyperprior | None = None,
    *,
    steps: int = 2_000,
    batch_size: int = 16,
    lr: float = 1e-3,
    split: Split | None = None,
    objective: Objective | None = None,
    seed: int = 0,
) -> HyperPosterior:
    """Particles of theta by Stein variational gradient descent, with Adam and a cosine learning rate.

    Args:
        learners: the first particles: as many learners, each with initial weights of its own. They are left as they
            were.
        tasks: all meta-training tasks.
        hyperprior: p(theta); flat without it, but for the learners' own.
        steps: number of steps.
        batch_size: tasks a step.
        lr: first learning rate.
        split: support and query of a task, anew at every step; `RandomSplit()` by default.
        objective: the learners' own `meta_loss` by default; with `Evidence()` it is p(theta | tasks) in full.
        seed: of the choice of tasks and points.

    Raises:
        DataError: arguments out of range. InferenceError: a loss that is not finite.
    """
    _require_counts(steps, batch_size, lr)
    members = [copy.deepcopy(learner) for learner in learners]
    if len(members) < 2:
        raise DataError(f"expected at least two particles, got {len(members)}: one is what fit finds")
    generator = torch.Generator().manual_seed(seed)
    for member in members:
        member.prepare(tasks.pooled(generator))
    joint = _Score(tasks, hyperprior, objective)
    particles = nn.Parameter(torch.stack([_flat(_trained(member)) for member in members]))
    optimizer, scheduler = _adam([particles], lr, steps)
    for step in range(1, steps + 1):
        batch = tasks.draw(batch_size, RandomSplit() if split is None else split, generator)
        gradients = []
        for member, value in zip(members, particles.detach(), strict=True):
            _assign(member, value)
            gradients.append(joint.gradient(member, batch, step))
        direction = stein_direction(particles.detach()[:, None], torch.stack(gradients)[:, None])[:, 0]
        particles.grad = -direction / joint.total_points
        optimizer.step()
        scheduler.step()
    for member, value in zip(members, particles.detach(), strict=True):
        _assign(member, value)
    return HyperPosterior(members)


def vi_hyper_posterior(
    learner: Learner,
    tasks: TaskDataset,
    hyperprior: Hyperprior | None = None,
    *,
    steps: int = 2_000,
    batch_size: int = 16,
    lr: float = 1e-3,
    split: Split | None = None,
    objective: Objective | None = None,
    initial_scale: float = 0.01,
    num_members: int = 20,
    seed: int = 0,
) -> HyperPosterior:
    """Draws from the independent Gaussian that is nearest to p(theta | tasks), by the evidence lower bound.

    Args:
        learner: its theta is the first mean; it is left as it was.
        tasks: all meta-training tasks.
        hyperprior: p(theta); flat without it, but for the learner's own.
        steps: number of steps.
        batch_size: tasks a step.
        lr: first learning rate.
        split: support and query of a task, anew at every step; `RandomSplit()` by default.
        objective: as for `svgd_hyper_posterior`.
        initial_scale: first deviation of every number of theta.
        num_members: draws of theta that are kept.
        seed: of the randomness.

    Raises:
        DataError: arguments out of range. InferenceError: a loss that is not finite.
    """
    _require_counts(steps, batch_size, lr)
    if num_members < 1 or not 0.0 < initial_scale < math.inf:
        raise DataError(f"expected members and a positive scale, got {num_members} and {initial_scale}")
    learner = copy.deepcopy(learner)
    generator = torch.Generator().manual_seed(seed)
    learner.prepare(tasks.pooled(generator))
    joint = _Score(tasks, hyperprior, objective)
    mean = nn.Parameter(_flat(_trained(learner)))
    log_scale = nn.Parameter(torch.full_like(mean, math.log(initial_scale)))
    optimizer, scheduler = _adam([mean, log_scale], lr, steps)

    def draw() -> Tensor:
        normal = torch.randn(mean.shape, dtype=mean.dtype, generator=generator).to(mean.device)
        return mean + log_scale.exp() * normal

    for step in range(1, steps + 1):
        batch = tasks.draw(batch_size, RandomSplit() if split is None else split, generator)
        value = draw()
        _assign(learner, value.detach())
        gradient = joint.gradient(learner, batch, step)
        optimizer.zero_grad()
        # ∇ of E log p(theta, tasks) by the path of the draw; the entropy is Σ log scale and a constant
        bound = (value * gradient).sum() + log_scale.sum()
        (-bound / joint.total_points).backward()
        optimizer.step()
        scheduler.step()
    members = []
    with torch.no_grad():
        for _ in range(num_members):
            _assign(learner, draw())
            members.append(copy.deepcopy(learner))
    return HyperPosterior(members)


class _Score:
    """log p(theta) + log p(tasks | theta) by a batch that stands for all tasks, in nats."""

    def __init__(self, tasks: TaskDataset, hyperprior: Hyperprior | None, objective: Objective | None) -> None:
        self.total_points = float(tasks.data.counts.sum())
        self.hyperprior, self.objective = hyperprior, objective

    def gradient(self, learner: Learner, batch: TaskBatch, step: int) -> Tensor:
        """Of what is drawn of theta, flat."""
        batch = learner.conform_tasks(batch)
        each = learner.loss(batch) if self.objective is None else self.objective.loss(learner, batch)
        value = learner.log_hyperprior() - self.total_points * each.mean()
        if self.hyperprior is not None:
            value = value + self.hyperprior.log_prob(dict(learner.named_parameters()))
        if not bool(value.isfinite()):
            raise InferenceError(
                f"expected a finite score, got {value.item()} at step {step}: lower lr or use Standardized"
            )
        parts = torch.autograd.grad(value, list(_trained(learner).values()), materialize_grads=True)
        return torch.cat([part.flatten() for part in parts])


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


def _adam(
    parameters: list[nn.Parameter], lr: float, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimizer = torch.optim.Adam(parameters, lr=lr)
    cosine: Callable[[int], float] = lambda step: 0.5 * (1.0 + math.cos(math.pi * step / steps))
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, cosine)


def _require_counts(steps: int, batch_size: int, lr: float) -> None:
    if steps < 1 or batch_size < 1 or not 0.0 < lr < math.inf:
        raise DataError(f"expected positive steps, batch_size and lr, got {steps}, {batch_size} and {lr}")
