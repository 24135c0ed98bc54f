"""Gradient-based learners reach the published sinusoid results: MAML, Meta-SGD, CAVIA; iMAML does as well as MAML.

Protocol: that of the papers. Sinusoids without noise, ReLU 40-40, one gradient step, 25 tasks a step and no more steps
than they took, Adam from 1e-3. Their losses are mean squared errors: here the likelihood has the fixed noise variance
0.5, so that its negative log density is the squared error and a constant. A step size of theirs is doubled, as ours is
on half the mean squared error. The posterior is the point that the steps reach. Step sizes are fixed for MAML and CAVIA
and learned for Meta-SGD, as there.

What differs: Adam's rate falls along a cosine, as always in `fit`; the gradient is clipped at norm 10; weights start as
PyTorch has them. (MAML's authors start from a normal of deviation .01. From there, and with a rate of 2e-3, training
with one step ended at networks from which ten steps diverge on some test task.)

Scores are mean squared errors on 100 query points of 4,000 fresh tasks, with standard errors over tasks. MAML's authors
tested on 5 query points of 600 tasks (their main.py), so theirs have a Monte Carlo error: two standard errors of such a
mean, with the spread that we see. (After 5 steps ours is above theirs, by less than that.)

iMAML is held against MAML trained with one step, as in the paper. Five unrolled steps with a learned rate are better
than both at 5 shots, and worse than iMAML at 10.
"""

import time
from dataclasses import dataclass

import torch

import bayesmeta as bm
from benchmarks._report import verdict

# Finn et al. 2017 (arXiv:1703.03400), table 2: gradient steps at test -> MSE after 5 shots
MAML = {1: 0.67, 5: 0.38, 10: 0.35}
# Li et al. 2017 (arXiv:1707.09835), table 1, meta-trained with 5 shots: shots at test -> MSE, half of its 95 % interval
META_SGD = {5: (0.90, 0.16), 10: (0.63, 0.12), 20: (0.50, 0.10)}
META_SGD_MAML = {5: (1.13, 0.18), 10: (0.85, 0.14), 20: (0.71, 0.12)}
# Zintgraf et al. 2019 (arXiv:1810.03642), sec. 4.1, in words: a context of one number fails on amplitude and phase, two
# or more suffice. Which MSE is which is ours to say:
FAILS, WORKS = 0.50, 0.25
CONTEXTS = (1, 2, 3)
SHOTS = (5, 10)  # of iMAML and the MAML beside it


@dataclass(frozen=True)
class Score:
    """Mean squared error, its standard error, and the error of a mean over 5 points of each of 600 tasks."""

    mse: float
    error: float
    paper_error: float

    def __str__(self) -> str:
        return f"{self.mse:.3f} ± {self.error:.3f}"


def score(learner: bm.Learner, tasks: bm.TaskBatch) -> Score:
    """Averages over query points, then over tasks."""
    parts = [tasks.select(slice(start, start + 250)) for start in range(0, tasks.num_tasks, 250)]
    with torch.no_grad():
        mean = torch.cat([learner.adapt(part.support).predict(part.query.x).mean for part in parts])
    squares = (mean - tasks.query.y).square()[..., 0]
    each = squares.mean(-1)
    few = squares[:, :5].mean(-1)
    return Score(each.mean().item(), each.std().item() / len(each) ** 0.5, 2.0 * few.std().item() / 600**0.5)


def fresh(tasks: bm.tasks.Simulator, shots: int) -> bm.TaskBatch:
    """Test tasks of `shots` support points."""
    return tasks.dataset(4_000, 120, seed=1).divided(bm.tasks.RandomSplit.at(shots, 100), seed=0)


def on_grid(tasks: bm.tasks.Sinusoid, shots: int) -> bm.TaskBatch:
    """Test tasks whose query is the function at 100 equidistant points."""
    generator = torch.Generator().manual_seed(1)
    grid = torch.linspace(*tasks.x, 100)[None, :, None].expand(4_000, -1, -1)
    x = torch.cat([tasks.inputs(len(grid), shots, generator), grid], 1)
    y, mask = tasks.observe(x, generator), torch.ones(x.shape[:2], dtype=torch.bool)
    support, query = (bm.Data(x[:, i], y[:, i], mask[:, i]) for i in (slice(shots), slice(shots, None)))
    return bm.TaskBatch(support, query)


def network() -> bm.MLP:
    """The papers'; the same weights every time."""
    torch.manual_seed(0)
    return bm.MLP(1, [40, 40], "relu")


def squared_error() -> bm.likelihoods.Likelihood:
    """Its negative log density is the squared error and a constant."""
    return bm.likelihoods.Gaussian(bm.noise.DiagonalNoise(1, 0.5)).requires_grad_(False)


def one_step() -> bm.MAML:
    """MAML with the paper's step of 0.01."""
    learner = bm.MAML(network(), steps=1, lr=0.02, likelihood=squared_error(), posterior=bm.PointEstimate())
    learner.rate.requires_grad_(False)
    return learner


def maml(steps: int = 70_000) -> dict[int, Score]:
    """Trained with 10 points and one step; tested with 5 points, after 1, 5 and 10 steps."""
    learner, tasks = one_step(), bm.tasks.Sinusoid.maml(noise=0.0)
    bm.fit(learner, tasks, steps, batch_size=25, split=bm.tasks.RandomSplit((10, 10), 10), compile=True)
    test, scores = fresh(tasks, 5), {}
    for count in MAML:
        learner.steps = count
        scores[count] = score(learner, test)
    return scores


def meta_sgd(steps: int = 20_000) -> tuple[dict[int, Score], dict[int, Score]]:
    """Meta-SGD, and MAML trained alike: 5 shots and 10 query points. The paper took 60,000 steps."""
    tasks, both = bm.tasks.Sinusoid.meta_sgd(noise=0.0), []
    learned = bm.MetaSGD(network(), steps=1, lr=0.05, likelihood=squared_error(), posterior=bm.PointEstimate())
    for learner in (learned, one_step()):
        bm.fit(learner, tasks, steps, batch_size=25, split=bm.tasks.RandomSplit((5, 5), 10), compile=True)
        both.append({shots: score(learner, fresh(tasks, shots)) for shots in META_SGD})
    return both[0], both[1]


def cavia(num_context: int, steps: int = 15_000) -> Score:
    """10 shots, one step of 1.0 on the context. The paper took 50,000 steps."""
    tasks = bm.tasks.Sinusoid.maml(noise=0.0)
    learner = bm.CAVIA(
        network(), num_context=num_context, steps=1, lr=2.0, likelihood=squared_error(), posterior=bm.PointEstimate()
    )
    learner.rate.requires_grad_(False)
    bm.fit(learner, tasks, steps, batch_size=25, split=bm.tasks.RandomSplit((10, 10), 10), compile=True)
    return score(learner, on_grid(tasks, 10))


def best_score(learner: bm.MAML, tasks: bm.TaskBatch) -> Score:
    """The best of 1, 5 and 10 steps."""
    each = []
    for count in MAML:
        learner.steps = count
        each.append(score(learner, tasks))
    return min(each, key=lambda s: s.mse)


def imaml(steps: int = 2_500) -> dict[str, dict[int, Score]]:
    """iMAML, and MAML with one step (the paper's) and with five and a learned rate, trained alike.

    The same tasks, 5 to 10 support and 10 query points each, and Adam from 3e-3. iMAML starts from a weak prior
    (precision 5, learned), its optimum is sought by 8 steps of L-BFGS (gradient ascent with momentum diverged, as the
    curvature grows in training), and its implicit gradient by 8 steps of conjugate gradients with Gauss-Newton products
    (the Hessian is indefinite where a solver stops early, and learned more slowly). At test each takes more steps than
    in training where that helps: iMAML 25, the MAMLs the best of 1, 5 and 10.
    """
    tasks, split = bm.tasks.Sinusoid.maml(noise=0.0), bm.tasks.RandomSplit((5, 10), 10)
    implicit = bm.IMAML(
        network(),
        precision=5.0,
        solver=bm.inference.LBFGS(8, 1e-2),
        likelihood=squared_error(),
        posterior=bm.PointEstimate(),
        gauss_newton=True,
        solve_steps=8,
    )
    five = bm.MAML(network(), steps=5, lr=0.02, likelihood=squared_error(), posterior=bm.PointEstimate())
    bm.fit(implicit, tasks, steps, batch_size=25, lr=3e-3, split=split)
    implicit.solver = bm.inference.LBFGS(25, 1e-3)
    scores = {"iMAML": {shots: score(implicit, fresh(tasks, shots)) for shots in SHOTS}}
    for name, learner in {"one step": one_step(), "five steps": five}.items():
        bm.fit(learner, tasks, steps, batch_size=25, lr=3e-3, split=split, compile=True)
        scores[name] = {shots: best_score(learner, fresh(tasks, shots)) for shots in SHOTS}
    return scores


def is_as_good(ours: Score, published: float) -> bool:
    """Whether ours is not above MAML's published figure by more than the latter's own error."""
    return ours.mse <= published + ours.paper_error


def main() -> None:
    """Print our row beside the published one."""
    torch.set_num_threads(1)
    above, missed = [], []

    start = time.perf_counter()
    print(f"MAML, 5 shots{'paper ± error':>22}{'ours':>18}")
    for count, ours in maml().items():
        name, paper = f"step {count}", MAML[count]
        print(f"{name:>13}{f'{paper:.2f} ± {ours.paper_error:.2f}':>22}{ours!s:>18}")
        above += [f"MAML at {name}"] if ours.mse > paper else []
        missed += [] if is_as_good(ours, paper) else [f"MAML at {name}"]
    print(f"({time.perf_counter() - start:.0f} s)\n")

    start = time.perf_counter()
    learned, fixed = meta_sgd()
    print(f"Meta-SGD     {'paper':>22}{'ours':>18}{'MAML, paper':>18}{'MAML, ours':>18}")
    for shots, (paper, error) in META_SGD.items():
        name, ours, beside = f"{shots} shots", learned[shots], fixed[shots]
        published = f"{paper:.2f} ± {error:.2f}", "{:.2f} ± {:.2f}".format(*META_SGD_MAML[shots])
        print(f"{name:>13}{published[0]:>22}{ours!s:>18}{published[1]:>18}{beside!s:>18}")
        above += [f"Meta-SGD at {name}"] if ours.mse > paper else []
        missed += [] if ours.mse <= paper and ours.mse < beside.mse else [f"Meta-SGD at {name}"]
    print(f"({time.perf_counter() - start:.0f} s)\n")

    start = time.perf_counter()
    print(f"CAVIA, 10 shots {'paper':>19}{'ours':>18}")
    for number in CONTEXTS:
        name, ours = f"context of {number}", cavia(number)
        print(f"{name:>13}{'fails' if number == 1 else 'works':>22}{ours!s:>18}")
        missed += [] if (ours.mse > FAILS if number == 1 else ours.mse < WORKS) else [f"CAVIA with a {name}"]
    print(f"({time.perf_counter() - start:.0f} s)\n")

    start = time.perf_counter()
    scores = imaml()
    print(f"iMAML        {'MAML, 1 step':>22}{'MAML, 5 steps':>18}{'iMAML':>18}")
    for shots in SHOTS:
        name, (ours, one, five) = f"{shots} shots", (each[shots] for each in scores.values())
        print(f"{name:>13}{one!s:>22}{five!s:>18}{ours!s:>18}")
        missed += [] if ours.mse <= one.mse else [f"iMAML at {name}"]
        above += [f"iMAML (than MAML of 5 steps) at {name}"] if ours.mse > five.mse else []
    print(f"({time.perf_counter() - start:.0f} s)")

    print(f"\nworse than the published figure: {', '.join(above) if above else 'nowhere'}")
    where = f"not {', '.join(missed)}" if missed else "everywhere"
    verdict(f"as good as published within its error, and iMAML as MAML of one step: {where}", seed=0)


if __name__ == "__main__":
    main()
