"""What the command line takes by default is not worse than a network where there are many tasks.

A table of sinusoids (`bm.tasks.Sinusoid`), ten rows each, is written as CSV; `bayesmeta fit TABLE` and `bayesmeta fit
TABLE --method alpaca` learn from it with the same steps, and predict ten points of fresh tasks from 0, 1, 2 and 5
others. The claim is of 500 tasks and 5 points: the default's NLL is not higher by more than .02 nats a point. The true
prior's NLL stands beside them, and with `--without-network` that of the lines and curves alone, which learn from at
most 1,000 rows.
"""

import argparse
import contextlib
import io
import tempfile
import time
import unittest.mock
from pathlib import Path

import pandas as pd
import torch

import bayesmeta as bm
from bayesmeta import default_stack
from bayesmeta.cli.app import app
from bayesmeta.evaluation.metrics import marginal_nll
from benchmarks._report import verdict

SHOTS, CLAIMED, BAR = (0, 1, 2, 5), 5, 0.02


def table(simulator: bm.tasks.Sinusoid, num_tasks: int, path: Path) -> None:
    """Write ten points of each task."""
    flat = simulator.dataset(num_tasks, 10, seed=0).flat
    task = torch.arange(num_tasks).repeat_interleave(flat.counts)
    columns = {"task": task, "x": flat.x[:, 0], "y": flat.y[:, 0]}
    pd.DataFrame({name: column.numpy() for name, column in columns.items()}).to_csv(path, index=False)


def fitted(path: Path, folder: Path, steps: int, more: list[str]) -> tuple[bm.Learner, float]:
    """What `bayesmeta fit` makes of a table, and the processor seconds that it takes; what it says is printed."""
    arguments = ["fit", str(path), "--task", "task", "--x", "x", "--y", "y", "-o", str(folder), "--steps", str(steps)]
    start, said = time.process_time(), io.StringIO()
    with contextlib.redirect_stdout(said):
        app([*arguments, *more], standalone_mode=False)
    seconds = time.process_time() - start
    print("\n".join(said.getvalue().splitlines()[3:]).replace(str(folder), "MODEL"), flush=True)
    return bm.load(folder), seconds


def scores(learner: bm.Learner, test: bm.TaskDataset) -> dict[int, torch.Tensor]:
    """NLL of a point of each task at each number of shots, nats."""
    found = {}
    for shots in SHOTS:
        batch = test.divided(bm.tasks.RandomSplit.at(shots, 10), seed=0)
        prediction = learner.adapt(batch.support).predict(batch.query.x)
        found[shots] = marginal_nll(prediction, batch.query.y, batch.query.mask)
    return found


def main() -> None:
    """Fit both, and score them on the same points."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=500)
    parser.add_argument("--steps", type=int, default=3_000)
    parser.add_argument("--fresh", type=int, default=400, help="tasks to score on")
    parser.add_argument("--without-network", action="store_true", help="score the default without its network, too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    simulator = bm.tasks.Sinusoid()
    test = simulator.dataset(arguments.fresh, 15, seed=1)
    kinds: dict[str, list[str]] = {"default": [], "alpaca": ["--method", "alpaca"]}
    if arguments.without_network:
        kinds["without"] = []
    nll, seconds = {}, {}
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, "table.csv")
        table(simulator, arguments.tasks, path)
        for kind, more in kinds.items():
            with unittest.mock.patch.object(default_stack, "MANY", 10**9 if kind == "without" else default_stack.MANY):
                learner, seconds[kind] = fitted(path, Path(temporary, kind), arguments.steps, more)
            nll[kind] = scores(learner, test)
    best = scores(simulator.oracle, test)
    print(f"\n{arguments.tasks} tasks x 10 rows, {arguments.steps} steps; NLL on {len(test)} fresh tasks, nats a point")
    print("shots  true prior  " + "".join(f"{kind:>10}" for kind in kinds) + "   default from alpaca ± s.e.")
    for shots in SHOTS:
        gap = nll["default"][shots] - nll["alpaca"][shots]
        each = "".join(f"{nll[kind][shots].mean():>10.3f}" for kind in kinds)
        print(
            f"{shots:>5}  {best[shots].mean():>10.3f}  {each}   {gap.mean():+.3f} ± {gap.std() / len(gap) ** 0.5:.3f}"
        )
    gap = (nll["default"][CLAIMED] - nll["alpaca"][CLAIMED]).mean().item()
    took = ", ".join(f"{kind} {each:.0f}" for kind, each in seconds.items())
    verdict(
        f"{'met' if gap <= BAR else 'missed'}: at {CLAIMED} points the default's NLL is {gap:+.3f} nats from alpaca's "
        f"(bar {BAR:+.2f}); processor seconds of a fit: {took}",
        seed=0,
    )


if __name__ == "__main__":
    main()
