"""What the command line takes for outcomes that are numbers: few models, mixed as held-out tasks say.

line          the linear mixed model, theta averaged over where tasks are few: levels and slopes
noisy line    the same, where every task has a noise of its own
curves        a mean curve of all tasks and a curve of each task's own, Gaussian processes both
alone         a Gaussian process for each task, with a noise of its own, which learns little from other tasks
pooled        a network for all tasks, which do not differ: nothing is learned of a task from its own points
network       ALPaCA on learned features, where there are a hundred tasks or more

One of them is right for most tables, and none needs to be chosen: held-out tasks give each a weight
(`bayesmeta.stack`), one for tasks without a point, and others for tasks of one, two and five points, and all tasks
train them once more. The last but one are what is left where learning across tasks fails, in one way and the other.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch

from bayesmeta.arguments import generator_of
from bayesmeta.errors import ConvergenceWarning
from bayesmeta.flat import FlatData
from bayesmeta.hyperpriors import DeviationHyperprior, GaussianHyperprior, LogNormalHyperprior
from bayesmeta.kernels import ConstantKernel, Kernel, LinearKernel, MaternKernel, SubsetKernel, SumKernel
from bayesmeta.learner import Learner
from bayesmeta.learners.closed_form.alpaca import ALPaCA
from bayesmeta.learners.closed_form.hierarchical_process import HierarchicalProcess
from bayesmeta.networks.bases import Identity, Inputs
from bayesmeta.networks.mlp import MLP
from bayesmeta.networks.network import Network
from bayesmeta.networks.task_covariates import TaskCovariates
from bayesmeta.outcomes import Numbers
from bayesmeta.selection.candidates import fresh_process, pooled
from bayesmeta.selection.cross_validation import Factory, OneSplit
from bayesmeta.selection.stack import stack
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.trainers import MANY, ByGradients, Trained, Trainer, Training
from bayesmeta.training.averaging import average
from bayesmeta.training.evidence import fit_evidence
from bayesmeta.training.objectives import Evidence
from bayesmeta.training.runs.settings import digest
from bayesmeta.training.starts import Starts
from bayesmeta.wrappers.stacked import Stacked
from bayesmeta.wrappers.standardized import Standardized
from bayesmeta.wrappers.task_hyperparameters import NoiseScale
from bayesmeta.wrappers.task_quadrature import TaskQuadrature
from bayesmeta.wrappers.with_hyperprior import WithHyperprior

SHOTS = (0, 1, 2, 5)  # at which held-out tasks are predicted
FOLDS = 3  # or a third held out once, of MANY tasks
FEWEST = 4  # tasks that folds are made of
MOST_HELD_OUT = 200  # tasks that weigh models, where there are many
MOST_POINTS, POINTS_OF_TASK = 1_000, 30  # models of few numbers need no more
EXACT_ROWS, INDUCING = 300, 48  # of the curve that all tasks have in common
ITERATIONS = 60  # of a search
ARRIVED = "arrived"
STEPS = 500  # of the pooled network
MEMBERS = 32  # draws of theta of the line
MOST_AVERAGED = 20  # numbers of theta that are averaged over; above, chains would take minutes
MEAN_SCALE = 3.0  # deviation of the effects that tasks share, where inputs and outcomes have deviation 1
HIDDEN = (64, 64)  # widths of the network
OF_NETWORK = ByGradients(Evidence())  # how it is trained


class Sizes(NamedTuple):
    """D inputs, of which the last k are covariates of the task, and C outcomes."""

    num_inputs: int
    num_covariates: int
    num_outputs: int


def shifting(features: Network, num_covariates: int) -> Network:
    """Features with effects of covariates that all tasks share: they shift the outcome.

    Args:
        features: of the other inputs.
        num_covariates: k, the last inputs.

    Example:
        >>> shifting(Identity(1), num_covariates=2).varying  # the constant and the input
        (0, 1)
    """
    return TaskCovariates(features, num_covariates, shifted=[0])


def line(sizes: Sizes) -> Learner:
    """An untrained linear mixed model; its shared effects have a weak prior.

    Args:
        sizes: of the table.

    Example:
        >>> line(Sizes(2, 1, 1)).title
        'Standardized(WithHyperprior(ALPaCA))'
    """
    return Standardized(_mixed(sizes)).double()


def noisy_line(sizes: Sizes) -> Learner:
    """An untrained linear mixed model where the noise of tasks differs.

    Args:
        sizes: of the table.

    Example:
        >>> noisy_line(Sizes(1, 0, 1)).title
        'Standardized(TaskQuadrature(WithHyperprior(ALPaCA)))'
    """
    return Standardized(TaskQuadrature(_mixed(sizes), NoiseScale())).double()


def curves(sizes: Sizes) -> Learner:
    """An untrained process of two levels: lines and curves that tasks share, and those of each task's own.

    Args:
        sizes: of the table, with an input.

    Example:
        >>> curves(Sizes(1, 0, 1)).title
        'Standardized(WithHyperprior(HierarchicalProcess))'
    """
    inputs, own = sizes.num_inputs, sizes.num_inputs - sizes.num_covariates
    terms: list[Kernel] = [ConstantKernel(0.3)]
    if own:
        of_inputs = SumKernel([LinearKernel(0.1), MaternKernel(2.5, variance=0.1)])
        terms.append(SubsetKernel(of_inputs, list(range(own))) if own < inputs else of_inputs)
    process = HierarchicalProcess(
        Inputs(inputs),
        num_outputs=sizes.num_outputs,
        shared_kernel=SumKernel([LinearKernel(), MaternKernel(2.5)]),
        own_kernel=SumKernel(terms),
        exact_rows=EXACT_ROWS,
        num_inducing=INDUCING,
    )
    return Standardized(WithHyperprior(process, LogNormalHyperprior())).double()


def on_network(network: Network, num_outputs: int) -> Learner:
    """An untrained linear model on learned features, for many tasks.

    Args:
        network: of the features.
        num_outputs: C.

    Example:
        >>> on_network(MLP(1, HIDDEN), 1).title
        'Standardized(ALPaCA)'
    """
    return Standardized(ALPaCA(network, num_outputs=num_outputs))


def untrained(num_inputs: int, num_outputs: int) -> Learner:
    """The mixture before a training, which gives it other weights.

    Args:
        num_inputs: D.
        num_outputs: C.

    Example:
        >>> untrained(1, 1)
        Stacked: .33 line + .33 noisy line + .33 curves
    """
    return untrained_with_covariates(num_inputs, 0, num_outputs)


def untrained_with_covariates(num_inputs: int, num_covariates: int, num_outputs: int) -> Learner:
    """The mixture before a training, where effects of covariates do not differ between tasks.

    Args:
        num_inputs: D.
        num_covariates: k, the last of the inputs.
        num_outputs: C.

    Example:
        >>> untrained_with_covariates(2, 1, 1).x_shape
        (2,)
    """
    sizes = Sizes(num_inputs, num_covariates, num_outputs)
    learners = {name: make(sizes) for name, make in _makers(sizes).items()}
    return Stacked(learners, dict.fromkeys(learners, 1.0))


@dataclass(frozen=True)
class ByStacking(Trainer):
    """Held-out tasks give each candidate its weight; then all tasks train them.

    No candidate but the networks has more than some tens of numbers, so that they learn from at most 30 points of a
    task and 1,000 in all, of tasks and points drawn at random. Each third of these tasks is held out in turn; fewer
    than four train the line alone.

    Of 100 tasks or more that have more than 1,000 points the network learns, too, from all of them. A third of the
    tasks, at most 200, is held out, and once: so many tell models apart, and the network, which takes most of the time,
    is trained twice rather than four times.

    Example:
        >>> import bayesmeta as bm
        >>> tasks = bm.tasks.Sawtooth().dataset(3, 6, seed=0)
        >>> trained = ByStacking()(untrained(1, 1), tasks, Training())
        >>> trained.account
        'Stacked: 1.00 line'
    """

    uses: ClassVar[frozenset[str]] = frozenset({"validation"})  # of the network

    def purposes(self, tasks: TaskDataset, training: Training) -> str:
        """How many tasks are to learn from and how many weigh models, and what else becomes of them."""
        chosen = fewer(tasks, training.seed)
        if takes_network(tasks):
            held_out, count = _num_held_out(tasks), len(tasks)
            return (
                f"{count - held_out} to train models on and {held_out} to weigh them by, then all {count} to train on "
                f"(network: {OF_NETWORK.purposes(tasks, training)}; other models: {_learning(chosen)})"
            )
        parts = [_learning(chosen) + (", each third in turn to weigh models by" if _shots(chosen) else "")]
        if len(chosen) < len(tasks):
            parts.append(f"{len(tasks) - len(chosen)} not used")
        return ", ".join(parts)

    def __call__(self, learner: Learner, tasks: TaskDataset, training: Training) -> Trained:
        """What is given says how many inputs and outcomes there are; what is trained is another."""
        has_network = takes_network(tasks)
        if not has_network:
            tasks = fewer(tasks, training.seed)
        outcomes = learner.outcomes
        covariates = 0 if tasks.schema is None else tasks.schema.num_covariates
        inputs = math.prod(tasks.flat.x.shape[1:])
        sizes = Sizes(inputs, covariates, outcomes.count if isinstance(outcomes, Numbers) else 1)
        ends = dict[str, str]()  # of the last training of each model, which is that on all tasks
        factories = _factories(sizes, tasks.data.noise is not None, training, ends)
        shots = _shots(tasks)
        if not shots:
            found = Stacked({"line": factories["line"](tasks)}, {"line": 1.0})
        else:
            folds = OneSplit(_num_held_out(tasks)) if has_network else FOLDS
            factories |= {"network": _network_factory(sizes, training, ends)} if has_network else {}
            found = stack(factories, tasks, shots, folds, query=POINTS_OF_TASK, seed=training.seed)
        return Trained(found, repr(found), _convergence(found, ends))


def takes_network(tasks: TaskDataset) -> bool:
    """Whether a network is among the models: of 100 tasks or more with an input, and more points than the others use.

    Below that, the others learn from every point, in a few seconds, and a network would overfit.

    Args:
        tasks: of the table.

    Example:
        >>> import bayesmeta as bm
        >>> [takes_network(bm.tasks.Sawtooth().dataset(number, 11, seed=0)) for number in (99, 100)]
        [False, True]
    """
    return len(tasks) >= MANY and len(tasks.flat.x) > MOST_POINTS and tasks.flat.x[:1].numel() > 0


def fewer(tasks: TaskDataset, seed: int) -> TaskDataset:
    """Tasks that have 1,000 points together, at most 30 of each, drawn at random.

    Args:
        tasks: of the table.
        seed: of the draw.

    Example:
        >>> import bayesmeta as bm
        >>> fewer(bm.tasks.Sawtooth().dataset(50, 40, seed=0), seed=0)
        TaskDataset(33 tasks, 30 to 30 points each)
    """
    generator, counts = generator_of(seed), tasks.counts.clamp(max=POINTS_OF_TASK).tolist()
    total, kept = 0, list[int]()
    for position in torch.randperm(len(tasks), generator=generator).tolist():
        total += counts[position]
        if kept and total > MOST_POINTS:
            break
        kept.append(position)
    chosen = tasks if len(kept) == len(tasks) else tasks.select(sorted(kept))
    return _thinned(chosen, generator)


def _num_held_out(tasks: TaskDataset) -> int:
    return min(len(tasks) // FOLDS, MOST_HELD_OUT)


def _shots(tasks: TaskDataset) -> list[int]:
    """At which held-out tasks are predicted; empty where tasks are too few, or too short."""
    most = int(tasks.counts.max())
    return [shot for shot in SHOTS if shot < most] if len(tasks) >= FEWEST else []


def _learning(tasks: TaskDataset) -> str:
    return f"{len(tasks)} to learn from"


def _thinned(tasks: TaskDataset, generator: torch.Generator) -> TaskDataset:
    """The same tasks with 30 of their points, where they have more."""
    if int(tasks.counts.max()) <= POINTS_OF_TASK:
        return tasks
    flat = tasks.flat
    of_task = torch.repeat_interleave(torch.arange(len(tasks)), flat.counts)
    order = torch.rand(len(of_task), generator=generator).argsort()
    order = order[of_task[order].argsort(stable=True)]  # task after task, the points of each in any order
    rank = torch.arange(len(order)) - flat.offsets[of_task[order]]
    rows = order[rank < POINTS_OF_TASK].sort().values
    noise = None if flat.noise is None else flat.noise[rows]
    thinned = FlatData.grouped(flat.x[rows], flat.y[rows], of_task[rows], len(tasks), noise)
    return TaskDataset(thinned, tasks.names, tasks.schema, tasks.oracle)


def _mixed(sizes: Sizes) -> WithHyperprior:
    features: Network = Identity(sizes.num_inputs - sizes.num_covariates)
    if sizes.num_covariates:
        features = shifting(features, sizes.num_covariates)
    prior = GaussianHyperprior(MEAN_SCALE, names="prior.location")
    return WithHyperprior(ALPaCA(features, num_outputs=sizes.num_outputs), prior)


def _convergence(found: Learner, ends: dict[str, str]) -> str:
    """How the searches of the models of a mixture have ended, in a sentence."""
    names = [name for name in getattr(found, "names", ()) if name in ends]
    arrived = [name for name in names if ends[name] == ARRIVED]
    others = [f"{name}: {ends[name]}" for name in names if name not in arrived]
    said = [f"converged: {', '.join(arrived)}"] if arrived else []
    return "; ".join([*said, *others])


def _makers(sizes: Sizes) -> dict[str, Callable[[Sizes], Learner]]:
    found: dict[str, Callable[[Sizes], Learner]] = {"line": line, "noisy line": noisy_line}
    return found | {"curves": curves} if sizes.num_inputs else found


def _factories(sizes: Sizes, known_noise: bool, training: Training, ends: dict[str, str]) -> dict[str, Factory]:
    """Of each candidate what makes a trained one, where known noise allows it; in `ends` how its search ended."""

    def factory(name: str, make: Callable[[Sizes], Learner]) -> Factory:
        def trained(tasks: TaskDataset) -> Learner:
            tasks, learner = fewer(tasks, training.seed), make(sizes).to(training.device)
            size = sum(parameter.numel() for parameter in learner.parameters())
            with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):  # searches end early on purpose
                if make is line and sizes.num_outputs == 1 and size <= MOST_AVERAGED:
                    starts, seed = Starts(4, seed=training.seed), training.seed
                    hyperprior = DeviationHyperprior()
                    found = average(
                        learner,
                        tasks,
                        hyperprior,
                        starts=starts,
                        sampler=None,
                        num_members=MEMBERS,
                        shots=(),
                        seed=seed,
                    )
                    learner, result = found.learner, found.fit
                else:
                    result = fit_evidence(learner, tasks, max_iterations=ITERATIONS, tolerance=1e-4)
            ends[name] = ARRIVED if result.stopped_early else f"stopped after {ITERATIONS} iterations"
            return learner

        return trained

    makers = _makers(sizes).items()
    found = {name: factory(name, make) for name, make in makers if make(sizes).known_noise or not known_noise}
    if not known_noise:
        found["alone"] = lambda tasks: fresh_process(fewer(tasks, training.seed)).to(training.device)
    if sizes.num_inputs:
        found["pooled"] = lambda tasks: pooled(fewer(tasks, training.seed), STEPS).to(training.device)
    return found


def _network_factory(sizes: Sizes, training: Training, ends: dict[str, str]) -> Factory:
    def trained(tasks: TaskDataset) -> Learner:
        # the one model that takes its time; it is trained on other tasks for each fold, and on all of them
        own = training if training.checkpoint is None else training.part(f"network-{digest(tasks)}")
        found = OF_NETWORK(on_network(MLP(sizes.num_inputs, HIDDEN), sizes.num_outputs), tasks, own)
        ends["network"] = found.convergence
        return found.learner

    return trained
