"""Meta Networks learn sinusoids better than one step of MAML does; what fine-tuning a network of all tasks is worth.

MAML's sinusoids with noise of deviation .1, so that there is a density to score. Every learner is trained for the same
budget of processor seconds of one thread, on fresh tasks with 1 to 10 support points and 10 others, and scored at 100
points of each of 1,000 tasks: mean squared error (of which .01 is noise) and NLL, with standard errors over tasks. MAML
is trained as in the paper, with one step of .01 on the squared error, and it and fine-tuning are scored after 1, 5 and
10 steps of that size. (Some tasks overshoot, and are scored as they are; the warnings are not shown.)
"""

import argparse
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch

import bayesmeta as bm
from benchmarks._report import verdict
from benchmarks._training import fitted, keep_memory, trained

SEED, SHOTS, STEPS = 0, (1, 5, 10), (1, 5, 10)
# Finn et al. 2017 (arXiv:1703.03400), table 2: MSE with 5 shots after 1, 5 and 10 steps, trained for 70,000 steps
PUBLISHED = {"MAML": (0.67, 0.38, 0.35), "pre-trained on all tasks": (2.41, 2.23, 2.19)}


@dataclass(frozen=True)
class Recipe:
    """How a learner is made and trained.

    Attributes:
        make: a fresh learner.
        lr: the first learning rate.
        after: sets how many gradient steps a task gets; None of learners that take none.
    """

    make: Callable[[], bm.Learner]
    lr: float = 1e-3
    after: Callable[[bm.Learner, int], None] | None = None


def maml() -> bm.MAML:
    learner = bm.MAML(bm.MLP(1, [40, 40], "relu"), steps=1, lr=0.02, posterior=bm.PointEstimate())
    learner.rate.requires_grad_(False)
    return learner


def fine_tuned() -> bm.FineTuned:
    return bm.FineTuned(bm.MLP(1, [40, 40], "relu"), solver=bm.inference.GradientSteps(1, lr=0.02))


def take(learner: bm.Learner, steps: int) -> None:
    """So many gradient steps a task."""
    (learner if isinstance(learner, bm.MAML) else learner.solver).steps = steps


RECIPES = {
    "MetaNetworks": Recipe(lambda: bm.MetaNetworks(bm.MLP(1, [64, 64])), lr=2e-3),
    "MAML": Recipe(maml, after=take),
    "FineTuned": Recipe(fine_tuned, after=take),
    "SNAIL": Recipe(lambda: bm.SNAIL(bm.MLP(1, [64, 64]), max_points=max(SHOTS))),
}


@torch.no_grad()
def score(learner: bm.Learner, tasks: bm.TaskBatch) -> dict[str, tuple[float, float]]:
    """Mean squared error and NLL of a point, nats, each with its standard error over tasks."""
    errors, nlls = [], []
    for start in range(0, tasks.num_tasks, 100):
        part = tasks.select(slice(start, start + 100))
        prediction = learner.adapt(part.support).predict(part.query.x)
        errors.append((prediction.mean - part.query.y).square().mean((1, 2)))
        nlls.append(-prediction.marginal_log_prob(part.query.y).mean(-1))
    found = {}
    for name, each in (("mse", torch.cat(errors).double()), ("nll", torch.cat(nlls).double())):
        found[name] = (each.mean().item(), each.std().item() / len(each) ** 0.5)
    return found


def main() -> None:
    """Train, score, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--learner", choices=list(RECIPES), action="append", help="one alone; can be repeated")
    parser.add_argument("--seconds", type=float, default=120.0, help="processor seconds to train each learner")
    parser.add_argument("--models", help="a folder of models: those that are there are scored, others are put there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    warnings.simplefilter("ignore", bm.ConvergenceWarning)
    tasks = bm.tasks.Sinusoid.maml(noise=0.1)
    test = tasks.dataset(1_000, max(SHOTS) + 100, seed=1)
    divided = {shots: test.divided(bm.tasks.RandomSplit.at(shots, 100), seed=0) for shots in SHOTS}
    found: dict[tuple[str, int], float] = {}
    for name in arguments.learner or RECIPES:
        recipe = RECIPES[name]
        learner, took = trained(
            f"{name}-{arguments.seconds:.0f}",
            lambda recipe=recipe: fitted(
                recipe.make,
                tasks,
                bm.tasks.RandomSplit((1, max(SHOTS)), 10),
                arguments.seconds,
                batch_size=25,
                lr=recipe.lr,
                seed=SEED,
                trial=40,
            ),
            arguments.models,
        )
        print(f"\n{name}: {took}", flush=True)
        for steps in STEPS if recipe.after else (0,):
            if recipe.after:
                recipe.after(learner, steps)
            row = f"  {f'after {steps} steps' if steps else '':<16}"
            for shots, batch in divided.items():
                try:
                    scores = score(learner, batch)
                except bm.InferenceError as error:  # steps that diverge in a task
                    row += f"   {shots:>2} shots: {str(error).split('. ')[0]}"
                    continue
                (mse, error), (nll, width) = scores["mse"], scores["nll"]
                row += f"   {shots:>2} shots: MSE {mse:.3f} ± {error:.3f}, NLL {nll:.3f} ± {width:.3f}"
                if shots == 5:
                    found[name, steps] = mse
            print(row, flush=True)
    print("\npublished MSE with 5 shots, after 1, 5 and 10 steps")
    for name, row in PUBLISHED.items():
        print(f"  {name:<26}" + "".join(f"{value:>7.2f}" for value in row))
    ours, theirs = found.get(("MetaNetworks", 0)), found.get(("MAML", 1))
    text = "not both of Meta Networks and MAML were run"
    if ours is not None and theirs is not None:
        held = "met" if ours < theirs else "missed"
        text = f"{held}: 5-shot MSE of Meta Networks {ours:.3f}, of MAML after one step {theirs:.3f}"
    verdict(text, SEED)


if __name__ == "__main__":
    main()
