"""The no-U-turn sampler for many tasks and chains at once, in lock-step.

Hoffman & Gelman 2014 (arXiv:1111.4246) with multinomial weights along the trajectory, biased progressive sampling
between doublings and the generalised U-turn criterion (Betancourt 2017, arXiv:1701.02434), its recursion unrolled into
a loop over leaves (Phan, Pradhan, Jankowiak 2019, arXiv:1912.11554). Every chain of every task is a row. A leapfrog
step is one evaluation of the log joint of all rows, but each row is in a tree of its own: one whose trajectory has
ended begins the next while others still grow theirs, so that rows wait for each other only where the warm-up pauses to
learn, and at the end.

Chains of one task share what they learn: the scales of phi (a `Metric`) and in the end the step size. Tasks share
nothing.
"""

import math
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesmeta.description import Described
from bayesmeta.distributions import common_normals
from bayesmeta.errors import ConvergenceWarning, DataError, InferenceError
from bayesmeta.inference.diagnostics import effective_draws, split_r_hat
from bayesmeta.linalg import cholesky
from bayesmeta.typing import LogJoint, Params

MOST_ENERGY_LOST = 1000.0  # nats: beyond, the trajectory diverges
FIRST_WINDOW = 25


class Metric(Described, ABC):
    """The scales in which phi is explored: phi = root z, with z of about unit covariance."""

    @abstractmethod
    def root(self, draws: Float[Tensor, "n B P"]) -> Tensor:
        """The root from draws of the warm-up: deviations `B P`, or triangular factors `B P P`."""


class DiagonalMetric(Metric):
    """A scale for each number of phi."""

    def root(self, draws: Float[Tensor, "n B P"]) -> Float[Tensor, "B P"]:
        """Deviations, shrunk a little to 1e-3."""
        count = len(draws)
        return ((count * draws.var(0) + 5e-3) / (count + 5.0)).sqrt()


class DenseMetric(Metric):
    """All covariances of phi: for few numbers that depend on each other strongly."""

    def root(self, draws: Float[Tensor, "n B P"]) -> Float[Tensor, "B P P"]:
        """The Cholesky factor of the covariance, shrunk a little to its diagonal."""
        count, size = len(draws), draws.shape[-1]
        centred = (draws - draws.mean(0)).transpose(0, 1)
        covariance = centred.mT @ centred / max(count - 1, 1)
        weight = count / (count + 5.0 + size)
        diagonal = torch.diag_embed((1.0 - weight) * covariance.diagonal(dim1=-2, dim2=-1) + 5e-3 / (count + 5.0))
        return cholesky(weight * covariance + diagonal, "covariance of the warm-up's draws")


@dataclass(frozen=True, eq=False)
class Chains:
    """What the sampler has drawn, after the warm-up.

    Attributes:
        draws: each value `chains S B *shape`.
        log_joint: of each draw, nats.
        divergent: 1 where the trajectory to the draw was broken off, as the step was too long for the curvature there.
        acceptance: the mean acceptance probability along each trajectory.
        leapfrogs: the length of each trajectory.
        step_size: of each task, in the metric's units.
    """

    draws: Params
    log_joint: Float[Tensor, "chains S B"]
    divergent: Float[Tensor, "chains S B"]
    acceptance: Float[Tensor, "chains S B"]
    leapfrogs: Float[Tensor, "chains S B"]
    step_size: Float[Tensor, "B"]

    @property
    def merged(self) -> Params:
        """The draws of all chains, one chain after another: each value `S B *shape`."""
        return {name: value.flatten(0, 1) for name, value in self.draws.items()}

    @property
    def r_hat(self) -> Params:
        """Split R-hat of every number of phi: each value `B *shape`. Above 1.01 to 1.05 the chains disagree."""
        return {name: split_r_hat(value) for name, value in self.draws.items() if value.numel()}

    @property
    def effective_draws(self) -> Params:
        """How many independent draws are worth as much for the mean of every number of phi: each value `B *shape`."""
        return {name: effective_draws(value) for name, value in self.draws.items() if value.numel()}

    @property
    def worst_r_hat(self) -> Float[Tensor, "B"]:
        """The largest R-hat of each task."""
        return torch.stack([value.reshape(len(value), -1).amax(1) for value in self.r_hat.values()]).amax(0)


def nuts(
    log_joint: LogJoint,
    start: Params,
    *,
    num_draws: int,
    num_warmup: int,
    generator: torch.Generator | None = None,
    metric: Metric | None = None,
    target_acceptance: float = 0.8,
    max_depth: int = 10,
) -> Chains:
    """Draws from the density of phi of each task, by several chains of each.

    Args:
        log_joint: phi `chains B *shape` -> `chains B`, nats; use float64.
        start: where the chains begin: each value `chains B *shape`.
        num_draws: S, draws of each chain that are kept.
        num_warmup: transitions before, in which step size and metric are learned.
        generator: of the randomness.
        metric: `DiagonalMetric()` by default.
        target_acceptance: what the step size aims at; nearer to 1 for densities whose curvature varies.
        max_depth: a trajectory has at most 2^max_depth - 1 steps.

    Warns:
        ConvergenceWarning: chains that disagree (R-hat above 1.1), or more than 1 in 20 divergent trajectories.

    Raises:
        DataError: numbers out of range. InferenceError: a start without a finite log joint; the error's `task` is its
            position.
    """
    if num_draws < 4 or num_warmup < 20:
        raise DataError(f"expected at least 4 draws and 20 transitions of warm-up, got {num_draws} and {num_warmup}")
    if not 0.0 < target_acceptance < 1.0 or max_depth < 1:
        raise DataError(f"expected a target within (0, 1) and depth of 1 or more, got {target_acceptance}, {max_depth}")
    metric = DiagonalMetric() if metric is None else metric
    shapes = {name: value.shape[2:] for name, value in start.items()}
    flat = torch.cat([value.detach().reshape(*value.shape[:2], -1) for value in start.values()], 2)
    target = _Target(log_joint, shapes, torch.ones_like(flat[0]))
    point = target.at(flat)
    finite = point[..., -1].isfinite().all(0)
    if not bool(finite.all()):
        task = int((~finite).nonzero()[0])
        raise InferenceError(f"expected a finite log joint where chains begin, got one of task {task} not", task=task)
    sampler = _Sampler(max_depth, target_acceptance, generator)
    step = sampler.reasonable_step(target, point)
    begin, *ends = _window_ends(num_warmup)
    point, done = sampler.run(target, point, begin, step).last, begin
    for end in ends:
        run = sampler.run(target, point, end - done, step)
        phi = target.phi(run.points[..., : flat.shape[-1]])
        target = _Target(log_joint, shapes, metric.root(phi.flatten(0, 1)))
        point, done = target.at(target.z(phi[-1])), end
        step = sampler.reasonable_step(target, point)
    point = sampler.run(target, point, num_warmup - done, step).last
    step.settle()
    run = sampler.run(target, point, num_draws, step)
    draws = _unflatten(target.phi(run.points[..., : flat.shape[-1]]).transpose(0, 1), shapes)
    value, divergent, acceptance, leapfrogs = (record.transpose(0, 1) for record in run.records)
    chains = Chains(draws, value, divergent, acceptance, leapfrogs, step.current[0])
    warn_unless_converged(chains)
    return chains


class NUTS(Described):
    """How to sample: how many chains, and how long.

    Args:
        num_chains: chains of each task. Many short ones are quicker than few long ones, as they run side by side.
        num_draws: draws of each chain that are kept.
        num_warmup: transitions before.
        metric: `DiagonalMetric()` by default.
        target_acceptance: what the step size aims at.
        max_depth: a trajectory has at most 2^max_depth - 1 steps.

    Raises:
        DataError: fewer than two chains, which could not be compared.
    """

    def __init__(
        self,
        num_chains: int = 16,
        num_draws: int = 100,
        num_warmup: int = 300,
        metric: Metric | None = None,
        target_acceptance: float = 0.8,
        max_depth: int = 10,
    ) -> None:
        if num_chains < 2:
            raise DataError(f"expected at least two chains, to be compared with each other, got {num_chains}")
        self.num_chains, self.num_draws, self.num_warmup = num_chains, num_draws, num_warmup
        self.metric, self.target_acceptance, self.max_depth = metric, target_acceptance, max_depth

    def chains(self, log_joint: LogJoint, start: Params, generator: torch.Generator | None = None) -> Chains:
        """`nuts` with these settings."""
        return nuts(
            log_joint,
            start,
            num_draws=self.num_draws,
            num_warmup=self.num_warmup,
            generator=generator,
            metric=self.metric,
            target_acceptance=self.target_acceptance,
            max_depth=self.max_depth,
        )


@dataclass(frozen=True, eq=False)
class _Target:
    """The log joint in the metric's coordinates.

    A *point* is `chains B 2P+1`: z, the gradient, the value. With the momentum in front it is an *end* of a trajectory.
    One tensor in place of four: what a step costs, for small tasks, is the number of operations.
    """

    log_joint: LogJoint
    shapes: dict[str, torch.Size]
    root: Tensor  # B P or B P P

    def phi(self, z: Tensor) -> Tensor:
        return self.root * z if self.root.ndim == 2 else (self.root @ z[..., None])[..., 0]

    def z(self, phi: Tensor) -> Tensor:
        if self.root.ndim == 2:
            return phi / self.root
        return torch.linalg.solve_triangular(self.root, phi[..., None], upper=False)[..., 0]

    def at(self, z: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            value = self.log_joint(_unflatten(self.phi(leaf), self.shapes))
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
        return torch.cat([z, gradient, value.detach()[..., None]], -1)

    def leapfrog(self, end: Tensor, step: Tensor) -> Tensor:
        """One step of the Hamiltonian dynamics with unit mass; `step` is `chains B 1`, negative backwards in time."""
        momentum, z, gradient, _ = self.parts(end)
        half = torch.addcmul(momentum, gradient, 0.5 * step)
        point = self.at(torch.addcmul(z, half, step))
        size = z.shape[-1]
        return torch.cat([torch.addcmul(half, point[..., size:-1], 0.5 * step), point], -1)

    def parts(self, end: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Momentum, z, gradient, value."""
        size = self.root.shape[1]
        momentum, z, gradient, value = end.split([size, size, size, 1], -1)
        return momentum, z, gradient, value[..., 0]

    def energy(self, end: Tensor) -> Tensor:
        """Log joint less kinetic energy, what a perfect step would leave as it is, `chains B`."""
        return end[..., -1] - 0.5 * end[..., : self.root.shape[1]].square().sum(-1)


@dataclass(frozen=True, eq=False)
class _Run:
    """Transitions of every row.

    Attributes:
        points: `S chains B 2P+1`.
        records: of each transition, `S chains B`: the log joint, divergence, mean acceptance, number of steps.
        last: the points after the last.
    """

    points: Tensor
    records: tuple[Tensor, ...]

    @property
    def last(self) -> Tensor:
        return self.points[-1]


class _StepSize:
    """Dual averaging of the step size of each row (Hoffman & Gelman 2014, section 3.2), with the paper's constants.

    A step size for all chains of a task would learn from trajectories that were begun with an older one, and swing.
    """

    def __init__(self, initial: Float[Tensor, "chains B"], target: float) -> None:
        self.target, self.anchor, self.current = target, (10.0 * initial).log(), initial
        self.error, self.average, self.count = (torch.zeros_like(initial) for _ in range(3))
        self.is_settled = False

    def learn(self, where: Bool[Tensor, "chains B"], acceptance: Float[Tensor, "chains B"]) -> None:
        """One step in the rows whose trajectory has ended."""
        if self.is_settled:
            return
        self.count = self.count + where
        rate, weight = 1.0 / (self.count + 10.0), self.count.clamp(min=1.0) ** -0.75
        self.error = torch.where(where, (1.0 - rate) * self.error + rate * (self.target - acceptance), self.error)
        log_step = self.anchor - self.count.sqrt() / 0.05 * self.error
        self.average = torch.where(where, weight * log_step + (1.0 - weight) * self.average, self.average)
        self.current = torch.where(where, log_step.exp(), self.current)

    def settle(self) -> None:
        """Stay from now on at the average over time and, geometrically, over the chains of a task."""
        self.current, self.is_settled = self.average.mean(0).exp().expand_as(self.average), True


class _Sampler:
    """Runs the rows, each through trees of its own: none waits for another but at the end of a run."""

    def __init__(self, max_depth: int, acceptance: float, generator: torch.Generator | None) -> None:
        self.max_depth, self.acceptance, self.generator = max_depth, acceptance, generator
        # of the leaf n of a subtree: where its momentum is kept, and how many balanced subtrees end with it
        leaves = range(2 ** (max_depth - 1))
        places = [(n >> 1).bit_count() if n % 2 == 0 else max_depth for n in leaves]
        endings = [(~n & (n + 1)).bit_length() - 1 for n in leaves]
        self.leaves = torch.tensor([places, [(n >> 1).bit_count() for n in leaves], endings])

    def reasonable_step(self, target: _Target, point: Tensor) -> _StepSize:
        """Doubled or halved from 1 until one step of a task's chains is accepted about half of the time."""
        size = target.root.shape[1]
        end = torch.cat([self._normal(point[..., :size]), point], -1)
        begin = target.energy(end)

        def accepted(step: Tensor) -> Tensor:
            gain = target.energy(target.leapfrog(end, step[:, None].expand(*begin.shape, 1))) - begin
            return torch.where(gain.isnan(), 0.0, gain.clamp(max=0.0).exp()).mean(0)

        step = torch.ones_like(begin[0])
        grows = accepted(step) > 0.5
        moving = torch.ones_like(grows)
        for _ in range(60):
            step = torch.where(moving, torch.where(grows, 2.0 * step, 0.5 * step), step)
            moving = moving & ((accepted(step) > 0.5) == grows)
            if not bool(moving.any()):
                break
        return _StepSize(step.expand_as(begin), self.acceptance)

    def run(self, target: _Target, start: Tensor, count: int, step: _StepSize) -> _Run:
        """`count` transitions of every row."""
        rows, size = start.shape[:2], target.root.shape[1]
        table = self.leaves.to(start.device)
        points, zero, zeros = start.new_empty(count, *start.shape), start.new_zeros(rows), start[..., :size] * 0.0
        records = tuple(start.new_zeros(count, *rows) for _ in range(4))
        no = torch.zeros(rows, dtype=torch.bool, device=start.device)
        done = leaf = depth = no.long()
        # the trajectory: where it began, its ends, log Σ exp(-ΔH) and Σ momenta over it, and what is drawn from it
        proposal, begin, log_weight, total, acceptance, leapfrogs = start, zero, zero, zeros, zero, zero
        left = right = tip = torch.cat([zeros, start], -1)
        # the subtree that is added to it: the same, its last leaf and number of leaves, and momenta to check against
        forward, candidate, weight, subtotal = no, start, zero, zeros
        saved = start.new_zeros(self.max_depth + 1, *rows, 2 * size)
        ends = grown = ~no
        while True:
            if bool(ends.any()):  # a new trajectory
                row = ends[..., None]
                fresh = torch.cat([self._normal(zeros), proposal], -1)
                begin = torch.where(ends, target.energy(fresh), begin)
                left, right = torch.where(row, fresh, left), torch.where(row, fresh, right)
                total = torch.where(row, fresh[..., :size], total)
                going = ~ends
                log_weight, depth = log_weight * going, depth * going
                acceptance, leapfrogs = acceptance * going, leapfrogs * going
            if bool(grown.any()):  # a new subtree, at either end
                forward = torch.where(grown, self._uniform(zero) < 0.5, forward)
                row = grown[..., None]
                tip = torch.where(row, torch.where(forward[..., None], right, left), tip)
                weight = torch.where(grown, -math.inf, weight)
                subtotal, leaf = torch.where(row, 0.0, subtotal), leaf * ~grown
            length = torch.where(forward, step.current, -step.current)[..., None]
            tip = target.leapfrog(tip, length)
            momentum, point = tip[..., :size], tip[..., size:]
            gain = (target.energy(tip) - begin).nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf)
            acceptance, leapfrogs = acceptance + gain.clamp(max=0.0).exp(), leapfrogs + 1.0
            weight = torch.logaddexp(weight, gain)
            taken = self._uniform(zero).log() < gain - weight
            candidate = torch.where(taken[..., None], point, candidate)
            # every balanced subtree that ends with this leaf is looked at
            slot, place, balanced = table[:, leaf]
            both = torch.cat([momentum, subtotal], -1)
            saved = saved.scatter(0, slot[None, ..., None].expand(1, *both.shape), both[None])
            subtotal = subtotal + momentum
            broken = gain < -MOST_ENERGY_LOST
            failed = broken
            for back in range(int(balanced.max())):
                index = (place - back).clamp(min=0)[None, ..., None].expand(1, *both.shape)
                first, before = saved.gather(0, index)[0].split(size, -1)
                failed = failed | ((back < balanced) & _turns(first, momentum, subtotal - before))
            leaf = leaf + 1
            grown = ~failed & (leaf == 2**depth)
            taken = grown & (self._uniform(zero).log() < weight - log_weight)
            proposal = torch.where(taken[..., None], candidate, proposal)
            log_weight = torch.where(grown, torch.logaddexp(log_weight, weight), log_weight)
            total = torch.where(grown[..., None], total + subtotal, total)
            right = torch.where((grown & forward)[..., None], tip, right)
            left = torch.where((grown & ~forward)[..., None], tip, left)
            depth = depth + grown
            comes_back = _turns(left[..., :size], right[..., :size], total)
            ends = failed | (grown & (comes_back | (depth == self.max_depth)))
            grown = grown | ends
            kept = ends & (done < count)
            if bool(kept.any()):
                index = (done[kept], *kept.nonzero(as_tuple=True))
                points[index] = proposal[kept]
                values = (proposal[..., -1], broken.to(zero.dtype), acceptance / leapfrogs, leapfrogs)
                for record, value in zip(records, values, strict=True):
                    record[index] = value[kept]
                step.learn(kept, values[2])
                done = done + kept
                if bool((done == count).all()):
                    return _Run(points, records)

    def _normal(self, like: Tensor) -> Tensor:
        return common_normals(like.shape, like, self.generator)

    def _uniform(self, like: Tensor) -> Tensor:
        return torch.rand(like.shape, dtype=like.dtype, device=like.device, generator=self.generator)


def _turns(first: Tensor, last: Tensor, total: Tensor) -> Tensor:
    """Whether a trajectory has begun to come back: its sum of momenta, ends counted by half, points against an end."""
    inner = total - 0.5 * (first + last)
    return ((first * inner).sum(-1) <= 0.0) | ((last * inner).sum(-1) <= 0.0)


def _window_ends(num_warmup: int) -> list[int]:
    """Where the metric begins to be learned, and where it is learned anew: windows that double."""
    begin, end = round(0.15 * num_warmup), num_warmup - max(round(0.1 * num_warmup), 10)
    ends, size = [begin], min(FIRST_WINDOW, end - begin)
    while end - ends[-1] >= 3 * size:  # what is left must hold the next window, which is twice as long
        ends.append(ends[-1] + size)
        size *= 2
    return [*ends, end]


def warn_unless_converged(chains: Chains) -> None:
    """Warns, on behalf of the function that calls it, of chains that are not to be trusted.

    Warns:
        ConvergenceWarning: the chains of a task disagree (R-hat above 1.1, or none), or more than 1 in 20 of its
            trajectories diverge.
    """
    worst = chains.worst_r_hat
    if not bool((worst <= 1.1).all()):
        count, task = int((~(worst <= 1.1)).sum()), int(worst.nan_to_num(nan=math.inf).argmax())
        warnings.warn(
            f"the chains of {count} of {len(worst)} tasks disagree (R-hat {worst[task]:.2f} in task {task}): "
            "draw more, warm up longer, or write phi so that its density is nearer to a Gaussian",
            ConvergenceWarning,
            stacklevel=3,
        )
    share = chains.divergent.mean((0, 1))
    if bool((share > 0.05).any()):
        task = int(share.argmax())
        warnings.warn(
            f"{share[task]:.0%} of the trajectories of task {task} diverge: parts of its density may be left out; "
            "raise target_acceptance, or write phi so that its density is nearer to a Gaussian",
            ConvergenceWarning,
            stacklevel=3,
        )


def _unflatten(flat: Tensor, shapes: dict[str, torch.Size]) -> Params:
    parts = flat.split([shape.numel() for shape in shapes.values()], -1)
    return {
        name: part.reshape(*flat.shape[:-1], *shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }
