"""Outside the training range gradient descent keeps improving, and black boxes do not (Finn & Levine 2018).

MAML, SNAIL and a conditional neural process are trained on the sinusoids of MAML (amplitude .1 to 5, phase 0 to pi, x
from -5 to 5, noise deviation .1) in standard units, each for the same budget of processor seconds of one thread, on
supports of 0 to 20 points. Tested are sinusoids with 10 support points and

    amplitude   5 to 10         up to twice what was seen, beginning where training ended
    phase       pi to 2 pi      the half circle that was not seen: sin(x - b - pi) = -sin(x - b)
    both

at the inputs of the training. Two ranges that adjoin and do not overlap, as wide as (phase), or wider than (amplitude)
the training's: they, the number of tasks and the recipes were written down before anything was measured. MAML is
trained with 5 steps; theta as it is then, it is tested with 1, 2, 5, 10 and 20. The bar is for both: the mean squared
error of MAML with 10 steps is at most half of SNAIL's and of the neural process's. Errors are standard errors over
tasks.
"""

import argparse
import math
import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

import bayesmeta as bm
from benchmarks._neural_processes import RECIPES, Recipe
from benchmarks._report import verdict
from benchmarks._training import fitted, keep_memory, trained

SEED, SHOTS, QUERY, TASKS, LONGEST = 0, 10, 20, 1000, 20
STEPS, BAR = (1, 2, 5, 10, 20), 0.5
LOUD, SHIFTED = (5.0, 10.0), (math.pi, 2.0 * math.pi)
LEARNERS: dict[str, Recipe] = {
    "MAML": RECIPES["MAML"],
    "SNAIL": Recipe(lambda: bm.SNAIL(bm.Identity(1), max_points=LONGEST)),
    "CNP": RECIPES["CNP"],
}
FAMILIES: dict[str, Callable[[], bm.tasks.Sinusoid]] = {
    "in range": bm.tasks.Sinusoid,
    "phase": partial(bm.tasks.Sinusoid, phase=SHIFTED),
    "amplitude": partial(bm.tasks.Sinusoid, amplitude=LOUD),
    "both": partial(bm.tasks.Sinusoid, amplitude=LOUD, phase=SHIFTED),
}


def squared_errors(learner: bm.Learner, tasks: bm.TaskBatch) -> Tensor:
    """The mean squared error of each task; infinite where adaptation explodes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", bm.ConvergenceWarning)  # steps that overshoot, which the errors show
            mean = learner.adapt(tasks.support).predict(tasks.query.x).mean
    except bm.InferenceError as error:
        print(f"  {str(error).splitlines()[0]}")
        return torch.full((tasks.num_tasks,), torch.inf, dtype=torch.float64)
    return (mean - tasks.query.y).double().square().mean((-1, -2))


def ratio(first: Tensor, second: Tensor) -> tuple[float, float]:
    """The ratio of two means over the same tasks, and its standard error by the delta method."""
    value = (first.mean() / second.mean()).item()
    return value, ((first - value * second).std() / math.sqrt(len(first)) / second.mean()).item()


def main() -> None:
    """Train, and test in and out of range."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120.0, help="processor seconds to train each learner")
    parser.add_argument("--models", help="a folder of models: those that are there are tested, others are put there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    split = bm.tasks.EqualSplit((0, LONGEST), QUERY)
    learners: dict[str, bm.Learner] = {}
    for label, recipe in LEARNERS.items():

        def make(recipe: Recipe = recipe) -> tuple[bm.Learner, str]:
            return fitted(
                lambda: bm.Standardized(recipe.make()),
                FAMILIES["in range"](),
                split,
                arguments.seconds,
                batch_size=32,
                lr=recipe.lr,
                seed=SEED,
                objective=recipe.objective,
                trial=40,
            )

        learners[label], took = trained(f"outside-{label}-{arguments.seconds:.0f}", make, arguments.models)
        print(f"{label}: {took}", flush=True)
    errors: dict[str, dict[str, Tensor]] = {}
    for family, simulator in FAMILIES.items():
        generator = torch.Generator().manual_seed(SEED + 1)
        tasks = simulator().draw(TASKS, bm.tasks.RandomSplit.at(SHOTS, QUERY), generator)
        rows = errors[family] = {"zero": tasks.query.y.double().square().mean((-1, -2))}
        for label in ("SNAIL", "CNP"):
            rows[label] = squared_errors(learners[label], tasks)
        maml = learners["MAML"]
        assert isinstance(maml, bm.Standardized)
        for steps in STEPS:
            maml.learner.steps = steps
            rows[f"MAML, {steps}"] = squared_errors(maml, tasks)
    print(f"\nmean squared error at {SHOTS} points, {TASKS} tasks; MAML was trained with 5 steps")
    print(f"{'':<12}" + "".join(f"{family:>20}" for family in FAMILIES))
    for label in errors["both"]:
        cells = ((each[label].mean(), each[label].std() / math.sqrt(TASKS)) for each in errors.values())
        print(f"{label:<12}" + "".join(f"{f'{mean:.3f} ± {error:.3f}':>20}" for mean, error in cells))
    found = {label: ratio(errors["both"]["MAML, 10"], errors["both"][label]) for label in ("SNAIL", "CNP")}
    met = "met" if all(value <= BAR for value, _ in found.values()) else "missed"
    text = ", ".join(f"{value:.3f} ± {error:.3f} times {label}'s" for label, (value, error) in found.items())
    verdict(f"{met}: outside the training range the squared error of MAML with 10 steps is {text} (<= {BAR})", SEED)


if __name__ == "__main__":
    main()
