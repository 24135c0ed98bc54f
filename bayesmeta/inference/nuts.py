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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmeta.description import Described
from bayesmeta.errors import DataError, InferenceError
from bayesmeta.inference.chains import Chains, warn_unless_converged
from bayesmeta.inference.compiled_function import compiled
from bayesmeta.inference.nuts_metric import DiagonalMetric, Metric, times_root, window_ends
from bayesmeta.modes import settled
from bayesmeta.typing import LogJoint, Params

MOST_ENERGY_LOST = 1000.0  # nats: beyond, the trajectory diverges
LOOK_EVERY = 4  # leaves: whether all rows are done, and how long trajectories are, as a GPU waits where Python looks
COMPILED_LEVELS, MOST_LEVELS = 5, 2**10  # trees of at most 31 leaves have a program of their own
MOST_NORMALS = 2**20  # drawn at a time


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
    compile: bool = False,
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
            curvature varies, as of funnels: .95.
        max_depth: a trajectory has at most 2^max_depth - 1 leapfrog steps.
        compile: whether a step of all rows is code that inductor compiles: three times as fast for hundreds of rows,
            after half a minute the first time. It is kept, in this process, for log joints of the same operations and
            shapes. The log joint must be tensor operations alone, and sees no values while it is recorded.

    Warns:
        ConvergenceWarning: chains that disagree (R-hat above 1.1), or more than 1 in 20 divergent trajectories. It says
            what to try.

    Raises:
        DataError: fewer than 4 draws or 20 transitions of warm-up, a target outside (0, 1), a depth below 1.
        InferenceError: a start without a finite log joint; the error's `task` is its position.
        UnsupportedError: the log joint cannot be compiled.

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
    point = target.at(flat.permute(2, 0, 1))
    finite = point[-1].isfinite().all(0)
    if not bool(finite.all()):
        task = int((~finite).nonzero()[0])
        raise InferenceError(f"expected a finite log joint where chains begin, got one of task {task} not", task=task)
    sampler = _Sampler(max_depth, target_acceptance, generator, compile, flat.device)
    step = sampler.reasonable_step(target, point)
    begin, *ends = window_ends(num_warmup)
    run, done = sampler.run(target, point, begin, step), begin
    for end in ends:
        run = sampler.run(target, target.at(run.last), end - done, run.step)
        draws = run.records[:, : target.size].permute(0, 2, 3, 1).flatten(0, 1)  # n B P
        target = _Target(log_joint, shapes, metric.root(draws))
        point, done = target.at(run.last), end
        run = replace(run, step=sampler.reasonable_step(target, point))
    run = sampler.run(target, target.at(run.last), num_warmup - done, run.step)
    run = sampler.run(target, target.at(run.last), num_draws, run.step.settled(), learns=False)
    numbers = run.records.permute(2, 0, 3, 1)  # chains S B P+4
    value, divergent, acceptance, leapfrogs = numbers[..., target.size :].unbind(-1)
    phi = _unflatten(numbers[..., : target.size], shapes)
    chains = Chains(phi, value, divergent, acceptance, leapfrogs, run.step.current[0])
    warn_unless_converged(chains, target_acceptance)
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
        compile: whether a step of all chains is compiled, as `nuts` says: worth it for thousands of transitions, or for
            many batches of tasks of the same shape.

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
        compile: bool = False,
    ) -> None:
        if num_chains < 2:
            raise DataError(f"expected at least two chains, to be compared with each other, got {num_chains}")
        self.num_chains, self.num_draws, self.num_warmup = num_chains, num_draws, num_warmup
        self.metric, self.target_acceptance, self.max_depth = metric, target_acceptance, max_depth
        self.compile = compile

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
            compile=self.compile,
        )


@dataclass(frozen=True, eq=False)
class _Run:
    """Transitions of every row.

    Attributes:
        records: of each transition, `S P+4 chains B`: phi, its log joint, divergence, mean acceptance, number of steps.
        size: P.
        step: step sizes after the last.
    """

    records: Tensor
    size: int
    step: "_StepSize"

    @property
    def last(self) -> Float[Tensor, "P chains B"]:
        """phi after the last transition."""
        return self.records[-1, : self.size]


class _Target:
    """The log joint of every row, and the step of the Hamiltonian dynamics in the metric's coordinates.

    Rows are the last axes, `chains B`, of all tensors here: a number of every row lies in one piece of memory, and one
    operation serves all rows. A *point* is `2P+1 chains B`: phi, the gradient, the value. With the momentum in front
    it is an *end* of a trajectory, `3P+1 chains B`. One tensor in place of four, as what a step costs for small tasks
    is the number of operations. phi stands in its own units; momenta are those of z, phi = T z, and have unit mass.
    """

    def __init__(self, log_joint: LogJoint, shapes: dict[str, torch.Size], root: Tensor) -> None:
        self.log_joint, self.shapes, self.root = log_joint, shapes, root
        self.sizes = [shape.numel() for shape in shapes.values()]
        self.size = sum(self.sizes)
        self.scales = root.mT[:, None].contiguous() if root.ndim == 2 else None  # P 1 B

    def at(self, phi: Float[Tensor, "P chains B"]) -> Tensor:
        """The point at phi."""
        flat = phi.permute(1, 2, 0).contiguous().split(self.sizes, -1)
        rows = phi.shape[1:]
        with torch.enable_grad():
            leaves = {
                name: part.reshape(*rows, *shape).detach().requires_grad_()
                for (name, shape), part in zip(self.shapes.items(), flat, strict=True)
            }
            value = self.log_joint(leaves)
            ones, inputs = torch.ones_like(value), list(leaves.values())
            # a value that phi does not reach has a gradient of zero
            gradients = torch.autograd.grad(value, inputs, ones, materialize_grads=True)
        columns = [each.reshape(*rows, -1).permute(2, 0, 1) for each in gradients]
        return torch.cat([phi, *columns, value.detach()[None]])

    def leapfrog(self, end: Tensor, step: Float[Tensor, "chains B"]) -> Tensor:
        """One step of the dynamics, negative backwards in time, from an end to the next."""
        momentum, phi, gradient, _ = end.split([self.size, self.size, self.size, 1])
        if self.scales is not None:
            scaled = self.scales * step
            half = torch.addcmul(momentum, scaled, gradient, value=0.5)
            point = self.at(torch.addcmul(phi, scaled, half))
            return torch.cat([torch.addcmul(half, scaled, point[self.size : -1], value=0.5), point])
        half = torch.addcmul(momentum, step, times_root(self.root.mT, gradient), value=0.5)
        point = self.at(torch.addcmul(phi, step, times_root(self.root, half)))
        turned = times_root(self.root.mT, point[self.size : -1])
        return torch.cat([torch.addcmul(half, step, turned, value=0.5), point])

    def energy(self, end: Tensor) -> Float[Tensor, "chains B"]:
        """Log joint less kinetic energy, what a perfect step would leave as it is."""
        momentum = end[: self.size]
        return torch.add(end[-1], (momentum * momentum).sum(0), alpha=-0.5)


class _StepSize(NamedTuple):
    """Dual averaging of the step size of each row (Hoffman & Gelman 2014, section 3.2), with the paper's constants.

    A step size for all chains of a task would learn from trajectories that were begun with an older one, and swing.
    """

    current: Float[Tensor, "chains B"]
    anchor: Float[Tensor, "chains B"]  # what the logarithm is drawn to
    error: Float[Tensor, "chains B"]
    average: Float[Tensor, "chains B"]
    learnings: Float[Tensor, "chains B"]  # how many steps so far

    @staticmethod
    def of(initial: Float[Tensor, "chains B"]) -> "_StepSize":
        """Nothing learned yet."""
        none = torch.zeros_like(initial)
        return _StepSize(initial, (10.0 * initial).log(), none, none, none)

    def learned(
        self, where: Bool[Tensor, "chains B"], acceptance: Float[Tensor, "chains B"], target: float
    ) -> "_StepSize":
        """After one step in the rows whose trajectory has ended."""
        count = self.learnings + where
        error = self.error.lerp(target - acceptance, where / (count + 10.0))
        log_step = torch.addcmul(self.anchor, count.sqrt(), error, value=-20.0)
        average = self.average.lerp(log_step, where * count.clamp(min=1.0) ** -0.75)
        return _StepSize(torch.where(where, log_step.exp(), self.current), self.anchor, error, average, count)

    def settled(self) -> "_StepSize":
        """At the average over time and, geometrically, over the chains of a task."""
        return self._replace(current=self.average.mean(0).exp().expand_as(self.average).contiguous())


class _Rows(NamedTuple):
    """Where every row is in its tree: the trajectory so far, and the subtree that is being added to one of its ends.

    A leaf is a leapfrog step. A subtree that is whole joins the trajectory, which is then twice as long; where it turns
    or diverges the trajectory ends, and the row begins the next from what was drawn of it. While a subtree grows the
    end that it grows from is needed no more, as without the subtree there is no longer trajectory: of ends, the tip of
    the subtree and the far end of the trajectory are kept, and whoever grows at the other end changes the two over.
    """

    tip: Tensor
    far: Tensor
    proposal: Tensor  # what is drawn from the trajectory
    candidate: Tensor  # and from the subtree
    total: Float[Tensor, "P chains B"]  # momenta of the trajectory, summed
    subtotal: Float[Tensor, "P chains B"]  # and of the subtree
    log_weight: Float[Tensor, "chains B"]  # log Σ exp(-ΔH) over the trajectory
    weight: Float[Tensor, "chains B"]  # and over the subtree
    begin: Float[Tensor, "chains B"]  # the energy that ΔH is against
    acceptance: Float[Tensor, "chains B"]  # summed over the leaves of the trajectory
    sign: Float[Tensor, "chains B"]  # of time at the tip
    leaf: Int[Tensor, "chains B"]  # leaves of the subtree so far
    goal: Int[Tensor, "chains B"]  # leaves it is to have: as many as the trajectory
    ends: Bool[Tensor, "chains B"]  # whether the trajectory has ended with this leaf
    grown: Bool[Tensor, "chains B"]  # whether the subtree has
    done: Int[Tensor, "chains B"]  # transitions so far

    @staticmethod
    def at(point: Tensor) -> "_Rows":
        """Every row about to begin a trajectory."""
        size, rows = len(point) // 2, point.shape[1:]
        zero, zeros = point.new_zeros(rows), point.new_zeros(size, *rows)
        yes, end = torch.ones(rows, dtype=torch.bool, device=point.device), torch.cat([zeros, point])
        none = zero.long()
        return _Rows(
            end, end, point, point, zeros, zeros, zero, zero, zero, zero, zero + 1.0, none, none + 1, yes, yes, none
        )


class _Chance(NamedTuple):
    """The randomness of one leaf of every row."""

    momentum: Float[Tensor, "P chains B"]  # where a trajectory begins
    kinetic: Float[Tensor, "chains B"]
    other_end: Bool[Tensor, "chains B"]  # which end a subtree begins at
    log_uniform: Float[Tensor, "chains B"]  # whether the leaf becomes what is drawn of its subtree
    log_uniform_half: Float[Tensor, "chains B"]  # and that what is drawn of the trajectory


class _Leaf(NamedTuple):
    """The rows one leaf later.

    Attributes:
        rows: they.
        step: their step sizes.
        record: of each row's trajectory so far, `P+4 chains B`: what is drawn of it, its log joint, whether it has
            diverged, its mean acceptance, its length.
        place: where this leaf is to be kept in `saved`.
        kept: what is to be kept of it, `2P chains B`.
    """

    rows: _Rows
    step: _StepSize
    record: Tensor
    place: Int[Tensor, "chains B"]
    kept: Tensor


class _Trees:
    """What a leaf does to the rows. It is tensor operations and no more, so that it can be recorded and compiled.

    Whatever happens to some rows only, as the beginning of a trajectory, is computed for all and taken where it
    happens: with dozens of rows it happens at every leaf.

    Args:
        max_depth: a trajectory has at most 2^max_depth - 1 leaves.
        acceptance: what the step size is learned for.
        device: of the rows.
    """

    def __init__(self, max_depth: int, acceptance: float, device: torch.device) -> None:
        self.max_depth, self.acceptance = max_depth, acceptance
        # of the leaf n of a subtree: where its momentum is kept, and which kept ones begin a subtree that ends with it
        leaves = range(2 ** (max_depth - 1))
        places = [(n >> 1).bit_count() if n % 2 == 0 else max_depth for n in leaves]
        endings = [(~n & (n + 1)).bit_length() - 1 for n in leaves]
        self.places = torch.tensor(places, device=device)
        last, count = torch.tensor([[(n >> 1).bit_count() for n in leaves], endings], device=device)[:, None]
        levels = torch.arange(max_depth, device=device)[:, None]
        self.begins = (levels <= last) & (levels > last - count)  # max_depth, leaves

    def leaf(
        self,
        target: _Target,
        rows: _Rows,
        saved: Tensor,
        chance: _Chance,
        step: _StepSize,
        count: Int[Tensor, ""],
        levels: int,
    ) -> _Leaf:
        """One leapfrog step of every row, in a new trajectory or subtree where the last has ended.

        Args:
            target: the density.
            rows: they.
            saved: `levels or more, 2P, chains B`: of leaves that later ones are checked against, the momentum, and half
                of it with the sum of those before.
            chance: the randomness.
            step: step sizes.
            count: step sizes are learned in rows that have done fewer transitions.
            levels: how many of `saved` may be in use.

        Returns:
            the rows one leaf later.
        """
        size = target.size
        begins, other = rows.ends, rows.grown & chance.other_end
        fresh = torch.cat([chance.momentum, rows.proposal])
        tip = torch.where(begins, fresh, torch.where(other, rows.far, rows.tip))
        far = torch.where(begins, fresh, torch.where(other, rows.tip, rows.far))
        sign = torch.where(other, -rows.sign, rows.sign)
        begin = torch.where(begins, rows.proposal[-1] - chance.kinetic, rows.begin)
        total = torch.where(begins, chance.momentum, rows.total)
        log_weight, acceptance = rows.log_weight.masked_fill(begins, 0.0), rows.acceptance.masked_fill(begins, 0.0)
        goal, index = rows.goal.masked_fill(begins, 1), rows.leaf.masked_fill(rows.grown, 0)

        tip = target.leapfrog(tip, sign * step.current)
        momentum = tip[:size]
        gain = (target.energy(tip) - begin).nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf)
        acceptance = acceptance + gain.clamp(max=0.0).exp()
        weight = torch.logaddexp(rows.weight.masked_fill(rows.grown, -math.inf), gain)
        candidate = torch.where(chance.log_uniform < gain - weight, tip[size:], rows.candidate)
        broken = gain < -MOST_ENERGY_LOST

        # keep the leaf to check later ones against; has a balanced subtree that ends with it begun to turn?
        before = rows.subtotal.masked_fill(rows.grown, 0.0)
        kept = torch.cat([momentum, torch.add(before, momentum, alpha=0.5)])
        subtotal = before + momentum
        firsts, offsets = saved[:levels, :size], saved[:levels, size:]
        inner = torch.add(subtotal, momentum, alpha=-0.5) - offsets  # levels P chains B
        turns = ((_least(firsts, momentum, inner, 1) <= 0.0) & self.begins[:levels, index]).any(0)
        place = self.places[index]

        # subtrees that are whole and sound become part of their trajectory: the new half is favoured to be drawn
        failed, index = broken | turns, index + 1
        whole = ~failed & (index == goal)
        leapfrogs = (goal + index - 1).to(gain.dtype)
        taken = whole & (chance.log_uniform_half < weight - log_weight)
        proposal = torch.where(taken, candidate, rows.proposal)
        log_weight = torch.where(whole, torch.logaddexp(log_weight, weight), log_weight)
        total = torch.where(whole, total + subtotal, total)
        goal = torch.where(whole, 2 * goal, goal)
        outer = far[:size]
        inner = torch.add(total, outer + momentum, alpha=-0.5)
        comes_back = _least(outer, momentum, inner, 0) <= 0.0
        ends = failed | (whole & (comes_back | (goal == 2**self.max_depth)))

        mean = acceptance / leapfrogs
        record = torch.cat([proposal[:size], torch.stack([proposal[-1], broken.to(mean.dtype), mean, leapfrogs])])
        step = step.learned(ends & (rows.done < count), mean, self.acceptance)
        after = _Rows(
            tip,
            far,
            proposal,
            candidate,
            total,
            subtotal,
            log_weight,
            weight,
            begin,
            acceptance,
            sign,
            index,
            goal,
            ends,
            whole | ends,
            rows.done + ends,
        )
        return _Leaf(after, step, record, place, kept)


def _least(first: Tensor, last: Tensor, inner: Tensor, axis: int) -> Tensor:
    """Not above zero where a trajectory has begun to come back.

    `inner` is its sum of momenta, the ends counted by half; it then points against the momentum of an end.
    """
    return torch.minimum((first * inner).sum(axis), (last * inner).sum(axis))


class _Sampler:
    """Runs the rows, each through trees of its own: none waits for another but at the end of a run."""

    def __init__(
        self, max_depth: int, acceptance: float, generator: torch.Generator | None, compile: bool, device: torch.device
    ) -> None:
        self.generator, self.compile = generator, compile
        self.trees = _Trees(max_depth, acceptance, device)
        self._programs: dict[tuple[int, int], Callable[..., Sequence[Tensor]]] = {}

    def reasonable_step(self, target: _Target, point: Tensor) -> _StepSize:
        """Doubled or halved from 1 until one step of a task's chains is accepted about half of the time."""
        end = torch.cat([self._normals(point[: target.size].shape, point), point])
        begin = target.energy(end)

        def accepted(step: Tensor) -> Tensor:
            gain = target.energy(target.leapfrog(end, step.expand_as(begin))) - begin
            return torch.where(gain.isnan(), 0.0, gain.clamp(max=0.0).exp()).mean(0)

        step = torch.ones_like(begin[0])
        grows = accepted(step) > 0.5
        moving = torch.ones_like(grows)
        for _ in range(60):
            step = torch.where(moving, torch.where(grows, 2.0 * step, 0.5 * step), step)
            moving = moving & ((accepted(step) > 0.5) == grows)
            if not bool(moving.any()):
                break
        return _StepSize.of(step.expand_as(begin).contiguous())

    def run(self, target: _Target, start: Tensor, count: int, step: _StepSize, learns: bool = True) -> _Run:
        """`count` transitions of every row."""
        rows, max_depth = _Rows.at(start), self.trees.max_depth
        saved = start.new_zeros(max_depth + 1, 2 * target.size, *start.shape[1:])
        # rows that are done go on, into the last place, until all are
        records = start.new_zeros(count + 1, target.size + 4, *start.shape[1:])
        learned = torch.tensor(count if learns else 0, device=start.device)
        levels = max_depth
        for leaves, chance in enumerate(self._chances(target.size, start)):
            if leaves % LOOK_EVERY == 0:
                least, longest = torch.stack([rows.done.min(), rows.goal.max()]).tolist()
                if least >= count:
                    return _Run(records[:count], target.size, step)
                # a subtree of 2^d leaves is checked against d of them, and within these leaves d grows by one at most
                levels = min(max(longest.bit_length(), 3), max_depth)
            index = rows.done.clamp(max=count)
            rows, step, record, place, kept = self._leaf(target, rows, saved, chance, step, learned, levels)
            records.scatter_(0, index.expand(1, *record.shape), record[None])
            saved.scatter_(0, place.expand(1, *kept.shape), kept[None])
        raise AssertionError("chance does not end")

    def _leaf(
        self,
        target: _Target,
        rows: _Rows,
        saved: Tensor,
        chance: _Chance,
        step: _StepSize,
        count: Tensor,
        levels: int,
    ) -> _Leaf:
        """As the trees have it, where it is wanted by code that is compiled."""
        if not self.compile:
            return self.trees.leaf(target, rows, saved, chance, step, count, levels)
        # a program for trees of usual length, another for the longest
        levels = min(COMPILED_LEVELS if levels <= COMPILED_LEVELS else MOST_LEVELS, self.trees.max_depth)
        key = levels, target.root.ndim
        inputs = [target.root, saved, count, *rows, *chance, *step]
        if key not in self._programs:
            split = len(rows), len(rows) + len(chance)

            def leaf(root: Tensor, saved: Tensor, count: Tensor, *values: Tensor) -> list[Tensor]:
                given = (_Rows(*values[: split[0]]), saved, _Chance(*values[split[0] : split[1]]))
                here = _Target(target.log_joint, target.shapes, root)
                after = self.trees.leaf(here, *given, _StepSize(*values[split[1] :]), count, levels)
                return [*after.step._replace(anchor=after.step.error), *after.rows, *after[2:]]

            self._programs[key] = compiled(leaf, inputs, "a log joint")
        *values, record, place, kept = self._programs[key](*inputs)
        size = len(step)
        after = _StepSize(*values[:size])._replace(anchor=step.anchor)
        return _Leaf(_Rows(*values[size:]), after, record, place, kept)

    def _chances(self, size: int, like: Tensor) -> Iterator[_Chance]:
        """The randomness of leaves without end, drawn for some at a time."""
        rows = like.shape[1:]
        block = max(1, min(16, MOST_NORMALS // max(size * rows.numel(), 1)))
        while True:
            momenta = self._normals((block, size, *rows), like)
            kinetic = 0.5 * momenta.square().sum(1)
            uniform = torch.rand(block, 3, *rows, dtype=like.dtype, device=like.device, generator=self.generator)
            ends, logs = uniform[:, 0] < 0.5, uniform[:, 1:].log()
            yield from map(_Chance, momenta, kinetic, ends, logs[:, 0], logs[:, 1])

    def _normals(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Momenta: the same ones for every precision, drawn in float32, at a fifteenth of the cost of float64.

        A momentum that is off by 1e-7 of itself moves phi's density by as little: no number of draws would show it.
        """
        drawn = torch.randn(tuple(shape), dtype=torch.float32, device=like.device, generator=self.generator)
        return drawn.to(like.dtype)


def _unflatten(flat: Tensor, shapes: dict[str, torch.Size]) -> Params:
    parts = flat.split([shape.numel() for shape in shapes.values()], -1)
    return {
        name: part.reshape(*flat.shape[:-1], *shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }
