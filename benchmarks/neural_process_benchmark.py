"""Neural processes come close to the exact posterior of functions from Gaussian processes, and know sawtooth waves.

The benchmark of github wesselb/neuralprocesses (Bruinsma et al. 2023): functions of one input, in batches of 16 tasks
that share a number of context points, uniform from 0 to 30; 50 targets, 100 of sawtooth waves and mixtures.

    eq, matern, weakly-periodic    y = f(x) + N(0, .05), f from a Gaussian process: length scales .25, .25 and .5,
                                   the last with a period of .25
    sawtooth                       y = (ω (d x - o)) mod 1, ω ~ U(2, 4), without noise
    mixture                        each batch is of one of the four
    interpolation                  context and targets in (-2, 2)
    beyond                         both in (2, 6): the same tasks, shifted, where the functions are stationary
    extrapolation                  context in (-2, 2), targets in (2, 6)

Learners are trained on interpolation for a budget of processor seconds of one thread: 32 fresh tasks a step, one
number of context points for all of them. Scores are nats a target, with 95 % intervals over batches: `joint` is the log
density of all targets of a task over their number, which is what is published; `marginal` takes each target on its own.
Of Gaussian processes the exact posterior is known. `full` is its joint density and `diagonal` its marginals, which no
learner can better that predicts targets independently; the last columns are how far joint and marginals are from them,
on the same tasks. Where a learner is said to be autoregressive, its joint density is also taken point by point, in
three random orders and from left to right; the mixture is that of the three random ones, which is a density.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import bayesmeta as bm
from bayesmeta.tasks.simulators.simulator import uniform
from benchmarks._neural_processes import PROCESSES, RECIPES, Recipe
from benchmarks._report import verdict
from benchmarks._training import fitted, keep_memory, trained

SEED, BATCH, MOST_CONTEXT = 0, 16, 30
FAMILIES: dict[str, Sequence[bm.tasks.FunctionSimulator]] = {
    "eq": [bm.tasks.GPFunctions.eq()],
    "matern": [bm.tasks.GPFunctions.matern()],
    "weakly-periodic": [bm.tasks.GPFunctions.weakly_periodic()],
    "sawtooth": [bm.tasks.Sawtooth()],
    "mixture": bm.tasks.TaskMixture.neural_process().components,
}
INSIDE, OUTSIDE = (-2.0, 2.0), (2.0, 6.0)
SETTINGS = {"interpolation": (INSIDE, INSIDE), "beyond": (OUTSIDE, OUTSIDE), "extrapolation": (INSIDE, OUTSIDE)}
# least of marginal - diagonal; of sawtooth waves, of the joint density
BARS = {
    ("eq", "ConvCNP"): {"interpolation": -0.010, "beyond": -0.010},
    ("matern", "ConvCNP"): {"interpolation": -0.03},
    ("weakly-periodic", "ConvCNP-fine"): {"interpolation": -0.05},
    ("sawtooth", "ConvCNP-mixture"): {"interpolation": 2.0},
    ("eq", "transformer-relative"): {"interpolation": -0.010, "extrapolation": -0.02},
    ("eq", "transformer"): {"interpolation": -0.03},
    ("eq", "CNP"): {"interpolation": -0.30},
}
SHIFT_BAR = 0.001  # of the ConvCNP on eq, between interpolation and the same tasks beyond
AUTOREGRESSIVE_BARS = {("eq", "ConvCNP"): 0.02, ("sawtooth", "ConvCNP-mixture"): 3.0}  # regret to `full`; joint density
COHERENT_BAR = 0.1  # joint density of latent processes above that of the CNP, eq
# log density a target in the three settings; github wesselb/neuralprocesses, tables.ipynb. Those of sawtooth waves are
# from the second of its two tables, which does not say how many outputs there are: presumably one
PUBLISHED: dict[str, dict[str, tuple[float, float, float]]] = {
    "sawtooth": {
        "CNP": (-0.17, -0.18, -0.18),
        "ACNP": (-0.18, -0.18, -0.18),
        "ConvCNP": (2.40, 2.39, 0.01),
        "ConvCNP (AR)": (3.62, 3.62, 3.36),
        "NP (ML)": (0.07, -0.05, -0.05),
        "ANP (ML)": (0.19, -0.18, -0.18),
        "ConvNP (ML)": (3.06, 3.06, 0.64),
    },
    "mixture": {
        "CNP": (-1.03, -1.10, -1.17),
        "ACNP": (-0.46, -1.24, -1.22),
        "ConvCNP": (0.07, 0.06, -1.21),
        "ConvCNP (AR)": (0.56, 0.56, 0.34),
        "NP (ML)": (-0.63, -1.43, -1.25),
        "ANP (ML)": (-0.25, -1.04, -1.04),
        "ConvNP (ML)": (0.38, 0.39, -0.85),
    },
}


def num_targets(family: str) -> int:
    """Of a task."""
    return 50 if all(isinstance(each, bm.tasks.GPFunctions) for each in FAMILIES[family]) else 100


def oracle_of(family: str) -> bm.Learner | None:
    """The exact posterior, where all tasks are of one Gaussian process."""
    components = FAMILIES[family]
    return components[0].oracle if len(components) == 1 else None


def batches(
    family: str, setting: str, num_tasks: int, context: tuple[int, int] = (0, MOST_CONTEXT), seed: int = 30
) -> list[bm.TaskBatch]:
    """Tasks to score on, in batches of 16 with as many context points."""
    inside, outside = SETTINGS[setting]
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(max(num_tasks // BATCH, 2)):
        components = FAMILIES[family]
        component = components[int(torch.randint(len(components), (), generator=generator))]
        count = int(torch.randint(context[0], context[1] + 1, (), generator=generator))
        shape = (BATCH, count, 1), (BATCH, num_targets(family), 1)
        x = torch.cat([uniform(inside, shape[0], generator), uniform(outside, shape[1], generator)], 1)
        y = component.observe(x, generator)
        found.append(
            bm.TaskBatch(*(bm.Data.full(x[:, part], y[:, part]) for part in (slice(count), slice(count, None))))
        )
    return found


@dataclass(frozen=True)
class Score:
    """Nats a target, of each batch."""

    joint: Tensor
    marginal: Tensor

    def independent(self) -> "Score":
        """Of the same marginals, were targets independent."""
        return Score(self.marginal, self.marginal)


def score(learner: bm.Learner, tasks: Sequence[bm.TaskBatch], shown: bool = True) -> Score:
    """Log densities of the targets, given the context or nothing."""
    joint, marginal = [], []
    for batch in tasks:
        support = batch.support if shown else batch.support.points(slice(0))
        prediction, y = learner.adapt(support).predict(batch.query.x), batch.query.y
        joint.append(prediction.log_prob(y.to(prediction.mean)).mean().double() / y.shape[1])
        marginal.append(prediction.marginal_log_prob(y.to(prediction.mean)).mean().double())
    return Score(torch.stack(joint), torch.stack(marginal))


def between(values: Tensor) -> str:
    """The mean, and its 95 % interval over batches: tasks of a batch share the size of their context."""
    return f"{values.mean():.4f} ± {1.96 * values.std() / len(values) ** 0.5:.4f}"


class Report:
    """Tables as they come, and which bars were met."""

    def __init__(self) -> None:
        self.met: list[str] = []
        self.missed: list[str] = []

    def judge(self, what: str, value: float, least: float) -> None:
        (self.met if value >= least else self.missed).append(f"{what} {value:.4f} (bar {least})")

    def row(self, name: str, own: Score, exact: Score | None) -> None:
        cells = [between(own.joint), between(own.marginal)]
        if exact is not None:
            cells += [between(own.marginal - exact.marginal), between(own.joint - exact.joint)]
        print(f"  {name:<24}" + "".join(f"{cell:>21}" for cell in cells), flush=True)


def compare(family: str, learners: dict[str, bm.Learner], num_tasks: int, report: Report) -> None:
    """All learners in the three settings, beside the exact posterior and what is published."""
    oracle = oracle_of(family)
    joint: dict[tuple[str, str], Tensor] = {}
    titles = ["joint", "marginal", *(["marginal - diagonal", "joint - full"] if oracle is not None else [])]
    for place, setting in enumerate(SETTINGS):
        tasks = batches(family, setting, num_tasks)
        print(f"\n{family}, {setting}, {BATCH * len(tasks)} tasks\n  {'':<24}" + "".join(f"{t:>21}" for t in titles))
        exact = None if oracle is None else score(oracle, tasks)
        if oracle is not None and exact is not None:
            report.row("exact: full", exact, exact)
            report.row("exact: diagonal", exact.independent(), exact)
            report.row("exact: prior only", score(oracle, tasks, shown=False).independent(), exact)
        for name, learner in learners.items():
            own = score(learner, tasks)
            report.row(name, own, exact)
            joint[name, setting] = own.joint
            bar = BARS.get((family, name), {}).get(setting)
            if bar is not None:
                value = own.joint if exact is None else own.marginal - exact.marginal
                report.judge(f"{name} {setting}", value.mean().item(), bar)
        for name, values in PUBLISHED.get(family, {}).items():
            print(f"  {f'{name}, published':<24}{values[place]:>12.2f}")
    if family != "eq":
        return
    mean = {name: values.mean().item() for (name, setting), values in joint.items() if setting == "interpolation"}
    if "ConvCNP" in mean:
        moved = (joint["ConvCNP", "beyond"] - joint["ConvCNP", "interpolation"]).mean().abs().item()
        report.judge("ConvCNP, minus what a shift changes,", -moved, -SHIFT_BAR)
    for name in ("latent", "latent-attentive"):
        if {name, "CNP"} <= mean.keys():
            report.judge(f"{name} above CNP, joint,", mean[name] - mean["CNP"], COHERENT_BAR)
    print(f"\norder on {family}: " + " < ".join(sorted(mean, key=mean.__getitem__)))


def autoregressive(
    family: str, name: str, learner: bm.Learner, context: tuple[int, int], num_tasks: int, report: Report
) -> None:
    """Joint densities point by point: each order, their mean, and their mixture."""
    tasks, oracle = batches(family, "interpolation", num_tasks, context), oracle_of(family)
    targets, generator = num_targets(family), torch.Generator().manual_seed(SEED)
    given = bm.wrappers.Autoregressive(learner, bm.wrappers.Given())
    sorted_by_x = bm.wrappers.Autoregressive(learner, bm.wrappers.LeftToRight())
    exact = None if oracle is None else torch.stack([_joint(oracle, batch) for batch in tasks])
    random = torch.stack(
        [
            torch.stack([_joint(given, batch, torch.randperm(targets, generator=generator)) for batch in tasks])
            for _ in range(3)
        ]
    )
    mixture = random.logsumexp(0) - math.log(len(random))
    orders = {f"random order {i + 1}": each for i, each in enumerate(random)}
    orders |= {"mean of the three": random.mean(0), "mixture of the three": mixture}
    orders["left to right"] = torch.stack([_joint(sorted_by_x, batch) for batch in tasks])
    title = f"{family}, {name} point by point, {context[0]} to {context[1]} context points"
    print(f"\n{title}, {BATCH * len(tasks)} tasks\n  {'':<24}{'joint':>21}{'regret to full':>21}")
    if exact is not None:
        print(f"  {'exact: full':<24}{between(exact.mean(-1) / targets):>21}")
    for order, values in orders.items():
        regret = "" if exact is None else between((exact - values).mean(-1) / targets)
        print(f"  {order:<24}{between(values.mean(-1) / targets):>21}{regret:>21}", flush=True)
    print(f"  orders of a task differ by {random.std(0).mean():.2f} nats (sd) in all its targets")
    bar = AUTOREGRESSIVE_BARS.get((family, name))
    if bar is not None and context == (0, MOST_CONTEXT):
        if exact is None:
            report.judge(f"{name} point by point", (mixture.mean() / targets).item(), bar)
        else:
            report.judge(f"{name} point by point, minus the regret,", ((mixture - exact).mean() / targets).item(), -bar)


def _joint(learner: bm.Learner, batch: bm.TaskBatch, order: Tensor | None = None) -> Tensor:
    """log p of all targets of each task, in this order where it matters; float64."""
    query = batch.query if order is None else bm.Data.full(batch.query.x[:, order], batch.query.y[:, order])
    prediction = learner.adapt(batch.support).predict(query.x)
    return prediction.log_prob(query.y.to(prediction.mean)).double()


def make(family: str, recipe: Recipe, seconds: float) -> tuple[bm.Learner, str]:
    """A learner trained on fresh tasks of a family."""
    source = bm.tasks.TaskMixture(FAMILIES[family], whole_batches=True)
    split = bm.tasks.EqualSplit((0, MOST_CONTEXT), num_targets(family))
    return fitted(
        recipe.make,
        source,
        split,
        seconds,
        batch_size=32,
        lr=recipe.lr,
        seed=SEED,
        objective=recipe.objective,
        trial=40,
    )


def main() -> None:
    """Train, score, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", choices=list(FAMILIES), default="eq")
    parser.add_argument("--learner", choices=list(RECIPES), action="append", help="one alone; can be repeated")
    parser.add_argument("--seconds", type=float, help="processor seconds to train; by default those of the bars")
    parser.add_argument("--tasks", type=int, default=1024, help="tasks to score on; 4096 in the protocol")
    parser.add_argument("--models", help="a folder of models: those that are there are scored, others are put there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    family, report = arguments.family, Report()
    learners = {}
    for name in arguments.learner or PROCESSES:
        recipe = RECIPES[name]
        seconds = recipe.others.get(family, recipe.seconds) if arguments.seconds is None else arguments.seconds
        learners[name], took = trained(
            f"{family}-{name}-{seconds:.0f}", lambda recipe=recipe, s=seconds: make(family, recipe, s), arguments.models
        )
        numbers = sum(parameter.numel() for parameter in learners[name].parameters())
        print(f"{name}: {numbers} parameters, {took}", flush=True)
    compare(family, learners, arguments.tasks, report)
    for name, learner in learners.items():
        if RECIPES[name].autoregressive:
            for context in ((0, 2), (0, MOST_CONTEXT)):
                autoregressive(family, name, learner, context, 96, report)
    verdict(f"{family}: met: {', '.join(report.met) or 'none'}; missed: {', '.join(report.missed) or 'none'}", SEED)


if __name__ == "__main__":
    main()
