"""The no-U-turn sampler for many tasks and chains at once, in lock-step.

Hoffman & Gelman 2014 (arXiv:1111.4246) with multinomial weights along the trajectory, biased progressive sampling
between doublings and the generalised U-turn criterion (Betancourt 2017, arXiv:1701.02434), its recursion unrolled into
a loop over leaves (Phan, Pradhan, Jankowiak 2019, arXiv:1912.11554). Every chain of every task is a row. A leapfrog
step is one evaluation of the log joint of all rows, but each row is in a tree of its own: one whose trajectory has
ended begins the next while others still grow theirs, so that rows wait for each other only where the warm-up pauses to
learn, and at the end.

Chains of one task share what they learn: the scales of phi (`nuts_metric`) and in the end the step size. Tasks share
nothing. What is drawn, and whether it is to be trusted, is in `chains`.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesmeta.description import Described
from bayesmeta.distributions import common_normals
from bayesmeta.errors import DataError, InferenceError
from bayesmeta.inference.chains import Chains, warn_unless_converged
from bayesmeta.inference.nuts_metric import DiagonalMetric, Metric, from_standard, to_standard, window_ends
from bayesmeta.modes import settled
from bayesmeta.typing import LogJoint, Params

MOST_ENERGY_LOST = 1000.0  # nats: beyond, the trajectory diverges


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
    """Draw from the density of phi of each task, by several chains of each: any batched log density will do.

    Args:
        log_joint: phi `chains B *shape` -> `chains B`, the log density up to a constant, nats; use float64.
        start: where the chains begin: each value `chains B *shape`. Chains that begin apart can be seen to disagree.
        num_draws: S, draws of each chain that are kept.
        num_warmup: transitions before, in which step size and metric are learned.
        generator: of the randomness; the global one when None.
        metric: how the scales of phi are learned; `DiagonalMetric()` by default.
        target_acceptance: the acceptance probability that the step size aims at; nearer to 1 for densities whose
            curvature varies.
        max_depth: a trajectory has at most 2^max_depth - 1 leapfrog steps.

    Warns:
        ConvergenceWarning: chains that disagree (R-hat above 1.1), or more than 1 in 20 divergent trajectories.

    Raises:
        DataError: fewer than 4 draws or 20 transitions of warm-up, a target outside (0, 1), a depth below 1.
            InferenceError: a start without a finite log joint; the error's `task` is its position.

    Example:
        >>> mean = torch.tensor([3.0, -1.0], dtype=torch.float64)  # two tasks, whose phi is N(mean, 1)
        >>> start, generator = {"u": torch.zeros(16, 2, dtype=torch.float64)}, torch.Generator().manual_seed(0)
        >>> log_joint = lambda phi: -0.5 * (phi["u"] - mean).square()
        >>> chains = nuts(log_joint, start, num_draws=50, num_warmup=30, generator=generator)
        >>> bool(((chains.merged["u"].mean(0) - mean).abs() < 0.2).all())
        True
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
    begin, *ends = window_ends(num_warmup)
    point, done = sampler.run(target, point, begin, step).last, begin
    for end in ends:
        run = sampler.run(target, point, end - done, step)
        phi = target.phi(run.points[..., : flat.shape[-1]])
        target = _Target(log_joint, shapes, metric.root(phi.flatten(0, 1)))
        point, done = target.at(to_standard(target.root, phi[-1])), end
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
    """The settings of the no-U-turn sampler: how many chains, how long, and in which metric.

    `Sampled`, `nuts_hyper_posterior` and the functions of `interop.pyro` take them.

    Args:
        num_chains: chains of each task. Many short ones are quicker than few long ones, as they run side by side.
        num_draws: draws of each chain that are kept.
        num_warmup: transitions before, in which step size and metric are learned.
        metric: how the scales of phi are learned; `DiagonalMetric()` by default.
        target_acceptance: the acceptance probability that the step size aims at.
        max_depth: a trajectory has at most 2^max_depth - 1 leapfrog steps.

    Raises:
        DataError: fewer than two chains, which could not be compared.

    Example:
        >>> import bayesmeta as bm
        >>> short = bm.inference.NUTS(num_chains=16, num_draws=50, num_warmup=50)
        >>> posterior = bm.Sampled(bm.ALPaCA(bm.Identity(1)), short).adapt(bm.Data.from_arrays([1.0, 2.0], [0.5, 1.1]))
        >>> posterior.draws["weight"].shape, bool(posterior.chains.worst_r_hat < 1.1)
        (torch.Size([800, 1, 2, 1]), True)
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

    @settled
    def chains(self, log_joint: LogJoint, start: Params, generator: torch.Generator | None = None) -> Chains:
        """`nuts` with these settings, from `num_chains` starts of each task: each value `chains B *shape`."""
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
        return from_standard(self.root, z)

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
        self.leaves = torch.tensor([places, [(n >> 1).bit_count() for n in leaves], endings], device="cpu")

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
        rows = start.shape[:2]
        points, records = start.new_empty(count, *start.shape), tuple(start.new_zeros(count, *rows) for _ in range(4))
        trees = _Trees(self, target, start)
        done = torch.zeros(rows, dtype=torch.long, device=start.device)
        while True:
            trees.add_leaf(step.current)
            kept = trees.ends & (done < count)
            if bool(kept.any()):
                index = (done[kept], *kept.nonzero(as_tuple=True))
                points[index] = trees.proposal[kept]
                for record, value in zip(records, trees.records, strict=True):
                    record[index] = value[kept]
                step.learn(kept, trees.mean_acceptance)
                done = done + kept
                if bool((done == count).all()):
                    return _Run(points, records)

    def _normal(self, like: Tensor) -> Tensor:
        return common_normals(like.shape, like, self.generator)


class _Trees:
    """Where every row is in its tree: the trajectory so far, and the subtree that is being added to one of its ends.

    A leaf is a leapfrog step. A subtree that is whole joins the trajectory, which is then twice as long; where it turns
    or diverges the trajectory ends, and the row begins the next from what was drawn of it.

    Attributes:
        proposal: what is drawn from each trajectory, a point.
        ends: the rows whose trajectory has ended with this leaf.
    """

    def __init__(self, sampler: _Sampler, target: _Target, start: Tensor) -> None:
        rows, self.size = start.shape[:2], target.root.shape[1]
        self.target, self.max_depth, self.generator = target, sampler.max_depth, sampler.generator
        self.leaves = sampler.leaves.to(start.device)
        zero, zeros = start.new_zeros(rows), start.new_zeros(*rows, self.size)
        no = torch.zeros(rows, dtype=torch.bool, device=start.device)
        # the trajectory: where it began, its ends, log Σ exp(-ΔH) and Σ momenta over it, and what is drawn from it
        self.proposal, self.begin, self.log_weight, self.total = start, zero, zero, zeros
        self.left = self.right = torch.cat([zeros, start], -1)
        self.acceptance, self.leapfrogs, self.depth = zero, zero, no.long()
        # the subtree that is added to it: the same, its last leaf and number of leaves, and momenta to check against
        self.forward, self.candidate, self.weight, self.subtotal = no, start, zero, zeros
        self.tip, self.leaf = self.left, no.long()
        self.saved = start.new_zeros(self.max_depth + 1, *rows, 2 * self.size)
        self.broken, self.ends, self.grown = no, ~no, ~no

    @property
    def mean_acceptance(self) -> Tensor:
        """Along each trajectory."""
        return self.acceptance / self.leapfrogs

    @property
    def records(self) -> tuple[Tensor, ...]:
        """Of each trajectory, as `_Run` has them."""
        return self.proposal[..., -1], self.broken.to(self.acceptance.dtype), self.mean_acceptance, self.leapfrogs

    def add_leaf(self, step: Float[Tensor, "chains B"]) -> None:
        """One leapfrog step of every row, in a new trajectory or subtree where the last has ended."""
        if bool(self.ends.any()):
            self._begin_trajectories()
        if bool(self.grown.any()):
            self._begin_subtrees()
        length = torch.where(self.forward, step, -step)[..., None]
        self.tip = self.target.leapfrog(self.tip, length)
        gain = self.target.energy(self.tip) - self.begin
        gain = gain.nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf)
        self.acceptance, self.leapfrogs = self.acceptance + gain.clamp(max=0.0).exp(), self.leapfrogs + 1.0
        self.weight = torch.logaddexp(self.weight, gain)
        taken = self._uniform().log() < gain - self.weight
        self.candidate = torch.where(taken[..., None], self.tip[..., self.size :], self.candidate)
        self.broken = gain < -MOST_ENERGY_LOST
        self._join(self.broken | self._subtree_turns())

    def _begin_trajectories(self) -> None:
        row, going = self.ends[..., None], ~self.ends
        momentum = common_normals(self.total.shape, self.total, self.generator)
        fresh = torch.cat([momentum, self.proposal], -1)
        self.begin = torch.where(self.ends, self.target.energy(fresh), self.begin)
        self.left, self.right = torch.where(row, fresh, self.left), torch.where(row, fresh, self.right)
        self.total = torch.where(row, momentum, self.total)
        self.log_weight, self.depth = self.log_weight * going, self.depth * going
        self.acceptance, self.leapfrogs = self.acceptance * going, self.leapfrogs * going

    def _begin_subtrees(self) -> None:
        """At either end, which chance decides."""
        row = self.grown[..., None]
        self.forward = torch.where(self.grown, self._uniform() < 0.5, self.forward)
        self.tip = torch.where(row, torch.where(self.forward[..., None], self.right, self.left), self.tip)
        self.weight = torch.where(self.grown, -math.inf, self.weight)
        self.subtotal, self.leaf = torch.where(row, 0.0, self.subtotal), self.leaf * ~self.grown

    def _subtree_turns(self) -> Tensor:
        """Keep the leaf to check later ones against; whether a balanced subtree that ends with it has begun to turn."""
        momentum = self.tip[..., : self.size]
        slot, place, balanced = self.leaves[:, self.leaf]
        both = torch.cat([momentum, self.subtotal], -1)
        self.saved = self.saved.scatter(0, slot[None, ..., None].expand(1, *both.shape), both[None])
        self.subtotal = self.subtotal + momentum
        turns = torch.zeros_like(self.ends)
        for back in range(int(balanced.max())):
            index = (place - back).clamp(min=0)[None, ..., None].expand(1, *both.shape)
            first, before = self.saved.gather(0, index)[0].split(self.size, -1)
            turns = turns | ((back < balanced) & _turns(first, momentum, self.subtotal - before))
        return turns

    def _join(self, failed: Tensor) -> None:
        """Subtrees that are whole and sound become part of their trajectory: the new half is favoured to be drawn."""
        self.leaf = self.leaf + 1
        whole = ~failed & (self.leaf == 2**self.depth)
        taken = whole & (self._uniform().log() < self.weight - self.log_weight)
        self.proposal = torch.where(taken[..., None], self.candidate, self.proposal)
        self.log_weight = torch.where(whole, torch.logaddexp(self.log_weight, self.weight), self.log_weight)
        self.total = torch.where(whole[..., None], self.total + self.subtotal, self.total)
        self.right = torch.where((whole & self.forward)[..., None], self.tip, self.right)
        self.left = torch.where((whole & ~self.forward)[..., None], self.tip, self.left)
        self.depth = self.depth + whole
        comes_back = _turns(self.left[..., : self.size], self.right[..., : self.size], self.total)
        self.ends = failed | (whole & (comes_back | (self.depth == self.max_depth)))
        self.grown = whole | self.ends

    def _uniform(self) -> Tensor:
        like = self.acceptance
        return torch.rand(like.shape, dtype=like.dtype, device=like.device, generator=self.generator)


def _turns(first: Tensor, last: Tensor, total: Tensor) -> Tensor:
    """Whether a trajectory has begun to come back: its sum of momenta, ends counted by half, points against an end."""
    inner = total - 0.5 * (first + last)
    return ((first * inner).sum(-1) <= 0.0) | ((last * inner).sum(-1) <= 0.0)


def _unflatten(flat: Tensor, shapes: dict[str, torch.Size]) -> Params:
    parts = flat.split([shape.numel() for shape in shapes.values()], -1)
    return {
        name: part.reshape(*flat.shape[:-1], *shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }
